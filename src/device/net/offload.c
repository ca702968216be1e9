// SPDX-License-Identifier: Apache-2.0
/* What a guest left undone, for backends that take finished frames only: checksums, and cutting a long TCP frame.
 *
 * A checksum is the sum of everything from csum_start on, where the driver has already put that of the pseudo header
 * (virtio 1.2, 5.1.6.2). It is finished in place.
 *
 * A long TCP frame becomes segments of gso_size bytes each. All have the headers of the whole, with what is each one's
 * own: the lengths, IPv4's identification, which counts on, the sequence number, and the checksums, which are computed
 * anew. FIN and PSH belong to the last one, CWR to the first (RFC 3168, 6.1.2).
 *
 *     frame     Ethernet │ IP │ TCP │ payload ──────────────────────────────────
 *     headers[] Ethernet │ IP │ TCP                 made for each
 *     parts     headers[], and a piece of the payload: nothing is copied
 *
 * Only the plain case is cut: IP without fragments, TCP directly behind IP, and all of it where csum_start says. Other
 * frames a driver does not leave to us.
 *
 * Invariants: (1) every offset was compared with the frame's length before it is used. (2) a segment carries at least a
 * byte, so the segments come to an end. (3) nothing is taken from memory that a guest can change.
 *
 * Trust: frame and header come from a hostile guest, as copies. What the headers say of addresses and ports is not our
 * business.
 */
#include "device/net/offload.h"

#include <assert.h>
#include <string.h>

enum { vlan_tag_bytes = 4, ipv4_least_bytes = 20, ipv6_bytes = 40, tcp_least_bytes = 20 };
enum { ETHERTYPE_OF_IPV4 = 0x0800, ETHERTYPE_OF_IPV6 = 0x86dd, ETHERTYPE_OF_VLAN = 0x8100, PROTOCOL_TCP = 6 };
enum { TCP_FIN = 0x01, TCP_PSH = 0x08, TCP_CWR = 0x80 };
enum { udp_checksum_offset = 6, tcp_checksum_offset = 16 };

/* ---- numbers in a frame: the greatest byte first ---- */

static uint16_t get_16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

static void put_16(uint8_t *bytes, size_t value)
{
    bytes[0] = (uint8_t)(value >> 8);
    bytes[1] = (uint8_t)value;
}

static uint32_t get_32(const uint8_t *bytes)
{
    return (uint32_t)get_16(bytes) << 16 | get_16(bytes + 2);
}

static void put_32(uint8_t *bytes, uint32_t value)
{
    put_16(bytes, value >> 16);
    put_16(bytes + 2, value & UINT16_MAX);
}

/* ---- checksums (RFC 1071) ---- */

/* Adds words in the order of memory: the sum of swapped words is the swapped sum. No piece is so long that 64 bits
 * overflow. All pieces but the last have an even length. */
static uint64_t add_bytes(uint64_t sum, const uint8_t *bytes, size_t length)
{
    for (; length >= sizeof(uint32_t); bytes += sizeof(uint32_t), length -= sizeof(uint32_t)) {
        uint32_t word;
        memcpy(&word, bytes, sizeof(word));
        sum += word;
    }
    if (length >= sizeof(uint16_t)) {
        uint16_t word;
        memcpy(&word, bytes, sizeof(word));
        sum += word;
        bytes += sizeof(word);
        length -= sizeof(word);
    }
    return length > 0 ? sum + bytes[0] : sum; /* and a zero behind it */
}

/* The checksum in the order of memory. */
static uint16_t finish(uint64_t sum)
{
    while (sum > UINT16_MAX)
        sum = (sum & UINT16_MAX) + (sum >> 16);
    return (uint16_t)~sum;
}

static void store_checksum(uint8_t *bytes, uint16_t checksum)
{
    memcpy(bytes, &checksum, sizeof(checksum));
}

