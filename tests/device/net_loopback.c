// SPDX-License-Identifier: Apache-2.0
/* What a guest sends to the host's loopback, in all the ways to write and to send it, and what has to pass. */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "net_driver.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define OFFLOADS (NET_F_CSUM | NET_F_HOST_TSO4 | NET_F_HOST_TSO6)

enum { frame_bytes = 1400, tcp_protocol = 6, prefix_bytes = 4 };

static struct net_driver front;
static int pair[2];
static uint8_t frame[NET_DRIVER_LONGEST], got[NET_DRIVER_LONGEST + prefix_bytes];
static const struct net_header plain;

static void begin(void)
{
    struct net_options options = {
        .kind = VIAL_NET_UNIXSTREAM,
        .queue_pairs = 1,
        .features = UINT32_MAX,
        .keeps_off_loopback = true,
    };
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        abort();
    options.fd = pair[1];
    if (net_driver_begin(&front, &options) < 0)
        abort();
}

static void end(void)
{
    net_driver_end(&front);
    fd_close(pair[0]), fd_close(pair[1]);
}

/* A TCP segment from one to the other: IPv6 where there is a colon. */
static void make(const char *source, const char *destination)
{
    bool is_ipv6 = strchr(destination, ':') != NULL;
    uint8_t *ip = frame + NET_ETHERNET_BYTES, *tcp = ip + (is_ipv6 ? 40 : 20);
    size_t length = frame_bytes - NET_ETHERNET_BYTES - (is_ipv6 ? 40 : 0);
    net_driver_make_frame(frame, frame_bytes, 3);
    frame[12] = is_ipv6 ? 0x86 : 0x08;
    frame[13] = is_ipv6 ? 0xdd : 0x00;
    ip[0] = is_ipv6 ? 0x60 : 0x45;
    ip[is_ipv6 ? 4 : 2] = (uint8_t)(length >> 8);
    ip[is_ipv6 ? 5 : 3] = (uint8_t)length;
    ip[is_ipv6 ? 6 : 9] = tcp_protocol;
    if (!is_ipv6)
        ip[6] = ip[7] = 0; /* no fragment */
    inet_pton(is_ipv6 ? AF_INET6 : AF_INET, source, ip + (is_ipv6 ? 8 : 12));
    inet_pton(is_ipv6 ? AF_INET6 : AF_INET, destination, ip + (is_ipv6 ? 24 : 16));
    tcp[12] = 0x50;
}

static struct net_header cut_header(void)
{
    bool is_ipv6 = frame[12] == 0x86;
    uint16_t tcp = NET_ETHERNET_BYTES + (is_ipv6 ? 40 : 20);
    return (struct net_header){
        .flags = NET_NEEDS_CSUM,
        .gso_type = is_ipv6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4,
        .gso_size = 500,
        .hdr_len = (uint16_t)(tcp + 20),
        .csum_start = tcp,
        .csum_offset = 16,
    };
}

/* How many bytes come out of one frame in pieces. */
static ssize_t pass(const struct net_header *header, size_t length, size_t piece)
{
    if (!net_driver_offer(&front, header, frame, length, piece))
        return -1;
    net_driver_kick(&front);
    ssize_t count = recv(pair[0], got, sizeof(got), MSG_DONTWAIT);
    return net_driver_reap(&front) != 1 ? -1 : count < 0 && errno == EAGAIN ? 0 : count;
}

