// SPDX-License-Identifier: Apache-2.0
/* The split queue against a driver: correct use, then everything a hostile guest can do to a ring. */
#include "test.h"

#include "driver.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

static struct driver driver;
static struct queue *queue;
static struct queue_chain chain;

static void begin(uint16_t entries, bool has_event_index, bool has_indirect)
{
    driver_init(&driver, entries);
    struct queue_layout layout = driver_layout(&driver);
    layout.has_event_index = has_event_index;
    layout.has_indirect = has_indirect;
    if (queue_new(QUEUE_MOST_ENTRIES, &queue) < 0 || queue_start(queue, driver.memory, &layout) < 0)
        abort();
}

static void end(void)
{
    queue = queue_free(queue);
    driver_release(&driver);
}

static void describe(uint16_t index, uint64_t address, uint32_t length, uint16_t flags, uint16_t next)
{
    driver_describe(&driver, DRIVER_DESCRIPTORS, index, address, length, flags, next);
}

/* The chain from `head` is refused, and so is everything after it, until the queue is started again. */
static bool breaks(uint16_t head)
{
    driver_offer(&driver, head);
    if (queue_pop(queue, &chain) != -EPROTO || !queue_is_broken(queue) || queue_pop(queue, &chain) != -EPROTO)
        return false;
    uint16_t before = driver_get_16(&driver, DRIVER_USED + 2);
    queue_push(queue, 0, 0);
    bool is_silent = driver_get_16(&driver, DRIVER_USED + 2) == before && !queue_needs_call(queue);
    struct queue_layout layout = driver_layout(&driver);
    layout.has_indirect = true;
    layout.next_available = driver.next_available;
    return is_silent && queue_start(queue, driver.memory, &layout) == 0 && queue_pop(queue, &chain) == 0;
}

/* ---- correct use ---- */

TEST(a_chain_there_and_back)
{
    uint32_t head = 99, written = 99;
    begin(8, false, false);
    CHECK_INT(queue_pop(queue, &chain), 0);
    memory_write(driver.memory, DRIVER_BUFFERS, "hello", 5);
    describe(3, DRIVER_BUFFERS, 5, DRIVER_NEXT, 6);
    describe(6, DRIVER_BUFFERS + 4096, 512, DRIVER_WRITE | DRIVER_NEXT, 1);
    describe(1, DRIVER_BUFFERS + 8192, 1, DRIVER_WRITE, 0);
    driver_offer(&driver, 3);
    CHECK_INT(queue_pop(queue, &chain), 1);
    CHECK_INT(chain.head, 3);
    CHECK_INT(chain.readable_count, 1);
    CHECK_INT(chain.writable_count, 2);
    CHECK_INT(chain.readable_bytes, 5);
    CHECK_INT(chain.writable_bytes, 513);
    CHECK(memcmp(chain.readable[0].iov_base, "hello", 5) == 0);
    CHECK_INT(chain.writable[1].iov_len, 1);
    CHECK_INT(queue_pop(queue, &chain), 0);
    CHECK(!queue_needs_call(queue));
    queue_push(queue, 3, 513);
    CHECK(queue_needs_call(queue));
    CHECK(!queue_needs_call(queue));
    CHECK(driver_take(&driver, &head, &written));
    CHECK_INT(head, 3);
    CHECK_INT(written, 513);
    CHECK(!driver_take(&driver, &head, &written));
    end();
}

TEST(indices_wrap)
{
    uint32_t head = 0, written = 0;
    begin(4, false, false);
    for (uint16_t i = 0; i < 4; i++)
        describe(i, DRIVER_BUFFERS + 4096 * i, 16, DRIVER_WRITE, 0);
    for (uint32_t i = 0; i < 70000; i++) {
        driver_offer(&driver, i % 4);
        CHECK_INT(queue_pop(queue, &chain), 1);
        CHECK_INT(chain.head, i % 4);
        queue_push(queue, chain.head, i % 17);
        CHECK(driver_take(&driver, &head, &written));
        CHECK_INT(head, i % 4);
        CHECK_INT(written, i % 17);
    }
    end();
}

