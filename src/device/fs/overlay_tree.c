// SPDX-License-Identifier: Apache-2.0
/* Virtual files and folders over another backend: the tree of them.
 *
 * It is made once, from a list of paths, and keeps its shape. A folder on the way to an entry that nobody asked for is
 * implied: it is there in any case, and where the backend below has a folder of that name it shows that one's contents.
 * What hides a folder hides everything in it but what lies below by name: a project folder can be mounted in a home
 * folder that is hidden. Where two entries name the same folder, as a mount point in /tmp's place does, both are heard.
 * Where a file stands already, an entry that empties or hides the place, or one in it, only says that what is below
 * stays hidden when that file goes.
 *
 * Invariants: (1) no two children of a folder have the same name. (2) only folders have children. (3) numbers are
 * OVERLAY_BIT and the index in the list of nodes, but for the root, which has the number of all roots.
 *
 * Trust: entries come from the embedding program; what could not be a path is refused.
 */
#include "device/fs/overlay.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/limits.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

enum { default_mode = 0755, block_bytes = 4096, sector_bytes = 512 };

bool overlay_is_folder(const struct overlay_node *node)
{
    return node->kind == FS_VIRTUAL_FOLDER || node->kind == FS_VIRTUAL_EMPTY;
}

static struct overlay_node *find_child(const struct overlay_node *folder, const char *name, size_t length)
{
    struct overlay_node *child = folder->first_child;
    while (child != NULL && (strncmp(child->name, name, length) != 0 || child->name[length] != '\0'))
        child = child->sibling;
    return child;
}

static bool is_gone(struct overlay *overlay, const struct overlay_node *node)
{
    if (!node->is_one_shot)
        return false;
    pthread_mutex_lock(&overlay->lock);
    bool is_gone = node->is_gone;
    pthread_mutex_unlock(&overlay->lock);
    return is_gone;
}

struct overlay_node *overlay_child(struct overlay *overlay, const struct overlay_node *folder, const char *name)
{
    struct overlay_node *child = find_child(folder, name, strlen(name));
    return child != NULL && !child->is_lid && is_gone(overlay, child) ? NULL : child;
}

bool overlay_is_visible(struct overlay *overlay, const struct overlay_node *node)
{
    return node->kind != FS_VIRTUAL_HIDDEN && !is_gone(overlay, node);
}

bool overlay_take(struct overlay *overlay, struct overlay_node *node)
{
    if (!node->is_one_shot)
        return true;
    pthread_mutex_lock(&overlay->lock);
    bool is_first = !node->is_gone;
    node->is_gone = true;
    pthread_mutex_unlock(&overlay->lock);
    return is_first;
}

void overlay_fill_attributes(const struct overlay *overlay, const struct overlay_node *node,
                             struct vial_fs_attributes *ret_attributes)
{
    bool is_folder = overlay_is_folder(node);
    *ret_attributes = (struct vial_fs_attributes){
        /* Not the top bit: programs of the guest may take the number for a signed one. */
        .inode = (node->id & ~OVERLAY_BIT) | OVERLAY_BIT >> 1,
        .size_bytes = is_folder ? 0 : node->length,
        .blocks = is_folder ? 0 : (node->length + sector_bytes - 1) / sector_bytes,
        .access_s = overlay->made_s,
        .modify_s = overlay->made_s,
        .change_s = overlay->made_s,
        .access_ns = overlay->made_ns,
        .modify_ns = overlay->made_ns,
        .change_ns = overlay->made_ns,
        .mode = node->mode,
        .links = is_folder ? 2 : 1,
        .block_bytes = block_bytes,
    };
}

/* ---- making it ---- */

static void node_free(struct overlay_node *node)
{
    fd_close(node->map_fd);
    free(node->join);
    free(node->copy);
    free(node->name);
    free(node);
}

/* A folder, until an entry says what it is. */
static int add_node(struct overlay *overlay, struct overlay_node *parent, char *name, struct overlay_node **ret_node)
{
    void *items = overlay->nodes;
    int result = alloc_grow(&items, overlay->node_count, &overlay->node_capacity, sizeof(*overlay->nodes),
                            LIMIT_FS_VIRTUAL);
    overlay->nodes = items;
    if (result < 0)
        return result;
    struct overlay_node *node = alloc_zero(sizeof(*node));
    if (node == NULL)
        return -ENOMEM;
    node->kind = FS_VIRTUAL_FOLDER;
    node->is_implied = true;
    node->mode = S_IFDIR | default_mode;
    node->name = name;
    node->parent = parent;
    node->map_fd = -1;
    node->id = parent == NULL ? VIAL_FS_ROOT_NODE : OVERLAY_BIT | overlay->node_count;
    overlay->nodes[overlay->node_count++] = node;
    if (parent != NULL) {
        node->sibling = parent->first_child;
        parent->first_child = node;
    }
    *ret_node = node;
    return 0;
}

