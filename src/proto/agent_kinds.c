// SPDX-License-Identifier: Apache-2.0
/* What each kind of frame holds, with every bound, and who may send it: the tables behind agent.c.
 *
 * A kind's fields stand in a table of their own, and a field's key on the wire is its place there; a row of `kinds`
 * names that table, the senders, and what id and flags a frame may have. What concerns several fields at once is a
 * function that the row names. The same check is made before encoding and after decoding, so nothing can be said that
 * is not understood.
 *
 * Invariants: (1) a kind without fields has no body, any other has one. (2) what was checked is within every limit that
 * agent.h and limits.h name for it. (3) a checked path, name or text has no NUL inside, and of strings the last byte is
 * one.
 *
 * Trust: every byte may be hostile, on either side. Messages to encode come from our own code but may hold what a user
 * wrote: they get errors, not asserts.
 */
#include "proto/agent_kinds.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* ---- the fields ---- */

enum {
    most_os_error = 4095, /* MAX_ERRNO of Linux */
    most_signal = 64,
    most_exit_code = 255,
    most_cells = 65535, /* struct winsize has 16 bits for each */
    most_permissions = 07777,
    ns_per_second = 1000000000,
};

#define AT(member) offsetof(struct agent_message, member)
#define U32(member, least, most)                                                                                       \
    {                                                                                                                  \
        AT(member), FIELD_U32, (least), (most)                                                                         \
    }
#define ANY_U32(member) U32(member, 0, UINT32_MAX)
#define U64(member, most)                                                                                              \
    {                                                                                                                  \
        AT(member), FIELD_U64, 0, (most)                                                                               \
    }
#define SPAN(member, type, least, most)                                                                                \
    {                                                                                                                  \
        AT(member), type, (least), (most)                                                                              \
    }
#define WINDOW(member) U32(member, 0, AGENT_MOST_WINDOW)
#define FILE_PATH SPAN(file.path, FIELD_PATH, 1, AGENT_MOST_PATH_BYTES)
#define FLAGS(member, all)                                                                                             \
    {                                                                                                                  \
        AT(member), FIELD_FLAGS, 0, (all)                                                                              \
    }

