// SPDX-License-Identifier: Apache-2.0
/* qcow2 and power cuts: in which order writes reach the file, and what any cut leaves.
 *
 * The linker sends writes, truncations, holes and flushes here (--wrap); they are done, and recorded. Then every moment
 * of the record is taken as the moment of a cut: what was written before the last flush is there, of what came after it
 * any part may be, in pieces of a sector. Whatever image that makes must have no corruption, and hold in each sector
 * what it held at the last flush that had returned, or something that was written there since.
 *
 * What is written follows from a seed. One of them takes seconds; VIAL_TEST_SEEDS=n tries the first n.
 */
#include "test.h"

#include "base/alloc.h"
#include "disk/open.h"
#include "disk/qcow2.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { sector = 512, most_disk_bytes = 1920 << 10, most_events = 20000, most_changes = 400, cuts_an_event = 4 };

/* ---- the record ---- */

enum event_kind { EVENT_WRITE, EVENT_LENGTH, EVENT_HOLE, EVENT_SYNC };
struct event {
    enum event_kind kind;
    uint64_t offset, length;
    uint8_t *bytes;            /* owned */
    unsigned started, durable; /* changes that had begun, and those that a flush has promised, before it */
};

enum change_kind { CHANGE_WRITE, CHANGE_ZERO, CHANGE_DISCARD };
struct change {
    enum change_kind kind;
    unsigned first, count;
};

static struct event events[most_events];
static unsigned event_count;
static struct change changes[most_changes];
static unsigned change_count, durable_count;
static ino_t recorded; /* the file; 0: none */
static bool fails_sync;

ssize_t __real_pwritev64(int fd, const struct iovec *parts, int count, off_t offset);
int __real_ftruncate64(int fd, off_t length);
int __real_fallocate64(int fd, int mode, off_t offset, off_t length);
ssize_t __wrap_pwritev64(int fd, const struct iovec *parts, int count, off_t offset);
int __wrap_ftruncate64(int fd, off_t length);
int __wrap_fallocate64(int fd, int mode, off_t offset, off_t length);
int __wrap_fdatasync(int fd);

static struct event *record(int fd, enum event_kind kind, uint64_t offset, uint64_t length)
{
    struct stat status;
    if (recorded == 0 || fstat(fd, &status) < 0 || status.st_ino != recorded)
        return NULL;
    if (event_count == most_events)
        abort();
    events[event_count] = (struct event){kind, offset, length, NULL, change_count, durable_count};
    return &events[event_count++];
}

ssize_t __wrap_pwritev64(int fd, const struct iovec *parts, int count, off_t offset)
{
    ssize_t written = __real_pwritev64(fd, parts, count, offset);
    struct event *event = written > 0 ? record(fd, EVENT_WRITE, (uint64_t)offset, (uint64_t)written) : NULL;
    if (event != NULL) {
        event->bytes = calloc(1, (size_t)written);
        if (event->bytes == NULL || pread(fd, event->bytes, (size_t)written, offset) != written)
            abort();
    }
    return written;
}

int __wrap_ftruncate64(int fd, off_t length)
{
    record(fd, EVENT_LENGTH, (uint64_t)length, 0);
    return __real_ftruncate64(fd, length);
}

int __wrap_fallocate64(int fd, int mode, off_t offset, off_t length)
{
    record(fd, EVENT_HOLE, (uint64_t)offset, (uint64_t)length);
    return __real_fallocate64(fd, mode, offset, length);
}

/* Only recorded: there is no medium here that could be pulled. */
int __wrap_fdatasync(int fd)
{
    if (fails_sync) {
        errno = EIO;
        return -1;
    }
    record(fd, EVENT_SYNC, 0, 0);
    return 0;
}

static void forget_events(void)
{
    for (unsigned i = 0; i < event_count; i++)
        free(events[i].bytes);
    event_count = change_count = durable_count = 0;
    recorded = 0;
}

/* ---- the image ---- */

static struct vial_error err;
static uint64_t seed;
static unsigned sectors; /* of the disk */
static char base_path[512], image_path[512], cut_path[512];

static uint64_t next(uint64_t below)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (seed >> 33) % below;
}

/* The content of a sector that a change has written; 0: zeros; 1: before the first change. */
static void fill_sector(uint8_t *bytes, unsigned place, uint32_t version)
{
    memset(bytes, 0, sector);
    for (unsigned at = 0; version != 0 && at < sector; at += 8) {
        memcpy(bytes + at, &place, 4);
        memcpy(bytes + at + 4, &version, 4);
    }
}

