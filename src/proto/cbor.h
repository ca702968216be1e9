// SPDX-License-Identifier: Apache-2.0
/* The part of CBOR (RFC 8949) that our messages are made of, in its one deterministic form (4.2.1): unsigned and
 * negative integers in as few bytes as they fit in, byte strings, arrays and maps of definite length. */
#ifndef PROTO_CBOR_H
#define PROTO_CBOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Writes what fits and counts everything, so the same calls measure (with a capacity of 0) and write. */
struct cbor_writer {
    uint8_t *bytes; /* borrowed; NULL with a capacity of 0 */
    size_t capacity;
    size_t length; /* of all that was written; past the capacity, the bytes are not whole */
};

void cbor_write_unsigned(struct cbor_writer *writer, uint64_t number);
void cbor_write_signed(struct cbor_writer *writer, int64_t number);
void cbor_write_bytes(struct cbor_writer *writer, const void *bytes, size_t length);
/* What a byte string begins with; its bytes are sent from where they lie. */
void cbor_write_bytes_head(struct cbor_writer *writer, size_t length);
/* That many items follow, or pairs of a key and a value. */
void cbor_write_array(struct cbor_writer *writer, uint64_t count);
void cbor_write_map(struct cbor_writer *writer, uint64_t count);

struct cbor_reader {
    const uint8_t *next, *end; /* borrowed */
};

/* The next item: 0, or -EPROTO when it is another one, cut off, or not in the shortest form. */
int cbor_read_unsigned(struct cbor_reader *reader, uint64_t *ret_number);
int cbor_read_signed(struct cbor_reader *reader, int64_t *ret_number);
int cbor_read_bytes(struct cbor_reader *reader, const uint8_t **ret_bytes, size_t *ret_length);
/* Counts are only what the sender says: the caller bounds them. */
int cbor_read_array(struct cbor_reader *reader, uint64_t *ret_count);
int cbor_read_map(struct cbor_reader *reader, uint64_t *ret_count);

#endif
