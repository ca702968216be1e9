// SPDX-License-Identifier: Apache-2.0
/* The requests of a vhost-user front end. (QEMU, docs/interop/vhost-user, front-end message types)
 *
 * One function a request and one table for all, which says what has to be agreed on for a request to be made. A
 * function checks everything before it changes anything. What it refuses is answered with its errno where the front end
 * asked for an acknowledgement (REPLY_ACK), and ends the connection otherwise: a peer that sends what it may not is not
 * to be trusted with the rest, and would wait for something that does not come.
 *
 * Invariants: (1) a request that was refused has changed nothing. (2) a request is answered exactly if the front end
 * waits for it: it has a reply of its own, or asks for an acknowledgement.
 *
 * Trust: requests come from a hostile front end; vhost_message.c has checked their form, but no value in them.
 */
#include "virtio/vhost_server.h"

#include "base/fd.h"

#include <errno.h>

static int refuse(struct vhost_user *server, int result, const char *why)
{
    server->why = why;
    return result;
}

struct reply {
    uint32_t size; /* of the payload */
    union {
        uint64_t number;
        struct vhost_ring_state state;
        struct vhost_config config;
        struct vhost_inflight_description inflight;
    };
    int fd; /* owned: goes with the reply, or -1 */
};
#define REPLY_NONE ((struct reply){.fd = -1})

static int reply_number(struct reply *reply, uint64_t number)
{
    reply->size = sizeof(number);
    reply->number = number;
    return 0;
}

/* ---- features ---- */

static int get_features(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    (void)message;
    return reply_number(reply, virtio_device_features(server->device) | VHOST_F_PROTOCOL_FEATURES);
}

static int set_features(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    uint64_t features = message->number;
    bool is_same = server->has_features && server->features == features;
    (void)reply;
    if ((features & ~(virtio_device_features(server->device) | VHOST_F_PROTOCOL_FEATURES)) != 0)
        return refuse(server, -EINVAL, "features were taken that are not offered");
    if ((features & VIRTIO_F_VERSION_1) == 0)
        return refuse(server, -EINVAL, "a driver of before virtio 1.0");
    if (vhost_is_any_ring_running(server))
        return is_same ? 0 : refuse(server, -EBUSY, "features change while a ring runs");
    vhost_reset_device(server); /* a driver begins anew */
    server->features = features;
    server->has_features = true;
    vhost_rings_update(server); /* those that need nothing but this */
    return 0;
}

static int get_protocol_features(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    (void)message;
    return reply_number(reply, server->offered);
}

static int set_protocol_features(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    const uint64_t needed = VHOST_USER_F_REPLY_ACK | VHOST_USER_F_BACKEND_REQ;
    uint64_t protocol = message->number;
    (void)reply;
    if ((protocol & ~server->offered) != 0)
        return refuse(server, -EINVAL, "features of the protocol were taken that are not offered");
    if ((protocol & VHOST_USER_F_INBAND) != 0 && (protocol & needed) != needed)
        return refuse(server, -EPROTO, "kicks in messages without acknowledgements or a channel");
    if (vhost_is_any_ring_running(server) && protocol != server->protocol)
        return refuse(server, -EBUSY, "features of the protocol change while a ring runs");
    server->protocol = protocol;
    vhost_rings_update(server);
    return 0;
}

static int set_owner(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    (void)server, (void)message, (void)reply; /* whose the session is, the connection says */
    return 0;
}

static int get_queue_num(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    (void)message;
    return reply_number(reply, server->ring_count);
}

static int set_backend_fd(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    (void)message, (void)reply;
    int result = vhost_channel_open(&server->channel, vhost_take_fd(&server->receiver, 0));
    return result < 0 ? refuse(server, result, "the channel is no Unix stream socket") : 0;
}

/* ---- memory ---- */

static int set_mem_table(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    struct vhost_memory memory;
    (void)reply;
    for (unsigned i = 0; i < server->receiver.fd_count && server->accepts_memory != NULL; i++)
        if (!server->accepts_memory(server->user, server->receiver.fds[i]))
            return refuse(server, -EACCES, "the memory lies in a file that is not accepted");
    int result = vhost_memory_open(&message->memory, server->receiver.fds, &memory);
    bool is_ours = result == -ENOMEM || result == -EMFILE; /* what we lack; else it is the peer's mistake */
    if (is_ours && server->out_of_room != NULL)
        server->out_of_room(server->user, -result);
    if (result < 0)
        return refuse(server, result, "a memory table that cannot be mapped");
    result = vhost_rings_move(server, &memory);
    if (result == 0)
        return 0;
    vhost_memory_close(&memory);
    return refuse(server, result, "a memory table without a ring that runs");
}

/* ---- rings ---- */

