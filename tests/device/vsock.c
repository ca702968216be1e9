// SPDX-License-Identifier: Apache-2.0
/* The virtio socket device against a driver: streams both ways, each direction's end, credit, and many at once. */
#include "vsock_driver.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/limits.h"
#include "device/vsock/listener.h"

#include <errno.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SERVED = 1000, TAKEN = 2000, GUEST = 40000, ROOM = 64 << 10 };

static int server; /* what the guest reaches at port SERVED */

/* Port SERVED leads to a socket of the test's, and a socket "in" to port TAKEN of the guest. */
static void begin_with(unsigned receive_buffers)
{
    struct vsock_port ports[] = {
        {.port = SERVED, .path = host_path("out")},
        {.port = TAKEN, .path = host_path("in"), .listens = true},
    };
    struct vsock_options options = {.ports = ports, .port_count = array_length(ports)};
    server = host_listen(host_path("out"), 4096);
    vsock_begin(&options, 0, receive_buffers);
}

static void begin(void)
{
    begin_with(VSOCK_ENTRIES);
}

static void end(void)
{
    vsock_end();
    server = fd_close(server);
}

/* The guest connects to SERVED: its host's side, or -1. */
static int connect_out(struct guest_stream *stream, uint32_t guest_port)
{
    *stream = (struct guest_stream){.guest_port = guest_port, .host_port = SERVED, .room = ROOM};
    struct packet_header header = vsock_header(PACKET_REQUEST, guest_port, SERVED);
    header.buffer_bytes = ROOM;
    vsock_send_raw(&header, NULL, 0);
    guest_hear_all(stream, 1);
    return stream->is_open ? host_accept(server) : -1;
}

/* The host connects to TAKEN: its side of the socket. */
static int connect_in(struct guest_stream *stream)
{
    struct packet_header header;
    uint8_t bytes[VSOCK_RECEIVE_BYTES];
    int fd = host_connect(host_path("in"));
    vsock_turn();
    if (!vsock_hear(&header, bytes) || header.operation != PACKET_REQUEST || header.target_port != TAKEN)
        return fd_close(fd);
    *stream = (struct guest_stream){.guest_port = TAKEN, .host_port = header.source_port, .room = ROOM};
    guest_take(stream, &header, bytes);
    return fd;
}

/* Reads what there is at the host: how much, or 0 at the end, or -1 for nothing now; counts bytes that are wrong. */
static ssize_t host_read(int fd, uint32_t port, uint64_t at, size_t most, uint64_t *bad)
{
    static uint8_t bytes[256 << 10];
    ssize_t got = read(fd, bytes, most < sizeof(bytes) ? most : sizeof(bytes));
    for (ssize_t i = 0; i < got; i++)
        *bad += bytes[i] != vsock_pattern(port, at + (uint64_t)i);
    return got;
}

static ssize_t host_write(int fd, uint32_t port, uint64_t at, size_t most)
{
    static uint8_t bytes[64 << 10];
    size_t length = most < sizeof(bytes) ? most : sizeof(bytes);
    for (size_t i = 0; i < length; i++)
        bytes[i] = vsock_pattern(port, at + i);
    return send(fd, bytes, length, MSG_NOSIGNAL);
}

/* Nothing moves for a reader that has ended: what it reads. */
static ssize_t read_byte(int fd)
{
    char byte;
    return read(fd, &byte, 1);
}

/* ---- what it is ---- */

TEST(it_says_what_it_is)
{
    begin();
    CHECK_INT(virtio_driver_read(&driver, 0x008), 19);
    CHECK_INT(virtio_driver_read(&driver, 0x100), 3);
    CHECK_INT(virtio_driver_read(&driver, 0x104), 0);
    virtio_driver_write(&driver, 0x014, 0);
    CHECK_INT(virtio_driver_read(&driver, 0x010) & 0xff, 1); /* streams, and no datagrams: nobody takes any */
    for (uint32_t i = 0; i < 4; i++) {
        virtio_driver_write(&driver, 0x030, i);
        CHECK_INT(virtio_driver_read(&driver, 0x034), i < 3 ? 256 : 0);
    }
    end();
}

