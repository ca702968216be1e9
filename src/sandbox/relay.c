// SPDX-License-Identifier: Apache-2.0
/* The relay: many clients speak to one agent at once.
 *
 *     client 1 ──┐  id 3         id 1:3   ┌──────────┐
 *     client 2 ──┼─────────> relay ══════>│  agent   │     one stream of frames
 *     client 7 ──┘  id 1         id 7:1   └──────────┘
 *
 * A client has a number, which the relay puts into the upper 16 bits of the ids of its frames and takes out of those of
 * the answers. Frames pass whole: a client that is stopped in the middle of one holds up nobody. Frames that stand side
 * by side and go to the same place go in one system call, from where they were read.
 *
 * A client that does not read: what is for it waits in a queue, which its windows bound; past LIMIT_RELAY_CLIENT_BYTES,
 * or when all queues together are past LIMIT_RELAY_BYTES and its own is the longest, it is cut off. An agent that does
 * not read: clients that speak to it are not read any more. Others are, a little at a time, so that a guest that has
 * stopped can be stopped.
 *
 *     a number:  free ──connect──> used ──gone, no sessions──> free
 *                                   └──gone, GONE──> left over ──LAST of its last session──> free
 *
 * A number is used again only when the agent has answered all of its sessions, so that no client gets another's frames;
 * and numbers are taken in turn, so that it takes long in any case. The agent answers at once when it hears GONE, also
 * for a session that goes on without its client.
 *
 * Invariants: (1) a client reaches sessions of its own number only, and kinds that a client may send. (2) what clients
 * send is refused, or ends their connection; nothing of it ends the relay, or the agent: it gets whole messages only.
 * (3) whatever the agent sends that is no frame of an agent ends the relay, once. (4) nothing waits. (5) a client that
 * is gone is freed when nothing of it is on the stack any more. (6) a client hears from the agent only while it has
 * asked it for something, and never in its session with the process.
 *
 * Trust: clients run under our user or root, and are not trusted to keep the protocol; the agent is a hostile guest's.
 */
#include "sandbox/relay_private.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    most_number = UINT16_MAX,
    room_bytes = 256 << 10,
    little_room_bytes = 4 << 10, /* for requests of own kinds, while the agent does not read */
    socket_buffer_bytes = 1 << 20,
};

/* ---- clients ---- */

static void unlink_client(struct relay_client *client)
{
    if (client->previous != NULL)
        client->previous->next = client->next;
    else
        client->relay->clients = client->next;
    if (client->next != NULL)
        client->next->previous = client->previous;
}

static void listen_again(struct relay *relay)
{
    if (!relay->is_serving || relay->is_listening || relay->counters.clients >= LIMIT_RELAY_CLIENTS)
        return;
    relay->is_listening = loop_set_events(relay->listen_source, EPOLLIN) == 0;
}

static void tell_gone(struct relay *relay, uint16_t number)
{
    const struct agent_message gone = {.id = (uint32_t)number << 16, .kind = AGENT_GONE};
    relay_tell_agent(relay, &gone);
}

/* The client's memory lives until bury, for somebody on the stack may hold it. */
static void drop_client(struct relay_client *client)
{
    struct relay *relay = client->relay;
    if (client->is_gone)
        return;
    client->is_gone = true;
    if (relay->run.client == client)
        relay->run = (struct run){0};
    channel_close(&client->channel);
    relay->numbers[client->number].client = NULL;
    relay->counters.clients--;
    unlink_client(client);
    client->next = relay->gone;
    relay->gone = client;
    if (!relay->is_ending)
        relay->ops->client_gone(relay->user, client);
    if (relay->numbers[client->number].sessions > 0)
        tell_gone(relay, client->number);
    log_debug("relay.client_gone", LOG_UINT("number", client->number));
    listen_again(relay);
}

void relay_cut_off(struct relay_client *client)
{
    if (client->is_gone)
        return;
    client->relay->counters.cut_off++;
    log_warn("relay.client_cut_off", LOG_UINT("number", client->number),
             LOG_UINT("bytes", channel_held_bytes(&client->channel)));
    drop_client(client);
}

