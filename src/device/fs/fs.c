// SPDX-License-Identifier: Apache-2.0
/* A virtio file system device. (virtio 1.2, 5.11)
 *
 *     queue 0         hiprio: FORGET
 *     queues 1 to N   requests
 *
 *     pop ─> request_read ──quick──────────────────────────> request_execute ─> push, one call a turn
 *                          ├─medium: held until the next is popped; the last of a turn is done here ─┘
 *                          └─long, and held ones with others behind them ─> worker ─eventfd─> push
 *
 * Most requests take microseconds, less than to wake a worker: they are served on the device's thread, as they come. A
 * read or write of moderate size is, too, while it is alone; with others behind it, it goes to a worker, so that a
 * guest with many in flight has them done at once. What is known to take long goes to a worker at all times. A backend
 * that says so (backend_may_wait) is never waited for here, but for its forget, and for the close of a file that was
 * kept open for a guest without opens.
 *
 * A request is an object of a bounded pool. When all are in use, the queue waits until one comes back. Popping another
 * chain invalidates the spans of the one before, so whoever outlives that has copied them (not what they point to).
 *
 * The end of a session, a reset, a paused queue and the end of the device wait for the workers: afterwards nothing
 * touches guest memory or the backend. A backend that never returns therefore blocks whoever waits for that.
 *
 * Invariants: (1) queues and the pool belong to the device's thread. (2) at most LIMIT_FS_REQUESTS requests exist. (3)
 * after stop and queue_paused none is under way. (4) a queue that found no free request is kicked when there is one.
 *
 * Trust: chains come from a hostile driver; options from the embedding program.
 */
#include "device/fs/fs.h"

#include "base/alloc.h"
#include "base/limits.h"
#include "device/fs/request.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>

enum { hiprio_queue_entries = 128, request_queue_entries = 512 };

struct config_space { /* virtio 1.2, 5.11.4; without what VIRTIO_FS_F_NOTIFICATION would add */
    char tag[LIMIT_FS_TAG_BYTES];
    uint32_t request_queues;
};

/* ---- the pool ---- */

static struct request *take_request(struct fs_server *server)
{
    struct request *request = server->free_requests;
    if (request != NULL) {
        server->free_requests = request->next;
        return request;
    }
    if (server->request_count == LIMIT_FS_REQUESTS)
        return NULL;
    request = alloc_zero(sizeof(*request));
    if (request == NULL)
        return NULL; /* one that is under way will come back: there is always one */
    request->server = server;
    server->request_count++;
    return request;
}

static void give_back(struct fs_server *server, struct request *request)
{
    request->next = server->free_requests;
    server->free_requests = request;
}

static void free_requests(struct fs_server *server)
{
    while (server->free_requests != NULL) {
        struct request *request = server->free_requests;
        server->free_requests = request->next;
        free(request->spans);
        free(request);
    }
}

/* ---- serving ---- */

static void finish(struct fs_server *server, struct request *request)
{
    virtio_push(server->device, request->queue, request->head, request->written_bytes);
    give_back(server, request);
}

static void do_here(struct fs_server *server, struct request *request)
{
    request_execute(request);
    finish(server, request);
}

static void do_elsewhere(struct fs_server *server, struct request *request)
{
    if (workers_submit(server->workers, request) < 0)
        do_here(server, request);
}

/* A request that has to wait has its spans copied: whether it does. */
static bool can_wait(struct request *request)
{
    int result = request_keep_spans(request);
    if (result < 0)
        request->error = result;
    return result == 0;
}

/* Takes the next chain of the queue into a request: NULL for none. */
static struct request *next_request(struct fs_server *server, unsigned queue)
{
    struct queue_chain chain;
    struct request *request = take_request(server);
    if (request == NULL) {
        server->starved_queues |= 1u << queue;
        return NULL;
    }
    if (!virtio_pop(server->device, queue, &chain)) {
        give_back(server, request);
        return NULL;
    }
    request->queue = queue;
    request_read(request, &chain);
    return request;
}

/* Lets queues go on that waited for a free request. */
static void wake_starved(struct fs_server *server)
{
    if (server->free_requests == NULL)
        return;
    for (unsigned i = 0; server->starved_queues >> i != 0; i++)
        if ((server->starved_queues >> i & 1) != 0)
            virtio_kick(server->device, i);
    server->starved_queues = 0;
}

static void serve(void *state, unsigned queue)
{
    struct fs_server *server = state;
    struct request *request, *held = NULL;
    while ((request = next_request(server, queue)) != NULL) {
        if (held != NULL)
            do_elsewhere(server, held);
        held = NULL;
        enum request_pace pace = request_pace(request);
        if (pace == REQUEST_QUICK || !can_wait(request))
            do_here(server, request);
        else if (pace == REQUEST_MEDIUM)
            held = request;
        else
            do_elsewhere(server, request);
    }
    if (held != NULL)
        do_here(server, held);
    virtio_call(server->device, queue);
    wake_starved(server);
}

/* Hands back what workers have done. */
static void collect(struct fs_server *server)
{
    uint32_t queues = 0;
    struct request *request = workers_take_done(server->workers);
    while (request != NULL) {
        struct request *next = request->next;
        queues |= 1u << request->queue;
        finish(server, request);
        request = next;
    }
    for (unsigned i = 0; queues >> i != 0; i++)
        if ((queues >> i & 1) != 0)
            virtio_call(server->device, i);
    wake_starved(server);
}