static const struct agent_field exec_fields[] = {
    FLAGS(exec.flags, AGENT_EXEC_ALL_FLAGS),
    WINDOW(exec.window),
    U32(exec.rows, 0, most_cells),
    U32(exec.columns, 0, most_cells),
    SPAN(exec.path, FIELD_TEXT, 1, AGENT_MOST_PATH_BYTES),
    SPAN(exec.args, FIELD_STRINGS, 1, LIMIT_EXEC_BYTES),
    SPAN(exec.env, FIELD_VARIABLES, 0, LIMIT_EXEC_BYTES),
    SPAN(exec.workdir, FIELD_PATH, 0, AGENT_MOST_PATH_BYTES),
    SPAN(exec.user, FIELD_TEXT, 0, AGENT_MOST_USER_BYTES),
    SPAN(exec.rlimits, FIELD_RLIMITS, 0, LIMIT_RLIMITS),
};
static const struct agent_field connect_fields[] = {
    WINDOW(connect.window),
    U32(connect.port, 0, UINT16_MAX),
    SPAN(connect.target, FIELD_TEXT, 0, AGENT_MOST_PATH_BYTES),
};
static const struct agent_field stat_fields[] = {FLAGS(file.flags, AGENT_FILE_FOLLOW), FILE_PATH};
static const struct agent_field list_fields[] = {FILE_PATH};
static const struct agent_field read_fields[] = {
    WINDOW(file.window),
    U64(file.offset, INT64_MAX),
    U64(file.length, UINT64_MAX),
    FILE_PATH,
};
static const struct agent_field write_fields[] = {
    FLAGS(file.flags, AGENT_FILE_APPEND | AGENT_FILE_EXCLUSIVE),
    U32(file.mode, 0, most_permissions),
    FILE_PATH,
};
static const struct agent_field make_fields[] = {
    FLAGS(file.flags, AGENT_FILE_PARENTS),
    U32(file.mode, 0, most_permissions),
    FILE_PATH,
};
static const struct agent_field remove_fields[] = {FLAGS(file.flags, AGENT_FILE_RECURSIVE), FILE_PATH};
static const struct agent_field rename_fields[] = {FILE_PATH, SPAN(file.to, FIELD_PATH, 1, AGENT_MOST_PATH_BYTES)};
static const struct agent_field pull_fields[] = {WINDOW(file.window), FILE_PATH};
static const struct agent_field push_fields[] = {FLAGS(file.flags, AGENT_FILE_OWNERS), FILE_PATH};
static const struct agent_field clock_fields[] = {U64(clock.unix_ns, INT64_MAX)};
static const struct agent_field stop_fields[] = {ANY_U32(stop.grace_ms)};
static const struct agent_field signal_fields[] = {U32(signal.number, 1, most_signal)};
static const struct agent_field resize_fields[] = {
    U32(resize.rows, 0, most_cells),
    U32(resize.columns, 0, most_cells),
};
static const struct agent_field data_fields[] = {
    U32(data.stream, 0, AGENT_STREAMS - 1),
    SPAN(data.bytes, FIELD_BYTES, 0, AGENT_MOST_DATA_BYTES),
};
static const struct agent_field credit_fields[] = {
    U32(credit.stream, 0, AGENT_STREAMS - 1),
    U32(credit.bytes, 1, AGENT_MOST_WINDOW),
};
static const struct agent_field ready_fields[] = {
    U32(ready.version, 1, UINT32_MAX),
    U32(ready.cpus, 1, UINT32_MAX),
    U64(ready.memory_bytes, UINT64_MAX),
    U64(ready.uptime_ns, UINT64_MAX),
    SPAN(ready.kernel, FIELD_TEXT, 0, AGENT_MOST_KERNEL_BYTES),
};
static const struct agent_field heartbeat_fields[] = {
    U64(heartbeat.uptime_ns, UINT64_MAX),
    U64(heartbeat.busy_ns, UINT64_MAX),
    U64(heartbeat.total_bytes, UINT64_MAX),
    U64(heartbeat.available_bytes, UINT64_MAX),
    ANY_U32(heartbeat.sessions),
    ANY_U32(heartbeat.processes),
};
static const struct agent_field started_fields[] = {ANY_U32(started.pid), WINDOW(started.window)};
static const struct agent_field failed_fields[] = {
    U32(failed.stage, 1, AGENT_LAST_STAGE),
    U32(failed.os_error, 0, most_os_error),
    SPAN(failed.message, FIELD_TEXT, 0, AGENT_MOST_MESSAGE_BYTES),
};
static const struct agent_field ended_fields[] = {
    U32(ended.code, 0, most_exit_code),
    U32(ended.signal, 0, most_signal),
};
static const struct agent_field entry_fields[] = {
    U32(entry.mode, 0, S_IFMT | most_permissions),
    ANY_U32(entry.uid),
    ANY_U32(entry.gid),
    U64(entry.size, INT64_MAX),
    {AT(entry.mtime_s), FIELD_I64, 0, 0},
    U32(entry.mtime_ns, 0, ns_per_second - 1),
    SPAN(entry.name, FIELD_NAME, 0, AGENT_MOST_NAME_BYTES),
    SPAN(entry.link, FIELD_TEXT, 0, AGENT_MOST_PATH_BYTES),
};
static const struct agent_field attach_fields[] = {
    FLAGS(attach.flags, AGENT_ATTACH_ALL_FLAGS),
    WINDOW(attach.window),
    U32(attach.rows, 0, most_cells),
    U32(attach.columns, 0, most_cells),
};
static const struct agent_field report_fields[] = {SPAN(report.json, FIELD_TEXT, 1, AGENT_MOST_REPORT_BYTES)};

/* ---- what concerns several fields ---- */

static int check_exec(const struct agent_message *message)
{
    const struct agent_exec *exec = &message->exec;
    uint32_t seen = 0;
    if (exec->args.span.length + exec->env.span.length > LIMIT_EXEC_BYTES)
        return -E2BIG;
    for (size_t i = 0; i < exec->rlimit_count; i++) {
        const struct agent_rlimit *limit = &exec->rlimits[i];
        if (limit->resource >= LIMIT_RLIMITS || (seen & 1u << limit->resource) != 0 || limit->soft > limit->hard)
            return -EINVAL;
        seen |= 1u << limit->resource;
    }
    return 0;
}

