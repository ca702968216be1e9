// SPDX-License-Identifier: Apache-2.0
/* The serial port against a driver: each register, then readers and writers of every kind and pace. */
#include "test.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "device/legacy/serial.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

/* As Linux's serial_reg.h calls them, more or less. */
enum { RBR = 0, THR = 0, DLL = 0, IER = 1, DLM = 1, IIR = 2, FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7 };
enum { LSR_READY = 0x01, LSR_OVERRUN = 0x02, LSR_EMPTY = 0x60, LCR_DLAB = 0x80, MCR_LOOP = 0x10 };
enum { MCR_RUNNING = 0x0b /* DTR, RTS, OUT2 */, IER_RECEIVED = 1, IER_TRANSMITTER = 2, IER_LINE = 4, IER_MODEM = 8 };
enum { patience_ms = 10000 };

static struct serial *serial;
static int interrupt_fd = -1;

static int begin(int input_fd, int output_fd)
{
    interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct serial_options options = {.input_fd = input_fd, .output_fd = output_fd, .interrupt_fd = interrupt_fd};
    return serial_new(&options, &serial);
}

static void end(void)
{
    serial = serial_free(serial);
    interrupt_fd = fd_close(interrupt_fd);
}

static uint8_t get(uint64_t offset)
{
    return serial_read(serial, offset);
}

static void put(uint64_t offset, uint8_t value)
{
    serial_write(serial, offset, value);
}

/* How many edges there were since the last time. */
static uint64_t edges(void)
{
    uint64_t count = 0;
    return read(interrupt_fd, &count, sizeof(count)) == (ssize_t)sizeof(count) ? count : 0;
}

static bool has_edge_within(int milliseconds)
{
    struct pollfd ready = {.fd = interrupt_fd, .events = POLLIN};
    return poll(&ready, 1, milliseconds) == 1;
}

static bool wait_edge(void)
{
    return has_edge_within(patience_ms) && edges() > 0;
}

/* Sends as a driver that looks first. */
static void send_polling(const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        while ((get(LSR) & LSR_EMPTY) != LSR_EMPTY)
            sched_yield();
        put(THR, bytes[i]);
    }
}

/* The same until the port is full: how many bytes it took. */
static size_t send_until_busy(size_t most)
{
    size_t sent = 0;
    for (; sent < most && (get(LSR) & LSR_EMPTY) != 0; sent++)
        put(THR, (uint8_t)sent);
    return sent;
}

/* Receives by interrupts. False when they stay away. */
static bool receive(uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length;) {
        if ((get(LSR) & LSR_READY) != 0)
            bytes[i++] = get(RBR);
        else if (!wait_edge())
            return false;
    }
    return true;
}

