// SPDX-License-Identifier: Apache-2.0
/* The IOAPIC against a driver that writes redirection entries, and against the KVM of this host where there is one. */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "engine/kvm/ioapic.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { most_routes = IOAPIC_MOST_PINS };

static struct ioapic *ioapic;
static int set_count, set_result;
static unsigned route_count;
static struct kvm_irq_routing_entry routes[most_routes];
static unsigned resampled[most_routes];
static int vm_fd = -1;

static int keep_routes(void *user, const struct kvm_irq_routing *table)
{
    (void)user;
    set_count++;
    if (set_result < 0)
        return set_result;
    if (table->nr > most_routes || table->flags != 0)
        abort();
    route_count = table->nr;
    memcpy(routes, table->entries, table->nr * sizeof(routes[0]));
    return 0;
}

static void count_resample(void *user, unsigned pin)
{
    (void)user;
    if (pin >= most_routes)
        abort();
    resampled[pin]++;
}

static int begin(unsigned pins)
{
    struct ioapic_options options = {.pins = pins, .id = 65, .set_routes = keep_routes, .resample = count_resample};
    set_count = set_result = 0;
    route_count = 0;
    memset(resampled, 0, sizeof(resampled));
    return ioapic_new(&options, &ioapic);
}

static void end(void)
{
    ioapic = ioapic_free(ioapic);
}

static int put_window(uint64_t offset, uint32_t value)
{
    uint8_t bytes[4];
    memcpy(bytes, &value, sizeof(bytes));
    return ioapic_write(ioapic, offset, bytes, sizeof(bytes));
}

static uint32_t get_window(uint64_t offset)
{
    uint8_t bytes[4] = {0};
    uint32_t value = 0;
    ioapic_read(ioapic, offset, bytes, sizeof(bytes));
    memcpy(&value, bytes, sizeof(value));
    return value;
}

static int put(uint32_t index, uint32_t value)
{
    int result = put_window(0x00, index);
    return result < 0 ? result : put_window(0x10, value);
}

static uint32_t get(uint32_t index)
{
    put_window(0x00, index);
    return get_window(0x10);
}

/* As Linux writes an entry: the high half first, for the low one unmasks. */
static int put_entry(unsigned pin, uint64_t entry)
{
    int result = put(0x11 + 2 * pin, (uint32_t)(entry >> 32));
    return result < 0 ? result : put(0x10 + 2 * pin, (uint32_t)entry);
}

static uint64_t get_entry(unsigned pin)
{
    return get(0x10 + 2 * pin) | (uint64_t)get(0x11 + 2 * pin) << 32;
}

static bool is_route(unsigned index, unsigned gsi, uint32_t address, uint32_t data)
{
    const struct kvm_irq_routing_entry *route = &routes[index];
    return index < route_count && route->gsi == gsi && route->type == KVM_IRQ_ROUTING_MSI && route->flags == 0 &&
           route->u.msi.address_lo == address && route->u.msi.address_hi == 0 && route->u.msi.data == data;
}

/* ---- registers ---- */

TEST(after_reset)
{
    CHECK_INT(begin(224), 0);
    CHECK_INT(get(0), 65u << 24);
    CHECK_INT(get(1), 0x00df0020);
    CHECK_INT(get(2), 65u << 24);
    for (unsigned pin = 0; pin < 224; pin++)
        CHECK_INT(get_entry(pin), 0x10000);
    CHECK_INT(get(3), 0xffffffff);
    CHECK_INT(get(15), 0xffffffff);
    CHECK_INT(get(0x10 + 2 * 224), 0xffffffff);
    CHECK_INT(get(0xffffffff), 0xffffffff);
    CHECK_INT(set_count, 0);
    end();
}

