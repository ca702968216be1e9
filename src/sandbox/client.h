// SPDX-License-Identifier: Apache-2.0
/* One connection to a sandbox's process, and the one session on it (proto/agent.h).
 *
 *     struct client client = CLIENT_INIT;
 *     client_open(folder, "web", &client, err);
 *     client_send(&client, &request, deadline_ns, err);
 *     while ((result = client_next(&client, deadline_ns, &message, err)) == 0 && !client.flow.is_over) …
 *     client_close(&client);
 *
 * Every session has a connection of its own, so reading, waiting and backpressure are the kernel's.
 */
#ifndef SANDBOX_CLIENT_H
#define SANDBOX_CLIENT_H

#include "proto/agent.h"
#include "vial/vial.h"

#include <pthread.h>

enum {
    CLIENT_SESSION = 1,           /* the id of the one session */
    CLIENT_FRAME_MOST_MS = 10000, /* for the rest of a frame that was begun, and for an answer that nobody waits for */
};

/* What may flow in the session. */
struct client_flow {
    uint32_t send;                 /* bytes that we may still send in stream 0 */
    uint32_t window;               /* as we have granted it for streams 1 and 2 */
    uint32_t left[AGENT_STREAMS];  /* of that: bytes that may still come */
    uint32_t owed[AGENT_STREAMS];  /* bytes that were consumed, and not yet granted again */
    bool has_ended[AGENT_STREAMS]; /* nothing more may come */
    bool is_started, is_over;
};

struct client {
    int fd; /* owned; -1: none */
    char name[VIAL_SANDBOX_NAME_SIZE];
    pthread_mutex_t sending; /* one frame at a time */
    struct client_flow flow; /* guarded by the client's owner */
    /* What comes; belongs to the one thread that receives. */
    uint8_t head_bytes[AGENT_HEADER_BYTES];
    size_t head_got;
    struct agent_header head;
    uint8_t *body; /* owned */
    size_t capacity, body_got;
    bool has_byte_left; /* the last byte of the frame that was received last is still in the socket */
};

#define CLIENT_INIT                                                                                                    \
    {                                                                                                                  \
        .fd = -1, .sending = PTHREAD_MUTEX_INITIALIZER                                                                 \
    }

/* Connects to the process of the sandbox with that folder and, for errors, name. -ESRCH: it does not run. */
int client_open(int folder, const char *name, struct client *client, struct vial_error *err);

/* The same with a socket that is connected already, which is taken over. */
void client_adopt(struct client *client, int fd, const char *name);

/* Harmless for one that was never opened. Frees what it has received. */
void client_close(struct client *client);

/* ---- sending, on any thread ---- */

/* Sends a frame of the session whole, or nothing of it: 0, -ETIMEDOUT, -EPIPE when the other side is gone, or another
 * error. `message->id` is filled in, and the window that it grants is noted before anything can come of it. */
int client_send(struct client *client, struct agent_message *message, uint64_t deadline_ns, struct vial_error *err);

/* Bytes of stream 0 from where they lie, at most AGENT_MOST_DATA_BYTES and what flow.send allows, which the caller has
 * taken off it. */
int client_send_data(struct client *client, const void *bytes, size_t length, bool is_end, uint64_t deadline_ns,
                     struct vial_error *err);

/* ---- receiving, on one thread at a time ---- */

/* The next message, of the session or not: 0, -ETIMEDOUT, or an error that is final: -ECONNRESET when the sandbox's
 * process has ended the connection, -EPROTO. The message points into `body` and lives until the next call. Without
 * client_account it has no effect. */
int client_receive(struct client *client, uint64_t deadline_ns, struct agent_message *ret_message,
                   struct vial_error *err);

/* Whether it belongs to no session: the agent is ready, or lives. */
static inline bool client_is_news(const struct agent_message *message)
{
    return message->kind == AGENT_READY || message->kind == AGENT_HEARTBEAT;
}

/* The kind of the frame that client_receive would read next, with all of it left in the socket: 0 or -EAGAIN. */
int client_peek(struct client *client, enum agent_kind *ret_kind);

/* Takes the byte that was left out of the socket. */
void client_finish(struct client *client);

/* What the message does to the flow: 0, or -EPROTO for what the flow does not allow. */
int client_account(struct client *client, const struct agent_message *message, struct vial_error *err);

/* Those bytes of a stream were consumed: they are granted again, at the latest when nothing could come any more. 0 or a
 * final error. */
int client_consume(struct client *client, uint32_t stream, size_t length, struct vial_error *err);

/* For a client that one thread has: receive and account. FAILED is an error: what its message says, as `action`
 * ("cannot read /etc/passwd"). */
int client_next(struct client *client, const char *action, uint64_t deadline_ns, struct agent_message *ret_message,
                struct vial_error *err);

/* The error of a FAILED. Never -ETIMEDOUT. */
int client_failed(const struct client *client, const char *action, const struct agent_message *message,
                  struct vial_error *err);

/* The errno of an error that says all in its own words: returns it negative. */
int client_errno(struct vial_error *err, int os_error);

/* A deadline from milliseconds of the public interface. */
uint64_t client_deadline_ns(uint64_t timeout_ms);

#endif
