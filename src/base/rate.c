// SPDX-License-Identifier: Apache-2.0
/* How fast something may go.
 *
 * A bucket is one point in time: when all that was taken out will have flowed in again. To take moves it on by what
 * that costs; it may be taken from while that point is no further away than a burst. So nothing has to be filled, and
 * what rests needs no timer.
 *
 *     now ├──────── burst ────────┤
 *         ├── taken ──┤ empty_ns             may take: the point is within the burst
 *         ├────────── taken ──────┼── empty_ns     wait until it is
 *
 * What is larger than a burst goes through, too, when the bucket is not empty, and is paid for afterwards: the average
 * is kept, and nothing waits for ever.
 *
 * Invariants: (1) over any time, no more goes through than rate × time + burst + one operation. (2) nothing is taken
 * from one bucket when the other one refuses.
 *
 * Trust: rates are the user's, any number; what is asked for is a guest's or a peer's, and bounded by whoever asks.
 */
#include "base/rate.h"

#include "base/clock.h"

#include <assert.h>

/* How long `amount` takes at `rate`; long enough means for ever. */
static uint64_t duration_ns(uint64_t amount, uint64_t rate)
{
    uint64_t whole_ns = 0, seconds = amount / rate;
    if (__builtin_mul_overflow(seconds, CLOCK_NS_PER_S, &whole_ns))
        return UINT64_MAX;
    /* What is left is less than the rate, so only one above 18 G a second can be too large for the product. */
    uint64_t left = amount % rate, part_ns = 0;
    if (__builtin_mul_overflow(left, CLOCK_NS_PER_S, &part_ns))
        part_ns = left / (rate / CLOCK_NS_PER_S);
    else
        part_ns /= rate;
    return __builtin_add_overflow(whole_ns, part_ns, &whole_ns) ? UINT64_MAX : whole_ns;
}

static uint64_t later(uint64_t time_ns, uint64_t duration)
{
    uint64_t sum_ns = 0;
    return __builtin_add_overflow(time_ns, duration, &sum_ns) ? UINT64_MAX : sum_ns;
}

static struct rate_bucket make_bucket(uint64_t rate, uint64_t burst)
{
    struct rate_bucket bucket = {.rate = rate};
    if (rate != 0)
        bucket.burst_ns = burst != 0 ? duration_ns(burst, rate) : CLOCK_NS_PER_S / 10;
    if (bucket.burst_ns == 0)
        bucket.burst_ns = 1; /* or nothing would ever go through */
    return bucket;
}

void rate_init(struct rate *rate, const struct rate_limits *limits)
{
    *rate = (struct rate){
        .bytes = make_bucket(limits->bytes_per_second, limits->burst_bytes),
        .operations = make_bucket(limits->operations_per_second, limits->burst_operations),
    };
}

bool rate_has_limits(const struct rate *rate)
{
    return rate->bytes.rate != 0 || rate->operations.rate != 0;
}

/* When something can be taken again: CLOCK_NEVER for at once. */
static uint64_t when_open_ns(const struct rate_bucket *bucket, uint64_t amount, uint64_t now_ns)
{
    if (bucket->rate == 0 || amount == 0 || bucket->empty_ns < later(now_ns, bucket->burst_ns))
        return CLOCK_NEVER;
    return bucket->empty_ns - bucket->burst_ns + 1;
}

static void take(struct rate_bucket *bucket, uint64_t amount, uint64_t now_ns)
{
    if (bucket->rate == 0)
        return;
    uint64_t from_ns = bucket->empty_ns > now_ns ? bucket->empty_ns : now_ns;
    bucket->empty_ns = later(from_ns, duration_ns(amount, bucket->rate));
}

/* The same for both. */
static uint64_t when_both_open_ns(const struct rate *rate, uint64_t bytes, uint64_t operations, uint64_t now_ns)
{
    uint64_t bytes_ns = when_open_ns(&rate->bytes, bytes, now_ns);
    uint64_t operations_ns = when_open_ns(&rate->operations, operations, now_ns);
    if (bytes_ns == CLOCK_NEVER || operations_ns == CLOCK_NEVER)
        return bytes_ns == CLOCK_NEVER ? operations_ns : bytes_ns;
    return bytes_ns > operations_ns ? bytes_ns : operations_ns;
}

uint64_t rate_ask(const struct rate *rate, uint64_t now_ns)
{
    return when_both_open_ns(rate, 1, 1, now_ns);
}

uint64_t rate_take(struct rate *rate, uint64_t bytes, uint64_t operations, uint64_t now_ns)
{
    uint64_t when_ns = when_both_open_ns(rate, bytes, operations, now_ns);
    if (when_ns != CLOCK_NEVER)
        return when_ns;
    take(&rate->bytes, bytes, now_ns);
    take(&rate->operations, operations, now_ns);
    return CLOCK_NEVER;
}
