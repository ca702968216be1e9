// SPDX-License-Identifier: Apache-2.0
/* A guest's kernel that speaks TSI, and a vsock device that only notes what it is given. */
#ifndef TSI_WORLD_H
#define TSI_WORLD_H

#include "test.h"

#include "base/loop.h"
#include "device/vsock/private.h"
#include "device/vsock/tsi.h"
#include "device/vsock/tsi_message.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

enum {
    WORLD_CONTROL = 5000, /* the guest's port that answers come back to */
    WORLD_DATAGRAMS = 512,
    WORLD_OFFERS = 256,
    WORLD_NOTHING = 4711, /* no answer came */
};

struct world_datagram {
    uint32_t host_port, guest_port;
    size_t length;
    uint8_t bytes[2048]; /* its beginning */
};

struct world_offer {
    int fd; /* owned until a test takes it */
    uint32_t host_port, guest_port;
    size_t datagrams_before;
};

struct vsock {
    struct loop *loop; /* owned */
    struct tsi *tsi;   /* owned */
    struct world_datagram datagrams[WORLD_DATAGRAMS];
    size_t sent, read; /* datagrams to the guest */
    struct world_offer offers[WORLD_OFFERS];
    size_t offered;
    bool is_full;     /* datagrams are dropped */
    int offer_result; /* of vsock_connect_guest */
};

extern struct vsock world;

/* 0 or what tsi_new said; the world is there in both cases. */
int world_begin(const struct tsi_options *options);
void world_end(void);

/* Runs the loop until so many datagrams have been sent, or streams offered, since the beginning. */
void world_wait_sent(size_t count);
void world_wait_offered(size_t count);

/* Whatever is ready now is done. */
void world_turn(void);

/* Requests as the guest's kernel makes them. */
void world_send(uint32_t kind, const void *bytes, size_t length);
void world_create(uint32_t port, int family, int type);
void world_release(uint32_t port, uint32_t peer_port);
void world_ask_address(uint32_t kind, uint32_t port, const void *address, size_t length);
void world_ask_accept(uint32_t port, uint32_t flags);

/* The next answer, if it is one to this kind: its result. */
int world_result(uint32_t kind);

/* The whole of it: asks and waits. */
int world_connect(uint32_t port, const void *address, size_t length);
int world_listen(uint32_t port, uint32_t vm_port, uint32_t backlog, const void *address, size_t length);
int world_getname(uint32_t port, uint32_t peer_port, bool peer, struct sockaddr_storage *ret_address,
                  socklen_t *ret_length);

/* Addresses. */
struct sockaddr_in world_in4(const char *ip, uint16_t port);
struct sockaddr_in6 world_in6(const char *ip, uint16_t port);
struct sockaddr_un world_path(const char *path);

/* A socket of the host that listens, or is bound, at the address; port 0 becomes one that is free. */
int world_server(int type, struct sockaddr *address, socklen_t length);
uint16_t world_port(int fd);

/* A port that nobody has just now. */
uint16_t world_free_port(void);

/* Whether both ends of a stream are connected with each other. */
bool world_is_connected(int one, int other);

#endif
