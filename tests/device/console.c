// SPDX-License-Identifier: Apache-2.0
/* The console against a driver: the handshake, bytes both ways at every pace, ends, and last words. */
#include "console_test.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* ---- the handshake ---- */

TEST(a_driver_without_multiport_has_one_console)
{
    int in[2], out[2];
    struct console_port_options ports[2];
    CHECK(pipe(in) == 0 && pipe(out) == 0);
    ports[0] = inout(NULL, in[0], out[1]);
    ports[1] = inout("other", -1, -1);
    begin(ports, 2, false);
    CHECK_INT(console_register(&driver, 0x08), 3);
    CHECK_INT(console_register(&driver, 0x100), 0);
    CHECK_INT(console_register(&driver, 0x104), 2);
    say(0, "hello");
    CHECK_TEXT(read_text(out[0]), "hello");
    CHECK_INT(write(in[1], "and back", 8), 8);
    CHECK_TEXT(hear_text(0), "and back");
    end();
    fd_close(in[0]), fd_close(in[1]), fd_close(out[0]), fd_close(out[1]);
}

TEST(ports_are_announced_one_by_one)
{
    struct console_port_options ports[2] = {inout(NULL, -1, -1), inout("agent", -1, -1)};
    struct console_options options = {.ports = ports, .port_count = 2};
    ports[0].is_console = true;
    console_driver_init(&driver, &options);
    console_driver_climb(&driver, true);
    CHECK_TEXT(next_message(), "none");
    console_say(&driver, 0, SAY_PORT_READY, 1); /* too early */
    CHECK_TEXT(next_message(), "none");
    console_say(&driver, 0, SAY_DEVICE_READY, 1);
    CHECK_TEXT(next_message(), "0:1:0");
    CHECK_TEXT(next_message(), "1:1:0");
    CHECK_TEXT(next_message(), "none");
    console_say(&driver, 1, SAY_PORT_READY, 1);
    CHECK_TEXT(next_message(), "1:7:0:agent");
    CHECK_TEXT(next_message(), "1:6:1");
    console_say(&driver, 0, SAY_PORT_READY, 1);
    CHECK_TEXT(next_message(), "0:4:1");
    CHECK_TEXT(next_message(), "0:6:1");
    for (int i = 0; i < 1000; i++) { /* again and again changes nothing */
        uint16_t head;
        uint32_t written;
        console_say(&driver, (uint32_t)i % 2, i % 3 == 0 ? SAY_DEVICE_READY : SAY_PORT_READY, 1);
        while (console_take(&driver, CONTROL_TX, &head, &written))
            continue;
    }
    CHECK_TEXT(next_message(), "none");
    CHECK_INT(console_ignored_messages(driver.device), 1 + 666);
    CHECK_INT(virtio_device_faults(driver.device), 0);
    console_driver_climb(&driver, true); /* after a reset, from the start */
    console_say(&driver, 0, SAY_DEVICE_READY, 1);
    CHECK_TEXT(next_message(), "0:1:0");
    end();
}

TEST(what_is_owed_waits_for_buffers)
{
    struct console_port_options ports[CONSOLE_MOST_PORTS];
    struct console_options options = {.ports = ports, .port_count = CONSOLE_MOST_PORTS};
    struct control_message message;
    char names[CONSOLE_MOST_PORTS][16];
    unsigned seen[8] = {0};
    for (unsigned i = 0; i < CONSOLE_MOST_PORTS; i++) {
        snprintf(names[i], sizeof(names[i]), "port-%u", i);
        ports[i] = inout(names[i], -1, -1);
    }
    console_driver_init(&driver, &options);
    console_driver_climb(&driver, true);
    console_say(&driver, 0, SAY_DEVICE_READY, 1); /* takes all 64 buffers */
    for (unsigned i = 0; i < CONSOLE_MOST_PORTS; i++) {
        uint16_t head;
        uint32_t written;
        console_say(&driver, i, SAY_PORT_READY, 1); /* there is no buffer to answer in */
        while (console_take(&driver, CONTROL_TX, &head, &written))
            continue;
    }
    while (console_hear(&driver, &message)) {
        seen[message.event & 7]++;
        CHECK(message.event != SAY_NAME || strcmp(message.body, names[message.port]) == 0);
    }
    CHECK_INT(seen[SAY_PORT_ADD], CONSOLE_MOST_PORTS);
    CHECK_INT(seen[SAY_NAME], CONSOLE_MOST_PORTS);
    CHECK_INT(seen[SAY_OPEN], CONSOLE_MOST_PORTS);
    end();
}

