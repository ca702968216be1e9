// SPDX-License-Identifier: Apache-2.0
/* The messages between the host and the guest's first process, made and read; init.h has their layout.
 *
 * Both sides compile this file, so that what one writes is what the other reads. A request goes through the same
 * check_request before it is encoded and after it was decoded: nothing can be said that is not understood.
 *
 * Strings stay where they arrived. The only memory that decoding takes is the table of pointers to them that execve
 * wants, of a size that the limit of strings bounds (64 KiB):
 *
 *     table   path  args…  NULL  env…  NULL
 *                   ^ args        ^ env
 *
 * Invariants: (1) a header that was accepted has a body of a length that its kind can have. (2) a reader never passes
 * the end of its body, and a body is used up to its last byte. (3) a decoded string has its NUL inside the body.
 *
 * Trust: the host trusts no byte of an answer. The guest's init treats a request in the same way.
 */
#include "proto/init.h"

#include "base/alloc.h"
#include "base/buffer.h"

#include <errno.h>
#include <string.h>

/* Little-endian, as we are; without padding. */
struct wire_header {
    uint32_t body_bytes;
    uint16_t kind, version;
};

struct wire_request {
    uint32_t flags, uid, gid, arg_count, env_count, rlimit_count;
};

struct wire_rlimit {
    uint32_t resource, zero;
    uint64_t soft, hard;
};

struct wire_pair { /* the body of FAILED and of ENDED */
    uint32_t first, second;
};

_Static_assert(sizeof(struct wire_header) == INIT_HEADER_BYTES && sizeof(struct wire_request) == 24 &&
                   sizeof(struct wire_rlimit) == 24 && sizeof(struct wire_pair) == 8,
               "the structs are what init.h describes");

enum { flag_terminal = 1, flag_uid = 2, flag_gid = 4, all_flags = 7 };
enum { most_os_error = 4095 /* MAX_ERRNO of Linux */, most_exit_code = 255, most_signal = 64 };

/* ---- headers ---- */

static bool is_body_length(enum init_kind kind, uint32_t length)
{
    switch (kind) {
    case INIT_REQUEST:
        return length >= sizeof(struct wire_request) && length <= LIMIT_EXEC_REQUEST_BYTES;
    case INIT_FAILED:
    case INIT_ENDED:
        return length == sizeof(struct wire_pair);
    case INIT_GOODBYE:
    case INIT_STARTED:
        return length == 0;
    }
    return false; /* a kind that there is not */
}

static struct wire_header make_header(enum init_kind kind, size_t body_bytes)
{
    return (struct wire_header){
        .body_bytes = (uint32_t)body_bytes,
        .kind = (uint16_t)kind,
        .version = INIT_VERSION,
    };
}

int init_decode_header(const uint8_t bytes[INIT_HEADER_BYTES], struct init_header *ret_header)
{
    struct wire_header wire;
    memcpy(&wire, bytes, sizeof(wire));
    if (wire.version != INIT_VERSION || !is_body_length((enum init_kind)wire.kind, wire.body_bytes))
        return -EPROTO;
    *ret_header = (struct init_header){.body_bytes = wire.body_bytes, .kind = (enum init_kind)wire.kind};
    return 0;
}

void init_encode_empty(enum init_kind kind, uint8_t ret_bytes[INIT_HEADER_BYTES])
{
    struct wire_header wire = make_header(kind, 0);
    memcpy(ret_bytes, &wire, sizeof(wire));
}

/* ---- what a request may say ---- */

static int check_path(const char *path, bool is_absolute)
{
    size_t length = strnlen(path, LIMIT_EXEC_PATH_BYTES);
    if (length == LIMIT_EXEC_PATH_BYTES)
        return -E2BIG;
    return length == 0 || (is_absolute && path[0] != '/') ? -EINVAL : 0;
}

static int check_strings(const char *const *strings, size_t count, bool are_variables, size_t *total_bytes)
{
    if (count > LIMIT_STRINGS)
        return -E2BIG;
    for (size_t i = 0; i < count; i++) {
        size_t length = strnlen(strings[i], LIMIT_EXEC_STRING_BYTES);
        *total_bytes += length + 1; /* cannot overflow: the strings are in memory */
        if (length == LIMIT_EXEC_STRING_BYTES || *total_bytes > LIMIT_EXEC_BYTES)
            return -E2BIG;
        const char *equals = are_variables ? strchr(strings[i], '=') : NULL;
        if (are_variables && (equals == NULL || equals == strings[i]))
            return -EINVAL;
    }
    return 0;
}

