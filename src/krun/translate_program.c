// SPDX-License-Identifier: Apache-2.0
/* From a context of libkrun.h to a configuration: consoles, and what runs.
 *
 * The project's own init is told by its channel what to run, so nothing there has to fit a command line. An init of the
 * program's own expects to be told by the kernel's: what the kernel does not know itself becomes the init's
 * environment, and what stands behind "--" its arguments.
 *
 *     KRUN_INIT=/bin/sh KRUN_WORKDIR=/srv KRUN_RLIMITS="7=64:64" "PATH=/bin" … -- "-c" "exit 7"
 *
 * The program's streams are, in this order of precedence: ports of a console that bear the names under which libkrun's
 * init looks for them; a console of three descriptors; the file that console output goes to; and those of this process.
 *
 * Invariants: (1) every word that goes to a command line is in quotes, and holds none.
 *
 * Trust: the context is the embedding program's.
 */
#include "krun/translate.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/fd.h"
#include "libkrun.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- consoles ---- */

struct streams {
    bool are_given;
    int fds[3];  /* borrowed, or -1 */
    int file_fd; /* owned, or -1 */
};

static const char *const stream_ports[] = {"krun-stdin", "krun-stdout", "krun-stderr"};

/* 0 to 2 for a port that is a stream of the program's, else -1. */
static int stream_of(const char *name)
{
    for (int i = 0; i < (int)array_length(stream_ports); i++)
        if (strcmp(name, stream_ports[i]) == 0)
            return i;
    return -1;
}

/* A pipe without a reader is an error, and not waited for. */
static int open_output(const char *path, struct streams *streams, struct vial_error *err)
{
    int fd = krun_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NONBLOCK, 0666);
    if (fd >= 0) {
        streams->file_fd = fd;
        return 0;
    }
    int result = error_set_os(err, VIAL_PHASE_CONFIGURE, fd, "cannot open %s for the console's output",
                              error_short(path).text);
    error_remedy(err, "check the path and its permissions");
    return result;
}

static int find_streams(const struct krun_context *context, struct streams *streams, struct vial_error *err)
{
    int result = 0;
    if (context->console_output != NULL && !context->without_console) {
        result = open_output(context->console_output, streams, err);
        streams->are_given = true;
        streams->fds[1] = streams->fds[2] = streams->file_fd;
    }
    for (size_t i = 0; i < context->console_count; i++)
        if (!context->consoles[i].has_ports) {
            streams->are_given = true;
            memcpy(streams->fds, context->consoles[i].fds, sizeof(streams->fds));
        }
    for (size_t i = 0; i < context->console_port_count; i++) {
        const struct krun_port *port = &context->console_ports[i];
        int stream = stream_of(port->name);
        if (stream < 0 || port->is_tty)
            continue;
        streams->are_given = true;
        streams->fds[stream] = stream == 0 ? port->fds[0] : port->fds[1];
    }
    return result;
}

static bool has_tty_port(const struct krun_context *context)
{
    bool has_tty = false;
    for (size_t i = 0; i < context->console_port_count; i++)
        has_tty |= context->console_ports[i].is_tty;
    return has_tty;
}

/* Of this process's streams those that are no terminals, for an init of the program's own: the console, which is there
 * for the others, would change what goes through it. A stream of input has one reader, so the console then has none. */
static int take_own_streams(const struct krun_context *context, struct streams *streams, struct vial_vm_config *config,
                            struct vial_error *err)
{
    if (streams->are_given || context->without_console || has_tty_port(context))
        return 0;
    for (int i = 0; i < (int)array_length(streams->fds); i++)
        if (isatty(i) != 1 && fcntl(i, F_GETFD) >= 0) {
            streams->fds[i] = i;
            streams->are_given = true;
        }
    if (streams->fds[STDIN_FILENO] < 0)
        return 0;
    config->has_exec_streams = true;
    int result = krun_copy_fd(STDOUT_FILENO, &config->exec_streams[STDOUT_FILENO]);
    return result < 0 ? error_set_os(err, VIAL_PHASE_CONFIGURE, -result, "cannot duplicate standard output") : 0;
}