static void finish_checksum(struct net_offload *offload, const struct net_header *header)
{
    uint16_t checksum = finish(add_bytes(0, offload->frame + header->csum_start, offload->length - header->csum_start));
    if (checksum == 0 && header->csum_offset == udp_checksum_offset)
        checksum = UINT16_MAX; /* 0 would say that there is none (RFC 768) */
    store_checksum(offload->frame + header->csum_start + header->csum_offset, checksum);
}

/* ---- what is to be cut ---- */

/* Where IP begins, or 0 for another protocol than the header says. */
static size_t find_ip(const struct net_offload *offload)
{
    const uint8_t *frame = offload->frame;
    size_t ip = NET_ETHERNET_BYTES;
    if (offload->length >= NET_ETHERNET_BYTES + vlan_tag_bytes && get_16(frame + ip - 2) == ETHERTYPE_OF_VLAN)
        ip += vlan_tag_bytes;
    uint16_t wanted = offload->is_ipv6 ? ETHERTYPE_OF_IPV6 : ETHERTYPE_OF_IPV4;
    return offload->length >= ip && get_16(frame + ip - 2) == wanted ? ip : 0;
}

static const char *check_ipv4(const struct net_offload *offload)
{
    const uint8_t *ip = offload->frame + offload->ip;
    size_t left = offload->length - offload->ip;
    if (left < ipv4_least_bytes || ip[0] >> 4 != 4)
        return "a frame to be cut without IPv4";
    size_t header_bytes = 4 * (size_t)(ip[0] & 0xf);
    if (header_bytes < ipv4_least_bytes || header_bytes > left || offload->ip + header_bytes != offload->tcp)
        return "a frame to be cut whose IPv4 header ends elsewhere";
    if (ip[9] != PROTOCOL_TCP || (get_16(ip + 6) & 0x3fff) != 0) /* another one, or a fragment */
        return "a frame to be cut that is no whole TCP segment";
    return NULL;
}

static const char *check_ipv6(const struct net_offload *offload)
{
    const uint8_t *ip = offload->frame + offload->ip;
    if (offload->length - offload->ip < ipv6_bytes || ip[0] >> 4 != 6)
        return "a frame to be cut without IPv6";
    if (offload->ip + ipv6_bytes != offload->tcp || ip[6] != PROTOCOL_TCP)
        return "a frame to be cut that is no whole TCP segment";
    return NULL;
}

static const char *check_tcp(struct net_offload *offload, const struct net_header *header)
{
    if (offload->length - offload->tcp < tcp_least_bytes || header->csum_offset != tcp_checksum_offset)
        return "a frame to be cut without TCP";
    size_t header_bytes = 4 * (size_t)(offload->frame[offload->tcp + 12] >> 4);
    if (header_bytes < tcp_least_bytes || header_bytes >= offload->length - offload->tcp)
        return "a frame to be cut whose TCP header ends elsewhere";
    offload->payload = offload->tcp + header_bytes;
    return NULL;
}

static size_t length_of_payload(const struct net_offload *offload)
{
    return offload->length - offload->payload;
}

static const char *begin_cutting(struct net_offload *offload, const struct net_header *header)
{
    offload->is_ipv6 = header->gso_type == NET_GSO_TCPV6;
    offload->tcp = header->csum_start; /* inside the frame, as net_header_check knows */
    offload->ip = find_ip(offload);
    if (offload->ip == 0 || header->gso_type == NET_GSO_UDP)
        return "a frame to be cut of another protocol";
    const char *wrong = offload->is_ipv6 ? check_ipv6(offload) : check_ipv4(offload);
    if (wrong == NULL)
        wrong = check_tcp(offload, header);
    if (wrong != NULL)
        return wrong;
    offload->segment_bytes = header->gso_size;
    size_t payload_bytes = length_of_payload(offload);
    size_t first_bytes = payload_bytes < offload->segment_bytes ? payload_bytes : offload->segment_bytes;
    if (offload->payload - offload->ip + first_bytes > UINT16_MAX)
        return "a frame to be cut into segments that are too long";
    offload->next = offload->payload;
    offload->is_cut = true;
    return NULL;
}

