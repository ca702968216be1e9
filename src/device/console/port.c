// SPDX-License-Identifier: Apache-2.0
/* The bytes of a console port: from the guest's buffers to the host and back, at the pace of whoever is slower.
 *
 *     guest ──> transmit queue ──> chain in hand ──> output      waits for the output, the rest stays in the queue
 *     guest <── receive queue <──────────────────── input        waits for the input, or for a buffer of the guest
 *
 * Nothing is kept in between. A chain is taken, written in pieces straight from guest memory, and handed back when its
 * last byte is out; while the reader is slow, one chain is in hand and the others stay in the ring, so a guest that
 * writes faster than its reader reads has to wait. Input is read into a buffer of the guest's, and only when there is
 * one, so a guest that does not read leaves the bytes where they are. Before the guest opens a port, its input waits.
 *
 * Ends: at the end of input nothing more arrives. When nobody takes the output any more (EPIPE, a terminal that hung
 * up) or the disk is full, what the guest writes is dropped, counted, and told in the log once: a guest that had to
 * wait for it would wait for ever. The guest learns of an end by PORT_OPEN 0 when neither direction of a port goes on;
 * Linux readers then get their end of file. As long as there is an output, and in a port that never had an input,
 * PORT_OPEN stays 1, for Linux writers block in a port whose host side is closed.
 *
 * At the end (reset, or the machine's end) the last words are often the most important ones, so what the guest has
 * queued by then is still written. A slow reader gets 100 ms since it last took something, all of them together a
 * second.
 *
 * A terminal is made raw when the guest first opens the port, and stays so until the device is freed: a guest that
 * opens and closes, or resets, in a loop does not have us make guardians in a loop. While our process group is in the
 * background it is left alone; that changes without a sign, so every half second a look is taken, in that state only.
 *
 * Invariants: (1) has_chain means that the last chain popped from the port's transmit queue was not pushed, so its
 * spans hold. (2) each pump moves a bounded number of pieces, then lets others have their turn. (3) a pump that stops
 * has arranged what will start it again: an armed stream, a kick, or the driver's next buffer.
 *
 * Trust: chains come from a hostile guest through queue_pop; streams from the embedding program.
 */
#include "device/console/port.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <poll.h>

enum { most_pieces = 64 };
#define BACKGROUND_LOOK_NS (500 * CLOCK_NS_PER_MS)
#define FLUSH_GRACE_NS (100 * CLOCK_NS_PER_MS)
#define FLUSH_MOST_NS CLOCK_NS_PER_S

static struct virtio_device *device_of(const struct port *port)
{
    return port->console->device;
}

/* ---- to the host ---- */

static void drop(struct port *port, uint64_t bytes)
{
    atomic_fetch_add_explicit(&port->console->dropped_bytes, bytes, memory_order_relaxed);
}

static void finish_chain(struct port *port)
{
    virtio_push(device_of(port), port_transmit_queue(port), port->chain.head, 0);
    port->has_chain = false;
}

/* What could not be written is lost, and the guest goes on. */
static void handle_write_failure(struct port *port, int failure)
{
    bool is_full = failure == -ENOSPC || failure == -EDQUOT || failure == -EFBIG;
    if (!is_full) {
        port->output.has_ended = true;
        log_info("console.output_ended", LOG_UINT("port", port->index), LOG_ERRNO(failure));
    } else if (!port->has_warned_of_disk) {
        port->has_warned_of_disk = true;
        log_warn("console.output_full", LOG_UINT("port", port->index), LOG_ERRNO(failure));
    }
    drop(port, port->chain.readable_bytes - port->chain_offset);
    finish_chain(port);
    if (!is_full && !port_is_host_open(port)) {
        port->owed |= OWED_OPEN;
        control_send_owed(port->console);
    }
}

/* The next chain into the hand; those that go nowhere are handed back at once. False when there is none. */
static bool take_chain(struct port *port)
{
    if (!virtio_pop(device_of(port), port_transmit_queue(port), &port->chain))
        return false;
    port->has_chain = true;
    port->chain_offset = port->resume_offset;
    port->resume_offset = 0;
    if (port->chain_offset > port->chain.readable_bytes)
        port->chain_offset = port->chain.readable_bytes; /* it is another chain than before the pause */
    if (port->chain.readable_bytes == 0)
        console_ignore(port->console);
    if (stream_exists(&port->output) && port->output.has_ended)
        drop(port, port->chain.readable_bytes - port->chain_offset);
    if (port->chain_offset == port->chain.readable_bytes || !stream_is_alive(&port->output))
        finish_chain(port);
    return true;
}

