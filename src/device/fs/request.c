// SPDX-License-Identifier: Apache-2.0
/* A request of the guest: read once, checked, carried out.
 *
 *     readable:  fuse_in_header │ arguments │ name(s), or bytes          (virtio 1.2, 5.11.6; linux/fuse.h)
 *     writable:  fuse_out_header │ payload
 *
 * A table says for each opcode how long its arguments are, what follows them, how much room the reply takes, which
 * nodes and handles must be there, and whether it changes something. One piece of code checks all of that before any
 * function of an opcode runs, so those deal with requests that are well-formed:
 *
 *     header's length ≤ readable bytes → opcode known → session open → arguments → names → node → handle → room
 *
 * The room is checked first, so that nothing has to be undone because its reply did not fit. A request without room for
 * even a header gets its chain back empty, and counts as the driver's fault.
 *
 * Invariants: (1) header, arguments and names are copied out of guest memory once; file contents are never copied here,
 * and never looked at. (2) a backend sees only nodes and handles that are pinned as long as it works with them. (3) in
 * a read-only file system no opcode of the table that changes something reaches the backend.
 *
 * Trust: every byte of a request comes from a hostile guest.
 */
#include "device/fs/request.h"

#include "base/alloc.h"
#include "base/limits.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

enum tail { /* what follows the arguments */
            TAIL_NONE,
            TAIL_NAME,
            TAIL_TWO_NAMES,
            TAIL_NAME_AND_TARGET,
            TAIL_XATTR_NAME,
            TAIL_XATTR_NAME_AND_VALUE, /* the value is read by the opcode */
            TAIL_BYTES,                /* read by the opcode */
};

enum {
    CHANGES = 1 << 0,      /* refused where everything is read-only */
    NO_NODE = 1 << 1,      /* the header's node means nothing */
    NEEDS_FILE = 1 << 2,   /* the first word of the arguments is an open file's handle, */
    NEEDS_FOLDER = 1 << 3, /* or a folder's */
    NO_REPLY = 1 << 4,
    ANY_TIME = 1 << 5, /* without a session, too */
    IN_TURN = 1 << 6,  /* on the device's thread, whatever the backend is like */
    READS = 1 << 7,    /* contents: without opens, by the node */
};

struct opcode {
    opcode_function function; /* NULL: not there */
    uint16_t argument_bytes;
    uint16_t reply_bytes; /* the least room behind the reply's header */
    uint8_t tail;         /* enum tail */
    uint8_t flags;
    uint8_t pace; /* enum request_pace */
};

#define ARGUMENTS(type) .argument_bytes = sizeof(struct type)
#define REPLY(type) .reply_bytes = sizeof(struct type)

/* ACCESS is not there because the guest's kernel checks permissions itself, POLL because files are always ready, locks
 * because a guest has them for itself; Linux never asks for these again after -ENOSYS. */
