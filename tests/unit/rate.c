// SPDX-License-Identifier: Apache-2.0
/* Limits by a clock of the test's own. */
#include "test.h"

#include "base/clock.h"
#include "base/rate.h"

static struct rate rate;

static void make(uint64_t bytes, uint64_t burst_bytes, uint64_t operations, uint64_t burst_operations)
{
    rate_init(&rate, &(struct rate_limits){bytes, burst_bytes, operations, burst_operations});
}

/* Takes operations of one size as fast as the buckets let them through, for so long: how many. */
static uint64_t drain(uint64_t bytes, uint64_t from_ns, uint64_t duration_ns)
{
    uint64_t count = 0, now_ns = from_ns;
    while (now_ns - from_ns < duration_ns) {
        uint64_t when_ns = rate_take(&rate, bytes, 1, now_ns);
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
    CHECK(!rate_has_limits(&rate));
    for (int i = 0; i < 1000; i++)
        CHECK_INT(rate_take(&rate, UINT64_C(1) << 28, 1, 5), CLOCK_NEVER);
}

TEST(operations)
{
    make(0, 0, 1000, 10);
    CHECK(rate_has_limits(&rate));
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

TEST(what_is_larger_than_the_burst_is_paid_for_afterwards)
{
    make(1 << 20, 512, 0, 0);
    CHECK_INT(rate_take(&rate, 10 << 20, 1, CLOCK_NS_PER_S), CLOCK_NEVER);
    uint64_t when_ns = rate_take(&rate, 512, 1, CLOCK_NS_PER_S);
    CHECK(when_ns > 10 * CLOCK_NS_PER_S && when_ns <= 11 * CLOCK_NS_PER_S);
    CHECK_INT(rate_take(&rate, 512, 1, when_ns), CLOCK_NEVER);
    CHECK_INT(rate_take(&rate, 0, 1, CLOCK_NS_PER_S), CLOCK_NEVER); /* no bytes, no wait: a flush */
}

TEST(the_slower_limit_decides_and_neither_is_taken_from_alone)
{
    make(1 << 20, 1 << 20, 10, 1);
    CHECK_INT(rate_take(&rate, 512, 1, CLOCK_NS_PER_S), CLOCK_NEVER);
    for (int i = 0; i < 10000; i++) /* refused by the operations: the bytes stay */
        CHECK(rate_take(&rate, 512, 1, CLOCK_NS_PER_S) != CLOCK_NEVER);
    CHECK_INT(rate_take(&rate, 1 << 19, 0, CLOCK_NS_PER_S), CLOCK_NEVER);
    CHECK_INT(drain(1 << 20, 2 * CLOCK_NS_PER_S, 5 * CLOCK_NS_PER_S) >= 5, 1);
}

TEST(to_ask_takes_nothing_and_what_it_says_holds)
{
    make(1 << 20, 1 << 10, 100, 1);
    for (int i = 0; i < 1000; i++)
        CHECK_INT(rate_ask(&rate, CLOCK_NS_PER_S), CLOCK_NEVER);
    CHECK_INT(rate_take(&rate, 1 << 20, 1, CLOCK_NS_PER_S), CLOCK_NEVER);
    uint64_t when_ns = rate_ask(&rate, CLOCK_NS_PER_S);
    CHECK(when_ns > 19 * CLOCK_NS_PER_S / 10 && when_ns < 2 * CLOCK_NS_PER_S);
    CHECK_INT(rate_take(&rate, 1 << 10, 1, when_ns - 1), when_ns);
    CHECK_INT(rate_take(&rate, 1 << 10, 1, when_ns), CLOCK_NEVER);
}

TEST(numbers_of_any_size)
{
    static const uint64_t rates[] = {1, 2, 1000, UINT64_C(1) << 40, UINT64_MAX};
    for (size_t i = 0; i < 5; i++)
        for (size_t j = 0; j < 5; j++) {
            make(rates[i], rates[j], rates[j], rates[i]);
            uint64_t when_ns = rate_take(&rate, UINT64_C(1) << 28, 1, UINT64_C(1) << 62);
            CHECK_INT(when_ns, CLOCK_NEVER);
            when_ns = rate_take(&rate, UINT64_C(1) << 28, 1, UINT64_C(1) << 62);
            CHECK(when_ns > UINT64_C(1) << 62);
        }
}