/* Only when the queue was served from its begin: in the middle of a turn virtio_pop may say that there is nothing,
 * because others are to have theirs. */
static void tell_close(struct port *port)
{
    port->is_close_untold = false;
    port->guest_changed(port->guest_user, false);
}

enum pumped { PUMPED_ALL, PUMPED_SOME, PUMPED_BLOCKED };

/* Writes up to `pieces` pieces: whether that was all there is, there is more, or the output must be waited for. */
static enum pumped pump_output(struct port *port, unsigned pieces)
{
    for (; pieces > 0; pieces--) {
        if (!port->has_chain && !take_chain(port))
            return PUMPED_ALL;
        if (!port->has_chain)
            continue;
        ssize_t written = stream_write(&port->output, port->chain.readable, port->chain.readable_count,
                                       port->chain_offset);
        if (written == -EAGAIN)
            return PUMPED_BLOCKED;
        if (written < 0) {
            handle_write_failure(port, (int)written);
            continue;
        }
        port->chain_offset += (size_t)written;
        port->written_bytes += (uint64_t)written;
        if (port->chain_offset >= port->chain.readable_bytes)
            finish_chain(port);
    }
    return PUMPED_SOME;
}

static void pump_and_arrange(struct port *port, bool is_served)
{
    switch (pump_output(port, most_pieces)) {
    case PUMPED_ALL: /* the driver's next kick */
        if (port->is_close_untold && is_served)
            tell_close(port);
        else if (port->is_close_untold)
            virtio_kick(device_of(port), port_transmit_queue(port));
        break;
    case PUMPED_SOME:
        virtio_kick(device_of(port), port_transmit_queue(port));
        break;
    case PUMPED_BLOCKED:
        stream_arm(&port->output);
        break;
    }
    virtio_call(device_of(port), port_transmit_queue(port));
}

void port_pause_output(struct port *port)
{
    if (port->has_chain)
        port->resume_offset = port->chain_offset;
    port->has_chain = false;
}

void port_pump_output(struct port *port)
{
    pump_and_arrange(port, false);
}

void port_serve_output(struct port *port)
{
    pump_and_arrange(port, true);
}

/* ---- to the guest ---- */

static bool is_input_wanted(const struct port *port)
{
    return port->is_open && !port->is_in_background && stream_is_alive(&port->input);
}

static void look_later(struct port *port)
{
    port->is_in_background = true;
    loop_set_deadline(port->console->background_timer, clock_deadline_ns(BACKGROUND_LOOK_NS));
}

static void end_input(struct port *port, int failure)
{
    /* In the background a terminal answers EIO (SIGTTIN is blocked here): it is not its end. */
    if (failure == -EIO && port->tty_fd >= 0 && terminal_is_in_background(port->tty_fd)) {
        look_later(port);
        return;
    }
    port->input.has_ended = true;
    if (failure < 0)
        log_info("console.input_ended", LOG_UINT("port", port->index), LOG_ERRNO(failure));
    if (!port_is_host_open(port)) {
        port->owed |= OWED_OPEN;
        control_send_owed(port->console);
    }
}

/* One buffer of the guest; false when the pump is to stop. */
static bool fill_buffer(struct port *port)
{
    struct queue_chain chain;
    unsigned queue = port_receive_queue(port);
    if (!virtio_pop(device_of(port), queue, &chain))
        return false;
    if (chain.writable_bytes == 0) {
        console_ignore(port->console);
        virtio_push(device_of(port), queue, chain.head, 0);
        return true;
    }
    ssize_t got = stream_read(&port->input, chain.writable, chain.writable_count);
    if (got > 0) {
        virtio_push(device_of(port), queue, chain.head, (uint32_t)got);
        return true;
    }
    virtio_unpop(device_of(port), queue);
    if (got == -EAGAIN)
        stream_arm(&port->input);
    else
        end_input(port, (int)got);
    return false;
}

void port_pump_input(struct port *port)
{
    unsigned pieces = most_pieces;
    while (pieces > 0 && is_input_wanted(port) && fill_buffer(port))
        pieces--;
    if (pieces == 0)
        virtio_kick(device_of(port), port_receive_queue(port));
    virtio_call(device_of(port), port_receive_queue(port));
}

/* ---- open and closed ---- */

bool port_is_host_open(const struct port *port)
{
    bool had_input = stream_exists(&port->input);
    return port->is_console || !had_input || stream_is_alive(&port->input) || stream_is_alive(&port->output);
}

