// SPDX-License-Identifier: Apache-2.0
/* Tests of proto: what is said is understood, every bound, and every way to break a message. */
#include "test.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "proto/init.h"

#include <errno.h>

enum {
    flags_at = INIT_HEADER_BYTES,
    uid_at = 12,
    gid_at = 16,
    args_at = 20,
    env_at = 24,
    limits_at = 28,
    first_at = 32
};

static const char *const plain_args[] = {"-c", "", "\x01\xff \"'\n"};
static const char *const plain_env[] = {"PATH=/bin", "EMPTY=", "A=b=c"};

static struct init_request plain_request(void)
{
    return (struct init_request){
        .path = "sh",
        .workdir = "/var/lib",
        .args = plain_args,
        .env = plain_env,
        .arg_count = array_length(plain_args),
        .env_count = array_length(plain_env),
        .rlimits = {{7, 100, 200}, {8, UINT64_MAX, UINT64_MAX}},
        .rlimit_count = 2,
        .uid = 1000,
        .gid = 0,
        .has_terminal = true,
        .has_uid = true,
        .has_gid = true,
    };
}

static int encode(const struct init_request *request, struct buffer *buffer)
{
    *buffer = (struct buffer)BUFFER_INIT(INIT_HEADER_BYTES + LIMIT_EXEC_REQUEST_BYTES);
    return init_encode_request(request, buffer);
}

/* A decoded request, in memory of exactly the body's size. */
static struct init_request decoded;
static void *table;
static uint8_t *body;

static int decode(const void *bytes, size_t length)
{
    struct init_header header;
    free(table);
    free(body);
    table = NULL;
    body = malloc(length > 0 ? length : 1);
    memcpy(body, bytes, length);
    int result = length < INIT_HEADER_BYTES ? -EPROTO : init_decode_header(body, &header);
    if (result == 0 && (header.kind != INIT_REQUEST || header.body_bytes != length - INIT_HEADER_BYTES))
        result = -EPROTO;
    if (result < 0)
        return result;
    memmove(body, body + INIT_HEADER_BYTES, header.body_bytes);
    return init_decode_request(body, header.body_bytes, &decoded, &table);
}

static void forget(void)
{
    free(table);
    free(body);
    table = NULL;
    body = NULL;
}

/* ---- requests ---- */

TEST(a_request_arrives_as_it_was_sent)
{
    auto_buffer struct buffer buffer;
    struct init_request request = plain_request();
    CHECK_INT(encode(&request, &buffer), 0);
    CHECK_INT(decode(buffer.data, buffer.length), 0);
    CHECK_TEXT(decoded.path, "sh");
    CHECK_TEXT(decoded.workdir, "/var/lib");
    CHECK_INT(decoded.arg_count, 3);
    CHECK_INT(decoded.env_count, 3);
    for (size_t i = 0; i < 3; i++) {
        CHECK_TEXT(decoded.args[i], plain_args[i]);
        CHECK_TEXT(decoded.env[i], plain_env[i]);
    }
    CHECK(decoded.args[-1] == decoded.path && decoded.args[3] == NULL && decoded.env[3] == NULL);
    CHECK_INT(decoded.rlimit_count, 2);
    CHECK_INT(decoded.rlimits[0].resource, 7);
    CHECK_INT(decoded.rlimits[0].soft, 100);
    CHECK_INT(decoded.rlimits[0].hard, 200);
    CHECK(decoded.rlimits[1].hard == UINT64_MAX);
    CHECK(decoded.has_terminal && decoded.has_uid && decoded.has_gid);
    CHECK_INT(decoded.uid, 1000);
    CHECK_INT(decoded.gid, 0);
    forget();
}

/* What init.h describes, byte by byte. */
TEST(the_layout_is_the_described_one)
{
    static const uint8_t expected[] = {41,  0,   0, 0,   1,   0, 5,   0, /* body, kind, version */
                                       2,   0,   0, 0,                   /* flags: uid */
                                       1,   2,   0, 0,   0,   0, 0,   0, /* ids */
                                       1,   0,   0, 0,   1,   0, 0,   0, /* arguments, environment */
                                       0,   0,   0, 0,                   /* limits */
                                       's', 'h', 0, '/', 't', 0, '-', 'c', 0, 'a', '=', 'b', 'c', 'd', 'e', 'f', 0};
    auto_buffer struct buffer buffer;
    static const char *const args[] = {"-c"}, *const env[] = {"a=bcdef"};
    struct init_request request = {.path = "sh",
                                   .workdir = "/t",
                                   .args = args,
                                   .env = env,
                                   .arg_count = 1,
                                   .env_count = 1,
                                   .uid = 0x201,
                                   .has_uid = true};
    CHECK_INT(encode(&request, &buffer), 0);
    CHECK_INT(buffer.length, sizeof(expected));
    CHECK(memcmp(buffer.data, expected, sizeof(expected)) == 0);
}

