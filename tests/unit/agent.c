// SPDX-License-Identifier: Apache-2.0
/* Tests of the agent's frames: every kind arrives as it was sent, every bound, and every way to break a frame. */
#include "test.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "proto/agent.h"

#include <errno.h>
#include <sys/stat.h>

#define SPAN(text)                                                                                                     \
    {                                                                                                                  \
        .bytes = (text), .length = sizeof(text) - 1                                                                    \
    }
#define STRINGS(text, number)                                                                                          \
    {                                                                                                                  \
        .span = {.bytes = (text), .length = sizeof(text) - 1}, .count = (number)                                       \
    }

enum { last = AGENT_LAST, end = AGENT_END };

/* One of each kind, with numbers that take every width. */
static const struct agent_message messages[] = {
    {.id = 0xffff0001,
     .kind = AGENT_EXEC,
     .exec = {.flags = AGENT_EXEC_ALL_FLAGS,
              .window = AGENT_MOST_WINDOW,
              .rows = 24,
              .columns = 65535,
              .path = SPAN("sh"),
              .args = STRINGS("sh\0-c\0\0\n\xff\0", 4),
              .env = STRINGS("A=b=c\0EMPTY=\0", 2),
              .workdir = SPAN("/var/lib"),
              .user = SPAN("nobody:1000"),
              .rlimits = {{7, 1024, 4096}, {15, 0, UINT64_MAX}},
              .rlimit_count = 2}},
    {.id = 2, .kind = AGENT_CONNECT, .connect = {.window = 0, .port = 65535, .target = SPAN("")}},
    {.id = 3, .kind = AGENT_STAT, .file = {.flags = AGENT_FILE_FOLLOW, .path = SPAN("/")}},
    {.id = 4, .kind = AGENT_LIST, .file = {.path = SPAN("/a b\n")}},
    {.id = 5, .kind = AGENT_READ, .file = {.window = 1, .offset = 4096, .length = UINT64_MAX, .path = SPAN("/x")}},
    {.id = 6, .kind = AGENT_WRITE, .file = {.flags = AGENT_FILE_APPEND, .mode = 07777, .path = SPAN("/x")}},
    {.id = 7, .kind = AGENT_MAKE, .file = {.flags = AGENT_FILE_PARENTS, .mode = 0755, .path = SPAN("/x")}},
    {.id = 8, .kind = AGENT_REMOVE, .file = {.flags = AGENT_FILE_RECURSIVE, .path = SPAN("/x")}},
    {.id = 9, .kind = AGENT_RENAME, .file = {.path = SPAN("/x"), .to = SPAN("/y")}},
    {.id = 10, .kind = AGENT_PULL, .file = {.window = 5, .path = SPAN("/x")}},
    {.id = 11, .kind = AGENT_PUSH, .file = {.flags = AGENT_FILE_OWNERS, .path = SPAN("/x")}},
    {.id = 12, .kind = AGENT_PING},
    {.id = 13, .kind = AGENT_CLOCK, .clock = {.unix_ns = INT64_MAX}},
    {.id = 14, .kind = AGENT_SHUTDOWN, .stop = {.grace_ms = 10000}},
    {.id = 15, .kind = AGENT_SIGNAL, .signal = {.number = 64}},
    {.id = 16, .kind = AGENT_RESIZE, .resize = {.rows = 0, .columns = 80}},
    {.id = 17, .kind = AGENT_CANCEL},
    {.id = 0x50000, .kind = AGENT_GONE},
    {.id = 18, .kind = AGENT_DATA, .data = {.stream = AGENT_STDERR, .bytes = SPAN("a\0b")}},
    {.id = 18, .kind = AGENT_DATA, .flags = end, .data = {.stream = 0, .bytes = SPAN("")}},
    {.id = 19, .kind = AGENT_CREDIT, .credit = {.stream = 1, .bytes = 65536}},
    {.kind = AGENT_READY,
     .ready = {.version = 1, .cpus = 2, .memory_bytes = 1 << 30, .uptime_ns = 5, .kernel = SPAN("7.3")}},
    {.kind = AGENT_HEARTBEAT,
     .heartbeat = {.uptime_ns = UINT64_MAX, .busy_ns = 1, .total_bytes = 2, .available_bytes = 3, 4, 5}},
    {.id = 20, .kind = AGENT_STARTED, .started = {.pid = 17, .window = 262144}},
    {.id = 21, .kind = AGENT_FAILED, .flags = last, .failed = {.stage = 9, .os_error = 2, .message = SPAN("no sh")}},
    {.id = 22, .kind = AGENT_ENDED, .flags = last, .ended = {.code = 255}},
    {.id = 23, .kind = AGENT_ENDED, .flags = last, .ended = {.signal = 9}},
    {.id = 24, .kind = AGENT_DONE, .flags = last},
    {.id = 25,
     .kind = AGENT_ENTRY,
     .entry = {.mode = S_IFLNK | 0777,
               .size = 3,
               .mtime_s = -5,
               .mtime_ns = 999999999,
               .name = SPAN("..."),
               .link = SPAN("to")}},
    {.id = 26, .kind = AGENT_ENTRY, .flags = last, .entry = {.mode = S_IFDIR, .uid = UINT32_MAX, .mtime_s = INT64_MIN}},
    {.id = 27, .kind = AGENT_STATUS},
    {.id = 28, .kind = AGENT_STOP, .stop = {.grace_ms = 0}},
    {.id = 29, .kind = AGENT_PAUSE},
    {.id = 30, .kind = AGENT_RESUME},
    {.id = 31, .kind = AGENT_ATTACH, .attach = {.flags = AGENT_ATTACH_ALL_FLAGS, .window = 3, .rows = 1, .columns = 2}},
    {.id = 32, .kind = AGENT_REPORT, .flags = last, .report = {.json = SPAN("{}")}},
    {.id = 33, .kind = AGENT_REPORT, .report = {.json = SPAN("{\"a\":1}")}},
    {.id = 34, .kind = AGENT_EVENTS},
};

