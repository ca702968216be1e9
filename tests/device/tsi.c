// SPDX-License-Identifier: Apache-2.0
/* TSI: streams and datagrams of a guest, against sockets of the test on this host. */
#include "tsi_world.h"

#include "base/fd.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

static const struct tsi_options inet = {.hijacks_inet = true};
static const struct tsi_options unix_only = {.hijacks_unix = true};
static struct sockaddr_storage name;
static socklen_t name_length;

static bool is_name(const void *address, size_t length)
{
    return name_length == length && memcmp(&name, address, length) == 0;
}

/* One stream out to a server at this address, its names, and its bytes. */
static const char *stream_out(struct sockaddr *address, socklen_t length)
{
    int server = world_server(SOCK_STREAM, address, length);
    if (server < 0)
        return "no server";
    world_create(7000, address->sa_family, SOCK_STREAM);
    if (world_connect(7000, address, length) != 0)
        return "connect";
    if (world_getname(7000, TSI_STREAM_PORT, true, &name, &name_length) != 0 || !is_name(address, length))
        return "the peer's name";
    int ours = tsi_take_stream(world.tsi, 7000, TSI_STREAM_PORT), theirs = accept(server, NULL, NULL);
    if (ours < 0 || theirs < 0 || !world_is_connected(ours, theirs))
        return "its bytes";
    if (tsi_take_stream(world.tsi, 7000, TSI_STREAM_PORT) != -ECONNREFUSED)
        return "taken twice";
    if (world_getname(7000, TSI_STREAM_PORT, true, &name, &name_length) != 0 || !is_name(address, length))
        return "the peer's name, later";
    struct sockaddr_storage local = {0};
    socklen_t local_length = sizeof(local);
    getsockname(ours, (struct sockaddr *)&local, &local_length);
    if (world_getname(7000, TSI_STREAM_PORT, false, &name, &name_length) != 0 || !is_name(&local, local_length))
        return "its own name";
    world_release(7000, TSI_STREAM_PORT);
    if (world_getname(7000, TSI_STREAM_PORT, true, &name, &name_length) != -ENOBUFS || name_length != 0)
        return "released";
    close(ours);
    close(theirs);
    close(server);
    return NULL;
}

TEST(a_stream_goes_out)
{
    struct sockaddr_in address = world_in4("127.0.0.1", 0);
    CHECK_INT(world_begin(&inet), 0);
    CHECK_TEXT(stream_out((struct sockaddr *)&address, sizeof(address)) ?: "fine", "fine");
    world_end();
}

TEST(a_stream_goes_out_by_ipv6)
{
    struct sockaddr_in6 address = world_in6("::1", 0);
    CHECK_INT(world_begin(&inet), 0);
    CHECK_TEXT(stream_out((struct sockaddr *)&address, sizeof(address)) ?: "fine", "fine");
    world_end();
}

TEST(a_stream_goes_out_by_path)
{
    char path[200];
    CHECK(snprintf(path, sizeof(path), "%s/socket", test_folder()) < 100);
    struct sockaddr_un address = world_path(path);
    CHECK_INT(world_begin(&unix_only), 0);
    CHECK_TEXT(stream_out((struct sockaddr *)&address, (socklen_t)(3 + strlen(path))) ?: "fine", "fine");
    world_end();
}

TEST(any_address_is_loopback)
{
    struct sockaddr_in address = world_in4("127.0.0.1", 0);
    CHECK_INT(world_begin(&inet), 0);
    int server = world_server(SOCK_STREAM, (struct sockaddr *)&address, sizeof(address));
    struct sockaddr_in any = world_in4("0.0.0.0", ntohs(address.sin_port));
    world_create(7000, AF_INET, SOCK_STREAM);
    CHECK_INT(world_connect(7000, &any, sizeof(any)), 0);
    CHECK_INT(world_getname(7000, TSI_STREAM_PORT, true, &name, &name_length), 0);
    CHECK(is_name(&address, sizeof(address)));
    close(server);
    world_end();
}

