// SPDX-License-Identifier: Apache-2.0
/* What a format has to do to be a disk (disk.c stands in front and checks ranges and rights). */
#ifndef DISK_FORMAT_H
#define DISK_FORMAT_H

#include "disk/disk.h"

/* A file of an image, open, as disk.c gives it to a format: opened as the options say, locked, a regular file or a
 * block device. */
struct disk_file {
    int fd;              /* owned by disk.c */
    const char *path;    /* as it was given; for messages */
    uint64_t size_bytes; /* of the file or device when it was opened */
    uint32_t alignment_bytes;
    bool is_read_only, is_device;
};

/* The members of disk.h's functions, for ranges that lie within the disk and are not empty. Those that are NULL answer
 * as the comment says. Each may be called on several threads at once; `map` and `sync_fd` must not wait. */
struct disk_ops {
    const char *name;
    int (*map)(void *state, uint64_t offset, uint64_t length, bool for_writing, struct disk_extent *ret_extent);
    int (*sync_fd)(void *state);
    int (*read)(void *state, const struct iovec *parts, int count, uint64_t offset);
    int (*write)(void *state, const struct iovec *parts, int count, uint64_t offset); /* NULL: -EROFS */
    int (*flush)(void *state);                                                        /* NULL: 0 */
    int (*discard)(void *state, uint64_t offset, uint64_t length);                    /* NULL: -EOPNOTSUPP */
    int (*zero)(void *state, uint64_t offset, uint64_t length, bool may_unmap);       /* NULL: -EROFS */
    int (*status)(void *state, uint64_t offset, uint64_t length, bool *ret_is_zero, uint64_t *ret_length);
    int (*resize)(void *state, uint64_t size_bytes, bool may_shrink, struct vial_error *err); /* NULL: refused */
    int (*close)(void *state, struct vial_error *err); /* writes back and frees, whatever it returns */
};

/* What a format's open gives back. */
struct disk_shape {
    const struct disk_ops *ops;
    void *state; /* owned: ops->close */
    struct disk_properties properties;
};

/* Opens a file that an image names (a backing file, an extent), for reading only, if the caller of disk_open allowed it
 * by name; -EACCES with an error that says how to allow it. Counts the depth and knows the files on the way: -ELOOP. */
struct disk_opener;
int disk_open_backing(struct disk_opener *opener, const struct disk_file *from, const char *name,
                      enum vial_disk_format named_format, struct disk **ret_disk, struct vial_error *err);

/* Each format's way in. The file is borrowed until ops->close. */
int raw_open(const struct disk_file *file, struct disk_opener *opener, struct disk_shape *ret_shape,
             struct vial_error *err);
int qcow2_open(const struct disk_file *file, struct disk_opener *opener, struct disk_shape *ret_shape,
               struct vial_error *err);
int vmdk_open(const struct disk_file *file, struct disk_opener *opener, struct disk_shape *ret_shape,
              struct vial_error *err);

#endif
