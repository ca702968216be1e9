// SPDX-License-Identifier: Apache-2.0
/* Packets of the guest: what each must be, and where it leads.
 *
 *     chain ──> header read once ──> addresses ──> type ──> length ──> stream of its ports ──> operation
 *
 * What is addressed wrongly is passed over, as nobody can be answered (5.10.6.4.2). What makes no sense for a stream
 * resets that stream; what belongs to no stream is refused by an RST, but an RST never by another one. Each packet
 * causes one refusal at most, so as long as there is room for one, a packet can be taken; a guest that takes no
 * packets of ours therefore gets none taken of its own.
 *
 * Invariants: (1) a chain is pushed before the next one is taken. (2) what a packet says was checked on a copy of its
 * header; its bytes are only carried. (3) a REQUEST costs a bounded amount: streams are counted before anything is
 * opened.
 *
 * Trust: everything here comes from a hostile guest. Where ports lead is the host's configuration.
 */
#include "base/log.h"
#include "device/vsock/connection.h"
#include "device/vsock/tsi.h"

#include <errno.h>

enum { HEADER = sizeof(struct packet_header) };
static_assert(PEER_COPY_BYTES >= LIMIT_VSOCK_DATAGRAM_BYTES, "a datagram fits into the copy");

struct packet {
    struct packet_header header; /* a copy */
    const struct queue_chain *chain;
    bool has_right_length;
};

static void refuse(struct vsock *vsock, const struct packet_header *header)
{
    if (header->operation != PACKET_RST)
        receive_refuse(vsock, header->source_port, header->target_port, header->type);
}

/* ---- streams ---- */

static const struct route *find_route(const struct vsock *vsock, uint32_t port)
{
    for (size_t i = 0; i < vsock->route_count; i++)
        if (vsock->routes[i].port == port)
            return &vsock->routes[i];
    return NULL;
}

/* What stands behind the port that the guest wants: 0 or -errno. */
static int open_peer(struct vsock *vsock, uint32_t guest_port, uint32_t host_port, struct peer *ret_peer)
{
    const struct route *route = find_route(vsock, host_port);
    if (vsock->connection_count >= LIMIT_VSOCK_STREAMS)
        return -EMFILE;
    if (route != NULL && route->path != NULL)
        return peer_connect(route->path, ret_peer);
    if (route != NULL && route->ops->connect != NULL)
        return peer_connect_custom(route->ops, route->user, guest_port, vsock->copy, ret_peer);
    int fd = vsock->tsi != NULL ? tsi_take_stream(vsock->tsi, guest_port, host_port) : -ECONNREFUSED;
    if (fd >= 0)
        *ret_peer = peer_of_socket(fd);
    return fd < 0 ? fd : 0;
}

static void begin_connection(struct vsock *vsock, const struct packet_header *header)
{
    struct peer peer = PEER_NONE;
    struct connection *connection = NULL;
    int result = open_peer(vsock, header->source_port, header->target_port, &peer);
    if (result == 0)
        result = connection_new(vsock, header->source_port, header->target_port, &peer, CONNECTION_ANSWERING,
                                &connection);
    if (result < 0) {
        log_debug("vsock.refused", LOG_UINT("port", header->target_port), LOG_ERRNO(result));
        refuse(vsock, header);
        return;
    }
    connection_set_credit(connection, header->buffer_bytes, header->forwarded);
    connection->owed |= OWED_RESPONSE;
    connection_update(connection);
}

/* Whether this is the guest's turn to say so. */
static bool is_in_order(const struct connection *connection, const struct packet_header *header)
{
    bool was_asked = connection->state == CONNECTION_ASKING && (connection->owed & OWED_REQUEST) == 0;
    switch ((enum packet_operation)header->operation) {
    case PACKET_RESPONSE:
        return was_asked;
    case PACKET_RW:
    case PACKET_SHUTDOWN:
        return connection->state == CONNECTION_OPEN || connection->state == CONNECTION_SHUT;
    case PACKET_CREDIT_UPDATE:
    case PACKET_CREDIT_REQUEST:
        return true;
    case PACKET_REQUEST:
    case PACKET_RST:
        break;
    }
    return false;
}

static void handle_packet(struct connection *connection, const struct packet *packet)
{
    const struct packet_header *header = &packet->header;
    if (!packet->has_right_length || !is_in_order(connection, header)) {
        virtio_device_blame(connection->vsock->device, "a packet that is not in order");
        connection_reset(connection);
        return;
    }
    connection_set_credit(connection, header->buffer_bytes, header->forwarded);
    if (header->operation == PACKET_RESPONSE)
        connection_open(connection);
    else if (header->operation == PACKET_RW && connection->state == CONNECTION_OPEN)
        connection_take(connection, packet->chain->readable, packet->chain->readable_count, HEADER, header->length);
    else if (header->operation == PACKET_SHUTDOWN)
        connection_take_shutdown(connection, header->flags);
    else if (header->operation == PACKET_CREDIT_REQUEST)
        connection->owed |= OWED_CREDIT_UPDATE;
    connection_update(connection);
}