static bool read_all(int fd, uint8_t *bytes, size_t length)
{
    for (size_t done = 0; done < length;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        ssize_t got = poll(&ready, 1, patience_ms) == 1 ? read(fd, bytes + done, length - done) : -1;
        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    return true;
}

static void close_both(int fds[2])
{
    fds[0] = fd_close(fds[0]);
    fds[1] = fd_close(fds[1]);
}

/* A pipe of one page. */
static void make_pipe(int fds[2])
{
    if (pipe2(fds, O_CLOEXEC) < 0 || fcntl(fds[1], F_SETPIPE_SZ, 4096) < 0)
        abort();
}

static uint8_t pattern(size_t index)
{
    return (uint8_t)(index * 7 + index / 256);
}

/* ---- registers ---- */

TEST(after_reset)
{
    CHECK_INT(begin(-1, -1), 0);
    CHECK_INT(get(IER), 0);
    CHECK_INT(get(IIR), 1);
    CHECK_INT(get(LCR), 0);
    CHECK_INT(get(MCR), 0);
    CHECK_INT(get(LSR), 0x60);
    CHECK_INT(get(MSR), 0xb0);
    CHECK_INT(get(SCR), 0);
    CHECK_INT(get(RBR), 0);
    CHECK_INT(get(8), 0xff);
    CHECK_INT(get(UINT64_MAX), 0xff);
    put(8, 1);
    put(UINT64_MAX, 1);
    CHECK_INT(edges(), 0);
    end();
}

TEST(registers_hold_what_a_16550a_has)
{
    CHECK_INT(begin(-1, -1), 0);
    for (unsigned value = 0; value < 256; value++) {
        put(SCR, (uint8_t)value);
        CHECK_INT(get(SCR), value);
        put(IER, (uint8_t)value);
        CHECK_INT(get(IER), value & 0x0f);
        put(MCR, (uint8_t)value);
        CHECK_INT(get(MCR), value & 0x1f);
        put(LCR, (uint8_t)(value | LCR_DLAB));
        put(DLL, (uint8_t)value);
        put(DLM, (uint8_t)~value);
        CHECK_INT(get(DLL), value);
        CHECK_INT(get(DLM), 255 - value);
        put(LCR, (uint8_t)value & 0x7f);
        CHECK_INT(get(LCR), value & 0x7f);
        CHECK_INT(get(IER), value & 0x0f);
    }
    put(MCR, 0);
    put(LSR, 0xff);
    get(MSR);
    put(MSR, 0xff);
    CHECK_INT(get(LSR), 0x60);
    CHECK_INT(get(MSR), 0xb0);
    end();
}

/* Linux's 8250_port.c tells the chips apart by these. */
TEST(linux_finds_a_16550a)
{
    CHECK_INT(begin(-1, -1), 0);
    put(IER, 0xff);
    CHECK_INT(get(IER) & 0xf0, 0);
    put(IER, 0);
    put(MCR, MCR_LOOP | 0x0a);
    CHECK_INT(get(MSR) & 0xf0, 0x90);
    put(MCR, 0);
    put(FCR, 1);
    CHECK_INT(get(IIR) >> 6, 3);
    put(LCR, LCR_DLAB);
    CHECK(get(FCR) != 0); /* an EFR would read as zero */
    put(FCR, 0x21);
    CHECK_INT(get(IIR) >> 5, 6); /* no 64-byte FIFO */
    put(LCR, 0);
    put(FCR, 0);
    CHECK_INT(get(IIR), 1);
    /* Whether the transmitter's interrupt comes back when it is enabled again. */
    put(IER, IER_TRANSMITTER);
    CHECK_INT(get(IIR), 2);
    put(IER, 0);
    put(IER, IER_TRANSMITTER);
    CHECK_INT(get(IIR), 2);
    CHECK_INT(get(IIR), 1);
    end();
}

TEST(loopback)
{
    CHECK_INT(begin(-1, -1), 0);
    put(MCR, MCR_LOOP);
    put(THR, 'a');
    CHECK_INT(get(LSR), 0x61);
    put(THR, 'b'); /* without FIFOs there is room for one */
    CHECK_INT(get(LSR), 0x63);
    CHECK_INT(get(LSR), 0x61);
    CHECK_INT(get(RBR), 'a');
    CHECK_INT(get(LSR), 0x60);
    put(FCR, 1);
    for (uint8_t i = 0; i < 17; i++)
        put(THR, i);
    CHECK_INT(get(LSR), 0x63);
    for (uint8_t i = 0; i < 16; i++)
        CHECK_INT(get(RBR), i);
    CHECK_INT(get(LSR), 0x60);
    put(THR, 1);
    put(FCR, 3); /* clears */
    CHECK_INT(get(LSR), 0x60);
    put(THR, 1);
    put(FCR, 2); /* without the first bit the second is none, but switching the FIFOs off clears them, too */
    CHECK_INT(get(LSR), 0x60);
    CHECK_INT(serial_dropped_bytes(serial), 0);
    end();
}

TEST(modem_lines_in_loopback)
{
    CHECK_INT(begin(-1, -1), 0);
    put(MCR, MCR_LOOP);
    CHECK_INT(get(MSR), 0x0b); /* clear to send, data set ready and carrier went away */
    CHECK_INT(get(MSR), 0x00);
    put(MCR, MCR_LOOP | 0x01);
    CHECK_INT(get(MSR), 0x22);
    put(MCR, MCR_LOOP | 0x02);
    CHECK_INT(get(MSR), 0x13);
    put(MCR, MCR_LOOP | 0x04);
    CHECK_INT(get(MSR), 0x41); /* the begin of a ring does not count */
    put(MCR, MCR_LOOP | 0x08);
    CHECK_INT(get(MSR), 0x8c); /* its end does */
    put(IER, IER_MODEM);
    CHECK_INT(get(IIR), 1);
    put(MCR, 0);
    CHECK_INT(get(IIR), 0);
    CHECK_INT(get(MSR), 0xb3);
    CHECK_INT(get(IIR), 1);
    end();
}

/* ---- interrupts ---- */

TEST(interrupts_by_priority)
{
    CHECK_INT(begin(-1, -1), 0);
    put(FCR, 0x41); /* trigger at 4 */
    put(IER, IER_RECEIVED | IER_TRANSMITTER | IER_LINE | IER_MODEM);
    put(MCR, MCR_LOOP);
    for (int i = 0; i < 17; i++)
        put(THR, 'x');
    CHECK_INT(get(IIR), 0xc6);
    get(LSR);
    for (int i = 0; i < 16; i++) {
        CHECK_INT(get(IIR), i <= 12 ? 0xc4 : 0xcc);
        get(RBR);
    }
    CHECK_INT(get(IIR), 0xc2);
    CHECK_INT(get(IIR), 0xc0);
    get(MSR);
    CHECK_INT(get(IIR), 0xc1);
    CHECK_INT(edges(), 0); /* OUT2 does not reach the line in loopback */
    end();
}

TEST(the_transmitter_interrupt)
{
    CHECK_INT(begin(-1, -1), 0);
    put(MCR, MCR_RUNNING);
    CHECK_INT(edges(), 0);
    put(IER, IER_TRANSMITTER);
    CHECK_INT(edges(), 1);
    put(IER, IER_TRANSMITTER); /* enabled already: nothing happens */
    put(IER, IER_TRANSMITTER | IER_LINE);
    CHECK_INT(edges(), 0);
    CHECK_INT(get(IIR), 2);
    CHECK_INT(get(IIR), 1);
    put(IER, IER_TRANSMITTER);
    CHECK_INT(get(IIR), 1);
    CHECK_INT(edges(), 0);
    put(THR, 'a'); /* it is empty again at once */
    CHECK_INT(edges(), 1);
    put(THR, 'b'); /* still pending: no second edge */
    CHECK_INT(edges(), 0);
    CHECK_INT(get(IIR), 2);
    put(THR, 'c');
    CHECK_INT(edges(), 1);
    put(IER, 0);
    CHECK_INT(get(IIR), 1);
    put(IER, IER_TRANSMITTER);
    CHECK_INT(edges(), 1);
    end();
}

TEST(the_line_needs_out2)
{
    CHECK_INT(begin(-1, -1), 0);
    put(IER, IER_TRANSMITTER);
    CHECK_INT(edges(), 0);
    put(MCR, 0x08);
    CHECK_INT(edges(), 1);
    put(MCR, 0x00);
    put(MCR, 0x08);
    CHECK_INT(edges(), 1);
    put(MCR, 0x08 | MCR_LOOP);
    put(MCR, 0x08);
    CHECK_INT(edges(), 1);
    end();
}

/* ---- output ---- */

static void *read_slowly(void *argument)
{
    int fd = *(int *)argument;
    static uint8_t all[400000];
    size_t count = 0;
    for (;;) {
        for (int i = 0; i < 20; i++)
            sched_yield();
        ssize_t got = read(fd, all + count, count < 5000 ? 1 : 777);
        if (got <= 0 || count + (size_t)got > sizeof(all) - 777)
            break;
        count += (size_t)got;
    }
    size_t right = 0;
    while (right < count && all[right] == pattern(right))
        right++;
    return (void *)(right == count ? count : 0); /* NOLINT */
}

/* 300000 bytes through one descriptor to a reader that dawdles. */
static bool arrives_whole(int fds[2])
{
    pthread_t thread;
    enum { length = 300000 };
    uint8_t *bytes = malloc(length);
    void *count = NULL;
    if (bytes == NULL || begin(-1, fds[1]) < 0 || pthread_create(&thread, NULL, read_slowly, &fds[0]) != 0)
        abort();
    for (size_t i = 0; i < length; i++)
        bytes[i] = pattern(i);
    send_polling(bytes, length);
    free(bytes);
    uint64_t dropped = serial_dropped_bytes(serial);
    end();
    shutdown(fds[1], SHUT_WR);
    fds[1] = fd_close(fds[1]);
    pthread_join(thread, &count);
    close_both(fds);
    return (size_t)count == length && dropped == 0;
}

TEST(a_slow_reader_of_a_pipe_gets_everything)
{
    int fds[2];
    make_pipe(fds);
    CHECK(arrives_whole(fds));
}

TEST(a_slow_reader_of_a_socket_gets_everything)
{
    int fds[2];
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    CHECK(arrives_whole(fds));
}

/* Fills port and descriptor; then the reader wakes up, then sleeps again while the port is freed. */
static void check_stuck(int read_fd, int write_fd, size_t before)
{
    enum { most = 4 << 20 };
    uint64_t started_ns = 0;
    uint8_t some[8192];
    CHECK_INT(begin(-1, write_fd), 0);
    put(MCR, MCR_RUNNING);
    size_t sent = 0;
    struct pollfd full = {.fd = write_fd, .events = POLLOUT};
    /* A terminal may still be called writable then: it moves bytes between its buffers and tells nobody. */
    for (int quiet = 0; sent < most && quiet < 10 && (quiet == 0 || poll(&full, 1, 0) != 0);) {
        poll(NULL, 0, 20); /* the thread moves on what the descriptor takes */
        size_t more = send_until_busy(most - sent);
        quiet = more > 0 ? 0 : quiet + 1;
        sent += more;
    }
    CHECK(sent >= LIMIT_SERIAL_OUTPUT_BYTES - 16 && sent < most);
    edges();
    put(IER, IER_TRANSMITTER);
    CHECK_INT(get(IIR), 1);
    for (int i = 0; i < 100; i++) /* a driver that does not look */
        put(THR, 'x');
    CHECK(serial_dropped_bytes(serial) >= 100 - 16 && serial_dropped_bytes(serial) <= 100);
    CHECK_INT(edges(), 0);
    CHECK(read_all(read_fd, some, before)); /* what was in it already */
    CHECK(read_all(read_fd, some, sizeof(some)));
    for (size_t i = 0; i < sizeof(some); i++)
        CHECK_INT(some[i], (uint8_t)i);
    /* A socket has room again only when a whole piece was read. */
    for (int i = 0; i < 28 && !has_edge_within(20); i++)
        CHECK(read_all(read_fd, some, 2048));
    CHECK(wait_edge());
    CHECK_INT(get(IIR), 2);
    started_ns = clock_now_ns();
    end();
    CHECK(clock_now_ns() - started_ns < 700 * CLOCK_NS_PER_MS); /* the reader has not moved for 100 ms */
}

TEST(a_stuck_pipe)
{
    int fds[2];
    make_pipe(fds);
    check_stuck(fds[0], fds[1], 0);
    CHECK_INT(fcntl(fds[1], F_GETFL) & O_NONBLOCK, 0);
    close_both(fds);
}

TEST(a_stuck_socket)
{
    int fds[2];
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    check_stuck(fds[0], fds[1], 0);
    CHECK_INT(fcntl(fds[1], F_GETFL) & O_NONBLOCK, 0);
    close_both(fds);
}

TEST(a_stuck_terminal)
{
    struct termios settings;
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(slave >= 0 && tcgetattr(slave, &settings) == 0);
    cfmakeraw(&settings);
    CHECK_INT(tcsetattr(slave, TCSANOW, &settings), 0);
    uint8_t odd[2148] = {0}; /* so that its room is no multiple of what the thread writes at once */
    CHECK_INT(write(slave, odd, sizeof(odd)), sizeof(odd));
    check_stuck(master, slave, sizeof(odd));
    CHECK_INT(fcntl(slave, F_GETFL) & O_NONBLOCK, 0);
    fd_close(slave);
    fd_close(master);
}

TEST(what_was_sent_before_the_end_arrives)
{
    int fds[2];
    uint8_t bytes[20000], got[sizeof(bytes)]; /* a pipe holds them even when each piece takes a page */
    CHECK_INT(pipe2(fds, O_CLOEXEC), 0);
    CHECK_INT(begin(-1, fds[1]), 0);
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = pattern(i);
    send_polling(bytes, sizeof(bytes));
    end();
    CHECK(read_all(fds[0], got, sizeof(got)));
    CHECK(memcmp(bytes, got, sizeof(got)) == 0);
    close_both(fds);
}

TEST(output_to_a_file)
{
    uint8_t bytes[100000], got[sizeof(bytes) + 4];
    const char *path = test_text_file("log", "old\n");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && lseek(fd, 4, SEEK_SET) == 4);
    CHECK_INT(begin(-1, fd), 0);
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = pattern(i);
    send_polling(bytes, sizeof(bytes));
    end();
    CHECK_INT(lseek(fd, 0, SEEK_CUR), sizeof(bytes) + 4); /* the offset is shared */
    CHECK_INT(pread(fd, got, sizeof(got), 0), sizeof(got));
    CHECK(memcmp(got, "old\n", 4) == 0 && memcmp(got + 4, bytes, sizeof(bytes)) == 0);
    fd_close(fd);
}

