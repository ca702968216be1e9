// SPDX-License-Identifier: Apache-2.0
/* A block device's limits: the buckets by a clock of the test's own, then a device that keeps to them. */
#include "test.h"

#include "base/clock.h"
#include "blk_driver.h"
#include "device/blk/limits.h"

static struct blk_driver front;
static uint32_t head, written;
static struct blk_buckets buckets;

static void make(uint64_t bytes, uint64_t burst_bytes, uint64_t operations, uint64_t burst_operations)
{
    blk_buckets_init(&buckets, &(struct blk_limits){bytes, burst_bytes, operations, burst_operations});
}

/* Takes requests of one size as fast as the buckets let them through, for so long: how many. */
static uint64_t drain(uint64_t bytes, uint64_t from_ns, uint64_t duration_ns)
{
    uint64_t count = 0, now_ns = from_ns;
    while (now_ns - from_ns < duration_ns) {
        uint64_t when_ns = blk_buckets_take(&buckets, bytes, 1, now_ns);
        if (when_ns == CLOCK_NEVER)
            count++;
        else if (when_ns <= now_ns)
            return UINT64_MAX; /* it would never get anywhere */
        else
            now_ns = when_ns;
    }
    return count;
}

TEST(no_limits)
{
    make(0, 0, 0, 0);
    CHECK(!blk_buckets_have_limits(&buckets));
    for (int i = 0; i < 1000; i++)
        CHECK_INT(blk_buckets_take(&buckets, UINT64_C(1) << 28, 1, 5), CLOCK_NEVER);
}

TEST(operations)
{
    make(0, 0, 1000, 10);
    CHECK(blk_buckets_have_limits(&buckets));
    uint64_t count = drain(4096, CLOCK_NS_PER_S, 10 * CLOCK_NS_PER_S);
    CHECK(count >= 10009 && count <= 10011); /* the rate, and the burst once */
    make(0, 0, 1000, 0);
    count = drain(4096, CLOCK_NS_PER_S, CLOCK_NS_PER_S);
    CHECK(count >= 1099 && count <= 1101); /* a tenth of a second's */
}

TEST(bytes)
{
    make(1 << 20, 1 << 18, 0, 0);
    uint64_t count = drain(4096, CLOCK_NS_PER_S, 4 * CLOCK_NS_PER_S);
    CHECK(count >= 4 * 256 + 64 && count <= 4 * 256 + 66);
}

TEST(a_request_larger_than_the_burst_is_paid_for_afterwards)
{
    make(1 << 20, 512, 0, 0);
    CHECK_INT(blk_buckets_take(&buckets, 10 << 20, 1, CLOCK_NS_PER_S), CLOCK_NEVER);
    uint64_t when_ns = blk_buckets_take(&buckets, 512, 1, CLOCK_NS_PER_S);
    CHECK(when_ns > 10 * CLOCK_NS_PER_S && when_ns <= 11 * CLOCK_NS_PER_S);
    CHECK_INT(blk_buckets_take(&buckets, 512, 1, when_ns), CLOCK_NEVER);
    CHECK_INT(blk_buckets_take(&buckets, 0, 1, CLOCK_NS_PER_S), CLOCK_NEVER); /* no bytes, no wait: a flush */
}

TEST(the_slower_limit_decides_and_neither_is_taken_from_alone)
{
    make(1 << 20, 1 << 20, 10, 1);
    CHECK_INT(blk_buckets_take(&buckets, 512, 1, CLOCK_NS_PER_S), CLOCK_NEVER);
    for (int i = 0; i < 10000; i++) /* refused by the operations: the bytes stay */
        CHECK(blk_buckets_take(&buckets, 512, 1, CLOCK_NS_PER_S) != CLOCK_NEVER);
    CHECK_INT(blk_buckets_take(&buckets, 1 << 19, 0, CLOCK_NS_PER_S), CLOCK_NEVER);
    CHECK_INT(drain(1 << 20, 2 * CLOCK_NS_PER_S, 5 * CLOCK_NS_PER_S) >= 5, 1);
}

