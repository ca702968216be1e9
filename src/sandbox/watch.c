// SPDX-License-Identifier: Apache-2.0
/* What ends a sandbox without anybody asking.
 *
 * Time counts as far as this process has had it: between two looks, of which there is one a second, at most two seconds
 * count. A host that was suspended, or a process that was stopped or starved, then wakes up to an agent that is given
 * the chance to speak, and not to its own verdict. Only the greatest duration goes by the clock itself.
 *
 * The sandbox is used while frames of sessions pass, or the guest's CPUs do more than BUSY_PERCENT of one CPU between
 * two heartbeats. The guest says that itself; lying gets it what working would.
 *
 * Invariants: (1) nothing but the arguments decides. (2) a sum of time never goes backward or overflows.
 *
 * Trust: a heartbeat's numbers are a hostile guest's; they decide about nothing but whether it is idle.
 */
#include "sandbox/watch.h"

enum { busy_percent = 5 };
#define MOST_STEP_NS (2 * WATCH_LOOK_NS)

void watch_begin(struct watch *watch, const struct watch_options *options, uint64_t now_ns)
{
    *watch = (struct watch){.options = *options, .looked_ns = now_ns};
}

void watch_ready(struct watch *watch, uint64_t now_ns)
{
    watch->is_ready = true;
    watch->looked_ns = now_ns;
    watch->silent_ns = watch->idle_ns = watch->duration_ns = 0;
}

/* A guest's clock that goes backward, or that began anew, is no work. */
static bool was_busy(const struct watch *watch, const struct agent_heartbeat *heartbeat)
{
    if (!watch->has_heartbeat || heartbeat->uptime_ns <= watch->uptime_ns || heartbeat->busy_ns <= watch->busy_ns)
        return false;
    uint64_t elapsed_ns = heartbeat->uptime_ns - watch->uptime_ns, busy_ns = heartbeat->busy_ns - watch->busy_ns;
    return busy_ns > elapsed_ns / 100 * busy_percent;
}

void watch_agent_spoke(struct watch *watch, const struct agent_heartbeat *heartbeat)
{
    watch->silent_ns = 0;
    if (heartbeat == NULL)
        return;
    if (was_busy(watch, heartbeat))
        watch_active(watch);
    watch->has_heartbeat = true;
    watch->uptime_ns = heartbeat->uptime_ns;
    watch->busy_ns = heartbeat->busy_ns;
}

void watch_active(struct watch *watch)
{
    watch->idle_ns = 0;
}

void watch_pause(struct watch *watch, bool is_paused, uint64_t now_ns)
{
    watch_look(watch, now_ns); /* what was until now counts as it was */
    watch->is_paused = is_paused;
    watch->silent_ns = watch->idle_ns = 0;
}

void watch_drain(struct watch *watch)
{
    watch->is_draining = true;
}

static void add(uint64_t *sum_ns, uint64_t step_ns)
{
    if (__builtin_add_overflow(*sum_ns, step_ns, sum_ns))
        *sum_ns = UINT64_MAX;
}

static void count(struct watch *watch, uint64_t now_ns)
{
    uint64_t step_ns = now_ns > watch->looked_ns ? now_ns - watch->looked_ns : 0;
    uint64_t had_ns = step_ns < MOST_STEP_NS ? step_ns : MOST_STEP_NS;
    watch->looked_ns += step_ns;
    if (!watch->is_ready) {
        add(&watch->waited_ns, had_ns);
        return;
    }
    add(&watch->duration_ns, step_ns);
    if (watch->is_paused)
        return;
    add(&watch->silent_ns, had_ns);
    add(&watch->idle_ns, had_ns);
}

enum watch_verdict watch_look(struct watch *watch, uint64_t now_ns)
{
    const struct watch_options *options = &watch->options;
    count(watch, now_ns);
    if (!watch->is_ready)
        return watch->waited_ns >= options->start_ns ? WATCH_NO_START : WATCH_GOES_ON;
    if (watch->silent_ns >= options->silence_ns)
        return WATCH_SILENT;
    if (watch->is_draining)
        return WATCH_GOES_ON;
    if (options->max_duration_ns > 0 && watch->duration_ns >= options->max_duration_ns)
        return WATCH_TOO_LONG;
    return options->idle_ns > 0 && watch->idle_ns >= options->idle_ns ? WATCH_IDLE : WATCH_GOES_ON;
}
