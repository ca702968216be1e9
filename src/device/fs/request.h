// SPDX-License-Identifier: Apache-2.0
/* One request of the guest, from its chain to its reply, and the server that it belongs to. Private to this folder. */
#ifndef DEVICE_FS_REQUEST_H
#define DEVICE_FS_REQUEST_H

#include "device/fs/fs.h"
#include "device/fs/handles.h"
#include "device/fs/kept.h"
#include "device/fs/known.h"
#include "device/fs/window.h"
#include "device/fs/workers.h"

#include <linux/fuse.h>
#include <stdatomic.h>

struct request;

/* ---- the server: one a device ---- */

struct fs_session { /* from INIT to DESTROY; changes only while no worker works */
    bool is_open;
    uint32_t minor;         /* of the protocol, as agreed on */
    bool can_map_direct_io; /* the guest can map files that it reads and writes without a cache */
    bool without_opens;     /* the guest opens no file: it reads by node */
};

struct fs_server {
    struct virtio_device *device; /* borrowed: it owns us */
    struct fs_backend backend;    /* owned */
    enum fs_cache cache;
    bool read_only, without_opens, backend_may_wait, posix_acl;
    void (*exited)(void *user, int32_t code);
    void *exited_user; /* borrowed */

    struct fs_session session;
    uint64_t inits;                /* that the guest has sent, over all sessions */
    struct known *known;           /* owned */
    struct handles *handles;       /* owned */
    struct kept *kept;             /* owned; NULL: not without_opens */
    struct window *window;         /* owned; NULL: none */
    struct workers *workers;       /* owned */
    struct loop_source *done;      /* owned: a worker is done with something */
    struct request *free_requests; /* owned, as are those under way */
    unsigned request_count;        /* that exist */
    uint32_t starved_queues;       /* a bit each: they wait for a request to be free */

    atomic_uint_fast64_t requests, errors, read_bytes, written_bytes;

    /* How long attributes are good for that are told without an entry: as short as any entry of the backend said, and
     * at most a second. And how long names are, with UINT64_MAX while none was told: a missing one is good for as long,
     * and again at most a second. */
    atomic_uint_fast64_t attributes_valid_ns, names_valid_ns;
};

/* ---- a request ---- */

enum { FS_SECOND_NS = 1000000000, FS_MODE_BITS = 07777 };
enum { FS_NAME_BYTES = 255, FS_TARGET_BYTES = 4095 }; /* Linux's NAME_MAX, and PATH_MAX without its NUL */

/* What stands behind the header, by opcode (linux/fuse.h). */
union request_arguments {
    struct fuse_forget_in forget;
    struct fuse_batch_forget_in batch_forget;
    struct fuse_getattr_in get_attributes;
    struct fuse_setattr_in set_attributes;
    struct fuse_mknod_in make_node;
    struct fuse_mkdir_in make_folder;
    struct fuse_rename_in rename;
    struct fuse_rename2_in rename2;
    struct fuse_link_in link;
    struct fuse_open_in open;
    struct fuse_create_in create;
    struct fuse_read_in read;
    struct fuse_write_in write;
    struct fuse_release_in release;
    struct fuse_flush_in flush;
    struct fuse_fsync_in sync;
    struct fuse_setxattr_in set_xattr;
    struct fuse_getxattr_in get_xattr;
    struct fuse_init_in init;
    struct fuse_ioctl_in ioctl;
    struct fuse_fallocate_in allocate;
    struct fuse_lseek_in seek;
    struct fuse_copy_file_range_in copy;
    struct fuse_setupmapping_in map;
    struct fuse_removemapping_in unmap;
    uint64_t handle; /* the first word of all that name one */
};

struct opcode;

struct request {
    struct fs_server *server; /* borrowed */
    struct request *next;     /* in whatever list it is */
    unsigned queue;
    uint16_t head;

    /* The chain's spans: the queue's, valid until its next chain is taken, or our own copy of them. */
    const struct iovec *readable, *writable; /* borrowed */
    size_t readable_count, writable_count;
    uint64_t readable_bytes, writable_bytes;
    struct iovec *spans;  /* owned; room for twice as many: request_cut. Kept for the next request */
    size_t span_capacity; /* of the copy alone */

    const struct opcode *opcode; /* NULL: not known */
    int error;                   /* what is wrong with the request, before anybody has worked on it */
    struct fuse_in_header header;
    union request_arguments arguments;
    uint64_t tail_offset, tail_bytes; /* what stands behind the arguments, in the readable spans */
    char names[FS_NAME_BYTES + 1 + FS_TARGET_BYTES + 1];
    const char *name, *second_name; /* borrowed from names */
    struct vial_fs_caller caller;

    bool has_node, has_second_node, has_handle, has_second_handle, has_kept; /* pinned */
    uint64_t second_node;
    uint64_t handle_number, second_number;
    struct handle handle, second_handle;
    struct kept_file kept; /* pinned, where has_kept: what `handle` says was opened by us */

    uint32_t written_bytes; /* what the guest is told that we wrote */
};

