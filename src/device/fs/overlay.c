// SPDX-License-Identifier: Apache-2.0
/* Virtual files and folders over another backend.
 *
 * This is how an init program and its configuration get into a guest's root without a change of the host's folder, how
 * mount points come to be that the host has not, and how names of the host are kept from a guest.
 *
 *     overlay_tree.c    the virtual entries, made once
 *     overlay_place.c   which number is whose, and what a virtual folder stands on
 *     overlay_files.c   bytes, mappings          overlay_folders.c   listings
 *     overlay_names.c   making, moving, removing
 *
 * A look-up of a virtual name is answered here. A virtual folder over a folder below is that folder, with the virtual
 * entries in it: its attributes are those below, and so is what is written into it. Nodes that only the backend below
 * knows go to it with their own numbers, at the price of one comparison.
 *
 * A one-shot file is found once. Its node is there as long as the guest knows it, so who has found it can open and read
 * it; its name then stands for what is below. A listing names it and does not use it up.
 *
 * Invariants: (1) a virtual name that is there wins over one below, and a hidden one is not there by its path. (2)
 * nothing virtual is ever changed. (3) the backend below sees only numbers that it gave out and that were not
 * forgotten.
 *
 * Trust: names and numbers come from a hostile guest by way of the server. A hidden name is hidden as a path: what has
 * another name below (a hard link, a bind mount) is there under that.
 */
#include "device/fs/overlay.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <sys/stat.h>
#include <time.h>

/* What is virtual does not change; only one-shot files go away, whose names are not believed (fs_entry_set_once). */
enum { valid_s = 3600 };

/* ---- looking ---- */

static int look_below(struct overlay *overlay, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                      struct vial_fs_entry *ret_entry)
{
    struct vial_fs_entry entry;
    int result = BELOW(overlay, lookup, caller, parent, name, &entry);
    if (result == 0)
        result = overlay_admit(overlay, &entry);
    if (result == 0)
        *ret_entry = entry;
    return result;
}

static struct vial_fs_entry virtual_entry(const struct overlay *overlay, const struct overlay_node *node)
{
    struct vial_fs_entry entry = {
        .node = node->id,
        .entry_valid_ns = valid_s * CLOCK_NS_PER_S,
        .attributes_valid_ns = valid_s * CLOCK_NS_PER_S,
    };
    if (node->is_one_shot)
        fs_entry_set_once(&entry);
    overlay_fill_attributes(overlay, node, &entry.attributes);
    return entry;
}

/* A virtual folder: the one below, if there is one that can be had, or an empty one. */
static int look_up_folder(struct overlay *overlay, const struct vial_fs_caller *caller,
                          const struct overlay_place *parent, struct overlay_node *node,
                          struct vial_fs_entry *ret_entry)
{
    struct vial_fs_entry entry;
    int result = -ENOENT;
    if (parent->has_below)
        result = look_below(overlay, caller, parent->below, node->name, &entry);
    if (result == 0 && !S_ISDIR(entry.attributes.mode)) {
        if (overlay->below.ops.forget != NULL)
            overlay->below.ops.forget(overlay->below.user, entry.node, 1);
        result = -ENOTDIR;
    }
    if (result == -ENOENT || result == -ENOTDIR || result == -EACCES || result == -ELOOP) {
        overlay_stand_on_nothing(overlay, node);
        *ret_entry = virtual_entry(overlay, node);
        return 0;
    }
    if (result == 0)
        result = overlay_stand_on(overlay, node, entry.node);
    if (result < 0)
        return result;
    entry.node = node->id;
    entry.generation = 0;
    *ret_entry = entry;
    return 0;
}

