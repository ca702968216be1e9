// SPDX-License-Identifier: Apache-2.0
/* The host's side of a stream: a connected socket, or functions of the embedding program. Nothing here waits. */
#ifndef DEVICE_VSOCK_PEER_H
#define DEVICE_VSOCK_PEER_H

#include "base/loop.h"
#include "vial/backend.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct peer {
    int fd;                           /* owned; -1 when it is closed. The socket, or what to wait for */
    struct loop_source *source;       /* owned; NULL when it is not watched */
    bool wants_output;                /* waits for room, too */
    const struct vial_vsock_ops *ops; /* borrowed; NULL for a socket */
    void *ops_user, *ops_stream;      /* borrowed; ours to close */
    uint8_t *copy;                    /* borrowed: PEER_COPY_BYTES for what functions read and write */
};

enum { PEER_COPY_BYTES = 64 << 10 };

#define PEER_NONE ((struct peer){.fd = -1})

/* Connects to a Unix socket: 0, or -errno for one that is not there, does not listen, or is full. */
int peer_connect(const char *path, struct peer *ret_peer);

/* A socket that is connected: owned from here on. */
struct peer peer_of_socket(int fd);

/* Asks the functions for a stream. */
int peer_connect_custom(const struct vial_vsock_ops *ops, void *user, uint32_t guest_port, uint8_t *copy,
                        struct peer *ret_peer);

/* Harmless for one that is closed. */
void peer_close(struct peer *peer);
bool peer_is_open(const struct peer *peer);

/* Has the function called each time that something becomes ready: readable, or with peer_want_output writable. What
 * was ready and not used up is not told again. */
int peer_watch(struct peer *peer, struct loop *loop, loop_function function, void *user);
void peer_want_output(struct peer *peer, bool wants);

/* The functions have said -EAGAIN where a socket would have told us more: has what is ready told again. */
void peer_look_again(struct peer *peer);

/* What the events of the loop say: whether nobody will read any more what is written. */
bool peer_has_hung_up(const struct peer *peer, uint32_t events);

/* As many bytes as can be moved at once: more than 0, 0 at the end (of read only), -EAGAIN, or -errno. */
ssize_t peer_read(struct peer *peer, struct iovec *spans, size_t count);
ssize_t peer_write(struct peer *peer, struct iovec *spans, size_t count);

/* Nothing more will be written, or read. */
void peer_end_output(struct peer *peer);
void peer_end_input(struct peer *peer);

#endif
