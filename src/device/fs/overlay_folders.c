// SPDX-License-Identifier: Apache-2.0
/* Virtual files and folders over another backend: listing folders.
 *
 * A virtual folder lists its own entries first, then those of the folder below that are not covered by a virtual one or
 * hidden. Offsets below are the other backend's, and may be any; those of virtual entries lie in a range that no file
 * system of Linux gives to an entry: ext4 keeps the highest half of its hash for the end of a folder, and others count.
 *
 *     0 ──> entries of ours: own_base + 1, + 2, … + all of them ──> below, from its own 0
 *
 * Invariants: (1) a name is listed once, unless a one-shot file goes meanwhile. (2) an offset continues where the entry
 * that it came with ended.
 *
 * Trust: offsets and numbers come from a hostile guest; an offset below that is in our range ends the listing.
 */
#include "device/fs/overlay.h"

#include "base/alloc.h"

#include <dirent.h>
#include <errno.h>

#define own_base UINT64_C(0x7fffffff00000000)
#define own_end UINT64_C(0x7fffffff7fffffff)

enum { dots = 2 };

/* ---- handles ---- */

static struct overlay_handle **find_link(struct overlay *overlay, const struct overlay_node *node, uint64_t id)
{
    struct overlay_handle **link = &overlay->handles[id % OVERLAY_HANDLE_BUCKETS];
    while (*link != NULL && (*link)->id != id)
        link = &(*link)->next;
    return *link != NULL && (*link)->node == node ? link : NULL;
}

static int open_below(struct overlay *overlay, const struct vial_fs_caller *caller, uint64_t node, uint64_t *ret_handle)
{
    uint64_t handle = 0;
    int result = BELOW(overlay, open_folder, caller, node, &handle);
    if (result == 0 && (handle & OVERLAY_BIT) != 0) {
        (void)BELOW(overlay, close_folder, node, handle);
        return -EIO;
    }
    if (result == 0)
        *ret_handle = handle;
    return result;
}

int overlay_open_folder(void *user, const struct vial_fs_caller *caller, uint64_t node, uint64_t *ret_handle)
{
    struct overlay *overlay = user;
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    int result = overlay_enter(overlay, node, &place);
    if (result < 0)
        return result;
    if (place.node == NULL)
        return open_below(overlay, caller, node, ret_handle);
    if (!overlay_is_folder(place.node))
        return -ENOTDIR;
    auto_free struct overlay_handle *handle = alloc_zero(sizeof(*handle));
    if (handle == NULL)
        return -ENOMEM;
    handle->node = place.node;
    if (place.has_below)
        result = open_below(overlay, caller, place.below, &handle->below);
    if (result < 0)
        return result;
    handle->join = steal_ptr(place.join); /* from now on the handle is its user */
    pthread_mutex_lock(&overlay->lock);
    *ret_handle = handle->id = OVERLAY_BIT | ++overlay->last_handle;
    struct overlay_handle **bucket = &overlay->handles[handle->id % OVERLAY_HANDLE_BUCKETS];
    handle->next = *bucket;
    *bucket = steal_ptr(handle);
    pthread_mutex_unlock(&overlay->lock);
    return 0;
}

/* What the handle of a virtual folder stands for; `place` is the folder's, and becomes the handle's. */
static int enter_handle(struct overlay *overlay, struct overlay_place *place, uint64_t id, uint64_t *ret_below)
{
    struct overlay_join *before = place->join;
    pthread_mutex_lock(&overlay->lock);
    struct overlay_handle **link = find_link(overlay, place->node, id);
    if (link != NULL) {
        place->join = (*link)->join;
        if (place->join != NULL)
            place->join->users++;
        *ret_below = (*link)->below;
    }
    pthread_mutex_unlock(&overlay->lock);
    if (link == NULL)
        return -EBADF;
    if (before != NULL)
        overlay_drop_join(overlay, before);
    place->has_below = place->join != NULL;
    place->below = place->join != NULL ? place->join->node : 0;
    return 0;
}

static void handle_free(struct overlay *overlay, struct overlay_handle *handle)
{
    if (handle->join != NULL) {
        (void)BELOW(overlay, close_folder, handle->join->node, handle->below);
        overlay_drop_join(overlay, handle->join);
    }
    free(handle);
}

