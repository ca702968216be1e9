// SPDX-License-Identifier: Apache-2.0
/* The control queue: how many pairs of queues the driver uses. (virtio 1.2, 5.1.6.5)
 *
 *     driver:  class │ command │ data …          device:  ack
 *
 * Nothing else was offered, so everything else is answered with an error.
 *
 * Invariants: (1) a message changes something only when it is right to the byte. (2) each is answered where there is
 * room for it.
 *
 * Trust: messages come from a hostile driver, and are copied before they are looked at.
 */
#include "device/net/pair.h"

enum { CLASS_MQ = 4, MQ_PAIRS_SET = 0, ACK_OK = 0, ACK_ERROR = 1 };

struct message {
    uint8_t class, command;
    uint16_t pairs; /* little-endian, as we are */
};
_Static_assert(sizeof(struct message) == 4, "as in the standard");

static uint8_t answer(struct net *net, const struct queue_chain *chain)
{
    struct message message;
    if ((net->features & NET_F_MQ) == 0 || chain->readable_bytes != sizeof(message))
        return ACK_ERROR;
    virtio_read_spans(chain->readable, chain->readable_count, 0, &message, sizeof(message));
    if (message.class != CLASS_MQ || message.command != MQ_PAIRS_SET || message.pairs == 0 ||
        message.pairs > net->pair_count)
        return ACK_ERROR;
    return net_use_pairs(net, message.pairs) < 0 ? ACK_ERROR : ACK_OK;
}

void net_serve_control(struct net *net, unsigned queue)
{
    struct queue_chain chain;
    while (virtio_pop(net->device, queue, &chain)) {
        uint8_t ack = ACK_ERROR;
        if (chain.writable_bytes == 0)
            virtio_device_blame(net->device, "a control message without room for its answer");
        else
            ack = answer(net, &chain);
        size_t written = virtio_write_spans(chain.writable, chain.writable_count, 0, &ack, sizeof(ack));
        virtio_push(net->device, queue, chain.head, (uint32_t)written);
    }
    virtio_call(net->device, queue);
}
