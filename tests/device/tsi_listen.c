// SPDX-License-Identifier: Apache-2.0
/* TSI: listeners of a guest, and clients of the test that connect to them. */
#include "tsi_world.h"

#include "base/fd.h"
#include "base/limits.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LISTENER = 7000, VM_PORT = 7001, NONBLOCK = TSI_FLAG_NONBLOCK };

static const struct tsi_options inet = {.hijacks_inet = true};
static const struct tsi_options unix_only = {.hijacks_unix = true};
static struct sockaddr_storage name;
static socklen_t name_length;

static int client_of(const void *address, socklen_t length)
{
    const struct sockaddr *any = address;
    int fd = socket(any->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(fd, any, length) == 0 ? fd : fd_close(fd);
}

/* A listener of the guest's on a port that is free: its address as clients see it. */
static struct sockaddr_in listen_anywhere(const char *ip, uint32_t backlog, int *ret_result)
{
    struct sockaddr_in address = world_in4(ip, world_free_port());
    world_create(LISTENER, AF_INET, SOCK_STREAM);
    *ret_result = world_listen(LISTENER, VM_PORT, backlog, &address, sizeof(address));
    return address;
}

static bool is_published(uint16_t port)
{
    struct sockaddr_in address = world_in4("127.0.0.1", port);
    int fd = client_of(&address, sizeof(address));
    fd_close(fd);
    return fd >= 0;
}

static int accept_now(void)
{
    world_ask_accept(LISTENER, NONBLOCK);
    return world_result(TSI_ACCEPT);
}

TEST(a_connection_comes_in)
{
    int result;
    CHECK_INT(world_begin(&inet), 0);
    struct sockaddr_in address = listen_anywhere("127.0.0.1", 5, &result);
    CHECK_INT(result, 0);
    CHECK_INT(accept_now(), -EWOULDBLOCK);
    int client = client_of(&address, sizeof(address));
    world_wait_offered(1);
    struct world_offer *offer = &world.offers[0];
    CHECK_INT(offer->guest_port, VM_PORT);
    CHECK(offer->host_port != TSI_STREAM_PORT && offer->host_port >= 1u << 30);
    CHECK(world_is_connected(client, offer->fd));
    CHECK_INT(accept_now(), 0);
    CHECK_INT(accept_now(), -EWOULDBLOCK);
    struct sockaddr_storage peer = {0};
    socklen_t length = sizeof(peer);
    getsockname(client, (struct sockaddr *)&peer, &length);
    CHECK_INT(world_getname(VM_PORT, offer->host_port, true, &name, &name_length), 0);
    CHECK(name_length == length && memcmp(&name, &peer, length) == 0);
    CHECK_INT(world_getname(VM_PORT, offer->host_port, false, &name, &name_length), 0);
    CHECK(name_length == sizeof(address) && memcmp(&name, &address, sizeof(address)) == 0);
    CHECK_INT(world_getname(LISTENER, TSI_STREAM_PORT, true, &name, &name_length), -ENOTCONN);
    world_release(VM_PORT, offer->host_port);
    CHECK_INT(world_getname(VM_PORT, offer->host_port, true, &name, &name_length), -ENOBUFS);
    world_release(LISTENER, TSI_STREAM_PORT);
    CHECK(!is_published(ntohs(address.sin_port)));
    close(client);
    world_end();
}

TEST(a_connection_comes_in_by_ipv6)
{
    struct sockaddr_in6 address = world_in6("::1", world_free_port());
    CHECK_INT(world_begin(&inet), 0);
    world_create(LISTENER, AF_INET6, SOCK_STREAM);
    CHECK_INT(world_listen(LISTENER, VM_PORT, 5, &address, sizeof(address)), 0);
    int client = client_of(&address, sizeof(address));
    world_wait_offered(1);
    CHECK_INT(accept_now(), 0);
    CHECK_INT(world_getname(VM_PORT, world.offers[0].host_port, true, &name, &name_length), 0);
    CHECK_INT(name_length, sizeof(struct sockaddr_in6));
    CHECK_INT(name.ss_family, AF_INET6);
    close(client);
    world_end();
}

TEST(a_guest_that_waits_is_answered_after_the_offer)
{
    int result;
    CHECK_INT(world_begin(&inet), 0);
    struct sockaddr_in address = listen_anywhere("0.0.0.0", 5, &result);
    world_ask_accept(LISTENER, 0);
    world_ask_accept(LISTENER, 0); /* a signal came in between */
    world_turn();
    CHECK_INT(world_result(TSI_ACCEPT), WORLD_NOTHING);
    int client = client_of(&address, sizeof(address)), other = client_of(&address, sizeof(address));
    world_wait_offered(2);
    CHECK_INT(world.offers[0].datagrams_before, 1); /* LISTEN's */
    CHECK_INT(world.sent, 2);
    CHECK_INT(world_result(TSI_ACCEPT), 0);
    CHECK_INT(world_result(TSI_ACCEPT), WORLD_NOTHING);
    CHECK_INT(accept_now(), 0);
    /* Waiting is over with a request that does not wait. */
    world_ask_accept(LISTENER, 0);
    CHECK_INT(accept_now(), -EWOULDBLOCK);
    int third = client_of(&address, sizeof(address));
    world_wait_offered(3);
    CHECK_INT(world_result(TSI_ACCEPT), WORLD_NOTHING);
    close(client);
    close(other);
    close(third);
    world_end();
}

TEST(no_more_are_offered_than_the_guest_holds)
{
    int clients[8], result;
    CHECK_INT(world_begin(&inet), 0);
    struct sockaddr_in address = listen_anywhere("127.0.0.1", 3, &result);
    for (int i = 0; i < 4; i++)
        clients[i] = client_of(&address, sizeof(address));
    world_turn();
    CHECK_INT(world.offered, 3);
    CHECK_INT(accept_now(), 0);
    world_wait_offered(4);
    world_turn();
    CHECK_INT(world.offered, 4);
    /* What the guest refuses makes room, too. */
    clients[4] = client_of(&address, sizeof(address));
    world_turn();
    CHECK_INT(world.offered, 4);
    tsi_stream_refused(world.tsi, VM_PORT, world.offers[2].host_port);
    world_wait_offered(5);
    CHECK_INT(accept_now(), 0);
    CHECK_INT(accept_now(), 0);
    CHECK_INT(accept_now(), 0);
    CHECK_INT(accept_now(), -EWOULDBLOCK);
    for (int i = 0; i < 5; i++)
        close(clients[i]);
    world_end();
}

TEST(the_backlog_is_clamped_and_may_change)
{
    static int clients[LIMIT_TSI_PENDING + 4];
    int result;
    CHECK_INT(world_begin(&inet), 0);
    struct sockaddr_in address = listen_anywhere("127.0.0.1", UINT32_MAX, &result);
    CHECK_INT(result, 0);
    for (size_t i = 0; i < LIMIT_TSI_PENDING + 4; i++) {
        clients[i] = client_of(&address, sizeof(address));
        CHECK(clients[i] >= 0);
        world_turn();
    }
    CHECK_INT(world.offered, LIMIT_TSI_PENDING);
    CHECK_INT(world_listen(LISTENER, VM_PORT, 1, &address, sizeof(address)), 0);
    CHECK_INT(accept_now(), 0);
    world_turn();
    CHECK_INT(world.offered, LIMIT_TSI_PENDING);
    CHECK_INT(world_listen(LISTENER, VM_PORT, 500, &address, sizeof(address)), 0);
    world_turn();
    CHECK_INT(world.offered, LIMIT_TSI_PENDING + 1);
    for (size_t i = 0; i < LIMIT_TSI_PENDING + 4; i++)
        close(clients[i]);
    world_end();
}

TEST(a_refused_offer_leaves_nothing)
{
    int result;
    CHECK_INT(world_begin(&inet), 0);
    struct sockaddr_in address = listen_anywhere("127.0.0.1", 5, &result);
    world.offer_result = -EMFILE;
    int client = client_of(&address, sizeof(address));
    char byte;
    world_turn();
    CHECK(recv(client, &byte, 1, 0) <= 0);
    CHECK_INT(accept_now(), -EWOULDBLOCK);
    world.offer_result = 0;
    close(client);
    client = client_of(&address, sizeof(address));
    world_wait_offered(1);
    CHECK_INT(accept_now(), 0);
    close(client);
    world_end();
}

TEST(a_listener_takes_what_was_not_accepted_with_it)
{
    int result;
    CHECK_INT(world_begin(&inet), 0);
    struct sockaddr_in address = listen_anywhere("127.0.0.1", 5, &result);
    int client = client_of(&address, sizeof(address)), other = client_of(&address, sizeof(address));
    world_wait_offered(2);
    CHECK_INT(accept_now(), 0);
    world_release(VM_PORT, world.offers[1].host_port); /* not the guest's yet */
    CHECK_INT(world_getname(VM_PORT, world.offers[1].host_port, true, &name, &name_length), 0);
    world_release(LISTENER, TSI_STREAM_PORT);
    CHECK_INT(world_getname(VM_PORT, world.offers[0].host_port, true, &name, &name_length), 0);
    CHECK_INT(world_getname(VM_PORT, world.offers[1].host_port, true, &name, &name_length), -ENOBUFS);
    close(client);
    close(other);
    world_end();
}

/* ---- what is published ---- */

TEST(a_map_publishes_what_it_names)
{
    struct tsi_port map = {.host = world_free_port(), .guest = 80};
    struct tsi_options options = {.hijacks_inet = true, .has_port_map = true, .ports = &map, .port_count = 1};
    struct sockaddr_in mapped = world_in4("127.0.0.1", 80), other = world_in4("127.0.0.1", world_free_port());
    struct sockaddr_in same = world_in4("127.0.0.1", map.host);
    CHECK_INT(world_begin(&options), 0);
    world_create(1, AF_INET, SOCK_STREAM);
    CHECK_INT(world_listen(1, 1, 5, &other, sizeof(other)), -EPERM);
    CHECK_INT(world_listen(1, 1, 5, &same, sizeof(same)), -EPERM);
    CHECK(!is_published(ntohs(other.sin_port)));
    CHECK_INT(world_listen(1, VM_PORT, 5, &mapped, sizeof(mapped)), 0);
    CHECK(is_published(map.host));
    world_wait_offered(1);
    CHECK_INT(world_getname(VM_PORT, world.offers[0].host_port, false, &name, &name_length), 0);
    CHECK(memcmp(&name, &mapped, sizeof(mapped)) == 0); /* the port that the guest knows */
    world_end();
}

TEST(an_empty_map_publishes_nothing)
{
    struct tsi_options options = {.hijacks_inet = true, .has_port_map = true};
    struct sockaddr_in address = world_in4("127.0.0.1", world_free_port());
    CHECK_INT(world_begin(&options), 0);
    world_create(1, AF_INET, SOCK_STREAM);
    CHECK_INT(world_listen(1, 1, 5, &address, sizeof(address)), -EPERM);
    CHECK(!is_published(ntohs(address.sin_port)));
    world_end();
}

TEST(errors_of_the_host_arrive)
{
    struct sockaddr_in address = world_in4("127.0.0.1", 0), far = world_in4("192.0.2.1", 9);
    CHECK_INT(world_begin(&inet), 0);
    world_create(1, AF_INET, SOCK_STREAM);
    CHECK_INT(world_listen(1, 1, 5, &address, sizeof(address)), -EPERM); /* a port that nobody could name */
    int server = world_server(SOCK_STREAM, (struct sockaddr *)&address, sizeof(address));
    CHECK_INT(world_listen(1, 1, 5, &address, sizeof(address)), -EADDRINUSE);
    CHECK_INT(world_listen(1, 1, 5, &far, sizeof(far)), -EADDRNOTAVAIL);
    close(server);
    CHECK_INT(world_listen(1, 1, 5, &address, sizeof(address)), 0); /* the same socket */
    CHECK_INT(world_connect(1, &address, sizeof(address)), -EINVAL);
    world_create(2, AF_INET, SOCK_STREAM);
    CHECK_INT(world_listen(2, 2, 5, &address, sizeof(address)), -EADDRINUSE);
    CHECK_INT(world_connect(2, &address, sizeof(address)), 0);
    CHECK_INT(world_listen(2, 2, 5, &address, sizeof(address)), -EINVAL);
    world_ask_accept(2, 0);
    CHECK_INT(world_result(TSI_ACCEPT), -EINVAL);
    world_end();
}

TEST(an_assigned_address_is_listened_on)
{
    struct tsi_options options = {.hijacks_inet = true, .assigned_ip = "127.0.0.77"};
    int result;
    CHECK_INT(world_begin(&options), 0);
    struct sockaddr_in guest = listen_anywhere("127.0.0.1", 5, &result), host = guest;
    CHECK_INT(result, 0);
    CHECK(!is_published(ntohs(guest.sin_port)));
    host.sin_addr = world_in4("127.0.0.77", 0).sin_addr;
    int client = client_of(&host, sizeof(host));
    CHECK(client >= 0);
    world_wait_offered(1);
    CHECK_INT(accept_now(), 0);
    CHECK_INT(world_getname(VM_PORT, world.offers[0].host_port, false, &name, &name_length), 0);
    CHECK(memcmp(&name, &guest, sizeof(guest)) == 0);
    close(client);
    world_end();
}

/* ---- nodes ---- */

static struct sockaddr_un node_address(const char *file)
{
    char path[200];
    snprintf(path, sizeof(path), "%s/%s", test_folder(), file);
    return world_path(path);
}

static int listen_at(const struct sockaddr_un *address)
{
    world_create(LISTENER, AF_UNIX, SOCK_STREAM);
    return world_listen(LISTENER, VM_PORT, 5, address, sizeof(*address));
}

TEST(a_node_is_made_and_removed)
{
    struct sockaddr_un address = node_address("socket");
    struct stat node;
    CHECK_INT(world_begin(&unix_only), 0);
    CHECK_INT(listen_at(&address), 0);
    CHECK(lstat(address.sun_path, &node) == 0 && S_ISSOCK(node.st_mode));
    int client = client_of(&address, sizeof(address));
    world_wait_offered(1);
    CHECK(world_is_connected(client, world.offers[0].fd));
    CHECK_INT(accept_now(), 0);
    CHECK_INT(world_getname(VM_PORT, world.offers[0].host_port, true, &name, &name_length), 0);
    CHECK_INT(name_length, 2); /* who has no name */
    world_release(LISTENER, TSI_STREAM_PORT);
    CHECK(lstat(address.sun_path, &node) < 0);
    CHECK_INT(listen_at(&address), 0);
    close(client);
    world_end();
    CHECK(lstat(address.sun_path, &node) < 0);
}

TEST(nothing_is_replaced)
{
    struct sockaddr_un file = node_address("file"), link = node_address("link"), dangling = node_address("dangling");
    struct sockaddr_un missing = node_address("missing/socket");
    struct stat node;
    test_text_file("file", "kept");
    CHECK_INT(symlink("file", link.sun_path), 0);
    CHECK_INT(symlink("nowhere", dangling.sun_path), 0);
    CHECK_INT(world_begin(&unix_only), 0);
    CHECK_INT(listen_at(&file), -EADDRINUSE);
    CHECK_INT(listen_at(&link), -EADDRINUSE);
    CHECK_INT(listen_at(&dangling), -EADDRINUSE);
    CHECK_INT(listen_at(&missing), -EPERM); /* the guest has it by itself */
    world_end();
    CHECK(lstat(file.sun_path, &node) == 0 && S_ISREG(node.st_mode) && node.st_size == 4);
    CHECK(lstat(link.sun_path, &node) == 0 && S_ISLNK(node.st_mode));
    CHECK(lstat(dangling.sun_path, &node) == 0 && S_ISLNK(node.st_mode));
}

TEST(what_is_not_ours_stays)
{
    struct sockaddr_un address = node_address("socket");
    struct stat node;
    CHECK_INT(world_begin(&unix_only), 0);
    CHECK_INT(listen_at(&address), 0);
    CHECK_INT(unlink(address.sun_path), 0);
    test_text_file("socket", "somebody's");
    world_release(LISTENER, TSI_STREAM_PORT);
    CHECK(lstat(address.sun_path, &node) == 0 && S_ISREG(node.st_mode));
    CHECK_INT(unlink(address.sun_path), 0);
    CHECK_INT(listen_at(&address), 0);
    CHECK_INT(unlink(address.sun_path), 0);
    world_end(); /* removed by somebody, and fine */
}

/* ---- limits ---- */

TEST(a_host_without_descriptors_is_asked_again)
{
    int result, client;
    struct rlimit before, none;
    CHECK_INT(world_begin(&inet), 0);
    struct sockaddr_in address = listen_anywhere("127.0.0.1", 5, &result);
    client = client_of(&address, sizeof(address));
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = (rlim_t)client + 1;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &none), 0);
    world_turn();
    size_t offered = world.offered;
    setrlimit(RLIMIT_NOFILE, &before);
    CHECK_INT(offered, 0);
    world_wait_offered(1); /* by the timer */
    /* A socket that is released is a reason to try at once. */
    close(client);
    client = client_of(&address, sizeof(address));
    none.rlim_cur = (rlim_t)world.offers[0].fd + 1;
    if (none.rlim_cur < (rlim_t)client + 1)
        none.rlim_cur = (rlim_t)client + 1;
    world_create(1, AF_INET, SOCK_STREAM);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &none), 0);
    world_turn();
    setrlimit(RLIMIT_NOFILE, &before);
    world_release(1, TSI_STREAM_PORT);
    world_wait_offered(2);
    close(client);
    world_end();
}