static const struct opcode opcodes[] = {
    [FUSE_LOOKUP] = {handle_lookup, .tail = TAIL_NAME, REPLY(fuse_entry_out)},
    [FUSE_FORGET] = {handle_forget, ARGUMENTS(fuse_forget_in), .flags = NO_NODE | NO_REPLY | IN_TURN},
    [FUSE_GETATTR] = {handle_get_attributes, ARGUMENTS(fuse_getattr_in), REPLY(fuse_attr_out)},
    [FUSE_SETATTR] = {handle_set_attributes, ARGUMENTS(fuse_setattr_in), REPLY(fuse_attr_out), .flags = CHANGES},
    [FUSE_READLINK] = {handle_read_link},
    [FUSE_SYMLINK] = {handle_make_link, .tail = TAIL_NAME_AND_TARGET, REPLY(fuse_entry_out), .flags = CHANGES},
    [FUSE_MKNOD] = {handle_make_node, ARGUMENTS(fuse_mknod_in), .tail = TAIL_NAME, REPLY(fuse_entry_out),
                    .flags = CHANGES},
    [FUSE_MKDIR] = {handle_make_folder, ARGUMENTS(fuse_mkdir_in), .tail = TAIL_NAME, REPLY(fuse_entry_out),
                    .flags = CHANGES},
    [FUSE_UNLINK] = {handle_unlink, .tail = TAIL_NAME, .flags = CHANGES},
    [FUSE_RMDIR] = {handle_remove_folder, .tail = TAIL_NAME, .flags = CHANGES},
    [FUSE_RENAME] = {handle_rename, ARGUMENTS(fuse_rename_in), .tail = TAIL_TWO_NAMES, .flags = CHANGES},
    [FUSE_LINK] = {handle_hard_link, ARGUMENTS(fuse_link_in), .tail = TAIL_NAME, REPLY(fuse_entry_out),
                   .flags = CHANGES},
    [FUSE_OPEN] = {handle_open, ARGUMENTS(fuse_open_in), REPLY(fuse_open_out)},
    [FUSE_READ] = {handle_read, ARGUMENTS(fuse_read_in), .flags = NEEDS_FILE | READS, .pace = REQUEST_MEDIUM},
    [FUSE_WRITE] = {handle_write, ARGUMENTS(fuse_write_in), .tail = TAIL_BYTES, REPLY(fuse_write_out),
                    .flags = CHANGES | NEEDS_FILE, .pace = REQUEST_MEDIUM},
    [FUSE_STATFS] = {handle_usage, REPLY(fuse_statfs_out)},
    [FUSE_RELEASE] = {handle_release, ARGUMENTS(fuse_release_in), .flags = NEEDS_FILE},
    [FUSE_FSYNC] = {handle_sync, ARGUMENTS(fuse_fsync_in), .flags = NEEDS_FILE, .pace = REQUEST_LONG},
    [FUSE_SETXATTR] = {handle_set_xattr, .argument_bytes = FUSE_COMPAT_SETXATTR_IN_SIZE,
                       .tail = TAIL_XATTR_NAME_AND_VALUE, .flags = CHANGES},
    [FUSE_GETXATTR] = {handle_get_xattr, ARGUMENTS(fuse_getxattr_in), .tail = TAIL_XATTR_NAME},
    [FUSE_LISTXATTR] = {handle_list_xattr, ARGUMENTS(fuse_getxattr_in)},
    [FUSE_REMOVEXATTR] = {handle_remove_xattr, .tail = TAIL_XATTR_NAME, .flags = CHANGES},
    [FUSE_FLUSH] = {handle_flush, ARGUMENTS(fuse_flush_in), .flags = NEEDS_FILE, .pace = REQUEST_MEDIUM},
    [FUSE_INIT] = {handle_init, .argument_bytes = 16, .tail = TAIL_BYTES, .flags = NO_NODE | ANY_TIME | IN_TURN,
                   REPLY(fuse_init_out)},
    [FUSE_OPENDIR] = {handle_open_folder, ARGUMENTS(fuse_open_in), REPLY(fuse_open_out)},
    [FUSE_READDIR] = {handle_read_folder, ARGUMENTS(fuse_read_in), .flags = NEEDS_FOLDER},
    [FUSE_RELEASEDIR] = {handle_release, ARGUMENTS(fuse_release_in), .flags = NEEDS_FOLDER},
    [FUSE_FSYNCDIR] = {handle_sync_folder, ARGUMENTS(fuse_fsync_in), .flags = NEEDS_FOLDER, .pace = REQUEST_LONG},
    [FUSE_CREATE] = {handle_create, ARGUMENTS(fuse_create_in), .tail = TAIL_NAME, .flags = CHANGES,
                     .reply_bytes = sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out)},
    [FUSE_INTERRUPT] = {handle_interrupt, .argument_bytes = sizeof(struct fuse_interrupt_in),
                        .flags = NO_NODE | NO_REPLY},
    [FUSE_DESTROY] = {handle_destroy, .flags = NO_NODE | IN_TURN},
    [FUSE_IOCTL] = {handle_ioctl, ARGUMENTS(fuse_ioctl_in), .tail = TAIL_BYTES, REPLY(fuse_ioctl_out),
                    .flags = IN_TURN},
    [FUSE_BATCH_FORGET] = {handle_batch_forget, ARGUMENTS(fuse_batch_forget_in), .tail = TAIL_BYTES,
                           .flags = NO_NODE | NO_REPLY | IN_TURN},
    [FUSE_FALLOCATE] = {handle_allocate, ARGUMENTS(fuse_fallocate_in), .flags = CHANGES | NEEDS_FILE,
                        .pace = REQUEST_LONG},
    [FUSE_READDIRPLUS] = {handle_read_folder_plus, ARGUMENTS(fuse_read_in), .flags = NEEDS_FOLDER},
    [FUSE_RENAME2] = {handle_rename2, ARGUMENTS(fuse_rename2_in), .tail = TAIL_TWO_NAMES, .flags = CHANGES},
    [FUSE_LSEEK] = {handle_seek, ARGUMENTS(fuse_lseek_in), .flags = NEEDS_FILE | READS, REPLY(fuse_lseek_out)},
    [FUSE_COPY_FILE_RANGE] = {handle_copy, ARGUMENTS(fuse_copy_file_range_in), REPLY(fuse_write_out),
                              .flags = CHANGES | NEEDS_FILE, .pace = REQUEST_LONG},
    [FUSE_SETUPMAPPING] = {handle_map, ARGUMENTS(fuse_setupmapping_in)},
    [FUSE_REMOVEMAPPING] = {handle_unmap, ARGUMENTS(fuse_removemapping_in), .tail = TAIL_BYTES, .flags = NO_NODE},
    [FUSE_SYNCFS] = {handle_sync_all, .argument_bytes = sizeof(struct fuse_syncfs_in), .pace = REQUEST_LONG},
};

