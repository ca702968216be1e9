// SPDX-License-Identifier: Apache-2.0
/* Memory that the guest does not need goes back to the host. (virtio 1.2, 5.5)
 *
 * The standard numbers the queues: inflate 0, deflate 1, statistics 2, hints 3, reports 4. Linux's driver counts only
 * those whose feature it has taken, so its queue for reports is 2 or 3 with us. Hints are not offered, and what is
 * neither of the first two nor the statistics can therefore only be for reports:
 *
 *     queue                   0        1        2           3        4
 *     statistics taken        inflate  deflate  statistics  reports  reports
 *     statistics not taken    inflate  deflate  reports     reports  reports
 *
 * Offered: statistics, if somebody wants them; DEFLATE_ON_OOM, as the balloon is a wish and not a limit; reporting of
 * free pages. Without PAGE_POISON a driver treats pages that come back as uninitialised (5.5.6.7), so we may give it
 * whatever the host has; a Linux that fills its free pages with a value then takes no reporting. MUST_TELL_HOST has no
 * use: a page comes back by being touched.
 *
 * Statistics work the other way around. The driver leaves one buffer with us; when we want to know, we use it, and it
 * sends the next one, filled. The timer runs only while we have a buffer, so a guest that sends none costs nothing, and
 * one that sends many is asked no more often.
 *
 *     none ── buffer arrives: read it, set the timer ──> held ── timer: use the buffer ──> none
 *
 * Invariants: (1) the timer is armed exactly while a buffer is held. (2) `actual` is never more than the memory. (3) a
 * turn ends after a bounded number of pages and bytes, whatever the queues still hold. (4) nothing here grows.
 *
 * Trust: queues and `actual` come from a hostile driver. Statistics are its claims, kept as they are.
 */
#include "device/balloon/balloon.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "device/balloon/pages.h"

#include <errno.h>
#include <string.h>

/* (5.5.3) */
#define FEATURE_STATISTICS (UINT64_C(1) << 1)
#define FEATURE_DEFLATE_ON_OOM (UINT64_C(1) << 2)
#define FEATURE_REPORTING (UINT64_C(1) << 5)

enum { inflate_queue = 0, deflate_queue = 1, statistics_queue = 2, queue_count = 5 };
/* Linux wants 32 places for reports (PAGE_REPORTING_CAPACITY), and any queue but the first two may be for them. */
enum { queue_entries = 64 };

struct config { /* (5.5.4), as far as our features reach */
    uint32_t target_pages, actual_pages;
};

struct balloon {
    struct virtio_device *device; /* borrowed: it owns us */
    uint64_t features;            /* that the driver took */
    uint32_t memory_pages;        /* what the guest has, as far as the configuration can say it */
    uint32_t actual_pages;
    struct balloon_counters counters;
    uint64_t complaints; /* ignored and failed together, when the log last heard of them */

    uint64_t stats_interval_ns; /* 0: nobody asks */
    struct loop_source *timer;  /* the loop's */
    struct balloon_stats stats;
    bool has_buffer; /* of the statistics queue, held to ask for the next ones */
    uint16_t buffer_head;
};

/* Says in the log that requests make no sense: at the first one, and again whenever there are twice as many. */
static void complain(struct balloon *balloon)
{
    uint64_t now = balloon->counters.ignored + balloon->counters.failed;
    if (now == 0 || now / 2 < balloon->complaints)
        return;
    balloon->complaints = now;
    log_warn("balloon.requests_ignored", LOG_UINT("ignored", balloon->counters.ignored),
             LOG_UINT("failed", balloon->counters.failed));
}

/* ---- pages ---- */

typedef void (*pages_function)(const struct memory *memory, const struct queue_chain *chain, struct pages_work *work,
                               struct balloon_counters *counters);

