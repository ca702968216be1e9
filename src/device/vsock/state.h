// SPDX-License-Identifier: Apache-2.0
/* What the files of the virtio socket device share. All of it is touched on the device's thread only. */
#ifndef DEVICE_VSOCK_STATE_H
#define DEVICE_VSOCK_STATE_H

#include "base/limits.h"
#include "device/vsock/packet.h"
#include "device/vsock/private.h"
#include "device/vsock/table.h"
#include "device/vsock/vsock.h"

#include <sys/types.h>

enum { QUEUE_RECEIVE = 0, QUEUE_TRANSMIT = 1, QUEUE_EVENT = 2, QUEUE_COUNT = 3, QUEUE_ENTRIES = 256 };

/* Spans of one system call. Linux's packets have 18 at most; what lies behind the last one moves in the next call. */
enum { VSOCK_MOST_SPANS = 64 };

struct route { /* where a port of the host's leads */
    uint32_t port;
    char *path;                       /* owned; NULL for functions */
    const struct vial_vsock_ops *ops; /* borrowed */
    void *user;                       /* borrowed */
};

struct listener {
    struct vsock *vsock; /* borrowed: whose it is */
    uint32_t port;       /* of the guest's */
    char *path;          /* owned */
    int fd;              /* owned */
    struct loop_source *source;
    dev_t device; /* the file that we made */
    ino_t inode;
    bool is_made;
};

struct refusal { /* an RST that belongs to no stream */
    uint32_t guest_port, host_port;
    uint16_t type;
};

struct datagram {
    struct datagram *next; /* owned */
    uint32_t guest_port, host_port;
    size_t length;
    uint8_t bytes[];
};

struct vsock {
    struct virtio_device *device; /* borrowed: it owns us */
    struct tsi *tsi;              /* owned, or NULL */
    struct route *routes;         /* owned array */
    size_t route_count;
    struct listener *listeners; /* owned array */
    size_t listener_count;
    bool are_listeners_on;
    struct loop_source *shortage_timer; /* owned: looks again when the host had no descriptor left */
    bool is_short;                      /* it had none */
    uint64_t shortages;

    struct table table;             /* of streams by ports */
    struct connection *connections; /* owned: all of them, by next */
    size_t connection_count, unanswered_count;
    uint64_t granted_bytes; /* the sum of all credit */
    struct connection *ready_first,
        *ready_last; /* those that have something for the guest, in the order of their turn */
    uint32_t next_host_port;

    struct refusal refusals[LIMIT_VSOCK_RESETS]; /* a ring */
    size_t refusal_first, refusal_count;
    bool is_transmit_held;           /* until there is room in it */
    struct datagram *datagram_first; /* owned list, */
    struct datagram *datagram_last;  /* and its end */
    size_t datagram_bytes;
    bool has_datagrams;        /* negotiated */
    bool is_datagrams_turn;    /* before a stream's */
    bool owes_transport_reset; /* there were streams when the driver was reset */

    uint8_t *copy; /* owned: PEER_COPY_BYTES for programs' functions and datagrams; NULL where there are none */
    struct iovec spans[VSOCK_MOST_SPANS]; /* of the packet in hand */
};

/* Puts that part of the spans into vsock->spans, as far as there is room: how many spans. */
size_t vsock_slice(struct vsock *vsock, const struct iovec *spans, size_t count, size_t offset, size_t length);

/* ---- listener.c ---- */

int listener_open(struct listener *listener, struct vsock *vsock, const struct vsock_port *port);
void listener_close(struct listener *listener);

/* Has all of them accept, or wait: after anything that decides it has changed. */
void listeners_update(struct vsock *vsock);

/* The host has no descriptor left, or no memory: they wait for a while. */
void listeners_rest(struct vsock *vsock, int failure);
void listeners_handle_timer(void *user, uint32_t what);

/* ---- receive.c ---- */

/* Hands what there is to the guest, as long as it has buffers. May free any stream. */
void receive_pump(struct vsock *vsock);

/* Owes the guest an RST for what belongs to no stream. There is room: receive_has_room. */
void receive_refuse(struct vsock *vsock, uint32_t guest_port, uint32_t host_port, uint16_t type);
bool receive_has_room(const struct vsock *vsock);
void receive_clear(struct vsock *vsock);

/* ---- transmit.c ---- */

/* Takes the guest's packets. */
void transmit_serve(struct vsock *vsock);

#endif
