// SPDX-License-Identifier: Apache-2.0
/* The records of a tree's stream: what a FILE may say, written and read.
 *
 * A FILE is a CBOR map whose keys are the members of struct tree_file in their order, 0 to 8, all of them there. The
 * same check_file stands before encoding and behind decoding.
 *
 * Invariants: (1) a decoded path is relative and made of names: no part of it is empty, "." or "..", or has a NUL in
 * it. (2) only a regular file has a size, only a symbolic link leads somewhere, and another name of an earlier file has
 * neither. (3) what was decoded, encoded again, gives the same bytes.
 *
 * Trust: every byte may be hostile.
 */
#include "proto/tree_record.h"

#include "proto/cbor.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

enum { file_fields = 9, ns_per_second = 1000000000, all_modes = S_IFMT | 07777 };

/* Little-endian, as we are; without padding. */
struct wire_header {
    uint32_t body_bytes;
    uint16_t kind, zero;
};

_Static_assert(sizeof(struct wire_header) == TREE_HEADER_BYTES, "the struct is what tree.h describes");

/* ---- headers and offsets ---- */

void tree_put_header(uint8_t bytes[TREE_HEADER_BYTES], enum tree_kind kind, size_t body_bytes)
{
    struct wire_header wire = {.body_bytes = (uint32_t)body_bytes, .kind = (uint16_t)kind};
    memcpy(bytes, &wire, sizeof(wire));
}

int tree_decode_header(const uint8_t bytes[TREE_HEADER_BYTES], enum tree_kind *ret_kind, size_t *ret_body_bytes)
{
    struct wire_header wire;
    memcpy(&wire, bytes, sizeof(wire));
    bool is_file = wire.kind == TREE_FILE && wire.body_bytes > 0;
    bool is_bytes = wire.kind == TREE_BYTES && wire.body_bytes > TREE_OFFSET_BYTES;
    bool is_end = wire.kind == TREE_END && wire.body_bytes == 0;
    if (wire.zero != 0 || wire.body_bytes > TREE_MOST_RECORD_BYTES || !(is_file || is_bytes || is_end))
        return -EPROTO;
    *ret_kind = (enum tree_kind)wire.kind;
    *ret_body_bytes = wire.body_bytes;
    return 0;
}

void tree_put_offset(uint8_t bytes[TREE_OFFSET_BYTES], uint64_t offset)
{
    memcpy(bytes, &offset, sizeof(offset));
}

uint64_t tree_get_offset(const uint8_t bytes[TREE_OFFSET_BYTES])
{
    uint64_t offset;
    memcpy(&offset, bytes, sizeof(offset));
    return offset;
}

/* ---- what a file may say ---- */

static bool is_name(const char *name, size_t length)
{
    bool is_dots = length <= 2 && memcmp(name, "..", length) == 0;
    return length > 0 && length <= TREE_MOST_NAME_BYTES && !is_dots && memchr(name, '\0', length) == NULL;
}

static int check_path(const struct tree_text *path)
{
    size_t depth = 0, at = 0;
    if (path->length > TREE_MOST_PATH_BYTES)
        return -ENAMETOOLONG;
    while (path->length > 0 && at <= path->length) {
        const char *name = path->bytes + at;
        const char *slash = memchr(name, '/', path->length - at);
        size_t length = slash != NULL ? (size_t)(slash - name) : path->length - at;
        if (!is_name(name, length))
            return -EPROTO;
        if (++depth > TREE_MOST_DEPTH)
            return -ENAMETOOLONG;
        at += length + 1;
    }
    return 0;
}

static int check_link(const struct tree_file *file)
{
    bool wants_link = S_ISLNK(file->mode) && file->same.length == 0;
    if (file->link.length > TREE_MOST_PATH_BYTES)
        return -ENAMETOOLONG;
    if (wants_link != (file->link.length > 0))
        return -EPROTO;
    return wants_link && memchr(file->link.bytes, '\0', file->link.length) != NULL ? -EPROTO : 0;
}

static bool is_same_text(const struct tree_text *one, const struct tree_text *other)
{
    return one->length == other->length && (one->length == 0 || memcmp(one->bytes, other->bytes, one->length) == 0);
}

