// SPDX-License-Identifier: Apache-2.0
/* Bytes of a file into guest memory, without copying where pages line up.
 *
 *     file      ├──┬────────────────┬─┤        offset and guest address have the same place in their pages:
 *     memory    ├──┴────────────────┴─┤        the middle is mapped, the ragged ends are read
 *               read     view      read
 *
 * A kernel of 12 MiB is so neither read nor copied before its first instruction, and what machines do not write is one
 * page cache for all of them. Where pages do not line up, or the file cannot be mapped, all of it is read.
 *
 * Invariants: (1) nothing is written outside of the span that was asked for: a page is only replaced when all of it
 * belongs to that span. (2) a file that is too short is an error, never a mapping beyond its end.
 *
 * Trust: offsets and lengths may come from a hostile image. The file must not be cut while a machine runs (mem/memory.h
 * says what that would do); whoever may write the kernel image of a machine owns the machine.
 */
#include "boot/place.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

enum { page_bytes = 4096 };

uint64_t place_low_end(const struct memory *memory)
{
    const struct memory_region *first = memory_region(memory, 0);
    return first != NULL && first->guest == 0 ? first->size_bytes : 0;
}

int place_file_size(int fd, uint64_t *ret_size, struct boot_reason *reason)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return -errno;
    if (!S_ISREG(status.st_mode))
        return reason_set(reason, "it is not a regular file");
    if (status.st_size <= 0)
        return reason_set(reason, "it is empty");
    *ret_size = (uint64_t)status.st_size;
    return 0;
}

int place_read(int fd, void *bytes, uint64_t length, uint64_t offset, struct boot_reason *reason)
{
    uint8_t *next = bytes;
    while (length > 0) {
        ssize_t got = offset <= INT64_MAX ? pread(fd, next, length, (off_t)offset) : 0;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            return reason_set(reason, "it is truncated");
        next += got;
        offset += (uint64_t)got;
        length -= (uint64_t)got;
    }
    return 0;
}

static int read_part(int fd, uint64_t offset, uint64_t length, const struct memory *memory, uint64_t guest,
                     struct boot_reason *reason)
{
    if (length == 0)
        return 0;
    void *target = memory_span(memory, guest, length);
    return target != NULL ? place_read(fd, target, length, offset, reason) : -EFAULT;
}

/* What memory_overlay answers before it has touched anything: read instead. */
static bool can_be_read_instead(int result)
{
    return result == -EINVAL || result == -EFBIG || result == -ENODEV || result == -EACCES;
}

int place_file(int fd, uint64_t offset, uint64_t length, const struct memory *memory, uint64_t guest,
               struct boot_reason *reason)
{
    uint64_t head = -guest % page_bytes;
    if (offset % page_bytes != guest % page_bytes || length < head + page_bytes)
        return read_part(fd, offset, length, memory, guest, reason);
    uint64_t tail = (length - head) % page_bytes, middle = length - head - tail;
    int result = read_part(fd, offset, head, memory, guest, reason); /* first: an offset that would wrap ends here */
    if (result < 0)
        return result;
    result = memory_overlay(memory, guest + head, middle, fd, offset + head);
    if (can_be_read_instead(result))
        return read_part(fd, offset, length, memory, guest, reason);
    if (result == 0)
        result = read_part(fd, offset + head + middle, tail, memory, guest + head + middle, reason);
    return result;
}
