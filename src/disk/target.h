// SPDX-License-Identifier: Apache-2.0
/* A file that appears under its name when it is whole, and not before. */
#ifndef DISK_TARGET_H
#define DISK_TARGET_H

#include "vial/base.h"

#include <stdbool.h>

struct image_target {
    const char *path; /* borrowed */
    const char *name; /* borrowed: within the path */
    int folder_fd;    /* owned */
    int fd;           /* owned: open for reading and writing, empty at first */
    int replaced_fd;  /* owned: of the file whose place it takes, locked; -1 when there is none */
    bool replaces;
    char hidden[40]; /* its name until then; "" when it has none */
};

/* Makes the file. It has no name, or where a file system cannot do that, a hidden one in the same folder. -EEXIST when
 * there is a file of that name and it is not to be replaced. */
int image_target_begin(struct image_target *target, const char *path, bool replaces, struct vial_error *err);

/* Forces it to the medium and gives it its name, durably. Ends the target, as does a failure. */
int image_target_finish(struct image_target *target, struct vial_error *err);

/* Leaves nothing behind. */
void image_target_drop(struct image_target *target);

#endif
