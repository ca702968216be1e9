// SPDX-License-Identifier: Apache-2.0
/* A machine on KVM, put together: memory slots, interrupt controllers, address ranges, vCPUs.
 *
 * Each region of guest memory is one memory slot, each window one more. The local APICs are always KVM's. The IOAPIC is
 * KVM's too, with 24 pins, or ours (ioapic.c) with 224. Either way a pin is a GSI of the same number, a device's
 * interrupt is an irqfd on it, and a kick is an ioeventfd: neither passes through this process's vCPU threads.
 *
 *     pins    0 … 4                    5 …                         … 23 or 223
 *             the platform's (serial)  virtio devices
 *
 * There is no PIT: guests with a TSC deadline timer, which we always show, do not look for one.
 *
 * Invariants: (1) everything is added before kvm_machine_start. (2) a descriptor that KVM watches lives as long as the
 * machine. (3) every failed ioctl becomes an error that names it.
 *
 * Trust: all of this is set up by us; the guest has not begun.
 */
#include "engine/kvm/private.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/fd.h"
#include "engine/kvm/cpuid.h"
#include "engine/kvm/registers.h"
#include "host/kvm_probe.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Pages that KVM needs for itself on Intel CPUs without unrestricted guests; below the local APICs' reset vector and
 * above the IOAPIC, where no RAM is. */
static const uint64_t identity_map_address = 0xfffbc000, tss_address = 0xfffbd000;

static const char *remedy_for(int os_error)
{
    switch (os_error) {
    case EMFILE:
    case ENFILE:
        return "raise the limit of open files (ulimit -n)";
    case ENOMEM:
        return "free memory, or raise this process's memory limits";
    case EAGAIN:
        return "raise this user's limit of processes (ulimit -u)";
    case ENOSPC:
        return "use fewer devices";
    default:
        return "look at the kernel's log (dmesg | grep -i kvm), and at vial doctor";
    }
}

int kvm_fail(struct vial_error *err, enum vial_phase phase, const char *step, int os_error)
{
    int result = error_set_os(err, phase, os_error, "%s failed", step);
    error_field(err, "kvm");
    error_remedy(err, "%s", remedy_for(os_error < 0 ? -os_error : os_error));
    return result;
}

static int fail_start(struct vial_error *err, const char *step)
{
    return kvm_fail(err, VIAL_PHASE_START, step, errno);
}

/* ---- parts of a machine ---- */

static int open_kvm(struct kvm_machine *machine, struct vial_error *err)
{
    machine->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (machine->kvm_fd < 0)
        return fail_start(err, "open of /dev/kvm");
    int version = ioctl(machine->kvm_fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION)
        return kvm_fail(err, VIAL_PHASE_START, "KVM_GET_API_VERSION", version < 0 ? errno : ENOTTY);
    int run_bytes = ioctl(machine->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_bytes < (int)sizeof(struct kvm_run))
        return kvm_fail(err, VIAL_PHASE_START, "KVM_GET_VCPU_MMAP_SIZE", run_bytes < 0 ? errno : EINVAL);
    machine->run_bytes = (size_t)run_bytes;
    do
        machine->vm_fd = ioctl(machine->kvm_fd, KVM_CREATE_VM, 0);
    while (machine->vm_fd < 0 && errno == EINTR);
    return machine->vm_fd < 0 ? fail_start(err, "KVM_CREATE_VM") : 0;
}