TEST(errors_of_the_host_arrive)
{
    struct sockaddr_in address = world_in4("127.0.0.1", world_free_port());
    struct sockaddr_in broadcast = world_in4("255.255.255.255", 9);
    CHECK_INT(world_begin(&inet), 0);
    world_create(7000, AF_INET, SOCK_STREAM);
    CHECK_INT(world_connect(7000, &address, sizeof(address)), -ECONNREFUSED);
    CHECK_INT(world_getname(7000, TSI_STREAM_PORT, true, &name, &name_length), -ENOTCONN);
    CHECK_INT(tsi_take_stream(world.tsi, 7000, TSI_STREAM_PORT), -ECONNREFUSED);
    int result = world_connect(7000, &broadcast, sizeof(broadcast));
    CHECK(result == -ENETUNREACH || result == -EACCES || result == -EHOSTUNREACH);
    /* The same socket may be tried again. */
    int server = world_server(SOCK_STREAM, (struct sockaddr *)&address, sizeof(address));
    CHECK(server >= 0);
    CHECK_INT(world_connect(7000, &address, sizeof(address)), 0);
    CHECK_INT(world_connect(7000, &address, sizeof(address)), 0); /* its stream was not asked for yet */
    close(tsi_take_stream(world.tsi, 7000, TSI_STREAM_PORT));
    CHECK_INT(world_connect(7000, &address, sizeof(address)), -EISCONN);
    close(server);
    world_end();
}

/* Fills a server's queue, so that the next connect has to wait. */
static int full_server(struct sockaddr_in *address, int clients[8])
{
    int server = world_server(SOCK_STREAM, (struct sockaddr *)address, sizeof(*address));
    listen(server, 0);
    for (int i = 0; i < 8; i++) {
        clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(clients[i], (struct sockaddr *)address, sizeof(*address));
    }
    return server;
}

TEST(a_connect_may_take_its_time)
{
    int clients[8];
    struct sockaddr_in address = world_in4("127.0.0.1", 0);
    CHECK_INT(world_begin(&inet), 0);
    int server = full_server(&address, clients);
    struct sockaddr_in other = address;
    other.sin_port = 0;
    world_create(7000, AF_INET, SOCK_STREAM);
    world_ask_address(TSI_CONNECT, 7000, &address, sizeof(address));
    world_turn();
    CHECK_INT(world_result(TSI_CONNECT), WORLD_NOTHING);
    CHECK_INT(world_connect(7000, &other, sizeof(other)), -EALREADY);
    CHECK_INT(tsi_take_stream(world.tsi, 7000, TSI_STREAM_PORT), -ECONNREFUSED);
    /* One that was interrupted and begun again has one answer. */
    world_ask_address(TSI_CONNECT, 7000, &address, sizeof(address));
    CHECK_INT(world_result(TSI_CONNECT), WORLD_NOTHING);
    world_release(7000, TSI_STREAM_PORT);
    CHECK_INT(world.sent, world.read);
    for (int i = 0; i < 8; i++)
        close(clients[i]);
    close(server);
    world_end();
}

/* ---- datagrams ---- */

static size_t received(int server, char *bytes, size_t size, struct sockaddr_storage *sender, socklen_t *length)
{
    struct pollfd ready = {.fd = server, .events = POLLIN};
    *length = sizeof(*sender);
    if (poll(&ready, 1, 5000) != 1)
        return 0;
    ssize_t got = recvfrom(server, bytes, size, 0, (struct sockaddr *)sender, length);
    return got > 0 ? (size_t)got : 0;
}

static const char *datagrams_both_ways(struct sockaddr *address, socklen_t length, bool connects)
{
    char bytes[16];
    struct sockaddr_storage sender;
    socklen_t sender_length;
    int server = world_server(SOCK_DGRAM, address, length);
    uint32_t port = connects ? 7000 : TSI_SENDTO_DATA;
    world_create(7000, address->sa_family, SOCK_DGRAM);
    if (connects && world_connect(7000, address, length) != 0)
        return "connect";
    if (!connects)
        world_ask_address(TSI_SENDTO_ADDRESS, 7000, address, length);
    if (!tsi_take_datagram(world.tsi, 7000, port, (const uint8_t *)"question", 8))
        return "not taken";
    if (received(server, bytes, sizeof(bytes), &sender, &sender_length) != 8 || memcmp(bytes, "question", 8) != 0)
        return "out";
    if (sendto(server, "answer", 6, 0, (struct sockaddr *)&sender, sender_length) != 6)
        return "no answer";
    world_wait_sent(world.read + 1);
    const struct world_datagram *datagram = &world.datagrams[world.read++];
    if (datagram->guest_port != 7000 || datagram->host_port != 7000 || datagram->length != 6 ||
        memcmp(datagram->bytes, "answer", 6) != 0)
        return "in";
    if (sendto(server, "", 0, 0, (struct sockaddr *)&sender, sender_length) != 0)
        return "nothing";
    world_wait_sent(world.read + 1);
    if (world.datagrams[world.read++].length != 0)
        return "an empty one";
    if (world_getname(7000, TSI_STREAM_PORT, true, &name, &name_length) != (connects ? 0 : -ENOTCONN) ||
        (connects && !is_name(address, length)))
        return "the peer's name";
    close(server);
    return NULL;
}

