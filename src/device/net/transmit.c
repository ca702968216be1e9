// SPDX-License-Identifier: Apache-2.0
/* Frames of the guest. (virtio 1.2, 5.1.6.1, 5.1.6.2)
 *
 *     chain ──> header copied and checked ──> backend                     straight from guest memory
 *                                         ──> offload.c ──> backend       what is to be finished first, from a copy
 *
 * A turn takes chains until there are none, or a turn is full, or the backend is: then the chain is put back, the ring
 * fills, and the guest waits. A backend may gather frames; so chains are handed back at the end of the turn, behind its
 * flush, in the order in which they were taken, those that were dropped among them.
 *
 * While there is no link, frames are dropped as by a cable that is not plugged in: a guest that had to wait could not
 * even be shut down in peace.
 *
 * Where the backend would take a frame to the host's loopback, addresses are checked, and then sent from the copy that
 * was checked: the guest may change its own at any time. A frame that offload.c finishes is checked behind that, as the
 * place of a checksum can be that of an address.
 *
 * Invariants: (1) no header reaches a backend that has not passed net_header_check, and none changes after that; what
 * was not checked in it, as nothing asks for it, is zeros. (2) a chain goes back only when nothing points into it. (3)
 * a turn is bounded in frames and bytes; segments count as frames. (4) with keeps_off_loopback every
 * frame that a backend gets has addresses that passed net_frame_check_addresses, and cannot change.
 *
 * Trust: chains come from a hostile driver and were checked by queue_pop.
 */
#include "base/clock.h"
#include "device/net/pair.h"

#include <errno.h>
#include <string.h>

enum { most_heads = LIMIT_NET_BATCH_FRAMES };

struct turn {
    struct net_pair *pair;
    uint16_t heads[most_heads]; /* of chains that are sent, but not handed back */
    size_t head_count;
    size_t frames, bytes;
};

enum outcome {
    DONE,  /* with this chain */
    FULL,  /* the backend is: the chain is put back */
    EMPTY, /* there was none */
    WAIT,  /* for the limits */
};

static const struct net_backend_ops *ops_of(const struct turn *turn)
{
    return turn->pair->backend->ops;
}

/* Everything is sent or noted, and nothing points into the guest's chains any more. */
static void hand_back(struct turn *turn)
{
    struct net_pair *pair = turn->pair;
    int result = 0;
    if (net_is_alive(pair) && ops_of(turn)->flush != NULL)
        result = ops_of(turn)->flush(pair->backend);
    if (result < 0)
        net_lose(pair, result);
    for (size_t i = 0; i < turn->head_count; i++)
        virtio_push(pair->net->device, net_transmit_queue(pair), turn->heads[i], 0);
    turn->head_count = 0;
}

static void drop(struct turn *turn)
{
    net_count(&turn->pair->net->transmitted.drops, 1);
}

/* What a send came to: FULL, or DONE whatever it was. */
static enum outcome judge(struct turn *turn, int result, size_t length)
{
    struct net *net = turn->pair->net;
    if (result == -EAGAIN) {
        turn->pair->is_blocked = true;
        return FULL;
    }
    turn->frames++;
    turn->bytes += length;
    if (result == 0) {
        net_count(&net->transmitted.frames, 1);
        net_count(&net->transmitted.bytes, length);
        return DONE;
    }
    drop(turn);
    if (result != -EMSGSIZE)
        net_lose(turn->pair, result);
    return DONE;
}

static bool is_turn_over(const struct turn *turn)
{
    return turn->frames >= LIMIT_NET_TURN_FRAMES || turn->bytes >= LIMIT_NET_TURN_BYTES;
}

/* ---- frames to be finished first ---- */

/* Sends what is pending, as far as the backend takes it and the turn allows. */
static enum outcome send_pending(struct turn *turn)
{
    struct net_pair *pair = turn->pair;
    struct net_offload *offload = pair->offload;
    while (net_offload_is_pending(offload) && pair->net->is_up && !is_turn_over(turn)) {
        static const struct net_header plain;
        struct iovec parts[2];
        size_t length = 0, count = net_offload_peek(offload, parts, &length);
        if (judge(turn, ops_of(turn)->send(pair->backend, &plain, parts, count, length), length) == FULL)
            return FULL;
        net_offload_advance(offload);
    }
    if (!pair->net->is_up)
        net_offload_drop(offload);
    return DONE;
}

/* Copies the frame and begins with it: NULL, or what is wrong. */
static const char *begin_offload(struct turn *turn, const struct queue_chain *chain, const struct net_header *header,
                                 size_t length)
{
    struct net_offload *offload = turn->pair->offload;
    hand_back(turn); /* the backend may still point into the last one */
    virtio_read_spans(chain->readable, chain->readable_count, sizeof(*header), offload->frame, length);
    const char *wrong = net_offload_begin(offload, header, length);
    if (wrong == NULL && turn->pair->net->keeps_off_loopback) {
        wrong = net_frame_check_addresses(offload->frame, length);
        if (wrong != NULL)
            net_offload_drop(offload);
    }
    return wrong;
}

/* ---- chains ---- */

/* The chain's pieces without its first `skip` bytes, from parts[count] on: how many there are then. */
static size_t cut_start(const struct queue_chain *chain, size_t skip, size_t count, struct iovec *parts)
{
    for (size_t i = 0; i < chain->readable_count; i++) {
        struct iovec span = chain->readable[i];
        size_t cut = span.iov_len < skip ? span.iov_len : skip;
        skip -= cut;
        if (cut < span.iov_len)
            parts[count++] = (struct iovec){(uint8_t *)span.iov_base + cut, span.iov_len - cut};
    }
    return count;
}

