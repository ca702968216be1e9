// SPDX-License-Identifier: Apache-2.0
/* Random bytes for the guest. (virtio 1.2, 5.4)
 *
 * The driver offers writable buffers, and the host's kernel fills them in place. The host's pool is either ready for
 * good or not ready yet: that is asked once, when the device is made, so that serving never has to wait. A request may
 * be served short, and one that is larger than a turn should take always is.
 *
 * Invariants: (1) the used length says exactly how many bytes of the buffer are random. (2) nothing but random bytes is
 * written to a buffer. (3) a request takes a bounded time.
 *
 * Trust: chains come from a hostile driver and were checked by queue_pop. Their readable part, which the standard
 * forbids, is ignored.
 */
#include "device/rng/rng.h"

#include "base/alloc.h"
#include "base/limits.h"
#include "base/log.h"

#include <errno.h>
#include <sys/random.h>

enum { request_queue = 0 };

struct rng {
    struct virtio_device *device; /* borrowed: it owns us */
    bool has_complained;
};

/* Fills the span as far as the host can: how many bytes. getrandom gives less than it was asked for after a signal. */
static size_t fill_span(uint8_t *bytes, size_t length)
{
    size_t done = 0;
    while (done < length) {
        ssize_t result = getrandom(bytes + done, length - done, GRND_NONBLOCK);
        if (result < 0 && errno == EINTR)
            continue;
        if (result <= 0)
            break;
        done += (size_t)result;
    }
    return done;
}

static uint32_t fill_chain(struct rng *rng, const struct queue_chain *chain)
{
    size_t done = 0;
    for (size_t i = 0; i < chain->writable_count && done < LIMIT_RNG_REQUEST_BYTES; i++) {
        size_t length = chain->writable[i].iov_len;
        if (length > LIMIT_RNG_REQUEST_BYTES - done)
            length = LIMIT_RNG_REQUEST_BYTES - done;
        size_t filled = fill_span(chain->writable[i].iov_base, length);
        done += filled;
        if (filled < length) {
            if (!rng->has_complained)
                log_warn("rng.host_failed", LOG_ERRNO(errno));
            rng->has_complained = true;
            break;
        }
    }
    return (uint32_t)done;
}

static void serve(void *state, unsigned queue)
{
    struct rng *rng = state;
    struct queue_chain chain;
    while (virtio_pop(rng->device, queue, &chain))
        virtio_push(rng->device, queue, chain.head, fill_chain(rng, &chain));
    virtio_call(rng->device, queue);
}

static const struct virtio_device_ops rng_ops = {
    .type = VIRTIO_TYPE_RNG,
    .name = "rng",
    .serve = serve,
    .free = free,
};

int rng_new(struct virtio_device **ret_device)
{
    static const uint16_t queue_sizes[] = {[request_queue] = 64};
    uint8_t first;
    if (getrandom(&first, sizeof(first), GRND_NONBLOCK) < 0)
        return -errno;
    auto_free struct rng *rng = alloc_zero(sizeof(*rng));
    if (rng == NULL)
        return -ENOMEM;
    struct virtio_device_options options = {
        .ops = &rng_ops,
        .state = rng,
        .queue_sizes = queue_sizes,
        .queue_count = array_length(queue_sizes),
    };
    int result = virtio_device_new(&options, &rng->device);
    if (result < 0)
        return result;
    *ret_device = rng->device;
    (void)steal_ptr(rng);
    return 0;
}
