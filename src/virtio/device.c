// SPDX-License-Identifier: Apache-2.0
/* A virtio device, whatever carries it to the driver.
 *
 * A device runs on a thread of its own, in an event loop. What comes to it from elsewhere comes in two ways: kicks,
 * each an eventfd that the loop watches, and calls (start, stop, anything of virtio_device_run), which the loop's
 * thread executes while the caller waits. So a queue is touched by one thread only, and when a reset returns, the
 * device is known to have let go.
 *
 *     vCPU or socket thread                      device's thread
 *     ─────────────────────                      ────────────────────────────────
 *     DRIVER_OK: virtio_device_start ──call──>   start queues, ops.start
 *     kick eventfd ─────────────────────────>    ops.serve: virtio_pop … virtio_push, virtio_call ──> interrupt
 *     status 0:  virtio_device_stop ───call──>   ops.stop, stop queues
 *
 * Kick eventfds are watched edge-triggered: every write to one is a new edge, so none is lost and none needs a read.
 * A queue may have a second one, which belongs to a front end in another process.
 *
 * A driver on registers sets up all queues and then starts the device; one behind vhost-user begins with none and adds,
 * pauses and resumes them one by one. A paused queue goes on at its used index: what was taken and not pushed comes
 * again. Devices therefore push in order, or say that they do not (is_out_of_order) and push all in queue_paused.
 *
 * The configuration space is plain memory behind a lock. The driver reads it from its own threads; a change by the
 * device counts its generation up, so that a driver can tell when two reads belong together (virtio 1.2, 2.5.1). A
 * change that falls between a driver's first read and its DRIVER_OK is told at DRIVER_OK: nobody else would tell it.
 *
 * Invariants: (1) queues, and the state of the device, are touched on the device's thread only, or before it was
 * launched. (2) serve is called only while the device is started and not broken. (3) after virtio_device_stop returns,
 * no guest memory is touched. (4) between two calls of serve or stop no more chains are taken from a queue than it
 * has places, in whatever function, so calls are answered whatever the driver does.
 *
 * Trust: queue contents, layouts and configuration writes come from a hostile driver; layouts are checked by
 * queue_start, chains by queue_pop, configuration writes by their place here and by their value in the device.
 */
#include "virtio/device.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/thread.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct device_queue {
    struct virtio_device *device; /* borrowed: whose it is */
    unsigned index;
    uint16_t most_entries;
    struct queue *queue;        /* owned */
    int kick_fd;                /* owned */
    struct loop_source *source; /* the loop's */
    int peer_fd;                /* owned: a kick that a front end gave us, or -1 */
    struct loop_source *peer_source;
    unsigned turn_left; /* chains that may be taken until serve is called again */
};

/* The device whose thread this is. */
static _Thread_local const struct virtio_device *current_device;

struct job { /* a call on the device's thread; lives on the caller's stack */
    virtio_function function;
    void *argument;
    bool is_done;
};

struct virtio_device {
    const struct virtio_device_ops *ops;
    void *state; /* owned */
    uint64_t features;
    const struct virtio_transport_ops *transport_ops;
    void *transport; /* borrowed */

    struct loop *loop;           /* owned */
    const struct memory *memory; /* borrowed; NULL while it is not started */
    bool is_launched, is_started, is_broken, is_out_of_order;
    enum thread_kind thread_kind;
    pthread_t thread;
    int job_fd;           /* owned: wakes the loop for a job */
    pthread_mutex_t lock; /* guards the job, and the configuration space */
    pthread_cond_t job_changed;
    struct job *job; /* borrowed from a waiting caller, or NULL */

    uint8_t config[VIRTIO_MOST_CONFIG_BYTES];
    uint32_t config_bytes, writable_offset, writable_bytes, generation;
    bool was_config_read;   /* by the driver, */
    bool is_config_overdue; /* and then changed, before the driver could be told */
    struct virtio_window windows[VIRTIO_MOST_WINDOWS];
    unsigned window_count;
    atomic_uint_fast64_t faults;

    unsigned queue_count;
    struct device_queue queues[]; /* owned */
};

/* ---- the thread ---- */

static bool is_own_thread(const struct virtio_device *device)
{
    return current_device == device || !device->is_launched;
}

