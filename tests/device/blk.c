// SPDX-License-Identifier: Apache-2.0
/* The block device against a driver: what each request does, by the ring, by the workers, and without a ring. */
#include "test.h"

#include "base/limits.h"
#include "blk_driver.h"
#include "hostile.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

static struct blk_driver front;
static uint32_t head, written;
static uint8_t bytes[1 << 16];

/* The body of a test for each way that a request can take. */
#define FOR_EACH_WAY for (enum blk_driver_way way = BLK_DRIVER_BY_RING; way < BLK_DRIVER_WAYS; way++)

static void begin_with(const struct blk_driver_options *options, uint64_t features)
{
    blk_driver_begin(&front, options);
    if (!blk_driver_start(&front, features))
        abort();
}

static void begin(enum blk_driver_way way)
{
    begin_with(&(struct blk_driver_options){.way = way, .blk = {.id = "root"}},
               BLK_DRIVER_F_FLUSH | BLK_DRIVER_F_DISCARD | BLK_DRIVER_F_WRITE_ZEROES);
}

static void end(void)
{
    blk_driver_end(&front);
}

/* Whether these are the bytes of the disk from a sector on, as they were in the beginning. */
static bool is_original(const uint8_t *got, uint64_t sector, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (got[i] != fake_disk_byte(sector * 512 + i))
            return false;
    return true;
}

static bool is_all(const uint8_t *got, uint8_t byte, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (got[i] != byte)
            return false;
    return true;
}

static uint32_t config_32(uint32_t offset)
{
    uint32_t value = 0;
    virtio_device_read_config(front.driver.device, offset, &value, sizeof(value));
    return value;
}

/* ---- what it is ---- */

TEST(it_says_what_it_is)
{
    struct blk_driver_options options = {
        .disk_bytes = 3 << 20,
        .blk = {.queue_count = 4},
        .properties = {.alignment_bytes = 512, .best_bytes = 65536, .can_discard = true},
    };
    blk_driver_begin(&front, &options);
    CHECK_INT(virtio_driver_read(&front.driver, 0x008), 2);
    CHECK_INT(config_32(0), 6144); /* capacity, */
    CHECK_INT(config_32(4), 0);
    CHECK_INT(config_32(8), 1 << 20);      /* size_max */
    CHECK_INT(config_32(12), 254);         /* seg_max */
    CHECK_INT(config_32(20), 512);         /* blk_size */
    CHECK_INT(config_32(24), 3 | 8 << 16); /* physical block of 4 KiB, min_io_size */
    CHECK_INT(config_32(28), 128);         /* opt_io_size */
    CHECK_INT(config_32(32), 1 | 4 << 16); /* writeback, num_queues */
    CHECK_INT(config_32(36), 1 << 22);     /* max_discard_sectors */
    CHECK_INT(config_32(40), 16);          /* max_discard_seg */
    CHECK_INT(config_32(44), 128);         /* discard_sector_alignment */
    CHECK_INT(config_32(48), 1 << 17);     /* max_write_zeroes_sectors */
    CHECK_INT(config_32(52), 1);           /* max_write_zeroes_seg */
    CHECK_INT(config_32(56), 1);           /* write_zeroes_may_unmap */
    CHECK_INT(config_32(60), 0);           /* nothing behind it */
    uint64_t features = virtio_device_features(front.driver.device);
    CHECK_INT(features & 0xffffff, 0x7e46 & ~0x20); /* all but read-only */
    end();
    options.blk.sync = VIAL_DISK_SYNC_NONE;
    options.blk.queue_count = 1;
    options.properties.can_discard = false;
    blk_driver_begin(&front, &options);
    CHECK_INT(virtio_device_features(front.driver.device) & 0xffffff, 0x4446);
    end();
    options.blk.read_only = true;
    blk_driver_begin(&front, &options);
    CHECK_INT(virtio_device_features(front.driver.device) & 0xffffff, 0x0466);
    end();
}

