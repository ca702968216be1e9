// SPDX-License-Identifier: Apache-2.0
/* Raw images: every byte of the disk lies in the file where it lies in the disk.
 *
 *     file   |########## ######### ####|          data and holes; 1000 bytes, say
 *     disk   |#########################00|        1024: a last sector that the file holds a part of ends in zeros
 *
 * A file that is no whole number of sectors is a disk with one more sector: losing the end would be worse. The map does
 * not tell of that sector; reading it fills in the zeros, and writing it makes the file that long.
 *
 * Invariants: (1) the map leaves out what the file does not hold whole, or O_DIRECT could not reach. (2) once a flush
 * has failed, all that follow fail: the kernel reports a lost write once, and to one of those who ask.
 *
 * Trust: all of the content is the guest's. It is never looked at.
 */
#include "disk/format.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/log.h"
#include "disk/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { sector_bytes = 512, zero_chunk_bytes = 1 << 20 };

struct raw {
    struct disk_file file; /* its descriptor is borrowed from disk.c */
    uint64_t size_bytes;   /* of the disk: the file's, rounded up */
    atomic_ullong held;    /* of the file, of which the end may be within the last sector until that is written */
    atomic_int sync_error; /* of the first flush that failed */
};

/* ---- where bytes lie ---- */

static int raw_map(void *state, uint64_t offset, uint64_t length, bool for_writing, struct disk_extent *ret_extent)
{
    struct raw *raw = state;
    uint64_t granule = raw->file.alignment_bytes > sector_bytes ? raw->file.alignment_bytes : sector_bytes;
    uint64_t end = atomic_load(&raw->held) & ~(granule - 1);
    (void)for_writing;
    if (offset >= end || (offset & (raw->file.alignment_bytes - 1)) != 0)
        return -EAGAIN;
    if (length > end - offset)
        length = end - offset;
    length &= ~(uint64_t)(raw->file.alignment_bytes - 1);
    if (length == 0)
        return -EAGAIN;
    *ret_extent = (struct disk_extent){DISK_EXTENT_FILE, raw->file.fd, offset, length};
    return 0;
}

static int raw_sync_fd(void *state)
{
    struct raw *raw = state;
    return atomic_load(&raw->sync_error) == 0 ? raw->file.fd : -1;
}

static int raw_status(void *state, uint64_t offset, uint64_t length, bool *ret_is_zero, uint64_t *ret_length)
{
    const struct raw *raw = state;
    disk_file_status(&raw->file, offset, length, ret_is_zero, ret_length);
    return 0;
}

/* ---- reading and writing ---- */

static int raw_read(void *state, const struct iovec *list, int count, uint64_t offset)
{
    struct raw *raw = state;
    uint64_t length = 0, held = atomic_load(&raw->held);
    int result = parts_measure(list, count, &length);
    if (result < 0)
        return result;
    const struct parts whole = {list, count, 0, length};
    uint64_t stored = offset >= held ? 0 : length < held - offset ? length : held - offset;
    const struct parts front = parts_cut(&whole, 0, stored), tail = parts_cut(&whole, stored, length - stored);
    parts_fill_zero(&tail);
    return disk_file_read(&raw->file, &front, offset);
}

static void note_end(struct raw *raw, uint64_t end)
{
    unsigned long long held = atomic_load(&raw->held);
    while (held < end && !atomic_compare_exchange_weak(&raw->held, &held, end))
        ;
}

static int raw_write(void *state, const struct iovec *list, int count, uint64_t offset)
{
    struct raw *raw = state;
    uint64_t length = 0;
    int result = parts_measure(list, count, &length);
    if (result < 0)
        return result;
    const struct parts whole = {list, count, 0, length};
    result = disk_file_write(&raw->file, &whole, offset);
    if (result == 0)
        note_end(raw, offset + length);
    return result;
}

static int raw_flush(void *state)
{
    struct raw *raw = state;
    int before = atomic_load(&raw->sync_error);
    if (before != 0 || raw->file.is_read_only)
        return before;
    if (fdatasync(raw->file.fd) == 0)
        return 0;
    int result = -errno, none = 0;
    if (atomic_compare_exchange_strong(&raw->sync_error, &none, result))
        log_error("disk.flush_failed", LOG_TEXT("path", raw->file.path), LOG_ERRNO(result));
    return result;
}

/* ---- giving back and clearing ---- */

static int punch(const struct raw *raw, int mode, uint64_t offset, uint64_t length)
{
    int result = 0;
    do
        result = fallocate(raw->file.fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length);
    while (result < 0 && errno == EINTR);
    if (result == 0)
        return 0;
    return errno == ENOSYS || errno == ENODEV ? -EOPNOTSUPP : -errno;
}

static int raw_discard(void *state, uint64_t offset, uint64_t length)
{
    struct raw *raw = state;
    uint64_t end = offset + length;
    if (!raw->file.is_device)
        return punch(raw, FALLOC_FL_PUNCH_HOLE, offset, length);
    int block = 0; /* whole ones only; what is left of the others may stay (disk_discard) */
    if (ioctl(raw->file.fd, BLKSSZGET, &block) < 0 || block <= 0)
        return -EOPNOTSUPP;
    offset = (offset + (uint64_t)block - 1) / (uint64_t)block * (uint64_t)block;
    end -= end % (uint64_t)block;
    uint64_t range[2] = {offset, end - offset};
    if (offset >= end)
        return 0;
    if (ioctl(raw->file.fd, BLKDISCARD, range) == 0)
        return 0;
    return errno == EOPNOTSUPP ? -EOPNOTSUPP : -errno;
}

