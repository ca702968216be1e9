// SPDX-License-Identifier: Apache-2.0
/* The registers of a 16550A UART. (National Semiconductor PC16550D, section 8)
 *
 *     offset   read                      write                     with DLAB set
 *     0        received byte             byte to transmit          divisor, low
 *     1        interrupt enable          interrupt enable          divisor, high
 *     2        interrupt identification  FIFO control
 *     3        line control (bit 7: DLAB)
 *     4        modem control
 *     5        line status
 *     6        modem status
 *     7        scratch
 *
 * What goes out has left the transmitter as soon as the owner has a place for it, so there is no transmit FIFO here and
 * "holding register empty" and "transmitter empty" are one. There is no line noise: of the line errors only overrun
 * exists, and only in loopback, for the owner gives no more than there is room for.
 *
 * The request-to-send line is obeyed as a peer with hardware handshake would: nothing is received while it is off.
 * Linux clears the receive FIFO when the port is opened and raises the line afterwards, so nothing typed early is lost.
 *
 * The transmitter interrupt is an event, the others are levels. It is pending from the moment at which the transmitter
 * becomes empty, or at which it is enabled while the transmitter is empty, until the guest has read it from the
 * identification register or written a byte (8.5, table IV). On PCs the line passes a gate that OUT2 opens.
 *
 * Invariants: (1) received_count never exceeds the capacity of the mode, 16 or 1. (2) the bits that a 16550A does not
 * have read as zero, which is how drivers tell it from its relatives. (3) while the transmitter is not empty there is
 * no transmitter interrupt.
 *
 * Trust: offsets and values come from a hostile guest; received bytes from anybody.
 */
#include "device/legacy/uart.h"

#include <assert.h>

enum {
    REGISTER_DATA = 0,
    REGISTER_INTERRUPT_ENABLE = 1,
    REGISTER_INTERRUPT_ID = 2,
    REGISTER_FIFO_CONTROL = 2,
    REGISTER_LINE_CONTROL = 3,
    REGISTER_MODEM_CONTROL = 4,
    REGISTER_LINE_STATUS = 5,
    REGISTER_MODEM_STATUS = 6,
    REGISTER_SCRATCH = 7,
};
enum { ENABLE_RECEIVED = 0x01, ENABLE_TRANSMITTER = 0x02, ENABLE_LINE_STATUS = 0x04, ENABLE_MODEM_STATUS = 0x08 };
enum {
    INTERRUPT_MODEM_STATUS = 0x00,
    INTERRUPT_NONE = 0x01,
    INTERRUPT_TRANSMITTER = 0x02,
    INTERRUPT_RECEIVED = 0x04,
    INTERRUPT_LINE_STATUS = 0x06,
    INTERRUPT_TIMEOUT = 0x0c, /* something was received, but less than the trigger level */
    INTERRUPT_ID_FIFOS = 0xc0,
};
enum { FIFO_ENABLE = 0x01, FIFO_CLEAR_RECEIVED = 0x02, FIFO_TRIGGER = 0xc0 };
enum { LINE_CONTROL_DIVISOR = 0x80 };
enum { MODEM_READY = 0x01, MODEM_REQUEST = 0x02, MODEM_OUT1 = 0x04, MODEM_OUT2 = 0x08, MODEM_LOOPBACK = 0x10 };
enum { STATUS_RECEIVED = 0x01, STATUS_OVERRUN = 0x02, STATUS_HOLDING_EMPTY = 0x20, STATUS_TRANSMITTER_EMPTY = 0x40 };
enum { PEER_CLEAR = 0x10, PEER_READY = 0x20, PEER_RING = 0x40, PEER_CARRIER = 0x80, RING_CHANGE = 0x04 };

enum { divisor_of_9600_baud = 12 };

void uart_init(struct uart *uart)
{
    *uart = (struct uart){.divisor_low = divisor_of_9600_baud, .is_transmitter_empty = true};
}

static bool has_fifos(const struct uart *uart)
{
    return (uart->fifo_control & FIFO_ENABLE) != 0;
}

static bool is_looped(const struct uart *uart)
{
    return (uart->modem_control & MODEM_LOOPBACK) != 0;
}

static bool is_divisor_selected(const struct uart *uart)
{
    return (uart->line_control & LINE_CONTROL_DIVISOR) != 0;
}

