// SPDX-License-Identifier: Apache-2.0
/* A connection to a sandbox's process: whole frames out, one frame at a time in.
 *
 * The descriptor is what the caller's program polls, so what has come must not hide in memory of ours: a frame is read
 * by its header and then its body, never more. A DATA that also ends its stream makes two events of the caller's, so
 * its last byte is only looked at (MSG_PEEK) and stays in the socket until the second one is told.
 *
 * A frame that was begun must be finished, or the connection is lost. So none is begun unless poll(2) says that the
 * socket is writable, which for a Unix socket means that three quarters of its buffer are free (unix_writable in
 * net/unix/af_unix.c): everything but a long EXEC goes at once, and a wait in the middle is bounded.
 *
 * Invariants: (1) between two calls of client_receive we hold a part of a frame at most, and the rest of it is still to
 * come, or the frame that was returned last. (2) what a stream has brought and nobody has consumed is at most its
 * window. (3) frames of several threads are not mixed. (4) no SIGPIPE, and no wait but poll's.
 *
 * Trust: the sandbox's process is ours, but a guest may have taken it over, and what it passes on is the guest's.
 * Frames are decoded strictly, lengths bounded by their kind before memory is taken.
 */
#include "sandbox/client.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    send_buffer_bytes = 256 << 10, /* a frame of DATA fits into a quarter of what the kernel makes of it */
    least_body_bytes = 4 << 10,    /* what is taken for a body at least, so that it rarely has to grow */
    any_body_bytes = 80 << 10,     /* what anything but a report may be long */
};

uint64_t client_deadline_ns(uint64_t timeout_ms)
{
    uint64_t timeout_ns = 0;
    if (timeout_ms == VIAL_WAIT_FOREVER || __builtin_mul_overflow(timeout_ms, CLOCK_NS_PER_MS, &timeout_ns))
        return CLOCK_NEVER;
    return clock_deadline_ns(timeout_ns);
}

/* ---- errors ---- */

int client_errno(struct vial_error *err, int os_error)
{
    if (err != NULL)
        err->os_error = os_error;
    return -os_error;
}

/* In the words of errno, too. */
static int fail(const struct client *client, int result, const char *what, struct vial_error *err)
{
    return error_set_os(err, VIAL_PHASE_RUN, result, "sandbox \"%s\": %s", client->name, what);
}

static int fail_plainly(const struct client *client, int os_error, const char *what, struct vial_error *err)
{
    error_set(err, VIAL_ERROR_OS, VIAL_PHASE_RUN, "sandbox \"%s\": %s", client->name, what);
    return client_errno(err, os_error);
}

static int fail_timeout(const struct client *client, struct vial_error *err)
{
    return fail_plainly(client, ETIMEDOUT, "nothing has come in time", err);
}

static int fail_gone(const struct client *client, struct vial_error *err)
{
    fail_plainly(client, ECONNRESET, "its process has ended the connection", err);
    error_remedy(err, "see how the sandbox has ended (vial inspect), and what its process has logged");
    return -ECONNRESET;
}

static int fail_protocol(const struct client *client, const char *what, struct vial_error *err)
{
    fail_plainly(client, EPROTO, what, err);
    error_remedy(err, "do not trust that guest any more: it does not speak as its agent does");
    return -EPROTO;
}

int client_failed(const struct client *client, const char *action, const struct agent_message *message,
                  struct vial_error *err)
{
    int os_error = message->failed.os_error != 0 ? (int)message->failed.os_error : EIO;
    const struct agent_span *said = &message->failed.message;
    error_set_os(err, VIAL_PHASE_RUN, os_error, "sandbox \"%s\": %s%s%.*s", client->name, error_short(action).text,
                 said->length > 0 ? ": " : "", (int)(said->length < 128 ? said->length : 128),
                 said->length > 0 ? said->bytes : "");
    error_field(err, "%s", agent_stage_name((enum agent_stage)message->failed.stage));
    return os_error == ETIMEDOUT ? -EIO : -os_error; /* the other one means: try again */
}

/* ---- waiting ---- */

static int remaining_ms(uint64_t deadline_ns)
{
    if (deadline_ns == CLOCK_NEVER)
        return -1;
    uint64_t now_ns = clock_now_ns();
    if (now_ns >= deadline_ns)
        return 0;
    uint64_t left_ms = (deadline_ns - now_ns + CLOCK_NS_PER_MS - 1) / CLOCK_NS_PER_MS;
    return left_ms > INT32_MAX ? INT32_MAX : (int)left_ms;
}

