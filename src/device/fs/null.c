// SPDX-License-Identifier: Apache-2.0
/* A backend without files: an empty root folder. What a guest is shown that needs none, under virtual ones (overlay.c).
 *
 * Invariants: (1) there is one node, the root, and it never changes.
 *
 * Trust: nothing that a guest says is looked at.
 */
#include "device/fs/backend.h"

#include <errno.h>
#include <sys/stat.h>

enum { block_bytes = 4096, most_name_bytes = 255 };

static int null_lookup(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                       struct vial_fs_entry *ret_entry)
{
    (void)user, (void)caller, (void)name, (void)ret_entry;
    return parent == VIAL_FS_ROOT_NODE ? -ENOENT : -ESTALE;
}

static int null_attributes(void *user, const struct vial_fs_caller *caller, uint64_t node, const uint64_t *handle,
                           struct vial_fs_attributes *ret_attributes)
{
    (void)user, (void)caller, (void)handle;
    if (node != VIAL_FS_ROOT_NODE)
        return -ESTALE;
    *ret_attributes = (struct vial_fs_attributes){
        .inode = VIAL_FS_ROOT_NODE,
        .mode = S_IFDIR | 0755,
        .links = 2,
        .block_bytes = block_bytes,
    };
    return 0;
}

static int null_open_folder(void *user, const struct vial_fs_caller *caller, uint64_t node, uint64_t *ret_handle)
{
    (void)user, (void)caller;
    if (node != VIAL_FS_ROOT_NODE)
        return -ESTALE;
    *ret_handle = 1;
    return 0;
}

static int null_read_folder(void *user, uint64_t node, uint64_t handle, uint64_t offset, vial_fs_entry_sink add,
                            void *sink)
{
    (void)user, (void)node, (void)handle;
    if (offset == 0 && !add(sink, ".", VIAL_FS_ROOT_NODE, S_IFDIR >> 12, 1))
        return 0;
    if (offset <= 1)
        (void)add(sink, "..", VIAL_FS_ROOT_NODE, S_IFDIR >> 12, 2);
    return 0;
}

static int null_close_folder(void *user, uint64_t node, uint64_t handle)
{
    (void)user, (void)node, (void)handle;
    return 0;
}

static int null_usage(void *user, uint64_t node, struct vial_fs_usage *ret_usage)
{
    (void)user, (void)node;
    *ret_usage = (struct vial_fs_usage){.block_bytes = block_bytes, .name_bytes = most_name_bytes};
    return 0;
}

static int null_refuse_name(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name)
{
    (void)user, (void)caller, (void)parent, (void)name;
    return -ENOENT;
}

static int null_make_folder(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                            uint32_t mode, struct vial_fs_entry *ret_entry)
{
    (void)user, (void)caller, (void)parent, (void)name, (void)mode, (void)ret_entry;
    return -EROFS;
}

static int null_create(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                       uint32_t mode, uint32_t flags, struct vial_fs_entry *ret_entry, uint64_t *ret_handle)
{
    (void)user, (void)caller, (void)parent, (void)name, (void)mode, (void)flags, (void)ret_entry, (void)ret_handle;
    return -EROFS;
}

int null_new(struct fs_backend *ret_backend)
{
    *ret_backend = (struct fs_backend){
        .ops = {.size = sizeof(struct vial_fs_ops),
                .lookup = null_lookup,
                .attributes = null_attributes,
                .make_folder = null_make_folder,
                .create = null_create,
                .unlink = null_refuse_name,
                .remove_folder = null_refuse_name,
                .open_folder = null_open_folder,
                .read_folder = null_read_folder,
                .close_folder = null_close_folder,
                .usage = null_usage},
    };
    return 0;
}