static int encode(const struct agent_message *message, struct buffer *buffer)
{
    *buffer = (struct buffer)BUFFER_INIT(AGENT_HEADER_BYTES + AGENT_MOST_BODY_BYTES);
    return agent_encode(message, buffer);
}

/* A decoded message, in memory of exactly the body's size. */
static struct agent_message decoded;
static uint8_t *body;

static int decode(const void *frame, size_t length)
{
    struct agent_header header;
    size_t body_bytes = length < AGENT_HEADER_BYTES ? 0 : length - AGENT_HEADER_BYTES;
    free(body);
    body = malloc(body_bytes > 0 ? body_bytes : 1);
    if (length < AGENT_HEADER_BYTES || agent_decode_header(frame, &header) < 0 || header.body_bytes != body_bytes)
        return -EPROTO;
    memcpy(body, (const uint8_t *)frame + AGENT_HEADER_BYTES, body_bytes);
    return agent_decode(&header, body, &decoded);
}

static void forget(void)
{
    free(body);
    body = NULL;
}

static int round_trip(const struct agent_message *message)
{
    auto_buffer struct buffer buffer, again;
    again = (struct buffer)BUFFER_INIT(0);
    int result = encode(message, &buffer);
    if (result < 0)
        return result;
    result = decode(buffer.data, buffer.length);
    if (result == 0)
        result = encode(&decoded, &again);
    return result == 0 && (again.length != buffer.length || memcmp(again.data, buffer.data, buffer.length) != 0)
               ? -EILSEQ
               : result;
}

/* ---- what is said is understood ---- */

TEST(every_kind_arrives_as_it_was_sent)
{
    for (size_t i = 0; i < array_length(messages); i++) {
        CHECK_INT(round_trip(&messages[i]), 0);
        CHECK_INT(decoded.id, messages[i].id);
        CHECK_INT(decoded.kind, messages[i].kind);
        CHECK_INT(decoded.flags, messages[i].flags);
    }
    forget();
}

