// SPDX-License-Identifier: Apache-2.0
/* What a guest has open in a folder of the host.
 *
 * A handle is a descriptor of the host. A guest can close one on one CPU while it reads on another, so whoever works
 * with a handle holds it, and the last one closes the descriptor. Handles are found by their number, and by their node:
 * a file that is open but has no name any more is reached by what is open of it.
 *
 * All handles of a process come out of one limit: a guest that opens whatever it can must not take the descriptors that
 * the program itself needs. The limit is read when a table is made, not at each open.
 *
 * Invariants: (1) a number is never used twice. (2) a descriptor in use is not closed. (3) the guests of this process
 * have at most half of the descriptors that it may have.
 *
 * Trust: numbers come from a hostile guest by way of the server.
 */
#include "device/fs/passthrough_handles.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/limits.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/resource.h>

enum { first_buckets = 64 };

/* Of all tables of the process, which share its limit. */
static _Atomic size_t open_in_all;

static size_t most_open(void)
{
    struct rlimit limit;
    size_t most = LIMIT_FS_HANDLES;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / 2 < most)
        most = (size_t)(limit.rlim_cur / 2);
    return most;
}

static struct host_handle **bucket_of(const struct host_handles *handles, uint64_t id)
{
    return &handles->buckets[id & (handles->bucket_count - 1)]; /* ids are counted up: they spread by themselves */
}

static struct host_handle **bucket_of_node(const struct host_handles *handles, uint64_t node)
{
    return &handles->of_nodes[node & (handles->bucket_count - 1)]; /* as are the nodes' */
}

static void link_handle(struct host_handles *handles, struct host_handle *handle)
{
    struct host_handle **bucket = bucket_of(handles, handle->id);
    struct host_handle **of_node = bucket_of_node(handles, handle->node);
    handle->next = *bucket;
    *bucket = handle;
    handle->next_of_node = *of_node;
    *of_node = handle;
}

static void unlink_handle(struct host_handles *handles, const struct host_handle *handle)
{
    struct host_handle **link = bucket_of(handles, handle->id);
    while (*link != handle)
        link = &(*link)->next;
    *link = handle->next;
    link = bucket_of_node(handles, handle->node);
    while (*link != handle)
        link = &(*link)->next_of_node;
    *link = handle->next_of_node;
}

static int make_buckets(struct host_handles *handles)
{
    handles->buckets = alloc_zero(handles->bucket_count * sizeof(*handles->buckets));
    handles->of_nodes = alloc_zero(handles->bucket_count * sizeof(*handles->of_nodes));
    if (handles->buckets != NULL && handles->of_nodes != NULL)
        return 0;
    free(handles->buckets);
    free(handles->of_nodes);
    handles->buckets = handles->of_nodes = NULL;
    return -ENOMEM;
}

static void grow(struct host_handles *handles)
{
    struct host_handles bigger = {.bucket_count = handles->bucket_count * 2};
    if (make_buckets(&bigger) < 0)
        return; /* the chains grow instead */
    for (size_t i = 0; i < handles->bucket_count; i++) {
        for (struct host_handle *handle = handles->buckets[i], *next = NULL; handle != NULL; handle = next) {
            next = handle->next;
            link_handle(&bigger, handle);
        }
    }
    free(handles->buckets);
    free(handles->of_nodes);
    handles->buckets = bigger.buckets;
    handles->of_nodes = bigger.of_nodes;
    handles->bucket_count = bigger.bucket_count;
}

static void handle_free(struct host_handle *handle)
{
    fd_close(handle->fd);
    free(handle->bytes);
    pthread_mutex_destroy(&handle->lock);
    free(handle);
    atomic_fetch_sub_explicit(&open_in_all, 1, memory_order_relaxed);
}

static struct host_handle *handle_new(uint64_t node, int fd, bool is_folder, bool is_writable)
{
    struct host_handle *handle = alloc_zero(sizeof(*handle));
    if (handle == NULL)
        return NULL;
    handle->node = node;
    handle->users = 1;
    handle->fd = fd;
    handle->is_folder = is_folder;
    handle->is_writable = is_writable;
    pthread_mutex_init(&handle->lock, NULL);
    return handle;
}

