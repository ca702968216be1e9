// SPDX-License-Identifier: Apache-2.0
/* Making and reading the messages of DHCP.
 *
 *     IPv4 header   UDP 68 -> 67   BOOTP, 236 bytes   magic   options: code, length, value … 255
 *
 * Of the options an answer may hold, the file and name fields as more room for options among them (RFC 2131, 4.1:
 * overload), those of BOOTP proper are read, which every server uses.
 *
 * Invariants: (1) nothing is read behind what a length of the packet has bounded, and each length is checked against
 * the one around it. (2) an answer names an address that a host can have.
 *
 * Trust: packets come from whoever is on the guest's network.
 */
#include "proto/dhcp.h"

#include <errno.h>
#include <string.h>

enum {
    ip_bytes = 20,
    udp_bytes = 8,
    bootp_bytes = 236,
    magic_bytes = 4,
    server_port = 67,
    client_port = 68,
    option_mask = 1,
    option_router = 3,
    option_nameservers = 6,
    option_requested = 50,
    option_lease = 51,
    option_kind = 53,
    option_server = 54,
    option_wanted = 55,
    option_end = 255,
};

static const uint8_t magic[magic_bytes] = {99, 130, 83, 99};

static void put_16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put_32(uint8_t *at, uint32_t value)
{
    put_16(at, value >> 16);
    put_16(at + 2, value & 0xffff);
}

static unsigned get_16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

static uint32_t get_32(const uint8_t *at)
{
    return (uint32_t)get_16(at) << 16 | get_16(at + 2);
}

static unsigned sum_header(const uint8_t *header, size_t length)
{
    uint32_t sum = 0;
    for (size_t i = 0; i + 1 < length; i += 2)
        sum += get_16(header + i);
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

static bool is_given(const uint8_t address[4])
{
    return get_32(address) != 0;
}

/* ---- making ---- */

static uint8_t *put_option(uint8_t *at, uint8_t code, const void *value, uint8_t length)
{
    at[0] = code;
    at[1] = length;
    memcpy(at + 2, value, length);
    return at + 2 + length;
}

void dhcp_encode(const struct dhcp_request *request, uint8_t ret_packet[DHCP_PACKET_BYTES])
{
    static const uint8_t wanted[] = {option_mask, option_router, option_nameservers, option_lease};
    uint8_t *ip = ret_packet, *udp = ip + ip_bytes, *bootp = udp + udp_bytes, *option = bootp + bootp_bytes;
    memset(ret_packet, 0, DHCP_PACKET_BYTES);
    ip[0] = 0x45;
    put_16(ip + 2, DHCP_PACKET_BYTES);
    ip[8] = 64;
    ip[9] = 17;
    memcpy(ip + 12, request->own, 4);
    memset(ip + 16, 0xff, 4);
    put_16(ip + 10, sum_header(ip, ip_bytes));
    put_16(udp, client_port);
    put_16(udp + 2, server_port);
    put_16(udp + 4, DHCP_PACKET_BYTES - ip_bytes); /* without a checksum, as UDP over IPv4 allows */
    bootp[0] = 1;
    bootp[1] = 1;
    bootp[2] = 6;
    put_32(bootp + 4, request->transaction);
    memcpy(bootp + 12, request->own, 4);
    memcpy(bootp + 28, request->mac, 6);
    memcpy(option, magic, sizeof(magic));
    option = put_option(option + sizeof(magic), option_kind, &request->kind, 1);
    if (is_given(request->requested))
        option = put_option(option, option_requested, request->requested, 4);
    if (is_given(request->server))
        option = put_option(option, option_server, request->server, 4);
    option = put_option(option, option_wanted, wanted, sizeof(wanted));
    *option = option_end;
}

/* ---- reading ---- */

/* A mask's length, or that of the address's class where it is none. */
static uint8_t prefix_of(const uint8_t mask[4], const uint8_t address[4])
{
    uint32_t bits = get_32(mask), rest = ~bits;
    if (bits != 0 && (rest & (rest + 1)) == 0)
        return (uint8_t)(rest == 0 ? 32 : __builtin_clz(rest));
    return address[0] < 128 ? 8 : address[0] < 192 ? 16 : 24;
}

static void take_option(struct dhcp_answer *answer, uint8_t mask[4], uint8_t code, const uint8_t *value, size_t length)
{
    if (code == option_kind && length == 1)
        answer->kind = value[0];
    else if (code == option_mask && length == 4)
        memcpy(mask, value, 4);
    else if (code == option_server && length == 4)
        memcpy(answer->server, value, 4);
    else if (code == option_lease && length == 4)
        answer->lease_s = get_32(value);
    else if (code == option_router && length >= 4) {
        memcpy(answer->gateway, value, 4);
        answer->has_gateway = is_given(value);
    } else if (code == option_nameservers) {
        for (size_t i = 0; i + 4 <= length && answer->nameserver_count < DHCP_MOST_NAMESERVERS; i += 4)
            memcpy(answer->nameservers[answer->nameserver_count++], value + i, 4);
    }
}

static int take_options(const uint8_t *options, size_t length, struct dhcp_answer *answer)
{
    uint8_t mask[4] = {0};
    for (size_t i = 0; i < length && options[i] != option_end;) {
        uint8_t code = options[i++];
        if (code == 0) /* padding has no length */
            continue;
        if (i == length || options[i] > length - i - 1)
            return -EPROTO;
        take_option(answer, mask, code, options + i + 1, options[i]);
        i += 1 + (size_t)options[i];
    }
    answer->prefix = prefix_of(mask, answer->address);
    bool is_host = answer->address[0] != 0 && answer->address[0] != 127 && answer->address[0] < 224;
    bool is_lease = answer->kind == DHCP_OFFER || answer->kind == DHCP_ACK;
    return (is_lease && is_host) || answer->kind == DHCP_NAK ? 0 : -EPROTO;
}

int dhcp_decode(const uint8_t *packet, size_t length, uint32_t transaction, const uint8_t mac[6],
                struct dhcp_answer *ret_answer)
{
    struct dhcp_answer answer = {.lease_s = UINT32_MAX};
    if (length < ip_bytes || packet[0] >> 4 != 4 || packet[9] != 17)
        return -EPROTO;
    size_t header = 4 * (size_t)(packet[0] & 15), total = get_16(packet + 2);
    if (header < ip_bytes || total > length || total < header + udp_bytes || (get_16(packet + 6) & 0x3fff) != 0)
        return -EPROTO; /* a fragment is no answer either */
    const uint8_t *udp = packet + header, *bootp = udp + udp_bytes;
    size_t left = get_16(udp + 4);
    if (get_16(udp) != server_port || get_16(udp + 2) != client_port || left > total - header ||
        left < udp_bytes + bootp_bytes + magic_bytes)
        return -EPROTO;
    left -= udp_bytes + bootp_bytes + magic_bytes;
    if (bootp[0] != 2 || get_32(bootp + 4) != transaction || memcmp(bootp + 28, mac, 6) != 0 ||
        memcmp(bootp + bootp_bytes, magic, magic_bytes) != 0)
        return -EPROTO;
    memcpy(answer.address, bootp + 16, 4);
    int result = take_options(bootp + bootp_bytes + magic_bytes, left, &answer);
    if (result == 0)
        *ret_answer = answer;
    return result;
}