const char *net_offload_begin(struct net_offload *offload, const struct net_header *header, size_t length)
{
    const char *wrong = NULL;
    assert(length >= NET_ETHERNET_BYTES && length <= sizeof(offload->frame));
    offload->length = length;
    offload->is_cut = false;
    if (header->gso_type != NET_GSO_NONE)
        wrong = begin_cutting(offload, header);
    else if ((header->flags & NET_NEEDS_CSUM) != 0)
        finish_checksum(offload, header);
    if (wrong != NULL)
        net_offload_drop(offload);
    return wrong;
}

/* ---- segments ---- */

/* What stands in the headers of the one that begins at `next`. */
static void write_ip(struct net_offload *offload, size_t length, size_t index)
{
    uint8_t *ip = offload->headers + offload->ip;
    size_t header_bytes = offload->tcp - offload->ip;
    if (offload->is_ipv6) {
        put_16(ip + 4, offload->payload - offload->tcp + length);
        return;
    }
    put_16(ip + 2, offload->payload - offload->ip + length);
    put_16(ip + 4, (get_16(ip + 4) + index) & UINT16_MAX);
    put_16(ip + 10, 0);
    store_checksum(ip + 10, finish(add_bytes(0, ip, header_bytes)));
}

static void write_tcp(struct net_offload *offload, size_t length)
{
    uint8_t *tcp = offload->headers + offload->tcp;
    const uint8_t *ip = offload->headers + offload->ip;
    size_t header_bytes = offload->payload - offload->tcp;
    put_32(tcp + 4, get_32(tcp + 4) + (uint32_t)(offload->next - offload->payload));
    if (offload->next + length < offload->length)
        tcp[13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
    if (offload->next > offload->payload)
        tcp[13] &= (uint8_t)~TCP_CWR;
    put_16(tcp + 16, 0);
    /* The pseudo header (RFC 9293, 3.1; RFC 8200, 8.1): both addresses, the protocol and the length. */
    uint8_t tail[8] = {[7] = PROTOCOL_TCP};
    put_32(tail, (uint32_t)(header_bytes + length));
    uint64_t sum = offload->is_ipv6 ? add_bytes(0, ip + 8, 32) : add_bytes(0, ip + 12, 8);
    sum = add_bytes(sum, tail, sizeof(tail));
    sum = add_bytes(sum, tcp, header_bytes); /* a multiple of four */
    sum = add_bytes(sum, offload->frame + offload->next, length);
    store_checksum(tcp + 16, finish(sum));
}

static size_t next_bytes(const struct net_offload *offload)
{
    size_t left = offload->length - offload->next;
    return left < offload->segment_bytes ? left : offload->segment_bytes;
}

bool net_offload_is_pending(const struct net_offload *offload)
{
    return offload->length > 0;
}

size_t net_offload_count(const struct net_offload *offload)
{
    if (!offload->is_cut)
        return net_offload_is_pending(offload);
    return (length_of_payload(offload) + offload->segment_bytes - 1) / offload->segment_bytes;
}

size_t net_offload_peek(struct net_offload *offload, struct iovec parts[2], size_t *ret_length)
{
    assert(net_offload_is_pending(offload));
    if (!offload->is_cut) {
        parts[0] = (struct iovec){.iov_base = offload->frame, .iov_len = offload->length};
        *ret_length = offload->length;
        return 1;
    }
    size_t length = next_bytes(offload);
    memcpy(offload->headers, offload->frame, offload->payload);
    write_ip(offload, length, (offload->next - offload->payload) / offload->segment_bytes);
    write_tcp(offload, length);
    parts[0] = (struct iovec){.iov_base = offload->headers, .iov_len = offload->payload};
    parts[1] = (struct iovec){.iov_base = offload->frame + offload->next, .iov_len = length};
    *ret_length = offload->payload + length;
    return 2;
}

void net_offload_advance(struct net_offload *offload)
{
    if (offload->is_cut)
        offload->next += next_bytes(offload);
    if (!offload->is_cut || offload->next == offload->length)
        net_offload_drop(offload);
}

void net_offload_drop(struct net_offload *offload)
{
    offload->length = 0;
    offload->is_cut = false;
}
