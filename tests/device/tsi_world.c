// SPDX-License-Identifier: Apache-2.0
/* A guest's kernel that speaks TSI, against the real thing; the vsock device between them is a list.
 *
 * Everything is on one thread. Whatever reaches the device stops the loop, so a wait ends with what it waits for.
 *
 * Invariants: (1) descriptors that were offered and not taken are closed at the end.
 *
 * Trust: the caller.
 */
#include "tsi_world.h"

#include "base/fd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <unistd.h>

struct vsock world;

int vsock_connect_guest(struct vsock *vsock, int fd, uint32_t host_port, uint32_t guest_port)
{
    loop_stop(vsock->loop);
    if (vsock->offer_result < 0 || vsock->offered == WORLD_OFFERS) {
        close(fd);
        return vsock->offer_result < 0 ? vsock->offer_result : -EMFILE;
    }
    vsock->offers[vsock->offered++] = (struct world_offer){fd, host_port, guest_port, vsock->sent};
    return 0;
}

bool vsock_send_datagram(struct vsock *vsock, uint32_t host_port, uint32_t guest_port, const void *bytes, size_t length)
{
    struct world_datagram *datagram = &vsock->datagrams[vsock->sent];
    loop_stop(vsock->loop);
    if (vsock->is_full || vsock->sent == WORLD_DATAGRAMS)
        return false;
    *datagram = (struct world_datagram){.host_port = host_port, .guest_port = guest_port, .length = length};
    if (length > 0)
        memcpy(datagram->bytes, bytes, length < sizeof(datagram->bytes) ? length : sizeof(datagram->bytes));
    vsock->sent++;
    return true;
}

int world_begin(const struct tsi_options *options)
{
    memset(&world, 0, sizeof(world));
    int result = loop_new(&world.loop);
    if (result == 0)
        result = tsi_new(&world, options, &world.tsi);
    if (result == 0)
        tsi_start(world.tsi, world.loop);
    return result;
}

void world_end(void)
{
    world.tsi = tsi_free(world.tsi);
    world.loop = loop_free(world.loop);
    for (size_t i = 0; i < world.offered; i++)
        fd_close(world.offers[i].fd);
    world.offered = 0;
}

void world_wait_sent(size_t count)
{
    while (world.sent < count)
        loop_run(world.loop);
}

void world_wait_offered(size_t count)
{
    while (world.offered < count)
        loop_run(world.loop);
}

/* A turn may do nothing but take a stop, and one socket may want several. */
void world_turn(void)
{
    for (int i = 0; i < 10; i++)
        loop_turn(world.loop);
}

/* ---- requests ---- */

/* At the end of its memory, so that a read past the message is seen. */
void world_send(uint32_t kind, const void *bytes, size_t length)
{
    static uint8_t room[4096];
    uint8_t *copy = room + sizeof(room) - length;
    if (length > 0)
        memcpy(copy, bytes, length);
    tsi_take_datagram(world.tsi, WORLD_CONTROL, kind, copy, length);
}

void world_create(uint32_t port, int family, int type)
{
    struct __attribute__((packed)) {
        uint32_t port;
        uint16_t family, type;
    } request = {port, (uint16_t)family, (uint16_t)type};
    world_send(TSI_CREATE, &request, sizeof(request));
}

void world_release(uint32_t port, uint32_t peer_port)
{
    uint32_t request[] = {port, peer_port};
    world_send(TSI_RELEASE, request, sizeof(request));
}

void world_ask_address(uint32_t kind, uint32_t port, const void *address, size_t length)
{
    uint8_t request[8 + TSI_ADDRESS_BYTES] = {0};
    uint32_t address_length = (uint32_t)length;
    memcpy(request, &port, 4);
    memcpy(request + 4, &address_length, 4);
    memcpy(request + 8, address, length);
    world_send(kind, request, sizeof(request));
}

void world_ask_accept(uint32_t port, uint32_t flags)
{
    uint32_t request[] = {port, flags};
    world_send(TSI_ACCEPT, request, sizeof(request));
}

int world_result(uint32_t kind)
{
    int32_t result;
    const struct world_datagram *answer = &world.datagrams[world.read];
    if (world.read == world.sent || answer->host_port != kind || answer->guest_port != WORLD_CONTROL)
        return WORLD_NOTHING;
    world.read++;
    memcpy(&result, answer->bytes, sizeof(result));
    return result;
}

int world_connect(uint32_t port, const void *address, size_t length)
{
    world_ask_address(TSI_CONNECT, port, address, length);
    world_wait_sent(world.read + 1);
    return world_result(TSI_CONNECT);
}

int world_listen(uint32_t port, uint32_t vm_port, uint32_t backlog, const void *address, size_t length)
{
    uint8_t request[16 + TSI_ADDRESS_BYTES] = {0};
    uint32_t numbers[] = {port, vm_port, backlog, (uint32_t)length};
    memcpy(request, numbers, sizeof(numbers));
    memcpy(request + 16, address, length);
    world_send(TSI_LISTEN, request, sizeof(request));
    return world_result(TSI_LISTEN);
}

int world_getname(uint32_t port, uint32_t peer_port, bool peer, struct sockaddr_storage *ret_address,
                  socklen_t *ret_length)
{
    uint32_t request[] = {port, peer_port, peer};
    world_send(TSI_GETNAME, request, sizeof(request));
    const struct world_datagram *answer = &world.datagrams[world.read];
    int result = world_result(TSI_GETNAME);
    if (result == WORLD_NOTHING || answer->length != TSI_NAME_BYTES)
        return WORLD_NOTHING;
    memcpy(ret_length, answer->bytes + 4, sizeof(*ret_length));
    memcpy(ret_address, answer->bytes + 8, TSI_ADDRESS_BYTES);
    return result;
}

/* ---- addresses and sockets ---- */

struct sockaddr_in world_in4(const char *ip, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, ip, &address.sin_addr) != 1)
        abort();
    return address;
}

struct sockaddr_in6 world_in6(const char *ip, uint16_t port)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (inet_pton(AF_INET6, ip, &address.sin6_addr) != 1)
        abort();
    return address;
}

struct sockaddr_un world_path(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        abort();
    memcpy(address.sun_path, path, strlen(path) + 1);
    return address;
}

int world_server(int type, struct sockaddr *address, socklen_t length)
{
    int fd = socket(address->sa_family, type | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, address, length) < 0 || (type == SOCK_STREAM && listen(fd, 16) < 0) ||
        getsockname(fd, address, &length) < 0)
        return fd_close(fd);
    return fd;
}

uint16_t world_port(int fd)
{
    struct sockaddr_in6 address = {0};
    socklen_t length = sizeof(address);
    getsockname(fd, (struct sockaddr *)&address, &length);
    return ntohs(address.sin6_port); /* where IPv4 has it, too */
}

uint16_t world_free_port(void)
{
    struct sockaddr_in address = world_in4("127.0.0.1", 0);
    int fd = world_server(SOCK_DGRAM, (struct sockaddr *)&address, sizeof(address));
    fd_close(fd);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_port = 0;
    uint16_t port = bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ? world_port(fd) : 0;
    fd_close(fd);
    return port;
}

bool world_is_connected(int one, int other)
{
    char byte = 0;
    return send(one, "x", 1, MSG_NOSIGNAL) == 1 && recv(other, &byte, 1, 0) == 1 && byte == 'x' &&
           send(other, "y", 1, MSG_NOSIGNAL) == 1 && (fd_is_readable(one)) && recv(one, &byte, 1, 0) == 1 &&
           byte == 'y';
}