static bool is_text(const struct agent_span *span, const char *text)
{
    return span->length == strlen(text) && memcmp(span->bytes, text, span->length) == 0;
}

TEST(fields_are_not_mixed_up)
{
    CHECK_INT(round_trip(&messages[0]), 0);
    const struct agent_exec *exec = &decoded.exec;
    CHECK(exec->flags == AGENT_EXEC_ALL_FLAGS && exec->window == AGENT_MOST_WINDOW);
    CHECK(exec->rows == 24 && exec->columns == 65535);
    CHECK(is_text(&exec->path, "sh") && is_text(&exec->workdir, "/var/lib") && is_text(&exec->user, "nobody:1000"));
    CHECK_INT(exec->args.count, 4);
    CHECK_INT(exec->env.count, 2);
    const char *arg = NULL, *variable = NULL;
    static const char *const args[] = {"sh", "-c", "", "\n\xff"};
    for (size_t i = 0; i < array_length(args); i++) {
        arg = agent_strings_next(&exec->args, arg);
        CHECK_TEXT(arg, args[i]);
    }
    CHECK(agent_strings_next(&exec->args, arg) == NULL);
    variable = agent_strings_next(&exec->env, variable);
    CHECK_TEXT(variable, "A=b=c");
    CHECK_INT(exec->rlimit_count, 2);
    CHECK(exec->rlimits[0].resource == 7 && exec->rlimits[0].soft == 1024 && exec->rlimits[0].hard == 4096);
    CHECK(exec->rlimits[1].hard == UINT64_MAX);
    const struct agent_strings none = {0};
    CHECK(agent_strings_next(&none, NULL) == NULL);
    forget();
}

/* What docs/PROTOCOL.md describes, byte by byte. */
TEST(the_layout_is_the_described_one)
{
    static const uint8_t expected[] = {8,    0, 0, 0, 1,    0,   2,   0,  48, 0, 2, 0, /* body, id, kind, flags */
                                       0xa2, 0, 1, 1, 0x43, 'a', 'b', 'c'};
    auto_buffer struct buffer buffer;
    struct agent_message message = {
        .id = 0x20001, .kind = AGENT_DATA, .flags = AGENT_END, .data = {.stream = 1, .bytes = SPAN("abc")}};
    CHECK_INT(encode(&message, &buffer), 0);
    CHECK_INT(buffer.length, sizeof(expected));
    CHECK(memcmp(buffer.data, expected, sizeof(expected)) == 0);
    agent_set_id((uint8_t *)buffer.data, 0xa0b0c0d0);
    CHECK(memcmp(buffer.data + 4, "\xd0\xc0\xb0\xa0", 4) == 0 && buffer.data[8] == 48);
}

TEST(the_prefix_of_data_is_what_encoding_makes)
{
    static char bytes[AGENT_MOST_DATA_BYTES];
    static const size_t lengths[] = {0, 1, 23, 24, 255, 256, 4096, 65535, 65536};
    for (size_t i = 0; i < array_length(lengths); i++) {
        auto_buffer struct buffer buffer;
        uint8_t prefix[AGENT_DATA_PREFIX_BYTES];
        struct agent_message message = {.id = 7,
                                        .kind = AGENT_DATA,
                                        .flags = AGENT_END,
                                        .data = {.stream = 2, .bytes = {.bytes = bytes, .length = lengths[i]}}};
        CHECK_INT(encode(&message, &buffer), 0);
        size_t length = agent_data_prefix(7, 2, AGENT_END, lengths[i], prefix);
        CHECK_INT(length + lengths[i], buffer.length);
        CHECK(memcmp(prefix, buffer.data, length) == 0);
    }
}

/* ---- bounds ---- */

static struct agent_message a_message(enum agent_kind kind)
{
    for (size_t i = 0; i < array_length(messages); i++)
        if (messages[i].kind == kind)
            return messages[i];
    abort();
}