TEST(every_port_has_its_own_bytes)
{
    struct console_port_options ports[CONSOLE_MOST_PORTS];
    int pairs[CONSOLE_MOST_PORTS][2];
    for (unsigned i = 0; i < CONSOLE_MOST_PORTS; i++) {
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[i]) == 0);
        ports[i] = inout(NULL, pairs[i][1], pairs[i][1]);
    }
    begin(ports, CONSOLE_MOST_PORTS, true);
    for (unsigned i = 0; i < CONSOLE_MOST_PORTS; i++) {
        char text[16];
        snprintf(text, sizeof(text), "<%u>", i);
        say(i, text);
        CHECK_TEXT(read_text(pairs[i][0]), text);
        CHECK_INT(write(pairs[i][0], text, strlen(text)), (long)strlen(text));
        console_driver_turn(&driver);
        CHECK_TEXT(hear_text(i), text);
    }
    end();
    for (unsigned i = 0; i < CONSOLE_MOST_PORTS; i++)
        fd_close(pairs[i][0]), fd_close(pairs[i][1]);
}

/* ---- pace ---- */

/* As a vhost-user front end does that disables a ring for a moment. */
static void pause_output(void)
{
    uint64_t ring = console_ring(console_tx(0));
    struct queue_layout layout = {
        .descriptors = ring, .available = ring + 0x800, .used = ring + 0xc00, .entries = DRIVER_ENTRIES};
    layout.next_available = virtio_device_pause_queue(driver.device, console_tx(0));
    if (virtio_device_start_queue(driver.device, console_tx(0), &layout) < 0)
        abort();
}

/* Writes and reads `total` bytes with a reader that takes `step` at a time; whether every byte came in order. */
static bool moves_everything(int reader, size_t total, size_t step, bool pauses)
{
    uint8_t bytes[DRIVER_BUFFER_BYTES], got[DRIVER_BUFFER_BYTES];
    size_t sent = 0, received = 0;
    unsigned idle = 0;
    while (received < total && idle < 1000) {
        for (;;) {
            size_t length = total - sent < sizeof(bytes) ? total - sent : sizeof(bytes) - sent % 7;
            for (size_t i = 0; i < length; i++)
                bytes[i] = (uint8_t)((sent + i) * 2654435761u >> 13);
            if (length == 0 || !console_write(&driver, 0, bytes, length))
                break;
            sent += length;
        }
        console_driver_turn(&driver);
        if (pauses)
            pause_output();
        struct pollfd wait = {.fd = reader, .events = POLLIN};
        if (poll(&wait, 1, 0) == 0) {
            idle++;
            continue;
        }
        idle = 0;
        ssize_t length = read(reader, got, step);
        for (ssize_t i = 0; i < length; i++)
            if (got[i] != (uint8_t)((received + (size_t)i) * 2654435761u >> 13))
                return false;
        received += length > 0 ? (size_t)length : 0;
    }
    return received == total && console_dropped_bytes(driver.device) == 0;
}

TEST(a_slow_reader_loses_nothing)
{
    int out[2];
    CHECK(pipe(out) == 0);
    CHECK(fcntl(out[1], F_SETPIPE_SZ, 4096) > 0);
    struct console_port_options port = inout(NULL, -1, out[1]);
    begin(&port, 1, false);
    CHECK(moves_everything(out[0], 10 << 20, 1021, false));
    end();
    CHECK_INT(fcntl(out[1], F_GETFL) & O_NONBLOCK, 0);
    fd_close(out[0]), fd_close(out[1]);
}

