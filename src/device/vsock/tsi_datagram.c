// SPDX-License-Identifier: Apache-2.0
/* Datagram sockets of the guest.
 *
 * sendto(2) of the guest's is two datagrams, the address and then the bytes. What comes back goes to the socket's own
 * port, from a port of the same number; the guest's kernel calls the sender by the last address that it sent to. As a
 * program cannot tell senders apart, those that it may not talk to are kept away here.
 *
 * Nothing is held: what the guest or the host does not take at once is gone, as datagrams are.
 *
 * Invariants: (1) what is sent goes to an address that has passed the policy, and not to an earlier one after a newer
 * was refused. (2) what a connected IP socket passes on comes from its peer. (3) one turn reads at most
 * LIMIT_TSI_TURN_DATAGRAMS, and some more than LIMIT_TSI_TURN_BYTES.
 *
 * Trust: bytes both ways are passed on unseen. Addresses of the guest's and of senders are not believed.
 */
#include "base/alloc.h"
#include "base/limits.h"
#include "base/log.h"
#include "device/vsock/private.h"
#include "device/vsock/tsi_private.h"

#include <errno.h>
#include <sys/epoll.h>

/* The sender of an IP datagram by the guest's name and the host's; our sockets of AF_UNIX have no name to send to. The
 * kernel keeps strangers away from a socket that is connected, but not what had come before. */
static bool is_welcome(const struct tsi_socket *socket, const struct tsi_address *sender)
{
    struct tsi_address guest = *sender;
    if (socket->family == AF_UNIX)
        return true;
    tsi_note_name(socket, &guest);
    if (socket->peer.length > 0 && !tsi_address_is_same(&guest, &socket->peer))
        return false;
    return guest.length > 0 && tsi_policy_allows(&socket->tsi->policy, &guest, sender);
}

/* How many bytes there were, none of them passed on when they are not for the guest; or -errno. */
static ssize_t pass_on(struct tsi_socket *socket)
{
    struct tsi *tsi = socket->tsi;
    struct tsi_address sender = {0};
    struct iovec bytes = {.iov_base = tsi->datagram, .iov_len = LIMIT_TSI_DATAGRAM_BYTES};
    struct msghdr message = {
        .msg_name = &sender.any,
        .msg_namelen = sizeof(sender.un),
        .msg_iov = &bytes,
        .msg_iovlen = 1,
    };
    ssize_t length = recvmsg(socket->fd, &message, MSG_DONTWAIT);
    if (length < 0)
        return -errno;
    sender.length = message.msg_namelen;
    if ((message.msg_flags & MSG_TRUNC) == 0 && is_welcome(socket, &sender))
        vsock_send_datagram(tsi->vsock, socket->guest_port, socket->guest_port, tsi->datagram, (size_t)length);
    return length;
}

/* An error that an earlier datagram met (ICMP) is read like one, and is over then. */
static void data_came(void *user, uint32_t events)
{
    struct tsi_socket *socket = user;
    size_t total = 0;
    (void)events;
    for (size_t left = LIMIT_TSI_TURN_DATAGRAMS; left > 0 && total < LIMIT_TSI_TURN_BYTES; left--) {
        ssize_t length = pass_on(socket);
        if (length == -EAGAIN)
            break;
        if (length > 0)
            total += (size_t)length;
    }
}

static int open_once(struct tsi_socket *socket)
{
    struct tsi *tsi = socket->tsi;
    if (socket->state == TSI_OPEN)
        return 0;
    if (tsi->datagram == NULL)
        tsi->datagram = alloc_zero(LIMIT_TSI_DATAGRAM_BYTES);
    if (tsi->datagram == NULL)
        return -ENOMEM;
    int result = tsi_open(socket);
    if (result == 0)
        result = loop_add_fd(tsi->loop, socket->fd, EPOLLIN, data_came, socket, &socket->source);
    if (result < 0)
        tsi_close(socket);
    else
        tsi_become(socket, TSI_OPEN);
    return result;
}

void tsi_datagram_connect(struct tsi_socket *socket, const struct tsi_request *request, uint32_t reply_port)
{
    struct tsi_address guest, host;
    int result = tsi_resolve(socket, request, &guest, &host);
    if (result == 0)
        result = open_once(socket);
    if (result == 0 && connect(socket->fd, &host.any, host.length) < 0)
        result = -errno;
    if (result == 0) {
        socket->peer = guest;
        tsi_note_local(socket, socket->fd);
    }
    tsi_answer(socket->tsi, TSI_CONNECT, reply_port, result);
}

void tsi_datagram_aim(struct tsi_socket *socket, const struct tsi_request *request)
{
    struct tsi_address guest, host;
    if (!socket->is_datagram)
        return;
    int result = tsi_resolve(socket, request, &guest, &host);
    if (result == 0)
        result = open_once(socket);
    if (result < 0) {
        log_debug("tsi.sendto_refused", LOG_UINT("port", socket->guest_port), LOG_ERRNO(result));
        host.length = 0;
    }
    socket->destination = host;
}

static ssize_t try_to_send(const struct tsi_socket *socket, const uint8_t *bytes, size_t length, bool to_destination)
{
    const struct tsi_address *destination = &socket->destination;
    int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    if (!to_destination)
        return send(socket->fd, bytes, length, flags);
    return sendto(socket->fd, bytes, length, flags, &destination->any, destination->length);
}

/* A failure may be that of an earlier datagram, and is over then. Nobody tells the guest, so that the second one would
 * be lost for the first. */
void tsi_datagram_send(struct tsi_socket *socket, const uint8_t *bytes, size_t length, bool to_destination)
{
    const struct tsi_address *receiver = to_destination ? &socket->destination : &socket->peer;
    if (socket->state != TSI_OPEN || receiver->length == 0 || length > LIMIT_TSI_DATAGRAM_BYTES)
        return;
    ssize_t sent = try_to_send(socket, bytes, length, to_destination);
    if (sent < 0 && errno != EAGAIN)
        sent = try_to_send(socket, bytes, length, to_destination);
    if (sent < 0)
        log_trace("tsi.datagram_dropped", LOG_UINT("port", socket->guest_port), LOG_ERRNO(errno));
}
