// SPDX-License-Identifier: Apache-2.0
/* The control messages of TSI as values, and back. */
#ifndef DEVICE_VSOCK_TSI_MESSAGE_H
#define DEVICE_VSOCK_TSI_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a datagram asks for is the port that it is sent to. */
enum tsi_kind {
    TSI_CREATE = 1024,
    TSI_CONNECT = 1025,
    TSI_GETNAME = 1026,
    TSI_SENDTO_ADDRESS = 1027,
    TSI_SENDTO_DATA = 1028,
    TSI_LISTEN = 1029,
    TSI_ACCEPT = 1030,
    TSI_RELEASE = 1031,
};

enum {
    TSI_FIRST_KIND = TSI_CREATE,
    TSI_LAST_KIND = TSI_RELEASE,
    TSI_ADDRESS_BYTES = 128,
    TSI_RESULT_BYTES = 4,
    TSI_NAME_BYTES = 8 + TSI_ADDRESS_BYTES,
    TSI_FLAG_NONBLOCK = 04000, /* O_NONBLOCK of the guest's Linux, in an ACCEPT */
};

/* Members that a kind does not have are 0. */
struct tsi_request {
    enum tsi_kind kind;
    uint32_t guest_port; /* the socket's; of SENDTO_DATA it is the datagram's own source */
    uint32_t family, type, protocol;
    uint32_t peer_port;  /* GETNAME, RELEASE: TSI_STREAM_PORT, or that of an accepted stream */
    uint32_t wants_peer; /* GETNAME: the other end's name */
    uint32_t vm_port;    /* LISTEN: where accepted streams go to */
    uint32_t backlog, flags;
    uint32_t address_length;
    const uint8_t *address; /* borrowed from the message; all of address_length is there */
};

bool tsi_kind_is_known(uint32_t host_port);

/* Whether the guest waits for an answer. */
bool tsi_kind_wants_reply(enum tsi_kind kind);

/* `kind` is known. -EINVAL for a message that is too short for it or for its address; then *ret_request has what there
 * was. What is longer than we know comes from a newer kernel, and its rest is passed over. */
int tsi_request_decode(enum tsi_kind kind, const uint8_t *bytes, size_t length, struct tsi_request *ret_request);

void tsi_result_encode(int32_t result, uint8_t ret_bytes[TSI_RESULT_BYTES]);

/* The answer to GETNAME; `length` is at most TSI_ADDRESS_BYTES, and 0 with an error. */
void tsi_name_encode(int32_t result, const void *address, size_t length, uint8_t ret_bytes[TSI_NAME_BYTES]);

#endif