TEST(get_id)
{
    FOR_EACH_WAY
    {
        begin(way);
        memset(blk_driver_bytes(&front, 0), 0xaa, 64);
        CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_GET_ID, 0, 20), BLK_DRIVER_OK);
        CHECK(memcmp(blk_driver_bytes(&front, 0), "root\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xaa", 21) == 0);
        blk_driver_send(&front, 1, BLK_DRIVER_GET_ID, 0, 3); /* less room than an id has */
        CHECK(blk_driver_finish(&front, &head, &written));
        CHECK_INT(written, 4);
        CHECK(memcmp(blk_driver_bytes(&front, 1), "roo\0", 4) == 0);
        blk_driver_send(&front, 2, BLK_DRIVER_GET_ID, 0, 512);
        CHECK(blk_driver_finish(&front, &head, &written));
        CHECK_INT(written, 21);
        end();
    }
    begin_with(&(struct blk_driver_options){.blk = {.id = "twentybyteslongishid"}}, 0);
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_GET_ID, 0, 20), BLK_DRIVER_OK);
    CHECK(memcmp(blk_driver_bytes(&front, 0), "twentybyteslongishid", 21) == 0);
    end();
}

/* ---- reading and writing ---- */

TEST(reads)
{
    FOR_EACH_WAY
    {
        begin(way);
        blk_driver_send(&front, 0, BLK_DRIVER_READ, 7, 4096);
        CHECK(blk_driver_finish(&front, &head, &written));
        CHECK_INT(head, 0);
        CHECK_INT(written, 4097);
        CHECK_INT(blk_driver_status(&front, 0), BLK_DRIVER_OK);
        CHECK(is_original(blk_driver_bytes(&front, 0), 7, 4096));
        CHECK_INT(blk_driver_bytes(&front, 0)[4096], 0);
        CHECK_INT(blk_driver_do(&front, 1, BLK_DRIVER_READ, 2047, 512), BLK_DRIVER_OK); /* the last sector */
        CHECK_INT(blk_driver_do(&front, 2, BLK_DRIVER_READ, 2048, 0), BLK_DRIVER_OK);   /* nothing, at its end */
        CHECK_INT(front.disk->reads, way == BLK_DRIVER_BY_RING ? 0 : 2);
        struct blk_stats stats;
        blk_read_stats(front.driver.device, &stats);
        CHECK_INT(stats.reads, 3);
        CHECK_INT(stats.read_bytes, 4608);
        CHECK_INT(stats.errors, 0);
        end();
    }
}

TEST(writes)
{
    FOR_EACH_WAY
    {
        begin(way);
        memset(blk_driver_bytes(&front, 0), 0x77, 8192);
        blk_driver_send(&front, 0, BLK_DRIVER_WRITE, 9, 8192);
        CHECK(blk_driver_finish(&front, &head, &written));
        CHECK_INT(written, 1);
        CHECK_INT(blk_driver_status(&front, 0), BLK_DRIVER_OK);
        blk_driver_peek(&front, 8 * 512, bytes, 18 * 512);
        CHECK(is_original(bytes, 8, 512) && is_all(bytes + 512, 0x77, 8192) && is_original(bytes + 8704, 25, 512));
        CHECK_INT(front.disk->flushes, 0);
        CHECK_INT(blk_driver_do(&front, 1, BLK_DRIVER_FLUSH, 0, 0), BLK_DRIVER_OK);
        CHECK_INT(front.disk->flushes, way == BLK_DRIVER_BY_RING ? 0 : 1); /* the ring syncs by itself */
        struct blk_stats stats;
        blk_read_stats(front.driver.device, &stats);
        CHECK(stats.writes == 1 && stats.written_bytes == 8192 && stats.flushes == 1);
        end();
    }
}

