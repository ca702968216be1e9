// SPDX-License-Identifier: Apache-2.0
/* What a guest knows of a folder of the host: inodes by number, and the descriptors that stand for them.
 *
 * A guest names an inode by a number of ours, and that stands for an O_PATH descriptor, which nothing that happens to
 * names on the host can turn into another file. The same inode has the same number whatever name it is found by, so
 * nodes are found by number and by identity (file system, inode, mount, type, time of birth).
 *
 * A guest may know a million inodes, and a process has a few thousand descriptors. So only the nodes that were used
 * last keep theirs; another one is opened again when it is needed, by the names from the nearest ancestor that has one,
 * and must prove to be the same inode. Where that fails, as after a rename by the host, the guest is told that its
 * number is stale (ESTALE), upon which its kernel looks the path up once more. What the guest has open still has a
 * descriptor there, by which the caller brings the node back.
 *
 *     found ──> idle, with descriptor <──> pinned (in use by a call)
 *                   │ others were used later        │
 *                   ▼                               │
 *               idle, without ──── opened again ────┘        forgotten, not pinned, no children ──> freed
 *
 * A node takes about 150 bytes and its name; there may be LIMIT_FS_NODES.
 *
 * Invariants: (1) a number is never used twice. (2) a node in use keeps its descriptor. (3) parents form a tree: where
 * two renames and two look-ups cross, the node whose place would close a circle has none. (4) nothing is closed, opened
 * or otherwise asked of the kernel under the lock.
 *
 * Trust: numbers and counts come from a hostile guest by way of the server, names and identities from a host that may
 * change them at any time.
 */
#include "device/fs/node.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/limits.h"
#include "vial/backend.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>

enum { first_buckets = 256, most_closed = 64, least_held = 16 };

/* Of all tables of the process, which share its limit. */
static _Atomic size_t held_by_all;

/* ---- two hash tables ---- */

/* The last steps of splitmix64, which spread any change over all bits. */
static uint64_t mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

static struct host_node **bucket_of_id(const struct host_nodes *nodes, uint64_t id)
{
    return &nodes->by_id[mix(id) & (nodes->bucket_count - 1)];
}

static struct host_node **bucket_of_identity(const struct host_nodes *nodes, const struct host_identity *identity)
{
    uint64_t hash = mix(identity->inode ^ mix(identity->device ^ mix(identity->mount)));
    return &nodes->by_identity[hash & (nodes->bucket_count - 1)];
}

static void link_id(struct host_nodes *nodes, struct host_node *node)
{
    struct host_node **bucket = bucket_of_id(nodes, node->id);
    node->next_by_id = *bucket;
    *bucket = node;
}

static void link_identity(struct host_nodes *nodes, struct host_node *node)
{
    struct host_node **bucket = bucket_of_identity(nodes, &node->identity);
    node->next_by_identity = *bucket;
    *bucket = node;
}

static void unlink_id(struct host_nodes *nodes, const struct host_node *node)
{
    struct host_node **link = bucket_of_id(nodes, node->id);
    while (*link != NULL && *link != node)
        link = &(*link)->next_by_id;
    if (*link != NULL)
        *link = node->next_by_id;
}

static void unlink_identity(struct host_nodes *nodes, const struct host_node *node)
{
    struct host_node **link = bucket_of_identity(nodes, &node->identity);
    while (*link != NULL && *link != node)
        link = &(*link)->next_by_identity;
    if (*link != NULL)
        *link = node->next_by_identity;
}

/* Without memory for more buckets the chains grow instead. */
static void grow_buckets(struct host_nodes *nodes)
{
    size_t wanted = nodes->bucket_count * 2;
    struct host_nodes bigger = {
        .by_id = alloc_zero(wanted * sizeof(struct host_node *)),
        .by_identity = alloc_zero(wanted * sizeof(struct host_node *)),
        .bucket_count = wanted,
    };
    if (bigger.by_id == NULL || bigger.by_identity == NULL) {
        free(bigger.by_id);
        free(bigger.by_identity);
        return;
    }
    for (size_t i = 0; i < nodes->bucket_count; i++) {
        for (struct host_node *node = nodes->by_id[i], *next = NULL; node != NULL; node = next) {
            next = node->next_by_id;
            link_id(&bigger, node);
        }
        for (struct host_node *node = nodes->by_identity[i], *next = NULL; node != NULL; node = next) {
            next = node->next_by_identity;
            link_identity(&bigger, node);
        }
    }
    free(nodes->by_id);
    free(nodes->by_identity);
    nodes->by_id = bigger.by_id;
    nodes->by_identity = bigger.by_identity;
    nodes->bucket_count = wanted;
}