static int write_zeros(const struct raw *raw, uint64_t offset, uint64_t length)
{
    uint64_t alignment = raw->file.alignment_bytes;
    auto_free uint8_t *memory = alloc_zero((size_t)(zero_chunk_bytes + alignment));
    if (memory == NULL)
        return -ENOMEM;
    uint8_t *zeros = memory + (-(uintptr_t)memory & (alignment - 1));
    for (uint64_t done = 0; done < length;) {
        uint64_t step = length - done < zero_chunk_bytes ? length - done : zero_chunk_bytes;
        struct iovec chunk = {zeros, (size_t)step};
        const struct parts parts = {&chunk, 1, 0, step};
        int result = disk_file_write(&raw->file, &parts, offset + done);
        if (result < 0)
            return result;
        done += step;
    }
    return 0;
}

/* The ways to zeros, the best one first. On a device, punching is zeroing with what the device has for it. */
static int zero_blocks(const struct raw *raw, uint64_t offset, uint64_t length, bool may_unmap)
{
    int result = may_unmap ? punch(raw, FALLOC_FL_PUNCH_HOLE, offset, length) : -EOPNOTSUPP;
    if (result < 0)
        result = punch(raw, FALLOC_FL_ZERO_RANGE, offset, length);
    return result == -EOPNOTSUPP || result == -EINVAL ? write_zeros(raw, offset, length) : result;
}

/* A part of a block that O_DIRECT writes whole is written, and takes its turn with other such parts (file.c): were it
 * punched, a write next to it that has read the block before would bring back what was there. */
static int raw_zero(void *state, uint64_t offset, uint64_t length, bool may_unmap)
{
    const struct raw *raw = state;
    uint64_t held = atomic_load(&raw->held), mask = raw->file.alignment_bytes - 1;
    if (offset >= held)
        return 0; /* the part of the last sector that the file does not hold */
    if (length > held - offset)
        length = held - offset;
    uint64_t end = offset + length, first = (offset + mask) & ~mask, behind = end & ~mask;
    if (first >= behind)
        return write_zeros(raw, offset, length);
    int result = offset < first ? write_zeros(raw, offset, first - offset) : 0;
    if (result == 0)
        result = zero_blocks(raw, first, behind - first, may_unmap);
    return result == 0 && behind < end ? write_zeros(raw, behind, end - behind) : result;
}

/* ---- size and life ---- */

static int raw_resize(void *state, uint64_t size_bytes, bool may_shrink, struct vial_error *err)
{
    struct raw *raw = state;
    (void)may_shrink; /* disk.c has asked */
    if (raw->file.is_device) {
        error_set(err, VIAL_ERROR_UNSUPPORTED, VIAL_PHASE_RUN, "%s is a device", error_short(raw->file.path).text);
        error_remedy(err, "resize it with the tools that made it, such as lvresize");
        return -ENOTSUP;
    }
    if (size_bytes % raw->file.alignment_bytes != 0)
        return error_set(err, VIAL_ERROR_OUT_OF_RANGE, VIAL_PHASE_RUN, "direct I/O needs a multiple of %u bytes",
                         raw->file.alignment_bytes);
    if (ftruncate(raw->file.fd, (off_t)size_bytes) < 0) {
        int result = error_set_os(err, VIAL_PHASE_RUN, errno, "cannot resize %s", error_short(raw->file.path).text);
        error_remedy(err, "check how large a file may be there (ulimit -f, the file system's limit)");
        return result;
    }
    raw->size_bytes = size_bytes;
    atomic_store(&raw->held, size_bytes);
    return 0;
}

static int raw_close(void *state, struct vial_error *err)
{
    (void)err;
    free(state);
    return 0;
}

static const struct disk_ops raw_ops = {
    .name = "raw",
    .map = raw_map,
    .sync_fd = raw_sync_fd,
    .read = raw_read,
    .write = raw_write,
    .flush = raw_flush,
    .discard = raw_discard,
    .zero = raw_zero,
    .status = raw_status,
    .resize = raw_resize,
    .close = raw_close,
};

/* What the host reads and writes whole. */
static uint32_t find_best(const struct disk_file *file)
{
    struct stat about;
    if (fstat(file->fd, &about) < 0 || about.st_blksize < sector_bytes || about.st_blksize > 1 << 20 ||
        (about.st_blksize & (about.st_blksize - 1)) != 0)
        return 4096;
    return (uint32_t)about.st_blksize;
}

int raw_open(const struct disk_file *file, struct disk_opener *opener, struct disk_shape *ret_shape,
             struct vial_error *err)
{
    (void)opener;
    if (file->size_bytes > INT64_MAX - sector_bytes)
        return error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_START, "%s is too large", error_short(file->path).text);
    if (!file->is_read_only && file->size_bytes % file->alignment_bytes != 0) {
        int result = error_set(err, VIAL_ERROR_CONFLICT, VIAL_PHASE_START,
                               "%s has %llu bytes; direct I/O writes multiples of %u", error_short(file->path).text,
                               (unsigned long long)file->size_bytes, file->alignment_bytes);
        error_remedy(err, "resize it (vial disk resize), or leave direct I/O out");
        return result;
    }
    struct raw *raw = alloc_zero(sizeof(*raw));
    if (raw == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    raw->file = *file;
    raw->size_bytes = (file->size_bytes + sector_bytes - 1) & ~(uint64_t)(sector_bytes - 1);
    atomic_init(&raw->held, file->size_bytes);
    ret_shape->ops = &raw_ops;
    ret_shape->state = raw;
    ret_shape->properties = (struct disk_properties){.size_bytes = raw->size_bytes,
                                                     .alignment_bytes = file->alignment_bytes,
                                                     .best_bytes = find_best(file),
                                                     .is_read_only = file->is_read_only,
                                                     .can_discard = !file->is_read_only};
    return 0;
}
