// SPDX-License-Identifier: Apache-2.0
/* A serial port: a 16550A whose line ends in two descriptors.
 *
 * A vCPU must not wait for whoever reads the console, so nothing is read or written on its thread. What the guest sends
 * goes into a ring; a thread of the port's own moves it on, and brings what comes in the other direction.
 *
 *     vCPU ── uart ──> ring ──> thread ──> output
 *     vCPU <── uart <── held <── thread <── input          uart ──> interrupt eventfd
 *
 * The ring is the cable: a byte in it has left the UART. While it has no room for one FIFO the transmitter is busy, and
 * a driver that looks before it writes loses nothing, however slow the reader. Input is taken only when the guest has
 * room; the rest stays where it is, and whoever writes it has to wait.
 *
 * The thread sleeps until a descriptor is ready, and watches one only while it wants something of it (EPOLLONESHOT, for
 * a hang-up is reported whatever was asked for). What epoll refuses, files, is always ready. A vCPU wakes the thread
 * through an eventfd, and only when it is known to sleep: when the ring was empty, or the guest had no room.
 *
 * Where the input is a terminal, it is raw from the guest's first word on until the port is freed. While our process
 * group is in the background there, the terminal is another's: it is left alone and not read, and looked at again every
 * half second, for nothing tells when that changes.
 *
 * Invariants: (1) the mutex guards uart, ring, and flags; no read or write of input or output happens under it. (2) the
 * part of the ring that is being written does not change: only the thread takes from it. (3) a byte that was read from
 * the input is delivered, if the guest ever takes it. (4) the interrupt eventfd is written when the line rises, and
 * only then. (5) all signals are blocked on the thread, SIGPIPE among them.
 *
 * Trust: registers come from a hostile guest; bytes and pace of the input and the reader of the output are anybody's.
 */
#include "device/legacy/serial.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/terminal.h"
#include "base/thread.h"
#include "device/legacy/uart.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static const uint64_t background_look_ns = CLOCK_NS_PER_S / 2;

struct serial {
    pthread_mutex_t mutex;
    struct uart uart;
    bool was_interrupting;
    uint8_t ring[LIMIT_SERIAL_OUTPUT_BYTES];
    size_t ring_first, ring_count;
    uint64_t dropped_bytes;
    bool has_output;                      /* the output exists and has not failed */
    bool is_used;                         /* the guest has written to the port */
    bool must_renew_terminal;             /* it may have been another's since it was made raw */
    bool is_output_idle, is_input_paused; /* what the thread sleeps on; cleared by whoever wakes it */
    int interrupt_fd;                     /* borrowed */
    int wake_fd;                          /* owned */
    struct loop *loop;                    /* owned */
    pthread_t thread;
    bool has_thread;

    /* The thread's own. */
    struct endpoint input, output;                    /* owned */
    struct loop_source *input_source, *output_source; /* owned by the loop; NULL where the descriptor is always ready */
    uint8_t held[UART_FIFO_BYTES];                    /* read, but not taken by the guest yet */
    size_t held_first, held_count;
    bool is_terminal, is_in_background; /* the input */
    struct terminal *terminal;          /* owned; while it is raw */
    struct loop_source *background_timer;
};

/* ---- signalling ---- */

static void signal_fd(int fd)
{
    uint64_t one = 1;
    ssize_t written = write(fd, &one, sizeof(one));
    (void)written; /* an eventfd refuses only when enough signals are pending already */
}

/* Under the mutex, after everything that may have changed the UART or the ring. */
static void update(struct serial *serial)
{
    if (sizeof(serial->ring) - serial->ring_count >= UART_FIFO_BYTES)
        uart_transmitter_emptied(&serial->uart);
    bool is_interrupting = uart_is_interrupting(&serial->uart);
    if (is_interrupting && !serial->was_interrupting && serial->interrupt_fd >= 0)
        signal_fd(serial->interrupt_fd);
    serial->was_interrupting = is_interrupting;
}

/* ---- output, on the thread ---- */