static int check_rlimits(const struct init_request *request)
{
    uint32_t seen = 0;
    if (request->rlimit_count > LIMIT_RLIMITS)
        return -E2BIG;
    for (size_t i = 0; i < request->rlimit_count; i++) {
        const struct init_rlimit *limit = &request->rlimits[i];
        if (limit->resource >= LIMIT_RLIMITS || (seen & 1u << limit->resource) != 0 || limit->soft > limit->hard)
            return -EINVAL;
        seen |= 1u << limit->resource;
    }
    return 0;
}

static int check_id(bool is_given, uint32_t id)
{
    return is_given ? (id == UINT32_MAX ? -EINVAL : 0) : (id != 0 ? -EINVAL : 0);
}

static int check_request(const struct init_request *request)
{
    size_t total_bytes = 0;
    int result = check_path(request->path, false);
    if (result == 0)
        result = check_path(request->workdir, true);
    if (result == 0)
        result = check_strings(request->args, request->arg_count, false, &total_bytes);
    if (result == 0)
        result = check_strings(request->env, request->env_count, true, &total_bytes);
    if (result == 0)
        result = check_rlimits(request);
    if (result == 0)
        result = check_id(request->has_uid, request->uid);
    if (result == 0)
        result = check_id(request->has_gid, request->gid);
    return result;
}

/* ---- making a request ---- */

static size_t strings_bytes(const char *const *strings, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += strlen(strings[i]) + 1;
    return bytes;
}

static size_t request_bytes(const struct init_request *request)
{
    return sizeof(struct wire_request) + request->rlimit_count * sizeof(struct wire_rlimit) + strlen(request->path) +
           1 + strlen(request->workdir) + 1 + strings_bytes(request->args, request->arg_count) +
           strings_bytes(request->env, request->env_count);
}

static void add_string(struct buffer *buffer, const char *string)
{
    buffer_add(buffer, string, strlen(string) + 1);
}

static void add_numbers(struct buffer *buffer, const struct init_request *request)
{
    struct wire_header header = make_header(INIT_REQUEST, request_bytes(request));
    struct wire_request numbers = {
        .flags = (request->has_terminal ? flag_terminal : 0u) | (request->has_uid ? flag_uid : 0u) |
                 (request->has_gid ? flag_gid : 0u),
        .uid = request->uid,
        .gid = request->gid,
        .arg_count = (uint32_t)request->arg_count,
        .env_count = (uint32_t)request->env_count,
        .rlimit_count = (uint32_t)request->rlimit_count,
    };
    buffer_add(buffer, &header, sizeof(header));
    buffer_add(buffer, &numbers, sizeof(numbers));
    for (size_t i = 0; i < request->rlimit_count; i++) {
        const struct init_rlimit *limit = &request->rlimits[i];
        struct wire_rlimit wire = {.resource = limit->resource, .soft = limit->soft, .hard = limit->hard};
        buffer_add(buffer, &wire, sizeof(wire));
    }
}

int init_encode_request(const struct init_request *request, struct buffer *buffer)
{
    int result = check_request(request);
    if (result < 0)
        return result;
    add_numbers(buffer, request);
    add_string(buffer, request->path);
    add_string(buffer, request->workdir);
    for (size_t i = 0; i < request->arg_count; i++)
        add_string(buffer, request->args[i]);
    for (size_t i = 0; i < request->env_count; i++)
        add_string(buffer, request->env[i]);
    return buffer->error;
}

/* ---- reading one ---- */

struct reader {
    const uint8_t *next;
    size_t left;
};

static bool take(struct reader *reader, void *bytes, size_t length)
{
    if (length > reader->left)
        return false;
    memcpy(bytes, reader->next, length);
    reader->next += length;
    reader->left -= length;
    return true;
}

/* NULL where the body ends before the string does. */
static const char *take_string(struct reader *reader)
{
    const char *string = (const char *)reader->next;
    const uint8_t *end = reader->left > 0 ? memchr(reader->next, '\0', reader->left) : NULL;
    if (end == NULL)
        return NULL;
    reader->left -= (size_t)(end + 1 - reader->next);
    reader->next = end + 1;
    return string;
}

static bool take_strings(struct reader *reader, const char **places, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if ((places[i] = take_string(reader)) == NULL)
            return false;
    return true;
}

static int take_numbers(struct reader *reader, struct init_request *request)
{
    struct wire_request wire;
    if (!take(reader, &wire, sizeof(wire)) || (wire.flags & ~(uint32_t)all_flags) != 0)
        return -EPROTO;
    if (wire.arg_count > LIMIT_STRINGS || wire.env_count > LIMIT_STRINGS || wire.rlimit_count > LIMIT_RLIMITS)
        return -E2BIG;
    *request = (struct init_request){
        .arg_count = wire.arg_count,
        .env_count = wire.env_count,
        .rlimit_count = wire.rlimit_count,
        .uid = wire.uid,
        .gid = wire.gid,
        .has_terminal = (wire.flags & flag_terminal) != 0,
        .has_uid = (wire.flags & flag_uid) != 0,
        .has_gid = (wire.flags & flag_gid) != 0,
    };
    for (size_t i = 0; i < request->rlimit_count; i++) {
        struct wire_rlimit limit;
        if (!take(reader, &limit, sizeof(limit)) || limit.zero != 0)
            return -EPROTO;
        request->rlimits[i] = (struct init_rlimit){limit.resource, limit.soft, limit.hard};
    }
    return 0;
}

