// SPDX-License-Identifier: Apache-2.0
/* Opcodes about what a file is: its attributes, its extended attributes, and the space on its file system.
 *
 * Set-user-id bits: with HANDLE_KILLPRIV_V2 the guest's kernel says when a change of size must clear them (it knows the
 * caller's capabilities), and leaves a change of owner, which always does, to us (linux/fuse.h).
 *
 * Invariants: (1) the bits of a mode that are the file's type are never changed. (2) a value has at most
 * LIMIT_FS_XATTR_BYTES. (3) times are whole nanoseconds of a second.
 *
 * Trust: numbers and values come from a hostile guest, lengths from the backend.
 */
#include "device/fs/request.h"

#include "base/alloc.h"
#include "base/limits.h"

#include <errno.h>

enum { small_value_bytes = 1024 };

static int reply_attributes(struct request *request, const struct vial_fs_attributes *attributes)
{
    const struct fs_server *server = request->server;
    uint64_t valid = valid_ns(server, atomic_load_explicit(&server->attributes_valid_ns, memory_order_relaxed));
    struct fuse_attr_out out = {
        .attr_valid = valid / FS_SECOND_NS,
        .attr_valid_nsec = (uint32_t)(valid % FS_SECOND_NS),
        .attr = attributes_tell(attributes),
    };
    return reply_bytes(request, &out, sizeof(out));
}

int handle_get_attributes(struct request *request)
{
    const struct fs_backend *backend = &request->server->backend;
    const struct fuse_getattr_in *in = &request->arguments.get_attributes;
    struct vial_fs_attributes attributes = {0};
    int result = 0;
    bool has_handle = (in->getattr_flags & FUSE_GETATTR_FH) != 0;
    if (has_handle && request->server->session.without_opens)
        result = in->fh == 0 ? 0 : -EBADF; /* the node's, then */
    else if (has_handle)
        result = request_pin_handle(request, in->fh, HANDLE_FILE);
    if (result == 0)
        result = backend->ops.attributes(backend->user, &request->caller, request->header.nodeid,
                                         request->has_handle ? &request->handle.handle : NULL, &attributes);
    return result < 0 ? result : reply_attributes(request, &attributes);
}

/* ---- changing them ---- */

static const struct {
    uint32_t fuse, ours;
} settings[] = {
    {FATTR_MODE, VIAL_FS_SET_MODE},
    {FATTR_UID, VIAL_FS_SET_UID | VIAL_FS_SET_KILL_IDS},
    {FATTR_GID, VIAL_FS_SET_GID | VIAL_FS_SET_KILL_IDS},
    {FATTR_SIZE, VIAL_FS_SET_SIZE},
    {FATTR_ATIME, VIAL_FS_SET_ACCESS_TIME},
    {FATTR_MTIME, VIAL_FS_SET_MODIFY_TIME},
    {FATTR_ATIME_NOW, VIAL_FS_SET_ACCESS_NOW},
    {FATTR_MTIME_NOW, VIAL_FS_SET_MODIFY_NOW},
    {FATTR_KILL_SUIDGID, VIAL_FS_SET_KILL_IDS},
};

static uint32_t which_settings(uint32_t valid)
{
    uint32_t which = 0;
    for (size_t i = 0; i < array_length(settings); i++)
        if ((valid & settings[i].fuse) != 0)
            which |= settings[i].ours;
    /* Linux says "this time" and "now" together when it means now. */
    if ((which & VIAL_FS_SET_ACCESS_NOW) != 0)
        which &= ~VIAL_FS_SET_ACCESS_TIME;
    if ((which & VIAL_FS_SET_MODIFY_NOW) != 0)
        which &= ~VIAL_FS_SET_MODIFY_TIME;
    return which;
}

/* -1 is no id: chown(2) takes it for "as it is", and would change nothing without saying so. */
static bool are_settings_sane(const struct fuse_setattr_in *in)
{
    if ((in->valid & FATTR_SIZE) != 0 && in->size > INT64_MAX)
        return false;
    if (((in->valid & FATTR_UID) != 0 && in->uid == UINT32_MAX) ||
        ((in->valid & FATTR_GID) != 0 && in->gid == UINT32_MAX))
        return false;
    if ((in->valid & FATTR_ATIME) != 0 && in->atimensec >= FS_SECOND_NS)
        return false;
    return (in->valid & FATTR_MTIME) == 0 || in->mtimensec < FS_SECOND_NS;
}

