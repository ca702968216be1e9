// SPDX-License-Identifier: Apache-2.0
/* A vhost-user front end for tests: an echo device behind a server, and the other end of its socket.
 *
 *     vhost_driver_begin(&front, &(struct vhost_driver_options){.is_launched = true});
 *     vhost_driver_shake_hands(&front, VHOST_DRIVER_LIKE_UML);
 *     vhost_driver_echoes(&front, "hello");
 *     vhost_driver_end(&front);
 *
 * The driver's memory (driver.h) is guest memory; the front end has it at VHOST_DRIVER_USER. Ring 0 is the driver's.
 */
#ifndef VHOST_DRIVER_H
#define VHOST_DRIVER_H

#include "driver.h"
#include "virtio/vhost_message.h"
#include "virtio/vhost_user.h"

#include <stdatomic.h>

#define VHOST_DRIVER_USER UINT64_C(0x7f0000000000)
enum { VHOST_DRIVER_MEMORY_BYTES = 2 << 20 }; /* what driver_init makes */
enum { VHOST_DRIVER_RINGS = 2, VHOST_DRIVER_ENTRIES = 8, VHOST_DRIVER_CONFIG_BYTES = 16 };
#define VHOST_DRIVER_FEATURES (VIRTIO_F_VERSION_1 | UINT64_C(1) << 30)

struct vhost_driver_options {
    bool is_launched;
    bool listens; /* the server gets a listener; otherwise one end of a pair */
    bool is_once;
    uint64_t protocol_without;
    bool signals_sockets_only;
    bool (*accepts_memory)(void *user, int fd);
    bool is_out_of_order; /* the device says that it is */
};

struct vhost_driver {
    struct driver driver;
    struct virtio_device *device; /* owned; its state is this struct */
    struct vhost_user *server;    /* owned */
    bool is_launched;
    int fd;                         /* owned: our end of the connection */
    int listen_fd;                  /* borrowed from the server */
    int channel_fd;                 /* owned: our end of the back end's channel, or -1 */
    int kick_fd, call_fd, error_fd; /* owned: our ends for ring 0, or -1 */
    uint64_t features, protocol;    /* that were agreed on */

    /* What the device and the server said. */
    char order[64];    /* s: start, e: stop, p: a queue was paused */
    bool holds;        /* the device keeps chains instead of echoing them */
    uint16_t held[16]; /* the heads of those that it kept last, in order */
    unsigned held_count;
    atomic_uint served, connected, disconnected, config_writes;
    atomic_int out_of_room; /* what the server lacked, as errno, or 0 */
};

void vhost_driver_begin(struct vhost_driver *front, const struct vhost_driver_options *options);
void vhost_driver_end(struct vhost_driver *front);

/* A new connection to the listener, in the place of the one before. */
void vhost_driver_connect(struct vhost_driver *front);
void vhost_driver_disconnect(struct vhost_driver *front);

/* Turns a device that has no thread. */
void vhost_driver_turn(struct vhost_driver *front);

/* ---- messages ---- */

/* Sends a message as it is, right or wrong. False when the connection is closed. */
bool vhost_driver_send(struct vhost_driver *front, uint32_t request, uint32_t flags, const void *payload, uint32_t size,
                       const int *fds, unsigned fd_count);

/* The next message that comes: false when the connection was closed instead, or nothing came for five seconds. */
bool vhost_driver_receive(struct vhost_driver *front, int fd, struct vhost_message *ret_message);

/* Whether the server closes the connection. */
bool vhost_driver_is_closed(struct vhost_driver *front);

/* A request with a number as reply; UINT64_MAX when there was none. */
uint64_t vhost_driver_ask(struct vhost_driver *front, uint32_t request);

/* A request without a reply: 0 when it was accepted, the number of the acknowledgement, or -1 when the connection was
 * closed. Without REPLY_ACK a question in behind says so. */
long vhost_driver_tell(struct vhost_driver *front, uint32_t request, const void *payload, uint32_t size, int fd);
long vhost_driver_tell_number(struct vhost_driver *front, uint32_t request, uint64_t number, int fd);
long vhost_driver_tell_state(struct vhost_driver *front, uint32_t request, uint32_t index, uint32_t number);

/* ---- a whole front end ---- */

enum vhost_driver_style {
    VHOST_DRIVER_LIKE_UML,        /* everything in messages, each acknowledged */
    VHOST_DRIVER_LIKE_UML_EVENTS, /* an eventfd for kicks, a socket pair for calls */
    VHOST_DRIVER_LIKE_QEMU,       /* eventfds, and the status */
    VHOST_DRIVER_OLD,             /* no features of the protocol at all */
};

/* From the first message to a ring 0 that runs: 0, or the number of the step that failed. */
int vhost_driver_shake_hands(struct vhost_driver *front, enum vhost_driver_style style);

/* The part of it that comes before the ring. */
int vhost_driver_negotiate(struct vhost_driver *front, enum vhost_driver_style style);

/* Ring 0 from the size to what starts it: 0 or what was answered. */
long vhost_driver_set_ring(struct vhost_driver *front, uint16_t base);

/* Sends the memory table of the driver's memory, with regions of this many bytes. */
long vhost_driver_set_memory(struct vhost_driver *front, uint64_t region_bytes);

/* Sends a text over ring 0 and waits for it to come back with a call. */
bool vhost_driver_echoes(struct vhost_driver *front, const char *text);

/* Waits for a text that was offered. */
bool vhost_driver_gets(struct vhost_driver *front, const char *text);
void vhost_driver_kick(struct vhost_driver *front);
bool vhost_driver_was_called(struct vhost_driver *front);

#endif
