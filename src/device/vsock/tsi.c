// SPDX-License-Identifier: Apache-2.0
/* Sockets of the guest that are sockets of the host's (TSI).
 *
 * A socket's name is a pair of ports: the guest's, which the guest's kernel chose, and TSI_STREAM_PORT. A stream that
 * was accepted has the listener's port and one of the host's that we chose. Each request is a datagram from a port that
 * the guest's kernel waits at for the answer, one request at a time, without a timeout: so everything that is waited
 * for is answered, also about sockets that do not exist.
 *
 *     CREATE ─> IDLE ──CONNECT──> CONNECTING ──> CONNECTED ──its stream──> TAKEN
 *      │         │ └───── it failed ────┘
 *      │         ├──LISTEN──> LISTENING
 *      │         └──CONNECT, SENDTO of a datagram socket──> OPEN
 *      └─> BARRED, when it may not be            a connection to a listener ─> PENDING ──ACCEPT──> TAKEN
 *
 * A descriptor exists from CONNECTING on, so a flood of CREATEs costs memory only. Who takes the stream takes the
 * descriptor; the names stay for GETNAME until the guest's kernel says RELEASE.
 *
 * Invariants: (1) a socket is in the table under its name once, and there are at most LIMIT_TSI_SOCKETS. (2) fd and
 * source are there in CONNECTING, LISTENING and OPEN, only fd in CONNECTED, neither in other states. (3) a request that
 * the guest waits for is answered once, unless its socket is released or it is asked again. (4) a name that the guest
 * is told is in its own terms (tsi_address_to_guest).
 *
 * Trust: everything that arrives by a datagram is the guest's. What comes from sockets of the host may be anybody's and
 * is only passed on.
 */
#include "device/vsock/tsi.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "device/vsock/private.h"
#include "device/vsock/tsi_private.h"

#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>

#define TO(state) (1u << (state))

static const unsigned transitions[TSI_STATES] = {
    [TSI_BARRED] = 0,
    [TSI_IDLE] = TO(TSI_BARRED) | TO(TSI_CONNECTING) | TO(TSI_CONNECTED) | TO(TSI_LISTENING) | TO(TSI_PENDING) |
                 TO(TSI_OPEN),
    [TSI_CONNECTING] = TO(TSI_CONNECTED) | TO(TSI_IDLE),
    [TSI_CONNECTED] = TO(TSI_TAKEN),
    [TSI_LISTENING] = 0,
    [TSI_PENDING] = TO(TSI_TAKEN),
    [TSI_TAKEN] = 0,
    [TSI_OPEN] = 0,
};

void tsi_become(struct tsi_socket *socket, enum tsi_state state)
{
    bool is_legal = (transitions[socket->state] & TO(state)) != 0;
    assert(is_legal);
    (void)is_legal;
    socket->state = state;
}

/* ---- the table ---- */

/* Streams of one listener differ in the host's port, all others in the guest's. */
static struct tsi_socket **bucket_of(struct tsi *tsi, uint32_t guest_port, uint32_t host_port)
{
    uint32_t mixed = (guest_port ^ (host_port << 16 | host_port >> 16)) * 2654435761u;
    return &tsi->buckets[mixed >> 24];
}

struct tsi_socket *tsi_find(struct tsi *tsi, uint32_t guest_port, uint32_t host_port)
{
    struct tsi_socket *socket = *bucket_of(tsi, guest_port, host_port);
    while (socket != NULL && (socket->guest_port != guest_port || socket->host_port != host_port))
        socket = socket->next;
    return socket;
}

int tsi_add(struct tsi *tsi, uint32_t guest_port, uint32_t host_port, struct tsi_socket **ret_socket)
{
    assert(tsi_find(tsi, guest_port, host_port) == NULL);
    if (tsi->socket_count >= LIMIT_TSI_SOCKETS)
        return -ENOBUFS;
    struct tsi_socket *socket = alloc_zero(sizeof(*socket));
    if (socket == NULL)
        return -ENOMEM;
    struct tsi_socket **bucket = bucket_of(tsi, guest_port, host_port);
    *socket = (struct tsi_socket){
        .tsi = tsi,
        .guest_port = guest_port,
        .host_port = host_port,
        .state = TSI_IDLE,
        .fd = -1,
        .next = *bucket,
    };
    *bucket = socket;
    tsi->socket_count++;
    *ret_socket = socket;
    return 0;
}