/* ---- reading ---- */

/* The next bytes up to a NUL, which ends them, as a string of at most `most` bytes. */
static int take_string(char **bytes, size_t *left, size_t most, const char **ret_string)
{
    const char *string = *bytes;
    size_t length = strnlen(string, *left);
    if (length == *left)
        return length > most ? -ENAMETOOLONG : -EINVAL;
    if (length > most)
        return -ENAMETOOLONG;
    if (length == 0)
        return -EINVAL;
    *ret_string = string;
    *bytes += length + 1;
    *left -= length + 1;
    return 0;
}

/* One component of a path. */
static int take_name(char **bytes, size_t *left, const char **ret_name)
{
    int result = take_string(bytes, left, FS_NAME_BYTES, ret_name);
    if (result < 0)
        return result;
    bool is_bad = strchr(*ret_name, '/') != NULL || strcmp(*ret_name, ".") == 0 || strcmp(*ret_name, "..") == 0;
    return is_bad ? -EINVAL : 0;
}

/* Copies what may be names out of guest memory, as far as there is room for, and takes them apart. */
static int read_names(struct request *request)
{
    enum tail tail = request->opcode->tail;
    size_t left = sizeof(request->names);
    char *bytes = request->names;
    if (tail == TAIL_NONE || tail == TAIL_BYTES)
        return tail == TAIL_NONE && request->tail_bytes > 0 ? -EINVAL : 0;
    if (left > request->tail_bytes)
        left = (size_t)request->tail_bytes;
    request_read_tail(request, 0, bytes, left);
    int result = tail == TAIL_XATTR_NAME || tail == TAIL_XATTR_NAME_AND_VALUE
                     ? take_string(&bytes, &left, FS_NAME_BYTES, &request->name)
                     : take_name(&bytes, &left, &request->name);
    if (result == 0 && tail == TAIL_TWO_NAMES)
        result = take_name(&bytes, &left, &request->second_name);
    if (result == 0 && tail == TAIL_NAME_AND_TARGET)
        result = take_string(&bytes, &left, FS_TARGET_BYTES, &request->second_name);
    if (result < 0)
        return result;
    uint64_t taken = (uint64_t)(bytes - request->names);
    if (tail != TAIL_XATTR_NAME_AND_VALUE)
        return taken == request->tail_bytes ? 0 : -EINVAL; /* exactly that, and nothing behind it */
    request->tail_offset += taken;
    request->tail_bytes -= taken;
    return 0;
}

