// SPDX-License-Identifier: Apache-2.0
/* The grammars of a configuration that are about networks.
 *
 *     address   = IPv4 | IPv6, as inet_pton(3) reads them, without a zone
 *     network   = address "/" prefix                 0 … 32 or 128, without zeros in front
 *     published = [place ":"] port [":" port] ["/tcp" | "/udp"]
 *     place     = IPv4 | "[" IPv6 "]"                of the host; without: its IPv4 loopback
 *
 * Invariants: as in parse.c.
 *
 * Trust: as in parse.c.
 */
#include "vmm/parse.h"

#include "base/text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

static int wrong(int result, const char *why, const char **ret_why)
{
    *ret_why = why;
    return result;
}

/* inet_pton wants a string of its own. */
static int parse_bare_address(const char *text, size_t length, struct net_address *ret_address, const char **ret_why)
{
    char copy[INET6_ADDRSTRLEN];
    struct net_address address = {.prefix = 32};
    if (length == 0 || length >= sizeof(copy))
        return wrong(-EINVAL, "it is no IPv4 or IPv6 address", ret_why);
    memcpy(copy, text, length);
    copy[length] = '\0';
    address.is_ipv6 = strchr(copy, ':') != NULL;
    if (address.is_ipv6)
        address.prefix = 128;
    if (inet_pton(address.is_ipv6 ? AF_INET6 : AF_INET, copy, address.bytes) != 1)
        return wrong(-EINVAL, "it is no IPv4 or IPv6 address", ret_why);
    *ret_address = address;
    return 0;
}

int parse_address(const char *text, struct net_address *ret_address, const char **ret_why)
{
    return parse_bare_address(text, strlen(text), ret_address, ret_why);
}

int parse_network(const char *text, struct net_address *ret_address, const char **ret_why)
{
    enum { most_prefix_digits = 3 }; /* or an address would have no bound, and lists of them are told the guest */
    struct net_address address;
    uint64_t prefix = 0;
    const char *slash = strchr(text, '/');
    if (slash == NULL)
        return wrong(-EINVAL, "the length of its network's prefix is missing", ret_why);
    int result = parse_bare_address(text, (size_t)(slash - text), &address, ret_why);
    if (result < 0)
        return result;
    size_t digits = strlen(slash + 1);
    bool has_zeros = digits > 1 && slash[1] == '0'; /* which others read as octal, or not at all */
    if (has_zeros || digits > 3 || text_to_u64(slash + 1, digits, address.prefix, &prefix) < 0)
        return wrong(-ERANGE, "the length of its network's prefix is not a number that such an address has", ret_why);
    address.prefix = (uint8_t)prefix;
    *ret_address = address;
    return 0;
}

static int parse_number_of_port(const char *text, size_t length, uint16_t *ret_port, const char **ret_why)
{
    enum { most_digits = 5 };
    uint64_t port = 0;
    int result = text_to_u64(text, length, UINT16_MAX, &port);
    if (result == -EINVAL)
        return wrong(-EINVAL, "a port is missing, or no decimal number", ret_why);
    if (result < 0 || port == 0 || length > most_digits)
        return wrong(-ERANGE, "a port is not between 1 and 65535", ret_why);
    *ret_port = (uint16_t)port;
    return 0;
}

/* Takes the address in front of the ports: how long it was, with what stands around it. */
static int parse_place(const char *text, struct published_port *port, const char **ret_why)
{
    const char *first = text[0] == '[' ? text + 1 : text;
    const char *end = text[0] == '[' ? strchr(text, ']') : strchr(text, ':');
    bool has_place = text[0] == '[' || (end != NULL && memchr(text, '.', (size_t)(end - text)) != NULL);
    if (!has_place)
        return 0;
    if (end == NULL || (text[0] == '[' && end[1] != ':'))
        return wrong(-EINVAL, "an IPv6 address stands between brackets, with a colon behind them", ret_why);
    int result = parse_bare_address(first, (size_t)(end - first), &port->address, ret_why);
    if (result == 0 && port->address.is_ipv6 != (text[0] == '['))
        result = wrong(-EINVAL, "an IPv6 address, and only that, stands between brackets", ret_why);
    return result < 0 ? result : (int)(end - text) + (text[0] == '[' ? 2 : 1);
}

int parse_published(const char *text, struct published_port *ret_port, const char **ret_why)
{
    struct published_port port = {.address = {.bytes = {127, 0, 0, 1}, .prefix = 32}};
    size_t length = strlen(text);
    const char *slash = strchr(text, '/');
    if (slash != NULL && strcmp(slash, "/tcp") != 0 && strcmp(slash, "/udp") != 0)
        return wrong(-EINVAL, "behind its slash stands neither tcp nor udp", ret_why);
    port.is_udp = slash != NULL && slash[1] == 'u';
    length = slash != NULL ? (size_t)(slash - text) : length;
    int skipped = parse_place(text, &port, ret_why);
    if (skipped < 0)
        return skipped;
    const char *host = text + skipped, *end = text + length;
    if (host > end)
        return wrong(-EINVAL, "a port is missing, or no decimal number", ret_why);
    const char *colon = memchr(host, ':', (size_t)(end - host));
    int result = parse_number_of_port(host, (size_t)((colon != NULL ? colon : end) - host), &port.host, ret_why);
    port.guest = port.host;
    if (result == 0 && colon != NULL)
        result = parse_number_of_port(colon + 1, (size_t)(end - colon) - 1, &port.guest, ret_why);
    if (result == 0)
        *ret_port = port;
    return result;
}
