// SPDX-License-Identifier: Apache-2.0
/* Telling kernel images apart by their content. */
#ifndef BOOT_FORMAT_H
#define BOOT_FORMAT_H

#include "vial/vmm.h"

/* The format of the kernel image behind the descriptor. 0; -EINVAL when the content does not tell (*ret_why says what
 * it looks like, one phrase); or -errno of a failed read. The file offset stays where it is. */
int kernel_format_detect(int fd, enum vial_kernel_format *ret_format, const char **ret_why);

#endif