/* 0, or -ETIMEDOUT, or -errno. */
static int wait_for(int fd, short events, uint64_t deadline_ns)
{
    struct pollfd ready = {.fd = fd, .events = events};
    for (;;) {
        int left_ms = remaining_ms(deadline_ns), count = poll(&ready, 1, left_ms);
        if (count > 0)
            return 0;
        if (count < 0 && errno != EINTR)
            return -errno;
        if (count == 0 && left_ms == 0)
            return -ETIMEDOUT;
    }
}

/* ---- life ---- */

void client_adopt(struct client *client, int fd, const char *name)
{
    int bytes = send_buffer_bytes;
    client->fd = fd;
    snprintf(client->name, sizeof(client->name), "%s", name);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)); /* as far as the host allows */
}

static int connect_beneath(int fd, int folder)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/relay.sock", folder);
    while (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

int client_open(int folder, const char *name, struct client *client, struct vial_error *err)
{
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set_os(err, VIAL_PHASE_RUN, errno, "cannot make a socket for sandbox \"%s\"", name);
    /* A full queue of a process that is stopped must not hold us for ever: the kernel waits as long as a send may. */
    const struct timeval most = {.tv_sec = CLIENT_FRAME_MOST_MS / 1000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof(most));
    int result = connect_beneath(fd, folder);
    if (result == -ENOENT || result == -ECONNREFUSED || result == -ENOTDIR) {
        error_set(err, VIAL_ERROR_OS, VIAL_PHASE_RUN, "sandbox \"%s\" does not run", name);
        error_remedy(err, "start it first (vial start)");
        return client_errno(err, ESRCH);
    }
    if (result < 0)
        return error_set_os(err, VIAL_PHASE_RUN, result, "cannot reach the process of sandbox \"%s\"", name);
    client_adopt(client, steal_fd(&fd), name);
    return 0;
}

void client_close(struct client *client)
{
    client->fd = fd_close(client->fd);
    free(client->body);
    client->body = NULL;
}

/* ---- sending ---- */

/* The rest of what was begun. */
static int send_rest(int fd, struct iovec *spans, size_t count)
{
    uint64_t deadline_ns = clock_deadline_ns(CLIENT_FRAME_MOST_MS * CLOCK_NS_PER_MS);
    struct msghdr message = {.msg_iov = spans, .msg_iovlen = count};
    while (message.msg_iovlen > 0) {
        ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN) {
            int result = wait_for(fd, POLLOUT, deadline_ns);
            if (result < 0)
                return result == -ETIMEDOUT ? -EPIPE : result; /* half a frame is no connection any more */
        } else if (sent < 0 && errno != EINTR) {
            return -errno;
        }
        for (; sent > 0 && (size_t)sent >= message.msg_iov->iov_len; message.msg_iov++, message.msg_iovlen--)
            sent -= (ssize_t)message.msg_iov->iov_len;
        if (sent > 0) {
            message.msg_iov->iov_base = (char *)message.msg_iov->iov_base + sent;
            message.msg_iov->iov_len -= (size_t)sent;
        }
        while (message.msg_iovlen > 0 && message.msg_iov->iov_len == 0)
            message.msg_iov++, message.msg_iovlen--;
    }
    return 0;
}

/* Waits without the lock: somebody else may have a frame that does not wait. */
static int send_frame(struct client *client, struct iovec *spans, size_t count, uint64_t deadline_ns,
                      struct vial_error *err)
{
    for (;;) {
        pthread_mutex_lock(&client->sending);
        int result = wait_for(client->fd, POLLOUT, 0);
        bool has_room = result == 0;
        if (has_room)
            result = send_rest(client->fd, spans, count);
        if (has_room && result < 0)
            shutdown(client->fd, SHUT_WR); /* nothing may follow half a frame */
        pthread_mutex_unlock(&client->sending);
        if (result == -ECONNRESET || result == -EPIPE)
            return fail_plainly(client, EPIPE, "its process takes no more", err);
        if (result != -ETIMEDOUT)
            return result < 0 ? fail(client, result, "cannot send", err) : 0;
        if (wait_for(client->fd, POLLOUT, deadline_ns) == -ETIMEDOUT)
            return fail_plainly(client, ETIMEDOUT, "its process does not take what is sent", err);
    }
}

/* A request says how much may come in each stream. */
static uint32_t window_of(const struct agent_message *message)
{
    if (message->kind == AGENT_EXEC)
        return message->exec.window;
    if (message->kind == AGENT_CONNECT)
        return message->connect.window;
    if (message->kind == AGENT_ATTACH)
        return message->attach.window;
    return message->kind == AGENT_READ || message->kind == AGENT_PULL ? message->file.window : 0;
}