/* The ring with this number: 0 or -EINVAL. */
static int find_ring(struct vhost_user *server, uint64_t index, struct vhost_ring **ret_ring)
{
    if (index >= server->ring_count)
        return refuse(server, -EINVAL, "there is no such ring");
    *ret_ring = &server->rings[index];
    return 0;
}

/* The same for what cannot be changed while it runs. */
static int find_resting_ring(struct vhost_user *server, uint64_t index, struct vhost_ring **ret_ring)
{
    int result = find_ring(server, index, ret_ring);
    if (result == 0 && (*ret_ring)->is_running)
        result = refuse(server, -EBUSY, "a ring is changed while it runs");
    return result;
}

static int set_vring_num(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    struct vhost_ring *ring = NULL;
    uint32_t entries = message->state.number;
    (void)reply;
    int result = find_resting_ring(server, message->state.index, &ring);
    if (result < 0)
        return result;
    if (entries == 0 || (entries & (entries - 1)) != 0 ||
        entries > virtio_device_queue_size(server->device, message->state.index))
        return refuse(server, -EINVAL, "a ring cannot have this size");
    ring->entries = (uint16_t)entries;
    ring->has_size = true;
    ring->has_place = false; /* it was checked with the old size */
    return 0;
}

static int set_vring_addr(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    const struct vhost_ring_addresses *addresses = &message->addresses;
    struct queue_layout layout;
    struct vhost_ring *ring = NULL;
    (void)reply;
    int result = find_resting_ring(server, addresses->index, &ring);
    if (result < 0)
        return result;
    if (addresses->flags != 0)
        return refuse(server, -EINVAL, "a ring is to be logged, which is not offered");
    if (server->memory.memory == NULL || !ring->has_size)
        return refuse(server, -EINVAL, "a ring has a place before it has memory and a size");
    struct vhost_place place = {addresses->descriptors, addresses->available, addresses->used};
    result = vhost_ring_layout(server, &server->memory, ring, &place, &layout);
    if (result < 0)
        return refuse(server, result, "a ring lies where it cannot be");
    ring->place = place;
    ring->has_place = true;
    vhost_ring_update(server, ring);
    return 0;
}

static int set_vring_base(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    struct vhost_ring *ring = NULL;
    (void)reply;
    int result = find_resting_ring(server, message->state.index, &ring);
    if (result < 0)
        return result;
    if (message->state.number > UINT16_MAX)
        return refuse(server, -EINVAL, "a ring cannot begin there");
    ring->base = (uint16_t)message->state.number;
    ring->has_base = true;
    vhost_ring_update(server, ring);
    return 0;
}

static int get_vring_base(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    struct vhost_ring *ring = NULL;
    int result = find_ring(server, message->state.index, &ring);
    if (result < 0)
        return result;
    vhost_ring_stop(server, ring);
    reply->size = sizeof(reply->state);
    reply->state = (struct vhost_ring_state){.index = message->state.index, .number = ring->base};
    return 0;
}

static int set_vring_enable(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    struct vhost_ring *ring = NULL;
    (void)reply;
    int result = find_ring(server, message->state.index, &ring);
    if (result < 0)
        return result;
    if (message->state.number > 1)
        return refuse(server, -EINVAL, "a ring is neither enabled nor disabled");
    ring->is_enabled = message->state.number == 1;
    ring->is_disabled = !ring->is_enabled;
    vhost_ring_update(server, ring);
    return 0;
}

/* Deprecated, as back ends differed over it; to stop all rings is what the protocol recommends. */
static int reset_owner(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    (void)message, (void)reply;
    for (unsigned i = 0; i < server->ring_count; i++)
        vhost_ring_stop(server, &server->rings[i]);
    return 0;
}

/* ---- what is in flight ---- */

static int get_inflight_fd(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    reply->inflight = message->inflight;
    if (message->inflight.queue_count > server->ring_count)
        return refuse(server, -EINVAL, "more rings in flight than there are");
    int result = vhost_inflight_make(&reply->inflight, &reply->fd);
    reply->size = message->header.size;
    return result < 0 ? refuse(server, result, "no memory for what is in flight") : 0;
}

static int set_inflight_fd(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    struct vhost_inflight inflight;
    (void)reply;
    if (message->inflight.queue_count > server->ring_count)
        return refuse(server, -EINVAL, "more rings in flight than there are");
    if (vhost_is_any_ring_running(server))
        return refuse(server, -EBUSY, "what is in flight changes while a ring runs");
    int result = vhost_inflight_open(&message->inflight, server->receiver.fds[0], &inflight);
    if (result < 0)
        return refuse(server, result, "memory for what is in flight that cannot be mapped");
    vhost_inflight_close(&server->inflight);
    server->inflight = inflight;
    return 0;
}

/* ---- signals ---- */

