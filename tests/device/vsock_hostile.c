// SPDX-License-Identifier: Apache-2.0
/* What a hostile guest says to the virtio socket device, what its rings look like, and memory that is not there. */
#include "vsock_driver.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/limits.h"
#include "hostile.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SERVED = 1000, TAKEN = 2000, GUEST = 40000 };

static int server;
static uint8_t zeros[512 << 10];

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
    unlink(host_path("out"));
}

static bool connect_guest(uint32_t port)
{
    return vsock_say(PACKET_REQUEST, port, SERVED) && strncmp(vsock_hear_text(), "RESPONSE", 8) == 0;
}

static bool is_reset(uint32_t port)
{
    char wanted[64];
    snprintf(wanted, sizeof(wanted), "RST %u<1000 0 0", port);
    const char *heard = vsock_hear_text();
    bool is_right = strcmp(heard, wanted) == 0;
    if (!is_right)
        printf("# %s instead of %s\n", heard, wanted);
    return is_right && strcmp(vsock_hear_text(), "none") == 0;
}

static ssize_t read_byte(int fd)
{
    char byte;
    return read(fd, &byte, 1);
}

/* ---- addresses and forms ---- */

TEST(forged_addresses_are_passed_over)
{
    static const uint64_t pairs[][2] = {
        {0, 2},
        {1, 2},
        {2, 2},
        {4, 2},
        {UINT32_MAX, 2},
        {UINT64_MAX, 2},
        {3, 0},
        {3, 1},
        {3, 3},
        {3, UINT64_MAX},
        {(UINT64_C(1) << 32) + 3, 2},
        {3, (UINT64_C(1) << 32) + 2},
    };
    begin();
    CHECK(connect_guest(GUEST));
    int fd = host_accept(server);
    for (size_t i = 0; i < array_length(pairs); i++) {
        for (enum packet_operation operation = PACKET_REQUEST; operation <= PACKET_CREDIT_REQUEST; operation++) {
            struct packet_header header = vsock_header(operation, GUEST, SERVED);
            header.source_cid = pairs[i][0];
            header.target_cid = pairs[i][1];
            header.length = 4;
            CHECK(vsock_send_raw(&header, "fake", 4));
        }
        CHECK_INT(virtio_device_faults(driver.device), 7 * (i + 1));
    }
    CHECK_TEXT(vsock_hear_text(), "none");
    CHECK_INT(read_byte(fd), -1); /* the stream lives */
    fd_close(fd);
    end();
}

TEST(wrong_types_are_refused)
{
    static const uint16_t types[] = {0, 2, 4, UINT16_MAX};
    begin();
    for (size_t i = 0; i < array_length(types); i++) {
        uint8_t bytes[VSOCK_RECEIVE_BYTES];
        struct packet_header header = vsock_header(PACKET_REQUEST, GUEST, SERVED);
        header.type = types[i];
        CHECK(vsock_send_raw(&header, NULL, 0));
        CHECK(vsock_hear(&header, bytes));
        CHECK_INT(header.operation, PACKET_RST);
        CHECK_INT(header.type, types[i]);
        header = vsock_header(PACKET_RST, GUEST, SERVED); /* never an answer to an RST */
        header.type = types[i];
        CHECK(vsock_send_raw(&header, NULL, 0));
        CHECK_TEXT(vsock_hear_text(), "none");
    }
    struct packet_header header = vsock_header(PACKET_RW, GUEST, SERVED); /* datagrams were not agreed on */
    header.type = PACKET_DATAGRAM;
    CHECK(vsock_send_raw(&header, NULL, 0));
    CHECK_TEXT(vsock_hear_text(), "none");
    end();
}

TEST(unknown_operations_reset_the_stream)
{
    static const unsigned operations[] = {0, 8, 9, 255, UINT16_MAX};
    begin();
    for (size_t i = 0; i < array_length(operations); i++) {
        CHECK(vsock_say((enum packet_operation)operations[i], GUEST, SERVED));
        CHECK(is_reset(GUEST));
        CHECK(connect_guest(GUEST));
        int fd = host_accept(server);
        CHECK(vsock_say((enum packet_operation)operations[i], GUEST, SERVED));
        CHECK(is_reset(GUEST));
        CHECK_INT(read_byte(fd), 0);
        fd_close(fd);
    }
    end();
}

