// SPDX-License-Identifier: Apache-2.0
/* Monotonic time in nanoseconds. Deadlines are points on this clock; UINT64_MAX means never. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define CLOCK_NS_PER_US UINT64_C(1000)
#define CLOCK_NS_PER_MS UINT64_C(1000000)
#define CLOCK_NS_PER_S UINT64_C(1000000000)
#define CLOCK_NEVER UINT64_MAX

static inline uint64_t clock_from_timespec(const struct timespec *time)
{
    return (uint64_t)time->tv_sec * CLOCK_NS_PER_S + (uint64_t)time->tv_nsec;
}

static inline struct timespec clock_to_timespec(uint64_t time_ns)
{
    return (struct timespec){
        .tv_sec = (time_t)(time_ns / CLOCK_NS_PER_S),
        .tv_nsec = (long)(time_ns % CLOCK_NS_PER_S),
    };
}

static inline uint64_t clock_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail: the clock exists and the pointer is ours */
    return clock_from_timespec(&now);
}

/* The deadline `duration_ns` from now; a sum past the end of time is never. */
static inline uint64_t clock_deadline_ns(uint64_t duration_ns)
{
    uint64_t deadline_ns = 0;
    return __builtin_add_overflow(clock_now_ns(), duration_ns, &deadline_ns) ? CLOCK_NEVER : deadline_ns;
}

#endif