TEST(a_queue_that_is_paused_loses_and_repeats_nothing)
{
    int out[2];
    CHECK(pipe(out) == 0);
    CHECK(fcntl(out[1], F_SETPIPE_SZ, 4096) > 0);
    struct console_port_options port = inout(NULL, -1, out[1]);
    begin(&port, 1, false);
    CHECK(moves_everything(out[0], 2 << 20, 1021, true));
    /* What comes after the pause is shorter than what was written of it: a driver's own fault, and its own loss. */
    static uint8_t bytes[DRIVER_BUFFER_BYTES];
    for (int i = 0; i < 3; i++)
        CHECK(console_write(&driver, 0, bytes, sizeof(bytes)));
    console_driver_turn(&driver);
    CHECK_INT(read(out[0], bytes, 1000), 1000);
    CHECK_INT(virtio_device_faults(driver.device), 0);
    for (uint16_t i = 0; i < DRIVER_ENTRIES; i++)
        console_describe(&driver, console_tx(0), i, console_buffer(console_tx(0), i), 1, 0, 0);
    pause_output();
    for (int i = 0; i < 5; i++) {
        console_driver_turn(&driver);
        CHECK(fcntl(out[0], F_SETFL, O_NONBLOCK) == 0 && read(out[0], bytes, sizeof(bytes)) >= -1);
    }
    CHECK_INT(virtio_device_faults(driver.device), 0);
    end();
    fd_close(out[0]), fd_close(out[1]);
}

TEST(neither_does_a_slow_socket_or_terminal)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    struct console_port_options port = inout(NULL, -1, pair[1]);
    begin(&port, 1, false);
    CHECK(moves_everything(pair[0], 2 << 20, 1021, false));
    end();
    fd_close(pair[0]), fd_close(pair[1]);
    for (int is_master = 0; is_master < 2; is_master++) { /* a master cannot be opened again */
        int master = posix_openpt(O_RDWR | O_NOCTTY);
        CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
        int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
        struct termios raw;
        CHECK(slave >= 0 && tcgetattr(slave, &raw) == 0);
        cfmakeraw(&raw);
        CHECK(tcsetattr(slave, TCSANOW, &raw) == 0);
        port = inout(NULL, -1, is_master ? master : slave);
        begin(&port, 1, false);
        CHECK(moves_everything(is_master ? slave : master, 100000, 101, false));
        end();
        fd_close(master), fd_close(slave);
    }
}

TEST(input_waits_for_buffers)
{
    enum { total = 1 << 20 };
    int in[2];
    CHECK(pipe2(in, O_NONBLOCK) == 0);
    struct console_port_options port = inout(NULL, in[0], -1);
    begin(&port, 1, false);
    uint8_t bytes[1000], got[16 * DRIVER_BUFFER_BYTES];
    size_t sent = 0, received = 0;
    while (received < total) {
        while (sent < total) {
            for (size_t i = 0; i < sizeof(bytes); i++)
                bytes[i] = (uint8_t)((sent + i) >> 5);
            ssize_t length = write(in[1], bytes, total - sent < sizeof(bytes) ? total - sent : sizeof(bytes));
            if (length < 0)
                break;
            sent += (size_t)length;
        }
        size_t length = console_read(&driver, 0, got, sizeof(got));
        for (size_t i = 0; i < length; i++)
            CHECK_INT(got[i], (uint8_t)((received + i) >> 5));
        received += length;
    }
    end();
    fd_close(in[0]), fd_close(in[1]);
}

TEST(input_waits_until_the_guest_opens_the_port)
{
    int in[2], waiting = 0;
    struct control_message message;
    CHECK(pipe(in) == 0);
    struct console_port_options port = inout("in", in[0], -1);
    struct console_options options = {.ports = &port, .port_count = 1};
    console_driver_init(&driver, &options);
    CHECK_INT(write(in[1], "early", 5), 5);
    console_driver_climb(&driver, true);
    console_say(&driver, 0, SAY_DEVICE_READY, 1);
    console_say(&driver, 0, SAY_PORT_READY, 1);
    while (console_hear(&driver, &message))
        continue;
    CHECK(ioctl(in[0], FIONREAD, &waiting) == 0);
    CHECK_INT(waiting, 5);
    console_say(&driver, 0, SAY_OPEN, 1);
    CHECK_TEXT(hear_text(0), "early");
    console_say(&driver, 0, SAY_OPEN, 0);
    CHECK_INT(write(in[1], "between", 7), 7);
    CHECK_TEXT(hear_text(0), "");
    console_say(&driver, 0, SAY_OPEN, 1);
    CHECK_TEXT(hear_text(0), "between");
    end();
    fd_close(in[0]), fd_close(in[1]);
}

