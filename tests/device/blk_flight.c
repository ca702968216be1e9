// SPDX-License-Identifier: Apache-2.0
/* The block device with requests in flight: many at once, out of order, failing, paused, reset, and flushed. */
#include "test.h"

#include "blk_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

static struct blk_driver front;
static uint32_t head, written;

#define FOR_EACH_WAY for (enum blk_driver_way way = BLK_DRIVER_BY_RING; way < BLK_DRIVER_WAYS; way++)

static void begin_with(const struct blk_driver_options *options, uint64_t features)
{
    blk_driver_begin(&front, options);
    if (!blk_driver_start(&front, features))
        abort();
}

static void end(void)
{
    blk_driver_end(&front);
}

static bool is_original(unsigned request, uint64_t sector, size_t length)
{
    const uint8_t *got = blk_driver_bytes(&front, request);
    for (size_t i = 0; i < length; i++)
        if (got[i] != fake_disk_byte(sector * 512 + i))
            return false;
    return true;
}

static uint16_t used_index(void)
{
    return virtio_driver_get_16(&front.driver, VIRTIO_DRIVER_USED(0) + 2);
}

/* ---- many ---- */

/* Offers reads of every request, takes them all, and looks at each: NULL or what was wrong. */
static const char *read_all(unsigned count, unsigned queues, uint64_t from)
{
    bool was_seen[BLK_DRIVER_REQUESTS] = {false};
    for (unsigned i = 0; i < count; i++)
        blk_driver_offer_in(&front, i % queues, i, BLK_DRIVER_READ, from + 3 * i, 4096);
    for (unsigned i = 0; i < queues; i++)
        virtio_driver_kick(&front.driver, i);
    for (unsigned i = 0; i < count; i++) {
        if (!blk_driver_finish(&front, &head, &written))
            return "a request did not end";
        if (head % 3 != 0 || head / 3 >= count || was_seen[head / 3] || written != 4097)
            return "a request ended twice, or wrong";
        was_seen[head / 3] = true;
        if (blk_driver_status(&front, head / 3) != BLK_DRIVER_OK || !is_original(head / 3, from + head, 4096))
            return "a request did not read what is there";
    }
    return NULL;
}

TEST(many_at_once)
{
    FOR_EACH_WAY
    {
        for (unsigned queues = 1; queues <= 4; queues += 3) {
            begin_with(&(struct blk_driver_options){.way = way, .is_launched = true, .blk = {.queue_count = queues}},
                       VIRTIO_F_EVENT_IDX | BLK_DRIVER_F_MQ * (queues > 1));
            front.disk->extent_bytes = 2048;
            for (unsigned round = 0; round < 50; round++) {
                const char *wrong = read_all(BLK_DRIVER_REQUESTS, queues, round);
                CHECK_TEXT(wrong != NULL ? wrong : "", "");
            }
            end();
        }
    }
}

TEST(workers_work_at_the_same_time)
{
    begin_with(&(struct blk_driver_options){.way = BLK_DRIVER_WITHOUT_RING, .is_launched = true}, 0);
    fake_disk_close_gate(front.disk);
    for (unsigned i = 0; i < 40; i++)
        blk_driver_offer(&front, i, BLK_DRIVER_READ, i, 512);
    virtio_driver_kick(&front.driver, 0);
    CHECK(fake_disk_await(front.disk, 16));
    CHECK_INT(used_index(), 0);
    fake_disk_open_gate(front.disk);
    for (unsigned i = 0; i < 40; i++)
        CHECK(blk_driver_finish(&front, &head, &written));
    CHECK_INT(front.disk->most_at_once, 16);
    end();
}

TEST(a_slow_one_does_not_hold_up_others)
{
    begin_with(&(struct blk_driver_options){.is_launched = true}, 0);
    fake_disk_close_gate(front.disk);
    front.disk->maps_nothing = true;
    blk_driver_send(&front, 0, BLK_DRIVER_READ, 0, 512);
    CHECK(fake_disk_await(front.disk, 1));
    front.disk->maps_nothing = false;
    CHECK_INT(blk_driver_do(&front, 1, BLK_DRIVER_READ, 1, 512), BLK_DRIVER_OK);
    CHECK_INT(blk_driver_do(&front, 2, BLK_DRIVER_FLUSH, 0, 0), BLK_DRIVER_OK); /* it covers what has ended */
    CHECK_INT(blk_driver_status(&front, 0), BLK_DRIVER_PENDING);
    fake_disk_open_gate(front.disk);
    CHECK(blk_driver_finish(&front, &head, &written));
    CHECK_INT(head, 0);
    CHECK_INT(blk_driver_status(&front, 0), BLK_DRIVER_OK);
    end();
}