static struct disk *open_path(const char *path, bool read_only)
{
    static const struct disk_backing allowed[] = {{"base.raw", VIAL_DISK_RAW}};
    const struct disk_options options = {
        .path = path, .format = VIAL_DISK_QCOW2, .read_only = read_only, .backing = allowed, .backing_count = 1};
    struct disk *disk = NULL;
    if (disk_open(&options, &disk, &err) < 0) {
        test_fail(__FILE__, __LINE__, "%s", err.message);
        return NULL;
    }
    return disk;
}

struct variant {
    struct image_create_options create;
    unsigned sectors; /* 0: 384 */
    bool has_base, has_packed, has_snapshot, has_data;
    bool makes_snapshots, grows;
};

static int write_sectors(struct disk *disk, unsigned first, unsigned count, uint32_t version)
{
    static uint8_t bytes[most_disk_bytes];
    for (unsigned i = 0; i < count; i++)
        fill_sector(bytes + (size_t)i * sector, first + i, version);
    const struct iovec part = {bytes, (size_t)count * sector};
    return disk_write(disk, &part, 1, (uint64_t)first * sector);
}

/* What is there before the first change: version 1 everywhere, if anything is. */
static int prepare(const struct variant *variant)
{
    static uint8_t bytes[most_disk_bytes];
    struct image_create_options create = variant->create;
    sectors = variant->sectors != 0 ? variant->sectors : 384;
    create.size_bytes = (uint64_t)sectors * sector;
    create.backing_path = variant->has_base ? "base.raw" : NULL;
    create.backing_format = VIAL_DISK_RAW;
    for (unsigned i = 0; i < sectors; i++)
        fill_sector(bytes + (size_t)i * sector, i, 1);
    snprintf(base_path, sizeof(base_path), "%s", test_file("base.raw", bytes, create.size_bytes));
    snprintf(image_path, sizeof(image_path), "%s", test_file("image.qcow2", "", 0));
    snprintf(cut_path, sizeof(cut_path), "%s", test_file("cut.qcow2", "", 0));
    int fd = open(image_path, O_RDWR | O_CLOEXEC);
    int result = qcow2_create(fd, &create, &err);
    close(fd);
    struct disk *disk = result == 0 ? open_path(image_path, false) : NULL;
    if (disk == NULL)
        return -1;
    for (uint64_t at = 0; variant->has_packed && at < create.size_bytes && result == 0;
         at += disk->shape.properties.best_bytes)
        result = qcow2_compress_cluster(disk->shape.state, bytes + at, at);
    if (result == 0 && variant->has_data)
        result = write_sectors(disk, 0, sectors, 1);
    if (result == 0 && variant->has_snapshot)
        result = qcow2_snapshot_create(disk->shape.state, "before", &err);
    return disk_close(disk, &err) < 0 ? -1 : result;
}

static int change_once(struct disk *disk, const struct variant *variant)
{
    unsigned first = (unsigned)next(sectors), count = 1 + (unsigned)next(next(4) == 0 ? 60 : 5);
    count = first + count > sectors ? sectors - first : count;
    uint64_t offset = (uint64_t)first * sector, length = (uint64_t)count * sector;
    unsigned what = (unsigned)next(16);
    if (what == 0) {
        int result = disk_flush(disk);
        durable_count = change_count;
        return result;
    }
    if (what == 1 && variant->makes_snapshots) {
        static unsigned made;
        char name[16];
        snprintf(name, sizeof(name), "s%u", made++);
        return qcow2_snapshot_create(disk->shape.state, name, &err);
    }
    enum change_kind kind = what == 2 ? CHANGE_DISCARD : what <= 4 ? CHANGE_ZERO : CHANGE_WRITE;
    changes[change_count++] = (struct change){kind, first, count};
    if (kind == CHANGE_WRITE)
        return write_sectors(disk, first, count, 1 + change_count);
    return kind == CHANGE_ZERO ? disk_zero(disk, offset, length, next(2)) : disk_discard(disk, offset, length);
}

/* ---- a cut ---- */