TEST(the_smallest_request)
{
    auto_buffer struct buffer buffer;
    struct init_request request = {.path = "x", .workdir = "/"};
    CHECK_INT(encode(&request, &buffer), 0);
    CHECK_INT(buffer.length, INIT_HEADER_BYTES + 24 + 4);
    CHECK_INT(decode(buffer.data, buffer.length), 0);
    CHECK(decoded.args[0] == NULL && decoded.env[0] == NULL && !decoded.has_terminal);
    forget();
}

TEST(every_truncation_is_refused)
{
    auto_buffer struct buffer buffer;
    struct init_request request = plain_request();
    CHECK_INT(encode(&request, &buffer), 0);
    for (size_t length = INIT_HEADER_BYTES; length < buffer.length; length++) {
        uint32_t body_bytes = (uint32_t)(length - INIT_HEADER_BYTES);
        memcpy(buffer.data, &body_bytes, sizeof(body_bytes)); /* a header that says so, and one that does not */
        CHECK_INT(decode(buffer.data, length), -EPROTO);
    }
    forget();
}

TEST(something_behind_the_end_is_refused)
{
    auto_buffer struct buffer buffer;
    struct init_request request = plain_request();
    CHECK_INT(encode(&request, &buffer), 0);
    CHECK_INT(buffer_add(&buffer, "", 1), 0);
    uint32_t body_bytes = (uint32_t)(buffer.length - INIT_HEADER_BYTES);
    memcpy(buffer.data, &body_bytes, sizeof(body_bytes));
    CHECK_INT(decode(buffer.data, buffer.length), -EPROTO);
    forget();
}

static int with_number(size_t offset, uint32_t number)
{
    auto_buffer struct buffer buffer;
    struct init_request request = plain_request();
    if (encode(&request, &buffer) < 0)
        return 1;
    memcpy(buffer.data + offset, &number, sizeof(number));
    return decode(buffer.data, buffer.length);
}

TEST(wrong_numbers_are_refused)
{
    CHECK_INT(with_number(flags_at, 7), 0);
    CHECK_INT(with_number(flags_at, 15), 0);
    CHECK_INT(with_number(flags_at, 16), -EPROTO);
    CHECK_INT(with_number(flags_at, 0x80000007), -EPROTO);
    CHECK_INT(with_number(flags_at, 5), -EPROTO); /* a uid that is not given */
    CHECK_INT(with_number(uid_at, UINT32_MAX), -EPROTO);
    CHECK_INT(with_number(gid_at, UINT32_MAX), -EPROTO);
    CHECK_INT(with_number(args_at, 2), -EPROTO); /* an argument becomes a variable, and one string is left */
    CHECK_INT(with_number(args_at, 4), -EPROTO);
    CHECK_INT(with_number(args_at, LIMIT_STRINGS), -EPROTO);
    CHECK_INT(with_number(args_at, LIMIT_STRINGS + 1), -E2BIG);
    CHECK_INT(with_number(args_at, UINT32_MAX), -E2BIG);
    CHECK_INT(with_number(env_at, 2), -EPROTO);
    CHECK_INT(with_number(env_at, LIMIT_STRINGS + 1), -E2BIG);
    CHECK_INT(with_number(limits_at, 1), -EPROTO);
    CHECK_INT(with_number(limits_at, LIMIT_RLIMITS), -EPROTO);
    CHECK_INT(with_number(limits_at, LIMIT_RLIMITS + 1), -E2BIG);
    CHECK_INT(with_number(first_at, LIMIT_RLIMITS), -EPROTO);
    CHECK_INT(with_number(first_at, 8), -EPROTO); /* the same resource twice */
    CHECK_INT(with_number(first_at, 9), 0);
    CHECK_INT(with_number(first_at + 4, 1), -EPROTO);
    CHECK_INT(with_number(first_at + 8, 201), -EPROTO); /* soft above hard */
    CHECK_INT(with_number(first_at + 8, 200), 0);
    forget();
}