static int overlay_lookup(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                          struct vial_fs_entry *ret_entry)
{
    struct overlay *overlay = user;
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    int result = overlay_enter(overlay, parent, &place);
    if (result < 0)
        return result;
    struct overlay_node *child = NULL;
    if (place.node != NULL && !overlay_is_folder(place.node))
        return -ENOTDIR;
    if (place.node != NULL)
        child = overlay_child(overlay, place.node, name);
    if (child != NULL && !overlay_is_visible(overlay, child))
        return -ENOENT;
    if (child != NULL && !overlay_take(overlay, child)) {
        if (child->is_lid)
            return -ENOENT;
        child = NULL;
    }
    if (child == NULL)
        return place.has_below ? look_below(overlay, caller, place.below, name, ret_entry) : -ENOENT;
    if (child->kind == FS_VIRTUAL_FOLDER)
        return look_up_folder(overlay, caller, &place, child, ret_entry);
    *ret_entry = virtual_entry(overlay, child);
    return 0;
}

static void overlay_forget(void *user, uint64_t node, uint64_t lookups)
{
    struct overlay *overlay = user;
    bool is_ours = (node & OVERLAY_BIT) != 0 || node == VIAL_FS_ROOT_NODE; /* these are there until the end */
    if (!is_ours && overlay->below.ops.forget != NULL)
        overlay->below.ops.forget(overlay->below.user, node, lookups);
}

/* ---- attributes ---- */

static int overlay_attributes(void *user, const struct vial_fs_caller *caller, uint64_t node, const uint64_t *handle,
                              struct vial_fs_attributes *ret_attributes)
{
    struct overlay *overlay = user;
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    int result = overlay_enter(overlay, node, &place);
    if (result < 0)
        return result;
    if (place.has_below) /* a virtual folder's handle is ours */
        return BELOW(overlay, attributes, caller, place.below, place.node != NULL ? NULL : handle, ret_attributes);
    overlay_fill_attributes(overlay, place.node, ret_attributes);
    return 0;
}

static int overlay_set_attributes(void *user, const struct vial_fs_caller *caller, uint64_t node,
                                  const uint64_t *handle, uint32_t which, const struct vial_fs_attributes *wanted,
                                  struct vial_fs_attributes *ret_attributes)
{
    struct overlay *overlay = user;
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    int result = overlay_enter(overlay, node, &place);
    if (result < 0 || !place.has_below)
        return result < 0 ? result : -EROFS;
    return BELOW(overlay, set_attributes, caller, place.below, place.node != NULL ? NULL : handle, which, wanted,
                 ret_attributes);
}

static ssize_t overlay_read_link(void *user, const struct vial_fs_caller *caller, uint64_t node, char *target,
                                 size_t size)
{
    struct overlay *overlay = user;
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    int result = overlay_enter(overlay, node, &place);
    if (result < 0 || place.node != NULL)
        return result < 0 ? result : -EINVAL;
    return BELOW(overlay, read_link, caller, node, target, size);
}

static ssize_t overlay_get_xattr(void *user, const struct vial_fs_caller *caller, uint64_t node, const char *name,
                                 void *value, size_t size)
{
    struct overlay *overlay = user;
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    int result = overlay_enter(overlay, node, &place);
    if (result < 0 || !place.has_below)
        return result < 0 ? result : -ENODATA;
    return BELOW(overlay, get_xattr, caller, place.below, name, value, size);
}

static int overlay_set_xattr(void *user, const struct vial_fs_caller *caller, uint64_t node, const char *name,
                             const void *value, size_t size, int flags)
{
    struct overlay *overlay = user;
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    int result = overlay_enter(overlay, node, &place);
    if (result < 0 || !place.has_below)
        return result < 0 ? result : -EROFS;
    return BELOW(overlay, set_xattr, caller, place.below, name, value, size, flags);
}

static ssize_t overlay_list_xattr(void *user, const struct vial_fs_caller *caller, uint64_t node, char *names,
                                  size_t size)
{
    struct overlay *overlay = user;
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    int result = overlay_enter(overlay, node, &place);
    if (result < 0 || !place.has_below)
        return result;
    return BELOW(overlay, list_xattr, caller, place.below, names, size);
}

