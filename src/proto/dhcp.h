// SPDX-License-Identifier: Apache-2.0
/* The messages of DHCP (RFC 2131, 2132), as a guest's client makes and reads them: whole IPv4 packets, because one who
 * has no address yet speaks below UDP. */
#ifndef PROTO_DHCP_H
#define PROTO_DHCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    DHCP_DISCOVER = 1,
    DHCP_OFFER = 2,
    DHCP_REQUEST = 3,
    DHCP_ACK = 5,
    DHCP_NAK = 6,
    DHCP_PACKET_BYTES = 20 + 8 + 300, /* what the client sends: BOOTP's least length */
    DHCP_MOST_NAMESERVERS = 3,
};

struct dhcp_request {
    uint8_t kind; /* DISCOVER or REQUEST */
    uint32_t transaction;
    uint8_t mac[6];
    uint8_t own[4];       /* while it is renewed: the address that it has; else zeros */
    uint8_t requested[4]; /* REQUEST for an offer: its address, and its server; else zeros */
    uint8_t server[4];
};

/* All numbers as they stood in the packet, addresses in their order. */
struct dhcp_answer {
    uint8_t kind; /* OFFER, ACK or NAK */
    uint8_t address[4], server[4], gateway[4];
    bool has_gateway;
    uint8_t prefix; /* by its class, where none was given */
    uint8_t nameservers[DHCP_MOST_NAMESERVERS][4];
    size_t nameserver_count;
    uint32_t lease_s; /* UINT32_MAX: for ever */
};

void dhcp_encode(const struct dhcp_request *request, uint8_t ret_packet[DHCP_PACKET_BYTES]);

/* An answer to this transaction of this interface in an IPv4 packet: 0, or -EPROTO for any other packet. */
int dhcp_decode(const uint8_t *packet, size_t length, uint32_t transaction, const uint8_t mac[6],
                struct dhcp_answer *ret_answer);

#endif
