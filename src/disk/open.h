// SPDX-License-Identifier: Apache-2.0
/* What the files of this folder know of an open disk, and how one comes to be. */
#ifndef DISK_OPEN_H
#define DISK_OPEN_H

#include "disk/file.h"

struct disk {
    char *path;            /* owned */
    struct disk_file file; /* owned */
    struct disk_shape shape;
};

/* On the way down a chain of images: one for each, on the stack of its open. */
struct disk_opener {
    const struct disk_options *options; /* borrowed: of the image at the top */
    const struct disk_opener *parent;   /* borrowed: the image that names this one; NULL at the top */
    struct stat file;                   /* which file this one is */
    unsigned depth;                     /* 0 at the top */
    bool leaves_out;                    /* what images name is left out: only metadata are looked at */
};

/* The format's name, "raw" say; "" for VIAL_DISK_UNSET. */
const char *disk_format_name(enum vial_disk_format format);
bool disk_format_is_known(enum vial_disk_format format);

/* disk_open with an opener of one's own, in which options, parent, depth and leaves_out are set. */
int disk_open_from(struct disk_opener *opener, const char *path, enum vial_disk_format format, bool read_only,
                   struct disk **ret_disk, struct vial_error *err);

/* Opens an image and none of the files that it names; they are there, endless, and cannot be read. */
int disk_open_alone(const char *path, enum vial_disk_format format, bool read_only, struct disk **ret_disk,
                    struct vial_error *err);

/* The image in a file that is open for reading and writing, and may have no name yet: the descriptor is duplicated,
 * `path` is for messages. Its maker locks it, if anybody could find it. */
int disk_open_fd(int fd, const char *path, enum vial_disk_format format, struct disk **ret_disk,
                 struct vial_error *err);

/* A disk that nobody may read, in place of one that was left out. */
int disk_new_absent(struct disk **ret_disk);

/* The file below `folder_of`'s folder that a relative name leads to, in new memory; an absolute name as it is. */
char *disk_resolve(const char *folder_of, const char *name);

#endif
