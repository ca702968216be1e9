// SPDX-License-Identifier: Apache-2.0
/* Another backend, without its changes.
 *
 * What only looks goes on to the backend below; what changes anything is refused with EROFS here, whatever the guest's
 * kernel believes about its mount. A member that the backend below leaves out is left out here, too, so that its users
 * see the same.
 *
 * Invariants: (1) nothing reaches the backend below that could change a file, its attributes, or what is there. (2) no
 * handle and no descriptor that can be written to is handed out.
 *
 * Trust: flags come from a hostile guest.
 */
#include "device/fs/backend.h"

#include "base/alloc.h"

#include <errno.h>
#include <fcntl.h>

struct readonly {
    struct fs_backend below; /* owned */
};

/* ---- what only looks ---- */

static int readonly_lookup(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                           struct vial_fs_entry *ret_entry)
{
    struct readonly *readonly = user;
    return readonly->below.ops.lookup(readonly->below.user, caller, parent, name, ret_entry);
}

static int readonly_attributes(void *user, const struct vial_fs_caller *caller, uint64_t node, const uint64_t *handle,
                               struct vial_fs_attributes *ret_attributes)
{
    struct readonly *readonly = user;
    return readonly->below.ops.attributes(readonly->below.user, caller, node, handle, ret_attributes);
}

static ssize_t readonly_read_link(void *user, const struct vial_fs_caller *caller, uint64_t node, char *target,
                                  size_t size)
{
    struct readonly *readonly = user;
    return readonly->below.ops.read_link(readonly->below.user, caller, node, target, size);
}

static ssize_t readonly_read(void *user, uint64_t node, uint64_t handle, const struct iovec *parts, int count,
                             uint64_t offset)
{
    struct readonly *readonly = user;
    return readonly->below.ops.read(readonly->below.user, node, handle, parts, count, offset);
}

static int readonly_flush(void *user, uint64_t node, uint64_t handle)
{
    struct readonly *readonly = user;
    return readonly->below.ops.flush(readonly->below.user, node, handle);
}

static int readonly_sync(void *user, uint64_t node, uint64_t handle, bool data_only)
{
    struct readonly *readonly = user;
    return readonly->below.ops.sync(readonly->below.user, node, handle, data_only);
}

static int64_t readonly_seek(void *user, uint64_t node, uint64_t handle, uint64_t offset, uint32_t whence)
{
    struct readonly *readonly = user;
    return readonly->below.ops.seek(readonly->below.user, node, handle, offset, whence);
}

static int readonly_close(void *user, uint64_t node, uint64_t handle)
{
    struct readonly *readonly = user;
    return readonly->below.ops.close(readonly->below.user, node, handle);
}

static int readonly_open_folder(void *user, const struct vial_fs_caller *caller, uint64_t node, uint64_t *ret_handle)
{
    struct readonly *readonly = user;
    return readonly->below.ops.open_folder(readonly->below.user, caller, node, ret_handle);
}

static int readonly_read_folder(void *user, uint64_t node, uint64_t handle, uint64_t offset, vial_fs_entry_sink add,
                                void *sink)
{
    struct readonly *readonly = user;
    return readonly->below.ops.read_folder(readonly->below.user, node, handle, offset, add, sink);
}

static int readonly_sync_folder(void *user, uint64_t node, uint64_t handle, bool data_only)
{
    struct readonly *readonly = user;
    return readonly->below.ops.sync_folder(readonly->below.user, node, handle, data_only);
}

static int readonly_close_folder(void *user, uint64_t node, uint64_t handle)
{
    struct readonly *readonly = user;
    return readonly->below.ops.close_folder(readonly->below.user, node, handle);
}

/* Nothing of this guest's waits to be written, and what the host has to write is none of its business. */
static int readonly_sync_all(void *user)
{
    (void)user;
    return 0;
}

static int readonly_usage(void *user, uint64_t node, struct vial_fs_usage *ret_usage)
{
    struct readonly *readonly = user;
    return readonly->below.ops.usage(readonly->below.user, node, ret_usage);
}

static ssize_t readonly_get_xattr(void *user, const struct vial_fs_caller *caller, uint64_t node, const char *name,
                                  void *value, size_t size)
{
    struct readonly *readonly = user;
    return readonly->below.ops.get_xattr(readonly->below.user, caller, node, name, value, size);
}

static ssize_t readonly_list_xattr(void *user, const struct vial_fs_caller *caller, uint64_t node, char *names,
                                   size_t size)
{
    struct readonly *readonly = user;
    return readonly->below.ops.list_xattr(readonly->below.user, caller, node, names, size);
}

static void readonly_forget(void *user, uint64_t node, uint64_t lookups)
{
    struct readonly *readonly = user;
    readonly->below.ops.forget(readonly->below.user, node, lookups);
}

static int readonly_open(void *user, const struct vial_fs_caller *caller, uint64_t node, uint32_t flags,
                         uint64_t *ret_handle)
{
    struct readonly *readonly = user;
    if ((flags & O_ACCMODE) != O_RDONLY || (flags & (O_TRUNC | O_CREAT)) != 0)
        return -EROFS;
    return readonly->below.ops.open(readonly->below.user, caller, node, flags, ret_handle);
}

static int readonly_map(void *user, const struct vial_fs_caller *caller, uint64_t node, bool for_writing, int *ret_fd)
{
    struct readonly *readonly = user;
    if (for_writing)
        return -EROFS;
    return readonly->below.ops.map(readonly->below.user, caller, node, false, ret_fd);
}

/* ---- what changes something ---- */

