// SPDX-License-Identifier: Apache-2.0
/* A driver of a console behind virtio-mmio, for tests: see console_driver.h. */
#include "console_driver.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* A page of rings for each queue, then 64 pages of buffers for each. */
enum { rings_at = 0x100000, buffers_at = 0x200000, available_in_page = 0x800, used_in_page = 0xc00 };

uint64_t console_ring(unsigned queue)
{
    return rings_at + 4096 * (uint64_t)queue;
}

uint64_t console_buffer(unsigned queue, unsigned index)
{
    return buffers_at + ((uint64_t)queue * DRIVER_ENTRIES + index) * DRIVER_BUFFER_BYTES;
}

unsigned console_rx(unsigned port)
{
    return port == 0 ? 0 : 2 * port + 2;
}

unsigned console_tx(unsigned port)
{
    return console_rx(port) + 1;
}

uint32_t console_register(struct console_driver *driver, uint64_t offset)
{
    uint32_t value;
    mmio_read(driver->mmio, offset, &value, sizeof(value));
    return value;
}

void console_set_register(struct console_driver *driver, uint64_t offset, uint32_t value)
{
    mmio_write(driver->mmio, offset, &value, sizeof(value));
}

void console_driver_init(struct console_driver *driver, const struct console_options *options)
{
    *driver = (struct console_driver){.interrupt_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    if (console_new(options, &driver->device) < 0)
        abort();
    driver->queue_count = virtio_device_queue_count(driver->device);
    if (memory_new(buffers_at + (uint64_t)driver->queue_count * DRIVER_ENTRIES * DRIVER_BUFFER_BYTES, false,
                   &driver->memory) < 0 ||
        mmio_new(driver->device, driver->memory, driver->interrupt_fd, &driver->mmio) < 0)
        abort();
    driver->guest = console_driver_map(driver);
}

struct memory *console_driver_map(const struct console_driver *driver)
{
    const struct memory_region *ram = memory_region(driver->memory, 0);
    struct memory *view = NULL;
    if (memory_new_empty(&view) < 0 || memory_add(view, 0, ram->size_bytes, ram->fd, 0) < 0)
        abort();
    return view;
}

void console_driver_release(struct console_driver *driver)
{
    mmio_free(driver->mmio);
    virtio_device_free(driver->device);
    memory_free(driver->guest);
    memory_free(driver->memory);
    close(driver->interrupt_fd);
}

void console_put_16(struct console_driver *driver, uint64_t address, uint16_t value)
{
    uint16_t *word = memory_span(driver->guest, address, sizeof(*word));
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static uint16_t get_16(struct console_driver *driver, uint64_t address)
{
    uint16_t *word = memory_span(driver->guest, address, sizeof(*word));
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

void console_describe(struct console_driver *driver, unsigned queue, uint16_t index, uint64_t address, uint32_t length,
                      uint16_t flags, uint16_t next)
{
    struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } descriptor = {address, length, flags, next};
    memory_write(driver->guest, console_ring(queue) + 16 * (uint64_t)index, &descriptor, sizeof(descriptor));
}

void console_offer(struct console_driver *driver, unsigned queue, uint16_t head)
{
    struct console_queue *own = &driver->queues[queue];
    uint64_t available = console_ring(queue) + available_in_page;
    console_put_16(driver, available + 4 + 2 * (uint64_t)(own->next_available % DRIVER_ENTRIES), head);
    console_put_16(driver, available + 2, ++own->next_available);
    virtio_kick(driver->device, queue);
}

bool console_take(struct console_driver *driver, unsigned queue, uint16_t *ret_head, uint32_t *ret_written)
{
    struct console_queue *own = &driver->queues[queue];
    uint64_t used = console_ring(queue) + used_in_page;
    uint32_t entry[2];
    if (get_16(driver, used + 2) == own->last_used)
        return false;
    memory_read(driver->guest, used + 4 + 8 * (uint64_t)(own->last_used++ % DRIVER_ENTRIES), entry, sizeof(entry));
    *ret_head = (uint16_t)entry[0];
    *ret_written = entry[1];
    return true;
}

void console_driver_turn(struct console_driver *driver)
{
    for (int i = 0; i < 8 && !driver->is_launched; i++)
        virtio_device_turn(driver->device);
}

static void set_queue(struct console_driver *driver, unsigned queue)
{
    uint64_t ring = console_ring(queue);
    memset(memory_span(driver->guest, ring, 4096), 0, 4096);
    driver->queues[queue] = (struct console_queue){0};
    console_set_register(driver, 0x30, queue);
    console_set_register(driver, 0x38, DRIVER_ENTRIES);
    console_set_register(driver, 0x80, (uint32_t)ring);
    console_set_register(driver, 0x90, (uint32_t)ring + available_in_page);
    console_set_register(driver, 0xa0, (uint32_t)ring + used_in_page);
    console_set_register(driver, 0x44, 1);
}

static void offer_buffers(struct console_driver *driver, unsigned queue)
{
    for (uint16_t i = 0; i < DRIVER_ENTRIES; i++) {
        console_describe(driver, queue, i, console_buffer(queue, i), DRIVER_BUFFER_BYTES, 2, 0);
        console_offer(driver, queue, i);
    }
}

void console_driver_climb(struct console_driver *driver, bool is_multiport)
{
    unsigned queue_count = is_multiport ? driver->queue_count : 2;
    console_set_register(driver, 0x70, 0);
    console_set_register(driver, 0x70, 1);
    console_set_register(driver, 0x70, 3);
    console_set_register(driver, 0x24, 0);
    console_set_register(driver, 0x20, is_multiport ? 3 : 1);
    console_set_register(driver, 0x24, 1);
    console_set_register(driver, 0x20, 1);
    console_set_register(driver, 0x70, 11);
    for (unsigned i = 0; i < queue_count; i++)
        set_queue(driver, i);
    console_set_register(driver, 0x70, 15);
    for (unsigned i = 0; i < queue_count; i += 2)
        offer_buffers(driver, i);
    console_driver_turn(driver);
}

void console_driver_reset(struct console_driver *driver)
{
    console_set_register(driver, 0x70, 0);
}

void console_say(struct console_driver *driver, uint32_t port, uint16_t event, uint16_t value)
{
    struct {
        uint32_t port;
        uint16_t event, value;
    } message = {port, event, value};
    uint16_t slot = driver->queues[CONTROL_TX].next_available % DRIVER_ENTRIES;
    memory_write(driver->guest, console_buffer(CONTROL_TX, slot), &message, sizeof(message));
    console_describe(driver, CONTROL_TX, slot, console_buffer(CONTROL_TX, slot), sizeof(message), 0, 0);
    console_offer(driver, CONTROL_TX, slot);
    console_driver_turn(driver);
}

bool console_hear(struct console_driver *driver, struct control_message *ret_message)
{
    uint16_t head;
    uint32_t written;
    console_driver_turn(driver);
    if (!console_take(driver, CONTROL_RX, &head, &written) || written < 8)
        return false;
    memset(ret_message, 0, sizeof(*ret_message));
    memory_read(driver->guest, console_buffer(CONTROL_RX, head), ret_message, 8);
    ret_message->body_bytes = written - 8;
    memory_read(driver->guest, console_buffer(CONTROL_RX, head) + 8, ret_message->body, written - 8);
    console_offer(driver, CONTROL_RX, head);
    return true;
}

void console_driver_start(struct console_driver *driver, bool is_multiport)
{
    struct control_message message;
    console_driver_climb(driver, is_multiport);
    if (!is_multiport)
        return;
    console_say(driver, 0, SAY_DEVICE_READY, 1);
    while (console_hear(driver, &message))
        if (message.event == SAY_PORT_ADD)
            console_say(driver, message.port, SAY_PORT_READY, 1);
    for (unsigned i = 0; i < (driver->queue_count - 2) / 2; i++)
        console_say(driver, i, SAY_OPEN, 1);
    while (console_hear(driver, &message))
        continue;
}

bool console_write(struct console_driver *driver, unsigned port, const void *bytes, size_t length)
{
    unsigned queue = console_tx(port);
    struct console_queue *own = &driver->queues[queue];
    uint16_t head;
    uint32_t written;
    while (console_take(driver, queue, &head, &written))
        continue;
    if ((uint16_t)(own->next_available - own->last_used) == DRIVER_ENTRIES)
        return false;
    uint16_t slot = own->next_available % DRIVER_ENTRIES; /* outputs are served in order, so this one is free */
    memory_write(driver->guest, console_buffer(queue, slot), bytes, length);
    console_describe(driver, queue, slot, console_buffer(queue, slot), (uint32_t)length, 0, 0);
    console_offer(driver, queue, slot);
    return true;
}

size_t console_read(struct console_driver *driver, unsigned port, void *bytes, size_t size)
{
    unsigned queue = console_rx(port);
    size_t length = 0;
    uint16_t head;
    uint32_t written;
    console_driver_turn(driver);
    while (size - length >= DRIVER_BUFFER_BYTES && console_take(driver, queue, &head, &written)) {
        memory_read(driver->guest, console_buffer(queue, head), (char *)bytes + length, written);
        length += written;
        console_offer(driver, queue, head);
    }
    return length;
}
