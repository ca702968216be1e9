// SPDX-License-Identifier: Apache-2.0
/* Receive buffers of the guest that were taken from its queue and wait for frames. */
#ifndef DEVICE_NET_POOL_H
#define DEVICE_NET_POOL_H

#include "base/limits.h"
#include "virtio/device.h"

struct net_chain {
    uint16_t head, span_count;
    uint64_t bytes;
};

struct net_pool {
    struct iovec spans[LIMIT_NET_PIECES]; /* guest memory: borrowed until the queue is paused or stopped */
    size_t first_span, span_count;
    struct net_chain chains[QUEUE_MOST_ENTRIES]; /* in the order of the queue; a ring */
    size_t first_chain, chain_count;
    uint64_t bytes;
    bool is_full; /* a chain was refused: there are too many pieces, or it is of no use and not the first */
};

/* Takes chains from the queue until there are so many bytes, or so many chains: whether there are. Those without room
 * for anything go back at once. */
bool net_pool_gather(struct net_pool *pool, struct virtio_device *device, unsigned queue, uint64_t bytes,
                     size_t most_chains);

/* The first chain, NULL when there is none. */
const struct net_chain *net_pool_first(const struct net_pool *pool);

/* How many chains so many bytes take, of which there must be as many. */
size_t net_pool_count(const struct net_pool *pool, uint64_t bytes);

/* Spans from `offset` on, until there are `bytes` or no more: how many spans. */
size_t net_pool_cut(const struct net_pool *pool, size_t offset, uint64_t bytes, struct iovec parts[LIMIT_NET_PIECES]);

void net_pool_write(struct net_pool *pool, size_t offset, const void *bytes, size_t length);

/* Hands the first chains back, with so many bytes in them altogether. */
void net_pool_push(struct net_pool *pool, struct virtio_device *device, unsigned queue, uint64_t bytes);

/* Forgets all of them. */
void net_pool_clear(struct net_pool *pool);

#endif
