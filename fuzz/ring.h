// SPDX-License-Identifier: Apache-2.0
/* What the fuzz targets of queues and devices share: memory and a queue's place from the input, and a transport that
 * only notes what it is told.
 */
#ifndef FUZZ_RING_H
#define FUZZ_RING_H

#include "fuzz.h"

#include "virtio/device.h"

/* The input's bytes behind the first four, again and again, over all of the memory. */
static inline void fuzz_fill(uint8_t *ram, size_t ram_bytes, const uint8_t *data, size_t size)
{
    for (size_t offset = 0; offset < ram_bytes; offset += size - 4)
        memcpy(ram + offset, data + 4, ram_bytes - offset < size - 4 ? ram_bytes - offset : size - 4);
}

/* Where the queue lies and what was agreed on, from the first four bytes. */
static inline struct queue_layout fuzz_layout(const uint8_t *data)
{
    return (struct queue_layout){
        .descriptors = (uint64_t)data[0] * 16,
        .available = (uint64_t)data[1] * 256,
        .used = (uint64_t)data[2] * 256,
        .entries = (uint16_t)(1u << (data[3] & 7)),
        .has_event_index = (data[3] & 8) != 0,
        .has_indirect = (data[3] & 16) != 0,
    };
}

struct fuzz_transport {
    unsigned queue_count; /* calls are for these only */
    bool is_broken;       /* the device said so */
};

static inline void fuzz_note_call(void *transport, unsigned queue)
{
    const struct fuzz_transport *own = transport;
    FUZZ_CHECK(queue < own->queue_count);
}

static inline void fuzz_note_config(void *transport)
{
    (void)transport;
}

static inline void fuzz_note_broken(void *transport)
{
    struct fuzz_transport *own = transport;
    own->is_broken = true;
}

static const struct virtio_transport_ops fuzz_transport_ops = {
    .call = fuzz_note_call,
    .config_changed = fuzz_note_config,
    .broken = fuzz_note_broken,
};

#endif
