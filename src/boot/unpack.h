// SPDX-License-Identifier: Apache-2.0
/* Unpacking compressed kernel images. */
#ifndef BOOT_UNPACK_H
#define BOOT_UNPACK_H

#include "boot/reason.h"
#include "vial/vmm.h"

/* Unpacks what is compressed in an image of format image-gz, image-bz2, image-zstd or pe-gz into a new memfd. 0;
 * -EINVAL with a reason; or -errno. */
int unpack_image(int fd, enum vial_kernel_format format, int *ret_fd, struct boot_reason *reason);

#endif
