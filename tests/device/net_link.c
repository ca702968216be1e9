// SPDX-License-Identifier: Apache-2.0
/* The link of a network device: backends that die and come back, cables that are pulled out, sockets by path, and the
 * limits of speed.
 */
#include "test.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"
#include "net_driver.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct net_driver front;
static int pair[2];
static uint8_t frame[NET_DRIVER_LONGEST], got[NET_DRIVER_LONGEST + NET_DRIVER_SLOT_BYTES];
static struct net_header header, plain;

static void begin(int type, const struct net_options *more)
{
    struct net_options options = more != NULL ? *more : (struct net_options){0};
    if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair) < 0)
        abort();
    options.kind = type == SOCK_STREAM ? VIAL_NET_UNIXSTREAM : VIAL_NET_UNIXGRAM;
    options.fd = pair[1];
    options.queue_pairs = 1;
    if (net_driver_begin(&front, &options) < 0 || !net_driver_start(&front, NET_F_MRG_RXBUF | NET_F_STATUS, 3, 4096))
        abort();
    net_driver_fill(&front, 64);
    virtio_driver_interrupts(&front.driver);
    net_driver_make_frame(frame, sizeof(frame), 1);
}

static void end(void)
{
    net_driver_end(&front);
    fd_close(pair[0]), fd_close(pair[1]);
}

static bool give_stream(int fd, size_t length)
{
    uint32_t prefix = htonl((uint32_t)length);
    struct iovec parts[2] = {{&prefix, sizeof(prefix)}, {frame, length}};
    return writev(fd, parts, 2) == (ssize_t)(sizeof(prefix) + length);
}

/* ---- ends ---- */

TEST(an_end_takes_the_link_down)
{
    for (int has_chains = 0; has_chains < 2; has_chains++) {
        begin(SOCK_STREAM, NULL);
        if (!has_chains)
            CHECK(net_driver_start(&front, NET_F_MRG_RXBUF | NET_F_STATUS, 3, 4096));
        virtio_driver_interrupts(&front.driver);
        CHECK_INT(net_driver_status(&front), 1);
        uint32_t generation = virtio_device_config_generation(front.driver.device);
        pair[0] = fd_close(pair[0]);
        virtio_driver_turn(&front.driver);
        CHECK_INT(net_driver_status(&front), 0);
        CHECK(virtio_device_config_generation(front.driver.device) != generation);
        CHECK(virtio_driver_interrupts(&front.driver) > 0);
        for (unsigned i = 0; i < 200; i++) /* frames are dropped, and nothing waits */
            CHECK(net_driver_send(&front, &plain, frame, 1500));
        CHECK_INT(net_driver_stats(&front).transmitted_drops, 200);
        CHECK(net_driver_start(&front, NET_F_MRG_RXBUF | NET_F_STATUS, 3, 4096)); /* still so after a reset */
        CHECK_INT(net_driver_status(&front), 0);
        end();
    }
}

TEST(an_end_in_the_middle_of_a_frame)
{
    uint32_t prefix = htonl(1000);
    begin(SOCK_STREAM, NULL);
    CHECK(give_stream(pair[0], 60));
    CHECK_INT(write(pair[0], &prefix, 4), 4);
    CHECK_INT(write(pair[0], frame, 500), 500);
    pair[0] = fd_close(pair[0]);
    virtio_driver_turn(&front.driver);
    CHECK_INT(net_driver_receive(&front, &header, got), 60);
    CHECK_INT(net_driver_receive(&front, &header, got), -1);
    CHECK_INT(net_driver_status(&front), 0);
    end();
}

TEST(an_end_while_the_guest_waits)
{
    begin(SOCK_STREAM, NULL);
    for (unsigned i = 0; i < NET_DRIVER_SLOTS; i++)
        CHECK(net_driver_offer(&front, &plain, frame, 60000, 0));
    net_driver_kick(&front);
    CHECK(net_driver_reap(&front) < NET_DRIVER_SLOTS);
    pair[0] = fd_close(pair[0]);
    virtio_driver_turn(&front.driver);
    net_driver_reap(&front);
    CHECK_INT(front.sent, 0);
    CHECK_INT(net_driver_status(&front), 0);
    end();
}

