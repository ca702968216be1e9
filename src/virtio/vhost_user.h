// SPDX-License-Identifier: Apache-2.0
/* A virtio device behind a vhost-user socket: the driver is in another process, or reached by way of one. */
#ifndef VIRTIO_VHOST_USER_H
#define VIRTIO_VHOST_USER_H

#include "virtio/device.h"

/* Features of the protocol, for vhost_user_options.protocol_without. */
#define VHOST_USER_F_MQ (UINT64_C(1) << 0)
#define VHOST_USER_F_REPLY_ACK (UINT64_C(1) << 3)
#define VHOST_USER_F_BACKEND_REQ (UINT64_C(1) << 5)
#define VHOST_USER_F_CONFIG (UINT64_C(1) << 9)
#define VHOST_USER_F_INFLIGHT (UINT64_C(1) << 12) /* offered only for devices that are out of order */
#define VHOST_USER_F_RESET_DEVICE (UINT64_C(1) << 13)
#define VHOST_USER_F_INBAND (UINT64_C(1) << 14) /* offered only with REPLY_ACK and BACKEND_REQ */
#define VHOST_USER_F_STATUS (UINT64_C(1) << 16)

struct vhost_user;

/* The callbacks run on the device's thread, and may not free the server. Any of them may be NULL. */
struct vhost_user_options {
    int listen_fd;     /* a listening Unix stream socket, or one that comes to listen later, in whatever process shares
                        * it; owned from a successful vhost_user_new on, and made non-blocking */
    int connection_fd; /* or a connected one, owned likewise; the other is -1 */
    uint64_t protocol_without; /* features of the protocol that are not offered */
    bool is_once;              /* one connection in its life: then the listener is closed */
    bool signals_sockets_only; /* call and error descriptors have to be sockets: writing to these never waits, whatever
                                * the peer does to them */

    bool (*accepts_memory)(void *user, int fd);    /* whether guest memory may lie in this file; NULL: in any */
    void (*out_of_room)(void *user, int os_error); /* this process may not map what the peer shares: ENOMEM,
                                                    * or have another descriptor: EMFILE */
    void (*connected)(void *user);                 /* a connection was accepted */
    void (*disconnected)(void *user); /* a connection has ended, however: nothing of the peer is held any more */
    void *user;
};

/* Attaches the device, which is borrowed and not launched yet; its queues grow to the largest that there are, because
 * the protocol cannot tell a front end how large they may be. 0 or -errno. */
int vhost_user_new(struct virtio_device *device, const struct vhost_user_options *options,
                   struct vhost_user **ret_server);

/* The peer is dead, or about to be (then once more when it is). From any thread; never waits. The connection ends,
 * there will not be another one, and no write to a descriptor of a dead peer keeps the device's thread. */
void vhost_user_abandon(struct vhost_user *server);

/* Ends the connection and stops the device. Before virtio_device_free; from any thread. Accepts NULL and returns
 * NULL. */
struct vhost_user *vhost_user_free(struct vhost_user *server);

#endif
