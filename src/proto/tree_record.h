// SPDX-License-Identifier: Apache-2.0
/* The records of a tree's stream (tree.h), for its reader and its writer. */
#ifndef PROTO_TREE_RECORD_H
#define PROTO_TREE_RECORD_H

#include "proto/tree.h"

enum tree_kind {
    TREE_FILE = 1,
    TREE_BYTES = 2,
    TREE_END = 3,
};

enum {
    TREE_HEADER_BYTES = 8,
    TREE_OFFSET_BYTES = 8, /* which the body of BYTES begins with */
    TREE_MOST_PATH_BYTES = 4095,
    TREE_MOST_NAME_BYTES = 255,
};

/* Bytes of the record, without a NUL inside or behind. */
struct tree_text {
    const char *bytes;
    size_t length;
};

struct tree_file {
    struct tree_text path; /* empty: the top */
    uint32_t mode;         /* st_mode: a folder, a regular file, a link or a fifo */
    uint32_t uid, gid;
    uint64_t size; /* of a regular file that has no earlier name, else 0 */
    int64_t mtime_s;
    uint32_t mtime_ns;
    struct tree_text link; /* of a symbolic link that has no earlier name, else empty */
    struct tree_text same; /* the earlier path that this is another name of, or empty */
};

/* The whole record: its length, or -ENAMETOOLONG where a path or link is too long, -EPROTO for what cannot be said. */
long tree_encode_file(const struct tree_file *file, uint8_t bytes[TREE_HEADER_BYTES + TREE_MOST_RECORD_BYTES]);

void tree_put_header(uint8_t bytes[TREE_HEADER_BYTES], enum tree_kind kind, size_t body_bytes);
void tree_put_offset(uint8_t bytes[TREE_OFFSET_BYTES], uint64_t offset);

/* 0 or -EPROTO. The texts of a file point into the body. */
int tree_decode_header(const uint8_t bytes[TREE_HEADER_BYTES], enum tree_kind *ret_kind, size_t *ret_body_bytes);
int tree_decode_file(const uint8_t *body, size_t length, struct tree_file *ret_file);
uint64_t tree_get_offset(const uint8_t bytes[TREE_OFFSET_BYTES]);

/* Whether it can be the name of a tree's top, or is empty. */
bool tree_is_top_name(const char *name);

/* The length of a path's folder: 0 for the top, and for what lies in it. */
size_t tree_folder_length(const struct tree_text *path);

#endif