static int readonly_set_attributes(void *user, const struct vial_fs_caller *caller, uint64_t node,
                                   const uint64_t *handle, uint32_t which, const struct vial_fs_attributes *wanted,
                                   struct vial_fs_attributes *ret_attributes)
{
    (void)user, (void)caller, (void)node, (void)handle, (void)which, (void)wanted, (void)ret_attributes;
    return -EROFS;
}

static int readonly_make_link(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                              const char *target, struct vial_fs_entry *ret_entry)
{
    (void)user, (void)caller, (void)parent, (void)name, (void)target, (void)ret_entry;
    return -EROFS;
}

static int readonly_make_folder(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                                uint32_t mode, struct vial_fs_entry *ret_entry)
{
    (void)user, (void)caller, (void)parent, (void)name, (void)mode, (void)ret_entry;
    return -EROFS;
}

static int readonly_make_node(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                              uint32_t mode, uint32_t device, struct vial_fs_entry *ret_entry)
{
    (void)user, (void)caller, (void)parent, (void)name, (void)mode, (void)device, (void)ret_entry;
    return -EROFS;
}

static int readonly_create(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                           uint32_t mode, uint32_t flags, struct vial_fs_entry *ret_entry, uint64_t *ret_handle)
{
    (void)user, (void)caller, (void)parent, (void)name, (void)mode, (void)flags, (void)ret_entry, (void)ret_handle;
    return -EROFS;
}

static int readonly_remove_name(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name)
{
    (void)user, (void)caller, (void)parent, (void)name;
    return -EROFS;
}

static int readonly_rename(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                           uint64_t new_parent, const char *new_name, uint32_t flags)
{
    (void)user, (void)caller, (void)parent, (void)name, (void)new_parent, (void)new_name, (void)flags;
    return -EROFS;
}

static int readonly_hard_link(void *user, const struct vial_fs_caller *caller, uint64_t node, uint64_t new_parent,
                              const char *new_name, struct vial_fs_entry *ret_entry)
{
    (void)user, (void)caller, (void)node, (void)new_parent, (void)new_name, (void)ret_entry;
    return -EROFS;
}

static ssize_t readonly_write(void *user, uint64_t node, uint64_t handle, const struct iovec *parts, int count,
                              uint64_t offset, uint32_t flags)
{
    (void)user, (void)node, (void)handle, (void)parts, (void)count, (void)offset, (void)flags;
    return -EROFS;
}

static int readonly_allocate(void *user, uint64_t node, uint64_t handle, uint32_t mode, uint64_t offset,
                             uint64_t length)
{
    (void)user, (void)node, (void)handle, (void)mode, (void)offset, (void)length;
    return -EROFS;
}

static ssize_t readonly_copy(void *user, uint64_t from_node, uint64_t from_handle, uint64_t from_offset,
                             uint64_t to_node, uint64_t to_handle, uint64_t to_offset, uint64_t length)
{
    (void)user, (void)from_node, (void)from_handle, (void)from_offset, (void)to_node, (void)to_handle, (void)to_offset,
        (void)length;
    return -EROFS;
}

static int readonly_set_xattr(void *user, const struct vial_fs_caller *caller, uint64_t node, const char *name,
                              const void *value, size_t size, int flags)
{
    (void)user, (void)caller, (void)node, (void)name, (void)value, (void)size, (void)flags;
    return -EROFS;
}

static int readonly_remove_xattr(void *user, const struct vial_fs_caller *caller, uint64_t node, const char *name)
{
    (void)user, (void)caller, (void)node, (void)name;
    return -EROFS;
}

/* ---- beginning and end ---- */

static void readonly_release(void *user)
{
    struct readonly *readonly = user;
    fs_backend_release(&readonly->below);
    free(readonly);
}

/* The function of ours, unless the backend below has none to call. */
#define IF_BELOW(member) .member = below->ops.member != NULL ? readonly_##member : NULL

static struct vial_fs_ops make_ops(const struct fs_backend *below)
{
    return (struct vial_fs_ops){
        .size = sizeof(struct vial_fs_ops),
        IF_BELOW(lookup),
        IF_BELOW(attributes),
        IF_BELOW(read_link),
        IF_BELOW(read),
        IF_BELOW(flush),
        IF_BELOW(sync),
        IF_BELOW(seek),
        IF_BELOW(close),
        IF_BELOW(open_folder),
        IF_BELOW(read_folder),
        IF_BELOW(sync_folder),
        IF_BELOW(close_folder),
        IF_BELOW(sync_all),
        IF_BELOW(usage),
        IF_BELOW(get_xattr),
        IF_BELOW(list_xattr),
        IF_BELOW(forget),
        IF_BELOW(open),
        IF_BELOW(map),
        .set_attributes = readonly_set_attributes,
        .make_link = readonly_make_link,
        .make_folder = readonly_make_folder,
        .make_node = readonly_make_node,
        .create = readonly_create,
        .unlink = readonly_remove_name,
        .remove_folder = readonly_remove_name,
        .rename = readonly_rename,
        .hard_link = readonly_hard_link,
        .write = readonly_write,
        .allocate = readonly_allocate,
        .copy = readonly_copy,
        .set_xattr = readonly_set_xattr,
        .remove_xattr = readonly_remove_xattr,
        .release = readonly_release,
    };
}

int readonly_new(struct fs_backend *below, struct fs_backend *ret_backend)
{
    struct readonly *readonly = alloc_zero(sizeof(*readonly));
    if (readonly == NULL)
        return -ENOMEM;
    readonly->below = *below;
    struct vial_fs_ops ops = make_ops(below);
    *below = (struct fs_backend){.user = NULL}; /* before the result, which may be written to the same place */
    *ret_backend = (struct fs_backend){.ops = ops, .user = readonly};
    return 0;
}