static int set_vring_kick(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    struct vhost_ring *ring = NULL;
    unsigned index = message->number & VHOST_RING_MASK;
    bool has_fd = (message->number & VHOST_NO_FD) == 0;
    (void)reply;
    int result = message->number > (VHOST_RING_MASK | VHOST_NO_FD) ? -EINVAL : find_ring(server, index, &ring);
    if (result < 0)
        return refuse(server, result, "there is no such ring");
    if (!vhost_ring_is_set_up(server, ring))
        return refuse(server, -EINVAL, "a ring is started before it is set up");
    if (!has_fd && !vhost_has_protocol(server, VHOST_USER_F_INBAND))
        return refuse(server, -EINVAL, "a ring without kicks, which would have to be polled");
    result = virtio_device_watch_kick(server->device, index, vhost_take_fd(&server->receiver, 0));
    if (result < 0)
        return refuse(server, result, "a kick that cannot be waited for");
    ring->has_kick = has_fd;
    vhost_ring_update(server, ring);
    return 0;
}

/* Takes the signal that came with the message, if one did. */
static int replace_signal(struct vhost_user *server, struct vhost_signal *signal)
{
    struct vhost_signal before = *signal, after = VHOST_SIGNAL_NONE;
    int fd = vhost_take_fd(&server->receiver, 0);
    int result = fd < 0 ? 0 : vhost_signal_open(fd, &after);
    if (result < 0)
        return refuse(server, result, "a signal is neither an eventfd nor a pipe nor a socket");
    if (fd >= 0 && server->signals_sockets_only && after.kind != VHOST_SIGNAL_SOCKET) {
        vhost_signal_close(&after);
        return refuse(server, -EINVAL, "a signal is no socket");
    }
    pthread_mutex_lock(&server->lock);
    *signal = after;
    pthread_mutex_unlock(&server->lock);
    vhost_signal_close(&before);
    return 0;
}

static int find_signalled_ring(struct vhost_user *server, const struct vhost_message *message,
                               struct vhost_ring **ret_ring)
{
    if (message->number > (VHOST_RING_MASK | VHOST_NO_FD))
        return refuse(server, -EINVAL, "there is no such ring");
    return find_ring(server, message->number & VHOST_RING_MASK, ret_ring);
}

static int set_vring_call(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    struct vhost_ring *ring = NULL;
    (void)reply;
    int result = find_signalled_ring(server, message, &ring);
    if (result == 0)
        result = replace_signal(server, &ring->call);
    /* The last call may have gone to the descriptor before. */
    if (result == 0 && ring->is_running)
        vhost_signal_peer(server, &ring->call);
    return result;
}

static int set_vring_err(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    struct vhost_ring *ring = NULL;
    (void)reply;
    int result = find_signalled_ring(server, message, &ring);
    return result == 0 ? replace_signal(server, &ring->error) : result;
}

static int vring_kick(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    struct vhost_ring *ring = NULL;
    (void)reply;
    int result = find_ring(server, message->state.index, &ring);
    if (result < 0)
        return result;
    if (message->state.number != 0 || !vhost_ring_is_set_up(server, ring))
        return refuse(server, -EINVAL, "a kick for a ring that is not set up");
    if (ring->is_running) /* a disabled one is served when it is enabled */
        virtio_device_serve(server->device, message->state.index);
    return 0;
}

/* ---- the configuration space and the status ---- */

static int get_config(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    const struct vhost_config *asked = &message->config;
    reply->size = 0; /* means an error */
    if (asked->offset > VHOST_MOST_CONFIG_BYTES || asked->size > VHOST_MOST_CONFIG_BYTES - asked->offset)
        return 0;
    reply->size = VHOST_CONFIG_HEADER_BYTES + asked->size;
    reply->config = (struct vhost_config){.offset = asked->offset, .size = asked->size, .flags = asked->flags};
    virtio_device_read_config(server->device, asked->offset, reply->config.bytes, asked->size);
    server->was_config_read = true;
    return 0;
}

static int set_config(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    const struct vhost_config *wanted = &message->config;
    (void)reply;
    if (wanted->flags != 0)
        return refuse(server, -EINVAL, "the configuration of a guest that moves, which is not offered");
    if (!virtio_device_write_config(server->device, wanted->offset, wanted->bytes, wanted->size))
        return refuse(server, -EINVAL, "a part of the configuration that cannot be written");
    return 0;
}

static int reset_request(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    (void)message, (void)reply;
    vhost_reset(server);
    vhost_inflight_clear(&server->inflight); /* the driver has forgotten it, too */
    return 0;
}

/* The rings say when they are ready; of the status only a reset matters (virtio 1.2, 2.1). */
static int set_status(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    uint64_t status = message->number;
    if (status > UINT8_MAX)
        return refuse(server, -EINVAL, "a status that cannot be");
    if (status == 0 || (status & VIRTIO_FAILED) != 0)
        reset_request(server, message, reply);
    server->status |= (uint8_t)(status & ~(uint64_t)VIRTIO_NEEDS_RESET);
    return 0;
}