TEST(registers_hold_what_an_ioapic_has)
{
    CHECK_INT(begin(24), 0);
    put(0, 0xffffffff);
    CHECK_INT(get(0), 0xff000000);
    put(1, 0xffffffff);
    CHECK_INT(get(1), 0x00170020);
    put(2, 0);
    CHECK_INT(get(2), 0xff000000);
    put_entry(7, UINT64_MAX);
    CHECK_INT((int64_t)get_entry(7), (int64_t)0xff0000000001afff);
    CHECK_INT(get_entry(6), 0x10000);
    CHECK_INT(get_entry(8), 0x10000);
    put(0x11 + 14, 0); /* each half keeps the other */
    CHECK_INT(get_entry(7), 0x1afff);
    put(0x10 + 14, 0x10000);
    put(0x11 + 14, 0x05000000);
    CHECK_INT(get_entry(7), 0x0500000000010000);
    put(0x10 + 48, 0x30); /* behind the last pin */
    put(0xffffffff, 0x30);
    put(5, 0x30);
    CHECK_INT(set_count, 0);
    end();
}

TEST(accesses_of_other_widths)
{
    uint8_t bytes[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    CHECK_INT(begin(24), 0);
    CHECK_INT(ioapic_write(ioapic, 0x00, bytes, 1), 0);
    CHECK_INT(get_window(0x00), 1);
    ioapic_read(ioapic, 0x10, bytes, 8);
    CHECK_INT(bytes[0], 0x20);
    CHECK_INT(bytes[2], 0x17);
    CHECK_INT(bytes[3] | bytes[4] | bytes[5] | bytes[6] | bytes[7], 0);
    memset(bytes, 0xaa, sizeof(bytes));
    ioapic_read(ioapic, 0x10, bytes, 2);
    CHECK_INT(bytes[0], 0x20);
    CHECK_INT(bytes[1], 0);
    CHECK_INT(bytes[2], 0xaa);
    CHECK_INT(ioapic_write(ioapic, 0x00, bytes, 8), 0);
    CHECK_INT(get_window(0x00), 0xaaaa0020);
    CHECK_INT(get_window(0x04), 0xffffffff);
    CHECK_INT(get_window(0x13), 0xffffffff);
    CHECK_INT(get_window(UINT64_MAX), 0xffffffff);
    CHECK_INT(put_window(0x04, 1), 0);
    CHECK_INT(put_window(UINT64_MAX, 1), 0);
    CHECK_INT(get_window(0x00), 0xaaaa0020);
    end();
}

/* ---- routes ---- */

TEST(entries_become_messages)
{
    static const struct {
        uint64_t entry;
        uint32_t address, data; /* address 0: no route */
    } rows[] = {
        {0x0000000000000030, 0xfee00000, 0x0030},
        {0x3f00000000000030, 0xfee3f000, 0x0030},
        {0xff000000000000fe, 0xfeeff000, 0x00fe},
        {0x0300000000000931, 0xfee03004, 0x0131}, /* lowest priority, logical */
        {0x010000000000a031, 0xfee01000, 0xc031}, /* level, active low */
        {0x0100000000002031, 0xfee01000, 0x0031}, /* active low is the wire's business */
        {0x010000000000d031, 0xfee01000, 0xc031}, /* status bits are not written */
        {0x0100000000000010, 0xfee01000, 0x0010},
        {0x010000000000000f, 0, 0},               /* not a vector */
        {0x0100000000000100, 0, 0},               /* neither */
        {0x0100000000000230, 0, 0},               /* SMI */
        {0x0100000000000330, 0, 0},               /* reserved */
        {0x0100000000000430, 0xfee01000, 0x0400}, /* NMI */
        {0x0100000000008430, 0xfee01000, 0x0400}, /* NMI is an edge */
        {0x0100000000000530, 0xfee01000, 0x0500}, /* INIT */
        {0x0100000000000630, 0, 0},               /* reserved */
        {0x0100000000000730, 0, 0},               /* ExtINT */
        {0x0100000000010030, 0, 0},               /* masked */
    };
    for (size_t i = 0; i < array_length(rows); i++) {
        CHECK_INT(begin(224), 0);
        CHECK_INT(put_entry(130, rows[i].entry), 0);
        CHECK_INT(route_count, rows[i].address != 0);
        CHECK_INT(set_count, rows[i].address != 0);
        CHECK(rows[i].address == 0 || is_route(0, 130, rows[i].address, rows[i].data));
        end();
    }
}

TEST(only_changes_are_pushed)
{
    CHECK_INT(begin(224), 0);
    for (unsigned pin = 0; pin < 224; pin++) /* as Linux begins */
        CHECK_INT(put_entry(pin, 0x10000), 0);
    CHECK_INT(set_count, 0);
    CHECK_INT(put_entry(5, 0x0200000000000041), 0);
    CHECK_INT(set_count, 1);
    CHECK_INT(put_entry(5, 0x0200000000000041), 0);
    CHECK_INT(put_entry(5, 0x0200000000002041), 0); /* the polarity changes nothing */
    CHECK_INT(set_count, 1);
    CHECK_INT(put(0, 0), 0);
    get_entry(5);
    ioapic_end_of_interrupt(ioapic, 0x41);
    CHECK_INT(set_count, 1);
    CHECK_INT(put_entry(223, 0x0000000000000042), 0);
    CHECK_INT(set_count, 2);
    CHECK_INT(route_count, 2);
    CHECK(is_route(0, 5, 0xfee02000, 0x41) && is_route(1, 223, 0xfee00000, 0x42));
    CHECK_INT(put(0x10 + 2 * 5, 0x10041), 0); /* masked */
    CHECK_INT(route_count, 1);
    CHECK(is_route(0, 223, 0xfee00000, 0x42));
    CHECK_INT(put(0x11 + 2 * 5, 0x03000000), 0); /* moved while masked */
    CHECK_INT(set_count, 3);
    CHECK_INT(put(0x10 + 2 * 5, 0x00041), 0);
    CHECK_INT(set_count, 4);
    CHECK(is_route(0, 5, 0xfee03000, 0x41));
    end();
}

TEST(all_pins_at_once)
{
    CHECK_INT(begin(IOAPIC_MOST_PINS), 0);
    for (unsigned pin = 0; pin < IOAPIC_MOST_PINS; pin++)
        CHECK_INT(put_entry(pin, UINT64_C(1) << 56 | (16 + pin % 240)), 0);
    CHECK_INT(route_count, IOAPIC_MOST_PINS);
    for (unsigned pin = 0; pin < IOAPIC_MOST_PINS; pin++)
        CHECK(is_route(pin, pin, 0xfee01000, 16 + pin % 240));
    end();
}

TEST(a_table_that_was_refused_is_pushed_again)
{
    CHECK_INT(begin(24), 0);
    set_result = -EINVAL;
    CHECK_INT(put_entry(3, 0x33), -EINVAL);
    CHECK_INT(put_window(0x00, 0), -EINVAL);
    CHECK_INT(set_count, 2);
    set_result = 0;
    CHECK_INT(put_window(0x00, 0), 0);
    CHECK(route_count == 1 && is_route(0, 3, 0xfee00000, 0x33));
    CHECK_INT(put_window(0x00, 0), 0);
    CHECK_INT(set_count, 3);
    end();
}

TEST(level_triggered_pins_are_looked_at_again)
{
    CHECK_INT(begin(224), 0);
    put_entry(9, 0x8050);
    CHECK_INT(resampled[9], 1); /* its line may be up already */
    put_entry(200, 0x8050);
    put_entry(10, 0x0050); /* an edge */
    put_entry(11, 0x8051);
    memset(resampled, 0, sizeof(resampled));
    ioapic_end_of_interrupt(ioapic, 0x50);
    CHECK(resampled[9] == 1 && resampled[200] == 1 && resampled[10] == 0 && resampled[11] == 0);
    CHECK_INT(put_window(0x40, 0x51), 0); /* the EOI register */
    CHECK(resampled[9] == 1 && resampled[200] == 1 && resampled[10] == 0 && resampled[11] == 1);
    put(0x10 + 18, 0x18050);
    ioapic_end_of_interrupt(ioapic, 0x50);
    CHECK(resampled[9] == 1 && resampled[200] == 2); /* masked: later */
    put(0x10 + 18, 0x8050);
    CHECK_INT(resampled[9], 2);
    CHECK_INT(get_entry(9), 0x8050);
    end();
}

TEST(ioapic_survives_no_memory)
{
    FOR_EACH_FAULT
    {
        CHECK_INT(begin(224), fault_was_hit() ? -ENOMEM : 0);
        end();
    }
}

static void *hammer(void *argument)
{
    unsigned random = *(unsigned *)argument;
    for (int i = 0; i < 5000; i++) {
        random = random * 1103515245 + 12345;
        put_window(0x00, 0x10 + (random >> 16) % 480);
        put_window(0x10, random & 0xff00ffff);
        get_window(0x10);
    }
    return NULL;
}

TEST(several_vcpus_at_once)
{
    unsigned seeds[3] = {1, 2, 3};
    pthread_t threads[3];
    struct ioapic_options options = {.pins = 224, .set_routes = keep_routes};
    CHECK_INT(ioapic_new(&options, &ioapic), 0);
    for (size_t i = 0; i < 3; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, hammer, &seeds[i]), 0);
    for (size_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    /* What KVM was given last is what the entries say now. */
    unsigned index = 0;
    for (unsigned pin = 0; pin < 224; pin++) {
        uint64_t entry = get_entry(pin);
        index += index < route_count && routes[index].gsi == pin && (entry & 0x10000) == 0;
    }
    CHECK_INT(index, route_count);
    end();
}

/* ---- the host's KVM ---- */

static int kvm_set_routes(void *user, const struct kvm_irq_routing *table)
{
    (void)user;
    return ioctl(vm_fd, KVM_SET_GSI_ROUTING, table) < 0 ? -errno : 0;
}

/* A guest in flat 32-bit mode that ends an interrupt and then touches a port, again and again. */
static const uint8_t end_and_leave[] = {
    0xc7, 0x05, 0xb0, 0x00, 0xe0, 0xfe, 0, 0, 0, 0, /* movl $0, 0xfee000b0 */
    0xe6, 0x80,                                     /* 1: outb %al, $0x80 */
    0xeb, 0xfc,                                     /* jmp 1b */
};
enum { APIC_SPURIOUS = 0xf0, APIC_IN_SERVICE = 0x100, APIC_TRIGGER_MODE = 0x180, APIC_REQUESTED = 0x200 };

static uint32_t apic_bit(const struct kvm_lapic_state *state, size_t base, unsigned vector)
{
    uint32_t word;
    memcpy(&word, state->regs + base + vector / 32 * 16, sizeof(word));
    return word >> vector % 32 & 1;
}

static void set_apic_bit(struct kvm_lapic_state *state, size_t base, unsigned vector)
{
    state->regs[base + vector / 32 * 16 + vector % 32 / 8] |= (char)(1 << vector % 8);
}

/* A machine with one vCPU, RAM of a page at `ram` and an enabled local APIC. False where there is no usable KVM. */
static bool make_machine(int *vcpu_fd, uint8_t *ram)
{
    auto_close int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    vm_fd = kvm_fd >= 0 ? ioctl(kvm_fd, KVM_CREATE_VM, 0) : -1;
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {224}};
    if (vm_fd < 0 || ioctl(vm_fd, KVM_ENABLE_CAP, &split) < 0)
        return false;
    struct kvm_userspace_memory_region region = {.memory_size = 4096, .userspace_addr = (uintptr_t)ram};
    struct kvm_lapic_state apic;
    *vcpu_fd = ioctl(vm_fd, KVM_CREATE_VCPU, 0);
    if (*vcpu_fd < 0 || ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0 ||
        ioctl(*vcpu_fd, KVM_GET_LAPIC, &apic) < 0)
        return false;
    apic.regs[APIC_SPURIOUS] = (char)0xff;
    apic.regs[APIC_SPURIOUS + 1] = 1; /* enabled */
    return ioctl(*vcpu_fd, KVM_SET_LAPIC, &apic) == 0;
}

