// SPDX-License-Identifier: Apache-2.0
/* Socket addresses of a guest's: what they are, what they become on the host, and whether they are allowed.
 *
 * Every IP address is judged in one form: 16 bytes, IPv4 as ::ffff:a.b.c.d. So the same host cannot be named in a
 * second way that a rule does not know. Networks that carry an IPv4 address inside (NAT64) are judged by that.
 *
 *     read ──> name loopback ──> to host ──> allowed? ──> connect, sendto
 *     getpeername, recvfrom ──> to guest ──> allowed? ──> the guest
 *
 * Invariants: (1) no byte beyond the guest's is read. (2) an address that was read has exactly the length of its
 * family, and a path ends with a NUL. (3) what a rule does not know is refused, unless the scope is TSI_SCOPE_ANY.
 *
 * Trust: addresses come from the guest; the policy from our caller.
 */
#include "device/vsock/tsi_address.h"

#include "base/alloc.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#define V4(a, b, c, d)                                                                                                 \
    {                                                                                                                  \
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, (a), (b), (c), (d)                                                   \
    }

enum { v4_prefix = 96, path_at = offsetof(struct sockaddr_un, sun_path) };

static const struct tsi_network v4_any = {V4(0, 0, 0, 0), 128};
static const struct tsi_network v4_loopback = {V4(127, 0, 0, 0), v4_prefix + 8};
static const struct tsi_network v4_localhost = {V4(127, 0, 0, 1), 128};
static const struct tsi_network v4_all = {V4(0, 0, 0, 0), v4_prefix};
static const struct tsi_network v6_any = {{0}, 128};
static const struct tsi_network v6_loopback = {{[15] = 1}, 128};
static const struct tsi_network v6_link_local = {{0xfe, 0x80}, 10};
static const struct tsi_network v6_multicast = {{0xff}, 8};
static const struct tsi_network v6_global = {{0x20}, 3};
static const struct tsi_network v6_nat64 = {{0x00, 0x64, 0xff, 0x9b}, 96};

/* What is not public although it looks like it: the special-purpose registries (RFC 6890 and what came after it), and
 * the addresses of metadata services that lie outside of those. */
static const struct tsi_network not_public[] = {
    {V4(0, 0, 0, 0), v4_prefix + 8},
    {V4(10, 0, 0, 0), v4_prefix + 8},
    {V4(100, 64, 0, 0), v4_prefix + 10},
    {V4(127, 0, 0, 0), v4_prefix + 8},
    {V4(168, 63, 129, 16), v4_prefix + 32}, /* Azure's host */
    {V4(169, 254, 0, 0), v4_prefix + 16},
    {V4(172, 16, 0, 0), v4_prefix + 12},
    {V4(192, 0, 0, 0), v4_prefix + 24},
    {V4(192, 0, 2, 0), v4_prefix + 24},
    {V4(192, 88, 99, 0), v4_prefix + 24},
    {V4(192, 168, 0, 0), v4_prefix + 16},
    {V4(198, 18, 0, 0), v4_prefix + 15},
    {V4(198, 51, 100, 0), v4_prefix + 24},
    {V4(203, 0, 113, 0), v4_prefix + 24},
    {V4(224, 0, 0, 0), v4_prefix + 4},
    {V4(240, 0, 0, 0), v4_prefix + 4},
    {{0x20, 0x01, 0x00, 0x00}, 23}, /* protocol assignments, Teredo among them */
    {{0x20, 0x01, 0x0d, 0xb8}, 32},
    {{0x20, 0x02}, 16}, /* 6to4: an IPv4 address inside */
    {{0x3f, 0xff}, 20},
};

/* ---- networks ---- */

static bool network_has(const struct tsi_network *network, const uint8_t bytes[16])
{
    size_t whole = network->prefix / 8;
    unsigned rest = network->prefix % 8;
    if (memcmp(network->bytes, bytes, whole) != 0)
        return false;
    return rest == 0 || ((network->bytes[whole] ^ bytes[whole]) >> (8 - rest)) == 0;
}

