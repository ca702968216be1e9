// SPDX-License-Identifier: Apache-2.0
/* The back end's own requests to a vhost-user front end. (QEMU, docs/interop/vhost-user, back-end communication)
 *
 * The channel is a socket that we only write to. No replies are asked for, so that a front end cannot keep a device
 * waiting. One that does not read is remembered to be owed: a bit for each ring, and one for the configuration, are all
 * there is to know, and the loop says when there is room again.
 *
 *     due ── sent ──> not due
 *         ── the socket is full: wait for room ──> sent
 *
 * Invariants: (1) the loop watches the channel exactly while something is due and it was full. (2) no call here waits.
 *
 * Trust: the channel belongs to a hostile front end, which may close it or never read.
 */
#include "virtio/vhost_channel.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/log.h"
#include "virtio/vhost_message.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static int check_socket(int fd)
{
    int domain = 0, type = 0;
    socklen_t length = sizeof(domain);
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) < 0)
        return -EINVAL;
    length = sizeof(type);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0)
        return -EINVAL;
    return domain == AF_UNIX && type == SOCK_STREAM ? 0 : -EINVAL;
}

int vhost_channel_open(struct vhost_channel *channel, int fd)
{
    auto_close int own_fd = fd;
    int result = check_socket(own_fd);
    if (result < 0)
        return result;
    vhost_channel_close(channel);
    channel->fd = steal_fd(&own_fd);
    return 0;
}

void vhost_channel_close(struct vhost_channel *channel)
{
    channel->source = loop_source_free(channel->source);
    channel->fd = fd_close(channel->fd);
    channel->is_config_due = false;
    memset(channel->rings_due, 0, sizeof(channel->rings_due));
}

/* ---- sending what is due ---- */

/* 0 when nothing is due any more, or the -errno of the first that could not be sent. */
static int send_due(struct vhost_channel *channel)
{
    int result = 0;
    if (channel->is_config_due) {
        result = vhost_send(channel->fd, VHOST_BACKEND_CONFIG_CHANGE, 0, NULL, 0);
        channel->is_config_due = result < 0;
    }
    for (unsigned i = 0; i < VIRTIO_MOST_QUEUES && result == 0; i++) {
        if (channel->rings_due[i / 8] == 0) {
            i |= 7; /* none of these eight */
            continue;
        }
        struct vhost_ring_state state = {.index = i};
        if ((channel->rings_due[i / 8] >> i % 8 & 1) == 0)
            continue;
        result = vhost_send(channel->fd, VHOST_BACKEND_VRING_CALL, 0, &state, sizeof(state));
        if (result == 0)
            channel->rings_due[i / 8] &= (uint8_t) ~(1u << i % 8);
    }
    return result;
}

static void handle_room(void *user, uint32_t what);

static void update(struct vhost_channel *channel)
{
    if (channel->fd < 0)
        return;
    int result = send_due(channel);
    if (result == 0)
        channel->source = loop_source_free(channel->source);
    else if (result == -EAGAIN && channel->source == NULL)
        result = loop_add_fd(channel->loop, channel->fd, EPOLLOUT, handle_room, channel, &channel->source);
    if (result < 0 && result != -EAGAIN) {
        log_info("vhost_user.channel_closed", LOG_ERRNO(result));
        vhost_channel_close(channel);
    }
}

static void handle_room(void *user, uint32_t what)
{
    (void)what;
    update(user);
}

void vhost_channel_call(struct vhost_channel *channel, unsigned ring)
{
    channel->rings_due[ring / 8] |= (uint8_t)(1u << ring % 8);
    update(channel);
}

void vhost_channel_change_config(struct vhost_channel *channel)
{
    channel->is_config_due = true;
    update(channel);
}
