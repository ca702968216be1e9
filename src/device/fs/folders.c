// SPDX-License-Identifier: Apache-2.0
/* Opcodes about open folders, and about the file system as a whole.
 *
 * The backend hands entries to a sink, which writes each into the reply as it comes. READDIRPLUS looks each up, too,
 * and tells its attributes: a listing with details takes one request, and not one a name.
 *
 *     fuse_dirent:      inode, offset behind it, name length, type │ name │ zeros up to 8 bytes
 *     fuse_direntplus:  fuse_entry_out │ fuse_dirent …
 *
 * Whether an entry fits is decided before it is looked up: each lookup that was counted is told. An entry that cannot
 * be looked up (it went meanwhile), or would go by that (FS_LISTED_ONLY), has node 0, of which Linux takes the name
 * only. "." and ".." are never looked up.
 *
 * Invariants: (1) a listing never exceeds what was asked for, LIMIT_FS_QUICK_BYTES, and the room of the chain. (2) an
 * error after the first entry is not told: the guest comes back for the rest, and hears it then.
 *
 * Trust: sizes and offsets come from a hostile guest, names from the backend.
 */
#include "device/fs/request.h"

#include "base/limits.h"

#include <errno.h>
#include <string.h>

struct listing {
    struct request *request; /* borrowed */
    size_t used, room;
    bool is_plus, is_full;
};

int handle_open_folder(struct request *request)
{
    struct fs_server *server = request->server;
    const struct fs_backend *backend = &server->backend;
    struct handle handle = {.kind = HANDLE_FOLDER, .node = request->header.nodeid};
    struct fuse_open_out out = {0};
    int result = handles_reserve(server->handles, &out.fh);
    if (result < 0)
        return result;
    if (backend->ops.open_folder != NULL)
        result = backend->ops.open_folder(backend->user, &request->caller, handle.node, &handle.handle);
    if ((result == -EMFILE || result == -ENFILE) && server_shed_kept(server))
        result = backend->ops.open_folder(backend->user, &request->caller, handle.node, &handle.handle);
    if (result < 0 && result != -ENOSYS) { /* as for files: the guest always has handles */
        handles_cancel(server->handles, out.fh);
        return result;
    }
    known_pin_again(server->known, handle.node);
    handles_fill(server->handles, out.fh, &handle);
    if (server->cache == FS_CACHE_ALWAYS)
        out.open_flags = FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR;
    return reply_bytes(request, &out, sizeof(out));
}

/* What READDIRPLUS says of the entry; all zeros when it is not to be known. */
static struct fuse_entry_out look_up(const struct request *request, const char *name)
{
    struct fs_server *server = request->server;
    struct fuse_entry_out out = {0};
    struct vial_fs_entry entry = {0};
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return out;
    if (server->backend.ops.lookup(server->backend.user, &request->caller, request->header.nodeid, name, &entry) < 0 ||
        entry_tell(server, &entry, false, &out) < 0)
        return (struct fuse_entry_out){0};
    return out;
}

static bool add_entry(void *sink, const char *name, uint64_t inode, uint32_t type, uint64_t next_offset)
{
    struct listing *listing = sink;
    static const uint8_t zeros[8];
    bool is_looked_up = listing->is_plus && (type & FS_LISTED_ONLY) == 0;
    type &= ~FS_LISTED_ONLY;
    size_t length = strlen(name);
    if (length == 0 || length > FS_NAME_BYTES || strchr(name, '/') != NULL)
        return true; /* Linux would refuse the whole listing because of it */
    size_t plus_bytes = listing->is_plus ? sizeof(struct fuse_entry_out) : 0;
    size_t unpadded = plus_bytes + FUSE_NAME_OFFSET + length;
    size_t bytes = FUSE_DIRENT_ALIGN(unpadded);
    listing->is_full = bytes > listing->room - listing->used;
    if (listing->is_full)
        return false;
    struct fuse_dirent entry = {.ino = inode, .off = next_offset, .namelen = (uint32_t)length, .type = type};
    size_t at = listing->used;
    if (listing->is_plus) {
        struct fuse_entry_out plus = is_looked_up ? look_up(listing->request, name) : (struct fuse_entry_out){0};
        reply_put(listing->request, at, &plus, sizeof(plus));
    }
    reply_put(listing->request, at + plus_bytes, &entry, FUSE_NAME_OFFSET);
    reply_put(listing->request, at + plus_bytes + FUSE_NAME_OFFSET, name, length);
    reply_put(listing->request, at + unpadded, zeros, bytes - unpadded);
    listing->used += bytes;
    return true;
}

static int list(struct request *request, bool is_plus)
{
    const struct fs_backend *backend = &request->server->backend;
    const struct fuse_read_in *in = &request->arguments.read;
    struct listing listing = {.request = request, .room = in->size, .is_plus = is_plus};
    if (in->size > reply_room(request))
        return -EIO;
    if (listing.room > LIMIT_FS_QUICK_BYTES)
        listing.room = LIMIT_FS_QUICK_BYTES;
    if (backend->ops.read_folder == NULL)
        return -ENOSYS;
    int result = backend->ops.read_folder(backend->user, request->header.nodeid, request->handle.handle, in->offset,
                                          add_entry, &listing);
    if (listing.used == 0 && result == 0 && listing.is_full)
        result = -EINVAL; /* as getdents(2): nothing would look like the end */
    return listing.used == 0 && result < 0 ? result : reply_finish(request, listing.used);
}

int handle_read_folder(struct request *request)
{
    return list(request, false);
}

int handle_read_folder_plus(struct request *request)
{
    return list(request, true);
}

int handle_sync_folder(struct request *request)
{
    const struct fs_backend *backend = &request->server->backend;
    if (backend->ops.sync_folder == NULL)
        return -ENOSYS;
    int result = backend->ops.sync_folder(backend->user, request->header.nodeid, request->handle.handle,
                                          (request->arguments.sync.fsync_flags & FUSE_FSYNC_FDATASYNC) != 0);
    return result < 0 ? result : reply_empty(request);
}

int handle_sync_all(struct request *request)
{
    const struct fs_backend *backend = &request->server->backend;
    if (backend->ops.sync_all == NULL)
        return -ENOSYS;
    if (request->server->read_only) /* it has nothing to write, and must not make the host write what others have */
        return reply_empty(request);
    int result = backend->ops.sync_all(backend->user);
    return result < 0 ? result : reply_empty(request);
}
