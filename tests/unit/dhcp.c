// SPDX-License-Identifier: Apache-2.0
/* Tests of proto/dhcp: what a client says, byte by byte, and what it believes of answers that are built by hand. */
#include "test.h"

#include "base/alloc.h"
#include "proto/dhcp.h"

#include <errno.h>

enum { udp_at = 20, bootp_at = 28, options_at = bootp_at + 236 + 4, transaction = 0x01020304 };

static const uint8_t own_mac[6] = {0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0xee};

/* ---- questions ---- */

/* What all of them have: RFC 791, RFC 768, and RFC 2131, figure 1. */
static void expect_frame(uint8_t expected[DHCP_PACKET_BYTES])
{
    static const uint8_t ip[] = {0x45, 0, 0x01, 0x48, 0, 0, 0, 0, 64, 17, 0x79, 0xa6, 0, 0, 0, 0, 255, 255, 255, 255};
    static const uint8_t udp[] = {0, 68, 0, 67, 0x01, 0x34, 0, 0};
    static const uint8_t bootp[] = {1, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0, 0};
    static const uint8_t magic[] = {99, 130, 83, 99};
    memset(expected, 0, DHCP_PACKET_BYTES);
    memcpy(expected, ip, sizeof(ip));
    memcpy(expected + udp_at, udp, sizeof(udp));
    memcpy(expected + bootp_at, bootp, sizeof(bootp));
    memcpy(expected + bootp_at + 28, own_mac, sizeof(own_mac));
    memcpy(expected + bootp_at + 236, magic, sizeof(magic));
}

static void check_question(const struct dhcp_request *request, const uint8_t *expected)
{
    uint8_t packet[DHCP_PACKET_BYTES];
    dhcp_encode(request, packet);
    for (size_t i = 0; i < sizeof(packet); i++)
        if (packet[i] != expected[i])
            test_fail(__FILE__, __LINE__, "byte %zu is %#x, expected %#x", i, packet[i], expected[i]);
}

static struct dhcp_request question(uint8_t kind)
{
    struct dhcp_request request = {.kind = kind, .transaction = transaction};
    memcpy(request.mac, own_mac, sizeof(own_mac));
    return request;
}

TEST(a_discover_byte_by_byte)
{
    static const uint8_t options[] = {53, 1, 1, 55, 4, 1, 3, 6, 51, 255};
    uint8_t expected[DHCP_PACKET_BYTES];
    struct dhcp_request request = question(DHCP_DISCOVER);
    expect_frame(expected);
    memcpy(expected + options_at, options, sizeof(options));
    check_question(&request, expected);
}

TEST(a_request_for_an_offer_names_address_and_server)
{
    static const uint8_t options[] = {53, 1, 3, 50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 2, 55, 4, 1, 3, 6, 51, 255};
    uint8_t expected[DHCP_PACKET_BYTES];
    struct dhcp_request request = question(DHCP_REQUEST);
    memcpy(request.requested, (const uint8_t[]){10, 0, 2, 15}, 4);
    memcpy(request.server, (const uint8_t[]){10, 0, 2, 2}, 4);
    expect_frame(expected);
    memcpy(expected + options_at, options, sizeof(options));
    check_question(&request, expected);
}

/* RFC 2131, 4.3.6: the address is in ciaddr, and no option names it or the server. */
TEST(a_renewal_comes_from_the_address)
{
    static const uint8_t options[] = {53, 1, 3, 55, 4, 1, 3, 6, 51, 255}, own[] = {10, 0, 2, 15};
    uint8_t expected[DHCP_PACKET_BYTES];
    struct dhcp_request request = question(DHCP_REQUEST);
    memcpy(request.own, own, 4);
    expect_frame(expected);
    memcpy(expected + 10, (const uint8_t[]){0x6d, 0x97}, 2); /* the checksum of the header with that source */
    memcpy(expected + 12, own, 4);
    memcpy(expected + bootp_at + 12, own, 4);
    memcpy(expected + options_at, options, sizeof(options));
    check_question(&request, expected);
}

/* ---- answers ---- */

/* An answer with these options, in memory of exactly its size; the lengths are as they should be. */
struct answer {
    uint8_t *bytes; /* owned */
    size_t length;
};

