// SPDX-License-Identifier: Apache-2.0
/* The session of a guest's driver: from INIT to DESTROY.
 *
 *     closed ──INIT──> open ──DESTROY, reset, end of the device──> closed
 *                       └─INIT: a guest that began anew and could not say so (behind vhost-user a front end only pauses
 *                         the queues); what the old one had is given up first
 *
 * What is agreed on (linux/fuse.h): protocol 7.38 or the guest's own, from 7.27 on, which every Linux with virtio-fs
 * speaks. Of the features, those that save work and change no meaning, and by cache policy:
 *
 *     none     AUTO_INVAL_DATA, validity 0; files are read and written past the guest's cache (FOPEN_DIRECT_IO), but
 *              only where the guest can map such files (DIRECT_IO_ALLOW_MMAP, Linux 6.6): a program that maps its
 *              database is not to fail. An older guest caches, and asks for the attributes at each read.
 *     auto     AUTO_INVAL_DATA: cached contents go when size or time have changed
 *     always   EXPLICIT_INVAL_DATA: they never go by themselves
 *
 * Not offered: DONT_MASK (the guest's kernel applies the umask), SUBMOUNTS, WRITEBACK_CACHE (a host's process would see
 * writes late), SETXATTR_EXT, SECURITY_CTX.
 *
 * NO_OPEN_SUPPORT is agreed on where the device was made for it (fs.h: without_opens), and saves two requests each time
 * that a program opens a file whose contents the guest has cached. OPEN is answered with ENOSYS then, after which Linux
 * neither opens nor releases, keeps what it has cached, and reads by the node with 0 for a handle. No handle of a file
 * is ever given out in such a session; another one than 0 is EBADF. What changes for the guest:
 *
 *   - Contents that the host changes in place are found when the guest sees other attributes, once their validity has
 *     passed (auto: a second), and no longer at each open. With `always` they never were. A file that the host replaces
 *     by renaming is found by the next lookup, as ever, for it is another node.
 *   - An error of the host at opening comes at the first read.
 *   - A file that the host removes while the guest has it open lasts as long as we happen to hold a descriptor of it
 *     (node.c, kept.c: those that were used last); afterwards what the guest has not cached is ESTALE.
 *   - In a mount that the guest made without "ro", an open for writing succeeds, and each write fails (EROFS).
 *
 * That weakens what `auto` promises, so ordinary read-only shares have opens. It is right under the layer of a root
 * that is thrown away, as overlayfs demands that what is below it does not change at all.
 *
 * FORGETs come through a queue of their own, so they may meet a request of another queue that works on the same node.
 * The books (known.c) make them wait for each other. A LOOKUP is booked before its reply is published, so an honest
 * FORGET always finds it; a forged one is cut to what is there, and what it missed goes at the end of the session.
 *
 * Invariants: (1) the session changes only on the device's thread while no worker works. (2) at its end all handles are
 * closed in the backend, and every lookup that the backend counted is taken back. (3) handles go before nodes, and so
 * do files that are kept open without one. (4) without opens there is no handle of a file.
 *
 * Trust: all of it comes from a hostile guest.
 */
#include "device/fs/request.h"

#include "base/limits.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

enum { protocol_major = 7, protocol_minor = 38, least_minor = 27 };
enum { background_requests = 64, congestion_requests = 48, page_bytes = 4096, page_bits = 12 };

/* 7.39, newer than the header we are compiled with. */
#define INIT_DIRECT_IO_ALLOW_MMAP (UINT64_C(1) << 36)

/* ---- nodes and handles ---- */

void server_forget(struct fs_server *server, uint64_t node, uint64_t lookups)
{
    struct kept_file file;
    if (lookups > 0 && server->kept != NULL && kept_drop(server->kept, node, &file))
        server_close_kept(server, &file);
    if (lookups > 0 && server->backend.ops.forget != NULL)
        server->backend.ops.forget(server->backend.user, node, lookups);
}

void server_unpin(struct fs_server *server, uint64_t node)
{
    server_forget(server, node, known_unpin(server->known, node));
}

static void close_in_backend(struct fs_server *server, const struct handle *handle)
{
    const struct vial_fs_ops *ops = &server->backend.ops;
    int (*function)(void *, uint64_t, uint64_t) = handle->kind == HANDLE_FILE ? ops->close : ops->close_folder;
    if (function != NULL)
        function(server->backend.user, handle->node, handle->handle); /* nobody waits for how that went */
}

void server_close(struct fs_server *server, const struct handle *handle)
{
    close_in_backend(server, handle);
    server_unpin(server, handle->node);
}

void server_close_kept(struct fs_server *server, const struct kept_file *file)
{
    struct handle handle = {.kind = HANDLE_FILE, .node = file->node, .handle = file->handle};
    close_in_backend(server, &handle);
}

bool server_shed_kept(struct fs_server *server)
{
    struct kept_file file;
    bool has_any = false;
    while (server->kept != NULL && kept_take(server->kept, &file)) {
        server_close_kept(server, &file);
        has_any = true;
    }
    return has_any;
}

void session_begin_validity(struct fs_server *server)
{
    atomic_store_explicit(&server->attributes_valid_ns, FS_SECOND_NS, memory_order_relaxed);
    atomic_store_explicit(&server->names_valid_ns, UINT64_MAX, memory_order_relaxed);
}