static int get_status(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    (void)message;
    return reply_number(reply, server->status | (server->needs_reset ? VIRTIO_NEEDS_RESET : 0u));
}

/* ---- the table ---- */

struct handler {
    int (*handle)(struct vhost_user *server, const struct vhost_message *message, struct reply *reply);
    uint64_t needs; /* a feature of the protocol that the front end took */
};

static const struct handler handlers[VHOST_REQUESTS] = {
    [VHOST_GET_FEATURES] = {get_features, 0},
    [VHOST_SET_FEATURES] = {set_features, 0},
    [VHOST_SET_OWNER] = {set_owner, 0},
    [VHOST_RESET_OWNER] = {reset_owner, 0},
    [VHOST_SET_MEM_TABLE] = {set_mem_table, 0},
    [VHOST_SET_VRING_NUM] = {set_vring_num, 0},
    [VHOST_SET_VRING_ADDR] = {set_vring_addr, 0},
    [VHOST_SET_VRING_BASE] = {set_vring_base, 0},
    [VHOST_GET_VRING_BASE] = {get_vring_base, 0},
    [VHOST_SET_VRING_KICK] = {set_vring_kick, 0},
    [VHOST_SET_VRING_CALL] = {set_vring_call, 0},
    [VHOST_SET_VRING_ERR] = {set_vring_err, 0},
    [VHOST_GET_PROTOCOL_FEATURES] = {get_protocol_features, 0},
    [VHOST_SET_PROTOCOL_FEATURES] = {set_protocol_features, 0},
    [VHOST_GET_QUEUE_NUM] = {get_queue_num, VHOST_USER_F_MQ},
    [VHOST_SET_VRING_ENABLE] = {set_vring_enable, 0},
    [VHOST_SET_BACKEND_REQ_FD] = {set_backend_fd, VHOST_USER_F_BACKEND_REQ},
    [VHOST_GET_CONFIG] = {get_config, VHOST_USER_F_CONFIG},
    [VHOST_SET_CONFIG] = {set_config, VHOST_USER_F_CONFIG},
    [VHOST_GET_INFLIGHT_FD] = {get_inflight_fd, VHOST_USER_F_INFLIGHT},
    [VHOST_SET_INFLIGHT_FD] = {set_inflight_fd, VHOST_USER_F_INFLIGHT},
    [VHOST_RESET_DEVICE] = {reset_request, VHOST_USER_F_RESET_DEVICE},
    [VHOST_VRING_KICK] = {vring_kick, VHOST_USER_F_INBAND},
    [VHOST_SET_STATUS] = {set_status, VHOST_USER_F_STATUS},
    [VHOST_GET_STATUS] = {get_status, VHOST_USER_F_STATUS},
};

static int call_handler(struct vhost_user *server, const struct vhost_message *message, struct reply *reply)
{
    uint32_t request = message->header.request;
    if (request >= VHOST_REQUESTS || handlers[request].handle == NULL)
        return refuse(server, -EOPNOTSUPP, "a request that is not known");
    if (!vhost_has_protocol(server, handlers[request].needs))
        return refuse(server, -EOPNOTSUPP, "a request that was not agreed on");
    return handlers[request].handle(server, message, reply);
}

static int send_reply(struct vhost_user *server, uint32_t request, const struct reply *reply)
{
    int result = vhost_send_fd(server->fd, request, VHOST_REPLY, &reply->number, reply->size, reply->fd);
    return result == -EAGAIN ? refuse(server, -EPROTO, "replies are not read") : result;
}

/* For a request without a reply of its own: acknowledges it, if that is wanted. */
static int acknowledge(struct vhost_user *server, const struct vhost_header *header, int result)
{
    struct reply reply = REPLY_NONE;
    bool is_wanted = (header->flags & VHOST_NEED_REPLY) != 0;
    /* The request that agrees on acknowledgements may be the first to want one. */
    if (is_wanted && !vhost_has_protocol(server, VHOST_USER_F_REPLY_ACK))
        return result < 0 ? result : refuse(server, -EPROTO, "an acknowledgement that was not agreed on");
    if (!is_wanted || result == -EPROTO)
        return result;
    if (result < 0)
        virtio_device_blame(server->device, server->why);
    reply_number(&reply, (uint64_t)-result);
    return send_reply(server, header->request, &reply);
}

int vhost_handle_request(struct vhost_user *server)
{
    const struct vhost_message *message = &server->receiver.message;
    struct reply reply = REPLY_NONE;
    int result = call_handler(server, message, &reply);
    if (!vhost_has_reply(message->header.request))
        return acknowledge(server, &message->header, result);
    if (result == 0)
        result = send_reply(server, message->header.request, &reply);
    fd_close(reply.fd);
    return result;
}