static struct answer build(const uint8_t *options, size_t length, size_t ip_options)
{
    static const uint8_t magic[] = {99, 130, 83, 99};
    struct answer answer = {.length = options_at + ip_options + length};
    answer.bytes = calloc(1, answer.length);
    uint8_t *ip = answer.bytes, *udp = ip + udp_at + ip_options, *bootp = udp + 8;
    ip[0] = (uint8_t)(0x45 + ip_options / 4);
    ip[2] = (uint8_t)(answer.length >> 8);
    ip[3] = (uint8_t)answer.length;
    ip[9] = 17;
    udp[1] = 67;
    udp[3] = 68;
    udp[4] = (uint8_t)((answer.length - udp_at - ip_options) >> 8);
    udp[5] = (uint8_t)(answer.length - udp_at - ip_options);
    bootp[0] = 2;
    memcpy(bootp + 4, (const uint8_t[]){1, 2, 3, 4}, 4);
    memcpy(bootp + 16, (const uint8_t[]){10, 0, 2, 15}, 4);
    memcpy(bootp + 28, own_mac, sizeof(own_mac));
    memcpy(bootp + 236, magic, sizeof(magic));
    if (length > 0)
        memcpy(bootp + 240, options, length);
    return answer;
}

static struct dhcp_answer got;

static int decode(const struct answer *answer)
{
    memset(&got, 0x77, sizeof(got));
    return dhcp_decode(answer->bytes, answer->length, transaction, own_mac, &got);
}

static int decode_options(const uint8_t *options, size_t length)
{
    struct answer answer = build(options, length, 0);
    int result = decode(&answer);
    free(answer.bytes);
    return result;
}

#define OPTIONS(...) decode_options((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
#define KIND 53, 1
#define ACK 53, 1, 5
#define MASK 1, 4
#define ROUTER 3
#define NAMES 6
#define LEASE 51, 4
#define SERVER 54, 4

static bool is(const uint8_t address[4], int a, int b, int c, int d)
{
    return address[0] == a && address[1] == b && address[2] == c && address[3] == d;
}

static void check_whole(int line)
{
    if (got.kind != DHCP_ACK || !is(got.address, 10, 0, 2, 15) || !is(got.server, 10, 0, 2, 2) || got.prefix != 20 ||
        !got.has_gateway || !is(got.gateway, 10, 0, 2, 1) || got.nameserver_count != 2 ||
        !is(got.nameservers[0], 9, 9, 9, 9) || !is(got.nameservers[1], 1, 1, 1, 1) || got.lease_s != 0x01020304)
        test_fail(__FILE__, line, "the answer is not what was said");
}

TEST(options_in_every_order)
{
    static const uint8_t parts[6][10] = {{ACK},
                                         {MASK, 255, 255, 240, 0},
                                         {ROUTER, 4, 10, 0, 2, 1},
                                         {NAMES, 8, 9, 9, 9, 9, 1, 1, 1, 1},
                                         {LEASE, 1, 2, 3, 4},
                                         {SERVER, 10, 0, 2, 2}};
    unsigned orders = 0;
    for (unsigned number = 0; number < 6 * 6 * 6 * 6 * 6 * 6; number++) {
        uint8_t options[64];
        size_t length = 0;
        unsigned seen = 0, rest = number;
        for (int i = 0; i < 6; i++, rest /= 6) {
            const uint8_t *part = parts[rest % 6];
            seen |= 1u << rest % 6;
            memcpy(options + length, part, 2 + (size_t)part[1]);
            length += 2 + (size_t)part[1];
        }
        if (seen != 63)
            continue;
        options[length++] = 255;
        CHECK_INT(decode_options(options, length), 0);
        check_whole(__LINE__);
        orders++;
    }
    CHECK_INT(orders, 720);
}

TEST(padding_unknown_options_and_what_stands_behind_the_end)
{
    CHECK_INT(OPTIONS(0, 0, 0, ACK, 0, MASK, 255, 255, 240, 0, 12, 3, 'b', 'o', 'x', 0, ROUTER, 4, 10, 0, 2, 1, 0,
                      NAMES, 8, 9, 9, 9, 9, 1, 1, 1, 1, LEASE, 1, 2, 3, 4, 43, 0, SERVER, 10, 0, 2, 2, 255, KIND, 6, 1,
                      200),
              0);
    check_whole(__LINE__);
    CHECK_INT(OPTIONS(ACK), 0); /* without an end */
    CHECK_INT(OPTIONS(ACK, 0, 0, 0), 0);
}

TEST(what_is_not_said)
{
    CHECK_INT(OPTIONS(KIND, DHCP_OFFER, 255), 0);
    CHECK(got.kind == DHCP_OFFER && !got.has_gateway && got.nameserver_count == 0);
    CHECK_INT(got.lease_s, UINT32_MAX);
    CHECK(is(got.server, 0, 0, 0, 0) && is(got.gateway, 0, 0, 0, 0));
    CHECK_INT(OPTIONS(ACK, ROUTER, 4, 0, 0, 0, 0), 0);
    CHECK(!got.has_gateway);
    CHECK_INT(OPTIONS(ACK, ROUTER, 8, 10, 0, 2, 1, 10, 0, 2, 3), 0); /* the first of them is preferred */
    CHECK(got.has_gateway && is(got.gateway, 10, 0, 2, 1));
}

