// SPDX-License-Identifier: Apache-2.0
/* The registers of a 16550A UART, without a line: serial.h has the device. Not locked; the owner does that. */
#ifndef DEVICE_LEGACY_UART_H
#define DEVICE_LEGACY_UART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Depth of each FIFO. A driver that sees the transmitter empty may write that many bytes without looking again. */
enum { UART_FIFO_BYTES = 16 };

struct uart {
    uint8_t interrupt_enable, line_control, modem_control, fifo_control, scratch;
    uint8_t divisor_low, divisor_high;
    uint8_t modem_changes; /* the delta bits of the modem status register */
    uint8_t received[UART_FIFO_BYTES];
    size_t received_first, received_count;
    bool has_overrun;
    bool is_transmitter_empty;
    bool has_transmitter_interrupt; /* the transmitter became empty and nobody has been told */
};

void uart_init(struct uart *uart);

/* The guest's accesses. Registers past the eighth read as all ones and are not written. uart_write returns true when
 * the value is a byte for the line; the transmitter is then not empty until uart_transmitter_emptied. */
uint8_t uart_read(struct uart *uart, uint64_t offset);
bool uart_write(struct uart *uart, uint64_t offset, uint8_t value);

void uart_transmitter_emptied(struct uart *uart);

/* How many bytes the guest takes from the line now: 0 while its FIFO is full, while it does not request to send, and
 * in loopback. uart_receive takes at most that many and returns how many. */
size_t uart_input_room(const struct uart *uart);
size_t uart_receive(struct uart *uart, const uint8_t *bytes, size_t length);

/* The level of the interrupt line. */
bool uart_is_interrupting(const struct uart *uart);

#endif
