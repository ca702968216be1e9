// SPDX-License-Identifier: Apache-2.0
/* Bytes of the guest that a slow host has not taken: a ring that grows as it is needed, and is nothing when empty. */
#ifndef DEVICE_VSOCK_HELD_H
#define DEVICE_VSOCK_HELD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct held {
    uint8_t *bytes; /* owned; NULL when empty */
    size_t capacity, first, length;
};

/* Adds `length` bytes of the spans from `offset` on, which has so many: 0, or -ENOMEM with nothing changed. */
int held_add(struct held *held, const struct iovec *spans, size_t count, size_t offset, size_t length);

/* All that is there, in at most two parts: how many. */
size_t held_parts(const struct held *held, struct iovec parts[2]);

/* The first bytes are gone; after the last one the memory is, too. */
void held_drop(struct held *held, size_t length);

#endif