int client_send(struct client *client, struct agent_message *message, uint64_t deadline_ns, struct vial_error *err)
{
    auto_buffer struct buffer frame = BUFFER_INIT(AGENT_HEADER_BYTES + AGENT_MOST_BODY_BYTES);
    uint32_t window = window_of(message);
    message->id = CLIENT_SESSION;
    int result = agent_encode(message, &frame);
    if (result < 0)
        return fail(client, result, "what was asked for is no request", err);
    if (window != 0) {
        client->flow.window = window;
        client->flow.left[AGENT_STDOUT] = client->flow.left[AGENT_STDERR] = window;
    }
    struct iovec span = {.iov_base = frame.data, .iov_len = frame.length};
    return send_frame(client, &span, 1, deadline_ns, err);
}

int client_send_data(struct client *client, const void *bytes, size_t length, bool is_end, uint64_t deadline_ns,
                     struct vial_error *err)
{
    uint8_t prefix[AGENT_DATA_PREFIX_BYTES];
    size_t prefix_bytes = agent_data_prefix(CLIENT_SESSION, AGENT_STDIN, is_end ? AGENT_END : 0, length, prefix);
    struct iovec spans[] = {{.iov_base = prefix, .iov_len = prefix_bytes}, {.iov_len = length}};
    memcpy(&spans[1].iov_base, &bytes, sizeof(bytes)); /* sendmsg does not write there; the type cannot say so */
    return send_frame(client, spans, length > 0 ? 2 : 1, deadline_ns, err);
}

/* ---- receiving ---- */

/* Reads up to `want` bytes in all: 0 when they are there. */
static int fill(const struct client *client, uint8_t *bytes, size_t *have, size_t want, int flags, uint64_t deadline_ns)
{
    while (*have < want) {
        ssize_t got = recv(client->fd, bytes + *have, want - *have, MSG_DONTWAIT | flags);
        if (got > 0) {
            *have += (size_t)got;
            continue;
        }
        if (got == 0)
            return -ECONNRESET;
        int result = errno == EAGAIN ? wait_for(client->fd, POLLIN, deadline_ns) : errno == EINTR ? 0 : -errno;
        if (result < 0)
            return result;
    }
    return 0;
}

void client_finish(struct client *client)
{
    uint8_t byte;
    size_t have = 0;
    if (client->has_byte_left)
        fill(client, &byte, &have, 1, 0, 0); /* it is there */
    client->has_byte_left = false;
}

static bool may_come(const struct agent_header *head)
{
    if (head->kind == AGENT_READY || head->kind == AGENT_HEARTBEAT)
        return true;
    return head->id == CLIENT_SESSION && (agent_is_from_agent(head->kind) || head->kind == AGENT_REPORT);
}

static int receive_head(struct client *client, uint64_t deadline_ns, struct vial_error *err)
{
    int result = fill(client, client->head_bytes, &client->head_got, AGENT_HEADER_BYTES, 0, deadline_ns);
    if (result < 0)
        return result;
    result = agent_decode_header(client->head_bytes, &client->head);
    if (result < 0 || !may_come(&client->head))
        return fail_protocol(client, "it has sent what is no frame of this session", err);
    size_t most = client->head.kind == AGENT_REPORT ? AGENT_MOST_BODY_BYTES : any_body_bytes;
    if (client->head.body_bytes > most)
        return fail_protocol(client, "it has sent a frame that is too long", err);
    return 0;
}

static int make_room(struct client *client)
{
    size_t need = client->head.body_bytes;
    if (client->body != NULL && need <= client->capacity)
        return 0;
    need = need < least_body_bytes ? least_body_bytes : need;
    uint8_t *body = alloc_zero(need);
    if (body == NULL)
        return -ENOMEM;
    free(client->body);
    client->body = body;
    client->capacity = need;
    return 0;
}

/* All but the last byte of a DATA with AGENT_END, which is only looked at. */
static int receive_body(struct client *client, uint64_t deadline_ns)
{
    size_t length = client->head.body_bytes;
    bool leaves_byte = client->head.kind == AGENT_DATA && (client->head.flags & AGENT_END) != 0 && length > 0;
    int result = client->body_got == 0 ? make_room(client) : 0;
    if (result == 0)
        result = fill(client, client->body, &client->body_got, leaves_byte ? length - 1 : length, 0, deadline_ns);
    if (result == 0 && leaves_byte) {
        size_t have = client->body_got;
        result = fill(client, client->body, &have, length, MSG_PEEK, deadline_ns);
        client->has_byte_left = result == 0;
    }
    return result;
}