/* ---- bounds ---- */

static const char *many[LIMIT_STRINGS + 1];

TEST(the_number_of_strings_has_a_bound)
{
    struct init_request request = {.path = "x", .workdir = "/", .args = many, .env = many};
    for (size_t i = 0; i < array_length(many); i++)
        many[i] = "a=";
    for (size_t count = LIMIT_STRINGS; count <= LIMIT_STRINGS + 1; count++) {
        auto_buffer struct buffer buffer;
        request.arg_count = request.env_count = count;
        CHECK_INT(encode(&request, &buffer), count > LIMIT_STRINGS ? -E2BIG : 0);
        if (count > LIMIT_STRINGS)
            CHECK_INT(buffer.length, 0);
        else
            CHECK_INT(decode(buffer.data, buffer.length), 0);
    }
    CHECK_TEXT(decoded.env[LIMIT_STRINGS - 1], "a=");
    forget();
}

TEST(one_string_has_a_bound)
{
    auto_free char *text = alloc_zero(LIMIT_EXEC_STRING_BYTES + 1);
    const char *const args[] = {text};
    struct init_request request = {.path = "x", .workdir = "/", .args = args, .arg_count = 1};
    memset(text, 'a', LIMIT_EXEC_STRING_BYTES);
    auto_buffer struct buffer buffer;
    CHECK_INT(encode(&request, &buffer), -E2BIG);
    text[LIMIT_EXEC_STRING_BYTES - 1] = '\0';
    CHECK_INT(encode(&request, &buffer), 0);
    CHECK_INT(decode(buffer.data, buffer.length), 0);
    /* What encode refuses, decode does, too. */
    CHECK_INT(buffer_add(&buffer, "", 1), 0);
    memset(buffer.data + buffer.length - 2, 'a', 1);
    uint32_t body_bytes = (uint32_t)(buffer.length - INIT_HEADER_BYTES);
    memcpy(buffer.data, &body_bytes, sizeof(body_bytes));
    CHECK_INT(decode(buffer.data, buffer.length), -E2BIG);
    forget();
}

TEST(all_strings_together_have_a_bound)
{
    enum { most = LIMIT_EXEC_BYTES / LIMIT_EXEC_STRING_BYTES };
    auto_free char *text = alloc_zero(LIMIT_EXEC_STRING_BYTES);
    const char *strings[most + 1];
    memset(text, 'a', LIMIT_EXEC_STRING_BYTES - 1);
    for (size_t i = 0; i < array_length(strings); i++)
        strings[i] = text;
    strings[most] = ""; /* one byte more */
    struct init_request request = {.path = "x", .workdir = "/", .args = strings};
    for (request.arg_count = most; request.arg_count <= most + 1; request.arg_count++) {
        auto_buffer struct buffer buffer;
        CHECK_INT(encode(&request, &buffer), request.arg_count > most ? -E2BIG : 0);
    }
}

TEST(paths_have_a_bound)
{
    char text[LIMIT_EXEC_PATH_BYTES + 1];
    memset(text, '/', sizeof(text));
    text[LIMIT_EXEC_PATH_BYTES] = '\0';
    struct init_request request = {.path = text, .workdir = "/"};
    auto_buffer struct buffer buffer;
    CHECK_INT(encode(&request, &buffer), -E2BIG);
    request = (struct init_request){.path = "x", .workdir = text};
    CHECK_INT(encode(&request, &buffer), -E2BIG);
    text[LIMIT_EXEC_PATH_BYTES - 1] = '\0';
    request.path = text;
    CHECK_INT(encode(&request, &buffer), 0);
    CHECK_INT(decode(buffer.data, buffer.length), 0);
    forget();
}

#define REFUSED(change, expected)                                                                                      \
    do {                                                                                                               \
        auto_buffer struct buffer buffer;                                                                              \
        struct init_request request = plain_request();                                                                 \
        change;                                                                                                        \
        CHECK_INT(encode(&request, &buffer), expected);                                                                \
        CHECK_INT(buffer.length, 0);                                                                                   \
    } while (0)

