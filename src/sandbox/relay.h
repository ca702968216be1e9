// SPDX-License-Identifier: Apache-2.0
/* The relay: many clients speak to one agent at once.
 *
 * It listens on relay.sock in the folder of its sandbox. What the agent says to clients passes by header only; what
 * they say to it passes as it came, once it is known to be a message. What is meant for the sandbox's process itself is
 * decoded and handed to its functions.
 */
#ifndef SANDBOX_RELAY_H
#define SANDBOX_RELAY_H

#include "base/loop.h"
#include "proto/agent.h"

#define RELAY_SOCKET "relay.sock"

struct relay;
struct relay_client;

/* All are called on the loop's thread. Messages live until the function returns. */
struct relay_ops {
    /* READY, HEARTBEAT, and frames of sessions of client 0, which is the process. */
    void (*agent_message)(void *user, const struct agent_message *message);
    /* A request of an own kind, or something in the session that relay_keep_session has named. */
    void (*client_message)(void *user, struct relay_client *client, const struct agent_message *message);
    /* Its pointer is good for comparing, and relay_session, until the function returns. */
    void (*client_gone)(void *user, struct relay_client *client);
    /* It has taken all that was kept for it. */
    void (*client_caught_up)(void *user, struct relay_client *client);
    /* The agent has broken the protocol (-EPROTO), or its port has failed; 0: it was closed. Nothing comes after it. */
    void (*agent_failed)(void *user, int result);
};

struct relay_options {
    struct loop *loop; /* borrowed, as is the rest */
    int folder;        /* where the socket is to be */
    int agent_fd;      /* connected to the agent's port; becomes the relay's, on failure too */
    const struct relay_ops *ops;
    void *user;
};

int relay_new(const struct relay_options *options, struct relay **ret_relay);

/* With its doors closed; clients see the end of their connections, behind what was sent to them. */
struct relay *relay_free(struct relay *relay);

/* From now on clients are read; the frame READY, which has come, is the first that they get. Until then they wait. */
void relay_serve(struct relay *relay);

/* To be called now and then: lets clients in again after the host had no room for another one. */
void relay_tend(struct relay *relay);

/* Removes the socket: nobody connects any more. Those that are connected stay. */
void relay_close_doors(struct relay *relay);

/* A client that is connected already; the descriptor becomes the relay's, on failure too. */
int relay_add_client(struct relay *relay, int fd, struct relay_client **ret_client);

/* To the agent, in a session of client 0 (the upper 16 bits of the id are 0). 0 or -errno, of which only -EINVAL is not
 * the end of the relay. */
int relay_tell_agent(struct relay *relay, const struct agent_message *message);
int relay_tell_agent_data(struct relay *relay, uint32_t id, uint32_t flags, const char *bytes, size_t length);

/* To a client; one that cannot be told is cut off. False: it is gone. */
bool relay_tell(struct relay_client *client, const struct agent_message *message);
bool relay_tell_data(struct relay_client *client, uint32_t id, uint32_t stream, uint32_t flags, const char *bytes,
                     size_t length);
bool relay_fail(struct relay_client *client, uint32_t id, enum agent_stage stage, int os_error, const char *message);

/* The client's session of an own kind from now on, which there is one of at most: whatever comes in it is for the
 * process. False: it has one. Kind 0 ends it. */
bool relay_keep_session(struct relay_client *client, uint32_t id, enum agent_kind kind);
uint32_t relay_session(const struct relay_client *client, enum agent_kind kind); /* its id; 0: none of that kind */

/* The message to every client with a session of that kind, under its id. */
void relay_tell_all(struct relay *relay, enum agent_kind kind, struct agent_message *message);

void relay_cut_off(struct relay_client *client);

/* What it has been told but has not taken. */
size_t relay_unsent_bytes(const struct relay_client *client);

struct relay_counters {
    uint64_t frames; /* of sessions, both ways: whoever is idle, these stand still */
    uint64_t to_agent_bytes, from_agent_bytes;
    size_t clients, sessions;
    uint64_t refused, cut_off; /* clients */
};
void relay_count(const struct relay *relay, struct relay_counters *ret_counters);

#endif
