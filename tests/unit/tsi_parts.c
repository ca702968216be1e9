// SPDX-License-Identifier: Apache-2.0
/* Tests of TSI's messages and addresses: what is read, what it becomes, and what is allowed. */
#include "test.h"

#include "base/alloc.h"
#include "device/vsock/tsi_address.h"
#include "device/vsock/tsi_message.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>

static struct tsi_policy policy;

static struct tsi_address address_of(const char *ip)
{
    struct tsi_address address = {.length = sizeof(address.in4)};
    address.any.sa_family = AF_INET;
    if (inet_pton(AF_INET, ip, &address.in4.sin_addr) == 1)
        return address;
    address.length = sizeof(address.in6);
    address.any.sa_family = AF_INET6;
    if (inet_pton(AF_INET6, ip, &address.in6.sin6_addr) != 1)
        abort();
    return address;
}

static bool is_allowed(const char *ip)
{
    struct tsi_address guest = address_of(ip), host;
    tsi_address_name_loopback(&guest);
    host = guest;
    tsi_address_to_host(&policy, &host);
    return tsi_policy_allows(&policy, &guest, &host);
}

static const char *text_of(const struct tsi_address *address)
{
    static char text[64];
    const void *bytes = address->any.sa_family == AF_INET ? (const void *)&address->in4.sin_addr
                                                          : (const void *)&address->in6.sin6_addr;
    return inet_ntop(address->any.sa_family, bytes, text, sizeof(text));
}

TEST(everything_is_in_any)
{
    policy = (struct tsi_policy){.scope = TSI_SCOPE_ANY};
    CHECK(is_allowed("127.0.0.1") && is_allowed("8.8.8.8") && is_allowed("169.254.169.254") && is_allowed("fe80::1"));
}

TEST(public_is_public)
{
    static const char *const inside[] = {
        "8.8.8.8",     "1.0.0.0",          "9.255.255.255",   "11.0.0.0",        "100.63.255.255", "100.128.0.0",
        "128.0.0.1",   "169.253.255.255",  "169.255.0.0",     "172.15.0.1",      "172.32.0.0",     "192.167.255.255",
        "192.169.0.0", "198.17.0.1",       "198.20.0.0",      "223.255.255.255", "::ffff:8.8.8.8", "2600::1",
        "2001:200::1", "64:ff9b::8.8.8.8", "2a00:1450::2004", "168.63.129.15"};
    static const char *const outside[] = {"0.0.0.0",
                                          "0.1.2.3",
                                          "10.0.0.1",
                                          "10.255.255.255",
                                          "100.64.0.1",
                                          "100.100.100.200",
                                          "127.0.0.1",
                                          "127.255.255.255",
                                          "168.63.129.16",
                                          "169.254.169.254",
                                          "172.16.0.1",
                                          "172.31.255.255",
                                          "192.0.0.192",
                                          "192.0.2.1",
                                          "192.168.0.1",
                                          "198.18.0.1",
                                          "198.19.255.255",
                                          "198.51.100.1",
                                          "203.0.113.1",
                                          "224.0.0.1",
                                          "239.255.255.250",
                                          "240.0.0.1",
                                          "255.255.255.255",
                                          "::",
                                          "::1",
                                          "::ffff:127.0.0.1",
                                          "::ffff:10.0.0.1",
                                          "::ffff:0.0.0.0",
                                          "::127.0.0.1",
                                          "::10.0.0.1",
                                          "64:ff9b::10.0.0.1",
                                          "64:ff9b::a9fe:a9fe",
                                          "64:ff9b:1::1",
                                          "100::1",
                                          "2001::1",
                                          "2001:db8::1",
                                          "2002:7f00:1::",
                                          "3fff::1",
                                          "fc00::1",
                                          "fd00:ec2::254",
                                          "fe80::1",
                                          "fec0::1",
                                          "ff02::1",
                                          "4000::1",
                                          "::ffff:0:127.0.0.1"};
    policy = (struct tsi_policy){.scope = TSI_SCOPE_PUBLIC};
    for (size_t i = 0; i < array_length(inside); i++)
        CHECK_TEXT(is_allowed(inside[i]) ? inside[i] : "refused", inside[i]);
    for (size_t i = 0; i < array_length(outside); i++)
        CHECK_TEXT(is_allowed(outside[i]) ? "allowed" : outside[i], outside[i]);
}

