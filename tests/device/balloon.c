// SPDX-License-Identifier: Apache-2.0
/* The balloon against a driver: memory really goes back to the host, only the guest's own, and in bounded turns. */
#include "test.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "device/balloon/balloon.h"
#include "hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER VIRTIO_DRIVER_BUFFERS
#define PAGE UINT64_C(4096)
#define MIB (UINT64_C(1) << 20)
#define STATISTICS (UINT64_C(1) << 1)
#define REPORTING (UINT64_C(1) << 5)

enum { inflate, deflate, statistics, hints, reports };
enum { ram_mib = 64 };
enum { target_offset = 0x100, actual_offset = 0x104 };

static struct virtio_driver driver;
static struct balloon_counters counters;
static uint32_t head, written;

static void begin(uint32_t stats_interval_ms, uint64_t features, unsigned queues)
{
    struct virtio_device *device = NULL;
    virtio_driver_init(&driver, ram_mib * MIB);
    struct balloon_options options = {.memory_bytes = ram_mib * MIB, .stats_interval_ms = stats_interval_ms};
    if (balloon_new(&options, &device) < 0)
        abort();
    virtio_driver_attach(&driver, device);
    if (!virtio_driver_restart(&driver, features, queues, 64)) /* which touches the rings */
        abort();
}

static void end(void)
{
    virtio_driver_release(&driver);
}

/* How much of the guest's RAM the host holds. */
static uint64_t held_bytes(void)
{
    struct stat status;
    if (fstat(memory_region(driver.memory, 0)->fd, &status) < 0)
        abort();
    return (uint64_t)status.st_blocks * 512;
}

static void touch(uint64_t address, uint64_t length)
{
    memset(memory_span(driver.memory, address, length), 0xaa, length);
}

static size_t count_touched(uint64_t address, uint64_t length)
{
    size_t count = 0;
    const uint8_t *bytes = memory_span(driver.memory, address, length);
    for (size_t i = 0; i < length; i++)
        count += bytes[i] == 0xaa;
    return count;
}

static void send_pages(unsigned queue, const uint32_t *pages, size_t count)
{
    virtio_driver_put(&driver, BUFFER, pages, count * sizeof(pages[0]));
    virtio_driver_send(&driver, queue, BUFFER, (uint32_t)(count * sizeof(pages[0])), 0);
    balloon_counters(driver.device, &counters);
}

/* ---- what it is ---- */

TEST(it_says_what_it_is)
{
    begin(0, 0, 3);
    CHECK_INT(virtio_driver_read(&driver, 0x008), 5);
    CHECK_INT(virtio_device_features(driver.device) & 0xffffff, 1 << 2 | 1 << 5);
    for (uint32_t queue = 0; queue < 6; queue++) {
        virtio_driver_write(&driver, 0x030, queue);
        CHECK_INT(virtio_driver_read(&driver, 0x034), queue < 5 ? 64 : 0);
    }
    end();
    begin(1000, 0, 3);
    CHECK_INT(virtio_device_features(driver.device) & 0xffffff, 1 << 1 | 1 << 2 | 1 << 5);
    end();
}

/* ---- inflating and deflating ---- */

TEST(pages_go_back_to_the_host)
{
    begin(0, 0, 3);
    uint32_t pages[1024];
    for (uint32_t i = 0; i < 1024; i++)
        pages[i] = 4096 + i;
    touch(BUFFER, PAGE);
    touch(16 * MIB, 8 * MIB);
    uint64_t before = held_bytes();
    send_pages(inflate, pages, 1024);
    CHECK_INT(before - held_bytes(), 4 * MIB);
    CHECK_INT(count_touched(20 * MIB, 4 * MIB), 4 * MIB); /* the other half stays */
    CHECK(virtio_driver_take(&driver, inflate, &head, &written));
    CHECK_INT(written, 0);
    CHECK(virtio_driver_interrupts(&driver) > 0);
    CHECK_INT(counters.inflated_pages, 1024);
    CHECK_INT(counters.ignored + counters.failed, 0);
    /* They come back by being touched. */
    send_pages(deflate, pages, 1024);
    CHECK_INT(counters.deflated_pages, 1024);
    CHECK_INT(count_touched(16 * MIB, 4 * MIB), 0);
    touch(16 * MIB, 4 * MIB);
    CHECK_INT(held_bytes(), before);
    end();
}