/* A message of that kind, changed, gives that result. */
#define CHANGED(number, change, expected)                                                                              \
    do {                                                                                                               \
        struct agent_message message = a_message(number);                                                              \
        change;                                                                                                        \
        CHECK_INT(round_trip(&message), expected);                                                                     \
    } while (0)

static char text[LIMIT_EXEC_BYTES + 2];

static struct agent_span text_of(size_t length)
{
    memset(text, 'x', sizeof(text));
    text[0] = '/';
    return (struct agent_span){.bytes = text, .length = length};
}

/* Strings of `length` bytes each, NUL included. */
static struct agent_strings strings_of(size_t count, size_t length)
{
    memset(text, 'x', sizeof(text));
    for (size_t i = 1; i <= count; i++)
        text[i * length - 1] = '\0';
    return (struct agent_strings){.span = {.bytes = text, .length = count * length}, .count = count};
}

TEST(what_an_exec_may_not_say)
{
    CHANGED(AGENT_EXEC, message.exec.flags = 16, -EINVAL);
    CHANGED(AGENT_EXEC, message.exec.window++, -EINVAL);
    CHANGED(AGENT_EXEC, message.exec.rows = 65536, -EINVAL);
    CHANGED(AGENT_EXEC, message.exec.path.length = 0, -EINVAL);
    CHANGED(AGENT_EXEC, message.exec.path = (struct agent_span)SPAN("a\0b"), -EINVAL);
    CHANGED(AGENT_EXEC, message.exec.path = text_of(4095), 0);
    CHANGED(AGENT_EXEC, message.exec.path = text_of(4096), -E2BIG);
    CHANGED(AGENT_EXEC, message.exec.workdir = (struct agent_span)SPAN("var"), -EINVAL);
    CHANGED(AGENT_EXEC, message.exec.workdir.length = 0, 0);
    CHANGED(AGENT_EXEC, message.exec.user = text_of(512), -E2BIG);
    CHANGED(AGENT_EXEC, message.exec.args.span.length--, -EINVAL); /* no NUL at the end */
    CHANGED(AGENT_EXEC, message.exec.args.count++, -EINVAL);
    CHANGED(AGENT_EXEC, message.exec.args.count--, -EINVAL);
    CHANGED(AGENT_EXEC, message.exec.args = (struct agent_strings){0}, -EINVAL);
    CHANGED(AGENT_EXEC, message.exec.args = strings_of(4096, 2), 0);
    CHANGED(AGENT_EXEC, message.exec.args = strings_of(4097, 2), -E2BIG);
    CHANGED(AGENT_EXEC, message.exec.args = strings_of(1, LIMIT_EXEC_STRING_BYTES), 0);
    CHANGED(AGENT_EXEC, message.exec.args = strings_of(1, LIMIT_EXEC_STRING_BYTES + 1), -E2BIG);
    CHANGED(AGENT_EXEC, message.exec.env = (struct agent_strings){0}, 0);
    CHANGED(AGENT_EXEC, message.exec.env = (struct agent_strings)STRINGS("A\0", 1), -EINVAL);
    CHANGED(AGENT_EXEC, message.exec.env = (struct agent_strings)STRINGS("=A\0", 1), -EINVAL);
    CHANGED(AGENT_EXEC,
            (message.exec.args = strings_of(32, 65536), message.exec.env.span.length = 0, message.exec.env.count = 0),
            0); /* as much as there may be */
    CHANGED(AGENT_EXEC, message.exec.args = strings_of(32, 65536), -E2BIG);
    CHANGED(AGENT_EXEC, message.exec.rlimits[1].resource = 7, -EINVAL); /* twice */
    CHANGED(AGENT_EXEC, message.exec.rlimits[1].resource = 16, -EINVAL);
    CHANGED(AGENT_EXEC, message.exec.rlimits[0].soft = 4097, -EINVAL);
    CHANGED(AGENT_EXEC, message.exec.rlimit_count = 17, -E2BIG);
    forget();
}

