// SPDX-License-Identifier: Apache-2.0
/* The real-time clock of a PC and its battery-backed memory. (Motorola MC146818A)
 *
 *     00 seconds  02 minutes  04 hours  06 weekday  07 day  08 month  09 year  32 century       (packed BCD, 24 hours)
 *     01 03 05    alarm: memory only, no alarm ever comes
 *     0a to 0d    registers A to D
 *     from 0e     memory; 15-18, 30-31, 34-35 and 5b-5d hold memory sizes
 *
 * A driver reads the time one register after the other and must not see the old minute with the new second. The chip
 * promises 244 us of rest after "no update in progress" was read from register A. We keep that promise without a clock
 * of our own: reading A or the seconds takes a snapshot, and the others read from it.
 *
 * The guest cannot set the host's clock: what it writes to the time or to A to D is accepted and forgotten. C library
 * calendars are avoided, for they may read time zone files.
 *
 * Invariants: (1) time registers always hold one consistent moment, in valid BCD. (2) no index leads outside of bytes.
 *
 * Trust: indexes and values come from a hostile guest; the memory harms nobody but itself.
 */
#include "device/legacy/rtc.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum {
    RTC_SECONDS = 0x00,
    RTC_MINUTES = 0x02,
    RTC_HOURS = 0x04,
    RTC_WEEKDAY = 0x06,
    RTC_DAY = 0x07,
    RTC_MONTH = 0x08,
    RTC_YEAR = 0x09,
    RTC_A = 0x0a,
    RTC_B = 0x0b,
    RTC_D = 0x0d,
    RTC_BASE_KIB = 0x15,
    RTC_EXTENDED_KIB = 0x17,       /* above 1 MiB, */
    RTC_EXTENDED_KIB_AGAIN = 0x30, /* and the same as the firmware measured it */
    RTC_CENTURY = 0x32,
    RTC_ABOVE_16_MIB = 0x34, /* in units of 64 KiB, as the next */
    RTC_ABOVE_4_GIB = 0x5b,
};
enum { A_DIVIDER_AND_RATE = 0x26, B_24_HOURS = 0x02, D_VALID = 0x80 };
enum { SECONDS_A_DAY = 86400, EPOCH_YEAR = 1970, EPOCH_WEEKDAY = 4 /* a Thursday, Sunday being 0 */, LAST_YEAR = 9999 };

static void put_number(struct rtc *rtc, size_t index, size_t count, uint64_t value)
{
    uint64_t most = (UINT64_C(1) << (8 * count)) - 1;
    if (value > most)
        value = most;
    for (size_t i = 0; i < count; i++)
        rtc->bytes[index + i] = (uint8_t)(value >> (8 * i));
}

void rtc_init(struct rtc *rtc, uint64_t low_ram_bytes, uint64_t high_ram_bytes)
{
    const uint64_t one_mib = 1 << 20;
    uint64_t above_1_mib = low_ram_bytes > one_mib ? low_ram_bytes - one_mib : 0;
    uint64_t above_16_mib = low_ram_bytes > 16 * one_mib ? low_ram_bytes - 16 * one_mib : 0;
    memset(rtc, 0, sizeof(*rtc));
    rtc->bytes[RTC_A] = A_DIVIDER_AND_RATE;
    rtc->bytes[RTC_B] = B_24_HOURS;
    rtc->bytes[RTC_D] = D_VALID;
    put_number(rtc, RTC_BASE_KIB, 2, 640);
    put_number(rtc, RTC_EXTENDED_KIB, 2, above_1_mib >> 10);
    put_number(rtc, RTC_EXTENDED_KIB_AGAIN, 2, above_1_mib >> 10);
    put_number(rtc, RTC_ABOVE_16_MIB, 2, above_16_mib >> 16);
    put_number(rtc, RTC_ABOVE_4_GIB, 3, high_ram_bytes >> 16);
}

static uint8_t to_bcd(unsigned number)
{
    return (uint8_t)(number / 10 % 10 << 4 | number % 10);
}

static unsigned days_of_year(unsigned year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 ? 366 : 365;
}

static unsigned days_of_month(unsigned month, unsigned year)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month == 1 && days_of_year(year) == 366 ? 29 : days[month];
}

/* Counts years and months off: a few dozen steps, and nothing to prove. */
static void put_date(struct rtc *rtc, uint64_t day)
{
    unsigned year = EPOCH_YEAR, month = 0;
    unsigned weekday = (unsigned)((day + EPOCH_WEEKDAY) % 7);
    for (; year < LAST_YEAR && day >= days_of_year(year); year++)
        day -= days_of_year(year);
    for (; month < 11 && day >= days_of_month(month, year); month++)
        day -= days_of_month(month, year);
    rtc->bytes[RTC_WEEKDAY] = to_bcd(weekday + 1);
    rtc->bytes[RTC_DAY] = to_bcd(day < 31 ? (unsigned)day + 1 : 31);
    rtc->bytes[RTC_MONTH] = to_bcd(month + 1);
    rtc->bytes[RTC_YEAR] = to_bcd(year % 100);
    rtc->bytes[RTC_CENTURY] = to_bcd(year / 100);
}

static void take_snapshot(struct rtc *rtc, int64_t now_s)
{
    uint64_t now = now_s > 0 ? (uint64_t)now_s : 0;
    unsigned second = (unsigned)(now % SECONDS_A_DAY);
    rtc->bytes[RTC_SECONDS] = to_bcd(second % 60);
    rtc->bytes[RTC_MINUTES] = to_bcd(second / 60 % 60);
    rtc->bytes[RTC_HOURS] = to_bcd(second / 3600);
    put_date(rtc, now / SECONDS_A_DAY);
}

uint8_t rtc_read(struct rtc *rtc, uint8_t index, int64_t now_s)
{
    index %= RTC_BYTES;
    if (index == RTC_SECONDS || index == RTC_A)
        take_snapshot(rtc, now_s);
    return rtc->bytes[index];
}

static bool is_time(uint8_t index)
{
    return index == RTC_SECONDS || index == RTC_MINUTES || index == RTC_HOURS || index == RTC_CENTURY ||
           (index >= RTC_WEEKDAY && index <= RTC_YEAR);
}

void rtc_write(struct rtc *rtc, uint8_t index, uint8_t value)
{
    index %= RTC_BYTES;
    if (!is_time(index) && (index < RTC_A || index > RTC_D))
        rtc->bytes[index] = value;
}