static struct host_node *find_id(const struct host_nodes *nodes, uint64_t id)
{
    struct host_node *node = *bucket_of_id(nodes, id);
    while (node != NULL && node->id != id)
        node = node->next_by_id;
    return node;
}

static bool is_same_number(const struct host_identity *one, const struct host_identity *other)
{
    return one->inode == other->inode && one->device == other->device && one->mount == other->mount &&
           one->type == other->type;
}

bool host_identity_is(const struct host_identity *one, const struct host_identity *other)
{
    return is_same_number(one, other) && one->born_s == other->born_s && one->born_ns == other->born_ns;
}

/* A number is used again only once its inode is gone, which it cannot be while a descriptor holds it; a new time of
 * birth there is overlayfs's, after a first write. Without a descriptor, another time is another inode, and look-ups no
 * longer find the old one. */
static struct host_node *find_identity(struct host_nodes *nodes, const struct host_identity *identity)
{
    struct host_node *node = *bucket_of_identity(nodes, identity);
    while (node != NULL && !is_same_number(&node->identity, identity))
        node = node->next_by_identity;
    if (node == NULL || host_identity_is(&node->identity, identity))
        return node;
    if (node->fd >= 0) {
        node->identity.born_s = identity->born_s;
        node->identity.born_ns = identity->born_ns;
        return node;
    }
    unlink_identity(nodes, node);
    return NULL;
}

/* ---- descriptors, and which of them go ---- */

/* What is to be closed and freed once the lock is gone. */
struct rubbish {
    struct host_node *nodes; /* by next_by_id */
    size_t fd_count;
    int fds[most_closed];
};

static void throw_away(struct rubbish *rubbish)
{
    for (size_t i = 0; i < rubbish->fd_count; i++)
        fd_close(rubbish->fds[i]);
    for (struct host_node *node = rubbish->nodes, *next = NULL; node != NULL; node = next) {
        next = node->next_by_id;
        fd_close(node->fd);
        free(node->name);
        free(node);
    }
}

static void idle_remove(struct host_nodes *nodes, struct host_node *node)
{
    *(node->newer != NULL ? &node->newer->older : &nodes->newest) = node->older;
    *(node->older != NULL ? &node->older->newer : &nodes->oldest) = node->newer;
    node->newer = node->older = NULL;
}

static void idle_add(struct host_nodes *nodes, struct host_node *node)
{
    node->newer = NULL;
    node->older = nodes->newest;
    *(nodes->newest != NULL ? &nodes->newest->newer : &nodes->oldest) = node;
    nodes->newest = node;
}

static bool is_idle(const struct host_node *node)
{
    return node->pins == 0 && node->fd >= 0;
}

static void count_held(struct host_nodes *nodes, bool is_one_more)
{
    nodes->held += is_one_more ? 1 : SIZE_MAX;
    atomic_fetch_add_explicit(&held_by_all, is_one_more ? 1 : SIZE_MAX, memory_order_relaxed);
}

static void take_oldest(struct host_nodes *nodes, struct rubbish *rubbish)
{
    struct host_node *node = nodes->oldest;
    idle_remove(nodes, node);
    rubbish->fds[rubbish->fd_count++] = steal_fd(&node->fd);
    count_held(nodes, false);
}

static bool holds_too_many(const struct host_nodes *nodes)
{
    return nodes->held > nodes->most_held ||
           (nodes->held > least_held &&
            atomic_load_explicit(&held_by_all, memory_order_relaxed) > nodes->most_held_by_all);
}

static void keep_within_budget(struct host_nodes *nodes, struct rubbish *rubbish)
{
    while (nodes->oldest != NULL && rubbish->fd_count < most_closed && holds_too_many(nodes))
        take_oldest(nodes, rubbish);
}

bool host_nodes_shed(struct host_nodes *nodes)
{
    struct rubbish rubbish = {.nodes = NULL};
    pthread_mutex_lock(&nodes->lock);
    while (nodes->oldest != NULL && rubbish.fd_count < most_closed)
        take_oldest(nodes, &rubbish);
    pthread_mutex_unlock(&nodes->lock);
    throw_away(&rubbish);
    return rubbish.fd_count > 0;
}

/* ---- the life of a node ---- */