static void bury(struct relay *relay)
{
    while (relay->gone != NULL) {
        struct relay_client *client = relay->gone;
        relay->gone = client->next;
        free(client);
    }
}

/* Where all hold too much together, the one that holds most of it goes. */
static void relieve(struct relay *relay)
{
    while (relay->held_bytes > LIMIT_RELAY_BYTES) {
        struct relay_client *greatest = relay->clients;
        for (struct relay_client *client = relay->clients; client != NULL; client = client->next)
            if (channel_held_bytes(&client->channel) > channel_held_bytes(&greatest->channel))
                greatest = client;
        relay_cut_off(greatest);
    }
}

bool relay_send_to_client(struct relay_client *client, const struct iovec *parts, size_t count)
{
    if (client->is_gone)
        return false;
    int result = channel_send(&client->channel, parts, count);
    if (result == -EPIPE || result == -ECONNRESET)
        drop_client(client);
    else if (result < 0)
        relay_cut_off(client);
    relieve(client->relay);
    return !client->is_gone;
}

/* ---- the agent's end ---- */

static void fail(struct relay *relay, int result)
{
    if (relay->has_failed)
        return;
    relay->has_failed = true;
    channel_close(&relay->agent);
    log_warn("relay.agent_failed", LOG_ERRNO(result));
    relay->ops->agent_failed(relay->user, result);
}

int relay_send_to_agent(struct relay *relay, const struct iovec *parts, size_t count)
{
    if (relay->has_failed)
        return -EPIPE;
    int result = channel_send(&relay->agent, parts, count);
    if (result < 0)
        fail(relay, result == -EPIPE || result == -ECONNRESET ? 0 : result);
    return result;
}

static bool is_agent_full(const struct relay *relay)
{
    return channel_queued_bytes(&relay->agent) > LIMIT_RELAY_AGENT_BYTES;
}

/* The agent has read: so may we. */
static void release_clients(struct relay *relay)
{
    for (struct relay_client *client = relay->clients; client != NULL; client = client->next) {
        if (!client->is_held)
            continue;
        client->is_held = false;
        channel_set_reading(&client->channel, true);
    }
}

static void hold(struct relay_client *client)
{
    client->is_held = true;
    channel_set_reading(&client->channel, false);
}

/* ---- runs of frames ---- */

void relay_flush_run(struct relay *relay)
{
    const struct run run = relay->run;
    const struct iovec part = {run.bytes, run.length};
    relay->run = (struct run){0};
    if (run.to == &relay->agent)
        relay_send_to_agent(relay, &part, 1);
    else if (run.to != NULL)
        relay_send_to_client(run.client, &part, 1);
}

/* The frame goes with those before it if it stands behind them; one that does not lie in the room is gone when the
 * function returns that got it. */
static void add_to_run(struct relay *relay, struct channel *to, struct relay_client *client, uint8_t *frame,
                       size_t length)
{
    struct run *run = &relay->run;
    if (run->to == to && run->bytes + run->length == frame) {
        run->length += length;
        return;
    }
    relay_flush_run(relay);
    if (client != NULL && client->is_gone)
        return;
    *run = (struct run){.to = to, .client = client, .bytes = frame, .length = length};
    if (frame < relay->room || frame >= relay->room + room_bytes)
        relay_flush_run(relay);
}

/* ---- from the agent ---- */

static void note_ready(struct relay *relay, const uint8_t *frame, size_t length)
{
    if (relay->ready.length == 0)
        buffer_add(&relay->ready, frame, length);
}

static void take_for_process(struct relay *relay, const struct agent_header *header, const uint8_t *frame,
                             size_t length)
{
    struct agent_message message;
    relay_flush_run(relay);
    if (agent_decode(header, frame + AGENT_HEADER_BYTES, &message) < 0) {
        fail(relay, -EPROTO);
        return;
    }
    if (message.kind == AGENT_READY)
        note_ready(relay, frame, length);
    else if (message.kind != AGENT_HEARTBEAT)
        relay->counters.frames++;
    relay->ops->agent_message(relay->user, &message);
}