TEST(what_no_request_may_say)
{
    static const char *const nameless[] = {"=x"}, *const plain[] = {"x"};
    REFUSED(request.path = "", -EINVAL);
    REFUSED(request.workdir = "", -EINVAL);
    REFUSED(request.workdir = "var", -EINVAL);
    REFUSED((request.env = nameless, request.env_count = 1), -EINVAL);
    REFUSED((request.env = plain, request.env_count = 1), -EINVAL);
    REFUSED(request.uid = UINT32_MAX, -EINVAL);
    REFUSED(request.gid = UINT32_MAX, -EINVAL);
    REFUSED(request.has_uid = false, -EINVAL);
    REFUSED(request.rlimits[0].resource = LIMIT_RLIMITS, -EINVAL);
    REFUSED(request.rlimits[0].resource = 8, -EINVAL);
    REFUSED(request.rlimits[0].soft = 201, -EINVAL);
    REFUSED(request.rlimit_count = LIMIT_RLIMITS + 1, -E2BIG);
    REFUSED((request.wants_config = true, request.workdir = "var"), -EINVAL);
}

TEST(what_is_missing_can_be_the_guests_to_say)
{
    auto_buffer struct buffer buffer;
    struct init_request request = {.path = "", .workdir = "", .wants_config = true};
    CHECK_INT(encode(&request, &buffer), 0);
    CHECK_INT(buffer.length, INIT_HEADER_BYTES + 24 + 2);
    CHECK_INT(decode(buffer.data, buffer.length), 0);
    CHECK(decoded.wants_config && decoded.path[0] == '\0' && decoded.workdir[0] == '\0' && decoded.args[0] == NULL);
    forget();
}

/* ---- setups ---- */

static const struct init_mount layered[] = {
    {INIT_ROLE_LOWER, INIT_MOUNT_DISK, INIT_MOUNT_READ_ONLY, "top", "", "erofs", ""},
    {INIT_ROLE_LOWER, INIT_MOUNT_PRESENT, 0, "", "", "", ""},
    {INIT_ROLE_UPPER, INIT_MOUNT_DISK, 0, "upper", "", "", "noatime"},
    {INIT_ROLE_PLACE, INIT_MOUNT_VIRTIOFS, INIT_MOUNT_NODEV, "fs1", "/src", "", ""},
    {INIT_ROLE_PLACE, INIT_MOUNT_TMPFS, INIT_MOUNT_NOSUID, "", "/t", "", "size=1m"},
};

static int encode_setup(const struct init_mount *mounts, size_t count, struct buffer *buffer)
{
    struct init_setup setup = {.mounts = mounts, .mount_count = count, .has_request = true, .hostname = "box"};
    *buffer = (struct buffer)BUFFER_INIT(INIT_HEADER_BYTES + LIMIT_SETUP_BYTES);
    return init_encode_setup(&setup, buffer);
}

/* In memory of exactly the body's size; `table` and `body` go with forget(). */
static int decode_setup(const struct buffer *buffer, size_t length, struct init_setup *ret_setup)
{
    forget();
    body = malloc(length > 0 ? length : 1);
    memcpy(body, buffer->data + INIT_HEADER_BYTES, length);
    return init_decode_setup(body, length, ret_setup, &table);
}

TEST(a_setup_arrives_as_it_was_sent)
{
    auto_buffer struct buffer buffer;
    struct init_setup setup;
    CHECK_INT(encode_setup(layered, array_length(layered), &buffer), 0);
    CHECK_INT(decode_setup(&buffer, buffer.length - INIT_HEADER_BYTES, &setup), 0);
    CHECK(setup.has_request && !setup.wants_agent && setup.mount_count == array_length(layered));
    CHECK_TEXT(setup.hostname, "box");
    for (size_t i = 0; i < array_length(layered); i++) {
        CHECK_INT(setup.mounts[i].role, layered[i].role);
        CHECK_INT(setup.mounts[i].kind, layered[i].kind);
        CHECK_INT(setup.mounts[i].flags, layered[i].flags);
        CHECK_TEXT(setup.mounts[i].source, layered[i].source);
        CHECK_TEXT(setup.mounts[i].target, layered[i].target);
        CHECK_TEXT(setup.mounts[i].fstype, layered[i].fstype);
        CHECK_TEXT(setup.mounts[i].options, layered[i].options);
    }
    forget();
}

