// SPDX-License-Identifier: Apache-2.0
/* The ports of a PC, as a kernel uses them: probing, resetting, reading the clock, switching off. */
#include "test.h"

#include "base/alloc.h"
#include "device/legacy/platform.h"
#include "device/legacy/rtc.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

static struct platform *platform;
static atomic_int resets, power_offs;

static void count_reset(void *user)
{
    atomic_fetch_add((atomic_int *)user, 1);
}

static void count_power_off(void *user)
{
    (void)user;
    atomic_fetch_add(&power_offs, 1);
}

static int begin(void)
{
    static const struct platform_ops ops = {.reset = count_reset, .power_off = count_power_off};
    resets = power_offs = 0;
    return platform_new(&ops, &resets, UINT64_C(0xd0000000), UINT64_C(5) << 30, &platform);
}

static void end(void)
{
    platform = platform_free(platform);
}

static uint8_t get(uint16_t port)
{
    uint8_t value = 0x5a;
    return platform_read(platform, port, &value, 1) ? value : 0x5a;
}

static void put(uint16_t port, uint8_t value)
{
    platform_write(platform, port, &value, 1);
}

static void put_16(uint16_t port, uint16_t value)
{
    uint8_t bytes[2] = {(uint8_t)value, (uint8_t)(value >> 8)};
    platform_write(platform, port, bytes, sizeof(bytes));
}

static uint8_t cmos(uint8_t index)
{
    put(0x70, index);
    return get(0x71);
}

TEST(there_is_no_keyboard_controller)
{
    CHECK_INT(begin(), 0);
    /* Linux empties the buffer first and gives up when it does not get empty; before a reset it waits for bit 1. */
    for (int i = 0; i < 200; i++) {
        CHECK_INT(get(0x64) & 3, 1);
        CHECK_INT(get(0x60), 0xff);
    }
    put(0x64, 0xaa);
    put(0x60, 0xf2);
    CHECK_INT(get(0x64) & 3, 1);
    CHECK_INT(resets + power_offs, 0);
    end();
}

TEST(ways_to_reset)
{
    CHECK_INT(begin(), 0);
    put(0x64, 0xfe);
    CHECK_INT(resets, 1);
    put(0x64, 0xff); /* pulses nothing */
    put(0x64, 0xed);
    CHECK_INT(resets, 1);
    put(0x64, 0xf0); /* pulses everything */
    CHECK_INT(resets, 2);
    put(0x60, 0x02); /* only behind its command */
    put(0x64, 0xd1);
    put(0x60, 0x03);
    put(0x60, 0x02);
    CHECK_INT(resets, 2);
    put(0x64, 0xd1);
    put(0x60, 0x02);
    CHECK_INT(resets, 3);
    CHECK_INT(get(0x92), 0x02);
    put(0x92, 0x00);
    CHECK_INT(get(0x92), 0x00);
    CHECK_INT(resets, 3);
    put(0x92, 0x03);
    CHECK_INT(get(0x92), 0x02);
    CHECK_INT(resets, 4);
    CHECK_INT(power_offs, 0);
    end();
}

TEST(power_off)
{
    uint8_t bytes[4] = {0, 0x20, 0, 0};
    CHECK_INT(begin(), 0);
    put_16(0x604, 0x0001);
    put_16(0x604, 0x1c00);
    put_16(0x604, 0xdfff);
    CHECK(platform_write(platform, 0x604, bytes, 4));
    CHECK(platform_write(platform, 0x605, bytes + 1, 1)); /* the high half alone is another register */
    CHECK_INT(power_offs, 0);
    put_16(0x604, 0x2000);
    CHECK_INT(power_offs, 1);
    put_16(0x604, 0x2000 | 5 << 10);
    CHECK_INT(power_offs, 2);
    CHECK(platform_read(platform, 0x604, bytes, 2));
    CHECK_INT(bytes[0] | bytes[1], 0);
    CHECK_INT(resets, 0);
    end();
}

