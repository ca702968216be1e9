// SPDX-License-Identifier: Apache-2.0
/* What the vsock device and the impersonation of sockets (tsi.c) know of each other.
 *
 * The device owns packets, credit and streams; a stream is a connected, non-blocking socket of the host's on one side
 * and a pair of ports on the other. TSI owns what a guest asks for by datagrams: which sockets there are, and where
 * they lead. Everything here happens on the device's own thread.
 */
#ifndef DEVICE_VSOCK_PRIVATE_H
#define DEVICE_VSOCK_PRIVATE_H

#include "base/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vsock;
struct tsi;
struct tsi_options;

/* ---- what the device does for TSI ---- */

/* Asks the guest, by a REQUEST from host_port, to take a stream on guest_port; `fd` is connected, non-blocking, and
 * owned by the device from here on, even on failure. Bytes flow once the guest has agreed; when it refuses, fd is
 * closed. 0, -EADDRINUSE when there is a stream of these two ports, -EMFILE when there are too many, -ENOTCONN when
 * there is no driver. */
int vsock_connect_guest(struct vsock *vsock, int fd, uint32_t host_port, uint32_t guest_port);

/* A datagram for the guest, copied; one that would exceed what is held for a guest that does not read is dropped:
 * false. */
bool vsock_send_datagram(struct vsock *vsock, uint32_t host_port, uint32_t guest_port, const void *bytes,
                         size_t length);

/* ---- what TSI does for the device ---- */

int tsi_new(struct vsock *vsock, const struct tsi_options *options, struct tsi **ret_tsi);
struct tsi *tsi_free(struct tsi *tsi);

/* Between these two the loop is there; stop closes all that the guest had. */
void tsi_start(struct tsi *tsi, struct loop *loop);
void tsi_stop(struct tsi *tsi);

/* A datagram of the guest's, header checked, to CID 2: true when the port is one of TSI's. */
bool tsi_take_datagram(struct tsi *tsi, uint32_t guest_port, uint32_t host_port, const uint8_t *bytes, size_t length);

/* The guest asks for the stream that carries a socket's bytes: the connected socket for it, owned by the caller, or
 * -errno for a reset. */
int tsi_take_stream(struct tsi *tsi, uint32_t guest_port, uint32_t host_port);

#endif