/* ---- receiving ---- */

static size_t receive_room(const struct uart *uart)
{
    size_t capacity = has_fifos(uart) ? UART_FIFO_BYTES : 1;
    assert(uart->received_count <= capacity);
    return capacity - uart->received_count;
}

static void put_received(struct uart *uart, uint8_t byte)
{
    uart->received[(uart->received_first + uart->received_count++) % UART_FIFO_BYTES] = byte;
}

static uint8_t take_received(struct uart *uart)
{
    if (uart->received_count == 0)
        return 0;
    uint8_t byte = uart->received[uart->received_first];
    uart->received_first = (uart->received_first + 1) % UART_FIFO_BYTES;
    uart->received_count--;
    return byte;
}

size_t uart_input_room(const struct uart *uart)
{
    bool is_requested = (uart->modem_control & MODEM_REQUEST) != 0;
    return is_requested && !is_looped(uart) ? receive_room(uart) : 0;
}

size_t uart_receive(struct uart *uart, const uint8_t *bytes, size_t length)
{
    size_t room = uart_input_room(uart);
    size_t taken = length < room ? length : room;
    for (size_t i = 0; i < taken; i++)
        put_received(uart, bytes[i]);
    return taken;
}

/* ---- transmitting ---- */

void uart_transmitter_emptied(struct uart *uart)
{
    if (!uart->is_transmitter_empty)
        uart->has_transmitter_interrupt = true;
    uart->is_transmitter_empty = true;
}

static bool transmit(struct uart *uart, uint8_t byte)
{
    if (!is_looped(uart)) {
        uart->has_transmitter_interrupt = false;
        uart->is_transmitter_empty = false;
        return true;
    }
    if (receive_room(uart) > 0)
        put_received(uart, byte);
    else
        uart->has_overrun = true;
    uart->has_transmitter_interrupt = uart->is_transmitter_empty; /* it has arrived already */
    return false;
}

/* ---- the modem's lines ---- */

/* As the guest sees them: its own outputs in loopback (8.6.6), otherwise a peer that is there and ready. */
static uint8_t peer_lines(const struct uart *uart)
{
    uint8_t lines = 0;
    if (!is_looped(uart))
        return PEER_CLEAR | PEER_READY | PEER_CARRIER;
    if ((uart->modem_control & MODEM_REQUEST) != 0)
        lines |= PEER_CLEAR;
    if ((uart->modem_control & MODEM_READY) != 0)
        lines |= PEER_READY;
    if ((uart->modem_control & MODEM_OUT1) != 0)
        lines |= PEER_RING;
    if ((uart->modem_control & MODEM_OUT2) != 0)
        lines |= PEER_CARRIER;
    return lines;
}

static void write_modem_control(struct uart *uart, uint8_t value)
{
    uint8_t before = peer_lines(uart);
    uart->modem_control = value & (MODEM_READY | MODEM_REQUEST | MODEM_OUT1 | MODEM_OUT2 | MODEM_LOOPBACK);
    uint8_t after = peer_lines(uart);
    uint8_t changes = (uint8_t)((before ^ after) >> 4);
    if ((after & PEER_RING) != 0)
        changes &= (uint8_t)~RING_CHANGE; /* of the ring indicator only the end counts (8.6.8) */
    uart->modem_changes |= changes;
}

/* ---- interrupts ---- */

static size_t trigger_level(const struct uart *uart)
{
    static const uint8_t levels[] = {1, 4, 8, 14};
    return levels[uart->fifo_control >> 6];
}

/* The one with the highest priority, as the identification register names it. */
static uint8_t pending_interrupt(const struct uart *uart)
{
    if ((uart->interrupt_enable & ENABLE_LINE_STATUS) != 0 && uart->has_overrun)
        return INTERRUPT_LINE_STATUS;
    if ((uart->interrupt_enable & ENABLE_RECEIVED) != 0 && uart->received_count > 0)
        return uart->received_count >= trigger_level(uart) ? INTERRUPT_RECEIVED : INTERRUPT_TIMEOUT;
    if ((uart->interrupt_enable & ENABLE_TRANSMITTER) != 0 && uart->has_transmitter_interrupt)
        return INTERRUPT_TRANSMITTER;
    if ((uart->interrupt_enable & ENABLE_MODEM_STATUS) != 0 && uart->modem_changes != 0)
        return INTERRUPT_MODEM_STATUS;
    return INTERRUPT_NONE;
}

