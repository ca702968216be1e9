// SPDX-License-Identifier: Apache-2.0
/* Virtual files and folders over another backend: the contents of files.
 *
 * A virtual file's bytes lie in memory and never change. Its handle is its own number: all that is to be known of an
 * open one is how often it is open. A one-shot file is opened by who has looked it up, its name being gone by then.
 *
 * For the guest to map it (DAX), the bytes are copied into a memory file, once, which is sealed: nobody changes it or
 * its length. What is handed out is open for reading only, which also lets older kernels map a sealed file as shared.
 *
 * Invariants: (1) the bytes are never written to. (2) no handle of a virtual file is open for writing.
 *
 * Trust: offsets, lengths and flags come from a hostile guest.
 */
#include "device/fs/overlay.h"

#include "base/alloc.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The virtual file of that number: NULL for one of the backend below. */
static int find_file(struct overlay *overlay, uint64_t id, struct overlay_node **ret_file)
{
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    int result = overlay_enter(overlay, id, &place);
    if (result < 0)
        return result;
    if (place.node != NULL && place.node->kind != FS_VIRTUAL_FILE)
        return overlay_is_folder(place.node) ? -EISDIR : -ESTALE;
    *ret_file = place.node;
    return 0;
}

/* The same for who has a handle of it. */
static int find_open(struct overlay *overlay, uint64_t id, uint64_t handle, struct overlay_node **ret_file)
{
    int result = find_file(overlay, id, ret_file);
    if (result < 0 || *ret_file == NULL)
        return result == -EISDIR ? -EBADF : result;
    pthread_mutex_lock(&overlay->lock);
    bool is_open = handle == id && (*ret_file)->opens > 0;
    pthread_mutex_unlock(&overlay->lock);
    return is_open ? 0 : -EBADF;
}

int overlay_open(void *user, const struct vial_fs_caller *caller, uint64_t node, uint32_t flags, uint64_t *ret_handle)
{
    struct overlay *overlay = user;
    struct overlay_node *file = NULL;
    int result = find_file(overlay, node, &file);
    if (result < 0)
        return result;
    if (file != NULL) {
        if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0)
            return -EROFS;
        pthread_mutex_lock(&overlay->lock);
        file->opens++;
        pthread_mutex_unlock(&overlay->lock);
        *ret_handle = file->id;
        return 0;
    }
    uint64_t handle = 0;
    result = BELOW(overlay, open, caller, node, flags, &handle);
    if (result == 0 && (handle & OVERLAY_BIT) != 0) {
        (void)BELOW(overlay, close, node, handle);
        return -EIO;
    }
    if (result == 0)
        *ret_handle = handle;
    return result;
}

int overlay_close(void *user, uint64_t node, uint64_t handle)
{
    struct overlay *overlay = user;
    struct overlay_node *file = NULL;
    int result = find_open(overlay, node, handle, &file);
    if (result < 0)
        return result;
    if (file == NULL)
        return BELOW(overlay, close, node, handle);
    pthread_mutex_lock(&overlay->lock);
    bool is_open = file->opens > 0; /* another thread may have been faster */
    file->opens -= is_open;
    pthread_mutex_unlock(&overlay->lock);
    return is_open ? 0 : -EBADF;
}

/* ---- bytes ---- */

static ssize_t read_bytes(const struct overlay_node *file, const struct iovec *parts, int count, uint64_t offset)
{
    size_t done = 0;
    size_t left = offset < file->length ? file->length - (size_t)offset : 0;
    for (int i = 0; i < count && left > 0; i++) {
        size_t step = parts[i].iov_len < left ? parts[i].iov_len : left;
        memcpy(parts[i].iov_base, (const char *)file->bytes + offset + done, step);
        done += step;
        left -= step;
    }
    return (ssize_t)done;
}

ssize_t overlay_read(void *user, uint64_t node, uint64_t handle, const struct iovec *parts, int count, uint64_t offset)
{
    struct overlay *overlay = user;
    struct overlay_node *file = NULL;
    int result = find_open(overlay, node, handle, &file);
    if (result < 0)
        return result;
    return file != NULL ? read_bytes(file, parts, count, offset)
                        : BELOW(overlay, read, node, handle, parts, count, offset);
}

ssize_t overlay_write(void *user, uint64_t node, uint64_t handle, const struct iovec *parts, int count, uint64_t offset,
                      uint32_t flags)
{
    struct overlay *overlay = user;
    struct overlay_node *file = NULL;
    int result = find_open(overlay, node, handle, &file);
    if (result < 0 || file != NULL)
        return result < 0 ? result : -EBADF; /* its handles are for reading */
    return BELOW(overlay, write, node, handle, parts, count, offset, flags);
}

