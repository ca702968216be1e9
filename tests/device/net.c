// SPDX-License-Identifier: Apache-2.0
/* The network device against a driver and a peer: frames of every length, both ways, over every kind of backend. */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "net_driver.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define MERGED NET_F_MRG_RXBUF

static struct net_driver front;
static struct net_header header, plain;
static uint8_t frame[NET_DRIVER_LONGEST + 16], got[NET_DRIVER_LONGEST + NET_DRIVER_SLOT_BYTES];
static const size_t lengths[] = {14,   15,   60,    63,    64,    1500,  1513,  1514,  1515, 1600,
                                 4096, 9000, 16384, 30000, 65535, 65536, 65549, 65550, 14};

/* ---- peers ---- */

struct peer {
    enum vial_net_kind kind;
    int fd, other;                       /* of a socketpair */
    uint8_t waiting[NET_DRIVER_LONGEST]; /* a frame for a custom backend */
    size_t waiting_bytes;
    uint8_t sent[NET_DRIVER_LONGEST];
    size_t sent_bytes;
};

static struct peer peer;

static int take_custom(void *user, const struct iovec *parts, int count)
{
    struct peer *own = user;
    if (own->sent_bytes > 0)
        return -EAGAIN;
    for (int i = 0; i < count; i++) {
        memcpy(own->sent + own->sent_bytes, parts[i].iov_base, parts[i].iov_len);
        own->sent_bytes += parts[i].iov_len;
    }
    return 0;
}

static ssize_t give_custom(void *user, void *bytes, size_t size)
{
    struct peer *own = user;
    size_t length = own->waiting_bytes;
    if (length == 0 || length > size)
        return length == 0 ? -EAGAIN : -EMSGSIZE;
    memcpy(bytes, own->waiting, length);
    own->waiting_bytes = 0;
    return (ssize_t)length;
}

static int poll_custom(void *user)
{
    const struct peer *own = user;
    return own->other;
}

static const struct vial_net_ops custom_ops = {sizeof(custom_ops), take_custom, give_custom, poll_custom, NULL};

static bool begin(enum vial_net_kind kind, const struct net_options *more)
{
    struct net_options options = more != NULL ? *more : (struct net_options){0};
    static const uint8_t mac[6] = {2, 1, 2, 3, 4, 5};
    int pair[2] = {-1, -1};
    if (kind == VIAL_NET_CUSTOM)
        pair[0] = pair[1] = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC); /* always both */
    else if (socketpair(AF_UNIX, (kind == VIAL_NET_UNIXGRAM ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0, pair) < 0)
        return false;
    peer = (struct peer){.kind = kind, .fd = pair[0], .other = pair[1]};
    options.kind = kind;
    options.fd = kind == VIAL_NET_CUSTOM ? -1 : pair[1];
    options.ops = &custom_ops;
    options.ops_user = &peer;
    options.queue_pairs = 1;
    memcpy(options.mac, mac, sizeof(mac));
    return net_driver_begin(&front, &options) == 0;
}

static void close_peer(void)
{
    if (peer.other != peer.fd)
        fd_close(peer.other);
    fd_close(peer.fd);
    peer.fd = peer.other = -1;
}

static void end(void)
{
    net_driver_end(&front);
    close_peer();
}

