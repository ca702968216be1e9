// SPDX-License-Identifier: Apache-2.0
/* Putting a machine together, in the order in which one part needs another.
 *
 *     memory ──> engine ──> platform, serial ports ──> virtio devices ──> command line ──> kernel ──> first vCPU
 *
 * Each virtio device gets a page in the gap below 4 GiB, from its begin on, and an interrupt pin. The guest learns of
 * both from the kernel's command line, or from ACPI. Windows of shared memory lie above all RAM, each from a GiB of its
 * own on.
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
#include "boot/bzimage.h"
#include "boot/layout.h"
#include "device/balloon/balloon.h"
#include "device/console/console.h"
#include "device/metrics/metrics.h"
#include "device/rng/rng.h"
#include "host/kernels.h"
#include "vmm/check.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* ---- what this build has no device for yet ---- */

static int refuse_missing(const struct vial_vm_config *config, struct vial_error *err)
{
    const struct machine_config *machine = &config->machine;
    const struct {
        bool is_wanted;
        const char *field, *what;
    } missing[] = {
        {config->has_root, "root", "a root file system of the host"},
        {config->fs_count > 0, "fs", "a shared file system"},
        {config->mapped_dir_count > 0, "mapped_dirs", "a mapped folder"},
        {config->disk_count > 0, "disks", "a disk"},
        {config->net_count > 0, "net", "a network"},
        {config->port_count > 0, "port_map", "a published port"},
        {config->vsock_port_count > 0, "vsock_ports", "a vsock port"},
        {machine->vsock, "machine.vsock", "a vsock device"},
        {machine->inet_hijack, "machine.inet_hijack", "TSI"},
        {config->exec_path != NULL, "exec.path", "a program to execute"},
    };
    for (size_t i = 0; i < array_length(missing); i++)
        if (missing[i].is_wanted)
            return refuse(err, VIAL_ERROR_UNSUPPORTED, missing[i].field, "",
                          "leave it out, and bring an initramfs (kernel.initramfs)", "%s is not in this build yet",
                          missing[i].what);
    return 0;
}

/* ---- virtio ---- */

static int fail_device(struct vial_error *err, int result, const char *what)
{
    if (result == -ENOMEM)
        return error_no_memory(err, VIAL_PHASE_START);
    error_set_os(err, VIAL_PHASE_START, result, "the %s device cannot be made", what);
    error_remedy(err, result == -EMFILE   ? "raise the limit of open files (ulimit -n)"
                      : result == -EAGAIN ? "raise this user's limit of processes (ulimit -u)"
                                          : "look at the log");
    return result;
}

static void read_device(void *user, uint64_t offset, void *bytes, uint32_t length)
{
    mmio_read(user, offset, bytes, length);
}

static void write_device(void *user, uint64_t offset, const void *bytes, uint32_t length)
{
    mmio_write(user, offset, bytes, length);
}

static const struct bus_ops device_ops = {.read = read_device, .write = write_device};

/* Gives the device, which has a place in the vm, its address, its pin and its kicks. */
static int connect_device(struct vial_vm *vm, struct vm_device *place, struct vial_error *err)
{
    int interrupt_fd = -1;
    size_t number = (size_t)(place - vm->devices);
    int pin = kvm_machine_pin(vm->machine, (unsigned)number);
    if (pin < 0)
        return refuse_number(err, VIAL_ERROR_CONFLICT, "machine.split_irqchip", (int64_t)vm->device_count,
                             "set machine.split_irqchip, which has room for 200 devices",
                             "there are more devices than interrupt pins");
    place->pin = (unsigned)pin;
    place->address = VM_DEVICES_ADDRESS + number * MMIO_BYTES;
    int result = kvm_machine_interrupt(vm->machine, place->pin, &interrupt_fd, err);
    if (result < 0)
        return result;
    result = mmio_new(place->device, vm->memory, interrupt_fd, &place->mmio);
    if (result < 0)
        return fail_device(err, result, virtio_device_name(place->device));
    result = kvm_machine_add_mmio(vm->machine, place->address, MMIO_BYTES, &device_ops, place->mmio, err);
    for (unsigned i = 0; i < virtio_device_queue_count(place->device) && result == 0; i++)
        result = kvm_machine_add_kick(vm->machine, place->address + MMIO_QUEUE_NOTIFY, i,
                                      virtio_device_kick_fd(place->device, i), err);
    return result;
}

/* Takes the device over, connected or not. */
static int add_device(struct vial_vm *vm, struct virtio_device *device, struct vial_error *err)
{
    if (vm->device_count == array_length(vm->devices)) {
        virtio_device_free(device);
        return refuse_number(err, VIAL_ERROR_TOO_BIG, "machine", LIMIT_DEVICES, "use fewer devices",
                             "there are too many devices");
    }
    struct vm_device *place = &vm->devices[vm->device_count++];
    *place = (struct vm_device){.device = device};
    return connect_device(vm, place, err);
}

