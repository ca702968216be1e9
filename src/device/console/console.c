// SPDX-License-Identifier: Apache-2.0
/* The virtio console: up to 64 ports, each a pair of byte streams between the guest and the host. (virtio 1.2, 5.3)
 *
 * This file puts the device together; port.c moves bytes, control.c speaks of ports, stream.c knows descriptors, and
 * terminal.c the user's terminal.
 *
 *     queue 0, 1     port 0: receive, transmit        all that a driver without MULTIPORT uses
 *     queue 2, 3     control: receive, transmit
 *     queue 2n + 2   port n, for n > 0: receive, and behind it transmit
 *
 * Every queue has 64 places. A Linux driver fills receive queues with pages, so a port costs the guest 256 KiB, which
 * is four times what a pipe holds; it sends one buffer of up to 32 KiB at a time, or some more where it need not wait.
 *
 * A driver without MULTIPORT has one console, port 0, open from the start; its size stands in the configuration space.
 * A device with nothing but such a port does not offer it.
 *
 * Bytes of the guest go to terminals and files as they are, escape sequences included.
 *
 * Invariants: (1) everything but the counters and window_fd is touched on the device's thread only. (2) between stop
 * and start no port holds a chain or a terminal. (3) descriptors live longer than their places in the loop.
 *
 * Trust: features and queues come from a hostile driver, options from the configuration that was checked.
 */
#include "device/console/console.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "device/console/port.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define VIRTIO_CONSOLE_F_SIZE (UINT64_C(1) << 0)
#define VIRTIO_CONSOLE_F_MULTIPORT (UINT64_C(1) << 1)

/* The configuration space (5.3.4). Little-endian, as we are. */
struct console_config {
    uint16_t columns, rows;
    uint32_t most_ports;
    uint32_t emergency_write; /* EMERG_WRITE is not offered */
};

/* ---- the driver's side ---- */

static void console_start(void *state, uint64_t features)
{
    struct console *console = state;
    console->is_multiport = (features & VIRTIO_CONSOLE_F_MULTIPORT) != 0;
    for (unsigned i = 0; i < console->port_count; i++)
        port_update_size(&console->ports[i]);
    if (!console->is_multiport)
        port_open(&console->ports[0]);
}

static void console_serve(void *state, unsigned queue)
{
    struct console *console = state;
    bool is_control = queue == QUEUE_CONTROL_RECEIVE || queue == QUEUE_CONTROL_TRANSMIT;
    unsigned index = queue < QUEUE_CONTROL_RECEIVE ? 0 : queue / 2 - 1;
    if (!console->is_multiport && queue >= QUEUE_CONTROL_RECEIVE)
        return; /* these queues do not exist then (5.3.2) */
    if (queue == QUEUE_CONTROL_TRANSMIT)
        control_receive(console);
    else if (is_control)
        control_send_owed(console);
    else if (queue % 2 == 0)
        port_pump_input(&console->ports[index]);
    else
        port_serve_output(&console->ports[index]);
}

static void console_queue_paused(void *state, unsigned queue)
{
    struct console *console = state;
    for (unsigned i = 0; i < console->port_count; i++)
        if (port_transmit_queue(&console->ports[i]) == queue)
            port_pause_output(&console->ports[i]);
}

static void console_stop(void *state)
{
    struct console *console = state;
    port_flush_all(console);
    for (unsigned i = 0; i < console->port_count; i++)
        port_stop(&console->ports[i]);
}

/* ---- the host's side ---- */

static void handle_input(void *user, uint32_t what)
{
    struct port *port = user;
    (void)what;
    stream_disarmed(&port->input);
    port_pump_input(port);
}

static void handle_output(void *user, uint32_t what)
{
    struct port *port = user;
    (void)what;
    stream_disarmed(&port->output);
    port_pump_output(port);
}

static void handle_window(void *user, uint32_t what)
{
    struct console *console = user;
    (void)what;
    for (unsigned i = 0; i < console->port_count; i++) {
        port_renew_terminal(&console->ports[i]);
        port_update_size(&console->ports[i]);
    }
    control_send_owed(console);
}

static void handle_background(void *user, uint32_t what)
{
    struct console *console = user;
    (void)what;
    for (unsigned i = 0; i < console->port_count; i++)
        port_try_foreground(&console->ports[i]);
}

void console_window_changed(struct virtio_device *device)
{
    struct console *console = virtio_device_state(device);
    uint64_t one = 1;
    int saved = errno;
    ssize_t written = write(console->window_fd, &one, sizeof(one));
    (void)written; /* fails only where as many changes are pending as fit */
    errno = saved;
}

uint64_t console_dropped_bytes(const struct virtio_device *device)
{
    struct console *console = virtio_device_state(device);
    return atomic_load_explicit(&console->dropped_bytes, memory_order_relaxed);
}

uint64_t console_ignored_messages(const struct virtio_device *device)
{
    struct console *console = virtio_device_state(device);
    return atomic_load_explicit(&console->ignored_messages, memory_order_relaxed);
}

/* ---- life ---- */

static void console_free(void *state)
{
    struct console *console = state;
    for (unsigned i = 0; i < console->port_count; i++) {
        struct port *port = &console->ports[i];
        terminal_free(port->terminal);
        stream_close(&port->input);
        stream_close(&port->output);
        fd_close(port->tty_fd);
        free(port->name);
    }
    loop_source_free(console->window_source);
    loop_source_free(console->background_timer);
    fd_close(console->window_fd);
    free(console);
}

