// SPDX-License-Identifier: Apache-2.0
/* Where the frames of a network device go, and come from.
 *
 * Nothing here waits. A backend that says -EAGAIN is asked again when its descriptor is ready. Everything else below 0
 * means that it is dead, but -EMSGSIZE: that one frame did not fit and is gone.
 */
#ifndef DEVICE_NET_BACKEND_H
#define DEVICE_NET_BACKEND_H

#include "device/net/frame.h"
#include "device/net/net.h"

#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>

enum { NET_SMALL_PART_BYTES = 256 };

struct net_backend;

struct net_backend_ops {
    const char *name;
    bool takes_headers; /* frames go with the header of the guest's, whose features the backend carries out */

    /* Takes one frame: its parts are `length` bytes together, and borrowed until the next flush; those of up to
     * NET_SMALL_PART_BYTES only during the call. */
    int (*send)(struct net_backend *backend, const struct net_header *header, const struct iovec *parts, size_t count,
                size_t length);

    /* Sends what send has gathered, and is done with its parts in any case. Never -EAGAIN. NULL where nothing is. */
    int (*flush)(struct net_backend *backend);

    /* Whether there is something of ours that waits for the descriptor to become writable. */
    bool (*is_behind)(const struct net_backend *backend);

    /* Puts one whole frame into the parts, which have room for more than LIMIT_NET_FRAME_BYTES, so that a longer one is
     * known by its length; returns that. The header is of zeros before. */
    ssize_t (*receive)(struct net_backend *backend, struct net_header *header, const struct iovec *parts, size_t count);

    /* Connects again after its death, where it can: 0 or -errno. */
    int (*connect)(struct net_backend *backend);

    /* Its death: closes what it has open. */
    void (*disconnect)(struct net_backend *backend);

    /* The driver has agreed on these features. NULL where that does not matter. */
    int (*set_features)(struct net_backend *backend, uint64_t features);

    /* Of several queues of one device: this one is used, or is not. NULL where there is only one. */
    int (*set_enabled)(struct net_backend *backend, bool is_enabled);

    void (*free)(struct net_backend *backend);
};

struct net_backend { /* the beginning of each backend's own struct */
    const struct net_backend_ops *ops;
    int fd;           /* owned; -1 while it is dead */
    bool can_connect; /* it was found by a path */
};

int net_stream_new(const struct net_options *options, struct net_backend **ret_backend);
int net_datagram_new(const struct net_options *options, struct net_backend **ret_backend);
int net_custom_new(const struct net_options *options, struct net_backend **ret_backend);

int net_tap_new(const struct net_options *options, struct net_backend **ret_backend); /* one queue of it */

/* Of offloads that are asked for, those that the host's kernel carries out. */
uint64_t net_tap_features(const struct net_backend *backend, uint64_t wanted);

/* ---- what the backends of sockets share (socket.c) ---- */

/* A descriptor of our own for the caller's socket: it, -EPROTOTYPE for another type, or -errno. */
int net_socket_open(int fd, int type);

/* One that is connected to a path: it, or -errno. With `ret_own` it has an address of its own, which is the caller's to
 * remove. */
int net_socket_connect(const char *path, int type, struct sockaddr_un *ret_own);

/* Moves bytes without waiting: how many, or -errno. */
ssize_t net_socket_send(int fd, const struct iovec *parts, size_t count);
ssize_t net_socket_receive(int fd, const struct iovec *parts, size_t count, int *ret_flags);

#endif
