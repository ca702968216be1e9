// SPDX-License-Identifier: Apache-2.0
/* The virtio devices of a machine, made from its configuration; whichever engine drives them. Disks and file systems
 * are in storage.c, networks in network.c.
 *
 *     balloon, rng, console, metrics, storage, networks, what a test has brought ──> vm->devices
 *                                                                         each of them ──> engine->connect
 *
 * The order is the guest's order, too: its device numbers follow it.
 *
 * Invariants: (1) what is made is in the vm at once, so that vm_close_devices and the release of the vm find it.
 * (2) nothing here waits for the guest, which has not begun.
 *
 * Trust: the configuration was validated; what it names on the host may have changed since, and every call can fail.
 */
#include "vmm/vm.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/fd.h"
#include "device/balloon/balloon.h"
#include "device/console/console.h"
#include "device/metrics/metrics.h"
#include "device/rng/rng.h"
#include "vmm/check.h"
#include "vmm/exec.h"
#include "vmm/network.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

int vm_fail_device(struct vial_error *err, int result, const char *what)
{
    if (result == -ENOMEM)
        return error_no_memory(err, VIAL_PHASE_START);
    error_set_os(err, VIAL_PHASE_START, result, "the %s device cannot be made", what);
    error_remedy(err, result == -EMFILE   ? "raise the limit of open files (ulimit -n)"
                      : result == -EAGAIN ? "raise this user's limit of processes (ulimit -u)"
                                          : "look at the log");
    return result;
}

int vm_add_device(struct vial_vm *vm, struct virtio_device *device, struct vial_error *err)
{
    if (vm->device_count == array_length(vm->devices)) {
        virtio_device_free(device);
        return refuse_number(err, VIAL_ERROR_TOO_BIG, "machine", LIMIT_DEVICES, "use fewer devices",
                             "there are too many devices");
    }
    struct vm_device *place = &vm->devices[vm->device_count++];
    *place = (struct vm_device){.device = device};
    return vm->engine->connect != NULL ? vm->engine->connect(vm, place, err) : 0;
}

static int add_rng(struct vial_vm *vm, struct vial_error *err)
{
    struct virtio_device *device = NULL;
    int result = rng_new(&device);
    return result < 0 ? vm_fail_device(err, result, "rng") : vm_add_device(vm, device, err);
}

static int add_balloon(struct vial_vm *vm, struct vial_error *err)
{
    struct balloon_options options = {
        .memory_bytes = vm->config->machine.memory_mib << 20,
        .stats_interval_ms = vm->config->machine.balloon_stats_interval_ms,
    };
    int result = balloon_new(&options, &vm->balloon);
    return result < 0 ? vm_fail_device(err, result, "balloon") : vm_add_device(vm, vm->balloon, err);
}

static int add_metrics(struct vial_vm *vm, struct vial_error *err)
{
    int result = metrics_new(&vm->metrics);
    return result < 0 ? vm_fail_device(err, result, "metrics") : vm_add_device(vm, vm->metrics, err);
}

/* ---- the console ---- */

/* On standard input and output, or what stands for them. */
static bool wants_implicit_console(const struct vial_vm_config *config)
{
    bool has_tty = false;
    for (size_t i = 0; i < config->console_port_count; i++)
        has_tty |= config->console_ports[i].kind == VIAL_CONSOLE_PORT_TTY;
    bool is_wanted = config->has_implicit_console || config->has_exec_streams;
    return is_wanted && config->console_output == NULL && config->serial_count == 0 && !has_tty;
}

static bool is_at_terminal(const struct vial_vm *vm)
{
    return isatty(vm->standard[STDIN_FILENO]) == 1 && isatty(vm->standard[STDOUT_FILENO]) == 1;
}

/* A pipe without a reader is an error, and not waited for; the console waits for each reader in its own way. */
static int open_output(struct vial_vm *vm, struct vial_error *err)
{
    const char *path = vm->config->console_output;
    vm->output_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0600);
    if (vm->output_fd >= 0)
        return 0;
    int result = error_set_os(err, VIAL_PHASE_START, errno, "cannot open %s", error_short(path).text);
    error_field(err, "console.output");
    error_value(err, "%s", path);
    error_remedy(err, "check the path and its permissions");
    return result;
}

/* The port that is hvc0: a file, or the terminal, or whatever standard input and output are. */
static struct console_port_options main_port(const struct vial_vm *vm)
{
    struct console_port_options port = {.is_console = true, .input_fd = -1, .output_fd = -1, .tty_fd = -1};
    if (vm->output_fd >= 0) {
        port.output_fd = vm->output_fd;
    } else if (is_at_terminal(vm)) {
        port.kind = CONSOLE_PORT_TTY;
        port.tty_fd = vm->standard[STDIN_FILENO];
    } else {
        port.input_fd = vm->standard[STDIN_FILENO];
        port.output_fd = vm->standard[STDOUT_FILENO];
    }
    return port;
}