/* Binds an eventfd to the GSI, signals it, and looks for the vector in the local APIC. */
static bool arrives(int vcpu_fd, uint32_t gsi, unsigned vector, bool is_level)
{
    auto_close int fd = eventfd(0, EFD_CLOEXEC);
    struct kvm_irqfd bind = {.fd = (uint32_t)fd, .gsi = gsi};
    struct kvm_lapic_state apic;
    uint64_t one = 1;
    if (ioctl(vm_fd, KVM_IRQFD, &bind) < 0 || write(fd, &one, sizeof(one)) != (ssize_t)sizeof(one))
        return false;
    bind.flags = KVM_IRQFD_FLAG_DEASSIGN; /* waits until the signal has been worked on */
    if (ioctl(vm_fd, KVM_IRQFD, &bind) < 0 || ioctl(vcpu_fd, KVM_GET_LAPIC, &apic) < 0)
        return false;
    return apic_bit(&apic, APIC_REQUESTED, vector) == 1 && apic_bit(&apic, APIC_TRIGGER_MODE, vector) == is_level;
}

/* Runs the guest with the vector in service. Returns the vector whose end KVM tells us of, 0 when it tells of none. */
static int end_in_guest(int vcpu_fd, struct kvm_run *run, unsigned vector, bool is_level)
{
    struct kvm_sregs special;
    struct kvm_regs general = {.rflags = 2};
    struct kvm_lapic_state apic;
    if (ioctl(vcpu_fd, KVM_GET_SREGS, &special) < 0 || ioctl(vcpu_fd, KVM_GET_LAPIC, &apic) < 0)
        return -1;
    special.cs = (struct kvm_segment){
        .limit = UINT32_MAX, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1, .selector = 8};
    special.ds = special.es = special.ss = special.cs;
    special.ds.type = special.es.type = special.ss.type = 3;
    special.ds.selector = special.es.selector = special.ss.selector = 16;
    special.cr0 |= 1;
    memset(apic.regs + APIC_IN_SERVICE, 0, APIC_REQUESTED + 0x80 - APIC_IN_SERVICE);
    set_apic_bit(&apic, APIC_IN_SERVICE, vector);
    if (is_level)
        set_apic_bit(&apic, APIC_TRIGGER_MODE, vector);
    if (ioctl(vcpu_fd, KVM_SET_SREGS, &special) < 0 || ioctl(vcpu_fd, KVM_SET_REGS, &general) < 0 ||
        ioctl(vcpu_fd, KVM_SET_LAPIC, &apic) < 0)
        return -1;
    for (int exits = 0; exits < 5; exits++) { /* a KVM that emulates may be a few instructions late with its report */
        if (ioctl(vcpu_fd, KVM_RUN, 0) < 0)
            return -1;
        if (run->exit_reason == KVM_EXIT_IOAPIC_EOI)
            return run->eoi.vector;
        if (run->exit_reason != KVM_EXIT_IO)
            return -1;
    }
    return 0;
}