/* ---- a pipe in the place of the file: reads that end when the test wants it ---- */

/* A FIFO's read cannot be given an offset, but io_uring takes it: 'slow' bytes for the ring. */
static int slow_pipe[2];

static void begin_slow(bool is_launched)
{
    if (pipe(slow_pipe) < 0)
        abort();
    blk_driver_begin(&front, &(struct blk_driver_options){.is_launched = is_launched});
    front.disk->map_fd = slow_pipe[0];
    if (!blk_driver_start(&front, 0))
        abort();
}

static void end_slow(void)
{
    end();
    close(slow_pipe[0]);
    close(slow_pipe[1]);
}

TEST(short_reads_go_on)
{
    static char text[512];
    begin_slow(true);
    memset(text, 'x', sizeof(text));
    blk_driver_send(&front, 0, BLK_DRIVER_READ, 0, 512);
    for (unsigned i = 0; i < 512; i += 64)
        CHECK_INT(write(slow_pipe[1], text + i, 64), 64);
    CHECK(blk_driver_finish(&front, &head, &written));
    CHECK_INT(written, 513);
    CHECK(memcmp(blk_driver_bytes(&front, 0), text, 512) == 0);
    end_slow();
}

/* Nothing is written to guest memory after a reset, whenever the disk gets to it. */
TEST(a_reset_cancels_the_ring)
{
    for (int is_launched = 0; is_launched < 2; is_launched++) {
        static char text[4096];
        begin_slow(is_launched);
        for (unsigned i = 0; i < 10; i++)
            blk_driver_offer(&front, i, BLK_DRIVER_READ, i, 512);
        virtio_driver_kick(&front.driver, 0);
        virtio_driver_reset(&front.driver); /* returns: they are cancelled */
        memset(text, 'x', sizeof(text));
        CHECK_INT(write(slow_pipe[1], text, sizeof(text)), sizeof(text));
        for (unsigned i = 0; i < 10; i++) {
            CHECK_INT(blk_driver_status(&front, i), BLK_DRIVER_PENDING);
            CHECK_INT(blk_driver_bytes(&front, i)[0], 0);
        }
        CHECK_INT(used_index(), 0);
        front.disk->map_fd = -1;
        CHECK(virtio_driver_restart(&front.driver, 0, 1, BLK_DRIVER_ENTRIES));
        CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_READ, 5, 512), BLK_DRIVER_OK);
        CHECK(is_original(0, 5, 512));
        end_slow();
    }
}

static void *open_gate_later(void *user)
{
    struct disk *disk = user;
    poll(NULL, 0, 50);
    fake_disk_open_gate(disk);
    return NULL;
}

/* What a worker has begun is waited for, what it has not is taken back; neither is pushed. */
TEST(a_reset_waits_for_the_workers)
{
    for (int is_launched = 0; is_launched < 2; is_launched++) {
        pthread_t thread;
        begin_with(&(struct blk_driver_options){.way = BLK_DRIVER_BY_WORKERS, .is_launched = is_launched}, 0);
        fake_disk_close_gate(front.disk);
        for (unsigned i = 0; i < 40; i++)
            blk_driver_offer(&front, i, BLK_DRIVER_READ, i, 512);
        virtio_driver_kick(&front.driver, 0);
        CHECK(fake_disk_await(front.disk, 16));
        CHECK_INT(pthread_create(&thread, NULL, open_gate_later, front.disk), 0);
        virtio_driver_reset(&front.driver);
        CHECK_INT(front.disk->reads, 16);
        CHECK_INT(front.disk->at_once, 0);
        CHECK_INT(used_index(), 0);
        pthread_join(thread, NULL);
        CHECK(virtio_driver_restart(&front.driver, 0, 1, BLK_DRIVER_ENTRIES));
        CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_READ, 5, 512), BLK_DRIVER_OK);
        end();
    }
}

