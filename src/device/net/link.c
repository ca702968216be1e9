// SPDX-License-Identifier: Apache-2.0
/* Whether a network device has a link: its backends' life, death and return, and what they are watched for.
 *
 *               the cable is plugged in (net_set_link)  ─┐
 *                                                        ├─ and ─> up: the guest's STATUS bit
 *     alive ── fails, or hangs up ──> dead               ┘
 *       └── connected again <── timer: 100 ms, twice that, … 5 s      sockets by path only
 *
 * A backend is watched for input only while a frame could be taken, and for output only while one waits. A hangup is
 * reported whether it was asked for or not; where nothing else is, the descriptor is watched once, so that an end is
 * known while nobody reads, and does not wake the loop again and again.
 *
 * Invariants: (1) a backend that is dead is neither watched nor called, but to be connected. (2) each death is logged
 * once.
 *
 * Trust: what the other side of a backend does only ends the link.
 */
#include "base/clock.h"
#include "base/log.h"
#include "device/net/pair.h"

#include <errno.h>
#include <stddef.h>
#include <sys/epoll.h>

enum { LINK_UP = 1, status_offset = 6 }; /* (virtio 1.2, 5.1.4) */

bool net_is_alive(const struct net_pair *pair)
{
    return pair->backend->fd >= 0;
}

/* ---- the guest is told ---- */

void net_update_link(struct net *net)
{
    bool is_up = net->is_plugged;
    for (unsigned i = 0; i < net->pair_count; i++)
        is_up = is_up && net_is_alive(net->pairs[i]);
    if (is_up == net->is_up)
        return;
    net->is_up = is_up;
    uint16_t status = is_up ? LINK_UP : 0;
    virtio_set_config(net->device, status_offset, &status, sizeof(status));
    for (unsigned i = 0; i < net->pair_count; i++) { /* what waited goes on, or is dropped */
        virtio_kick(net->device, net_receive_queue(net->pairs[i]));
        virtio_kick(net->device, net_transmit_queue(net->pairs[i]));
    }
}

/* ---- watching ---- */

static bool is_behind(const struct net_pair *pair)
{
    const struct net_backend_ops *ops = pair->backend->ops;
    return pair->is_blocked || (ops->is_behind != NULL && ops->is_behind(pair->backend));
}

void net_watch(struct net_pair *pair)
{
    if (pair->source == NULL)
        return;
    uint32_t wanted = (pair->wants_input ? EPOLLIN : 0u) | (is_behind(pair) ? EPOLLOUT : 0u);
    if (wanted == 0)
        wanted = EPOLLONESHOT;
    if (wanted != pair->watched && loop_set_events(pair->source, wanted) == 0)
        pair->watched = wanted;
}

static void handle_backend(void *user, uint32_t what)
{
    struct net_pair *pair = user;
    if (!pair->is_enabled)
        return; /* a queue of a TAP device that is detached reports an error (once) */
    if ((what & EPOLLOUT) != 0) {
        pair->is_blocked = false;
        net_transmit(pair);
    }
    if ((what & EPOLLIN) != 0 && net_is_alive(pair))
        net_receive(pair);
    else if ((what & (EPOLLERR | EPOLLHUP)) != 0 && net_is_alive(pair))
        net_lose(pair, -ECONNRESET);
}

static int watch_anew(struct net_pair *pair)
{
    struct loop *loop = virtio_device_loop(pair->net->device);
    pair->watched = EPOLLONESHOT;
    return loop_add_fd(loop, pair->backend->fd, pair->watched, handle_backend, pair, &pair->source);
}

/* ---- death and return ---- */

static void plan_connect(struct net *net)
{
    loop_set_deadline(net->connect_timer, clock_deadline_ns(net->pause_ns));
    net->pause_ns *= 2;
    if (net->pause_ns > LIMIT_NET_PAUSE_MOST_MS * CLOCK_NS_PER_MS)
        net->pause_ns = LIMIT_NET_PAUSE_MOST_MS * CLOCK_NS_PER_MS;
}

void net_lose(struct net_pair *pair, int error)
{
    struct net *net = pair->net;
    if (!net_is_alive(pair))
        return;
    log_warn("net.backend_lost", LOG_TEXT("kind", pair->backend->ops->name), LOG_ERRNO(error));
    pair->source = loop_source_free(pair->source);
    pair->backend->ops->disconnect(pair->backend);
    pair->is_blocked = pair->wants_input = false;
    if (pair->backend->can_connect) {
        /* One that comes and goes is not to be asked ten times a second. */
        if (clock_now_ns() - net->connected_ns > LIMIT_NET_PAUSE_MOST_MS * CLOCK_NS_PER_MS)
            net->pause_ns = LIMIT_NET_PAUSE_LEAST_MS * CLOCK_NS_PER_MS;
        plan_connect(net);
    }
    net_update_link(net);
}

static void handle_connect(void *user, uint32_t what)
{
    struct net *net = user;
    struct net_pair *pair = net->pairs[0]; /* sockets have one */
    (void)what;
    if (net_is_alive(pair))
        return;
    int result = pair->backend->ops->connect(pair->backend);
    if (result == 0 && (result = watch_anew(pair)) < 0)
        pair->backend->ops->disconnect(pair->backend);
    if (result < 0) {
        plan_connect(net);
        return;
    }
    net->connected_ns = clock_now_ns();
    log_info("net.backend_found", LOG_TEXT("kind", pair->backend->ops->name));
    net_update_link(net);
    net_receive(pair);
}

/* ---- limits ---- */

static void handle_receive_timer(void *user, uint32_t what)
{
    struct net *net = user;
    (void)what;
    for (unsigned i = 0; i < net->pair_count; i++)
        virtio_kick(net->device, net_receive_queue(net->pairs[i]));
}

static void handle_transmit_timer(void *user, uint32_t what)
{
    struct net *net = user;
    (void)what;
    for (unsigned i = 0; i < net->pair_count; i++)
        virtio_kick(net->device, net_transmit_queue(net->pairs[i]));
}

/* ---- pairs ---- */

static int set_enabled(struct net_pair *pair, bool is_enabled)
{
    const struct net_backend_ops *ops = pair->backend->ops;
    int result = 0;
    if (pair->is_enabled == is_enabled)
        return 0;
    if (ops->set_enabled != NULL && net_is_alive(pair))
        result = ops->set_enabled(pair->backend, is_enabled);
    if (result < 0)
        return result;
    pair->is_enabled = is_enabled;
    pair->is_blocked = pair->wants_input = false;
    pair->watched = 0; /* anew: it may have reported its detachment, or is about to */
    net_watch(pair);
    virtio_kick(pair->net->device, net_receive_queue(pair));
    virtio_kick(pair->net->device, net_transmit_queue(pair));
    return 0;
}

int net_use_pairs(struct net *net, unsigned count)
{
    int result = 0;
    for (unsigned i = 0; i < net->pair_count && result == 0; i++)
        result = set_enabled(net->pairs[i], i < count);
    return result;
}

int net_start_links(struct net *net)
{
    struct loop *loop = virtio_device_loop(net->device);
    int result = loop_add_timer(loop, CLOCK_NEVER, handle_connect, net, &net->connect_timer);
    if (result == 0)
        result = loop_add_timer(loop, CLOCK_NEVER, handle_receive_timer, net, &net->receive_timer);
    if (result == 0)
        result = loop_add_timer(loop, CLOCK_NEVER, handle_transmit_timer, net, &net->transmit_timer);
    for (unsigned i = 0; i < net->pair_count && result == 0; i++)
        result = watch_anew(net->pairs[i]);
    return result;
}
