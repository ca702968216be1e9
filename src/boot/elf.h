// SPDX-License-Identifier: Apache-2.0
/* Loading an ELF kernel into guest memory. */
#ifndef BOOT_ELF_H
#define BOOT_ELF_H

#include "boot/image.h"
#include "boot/reason.h"
#include "mem/memory.h"

/* Puts the segments of the image at their physical addresses. The memory must be new: what a segment has beyond its
 * bytes in the file is zero because nobody wrote there. 0; -EINVAL with a reason; or -errno. On failure guest memory
 * may hold parts of the image. */
int elf_load(int fd, const struct memory *memory, struct boot_image *ret_image, struct boot_reason *reason);

#endif