TEST(lengths_that_do_not_match)
{
    static const struct {
        uint32_t said;
        size_t sent;
    } lengths[] = {{4, 0}, {0, 4}, {5, 4}, {3, 4}, {UINT32_MAX, 4}, {UINT32_MAX - 43, 4}, {1u << 31, 100}};
    begin();
    for (size_t i = 0; i < array_length(lengths); i++) {
        CHECK(connect_guest(GUEST));
        int fd = host_accept(server);
        struct packet_header header = vsock_header(PACKET_RW, GUEST, SERVED);
        header.length = lengths[i].said;
        CHECK(vsock_send_raw(&header, zeros, lengths[i].sent));
        CHECK(is_reset(GUEST));
        CHECK_INT(read_byte(fd), 0);
        fd_close(fd);
        header.operation = PACKET_REQUEST;
        CHECK(vsock_send_raw(&header, zeros, lengths[i].sent));
        CHECK(is_reset(GUEST));
        CHECK_INT(host_accept(server), -1);
    }
    for (uint32_t length = 1; length < sizeof(struct packet_header); length += 7) { /* not even a header */
        uint32_t head, written;
        virtio_driver_send(&driver, VSOCK_TRANSMIT, VIRTIO_DRIVER_BUFFERS + 0xf0000, length, 0);
        CHECK(virtio_driver_take(&driver, VSOCK_TRANSMIT, &head, &written));
    }
    CHECK(!virtio_driver_needs_reset(&driver));
    end();
}

TEST(a_packet_in_many_pieces)
{
    char got[16] = {0};
    begin();
    CHECK(connect_guest(GUEST));
    int fd = host_accept(server);
    struct packet_header header = vsock_header(PACKET_RW, GUEST, SERVED);
    uint64_t address = VIRTIO_DRIVER_BUFFERS + 0xf0000;
    header.length = 12;
    virtio_driver_put(&driver, address, &header, sizeof(header));
    virtio_driver_put(&driver, address + sizeof(header), "in pieces...", 12);
    for (uint16_t i = 0; i < 56; i++) /* one byte each, the first one offered as the head of all */
        virtio_driver_describe(&driver, VSOCK_TRANSMIT, i, address + i, 1, i < 55 ? VIRTIO_DRIVER_NEXT : 0,
                               (uint16_t)(i + 1));
    virtio_driver_offer(&driver, VSOCK_TRANSMIT, 0);
    virtio_driver_kick(&driver, VSOCK_TRANSMIT);
    CHECK_INT(read(fd, got, sizeof(got)), 12);
    CHECK_TEXT(got, "in pieces...");
    fd_close(fd);
    end();
}

TEST(receive_buffers_that_are_too_small)
{
    uint32_t head, written;
    begin_with(0);
    CHECK(vsock_say(PACKET_REQUEST, GUEST, SERVED));
    int fd = host_accept(server);
    CHECK_INT(write(fd, "bytes", 5), 5);
    virtio_driver_send(&driver, VSOCK_RECEIVE, VIRTIO_DRIVER_BUFFERS, 43, VIRTIO_DRIVER_WRITE);
    CHECK(virtio_driver_take(&driver, VSOCK_RECEIVE, &head, &written));
    CHECK_INT(written, 0);
    virtio_driver_send(&driver, VSOCK_RECEIVE, VIRTIO_DRIVER_BUFFERS, 64, 0); /* cannot be written to */
    CHECK(virtio_driver_take(&driver, VSOCK_RECEIVE, &head, &written));
    CHECK_INT(written, 0);
    virtio_driver_send(&driver, VSOCK_RECEIVE, VIRTIO_DRIVER_BUFFERS, 44, VIRTIO_DRIVER_WRITE);
    CHECK(virtio_driver_take(&driver, VSOCK_RECEIVE, &head, &written));
    CHECK_INT(written, 44); /* the RESPONSE */
    virtio_driver_send(&driver, VSOCK_RECEIVE, VIRTIO_DRIVER_BUFFERS, 44, VIRTIO_DRIVER_WRITE);
    CHECK(virtio_driver_take(&driver, VSOCK_RECEIVE, &head, &written));
    CHECK_INT(written, 0);
    virtio_driver_send(&driver, VSOCK_RECEIVE, VIRTIO_DRIVER_BUFFERS, 46, VIRTIO_DRIVER_WRITE);
    CHECK(virtio_driver_take(&driver, VSOCK_RECEIVE, &head, &written));
    CHECK_INT(written, 46);
    CHECK_INT(virtio_device_faults(driver.device), 3);
    fd_close(fd);
    end();
}

