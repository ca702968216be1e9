// SPDX-License-Identifier: Apache-2.0
/* What a kernel finds when it starts by the PVH protocol. */
#ifndef BOOT_START_INFO_H
#define BOOT_START_INFO_H

#include "boot/initramfs.h"
#include "mem/memory.h"

/* Writes start_info, the list of modules and the memory map. The command line is in its place already.
 * `rsdp` is where ACPI begins, or 0. 0 or -EFAULT. */
int start_info_write(const struct memory *memory, const struct initramfs *initramfs, uint64_t rsdp);

#endif
