// SPDX-License-Identifier: Apache-2.0
/* The messages between the host and the guest's first process, made and read; init.h has their layout.
 *
 * Both sides compile this file, so that what one writes is what the other reads. A request goes through the same
 * check_request before it is encoded and after it was decoded, a setup through check_setup: nothing can be said that is
 * not understood.
 *
 * Strings stay where they arrived. The only memory that decoding takes is an array of mounts, of bounded number, or the
 * table of pointers that execve wants, of a size that the limit of strings bounds (64 KiB):
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

struct wire_setup {
    uint32_t flags, mount_count, network_count;
};

struct wire_mount {
    uint32_t role, kind, flags;
};

struct wire_network {
    uint8_t mac[6];
    uint16_t flags;
};

struct wire_failed {
    uint32_t stage, os_error, mount;
};

struct wire_ended {
    uint32_t how, number;
};

_Static_assert(sizeof(struct wire_header) == INIT_HEADER_BYTES && sizeof(struct wire_request) == 24 &&
                   sizeof(struct wire_rlimit) == 24 && sizeof(struct wire_setup) == 12 &&
                   sizeof(struct wire_network) == 8 && sizeof(struct wire_mount) == 12 &&
                   sizeof(struct wire_failed) == 12 && sizeof(struct wire_ended) == 8,
               "the structs are what init.h describes");

enum { flag_terminal = 1, flag_uid = 2, flag_gid = 4, flag_config = 8, all_flags = 15 };
enum { flag_request = 1, flag_agent = 2, flag_dhcp = 1 };
enum { most_os_error = 4095 /* MAX_ERRNO of Linux */, most_exit_code = 255, most_signal = 64 };

/* ---- headers ---- */

