// SPDX-License-Identifier: Apache-2.0
/* What network.c and dhcp.c share. Functions return 0 or a negative errno. */
#ifndef GUEST_NETWORK_H
#define GUEST_NETWORK_H

#include "guest.h"
#include "proto/dhcp.h"

struct network_address {
    uint8_t bytes[16];
    bool is_ipv6;
    uint8_t prefix;
};

int network_add_address(int index, const struct network_address *address);
int network_remove_address(int index, const struct network_address *address);

/* A default route; of several the one with the least cost is taken. */
int network_add_gateway(int index, const struct network_address *gateway, uint32_t cost);

enum { NETWORK_LEARNED_BYTES = 16 * DHCP_MOST_NAMESERVERS };

/* The name servers of all networks, with a space between them. */
struct network_names {
    int fd; /* owned: the file that is shown as resolv.conf, or -1 */
    char given[LIMIT_NET_WORDS_BYTES];
    struct network_learned {
        char words[NETWORK_LEARNED_BYTES];
    } * learned; /* owned: one for each network, empty where it has none */
    size_t count;
};

/* Writes resolv.conf anew. */
void network_show_nameservers(const struct network_names *names);

/* An interface that asks for its address. */
struct dhcp_client {
    int fd, index; /* fd is owned while it lives */
    uint8_t mac[6];
    uint32_t cost, transaction; /* what its route costs */
    struct dhcp_answer lease;
};

/* Gets a lease for the interface, which is up, and takes it. -ETIMEDOUT when nobody answers. */
int dhcp_begin(struct dhcp_client *client, char ret_words[NETWORK_LEARNED_BYTES]);

/* Leaves a process that keeps the lease, of network `number`, and resolv.conf in step with it. */
void dhcp_keep(struct dhcp_client *client, struct network_names *names, size_t number);

#endif
