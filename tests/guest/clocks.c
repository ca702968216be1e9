// SPDX-License-Identifier: Apache-2.0
/* Clocks: they move, never back, at about the pace of each other, and the date is plausible. */
#include "part.h"

#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { readings = 20000 };

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now = {0};
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* On all CPUs in turn. */
static bool never_goes_back(void)
{
    uint64_t last_ns = 0;
    unsigned cpus = cpu_count();
    for (unsigned i = 0; i < readings; i++) {
        if (i % 1000 == 0)
            pin_to(i / 1000 % cpus);
        uint64_t now = read_clock(CLOCK_MONOTONIC);
        if (now < last_ns)
            return complain("it went back by %llu ns", (unsigned long long)(last_ns - now));
        last_ns = now;
    }
    return true;
}

static bool sleeps_take_their_time(void)
{
    struct timespec pause = {.tv_nsec = 50000000};
    uint64_t wall_ns = read_clock(CLOCK_REALTIME), start_ns = now_ns();
    syscall(SYS_nanosleep, &pause, NULL);
    poll(NULL, 0, 50);
    uint64_t took_ns = now_ns() - start_ns, wall_took_ns = read_clock(CLOCK_REALTIME) - wall_ns;
    note("two times 50 ms took %llu ms", (unsigned long long)took_ns / 1000000);
    return expect(took_ns >= 100000000) && expect(took_ns < 3000000000) && expect(wall_took_ns >= 99000000) &&
           expect(wall_took_ns < took_ns + 100000000);
}

/* Computing uses CPU time, sleeping does not. */
static bool cpu_time_is_counted(void)
{
    uint64_t cpu_ns = read_clock(CLOCK_PROCESS_CPUTIME_ID), start_ns = now_ns();
    while (now_ns() < start_ns + 200000000)
        continue;
    uint64_t used_ns = read_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns;
    return expect(used_ns > 20000000) && expect(used_ns < 400000000);
}

bool part_clocks(void)
{
    bool is_good = never_goes_back() && sleeps_take_their_time() && cpu_time_is_counted();
    errno = 0;
    return is_good;
}
