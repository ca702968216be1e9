// SPDX-License-Identifier: Apache-2.0
/* The parts of a VMDK disk: the descriptor, and sparse extents. */
#ifndef DISK_VMDK_H
#define DISK_VMDK_H

#include "disk/file.h"
#include "disk/image.h"

#include <pthread.h>

enum { VMDK_SECTOR_BYTES = 512 };

/* ---- the descriptor (vmdk_descriptor.c) ---- */

enum vmdk_access {
    VMDK_READ_WRITE,
    VMDK_READ_ONLY,
    VMDK_NO_ACCESS,
};

enum vmdk_kind {
    VMDK_FLAT,
    VMDK_SPARSE,
    VMDK_ZERO,
};

/* One line that describes an extent. */
struct vmdk_line {
    enum vmdk_access access;
    enum vmdk_kind kind;
    uint64_t sectors; /* at least 1 */
    uint64_t offset;  /* of a flat one, in its file: as written, which is in sectors */
    char *name;       /* owned; NULL for zeros */
};

struct vmdk_descriptor {
    char create_type[32];
    struct vmdk_line *lines; /* owned */
    size_t count, capacity;
    uint64_t sectors; /* of all lines; their bytes fit an int64_t */
};

/* Reads a descriptor, up to its first NUL. `path` is for messages. On failure there is nothing to free. */
int vmdk_descriptor_parse(const char *path, const char *text, size_t length, struct vmdk_descriptor *ret_descriptor,
                          struct vial_error *err);
void vmdk_descriptor_free(struct vmdk_descriptor *descriptor);

/* ---- sparse extents (vmdk_sparse.c) ---- */

/* Tables and one unpacked grain, shared by the extents of a disk. */
struct vmdk_cache;
struct vmdk_cache *vmdk_cache_new(uint64_t table_count);
struct vmdk_cache *vmdk_cache_free(struct vmdk_cache *cache);

struct vmdk_sparse {
    const struct disk_file *file; /* borrowed */
    struct vmdk_cache *cache;     /* borrowed */
    uint32_t *directory;          /* owned: the sector of each table, or 0 */
    uint64_t table_count;
    uint64_t first_table; /* the number of its first table in the cache */
    uint64_t capacity_sectors;
    uint64_t grain_bytes;
    uint64_t descriptor_sector, descriptor_sectors; /* of an embedded descriptor; 0 without */
    uint32_t table_entries;
    bool has_zero_grains, is_compressed, has_markers;
};

/* Whether a file begins like a sparse extent: 1, 0 or -errno. */
int vmdk_sparse_probe(const struct disk_file *file);

/* Reads the header and the directory, of at most `most_directory_bytes`. On failure there is nothing to free. */
int vmdk_sparse_open(const struct disk_file *file, uint64_t most_directory_bytes, struct vmdk_sparse *ret_sparse,
                     struct vial_error *err);
void vmdk_sparse_close(struct vmdk_sparse *sparse);

enum vmdk_place_kind {
    VMDK_PLACE_ZERO,
    VMDK_PLACE_FILE,   /* at `offset` of the file */
    VMDK_PLACE_PACKED, /* a compressed grain begins there */
};

struct vmdk_place {
    enum vmdk_place_kind kind;
    uint64_t offset;
    uint64_t length; /* for which this holds, at least 1; within one grain when it is packed */
};

/* Where the bytes from `offset` on lie, of the extent. Without `may_wait`, -EAGAIN when its table is not in memory or
 * the cache is busy. -EIO where a table points nowhere. */
int vmdk_sparse_find(struct vmdk_sparse *sparse, uint64_t offset, uint64_t length, bool may_wait,
                     struct vmdk_place *ret_place);

/* All of the piece, from `offset` of the extent on. */
int vmdk_sparse_read(struct vmdk_sparse *sparse, const struct parts *parts, uint64_t offset);

/* ---- the disk (vmdk.c) ---- */

void vmdk_info(const void *state, struct image_info *ret_info);

#endif