/* One frame whole, decoded. */
static int receive_frame(struct client *client, uint64_t deadline_ns, struct agent_message *ret_message,
                         struct vial_error *err)
{
    client_finish(client);
    bool has_head = client->head_got == AGENT_HEADER_BYTES;
    int result = has_head ? 0 : receive_head(client, deadline_ns, err);
    if (result == 0)
        result = receive_body(client, deadline_ns);
    if (result == -ETIMEDOUT)
        return fail_timeout(client, err);
    if (result == -ECONNRESET)
        return fail_gone(client, err);
    if (result < 0)
        return result == -EPROTO ? result : fail(client, result, "cannot receive", err);
    client->head_got = client->body_got = 0;
    if (agent_decode(&client->head, client->body, ret_message) < 0)
        return fail_protocol(client, "it has sent what is no message", err);
    return 0;
}

int client_receive(struct client *client, uint64_t deadline_ns, struct agent_message *ret_message,
                   struct vial_error *err)
{
    struct agent_message message;
    int result = receive_frame(client, deadline_ns, &message, err);
    if (result < 0)
        return result;
    if (message.kind == AGENT_READY && message.ready.version != AGENT_VERSION)
        return fail_protocol(client, "its agent speaks another version", err);
    *ret_message = message;
    return 0;
}

int client_peek(struct client *client, enum agent_kind *ret_kind)
{
    uint8_t bytes[AGENT_HEADER_BYTES];
    struct agent_header head = client->head;
    client_finish(client);
    if (client->head_got < AGENT_HEADER_BYTES) {
        size_t have = client->head_got;
        memcpy(bytes, client->head_bytes, have);
        if (fill(client, bytes, &have, AGENT_HEADER_BYTES, MSG_PEEK, 0) < 0 || agent_decode_header(bytes, &head) < 0)
            return -EAGAIN; /* what is broken is for client_receive to tell */
    }
    *ret_kind = head.kind;
    return 0;
}

/* ---- the flow ---- */

static int account_data(struct client *client, const struct agent_message *message, struct vial_error *err)
{
    struct client_flow *flow = &client->flow;
    uint32_t stream = message->data.stream;
    if (stream == AGENT_STDIN || flow->has_ended[stream])
        return fail_protocol(client, "it has sent data of a stream that it does not have", err);
    if (message->data.bytes.length > flow->left[stream])
        return fail_protocol(client, "it has sent more data than it may", err);
    flow->left[stream] -= (uint32_t)message->data.bytes.length;
    flow->has_ended[stream] = (message->flags & AGENT_END) != 0;
    return 0;
}

int client_account(struct client *client, const struct agent_message *message, struct vial_error *err)
{
    struct client_flow *flow = &client->flow;
    flow->is_over = (message->flags & AGENT_LAST) != 0;
    if (message->kind == AGENT_STARTED) {
        if (flow->is_started)
            return fail_protocol(client, "it has started twice", err);
        flow->is_started = true;
        flow->send = message->started.window;
    } else if (message->kind == AGENT_CREDIT) {
        if (message->credit.stream != AGENT_STDIN || message->credit.bytes + (uint64_t)flow->send > AGENT_MOST_WINDOW)
            return fail_protocol(client, "it has granted more than a window may have", err);
        flow->send += message->credit.bytes;
    } else if (message->kind == AGENT_DATA) {
        return account_data(client, message, err);
    }
    return 0;
}

int client_consume(struct client *client, uint32_t stream, size_t length, struct vial_error *err)
{
    struct client_flow *flow = &client->flow;
    flow->owed[stream] += (uint32_t)length;
    if (length == 0 || flow->is_over || flow->has_ended[stream] || flow->owed[stream] < flow->window / 2)
        return 0;
    struct agent_message credit = {.kind = AGENT_CREDIT, .credit = {.stream = stream, .bytes = flow->owed[stream]}};
    /* Half of the window can still come, and with it the next chance, unless all of it is owed. */
    bool must_go = flow->left[stream] == 0;
    int result = client_send(client, &credit, must_go ? client_deadline_ns(CLIENT_FRAME_MOST_MS) : 0, err);
    if (result == -EPIPE || (result == -ETIMEDOUT && !must_go))
        return 0; /* who has closed may have sent something before */
    if (result < 0)
        return result;
    flow->left[stream] += flow->owed[stream];
    flow->owed[stream] = 0;
    return 0;
}

int client_next(struct client *client, const char *action, uint64_t deadline_ns, struct agent_message *ret_message,
                struct vial_error *err)
{
    struct agent_message message;
    int result = 0;
    do
        result = client_receive(client, deadline_ns, &message, err);
    while (result == 0 && client_is_news(&message));
    if (result == 0)
        result = client_account(client, &message, err);
    if (result == 0 && message.kind == AGENT_FAILED)
        result = client_failed(client, action, &message, err);
    if (result == 0)
        *ret_message = message;
    return result;
}
