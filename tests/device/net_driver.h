// SPDX-License-Identifier: Apache-2.0
/* A driver of a network device for tests: frames go out and come in, with any header, in any pieces. */
#ifndef NET_DRIVER_H
#define NET_DRIVER_H

#include "device/net/frame.h"
#include "device/net/net.h"
#include "virtio_driver.h"

#include <sys/types.h>

enum { NET_DRIVER_ENTRIES = 256, NET_DRIVER_SLOTS = 64, NET_DRIVER_SLOT_BYTES = 0x11000 };
enum { NET_DRIVER_LONGEST = LIMIT_NET_FRAME_BYTES };

struct net_driver {
    struct virtio_driver driver;
    uint32_t receive_bytes; /* of each receive buffer */
    unsigned pair;          /* the one that is used: 0 at first */
    unsigned sent;          /* slots in use */
};

/* Frames of this length and number have contents that no other has. */
void net_driver_make_frame(uint8_t *frame, size_t length, unsigned number);
bool net_driver_is_frame(const uint8_t *frame, size_t length, unsigned number);

/* 0 or what net_new said. */
int net_driver_begin(struct net_driver *front, const struct net_options *options);
void net_driver_end(struct net_driver *front);

/* Starts, or starts again, with the queues of a bit mask; a receive buffer is to have so many bytes. */
bool net_driver_start(struct net_driver *front, uint64_t features, unsigned queues, uint32_t receive_bytes);

/* Offers so many receive buffers, and kicks. */
void net_driver_fill(struct net_driver *front, unsigned count);

/* Takes a frame, with its header, and offers its buffers again: its length, or -1 when there is none. */
ssize_t net_driver_receive(struct net_driver *front, struct net_header *ret_header, uint8_t *frame);

/* Offers a chain of header and frame, cut behind each `piece` bytes (0: in one piece), at most four of them; with
 * net_driver_kick it goes out. False when all slots are in use. */
bool net_driver_offer(struct net_driver *front, const struct net_header *header, const void *frame, size_t length,
                      size_t piece);
void net_driver_kick(struct net_driver *front);

/* The same at once, waiting for the chain to come back unless the device is a launched one. */
bool net_driver_send(struct net_driver *front, const struct net_header *header, const void *frame, size_t length);

/* Takes what came back: how many chains. */
unsigned net_driver_reap(struct net_driver *front);

uint16_t net_driver_status(struct net_driver *front);
struct net_stats net_driver_stats(const struct net_driver *front);
uint64_t net_driver_offered(const struct net_driver *front);

#endif
