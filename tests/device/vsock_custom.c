// SPDX-License-Identifier: Apache-2.0
/* Ports of virtio sockets that lead to functions of the embedding program, and datagrams. */
#include "vsock_driver.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/limits.h"
#include "device/vsock/private.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PORT = 9, GUEST = 40000, FEATURE_DATAGRAMS = 1 << 3 };

/* A program that echoes, a little at a time, and says "not now" in between. */
struct echo {
    int event_fd; /* always ready: it has to be asked */
    unsigned connects, closes, ends, calls;
    int refuses;
    ssize_t answer; /* instead of its own, when it is not 0 */
    uint8_t bytes[100000];
    size_t length, given;
    bool is_ended;
    uint8_t datagram[LIMIT_VSOCK_DATAGRAM_BYTES];
    size_t datagram_length;
    uint32_t datagram_from;
    unsigned datagrams;
};

static struct echo echo;

static int echo_connect(void *user, uint32_t guest_port, void **ret_stream)
{
    struct echo *own = user;
    if (own->refuses != 0)
        return own->refuses;
    own->connects++;
    own->length = own->given = 0;
    own->is_ended = false;
    *ret_stream = own->bytes + guest_port % 7;
    return 0;
}

static ssize_t echo_read(void *user, void *stream, void *bytes, size_t size)
{
    struct echo *own = user;
    size_t left = own->length - own->given;
    (void)stream;
    if (own->answer != 0)
        return own->answer;
    if (left == 0 && own->is_ended)
        return 0;
    if (left == 0 || ++own->calls % 3 == 0)
        return -EAGAIN;
    left = left < size ? left : size;
    left = (left + 1) / 2;
    memcpy(bytes, own->bytes + own->given, left);
    own->given += left;
    return (ssize_t)left;
}

static ssize_t echo_write(void *user, void *stream, const void *bytes, size_t length)
{
    struct echo *own = user;
    (void)stream;
    if (own->answer != 0)
        return own->answer;
    if (++own->calls % 2 == 0 || own->length == sizeof(own->bytes))
        return -EAGAIN;
    length = (length + 1) / 2;
    if (length > sizeof(own->bytes) - own->length)
        length = sizeof(own->bytes) - own->length;
    memcpy(own->bytes + own->length, bytes, length);
    own->length += length;
    return (ssize_t)length;
}

static int echo_shutdown(void *user, void *stream)
{
    struct echo *own = user;
    (void)stream;
    own->is_ended = true;
    own->ends++;
    return 0;
}

static int echo_poll_fd(void *user, void *stream)
{
    struct echo *own = user;
    (void)stream;
    return own->event_fd;
}

static void echo_close(void *user, void *stream)
{
    struct echo *own = user;
    (void)stream;
    own->closes++;
}

static int echo_send(void *user, uint32_t guest_port, const void *bytes, size_t length)
{
    struct echo *own = user;
    memcpy(own->datagram, bytes, length);
    own->datagram_length = length;
    own->datagram_from = guest_port;
    own->datagrams++;
    return 0;
}

static const struct vial_vsock_ops echo_ops = {
    .size = sizeof(echo_ops),
    .connect = echo_connect,
    .read = echo_read,
    .write = echo_write,
    .shutdown = echo_shutdown,
    .poll_fd = echo_poll_fd,
    .close = echo_close,
    .send = echo_send,
};

static void begin(unsigned receive_buffers)
{
    struct vsock_custom_port port = {.port = PORT, .ops = &echo_ops, .user = &echo};
    struct vsock_options options = {.custom_ports = &port, .custom_port_count = 1};
    memset(&echo, 0, sizeof(echo));
    echo.event_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    vsock_begin(&options, FEATURE_DATAGRAMS, receive_buffers);
}

static void end(void)
{
    vsock_end();
    echo.event_fd = fd_close(echo.event_fd);
}

