// SPDX-License-Identifier: Apache-2.0
/* A driver of block devices for tests: see blk_driver.h. */
#include "blk_driver.h"

#include "base/clock.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { memory_bytes = 8 << 20, patience_ms = 5000 };

void blk_driver_begin(struct blk_driver *front, const struct blk_driver_options *options)
{
    struct virtio_device *device = NULL;
    struct blk_options blk = options->blk;
    *front = (struct blk_driver){0};
    front->disk = fake_disk_new(options->disk_bytes != 0 ? options->disk_bytes : 1 << 20);
    front->disk->maps_nothing = options->way == BLK_DRIVER_BY_WORKERS;
    if (options->properties.alignment_bytes != 0) {
        uint64_t size_bytes = front->disk->properties.size_bytes;
        front->disk->properties = options->properties;
        front->disk->properties.size_bytes = size_bytes;
    }
    blk.disk = front->disk;
    blk.without_ring |= options->way == BLK_DRIVER_WITHOUT_RING;
    blk.queue_count = blk.queue_count != 0 ? blk.queue_count : 1;
    virtio_driver_init(&front->driver, memory_bytes);
    if (blk_new(&blk, &device) < 0)
        abort();
    virtio_driver_attach(&front->driver, device);
    front->driver.is_launched = options->is_launched;
    if (options->is_launched && virtio_device_launch(device) < 0)
        abort();
}

void blk_driver_end(struct blk_driver *front)
{
    virtio_driver_release(&front->driver);
}

bool blk_driver_start(struct blk_driver *front, uint64_t features)
{
    unsigned queues = virtio_device_queue_count(front->driver.device);
    return virtio_driver_start(&front->driver, features, (1u << queues) - 1, BLK_DRIVER_ENTRIES);
}

/* ---- places ---- */

uint64_t blk_driver_header(unsigned request)
{
    return VIRTIO_DRIVER_BUFFERS + 16 * (uint64_t)request;
}

uint64_t blk_driver_status_at(unsigned request)
{
    return VIRTIO_DRIVER_BUFFERS + 0x8000 + request;
}

uint64_t blk_driver_data(unsigned request)
{
    return VIRTIO_DRIVER_BUFFERS + 0x10000 + (uint64_t)BLK_DRIVER_DATA_BYTES * request;
}

uint8_t *blk_driver_bytes(struct blk_driver *front, unsigned request)
{
    return memory_span(front->driver.memory, blk_driver_data(request), BLK_DRIVER_DATA_BYTES);
}

uint8_t blk_driver_status(struct blk_driver *front, unsigned request)
{
    return *(uint8_t *)memory_span(front->driver.memory, blk_driver_status_at(request), 1);
}

/* ---- requests ---- */

void blk_driver_put_header(struct blk_driver *front, unsigned request, uint32_t type, uint64_t sector)
{
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header = {type, 0x12345678, sector}; /* of what is reserved, no device takes notice */
    uint8_t pending = BLK_DRIVER_PENDING;
    virtio_driver_put(&front->driver, blk_driver_header(request), &header, sizeof(header));
    virtio_driver_put(&front->driver, blk_driver_status_at(request), &pending, 1);
}

void blk_driver_offer_in(struct blk_driver *front, unsigned queue, unsigned request, uint32_t type, uint64_t sector,
                         uint32_t length)
{
    struct virtio_driver *driver = &front->driver;
    bool fills = type == BLK_DRIVER_READ || type == BLK_DRIVER_GET_ID;
    uint16_t first = (uint16_t)(3 * request);
    blk_driver_put_header(front, request, type, sector);
    virtio_driver_describe(driver, queue, first, blk_driver_header(request), 16, VIRTIO_DRIVER_NEXT,
                           (uint16_t)(length > 0 ? first + 1 : first + 2));
    virtio_driver_describe(driver, queue, (uint16_t)(first + 1), blk_driver_data(request), length,
                           (uint16_t)(VIRTIO_DRIVER_NEXT | (fills ? VIRTIO_DRIVER_WRITE : 0)), (uint16_t)(first + 2));
    virtio_driver_describe(driver, queue, (uint16_t)(first + 2), blk_driver_status_at(request), 1, VIRTIO_DRIVER_WRITE,
                           0);
    virtio_driver_offer(driver, queue, first);
}

void blk_driver_offer(struct blk_driver *front, unsigned request, uint32_t type, uint64_t sector, uint32_t length)
{
    blk_driver_offer_in(front, 0, request, type, sector, length);
}

void blk_driver_send(struct blk_driver *front, unsigned request, uint32_t type, uint64_t sector, uint32_t length)
{
    blk_driver_offer(front, request, type, sector, length);
    virtio_driver_kick(&front->driver, 0);
}

static bool take(struct blk_driver *front, uint32_t *ret_head, uint32_t *ret_written)
{
    for (unsigned i = 0; i < virtio_device_queue_count(front->driver.device); i++)
        if (virtio_driver_take(&front->driver, i, ret_head, ret_written))
            return true;
    return false;
}

bool blk_driver_finish(struct blk_driver *front, uint32_t *ret_head, uint32_t *ret_written)
{
    uint64_t end_ns = clock_deadline_ns(patience_ms * CLOCK_NS_PER_MS);
    while (!take(front, ret_head, ret_written)) {
        struct pollfd wanted = {.fd = front->driver.interrupt_fd, .events = POLLIN};
        if (clock_now_ns() > end_ns)
            return false;
        poll(&wanted, 1, front->driver.is_launched ? 100 : 1); /* others may work on it */
        virtio_driver_interrupts(&front->driver);
        virtio_driver_turn(&front->driver);
    }
    return true;
}

uint8_t blk_driver_do(struct blk_driver *front, unsigned request, uint32_t type, uint64_t sector, uint32_t length)
{
    uint32_t head = 0, written = 0;
    blk_driver_send(front, request, type, sector, length);
    if (!blk_driver_finish(front, &head, &written) || head != 3 * request)
        return BLK_DRIVER_PENDING;
    return blk_driver_status(front, request);
}

void blk_driver_put_segment(struct blk_driver *front, unsigned request, unsigned index, uint64_t sector,
                            uint32_t sectors, uint32_t flags)
{
    struct {
        uint64_t sector;
        uint32_t sectors, flags;
    } segment = {sector, sectors, flags};
    virtio_driver_put(&front->driver, blk_driver_data(request) + 16 * (uint64_t)index, &segment, sizeof(segment));
}

uint8_t blk_driver_erase(struct blk_driver *front, uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    blk_driver_put_segment(front, 0, 0, sector, sectors, flags);
    return blk_driver_do(front, 0, type, 0, 16);
}

void blk_driver_peek(const struct blk_driver *front, uint64_t offset, void *bytes, size_t length)
{
    if (pread(front->disk->fd, bytes, length, (off_t)offset) != (ssize_t)length)
        abort();
}