TEST(reads_over_many_extents_and_zeros)
{
    FOR_EACH_WAY
    {
        begin(way);
        front.disk->extent_bytes = 1536;
        front.disk->zero_from = 4096;
        front.disk->zero_to = 4096 + 5 * 512;
        memset(blk_driver_bytes(&front, 0), 0xaa, 16384);
        CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_READ, 1, 16384), BLK_DRIVER_OK);
        const uint8_t *got = blk_driver_bytes(&front, 0);
        CHECK(is_original(got, 1, 3584) && is_all(got + 3584, 0, 2560) && is_original(got + 6144, 13, 10240));
        memset(blk_driver_bytes(&front, 1), 0x11, 16384);
        CHECK_INT(blk_driver_do(&front, 1, BLK_DRIVER_WRITE, 1, 16384), BLK_DRIVER_OK);
        blk_driver_peek(&front, 0, bytes, 18 * 1024);
        CHECK(is_original(bytes, 0, 512) && is_all(bytes + 512, 0x11, 16384) && is_original(bytes + 16896, 33, 512));
        end();
    }
}

/* A chain with its data in pieces of these lengths; the status and the header are in pieces of a byte. */
static void offer_scattered(const uint32_t *lengths, unsigned count, bool is_write, bool is_indirect)
{
    struct virtio_driver *driver = &front.driver;
    uint64_t table = is_indirect ? VIRTIO_DRIVER_BUFFERS + 0x9000 : VIRTIO_DRIVER_DESCRIPTORS(0);
    uint64_t address = blk_driver_data(0);
    uint16_t total = (uint16_t)(16 + count + 1);
    for (uint16_t i = 0; i < total; i++) {
        struct {
            uint64_t address;
            uint32_t length;
            uint16_t flags, next;
        } each = {blk_driver_header(0) + i, 1, i + 1 < total ? VIRTIO_DRIVER_NEXT : 0, (uint16_t)(i + 1)};
        if (i >= 16 && i + 1 < total) {
            each.address = address;
            each.length = lengths[i - 16];
            address += each.length;
        } else if (i >= 16) {
            each.address = blk_driver_status_at(0);
        }
        if (i + 1 == total || (i >= 16 && !is_write))
            each.flags |= VIRTIO_DRIVER_WRITE;
        virtio_driver_put(driver, table + 16 * (uint64_t)i, &each, sizeof(each));
    }
    if (is_indirect)
        virtio_driver_describe(driver, 0, 0, table, 16u * total, VIRTIO_DRIVER_INDIRECT, 0);
    virtio_driver_offer(driver, 0, 0);
    virtio_driver_kick(driver, 0);
}

TEST(scattered_chains)
{
    static const uint32_t lengths[] = {1, 1, 509, 1, 1024, 2, 511, 511, 512, 1023, 1};
    FOR_EACH_WAY
    {
        for (int is_indirect = 0; is_indirect < 2; is_indirect++) {
            begin_with(&(struct blk_driver_options){.way = way}, VIRTIO_F_INDIRECT_DESC);
            front.disk->extent_bytes = 1024;
            blk_driver_put_header(&front, 0, BLK_DRIVER_READ, 3);
            offer_scattered(lengths, 11, false, is_indirect);
            CHECK(blk_driver_finish(&front, &head, &written));
            CHECK_INT(written, 4097);
            CHECK(is_original(blk_driver_bytes(&front, 0), 3, 4096));
            for (unsigned i = 0; i < 4096; i++)
                blk_driver_bytes(&front, 0)[i] = (uint8_t)(i * 7);
            blk_driver_put_header(&front, 0, BLK_DRIVER_WRITE, 100);
            offer_scattered(lengths, 11, true, is_indirect);
            CHECK(blk_driver_finish(&front, &head, &written));
            CHECK_INT(blk_driver_status(&front, 0), BLK_DRIVER_OK);
            blk_driver_peek(&front, 51200, bytes, 4096);
            CHECK(memcmp(bytes, blk_driver_bytes(&front, 0), 4096) == 0);
            end();
        }
    }
}

TEST(the_most_segments)
{
    static uint32_t lengths[239];
    for (unsigned i = 0; i < 239; i++)
        lengths[i] = i % 2 == 0 ? 100 : 412;
    lengths[238] = 512;
    FOR_EACH_WAY
    {
        begin_with(&(struct blk_driver_options){.way = way}, 0);
        blk_driver_put_header(&front, 0, BLK_DRIVER_READ, 0);
        offer_scattered(lengths, 239, false, false);
        CHECK(blk_driver_finish(&front, &head, &written));
        CHECK_INT(written, 120 * 512 + 1);
        CHECK(is_original(blk_driver_bytes(&front, 0), 0, 120 * 512));
        end();
    }
}

