// SPDX-License-Identifier: Apache-2.0
/* Everything that a machine's memory holds when it starts: kernel, initramfs, and what the kernel wants to be told. */
#ifndef BOOT_BOOT_H
#define BOOT_BOOT_H

#include "boot/acpi.h"
#include "boot/image.h"
#include "mem/memory.h"
#include "vial/base.h"
#include "vial/vmm.h"

struct boot_options {
    int kernel_fd;                     /* borrowed, open for reading; -1 with krunfw */
    const char *kernel_path;           /* for messages; NULL with krunfw */
    enum vial_kernel_format format;    /* AUTO: by content */
    const char *krunfw;                /* the path of a libkrunfw, or NULL */
    int initramfs_fd;                  /* borrowed, open for reading; -1: none */
    const char *initramfs_path;        /* for messages */
    const char *cmdline;               /* of the kernel, whole; never NULL */
    unsigned vcpus;                    /* 1 to LIMIT_VCPUS, with the APIC ids 0, 1, … */
    unsigned interrupt_pins;           /* of the IOAPIC, at most 240 */
    bool has_acpi;                     /* write ACPI tables, too; what follows is for them */
    const struct boot_device *devices; /* borrowed */
    size_t device_count;               /* at most LIMIT_DEVICES */
    const struct boot_serial *serials; /* borrowed */
    size_t serial_count;               /* at most LIMIT_SERIALS */
};

/* How the first vCPU has to be set up. Flat segments in both cases; RFLAGS is 2, interrupts off.
 *
 * BOOT_PVH: 32-bit protected mode without paging: CR0 is PE (and ET), CR4 and EFER 0; CS, DS, ES, SS are 32-bit
 * segments of 4 GiB from 0, TR a busy 32-bit TSS at 0 with the limit 0x67; EBX is `argument`, the start_info.
 *
 * BOOT_LINUX64: long mode: CR0 PE and PG, CR4 PAE, EFER LME and LMA, CR3 `page_table`; CS, and DS, ES, SS, as the
 * descriptors say; TR a busy 64-bit TSS (no entry of the GDT backs it; nothing reloads it); RSI is `argument`, the
 * zero page; RSP is `stack`. */
struct boot_entry {
    enum boot_protocol protocol;
    uint64_t entry;
    uint64_t argument;
    uint64_t stack;
    uint64_t page_table; /* the rest is 0 for PVH, which needs no tables */
    uint64_t gdt_address, idt_address;
    uint16_t gdt_limit, idt_limit;
    uint16_t code_selector, data_selector;
    uint64_t code_segment, data_segment; /* as they stand in the GDT (Intel SDM 3A, 3.4.5) */
};

/* Fills new guest memory and says how to enter it. The memory must begin at 0. On failure the error names the setting
 * ("kernel.path", "kernel.krunfw", "kernel.initramfs", "kernel.cmdline", "machine.memory_mib"), and the memory is good
 * for nothing but being freed. */
int boot_load(const struct boot_options *options, const struct memory *memory, struct boot_entry *ret_entry,
              struct vial_error *err);

#endif