void tsi_drop(struct tsi_socket *socket)
{
    struct tsi_socket **link = bucket_of(socket->tsi, socket->guest_port, socket->host_port);
    tsi_listen_leave(socket);
    tsi_close(socket);
    while (*link != socket)
        link = &(*link)->next;
    *link = socket->next;
    socket->tsi->socket_count--;
    free(socket);
}

void tsi_remove(struct tsi_socket *socket)
{
    struct tsi *tsi = socket->tsi;
    tsi_drop(socket);
    tsi_listen_resume(tsi);
}

/* ---- the host's sockets ---- */

static int make_socket(int family, int type)
{
    int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

int tsi_open(struct tsi_socket *socket)
{
    int on = 1;
    assert(socket->fd < 0);
    int fd = make_socket(socket->family, socket->is_datagram ? SOCK_DGRAM : SOCK_STREAM);
    if (fd < 0)
        return fd;
    socket->fd = fd;
    /* The guest cannot ask for it (its setsockopt says yes and does nothing), and small writes were joined before they
     * came here. Without it some protocols are slow; nothing else depends on it. */
    if (!socket->is_datagram && socket->family != AF_UNIX)
        setsockopt(socket->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return 0;
}

void tsi_close(struct tsi_socket *socket)
{
    socket->source = loop_source_free(socket->source);
    socket->fd = fd_close(socket->fd);
}

void tsi_note_name(const struct tsi_socket *socket, struct tsi_address *name)
{
    bool is_whole = name->length >= sizeof(sa_family_t) && name->length <= sizeof(name->un);
    if (socket->family == AF_INET)
        is_whole = name->length == sizeof(name->in4);
    else if (socket->family == AF_INET6)
        is_whole = name->length == sizeof(name->in6);
    if (!is_whole || name->any.sa_family != socket->family)
        name->length = 0;
    else
        tsi_address_to_guest(&socket->tsi->policy, name);
}

void tsi_note_local(struct tsi_socket *socket, int fd)
{
    socket->local.length = sizeof(socket->local.un);
    if (getsockname(fd, &socket->local.any, &socket->local.length) < 0)
        socket->local.length = 0;
    tsi_note_name(socket, &socket->local);
}

int tsi_resolve(const struct tsi_socket *socket, const struct tsi_request *request, struct tsi_address *ret_guest,
                struct tsi_address *ret_host)
{
    const struct tsi_policy *policy = &socket->tsi->policy;
    int result = tsi_address_read(request->address, request->address_length, (uint32_t)socket->family, ret_guest);
    if (result < 0)
        return result;
    if (socket->family == AF_UNIX && !tsi_address_has_path(ret_guest))
        return -ECONNREFUSED; /* nobody is there: such names mean something else to each kernel */
    tsi_address_name_loopback(ret_guest);
    *ret_host = *ret_guest;
    tsi_address_to_host(policy, ret_host);
    return tsi_policy_allows(policy, ret_guest, ret_host) ? 0 : -EACCES;
}

void tsi_answer(struct tsi *tsi, enum tsi_kind kind, uint32_t reply_port, int result)
{
    uint8_t bytes[TSI_RESULT_BYTES];
    tsi_result_encode(result, bytes);
    if (!vsock_send_datagram(tsi->vsock, kind, reply_port, bytes, sizeof(bytes)))
        log_debug("tsi.answer_lost", LOG_UINT("port", reply_port), LOG_UINT("request", kind));
}

/* Either a name or an error. */
static void answer_name(struct tsi *tsi, uint32_t reply_port, int result, const struct tsi_address *name)
{
    uint8_t bytes[TSI_NAME_BYTES];
    if (name == NULL)
        tsi_name_encode(result, NULL, 0, bytes);
    else
        tsi_name_encode(0, &name->any, name->length, bytes);
    if (!vsock_send_datagram(tsi->vsock, TSI_GETNAME, reply_port, bytes, sizeof(bytes)))
        log_debug("tsi.answer_lost", LOG_UINT("port", reply_port), LOG_UINT("request", TSI_GETNAME));
}

/* ---- requests ---- */

static int check_kind_of_socket(const struct tsi *tsi, const struct tsi_request *request)
{
    bool is_inet = request->family == AF_INET || request->family == AF_INET6;
    bool is_datagram = request->type == SOCK_DGRAM;
    if (!(is_inet && tsi->hijacks_inet) && !(request->family == AF_UNIX && tsi->hijacks_unix))
        return -EAFNOSUPPORT;
    if (!is_datagram && request->type != SOCK_STREAM)
        return -ESOCKTNOSUPPORT;
    /* Newer kernels name the protocol, which may be ICMP. That would be a privilege of the host's user. */
    if (request->protocol != 0 && (!is_inet || request->protocol != (is_datagram ? IPPROTO_UDP : IPPROTO_TCP)))
        return -EPROTONOSUPPORT;
    return 0;
}

/* There is no answer, so that what goes wrong is told to the next request. A kernel that uses a port again has lost the
 * old socket, or its RELEASE was lost. */
static void take_create(struct tsi *tsi, const struct tsi_request *request)
{
    struct tsi_socket *socket = tsi_find(tsi, request->guest_port, TSI_STREAM_PORT);
    if (socket != NULL)
        tsi_remove(socket);
    int result = tsi_add(tsi, request->guest_port, TSI_STREAM_PORT, &socket);
    if (result < 0) {
        log_debug("tsi.create_failed", LOG_UINT("port", request->guest_port), LOG_ERRNO(result));
        return;
    }
    socket->failure = check_kind_of_socket(tsi, request);
    if (socket->failure < 0) {
        tsi_become(socket, TSI_BARRED);
        return;
    }
    socket->family = (int)request->family;
    socket->is_datagram = request->type == SOCK_DGRAM;
}

static void take_connect(struct tsi_socket *socket, const struct tsi_request *request, uint32_t reply_port)
{
    if (socket->is_datagram)
        tsi_datagram_connect(socket, request, reply_port);
    else
        tsi_stream_connect(socket, request, reply_port);
}

/* An empty path is the name of an AF_UNIX socket that has none (unix(7)). */
static void take_getname(struct tsi_socket *socket, const struct tsi_request *request, uint32_t reply_port)
{
    const struct tsi_address *name = request->wants_peer != 0 ? &socket->peer : &socket->local;
    bool has_peer = socket->state == TSI_CONNECTED || socket->state == TSI_TAKEN || socket->state == TSI_PENDING ||
                    socket->state == TSI_OPEN;
    int result = 0;
    if (request->wants_peer != 0 && !has_peer)
        result = -ENOTCONN;
    else if (name->length == 0)
        result = request->wants_peer != 0 ? -ENOTCONN : -EINVAL;
    answer_name(socket->tsi, reply_port, result, result < 0 ? NULL : name);
}

static void take_release(struct tsi *tsi, const struct tsi_request *request)
{
    struct tsi_socket *socket = tsi_find(tsi, request->guest_port, request->peer_port);
    if (socket != NULL && socket->state != TSI_PENDING) /* which only its listener may end */
        tsi_remove(socket);
}

static void refuse(struct tsi *tsi, const struct tsi_request *request, uint32_t reply_port, int result)
{
    if (!tsi_kind_wants_reply(request->kind))
        return;
    /* The guest's kernel then listens by itself, which is what "not allowed" means for a family that is not ours. */
    if (request->kind == TSI_LISTEN && result == -EAFNOSUPPORT)
        result = -EPERM;
    if (request->kind == TSI_GETNAME)
        answer_name(tsi, reply_port, result, NULL);
    else
        tsi_answer(tsi, request->kind, reply_port, result);
}

static void serve(struct tsi_socket *socket, const struct tsi_request *request, uint32_t reply_port)
{
    switch (request->kind) {
    case TSI_CONNECT:
        take_connect(socket, request, reply_port);
        break;
    case TSI_GETNAME:
        take_getname(socket, request, reply_port);
        break;
    case TSI_SENDTO_ADDRESS:
        tsi_datagram_aim(socket, request);
        break;
    case TSI_LISTEN:
        tsi_listen(socket, request, reply_port);
        break;
    case TSI_ACCEPT:
        tsi_accept(socket, request, reply_port);
        break;
    case TSI_CREATE:
    case TSI_SENDTO_DATA:
    case TSI_RELEASE:
        break;
    }
}

static void take_control(struct tsi *tsi, uint32_t reply_port, enum tsi_kind kind, const uint8_t *bytes, size_t length)
{
    struct tsi_request request;
    int result = tsi_request_decode(kind, bytes, length, &request);
    /* An address that cannot be read is one to which nothing is sent. */
    if (result < 0 && kind != TSI_SENDTO_ADDRESS) {
        refuse(tsi, &request, reply_port, result);
        return;
    }
    if (kind == TSI_CREATE) {
        take_create(tsi, &request);
        return;
    }
    if (kind == TSI_RELEASE) {
        take_release(tsi, &request);
        return;
    }
    uint32_t host_port = kind == TSI_GETNAME ? request.peer_port : TSI_STREAM_PORT;
    struct tsi_socket *socket = tsi_find(tsi, request.guest_port, host_port);
    if (socket == NULL)
        refuse(tsi, &request, reply_port, -ENOBUFS); /* a guest that created it met the limit */
    else if (socket->state == TSI_BARRED)
        refuse(tsi, &request, reply_port, socket->failure);
    else
        serve(socket, &request, reply_port);
}

bool tsi_take_datagram(struct tsi *tsi, uint32_t guest_port, uint32_t host_port, const uint8_t *bytes, size_t length)
{
    if (tsi->loop == NULL)
        return false;
    if (host_port != TSI_SENDTO_DATA && tsi_kind_is_known(host_port)) {
        take_control(tsi, guest_port, (enum tsi_kind)host_port, bytes, length);
        return true;
    }
    /* A datagram socket that was connected sends to a port of its own number. */
    struct tsi_socket *socket = tsi_find(tsi, guest_port, TSI_STREAM_PORT);
    bool is_ours = socket != NULL && socket->is_datagram;
    if (is_ours && (host_port == TSI_SENDTO_DATA || host_port == guest_port))
        tsi_datagram_send(socket, bytes, length, host_port == TSI_SENDTO_DATA);
    return host_port == TSI_SENDTO_DATA || (is_ours && host_port == guest_port);
}

int tsi_take_stream(struct tsi *tsi, uint32_t guest_port, uint32_t host_port)
{
    struct tsi_socket *socket = tsi->loop != NULL ? tsi_find(tsi, guest_port, host_port) : NULL;
    return socket != NULL ? tsi_stream_take(socket) : -ECONNREFUSED;
}

void tsi_stream_refused(struct tsi *tsi, uint32_t guest_port, uint32_t host_port)
{
    struct tsi_socket *socket = tsi_find(tsi, guest_port, host_port);
    if (socket != NULL && host_port != TSI_STREAM_PORT)
        tsi_remove(socket);
}

/* ---- the whole ---- */

int tsi_new(struct vsock *vsock, const struct tsi_options *options, struct tsi **ret_tsi)
{
    auto_free struct tsi *tsi = alloc_zero(sizeof(*tsi));
    if (tsi == NULL)
        return -ENOMEM;
    if (options->port_count > LIMIT_PORTS)
        return -E2BIG;
    int result = tsi_policy_read(options, &tsi->policy);
    if (result < 0)
        return result;
    tsi->vsock = vsock;
    tsi->hijacks_inet = options->hijacks_inet;
    tsi->hijacks_unix = options->hijacks_unix;
    tsi->has_port_map = options->has_port_map;
    if (options->port_count > 0) {
        tsi->ports = alloc_zero(options->port_count * sizeof(tsi->ports[0]));
        if (tsi->ports == NULL)
            return -ENOMEM;
        memcpy(tsi->ports, options->ports, options->port_count * sizeof(tsi->ports[0]));
        tsi->port_count = options->port_count;
    }
    *ret_tsi = steal_ptr(tsi);
    return 0;
}

void tsi_start(struct tsi *tsi, struct loop *loop)
{
    assert(tsi->loop == NULL);
    tsi->loop = loop;
}

void tsi_stop(struct tsi *tsi)
{
    for (size_t i = 0; i < TSI_BUCKETS; i++)
        while (tsi->buckets[i] != NULL)
            tsi_drop(tsi->buckets[i]);
    assert(tsi->socket_count == 0 && tsi->resting_count == 0);
    tsi->rest_timer = loop_source_free(tsi->rest_timer);
    free(steal_ptr(tsi->datagram));
    tsi->loop = NULL;
}

struct tsi *tsi_free(struct tsi *tsi)
{
    if (tsi == NULL)
        return NULL;
    tsi_stop(tsi);
    free(tsi->ports);
    free(tsi);
    return NULL;
}