/* Direct I/O: what does not lie right is a worker's. */
TEST(alignment)
{
    static const uint32_t odd[] = {256, 256}, even[] = {512, 512};
    struct blk_driver_options options = {.properties = {.alignment_bytes = 512, .best_bytes = 4096}};
    begin_with(&options, 0);
    blk_driver_put_header(&front, 0, BLK_DRIVER_READ, 5);
    offer_scattered(even, 2, false, false);
    CHECK(blk_driver_finish(&front, &head, &written));
    CHECK_INT(front.disk->reads, 0);
    blk_driver_put_header(&front, 0, BLK_DRIVER_READ, 5);
    offer_scattered(odd, 2, false, false);
    CHECK(blk_driver_finish(&front, &head, &written));
    CHECK_INT(front.disk->reads, 1);
    CHECK(is_original(blk_driver_bytes(&front, 0), 5, 512));
    end();
    options.properties.alignment_bytes = 4096;
    begin_with(&options, 0);
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_READ, 8, 4096), BLK_DRIVER_OK);
    CHECK_INT(front.disk->reads, 0);
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_READ, 9, 4096), BLK_DRIVER_OK);
    CHECK_INT(front.disk->reads, 1);
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_READ, 8, 512), BLK_DRIVER_OK);
    CHECK_INT(front.disk->reads, 2);
    end();
}

/* A file that is shorter than the disk has zeros there. */
TEST(a_file_that_ends_early)
{
    begin(BLK_DRIVER_BY_RING);
    CHECK_INT(ftruncate(front.disk->fd, 700), 0);
    memset(blk_driver_bytes(&front, 0), 0xaa, 4096);
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_READ, 0, 4096), BLK_DRIVER_OK);
    CHECK(is_original(blk_driver_bytes(&front, 0), 0, 700) && is_all(blk_driver_bytes(&front, 0) + 700, 0, 3396));
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_READ, 2047, 512), BLK_DRIVER_OK);
    CHECK(is_all(blk_driver_bytes(&front, 0), 0, 512));
    end();
}

/* ---- discards and zeros ---- */

TEST(discards_and_zeros)
{
    FOR_EACH_WAY
    {
        begin(way);
        CHECK_INT(blk_driver_erase(&front, BLK_DRIVER_DISCARD, 8, 8, 0), BLK_DRIVER_OK);
        CHECK_INT(blk_driver_erase(&front, BLK_DRIVER_WRITE_ZEROES, 32, 8, 0), BLK_DRIVER_OK);
        CHECK_INT(front.disk->unmaps, 0);
        CHECK_INT(blk_driver_erase(&front, BLK_DRIVER_WRITE_ZEROES, 48, 8, 1), BLK_DRIVER_OK);
        CHECK(front.disk->unmaps == 1 && front.disk->discards == 1 && front.disk->zeroes == 2);
        blk_driver_peek(&front, 0, bytes, 64 * 512);
        for (unsigned i = 0; i < 8; i++) /* blocks 1, 4 and 6 are gone */
            CHECK(i == 1 || i == 4 || i == 6 ? is_all(bytes + 4096 * i, 0, 4096)
                                             : is_original(bytes + 4096 * i, 8 * i, 4096));
        for (unsigned i = 0; i < 16; i++)
            blk_driver_put_segment(&front, 0, i, 512 + 2 * i, i % 2, 0); /* some of them empty */
        CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_DISCARD, 0, 256), BLK_DRIVER_OK);
        CHECK_INT(front.disk->discards, 9);
        CHECK_INT(blk_driver_erase(&front, BLK_DRIVER_DISCARD, 2047, 1, 0), BLK_DRIVER_OK);
        struct blk_stats stats;
        blk_read_stats(front.driver.device, &stats);
        CHECK_INT(stats.discards, 5);
        end();
    }
}

