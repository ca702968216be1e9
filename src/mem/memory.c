// SPDX-License-Identifier: Apache-2.0
/* Guest memory: the only place that turns a guest address into a host pointer.
 *
 * A machine's RAM is one memfd, so that other processes (a vhost-user back end, user-mode Linux) can share it by
 * descriptor. It is sealed against resizing: nobody who holds it can shrink it under our feet and have us killed by
 * SIGBUS. A file that comes from somebody else cannot be sealed by us, but its size is checked when it is mapped.
 *
 *     0           RAM          0xd0000000   gap   4 GiB          RAM            windows
 *     ├────────────────────────┤             ├──────────────────────────┤
 *
 * A kernel image need not be copied into it: memory_overlay puts a private view of the image's file over some pages.
 *
 * Every look-up is a bounds check against a handful of regions. The check is on differences, never on sums of what a
 * guest says, so nothing can wrap:
 *
 *     guest - start < size   and   length <= size - (guest - start)
 *
 * Pages that the guest does not need go back to the host by a hole in the region's file: the mapping is shared, so to
 * drop them from the mapping alone would leave them in the file. The hole keeps the file's size, which the seals allow.
 * Parts of RAM may be covered by private views of other files. There the hole opens in our file below the view, where
 * nobody looks, and the view's own pages are dropped from the mapping; the other file is only ever read.
 *
 * Invariants: (1) regions are sorted, do not overlap, and do not change while a device may look them up. (2) a span
 * that is handed out lies wholly in mapped memory. (3) no arithmetic on a guest's numbers can overflow.
 *
 * Trust: addresses and lengths come from a hostile guest; regions of memory_add from a hostile front end.
 */
#include "mem/memory.h"

#include "base/alloc.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { page_bytes = 4096 };

struct memory {
    struct memory_region regions[MEMORY_MOST_REGIONS]; /* sorted; fds and mappings owned */
    size_t count;
};

int memory_new_empty(struct memory **ret_memory)
{
    struct memory *memory = alloc_zero(sizeof(*memory));
    if (memory == NULL)
        return -ENOMEM;
    *ret_memory = memory;
    return 0;
}

struct memory *memory_free(struct memory *memory)
{
    if (memory == NULL)
        return NULL;
    for (size_t i = 0; i < memory->count; i++) {
        munmap(memory->regions[i].host, memory->regions[i].size_bytes);
        fd_close(memory->regions[i].fd);
    }
    free(memory);
    return NULL;
}

size_t memory_region_count(const struct memory *memory)
{
    return memory->count;
}

const struct memory_region *memory_region(const struct memory *memory, size_t index)
{
    return index < memory->count ? &memory->regions[index] : NULL;
}

/* Where the region goes in the sorted table: 0 or -EEXIST when it overlaps a neighbour. */
static int find_place(const struct memory *memory, uint64_t guest, uint64_t size_bytes, size_t *ret_place)
{
    size_t place = 0;
    while (place < memory->count && memory->regions[place].guest < guest)
        place++;
    const struct memory_region *before = place > 0 ? &memory->regions[place - 1] : NULL;
    const struct memory_region *after = place < memory->count ? &memory->regions[place] : NULL;
    if (before != NULL && guest - before->guest < before->size_bytes)
        return -EEXIST;
    if (after != NULL && after->guest - guest < size_bytes)
        return -EEXIST;
    *ret_place = place;
    return 0;
}

static int check_region(const struct memory *memory, uint64_t guest, uint64_t size_bytes, int fd, uint64_t offset)
{
    struct stat status;
    uint64_t end = 0;
    if (size_bytes == 0 || (guest | size_bytes | offset) % page_bytes != 0)
        return -EINVAL;
    if (__builtin_add_overflow(guest, size_bytes, &end) || __builtin_add_overflow(offset, size_bytes, &end) ||
        end > INT64_MAX)
        return -EINVAL;
    if (memory->count == MEMORY_MOST_REGIONS)
        return -E2BIG;
    if (fstat(fd, &status) < 0)
        return -errno;
    return (uint64_t)status.st_size < end ? -EFBIG : 0;
}

int memory_add(struct memory *memory, uint64_t guest, uint64_t size_bytes, int fd, uint64_t offset)
{
    size_t place = 0;
    int result = check_region(memory, guest, size_bytes, fd, offset);
    if (result == 0)
        result = find_place(memory, guest, size_bytes, &place);
    if (result < 0)
        return result;
    auto_close int own_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (own_fd < 0)
        return -errno;
    void *host = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, own_fd, (off_t)offset);
    if (host == MAP_FAILED)
        return -errno;
    /* A child (a terminal's guardian, a fork of the embedding program) would keep the guest's pages when we let go. */
    madvise(host, size_bytes, MADV_DONTFORK);
    memmove(&memory->regions[place + 1], &memory->regions[place], (memory->count - place) * sizeof(memory->regions[0]));
    memory->regions[place] = (struct memory_region){
        .guest = guest,
        .size_bytes = size_bytes,
        .host = host,
        .fd = steal_fd(&own_fd),
        .offset = offset,
    };
    memory->count++;
    return 0;
}

/* A memfd of that size that nobody can resize. */
static int make_ram_file(uint64_t size_bytes)
{
    struct rlimit limit;
    /* Beyond the limit of file sizes, ftruncate would kill the embedding program by SIGXFSZ. */
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && size_bytes > limit.rlim_cur)
        return -EFBIG;
    auto_close int fd = memfd_create("vial-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)size_bytes) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return -errno;
    return steal_fd(&fd);
}