TEST(who_sends_to_nobody_loses_the_link)
{
    begin(SOCK_DGRAM, NULL);
    pair[0] = fd_close(pair[0]);
    CHECK(net_driver_send(&front, &plain, frame, 60));
    CHECK_INT(net_driver_status(&front), 0);
    CHECK_INT(net_driver_stats(&front).transmitted_drops, 1);
    end();
}

TEST(an_end_before_the_driver_is_there)
{
    struct net_options options = {.kind = VIAL_NET_UNIXSTREAM, .queue_pairs = 1};
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    options.fd = pair[1];
    CHECK_INT(net_driver_begin(&front, &options), 0);
    pair[0] = fd_close(pair[0]);
    virtio_driver_turn(&front.driver);
    CHECK_INT(net_driver_status(&front), 0);
    CHECK(net_driver_start(&front, NET_F_STATUS, 3, 4096));
    end();
}

/* ---- the cable ---- */

TEST(a_cable_that_is_pulled_out)
{
    begin(SOCK_STREAM, NULL);
    CHECK(give_stream(pair[0], 60));
    virtio_driver_turn(&front.driver);
    CHECK_INT(net_driver_receive(&front, &header, got), 60);
    net_set_link(front.driver.device, false);
    CHECK_INT(net_driver_status(&front), 0);
    CHECK(virtio_driver_interrupts(&front.driver) > 0);
    CHECK(give_stream(pair[0], 61));
    CHECK(net_driver_send(&front, &plain, frame, 62));
    CHECK_INT(net_driver_receive(&front, &header, got), -1);
    CHECK_INT(recv(pair[0], got, sizeof(got), MSG_DONTWAIT), -1);
    CHECK_INT(net_driver_stats(&front).received_drops, 1);
    CHECK_INT(net_driver_stats(&front).transmitted_drops, 1);
    net_set_link(front.driver.device, false);
    net_set_link(front.driver.device, true);
    CHECK_INT(net_driver_status(&front), 1);
    CHECK(give_stream(pair[0], 63));
    virtio_driver_turn(&front.driver);
    CHECK_INT(net_driver_receive(&front, &header, got), 63);
    CHECK(net_driver_send(&front, &plain, frame, 64));
    CHECK_INT(recv(pair[0], got, sizeof(got), MSG_DONTWAIT), 68);
    end();
}

TEST(frames_longer_than_the_mtu_are_dropped)
{
    begin(SOCK_STREAM, &(struct net_options){.mtu = 1500});
    CHECK(net_driver_start(&front, NET_F_MRG_RXBUF | NET_F_MTU, 3, 4096));
    net_driver_fill(&front, 64);
    CHECK(give_stream(pair[0], 1519) && give_stream(pair[0], 1518));
    virtio_driver_turn(&front.driver);
    CHECK_INT(net_driver_receive(&front, &header, got), 1518);
    CHECK_INT(net_driver_stats(&front).received_drops, 1);
    end();
}

/* ---- by path ---- */

static struct sockaddr_un address_of(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%.80s/%.16s", test_folder(), name);
    return address;
}

static int listen_at(int type)
{
    struct sockaddr_un address = address_of("peer");
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    unlink(address.sun_path);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || (type == SOCK_STREAM && listen(fd, 4) < 0))
        abort();
    return fd;
}

/* A connection, or a datagram's arrival; waits for it. */
static bool comes(int fd)
{
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    return poll(&wanted, 1, 10000) == 1;
}

/* A launched device's link becomes this. */
static bool becomes(uint16_t status)
{
    uint64_t deadline_ns = clock_deadline_ns(10 * CLOCK_NS_PER_S);
    while (net_driver_status(&front) != status && clock_now_ns() < deadline_ns)
        virtio_driver_wait(&front.driver);
    return net_driver_status(&front) == status;
}

static int begin_at_path(enum vial_net_kind kind, bool vfkit)
{
    struct sockaddr_un address = address_of("peer");
    struct net_options options = {.kind = kind, .fd = -1, .path = address.sun_path, .vfkit = vfkit, .queue_pairs = 1};
    int result = net_driver_begin(&front, &options);
    if (result < 0)
        return result;
    front.driver.is_launched = true;
    if (virtio_device_launch(front.driver.device) < 0 ||
        !net_driver_start(&front, NET_F_MRG_RXBUF | NET_F_STATUS, 3, 4096))
        abort();
    net_driver_fill(&front, 64);
    net_driver_make_frame(frame, sizeof(frame), 1);
    return 0;
}