static void serve_pages(struct balloon *balloon, unsigned queue, pages_function function)
{
    struct pages_work work = {0};
    struct queue_chain chain;
    while (work.pages < LIMIT_BALLOON_PAGES && work.bytes < LIMIT_BALLOON_REPORT_BYTES) {
        if (!virtio_pop(balloon->device, queue, &chain)) {
            virtio_call(balloon->device, queue);
            return;
        }
        function(virtio_device_memory(balloon->device), &chain, &work, &balloon->counters);
        virtio_push(balloon->device, queue, chain.head, 0);
        complain(balloon);
    }
    virtio_call(balloon->device, queue);
    virtio_kick(balloon->device, queue); /* enough for this turn; others wait for this thread, too */
}

/* ---- statistics ---- */

static void read_stats(const struct queue_chain *chain, struct balloon_stats *stats)
{
    struct __attribute__((packed)) {
        uint16_t tag;
        uint64_t value;
    } entries[LIMIT_BALLOON_STATISTICS];
    size_t bytes = virtio_read_spans(chain->readable, chain->readable_count, 0, entries, sizeof(entries));
    *stats = (struct balloon_stats){.time_ns = clock_now_ns()};
    for (size_t i = 0; i < bytes / sizeof(entries[0]); i++) {
        if (entries[i].tag >= BALLOON_STATISTICS)
            continue; /* a newer driver's (5.5.6.3.2) */
        stats->values[entries[i].tag] = entries[i].value;
        stats->valid |= UINT32_C(1) << entries[i].tag;
    }
}

/* One buffer at a time, as the driver should have it (5.5.6.3.1): what else it offers waits for its turn. */
static void serve_statistics(struct balloon *balloon)
{
    struct queue_chain chain;
    if (balloon->has_buffer || !virtio_pop(balloon->device, statistics_queue, &chain))
        return;
    read_stats(&chain, &balloon->stats);
    balloon->has_buffer = true;
    balloon->buffer_head = chain.head;
    loop_set_deadline(balloon->timer, clock_deadline_ns(balloon->stats_interval_ns));
}

static void ask_for_statistics(void *user, uint32_t what)
{
    struct balloon *balloon = user;
    (void)what;
    balloon->has_buffer = false;
    virtio_push(balloon->device, statistics_queue, balloon->buffer_head, 0);
    virtio_call(balloon->device, statistics_queue);
    /* To look for the next one, and to be kicked for it while there is none. */
    virtio_kick(balloon->device, statistics_queue);
}

/* ---- the device ---- */

static void start(void *state, uint64_t features)
{
    struct balloon *balloon = state;
    balloon->features = features;
    balloon->stats = (struct balloon_stats){0}; /* they were another guest's */
}

static void serve(void *state, unsigned queue)
{
    struct balloon *balloon = state;
    if (queue == inflate_queue)
        serve_pages(balloon, queue, pages_inflate);
    else if (queue == deflate_queue)
        serve_pages(balloon, queue, pages_deflate);
    else if (queue == statistics_queue && (balloon->features & FEATURE_STATISTICS) != 0)
        serve_statistics(balloon);
    else if ((balloon->features & FEATURE_REPORTING) != 0)
        serve_pages(balloon, queue, pages_report);
}

/* The buffer comes again, and is read again then. */
static void forget_buffer(struct balloon *balloon)
{
    balloon->has_buffer = false;
    loop_set_deadline(balloon->timer, CLOCK_NEVER);
}

static void queue_paused(void *state, unsigned queue)
{
    if (queue == statistics_queue)
        forget_buffer(state);
}

static void stop(void *state)
{
    struct balloon *balloon = state;
    static const uint32_t none = 0;
    forget_buffer(balloon);
    /* The guest has all of its pages again. Said as its driver would say it, because a change of ours comes with an
     * interrupt, which would be for nobody now. */
    virtio_device_write_config(balloon->device, offsetof(struct config, actual_pages), &none, sizeof(none));
}

static void config_written(void *state, uint32_t offset, uint32_t length)
{
    struct balloon *balloon = state;
    uint32_t actual_pages = 0;
    (void)offset, (void)length; /* it can only be this one */
    virtio_device_read_config(balloon->device, offsetof(struct config, actual_pages), &actual_pages,
                              sizeof(actual_pages));
    if (actual_pages <= balloon->memory_pages)
        balloon->actual_pages = actual_pages;
    else
        balloon->counters.ignored++;
    complain(balloon);
}

