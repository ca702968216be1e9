// SPDX-License-Identifier: Apache-2.0
/* A request to a block device, out of its chain. (virtio 1.2, 5.2.6)
 *
 *     readable                                writable
 *     header 16 bytes │ data of a write       data of a read │ status, the very last byte
 *
 * Header and data may be cut into descriptors anywhere (2.7.4): nothing here looks at
 * single descriptors. The header and the segments of a discard are copied once and checked as copies. Data stays where
 * it is: the parts name it, and are checked by queue_pop.
 *
 *     parts:   │ done │  first_part … in flight … │ … end_part
 *
 * Invariants: (1) a decoded request lies within the disk, whole sectors, at most LIMIT_BLK_REQUEST_BYTES. (2) the bytes
 * of the parts from first_part to end_part are `left`. (3) nothing of the guest's is read twice.
 *
 * Trust: chains are a hostile guest's. What makes no sense is answered with an error; only what cannot be answered
 * breaks the ring.
 */
#include "device/blk/request.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

enum { STATUS_OK = 0, STATUS_IO_ERROR = 1, STATUS_UNSUPPORTED = 2 };
enum { SEGMENT_UNMAP = 1 };
/* A segment of a driver that keeps to our limit is one span, but where it crosses from one region to another. */
enum { most_parts = LIMIT_BLK_SEGMENTS + MEMORY_MOST_REGIONS };

struct header {
    uint32_t type, reserved;
    uint64_t sector;
};

struct wire_segment {
    uint64_t sector;
    uint32_t sectors, flags;
};

uint8_t blk_status_of(int result)
{
    if (result == 0)
        return STATUS_OK;
    return result == -EOPNOTSUPP ? STATUS_UNSUPPORTED : STATUS_IO_ERROR;
}

/* ---- ranges ---- */

/* Whether these sectors are of the disk. Differences only: a sum of a guest's numbers could wrap. */
static bool is_inside(const struct blk_shape *shape, uint64_t sector, uint64_t sectors)
{
    uint64_t all = shape->size_bytes / BLK_SECTOR_BYTES;
    return sector <= all && sectors <= all - sector;
}

static int set_range(struct blk_request *request, const struct blk_shape *shape, uint64_t sector, uint64_t bytes)
{
    if (bytes % BLK_SECTOR_BYTES != 0 || bytes > LIMIT_BLK_REQUEST_BYTES ||
        !is_inside(shape, sector, bytes / BLK_SECTOR_BYTES))
        return -EINVAL;
    request->offset = sector * BLK_SECTOR_BYTES;
    request->left = bytes;
    return 0;
}

/* ---- parts ---- */

/* Names `length` bytes of the spans from `skip` on. */
static int take_parts(struct blk_request *request, const struct iovec *spans, size_t count, size_t skip,
                      uint64_t length)
{
    if (count > most_parts)
        return -EINVAL;
    request->parts = request->few_parts;
    if (count > BLK_FEW_PARTS)
        request->parts = alloc_zero(count * sizeof(request->parts[0]));
    if (request->parts == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < count && length > 0; i++) {
        size_t bytes = spans[i].iov_len;
        if (skip >= bytes) {
            skip -= bytes;
            continue;
        }
        bytes = bytes - skip < length ? bytes - skip : length;
        request->parts[request->end_part++] = (struct iovec){
            .iov_base = (uint8_t *)spans[i].iov_base + skip,
            .iov_len = bytes,
        };
        length -= bytes;
        skip = 0;
    }
    return 0;
}

void blk_request_advance(struct blk_request *request, uint64_t bytes)
{
    request->offset += bytes;
    request->left -= bytes;
    request->done += bytes;
    while (bytes > 0) {
        struct iovec *part = &request->parts[request->first_part];
        if (bytes < part->iov_len) {
            part->iov_base = (uint8_t *)part->iov_base + bytes;
            part->iov_len -= bytes;
            return;
        }
        bytes -= part->iov_len;
        request->first_part++;
    }
}

void blk_request_fill(struct blk_request *request, uint64_t bytes)
{
    uint64_t left = bytes;
    for (unsigned i = request->first_part; left > 0; i++) {
        size_t length = request->parts[i].iov_len < left ? request->parts[i].iov_len : left;
        memset(request->parts[i].iov_base, 0, length);
        left -= length;
    }
    blk_request_advance(request, bytes);
}

bool blk_request_cut(struct blk_request *request, uint64_t bytes, uint32_t alignment)
{
    unsigned i = request->first_part;
    request->piece_parts = 0;
    request->piece_bytes = bytes;
    while (bytes > 0) {
        struct iovec *part = &request->parts[i++];
        if (bytes < part->iov_len) {
            request->cut_bytes = part->iov_len - bytes;
            part->iov_len = bytes;
        }
        bytes -= part->iov_len;
        request->piece_parts++;
        if (((uintptr_t)part->iov_base | part->iov_len) % alignment != 0) {
            blk_request_uncut(request);
            return false;
        }
    }
    return true;
}

