// SPDX-License-Identifier: Apache-2.0
/* CBOR, the little of it that we use.
 *
 * An item begins with a byte of two parts: three bits say what it is, five hold a small number, or say in how many
 * bytes behind it a greater one stands, the highest first (RFC 8949 3). That number is the integer itself, or how long
 * what follows is. So there is one function that writes such a head and one that reads it.
 *
 * This is our own and not libcbor or tinycbor because the guest's agent compiles the same file: it is built against
 * musl, for which the distributions package neither, and it must be small. Nor do those refuse what is not
 * deterministic; here a message has exactly one encoding, so that there is nothing for two readers to disagree about.
 *
 * Invariants: (1) a reader never passes its end, and does not move when it fails. (2) what was read, written again,
 * gives the same bytes. (3) nothing is allocated and nothing recurses.
 *
 * Trust: every byte that is read may be hostile.
 */
#include "proto/cbor.h"

#include <errno.h>
#include <string.h>

enum { type_unsigned = 0, type_negative = 1, type_bytes = 2, type_array = 4, type_map = 5 };
enum { first_wide = 24 /* 24 to 27: the number stands in 1, 2, 4 or 8 bytes behind */, last_wide = 27 };

/* ---- writing ---- */

static void write_raw(struct cbor_writer *writer, const void *bytes, size_t length)
{
    if (length > 0 && writer->length <= writer->capacity && length <= writer->capacity - writer->length)
        memcpy(writer->bytes + writer->length, bytes, length);
    if (__builtin_add_overflow(writer->length, length, &writer->length))
        writer->length = SIZE_MAX; /* which no buffer holds */
}

static void write_head(struct cbor_writer *writer, unsigned type, uint64_t number)
{
    uint8_t head[9] = {(uint8_t)(type << 5)};
    if (number < first_wide) {
        head[0] |= (uint8_t)number;
        write_raw(writer, head, 1);
        return;
    }
    unsigned power = number <= UINT8_MAX ? 0 : number <= UINT16_MAX ? 1 : number <= UINT32_MAX ? 2 : 3;
    unsigned width = 1u << power;
    head[0] |= (uint8_t)(first_wide + power);
    for (unsigned i = 0; i < width; i++)
        head[1 + i] = (uint8_t)(number >> 8 * (width - 1 - i));
    write_raw(writer, head, 1 + width);
}

void cbor_write_unsigned(struct cbor_writer *writer, uint64_t number)
{
    write_head(writer, type_unsigned, number);
}

void cbor_write_signed(struct cbor_writer *writer, int64_t number)
{
    if (number < 0)
        write_head(writer, type_negative, ~(uint64_t)number); /* -1 - n stands for n (RFC 8949 3.1) */
    else
        write_head(writer, type_unsigned, (uint64_t)number);
}

void cbor_write_bytes_head(struct cbor_writer *writer, size_t length)
{
    write_head(writer, type_bytes, length);
}

void cbor_write_bytes(struct cbor_writer *writer, const void *bytes, size_t length)
{
    write_head(writer, type_bytes, length);
    write_raw(writer, bytes, length);
}

void cbor_write_array(struct cbor_writer *writer, uint64_t count)
{
    write_head(writer, type_array, count);
}

void cbor_write_map(struct cbor_writer *writer, uint64_t count)
{
    write_head(writer, type_map, count);
}

/* ---- reading ---- */

/* The number behind the first byte; fewer bytes must not have been enough for it. */
static int read_wide(const struct cbor_reader *reader, unsigned power, uint64_t *ret_number)
{
    static const uint64_t least[] = {first_wide, UINT64_C(1) << 8, UINT64_C(1) << 16, UINT64_C(1) << 32};
    size_t width = (size_t)1 << power;
    uint64_t number = 0;
    if ((size_t)(reader->end - reader->next) - 1 < width)
        return -EPROTO;
    for (size_t i = 0; i < width; i++)
        number = number << 8 | reader->next[1 + i];
    if (number < least[power])
        return -EPROTO;
    *ret_number = number;
    return 0;
}

static int read_head(struct cbor_reader *reader, unsigned type, uint64_t *ret_number)
{
    if (reader->next == reader->end || reader->next[0] >> 5 != type)
        return -EPROTO;
    unsigned low = reader->next[0] & 31u;
    if (low < first_wide) {
        *ret_number = low;
        reader->next += 1;
        return 0;
    }
    if (low > last_wide) /* reserved, or of indefinite length */
        return -EPROTO;
    int result = read_wide(reader, low - first_wide, ret_number);
    if (result == 0)
        reader->next += 1 + ((size_t)1 << (low - first_wide));
    return result;
}

int cbor_read_unsigned(struct cbor_reader *reader, uint64_t *ret_number)
{
    return read_head(reader, type_unsigned, ret_number);
}

int cbor_read_signed(struct cbor_reader *reader, int64_t *ret_number)
{
    struct cbor_reader ahead = *reader;
    uint64_t number = 0;
    bool is_negative = ahead.next != ahead.end && ahead.next[0] >> 5 == type_negative;
    int result = read_head(&ahead, is_negative ? type_negative : type_unsigned, &number);
    if (result < 0)
        return result;
    if (number > INT64_MAX)
        return -EPROTO;
    *reader = ahead;
    *ret_number = is_negative ? -1 - (int64_t)number : (int64_t)number;
    return 0;
}

int cbor_read_bytes(struct cbor_reader *reader, const uint8_t **ret_bytes, size_t *ret_length)
{
    struct cbor_reader ahead = *reader;
    uint64_t length = 0;
    int result = read_head(&ahead, type_bytes, &length);
    if (result < 0)
        return result;
    if (length > (uint64_t)(ahead.end - ahead.next))
        return -EPROTO;
    *ret_bytes = ahead.next;
    *ret_length = (size_t)length;
    reader->next = ahead.next + length;
    return 0;
}

int cbor_read_array(struct cbor_reader *reader, uint64_t *ret_count)
{
    return read_head(reader, type_array, ret_count);
}

int cbor_read_map(struct cbor_reader *reader, uint64_t *ret_count)
{
    return read_head(reader, type_map, ret_count);
}
