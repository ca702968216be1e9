// SPDX-License-Identifier: Apache-2.0
/* A block device that keeps to its limits. */
#include "test.h"

#include "base/clock.h"
#include "blk_driver.h"

static struct blk_driver front;
static uint32_t head, written;

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
        struct rate_limits limits = {.operations_per_second = 100, .burst_operations = 10};
        blk_driver_begin(&front, &(struct blk_driver_options){.is_launched = is_launched, .blk = {.limits = limits}});
        CHECK(blk_driver_start(&front, BLK_DRIVER_F_FLUSH));
        uint64_t took_ns = time_reads(40, 512); /* 30 of them at 100 a second */
        CHECK(took_ns > 250 * CLOCK_NS_PER_MS && took_ns < 2000 * CLOCK_NS_PER_MS);
        blk_driver_end(&front);
    }
    struct rate_limits limits = {.bytes_per_second = 1 << 20, .burst_bytes = 1 << 16};
    blk_driver_begin(&front, &(struct blk_driver_options){.is_launched = true, .blk = {.limits = limits}});
    CHECK(blk_driver_start(&front, BLK_DRIVER_F_FLUSH));
    uint64_t took_ns = time_reads(12, 1 << 15); /* 384 KiB, of which 64 at once */
    CHECK(took_ns > 250 * CLOCK_NS_PER_MS && took_ns < 2000 * CLOCK_NS_PER_MS);
    blk_driver_end(&front);
}

/* A guest that fills its disk with zeros writes as much as one that fills it with ones. */
TEST(zeros_cost_their_bytes)
{
    struct rate_limits limits = {.bytes_per_second = 1 << 20, .burst_bytes = 1 << 16};
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
    struct rate_limits limits = {.bytes_per_second = 1, .burst_bytes = 1};
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
