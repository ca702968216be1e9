// SPDX-License-Identifier: Apache-2.0
/* Which chains of a queue are in flight, in memory that outlives this process. (QEMU, docs/interop/vhost-user, inflight
 * I/O tracking) */
#ifndef VIRTIO_INFLIGHT_H
#define VIRTIO_INFLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A queue's part of that memory, and what we remember of it. */
struct inflight {
    uint8_t *region; /* borrowed; NULL: nothing is noted */
    uint16_t entries;
    uint16_t to_repeat;   /* chains that a process before us had taken and not finished */
    uint64_t repeat_from; /* those with smaller numbers have been taken again */
    uint64_t next_number; /* of the next chain that is taken */
};

/* The bytes of one queue's part, for so many entries. All zeros are a queue with nothing in flight. */
size_t inflight_bytes(uint16_t entries);

/* Goes on with a region, of a queue whose used index is this. How many of its chains are to be repeated is in to_repeat
 * then. A region of NULL is none. */
void inflight_begin(struct inflight *inflight, uint8_t *region, uint16_t entries, uint16_t used_index);

/* The head of the next chain to be repeated, oldest first: false when there are no more. */
bool inflight_repeat(struct inflight *inflight, uint16_t *ret_head);
void inflight_repeat_later(struct inflight *inflight, uint16_t head); /* the last one after all */

/* A chain was taken; or put back again; or is about to be pushed, and has been, which made the used index this. */
void inflight_take(struct inflight *inflight, uint16_t head);
void inflight_put_back(struct inflight *inflight, uint16_t head);
void inflight_push(struct inflight *inflight, uint16_t head);
void inflight_pushed(struct inflight *inflight, uint16_t head, uint16_t used_index);

/* Nothing is in flight any more: the driver has forgotten it. */
void inflight_forget(uint8_t *region, uint16_t entries);

#endif
