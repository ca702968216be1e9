// SPDX-License-Identifier: Apache-2.0
/* Where things are in the guest's physical memory when it starts. (x86_64)
 *
 * Everything that the boot protocols need lies below 1 MiB, where no kernel image may lie, so that neither can ever
 * overwrite the other. After the kernel has started it may use all of it as it likes.
 *
 *     0x500  GDT, IDT            0x20000  command line      0x100000    kernel, initramfs
 *     0x6000 start_info          0x9fc00  end of low RAM    0xd0000000  gap: devices, interrupt controllers
 *     0x7000 memory map          0xe0000  ACPI tables       4 GiB       the rest of the RAM
 *     0x9000 page tables         0xf0000  MP table
 */
#ifndef BOOT_LAYOUT_H
#define BOOT_LAYOUT_H

#include <stdint.h>

/* Behind the real-mode vectors and the BIOS data area, which end at 0x500. Four descriptors fill it up to the IDT. */
#define BOOT_GDT UINT64_C(0x500)

/* Empty: an exception before the kernel has a table of its own ends in a triple fault, which the engine reports. */
#define BOOT_IDT UINT64_C(0x520)

/* Xen's start_info of the PVH protocol, and its list of modules (the initramfs) behind it. */
#define BOOT_START_INFO UINT64_C(0x6000)
#define BOOT_MODULES UINT64_C(0x6040)

/* PVH's memory map, or the zero page of Linux's protocol: a kernel is started by one of them. One page. */
#define BOOT_MEMORY_MAP UINT64_C(0x7000)
#define BOOT_ZERO_PAGE UINT64_C(0x7000)

/* The first stack grows down from here to the end of the page above; 16 bytes stay free and keep it aligned. */
#define BOOT_STACK UINT64_C(0x8ff0)

/* One page of each level maps the first GiB to itself by pages of 2 MiB, as the 64-bit entry demands for the kernel,
 * the zero page and the command line (Linux x86 boot protocol, 64-bit boot protocol). */
#define BOOT_PAGE_TABLE UINT64_C(0x9000)
#define BOOT_PAGE_DIRECTORY_POINTERS UINT64_C(0xa000)
#define BOOT_PAGE_DIRECTORY UINT64_C(0xb000)
#define BOOT_MAPPED_END UINT64_C(0x40000000)

/* The command line, its NUL included. Linux takes 2048 bytes of it; 64 KiB is what lies below the next round number and
 * leaves other kernels some room. */
#define BOOT_CMDLINE UINT64_C(0x20000)
enum { BOOT_CMDLINE_BYTES = 0x10000 };

/* RAM below 1 MiB ends where a PC's extended BIOS data area begins. */
#define BOOT_LOW_RAM_END UINT64_C(0x9fc00)

/* The BIOS area of a PC, where firmware leaves its tables: the guest is told that it is there, and is no RAM. */
#define BOOT_BIOS_AREA UINT64_C(0xe0000)

/* The ACPI tables, the RSDP first: where an operating system looks for it that nobody told (ACPI 6.5, 5.2.5.1), below
 * the half of that area which the MP table has. 200 devices and 64 processors take 14 KiB of it. */
#define BOOT_ACPI BOOT_BIOS_AREA
enum { BOOT_ACPI_BYTES = 0x10000 };

/* The MP table: the last 64 KiB of the BIOS area, where an operating system has to look for it (MultiProcessor
 * Specification 1.4, 4). A table for 64 processors and 224 pins would not fit into the KiB at 0x9fc00. */
#define BOOT_MP_TABLE UINT64_C(0xf0000)
enum { BOOT_MP_TABLE_BYTES = 0x10000 };

/* Below this lies all of the above; a kernel must not. */
#define BOOT_HIGH_MEMORY UINT64_C(0x100000)

/* Where a flat image without an address of its own goes: what Linux itself prefers (CONFIG_PHYSICAL_START). */
#define BOOT_FLAT_IMAGE UINT64_C(0x1000000)

/* Where every PC has them (Intel SDM 3A, 11.4.1; 82093AA 3.0). */
#define BOOT_IOAPIC UINT64_C(0xfec00000)
#define BOOT_LOCAL_APIC UINT64_C(0xfee00000)

/* Ports that ACPI names, all of them a byte wide: the keyboard controller's command that pulses the reset line, and the
 * sleep registers of reduced hardware (ACPI 6.5, 4.8.3.7), of which the first is the port that switches off anyway. */
enum { BOOT_RESET_PORT = 0x64, BOOT_RESET_VALUE = 0xfe };
enum { BOOT_SLEEP_CONTROL_PORT = 0x604, BOOT_SLEEP_STATUS_PORT = 0x605 };

#endif
