// SPDX-License-Identifier: Apache-2.0
/* The network device over a TAP device of the host's kernel, in a network namespace of the test's: frames and offloads
 * both ways, several queues, and the end of the device.
 */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "net_driver.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { own_type = 0x88b5 }; /* of the frames that net_driver_make_frame makes */

static struct net_driver front;
static uint8_t frame[NET_DRIVER_LONGEST], got[NET_DRIVER_LONGEST + NET_DRIVER_SLOT_BYTES];
static struct net_header header, plain;
static int old_namespace = -1, packets = -1;

/* Into a namespace with nothing in it, but for the time of a test; NULL, or why not. */
static const char *enter(void)
{
    static const uint8_t one = '1';
    if (geteuid() != 0)
        return "only root can make TAP devices";
    old_namespace = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (old_namespace < 0 || unshare(CLONE_NEWNET) < 0) {
        old_namespace = fd_close(old_namespace);
        return "network namespaces cannot be made here";
    }
    int fd = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY | O_CLOEXEC); /* or it speaks of itself */
    ssize_t written = fd >= 0 ? write(fd, &one, 1) : 0;
    (void)written;
    fd_close(fd);
    fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    fd_close(fd);
    return fd < 0 ? "there is no /dev/net/tun" : NULL;
}

static void leave(void)
{
    packets = fd_close(packets);
    if (old_namespace >= 0 && setns(old_namespace, CLONE_NEWNET) < 0)
        abort();
    old_namespace = fd_close(old_namespace);
}

/* Up with it, and a socket that takes and gives its frames. */
static bool open_packets(int mtu)
{
    struct ifreq request = {.ifr_name = "tap0", .ifr_mtu = mtu};
    int one = 1;
    packets = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(own_type));
    if (packets < 0 || ioctl(packets, SIOCSIFMTU, &request) < 0)
        return false;
    request.ifr_flags = IFF_UP | IFF_NOARP;
    if (ioctl(packets, SIOCSIFFLAGS, &request) < 0 || ioctl(packets, SIOCGIFINDEX, &request) < 0 ||
        setsockopt(packets, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) < 0)
        return false;
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = request.ifr_ifindex};
    return bind(packets, (struct sockaddr *)&address, sizeof(address)) == 0;
}

static const char *begin(unsigned queue_pairs, uint64_t features, unsigned queues)
{
    struct net_options options = {
        .kind = VIAL_NET_TAP, .fd = -1, .path = "tap0", .queue_pairs = queue_pairs, .features = UINT32_MAX};
    if (net_driver_begin(&front, &options) < 0)
        return "the device could not be made";
    if (!open_packets(65521))
        return "no packets";
    if (!net_driver_start(&front, features | NET_F_MRG_RXBUF | NET_F_STATUS, queues, 4096))
        return "the device did not start";
    net_driver_fill(&front, 200);
    return NULL;
}