/* Gives the device a frame; false when the socket is full. */
static bool give(const void *bytes, size_t length)
{
    uint32_t prefix = htonl((uint32_t)length);
    struct iovec parts[2] = {{&prefix, sizeof(prefix)}, {(void *)(uintptr_t)bytes, length}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    if (peer.kind == VIAL_NET_CUSTOM) {
        memcpy(peer.waiting, bytes, length);
        peer.waiting_bytes = length;
        virtio_driver_turn(&front.driver);
        return true;
    }
    if (peer.kind == VIAL_NET_UNIXGRAM)
        message = (struct msghdr){.msg_iov = parts + 1, .msg_iovlen = 1};
    ssize_t sent = sendmsg(peer.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    virtio_driver_turn(&front.driver);
    return sent == (ssize_t)(length + (peer.kind == VIAL_NET_UNIXSTREAM ? sizeof(prefix) : 0));
}

static bool read_whole(void *bytes, size_t length)
{
    for (size_t done = 0; done < length;) {
        virtio_driver_turn(&front.driver);
        struct pollfd wanted = {.fd = peer.fd, .events = POLLIN};
        if (poll(&wanted, 1, 5000) != 1)
            return false;
        ssize_t part = recv(peer.fd, (uint8_t *)bytes + done, length - done, MSG_DONTWAIT);
        if (part <= 0)
            return false;
        done += (size_t)part;
    }
    return true;
}

/* Takes a frame that the device has sent: its length, or -1. */
static ssize_t take(uint8_t *bytes)
{
    uint32_t prefix = 0;
    if (peer.kind == VIAL_NET_CUSTOM) {
        ssize_t length = peer.sent_bytes > 0 ? (ssize_t)peer.sent_bytes : -1;
        memcpy(bytes, peer.sent, peer.sent_bytes);
        peer.sent_bytes = 0;
        virtio_driver_turn(&front.driver);
        return length;
    }
    if (peer.kind == VIAL_NET_UNIXGRAM) {
        virtio_driver_turn(&front.driver);
        return recv(peer.fd, bytes, NET_DRIVER_LONGEST, MSG_DONTWAIT);
    }
    if (!read_whole(&prefix, sizeof(prefix)) || ntohl(prefix) > NET_DRIVER_LONGEST || !read_whole(bytes, ntohl(prefix)))
        return -1;
    return (ssize_t)ntohl(prefix);
}

/* ---- what it is ---- */

TEST(it_says_what_it_is)
{
    static const uint8_t mac[6] = {2, 1, 2, 3, 4, 5};
    uint8_t config[12], offered[12] = {0};
    CHECK(begin(VIAL_NET_UNIXSTREAM, &(struct net_options){.mtu = 65520}));
    CHECK_INT(virtio_driver_read(&front.driver, 0x008), 1);
    virtio_device_read_config(front.driver.device, 0, config, sizeof(config));
    memcpy(offered, mac, sizeof(mac));
    offered[6] = 1, offered[8] = 1, offered[10] = 65520 & 0xff, offered[11] = 65520 >> 8;
    CHECK(memcmp(config, offered, sizeof(config)) == 0);
    CHECK_INT(net_driver_offered(&front) & 0xffffff, NET_F_MAC | NET_F_STATUS | NET_F_MRG_RXBUF | NET_F_MTU);
    CHECK_INT(virtio_device_queue_count(front.driver.device), 2);
    end();
}

TEST(offloads_are_offered_where_somebody_does_them)
{
    uint32_t all = VIAL_NET_FEATURE_CSUM | VIAL_NET_FEATURE_GUEST_CSUM | VIAL_NET_FEATURE_GUEST_TSO4 |
                   VIAL_NET_FEATURE_GUEST_TSO6 | VIAL_NET_FEATURE_GUEST_UFO | VIAL_NET_FEATURE_HOST_TSO4 |
                   VIAL_NET_FEATURE_HOST_TSO6 | VIAL_NET_FEATURE_HOST_UFO;
    CHECK(begin(VIAL_NET_UNIXGRAM, &(struct net_options){.features = all}));
    CHECK_INT(net_driver_offered(&front) & all, NET_F_CSUM | NET_F_HOST_TSO4 | NET_F_HOST_TSO6);
    end();
    CHECK(begin(VIAL_NET_UNIXGRAM, &(struct net_options){.features = VIAL_NET_FEATURE_HOST_TSO4}));
    CHECK_INT(net_driver_offered(&front) & all, 0); /* not without checksums */
    end();
}

TEST(options_that_cannot_be)
{
    struct virtio_device *device = NULL;
    int fd = eventfd(0, EFD_CLOEXEC);
    struct net_options options = {.kind = VIAL_NET_UNIXSTREAM, .fd = fd, .queue_pairs = 1};
    CHECK_INT(net_new(&options, &device), -ENOTSOCK);
    options.queue_pairs = 2;
    CHECK_INT(net_new(&options, &device), -EINVAL);
    options.queue_pairs = 0;
    CHECK_INT(net_new(&options, &device), -EINVAL);
    options = (struct net_options){.kind = VIAL_NET_UNIXSTREAM, .fd = -1, .queue_pairs = 1};
    CHECK_INT(net_new(&options, &device), -EINVAL);
    options.path = "/nonexistent/socket";
    CHECK_INT(net_new(&options, &device), -ENOENT);
    options.mtu = 67;
    CHECK_INT(net_new(&options, &device), -EINVAL);
    options = (struct net_options){.kind = VIAL_NET_CUSTOM, .fd = -1, .queue_pairs = 1};
    CHECK_INT(net_new(&options, &device), -EINVAL);
    options = (struct net_options){.kind = VIAL_NET_TAP, .fd = -1, .path = "", .queue_pairs = 1};
    CHECK_INT(net_new(&options, &device), -EINVAL);
    fd_close(fd);
}

/* ---- frames ---- */

/* Every length goes both ways, with buffers of this size. */
static bool moves_all(uint64_t features, uint32_t receive_bytes, unsigned buffers)
{
    if (!net_driver_start(&front, features, 3, receive_bytes))
        return false;
    net_driver_fill(&front, buffers);
    for (unsigned i = 0; i < array_length(lengths); i++) {
        net_driver_make_frame(frame, lengths[i], i);
        if (!net_driver_send(&front, &plain, frame, lengths[i]) || take(got) != (ssize_t)lengths[i] ||
            !net_driver_is_frame(got, lengths[i], i))
            return false;
        net_driver_make_frame(frame, lengths[i], i + 100);
        if (!give(frame, lengths[i]) || net_driver_receive(&front, &header, got) != (ssize_t)lengths[i] ||
            !net_driver_is_frame(got, lengths[i], i + 100))
            return false;
        size_t total = lengths[i] + sizeof(header);
        if (header.flags != 0 || header.gso_type != 0 ||
            header.num_buffers != (total + receive_bytes - 1) / receive_bytes)
            return false;
    }
    return net_driver_stats(&front).received_drops == 0 && net_driver_stats(&front).transmitted_drops == 0;
}

TEST(frames_of_every_length_go_both_ways)
{
    static const enum vial_net_kind kinds[] = {VIAL_NET_UNIXSTREAM, VIAL_NET_UNIXGRAM, VIAL_NET_CUSTOM};
    for (size_t i = 0; i < array_length(kinds); i++) {
        CHECK(begin(kinds[i], NULL));
        CHECK(moves_all(MERGED, 1526, 200));
        CHECK(moves_all(MERGED | VIRTIO_F_EVENT_IDX, 4096, 32));
        CHECK(moves_all(MERGED, NET_DRIVER_SLOT_BYTES, 8));
        CHECK(
            moves_all(MERGED, 65562, 4)); /* the longest frame to the byte: not straight, as one longer were not seen */
        CHECK(moves_all(0, NET_DRIVER_SLOT_BYTES, 8));
        CHECK(moves_all(0, 65562, 1));
        CHECK(moves_all(MERGED, 300, 256));
        struct net_stats stats = net_driver_stats(&front);
        CHECK_INT(stats.transmitted_frames, 7 * array_length(lengths));
        CHECK_INT(stats.received_frames, 7 * array_length(lengths));
        CHECK_INT(stats.received_bytes, stats.transmitted_bytes);
        CHECK_INT(virtio_device_faults(front.driver.device), 0);
        end();
    }
}

TEST(a_frame_may_lie_in_any_pieces)
{
    CHECK(begin(VIAL_NET_UNIXSTREAM, NULL));
    CHECK(net_driver_start(&front, MERGED, 3, 1526));
    net_driver_make_frame(frame, 1500, 1);
    for (size_t piece = 1; piece < 40; piece++) { /* headers are cut, too */
        CHECK(net_driver_offer(&front, &plain, frame, 1500, piece));
        net_driver_kick(&front);
        CHECK_INT(net_driver_reap(&front), 1);
        CHECK_INT(take(got), 1500);
        CHECK(net_driver_is_frame(got, 1500, 1));
    }
    end();
}

TEST(many_frames_at_once)
{
    for (int kind = VIAL_NET_UNIXGRAM; kind <= VIAL_NET_UNIXSTREAM; kind++) {
        CHECK(begin((enum vial_net_kind)kind, NULL));
        CHECK(net_driver_start(&front, MERGED, 3, 1526));
        for (unsigned i = 0; i < 60; i++) {
            net_driver_make_frame(frame, 14 + 20 * i, i);
            CHECK(net_driver_offer(&front, &plain, frame, 14 + 20 * i, i % 3 * 40));
        }
        net_driver_kick(&front);
        CHECK_INT(net_driver_reap(&front), 60);
        for (unsigned i = 0; i < 60; i++) {
            CHECK_INT(take(got), 14 + 20 * i);
            CHECK(net_driver_is_frame(got, 14 + 20 * i, i));
        }
        end();
    }
}

/* ---- pace ---- */

TEST(a_peer_that_is_slow_loses_nothing)
{
    static const enum vial_net_kind kinds[] = {VIAL_NET_UNIXSTREAM, VIAL_NET_UNIXGRAM, VIAL_NET_CUSTOM};
    for (size_t k = 0; k < array_length(kinds); k++) {
        unsigned sent = 0, taken = 0, idle = 0;
        CHECK(begin(kinds[k], NULL));
        CHECK(net_driver_start(&front, MERGED, 3, 1526));
        while (taken < 1000 && idle < 100) {
            for (;;) { /* as many as there is room for */
                size_t length = 14 + sent * 2654435761u % 65537;
                net_driver_reap(&front);
                net_driver_make_frame(frame, length, sent);
                if (sent == 1000 || !net_driver_offer(&front, &plain, frame, length, 0))
                    break;
                net_driver_kick(&front);
                sent++;
            }
            size_t length = 14 + taken * 2654435761u % 65537;
            ssize_t result = take(got);
            idle += result < 0;
            if (result < 0)
                continue;
            CHECK_INT(result, length);
            CHECK(net_driver_is_frame(got, length, taken));
            taken++;
        }
        CHECK_INT(taken, 1000);
        CHECK_INT(net_driver_stats(&front).transmitted_drops, 0);
        end();
    }
}

TEST(a_guest_that_is_slow_loses_nothing)
{
    unsigned given = 0, taken = 0, rounds = 0;
    CHECK(begin(VIAL_NET_UNIXSTREAM, NULL));
    CHECK(net_driver_start(&front, MERGED, 3, 4096));
    while (given < 3) { /* nobody takes them */
        net_driver_make_frame(frame, 30000, given);
        CHECK(give(frame, 30000));
        given++;
    }
    CHECK_INT(net_driver_receive(&front, &header, got), -1);
    net_driver_fill(&front, 1); /* too little for one */
    CHECK_INT(net_driver_receive(&front, &header, got), -1);
    net_driver_fill(&front, 16);
    for (; taken < 500 && rounds < 5000; rounds++) {
        net_driver_make_frame(frame, 30000, given);
        struct pollfd room = {.fd = peer.fd, .events = POLLOUT};
        if (given < 500 && poll(&room, 1, 0) == 1) {
            CHECK(give(frame, 30000)); /* a socket that is writable has room for it */
            given++;
        }
        ssize_t result = net_driver_receive(&front, &header, got);
        if (result < 0)
            continue;
        CHECK_INT(result, 30000);
        CHECK(net_driver_is_frame(got, 30000, taken));
        taken++;
    }
    CHECK_INT(taken, 500);
    CHECK_INT(net_driver_stats(&front).received_drops, 0);
    end();
}

TEST(net_survives_no_memory)
{
    static const enum vial_net_kind kinds[] = {VIAL_NET_UNIXSTREAM, VIAL_NET_UNIXGRAM, VIAL_NET_CUSTOM};
    for (size_t k = 0; k < array_length(kinds); k++)
        FOR_EACH_FAULT
        {
            struct virtio_device *device = NULL;
            int pair[2];
            int type = kinds[k] == VIAL_NET_UNIXGRAM ? SOCK_DGRAM : SOCK_STREAM;
            CHECK(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair) == 0);
            peer.other = pair[1];
            struct net_options options = {
                .kind = kinds[k],
                .fd = kinds[k] == VIAL_NET_CUSTOM ? -1 : pair[1],
                .ops = &custom_ops,
                .ops_user = &peer,
                .queue_pairs = 1,
            };
            CHECK_INT(net_new(&options, &device), fault_was_hit() ? -ENOMEM : 0);
            virtio_device_free(device);
            fd_close(pair[0]), fd_close(pair[1]);
        }
}
