// SPDX-License-Identifier: Apache-2.0
/* Opcodes about open files.
 *
 * READ and WRITE move no byte themselves: the backend gets the chain's spans, cut to what was asked for, and reads a
 * file into guest memory or writes it from there. That the guest changes these bytes meanwhile harms only itself.
 *
 * A handle is reserved before the backend opens anything, so that no file is created or truncated whose handle could
 * not be given out. An open handle pins its node.
 *
 * What the guest cached of a file survives an open (FOPEN_KEEP_CACHE) where nobody else changes files, and otherwise
 * when size and times are as at the last open; so a compiler that opens the same headers again reads them once.
 *
 * A guest without opens (session.c) names nodes instead of handles: a file is opened at its first read, by us, and
 * stays open for the next ones (kept.c). When descriptors run short, these are closed first.
 *
 * O_TRUNC of a caller who may not keep set-user-id bits (FUSE_OPEN_KILL_SUIDGID) is an open and a change of size, as
 * only the latter can say so.
 *
 * libkrun's init tells its exit code by an ioctl on the root, the number as the argument's value.
 *
 * Invariants: (1) offset and length never exceed INT64_MAX together. (2) a backend's count that is more than was asked
 * for is an error. (3) a read-only file system opens no file for writing.
 *
 * Trust: numbers and flags come from a hostile guest, counts from the backend.
 */
#include "device/fs/request.h"

#include "base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

enum { ioctl_exit_code = 0x7602 };

/* What a backend hears of the guest's flags; the rest is the guest kernel's own business, or has an opcode. */
enum { open_flags = O_ACCMODE | O_TRUNC | O_APPEND | O_SYNC | O_DSYNC | O_DIRECT | O_NOATIME };

static bool is_range(uint64_t offset, uint64_t length)
{
    return length <= INT64_MAX && offset <= INT64_MAX - length;
}

/* ---- opening ---- */

static uint32_t stamp_of(const struct vial_fs_attributes *attributes)
{
    const uint64_t words[] = {attributes->size_bytes, (uint64_t)attributes->modify_s, attributes->modify_ns,
                              (uint64_t)attributes->change_s, attributes->change_ns};
    uint64_t mixed = 0;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        mixed = (mixed ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15) + (mixed >> 29);
    return (uint32_t)(mixed >> 32);
}

static bool is_unchanged(const struct request *request, uint64_t node, uint64_t handle)
{
    const struct fs_backend *backend = &request->server->backend;
    struct vial_fs_attributes attributes = {0};
    if (backend->ops.attributes(backend->user, &request->caller, node, &handle, &attributes) < 0)
        return false;
    if (attributes.modify_s == 0 && attributes.change_s == 0) /* a file without times tells nothing */
        return false;
    return known_restamp(request->server->known, node, stamp_of(&attributes));
}

static uint32_t caching(const struct request *request, uint64_t node, uint64_t handle)
{
    const struct fs_server *server = request->server;
    if (server->cache == FS_CACHE_ALWAYS)
        return FOPEN_KEEP_CACHE;
    if (server->cache == FS_CACHE_NONE)
        return server->session.can_map_direct_io ? FOPEN_DIRECT_IO : 0;
    return is_unchanged(request, node, handle) ? FOPEN_KEEP_CACHE : 0;
}

static int check_flags(const struct fs_server *server, uint32_t flags)
{
    if ((flags & O_ACCMODE) == O_ACCMODE)
        return -EINVAL;
    bool changes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0;
    return server->read_only && changes ? -EROFS : 0;
}

/* Opens the file: its handle, of the backend. One that has no open has no handles either, which is not the guest's
 * matter: -ENOSYS would have it do without them from now on. */
static int open_file(const struct request *request, uint64_t *ret_handle)
{
    const struct fs_backend *backend = &request->server->backend;
    const struct vial_fs_ops *ops = &backend->ops;
    uint64_t node = request->header.nodeid;
    uint32_t flags = request->arguments.open.flags & open_flags;
    bool kills_ids = (flags & O_TRUNC) != 0 && ops->set_attributes != NULL &&
                     (request->arguments.open.open_flags & FUSE_OPEN_KILL_SUIDGID) != 0;
    if (kills_ids)
        flags &= ~(uint32_t)O_TRUNC;
    *ret_handle = 0;
    int result = ops->open == NULL ? 0 : ops->open(backend->user, &request->caller, node, flags, ret_handle);
    if (result < 0 || !kills_ids)
        return result == -ENOSYS ? 0 : result;
    struct vial_fs_attributes attributes = {0};
    result = ops->set_attributes(backend->user, &request->caller, node, ret_handle,
                                 VIAL_FS_SET_SIZE | VIAL_FS_SET_KILL_IDS, &attributes, &attributes);
    if (result < 0 && ops->close != NULL)
        ops->close(backend->user, node, *ret_handle);
    return result;
}