static void renew_turn(struct device_queue *own)
{
    own->turn_left = queue_size(own->queue);
}

static void serve_queue(struct device_queue *own)
{
    if (!virtio_is_ready(own->device, own->index))
        return;
    renew_turn(own);
    queue_disable_kicks(own->queue);
    own->device->ops->serve(own->device->state, own->index);
}

static void handle_kick(void *user, uint32_t what)
{
    (void)what;
    serve_queue(user);
}

static void handle_job(void *user, uint32_t what)
{
    struct virtio_device *device = user;
    (void)what;
    pthread_mutex_lock(&device->lock);
    struct job *job = device->job;
    pthread_mutex_unlock(&device->lock);
    if (job == NULL)
        return;
    job->function(device->state, job->argument);
    pthread_mutex_lock(&device->lock);
    job->is_done = true;
    device->job = NULL;
    pthread_cond_broadcast(&device->job_changed);
    pthread_mutex_unlock(&device->lock);
}

static void *run_thread(void *user)
{
    struct virtio_device *device = user;
    current_device = device;
    int result = loop_run(device->loop);
    if (result < 0)
        log_error("virtio.loop_failed", LOG_TEXT("device", device->ops->name), LOG_ERRNO(result));
    return NULL;
}

static void signal_fd(int fd)
{
    uint64_t one = 1;
    ssize_t written = write(fd, &one, sizeof(one));
    (void)written; /* fails only where as many signals are pending as fit */
}

void virtio_device_run(struct virtio_device *device, virtio_function function, void *argument)
{
    if (is_own_thread(device)) {
        function(device->state, argument);
        return;
    }
    struct job job = {.function = function, .argument = argument};
    pthread_mutex_lock(&device->lock);
    while (device->job != NULL) /* another caller's */
        pthread_cond_wait(&device->job_changed, &device->lock);
    device->job = &job; /* cppcheck-suppress autoVariables ; taken back before we return */
    signal_fd(device->job_fd);
    while (!job.is_done)
        pthread_cond_wait(&device->job_changed, &device->lock);
    pthread_mutex_unlock(&device->lock);
}

/* What its thread will need of the host. */
static enum thread_kind kind_of_thread(const struct virtio_device *device)
{
    static const enum thread_kind kinds[VIRTIO_TYPE_FS + 1] = {
        [VIRTIO_TYPE_NET] = THREAD_NET,
        [VIRTIO_TYPE_BLOCK] = THREAD_DISK,
        [VIRTIO_TYPE_VSOCK] = THREAD_NET,
        [VIRTIO_TYPE_FS] = THREAD_FILES,
    };
    enum virtio_type type = device->ops->type;
    if (device->thread_kind != THREAD_ANY)
        return device->thread_kind;
    bool is_known = type <= VIRTIO_TYPE_FS && kinds[type] != THREAD_ANY;
    return is_known ? kinds[type] : THREAD_DEVICE;
}

int virtio_device_launch(struct virtio_device *device)
{
    char name[16];
    snprintf(name, sizeof(name), "vial-%s", device->ops->name);
    int result = thread_start_as(kind_of_thread(device), name, run_thread, device, &device->thread);
    device->is_launched = result == 0;
    return result;
}

void virtio_device_turn(struct virtio_device *device)
{
    assert(!device->is_launched);
    loop_turn(device->loop);
}

/* ---- life ---- */

static int add_queue(struct virtio_device *device, uint16_t most_entries)
{
    struct device_queue *own = &device->queues[device->queue_count];
    *own = (struct device_queue){
        .device = device, .index = device->queue_count, .most_entries = most_entries, .peer_fd = -1};
    own->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (own->kick_fd < 0)
        return -errno;
    device->queue_count++;
    int result = queue_new(most_entries, &own->queue);
    if (result == 0)
        result = loop_add_fd(device->loop, own->kick_fd, EPOLLIN | EPOLLET, handle_kick, own, &own->source);
    return result;
}

