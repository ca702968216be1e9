// SPDX-License-Identifier: Apache-2.0
/* The frames between host and agent, made and read; agent.h has their layout and docs/PROTOCOL.md their meaning.
 *
 * What a kind holds and may say stands in the tables of agent_kinds.c. Here is one loop that writes the fields of any
 * message and one that reads them: all of them, in the order of their keys, and nothing else. The check between the
 * struct and the wire is the same in both directions.
 *
 * A frame is measured before it is written, so a buffer never holds a part of one. Nothing is allocated by decoding.
 *
 * Invariants: (1) a header that was accepted has a body of a length that its kind can have. (2) a decoded span lies in
 * the body. (3) a decoded message, encoded again, gives the same bytes.
 *
 * Trust: every byte may be hostile, on either side.
 */
#include "proto/agent.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "proto/agent_kinds.h"
#include "proto/cbor.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* Little-endian, as we are; without padding. */
struct wire_header {
    uint32_t body_bytes, id;
    uint16_t kind, flags;
};

_Static_assert(sizeof(struct wire_header) == AGENT_HEADER_BYTES, "the struct is what agent.h describes");

/* ---- headers ---- */

int agent_decode_header(const uint8_t bytes[AGENT_HEADER_BYTES], struct agent_header *ret_header)
{
    struct wire_header wire;
    memcpy(&wire, bytes, sizeof(wire));
    const struct agent_kind_rules *rules = agent_rules(wire.kind);
    if (rules == NULL || !agent_is_id_for(rules, wire.id) || !agent_are_flags_for(rules, wire.flags))
        return -EPROTO;
    if (wire.body_bytes > agent_most_body_bytes(rules) || (wire.body_bytes == 0) != (rules->field_count == 0))
        return -EPROTO;
    *ret_header = (struct agent_header){
        .body_bytes = wire.body_bytes,
        .id = wire.id,
        .kind = (enum agent_kind)wire.kind,
        .flags = wire.flags,
    };
    return 0;
}

void agent_set_id(uint8_t bytes[AGENT_HEADER_BYTES], uint32_t id)
{
    memcpy(bytes + offsetof(struct wire_header, id), &id, sizeof(id));
}

static void put_header(uint8_t *bytes, enum agent_kind kind, uint32_t id, uint32_t flags, size_t body_bytes)
{
    struct wire_header wire = {
        .body_bytes = (uint32_t)body_bytes,
        .id = id,
        .kind = (uint16_t)kind,
        .flags = (uint16_t)flags,
    };
    memcpy(bytes, &wire, sizeof(wire));
}

/* ---- encoding ---- */

static void write_rlimits(struct cbor_writer *writer, const struct agent_exec *exec)
{
    cbor_write_array(writer, 3 * exec->rlimit_count);
    for (size_t i = 0; i < exec->rlimit_count; i++) {
        cbor_write_unsigned(writer, exec->rlimits[i].resource);
        cbor_write_unsigned(writer, exec->rlimits[i].soft);
        cbor_write_unsigned(writer, exec->rlimits[i].hard);
    }
}

static void write_field(struct cbor_writer *writer, const struct agent_field *field,
                        const struct agent_message *message)
{
    const void *member = (const char *)message + field->offset;
    switch (field->type) {
    case FIELD_U32:
    case FIELD_FLAGS:
        cbor_write_unsigned(writer, *(const uint32_t *)member);
        break;
    case FIELD_U64:
        cbor_write_unsigned(writer, *(const uint64_t *)member);
        break;
    case FIELD_I64:
        cbor_write_signed(writer, *(const int64_t *)member);
        break;
    case FIELD_BYTES:
    case FIELD_TEXT:
    case FIELD_PATH:
    case FIELD_NAME:
    case FIELD_STRINGS:
    case FIELD_VARIABLES: { /* strings begin with their span */
        const struct agent_span *span = member;
        cbor_write_bytes(writer, span->bytes, span->length);
        break;
    }
    case FIELD_RLIMITS:
        write_rlimits(writer, &message->exec);
        break;
    }
}

static void write_body(struct cbor_writer *writer, const struct agent_kind_rules *rules,
                       const struct agent_message *message)
{
    if (rules->field_count > 0)
        cbor_write_map(writer, rules->field_count);
    for (size_t i = 0; i < rules->field_count; i++) {
        cbor_write_unsigned(writer, i);
        write_field(writer, &rules->fields[i], message);
    }
}

int agent_encode(const struct agent_message *message, struct buffer *buffer)
{
    const struct agent_kind_rules *rules = agent_rules(message->kind);
    struct cbor_writer measure = {0};
    int result = rules == NULL ? -EINVAL : agent_check(rules, message);
    if (result < 0)
        return result;
    write_body(&measure, rules, message);
    if (measure.length > AGENT_MOST_BODY_BYTES)
        return -E2BIG;
    char *room = buffer_reserve(buffer, AGENT_HEADER_BYTES + measure.length);
    if (room == NULL)
        return buffer->error;
    struct cbor_writer writer = {.bytes = (uint8_t *)room + AGENT_HEADER_BYTES, .capacity = measure.length};
    put_header((uint8_t *)room, message->kind, message->id, message->flags, measure.length);
    write_body(&writer, rules, message);
    buffer_commit(buffer, AGENT_HEADER_BYTES + measure.length);
    return 0;
}