static void connect_guest(struct guest_stream *stream)
{
    *stream = (struct guest_stream){.guest_port = GUEST, .host_port = PORT, .room = 64 << 10};
    struct packet_header header = vsock_header(PACKET_REQUEST, GUEST, PORT);
    header.buffer_bytes = stream->room;
    vsock_send_raw(&header, NULL, 0);
    guest_hear_all(stream, 1);
}

static size_t open_descriptors(void)
{
    int fd = dup(0);
    fd_close(fd);
    return (size_t)fd;
}

/* ---- streams ---- */

TEST(functions_echo)
{
    struct guest_stream stream;
    begin(VSOCK_ENTRIES);
    connect_guest(&stream);
    CHECK(stream.is_open);
    CHECK_INT(guest_send(&stream, 50000), 50000);
    CHECK(vsock_say_shutdown(GUEST, PORT, PACKET_SENDS_NO_MORE));
    for (int i = 0; i < 100 && !stream.has_ended; i++) {
        vsock_turn();
        guest_hear_all(&stream, 1);
    }
    CHECK_INT(stream.received, 50000);
    CHECK_INT(stream.bad_bytes, 0);
    CHECK(stream.has_ended);
    CHECK_INT(echo.ends, 1);
    CHECK_INT(echo.closes, 1); /* both directions are over */
    end();
    CHECK_INT(echo.closes, 1);
}

TEST(functions_that_refuse)
{
    struct guest_stream stream;
    begin(VSOCK_ENTRIES);
    echo.refuses = -EACCES;
    connect_guest(&stream);
    CHECK(stream.is_refused && !stream.is_open);
    echo.refuses = 1; /* no errno */
    connect_guest(&stream);
    CHECK(stream.is_refused && !stream.is_open);
    echo.refuses = 0;
    int kept = echo.event_fd;
    echo.event_fd = -1;
    connect_guest(&stream);
    CHECK(stream.is_refused && !stream.is_open);
    CHECK_INT(echo.closes, 1);
    echo.event_fd = kept;
    size_t before = open_descriptors();
    connect_guest(&stream);
    CHECK(stream.is_open);
    CHECK(vsock_say(PACKET_RST, GUEST, PORT));
    CHECK_INT(open_descriptors(), before);
    CHECK_INT(echo.closes, 2);
    end();
}

TEST(functions_that_lie)
{
    struct guest_stream stream;
    static const ssize_t lies[] = {-EIO, 1 << 30, -EPIPE};
    begin(VSOCK_ENTRIES);
    for (size_t i = 0; i < array_length(lies); i++) {
        echo.answer = 0;
        connect_guest(&stream);
        CHECK(stream.is_open);
        echo.answer = lies[i];
        CHECK(guest_send(&stream, 100) == 100);
        vsock_turn();
        guest_hear_all(&stream, 1);
        CHECK(stream.is_refused); /* reading has failed, too */
        CHECK_INT(echo.closes, i + 1);
    }
    end();
}

/* ---- datagrams ---- */

TEST(a_datagram_to_functions)
{
    static uint8_t bytes[LIMIT_VSOCK_DATAGRAM_BYTES + 1];
    begin(VSOCK_ENTRIES);
    virtio_driver_write(&driver, 0x014, 0);
    CHECK_INT(virtio_driver_read(&driver, 0x010) & 0xff, 1 | FEATURE_DATAGRAMS);
    struct packet_header header = vsock_header(PACKET_RW, GUEST, PORT);
    header.type = PACKET_DATAGRAM;
    header.length = 5;
    CHECK(vsock_send_raw(&header, "hello", 5));
    CHECK_INT(echo.datagrams, 1);
    CHECK_INT(echo.datagram_length, 5);
    CHECK_INT(echo.datagram_from, GUEST);
    CHECK(memcmp(echo.datagram, "hello", 5) == 0);
    CHECK(vsock_send_raw(&header, "short", 4)); /* not what it says */
    header.length = LIMIT_VSOCK_DATAGRAM_BYTES;
    CHECK(vsock_send_raw(&header, bytes, LIMIT_VSOCK_DATAGRAM_BYTES));
    CHECK_INT(echo.datagram_length, LIMIT_VSOCK_DATAGRAM_BYTES);
    header.length++;
    CHECK(vsock_send_raw(&header, bytes, LIMIT_VSOCK_DATAGRAM_BYTES + 1));
    header.length = 0;
    CHECK(vsock_send_raw(&header, NULL, 0));
    CHECK_INT(echo.datagram_length, 0);
    CHECK_INT(echo.datagrams, 3);
    header.target_port = 10; /* nobody's */
    CHECK(vsock_send_raw(&header, NULL, 0));
    CHECK_INT(virtio_device_faults(driver.device), 2);
    CHECK_TEXT(vsock_hear_text(), "none");
    end();
}