TEST(a_reader_that_goes_away_stops_nothing)
{
    int fds[2];
    uint8_t bytes[200000] = {0};
    make_pipe(fds);
    CHECK_INT(begin(-1, fds[1]), 0);
    fds[0] = fd_close(fds[0]);
    send_polling(bytes, sizeof(bytes)); /* nobody is killed by SIGPIPE, and it ends */
    put(MCR, MCR_RUNNING);
    put(IER, IER_TRANSMITTER);
    CHECK_INT(edges(), 1);
    while (serial_dropped_bytes(serial) != sizeof(bytes))
        sched_yield();
    end();
    close_both(fds);
}

TEST(a_full_disk_stops_nothing)
{
    uint8_t bytes[200000] = {0};
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_INT(begin(-1, fd), 0);
    send_polling(bytes, sizeof(bytes));
    while (serial_dropped_bytes(serial) != sizeof(bytes))
        sched_yield();
    end();
    fd_close(fd);
}

/* ---- input ---- */

TEST(input_comes_with_an_interrupt)
{
    int fds[2];
    CHECK_INT(pipe2(fds, O_CLOEXEC), 0);
    CHECK_INT(begin(fds[0], -1), 0);
    put(FCR, 0x01);
    put(IER, IER_RECEIVED);
    CHECK_INT(write(fds[1], "hi", 2), 2);
    poll(NULL, 0, 50);
    CHECK_INT(get(LSR), 0x60); /* it does not request to send */
    CHECK_INT(edges(), 0);
    put(MCR, MCR_RUNNING);
    CHECK(wait_edge());
    CHECK_INT(get(IIR), 0xc4);
    CHECK_INT(get(LSR), 0x61);
    CHECK_INT(get(RBR), 'h');
    CHECK_INT(get(LSR), 0x61);
    CHECK_INT(get(RBR), 'i');
    CHECK_INT(get(LSR), 0x60);
    CHECK_INT(get(IIR), 0xc1);
    CHECK_INT(fcntl(fds[0], F_GETFL) & O_NONBLOCK, 0);
    end();
    close_both(fds);
}