int host_handles_add(struct host_handles *handles, uint64_t node, int fd, bool is_folder, bool is_writable,
                     uint64_t *ret_id)
{
    auto_close int owned_fd = fd;
    struct host_handle *handle = NULL;
    bool is_one_too_many = atomic_fetch_add_explicit(&open_in_all, 1, memory_order_relaxed) >= handles->most_in_all;
    if (!is_one_too_many)
        handle = handle_new(node, fd, is_folder, is_writable);
    if (handle == NULL) {
        atomic_fetch_sub_explicit(&open_in_all, 1, memory_order_relaxed);
        return is_one_too_many ? -ENFILE : -ENOMEM;
    }
    (void)steal_fd(&owned_fd);
    pthread_mutex_lock(&handles->lock);
    if (handles->count++ > handles->bucket_count)
        grow(handles);
    *ret_id = handle->id = ++handles->last_id;
    link_handle(handles, handle);
    pthread_mutex_unlock(&handles->lock);
    return 0;
}

static struct host_handle *find(const struct host_handles *handles, uint64_t node, uint64_t id, bool is_folder)
{
    struct host_handle *handle = *bucket_of(handles, id);
    while (handle != NULL && handle->id != id)
        handle = handle->next;
    return handle != NULL && handle->node == node && handle->is_folder == is_folder ? handle : NULL;
}

static struct host_handle *find_any(const struct host_handles *handles, uint64_t node)
{
    struct host_handle *handle = *bucket_of_node(handles, node);
    while (handle != NULL && handle->node != node)
        handle = handle->next_of_node;
    return handle;
}

static void drop(struct host_handles *handles, struct host_handle *handle)
{
    pthread_mutex_lock(&handles->lock);
    bool is_last = --handle->users == 0;
    pthread_mutex_unlock(&handles->lock);
    if (is_last)
        handle_free(handle);
}

/* Under the lock. */
static int use(struct host_handles *handles, struct host_handle *handle, struct host_use *ret_use)
{
    if (handle == NULL)
        return -EBADF;
    handle->users++;
    *ret_use = (struct host_use){handles, handle, handle->fd};
    return 0;
}

int host_handles_use(struct host_handles *handles, uint64_t node, uint64_t id, bool is_folder, struct host_use *ret_use)
{
    pthread_mutex_lock(&handles->lock);
    int result = use(handles, find(handles, node, id, is_folder), ret_use);
    pthread_mutex_unlock(&handles->lock);
    return result;
}

int host_handles_use_any(struct host_handles *handles, uint64_t node, struct host_use *ret_use)
{
    pthread_mutex_lock(&handles->lock);
    int result = use(handles, find_any(handles, node), ret_use);
    pthread_mutex_unlock(&handles->lock);
    return result;
}

void host_use_drop(struct host_use *use)
{
    if (use->handles != NULL)
        drop(use->handles, use->handle);
    *use = HOST_USE_NONE;
}

int host_handles_close(struct host_handles *handles, uint64_t node, uint64_t id, bool is_folder)
{
    pthread_mutex_lock(&handles->lock);
    struct host_handle *handle = find(handles, node, id, is_folder);
    if (handle != NULL) {
        unlink_handle(handles, handle);
        handles->count--;
    }
    pthread_mutex_unlock(&handles->lock);
    if (handle == NULL)
        return -EBADF;
    drop(handles, handle);
    return 0;
}

int host_handles_init(struct host_handles *handles)
{
    *handles = (struct host_handles){.bucket_count = first_buckets, .most_in_all = most_open()};
    int result = make_buckets(handles);
    if (result == 0)
        pthread_mutex_init(&handles->lock, NULL);
    return result;
}

void host_handles_end(struct host_handles *handles)
{
    if (handles->buckets == NULL)
        return;
    for (size_t i = 0; i < handles->bucket_count; i++) {
        for (struct host_handle *handle = handles->buckets[i], *next = NULL; handle != NULL; handle = next) {
            next = handle->next;
            handle_free(handle);
        }
    }
    free(handles->buckets);
    free(handles->of_nodes);
    pthread_mutex_destroy(&handles->lock);
    *handles = (struct host_handles){.buckets = NULL};
}