TEST(a_full_table_lets_connections_wait)
{
    int result;
    CHECK_INT(world_begin(&inet), 0);
    struct sockaddr_in address = listen_anywhere("127.0.0.1", 5, &result);
    for (uint32_t i = 1; i < LIMIT_TSI_SOCKETS; i++)
        world_create(100000 + i, AF_INET, SOCK_STREAM);
    world_create(1, AF_INET, SOCK_STREAM);
    CHECK_INT(world_connect(1, &address, sizeof(address)), -ENOBUFS);
    int client = client_of(&address, sizeof(address));
    world_turn();
    CHECK_INT(world.offered, 0);
    world_release(100001, TSI_STREAM_PORT);
    world_wait_offered(1);
    close(client);
    world_end();
}

TEST(every_allocation_may_fail)
{
    struct tsi_port map = {.host = world_free_port(), .guest = 80};
    struct tsi_options options = {.hijacks_inet = true, .has_port_map = true, .ports = &map, .port_count = 1};
    struct sockaddr_in guest = world_in4("127.0.0.1", 80), host = world_in4("127.0.0.1", map.host);
    FOR_EACH_FAULT
    {
        int result = world_begin(&options), client = -1;
        CHECK(result == 0 || (result == -ENOMEM && fault_was_hit()));
        if (result == 0) {
            world_create(LISTENER, AF_INET, SOCK_STREAM);
            result = world_listen(LISTENER, VM_PORT, 5, &guest, sizeof(guest));
            CHECK(result == 0 || (fault_was_hit() && (result == -ENOMEM || result == -ENOBUFS)));
        }
        if (result == 0) {
            client = client_of(&host, sizeof(host));
            world_turn();
            result = accept_now();
            CHECK(result == 0 || fault_was_hit());
        }
        fd_close(client);
        world_end();
    }
}
