// SPDX-License-Identifier: Apache-2.0
/* A virtio network device (virtio 1.2, 5.1): Ethernet frames between a guest and a socket, a TAP device, or functions
 * of the embedding program's.
 */
#ifndef DEVICE_NET_NET_H
#define DEVICE_NET_NET_H

#include "base/rate.h"
#include "vial/backend.h"
#include "vial/vmm.h"
#include "virtio/device.h"

enum { NET_MOST_PAIRS = 8 };

struct net_options {
    enum vial_net_kind kind;
    int fd;           /* borrowed: a connected socket, of which the device makes a duplicate; or -1 */
    const char *path; /* where there is no fd: of a socket, or a TAP device's name; borrowed during net_new */
    const struct vial_net_ops *ops; /* of VIAL_NET_CUSTOM; copied. release is not called: it is the configuration's */
    void *ops_user;                 /* borrowed as long as the device lives */
    uint8_t mac[6];
    uint32_t features;       /* VIAL_NET_FEATURE_*: offered as far as the kind can carry them */
    bool keeps_off_loopback; /* frames for or from the host's loopback are dropped; not with VIAL_NET_TAP */
    bool vfkit;              /* VIAL_NET_UNIXGRAM by path: greets with "VFKT" */
    uint16_t mtu;            /* what the guest is told, at least 68; 0: nothing */
    unsigned queue_pairs;    /* 1 to NET_MOST_PAIRS; more than one only for VIAL_NET_TAP */
    struct rate_limits receive, transmit; /* the guest receives, the guest transmits */
};

/* 0; -EINVAL for options that do not fit together, -ENOMEM, or the -errno with which the socket, its path or the TAP
 * device was refused. A socket's path must have somebody behind it now; later ones are waited for. */
int net_new(const struct net_options *options, struct virtio_device **ret_device);

/* Plugs the cable in or pulls it out; it is in at first. Returns when the device knows. From any thread. */
void net_set_link(struct virtio_device *device, bool is_up);

/* Frames that arrived, and that did not: the guest's were wrong or met no backend, the host's met no link or no room.
 * Bytes are those of Ethernet frames. */
struct net_stats {
    uint64_t received_frames, received_bytes, received_drops;
    uint64_t transmitted_frames, transmitted_bytes, transmitted_drops;
};

/* From any thread. */
void net_get_stats(const struct virtio_device *device, struct net_stats *ret_stats);

#endif
