// SPDX-License-Identifier: Apache-2.0
/* The virtio console: up to 64 ports, each a pair of byte streams between the guest and the host. (virtio 1.2, 5.3)
 *
 * A port is made of descriptors, of a terminal, or of functions of the embedding program. What a guest writes arrives
 * as it was written, escape sequences included: a terminal is for them, and a file is for later.
 */
#ifndef DEVICE_CONSOLE_CONSOLE_H
#define DEVICE_CONSOLE_CONSOLE_H

#include "base/limits.h"
#include "vial/backend.h"
#include "virtio/device.h"

#include <stdbool.h>
#include <stdint.h>

enum { CONSOLE_MOST_PORTS = LIMIT_CONSOLE_PORTS };

enum console_port_kind {
    CONSOLE_PORT_INOUT, /* input_fd and output_fd */
    /* tty_fd: raw until reset, from the guest's first opening on, or where it is the only port from the driver's
     * beginning; its window's size is the guest's. */
    CONSOLE_PORT_TTY,
    CONSOLE_PORT_CUSTOM /* ops */
};

struct console_port_options {
    const char *name; /* what the guest calls it, or NULL; at most LIMIT_PORT_NAME_BYTES */
    bool is_console;  /* a terminal of the guest's kernel (hvc0, …) and not only a port in /dev/virtio-ports */
    enum console_port_kind kind;
    int input_fd, output_fd; /* any kind of descriptor, or -1 for none; the same one twice is fine */
    int tty_fd;
    const struct vial_console_ops *ops; /* borrowed as long as the device lives; release is not called */
    void *ops_user;

    /* Called on the device's thread, or NULL: the guest has opened the port; or it has closed it, and all that it wrote
     * there before has been written, or dropped for want of a reader. */
    void (*guest_changed)(void *user, bool is_open);
    void *guest_user; /* borrowed as long as the device lives */
};

struct console_options {
    const struct console_port_options *ports; /* port 0 is all that a driver without MULTIPORT gets */
    unsigned port_count;
};

/* The descriptors are duplicated: their flags are left alone, and the caller may close his. -EINVAL without a port or
 * for one that makes no sense, -E2BIG for too many ports, -ENOTTY where a terminal is none. */
int console_new(const struct console_options *options, struct virtio_device **ret_device);

/* The window of a terminal has another size (SIGWINCH), or the terminal is ours again (SIGCONT). From any thread and
 * from a signal handler. */
void console_window_changed(struct virtio_device *console);

/* From any thread: what the guest wrote and nobody could take any more, because the reader was gone, the disk was full,
 * or the machine ended before a slow reader was ready. Ports without an output do not count. */
uint64_t console_dropped_bytes(const struct virtio_device *console);

/* From any thread: messages and buffers of the guest that made no sense and were passed over. */
uint64_t console_ignored_messages(const struct virtio_device *console);

#endif
