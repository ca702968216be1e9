// SPDX-License-Identifier: Apache-2.0
/* Loading a bzImage that unpacks itself. */
#ifndef BOOT_BZIMAGE_H
#define BOOT_BZIMAGE_H

#include "boot/image.h"
#include "boot/reason.h"
#include "mem/memory.h"

enum { BZIMAGE_HEADER_BYTES = 0x1f1 + sizeof(struct setup_header) };

/* The setup header of a bzImage, or -EINVAL with a reason when the file is something else; or -errno. */
int bzimage_read_header(int fd, struct setup_header *ret_header, struct boot_reason *reason);

/* Where in the file its 64-bit code begins, behind the real-mode part. */
uint64_t bzimage_code_offset(const struct setup_header *header);

/* Puts its code where the kernel prefers to be, with room for unpacking; the 64-bit entry is the image's entry. 0;
 * -EINVAL with a reason; or -errno. On failure guest memory may hold parts of it. */
int bzimage_load(int fd, const struct memory *memory, struct boot_image *ret_image, struct boot_reason *reason);

#endif
