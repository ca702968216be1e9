// SPDX-License-Identifier: Apache-2.0
/* A stream between a port of the guest's and one of the host's.
 *
 *     REQUEST of the guest ──> ANSWERING ──RESPONSE sent──────┐
 *                                                             ├──> OPEN ──> SHUT ──> ENDING ──RST sent──> freed
 *     connection of the host ──> ASKING ──guest's RESPONSE────┘      └──> LINGERING ──> freed
 *
 * Any state may become ENDING, and all but LINGERING end at once with an RST of the guest's.
 *
 * From the guest: its bytes go straight from its memory to the host. What the host does not take is held, and the guest
 * is told of room (forwarded) only as the host takes it; so a slow reader stops its writer, and what is held never
 * exceeds the credit that was granted. To the guest: bytes are read only into a buffer of the guest's and as far as it
 * has granted credit; otherwise they stay in the host's socket.
 *
 * Each direction ends alone. When the guest sends no more, the host is told after the last held byte; when the host
 * sends no more, the guest is told after the last byte was delivered, because only then the end was read. Over in both
 * directions, a stream needs no host any more: the peer is closed. A guest that has ended both itself waits for an
 * RST (Linux does for 8 s); any other one is told that both are over, and answers with an RST when it has read all. A
 * guest that does not wait for a slow reader until its end loses nothing if it had said that it would send no more: the
 * rest is still written.
 *
 * Invariants: (1) received - forwarded == held.length <= granted. (2) a stream is in the ready list exactly when it
 * owes a packet or can read. (3) the peer is open in ANSWERING, ASKING, OPEN and LINGERING only. (4) all states but
 * LINGERING stand in the table.
 *
 * Trust: flags, credit and bytes come from a hostile guest; byte counts wrap and are only compared. Ends of the host
 * are the host's.
 */
#include "device/vsock/connection.h"

#include "base/alloc.h"
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>

enum { most_writes = 16 }; /* of one turn */

/* ---- states ---- */

static const bool may_follow[CONNECTION_STATES][CONNECTION_STATES] = {
    [CONNECTION_ANSWERING] = {[CONNECTION_OPEN] = true, [CONNECTION_ENDING] = true},
    [CONNECTION_ASKING] = {[CONNECTION_OPEN] = true, [CONNECTION_ENDING] = true},
    [CONNECTION_OPEN] = {[CONNECTION_SHUT] = true, [CONNECTION_ENDING] = true, [CONNECTION_LINGERING] = true},
    [CONNECTION_SHUT] = {[CONNECTION_ENDING] = true},
};

static void set_state(struct connection *connection, enum connection_state state)
{
    bool is_legal = may_follow[connection->state][state];
    assert(is_legal);
    (void)is_legal;
    if (connection->state == CONNECTION_ASKING) {
        connection->vsock->unanswered_count--;
        listeners_update(connection->vsock);
    }
    connection->state = state;
}

/* ---- the list of those that have something for the guest ---- */

/* Behind all others; but REQUESTs come first, in their order: a datagram that is sent after one must not overtake it
 * (fill, in receive.c), since TSI tells the guest in datagrams which streams it can take. */
static void list_ready(struct connection *connection)
{
    struct vsock *vsock = connection->vsock;
    struct connection *next = NULL;
    if (connection->is_listed_ready)
        return;
    connection->is_listed_ready = true;
    if ((connection->owed & OWED_REQUEST) != 0)
        for (next = vsock->ready_first; next != NULL && (next->owed & OWED_REQUEST) != 0;)
            next = next->next_ready;
    struct connection *previous = next != NULL ? next->previous_ready : vsock->ready_last;
    connection->previous_ready = previous;
    connection->next_ready = next;
    *(previous != NULL ? &previous->next_ready : &vsock->ready_first) = connection;
    *(next != NULL ? &next->previous_ready : &vsock->ready_last) = connection;
}

static void unlist_ready(struct connection *connection)
{
    struct vsock *vsock = connection->vsock;
    if (!connection->is_listed_ready)
        return;
    connection->is_listed_ready = false;
    *(connection->previous_ready != NULL ? &connection->previous_ready->next_ready
                                         : &vsock->ready_first) = connection->next_ready;
    *(connection->next_ready != NULL ? &connection->next_ready->previous_ready
                                     : &vsock->ready_last) = connection->previous_ready;
}

static bool is_reading(const struct connection *connection)
{
    return connection->state == CONNECTION_OPEN && connection->host_sends && connection->guest_receives &&
           connection->is_readable;
}

uint32_t connection_credit(const struct connection *connection)
{
    uint32_t under_way = connection->sent - connection->guest_forwarded;
    return under_way < connection->guest_buffer ? connection->guest_buffer - under_way : 0;
}

bool connection_can_read(const struct connection *connection)
{
    return is_reading(connection) && connection_credit(connection) > 0;
}

