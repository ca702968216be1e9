// SPDX-License-Identifier: Apache-2.0
/* The control queues of a console: which ports there are, and who has opened them. (virtio 1.2, 5.3.6.2)
 *
 *     driver ── DEVICE_READY ──────────────> each port: PORT_ADD
 *     driver ── PORT_READY ────────────────> CONSOLE_PORT, PORT_NAME, RESIZE, PORT_OPEN
 *     driver ── PORT_OPEN ─────────────────> the terminal becomes raw, input flows
 *     the host's end, another window size ─> PORT_OPEN 0, RESIZE
 *
 * What we have to say waits until the guest gives a buffer for it. It is not kept as messages but as a set of bits on
 * each port, what it owes: a message is made from the port's state when its buffer is there. So a guest can neither
 * make a list grow nor be told what is no longer so, and the order is always the same.
 *
 * The size in RESIZE is columns, then rows, as the standard says and as Linux reads it since 6.15 and in its stable
 * series since 2026; before, it read them the other way round, and nothing tells a driver of one kind from the other.
 *
 * Invariants: (1) a port is spoken of only after its PORT_ADD, and beyond that only after the driver's PORT_READY.
 * (2) answering a message takes no memory. (3) a turn handles a bounded number of messages.
 *
 * Trust: messages come from a hostile guest; ones that are short, of unknown kind, of no port, or out of order are
 * counted and otherwise ignored.
 */
#include "device/console/port.h"

#include "base/limits.h"

#include <string.h>

enum control_event { /* (5.3.6.2) */
                     DEVICE_READY = 0,
                     PORT_ADD = 1,
                     PORT_READY = 3,
                     CONSOLE_PORT = 4,
                     RESIZE = 5,
                     PORT_OPEN = 6,
                     PORT_NAME = 7,
};

/* Little-endian, as we are. */
struct control_header {
    uint32_t port;
    uint16_t event, value;
};

struct control_message {
    struct control_header header;
    uint8_t body[LIMIT_PORT_NAME_BYTES]; /* the name without a NUL, or the size */
    size_t length;                       /* of header and body */
};

/* ---- to the guest ---- */

static void add_body(struct control_message *message, const void *bytes, size_t length)
{
    memcpy(message->body, bytes, length);
    message->length += length;
}

static struct control_message make_message(const struct port *port, unsigned owed)
{
    struct control_message message = {.header = {.port = port->index}, .length = sizeof(message.header)};
    uint16_t size[] = {port->columns, port->rows};
    switch (owed) {
    case OWED_ADD:
        message.header.event = PORT_ADD;
        break;
    case OWED_CONSOLE:
        message.header.event = CONSOLE_PORT;
        message.header.value = 1;
        break;
    case OWED_NAME:
        message.header.event = PORT_NAME;
        add_body(&message, port->name, strlen(port->name));
        break;
    case OWED_SIZE:
        message.header.event = RESIZE;
        add_body(&message, size, sizeof(size));
        break;
    default:
        message.header.event = PORT_OPEN;
        message.header.value = port_is_host_open(port);
        break;
    }
    return message;
}

/* False when the guest has no buffer for it. One that is too small is handed back empty, and the next one tried. */
static bool send_message(struct console *console, const struct control_message *message)
{
    struct queue_chain chain;
    for (unsigned left = CONSOLE_QUEUE_ENTRIES; left > 0; left--) {
        if (!virtio_pop(console->device, QUEUE_CONTROL_RECEIVE, &chain))
            return false;
        bool fits = chain.writable_bytes >= message->length;
        if (fits) {
            size_t header_bytes = sizeof(message->header);
            virtio_write_spans(chain.writable, chain.writable_count, 0, &message->header, header_bytes);
            virtio_write_spans(chain.writable, chain.writable_count, header_bytes, message->body,
                               message->length - header_bytes);
        } else {
            console_ignore(console);
        }
        virtio_push(console->device, QUEUE_CONTROL_RECEIVE, chain.head, fits ? (uint32_t)message->length : 0);
        if (fits)
            return true;
    }
    virtio_kick(console->device, QUEUE_CONTROL_RECEIVE); /* nothing but small ones: others have their turn first */
    return false;
}

static bool send_owed(struct port *port)
{
    while (port->owed != 0) {
        unsigned first = port->owed & -port->owed;
        struct control_message message = make_message(port, first);
        if (!send_message(port->console, &message))
            return false;
        port->owed &= ~first;
    }
    return true;
}

void control_send_owed(struct console *console)
{
    if (!console->is_multiport)
        return;
    for (unsigned i = 0; i < console->port_count; i++)
        if (!send_owed(&console->ports[i]))
            break;
    virtio_call(console->device, QUEUE_CONTROL_RECEIVE);
}

/* ---- from the guest ---- */

static void add_ports(struct console *console)
{
    for (unsigned i = 0; i < console->port_count; i++) {
        struct port *port = &console->ports[i];
        if (!port->is_added)
            port->owed |= OWED_ADD;
        port->is_added = true;
    }
}

static void accept_port(struct port *port)
{
    port->is_ready = true;
    port->owed |= OWED_OPEN;
    if (port->is_console)
        port->owed |= OWED_CONSOLE;
    if (port->name != NULL)
        port->owed |= OWED_NAME;
    if (port->is_console && (port->columns | port->rows) != 0)
        port->owed |= OWED_SIZE;
}

/* Whether the message made sense. */
static bool handle_message(struct console *console, const struct control_header *message)
{
    if (message->event == DEVICE_READY) {
        if (message->value == 1)
            add_ports(console);
        return message->value == 1;
    }
    struct port *port = message->port < console->port_count ? &console->ports[message->port] : NULL;
    if (port == NULL || !port->is_added || (port->owed & OWED_ADD) != 0)
        return false;
    switch (message->event) {
    case PORT_READY:
        if (message->value != 1 || port->is_ready)
            return false;
        accept_port(port);
        return true;
    case PORT_OPEN:
        if (!port->is_ready || message->value > 1)
            return false;
        if (message->value == 1)
            port_open(port);
        else
            port_close(port);
        return true;
    default:
        return false;
    }
}

void control_receive(struct console *console)
{
    struct queue_chain chain;
    while (virtio_pop(console->device, QUEUE_CONTROL_TRANSMIT, &chain)) {
        struct control_header message;
        size_t length = virtio_read_spans(chain.readable, chain.readable_count, 0, &message, sizeof(message));
        if (length < sizeof(message) || !handle_message(console, &message))
            console_ignore(console);
        virtio_push(console->device, QUEUE_CONTROL_TRANSMIT, chain.head, 0);
    }
    virtio_call(console->device, QUEUE_CONTROL_TRANSMIT);
    control_send_owed(console);
}
