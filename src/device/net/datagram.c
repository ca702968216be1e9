// SPDX-License-Identifier: Apache-2.0
/* A Unix datagram socket as a network: a datagram is a frame.
 *
 * gvproxy and vfkit speak this. The second wants to be greeted, so that it learns whom to answer.
 *
 * A datagram socket hardly notices that the other side has gone: who sends is told, who only receives is not. Linux
 * tells a socket that is shut down by reads of nothing, for ever, so an empty datagram, which is no frame, is an end.
 *
 * Invariants: (1) a frame is sent whole or not at all. (2) the name that we have in the file system goes with the
 * socket.
 *
 * Trust: the other side is the user's choice, but what it sends is checked as if it were not: lengths here, and the
 * rest is the guest's business.
 */
#include "base/alloc.h"
#include "base/fd.h"
#include "device/net/backend.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

struct datagram {
    struct net_backend backend;
    char *path; /* owned; NULL for a socket of the caller's */
    bool wants_greeting;
    struct sockaddr_un own; /* our address; its path is empty when there is none */
};

static struct datagram *datagram_of(struct net_backend *backend)
{
    return (struct datagram *)backend;
}

static int send_frame(struct net_backend *backend, const struct net_header *header, const struct iovec *parts,
                      size_t count, size_t length)
{
    (void)header, (void)length;
    ssize_t sent = net_socket_send(backend->fd, parts, count);
    if (sent == -ENOBUFS || sent == -ENOMEM)
        return -EMSGSIZE; /* this one is gone, as on any network that is short of room */
    return sent < 0 ? (int)sent : 0;
}

static ssize_t receive_frame(struct net_backend *backend, struct net_header *header, const struct iovec *parts,
                             size_t count)
{
    int flags = 0;
    (void)header;
    ssize_t got = net_socket_receive(backend->fd, parts, count, &flags);
    if (got == 0)
        return -ECONNRESET;
    return got > 0 && (flags & MSG_TRUNC) != 0 ? -EMSGSIZE : got;
}

static void disconnect_socket(struct net_backend *backend)
{
    struct datagram *datagram = datagram_of(backend);
    backend->fd = fd_close(backend->fd);
    if (datagram->own.sun_path[0] != '\0')
        unlink(datagram->own.sun_path);
    datagram->own.sun_path[0] = '\0';
}

static int greet(struct net_backend *backend)
{
    static const struct iovec greeting = {.iov_base = (void *)(uintptr_t) "VFKT", .iov_len = 4};
    ssize_t sent = net_socket_send(backend->fd, &greeting, 1);
    return sent < 0 ? (int)sent : 0;
}

static int connect_socket(struct net_backend *backend)
{
    struct datagram *datagram = datagram_of(backend);
    struct sockaddr_un own;
    int fd = net_socket_connect(datagram->path, SOCK_DGRAM, &own);
    if (fd < 0)
        return fd;
    datagram->own = own;
    backend->fd = fd;
    int result = datagram->wants_greeting ? greet(backend) : 0;
    if (result < 0)
        disconnect_socket(backend);
    return result;
}

static void free_datagram(struct net_backend *backend)
{
    struct datagram *datagram = datagram_of(backend);
    disconnect_socket(backend);
    free(datagram->path);
    free(datagram);
}

static const struct net_backend_ops datagram_ops = {
    .name = "unixgram",
    .send = send_frame,
    .receive = receive_frame,
    .connect = connect_socket,
    .disconnect = disconnect_socket,
    .free = free_datagram,
};

int net_datagram_new(const struct net_options *options, struct net_backend **ret_backend)
{
    struct datagram *datagram = alloc_zero(sizeof(*datagram));
    if (datagram == NULL)
        return -ENOMEM;
    datagram->backend = (struct net_backend){.ops = &datagram_ops, .fd = -1, .can_connect = options->fd < 0};
    datagram->wants_greeting = options->vfkit;
    int result = 0;
    if (options->fd >= 0)
        result = datagram->backend.fd = net_socket_open(options->fd, SOCK_DGRAM);
    else if ((datagram->path = alloc_string(options->path)) == NULL)
        result = -ENOMEM;
    else
        result = connect_socket(&datagram->backend);
    if (result < 0) {
        free_datagram(&datagram->backend);
        return result;
    }
    *ret_backend = &datagram->backend;
    return 0;
}
