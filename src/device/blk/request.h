// SPDX-License-Identifier: Apache-2.0
/* A request to a block device, out of its chain. */
#ifndef DEVICE_BLK_REQUEST_H
#define DEVICE_BLK_REQUEST_H

#include "base/limits.h"
#include "device/blk/blk.h"
#include "device/blk/workers.h"

/* Request types (virtio 1.2, 5.2.6) that we know. */
enum blk_type {
    BLK_READ = 0,
    BLK_WRITE = 1,
    BLK_FLUSH = 4,
    BLK_GET_ID = 8,
    BLK_DISCARD = 11,
    BLK_WRITE_ZEROES = 13,
};

enum { BLK_SECTOR_BYTES = 512 };

/* What the decoder has to know of the disk. */
struct blk_shape {
    uint64_t size_bytes;
    bool is_read_only, can_discard;
};

struct blk_segment { /* of a discard or of zeros */
    uint64_t offset, length;
    bool may_unmap;
};

enum { BLK_FEW_PARTS = 34 }; /* without memory of their own: what Linux reads ahead by default, in pages, and two */

struct blk_request {
    struct blk_work work; /* first: a worker gives back this pointer */
    struct blk *blk;      /* borrowed: whose it is */
    struct blk_request *next;
    enum blk_type type;
    unsigned queue;
    uint16_t head;
    uint8_t *status; /* borrowed: guest memory */

    uint64_t offset, left, done;   /* bytes of the disk; of these, what is still to do */
    struct iovec *parts;           /* guest memory: few_parts, or owned */
    unsigned first_part, end_part; /* those that are still to do */
    unsigned piece_parts;          /* of these, what is in flight, */
    uint64_t piece_bytes;
    uint64_t cut_bytes; /* and how much was cut off the last one for that */
    bool needs_flush;   /* when it has been written */
    bool is_flushing;

    unsigned segment_count;
    struct blk_segment segments[LIMIT_BLK_DISCARDS];
    struct iovec few_parts[BLK_FEW_PARTS];
};

/* Reads the chain into an empty request: 0; -EPROTO without room for a header or a status, which no driver forgets; or
 * another -errno, which is the answer: `status` and `head` are set then. */
int blk_request_decode(struct blk_request *request, const struct queue_chain *chain, const struct blk_shape *shape);

/* Frees what the request owns, and makes it empty. */
void blk_request_clear(struct blk_request *request);

/* What the driver is told (virtio 1.2, 5.2.6). */
uint8_t blk_status_of(int result);

/* Goes on by this many bytes: the parts before have been read or written. */
void blk_request_advance(struct blk_request *request, uint64_t bytes);

/* Zeros in guest memory, for the next bytes of a read. */
void blk_request_fill(struct blk_request *request, uint64_t bytes);

/* Makes a piece of the parts of the next `bytes`, the last one cut where the piece ends. Unless all of them lie at
 * multiples of `alignment`: then false, and nothing has changed. */
bool blk_request_cut(struct blk_request *request, uint64_t bytes, uint32_t alignment);

/* Makes the last part whole again. Returns how many bytes the piece had. */
uint64_t blk_request_uncut(struct blk_request *request);

#endif
