// SPDX-License-Identifier: Apache-2.0
/* Listeners of the guest, published by the host.
 *
 * A connection is accepted from the host as soon as it comes and offered to the guest as a stream, because that is what
 * the guest's poll looks at: its own vsock listener, behind the socket that its program has. ACCEPT only counts: it is
 * answered with 0 once for every stream that was offered, after the offer, so that the guest's kernel finds it there.
 * What is offered and not yet counted is held below the guest's own backlog; more waits with the host.
 *
 *     host: connection ──> accept ──> offer to vm_port ──> pending ──ACCEPT: 0──> taken
 *     guest: ACCEPT with nothing pending ──> EWOULDBLOCK, or it waits and gets its 0 with the next connection
 *
 * What the guest may not publish is answered with EPERM: its kernel then listens by itself, and its own programs can
 * still connect. So is port 0, since nobody could say which port of the host that is, and a path that the host has not.
 *
 * Invariants: (1) with a port map nothing is bound but what it names. (2) pending_count is the length of the list, at
 * most most_pending, and nothing is accepted beyond it. (3) no node is replaced, and none removed that is not the one
 * which our bind made. (4) a listener that cannot accept for want of descriptors rests; it does not turn in the loop.
 *
 * Trust: requests are the guest's, and vm_port may be anything: the guest offers itself streams then. Connections are
 * anybody's who reaches the host's port.
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "device/vsock/private.h"
#include "device/vsock/tsi_private.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where the host's ports for accepted streams begin; below are those that something else may listen on. */
#define FIRST_STREAM_PORT (UINT32_C(1) << 30)

/* ---- nodes of AF_UNIX ---- */

static void note_node(struct tsi_socket *socket)
{
    struct stat node;
    if (lstat(socket->local.un.sun_path, &node) < 0 || !S_ISSOCK(node.st_mode))
        return; /* somebody was quicker; then it is not ours to remove */
    socket->owns_node = true;
    socket->node_device = node.st_dev;
    socket->node_inode = node.st_ino;
}

static void remove_node(struct tsi_socket *socket)
{
    struct stat node;
    if (!socket->owns_node)
        return;
    socket->owns_node = false;
    if (lstat(socket->local.un.sun_path, &node) < 0 || node.st_dev != socket->node_device ||
        node.st_ino != socket->node_inode)
        return;
    if (unlink(socket->local.un.sun_path) < 0)
        log_warn("tsi.node_left", LOG_TEXT("path", socket->local.un.sun_path), LOG_ERRNO(errno));
}

/* ---- connections that come ---- */

static void watch(struct tsi_socket *socket)
{
    bool wants = !socket->is_resting && socket->pending_count < socket->most_pending;
    if (socket->source == NULL || wants == socket->is_watched)
        return;
    if (loop_set_events(socket->source, wants ? EPOLLIN : 0) == 0)
        socket->is_watched = wants;
}

static void rest(struct tsi_socket *socket)
{
    struct tsi *tsi = socket->tsi;
    if (socket->is_resting)
        return;
    if (tsi->resting_count++ == 0)
        loop_set_deadline(tsi->rest_timer, clock_deadline_ns(LIMIT_TSI_REST_MS * CLOCK_NS_PER_MS));
    socket->is_resting = true;
}

static void wake(struct tsi_socket *socket)
{
    if (!socket->is_resting)
        return;
    socket->is_resting = false;
    socket->tsi->resting_count--;
}

void tsi_listen_resume(struct tsi *tsi)
{
    if (tsi->resting_count == 0 || tsi->socket_count >= LIMIT_TSI_SOCKETS)
        return;
    for (size_t i = 0; i < TSI_BUCKETS; i++) {
        for (struct tsi_socket *socket = tsi->buckets[i]; socket != NULL; socket = socket->next) {
            wake(socket);
            watch(socket);
        }
    }
}

static void rest_ended(void *user, uint32_t what)
{
    (void)what;
    tsi_listen_resume(user);
}

static void add_pending(struct tsi_socket *listener, struct tsi_socket *child)
{
    child->listener = listener;
    if (listener->last_pending != NULL)
        listener->last_pending->next_pending = child;
    else
        listener->first_pending = child;
    listener->last_pending = child;
    listener->pending_count++;
}

