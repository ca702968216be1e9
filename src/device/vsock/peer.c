// SPDX-License-Identifier: Apache-2.0
/* The host's side of a stream: a connected socket, or functions of the embedding program.
 *
 * A socket is watched edge-triggered for input from its first to its last moment, so neither a guest without credit nor
 * one without buffers costs a system call: whoever uses a peer remembers that it is ready until -EAGAIN says that
 * it is not. Only room for output is asked for when it is needed, because a host that reads well would wake us with
 * every byte it takes.
 *
 * A program's functions may say -EAGAIN and leave their descriptor readable. They are asked again after each -EAGAIN,
 * as a level-triggered loop would do; bytes travel through a copy, for guest memory may change under a reader.
 *
 * Invariants: (1) a closed peer has no descriptor, no source, and its stream was closed once. (2) the source goes
 * before the descriptor.
 *
 * Trust: sockets and functions are the host's; what they return is checked against what was asked for.
 */
#include "device/vsock/peer.h"

#include "base/fd.h"
#include "virtio/device.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- opening and closing ---- */

int peer_connect(const char *path, struct peer *ret_peer)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, length + 1);
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* At once or not at all: EAGAIN says that more wait to be accepted than the server allows (unix(7)). */
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;
    *ret_peer = peer_of_socket(steal_fd(&fd));
    return 0;
}

struct peer peer_of_socket(int fd)
{
    return (struct peer){.fd = fd};
}

int peer_connect_custom(const struct vial_vsock_ops *ops, void *user, uint32_t guest_port, uint8_t *copy,
                        struct peer *ret_peer)
{
    struct peer peer = {.fd = -1, .ops = ops, .ops_user = user, .copy = copy};
    int result = ops->connect(user, guest_port, &peer.ops_stream);
    if (result != 0)
        return result < 0 ? result : -EPROTO;
    int fd = ops->poll_fd(user, peer.ops_stream);
    /* A descriptor of our own: the program may use one for several streams, and the loop takes each only once. */
    peer.fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (peer.fd < 0) {
        result = fd < 0 ? -EBADF : -errno;
        ops->close(user, peer.ops_stream);
        return result;
    }
    *ret_peer = peer;
    return 0;
}

void peer_close(struct peer *peer)
{
    if (peer->fd < 0)
        return;
    loop_source_free(peer->source);
    fd_close(peer->fd);
    if (peer->ops != NULL)
        peer->ops->close(peer->ops_user, peer->ops_stream);
    *peer = PEER_NONE;
}

bool peer_is_open(const struct peer *peer)
{
    return peer->fd >= 0;
}

/* ---- waiting ---- */

static uint32_t events_of(const struct peer *peer)
{
    return EPOLLIN | EPOLLRDHUP | EPOLLET | (peer->wants_output ? EPOLLOUT : 0);
}

int peer_watch(struct peer *peer, struct loop *loop, loop_function function, void *user)
{
    return loop_add_fd(loop, peer->fd, events_of(peer), function, user, &peer->source);
}

void peer_look_again(struct peer *peer)
{
    if (peer->source != NULL)
        loop_set_events(peer->source, events_of(peer)); /* cannot fail: the source is in the loop */
}

void peer_want_output(struct peer *peer, bool wants)
{
    if (peer->wants_output == wants)
        return;
    peer->wants_output = wants;
    peer_look_again(peer);
}

bool peer_has_hung_up(const struct peer *peer, uint32_t events)
{
    /* Both directions of a socket are over, and we ended ours or the other side did. Of a program's descriptor nobody
     * knows what it means; its functions will tell. */
    return peer->ops == NULL && (events & EPOLLHUP) != 0;
}

/* ---- bytes ---- */

static ssize_t read_custom(const struct peer *peer, const struct iovec *spans, size_t count)
{
    size_t room = 0;
    for (size_t i = 0; i < count && room < PEER_COPY_BYTES; i++)
        room += spans[i].iov_len;
    if (room > PEER_COPY_BYTES)
        room = PEER_COPY_BYTES;
    ssize_t got = peer->ops->read(peer->ops_user, peer->ops_stream, peer->copy, room);
    if (got > (ssize_t)room)
        return -EIO;
    if (got > 0)
        virtio_write_spans(spans, count, 0, peer->copy, (size_t)got);
    return got;
}

static ssize_t write_custom(const struct peer *peer, const struct iovec *spans, size_t count)
{
    size_t length = virtio_read_spans(spans, count, 0, peer->copy, PEER_COPY_BYTES);
    ssize_t taken = peer->ops->write(peer->ops_user, peer->ops_stream, peer->copy, length);
    if (taken == 0)
        return -EAGAIN;
    return taken > (ssize_t)length ? -EIO : taken;
}

ssize_t peer_read(struct peer *peer, struct iovec *spans, size_t count)
{
    ssize_t got;
    if (peer->ops != NULL) {
        got = read_custom(peer, spans, count);
        if (got == -EAGAIN)
            peer_look_again(peer);
        return got;
    }
    struct msghdr message = {.msg_iov = spans, .msg_iovlen = count};
    do
        got = recvmsg(peer->fd, &message, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

ssize_t peer_write(struct peer *peer, struct iovec *spans, size_t count)
{
    ssize_t taken;
    if (peer->ops != NULL) {
        taken = write_custom(peer, spans, count);
        if (taken == -EAGAIN)
            peer_look_again(peer);
        return taken;
    }
    struct msghdr message = {.msg_iov = spans, .msg_iovlen = count};
    do
        taken = sendmsg(peer->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (taken < 0 && errno == EINTR);
    return taken < 0 ? -errno : taken;
}

void peer_end_output(struct peer *peer)
{
    if (peer->fd < 0)
        return;
    if (peer->ops == NULL)
        shutdown(peer->fd, SHUT_WR); /* fails where the other side is gone, which its events tell */
    else if (peer->ops->shutdown != NULL)
        peer->ops->shutdown(peer->ops_user, peer->ops_stream);
}

void peer_end_input(struct peer *peer)
{
    if (peer->fd >= 0 && peer->ops == NULL)
        shutdown(peer->fd, SHUT_RD);
}