int memory_new(uint64_t size_bytes, bool wants_huge_pages, struct memory **ret_memory)
{
    if (size_bytes == 0 || size_bytes % page_bytes != 0 || size_bytes > INT64_MAX - MEMORY_GAP_END)
        return -EINVAL;
    auto_close int fd = make_ram_file(size_bytes);
    if (fd < 0)
        return fd;
    struct memory *memory = NULL;
    int result = memory_new_empty(&memory);
    if (result < 0)
        return result;
    uint64_t low_bytes = size_bytes < MEMORY_GAP_START ? size_bytes : MEMORY_GAP_START;
    result = memory_add(memory, 0, low_bytes, fd, 0);
    if (result == 0 && size_bytes > low_bytes)
        result = memory_add(memory, MEMORY_GAP_END, size_bytes - low_bytes, fd, low_bytes);
    if (result < 0) {
        memory_free(memory);
        return result;
    }
    for (size_t i = 0; i < memory->count; i++) {
        /* Both are advice: a host that refuses them still runs the guest. */
        madvise(memory->regions[i].host, memory->regions[i].size_bytes, MADV_DONTDUMP);
        if (wants_huge_pages)
            madvise(memory->regions[i].host, memory->regions[i].size_bytes, MADV_HUGEPAGE);
    }
    *ret_memory = memory;
    return 0;
}

static int check_overlay(uint64_t guest, uint64_t length, int fd, uint64_t offset)
{
    struct stat status;
    uint64_t end = 0;
    if (length == 0 || (guest | length | offset) % page_bytes != 0)
        return -EINVAL;
    if (fstat(fd, &status) < 0)
        return -errno;
    if (!S_ISREG(status.st_mode))
        return -ENODEV;
    return __builtin_add_overflow(offset, length, &end) || end > (uint64_t)status.st_size ? -EFBIG : 0;
}

int memory_overlay(const struct memory *memory, uint64_t guest, uint64_t length, int fd, uint64_t offset)
{
    int result = check_overlay(guest, length, fd, offset);
    if (result < 0)
        return result;
    void *target = memory_span(memory, guest, length);
    if (target == NULL)
        return -EFAULT;
    /* Mapped elsewhere and moved: a file system that refuses would otherwise leave a hole in the memory. */
    void *view = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, (off_t)offset);
    if (view == MAP_FAILED)
        return -errno;
    if (mremap(view, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, target) == MAP_FAILED) {
        int failure = -errno;
        munmap(view, length);
        return failure;
    }
    madvise(target, length, MADV_DONTDUMP); /* as the rest of the memory */
    madvise(target, length, MADV_DONTFORK);
    return 0;
}

void *memory_span_begin(const struct memory *memory, uint64_t guest, uint64_t *length)
{
    for (size_t i = 0; i<memory->count && * length> 0; i++) {
        const struct memory_region *region = &memory->regions[i];
        uint64_t inside = guest - region->guest; /* wraps to something large below the region */
        if (inside >= region->size_bytes)
            continue;
        if (*length > region->size_bytes - inside)
            *length = region->size_bytes - inside;
        return region->host + inside;
    }
    return NULL;
}

void *memory_span(const struct memory *memory, uint64_t guest, uint64_t length)
{
    uint64_t whole = length;
    void *span = memory_span_begin(memory, guest, &length);
    return length == whole ? span : NULL;
}

int memory_read(const struct memory *memory, uint64_t guest, void *bytes, size_t length)
{
    if (length == 0)
        return 0;
    const void *span = memory_span(memory, guest, length);
    if (span == NULL)
        return -EFAULT;
    memcpy(bytes, span, length);
    return 0;
}

int memory_write(const struct memory *memory, uint64_t guest, const void *bytes, size_t length)
{
    if (length == 0)
        return 0;
    void *span = memory_span(memory, guest, length);
    if (span == NULL)
        return -EFAULT;
    memcpy(span, bytes, length);
    return 0;
}

/* `inside` and `length` are whole pages of the region. */
static int discard_pages(const struct memory_region *region, uint64_t inside, uint64_t length)
{
    if (fallocate(region->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(region->offset + inside),
                  (off_t)length) < 0)
        return -errno;
    /* What is left in the mapping now are pages of private views. */
    return madvise(region->host + inside, length, MADV_DONTNEED) < 0 ? -errno : 0;
}

static bool is_all_memory(const struct memory *memory, uint64_t guest, uint64_t length)
{
    while (length > 0) {
        uint64_t part = length;
        if (memory_span_begin(memory, guest, &part) == NULL)
            return false;
        guest += part;
        length -= part;
    }
    return true;
}

int memory_discard(const struct memory *memory, uint64_t guest, uint64_t length)
{
    if (length == 0 || (guest | length) % page_bytes != 0)
        return -EINVAL;
    if (!is_all_memory(memory, guest, length))
        return -EFAULT;
    int result = 0;
    for (size_t i = 0; i < memory->count && length > 0 && result == 0; i++) {
        const struct memory_region *region = &memory->regions[i];
        uint64_t inside = guest - region->guest; /* wraps to something large below the region */
        if (inside >= region->size_bytes)
            continue;
        uint64_t part = length < region->size_bytes - inside ? length : region->size_bytes - inside;
        result = discard_pages(region, inside, part);
        guest += part;
        length -= part;
    }
    return result;
}

int memory_discard_span(const struct memory *memory, void *span, uint64_t length)
{
    if (length == 0 || ((uintptr_t)span | length) % page_bytes != 0)
        return -EINVAL;
    for (size_t i = 0; i < memory->count; i++) {
        const struct memory_region *region = &memory->regions[i];
        uint64_t inside = (uintptr_t)span - (uintptr_t)region->host; /* wraps as above */
        if (inside < region->size_bytes && length <= region->size_bytes - inside)
            return discard_pages(region, inside, length);
    }
    return -EFAULT;
}