/* Where an init of the program's own looks for its streams. */
static int add_stream_ports(const struct streams *streams, struct vial_vm_config *config, struct vial_error *err)
{
    int result = 0;
    for (int i = 0; i < (int)array_length(stream_ports) && streams->are_given && result == 0; i++) {
        struct vial_console_port_options port = VIAL_CONSOLE_PORT_OPTIONS_INIT;
        port.name = stream_ports[i];
        port.kind = VIAL_CONSOLE_PORT_INOUT;
        port.input_fd = i == 0 ? streams->fds[i] : -1;
        port.output_fd = i > 0 ? streams->fds[i] : -1;
        if (streams->fds[i] >= 0)
            result = vial_vm_config_add_console_port(config, &port, err);
    }
    return result;
}

static int add_port(const struct krun_port *from, size_t place, struct vial_vm_config *config, struct vial_error *err)
{
    struct vial_console_port_options port = VIAL_CONSOLE_PORT_OPTIONS_INIT;
    char name[32];
    snprintf(name, sizeof(name), "port%zu", place);
    port.name = from->name[0] != '\0' ? from->name : name;
    port.kind = from->is_tty ? VIAL_CONSOLE_PORT_TTY : VIAL_CONSOLE_PORT_INOUT;
    port.tty_fd = from->is_tty ? from->fds[0] : -1;
    port.input_fd = from->is_tty ? -1 : from->fds[0];
    port.output_fd = from->fds[1];
    return vial_vm_config_add_console_port(config, &port, err);
}

static int add_consoles(const struct krun_context *context, struct vial_vm_config *config, struct vial_error *err)
{
    struct vial_console_options console = VIAL_CONSOLE_OPTIONS_INIT;
    console.implicit = !context->without_console;
    console.output = context->without_console ? NULL : context->console_output;
    int result = vial_vm_config_set_console(config, &console, err);
    for (size_t i = 0; i < context->console_port_count && result == 0; i++)
        if (context->console_ports[i].is_tty || stream_of(context->console_ports[i].name) < 0)
            result = add_port(&context->console_ports[i], i, config, err);
    for (size_t i = 0; i < context->serial_count && result == 0; i++)
        result = vial_vm_config_add_serial(config, &context->serials[i], err);
    return result;
}

/* ---- the program, by the project's init ---- */

static int set_program(const struct krun_context *context, const struct streams *streams, struct vial_vm_config *config,
                       struct vial_error *err)
{
    struct vial_exec_options exec = VIAL_EXEC_OPTIONS_INIT;
    auto_free const char **args = alloc_zero((context->args.count + 1) * sizeof(args[0]));
    auto_free const char **env = alloc_zero((context->env.count + 1) * sizeof(env[0]));
    auto_free char *workdir = NULL;
    const char *folder = context->workdir;
    if (args == NULL || env == NULL)
        return error_no_memory(err, VIAL_PHASE_CONFIGURE);
    if (context->args.count > 0)
        memcpy(args, context->args.items, context->args.count * sizeof(args[0]));
    if (context->env.count > 0)
        memcpy(env, context->env.items, context->env.count * sizeof(env[0]));
    if (folder != NULL && folder[0] != '\0' && folder[0] != '/') { /* below the root, then */
        if (krun_copy_absolute(folder, &workdir) < 0)
            return error_no_memory(err, VIAL_PHASE_CONFIGURE);
        folder = workdir;
    }
    exec.path = context->exec_path;
    exec.args = args;
    exec.env = env;
    exec.workdir = folder != NULL && folder[0] != '\0' ? folder : NULL;
    exec.from_guest = true;
    exec.has_streams = streams->are_given;
    exec.stdin_fd = streams->fds[0];
    exec.stdout_fd = streams->fds[1];
    exec.stderr_fd = streams->fds[2];
    int result = vial_vm_config_set_exec(config, &exec, err);
    for (size_t i = 0; i < context->rlimits.count && result == 0; i++)
        result = vial_vm_config_add_rlimit(config, context->rlimits.items[i], err);
    return result;
}

/* ---- the program, by an init that reads the command line ---- */