TEST(options_of_a_wrong_length_say_nothing)
{
    CHECK_INT(OPTIONS(ACK, 1, 3, 255, 255, 240, ROUTER, 3, 10, 0, 2, NAMES, 3, 9, 9, 9, 51, 3, 1, 2, 3, 54, 5, 1, 2, 3,
                      4, 5, NAMES, 0, 255),
              0);
    CHECK(got.prefix == 8 && !got.has_gateway && got.nameserver_count == 0 && got.lease_s == UINT32_MAX);
    CHECK(is(got.server, 0, 0, 0, 0));
    CHECK_INT(OPTIONS(53, 2, 5, 5, 255), -EPROTO); /* no kind at all */
    CHECK_INT(OPTIONS(53, 0, 255), -EPROTO);
    CHECK_INT(OPTIONS(ACK, NAMES, 7, 9, 9, 9, 9, 1, 1, 1, 255), 0); /* one, and a part of one */
    CHECK_INT(got.nameserver_count, 1);
}

TEST(name_servers_have_a_bound)
{
    CHECK_INT(OPTIONS(ACK, NAMES, 20, 1, 0, 0, 1, 2, 0, 0, 2, 3, 0, 0, 3, 4, 0, 0, 4, 5, 0, 0, 5), 0);
    CHECK_INT(got.nameserver_count, DHCP_MOST_NAMESERVERS);
    CHECK(is(got.nameservers[2], 3, 0, 0, 3));
    CHECK_INT(OPTIONS(ACK, NAMES, 8, 1, 0, 0, 1, 2, 0, 0, 2, NAMES, 8, 3, 0, 0, 3, 4, 0, 0, 4), 0);
    CHECK_INT(got.nameserver_count, DHCP_MOST_NAMESERVERS);
    CHECK(is(got.nameservers[2], 3, 0, 0, 3));
}

TEST(lengths_that_lead_out_are_refused)
{
    CHECK_INT(OPTIONS(ACK, NAMES), -EPROTO); /* a code without its length */
    CHECK_INT(OPTIONS(ACK, NAMES, 1), -EPROTO);
    CHECK_INT(OPTIONS(ACK, NAMES, 5, 1, 2, 3, 4), -EPROTO);
    CHECK_INT(OPTIONS(ACK, NAMES, 255, 1, 2, 3, 4, 255), -EPROTO);
    CHECK_INT(OPTIONS(ACK, NAMES, 4, 1, 2, 3, 4), 0);
    CHECK_INT(OPTIONS(255), -EPROTO);
    CHECK_INT(decode_options(NULL, 0), -EPROTO);
}

TEST(masks_and_classes)
{
    static const struct {
        uint8_t mask[4], first, prefix;
    } rows[] = {
        {{255, 255, 255, 255}, 10, 32}, {{255, 255, 255, 254}, 10, 31}, {{255, 255, 255, 0}, 10, 24},
        {{255, 0, 0, 0}, 192, 8},       {{128, 0, 0, 0}, 10, 1},        {{0, 0, 0, 0}, 10, 8},
        {{0, 0, 0, 0}, 126, 8},         {{0, 0, 0, 0}, 128, 16},        {{0, 0, 0, 0}, 191, 16},
        {{0, 0, 0, 0}, 192, 24},        {{0, 0, 0, 0}, 223, 24},        {{255, 0, 255, 0}, 172, 16},
        {{0, 255, 255, 255}, 10, 8},    {{255, 255, 255, 253}, 10, 8},
    };
    for (size_t i = 0; i < array_length(rows); i++) {
        const uint8_t *mask = rows[i].mask, options[] = {ACK, MASK, mask[0], mask[1], mask[2], mask[3], 255};
        struct answer answer = build(options, sizeof(options), 0);
        answer.bytes[bootp_at + 16] = rows[i].first;
        int result = decode(&answer);
        free(answer.bytes);
        CHECK_INT(result, 0);
        CHECK_INT(got.prefix, rows[i].prefix);
    }
}

TEST(addresses_that_no_host_has)
{
    static const uint8_t options[] = {ACK, 255}, firsts[] = {0, 127, 224, 240, 255};
    for (size_t i = 0; i < array_length(firsts); i++) {
        struct answer answer = build(options, sizeof(options), 0);
        answer.bytes[bootp_at + 16] = firsts[i];
        int result = decode(&answer);
        free(answer.bytes);
        CHECK_INT(result, -EPROTO);
    }
}