static int check_connect(const struct agent_message *message)
{
    return message->connect.port == 0 && message->connect.target.length == 0 ? -EINVAL : 0;
}

/* An empty frame that ends nothing would cost the reader work for no byte of its window. */
static int check_data(const struct agent_message *message)
{
    return message->data.bytes.length == 0 && (message->flags & AGENT_END) == 0 ? -EINVAL : 0;
}

static int check_ended(const struct agent_message *message)
{
    return message->ended.signal != 0 && message->ended.code != 0 ? -EINVAL : 0;
}

/* STAT answers with the last frame and no name, LIST with names and more to come. */
static int check_entry(const struct agent_message *message)
{
    bool is_last = (message->flags & AGENT_LAST) != 0;
    mode_t mode = message->entry.mode;
    bool has_type = S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISCHR(mode) || S_ISBLK(mode) ||
                    S_ISFIFO(mode) || S_ISSOCK(mode);
    return !has_type || is_last != (message->entry.name.length == 0) ? -EINVAL : 0;
}

/* ---- the kinds ---- */

/* Own kinds go between BY_CLIENT and TO_CLIENT, all others between the host and BY_AGENT. */
enum sender { BY_PROCESS = 1, BY_CLIENT = 2, BY_AGENT = 4, TO_CLIENT = 8 };
#define FIELDS(table) .fields = (table), .field_count = array_length(table)
#define BY_HOST (BY_PROCESS | BY_CLIENT)

static const struct agent_kind_rules kinds[] = {
    [AGENT_EXEC] = {"exec", BY_HOST, FIELDS(exec_fields), .check = check_exec},
    [AGENT_CONNECT] = {"connect", BY_HOST, FIELDS(connect_fields), .check = check_connect},
    [AGENT_STAT] = {"stat", BY_HOST, FIELDS(stat_fields)},
    [AGENT_LIST] = {"list", BY_HOST, FIELDS(list_fields)},
    [AGENT_READ] = {"read", BY_HOST, FIELDS(read_fields)},
    [AGENT_WRITE] = {"write", BY_HOST, FIELDS(write_fields)},
    [AGENT_MAKE] = {"make", BY_HOST, FIELDS(make_fields)},
    [AGENT_REMOVE] = {"remove", BY_HOST, FIELDS(remove_fields)},
    [AGENT_RENAME] = {"rename", BY_HOST, FIELDS(rename_fields)},
    [AGENT_PULL] = {"pull", BY_HOST, FIELDS(pull_fields)},
    [AGENT_PUSH] = {"push", BY_HOST, FIELDS(push_fields)},
    [AGENT_PING] = {"ping", BY_HOST},
    [AGENT_CLOCK] = {"clock", BY_HOST, FIELDS(clock_fields)},
    [AGENT_SHUTDOWN] = {"shutdown", BY_PROCESS, FIELDS(stop_fields)},
    [AGENT_SIGNAL] = {"signal", BY_HOST, FIELDS(signal_fields)},
    [AGENT_RESIZE] = {"resize", BY_HOST, FIELDS(resize_fields)},
    [AGENT_CANCEL] = {"cancel", BY_HOST},
    [AGENT_GONE] = {"gone", BY_PROCESS, .id_rule = ID_CLIENT},
    [AGENT_DATA] = {"data", BY_HOST | BY_AGENT, .may_flags = AGENT_END, FIELDS(data_fields), .check = check_data},
    [AGENT_CREDIT] = {"credit", BY_HOST | BY_AGENT, FIELDS(credit_fields)},
    [AGENT_READY] = {"ready", BY_AGENT, .id_rule = ID_NONE, FIELDS(ready_fields)},
    [AGENT_HEARTBEAT] = {"heartbeat", BY_AGENT, .id_rule = ID_NONE, FIELDS(heartbeat_fields)},
    [AGENT_STARTED] = {"started", BY_AGENT, FIELDS(started_fields)},
    [AGENT_FAILED] = {"failed", BY_AGENT, .must_flags = AGENT_LAST, FIELDS(failed_fields)},
    [AGENT_ENDED] = {"ended", BY_AGENT, .must_flags = AGENT_LAST, FIELDS(ended_fields), .check = check_ended},
    [AGENT_DONE] = {"done", BY_AGENT, .must_flags = AGENT_LAST},
    [AGENT_ENTRY] = {"entry", BY_AGENT, .may_flags = AGENT_LAST, FIELDS(entry_fields), .check = check_entry},
    [AGENT_STATUS] = {"status", BY_CLIENT},
    [AGENT_STOP] = {"stop", BY_CLIENT, FIELDS(stop_fields)},
    [AGENT_PAUSE] = {"pause", BY_CLIENT},
    [AGENT_RESUME] = {"resume", BY_CLIENT},
    [AGENT_ATTACH] = {"attach", BY_CLIENT, FIELDS(attach_fields)},
    [AGENT_REPORT] = {"report", TO_CLIENT, .may_flags = AGENT_LAST, FIELDS(report_fields)},
    [AGENT_EVENTS] = {"events", BY_CLIENT},
};