int handle_open(struct request *request)
{
    struct fs_server *server = request->server;
    struct handle handle = {.kind = HANDLE_FILE, .node = request->header.nodeid};
    struct fuse_open_out out = {0};
    int result = check_flags(server, request->arguments.open.flags);
    if (result == 0 && server->session.without_opens)
        return -ENOSYS; /* Linux does not ask again, and names 0 as the handle */
    if (result == 0)
        result = handles_reserve(server->handles, &out.fh);
    if (result < 0)
        return result;
    result = open_file(request, &handle.handle);
    if (result < 0) {
        handles_cancel(server->handles, out.fh);
        return result;
    }
    known_pin_again(server->known, handle.node);
    handles_fill(server->handles, out.fh, &handle);
    out.open_flags = caching(request, handle.node, handle.handle);
    return reply_bytes(request, &out, sizeof(out));
}

/* Opens a file for a guest that does not do so itself: its handle, of the backend. */
static int open_for_reading(const struct request *request, uint64_t *ret_handle)
{
    const struct fs_backend *backend = &request->server->backend;
    *ret_handle = 0;
    if (backend->ops.open == NULL)
        return 0;
    int result = backend->ops.open(backend->user, &request->caller, request->header.nodeid, O_RDONLY, ret_handle);
    return result == -ENOSYS ? 0 : result;
}

int request_pin_kept(struct request *request)
{
    struct fs_server *server = request->server;
    uint64_t node = request->header.nodeid, handle = 0;
    struct kept_file closed;
    if (!kept_pin(server->kept, node, &request->kept)) {
        int result = open_for_reading(request, &handle);
        if ((result == -EMFILE || result == -ENFILE) && server_shed_kept(server))
            result = open_for_reading(request, &handle);
        if (result < 0)
            return result;
        if (kept_add(server->kept, node, handle, &request->kept, &closed))
            server_close_kept(server, &closed);
    }
    request->has_kept = true;
    request->handle = (struct handle){.kind = HANDLE_FILE, .node = node, .handle = request->kept.handle};
    return 0;
}

/* Makes the file and books it: 0, or -errno with nothing left open. */
static int create_file(struct request *request, struct handle *handle, struct fuse_entry_out *ret_out)
{
    const struct fs_backend *backend = &request->server->backend;
    const struct fuse_create_in *in = &request->arguments.create;
    struct vial_fs_entry entry = {0};
    request->caller.umask = in->umask;
    int result = backend->ops.create(backend->user, &request->caller, request->header.nodeid, request->name,
                                     in->mode & FS_MODE_BITS, in->flags & (open_flags | O_EXCL), &entry,
                                     &handle->handle);
    if (result < 0)
        return result;
    handle->node = entry.node;
    result = entry_tell(request->server, &entry, true, ret_out);
    if (result < 0 && backend->ops.close != NULL)
        backend->ops.close(backend->user, handle->node, handle->handle);
    return result;
}

int handle_create(struct request *request)
{
    struct fs_server *server = request->server;
    struct handle handle = {.kind = HANDLE_FILE};
    struct {
        struct fuse_entry_out entry;
        struct fuse_open_out open;
    } out = {0};
    if (server->backend.ops.create == NULL)
        return -ENOSYS; /* Linux makes a node and opens it */
    int result = check_flags(server, request->arguments.create.flags);
    if (result == 0)
        result = handles_reserve(server->handles, &out.open.fh);
    if (result < 0)
        return result;
    result = create_file(request, &handle, &out.entry);
    if (result < 0) {
        handles_cancel(server->handles, out.open.fh);
        return result;
    }
    handles_fill(server->handles, out.open.fh, &handle);
    out.open.open_flags = caching(request, handle.node, handle.handle);
    return reply_bytes(request, &out, sizeof(out));
}

/* Of a file or a folder. It is closed when the last request that uses it is done, which may be this one. */
int handle_release(struct request *request)
{
    int result = handles_release(request->server->handles, request->handle_number);
    return result < 0 ? result : reply_empty(request);
}

/* ---- contents ---- */

int handle_read(struct request *request)
{
    struct fs_server *server = request->server;
    const struct fs_backend *backend = &server->backend;
    const struct fuse_read_in *in = &request->arguments.read;
    if (in->size > LIMIT_FS_TRANSFER_BYTES || !is_range(in->offset, in->size))
        return -EINVAL;
    if (in->size > reply_room(request))
        return -EIO;
    int count = request_cut(request, request->writable, request->writable_count, sizeof(struct fuse_out_header),
                            in->size);
    if (count <= 0)
        return count < 0 ? count : reply_empty(request);
    if (backend->ops.read == NULL)
        return -ENOSYS;
    ssize_t length = backend->ops.read(backend->user, request->header.nodeid, request->handle.handle,
                                       request_parts(request), count, in->offset);
    if (length < 0 || length > in->size)
        return length < 0 ? (int)length : -EIO;
    atomic_fetch_add_explicit(&server->read_bytes, (uint64_t)length, memory_order_relaxed);
    return reply_finish(request, (size_t)length);
}