static int make_parts(struct virtio_device *device, const struct virtio_device_options *options)
{
    struct loop_source *job_source;
    int result = loop_new(&device->loop);
    if (result < 0)
        return result;
    device->job_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (device->job_fd < 0)
        return -errno;
    result = loop_add_fd(device->loop, device->job_fd, EPOLLIN | EPOLLET, handle_job, device, &job_source);
    for (unsigned i = 0; i < options->queue_count && result == 0; i++)
        result = add_queue(device, options->queue_sizes[i]);
    return result;
}

static void free_parts(struct virtio_device *device)
{
    for (unsigned i = 0; i < device->queue_count; i++)
        queue_free(device->queues[i].queue);
    loop_free(device->loop);
    for (unsigned i = 0; i < device->queue_count; i++) {
        fd_close(device->queues[i].kick_fd);
        fd_close(device->queues[i].peer_fd);
    }
    fd_close(device->job_fd);
    pthread_cond_destroy(&device->job_changed);
    pthread_mutex_destroy(&device->lock);
    free(device);
}

int virtio_device_new(const struct virtio_device_options *options, struct virtio_device **ret_device)
{
    assert(options->queue_count <= VIRTIO_MOST_QUEUES && options->config_bytes <= VIRTIO_MOST_CONFIG_BYTES);
    assert(options->writable_bytes <= options->config_bytes &&
           options->writable_offset <= options->config_bytes - options->writable_bytes);
    struct virtio_device *device = alloc_zero(sizeof(*device) + options->queue_count * sizeof(device->queues[0]));
    if (device == NULL)
        return -ENOMEM;
    device->ops = options->ops;
    device->is_out_of_order = options->is_out_of_order;
    device->thread_kind = options->thread;
    device->features = options->features | VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC;
    device->config_bytes = options->config_bytes;
    device->writable_offset = options->writable_offset;
    device->writable_bytes = options->writable_bytes;
    device->job_fd = -1;
    pthread_mutex_init(&device->lock, NULL);
    pthread_cond_init(&device->job_changed, NULL);
    int result = make_parts(device, options);
    if (result < 0) {
        free_parts(device);
        return result;
    }
    device->state = options->state;
    *ret_device = device;
    return 0;
}

struct virtio_device *virtio_device_free(struct virtio_device *device)
{
    if (device == NULL)
        return NULL;
    assert(current_device != device); /* it would wait for itself */
    virtio_device_stop(device);
    if (device->is_launched) {
        loop_stop(device->loop);
        pthread_join(device->thread, NULL);
        device->is_launched = false;
    }
    if (device->ops->free != NULL)
        device->ops->free(device->state);
    free_parts(device);
    return NULL;
}

void virtio_device_attach(struct virtio_device *device, const struct virtio_transport_ops *ops, void *transport)
{
    device->transport_ops = ops;
    device->transport = transport;
}

/* ---- start and stop ---- */

struct start_request {
    struct virtio_device *device;
    const struct memory *memory;
    uint64_t features;
    const struct queue_layout *layouts;
    int result;
};

static void tell_config_changed(struct virtio_device *device)
{
    if (device->is_started && !device->is_broken && device->transport_ops != NULL)
        device->transport_ops->config_changed(device->transport);
}

static void stop_queues(struct virtio_device *device)
{
    for (unsigned i = 0; i < device->queue_count; i++)
        queue_stop(device->queues[i].queue);
}

static void tell_overdue_config(struct virtio_device *device)
{
    pthread_mutex_lock(&device->lock);
    bool is_overdue = device->is_config_overdue;
    device->is_config_overdue = false;
    pthread_mutex_unlock(&device->lock);
    if (is_overdue)
        tell_config_changed(device);
}

void virtio_device_begin(struct virtio_device *device, const struct memory *memory, uint64_t features)
{
    assert(is_own_thread(device) && !device->is_started);
    device->memory = memory;
    device->is_broken = false;
    device->is_started = true;
    if (device->ops->start != NULL)
        device->ops->start(device->state, features);
    tell_overdue_config(device);
}

static int start_queue(struct device_queue *own, const struct memory *memory, const struct queue_layout *layout)
{
    int result = queue_start(own->queue, memory, layout);
    renew_turn(own);
    return result;
}