uint64_t blk_request_uncut(struct blk_request *request)
{
    request->parts[request->first_part + request->piece_parts - 1].iov_len += request->cut_bytes;
    request->cut_bytes = 0;
    return request->piece_bytes;
}

/* ---- the types ---- */

static int decode_read(struct blk_request *request, const struct queue_chain *chain, const struct blk_shape *shape,
                       uint64_t sector)
{
    uint64_t bytes = chain->writable_bytes - 1;
    int result = set_range(request, shape, sector, bytes);
    return result < 0 ? result : take_parts(request, chain->writable, chain->writable_count, 0, bytes);
}

static int decode_write(struct blk_request *request, const struct queue_chain *chain, const struct blk_shape *shape,
                        uint64_t sector)
{
    uint64_t bytes = chain->readable_bytes - sizeof(struct header);
    if (shape->is_read_only)
        return -EROFS;
    int result = set_range(request, shape, sector, bytes);
    if (result < 0)
        return result;
    return take_parts(request, chain->readable, chain->readable_count, sizeof(struct header), bytes);
}

/* (5.2.6.2) Flags that we do not know, and unmapping by a discard, are not supported. */
static int decode_segment(struct blk_request *request, const struct wire_segment *wire, const struct blk_shape *shape)
{
    bool is_discard = request->type == BLK_DISCARD;
    if ((wire->flags & ~(is_discard ? 0u : SEGMENT_UNMAP)) != 0)
        return -EOPNOTSUPP;
    if (wire->sectors > (is_discard ? LIMIT_BLK_DISCARD_SECTORS : LIMIT_BLK_ZEROES_SECTORS) ||
        !is_inside(shape, wire->sector, wire->sectors))
        return -EINVAL;
    request->segments[request->segment_count++] = (struct blk_segment){
        .offset = wire->sector * BLK_SECTOR_BYTES,
        .length = (uint64_t)wire->sectors * BLK_SECTOR_BYTES,
        .may_unmap = (wire->flags & SEGMENT_UNMAP) != 0,
    };
    return 0;
}

static int decode_segments(struct blk_request *request, const struct queue_chain *chain, const struct blk_shape *shape)
{
    struct wire_segment segments[LIMIT_BLK_DISCARDS];
    uint64_t bytes = chain->readable_bytes - sizeof(struct header);
    uint64_t most = request->type == BLK_DISCARD ? LIMIT_BLK_DISCARDS : 1;
    if (shape->is_read_only)
        return -EROFS;
    if (request->type == BLK_DISCARD && !shape->can_discard)
        return -EOPNOTSUPP;
    if (bytes == 0 || bytes % sizeof(segments[0]) != 0 || bytes / sizeof(segments[0]) > most)
        return -EINVAL;
    virtio_read_spans(chain->readable, chain->readable_count, sizeof(struct header), segments, bytes);
    int result = 0;
    for (size_t i = 0; i < bytes / sizeof(segments[0]) && result == 0; i++)
        result = decode_segment(request, &segments[i], shape);
    return result;
}

static int decode_type(struct blk_request *request, const struct queue_chain *chain, const struct blk_shape *shape,
                       const struct header *header)
{
    switch (header->type) {
    case BLK_READ:
        return decode_read(request, chain, shape, header->sector);
    case BLK_WRITE:
        return decode_write(request, chain, shape, header->sector);
    case BLK_DISCARD:
    case BLK_WRITE_ZEROES:
        return decode_segments(request, chain, shape);
    case BLK_FLUSH:
    case BLK_GET_ID:
        return 0;
    default:
        return -EOPNOTSUPP;
    }
}

int blk_request_decode(struct blk_request *request, const struct queue_chain *chain, const struct blk_shape *shape)
{
    struct header header;
    if (chain->readable_bytes < sizeof(header) || chain->writable_bytes == 0)
        return -EPROTO;
    const struct iovec *last = &chain->writable[chain->writable_count - 1]; /* no span is empty */
    request->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    request->head = chain->head;
    virtio_read_spans(chain->readable, chain->readable_count, 0, &header, sizeof(header));
    request->type = (enum blk_type)header.type;
    return decode_type(request, chain, shape, &header);
}

void blk_request_clear(struct blk_request *request)
{
    if (request->parts != request->few_parts)
        free(request->parts);
    request->parts = NULL;
    request->first_part = request->end_part = request->piece_parts = request->segment_count = 0;
    request->offset = request->left = request->done = request->cut_bytes = 0;
    request->needs_flush = request->is_flushing = false;
}
