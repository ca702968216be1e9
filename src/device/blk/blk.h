// SPDX-License-Identifier: Apache-2.0
/* A virtio block device over a disk image (virtio 1.2, 5.2). */
#ifndef DEVICE_BLK_BLK_H
#define DEVICE_BLK_BLK_H

#include "base/rate.h"
#include "disk/disk.h"
#include "virtio/device.h"

enum { BLK_MOST_QUEUES = 16 };

struct blk_options {
    struct disk *disk; /* owned by the device once it is made */
    const char *id;    /* at most LIMIT_DISK_ID_BYTES */
    bool read_only;    /* whatever the image allows */
    enum vial_disk_cache cache;
    enum vial_disk_sync sync;
    unsigned queue_count; /* 1 to BLK_MOST_QUEUES */
    bool without_ring;    /* io_uring is not to be used, as if the host had refused it: for tests */
    struct rate_limits limits;
};

int blk_new(const struct blk_options *options, struct virtio_device **ret_device);

struct blk_stats {
    uint64_t read_bytes, written_bytes, reads, writes, flushes, discards, errors;
};

/* On any thread. */
void blk_read_stats(const struct virtio_device *device, struct blk_stats *ret_stats);

#endif
