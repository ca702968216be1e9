// SPDX-License-Identifier: Apache-2.0
/* Opcodes about names in folders: looking them up, making, moving and removing what they stand for.
 *
 * The header's node is the folder. What makes an entry counts as a lookup of it, which is booked before the guest hears
 * of it (reply_entry).
 *
 * A name that is not there is an answer, too: where nobody else changes the files, the guest may remember it as long as
 * any other (a reply with node 0), and stops asking for libraries in folders that do not have them. Where everything is
 * read-only, it may for as long as it believes a name that is there, a second at most: what the host makes is seen as
 * late as what the host removes. In other folders, where host and guest may wait for each other's files, it asks each
 * time.
 *
 * Invariants: names are one component without slash, and not "." or ".."; read-only was checked (request.c).
 *
 * Trust: names, modes and flags come from a hostile guest, entries from the backend.
 */
#include "device/fs/request.h"

#include "base/limits.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

enum { name_flags = RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT };

/* For how long the guest may believe that a name is not there: 0 means not at all. */
static uint64_t missing_valid_ns(const struct fs_server *server)
{
    uint64_t valid = atomic_load_explicit(&server->names_valid_ns, memory_order_relaxed);
    if (server->cache == FS_CACHE_ALWAYS)
        return (uint64_t)LIMIT_FS_VALID_S * FS_SECOND_NS;
    if (server->cache == FS_CACHE_NONE || !server->read_only || valid == UINT64_MAX)
        return 0;
    return valid < FS_SECOND_NS ? valid : FS_SECOND_NS;
}

static int reply_missing(struct request *request, uint64_t valid)
{
    struct fuse_entry_out out = {
        .entry_valid = valid / FS_SECOND_NS,
        .entry_valid_nsec = (uint32_t)(valid % FS_SECOND_NS),
    };
    return reply_bytes(request, &out, sizeof(out));
}

int handle_lookup(struct request *request)
{
    struct fs_server *server = request->server;
    struct vial_fs_entry entry = {0};
    int result = server->backend.ops.lookup(server->backend.user, &request->caller, request->header.nodeid,
                                            request->name, &entry);
    uint64_t valid = result == -ENOENT ? missing_valid_ns(server) : 0;
    if (valid > 0)
        return reply_missing(request, valid);
    return result < 0 ? result : reply_entry(request, &entry);
}

int handle_read_link(struct request *request)
{
    const struct fs_backend *backend = &request->server->backend;
    char target[FS_TARGET_BYTES + 1];
    if (backend->ops.read_link == NULL)
        return -ENOSYS;
    ssize_t length = backend->ops.read_link(backend->user, &request->caller, request->header.nodeid, target,
                                            sizeof(target));
    if (length < 0)
        return (int)length;
    return length > FS_TARGET_BYTES ? -ENAMETOOLONG : reply_bytes(request, target, (size_t)length);
}

int handle_make_link(struct request *request)
{
    const struct fs_backend *backend = &request->server->backend;
    struct vial_fs_entry entry = {0};
    if (backend->ops.make_link == NULL)
        return -ENOSYS;
    int result = backend->ops.make_link(backend->user, &request->caller, request->header.nodeid, request->name,
                                        request->second_name, &entry);
    return result < 0 ? result : reply_entry(request, &entry);
}

int handle_make_node(struct request *request)
{
    const struct fs_backend *backend = &request->server->backend;
    const struct fuse_mknod_in *in = &request->arguments.make_node;
    struct vial_fs_entry entry = {0};
    if ((in->mode & ~(uint32_t)(S_IFMT | FS_MODE_BITS)) != 0 || S_ISDIR(in->mode) || S_ISLNK(in->mode))
        return -EINVAL;
    if (backend->ops.make_node == NULL)
        return -ENOSYS;
    request->caller.umask = in->umask;
    int result = backend->ops.make_node(backend->user, &request->caller, request->header.nodeid, request->name,
                                        in->mode, in->rdev, &entry);
    return result < 0 ? result : reply_entry(request, &entry);
}

int handle_make_folder(struct request *request)
{
    const struct fs_backend *backend = &request->server->backend;
    const struct fuse_mkdir_in *in = &request->arguments.make_folder;
    struct vial_fs_entry entry = {0};
    if (backend->ops.make_folder == NULL)
        return -ENOSYS;
    request->caller.umask = in->umask;
    int result = backend->ops.make_folder(backend->user, &request->caller, request->header.nodeid, request->name,
                                          in->mode & FS_MODE_BITS, &entry);
    return result < 0 ? result : reply_entry(request, &entry);
}

int handle_unlink(struct request *request)
{
    const struct fs_backend *backend = &request->server->backend;
    if (backend->ops.unlink == NULL)
        return -ENOSYS;
    int result = backend->ops.unlink(backend->user, &request->caller, request->header.nodeid, request->name);
    return result < 0 ? result : reply_empty(request);
}

int handle_remove_folder(struct request *request)
{
    const struct fs_backend *backend = &request->server->backend;
    if (backend->ops.remove_folder == NULL)
        return -ENOSYS;
    int result = backend->ops.remove_folder(backend->user, &request->caller, request->header.nodeid, request->name);
    return result < 0 ? result : reply_empty(request);
}

static int move(struct request *request, uint64_t folder, uint32_t flags)
{
    const struct fs_backend *backend = &request->server->backend;
    bool is_contradiction = (flags & RENAME_EXCHANGE) != 0 && (flags & ~(uint32_t)RENAME_EXCHANGE) != 0;
    if ((flags & ~(uint32_t)name_flags) != 0 || is_contradiction) /* renameat2(2) */
        return -EINVAL;
    if (backend->ops.rename == NULL)
        return -ENOSYS;
    int result = request_pin_second(request, folder);
    if (result == 0)
        result = backend->ops.rename(backend->user, &request->caller, request->header.nodeid, request->name, folder,
                                     request->second_name, flags);
    return result < 0 ? result : reply_empty(request);
}

int handle_rename(struct request *request)
{
    return move(request, request->arguments.rename.newdir, 0);
}

int handle_rename2(struct request *request)
{
    return move(request, request->arguments.rename2.newdir, request->arguments.rename2.flags);
}

int handle_hard_link(struct request *request)
{
    const struct fs_backend *backend = &request->server->backend;
    struct vial_fs_entry entry = {0};
    if (backend->ops.hard_link == NULL)
        return -ENOSYS;
    int result = request_pin_second(request, request->arguments.link.oldnodeid);
    if (result == 0)
        result = backend->ops.hard_link(backend->user, &request->caller, request->second_node, request->header.nodeid,
                                        request->name, &entry);
    return result < 0 ? result : reply_entry(request, &entry);
}