static void make_raw(struct port *port)
{
    int result = port->terminal != NULL ? terminal_renew(port->terminal) : terminal_new(port->tty_fd, &port->terminal);
    port->is_in_background = false;
    if (result == -EAGAIN)
        look_later(port);
    else if (result < 0 && !port->has_warned_of_terminal)
        log_warn("console.not_raw", LOG_UINT("port", port->index), LOG_ERRNO(result));
    port->has_warned_of_terminal |= result < 0 && result != -EAGAIN;
}

void port_open(struct port *port)
{
    if (port->is_open)
        return;
    port->is_open = true;
    port->is_close_untold = false;
    if (port->guest_changed != NULL)
        port->guest_changed(port->guest_user, true);
    if (port->tty_fd >= 0)
        make_raw(port);
    port_pump_input(port);
}

void port_close(struct port *port)
{
    port->is_close_untold |= port->is_open && port->guest_changed != NULL;
    if (port->is_close_untold)
        virtio_kick(device_of(port), port_transmit_queue(port));
    port->is_open = port->is_in_background = false;
}

void port_renew_terminal(struct port *port)
{
    if (!port->is_open || port->terminal == NULL)
        return;
    make_raw(port);
    port_pump_input(port);
}

void port_try_foreground(struct port *port)
{
    if (!port->is_in_background)
        return;
    make_raw(port);
    port_pump_input(port);
}

void port_update_size(struct port *port)
{
    uint16_t size[2] = {0}; /* columns and rows, as in the configuration space (5.3.4) */
    if (port->tty_fd < 0 || terminal_read_size(port->tty_fd, &size[0], &size[1]) < 0 ||
        (size[0] == port->columns && size[1] == port->rows))
        return;
    port->columns = size[0];
    port->rows = size[1];
    if (port->index == 0)
        virtio_set_config(device_of(port), 0, size, sizeof(size));
    if (port->is_ready && port->is_console)
        port->owed |= OWED_SIZE;
}

/* ---- the end ---- */

struct flush {
    struct pollfd waits[CONSOLE_MOST_PORTS];
    nfds_t wait_count;
    bool has_more, has_progressed;
};

static void flush_port(struct port *port, struct flush *flush)
{
    uint64_t before = port->written_bytes;
    enum pumped pumped = pump_output(port, most_pieces);
    flush->has_progressed |= port->written_bytes != before;
    flush->has_more |= pumped == PUMPED_SOME;
    if (pumped == PUMPED_BLOCKED)
        flush->waits[flush->wait_count++] = (struct pollfd){.fd = port->output.endpoint.fd, .events = POLLOUT};
}

void port_flush_all(struct console *console)
{
    uint64_t end_ns = clock_deadline_ns(FLUSH_MOST_NS), grace_ns = clock_deadline_ns(FLUSH_GRACE_NS);
    unsigned port_count = console->is_multiport ? console->port_count : 1;
    for (;;) {
        struct flush flush = {0};
        for (unsigned i = 0; i < port_count; i++)
            flush_port(&console->ports[i], &flush);
        if (!flush.has_more && flush.wait_count == 0)
            return;
        if (flush.has_progressed)
            grace_ns = clock_deadline_ns(FLUSH_GRACE_NS);
        uint64_t now_ns = clock_now_ns(), until_ns = grace_ns < end_ns ? grace_ns : end_ns;
        if (now_ns >= until_ns)
            return;
        if (!flush.has_more) /* signals are blocked on our threads; elsewhere one only shortens a round */
            poll(flush.waits, flush.wait_count, (int)((until_ns - now_ns) / CLOCK_NS_PER_MS) + 1);
    }
}

void port_stop(struct port *port)
{
    uint64_t lost = 0;
    if (port->has_chain)
        lost = port->chain.readable_bytes - port->chain_offset;
    port->has_chain = false;
    port->resume_offset = 0;
    /* What is still in the ring, as far as it is one: the queue holds no more than its places. */
    for (unsigned left = CONSOLE_QUEUE_ENTRIES; left > 0; left--) {
        struct queue_chain chain;
        if (!virtio_pop(device_of(port), port_transmit_queue(port), &chain))
            break;
        lost += chain.readable_bytes;
        virtio_push(device_of(port), port_transmit_queue(port), chain.head, 0);
    }
    if (lost > 0) {
        drop(port, lost);
        port->losses++;
        if ((port->losses & (port->losses - 1)) == 0) /* a guest that resets in a loop does not fill the log */
            log_warn("console.last_words_lost", LOG_UINT("port", port->index), LOG_UINT("bytes", lost),
                     LOG_UINT("count", port->losses));
    }
    port_close(port);
    port->is_added = port->is_ready = port->is_close_untold = false;
    port->owed = 0;
}