static void *write_all(void *argument)
{
    int fd = *(int *)argument;
    uint8_t bytes[20000];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = pattern(i);
    fd_write_all(fd, bytes, sizeof(bytes));
    return NULL;
}

TEST(a_slow_driver_gets_everything)
{
    int fds[2];
    static uint8_t got[20000];
    pthread_t thread;
    for (unsigned has_fifos = 0; has_fifos < 2; has_fifos++) {
        make_pipe(fds);
        CHECK_INT(begin(fds[0], -1), 0);
        put(FCR, (uint8_t)has_fifos);
        put(MCR, MCR_RUNNING);
        put(IER, IER_RECEIVED);
        CHECK_INT(pthread_create(&thread, NULL, write_all, &fds[1]), 0);
        bool is_whole = receive(got, sizeof(got));
        pthread_join(thread, NULL);
        CHECK(is_whole);
        for (size_t i = 0; i < sizeof(got); i++)
            CHECK_INT(got[i], pattern(i));
        CHECK_INT(get(LSR), 0x60);
        end();
        close_both(fds);
    }
}

/* What the UART has no room for stays with its owner: a change of its mode in between loses only what was in it. */
TEST(input_waits_outside_while_it_is_not_wanted)
{
    int fds[2];
    uint8_t got[8];
    CHECK_INT(pipe2(fds, O_CLOEXEC), 0);
    CHECK_INT(begin(fds[0], -1), 0);
    put(IER, IER_RECEIVED);
    put(MCR, MCR_RUNNING);
    CHECK_INT(write(fds[1], "12345678", 8), 8);
    CHECK(receive(got, 1)); /* one at a time without FIFOs */
    CHECK_INT(got[0], '1');
    CHECK(receive(got, 1));
    CHECK_INT(got[0], '2');
    put(MCR, MCR_LOOP);
    while ((get(LSR) & LSR_READY) != 0) /* the third may have come in already */
        CHECK_INT(get(RBR), '3');
    put(THR, 'x');
    CHECK_INT(get(RBR), 'x');
    put(MCR, MCR_RUNNING);
    CHECK(receive(got, 1));
    CHECK(got[0] == '3' || got[0] == '4');
    size_t rest = (size_t)('8' - got[0]);
    CHECK(receive(got, rest));
    CHECK_INT(got[rest - 1], '8');
    end();
    close_both(fds);
}

