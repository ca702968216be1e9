// SPDX-License-Identifier: Apache-2.0
/* Packets as they stand in the queues (virtio 1.2, 5.10.6). Little-endian, as we are. */
#ifndef DEVICE_VSOCK_PACKET_H
#define DEVICE_VSOCK_PACKET_H

#include <assert.h>
#include <stdint.h>

#define PACKET_HOST_CID UINT64_C(2)
#define PACKET_GUEST_CID UINT64_C(3)

enum packet_type {
    PACKET_STREAM = 1,
    PACKET_DATAGRAM = 3, /* not of the standard: as kernels with TSI have it */
};

enum packet_operation {
    PACKET_REQUEST = 1,
    PACKET_RESPONSE = 2,
    PACKET_RST = 3,
    PACKET_SHUTDOWN = 4,
    PACKET_RW = 5,
    PACKET_CREDIT_UPDATE = 6,
    PACKET_CREDIT_REQUEST = 7,
};

/* Flags of SHUTDOWN: what its sender will not do any more. */
enum { PACKET_RECEIVES_NO_MORE = 1, PACKET_SENDS_NO_MORE = 2 };

struct packet_header {
    uint64_t source_cid, target_cid;
    uint32_t source_port, target_port;
    uint32_t length; /* of the bytes behind it */
    uint16_t type, operation;
    uint32_t flags;
    uint32_t buffer_bytes, forwarded; /* the sender's credit: buf_alloc and fwd_cnt */
} __attribute__((packed));

static_assert(sizeof(struct packet_header) == 44, "as the standard has it");

#endif
