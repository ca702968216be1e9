// SPDX-License-Identifier: Apache-2.0
/* A driver for tests that works a whole device: see virtio_driver.h. */
#include "virtio_driver.h"

#include "base/fd.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { /* registers (virtio 1.2, 4.2.2) */
       DRIVER_FEATURES = 0x020,
       DRIVER_FEATURES_SELECT = 0x024,
       QUEUE_SELECT = 0x030,
       QUEUE_SIZE = 0x038,
       QUEUE_READY = 0x044,
       STATUS = 0x070,
       QUEUE_DESCRIPTORS = 0x080,
       QUEUE_AVAILABLE = 0x090,
       QUEUE_USED = 0x0a0,
};
enum { most_turns = 64 };

/* ---- life ---- */

void virtio_driver_init(struct virtio_driver *driver, uint64_t memory_bytes)
{
    *driver = (struct virtio_driver){.interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    if (driver->interrupt_fd < 0 || memory_new(memory_bytes, false, &driver->memory) < 0)
        abort();
}

void virtio_driver_attach(struct virtio_driver *driver, struct virtio_device *device)
{
    driver->device = device;
    if (mmio_new(device, driver->memory, driver->interrupt_fd, &driver->mmio) < 0)
        abort();
}

void virtio_driver_release(struct virtio_driver *driver)
{
    driver->mmio = mmio_free(driver->mmio);
    driver->device = virtio_device_free(driver->device);
    driver->memory = memory_free(driver->memory);
    driver->interrupt_fd = fd_close(driver->interrupt_fd);
}

/* ---- registers ---- */

uint32_t virtio_driver_read(const struct virtio_driver *driver, uint64_t offset)
{
    uint32_t value = 0;
    mmio_read(driver->mmio, offset, &value, sizeof(value));
    return value;
}

void virtio_driver_write(struct virtio_driver *driver, uint64_t offset, uint32_t value)
{
    mmio_write(driver->mmio, offset, &value, sizeof(value));
}

bool virtio_driver_needs_reset(const struct virtio_driver *driver)
{
    return (virtio_driver_read(driver, STATUS) & VIRTIO_NEEDS_RESET) != 0;
}

static void add_queue(struct virtio_driver *driver, unsigned queue)
{
    virtio_driver_write(driver, QUEUE_SELECT, queue);
    virtio_driver_write(driver, QUEUE_SIZE, driver->entries);
    virtio_driver_write(driver, QUEUE_DESCRIPTORS, (uint32_t)VIRTIO_DRIVER_DESCRIPTORS(queue));
    virtio_driver_write(driver, QUEUE_AVAILABLE, (uint32_t)VIRTIO_DRIVER_AVAILABLE(queue));
    virtio_driver_write(driver, QUEUE_USED, (uint32_t)VIRTIO_DRIVER_USED(queue));
    virtio_driver_write(driver, QUEUE_READY, 1);
}

bool virtio_driver_start(struct virtio_driver *driver, uint64_t features, unsigned queues, uint16_t entries)
{
    uint32_t status = VIRTIO_ACKNOWLEDGE;
    driver->entries = entries;
    features |= VIRTIO_F_VERSION_1;
    virtio_driver_write(driver, STATUS, status);
    virtio_driver_write(driver, STATUS, status |= VIRTIO_DRIVER);
    for (uint32_t half = 0; half < 2; half++) {
        virtio_driver_write(driver, DRIVER_FEATURES_SELECT, half);
        virtio_driver_write(driver, DRIVER_FEATURES, (uint32_t)(features >> (32 * half)));
    }
    virtio_driver_write(driver, STATUS, status |= VIRTIO_FEATURES_OK);
    if (virtio_driver_read(driver, STATUS) != status)
        return false;
    for (unsigned i = 0; i < VIRTIO_DRIVER_QUEUES; i++)
        if ((queues >> i & 1) != 0)
            add_queue(driver, i);
    virtio_driver_write(driver, STATUS, status |= VIRTIO_DRIVER_OK);
    return virtio_driver_read(driver, STATUS) == status;
}

void virtio_driver_reset(struct virtio_driver *driver)
{
    virtio_driver_write(driver, STATUS, 0);
}

bool virtio_driver_restart(struct virtio_driver *driver, uint64_t features, unsigned queues, uint16_t entries)
{
    static const uint8_t zeros[0x1000];
    virtio_driver_reset(driver);
    for (unsigned i = 0; i < VIRTIO_DRIVER_QUEUES; i++) {
        virtio_driver_put(driver, VIRTIO_DRIVER_DESCRIPTORS(i), zeros, sizeof(zeros));
        virtio_driver_put(driver, VIRTIO_DRIVER_AVAILABLE(i), zeros, sizeof(zeros));
        virtio_driver_put(driver, VIRTIO_DRIVER_USED(i), zeros, sizeof(zeros));
        driver->queues[i] = (struct virtio_driver_queue){0};
    }
    return virtio_driver_start(driver, features, queues, entries);
}

/* ---- memory ---- */

void virtio_driver_put(struct virtio_driver *driver, uint64_t address, const void *bytes, size_t length)
{
    if (memory_write(driver->memory, address, bytes, length) < 0)
        abort();
}

/* Words of the rings, which a launched device reads and writes at the same time. */
static _Atomic uint16_t *word_at(const struct virtio_driver *driver, uint64_t address)
{
    void *word = memory_span(driver->memory, address, sizeof(uint16_t));
    if (word == NULL)
        abort();
    return word;
}

static void put_16(struct virtio_driver *driver, uint64_t address, uint16_t value)
{
    atomic_store_explicit(word_at(driver, address), value, memory_order_release);
}

uint16_t virtio_driver_get_16(const struct virtio_driver *driver, uint64_t address)
{
    return atomic_load_explicit(word_at(driver, address), memory_order_acquire);
}

uint32_t virtio_driver_get_32(const struct virtio_driver *driver, uint64_t address)
{
    uint32_t value = 0;
    memory_read(driver->memory, address, &value, sizeof(value));
    return value;
}

/* ---- queues ---- */

void virtio_driver_describe(struct virtio_driver *driver, unsigned queue, uint16_t index, uint64_t address,
                            uint32_t length, uint16_t flags, uint16_t next)
{
    struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } descriptor = {address, length, flags, next};
    uint64_t halves[2];
    memcpy(halves, &descriptor, sizeof(halves));
    /* Of a guest that changes its rings meanwhile the device may look at any descriptor, also at this one. */
    _Atomic uint64_t *place = memory_span(driver->memory, VIRTIO_DRIVER_DESCRIPTORS(queue) + 16 * (uint64_t)index,
                                          sizeof(halves));
    if (place == NULL)
        abort();
    atomic_store_explicit(&place[0], halves[0], memory_order_relaxed);
    atomic_store_explicit(&place[1], halves[1], memory_order_relaxed);
}