/* ---- connecting ---- */

TEST(the_guest_connects)
{
    struct guest_stream stream;
    begin();
    int fd = connect_out(&stream, GUEST);
    CHECK(fd >= 0);
    CHECK_INT(stream.host_room, LIMIT_VSOCK_STREAM_BYTES);
    CHECK_INT(guest_send(&stream, 5), 5);
    uint64_t bad = 0;
    CHECK_INT(host_read(fd, GUEST, 0, 100, &bad), 5);
    CHECK_INT(host_write(fd, GUEST, 0, 70), 70);
    vsock_turn();
    guest_hear_all(&stream, 1);
    CHECK_INT(stream.received, 70);
    CHECK_INT(stream.bad_bytes + bad, 0);
    fd_close(fd);
    end();
}

TEST(the_host_connects)
{
    struct guest_stream stream;
    begin();
    int fd = connect_in(&stream);
    CHECK(fd >= 0);
    CHECK_INT(guest_send(&stream, 3000), 3000);
    uint64_t bad = 0;
    CHECK_INT(host_read(fd, TAKEN, 0, 4000, &bad), 3000);
    CHECK_INT(host_write(fd, TAKEN, 0, 9000), 9000); /* more than one buffer of the guest's */
    vsock_turn();
    guest_hear_all(&stream, 1);
    CHECK_INT(stream.received, 9000);
    CHECK_INT(stream.bad_bytes + bad, 0);
    fd_close(fd);
    end();
}

TEST(what_leads_nowhere_is_refused)
{
    begin();
    CHECK(vsock_say(PACKET_REQUEST, GUEST, 77));
    CHECK_TEXT(vsock_hear_text(), "RST 40000<77 0 0");
    server = fd_close(server);
    CHECK(vsock_say(PACKET_REQUEST, GUEST, SERVED));
    CHECK_TEXT(vsock_hear_text(), "RST 40000<1000 0 0");
    unlink(host_path("out"));
    CHECK(vsock_say(PACKET_REQUEST, GUEST, SERVED));
    CHECK_TEXT(vsock_hear_text(), "RST 40000<1000 0 0");
    CHECK_TEXT(vsock_hear_text(), "none");
    CHECK_INT(virtio_device_faults(driver.device), 0);
    end();
}

TEST(a_server_whose_backlog_is_full_refuses)
{
    begin();
    fd_close(server);
    unlink(host_path("out"));
    server = host_listen(host_path("out"), 1);
    for (uint32_t i = 0; i < 2; i++) {
        CHECK(vsock_say(PACKET_REQUEST, GUEST + i, SERVED));
        CHECK(strncmp(vsock_hear_text(), "RESPONSE", 8) == 0);
    }
    CHECK(vsock_say(PACKET_REQUEST, GUEST + 2, SERVED));
    CHECK_TEXT(vsock_hear_text(), "RST 40002<1000 0 0");
    end();
}

TEST(a_guest_that_refuses_closes_the_hosts_connection)
{
    begin();
    int fd = host_connect(host_path("in"));
    vsock_turn();
    struct packet_header header;
    uint8_t bytes[VSOCK_RECEIVE_BYTES];
    CHECK(vsock_hear(&header, bytes));
    CHECK_INT(read_byte(fd), -1);
    CHECK(vsock_say(PACKET_RST, TAKEN, header.source_port));
    CHECK_INT(read_byte(fd), 0);
    fd_close(fd);
    end();
}