TEST(the_layout_of_a_setup_is_the_described_one)
{
    static const uint8_t expected[] = {42,  0,   0,   0,   3, 0,   5,   0, /* body, kind, version */
                                       1,   0,   0,   0,   1, 0,   0,   0, /* a request follows; one mount */
                                       0,   0,   0,   0,                   /* no network */
                                       'b', 'o', 'x', 0,   4, 0,   0,   0,   1,   0, 0,   0,   1,   0,
                                       0,   0, /* a place, a disk, read-only */
                                       'd', 0,   '/', 'm', 0, 'e', 'x', 't', '4', 0, 'a', 'c', 'l', 0};
    static const struct init_mount mount = {
        INIT_ROLE_PLACE, INIT_MOUNT_DISK, INIT_MOUNT_READ_ONLY, "d", "/m", "ext4", "acl"};
    auto_buffer struct buffer buffer;
    CHECK_INT(encode_setup(&mount, 1, &buffer), 0);
    CHECK_INT(buffer.length, sizeof(expected));
    CHECK(memcmp(buffer.data, expected, sizeof(expected)) == 0);
}

TEST(an_empty_setup)
{
    auto_buffer struct buffer buffer;
    struct init_setup setup;
    CHECK_INT(encode_setup(NULL, 0, &buffer), 0);
    CHECK_INT(buffer.length, INIT_HEADER_BYTES + 16);
    CHECK_INT(decode_setup(&buffer, 16, &setup), 0);
    CHECK(setup.mount_count == 0 && setup.network_count == 0);
    CHECK_TEXT(setup.hostname, "box");
    buffer.data[INIT_HEADER_BYTES] = 4;
    CHECK_INT(decode_setup(&buffer, 16, &setup), -EPROTO);
    buffer.data[INIT_HEADER_BYTES] = 3; /* a program and an agent */
    CHECK_INT(decode_setup(&buffer, 16, &setup), -EPROTO);
    buffer.data[INIT_HEADER_BYTES] = 2;
    CHECK_INT(decode_setup(&buffer, 16, &setup), 0);
    CHECK(!setup.has_request && setup.wants_agent);
    buffer.data[INIT_HEADER_BYTES] = 0;
    CHECK_INT(decode_setup(&buffer, 16, &setup), 0);
    CHECK(!setup.has_request && !setup.wants_agent);
    buffer.data[INIT_HEADER_BYTES + 7] = 1;
    CHECK_INT(decode_setup(&buffer, 16, &setup), -E2BIG);
    forget();
}

TEST(every_truncation_of_a_setup_is_refused)
{
    auto_buffer struct buffer buffer;
    struct init_setup setup;
    CHECK_INT(encode_setup(layered, array_length(layered), &buffer), 0);
    for (size_t length = 0; length + INIT_HEADER_BYTES < buffer.length; length++)
        CHECK_INT(decode_setup(&buffer, length, &setup), -EPROTO);
    CHECK_INT(buffer_add(&buffer, "", 1), 0);
    CHECK_INT(decode_setup(&buffer, buffer.length - INIT_HEADER_BYTES, &setup), -EPROTO);
    forget();
}

