// SPDX-License-Identifier: Apache-2.0
/* The few ports of a PC that a kernel needs: keyboard controller, fast reset, clock, power off.
 *
 *     0x60, 0x64   i8042   always accepts, never has anything to say but 0xff; pulses the reset line on command
 *     0x70, 0x71   clock   index and data (rtc.c)
 *     0x92         system control port A: bit 0 resets
 *     0x604        16 bits: PM1a control, where QEMU's q35 has it; 8 bits: sleep control; SLP_EN of either switches off
 *     0x605        sleep status: always 0, for nobody has slept
 *
 * There is no keyboard. A controller that answers nothing would cost Linux half a second for each command of its probe;
 * so the output buffer looks full for ever, which Linux takes for "no controller" after as many reads as a real buffer
 * could hold. The input buffer is always empty, so that the way to a reset is short.
 *
 * A kernel without ACPI does not know port 0x604; our init does. A kernel with our ACPI tables, which describe reduced
 * hardware, writes a byte (ACPI 6.5, 4.8.3.7). The type of sleep is not looked at: the machine has no other.
 *
 * Invariants: (1) callbacks run without the mutex, so they may do anything but free the platform. (2) bytes that are
 * read are always written to, all of them.
 *
 * Trust: ports, widths and values come from a hostile guest.
 */
#include "device/legacy/platform.h"

#include "base/alloc.h"
#include "device/legacy/rtc.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

enum {
    PORT_KEYBOARD_DATA = 0x60,
    PORT_KEYBOARD_COMMAND = 0x64,
    PORT_CLOCK_INDEX = 0x70,
    PORT_CLOCK_DATA = 0x71,
    PORT_SYSTEM_CONTROL = 0x92,
};
enum { KEYBOARD_OUTPUT_FULL = 0x01, KEYBOARD_SELF_TESTED = 0x04 };
/* Output lines are pulled low where the low bits of a pulse command are 0, and bit 0 is the CPU's reset. The other way:
 * the byte behind the command that writes the lines. */
enum { COMMAND_WRITE_LINES = 0xd1, COMMAND_PULSE = 0xf0, LINE_RESET = 0x01 };
enum { CONTROL_RESET = 0x01, CONTROL_A20 = 0x02 };
enum { POWER_SLEEP_ENABLE = 1 << 13, SLEEP_CONTROL_ENABLE = 1 << 5 };
enum { CLOCK_INDEX_MASK = 0x7f /* bit 7 gates the NMI */ };

enum request { REQUEST_NONE, REQUEST_RESET, REQUEST_POWER_OFF };

struct platform {
    const struct platform_ops *ops; /* borrowed */
    void *user;                     /* borrowed */
    pthread_mutex_t mutex;          /* over what follows */
    struct rtc rtc;
    uint8_t clock_index;
    uint8_t system_control;
    bool expects_lines; /* the next byte of data sets the keyboard controller's output lines */
};

int platform_new(const struct platform_ops *ops, void *user, uint64_t low_ram_bytes, uint64_t high_ram_bytes,
                 struct platform **ret_platform)
{
    struct platform *platform = alloc_zero(sizeof(*platform));
    if (platform == NULL)
        return -ENOMEM;
    platform->ops = ops;
    platform->user = user;
    pthread_mutex_init(&platform->mutex, NULL); /* cannot fail without attributes */
    rtc_init(&platform->rtc, low_ram_bytes, high_ram_bytes);
    platform->system_control = CONTROL_A20;
    *ret_platform = platform;
    return 0;
}

struct platform *platform_free(struct platform *platform)
{
    if (platform == NULL)
        return NULL;
    pthread_mutex_destroy(&platform->mutex);
    free(platform);
    return NULL;
}

static bool is_ours(uint16_t port)
{
    switch (port) {
    case PORT_KEYBOARD_DATA:
    case PORT_KEYBOARD_COMMAND:
    case PORT_CLOCK_INDEX:
    case PORT_CLOCK_DATA:
    case PORT_SYSTEM_CONTROL:
    case PLATFORM_POWER_OFF_PORT:
    case PLATFORM_SLEEP_STATUS_PORT:
        return true;
    default:
        return false;
    }
}