TEST(a_socket_is_private_and_removed)
{
    struct stat found;
    begin();
    CHECK(stat(host_path("in"), &found) == 0 && S_ISSOCK(found.st_mode));
    CHECK_INT(found.st_mode & 0777, 0600);
    end();
    CHECK(stat(host_path("in"), &found) < 0);
    unlink(host_path("out"));
    begin();
    CHECK(unlink(host_path("in")) == 0); /* somebody else's by now */
    test_text_file("in", "mine");
    end();
    CHECK(stat(host_path("in"), &found) == 0 && S_ISREG(found.st_mode));
    struct vsock_port port = {.port = 1, .path = host_path("in"), .listens = true};
    struct vsock_options options = {.ports = &port, .port_count = 1};
    struct virtio_device *device = NULL;
    CHECK_INT(vsock_new(&options, &device), -EADDRINUSE);
    CHECK(stat(host_path("in"), &found) == 0 && S_ISREG(found.st_mode));
}

TEST(a_socket_that_nobody_listens_on_is_replaced)
{
    struct stat left, made;
    struct vsock_port port = {.port = 1, .path = host_path("left"), .listens = true};
    struct vsock_options options = {.ports = &port, .port_count = 1};
    struct virtio_device *device = NULL;
    int fd = host_listen(port.path, 1);
    CHECK(fd >= 0 && !listener_is_left_behind(port.path));
    CHECK_INT(vsock_new(&options, &device), -EADDRINUSE);
    close(fd); /* as in a process that was killed */
    CHECK(listener_is_left_behind(port.path));
    CHECK(lstat(port.path, &left) == 0);
    CHECK_INT(vsock_new(&options, &device), 0);
    CHECK(lstat(port.path, &made) == 0 && (made.st_mode & 0777) == 0600);
    CHECK(!listener_is_left_behind(port.path));
    virtio_device_free(device);
    CHECK(lstat(port.path, &made) < 0);
    CHECK(symlink("target", port.path) == 0); /* which may lead to such a one */
    fd = host_listen(host_path("target"), 1);
    close(fd);
    CHECK(!listener_is_left_behind(port.path));
    CHECK_INT(vsock_new(&options, &device), -EADDRINUSE);
    if (geteuid() != 0)
        TEST_SKIP("only root can give a socket to another user");
    CHECK(unlink(port.path) == 0 && rename(host_path("target"), port.path) == 0);
    CHECK(listener_is_left_behind(port.path));
    CHECK(chown(port.path, 12345, 12345) == 0);
    CHECK_INT(vsock_new(&options, &device), -EADDRINUSE);
}

TEST(options_that_make_no_sense)
{
    static char long_path[200];
    struct virtio_device *device = NULL;
    struct vsock_port ports[2] = {{.port = 1, .path = "a"}, {.port = 1, .path = "b"}};
    struct vsock_options options = {.ports = ports, .port_count = 2};
    CHECK_INT(vsock_new(&options, &device), -EEXIST);
    ports[1] = (struct vsock_port){.port = 2, .path = ""};
    CHECK_INT(vsock_new(&options, &device), -EINVAL);
    memset(long_path, 'x', sizeof(long_path) - 1);
    ports[1].path = long_path;
    CHECK_INT(vsock_new(&options, &device), -ENAMETOOLONG);
    ports[1].listens = true;
    CHECK_INT(vsock_new(&options, &device), -ENAMETOOLONG);
    struct vial_vsock_ops nothing = VIAL_VSOCK_OPS_INIT;
    struct vsock_custom_port custom = {.port = 3, .ops = &nothing};
    options = (struct vsock_options){.custom_ports = &custom, .custom_port_count = 1};
    CHECK_INT(vsock_new(&options, &device), -EINVAL);
}

/* ---- ends ---- */