TEST(chains_come_back_in_any_order)
{
    uint32_t head = 0, written = 0;
    begin(8, false, false);
    for (uint16_t i = 0; i < 8; i++) {
        describe(i, DRIVER_BUFFERS, 1, 0, 0);
        driver_offer(&driver, i);
    }
    for (uint16_t i = 0; i < 8; i++)
        CHECK_INT(queue_pop(queue, &chain), 1);
    for (uint16_t i = 8; i-- > 0;)
        queue_push(queue, i, i);
    for (uint32_t i = 8; i-- > 0;) {
        CHECK(driver_take(&driver, &head, &written));
        CHECK_INT(head, i);
    }
    end();
}

TEST(an_unpopped_chain_comes_again)
{
    begin(4, false, false);
    describe(2, DRIVER_BUFFERS, 1, 0, 0);
    driver_offer(&driver, 2);
    CHECK_INT(queue_pop(queue, &chain), 1);
    queue_unpop(queue);
    CHECK_INT(queue_pop(queue, &chain), 1);
    CHECK_INT(chain.head, 2);
    end();
}

TEST(indirect_chains)
{
    begin(8, false, true);
    driver_describe(&driver, DRIVER_TABLE, 0, DRIVER_BUFFERS, 4, DRIVER_NEXT, 2);
    driver_describe(&driver, DRIVER_TABLE, 2, DRIVER_BUFFERS + 16, 8, DRIVER_WRITE, 0);
    describe(0, DRIVER_TABLE, 3 * 16, DRIVER_INDIRECT, 0);
    driver_offer(&driver, 0);
    CHECK_INT(queue_pop(queue, &chain), 1);
    CHECK_INT(chain.readable_bytes, 4);
    CHECK_INT(chain.writable_bytes, 8);
    /* behind direct descriptors */
    describe(1, DRIVER_BUFFERS, 2, DRIVER_NEXT, 0);
    driver_offer(&driver, 1);
    CHECK_INT(queue_pop(queue, &chain), 1);
    CHECK_INT(chain.readable_count, 2);
    end();
}

TEST(a_chain_as_long_as_the_queue)
{
    begin(8, false, true);
    for (uint16_t i = 0; i < 8; i++)
        describe(i, DRIVER_BUFFERS, 1, i < 7 ? DRIVER_NEXT : 0, (uint16_t)(i + 1));
    driver_offer(&driver, 0);
    CHECK_INT(queue_pop(queue, &chain), 1);
    CHECK_INT(chain.readable_count, 8);
    for (uint16_t i = 0; i < 8; i++)
        driver_describe(&driver, DRIVER_TABLE, i, DRIVER_BUFFERS, 1, i < 7 ? DRIVER_NEXT : 0, (uint16_t)(i + 1));
    describe(0, DRIVER_TABLE, 8 * 16, DRIVER_INDIRECT, 0);
    driver_offer(&driver, 0);
    CHECK_INT(queue_pop(queue, &chain), 1);
    CHECK_INT(chain.readable_count, 8);
    end();
}

/* ---- suppression ---- */

TEST(calls_are_suppressed_by_the_flag)
{
    begin(4, false, false);
    describe(0, DRIVER_BUFFERS, 1, 0, 0);
    driver_put_16(&driver, DRIVER_AVAILABLE, 1);
    driver_offer(&driver, 0);
    CHECK_INT(queue_pop(queue, &chain), 1);
    queue_push(queue, 0, 0);
    CHECK(!queue_needs_call(queue));
    driver_put_16(&driver, DRIVER_AVAILABLE, 0);
    driver_offer(&driver, 0);
    CHECK_INT(queue_pop(queue, &chain), 1);
    queue_push(queue, 0, 0);
    CHECK(queue_needs_call(queue));
    end();
}

TEST(calls_follow_the_event_index)
{
    begin(4, true, false);
    describe(0, DRIVER_BUFFERS, 1, 0, 0);
    uint64_t event = DRIVER_AVAILABLE + 4 + 2 * 4;
    for (unsigned round = 0; round < 70000; round++) {
        uint16_t index = (uint16_t)round;
        driver_put_16(&driver, event, (uint16_t)(index + (round % 3 == 0 ? 0 : 1)));
        driver_offer(&driver, 0);
        CHECK_INT(queue_pop(queue, &chain), 1);
        queue_push(queue, 0, 0);
        CHECK_INT(queue_needs_call(queue), round % 3 == 0);
    }
    end();
}

