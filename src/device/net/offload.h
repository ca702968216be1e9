// SPDX-License-Identifier: Apache-2.0
/* What a guest left undone, for backends that take finished frames only: checksums, and cutting a long TCP frame. */
#ifndef DEVICE_NET_OFFLOAD_H
#define DEVICE_NET_OFFLOAD_H

#include "device/net/frame.h"

#include <sys/uio.h>

enum { NET_OFFLOAD_HEADERS_BYTES = 18 + 60 + 60 }; /* Ethernet with a VLAN's tag, IP, TCP: the most of each */

struct net_offload {
    size_t length; /* of the frame; 0: nothing is pending */
    bool is_cut;   /* into segments */
    bool is_ipv6;
    size_t ip, tcp, payload; /* where they begin */
    size_t segment_bytes;    /* of payload in each but the last */
    size_t next;             /* where the next segment's payload begins */
    uint8_t headers[NET_OFFLOAD_HEADERS_BYTES];
    uint8_t frame[LIMIT_NET_FRAME_BYTES];
};

/* Begins with the frame that was put into `frame`, of `length` bytes, whose header has passed net_header_check. NULL,
 * or what is wrong with them; then nothing is pending. */
const char *net_offload_begin(struct net_offload *offload, const struct net_header *header, size_t length);

bool net_offload_is_pending(const struct net_offload *offload);

/* How many frames come of it altogether. */
size_t net_offload_count(const struct net_offload *offload);

/* The next of them: how many parts, and in *ret_length their bytes. They hold until the next call. */
size_t net_offload_peek(struct net_offload *offload, struct iovec parts[2], size_t *ret_length);

/* It was sent. */
void net_offload_advance(struct net_offload *offload);

void net_offload_drop(struct net_offload *offload);

#endif