void session_end(struct fs_server *server)
{
    struct handle handle;
    uint64_t node, lookups;
    size_t cursor = 0;
    server_shed_kept(server);
    while (handles_next(server->handles, &cursor, &handle))
        server_close(server, &handle);
    handles_reset(server->handles);
    cursor = 0;
    while (known_next(server->known, &cursor, &node, &lookups))
        server_forget(server, node, lookups);
    known_reset(server->known);
    if (server->window != NULL)
        window_clear(server->window);
    server->session = (struct fs_session){0};
    session_begin_validity(server);
}

/* ---- INIT ---- */

static uint64_t wanted_features(const struct fs_server *server)
{
    uint64_t features = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS |
                        FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES |
                        FUSE_HANDLE_KILLPRIV_V2 | FUSE_INIT_EXT;
    features |= server->cache == FS_CACHE_ALWAYS ? FUSE_EXPLICIT_INVAL_DATA : FUSE_AUTO_INVAL_DATA;
    features |= server->cache == FS_CACHE_NONE ? INIT_DIRECT_IO_ALLOW_MMAP : FUSE_CACHE_SYMLINKS;
    if (server->without_opens)
        features |= FUSE_NO_OPEN_SUPPORT;
    if (server->posix_acl)
        features |= FUSE_POSIX_ACL;
    if (server->window != NULL)
        features |= FUSE_MAP_ALIGNMENT;
    return features;
}

static uint64_t offered_features(const struct request *request)
{
    uint32_t more = 0; /* fuse_init_in.flags2 */
    uint64_t features = request->arguments.init.flags;
    if ((features & FUSE_INIT_EXT) != 0 && request_read_tail(request, 0, &more, sizeof(more)))
        features |= (uint64_t)more << 32;
    return features;
}

/* A guest that begins anew in a loop does not fill the log: the 1st, 2nd, 4th, 8th … is told. */
static bool is_worth_a_line(uint64_t count)
{
    return (count & (count - 1)) == 0;
}

int handle_init(struct request *request)
{
    struct fs_server *server = request->server;
    const struct fuse_init_in *in = &request->arguments.init;
    struct fuse_init_out out = {.major = protocol_major, .minor = protocol_minor};
    bool is_logged = is_worth_a_line(++server->inits);
    workers_drain(server->workers);
    session_end(server);
    if (in->major > protocol_major) /* it asks again with ours */
        return reply_bytes(request, &out, sizeof(out));
    if (in->major < protocol_major || in->minor < least_minor) {
        if (is_logged)
            log_warn("fs.guest_too_old", LOG_UINT("major", in->major), LOG_UINT("minor", in->minor),
                     LOG_UINT("least_minor", least_minor));
        return -EPROTO;
    }
    uint64_t features = offered_features(request) & wanted_features(server);
    if ((features & FUSE_NO_OPEN_SUPPORT) !=
        0) /* nobody truncates by opening: a change of size says it, and is refused */
        features &= ~(uint64_t)FUSE_ATOMIC_O_TRUNC;
    if (in->minor < out.minor)
        out.minor = in->minor;
    out.max_readahead = in->max_readahead;
    out.flags = (uint32_t)features;
    out.flags2 = (uint32_t)(features >> 32);
    out.max_background = background_requests;
    out.congestion_threshold = congestion_requests;
    out.max_write = LIMIT_FS_TRANSFER_BYTES;
    out.time_gran = 1;
    out.max_pages = LIMIT_FS_TRANSFER_BYTES / page_bytes;
    out.map_alignment = (features & FUSE_MAP_ALIGNMENT) != 0 ? page_bits : 0;
    server->session = (struct fs_session){
        .is_open = true,
        .minor = out.minor,
        .without_opens = (features & FUSE_NO_OPEN_SUPPORT) != 0,
        .can_map_direct_io = (features & INIT_DIRECT_IO_ALLOW_MMAP) != 0,
    };
    if (is_logged)
        log_info("fs.session_opened", LOG_UINT("minor", out.minor), LOG_HEX("features", features),
                 LOG_UINT("count", server->inits));
    return reply_bytes(request, &out, sizeof(out));
}

int handle_destroy(struct request *request)
{
    workers_drain(request->server->workers);
    session_end(request->server);
    return reply_empty(request);
}

/* ---- without a reply ---- */

static void forget(struct fs_server *server, uint64_t node, uint64_t lookups)
{
    server_forget(server, node, known_forget(server->known, node, lookups));
}

int handle_forget(struct request *request)
{
    forget(request->server, request->header.nodeid, request->arguments.forget.nlookup);
    return 0;
}

int handle_batch_forget(struct request *request)
{
    struct fuse_forget_one some[64];
    const size_t most = sizeof(some) / sizeof(some[0]);
    uint64_t left = request->arguments.batch_forget.count, offset = 0;
    if (left > request->tail_bytes / sizeof(some[0])) /* more than there are: those that are there */
        left = request->tail_bytes / sizeof(some[0]);
    while (left > 0) {
        size_t count = left < most ? (size_t)left : most;
        if (!request_read_tail(request, offset, some, count * sizeof(some[0])))
            return -EINVAL;
        for (size_t i = 0; i < count; i++)
            forget(request->server, some[i].nodeid, some[i].nlookup);
        offset += count * sizeof(some[0]);
        left -= count;
    }
    return 0;
}

/* Nothing of ours waits for somebody else, so nothing has to be interrupted; the request it names is answered. */
int handle_interrupt(struct request *request)
{
    (void)request;
    return 0;
}
