// SPDX-License-Identifier: Apache-2.0
/* Virtual files and folders over another backend: where a number leads.
 *
 *     a number of the backend below ──────────────────────────────────────> that node
 *     a number of ours ──> virtual node ──┬── file, or a folder on nothing
 *                                         └── a folder on one below ──────> that node
 *
 * What a virtual folder stands on is found at each look-up of it, since the host may make, remove or exchange it. A
 * join holds one look-up of the node below and is counted, so that a call in another thread does not work with a node
 * that was just forgotten.
 *
 * Invariants: (1) a node below is forgotten when nobody uses its join any more, once. (2) no call of the backend below
 * is made under the lock.
 *
 * Trust: numbers come from a hostile guest by way of the server; what the backend below gives out is checked.
 */
#include "device/fs/overlay.h"

#include "base/alloc.h"

#include <errno.h>

int overlay_enter(struct overlay *overlay, uint64_t id, struct overlay_place *ret_place)
{
    bool is_ours = (id & OVERLAY_BIT) != 0;
    if (!is_ours && id != VIAL_FS_ROOT_NODE) {
        *ret_place = (struct overlay_place){.overlay = overlay, .has_below = true, .below = id};
        return 0;
    }
    uint64_t index = is_ours ? id & ~OVERLAY_BIT : 0;
    if (index >= overlay->node_count || (is_ours && index == 0))
        return -ESTALE;
    struct overlay_node *node = overlay->nodes[index];
    pthread_mutex_lock(&overlay->lock);
    struct overlay_join *join = node->join;
    if (join != NULL)
        join->users++;
    pthread_mutex_unlock(&overlay->lock);
    *ret_place = (struct overlay_place){
        .overlay = overlay,
        .node = node,
        .join = join,
        .has_below = join != NULL,
        .below = join != NULL ? join->node : 0,
    };
    return 0;
}

void overlay_leave(struct overlay_place *place)
{
    if (place->overlay != NULL && place->join != NULL)
        overlay_drop_join(place->overlay, place->join);
    *place = OVERLAY_NOWHERE;
}

static void forget_below(struct overlay *overlay, uint64_t node)
{
    if (node != VIAL_FS_ROOT_NODE && overlay->below.ops.forget != NULL)
        overlay->below.ops.forget(overlay->below.user, node, 1);
}

void overlay_drop_join(struct overlay *overlay, struct overlay_join *join)
{
    pthread_mutex_lock(&overlay->lock);
    bool is_last = --join->users == 0;
    pthread_mutex_unlock(&overlay->lock);
    if (!is_last)
        return;
    forget_below(overlay, join->node);
    free(join);
}

/* Exchanges what the folder stands on; the new one has one user. */
static void replace_join(struct overlay *overlay, struct overlay_node *node, struct overlay_join *join)
{
    pthread_mutex_lock(&overlay->lock);
    struct overlay_join *before = node->join;
    node->join = join;
    pthread_mutex_unlock(&overlay->lock);
    if (before != NULL)
        overlay_drop_join(overlay, before);
}

int overlay_stand_on(struct overlay *overlay, struct overlay_node *node, uint64_t below)
{
    pthread_mutex_lock(&overlay->lock);
    bool is_same = node->join != NULL && node->join->node == below;
    pthread_mutex_unlock(&overlay->lock);
    struct overlay_join *join = is_same ? NULL : alloc_zero(sizeof(*join));
    if (join == NULL) {
        forget_below(overlay, below); /* one look-up of it is held already, or cannot be */
        return is_same ? 0 : -ENOMEM;
    }
    *join = (struct overlay_join){.node = below, .users = 1};
    replace_join(overlay, node, join);
    return 0;
}

void overlay_stand_on_nothing(struct overlay *overlay, struct overlay_node *node)
{
    replace_join(overlay, node, NULL);
}

int overlay_admit(struct overlay *overlay, const struct vial_fs_entry *entry)
{
    if ((entry->node & OVERLAY_BIT) == 0)
        return 0;
    forget_below(overlay, entry->node);
    return -EIO;
}
