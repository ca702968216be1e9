// SPDX-License-Identifier: Apache-2.0
/* A virtio device behind a vhost-user socket. (QEMU, docs/interop/vhost-user)
 *
 * The front end (QEMU, user-mode Linux) has the driver; over a socket it gives us guest memory, rings and descriptors,
 * and from then on rings and kicks go past it. The server has no thread: listener and connection are sources of the
 * device's own loop, so a message is handled between two turns of the queues, and starting, moving and pausing a queue
 * are plain calls. One message is taken at a time, so a flood of them does not starve the queues.
 *
 *     listener ──> connection ──> vhost_message.c: a whole message of the right form ──> vhost_requests.c ──> reply
 *                                                                                              │
 *     kicks ──> device ──> vhost_signal.c, vhost_channel.c: calls                    vhost_rings.c, vhost_memory.c
 *
 * Rings start and stop by themselves when the last thing they need comes or the first one goes (vhost_rings.c). A ring
 * that goes on does so at its used index, which is all that has to be known of devices that finish in order; QEMU, too,
 * goes by it when a back end was killed and comes back. For those that do not, INFLIGHT_SHMFD says what was in flight
 * (vhost_inflight.c); not on a machine's own server, which accepts one file only, and lives and dies with its peer. Not
 * offered: LOG_SHMFD, which moves guests between hosts, and CONFIGURE_MEM_SLOTS.
 *
 * The listener is watched edge-triggered: a socket that does not listen yet reports a hang-up all the time, and only
 * its first connection is news. While a connection lives, others wait in the backlog.
 *
 * Invariants: (1) all but the lock, what it guards and `is_abandoned` is touched on the device's thread only. (2) after
 * disconnect no descriptor, mapping or setting of the peer is left. (3) what the peer can make us hold is bounded: a
 * connection, a channel, three descriptors a ring, VHOST_MOST_REGIONS mappings and one. (4) nothing waits for the peer,
 * but for what vhost_signal.c says of eventfds.
 *
 * Trust: the peer is hostile. It can cut its memory file while we use it, which kills us by SIGBUS, and back it by a
 * file system that never answers. So a machine's own server accepts only the file that it knows (accepts_memory) from
 * a peer whose jail forbids it to resize that; any other server belongs in a process of its own. A peer that hands us
 * its own end of the connection keeps it open beyond its death: whoever started it has to watch for that.
 */
#include "virtio/vhost_user.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/log.h"
#include "virtio/vhost_server.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* What a connection may use that has agreed on nothing (yet): QEMU 7.2 does not agree anew when it connects again. */
#define ASSUMED (VHOST_USER_F_REPLY_ACK | VHOST_USER_F_STATUS)
#define OFFERED                                                                                                        \
    (VHOST_USER_F_MQ | VHOST_USER_F_REPLY_ACK | VHOST_USER_F_BACKEND_REQ | VHOST_USER_F_CONFIG |                       \
     VHOST_USER_F_INFLIGHT | VHOST_USER_F_RESET_DEVICE | VHOST_USER_F_INBAND | VHOST_USER_F_STATUS)

/* ---- what the device says ---- */

static void tell_used(void *transport, unsigned queue)
{
    struct vhost_user *server = transport;
    if (server->rings[queue].call.fd >= 0)
        vhost_signal_peer(server, &server->rings[queue].call);
    else if (vhost_has_protocol(server, VHOST_USER_F_INBAND))
        vhost_channel_call(&server->channel, queue);
}

static void tell_config(void *transport)
{
    struct vhost_user *server = transport;
    if (vhost_has_protocol(server, VHOST_USER_F_CONFIG))
        vhost_channel_change_config(&server->channel);
}

static void tell_broken(void *transport)
{
    struct vhost_user *server = transport;
    server->needs_reset = true;
    for (unsigned i = 0; i < server->ring_count; i++)
        vhost_signal_peer(server, &server->rings[i].error);
}