static void bytes_from_v4(struct in_addr address, uint8_t ret_bytes[16])
{
    memcpy(ret_bytes, v4_all.bytes, 12);
    memcpy(ret_bytes + 12, &address, 4);
}

/* The one form in which addresses are judged: false for other families. */
static bool bytes_of(const struct tsi_address *address, uint8_t ret_bytes[16])
{
    if (address->any.sa_family == AF_INET)
        bytes_from_v4(address->in4.sin_addr, ret_bytes);
    else if (address->any.sa_family == AF_INET6)
        memcpy(ret_bytes, &address->in6.sin6_addr, 16);
    else
        return false;
    return true;
}

static void set_bytes(struct tsi_address *address, const uint8_t bytes[16])
{
    if (address->any.sa_family == AF_INET)
        memcpy(&address->in4.sin_addr, bytes + 12, 4);
    else
        memcpy(&address->in6.sin6_addr, bytes, 16);
}

static bool is_public(const uint8_t bytes[16])
{
    uint8_t inside[16];
    if (network_has(&v6_nat64, bytes)) {
        memcpy(inside, v4_all.bytes, 12);
        memcpy(inside + 12, bytes + 12, 4);
        bytes = inside;
    }
    if (!network_has(&v4_all, bytes) && !network_has(&v6_global, bytes))
        return false;
    for (size_t i = 0; i < array_length(not_public); i++)
        if (network_has(&not_public[i], bytes))
            return false;
    return true;
}

/* ---- the policy ---- */

static int read_network(const char *text, unsigned prefix, struct tsi_network *ret_network)
{
    struct in_addr v4;
    unsigned most = 32;
    if (text == NULL)
        return -EINVAL;
    if (inet_pton(AF_INET, text, &v4) == 1)
        bytes_from_v4(v4, ret_network->bytes);
    else if (inet_pton(AF_INET6, text, ret_network->bytes) == 1)
        most = 128;
    else
        return -EINVAL;
    if (prefix > most)
        return -EINVAL;
    ret_network->prefix = most == 32 ? v4_prefix + prefix : prefix;
    return 0;
}

int tsi_policy_read(const struct tsi_options *options, struct tsi_policy *ret_policy)
{
    struct tsi_policy policy = {
        .is_local_only = options->local_only,
        .scope = options->scope,
        .has_assigned = options->assigned_ip != NULL,
    };
    if (options->scope > TSI_SCOPE_NONE)
        return -EINVAL;
    if (policy.has_assigned && inet_pton(AF_INET, options->assigned_ip, &policy.assigned) != 1)
        return -EINVAL;
    if (policy.scope == TSI_SCOPE_GROUP) {
        int result = read_network(options->group_ip, options->group_prefix, &policy.group);
        if (result < 0)
            return result;
    }
    *ret_policy = policy;
    return 0;
}

bool tsi_policy_allows(const struct tsi_policy *policy, const struct tsi_address *guest, const struct tsi_address *host)
{
    uint8_t named[16], meant[16];
    if (!bytes_of(guest, named) || !bytes_of(host, meant))
        return true; /* a path is nobody's network */
    if (policy->is_local_only && !network_has(&v4_loopback, named) && !network_has(&v6_loopback, named))
        return false;
    switch (policy->scope) {
    case TSI_SCOPE_ANY:
        return true;
    case TSI_SCOPE_PUBLIC:
        return is_public(meant);
    case TSI_SCOPE_GROUP:
        return network_has(&policy->group, meant);
    case TSI_SCOPE_NONE:
        break;
    }
    return false;
}

/* ---- addresses ---- */