TEST(pages_in_any_order)
{
    /* falling, rising, one left out, both at once, one twice, one left out, alone, the first and the last of RAM */
    static const uint32_t pages[] = {5009, 5008, 5007, 5020, 5021, 5022, 5024, 5031, 5030, 5032,
                                     5029, 5031, 5027, 5042, 5040, 5051, 5050, 6000, 0,    16383};
    begin(0, 0, 3);
    touch(BUFFER, PAGE);
    touch(0, PAGE);
    touch(5000 * PAGE, 100 * PAGE);
    touch(5999 * PAGE, 3 * PAGE);
    touch(16382 * PAGE, 2 * PAGE);
    uint64_t before = held_bytes();
    send_pages(inflate, pages, array_length(pages));
    CHECK_INT(before - held_bytes(), 19 * PAGE);
    CHECK_INT(counters.inflated_pages, 20);
    for (uint32_t page = 5000; page < 5100; page++) {
        bool is_gone = false;
        for (size_t i = 0; i < array_length(pages); i++)
            is_gone = is_gone || pages[i] == page;
        CHECK_INT(count_touched(page * PAGE, PAGE), is_gone ? 0 : PAGE);
    }
    CHECK_INT(count_touched(5999 * PAGE, PAGE) + count_touched(6001 * PAGE, PAGE), 2 * PAGE);
    CHECK_INT(count_touched(16382 * PAGE, PAGE), PAGE);
    end();
}

TEST(wrong_pages_are_ignored_and_counted)
{
    static const uint32_t pages[] = {5000,
                                     16384,                              /* the first behind RAM */
                                     (uint32_t)(MEMORY_GAP_START >> 12), /* where devices are */
                                     0xfebff,
                                     1 << 20,
                                     UINT32_MAX,
                                     5001};
    begin(0, 0, 3);
    touch(5000 * PAGE, 3 * PAGE);
    send_pages(inflate, pages, array_length(pages));
    CHECK_INT(counters.ignored, 5);
    CHECK_INT(counters.inflated_pages, 2);
    CHECK_INT(count_touched(5000 * PAGE, 3 * PAGE), PAGE);
    send_pages(deflate, pages, array_length(pages));
    CHECK_INT(counters.ignored, 10);
    CHECK_INT(counters.deflated_pages, 2);
    CHECK(!virtio_driver_needs_reset(&driver));
    end();
}

TEST(an_array_in_odd_pieces)
{
    static const uint32_t pages[] = {5000, 5001, 5002};
    begin(0, 0, 3);
    touch(5000 * PAGE, 4 * PAGE);
    virtio_driver_put(&driver, BUFFER, pages, sizeof(pages));
    virtio_driver_describe(&driver, inflate, 0, BUFFER, 3, VIRTIO_DRIVER_NEXT, 1);
    virtio_driver_describe(&driver, inflate, 1, BUFFER + 3, 6, VIRTIO_DRIVER_NEXT, 2);
    virtio_driver_describe(&driver, inflate, 2, BUFFER + 9, 4, VIRTIO_DRIVER_NEXT, 3);      /* one byte too many */
    virtio_driver_describe(&driver, inflate, 3, 5003 * PAGE, 4096, VIRTIO_DRIVER_WRITE, 0); /* means nothing here */
    virtio_driver_offer(&driver, inflate, 0);
    virtio_driver_kick(&driver, inflate);
    balloon_counters(driver.device, &counters);
    CHECK_INT(counters.inflated_pages, 3);
    CHECK_INT(counters.ignored, 1);
    CHECK_INT(count_touched(5000 * PAGE, 4 * PAGE), PAGE);
    end();
}

