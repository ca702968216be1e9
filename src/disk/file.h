// SPDX-License-Identifier: Apache-2.0
/* The files that images are made of: opened with care, locked, read and written whatever their alignment. */
#ifndef DISK_FILE_H
#define DISK_FILE_H

#include "disk/format.h"
#include "disk/parts.h"

#include <sys/stat.h>

struct disk_file_request {
    const char *path; /* borrowed by the file */
    int folder_fd;    /* AT_FDCWD: any path; else a plain name in that folder, and no link */
    bool read_only, direct_io;
};

/* Opens and locks a regular file or a block device (in a folder: a regular file). Nothing else is opened, not even for
 * a look: opening a fifo can wait, and opening a device can do things. */
int disk_file_open(const struct disk_file_request *request, struct disk_file *ret_file, struct vial_error *err);
void disk_file_close(struct disk_file *file);

/* Whether two files are one: of devices, the device counts. */
bool disk_file_is_same(const struct stat *a, const struct stat *b);

/* All of the piece, at an offset of the file: 0 or -errno; -EIO where the file ends before. What O_DIRECT does not take
 * as it is goes through a buffer. */
int disk_file_read(const struct disk_file *file, const struct parts *parts, uint64_t offset);
int disk_file_write(const struct disk_file *file, const struct parts *parts, uint64_t offset);
int disk_file_read_bytes(const struct disk_file *file, void *bytes, size_t length, uint64_t offset);

/* Whether the file stores the bytes from `offset` on, and how far that holds (1 to `length`). Behind its end it stores
 * nothing; where the file system does not tell, everything. */
void disk_file_status(const struct disk_file *file, uint64_t offset, uint64_t length, bool *ret_is_zero,
                      uint64_t *ret_length);

/* Locks an open file as QEMU does: 0, -EBUSY when somebody else's use of it does not go with this one, -errno. The lock
 * ends when the file is closed, which a caller that was refused does at once. */
int disk_file_lock(int fd, bool for_writing);
int disk_file_in_use(const char *path, bool for_writing, struct vial_error *err);

#endif
