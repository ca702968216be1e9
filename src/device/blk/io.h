// SPDX-License-Identifier: Apache-2.0
/* What the parts of the block device share. See blk.c for how they work together. */
#ifndef DEVICE_BLK_IO_H
#define DEVICE_BLK_IO_H

#include "device/blk/request.h"
#include "device/blk/ring.h"

#include <stdatomic.h>

/* Features that decide about flushes (virtio 1.2, 5.2.3), and where the driver switches the cache (5.2.4). */
#define BLK_F_FLUSH (UINT64_C(1) << 9)
#define BLK_F_CONFIG_WCE (UINT64_C(1) << 11)
enum { BLK_CONFIG_WRITEBACK = 32 };

struct blk {
    struct virtio_device *device; /* borrowed: it owns us */
    struct disk *disk;            /* owned */
    struct disk_properties properties;
    struct blk_shape shape;
    char id[LIMIT_DISK_ID_BYTES]; /* with NULs behind it, but not always with one */
    enum vial_disk_cache cache;
    enum vial_disk_sync sync;
    unsigned queue_count;
    bool is_ring_refused; /* by the host, or by whoever made the device */
    uint64_t features;    /* that the driver took */
    bool is_writeback;    /* as the driver switched the cache */

    struct blk_ring *ring;             /* owned; NULL until it is first needed */
    struct blk_workers *workers;       /* owned */
    struct blk_request *free_requests; /* owned */

    unsigned active;                     /* requests that the ring or a worker has */
    unsigned in_flight[BLK_MOST_QUEUES]; /* requests that were taken and not finished */
    struct blk_request *exclusive;       /* one that needs the disk for itself: nothing is taken meanwhile */
    bool has_exclusive_begun;
    bool is_stopping; /* what ends is forgotten */
    int lost_writes;  /* the -errno of an fdatasync of the ring that failed: all flushes after it do, too */
    uint32_t to_call; /* queues in which something was pushed, a bit each */

    struct rate rate;
    struct loop_source *timer; /* the loop's; only with limits */
    uint64_t wake_ns;          /* when it fires */

    atomic_uint_fast64_t read_bytes, written_bytes, reads, writes, flushes, discards, errors;
};

/* An empty request, or NULL. */
struct blk_request *blk_io_new_request(struct blk *blk, unsigned queue);
void blk_io_forget_request(struct blk_request *request);

/* Answers a decoded request with this, or does what it asks for. */
void blk_io_answer(struct blk_request *request, int result);
void blk_io_begin(struct blk_request *request);

/* Behind a number of these: hands over what was begun, and tells the driver what has ended. */
void blk_io_settle(struct blk *blk);

/* Waits until every request of the queue has ended. */
void blk_io_drain(struct blk *blk, unsigned queue);

/* Ends all requests, with or without having done them, and forgets them. */
void blk_io_abandon(struct blk *blk);

/* Before everything else, and behind it. */
int blk_io_init(struct blk *blk);
void blk_io_release(struct blk *blk);

#endif