TEST(a_request_has_a_limit_and_so_has_a_turn)
{
    static uint32_t pages[LIMIT_BALLOON_PAGES + 1];
    begin(0, 0, 3);
    for (uint32_t i = 0; i <= LIMIT_BALLOON_PAGES; i++)
        pages[i] = 5000 + i;
    touch(5000 * PAGE, (LIMIT_BALLOON_PAGES + 1) * PAGE);
    virtio_driver_put(&driver, BUFFER, pages, sizeof(pages));
    for (uint16_t i = 0; i < 64; i++) {
        virtio_driver_describe(&driver, inflate, i, BUFFER, sizeof(pages), 0, 0);
        virtio_driver_offer(&driver, inflate, i);
    }
    virtio_driver_write(&driver, MMIO_QUEUE_NOTIFY, inflate);
    for (unsigned turn = 1; turn <= 64; turn++) {
        virtio_device_turn(driver.device);
        balloon_counters(driver.device, &counters);
        CHECK_INT(counters.inflated_pages, turn * LIMIT_BALLOON_PAGES);
        CHECK_INT(counters.ignored, turn);
        CHECK(virtio_driver_take(&driver, inflate, &head, &written));
        CHECK(!virtio_driver_take(&driver, inflate, &head, &written));
    }
    CHECK_INT(count_touched(5000 * PAGE, (LIMIT_BALLOON_PAGES + 1) * PAGE), PAGE);
    end();
}

TEST(a_guest_may_discard_its_own_rings)
{
    static const uint32_t pages[] = {0x10, 0x14, 0x18, 0x100};
    begin(0, 0, 3);
    send_pages(inflate, pages, array_length(pages));
    virtio_driver_kick(&driver, inflate); /* its available index is 0 now: behind what was taken */
    CHECK(virtio_driver_needs_reset(&driver));
    CHECK(virtio_driver_restart(&driver, 0, 3, 64));
    end();
}

TEST(a_private_view_of_a_file_keeps_the_file)
{
    static const uint32_t pages[] = {4999, 5000, 5001, 5002};
    begin(0, 0, 3);
    uint8_t bytes[3 * PAGE];
    memset(bytes, 0xff, sizeof(bytes));
    const char *path = test_file("kernel", bytes, sizeof(bytes));
    auto_close int fd = open(path, O_RDWR);
    void *place = memory_span(driver.memory, 5000 * PAGE, 3 * PAGE);
    CHECK(mmap(place, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0) == place);
    touch(4999 * PAGE, 4 * PAGE);
    send_pages(inflate, pages, array_length(pages));
    CHECK_INT(counters.failed, 0);
    CHECK_INT(count_touched(4999 * PAGE, 4 * PAGE), 0); /* what the guest wrote is gone, */
    uint8_t now[3 * PAGE];
    CHECK_INT(pread(fd, now, sizeof(now), 0), sizeof(now)); /* and the file is what it was */
    CHECK(memcmp(now, bytes, sizeof(now)) == 0);
    touch(5000 * PAGE, 3 * PAGE);
    CHECK(pread(fd, now, sizeof(now), 0) == sizeof(now) && memcmp(now, bytes, sizeof(now)) == 0);
    end();
}

/* ---- reporting ---- */

static void report(unsigned queue, uint64_t address, uint64_t length)
{
    virtio_driver_send(&driver, queue, address, (uint32_t)length, VIRTIO_DRIVER_WRITE);
    balloon_counters(driver.device, &counters);
}

