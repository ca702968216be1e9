// SPDX-License-Identifier: Apache-2.0
/* The header in front of every frame, and what of it may be believed. */
#ifndef DEVICE_NET_FRAME_H
#define DEVICE_NET_FRAME_H

#include "base/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Features (virtio 1.2, 5.1.3). */
#define NET_F_CSUM (UINT64_C(1) << 0)
#define NET_F_GUEST_CSUM (UINT64_C(1) << 1)
#define NET_F_MTU (UINT64_C(1) << 3)
#define NET_F_MAC (UINT64_C(1) << 5)
#define NET_F_GUEST_TSO4 (UINT64_C(1) << 7)
#define NET_F_GUEST_TSO6 (UINT64_C(1) << 8)
#define NET_F_GUEST_UFO (UINT64_C(1) << 10)
#define NET_F_HOST_TSO4 (UINT64_C(1) << 11)
#define NET_F_HOST_TSO6 (UINT64_C(1) << 12)
#define NET_F_HOST_UFO (UINT64_C(1) << 14)
#define NET_F_MRG_RXBUF (UINT64_C(1) << 15)
#define NET_F_STATUS (UINT64_C(1) << 16)
#define NET_F_CTRL_VQ (UINT64_C(1) << 17)
#define NET_F_MQ (UINT64_C(1) << 22)

enum { NET_ETHERNET_BYTES = 14 }; /* two addresses and a type: the shortest frame */

/* As far as the addresses of an IP packet reach into a frame without tags: with IPv6 further than with IPv4. */
enum { NET_ADDRESSED_BYTES = NET_ETHERNET_BYTES + 40 };

enum { NET_NEEDS_CSUM = 1, NET_DATA_VALID = 2 };
enum { NET_GSO_NONE = 0, NET_GSO_TCPV4 = 1, NET_GSO_UDP = 3, NET_GSO_TCPV6 = 4 };

/* (5.1.6) Little-endian, as we are. */
struct net_header {
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};
_Static_assert(sizeof(struct net_header) == 12, "as in the standard");

/* Whether a header of the guest's is true of a frame of this length, by what was agreed on; NULL, or what is wrong. */
const char *net_header_check(const struct net_header *header, size_t frame_bytes, uint64_t features);

/* Whether a frame may go to a helper that opens the host's connections to wherever its packet is addressed: NULL, or
 * what is wrong. Of its `length` bytes the first NET_ADDRESSED_BYTES are looked at, if there are as many. What passes
 * is ARP, or an IP packet neither to nor from an address that means the host itself. */
const char *net_frame_check_addresses(const uint8_t *frame, size_t length);

#endif