static void apply_event(int fd, const struct event *event, bool may_tear)
{
    struct stat status;
    if (event->kind == EVENT_LENGTH && fstat(fd, &status) == 0 && (uint64_t)status.st_size < event->offset)
        __real_ftruncate64(fd, (off_t)event->offset);
    if (event->kind == EVENT_HOLE)
        __real_fallocate64(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)event->offset, (off_t)event->length);
    for (uint64_t at = 0; event->kind == EVENT_WRITE && at < event->length;) {
        uint64_t end = (event->offset + at + sector) & ~UINT64_C(511), step = end - event->offset - at;
        step = step < event->length - at ? step : event->length - at;
        if ((!may_tear || next(4) != 0) &&
            pwrite(fd, event->bytes + at, step, (off_t)(event->offset + at)) != (ssize_t)step)
            abort();
        at += step;
    }
}

/* The image as it might be found when the power goes before event `end`. */
static int make_cut(const uint8_t *start, size_t start_bytes, unsigned end)
{
    unsigned synced = end;
    int fd = open(cut_path, O_RDWR | O_TRUNC | O_CLOEXEC);
    if (fd < 0 || pwrite(fd, start, start_bytes, 0) != (ssize_t)start_bytes)
        abort();
    while (synced > 0 && events[synced - 1].kind != EVENT_SYNC)
        synced--;
    for (unsigned i = 0; i < synced; i++)
        apply_event(fd, &events[i], false);
    for (unsigned i = synced; i < end; i++)
        if (next(2) == 0)
            apply_event(fd, &events[i], next(3) == 0);
    return fd;
}

/* Whether the header was pointed to another table of refcounts. */
static bool has_grown(void)
{
    for (unsigned i = 0; i < event_count; i++)
        if (events[i].kind == EVENT_WRITE && events[i].offset == 48)
            return true;
    return false;
}

static bool touches(const struct change *change, unsigned place)
{
    return place >= change->first && place < change->first + change->count;
}

/* Whether a sector may hold that version, with so many changes promised, and so many begun. */
static bool may_hold(const struct variant *variant, unsigned place, uint32_t version, unsigned durable,
                     unsigned started)
{
    bool begins_filled = variant->has_base || variant->has_packed || variant->has_data;
    for (unsigned i = started; i > 0; i--) {
        const struct change *change = &changes[i - 1];
        if (!touches(change, place))
            continue;
        if (version == (change->kind == CHANGE_WRITE ? i + 1 : 0))
            return true;
        if (i <= durable && change->kind != CHANGE_DISCARD)
            return false;
    }
    return version == (begins_filled ? 1 : 0);
}

static const char *verify_content(const struct variant *variant, const struct event *event)
{
    static uint8_t bytes[most_disk_bytes];
    static char text[100];
    uint8_t expected[sector];
    const struct iovec part = {bytes, (size_t)sectors * sector};
    struct disk *disk = open_path(cut_path, true);
    if (disk == NULL)
        return "the image cannot be opened";
    int result = disk_read(disk, &part, 1, 0);
    disk_free(disk);
    if (result < 0)
        return "the disk cannot be read";
    for (unsigned i = 0; i < sectors; i++) {
        uint32_t version;
        memcpy(&version, bytes + (size_t)i * sector + 4, sizeof(version));
        fill_sector(expected, i, version);
        if (memcmp(bytes + (size_t)i * sector, expected, sector) != 0 ||
            !may_hold(variant, i, version, event->durable, event->started)) {
            snprintf(text, sizeof(text), "sector %u has version %x (%u promised, %u begun)", i, version, event->durable,
                     event->started);
            return text;
        }
    }
    return NULL;
}

/* With lazy refcounts the next open for writing counts anew. */
static const char *verify_cut(const struct variant *variant, int fd, const struct event *event)
{
    struct disk_file file = {.fd = fd, .path = cut_path, .alignment_bytes = 1};
    struct image_check found = {0};
    if (variant->create.lazy_refcounts) {
        struct disk *disk = open_path(cut_path, false);
        if (disk == NULL || disk_close(disk, &err) < 0)
            return "the image cannot be opened for writing";
    }
    file.size_bytes = (uint64_t)lseek(fd, 0, SEEK_END);
    if (qcow2_check(&file, IMAGE_REPAIR_NONE, NULL, NULL, &found, &err) < 0)
        return err.message;
    return found.corruptions > 0 ? "the image is corrupt" : verify_content(variant, event);
}

static void cut_everywhere(const struct variant *variant, const uint8_t *start, size_t start_bytes)
{
    for (unsigned i = 0; i <= event_count * cuts_an_event; i++) {
        unsigned end = i / cuts_an_event;
        const struct event now = {.started = change_count, .durable = durable_count};
        int fd = make_cut(start, start_bytes, end);
        const char *fault = verify_cut(variant, fd, end < event_count ? &events[end] : &now);
        close(fd);
        if (fault != NULL) {
            test_fail(__FILE__, __LINE__, "cut before event %u of %u: %s", end, event_count, fault);
            return;
        }
    }
}