int handle_set_attributes(struct request *request)
{
    const struct fs_backend *backend = &request->server->backend;
    const struct fuse_setattr_in *in = &request->arguments.set_attributes;
    struct vial_fs_attributes wanted = {
        .size_bytes = in->size,
        .access_s = (int64_t)in->atime,
        .access_ns = in->atimensec,
        .modify_s = (int64_t)in->mtime,
        .modify_ns = in->mtimensec,
        .mode = in->mode & FS_MODE_BITS,
        .uid = in->uid,
        .gid = in->gid,
    };
    struct vial_fs_attributes attributes = {0};
    int result = are_settings_sane(in) ? 0 : -EINVAL;
    if (result == 0 && backend->ops.set_attributes == NULL)
        result = -ENOSYS;
    if (result == 0 && (in->valid & FATTR_FH) != 0)
        result = request_pin_handle(request, in->fh, HANDLE_FILE);
    if (result == 0)
        result = backend->ops.set_attributes(backend->user, &request->caller, request->header.nodeid,
                                             request->has_handle ? &request->handle.handle : NULL,
                                             which_settings(in->valid), &wanted, &attributes);
    return result < 0 ? result : reply_attributes(request, &attributes);
}

int handle_usage(struct request *request)
{
    const struct fs_backend *backend = &request->server->backend;
    struct vial_fs_usage usage = {0};
    if (backend->ops.usage == NULL)
        return -ENOSYS;
    int result = backend->ops.usage(backend->user, request->header.nodeid, &usage);
    if (result < 0)
        return result;
    struct fuse_statfs_out out = {.st = {
                                      .blocks = usage.blocks,
                                      .bfree = usage.free_blocks,
                                      .bavail = usage.available_blocks,
                                      .files = usage.files,
                                      .ffree = usage.free_files,
                                      .bsize = usage.block_bytes,
                                      .namelen = usage.name_bytes,
                                      .frsize = usage.block_bytes,
                                  }};
    return reply_bytes(request, &out, sizeof(out));
}

/* ---- extended attributes ---- */

int handle_set_xattr(struct request *request)
{
    const struct fs_backend *backend = &request->server->backend;
    const struct fuse_setxattr_in *in = &request->arguments.set_xattr;
    auto_free uint8_t *value = NULL;
    if (backend->ops.set_xattr == NULL)
        return -ENOSYS;
    if (in->size > LIMIT_FS_XATTR_BYTES)
        return -E2BIG;
    if (in->size != request->tail_bytes || (in->flags & ~3u) != 0) /* XATTR_CREATE and XATTR_REPLACE are 1 and 2 */
        return -EINVAL;
    value = alloc_zero(in->size > 0 ? in->size : 1);
    if (value == NULL)
        return -ENOMEM;
    request_read_tail(request, 0, value, in->size);
    int result = backend->ops.set_xattr(backend->user, &request->caller, request->header.nodeid, request->name, value,
                                        in->size, (int)in->flags);
    return result < 0 ? result : reply_empty(request);
}

/* A value, or a list when there is no name. */
static ssize_t ask_xattr(const struct request *request, void *value, size_t size)
{
    const struct fs_backend *backend = &request->server->backend;
    const struct vial_fs_ops *ops = &backend->ops;
    uint64_t node = request->header.nodeid;
    if (request->name == NULL)
        return ops->list_xattr == NULL ? -ENOSYS : ops->list_xattr(backend->user, &request->caller, node, value, size);
    return ops->get_xattr == NULL ? -ENOSYS
                                  : ops->get_xattr(backend->user, &request->caller, node, request->name, value, size);
}

/* With a size of 0 the guest asks how long it is. */
static int reply_xattr(struct request *request)
{
    uint8_t small[small_value_bytes];
    auto_free uint8_t *large = NULL;
    uint32_t size = request->arguments.get_xattr.size;
    if (size > LIMIT_FS_XATTR_BYTES)
        size = LIMIT_FS_XATTR_BYTES;
    if (size > sizeof(small)) {
        large = alloc_zero(size);
        if (large == NULL)
            return -ENOMEM;
    }
    ssize_t length = ask_xattr(request, size == 0 ? NULL : large != NULL ? large : small, size);
    if (length < 0)
        return (int)length;
    if (size == 0) {
        struct fuse_getxattr_out out = {.size = length > LIMIT_FS_XATTR_BYTES ? LIMIT_FS_XATTR_BYTES
                                                                              : (uint32_t)length};
        return reply_bytes(request, &out, sizeof(out));
    }
    return length > size ? -ERANGE : reply_bytes(request, large != NULL ? large : small, (size_t)length);
}

int handle_get_xattr(struct request *request)
{
    return reply_xattr(request);
}

int handle_list_xattr(struct request *request)
{
    return reply_xattr(request);
}

int handle_remove_xattr(struct request *request)
{
    const struct fs_backend *backend = &request->server->backend;
    if (backend->ops.remove_xattr == NULL)
        return -ENOSYS;
    int result = backend->ops.remove_xattr(backend->user, &request->caller, request->header.nodeid, request->name);
    return result < 0 ? result : reply_empty(request);
}