TEST(the_end_of_input_ends_only_the_input)
{
    int input[2], output[2];
    uint8_t got[3];
    CHECK_INT(pipe2(input, O_CLOEXEC), 0);
    CHECK_INT(pipe2(output, O_CLOEXEC), 0);
    CHECK_INT(begin(input[0], output[1]), 0);
    put(MCR, MCR_RUNNING);
    put(IER, IER_RECEIVED);
    CHECK_INT(write(input[1], "end", 3), 3);
    input[1] = fd_close(input[1]);
    CHECK(receive(got, 3));
    CHECK(memcmp(got, "end", 3) == 0);
    send_polling((const uint8_t *)"out", 3);
    CHECK(read_all(output[0], got, 3));
    CHECK(memcmp(got, "out", 3) == 0);
    CHECK_INT(get(LSR), 0x60);
    end();
    close_both(input);
    close_both(output);
}

TEST(input_from_a_file)
{
    static uint8_t bytes[5000], got[5000];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = pattern(i);
    int fd = open(test_file("input", bytes, sizeof(bytes)), O_RDONLY | O_CLOEXEC);
    CHECK_INT(begin(fd, -1), 0);
    put(FCR, 1);
    put(IER, IER_RECEIVED);
    put(MCR, MCR_RUNNING);
    CHECK(receive(got, sizeof(got)));
    CHECK(memcmp(bytes, got, sizeof(got)) == 0);
    end();
    fd_close(fd);
}

