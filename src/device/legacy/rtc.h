// SPDX-License-Identifier: Apache-2.0
/* The real-time clock of a PC and its battery-backed memory. Not locked; the owner (platform.h) does that. */
#ifndef DEVICE_LEGACY_RTC_H
#define DEVICE_LEGACY_RTC_H

#include <stdint.h>

enum { RTC_BYTES = 128 };

struct rtc {
    uint8_t bytes[RTC_BYTES];
};

/* The memory sizes are what the guest finds in the places where a PC's firmware notes them. */
void rtc_init(struct rtc *rtc, uint64_t low_ram_bytes, uint64_t high_ram_bytes);

/* The guest's accesses; the index counts modulo RTC_BYTES. `now_s` is UTC, in seconds since 1970. */
uint8_t rtc_read(struct rtc *rtc, uint8_t index, int64_t now_s);
void rtc_write(struct rtc *rtc, uint8_t index, uint8_t value);

#endif
