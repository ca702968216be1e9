// SPDX-License-Identifier: Apache-2.0
/* What a kernel finds when it starts by Linux's 64-bit protocol. */
#ifndef BOOT_LINUX64_H
#define BOOT_LINUX64_H

#include "boot/image.h"
#include "boot/initramfs.h"
#include "mem/memory.h"

/* The segments of LINUX64_CODE and LINUX64_DATA as they stand in the table at BOOT_GDT. */
#define LINUX64_CODE_SEGMENT UINT64_C(0x00af9b000000ffff)
#define LINUX64_DATA_SEGMENT UINT64_C(0x00cf93000000ffff)
enum { LINUX64_CODE = 0x10, LINUX64_DATA = 0x18, LINUX64_GDT_BYTES = 32 };

/* Writes the zero page, the table of segments and the page tables. The command line is in its place already. `rsdp` is
 * where ACPI begins, or 0. 0 or -EFAULT. */
int linux64_write(const struct memory *memory, const struct boot_image *image, const struct initramfs *initramfs,
                  uint64_t rsdp);

#endif
