// SPDX-License-Identifier: Apache-2.0
/* TSI: a guest that does not follow the protocol. */
#include "tsi_world.h"

#include "base/fd.h"
#include "base/limits.h"

#include <dirent.h>
#include <errno.h>
#include <unistd.h>

static const struct tsi_options inet = {.hijacks_inet = true};
static const struct tsi_options local = {
    .hijacks_inet = true, .hijacks_unix = true, .local_only = true, .has_port_map = true};

static size_t open_descriptors(void)
{
    size_t count = 0;
    DIR *list = opendir("/proc/self/fd");
    while (list != NULL && readdir(list) != NULL)
        count++;
    closedir(list);
    return count;
}

static int client_of(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ? fd : fd_close(fd);
}

TEST(what_is_waited_for_is_answered)
{
    struct sockaddr_storage name;
    socklen_t length;
    struct sockaddr_in address = world_in4("127.0.0.1", 9);
    CHECK_INT(world_begin(&inet), 0);
    CHECK_INT(world_connect(1, &address, sizeof(address)), -ENOBUFS);
    CHECK_INT(world_listen(1, 1, 5, &address, sizeof(address)), -ENOBUFS);
    CHECK_INT(world_getname(1, 2, true, &name, &length), -ENOBUFS);
    world_ask_accept(1, 0);
    CHECK_INT(world_result(TSI_ACCEPT), -ENOBUFS);
    world_release(1, TSI_STREAM_PORT);
    world_release(1, 99);
    world_ask_address(TSI_SENDTO_ADDRESS, 1, &address, sizeof(address));
    tsi_stream_refused(world.tsi, 1, 2);
    CHECK_INT(world.sent, world.read);
    world_end();
}

TEST(wrong_lengths)
{
    uint8_t bytes[2 * TSI_NAME_BYTES] = {1};
    struct sockaddr_in address = world_in4("127.0.0.1", world_free_port());
    CHECK_INT(world_begin(&inet), 0);
    world_create(1, AF_INET, SOCK_STREAM);
    for (uint32_t kind = TSI_FIRST_KIND; kind <= TSI_LAST_KIND; kind++) {
        bool is_answered = kind == TSI_CONNECT || kind == TSI_GETNAME || kind == TSI_LISTEN || kind == TSI_ACCEPT;
        for (size_t length = 0; length < 8; length++) {
            world_send(kind, bytes, length);
            CHECK_INT(world_result(kind), is_answered ? -EINVAL : WORLD_NOTHING);
        }
    }
    /* Lengths of an address: none, too short, too long, beyond the message, beyond everything. */
    for (size_t length = 0; length <= TSI_ADDRESS_BYTES; length++)
        if (length != sizeof(address))
            CHECK_INT(world_connect(1, &address, length < sizeof(address) ? length : sizeof(address)),
                      length < 2                 ? -EINVAL
                      : length < sizeof(address) ? -EINVAL
                                                 : -ECONNREFUSED);
    memcpy(bytes + 8, &address, sizeof(address));
    for (size_t i = 0; i < 4; i++) {
        uint32_t lengths[] = {17, TSI_ADDRESS_BYTES + 1, UINT32_MAX, 0x80000010};
        memcpy(bytes + 4, &lengths[i], 4);
        world_send(TSI_CONNECT, bytes, 8 + sizeof(address));
        CHECK_INT(world_result(TSI_CONNECT), -EINVAL);
        memcpy(bytes + 12, &lengths[i], 4);
        world_send(TSI_LISTEN, bytes, 16 + sizeof(address));
        CHECK_INT(world_result(TSI_LISTEN), -EINVAL);
    }
    /* A message that ends with its address, and a longer one than we know. */
    uint32_t numbers[] = {1, sizeof(address)};
    memcpy(bytes, numbers, sizeof(numbers));
    memcpy(bytes + 8, &address, sizeof(address));
    world_send(TSI_CONNECT, bytes, 8 + sizeof(address));
    world_wait_sent(world.read + 1);
    CHECK_INT(world_result(TSI_CONNECT), -ECONNREFUSED);
    world_send(TSI_CONNECT, bytes, sizeof(bytes));
    world_wait_sent(world.read + 1);
    CHECK_INT(world_result(TSI_CONNECT), -ECONNREFUSED);
    world_end();
}