int overlay_flush(void *user, uint64_t node, uint64_t handle)
{
    struct overlay *overlay = user;
    struct overlay_node *file = NULL;
    int result = find_open(overlay, node, handle, &file);
    return result < 0 || file != NULL ? result : BELOW(overlay, flush, node, handle);
}

int overlay_sync(void *user, uint64_t node, uint64_t handle, bool data_only)
{
    struct overlay *overlay = user;
    struct overlay_node *file = NULL;
    int result = find_open(overlay, node, handle, &file);
    return result < 0 || file != NULL ? result : BELOW(overlay, sync, node, handle, data_only);
}

int overlay_allocate(void *user, uint64_t node, uint64_t handle, uint32_t mode, uint64_t offset, uint64_t length)
{
    struct overlay *overlay = user;
    struct overlay_node *file = NULL;
    int result = find_open(overlay, node, handle, &file);
    if (result < 0 || file != NULL)
        return result < 0 ? result : -EBADF;
    return BELOW(overlay, allocate, node, handle, mode, offset, length);
}

int64_t overlay_seek(void *user, uint64_t node, uint64_t handle, uint64_t offset, uint32_t whence)
{
    struct overlay *overlay = user;
    struct overlay_node *file = NULL;
    int result = find_open(overlay, node, handle, &file);
    if (result < 0)
        return result;
    if (file == NULL)
        return BELOW(overlay, seek, node, handle, offset, whence);
    if (whence != SEEK_DATA && whence != SEEK_HOLE)
        return -EINVAL;
    if (offset >= file->length)
        return -ENXIO;
    return whence == SEEK_DATA ? (int64_t)offset : (int64_t)file->length;
}

ssize_t overlay_copy(void *user, uint64_t from_node, uint64_t from_handle, uint64_t from_offset, uint64_t to_node,
                     uint64_t to_handle, uint64_t to_offset, uint64_t length)
{
    struct overlay *overlay = user;
    struct overlay_node *from = NULL, *to = NULL;
    int result = find_open(overlay, from_node, from_handle, &from);
    if (result == 0)
        result = find_open(overlay, to_node, to_handle, &to);
    if (result < 0)
        return result;
    if (to != NULL)
        return -EBADF;
    if (from != NULL)
        return -EXDEV; /* the guest copies itself, then */
    return BELOW(overlay, copy, from_node, from_handle, from_offset, to_node, to_handle, to_offset, length);
}

/* ---- mapping ---- */

/* A descriptor for reading of a sealed file with these bytes, or -errno. */
static int make_map_fd(const struct overlay_node *file)
{
    auto_close int fd = memfd_create("vial-virtual", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    int result = file->length > 0 ? fd_write_all(fd, file->bytes, file->length) : 0;
    if (result < 0)
        return result;
    if (fchmod(fd, 0555) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
        return -errno;
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int readable = open(path, O_RDONLY | O_CLOEXEC);
    return readable < 0 ? -errno : readable;
}

/* The file's memory file is made by whoever is first; under no lock, as it copies. */
static int need_map_fd(struct overlay *overlay, struct overlay_node *file)
{
    pthread_mutex_lock(&overlay->lock);
    bool is_made = file->map_fd >= 0;
    pthread_mutex_unlock(&overlay->lock);
    if (is_made)
        return 0;
    auto_close int fd = make_map_fd(file);
    if (fd < 0)
        return fd;
    pthread_mutex_lock(&overlay->lock);
    if (file->map_fd < 0)
        file->map_fd = steal_fd(&fd);
    pthread_mutex_unlock(&overlay->lock);
    return 0;
}

int overlay_map(void *user, const struct vial_fs_caller *caller, uint64_t node, bool for_writing, int *ret_fd)
{
    struct overlay *overlay = user;
    struct overlay_node *file = NULL;
    int result = find_file(overlay, node, &file);
    if (result < 0)
        return result;
    if (file == NULL)
        return BELOW(overlay, map, caller, node, for_writing, ret_fd);
    if (for_writing)
        return -EROFS;
    result = need_map_fd(overlay, file);
    if (result < 0)
        return result;
    int fd = fcntl(file->map_fd, F_DUPFD_CLOEXEC, 3); /* fixed, now that it is made */
    if (fd < 0)
        return -errno;
    *ret_fd = fd;
    return 0;
}