const struct agent_kind_rules *agent_rules(unsigned kind)
{
    return kind < array_length(kinds) && kinds[kind].name != NULL ? &kinds[kind] : NULL;
}

/* ---- headers ---- */

bool agent_is_id_for(const struct agent_kind_rules *rules, uint32_t id)
{
    switch (rules->id_rule) {
    case ID_NONE:
        return id == 0;
    case ID_CLIENT:
        return id >> 16 != 0 && (id & 0xffff) == 0;
    case ID_SESSION:
        return (id & 0xffff) != 0;
    }
    return false;
}

bool agent_are_flags_for(const struct agent_kind_rules *rules, uint32_t flags)
{
    return (flags & rules->must_flags) == rules->must_flags && (flags & ~(rules->must_flags | rules->may_flags)) == 0;
}

/* The longest body that a frame of that kind can have: no sender can make a reader hold more. */
size_t agent_most_body_bytes(const struct agent_kind_rules *rules)
{
    enum { most_head_bytes = 9, most_rlimit_bytes = 3 * most_head_bytes };
    size_t total = rules->field_count > 0 ? 1 : 0; /* the map's head */
    for (size_t i = 0; i < rules->field_count; i++) {
        const struct agent_field *field = &rules->fields[i];
        total += 1 + most_head_bytes; /* the key, and a number or a length */
        if (field->type == FIELD_RLIMITS)
            total += (size_t)field->most * most_rlimit_bytes;
        else if (field->type > FIELD_I64)
            total += (size_t)field->most;
    }
    return total < AGENT_MOST_BODY_BYTES ? total : AGENT_MOST_BODY_BYTES;
}

/* ---- what a message may say ---- */

static int check_string(const char *string, size_t length, bool is_variable)
{
    if (length >= LIMIT_EXEC_STRING_BYTES)
        return -E2BIG;
    const char *equals = is_variable ? memchr(string, '=', length) : NULL;
    return is_variable && (equals == NULL || equals == string) ? -EINVAL : 0;
}

static int check_strings(const struct agent_strings *strings, bool are_variables)
{
    const char *at = strings->span.bytes;
    size_t left = strings->span.length, count = 0;
    while (left > 0) {
        const char *nul = memchr(at, '\0', left);
        if (nul == NULL)
            return -EINVAL;
        size_t length = (size_t)(nul - at);
        int result = check_string(at, length, are_variables);
        if (result < 0)
            return result;
        if (++count > LIMIT_STRINGS)
            return -E2BIG;
        at = nul + 1;
        left -= length + 1;
    }
    return count != strings->count ? -EINVAL : 0;
}

/* A name that could lead anywhere but into its folder would be a weapon in the hands of a hostile agent. */
static int check_name(const struct agent_span *name)
{
    bool is_dots = name->length > 0 && name->length <= 2 && memcmp(name->bytes, "..", name->length) == 0;
    return is_dots || (name->length > 0 && memchr(name->bytes, '/', name->length) != NULL) ? -EINVAL : 0;
}

