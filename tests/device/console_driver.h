// SPDX-License-Identifier: Apache-2.0
/* A driver of a console behind virtio-mmio, for tests: the ladder, every queue with buffers of its own, the ports'
 * control messages, and bytes both ways.
 *
 * Each queue has its rings and buffers at fixed guest addresses; the test may write any of them.
 */
#ifndef CONSOLE_DRIVER_H
#define CONSOLE_DRIVER_H

#include "device/console/console.h"
#include "virtio/mmio.h"

#include <sys/types.h>

enum { DRIVER_ENTRIES = 64, DRIVER_BUFFER_BYTES = 4096, DRIVER_MOST_QUEUES = 2 * CONSOLE_MOST_PORTS + 2 };
enum { CONTROL_RX = 2, CONTROL_TX = 3 };
enum { SAY_DEVICE_READY, SAY_PORT_ADD, SAY_PORT_REMOVE, SAY_PORT_READY, SAY_CONSOLE, SAY_RESIZE, SAY_OPEN, SAY_NAME };

struct console_queue {
    uint16_t next_available, last_used;
};

struct console_driver {
    struct virtio_device *device; /* owned */
    struct memory *memory;        /* owned: the device's view of it */
    struct memory *guest;         /* owned: the guest's, at other addresses */
    struct mmio *mmio;            /* owned */
    int interrupt_fd;             /* owned */
    bool is_launched;
    unsigned queue_count;
    struct console_queue queues[DRIVER_MOST_QUEUES];
};

struct control_message {
    uint32_t port;
    uint16_t event, value;
    char body[128];
    size_t body_bytes;
};

/* A machine with this device; aborts when it cannot be made. */
void console_driver_init(struct console_driver *driver, const struct console_options *options);
void console_driver_release(struct console_driver *driver);

/* The same memory at yet other addresses. What two guests do to each other is no race of ours, and ThreadSanitizer
 * knows memory by its address. */
struct memory *console_driver_map(const struct console_driver *driver);

/* Up to DRIVER_OK with all queues and a buffer in every place of the receive queues. With `is_multiport`, the handshake
 * for all ports, and PORT_OPEN for each. */
void console_driver_start(struct console_driver *driver, bool is_multiport);
void console_driver_climb(struct console_driver *driver, bool is_multiport);
void console_driver_reset(struct console_driver *driver);

/* Lets a device that was not launched do what it can. */
void console_driver_turn(struct console_driver *driver);

unsigned console_rx(unsigned port);
unsigned console_tx(unsigned port);
uint64_t console_ring(unsigned queue); /* descriptors; available 0x800 and used 0xc00 behind them */
uint64_t console_buffer(unsigned queue, unsigned index);

void console_describe(struct console_driver *driver, unsigned queue, uint16_t index, uint64_t address, uint32_t length,
                      uint16_t flags, uint16_t next);
void console_offer(struct console_driver *driver, unsigned queue, uint16_t head); /* and kick */
void console_put_16(struct console_driver *driver, uint64_t address, uint16_t value);

/* The next used entry; false when there is none. */
bool console_take(struct console_driver *driver, unsigned queue, uint16_t *ret_head, uint32_t *ret_written);

/* A control message to the device, and the next one from it (its buffer is given again). */
void console_say(struct console_driver *driver, uint32_t port, uint16_t event, uint16_t value);
bool console_hear(struct console_driver *driver, struct control_message *ret_message);

/* Puts a buffer of bytes into the port's transmit queue; false when the queue is full. */
bool console_write(struct console_driver *driver, unsigned port, const void *bytes, size_t length);

/* Takes what has arrived at the port, at most `size`, and gives the buffers again. */
size_t console_read(struct console_driver *driver, unsigned port, void *bytes, size_t size);

uint32_t console_register(struct console_driver *driver, uint64_t offset);
void console_set_register(struct console_driver *driver, uint64_t offset, uint32_t value);

#endif