TEST(a_group_is_its_network)
{
    struct tsi_options options = {.scope = TSI_SCOPE_GROUP, .group_ip = "10.1.2.3", .group_prefix = 20};
    CHECK_INT(tsi_policy_read(&options, &policy), 0);
    CHECK(is_allowed("10.1.0.1") && is_allowed("10.1.15.255") && is_allowed("::ffff:10.1.1.1"));
    CHECK(!is_allowed("10.1.16.0") && !is_allowed("10.0.255.255") && !is_allowed("127.0.0.1") && !is_allowed("::1"));
    CHECK(!is_allowed("0.0.0.0") && !is_allowed("::"));
    options.group_prefix = 0;
    CHECK_INT(tsi_policy_read(&options, &policy), 0);
    CHECK(is_allowed("1.2.3.4") && !is_allowed("2600::1"));
    options.group_ip = "fd00:1::";
    options.group_prefix = 47;
    CHECK_INT(tsi_policy_read(&options, &policy), 0);
    CHECK(is_allowed("fd00:1::5") && is_allowed("fd00:0:ffff::1") == false && is_allowed("fd00:1:1::1"));
    CHECK(!is_allowed("fd00:1:2::1") && !is_allowed("10.1.1.1"));
    options.group_prefix = 129;
    CHECK_INT(tsi_policy_read(&options, &policy), -EINVAL);
    options.group_ip = "10.0.0.0/8";
    CHECK_INT(tsi_policy_read(&options, &policy), -EINVAL);
}

TEST(none_is_nothing)
{
    policy = (struct tsi_policy){.scope = TSI_SCOPE_NONE};
    CHECK(!is_allowed("127.0.0.1") && !is_allowed("8.8.8.8") && !is_allowed("::1") && !is_allowed("2600::1"));
}

TEST(local_is_local)
{
    policy = (struct tsi_policy){.is_local_only = true};
    CHECK(is_allowed("127.0.0.1") && is_allowed("127.1.2.3") && is_allowed("::1") && is_allowed("0.0.0.0"));
    CHECK(is_allowed("::") && is_allowed("::ffff:127.0.0.1") && is_allowed("::ffff:0.0.0.0"));
    CHECK(!is_allowed("128.0.0.1") && !is_allowed("126.255.255.255") && !is_allowed("::2") && !is_allowed("fe80::1"));
    CHECK(!is_allowed("::ffff:10.0.0.1") && !is_allowed("::127.0.0.1") && !is_allowed("64:ff9b::127.0.0.1"));
}

TEST(an_assigned_address)
{
    struct tsi_options options = {.local_only = true, .assigned_ip = "10.9.8.7"};
    CHECK_INT(tsi_policy_read(&options, &policy), 0);
    struct tsi_address address = address_of("127.0.0.1");
    tsi_address_to_host(&policy, &address);
    CHECK_TEXT(text_of(&address), "10.9.8.7");
    tsi_address_to_guest(&policy, &address);
    CHECK_TEXT(text_of(&address), "127.0.0.1");
    address = address_of("::ffff:127.0.0.1");
    tsi_address_to_host(&policy, &address);
    CHECK_TEXT(text_of(&address), "::ffff:10.9.8.7");
    tsi_address_to_guest(&policy, &address);
    CHECK_TEXT(text_of(&address), "::ffff:127.0.0.1");
    address = address_of("127.0.0.2");
    tsi_address_to_host(&policy, &address);
    CHECK_TEXT(text_of(&address), "127.0.0.2");
    address = address_of("::1");
    tsi_address_to_host(&policy, &address);
    CHECK_TEXT(text_of(&address), "::1");
    address = address_of("0.0.0.0");
    tsi_address_to_host(&policy, &address); /* to listen on */
    CHECK_TEXT(text_of(&address), "0.0.0.0");
    CHECK(is_allowed("127.0.0.1") && is_allowed("0.0.0.0") && !is_allowed("10.9.8.7"));
    options.scope = TSI_SCOPE_PUBLIC;
    CHECK_INT(tsi_policy_read(&options, &policy), 0);
    CHECK(!is_allowed("127.0.0.1"));
}

TEST(addresses_are_read)
{
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons(80), .sin_zero = "padding"};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(80), .sin6_flowinfo = 7, .sin6_scope_id = 9};
    struct tsi_address address;
    CHECK_INT(tsi_address_read((const uint8_t *)&in4, sizeof(in4), AF_INET, &address), 0);
    CHECK_INT(address.in4.sin_zero[0], 0);
    CHECK_INT(tsi_address_port(&address), 80);
    tsi_address_set_port(&address, 8080);
    CHECK_INT(tsi_address_port(&address), 8080);
    for (size_t length = 0; length < sizeof(in4); length++)
        CHECK_INT(tsi_address_read((const uint8_t *)&in4, length, AF_INET, &address), -EINVAL);
    CHECK_INT(tsi_address_read((const uint8_t *)&in4, sizeof(in4), AF_INET6, &address), -EAFNOSUPPORT);
    CHECK_INT(tsi_address_read((const uint8_t *)&in4, sizeof(in4), AF_UNIX, &address), -EAFNOSUPPORT);
    CHECK_INT(tsi_address_read((const uint8_t *)&in6, sizeof(in6), AF_INET6, &address), 0);
    CHECK(address.in6.sin6_flowinfo == 0 && address.in6.sin6_scope_id == 0);
    in6.sin6_addr.s6_addr[0] = 0xfe;
    in6.sin6_addr.s6_addr[1] = 0xbf; /* the last of fe80::/10 */
    CHECK_INT(tsi_address_read((const uint8_t *)&in6, sizeof(in6), AF_INET6, &address), 0);
    CHECK_INT(address.in6.sin6_scope_id, 9);
    CHECK_INT(tsi_address_read((const uint8_t *)&in6, sizeof(in6) - 4, AF_INET6, &address), -EINVAL);
    CHECK_INT(tsi_address_read(NULL, 0, AF_INET, &address), -EINVAL);
    in4.sin_family = AF_NETLINK;
    CHECK_INT(tsi_address_read((const uint8_t *)&in4, sizeof(in4), AF_NETLINK, &address), -EAFNOSUPPORT);
}