static void take_stream_packet(struct vsock *vsock, const struct packet *packet)
{
    const struct packet_header *header = &packet->header;
    struct connection *connection = table_find(&vsock->table, header->source_port, header->target_port);
    bool is_request = header->operation == PACKET_REQUEST && packet->has_right_length;
    if (connection != NULL && header->operation == PACKET_RST) {
        bool is_refused = connection->state == CONNECTION_ASKING && vsock->tsi != NULL;
        connection_take_reset(connection);
        if (is_refused)
            tsi_stream_refused(vsock->tsi, header->source_port, header->target_port);
        return;
    }
    if (connection != NULL && connection->state == CONNECTION_SHUT && is_request) {
        connection_free(connection); /* the guest has done with it, and uses its port again */
        connection = NULL;
    }
    if (connection == NULL && is_request)
        begin_connection(vsock, header);
    else if (connection == NULL)
        refuse(vsock, header);
    else if (connection->state != CONNECTION_ENDING) /* then the answer is on its way */
        handle_packet(connection, packet);
}

int vsock_connect_guest(struct vsock *vsock, int fd, uint32_t host_port, uint32_t guest_port)
{
    struct peer peer = peer_of_socket(fd);
    struct connection *connection = NULL;
    int result = 0;
    if (!virtio_device_is_started(vsock->device))
        result = -ENOTCONN;
    else if (table_find(&vsock->table, guest_port, host_port) != NULL)
        result = -EADDRINUSE;
    if (result < 0) {
        peer_close(&peer);
        return result;
    }
    result = connection_new(vsock, guest_port, host_port, &peer, CONNECTION_ASKING, &connection);
    if (result < 0)
        return result;
    connection->owed |= OWED_REQUEST;
    connection_update(connection);
    virtio_kick(vsock->device, QUEUE_RECEIVE); /* not here: we may have been called while a packet is taken */
    return 0;
}

/* ---- datagrams ---- */

static void take_datagram(struct vsock *vsock, const struct packet *packet)
{
    const struct packet_header *header = &packet->header;
    const struct route *route = find_route(vsock, header->target_port);
    if (!vsock->has_datagrams || header->operation != PACKET_RW || !packet->has_right_length ||
        header->length > LIMIT_VSOCK_DATAGRAM_BYTES) {
        virtio_device_blame(vsock->device, "a datagram that is none");
        return;
    }
    virtio_read_spans(packet->chain->readable, packet->chain->readable_count, HEADER, vsock->copy, header->length);
    if (route != NULL && route->ops != NULL && route->ops->send != NULL)
        route->ops->send(route->user, header->source_port, vsock->copy, header->length);
    else if (vsock->tsi != NULL)
        tsi_take_datagram(vsock->tsi, header->source_port, header->target_port, vsock->copy, header->length);
}

/* ---- packets ---- */

static void take_packet(struct vsock *vsock, const struct queue_chain *chain)
{
    struct packet packet = {.chain = chain};
    const struct packet_header *header = &packet.header;
    if (virtio_read_spans(chain->readable, chain->readable_count, 0, &packet.header, HEADER) < HEADER) {
        virtio_device_blame(vsock->device, "a packet without a whole header");
        return;
    }
    if (header->source_cid != PACKET_GUEST_CID || header->target_cid != PACKET_HOST_CID) {
        virtio_device_blame(vsock->device, "a packet from or to somebody else");
        return;
    }
    packet.has_right_length = header->length == chain->readable_bytes - HEADER;
    if (header->type == PACKET_STREAM) {
        take_stream_packet(vsock, &packet);
    } else if (header->type == PACKET_DATAGRAM) {
        take_datagram(vsock, &packet);
    } else {
        virtio_device_blame(vsock->device, "a packet of a type that was not agreed on");
        refuse(vsock, header);
    }
}

void transmit_serve(struct vsock *vsock)
{
    struct queue_chain chain;
    while (receive_has_room(vsock) && virtio_pop(vsock->device, QUEUE_TRANSMIT, &chain)) {
        take_packet(vsock, &chain);
        virtio_push(vsock->device, QUEUE_TRANSMIT, chain.head, 0);
    }
    vsock->is_transmit_held = !receive_has_room(vsock);
    virtio_call(vsock->device, QUEUE_TRANSMIT);
    receive_pump(vsock);
}