TEST(reported_blocks_go_back_to_the_host)
{
    begin(0, REPORTING, 7);
    touch(16 * MIB, 32 * MIB);
    uint64_t before = held_bytes();
    virtio_driver_describe(&driver, statistics, 0, 16 * MIB, 4 * MIB, VIRTIO_DRIVER_WRITE | VIRTIO_DRIVER_NEXT, 1);
    virtio_driver_describe(&driver, statistics, 1, 24 * MIB, 2 * MIB, VIRTIO_DRIVER_WRITE, 0);
    virtio_driver_offer(&driver, statistics, 0);
    virtio_driver_kick(&driver, statistics);
    balloon_counters(driver.device, &counters);
    CHECK_INT(counters.reported_bytes, 6 * MIB);
    CHECK_INT(before - held_bytes(), 6 * MIB);
    CHECK_INT(count_touched(16 * MIB, 4 * MIB) + count_touched(24 * MIB, 2 * MIB), 0);
    CHECK_INT(count_touched(20 * MIB, 4 * MIB), 4 * MIB);
    CHECK(virtio_driver_take(&driver, statistics, &head, &written));
    end();
}

TEST(reports_come_where_linux_or_the_standard_has_them)
{
    static const struct {
        uint64_t features;
        unsigned queue;
        bool is_served;
    } cases[] = {
        {REPORTING, 2, true},
        {REPORTING, 4, true},
        {REPORTING | STATISTICS, 3, true},
        {REPORTING | STATISTICS, 4, true},
        {REPORTING | STATISTICS, 2, false}, /* a message of statistics, then */
        {STATISTICS, 3, false},
        {STATISTICS, 4, false},
        {0, 2, false},
        {0, 4, false},
    };
    for (size_t i = 0; i < array_length(cases); i++) {
        begin(1000, cases[i].features, 0x1f);
        touch(16 * MIB, MIB);
        report(cases[i].queue, 16 * MIB, MIB);
        CHECK_INT(counters.reported_bytes, cases[i].is_served ? MIB : 0);
        CHECK_INT(count_touched(16 * MIB, MIB), cases[i].is_served ? 0 : MIB);
        CHECK_INT(virtio_driver_take(&driver, cases[i].queue, &head, &written), cases[i].is_served);
        end();
    }
}

TEST(reports_of_pieces_of_pages_are_ignored)
{
    begin(0, REPORTING, 7);
    touch(16 * MIB, MIB);
    report(statistics, 16 * MIB + 1, PAGE);
    report(statistics, 16 * MIB, PAGE - 1);
    report(statistics, 16 * MIB + 512, 2 * PAGE - 512);
    report(statistics, 16 * MIB, 100);
    CHECK_INT(counters.ignored, 4);
    CHECK_INT(counters.reported_bytes, 0);
    CHECK_INT(count_touched(16 * MIB, MIB), MIB);
    virtio_driver_send(&driver, statistics, 16 * MIB, PAGE, 0); /* readable: nothing is reported */
    CHECK_INT(count_touched(16 * MIB, MIB), MIB);
    CHECK(!virtio_driver_needs_reset(&driver));
    end();
}

TEST(a_report_has_a_limit)
{
    begin(0, REPORTING, 7);
    for (uint16_t i = 0; i < 5; i++) /* five times all of RAM is more than a request may have */
        virtio_driver_describe(&driver, statistics, i, 16 * MIB, (uint32_t)((ram_mib - 16) * MIB),
                               VIRTIO_DRIVER_WRITE | VIRTIO_DRIVER_NEXT, (uint16_t)(i + 1));
    virtio_driver_describe(&driver, statistics, 5, 16 * MIB, 32 << 20, VIRTIO_DRIVER_WRITE, 0);
    virtio_driver_offer(&driver, statistics, 0);
    virtio_driver_kick(&driver, statistics);
    balloon_counters(driver.device, &counters);
    CHECK_INT(counters.reported_bytes, 5 * (ram_mib - 16) * MIB);
    CHECK_INT(counters.ignored, 1);
    end();
}

/* ---- statistics ---- */

struct __attribute__((packed)) entry {
    uint16_t tag;
    uint64_t value;
};