TEST(what_no_setup_may_say)
{
    static const struct init_mount wrong[] = {
        {0, INIT_MOUNT_DISK, 0, "d", "", "", ""},
        {INIT_ROLE_PLACE + 1, INIT_MOUNT_DISK, 0, "d", "/m", "", ""},
        {INIT_ROLE_PLACE, 0, 0, "d", "/m", "", ""},
        {INIT_ROLE_PLACE, INIT_MOUNT_PRESENT + 1, 0, "d", "/m", "", ""},
        {INIT_ROLE_PLACE, INIT_MOUNT_DISK, 8, "d", "/m", "", ""},
        {INIT_ROLE_PLACE, INIT_MOUNT_DISK, 0, "", "/m", "", ""},
        {INIT_ROLE_PLACE, INIT_MOUNT_DISK, 0, "d", "m", "", ""},
        {INIT_ROLE_PLACE, INIT_MOUNT_DISK, 0, "d", "/", "", ""},
        {INIT_ROLE_PLACE, INIT_MOUNT_DISK, 0, "d", "", "", ""},
        {INIT_ROLE_PLACE, INIT_MOUNT_VIRTIOFS, 0, "", "/m", "", ""},
        {INIT_ROLE_PLACE, INIT_MOUNT_VIRTIOFS, 0, "t", "/m", "ext4", ""},
        {INIT_ROLE_PLACE, INIT_MOUNT_TMPFS, 0, "t", "/m", "", ""},
        {INIT_ROLE_PLACE, INIT_MOUNT_PRESENT, 0, "", "/m", "", ""},
        {INIT_ROLE_ROOT, INIT_MOUNT_TMPFS, 0, "", "", "", ""},
        {INIT_ROLE_ROOT, INIT_MOUNT_PRESENT, 0, "", "", "", ""},
        {INIT_ROLE_ROOT, INIT_MOUNT_DISK, 0, "d", "/m", "", ""},
        {INIT_ROLE_UPPER, INIT_MOUNT_DISK, 0, "d", "", "", ""}, /* above nothing */
    };
    for (size_t i = 0; i < array_length(wrong); i++) {
        auto_buffer struct buffer buffer;
        if (encode_setup(&wrong[i], 1, &buffer) != -EINVAL)
            test_fail(__FILE__, __LINE__, "mount %zu is accepted", i);
        CHECK_INT(buffer.length, 0);
    }
    const struct init_mount root = {INIT_ROLE_ROOT, INIT_MOUNT_DISK, 0, "d", "", "", ""};
    const struct init_mount pairs[][2] = {
        {root, root}, {root, layered[0]}, {layered[2], layered[0]}, {layered[3], layered[0]}};
    for (size_t i = 0; i < array_length(pairs); i++) {
        auto_buffer struct buffer buffer;
        CHECK_INT(encode_setup(pairs[i], 2, &buffer), -EINVAL);
    }
    const struct init_mount uppers[] = {layered[0], layered[2], layered[2]};
    auto_buffer struct buffer buffer;
    CHECK_INT(encode_setup(uppers, 3, &buffer), -EINVAL);
}

TEST(a_setup_has_bounds)
{
    static struct init_mount mounts[LIMIT_MOUNTS + 1];
    static char options[LIMIT_MOUNT_OPTIONS_BYTES + 2];
    auto_buffer struct buffer buffer = BUFFER_INIT(0);
    struct init_setup setup;
    for (size_t i = 0; i < array_length(mounts); i++)
        mounts[i] = layered[4];
    CHECK_INT(encode_setup(mounts, LIMIT_MOUNTS + 1, &buffer), -E2BIG);
    CHECK_INT(encode_setup(mounts, LIMIT_MOUNTS, &buffer), 0);
    CHECK_INT(decode_setup(&buffer, buffer.length - INIT_HEADER_BYTES, &setup), 0);
    buffer_free(&buffer);
    memset(options, 'o', sizeof(options) - 1);
    mounts[0].options = options;
    CHECK_INT(encode_setup(mounts, 1, &buffer), -E2BIG);
    options[sizeof(options) - 2] = '\0';
    for (size_t i = 0; i < LIMIT_MOUNTS; i++)
        mounts[i].options = options;
    CHECK_INT(encode_setup(mounts, LIMIT_MOUNTS, &buffer), -E2BIG);
    CHECK_INT(encode_setup(mounts, 200, &buffer), 0);
    buffer_free(&buffer);
    struct init_setup named = {.hostname = "a-name-of-65-characters-0123456789-0123456789-0123456789-12345678"};
    CHECK_INT(init_encode_setup(&named, &buffer), -E2BIG);
    named.hostname++;
    CHECK_INT(init_encode_setup(&named, &buffer), 0);
    buffer_free(&buffer);
    mounts[0] = layered[0];
    mounts[0].fstype = "a-name-that-no-file-system-of-linux-has";
    CHECK_INT(encode_setup(mounts, 1, &buffer), -E2BIG);
    forget();
}

TEST(setups_survive_no_memory)
{
    struct init_setup setup = {.mounts = layered, .mount_count = array_length(layered), .hostname = ""};
    FOR_EACH_FAULT
    {
        auto_buffer struct buffer buffer = BUFFER_INIT(INIT_HEADER_BYTES + LIMIT_SETUP_BYTES);
        struct init_setup got;
        void *mounts = NULL;
        int result = init_encode_setup(&setup, &buffer);
        if (result == 0)
            result = init_decode_setup((const uint8_t *)buffer.data + INIT_HEADER_BYTES,
                                       buffer.length - INIT_HEADER_BYTES, &got, &mounts);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        free(mounts);
    }
}