static void start_here(void *state, void *argument)
{
    struct start_request *request = argument;
    struct virtio_device *device = request->device;
    (void)state;
    assert(!device->is_started);
    request->result = 0;
    for (unsigned i = 0; i < device->queue_count && request->result == 0; i++)
        if (request->layouts[i].entries != 0)
            request->result = start_queue(&device->queues[i], request->memory, &request->layouts[i]);
    if (request->result < 0) {
        stop_queues(device);
        return;
    }
    virtio_device_begin(device, request->memory, request->features);
    /* The driver may have filled its queues, and even kicked, before it said that it was ready. */
    for (unsigned i = 0; i < device->queue_count; i++)
        if (virtio_is_ready(device, i))
            virtio_kick(device, i);
}

int virtio_device_start(struct virtio_device *device, const struct memory *memory, uint64_t features,
                        const struct queue_layout layouts[])
{
    struct start_request request = {
        .device = device,
        .memory = memory,
        .features = features,
        .layouts = layouts,
    };
    virtio_device_run(device, start_here, &request);
    return request.result;
}

static void stop_here(void *state, void *argument)
{
    struct virtio_device *device = argument;
    pthread_mutex_lock(&device->lock);
    device->was_config_read = device->is_config_overdue = false; /* the next driver reads it anew */
    pthread_mutex_unlock(&device->lock);
    if (!device->is_started)
        return;
    /* A turn of its own: what a driver queued last is not to depend on how much of the turn before it has used. */
    for (unsigned i = 0; i < device->queue_count; i++)
        renew_turn(&device->queues[i]);
    if (device->ops->stop != NULL)
        device->ops->stop(state);
    stop_queues(device);
    device->is_started = false;
    device->memory = NULL;
}

void virtio_device_stop(struct virtio_device *device)
{
    virtio_device_run(device, stop_here, device);
}

/* ---- queues one by one ---- */

int virtio_device_start_queue(struct virtio_device *device, unsigned queue, const struct queue_layout *layout)
{
    assert(is_own_thread(device) && device->is_started && queue < device->queue_count);
    struct device_queue *own = &device->queues[queue];
    int result = start_queue(own, device->memory, layout);
    if (result < 0)
        return result;
    virtio_kick(device, queue); /* there may be something in it already */
    return 0;
}

uint16_t virtio_device_pause_queue(struct virtio_device *device, unsigned queue)
{
    assert(is_own_thread(device) && device->is_started && queue < device->queue_count);
    struct device_queue *own = &device->queues[queue];
    renew_turn(own); /* as for stop */
    if (device->ops->queue_paused != NULL)
        device->ops->queue_paused(device->state, queue);
    queue_stop(own->queue);
    return queue_next_used(own->queue);
}

void virtio_device_serve(struct virtio_device *device, unsigned queue)
{
    assert(is_own_thread(device) && queue < device->queue_count);
    serve_queue(&device->queues[queue]);
}

void virtio_device_move(struct virtio_device *device, const struct memory *memory)
{
    assert(is_own_thread(device) && device->is_started);
    for (unsigned i = 0; i < device->queue_count; i++)
        assert(!queue_is_started(device->queues[i].queue));
    device->memory = memory;
}

int virtio_device_check_queue(const struct virtio_device *device, unsigned queue, const struct memory *memory,
                              const struct queue_layout *layout)
{
    assert(queue < device->queue_count);
    return queue_check(device->queues[queue].queue, memory, layout);
}

int virtio_device_watch_kick(struct virtio_device *device, unsigned queue, int fd)
{
    assert(is_own_thread(device) && queue < device->queue_count);
    struct device_queue *own = &device->queues[queue];
    struct loop_source *source = NULL;
    int result = fd < 0 ? 0 : loop_add_fd(device->loop, fd, EPOLLIN | EPOLLET, handle_kick, own, &source);
    if (result < 0) {
        fd_close(fd);
        return result;
    }
    loop_source_free(own->peer_source);
    fd_close(own->peer_fd);
    own->peer_source = source;
    own->peer_fd = fd;
    return 0;
}

int virtio_device_grow_queues(struct virtio_device *device, uint16_t most_entries)
{
    assert(!device->is_launched && !device->is_started);
    for (unsigned i = 0; i < device->queue_count; i++) {
        struct device_queue *own = &device->queues[i];
        struct queue *larger = NULL;
        if (own->most_entries >= most_entries)
            continue;
        int result = queue_new(most_entries, &larger);
        if (result < 0)
            return result;
        queue_free(own->queue);
        own->queue = larger;
        own->most_entries = most_entries;
    }
    return 0;
}

