// SPDX-License-Identifier: Apache-2.0
/* A relay with an agent and clients that tests play, in a loop that is turned by hand, so that whatever a test has said
 * is worked off in a known order.
 */
#include "relay_world.h"

#include "test.h"

#include "base/buffer.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct loop *loop;
struct relay *relay;
struct session *session;
int folder, agent;
struct frame frame;
struct seen seen;

static void note_agent_message(void *user, const struct agent_message *message)
{
    (void)user;
    seen.agent_messages++;
    if (session != NULL && message->id == SESSION_MAIN_ID)
        seen.result = session_agent_message(session, message);
}

static void note_client_message(void *user, struct relay_client *client, const struct agent_message *message)
{
    (void)user;
    seen.client_messages++;
    seen.kind = message->kind;
    if (session != NULL)
        session_client_message(session, client, message);
}

static void note_gone(void *user, struct relay_client *client)
{
    (void)user;
    seen.gone++;
    if (session != NULL)
        session_client_gone(session, client);
}

static void note_caught_up(void *user, struct relay_client *client)
{
    (void)user;
    (void)client;
}

static void note_failed(void *user, int result)
{
    (void)user;
    seen.failed++;
    seen.result = result;
}

static const struct relay_ops relay_ops = {
    .agent_message = note_agent_message,
    .client_message = note_client_message,
    .client_gone = note_gone,
    .client_caught_up = note_caught_up,
    .agent_failed = note_failed,
};

void turn(int times)
{
    for (; times > 0; times--)
        loop_turn(loop);
}

int begin(void)
{
    int fds[2];
    memset(&seen, 0, sizeof(seen));
    folder = open(test_folder(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (loop_new(&loop) < 0)
        return -ENOMEM;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
        return -errno;
    agent = fds[1];
    const struct relay_options options = {.loop = loop, .folder = folder, .agent_fd = fds[0], .ops = &relay_ops};
    return relay_new(&options, &relay);
}

void end(void)
{
    session = session_free(session);
    relay = relay_free(relay);
    loop = loop_free(loop);
    agent = fd_close(agent);
    folder = fd_close(folder);
}

int join(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" RELAY_SOCKET, folder);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        test_fail(__FILE__, __LINE__, "connect: %s", strerror(errno));
    return fd;
}

void say(int fd, const struct agent_message *message)
{
    struct buffer bytes = BUFFER_INIT(AGENT_HEADER_BYTES + AGENT_MOST_BODY_BYTES);
    if (agent_encode(message, &bytes) < 0 || send(fd, bytes.data, bytes.length, MSG_NOSIGNAL) != (ssize_t)bytes.length)
        test_fail(__FILE__, __LINE__, "a frame could not be said");
    buffer_free(&bytes);
}

void say_kind(int fd, uint32_t id, enum agent_kind kind, uint32_t flags)
{
    const struct agent_message message = {.id = id, .kind = kind, .flags = flags};
    say(fd, &message);
}

void say_data(int fd, uint32_t id, uint32_t stream, uint32_t flags, const void *bytes, size_t length)
{
    const struct agent_message message = {
        .id = id, .kind = AGENT_DATA, .flags = flags, .data = {stream, {bytes, length}}};
    say(fd, &message);
}

static bool read_whole(int fd, void *bytes, size_t length)
{
    for (size_t got = 0; got < length;) {
        ssize_t piece = recv(fd, (uint8_t *)bytes + got, length - got, MSG_DONTWAIT);
        if (piece == 0)
            return false;
        if (piece < 0 && got == 0)
            return false;
        if (piece < 0)
            turn(1); /* the rest is on its way */
        got += piece > 0 ? (size_t)piece : 0;
    }
    return true;
}

/* The next frame into `frame`: its kind, 0 when there is none, -1 for what is none. */
int hear(int fd)
{
    if (!read_whole(fd, frame.bytes, AGENT_HEADER_BYTES))
        return 0;
    if (agent_decode_header(frame.bytes, &frame.header) < 0 ||
        frame.header.body_bytes > sizeof(frame.bytes) - AGENT_HEADER_BYTES ||
        (frame.header.body_bytes > 0 && !read_whole(fd, frame.bytes + AGENT_HEADER_BYTES, frame.header.body_bytes)) ||
        agent_decode(&frame.header, frame.bytes + AGENT_HEADER_BYTES, &frame.message) < 0)
        return -1;
    return (int)frame.header.kind;
}

bool has_ended(int fd)
{
    uint8_t byte;
    return recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0;
}

const struct agent_message ready = {
    .kind = AGENT_READY,
    .ready = {.version = AGENT_VERSION, .cpus = 1, .memory_bytes = 1, .kernel = {"7.3", 3}},
};

int begin_serving(void)
{
    int result = begin();
    if (result < 0)
        return result;
    say(agent, &ready);
    turn(2);
    relay_serve(relay);
    return 0;
}

/* One that has been greeted. */
int join_greeted(void)
{
    int fd = join();
    turn(2);
    if (hear(fd) != AGENT_READY)
        test_fail(__FILE__, __LINE__, "READY did not come");
    return fd;
}
