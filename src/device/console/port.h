// SPDX-License-Identifier: Apache-2.0
/* What the parts of the console share: a port, the device, and who does what. */
#ifndef DEVICE_CONSOLE_PORT_H
#define DEVICE_CONSOLE_PORT_H

#include "base/terminal.h"
#include "device/console/console.h"
#include "device/console/stream.h"

#include <stdatomic.h>

/* Control messages that a port owes the guest, in the order in which they are sent (virtio 1.2, 5.3.6.2). */
enum control_owed {
    OWED_ADD = 1 << 0,
    OWED_CONSOLE = 1 << 1,
    OWED_NAME = 1 << 2,
    OWED_SIZE = 1 << 3,
    OWED_OPEN = 1 << 4, /* whether the host's side is open */
};

struct port {
    struct console *console; /* borrowed: whose it is */
    unsigned index;
    char *name; /* owned, or NULL */
    bool is_console;
    struct stream input, output;
    int tty_fd; /* owned; -1 where the port is no terminal */
    uint16_t columns, rows;
    bool has_warned_of_disk, has_warned_of_terminal;
    unsigned losses; /* stops at which something could not be written */
    void (*guest_changed)(void *user, bool is_open);
    void *guest_user; /* borrowed */

    /* From start to stop: */
    bool is_added, is_ready;   /* the driver was told of the port, and has accepted it */
    bool is_open;              /* the guest reads and writes */
    bool is_close_untold;      /* it has ceased to, and guest_changed waits for its last words */
    unsigned owed;             /* enum control_owed */
    struct terminal *terminal; /* owned; raw since the guest first opened the port */
    bool is_in_background;     /* the terminal is another's just now */
    struct queue_chain chain;  /* taken from the guest, and not yet written as a whole */
    size_t chain_offset;       /* what of it was written */
    size_t resume_offset;      /* what was written of the next one, before the queue was paused */
    bool has_chain;
    uint64_t written_bytes; /* ever, so that a flush sees whether it moves */
};

struct console {
    struct virtio_device *device;                         /* borrowed: the other half of it */
    bool is_multiport;                                    /* the driver knows of more than port 0 */
    int window_fd;                                        /* owned: an eventfd for console_window_changed */
    struct loop_source *window_source, *background_timer; /* the loop's */
    atomic_uint_fast64_t dropped_bytes, ignored_messages;
    unsigned port_count;
    struct port ports[CONSOLE_MOST_PORTS];
};

/* Queues (5.3.2). */
enum { QUEUE_CONTROL_RECEIVE = 2, QUEUE_CONTROL_TRANSMIT = 3, CONSOLE_QUEUE_ENTRIES = 64 };

static inline unsigned port_receive_queue(const struct port *port)
{
    return port->index == 0 ? 0 : 2 * port->index + 2;
}

static inline unsigned port_transmit_queue(const struct port *port)
{
    return port_receive_queue(port) + 1;
}

static inline void console_ignore(struct console *console)
{
    atomic_fetch_add_explicit(&console->ignored_messages, 1, memory_order_relaxed);
}

/* ---- port.c: bytes ---- */

/* The guest opened or closed its side. */
void port_open(struct port *port);
void port_close(struct port *port);

/* Whether somebody on the host's side may still send or take. */
bool port_is_host_open(const struct port *port);

/* Moves what can be moved now. */
void port_pump_input(struct port *port);
void port_pump_output(struct port *port);

/* The queue of the port's output is paused: its chain comes again, and is written from where it was left. */
void port_pause_output(struct port *port);

/* The same when the queue is served: everything that was in it has its turn. */
void port_serve_output(struct port *port);

/* The terminal may have been another's, and changed by him. */
void port_renew_terminal(struct port *port);

/* The terminal may be ours again, and its window may have another size. */
void port_try_foreground(struct port *port);
void port_update_size(struct port *port);

/* Writes what the guest has said, waiting for slow readers no longer than the end of a machine may wait. */
void port_flush_all(struct console *console);

/* The guest is gone: its chains with it. */
void port_stop(struct port *port);

/* ---- control.c: messages ---- */

void control_receive(struct console *console);
void control_send_owed(struct console *console);

#endif
