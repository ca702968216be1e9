// SPDX-License-Identifier: Apache-2.0
/* Virtual files and folders over another backend: names that are made, moved and removed.
 *
 * To a program in the guest a virtual folder over one below is a mount point: it cannot be removed or renamed, and
 * nothing can be put in its place (EBUSY). A file, and a folder that shows nothing of what is below, are as on a
 * read-only file system (EROFS), and so is what would be made in a folder that exists only here. A name that is hidden
 * is not there, and cannot be made either (EPERM). Anything else goes to the backend below.
 *
 * Invariants: (1) no name that the tree knows reaches the backend below. (2) no number of the backend below is ours.
 *
 * Trust: names and numbers come from a hostile guest.
 */
#include "device/fs/overlay.h"

#include <errno.h>

/* Why the name of a visible entry cannot be taken away. */
static int refusal(const struct overlay_node *child)
{
    return child->kind == FS_VIRTUAL_FOLDER ? -EBUSY : -EROFS;
}

/* Enters a folder to make `name` in it. */
static int enter_to_make(struct overlay *overlay, uint64_t parent, const char *name, struct overlay_place *ret_place)
{
    int result = overlay_enter(overlay, parent, ret_place);
    if (result < 0 || ret_place->node == NULL)
        return result;
    if (!overlay_is_folder(ret_place->node))
        return -ENOTDIR;
    const struct overlay_node *child = overlay_child(overlay, ret_place->node, name);
    if (child != NULL)
        return overlay_is_visible(overlay, child) ? -EEXIST : -EPERM;
    return ret_place->has_below ? 0 : -EROFS;
}

/* Enters a folder to take `name` away from it. */
static int enter_to_take(struct overlay *overlay, uint64_t parent, const char *name, struct overlay_place *ret_place)
{
    int result = overlay_enter(overlay, parent, ret_place);
    if (result < 0 || ret_place->node == NULL)
        return result;
    if (!overlay_is_folder(ret_place->node))
        return -ENOTDIR;
    const struct overlay_node *child = overlay_child(overlay, ret_place->node, name);
    if (child != NULL)
        return overlay_is_visible(overlay, child) ? refusal(child) : -ENOENT;
    return ret_place->has_below ? 0 : -ENOENT;
}

/* What the backend below has made, once it is admitted. */
static int finish(struct overlay *overlay, int result, const struct vial_fs_entry *entry,
                  struct vial_fs_entry *ret_entry)
{
    if (result == 0)
        result = overlay_admit(overlay, entry);
    if (result == 0)
        *ret_entry = *entry;
    return result;
}

int overlay_make_link(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                      const char *target, struct vial_fs_entry *ret_entry)
{
    struct overlay *overlay = user;
    struct vial_fs_entry entry;
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    int result = enter_to_make(overlay, parent, name, &place);
    if (result == 0)
        result = BELOW(overlay, make_link, caller, place.below, name, target, &entry);
    return finish(overlay, result, &entry, ret_entry);
}

int overlay_make_folder(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                        uint32_t mode, struct vial_fs_entry *ret_entry)
{
    struct overlay *overlay = user;
    struct vial_fs_entry entry;
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    int result = enter_to_make(overlay, parent, name, &place);
    if (result == 0)
        result = BELOW(overlay, make_folder, caller, place.below, name, mode, &entry);
    return finish(overlay, result, &entry, ret_entry);
}

int overlay_make_node(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name, uint32_t mode,
                      uint32_t device, struct vial_fs_entry *ret_entry)
{
    struct overlay *overlay = user;
    struct vial_fs_entry entry;
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    int result = enter_to_make(overlay, parent, name, &place);
    if (result == 0)
        result = BELOW(overlay, make_node, caller, place.below, name, mode, device, &entry);
    return finish(overlay, result, &entry, ret_entry);
}

int overlay_create(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name, uint32_t mode,
                   uint32_t flags, struct vial_fs_entry *ret_entry, uint64_t *ret_handle)
{
    struct overlay *overlay = user;
    struct vial_fs_entry entry;
    uint64_t handle = 0;
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    int result = enter_to_make(overlay, parent, name, &place);
    if (result == 0)
        result = BELOW(overlay, create, caller, place.below, name, mode, flags, &entry, &handle);
    if (result < 0)
        return result;
    if (((handle | entry.node) & OVERLAY_BIT) != 0) {
        (void)BELOW(overlay, close, entry.node, handle);
        if (overlay->below.ops.forget != NULL)
            overlay->below.ops.forget(overlay->below.user, entry.node, 1);
        return -EIO;
    }
    *ret_entry = entry;
    *ret_handle = handle;
    return 0;
}

int overlay_hard_link(void *user, const struct vial_fs_caller *caller, uint64_t node, uint64_t new_parent,
                      const char *new_name, struct vial_fs_entry *ret_entry)
{
    struct overlay *overlay = user;
    struct vial_fs_entry entry;
    auto_place struct overlay_place subject = OVERLAY_NOWHERE, place = OVERLAY_NOWHERE;
    int result = overlay_enter(overlay, node, &subject);
    if (result == 0 && subject.node != NULL)
        return overlay_is_folder(subject.node) ? -EPERM : -EROFS;
    if (result == 0)
        result = enter_to_make(overlay, new_parent, new_name, &place);
    if (result == 0)
        result = BELOW(overlay, hard_link, caller, subject.below, place.below, new_name, &entry);
    return finish(overlay, result, &entry, ret_entry);
}

int overlay_unlink(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name)
{
    struct overlay *overlay = user;
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    int result = enter_to_take(overlay, parent, name, &place);
    return result < 0 ? result : BELOW(overlay, unlink, caller, place.below, name);
}

int overlay_remove_folder(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name)
{
    struct overlay *overlay = user;
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    int result = enter_to_take(overlay, parent, name, &place);
    return result < 0 ? result : BELOW(overlay, remove_folder, caller, place.below, name);
}

int overlay_rename(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                   uint64_t new_parent, const char *new_name, uint32_t flags)
{
    struct overlay *overlay = user;
    auto_place struct overlay_place from = OVERLAY_NOWHERE, to = OVERLAY_NOWHERE;
    int result = enter_to_take(overlay, parent, name, &from);
    if (result == 0)
        result = enter_to_make(overlay, new_parent, new_name, &to);
    const struct overlay_node *there = result == -EEXIST ? overlay_child(overlay, to.node, new_name) : NULL;
    if (there != NULL)
        return refusal(there);
    if (result < 0)
        return result;
    return BELOW(overlay, rename, caller, from.below, name, to.below, new_name, flags);
}
