// SPDX-License-Identifier: Apache-2.0
/* Loading an initramfs. */
#ifndef BOOT_INITRAMFS_H
#define BOOT_INITRAMFS_H

#include "boot/image.h"
#include "boot/reason.h"
#include "mem/memory.h"

struct initramfs {
    uint64_t address, size; /* 0: there is none */
};

/* Puts the file where the kernel of `image` can have it. 0; -EINVAL with a reason; or -errno. */
int initramfs_load(int fd, const struct memory *memory, const struct boot_image *image, struct initramfs *ret_initramfs,
                   struct boot_reason *reason);

#endif