static int read_arguments(struct request *request)
{
    size_t argument_bytes = request->opcode->argument_bytes;
    uint64_t body_bytes = request->header.len - sizeof(request->header);
    if (body_bytes < argument_bytes || request->header.total_extlen != 0) /* we have agreed on no extension */
        return -EINVAL;
    virtio_read_spans(request->readable, request->readable_count, sizeof(request->header), &request->arguments,
                      argument_bytes);
    request->tail_offset = sizeof(request->header) + argument_bytes;
    request->tail_bytes = body_bytes - argument_bytes;
    return read_names(request);
}

/* The header, and whether the message is one: 0 or the error to reply with. */
static int read_message(struct request *request)
{
    struct fuse_in_header *header = &request->header;
    struct virtio_device *device = request->server->device;
    if (virtio_read_spans(request->readable, request->readable_count, 0, header, sizeof(*header)) < sizeof(*header)) {
        virtio_device_blame(device, "a file system request is shorter than its header");
        return -EIO;
    }
    if (header->len < sizeof(*header) || header->len > request->readable_bytes ||
        header->len > sizeof(*header) + sizeof(request->arguments) + LIMIT_FS_TRANSFER_BYTES) {
        virtio_device_blame(device, "a file system request has a wrong length");
        return -EIO;
    }
    if (header->opcode >= array_length(opcodes) || opcodes[header->opcode].function == NULL)
        return -ENOSYS;
    request->opcode = &opcodes[header->opcode];
    request->caller = (struct vial_fs_caller){.uid = header->uid, .gid = header->gid, .pid = header->pid};
    return read_arguments(request);
}

void request_read(struct request *request, const struct queue_chain *chain)
{
    request->head = chain->head;
    request->readable = chain->readable;
    request->readable_count = chain->readable_count;
    request->readable_bytes = chain->readable_bytes;
    request->writable = chain->writable;
    request->writable_count = chain->writable_count;
    request->writable_bytes = chain->writable_bytes;
    request->opcode = NULL;
    request->header = (struct fuse_in_header){0};
    request->arguments = (union request_arguments){0};
    request->name = request->second_name = NULL;
    request->has_node = request->has_second_node = request->has_handle = request->has_second_handle =
        request->has_kept = false;
    request->written_bytes = 0;
    request->error = read_message(request);
}

bool request_read_tail(const struct request *request, uint64_t offset, void *bytes, size_t length)
{
    if (offset > request->tail_bytes || length > request->tail_bytes - offset)
        return false;
    return virtio_read_spans(request->readable, request->readable_count, (size_t)(request->tail_offset + offset), bytes,
                             length) == length;
}

int request_keep_spans(struct request *request)
{
    size_t count = request->readable_count + request->writable_count;
    if (count > request->span_capacity) {
        struct iovec *larger = alloc_zero(2 * count * sizeof(larger[0]));
        if (larger == NULL)
            return -ENOMEM;
        free(request->spans);
        request->spans = larger;
        request->span_capacity = count;
    }
    for (size_t i = 0; i < request->readable_count; i++)
        request->spans[i] = request->readable[i];
    for (size_t i = 0; i < request->writable_count; i++)
        request->spans[request->readable_count + i] = request->writable[i];
    request->readable = request->spans;
    request->writable = request->spans + request->readable_count;
    return 0;
}

const struct iovec *request_parts(const struct request *request)
{
    return request->spans + request->span_capacity;
}

int request_cut(struct request *request, const struct iovec *spans, size_t count, uint64_t offset, size_t length)
{
    struct iovec *parts = request->spans + request->span_capacity;
    int made = 0;
    for (size_t i = 0; i < count && length > 0; i++) {
        if (offset >= spans[i].iov_len) {
            offset -= spans[i].iov_len;
            continue;
        }
        if (made == IOV_MAX)
            return -EINVAL;
        size_t part = spans[i].iov_len - (size_t)offset;
        if (part > length)
            part = length;
        parts[made++] = (struct iovec){.iov_base = (uint8_t *)spans[i].iov_base + offset, .iov_len = part};
        offset = 0;
        length -= part;
    }
    return length == 0 ? made : -EINVAL;
}