/* ---- streams ---- */

TEST(more_than_the_credit)
{
    begin();
    CHECK(connect_guest(GUEST));
    int fd = host_accept(server);
    for (int i = 0; i < 100 && virtio_device_faults(driver.device) == 0; i++) /* nobody reads */
        CHECK(vsock_say_bytes(GUEST, SERVED, zeros, 60000));
    CHECK_INT(virtio_device_faults(driver.device), 1);
    const char *heard = vsock_hear_text();
    while (strncmp(heard, "UPDATE", 6) == 0)
        heard = vsock_hear_text();
    CHECK_TEXT(heard, "RST 40000<1000 0 0");
    fd_close(fd);
    CHECK(connect_guest(GUEST));
    CHECK(vsock_say_bytes(GUEST, SERVED, zeros, 60000));
    end();
}

TEST(bytes_out_of_order)
{
    begin();
    CHECK(vsock_say_bytes(GUEST, SERVED, zeros, 10)); /* of no stream */
    CHECK(is_reset(GUEST));
    CHECK(connect_guest(GUEST));
    CHECK(vsock_say_shutdown(GUEST, SERVED, PACKET_SENDS_NO_MORE));
    CHECK(vsock_say_bytes(GUEST, SERVED, zeros, 10)); /* behind its end */
    CHECK(is_reset(GUEST));
    CHECK(vsock_say(PACKET_RESPONSE, GUEST, SERVED)); /* to what nobody asked */
    CHECK(is_reset(GUEST));
    CHECK(connect_guest(GUEST));
    CHECK(vsock_say(PACKET_RESPONSE, GUEST, SERVED));
    CHECK(is_reset(GUEST));
    CHECK(connect_guest(GUEST));
    CHECK(vsock_say(PACKET_REQUEST, GUEST, SERVED)); /* a second time */
    CHECK(is_reset(GUEST));
    end();
}

TEST(bytes_before_the_answer)
{
    struct packet_header header;
    uint8_t bytes[VSOCK_RECEIVE_BYTES];
    static const enum packet_operation operations[] = {PACKET_RW, PACKET_SHUTDOWN, PACKET_REQUEST};
    begin();
    for (size_t i = 0; i < array_length(operations); i++) {
        int fd = host_connect(host_path("in"));
        vsock_turn();
        CHECK(vsock_hear(&header, bytes));
        CHECK(vsock_say(operations[i], TAKEN, header.source_port));
        CHECK(vsock_hear(&header, bytes));
        CHECK_INT(header.operation, PACKET_RST);
        CHECK_INT(read_byte(fd), 0);
        fd_close(fd);
    }
    end();
    begin_with(0); /* the guest cannot have seen our RESPONSE yet */
    CHECK(vsock_say(PACKET_REQUEST, GUEST, SERVED));
    CHECK(vsock_say_bytes(GUEST, SERVED, zeros, 10));
    int fd = host_accept(server);
    CHECK_INT(read_byte(fd), 0);
    fd_close(fd);
    end();
}

TEST(no_room_and_room_that_is_not_there)
{
    static const struct {
        uint32_t room, taken;
        ssize_t passes;
    } credits[] = {
        {0, 0, 0},
        {0, UINT32_MAX, 0},
        {100, 1, 0},
        {100, UINT32_MAX, 99},
        {UINT32_MAX, UINT32_MAX, 1000},
        {UINT32_MAX, 1u << 31, 1000},
        {1u << 31, 1u << 31, 0},
    };
    begin();
    for (uint32_t i = 0; i < array_length(credits); i++) {
        struct packet_header header = vsock_header(PACKET_REQUEST, GUEST + i, SERVED);
        uint8_t bytes[VSOCK_RECEIVE_BYTES];
        header.buffer_bytes = credits[i].room;
        header.forwarded = credits[i].taken;
        CHECK(vsock_send_raw(&header, NULL, 0));
        int fd = host_accept(server);
        CHECK_INT(write(fd, zeros, 1000), 1000);
        vsock_turn();
        ssize_t got = 0;
        while (vsock_hear(&header, bytes))
            got += header.operation == PACKET_RW ? (ssize_t)header.length : 0;
        CHECK_INT(got, credits[i].passes);
        fd_close(fd);
        vsock_turn();
    }
    CHECK_INT(virtio_device_faults(driver.device), 0);
    end();
}