static uint64_t next_gib(uint64_t address)
{
    const uint64_t gib = UINT64_C(1) << 30;
    return (address + gib - 1) & ~(gib - 1);
}

/* A shared-memory window, above all RAM and the windows before it. */
static int add_window(struct vial_vm *vm, const struct vm_extra *extra, struct vial_error *err)
{
    struct virtio_window window = {.guest = vm->window_end, .size_bytes = extra->window_bytes};
    int result = kvm_machine_add_window(vm->machine, window.guest, window.size_bytes, extra->window, err);
    if (result == 0) {
        virtio_device_add_window(extra->device, &window);
        vm->window_end = next_gib(window.guest + window.size_bytes);
    }
    return result;
}

static void place_windows(struct vial_vm *vm)
{
    const struct memory_region *last = memory_region(vm->memory, memory_region_count(vm->memory) - 1);
    uint64_t end = last->guest + last->size_bytes;
    vm->window_end = next_gib(end < MEMORY_GAP_END ? MEMORY_GAP_END : end);
}

static int add_rng(struct vial_vm *vm, struct vial_error *err)
{
    struct virtio_device *device = NULL;
    int result = rng_new(&device);
    return result < 0 ? fail_device(err, result, "rng") : add_device(vm, device, err);
}

static int add_balloon(struct vial_vm *vm, struct vial_error *err)
{
    struct balloon_options options = {
        .memory_bytes = (uint64_t)vm->config->machine.memory_mib << 20,
        .stats_interval_ms = vm->config->machine.balloon_stats_interval_ms,
    };
    int result = balloon_new(&options, &vm->balloon);
    return result < 0 ? fail_device(err, result, "balloon") : add_device(vm, vm->balloon, err);
}

static int add_metrics(struct vial_vm *vm, struct vial_error *err)
{
    int result = metrics_new(&vm->metrics);
    return result < 0 ? fail_device(err, result, "metrics") : add_device(vm, vm->metrics, err);
}

/* ---- the console ---- */

/* On standard input and output. */
static bool wants_implicit_console(const struct vial_vm_config *config)
{
    bool has_tty = false;
    for (size_t i = 0; i < config->console_port_count; i++)
        has_tty |= config->console_ports[i].kind == VIAL_CONSOLE_PORT_TTY;
    return config->has_implicit_console && config->console_output == NULL && config->serial_count == 0 && !has_tty;
}

static int open_output(struct vial_vm *vm, struct vial_error *err)
{
    const char *path = vm->config->console_output;
    vm->output_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
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
    } else if (isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1) {
        port.kind = CONSOLE_PORT_TTY;
        port.tty_fd = STDIN_FILENO;
    } else {
        port.input_fd = fcntl(STDIN_FILENO, F_GETFD) < 0 ? -1 : STDIN_FILENO;
        port.output_fd = fcntl(STDOUT_FILENO, F_GETFD) < 0 ? -1 : STDOUT_FILENO;
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

static int add_console(struct vial_vm *vm, struct vial_error *err)
{
    const struct vial_vm_config *config = vm->config;
    int result = config->console_output != NULL ? open_output(vm, err) : 0;
    if (result < 0)
        return result;
    size_t count = 0;
    auto_free struct console_port_options *ports = alloc_zero((config->console_port_count + 1) * sizeof(ports[0]));
    if (ports == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    if (vm->output_fd >= 0 || wants_implicit_console(config))
        ports[count++] = main_port(vm);
    for (size_t i = 0; i < config->console_port_count; i++)
        ports[count++] = configured_port(&config->console_ports[i]);
    if (count == 0)
        return 0;
    struct console_options options = {.ports = ports, .port_count = (unsigned)count};
    result = console_new(&options, &vm->console);
    return result < 0 ? fail_device(err, result, "console") : add_device(vm, vm->console, err);
}

static int add_devices(struct vial_vm *vm, const struct vm_extra *extras, size_t extra_count, struct vial_error *err)
{
    const struct machine_config *machine = &vm->config->machine;
    int result = machine->balloon ? add_balloon(vm, err) : 0;
    if (result == 0 && machine->rng)
        result = add_rng(vm, err);
    if (result == 0)
        result = add_console(vm, err);
    if (result == 0 && machine->metrics)
        result = add_metrics(vm, err);
    for (; vm->extras_taken < extra_count && result == 0; vm->extras_taken++) {
        const struct vm_extra *extra = &extras[vm->extras_taken];
        result = add_device(vm, extra->device, err);
        if (result == 0 && extra->window_bytes > 0)
            result = add_window(vm, extra, err);
    }
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
    }
    vm->device_count = 0;
    vm->console = vm->balloon = vm->metrics = NULL;
    for (size_t i = 0; i < array_length(vm->serials); i++)
        vm->serials[i] = serial_free(vm->serials[i]);
    vm->platform = platform_free(vm->platform);
}

/* ---- serial ports, and what every PC has ---- */

static void read_serial(void *user, uint64_t offset, void *bytes, uint32_t length)
{
    *(uint8_t *)bytes = serial_read(user, offset); /* the registers are one byte wide; the rest stays all ones */
    (void)length;
}

static void write_serial(void *user, uint64_t offset, const void *bytes, uint32_t length)
{
    serial_write(user, offset, *(const uint8_t *)bytes);
    (void)length;
}

/* As on a PC. */
static const struct boot_serial serial_places[LIMIT_SERIALS] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};

