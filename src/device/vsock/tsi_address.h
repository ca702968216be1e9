// SPDX-License-Identifier: Apache-2.0
/* Socket addresses of a guest's: read, changed and judged. Nothing here asks the host. */
#ifndef DEVICE_VSOCK_TSI_ADDRESS_H
#define DEVICE_VSOCK_TSI_ADDRESS_H

#include "device/vsock/tsi.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

/* With `length` 0 there is none. */
struct tsi_address {
    socklen_t length;
    union {
        struct sockaddr any;
        struct sockaddr_in in4;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    };
};

/* An IPv4 network is held as its IPv4-mapped IPv6 one. */
struct tsi_network {
    uint8_t bytes[16];
    unsigned prefix;
};

struct tsi_policy {
    bool is_local_only;
    enum tsi_scope scope;
    struct tsi_network group;
    bool has_assigned;
    struct in_addr assigned;
};

/* What the options say about addresses: 0, or -EINVAL. */
int tsi_policy_read(const struct tsi_options *options, struct tsi_policy *ret_policy);

/* A sockaddr in the guest's bytes, which must be of this family and whole: 0, -EINVAL, or -EAFNOSUPPORT. What has no
 * meaning is cleared: padding, flow labels, the scope of an address that has none, what follows a path. */
int tsi_address_read(const uint8_t *bytes, size_t length, uint32_t family, struct tsi_address *ret_address);

/* A path from the root, which is the only name of an AF_UNIX socket that means the same to host and guest. */
bool tsi_address_has_path(const struct tsi_address *address);

/* Of AF_INET and AF_INET6, as a number. */
uint16_t tsi_address_port(const struct tsi_address *address);
void tsi_address_set_port(struct tsi_address *address, uint16_t port);

bool tsi_address_is_same(const struct tsi_address *one, const struct tsi_address *other);

/* To connect to "any address" is to connect to the loopback one (ip(7)): says so. */
void tsi_address_name_loopback(struct tsi_address *address);

/* From the guest's name of 127.0.0.1 to the host's, and back. */
void tsi_address_to_host(const struct tsi_policy *policy, struct tsi_address *address);
void tsi_address_to_guest(const struct tsi_policy *policy, struct tsi_address *address);

/* Whether the guest may talk to `host`, which it calls `guest`. */
bool tsi_policy_allows(const struct tsi_policy *policy, const struct tsi_address *guest,
                       const struct tsi_address *host);

#endif