void virtio_driver_offer(struct virtio_driver *driver, unsigned queue, uint16_t head)
{
    struct virtio_driver_queue *own = &driver->queues[queue];
    uint64_t available = VIRTIO_DRIVER_AVAILABLE(queue);
    put_16(driver, available + 4 + 2 * (uint64_t)(own->next_available % driver->entries), head);
    put_16(driver, available + 2, ++own->next_available);
}

void virtio_driver_turn(struct virtio_driver *driver)
{
    for (int i = 0; i < most_turns && !driver->is_launched; i++)
        virtio_device_turn(driver->device);
}

void virtio_driver_kick(struct virtio_driver *driver, unsigned queue)
{
    virtio_driver_write(driver, MMIO_QUEUE_NOTIFY, queue);
    virtio_driver_turn(driver);
}

void virtio_driver_send(struct virtio_driver *driver, unsigned queue, uint64_t address, uint32_t length, uint16_t flags)
{
    uint16_t head = (uint16_t)(driver->queues[queue].next_available % driver->entries);
    virtio_driver_describe(driver, queue, head, address, length, flags, 0);
    virtio_driver_offer(driver, queue, head);
    virtio_driver_kick(driver, queue);
}

bool virtio_driver_take(struct virtio_driver *driver, unsigned queue, uint32_t *ret_head, uint32_t *ret_written)
{
    struct virtio_driver_queue *own = &driver->queues[queue];
    uint64_t used = VIRTIO_DRIVER_USED(queue);
    if (virtio_driver_get_16(driver, used + 2) == own->last_used)
        return false;
    uint64_t entry = used + 4 + 8 * (uint64_t)(own->last_used++ % driver->entries);
    *ret_head = virtio_driver_get_32(driver, entry);
    *ret_written = virtio_driver_get_32(driver, entry + 4);
    return true;
}

/* ---- interrupts ---- */

uint64_t virtio_driver_interrupts(struct virtio_driver *driver)
{
    uint64_t count = 0;
    return read(driver->interrupt_fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

bool virtio_driver_wait(struct virtio_driver *driver)
{
    struct pollfd wanted = {.fd = driver->interrupt_fd, .events = POLLIN};
    return poll(&wanted, 1, 5000) == 1 && virtio_driver_interrupts(driver) > 0;
}
