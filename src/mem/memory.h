// SPDX-License-Identifier: Apache-2.0
/* Guest memory: the only place that turns a guest address into a host pointer.
 *
 * A span is a piece of guest memory that lies in one region, as a host pointer and a length. The guest writes to it
 * while we read: copy what you are going to check, once, and use the copy.
 */
#ifndef MEM_MEMORY_H
#define MEM_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct memory;

/* Where RAM must not be: devices, interrupt controllers and firmware live between 3.25 GiB and 4 GiB. */
#define MEMORY_GAP_START UINT64_C(0xd0000000)
#define MEMORY_GAP_END UINT64_C(0x100000000)

struct memory_region {
    uint64_t guest; /* first guest-physical address */
    uint64_t size_bytes;
    uint8_t *host;
    int fd;          /* borrowed from the memory */
    uint64_t offset; /* of `host` in the file */
};

/* RAM of a machine of our own: one memfd, sealed against resizing, mapped shared, split around the gap. The size is a
 * multiple of 4 KiB. Nothing is touched yet: pages come when the guest uses them. -EINVAL for a wrong size, -EFBIG
 * above the process's limit of file sizes (ulimit -f). */
int memory_new(uint64_t size_bytes, bool wants_huge_pages, struct memory **ret_memory);

/* Memory that belongs to somebody else (a vhost-user front end): starts empty. */
int memory_new_empty(struct memory **ret_memory);

/* Adds a region of a file. The descriptor is duplicated; forked children do not get the mapping. -EINVAL for a size of
 * 0, an overflow, or pages that are not aligned; -EEXIST where it would overlap another region; -E2BIG beyond
 * MEMORY_MOST_REGIONS; -EFBIG where the file is shorter than the region (touching what is not there would kill us). */
enum { MEMORY_MOST_REGIONS = 64 };
int memory_add(struct memory *memory, uint64_t guest, uint64_t size_bytes, int fd, uint64_t offset);

/* Replaces whole pages of guest memory by a private copy-on-write view of a file, which must be open for reading:
 * the guest sees the file's bytes without anybody having read them, what it writes stays its own, and what it does
 * not write is one page cache for all machines that use the file.
 *
 * What follows from that: (1) these pages are no longer the region's file. A process that shares this memory by
 * descriptor sees the old pages there. (2) a change of the file in place shows in guest memory, and a cut of it
 * makes touching the pages fatal: the file has to be replaced by rename(2), as package managers do.
 *
 * Not to be called while something uses these pages. Before anything has changed: -EINVAL for a length of 0 or pages
 * that are not aligned, -EFAULT unless all of it lies in one region, -EFBIG beyond the end of the file, -ENODEV for
 * what is not a regular file or cannot be mapped, -EACCES when it is not open for reading. Any other -errno
 * (-ENOMEM, -EAGAIN) may leave these pages unmapped: the memory can only be freed then. */
int memory_overlay(const struct memory *memory, uint64_t guest, uint64_t length, int fd, uint64_t offset);

struct memory *memory_free(struct memory *memory);

size_t memory_region_count(const struct memory *memory);
const struct memory_region *memory_region(const struct memory *memory, size_t index);

/* The host address of [guest, guest + length), or NULL unless all of it lies in one region. A length of 0 is NULL. */
void *memory_span(const struct memory *memory, uint64_t guest, uint64_t length);

/* The host address of `guest`, and in *length how much of it lies in that region without a break (at most what *length
 * asked for, at least 1 byte). NULL outside all regions or for a length of 0. For buffers that a front end may have
 * spread over adjacent regions. */
void *memory_span_begin(const struct memory *memory, uint64_t guest, uint64_t *length);

/* Copies: 0, or -EFAULT without having copied anything unless all of it lies in one region. A length of 0 is 0. */
int memory_read(const struct memory *memory, uint64_t guest, void *bytes, size_t length);
int memory_write(const struct memory *memory, uint64_t guest, const void *bytes, size_t length);

/* Gives whole pages back to the host; they can be touched again at any time, and then cost memory again. What they hold
 * afterwards is undefined: zeros, or what the file says where a private view of one lies over RAM. That file is never
 * changed. 0; -EINVAL for a length of 0 or what is not whole pages; -EFAULT unless all of it is RAM, with nothing given
 * back; or -errno of a host that cannot. */
int memory_discard(const struct memory *memory, uint64_t guest, uint64_t length);

/* The same for a span that this memory handed out. */
int memory_discard_span(const struct memory *memory, void *span, uint64_t length);

#endif
