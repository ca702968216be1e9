// SPDX-License-Identifier: Apache-2.0
/* TSI: sockets of the guest's programs that are sockets of the host's, without a network between them.
 *
 * The guest's kernel (libkrunfw's) sends datagrams to ports 1024 to 1031 of the host, one for each call of a program:
 * create, connect, listen, accept and so on. tsi.c answers them; the bytes of a stream then flow over an ordinary vsock
 * connection, those of a datagram socket in datagrams. What the device calls stands in private.h.
 */
#ifndef DEVICE_VSOCK_TSI_H
#define DEVICE_VSOCK_TSI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tsi;

/* The port of the host that every stream of a socket's bytes goes to, and half of what names a socket. */
#define TSI_STREAM_PORT 620u

/* Where the guest's programs may connect and send to. Paths of AF_UNIX are no part of it. */
enum tsi_scope {
    TSI_SCOPE_ANY,    /* wherever the host can */
    TSI_SCOPE_PUBLIC, /* no private, loopback, link-local, multicast or otherwise special range, no metadata service */
    TSI_SCOPE_GROUP,  /* only group_ip/group_prefix */
    TSI_SCOPE_NONE,   /* nowhere; and no listener is published */
};

/* A listener on the guest's port is published on the host's. */
struct tsi_port {
    uint16_t host, guest;
};

struct tsi_options {
    bool hijacks_inet; /* AF_INET and AF_INET6 */
    bool hijacks_unix; /* AF_UNIX: paths are the host's, any that this process may use */
    /* With a map only what it names is published, so an empty one publishes nothing; the guest's kernel keeps all other
     * listeners to itself. Without one every listener is published on its own port. */
    bool has_port_map;
    const struct tsi_port *ports; /* borrowed; copied by tsi_new */
    size_t port_count;            /* at most LIMIT_PORTS */
    /* An IPv4 address of the host's, or NULL: where the guest says 127.0.0.1, this is meant, and the other way
     * round. */
    const char *assigned_ip;
    bool local_only; /* nothing outside 127.0.0.0/8 and ::1, by the guest's names of things */
    enum tsi_scope scope;
    const char *group_ip; /* TSI_SCOPE_GROUP: any address of the group's network, IPv4 or IPv6 */
    unsigned group_prefix;
};

/* Optional, by whoever owns streams: the guest has refused (by a reset) a stream that it was asked to take by
 * vsock_connect_guest. Without this call its name is kept until the listener ends. */
void tsi_stream_refused(struct tsi *tsi, uint32_t guest_port, uint32_t host_port);

#endif
