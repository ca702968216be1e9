// SPDX-License-Identifier: Apache-2.0
/* Memory that the guest does not need goes back to the host. (virtio 1.2, 5.5)
 *
 * In two ways: by itself, the guest reports pages as they become free; and on request, it fills a balloon of the size
 * that balloon_set_target asks for. Both are a guest's good will, never a limit on what it can use.
 */
#ifndef DEVICE_BALLOON_BALLOON_H
#define DEVICE_BALLOON_BALLOON_H

#include "virtio/device.h"

struct balloon_options {
    uint64_t memory_bytes;      /* of the guest: no target, and no balloon, is larger */
    uint32_t stats_interval_ms; /* how often the guest is asked for statistics; 0 is never */
};

int balloon_new(const struct balloon_options *options, struct virtio_device **ret_device);

/* ---- from any thread ---- */

/* How large the balloon is to be. The guest gets there in its own time, or not at all. The target outlives a reset.
 * 0, or -EINVAL for more than all of the memory. */
int balloon_set_target(struct virtio_device *device, uint32_t target_mib);

/* How large the guest says its balloon is. */
uint64_t balloon_actual_bytes(struct virtio_device *device);

/* What a guest can tell about its memory, in the order of the tags (5.5.6.4, and what Linux added since). Amounts of
 * memory are in bytes; the rest are counts of events since the guest's boot, or of pages. */
enum balloon_statistic {
    BALLOON_SWAPPED_IN,
    BALLOON_SWAPPED_OUT,
    BALLOON_MAJOR_FAULTS,
    BALLOON_MINOR_FAULTS,
    BALLOON_FREE,
    BALLOON_TOTAL,
    BALLOON_AVAILABLE,
    BALLOON_CACHES,
    BALLOON_HUGE_PAGES_ALLOCATED,
    BALLOON_HUGE_PAGES_FAILED,
    BALLOON_OOM_KILLS,
    BALLOON_ALLOCATION_STALLS,
    BALLOON_SCANNED_BEHIND,   /* by the reclaim thread */
    BALLOON_SCANNED_DIRECTLY, /* by whoever wanted memory */
    BALLOON_RECLAIMED_BEHIND,
    BALLOON_RECLAIMED_DIRECTLY,
    BALLOON_STATISTICS
};

struct balloon_stats {
    uint64_t time_ns; /* when they came (base/clock.h); 0 before the first ones of this guest */
    uint32_t valid;   /* the bit 1 << s: the guest said something about s */
    uint64_t values[BALLOON_STATISTICS];
};
void balloon_stats(struct virtio_device *device, struct balloon_stats *ret_stats);

/* What came in since the device was made. */
struct balloon_counters {
    uint64_t inflated_pages, deflated_pages; /* of 4 KiB */
    uint64_t reported_bytes;
    uint64_t ignored; /* pages, blocks and sizes that made no sense, or were more than one request may have */
    uint64_t failed;  /* runs of pages that the host did not take back */
};
void balloon_counters(struct virtio_device *device, struct balloon_counters *ret_counters);

#endif
