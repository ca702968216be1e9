// SPDX-License-Identifier: Apache-2.0
/* A DHCP client for one interface.
 *
 *     DISCOVER ──> OFFER ──> REQUEST ──> ACK: address, gateway, name servers
 *        ^          nobody, or NAK           │  half of the lease
 *        └───────────────────────────────────┴── REQUEST again, until it is renewed or lost
 *
 * It speaks by a packet socket, as who has no address must. The first lease is waited for: the program would have no
 * network otherwise. A process of its own renews it; it is nobody's business how long the program runs. A lease that
 * cannot be renewed any more is kept: the guest's only way out is worth more than an address that nobody claims. With a
 * new address the old one goes first, because with the first address of a network Linux removes the others of it.
 *
 * Invariants: (1) each question is asked a bounded number of times, each time for longer.
 *
 * Trust: answers come from whoever is on the network; proto/dhcp.c reads them.
 */
#include "network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    first_wait_ms = 500,
    most_tries = 5, /* 15.5 s for a question, of which a lease needs two */
    least_renewal_s = 30,
    most_packet_bytes = 1500,
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int open_client(struct dhcp_client *client)
{
    struct sockaddr_ll place = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_ifindex = client->index};
    client->fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_IP));
    if (client->fd < 0 || bind(client->fd, (struct sockaddr *)&place, sizeof(place)) < 0)
        return -errno;
    return getrandom(&client->transaction, sizeof(client->transaction), 0) < 0 ? -errno : 0;
}

/* The next answer to this transaction before the deadline. */
static int receive(const struct dhcp_client *client, int64_t deadline_ms, struct dhcp_answer *ret_answer)
{
    uint8_t packet[most_packet_bytes];
    for (;;) {
        struct pollfd ready = {.fd = client->fd, .events = POLLIN};
        int64_t left_ms = deadline_ms - now_ms();
        if (left_ms <= 0 || poll(&ready, 1, (int)left_ms) == 0)
            return -ETIMEDOUT;
        ssize_t length = recv(client->fd, packet, sizeof(packet), MSG_DONTWAIT);
        if (length > 0 && dhcp_decode(packet, (size_t)length, client->transaction, client->mac, ret_answer) == 0)
            return 0;
    }
}

/* Asks until there is an answer: an OFFER, an ACK, or -EACCES for a NAK. */
static int ask(const struct dhcp_client *client, struct dhcp_request *request, struct dhcp_answer *ret_answer)
{
    uint8_t packet[DHCP_PACKET_BYTES];
    struct sockaddr_ll everybody = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_ifindex = client->index, .sll_halen = 6};
    memset(everybody.sll_addr, 0xff, 6);
    request->transaction = client->transaction;
    memcpy(request->mac, client->mac, sizeof(request->mac));
    dhcp_encode(request, packet);
    int wanted = request->kind == DHCP_DISCOVER ? DHCP_OFFER : DHCP_ACK, wait_ms = first_wait_ms;
    for (int i = 0; i < most_tries; i++, wait_ms *= 2) {
        int64_t deadline_ms = now_ms() + wait_ms;
        int result = sendto(client->fd, packet, sizeof(packet), 0, (struct sockaddr *)&everybody, sizeof(everybody)) < 0
                         ? -errno
                         : 0;
        if (result < 0 && result != -ENOBUFS && result != -ENETDOWN) /* the link may come yet */
            return result;
        while ((result = receive(client, deadline_ms, ret_answer)) == 0) {
            if (ret_answer->kind == wanted)
                return 0;
            if (ret_answer->kind == DHCP_NAK && wanted == DHCP_ACK)
                return -EACCES;
        }
    }
    return -ETIMEDOUT;
}

static int get_lease(const struct dhcp_client *client, struct dhcp_answer *ret_answer)
{
    struct dhcp_request discover = {.kind = DHCP_DISCOVER}, request = {.kind = DHCP_REQUEST};
    int result = ask(client, &discover, ret_answer);
    if (result < 0)
        return result;
    memcpy(request.requested, ret_answer->address, 4);
    memcpy(request.server, ret_answer->server, 4);
    return ask(client, &request, ret_answer);
}