/* ---- what it is ---- */

enum virtio_type virtio_device_type(const struct virtio_device *device)
{
    return device->ops->type;
}

bool virtio_device_is_out_of_order(const struct virtio_device *device)
{
    return device->is_out_of_order;
}

const char *virtio_device_name(const struct virtio_device *device)
{
    return device->ops->name;
}

uint64_t virtio_device_features(const struct virtio_device *device)
{
    return device->features;
}

unsigned virtio_device_queue_count(const struct virtio_device *device)
{
    return device->queue_count;
}

uint16_t virtio_device_queue_size(const struct virtio_device *device, unsigned queue)
{
    return queue < device->queue_count ? device->queues[queue].most_entries : 0;
}

int virtio_device_kick_fd(const struct virtio_device *device, unsigned queue)
{
    assert(queue < device->queue_count);
    return device->queues[queue].kick_fd;
}

void virtio_device_blame(struct virtio_device *device, const char *why)
{
    uint64_t faults = 1 + atomic_fetch_add_explicit(&device->faults, 1, memory_order_relaxed);
    if ((faults & (faults - 1)) == 0) /* a driver that does it in a loop does not fill the log: 1st, 2nd, 4th, 8th … */
        log_warn("virtio.driver_fault", LOG_TEXT("device", device->ops->name), LOG_TEXT("why", why),
                 LOG_UINT("count", faults));
}

uint64_t virtio_device_faults(const struct virtio_device *device)
{
    return atomic_load_explicit(&device->faults, memory_order_relaxed);
}

void virtio_device_add_window(struct virtio_device *device, const struct virtio_window *window)
{
    assert(device->window_count < VIRTIO_MOST_WINDOWS && !device->is_launched);
    device->windows[device->window_count++] = *window;
}

const struct virtio_window *virtio_device_window(const struct virtio_device *device, uint8_t id)
{
    for (unsigned i = 0; i < device->window_count; i++)
        if (device->windows[i].id == id)
            return &device->windows[i];
    return NULL;
}

/* ---- the configuration space ---- */

void virtio_device_read_config(struct virtio_device *device, uint32_t offset, void *bytes, uint32_t length)
{
    memset(bytes, 0, length);
    if (offset >= device->config_bytes)
        return;
    if (length > device->config_bytes - offset)
        length = device->config_bytes - offset;
    pthread_mutex_lock(&device->lock);
    memcpy(bytes, device->config + offset, length);
    device->was_config_read = true;
    pthread_mutex_unlock(&device->lock);
}

struct config_write {
    struct virtio_device *device;
    uint32_t offset, length;
};

static void tell_config_written(void *state, void *argument)
{
    const struct config_write *request = argument;
    if (request->device->is_started)
        request->device->ops->config_written(state, request->offset, request->length);
}

bool virtio_device_write_config(struct virtio_device *device, uint32_t offset, const void *bytes, uint32_t length)
{
    uint32_t inside = offset - device->writable_offset; /* wraps to something large below it */
    if (length == 0 || inside >= device->writable_bytes || length > device->writable_bytes - inside)
        return false;
    pthread_mutex_lock(&device->lock);
    memcpy(device->config + offset, bytes, length);
    pthread_mutex_unlock(&device->lock);
    struct config_write request = {.device = device, .offset = offset, .length = length};
    if (device->ops->config_written != NULL)
        virtio_device_run(device, tell_config_written, &request);
    return true;
}

uint32_t virtio_device_config_generation(struct virtio_device *device)
{
    pthread_mutex_lock(&device->lock);
    uint32_t generation = device->generation;
    pthread_mutex_unlock(&device->lock);
    return generation;
}

void virtio_set_config(struct virtio_device *device, uint32_t offset, const void *bytes, uint32_t length)
{
    assert(length <= device->config_bytes && offset <= device->config_bytes - length);
    pthread_mutex_lock(&device->lock);
    memcpy(device->config + offset, bytes, length);
    device->generation++;
    device->is_config_overdue = !device->is_started && device->was_config_read;
    pthread_mutex_unlock(&device->lock);
    tell_config_changed(device);
}

