// SPDX-License-Identifier: Apache-2.0
/* The virtio socket device: streams, and datagrams, between ports of the guest and the host. (virtio 1.2, 5.10)
 *
 * The guest is CID 3, the host CID 2. A port leads to a Unix socket of the host's, to functions of the embedding
 * program, or to the impersonation of sockets (TSI). A port that leads nowhere refuses.
 */
#ifndef DEVICE_VSOCK_VSOCK_H
#define DEVICE_VSOCK_VSOCK_H

#include "vial/backend.h"
#include "virtio/device.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tsi_options;

struct vsock_port {
    uint32_t port;
    const char *path; /* of a Unix stream socket, at most 107 bytes; copied */

    /* false: the guest connects to this port of the host's, and we connect to the socket. true: we listen on the
     * socket, which is made with the device and removed with it, and connect to this port of the guest's. */
    bool listens;
};

struct vsock_custom_port {
    uint32_t port;                    /* of the host's */
    const struct vial_vsock_ops *ops; /* borrowed as long as the device lives; release is not called */
    void *user;
};

struct vsock_options {
    const struct vsock_port *ports;
    size_t port_count;
    const struct vsock_custom_port *custom_ports;
    size_t custom_port_count;
    const struct tsi_options *tsi; /* NULL: none */
};

/* -EINVAL for a port without a path or without the functions that it needs, -EEXIST for one that is given twice,
 * -ENAMETOOLONG for a path that no socket takes, -EADDRINUSE where there is already something at the path of a
 * socket that is to be made; otherwise 0 or -errno. On failure nothing is left behind. */
int vsock_new(const struct vsock_options *options, struct virtio_device **ret_device);

#endif