TEST(the_guest_sends_no_more_and_still_reads)
{
    struct guest_stream stream;
    uint64_t bad = 0;
    begin();
    int fd = connect_out(&stream, GUEST);
    CHECK_INT(guest_send(&stream, 100), 100);
    CHECK(vsock_say_shutdown(GUEST, SERVED, PACKET_SENDS_NO_MORE));
    CHECK_INT(host_read(fd, GUEST, 0, 1000, &bad), 100);
    CHECK_INT(read_byte(fd), 0);
    CHECK_INT(host_write(fd, GUEST, 0, 50), 50);
    vsock_turn();
    CHECK_TEXT(vsock_hear_text(), "RW 40000<1000 0 50");
    CHECK_TEXT(vsock_hear_text(), "none");
    fd_close(fd);
    vsock_turn();
    CHECK_TEXT(vsock_hear_text(), "SHUTDOWN 40000<1000 3 0");
    CHECK(vsock_say_shutdown(GUEST, SERVED, 3));
    CHECK_TEXT(vsock_hear_text(), "RST 40000<1000 0 0");
    CHECK_TEXT(vsock_hear_text(), "none");
    CHECK_INT(bad, 0);
    end();
}

TEST(the_host_sends_no_more_and_still_reads)
{
    struct guest_stream stream;
    uint64_t bad = 0;
    begin();
    int fd = connect_out(&stream, GUEST);
    CHECK_INT(host_write(fd, GUEST, 0, 50), 50);
    CHECK(shutdown(fd, SHUT_WR) == 0);
    vsock_turn();
    CHECK_TEXT(vsock_hear_text(), "RW 40000<1000 0 50");
    CHECK_TEXT(vsock_hear_text(), "SHUTDOWN 40000<1000 2 0");
    CHECK_TEXT(vsock_hear_text(), "none");
    CHECK_INT(guest_send(&stream, 1000), 1000);
    CHECK_INT(host_read(fd, GUEST, 0, 2000, &bad), 1000);
    CHECK(vsock_say_shutdown(GUEST, SERVED, PACKET_SENDS_NO_MORE)); /* now both are over */
    CHECK_INT(read_byte(fd), 0);
    CHECK_TEXT(vsock_hear_text(), "SHUTDOWN 40000<1000 3 0");
    CHECK(vsock_say(PACKET_RST, GUEST, SERVED));
    CHECK_TEXT(vsock_hear_text(), "none");
    CHECK(vsock_say(PACKET_RW, GUEST, SERVED)); /* it is gone */
    CHECK_TEXT(vsock_hear_text(), "RST 40000<1000 0 0");
    fd_close(fd);
    end();
}

TEST(the_guest_closes)
{
    struct guest_stream stream;
    begin();
    int fd = connect_out(&stream, GUEST);
    CHECK_INT(guest_send(&stream, 10), 10);
    CHECK(vsock_say_shutdown(GUEST, SERVED, PACKET_RECEIVES_NO_MORE));
    CHECK_INT(host_write(fd, GUEST, 0, 10), -1);
    CHECK_INT(errno, EPIPE);
    CHECK_TEXT(vsock_hear_text(), "none");
    CHECK(vsock_say_shutdown(GUEST, SERVED, PACKET_SENDS_NO_MORE)); /* flags add up */
    CHECK_TEXT(vsock_hear_text(), "RST 40000<1000 0 0");
    uint64_t bad = 0;
    CHECK_INT(host_read(fd, GUEST, 0, 100, &bad), 10);
    CHECK_INT(read_byte(fd), 0);
    fd_close(fd);
    end();
}

TEST(the_host_closes_with_bytes_on_their_way)
{
    struct guest_stream stream;
    begin();
    int fd = connect_out(&stream, GUEST);
    CHECK_INT(host_write(fd, GUEST, 0, 60000), 60000);
    fd_close(fd);
    vsock_turn();
    for (int i = 0; i < 20; i++)
        guest_hear_all(&stream, 1);
    CHECK_INT(stream.received, 60000);
    CHECK_INT(stream.bad_bytes, 0);
    CHECK(stream.has_ended && !stream.is_refused);
    CHECK(vsock_say_bytes(GUEST, SERVED, "late", 4)); /* was under way: nobody minds */
    CHECK_TEXT(vsock_hear_text(), "none");
    CHECK(vsock_say(PACKET_REQUEST, GUEST, SERVED)); /* a port that is used again */
    CHECK_TEXT(vsock_hear_text(), "RESPONSE 40000<1000 0 0");
    end();
}

