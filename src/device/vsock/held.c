// SPDX-License-Identifier: Apache-2.0
/* Bytes of the guest that a slow host has not taken.
 *
 * A ring whose capacity is a power of two. It begins with what one ordinary packet needs and doubles; most streams
 * never have one, as their bytes go from the guest's memory straight to the host. It is given back when its last byte
 * is gone, so that a stream that once met a slow reader does not cost memory for the rest of its life.
 *
 * Invariants: (1) length <= capacity, and first < capacity unless both are 0. (2) bytes is NULL exactly when the length
 * is 0.
 *
 * Trust: the bytes are the guest's and only carried; how many it may send is bounded by the stream's credit.
 */
#include "device/vsock/held.h"

#include "base/alloc.h"
#include "virtio/device.h"

#include <errno.h>
#include <string.h>

enum { least_capacity = 16 << 10 };

static int grow(struct held *held, size_t needed)
{
    size_t capacity = held->capacity > 0 ? held->capacity : least_capacity;
    while (capacity < needed)
        if (__builtin_mul_overflow(capacity, 2, &capacity))
            return -ENOMEM;
    if (capacity == held->capacity)
        return 0;
    uint8_t *bytes = alloc_zero(capacity);
    if (bytes == NULL)
        return -ENOMEM;
    struct iovec parts[2];
    size_t done = 0;
    for (size_t i = 0, count = held_parts(held, parts); i < count; i++) {
        memcpy(bytes + done, parts[i].iov_base, parts[i].iov_len);
        done += parts[i].iov_len;
    }
    free(held->bytes);
    *held = (struct held){.bytes = bytes, .capacity = capacity, .length = done};
    return 0;
}

int held_add(struct held *held, const struct iovec *spans, size_t count, size_t offset, size_t length)
{
    size_t needed;
    if (length == 0)
        return 0;
    if (__builtin_add_overflow(held->length, length, &needed))
        return -ENOMEM;
    int result = grow(held, needed);
    if (result < 0)
        return result;
    size_t end = (held->first + held->length) % held->capacity;
    size_t part = held->capacity - end < length ? held->capacity - end : length;
    virtio_read_spans(spans, count, offset, held->bytes + end, part);
    virtio_read_spans(spans, count, offset + part, held->bytes, length - part);
    held->length = needed;
    return 0;
}

size_t held_parts(const struct held *held, struct iovec parts[2])
{
    if (held->length == 0)
        return 0;
    size_t straight = held->capacity - held->first;
    parts[0] = (struct iovec){held->bytes + held->first, held->length < straight ? held->length : straight};
    if (held->length <= straight)
        return 1;
    parts[1] = (struct iovec){held->bytes, held->length - straight};
    return 2;
}

void held_drop(struct held *held, size_t length)
{
    if (length < held->length) {
        held->first = (held->first + length) % held->capacity;
        held->length -= length;
        return;
    }
    free(held->bytes);
    *held = (struct held){0};
}