static const struct journey {
    const char *source, *destination;
    bool passes;
} journeys[] = {
    {"10.0.2.15", "127.0.0.1", false},
    {"10.0.2.15", "127.255.255.254", false},
    {"10.0.2.15", "0.0.0.0", false},
    {"10.0.2.15", "0.1.2.3", false},
    {"127.0.0.1", "10.0.2.2", false},
    {"0.0.0.1", "255.255.255.255", false},
    {"127.0.0.1", "255.255.255.255", false},
    {"0.0.0.0", "10.0.2.2", false},
    {"0.0.0.0", "127.0.0.1", false},
    {"fd00::15", "::1", false},
    {"fd00::15", "::", false},
    {"fd00::15", "::2", false},
    {"fd00::15", "::127.0.0.1", false},
    {"fd00::15", "::ffff:127.0.0.1", false},
    {"fd00::15", "::ffff:192.0.2.1", false},
    {"fd00::15", "::ffff:0:127.0.0.1", false},
    {"::1", "fd00::2", false},
    {"::ffff:127.0.0.1", "fd00::2", false},
    {"::ffff:10.0.2.15", "ff02::2", false},
    {"::", "fd00::2", false},
    {"::1", "ff02::1", false},
    {"10.0.2.15", "10.0.2.2", true},
    {"10.0.2.15", "1.1.1.1", true},
    {"10.0.2.15", "126.0.0.1", true},
    {"10.0.2.15", "128.0.0.1", true},
    {"0.0.0.0", "255.255.255.255", true}, /* DHCP */
    {"0.0.0.0", "224.0.0.22", true},      /* IGMP */
    {"fd00::15", "2001:db8::1", true},
    {"fd00::15", "0:0:0:1::1", true},
    {"fe80::1", "ff02::2", true},
    {"::", "ff02::1:ff00:15", true}, /* is this address mine? */
    {"64:ff9b::1", "64:ff9b::127.0.0.1", true},
};

TEST(addresses_of_the_loopback_do_not_pass)
{
    /* Addresses whole, cut in the middle, and bytewise as far as the driver has descriptors for it. */
    static const size_t pieces[] = {0, 12, 26, 39, 45, 60, 1};
    begin();
    CHECK(net_driver_start(&front, OFFLOADS, 3, 1526));
    uint64_t drops = 0;
    for (size_t i = 0; i < array_length(journeys); i++) {
        make(journeys[i].source, journeys[i].destination);
        for (size_t j = 0; j < array_length(pieces); j++) {
            CHECK_INT(pass(&plain, frame_bytes, pieces[j]), journeys[i].passes ? frame_bytes + prefix_bytes : 0);
            CHECK(!journeys[i].passes || memcmp(got + prefix_bytes, frame, frame_bytes) == 0);
            drops += !journeys[i].passes;
        }
    }
    CHECK_INT(net_driver_stats(&front).transmitted_drops, drops);
    CHECK_INT(virtio_device_faults(front.driver.device), drops);
    end();
}

TEST(nor_in_frames_that_are_to_be_cut)
{
    begin();
    CHECK(net_driver_start(&front, OFFLOADS, 3, 1526));
    for (size_t i = 0; i < array_length(journeys); i++) {
        make(journeys[i].source, journeys[i].destination);
        struct net_header header = cut_header();
        ssize_t headers = header.csum_start + 20 + prefix_bytes, payload = frame_bytes - header.csum_start - 20;
        CHECK_INT(pass(&header, frame_bytes, 40), journeys[i].passes ? 3 * headers + payload : 0);
        header = (struct net_header){.flags = NET_NEEDS_CSUM, .csum_start = header.csum_start, .csum_offset = 16};
        CHECK_INT(pass(&header, frame_bytes, 40), journeys[i].passes ? frame_bytes + prefix_bytes : 0);
    }
    end();
}

/* A checksum that the device computes becomes the address. */
TEST(nor_by_a_checksum)
{
    static const struct net_header header = {.flags = NET_NEEDS_CSUM, .csum_start = 28, .csum_offset = 2};
    begin();
    CHECK(net_driver_start(&front, OFFLOADS, 3, 1526));
    make("10.0.0.0", "10.0.0.1");
    memset(frame + 34, 0, frame_bytes - 34);
    frame[34] = 0x76; /* the sum of what begins at the second half of the source: 0x80ff, whose complement is 127.0 */
    frame[35] = 0xfe;
    CHECK_INT(pass(&header, frame_bytes, 0), 0);
    CHECK_INT(net_driver_stats(&front).transmitted_drops, 1);
    frame[34] = 0x77; /* 126.0 */
    CHECK_INT(pass(&header, frame_bytes, 0), frame_bytes + prefix_bytes);
    CHECK(memcmp(got + prefix_bytes + 30, (const uint8_t[]){126, 0, 0, 1}, 4) == 0);
    end();
}