TEST(a_client_of_the_hosts_that_is_gone_before_the_answer)
{
    struct packet_header header;
    uint8_t bytes[VSOCK_RECEIVE_BYTES];
    struct guest_stream stream = {.guest_port = TAKEN, .room = ROOM};
    begin();
    int fd = host_connect(host_path("in"));
    CHECK_INT(host_write(fd, TAKEN, 0, 10), 10);
    fd_close(fd);
    vsock_turn();
    CHECK(vsock_hear(&header, bytes));
    CHECK_INT(header.operation, PACKET_REQUEST);
    stream.host_port = header.source_port;
    guest_take(&stream, &header, bytes);
    guest_hear_all(&stream, 1);
    CHECK_INT(stream.received, 10);
    CHECK(stream.has_ended && stream.bad_bytes == 0);
    end();
}

TEST(a_guest_that_does_not_wait_for_a_slow_reader)
{
    struct guest_stream stream;
    uint64_t bad = 0, got = 0;
    begin();
    int fd = connect_out(&stream, GUEST);
    size_t sent = guest_send(&stream, 400 << 10); /* more than the socket takes */
    CHECK(sent >= LIMIT_VSOCK_STREAM_BYTES);
    CHECK(vsock_say_shutdown(GUEST, SERVED, 3));
    CHECK(vsock_say(PACKET_RST, GUEST, SERVED));     /* after 8 seconds, it says */
    CHECK(vsock_say(PACKET_REQUEST, GUEST, SERVED)); /* its port is free */
    for (ssize_t length; (length = host_read(fd, GUEST, got, 100000, &bad)) != 0;) {
        CHECK(length > 0);
        got += (uint64_t)length;
        vsock_turn();
    }
    CHECK_INT(got, sent);
    CHECK_INT(bad, 0);
    fd_close(fd);
    end();
}

TEST(an_abort_of_the_guests_closes_at_once)
{
    struct guest_stream stream;
    begin();
    int fd = connect_out(&stream, GUEST);
    CHECK(guest_send(&stream, 400 << 10) > 0);
    CHECK(vsock_say(PACKET_RST, GUEST, SERVED));
    uint64_t bad = 0;
    while (host_read(fd, GUEST, 0, 100000, &bad) > 0)
        continue;
    CHECK_INT(read_byte(fd), 0);
    fd_close(fd);
    end();
}

/* ---- pace ---- */

TEST(much_to_the_host)
{
    enum { total = 112 << 20 };
    struct guest_stream stream;
    uint64_t got = 0, bad = 0;
    begin();
    int fd = connect_out(&stream, GUEST);
    for (unsigned idle = 0; got < total && idle < 100;) {
        size_t sent = guest_send(&stream, total - stream.sent);
        ssize_t length = host_read(fd, GUEST, got, 200000, &bad);
        got += length > 0 ? (uint64_t)length : 0;
        vsock_turn();
        guest_hear_all(&stream, 1);
        idle = sent == 0 && length <= 0 ? idle + 1 : 0;
    }
    CHECK_INT(got, total);
    CHECK_INT(bad, 0);
    fd_close(fd);
    end();
}

TEST(much_to_the_guest)
{
    enum { total = 112 << 20 };
    struct guest_stream stream;
    uint64_t sent = 0;
    begin();
    int fd = connect_in(&stream);
    for (unsigned idle = 0; stream.received < total && idle < 100;) {
        uint32_t before = stream.received;
        ssize_t length = sent < total ? host_write(fd, TAKEN, sent, total - sent) : 0;
        sent += length > 0 ? (uint64_t)length : 0;
        vsock_turn();
        guest_hear_all(&stream, 1);
        guest_read(&stream, UINT32_MAX);
        idle = length <= 0 && stream.received == before ? idle + 1 : 0;
    }
    CHECK_INT(stream.received, total);
    CHECK_INT(stream.bad_bytes, 0);
    fd_close(fd);
    end();
}