TEST(discards_that_are_refused)
{
    begin(BLK_DRIVER_BY_RING);
    static const struct {
        uint64_t sector;
        uint32_t sectors, flags;
        uint8_t discard, zeroes; /* the status of each */
    } tries[] = {
        {0, UINT32_MAX, 0, BLK_DRIVER_IO_ERROR, BLK_DRIVER_IO_ERROR},
        {0, (1 << 22) + 1, 0, BLK_DRIVER_IO_ERROR, BLK_DRIVER_IO_ERROR},
        {2047, 2, 0, BLK_DRIVER_IO_ERROR, BLK_DRIVER_IO_ERROR},
        {2049, 0, 0, BLK_DRIVER_IO_ERROR, BLK_DRIVER_IO_ERROR},
        {UINT64_MAX, 1, 0, BLK_DRIVER_IO_ERROR, BLK_DRIVER_IO_ERROR},
        {UINT64_C(1) << 55, 1, 0, BLK_DRIVER_IO_ERROR, BLK_DRIVER_IO_ERROR},
        {0, 1, 1, BLK_DRIVER_UNSUPPORTED, BLK_DRIVER_OK},
        {0, 1, 2, BLK_DRIVER_UNSUPPORTED, BLK_DRIVER_UNSUPPORTED},
        {0, 1, UINT32_C(1) << 31, BLK_DRIVER_UNSUPPORTED, BLK_DRIVER_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
        CHECK_INT(blk_driver_erase(&front, BLK_DRIVER_DISCARD, tries[i].sector, tries[i].sectors, tries[i].flags),
                  tries[i].discard);
        CHECK_INT(blk_driver_erase(&front, BLK_DRIVER_WRITE_ZEROES, tries[i].sector, tries[i].sectors, tries[i].flags),
                  tries[i].zeroes);
    }
    blk_driver_put_segment(&front, 0, 0, 0, 1, 0);
    blk_driver_put_segment(&front, 0, 1, 4096, 1, 0);
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_DISCARD, 0, 32), BLK_DRIVER_IO_ERROR); /* all or none of it */
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_DISCARD, 0, 0), BLK_DRIVER_IO_ERROR);
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_DISCARD, 0, 17), BLK_DRIVER_IO_ERROR);
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_DISCARD, 0, 17 * 16), BLK_DRIVER_IO_ERROR);
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_WRITE_ZEROES, 0, 32), BLK_DRIVER_IO_ERROR);
    CHECK_INT(front.disk->discards, 0);
    CHECK_INT(front.disk->zeroes, 1);
    front.disk->has_no_discard = true;
    CHECK_INT(blk_driver_erase(&front, BLK_DRIVER_DISCARD, 0, 8, 0), BLK_DRIVER_UNSUPPORTED);
    end();
    begin_with(&(struct blk_driver_options){.properties = {.alignment_bytes = 1}}, 0);
    CHECK_INT(blk_driver_erase(&front, BLK_DRIVER_DISCARD, 0, 8, 0), BLK_DRIVER_UNSUPPORTED);
    end();
}

/* ---- a disk that must not be changed ---- */

TEST(read_only)
{
    FOR_EACH_WAY
    {
        begin_with(&(struct blk_driver_options){.way = way, .blk = {.read_only = true}}, BLK_DRIVER_F_RO);
        memset(blk_driver_bytes(&front, 0), 0x77, 512);
        CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_WRITE, 0, 512), BLK_DRIVER_IO_ERROR);
        CHECK_INT(blk_driver_erase(&front, BLK_DRIVER_DISCARD, 0, 1, 0), BLK_DRIVER_IO_ERROR);
        CHECK_INT(blk_driver_erase(&front, BLK_DRIVER_WRITE_ZEROES, 0, 1, 0), BLK_DRIVER_IO_ERROR);
        CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_FLUSH, 0, 0), BLK_DRIVER_OK);
        CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_READ, 0, 512), BLK_DRIVER_OK);
        CHECK(is_original(blk_driver_bytes(&front, 0), 0, 512));
        blk_driver_peek(&front, 0, bytes, 512);
        CHECK(is_original(bytes, 0, 512));
        CHECK(front.disk->writes == 0 && front.disk->discards == 0 && front.disk->zeroes == 0);
        end();
    }
}

