// SPDX-License-Identifier: Apache-2.0
/* Virtual files and folders over another backend: what its parts share. */
#ifndef DEVICE_FS_OVERLAY_H
#define DEVICE_FS_OVERLAY_H

#include "device/fs/backend.h"

#include <pthread.h>

/* In numbers of nodes and handles that are ours; the backend below must not use it. */
#define OVERLAY_BIT (UINT64_C(1) << 63)

/* A folder below that a virtual one stands on. */
struct overlay_join {
    uint64_t node;
    unsigned users; /* the virtual folder while it stands on it, its open handles, and calls in progress */
};

struct overlay_node {
    enum fs_virtual_kind kind;
    bool is_implied; /* only on the way to others, so far */
    bool is_one_shot;
    bool is_lid;                                         /* what is below does not show when this is gone */
    char *name;                                          /* owned; NULL: the root */
    struct overlay_node *parent, *first_child, *sibling; /* borrowed: the overlay owns all nodes */
    uint64_t id;
    uint32_t mode;
    const void *bytes; /* borrowed */
    void *copy;        /* owned: the same bytes, or NULL */
    size_t length;
    /* Under the overlay's lock: */
    bool is_gone;
    unsigned opens;
    int map_fd;                /* owned: a sealed memory file with the bytes, once it was needed */
    struct overlay_join *join; /* counted in its users; NULL: it stands on nothing */
};

/* An open virtual folder. */
struct overlay_handle {
    struct overlay_handle *next;
    uint64_t id;
    struct overlay_node *node; /* borrowed */
    struct overlay_join *join; /* counted in its users; NULL: there is nothing below */
    uint64_t below;            /* the handle of what is below */
};

enum { OVERLAY_HANDLE_BUCKETS = 256 };

struct overlay {
    struct fs_backend below;     /* owned */
    struct overlay_node **nodes; /* owned, with what they point to; the root first */
    size_t node_count, node_capacity;
    int64_t made_s;
    uint32_t made_ns;
    pthread_mutex_t lock;                                   /* over what changes in nodes, and: */
    struct overlay_handle *handles[OVERLAY_HANDLE_BUCKETS]; /* owned */
    uint64_t last_handle;
};

/* Calls the backend below, which may have no such function. */
#define BELOW(overlay, member, ...)                                                                                    \
    ((overlay)->below.ops.member != NULL ? (overlay)->below.ops.member((overlay)->below.user, ##__VA_ARGS__) : -ENOSYS)

/* ---- the tree (overlay_tree.c) ---- */

int overlay_add_root(struct overlay *overlay);
int overlay_add_entry(struct overlay *overlay, const struct fs_virtual *entry);
void overlay_free_tree(struct overlay *overlay);

/* The entry of that name, hidden ones among them. NULL: what is below shows. */
struct overlay_node *overlay_child(struct overlay *overlay, const struct overlay_node *folder, const char *name);
bool overlay_is_folder(const struct overlay_node *node);
bool overlay_is_visible(struct overlay *overlay, const struct overlay_node *node);

/* Of a visible entry: false when it is a one-shot file that somebody else has looked up meanwhile. */
bool overlay_take(struct overlay *overlay, struct overlay_node *node);
void overlay_fill_attributes(const struct overlay *overlay, const struct overlay_node *node,
                             struct vial_fs_attributes *ret_attributes);

/* ---- where a number leads (overlay_place.c) ---- */

struct overlay_place {
    struct overlay *overlay;   /* borrowed; NULL: nowhere */
    struct overlay_node *node; /* borrowed; NULL: it is the backend's below alone */
    struct overlay_join *join; /* counted in its users; NULL: none */
    bool has_below;            /* there is something below: */
    uint64_t below;
};
#define OVERLAY_NOWHERE ((struct overlay_place){.overlay = NULL})

/* -ESTALE when there is no such node. What is below is not forgotten before the scope's end. */
int overlay_enter(struct overlay *overlay, uint64_t id, struct overlay_place *ret_place);
void overlay_leave(struct overlay_place *place);
#define auto_place __attribute__((cleanup(overlay_leave)))

/* Stands a virtual folder on the node below, of which it takes one look-up over, always. */
int overlay_stand_on(struct overlay *overlay, struct overlay_node *node, uint64_t below);
void overlay_stand_on_nothing(struct overlay *overlay, struct overlay_node *node);
void overlay_drop_join(struct overlay *overlay, struct overlay_join *join);

/* Whether what the backend below has given out is no number of ours. Else it is given back: -EIO. */
int overlay_admit(struct overlay *overlay, const struct vial_fs_entry *entry);

/* ---- operations: see struct vial_fs_ops ---- */

/* overlay_files.c */
int overlay_open(void *user, const struct vial_fs_caller *caller, uint64_t node, uint32_t flags, uint64_t *ret_handle);
ssize_t overlay_read(void *user, uint64_t node, uint64_t handle, const struct iovec *parts, int count, uint64_t offset);
ssize_t overlay_write(void *user, uint64_t node, uint64_t handle, const struct iovec *parts, int count, uint64_t offset,
                      uint32_t flags);
int overlay_flush(void *user, uint64_t node, uint64_t handle);
int overlay_sync(void *user, uint64_t node, uint64_t handle, bool data_only);
int overlay_allocate(void *user, uint64_t node, uint64_t handle, uint32_t mode, uint64_t offset, uint64_t length);
int64_t overlay_seek(void *user, uint64_t node, uint64_t handle, uint64_t offset, uint32_t whence);
ssize_t overlay_copy(void *user, uint64_t from_node, uint64_t from_handle, uint64_t from_offset, uint64_t to_node,
                     uint64_t to_handle, uint64_t to_offset, uint64_t length);
int overlay_map(void *user, const struct vial_fs_caller *caller, uint64_t node, bool for_writing, int *ret_fd);
int overlay_close(void *user, uint64_t node, uint64_t handle);

/* overlay_folders.c */
int overlay_open_folder(void *user, const struct vial_fs_caller *caller, uint64_t node, uint64_t *ret_handle);
int overlay_read_folder(void *user, uint64_t node, uint64_t handle, uint64_t offset, vial_fs_entry_sink add,
                        void *sink);
int overlay_sync_folder(void *user, uint64_t node, uint64_t handle, bool data_only);
int overlay_close_folder(void *user, uint64_t node, uint64_t handle);
void overlay_free_handles(struct overlay *overlay);

/* overlay_names.c */
int overlay_make_link(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                      const char *target, struct vial_fs_entry *ret_entry);
int overlay_make_folder(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                        uint32_t mode, struct vial_fs_entry *ret_entry);
int overlay_make_node(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name, uint32_t mode,
                      uint32_t device, struct vial_fs_entry *ret_entry);
int overlay_create(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name, uint32_t mode,
                   uint32_t flags, struct vial_fs_entry *ret_entry, uint64_t *ret_handle);
int overlay_unlink(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name);
int overlay_remove_folder(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name);
int overlay_rename(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                   uint64_t new_parent, const char *new_name, uint32_t flags);
int overlay_hard_link(void *user, const struct vial_fs_caller *caller, uint64_t node, uint64_t new_parent,
                      const char *new_name, struct vial_fs_entry *ret_entry);

#endif