static const struct virtio_transport_ops transport_ops = {
    .call = tell_used,
    .config_changed = tell_config,
    .broken = tell_broken,
};

/* ---- the connection ---- */

static void accept_next(struct vhost_user *server);

/* Every second time less often: a peer that comes and goes does not fill the log. */
static bool is_worth_a_line(unsigned count)
{
    return (count & (count - 1)) == 0;
}

static void forget_connection(struct vhost_user *server)
{
    vhost_reset(server);
    server->source = loop_source_free(server->source);
    vhost_receiver_clear(&server->receiver);
    vhost_channel_close(&server->channel);
    vhost_memory_close(&server->memory);
    vhost_inflight_close(&server->inflight);
    pthread_mutex_lock(&server->lock);
    server->fd = fd_close(server->fd);
    for (unsigned i = 0; i < server->ring_count; i++) {
        vhost_signal_close(&server->rings[i].call);
        vhost_signal_close(&server->rings[i].error);
    }
    pthread_mutex_unlock(&server->lock);
    server->features = 0;
    server->protocol = server->offered & ASSUMED;
    server->has_features = server->was_config_read = false;
}

static void disconnect(struct vhost_user *server, const char *why)
{
    if (is_worth_a_line(server->connections))
        log_info("vhost_user.disconnected", LOG_TEXT("device", virtio_device_name(server->device)),
                 LOG_TEXT("why", why), LOG_UINT("count", server->connections));
    forget_connection(server);
    if (server->disconnected != NULL)
        server->disconnected(server->user);
}

static void handle_connection(void *user, uint32_t what)
{
    struct vhost_user *server = user;
    (void)what;
    server->why = "the connection failed";
    int result = atomic_load(&server->is_abandoned) ? -ECONNRESET
                                                    : vhost_receive(&server->receiver, server->fd, &server->why);
    if (result > 0) {
        result = vhost_handle_request(server);
        vhost_receiver_clear(&server->receiver);
    }
    if (result >= 0)
        return;
    bool has_gone = result == -ECONNRESET || result == -EPIPE;
    if (result == -EMFILE && server->out_of_room != NULL)
        server->out_of_room(server->user, EMFILE);
    else if (!has_gone)
        virtio_device_blame(server->device, server->why);
    disconnect(server, has_gone ? "the front end has gone" : server->why);
    accept_next(server);
}

/* Takes the descriptor, also on failure. */
static int serve_connection(struct vhost_user *server, int fd)
{
    int result = loop_add_fd(virtio_device_loop(server->device), fd, EPOLLIN, handle_connection, server,
                             &server->source);
    if (result < 0) {
        fd_close(fd);
        return result;
    }
    pthread_mutex_lock(&server->lock);
    server->fd = fd;
    pthread_mutex_unlock(&server->lock);
    server->connections++;
    return 0;
}

static void close_listener(struct vhost_user *server)
{
    server->listen_source = loop_source_free(server->listen_source);
    server->listen_fd = fd_close(server->listen_fd);
}

static void accept_next(struct vhost_user *server)
{
    if (server->listen_fd < 0 || server->fd >= 0 || atomic_load(&server->is_abandoned))
        return;
    int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0 && (errno == EAGAIN || errno == EINVAL)) /* nobody there, or it does not listen yet */
        return;
    int result = fd < 0 ? -errno : serve_connection(server, fd);
    if (result < 0) {
        if (is_worth_a_line(++server->accept_failures))
            log_error("vhost_user.accept_failed", LOG_TEXT("device", virtio_device_name(server->device)),
                      LOG_ERRNO(result), LOG_UINT("count", server->accept_failures));
        return;
    }
    if (server->is_once)
        close_listener(server);
    if (is_worth_a_line(server->connections))
        log_info("vhost_user.connected", LOG_TEXT("device", virtio_device_name(server->device)),
                 LOG_UINT("count", server->connections));
    if (server->connected != NULL)
        server->connected(server->user);
}

static void handle_listener(void *user, uint32_t what)
{
    (void)what;
    accept_next(user);
}

/* ---- life ---- */