TEST(what_the_others_may_not_say)
{
    CHANGED(AGENT_CONNECT, message.connect.port = 65536, -EINVAL);
    CHANGED(AGENT_CONNECT, message.connect.port = 0, -EINVAL); /* no socket to connect to */
    CHANGED(AGENT_STAT, message.file.flags = AGENT_FILE_OWNERS, -EINVAL);
    CHANGED(AGENT_STAT, message.file.path = (struct agent_span)SPAN("x"), -EINVAL);
    CHANGED(AGENT_LIST, message.file.path = text_of(4096), -E2BIG);
    CHANGED(AGENT_READ, message.file.offset = UINT64_C(1) << 63, -EINVAL);
    CHANGED(AGENT_WRITE, message.file.mode = 010000, -EINVAL);
    CHANGED(AGENT_WRITE, message.file.flags = AGENT_FILE_FOLLOW, -EINVAL);
    CHANGED(AGENT_RENAME, message.file.to.length = 0, -EINVAL);
    CHANGED(AGENT_RENAME, message.file.to = (struct agent_span)SPAN("/a\0"), -EINVAL);
    CHANGED(AGENT_CLOCK, message.clock.unix_ns++, -EINVAL);
    CHANGED(AGENT_SIGNAL, message.signal.number = 0, -EINVAL);
    CHANGED(AGENT_SIGNAL, message.signal.number = 65, -EINVAL);
    CHANGED(AGENT_DATA, message.data.stream = 3, -EINVAL);
    CHANGED(AGENT_DATA, message.data.bytes.length = 0, -EINVAL); /* neither bytes nor an end */
    CHANGED(AGENT_DATA, message.data.bytes = text_of(65537), -E2BIG);
    CHANGED(AGENT_CREDIT, message.credit.bytes = 0, -EINVAL);
    CHANGED(AGENT_CREDIT, message.credit.bytes = AGENT_MOST_WINDOW + 1, -EINVAL);
    CHANGED(AGENT_READY, message.ready.version = 0, -EINVAL);
    CHANGED(AGENT_READY, message.ready.version = 2, 0); /* so that it can be told from ours */
    CHANGED(AGENT_FAILED, message.failed.stage = 0, -EINVAL);
    CHANGED(AGENT_FAILED, message.failed.stage = AGENT_LAST_STAGE + 1, -EINVAL);
    CHANGED(AGENT_FAILED, message.failed.os_error = 4096, -EINVAL);
    CHANGED(AGENT_FAILED, message.failed.message = text_of(1025), -E2BIG);
    CHANGED(AGENT_ENDED, message.ended.code = 256, -EINVAL);
    CHANGED(AGENT_ENDED, message.ended.signal = 9, -EINVAL); /* it has a code, too */
    CHANGED(AGENT_ENTRY, message.entry.mode = 0644, -EINVAL);
    CHANGED(AGENT_ENTRY, message.entry.mtime_ns = 1000000000, -EINVAL);
    CHANGED(AGENT_ENTRY, message.entry.name = (struct agent_span)SPAN("."), -EINVAL);
    CHANGED(AGENT_ENTRY, message.entry.name = (struct agent_span)SPAN(".."), -EINVAL);
    CHANGED(AGENT_ENTRY, message.entry.name = (struct agent_span)SPAN("a/b"), -EINVAL);
    CHANGED(AGENT_ENTRY, message.entry.name = (struct agent_span)SPAN(""), -EINVAL);
    CHANGED(AGENT_ENTRY, message.flags = AGENT_LAST, -EINVAL);
    CHANGED(AGENT_ATTACH, message.attach.flags = 4, -EINVAL);
    CHANGED(AGENT_REPORT, message.report.json.length = 0, -EINVAL);
    forget();
}