TEST(a_refusal_needs_no_address)
{
    static const uint8_t options[] = {KIND, DHCP_NAK, SERVER, 10, 0, 2, 2, 255};
    struct answer answer = build(options, sizeof(options), 0);
    memset(answer.bytes + bootp_at + 16, 0, 4);
    int result = decode(&answer);
    free(answer.bytes);
    CHECK_INT(result, 0);
    CHECK(got.kind == DHCP_NAK && is(got.server, 10, 0, 2, 2));
    static const uint8_t others[] = {0,  DHCP_DISCOVER, DHCP_REQUEST, 4, 7, 8,
                                     255}; /* what no server says to a client */
    for (size_t i = 0; i < array_length(others); i++)
        CHECK_INT(OPTIONS(KIND, others[i], 255), -EPROTO);
}

TEST(other_packets_are_not_answers)
{
    static const uint8_t options[] = {ACK, 255};
    static const struct {
        size_t at;
        uint8_t value;
        const char *what;
    } rows[] = {
        {0, 0x65, "IPv6"},
        {0, 0x44, "a header that is too short"},
        {0, 0x4f, "a header that reaches into what follows"},
        {2, 0xff, "longer than what arrived"},
        {9, 6, "TCP"},
        {6, 0x20, "a first fragment"},
        {6, 0x1f, "a later fragment"},
        {7, 1, "the second fragment"},
        {udp_at + 1, 68, "from another port"},
        {udp_at + 3, 67, "to another port"},
        {udp_at + 4, 0xff, "UDP is longer than the packet"},
        {udp_at + 5, 0, "UDP is shorter than its header and BOOTP"},
        {bootp_at, 1, "a question"},
        {bootp_at + 4, 2, "another transaction"},
        {bootp_at + 7, 5, "another transaction"},
        {bootp_at + 28, 4, "another interface"},
        {bootp_at + 33, 0xef, "another interface"},
        {bootp_at + 236, 98, "BOOTP without options"},
    };
    for (size_t i = 0; i < array_length(rows); i++) {
        struct answer answer = build(options, sizeof(options), 0);
        answer.bytes[rows[i].at] = rows[i].value;
        int result = decode(&answer);
        bool is_untouched = got.kind == 0x77;
        free(answer.bytes);
        if (result != -EPROTO || !is_untouched)
            test_fail(__FILE__, __LINE__, "%s is taken for an answer", rows[i].what);
    }
}

TEST(a_packet_that_must_not_be_split_is_whole)
{
    static const uint8_t options[] = {ACK, 255};
    struct answer answer = build(options, sizeof(options), 0);
    answer.bytes[6] = 0x40;
    int result = decode(&answer);
    free(answer.bytes);
    CHECK_INT(result, 0);
}

TEST(headers_with_options_and_bytes_behind_the_packet)
{
    static const uint8_t options[] = {ACK, MASK, 255, 255, 255, 0, 255, 1, 2, 3};
    struct answer answer = build(options, sizeof(options), 40);
    CHECK_INT(decode(&answer), 0);
    CHECK_INT(got.prefix, 24);
    answer.bytes[3] = (uint8_t)(answer.bytes[3] - 3); /* as Ethernet pads; UDP now says more than IP */
    CHECK_INT(decode(&answer), -EPROTO);
    answer.bytes[udp_at + 40 + 5] = (uint8_t)(answer.bytes[udp_at + 40 + 5] - 3);
    CHECK_INT(decode(&answer), 0);
    free(answer.bytes);
}

TEST(every_truncation_is_refused)
{
    static const uint8_t options[] = {ACK, MASK, 255, 255, 255, 0, 255};
    struct answer whole = build(options, sizeof(options), 0);
    for (size_t length = 0; length < whole.length; length++) {
        struct answer part = {.bytes = malloc(length + 1), .length = length};
        memcpy(part.bytes, whole.bytes, length);
        int as_it_was = decode(&part), as_it_is = -EPROTO;
        if (length >= udp_at + 8) { /* with lengths that agree, what is missing is options */
            part.bytes[2] = (uint8_t)(length >> 8);
            part.bytes[3] = (uint8_t)length;
            part.bytes[udp_at + 4] = (uint8_t)((length - udp_at) >> 8);
            part.bytes[udp_at + 5] = (uint8_t)(length - udp_at);
            as_it_is = decode(&part);
        }
        free(part.bytes);
        bool is_sound = length == options_at + 3 || length == options_at + 9;
        if (as_it_was != -EPROTO || as_it_is != (is_sound ? 0 : -EPROTO))
            test_fail(__FILE__, __LINE__, "%zu bytes: %d, %d", length, as_it_was, as_it_is);
    }
    free(whole.bytes);
}