TEST(one_socket_for_both_directions)
{
    int fds[2];
    uint8_t got[4];
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    CHECK_INT(begin(fds[0], fds[0]), 0);
    put(MCR, MCR_RUNNING);
    put(IER, IER_RECEIVED);
    CHECK_INT(write(fds[1], "ping", 4), 4);
    CHECK(receive(got, 4));
    CHECK(memcmp(got, "ping", 4) == 0);
    send_polling((const uint8_t *)"pong", 4);
    CHECK(read_all(fds[1], got, 4));
    CHECK(memcmp(got, "pong", 4) == 0);
    end();
    close_both(fds);
}

static uint64_t cpu_time_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return clock_from_timespec(&time);
}

TEST(an_idle_port_costs_no_cpu)
{
    int input[2], output[2];
    uint8_t byte = 'x';
    CHECK_INT(pipe2(input, O_CLOEXEC), 0);
    CHECK_INT(pipe2(output, O_CLOEXEC), 0);
    CHECK_INT(begin(input[0], output[1]), 0);
    put(MCR, MCR_RUNNING);
    send_polling(&byte, 1);
    CHECK(read_all(output[0], &byte, 1));
    CHECK_INT(write(input[1], "more than one", 13), 13); /* it has room for one */
    input[1] = fd_close(input[1]);                       /* hung up, while nobody waits for that */
    output[0] = fd_close(output[0]);
    uint64_t before_ns = cpu_time_ns();
    poll(NULL, 0, 300);
    CHECK(cpu_time_ns() - before_ns < 100 * CLOCK_NS_PER_MS);
    end();
    close_both(input);
    close_both(output);
}

