// SPDX-License-Identifier: Apache-2.0
/* What the guest is told.
 *
 * A reply is a header and a payload in the writable part of the chain. The payload is written first, and its length is
 * known not to exceed the room; so the header never promises more than there is.
 *
 * Invariants: (1) nothing is written beyond the writable bytes. (2) the used length is what the header says, or 0 where
 * there is no reply. (3) the guest gets no errno that Linux would not take from a file system. (4) an entry that the
 * guest is told of is in the books, and one that it is not told of is forgotten in the backend.
 *
 * Trust: the room comes from a hostile guest; entries, attributes and errors come from a backend, which may be somebody
 * else's program.
 */
#include "device/fs/request.h"

#include "base/limits.h"

#include <errno.h>

/* Errors that Linux takes in a reply: fuse_dev_do_write refuses others. */
enum { largest_errno = 511 };

size_t reply_room(const struct request *request)
{
    uint64_t bytes = request->writable_bytes;
    return bytes < sizeof(struct fuse_out_header) ? 0 : (size_t)(bytes - sizeof(struct fuse_out_header));
}

void reply_put(struct request *request, size_t offset, const void *bytes, size_t length)
{
    virtio_write_spans(request->writable, request->writable_count, sizeof(struct fuse_out_header) + offset, bytes,
                       length);
}

static void put_header(struct request *request, size_t length, int error)
{
    struct fuse_out_header header = {
        .len = (uint32_t)(sizeof(header) + length),
        .error = error,
        .unique = request->header.unique,
    };
    if (request->writable_bytes < sizeof(header)) {
        virtio_device_blame(request->server->device, "a file system request has no room for its reply");
        request->written_bytes = 0;
        return;
    }
    virtio_write_spans(request->writable, request->writable_count, 0, &header, sizeof(header));
    request->written_bytes = header.len;
}

int reply_finish(struct request *request, size_t length)
{
    if (length > reply_room(request))
        return -EIO;
    put_header(request, length, 0);
    return 0;
}

int reply_bytes(struct request *request, const void *bytes, size_t length)
{
    if (length > reply_room(request))
        return -EIO;
    reply_put(request, 0, bytes, length);
    return reply_finish(request, length);
}

int reply_empty(struct request *request)
{
    return reply_finish(request, 0);
}

void reply_nothing(struct request *request)
{
    request->written_bytes = 0;
}

void reply_error(struct request *request, int error)
{
    atomic_fetch_add_explicit(&request->server->errors, 1, memory_order_relaxed);
    put_header(request, 0, error < 0 && error >= -largest_errno ? error : -EIO);
}

/* ---- entries and attributes ---- */

uint64_t valid_ns(const struct fs_server *server, uint64_t backend_ns)
{
    const uint64_t most_ns = (uint64_t)LIMIT_FS_VALID_S * FS_SECOND_NS;
    if (server->cache == FS_CACHE_NONE)
        return 0;
    return server->cache == FS_CACHE_ALWAYS || backend_ns > most_ns ? most_ns : backend_ns;
}

struct fuse_attr attributes_tell(const struct vial_fs_attributes *attributes)
{
    return (struct fuse_attr){
        .ino = attributes->inode,
        .size = attributes->size_bytes,
        .blocks = attributes->blocks,
        .atime = (uint64_t)attributes->access_s,
        .mtime = (uint64_t)attributes->modify_s,
        .ctime = (uint64_t)attributes->change_s,
        .atimensec = attributes->access_ns,
        .mtimensec = attributes->modify_ns,
        .ctimensec = attributes->change_ns,
        .mode = attributes->mode,
        .nlink = attributes->links,
        .uid = attributes->uid,
        .gid = attributes->gid,
        .rdev = attributes->device,
        .blksize = attributes->block_bytes,
    };
}

static void note_least(atomic_uint_fast64_t *place, uint64_t valid)
{
    uint_fast64_t least = atomic_load_explicit(place, memory_order_relaxed);
    while (valid < least &&
           !atomic_compare_exchange_weak_explicit(place, &least, valid, memory_order_relaxed, memory_order_relaxed)) {
    }
}

int entry_tell(struct fs_server *server, const struct vial_fs_entry *entry, bool pins, struct fuse_entry_out *ret_out)
{
    uint64_t owed = 0;
    if (entry->node == 0)
        return -EIO;
    int result = known_add(server->known, entry->node, pins, &owed);
    if (result < 0)
        owed = 1; /* the one that the guest will not hear of */
    if (owed > 0 && server->backend.ops.forget != NULL)
        server->backend.ops.forget(server->backend.user, entry->node, owed);
    if (result < 0)
        return result;
    note_least(&server->attributes_valid_ns, entry->attributes_valid_ns);
    if (!fs_entry_is_once(entry)) /* which says nothing of other names */
        note_least(&server->names_valid_ns, entry->entry_valid_ns);
    uint64_t entry_ns = fs_entry_is_once(entry) ? 0 : valid_ns(server, entry->entry_valid_ns);
    uint64_t attributes_ns = valid_ns(server, entry->attributes_valid_ns);
    *ret_out = (struct fuse_entry_out){
        .nodeid = entry->node,
        .generation = entry->generation,
        .entry_valid = entry_ns / FS_SECOND_NS,
        .attr_valid = attributes_ns / FS_SECOND_NS,
        .entry_valid_nsec = (uint32_t)(entry_ns % FS_SECOND_NS),
        .attr_valid_nsec = (uint32_t)(attributes_ns % FS_SECOND_NS),
        .attr = attributes_tell(&entry->attributes),
    };
    return 0;
}

int reply_entry(struct request *request, const struct vial_fs_entry *entry)
{
    struct fuse_entry_out out;
    int result = entry_tell(request->server, entry, false, &out);
    return result < 0 ? result : reply_bytes(request, &out, sizeof(out)); /* which fits: the room was checked */
}
