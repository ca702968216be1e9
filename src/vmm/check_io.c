// SPDX-License-Identifier: Apache-2.0
/* Checking what a machine talks through: the console, serial ports.
 *
 * Invariants: as in check.c.
 *
 * Trust: every value may come from a hostile or careless caller; descriptors are our own duplicates of the caller's.
 */
#include "vmm/check.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int check_port_backend(const struct console_port_config *port, const char *name, struct vial_error *err)
{
    bool is_custom = port->kind == VIAL_CONSOLE_PORT_CUSTOM;
    bool has_inout = port->input_fd >= 0 || port->output_fd >= 0;
    if (port->kind < VIAL_CONSOLE_PORT_INOUT || port->kind > VIAL_CONSOLE_PORT_CUSTOM)
        return refuse_number(err, VIAL_ERROR_INVALID, place_of("%s.kind", name).text, port->kind,
                             "use inout, tty or custom", "it is not a kind of console port");
    if (port->has_ops != is_custom)
        return refuse(err, is_custom ? VIAL_ERROR_MISSING : VIAL_ERROR_CONFLICT, place_of("%s.ops", name).text, "",
                      "give ops with the kind custom, and only with it", "the port %s",
                      is_custom ? "has no backend" : "has a custom backend, but another kind");
    if (is_custom && (port->ops.poll_fd == NULL || (port->ops.read == NULL && port->ops.write == NULL)))
        return refuse(err, VIAL_ERROR_MISSING, place_of("%s.ops", name).text, "", "implement poll_fd and read or write",
                      "the custom backend is not complete");
    if (port->tty_fd >= 0 && (has_inout || port->kind != VIAL_CONSOLE_PORT_TTY))
        return refuse(err, VIAL_ERROR_CONFLICT, place_of("%s.tty_fd", name).text, "",
                      "give tty_fd alone, or input_fd and output_fd", "the port has a terminal and something else");
    if (has_inout && port->kind != VIAL_CONSOLE_PORT_INOUT)
        return refuse(err, VIAL_ERROR_CONFLICT, place_of("%s.input_fd", name).text, "",
                      "leave the descriptors out, or use the kind inout",
                      "the port has descriptors and something else");
    if (port->kind == VIAL_CONSOLE_PORT_INOUT && !has_inout)
        return refuse(err, VIAL_ERROR_MISSING, place_of("%s.input_fd", name).text, "",
                      "give input_fd, output_fd or both", "the port has no descriptor");
    if (port->kind == VIAL_CONSOLE_PORT_TTY && (port->tty_fd < 0 || isatty(port->tty_fd) != 1))
        return refuse(err, port->tty_fd >= 0 ? VIAL_ERROR_WRONG_KIND : VIAL_ERROR_MISSING,
                      place_of("%s.tty_fd", name).text, "",
                      "give the descriptor of a terminal, or use input_fd and output_fd",
                      port->tty_fd >= 0 ? "the descriptor is not a terminal" : "the port has no descriptor");
    return 0;
}

static int check_port_name(const struct vial_vm_config *config, size_t index, struct vial_error *err)
{
    const char *name = config->console_ports[index].name;
    struct place field = place_of("console.ports[%zu].name", index);
    int result = check_given(name, field.text, "give the port a name", err);
    if (result < 0)
        return result;
    if (strlen(name) > LIMIT_PORT_NAME_BYTES || !text_is_printable_ascii(name) || strpbrk(name, " /\"") != NULL ||
        strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return refuse(
            err, VIAL_ERROR_INVALID, field.text, name, "use letters, digits, dots and dashes, such as agent.0",
            "a port's name has at most %d ASCII characters and no space, slash or quote", LIMIT_PORT_NAME_BYTES);
    if (strncmp(name, "vial.", strlen("vial.")) == 0)
        return refuse(err, VIAL_ERROR_CONFLICT, field.text, name, "choose another name",
                      "names that begin with vial. are for the guest's init");
    for (size_t j = 0; j < index; j++)
        if (strcmp(name, config->console_ports[j].name) == 0)
            return refuse(err, VIAL_ERROR_DUPLICATE, field.text, name, "give each port a name of its own",
                          "console.ports[%zu] has the same name", j);
    return 0;
}

/* A file that is there must be writable and take output at once; one that is not must be possible to create. */
static int check_console_output(const char *path, struct vial_error *err)
{
    static const char field[] = "console.output", remedy[] = "give the path of a file";
    struct stat status;
    int result = check_given(path, field, remedy, err);
    if (result < 0)
        return result;
    if (stat(path, &status) < 0)
        return check_parent(path, field, err);
    if (!S_ISREG(status.st_mode) && !S_ISCHR(status.st_mode) && !S_ISFIFO(status.st_mode))
        return refuse(err, VIAL_ERROR_WRONG_KIND, field, path, remedy, "%s is not a file that output can go to",
                      error_short(path).text);
    return check_access(path, W_OK, field, err);
}

int check_console(const struct vial_vm_config *config, struct vial_error *err)
{
    static const char not_here[] = "leave it out";
    int result = config->console_output != NULL ? check_console_output(config->console_output, err) : 0;
    for (size_t i = 0; i < config->console_port_count && result == 0; i++) {
        result = check_port_name(config, i, err);
        if (result == 0)
            result = check_port_backend(&config->console_ports[i], place_of("console.ports[%zu]", i).text, err);
    }
    if (result == 0 && config_most_console_ports(config) > LIMIT_CONSOLE_PORTS)
        result = refuse_number(err, VIAL_ERROR_TOO_BIG, "console.ports", (int64_t)config_most_console_ports(config),
                               "use fewer (64 ports, with the console itself and the four of a program's streams)",
                               "these are more ports than one console has");
    if (result == 0 && config->has_gpu)
        result = refuse(err, VIAL_ERROR_UNSUPPORTED, "console.gpu", "", not_here, "a GPU is not in this build");
    if (result == 0 && config->has_sound)
        result = refuse(err, VIAL_ERROR_UNSUPPORTED, "console.sound", "true", not_here, "sound is not in this build");
    return result;
}