/* Nobody takes it any more: what is there is lost, and the guest is not to wait for it. */
static void end_output(struct serial *serial, int error)
{
    serial->output_source = loop_source_free(serial->output_source);
    endpoint_close(&serial->output);
    pthread_mutex_lock(&serial->mutex);
    serial->has_output = false;
    serial->dropped_bytes += serial->ring_count;
    serial->ring_count = 0;
    update(serial);
    pthread_mutex_unlock(&serial->mutex);
    log_warn("serial.output_failed", LOG_ERRNO(error));
}

/* Writes the next piece of the ring, if there is one and the output takes it. */
static void write_piece(struct serial *serial)
{
    pthread_mutex_lock(&serial->mutex);
    size_t first = serial->ring_first, whole = sizeof(serial->ring) - first;
    size_t length = serial->ring_count < whole ? serial->ring_count : whole;
    pthread_mutex_unlock(&serial->mutex);
    if (length == 0)
        return;
    struct iovec piece = {serial->ring + first, length};
    ssize_t written = endpoint_write(&serial->output, &piece, 1, 0);
    if (written == -EAGAIN && serial->output_source != NULL)
        return;
    if (written < 0) {
        end_output(serial, (int)written);
        return;
    }
    pthread_mutex_lock(&serial->mutex);
    serial->ring_first = (first + (size_t)written) % sizeof(serial->ring);
    serial->ring_count -= (size_t)written;
    update(serial);
    pthread_mutex_unlock(&serial->mutex);
}

/* Watches a descriptor for its next readiness; one that is always ready has its turn after the others. */
static void watch(struct serial *serial, struct loop_source *source, uint32_t events)
{
    if (source == NULL)
        signal_fd(serial->wake_fd);
    else if (loop_set_events(source, events | EPOLLONESHOT) < 0)
        log_error("serial.watch_failed");
}

static size_t output_count(struct serial *serial)
{
    pthread_mutex_lock(&serial->mutex);
    size_t count = serial->ring_count;
    pthread_mutex_unlock(&serial->mutex);
    return count;
}

static void continue_output(struct serial *serial)
{
    pthread_mutex_lock(&serial->mutex);
    serial->is_output_idle = serial->ring_count == 0;
    bool is_idle = serial->is_output_idle;
    pthread_mutex_unlock(&serial->mutex);
    if (!is_idle)
        watch(serial, serial->output_source, EPOLLOUT);
}

static void on_output(void *user, uint32_t events)
{
    struct serial *serial = user;
    (void)events; /* room or an error: writing tells */
    write_piece(serial);
    continue_output(serial);
}

/* What the guest has sent before its end, as far as the reader keeps taking it. */
static void drain(struct serial *serial)
{
    uint64_t deadline_ns = clock_deadline_ns(LIMIT_SERIAL_DRAIN_MS * CLOCK_NS_PER_MS);
    while (output_count(serial) > 0 && clock_now_ns() < deadline_ns) {
        struct pollfd output = {.fd = serial->output.fd, .events = POLLOUT};
        int ready = serial->output_source != NULL ? poll(&output, 1, LIMIT_SERIAL_IDLE_MS) : 1;
        if (ready == 0)
            break;
        if (ready > 0)
            write_piece(serial);
    }
    pthread_mutex_lock(&serial->mutex);
    size_t lost = serial->ring_count;
    serial->dropped_bytes += lost;
    serial->ring_count = 0;
    pthread_mutex_unlock(&serial->mutex);
    if (lost > 0)
        log_warn("serial.output_lost", LOG_UINT("bytes", lost));
}

/* ---- input, on the thread ---- */

static void end_input(struct serial *serial)
{
    serial->input_source = loop_source_free(serial->input_source);
    endpoint_close(&serial->input);
}

/* Gives the guest what is held; says whether it would take more. */
static bool deliver(struct serial *serial)
{
    pthread_mutex_lock(&serial->mutex);
    size_t taken = uart_receive(&serial->uart, serial->held + serial->held_first, serial->held_count);
    serial->held_first += taken;
    serial->held_count -= taken;
    bool wants_more = uart_input_room(&serial->uart) > 0;
    serial->is_input_paused = !wants_more;
    update(serial);
    pthread_mutex_unlock(&serial->mutex);
    return wants_more;
}