/* ---- headers and answers ---- */

static int try_header(uint32_t body_bytes, uint16_t kind, uint16_t version)
{
    uint8_t bytes[INIT_HEADER_BYTES];
    struct init_header header;
    memcpy(bytes, &body_bytes, 4);
    memcpy(bytes + 4, &kind, 2);
    memcpy(bytes + 6, &version, 2);
    return init_decode_header(bytes, &header);
}

TEST(a_header_has_a_length_that_its_kind_can_have)
{
    CHECK_INT(try_header(24, INIT_REQUEST, INIT_VERSION), 0);
    CHECK_INT(try_header(23, INIT_REQUEST, INIT_VERSION), -EPROTO);
    CHECK_INT(try_header(LIMIT_EXEC_REQUEST_BYTES, INIT_REQUEST, INIT_VERSION), 0);
    CHECK_INT(try_header(LIMIT_EXEC_REQUEST_BYTES + 1, INIT_REQUEST, INIT_VERSION), -EPROTO);
    CHECK_INT(try_header(UINT32_MAX, INIT_REQUEST, INIT_VERSION), -EPROTO);
    CHECK_INT(try_header(24, INIT_REQUEST, 0), -EPROTO);
    CHECK_INT(try_header(24, INIT_REQUEST, 4), -EPROTO); /* without the guest's own configuration */
    CHECK_INT(try_header(24, INIT_REQUEST, 6), -EPROTO);
    CHECK_INT(try_header(0, INIT_GOODBYE, INIT_VERSION), 0);
    CHECK_INT(try_header(1, INIT_GOODBYE, INIT_VERSION), -EPROTO);
    CHECK_INT(try_header(13, INIT_SETUP, INIT_VERSION), 0);
    CHECK_INT(try_header(12, INIT_SETUP, INIT_VERSION), -EPROTO);
    CHECK_INT(try_header(LIMIT_SETUP_BYTES, INIT_SETUP, INIT_VERSION), 0);
    CHECK_INT(try_header(LIMIT_SETUP_BYTES + 1, INIT_SETUP, INIT_VERSION), -EPROTO);
    CHECK_INT(try_header(0, INIT_STARTED, INIT_VERSION), 0);
    CHECK_INT(try_header(8, INIT_STARTED, INIT_VERSION), -EPROTO);
    CHECK_INT(try_header(12, INIT_FAILED, INIT_VERSION), 0);
    CHECK_INT(try_header(8, INIT_FAILED, INIT_VERSION), -EPROTO);
    CHECK_INT(try_header(8, INIT_ENDED, INIT_VERSION), 0);
    CHECK_INT(try_header(12, INIT_ENDED, INIT_VERSION), -EPROTO);
    CHECK_INT(try_header(8, 0, INIT_VERSION), -EPROTO);
    CHECK_INT(try_header(0, 4, INIT_VERSION), -EPROTO);
    CHECK_INT(try_header(8, 65535, INIT_VERSION), -EPROTO);
}

static int try_answer(enum init_kind kind, uint32_t first, uint32_t second, struct init_answer *answer)
{
    uint32_t words[] = {first, second, INIT_NO_MOUNT};
    struct init_header header = {.body_bytes = kind == INIT_STARTED ? 0 : kind == INIT_FAILED ? 12 : 8, .kind = kind};
    return init_decode_answer(&header, (const uint8_t *)words, answer);
}

static int try_failed(enum init_stage stage, uint32_t number)
{
    uint32_t words[] = {stage, EINVAL, number};
    struct init_header header = {.body_bytes = sizeof(words), .kind = INIT_FAILED};
    struct init_answer answer;
    return init_decode_answer(&header, (const uint8_t *)words, &answer);
}