static ssize_t take(struct virtio_net_hdr *ret_header)
{
    struct iovec parts[2] = {{ret_header, sizeof(*ret_header)}, {got, sizeof(got)}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t length = recvmsg(packets, &message, MSG_DONTWAIT);
    return length < (ssize_t)sizeof(*ret_header) ? -1 : length - (ssize_t)sizeof(*ret_header);
}

static bool give(const struct virtio_net_hdr *given, size_t length)
{
    struct iovec parts[2] = {{(void *)(uintptr_t)given, sizeof(*given)}, {frame, length}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    bool is_given = sendmsg(packets, &message, MSG_DONTWAIT) == (ssize_t)(sizeof(*given) + length);
    virtio_driver_turn(&front.driver);
    return is_given;
}

/* TCP over IPv4, of which the checksum is left to be finished. */
static size_t make_long(size_t payload)
{
    size_t length = 54 + payload;
    net_driver_make_frame(frame, length, 3);
    static const uint8_t head[] = {0x08, 0x00, 0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2};
    memcpy(frame + 12, head, sizeof(head));
    frame[16] = (uint8_t)((length - 14) >> 8), frame[17] = (uint8_t)(length - 14);
    frame[46] = 0x50, frame[47] = 0x10;
    return length;
}

TEST(frames_go_both_ways)
{
    static const size_t lengths[] = {60, 1514, 9000, 30000, 65535};
    struct virtio_net_hdr none = {0};
    const char *wrong = enter();
    if (wrong != NULL) {
        leave();
        TEST_SKIP(wrong);
    }
    wrong = begin(1, 0, 3);
    CHECK_TEXT(wrong != NULL ? wrong : "", "");
    CHECK_INT(net_driver_offered(&front) & (NET_F_CSUM | NET_F_GUEST_CSUM | NET_F_GUEST_TSO4 | NET_F_HOST_TSO4),
              NET_F_CSUM | NET_F_GUEST_CSUM | NET_F_GUEST_TSO4 | NET_F_HOST_TSO4);
    for (unsigned i = 0; i < array_length(lengths); i++) {
        net_driver_make_frame(frame, lengths[i], i);
        CHECK(net_driver_send(&front, &plain, frame, lengths[i]));
        CHECK_INT(take(&none), lengths[i]);
        CHECK(net_driver_is_frame(got, lengths[i], i));
        net_driver_make_frame(frame, lengths[i], i + 10);
        none = (struct virtio_net_hdr){0};
        CHECK(give(&none, lengths[i]));
        CHECK_INT(net_driver_receive(&front, &header, got), lengths[i]);
        CHECK(net_driver_is_frame(got, lengths[i], i + 10));
        CHECK_INT(header.num_buffers, (lengths[i] + 12 + 4095) / 4096);
    }
    CHECK_INT(net_driver_stats(&front).received_drops + net_driver_stats(&front).transmitted_drops, 0);
    net_driver_end(&front);
    leave();
}

TEST(long_frames_stay_long_where_both_sides_want_them)
{
    struct virtio_net_hdr taken, given = {.flags = 1, .gso_type = 1, .hdr_len = 54, .gso_size = 1446};
    static const struct net_header tso = {1, NET_GSO_TCPV4, 54, 1446, 34, 16, 0};
    given.csum_start = 34, given.csum_offset = 16;
    const char *wrong = enter();
    if (wrong != NULL) {
        leave();
        TEST_SKIP(wrong);
    }
    uint64_t all = NET_F_CSUM | NET_F_HOST_TSO4 | NET_F_GUEST_CSUM | NET_F_GUEST_TSO4;
    wrong = begin(1, all, 3);
    CHECK_TEXT(wrong != NULL ? wrong : "", "");
    size_t length = make_long(40000);
    CHECK(net_driver_send(&front, &tso, frame, length));
    CHECK_INT(take(&taken), length);
    CHECK_INT(taken.gso_type, 1);
    CHECK_INT(taken.gso_size, 1446);
    CHECK(give(&given, length));
    CHECK_INT(net_driver_receive(&front, &header, got), length);
    CHECK_INT(header.gso_type, NET_GSO_TCPV4);
    CHECK_INT(header.flags & NET_NEEDS_CSUM, NET_NEEDS_CSUM);
    /* A driver that has agreed on nothing gets finished segments, and may ask for none. */
    CHECK(net_driver_start(&front, NET_F_MRG_RXBUF, 3, 4096));
    net_driver_fill(&front, 200);
    CHECK(give(&given, length));
    for (size_t i = 0, left = 40000; left > 0; i++) {
        size_t part = left < 1446 ? left : 1446;
        CHECK_INT(net_driver_receive(&front, &header, got), 54 + part);
        CHECK_INT(header.flags + header.gso_type, 0);
        left -= part;
    }
    CHECK(net_driver_send(&front, &tso, frame, length));
    CHECK_INT(net_driver_stats(&front).transmitted_drops, 1);
    net_driver_end(&front);
    leave();
}

static uint8_t control(uint8_t class, uint8_t command, uint16_t value, uint32_t length, bool has_room)
{
    uint8_t message[8] = {class, command, (uint8_t)value, (uint8_t)(value >> 8)};
    uint8_t ack = 0xff;
    uint32_t head, written;
    virtio_driver_put(&front.driver, VIRTIO_DRIVER_BUFFERS, message, sizeof(message));
    virtio_driver_put(&front.driver, VIRTIO_DRIVER_BUFFERS + 64, &ack, 1);
    virtio_driver_describe(&front.driver, 6, 0, VIRTIO_DRIVER_BUFFERS, length, has_room ? VIRTIO_DRIVER_NEXT : 0, 1);
    virtio_driver_describe(&front.driver, 6, 1, VIRTIO_DRIVER_BUFFERS + 64, 1, VIRTIO_DRIVER_WRITE, 0);
    virtio_driver_offer(&front.driver, 6, 0);
    virtio_driver_kick(&front.driver, 6);
    if (!virtio_driver_take(&front.driver, 6, &head, &written) || written != has_room)
        return 0xfe;
    memory_read(front.driver.memory, VIRTIO_DRIVER_BUFFERS + 64, &ack, 1);
    return ack;
}

TEST(several_queues)
{
    struct virtio_net_hdr taken;
    const char *wrong = enter();
    if (wrong != NULL) {
        leave();
        TEST_SKIP(wrong);
    }
    struct net_options options = {
        .kind = VIAL_NET_TAP, .fd = -1, .path = "tap0", .queue_pairs = 3, .features = UINT32_MAX};
    CHECK_INT(net_driver_begin(&front, &options), 0);
    CHECK(open_packets(1500));
    CHECK_INT(virtio_device_queue_count(front.driver.device), 7);
    /* The driver's queues have 256 entries, and control has 64. */
    front.receive_bytes = 4096;
    CHECK(virtio_driver_restart(&front.driver, NET_F_CTRL_VQ | NET_F_MQ | NET_F_MRG_RXBUF | NET_F_STATUS, 0x7f, 64));
    CHECK_INT(control(4, 0, 3, 4, true), 0);
    CHECK_INT(control(4, 0, 1, 4, true), 0);
    CHECK_INT(control(4, 0, 0, 4, true), 1);
    CHECK_INT(control(4, 0, 4, 4, true), 1);
    CHECK_INT(control(4, 0, 0x8000, 4, true), 1);
    CHECK_INT(control(4, 1, 2, 4, true), 1);
    CHECK_INT(control(0, 0, 1, 4, true), 1);
    CHECK_INT(control(4, 0, 2, 3, true), 1);
    CHECK_INT(control(4, 0, 2, 5, true), 1);
    CHECK_INT(control(4, 0, 2, 1, true), 1);
    uint64_t faults = virtio_device_faults(front.driver.device);
    CHECK_INT(control(4, 0, 2, 4, false), 0xff);
    CHECK_INT(virtio_device_faults(front.driver.device), faults + 1);
    net_driver_make_frame(frame, 100, 1);
    for (unsigned enabled = 1; enabled <= 3; enabled++) {
        CHECK_INT(control(4, 0, (uint16_t)enabled, 4, true), 0);
        CHECK_INT(net_driver_status(&front), 1);
        for (front.pair = 0; front.pair < 3; front.pair++) {
            uint64_t address = 0x200000;
            uint32_t head, written;
            virtio_driver_put(&front.driver, address, &plain, sizeof(plain));
            virtio_driver_put(&front.driver, address + sizeof(plain), frame, 100);
            virtio_driver_send(&front.driver, 2 * front.pair + 1, address, 112, 0);
            CHECK(virtio_driver_take(&front.driver, 2 * front.pair + 1, &head, &written));
            CHECK_INT(take(&taken), front.pair < enabled ? 100 : -1);
        }
    }
    net_driver_end(&front);
    leave();
}

/* As `ip link delete tap0` does. */
static bool remove_device(void)
{
    struct {
        struct nlmsghdr head;
        struct ifinfomsg body;
    } message = {.head = {.nlmsg_len = sizeof(message), .nlmsg_type = RTM_DELLINK, .nlmsg_flags = NLM_F_REQUEST}};
    struct ifreq request = {.ifr_name = "tap0"};
    auto_close int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0 || ioctl(packets, SIOCGIFINDEX, &request) < 0)
        return false;
    message.body.ifi_index = request.ifr_ifindex;
    return send(fd, &message, sizeof(message), 0) == sizeof(message) && if_nametoindex("tap0") == 0;
}

TEST(a_device_that_is_removed)
{
    const char *wrong = enter();
    if (wrong != NULL) {
        leave();
        TEST_SKIP(wrong);
    }
    wrong = begin(1, 0, 3);
    CHECK_TEXT(wrong != NULL ? wrong : "", "");
    CHECK_INT(net_driver_status(&front), 1);
    struct ifreq request = {.ifr_name = "tap0"};
    CHECK(ioctl(packets, SIOCSIFFLAGS, &request) == 0); /* down: frames are lost, the device is not */
    net_driver_make_frame(frame, 60, 1);
    CHECK(net_driver_send(&front, &plain, frame, 60));
    CHECK_INT(net_driver_stats(&front).transmitted_drops, 1);
    CHECK_INT(net_driver_status(&front), 1);
    struct virtio_device *second = NULL;
    struct net_options options = {.kind = VIAL_NET_TAP, .fd = -1, .path = "tap0", .queue_pairs = 1};
    CHECK_INT(net_new(&options, &second), -EBUSY);
    CHECK(remove_device());
    virtio_driver_turn(&front.driver);
    CHECK_INT(net_driver_status(&front), 0);
    CHECK(net_driver_send(&front, &plain, frame, 60));
    CHECK_INT(net_driver_stats(&front).transmitted_drops, 2);
    CHECK(net_driver_start(&front, NET_F_MRG_RXBUF | NET_F_STATUS, 3, 4096));
    net_driver_end(&front);
    leave();
}

TEST(net_over_a_tap_survives_no_memory)
{
    const char *wrong = enter();
    if (wrong != NULL) {
        leave();
        TEST_SKIP(wrong);
    }
    FOR_EACH_FAULT
    {
        struct virtio_device *device = NULL;
        struct net_options options = {.kind = VIAL_NET_TAP, .fd = -1, .path = "tap0", .queue_pairs = 2};
        CHECK_INT(net_new(&options, &device), fault_was_hit() ? -ENOMEM : 0);
        virtio_device_free(device);
    }
    leave();
}