TEST(families_must_match)
{
    struct sockaddr_in in4 = world_in4("127.0.0.1", 9);
    struct sockaddr_in6 in6 = world_in6("::1", 9);
    struct sockaddr_un path = world_path("/nowhere");
    CHECK_INT(world_begin(&local), 0);
    world_create(1, AF_INET, SOCK_STREAM);
    CHECK_INT(world_connect(1, &in6, sizeof(in6)), -EAFNOSUPPORT);
    CHECK_INT(world_connect(1, &path, sizeof(path)), -EAFNOSUPPORT);
    in4.sin_family = AF_UNSPEC;
    CHECK_INT(world_connect(1, &in4, sizeof(in4)), -EAFNOSUPPORT);
    world_create(2, AF_UNIX, SOCK_STREAM);
    CHECK_INT(world_connect(2, &in6, sizeof(in6)), -EAFNOSUPPORT);
    CHECK_INT(world_listen(2, 2, 1, &in6, sizeof(in6)), -EAFNOSUPPORT);
    world_create(3, AF_NETLINK, SOCK_DGRAM);
    CHECK_INT(world_connect(3, &in6, sizeof(in6)), -EAFNOSUPPORT);
    world_end();
}

/* A newer kernel says which protocol; ping is none of ours. */
TEST(protocols)
{
    struct __attribute__((packed)) {
        uint32_t port;
        uint16_t family, type, protocol;
    } request = {1, AF_INET, SOCK_DGRAM, IPPROTO_ICMP};
    struct sockaddr_in address = world_in4("127.0.0.1", 9);
    CHECK_INT(world_begin(&inet), 0);
    world_send(TSI_CREATE, &request, sizeof(request));
    CHECK_INT(world_connect(1, &address, sizeof(address)), -EPROTONOSUPPORT);
    request.protocol = IPPROTO_UDP;
    world_send(TSI_CREATE, &request, sizeof(request));
    CHECK_INT(world_connect(1, &address, sizeof(address)), 0);
    world_end();
}

TEST(a_port_that_is_used_again_is_a_new_socket)
{
    struct sockaddr_in address = world_in4("127.0.0.1", world_free_port());
    CHECK_INT(world_begin(&inet), 0);
    size_t before = open_descriptors();
    for (int i = 0; i < 50; i++) {
        world_create(1, AF_INET, SOCK_STREAM);
        CHECK_INT(world_listen(1, 1, 5, &address, sizeof(address)), 0);
        int client = client_of(&address);
        world_wait_offered((size_t)i + 1);
        close(client);
    }
    CHECK(open_descriptors() <= before + 1 + 50 + 1); /* the streams are the device's; a timer */
    world_create(1, AF_INET, SOCK_DGRAM);
    CHECK_INT(world_connect(1, &address, sizeof(address)), 0);
    world_create(1, AF_INET, SOCK_STREAM);
    CHECK_INT(world_connect(1, &address, sizeof(address)), -ECONNREFUSED);
    world_end();
}

TEST(floods_cost_no_descriptors)
{
    struct sockaddr_in address = world_in4("127.0.0.1", 9);
    CHECK_INT(world_begin(&inet), 0);
    size_t before = open_descriptors();
    for (uint32_t port = 0; port < 20000; port++)
        world_create(port, port % 3 == 0 ? AF_INET6 : AF_INET, port % 2 == 0 ? SOCK_STREAM : SOCK_DGRAM);
    CHECK_INT(open_descriptors(), before);
    CHECK_INT(world_connect(19999, &address, sizeof(address)), -ENOBUFS);
    CHECK_INT(world_connect(1, &address, sizeof(address)), 0);
    CHECK_INT(open_descriptors(), before + 1);
    world_end();
}

TEST(a_reset_closes_everything)
{
    int result = 0;
    struct sockaddr_in address = world_in4("127.0.0.1", world_free_port());
    CHECK_INT(world_begin(&inet), 0);
    size_t before = open_descriptors();
    world_create(1, AF_INET, SOCK_STREAM);
    CHECK_INT(world_listen(1, 1, 5, &address, sizeof(address)), 0);
    world_create(2, AF_INET, SOCK_STREAM);
    CHECK_INT(world_connect(2, &address, sizeof(address)), 0);
    world_create(3, AF_INET, SOCK_DGRAM);
    CHECK_INT(world_connect(3, &address, sizeof(address)), 0);
    world_create(4, AF_INET, SOCK_STREAM);
    world_ask_address(TSI_CONNECT, 4, &address, sizeof(address)); /* which is not waited for */
    world_wait_offered(1);
    size_t sent = world.sent;
    tsi_stop(world.tsi);
    CHECK_INT(world.sent, sent);
    CHECK(open_descriptors() <= before + 1 + world.offered); /* a timer's, the loop keeps it */
    CHECK(!tsi_take_datagram(world.tsi, 1, TSI_CREATE, (const uint8_t *)"", 0));
    CHECK_INT(tsi_take_stream(world.tsi, 2, TSI_STREAM_PORT), -ECONNREFUSED);
    tsi_stop(world.tsi);
    tsi_start(world.tsi, world.loop);
    world_turn();
    world.read = world.sent;
    CHECK_INT(world_connect(2, &address, sizeof(address)), -ENOBUFS);
    world_create(1, AF_INET, SOCK_STREAM);
    result = world_listen(1, 1, 5, &address, sizeof(address));
    CHECK_INT(result, 0);
    world_end();
}