/* As ACPI's reduced hardware does: sleep status is cleared, then a byte goes to sleep control. */
TEST(power_off_by_a_byte)
{
    CHECK_INT(begin(), 0);
    put(0x604, 0x00);
    put(0x604, 0xdf); /* every bit but SLP_EN */
    put(0x605, 0x80); /* WAK_STS */
    put(0x605, 0xff);
    CHECK_INT(power_offs, 0);
    CHECK_INT(get(0x604), 0);
    CHECK_INT(get(0x605), 0);
    for (unsigned type = 0; type < 8; type++) {
        put(0x604, (uint8_t)(0x20 | type << 2));
        CHECK_INT(power_offs, type + 1);
    }
    put_16(0x604, 0x0020); /* in the register of 16 bits the bit means something else */
    CHECK_INT(power_offs, 8);
    CHECK_INT(get(0x604), 0);
    CHECK_INT(resets, 0);
    end();
}

TEST(other_ports_and_widths)
{
    static const uint16_t ours[] = {0x60, 0x64, 0x70, 0x71, 0x92, 0x604, 0x605};
    CHECK_INT(begin(), 0);
    for (unsigned port = 0; port < 65536; port++) {
        bool is_ours = false;
        for (size_t i = 0; i < array_length(ours); i++)
            is_ours |= port == ours[i];
        uint8_t bytes[4] = {1, 2, 3, 4};
        CHECK_INT(platform_read(platform, (uint16_t)port, bytes, 4), is_ours);
        for (size_t i = 0; i < 4; i++)
            CHECK_INT(bytes[i], is_ours ? 0xff : i + 1);
        memset(bytes, 0xfe, 4);
        CHECK_INT(platform_write(platform, (uint16_t)port, bytes, 4), is_ours);
        CHECK_INT(platform_write(platform, (uint16_t)port, bytes, 0), is_ours);
    }
    uint8_t word[2] = {0, 0};
    CHECK(platform_read(platform, 0x64, word, 2));
    CHECK_INT(word[0] & word[1], 0xff);
    CHECK_INT(resets + power_offs, 0);
    end();
}

/* ---- the clock ---- */

static unsigned from_bcd(uint8_t value)
{
    return value / 16 * 10u + value % 16;
}

/* What a driver makes of the registers. */
static struct tm read_clock(struct rtc *rtc, int64_t now_s)
{
    rtc_read(rtc, 0x0a, now_s);
    return (struct tm){
        .tm_hour = (int)from_bcd(rtc_read(rtc, 0x04, now_s + 1000)), /* the snapshot holds */
        .tm_min = (int)from_bcd(rtc_read(rtc, 0x02, now_s + 1000)),
        .tm_mday = (int)from_bcd(rtc_read(rtc, 0x07, now_s + 100000)),
        .tm_mon = (int)from_bcd(rtc_read(rtc, 0x08, now_s + 100000)) - 1,
        .tm_year = (int)(from_bcd(rtc_read(rtc, 0x09, now_s)) + 100 * from_bcd(rtc_read(rtc, 0x32, now_s))) - 1900,
        .tm_wday = (int)from_bcd(rtc_read(rtc, 0x06, now_s)) - 1,
        .tm_sec = (int)from_bcd(rtc_read(rtc, 0x00, now_s)),
    };
}

TEST(every_day_until_2200)
{
    struct rtc rtc;
    rtc_init(&rtc, 0, 0);
    for (int64_t day = 0; day < 84000; day++) {
        time_t now = (time_t)(day * 86400 + day * 7919 % 86400);
        struct tm expected;
        gmtime_r(&now, &expected);
        struct tm got = read_clock(&rtc, now);
        CHECK_INT(got.tm_year, expected.tm_year);
        CHECK_INT(got.tm_mon, expected.tm_mon);
        CHECK_INT(got.tm_mday, expected.tm_mday);
        CHECK_INT(got.tm_wday, expected.tm_wday);
        CHECK_INT(got.tm_hour, expected.tm_hour);
        CHECK_INT(got.tm_min, expected.tm_min);
        CHECK_INT(got.tm_sec, expected.tm_sec);
    }
}

TEST(a_host_with_a_wrong_clock)
{
    static const int64_t times[] = {INT64_MIN, -1, INT64_MAX - 100000, INT64_C(253402300800)};
    struct rtc rtc;
    rtc_init(&rtc, 0, 0);
    for (size_t i = 0; i < array_length(times); i++) {
        struct tm got = read_clock(&rtc, times[i]);
        CHECK(got.tm_mon >= 0 && got.tm_mon < 12 && got.tm_mday >= 1 && got.tm_mday <= 31);
    }
}

