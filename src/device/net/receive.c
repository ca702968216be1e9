// SPDX-License-Identifier: Apache-2.0
/* Frames for the guest. (virtio 1.2, 5.1.6.3, 5.1.6.4)
 *
 *     backend ──> chains of the guest's, taken beforehand       when they have room for the longest frame
 *             ──> held[] ──> chains of the guest's              otherwise, once there are enough
 *
 * With MRG_RXBUF a frame goes on in the next chain, and the header of the first says how many there are. Without it, a
 * frame that is longer than its chain is dropped: nothing else can be done with it.
 *
 * Where the guest has no chain, nothing is read, and the backend is not watched until the driver's kick; so a socket
 * fills, and the other side waits or loses, as is its kind. While the link is down, frames are read and dropped.
 *
 * Invariants: (1) a turn is bounded in frames and bytes. (2) a frame longer than the driver was told of is dropped. (3)
 * the driver gets no flag and no type that it has not agreed on.
 *
 * Trust: frames come from the network and are not looked into. Their lengths are checked here. Chains were checked by
 * queue_pop.
 */
#include "base/clock.h"
#include "device/net/pair.h"

#include <errno.h>

enum outcome {
    GO_ON,
    NOTHING_THERE, /* the backend is empty */
    NO_ROOM,       /* the guest's queue is */
    WAIT,          /* for the limits */
    DEAD,
};

enum { most_bytes = LIMIT_NET_FRAME_BYTES + 1 }; /* one more, so that a longer frame is seen */

static bool is_merging(const struct net *net)
{
    return (net->features & NET_F_MRG_RXBUF) != 0;
}

/* ---- to the guest ---- */

static bool gather(struct net_pair *pair, uint64_t bytes)
{
    size_t most_chains = is_merging(pair->net) ? QUEUE_MOST_ENTRIES : 1;
    net_pool_gather(&pair->pool, pair->net->device, net_receive_queue(pair), bytes, most_chains);
    return pair->pool.bytes >= bytes;
}

static void drop(struct net_pair *pair)
{
    net_count(&pair->net->received.drops, 1);
}

/* Whether the driver may be given a frame of this length (5.1.4.1). Four bytes more are a VLAN's tag. */
static bool is_acceptable(const struct net *net, const struct net_header *header, size_t length)
{
    size_t most = LIMIT_NET_FRAME_BYTES;
    if ((net->features & NET_F_MTU) != 0 && header->gso_type == NET_GSO_NONE)
        most = (size_t)net->mtu + NET_ETHERNET_BYTES + 4;
    return length >= NET_ETHERNET_BYTES && length <= most;
}

/* Puts the header before a frame that is in the pool's chains, and hands them to the driver. */
static void hand_over(struct net_pair *pair, const struct net_header *header, size_t length)
{
    struct net *net = pair->net;
    struct net_header own = {0};
    if ((net->features & NET_F_GUEST_CSUM) != 0)
        own = *header;
    own.num_buffers = (uint16_t)net_pool_count(&pair->pool, sizeof(own) + length);
    net_pool_write(&pair->pool, 0, &own, sizeof(own));
    net_pool_push(&pair->pool, net->device, net_receive_queue(pair), sizeof(own) + length);
    net_count(&net->received.frames, 1);
    net_count(&net->received.bytes, length);
}

/* The ring holds no more chains than its places: when they all are here and it is not enough, it never will be. */
static bool is_hopeless(const struct net_pair *pair)
{
    size_t most_chains = 1;
    if (is_merging(pair->net))
        most_chains = virtio_ring_entries(pair->net->device, net_receive_queue(pair));
    return pair->pool.chain_count >= most_chains || pair->pool.is_full;
}

/* What is held goes into chains. */
static enum outcome deliver_held(struct net_pair *pair)
{
    size_t bytes = sizeof(struct net_header) + pair->held_bytes;
    if (!gather(pair, bytes) && !is_hopeless(pair))
        return NO_ROOM;
    if (pair->pool.bytes >= bytes) {
        net_pool_write(&pair->pool, sizeof(struct net_header), pair->held, pair->held_bytes);
        hand_over(pair, &pair->held_header, pair->held_bytes);
    } else {
        drop(pair);
    }
    pair->held_bytes = 0;
    return GO_ON;
}

