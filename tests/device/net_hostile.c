// SPDX-License-Identifier: Apache-2.0
/* The network device against a driver that lies, and against a peer that does. */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "hostile.h"
#include "net_driver.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER VIRTIO_DRIVER_BUFFERS
#define OFFLOADS (NET_F_CSUM | NET_F_HOST_TSO4 | NET_F_HOST_TSO6)

static struct net_driver front;
static int pair[2];
static uint8_t frame[NET_DRIVER_LONGEST + 16], got[NET_DRIVER_LONGEST + NET_DRIVER_SLOT_BYTES];
static struct net_header plain;

static void begin(void)
{
    struct net_options options = {.kind = VIAL_NET_UNIXSTREAM, .queue_pairs = 1, .features = UINT32_MAX};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        abort();
    options.fd = pair[1];
    if (net_driver_begin(&front, &options) < 0)
        abort();
    net_driver_make_frame(frame, sizeof(frame), 1);
}

static void end(void)
{
    net_driver_end(&front);
    fd_close(pair[0]), fd_close(pair[1]);
}

/* Whether nothing has come out, and then a good frame does. */
static bool only_good_ones_pass(void)
{
    uint8_t bytes[128];
    virtio_driver_turn(&front.driver);
    if (recv(pair[0], bytes, sizeof(bytes), MSG_DONTWAIT) >= 0 || !net_driver_send(&front, &plain, frame, 60))
        return false;
    return recv(pair[0], bytes, sizeof(bytes), MSG_DONTWAIT) == 64 && memcmp(bytes + 4, frame, 60) == 0;
}

/* ---- headers ---- */

static const struct lie {
    const char *name;
    size_t length;
    struct net_header header;
} lies[] = {
    {"a checksum that begins behind the frame", 60, {.flags = 1, .csum_start = 60, .csum_offset = 0}},
    {"a checksum that ends behind the frame", 60, {.flags = 1, .csum_start = 34, .csum_offset = 25}},
    {"a checksum whose place overflows", 60, {.flags = 1, .csum_start = 0xffff, .csum_offset = 0xffff}},
    {"a checksum whose place overflows to something small",
     60,
     {.flags = 1, .csum_start = 0xfff0, .csum_offset = 0x30}},
    {"a checksum of the Ethernet header", 60, {.flags = 1, .csum_start = 13, .csum_offset = 0}},
    {"a checksum in a frame that is too short for any", 14, {.flags = 1, .csum_start = 14, .csum_offset = 0}},
    {"flags that there are not", 60, {.flags = 4}},
    {"all flags", 60, {.flags = 0xff}},
    {"a type that there is not", 60, {.flags = 1, .gso_type = 2, .gso_size = 100, .csum_start = 34, .csum_offset = 16}},
    {"every type at once", 60, {.flags = 1, .gso_type = 0xff, .gso_size = 100, .csum_start = 34, .csum_offset = 16}},
    {"ECN", 60, {.flags = 1, .gso_type = 0x81, .gso_size = 100, .csum_start = 34, .csum_offset = 16}},
    {"UDP", 60, {.flags = 1, .gso_type = 3, .gso_size = 100, .csum_start = 34, .csum_offset = 6}},
    {"pieces of nothing", 60, {.flags = 1, .gso_type = 1, .gso_size = 0, .csum_start = 34, .csum_offset = 16}},
    {"pieces without a checksum",
     60,
     {.flags = 0, .gso_type = 1, .gso_size = 100, .csum_start = 34, .csum_offset = 16}},
    {"a header longer than the frame", 60, {1, 1, 61, 100, 34, 16, 0}},
    {"another protocol", 60, {1, 1, 54, 100, 34, 16, 0}},
    {"another protocol of six", 80, {1, 4, 74, 100, 54, 16, 0}},
};

TEST(a_header_that_lies_is_dropped)
{
    begin();
    for (size_t i = 0; i < array_length(lies); i++) {
        CHECK(net_driver_start(&front, OFFLOADS | NET_F_MRG_RXBUF, 3, 1526));
        uint64_t faults = virtio_device_faults(front.driver.device);
        CHECK(net_driver_send(&front, &lies[i].header, frame, lies[i].length));
        CHECK_TEXT(virtio_device_faults(front.driver.device) == faults + 1 ? lies[i].name : "passed", lies[i].name);
        CHECK_TEXT(only_good_ones_pass() ? lies[i].name : "passed", lies[i].name);
        CHECK(!virtio_driver_needs_reset(&front.driver));
    }
    CHECK_INT(net_driver_stats(&front).transmitted_drops, array_length(lies));
    end();
}

TEST(what_was_not_agreed_on_is_dropped)
{
    static const struct net_header checksum = {.flags = 1, .csum_start = 34, .csum_offset = 16};
    begin();
    CHECK(net_driver_start(&front, NET_F_MRG_RXBUF, 3, 1526));
    CHECK(net_driver_send(&front, &checksum, frame, 60));
    CHECK_INT(net_driver_stats(&front).transmitted_drops, 1);
    CHECK(only_good_ones_pass());
    CHECK(!net_driver_start(&front, NET_F_GUEST_CSUM, 3, 1526)); /* it was not offered */
    end();
}

