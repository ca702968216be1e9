// SPDX-License-Identifier: Apache-2.0
/* Which chains of a queue are in flight, in memory that outlives this process. (QEMU, docs/interop/vhost-user, inflight
 * I/O tracking, split virtqueue)
 *
 * A device that finishes out of order cannot go on at the used index when its process was killed: some chains behind it
 * are done, some before it are not. So each head has an entry that says whether it is in flight, and a number that says
 * in which order heads were taken. The next process takes those again first, oldest first, and only then new ones.
 *
 *     taken:   number, then in flight = 1
 *     pushed:  last head = this one ── used index of the ring ── in flight = 0 ── used index here
 *                                      └─ killed between: the index here is old, and the last head is done after all
 *
 * The steps of a process that is killed are seen by the next one in the order in which it made them: x86 keeps stores
 * in order, and the release stores here keep the compiler from changing that.
 *
 * Invariants: (1) a head is in flight here from before its chain is handed out until after it was pushed. (2) no more
 * chains are repeated than were found at the beginning, each once.
 *
 * Trust: the front end shares this memory and can write any nonsense at any time. Heads are entries of the table and
 * nothing else; what is in the chains is checked by the queue, as ever.
 */
#include "virtio/inflight.h"

#include <stdatomic.h>

enum { /* the layout: a header, and entries of 16 bytes */
       version_offset = 8,
       count_offset = 10,
       last_head_offset = 12,
       used_index_offset = 14,
       header_bytes = 16,
       entry_bytes = 16,
       next_offset = 6,
       number_offset = 8,
       alignment = 64,
       layout_version = 1,
};

static void store_16(uint8_t *word, uint16_t value)
{
    atomic_store_explicit((_Atomic uint16_t *)(void *)word, value, memory_order_release);
}

static uint16_t load_16(const uint8_t *word)
{
    return atomic_load_explicit((const _Atomic uint16_t *)(const void *)word, memory_order_relaxed);
}

static uint8_t *entry_at(uint8_t *region, uint16_t head)
{
    return region + header_bytes + (size_t)head * entry_bytes;
}

static bool is_in_flight(uint8_t *region, uint16_t head)
{
    return atomic_load_explicit((_Atomic uint8_t *)entry_at(region, head), memory_order_relaxed) == 1;
}

static void set_in_flight(uint8_t *region, uint16_t head, bool is_taken)
{
    atomic_store_explicit((_Atomic uint8_t *)entry_at(region, head), is_taken, memory_order_release);
}

static _Atomic uint64_t *number_of(uint8_t *region, uint16_t head)
{
    return (_Atomic uint64_t *)(void *)(entry_at(region, head) + number_offset);
}

static uint64_t load_number(uint8_t *region, uint16_t head)
{
    return atomic_load_explicit(number_of(region, head), memory_order_relaxed);
}

size_t inflight_bytes(uint16_t entries)
{
    size_t bytes = header_bytes + (size_t)entries * entry_bytes;
    return (bytes + alignment - 1) / alignment * alignment;
}

/* The last push may have been cut off behind the ring's index. */
static void repair(uint8_t *region, uint16_t entries, uint16_t used_index)
{
    uint16_t last_head = load_16(region + last_head_offset);
    if (load_16(region + used_index_offset) != used_index && last_head < entries)
        set_in_flight(region, last_head, false);
    store_16(region + used_index_offset, used_index);
}

void inflight_begin(struct inflight *inflight, uint8_t *region, uint16_t entries, uint16_t used_index)
{
    *inflight = (struct inflight){.region = region, .entries = entries};
    if (region == NULL)
        return;
    store_16(region + version_offset, layout_version);
    store_16(region + count_offset, entries);
    repair(region, entries, used_index);
    for (uint16_t head = 0; head < entries; head++) {
        if (!is_in_flight(region, head))
            continue;
        uint64_t number = load_number(region, head);
        inflight->to_repeat++;
        if (number >= inflight->next_number)
            inflight->next_number = number + 1;
    }
}

bool inflight_repeat(struct inflight *inflight, uint16_t *ret_head)
{
    uint64_t least = UINT64_MAX;
    bool is_found = false;
    if (inflight->to_repeat == 0)
        return false;
    inflight->to_repeat--;
    for (uint16_t head = 0; head < inflight->entries; head++) {
        uint64_t number = load_number(inflight->region, head);
        if (!is_in_flight(inflight->region, head) || number < inflight->repeat_from || number >= least)
            continue;
        least = number;
        *ret_head = head;
        is_found = true;
    }
    inflight->repeat_from = least + is_found;
    if (!is_found)
        inflight->to_repeat = 0; /* somebody else has written here meanwhile */
    return is_found;
}

void inflight_repeat_later(struct inflight *inflight, uint16_t head)
{
    (void)head;
    inflight->repeat_from--;
    inflight->to_repeat++;
}

void inflight_take(struct inflight *inflight, uint16_t head)
{
    if (inflight->region == NULL)
        return;
    atomic_store_explicit(number_of(inflight->region, head), inflight->next_number++, memory_order_relaxed);
    set_in_flight(inflight->region, head, true);
}

void inflight_put_back(struct inflight *inflight, uint16_t head)
{
    if (inflight->region != NULL)
        set_in_flight(inflight->region, head, false);
}

void inflight_push(struct inflight *inflight, uint16_t head)
{
    if (inflight->region == NULL)
        return;
    store_16(entry_at(inflight->region, head) + next_offset, load_16(inflight->region + last_head_offset));
    store_16(inflight->region + last_head_offset, head);
}

void inflight_pushed(struct inflight *inflight, uint16_t head, uint16_t used_index)
{
    if (inflight->region == NULL)
        return;
    set_in_flight(inflight->region, head, false);
    store_16(inflight->region + used_index_offset, used_index);
}

void inflight_forget(uint8_t *region, uint16_t entries)
{
    for (uint16_t head = 0; head < entries; head++)
        set_in_flight(region, head, false);
}
