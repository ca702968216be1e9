// SPDX-License-Identifier: Apache-2.0
/* A machine on KVM, put together in the order in which one part needs another.
 *
 *     memory ──> engine ──> platform, serial ports ──> virtio devices ──> command line ──> kernel ──> first vCPU
 *
 * Each virtio device gets a page in the gap below 4 GiB, from its begin on, and an interrupt pin. The guest learns of
 * both from the kernel's command line, or from ACPI. Windows of shared memory lie above all RAM, each from a GiB of its
 * own on.
 *
 * A reset by a panicking kernel looks like any other, but for the word that says how to start again: our command line
 * asks for a warm start after a panic (reboot=panic_warm), and Linux then leaves 0x1234 at address 0x472, as PC
 * firmware has wanted it since 1981.
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
#include "vmm/check.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

/* ---- virtio ---- */

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
    int pin = kvm_machine_pin(vm->kvm, (unsigned)number);
    if (pin < 0)
        return refuse_number(err, VIAL_ERROR_CONFLICT, "machine.split_irqchip", (int64_t)vm->device_count,
                             "set machine.split_irqchip, which has room for 200 devices",
                             "there are more devices than interrupt pins");
    place->pin = (unsigned)pin;
    place->address = VM_DEVICES_ADDRESS + number * MMIO_BYTES;
    int result = kvm_machine_interrupt(vm->kvm, place->pin, &interrupt_fd, err);
    if (result < 0)
        return result;
    result = mmio_new(place->device, vm->memory, interrupt_fd, &place->mmio);
    if (result < 0)
        return vm_fail_device(err, result, virtio_device_name(place->device));
    result = kvm_machine_add_mmio(vm->kvm, place->address, MMIO_BYTES, &device_ops, place->mmio, err);
    for (unsigned i = 0; i < virtio_device_queue_count(place->device) && result == 0; i++)
        result = kvm_machine_add_kick(vm->kvm, place->address + MMIO_QUEUE_NOTIFY, i,
                                      virtio_device_kick_fd(place->device, i), err);
    return result;
}

static uint64_t next_gib(uint64_t address)
{
    const uint64_t gib = UINT64_C(1) << 30;
    return (address + gib - 1) & ~(gib - 1);
}

/* A shared-memory window, above all RAM and the windows before it. */
static int add_window(struct vial_vm *vm, struct virtio_device *device, const struct vm_window *window,
                      struct vial_error *err)
{
    struct virtio_window place = {.guest = vm->window_end, .size_bytes = window->size_bytes, .id = window->id};
    int result = kvm_machine_add_window(vm->kvm, place.guest, place.size_bytes, window->host, err);
    if (result == 0) {
        virtio_device_add_window(device, &place);
        vm->window_end = next_gib(place.guest + place.size_bytes);
    }
    return result;
}

static void place_windows(struct vial_vm *vm)
{
    const struct memory_region *last = memory_region(vm->memory, memory_region_count(vm->memory) - 1);
    uint64_t end = last->guest + last->size_bytes;
    vm->window_end = next_gib(end < MEMORY_GAP_END ? MEMORY_GAP_END : end);
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
        int result = kvm_machine_interrupt(vm->kvm, serial_places[i].pin, &options.interrupt_fd, err);
        if (result < 0)
            return result;
        result = serial_new(&options, &vm->serials[i]);
        if (result < 0)
            return vm_fail_device(err, result, "serial");
        result = kvm_machine_add_ports(vm->kvm, serial_places[i].port, SERIAL_REGISTERS, &serial_ops, vm->serials[i],
                                       err);
        if (result < 0)
            return result;
    }
    return 0;
}

static void handle_reset(void *user)
{
    const struct vial_vm *vm = user;
    kvm_machine_reset(vm->kvm);
}

static void handle_power_off(void *user)
{
    const struct vial_vm *vm = user;
    kvm_machine_end(vm->kvm, VIAL_EXIT_COMPLETED, "the guest powered the machine off");
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
        result = kvm_machine_add_ports(vm->kvm, ranges[i].first, ranges[i].count, &platform_bus_ops,
                                       &vm->platform_ports[i], err);
    }
    return result;
}

/* ---- the kernel ---- */

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
    options->interrupt_pins = kvm_machine_pins(vm->kvm);
    options->has_acpi = vm->has_acpi;
    options->devices = devices;
    options->device_count = vm->device_count;
    options->serials = serial_places;
    options->serial_count = vm->config->serial_count;
    int result = boot_load(options, vm->memory, &entry, err);
    return result == 0 ? kvm_machine_load(vm->kvm, &entry, err) : result;
}