TEST(datagrams_to_an_address)
{
    struct sockaddr_in address = world_in4("127.0.0.1", 0);
    CHECK_INT(world_begin(&inet), 0);
    CHECK_TEXT(datagrams_both_ways((struct sockaddr *)&address, sizeof(address), false) ?: "fine", "fine");
    world_end();
}

TEST(datagrams_to_a_peer)
{
    struct sockaddr_in address = world_in4("127.0.0.1", 0);
    CHECK_INT(world_begin(&inet), 0);
    CHECK_TEXT(datagrams_both_ways((struct sockaddr *)&address, sizeof(address), true) ?: "fine", "fine");
    world_end();
}

TEST(datagrams_by_ipv6)
{
    struct sockaddr_in6 address = world_in6("::1", 0);
    CHECK_INT(world_begin(&inet), 0);
    CHECK_TEXT(datagrams_both_ways((struct sockaddr *)&address, sizeof(address), false) ?: "fine", "fine");
    world_release(7000, TSI_STREAM_PORT);
    address.sin6_port = 0;
    CHECK_TEXT(datagrams_both_ways((struct sockaddr *)&address, sizeof(address), true) ?: "fine", "fine");
    world_end();
}

TEST(datagrams_by_path)
{
    char path[200], bytes[8];
    struct sockaddr_storage sender;
    socklen_t sender_length;
    CHECK(snprintf(path, sizeof(path), "%s/socket", test_folder()) < 100);
    struct sockaddr_un address = world_path(path);
    CHECK_INT(world_begin(&unix_only), 0);
    int server = world_server(SOCK_DGRAM, (struct sockaddr *)&address, sizeof(address));
    world_create(7000, AF_UNIX, SOCK_DGRAM);
    CHECK_INT(world_connect(7000, &address, sizeof(address)), 0);
    CHECK(tsi_take_datagram(world.tsi, 7000, 7000, (const uint8_t *)"hello", 5));
    CHECK_INT(received(server, bytes, sizeof(bytes), &sender, &sender_length), 5);
    close(server);
    world_end();
}

TEST(datagrams_nowhere_are_dropped)
{
    char bytes[16];
    struct sockaddr_storage sender;
    socklen_t sender_length;
    struct sockaddr_in address = world_in4("127.0.0.1", 0), nobody = world_in4("127.0.0.1", world_free_port());
    CHECK_INT(world_begin(&inet), 0);
    int server = world_server(SOCK_DGRAM, (struct sockaddr *)&address, sizeof(address));
    world_create(7000, AF_INET, SOCK_DGRAM);
    CHECK(tsi_take_datagram(world.tsi, 7000, TSI_SENDTO_DATA, (const uint8_t *)"x", 1));
    CHECK(tsi_take_datagram(world.tsi, 7000, 7000, (const uint8_t *)"x", 1));
    CHECK(!tsi_take_datagram(world.tsi, 7000, 7001, (const uint8_t *)"x", 1));
    CHECK(!tsi_take_datagram(world.tsi, 7001, 7001, (const uint8_t *)"x", 1));
    CHECK(tsi_take_datagram(world.tsi, 7001, TSI_SENDTO_DATA, (const uint8_t *)"x", 1));
    /* The host says that nobody is there; that is read and forgotten. */
    world_ask_address(TSI_SENDTO_ADDRESS, 7000, &nobody, sizeof(nobody));
    CHECK(tsi_take_datagram(world.tsi, 7000, TSI_SENDTO_DATA, (const uint8_t *)"x", 1));
    CHECK_INT(world_connect(7000, &nobody, sizeof(nobody)), 0);
    CHECK(tsi_take_datagram(world.tsi, 7000, 7000, (const uint8_t *)"x", 1));
    world_turn();
    /* A bad address takes the last one away. */
    world_ask_address(TSI_SENDTO_ADDRESS, 7000, &address, sizeof(address));
    world_ask_address(TSI_SENDTO_ADDRESS, 7000, &address, sizeof(address) - 1);
    CHECK(tsi_take_datagram(world.tsi, 7000, TSI_SENDTO_DATA, (const uint8_t *)"lost", 4));
    world_ask_address(TSI_SENDTO_ADDRESS, 7000, &address, sizeof(address));
    world_send(TSI_SENDTO_ADDRESS, (uint32_t[]){7000}, 4);
    CHECK(tsi_take_datagram(world.tsi, 7000, TSI_SENDTO_DATA, (const uint8_t *)"lost", 4));
    world_ask_address(TSI_SENDTO_ADDRESS, 7000, &address, sizeof(address));
    CHECK(tsi_take_datagram(world.tsi, 7000, TSI_SENDTO_DATA, (const uint8_t *)"found", 5));
    CHECK_INT(received(server, bytes, sizeof(bytes), &sender, &sender_length), 5);
    close(server);
    world_end();
}

