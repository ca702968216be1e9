// SPDX-License-Identifier: Apache-2.0
/* The files that images are made of.
 *
 * A path is looked at through an O_PATH descriptor first, which opens nothing, and is opened only when it leads to a
 * regular file or a block device; then it must still be the same file. Reading and writing are whole and at an offset,
 * from any thread.
 *
 * With O_DIRECT, offsets, lengths and addresses must be multiples of the file's alignment. What is not goes through a
 * buffer that is, block by block; a block of which only a part is written is read first, and no other write of that
 * kind happens meanwhile. (An aligned write may; but one that reaches such a block holds all of it, so the two overlap
 * and their order is the guest's business. Zeros for a part of a block come as a write, too: raw.c.) A guest is told
 * the alignment as the size of a physical block, so few requests get here.
 *
 * Invariants: (1) no fifo, socket, terminal or character device is ever opened, under whatever name. (2) a descriptor
 * that is handed out has a lock that fits how it was opened, and no O_NONBLOCK, which io_uring would take literally.
 * (3) a read that ends before the end of what was asked for is an error.
 *
 * Trust: paths are the user's, or names in an image, which then come with a folder that they cannot leave. Others on
 * the host may rename and truncate files while we use them.
 */
#include "disk/file.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { direct_fallback_bytes = 4096, transfer_entries = 64 };

/* ---- opening ---- */