TEST(a_stream_that_comes_back)
{
    int listener = listen_at(SOCK_STREAM);
    CHECK_INT(begin_at_path(VIAL_NET_UNIXSTREAM, false), 0);
    for (unsigned round = 0; round < 3; round++) {
        CHECK(comes(listener));
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        CHECK(fd >= 0 && becomes(1));
        CHECK(give_stream(fd, 100 + round));
        ssize_t length = -1;
        while ((length = net_driver_receive(&front, &header, got)) == -1)
            CHECK(virtio_driver_wait(&front.driver));
        CHECK_INT(length, 100 + round);
        CHECK(net_driver_offer(&front, &plain, frame, 200 + round, 0));
        net_driver_kick(&front);
        CHECK(comes(fd));
        CHECK_INT(recv(fd, got, 204 + round, MSG_WAITALL), 204 + round);
        if (round == 1) { /* the helper itself is gone for a while */
            listener = fd_close(listener);
            fd_close(fd);
            CHECK(becomes(0));
            listener = listen_at(SOCK_STREAM);
        } else {
            CHECK_INT(write(fd, &plain, 4), 4); /* a length of 0, so that it is noticed which one has ended */
            CHECK(recv(fd, got, 1, MSG_WAITALL) <= 0);
            fd_close(fd);
        }
    }
    net_driver_end(&front);
    fd_close(listener);
}

TEST(datagrams_by_path)
{
    struct sockaddr_un from;
    for (int vfkit = 0; vfkit < 2; vfkit++) {
        int fd = listen_at(SOCK_DGRAM);
        socklen_t size = sizeof(from);
        CHECK_INT(begin_at_path(VIAL_NET_UNIXGRAM, vfkit), 0);
        if (vfkit) {
            CHECK(comes(fd));
            CHECK_INT(recv(fd, got, sizeof(got), 0), 4);
            CHECK(memcmp(got, "VFKT", 4) == 0);
        }
        CHECK(net_driver_offer(&front, &plain, frame, 1000, 0));
        net_driver_kick(&front);
        CHECK(comes(fd));
        CHECK_INT(recvfrom(fd, got, sizeof(got), 0, (struct sockaddr *)&from, &size), 1000);
        CHECK(strstr(from.sun_path, "peer-vial-") != NULL);
        CHECK_INT(sendto(fd, frame, 2000, 0, (struct sockaddr *)&from, size), 2000);
        ssize_t length = -1;
        while ((length = net_driver_receive(&front, &header, got)) == -1)
            CHECK(virtio_driver_wait(&front.driver));
        CHECK_INT(length, 2000);
        /* Another one in its place: noticed by the next frame. */
        fd_close(fd);
        fd = listen_at(SOCK_DGRAM);
        net_driver_reap(&front);
        CHECK(net_driver_offer(&front, &plain, frame, 1000, 0));
        net_driver_kick(&front);
        if (vfkit) {
            CHECK(comes(fd));
            CHECK_INT(recv(fd, got, sizeof(got), 0), 4);
        }
        CHECK(becomes(1));
        net_driver_end(&front);
        CHECK(access(from.sun_path, F_OK) < 0); /* nothing is left behind */
        DIR *folder = opendir(test_folder());
        unsigned count = 0;
        for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder))
            count += entry->d_name[0] != '.';
        closedir(folder);
        CHECK_INT(count, 1);
        fd_close(fd);
    }
}