TEST(datagrams_to_the_guest)
{
    static uint8_t bytes[LIMIT_VSOCK_DATAGRAM_BYTES + 1];
    struct packet_header header;
    uint8_t got[VSOCK_RECEIVE_BYTES];
    begin(0);
    struct vsock *vsock = virtio_device_state(driver.device);
    CHECK(!vsock_send_datagram(vsock, 1, 2, bytes, LIMIT_VSOCK_DATAGRAM_BYTES + 1));
    unsigned held = 0;
    for (; held < 10000 && vsock_send_datagram(vsock, 1, 2, bytes, 1000); held++)
        continue;
    CHECK(held > 900 && held < LIMIT_VSOCK_DATAGRAMS_BYTES / 1000);
    vsock_restart(FEATURE_DATAGRAMS, VSOCK_ENTRIES); /* which drops them */
    CHECK(vsock_send_datagram(vsock, 7, 8, "one", 3));
    CHECK(vsock_send_datagram(vsock, 7, 8, bytes, VSOCK_RECEIVE_BYTES - 43)); /* longer than a buffer: lost */
    CHECK(vsock_send_datagram(vsock, 7, 9, NULL, 0));
    vsock_turn();
    CHECK(vsock_hear(&header, got));
    CHECK(header.type == PACKET_DATAGRAM && header.operation == PACKET_RW && header.length == 3);
    CHECK(header.source_port == 7 && header.target_port == 8 && memcmp(got, "one", 3) == 0);
    CHECK(vsock_hear(&header, got));
    CHECK(header.target_port == 9 && header.length == 0);
    CHECK_TEXT(vsock_hear_text(), "none");
    vsock_restart(0, VSOCK_ENTRIES); /* a driver without them */
    CHECK(!vsock_send_datagram(vsock, 7, 8, "one", 3));
    end();
}

/* ---- what the device does for TSI ---- */

TEST(a_socket_that_is_connected_already)
{
    int pair[2], other[2];
    begin(VSOCK_ENTRIES);
    struct vsock *vsock = virtio_device_state(driver.device);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, other) == 0);
    CHECK_INT(vsock_connect_guest(vsock, pair[0], 5, 6), 0);
    CHECK_INT(vsock_connect_guest(vsock, other[0], 5, 6), -EADDRINUSE);
    vsock_turn();
    CHECK_TEXT(vsock_hear_text(), "REQUEST 6<5 0 0");
    CHECK(vsock_say(PACKET_RESPONSE, 6, 5));
    CHECK_INT(write(pair[1], "bytes", 5), 5);
    vsock_turn();
    CHECK_TEXT(vsock_hear_text(), "RW 6<5 0 5");
    CHECK(vsock_say_bytes(6, 5, "back", 4));
    char got[8];
    CHECK_INT(read(pair[1], got, sizeof(got)), 4);
    CHECK_INT(read(other[1], got, sizeof(got)), 0);
    virtio_driver_reset(&driver); /* and without a driver nothing is taken */
    CHECK(!vsock_send_datagram(vsock, 7, 8, "one", 3));
    fd_close(other[1]);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, other) == 0);
    CHECK_INT(vsock_connect_guest(vsock, other[0], 5, 6), -ENOTCONN);
    CHECK_INT(read(other[1], got, sizeof(got)), 0);
    fd_close(pair[1]);
    fd_close(other[1]);
    end();
}
