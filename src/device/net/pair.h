// SPDX-License-Identifier: Apache-2.0
/* The inside of a network device: the device, and its pairs of queues, each with a backend. */
#ifndef DEVICE_NET_PAIR_H
#define DEVICE_NET_PAIR_H

#include "device/net/backend.h"
#include "device/net/frame.h"
#include "device/net/offload.h"
#include "device/net/pool.h"

#include <stdatomic.h>

struct net;

struct net_pair {
    struct net *net; /* borrowed: whose it is */
    unsigned index;
    struct net_backend *backend; /* owned */
    struct loop_source *source;  /* the loop's; NULL while the backend is dead */
    uint32_t watched;            /* what it is watched for */
    bool is_enabled;             /* the driver uses it */
    bool wants_input;            /* frames can be taken from the backend when there are some */
    bool is_blocked;             /* the backend takes no frame now */

    struct net_pool pool;
    struct iovec parts[LIMIT_NET_PIECES]; /* of the frame that is moved */
    uint8_t start[NET_ADDRESSED_BYTES];   /* of one whose addresses were checked, instead of the guest's */
    struct net_offload *offload;          /* owned: segments of a frame that are being sent; NULL with takes_headers */

    /* A frame that there was no room for: it waits here. */
    struct net_header held_header;
    size_t held_bytes;                       /* 0 when there is none */
    uint8_t held[LIMIT_NET_FRAME_BYTES + 1]; /* or what is read to be dropped */
};

struct net_counters {
    atomic_uint_fast64_t frames, bytes, drops;
};

struct net {
    struct virtio_device *device; /* borrowed: it owns us */
    uint64_t features;            /* agreed on */
    uint16_t mtu;                 /* 0: none was given */
    bool keeps_off_loopback;      /* frames go out only with addresses that were checked */
    bool is_plugged;              /* as the host says */
    bool is_up;                   /* as the guest was told */
    struct rate receive_rate, transmit_rate;
    struct loop_source *receive_timer, *transmit_timer; /* the loop's: for the limits */
    struct loop_source *connect_timer;                  /* the loop's: for the next attempt */
    uint64_t pause_ns;                                  /* before it */
    uint64_t connected_ns;                              /* when the last one was successful */
    struct net_counters received, transmitted;
    unsigned pair_count;
    struct net_pair *pairs[NET_MOST_PAIRS]; /* owned */
};

static inline unsigned net_receive_queue(const struct net_pair *pair)
{
    return 2 * pair->index;
}

static inline unsigned net_transmit_queue(const struct net_pair *pair)
{
    return 2 * pair->index + 1;
}

static inline void net_count(atomic_uint_fast64_t *counter, uint64_t more)
{
    atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

/* One turn of a direction (receive.c, transmit.c); then the backend is watched for what is missing. */
void net_receive(struct net_pair *pair);
void net_transmit(struct net_pair *pair);

/* The driver's message on the control queue (control.c). */
void net_serve_control(struct net *net, unsigned queue);

/* ---- link.c ---- */

bool net_is_alive(const struct net_pair *pair);

/* Watches the backend for what the pair waits for. */
void net_watch(struct net_pair *pair);

/* The backend failed with this -errno: it is closed, the guest told, and another attempt planned where there can be
 * one. */
void net_lose(struct net_pair *pair, int error);

/* Uses the first so many pairs: 0 or -errno. */
int net_use_pairs(struct net *net, unsigned count);

/* Tells the guest whether there is a link, if that has changed. */
void net_update_link(struct net *net);

int net_start_links(struct net *net); /* once, when the device is made */

#endif