static void handle_done(void *user, uint32_t what)
{
    (void)what;
    collect(user);
}

static void queue_paused(void *state, unsigned queue)
{
    struct fs_server *server = state;
    (void)queue; /* workers do not sort by queue: all is done, and pushed, before this one pauses */
    workers_drain(server->workers);
    collect(server);
}

static void stop(void *state)
{
    struct fs_server *server = state;
    workers_drain(server->workers);
    collect(server);
    server->starved_queues = 0;
    session_end(server);
}

/* ---- life ---- */

static void free_server(void *state)
{
    struct fs_server *server = state;
    loop_source_free(server->done);
    workers_free(server->workers);
    free_requests(server);
    window_free(server->window);
    handles_free(server->handles);
    kept_free(server->kept);
    known_free(server->known);
    fs_backend_release(&server->backend);
    free(server);
}

static const struct virtio_device_ops fs_ops = {
    .type = VIRTIO_TYPE_FS,
    .name = "fs",
    .serve = serve,
    .queue_paused = queue_paused,
    .stop = stop,
    .free = free_server,
};

/* All file systems of the process share its descriptors. */
static size_t most_kept(void)
{
    enum { least = 16, part = 16 };
    struct rlimit limit;
    size_t most = LIMIT_FS_KEPT_FILES;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / part < most)
        most = (size_t)(limit.rlim_cur / part);
    return most > least ? most : least;
}

static int make_parts(struct fs_server *server, const struct fs_options *options)
{
    int result = known_new(&server->known);
    if (result == 0)
        result = handles_new(&server->handles);
    if (result == 0 && options->window != NULL)
        result = window_new(options->window, options->window_bytes, &server->window);
    if (result == 0 && server->without_opens)
        result = kept_new(most_kept(), &server->kept);
    if (result == 0)
        result = workers_new(options->worker_count, &server->workers);
    if (result < 0)
        return result;
    struct request *first = take_request(server);
    if (first == NULL)
        return -ENOMEM;
    give_back(server, first);
    return 0;
}

static int make_device(struct fs_server *server, unsigned queue_count)
{
    uint16_t queue_sizes[1 + FS_MOST_QUEUES] = {hiprio_queue_entries};
    for (unsigned i = 1; i <= queue_count; i++)
        queue_sizes[i] = request_queue_entries;
    struct virtio_device_options options = {
        .ops = &fs_ops,
        .state = server,
        .queue_sizes = queue_sizes,
        .queue_count = 1 + queue_count,
        .config_bytes = sizeof(struct config_space),
    };
    return virtio_device_new(&options, &server->device);
}

static struct fs_server *new_server(const struct fs_options *options)
{
    struct fs_server *server = alloc_zero(sizeof(*server));
    if (server == NULL)
        return NULL;
    server->cache = options->cache;
    server->read_only = options->read_only;
    server->without_opens = options->without_opens;
    server->backend_may_wait = options->backend_may_wait;
    server->posix_acl = options->posix_acl;
    server->exited = options->exited;
    server->exited_user = options->exited_user;
    session_begin_validity(server);
    return server;
}

int fs_new(const struct fs_options *options, struct virtio_device **ret_device)
{
    size_t tag_bytes = strlen(options->tag);
    assert(tag_bytes > 0 && tag_bytes <= LIMIT_FS_TAG_BYTES);
    assert(options->queue_count >= 1 && options->queue_count <= FS_MOST_QUEUES);
    assert(!options->without_opens || options->read_only);
    assert(options->backend.ops.lookup != NULL && options->backend.ops.attributes != NULL);
    struct fs_server *server = new_server(options);
    if (server == NULL)
        return -ENOMEM;
    int result = make_parts(server, options);
    if (result == 0)
        result = make_device(server, options->queue_count);
    if (result < 0) {
        free_server(server);
        return result;
    }
    result = loop_add_fd(virtio_device_loop(server->device), workers_done_fd(server->workers), EPOLLIN | EPOLLET,
                         handle_done, server, &server->done);
    if (result < 0) {
        virtio_device_free(server->device);
        return result;
    }
    server->backend = options->backend; /* from here on nothing fails */
    struct config_space config = {.request_queues = htole32(options->queue_count)};
    memcpy(config.tag, options->tag, tag_bytes);
    virtio_set_config(server->device, 0, &config, sizeof(config));
    *ret_device = server->device;
    return 0;
}

void fs_read_stats(const struct virtio_device *device, struct fs_stats *ret_stats)
{
    struct fs_server *server = virtio_device_state(device);
    *ret_stats = (struct fs_stats){
        .requests = atomic_load_explicit(&server->requests, memory_order_relaxed),
        .errors = atomic_load_explicit(&server->errors, memory_order_relaxed),
        .nodes = known_count(server->known),
        .handles = handles_count(server->handles),
        .read_bytes = atomic_load_explicit(&server->read_bytes, memory_order_relaxed),
        .written_bytes = atomic_load_explicit(&server->written_bytes, memory_order_relaxed),
    };
}