/* A word in quotes, behind a space: `key` and `=`, or nothing, before the value. */
static int add_word(struct buffer *line, const char *key, const char *value, struct vial_error *err)
{
    if (value == NULL)
        return 0;
    if (strpbrk(value, "\"\n") != NULL) {
        int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_CONFIGURE, "a kernel's command line cannot carry %s",
                               error_short(value).text);
        error_remedy(err, "leave the init to the library (without krun_disable_implicit_init)");
        return result;
    }
    buffer_format(line, "%s%s%s\"%s\"", line->length > 0 ? " " : "", key, key[0] != '\0' ? "=" : "", value);
    return 0;
}

static int add_limits(const struct krun_context *context, struct buffer *line, struct vial_error *err)
{
    auto_buffer struct buffer limits = BUFFER_INIT(LIMIT_CMDLINE_BYTES);
    for (size_t i = 0; i < context->rlimits.count; i++)
        buffer_format(&limits, "%s%s", i > 0 ? "," : "", context->rlimits.items[i]);
    auto_free char *text = limits.length > 0 ? buffer_steal(&limits) : NULL;
    return add_word(line, "KRUN_RLIMITS", text, err);
}

/* The last of the ports, for which an init of ours waits: Linux hears of them in its own time. */
static int announce_ports(const struct streams *streams, struct buffer *line, struct vial_error *err)
{
    const char *last = NULL;
    for (int i = 0; i < (int)array_length(stream_ports); i++)
        if (streams->are_given && streams->fds[i] >= 0)
            last = stream_ports[i];
    return add_word(line, "KRUN_PORTS", last, err);
}

static int add_environment(const struct krun_context *context, struct buffer *line, struct vial_error *err)
{
    const struct krun_net *net = krun_first_net(context);
    int result = add_word(line, "KRUN_INIT", context->exec_path, err);
    if (result == 0)
        result = add_word(line, "KRUN_WORKDIR", context->workdir, err);
    if (result == 0)
        result = add_word(line, "KRUN_BLOCK_ROOT_DEVICE", context->block_root.device, err);
    if (result == 0)
        result = add_word(line, "KRUN_BLOCK_ROOT_FSTYPE", context->block_root.fstype, err);
    if (result == 0)
        result = add_word(line, "KRUN_BLOCK_ROOT_OPTIONS", context->block_root.options, err);
    if (result == 0)
        result = add_limits(context, line, err);
    if (result == 0 && net != NULL && net->dhcp)
        result = add_word(line, "KRUN_DHCP", "1", err);
    for (size_t i = 0; i < context->env.count && result == 0; i++)
        result = add_word(line, "", context->env.items[i], err);
    return result;
}

static int set_line(const struct krun_context *context, const struct streams *streams, struct vial_vm_config *config,
                    struct vial_error *err)
{
    auto_buffer struct buffer line = BUFFER_INIT(LIMIT_CMDLINE_BYTES), arguments = BUFFER_INIT(LIMIT_CMDLINE_BYTES);
    int result = add_environment(context, &line, err);
    if (result == 0)
        result = announce_ports(streams, &line, err);
    for (size_t i = 0; i < context->args.count && result == 0; i++)
        result = add_word(&arguments, "", context->args.items[i], err);
    if (result == 0 && (line.error < 0 || arguments.error < 0)) {
        result = error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_CONFIGURE,
                           "the program's arguments and environment do not fit a kernel's command line");
        error_remedy(err, "shorten them, or leave the init to the library (without krun_disable_implicit_init)");
    }
    auto_free char *words = result == 0 && line.length > 0 ? buffer_steal(&line) : NULL;
    if (result == 0 && words != NULL)
        result = vial_vm_config_append_cmdline(config, words, err);
    if (result == 0 && arguments.length > 0)
        config->kernel.arguments = buffer_steal(&arguments);
    return result;
}

int krun_translate_program(const struct krun_context *context, struct vial_vm_config *config, struct vial_error *err)
{
    struct streams streams = {.fds = {-1, -1, -1}, .file_fd = -1};
    int result = find_streams(context, &streams, err);
    if (result == 0)
        result = add_consoles(context, config, err);
    if (result == 0 && krun_has_own_init(context)) {
        result = take_own_streams(context, &streams, config, err);
        if (result == 0)
            result = set_line(context, &streams, config, err);
        if (result == 0)
            result = add_stream_ports(&streams, config, err);
    } else if (result == 0) {
        result = set_program(context, &streams, config, err);
    }
    fd_close(streams.file_fd);
    return result;
}