static void take_agent_frame(void *user, const struct agent_header *header, uint8_t *frame, size_t length)
{
    struct relay *relay = user;
    if (!agent_is_from_agent(header->kind)) {
        fail(relay, -EPROTO);
        return;
    }
    uint16_t number = (uint16_t)(header->id >> 16);
    relay->counters.from_agent_bytes += length;
    if (number == 0) {
        take_for_process(relay, header, frame, length);
        return;
    }
    struct number *entry = &relay->numbers[number];
    bool is_asked = entry->sessions > 0;
    relay->counters.frames++;
    if ((header->flags & AGENT_LAST) != 0 && is_asked)
        entry->sessions--;
    if (entry->client == NULL) /* it went while this was on its way */
        return;
    if (!is_asked || entry->client->own_id == (header->id & UINT16_MAX)) /* a guest would answer in our place */
        return;
    agent_set_id(frame, header->id & UINT16_MAX);
    add_to_run(relay, &entry->client->channel, entry->client, frame, length);
}

static void handle_agent(void *user, uint32_t what)
{
    struct relay *relay = user;
    int result = 1;
    if ((what & EPOLLOUT) != 0)
        result = channel_flush(&relay->agent);
    if (result == 0) /* which is not the end of input here */
        result = 1;
    if (result > 0 && !is_agent_full(relay))
        release_clients(relay);
    if (result >= 0 && (what & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
        result = channel_receive(&relay->agent, relay->room, room_bytes, take_agent_frame, relay);
        relay_flush_run(relay);
        relieve(relay);
        if (result <= 0 && result != -EAGAIN)
            fail(relay, result == -ECONNRESET ? 0 : result);
    } else if (result < 0) {
        fail(relay, result == -EPIPE || result == -ECONNRESET ? 0 : result);
    }
    bury(relay);
}

/* ---- from clients ---- */

/* An agent that gets what is no message takes it for the host's end. So the whole frame is looked at here. */
static bool is_sound(const struct agent_header *header, const uint8_t *frame, struct agent_message *ret_message)
{
    return agent_is_from_client(header->kind) && header->id >> 16 == 0 &&
           agent_decode(header, frame + AGENT_HEADER_BYTES, ret_message) == 0;
}

/* What a client may ask of an agent but not of this one: to be the main program. */
static bool is_forbidden(const struct agent_message *message)
{
    return message->kind == AGENT_EXEC && (message->exec.flags & AGENT_EXEC_MAIN) != 0;
}

static void forward(struct relay_client *client, const struct agent_message *message, uint8_t *frame, size_t length)
{
    struct relay *relay = client->relay;
    if (channel_queued_bytes(&relay->agent) + length > LIMIT_RELAY_BYTES / 2 || is_forbidden(message)) {
        relay_cut_off(client);
        return;
    }
    if (agent_begins_session(message->kind))
        relay->numbers[client->number].sessions++;
    client->has_forwarded = true;
    relay->counters.frames++;
    relay->counters.to_agent_bytes += length;
    agent_set_id(frame, (uint32_t)client->number << 16 | message->id);
    add_to_run(relay, &relay->agent, NULL, frame, length);
}

static void take_client_frame(void *user, const struct agent_header *header, uint8_t *frame, size_t length)
{
    struct relay_client *client = user;
    struct relay *relay = client->relay;
    struct agent_message message;
    if (!is_sound(header, frame, &message)) {
        log_warn("relay.client_refused", LOG_UINT("number", client->number), LOG_UINT("kind", header->kind));
        drop_client(client);
        return;
    }
    bool is_ours = (unsigned)header->kind >= AGENT_FIRST_OWN ||
                   (client->own_id == header->id && !agent_begins_session(header->kind));
    if (!is_ours) {
        forward(client, &message, frame, length);
        return;
    }
    relay_flush_run(relay);
    if ((unsigned)header->kind < AGENT_FIRST_OWN) { /* who only asks how it is does not use it */
        relay->counters.frames++;
        client->has_forwarded = true; /* through the process: input, signals, sizes */
    }
    relay->ops->client_message(relay->user, client, &message);
}

static int read_client(struct relay_client *client)
{
    struct relay *relay = client->relay;
    bool is_full = is_agent_full(relay);
    if (is_full && client->has_forwarded) {
        hold(client);
        return 1;
    }
    size_t size = is_full ? little_room_bytes : room_bytes;
    int result = channel_receive(&client->channel, relay->room, size, take_client_frame, client);
    relay_flush_run(relay);
    return result;
}

static void handle_client(void *user, uint32_t what)
{
    struct relay_client *client = user;
    struct relay *relay = client->relay;
    int result = 1;
    if ((what & EPOLLOUT) != 0)
        result = channel_flush(&client->channel);
    if ((what & EPOLLOUT) != 0 && result == 0 && channel_queued_bytes(&client->channel) == 0)
        relay->ops->client_caught_up(relay->user, client);
    if (client->is_gone)
        result = -EPIPE;
    else if (result == 0)
        result = 1;
    if (result >= 0 && (what & EPOLLIN) != 0)
        result = read_client(client);
    else if (result >= 0 &&
             (what & (EPOLLHUP | EPOLLERR)) != 0) /* nothing can be sent to it; what it has sent can wait no longer */
        result = client->is_held || !relay->is_serving ? 0 : read_client(client);
    if (result <= 0 && result != -EAGAIN && !client->is_gone)
        drop_client(client);
    relieve(relay);
    bury(relay);
}

/* ---- connecting ---- */

/* A number that nobody has and whose sessions are answered; 0 when there is none. */
static uint16_t find_number(struct relay *relay)
{
    uint16_t number = relay->last_number;
    for (unsigned tries = 0; tries < most_number; tries++) {
        number = number == most_number ? 1 : (uint16_t)(number + 1);
        if (relay->numbers[number].client == NULL && relay->numbers[number].sessions == 0)
            return relay->last_number = number;
    }
    return 0;
}

static void begin_client(struct relay_client *client)
{
    struct relay *relay = client->relay;
    const struct iovec ready = {relay->ready.data, relay->ready.length};
    if (ready.iov_len == 0 || relay_send_to_client(client, &ready, 1))
        channel_set_reading(&client->channel, true);
}

static int connect_client(struct relay *relay, int *fd, struct relay_client **ret_client)
{
    uint16_t number = find_number(relay);
    if (number == 0 || relay->counters.clients >= LIMIT_RELAY_CLIENTS)
        return -EUSERS;
    struct relay_client *client = alloc_zero(sizeof(*client));
    if (client == NULL)
        return -ENOMEM;
    client->relay = relay;
    client->number = number;
    int result = channel_open(&client->channel, *fd, LIMIT_RELAY_CLIENT_BYTES, &relay->held_bytes, relay->loop,
                              handle_client, client);
    if (result < 0) {
        free(client);
        return result;
    }
    steal_fd(fd); /* the channel has it */
    client->next = relay->clients;
    if (relay->clients != NULL)
        relay->clients->previous = client;
    relay->clients = client;
    relay->numbers[number].client = client;
    relay->counters.clients++;
    *ret_client = client;
    if (relay->is_serving)
        begin_client(client);
    return 0;
}

int relay_add_client(struct relay *relay, int fd, struct relay_client **ret_client)
{
    auto_close int own = fd;
    return connect_client(relay, &own, ret_client);
}

/* The folder keeps others out already; this is for a folder whose modes somebody has changed. */
static bool may_connect(const struct relay *relay, int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && (peer.uid == relay->uid || peer.uid == 0);
}

static void stop_listening(struct relay *relay)
{
    relay->is_listening = loop_set_events(relay->listen_source, 0) < 0;
}

static void handle_connection(void *user, uint32_t what)
{
    struct relay *relay = user;
    (void)what;
    auto_close int fd = accept4(relay->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
        log_warn("relay.no_room", LOG_ERRNO(errno));
        stop_listening(relay); /* for a while: it would be reported again and again */
    }
    if (fd < 0)
        return;
    struct relay_client *client = NULL;
    int result = may_connect(relay, fd) ? connect_client(relay, &fd, &client) : -EPERM;
    if (result < 0) {
        relay->counters.refused++;
        log_warn("relay.refused", LOG_ERRNO(result));
    }
    if (relay->counters.clients >= LIMIT_RELAY_CLIENTS)
        stop_listening(relay); /* who connects now waits */
    bury(relay);
}

void relay_serve(struct relay *relay)
{
    struct relay_client *next;
    relay->is_serving = true;
    for (struct relay_client *client = relay->clients; client != NULL; client = next) {
        next = client->next;
        begin_client(client);
    }
    listen_again(relay);
}

void relay_tend(struct relay *relay)
{
    listen_again(relay);
}

void relay_count(const struct relay *relay, struct relay_counters *ret_counters)
{
    *ret_counters = relay->counters;
    ret_counters->sessions = 0;
    for (const struct relay_client *client = relay->clients; client != NULL; client = client->next)
        ret_counters->sessions += relay->numbers[client->number].sessions;
}

/* ---- life ---- */

static int make_socket(struct relay *relay)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" RELAY_SOCKET, relay->folder);
    if (unlinkat(relay->folder, RELAY_SOCKET, 0) < 0 && errno != ENOENT)
        return -errno;
    relay->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (relay->listen_fd < 0 || bind(relay->listen_fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(relay->listen_fd, LIMIT_RELAY_CLIENTS) < 0)
        return -errno;
    return loop_add_fd(relay->loop, relay->listen_fd, 0, handle_connection, relay, &relay->listen_source);
}

/* As much as the host allows; less of it makes more turns. */
static void widen(int fd)
{
    static const int size = socket_buffer_bytes;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

static int assemble(struct relay *relay, int *agent_fd)
{
    relay->numbers = alloc_zero((most_number + 1) * sizeof(relay->numbers[0]));
    relay->room = alloc_zero(room_bytes);
    if (relay->numbers == NULL || relay->room == NULL)
        return -ENOMEM;
    int result = channel_open(&relay->agent, *agent_fd, LIMIT_RELAY_BYTES, NULL, relay->loop, handle_agent, relay);
    if (result < 0)
        return result;
    widen(steal_fd(agent_fd));
    result = channel_set_reading(&relay->agent, true);
    return result < 0 ? result : make_socket(relay);
}

int relay_new(const struct relay_options *options, struct relay **ret_relay)
{
    auto_close int agent_fd = options->agent_fd;
    struct relay *relay = alloc_zero(sizeof(*relay));
    if (relay == NULL)
        return -ENOMEM;
    *relay = (struct relay){
        .loop = options->loop,
        .ops = options->ops,
        .user = options->user,
        .folder = options->folder,
        .agent = CHANNEL_NONE,
        .listen_fd = -1,
        .uid = geteuid(),
        .ready = BUFFER_INIT(AGENT_HEADER_BYTES + AGENT_MOST_DATA_BYTES),
        .encoded = BUFFER_INIT(AGENT_HEADER_BYTES + AGENT_MOST_BODY_BYTES),
    };
    int result = assemble(relay, &agent_fd);
    if (result < 0) {
        relay_free(relay);
        return result;
    }
    *ret_relay = relay;
    return 0;
}

void relay_close_doors(struct relay *relay)
{
    relay->is_serving = false; /* for listen_again */
    if (relay->listen_source != NULL)
        unlinkat(relay->folder, RELAY_SOCKET, 0);
    relay->listen_source = loop_source_free(relay->listen_source);
    relay->listen_fd = fd_close(relay->listen_fd);
}

struct relay *relay_free(struct relay *relay)
{
    if (relay == NULL)
        return NULL;
    relay->is_ending = relay->has_failed = true; /* nobody is told any more */
    relay_close_doors(relay);
    while (relay->clients != NULL)
        drop_client(relay->clients);
    bury(relay);
    channel_close(&relay->agent);
    buffer_free(&relay->ready);
    buffer_free(&relay->encoded);
    free(relay->numbers);
    free(relay->room);
    free(relay);
    return NULL;
}