size_t agent_data_prefix(uint32_t id, uint32_t stream, uint32_t flags, size_t length,
                         uint8_t ret_bytes[AGENT_DATA_PREFIX_BYTES])
{
    assert(stream < AGENT_STREAMS && length <= AGENT_MOST_DATA_BYTES && (length > 0 || (flags & AGENT_END) != 0));
    struct cbor_writer writer = {
        .bytes = ret_bytes + AGENT_HEADER_BYTES,
        .capacity = AGENT_DATA_PREFIX_BYTES - AGENT_HEADER_BYTES,
    };
    cbor_write_map(&writer, agent_rules(AGENT_DATA)->field_count);
    cbor_write_unsigned(&writer, 0);
    cbor_write_unsigned(&writer, stream);
    cbor_write_unsigned(&writer, 1);
    cbor_write_bytes_head(&writer, length);
    put_header(ret_bytes, AGENT_DATA, id, flags, writer.length + length);
    return AGENT_HEADER_BYTES + writer.length;
}

/* ---- decoding ---- */

static size_t count_strings(const struct agent_span *span)
{
    size_t count = 0;
    const char *at = span->bytes, *end = span->bytes + span->length;
    while (at < end && (at = memchr(at, '\0', (size_t)(end - at))) != NULL) {
        count++;
        at++;
    }
    return count;
}

static int read_u32(struct cbor_reader *reader, uint32_t *ret_number)
{
    uint64_t number = 0;
    if (cbor_read_unsigned(reader, &number) < 0 || number > UINT32_MAX)
        return -EPROTO;
    *ret_number = (uint32_t)number;
    return 0;
}

static int read_span(struct cbor_reader *reader, struct agent_span *ret_span)
{
    const uint8_t *bytes = NULL;
    size_t length = 0;
    if (cbor_read_bytes(reader, &bytes, &length) < 0)
        return -EPROTO;
    *ret_span = (struct agent_span){.bytes = (const char *)bytes, .length = length};
    return 0;
}

static int read_rlimits(struct cbor_reader *reader, struct agent_exec *exec)
{
    uint64_t count = 0;
    if (cbor_read_array(reader, &count) < 0 || count > 3 * LIMIT_RLIMITS || count % 3 != 0)
        return -EPROTO;
    exec->rlimit_count = (size_t)count / 3;
    for (size_t i = 0; i < exec->rlimit_count; i++) {
        struct agent_rlimit *limit = &exec->rlimits[i];
        if (read_u32(reader, &limit->resource) < 0 || cbor_read_unsigned(reader, &limit->soft) < 0 ||
            cbor_read_unsigned(reader, &limit->hard) < 0)
            return -EPROTO;
    }
    return 0;
}

static int read_field(struct cbor_reader *reader, const struct agent_field *field, struct agent_message *message)
{
    void *member = (char *)message + field->offset;
    switch (field->type) {
    case FIELD_U32:
    case FIELD_FLAGS:
        return read_u32(reader, member);
    case FIELD_U64:
        return cbor_read_unsigned(reader, member);
    case FIELD_I64:
        return cbor_read_signed(reader, member);
    case FIELD_BYTES:
    case FIELD_TEXT:
    case FIELD_PATH:
    case FIELD_NAME:
        return read_span(reader, member);
    case FIELD_STRINGS:
    case FIELD_VARIABLES: {
        struct agent_strings *strings = member;
        int result = read_span(reader, &strings->span);
        strings->count = result == 0 ? count_strings(&strings->span) : 0;
        return result;
    }
    case FIELD_RLIMITS:
        return read_rlimits(reader, &message->exec);
    }
    return -EPROTO;
}

static int read_body(const struct agent_kind_rules *rules, struct cbor_reader *reader, struct agent_message *message)
{
    uint64_t count = 0, key = 0;
    if (rules->field_count > 0 && (cbor_read_map(reader, &count) < 0 || count != rules->field_count))
        return -EPROTO;
    for (size_t i = 0; i < rules->field_count; i++)
        if (cbor_read_unsigned(reader, &key) < 0 || key != i || read_field(reader, &rules->fields[i], message) < 0)
            return -EPROTO;
    return reader->next == reader->end ? 0 : -EPROTO;
}

int agent_decode(const struct agent_header *header, const uint8_t *body, struct agent_message *ret_message)
{
    const struct agent_kind_rules *rules = agent_rules(header->kind);
    struct agent_message message = {.id = header->id, .kind = header->kind, .flags = header->flags};
    struct cbor_reader reader = {.next = body, .end = header->body_bytes > 0 ? body + header->body_bytes : body};
    if (rules == NULL || read_body(rules, &reader, &message) < 0 || agent_check(rules, &message) < 0)
        return -EPROTO;
    *ret_message = message;
    return 0;
}

const char *agent_strings_next(const struct agent_strings *strings, const char *at)
{
    const char *next = at == NULL ? strings->span.bytes : at + strlen(at) + 1;
    return strings->span.length > 0 && next < strings->span.bytes + strings->span.length ? next : NULL;
}