TEST(answers_arrive_as_they_were_sent)
{
    static const struct init_answer answers[] = {
        {.kind = INIT_STARTED},
        {.kind = INIT_FAILED, .stage = INIT_STAGE_EXEC, .os_error = ENOENT},
        {.kind = INIT_FAILED, .stage = INIT_STAGE_REQUEST, .os_error = 4095, .mount = INIT_NO_MOUNT},
        {.kind = INIT_FAILED, .stage = INIT_STAGE_MOUNT, .os_error = EINVAL, .mount = LIMIT_MOUNTS - 1},
        {.kind = INIT_FAILED, .stage = INIT_STAGE_CONFIG, .os_error = EBADMSG, .mount = LIMIT_KRUN_CONFIG_BYTES},
        {.kind = INIT_FAILED, .stage = INIT_STAGE_CONFIG, .os_error = EIO, .mount = INIT_NO_MOUNT},
        {.kind = INIT_ENDED, .number = 0},
        {.kind = INIT_ENDED, .number = 255},
        {.kind = INIT_ENDED, .was_killed = true, .number = 64},
    };
    for (size_t i = 0; i < array_length(answers); i++) {
        uint8_t bytes[INIT_MOST_ANSWER_BYTES];
        struct init_header header;
        struct init_answer answer;
        size_t length = init_encode_answer(&answers[i], bytes);
        CHECK_INT(init_decode_header(bytes, &header), 0);
        CHECK_INT(length, INIT_HEADER_BYTES + header.body_bytes);
        CHECK_INT(init_decode_answer(&header, bytes + INIT_HEADER_BYTES, &answer), 0);
        CHECK_INT(answer.kind, answers[i].kind);
        CHECK_INT(answer.stage, answers[i].stage);
        CHECK_INT(answer.os_error, answers[i].os_error);
        CHECK_INT(answer.was_killed, answers[i].was_killed);
        CHECK_INT(answer.number, answers[i].number);
        CHECK_INT(answer.mount, answers[i].mount);
    }
}

TEST(answers_without_sense_are_refused)
{
    struct init_answer answer = {.number = 77};
    CHECK_INT(try_answer(INIT_FAILED, 0, 1, &answer), -EPROTO);
    CHECK_INT(try_answer(INIT_FAILED, INIT_LAST_STAGE + 1, 1, &answer), -EPROTO);
    CHECK_INT(try_answer(INIT_FAILED, 1, 0, &answer), -EPROTO);
    CHECK_INT(try_answer(INIT_FAILED, 1, 4096, &answer), -EPROTO);
    CHECK_INT(try_failed(INIT_STAGE_MOUNT, LIMIT_MOUNTS - 1), 0);
    CHECK_INT(try_failed(INIT_STAGE_MOUNT, INIT_NO_MOUNT), 0);
    CHECK_INT(try_failed(INIT_STAGE_MOUNT, LIMIT_MOUNTS), -EPROTO);
    CHECK_INT(try_failed(INIT_STAGE_CONFIG, LIMIT_KRUN_CONFIG_BYTES + 1), -EPROTO);
    CHECK_INT(try_answer(INIT_ENDED, 0, 256, &answer), -EPROTO);
    CHECK_INT(try_answer(INIT_ENDED, 1, 0, &answer), -EPROTO);
    CHECK_INT(try_answer(INIT_ENDED, 1, 65, &answer), -EPROTO);
    CHECK_INT(try_answer(INIT_ENDED, 2, 1, &answer), -EPROTO);
    CHECK_INT(try_answer(INIT_REQUEST, 0, 1, &answer), -EPROTO);
    CHECK_INT(try_answer(INIT_GOODBYE, 0, 1, &answer), -EPROTO);
    CHECK_INT(try_answer(INIT_SETUP, 0, 1, &answer), -EPROTO);
    CHECK_INT(answer.number, 77);
    CHECK_TEXT(init_stage_name(INIT_STAGE_CHDIR), "chdir");
    CHECK_TEXT(init_stage_name((enum init_stage)0), "unknown");
    CHECK_TEXT(init_stage_name((enum init_stage)(INIT_LAST_STAGE + 1)), "unknown");
}

TEST(proto_survives_no_memory)
{
    struct init_request request = plain_request();
    FOR_EACH_FAULT
    {
        auto_buffer struct buffer buffer = BUFFER_INIT(INIT_HEADER_BYTES + LIMIT_EXEC_REQUEST_BYTES);
        struct init_request got;
        void *places = NULL;
        int result = init_encode_request(&request, &buffer);
        if (result == 0)
            result = init_decode_request((const uint8_t *)buffer.data + INIT_HEADER_BYTES,
                                         buffer.length - INIT_HEADER_BYTES, &got, &places);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        free(places);
    }
}