static const struct bus_ops serial_ops = {.read = read_serial, .write = write_serial};

static int add_serials(struct vial_vm *vm, struct vial_error *err)
{
    for (size_t i = 0; i < vm->config->serial_count; i++) {
        const struct serial_config *config = &vm->config->serials[i];
        struct serial_options options = {.input_fd = config->input_fd, .output_fd = config->output_fd};
        int result = kvm_machine_interrupt(vm->machine, serial_places[i].pin, &options.interrupt_fd, err);
        if (result < 0)
            return result;
        result = serial_new(&options, &vm->serials[i]);
        if (result < 0)
            return fail_device(err, result, "serial");
        result = kvm_machine_add_ports(vm->machine, serial_places[i].port, SERIAL_REGISTERS, &serial_ops,
                                       vm->serials[i], err);
        if (result < 0)
            return result;
    }
    return 0;
}

static void handle_reset(void *user)
{
    const struct vial_vm *vm = user;
    kvm_machine_reset(vm->machine);
}

static void handle_power_off(void *user)
{
    const struct vial_vm *vm = user;
    kvm_machine_end(vm->machine, VIAL_EXIT_COMPLETED, "the guest powered the machine off");
}

static const struct platform_ops platform_ops = {.reset = handle_reset, .power_off = handle_power_off};

static void read_platform(void *user, uint64_t offset, void *bytes, uint32_t length)
{
    const struct vm_ports *ports = user;
    platform_read(ports->platform, (uint16_t)(ports->first + offset), bytes, length);
}

static void write_platform(void *user, uint64_t offset, const void *bytes, uint32_t length)
{
    const struct vm_ports *ports = user;
    platform_write(ports->platform, (uint16_t)(ports->first + offset), bytes, length);
}

_Static_assert((int)PLATFORM_POWER_OFF_PORT == (int)BOOT_SLEEP_CONTROL_PORT &&
                   (int)PLATFORM_SLEEP_STATUS_PORT == (int)BOOT_SLEEP_STATUS_PORT,
               "what ACPI names is what the platform has");

static const struct bus_ops platform_bus_ops = {.read = read_platform, .write = write_platform};

static int add_platform(struct vial_vm *vm, struct vial_error *err)
{
    static const struct {
        uint16_t first, count;
    } ranges[VM_PLATFORM_RANGES] = {{0x60, 1}, {0x64, 1}, {0x70, 2}, {0x92, 1}, {PLATFORM_POWER_OFF_PORT, 2}};
    const struct memory_region *low = memory_region(vm->memory, 0), *high = memory_region(vm->memory, 1);
    int result = platform_new(&platform_ops, vm, low->size_bytes, high != NULL ? high->size_bytes : 0, &vm->platform);
    if (result < 0)
        return error_no_memory(err, VIAL_PHASE_START);
    for (size_t i = 0; i < array_length(ranges) && result == 0; i++) {
        vm->platform_ports[i] = (struct vm_ports){.platform = vm->platform, .first = ranges[i].first};
        result = kvm_machine_add_ports(vm->machine, ranges[i].first, ranges[i].count, &platform_bus_ops,
                                       &vm->platform_ports[i], err);
    }
    return result;
}

/* ---- the kernel ---- */

/* Opens the file, or -1 in *ret_fd for none. */
static int open_input(const char *path, const char *field, int *ret_fd, struct vial_error *err)
{
    *ret_fd = -1;
    if (path == NULL)
        return 0;
    *ret_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (*ret_fd >= 0)
        return 0;
    int result = error_set_os(err, VIAL_PHASE_LOAD, errno, "cannot open %s", error_short(path).text);
    error_field(err, "%s", field);
    error_value(err, "%s", path);
    error_remedy(err, "check the file and its permissions");
    return result;
}