int overlay_close_folder(void *user, uint64_t node, uint64_t handle)
{
    struct overlay *overlay = user;
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    int result = overlay_enter(overlay, node, &place);
    if (result < 0)
        return result;
    if (place.node == NULL)
        return BELOW(overlay, close_folder, node, handle);
    pthread_mutex_lock(&overlay->lock);
    struct overlay_handle **link = find_link(overlay, place.node, handle);
    struct overlay_handle *closed = link != NULL ? *link : NULL;
    if (closed != NULL)
        *link = closed->next;
    pthread_mutex_unlock(&overlay->lock);
    if (closed == NULL)
        return -EBADF;
    handle_free(overlay, closed);
    return 0;
}

void overlay_free_handles(struct overlay *overlay)
{
    for (size_t i = 0; i < array_length(overlay->handles); i++) {
        for (struct overlay_handle *handle = overlay->handles[i], *next = NULL; handle != NULL; handle = next) {
            next = handle->next;
            handle_free(overlay, handle);
        }
        overlay->handles[i] = NULL;
    }
}

int overlay_sync_folder(void *user, uint64_t node, uint64_t handle, bool data_only)
{
    struct overlay *overlay = user;
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    uint64_t below = handle;
    int result = overlay_enter(overlay, node, &place);
    if (result == 0 && place.node != NULL)
        result = enter_handle(overlay, &place, handle, &below);
    if (result < 0 || !place.has_below)
        return result;
    return BELOW(overlay, sync_folder, place.below, below, data_only);
}

/* ---- reading ---- */

struct listing {
    struct overlay *overlay;
    const struct overlay_node *folder;
    vial_fs_entry_sink add;
    void *sink;
    bool is_full, is_broken;
};

static bool add_from_below(void *user, const char *name, uint64_t inode, uint32_t type, uint64_t next_offset)
{
    struct listing *listing = user;
    listing->is_broken = next_offset >= own_base && next_offset <= own_end;
    if (listing->is_broken)
        return false;
    return overlay_child(listing->overlay, listing->folder, name) != NULL ||
           listing->add(listing->sink, name, inode, type, next_offset);
}

static uint64_t inode_of(const struct overlay *overlay, const struct overlay_node *node)
{
    struct vial_fs_attributes attributes;
    overlay_fill_attributes(overlay, node, &attributes);
    return attributes.inode;
}

/* The entries of ours from a position on: the dots, unless the folder below has them, and then the children. */
static void list_own(struct overlay *overlay, struct listing *listing, uint64_t position, bool has_dots)
{
    const struct overlay_node *folder = listing->folder;
    const struct overlay_node *up = folder->parent != NULL ? folder->parent : folder;
    if (has_dots && position == 0)
        listing->is_full = !listing->add(listing->sink, ".", inode_of(overlay, folder), DT_DIR, own_base + 1);
    if (has_dots && position <= 1 && !listing->is_full)
        listing->is_full = !listing->add(listing->sink, "..", inode_of(overlay, up), DT_DIR, own_base + 2);
    uint64_t at = dots;
    for (const struct overlay_node *child = folder->first_child; child != NULL && !listing->is_full;
         child = child->sibling, at++) {
        uint32_t type = overlay_is_folder(child) ? DT_DIR : DT_REG | (child->is_one_shot ? FS_LISTED_ONLY : 0);
        if (at >= position && overlay_is_visible(overlay, child))
            listing->is_full = !listing->add(listing->sink, child->name, inode_of(overlay, child), type,
                                             own_base + at + 1);
    }
}

int overlay_read_folder(void *user, uint64_t node, uint64_t handle, uint64_t offset, vial_fs_entry_sink add, void *sink)
{
    struct overlay *overlay = user;
    auto_place struct overlay_place place = OVERLAY_NOWHERE;
    int result = overlay_enter(overlay, node, &place);
    if (result < 0)
        return result;
    if (place.node == NULL)
        return BELOW(overlay, read_folder, node, handle, offset, add, sink);
    uint64_t below = 0;
    result = enter_handle(overlay, &place, handle, &below);
    if (result < 0)
        return result;
    struct listing listing = {.overlay = overlay, .folder = place.node, .add = add, .sink = sink};
    bool is_own = offset == 0 || (offset >= own_base && offset <= own_end);
    if (is_own) {
        list_own(overlay, &listing, offset == 0 ? 0 : offset - own_base, !place.has_below);
        offset = 0;
    }
    if (listing.is_full || !place.has_below)
        return 0;
    result = BELOW(overlay, read_folder, place.below, below, offset, add_from_below, &listing);
    return listing.is_broken ? -EIO : result;
}