static bool is_body_length(enum init_kind kind, uint32_t length)
{
    switch (kind) {
    case INIT_REQUEST:
        return length >= sizeof(struct wire_request) && length <= LIMIT_EXEC_REQUEST_BYTES;
    case INIT_SETUP:
        return length > sizeof(struct wire_setup) && length <= LIMIT_SETUP_BYTES;
    case INIT_FAILED:
        return length == sizeof(struct wire_failed);
    case INIT_ENDED:
        return length == sizeof(struct wire_ended);
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

bool init_is_other_version(const uint8_t bytes[INIT_HEADER_BYTES])
{
    enum { most_versions = 255, most_body_bytes = 64 };
    struct wire_header wire;
    memcpy(&wire, bytes, sizeof(wire));
    return wire.version != INIT_VERSION && wire.version != 0 && wire.version <= most_versions &&
           wire.kind >= INIT_STARTED && wire.kind <= INIT_ENDED && wire.body_bytes <= most_body_bytes;
}

void init_encode_empty(enum init_kind kind, uint8_t ret_bytes[INIT_HEADER_BYTES])
{
    struct wire_header wire = make_header(kind, 0);
    memcpy(ret_bytes, &wire, sizeof(wire));
}

/* ---- what a request may say ---- */

static int check_path(const char *path, bool is_absolute, bool may_be_missing)
{
    size_t length = strnlen(path, LIMIT_EXEC_PATH_BYTES);
    if (length == LIMIT_EXEC_PATH_BYTES)
        return -E2BIG;
    if (length == 0 && may_be_missing)
        return 0;
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
    int result = check_path(request->path, false, request->wants_config);
    if (result == 0)
        result = check_path(request->workdir, true, request->wants_config);
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
                 (request->has_gid ? flag_gid : 0u) | (request->wants_config ? flag_config : 0u),
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
        .wants_config = (wire.flags & flag_config) != 0,
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

/* ---- setups ---- */

static bool is_source(enum init_mount_kind kind, const char *source)
{
    bool is_named = kind == INIT_MOUNT_DISK || kind == INIT_MOUNT_VIRTIOFS;
    return is_named == (source[0] != '\0');
}

static bool is_mount(const struct init_mount *mount)
{
    bool is_place = mount->role == INIT_ROLE_PLACE, is_disk = mount->kind == INIT_MOUNT_DISK;
    if (mount->role < INIT_ROLE_ROOT || mount->role > INIT_ROLE_PLACE || mount->kind < INIT_MOUNT_DISK ||
        mount->kind > INIT_MOUNT_PRESENT || (mount->flags & ~(uint32_t)INIT_MOUNT_ALL_FLAGS) != 0)
        return false;
    if ((mount->kind == INIT_MOUNT_PRESENT && mount->role != INIT_ROLE_LOWER) ||
        (mount->kind == INIT_MOUNT_TMPFS && !is_place))
        return false;
    if (is_place ? mount->target[0] != '/' || mount->target[1] == '\0' : mount->target[0] != '\0')
        return false;
    return is_source(mount->kind, mount->source) && (is_disk || mount->fstype[0] == '\0');
}

/* What addresses are written with. That they make sense is for who uses them. */
static bool is_words(const char *text)
{
    return strspn(text, "0123456789abcdefABCDEF.:/ ") == strlen(text);
}

static int check_network(const struct init_network *network)
{
    const char *const texts[] = {network->addresses, network->gateways, network->nameservers};
    for (size_t i = 0; i < array_length(texts); i++) {
        if (strnlen(texts[i], LIMIT_NET_WORDS_BYTES) == LIMIT_NET_WORDS_BYTES)
            return -E2BIG;
        if (!is_words(texts[i]))
            return -EINVAL;
    }
    bool has_given = network->addresses[0] != '\0' || network->gateways[0] != '\0';
    return network->wants_dhcp && has_given ? -EINVAL : 0;
}

static const char *hostname_of(const struct init_setup *setup)
{
    return setup->hostname != NULL ? setup->hostname : "";
}

static int check_setup(const struct init_setup *setup)
{
    size_t counts[INIT_ROLE_PLACE + 1] = {0};
    if (setup->mount_count > LIMIT_MOUNTS || setup->network_count > LIMIT_DEVICES ||
        strlen(hostname_of(setup)) > LIMIT_HOSTNAME_BYTES)
        return -E2BIG;
    if (setup->has_request && setup->wants_agent)
        return -EINVAL;
    for (size_t i = 0; i < setup->mount_count; i++) {
        const struct init_mount *mount = &setup->mounts[i];
        if (strnlen(mount->source, LIMIT_EXEC_PATH_BYTES) == LIMIT_EXEC_PATH_BYTES ||
            strnlen(mount->target, LIMIT_EXEC_PATH_BYTES) == LIMIT_EXEC_PATH_BYTES ||
            strlen(mount->fstype) > LIMIT_FSTYPE_BYTES || strlen(mount->options) > LIMIT_MOUNT_OPTIONS_BYTES)
            return -E2BIG;
        if (!is_mount(mount) || (i > 0 && mount->role < setup->mounts[i - 1].role))
            return -EINVAL;
        counts[mount->role]++;
    }
    for (size_t i = 0; i < setup->network_count; i++) {
        int result = check_network(&setup->networks[i]);
        if (result < 0)
            return result;
    }
    bool is_layered = counts[INIT_ROLE_LOWER] > 0;
    bool is_sound = counts[INIT_ROLE_ROOT] + is_layered <= 1 && counts[INIT_ROLE_UPPER] <= is_layered;
    return is_sound ? 0 : -EINVAL;
}

static size_t setup_bytes(const struct init_setup *setup)
{
    size_t bytes = sizeof(struct wire_setup) + strlen(hostname_of(setup)) + 1;
    for (size_t i = 0; i < setup->mount_count; i++) {
        const struct init_mount *mount = &setup->mounts[i];
        bytes += sizeof(struct wire_mount) + strlen(mount->source) + strlen(mount->target) + strlen(mount->fstype) +
                 strlen(mount->options) + 4;
    }
    for (size_t i = 0; i < setup->network_count; i++) {
        const struct init_network *network = &setup->networks[i];
        bytes += sizeof(struct wire_network) + strlen(network->addresses) + strlen(network->gateways) +
                 strlen(network->nameservers) + 3;
    }
    return bytes;
}

static void add_network(struct buffer *buffer, const struct init_network *network)
{
    struct wire_network wire = {.flags = network->wants_dhcp ? flag_dhcp : 0};
    memcpy(wire.mac, network->mac, sizeof(wire.mac));
    buffer_add(buffer, &wire, sizeof(wire));
    add_string(buffer, network->addresses);
    add_string(buffer, network->gateways);
    add_string(buffer, network->nameservers);
}

int init_encode_setup(const struct init_setup *setup, struct buffer *buffer)
{
    int result = check_setup(setup);
    size_t bytes = result == 0 ? setup_bytes(setup) : 0;
    if (result < 0 || bytes > LIMIT_SETUP_BYTES)
        return result < 0 ? result : -E2BIG;
    struct wire_header header = make_header(INIT_SETUP, bytes);
    struct wire_setup numbers = {
        .flags = (setup->has_request ? flag_request : 0u) | (setup->wants_agent ? flag_agent : 0u),
        .mount_count = (uint32_t)setup->mount_count,
        .network_count = (uint32_t)setup->network_count,
    };
    buffer_add(buffer, &header, sizeof(header));
    buffer_add(buffer, &numbers, sizeof(numbers));
    add_string(buffer, hostname_of(setup));
    for (size_t i = 0; i < setup->mount_count; i++) {
        const struct init_mount *mount = &setup->mounts[i];
        struct wire_mount wire = {(uint32_t)mount->role, (uint32_t)mount->kind, mount->flags};
        buffer_add(buffer, &wire, sizeof(wire));
        add_string(buffer, mount->source);
        add_string(buffer, mount->target);
        add_string(buffer, mount->fstype);
        add_string(buffer, mount->options);
    }
    for (size_t i = 0; i < setup->network_count; i++)
        add_network(buffer, &setup->networks[i]);
    return buffer->error;
}

static bool take_mount(struct reader *reader, struct init_mount *mount)
{
    struct wire_mount wire;
    if (!take(reader, &wire, sizeof(wire)) || wire.role > INIT_ROLE_PLACE || wire.kind > INIT_MOUNT_PRESENT)
        return false;
    *mount = (struct init_mount){
        .role = (enum init_mount_role)wire.role,
        .kind = (enum init_mount_kind)wire.kind,
        .flags = wire.flags,
    };
    return (mount->source = take_string(reader)) != NULL && (mount->target = take_string(reader)) != NULL &&
           (mount->fstype = take_string(reader)) != NULL && (mount->options = take_string(reader)) != NULL;
}

static bool take_network(struct reader *reader, struct init_network *network)
{
    struct wire_network wire;
    if (!take(reader, &wire, sizeof(wire)) || (wire.flags & ~(unsigned)flag_dhcp) != 0)
        return false;
    memcpy(network->mac, wire.mac, sizeof(network->mac));
    network->wants_dhcp = wire.flags != 0;
    return (network->addresses = take_string(reader)) != NULL && (network->gateways = take_string(reader)) != NULL &&
           (network->nameservers = take_string(reader)) != NULL;
}

static int take_lists(struct reader *reader, struct init_mount *mounts, size_t mount_count,
                      struct init_network *networks, size_t network_count)
{
    for (size_t i = 0; i < mount_count; i++)
        if (!take_mount(reader, &mounts[i]))
            return -EPROTO;
    for (size_t i = 0; i < network_count; i++)
        if (!take_network(reader, &networks[i]))
            return -EPROTO;
    return reader->left == 0 ? 0 : -EPROTO;
}

int init_decode_setup(const uint8_t *body, size_t length, struct init_setup *ret_setup, void **ret_table)
{
    struct reader reader = {.next = body, .left = length};
    struct wire_setup wire;
    if (length > LIMIT_SETUP_BYTES)
        return -E2BIG;
    if (!take(&reader, &wire, sizeof(wire)) || (wire.flags & ~(uint32_t)(flag_request | flag_agent)) != 0)
        return -EPROTO;
    const char *hostname = take_string(&reader);
    if (hostname == NULL)
        return -EPROTO;
    if (wire.mount_count > LIMIT_MOUNTS || wire.network_count > LIMIT_DEVICES)
        return -E2BIG;
    struct init_network *networks = NULL; /* behind the mounts, in the same memory */
    struct init_mount *mounts = alloc_zero((wire.mount_count + (size_t)1) * sizeof(mounts[0]) +
                                           wire.network_count * sizeof(networks[0]));
    if (mounts == NULL)
        return -ENOMEM;
    networks = (struct init_network *)(mounts + wire.mount_count + 1);
    struct init_setup setup = {
        .mounts = mounts,
        .mount_count = wire.mount_count,
        .networks = networks,
        .network_count = wire.network_count,
        .has_request = (wire.flags & flag_request) != 0,
        .wants_agent = (wire.flags & flag_agent) != 0,
        .hostname = hostname,
    };
    int result = take_lists(&reader, mounts, setup.mount_count, networks, setup.network_count);
    if (result == 0)
        result = check_setup(&setup);
    if (result < 0) {
        free(mounts);
        return result == -EINVAL ? -EPROTO : result;
    }
    *ret_setup = setup;
    *ret_table = mounts;
    return 0;
}

/* ---- answers ---- */

size_t init_encode_answer(const struct init_answer *answer, uint8_t ret_bytes[INIT_MOST_ANSWER_BYTES])
{
    struct wire_failed failed = {(uint32_t)answer->stage, answer->os_error, answer->mount};
    struct wire_ended ended = {answer->was_killed, answer->number};
    bool has_failed = answer->kind == INIT_FAILED, has_ended = answer->kind == INIT_ENDED;
    struct wire_header header = make_header(answer->kind, has_failed ? sizeof(failed) : has_ended ? sizeof(ended) : 0);
    memcpy(ret_bytes, &header, sizeof(header));
    memcpy(ret_bytes + sizeof(header), has_failed ? (const void *)&failed : &ended, header.body_bytes);
    return sizeof(header) + header.body_bytes;
}

static int decode_failed(const uint8_t *body, struct init_answer *answer)
{
    struct wire_failed wire;
    memcpy(&wire, body, sizeof(wire));
    uint32_t most = wire.stage == INIT_STAGE_CONFIG ? LIMIT_KRUN_CONFIG_BYTES : LIMIT_MOUNTS - 1;
    if (wire.stage < INIT_STAGE_REQUEST || wire.stage > INIT_LAST_STAGE || wire.os_error == 0 ||
        wire.os_error > most_os_error || (wire.mount > most && wire.mount != INIT_NO_MOUNT))
        return -EPROTO;
    answer->stage = (enum init_stage)wire.stage;
    answer->os_error = wire.os_error;
    answer->mount = wire.mount;
    return 0;
}

static int decode_ended(const uint8_t *body, struct init_answer *answer)
{
    struct wire_ended wire;
    memcpy(&wire, body, sizeof(wire));
    bool was_killed = wire.how == 1;
    if (wire.how > 1 || wire.number > (was_killed ? most_signal : most_exit_code) || (was_killed && wire.number == 0))
        return -EPROTO;
    answer->was_killed = was_killed;
    answer->number = wire.number;
    return 0;
}

int init_decode_answer(const struct init_header *header, const uint8_t *body, struct init_answer *ret_answer)
{
    struct init_answer answer = {.kind = header->kind};
    int result = -EPROTO;
    if (header->kind == INIT_STARTED && header->body_bytes == 0)
        result = 0;
    else if (header->kind == INIT_FAILED && header->body_bytes == sizeof(struct wire_failed))
        result = decode_failed(body, &answer);
    else if (header->kind == INIT_ENDED && header->body_bytes == sizeof(struct wire_ended))
        result = decode_ended(body, &answer);
    if (result == 0)
        *ret_answer = answer;
    return result;
}

const char *init_stage_name(enum init_stage stage)
{
    static const char *const names[] = {
        [INIT_STAGE_REQUEST] = "request",   [INIT_STAGE_SYSTEM] = "system",       [INIT_STAGE_SOURCE] = "source",
        [INIT_STAGE_TARGET] = "target",     [INIT_STAGE_MOUNT] = "mount",         [INIT_STAGE_LAYERS] = "layers",
        [INIT_STAGE_ROOT] = "root",         [INIT_STAGE_STREAMS] = "streams",     [INIT_STAGE_FORK] = "fork",
        [INIT_STAGE_TERMINAL] = "terminal", [INIT_STAGE_RLIMIT] = "rlimit",       [INIT_STAGE_SETGROUPS] = "setgroups",
        [INIT_STAGE_SETGID] = "setgid",     [INIT_STAGE_SETUID] = "setuid",       [INIT_STAGE_CHDIR] = "chdir",
        [INIT_STAGE_EXEC] = "exec",         [INIT_STAGE_INTERFACE] = "interface", [INIT_STAGE_LEASE] = "lease",
        [INIT_STAGE_CONFIG] = "config",
    };
    return stage >= INIT_STAGE_REQUEST && stage <= INIT_LAST_STAGE ? names[stage] : "unknown";
}