TEST(paths_that_cannot_be)
{
    struct sockaddr_un address = address_of("peer");
    CHECK_INT(begin_at_path(VIAL_NET_UNIXSTREAM, false), -ENOENT);
    CHECK_INT(begin_at_path(VIAL_NET_UNIXGRAM, false), -ENOENT);
    int fd = listen_at(SOCK_STREAM);
    CHECK_INT(begin_at_path(VIAL_NET_UNIXGRAM, false), -EPROTOTYPE);
    fd_close(fd);
    CHECK_INT(begin_at_path(VIAL_NET_UNIXSTREAM, false), -ECONNREFUSED);
    CHECK(unlink(address.sun_path) == 0);
    char path[200];
    memset(path, 'x', sizeof(path)), path[199] = '\0';
    struct net_options options = {.kind = VIAL_NET_UNIXSTREAM, .fd = -1, .path = path, .queue_pairs = 1};
    struct virtio_device *device = NULL;
    CHECK_INT(net_new(&options, &device), -ENAMETOOLONG);
    options.kind = VIAL_NET_UNIXGRAM;
    path[100] = '\0'; /* with room for itself, but not for ours beside it */
    CHECK_INT(net_new(&options, &device), -ENAMETOOLONG);
}

/* ---- limits ---- */

/* Waits for a launched device's interrupts until so many frames are through: how long that took. */
static uint64_t time_sent(unsigned count, size_t length)
{
    uint64_t from_ns = clock_now_ns();
    for (unsigned i = 0; i < count; i++)
        net_driver_offer(&front, &plain, frame, length, 0);
    net_driver_kick(&front);
    while (front.sent > 0)
        if (net_driver_reap(&front) == 0 && !virtio_driver_wait(&front.driver))
            return 0;
    return clock_now_ns() - from_ns;
}

static uint64_t time_received(unsigned count, size_t length)
{
    uint64_t from_ns = clock_now_ns();
    for (unsigned i = 0; i < count; i++)
        if (!give_stream(pair[0], length))
            return 0;
    for (unsigned i = 0; i < count; i++)
        while (net_driver_receive(&front, &header, got) != (ssize_t)length)
            if (!virtio_driver_wait(&front.driver))
                return 0;
    return clock_now_ns() - from_ns;
}

static void launch(const struct net_options *options)
{
    begin(SOCK_STREAM, options);
    front.driver.is_launched = true;
    if (virtio_device_launch(front.driver.device) < 0)
        abort();
}

TEST(a_device_keeps_to_its_limits)
{
    struct rate_limits frames = {.operations_per_second = 100, .burst_operations = 10};
    struct rate_limits bytes = {.bytes_per_second = 100000, .burst_bytes = 10000};
    launch(&(struct net_options){.transmit = frames, .receive = bytes});
    uint64_t took_ns = time_sent(40, 60); /* 30 of them at 100 a second */
    CHECK(took_ns > 250 * CLOCK_NS_PER_MS && took_ns < 3000 * CLOCK_NS_PER_MS);
    took_ns = time_received(40, 1000); /* 30 KB at 100 a second */
    CHECK(took_ns > 250 * CLOCK_NS_PER_MS && took_ns < 3000 * CLOCK_NS_PER_MS);
    end();
    launch(&(struct net_options){.transmit = bytes, .receive = frames});
    took_ns = time_sent(40, 1000);
    CHECK(took_ns > 250 * CLOCK_NS_PER_MS && took_ns < 3000 * CLOCK_NS_PER_MS);
    took_ns = time_received(40, 60);
    CHECK(took_ns > 250 * CLOCK_NS_PER_MS && took_ns < 3000 * CLOCK_NS_PER_MS);
    CHECK_INT(net_driver_stats(&front).received_drops + net_driver_stats(&front).transmitted_drops, 0);
    end();
}

TEST(a_reset_does_not_wait_for_the_limits)
{
    struct rate_limits bytes = {.bytes_per_second = 1, .burst_bytes = 1};
    begin(SOCK_STREAM, &(struct net_options){.transmit = bytes, .receive = bytes});
    CHECK(net_driver_send(&front, &plain, frame, 1000)); /* paid for in a quarter of an hour */
    CHECK(!net_driver_send(&front, &plain, frame, 1000));
    CHECK(give_stream(pair[0], 60) && give_stream(pair[0], 60));
    virtio_driver_turn(&front.driver);
    CHECK_INT(net_driver_receive(&front, &header, got), 60);
    CHECK_INT(net_driver_receive(&front, &header, got), -1);
    CHECK(net_driver_start(&front, NET_F_MRG_RXBUF, 3, 4096));
    end();
}
