// SPDX-License-Identifier: Apache-2.0
/* Bytes of a file into guest memory. */
#ifndef BOOT_PLACE_H
#define BOOT_PLACE_H

#include "boot/reason.h"
#include "mem/memory.h"

/* The end of the RAM that begins at 0; 0 when there is none. */
uint64_t place_low_end(const struct memory *memory);

/* The size of a regular file. -EINVAL with a reason for anything else and for an empty one. */
int place_file_size(int fd, uint64_t *ret_size, struct boot_reason *reason);

/* Reads exactly that many bytes into memory of ours. -EINVAL with a reason when the file ends before, or -errno. */
int place_read(int fd, void *bytes, uint64_t length, uint64_t offset, struct boot_reason *reason);

/* The bytes [offset, offset + length) of a file to a guest address: whole pages are a view of the file where that is
 * possible (memory_overlay), the rest is read. 0; -EINVAL with a reason; or -errno. A length of 0 is 0. */
int place_file(int fd, uint64_t offset, uint64_t length, const struct memory *memory, uint64_t guest,
               struct boot_reason *reason);

#endif