int handle_write(struct request *request)
{
    struct fs_server *server = request->server;
    const struct fs_backend *backend = &server->backend;
    const struct fuse_write_in *in = &request->arguments.write;
    struct fuse_write_out out = {0};
    if (in->size > LIMIT_FS_TRANSFER_BYTES || in->size > request->tail_bytes || !is_range(in->offset, in->size))
        return -EINVAL;
    int count = request_cut(request, request->readable, request->readable_count, request->tail_offset, in->size);
    if (count <= 0)
        return count < 0 ? count : reply_bytes(request, &out, sizeof(out));
    if (backend->ops.write == NULL)
        return -ENOSYS;
    uint32_t flags = (in->write_flags & FUSE_WRITE_KILL_SUIDGID) != 0 ? VIAL_FS_WRITE_KILL_IDS : 0;
    ssize_t length = backend->ops.write(backend->user, request->header.nodeid, request->handle.handle,
                                        request_parts(request), count, in->offset, flags);
    if (length < 0 || length > in->size)
        return length < 0 ? (int)length : -EIO;
    atomic_fetch_add_explicit(&server->written_bytes, (uint64_t)length, memory_order_relaxed);
    out.size = (uint32_t)length;
    return reply_bytes(request, &out, sizeof(out));
}

int handle_flush(struct request *request)
{
    const struct fs_backend *backend = &request->server->backend;
    if (backend->ops.flush == NULL)
        return -ENOSYS; /* Linux does not ask again */
    int result = backend->ops.flush(backend->user, request->header.nodeid, request->handle.handle);
    return result < 0 ? result : reply_empty(request);
}

int handle_sync(struct request *request)
{
    const struct fs_backend *backend = &request->server->backend;
    if (backend->ops.sync == NULL)
        return -ENOSYS;
    int result = backend->ops.sync(backend->user, request->header.nodeid, request->handle.handle,
                                   (request->arguments.sync.fsync_flags & FUSE_FSYNC_FDATASYNC) != 0);
    return result < 0 ? result : reply_empty(request);
}

int handle_allocate(struct request *request)
{
    const struct fs_backend *backend = &request->server->backend;
    const struct fuse_fallocate_in *in = &request->arguments.allocate;
    const uint32_t known_modes = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
    if ((in->mode & ~known_modes) != 0) /* nor does Linux pass on others */
        return -EOPNOTSUPP;
    if (in->length == 0 || !is_range(in->offset, in->length))
        return -EINVAL;
    if (backend->ops.allocate == NULL)
        return -ENOSYS;
    int result = backend->ops.allocate(backend->user, request->header.nodeid, request->handle.handle, in->mode,
                                       in->offset, in->length);
    return result < 0 ? result : reply_empty(request);
}

/* Where data or a hole begins; all other positions the guest's kernel knows itself. */
int handle_seek(struct request *request)
{
    const struct fs_backend *backend = &request->server->backend;
    const struct fuse_lseek_in *in = &request->arguments.seek;
    if ((in->whence != SEEK_DATA && in->whence != SEEK_HOLE) || in->offset > INT64_MAX)
        return -EINVAL;
    if (backend->ops.seek == NULL)
        return -ENOSYS;
    int64_t place = backend->ops.seek(backend->user, request->header.nodeid, request->handle.handle, in->offset,
                                      in->whence);
    if (place < 0)
        return place < INT32_MIN ? -EIO : (int)place;
    struct fuse_lseek_out out = {.offset = (uint64_t)place};
    return reply_bytes(request, &out, sizeof(out));
}

int handle_copy(struct request *request)
{
    const struct fs_backend *backend = &request->server->backend;
    const struct fuse_copy_file_range_in *in = &request->arguments.copy;
    uint64_t length = in->len < LIMIT_FS_COPY_BYTES ? in->len : LIMIT_FS_COPY_BYTES;
    if (in->flags != 0 || !is_range(in->off_in, length) || !is_range(in->off_out, length))
        return -EINVAL;
    if (backend->ops.copy == NULL)
        return -ENOSYS;
    int result = request_pin_second(request, in->nodeid_out);
    if (result == 0)
        result = request_pin_second_handle(request, in->fh_out);
    if (result < 0)
        return result;
    ssize_t copied = backend->ops.copy(backend->user, request->header.nodeid, request->handle.handle, in->off_in,
                                       request->second_node, request->second_handle.handle, in->off_out, length);
    if (copied < 0 || (uint64_t)copied > length)
        return copied < 0 ? (int)copied : -EIO;
    struct fuse_write_out out = {.size = (uint32_t)copied};
    return reply_bytes(request, &out, sizeof(out));
}

int handle_ioctl(struct request *request)
{
    const struct fs_server *server = request->server;
    const struct fuse_ioctl_in *in = &request->arguments.ioctl;
    struct fuse_ioctl_out out = {0};
    if (in->cmd != ioctl_exit_code || request->header.nodeid != VIAL_FS_ROOT_NODE || server->exited == NULL)
        return -ENOTTY;
    server->exited(server->exited_user, (int32_t)(uint32_t)in->arg);
    return reply_bytes(request, &out, sizeof(out));
}
