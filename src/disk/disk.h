// SPDX-License-Identifier: Apache-2.0
/* A disk image, whatever its format.
 *
 * Two ways to its bytes. The fast one asks where they lie (disk_map: never waits) and leaves the reading and writing to
 * the caller, who can have as much of it in flight as he likes. The sure one does it (disk_read, disk_write, …: may
 * wait, on any thread): for what the map cannot tell, such as a cluster that has to be allocated, copied or unpacked.
 *
 *     raw       every byte lies where it lies
 *     qcow2     tables in the file say where, and grow as the guest writes
 *     vmdk      read only: extents of several files, or grains that tables find
 *
 * Formats are the caller's word. Nothing here ever looks at an image to find out what it is.
 */
#ifndef DISK_DISK_H
#define DISK_DISK_H

#include "vial/vmm.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct disk;

/* A file that an image may name as what lies under it, and how it is to be read. Nothing else is opened. */
struct disk_backing {
    const char *path; /* as the image names it, or the path that name leads to from the image's folder */
    enum vial_disk_format format;
};

struct disk_options {
    const char *path;
    enum vial_disk_format format;
    bool read_only;
    bool direct_io;                     /* O_DIRECT */
    const struct disk_backing *backing; /* allowed by name; images under images included */
    size_t backing_count;
};

/* Opens an image, and locks it against other writers of ours and QEMU's as long as it is open. What is wrong with it is
 * said in `err`; nothing of it has changed then. */
int disk_open(const struct disk_options *options, struct disk **ret_disk, struct vial_error *err);

/* Writes back what is not in the file yet (without forcing it to the medium: disk_flush), and closes. disk_free does
 * the same and tells nobody how it went; it accepts NULL and returns NULL. */
int disk_close(struct disk *disk, struct vial_error *err);
struct disk *disk_free(struct disk *disk);

struct disk_properties {
    enum vial_disk_format format;
    uint64_t size_bytes;      /* what the guest sees; a multiple of 512 */
    uint32_t alignment_bytes; /* of offsets, lengths and memory of mapped reads and writes: 1 without O_DIRECT */
    uint32_t best_bytes;      /* reads and writes are best in multiples of this: a cluster, or a host block */
    bool is_read_only;
    bool can_discard;        /* giving space back does something */
    bool discard_moves_data; /* disk_discard and disk_zero end what disk_map has told: none may be in flight */
};
void disk_describe(const struct disk *disk, struct disk_properties *ret_properties);

/* ---- where bytes lie ---- */

enum disk_extent_kind {
    DISK_EXTENT_FILE, /* at `offset` of `fd` */
    DISK_EXTENT_ZERO, /* zeros, and nothing is stored (reading only) */
};

struct disk_extent {
    enum disk_extent_kind kind;
    int fd;          /* borrowed; lives as long as the disk */
    uint64_t offset; /* in the file */
    uint64_t length; /* how many of the bytes asked for: at least 1 */
};

/* Where the bytes [offset, offset + length) of the disk lie, from the first of them on: 0. -EAGAIN: that cannot be told
 * without waiting, or there is something to be done first; use disk_read or disk_write. Never waits; on any thread.
 * The range lies within the disk, and `for_writing` is never asked of a disk that is read only. What was told holds
 * until the disk closes, or until disk_discard or disk_zero where discard_moves_data says so. */
int disk_map(struct disk *disk, uint64_t offset, uint64_t length, bool for_writing, struct disk_extent *ret_extent);

/* The descriptor on which fdatasync is all that a flush takes right now, or -1: then disk_flush has more to do. Never
 * waits; on any thread. */
int disk_sync_fd(struct disk *disk);

/* ---- doing it: may wait; on any thread, on several at once; 0 or -errno ----
 * All of the range is done, or the error tells that some of it was not. -EINVAL outside the disk, -EROFS where it is
 * read only, -EIO for an image that is broken there (it is marked so, and not made worse). */
int disk_read(struct disk *disk, const struct iovec *parts, int count, uint64_t offset);
int disk_write(struct disk *disk, const struct iovec *parts, int count, uint64_t offset);

/* Everything written before, by disk_write or where disk_map said, is on the medium when this returns. */
int disk_flush(struct disk *disk);

/* The guest does not need these bytes any more: space goes back to the host where whole blocks are concerned. Whoever
 * reads them next finds zeros or what was there. -EOPNOTSUPP where nothing can be done. */
int disk_discard(struct disk *disk, uint64_t offset, uint64_t length);

/* Zeros from now on; where it `may_unmap`, without storing them if possible. */
int disk_zero(struct disk *disk, uint64_t offset, uint64_t length, bool may_unmap);

/* Whether the bytes from `offset` on are stored, and how far that holds (at most `length`): for copying without
 * reading holes. */
int disk_status(struct disk *disk, uint64_t offset, uint64_t length, bool *ret_is_zero, uint64_t *ret_length);

/* Another size. Growing adds zeros; shrinking takes what lies beyond, and is refused unless `may_shrink`. Nobody else
 * uses the disk meanwhile. */
int disk_resize(struct disk *disk, uint64_t size_bytes, bool may_shrink, struct vial_error *err);

#endif
