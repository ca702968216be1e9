// SPDX-License-Identifier: Apache-2.0
/* A virtio network device. (virtio 1.2, 5.1)
 *
 *     queues 0, 1     the first pair: receive, transmit         receive.c, transmit.c
 *     queues 2n, …    pair n, with MQ
 *     the last        control, with CTRL_VQ                     control.c
 *
 *     backend.h       where frames go and come from: stream.c, datagram.c, tap.c, custom.c
 *     link.c          whether there is something at the other end
 *     offload.c       what a guest leaves undone, where the backend does not do it
 *
 * One thread serves all pairs, and each direction a bounded time: what is left is kicked again, behind whatever else is
 * ready. Frames are not looked into, but for what the guest itself asks to have done to them, and for their addresses
 * where a helper would take them to the host's loopback (frame.c).
 *
 * Offloads are offered as far as they are asked for, and somebody carries them out. A TAP device's kernel does all of
 * them. The others take finished frames: for them we finish checksums and cut TCP (CSUM, HOST_TSO4, HOST_TSO6), and
 * what they send is finished already. Merged receive buffers are always offered: with them, and an MTU of 65520, a peer
 * like passt needs no segments at all.
 *
 * Invariants: (1) everything but the counters is touched on the device's thread only. (2) between stop and start no
 * pair holds anything of guest memory. (3) backends outlive their places in the loop.
 *
 * Trust: features and queues come from a hostile driver, options from the configuration that was checked.
 */
#include "device/net/net.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "device/net/pair.h"

#include <errno.h>
#include <string.h>

enum { queue_entries = 256, control_entries = 64, least_mtu = 68 };

struct config { /* (5.1.4) Little-endian, as we are. */
    uint8_t mac[6];
    uint16_t status, max_virtqueue_pairs, mtu;
};
_Static_assert(sizeof(struct config) == 12, "as in the standard");

/* ---- the driver's side ---- */

/* Without MQ there is one pair, and the control queue behind it (5.1.2). */
static unsigned control_queue(const struct net *net)
{
    return (net->features & NET_F_MQ) != 0 ? 2 * net->pair_count : 2;
}

static void start(void *state, uint64_t features)
{
    struct net *net = state;
    net->features = features;
    int result = net_use_pairs(net, 1);
    for (unsigned i = 0; i < net->pair_count && result == 0; i++) {
        struct net_backend *backend = net->pairs[i]->backend;
        if (backend->ops->set_features != NULL && net_is_alive(net->pairs[i]) && net->pairs[i]->is_enabled)
            result = backend->ops->set_features(backend, features);
    }
    if (result < 0)
        log_warn("net.features_failed", LOG_ERRNO(result));
}

static void serve(void *state, unsigned queue)
{
    struct net *net = state;
    if ((net->features & NET_F_CTRL_VQ) != 0 && queue == control_queue(net))
        net_serve_control(net, queue);
    else if (queue / 2 >= net->pair_count)
        return; /* there is no such queue then */
    else if (queue % 2 == 0)
        net_receive(net->pairs[queue / 2]);
    else
        net_transmit(net->pairs[queue / 2]);
}

static void queue_paused(void *state, unsigned queue)
{
    struct net *net = state;
    if (queue / 2 < net->pair_count && queue % 2 == 0)
        net_pool_clear(&net->pairs[queue / 2]->pool);
}

static void stop(void *state)
{
    struct net *net = state;
    for (unsigned i = 0; i < net->pair_count; i++) {
        struct net_pair *pair = net->pairs[i];
        net_pool_clear(&pair->pool);
        pair->held_bytes = 0;
        if (pair->offload != NULL)
            net_offload_drop(pair->offload);
        pair->wants_input = pair->is_blocked = false;
        net_watch(pair);
    }
}

/* ---- the host's side ---- */

struct link_request {
    bool is_up;
};

static void set_link_here(void *state, void *argument)
{
    const struct link_request *request = argument;
    struct net *net = state;
    net->is_plugged = request->is_up;
    net_update_link(net);
}

void net_set_link(struct virtio_device *device, bool is_up)
{
    struct link_request request = {.is_up = is_up};
    virtio_device_run(device, set_link_here, &request);
}