static void survive(const struct variant *variant, unsigned count)
{
    struct stat status;
    forget_events();
    if (prepare(variant) < 0) {
        test_fail(__FILE__, __LINE__, "cannot prepare: %s", err.message);
        return;
    }
    if (stat(image_path, &status) < 0)
        abort();
    auto_free uint8_t *start = alloc_zero((size_t)status.st_size);
    int fd = open(image_path, O_RDONLY | O_CLOEXEC);
    if (start == NULL || pread(fd, start, (size_t)status.st_size, 0) != status.st_size)
        abort();
    close(fd);
    recorded = status.st_ino;
    struct disk *disk = open_path(image_path, false);
    for (unsigned i = 0; disk != NULL && i < count; i++)
        if (change_once(disk, variant) < 0) {
            test_fail(__FILE__, __LINE__, "change %u failed: %s", i, err.message);
            break;
        }
    if (disk != NULL && disk_close(disk, &err) < 0)
        test_fail(__FILE__, __LINE__, "%s", err.message);
    recorded = 0;
    if (variant->grows && !has_grown())
        test_fail(__FILE__, __LINE__, "the table of refcounts did not grow");
    cut_everywhere(variant, start, (size_t)status.st_size);
    forget_events();
}

static void survive_seeds(const struct variant *variant, unsigned count)
{
    const char *wanted = getenv("VIAL_TEST_SEEDS");
    uint64_t seeds = wanted != NULL ? strtoull(wanted, NULL, 10) : 1;
    for (uint64_t i = 1; i <= seeds; i++) {
        seed = i;
        survive(variant, count);
    }
}

TEST(a_cut_of_a_plain_image)
{
    survive_seeds(&(struct variant){.create = {.cluster_bytes = 4096}}, 120);
}

TEST(a_cut_of_version_2)
{
    survive_seeds(&(struct variant){.create = {.cluster_bytes = 1024, .version = 2}}, 100);
}

TEST(a_cut_while_tables_of_refcounts_grow)
{
    survive_seeds(&(struct variant){.create = {.cluster_bytes = 512, .refcount_bits = 64}}, 100);
    survive_seeds(&(struct variant){.create = {.cluster_bytes = 512, .refcount_bits = 64},
                                    .sectors = most_disk_bytes / sector,
                                    .has_data = true,
                                    .has_snapshot = true,
                                    .grows = true},
                  40);
}

TEST(a_cut_with_lazy_refcounts)
{
    survive_seeds(&(struct variant){.create = {.cluster_bytes = 2048, .lazy_refcounts = true}}, 100);
}

TEST(a_cut_of_an_image_over_another)
{
    survive_seeds(&(struct variant){.create = {.cluster_bytes = 4096}, .has_base = true}, 100);
}

TEST(a_cut_of_a_compressed_image)
{
    survive_seeds(&(struct variant){.create = {.cluster_bytes = 4096}, .has_packed = true}, 100);
}

TEST(a_cut_of_an_image_with_a_snapshot)
{
    survive_seeds(&(struct variant){.create = {.cluster_bytes = 1024, .refcount_bits = 8},
                                    .has_data = true,
                                    .has_snapshot = true},
                  100);
}

TEST(a_cut_while_snapshots_are_made)
{
    survive_seeds(&(struct variant){.create = {.cluster_bytes = 2048}, .has_data = true, .makes_snapshots = true}, 80);
}

/* The kernel tells once that pages were lost; whoever flushes later must hear of it, too. */
TEST(a_flush_that_failed_is_not_forgotten)
{
    const struct variant variant = {.create = {.cluster_bytes = 4096}};
    CHECK_INT(prepare(&variant), 0);
    struct disk *disk = open_path(image_path, false);
    CHECK(disk != NULL);
    CHECK_INT(write_sectors(disk, 0, 8, 1), 0);
    CHECK_INT(disk_sync_fd(disk), -1);
    fails_sync = true;
    CHECK_INT(disk_flush(disk), -EIO);
    fails_sync = false;
    CHECK_INT(disk_flush(disk), -EIO);
    CHECK_INT(disk_sync_fd(disk), -1);
    CHECK(disk_close(disk, &err) < 0);
}
