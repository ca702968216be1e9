// SPDX-License-Identifier: Apache-2.0
/* The few ports of a PC that a kernel needs: keyboard controller, fast reset, clock, power off. */
#ifndef DEVICE_LEGACY_PLATFORM_H
#define DEVICE_LEGACY_PLATFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where a guest switches the machine off: a 16-bit write with bit 13 set, or an 8-bit one with bit 5. */
enum { PLATFORM_POWER_OFF_PORT = 0x604, PLATFORM_SLEEP_STATUS_PORT = 0x605 };

/* What the guest asked for, called on the vCPU's thread that asked, perhaps on several and again and again. */
struct platform_ops {
    void (*reset)(void *user);
    void (*power_off)(void *user);
};

struct platform;

/* `low_ram_bytes` is the RAM below 4 GiB, `high_ram_bytes` the RAM above. */
int platform_new(const struct platform_ops *ops, void *user, uint64_t low_ram_bytes, uint64_t high_ram_bytes,
                 struct platform **ret_platform);
struct platform *platform_free(struct platform *platform);

/* The guest's accesses, from any thread; false for a port that is not one of these. An access of a width that a port
 * does not have reads as all ones and writes nothing. */
bool platform_read(struct platform *platform, uint16_t port, uint8_t *bytes, size_t length);
bool platform_write(struct platform *platform, uint16_t port, const uint8_t *bytes, size_t length);

#endif
