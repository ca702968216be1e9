// SPDX-License-Identifier: Apache-2.0
/* An io_uring for a block device: reads, writes and syncs of files, many at once, finished on the device's loop. */
#ifndef DEVICE_BLK_RING_H
#define DEVICE_BLK_RING_H

#include "base/loop.h"

#include <stdbool.h>
#include <sys/uio.h>

struct blk_ring_options {
    struct loop *loop;        /* borrowed: `finished` is called on its thread */
    unsigned most_operations; /* at once */
    /* One operation has ended with `result`: bytes, 0 or -errno. New ones may be added in it. */
    void (*finished)(void *user, void *operation, int result);
    void (*settled)(void *user); /* behind the calls of finished that the loop made */
    void *user;
};

struct blk_ring;

/* Belongs to the thread that makes it until it is freed. -errno where the host refuses io_uring. */
int blk_ring_new(const struct blk_ring_options *options, struct blk_ring **ret_ring);

/* Nothing may be in flight. Any thread; accepts NULL and returns NULL. */
struct blk_ring *blk_ring_free(struct blk_ring *ring);

/* Whether the calling thread may use it. */
bool blk_ring_is_ours(const struct blk_ring *ring);

/* Adds an operation, which begins with blk_ring_submit. The parts stay as they are until it has ended. False when there
 * is no room: there is a way without the ring. */
bool blk_ring_transfer(struct blk_ring *ring, int fd, const struct iovec *parts, unsigned count, uint64_t offset,
                       bool is_write, void *operation);
bool blk_ring_sync(struct blk_ring *ring, int fd, void *operation);

/* Begins what was added, and finishes what has ended already. */
void blk_ring_turn(struct blk_ring *ring);

unsigned blk_ring_busy(const struct blk_ring *ring); /* added and not finished */

/* Asks for an end of everything; each operation still ends by itself, with -ECANCELED if there was time. */
void blk_ring_cancel(struct blk_ring *ring);

/* Waits until something has ended, and finishes it. There is something. */
void blk_ring_wait(struct blk_ring *ring);

#endif