TEST(flags_of_every_kind)
{
    begin();
    for (uint32_t flags = 0; flags < 8; flags++) {
        CHECK(connect_guest(GUEST));
        CHECK(vsock_say_shutdown(GUEST, SERVED, flags | 0xfffffff8));
        if ((flags & 3) == 3)
            CHECK(is_reset(GUEST));
        else
            CHECK(vsock_say(PACKET_RST, GUEST, SERVED));
        CHECK_TEXT(vsock_hear_text(), "none");
    }
    end();
}

/* ---- floods ---- */

TEST(refusals_are_bounded)
{
    unsigned taken = 0, heard = 0;
    begin_with(0);
    for (unsigned i = 0; i < LIMIT_VSOCK_RESETS; i++) {
        CHECK(vsock_say(PACKET_RW, GUEST + i, 7));
        taken++;
    }
    for (unsigned i = 0; i < VSOCK_ENTRIES; i++) /* nothing is taken any more, an RST neither */
        CHECK(!vsock_say(i % 2 == 0 ? PACKET_RW : PACKET_RST, 10, 7));
    vsock_turn();
    for (uint16_t i = 0; i < VSOCK_ENTRIES; i++) {
        virtio_driver_describe(&driver, VSOCK_RECEIVE, i, VIRTIO_DRIVER_BUFFERS + (uint64_t)i * VSOCK_RECEIVE_BYTES,
                               VSOCK_RECEIVE_BYTES, VIRTIO_DRIVER_WRITE, 0);
        virtio_driver_offer(&driver, VSOCK_RECEIVE, i);
    }
    virtio_driver_kick(&driver, VSOCK_RECEIVE);
    while (strcmp(vsock_hear_text(), "none") != 0)
        heard++;
    CHECK_INT(heard, LIMIT_VSOCK_RESETS + VSOCK_ENTRIES / 2);
    uint32_t head, written;
    for (taken = 0; virtio_driver_take(&driver, VSOCK_TRANSMIT, &head, &written);)
        taken++;
    CHECK_INT(taken, VSOCK_ENTRIES);
    end();
}

TEST(requests_are_bounded)
{
    struct rlimit limit;
    begin();
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = 700; /* the host's limit comes first, here as everywhere */
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    unsigned answers = 0, refusals = 0;
    for (uint32_t i = 0; i < 1500; i++) {
        CHECK(vsock_say(PACKET_REQUEST, i, SERVED));
        const char *heard = vsock_hear_text();
        answers += strncmp(heard, "RESPONSE", 8) == 0;
        refusals += strncmp(heard, "RST", 3) == 0;
    }
    CHECK(answers > 600 && answers < 700);
    CHECK_INT(answers + refusals, 1500);
    vsock_restart(0, VSOCK_ENTRIES); /* gives everything back */
    CHECK(connect_guest(GUEST));
    end();
}

TEST(connections_that_nobody_answers_are_bounded)
{
    enum { count = LIMIT_VSOCK_UNANSWERED + 50 };
    static int fds[count];
    struct rlimit limit;
    unsigned asked = 0;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = 3000;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    begin();
    for (unsigned i = 0; i < count; i++) {
        fds[i] = host_connect(host_path("in"));
        vsock_turn();
    }
    struct packet_header header;
    uint8_t bytes[VSOCK_RECEIVE_BYTES];
    uint32_t last = 0;
    while (vsock_hear(&header, bytes)) {
        asked += header.operation == PACKET_REQUEST;
        last = header.source_port;
    }
    CHECK_INT(asked, LIMIT_VSOCK_UNANSWERED);
    CHECK(vsock_say(PACKET_RESPONSE, TAKEN, last)); /* there is room for one more */
    vsock_turn();
    CHECK(strncmp(vsock_hear_text(), "REQUEST", 7) == 0);
    CHECK_TEXT(vsock_hear_text(), "none");
    for (unsigned i = 0; i < count; i++)
        fd_close(fds[i]);
    end();
}

/* ---- rings ---- */

