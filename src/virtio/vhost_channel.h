// SPDX-License-Identifier: Apache-2.0
/* The back end's own requests to a vhost-user front end: calls and changes of the configuration, in messages. */
#ifndef VIRTIO_VHOST_CHANNEL_H
#define VIRTIO_VHOST_CHANNEL_H

#include "base/loop.h"
#include "virtio/device.h"

struct vhost_channel {
    struct loop *loop;          /* borrowed: the device's */
    int fd;                     /* owned; -1 while there is no channel */
    struct loop_source *source; /* only while something is due */
    bool is_config_due;
    uint8_t rings_due[(VIRTIO_MOST_QUEUES + 7) / 8]; /* a bit each */
};

/* Takes the descriptor, also on failure, in the place of the one before: 0, or -EINVAL for what is not a connected Unix
 * stream socket. */
int vhost_channel_open(struct vhost_channel *channel, int fd);
void vhost_channel_close(struct vhost_channel *channel);

/* At once, or when the front end has read what it was sent before. Nothing happens without a channel. */
void vhost_channel_call(struct vhost_channel *channel, unsigned ring);
void vhost_channel_change_config(struct vhost_channel *channel);

#endif
