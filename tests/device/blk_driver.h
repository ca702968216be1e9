// SPDX-License-Identifier: Apache-2.0
/* A driver of block devices for tests, over a fake disk. Request N has descriptors 3N (header), 3N + 1 (data) and
 * 3N + 2 (status), and places of its own in guest memory.
 *
 *     blk_driver_begin(&front, &(struct blk_driver_options){.disk_bytes = 1 << 20});
 *     blk_driver_start(&front, 0);
 *     blk_driver_send(&front, 0, BLK_DRIVER_READ, sector, length);
 *     blk_driver_finish(&front, &head, &written)
 *     blk_driver_end(&front);
 */
#ifndef BLK_DRIVER_H
#define BLK_DRIVER_H

#include "device/blk/blk.h"
#include "fake_disk.h"
#include "virtio_driver.h"

enum {
    BLK_DRIVER_READ = 0,
    BLK_DRIVER_WRITE = 1,
    BLK_DRIVER_FLUSH = 4,
    BLK_DRIVER_GET_ID = 8,
    BLK_DRIVER_DISCARD = 11,
    BLK_DRIVER_WRITE_ZEROES = 13,
};
enum { BLK_DRIVER_OK = 0, BLK_DRIVER_IO_ERROR = 1, BLK_DRIVER_UNSUPPORTED = 2, BLK_DRIVER_PENDING = 0xee };
enum { BLK_DRIVER_ENTRIES = 256, BLK_DRIVER_REQUESTS = 80, BLK_DRIVER_DATA_BYTES = 64 << 10 };

/* Features (virtio 1.2, 5.2.3). */
#define BLK_DRIVER_F_RO (UINT64_C(1) << 5)
#define BLK_DRIVER_F_FLUSH (UINT64_C(1) << 9)
#define BLK_DRIVER_F_CONFIG_WCE (UINT64_C(1) << 11)
#define BLK_DRIVER_F_MQ (UINT64_C(1) << 12)
#define BLK_DRIVER_F_DISCARD (UINT64_C(1) << 13)
#define BLK_DRIVER_F_WRITE_ZEROES (UINT64_C(1) << 14)

/* How a request's bytes get to the disk. */
enum blk_driver_way { BLK_DRIVER_BY_RING, BLK_DRIVER_BY_WORKERS, BLK_DRIVER_WITHOUT_RING, BLK_DRIVER_WAYS };

struct blk_driver_options {
    uint64_t disk_bytes; /* 0: 1 MiB */
    enum blk_driver_way way;
    bool is_launched;
    struct blk_options blk;            /* the disk is filled in, and one queue if it says none */
    struct disk_properties properties; /* alignment_bytes 0: the fake disk's own */
};

struct blk_driver {
    struct virtio_driver driver;
    struct disk *disk; /* the device's */
};

void blk_driver_begin(struct blk_driver *front, const struct blk_driver_options *options);
void blk_driver_end(struct blk_driver *front);
bool blk_driver_start(struct blk_driver *front, uint64_t features);

/* Guest addresses of request N's places. */
uint64_t blk_driver_header(unsigned request);
uint64_t blk_driver_data(unsigned request);
uint64_t blk_driver_status_at(unsigned request);

/* The data of request N, and its status. */
uint8_t *blk_driver_bytes(struct blk_driver *front, unsigned request);
uint8_t blk_driver_status(struct blk_driver *front, unsigned request);

void blk_driver_put_header(struct blk_driver *front, unsigned request, uint32_t type, uint64_t sector);

/* Offers a request of the usual form, without a kick: in queue 0, or another. */
void blk_driver_offer(struct blk_driver *front, unsigned request, uint32_t type, uint64_t sector, uint32_t length);
void blk_driver_offer_in(struct blk_driver *front, unsigned queue, unsigned request, uint32_t type, uint64_t sector,
                         uint32_t length);

/* The same with a kick. */
void blk_driver_send(struct blk_driver *front, unsigned request, uint32_t type, uint64_t sector, uint32_t length);

/* The next request that ends: false when none does for five seconds. */
bool blk_driver_finish(struct blk_driver *front, uint32_t *ret_head, uint32_t *ret_written);

/* Sends it and waits: its status, or BLK_DRIVER_PENDING when another or none came. */
uint8_t blk_driver_do(struct blk_driver *front, unsigned request, uint32_t type, uint64_t sector, uint32_t length);

/* A discard or zeros of one segment. */
uint8_t blk_driver_erase(struct blk_driver *front, uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags);
void blk_driver_put_segment(struct blk_driver *front, unsigned request, unsigned index, uint64_t sector,
                            uint32_t sectors, uint32_t flags);

/* The disk's own bytes. */
void blk_driver_peek(const struct blk_driver *front, uint64_t offset, void *bytes, size_t length);

#endif
