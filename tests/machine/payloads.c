// SPDX-License-Identifier: Apache-2.0
/* What the machine emulates, seen from inside: each payload reports, ends in its own way, and both are checked. */
#include "test.h"

#include "machine.h"

#include <sys/mman.h>

/* KVM is on every machine that these tests are for; where it is not, the emulated host runs them. */
#define NEEDS_KVM                                                                                                      \
    if (!machine_can_run())                                                                                            \
    return

TEST(a_guest_powers_off)
{
    NEEDS_KVM;
    CHECK_TEXT(machine_run("end", VIAL_EXIT_COMPLETED, false), "up\n");
    CHECK_TEXT(machine_run("end", VIAL_EXIT_COMPLETED, true), "up\n");
}

TEST(unknown_ports_read_as_ones)
{
    NEEDS_KVM;
    CHECK_TEXT(machine_run("ports", VIAL_EXIT_COMPLETED, false),
               "in8=ff\nin16=ffff\nin32=ffffffff\ngap=ff\nstring=1fe\n");
}

TEST(unknown_memory_reads_as_ones)
{
    NEEDS_KVM;
    CHECK_TEXT(machine_run("memory", VIAL_EXIT_COMPLETED, false), "mmio=ffffffff\nmmio8=ff\nmmio64=ffffffffffffffff\n");
}

TEST(what_nobody_answers_is_counted)
{
    NEEDS_KVM;
    struct machine machine;
    struct vial_vm_stats stats = VIAL_VM_STATS_INIT;
    struct vial_exit end = VIAL_EXIT_INIT;
    CHECK(machine_configure(&machine, "memory"));
    CHECK(machine_start(&machine, NULL, 0));
    CHECK_INT(vial_vm_wait(machine.vm, 20000, &end, NULL), 0);
    CHECK_INT(vial_vm_get_stats(machine.vm, &stats, NULL), 0);
    CHECK_INT(stats.unknown_memory, 4);
    CHECK_INT(stats.unknown_ports, 0);
    CHECK(stats.vcpu_exits > 10);
    machine_release(&machine);
    CHECK(machine_configure(&machine, "ports"));
    CHECK(machine_start(&machine, NULL, 0));
    CHECK_INT(vial_vm_wait(machine.vm, 20000, &end, NULL), 0);
    CHECK_INT(vial_vm_get_stats(machine.vm, &stats, NULL), 0);
    CHECK_INT(stats.unknown_ports, 9);
    machine_release(&machine);
}

TEST(the_cpu_knows_that_it_is_a_guest)
{
    NEEDS_KVM;
    const char *text = machine_run("cpu", VIAL_EXIT_COMPLETED, false);
    CHECK_TEXT(text, "hypervisor=1\nvmx=0\ndeadline=1\napic=0\nthreads=1\nkvm=1\nmtrr=806\nclock=80\n");
}

TEST(the_status_ladder)
{
    NEEDS_KVM;
    CHECK_TEXT(machine_run("ladder", VIAL_EXIT_COMPLETED, false),
               "magic=74726976\nversion=2\nid=4\nvendor=4c414956\nearly=0\ndriver=3\nrefused=3\nfeatures=b\nmax=40\n"
               "needs=4f\nreset=0\nnone=0\nconfig=0\n");
}

static const char interrupted[] = "status=f\ninterrupts=1\nwhy=1\nacknowledged=0\nused=1\nlength=10\nrandom=1\n";

TEST(a_device_interrupts_through_the_kernels_ioapic)
{
    NEEDS_KVM;
    CHECK_TEXT(machine_run("interrupt", VIAL_EXIT_COMPLETED, false), interrupted);
}

TEST(a_device_interrupts_through_our_ioapic)
{
    NEEDS_KVM;
    CHECK_TEXT(machine_run("interrupt", VIAL_EXIT_COMPLETED, true), interrupted);
}

TEST(real_mode)
{
    NEEDS_KVM;
    CHECK_TEXT(machine_run("real", VIAL_EXIT_GUEST_RESET, false), "R\n");
}

TEST(ways_to_end)
{
    NEEDS_KVM;
    CHECK_TEXT(machine_run("triple", VIAL_EXIT_TRIPLE_FAULT, false), "");
    CHECK_TEXT(machine_run("hello", VIAL_EXIT_TRIPLE_FAULT, false), "up\n");
    CHECK_TEXT(machine_run("reset", VIAL_EXIT_GUEST_RESET, false), "");
    CHECK_TEXT(machine_run("panic", VIAL_EXIT_GUEST_PANIC, false), "");
}

static const struct virtio_device_ops window_ops = {.type = VIRTIO_TYPE_FS, .name = "window"};

TEST(a_window_lies_above_all_memory)
{
    NEEDS_KVM;
    enum { window_bytes = 2 << 20 };
    struct virtio_device_options options = {.ops = &window_ops};
    struct machine machine;
    struct vm_extra extra = {.window_bytes = window_bytes};
    extra.window = mmap(NULL, window_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(extra.window != MAP_FAILED);
    CHECK_INT(virtio_device_new(&options, &extra.device), 0);
    CHECK(machine_configure(&machine, "window"));
    machine.config->machine.rng = machine.config->machine.metrics = false;
    CHECK(machine_start(&machine, &extra, 1));
    CHECK_TEXT(machine_finish(&machine, VIAL_EXIT_COMPLETED), "length=200000\nnone=ffffffff\nbase=100000000\n");
    machine_release(&machine);
    munmap(extra.window, window_bytes);
}

TEST(windows_have_a_gib_each)
{
    NEEDS_KVM;
    enum { window_bytes = 2 << 20 };
    struct virtio_device_options options = {.ops = &window_ops};
    struct machine machine;
    struct vm_extra extras[2] = {{.window_bytes = window_bytes}, {.window_bytes = window_bytes}};
    CHECK(machine_configure(&machine, "halt"));
    for (size_t i = 0; i < 2; i++) {
        extras[i].window = mmap(NULL, window_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        CHECK(extras[i].window != MAP_FAILED);
        CHECK_INT(virtio_device_new(&options, &extras[i].device), 0);
    }
    CHECK(machine_start(&machine, extras, 2));
    CHECK(virtio_device_window(extras[0].device, 0)->guest == UINT64_C(4) << 30);
    CHECK(virtio_device_window(extras[1].device, 0)->guest == UINT64_C(5) << 30);
    machine_release(&machine);
    for (size_t i = 0; i < 2; i++)
        munmap(extras[i].window, window_bytes);
}
