// SPDX-License-Identifier: Apache-2.0
/* A folder of the host as a backend: the contents of files.
 *
 * A file is opened by the descriptor of its inode, never by a name. Of the guest's flags only those pass that say what
 * it wants to do with the contents: appending is its kernel's business, which sends offsets (and Linux would append
 * whatever the offset, pwrite(2)), and so is direct I/O, whose alignment its buffers need not have.
 *
 * Invariants: (1) only regular files are opened, by the type of the inode itself, and of a public view only those that
 * are public at that moment. (2) truncating takes set-user-id bits away, always; so does opening for writing where
 * owner.c does not allow them; elsewhere writing does where the guest asks for it, before the first byte.
 *
 * Trust: offsets, lengths and flags come from a hostile guest; the kernel checks them against the file, we check that
 * they fit its types.
 */
#include "device/fs/passthrough.h"

#include "base/fd.h"
#include "base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/uio.h>
#include <unistd.h>

static bool is_offset(uint64_t offset)
{
    return offset <= INT64_MAX;
}

/* ---- opening ---- */

int passthrough_open_flags(uint32_t flags)
{
    if ((flags & O_ACCMODE) == O_ACCMODE)
        return -EINVAL;
    return (int)(flags & (O_ACCMODE | O_TRUNC | O_SYNC)); /* O_SYNC has O_DSYNC's bit */
}

/* The contents of a pinned node: a descriptor or -errno. */
static int open_contents(struct passthrough *passthrough, const struct host_pin *pin, int flags)
{
    struct stat status; /* not what the node says: to open a FIFO would be to wait */
    if (fstat(pin->fd, &status) < 0)
        return -errno;
    if (!S_ISREG(status.st_mode))
        return S_ISDIR(status.st_mode) ? -EISDIR : S_ISLNK(status.st_mode) ? -ELOOP : -ENXIO;
    if (passthrough->only_public && !passthrough_is_public(status.st_mode))
        return -EACCES;
    return passthrough_reopen(passthrough, pin->fd, flags);
}

int passthrough_open_pinned(struct passthrough *passthrough, const struct host_pin *pin, uint32_t flags,
                            uint64_t *ret_handle)
{
    int host_flags = passthrough_open_flags(flags);
    if (host_flags < 0)
        return host_flags;
    int fd = open_contents(passthrough, pin, host_flags);
    if (fd < 0)
        return fd;
    if ((host_flags & O_TRUNC) != 0)
        (void)passthrough_drop_set_ids(passthrough, fd); /* where we may not, the file is not ours to run as */
    bool is_writable = (host_flags & O_ACCMODE) != O_RDONLY;
    return host_handles_add(&passthrough->handles, pin->node->id, fd, false, is_writable, ret_handle);
}

int passthrough_open(void *user, const struct vial_fs_caller *caller, uint64_t node, uint32_t flags,
                     uint64_t *ret_handle)
{
    struct passthrough *passthrough = user;
    (void)caller;
    auto_pin struct host_pin pin = HOST_PIN_NONE;
    int result = passthrough_pin(passthrough, node, &pin);
    return result < 0 ? result : passthrough_open_pinned(passthrough, &pin, flags, ret_handle);
}

int passthrough_map(void *user, const struct vial_fs_caller *caller, uint64_t node, bool for_writing, int *ret_fd)
{
    struct passthrough *passthrough = user;
    (void)caller;
    auto_pin struct host_pin pin = HOST_PIN_NONE;
    int result = passthrough_pin(passthrough, node, &pin);
    if (result < 0)
        return result;
    int fd = open_contents(passthrough, &pin, for_writing ? O_RDWR : O_RDONLY);
    if (fd < 0)
        return fd;
    *ret_fd = fd;
    return 0;
}

int passthrough_close(void *user, uint64_t node, uint64_t handle)
{
    struct passthrough *passthrough = user;
    return host_handles_close(&passthrough->handles, node, handle, false);
}

/* ---- bytes ---- */

ssize_t passthrough_read(void *user, uint64_t node, uint64_t handle, const struct iovec *parts, int count,
                         uint64_t offset)
{
    struct passthrough *passthrough = user;
    auto_use struct host_use use = HOST_USE_NONE;
    int result = host_handles_use(&passthrough->handles, node, handle, false, &use);
    if (result < 0 || !is_offset(offset))
        return result < 0 ? result : -EINVAL;
    ssize_t length = preadv(use.fd, parts, count, (off_t)offset);
    return length < 0 ? -errno : length;
}

