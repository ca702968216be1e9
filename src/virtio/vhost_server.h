// SPDX-License-Identifier: Apache-2.0
/* What the parts of the vhost-user server share. See vhost_user.c for how they work together. */
#ifndef VIRTIO_VHOST_SERVER_H
#define VIRTIO_VHOST_SERVER_H

#include "virtio/vhost_channel.h"
#include "virtio/vhost_inflight.h"
#include "virtio/vhost_memory.h"
#include "virtio/vhost_message.h"
#include "virtio/vhost_signal.h"
#include "virtio/vhost_user.h"

#include <pthread.h>
#include <stdatomic.h>

/* Among the device's features, but the transport's own: the front end knows of features of the protocol. */
#define VHOST_F_PROTOCOL_FEATURES (UINT64_C(1) << 30)

struct vhost_place { /* of a ring, in the front end's address space */
    uint64_t descriptors, available, used;
};

struct vhost_ring {
    bool has_size, has_place, has_base, has_kick, is_running;
    bool is_enabled, is_disabled; /* as the front end said; neither before it did */
    uint16_t entries, base;
    struct vhost_place place;
    struct vhost_signal call, error; /* changed under the lock */
};

struct vhost_user {
    struct virtio_device *device; /* borrowed */
    uint64_t offered;             /* of the protocol's features */
    bool is_once;
    bool signals_sockets_only;
    bool (*accepts_memory)(void *user, int fd);
    void (*out_of_room)(void *user, int os_error);
    void (*connected)(void *user);
    void (*disconnected)(void *user);
    void *user; /* borrowed */

    int listen_fd; /* owned, or -1 */
    struct loop_source *listen_source;
    struct loop_source *source;            /* of the connection */
    unsigned connections, accept_failures; /* so far */
    atomic_bool is_abandoned;

    pthread_mutex_t lock; /* for vhost_user_abandon: guards the connection's descriptor, and the rings' signals */
    int fd;               /* owned: the connection, or -1 */

    /* Of the connection: */
    struct vhost_receiver receiver;
    const char *why; /* the request was refused, or the connection ended */
    uint64_t features, protocol;
    bool has_features, has_begun, needs_reset;
    bool was_config_read; /* by the front end, which may keep it */
    uint8_t status;       /* without NEEDS_RESET */
    struct vhost_memory memory;
    struct vhost_inflight inflight;
    struct vhost_channel channel;
    unsigned ring_count;
    struct vhost_ring rings[];
};

/* ---- vhost_rings.c ---- */

bool vhost_has_protocol(const struct vhost_user *server, uint64_t feature);

/* Whether the ring lacks nothing but what starts it. */
bool vhost_ring_is_set_up(const struct vhost_user *server, const struct vhost_ring *ring);
bool vhost_is_any_ring_running(const struct vhost_user *server);

/* Where a ring at this place lies in this memory: 0, or -EINVAL or -EFAULT where it cannot be. */
int vhost_ring_layout(const struct vhost_user *server, const struct vhost_memory *memory, const struct vhost_ring *ring,
                      const struct vhost_place *place, struct queue_layout *ret_layout);

/* Starts or pauses the ring, after anything has changed that decides about it. */
void vhost_ring_update(struct vhost_user *server, struct vhost_ring *ring);
void vhost_rings_update(struct vhost_user *server);

/* Stops the ring: it needs a new base, and a kick. */
void vhost_ring_stop(struct vhost_user *server, struct vhost_ring *ring);

/* Moves everything to other memory, which is taken over: 0, or -EFAULT when a ring that runs does not lie in it. */
int vhost_rings_move(struct vhost_user *server, const struct vhost_memory *memory);

/* The device lets go of everything and begins anew with the next ring that runs; the second one forgets the rings and
 * the status, too, but for the rings' signals. What was in flight stays noted as that. */
void vhost_reset_device(struct vhost_user *server);
void vhost_reset(struct vhost_user *server);

/* Signals, if there is such a signal. */
void vhost_signal_peer(const struct vhost_user *server, const struct vhost_signal *signal);

/* ---- vhost_requests.c ---- */

/* Handles the whole message that the receiver holds, and answers it. 0; or -errno when the connection is to end, with
 * the reason in server->why. */
int vhost_handle_request(struct vhost_user *server);

#endif
