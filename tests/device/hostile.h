// SPDX-License-Identifier: Apache-2.0
/* What a hostile driver does to the rings of any device. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include "virtio_driver.h"

/* Breaks the queue in every way, one after the other. The device must ask for a reset each time and run again after it.
 * NULL, or what it put up with. `queues` is the bit mask that the device is started with. */
const char *hostile_rings(struct virtio_driver *driver, uint64_t features, unsigned queues, unsigned queue);

/* Wrong layouts, registers written too late, a reset with a request waiting, many kicks. NULL, or what went wrong. */
const char *hostile_registers(struct virtio_driver *driver, uint64_t features, unsigned queues, unsigned queue);

/* Launches the device. Offers eight chains of 16 bytes at a time, again and again, while a second thread changes their
 * descriptors (with these flags or without): NULL, or what went wrong. */
const char *hostile_changes(struct virtio_driver *driver, uint64_t features, unsigned queues, unsigned queue,
                            uint16_t flags);

#endif
