// SPDX-License-Identifier: Apache-2.0
/* Images as files: made, looked into, checked, copied. What `vial disk` does. */
#ifndef DISK_IMAGE_H
#define DISK_IMAGE_H

#include "disk/disk.h"

/* Long work tells how far it is, on the caller's thread: false ends it with -ECANCELED. */
typedef bool (*image_progress)(void *user, uint64_t done, uint64_t whole);

/* ---- making ---- */

enum image_preallocation {
    IMAGE_SPARSE = 0,
    IMAGE_METADATA = 1,  /* qcow2: every cluster has its place */
    IMAGE_FALLOCATE = 2, /* the host's space is reserved */
    IMAGE_FULL = 3,      /* and written with zeros */
};

enum image_compression {
    IMAGE_ZLIB = 0,
    IMAGE_ZSTD = 1,
};

struct image_create_options {
    const char *path;
    enum vial_disk_format format; /* raw or qcow2 */
    uint64_t size_bytes;          /* a multiple of 512; 0 with a backing file: its size */
    bool replaces;                /* an existing file; else -EEXIST */
    enum image_preallocation preallocation;
    /* qcow2: */
    uint32_t version;       /* 2 or 3; 0: 3 */
    uint32_t cluster_bytes; /* 512 to 2 MiB, a power of two; 0: 64 KiB */
    uint32_t refcount_bits; /* 1 to 64, a power of two; 0: 16 */
    bool lazy_refcounts;
    enum image_compression compression; /* of clusters that are written compressed */
    const char *backing_path;           /* or NULL; written into the image as it stands */
    enum vial_disk_format backing_format;
};

/* Makes the image under a name of its own and renames it into place, durably: it is there whole, or not at all. */
int image_create(const struct image_create_options *options, struct vial_error *err);

/* ---- looking ---- */

#define IMAGE_NAME_BYTES 1024

struct image_info {
    enum vial_disk_format format;
    uint64_t size_bytes;                 /* what a guest sees */
    uint64_t file_bytes;                 /* of the file */
    uint64_t allocated_bytes;            /* that the host stores for it */
    char backing_path[IMAGE_NAME_BYTES]; /* "" without */
    char backing_format[16];             /* as the image says; "" when it does not */
    /* qcow2: */
    uint32_t version, cluster_bytes, refcount_bits, snapshot_count;
    enum image_compression compression;
    bool lazy_refcounts, is_dirty, is_corrupt, has_external_data;
    /* vmdk: */
    char create_type[32];
    uint32_t extent_count;
};

int image_info(const char *path, enum vial_disk_format format, struct image_info *ret_info, struct vial_error *err);

/* ---- checking (qcow2; raw has nothing to check) ---- */

struct image_check {
    uint64_t clusters, allocated_clusters, compressed_clusters;
    uint64_t leaks;       /* clusters that nothing uses: space is lost, no data */
    uint64_t corruptions; /* two users of one cluster, entries that point nowhere: data is lost, or will be */
    uint64_t leaks_fixed, corruptions_fixed;
    uint64_t end_offset; /* of the last cluster in use */
};

enum image_repair {
    IMAGE_REPAIR_NONE = 0,
    IMAGE_REPAIR_LEAKS = 1,
    IMAGE_REPAIR_ALL = 2,
};

/* 0 when it could be checked, whatever was found. */
int image_check(const char *path, enum vial_disk_format format, enum image_repair repair, image_progress progress,
                void *user, struct image_check *ret_check, struct vial_error *err);

/* ---- copying ---- */

struct image_convert_options {
    struct disk_options source;
    struct image_create_options target; /* size_bytes 0: the source's */
    bool compresses;                    /* qcow2: every cluster */
};

int image_convert(const struct image_convert_options *options, image_progress progress, void *user,
                  struct vial_error *err);

/* ---- snapshots inside an image (qcow2), while nobody uses it ---- */

struct image_snapshot {
    char id[64], name[256];
    uint64_t disk_bytes;
    uint64_t vm_state_bytes;
    uint64_t seconds; /* since 1970 */
    uint32_t nanoseconds;
};

int image_snapshot_list(const char *path, struct image_snapshot **ret_snapshots, size_t *ret_count,
                        struct vial_error *err); /* in new memory that the caller frees */
int image_snapshot_create(const char *path, const char *name, struct vial_error *err);
int image_snapshot_apply(const char *path, const char *name, struct vial_error *err);
int image_snapshot_remove(const char *path, const char *name, struct vial_error *err);

#endif