bool uart_is_interrupting(const struct uart *uart)
{
    bool is_gate_open = (uart->modem_control & MODEM_OUT2) != 0 && !is_looped(uart);
    return is_gate_open && pending_interrupt(uart) != INTERRUPT_NONE;
}

static void write_interrupt_enable(struct uart *uart, uint8_t value)
{
    uint8_t before = uart->interrupt_enable;
    uart->interrupt_enable = value & (ENABLE_RECEIVED | ENABLE_TRANSMITTER | ENABLE_LINE_STATUS | ENABLE_MODEM_STATUS);
    if ((uart->interrupt_enable & ~before & ENABLE_TRANSMITTER) != 0 && uart->is_transmitter_empty)
        uart->has_transmitter_interrupt = true;
}

static uint8_t read_interrupt_id(struct uart *uart)
{
    uint8_t pending = pending_interrupt(uart);
    if (pending == INTERRUPT_TRANSMITTER)
        uart->has_transmitter_interrupt = false;
    return has_fifos(uart) ? pending | INTERRUPT_ID_FIFOS : pending;
}

/* ---- the other registers ---- */

/* Clearing the transmit FIFO does nothing: what was written has left it. */
static void write_fifo_control(struct uart *uart, uint8_t value)
{
    bool is_enabled = (value & FIFO_ENABLE) != 0;
    /* The other bits count only together with the first; changing that one clears the FIFOs (8.6.3). */
    if (is_enabled != has_fifos(uart) || (is_enabled && (value & FIFO_CLEAR_RECEIVED) != 0))
        uart->received_count = 0;
    uart->fifo_control = is_enabled ? value & (FIFO_ENABLE | FIFO_TRIGGER) : 0;
}

static uint8_t read_line_status(struct uart *uart)
{
    uint8_t status = 0;
    if (uart->received_count > 0)
        status |= STATUS_RECEIVED;
    if (uart->has_overrun)
        status |= STATUS_OVERRUN;
    if (uart->is_transmitter_empty)
        status |= STATUS_HOLDING_EMPTY | STATUS_TRANSMITTER_EMPTY;
    uart->has_overrun = false;
    return status;
}

static uint8_t read_modem_status(struct uart *uart)
{
    uint8_t status = peer_lines(uart) | uart->modem_changes;
    uart->modem_changes = 0;
    return status;
}

uint8_t uart_read(struct uart *uart, uint64_t offset)
{
    switch (offset) {
    case REGISTER_DATA:
        return is_divisor_selected(uart) ? uart->divisor_low : take_received(uart);
    case REGISTER_INTERRUPT_ENABLE:
        return is_divisor_selected(uart) ? uart->divisor_high : uart->interrupt_enable;
    case REGISTER_INTERRUPT_ID:
        return read_interrupt_id(uart);
    case REGISTER_LINE_CONTROL:
        return uart->line_control;
    case REGISTER_MODEM_CONTROL:
        return uart->modem_control;
    case REGISTER_LINE_STATUS:
        return read_line_status(uart);
    case REGISTER_MODEM_STATUS:
        return read_modem_status(uart);
    case REGISTER_SCRATCH:
        return uart->scratch;
    default:
        return UINT8_MAX;
    }
}

bool uart_write(struct uart *uart, uint64_t offset, uint8_t value)
{
    switch (offset) {
    case REGISTER_DATA:
        if (!is_divisor_selected(uart))
            return transmit(uart, value);
        uart->divisor_low = value;
        break;
    case REGISTER_INTERRUPT_ENABLE:
        if (is_divisor_selected(uart))
            uart->divisor_high = value;
        else
            write_interrupt_enable(uart, value);
        break;
    case REGISTER_FIFO_CONTROL:
        write_fifo_control(uart, value);
        break;
    case REGISTER_LINE_CONTROL:
        uart->line_control = value;
        break;
    case REGISTER_MODEM_CONTROL:
        write_modem_control(uart, value);
        break;
    case REGISTER_SCRATCH:
        uart->scratch = value;
        break;
    default: /* the status registers are for reading, and there are no others */
        break;
    }
    return false;
}