TEST(hostile_rings_and_registers)
{
    begin_with(0);
    const char *wrong = hostile_rings(&driver, 0, VSOCK_QUEUES, VSOCK_TRANSMIT);
    CHECK_TEXT(wrong != NULL ? wrong : "", "");
    wrong = hostile_registers(&driver, 0, VSOCK_QUEUES, VSOCK_TRANSMIT);
    CHECK_TEXT(wrong != NULL ? wrong : "", "");
    vsock_restart(0, VSOCK_ENTRIES);
    CHECK(connect_guest(GUEST));
    end();
}

TEST(a_ring_that_changes_meanwhile)
{
    begin_with(0);
    const char *wrong = hostile_changes(&driver, 0, VSOCK_QUEUES, VSOCK_TRANSMIT, 0);
    CHECK_TEXT(wrong != NULL ? wrong : "", "");
    end();
}

TEST(packets_over_the_rings)
{
    begin_with(0);
    CHECK(vsock_say(PACKET_REQUEST, GUEST, SERVED));
    int fd = host_accept(server);
    CHECK_INT(write(fd, zeros, 100000), 100000);
    for (uint16_t i = 0; i < 8; i++)
        virtio_driver_describe(&driver, VSOCK_RECEIVE, i, VIRTIO_DRIVER_DESCRIPTORS(i % 3), 0x9000, VIRTIO_DRIVER_WRITE,
                               0);
    for (uint16_t i = 0; i < 8; i++)
        virtio_driver_offer(&driver, VSOCK_RECEIVE, i);
    virtio_driver_kick(&driver, VSOCK_RECEIVE); /* whatever that makes of the rings */
    vsock_restart(0, VSOCK_ENTRIES);
    CHECK(connect_guest(GUEST));
    fd_close(fd);
    end();
}

/* ---- memory ---- */

TEST(making_survives_no_memory)
{
    static struct vial_vsock_ops ops = VIAL_VSOCK_OPS_INIT;
    struct vsock_port ports[] = {
        {.port = SERVED, .path = host_path("out")},
        {.port = TAKEN, .path = host_path("in"), .listens = true},
    };
    ops.send = (int (*)(void *, uint32_t, const void *, size_t))abort;
    struct vsock_custom_port custom = {.port = 5, .ops = &ops};
    struct vsock_options options = {
        .ports = ports, .port_count = array_length(ports), .custom_ports = &custom, .custom_port_count = 1};
    FOR_EACH_FAULT
    {
        struct virtio_device *device = NULL;
        CHECK_INT(vsock_new(&options, &device), fault_was_hit() ? -ENOMEM : 0);
        virtio_device_free(device);
    }
}

TEST(streams_survive_no_memory)
{
    begin();
    uint32_t port = GUEST;
    FOR_EACH_FAULT
    {
        bool was_refused = false;
        port++;
        CHECK(vsock_say(PACKET_REQUEST, port, SERVED));
        was_refused |= strncmp(vsock_hear_text(), "RST", 3) == 0;
        int fd = host_accept(server);
        for (int i = 0; i < 6 && !was_refused; i++) { /* until bytes have to be held */
            CHECK(vsock_say_bytes(port, SERVED, zeros, 60000));
            const char *heard = vsock_hear_text();
            was_refused |= strncmp(heard, "RST", 3) == 0;
        }
        CHECK_INT(was_refused, fault_was_hit());
        fd_close(fd);
        vsock_turn();
        while (strcmp(vsock_hear_text(), "none") != 0)
            continue;
        int client = host_connect(host_path("in"));
        vsock_turn();
        const char *heard = vsock_hear_text();
        CHECK(strncmp(heard, "REQUEST", 7) == 0 || read_byte(client) == 0);
        fd_close(client);
        while (strcmp(vsock_hear_text(), "none") != 0)
            continue;
    }
    end();
}

TEST(the_table_grows_or_does_without)
{
    begin();
    FOR_EACH_FAULT
    {
        vsock_restart(0, VSOCK_ENTRIES);
        unsigned answers = 0;
        for (uint32_t i = 0; i < 80; i++) {
            CHECK(vsock_say(PACKET_REQUEST, GUEST + i, SERVED));
            answers += strncmp(vsock_hear_text(), "RESPONSE", 8) == 0;
        }
        CHECK(answers >= 79);
        for (uint32_t i = 0; i < 80; i++) {
            CHECK(vsock_say(PACKET_RST, GUEST + i, SERVED));
            fd_close(host_accept(server));
        }
    }
    end();
}