enum request_pace request_pace(const struct request *request)
{
    if (request->error < 0 || (request->opcode->flags & IN_TURN) != 0)
        return REQUEST_QUICK;
    if (request->server->backend_may_wait)
        return REQUEST_LONG;
    bool is_large = request->tail_bytes > LIMIT_FS_QUICK_BYTES ||
                    (request->header.opcode == FUSE_READ && request->arguments.read.size > LIMIT_FS_QUICK_BYTES);
    return is_large ? REQUEST_LONG : (enum request_pace)request->opcode->pace;
}

/* ---- nodes and handles ---- */

int request_pin_second(struct request *request, uint64_t node)
{
    if (!known_pin(request->server->known, node))
        return -ESTALE;
    request->second_node = node;
    request->has_second_node = true;
    return 0;
}

int request_pin_handle(struct request *request, uint64_t number, enum handle_kind kind)
{
    int result = handles_pin(request->server->handles, number, kind, request->header.nodeid, &request->handle);
    request->handle_number = number;
    request->has_handle = result == 0;
    return result;
}

int request_pin_second_handle(struct request *request, uint64_t number)
{
    int result = handles_pin(request->server->handles, number, HANDLE_FILE, request->second_node,
                             &request->second_handle);
    request->second_number = number;
    request->has_second_handle = result == 0;
    return result;
}

/* A guest without opens has 0 for a handle. What is not open needs no flush, sync or release, nor does Linux ask for it
 * again. */
static int pin_without_open(struct request *request)
{
    if (request->arguments.handle != 0)
        return -EBADF;
    return (request->opcode->flags & READS) != 0 ? request_pin_kept(request) : -ENOSYS;
}

static int pin_objects(struct request *request)
{
    const struct opcode *opcode = request->opcode;
    if ((opcode->flags & NO_NODE) != 0)
        return 0;
    if (!known_pin(request->server->known, request->header.nodeid))
        return -ESTALE;
    request->has_node = true;
    if ((opcode->flags & (NEEDS_FILE | NEEDS_FOLDER)) == 0)
        return 0;
    if ((opcode->flags & NEEDS_FILE) != 0 && request->server->session.without_opens)
        return pin_without_open(request);
    return request_pin_handle(request, request->arguments.handle,
                              (opcode->flags & NEEDS_FILE) != 0 ? HANDLE_FILE : HANDLE_FOLDER);
}

/* In the opposite order: a handle keeps its node. */
static void unpin_objects(struct request *request)
{
    struct fs_server *server = request->server;
    if (request->has_second_handle && handles_unpin(server->handles, request->second_number))
        server_close(server, &request->second_handle);
    if (request->has_handle && handles_unpin(server->handles, request->handle_number))
        server_close(server, &request->handle);
    if (request->has_kept && kept_unpin(server->kept, &request->kept))
        server_close_kept(server, &request->kept);
    if (request->has_second_node)
        server_unpin(server, request->second_node);
    if (request->has_node)
        server_unpin(server, request->header.nodeid);
}

/* ---- carrying out ---- */

static int check_request(const struct request *request)
{
    const struct fs_server *server = request->server;
    const struct opcode *opcode = request->opcode;
    if (request->error < 0)
        return request->error;
    if (!server->session.is_open && (opcode->flags & ANY_TIME) == 0)
        return -EIO;
    if ((opcode->flags & NO_REPLY) == 0 && reply_room(request) < opcode->reply_bytes)
        return -EIO;
    return server->read_only && (opcode->flags & CHANGES) != 0 ? -EROFS : 0;
}

void request_execute(struct request *request)
{
    const struct opcode *opcode = request->opcode;
    atomic_fetch_add_explicit(&request->server->requests, 1, memory_order_relaxed);
    int result = check_request(request);
    if (result == 0)
        result = pin_objects(request);
    if (result == 0)
        result = opcode->function(request);
    if (opcode != NULL && (opcode->flags & NO_REPLY) != 0)
        reply_nothing(request);
    else if (result < 0)
        reply_error(request, result);
    unpin_objects(request);
}
