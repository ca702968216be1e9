// SPDX-License-Identifier: Apache-2.0
/* The virtio socket device: streams, and datagrams, between ports of the guest and the host. (virtio 1.2, 5.10)
 *
 * This file puts the device together; transmit.c takes the guest's packets, receive.c makes those to the guest,
 * connection.c is a stream, peer.c its host's side, listener.c accepts connections of the host's.
 *
 *     queue 0   receive: buffers for packets to the guest
 *     queue 1   transmit: the guest's packets
 *     queue 2   event: buffers for TRANSPORT_RESET
 *
 * No chain is kept: each is used and pushed, or put back, in the call that took it. So a queue that is paused has
 * nothing to forget, and what waited for its buffers goes on when it does.
 *
 * A reset ends all streams; the guest's driver begins with none. Where there had been some, the next driver is told by
 * an event, which matters when it is the same one behind a connection that was made anew: it ends what it believes to
 * have (5.10.6.7).
 *
 * Invariants: (1) everything is touched on the device's thread only, or before it was launched or after it has ended.
 * (2) between stop and start there is no stream and no datagram. (3) sources of the loop go before their descriptors.
 *
 * Trust: features and queues come from a hostile driver, options from the configuration that was checked.
 */
#include "device/vsock/vsock.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "device/vsock/connection.h"

#include <errno.h>
#include <string.h>
#include <sys/un.h>

#define VIRTIO_VSOCK_F_STREAM (UINT64_C(1) << 0)
#define VIRTIO_VSOCK_F_DGRAM (UINT64_C(1) << 3) /* not of the standard: as kernels with TSI have it */

enum { EVENT_TRANSPORT_RESET = 0 }; /* 5.10.6.7 */

size_t vsock_slice(struct vsock *vsock, const struct iovec *spans, size_t count, size_t offset, size_t length)
{
    size_t used = 0;
    for (size_t i = 0; i < count && length > 0 && used < VSOCK_MOST_SPANS; i++) {
        if (offset >= spans[i].iov_len) {
            offset -= spans[i].iov_len;
            continue;
        }
        size_t part = spans[i].iov_len - offset < length ? spans[i].iov_len - offset : length;
        vsock->spans[used++] = (struct iovec){(uint8_t *)spans[i].iov_base + offset, part};
        length -= part;
        offset = 0;
    }
    return used;
}

/* ---- the driver's side ---- */

static void send_event(struct vsock *vsock)
{
    struct queue_chain chain;
    uint32_t event = EVENT_TRANSPORT_RESET;
    if (!vsock->owes_transport_reset || !virtio_pop(vsock->device, QUEUE_EVENT, &chain))
        return;
    size_t written = virtio_write_spans(chain.writable, chain.writable_count, 0, &event, sizeof(event));
    virtio_push(vsock->device, QUEUE_EVENT, chain.head, (uint32_t)written);
    virtio_call(vsock->device, QUEUE_EVENT);
    vsock->owes_transport_reset = false;
}

static void vsock_start(void *state, uint64_t features)
{
    struct vsock *vsock = state;
    vsock->has_datagrams = (features & VIRTIO_VSOCK_F_DGRAM) != 0;
    if (vsock->tsi != NULL)
        tsi_start(vsock->tsi, virtio_device_loop(vsock->device));
    listeners_update(vsock);
}

static void vsock_serve(void *state, unsigned queue)
{
    struct vsock *vsock = state;
    if (queue == QUEUE_TRANSMIT)
        transmit_serve(vsock);
    else if (queue == QUEUE_RECEIVE)
        receive_pump(vsock);
    else
        send_event(vsock);
}

static void end_all(struct vsock *vsock)
{
    if (vsock->tsi != NULL)
        tsi_stop(vsock->tsi);
    while (vsock->connections != NULL)
        connection_free(vsock->connections);
    receive_clear(vsock);
}

static void rest(struct vsock *vsock)
{
    for (size_t i = 0; i < vsock->listener_count; i++)
        loop_set_events(vsock->listeners[i].source, 0);
    vsock->are_listeners_on = false;
}

static void vsock_stop(void *state)
{
    struct vsock *vsock = state;
    vsock->owes_transport_reset |= vsock->connections != NULL;
    end_all(vsock);
    rest(vsock);
}

/* ---- life ---- */

static void vsock_free(void *state)
{
    struct vsock *vsock = state;
    vsock->tsi = tsi_free(vsock->tsi);
    for (size_t i = 0; i < vsock->listener_count; i++)
        listener_close(&vsock->listeners[i]);
    for (size_t i = 0; i < vsock->route_count; i++)
        free(vsock->routes[i].path);
    loop_source_free(vsock->shortage_timer);
    table_free(&vsock->table);
    free(vsock->listeners);
    free(vsock->routes);
    free(vsock->copy);
    free(vsock);
}

static const struct virtio_device_ops vsock_ops = {
    .type = VIRTIO_TYPE_VSOCK,
    .name = "vsock",
    .start = vsock_start,
    .serve = vsock_serve,
    .stop = vsock_stop,
    .free = vsock_free,
};

static bool has_streams(const struct vial_vsock_ops *ops)
{
    return ops->connect != NULL && ops->read != NULL && ops->write != NULL && ops->poll_fd != NULL &&
           ops->close != NULL;
}

