// SPDX-License-Identifier: Apache-2.0
/* Consoles and serial ports.
 *
 * libkrun gives each console a device of its own; here they are ports of one, so that a machine has room for other
 * devices: the guest finds them by their names, and terminals as hvc0, hvc1 and so on in the order of the calls.
 *
 * Invariants: (1) a call that fails has changed nothing. (2) the number of a console is its place in the list.
 *
 * Trust: arguments are the embedding program's; descriptors are duplicated at once.
 */
#include "krun/context.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "libkrun.h"

#include <errno.h>
#include <unistd.h>

enum { most_consoles = LIMIT_CONSOLE_PORTS };

static void free_console(struct krun_console *console)
{
    for (int i = 0; i < 3; i++)
        fd_close(console->fds[i]);
}

static void free_port(struct krun_port *port)
{
    free(port->name);
    fd_close(port->fds[0]);
    fd_close(port->fds[1]);
}

void krun_console_free(struct krun_context *context)
{
    for (size_t i = 0; i < context->console_count; i++)
        free_console(&context->consoles[i]);
    for (size_t i = 0; i < context->console_port_count; i++)
        free_port(&context->console_ports[i]);
    for (size_t i = 0; i < context->serial_count; i++) {
        fd_close(context->serials[i].input_fd);
        fd_close(context->serials[i].output_fd);
    }
    free(context->consoles);
    free(context->console_ports);
    free(context->console_output);
}

/* ---- the console that is there by itself ---- */

int32_t krun_set_console_output(uint32_t ctx_id, const char *c_filepath)
{
    auto_free char *path = NULL;
    int result = krun_copy_text(c_filepath, false, &path);
    if (result < 0)
        return result;
    struct krun_context *context = krun_hold(ctx_id);
    if (context == NULL)
        return -ENOENT;
    result = context->console_output != NULL ? -EINVAL : 0;
    if (result == 0)
        context->console_output = steal_ptr(path);
    krun_let_go();
    return result;
}

int32_t krun_disable_implicit_console(uint32_t ctx_id)
{
    return krun_set_flag(ctx_id, KRUN_MEMBER(without_console), true);
}

int32_t krun_set_kernel_console(uint32_t ctx_id, const char *console_id)
{
    return krun_set_text(ctx_id, KRUN_MEMBER(kernel_console), console_id);
}

/* ---- consoles that are added ---- */

/* Takes the console's descriptors, in any case. Its number, or -errno. */
static int add_console(uint32_t ctx_id, struct krun_console *console)
{
    struct krun_context *context = krun_hold(ctx_id);
    int result = context == NULL ? -ENOENT : 0;
    if (result == 0)
        result = alloc_grow((void **)&context->consoles, context->console_count, &context->console_capacity,
                            sizeof(context->consoles[0]), most_consoles);
    if (result == 0) {
        result = (int)context->console_count;
        context->consoles[context->console_count++] = *console;
    } else {
        free_console(console);
    }
    if (context != NULL)
        krun_let_go();
    return result;
}

int32_t krun_add_virtio_console_default(uint32_t ctx_id, int input_fd, int output_fd, int err_fd)
{
    struct krun_console console = {.fds = {-1, -1, -1}};
    const int fds[] = {input_fd, output_fd, err_fd};
    int result = 0;
    for (size_t i = 0; i < array_length(fds) && result == 0; i++)
        result = krun_copy_fd(fds[i], &console.fds[i]);
    if (result < 0) {
        free_console(&console);
        return result;
    }
    result = add_console(ctx_id, &console);
    return result < 0 ? result : 0;
}

int32_t krun_add_virtio_console_multiport(uint32_t ctx_id)
{
    struct krun_console console = {.has_ports = true, .fds = {-1, -1, -1}};
    return add_console(ctx_id, &console);
}

static int keep_port(struct krun_context *context, const struct krun_port *port)
{
    if (port->console >= context->console_count || !context->consoles[port->console].has_ports)
        return -EINVAL;
    int result = alloc_grow((void **)&context->console_ports, context->console_port_count,
                            &context->console_port_capacity, sizeof(context->console_ports[0]), LIMIT_CONSOLE_PORTS);
    if (result == 0)
        context->console_ports[context->console_port_count++] = *port;
    return result;
}

static int add_port(uint32_t ctx_id, struct krun_port port, const char *name, int input_fd, int output_fd)
{
    struct krun_context *context = NULL;
    port.fds[0] = port.fds[1] = -1;
    int result = krun_copy_text(name != NULL ? name : "", false, &port.name);
    if (result == 0)
        result = krun_copy_fd(input_fd, &port.fds[0]);
    if (result == 0)
        result = krun_copy_fd(output_fd, &port.fds[1]);
    if (result == 0) {
        context = krun_hold(ctx_id);
        result = context == NULL ? -ENOENT : keep_port(context, &port);
    }
    if (result < 0)
        free_port(&port);
    if (context != NULL)
        krun_let_go();
    return result;
}

int32_t krun_add_console_port_tty(uint32_t ctx_id, uint32_t console_id, const char *name, int tty_fd)
{
    if (tty_fd < 0)
        return -EINVAL;
    if (isatty(tty_fd) != 1)
        return -ENOTTY;
    return add_port(ctx_id, (struct krun_port){.is_tty = true, .console = console_id}, name, tty_fd, -1);
}

int32_t krun_add_console_port_inout(uint32_t ctx_id, uint32_t console_id, const char *name, int input_fd, int output_fd)
{
    return add_port(ctx_id, (struct krun_port){.console = console_id}, name, input_fd, output_fd);
}

/* ---- serial ports ---- */

int32_t krun_add_serial_console_default(uint32_t ctx_id, int input_fd, int output_fd)
{
    struct vial_serial_options serial = VIAL_SERIAL_OPTIONS_INIT;
    int result = krun_copy_fd(input_fd, &serial.input_fd);
    if (result == 0)
        result = krun_copy_fd(output_fd, &serial.output_fd);
    struct krun_context *context = result == 0 ? krun_hold(ctx_id) : NULL;
    if (result == 0 && context == NULL)
        result = -ENOENT;
    if (result == 0 && context->serial_count == LIMIT_SERIALS)
        result = -ENOSPC;
    if (result == 0)
        context->serials[context->serial_count++] = serial;
    if (context != NULL)
        krun_let_go();
    if (result < 0) {
        fd_close(serial.input_fd);
        fd_close(serial.output_fd);
    }
    return result;
}