void connection_update(struct connection *connection)
{
    if (is_reading(connection) && connection_credit(connection) == 0 && !connection->has_asked_for_credit) {
        connection->has_asked_for_credit = true;
        connection->owed |= OWED_CREDIT_REQUEST;
    }
    if (connection->owed != 0 || connection_can_read(connection))
        list_ready(connection);
    else
        unlist_ready(connection);
}

/* ---- ends ---- */

/* The host takes nothing any more: what is held is lost, and the guest goes on without it. */
static void stop_output(struct connection *connection)
{
    if (!connection->host_receives)
        return;
    connection->host_receives = false;
    connection->forwarded += (uint32_t)connection->held.length;
    held_drop(&connection->held, connection->held.length);
    peer_want_output(&connection->peer, false);
    connection->is_readable = true; /* what it has still sent, and its end */
    if (connection->state == CONNECTION_OPEN && connection->guest_sends)
        connection->owed |= OWED_SHUTDOWN;
}

static void drop_host(struct connection *connection)
{
    connection->forwarded += (uint32_t)connection->held.length;
    held_drop(&connection->held, connection->held.length);
    peer_close(&connection->peer);
}

void connection_reset(struct connection *connection)
{
    if (connection->state == CONNECTION_ENDING)
        return;
    set_state(connection, CONNECTION_ENDING);
    drop_host(connection);
    connection->owed = OWED_RST;
    connection_update(connection);
}

/* Looks whether both directions are over. */
static void settle(struct connection *connection)
{
    bool is_input_over = !connection->host_sends || !connection->guest_receives;
    bool is_output_over = !connection->host_receives || (!connection->guest_sends && connection->held.length == 0);
    if (connection->state != CONNECTION_OPEN || !is_input_over || !is_output_over)
        return;
    if (!connection->guest_sends && !connection->guest_receives) {
        connection_reset(connection);
        return;
    }
    set_state(connection, CONNECTION_SHUT);
    drop_host(connection);
    connection->host_sends = connection->host_receives = false;
    connection->owed |= OWED_SHUTDOWN;
}

void connection_handle_read_end(struct connection *connection, ssize_t result)
{
    connection->is_readable = false;
    if (result == -EAGAIN)
        return;
    if (result < 0) {
        connection_reset(connection);
        return;
    }
    connection->host_sends = false;
    connection->owed |= OWED_SHUTDOWN;
    settle(connection);
}

/* ---- to the host ---- */

/* The guest learns of room before it needs it, but not for each byte. */
static void consider_credit(struct connection *connection)
{
    uint32_t used = connection->received - connection->told_forwarded;
    if (connection->state == CONNECTION_OPEN && connection->guest_sends &&
        connection->forwarded != connection->told_forwarded && used >= connection->granted / 2)
        connection->owed |= OWED_CREDIT_UPDATE;
}

/* Nothing is held any more. */
static void handle_drained(struct connection *connection)
{
    peer_want_output(&connection->peer, false);
    if (!connection->guest_sends && connection->host_receives && !connection->is_output_ended) {
        connection->is_output_ended = true;
        peer_end_output(&connection->peer);
    }
}

static void drain(struct connection *connection)
{
    for (unsigned i = 0; i < most_writes && connection->held.length > 0; i++) {
        struct iovec parts[2];
        size_t count = held_parts(&connection->held, parts);
        ssize_t taken = peer_write(&connection->peer, parts, count);
        if (taken == -EAGAIN)
            return;
        if (taken < 0) {
            stop_output(connection);
            return;
        }
        held_drop(&connection->held, (size_t)taken);
        connection->forwarded += (uint32_t)taken;
    }
    if (connection->held.length > 0)
        peer_look_again(&connection->peer);
    else
        handle_drained(connection);
    consider_credit(connection);
}

static void handle_host(void *user, uint32_t what)
{
    struct connection *connection = user;
    struct vsock *vsock = connection->vsock;
    if ((what & ~(uint32_t)EPOLLOUT) != 0)
        connection->is_readable = true;
    if (peer_has_hung_up(&connection->peer, what))
        stop_output(connection);
    else if (connection->held.length > 0)
        drain(connection);
    if (connection->state == CONNECTION_LINGERING) {
        if (connection->held.length == 0)
            connection_free(connection);
        return;
    }
    settle(connection);
    connection_update(connection);
    receive_pump(vsock);
}

/* ---- from the guest ---- */

void connection_set_credit(struct connection *connection, uint32_t guest_buffer, uint32_t guest_forwarded)
{
    connection->guest_buffer = guest_buffer;
    connection->guest_forwarded = guest_forwarded;
    if (connection_credit(connection) > 0)
        connection->has_asked_for_credit = false;
}

/* As much as the host takes at once. */
static size_t write_at_once(struct connection *connection, const struct iovec *spans, size_t count, size_t offset,
                            size_t length)
{
    struct vsock *vsock = connection->vsock;
    if (connection->held.length > 0)
        return 0;
    count = vsock_slice(vsock, spans, count, offset, length);
    ssize_t taken = peer_write(&connection->peer, vsock->spans, count);
    if (taken < 0 && taken != -EAGAIN)
        stop_output(connection);
    return taken > 0 ? (size_t)taken : 0;
}

