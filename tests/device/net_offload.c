// SPDX-License-Identifier: Apache-2.0
/* Checksums and segments that a guest leaves to the device, computed again here, the slow way. */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "device/net/offload.h"
#include "net_driver.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { fin = 1, psh = 8, ack = 16, cwr = 0x80 };

static struct net_offload offload;
static uint8_t segment[NET_DRIVER_LONGEST];

struct shape {
    bool is_ipv6, has_tag;
    size_t ip_options, tcp_options; /* bytes */
    size_t payload;
    uint16_t segment;
};

static size_t ip_at(const struct shape *shape)
{
    return shape->has_tag ? 18 : 14;
}

static size_t tcp_at(const struct shape *shape)
{
    return ip_at(shape) + (shape->is_ipv6 ? 40 : 20 + shape->ip_options);
}

static size_t payload_at(const struct shape *shape)
{
    return tcp_at(shape) + 20 + shape->tcp_options;
}

static void put(uint8_t *bytes, uint32_t value, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(value >> 8 * (size - 1 - i));
}

static uint32_t get(const uint8_t *bytes, size_t size)
{
    uint32_t value = 0;
    for (size_t i = 0; i < size; i++)
        value = value << 8 | bytes[i];
    return value;
}

/* As a guest makes it: identification 0xfffe, sequence number 0xffffff00, so that both wrap. */
static size_t make(uint8_t *frame, const struct shape *shape)
{
    size_t ip = ip_at(shape), tcp = tcp_at(shape), payload = payload_at(shape), length = payload + shape->payload;
    net_driver_make_frame(frame, length, 7);
    if (shape->has_tag)
        put(frame + 12, 0x81000005, 4);
    put(frame + ip - 2, shape->is_ipv6 ? 0x86dd : 0x0800, 2);
    frame[ip] = shape->is_ipv6 ? 0x60 : (uint8_t)(0x40 | (20 + shape->ip_options) / 4);
    put(frame + ip + (shape->is_ipv6 ? 4 : 2), (uint32_t)(length - (shape->is_ipv6 ? tcp : ip)), 2);
    if (!shape->is_ipv6) {
        put(frame + ip + 4, 0xfffe, 2);
        put(frame + ip + 6, 0x4000, 2);
    }
    frame[ip + (shape->is_ipv6 ? 6 : 9)] = 6;
    put(frame + tcp + 4, 0xffffff00, 4);
    frame[tcp + 12] = (uint8_t)((20 + shape->tcp_options) / 4 << 4);
    frame[tcp + 13] = fin | psh | ack | cwr;
    return length;
}

static struct net_header header_of(const struct shape *shape)
{
    return (struct net_header){
        .flags = NET_NEEDS_CSUM,
        .gso_type = shape->is_ipv6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4,
        .hdr_len = (uint16_t)payload_at(shape),
        .gso_size = shape->segment,
        .csum_start = (uint16_t)tcp_at(shape),
        .csum_offset = 16,
    };
}