static void remove_pending(struct tsi_socket *child)
{
    struct tsi_socket *listener = child->listener, *previous = NULL;
    for (struct tsi_socket *other = listener->first_pending; other != child; other = other->next_pending)
        previous = other;
    if (previous != NULL)
        previous->next_pending = child->next_pending;
    else
        listener->first_pending = child->next_pending;
    if (listener->last_pending == child)
        listener->last_pending = previous;
    child->next_pending = NULL;
    child->listener = NULL;
    listener->pending_count--;
}

/* The guest's kernel takes the stream that was offered first. */
static void hand_over(struct tsi_socket *listener, uint32_t reply_port)
{
    struct tsi_socket *child = listener->first_pending;
    remove_pending(child);
    tsi_become(child, TSI_TAKEN);
    tsi_answer(listener->tsi, TSI_ACCEPT, reply_port, 0);
}

static uint32_t choose_port(struct tsi *tsi, uint32_t guest_port)
{
    uint32_t port;
    do
        port = FIRST_STREAM_PORT + tsi->next_port++ % FIRST_STREAM_PORT;
    while (tsi_find(tsi, guest_port, port) != NULL); /* which are fewer than there are ports */
    return port;
}

/* Gives the descriptor away, whatever happens. */
static void offer(struct tsi_socket *listener, int fd, const struct tsi_address *peer)
{
    struct tsi *tsi = listener->tsi;
    struct tsi_socket *child = NULL;
    uint32_t port = choose_port(tsi, listener->vm_port);
    int result = tsi_add(tsi, listener->vm_port, port, &child);
    if (result < 0) {
        log_debug("tsi.accept_failed", LOG_ERRNO(result));
        close(fd);
        return;
    }
    child->family = listener->family;
    child->peer = *peer;
    tsi_note_name(child, &child->peer);
    tsi_note_local(child, fd);
    if (child->family != AF_UNIX && child->local.length > 0)
        tsi_address_set_port(&child->local, tsi_address_port(&listener->local));
    tsi_become(child, TSI_PENDING);
    add_pending(listener, child);
    result = vsock_connect_guest(tsi->vsock, fd, port, listener->vm_port);
    if (result < 0) {
        log_debug("tsi.offer_failed", LOG_ERRNO(result));
        tsi_drop(child);
    } else if (listener->waits) {
        listener->waits = false;
        hand_over(listener, listener->reply_port);
    }
}

/* Errors of a connection that ended before it was accepted (accept(2)); the next one may be better. */
static bool is_of_the_connection(int number)
{
    return number == EAGAIN || number == EINTR || number == ECONNABORTED || number == EPROTO || number == ENETDOWN ||
           number == ENOPROTOOPT || number == EHOSTDOWN || number == ENONET || number == EHOSTUNREACH ||
           number == EOPNOTSUPP || number == ENETUNREACH;
}

static void connection_came(void *user, uint32_t events)
{
    struct tsi_socket *listener = user;
    (void)events;
    for (size_t left = LIMIT_TSI_PENDING; left > 0 && listener->pending_count < listener->most_pending; left--) {
        struct tsi_address peer = {.length = sizeof(peer.un)};
        if (listener->tsi->socket_count >= LIMIT_TSI_SOCKETS) {
            rest(listener);
            break;
        }
        int fd = accept4(listener->fd, &peer.any, &peer.length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (!is_of_the_connection(errno)) {
                log_warn("tsi.accept_failed", LOG_ERRNO(errno));
                rest(listener);
            }
            break;
        }
        offer(listener, fd, &peer);
    }
    watch(listener);
}

/* ---- requests ---- */

/* What the host binds for the address that the guest has bound: 0, or -EPERM for what stays in the guest. */
static int choose_address(const struct tsi *tsi, const struct tsi_address *guest, struct tsi_address *ret_host)
{
    *ret_host = *guest;
    if (guest->any.sa_family == AF_UNIX)
        return tsi_address_has_path(guest) ? 0 : -EPERM;
    uint16_t port = tsi_address_port(guest);
    size_t i = 0;
    if (port == 0 || tsi->policy.scope == TSI_SCOPE_NONE)
        return -EPERM;
    if (tsi->has_port_map) {
        while (i < tsi->port_count && tsi->ports[i].guest != port)
            i++;
        if (i == tsi->port_count || tsi->ports[i].host == 0)
            return -EPERM;
        tsi_address_set_port(ret_host, tsi->ports[i].host);
    }
    tsi_address_to_host(&tsi->policy, ret_host);
    return 0;
}