/* Another process group has the terminal: not now. */
static void look_later(struct serial *serial)
{
    serial->is_in_background = true;
    loop_set_deadline(serial->background_timer, clock_deadline_ns(background_look_ns));
}

/* The guest uses the port: its terminal is raw from now on. */
static void make_raw(struct serial *serial)
{
    int result = serial->terminal == NULL ? terminal_new(serial->input.fd, &serial->terminal)
                                          : terminal_renew(serial->terminal);
    serial->is_in_background = false;
    if (result == -EAGAIN) {
        look_later(serial);
    } else if (result < 0) {
        log_warn("serial.not_raw", LOG_ERRNO(result));
        serial->is_terminal = false;
    }
}

static void read_piece(struct serial *serial)
{
    struct iovec room = {serial->held, sizeof(serial->held)};
    ssize_t got = endpoint_read(&serial->input, &room, 1);
    if (got > 0) {
        serial->held_first = 0;
        serial->held_count = (size_t)got;
    } else if (got == -EIO && serial->is_terminal && terminal_is_in_background(serial->input.fd)) {
        look_later(serial); /* that is its answer in the background, for SIGTTIN is blocked here */
    } else if (got != -EAGAIN || serial->input_source == NULL) {
        end_input(serial);
    }
}

/* With `is_ready`, reads what the guest has room for; then waits for more of either. */
static void continue_input(struct serial *serial, bool is_ready)
{
    bool wants_more = deliver(serial);
    if (serial->is_in_background)
        return;
    if (wants_more && is_ready && serial->input.fd >= 0) {
        read_piece(serial);
        wants_more = deliver(serial);
    }
    if (wants_more && serial->input.fd >= 0 && !serial->is_in_background)
        watch(serial, serial->input_source, EPOLLIN);
}

static void on_input(void *user, uint32_t events)
{
    (void)events; /* bytes, the end or an error: reading tells */
    continue_input(user, true);
}

/* ---- the thread ---- */

static void on_background_timer(void *user, uint32_t count)
{
    struct serial *serial = user;
    (void)count;
    make_raw(serial);
    continue_input(serial, false);
}

/* The first time that the guest uses the port, and when somebody says that the terminal has changed. */
static bool must_make_raw(struct serial *serial)
{
    pthread_mutex_lock(&serial->mutex);
    bool is_used = serial->is_used, must_renew = serial->must_renew_terminal;
    serial->must_renew_terminal = false;
    pthread_mutex_unlock(&serial->mutex);
    bool is_first = serial->terminal == NULL && !serial->is_in_background;
    return is_used && (is_first || must_renew);
}

static void on_wake(void *user, uint32_t events)
{
    struct serial *serial = user;
    uint64_t count;
    (void)events;
    ssize_t got = read(serial->wake_fd, &count, sizeof(count));
    (void)got; /* how often does not matter */
    if (serial->is_terminal && must_make_raw(serial))
        make_raw(serial);
    if (serial->output.fd >= 0 && serial->output_source == NULL)
        write_piece(serial);
    continue_output(serial);
    continue_input(serial, serial->input_source == NULL);
}

static void *run(void *argument)
{
    struct serial *serial = argument;
    int result = loop_run(serial->loop);
    if (result < 0)
        log_error("serial.loop_failed", LOG_ERRNO(result));
    drain(serial);
    return NULL;
}

/* ---- life ---- */

static int open_endpoint(struct serial *serial, int fd, int access, loop_function function, struct endpoint *endpoint,
                         struct loop_source **source)
{
    if (fd < 0)
        return 0;
    int result = endpoint_open(fd, access, endpoint);
    if (result < 0)
        return result;
    return endpoint_watch(endpoint, serial->loop, function, serial, source);
}

