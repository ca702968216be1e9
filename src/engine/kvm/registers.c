// SPDX-License-Identifier: Apache-2.0
/* What a vCPU's registers hold before its first instruction.
 *
 * Every vCPU gets what a firmware would have left: caching on for all of memory, fast string instructions, a clean FPU.
 * The one that boots gets the state that the kernel's entry protocol demands; the others stay as KVM makes them,
 * waiting for the kernel to send them INIT and SIPI.
 *
 *     PVH        32-bit protected mode, flat segments, paging off; ebx: start_info   (Xen's pvh.h)
 *     Linux 64   long mode, flat segments, identity-mapped pages; rsi: boot_params   (x86/boot.rst, 64-bit protocol)
 *
 * Invariants: (1) the segment registers hold what the GDT in guest memory says of their selectors. (2) interrupts are
 * off.
 *
 * Trust: the entry was checked by the loader.
 */
#include "engine/kvm/registers.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>

enum {
    msr_misc_enable = 0x1a0,
    msr_mtrr_def_type = 0x2ff,
};

enum { cr0_pe = 1 << 0, cr0_et = 1 << 4, cr0_ne = 1 << 5, cr4_pae = 1 << 5, efer_lme = 1 << 8, efer_lma = 1 << 10 };
static const uint64_t cr0_pg = UINT64_C(1) << 31;
enum { flags_reserved = 1 << 1 }; /* the bit of rflags that is always set */

static int failed(const char *step, const char **ret_step)
{
    *ret_step = step;
    return -errno;
}

int registers_set_common(int vcpu_fd, const char **ret_step)
{
    static const struct {
        uint32_t index;
        uint64_t value;
    } values[] = {
        {msr_misc_enable, 1 | 1 << 11 | 1 << 12}, /* fast strings, no BTS, no PEBS (Intel SDM 4, IA32_MISC_ENABLE) */
        {msr_mtrr_def_type, 1 << 11 | 6},         /* MTRRs on, all of memory write-back (Intel SDM 3A 12.11.2.1) */
    };
    enum { count = sizeof(values) / sizeof(values[0]) };
    union {
        struct kvm_msrs header;
        uint8_t bytes[sizeof(struct kvm_msrs) + count * sizeof(struct kvm_msr_entry)];
    } msrs = {.header.nmsrs = count};
    for (int i = 0; i < count; i++) {
        struct kvm_msr_entry entry = {.index = values[i].index, .data = values[i].value};
        memcpy(msrs.bytes + sizeof(struct kvm_msrs) + (size_t)i * sizeof(entry), &entry, sizeof(entry));
    }
    int set = ioctl(vcpu_fd, KVM_SET_MSRS, &msrs);
    if (set >= 0 && set < count)
        errno = EOPNOTSUPP;
    if (set < count)
        return failed("KVM_SET_MSRS", ret_step);
    struct kvm_fpu fpu = {.fcw = 0x37f, .mxcsr = 0x1f80};
    return ioctl(vcpu_fd, KVM_SET_FPU, &fpu) < 0 ? failed("KVM_SET_FPU", ret_step) : 0;
}

/* A segment as its descriptor says (Intel SDM 3A, 3.4.5). */
static struct kvm_segment segment_of(uint16_t selector, uint64_t descriptor)
{
    uint32_t limit = (uint32_t)(descriptor & 0xffff) | (uint32_t)(descriptor >> 32 & 0xf0000);
    bool has_pages = (descriptor >> 55 & 1) != 0;
    return (struct kvm_segment){
        .base = (descriptor >> 16 & 0xffffff) | (descriptor >> 56 & 0xff) << 24,
        .limit = has_pages ? limit << 12 | 0xfff : limit,
        .selector = selector,
        .type = descriptor >> 40 & 15,
        .s = descriptor >> 44 & 1,
        .dpl = descriptor >> 45 & 3,
        .present = descriptor >> 47 & 1,
        .avl = descriptor >> 52 & 1,
        .l = descriptor >> 53 & 1,
        .db = descriptor >> 54 & 1,
        .g = has_pages,
    };
}

static void set_segments(struct kvm_sregs *system, const struct boot_entry *entry)
{
    enum { type_busy_tss = 11, tss_bytes = 0x68 };
    /* Flat 32-bit segments, for the protocol that brings no table. */
    static const uint64_t flat_code = UINT64_C(0x00cf9b000000ffff), flat_data = UINT64_C(0x00cf93000000ffff);
    bool is_long = entry->protocol == BOOT_LINUX64;
    system->cs = segment_of(entry->code_selector, is_long ? entry->code_segment : flat_code);
    struct kvm_segment data = segment_of(entry->data_selector, is_long ? entry->data_segment : flat_data);
    system->ds = system->es = system->fs = system->gs = system->ss = data;
    system->tr = (struct kvm_segment){.limit = tss_bytes - 1, .type = type_busy_tss, .present = 1};
}

int registers_set_entry(int vcpu_fd, const struct boot_entry *entry, const char **ret_step)
{
    struct kvm_sregs system;
    struct kvm_regs general = {.rflags = flags_reserved, .rip = entry->entry};
    if (ioctl(vcpu_fd, KVM_GET_SREGS, &system) < 0)
        return failed("KVM_GET_SREGS", ret_step);
    bool is_long = entry->protocol == BOOT_LINUX64;
    set_segments(&system, entry);
    system.cr0 = cr0_pe | cr0_et | cr0_ne;
    system.cr4 = 0;
    if (is_long) {
        system.gdt.base = entry->gdt_address;
        system.gdt.limit = entry->gdt_limit;
        system.idt.base = entry->idt_address;
        system.idt.limit = entry->idt_limit;
        system.cr3 = entry->page_table;
        system.cr4 = cr4_pae;
        system.cr0 |= cr0_pg;
        system.efer |= efer_lme | efer_lma;
        general.rsi = entry->argument;
        general.rsp = general.rbp = entry->stack;
    } else {
        general.rbx = entry->argument;
    }
    if (ioctl(vcpu_fd, KVM_SET_SREGS, &system) < 0)
        return failed("KVM_SET_SREGS", ret_step);
    return ioctl(vcpu_fd, KVM_SET_REGS, &general) < 0 ? failed("KVM_SET_REGS", ret_step) : 0;
}
