// SPDX-License-Identifier: Apache-2.0
/* Opcodes of the DAX window: pieces of files that the guest reads and writes as memory (virtio 1.2, 5.11.6.4).
 *
 * Linux names no handle when it asks for a mapping (fuse_setupmapping_in.fh is all ones), so the backend is asked for
 * a descriptor of the node, for reading or for both, and that is what decides what the mapping allows. It is closed at
 * once: a mapping keeps its file. A mapping that goes on when its file was closed is what the guest's kernel wants; all
 * of them go with the session.
 *
 * Invariants: (1) a read-only file system has no mapping that can be written. (2) only regular files are mapped
 * (window.c looks at the descriptor). (3) one message removes at most LIMIT_FS_TRANSFER_BYTES worth of pieces.
 *
 * Trust: all numbers come from a hostile guest.
 */
#include "device/fs/request.h"

#include "base/fd.h"
#include "base/limits.h"

#include <errno.h>

enum { known_flags = FUSE_SETUPMAPPING_FLAG_READ | FUSE_SETUPMAPPING_FLAG_WRITE };

int handle_map(struct request *request)
{
    struct fs_server *server = request->server;
    const struct fs_backend *backend = &server->backend;
    const struct fuse_setupmapping_in *in = &request->arguments.map;
    bool for_writing = (in->flags & FUSE_SETUPMAPPING_FLAG_WRITE) != 0;
    auto_close int fd = -1;
    if (server->window == NULL || backend->ops.map == NULL)
        return -ENOSYS;
    if ((in->flags & ~(uint64_t)known_flags) != 0)
        return -EINVAL;
    if (for_writing && server->read_only)
        return -EROFS;
    int result = backend->ops.map(backend->user, &request->caller, request->header.nodeid, for_writing, &fd);
    if (result == 0)
        result = window_map(server->window, in->moffset, in->len, fd, in->foffset, for_writing);
    return result < 0 ? result : reply_empty(request);
}

int handle_unmap(struct request *request)
{
    struct fs_server *server = request->server;
    struct fuse_removemapping_one one;
    uint64_t count = request->arguments.unmap.count;
    if (server->window == NULL)
        return -ENOSYS;
    if (request->tail_bytes % sizeof(one) != 0 || count != request->tail_bytes / sizeof(one))
        return -EINVAL;
    for (uint64_t i = 0; i < count; i++) {
        if (!request_read_tail(request, i * sizeof(one), &one, sizeof(one)))
            return -EINVAL;
        int result = window_unmap(server->window, one.moffset, one.len);
        if (result < 0)
            return result;
    }
    return reply_empty(request);
}
