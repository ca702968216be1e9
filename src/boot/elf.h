// SPDX-License-Identifier: Apache-2.0
/* Loading an ELF kernel into guest memory. */
#ifndef BOOT_ELF_H
#define BOOT_ELF_H

#include "mem/memory.h"

#include <sys/types.h>

enum boot_protocol {
    BOOT_PVH,     /* 32-bit entry with a start_info (Xen's PVH, which Linux and others speak) */
    BOOT_LINUX64, /* the 64-bit entry of Linux, with a zero page */
};

struct boot_image {
    enum boot_protocol protocol;
    uint64_t entry;      /* guest-physical */
    uint64_t begin, end; /* what the image takes up, its zeroed part included */
};

/* Below this lie the command line and what else the boot protocols need; a kernel must not. */
#define BOOT_HIGH_MEMORY UINT64_C(0x100000)

/* Copies the segments of the image to their physical addresses. The memory must be new: what a segment has beyond its
 * bytes in the file is zero because nobody wrote there. 0; -EINVAL with *ret_why set to one phrase; or -errno of a
 * failed read. On failure guest memory may hold parts of the image. */
int elf_load(int fd, const struct memory *memory, struct boot_image *ret_image, const char **ret_why);

#endif