TEST(the_clock_shows_the_hosts_time)
{
    CHECK_INT(begin(), 0);
    time_t before = time(NULL);
    CHECK_INT(cmos(0x0a), 0x26);
    struct tm got = {
        .tm_sec = (int)from_bcd(cmos(0x00)),
        .tm_min = (int)from_bcd(cmos(0x02)),
        .tm_hour = (int)from_bcd(cmos(0x04)),
        .tm_mday = (int)from_bcd(cmos(0x07)),
        .tm_mon = (int)from_bcd(cmos(0x08)) - 1,
        .tm_year = (int)from_bcd(cmos(0x09)) + 100,
    };
    time_t shown = timegm(&got);
    CHECK(shown >= before && shown <= time(NULL));
    CHECK_INT(cmos(0x0b), 0x02);
    CHECK_INT(cmos(0x0c), 0x00);
    CHECK_INT(cmos(0x0d), 0x80);
    CHECK_INT(get(0x70), 0xff);
    end();
}

TEST(the_guest_cannot_set_the_clock)
{
    static const uint8_t fixed[] = {0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x32};
    CHECK_INT(begin(), 0);
    cmos(0x0a);
    for (size_t i = 0; i < array_length(fixed); i++) {
        uint8_t before = cmos(fixed[i]);
        put(0x71, 0x55);
        CHECK_INT(get(0x71), before);
    }
    put(0x70, 0x8f); /* NMI off, index 0x0f */
    put(0x71, 0x0a);
    CHECK_INT(cmos(0x0f), 0x0a);
    put(0x70, 0x01);
    put(0x71, 0xc0); /* an alarm that never comes */
    CHECK_INT(cmos(0x01), 0xc0);
    end();
}

static unsigned cmos_number(struct rtc *rtc, uint8_t index, unsigned count)
{
    unsigned number = 0;
    for (unsigned i = 0; i < count; i++)
        number |= (unsigned)rtc_read(rtc, (uint8_t)(index + i), 0) << (8 * i);
    return number;
}

TEST(memory_sizes)
{
    static const struct {
        uint64_t low, high;
        unsigned extended_kib, above_16_mib, above_4_gib;
    } rows[] = {
        {UINT64_C(64) << 20, 0, 63 << 10, 48 << 4, 0},
        {UINT64_C(1) << 20, 0, 0, 0, 0},
        {UINT64_C(0xd0000000), UINT64_C(5) << 30, 65535, (0xd0000000u - (16u << 20)) >> 16, 5 << 14},
        {0, UINT64_C(1) << 44, 0, 0, 0xffffff},
    };
    for (size_t i = 0; i < array_length(rows); i++) {
        struct rtc rtc;
        rtc_init(&rtc, rows[i].low, rows[i].high);
        CHECK_INT(cmos_number(&rtc, 0x15, 2), 640);
        CHECK_INT(cmos_number(&rtc, 0x17, 2), rows[i].extended_kib);
        CHECK_INT(cmos_number(&rtc, 0x30, 2), rows[i].extended_kib);
        CHECK_INT(cmos_number(&rtc, 0x34, 2), rows[i].above_16_mib);
        CHECK_INT(cmos_number(&rtc, 0x5b, 3), rows[i].above_4_gib);
        CHECK_INT(cmos_number(&rtc, 0x5b + 0x80, 3), rows[i].above_4_gib); /* it repeats */
    }
}

/* ---- the rest ---- */

TEST(platform_survives_no_memory)
{
    FOR_EACH_FAULT
    {
        CHECK_INT(begin(), fault_was_hit() ? -ENOMEM : 0);
        end();
    }
}

static void *hammer(void *argument)
{
    (void)argument;
    for (unsigned i = 0; i < 5000; i++) {
        cmos((uint8_t)i);
        put(0x71, (uint8_t)i);
        put(0x64, i % 100 == 0 ? 0xfe : 0xd1);
        put(0x92, 0x02);
        get(0x64);
    }
    return NULL;
}

TEST(several_vcpus_at_once)
{
    pthread_t threads[3];
    CHECK_INT(begin(), 0);
    for (size_t i = 0; i < 3; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, hammer, NULL), 0);
    for (size_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(resets, 3 * 50);
    end();
}