/* The kernel keeps those away that come after the connect, but not what already waits. */
TEST(a_socket_with_a_peer_hears_nobody_else)
{
    char bytes[16];
    struct sockaddr_storage own;
    socklen_t own_length;
    struct tsi_options options = {.hijacks_inet = true, .assigned_ip = "127.0.0.77"};
    struct sockaddr_in address = world_in4("127.0.0.77", 0), other_address = world_in4("127.0.0.77", 0);
    CHECK_INT(world_begin(&options), 0);
    int peer = world_server(SOCK_DGRAM, (struct sockaddr *)&address, sizeof(address));
    int other = world_server(SOCK_DGRAM, (struct sockaddr *)&other_address, sizeof(other_address));
    struct sockaddr_in guest_address = world_in4("127.0.0.1", ntohs(address.sin_port));
    world_create(7000, AF_INET, SOCK_DGRAM);
    world_ask_address(TSI_SENDTO_ADDRESS, 7000, &guest_address, sizeof(guest_address));
    CHECK(tsi_take_datagram(world.tsi, 7000, TSI_SENDTO_DATA, (const uint8_t *)"question", 8));
    CHECK_INT(received(peer, bytes, sizeof(bytes), &own, &own_length), 8);
    CHECK_INT(sendto(other, "before", 6, 0, (struct sockaddr *)&own, own_length), 6);
    CHECK_INT(world_connect(7000, &guest_address, sizeof(guest_address)), 0);
    size_t before = world.sent;
    CHECK_INT(sendto(other, "since", 5, 0, (struct sockaddr *)&own, own_length), 5);
    CHECK_INT(sendto(peer, "hello", 5, 0, (struct sockaddr *)&own, own_length), 5);
    world_wait_sent(before + 1);
    world_turn();
    CHECK_INT(world.sent, before + 1);
    CHECK(world.datagrams[before].length == 5 && memcmp(world.datagrams[before].bytes, "hello", 5) == 0);
    close(other);
    close(peer);
    world_end();
}

TEST(a_guest_that_does_not_read_loses_datagrams)
{
    struct sockaddr_in address = world_in4("127.0.0.1", 0);
    CHECK_INT(world_begin(&inet), 0);
    int server = world_server(SOCK_DGRAM, (struct sockaddr *)&address, sizeof(address));
    world_create(7000, AF_INET, SOCK_DGRAM);
    CHECK_INT(world_connect(7000, &address, sizeof(address)), 0);
    CHECK_INT(world_getname(7000, TSI_STREAM_PORT, false, &name, &name_length), 0);
    world.is_full = true;
    for (int i = 0; i < 100; i++)
        CHECK_INT(sendto(server, "x", 1, 0, (struct sockaddr *)&name, name_length), 1);
    world_turn();
    world.is_full = false;
    size_t before = world.sent;
    CHECK_INT(sendto(server, "last", 4, 0, (struct sockaddr *)&name, name_length), 4);
    world_wait_sent(before + 1);
    world_turn();
    CHECK_INT(world.sent, before + 1);
    CHECK_INT(world.datagrams[before].length, 4);
    close(server);
    world_end();
}

/* ---- what may not be ---- */

