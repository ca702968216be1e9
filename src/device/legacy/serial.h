// SPDX-License-Identifier: Apache-2.0
/* A serial port: a 16550A whose line ends in two descriptors. */
#ifndef DEVICE_LEGACY_SERIAL_H
#define DEVICE_LEGACY_SERIAL_H

#include <stdint.h>

/* Bytes of the port's register window. */
enum { SERIAL_REGISTERS = 8 };

struct serial_options {
    int input_fd;     /* borrowed; what the guest receives; -1: nothing */
    int output_fd;    /* borrowed; what it sends; may be the same as input_fd; -1: nowhere */
    int interrupt_fd; /* borrowed until serial_free; an eventfd, written for each edge; -1: none */
};

struct serial;

/* Starts the port's thread. The flags of the descriptors stay as they are. -EBADF for one that is not open or not for
 * its direction. */
int serial_new(const struct serial_options *options, struct serial **ret_serial);

/* Gives the output some time (LIMIT_SERIAL_DRAIN_MS) to take what the guest has sent, and stops. No vCPU may use the
 * port any more. */
void serial_stop(struct serial *serial);

/* The terminal may have been another's in between, and changed by him (SIGCONT). From any thread. */
void serial_terminal_changed(struct serial *serial);

/* Stops it first. Accepts NULL and returns NULL. */
struct serial *serial_free(struct serial *serial);

/* The guest's accesses, from any thread; they never wait for input or output. The interrupt needs what it needs on a PC
 * (OUT2 in the modem control register), and input comes only while the guest requests to send (RTS). */
uint8_t serial_read(struct serial *serial, uint64_t offset);
void serial_write(struct serial *serial, uint64_t offset, uint8_t value);

/* How much of what the guest sent is lost: written while the transmitter was busy, or when there was no output, or none
 * any more. */
uint64_t serial_dropped_bytes(struct serial *serial);

#endif
