/* SPDX-License-Identifier: Apache-2.0 */
/* Backends that the embedding program supplies itself: a file system, a network, a console port, a port of
 * virtio sockets.
 *
 * A backend is a table of functions and a pointer that is handed to each of them. The table is copied when it is
 * given to a configuration; the pointer must stay valid until the machine has ended and `release` was called, once,
 * on any thread. Functions return 0 or a negative errno (Linux numbers: they reach the guest); a member that is NULL
 * answers -ENOSYS.
 *
 * Trust: names, offsets, sizes and ids come from a hostile guest. Vial has checked what it can: a name is one path
 * component without '/' or NUL and is neither "." nor "..", sizes are at most 1 MiB, and a node was handed out by this
 * backend and not forgotten since.
 */
#ifndef VIAL_BACKEND_H
#define VIAL_BACKEND_H

#include "vial/base.h"

#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- file systems ---- */

/* The node of the root folder, known before any lookup. */
#define VIAL_FS_ROOT_NODE UINT64_C(1)

struct vial_fs_attributes {
    uint64_t inode;
    uint64_t size_bytes;
    uint64_t blocks; /* of 512 bytes */
    int64_t access_s, modify_s, change_s;
    uint32_t access_ns, modify_ns, change_ns;
    uint32_t mode; /* type and permissions, as in stat(2) */
    uint32_t links;
    uint32_t uid, gid;
    uint32_t device;
    uint32_t block_bytes;
    uint32_t reserved_word;
    uint64_t reserved[4]; /* 0, as are the others below */
};

struct vial_fs_entry {
    uint64_t node;                                /* what later calls name it by; never 0 */
    uint64_t generation;                          /* differs when a node number is used again */
    uint64_t entry_valid_ns, attributes_valid_ns; /* how long the guest may believe this without asking */
    struct vial_fs_attributes attributes;
    uint64_t reserved[4];
};

/* Who asks, as the guest says. */
struct vial_fs_caller {
    uint32_t uid, gid, pid;
    uint32_t umask;
    uint32_t reserved[4];
};

/* Which members of the attributes a set_attributes changes. */
#define VIAL_FS_SET_MODE (1u << 0)
#define VIAL_FS_SET_UID (1u << 1)
#define VIAL_FS_SET_GID (1u << 2)
#define VIAL_FS_SET_SIZE (1u << 3)
#define VIAL_FS_SET_ACCESS_TIME (1u << 4)
#define VIAL_FS_SET_MODIFY_TIME (1u << 5)
#define VIAL_FS_SET_ACCESS_NOW (1u << 6)
#define VIAL_FS_SET_MODIFY_NOW (1u << 7)

/* With a new size or owner: set-user-id and set-group-id bits go. */
#define VIAL_FS_SET_KILL_IDS (1u << 8)

/* A write must clear set-user-id and set-group-id bits. */
#define VIAL_FS_WRITE_KILL_IDS (1u << 0)

struct vial_fs_usage {
    uint64_t blocks, free_blocks, available_blocks, files, free_files;
    uint32_t block_bytes, name_bytes;
    uint64_t reserved[2];
};

/* Takes one directory entry; false when there is no room for more: then that entry was not taken. `next_offset`
 * continues behind it. It may call lookup of the same backend. */
typedef bool (*vial_fs_entry_sink)(void *sink, const char *name, uint64_t inode, uint32_t type, uint64_t next_offset);

/* Called on several threads at once. lookup and attributes must be there. A `handle` is NULL where the guest names
 * none. The guest's kernel checks permissions by the attributes that it was told; a backend checks what it wants kept
 * even from a guest's kernel. Every successful lookup, and everything else that fills in an entry, counts as one lookup
 * of that node, until forget takes it away. `flags` of open and create are Linux's (O_ACCMODE, O_TRUNC, O_APPEND, …).
 * "." and ".." are never looked up, and are for read_folder to add or leave out. */