/* The end of a device with all of it in flight. */
TEST(an_end_in_flight)
{
    FOR_EACH_WAY
    {
        begin_with(&(struct blk_driver_options){.way = way, .is_launched = true}, 0);
        for (unsigned i = 0; i < BLK_DRIVER_REQUESTS; i++)
            blk_driver_offer(&front, i, i % 3 == 0 ? BLK_DRIVER_WRITE : BLK_DRIVER_READ, i, 4096);
        virtio_driver_kick(&front.driver, 0);
        end();
    }
}

/* ---- pausing ---- */

/* All that was taken is pushed before the pause, so the queue goes on where it was. */
TEST(a_pause_drains_the_queue)
{
    FOR_EACH_WAY
    {
        pthread_t thread;
        begin_with(&(struct blk_driver_options){.way = way}, 0);
        struct queue_layout layout = {
            .descriptors = VIRTIO_DRIVER_DESCRIPTORS(0),
            .available = VIRTIO_DRIVER_AVAILABLE(0),
            .used = VIRTIO_DRIVER_USED(0),
            .entries = BLK_DRIVER_ENTRIES,
        };
        front.disk->extent_bytes = 512;
        fake_disk_close_gate(front.disk);
        for (unsigned i = 0; i < 30; i++)
            blk_driver_offer(&front, i, BLK_DRIVER_READ, i, 2048);
        virtio_driver_kick(&front.driver, 0);
        CHECK_INT(pthread_create(&thread, NULL, open_gate_later, front.disk), 0);
        CHECK_INT(virtio_device_pause_queue(front.driver.device, 0), 30);
        CHECK_INT(used_index(), 30);
        pthread_join(thread, NULL);
        for (unsigned i = 0; i < 30; i++) {
            CHECK(blk_driver_finish(&front, &head, &written));
            CHECK(blk_driver_status(&front, head / 3) == BLK_DRIVER_OK && is_original(head / 3, head / 3, 2048));
        }
        blk_driver_send(&front, 0, BLK_DRIVER_READ, 7, 512); /* for later */
        CHECK_INT(used_index(), 30);
        layout.next_available = 30;
        CHECK_INT(virtio_device_start_queue(front.driver.device, 0, &layout), 0);
        CHECK(blk_driver_finish(&front, &head, &written));
        CHECK(is_original(0, 7, 512));
        end();
    }
}

/* ---- discards that want the disk for themselves ---- */

static const struct disk_properties moving = {
    .alignment_bytes = 1, .best_bytes = 65536, .can_discard = true, .discard_moves_data = true};

TEST(exclusive_discards)
{
    FOR_EACH_WAY
    {
        begin_with(&(struct blk_driver_options){.way = way, .is_launched = true, .properties = moving}, 0);
        unsigned discards = 0;
        for (unsigned round = 0; round < 20; round++) {
            for (unsigned i = 0; i < BLK_DRIVER_REQUESTS; i++) {
                bool is_discard = i % 7 == 3;
                discards += is_discard;
                blk_driver_put_segment(&front, i, 0, 1024 + i, 1, 0);
                blk_driver_offer(&front, i, is_discard ? BLK_DRIVER_DISCARD : BLK_DRIVER_READ, is_discard ? 0 : i,
                                 is_discard ? 16 : 512);
            }
            virtio_driver_kick(&front.driver, 0);
            for (unsigned i = 0; i < BLK_DRIVER_REQUESTS; i++)
                CHECK(blk_driver_finish(&front, &head, &written) &&
                      blk_driver_status(&front, head / 3) == BLK_DRIVER_OK);
        }
        CHECK_INT(front.disk->discards, discards);
        CHECK_INT(front.disk->exclusive_faults, 0);
        end();
    }
}