static struct vhost_user *make_server(struct virtio_device *device, const struct vhost_user_options *options)
{
    unsigned ring_count = virtio_device_queue_count(device);
    struct vhost_user *server = alloc_zero(sizeof(*server) + ring_count * sizeof(server->rings[0]));
    if (server == NULL)
        return NULL;
    server->device = device;
    server->offered = OFFERED & ~options->protocol_without;
    if (!virtio_device_is_out_of_order(device) || options->accepts_memory != NULL)
        server->offered &= ~VHOST_USER_F_INFLIGHT;
    if ((server->offered & VHOST_USER_F_REPLY_ACK) == 0 || (server->offered & VHOST_USER_F_BACKEND_REQ) == 0)
        server->offered &= ~VHOST_USER_F_INBAND;
    server->protocol = server->offered & ASSUMED;
    server->is_once = options->is_once;
    server->signals_sockets_only = options->signals_sockets_only;
    server->accepts_memory = options->accepts_memory;
    server->out_of_room = options->out_of_room;
    server->connected = options->connected;
    server->disconnected = options->disconnected;
    server->user = options->user;
    server->listen_fd = server->fd = -1;
    server->channel = (struct vhost_channel){.loop = virtio_device_loop(device), .fd = -1};
    server->ring_count = ring_count;
    for (unsigned i = 0; i < ring_count; i++)
        server->rings[i].call = server->rings[i].error = VHOST_SIGNAL_NONE;
    pthread_mutex_init(&server->lock, NULL);
    return server;
}

static void free_server(struct vhost_user *server)
{
    pthread_mutex_destroy(&server->lock);
    free(server);
}

/* The descriptor stays the caller's on failure. */
static int listen_on(struct vhost_user *server, int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    int result = loop_add_fd(virtio_device_loop(server->device), fd, EPOLLIN | EPOLLET, handle_listener, server,
                             &server->listen_source);
    if (result == 0)
        server->listen_fd = fd;
    return result;
}

static int connect_to(struct vhost_user *server, int fd)
{
    int result = loop_add_fd(virtio_device_loop(server->device), fd, EPOLLIN, handle_connection, server,
                             &server->source);
    if (result < 0)
        return result;
    server->fd = fd;
    server->connections = 1;
    return 0;
}

int vhost_user_new(struct virtio_device *device, const struct vhost_user_options *options,
                   struct vhost_user **ret_server)
{
    assert((options->listen_fd < 0) != (options->connection_fd < 0));
    int result = virtio_device_grow_queues(device, QUEUE_MOST_ENTRIES);
    if (result < 0)
        return result;
    struct vhost_user *server = make_server(device, options);
    if (server == NULL)
        return -ENOMEM;
    result = options->listen_fd >= 0 ? listen_on(server, options->listen_fd)
                                     : connect_to(server, options->connection_fd);
    if (result < 0) {
        free_server(server);
        return result;
    }
    virtio_device_attach(device, &transport_ops, server);
    *ret_server = server;
    return 0;
}

void vhost_user_abandon(struct vhost_user *server)
{
    atomic_store(&server->is_abandoned, true);
    pthread_mutex_lock(&server->lock);
    for (unsigned i = 0; i < server->ring_count; i++) {
        vhost_signal_unblock(&server->rings[i].call);
        vhost_signal_unblock(&server->rings[i].error);
    }
    if (server->fd >= 0)
        shutdown(server->fd, SHUT_RDWR); /* which the loop sees */
    pthread_mutex_unlock(&server->lock);
}

static void end_here(void *state, void *argument)
{
    struct vhost_user *server = argument;
    (void)state;
    close_listener(server);
    if (server->fd >= 0)
        disconnect(server, "the server ends");
    virtio_device_attach(server->device, NULL, NULL);
}

struct vhost_user *vhost_user_free(struct vhost_user *server)
{
    if (server == NULL)
        return NULL;
    virtio_device_run(server->device, end_here, server);
    free_server(server);
    return NULL;
}
