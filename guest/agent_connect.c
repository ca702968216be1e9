// SPDX-License-Identifier: Apache-2.0
/* Sessions that are a stream to a socket of the guest: TCP on its loopback or at an address, or a Unix socket.
 *
 *     connecting ──> STARTED ──> bytes both ways, each way ends by itself ──> DONE
 *        └── 127.0.0.1 has said no: ::1 is tried
 *
 * The socket has two descriptors, one for each direction, so that each can be waited for by itself.
 *
 * Invariants: (1) DONE comes when both directions are at their end.
 *
 * Trust: the peer is a program of the guest's.
 */
#include "agent.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct connect_session {
    struct session session;
    uint32_t window;
    uint16_t port;
    bool may_try_other, input_is_over;
};

/* ---- addresses ---- */

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un un;
};

/* Its length, or 0 for what is no address. */
static socklen_t make_address(const char *target, uint32_t port, union address *address)
{
    *address = (union address){0};
    if (port == 0) {
        address->un.sun_family = AF_UNIX;
        int length = snprintf(address->un.sun_path, sizeof(address->un.sun_path), "%s", target);
        return length > 0 && (size_t)length < sizeof(address->un.sun_path) ? sizeof(address->un) : 0;
    }
    if (inet_pton(AF_INET, target, &address->v4.sin_addr) == 1) {
        address->v4.sin_family = AF_INET;
        address->v4.sin_port = htons((uint16_t)port);
        return sizeof(address->v4);
    }
    if (inet_pton(AF_INET6, target, &address->v6.sin6_addr) == 1) {
        address->v6.sin6_family = AF_INET6;
        address->v6.sin6_port = htons((uint16_t)port);
        return sizeof(address->v6);
    }
    return 0;
}

/* ---- connecting ---- */

static void begin_streams(struct connect_session *connect)
{
    struct session *session = &connect->session;
    session->input.is_connecting = false;
    int fd = fcntl(session->input.watch.fd, F_DUPFD_CLOEXEC, 3);
    int result = fd < 0 ? -errno : session_add_output(session, 0, fd, connect->window);
    if (result < 0) {
        session_fail(session, AGENT_STAGE_STREAMS, result, "a descriptor is missing");
        return;
    }
    session_grant(session, connect->window);
    session_started(session, 0);
    if (session->input.has_ended) /* as was said before */
        session_close_input(session);
    if (session->input.has_ended)
        shutdown(fd, SHUT_WR);
    connect->input_is_over = session->input.has_ended;
}

/* Begins to connect: a socket in *ret_fd that is connected (0) or will be (-EINPROGRESS). */
static int try_address(const char *target, uint32_t port, int *ret_fd)
{
    union address address;
    socklen_t length = make_address(target, port, &address);
    if (length == 0)
        return port == 0 ? -ENAMETOOLONG : -EINVAL;
    int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int result = connect(fd, &address.any, length) < 0 ? -errno : 0;
    if (result < 0 && result != -EINPROGRESS) {
        close(fd);
        return result;
    }
    *ret_fd = fd;
    return result;
}

static void go_on(struct connect_session *connect, const char *target, int result, int fd)
{
    if (result == 0 || result == -EINPROGRESS)
        session_add_input(&connect->session, fd);
    if (result == 0)
        begin_streams(connect);
    else if (result == -EINPROGRESS)
        session_await_connection(&connect->session);
    else
        session_fail(&connect->session, AGENT_STAGE_CONNECT, result, target);
}

/* Programs listen on either loopback. */
static void try_other(struct connect_session *connect, int failure)
{
    static const char other[] = "::1";
    int fd = -1;
    bool is_tried = connect->may_try_other;
    session_close_input(&connect->session);
    connect->may_try_other = false;
    int result = is_tried ? try_address(other, connect->port, &fd) : failure;
    if (is_tried && result < 0 && result != -EINPROGRESS)
        result = failure; /* the first one says more */
    go_on(connect, "", result, fd);
}

static void connected(struct session *session)
{
    struct connect_session *connect = (struct connect_session *)session;
    int failure = 0;
    socklen_t length = sizeof(failure);
    if (getsockopt(session->input.watch.fd, SOL_SOCKET, SO_ERROR, &failure, &length) < 0)
        failure = errno;
    if (failure == 0)
        begin_streams(connect);
    else
        try_other(connect, -failure);
}

/* ---- the ends ---- */

static void check_end(struct connect_session *connect)
{
    if (connect->input_is_over && session_outputs_are_closed(&connect->session))
        session_done(&connect->session);
}

static void input_done(struct session *session)
{
    struct connect_session *connect = (struct connect_session *)session;
    if (session->input.watch.fd >= 0)
        shutdown(session->input.watch.fd, SHUT_WR);
    connect->input_is_over = true;
    check_end(connect);
}

/* The peer has ended its direction. Where it takes nothing any more either, the next write says so. */
static void output_done(struct session *session)
{
    struct connect_session *connect = (struct connect_session *)session;
    connect->input_is_over |= session->input.watch.fd < 0;
    check_end(connect);
}

static const struct session_ops connect_ops = {
    .connected = connected,
    .input_done = input_done,
    .output_done = output_done,
};

void connect_begin(struct agent *agent, const struct agent_message *message)
{
    static const char loopback[] = "127.0.0.1";
    const struct agent_connect *request = &message->connect;
    struct connect_session *connect = (struct connect_session *)session_new(agent, message->id, &connect_ops,
                                                                            sizeof(*connect));
    if (connect == NULL)
        return;
    char *target = agent_copy_span(&request->target);
    bool is_loopback = request->target.length == 0;
    int fd = -1, result = target == NULL ? -ENOMEM : 0;
    connect->window = request->window;
    connect->port = (uint16_t)request->port;
    connect->may_try_other = is_loopback;
    if (result == 0)
        result = try_address(is_loopback ? loopback : target, request->port, &fd);
    if (is_loopback && result < 0 && result != -EINPROGRESS)
        try_other(connect, result);
    else
        go_on(connect, target != NULL ? target : "", result, fd);
    free(target);
}