static int find_kernel(const struct kernel_config *kernel, struct host_path *project, const char **ret_path,
                       struct vial_error *err)
{
    *ret_path = kernel->path;
    if (kernel->path != NULL || kernel->krunfw != NULL)
        return 0;
    if (!host_kernel_find("", HOST_ENGINE_KVM, project))
        return refuse(err, VIAL_ERROR_NOT_FOUND, "kernel.path", project->text,
                      "build the project's kernel (kernel/build kvm-x86_64), or give kernel.path",
                      "no kernel is given, and there is none at %s", error_short(project->text).text);
    *ret_path = project->text;
    return 0;
}

/* Whether the kernel gets ACPI tables. A bzImage is recognised by its setup header, whatever format it is taken for. */
static bool wants_acpi(const struct vial_vm_config *config, int kernel_fd)
{
    struct setup_header header;
    struct boot_reason ignored;
    if (config->machine.acpi != VIAL_ACPI_AUTO)
        return config->machine.acpi == VIAL_ACPI_ON;
    return kernel_fd >= 0 && bzimage_read_header(kernel_fd, &header, &ignored) == 0;
}

static int boot_kernel(const struct vial_vm *vm, struct boot_options *options, struct vial_error *err)
{
    struct boot_entry entry;
    struct boot_device devices[LIMIT_DEVICES];
    for (size_t i = 0; i < vm->device_count; i++)
        devices[i] = (struct boot_device){vm->devices[i].address, MMIO_BYTES, vm->devices[i].pin};
    options->vcpus = vm->config->machine.vcpus;
    options->interrupt_pins = kvm_machine_pins(vm->machine);
    options->has_acpi = vm->has_acpi;
    options->devices = devices;
    options->device_count = vm->device_count;
    options->serials = serial_places;
    options->serial_count = vm->config->serial_count;
    int result = boot_load(options, vm->memory, &entry, err);
    return result == 0 ? kvm_machine_load(vm->machine, &entry, err) : result;
}

static int load_kernel(struct vial_vm *vm, struct vial_error *err)
{
    const struct kernel_config *kernel = &vm->config->kernel;
    struct host_path project;
    const char *path = NULL;
    auto_free char *cmdline = NULL;
    auto_close int kernel_fd = -1;
    auto_close int initramfs_fd = -1;
    int result = find_kernel(kernel, &project, &path, err);
    if (result == 0)
        result = open_input(path, "kernel.path", &kernel_fd, err);
    if (result == 0)
        result = open_input(kernel->initramfs, "kernel.initramfs", &initramfs_fd, err);
    if (result < 0)
        return result;
    vm->has_acpi = wants_acpi(vm->config, kernel_fd);
    result = vm_cmdline(vm, &cmdline, err);
    if (result < 0)
        return result;
    struct boot_options options = {
        .kernel_fd = kernel_fd,
        .kernel_path = path,
        .format = kernel->format,
        .krunfw = kernel->krunfw,
        .initramfs_fd = initramfs_fd,
        .initramfs_path = kernel->initramfs,
        .cmdline = cmdline,
    };
    return boot_kernel(vm, &options, err);
}

/* ---- the whole ---- */

static int make_memory(struct vial_vm *vm, struct vial_error *err)
{
    const struct machine_config *machine = &vm->config->machine;
    int result = memory_new(machine->memory_mib << 20, machine->huge_pages, &vm->memory);
    if (result == 0)
        return 0;
    error_set_os(err, VIAL_PHASE_START, result, "the machine's memory of %llu MiB cannot be made",
                 (unsigned long long)machine->memory_mib);
    error_field(err, "machine.memory_mib");
    error_remedy(err, result == -EFBIG ? "raise the limit of file sizes (ulimit -f)"
                                       : "give less, or free memory on this host");
    return result;
}

static int make_engine(struct vial_vm *vm, const struct kvm_options *wanted, struct vial_error *err)
{
    struct kvm_options options = *wanted;
    options.memory = vm->memory;
    return kvm_machine_new(&options, &vm->machine, err);
}

int vm_assemble(struct vial_vm *vm, const struct kvm_options *options, const struct vm_extra *extras,
                size_t extra_count, struct vial_error *err)
{
    int result = refuse_missing(vm->config, err);
    if (result == 0)
        result = make_memory(vm, err);
    if (result == 0)
        result = make_engine(vm, options, err);
    if (result < 0)
        return result;
    place_windows(vm);
    result = add_platform(vm, err);
    if (result == 0)
        result = add_serials(vm, err);
    if (result == 0)
        result = add_devices(vm, extras, extra_count, err);
    return result == 0 ? load_kernel(vm, err) : result;
}
