// SPDX-License-Identifier: Apache-2.0
/* Loading the kernel that a libkrunfw holds. */
#ifndef BOOT_KRUNFW_H
#define BOOT_KRUNFW_H

#include "boot/image.h"
#include "boot/reason.h"
#include "mem/memory.h"

/* Loads the shared library into this process, puts its kernel into guest memory, and lets the library go. 0; -EINVAL
 * with a reason; or -errno. */
int krunfw_load(const char *path, const struct memory *memory, struct boot_image *ret_image,
                struct boot_reason *reason);

#endif
