// SPDX-License-Identifier: Apache-2.0
/* What a sandbox uses, sampled once a second, as JSON: stats.json, and a part of REPORT.
 *
 *     {"time_ns", "uptime_ns", "cpu_ns", "guest_cpu_ns", "memory_bytes", "guest_total_bytes", "guest_available_bytes",
 *      "balloon_bytes", "disk_read_bytes", "disk_written_bytes", "network_received_bytes", "network_sent_bytes",
 *      "clients", "sessions", "processes", "log_lost_bytes"}
 *
 * Numbers, all of them; what nobody has told is 0. time_ns counts from 1970.
 */
#ifndef SANDBOX_METRICS_H
#define SANDBOX_METRICS_H

#include "base/buffer.h"
#include "proto/agent.h"
#include "sandbox/relay.h"
#include "vial/vmm.h"

#define METRICS_FILE "stats.json"

struct metrics {
    int folder;                    /* borrowed: of the sandbox */
    int stat_fd, memory_fd, io_fd; /* owned; -1 where the host does not tell */
    uint64_t ticks_per_second, page_bytes;
    uint64_t begin_ns; /* CLOCK_MONOTONIC: when the agent was ready; 0: not yet */
    int engine;        /* enum vial_engine; 0: not known yet */
    struct agent_heartbeat heartbeat;
    struct buffer text;
};

/* Opens what has to be open before the process is confined; nothing of it can fail. */
void metrics_open(struct metrics *metrics, int folder);
void metrics_close(struct metrics *metrics);

/* A sample, which stays in `text` until the next one: 0 or -ENOMEM. `vm` may be NULL. */
int metrics_sample(struct metrics *metrics, struct vial_vm *vm, const struct relay_counters *relay,
                   uint64_t log_lost_bytes);

/* Replaces stats.json by the last sample; a disk without room keeps the one before. */
void metrics_write(const struct metrics *metrics);
void metrics_remove(const struct metrics *metrics);

#endif