/* Frees it when nobody needs it, and then its parent, and so on. */
static void let_go(struct host_nodes *nodes, struct host_node *node, struct rubbish *rubbish)
{
    while (node != NULL && node->lookups == 0 && node->pins == 0 && node->children == 0) {
        struct host_node *parent = node->parent;
        unlink_id(nodes, node);
        unlink_identity(nodes, node);
        if (is_idle(node))
            idle_remove(nodes, node);
        if (node->fd >= 0)
            count_held(nodes, false);
        nodes->count--;
        node->next_by_id = rubbish->nodes;
        rubbish->nodes = node;
        if (parent != NULL)
            parent->children--;
        node = parent;
    }
}

static bool is_below(const struct host_node *node, const struct host_node *ancestor)
{
    while (node != NULL && node != ancestor)
        node = node->parent;
    return node != NULL;
}

/* Notes where the node is: `name` in `parent`. */
static int place(struct host_nodes *nodes, struct host_node *node, struct host_node *parent, const char *name,
                 struct rubbish *rubbish)
{
    if (node == nodes->root || (node->parent == parent && strcmp(node->name, name) == 0))
        return 0;
    char *copy = alloc_string(name);
    if (copy == NULL)
        return -ENOMEM;
    /* What has no children is nobody's ancestor: of a deep tree, only what moves is looked for all the way up. */
    bool is_circle = parent == node || (node->children > 0 && is_below(parent, node));
    struct host_node *before = node->parent;
    free(node->name);
    node->name = copy;
    node->parent = is_circle ? NULL : parent;
    if (!is_circle)
        parent->children++;
    if (before != NULL) {
        before->children--;
        let_go(nodes, before, rubbish);
    }
    return 0;
}

static struct host_node *add(struct host_nodes *nodes, const struct host_identity *identity)
{
    struct host_node *node = alloc_zero(sizeof(*node));
    if (node == NULL)
        return NULL;
    node->id = ++nodes->last_id;
    node->identity = *identity;
    node->fd = -1;
    if (nodes->count++ > nodes->bucket_count)
        grow_buckets(nodes);
    link_id(nodes, node);
    link_identity(nodes, node);
    return node;
}

static void give_fd(struct host_nodes *nodes, struct host_node *node, int *fd)
{
    if (node->fd >= 0)
        return;
    node->fd = steal_fd(fd);
    count_held(nodes, true);
    if (node->pins == 0)
        idle_add(nodes, node);
}

static int found_locked(struct host_nodes *nodes, struct host_node *parent, const char *name, int *fd,
                        const struct host_identity *identity, struct rubbish *rubbish, uint64_t *ret_id)
{
    struct host_node *node = find_identity(nodes, identity);
    if (node == NULL && nodes->count >= LIMIT_FS_NODES)
        return -ENFILE;
    if (node == NULL)
        node = add(nodes, identity);
    if (node == NULL)
        return -ENOMEM;
    node->lookups++;
    int result = place(nodes, node, parent, name, rubbish);
    if (result < 0) {
        node->lookups--;
        let_go(nodes, node, rubbish);
        return result;
    }
    give_fd(nodes, node, fd);
    keep_within_budget(nodes, rubbish);
    *ret_id = node->id;
    return 0;
}

int host_nodes_found(struct host_nodes *nodes, struct host_node *parent, const char *name, int fd,
                     const struct host_identity *identity, uint64_t *ret_id)
{
    auto_close int owned_fd = fd;
    struct rubbish rubbish = {.nodes = NULL};
    pthread_mutex_lock(&nodes->lock);
    int result = found_locked(nodes, parent, name, &owned_fd, identity, &rubbish, ret_id);
    pthread_mutex_unlock(&nodes->lock);
    throw_away(&rubbish);
    return result;
}

void host_nodes_moved(struct host_nodes *nodes, struct host_node *parent, const char *name,
                      const struct host_identity *identity)
{
    struct rubbish rubbish = {.nodes = NULL};
    pthread_mutex_lock(&nodes->lock);
    struct host_node *node = find_identity(nodes, identity);
    if (node != NULL)
        (void)place(nodes, node, parent, name,
                    &rubbish); /* without memory its place is the old one: stale, not wrong */
    pthread_mutex_unlock(&nodes->lock);
    throw_away(&rubbish);
}

void host_nodes_forget(struct host_nodes *nodes, uint64_t id, uint64_t lookups)
{
    struct rubbish rubbish = {.nodes = NULL};
    pthread_mutex_lock(&nodes->lock);
    struct host_node *node = find_id(nodes, id);
    if (node != NULL && node != nodes->root) {
        node->lookups -= lookups < node->lookups ? lookups : node->lookups;
        let_go(nodes, node, &rubbish);
    }
    pthread_mutex_unlock(&nodes->lock);
    throw_away(&rubbish);
}

