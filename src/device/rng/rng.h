// SPDX-License-Identifier: Apache-2.0
/* Random bytes for the guest. (virtio 1.2, 5.4) */
#ifndef DEVICE_RNG_RNG_H
#define DEVICE_RNG_RNG_H

#include "virtio/device.h"

/* -EAGAIN on a host that has no random bytes yet (early in its boot); -ENOMEM; or -errno. */
int rng_new(struct virtio_device **ret_device);

#endif