static int read_path(const uint8_t *bytes, size_t length, struct tsi_address *address)
{
    if (length < path_at || length > sizeof(address->un))
        return -EINVAL;
    address->un.sun_family = AF_UNIX;
    size_t path_bytes = length - path_at;
    if (path_bytes > 0 && bytes[path_at] != '\0')
        path_bytes = strnlen((const char *)bytes + path_at, path_bytes);
    if (path_bytes >= sizeof(address->un.sun_path))
        return -EINVAL; /* Linux takes one without a NUL; nothing else does */
    if (path_bytes > 0)
        memcpy(address->un.sun_path, bytes + path_at, path_bytes);
    address->length = (socklen_t)(path_at + path_bytes);
    if (tsi_address_has_path(address))
        address->length++; /* its NUL */
    return 0;
}

int tsi_address_read(const uint8_t *bytes, size_t length, uint32_t family, struct tsi_address *ret_address)
{
    struct tsi_address address = {0};
    sa_family_t named = 0;
    int result = 0;
    if (length < sizeof(named))
        return -EINVAL;
    memcpy(&named, bytes, sizeof(named));
    if (named != family)
        return -EAFNOSUPPORT;
    switch (family) {
    case AF_INET:
        if (length != sizeof(address.in4))
            return -EINVAL;
        memcpy(&address.in4, bytes, sizeof(address.in4));
        memset(address.in4.sin_zero, 0, sizeof(address.in4.sin_zero));
        address.length = sizeof(address.in4);
        break;
    case AF_INET6:
        if (length != sizeof(address.in6))
            return -EINVAL;
        memcpy(&address.in6, bytes, sizeof(address.in6));
        address.in6.sin6_flowinfo = 0;
        if (!network_has(&v6_link_local, address.in6.sin6_addr.s6_addr) &&
            !network_has(&v6_multicast, address.in6.sin6_addr.s6_addr))
            address.in6.sin6_scope_id = 0;
        address.length = sizeof(address.in6);
        break;
    case AF_UNIX:
        result = read_path(bytes, length, &address);
        break;
    default:
        return -EAFNOSUPPORT;
    }
    if (result == 0)
        *ret_address = address;
    return result;
}

bool tsi_address_has_path(const struct tsi_address *address)
{
    return address->any.sa_family == AF_UNIX && address->un.sun_path[0] == '/';
}

uint16_t tsi_address_port(const struct tsi_address *address)
{
    return address->any.sa_family == AF_INET ? ntohs(address->in4.sin_port) : ntohs(address->in6.sin6_port);
}

void tsi_address_set_port(struct tsi_address *address, uint16_t port)
{
    if (address->any.sa_family == AF_INET)
        address->in4.sin_port = htons(port);
    else
        address->in6.sin6_port = htons(port);
}

bool tsi_address_is_same(const struct tsi_address *one, const struct tsi_address *other)
{
    return one->length == other->length && memcmp(&one->any, &other->any, one->length) == 0;
}

void tsi_address_name_loopback(struct tsi_address *address)
{
    uint8_t bytes[16];
    if (!bytes_of(address, bytes))
        return;
    if (network_has(&v4_any, bytes))
        set_bytes(address, v4_localhost.bytes);
    else if (network_has(&v6_any, bytes))
        set_bytes(address, v6_loopback.bytes);
}

void tsi_address_to_host(const struct tsi_policy *policy, struct tsi_address *address)
{
    uint8_t bytes[16];
    if (!policy->has_assigned || !bytes_of(address, bytes) || !network_has(&v4_localhost, bytes))
        return;
    bytes_from_v4(policy->assigned, bytes);
    set_bytes(address, bytes);
}

void tsi_address_to_guest(const struct tsi_policy *policy, struct tsi_address *address)
{
    uint8_t bytes[16];
    struct tsi_network assigned = {.prefix = 128};
    if (!policy->has_assigned || !bytes_of(address, bytes))
        return;
    bytes_from_v4(policy->assigned, assigned.bytes);
    if (network_has(&assigned, bytes))
        set_bytes(address, v4_localhost.bytes);
}