/* One that waits is drained by a pause and forgotten by a reset. */
TEST(an_exclusive_discard_that_waits)
{
    for (int is_pause = 0; is_pause < 2; is_pause++) {
        pthread_t thread;
        begin_with(&(struct blk_driver_options){.way = BLK_DRIVER_BY_WORKERS, .properties = moving}, 0);
        fake_disk_close_gate(front.disk);
        blk_driver_offer(&front, 0, BLK_DRIVER_READ, 0, 512);
        blk_driver_put_segment(&front, 1, 0, 0, 8, 0);
        blk_driver_offer(&front, 1, BLK_DRIVER_DISCARD, 0, 16);
        blk_driver_offer(&front, 2, BLK_DRIVER_READ, 0, 512);
        virtio_driver_kick(&front.driver, 0);
        CHECK(fake_disk_await(front.disk, 1));
        CHECK_INT(pthread_create(&thread, NULL, open_gate_later, front.disk), 0);
        if (is_pause)
            CHECK_INT(virtio_device_pause_queue(front.driver.device, 0), 2); /* the third was not taken */
        else
            virtio_driver_reset(&front.driver);
        CHECK_INT(front.disk->discards, is_pause);
        CHECK_INT(front.disk->reads, 1);
        pthread_join(thread, NULL);
        if (!is_pause) {
            CHECK(virtio_driver_restart(&front.driver, 0, 1, BLK_DRIVER_ENTRIES));
            CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_READ, 5, 512), BLK_DRIVER_OK);
        }
        end();
    }
}

/* ---- failures of the disk ---- */

TEST(errors_of_the_disk)
{
    begin_with(&(struct blk_driver_options){.way = BLK_DRIVER_BY_WORKERS, .is_launched = true}, 0);
    front.disk->read_error = -EIO;
    front.disk->write_error = -ENOSPC;
    front.disk->discard_error = -EIO;
    blk_driver_send(&front, 0, BLK_DRIVER_READ, 0, 512);
    CHECK(blk_driver_finish(&front, &head, &written));
    CHECK_INT(written, 1);
    CHECK_INT(blk_driver_status(&front, 0), BLK_DRIVER_IO_ERROR);
    CHECK_INT(blk_driver_do(&front, 1, BLK_DRIVER_WRITE, 0, 512), BLK_DRIVER_IO_ERROR);
    CHECK_INT(blk_driver_erase(&front, BLK_DRIVER_DISCARD, 0, 1, 0), BLK_DRIVER_IO_ERROR);
    front.disk->read_error = front.disk->write_error = 0;
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_READ, 0, 512), BLK_DRIVER_OK);
    CHECK_INT(blk_driver_do(&front, 1, BLK_DRIVER_WRITE, 0, 512), BLK_DRIVER_OK);
    struct blk_stats stats;
    blk_read_stats(front.driver.device, &stats);
    CHECK_INT(stats.errors, 3);
    end();
}

/* From the ring: a file without rights, and one that is full. */
TEST(errors_of_the_file)
{
    begin_with(&(struct blk_driver_options){.is_launched = true}, 0);
    int full = open("/dev/full", O_RDWR | O_CLOEXEC);
    front.disk->map_fd = full;
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_WRITE, 0, 512), BLK_DRIVER_IO_ERROR);
    front.disk->map_fd = slow_pipe[0] = open("/dev/null", O_WRONLY | O_CLOEXEC);
    CHECK_INT(blk_driver_do(&front, 1, BLK_DRIVER_READ, 0, 512), BLK_DRIVER_IO_ERROR);
    front.disk->map_fd = -1;
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_WRITE, 0, 512), BLK_DRIVER_OK);
    end();
    close(full);
    close(slow_pipe[0]);
}

/* ---- flushes ---- */

TEST(a_failed_flush_can_be_tried_again)
{
    FOR_EACH_WAY
    {
        begin_with(&(struct blk_driver_options){.way = way, .is_launched = true}, BLK_DRIVER_F_FLUSH);
        CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_FLUSH, 0, 0), BLK_DRIVER_OK);
        front.disk->flush_error = -EIO;
        CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_FLUSH, 0, 0), BLK_DRIVER_IO_ERROR);
        front.disk->flush_error = 0; /* the disk itself knows whether something was lost: this one says no */
        CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_FLUSH, 0, 0), BLK_DRIVER_OK);
        end();
    }
}

