// SPDX-License-Identifier: Apache-2.0
/* virtio over memory-mapped registers, version 2. (virtio 1.2, 4.2) */
#ifndef VIRTIO_MMIO_H
#define VIRTIO_MMIO_H

#include "virtio/device.h"

/* What a device takes up of the guest's address space, and where the driver writes a queue's number to kick it: an
 * engine has that write signal virtio_device_kick_fd instead of coming here. */
enum { MMIO_BYTES = 0x1000, MMIO_QUEUE_NOTIFY = 0x50 };

struct mmio;

/* Attaches the device, which is borrowed, as is the memory. `interrupt_fd`, borrowed too, is an eventfd that raises an
 * edge of the device's interrupt. */
int mmio_new(struct virtio_device *device, const struct memory *memory, int interrupt_fd, struct mmio **ret_mmio);

/* Stops the device first. Accepts NULL and returns NULL. */
struct mmio *mmio_free(struct mmio *mmio);

/* The driver's accesses, from any of its threads. Returns when they have taken effect: a reset, when the device has let
 * go of guest memory. */
void mmio_read(struct mmio *mmio, uint64_t offset, void *bytes, uint32_t length);
void mmio_write(struct mmio *mmio, uint64_t offset, const void *bytes, uint32_t length);

#endif