static int check_span(const struct agent_field *field, const struct agent_span *span)
{
    if (span->length > field->most)
        return -E2BIG;
    if (span->length < field->least)
        return -EINVAL;
    if (span->length == 0 || field->type == FIELD_BYTES)
        return 0;
    if (memchr(span->bytes, '\0', span->length) != NULL || (field->type == FIELD_PATH && span->bytes[0] != '/'))
        return -EINVAL;
    return field->type == FIELD_NAME ? check_name(span) : 0;
}

static int check_number(const struct agent_field *field, uint64_t number)
{
    return number < field->least || number > field->most ? -EINVAL : 0;
}

static int check_field(const struct agent_field *field, const struct agent_message *message)
{
    const void *member = (const char *)message + field->offset;
    switch (field->type) {
    case FIELD_U32:
        return check_number(field, *(const uint32_t *)member);
    case FIELD_FLAGS:
        return (*(const uint32_t *)member & ~field->most) != 0 ? -EINVAL : 0;
    case FIELD_U64:
        return check_number(field, *(const uint64_t *)member);
    case FIELD_I64:
        return 0;
    case FIELD_BYTES:
    case FIELD_TEXT:
    case FIELD_PATH:
    case FIELD_NAME:
        return check_span(field, member);
    case FIELD_STRINGS:
    case FIELD_VARIABLES: {
        const struct agent_strings *strings = member;
        if (strings->span.length > field->most)
            return -E2BIG;
        return strings->span.length < field->least ? -EINVAL : check_strings(strings, field->type == FIELD_VARIABLES);
    }
    case FIELD_RLIMITS:
        return message->exec.rlimit_count > field->most ? -E2BIG : 0;
    }
    return -EINVAL;
}

int agent_check(const struct agent_kind_rules *rules, const struct agent_message *message)
{
    if (!agent_is_id_for(rules, message->id) || !agent_are_flags_for(rules, message->flags))
        return -EINVAL;
    for (size_t i = 0; i < rules->field_count; i++) {
        int result = check_field(&rules->fields[i], message);
        if (result < 0)
            return result;
    }
    return rules->check != NULL ? rules->check(message) : 0;
}

/* ---- questions ---- */

static bool is_sent(enum agent_kind number, unsigned senders)
{
    const struct agent_kind_rules *rules = agent_rules(number);
    return rules != NULL && (rules->senders & senders) != 0;
}

bool agent_is_from_host(enum agent_kind kind)
{
    return (unsigned)kind < AGENT_FIRST_OWN && is_sent(kind, BY_HOST);
}

bool agent_is_from_agent(enum agent_kind kind)
{
    return is_sent(kind, BY_AGENT);
}

bool agent_is_from_client(enum agent_kind kind)
{
    return is_sent(kind, BY_CLIENT);
}

bool agent_begins_session(enum agent_kind kind)
{
    return (kind >= AGENT_EXEC && kind <= AGENT_SHUTDOWN) ||
           ((unsigned)kind >= AGENT_FIRST_OWN && is_sent(kind, BY_CLIENT));
}

const char *agent_kind_name(enum agent_kind kind)
{
    const struct agent_kind_rules *found = agent_rules(kind);
    return found != NULL ? found->name : "unknown";
}

const char *agent_stage_name(enum agent_stage stage)
{
    static const char *const names[] = {
        [AGENT_STAGE_PROTOCOL] = "protocol", [AGENT_STAGE_LIMIT] = "limit",     [AGENT_STAGE_FORK] = "fork",
        [AGENT_STAGE_TERMINAL] = "terminal", [AGENT_STAGE_STREAMS] = "streams", [AGENT_STAGE_RLIMIT] = "rlimit",
        [AGENT_STAGE_USER] = "user",         [AGENT_STAGE_CHDIR] = "chdir",     [AGENT_STAGE_EXEC] = "exec",
        [AGENT_STAGE_OPEN] = "open",         [AGENT_STAGE_READ] = "read",       [AGENT_STAGE_WRITE] = "write",
        [AGENT_STAGE_CONNECT] = "connect",   [AGENT_STAGE_FILE] = "file",       [AGENT_STAGE_CLOCK] = "clock",
        [AGENT_STAGE_STATE] = "state",
    };
    bool is_known = stage < array_length(names) && names[stage] != NULL;
    return is_known ? names[stage] : "unknown";
}
