// SPDX-License-Identifier: Apache-2.0
/* Streams that the guest connects.
 *
 * The answer to CONNECT comes when the host's connect has ended, because the guest's program then believes that it is
 * connected: its kernel asks for the stream, and that connection is made at once. A wait that a signal interrupts is
 * begun again by the guest's kernel, with the same request: it takes the place of the first.
 *
 * Invariants: (1) whom the host connects to has passed the policy. (2) a socket whose connect failed has no descriptor,
 * so the next try begins with a new one. (3) the peer's name is the one that the guest gave.
 *
 * Trust: addresses are the guest's; with AF_UNIX they are paths of the host, which the option allows.
 */
#include "base/log.h"
#include "device/vsock/private.h"
#include "device/vsock/tsi_private.h"

#include <errno.h>
#include <sys/epoll.h>

static void finish(struct tsi_socket *socket, int result)
{
    socket->source = loop_source_free(socket->source);
    if (result < 0) {
        tsi_close(socket);
        if (socket->state == TSI_CONNECTING)
            tsi_become(socket, TSI_IDLE);
    } else {
        tsi_note_local(socket, socket->fd);
        tsi_become(socket, TSI_CONNECTED);
    }
    log_debug("tsi.connected", LOG_UINT("port", socket->guest_port), LOG_ERRNO(result));
    tsi_answer(socket->tsi, TSI_CONNECT, socket->reply_port, result);
}

static void connect_ended(void *user, uint32_t events)
{
    struct tsi_socket *socket = user;
    int failure = 0;
    socklen_t length = sizeof(failure);
    (void)events;
    if (getsockopt(socket->fd, SOL_SOCKET, SO_ERROR, &failure, &length) < 0)
        failure = errno;
    finish(socket, -failure);
}

static int begin(struct tsi_socket *socket, const struct tsi_address *host)
{
    int result = tsi_open(socket);
    if (result < 0)
        return result;
    if (connect(socket->fd, &host->any, host->length) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return -errno;
    result = loop_add_fd(socket->tsi->loop, socket->fd, EPOLLOUT, connect_ended, socket, &socket->source);
    return result < 0 ? result : -EINPROGRESS;
}

void tsi_stream_connect(struct tsi_socket *socket, const struct tsi_request *request, uint32_t reply_port)
{
    struct tsi_address guest, host;
    int result = tsi_resolve(socket, request, &guest, &host);
    bool is_again = result == 0 && tsi_address_is_same(&guest, &socket->peer);
    if (socket->state == TSI_CONNECTING && is_again && reply_port == socket->reply_port)
        return;
    if (socket->state == TSI_CONNECTING)
        result = -EALREADY;
    else if (socket->state == TSI_CONNECTED && is_again)
        result = 0;
    else if (socket->state == TSI_LISTENING)
        result = -EINVAL;
    else if (socket->state != TSI_IDLE)
        result = -EISCONN;
    if (result < 0 || socket->state != TSI_IDLE) {
        tsi_answer(socket->tsi, TSI_CONNECT, reply_port, result);
        return;
    }
    socket->peer = guest;
    socket->reply_port = reply_port;
    result = begin(socket, &host);
    if (result == -EINPROGRESS)
        tsi_become(socket, TSI_CONNECTING);
    else
        finish(socket, result);
}

int tsi_stream_take(struct tsi_socket *socket)
{
    if (socket->state != TSI_CONNECTED)
        return -ECONNREFUSED;
    int fd = socket->fd;
    socket->fd = -1;
    tsi_become(socket, TSI_TAKEN);
    return fd;
}
