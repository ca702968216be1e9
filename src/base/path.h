// SPDX-License-Identifier: Apache-2.0
/* Paths as text: a guest's paths, which the host must compare without having the guest's file system. */
#ifndef BASE_PATH_H
#define BASE_PATH_H

#include <stdbool.h>

/* An absolute path in its shortest form ("/app/./data//" is "/app/data"), in new memory. 0, -EINVAL when it is not
 * absolute, -EXDEV when ".." climbs above the root, -ENOMEM. Symbolic links play no part. */
int path_normalize(const char *path, char **ret_normal);

/* Whether one normalized path is the other or lies inside it. */
bool path_overlaps(const char *a, const char *b);

#endif