/* What the host could not write is gone: no flush may claim that it is there, however often it is asked. */
TEST(a_sync_of_the_ring_that_failed_is_not_forgotten)
{
    enum { no_fd = 100000 };
    begin_with(&(struct blk_driver_options){.is_launched = true}, BLK_DRIVER_F_FLUSH);
    int fd = front.disk->fd;
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_FLUSH, 0, 0), BLK_DRIVER_OK);
    front.disk->fd = no_fd;
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_FLUSH, 0, 0), BLK_DRIVER_IO_ERROR);
    front.disk->fd = fd;
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_FLUSH, 0, 0), BLK_DRIVER_IO_ERROR);
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_READ, 0, 512), BLK_DRIVER_OK);
    CHECK(virtio_driver_restart(&front.driver, BLK_DRIVER_F_FLUSH, 1, BLK_DRIVER_ENTRIES));
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_FLUSH, 0, 0), BLK_DRIVER_IO_ERROR);
    end();
}

static void set_cache(uint8_t is_writeback)
{
    virtio_device_write_config(front.driver.device, 32, &is_writeback, 1);
}

static unsigned flushes_of_a_write(void)
{
    unsigned before = front.disk->flushes;
    if (blk_driver_do(&front, 0, BLK_DRIVER_WRITE, 0, 512) != BLK_DRIVER_OK)
        return 99;
    return front.disk->flushes - before;
}

/* A driver that knows of the cache flushes it; for another one, or with the cache off, every write is flushed. */
TEST(writing_through)
{
    struct blk_driver_options options = {.way = BLK_DRIVER_BY_WORKERS};
    begin_with(&options, BLK_DRIVER_F_FLUSH | BLK_DRIVER_F_CONFIG_WCE);
    CHECK_INT(flushes_of_a_write(), 0);
    set_cache(0);
    CHECK_INT(flushes_of_a_write(), 1);
    CHECK_INT(blk_driver_erase(&front, BLK_DRIVER_WRITE_ZEROES, 0, 1, 0), BLK_DRIVER_OK);
    CHECK_INT(front.disk->flushes, 2);
    front.disk->flush_error = -EIO;
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_WRITE, 0, 512), BLK_DRIVER_IO_ERROR);
    end();
    begin_with(&options, BLK_DRIVER_F_FLUSH | BLK_DRIVER_F_CONFIG_WCE);
    set_cache(0);
    CHECK(virtio_driver_restart(&front.driver, BLK_DRIVER_F_FLUSH | BLK_DRIVER_F_CONFIG_WCE, 1, BLK_DRIVER_ENTRIES));
    CHECK_INT(flushes_of_a_write(), 0); /* a new driver, a new beginning */
    CHECK(virtio_driver_restart(&front.driver, BLK_DRIVER_F_FLUSH, 1, BLK_DRIVER_ENTRIES));
    CHECK_INT(flushes_of_a_write(), 0);
    CHECK(virtio_driver_restart(&front.driver, 0, 1, BLK_DRIVER_ENTRIES));
    CHECK_INT(flushes_of_a_write(), 1);
    CHECK(virtio_driver_restart(&front.driver, BLK_DRIVER_F_CONFIG_WCE, 1, BLK_DRIVER_ENTRIES));
    CHECK_INT(flushes_of_a_write(), 1);
    set_cache(1);
    CHECK_INT(flushes_of_a_write(), 0);
    end();
    options.way = BLK_DRIVER_BY_RING; /* the write by the ring, its flush by a worker */
    begin_with(&options, 0);
    front.disk->flush_error = -EIO;
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_WRITE, 0, 512), BLK_DRIVER_IO_ERROR);
    CHECK_INT(front.disk->flushes, 1);
    CHECK_INT(front.disk->writes, 0);
    end();
}

TEST(unsafe_and_without_flushes)
{
    struct blk_driver_options options = {.way = BLK_DRIVER_BY_WORKERS, .blk = {.cache = VIAL_DISK_UNSAFE}};
    begin_with(&options, 0);
    CHECK_INT(flushes_of_a_write(), 0);
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_FLUSH, 0, 0), BLK_DRIVER_OK);
    CHECK_INT(front.disk->flushes, 0);
    end();
    options.blk = (struct blk_options){.sync = VIAL_DISK_SYNC_NONE};
    begin_with(&options, 0);
    CHECK_INT(flushes_of_a_write(), 0);
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_FLUSH, 0, 0), BLK_DRIVER_UNSUPPORTED);
    CHECK_INT(front.disk->flushes, 0);
    end();
}
