// SPDX-License-Identifier: Apache-2.0
/* Tests of vmm/parse_net: addresses, networks and published ports, in every form and with every mistake. */
#include "test.h"

#include "base/alloc.h"
#include "vmm/parse.h"

#include <errno.h>

struct wrong {
    const char *text;
    int result;
};

TEST(addresses)
{
    struct net_address address;
    const char *why = NULL;
    CHECK_INT(parse_address("10.0.2.255", &address, &why), 0);
    CHECK(!address.is_ipv6 && memcmp(address.bytes, "\x0a\x00\x02\xff", 4) == 0);
    CHECK_INT(address.prefix, 32);
    CHECK_INT(parse_address("fd00::2", &address, &why), 0);
    CHECK(address.is_ipv6 && memcmp(address.bytes, "\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02", 16) == 0);
    CHECK_INT(address.prefix, 128);
    CHECK_INT(parse_address("::", &address, &why), 0);
    CHECK_INT(parse_address("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", &address, &why), 0); /* the longest */
    static const char *const wrong[] = {
        "",           "10.0.2",    "10.0.2.256", "10.0.2.1.1",
        " 10.0.2.1",  "10.0.2.1 ", "10.0.2.1/8", "fe80::1%eth0",
        ":",          "1::2::3",   "g::",        "010.0.0.1",
        "0x7f.0.0.1", "localhost", "[::1]",      "0000:ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.2555"};
    for (size_t i = 0; i < array_length(wrong); i++) {
        address.prefix = 77;
        why = NULL;
        if (parse_address(wrong[i], &address, &why) != -EINVAL)
            test_fail(__FILE__, __LINE__, "\"%s\" is taken", wrong[i]);
        CHECK(why != NULL && address.prefix == 77);
    }
}

TEST(networks)
{
    struct net_address address;
    const char *why = NULL;
    CHECK_INT(parse_network("10.0.2.15/24", &address, &why), 0);
    CHECK_INT(address.prefix, 24);
    CHECK(!address.is_ipv6 && address.bytes[3] == 15);
    CHECK_INT(parse_network("0.0.0.0/0", &address, &why), 0);
    CHECK_INT(address.prefix, 0);
    CHECK_INT(parse_network("10.0.2.15/32", &address, &why), 0);
    CHECK_INT(parse_network("fd00::15/64", &address, &why), 0);
    CHECK(address.is_ipv6 && address.prefix == 64 && address.bytes[15] == 0x15);
    CHECK_INT(parse_network("::/128", &address, &why), 0);
    static const struct wrong wrong[] = {
        {"", -EINVAL},
        {"10.0.2.15", -EINVAL},
        {"/24", -EINVAL},
        {"10.0.2/24", -EINVAL},
        {"10.0.2.15/", -ERANGE},
        {"10.0.2.15/33", -ERANGE},
        {"10.0.2.15/-1", -ERANGE},
        {"10.0.2.15/+8", -ERANGE},
        {"10.0.2.15/8 ", -ERANGE},
        {"10.0.2.15/8/8", -ERANGE},
        {"10.0.2.15/255.0.0.0", -ERANGE},
        {"10.0.2.15/0024", -ERANGE}, /* or a text of any length would be one */
        {"fd00::15/129", -ERANGE},
        {"fd00::15/18446744073709551680", -ERANGE},
    };
    for (size_t i = 0; i < array_length(wrong); i++) {
        address.prefix = 77;
        why = NULL;
        if (parse_network(wrong[i].text, &address, &why) != wrong[i].result)
            test_fail(__FILE__, __LINE__, "\"%s\" is not refused as it should be", wrong[i].text);
        CHECK(why != NULL && address.prefix == 77);
    }
}

/* The port in words that say everything. */
static const char *published(const char *text)
{
    static char result[128];
    struct published_port port;
    const char *why = NULL;
    int length = 0;
    if (parse_published(text, &port, &why) < 0)
        return "refused";
    for (int i = 0; i < (port.address.is_ipv6 ? 16 : 4); i++)
        length += snprintf(result + length, sizeof(result) - (size_t)length, "%02x", port.address.bytes[i]);
    snprintf(result + length, sizeof(result) - (size_t)length, " %u %u %s", port.host, port.guest,
             port.is_udp ? "udp" : "tcp");
    return result;
}

TEST(published_ports)
{
    CHECK_TEXT(published("8080:80"), "7f000001 8080 80 tcp"); /* the loopback, where nothing else is said */
    CHECK_TEXT(published("80"), "7f000001 80 80 tcp");
    CHECK_TEXT(published("65535:1/tcp"), "7f000001 65535 1 tcp");
    CHECK_TEXT(published("53/udp"), "7f000001 53 53 udp");
    CHECK_TEXT(published("5353:53/udp"), "7f000001 5353 53 udp");
    CHECK_TEXT(published("0.0.0.0:8080:80"), "00000000 8080 80 tcp");
    CHECK_TEXT(published("192.0.2.1:80"), "c0000201 80 80 tcp");
    CHECK_TEXT(published("[::1]:80"), "00000000000000000000000000000001 80 80 tcp");
    CHECK_TEXT(published("[::]:5353:53/udp"), "00000000000000000000000000000000 5353 53 udp");
    CHECK_TEXT(published("[::ffff:10.0.0.1]:1:2"), "00000000000000000000ffff0a000001 1 2 tcp");
}

TEST(ports_that_cannot_be_published)
{
    static const struct wrong wrong[] = {
        {"", -EINVAL},
        {":", -EINVAL},
        {"80:", -EINVAL},
        {":80", -EINVAL},
        {"80:80:80", -EINVAL},
        {"a", -EINVAL},
        {"80:a", -EINVAL},
        {" 80", -EINVAL},
        {"+80", -EINVAL},
        {"0x50", -EINVAL},
        {"8080:80/", -EINVAL},
        {"8080:80/sctp", -EINVAL},
        {"8080:80/TCP", -EINVAL},
        {"8080:80/tcp/udp", -EINVAL},
        {"8080:80/udp ", -EINVAL},
        {"/tcp", -EINVAL},
        {"127.0.0.1", -EINVAL},
        {"127.0.0.1:", -EINVAL},
        {"127.0.0.1:80:", -EINVAL},
        {"127.0.0.1::80", -EINVAL},
        {"127.0.0.1/udp", -EINVAL},
        {"127.0.0:80", -EINVAL},
        {"127.0.0.1:80:80:80", -EINVAL},
        {"::1:80:80", -EINVAL},
        {"[::1]", -EINVAL},
        {"[::1]:", -EINVAL},
        {"[::1]:/udp", -EINVAL},
        {"[::1]/udp", -EINVAL},
        {"[::1]80", -EINVAL},
        {"[::1", -EINVAL},
        {"[]:80", -EINVAL},
        {"[", -EINVAL},
        {"[127.0.0.1]:80", -EINVAL},
        {"[fe80::1%lo]:80", -EINVAL},
        {"0", -ERANGE},
        {"0:80", -ERANGE},
        {"80:0", -ERANGE},
        {"65536", -ERANGE},
        {"80:65536", -ERANGE},
        {"18446744073709551696", -ERANGE},
        {"000080", -ERANGE},
        {"[::1]:0", -ERANGE},
    };
    for (size_t i = 0; i < array_length(wrong); i++) {
        struct published_port port = {.host = 7};
        const char *why = NULL;
        int result = parse_published(wrong[i].text, &port, &why);
        if (result != wrong[i].result)
            test_fail(__FILE__, __LINE__, "\"%s\" gives %d", wrong[i].text, result);
        CHECK(why != NULL && port.host == 7);
    }
}