TEST(a_slow_reader_of_the_hosts_stops_the_guest)
{
    struct guest_stream stream;
    uint64_t got = 0, bad = 0;
    begin();
    int fd = connect_out(&stream, GUEST);
    while (guest_send(&stream, 1 << 20) > 0)
        guest_hear_all(&stream, 1);
    size_t stuck = stream.sent;
    CHECK_INT(stream.host_room - (stream.sent - stream.host_taken), 0);
    CHECK_INT(guest_send(&stream, 1), 0);
    CHECK(stuck < LIMIT_VSOCK_STREAM_BYTES + (1 << 20)); /* what the socket took, and the credit */
    while (got < stuck) {
        ssize_t length = host_read(fd, GUEST, got, 1021, &bad);
        got += length > 0 ? (uint64_t)length : 0;
        vsock_turn();
    }
    guest_hear_all(&stream, 1);
    CHECK(stream.host_room - (stream.sent - stream.host_taken) >= LIMIT_VSOCK_STREAM_BYTES / 2);
    CHECK_INT(bad, 0);
    fd_close(fd);
    end();
}

TEST(a_guest_that_does_not_read_stops_the_host)
{
    struct guest_stream stream;
    uint64_t sent = 0;
    begin();
    int fd = connect_in(&stream);
    for (int i = 0; i < 20; i++) {
        for (ssize_t length; (length = host_write(fd, TAKEN, sent, 1 << 20)) > 0;)
            sent += (uint64_t)length;
        vsock_turn();
        guest_hear_all(&stream, 1); /* an ASK among it, once: what it answers changes nothing */
    }
    CHECK_INT(stream.received, ROOM);
    while (stream.received < sent) {
        guest_read(&stream, 5000);
        guest_hear_all(&stream, 1);
    }
    CHECK_INT(stream.bad_bytes, 0);
    fd_close(fd);
    end();
}

TEST(credit_is_asked_for_once)
{
    struct guest_stream stream;
    begin();
    int fd = connect_out(&stream, GUEST);
    struct packet_header header = vsock_header(PACKET_CREDIT_UPDATE, GUEST, SERVED);
    header.buffer_bytes = 10;
    CHECK(vsock_send_raw(&header, NULL, 0));
    for (uint64_t at = 0; at < 100; at += 10) {
        CHECK_INT(host_write(fd, GUEST, at, 10), 10);
        vsock_turn();
    }
    CHECK_TEXT(vsock_hear_text(), "RW 40000<1000 0 10");
    CHECK_TEXT(vsock_hear_text(), "ASK 40000<1000 0 0");
    CHECK_TEXT(vsock_hear_text(), "none");
    header.buffer_bytes = 5; /* less than is under way */
    CHECK(vsock_send_raw(&header, NULL, 0));
    CHECK_TEXT(vsock_hear_text(), "none");
    header.forwarded = 8;
    CHECK(vsock_send_raw(&header, NULL, 0));
    CHECK_TEXT(vsock_hear_text(), "RW 40000<1000 0 3");
    CHECK_TEXT(vsock_hear_text(), "ASK 40000<1000 0 0");
    CHECK(vsock_say(PACKET_CREDIT_REQUEST, GUEST, SERVED)); /* credit beyond what was sent comes with it: none */
    CHECK_TEXT(vsock_hear_text(), "UPDATE 40000<1000 0 0");
    fd_close(fd);
    end();
}

