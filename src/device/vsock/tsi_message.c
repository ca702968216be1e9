// SPDX-License-Identifier: Apache-2.0
/* The control messages of TSI: packed little-endian numbers, some with a socket address behind them.
 *
 * One row of a table says where a kind has which number. An address has a length in front of it and 128 bytes of room,
 * of which only the length counts, so a message that ends with its address is as good as a full one.
 *
 * Invariants: (1) no byte beyond the message is read. (2) a decoded address lies whole in the message and is at most
 * TSI_ADDRESS_BYTES long; with a bad message there is none. (3) every byte of an answer is written.
 *
 * Trust: messages are the guest's. What their numbers mean is checked by whoever acts on them.
 */
#include "device/vsock/tsi_message.h"

#include "base/alloc.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

struct field {
    uint8_t offset, width;
    uint8_t member; /* where in struct tsi_request */
};

#define FIELD(at, bytes, name) ((struct field){(at), (bytes), offsetof(struct tsi_request, name)})

/* A field of no width ends the list. Those behind `least_bytes` may be missing. */
struct layout {
    size_t least_bytes;
    size_t address_at; /* 0: none */
    bool wants_reply;
    struct field fields[5];
};

static const struct layout layouts[TSI_LAST_KIND - TSI_FIRST_KIND + 1] = {
    [TSI_CREATE - TSI_FIRST_KIND] = {.least_bytes = 8,
                                     .fields = {FIELD(0, 4, guest_port), FIELD(4, 2, family), FIELD(6, 2, type),
                                                FIELD(8, 2, protocol)}},
    [TSI_CONNECT - TSI_FIRST_KIND] = {.least_bytes = 8,
                                      .address_at = 8,
                                      .wants_reply = true,
                                      .fields = {FIELD(0, 4, guest_port), FIELD(4, 4, address_length)}},
    [TSI_GETNAME - TSI_FIRST_KIND] = {.least_bytes = 12,
                                      .wants_reply = true,
                                      .fields = {FIELD(0, 4, guest_port), FIELD(4, 4, peer_port),
                                                 FIELD(8, 4, wants_peer)}},
    [TSI_SENDTO_ADDRESS - TSI_FIRST_KIND] = {.least_bytes = 8,
                                             .address_at = 8,
                                             .fields = {FIELD(0, 4, guest_port), FIELD(4, 4, address_length)}},
    [TSI_SENDTO_DATA - TSI_FIRST_KIND] = {.least_bytes = 0},
    [TSI_LISTEN - TSI_FIRST_KIND] = {.least_bytes = 16,
                                     .address_at = 16,
                                     .wants_reply = true,
                                     .fields = {FIELD(0, 4, guest_port), FIELD(4, 4, vm_port), FIELD(8, 4, backlog),
                                                FIELD(12, 4, address_length)}},
    [TSI_ACCEPT - TSI_FIRST_KIND] = {.least_bytes = 8,
                                     .wants_reply = true,
                                     .fields = {FIELD(0, 4, guest_port), FIELD(4, 4, flags)}},
    [TSI_RELEASE - TSI_FIRST_KIND] = {.least_bytes = 8, .fields = {FIELD(0, 4, guest_port), FIELD(4, 4, peer_port)}},
};

bool tsi_kind_is_known(uint32_t host_port)
{
    return host_port >= TSI_FIRST_KIND && host_port <= TSI_LAST_KIND;
}

bool tsi_kind_wants_reply(enum tsi_kind kind)
{
    return layouts[kind - TSI_FIRST_KIND].wants_reply;
}

static uint32_t read_number(const uint8_t *bytes, size_t width)
{
    uint32_t value = 0;
    memcpy(&value, bytes, width);
    return le32toh(value);
}

int tsi_request_decode(enum tsi_kind kind, const uint8_t *bytes, size_t length, struct tsi_request *ret_request)
{
    const struct layout *layout = &layouts[kind - TSI_FIRST_KIND];
    *ret_request = (struct tsi_request){.kind = kind};
    for (size_t i = 0; i < array_length(layout->fields) && layout->fields[i].width > 0; i++) {
        const struct field *field = &layout->fields[i];
        if ((size_t)field->offset + field->width > length)
            break;
        uint32_t value = read_number(bytes + field->offset, field->width);
        memcpy((uint8_t *)ret_request + field->member, &value, sizeof(value));
    }
    bool is_short = length < layout->least_bytes;
    if (!is_short && layout->address_at > 0) {
        size_t room = length - layout->address_at;
        is_short = ret_request->address_length > (room < TSI_ADDRESS_BYTES ? room : TSI_ADDRESS_BYTES);
        ret_request->address = bytes + layout->address_at;
    }
    if (is_short) {
        ret_request->address_length = 0;
        ret_request->address = NULL;
    }
    return is_short ? -EINVAL : 0;
}

void tsi_result_encode(int32_t result, uint8_t ret_bytes[TSI_RESULT_BYTES])
{
    uint32_t value = htole32((uint32_t)result);
    memcpy(ret_bytes, &value, sizeof(value));
}

void tsi_name_encode(int32_t result, const void *address, size_t length, uint8_t ret_bytes[TSI_NAME_BYTES])
{
    uint32_t value = htole32((uint32_t)length);
    memset(ret_bytes, 0, TSI_NAME_BYTES);
    tsi_result_encode(result, ret_bytes);
    memcpy(ret_bytes + 4, &value, sizeof(value));
    if (length > 0)
        memcpy(ret_bytes + 8, address, length);
}
