// SPDX-License-Identifier: Apache-2.0
/* A guest's side of virtio sockets for tests: packets as a test wants them, and a well-behaved stream on top.
 *
 * The device has no thread; every call turns it until what was sent has been served.
 */
#ifndef VSOCK_DRIVER_H
#define VSOCK_DRIVER_H

#include "test.h"

#include "device/vsock/packet.h"
#include "device/vsock/vsock.h"
#include "virtio_driver.h"

enum { VSOCK_RECEIVE, VSOCK_TRANSMIT, VSOCK_EVENT, VSOCK_QUEUES = 7, VSOCK_ENTRIES = 64 };
enum { VSOCK_RECEIVE_BYTES = 8192, VSOCK_PACKET_BYTES = 64 << 10 };

extern struct virtio_driver driver;

/* Makes the device and has the driver start it with receive buffers, as many as it is told. */
void vsock_begin(const struct vsock_options *options, uint64_t features, unsigned receive_buffers);
void vsock_restart(uint64_t features, unsigned receive_buffers);
void vsock_end(void);
void vsock_turn(void);

/* A header of a stream's packet from the guest, with a credit that is never used up. */
struct packet_header vsock_header(enum packet_operation operation, uint32_t guest_port, uint32_t host_port);

/* Sends it with these bytes behind it, of which there are `length` in the chain whatever the header says; whether the
 * device has taken it. */
bool vsock_send_raw(const struct packet_header *header, const void *bytes, size_t length);
bool vsock_say(enum packet_operation operation, uint32_t guest_port, uint32_t host_port);
bool vsock_say_bytes(uint32_t guest_port, uint32_t host_port, const void *bytes, size_t length);
bool vsock_say_shutdown(uint32_t guest_port, uint32_t host_port, uint32_t flags);

/* The next packet of the device's: its buffer is offered again. `bytes` has room for VSOCK_RECEIVE_BYTES. */
bool vsock_hear(struct packet_header *ret_header, uint8_t *bytes);

/* The same as "OPERATION guest-port<host-port flags length", or "none". */
const char *vsock_hear_text(void);

/* A stream of a guest that keeps the rules. */
struct guest_stream {
    uint32_t guest_port, host_port;
    uint32_t room;            /* of its buffer, */
    uint32_t received, taken; /* what came, and what of it the program took */
    uint32_t sent, host_room, host_taken;
    bool is_open, is_refused, has_ended; /* RESPONSE or REQUEST, RST, SHUTDOWN with SEND */
    uint64_t bad_bytes;
};

/* The n-th byte of a stream in either direction. */
static inline uint8_t vsock_pattern(uint32_t port, uint64_t at)
{
    return (uint8_t)((at * 2654435761u + port) >> 11);
}

/* As many bytes as the credit and the ring allow, at most `most`: how many. */
size_t guest_send(struct guest_stream *stream, size_t most);

/* Hands a packet to it. */
void guest_take(struct guest_stream *stream, const struct packet_header *header, const uint8_t *bytes);

/* Everything that the device has said, to whom of these it belongs. */
void guest_hear_all(struct guest_stream *streams, size_t count);

/* The program in the guest takes what has come, and the host learns of the room. */
void guest_read(struct guest_stream *stream, uint32_t most);

/* A Unix socket that listens below the test's folder, and the next connection to it (-1 for none). */
int host_listen(const char *path, int backlog);
int host_accept(int listener);
int host_connect(const char *path);
const char *host_path(const char *name);

#endif