TEST(what_is_owed_waits_for_buffers)
{
    begin_with(0);
    for (uint32_t i = 0; i < 30; i++)
        CHECK(vsock_say(PACKET_REQUEST, GUEST + i, i % 2 == 0 ? SERVED : 77));
    CHECK_TEXT(vsock_hear_text(), "none");
    unsigned answers = 0, refusals = 0;
    for (uint16_t i = 0; i < 30; i++) { /* buffers one by one */
        struct packet_header header;
        virtio_driver_send(&driver, VSOCK_RECEIVE, VIRTIO_DRIVER_BUFFERS + (uint64_t)i * VSOCK_RECEIVE_BYTES,
                           VSOCK_RECEIVE_BYTES, VIRTIO_DRIVER_WRITE);
        CHECK_INT(memory_read(driver.memory, VIRTIO_DRIVER_BUFFERS + (uint64_t)i * VSOCK_RECEIVE_BYTES, &header,
                              sizeof(header)),
                  0);
        answers += header.operation == PACKET_RESPONSE;
        refusals += header.operation == PACKET_RST;
    }
    CHECK_INT(answers, 15);
    CHECK_INT(refusals, 15);
    end();
}

TEST(streams_take_turns)
{
    enum { count = 8 };
    int fds[count];
    unsigned seen[count] = {0};
    begin_with(0);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(vsock_say(PACKET_REQUEST, GUEST + i, SERVED));
        fds[i] = host_accept(server);
        CHECK_INT(host_write(fds[i], 0, 0, i == 0 ? 60000 : 2000), i == 0 ? 60000 : 2000);
    }
    for (uint16_t i = 0; i < 11 * count; i++) { /* buffers one by one */
        struct packet_header header;
        uint64_t address = VIRTIO_DRIVER_BUFFERS + (uint64_t)i * 512;
        virtio_driver_send(&driver, VSOCK_RECEIVE, address, sizeof(header) + 100, VIRTIO_DRIVER_WRITE);
        CHECK_INT(memory_read(driver.memory, address, &header, sizeof(header)), 0);
        CHECK(header.target_port - GUEST < count);
        seen[header.target_port - GUEST] += header.operation == PACKET_RW;
    }
    for (uint32_t i = 0; i < count; i++) {
        CHECK(seen[i] >= 9 && seen[i] <= 11);
        fd_close(fds[i]);
    }
    end();
}

/* ---- many ---- */

static bool raise_descriptors(rlim_t wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return false;
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur >= wanted;
}

TEST(a_thousand_streams_at_once)
{
    enum { count = 1000, length = 20000 };
    static struct guest_stream streams[count];
    static int fds[count];
    uint64_t bad = 0;
    CHECK(raise_descriptors(3000));
    begin();
    for (uint32_t i = 0; i < count; i++) {
        fds[i] = i % 2 == 0 ? connect_out(&streams[i], GUEST + i) : connect_in(&streams[i]);
        CHECK(fds[i] >= 0);
    }
    for (uint32_t i = 0; i < count; i++) {
        CHECK_INT(guest_send(&streams[i], length), length);
        CHECK_INT(host_write(fds[i], streams[i].guest_port, 0, length), length);
    }
    struct packet_header header;
    uint8_t bytes[VSOCK_RECEIVE_BYTES];
    vsock_turn();
    while (vsock_hear(&header, bytes)) {
        uint32_t at = header.target_port == TAKEN ? 1 : header.target_port - GUEST;
        while (at < count && streams[at].host_port != header.source_port)
            at += 2;
        CHECK(at < count);
        guest_take(&streams[at], &header, bytes);
    }
    for (uint32_t i = 0; i < count; i++) {
        CHECK_INT(streams[i].received, length);
        CHECK_INT(host_read(fds[i], streams[i].guest_port, 0, 2 * length, &bad), length);
        bad += streams[i].bad_bytes;
        if (i % 3 == 0)
            fd_close(fds[i]); /* killed, the others end with the device */
    }
    CHECK_INT(bad, 0);
    vsock_turn();
    end();
    for (uint32_t i = 0; i < count; i++) {
        if (i % 3 == 0)
            continue;
        CHECK_INT(read_byte(fds[i]), 0);
        fd_close(fds[i]);
    }
}