TEST(families_are_allowed_one_by_one)
{
    struct sockaddr_in in4 = world_in4("127.0.0.1", 9);
    struct sockaddr_un path = world_path("/nowhere/socket");
    CHECK_INT(world_begin(&unix_only), 0);
    world_create(1, AF_INET, SOCK_STREAM);
    world_create(2, AF_INET6, SOCK_DGRAM);
    world_create(3, AF_UNIX, SOCK_STREAM);
    world_create(4, AF_UNIX, SOCK_SEQPACKET);
    CHECK_INT(world_connect(1, &in4, sizeof(in4)), -EAFNOSUPPORT);
    CHECK_INT(world_connect(2, &in4, sizeof(in4)), -EAFNOSUPPORT);
    CHECK_INT(world_connect(3, &path, sizeof(path)), -ENOENT);
    CHECK_INT(world_connect(4, &path, sizeof(path)), -ESOCKTNOSUPPORT);
    CHECK_INT(world_listen(1, 1, 5, &in4, sizeof(in4)), -EPERM);
    CHECK_INT(world_getname(1, TSI_STREAM_PORT, true, &name, &name_length), -EAFNOSUPPORT);
    world_ask_accept(1, 0);
    CHECK_INT(world_result(TSI_ACCEPT), -EAFNOSUPPORT);
    world_ask_address(TSI_SENDTO_ADDRESS, 2, &in4, sizeof(in4));
    CHECK(tsi_take_datagram(world.tsi, 2, TSI_SENDTO_DATA, (const uint8_t *)"x", 1));
    world_end();
    CHECK_INT(world_begin(&inet), 0);
    world_create(3, AF_UNIX, SOCK_STREAM);
    CHECK_INT(world_connect(3, &path, sizeof(path)), -EAFNOSUPPORT);
    world_create(4, AF_INET, SOCK_DGRAM);
    CHECK_INT(world_listen(4, 4, 5, &in4, sizeof(in4)), -EOPNOTSUPP);
    world_end();
}

TEST(names_that_only_the_guest_knows)
{
    struct sockaddr_un abstract = {.sun_family = AF_UNIX, .sun_path = "\0name"}, relative = world_path("socket");
    CHECK_INT(world_begin(&unix_only), 0);
    world_create(1, AF_UNIX, SOCK_STREAM);
    CHECK_INT(world_connect(1, &abstract, 7), -ECONNREFUSED);
    CHECK_INT(world_connect(1, &relative, sizeof(relative)), -ECONNREFUSED);
    CHECK_INT(world_connect(1, &relative, 2), -ECONNREFUSED);
    CHECK_INT(world_listen(1, 1, 5, &abstract, 7), -EPERM);
    CHECK_INT(world_listen(1, 1, 5, &relative, sizeof(relative)), -EPERM);
    CHECK_INT(world_listen(1, 1, 5, &relative, 2), -EPERM);
    world_end();
}

TEST(local_only_is_local)
{
    struct tsi_options options = {.hijacks_inet = true, .local_only = true};
    struct sockaddr_in far = world_in4("192.0.2.1", 9), near = world_in4("127.9.9.9", world_free_port());
    struct sockaddr_in6 mapped = world_in6("::ffff:192.0.2.1", 9), mapped_near = world_in6("::ffff:127.0.0.1", 1);
    CHECK_INT(world_begin(&options), 0);
    world_create(1, AF_INET, SOCK_STREAM);
    world_create(2, AF_INET6, SOCK_STREAM);
    world_create(3, AF_INET, SOCK_DGRAM);
    CHECK_INT(world_connect(1, &far, sizeof(far)), -EACCES);
    CHECK_INT(world_connect(2, &mapped, sizeof(mapped)), -EACCES);
    CHECK_INT(world_connect(3, &far, sizeof(far)), -EACCES);
    CHECK_INT(world_connect(1, &near, sizeof(near)), -ECONNREFUSED);
    CHECK_INT(world_connect(2, &mapped_near, sizeof(mapped_near)), -ECONNREFUSED);
    CHECK_INT(world_connect(3, &near, sizeof(near)), 0);
    world_end();
}