/* ---- requests that make no sense ---- */

TEST(requests_that_are_refused)
{
    static const struct {
        uint32_t type;
        uint64_t sector;
        uint32_t length;
        uint8_t status;
    } tries[] = {
        {BLK_DRIVER_READ, 2048, 512, BLK_DRIVER_IO_ERROR},
        {BLK_DRIVER_READ, 2047, 1024, BLK_DRIVER_IO_ERROR},
        {BLK_DRIVER_READ, 2049, 0, BLK_DRIVER_IO_ERROR},
        {BLK_DRIVER_READ, UINT64_MAX, 512, BLK_DRIVER_IO_ERROR},
        {BLK_DRIVER_READ, UINT64_MAX / 512, 512, BLK_DRIVER_IO_ERROR},
        {BLK_DRIVER_READ, UINT64_C(1) << 55, 512, BLK_DRIVER_IO_ERROR},
        {BLK_DRIVER_READ, 0, 511, BLK_DRIVER_IO_ERROR},
        {BLK_DRIVER_READ, 0, 513, BLK_DRIVER_IO_ERROR},
        {BLK_DRIVER_READ, 0, 1, BLK_DRIVER_IO_ERROR},
        {BLK_DRIVER_WRITE, 2048, 512, BLK_DRIVER_IO_ERROR},
        {BLK_DRIVER_WRITE, 2047, 1024, BLK_DRIVER_IO_ERROR},
        {BLK_DRIVER_WRITE, UINT64_MAX, 512, BLK_DRIVER_IO_ERROR},
        {BLK_DRIVER_WRITE, UINT64_C(1) << 55, 512, BLK_DRIVER_IO_ERROR},
        {BLK_DRIVER_WRITE, 0, 100, BLK_DRIVER_IO_ERROR},
        {2, 0, 512, BLK_DRIVER_UNSUPPORTED}, /* SCSI commands of old */
        {3, 0, 0, BLK_DRIVER_UNSUPPORTED},
        {14, 0, 16, BLK_DRIVER_UNSUPPORTED}, /* secure erase */
        {UINT32_MAX, 0, 512, BLK_DRIVER_UNSUPPORTED},
        {UINT32_C(1) << 31, 0, 512, BLK_DRIVER_UNSUPPORTED},
    };
    FOR_EACH_WAY
    {
        begin(way);
        for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++)
            CHECK_INT(blk_driver_do(&front, 0, tries[i].type, tries[i].sector, tries[i].length), tries[i].status);
        CHECK(!virtio_driver_needs_reset(&front.driver));
        CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_READ, 0, 512), BLK_DRIVER_OK); /* and it goes on */
        struct blk_stats stats;
        blk_read_stats(front.driver.device, &stats);
        CHECK_INT(stats.errors, sizeof(tries) / sizeof(tries[0]));
        end();
    }
}

TEST(a_request_for_more_than_the_limit)
{
    static const uint32_t chunk = 7 << 20;
    begin_with(&(struct blk_driver_options){.disk_bytes = 300 << 20}, 0);
    /* 259 MiB, all of them the same memory. */
    virtio_driver_describe(&front.driver, 0, 0, blk_driver_header(0), 16, VIRTIO_DRIVER_NEXT, 1);
    for (uint16_t i = 1; i <= 37; i++)
        virtio_driver_describe(&front.driver, 0, i, 1 << 20, chunk, VIRTIO_DRIVER_NEXT | VIRTIO_DRIVER_WRITE,
                               (uint16_t)(i + 1));
    virtio_driver_describe(&front.driver, 0, 38, 0x800, 1, VIRTIO_DRIVER_WRITE, 0);
    blk_driver_put_header(&front, 0, BLK_DRIVER_READ, 0);
    virtio_driver_offer(&front.driver, 0, 0);
    virtio_driver_kick(&front.driver, 0);
    CHECK(blk_driver_finish(&front, &head, &written));
    CHECK_INT(written, 1);
    CHECK_INT(*(uint8_t *)memory_span(front.driver.memory, 0x800, 1), BLK_DRIVER_IO_ERROR);
    end();
}

