// SPDX-License-Identifier: Apache-2.0
/* How fast something may go: a bucket of bytes and one of operations. */
#ifndef BASE_RATE_H
#define BASE_RATE_H

#include <stdbool.h>
#include <stdint.h>

/* At most so much on average; a burst is what may go through at once after a rest. 0: no limit (rates), or a tenth of a
 * second's worth (bursts). */
struct rate_limits {
    uint64_t bytes_per_second, burst_bytes;
    uint64_t operations_per_second, burst_operations;
};

struct rate_bucket {
    uint64_t rate;     /* a second; 0: no limit */
    uint64_t burst_ns; /* what may go through at once, as the time in which it flows in */
    uint64_t empty_ns; /* when all that was taken will have flowed in again */
};

struct rate {
    struct rate_bucket bytes, operations;
};

void rate_init(struct rate *rate, const struct rate_limits *limits);
bool rate_has_limits(const struct rate *rate);

/* Takes it: CLOCK_NEVER. Or takes nothing, and says when to ask again. */
uint64_t rate_take(struct rate *rate, uint64_t bytes, uint64_t operations, uint64_t now_ns);

/* Whether something of any size could be taken now, for who learns the size only later: CLOCK_NEVER if so, or when. */
uint64_t rate_ask(const struct rate *rate, uint64_t now_ns);

#endif