static struct console_port_options configured_port(const struct console_port_config *config)
{
    return (struct console_port_options){
        .name = config->name,
        .is_console = config->kind == VIAL_CONSOLE_PORT_TTY,
        .kind = config->has_ops                         ? CONSOLE_PORT_CUSTOM
                : config->kind == VIAL_CONSOLE_PORT_TTY ? CONSOLE_PORT_TTY
                                                        : CONSOLE_PORT_INOUT,
        .input_fd = config->input_fd,
        .output_fd = config->output_fd,
        .tty_fd = config->tty_fd,
        .ops = config->has_ops ? &config->ops : NULL,
        .ops_user = config->ops_user,
    };
}

/* The guest has nothing left to lose: pulling its plug is quicker than its own way of ending, which takes each device
 * apart (100 ms for a disk on user-mode Linux). */
static void end_machine(void *user)
{
    struct vial_vm *vm = user;
    vm->engine->end(vm, VIAL_EXIT_COMPLETED, "the guest has done what it was asked");
}

/* A program that init is to run has the terminal as its own, or three ports for its streams: then the kernel's
 * console is not in its way. */
static int make_exec(struct vial_vm *vm, bool has_terminal, struct vial_error *err)
{
    static const int none[3] = {-1, -1, -1};
    int result = exec_new(vm->config, has_terminal, &vm->exec, err);
    if (result < 0)
        return result;
    bool has_streams = vm->config->has_implicit_console || vm->config->has_exec_streams;
    exec_set_streams(vm->exec, has_streams ? vm->standard : none);
    exec_on_end(vm->exec, end_machine, vm);
    return 0;
}

static int add_console(struct vial_vm *vm, struct vial_error *err)
{
    const struct vial_vm_config *config = vm->config;
    bool has_exec = config_asks_init(config), is_implicit = wants_implicit_console(config);
    bool has_program = config_has_program(config);
    int result = config->console_output != NULL ? open_output(vm, err) : 0;
    if (result == 0 && has_exec)
        result = make_exec(vm, has_program && is_implicit && is_at_terminal(vm), err);
    if (result < 0)
        return result;
    size_t count = 0;
    auto_free struct console_port_options *ports = alloc_zero((config->console_port_count + 1 + EXEC_MOST_PORTS) *
                                                              sizeof(ports[0]));
    if (ports == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    if (vm->output_fd >= 0 || (is_implicit && (!has_program || is_at_terminal(vm))))
        ports[count++] = main_port(vm);
    for (size_t i = 0; i < config->console_port_count; i++)
        ports[count++] = configured_port(&config->console_ports[i]);
    if (has_exec)
        count += exec_ports(vm->exec, ports + count);
    if (count == 0)
        return 0;
    struct console_options options = {.ports = ports, .port_count = (unsigned)count};
    result = console_new(&options, &vm->console);
    return result < 0 ? vm_fail_device(err, result, "console") : vm_add_device(vm, vm->console, err);
}

int vm_add_devices(struct vial_vm *vm, const struct vm_extra *extras, size_t extra_count, struct vial_error *err)
{
    const struct machine_config *machine = &vm->config->machine;
    int result = network_start_helpers(vm->config, err); /* whose addresses the guest is told by its console */
    if (result == 0 && machine->balloon)
        result = add_balloon(vm, err);
    if (result == 0 && machine->rng)
        result = add_rng(vm, err);
    if (result == 0)
        result = add_console(vm, err);
    if (result == 0 && machine->metrics)
        result = add_metrics(vm, err);
    if (result == 0)
        result = vm_add_storage(vm, err);
    if (result == 0)
        result = vm_add_networks(vm, err);
    for (; vm->extras_taken < extra_count && result == 0; vm->extras_taken++)
        result = vm_add_device(vm, extras[vm->extras_taken].device, err);
    return result;
}

void vm_stop_devices(struct vial_vm *vm)
{
    for (size_t i = 0; i < vm->device_count; i++)
        virtio_device_stop(vm->devices[i].device);
    for (size_t i = 0; i < array_length(vm->serials) && vm->serials[i] != NULL; i++)
        serial_stop(vm->serials[i]);
}

void vm_close_devices(struct vial_vm *vm)
{
    for (size_t i = 0; i < vm->device_count; i++) {
        mmio_free(vm->devices[i].mmio);
        virtio_device_free(vm->devices[i].device);
        if (vm->devices[i].window != NULL)
            munmap(vm->devices[i].window, vm->devices[i].window_bytes);
    }
    vm->device_count = 0;
    vm->console = vm->balloon = vm->metrics = NULL;
    for (size_t i = 0; i < array_length(vm->serials); i++)
        vm->serials[i] = serial_free(vm->serials[i]);
    vm->platform = platform_free(vm->platform);
}
