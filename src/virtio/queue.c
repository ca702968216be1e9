// SPDX-License-Identifier: Apache-2.0
/* A split virtqueue, from the device's side. (virtio 1.2, 2.7)
 *
 * The driver writes descriptors, then the available index; we read the index with acquire order, copy each descriptor
 * once, check the copy, and hand out its buffers as spans of guest memory. What was served goes into the used ring,
 * then the used index is published with release order.
 *
 *     driver:  descriptors … available ring … release(available index)
 *     device:  acquire(available index) … ring entry … descriptors … buffers
 *     device:  buffers … used ring … release(used index)                     then the call
 *
 * Notifications are suppressed both ways: by flags, or with EVENT_IDX by the index at which the other side wants to
 * hear again (2.7.10). Asking and checking must not pass each other: a full barrier stands between publishing our
 * wish and looking at the ring, and its partner is the one that the driver has between publishing its index and
 * reading our wish.
 *
 * A chain is a list of descriptors; an indirect one is a table elsewhere in guest memory. The standard allows no chain
 * longer than the queue (2.7.5.3.1), which also ends loops: after `entries` links the ring is broken.
 *
 * Invariants: (1) no field of a descriptor, index or ring entry is read twice. (2) a chain never has more than
 * `entries` links, so its spans fit in the table that queue_new made. (3) a broken or stopped ring is neither read
 * nor written. (4) a driver can have at most `entries` chains in flight.
 *
 * Trust: every byte of the ring belongs to a hostile guest; addresses were checked by queue_start, heads by queue_pop.
 */
#include "virtio/queue.h"

#include "base/alloc.h"
#include "virtio/inflight.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

enum { DESCRIPTOR_NEXT = 1, DESCRIPTOR_WRITE = 2, DESCRIPTOR_INDIRECT = 4 };
enum { AVAILABLE_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };
enum { descriptor_bytes = 16, ring_header_bytes = 4, used_entry_bytes = 8 };

