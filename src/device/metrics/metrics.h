// SPDX-License-Identifier: Apache-2.0
/* What the guest's agent says about the space on its writable root. A device of our own, not of the standard. */
#ifndef DEVICE_METRICS_METRICS_H
#define DEVICE_METRICS_METRICS_H

#include "virtio/device.h"

struct metrics_sample {
    uint64_t used_bytes, free_bytes; /* as the guest claims; their sum does not overflow */
    uint64_t time_ns;                /* when it came (base/clock.h) */
};

int metrics_new(struct virtio_device **ret_device);

/* The last sample of the running guest; false when there is none yet. From any thread. */
bool metrics_last(struct virtio_device *device, struct metrics_sample *ret_sample);

/* How many messages were no samples. From any thread. */
uint64_t metrics_ignored(struct virtio_device *device);

#endif