static uint64_t load(const atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void net_get_stats(const struct virtio_device *device, struct net_stats *ret_stats)
{
    const struct net *net = virtio_device_state(device);
    *ret_stats = (struct net_stats){
        .received_frames = load(&net->received.frames),
        .received_bytes = load(&net->received.bytes),
        .received_drops = load(&net->received.drops),
        .transmitted_frames = load(&net->transmitted.frames),
        .transmitted_bytes = load(&net->transmitted.bytes),
        .transmitted_drops = load(&net->transmitted.drops),
    };
}

/* ---- life ---- */

static struct net_pair *free_pair(struct net_pair *pair)
{
    if (pair == NULL)
        return NULL;
    loop_source_free(pair->source);
    if (pair->backend != NULL)
        pair->backend->ops->free(pair->backend);
    free(pair->offload);
    free(pair);
    return NULL;
}

static void release(void *state)
{
    struct net *net = state;
    for (unsigned i = 0; i < net->pair_count; i++)
        free_pair(net->pairs[i]);
    loop_source_free(net->receive_timer);
    loop_source_free(net->transmit_timer);
    loop_source_free(net->connect_timer);
    free(net);
}

static const struct virtio_device_ops net_ops = {
    .type = VIRTIO_TYPE_NET,
    .name = "net",
    .start = start,
    .serve = serve,
    .queue_paused = queue_paused,
    .stop = stop,
    .free = release,
};

static int make_backend(const struct net_options *options, struct net_backend **ret_backend)
{
    bool is_socket = options->kind == VIAL_NET_UNIXSTREAM || options->kind == VIAL_NET_UNIXGRAM;
    if (is_socket && (options->fd >= 0) == (options->path != NULL))
        return -EINVAL;
    switch (options->kind) {
    case VIAL_NET_UNIXSTREAM:
        return net_stream_new(options, ret_backend);
    case VIAL_NET_UNIXGRAM:
        return net_datagram_new(options, ret_backend);
    case VIAL_NET_TAP:
        return net_tap_new(options, ret_backend);
    case VIAL_NET_CUSTOM:
        return net_custom_new(options, ret_backend);
    case VIAL_NET_PASST: /* to us it is a stream, which whoever started it has */
        break;
    }
    return -EINVAL;
}

static int add_pair(struct net *net, const struct net_options *options)
{
    struct net_pair *pair = alloc_zero(sizeof(*pair));
    if (pair == NULL)
        return -ENOMEM;
    pair->net = net;
    pair->index = net->pair_count;
    pair->is_enabled = true;
    net->pairs[net->pair_count++] = pair;
    int result = make_backend(options, &pair->backend);
    if (result < 0 || pair->backend->ops->takes_headers)
        return result;
    pair->offload = alloc_zero(sizeof(*pair->offload));
    return pair->offload == NULL ? -ENOMEM : 0;
}

static int make_net(const struct net_options *options, struct net **ret_net)
{
    struct net *net = alloc_zero(sizeof(*net));
    if (net == NULL)
        return -ENOMEM;
    net->mtu = options->mtu;
    net->keeps_off_loopback = options->keeps_off_loopback;
    net->is_plugged = net->is_up = true;
    net->pause_ns = LIMIT_NET_PAUSE_LEAST_MS * CLOCK_NS_PER_MS;
    rate_init(&net->receive_rate, &options->receive);
    rate_init(&net->transmit_rate, &options->transmit);
    int result = 0;
    for (unsigned i = 0; i < options->queue_pairs && result == 0; i++)
        result = add_pair(net, options);
    if (result < 0)
        release(net);
    else
        *ret_net = net;
    return result;
}

/* Of the offloads that are asked for, those that somebody carries out; some stand on others (5.1.3.1). */
static uint64_t offloads_of(const struct net *net, uint64_t wanted)
{
    const struct net_backend *backend = net->pairs[0]->backend;
    uint64_t features = wanted & (NET_F_CSUM | NET_F_HOST_TSO4 | NET_F_HOST_TSO6);
    if (backend->ops->takes_headers)
        features = net_tap_features(backend, wanted);
    if ((features & NET_F_CSUM) == 0)
        features &= ~(NET_F_HOST_TSO4 | NET_F_HOST_TSO6 | NET_F_HOST_UFO);
    return features;
}

static uint64_t features_of(const struct net *net, const struct net_options *options)
{
    uint64_t features = NET_F_MAC | NET_F_STATUS | NET_F_MRG_RXBUF;
    if (options->mtu != 0)
        features |= NET_F_MTU;
    if (net->pair_count > 1)
        features |= NET_F_CTRL_VQ | NET_F_MQ;
    return features | offloads_of(net, options->features);
}

static int make_device(const struct net *net, const struct net_options *options, struct virtio_device **ret_device)
{
    uint16_t queue_sizes[2 * NET_MOST_PAIRS + 1];
    unsigned queue_count = 2 * net->pair_count;
    for (unsigned i = 0; i < queue_count; i++)
        queue_sizes[i] = queue_entries;
    if (net->pair_count > 1)
        queue_sizes[queue_count++] = control_entries;
    struct virtio_device_options device_options = {
        .ops = &net_ops,
        .state = (void *)(uintptr_t)net,
        .features = features_of(net, options),
        .queue_sizes = queue_sizes,
        .queue_count = queue_count,
        .config_bytes = sizeof(struct config),
    };
    return virtio_device_new(&device_options, ret_device);
}

static void fill_config(const struct net *net, const struct net_options *options)
{
    struct config config = {
        .status = net->is_up,
        .max_virtqueue_pairs = (uint16_t)net->pair_count,
        .mtu = options->mtu,
    };
    memcpy(config.mac, options->mac, sizeof(config.mac));
    virtio_set_config(net->device, 0, &config, sizeof(config));
}

int net_new(const struct net_options *options, struct virtio_device **ret_device)
{
    if (options->queue_pairs == 0 || options->queue_pairs > NET_MOST_PAIRS ||
        (options->queue_pairs > 1 && options->kind != VIAL_NET_TAP) ||
        (options->keeps_off_loopback && options->kind == VIAL_NET_TAP) ||
        (options->mtu != 0 && options->mtu < least_mtu))
        return -EINVAL;
    struct net *net = NULL;
    int result = make_net(options, &net);
    if (result < 0)
        return result;
    struct virtio_device *device = NULL;
    result = make_device(net, options, &device);
    if (result < 0) {
        release(net);
        return result;
    }
    net->device = device;
    result = net_start_links(net);
    if (result < 0) {
        virtio_device_free(device);
        return result;
    }
    fill_config(net, options);
    *ret_device = device;
    return 0;
}
