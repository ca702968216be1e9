// SPDX-License-Identifier: Apache-2.0
/* What a guest knows of a folder of the host: inodes by number, and the descriptors that stand for them. */
#ifndef DEVICE_FS_NODE_H
#define DEVICE_FS_NODE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/* Which inode it is, for as long as one of its name exists. */
struct host_identity {
    uint64_t device, inode;
    uint64_t mount; /* 0 where the host's kernel does not tell */
    int64_t born_s; /* tells inodes apart that had the same number one after the other; 0: not known */
    uint32_t born_ns;
    uint32_t type; /* of S_IFMT: a number that is used again must not bring a FIFO in where a file was */
};

/* Of these only what is commented as fixed may be read without the table's lock; fd, too, while it is pinned. */
struct host_node {
    struct host_node *next_by_id, *next_by_identity;
    struct host_node *newer, *older; /* in the order of use, while idle with a descriptor */
    struct host_node *parent;        /* counted in its `children`; NULL: the root, or not known where it is */
    char *name;                      /* owned: in the parent */
    uint64_t id;                     /* fixed */
    uint64_t lookups;                /* that the guest has not forgotten */
    struct host_identity identity;   /* fixed, but for the birth */
    uint32_t pins, children;
    int fd; /* owned: O_PATH; -1: taken away, to be opened again when it is needed */
};

struct host_nodes {
    pthread_mutex_t lock;                    /* over all of it; no system call is made under it */
    struct host_node **by_id, **by_identity; /* owned; as many buckets each */
    size_t bucket_count, count;
    struct host_node *newest, *oldest; /* idle with a descriptor */
    struct host_node *root;            /* owned by the table; always pinned */
    uint64_t last_id;
    size_t held, most_held; /* descriptors of nodes */
    size_t most_held_by_all;
    bool one_device;
};

/* A node whose descriptor stays until the scope's end. */
struct host_pin {
    struct host_nodes *nodes; /* borrowed; NULL: nothing is pinned */
    struct host_node *node;   /* borrowed */
    int fd;                   /* borrowed */
};
#define HOST_PIN_NONE ((struct host_pin){NULL, NULL, -1})
void host_pin_drop(struct host_pin *pin);
#define auto_pin __attribute__((cleanup(host_pin_drop)))

/* Takes the root folder's descriptor over on success; its node is VIAL_FS_ROOT_NODE. `most_held` 0: as the process's
 * limit of descriptors allows. */
int host_nodes_init(struct host_nodes *nodes, int root_fd, uint32_t most_held, bool one_device);
void host_nodes_end(struct host_nodes *nodes);

/* -ESTALE when there is no such node, or when it was moved or removed while the table had no descriptor of it. */
int host_nodes_pin(struct host_nodes *nodes, uint64_t id, struct host_pin *ret_pin);

/* Pins it by an O_PATH descriptor of its inode that the caller could still get. Takes the descriptor over, always. */
int host_nodes_pin_by(struct host_nodes *nodes, uint64_t id, int fd, struct host_pin *ret_pin);

/* What `fd` stands for, which was found as `name` in `parent`. Takes the descriptor over, always. Counts one lookup. */
int host_nodes_found(struct host_nodes *nodes, struct host_node *parent, const char *name, int fd,
                     const struct host_identity *identity, uint64_t *ret_id);
void host_nodes_forget(struct host_nodes *nodes, uint64_t id, uint64_t lookups);

/* What is `name` in `parent` now was somewhere else, or was something else, before. */
void host_nodes_moved(struct host_nodes *nodes, struct host_node *parent, const char *name,
                      const struct host_identity *identity);

/* ---- the table's inside, for node_open.c ---- */

/* Pins it, under the lock. */
void host_nodes_hold(struct host_nodes *nodes, struct host_node *node);
void host_nodes_unpin(struct host_nodes *nodes, struct host_node *node);

/* Gives a pinned node its descriptor unless it has one; takes it over, always. */
void host_nodes_install(struct host_nodes *nodes, struct host_node *node, int fd);

/* Closes some idle descriptors: whether there were any. */
bool host_nodes_shed(struct host_nodes *nodes);

/* ---- opening (node_open.c) ---- */

/* One component or more, without following any link: a descriptor or -errno. -ENOENT for what lies on another file
 * system when those are not there. */
int host_open(struct host_nodes *nodes, int folder_fd, const char *path, int flags, mode_t mode);

/* All that statx knows of it. */
int host_status(int fd, struct statx *ret_status);
struct host_identity host_identity_of(const struct statx *status);
bool host_identity_is(const struct host_identity *one, const struct host_identity *other);

/* Opens a pinned node again, by its place. */
int host_nodes_reopen(struct host_nodes *nodes, struct host_node *node);

#endif
