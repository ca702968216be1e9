// SPDX-License-Identifier: Apache-2.0
/* How fast a block device may be: a bucket of bytes and one of operations. */
#ifndef DEVICE_BLK_LIMITS_H
#define DEVICE_BLK_LIMITS_H

#include "device/blk/blk.h"

struct blk_bucket {
    uint64_t rate;     /* a second; 0: no limit */
    uint64_t burst_ns; /* what may go through at once, as the time in which it flows in */
    uint64_t empty_ns; /* when all that was taken will have flowed in again */
};

struct blk_buckets {
    struct blk_bucket bytes, operations;
};

void blk_buckets_init(struct blk_buckets *buckets, const struct blk_limits *limits);
bool blk_buckets_have_limits(const struct blk_buckets *buckets);

/* Takes it: CLOCK_NEVER. Or takes nothing, and says when to ask again. */
uint64_t blk_buckets_take(struct blk_buckets *buckets, uint64_t bytes, uint64_t operations, uint64_t now_ns);

#endif