/* ---- reading ---- */

static uint8_t read_byte(struct platform *platform, uint16_t port)
{
    struct timespec now;
    switch (port) {
    case PORT_KEYBOARD_COMMAND:
        return KEYBOARD_OUTPUT_FULL | KEYBOARD_SELF_TESTED;
    case PORT_CLOCK_DATA:
        clock_gettime(CLOCK_REALTIME, &now); /* cannot fail: the clock exists and the pointer is ours */
        return rtc_read(&platform->rtc, platform->clock_index, now.tv_sec);
    case PORT_SYSTEM_CONTROL:
        return platform->system_control;
    case PLATFORM_POWER_OFF_PORT: /* SLP_EN reads as zero, as in the register of 16 bits */
    case PLATFORM_SLEEP_STATUS_PORT:
        return 0;
    default: /* no key, and an index that cannot be read back */
        return UINT8_MAX;
    }
}

bool platform_read(struct platform *platform, uint16_t port, uint8_t *bytes, size_t length)
{
    if (!is_ours(port))
        return false;
    memset(bytes, UINT8_MAX, length);
    if (port == PLATFORM_POWER_OFF_PORT && length == sizeof(uint16_t)) {
        memset(bytes, 0, length); /* SLP_EN reads as zero (ACPI 6.5, 4.8.3.2.1) */
    } else if (length == 1) {
        pthread_mutex_lock(&platform->mutex);
        bytes[0] = read_byte(platform, port);
        pthread_mutex_unlock(&platform->mutex);
    }
    return true;
}

/* ---- writing ---- */

static enum request write_keyboard_data(struct platform *platform, uint8_t value)
{
    bool sets_lines = platform->expects_lines;
    platform->expects_lines = false;
    return sets_lines && (value & LINE_RESET) == 0 ? REQUEST_RESET : REQUEST_NONE;
}

static enum request write_keyboard_command(struct platform *platform, uint8_t command)
{
    platform->expects_lines = command == COMMAND_WRITE_LINES;
    return command >= COMMAND_PULSE && (command & LINE_RESET) == 0 ? REQUEST_RESET : REQUEST_NONE;
}

static enum request write_byte(struct platform *platform, uint16_t port, uint8_t value)
{
    switch (port) {
    case PORT_KEYBOARD_DATA:
        return write_keyboard_data(platform, value);
    case PORT_KEYBOARD_COMMAND:
        return write_keyboard_command(platform, value);
    case PORT_CLOCK_INDEX:
        platform->clock_index = value & CLOCK_INDEX_MASK;
        return REQUEST_NONE;
    case PORT_CLOCK_DATA:
        rtc_write(&platform->rtc, platform->clock_index, value);
        return REQUEST_NONE;
    case PORT_SYSTEM_CONTROL:
        platform->system_control = value & (uint8_t)~CONTROL_RESET;
        return (value & CONTROL_RESET) != 0 ? REQUEST_RESET : REQUEST_NONE;
    case PLATFORM_POWER_OFF_PORT:
        return (value & SLEEP_CONTROL_ENABLE) != 0 ? REQUEST_POWER_OFF : REQUEST_NONE;
    default:
        return REQUEST_NONE;
    }
}

static enum request write_power_control(const uint8_t *bytes)
{
    unsigned value = bytes[0] | (unsigned)bytes[1] << 8;
    return (value & POWER_SLEEP_ENABLE) != 0 ? REQUEST_POWER_OFF : REQUEST_NONE;
}

bool platform_write(struct platform *platform, uint16_t port, const uint8_t *bytes, size_t length)
{
    enum request request = REQUEST_NONE;
    if (!is_ours(port))
        return false;
    if (port == PLATFORM_POWER_OFF_PORT && length == sizeof(uint16_t)) {
        request = write_power_control(bytes);
    } else if (length == 1) {
        pthread_mutex_lock(&platform->mutex);
        request = write_byte(platform, port, bytes[0]);
        pthread_mutex_unlock(&platform->mutex);
    }
    if (request == REQUEST_RESET)
        platform->ops->reset(platform->user);
    else if (request == REQUEST_POWER_OFF)
        platform->ops->power_off(platform->user);
    return true;
}
