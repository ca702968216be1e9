// SPDX-License-Identifier: Apache-2.0
/* Receive buffers of the guest that were taken from its queue and wait for frames.
 *
 * A frame that is read straight into guest memory has to find its whole room beforehand, and how long it is is known
 * only afterwards. So buffers for the longest one are taken, and what a shorter one leaves stays here for the next.
 *
 *     spans    . . . s s s s s s s . . .       of all chains, in a row
 *     chains         └─0─┘ └1┘ └─2─┘           each with its share of them
 *
 * Invariants: (1) chains go back in the order in which they came. (2) `bytes` is what the spans hold. (3) nothing here
 * outlives the queue's pause or stop: net_pool_clear.
 *
 * Trust: chains come from a hostile driver and were checked by queue_pop. A chain of more pieces than one call of the
 * host takes is used as far as that goes.
 */
#include "device/net/pool.h"

#include <assert.h>
#include <string.h>

enum { most_chains_ever = QUEUE_MOST_ENTRIES };

static struct net_chain *chain_at(const struct net_pool *pool, size_t index)
{
    const struct net_chain *chain = &pool->chains[(pool->first_chain + index) % most_chains_ever];
    return (struct net_chain *)(uintptr_t)chain; /* as constant as the caller's pool */
}

static void make_room(struct net_pool *pool)
{
    if (pool->first_span > 0)
        memmove(pool->spans, pool->spans + pool->first_span, pool->span_count * sizeof(pool->spans[0]));
    pool->first_span = 0;
}

/* False when there is no room for it now. */
static bool add_chain(struct net_pool *pool, const struct queue_chain *chain)
{
    size_t count = chain->writable_count < LIMIT_NET_PIECES ? chain->writable_count : LIMIT_NET_PIECES;
    if (count > LIMIT_NET_PIECES - pool->first_span - pool->span_count)
        make_room(pool);
    if (count > LIMIT_NET_PIECES - pool->span_count || pool->chain_count == most_chains_ever)
        return false;
    struct net_chain *own = chain_at(pool, pool->chain_count++);
    *own = (struct net_chain){.head = chain->head, .span_count = (uint16_t)count};
    for (size_t i = 0; i < count; i++) {
        pool->spans[pool->first_span + pool->span_count++] = chain->writable[i];
        own->bytes += chain->writable[i].iov_len;
    }
    pool->bytes += own->bytes;
    return true;
}

bool net_pool_gather(struct net_pool *pool, struct virtio_device *device, unsigned queue, uint64_t bytes,
                     size_t most_chains)
{
    struct queue_chain chain;
    while (pool->bytes < bytes && pool->chain_count < most_chains) {
        if (!virtio_pop(device, queue, &chain))
            return false;
        if (chain.writable_count == 0 && pool->chain_count == 0) {
            virtio_push(device, queue, chain.head, 0);
        } else if (chain.writable_count == 0 || !add_chain(pool, &chain)) {
            /* Of no use, but its turn to go back comes when those before it have gone; or there are pieces enough. */
            virtio_unpop(device, queue);
            pool->is_full = true;
            return false;
        }
    }
    return true;
}

const struct net_chain *net_pool_first(const struct net_pool *pool)
{
    return pool->chain_count > 0 ? chain_at(pool, 0) : NULL;
}

size_t net_pool_count(const struct net_pool *pool, uint64_t bytes)
{
    size_t count = 0;
    for (uint64_t sum = 0; sum < bytes; count++) {
        assert(count < pool->chain_count);
        sum += chain_at(pool, count)->bytes;
    }
    return count;
}

size_t net_pool_cut(const struct net_pool *pool, size_t offset, uint64_t bytes, struct iovec parts[LIMIT_NET_PIECES])
{
    size_t count = 0;
    for (size_t i = 0; i < pool->span_count && bytes > 0; i++) {
        const struct iovec *span = &pool->spans[pool->first_span + i];
        if (offset >= span->iov_len) {
            offset -= span->iov_len;
            continue;
        }
        size_t length = span->iov_len - offset < bytes ? span->iov_len - offset : (size_t)bytes;
        parts[count++] = (struct iovec){(uint8_t *)span->iov_base + offset, length};
        bytes -= length;
        offset = 0;
    }
    return count;
}

void net_pool_write(struct net_pool *pool, size_t offset, const void *bytes, size_t length)
{
    virtio_write_spans(pool->spans + pool->first_span, pool->span_count, offset, bytes, length);
}

void net_pool_push(struct net_pool *pool, struct virtio_device *device, unsigned queue, uint64_t bytes)
{
    pool->is_full = false;
    while (bytes > 0) {
        assert(pool->chain_count > 0);
        const struct net_chain *chain = chain_at(pool, 0);
        uint64_t used = chain->bytes < bytes ? chain->bytes : bytes;
        virtio_push(device, queue, chain->head, (uint32_t)used); /* a frame's length at most */
        pool->bytes -= chain->bytes;
        pool->first_span += chain->span_count;
        pool->span_count -= chain->span_count;
        pool->first_chain = (pool->first_chain + 1) % most_chains_ever;
        pool->chain_count--;
        bytes -= used;
    }
}

void net_pool_clear(struct net_pool *pool)
{
    pool->first_span = pool->span_count = pool->first_chain = pool->chain_count = 0;
    pool->bytes = 0;
    pool->is_full = false;
}
