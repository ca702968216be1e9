// SPDX-License-Identifier: Apache-2.0
/* Flat images: bytes that go to one address, and an entry among them. */
#ifndef BOOT_FLAT_H
#define BOOT_FLAT_H

#include "boot/image.h"
#include "boot/reason.h"
#include "mem/memory.h"

/* Whether a flat image of that size can lie there and be entered there; what it takes up in *ret_image. -EINVAL with a
 * reason. */
int flat_check(const struct memory *memory, uint64_t load, uint64_t entry, uint64_t size, struct boot_image *ret_image,
               struct boot_reason *reason);

/* A raw image goes to BOOT_FLAT_IMAGE and is entered at its first byte. 0; -EINVAL with a reason; or -errno. */
int flat_load(int fd, const struct memory *memory, struct boot_image *ret_image, struct boot_reason *reason);

#endif