/* Without room for its header or its status a request cannot be answered. */
TEST(requests_that_break_the_ring)
{
    for (unsigned i = 0; i < 4; i++) {
        begin(BLK_DRIVER_BY_RING);
        blk_driver_put_header(&front, 0, BLK_DRIVER_READ, 0);
        uint64_t place = blk_driver_header(0);
        if (i == 0) {
            virtio_driver_describe(&front.driver, 0, 0, place, 16, 0, 0);
        } else if (i == 1) {
            virtio_driver_describe(&front.driver, 0, 0, place, 1, VIRTIO_DRIVER_WRITE, 0);
        } else {
            virtio_driver_describe(&front.driver, 0, 0, place, i == 2 ? 15 : 1, VIRTIO_DRIVER_NEXT, 1);
            virtio_driver_describe(&front.driver, 0, 1, blk_driver_status_at(0), 1, VIRTIO_DRIVER_WRITE, 0);
        }
        virtio_driver_offer(&front.driver, 0, 0);
        virtio_driver_kick(&front.driver, 0);
        CHECK(virtio_driver_needs_reset(&front.driver));
        CHECK(!virtio_driver_take(&front.driver, 0, &head, &written));
        CHECK(virtio_driver_restart(&front.driver, 0, 1, BLK_DRIVER_ENTRIES));
        CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_READ, 0, 512), BLK_DRIVER_OK);
        end();
    }
}

TEST(data_over_the_rings_and_the_header)
{
    begin(BLK_DRIVER_BY_RING);
    blk_driver_put_header(&front, 0, BLK_DRIVER_READ, 0);
    virtio_driver_describe(&front.driver, 0, 0, blk_driver_header(0), 16, VIRTIO_DRIVER_NEXT, 1);
    virtio_driver_describe(&front.driver, 0, 1, VIRTIO_DRIVER_DESCRIPTORS(0), 0x9000,
                           VIRTIO_DRIVER_WRITE | VIRTIO_DRIVER_NEXT, 2);
    virtio_driver_describe(&front.driver, 0, 2, blk_driver_header(0), 1, VIRTIO_DRIVER_WRITE, 0);
    virtio_driver_offer(&front.driver, 0, 0);
    virtio_driver_kick(&front.driver, 0);
    CHECK(virtio_driver_restart(&front.driver, 0, 1, BLK_DRIVER_ENTRIES));
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_READ, 0, 512), BLK_DRIVER_OK);
    end();
}

TEST(hostile_rings_of_all_kinds)
{
    blk_driver_begin(&front, &(struct blk_driver_options){.way = BLK_DRIVER_BY_RING});
    const char *wrong = hostile_rings(&front.driver, 0, 1, 0);
    CHECK_TEXT(wrong != NULL ? wrong : "", "");
    CHECK(virtio_driver_restart(&front.driver, 0, 1, BLK_DRIVER_ENTRIES));
    CHECK_INT(blk_driver_do(&front, 0, BLK_DRIVER_READ, 0, 512), BLK_DRIVER_OK);
    end();
}

/* ---- a guest that changes everything while we look ---- */

enum { changing = 20, enough = 200 };
static atomic_bool is_over;

/* Without atomics, which ThreadSanitizer would see even here: this is a race, and meant as one. */
__attribute__((no_sanitize("thread"))) static void put(uint8_t *byte, unsigned value)
{
    *(volatile uint8_t *)byte = (uint8_t)value;
}

/* Lengths, links, flags, types and sectors, of what the device may be looking at. */
__attribute__((no_sanitize("thread"))) static void *change(void *user)
{
    static const uint8_t lengths[] = {0, 1, 2, 16}, flags[] = {0, 1, 2, 3};
    uint8_t *ram = user;
    uint64_t random = 1; /* xorshift64 */
    while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        unsigned request = (unsigned)(random % changing);
        uint8_t *descriptor = ram + VIRTIO_DRIVER_DESCRIPTORS(0) + 16 * (3 * request + (random >> 8) % 3);
        uint8_t *header = ram + blk_driver_header(request);
        switch (random >> 16 & 1023) {
        case 0:
            put(descriptor + 12, flags[random >> 24 & 3]);
            break;
        case 1:
            put(descriptor + 14, (uint8_t)(random >> 24) % (3 * changing));
            break;
        case 2:
            put(descriptor + 9, lengths[random >> 24 & 3]);
            break;
        case 3:
            put(header, (uint8_t)(random >> 24 & 15));
            break;
        default:
            put(header + 8 + (random >> 24 & 7), (uint8_t)(random >> 32));
        }
    }
    return NULL;
}

