// SPDX-License-Identifier: Apache-2.0
/* Files with several names, so that a tree's reader sends their bytes once: from device and inode number to the path
 * under which the file was sent first. */
#ifndef PROTO_TREE_LINKS_H
#define PROTO_TREE_LINKS_H

#include <stddef.h>
#include <sys/stat.h>

struct tree_link;

struct tree_links {
    struct tree_link **buckets; /* owned; a power of two of them, or none yet */
    size_t bucket_count, count;
    struct tree_link *met; /* owned; whose last name was met by the last call */
};

/* The path of an earlier name of that file, which has several, or "" when this is the first: it is remembered, if there
 * is room. The path stays until the next call. NULL: no memory. */
const char *tree_links_meet(struct tree_links *links, const struct stat *status, const char *path, size_t length);

void tree_links_free(struct tree_links *links);

#endif