static int add_slot(struct kvm_machine *machine, uint64_t guest, uint64_t size_bytes, void *host,
                    struct vial_error *err)
{
    struct kvm_userspace_memory_region region = {
        .slot = machine->slots,
        .guest_phys_addr = guest,
        .memory_size = size_bytes,
        .userspace_addr = (uintptr_t)host,
    };
    if (ioctl(machine->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return fail_start(err, "KVM_SET_USER_MEMORY_REGION");
    machine->slots++;
    return 0;
}

static int add_memory(struct kvm_machine *machine, struct vial_error *err)
{
    int result = 0;
    for (size_t i = 0; i < memory_region_count(machine->options.memory) && result == 0; i++) {
        const struct memory_region *region = memory_region(machine->options.memory, i);
        result = add_slot(machine, region->guest, region->size_bytes, region->host, err);
    }
    return result;
}

static int set_routes(void *user, const struct kvm_irq_routing *table)
{
    const struct kvm_machine *machine = user;
    return ioctl(machine->vm_fd, KVM_SET_GSI_ROUTING, table) < 0 ? -errno : 0;
}

static const struct bus_ops ioapic_bus_ops;

static int make_split_irqchip(struct kvm_machine *machine, struct vial_error *err)
{
    struct kvm_enable_cap capability = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args[0] = KVM_SPLIT_PINS};
    struct ioapic_options options = {
        .pins = KVM_SPLIT_PINS,
        .id = (uint8_t)machine->options.vcpus, /* as in the MP table */
        .set_routes = set_routes,
        .user = machine,
    };
    if (ioctl(machine->vm_fd, KVM_ENABLE_CAP, &capability) < 0)
        return fail_start(err, "KVM_ENABLE_CAP of KVM_CAP_SPLIT_IRQCHIP");
    int result = ioapic_new(&options, &machine->ioapic);
    if (result < 0)
        return error_no_memory(err, VIAL_PHASE_START);
    return kvm_machine_add_mmio(machine, IOAPIC_ADDRESS, IOAPIC_WINDOW_BYTES, &ioapic_bus_ops, machine, err);
}

static int make_irqchip(struct kvm_machine *machine, struct vial_error *err)
{
    uint64_t identity_map = identity_map_address;
    if (ioctl(machine->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0)
        return fail_start(err, "KVM_SET_IDENTITY_MAP_ADDR");
    if (ioctl(machine->vm_fd, KVM_SET_TSS_ADDR, (unsigned long)tss_address) < 0)
        return fail_start(err, "KVM_SET_TSS_ADDR");
    machine->pins = machine->options.split_irqchip ? KVM_SPLIT_PINS : KVM_PINS;
    machine->interrupt_fds = alloc_zero(machine->pins * sizeof(machine->interrupt_fds[0]));
    if (machine->interrupt_fds == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    for (unsigned i = 0; i < machine->pins; i++)
        machine->interrupt_fds[i] = -1;
    if (machine->options.split_irqchip)
        return make_split_irqchip(machine, err);
    return ioctl(machine->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0 ? fail_start(err, "KVM_CREATE_IRQCHIP") : 0;
}

/* ---- vCPUs ---- */

static int make_vcpu(struct kvm_machine *machine, struct vcpu *vcpu, struct vial_error *err)
{
    vcpu->fd = ioctl(machine->vm_fd, KVM_CREATE_VCPU, (unsigned long)vcpu->index);
    if (vcpu->fd < 0)
        return fail_start(err, "KVM_CREATE_VCPU");
    void *run = mmap(NULL, machine->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (run == MAP_FAILED)
        return fail_start(err, "mmap of a vCPU");
    madvise(run, machine->run_bytes, MADV_DONTFORK); /* in a child, the mapping would keep all of the machine alive */
    vcpu->run = run;
    return 0;
}

static int make_vcpus(struct kvm_machine *machine, struct vial_error *err)
{
    struct cpuid_options options = {
        .vcpus = machine->options.vcpus,
        .hyperthreading = machine->options.hyperthreading,
        .nested = machine->options.nested,
        .has_tsc_deadline = ioctl(machine->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0,
    };
    auto_free struct kvm_cpuid2 *cpuid = alloc_zero(sizeof(*cpuid) +
                                                    CPUID_MOST_ENTRIES * sizeof(struct kvm_cpuid_entry2));
    if (cpuid == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    cpuid->nent = CPUID_MOST_ENTRIES;
    if (ioctl(machine->kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0)
        return fail_start(err, "KVM_GET_SUPPORTED_CPUID");
    for (unsigned i = 0; i < machine->options.vcpus; i++) {
        const char *step = NULL;
        int result = make_vcpu(machine, &machine->vcpus[i], err);
        if (result < 0)
            return result;
        cpuid_adjust(cpuid, &options, i);
        if (ioctl(machine->vcpus[i].fd, KVM_SET_CPUID2, cpuid) < 0)
            return fail_start(err, "KVM_SET_CPUID2");
        result = registers_set_common(machine->vcpus[i].fd, &step);
        if (result < 0)
            return kvm_fail(err, VIAL_PHASE_START, step, result);
    }
    return 0;
}

/* ---- life ---- */

static void init_machine(struct kvm_machine *machine, const struct kvm_options *options)
{
    machine->options = *options;
    machine->kvm_fd = machine->vm_fd = -1;
    atomic_init(&machine->command, KVM_COMMAND_PAUSE);
    pthread_mutex_init(&machine->lock, NULL);
    pthread_cond_init(&machine->changed, NULL);
    for (unsigned i = 0; i < options->vcpus; i++) {
        machine->vcpus[i].machine = machine;
        machine->vcpus[i].index = i;
        machine->vcpus[i].fd = -1;
    }
}

int kvm_machine_new(const struct kvm_options *options, struct kvm_machine **ret_machine, struct vial_error *err)
{
    assert(options->vcpus > 0);
    struct kvm_machine *machine = alloc_zero(sizeof(*machine) + options->vcpus * sizeof(machine->vcpus[0]));
    if (machine == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    init_machine(machine, options);
    int result = open_kvm(machine, err);
    if (result == 0)
        result = add_memory(machine, err);
    if (result == 0)
        result = make_irqchip(machine, err);
    if (result == 0)
        result = make_vcpus(machine, err);
    if (result < 0) {
        kvm_machine_free(machine);
        return kvm_diagnose_create_failure("", result, err);
    }
    *ret_machine = machine;
    return 0;
}

struct kvm_machine *kvm_machine_free(struct kvm_machine *machine)
{
    if (machine == NULL)
        return NULL;
    kvm_machine_join(machine);
    for (unsigned i = 0; i < machine->options.vcpus; i++) {
        if (machine->vcpus[i].run != NULL)
            munmap(machine->vcpus[i].run, machine->run_bytes);
        fd_close(machine->vcpus[i].fd);
    }
    for (unsigned i = 0; i < machine->pins && machine->interrupt_fds != NULL; i++)
        fd_close(machine->interrupt_fds[i]);
    free(machine->interrupt_fds);
    ioapic_free(machine->ioapic);
    bus_free(&machine->ports);
    bus_free(&machine->mmio);
    fd_close(machine->vm_fd);
    fd_close(machine->kvm_fd);
    pthread_cond_destroy(&machine->changed);
    pthread_mutex_destroy(&machine->lock);
    free(machine);
    return NULL;
}

/* ---- adding ---- */

unsigned kvm_machine_pins(const struct kvm_machine *machine)
{
    return machine->pins;
}

int kvm_machine_pin(const struct kvm_machine *machine, unsigned number)
{
    /* The PC's clock, mouse and coprocessor: a kernel that finds no such thing leaves their pins alone, but some claim
     * them before they look. */
    static const int claimed[] = {8, 12, 13};
    unsigned free_pins = machine->pins - KVM_FIRST_PIN - (unsigned)array_length(claimed);
    if (number >= free_pins)
        return number - free_pins < array_length(claimed) ? claimed[number - free_pins] : -1;
    int pin = KVM_FIRST_PIN + (int)number;
    for (size_t i = 0; i < array_length(claimed); i++)
        pin += pin >= claimed[i];
    return pin;
}

static int add_range(struct bus *bus, const struct bus_range *range, struct vial_error *err)
{
    int result = bus_add(bus, range);
    if (result == -ENOMEM)
        return error_no_memory(err, VIAL_PHASE_START);
    return result < 0 ? error_set_os(err, VIAL_PHASE_START, result, "the range at 0x%llx cannot be added",
                                     (unsigned long long)range->begin)
                      : 0;
}

int kvm_machine_add_ports(struct kvm_machine *machine, uint16_t first, uint16_t count, const struct bus_ops *ops,
                          void *user, struct vial_error *err)
{
    return add_range(&machine->ports, &(struct bus_range){first, count, ops, user}, err);
}

int kvm_machine_add_mmio(struct kvm_machine *machine, uint64_t first, uint64_t size_bytes, const struct bus_ops *ops,
                         void *user, struct vial_error *err)
{
    return add_range(&machine->mmio, &(struct bus_range){first, size_bytes, ops, user}, err);
}

int kvm_machine_interrupt(struct kvm_machine *machine, unsigned pin, int *ret_fd, struct vial_error *err)
{
    assert(pin < machine->pins);
    if (machine->interrupt_fds[pin] < 0) {
        auto_close int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (fd < 0)
            return fail_start(err, "eventfd");
        struct kvm_irqfd request = {.fd = (uint32_t)fd, .gsi = pin};
        if (ioctl(machine->vm_fd, KVM_IRQFD, &request) < 0)
            return fail_start(err, "KVM_IRQFD");
        machine->interrupt_fds[pin] = steal_fd(&fd);
    }
    *ret_fd = machine->interrupt_fds[pin];
    return 0;
}

int kvm_machine_add_kick(struct kvm_machine *machine, uint64_t address, uint32_t value, int fd, struct vial_error *err)
{
    struct kvm_ioeventfd request = {
        .datamatch = value,
        .addr = address,
        .len = sizeof(value),
        .fd = fd,
        .flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
    };
    return ioctl(machine->vm_fd, KVM_IOEVENTFD, &request) < 0 ? fail_start(err, "KVM_IOEVENTFD") : 0;
}

int kvm_machine_add_window(struct kvm_machine *machine, uint64_t guest, uint64_t size_bytes, void *host,
                           struct vial_error *err)
{
    return add_slot(machine, guest, size_bytes, host, err);
}

int kvm_machine_load(struct kvm_machine *machine, const struct boot_entry *entry, struct vial_error *err)
{
    const char *step = NULL;
    int result = registers_set_entry(machine->vcpus[0].fd, entry, &step);
    return result < 0 ? kvm_fail(err, VIAL_PHASE_START, step, result) : 0;
}

/* ---- our own IOAPIC ---- */

static void read_ioapic(void *user, uint64_t offset, void *bytes, uint32_t length)
{
    const struct kvm_machine *machine = user;
    ioapic_read(machine->ioapic, offset, bytes, length);
}

static void write_ioapic(void *user, uint64_t offset, const void *bytes, uint32_t length)
{
    struct kvm_machine *machine = user;
    int result = ioapic_write(machine->ioapic, offset, bytes, length);
    if (result < 0)
        kvm_machine_end(machine, VIAL_EXIT_INTERNAL_ERROR, "KVM_SET_GSI_ROUTING failed: %s", strerrordesc_np(-result));
}

static const struct bus_ops ioapic_bus_ops = {.read = read_ioapic, .write = write_ioapic};