#ifdef __SANITIZE_THREAD__
void AnnotateBenignRaceSized(const char *file, int line, const volatile void *bytes, long length, const char *why);

/* A link that changes has two requests use the same bytes, each on a thread of its own. */
static void expect_races(void)
{
    size_t length = blk_driver_data(changing) - VIRTIO_DRIVER_BUFFERS;
    AnnotateBenignRaceSized(__FILE__, __LINE__, memory_span(front.driver.memory, VIRTIO_DRIVER_BUFFERS, length),
                            (long)length, "it is the guest's own");
}
#else
static void expect_races(void)
{
}
#endif

/* Offers all of them; the device uses them all, or wants a reset. */
static bool change_round(unsigned *used, unsigned *broken)
{
    unsigned taken = 0;
    if (!virtio_driver_restart(&front.driver, 0, 1, BLK_DRIVER_ENTRIES))
        return virtio_driver_needs_reset(&front.driver);
    for (unsigned i = 0; i < changing; i++)
        blk_driver_offer(&front, i, i % 3, i, 512);
    virtio_driver_kick(&front.driver, 0);
    while (taken < changing) {
        if (virtio_driver_needs_reset(&front.driver)) {
            ++*broken;
            return true;
        }
        if (virtio_driver_take(&front.driver, 0, &head, &written))
            taken++;
        else if (!virtio_driver_wait(&front.driver))
            return false;
    }
    ++*used;
    return true;
}

TEST(requests_that_change_meanwhile)
{
    FOR_EACH_WAY
    {
        pthread_t thread;
        unsigned used = 0, broken = 0;
        bool is_stuck = false;
        blk_driver_begin(&front, &(struct blk_driver_options){.way = way, .is_launched = true});
        CHECK(blk_driver_start(&front, 0));
        expect_races();
        atomic_store(&is_over, false);
        CHECK_INT(pthread_create(&thread, NULL, change, memory_span(front.driver.memory, 0, 4096)), 0);
        for (unsigned i = 0; i < 200000 && !is_stuck && (used < enough || broken < enough); i++)
            is_stuck = !change_round(&used, &broken);
        atomic_store(&is_over, true);
        pthread_join(thread, NULL);
        printf("# %u rounds used, %u broken\n", used, broken);
        CHECK(!is_stuck);
        CHECK(used >= enough && broken >= enough);
        end();
    }
}

TEST(blk_survives_no_memory)
{
    FOR_EACH_FAULT
    {
        struct virtio_device *device = NULL;
        struct disk *disk = fake_disk_new(4096);
        struct blk_options options = {.disk = disk, .queue_count = 2, .limits = {.bytes_per_second = 1}};
        CHECK_INT(blk_new(&options, &device), fault_was_hit() ? -ENOMEM : 0);
        if (device == NULL)
            disk_free(disk); /* still ours */
        virtio_device_free(device);
    }
}

TEST(requests_survive_no_memory)
{
    static const uint32_t lengths[60] = {452, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                         1,   1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                         1,   1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2};
    begin(BLK_DRIVER_BY_RING);
    FOR_EACH_FAULT
    {
        blk_driver_put_header(&front, 0, BLK_DRIVER_READ, 4);
        offer_scattered(lengths, 60, false, false);
        CHECK(blk_driver_finish(&front, &head, &written));
        if (blk_driver_status(&front, 0) == BLK_DRIVER_OK)
            CHECK(is_original(blk_driver_bytes(&front, 0), 4, 512));
        else
            CHECK(fault_was_hit());
    }
    end();
}