static int overlay_remove_xattr(void *user, const struct vial_fs_caller *caller, uint64_t node, const char *name)
{
    struct overlay *overlay = user;
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    int result = overlay_enter(overlay, node, &place);
    if (result < 0 || !place.has_below)
        return result < 0 ? result : -EROFS;
    return BELOW(overlay, remove_xattr, caller, place.below, name);
}

/* ---- the file system as a whole ---- */

static int overlay_sync_all(void *user)
{
    struct overlay *overlay = user;
    return BELOW(overlay, sync_all);
}

static int overlay_usage(void *user, uint64_t node, struct vial_fs_usage *ret_usage)
{
    struct overlay *overlay = user;
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    int result = overlay_enter(overlay, node, &place);
    if (result < 0)
        return result;
    return BELOW(overlay, usage, place.has_below ? place.below : VIAL_FS_ROOT_NODE, ret_usage);
}

/* ---- beginning and end ---- */

static void overlay_release(void *user)
{
    struct overlay *overlay = user;
    overlay_free_handles(overlay);
    for (size_t i = 0; i < overlay->node_count; i++)
        overlay_stand_on_nothing(overlay, overlay->nodes[i]);
    overlay_free_tree(overlay);
    pthread_mutex_destroy(&overlay->lock);
    fs_backend_release(&overlay->below);
    free(overlay);
}

static const struct vial_fs_ops overlay_ops = {
    .size = sizeof(struct vial_fs_ops),
    .lookup = overlay_lookup,
    .forget = overlay_forget,
    .attributes = overlay_attributes,
    .set_attributes = overlay_set_attributes,
    .read_link = overlay_read_link,
    .make_link = overlay_make_link,
    .make_folder = overlay_make_folder,
    .make_node = overlay_make_node,
    .create = overlay_create,
    .unlink = overlay_unlink,
    .remove_folder = overlay_remove_folder,
    .rename = overlay_rename,
    .hard_link = overlay_hard_link,
    .open = overlay_open,
    .read = overlay_read,
    .write = overlay_write,
    .flush = overlay_flush,
    .sync = overlay_sync,
    .allocate = overlay_allocate,
    .seek = overlay_seek,
    .copy = overlay_copy,
    .map = overlay_map,
    .close = overlay_close,
    .open_folder = overlay_open_folder,
    .read_folder = overlay_read_folder,
    .sync_folder = overlay_sync_folder,
    .close_folder = overlay_close_folder,
    .sync_all = overlay_sync_all,
    .usage = overlay_usage,
    .get_xattr = overlay_get_xattr,
    .set_xattr = overlay_set_xattr,
    .list_xattr = overlay_list_xattr,
    .remove_xattr = overlay_remove_xattr,
    .release = overlay_release,
};

static int add_all(struct overlay *overlay, const struct fs_virtual *entries, size_t count)
{
    int result = overlay_add_root(overlay);
    for (size_t i = 0; i < count && result == 0; i++)
        result = overlay_add_entry(overlay, &entries[i]);
    return result;
}

int overlay_new(struct fs_backend *below, const struct fs_virtual *entries, size_t count,
                struct fs_backend *ret_backend)
{
    struct overlay *overlay = alloc_zero(sizeof(*overlay));
    if (overlay == NULL)
        return -ENOMEM;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now); /* cannot fail: the clock exists and the pointer is ours */
    overlay->made_s = now.tv_sec;
    overlay->made_ns = (uint32_t)now.tv_nsec;
    pthread_mutex_init(&overlay->lock, NULL);
    int result = add_all(overlay, entries, count);
    if (result < 0) {
        overlay_release(overlay); /* with nothing below it yet */
        return result;
    }
    overlay->below = *below;
    bool tells_at_close = below->ops.flush != NULL;
    *below = (struct fs_backend){.user = NULL};
    *ret_backend = (struct fs_backend){.ops = overlay_ops, .user = overlay};
    if (!tells_at_close)
        ret_backend->ops.flush = NULL;
    return 0;
}
