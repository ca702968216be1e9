// SPDX-License-Identifier: Apache-2.0
/* A stream between a port of the guest's and one of the host's. */
#ifndef DEVICE_VSOCK_CONNECTION_H
#define DEVICE_VSOCK_CONNECTION_H

#include "device/vsock/held.h"
#include "device/vsock/peer.h"
#include "device/vsock/state.h"

enum connection_state {
    CONNECTION_ANSWERING, /* the guest has asked, and its RESPONSE is owed */
    CONNECTION_ASKING,    /* a REQUEST is owed to the guest, or its answer is awaited */
    CONNECTION_OPEN,
    CONNECTION_SHUT,      /* no byte moves any more, of which the guest is told: its RST ends it */
    CONNECTION_ENDING,    /* an RST is owed, which ends it */
    CONNECTION_LINGERING, /* the guest has forgotten it, and the host takes what is left */
    CONNECTION_STATES
};

/* Packets that are owed to the guest, in the order in which they are sent. */
enum {
    OWED_RST = 1,
    OWED_REQUEST = 2,
    OWED_RESPONSE = 4,
    OWED_SHUTDOWN = 8,
    OWED_CREDIT_UPDATE = 16,
    OWED_CREDIT_REQUEST = 32,
};

struct connection {
    struct vsock *vsock; /* borrowed */
    uint32_t guest_port, host_port;
    enum connection_state state;
    unsigned owed;
    struct peer peer; /* the host's side */
    bool is_readable; /* reading has not said -EAGAIN since it was ready */

    bool guest_sends, guest_receives; /* it has not said that it will not */
    bool host_sends, host_receives;   /* no end of its bytes was read; none of ours was refused */
    bool is_output_ended;             /* the host was told that the guest sends no more */

    /* From the guest: what it may have under way, and byte counts that wrap (5.10.6.3). */
    struct held held;
    uint32_t granted, received, forwarded, told_forwarded;

    /* To the guest: what it has told of its room, and what it was sent. */
    uint32_t guest_buffer, guest_forwarded, sent;
    bool has_asked_for_credit;

    struct connection *next_in_bucket;
    struct connection *previous, *next; /* all streams of the device */
    struct connection *previous_ready, *next_ready;
    bool is_listed_ready;
};

/* Takes the peer, also on failure: 0, -EMFILE when there are too many streams, -ENOMEM or another -errno. There is
 * no stream of these ports. */
int connection_new(struct vsock *vsock, uint32_t guest_port, uint32_t host_port, struct peer *peer,
                   enum connection_state state, struct connection **ret_connection);

/* Ends it without a word to the guest. */
void connection_free(struct connection *connection);

/* Ends it with an RST: what is on its way in either direction is lost. */
void connection_reset(struct connection *connection);

/* After anything that may have changed what it has for the guest. */
void connection_update(struct connection *connection);

/* Both sides have agreed. */
void connection_open(struct connection *connection);

/* ---- from the guest ---- */

void connection_set_credit(struct connection *connection, uint32_t guest_buffer, uint32_t guest_forwarded);

/* Bytes of the guest, which are in its credit or end the stream: `length` of the spans from `offset` on. */
void connection_take(struct connection *connection, const struct iovec *spans, size_t count, size_t offset,
                     uint32_t length);
void connection_take_shutdown(struct connection *connection, uint32_t flags);

/* It has forgotten the stream, which may be freed. */
void connection_take_reset(struct connection *connection);

/* ---- to the guest ---- */

/* How much it has room for. */
uint32_t connection_credit(const struct connection *connection);
bool connection_can_read(const struct connection *connection);

/* Reading has given 0 or -errno. */
void connection_handle_read_end(struct connection *connection, ssize_t result);

#endif