/* ---- chains ---- */

TEST(frames_of_impossible_lengths)
{
    static const uint32_t lengths[] = {1, 9, 10, 11, 12, 13, 25, 12 + 65551, 0x100000, 0x2000000};
    begin();
    for (size_t i = 0; i < array_length(lengths); i++) {
        uint32_t head, written;
        CHECK(net_driver_start(&front, OFFLOADS, 3, 1526));
        virtio_driver_send(&front.driver, 1, 0x200000, lengths[i], 0);
        CHECK(virtio_driver_take(&front.driver, 1, &head, &written));
        CHECK_INT(written, 0);
        CHECK_INT(virtio_device_faults(front.driver.device), i + 1);
        CHECK(net_driver_start(&front, OFFLOADS, 3, 1526));
        CHECK(only_good_ones_pass());
    }
    end();
}

TEST(chains_in_the_wrong_direction)
{
    uint32_t head, written;
    begin();
    CHECK(net_driver_start(&front, NET_F_MRG_RXBUF, 3, 1526));
    virtio_driver_send(&front.driver, 1, BUFFER, 100, VIRTIO_DRIVER_WRITE); /* nothing to send in it */
    CHECK(virtio_driver_take(&front.driver, 1, &head, &written));
    CHECK_INT(written, 0);
    virtio_driver_send(&front.driver, 0, BUFFER, 100, 0); /* nothing to receive in */
    CHECK(virtio_driver_take(&front.driver, 0, &head, &written));
    CHECK_INT(written, 0);
    /* The same behind a chain that is good, which has to go back first. */
    uint32_t prefix = htonl(60);
    struct iovec parts[2] = {{&prefix, 4}, {frame, 60}};
    virtio_driver_send(&front.driver, 0, BUFFER, 1526, VIRTIO_DRIVER_WRITE);
    virtio_driver_send(&front.driver, 0, BUFFER, 100, 0);
    CHECK(!virtio_driver_take(&front.driver, 0, &head, &written));
    CHECK_INT(writev(pair[0], parts, 2), 64);
    virtio_driver_turn(&front.driver);
    CHECK(virtio_driver_take(&front.driver, 0, &head, &written));
    CHECK_INT(written, 72);
    CHECK_INT(writev(pair[0], parts, 2), 64);
    virtio_driver_turn(&front.driver);
    CHECK(virtio_driver_take(&front.driver, 0, &head, &written));
    CHECK_INT(written, 0);
    end();
}

/* A frame that is longer than the ring ever could take does not stand in front of all others for ever. */
TEST(chains_that_are_too_short)
{
    uint32_t prefix = htonl(30000);
    struct iovec parts[2] = {{&prefix, 4}, {frame, 30000}};
    begin();
    for (int is_merged = 0; is_merged < 2; is_merged++) {
        CHECK(net_driver_start(&front, is_merged ? NET_F_MRG_RXBUF : 0, 3, 100));
        net_driver_fill(&front, NET_DRIVER_ENTRIES); /* 25600 bytes */
        prefix = htonl(30000), parts[1].iov_len = 30000;
        CHECK_INT(writev(pair[0], parts, 2), 30004);
        prefix = htonl(60), parts[1].iov_len = 60;
        CHECK_INT(writev(pair[0], parts, 2), 64);
        struct net_header header;
        virtio_driver_turn(&front.driver);
        CHECK_INT(net_driver_receive(&front, &header, got), 60);
        CHECK_INT(net_driver_stats(&front).received_drops, is_merged + 1);
    }
    CHECK(net_driver_start(&front, NET_F_MRG_RXBUF, 3, 5)); /* the header is cut, too */
    net_driver_fill(&front, 20);
    CHECK_INT(writev(pair[0], parts, 2), 64);
    virtio_driver_turn(&front.driver);
    for (unsigned i = 0; i < 15; i++) {
        uint32_t head, written;
        CHECK(virtio_driver_take(&front.driver, 0, &head, &written));
        CHECK_INT(head, i);
        CHECK_INT(written, i < 14 ? 5 : 2);
    }
    end();
}

TEST(a_flood_of_bad_frames)
{
    begin();
    CHECK(net_driver_start(&front, OFFLOADS, 3, 1526));
    for (unsigned round = 0; round < 100; round++) {
        while (net_driver_offer(&front, &lies[round % array_length(lies)].header, frame,
                                lies[round % array_length(lies)].length, 0))
            continue;
        net_driver_kick(&front);
        CHECK_INT(net_driver_reap(&front), NET_DRIVER_SLOTS);
    }
    CHECK(only_good_ones_pass());
    end();
}