static int open_at(const struct disk_file_request *request, int flags)
{
    if (request->folder_fd != AT_FDCWD)
        return fd_open_beneath(request->folder_fd, request->path, flags, 0, false);
    int fd = open(request->path, flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

bool disk_file_is_same(const struct stat *a, const struct stat *b)
{
    if (S_ISBLK(a->st_mode) && S_ISBLK(b->st_mode))
        return a->st_rdev == b->st_rdev;
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static int refuse_kind(const char *path, mode_t mode, bool in_folder, struct vial_error *err)
{
    const char *kind = S_ISDIR(mode)    ? "a folder"
                       : S_ISLNK(mode)  ? "a symbolic link"
                       : S_ISFIFO(mode) ? "a fifo"
                       : S_ISSOCK(mode) ? "a socket"
                       : S_ISCHR(mode)  ? "a character device"
                                        : "a device";
    int result = error_set(err, VIAL_ERROR_WRONG_KIND, VIAL_PHASE_START, "%s is %s, not %s", error_short(path).text,
                           kind, in_folder ? "a regular file" : "a regular file or a block device");
    error_remedy(err, "name the file that holds the disk");
    return result;
}

static int fail_open(const struct disk_file_request *request, int result, struct vial_error *err)
{
    if (result == -ELOOP && request->folder_fd != AT_FDCWD) {
        error_set(err, VIAL_ERROR_WRONG_KIND, VIAL_PHASE_START, "%s is a symbolic link",
                  error_short(request->path).text);
        error_remedy(err, "put the file itself in the folder: links out of it are not followed");
        return result;
    }
    error_set_os(err, VIAL_PHASE_START, result, "cannot open %s%s", error_short(request->path).text,
                 request->read_only ? "" : " for writing");
    if (result == -EINVAL && request->direct_io)
        error_remedy(err, "its file system knows no direct I/O: leave that out");
    else if (result == -EBUSY)
        error_remedy(err, "the device is mounted or in use: unmount it first, or open it read only");
    else if ((result == -EACCES || result == -EROFS || result == -EPERM) && !request->read_only)
        error_remedy(err, "change its permissions, or open it read only");
    else if (result == -ENOENT)
        error_remedy(err, "create it, or correct the path");
    return result;
}

/* Opens what the O_PATH descriptor has shown to be harmless. */
static int open_same(const struct disk_file_request *request, const struct stat *seen, int *ret_fd,
                     struct vial_error *err)
{
    int flags = (request->read_only ? O_RDONLY : O_RDWR) | (request->direct_io ? O_DIRECT : 0);
    if (S_ISBLK(seen->st_mode) && !request->read_only)
        flags |= O_EXCL; /* refused where the host itself uses the device (open(2)) */
    struct stat opened;
    auto_close int fd = open_at(request, flags | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fail_open(request, fd, err);
    if (fstat(fd, &opened) < 0 || !disk_file_is_same(seen, &opened) || fcntl(fd, F_SETFL, flags & O_DIRECT) < 0) {
        error_set_os(err, VIAL_PHASE_START, EAGAIN, "%s was replaced while it was opened",
                     error_short(request->path).text);
        return -EAGAIN;
    }
    *ret_fd = steal_fd(&fd);
    return 0;
}

static int open_safely(const struct disk_file_request *request, struct stat *ret_stat, int *ret_fd,
                       struct vial_error *err)
{
    bool in_folder = request->folder_fd != AT_FDCWD;
    struct stat seen;
    auto_close int probe = open_at(request, O_PATH);
    if (probe < 0)
        return fail_open(request, probe, err);
    if (fstat(probe, &seen) < 0)
        return fail_open(request, -errno, err);
    if (!S_ISREG(seen.st_mode) && (in_folder || !S_ISBLK(seen.st_mode)))
        return refuse_kind(request->path, seen.st_mode, in_folder, err);
    *ret_stat = seen;
    return open_same(request, &seen, ret_fd, err);
}

/* What O_DIRECT wants offsets, lengths and addresses to be multiples of. */
static uint32_t find_alignment(int fd, bool is_device)
{
    struct statx about = {0};
    uint32_t alignment = 0;
    int block = 0;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &about) == 0 && (about.stx_mask & STATX_DIOALIGN) != 0)
        alignment = about.stx_dio_offset_align > about.stx_dio_mem_align ? about.stx_dio_offset_align
                                                                         : about.stx_dio_mem_align;
    else if (is_device && ioctl(fd, BLKSSZGET, &block) == 0 && block > 0)
        alignment = (uint32_t)block;
    bool is_sound = alignment >= 512 && alignment <= 1u << 20 && (alignment & (alignment - 1)) == 0;
    return is_sound ? alignment : direct_fallback_bytes;
}

int disk_file_open(const struct disk_file_request *request, struct disk_file *ret_file, struct vial_error *err)
{
    struct stat seen = {0};
    auto_close int fd = -1;
    int result = open_safely(request, &seen, &fd, err);
    if (result < 0)
        return result;
    struct disk_file file = {.path = request->path,
                             .size_bytes = (uint64_t)seen.st_size,
                             .alignment_bytes = 1,
                             .is_read_only = request->read_only,
                             .is_device = S_ISBLK(seen.st_mode)};
    if (file.is_device && ioctl(fd, BLKGETSIZE64, &file.size_bytes) < 0)
        return fail_open(request, -errno, err);
    if (request->direct_io)
        file.alignment_bytes = find_alignment(fd, file.is_device);
    result = disk_file_lock(fd, !request->read_only);
    if (result == -EBUSY)
        return disk_file_in_use(request->path, !request->read_only, err);
    if (result < 0) {
        error_set_os(err, VIAL_PHASE_START, result, "cannot lock %s", error_short(request->path).text);
        error_remedy(err, "keep images on a file system with locks");
        return result;
    }
    file.fd = steal_fd(&fd);
    *ret_file = file;
    return 0;
}

void disk_file_close(struct disk_file *file)
{
    file->fd = fd_close(file->fd);
}

/* ---- reading and writing ---- */

/* As the list stands, in as many system calls as that takes. */
static int transfer(const struct disk_file *file, const struct parts *parts, uint64_t offset, bool writes)
{
    struct parts rest = *parts;
    struct iovec window[transfer_entries];
    while (rest.length > 0) {
        uint64_t length = 0;
        int count = parts_window(&rest, window, transfer_entries, &length);
        ssize_t done = writes ? pwritev(file->fd, window, count, (off_t)offset)
                              : preadv(file->fd, window, count, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -errno;
        if (done == 0) /* the end of the file; or of a device, for writing */
            return writes ? -ENOSPC : -EIO;
        offset += (uint64_t)done;
        rest = parts_cut(&rest, (uint64_t)done, rest.length - (uint64_t)done);
    }
    return 0;
}

/* Fills the buffer with whole blocks from `begin` on; where the file ends within them, zeros. -EIO when it ends before
 * `needed` bytes. */
static int read_blocks(const struct disk_file *file, uint8_t *buffer, size_t length, size_t needed, uint64_t begin)
{
    ssize_t got = 0;
    do
        got = pread(file->fd, buffer, length, (off_t)begin);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    if ((size_t)got < needed)
        return -EIO;
    memset(buffer + got, 0, length - (size_t)got);
    return 0;
}

static int bounce_block(const struct disk_file *file, const struct parts *piece, uint64_t offset, uint8_t *buffer,
                        bool writes)
{
    static pthread_mutex_t read_then_write = PTHREAD_MUTEX_INITIALIZER;
    uint64_t alignment = file->alignment_bytes;
    uint64_t begin = offset & ~(alignment - 1), end = (offset + piece->length + alignment - 1) & ~(alignment - 1);
    size_t length = (size_t)(end - begin), needed = (size_t)(offset - begin + piece->length);
    if (!writes) {
        int result = read_blocks(file, buffer, length, needed, begin);
        if (result == 0)
            parts_fill(piece, buffer + (offset - begin));
        return result;
    }
    struct iovec whole = {buffer, length};
    const struct parts blocks = {&whole, 1, 0, length};
    pthread_mutex_lock(&read_then_write);
    int result = read_blocks(file, buffer, length, 0, begin);
    parts_gather(piece, buffer + (offset - begin));
    if (result == 0)
        result = transfer(file, &blocks, begin, true);
    pthread_mutex_unlock(&read_then_write);
    return result;
}

static int bounce(const struct disk_file *file, const struct parts *parts, uint64_t offset, bool writes)
{
    const uint64_t most = 256 << 10;
    uint64_t alignment = file->alignment_bytes;
    auto_free uint8_t *memory = alloc_zero((size_t)(most + 3 * alignment));
    if (memory == NULL)
        return -ENOMEM;
    uint8_t *buffer = memory + (-(uintptr_t)memory & (alignment - 1));
    for (uint64_t done = 0; done < parts->length;) {
        uint64_t step = parts->length - done < most ? parts->length - done : most;
        const struct parts piece = parts_cut(parts, done, step);
        int result = bounce_block(file, &piece, offset + done, buffer, writes);
        if (result < 0)
            return result;
        done += step;
    }
    return 0;
}

static bool goes_directly(const struct disk_file *file, const struct parts *parts, uint64_t offset)
{
    uint64_t alignment = file->alignment_bytes;
    return alignment == 1 || ((offset & (alignment - 1)) == 0 && parts_are_aligned(parts, alignment));
}

int disk_file_read(const struct disk_file *file, const struct parts *parts, uint64_t offset)
{
    return goes_directly(file, parts, offset) ? transfer(file, parts, offset, false)
                                              : bounce(file, parts, offset, false);
}

int disk_file_write(const struct disk_file *file, const struct parts *parts, uint64_t offset)
{
    return goes_directly(file, parts, offset) ? transfer(file, parts, offset, true) : bounce(file, parts, offset, true);
}

int disk_file_read_bytes(const struct disk_file *file, void *bytes, size_t length, uint64_t offset)
{
    struct iovec whole = {bytes, length};
    const struct parts parts = {&whole, 1, 0, length};
    return disk_file_read(file, &parts, offset);
}

void disk_file_status(const struct disk_file *file, uint64_t offset, uint64_t length, bool *ret_is_zero,
                      uint64_t *ret_length)
{
    off_t data = lseek(file->fd, (off_t)offset, SEEK_DATA);
    bool is_behind_all = data < 0 && errno == ENXIO;
    bool is_hole = is_behind_all || data > (off_t)offset;
    off_t end = is_hole ? data : lseek(file->fd, (off_t)offset, SEEK_HOLE);
    bool has_end = !is_behind_all && end > (off_t)offset && (uint64_t)end - offset < length;
    *ret_is_zero = is_hole;
    *ret_length = has_end ? (uint64_t)end - offset : length;
}