/* Every request about every socket in every state, with numbers from a generator that repeats. */
static uint32_t random_state;

static uint32_t random_below(uint32_t limit)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % limit;
}

static void random_request(const struct sockaddr_in *server, const struct sockaddr_un *path)
{
    uint32_t port = 1 + random_below(6);
    struct sockaddr_in6 in6 = world_in6("::1", ntohs(server->sin_port));
    struct sockaddr_storage addresses[3] = {0}; /* with room behind them */
    static const int families[] = {AF_INET, AF_INET6, AF_UNIX};
    static const size_t lengths[] = {sizeof(struct sockaddr_in), sizeof(in6), sizeof(*path)};
    uint32_t which = random_below(3), kind = TSI_FIRST_KIND + random_below(8);
    uint8_t noise[64];
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (uint8_t)random_below(256);
    memcpy(&addresses[0], server, sizeof(*server));
    memcpy(&addresses[1], &in6, sizeof(in6));
    memcpy(&addresses[2], path, sizeof(*path));
    switch (kind) {
    case TSI_CREATE:
        world_create(port, families[which], 1 + (int)random_below(2));
        break;
    case TSI_RELEASE:
        world_release(port, random_below(2) == 0 ? TSI_STREAM_PORT : (1u << 30) + random_below(50));
        break;
    case TSI_LISTEN:
        world_listen(port, 1 + random_below(6), random_below(4), &addresses[which], lengths[which]);
        break;
    case TSI_ACCEPT:
        world_ask_accept(port, random_below(2) * TSI_FLAG_NONBLOCK);
        break;
    case TSI_GETNAME:
        world_send(kind, (uint32_t[]){port, random_below(2) ? TSI_STREAM_PORT : 1u << 30, random_below(2)}, 12);
        break;
    case TSI_SENDTO_DATA:
        tsi_take_datagram(world.tsi, port, random_below(2) ? kind : port, noise, random_below(sizeof(noise)));
        break;
    default:
        world_ask_address(kind, port, &addresses[which], random_below(8) == 0 ? random_below(128) : lengths[which]);
        break;
    }
    if (random_below(8) == 0)
        world_send(TSI_FIRST_KIND + random_below(8), noise, random_below(sizeof(noise)));
}

TEST(any_order_of_requests)
{
    struct tsi_port map = {.host = world_free_port(), .guest = 0};
    struct tsi_options options = local;
    char text[200];
    snprintf(text, sizeof(text), "%s/socket", test_folder());
    struct sockaddr_un path = world_path(text);
    struct sockaddr_in server = world_in4("127.0.0.1", map.host);
    map.guest = map.host;
    options.ports = &map;
    options.port_count = 1;
    for (random_state = 1; random_state <= 20;) {
        uint32_t seed = random_state;
        CHECK_INT(world_begin(&options), 0);
        for (int i = 0; i < 2000; i++) {
            random_request(&server, &path);
            if (random_below(4) == 0)
                world_turn();
            if (random_below(16) == 0)
                fd_close(tsi_take_stream(world.tsi, 1 + random_below(6), TSI_STREAM_PORT));
            if (random_below(16) == 0)
                tsi_stream_refused(world.tsi, 1 + random_below(6), (1u << 30) + random_below(50));
            if (random_below(200) == 0) {
                tsi_stop(world.tsi);
                tsi_start(world.tsi, world.loop);
            }
            world.sent = world.read = 0;
            world.is_full = random_below(10) == 0;
            while (world.offered > 0)
                fd_close(world.offers[--world.offered].fd);
        }
        world_end();
        random_state = seed + 1;
    }
    CHECK(access(text, F_OK) < 0);
}
