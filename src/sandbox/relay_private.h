// SPDX-License-Identifier: Apache-2.0
/* What the files of the relay share. (relay.c) */
#ifndef SANDBOX_RELAY_PRIVATE_H
#define SANDBOX_RELAY_PRIVATE_H

#include "sandbox/relay.h"
#include "sandbox/relay_channel.h"

#include <sys/types.h>

struct relay_client {
    struct relay *relay; /* borrowed */
    struct channel channel;
    uint16_t number;
    uint32_t own_id; /* of its session with the process; 0: none */
    enum agent_kind own_kind;
    bool is_gone, is_held, has_forwarded;
    struct relay_client *previous, *next; /* all living ones, or the gone */
};

struct number {
    struct relay_client *client; /* borrowed; NULL: none */
    uint32_t sessions;           /* that the agent has not answered */
};

/* Frames that stand side by side, and where they go. */
struct run {
    struct channel *to; /* borrowed; NULL: none */
    struct relay_client *client;
    uint8_t *bytes;
    size_t length;
};

struct relay {
    struct loop *loop; /* borrowed */
    const struct relay_ops *ops;
    void *user;
    int folder; /* borrowed */
    struct channel agent;
    int listen_fd;                     /* owned */
    struct loop_source *listen_source; /* owned */
    bool is_listening, is_serving, has_failed, is_ending;
    uid_t uid;
    struct relay_client *clients, *gone; /* owned */
    struct number *numbers;              /* owned: by number */
    uint16_t last_number;
    size_t held_bytes;   /* by all clients */
    struct buffer ready; /* the frame READY */
    struct buffer encoded;
    uint8_t *room; /* owned: room_bytes */
    struct run run;
    struct relay_counters counters;
};

/* Sends the frames that stand in line. To be called before anything else goes the same way. */
void relay_flush_run(struct relay *relay);

/* False when the client is gone, or was cut off now. */
bool relay_send_to_client(struct relay_client *client, const struct iovec *parts, size_t count);
int relay_send_to_agent(struct relay *relay, const struct iovec *parts, size_t count);

#endif