TEST(hostile_rings_and_registers)
{
    for (unsigned queue = 0; queue < 2; queue++) {
        begin();
        const char *wrong = hostile_rings(&front.driver, NET_F_MRG_RXBUF, 3, queue);
        CHECK_TEXT(wrong != NULL ? wrong : "", "");
        wrong = hostile_registers(&front.driver, NET_F_MRG_RXBUF, 3, queue);
        CHECK_TEXT(wrong != NULL ? wrong : "", "");
        CHECK(net_driver_start(&front, NET_F_MRG_RXBUF, 3, 1526));
        CHECK(only_good_ones_pass());
        end();
    }
}

static int swallow(void *user, const struct iovec *parts, int count)
{
    size_t *sum = user;
    for (int i = 0; i < count; i++)
        *sum += parts[i].iov_len;
    return *sum % 7 == 0 ? -EMSGSIZE : 0;
}

static ssize_t give_nothing(void *user, void *bytes, size_t size)
{
    (void)user, (void)bytes, (void)size;
    return -EAGAIN;
}

static int poll_nothing(void *user)
{
    (void)user;
    return pair[1];
}

TEST(a_ring_that_changes_meanwhile)
{
    static const struct vial_net_ops ops = {sizeof(ops), swallow, give_nothing, poll_nothing, NULL};
    size_t sum = 0;
    begin(); /* for its sockets */
    net_driver_end(&front);
    struct net_options options = {
        .kind = VIAL_NET_CUSTOM,
        .fd = -1,
        .ops = &ops,
        .ops_user = &sum,
        .features = UINT32_MAX,
        .queue_pairs = 1,
    };
    CHECK_INT(net_driver_begin(&front, &options), 0);
    const char *wrong = hostile_changes(&front.driver, OFFLOADS, 3, 1, 0);
    CHECK_TEXT(wrong != NULL ? wrong : "", "");
    end();
}

TEST(a_pause_forgets_what_was_taken)
{
    begin();
    CHECK(net_driver_start(&front, NET_F_MRG_RXBUF, 3, 1526));
    net_driver_fill(&front, 100);
    for (unsigned i = 0; i < 3; i++) {
        struct queue_layout layout = {
            .descriptors = VIRTIO_DRIVER_DESCRIPTORS(0),
            .available = VIRTIO_DRIVER_AVAILABLE(0),
            .used = VIRTIO_DRIVER_USED(0),
            .entries = NET_DRIVER_ENTRIES,
        };
        uint32_t prefix = htonl(9000);
        struct iovec parts[2] = {{&prefix, 4}, {frame, 9000}};
        struct net_header header;
        layout.next_available = virtio_device_pause_queue(front.driver.device, 0);
        CHECK_INT(layout.next_available, 6 * i);
        CHECK_INT(writev(pair[0], parts, 2), 9004);
        virtio_driver_turn(&front.driver);
        CHECK_INT(net_driver_receive(&front, &header, got), -1);
        CHECK_INT(virtio_device_start_queue(front.driver.device, 0, &layout), 0);
        virtio_driver_turn(&front.driver);
        CHECK_INT(net_driver_receive(&front, &header, got), 9000);
        CHECK(memcmp(got, frame, 9000) == 0);
    }
    end();
}

/* ---- peers ---- */

TEST(a_peer_that_breaks_the_framing_is_left)
{
    static const uint32_t prefixes[] = {0, LIMIT_NET_FRAME_BYTES + 1, 0x80000000, UINT32_MAX};
    for (size_t i = 0; i < array_length(prefixes); i++) {
        uint32_t prefix = htonl(prefixes[i]);
        begin();
        CHECK(net_driver_start(&front, NET_F_MRG_RXBUF | NET_F_STATUS, 3, 1526));
        net_driver_fill(&front, 100);
        virtio_driver_interrupts(&front.driver);
        CHECK_INT(net_driver_status(&front), 1);
        CHECK_INT(write(pair[0], &prefix, sizeof(prefix)), 4);
        virtio_driver_turn(&front.driver);
        CHECK_INT(net_driver_status(&front), 0);
        CHECK(virtio_driver_interrupts(&front.driver) > 0);
        CHECK(net_driver_send(&front, &plain, frame, 60)); /* into nothing */
        CHECK_INT(net_driver_stats(&front).transmitted_drops, 1);
        end();
    }
}

TEST(a_frame_that_is_too_short_for_one_is_dropped)
{
    uint32_t prefix = htonl(13);
    struct iovec parts[2] = {{&prefix, 4}, {frame, 13}};
    struct net_header header;
    begin();
    CHECK(net_driver_start(&front, NET_F_MRG_RXBUF, 3, 1526));
    net_driver_fill(&front, 100);
    CHECK_INT(writev(pair[0], parts, 2), 17);
    virtio_driver_turn(&front.driver);
    CHECK_INT(net_driver_receive(&front, &header, got), -1);
    CHECK_INT(net_driver_stats(&front).received_drops, 1);
    CHECK_INT(net_driver_status(&front), 1);
    end();
}
