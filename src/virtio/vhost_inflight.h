// SPDX-License-Identifier: Apache-2.0
/* The memory in which a vhost-user back end notes what is in flight, kept by the front end. */
#ifndef VIRTIO_VHOST_INFLIGHT_H
#define VIRTIO_VHOST_INFLIGHT_H

#include "virtio/vhost_message.h"

struct vhost_inflight {
    uint8_t *bytes; /* owned mapping; NULL without one */
    size_t queue_bytes;
    uint16_t queue_count, entries;
};

/* New memory for so many queues, of QUEUE_MOST_ENTRIES each, whatever the description says of that: 0 and a descriptor
 * that the caller closes, and the description with its size; or -errno. */
int vhost_inflight_make(struct vhost_inflight_description *description, int *ret_fd);

/* Maps what a front end kept, of the descriptor, which is borrowed: 0, -EINVAL for a description that cannot be or a
 * file that is too short for it, or -errno. */
int vhost_inflight_open(const struct vhost_inflight_description *description, int fd,
                        struct vhost_inflight *ret_inflight);
void vhost_inflight_close(struct vhost_inflight *inflight);

/* The part of a queue with so many entries, or NULL where there is none for it. */
uint8_t *vhost_inflight_region(const struct vhost_inflight *inflight, unsigned queue, uint16_t entries);

/* Nothing is in flight any more. */
void vhost_inflight_clear(const struct vhost_inflight *inflight);

#endif