int overlay_add_root(struct overlay *overlay)
{
    struct overlay_node *root = NULL;
    int result = add_node(overlay, NULL, NULL, &root);
    if (result < 0)
        return result;
    root->join = alloc_zero(sizeof(*root->join));
    if (root->join == NULL)
        return -ENOMEM;
    *root->join = (struct overlay_join){.node = VIAL_FS_ROOT_NODE, .users = 1};
    return 0;
}

static bool is_component(const char *name, size_t length)
{
    bool is_dots = (length == 1 && name[0] == '.') || (length == 2 && name[0] == '.' && name[1] == '.');
    return length > 0 && length <= NAME_MAX && !is_dots;
}

/* The child of that name, made if it is not there. */
static int need_child(struct overlay *overlay, struct overlay_node *folder, const char *name, size_t length,
                      struct overlay_node **ret_child)
{
    if (folder->kind == FS_VIRTUAL_FILE)
        return -ENOTDIR;
    *ret_child = find_child(folder, name, length);
    if (*ret_child != NULL)
        return 0;
    auto_free char *copy = alloc_zero(length + 1);
    if (copy == NULL)
        return -ENOMEM;
    memcpy(copy, name, length);
    int result = add_node(overlay, folder, copy, ret_child);
    if (result == 0)
        (void)steal_ptr(copy);
    if (result == 0 && folder->kind == FS_VIRTUAL_HIDDEN)
        folder->kind = FS_VIRTUAL_EMPTY; /* there is something in it now */
    return result;
}

static int set_bytes(struct overlay_node *node, const struct fs_virtual *entry)
{
    node->bytes = entry->bytes;
    node->length = entry->length;
    if (!entry->copies || entry->length == 0)
        return 0;
    node->copy = alloc_zero(entry->length);
    if (node->copy == NULL)
        return -ENOMEM;
    node->bytes = memcpy(node->copy, entry->bytes, entry->length);
    return 0;
}

/* Two folders in one place show no more of what is below than either; and a mount point is there in any case. */
static enum fs_virtual_kind join_kinds(enum fs_virtual_kind one, enum fs_virtual_kind other)
{
    enum fs_virtual_kind less = one > other ? one : other;
    bool is_needed = less == FS_VIRTUAL_HIDDEN && (one == FS_VIRTUAL_FOLDER || other == FS_VIRTUAL_FOLDER);
    return is_needed ? FS_VIRTUAL_EMPTY : less;
}

static bool hides(const struct fs_virtual *entry)
{
    return entry->kind == FS_VIRTUAL_EMPTY || entry->kind == FS_VIRTUAL_HIDDEN;
}

static int become(struct overlay_node *node, const struct fs_virtual *entry)
{
    if (!node->is_implied && node->kind != FS_VIRTUAL_FILE && entry->kind != FS_VIRTUAL_FILE) {
        enum fs_virtual_kind kind = join_kinds(node->kind, entry->kind);
        node->kind = kind == FS_VIRTUAL_HIDDEN && node->first_child != NULL ? FS_VIRTUAL_EMPTY : kind;
        return 0; /* the permissions are the first one's */
    }
    if (hides(entry) && node->kind == FS_VIRTUAL_FILE) {
        node->is_lid = true;
        return 0;
    }
    if (!node->is_implied || (entry->kind == FS_VIRTUAL_FILE && node->first_child != NULL))
        return -EEXIST;
    node->is_implied = false;
    node->kind = entry->kind;
    if (entry->kind == FS_VIRTUAL_HIDDEN && node->first_child != NULL)
        node->kind = FS_VIRTUAL_EMPTY;
    node->mode = (entry->mode & 07777) | (entry->kind == FS_VIRTUAL_FILE ? S_IFREG : S_IFDIR);
    node->is_one_shot = entry->one_shot && entry->kind == FS_VIRTUAL_FILE;
    return entry->kind == FS_VIRTUAL_FILE ? set_bytes(node, entry) : 0;
}

int overlay_add_entry(struct overlay *overlay, const struct fs_virtual *entry)
{
    if (entry->kind < FS_VIRTUAL_FILE || entry->kind > FS_VIRTUAL_HIDDEN || entry->path[0] != '/')
        return -EINVAL;
    struct overlay_node *node = overlay->nodes[0];
    const char *name = entry->path + 1;
    for (;;) {
        size_t length = strcspn(name, "/");
        if (!is_component(name, length))
            return -EINVAL;
        if (node->kind == FS_VIRTUAL_FILE && hides(entry))
            return become(node, entry);
        int result = need_child(overlay, node, name, length, &node);
        if (result < 0)
            return result;
        if (name[length] == '\0')
            return become(node, entry);
        name += length + 1;
    }
}

void overlay_free_tree(struct overlay *overlay)
{
    for (size_t i = 0; i < overlay->node_count; i++)
        node_free(overlay->nodes[i]);
    free(overlay->nodes);
    overlay->nodes = NULL;
    overlay->node_count = 0;
}