/* ---- pins ---- */

void host_nodes_hold(struct host_nodes *nodes, struct host_node *node)
{
    if (is_idle(node))
        idle_remove(nodes, node);
    node->pins++;
}

void host_nodes_unpin(struct host_nodes *nodes, struct host_node *node)
{
    struct rubbish rubbish = {.nodes = NULL};
    pthread_mutex_lock(&nodes->lock);
    node->pins--;
    if (is_idle(node))
        idle_add(nodes, node);
    let_go(nodes, node, &rubbish);
    keep_within_budget(nodes, &rubbish);
    pthread_mutex_unlock(&nodes->lock);
    throw_away(&rubbish);
}

void host_nodes_install(struct host_nodes *nodes, struct host_node *node, int fd)
{
    auto_close int owned_fd = fd;
    pthread_mutex_lock(&nodes->lock);
    give_fd(nodes, node, &owned_fd);
    pthread_mutex_unlock(&nodes->lock);
}

int host_nodes_pin(struct host_nodes *nodes, uint64_t id, struct host_pin *ret_pin)
{
    pthread_mutex_lock(&nodes->lock);
    struct host_node *node = find_id(nodes, id);
    bool is_open = node != NULL && node->fd >= 0;
    if (node != NULL)
        host_nodes_hold(nodes, node);
    pthread_mutex_unlock(&nodes->lock);
    if (node == NULL)
        return -ESTALE;
    int result = is_open ? 0 : host_nodes_reopen(nodes, node);
    if (result < 0)
        host_nodes_unpin(nodes, node);
    else
        *ret_pin = (struct host_pin){nodes, node, node->fd};
    return result;
}

int host_nodes_pin_by(struct host_nodes *nodes, uint64_t id, int fd, struct host_pin *ret_pin)
{
    auto_close int owned_fd = fd;
    pthread_mutex_lock(&nodes->lock);
    struct host_node *node = find_id(nodes, id);
    if (node != NULL) {
        host_nodes_hold(nodes, node);
        give_fd(nodes, node, &owned_fd);
        *ret_pin = (struct host_pin){nodes, node, node->fd};
    }
    pthread_mutex_unlock(&nodes->lock);
    return node != NULL ? 0 : -ESTALE;
}

void host_pin_drop(struct host_pin *pin)
{
    if (pin->nodes != NULL)
        host_nodes_unpin(pin->nodes, pin->node);
    *pin = HOST_PIN_NONE;
}

/* ---- beginning and end ---- */

/* A quarter of what the process may open: handles take up to a half, and the rest is the program's. */
static size_t fair_share(void)
{
    struct rlimit limit;
    size_t share = LIMIT_FS_NODE_DESCRIPTORS;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / 4 < share)
        share = (size_t)(limit.rlim_cur / 4);
    return share > least_held ? share : least_held;
}

int host_nodes_init(struct host_nodes *nodes, int root_fd, uint32_t most_held, bool one_device)
{
    struct statx status;
    int result = host_status(root_fd, &status);
    if (result < 0)
        return result;
    *nodes = (struct host_nodes){
        .by_id = alloc_zero(first_buckets * sizeof(struct host_node *)),
        .by_identity = alloc_zero(first_buckets * sizeof(struct host_node *)),
        .bucket_count = first_buckets,
        .most_held_by_all = fair_share(),
        .most_held = most_held > 0 ? most_held : fair_share(),
        .last_id = VIAL_FS_ROOT_NODE - 1,
        .one_device = one_device,
    };
    pthread_mutex_init(&nodes->lock, NULL);
    if (nodes->by_id != NULL && nodes->by_identity != NULL) {
        struct host_identity identity = host_identity_of(&status);
        nodes->root = add(nodes, &identity);
    }
    if (nodes->root == NULL) {
        host_nodes_end(nodes);
        return -ENOMEM;
    }
    nodes->root->pins = 1;
    nodes->root->fd = root_fd;
    return 0;
}

void host_nodes_end(struct host_nodes *nodes)
{
    for (size_t i = 0; nodes->by_id != NULL && i < nodes->bucket_count; i++) {
        struct rubbish rubbish = {.nodes = nodes->by_id[i]};
        throw_away(&rubbish);
    }
    atomic_fetch_sub_explicit(&held_by_all, nodes->held, memory_order_relaxed);
    free(nodes->by_id);
    free(nodes->by_identity);
    pthread_mutex_destroy(&nodes->lock);
    *nodes = (struct host_nodes){.by_id = NULL};
}