static int check_options(const struct vsock_options *options)
{
    for (size_t i = 0; i < options->port_count; i++) {
        const struct vsock_port *port = &options->ports[i];
        if (port->path == NULL || port->path[0] == '\0')
            return -EINVAL;
        for (size_t j = 0; j < i; j++)
            if (options->ports[j].port == port->port && options->ports[j].listens == port->listens)
                return -EEXIST;
    }
    for (size_t i = 0; i < options->custom_port_count; i++) {
        const struct vsock_custom_port *custom = &options->custom_ports[i];
        if (custom->ops == NULL || (!has_streams(custom->ops) && custom->ops->send == NULL) ||
            (custom->ops->connect != NULL && !has_streams(custom->ops)))
            return -EINVAL;
        for (size_t j = 0; j < i; j++)
            if (options->custom_ports[j].port == custom->port)
                return -EEXIST;
        for (size_t j = 0; j < options->port_count; j++)
            if (options->ports[j].port == custom->port && !options->ports[j].listens)
                return -EEXIST;
    }
    return 0;
}

static int add_routes(struct vsock *vsock, const struct vsock_options *options)
{
    for (size_t i = 0; i < options->port_count; i++) {
        const struct vsock_port *port = &options->ports[i];
        if (port->listens)
            continue;
        if (strlen(port->path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
            return -ENAMETOOLONG;
        struct route *route = &vsock->routes[vsock->route_count++];
        *route = (struct route){.port = port->port, .path = alloc_string(port->path)};
        if (route->path == NULL)
            return -ENOMEM;
    }
    for (size_t i = 0; i < options->custom_port_count; i++) {
        const struct vsock_custom_port *custom = &options->custom_ports[i];
        vsock->routes[vsock->route_count++] = (struct route){
            .port = custom->port,
            .ops = custom->ops,
            .user = custom->user,
        };
    }
    return 0;
}

static int make_vsock(const struct vsock_options *options, struct vsock **ret_vsock)
{
    struct vsock *vsock = alloc_zero(sizeof(*vsock));
    if (vsock == NULL)
        return -ENOMEM;
    int result = table_init(&vsock->table);
    size_t most_routes = options->port_count + options->custom_port_count;
    if (result == 0 && most_routes > 0) {
        vsock->routes = alloc_zero(most_routes * sizeof(vsock->routes[0]));
        vsock->listeners = alloc_zero(most_routes * sizeof(vsock->listeners[0]));
        result = vsock->routes == NULL || vsock->listeners == NULL ? -ENOMEM : 0;
    }
    if (result == 0 && (options->custom_port_count > 0 || options->tsi != NULL)) {
        vsock->copy = alloc_zero(PEER_COPY_BYTES);
        result = vsock->copy == NULL ? -ENOMEM : 0;
    }
    if (result == 0)
        result = add_routes(vsock, options);
    if (result < 0)
        vsock_free(vsock);
    else
        *ret_vsock = vsock;
    return result;
}

static uint64_t features_of(const struct vsock_options *options)
{
    bool has_datagrams = options->tsi != NULL;
    for (size_t i = 0; i < options->custom_port_count; i++)
        has_datagrams |= options->custom_ports[i].ops->send != NULL;
    return VIRTIO_VSOCK_F_STREAM | (has_datagrams ? VIRTIO_VSOCK_F_DGRAM : 0);
}

static int make_device(struct vsock *vsock, const struct vsock_options *options, struct virtio_device **ret_device)
{
    static const uint16_t queue_sizes[QUEUE_COUNT] = {QUEUE_ENTRIES, QUEUE_ENTRIES, QUEUE_ENTRIES};
    struct virtio_device_options device_options = {
        .ops = &vsock_ops,
        .state = vsock,
        .features = features_of(options),
        .queue_sizes = queue_sizes,
        .queue_count = QUEUE_COUNT,
        .config_bytes = sizeof(uint64_t),
        .thread = options->tsi != NULL ? THREAD_TSI : THREAD_NET,
    };
    return virtio_device_new(&device_options, ret_device);
}

/* What needs the loop; on failure the device is freed by the caller. */
static int open_all(struct vsock *vsock, const struct vsock_options *options)
{
    int result = loop_add_timer(virtio_device_loop(vsock->device), CLOCK_NEVER, listeners_handle_timer, vsock,
                                &vsock->shortage_timer);
    for (size_t i = 0; i < options->port_count && result == 0; i++)
        if (options->ports[i].listens)
            result = listener_open(&vsock->listeners[vsock->listener_count++], vsock, &options->ports[i]);
    if (result == 0 && options->tsi != NULL)
        result = tsi_new(vsock, options->tsi, &vsock->tsi);
    return result;
}

int vsock_new(const struct vsock_options *options, struct virtio_device **ret_device)
{
    struct vsock *vsock = NULL;
    int result = check_options(options);
    if (result == 0)
        result = make_vsock(options, &vsock);
    if (result < 0)
        return result;
    struct virtio_device *device = NULL;
    result = make_device(vsock, options, &device);
    if (result < 0) {
        vsock_free(vsock);
        return result;
    }
    vsock->device = device;
    result = open_all(vsock, options);
    if (result < 0) {
        virtio_device_free(device);
        return result;
    }
    uint64_t guest_cid = PACKET_GUEST_CID;
    virtio_set_config(device, 0, &guest_cid, sizeof(guest_cid));
    *ret_device = device;
    return 0;
}