TEST(numbers_of_any_size)
{
    static const uint64_t rates[] = {1, 2, 1000, UINT64_C(1) << 40, UINT64_MAX};
    for (size_t i = 0; i < 5; i++)
        for (size_t j = 0; j < 5; j++) {
            make(rates[i], rates[j], rates[j], rates[i]);
            uint64_t when_ns = blk_buckets_take(&buckets, UINT64_C(1) << 28, 1, UINT64_C(1) << 62);
            CHECK_INT(when_ns, CLOCK_NEVER);
            when_ns = blk_buckets_take(&buckets, UINT64_C(1) << 28, 1, UINT64_C(1) << 62);
            CHECK(when_ns > UINT64_C(1) << 62);
        }
}

/* ---- a device ---- */

/* How long so many reads take, all offered at once. */
static uint64_t time_reads(unsigned count, uint32_t length)
{
    uint64_t from_ns = clock_now_ns();
    for (unsigned i = 0; i < count; i++)
        blk_driver_offer(&front, i, BLK_DRIVER_READ, i, length);
    virtio_driver_kick(&front.driver, 0);
    for (unsigned i = 0; i < count; i++)
        if (!blk_driver_finish(&front, &head, &written) || head != 3 * i || blk_driver_status(&front, i) != 0)
            return 0;
    return clock_now_ns() - from_ns;
}

TEST(a_device_keeps_to_its_limits_in_order)
{
    for (int is_launched = 0; is_launched < 2; is_launched++) {
        struct blk_limits limits = {.operations_per_second = 100, .burst_operations = 10};
        blk_driver_begin(&front, &(struct blk_driver_options){.is_launched = is_launched, .blk = {.limits = limits}});
        CHECK(blk_driver_start(&front, BLK_DRIVER_F_FLUSH));
        uint64_t took_ns = time_reads(40, 512); /* 30 of them at 100 a second */
        CHECK(took_ns > 250 * CLOCK_NS_PER_MS && took_ns < 2000 * CLOCK_NS_PER_MS);
        blk_driver_end(&front);
    }
    struct blk_limits limits = {.bytes_per_second = 1 << 20, .burst_bytes = 1 << 16};
    blk_driver_begin(&front, &(struct blk_driver_options){.is_launched = true, .blk = {.limits = limits}});
    CHECK(blk_driver_start(&front, BLK_DRIVER_F_FLUSH));
    uint64_t took_ns = time_reads(12, 1 << 15); /* 384 KiB, of which 64 at once */
    CHECK(took_ns > 250 * CLOCK_NS_PER_MS && took_ns < 2000 * CLOCK_NS_PER_MS);
    blk_driver_end(&front);
}

/* A guest that fills its disk with zeros writes as much as one that fills it with ones. */
TEST(zeros_cost_their_bytes)
{
    struct blk_limits limits = {.bytes_per_second = 1 << 20, .burst_bytes = 1 << 16};
    blk_driver_begin(&front, &(struct blk_driver_options){.is_launched = true, .blk = {.limits = limits}});
    CHECK(blk_driver_start(&front, BLK_DRIVER_F_WRITE_ZEROES));
    uint64_t from_ns = clock_now_ns();
    for (unsigned i = 0; i < 3; i++) /* the first one goes through at once, and each after it a quarter second later */
        CHECK_INT(blk_driver_erase(&front, BLK_DRIVER_WRITE_ZEROES, 0, 512, 0), BLK_DRIVER_OK);
    uint64_t took_ns = clock_now_ns() - from_ns;
    CHECK(took_ns > 350 * CLOCK_NS_PER_MS && took_ns < 3000 * CLOCK_NS_PER_MS);
    blk_driver_end(&front);
}

TEST(a_flush_costs_no_bytes)
{
    struct blk_limits limits = {.bytes_per_second = 1, .burst_bytes = 1};
    blk_driver_begin(&front, &(struct blk_driver_options){.blk = {.limits = limits}});
    CHECK(blk_driver_start(&front, BLK_DRIVER_F_FLUSH));
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_READ, 0, 512), BLK_DRIVER_OK); /* paid for in nine minutes */
    CHECK_INT(blk_driver_do(&front, 1, BLK_DRIVER_FLUSH, 0, 0), BLK_DRIVER_OK);
    CHECK_INT(blk_driver_do(&front, 2, BLK_DRIVER_GET_ID, 0, 20), BLK_DRIVER_OK);
    blk_driver_send(&front, 3, BLK_DRIVER_READ, 0, 512);
    CHECK(!virtio_driver_take(&front.driver, 0, &head, &written));
    CHECK(virtio_driver_restart(&front.driver, 0, 1, BLK_DRIVER_ENTRIES)); /* a reset does not wait for the limits */
    blk_driver_end(&front);
}
