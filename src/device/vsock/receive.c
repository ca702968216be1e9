// SPDX-License-Identifier: Apache-2.0
/* Packets to the guest: what waits for a buffer of the guest's receive queue, and in which order it goes.
 *
 *     refusals ────────┐
 *     datagrams ───────┼──> the guest's next buffer
 *     ready streams ───┘    each stream one packet, then to the list's end; REQUESTs before all but refusals
 *
 * Nothing is made before there is a buffer to make it in. A stream notes what it owes in a few bits; refusals, which
 * belong to no stream, wait in a ring, and while that is full no packet of the guest's is taken, for each could cause
 * another one. Datagrams are dropped when too many wait, as datagrams are.
 *
 * Bytes of a stream are read from the host straight into the guest's buffer, behind the header.
 *
 * Invariants: (1) a chain is pushed or put back before anything else is popped from its queue. (2) every packet of a
 * stream tells its newest credit. (3) what stops for want of a buffer goes on with the driver's next kick, which
 * virtio_pop has asked for.
 *
 * Trust: the guest's buffers are of any number and size; what does not fit is blamed on it. The host's bytes are only
 * carried.
 */
#include "base/alloc.h"
#include "base/log.h"
#include "device/vsock/connection.h"

#include <errno.h>
#include <string.h>

static bool has_work(const struct vsock *vsock)
{
    return vsock->refusal_count > 0 || vsock->datagram_first != NULL || vsock->ready_first != NULL;
}

/* The header into the chain, which has room for it. */
static void put_header(const struct queue_chain *chain, struct packet_header header)
{
    header.source_cid = PACKET_HOST_CID;
    header.target_cid = PACKET_GUEST_CID;
    virtio_write_spans(chain->writable, chain->writable_count, 0, &header, sizeof(header));
}

/* ---- refusals ---- */

bool receive_has_room(const struct vsock *vsock)
{
    return vsock->refusal_count < LIMIT_VSOCK_RESETS;
}

void receive_refuse(struct vsock *vsock, uint32_t guest_port, uint32_t host_port, uint16_t type)
{
    assert(receive_has_room(vsock));
    vsock->refusals[(vsock->refusal_first + vsock->refusal_count++) % LIMIT_VSOCK_RESETS] = (struct refusal){
        .guest_port = guest_port,
        .host_port = host_port,
        .type = type,
    };
}

static uint32_t put_refusal(struct vsock *vsock, const struct queue_chain *chain)
{
    const struct refusal *refusal = &vsock->refusals[vsock->refusal_first];
    put_header(chain, (struct packet_header){
                          .source_port = refusal->host_port,
                          .target_port = refusal->guest_port,
                          .type = refusal->type,
                          .operation = PACKET_RST,
                      });
    vsock->refusal_first = (vsock->refusal_first + 1) % LIMIT_VSOCK_RESETS;
    vsock->refusal_count--;
    return sizeof(struct packet_header);
}

/* ---- datagrams ---- */

bool vsock_send_datagram(struct vsock *vsock, uint32_t host_port, uint32_t guest_port, const void *bytes, size_t length)
{
    size_t size = sizeof(struct datagram) + length;
    if (!virtio_device_is_started(vsock->device) || !vsock->has_datagrams || length > LIMIT_VSOCK_DATAGRAM_BYTES ||
        size > LIMIT_VSOCK_DATAGRAMS_BYTES - vsock->datagram_bytes)
        return false;
    struct datagram *datagram = alloc_zero(size);
    if (datagram == NULL)
        return false;
    *datagram = (struct datagram){.guest_port = guest_port, .host_port = host_port, .length = length};
    if (length > 0)
        memcpy(datagram->bytes, bytes, length);
    *(vsock->datagram_first == NULL ? &vsock->datagram_first : &vsock->datagram_last->next) = datagram;
    vsock->datagram_last = datagram;
    vsock->datagram_bytes += size;
    virtio_kick(vsock->device, QUEUE_RECEIVE); /* not here: we may have been called while a packet is taken */
    return true;
}

static void drop_datagram(struct vsock *vsock)
{
    struct datagram *datagram = vsock->datagram_first;
    vsock->datagram_first = datagram->next;
    vsock->datagram_bytes -= sizeof(*datagram) + datagram->length;
    free(datagram);
}

/* One that is longer than the guest's buffer is lost, as it is in a network whose packets are smaller: false. */
static bool put_datagram(struct vsock *vsock, const struct queue_chain *chain, uint32_t *written)
{
    const struct datagram *datagram = vsock->datagram_first;
    bool fits = datagram->length <= chain->writable_bytes - sizeof(struct packet_header);
    if (fits) {
        *written = (uint32_t)(sizeof(struct packet_header) + datagram->length);
        put_header(chain, (struct packet_header){
                              .source_port = datagram->host_port,
                              .target_port = datagram->guest_port,
                              .length = (uint32_t)datagram->length,
                              .type = PACKET_DATAGRAM,
                              .operation = PACKET_RW,
                          });
        virtio_write_spans(chain->writable, chain->writable_count, sizeof(struct packet_header), datagram->bytes,
                           datagram->length);
    } else {
        log_debug("vsock.datagram_too_long", LOG_UINT("bytes", datagram->length));
    }
    drop_datagram(vsock);
    return fits;
}

/* ---- streams ---- */

static void put_stream_header(struct connection *connection, const struct queue_chain *chain,
                              enum packet_operation operation, uint32_t flags, uint32_t length)
{
    connection->owed &= ~(unsigned)OWED_CREDIT_UPDATE;
    connection->told_forwarded = connection->forwarded;
    put_header(chain, (struct packet_header){
                          .source_port = connection->host_port,
                          .target_port = connection->guest_port,
                          .length = length,
                          .type = PACKET_STREAM,
                          .operation = (uint16_t)operation,
                          .flags = flags,
                          .buffer_bytes = connection->granted,
                          .forwarded = connection->forwarded,
                      });
}