/* ---- for the device ---- */

void *virtio_device_state(const struct virtio_device *device)
{
    return device->state;
}

struct loop *virtio_device_loop(const struct virtio_device *device)
{
    return device->loop;
}

bool virtio_device_is_started(const struct virtio_device *device)
{
    return device->is_started;
}

const struct memory *virtio_device_memory(const struct virtio_device *device)
{
    return device->memory;
}

bool virtio_is_ready(const struct virtio_device *device, unsigned queue)
{
    return queue < device->queue_count && device->is_started && !device->is_broken &&
           queue_is_started(device->queues[queue].queue);
}

uint16_t virtio_ring_entries(const struct virtio_device *device, unsigned queue)
{
    return virtio_is_ready(device, queue) ? queue_size(device->queues[queue].queue) : 0;
}

void virtio_break(struct virtio_device *device, const char *why)
{
    if (device->is_broken || !device->is_started)
        return;
    device->is_broken = true;
    for (unsigned i = 0; i < device->queue_count; i++)
        queue_break(device->queues[i].queue);
    virtio_device_blame(device, why);
    if (device->transport_ops != NULL)
        device->transport_ops->broken(device->transport);
}

bool virtio_pop(struct virtio_device *device, unsigned queue, struct queue_chain *ret_chain)
{
    if (!virtio_is_ready(device, queue))
        return false;
    struct device_queue *own = &device->queues[queue];
    if (own->turn_left == 0) {
        virtio_kick(device, queue);
        return false;
    }
    int result = queue_pop(own->queue, ret_chain);
    if (result == 0 && queue_enable_kicks(own->queue)) {
        result = queue_pop(own->queue, ret_chain);
        if (result == 0) /* an index that goes back and forth: not to be waited for */
            virtio_kick(device, queue);
    }
    if (result < 0) {
        virtio_break(device, "a ring or a descriptor makes no sense");
        return false;
    }
    own->turn_left -= result == 1;
    return result == 1;
}

void virtio_unpop(struct virtio_device *device, unsigned queue)
{
    struct device_queue *own = &device->queues[queue];
    if (!virtio_is_ready(device, queue))
        return;
    queue_unpop(own->queue);
    own->turn_left++; /* what was not kept was not taken */
}

void virtio_push(struct virtio_device *device, unsigned queue, uint16_t head, uint32_t written_bytes)
{
    queue_push(device->queues[queue].queue, head, written_bytes);
}

void virtio_call(struct virtio_device *device, unsigned queue)
{
    if (virtio_is_ready(device, queue) && queue_needs_call(device->queues[queue].queue) &&
        device->transport_ops != NULL)
        device->transport_ops->call(device->transport, queue);
}

void virtio_kick(struct virtio_device *device, unsigned queue)
{
    signal_fd(device->queues[queue].kick_fd);
}

enum direction { from_spans, to_spans };

static size_t copy_spans(const struct iovec *spans, size_t count, size_t offset, uint8_t *bytes, size_t length,
                         enum direction direction)
{
    size_t done = 0;
    for (size_t i = 0; i < count && done < length; i++) {
        if (offset >= spans[i].iov_len) {
            offset -= spans[i].iov_len;
            continue;
        }
        uint8_t *here = (uint8_t *)spans[i].iov_base + offset;
        size_t part = spans[i].iov_len - offset < length - done ? spans[i].iov_len - offset : length - done;
        if (direction == from_spans)
            memcpy(bytes + done, here, part);
        else
            memcpy(here, bytes + done, part);
        done += part;
        offset = 0;
    }
    return done;
}

size_t virtio_read_spans(const struct iovec *spans, size_t count, size_t offset, void *bytes, size_t length)
{
    return copy_spans(spans, count, offset, bytes, length, from_spans);
}

size_t virtio_write_spans(const struct iovec *spans, size_t count, size_t offset, const void *bytes, size_t length)
{
    /* the pointer is only read from in this direction */
    return copy_spans(spans, count, offset, (uint8_t *)(uintptr_t)bytes, length, to_spans);
}