TEST(kicks_are_asked_for_without_losing_one)
{
    for (int has_event_index = 0; has_event_index < 2; has_event_index++) {
        begin(4, has_event_index, false);
        describe(0, DRIVER_BUFFERS, 1, 0, 0);
        queue_disable_kicks(queue);
        CHECK_INT(driver_get_16(&driver, DRIVER_USED), has_event_index ? 0 : 1);
        CHECK(!queue_enable_kicks(queue));
        CHECK_INT(driver_get_16(&driver, DRIVER_USED), 0);
        driver_offer(&driver, 0);
        CHECK(queue_enable_kicks(queue)); /* it came before the wish: its kick may not come */
        CHECK_INT(queue_pop(queue, &chain), 1);
        CHECK(!queue_enable_kicks(queue));
        if (has_event_index)
            CHECK_INT(driver_get_16(&driver, DRIVER_USED + 4 + 8 * 4), 1);
        end();
    }
}

/* ---- a wrong layout ---- */

static int try_layout(uint64_t descriptors, uint64_t available, uint64_t used, uint16_t entries)
{
    struct queue_layout layout = {.descriptors = descriptors, .available = available, .used = used, .entries = entries};
    int result = queue_start(queue, driver.memory, &layout);
    if (result < 0 && (queue_is_started(queue) || queue_pop(queue, &chain) != 0))
        test_fail(__FILE__, __LINE__, "a queue that did not start is served");
    return result;
}

TEST(wrong_layouts_are_refused)
{
    const uint64_t end_of_ram = 2 << 20;
    begin(8, false, false);
    CHECK_INT(try_layout(0x10000, 0x20000, 0x30000, 0), -EINVAL);
    CHECK_INT(try_layout(0x10000, 0x20000, 0x30000, 3), -EINVAL);
    CHECK_INT(try_layout(0x10000, 0x20000, 0x30000, 2048), -EINVAL);
    CHECK_INT(try_layout(0x10000, 0x20000, 0x30000, 32768), -EINVAL);
    CHECK_INT(try_layout(0x10008, 0x20000, 0x30000, 8), -EINVAL);
    CHECK_INT(try_layout(0x10000, 0x20001, 0x30000, 8), -EINVAL);
    CHECK_INT(try_layout(0x10000, 0x20000, 0x30002, 8), -EINVAL);
    CHECK_INT(try_layout(end_of_ram - 64, 0x20000, 0x30000, 8), -EFAULT);
    CHECK_INT(try_layout(0x10000, end_of_ram - 16, 0x30000, 8), -EFAULT);
    CHECK_INT(try_layout(0x10000, 0x20000, end_of_ram - 64, 8), -EFAULT);
    CHECK_INT(try_layout(UINT64_MAX - 15, 0x20000, 0x30000, 8), -EFAULT);
    CHECK_INT(try_layout(MEMORY_GAP_START, 0x20000, 0x30000, 8), -EFAULT);
    CHECK_INT(try_layout(0x10000, 0x20000, 0x30000, 1024), 0);
    CHECK_INT(try_layout(0x10000, 0x10000, 0x10000, 8), 0); /* its own loss: overlapping rings are only memory */
    end();
}

TEST(a_stopped_queue_is_silent)
{
    begin(4, false, false);
    describe(0, DRIVER_BUFFERS, 1, 0, 0);
    driver_offer(&driver, 0);
    CHECK_INT(queue_pop(queue, &chain), 1);
    queue_stop(queue);
    queue_push(queue, 0, 7);
    CHECK_INT(driver_get_16(&driver, DRIVER_USED + 2), 0);
    CHECK_INT(queue_pop(queue, &chain), 0);
    CHECK(!queue_needs_call(queue) && !queue_enable_kicks(queue));
    queue_disable_kicks(queue);
    queue_unpop(queue);
    end();
}

/* ---- hostile rings ---- */

