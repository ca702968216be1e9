// SPDX-License-Identifier: Apache-2.0
/* Any packet as an answer of a DHCP server; and any bytes as the options of one that is right otherwise.
 *
 * What must hold: an answer that is believed names an address that a host can have, a prefix that such an address can
 * have and no more name servers than there is room for; nothing is written otherwise; a packet that is believed stays
 * so with anything behind it, and for no other transaction.
 */
#include "fuzz.h"

#include "proto/dhcp.h"

#include <errno.h>
#include <stdbool.h>

enum { transaction = 0x01020304, options_at = 20 + 8 + 240, most_bytes = 1500 };

static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};

static void check_answer(const struct dhcp_answer *answer)
{
    bool is_lease = answer->kind == DHCP_OFFER || answer->kind == DHCP_ACK;
    FUZZ_CHECK(is_lease || answer->kind == DHCP_NAK);
    FUZZ_CHECK(answer->prefix >= 1 && answer->prefix <= 32 && answer->nameserver_count <= DHCP_MOST_NAMESERVERS);
    if (is_lease)
        FUZZ_CHECK(answer->address[0] != 0 && answer->address[0] != 127 && answer->address[0] < 224);
    if (answer->has_gateway)
        FUZZ_CHECK((answer->gateway[0] | answer->gateway[1] | answer->gateway[2] | answer->gateway[3]) != 0);
}

/* In memory of exactly its size. */
static int decode(const uint8_t *data, size_t size, uint32_t for_transaction, struct dhcp_answer *answer)
{
    uint8_t *packet = malloc(size + (size == 0));
    if (packet == NULL)
        abort();
    if (size > 0)
        memcpy(packet, data, size);
    memset(answer, 0x5a, sizeof(*answer));
    int result = dhcp_decode(packet, size, for_transaction, mac, answer);
    free(packet);
    if (result == 0)
        check_answer(answer);
    else
        FUZZ_CHECK(result == -EPROTO && answer->kind == 0x5a);
    return result;
}

static void check_packet(const uint8_t *data, size_t size)
{
    uint8_t longer[most_bytes + 1] = {0};
    struct dhcp_answer answer, again;
    if (decode(data, size, transaction, &answer) < 0)
        return;
    FUZZ_CHECK(decode(data, size, transaction + 1, &again) == -EPROTO);
    if (size > most_bytes)
        return;
    memcpy(longer, data, size);
    longer[size] = 0xff;
    FUZZ_CHECK(decode(longer, size + 1, transaction, &again) == 0);
    FUZZ_CHECK(memcmp(&again.lease_s, &answer.lease_s, sizeof(answer.lease_s)) == 0 && again.kind == answer.kind);
}

/* The options, in a packet that is an answer: they are what is left to be wrong. */
static void check_options(const uint8_t *options, size_t length)
{
    static const uint8_t magic[] = {99, 130, 83, 99};
    uint8_t packet[most_bytes] = {0x45};
    length = length > most_bytes - options_at ? most_bytes - options_at : length;
    size_t size = options_at + length;
    packet[2] = (uint8_t)(size >> 8);
    packet[3] = (uint8_t)size;
    packet[9] = 17;
    packet[21] = 67;
    packet[23] = 68;
    packet[24] = (uint8_t)((size - 20) >> 8);
    packet[25] = (uint8_t)(size - 20);
    packet[28] = 2;
    memcpy(packet + 32, (const uint8_t[]){1, 2, 3, 4}, 4);
    memcpy(packet + 44, (const uint8_t[]){10, 0, 2, 15}, 4);
    memcpy(packet + 56, mac, sizeof(mac));
    memcpy(packet + options_at - sizeof(magic), magic, sizeof(magic));
    if (length > 0)
        memcpy(packet + options_at, options, length);
    check_packet(packet, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_packet(data, size);
    check_options(data, size);
    return 0;
}