/* ---- ends ---- */

TEST(the_end_of_input_closes_a_port_that_has_no_output)
{
    int in[2];
    CHECK(pipe(in) == 0);
    CHECK_INT(write(in[1], "last", 4), 4);
    in[1] = fd_close(in[1]); /* before the device opens it: no hangup will ever be reported */
    struct console_port_options ports[] = {inout("in", in[0], -1), inout("both", in[0], STDERR_FILENO)};
    begin(ports, 2, true);
    CHECK_TEXT(hear_text(0), "last");
    CHECK_TEXT(next_message(), "none"); /* begin has heard it */
    end();
    begin(ports, 1, false);
    end();
    struct console_options options = {.ports = ports, .port_count = 2};
    console_driver_init(&driver, &options);
    console_driver_climb(&driver, true);
    console_say(&driver, 0, SAY_DEVICE_READY, 1);
    console_say(&driver, 0, SAY_PORT_READY, 1);
    console_say(&driver, 1, SAY_PORT_READY, 1);
    struct control_message message;
    while (console_hear(&driver, &message))
        continue;
    console_say(&driver, 0, SAY_OPEN, 1);
    CHECK_TEXT(next_message(), "0:6:0");
    console_say(&driver, 1, SAY_OPEN, 1);
    CHECK_TEXT(next_message(), "none"); /* its writers would block for ever */
    end();
    fd_close(in[0]);
}

TEST(a_writer_that_ends_later_is_noticed_later)
{
    int in[2];
    CHECK(pipe(in) == 0);
    struct console_port_options port = inout("in", in[0], -1);
    begin(&port, 1, true);
    CHECK_TEXT(next_message(), "none");
    CHECK_INT(write(in[1], "more", 4), 4);
    fd_close(in[1]);
    CHECK_TEXT(hear_text(0), "more");
    CHECK_TEXT(next_message(), "0:6:0");
    CHECK_TEXT(next_message(), "none");
    end();
    fd_close(in[0]);
}