static int check_file(const struct tree_file *file)
{
    bool is_other_name = file->same.length > 0;
    bool is_known = S_ISREG(file->mode) || S_ISLNK(file->mode) || S_ISFIFO(file->mode);
    bool may_have_size = S_ISREG(file->mode) && !is_other_name;
    int result = check_path(&file->path);
    if (result == 0)
        result = check_path(&file->same);
    if (result == 0)
        result = check_link(file);
    if (result < 0)
        return result;
    if ((file->mode & ~(uint32_t)all_modes) != 0 || file->mtime_ns >= ns_per_second)
        return -EPROTO;
    if (!is_known && !(S_ISDIR(file->mode) && !is_other_name))
        return -EPROTO;
    if (is_other_name && is_same_text(&file->path, &file->same))
        return -EPROTO;
    return file->size > (may_have_size ? (uint64_t)INT64_MAX : 0) ? -EPROTO : 0;
}

bool tree_is_top_name(const char *name)
{
    size_t length = strlen(name);
    return length == 0 || (is_name(name, length) && strchr(name, '/') == NULL);
}

size_t tree_folder_length(const struct tree_text *path)
{
    const char *slash = path->length > 0 ? memrchr(path->bytes, '/', path->length) : NULL;
    return slash != NULL ? (size_t)(slash - path->bytes) : 0;
}

/* ---- encoding ---- */

static void write_number(struct cbor_writer *writer, unsigned key, uint64_t number)
{
    cbor_write_unsigned(writer, key);
    cbor_write_unsigned(writer, number);
}

static void write_text(struct cbor_writer *writer, unsigned key, const struct tree_text *text)
{
    cbor_write_unsigned(writer, key);
    cbor_write_bytes(writer, text->bytes, text->length);
}

long tree_encode_file(const struct tree_file *file, uint8_t bytes[TREE_HEADER_BYTES + TREE_MOST_RECORD_BYTES])
{
    struct cbor_writer writer = {.bytes = bytes + TREE_HEADER_BYTES, .capacity = TREE_MOST_RECORD_BYTES};
    int result = check_file(file);
    if (result < 0)
        return result;
    cbor_write_map(&writer, file_fields);
    write_text(&writer, 0, &file->path);
    write_number(&writer, 1, file->mode);
    write_number(&writer, 2, file->uid);
    write_number(&writer, 3, file->gid);
    write_number(&writer, 4, file->size);
    cbor_write_unsigned(&writer, 5);
    cbor_write_signed(&writer, file->mtime_s);
    write_number(&writer, 6, file->mtime_ns);
    write_text(&writer, 7, &file->link);
    write_text(&writer, 8, &file->same);
    tree_put_header(bytes, TREE_FILE, writer.length);
    return (long)(TREE_HEADER_BYTES + writer.length); /* three texts and nine numbers always fit */
}

_Static_assert(3 * TREE_MOST_PATH_BYTES + 1 + file_fields * 10 < TREE_MOST_RECORD_BYTES, "any FILE fits in a record");

/* ---- decoding ---- */

static bool read_key(struct cbor_reader *reader, unsigned key)
{
    uint64_t number = 0;
    return cbor_read_unsigned(reader, &number) == 0 && number == key;
}

static bool read_number(struct cbor_reader *reader, unsigned key, uint64_t most, uint64_t *ret_number)
{
    return read_key(reader, key) && cbor_read_unsigned(reader, ret_number) == 0 && *ret_number <= most;
}

static bool read_u32(struct cbor_reader *reader, unsigned key, uint32_t *ret_number)
{
    uint64_t number = 0;
    bool is_good = read_number(reader, key, UINT32_MAX, &number);
    *ret_number = (uint32_t)number;
    return is_good;
}

static bool read_text(struct cbor_reader *reader, unsigned key, struct tree_text *ret_text)
{
    const uint8_t *bytes = NULL;
    bool is_good = read_key(reader, key) && cbor_read_bytes(reader, &bytes, &ret_text->length) == 0;
    ret_text->bytes = (const char *)bytes;
    return is_good;
}

static bool read_file(struct cbor_reader *reader, struct tree_file *file)
{
    uint64_t count = 0;
    return cbor_read_map(reader, &count) == 0 && count == file_fields && read_text(reader, 0, &file->path) &&
           read_u32(reader, 1, &file->mode) && read_u32(reader, 2, &file->uid) && read_u32(reader, 3, &file->gid) &&
           read_number(reader, 4, INT64_MAX, &file->size) && read_key(reader, 5) &&
           cbor_read_signed(reader, &file->mtime_s) == 0 && read_u32(reader, 6, &file->mtime_ns) &&
           read_text(reader, 7, &file->link) && read_text(reader, 8, &file->same) && reader->next == reader->end;
}

int tree_decode_file(const uint8_t *body, size_t length, struct tree_file *ret_file)
{
    struct cbor_reader reader = {.next = body, .end = body + length};
    struct tree_file file = {0};
    if (!read_file(&reader, &file) || check_file(&file) < 0)
        return -EPROTO;
    *ret_file = file;
    return 0;
}