static void check_with_kvm(int vcpu_fd, struct kvm_run *run)
{
    struct ioapic_options options = {.pins = 224, .set_routes = kvm_set_routes};
    CHECK_INT(ioapic_new(&options, &ioapic), 0);
    CHECK_INT(put_entry(223, 0x41), 0);
    CHECK(arrives(vcpu_fd, 223, 0x41, false));
    CHECK_INT(put_entry(130, 0x8052), 0);
    CHECK(arrives(vcpu_fd, 130, 0x52, true));
    CHECK(!arrives(vcpu_fd, 131, 0x53, false)); /* masked */
    CHECK_INT(end_in_guest(vcpu_fd, run, 0x52, true), 0x52);
    CHECK_INT(end_in_guest(vcpu_fd, run, 0x41, false), 0); /* an edge costs no exit */
    for (unsigned pin = 0; pin < 224; pin++)
        CHECK_INT(put_entry(pin, 16 + pin), 0);
    CHECK(arrives(vcpu_fd, 0, 16, false) && arrives(vcpu_fd, 119, 135, false) && arrives(vcpu_fd, 223, 239, false));
}

TEST(kvm_takes_the_table_and_delivers)
{
    int vcpu_fd = -1;
    uint8_t *ram = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct kvm_run *run = MAP_FAILED;
    CHECK(ram != MAP_FAILED);
    memcpy(ram, end_and_leave, sizeof(end_and_leave));
    if (make_machine(&vcpu_fd, ram)) {
        run = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, 0);
        if (run != MAP_FAILED)
            check_with_kvm(vcpu_fd, run);
    } else {
        printf("# no usable KVM here: not asked\n");
    }
    end();
    if (run != MAP_FAILED)
        munmap(run, 4096);
    munmap(ram, 4096);
    fd_close(vcpu_fd);
    vm_fd = fd_close(vm_fd);
}
