// SPDX-License-Identifier: Apache-2.0
/* What ends a sandbox without anybody asking: no agent, an agent that has fallen silent, nothing to do, too much time.
 *
 * Pure bookkeeping: times are handed in, verdicts come out. Times are nanoseconds of a clock that only goes forward.
 */
#ifndef SANDBOX_WATCH_H
#define SANDBOX_WATCH_H

#include "proto/agent.h"

enum watch_verdict {
    WATCH_GOES_ON,
    WATCH_NO_START, /* the agent has not said that it is ready */
    WATCH_SILENT,   /* the agent has said nothing */
    WATCH_IDLE,
    WATCH_TOO_LONG,
};

struct watch_options {
    uint64_t start_ns, silence_ns;     /* how long each may last */
    uint64_t idle_ns, max_duration_ns; /* 0: for ever */
};

/* Members are the functions' own. */
struct watch {
    struct watch_options options;
    uint64_t looked_ns;                     /* the last time anybody looked */
    uint64_t waited_ns, silent_ns, idle_ns; /* that count, so far */
    uint64_t duration_ns;                   /* since the agent is ready */
    uint64_t uptime_ns, busy_ns;            /* the last heartbeat's */
    bool is_ready, is_paused, is_draining, has_heartbeat;
};

void watch_begin(struct watch *watch, const struct watch_options *options, uint64_t now_ns);

/* The agent has said something, which may have been READY, or a heartbeat (else NULL). */
void watch_ready(struct watch *watch, uint64_t now_ns);
void watch_agent_spoke(struct watch *watch, const struct agent_heartbeat *heartbeat);

/* Somebody uses the sandbox. */
void watch_active(struct watch *watch);

/* While it is paused nobody has to speak, and it is not idle. */
void watch_pause(struct watch *watch, bool is_paused, uint64_t now_ns);

/* It is ending: nothing of this matters any more but that the agent speaks. */
void watch_drain(struct watch *watch);

/* To be called every WATCH_LOOK_NS. After any verdict but WATCH_GOES_ON it is the caller's turn. */
#define WATCH_LOOK_NS UINT64_C(1000000000)
enum watch_verdict watch_look(struct watch *watch, uint64_t now_ns);

#endif
