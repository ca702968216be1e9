// SPDX-License-Identifier: Apache-2.0
/* What the guest's agent says about the space on its writable root. A device of our own, not of the standard.
 *
 * One queue, no features, no configuration. The agent sends a message in readable buffers, all little-endian:
 *
 *     0   u32  version: 1
 *     4   u32  size of the message: 24
 *     8   u64  used bytes
 *     16  u64  free bytes
 *
 * Anything else is counted and otherwise ignored, so that a newer agent can send what an older host does not know. The
 * last sample is kept until the driver starts anew.
 *
 * Invariants: (1) a sample is copied out of guest memory before it is looked at. (2) what a guest sends takes no memory
 * here: the last one replaces the one before.
 *
 * Trust: every byte comes from a hostile guest. The numbers are its claim, and only their sum is checked.
 */
#include "device/metrics/metrics.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <string.h>

enum { sample_queue = 0 };
enum { message_version = 1 };

struct message {
    uint32_t version, size;
    uint64_t used_bytes, free_bytes;
};
_Static_assert(sizeof(struct message) == 24, "as the agent sends it");

struct metrics {
    struct virtio_device *device; /* borrowed: it owns us */
    struct metrics_sample last;
    bool has_sample;
    uint64_t ignored;
};

/* ---- on the device's thread ---- */

static void take_message(struct metrics *metrics, const struct queue_chain *chain)
{
    struct message message = {0};
    uint64_t sum;
    virtio_read_spans(chain->readable, chain->readable_count, 0, &message, sizeof(message));
    if (chain->readable_bytes != sizeof(message) || message.version != message_version ||
        message.size != sizeof(message) || __builtin_add_overflow(message.used_bytes, message.free_bytes, &sum)) {
        metrics->ignored++;
        return;
    }
    metrics->last = (struct metrics_sample){
        .used_bytes = message.used_bytes,
        .free_bytes = message.free_bytes,
        .time_ns = clock_now_ns(),
    };
    metrics->has_sample = true;
}

static void start(void *state, uint64_t features)
{
    struct metrics *metrics = state;
    (void)features;
    metrics->has_sample = false; /* it was another guest's */
}

static void serve(void *state, unsigned queue)
{
    struct metrics *metrics = state;
    struct queue_chain chain;
    while (virtio_pop(metrics->device, queue, &chain)) {
        take_message(metrics, &chain);
        virtio_push(metrics->device, queue, chain.head, 0);
    }
    virtio_call(metrics->device, queue);
}

static void copy_state(void *state, void *argument)
{
    memcpy(argument, state, sizeof(struct metrics));
}

/* ---- for everybody ---- */

bool metrics_last(struct virtio_device *device, struct metrics_sample *ret_sample)
{
    struct metrics copy;
    virtio_device_run(device, copy_state, &copy);
    if (copy.has_sample)
        *ret_sample = copy.last;
    return copy.has_sample;
}

uint64_t metrics_ignored(struct virtio_device *device)
{
    struct metrics copy;
    virtio_device_run(device, copy_state, &copy);
    return copy.ignored;
}

static const struct virtio_device_ops metrics_ops = {
    .type = VIRTIO_TYPE_METRICS,
    .name = "metrics",
    .start = start,
    .serve = serve,
    .free = free,
};

int metrics_new(struct virtio_device **ret_device)
{
    static const uint16_t queue_sizes[] = {[sample_queue] = 64};
    auto_free struct metrics *metrics = alloc_zero(sizeof(*metrics));
    if (metrics == NULL)
        return -ENOMEM;
    struct virtio_device_options options = {
        .ops = &metrics_ops,
        .state = metrics,
        .queue_sizes = queue_sizes,
        .queue_count = array_length(queue_sizes),
    };
    int result = virtio_device_new(&options, &metrics->device);
    if (result < 0)
        return result;
    *ret_device = metrics->device;
    (void)steal_ptr(metrics);
    return 0;
}