static void send_stats(const struct entry *entries, size_t bytes)
{
    virtio_driver_put(&driver, BUFFER, entries, bytes);
    virtio_driver_send(&driver, statistics, BUFFER, (uint32_t)bytes, 0);
}

TEST(statistics_are_read)
{
    static const struct entry entries[] = {
        {5, 1 << 20}, {4, 1 << 10}, {999, 1}, {16, 1}, {UINT16_MAX, 1}, {4, UINT64_MAX}, {15, 15}, {0, 77},
    };
    struct balloon_stats stats;
    begin(1000, STATISTICS, 7);
    balloon_stats(driver.device, &stats);
    CHECK(stats.valid == 0 && stats.time_ns == 0);
    send_stats(entries, sizeof(entries) - 1); /* the last one is cut */
    balloon_stats(driver.device, &stats);
    CHECK_INT(stats.valid, 1 << 4 | 1 << 5 | 1 << 15);
    CHECK_INT(stats.values[BALLOON_TOTAL], 1 << 20);
    CHECK_INT(stats.values[BALLOON_FREE], UINT64_MAX);
    CHECK_INT(stats.values[BALLOON_RECLAIMED_DIRECTLY], 15);
    CHECK(stats.time_ns != 0 && stats.time_ns <= clock_now_ns());
    CHECK(!virtio_driver_take(&driver, statistics, &head, &written)); /* the buffer stays with the device */
    CHECK(virtio_driver_restart(&driver, STATISTICS, 7, 64));
    balloon_stats(driver.device, &stats);
    CHECK_INT(stats.valid, 0);
    end();
}

TEST(a_buffer_for_statistics_comes_again_after_a_pause)
{
    struct entry entry = {4, 1};
    struct balloon_stats stats;
    begin(1000, STATISTICS, 7);
    send_stats(&entry, sizeof(entry));
    entry.value = 2;
    virtio_driver_put(&driver, BUFFER, &entry, sizeof(entry));
    struct queue_layout layout = {.descriptors = VIRTIO_DRIVER_DESCRIPTORS(statistics),
                                  .available = VIRTIO_DRIVER_AVAILABLE(statistics),
                                  .used = VIRTIO_DRIVER_USED(statistics),
                                  .entries = 64};
    layout.next_available = virtio_device_pause_queue(driver.device, statistics);
    CHECK_INT(layout.next_available, 0); /* it was held, not used */
    CHECK_INT(virtio_device_start_queue(driver.device, statistics, &layout), 0);
    virtio_driver_turn(&driver);
    balloon_stats(driver.device, &stats);
    CHECK_INT(stats.values[BALLOON_FREE], 2);
    end();
}

TEST(statistics_are_as_many_as_we_read)
{
    static struct entry entries[LIMIT_BALLOON_STATISTICS + 1];
    struct balloon_stats stats;
    begin(1000, STATISTICS, 7);
    for (size_t i = 0; i < array_length(entries); i++)
        entries[i] = (struct entry){.tag = 1, .value = i};
    send_stats(entries, sizeof(entries));
    balloon_stats(driver.device, &stats);
    CHECK_INT(stats.values[BALLOON_SWAPPED_OUT], LIMIT_BALLOON_STATISTICS - 1);
    virtio_driver_restart(&driver, STATISTICS, 7, 64);
    virtio_driver_send(&driver, statistics, BUFFER, 100, VIRTIO_DRIVER_WRITE); /* says nothing */
    balloon_stats(driver.device, &stats);
    CHECK_INT(stats.valid, 0);
    end();
}