TEST(ids_and_flags_belong_to_their_kinds)
{
    CHANGED(AGENT_PING, message.id = 0, -EINVAL);
    CHANGED(AGENT_PING, message.id = 0x10000, -EINVAL);
    CHANGED(AGENT_READY, message.id = 1, -EINVAL);
    CHANGED(AGENT_GONE, message.id = 0, -EINVAL);
    CHANGED(AGENT_GONE, message.id = 0x50001, -EINVAL);
    CHANGED(AGENT_PING, message.flags = AGENT_LAST, -EINVAL);
    CHANGED(AGENT_DATA, message.flags = AGENT_LAST, -EINVAL);
    CHANGED(AGENT_DATA, message.flags = 4, -EINVAL);
    CHANGED(AGENT_DONE, message.flags = 0, -EINVAL);
    CHANGED(AGENT_ENDED, message.flags = AGENT_LAST | AGENT_END, -EINVAL);
    CHANGED(AGENT_PING, message.kind = (enum agent_kind)0, -EINVAL);
    CHANGED(AGENT_PING, message.kind = (enum agent_kind)15, -EINVAL);
    CHANGED(AGENT_PING, message.kind = (enum agent_kind)65536, -EINVAL);
    forget();
}

/* ---- broken frames ---- */

TEST(every_truncation_and_every_addition_is_refused)
{
    for (size_t i = 0; i < array_length(messages); i++) {
        auto_buffer struct buffer buffer;
        CHECK_INT(encode(&messages[i], &buffer), 0);
        for (size_t length = 0; length < buffer.length; length++) {
            uint32_t body_bytes = (uint32_t)(length < AGENT_HEADER_BYTES ? 0 : length - AGENT_HEADER_BYTES);
            CHECK_INT(decode(buffer.data, length), -EPROTO);
            if (AGENT_HEADER_BYTES + body_bytes == buffer.length)
                continue; /* it has no body that could be shorter */
            auto_free char *shorter = malloc(AGENT_HEADER_BYTES + body_bytes);
            memcpy(shorter, buffer.data, AGENT_HEADER_BYTES + body_bytes);
            memcpy(shorter, &body_bytes, sizeof(body_bytes)); /* the same, and the header says so */
            CHECK_INT(decode(shorter, AGENT_HEADER_BYTES + body_bytes), -EPROTO);
        }
        uint32_t longer = (uint32_t)(buffer.length - AGENT_HEADER_BYTES + 1);
        CHECK_INT(buffer_add(&buffer, "", 1), 0);
        memcpy(buffer.data, &longer, sizeof(longer));
        CHECK_INT(decode(buffer.data, buffer.length), -EPROTO);
    }
    forget();
}

/* Whatever a byte is changed to, what is still a message has this one encoding. */
TEST(no_message_has_a_second_encoding)
{
    for (size_t i = 0; i < array_length(messages); i++) {
        auto_buffer struct buffer buffer;
        CHECK_INT(encode(&messages[i], &buffer), 0);
        for (size_t at = 0; at < buffer.length; at++)
            for (unsigned value = 0; value < 256; value++) {
                auto_buffer struct buffer again = BUFFER_INIT(1 << 20);
                char before = buffer.data[at];
                buffer.data[at] = (char)value;
                int result = decode(buffer.data, buffer.length);
                CHECK(result == 0 || result == -EPROTO);
                if (result == 0) {
                    CHECK_INT(agent_encode(&decoded, &again), 0);
                    CHECK(again.length == buffer.length && memcmp(again.data, buffer.data, again.length) == 0);
                }
                buffer.data[at] = before;
            }
    }
    forget();
}

static int decode_header(uint32_t body_bytes, uint32_t id, uint16_t kind, uint16_t flags)
{
    uint8_t bytes[AGENT_HEADER_BYTES];
    struct agent_header header;
    memcpy(bytes, &body_bytes, 4);
    memcpy(bytes + 4, &id, 4);
    memcpy(bytes + 8, &kind, 2);
    memcpy(bytes + 10, &flags, 2);
    return agent_decode_header(bytes, &header);
}