TEST(ten_thousand_one_after_another)
{
    begin();
    for (uint32_t i = 0; i < 10000; i++) {
        struct guest_stream stream;
        char text[5] = {0};
        int fd = i % 2 == 0 ? connect_out(&stream, GUEST + i % 3) : connect_in(&stream);
        CHECK(fd >= 0);
        CHECK(vsock_say_bytes(stream.guest_port, stream.host_port, "ping", 4));
        CHECK_INT(read(fd, text, sizeof(text)), 4);
        CHECK_INT(send(fd, "pong", 4, 0), 4);
        if (i % 4 < 2)
            fd_close(fd);
        vsock_turn();
        guest_hear_all(&stream, 1);
        CHECK_INT(stream.received, 4);
        if (i % 4 < 2) {
            CHECK(stream.has_ended);
            CHECK(vsock_say(PACKET_RST, stream.guest_port, stream.host_port));
        } else {
            CHECK(vsock_say_shutdown(stream.guest_port, stream.host_port, 3));
            guest_hear_all(&stream, 1);
            CHECK(stream.is_refused);
            CHECK_INT(read_byte(fd), 0);
            fd_close(fd);
        }
    }
    CHECK_INT(virtio_device_faults(driver.device), 0);
    end();
}

TEST(no_descriptor_left)
{
    struct guest_stream stream;
    struct rlimit limit, none;
    begin();
    int waiting = host_connect(host_path("in"));
    CHECK(waiting >= 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0);
    int spare = dup(waiting);
    none = limit;
    none.rlim_cur = (rlim_t)spare; /* so many are open, or more */
    fd_close(spare);
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    CHECK(vsock_say(PACKET_REQUEST, GUEST, SERVED));
    CHECK_TEXT(vsock_hear_text(), "RST 40000<1000 0 0");
    CHECK_TEXT(vsock_hear_text(), "none");
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    int fd = connect_out(&stream, GUEST);
    CHECK(fd >= 0);
    CHECK(vsock_say(PACKET_RST, GUEST, SERVED)); /* a descriptor is free, and the waiting one is taken */
    vsock_turn();
    CHECK(strncmp(vsock_hear_text(), "REQUEST 2000<", 13) == 0);
    fd_close(fd);
    fd_close(waiting);
    end();
}

TEST(a_reset_ends_all_and_begins_anew)
{
    struct guest_stream out, in;
    begin();
    int fd = connect_out(&out, GUEST), fd_in = connect_in(&in);
    CHECK(fd >= 0 && fd_in >= 0);
    virtio_driver_reset(&driver);
    CHECK_INT(read_byte(fd), 0);
    CHECK_INT(read_byte(fd_in), 0);
    fd_close(fd);
    fd_close(fd_in);
    fd_in = host_connect(host_path("in")); /* waits for the next driver */
    CHECK(fd_in >= 0);
    vsock_turn();
    vsock_restart(0, VSOCK_ENTRIES);
    uint32_t head, written;
    virtio_driver_send(&driver, VSOCK_EVENT, VIRTIO_DRIVER_BUFFERS + 0xf0000, 16, VIRTIO_DRIVER_WRITE);
    CHECK(virtio_driver_take(&driver, VSOCK_EVENT, &head, &written));
    CHECK_INT(written, 4);
    CHECK_INT(virtio_driver_get_32(&driver, VIRTIO_DRIVER_BUFFERS + 0xf0000), 0);
    CHECK(strncmp(vsock_hear_text(), "REQUEST 2000<", 13) == 0);
    fd_close(fd_in);
    vsock_restart(0, VSOCK_ENTRIES);
    end();
}
