// SPDX-License-Identifier: Apache-2.0
/* Tests of proto/init where a setup is about networks: their layout, every mistake in one, and their bounds. */
#include "test.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "proto/init.h"

#include <errno.h>

static const struct init_mount one_mount[] = {{INIT_ROLE_PLACE, INIT_MOUNT_TMPFS, 0, "", "/t", "", ""}};

static const struct init_network two[] = {
    {{2, 0, 0, 0, 0, 1}, true, "", "", "9.9.9.9"},
    {{2, 0, 0, 0, 0, 2}, false, "10.0.2.15/24 fd00::15/64", "10.0.2.2 fd00::2", "10.0.2.3 2620:FE::fe"},
};

static int encode(const struct init_network *networks, size_t count, struct buffer *buffer)
{
    struct init_setup setup = {
        .mounts = one_mount, .mount_count = 1, .networks = networks, .network_count = count, .wants_agent = true};
    *buffer = (struct buffer)BUFFER_INIT(INIT_HEADER_BYTES + LIMIT_SETUP_BYTES);
    return init_encode_setup(&setup, buffer);
}

/* In memory of exactly the body's size. */
static struct init_setup setup;
static void *table;
static uint8_t *body;

static void forget(void)
{
    free(table);
    free(body);
    table = NULL;
    body = NULL;
}

static int decode(const struct buffer *buffer, size_t length)
{
    forget();
    body = malloc(length > 0 ? length : 1);
    if (body == NULL)
        return -ENOMEM;
    memcpy(body, buffer->data + INIT_HEADER_BYTES, length);
    return init_decode_setup(body, length, &setup, &table);
}

TEST(networks_arrive_as_they_were_sent)
{
    auto_buffer struct buffer buffer;
    CHECK_INT(encode(two, 2, &buffer), 0);
    CHECK_INT(decode(&buffer, buffer.length - INIT_HEADER_BYTES), 0);
    CHECK(setup.network_count == 2 && setup.mount_count == 1 && setup.wants_agent);
    CHECK_TEXT(setup.mounts[0].target, "/t");
    for (size_t i = 0; i < 2; i++) {
        CHECK(memcmp(setup.networks[i].mac, two[i].mac, 6) == 0);
        CHECK_INT(setup.networks[i].wants_dhcp, two[i].wants_dhcp);
        CHECK_TEXT(setup.networks[i].addresses, two[i].addresses);
        CHECK_TEXT(setup.networks[i].gateways, two[i].gateways);
        CHECK_TEXT(setup.networks[i].nameservers, two[i].nameservers);
    }
    forget();
}

TEST(the_layout_of_a_network_is_the_described_one)
{
    static const uint8_t expected[] = {40,  0,   0,   0,   3,   0,   5,   0, /* body, kind, version */
                                       0,   0,   0,   0,                     /* nothing follows */
                                       0,   0,   0,   0,   1,   0,   0,   0, /* no mounts, one network */
                                       0,                                    /* no hostname */
                                       2,   1,   2,   3,   4,   5,   0,   0, /* its address; no DHCP */
                                       '1', '.', '2', '.', '3', '.', '4', '/', '8', 0,
                                       ':', ':', '1', 0,   '9', '.', '9', '.', '9'};
    static const struct init_network network = {{2, 1, 2, 3, 4, 5}, false, "1.2.3.4/8", "::1", "9.9.9"};
    struct init_setup said = {.networks = &network, .network_count = 1};
    auto_buffer struct buffer buffer = BUFFER_INIT(INIT_HEADER_BYTES + LIMIT_SETUP_BYTES);
    CHECK_INT(init_encode_setup(&said, &buffer), 0);
    CHECK_INT(buffer.length, sizeof(expected) + 1); /* and a NUL */
    buffer.data[0] = (char)expected[0];
    CHECK(memcmp(buffer.data, expected, sizeof(expected)) == 0);
}

TEST(every_truncation_is_refused)
{
    auto_buffer struct buffer buffer;
    CHECK_INT(encode(two, 2, &buffer), 0);
    for (size_t length = 0; length + INIT_HEADER_BYTES < buffer.length; length++)
        CHECK_INT(decode(&buffer, length), -EPROTO);
    CHECK_INT(buffer_add(&buffer, "", 1), 0);
    CHECK_INT(decode(&buffer, buffer.length - INIT_HEADER_BYTES), -EPROTO);
    forget();
}

/* A byte of the one network's body, and what comes of it. */
static int with_byte(size_t offset, uint8_t value)
{
    auto_buffer struct buffer buffer;
    struct init_setup said = {.networks = two + 1, .network_count = 1};
    buffer = (struct buffer)BUFFER_INIT(INIT_HEADER_BYTES + LIMIT_SETUP_BYTES);
    if (init_encode_setup(&said, &buffer) < 0)
        return 1;
    buffer.data[INIT_HEADER_BYTES + offset] = (char)value;
    int result = decode(&buffer, buffer.length - INIT_HEADER_BYTES);
    forget();
    return result;
}