/* The sum of bytes as words, the last one filled up: 0xffff when there is a right checksum in it. */
static uint32_t sum_of(uint32_t sum, const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        sum += i % 2 == 0 ? (uint32_t)bytes[i] << 8 : bytes[i];
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

static uint32_t tcp_sum(const uint8_t *bytes, size_t length, const struct shape *shape)
{
    size_t ip = ip_at(shape), tcp = tcp_at(shape);
    uint8_t tail[4] = {0, 6};
    put(tail + 2, (uint32_t)(length - tcp), 2);
    uint32_t sum = shape->is_ipv6 ? sum_of(0, bytes + ip + 8, 32) : sum_of(0, bytes + ip + 12, 8);
    sum = sum_of(sum, tail, sizeof(tail));
    return sum_of(sum, bytes + tcp, length - tcp);
}

/* Looks at the segment of this number in `segment`. NULL, or what is wrong. */
static const char *look_at(const uint8_t *frame, size_t length, size_t index, const struct shape *shape)
{
    size_t ip = ip_at(shape), tcp = tcp_at(shape), payload = payload_at(shape), from = index * shape->segment;
    bool is_last = from + (length - payload) == shape->payload;
    if (!is_last && length - payload != shape->segment)
        return "its length";
    if (memcmp(segment + payload, frame + payload + from, length - payload) != 0)
        return "its payload";
    if (get(segment + ip + (shape->is_ipv6 ? 4 : 2), 2) != length - (shape->is_ipv6 ? tcp : ip))
        return "the length in its IP header";
    if (!shape->is_ipv6 && get(segment + ip + 4, 2) != ((0xfffe + index) & 0xffff))
        return "its identification";
    if (!shape->is_ipv6 && sum_of(0, segment + ip, tcp - ip) != 0xffff)
        return "the checksum of its IP header";
    if (get(segment + tcp + 4, 4) != (uint32_t)(0xffffff00 + from))
        return "its sequence number";
    if (segment[tcp + 13] != (ack | (is_last ? fin | psh : 0) | (index == 0 ? cwr : 0)))
        return "its flags";
    return tcp_sum(segment, length, shape) == 0xffff ? NULL : "its checksum";
}

static const char *cut(const struct shape *shape)
{
    static uint8_t frame[NET_DRIVER_LONGEST];
    size_t length = make(frame, shape), total = 0, index = 0;
    struct net_header header = header_of(shape);
    memcpy(offload.frame, frame, length);
    const char *wrong = net_header_check(&header, length, NET_F_CSUM | NET_F_HOST_TSO4 | NET_F_HOST_TSO6);
    if (wrong == NULL)
        wrong = net_offload_begin(&offload, &header, length);
    size_t expected = wrong == NULL ? net_offload_count(&offload) : 0;
    for (; wrong == NULL && net_offload_is_pending(&offload); index++) {
        struct iovec parts[2];
        size_t bytes = 0, count = net_offload_peek(&offload, parts, &bytes);
        count = net_offload_peek(&offload, parts, &bytes); /* asking twice changes nothing */
        if (virtio_read_spans(parts, count, 0, segment, sizeof(segment)) != bytes)
            return "what it says of its length";
        wrong = look_at(frame, bytes, index, shape);
        total += bytes - payload_at(shape);
        net_offload_advance(&offload);
    }
    if (wrong == NULL && (index != expected || total != shape->payload))
        return "how many there are";
    return wrong;
}

TEST(frames_are_cut)
{
    static const uint16_t segments[] = {1, 7, 536, 1448, 1460, 9000, 65535};
    static const size_t payloads[] = {1, 2, 1447, 1448, 1449, 4096, 30001, 65000};
    for (unsigned kind = 0; kind < 8; kind++)
        for (size_t i = 0; i < array_length(segments); i++)
            for (size_t j = 0; j < array_length(payloads); j++) {
                struct shape shape = {
                    .is_ipv6 = (kind & 1) != 0,
                    .has_tag = (kind & 2) != 0,
                    .ip_options = kind == 4 || kind == 6 ? 40 : 0,
                    .tcp_options = (kind & 4) != 0 ? 40 : 12,
                    .payload = payloads[j],
                    .segment = segments[i],
                };
                const char *wrong = cut(&shape);
                CHECK_TEXT(wrong != NULL ? wrong : "", "");
            }
}

TEST(checksums_are_finished)
{
    for (size_t length = 42; length < 300; length++) {
        /* UDP over IPv4: the driver has put in the sum of the pseudo header, here any number. */
        struct net_header header = {.flags = NET_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6};
        net_driver_make_frame(offload.frame, length, (unsigned)length);
        uint32_t before = sum_of(0, offload.frame + 34, length - 34);
        CHECK(net_offload_begin(&offload, &header, length) == NULL);
        CHECK_INT(net_offload_count(&offload), 1);
        CHECK_INT(get(offload.frame + 40, 2), before == 0xffff ? 0xffff : ~before & 0xffff);
        net_offload_advance(&offload);
        CHECK(!net_offload_is_pending(&offload));
    }
    memset(offload.frame, 0xff, 100); /* a sum of 0 is written as its other form for UDP, but not for TCP */
    CHECK(net_offload_begin(&offload, &(struct net_header){1, 0, 0, 0, 34, 6, 0}, 100) == NULL);
    CHECK_INT(get(offload.frame + 40, 2), 0xffff);
    memset(offload.frame, 0xff, 100);
    CHECK(net_offload_begin(&offload, &(struct net_header){1, 0, 0, 0, 34, 16, 0}, 100) == NULL);
    CHECK_INT(get(offload.frame + 50, 2), 0);
    net_offload_drop(&offload);
}

/* ---- lies ---- */

static const struct lie {
    const char *name;
    size_t offset; /* of a byte in an IPv4 frame without options, 14 and 34 and 54 */
    uint8_t value;
} lies[] = {
    {"another protocol than IPv4", 12, 0x86},
    {"another version of IP", 14, 0x55},
    {"an IP header that is too short", 14, 0x44},
    {"an IP header that is longer", 14, 0x46},
    {"an IP header behind the frame", 14, 0x4f},
    {"UDP inside", 23, 17},
    {"more fragments", 20, 0x20},
    {"a fragment", 21, 1},
    {"a TCP header that is too short", 46, 0x40},
    {"a TCP header as long as the frame", 46, 0xf0},
};

TEST(frames_that_lie_are_not_cut)
{
    struct shape shape = {.payload = 20, .segment = 10};
    struct net_header header = header_of(&shape);
    for (size_t i = 0; i < array_length(lies); i++) {
        size_t length = make(offload.frame, &shape);
        offload.frame[lies[i].offset] = lies[i].value;
        CHECK_TEXT(net_offload_begin(&offload, &header, length) != NULL ? lies[i].name : "cut", lies[i].name);
        CHECK(!net_offload_is_pending(&offload));
    }
    for (size_t length = NET_ETHERNET_BYTES; length <= 54; length++) { /* cut off anywhere, up to its last header */
        make(offload.frame, &shape);
        CHECK(net_header_check(&header, length, UINT64_MAX) != NULL ||
              net_offload_begin(&offload, &header, length) != NULL);
    }
    shape.payload = NET_DRIVER_LONGEST - 54, shape.segment = 65535; /* 65536 bytes of IP */
    size_t length = make(offload.frame, &shape);
    header = header_of(&shape);
    CHECK(net_offload_begin(&offload, &header, length) != NULL);
}

/* ---- behind a device ---- */

/* A long frame goes through a socket whose reader is slow, in as many turns as that takes; others wait behind it. */
TEST(a_device_cuts_and_keeps_the_order)
{
    static const struct shape shape = {.tcp_options = 12, .payload = 64000, .segment = 1448};
    static uint8_t frame[NET_DRIVER_LONGEST];
    static const struct net_header plain;
    struct net_header header = header_of(&shape);
    struct net_driver front;
    for (int type = SOCK_STREAM; type <= SOCK_DGRAM; type++) {
        int pair[2], small = 4096;
        size_t prefix = type == SOCK_STREAM ? 4 : 0;
        CHECK(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair) == 0);
        CHECK(setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) == 0);
        struct net_options options = {
            .kind = type == SOCK_STREAM ? VIAL_NET_UNIXSTREAM : VIAL_NET_UNIXGRAM,
            .fd = pair[1],
            .features = VIAL_NET_FEATURE_CSUM | VIAL_NET_FEATURE_HOST_TSO4,
            .queue_pairs = 1,
        };
        CHECK_INT(net_driver_begin(&front, &options), 0);
        CHECK(net_driver_start(&front, NET_F_CSUM | NET_F_HOST_TSO4, 3, 1526));
        size_t length = make(frame, &shape);
        for (unsigned i = 0; i < 10; i++) {
            CHECK(net_driver_offer(&front, &header, frame, length, 0));
            CHECK(net_driver_offer(&front, &plain, frame, 60, 0));
        }
        net_driver_kick(&front);
        for (unsigned i = 0; i < 10; i++) {
            for (size_t index = 0; index <= 45; index++) {
                size_t wanted = payload_at(&shape) + (index < 44 ? 1448 : 64000 - 44 * 1448);
                size_t total = prefix + (index < 45 ? wanted : 60), done = 0;
                uint8_t bytes[2000] = {0};
                while (done < total) {
                    ssize_t part = recv(pair[0], bytes + done, type == SOCK_STREAM ? total - done : sizeof(bytes),
                                        MSG_DONTWAIT);
                    virtio_driver_turn(&front.driver);
                    done += part > 0 ? (size_t)part : 0;
                }
                CHECK_INT(done, total);
                memcpy(segment, bytes + prefix, sizeof(bytes) - sizeof(uint32_t)); /* and what is behind it */
                const char *wrong = index < 45 ? look_at(frame, wanted, index, &shape) : NULL;
                CHECK_TEXT(wrong != NULL ? wrong : "", "");
            }
        }
        CHECK_INT(net_driver_reap(&front), 20);
        CHECK_INT(net_driver_stats(&front).transmitted_frames, 460);
        CHECK_INT(net_driver_stats(&front).transmitted_drops, 0);
        net_driver_end(&front);
        fd_close(pair[0]), fd_close(pair[1]);
    }
}