ssize_t passthrough_write(void *user, uint64_t node, uint64_t handle, const struct iovec *parts, int count,
                          uint64_t offset, uint32_t flags)
{
    struct passthrough *passthrough = user;
    auto_use struct host_use use = HOST_USE_NONE;
    int result = host_handles_use(&passthrough->handles, node, handle, false, &use);
    if (result < 0 || !is_offset(offset))
        return result < 0 ? result : -EFBIG;
    if ((flags & VIAL_FS_WRITE_KILL_IDS) != 0)
        result = passthrough_drop_set_ids(passthrough, use.fd);
    if (result < 0)
        return result;
    ssize_t length = pwritev(use.fd, parts, count, (off_t)offset);
    return length < 0 ? -errno : length;
}

int passthrough_flush(void *user, uint64_t node, uint64_t handle)
{
    struct passthrough *passthrough = user;
    auto_use struct host_use use = HOST_USE_NONE;
    int result = host_handles_use(&passthrough->handles, node, handle, false, &use);
    if (result < 0)
        return result;
    /* Closing is when a network's file system tells of errors; a second descriptor hears of them, too. */
    int copy = fcntl(use.fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0)
        return 0;
    return close(copy) < 0 && errno != EINTR ? -errno : 0;
}

int passthrough_sync(void *user, uint64_t node, uint64_t handle, bool data_only)
{
    struct passthrough *passthrough = user;
    auto_use struct host_use use = HOST_USE_NONE;
    int result = host_handles_use(&passthrough->handles, node, handle, false, &use);
    if (result < 0)
        return result;
    return (data_only ? fdatasync(use.fd) : fsync(use.fd)) < 0 ? -errno : 0;
}

/* ---- space and holes ---- */

int passthrough_allocate(void *user, uint64_t node, uint64_t handle, uint32_t mode, uint64_t offset, uint64_t length)
{
    struct passthrough *passthrough = user;
    auto_use struct host_use use = HOST_USE_NONE;
    int result = host_handles_use(&passthrough->handles, node, handle, false, &use);
    if (result < 0)
        return result;
    const uint32_t known = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
    if ((mode & ~known) != 0)
        return -EOPNOTSUPP;
    if (!is_offset(offset) || !is_offset(length))
        return -EFBIG;
    return fallocate(use.fd, (int)mode, (off_t)offset, (off_t)length) < 0 ? -errno : 0;
}

int64_t passthrough_seek(void *user, uint64_t node, uint64_t handle, uint64_t offset, uint32_t whence)
{
    struct passthrough *passthrough = user;
    auto_use struct host_use use = HOST_USE_NONE;
    int result = host_handles_use(&passthrough->handles, node, handle, false, &use);
    if (result < 0)
        return result;
    if (whence != SEEK_DATA && whence != SEEK_HOLE)
        return -EINVAL; /* the guest's kernel knows the other ones itself */
    if (!is_offset(offset))
        return -ENXIO;
    off_t found = lseek(use.fd, (off_t)offset, (int)whence);
    return found < 0 ? -errno : found;
}

ssize_t passthrough_copy(void *user, uint64_t from_node, uint64_t from_handle, uint64_t from_offset, uint64_t to_node,
                         uint64_t to_handle, uint64_t to_offset, uint64_t length)
{
    struct passthrough *passthrough = user;
    auto_use struct host_use from = HOST_USE_NONE, to = HOST_USE_NONE;
    int result = host_handles_use(&passthrough->handles, from_node, from_handle, false, &from);
    if (result == 0)
        result = host_handles_use(&passthrough->handles, to_node, to_handle, false, &to);
    if (result < 0)
        return result;
    if (!is_offset(from_offset) || !is_offset(to_offset))
        return -EINVAL;
    loff_t in = (loff_t)from_offset, out = (loff_t)to_offset;
    size_t most = length < LIMIT_FS_COPY_BYTES ? (size_t)length : LIMIT_FS_COPY_BYTES;
    ssize_t copied = copy_file_range(from.fd, &in, to.fd, &out, most, 0);
    return copied < 0 ? -errno : copied;
}