TEST(headers_bound_what_a_reader_must_hold)
{
    CHECK_INT(decode_header(AGENT_MOST_BODY_BYTES, 1, AGENT_EXEC, 0), 0);
    CHECK_INT(decode_header(AGENT_MOST_BODY_BYTES + 1, 1, AGENT_EXEC, 0), -EPROTO);
    CHECK_INT(decode_header(UINT32_MAX, 1, AGENT_EXEC, 0), -EPROTO);
    CHECK_INT(decode_header(66000, 1, AGENT_DATA, 0), -EPROTO);
    CHECK_INT(decode_header(2000, 1, AGENT_FAILED, AGENT_LAST), -EPROTO);
    CHECK_INT(decode_header(100, 0, AGENT_HEARTBEAT, 0), -EPROTO);
    CHECK_INT(decode_header(0, 1, AGENT_DATA, 0), -EPROTO);
    CHECK_INT(decode_header(0, 1, AGENT_PING, 0), 0);
    CHECK_INT(decode_header(1, 1, AGENT_PING, 0), -EPROTO);
    for (unsigned kind = 0; kind < 65536; kind++) {
        bool is_known = strcmp(agent_kind_name((enum agent_kind)kind), "unknown") != 0;
        bool is_taken = false;
        for (unsigned flags = 0; flags < 4; flags++)
            for (uint32_t body_bytes = 0; body_bytes < 2; body_bytes++)
                is_taken |= decode_header(body_bytes, 1, (uint16_t)kind, (uint16_t)flags) == 0 ||
                            decode_header(body_bytes, 0, (uint16_t)kind, (uint16_t)flags) == 0 ||
                            decode_header(body_bytes, 1 << 16, (uint16_t)kind, (uint16_t)flags) == 0;
        CHECK_INT(is_taken, is_known);
    }
}

/* ---- who may say it ---- */

TEST(senders)
{
    static const struct {
        enum agent_kind kind;
        bool host, agent, client, begins;
    } kinds[] = {
        {AGENT_EXEC, true, false, true, true},      {AGENT_PUSH, true, false, true, true},
        {AGENT_PING, true, false, true, true},      {AGENT_SHUTDOWN, true, false, false, true},
        {AGENT_SIGNAL, true, false, true, false},   {AGENT_GONE, true, false, false, false},
        {AGENT_DATA, true, true, true, false},      {AGENT_CREDIT, true, true, true, false},
        {AGENT_READY, false, true, false, false},   {AGENT_ENDED, false, true, false, false},
        {AGENT_STATUS, false, false, true, true},   {AGENT_ATTACH, false, false, true, true},
        {AGENT_REPORT, false, false, false, false}, {(enum agent_kind)15, false, false, false, false},
    };
    for (size_t i = 0; i < array_length(kinds); i++) {
        CHECK_INT(agent_is_from_host(kinds[i].kind), kinds[i].host);
        CHECK_INT(agent_is_from_agent(kinds[i].kind), kinds[i].agent);
        CHECK_INT(agent_is_from_client(kinds[i].kind), kinds[i].client);
        CHECK_INT(agent_begins_session(kinds[i].kind), kinds[i].begins);
    }
    CHECK_TEXT(agent_kind_name(AGENT_EVENTS), "events");
    CHECK_TEXT(agent_kind_name((enum agent_kind)103), "unknown");
    for (unsigned stage = 1; stage <= AGENT_LAST_STAGE; stage++)
        CHECK(strcmp(agent_stage_name((enum agent_stage)stage), "unknown") != 0);
    CHECK_TEXT(agent_stage_name((enum agent_stage)0), "unknown");
    CHECK_TEXT(agent_stage_name((enum agent_stage)(AGENT_LAST_STAGE + 1)), "unknown");
}

/* ---- memory ---- */

TEST(encoding_survives_no_memory)
{
    FOR_EACH_FAULT
    {
        auto_buffer struct buffer buffer;
        CHECK_INT(encode(&messages[0], &buffer), fault_was_hit() ? -ENOMEM : 0);
        CHECK(buffer.error == 0 || buffer.length == 0);
    }
    auto_buffer struct buffer small = BUFFER_INIT(20);
    CHECK_INT(agent_encode(&messages[11], &small), 0);
    CHECK_INT(agent_encode(&messages[11], &small), -ENOBUFS);
    CHECK_INT(small.length, AGENT_HEADER_BYTES);
}