TEST(broken_chains)
{
    const uint64_t end_of_ram = 2 << 20;
    begin(8, false, true);
    describe(0, DRIVER_BUFFERS, 1, DRIVER_NEXT, 0); /* points at itself */
    CHECK(breaks(0));
    describe(0, DRIVER_BUFFERS, 1, DRIVER_NEXT, 1); /* a loop of two */
    describe(1, DRIVER_BUFFERS, 1, DRIVER_NEXT, 0);
    CHECK(breaks(0));
    describe(0, DRIVER_BUFFERS, 1, DRIVER_NEXT, 8); /* next outside the table */
    CHECK(breaks(0));
    CHECK(breaks(8));                     /* a head outside the table */
    CHECK(breaks(65535));                 /* far outside */
    describe(0, DRIVER_BUFFERS, 0, 0, 0); /* nothing */
    CHECK(breaks(0));
    describe(0, end_of_ram, 1, 0, 0); /* outside RAM */
    CHECK(breaks(0));
    describe(0, end_of_ram - 1, 2, 0, 0); /* over its edge */
    CHECK(breaks(0));
    describe(0, UINT64_MAX, 1, 0, 0);
    CHECK(breaks(0));
    describe(0, UINT64_MAX - 1, 0x100, 0, 0); /* an address that wraps */
    CHECK(breaks(0));
    describe(0, 0, UINT32_MAX, 0, 0); /* longer than RAM */
    CHECK(breaks(0));
    describe(0, MEMORY_GAP_START, 16, 0, 0); /* in the device gap */
    CHECK(breaks(0));
    describe(0, DRIVER_BUFFERS, 1, DRIVER_WRITE | DRIVER_NEXT, 1); /* readable behind writable */
    describe(1, DRIVER_BUFFERS, 1, 0, 0);
    CHECK(breaks(0));
    end();
}

TEST(broken_indirect_tables)
{
    begin(8, false, true);
    describe(0, DRIVER_TABLE, 16, DRIVER_INDIRECT | DRIVER_NEXT, 1); /* indirect and next */
    driver_describe(&driver, DRIVER_TABLE, 0, DRIVER_BUFFERS, 1, 0, 0);
    CHECK(breaks(0));
    describe(0, DRIVER_TABLE, 17, DRIVER_INDIRECT, 0); /* not whole descriptors */
    CHECK(breaks(0));
    describe(0, DRIVER_TABLE, 0, DRIVER_INDIRECT, 0); /* empty */
    CHECK(breaks(0));
    describe(0, DRIVER_TABLE + 4, 16, DRIVER_INDIRECT, 0); /* unaligned */
    CHECK(breaks(0));
    describe(0, 2 << 20, 16, DRIVER_INDIRECT, 0); /* outside RAM */
    CHECK(breaks(0));
    describe(0, DRIVER_TABLE, 16 * 9, DRIVER_INDIRECT, 0); /* longer than the queue */
    CHECK(breaks(0));
    describe(0, DRIVER_TABLE, 0xfffffff0, DRIVER_INDIRECT, 0); /* as long as a length can say */
    CHECK(breaks(0));
    describe(0, DRIVER_TABLE, 16, DRIVER_INDIRECT, 0); /* indirect inside indirect */
    driver_describe(&driver, DRIVER_TABLE, 0, DRIVER_TABLE, 16, DRIVER_INDIRECT, 0);
    CHECK(breaks(0));
    driver_describe(&driver, DRIVER_TABLE, 0, DRIVER_BUFFERS, 1, DRIVER_NEXT, 0); /* a loop inside */
    CHECK(breaks(0));
    driver_describe(&driver, DRIVER_TABLE, 0, DRIVER_BUFFERS, 1, DRIVER_NEXT, 1); /* next outside the table */
    CHECK(breaks(0));
    end();
}

TEST(indirect_without_the_feature)
{
    begin(8, false, false);
    driver_describe(&driver, DRIVER_TABLE, 0, DRIVER_BUFFERS, 1, 0, 0);
    describe(0, DRIVER_TABLE, 16, DRIVER_INDIRECT, 0);
    CHECK(breaks(0));
    end();
}

TEST(an_index_that_jumps)
{
    begin(8, false, false);
    driver_set_available(&driver, 9);
    CHECK_INT(queue_pop(queue, &chain), -EPROTO);
    end();
    begin(8, false, false);
    driver_set_available(&driver, 65535); /* backwards */
    CHECK_INT(queue_pop(queue, &chain), -EPROTO);
    end();
}

TEST(more_in_flight_than_there_are_places)
{
    begin(4, false, false);
    describe(0, DRIVER_BUFFERS, 1, 0, 0);
    for (int i = 0; i < 4; i++) {
        driver_offer(&driver, 0); /* the same head again and again */
        CHECK_INT(queue_pop(queue, &chain), 1);
    }
    driver_offer(&driver, 0);
    CHECK_INT(queue_pop(queue, &chain), -EPROTO);
    end();
}

