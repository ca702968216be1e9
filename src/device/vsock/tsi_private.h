// SPDX-License-Identifier: Apache-2.0
/* What the files of TSI know of each other: tsi.c has the sockets, the others what can be done with one. */
#ifndef DEVICE_VSOCK_TSI_PRIVATE_H
#define DEVICE_VSOCK_TSI_PRIVATE_H

#include "base/loop.h"
#include "device/vsock/tsi_address.h"
#include "device/vsock/tsi_message.h"

#include <sys/types.h>

struct vsock;

enum tsi_state {
    TSI_BARRED,     /* of a family or type that it may not have: every request fails with `failure` */
    TSI_IDLE,       /* nothing yet, not even a descriptor */
    TSI_CONNECTING, /* the host is at it, the guest waits */
    TSI_CONNECTED,  /* until the guest asks for the stream */
    TSI_LISTENING,
    TSI_PENDING, /* accepted from the host, its stream offered; the guest has not accepted it */
    TSI_TAKEN,   /* the device has the descriptor; only the names are left */
    TSI_OPEN,    /* a datagram socket */
    TSI_STATES
};

struct tsi_socket {
    struct tsi *tsi; /* borrowed: it owns us */
    uint32_t guest_port, host_port;
    int family;
    bool is_datagram;
    enum tsi_state state;
    int failure;
    int fd;                     /* owned; -1 when there is none, or when the device has it */
    struct loop_source *source; /* owned */
    uint32_t reply_port;        /* TSI_CONNECTING, and a listener that waits */
    /* As the guest shall know them; `peer` of a datagram socket is whom it is connected to. */
    struct tsi_address local, peer;
    struct tsi_address destination; /* of the next SENDTO_DATA, as the host knows it */

    /* TSI_LISTENING */
    uint32_t vm_port;
    size_t pending_count, most_pending;
    struct tsi_socket *first_pending, *last_pending; /* borrowed, in the order of their coming */
    bool waits;                                      /* the guest, for the next connection */
    bool is_watched;                                 /* for connections that come */
    bool is_resting;                                 /* there was no room for one more */
    bool owns_node;                                  /* AF_UNIX: the node at `local` was made by our bind */
    dev_t node_device;
    ino_t node_inode;

    /* TSI_PENDING */
    struct tsi_socket *listener, *next_pending; /* borrowed */

    struct tsi_socket *next; /* owned: in its bucket */
};

enum { TSI_BUCKETS = 256 };

struct tsi {
    struct vsock *vsock; /* borrowed */
    struct loop *loop;   /* borrowed; NULL while stopped */
    bool hijacks_inet, hijacks_unix, has_port_map;
    struct tsi_policy policy;
    struct tsi_port *ports; /* owned */
    size_t port_count;
    struct tsi_socket *buckets[TSI_BUCKETS]; /* owned */
    size_t socket_count;
    uint32_t next_port;             /* the host's, of the next accepted stream */
    size_t resting_count;           /* listeners */
    struct loop_source *rest_timer; /* owned; NULL until there is a listener */
    uint8_t *datagram;              /* owned: LIMIT_TSI_DATAGRAM_BYTES; NULL until there is a datagram socket */
};

/* ---- tsi.c ---- */

struct tsi_socket *tsi_find(struct tsi *tsi, uint32_t guest_port, uint32_t host_port);

/* -ENOBUFS at the limit. A socket of the same name must not be there. */
int tsi_add(struct tsi *tsi, uint32_t guest_port, uint32_t host_port, struct tsi_socket **ret_socket);

/* Closes and frees it; a listener with all that it has not handed over. tsi_remove also uses the room that is free now.
 */
void tsi_drop(struct tsi_socket *socket);
void tsi_remove(struct tsi_socket *socket);

void tsi_become(struct tsi_socket *socket, enum tsi_state state);

/* Makes the host's socket: 0 or -errno. */
int tsi_open(struct tsi_socket *socket);
void tsi_close(struct tsi_socket *socket);

/* Where a request leads, in both sides' terms: 0 or -errno. */
int tsi_resolve(const struct tsi_socket *socket, const struct tsi_request *request, struct tsi_address *ret_guest,
                struct tsi_address *ret_host);

void tsi_answer(struct tsi *tsi, enum tsi_kind kind, uint32_t reply_port, int result);

/* A name that the host gave, as the guest shall know it. What has another family than the socket is none. */
void tsi_note_name(const struct tsi_socket *socket, struct tsi_address *name);

/* The name that the descriptor has on our side. */
void tsi_note_local(struct tsi_socket *socket, int fd);

/* ---- tsi_stream.c ---- */

void tsi_stream_connect(struct tsi_socket *socket, const struct tsi_request *request, uint32_t reply_port);
int tsi_stream_take(struct tsi_socket *socket);

/* ---- tsi_listen.c ---- */

void tsi_listen(struct tsi_socket *socket, const struct tsi_request *request, uint32_t reply_port);
void tsi_accept(struct tsi_socket *socket, const struct tsi_request *request, uint32_t reply_port);

/* Before a socket is closed: what it has to do with listening. */
void tsi_listen_leave(struct tsi_socket *socket);

/* There may be room for a connection more. */
void tsi_listen_resume(struct tsi *tsi);

/* ---- tsi_datagram.c ---- */

void tsi_datagram_connect(struct tsi_socket *socket, const struct tsi_request *request, uint32_t reply_port);
void tsi_datagram_aim(struct tsi_socket *socket, const struct tsi_request *request);

/* To where the last SENDTO_ADDRESS said, or to whom the socket is connected. */
void tsi_datagram_send(struct tsi_socket *socket, const uint8_t *bytes, size_t length, bool to_destination);

#endif