static const struct virtio_device_ops balloon_ops = {
    .type = VIRTIO_TYPE_BALLOON,
    .name = "balloon",
    .start = start,
    .serve = serve,
    .queue_paused = queue_paused,
    .stop = stop,
    .config_written = config_written,
    .free = free,
};

int balloon_new(const struct balloon_options *options, struct virtio_device **ret_device)
{
    static const uint16_t queue_sizes[queue_count] = {queue_entries, queue_entries, queue_entries, queue_entries,
                                                      queue_entries};
    auto_free struct balloon *balloon = alloc_zero(sizeof(*balloon));
    if (balloon == NULL)
        return -ENOMEM;
    uint64_t pages = options->memory_bytes / BALLOON_PAGE_BYTES;
    balloon->memory_pages = pages < UINT32_MAX ? (uint32_t)pages : UINT32_MAX;
    balloon->stats_interval_ns = options->stats_interval_ms * CLOCK_NS_PER_MS;
    struct virtio_device_options device_options = {
        .ops = &balloon_ops,
        .state = balloon,
        .features = FEATURE_DEFLATE_ON_OOM | FEATURE_REPORTING |
                    (options->stats_interval_ms != 0 ? FEATURE_STATISTICS : 0),
        .queue_sizes = queue_sizes,
        .queue_count = queue_count,
        .config_bytes = sizeof(struct config),
        .writable_offset = offsetof(struct config, actual_pages),
        .writable_bytes = sizeof(uint32_t),
    };
    struct virtio_device *device = NULL;
    int result = virtio_device_new(&device_options, &device);
    if (result < 0)
        return result;
    struct balloon *owned = steal_ptr(balloon); /* by the device, from here on */
    owned->device = device;
    result = loop_add_timer(virtio_device_loop(device), CLOCK_NEVER, ask_for_statistics, owned, &owned->timer);
    if (result < 0) {
        virtio_device_free(device);
        return result;
    }
    *ret_device = device;
    return 0;
}

/* ---- for everybody ---- */

struct target_request {
    uint32_t target_mib;
    int result;
};

static void set_target(void *state, void *argument)
{
    struct balloon *balloon = state;
    struct target_request *request = argument;
    uint64_t pages = request->target_mib * (UINT64_C(1048576) / BALLOON_PAGE_BYTES);
    request->result = pages > balloon->memory_pages ? -EINVAL : 0;
    if (request->result < 0)
        return;
    uint32_t target_pages = (uint32_t)pages;
    virtio_set_config(balloon->device, offsetof(struct config, target_pages), &target_pages, sizeof(target_pages));
}

int balloon_set_target(struct virtio_device *device, uint32_t target_mib)
{
    struct target_request request = {.target_mib = target_mib};
    virtio_device_run(device, set_target, &request);
    return request.result;
}

static void copy_actual(void *state, void *argument)
{
    const struct balloon *balloon = state;
    *(uint64_t *)argument = (uint64_t)balloon->actual_pages * BALLOON_PAGE_BYTES;
}

uint64_t balloon_actual_bytes(struct virtio_device *device)
{
    uint64_t bytes = 0;
    virtio_device_run(device, copy_actual, &bytes);
    return bytes;
}

static void copy_stats(void *state, void *argument)
{
    const struct balloon *balloon = state;
    memcpy(argument, &balloon->stats, sizeof(balloon->stats));
}

void balloon_stats(struct virtio_device *device, struct balloon_stats *ret_stats)
{
    virtio_device_run(device, copy_stats, ret_stats);
}

static void copy_counters(void *state, void *argument)
{
    const struct balloon *balloon = state;
    memcpy(argument, &balloon->counters, sizeof(balloon->counters));
}

void balloon_counters(struct virtio_device *device, struct balloon_counters *ret_counters)
{
    virtio_device_run(device, copy_counters, ret_counters);
}