/* The frame's pieces, and how many; those of addresses are a copy that was checked. NULL, or what is wrong. */
static const char *cut_frame(struct net_pair *pair, const struct queue_chain *chain, size_t length, size_t *ret_count)
{
    size_t copied = 0;
    if (pair->net->keeps_off_loopback) {
        copied = length < sizeof(pair->start) ? length : sizeof(pair->start);
        virtio_read_spans(chain->readable, chain->readable_count, sizeof(struct net_header), pair->start, copied);
        const char *wrong = net_frame_check_addresses(pair->start, length);
        if (wrong != NULL)
            return wrong;
        pair->parts[0] = (struct iovec){pair->start, copied};
    }
    *ret_count = cut_start(chain, sizeof(struct net_header) + copied, copied > 0, pair->parts);
    return NULL;
}

/* Reads the header, once: NULL, or what is wrong with the chain. */
static const char *read_header(const struct net *net, const struct queue_chain *chain, struct net_header *ret_header,
                               size_t *ret_length)
{
    struct net_header header;
    if (chain->readable_bytes < sizeof(header) + NET_ETHERNET_BYTES)
        return "a frame that is too short";
    if (chain->readable_bytes > sizeof(header) + LIMIT_NET_FRAME_BYTES)
        return "a frame that is too long";
    if (chain->readable_count + net->keeps_off_loopback > LIMIT_NET_PIECES) /* its copy is one more */
        return "a frame in too many pieces";
    virtio_read_spans(chain->readable, chain->readable_count, 0, &header, sizeof(header));
    *ret_length = (size_t)chain->readable_bytes - sizeof(header);
    const char *wrong = net_header_check(&header, *ret_length, net->features);
    if (wrong != NULL)
        return wrong;
    *ret_header = (struct net_header){.flags = header.flags & NET_NEEDS_CSUM, .gso_type = header.gso_type};
    if (header.gso_type != NET_GSO_NONE) {
        ret_header->hdr_len = header.hdr_len;
        ret_header->gso_size = header.gso_size;
    }
    if (ret_header->flags != 0) { /* DATA_VALID is for the other direction */
        ret_header->csum_start = header.csum_start;
        ret_header->csum_offset = header.csum_offset;
    }
    return NULL;
}

static enum outcome send_chain(struct turn *turn, const struct queue_chain *chain)
{
    struct net_pair *pair = turn->pair;
    struct net_header header = {0};
    size_t length = 0, count = 0;
    const char *wrong = read_header(pair->net, chain, &header, &length);
    bool is_finished = header.gso_type == NET_GSO_NONE && (header.flags & NET_NEEDS_CSUM) == 0;
    bool is_open = pair->net->is_up && pair->is_enabled;
    if (wrong == NULL && is_open && !is_finished && !ops_of(turn)->takes_headers) {
        wrong = begin_offload(turn, chain, &header, length);
        if (wrong == NULL)
            return DONE;
    }
    if (wrong == NULL && is_open)
        wrong = cut_frame(pair, chain, length, &count);
    if (wrong != NULL)
        virtio_device_blame(pair->net->device, wrong);
    if (wrong != NULL || !is_open) {
        turn->frames++;
        drop(turn);
        return DONE;
    }
    return judge(turn, ops_of(turn)->send(pair->backend, &header, pair->parts, count, length), length);
}

/* Whether the limits let a frame through, of any length: it is paid for when that is known. */
static bool is_due(struct net *net)
{
    if (!rate_has_limits(&net->transmit_rate))
        return true;
    uint64_t when_ns = rate_ask(&net->transmit_rate, clock_now_ns());
    if (when_ns != CLOCK_NEVER)
        loop_set_deadline(net->transmit_timer, when_ns);
    return when_ns == CLOCK_NEVER;
}

static void pay(struct turn *turn, uint64_t bytes)
{
    struct net_pair *pair = turn->pair;
    uint64_t frames = pair->offload != NULL ? net_offload_count(pair->offload) : 0;
    if (rate_has_limits(&pair->net->transmit_rate))
        rate_take(&pair->net->transmit_rate, bytes, frames > 0 ? frames : 1, clock_now_ns());
}

static enum outcome take_chain(struct turn *turn)
{
    struct net_pair *pair = turn->pair;
    unsigned queue = net_transmit_queue(pair);
    struct queue_chain chain;
    if (!is_due(pair->net))
        return WAIT;
    if (!virtio_pop(pair->net->device, queue, &chain))
        return EMPTY;
    enum outcome outcome = send_chain(turn, &chain);
    if (outcome == FULL) {
        virtio_unpop(pair->net->device, queue);
        return FULL;
    }
    pay(turn, chain.readable_bytes);
    turn->heads[turn->head_count++] = chain.head;
    if (turn->head_count == most_heads)
        hand_back(turn);
    return DONE;
}

void net_transmit(struct net_pair *pair)
{
    struct turn turn = {.pair = pair};
    unsigned queue = net_transmit_queue(pair);
    enum outcome outcome = DONE;
    if (pair->is_blocked && net_is_alive(pair))
        return; /* it is asked again when the backend is ready */
    while (outcome == DONE && !is_turn_over(&turn)) {
        if (pair->offload != NULL && net_offload_is_pending(pair->offload))
            outcome = send_pending(&turn);
        else if (virtio_is_ready(pair->net->device, queue))
            outcome = take_chain(&turn);
        else
            outcome = EMPTY;
    }
    hand_back(&turn);
    virtio_call(pair->net->device, queue);
    if (outcome == DONE)
        virtio_kick(pair->net->device, queue); /* it is the other direction's turn first */
    net_watch(pair);
}