/* ---- mistakes, faults, and everything at once ---- */

TEST(descriptors_for_the_wrong_direction_are_refused)
{
    int fds[2];
    CHECK_INT(pipe2(fds, O_CLOEXEC), 0);
    auto_close int path_fd = open("/", O_PATH | O_CLOEXEC);
    const int wrong[][2] = {{fds[1], -1}, {-1, fds[0]}, {path_fd, -1}, {-1, path_fd}, {9999, -1}, {-1, 9999}};
    for (size_t i = 0; i < array_length(wrong); i++) {
        CHECK_INT(begin(wrong[i][0], wrong[i][1]), -EBADF);
        end();
    }
    close_both(fds);
}

TEST(serial_survives_no_memory)
{
    int fds[2];
    make_pipe(fds);
    FOR_EACH_FAULT
    {
        CHECK_INT(begin(fds[0], fds[1]), fault_was_hit() ? -ENOMEM : 0);
        end();
    }
    close_both(fds);
}

static void *hammer(void *argument)
{
    unsigned random = *(unsigned *)argument;
    for (int i = 0; i < 20000; i++) {
        random = random * 1103515245 + 12345;
        if ((random & 0x10000) != 0)
            serial_write(serial, (random >> 20) % 8, (uint8_t)(random >> 24));
        else
            serial_read(serial, (random >> 20) % 8);
    }
    return NULL;
}

TEST(several_vcpus_at_once)
{
    int fds[2];
    unsigned seeds[3] = {1, 2, 3};
    pthread_t threads[3], reader;
    void *count = NULL;
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    CHECK_INT(begin(fds[1], fds[1]), 0);
    for (int i = 0; i < 100; i++)
        CHECK_INT(write(fds[0], "0123456789", 10), 10);
    CHECK_INT(pthread_create(&reader, NULL, read_slowly, &fds[0]), 0);
    for (size_t i = 0; i < 3; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, hammer, &seeds[i]), 0);
    for (size_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    end();
    fds[1] = fd_close(fds[1]);
    pthread_join(reader, &count);
    close_both(fds);
}