static const struct virtio_device_ops console_ops = {
    .type = VIRTIO_TYPE_CONSOLE,
    .name = "console",
    .start = console_start,
    .serve = console_serve,
    .queue_paused = console_queue_paused,
    .stop = console_stop,
    .free = console_free,
};

static int open_streams(struct port *port, int input_fd, int output_fd)
{
    int result = input_fd < 0 ? 0 : stream_open(input_fd, STREAM_INPUT, &port->input);
    if (result == 0 && output_fd >= 0)
        result = stream_open(output_fd, STREAM_OUTPUT, &port->output);
    return result;
}

static int open_terminal(struct port *port, int fd)
{
    if (isatty(fd) == 0)
        return errno == EBADF ? -EBADF : -ENOTTY;
    port->tty_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return port->tty_fd < 0 ? -errno : open_streams(port, fd, fd);
}

static int open_custom(struct port *port, const struct console_port_options *options)
{
    const struct vial_console_ops *ops = options->ops;
    if (ops == NULL || ops->poll_fd == NULL || (ops->read == NULL && ops->write == NULL))
        return -EINVAL;
    int result = ops->read == NULL ? 0 : stream_open_custom(ops, options->ops_user, STREAM_INPUT, &port->input);
    if (result == 0 && ops->write != NULL)
        result = stream_open_custom(ops, options->ops_user, STREAM_OUTPUT, &port->output);
    return result;
}

static int add_port(struct console *console, const struct console_port_options *options)
{
    struct port *port = &console->ports[console->port_count];
    *port = (struct port){
        .console = console,
        .index = console->port_count,
        .is_console = options->is_console,
        .input = STREAM_NONE,
        .output = STREAM_NONE,
        .tty_fd = -1,
        .guest_changed = options->guest_changed,
        .guest_user = options->guest_user,
    };
    console->port_count++;
    if (options->name != NULL && strlen(options->name) > LIMIT_PORT_NAME_BYTES)
        return -EINVAL;
    if (options->name != NULL && options->name[0] != '\0' && (port->name = alloc_string(options->name)) == NULL)
        return -ENOMEM;
    switch (options->kind) {
    case CONSOLE_PORT_INOUT:
        return open_streams(port, options->input_fd, options->output_fd);
    case CONSOLE_PORT_TTY:
        return open_terminal(port, options->tty_fd);
    case CONSOLE_PORT_CUSTOM:
        return open_custom(port, options);
    }
    return -EINVAL;
}

static int make_console(const struct console_options *options, struct console **ret_console)
{
    struct console *console = alloc_zero(sizeof(*console));
    if (console == NULL)
        return -ENOMEM;
    console->window_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int result = console->window_fd < 0 ? -errno : 0;
    for (unsigned i = 0; i < options->port_count && result == 0; i++)
        result = add_port(console, &options->ports[i]);
    if (result < 0)
        console_free(console);
    else
        *ret_console = console;
    return result;
}

/* A lone console is there at once without it. With it, a driver learns of its ports by and by, and a kernel that is
 * quick looks for its console too early. */
static bool needs_multiport(const struct console *console)
{
    return console->port_count > 1 || console->ports[0].name != NULL || !console->ports[0].is_console;
}

static int make_device(struct console *console, struct virtio_device **ret_device)
{
    uint16_t queue_sizes[VIRTIO_MOST_QUEUES];
    for (size_t i = 0; i < array_length(queue_sizes); i++)
        queue_sizes[i] = CONSOLE_QUEUE_ENTRIES;
    struct virtio_device_options options = {
        .ops = &console_ops,
        .state = console,
        .features = VIRTIO_CONSOLE_F_SIZE | (needs_multiport(console) ? VIRTIO_CONSOLE_F_MULTIPORT : 0),
        .queue_sizes = queue_sizes,
        .queue_count = 2 * console->port_count + 2,
        .config_bytes = sizeof(struct console_config),
    };
    static_assert(2 * CONSOLE_MOST_PORTS + 2 <= VIRTIO_MOST_QUEUES, "every port has its queues");
    return virtio_device_new(&options, ret_device);
}

/* What the loop has to call; on failure the device is freed by the caller. */
static int watch_all(struct console *console)
{
    struct loop *loop = virtio_device_loop(console->device);
    int result = loop_add_fd(loop, console->window_fd, EPOLLIN | EPOLLET, handle_window, console,
                             &console->window_source);
    if (result == 0)
        result = loop_add_timer(loop, CLOCK_NEVER, handle_background, console, &console->background_timer);
    for (unsigned i = 0; i < console->port_count && result == 0; i++) {
        struct port *port = &console->ports[i];
        result = stream_watch(&port->input, loop, handle_input, port);
        if (result == 0)
            result = stream_watch(&port->output, loop, handle_output, port);
    }
    return result;
}

int console_new(const struct console_options *options, struct virtio_device **ret_device)
{
    struct console *console = NULL;
    if (options->port_count == 0)
        return -EINVAL;
    if (options->port_count > CONSOLE_MOST_PORTS)
        return -E2BIG;
    int result = make_console(options, &console);
    if (result < 0)
        return result;
    struct virtio_device *device = NULL;
    result = make_device(console, &device);
    if (result < 0) {
        console_free(console);
        return result;
    }
    console->device = device;
    result = watch_all(console);
    if (result < 0) {
        virtio_device_free(device);
        return result;
    }
    struct console_config config = {.most_ports = console->port_count};
    virtio_set_config(device, 0, &config, sizeof(config));
    for (unsigned i = 0; i < console->port_count; i++)
        port_update_size(&console->ports[i]);
    *ret_device = device;
    return 0;
}