TEST(no_scope_is_nowhere)
{
    struct tsi_options options = {.hijacks_inet = true, .scope = TSI_SCOPE_NONE};
    struct sockaddr_in address = world_in4("127.0.0.1", 9), own = world_in4("127.0.0.1", world_free_port());
    CHECK_INT(world_begin(&options), 0);
    world_create(1, AF_INET, SOCK_STREAM);
    world_create(2, AF_INET, SOCK_DGRAM);
    CHECK_INT(world_connect(1, &address, sizeof(address)), -EACCES);
    CHECK_INT(world_connect(2, &address, sizeof(address)), -EACCES);
    CHECK_INT(world_listen(1, 1, 5, &own, sizeof(own)), -EPERM);
    world_end();
}

TEST(an_assigned_address_stands_for_the_loopback_one)
{
    struct tsi_options options = {.hijacks_inet = true, .local_only = true, .assigned_ip = "127.0.0.77"};
    struct sockaddr_in host = world_in4("127.0.0.77", 0);
    CHECK_INT(world_begin(&options), 0);
    int server = world_server(SOCK_STREAM, (struct sockaddr *)&host, sizeof(host));
    int datagrams = world_server(SOCK_DGRAM, (struct sockaddr *)&host, sizeof(host));
    CHECK(server >= 0 && datagrams >= 0);
    struct sockaddr_in guest = world_in4("127.0.0.1", ntohs(host.sin_port));
    struct sockaddr_in6 mapped = world_in6("::ffff:127.0.0.1", ntohs(host.sin_port));
    world_create(1, AF_INET, SOCK_STREAM);
    CHECK_INT(world_connect(1, &guest, sizeof(guest)), 0);
    CHECK_INT(world_getname(1, TSI_STREAM_PORT, true, &name, &name_length), 0);
    CHECK(is_name(&guest, sizeof(guest)));
    world_create(2, AF_INET6, SOCK_STREAM);
    CHECK_INT(world_connect(2, &mapped, sizeof(mapped)), 0);
    world_create(3, AF_INET, SOCK_DGRAM);
    world_ask_address(TSI_SENDTO_ADDRESS, 3, &guest, sizeof(guest));
    CHECK(tsi_take_datagram(world.tsi, 3, TSI_SENDTO_DATA, (const uint8_t *)"hello", 5));
    char bytes[8];
    struct sockaddr_storage sender;
    socklen_t sender_length;
    CHECK_INT(received(datagrams, bytes, sizeof(bytes), &sender, &sender_length), 5);
    close(server);
    close(datagrams);
    world_end();
}

TEST(options_must_make_sense)
{
    struct tsi_options options = {.hijacks_inet = true, .assigned_ip = "localhost"};
    CHECK_INT(world_begin(&options), -EINVAL);
    world_end();
    options = (struct tsi_options){.scope = TSI_SCOPE_GROUP};
    CHECK_INT(world_begin(&options), -EINVAL);
    world_end();
    options = (struct tsi_options){.scope = TSI_SCOPE_GROUP, .group_ip = "10.1.2.3", .group_prefix = 33};
    CHECK_INT(world_begin(&options), -EINVAL);
    world_end();
    options = (struct tsi_options){.scope = (enum tsi_scope)9};
    CHECK_INT(world_begin(&options), -EINVAL);
    world_end();
    options = (struct tsi_options){.port_count = 100000};
    CHECK_INT(world_begin(&options), -E2BIG);
    world_end();
}

TEST(every_allocation_may_fail)
{
    struct tsi_port ports[] = {{8080, 80}};
    struct tsi_options options = {.hijacks_inet = true, .ports = ports, .port_count = 1};
    struct sockaddr_in address = world_in4("127.0.0.1", 0);
    int server = world_server(SOCK_STREAM, (struct sockaddr *)&address, sizeof(address));
    FOR_EACH_FAULT
    {
        int result = world_begin(&options);
        if (result == 0) {
            world_create(1, AF_INET, SOCK_STREAM);
            world_create(2, AF_INET, SOCK_DGRAM);
            int stream = world_connect(1, &address, sizeof(address));
            int datagram = world_connect(2, &address, sizeof(address));
            CHECK(stream == 0 || fault_was_hit());
            CHECK(datagram == 0 || fault_was_hit());
            CHECK(stream == 0 || stream == -ENOMEM || stream == -ENOBUFS);
            CHECK(datagram == 0 || datagram == -ENOMEM || datagram == -ENOBUFS);
        } else {
            CHECK(fault_was_hit());
            CHECK_INT(result, -ENOMEM);
        }
        world_end();
    }
    close(server);
}