static const struct {
    unsigned owed;
    enum packet_operation operation;
} control_packets[] = {
    {OWED_RST, PACKET_RST},
    {OWED_REQUEST, PACKET_REQUEST},
    {OWED_RESPONSE, PACKET_RESPONSE},
    {OWED_SHUTDOWN, PACKET_SHUTDOWN},
    {OWED_CREDIT_UPDATE, PACKET_CREDIT_UPDATE},
    {OWED_CREDIT_REQUEST, PACKET_CREDIT_REQUEST},
};

/* The first packet that it owes. After an RST the stream is gone. */
static uint32_t put_control(struct connection *connection, const struct queue_chain *chain)
{
    size_t i = 0;
    while ((connection->owed & control_packets[i].owed) == 0)
        i++;
    enum packet_operation operation = control_packets[i].operation;
    uint32_t flags = 0;
    if (operation == PACKET_SHUTDOWN)
        flags = (connection->host_sends ? 0 : PACKET_SENDS_NO_MORE) |
                (connection->host_receives ? 0 : PACKET_RECEIVES_NO_MORE);
    connection->owed &= ~control_packets[i].owed;
    put_stream_header(connection, chain, operation, flags, 0);
    if (operation == PACKET_RST)
        connection_free(connection);
    else if (operation == PACKET_RESPONSE)
        connection_open(connection);
    else
        connection_update(connection);
    return sizeof(struct packet_header);
}

/* As many bytes as the host has, the guest has credit for, and the buffer room: false when there were none. */
static bool put_bytes(struct connection *connection, const struct queue_chain *chain, uint32_t *written)
{
    struct vsock *vsock = connection->vsock;
    size_t room = chain->writable_bytes - sizeof(struct packet_header), most = connection_credit(connection);
    if (most > room)
        most = room;
    if (room == 0) {
        virtio_device_blame(vsock->device, "a receive buffer without room for a byte");
        connection_update(connection);
        return true;
    }
    size_t count = vsock_slice(vsock, chain->writable, chain->writable_count, sizeof(struct packet_header), most);
    ssize_t got = peer_read(&connection->peer, vsock->spans, count);
    if (got > 0) {
        connection->sent += (uint32_t)got;
        put_stream_header(connection, chain, PACKET_RW, 0, (uint32_t)got);
        *written = (uint32_t)(sizeof(struct packet_header) + (size_t)got);
    } else {
        connection_handle_read_end(connection, got);
    }
    connection_update(connection);
    return got > 0;
}

/* The first ready stream goes to the end of the list, if it is still ready then. */
static struct connection *next_connection(struct vsock *vsock)
{
    struct connection *connection = vsock->ready_first;
    if (connection == vsock->ready_last)
        return connection;
    vsock->ready_first = connection->next_ready;
    connection->next_ready->previous_ready = NULL;
    connection->previous_ready = vsock->ready_last;
    vsock->ready_last->next_ready = connection;
    connection->next_ready = NULL;
    vsock->ready_last = connection;
    return connection;
}

/* ---- buffers ---- */

/* Uses the chain for the next packet: false when there was none after all. */
static bool fill(struct vsock *vsock, const struct queue_chain *chain, uint32_t *written)
{
    if (vsock->refusal_count > 0) {
        *written = put_refusal(vsock, chain);
        return true;
    }
    bool owes_request = vsock->ready_first != NULL && (vsock->ready_first->owed & OWED_REQUEST) != 0;
    bool takes_datagram = vsock->datagram_first != NULL && !owes_request &&
                          (vsock->is_datagrams_turn || vsock->ready_first == NULL);
    vsock->is_datagrams_turn = !takes_datagram;
    if (takes_datagram)
        return put_datagram(vsock, chain, written);
    struct connection *connection = next_connection(vsock);
    if (connection->owed == 0)
        return put_bytes(connection, chain, written);
    *written = put_control(connection, chain);
    return true;
}

/* The next chain of the guest's: false when the pump is to stop. */
static bool fill_next(struct vsock *vsock)
{
    struct queue_chain chain;
    uint32_t written = 0;
    bool is_used = false;
    if (!virtio_pop(vsock->device, QUEUE_RECEIVE, &chain))
        return false;
    if (chain.writable_bytes < sizeof(struct packet_header)) {
        virtio_device_blame(vsock->device, "a receive buffer without room for a header");
        virtio_push(vsock->device, QUEUE_RECEIVE, chain.head, 0);
        return true;
    }
    while (!is_used && has_work(vsock))
        is_used = fill(vsock, &chain, &written);
    if (is_used)
        virtio_push(vsock->device, QUEUE_RECEIVE, chain.head, written);
    else
        virtio_unpop(vsock->device, QUEUE_RECEIVE);
    return is_used;
}

void receive_pump(struct vsock *vsock)
{
    while (has_work(vsock) && fill_next(vsock))
        continue;
    virtio_call(vsock->device, QUEUE_RECEIVE);
    if (vsock->is_transmit_held && receive_has_room(vsock)) {
        vsock->is_transmit_held = false;
        virtio_kick(vsock->device, QUEUE_TRANSMIT);
    }
}

void receive_clear(struct vsock *vsock)
{
    while (vsock->datagram_first != NULL)
        drop_datagram(vsock);
    vsock->refusal_first = vsock->refusal_count = 0;
    vsock->is_transmit_held = false;
}
