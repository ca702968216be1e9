// SPDX-License-Identifier: Apache-2.0
/* A driver for tests that works a whole device: it climbs the ladder of virtio-mmio's status register, sets up queues,
 * kicks, and reads what was used. Each field of a ring can be written directly, right or wrong.
 *
 *     struct virtio_driver driver;
 *     virtio_driver_init(&driver, 16 << 20);
 *     … make a device, which may use driver.memory …
 *     virtio_driver_attach(&driver, device);
 *     virtio_driver_start(&driver, features, 0x3, 64);
 *     virtio_driver_send(&driver, 0, address, length, 0);
 *     virtio_driver_take(&driver, 0, &head, &written)
 *     virtio_driver_release(&driver);
 */
#ifndef VIRTIO_DRIVER_H
#define VIRTIO_DRIVER_H

#include "virtio/mmio.h"

enum { VIRTIO_DRIVER_NEXT = 1, VIRTIO_DRIVER_WRITE = 2, VIRTIO_DRIVER_INDIRECT = 4 };
enum { VIRTIO_DRIVER_QUEUES = 8 };

/* Where the parts of a queue lie, and memory that no queue uses. */
#define VIRTIO_DRIVER_DESCRIPTORS(queue) (0x10000 * (UINT64_C(1) + (queue)))
#define VIRTIO_DRIVER_AVAILABLE(queue) (VIRTIO_DRIVER_DESCRIPTORS(queue) + 0x4000)
#define VIRTIO_DRIVER_USED(queue) (VIRTIO_DRIVER_DESCRIPTORS(queue) + 0x8000)
#define VIRTIO_DRIVER_BUFFERS UINT64_C(0x100000)

struct virtio_driver_queue {
    uint16_t next_available, last_used;
};

struct virtio_driver {
    struct memory *memory;        /* owned */
    struct virtio_device *device; /* owned from virtio_driver_attach on */
    struct mmio *mmio;            /* owned */
    int interrupt_fd;             /* owned */
    uint16_t entries;
    bool is_launched; /* the device runs on a thread of its own: nobody has to turn it */
    struct virtio_driver_queue queues[VIRTIO_DRIVER_QUEUES];
};

void virtio_driver_init(struct virtio_driver *driver, uint64_t memory_bytes);
void virtio_driver_attach(struct virtio_driver *driver, struct virtio_device *device);
void virtio_driver_release(struct virtio_driver *driver);

/* Up the ladder with these features (VERSION_1 is added) and the queues of a bit mask. Whether the device runs. */
bool virtio_driver_start(struct virtio_driver *driver, uint64_t features, unsigned queues, uint16_t entries);
void virtio_driver_reset(struct virtio_driver *driver);

/* Back on top of the ladder with the same queues, empty again. */
bool virtio_driver_restart(struct virtio_driver *driver, uint64_t features, unsigned queues, uint16_t entries);

uint32_t virtio_driver_read(const struct virtio_driver *driver, uint64_t offset);
void virtio_driver_write(struct virtio_driver *driver, uint64_t offset, uint32_t value);
bool virtio_driver_needs_reset(const struct virtio_driver *driver);

void virtio_driver_describe(struct virtio_driver *driver, unsigned queue, uint16_t index, uint64_t address,
                            uint32_t length, uint16_t flags, uint16_t next);
void virtio_driver_offer(struct virtio_driver *driver, unsigned queue, uint16_t head);

/* Kicks, and turns a device that has no thread until it has nothing left to do at once (or seems never to have). */
void virtio_driver_kick(struct virtio_driver *driver, unsigned queue);
void virtio_driver_turn(struct virtio_driver *driver);

/* Describes one buffer, offers it and kicks. */
void virtio_driver_send(struct virtio_driver *driver, unsigned queue, uint64_t address, uint32_t length,
                        uint16_t flags);

bool virtio_driver_take(struct virtio_driver *driver, unsigned queue, uint32_t *ret_head, uint32_t *ret_written);

/* Interrupts since the last time; virtio_driver_wait waits for one (or five seconds: then false). */
uint64_t virtio_driver_interrupts(struct virtio_driver *driver);
bool virtio_driver_wait(struct virtio_driver *driver);

void virtio_driver_put(struct virtio_driver *driver, uint64_t address, const void *bytes, size_t length);
uint16_t virtio_driver_get_16(const struct virtio_driver *driver, uint64_t address);
uint32_t virtio_driver_get_32(const struct virtio_driver *driver, uint64_t address);

#endif