/* ---- from the backend ---- */

/* What a receive that brought no frame means. */
static enum outcome judge(struct net_pair *pair, ssize_t result)
{
    if (result == -EAGAIN)
        return NOTHING_THERE;
    if (result == -EMSGSIZE) {
        drop(pair);
        return GO_ON;
    }
    net_lose(pair, (int)result);
    return DEAD;
}

static enum outcome read_straight(struct net_pair *pair, size_t *ret_bytes)
{
    struct net_header header = {0};
    size_t count = net_pool_cut(&pair->pool, sizeof(header), most_bytes, pair->parts);
    ssize_t got = pair->backend->ops->receive(pair->backend, &header, pair->parts, count);
    if (got < 0)
        return judge(pair, got);
    *ret_bytes = (size_t)got;
    if (is_acceptable(pair->net, &header, (size_t)got))
        hand_over(pair, &header, (size_t)got);
    else
        drop(pair);
    return GO_ON;
}

static enum outcome read_held(struct net_pair *pair, size_t *ret_bytes)
{
    struct iovec part = {.iov_base = pair->held, .iov_len = most_bytes};
    pair->held_header = (struct net_header){0};
    ssize_t got = pair->backend->ops->receive(pair->backend, &pair->held_header, &part, 1);
    if (got < 0)
        return judge(pair, got);
    *ret_bytes = (size_t)got;
    if (pair->net->is_up && is_acceptable(pair->net, &pair->held_header, (size_t)got))
        pair->held_bytes = (size_t)got;
    else
        drop(pair);
    return GO_ON;
}

/* Whether the limits let a frame through, of any length: it is paid for when that is known. */
static bool is_due(struct net *net)
{
    if (!rate_has_limits(&net->receive_rate))
        return true;
    uint64_t when_ns = rate_ask(&net->receive_rate, clock_now_ns());
    if (when_ns != CLOCK_NEVER)
        loop_set_deadline(net->receive_timer, when_ns);
    return when_ns == CLOCK_NEVER;
}

static enum outcome receive_one(struct net_pair *pair, size_t *ret_bytes)
{
    struct net *net = pair->net;
    enum outcome outcome;
    if (pair->held_bytes > 0 && !net->is_up) {
        drop(pair);
        pair->held_bytes = 0;
    }
    if (pair->held_bytes > 0)
        return deliver_held(pair);
    if (!is_due(net))
        return WAIT;
    if (!net->is_up)
        return read_held(pair, ret_bytes);
    if (gather(pair, sizeof(struct net_header) + most_bytes))
        outcome = read_straight(pair, ret_bytes);
    else if (pair->pool.chain_count > 0)
        outcome = read_held(pair, ret_bytes);
    else
        return NO_ROOM;
    if (*ret_bytes > 0 && rate_has_limits(&net->receive_rate))
        rate_take(&net->receive_rate, *ret_bytes, 1, clock_now_ns());
    return outcome;
}

void net_receive(struct net_pair *pair)
{
    struct net *net = pair->net;
    enum outcome outcome = GO_ON;
    size_t frames = 0, bytes = 0;
    if (!virtio_is_ready(net->device, net_receive_queue(pair)) || !pair->is_enabled) {
        pair->wants_input = false;
        net_watch(pair);
        return;
    }
    if (!net_is_alive(pair) && pair->held_bytes == 0)
        return;
    while (outcome == GO_ON && frames < LIMIT_NET_TURN_FRAMES && bytes < LIMIT_NET_TURN_BYTES) {
        size_t length = 0;
        if (!net_is_alive(pair) && pair->held_bytes == 0)
            break;
        outcome = receive_one(pair, &length);
        frames++;
        bytes += length;
    }
    virtio_call(net->device, net_receive_queue(pair));
    if (outcome == GO_ON && net_is_alive(pair))
        virtio_kick(net->device, net_receive_queue(pair)); /* it is the other direction's turn first */
    pair->wants_input = outcome == NOTHING_THERE || (outcome == GO_ON && pair->wants_input);
    net_watch(pair);
}