TEST(statistics_are_asked_for_at_the_interval)
{
    struct entry entry = {4, 1};
    struct balloon_stats stats;
    enum { interval_ms = 20 };
    begin(interval_ms, STATISTICS, 7);
    virtio_driver_reset(&driver);
    CHECK_INT(virtio_device_launch(driver.device), 0);
    driver.is_launched = true;
    CHECK(virtio_driver_restart(&driver, STATISTICS, 7, 64));
    virtio_driver_interrupts(&driver);
    /* Two buffers, where one is right: the second waits until the first has been used. */
    uint64_t start_ns = clock_now_ns();
    for (uint16_t i = 0; i < 2; i++) {
        virtio_driver_put(&driver, BUFFER + 64 * (uint64_t)i, &entry, sizeof(entry));
        virtio_driver_describe(&driver, statistics, i, BUFFER + 64 * (uint64_t)i, sizeof(entry), 0, 0);
        virtio_driver_offer(&driver, statistics, i);
        virtio_driver_kick(&driver, statistics);
        entry.value++;
    }
    for (uint32_t round = 1; round <= 2; round++) {
        CHECK(virtio_driver_wait(&driver));
        CHECK(virtio_driver_take(&driver, statistics, &head, &written));
        CHECK_INT(head, round - 1);
        CHECK(!virtio_driver_take(&driver, statistics, &head, &written));
        CHECK(clock_now_ns() - start_ns >= round * interval_ms * CLOCK_NS_PER_MS);
    }
    balloon_stats(driver.device, &stats);
    CHECK_INT(stats.values[BALLOON_FREE], 2);
    /* The driver sends no more, and so nobody asks any more. */
    struct pollfd wanted = {.fd = driver.interrupt_fd, .events = POLLIN};
    CHECK_INT(poll(&wanted, 1, 3 * interval_ms), 0);
    /* It does again: its kick was not forgotten. */
    virtio_driver_send(&driver, statistics, BUFFER, sizeof(entry), 0);
    CHECK(virtio_driver_wait(&driver));
    end();
}

TEST(a_held_buffer_does_not_outlive_a_reset)
{
    static const struct entry entry = {4, 1};
    begin(1, STATISTICS, 7);
    send_stats(&entry, sizeof(entry));
    CHECK(virtio_driver_restart(&driver, STATISTICS, 7, 64));
    virtio_driver_interrupts(&driver);
    struct pollfd wanted = {.fd = driver.interrupt_fd, .events = POLLIN};
    CHECK_INT(poll(&wanted, 1, 5), 0); /* time for the timer, had it been left */
    virtio_driver_turn(&driver);
    CHECK_INT(virtio_driver_get_16(&driver, VIRTIO_DRIVER_USED(statistics) + 2), 0);
    CHECK_INT(virtio_driver_interrupts(&driver), 0);
    end();
}

/* ---- target and actual ---- */

TEST(the_target_is_announced)
{
    begin(0, 0, 3);
    virtio_driver_interrupts(&driver);
    uint32_t generation = virtio_driver_read(&driver, 0x0fc);
    CHECK_INT(balloon_set_target(driver.device, 32), 0);
    CHECK_INT(virtio_driver_read(&driver, target_offset), 32 * 256);
    CHECK(virtio_driver_interrupts(&driver) > 0);
    CHECK_INT(virtio_driver_read(&driver, 0x060) & 2, 2);
    CHECK(virtio_driver_read(&driver, 0x0fc) != generation);
    CHECK_INT(balloon_set_target(driver.device, ram_mib + 1), -EINVAL);
    CHECK_INT(balloon_set_target(driver.device, UINT32_MAX), -EINVAL);
    CHECK_INT(virtio_driver_read(&driver, target_offset), 32 * 256);
    CHECK_INT(balloon_set_target(driver.device, ram_mib), 0);
    virtio_driver_write(&driver, target_offset, 5); /* not the driver's to write */
    CHECK_INT(virtio_driver_read(&driver, target_offset), ram_mib * 256);
    end();
}