static int prepare(struct serial *serial, const struct serial_options *options)
{
    struct loop_source *wake_source = NULL; /* lives as long as the loop */
    int result = loop_new(&serial->loop);
    if (result < 0)
        return result;
    serial->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (serial->wake_fd < 0)
        return -errno;
    result = loop_add_fd(serial->loop, serial->wake_fd, EPOLLIN, on_wake, serial, &wake_source);
    if (result == 0)
        result = open_endpoint(serial, options->input_fd, O_RDONLY, on_input, &serial->input, &serial->input_source);
    if (result == 0)
        result = open_endpoint(serial, options->output_fd, O_WRONLY, on_output, &serial->output,
                               &serial->output_source);
    serial->is_terminal = serial->input.fd >= 0 && isatty(serial->input.fd) == 1;
    if (result == 0 && serial->is_terminal)
        result = loop_add_timer(serial->loop, CLOCK_NEVER, on_background_timer, serial, &serial->background_timer);
    return result;
}

int serial_new(const struct serial_options *options, struct serial **ret_serial)
{
    struct serial *serial = alloc_zero(sizeof(*serial));
    if (serial == NULL)
        return -ENOMEM;
    pthread_mutex_init(&serial->mutex, NULL); /* cannot fail without attributes */
    uart_init(&serial->uart);
    serial->wake_fd = serial->input.fd = serial->output.fd = -1;
    serial->interrupt_fd = options->interrupt_fd;
    serial->is_output_idle = serial->is_input_paused = true;
    int result = prepare(serial, options);
    serial->has_output = serial->output.fd >= 0;
    if (result == 0)
        result = thread_start_as(THREAD_DEVICE, "vial-serial", run, serial, &serial->thread);
    serial->has_thread = result == 0;
    if (result < 0) {
        serial_free(serial);
        return result;
    }
    *ret_serial = serial;
    return 0;
}

void serial_terminal_changed(struct serial *serial)
{
    pthread_mutex_lock(&serial->mutex);
    serial->must_renew_terminal = true;
    signal_fd(serial->wake_fd);
    pthread_mutex_unlock(&serial->mutex);
}

void serial_stop(struct serial *serial)
{
    if (!serial->has_thread)
        return;
    loop_stop(serial->loop);
    pthread_join(serial->thread, NULL);
    serial->has_thread = false;
}

struct serial *serial_free(struct serial *serial)
{
    if (serial == NULL)
        return NULL;
    serial_stop(serial);
    terminal_free(serial->terminal);
    loop_free(serial->loop);
    endpoint_close(&serial->input);
    endpoint_close(&serial->output);
    fd_close(serial->wake_fd);
    pthread_mutex_destroy(&serial->mutex);
    free(serial);
    return NULL;
}

/* ---- the guest's side ---- */

static void put_output(struct serial *serial, uint8_t byte)
{
    if (!serial->has_output || serial->ring_count == sizeof(serial->ring)) {
        serial->dropped_bytes++;
        return;
    }
    serial->ring[(serial->ring_first + serial->ring_count++) % sizeof(serial->ring)] = byte;
}

/* Whether the thread sleeps and has something to do now. Input goes on only when the guest has taken everything, so
 * that bytes come in bunches. */
static bool take_sleeper(struct serial *serial)
{
    bool has_output = serial->is_output_idle && serial->ring_count > 0;
    bool has_room = serial->is_input_paused && serial->uart.received_count == 0 && uart_input_room(&serial->uart) > 0;
    serial->is_output_idle &= !has_output;
    serial->is_input_paused &= !has_room;
    return has_output || has_room;
}

uint8_t serial_read(struct serial *serial, uint64_t offset)
{
    pthread_mutex_lock(&serial->mutex);
    uint8_t value = uart_read(&serial->uart, offset);
    update(serial);
    if (take_sleeper(serial))
        signal_fd(serial->wake_fd);
    pthread_mutex_unlock(&serial->mutex);
    return value;
}

void serial_write(struct serial *serial, uint64_t offset, uint8_t value)
{
    pthread_mutex_lock(&serial->mutex);
    serial->is_used = true;
    if (uart_write(&serial->uart, offset, value))
        put_output(serial, value);
    update(serial);
    if (take_sleeper(serial))
        signal_fd(serial->wake_fd);
    pthread_mutex_unlock(&serial->mutex);
}

uint64_t serial_dropped_bytes(struct serial *serial)
{
    pthread_mutex_lock(&serial->mutex);
    uint64_t dropped = serial->dropped_bytes;
    pthread_mutex_unlock(&serial->mutex);
    return dropped;
}