/* What the guest's program wants to have waiting, as the guest's kernel clamps it: at least one. */
static size_t clamp_backlog(uint32_t backlog)
{
    if (backlog == 0)
        return 1;
    return backlog < LIMIT_TSI_PENDING ? backlog : LIMIT_TSI_PENDING;
}

static int bind_and_listen(struct tsi_socket *socket, const struct tsi_address *host)
{
    int on = 1;
    int result = tsi_open(socket);
    if (result < 0)
        return result;
    /* As every server asks for: connections of its last life do not hold the port. */
    if (socket->family != AF_UNIX)
        setsockopt(socket->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(socket->fd, &host->any, host->length) < 0)
        return socket->family == AF_UNIX && errno != EADDRINUSE ? -EPERM : -errno;
    if (socket->family == AF_UNIX)
        note_node(socket);
    if (listen(socket->fd, (int)socket->most_pending) < 0)
        return -errno;
    return loop_add_fd(socket->tsi->loop, socket->fd, EPOLLIN, connection_came, socket, &socket->source);
}

static int begin(struct tsi_socket *socket, const struct tsi_request *request)
{
    struct tsi *tsi = socket->tsi;
    struct tsi_address guest, host;
    int result = tsi_address_read(request->address, request->address_length, (uint32_t)socket->family, &guest);
    if (result == 0)
        result = choose_address(tsi, &guest, &host);
    if (result == 0 && tsi->rest_timer == NULL)
        result = loop_add_timer(tsi->loop, CLOCK_NEVER, rest_ended, tsi, &tsi->rest_timer);
    if (result < 0)
        return result;
    socket->local = guest;
    socket->vm_port = request->vm_port;
    socket->most_pending = clamp_backlog(request->backlog);
    result = bind_and_listen(socket, &host);
    if (result < 0) {
        remove_node(socket);
        tsi_close(socket);
        socket->local.length = 0;
        return result;
    }
    socket->is_watched = true;
    tsi_become(socket, TSI_LISTENING);
    return 0;
}

void tsi_listen(struct tsi_socket *socket, const struct tsi_request *request, uint32_t reply_port)
{
    int result = 0;
    if (socket->is_datagram) {
        result = -EOPNOTSUPP;
    } else if (socket->state == TSI_LISTENING) { /* again, with another backlog */
        socket->most_pending = clamp_backlog(request->backlog);
        result = listen(socket->fd, (int)socket->most_pending) < 0 ? -errno : 0;
        watch(socket);
    } else if (socket->state != TSI_IDLE) {
        result = -EINVAL;
    } else {
        result = begin(socket, request);
    }
    log_debug("tsi.listen", LOG_UINT("port", socket->guest_port), LOG_ERRNO(result));
    tsi_answer(socket->tsi, TSI_LISTEN, reply_port, result);
}

/* The guest's kernel asks once at a time; one that asks again was interrupted by a signal and waits no longer. */
void tsi_accept(struct tsi_socket *socket, const struct tsi_request *request, uint32_t reply_port)
{
    if (socket->state != TSI_LISTENING) {
        tsi_answer(socket->tsi, TSI_ACCEPT, reply_port, -EINVAL);
        return;
    }
    socket->waits = false;
    if (socket->first_pending != NULL) {
        hand_over(socket, reply_port);
        watch(socket);
    } else if ((request->flags & TSI_FLAG_NONBLOCK) != 0) {
        tsi_answer(socket->tsi, TSI_ACCEPT, reply_port, -EWOULDBLOCK);
    } else {
        socket->waits = true;
        socket->reply_port = reply_port;
    }
}

void tsi_listen_leave(struct tsi_socket *socket)
{
    if (socket->listener != NULL) {
        struct tsi_socket *listener = socket->listener;
        remove_pending(socket);
        watch(listener);
    }
    if (socket->state != TSI_LISTENING)
        return;
    while (socket->first_pending != NULL)
        tsi_drop(socket->first_pending);
    wake(socket);
    remove_node(socket);
}