void connection_take(struct connection *connection, const struct iovec *spans, size_t count, size_t offset,
                     uint32_t length)
{
    if (length > connection->granted - connection->held.length || !connection->guest_sends) {
        virtio_device_blame(connection->vsock->device, "bytes beyond a stream's credit, or behind its end");
        connection_reset(connection);
        return;
    }
    size_t done = 0;
    connection->received += length;
    if (connection->host_receives && length > 0)
        done = write_at_once(connection, spans, count, offset, length);
    if (!connection->host_receives)
        done = length; /* nobody takes them */
    connection->forwarded += (uint32_t)done;
    if (held_add(&connection->held, spans, count, offset + done, length - done) < 0) {
        connection_reset(connection);
        return;
    }
    if (connection->held.length > 0)
        peer_want_output(&connection->peer, true);
    else
        handle_drained(connection);
    consider_credit(connection);
    settle(connection);
    connection_update(connection);
}

void connection_take_shutdown(struct connection *connection, uint32_t flags)
{
    if ((flags & PACKET_SENDS_NO_MORE) != 0)
        connection->guest_sends = false;
    if ((flags & PACKET_RECEIVES_NO_MORE) != 0 && connection->guest_receives) {
        connection->guest_receives = false;
        peer_end_input(&connection->peer);
    }
    if (connection->held.length == 0)
        handle_drained(connection);
    if (connection->state == CONNECTION_SHUT && !connection->guest_sends && !connection->guest_receives)
        connection_reset(connection);
    settle(connection);
    connection_update(connection);
}

void connection_take_reset(struct connection *connection)
{
    if (connection->state != CONNECTION_OPEN || connection->guest_sends || connection->held.length == 0) {
        connection_free(connection);
        return;
    }
    set_state(connection, CONNECTION_LINGERING);
    table_remove(&connection->vsock->table, connection);
    peer_end_input(&connection->peer);
    connection->owed = 0;
    connection_update(connection);
}

/* ---- life ---- */

void connection_open(struct connection *connection)
{
    set_state(connection, CONNECTION_OPEN);
    if (!connection->host_receives)
        connection->owed |= OWED_SHUTDOWN;
    settle(connection);
    connection_update(connection);
}

static uint32_t choose_grant(const struct vsock *vsock)
{
    return vsock->granted_bytes + LIMIT_VSOCK_STREAM_BYTES <= LIMIT_VSOCK_CREDIT_BYTES ? LIMIT_VSOCK_STREAM_BYTES
                                                                                       : LIMIT_VSOCK_LITTLE_BYTES;
}

static void list(struct connection *connection)
{
    struct vsock *vsock = connection->vsock;
    connection->next = vsock->connections;
    if (vsock->connections != NULL)
        vsock->connections->previous = connection;
    vsock->connections = connection;
    vsock->connection_count++;
    vsock->unanswered_count += connection->state == CONNECTION_ASKING;
    vsock->granted_bytes += connection->granted;
    table_add(&vsock->table, connection);
}

int connection_new(struct vsock *vsock, uint32_t guest_port, uint32_t host_port, struct peer *peer,
                   enum connection_state state, struct connection **ret_connection)
{
    struct connection *connection = vsock->connection_count < LIMIT_VSOCK_STREAMS ? alloc_zero(sizeof(*connection))
                                                                                  : NULL;
    if (connection == NULL) {
        peer_close(peer);
        return vsock->connection_count < LIMIT_VSOCK_STREAMS ? -ENOMEM : -EMFILE;
    }
    *connection = (struct connection){
        .vsock = vsock,
        .guest_port = guest_port,
        .host_port = host_port,
        .state = state,
        .peer = *peer,
        .guest_sends = true,
        .guest_receives = true,
        .host_sends = true,
        .host_receives = true,
        .granted = choose_grant(vsock),
    };
    *peer = PEER_NONE;
    int result = peer_watch(&connection->peer, virtio_device_loop(vsock->device), handle_host, connection);
    if (result < 0) {
        peer_close(&connection->peer);
        free(connection);
        return result;
    }
    list(connection);
    *ret_connection = connection;
    return 0;
}

void connection_free(struct connection *connection)
{
    struct vsock *vsock = connection->vsock;
    unlist_ready(connection);
    table_remove(&vsock->table, connection);
    drop_host(connection);
    *(connection->previous != NULL ? &connection->previous->next : &vsock->connections) = connection->next;
    if (connection->next != NULL)
        connection->next->previous = connection->previous;
    vsock->connection_count--;
    vsock->unanswered_count -= connection->state == CONNECTION_ASKING;
    vsock->granted_bytes -= connection->granted;
    vsock->is_short = false; /* there is a descriptor again */
    free(connection);
    listeners_update(vsock);
}
