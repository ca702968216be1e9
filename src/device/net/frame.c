// SPDX-License-Identifier: Apache-2.0
/* The header in front of every frame, and what of it may be believed (virtio 1.2, 5.1.6.2); and where a frame may go.
 *
 * A guest says in it where a checksum is to be finished and how a long frame is to be cut. Whoever does that later, the
 * host's kernel or offload.c, computes with these numbers; so each is compared with the frame that it stands in front
 * of, and with what the driver has agreed on, before anybody else sees it.
 *
 * A helper that turns packets into connections of the host's makes no difference between the guest's loopback and the
 * host's: what is addressed to 127.0.0.1 would arrive at the host's own services. No guest sends such frames but one
 * that tries. Only what is understood passes: ARP and untagged IP. Addresses stand at the same place in every header of
 * IP, whatever options follow.
 *
 * Invariants: (1) a header that passes names no byte outside of its frame. (2) it asks for nothing that was not offered
 * and taken. (3) a frame whose addresses pass has no address of the loopback's, in any way to write it.
 *
 * Trust: headers and frames come from a hostile driver, as a copy that does not change any more.
 */
#include "device/net/frame.h"

#include <string.h>

enum { ETHERTYPE_OF_IPV4 = 0x0800, ETHERTYPE_OF_ARP = 0x0806, ETHERTYPE_OF_IPV6 = 0x86dd };
enum { ipv4_bytes = 20, ipv6_bytes = 40 };

/* The feature that allows frames of this type, or 0 for a type that there is not. ECN was never offered. */
static uint64_t feature_of(uint8_t gso_type)
{
    switch (gso_type) {
    case NET_GSO_TCPV4:
        return NET_F_HOST_TSO4;
    case NET_GSO_TCPV6:
        return NET_F_HOST_TSO6;
    case NET_GSO_UDP:
        return NET_F_HOST_UFO;
    default:
        return 0;
    }
}

static const char *check_checksum(const struct net_header *header, size_t frame_bytes, uint64_t features)
{
    /* Two numbers of 16 bits: their sum as a size_t cannot overflow. */
    size_t end = (size_t)header->csum_start + header->csum_offset + sizeof(uint16_t);
    if ((features & NET_F_CSUM) == 0)
        return "a checksum is left to a device that does not make any";
    if (header->csum_start < NET_ETHERNET_BYTES || end > frame_bytes)
        return "a checksum outside of its frame";
    return NULL;
}

static const char *check_segments(const struct net_header *header, size_t frame_bytes, uint64_t features)
{
    if ((features & feature_of(header->gso_type)) == 0)
        return "a frame to be cut in a way that was not agreed on";
    if ((header->flags & NET_NEEDS_CSUM) == 0)
        return "a frame to be cut without its checksum"; /* (5.1.6.2.1) */
    if (header->gso_size == 0)
        return "a frame to be cut into pieces of nothing";
    if (header->hdr_len > frame_bytes)
        return "a header longer than its frame";
    return NULL;
}

const char *net_header_check(const struct net_header *header, size_t frame_bytes, uint64_t features)
{
    const char *wrong = NULL;
    if (frame_bytes < NET_ETHERNET_BYTES)
        return "a frame that is too short";
    if (frame_bytes > LIMIT_NET_FRAME_BYTES)
        return "a frame that is too long";
    if ((header->flags & ~(NET_NEEDS_CSUM | NET_DATA_VALID)) != 0)
        return "a header with unknown flags";
    if ((header->flags & NET_NEEDS_CSUM) != 0)
        wrong = check_checksum(header, frame_bytes, features);
    if (wrong == NULL && header->gso_type != NET_GSO_NONE)
        wrong = check_segments(header, frame_bytes, features);
    return wrong;
}

/* ---- where a frame may go ---- */

/* This host, or this network (RFC 6890, 2.2.2): the kernel takes 0.0.0.0 for the loopback, and leads no other there. */
static bool is_own_ipv4(const uint8_t *address)
{
    return address[0] == 127 || address[0] == 0;
}

/* ::1, ::, and IPv4 addresses in IPv6 clothes (::ffff:127.0.0.1, ::127.0.0.1). All of ::/64 is kept for such, and
 * nobody's. (RFC 4291, 2.4) */
static bool is_own_ipv6(const uint8_t *address)
{
    static const uint8_t none[8];
    return memcmp(address, none, sizeof(none)) == 0;
}

/* Who has no address yet asks everybody: DHCP, and IPv6's neighbour discovery. */
static bool asks_everybody(const uint8_t *source, const uint8_t *destination, size_t address_bytes)
{
    static const uint8_t none[16];
    uint8_t multicast = address_bytes == 4 ? 224 : 255; /* and IPv4's broadcast */
    return memcmp(source, none, address_bytes) == 0 && destination[0] >= multicast;
}

static const char *check_ipv4_addresses(const uint8_t *packet)
{
    const uint8_t *source = packet + 12, *destination = packet + 16;
    if (is_own_ipv4(destination))
        return "a frame to the host's loopback";
    return is_own_ipv4(source) && !asks_everybody(source, destination, 4) ? "a frame from the loopback" : NULL;
}

static const char *check_ipv6_addresses(const uint8_t *packet)
{
    const uint8_t *source = packet + 8, *destination = packet + 24;
    if (is_own_ipv6(destination))
        return "a frame to the host's loopback";
    return is_own_ipv6(source) && !asks_everybody(source, destination, 16) ? "a frame from the loopback" : NULL;
}

const char *net_frame_check_addresses(const uint8_t *frame, size_t length)
{
    if (length < NET_ETHERNET_BYTES)
        return "a frame that is too short";
    const uint8_t *packet = frame + NET_ETHERNET_BYTES;
    size_t left = length - NET_ETHERNET_BYTES;
    switch (frame[12] << 8 | frame[13]) {
    case ETHERTYPE_OF_ARP:
        return NULL;
    case ETHERTYPE_OF_IPV4:
        return left < ipv4_bytes ? "a frame that is too short for IPv4" : check_ipv4_addresses(packet);
    case ETHERTYPE_OF_IPV6:
        return left < ipv6_bytes ? "a frame that is too short for IPv6" : check_ipv6_addresses(packet);
    default:
        return "a frame neither of IP nor of ARP, or with a tag";
    }
}