TEST(paths_are_read)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "/a/b"};
    struct tsi_address address;
    CHECK_INT(tsi_address_read((const uint8_t *)&un, sizeof(un), AF_UNIX, &address), 0);
    CHECK_INT(address.length, 2 + 4 + 1);
    CHECK_TEXT(address.un.sun_path, "/a/b");
    CHECK(tsi_address_has_path(&address));
    CHECK_INT(tsi_address_read((const uint8_t *)&un, 2 + 3, AF_UNIX, &address), 0); /* without a NUL */
    CHECK_TEXT(address.un.sun_path, "/a/");
    CHECK_INT(tsi_address_read((const uint8_t *)&un, 2, AF_UNIX, &address), 0);
    CHECK(address.length == 2 && !tsi_address_has_path(&address));
    CHECK_INT(tsi_address_read((const uint8_t *)&un, 1, AF_UNIX, &address), -EINVAL);
    un.sun_path[0] = '\0';
    CHECK_INT(tsi_address_read((const uint8_t *)&un, 2 + 4, AF_UNIX, &address), 0);
    CHECK(address.length == 6 && !tsi_address_has_path(&address));
    memset(un.sun_path, '/', sizeof(un.sun_path));
    CHECK_INT(tsi_address_read((const uint8_t *)&un, sizeof(un), AF_UNIX, &address), -EINVAL);
    CHECK_INT(tsi_address_read((const uint8_t *)&un, sizeof(un) - 1, AF_UNIX, &address), 0);
    CHECK_INT(address.length, sizeof(un));
    uint8_t longer[TSI_ADDRESS_BYTES] = {AF_UNIX, 0, '/'};
    CHECK_INT(tsi_address_read(longer, sizeof(longer), AF_UNIX, &address), -EINVAL);
}

TEST(messages_are_read)
{
    struct tsi_request request;
    uint8_t bytes[160];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    CHECK(!tsi_kind_is_known(1023) && tsi_kind_is_known(1024) && tsi_kind_is_known(1031) && !tsi_kind_is_known(1032));
    CHECK_INT(tsi_request_decode(TSI_CREATE, bytes, 8, &request), 0);
    CHECK(request.guest_port == 0x03020100 && request.family == 0x0504 && request.type == 0x0706);
    CHECK_INT(request.protocol, 0);
    CHECK_INT(tsi_request_decode(TSI_CREATE, bytes, 10, &request), 0);
    CHECK_INT(request.protocol, 0x0908);
    CHECK_INT(tsi_request_decode(TSI_GETNAME, bytes, 12, &request), 0);
    CHECK(request.peer_port == 0x07060504 && request.wants_peer == 0x0b0a0908);
    CHECK_INT(tsi_request_decode(TSI_ACCEPT, bytes, 8, &request), 0);
    CHECK_INT(request.flags, 0x07060504);
    memcpy(bytes + 12, (uint8_t[]){16, 0, 0, 0}, 4);
    CHECK_INT(tsi_request_decode(TSI_LISTEN, bytes, 32, &request), 0);
    CHECK(request.vm_port == 0x07060504 && request.backlog == 0x0b0a0908 && request.address == bytes + 16);
    CHECK_INT(request.address_length, 16);
    CHECK_INT(tsi_request_decode(TSI_LISTEN, bytes, 31, &request), -EINVAL);
    CHECK(request.address == NULL && request.address_length == 0);
    CHECK_INT(tsi_request_decode(TSI_SENDTO_DATA, bytes, 0, &request), 0);
    CHECK_INT(tsi_request_decode(TSI_RELEASE, bytes, 7, &request), -EINVAL);
    CHECK_INT(request.guest_port, 0x03020100); /* whom to answer, where somebody waits */
}

TEST(answers_are_written)
{
    uint8_t bytes[TSI_NAME_BYTES];
    tsi_result_encode(-13, bytes);
    CHECK(memcmp(bytes, (uint8_t[]){0xf3, 0xff, 0xff, 0xff}, 4) == 0);
    memset(bytes, 0xaa, sizeof(bytes));
    tsi_name_encode(0, "address", 7, bytes);
    CHECK(memcmp(bytes, "\0\0\0\0\7\0\0\0address\0", 16) == 0);
    for (size_t i = 15; i < sizeof(bytes); i++)
        CHECK_INT(bytes[i], 0);
}