static struct network_address address_of(const struct dhcp_answer *lease)
{
    struct network_address address = {.prefix = lease->prefix};
    memcpy(address.bytes, lease->address, 4);
    return address;
}

/* `old` is the lease until now, or NULL. */
static int take_lease(const struct dhcp_client *client, const struct dhcp_answer *lease, const struct dhcp_answer *old)
{
    struct network_address address = address_of(lease), gateway = {.prefix = 32};
    memcpy(gateway.bytes, lease->gateway, 4);
    if (old != NULL && (old->prefix != lease->prefix || memcmp(old->address, lease->address, 4) != 0)) {
        struct network_address gone = address_of(old);
        int removed = network_remove_address(client->index, &gone);
        if (removed < 0)
            tell("remove an address of", "dhcp", removed);
    }
    int result = network_add_address(client->index, &address);
    return result == 0 && lease->has_gateway ? network_add_gateway(client->index, &gateway, client->cost) : result;
}

static void write_words(const struct dhcp_answer *lease, char words[NETWORK_LEARNED_BYTES])
{
    size_t length = 0;
    words[0] = '\0';
    for (size_t i = 0; i < lease->nameserver_count; i++) {
        char text[INET_ADDRSTRLEN] = "";
        inet_ntop(AF_INET, lease->nameservers[i], text, sizeof(text));
        length += (size_t)snprintf(words + length, NETWORK_LEARNED_BYTES - length, "%s%s", i > 0 ? " " : "", text);
    }
}

static void wait_s(uint32_t seconds)
{
    enum { most_ms = 1 << 20 };
    int64_t deadline_ms = now_ms() + (int64_t)seconds * 1000, left_ms;
    while ((left_ms = deadline_ms - now_ms()) > 0)
        poll(NULL, 0, (int)(left_ms < most_ms ? left_ms : most_ms));
}

/* Ends with the guest. */
static _Noreturn void renew(struct dhcp_client *client, struct network_names *names, size_t number)
{
    struct dhcp_answer *lease = &client->lease;
    while (lease->lease_s != UINT32_MAX) {
        struct dhcp_request request = {.kind = DHCP_REQUEST};
        struct dhcp_answer answer;
        uint32_t half_s = lease->lease_s / 2;
        wait_s(half_s > least_renewal_s ? half_s : least_renewal_s);
        client->transaction++;
        memcpy(request.own, lease->address, 4);
        int result = ask(client, &request, &answer);
        if (result == -EACCES)
            result = get_lease(client, &answer);
        if (result < 0)
            continue;
        result = take_lease(client, &answer, lease);
        if (result < 0)
            tell("take a lease of", "dhcp", result);
        *lease = answer; /* also where it was taken in part: the next one is to remove it */
        write_words(lease, names->learned[number].words);
        network_show_nameservers(names);
    }
    _exit(0);
}

static void start_renewal(struct dhcp_client *client, struct network_names *names, size_t number)
{
    pid_t child = fork();
    if (child < 0)
        tell("fork for", "dhcp", -errno);
    if (child != 0)
        return;
    setsid();
    for (int fd = 3; fd < 64; fd++)
        if (fd != client->fd && fd != names->fd)
            close(fd);
    renew(client, names, number);
}

void dhcp_keep(struct dhcp_client *client, struct network_names *names, size_t number)
{
    if (client->lease.lease_s != UINT32_MAX)
        start_renewal(client, names, number);
    close(client->fd);
    client->fd = -1;
}

int dhcp_begin(struct dhcp_client *client, char ret_words[NETWORK_LEARNED_BYTES])
{
    int result = open_client(client);
    if (result == 0)
        result = get_lease(client, &client->lease);
    if (result == 0)
        result = take_lease(client, &client->lease, NULL);
    if (result == 0) {
        write_words(&client->lease, ret_words);
    } else if (client->fd >= 0) {
        close(client->fd);
        client->fd = -1;
    }
    return result;
}