TEST(a_buffer_over_adjacent_regions_is_two_spans)
{
    struct driver other;
    driver_init(&other, 4);
    struct memory *joined = NULL;
    int fd = memory_region(other.memory, 0)->fd;
    CHECK_INT(memory_new_empty(&joined), 0);
    CHECK_INT(memory_add(joined, 0, 1 << 20, fd, 0), 0);
    CHECK_INT(memory_add(joined, 1 << 20, 4096, fd, 1 << 20), 0);
    struct queue_layout layout = driver_layout(&other);
    CHECK_INT(queue_new(4, &queue), 0);
    CHECK_INT(queue_start(queue, joined, &layout), 0);
    driver_describe(&other, DRIVER_DESCRIPTORS, 0, (1 << 20) - 10, 30, DRIVER_WRITE, 0);
    driver_offer(&other, 0);
    CHECK_INT(queue_pop(queue, &chain), 1);
    CHECK_INT(chain.writable_count, 2);
    CHECK_INT(chain.writable[0].iov_len, 10);
    CHECK_INT(chain.writable[1].iov_len, 20);
    CHECK_INT(chain.writable_bytes, 30);
    queue = queue_free(queue);
    memory_free(joined);
    driver_release(&other);
}

/* ---- a guest that changes everything while we look ---- */

static atomic_bool is_over;

static void *flip_bits(void *argument)
{
    uint8_t *ram = argument;
    unsigned random = 1;
    while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
        random = random * 1103515245 + 12345;
        /* The bytes that decide most: low bytes of addresses and lengths, flags, links, and heads. */
        static const uint8_t fields[] = {0, 1, 2, 8, 9, 12, 14, 14};
        size_t offset = (random >> 16) % 4 != 0
                            ? DRIVER_DESCRIPTORS + 16 * ((random >> 8) % 8) + fields[(random >> 12) % sizeof(fields)]
                            : DRIVER_AVAILABLE + 4 + 2 * ((random >> 8) % 8);
        unsigned value = (random >> 20) & (offset % 16 >= 12 || offset >= DRIVER_AVAILABLE ? 7 : 31);
        __atomic_store_n(ram + offset, (uint8_t)value, __ATOMIC_RELAXED);
    }
    return NULL;
}

TEST(nothing_that_changes_meanwhile_leads_outside)
{
    pthread_t thread;
    driver_init(&driver, 8);
    struct queue_layout layout = driver_layout(&driver);
    layout.has_indirect = true;
    uint8_t *ram = memory_span(driver.memory, 0, 2 << 20);
    CHECK_INT(queue_new(8, &queue), 0);
    unsigned popped = 0, broken = 0;
    bool is_outside = false;
    for (uint16_t i = 0; i < 8; i++)
        describe(i, DRIVER_BUFFERS, 16, 0, 0);
    CHECK_INT(pthread_create(&thread, NULL, flip_bits, ram), 0);
    /* Until both have happened often; the other thread may have to wait for a CPU. */
    for (unsigned round = 0; round < 50000000 && !is_outside && (popped < 20000 || broken < 20000); round++) {
        if (queue_is_broken(queue) || !queue_is_started(queue)) {
            layout.next_available = 0;
            driver_set_available(&driver, 8);
            if (queue_start(queue, driver.memory, &layout) < 0)
                break;
        }
        int result = queue_pop(queue, &chain);
        broken += result < 0;
        if (result == 0)
            queue_stop(queue); /* all eight were taken: begin again */
        if (result <= 0)
            continue;
        popped++;
        for (size_t i = 0; i < chain.readable_count + chain.writable_count; i++) {
            const uint8_t *start = chain.readable[i].iov_base;
            if (start < ram || chain.readable[i].iov_len > (size_t)(2 << 20) - (size_t)(start - ram))
                is_outside = true;
        }
        queue_push(queue, chain.head, 0);
    }
    atomic_store(&is_over, true);
    pthread_join(thread, NULL);
    printf("# %u chains taken, %u refused\n", popped, broken);
    CHECK(!is_outside);
    CHECK(popped >= 20000 && broken >= 20000);
    end();
}

TEST(queue_survives_no_memory)
{
    FOR_EACH_FAULT
    {
        queue = NULL;
        CHECK_INT(queue_new(64, &queue), fault_was_hit() ? -ENOMEM : 0);
        queue = queue_free(queue);
    }
}