TEST(nor_with_a_tag_nor_in_something_else)
{
    static const struct {
        uint16_t type;
        bool passes;
    } types[] = {{0x8100, false}, {0x88a8, false}, {0x9100, false}, {0x88b5, false},
                 {0x0026, false}, {0x8864, false}, {0x0000, false}, {0x0806, true}};
    begin();
    CHECK(net_driver_start(&front, OFFLOADS, 3, 1526));
    for (size_t i = 0; i < array_length(types); i++) {
        make("10.0.2.15", "10.0.2.2");
        memmove(frame + 16, frame + 12, 60);
        frame[12] = (uint8_t)(types[i].type >> 8);
        frame[13] = (uint8_t)types[i].type;
        CHECK_INT(pass(&plain, 60, 0), types[i].passes ? 60 + prefix_bytes : 0);
    }
    end();
}

TEST(nor_in_frames_that_are_too_short_to_tell)
{
    begin();
    CHECK(net_driver_start(&front, OFFLOADS, 3, 1526));
    for (size_t length = NET_ETHERNET_BYTES; length < 60; length++) {
        make("10.0.2.15", "10.0.2.2");
        CHECK_INT(pass(&plain, length, 0), length >= 34 ? (ssize_t)length + prefix_bytes : 0);
        make("fd00::15", "fd00::2");
        CHECK_INT(pass(&plain, length, 0), length >= 54 ? (ssize_t)length + prefix_bytes : 0);
    }
    end();
}

/* What was checked is what goes out, whatever becomes of the guest's memory before the frame is sent. */
TEST(what_was_checked_is_what_is_sent)
{
    begin();
    CHECK(net_driver_start(&front, OFFLOADS, 3, 1526));
    int bytes = 4096;
    CHECK_INT(setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)), 0);
    make("10.0.2.15", "10.0.2.2");
    enum { frames = 40 };
    for (unsigned i = 0; i < frames; i++)
        CHECK(net_driver_offer(&front, &plain, frame, frame_bytes, 0));
    net_driver_kick(&front); /* the socket is full before the last */
    for (unsigned i = 0; i < frames; i++) {
        uint8_t loopback[4] = {127, 0, 0, 1};
        uint64_t slot = UINT64_C(0x200000) + (uint64_t)i * NET_DRIVER_SLOT_BYTES;
        virtio_driver_put(&front.driver, slot + sizeof(plain) + 30, loopback, sizeof(loopback));
    }
    size_t length = 0;
    for (unsigned turn = 0; turn < 1000; turn++) {
        ssize_t more = recv(pair[0], got + length, sizeof(got) - length, MSG_DONTWAIT);
        length += more > 0 ? (size_t)more : 0;
        virtio_driver_turn(&front.driver);
    }
    CHECK(length > 0);
    CHECK_INT(length / (frame_bytes + prefix_bytes) + net_driver_stats(&front).transmitted_drops, frames);
    for (size_t at = 0; at < length; at += frame_bytes + prefix_bytes)
        CHECK_INT(got[at + prefix_bytes + 30], 10);
    end();
}

TEST(a_tap_device_cannot_keep_off)
{
    struct net_options options = {
        .kind = VIAL_NET_TAP, .fd = -1, .path = "none", .queue_pairs = 1, .keeps_off_loopback = true};
    struct virtio_device *device = NULL;
    CHECK_INT(net_new(&options, &device), -EINVAL);
}