TEST(the_actual_size_is_believed_within_reason)
{
    begin(0, 0, 3);
    CHECK_INT(balloon_actual_bytes(driver.device), 0);
    virtio_driver_write(&driver, actual_offset, 1000);
    CHECK_INT(balloon_actual_bytes(driver.device), 1000 * PAGE);
    virtio_driver_write(&driver, actual_offset, ram_mib * 256);
    CHECK_INT(balloon_actual_bytes(driver.device), ram_mib * MIB);
    virtio_driver_write(&driver, actual_offset, ram_mib * 256 + 1);
    virtio_driver_write(&driver, actual_offset, UINT32_MAX);
    CHECK_INT(balloon_actual_bytes(driver.device), ram_mib * MIB);
    balloon_counters(driver.device, &counters);
    CHECK_INT(counters.ignored, 2);
    end();
}

TEST(a_reset_empties_the_balloon_and_keeps_the_target)
{
    begin(0, 0, 3);
    CHECK_INT(balloon_set_target(driver.device, 16), 0);
    virtio_driver_write(&driver, actual_offset, 4096);
    virtio_driver_interrupts(&driver);
    virtio_driver_reset(&driver);
    CHECK_INT(virtio_driver_interrupts(&driver), 0);
    CHECK_INT(balloon_actual_bytes(driver.device), 0);
    CHECK_INT(virtio_driver_read(&driver, actual_offset), 0);
    CHECK_INT(virtio_driver_read(&driver, target_offset), 16 * 256);
    CHECK_INT(balloon_set_target(driver.device, 8), 0); /* while nobody listens */
    CHECK_INT(virtio_driver_interrupts(&driver), 0);
    CHECK(virtio_driver_restart(&driver, 0, 3, 64));
    CHECK_INT(virtio_driver_read(&driver, target_offset), 8 * 256);
    end();
}

/* ---- hostile drivers ---- */

TEST(hostile_rings_and_registers)
{
    static const unsigned queues[] = {inflate, deflate, statistics, reports};
    begin(1000, STATISTICS | REPORTING, 0x1f);
    for (size_t i = 0; i < array_length(queues); i++) {
        const char *wrong = hostile_rings(&driver, STATISTICS | REPORTING, 0x1f, queues[i]);
        CHECK_TEXT(wrong != NULL ? wrong : "", "");
        wrong = hostile_registers(&driver, STATISTICS | REPORTING, 0x1f, queues[i]);
        CHECK_TEXT(wrong != NULL ? wrong : "", "");
    }
    CHECK(virtio_driver_restart(&driver, REPORTING, 0x1f, 64)); /* and it still works */
    touch(16 * MIB, MIB);
    report(reports, 16 * MIB, MIB);
    CHECK_INT(counters.reported_bytes, MIB);
    end();
}

TEST(inflating_from_a_ring_that_changes_meanwhile)
{
    begin(0, 0, 3);
    virtio_driver_reset(&driver);
    for (uint64_t i = 0; i < 0x2000 / sizeof(uint32_t); i++) {
        static const uint32_t page = 0x200; /* read at odd places: 2, or beyond RAM */
        virtio_driver_put(&driver, BUFFER + i * sizeof(page), &page, sizeof(page));
    }
    const char *wrong = hostile_changes(&driver, 0, 3, inflate, 0);
    CHECK_TEXT(wrong != NULL ? wrong : "", "");
    CHECK_INT(balloon_set_target(driver.device, 1), 0); /* from this thread, while the device has its own */
    balloon_counters(driver.device, &counters);
    CHECK(counters.inflated_pages > 0);
    end();
}

TEST(reporting_from_a_ring_that_changes_meanwhile)
{
    begin(0, REPORTING, 7);
    virtio_driver_reset(&driver);
    const char *wrong = hostile_changes(&driver, REPORTING, 7, statistics, VIRTIO_DRIVER_WRITE);
    CHECK_TEXT(wrong != NULL ? wrong : "", "");
    end();
}

TEST(balloon_survives_no_memory)
{
    FOR_EACH_FAULT
    {
        struct balloon_options options = {.memory_bytes = MIB, .stats_interval_ms = 1000};
        struct virtio_device *device = NULL;
        CHECK_INT(balloon_new(&options, &device), fault_was_hit() ? -ENOMEM : 0);
        virtio_device_free(device);
    }
}
