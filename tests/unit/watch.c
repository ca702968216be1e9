// SPDX-License-Identifier: Apache-2.0
/* Tests of sandbox/watch, with a clock of their own, and of what sandbox/metrics makes of a heartbeat. */
#include "test.h"

#include "sandbox/metrics.h"
#include "sandbox/watch.h"

#include "base/fd.h"
#include "base/json.h"

#include <fcntl.h>

#define SECOND UINT64_C(1000000000)

static struct watch watch;
static uint64_t now_ns;

static void begin(uint64_t idle_s, uint64_t max_s)
{
    const struct watch_options options = {
        .start_ns = 5 * SECOND,
        .silence_ns = 10 * SECOND,
        .idle_ns = idle_s * SECOND,
        .max_duration_ns = max_s * SECOND,
    };
    now_ns = 77 * SECOND;
    watch_begin(&watch, &options, now_ns);
}

/* Looks once a second until there is a verdict or the time is over; the agent beats meanwhile, if it is to. */
static enum watch_verdict run(unsigned seconds, bool beats, uint64_t busy_ns)
{
    enum watch_verdict verdict = WATCH_GOES_ON;
    for (; seconds > 0 && verdict == WATCH_GOES_ON; seconds--) {
        now_ns += SECOND;
        struct agent_heartbeat heartbeat = {.uptime_ns = watch.uptime_ns + SECOND, .busy_ns = watch.busy_ns + busy_ns};
        if (beats)
            watch_agent_spoke(&watch, &heartbeat);
        verdict = watch_look(&watch, now_ns);
    }
    return verdict;
}

TEST(an_agent_that_never_comes)
{
    begin(0, 0);
    CHECK_INT(run(4, false, 0), WATCH_GOES_ON);
    CHECK_INT(run(1, false, 0), WATCH_NO_START);
}

TEST(an_agent_that_falls_silent)
{
    begin(0, 0);
    run(4, false, 0);
    watch_ready(&watch, now_ns);
    CHECK_INT(run(100, true, 0), WATCH_GOES_ON);
    CHECK_INT(run(8, false, 0), WATCH_GOES_ON);
    watch_agent_spoke(&watch, NULL);
    CHECK_INT(run(9, false, 0), WATCH_GOES_ON);
    CHECK_INT(run(1, false, 0), WATCH_SILENT);
}

/* The host slept for a week, or somebody has stopped this process: nobody could speak. */
TEST(time_that_nobody_had_does_not_count)
{
    begin(60, 0);
    watch_ready(&watch, now_ns);
    CHECK_INT(run(1, true, 0), WATCH_GOES_ON);
    now_ns += 604800 * SECOND;
    CHECK_INT(watch_look(&watch, now_ns), WATCH_GOES_ON);
    CHECK_INT(run(6, false, 0), WATCH_GOES_ON);
    CHECK_INT(run(1, false, 0), WATCH_SILENT);
    CHECK_INT(watch_look(&watch, now_ns - 50 * SECOND), WATCH_SILENT); /* nor does time go back */
}

TEST(a_machine_that_is_paused_need_not_speak)
{
    begin(20, 0);
    watch_ready(&watch, now_ns);
    CHECK_INT(run(5, false, 0), WATCH_GOES_ON);
    watch_pause(&watch, true, now_ns);
    CHECK_INT(run(1000, false, 0), WATCH_GOES_ON);
    watch_pause(&watch, false, now_ns);
    CHECK_INT(run(9, false, 0), WATCH_GOES_ON);
    CHECK_INT(run(1, false, 0), WATCH_SILENT);
}

TEST(idle_is_who_neither_speaks_nor_works)
{
    begin(30, 0);
    watch_ready(&watch, now_ns);
    CHECK_INT(run(29, true, 0), WATCH_GOES_ON);
    watch_active(&watch);
    CHECK_INT(run(29, true, SECOND / 50), WATCH_GOES_ON);
    CHECK_INT(run(1, true, SECOND / 50), WATCH_IDLE); /* 2 % is what any kernel does */
    begin(30, 0);
    watch_ready(&watch, now_ns);
    CHECK_INT(run(1000, true, SECOND / 10), WATCH_GOES_ON);
}

TEST(odd_heartbeats_are_no_work)
{
    static const struct agent_heartbeat odd[] = {
        {.uptime_ns = 1, .busy_ns = 0},          {.uptime_ns = UINT64_MAX, .busy_ns = 0},
        {.uptime_ns = 0, .busy_ns = UINT64_MAX}, {.uptime_ns = UINT64_MAX, .busy_ns = UINT64_MAX},
        {.uptime_ns = UINT64_MAX, .busy_ns = 0},
    };
    begin(5, 0);
    watch_ready(&watch, now_ns);
    for (size_t i = 0; i < 4; i++) {
        now_ns += SECOND;
        watch_agent_spoke(&watch, &odd[i]);
        CHECK_INT(watch_look(&watch, now_ns), WATCH_GOES_ON);
    }
    now_ns += SECOND;
    watch_agent_spoke(&watch, &odd[4]);
    CHECK_INT(watch_look(&watch, now_ns), WATCH_IDLE);
}

TEST(the_greatest_duration_goes_by_the_clock)
{
    begin(0, 60);
    run(4, false, 0);
    watch_ready(&watch, now_ns); /* from here on */
    CHECK_INT(run(58, true, SECOND), WATCH_GOES_ON);
    watch_pause(&watch, true, now_ns);
    now_ns += 3 * SECOND;
    CHECK_INT(watch_look(&watch, now_ns), WATCH_TOO_LONG);
}

TEST(what_is_ending_must_only_speak)
{
    begin(5, 5);
    watch_ready(&watch, now_ns);
    watch_drain(&watch);
    CHECK_INT(run(100, true, 0), WATCH_GOES_ON);
    CHECK_INT(run(10, false, 0), WATCH_SILENT);
}

/* Whoever reads the sample must be able to, whatever a guest says. */
TEST(odd_heartbeats_make_no_odd_sample)
{
    const struct relay_counters relay = {0};
    struct metrics metrics;
    json_t *sample = NULL;
    struct vial_error err;
    auto_close int folder = open(test_folder(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    metrics_open(&metrics, folder);
    metrics.heartbeat = (struct agent_heartbeat){UINT64_MAX, UINT64_MAX, UINT64_MAX,
                                                 UINT64_MAX, UINT32_MAX, UINT32_MAX};
    CHECK_INT(metrics_sample(&metrics, NULL, &relay, 0), 0);
    CHECK_INT(json_parse(metrics.text.data, metrics.text.length, &sample, &err), 0);
    json_decref(sample);
    metrics_close(&metrics);
}