struct descriptor { /* in our own byte order */
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

struct used_entry {
    uint32_t head, written_bytes;
};

struct queue {
    const struct memory *memory; /* borrowed; NULL while stopped */
    uint16_t most_entries, entries;
    bool is_broken, has_event_index, has_indirect;
    const uint8_t *descriptors; /* borrowed spans of guest memory */
    uint8_t *available, *used;
    uint16_t next_available, next_used;
    uint16_t called_used; /* the used index when the driver was last told */
    uint16_t in_flight;   /* popped and not pushed */
    uint16_t last_head;   /* the chain popped last, */
    bool was_repeated;    /* which a process before us had popped, too */
    struct inflight inflight;
    struct iovec *spans; /* owned; room for the longest chain */
    size_t span_capacity;
};

/* ---- the ring's words: little-endian, shared with the guest, each read or written once ---- */

static uint16_t load_16(const uint8_t *word, memory_order order)
{
    return atomic_load_explicit((const _Atomic uint16_t *)(const void *)word, order);
}

static void store_16(uint8_t *word, uint16_t value, memory_order order)
{
    atomic_store_explicit((_Atomic uint16_t *)(void *)word, value, order);
}

static uint8_t *available_flags(const struct queue *queue)
{
    return queue->available;
}

static uint8_t *available_index(const struct queue *queue)
{
    return queue->available + 2;
}

/* Where the driver says at which used index it wants an interrupt: behind its ring. */
static uint8_t *used_event(const struct queue *queue)
{
    return queue->available + ring_header_bytes + 2 * (size_t)queue->entries;
}

static uint8_t *used_flags(const struct queue *queue)
{
    return queue->used;
}

static uint8_t *used_index(const struct queue *queue)
{
    return queue->used + 2;
}

/* Where we say at which available index we want a kick. */
static uint8_t *available_event(const struct queue *queue)
{
    return queue->used + ring_header_bytes + used_entry_bytes * (size_t)queue->entries;
}

/* ---- life ---- */

static bool is_power_of_two(uint16_t number)
{
    return number != 0 && (number & (number - 1)) == 0;
}

int queue_new(uint16_t most_entries, struct queue **ret_queue)
{
    assert(is_power_of_two(most_entries) && most_entries <= QUEUE_MOST_ENTRIES);
    auto_free struct queue *queue = alloc_zero(sizeof(*queue));
    if (queue == NULL)
        return -ENOMEM;
    /* A buffer that crosses from one region into the next takes two spans. */
    queue->span_capacity = (size_t)most_entries + MEMORY_MOST_REGIONS;
    queue->spans = alloc_zero(queue->span_capacity * sizeof(queue->spans[0]));
    if (queue->spans == NULL)
        return -ENOMEM;
    queue->most_entries = most_entries;
    *ret_queue = steal_ptr(queue);
    return 0;
}

struct queue *queue_free(struct queue *queue)
{
    if (queue == NULL)
        return NULL;
    free(queue->spans);
    free(queue);
    return NULL;
}

struct parts { /* of a ring, in our memory */
    const uint8_t *descriptors;
    uint8_t *available, *used;
};

static int find_parts(const struct queue *queue, const struct memory *memory, const struct queue_layout *layout,
                      struct parts *ret_parts)
{
    size_t entries = layout->entries;
    if (!is_power_of_two(layout->entries) || layout->entries > queue->most_entries)
        return -EINVAL;
    /* (2.7, alignment) Aligned guest addresses are aligned here, too: regions are mapped by whole pages. */
    if (layout->descriptors % 16 != 0 || layout->available % 2 != 0 || layout->used % 4 != 0)
        return -EINVAL;
    struct parts parts = {
        .descriptors = memory_span(memory, layout->descriptors, descriptor_bytes * entries),
        .available = memory_span(memory, layout->available, ring_header_bytes + 2 * entries + 2),
        .used = memory_span(memory, layout->used, ring_header_bytes + used_entry_bytes * entries + 2),
    };
    if (parts.descriptors == NULL || parts.available == NULL || parts.used == NULL)
        return -EFAULT;
    *ret_parts = parts;
    return 0;
}

int queue_check(const struct queue *queue, const struct memory *memory, const struct queue_layout *layout)
{
    struct parts parts;
    return find_parts(queue, memory, layout, &parts);
}

int queue_start(struct queue *queue, const struct memory *memory, const struct queue_layout *layout)
{
    struct parts parts;
    queue_stop(queue);
    int result = find_parts(queue, memory, layout, &parts);
    if (result < 0)
        return result;
    queue->descriptors = parts.descriptors;
    queue->available = parts.available;
    queue->used = parts.used;
    queue->entries = layout->entries;
    queue->has_event_index = layout->has_event_index;
    queue->has_indirect = layout->has_indirect;
    queue->next_available = layout->next_available;
    /* The used index is ours, but the last back end wrote it: it goes on from there. */
    queue->next_used = load_16(used_index(queue), memory_order_relaxed);
    queue->called_used = queue->next_used;
    queue->in_flight = 0;
    queue->is_broken = false;
    inflight_begin(&queue->inflight, layout->inflight, layout->entries, queue->next_used);
    if (layout->inflight != NULL)
        queue->next_available = (uint16_t)(queue->next_used + queue->inflight.to_repeat);
    queue->memory = memory;
    return 0;
}

void queue_stop(struct queue *queue)
{
    queue->memory = NULL;
    queue->descriptors = NULL;
    queue->available = queue->used = NULL;
    queue->inflight = (struct inflight){0};
}

bool queue_is_started(const struct queue *queue)
{
    return queue->memory != NULL;
}

void queue_break(struct queue *queue)
{
    queue->is_broken = true;
}

bool queue_is_broken(const struct queue *queue)
{
    return queue->is_broken;
}

uint16_t queue_next_available(const struct queue *queue)
{
    return queue->next_available;
}

uint16_t queue_next_used(const struct queue *queue)
{
    return queue->next_used;
}

uint16_t queue_size(const struct queue *queue)
{
    return queue->entries;
}

static bool is_usable(const struct queue *queue)
{
    return queue->memory != NULL && !queue->is_broken;
}

/* ---- taking ---- */

/* The one read of a descriptor. Atomic loads, because a compiler may read plain memory again where it sees fit, and
 * the guest may have changed it by then. */
static struct descriptor read_descriptor(const uint8_t *bytes)
{
    const _Atomic uint64_t *words = (const _Atomic uint64_t *)(const void *)bytes;
    uint64_t address = atomic_load_explicit(&words[0], memory_order_relaxed);
    uint64_t rest = atomic_load_explicit(&words[1], memory_order_relaxed);
    return (struct descriptor){
        .address = address,
        .length = (uint32_t)rest,
        .flags = (uint16_t)(rest >> 32),
        .next = (uint16_t)(rest >> 48),
    };
}

struct walk {
    struct queue *queue;
    struct queue_chain *chain;
    size_t links, spans;
};

/* Adds a descriptor's buffer to the chain; false breaks the ring. */
static bool add_buffer(struct walk *walk, const struct descriptor *descriptor)
{
    struct queue *queue = walk->queue;
    struct queue_chain *chain = walk->chain;
    bool is_writable = (descriptor->flags & DESCRIPTOR_WRITE) != 0;
    if (!is_writable && chain->writable_count > 0)
        return false; /* readable buffers come first (2.7.4.2) */
    uint64_t address = descriptor->address, left = descriptor->length;
    if (left == 0)
        return false; /* a buffer of nothing is no buffer, and its address would go unchecked */
    while (left > 0) {
        uint64_t length = left;
        void *span = memory_span_begin(queue->memory, address, &length);
        if (span == NULL || walk->spans == queue->span_capacity)
            return false;
        queue->spans[walk->spans++] = (struct iovec){.iov_base = span, .iov_len = length};
        *(is_writable ? &chain->writable_count : &chain->readable_count) += 1;
        address += length; /* no overflow: the span ends inside a region */
        left -= length;
    }
    *(is_writable ? &chain->writable_bytes : &chain->readable_bytes) += descriptor->length;
    return true;
}

/* Follows the links of a table of `size` descriptors from `index` on. */
static bool walk_table(struct walk *walk, const uint8_t *table, size_t size, uint16_t index, bool is_indirect)
{
    for (;;) {
        struct descriptor descriptor;
        if (index >= size || walk->links++ == walk->queue->entries)
            return false;
        descriptor = read_descriptor(table + (size_t)index * descriptor_bytes);
        if ((descriptor.flags & DESCRIPTOR_INDIRECT) != 0) {
            /* An indirect table stands alone in its chain's last place, and not inside another (2.7.5.3.1). */
            if (is_indirect || !walk->queue->has_indirect || (descriptor.flags & DESCRIPTOR_NEXT) != 0)
                return false;
            size_t count = descriptor.length / descriptor_bytes;
            const uint8_t *inner = memory_span(walk->queue->memory, descriptor.address, descriptor.length);
            bool is_aligned = descriptor.address % sizeof(uint64_t) == 0; /* what our loads need; drivers give more */
            if (inner == NULL || descriptor.length % descriptor_bytes != 0 || count > walk->queue->entries ||
                !is_aligned)
                return false;
            walk->links--; /* the reference itself is no link of the chain */
            return walk_table(walk, inner, count, 0, true);
        }
        if (!add_buffer(walk, &descriptor))
            return false;
        if ((descriptor.flags & DESCRIPTOR_NEXT) == 0)
            return true;
        index = descriptor.next;
    }
}

/* The head of the next chain: 1, 0 when there is none, -EPROTO where there cannot be so many. */
static int next_head(struct queue *queue, uint16_t *ret_head)
{
    queue->was_repeated = inflight_repeat(&queue->inflight, ret_head);
    if (queue->was_repeated)
        return 1;
    /* Acquire: pairs with the driver's release of the index behind its ring entries and descriptors. */
    uint16_t index = load_16(available_index(queue), memory_order_acquire);
    uint16_t pending = (uint16_t)(index - queue->next_available);
    size_t slot = queue->next_available % queue->entries;
    if (pending == 0)
        return 0;
    *ret_head = load_16(queue->available + ring_header_bytes + 2 * slot, memory_order_relaxed);
    /* More chains than the queue has places cannot be: some descriptor would be in two of them. */
    return pending > queue->entries ? -EPROTO : 1;
}

static void note_taken(struct queue *queue, uint16_t head)
{
    queue->in_flight++;
    queue->last_head = head;
    if (queue->was_repeated)
        return;
    inflight_take(&queue->inflight, head);
    queue->next_available++;
}

int queue_pop(struct queue *queue, struct queue_chain *ret_chain)
{
    struct queue_chain chain = {0};
    struct walk walk = {.queue = queue, .chain = &chain};
    if (!is_usable(queue))
        return queue->is_broken ? -EPROTO : 0;
    int result = next_head(queue, &chain.head);
    if (result == 0)
        return 0;
    if (result < 0 || queue->in_flight == queue->entries ||
        !walk_table(&walk, queue->descriptors, queue->entries, chain.head, false)) {
        queue_break(queue);
        return -EPROTO;
    }
    chain.readable = queue->spans;
    chain.writable = queue->spans + chain.readable_count;
    note_taken(queue, chain.head);
    *ret_chain = chain;
    return 1;
}

void queue_unpop(struct queue *queue)
{
    if (!is_usable(queue))
        return;
    assert(queue->in_flight > 0);
    queue->in_flight--;
    if (queue->was_repeated) {
        inflight_repeat_later(&queue->inflight, queue->last_head);
        return;
    }
    inflight_put_back(&queue->inflight, queue->last_head);
    queue->next_available--;
}

/* ---- giving back ---- */

void queue_push(struct queue *queue, uint16_t head, uint32_t written_bytes)
{
    if (!is_usable(queue))
        return;
    assert(queue->in_flight > 0 && head < queue->entries);
    struct used_entry entry = {.head = head, .written_bytes = written_bytes};
    size_t slot = queue->next_used % queue->entries;
    memcpy(queue->used + ring_header_bytes + used_entry_bytes * slot, &entry, sizeof(entry));
    queue->next_used++;
    queue->in_flight--;
    inflight_push(&queue->inflight, head);
    /* Release: the driver's acquire of the index sees the entry and the buffers. */
    store_16(used_index(queue), queue->next_used, memory_order_release);
    inflight_pushed(&queue->inflight, head, queue->next_used);
}

bool queue_needs_call(struct queue *queue)
{
    if (!is_usable(queue) || queue->next_used == queue->called_used)
        return false;
    /* Full barrier: our index before its wish. Pairs with the driver's between its wish and our index (2.7.7.2). */
    atomic_thread_fence(memory_order_seq_cst);
    if (!queue->has_event_index) {
        queue->called_used = queue->next_used;
        return (load_16(available_flags(queue), memory_order_relaxed) & AVAILABLE_NO_INTERRUPT) == 0;
    }
    uint16_t event = load_16(used_event(queue), memory_order_relaxed);
    /* Has the index passed the event since the last call? Distances on the ring of 2^16 (2.7.10.1). */
    bool has_passed = (uint16_t)(queue->next_used - event - 1) < (uint16_t)(queue->next_used - queue->called_used);
    queue->called_used = queue->next_used;
    return has_passed;
}

bool queue_enable_kicks(struct queue *queue)
{
    if (!is_usable(queue))
        return false;
    if (queue->has_event_index)
        store_16(available_event(queue), queue->next_available, memory_order_relaxed);
    else
        store_16(used_flags(queue), 0, memory_order_relaxed);
    /* Full barrier: our wish before its index. Pairs with the driver's between its index and our wish (2.7.10.2). */
    atomic_thread_fence(memory_order_seq_cst);
    return load_16(available_index(queue), memory_order_relaxed) != queue->next_available;
}

void queue_disable_kicks(struct queue *queue)
{
    /* With EVENT_IDX there is nothing to do: the event lies behind us as soon as we pop. */
    if (is_usable(queue) && !queue->has_event_index)
        store_16(used_flags(queue), USED_NO_NOTIFY, memory_order_relaxed);
}
