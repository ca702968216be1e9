// SPDX-License-Identifier: Apache-2.0
/* A split virtqueue, from the device's side.
 *
 *     struct queue_chain chain;
 *     while ((result = queue_pop(queue, &chain)) > 0) {
 *         … read chain.readable, fill chain.writable …
 *         queue_push(queue, chain.head, written_bytes);
 *     }
 *     if (result == 0 && queue_needs_call(queue))
 *         raise the interrupt
 */
#ifndef VIRTIO_QUEUE_H
#define VIRTIO_QUEUE_H

#include "mem/memory.h"

#include <sys/uio.h>

/* The largest queue of any device of ours; the standard allows 32768 (virtio 1.2, 2.7). */
#define QUEUE_MOST_ENTRIES 1024

struct queue;

/* What the driver has set up. Checked as a whole by queue_start, unchangeable afterwards. */
struct queue_layout {
    uint64_t descriptors, available, used; /* guest addresses of the three parts */
    uint16_t entries;
    uint16_t next_available; /* where to begin: 0, but after a move from another back end */
    bool has_event_index;    /* VIRTIO_F_EVENT_IDX was negotiated */
    bool has_indirect;       /* VIRTIO_F_INDIRECT_DESC was negotiated */
    uint8_t *inflight;       /* where to note what is in flight (virtio/inflight.h), or NULL; borrowed until queue_stop.
                              * The queue begins with what is in flight there, and behind it, whatever next_available
                              * says. */
};

/* A buffer chain in guest memory. The spans belong to the queue and hold until the next queue_pop. */
struct queue_chain {
    uint16_t head;
    const struct iovec *readable; /* what the device reads, */
    size_t readable_count;
    const struct iovec *writable; /* and behind it what the device writes */
    size_t writable_count;
    uint64_t readable_bytes, writable_bytes;
};

/* A queue of at most most_entries (a power of two up to QUEUE_MOST_ENTRIES), not started. */
int queue_new(uint16_t most_entries, struct queue **ret_queue);
struct queue *queue_free(struct queue *queue);

/* Whether queue_start would take this layout: 0, or -EINVAL or -EFAULT for one that the driver must not give. */
int queue_check(const struct queue *queue, const struct memory *memory, const struct queue_layout *layout);

/* Begins to serve. The memory is borrowed until queue_stop. What queue_check refuses is refused, and the queue stays
 * stopped. */
int queue_start(struct queue *queue, const struct memory *memory, const struct queue_layout *layout);

/* Stops at once, whatever is in flight; a later push of an old chain is not possible. Can be started again. */
void queue_stop(struct queue *queue);
bool queue_is_started(const struct queue *queue);

/* Takes the next chain: 1, 0 when there is none, -EPROTO when the driver broke the ring. After that it is broken:
 * nothing is read from or written to it until it is started again. */
int queue_pop(struct queue *queue, struct queue_chain *ret_chain);

/* Puts back a chain popped last, for another time. */
void queue_unpop(struct queue *queue);

/* Hands a chain back, with the number of bytes that were written to it. Chains may come back in any order. */
void queue_push(struct queue *queue, uint16_t head, uint32_t written_bytes);

/* Whether the driver wants an interrupt for what was pushed since the last time this said yes. */
bool queue_needs_call(struct queue *queue);

/* Asks the driver for kicks again, or tells it that they are not needed. After asking, true means that a chain came in
 * between and must be popped: its kick may never come. */
bool queue_enable_kicks(struct queue *queue);
void queue_disable_kicks(struct queue *queue);

/* Marks the ring broken by the device's own judgement (a malformed request, say). */
void queue_break(struct queue *queue);
bool queue_is_broken(const struct queue *queue);

/* Where a next back end would begin. */
uint16_t queue_next_available(const struct queue *queue);

/* Where it would begin to have everything again that was not pushed, if what was pushed came in order. */
uint16_t queue_next_used(const struct queue *queue);

/* How many entries the driver gave it. */
uint16_t queue_size(const struct queue *queue);

#endif