TEST(a_reader_that_leaves_does_not_stop_the_guest)
{
    int out[2], pair[2];
    CHECK(pipe(out) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    struct console_port_options ports[] = {inout("out", -1, out[1]), inout("both", pair[1], pair[1])};
    begin(ports, 2, true);
    say(0, "one");
    CHECK_TEXT(read_text(out[0]), "one");
    fd_close(out[0]);
    for (int i = 0; i < 200; i++)
        say(0, "nobody hears this");
    CHECK_INT(console_dropped_bytes(driver.device), 200 * 17);
    CHECK_TEXT(next_message(), "none");
    fd_close(pair[0]);
    say(1, "neither this");
    CHECK_TEXT(next_message(), "1:6:0");
    CHECK_INT(console_dropped_bytes(driver.device), 200 * 17 + 12);
    end();
    fd_close(out[1]), fd_close(pair[1]);
}

TEST(files_take_everything_and_full_disks_are_counted)
{
    const char *path = test_text_file("log", "");
    auto_close int file = open(path, O_WRONLY | O_APPEND), full = open("/dev/full", O_WRONLY),
                   null = open("/dev/null", O_RDWR);
    CHECK(file >= 0 && full >= 0 && null >= 0);
    struct console_port_options ports[] = {inout("file", -1, file), inout("full", -1, full), inout("null", null, null)};
    begin(ports, 3, true);
    for (int i = 0; i < 300; i++) {
        say(0, "\x1b[31mraw\n");
        say(1, "lost");
        say(2, "gone");
    }
    end();
    auto_close int again = open(path, O_RDONLY);
    CHECK_INT(lseek(again, 0, SEEK_END), 300 * 9);
    begin(ports + 1, 1, true);
    say(0, "lost");
    CHECK_INT(console_dropped_bytes(driver.device), 4);
    end();
}

/* ---- functions of the embedding program ---- */

struct custom {
    int event_fd;
    size_t room, waiting;
    char taken[65536];
    size_t taken_bytes;
};

static ssize_t custom_read(void *user, void *bytes, size_t size)
{
    struct custom *custom = user;
    size_t length = custom->waiting < size ? custom->waiting : size;
    if (length == 0)
        return -EAGAIN;
    memset(bytes, 'r', length);
    custom->waiting -= length;
    return (ssize_t)length;
}

static ssize_t custom_write(void *user, const void *bytes, size_t length)
{
    struct custom *custom = user;
    size_t part = custom->room < length ? custom->room : length;
    if (part == 0)
        return -EAGAIN;
    memcpy(custom->taken + custom->taken_bytes, bytes, part);
    custom->taken_bytes += part;
    custom->room -= part;
    return (ssize_t)part;
}

static int custom_poll_fd(void *user)
{
    return ((struct custom *)user)->event_fd;
}

static ssize_t custom_lie(void *user, const void *bytes, size_t length)
{
    (void)user, (void)bytes;
    return (ssize_t)length + 1;
}

static int changes[2]; /* closed, opened */

static void note_change(void *user, bool is_open)
{
    (void)user;
    changes[is_open]++;
}

TEST(a_close_is_told_when_the_last_words_are_out)
{
    static const char page[4096];
    int out[2];
    CHECK(pipe(out) == 0);
    CHECK(fcntl(out[1], F_SETPIPE_SZ, 4096) > 0);
    struct console_port_options port = inout("out", -1, out[1]);
    port.guest_changed = note_change;
    changes[0] = changes[1] = 0;
    begin(&port, 1, true);
    CHECK_INT(changes[1], 1);
    for (int i = 0; i < 3; i++)
        CHECK(console_write(&driver, 0, page, sizeof(page)));
    console_driver_turn(&driver);
    console_say(&driver, 0, 6, 0); /* PORT_OPEN 0 */
    console_driver_turn(&driver);
    CHECK_INT(changes[0], 0);
    for (size_t got = 0; got < 3 * sizeof(page); got += strlen(read_text(out[0])) + 4096) {
        CHECK_INT(changes[0], 0);
        console_driver_turn(&driver);
    }
    CHECK(COMES_TRUE((console_driver_turn(&driver), changes[0] == 1)));
    console_driver_turn(&driver);
    CHECK_INT(changes[0], 1);
    console_say(&driver, 0, 6, 1);
    console_say(&driver, 0, 6, 0);
    console_driver_turn(&driver);
    CHECK_INT(changes[1], 2);
    CHECK_INT(changes[0], 2);
    end();
    fd_close(out[0]), fd_close(out[1]);
}

TEST(a_close_is_told_when_nobody_reads_any_more)
{
    int out[2];
    CHECK(pipe(out) == 0);
    struct console_port_options port = inout("out", -1, out[1]);
    port.guest_changed = note_change;
    changes[0] = changes[1] = 0;
    begin(&port, 1, true);
    fd_close(out[0]);
    say(0, "lost");
    console_say(&driver, 0, 6, 0);
    console_driver_turn(&driver);
    CHECK_INT(changes[0], 1);
    end();
    CHECK_INT(changes[0], 1);
    fd_close(out[1]);
}

TEST(functions_can_be_a_port)
{
    static struct custom custom;
    custom = (struct custom){.event_fd = eventfd(0, EFD_NONBLOCK)};
    struct vial_console_ops ops = VIAL_CONSOLE_OPS_INIT;
    ops.read = custom_read;
    ops.write = custom_write;
    ops.poll_fd = custom_poll_fd;
    struct console_port_options port = {
        .name = "fn", .kind = CONSOLE_PORT_CUSTOM, .ops = &ops, .ops_user = &custom, .tty_fd = -1};
    begin(&port, 1, true);
    custom.room = 3;
    say(0, "hello");
    CHECK_INT(custom.taken_bytes, 3);
    custom.room = 100;
    console_driver_turn(&driver);
    CHECK(custom.taken_bytes == 5 && memcmp(custom.taken, "hello", 5) == 0);
    custom.waiting = 5000;
    uint64_t one = 1;
    CHECK_INT(write(custom.event_fd, &one, sizeof(one)), 8);
    char got[4 * DRIVER_BUFFER_BYTES];
    CHECK_INT(console_read(&driver, 0, got, sizeof(got)), 5000);
    CHECK(got[0] == 'r' && got[4999] == 'r');
    end();
    ops.write = custom_lie;
    begin(&port, 1, true);
    say(0, "hello");
    CHECK_INT(console_dropped_bytes(driver.device), 5);
    end();
    close(custom.event_fd);
}

/* ---- the end of the machine ---- */

/* In the ring, without a kick, as a guest does that resets right behind its last printf. */
static void queue_text(unsigned port, const char *text, unsigned times)
{
    for (unsigned i = 0; i < times; i++)
        if (!console_write(&driver, port, text, strlen(text)))
            abort();
}

TEST(last_words_are_written)
{
    int out[2];
    CHECK(pipe(out) == 0);
    auto_close int file = memfd_create("file", MFD_CLOEXEC);
    struct console_port_options ports[] = {inout("pipe", -1, out[1]), inout("file", -1, file)};
    begin(ports, 2, true);
    queue_text(0, "goodbye", 1);
    queue_text(1, "cruel world", 60);
    console_driver_reset(&driver);
    CHECK_TEXT(read_text(out[0]), "goodbye");
    CHECK_INT(lseek(file, 0, SEEK_END), 60 * 11);
    console_driver_start(&driver, true);
    queue_text(0, "again", 1);
    end(); /* freed without a reset */
    CHECK_TEXT(read_text(out[0]), "again");
    fd_close(out[0]), fd_close(out[1]);
}

/* A serve takes no more chains than the queue has places; what comes at the end has places of its own. */
TEST(last_words_do_not_depend_on_what_was_said_before)
{
    int out[2];
    CHECK(pipe(out) == 0);
    struct console_port_options port = inout(NULL, -1, out[1]);
    begin(&port, 1, false);
    queue_text(0, "x", 60);
    console_driver_turn(&driver);
    CHECK_INT(strlen(read_text(out[0])), 60);
    queue_text(0, "y", 60);
    console_driver_reset(&driver);
    CHECK_INT(strlen(read_text(out[0])), 60);
    CHECK_INT(console_dropped_bytes(driver.device), 0);
    end();
    fd_close(out[0]), fd_close(out[1]);
}

static void *read_slowly(void *argument)
{
    int fd = *(int *)argument;
    static size_t total;
    char bytes[4096];
    ssize_t got;
    total = 0;
    while ((got = read(fd, bytes, sizeof(bytes))) > 0) {
        total += (size_t)got;
        poll(NULL, 0, 5);
    }
    return &total;
}

TEST(a_slow_reader_gets_the_last_words_too)
{
    int out[2];
    pthread_t thread;
    void *total = NULL;
    static char text[DRIVER_BUFFER_BYTES];
    memset(text, 'x', sizeof(text) - 1);
    CHECK(pipe(out) == 0);
    CHECK(fcntl(out[1], F_SETPIPE_SZ, 4096) > 0);
    struct console_port_options port = inout(NULL, -1, out[1]);
    begin(&port, 1, false);
    CHECK_INT(pthread_create(&thread, NULL, read_slowly, &out[0]), 0);
    queue_text(0, text, 60); /* 60 times 5 ms and more: longer than the grace, with progress all the time */
    console_driver_reset(&driver);
    CHECK_INT(console_dropped_bytes(driver.device), 0);
    end();
    fd_close(out[1]);
    pthread_join(thread, &total);
    CHECK_INT(*(size_t *)total, 60 * 4095);
    fd_close(out[0]);
}

TEST(a_stuck_reader_does_not_hold_up_a_reset)
{
    int out[2];
    static char text[DRIVER_BUFFER_BYTES];
    memset(text, 'x', sizeof(text) - 1);
    CHECK(pipe(out) == 0);
    struct console_port_options port = inout(NULL, -1, out[1]);
    begin(&port, 1, false);
    queue_text(0, text, 64);
    console_driver_turn(&driver);
    uint64_t before_ns = clock_now_ns();
    console_driver_reset(&driver);
    CHECK(clock_now_ns() - before_ns < 700 * CLOCK_NS_PER_MS);
    int waiting = 0;
    CHECK(ioctl(out[0], FIONREAD, &waiting) == 0);
    CHECK_INT(console_dropped_bytes(driver.device), 64 * 4095 - waiting);
    console_driver_start(&driver, false);
    while (strlen(read_text(out[0])) == 8191)
        continue;
    say(0, "fresh");
    CHECK_TEXT(read_text(out[0]), "fresh");
    end();
    fd_close(out[0]), fd_close(out[1]);
}

TEST(a_stuck_reader_costs_no_time)
{
    int out[2];
    static char text[DRIVER_BUFFER_BYTES];
    struct timespec before, after;
    memset(text, 'x', sizeof(text) - 1);
    CHECK(pipe(out) == 0);
    struct console_port_options port = inout(NULL, -1, out[1]);
    begin(&port, 1, false);
    driver.is_launched = true;
    CHECK_INT(virtio_device_launch(driver.device), 0);
    queue_text(0, text, 64);
    poll(NULL, 0, 50);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    poll(NULL, 0, 200);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    CHECK(clock_from_timespec(&after) - clock_from_timespec(&before) < 20 * CLOCK_NS_PER_MS);
    int waiting = 0;
    CHECK(ioctl(out[0], FIONREAD, &waiting) == 0);
    uint64_t lost = 64 * 4095 - (uint64_t)waiting;
    fd_close(out[0]); /* a hangup: noticed, and no reason to spin either */
    CHECK(COMES_TRUE(console_dropped_bytes(driver.device) == lost));
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    poll(NULL, 0, 200);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    CHECK(clock_from_timespec(&after) - clock_from_timespec(&before) < 20 * CLOCK_NS_PER_MS);
    end();
    fd_close(out[1]);
}

/* ---- making one ---- */

TEST(wrong_options_are_refused)
{
    struct virtio_device *device = NULL;
    struct console_port_options ports[CONSOLE_MOST_PORTS + 1] = {0};
    char name[LIMIT_PORT_NAME_BYTES + 2];
    struct vial_console_ops ops = VIAL_CONSOLE_OPS_INIT;
    auto_close int null = open("/dev/null", O_WRONLY);
    for (size_t i = 0; i < array_length(ports); i++)
        ports[i] = inout(NULL, -1, -1);
    CHECK_INT(console_new(&(struct console_options){.ports = ports}, &device), -EINVAL);
    CHECK_INT(console_new(&(struct console_options){.ports = ports, .port_count = 65}, &device), -E2BIG);
    ports[0] = inout(NULL, null, -1); /* open for writing only */
    CHECK_INT(console_new(&(struct console_options){.ports = ports, .port_count = 1}, &device), -EBADF);
    ports[0] = inout(NULL, -1, 9999);
    CHECK_INT(console_new(&(struct console_options){.ports = ports, .port_count = 1}, &device), -EBADF);
    ports[0] = terminal_port(null);
    CHECK_INT(console_new(&(struct console_options){.ports = ports, .port_count = 1}, &device), -ENOTTY);
    ports[0] = (struct console_port_options){.kind = CONSOLE_PORT_CUSTOM, .ops = &ops};
    CHECK_INT(console_new(&(struct console_options){.ports = ports, .port_count = 1}, &device), -EINVAL);
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    ports[0] = inout(name, -1, -1);
    CHECK_INT(console_new(&(struct console_options){.ports = ports, .port_count = 1}, &device), -EINVAL);
    CHECK(device == NULL);
}

TEST(console_survives_no_memory)
{
    int slave, master = open_pty(&slave);
    FOR_EACH_FAULT
    {
        struct virtio_device *device = NULL;
        struct console_port_options ports[] = {terminal_port(slave), inout("named", STDIN_FILENO, STDERR_FILENO)};
        struct console_options options = {.ports = ports, .port_count = 2};
        CHECK_INT(console_new(&options, &device), fault_was_hit() ? -ENOMEM : 0);
        virtio_device_free(device);
    }
    fd_close(master), fd_close(slave);
}
