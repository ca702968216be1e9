// SPDX-License-Identifier: Apache-2.0
/* Messages of the vhost-user protocol, as a back end receives and answers them. */
#ifndef VIRTIO_VHOST_MESSAGE_H
#define VIRTIO_VHOST_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum vhost_request { /* of the front end; those that we know */
                     VHOST_GET_FEATURES = 1,
                     VHOST_SET_FEATURES = 2,
                     VHOST_SET_OWNER = 3,
                     VHOST_RESET_OWNER = 4,
                     VHOST_SET_MEM_TABLE = 5,
                     VHOST_SET_VRING_NUM = 8,
                     VHOST_SET_VRING_ADDR = 9,
                     VHOST_SET_VRING_BASE = 10,
                     VHOST_GET_VRING_BASE = 11,
                     VHOST_SET_VRING_KICK = 12,
                     VHOST_SET_VRING_CALL = 13,
                     VHOST_SET_VRING_ERR = 14,
                     VHOST_GET_PROTOCOL_FEATURES = 15,
                     VHOST_SET_PROTOCOL_FEATURES = 16,
                     VHOST_GET_QUEUE_NUM = 17,
                     VHOST_SET_VRING_ENABLE = 18,
                     VHOST_SET_BACKEND_REQ_FD = 21,
                     VHOST_GET_CONFIG = 24,
                     VHOST_SET_CONFIG = 25,
                     VHOST_GET_INFLIGHT_FD = 31,
                     VHOST_SET_INFLIGHT_FD = 32,
                     VHOST_RESET_DEVICE = 34,
                     VHOST_VRING_KICK = 35,
                     VHOST_SET_STATUS = 39,
                     VHOST_GET_STATUS = 40,
                     VHOST_REQUESTS,
};

enum vhost_backend_request { /* of ours, over the channel for them */
                             VHOST_BACKEND_CONFIG_CHANGE = 2,
                             VHOST_BACKEND_VRING_CALL = 4,
};

enum { /* the header's flags */
       VHOST_VERSION = 1,
       VHOST_VERSION_MASK = 3,
       VHOST_REPLY = 4,
       VHOST_NEED_REPLY = 8,
};

enum {
    VHOST_MOST_REGIONS = 8,
    VHOST_MOST_FDS = VHOST_MOST_REGIONS,
    VHOST_MOST_CONFIG_BYTES = 256,
    VHOST_RING_MASK = 0xff, /* of the number that comes with a descriptor: the ring, */
    VHOST_NO_FD = 0x100,    /* and that there is no descriptor */
};

struct vhost_header {
    uint32_t request, flags, size;
};

struct vhost_ring_state {
    uint32_t index, number;
};

struct vhost_ring_addresses {
    uint32_t index, flags;
    uint64_t descriptors, used, available, log; /* in the front end's address space */
};

struct vhost_region {
    uint64_t guest, size_bytes, user, offset;
};

struct vhost_regions {
    uint32_t count, padding;
    struct vhost_region regions[VHOST_MOST_REGIONS];
};

enum { VHOST_CONFIG_HEADER_BYTES = 12 };

struct vhost_config {
    uint32_t offset, size, flags;
    uint8_t bytes[VHOST_MOST_CONFIG_BYTES];
};

/* The last two are followed by 4 bytes of padding where the front end sends its own struct, as QEMU does. */
struct vhost_inflight_description {
    uint64_t size_bytes, offset;
    uint16_t queue_count, entries;
};
enum { VHOST_INFLIGHT_BYTES = 20 };

struct vhost_message {
    struct vhost_header header;
    union {
        uint64_t number;
        struct vhost_ring_state state;
        struct vhost_ring_addresses addresses;
        struct vhost_regions memory;
        struct vhost_config config;
        struct vhost_inflight_description inflight;
    };
};
_Static_assert(offsetof(struct vhost_message, number) == 16, "the payload is aligned, unlike on the wire");

/* What has come of a message so far. Starts as VHOST_RECEIVER_NONE. */
struct vhost_receiver {
    struct vhost_message message;
    size_t filled;           /* bytes of header and payload */
    int fds[VHOST_MOST_FDS]; /* owned */
    unsigned fd_count;
};
#define VHOST_RECEIVER_NONE ((struct vhost_receiver){0})

/* Takes what is there, at most up to the end of one message. 1: the receiver holds a whole one. 0: the rest is still to
 * come. -ECONNRESET: the peer has gone. -EPROTO: what came cannot be a message, or not one that we know, or its
 * descriptors are not those that go with it; *ret_why says what. Another -errno is the socket's. Never waits. */
int vhost_receive(struct vhost_receiver *receiver, int socket_fd, const char **ret_why);

/* Takes the descriptor out of a whole message: the i-th, or -1. */
int vhost_take_fd(struct vhost_receiver *receiver, unsigned index);

/* Closes what was not taken and makes room for the next message. */
void vhost_receiver_clear(struct vhost_receiver *receiver);

/* Whether a front end may have its answer only in a reply of its own form. */
bool vhost_has_reply(uint32_t request);

/* Sends a message of `size` bytes of payload: 0, or -errno: -EAGAIN when nothing was sent, as the peer does not read.
 * Never waits and raises no signal. */
int vhost_send(int socket_fd, uint32_t request, uint32_t flags, const void *payload, uint32_t size);

/* The same with a descriptor, which stays the caller's; -1 for none. */
int vhost_send_fd(int socket_fd, uint32_t request, uint32_t flags, const void *payload, uint32_t size, int fd);

#endif
