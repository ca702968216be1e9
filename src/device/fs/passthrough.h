// SPDX-License-Identifier: Apache-2.0
/* A folder of the host as a backend: what its parts share. */
#ifndef DEVICE_FS_PASSTHROUGH_H
#define DEVICE_FS_PASSTHROUGH_H

#include "device/fs/backend.h"
#include "device/fs/node.h"
#include "device/fs/owner.h"
#include "device/fs/passthrough_handles.h"

/* "/proc/self/fd/" and a number. */
enum { PASSTHROUGH_FD_PATH_BYTES = 32 };

struct passthrough {
    int proc_fd; /* owned: /proc/self/fd */
    struct host_nodes nodes;
    struct host_handles handles;
    struct owner owner;
    bool only_public;
    enum fs_xattrs xattrs;
    uint64_t root_device;
};

/* ---- what is there (passthrough_lookup.c) ---- */

/* One plain name: 0, -EINVAL or -ENAMETOOLONG. */
int passthrough_check_name(const char *name);

/* host_nodes_pin, which also finds what is open but has no name any more. */
int passthrough_pin(struct passthrough *passthrough, uint64_t node, struct host_pin *ret_pin);

/* Pins the folder for work on `name` in it. */
int passthrough_pin_for(struct passthrough *passthrough, uint64_t folder, const char *name, struct host_pin *ret_pin);

/* An O_PATH descriptor of what `name` in the folder is, unless the guest is not to see it. Returns it, or -errno. */
int passthrough_open_name(struct passthrough *passthrough, int folder_fd, const struct host_identity *folder,
                          const char *name, struct statx *ret_status);

/* Whether any user of the host may read it. */
bool passthrough_is_public(uint32_t mode);

/* Whether the guest may reach into the file system that this is on. */
bool passthrough_is_for_guests(int fd);

/* The inode's number as the guest sees it. */
uint64_t passthrough_inode(const struct passthrough *passthrough, uint64_t device, uint64_t inode);

void passthrough_fill_attributes(const struct passthrough *passthrough, const struct statx *status,
                                 struct vial_fs_attributes *ret_attributes);

/* Makes `fd`, found as `name` in the folder, a node and an entry. Takes the descriptor over, always. */
int passthrough_enter(struct passthrough *passthrough, struct host_node *folder, const char *name, int fd,
                      const struct statx *status, struct vial_fs_entry *ret_entry);

/* ---- the same inode once more (passthrough.c) ---- */

/* The descriptor's name below proc_fd, and below the root. */
struct passthrough_fd_name {
    char text[PASSTHROUGH_FD_PATH_BYTES];
};
struct passthrough_fd_name passthrough_fd_name(int fd);
struct passthrough_fd_name passthrough_fd_path(int fd);

/* Opens the contents of an inode, by its own descriptor. Returns the new one, or -errno. What is opened for writing
 * gives no rights to who runs it any more, where it must not (owner.c). */
int passthrough_reopen(struct passthrough *passthrough, int fd, int flags);

/* Changes permissions. */
int passthrough_chmod(const struct passthrough *passthrough, int fd, mode_t mode);

/* Takes set-user-id and set-group-id bits away, if there are any. */
int passthrough_drop_set_ids(const struct passthrough *passthrough, int fd);

/* ---- operations: see struct vial_fs_ops ---- */

int passthrough_lookup(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                       struct vial_fs_entry *ret_entry);
void passthrough_forget(void *user, uint64_t node, uint64_t lookups);
int passthrough_attributes(void *user, const struct vial_fs_caller *caller, uint64_t node, const uint64_t *handle,
                           struct vial_fs_attributes *ret_attributes);
int passthrough_set_attributes(void *user, const struct vial_fs_caller *caller, uint64_t node, const uint64_t *handle,
                               uint32_t which, const struct vial_fs_attributes *wanted,
                               struct vial_fs_attributes *ret_attributes);

/* passthrough_names.c */
ssize_t passthrough_read_link(void *user, const struct vial_fs_caller *caller, uint64_t node, char *target,
                              size_t size);
int passthrough_make_link(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                          const char *target, struct vial_fs_entry *ret_entry);
int passthrough_make_folder(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                            uint32_t mode, struct vial_fs_entry *ret_entry);
int passthrough_make_node(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                          uint32_t mode, uint32_t device, struct vial_fs_entry *ret_entry);
int passthrough_create(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                       uint32_t mode, uint32_t flags, struct vial_fs_entry *ret_entry, uint64_t *ret_handle);
int passthrough_unlink(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name);
int passthrough_remove_folder(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name);
int passthrough_rename(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                       uint64_t new_parent, const char *new_name, uint32_t flags);
int passthrough_hard_link(void *user, const struct vial_fs_caller *caller, uint64_t node, uint64_t new_parent,
                          const char *new_name, struct vial_fs_entry *ret_entry);

/* passthrough_files.c */
int passthrough_open(void *user, const struct vial_fs_caller *caller, uint64_t node, uint32_t flags,
                     uint64_t *ret_handle);
ssize_t passthrough_read(void *user, uint64_t node, uint64_t handle, const struct iovec *parts, int count,
                         uint64_t offset);
ssize_t passthrough_write(void *user, uint64_t node, uint64_t handle, const struct iovec *parts, int count,
                          uint64_t offset, uint32_t flags);
int passthrough_flush(void *user, uint64_t node, uint64_t handle);
int passthrough_sync(void *user, uint64_t node, uint64_t handle, bool data_only);
int passthrough_allocate(void *user, uint64_t node, uint64_t handle, uint32_t mode, uint64_t offset, uint64_t length);
int64_t passthrough_seek(void *user, uint64_t node, uint64_t handle, uint64_t offset, uint32_t whence);
ssize_t passthrough_copy(void *user, uint64_t from_node, uint64_t from_handle, uint64_t from_offset, uint64_t to_node,
                         uint64_t to_handle, uint64_t to_offset, uint64_t length);
int passthrough_map(void *user, const struct vial_fs_caller *caller, uint64_t node, bool for_writing, int *ret_fd);
int passthrough_close(void *user, uint64_t node, uint64_t handle);

/* Which of a guest's flags a file is opened with, without O_CREAT: -EINVAL or the host's. */
int passthrough_open_flags(uint32_t flags);

/* Opens the contents of a node's file as a handle. */
int passthrough_open_pinned(struct passthrough *passthrough, const struct host_pin *pin, uint32_t flags,
                            uint64_t *ret_handle);

/* passthrough_folders.c */
int passthrough_open_folder(void *user, const struct vial_fs_caller *caller, uint64_t node, uint64_t *ret_handle);
int passthrough_read_folder(void *user, uint64_t node, uint64_t handle, uint64_t offset, vial_fs_entry_sink add,
                            void *sink);
int passthrough_sync_folder(void *user, uint64_t node, uint64_t handle, bool data_only);
int passthrough_close_folder(void *user, uint64_t node, uint64_t handle);

/* xattr.c */
ssize_t passthrough_get_xattr(void *user, const struct vial_fs_caller *caller, uint64_t node, const char *name,
                              void *value, size_t size);
int passthrough_set_xattr(void *user, const struct vial_fs_caller *caller, uint64_t node, const char *name,
                          const void *value, size_t size, int flags);
ssize_t passthrough_list_xattr(void *user, const struct vial_fs_caller *caller, uint64_t node, char *names,
                               size_t size);
int passthrough_remove_xattr(void *user, const struct vial_fs_caller *caller, uint64_t node, const char *name);

#endif
