// SPDX-License-Identifier: Apache-2.0
/* Any sequence of register accesses and received bytes on a UART, beside a model of its receiver.
 *
 * Three bytes a step: what to do, where, and with what value. What must hold: received bytes come out in order and
 * none is made up, bits that a 16550A does not have are zero, and the interrupt line says what the identification
 * register says.
 */
#include "fuzz.h"

#include "device/legacy/uart.h"

enum { STEP_BYTES = 3 };

struct model {
    uint8_t bytes[UART_FIFO_BYTES];
    size_t count;
    bool has_fifos, is_busy;
};

static void model_put(struct model *model, uint8_t byte)
{
    if (model->count < (model->has_fifos ? UART_FIFO_BYTES : 1))
        model->bytes[model->count++] = byte;
}

static void check_read(const struct uart *uart, struct model *model, uint8_t offset, uint8_t value)
{
    bool is_divisor = (uart->line_control & 0x80) != 0;
    if (offset == 0 && !is_divisor) {
        FUZZ_CHECK(value == (model->count > 0 ? model->bytes[0] : 0));
        if (model->count > 0)
            memmove(model->bytes, model->bytes + 1, --model->count);
    }
    if (offset == 1 && !is_divisor)
        FUZZ_CHECK((value & 0xf0) == 0);
    if (offset == 2)
        FUZZ_CHECK((value & 0x30) == 0 && value >> 6 == (model->has_fifos ? 3 : 0));
    if (offset == 4)
        FUZZ_CHECK((value & 0xe0) == 0);
    if (offset == 5)
        FUZZ_CHECK((value & 0x9c) == 0 && (value & 1) == (model->count > 0) && ((value & 0x60) == 0) == model->is_busy);
    if (offset > 7)
        FUZZ_CHECK(value == 0xff);
}

static void write_register(struct uart *uart, struct model *model, uint8_t offset, uint8_t value)
{
    bool is_data = offset == 0 && (uart->line_control & 0x80) == 0;
    bool is_looped = (uart->modem_control & 0x10) != 0;
    FUZZ_CHECK(uart_write(uart, offset, value) == (is_data && !is_looped));
    if (is_data && is_looped)
        model_put(model, value);
    else if (is_data)
        model->is_busy = true;
    if (offset == 2) {
        bool has_fifos = (value & 1) != 0;
        if (has_fifos != model->has_fifos || (value & 3) == 3)
            model->count = 0;
        model->has_fifos = has_fifos;
    }
}

static void check_line(const struct uart *uart)
{
    struct uart copy = *uart;
    bool is_pending = (uart_read(&copy, 2) & 1) == 0;
    FUZZ_CHECK(uart_is_interrupting(uart) == (is_pending && (uart->modem_control & 0x18) == 0x08));
    /* Whatever is pending, a handler that does what it is told comes to an end. */
    for (int reads = 0; reads < 64 && (uart_read(&copy, 2) & 1) == 0; reads++) {
        uart_read(&copy, 5);
        uart_read(&copy, 6);
        copy.line_control = 0;
        uart_read(&copy, 0);
    }
    FUZZ_CHECK((uart_read(&copy, 2) & 1) == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct uart uart;
    struct model model = {0};
    uart_init(&uart);
    for (; size >= STEP_BYTES; data += STEP_BYTES, size -= STEP_BYTES) {
        uint8_t offset = data[1] % 10, value = data[2];
        switch (data[0] % 4) {
        case 0:
            check_read(&uart, &model, offset, uart_read(&uart, offset));
            break;
        case 1:
            write_register(&uart, &model, offset, value);
            break;
        case 2: {
            size_t room = uart_input_room(&uart), length = size < value ? size : value;
            size_t taken = uart_receive(&uart, data, length);
            FUZZ_CHECK(taken == (length < room ? length : room));
            for (size_t i = 0; i < taken; i++)
                model_put(&model, data[i]);
            break;
        }
        default:
            uart_transmitter_emptied(&uart);
            model.is_busy = false;
        }
        FUZZ_CHECK(uart.received_count == model.count);
        check_line(&uart);
    }
    return 0;
}