struct vial_fs_ops {
    size_t size;
    int (*lookup)(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                  struct vial_fs_entry *ret_entry);
    void (*forget)(void *user, uint64_t node, uint64_t lookups);
    int (*attributes)(void *user, const struct vial_fs_caller *caller, uint64_t node, const uint64_t *handle,
                      struct vial_fs_attributes *ret_attributes);
    int (*set_attributes)(void *user, const struct vial_fs_caller *caller, uint64_t node, const uint64_t *handle,
                          uint32_t which, const struct vial_fs_attributes *wanted,
                          struct vial_fs_attributes *ret_attributes);
    ssize_t (*read_link)(void *user, const struct vial_fs_caller *caller, uint64_t node, char *target, size_t size);
    int (*make_link)(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                     const char *target, struct vial_fs_entry *ret_entry);
    int (*make_folder)(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                       uint32_t mode, struct vial_fs_entry *ret_entry);
    int (*make_node)(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name, uint32_t mode,
                     uint32_t device, struct vial_fs_entry *ret_entry);
    int (*create)(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name, uint32_t mode,
                  uint32_t flags, struct vial_fs_entry *ret_entry, uint64_t *ret_handle);
    int (*unlink)(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name);
    int (*remove_folder)(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name);
    int (*rename)(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                  uint64_t new_parent, const char *new_name, uint32_t flags);
    int (*hard_link)(void *user, const struct vial_fs_caller *caller, uint64_t node, uint64_t new_parent,
                     const char *new_name, struct vial_fs_entry *ret_entry);
    int (*open)(void *user, const struct vial_fs_caller *caller, uint64_t node, uint32_t flags, uint64_t *ret_handle);
    ssize_t (*read)(void *user, uint64_t node, uint64_t handle, const struct iovec *parts, int count, uint64_t offset);
    ssize_t (*write)(void *user, uint64_t node, uint64_t handle, const struct iovec *parts, int count, uint64_t offset,
                     uint32_t flags);
    int (*flush)(void *user, uint64_t node, uint64_t handle);
    int (*sync)(void *user, uint64_t node, uint64_t handle, bool data_only);
    int (*allocate)(void *user, uint64_t node, uint64_t handle, uint32_t mode, uint64_t offset, uint64_t length);
    int64_t (*seek)(void *user, uint64_t node, uint64_t handle, uint64_t offset, uint32_t whence);
    ssize_t (*copy)(void *user, uint64_t from_node, uint64_t from_handle, uint64_t from_offset, uint64_t to_node,
                    uint64_t to_handle, uint64_t to_offset, uint64_t length);
    /* A descriptor of the file's contents, for the guest's memory to be mapped onto (DAX); the caller closes it. */
    int (*map)(void *user, const struct vial_fs_caller *caller, uint64_t node, bool for_writing, int *ret_fd);
    int (*close)(void *user, uint64_t node, uint64_t handle);
    int (*open_folder)(void *user, const struct vial_fs_caller *caller, uint64_t node, uint64_t *ret_handle);
    int (*read_folder)(void *user, uint64_t node, uint64_t handle, uint64_t offset, vial_fs_entry_sink add, void *sink);
    int (*sync_folder)(void *user, uint64_t node, uint64_t handle, bool data_only);
    int (*close_folder)(void *user, uint64_t node, uint64_t handle);
    int (*sync_all)(void *user);
    int (*usage)(void *user, uint64_t node, struct vial_fs_usage *ret_usage);
    ssize_t (*get_xattr)(void *user, const struct vial_fs_caller *caller, uint64_t node, const char *name, void *value,
                         size_t size);
    int (*set_xattr)(void *user, const struct vial_fs_caller *caller, uint64_t node, const char *name,
                     const void *value, size_t size, int flags);
    ssize_t (*list_xattr)(void *user, const struct vial_fs_caller *caller, uint64_t node, char *names, size_t size);
    int (*remove_xattr)(void *user, const struct vial_fs_caller *caller, uint64_t node, const char *name);
    void (*release)(void *user);
};

// clang-format off
#define VIAL_FS_OPS_INIT \
    {sizeof(struct vial_fs_ops), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
     NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
     NULL, NULL, NULL}
// clang-format on

/* ---- networks ---- */

/* Called on the device's own thread. send, receive and poll_fd must be there. */
struct vial_net_ops {
    size_t size;
    /* Takes one Ethernet frame. -EAGAIN: full, called again with the same frame when poll_fd is writable. */
    int (*send)(void *user, const struct iovec *parts, int count);
    /* Hands over one whole frame and returns its length. -EAGAIN: none. A longer frame than `size` is dropped. */
    ssize_t (*receive)(void *user, void *frame, size_t size);
    /* A descriptor that is readable when receive has a frame, and writable when send would take one. */
    int (*poll_fd)(void *user);
    void (*release)(void *user);
};

// clang-format off
#define VIAL_NET_OPS_INIT {sizeof(struct vial_net_ops), NULL, NULL, NULL, NULL}
// clang-format on

/* ---- console ports ---- */

/* Called on the device's own thread. At least one of read and write must be there, and poll_fd. */
struct vial_console_ops {
    size_t size;
    /* Bytes for the guest: how many, 0 at end of input, -EAGAIN when there are none now. */
    ssize_t (*read)(void *user, void *bytes, size_t size);
    /* Bytes from the guest: how many were taken, -EAGAIN for none; the guest waits, nothing is dropped. */
    ssize_t (*write)(void *user, const void *bytes, size_t length);
    /* A descriptor that is readable when read, and writable when write would make progress. */
    int (*poll_fd)(void *user);
    void (*release)(void *user);
};

// clang-format off
#define VIAL_CONSOLE_OPS_INIT {sizeof(struct vial_console_ops), NULL, NULL, NULL, NULL}
// clang-format on

/* ---- virtio sockets ---- */

/* A port of the host's that the guest connects to, or sends datagrams to. Called on the device's own thread. connect,
 * read, write, poll_fd and close go together; with send alone, the port has datagrams only. */
struct vial_vsock_ops {
    size_t size;
    /* The guest asks for a stream: 0 with a name for it that is handed to the functions below, or -errno: refused. */
    int (*connect)(void *user, uint32_t guest_port, void **ret_stream);
    /* Bytes for the guest: how many, 0 when there will be no more, -EAGAIN when there are none now. */
    ssize_t (*read)(void *user, void *stream, void *bytes, size_t size);
    /* Bytes from the guest: how many were taken, -EAGAIN for none; the guest waits, nothing is dropped. */
    ssize_t (*write)(void *user, void *stream, const void *bytes, size_t length);
    /* The guest will write no more. May be NULL. */
    int (*shutdown)(void *user, void *stream);
    /* A descriptor that is readable when read, and writable when write would make progress. It is duplicated once. */
    int (*poll_fd)(void *user, void *stream);
    /* The stream has ended, whoever ended it. Called once for each that was connected. */
    void (*close)(void *user, void *stream);
    /* Takes one datagram of the guest's, of at most 64 KiB; a failure drops it. */
    int (*send)(void *user, uint32_t guest_port, const void *bytes, size_t length);
    void (*release)(void *user);
};

// clang-format off
#define VIAL_VSOCK_OPS_INIT {sizeof(struct vial_vsock_ops), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL}
// clang-format on

#ifdef __cplusplus
}
#endif

#endif