static int load_kernel(struct vial_vm *vm, struct vial_error *err)
{
    const struct kernel_config *kernel = &vm->config->kernel;
    auto_free char *cmdline = NULL;
    int result = vm_open_images(kernel, VIAL_ENGINE_KVM, &vm->images, err);
    if (result < 0)
        return result;
    vm->has_acpi = wants_acpi(vm->config, vm->images.kernel_fd);
    result = vm_cmdline(vm, &cmdline, err);
    if (result < 0)
        return result;
    struct boot_options options = {
        .kernel_fd = vm->images.kernel_fd,
        .kernel_path = vm->images.kernel_path,
        .format = kernel->format,
        .krunfw = kernel->krunfw,
        .initramfs_fd = vm->images.initramfs_fd,
        .initramfs_path = kernel->initramfs,
        .cmdline = cmdline,
    };
    result = boot_kernel(vm, &options, err);
    vm_close_images(&vm->images);
    return result;
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

static enum vial_exit_reason tell_reset(void *user)
{
    enum { bios_reset_word = 0x472, warm_start = 0x1234 };
    const struct vial_vm *vm = user;
    uint16_t word = 0;
    memory_read(vm->memory, bios_reset_word, &word, sizeof(word));
    return word == warm_start ? VIAL_EXIT_GUEST_PANIC : VIAL_EXIT_GUEST_RESET;
}

static int make_engine(struct vial_vm *vm, struct vial_error *err)
{
    const struct machine_config *machine = &vm->config->machine;
    struct kvm_options options = {
        .memory = vm->memory,
        .vcpus = machine->vcpus,
        .hyperthreading = machine->hyperthreading,
        .nested = machine->nested_virtualization,
        .split_irqchip = machine->split_irqchip,
        .on_end = vm_handle_end,
        .reset_reason = tell_reset,
        .user = vm,
    };
    return kvm_machine_new(&options, &vm->kvm, err);
}

static int assemble(struct vial_vm *vm, const struct vm_extra *extras, size_t extra_count, struct vial_error *err)
{
    int result = make_memory(vm, err);
    if (result == 0)
        result = make_engine(vm, err);
    if (result < 0)
        return result;
    place_windows(vm);
    result = add_platform(vm, err);
    if (result == 0)
        result = add_serials(vm, err);
    if (result == 0)
        result = vm_add_devices(vm, extras, extra_count, err);
    for (size_t i = 0; i < extra_count && result == 0; i++) {
        struct vm_window window = {.host = extras[i].window, .size_bytes = extras[i].window_bytes};
        if (window.size_bytes > 0)
            result = add_window(vm, extras[i].device, &window, err);
    }
    return result == 0 ? load_kernel(vm, err) : result;
}

/* ---- the engine, as vm.c sees it ---- */

static int start(struct vial_vm *vm, struct vial_error *err)
{
    return kvm_machine_start(vm->kvm, err);
}

static int pause_machine(struct vial_vm *vm)
{
    return kvm_machine_pause(vm->kvm);
}

static int resume(struct vial_vm *vm)
{
    return kvm_machine_resume(vm->kvm);
}

static void end(struct vial_vm *vm, enum vial_exit_reason reason, const char *detail)
{
    kvm_machine_end(vm->kvm, reason, "%s", detail);
}

static void join(struct vial_vm *vm)
{
    kvm_machine_join(vm->kvm);
}

static void free_machine(struct vial_vm *vm)
{
    vm->kvm = kvm_machine_free(vm->kvm);
    vm->memory = memory_free(vm->memory);
}

static void read_stats(const struct vial_vm *vm, struct vial_vm_stats *stats)
{
    struct kvm_counters counters;
    kvm_machine_counters(vm->kvm, &counters);
    stats->vcpu_exits = counters.exits;
    stats->unknown_ports = counters.unknown_ports;
    stats->unknown_memory = counters.unknown_memory;
}

static void describe(const struct vial_vm *vm, struct vial_engine_info *info)
{
    (void)vm;
    info->isolation = VIAL_ISOLATION_HARDWARE;
    snprintf(info->details, sizeof(info->details), "the guest's memory and CPUs are kept apart by the host's CPU");
}

const struct vm_engine vm_on_kvm = {
    .assemble = assemble,
    .connect = connect_device,
    .add_window = add_window,
    .start = start,
    .pause = pause_machine,
    .resume = resume,
    .end = end,
    .join = join,
    .free = free_machine,
    .read_stats = read_stats,
    .describe = describe,
};