/* The table has room for the path, the arguments, the environment, and two NULLs. */
static int take_texts(struct reader *reader, struct init_request *request, const char **table)
{
    const char **args = table + 1, **env = args + request->arg_count + 1;
    bool is_whole = take_strings(reader, table, 1) && (request->workdir = take_string(reader)) != NULL &&
                    take_strings(reader, args, request->arg_count) && take_strings(reader, env, request->env_count);
    if (!is_whole || reader->left != 0)
        return -EPROTO;
    request->path = table[0];
    request->args = args;
    request->env = env;
    int result = check_request(request);
    return result == -EINVAL ? -EPROTO : result;
}

int init_decode_request(const uint8_t *body, size_t length, struct init_request *ret_request, void **ret_table)
{
    struct reader reader = {.next = body, .left = length};
    struct init_request request;
    int result = length > LIMIT_EXEC_REQUEST_BYTES ? -E2BIG : take_numbers(&reader, &request);
    if (result < 0)
        return result;
    const char **table = alloc_zero((request.arg_count + request.env_count + 3) * sizeof(table[0]));
    if (table == NULL)
        return -ENOMEM;
    result = take_texts(&reader, &request, table);
    if (result < 0) {
        free(table);
        return result;
    }
    *ret_request = request;
    *ret_table = table;
    return 0;
}

/* ---- answers ---- */

size_t init_encode_answer(const struct init_answer *answer, uint8_t ret_bytes[INIT_MOST_ANSWER_BYTES])
{
    struct wire_pair body = {.first = answer->was_killed, .second = answer->number};
    if (answer->kind == INIT_FAILED)
        body = (struct wire_pair){.first = (uint32_t)answer->stage, .second = answer->os_error};
    struct wire_header header = make_header(answer->kind, answer->kind == INIT_STARTED ? 0 : sizeof(body));
    memcpy(ret_bytes, &header, sizeof(header));
    memcpy(ret_bytes + sizeof(header), &body, header.body_bytes);
    return sizeof(header) + header.body_bytes;
}

static int decode_failed(const struct wire_pair *body, struct init_answer *answer)
{
    if (body->first < INIT_STAGE_REQUEST || body->first > INIT_LAST_STAGE || body->second == 0 ||
        body->second > most_os_error)
        return -EPROTO;
    answer->stage = (enum init_stage)body->first;
    answer->os_error = body->second;
    return 0;
}

static int decode_ended(const struct wire_pair *body, struct init_answer *answer)
{
    bool was_killed = body->first == 1;
    if (body->first > 1 || body->second > (was_killed ? most_signal : most_exit_code) ||
        (was_killed && body->second == 0))
        return -EPROTO;
    answer->was_killed = was_killed;
    answer->number = body->second;
    return 0;
}

int init_decode_answer(const struct init_header *header, const uint8_t *body, struct init_answer *ret_answer)
{
    struct wire_pair pair = {0};
    struct init_answer answer = {.kind = header->kind};
    int result = -EPROTO;
    if (header->body_bytes == sizeof(pair))
        memcpy(&pair, body, sizeof(pair));
    if (header->kind == INIT_STARTED && header->body_bytes == 0)
        result = 0;
    else if (header->kind == INIT_FAILED && header->body_bytes == sizeof(pair))
        result = decode_failed(&pair, &answer);
    else if (header->kind == INIT_ENDED && header->body_bytes == sizeof(pair))
        result = decode_ended(&pair, &answer);
    if (result == 0)
        *ret_answer = answer;
    return result;
}

const char *init_stage_name(enum init_stage stage)
{
    static const char *const names[] = {
        [INIT_STAGE_REQUEST] = "request",     [INIT_STAGE_MOUNT] = "mount",       [INIT_STAGE_STREAMS] = "streams",
        [INIT_STAGE_FORK] = "fork",           [INIT_STAGE_TERMINAL] = "terminal", [INIT_STAGE_RLIMIT] = "rlimit",
        [INIT_STAGE_SETGROUPS] = "setgroups", [INIT_STAGE_SETGID] = "setgid",     [INIT_STAGE_SETUID] = "setuid",
        [INIT_STAGE_CHDIR] = "chdir",         [INIT_STAGE_EXEC] = "exec",
    };
    return stage >= INIT_STAGE_REQUEST && stage <= INIT_LAST_STAGE ? names[stage] : "unknown";
}