/* How long it may take, and who may do it. */
enum request_pace {
    REQUEST_QUICK,  /* on the device's thread */
    REQUEST_MEDIUM, /* there as well, unless there is something else to do */
    REQUEST_LONG,   /* by a worker */
};

/* Reads a chain. What is wrong with it shows in the reply. */
void request_read(struct request *request, const struct queue_chain *chain);
enum request_pace request_pace(const struct request *request);

/* Makes the spans last until the request is done: 0 or -ENOMEM. */
int request_keep_spans(struct request *request);

/* `length` bytes from `offset` on of spans that were kept, for readv(2) and its kin: how many parts, which hold until
 * the request is done. 0 for a length of 0, -EINVAL when there are fewer bytes, or more parts than Linux takes. */
int request_cut(struct request *request, const struct iovec *spans, size_t count, uint64_t offset, size_t length);
const struct iovec *request_parts(const struct request *request);

/* Does what the request wants, and replies. On any thread. */
void request_execute(struct request *request);

/* Pins a second node, or a second handle, until the request is done: 0, -ESTALE or -EBADF. */
int request_pin_second(struct request *request, uint64_t node);
int request_pin_second_handle(struct request *request, uint64_t number);

/* Pins the handle where the opcode's table row could not say whether there is one. */
int request_pin_handle(struct request *request, uint64_t number, enum handle_kind kind);

/* Pins the node's file of those that are kept open, which is opened now where it is not: 0 or -errno. */
int request_pin_kept(struct request *request);

/* Reads from what stands behind the arguments: exactly `length` bytes, or false. */
bool request_read_tail(const struct request *request, uint64_t offset, void *bytes, size_t length);

/* ---- replies (reply.c) ---- */

/* 0 for a reply that fits; -EIO, so that the guest hears at least of that. */
int reply_bytes(struct request *request, const void *bytes, size_t length);
int reply_empty(struct request *request);
void reply_error(struct request *request, int error);
void reply_nothing(struct request *request);

/* How many bytes of payload there is room for. */
size_t reply_room(const struct request *request);

/* A payload that is written piece by piece, and then its header. */
void reply_put(struct request *request, size_t offset, const void *bytes, size_t length);
int reply_finish(struct request *request, size_t length);

/* Looks the entry up in the books (its lookup was counted by the backend), and writes what the guest is to know of it:
 * 0 or -errno, with the lookup taken back. `pins` the node for a handle. */
int entry_tell(struct fs_server *server, const struct vial_fs_entry *entry, bool pins, struct fuse_entry_out *ret_out);
struct fuse_attr attributes_tell(const struct vial_fs_attributes *attributes);
int reply_entry(struct request *request, const struct vial_fs_entry *entry);

/* For how long the guest may believe something: the mount's policy over the backend's word. */
uint64_t valid_ns(const struct fs_server *server, uint64_t backend_ns);

/* ---- the session (session.c) ---- */

/* Nothing was told to the guest yet. */
void session_begin_validity(struct fs_server *server);

/* Forgets everything: handles are closed, nodes forgotten, mappings removed. When no worker works. */
void session_end(struct fs_server *server);
void server_forget(struct fs_server *server, uint64_t node, uint64_t lookups);
void server_unpin(struct fs_server *server, uint64_t node);

/* Ends a handle whose last pin is gone. */
void server_close(struct fs_server *server, const struct handle *handle);

/* Closes what is kept open and not in use: one that nobody pins, or all of those. Whether there was any. */
void server_close_kept(struct fs_server *server, const struct kept_file *file);
bool server_shed_kept(struct fs_server *server);

/* ---- opcodes: 0 when they have replied, or the error to reply with ---- */

typedef int (*opcode_function)(struct request *request);

int handle_init(struct request *request);
int handle_destroy(struct request *request);
int handle_forget(struct request *request);
int handle_batch_forget(struct request *request);
int handle_interrupt(struct request *request);

int handle_lookup(struct request *request);
int handle_read_link(struct request *request);
int handle_make_link(struct request *request);
int handle_make_node(struct request *request);
int handle_make_folder(struct request *request);
int handle_unlink(struct request *request);
int handle_remove_folder(struct request *request);
int handle_rename(struct request *request);
int handle_rename2(struct request *request);
int handle_hard_link(struct request *request);

int handle_get_attributes(struct request *request);
int handle_set_attributes(struct request *request);
int handle_usage(struct request *request);
int handle_set_xattr(struct request *request);
int handle_get_xattr(struct request *request);
int handle_list_xattr(struct request *request);
int handle_remove_xattr(struct request *request);

int handle_open(struct request *request);
int handle_create(struct request *request);
int handle_release(struct request *request);
int handle_read(struct request *request);
int handle_write(struct request *request);
int handle_flush(struct request *request);
int handle_sync(struct request *request);
int handle_allocate(struct request *request);
int handle_seek(struct request *request);
int handle_copy(struct request *request);
int handle_ioctl(struct request *request);

int handle_open_folder(struct request *request);
int handle_read_folder(struct request *request);
int handle_read_folder_plus(struct request *request);
int handle_sync_folder(struct request *request);
int handle_sync_all(struct request *request);

int handle_map(struct request *request);
int handle_unmap(struct request *request);

#endif
