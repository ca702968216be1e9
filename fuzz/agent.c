// SPDX-License-Identifier: Apache-2.0
/* Any bytes as a stream of frames. What must hold: what is taken encodes to the very same bytes; its spans lie in the
 * body and hold no NUL where none may be; strings are as many as they say. */
#include "fuzz.h"

#include "base/buffer.h"
#include "proto/agent.h"

#include <errno.h>

static void check_strings(const struct agent_strings *strings)
{
    size_t count = 0, length = 0;
    for (const char *at = NULL; (at = agent_strings_next(strings, at)) != NULL; count++)
        length += strlen(at) + 1;
    FUZZ_CHECK(count == strings->count && length == strings->span.length);
}

static void check_path(const struct agent_span *path)
{
    FUZZ_CHECK(path->length > 0 && path->length <= AGENT_MOST_PATH_BYTES && path->bytes[0] == '/');
    FUZZ_CHECK(memchr(path->bytes, '\0', path->length) == NULL);
}

static void check_meaning(const struct agent_message *message)
{
    if (message->kind == AGENT_EXEC) {
        check_strings(&message->exec.args);
        check_strings(&message->exec.env);
        FUZZ_CHECK(message->exec.args.count > 0 && message->exec.rlimit_count <= LIMIT_RLIMITS);
    }
    if (message->kind >= AGENT_STAT && message->kind <= AGENT_PUSH)
        check_path(&message->file.path);
    if (message->kind == AGENT_ENTRY && message->entry.name.length > 0)
        FUZZ_CHECK(memchr(message->entry.name.bytes, '/', message->entry.name.length) == NULL);
    if (message->kind == AGENT_DATA)
        FUZZ_CHECK(message->data.stream < AGENT_STREAMS && message->data.bytes.length <= AGENT_MOST_DATA_BYTES);
}

/* The body, in memory of exactly its size. */
static void check_frame(const struct agent_header *header, const uint8_t *frame)
{
    struct agent_message message;
    struct buffer buffer = BUFFER_INIT(AGENT_HEADER_BYTES + AGENT_MOST_BODY_BYTES);
    uint8_t *body = malloc(header->body_bytes > 0 ? header->body_bytes : 1);
    FUZZ_CHECK(body != NULL);
    memcpy(body, frame + AGENT_HEADER_BYTES, header->body_bytes);
    int result = agent_decode(header, body, &message);
    FUZZ_CHECK(result == 0 || result == -EPROTO);
    if (result == 0) {
        check_meaning(&message);
        FUZZ_CHECK(agent_encode(&message, &buffer) == 0);
        FUZZ_CHECK(buffer.length == AGENT_HEADER_BYTES + header->body_bytes);
        FUZZ_CHECK(memcmp(buffer.data, frame, buffer.length) == 0);
    }
    buffer_free(&buffer);
    free(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct agent_header header;
    while (size >= AGENT_HEADER_BYTES && agent_decode_header(data, &header) == 0) {
        FUZZ_CHECK(header.body_bytes <= AGENT_MOST_BODY_BYTES);
        if (header.body_bytes > size - AGENT_HEADER_BYTES)
            break;
        check_frame(&header, data);
        data += AGENT_HEADER_BYTES + header.body_bytes;
        size -= AGENT_HEADER_BYTES + header.body_bytes;
    }
    return 0;
}