TEST(wrong_numbers_are_refused)
{
    enum { count_at = 8, mac_at = 13, flags_at = mac_at + 6, text_at = flags_at + 2 };
    CHECK_INT(with_byte(count_at, 1), 0);
    CHECK_INT(with_byte(count_at, 0), -EPROTO);
    CHECK_INT(with_byte(count_at, 2), -EPROTO);
    CHECK_INT(with_byte(count_at, LIMIT_DEVICES), -EPROTO);
    CHECK_INT(with_byte(count_at, LIMIT_DEVICES + 1), -E2BIG);
    CHECK_INT(with_byte(count_at + 3, 0xff), -E2BIG);
    CHECK_INT(with_byte(mac_at, 0xff), 0);      /* any: the guest looks for it */
    CHECK_INT(with_byte(flags_at, 1), -EPROTO); /* DHCP and addresses */
    CHECK_INT(with_byte(flags_at, 2), -EPROTO);
    CHECK_INT(with_byte(flags_at + 1, 0x80), -EPROTO);
    CHECK_INT(with_byte(text_at, 'g'), -EPROTO);
    CHECK_INT(with_byte(text_at, '\n'), -EPROTO);
    CHECK_INT(with_byte(text_at, '%'), -EPROTO);
    CHECK_INT(with_byte(text_at, 0xc3), -EPROTO);
    CHECK_INT(with_byte(text_at, ' '), 0);        /* what a word means is for who uses it */
    CHECK_INT(with_byte(text_at, '\0'), -EPROTO); /* one string more than there should be */
}

TEST(what_no_setup_may_say_of_a_network)
{
    static const struct init_network wrong[] = {
        {{2}, true, "10.0.2.15/24", "", ""}, {{2}, true, "", "10.0.2.2", ""},    {{2}, false, "eth0", "", ""},
        {{2}, false, "", "10.0.2.2\n", ""},  {{2}, false, "", "", "nameserver"}, {{2}, false, "10.0.2.15,24", "", ""},
    };
    for (size_t i = 0; i < array_length(wrong); i++) {
        auto_buffer struct buffer buffer;
        if (encode(&wrong[i], 1, &buffer) != -EINVAL)
            test_fail(__FILE__, __LINE__, "network %zu is accepted", i);
        CHECK_INT(buffer.length, 0);
    }
}

TEST(networks_have_bounds)
{
    static struct init_network many[LIMIT_DEVICES + 1];
    static char words[LIMIT_NET_WORDS_BYTES + 1];
    auto_buffer struct buffer buffer = BUFFER_INIT(0);
    for (size_t i = 0; i < array_length(many); i++)
        many[i] = two[0];
    CHECK_INT(encode(many, LIMIT_DEVICES + 1, &buffer), -E2BIG);
    CHECK_INT(encode(many, LIMIT_DEVICES, &buffer), 0);
    CHECK_INT(decode(&buffer, buffer.length - INIT_HEADER_BYTES), 0);
    CHECK_INT(setup.network_count, LIMIT_DEVICES);
    buffer_free(&buffer);
    memset(words, '1', LIMIT_NET_WORDS_BYTES);
    many[0].nameservers = words;
    CHECK_INT(encode(many, 1, &buffer), -E2BIG);
    words[LIMIT_NET_WORDS_BYTES - 1] = '\0';
    CHECK_INT(encode(many, 1, &buffer), 0);
    CHECK_INT(decode(&buffer, buffer.length - INIT_HEADER_BYTES), 0);
    /* What encode refuses, decode does, too. */
    CHECK_INT(buffer_add(&buffer, "", 1), 0);
    buffer.data[buffer.length - 2] = '1';
    CHECK_INT(decode(&buffer, buffer.length - INIT_HEADER_BYTES), -E2BIG);
    forget();
}

TEST(networks_survive_no_memory)
{
    FOR_EACH_FAULT
    {
        auto_buffer struct buffer buffer;
        int result = encode(two, 2, &buffer);
        if (result == 0)
            result = decode(&buffer, buffer.length - INIT_HEADER_BYTES);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        forget();
    }
}

TEST(failures_of_networks_have_names)
{
    CHECK_TEXT(init_stage_name(INIT_STAGE_INTERFACE), "interface");
    CHECK_TEXT(init_stage_name(INIT_STAGE_LEASE), "lease");
    struct init_answer answer,
        said = {.kind = INIT_FAILED, .stage = INIT_STAGE_LEASE, .os_error = ETIMEDOUT, .mount = LIMIT_DEVICES - 1};
    uint8_t bytes[INIT_MOST_ANSWER_BYTES];
    struct init_header header;
    init_encode_answer(&said, bytes);
    CHECK_INT(init_decode_header(bytes, &header), 0);
    CHECK_INT(init_decode_answer(&header, bytes + INIT_HEADER_BYTES, &answer), 0);
    CHECK(answer.stage == INIT_STAGE_LEASE && answer.mount == LIMIT_DEVICES - 1);
}
