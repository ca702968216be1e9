// SPDX-License-Identifier: Apache-2.0
/* qcow2: headers right and broken in every field, what the map may tell, damage, failing memory, many threads. How
 * images compare with QEMU's is tested in tests/e2e/qcow2, what a power cut leaves in disk_qcow2_order.c. */
#include "test.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/limits.h"
#include "disk/open.h"
#include "disk/qcow2_state.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

enum { cluster = 4096, disk_bytes = 1 << 20 };

static struct vial_error err;
static const char *path;

/* ---- images ---- */

static int create(struct image_create_options options)
{
    path = test_file("image.qcow2", "", 0);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    options.path = path;
    int result = qcow2_create(fd, &options, &err);
    close(fd);
    return result;
}

static int create_plain(void)
{
    return create((struct image_create_options){.size_bytes = disk_bytes, .cluster_bytes = cluster});
}

static void poke(uint64_t offset, const void *bytes, size_t length)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || pwrite(fd, bytes, length, (off_t)offset) != (ssize_t)length)
        abort();
    close(fd);
}

/* A number of `width` bytes, most significant first. */
static void poke_number(uint64_t offset, uint64_t value, size_t width)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < width; i++)
        bytes[i] = (uint8_t)(value >> (8 * (width - 1 - i)));
    poke(offset, bytes, width);
}

static uint64_t peek(uint64_t offset)
{
    uint8_t bytes[8];
    uint64_t value = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || pread(fd, bytes, sizeof(bytes), (off_t)offset) != (ssize_t)sizeof(bytes))
        abort();
    close(fd);
    for (size_t i = 0; i < sizeof(bytes); i++)
        value = value << 8 | bytes[i];
    return value;
}

static int open_image(bool read_only, struct disk **ret_disk)
{
    const struct disk_options options = {.path = path, .format = VIAL_DISK_QCOW2, .read_only = read_only};
    err = (struct vial_error){0};
    return disk_open(&options, ret_disk, &err);
}

static int open_and_close(bool read_only)
{
    struct disk *disk = NULL;
    int result = open_image(read_only, &disk);
    return result < 0 ? result : disk_close(disk, &err);
}

static int put(struct disk *disk, uint64_t offset, size_t length, uint8_t value)
{
    auto_free uint8_t *bytes = malloc(length);
    if (bytes == NULL)
        return -ENOMEM;
    memset(bytes, value, length);
    const struct iovec part = {bytes, length};
    return disk_write(disk, &part, 1, offset);
}

/* The byte that fills the range, or -1. */
static int get(struct disk *disk, uint64_t offset, size_t length)
{
    auto_free uint8_t *bytes = malloc(length);
    const struct iovec part = {bytes, length};
    if (bytes == NULL || disk_read(disk, &part, 1, offset) < 0)
        return -1;
    for (size_t i = 1; i < length; i++)
        if (bytes[i] != bytes[0])
            return -1;
    return bytes[0];
}

enum soundness { SOUND, LEAKY, CORRUPT, UNKNOWN };

static enum soundness examine(void)
{
    struct image_check found = {.leaks = 1};
    struct stat status;
    struct disk_file file = {.fd = open(path, O_RDONLY | O_CLOEXEC), .path = path, .alignment_bytes = 1};
    file.is_read_only = true;
    if (fstat(file.fd, &status) < 0)
        abort();
    file.size_bytes = (uint64_t)status.st_size;
    int result = qcow2_check(&file, IMAGE_REPAIR_NONE, NULL, NULL, &found, &err);
    close(file.fd);
    if (result < 0)
        return UNKNOWN;
    return found.corruptions > 0 ? CORRUPT : found.leaks > 0 ? LEAKY : SOUND;
}

static bool is_sound(void)
{
    return examine() == SOUND;
}

/* ---- headers ---- */

TEST(a_header_is_refused_for_each_of_its_fields)
{
    static const struct {
        const char *what;
        uint64_t offset, value;
        size_t width;
    } faults[] = {
        {"begins like another format", 0, 0x514649fc, 4},
        {"version 4", 4, 4, 4},
        {"a backing file's name outside the cluster", 8, 4090, 8},
        {"clusters of 256 bytes", 20, 8, 4},
        {"clusters of 4 MiB", 20, 22, 4},
        {"a shift that is undefined", 20, 64, 4},
        {"a size that is no int64_t", 24, UINT64_MAX & ~UINT64_C(511), 8},
        {"a size that its L1 table does not reach", 24, UINT64_C(1) << 40, 8},
        {"a size that is no whole sector", 24, disk_bytes + 1, 8},
        {"encryption", 32, 1, 4},
        {"an L1 table that is too short", 36, 0, 4},
        {"an L1 table that is too long", 36, UINT32_MAX, 4},
        {"an L1 table between clusters", 40, 3 * cluster + 8, 8},
        {"an L1 table outside the file", 40, UINT64_C(1) << 40, 8},
        {"an L1 table at the end of numbers", 40, UINT64_MAX & ~UINT64_C(4095), 8},
        {"a refcount table between clusters", 48, 512, 8},
        {"a refcount table outside the file", 48, UINT64_C(1) << 41, 8},
        {"a refcount table that is too long", 56, UINT32_MAX, 4},
        {"too many snapshots", 60, LIMIT_QCOW2_SNAPSHOTS + 1, 4},
        {"snapshots that are not there", 60, 3, 4},
        {"data in another file", 72, 4, 8},
        {"a compression that is not named", 72, 8, 8},
        {"extended entries in clusters of 4 KiB", 72, 16, 8},
        {"an unknown feature", 72, UINT64_C(1) << 40, 8},
        {"refcounts of 128 bits", 96, 7, 4},
        {"a header that is too short", 100, 96, 4},
        {"a header that ends between", 100, 108, 4},
        {"a header longer than its cluster", 100, 8192, 4},
        {"an unknown compression", 104, 2, 1},
        {"an extension that leaves the header", 116, UINT32_MAX, 4},
    };
    for (size_t i = 0; i < array_length(faults); i++) {
        CHECK_INT(create_plain(), 0);
        poke_number(faults[i].offset, faults[i].value, faults[i].width);
        if (faults[i].offset == 8)
            poke_number(16, 100, 4);
        if (open_and_close(false) >= 0 || err.message[0] == '\0') {
            test_fail(__FILE__, __LINE__, "not refused: %s", faults[i].what);
            return;
        }
    }
    CHECK_INT(create_plain(), 0);
    CHECK_INT(open_and_close(false), 0);
}

TEST(an_unknown_feature_is_refused_by_its_name)
{
    static const uint8_t entry[48] = {0, 40, 'w', 'a', 'r', 'p'};
    CHECK_INT(create_plain(), 0);
    poke_number(72, UINT64_C(1) << 40, 8);
    poke(120, entry, sizeof(entry)); /* in place of the first name of the table */
    CHECK(open_and_close(true) < 0);
    CHECK(strstr(err.message, "warp") != NULL);
}

TEST(what_we_do_not_keep_up_is_cleared_when_we_may_write)
{
    CHECK_INT(create_plain(), 0);
    poke_number(88, UINT64_C(1) << 50 | 1, 8);
    CHECK_INT(open_and_close(true), 0);
    CHECK(peek(88) != 0);
    CHECK_INT(open_and_close(false), 0);
    CHECK_INT(peek(88), 0);
}

TEST(a_corrupt_image_can_only_be_read)
{
    CHECK_INT(create_plain(), 0);
    poke_number(72, 2, 8);
    CHECK(open_and_close(false) < 0);
    CHECK(strstr(err.remedy, "repair") != NULL);
    CHECK_INT(open_and_close(true), 0);
}

TEST(options_are_refused_before_anything_is_written)
{
    static const struct image_create_options refused[] = {
        {.size_bytes = 100},
        {.size_bytes = disk_bytes, .version = 4},
        {.size_bytes = disk_bytes, .cluster_bytes = 256},
        {.size_bytes = disk_bytes, .cluster_bytes = 5000},
        {.size_bytes = disk_bytes, .refcount_bits = 24},
        {.size_bytes = disk_bytes, .refcount_bits = 128},
        {.size_bytes = disk_bytes, .version = 2, .refcount_bits = 8},
        {.size_bytes = disk_bytes, .version = 2, .lazy_refcounts = true},
        {.size_bytes = disk_bytes, .version = 2, .compression = IMAGE_ZSTD},
        {.size_bytes = disk_bytes, .backing_path = "", .backing_format = VIAL_DISK_RAW},
        {.size_bytes = disk_bytes, .backing_path = "b", .preallocation = IMAGE_METADATA},
        {.size_bytes = UINT64_C(1) << 60, .cluster_bytes = 512},
    };
    for (size_t i = 0; i < array_length(refused); i++) {
        struct stat status;
        err = (struct vial_error){0};
        CHECK(create(refused[i]) < 0);
        CHECK(err.field[0] != '\0' && stat(path, &status) == 0 && status.st_size == 0);
    }
}

/* ---- the map ---- */

TEST(the_map_tells_of_what_may_be_written_in_place)
{
    struct disk *disk = NULL;
    struct disk_extent extent;
    CHECK_INT(create_plain(), 0);
    CHECK_INT(open_image(false, &disk), 0);
    CHECK_INT(disk_map(disk, 0, disk_bytes, false, &extent), 0); /* no table: nothing to wait for */
    CHECK(extent.kind == DISK_EXTENT_ZERO && extent.length == disk_bytes);
    CHECK_INT(disk_map(disk, 0, 512, true, &extent), -EAGAIN);
    CHECK_INT(put(disk, cluster, 3 * cluster, 7), 0);
    CHECK_INT(disk_map(disk, cluster + 512, 8 * cluster, true, &extent), 0);
    CHECK(extent.kind == DISK_EXTENT_FILE && extent.length == 3 * cluster - 512);
    CHECK_INT(disk_sync_fd(disk), -1); /* the tables are not in the file yet */
    CHECK_INT(disk_flush(disk), 0);
    CHECK(disk_sync_fd(disk) >= 0);
    CHECK_INT(disk_zero(disk, 2 * cluster, cluster, false), 0);
    CHECK_INT(disk_map(disk, 2 * cluster, cluster, true, &extent), -EAGAIN);
    CHECK_INT(disk_map(disk, 2 * cluster, cluster, false, &extent), 0);
    CHECK(extent.kind == DISK_EXTENT_ZERO && extent.length == cluster);
    CHECK_INT(qcow2_snapshot_create(disk->shape.state, "one", &err), 0);
    CHECK_INT(disk_map(disk, cluster, cluster, true, &extent), -EAGAIN); /* shared */
    CHECK_INT(get(disk, cluster, cluster), 7);
    CHECK_INT(disk_map(disk, cluster, cluster, false, &extent), 0);
    CHECK_INT(disk_close(disk, &err), 0);
    CHECK(is_sound());
    CHECK_INT(open_image(false, &disk), 0);
    CHECK_INT(disk_map(disk, cluster, cluster, false, &extent), -EAGAIN); /* its table has to be read */
    CHECK_INT(get(disk, cluster, cluster), 7);
    CHECK_INT(disk_map(disk, cluster, cluster, false, &extent), 0);
    CHECK_INT(disk_close(disk, &err), 0);
}

/* ---- damage ---- */

/* With one cluster of data, what a fault in its tables does to a write. The layout is create's: header, refcount table,
 * block, L1, then the L2 table and the data. */
enum { at_block = 2 * cluster, at_l1 = 3 * cluster, at_l2 = 4 * cluster, at_data = 5 * cluster };

static int write_with_fault(uint64_t offset, uint64_t value, size_t width)
{
    struct disk *disk = NULL;
    if (create_plain() < 0 || open_image(false, &disk) < 0 || put(disk, 0, cluster, 5) < 0 ||
        disk_close(disk, &err) < 0)
        abort();
    poke_number(offset, value, width);
    int result = open_image(false, &disk);
    if (result < 0)
        return result;
    result = put(disk, 0, 512, 6);
    if (result == -EIO &&
        (put(disk, cluster, 512, 6) != -EIO || disk_flush(disk) != 0 || disk_discard(disk, 0, cluster) != -EIO))
        result = -EPROTO; /* once found, nothing is written any more */
    disk_close(disk, &err);
    return result;
}

TEST(damage_is_found_marked_and_not_made_worse)
{
    static const struct {
        const char *what;
        uint64_t offset, value;
        size_t width;
    } faults[] = {
        {"data in the header", at_l2, UINT64_C(1) << 63, 8},
        {"data in the L1 table", at_l2, UINT64_C(1) << 63 | at_l1, 8},
        {"data in a refcount block", at_l2, UINT64_C(1) << 63 | at_block, 8},
        {"data in its own L2 table", at_l2, UINT64_C(1) << 63 | at_l2, 8},
        {"data between clusters", at_l2, UINT64_C(1) << 63 | (at_data + 512), 8},
        {"data behind the file", at_l2, UINT64_C(1) << 63 | UINT64_C(1) << 40, 8},
        {"reserved bits", at_l2, UINT64_C(1) << 63 | UINT64_C(1) << 57 | at_data, 8},
        {"other reserved bits", at_l2, UINT64_C(1) << 63 | 2 | at_data, 8},
        {"a used cluster that counts as free", at_block + 2 * 5, 0, 2},
        {"a compressed cluster behind the file", at_l2, UINT64_C(1) << 62 | UINT64_C(1) << 40, 8},
        {"reserved bits of L1", at_l1, UINT64_C(1) << 63 | at_l2 | 1, 8},
    };
    for (size_t i = 0; i < array_length(faults); i++) {
        int result = write_with_fault(faults[i].offset, faults[i].value, faults[i].width);
        if (result != -EIO || (peek(72) & 2) == 0) {
            test_fail(__FILE__, __LINE__, "%s: %d, features %llx", faults[i].what, result,
                      (unsigned long long)peek(72));
            return;
        }
        CHECK(open_and_close(false) < 0);
    }
    CHECK_INT(write_with_fault(at_data, 0, 1), 0);
    CHECK_INT(peek(72), 0);
    CHECK_INT(write_with_fault(at_l2, at_data, 8), 0); /* not said to be ours, but counted once: written in place */
    CHECK_INT(peek(at_l2), (int64_t)(UINT64_C(1) << 63 | at_data));
    CHECK(is_sound());
}

/* What a crash leaves when it comes between the removal of a snapshot and the bits that follow from it. */
TEST(a_table_counted_once_is_ours_without_its_bit)
{
    struct disk *disk = NULL;
    CHECK_INT(write_with_fault(at_l1, at_l2, 8), 0);
    CHECK_INT(open_image(false, &disk), 0);
    for (uint64_t at = cluster; at < disk_bytes; at += cluster) {
        CHECK_INT(put(disk, at, 512, 6), 0);
        CHECK_INT(disk_flush(disk), 0);
    }
    CHECK_INT(disk_close(disk, &err), 0);
    CHECK_INT(peek(at_l1), (int64_t)(UINT64_C(1) << 63 | at_l2));
    CHECK(is_sound());
}

enum { front_bytes = 6 * cluster };

static void look_at_front(uint8_t *bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || pread(fd, bytes, front_bytes, 0) != front_bytes)
        abort();
    close(fd);
}

/* A guest that trims its disk must not make a hole where the image's own structures lie. */
TEST(what_an_entry_wrongly_names_is_not_given_back)
{
    static const uint64_t structures[] = {0, cluster, at_block, at_l1, at_l2};
    for (size_t i = 0; i < array_length(structures) * 4; i++) {
        struct disk *disk = NULL;
        static uint8_t before[front_bytes], after[front_bytes];
        uint64_t where = structures[i / 4], packed = UINT64_C(1) << 62 | (where != 0 ? where : 512);
        CHECK_INT(write_with_fault(at_data, 0, 1), 0);
        if (i % 4 < 3)
            poke_number(at_l2 + 8, i % 4 == 0 ? packed : where | (i % 4 == 1 ? UINT64_C(1) << 63 : 0), 8);
        else
            poke_number(at_l2 + 8, (where - 512) | UINT64_C(1) << 62 | UINT64_C(1) << 58, 8); /* reaches into it */
        if (where == 0 && i % 4 >= 2)
            continue; /* that is no entry, or none in the file */
        look_at_front(before);
        CHECK_INT(open_image(false, &disk), 0);
        CHECK_INT(i % 2 == 0 ? disk_discard(disk, cluster, cluster) : disk_zero(disk, cluster, cluster, true), -EIO);
        CHECK_INT(put(disk, cluster, 512, 6), -EIO);
        disk_close(disk, &err);
        CHECK((peek(72) & 2) != 0);
        look_at_front(after);
        memcpy(after + 72, before + 72, 8); /* the mark */
        CHECK(memcmp(before, after, sizeof(before)) == 0);
    }
}

TEST(a_snapshot_does_not_give_back_a_table_in_use)
{
    struct disk *disk = NULL;
    CHECK_INT(write_with_fault(at_data, 0, 1), 0);
    CHECK_INT(open_image(false, &disk), 0);
    CHECK_INT(qcow2_snapshot_create(disk->shape.state, "one", &err), 0);
    CHECK_INT(put(disk, 0, 512, 6), 0); /* into a copy of the table */
    CHECK_INT(disk_close(disk, &err), 0);
    uint64_t table = peek(at_l1) & ~(UINT64_C(1) << 63);
    CHECK(table != at_l2);
    poke_number(peek(peek(64)), table, 8); /* the snapshot's L1 table */
    CHECK_INT(open_image(false, &disk), 0);
    CHECK(qcow2_snapshot_remove(disk->shape.state, "one", &err) < 0);
    CHECK(disk_close(disk, &err) < 0);
    CHECK_INT(peek(at_block + 2 * (table / cluster)) >> 48, 1);
}

/* The index of structures is asked on the device's thread while others make tables. */
struct asker {
    struct disk *disk;
    atomic_bool is_over;
};

static void *ask_the_map(void *user)
{
    struct asker *asker = user;
    struct disk_extent extent;
    while (!atomic_load(&asker->is_over))
        (void)disk_map(asker->disk, 0, 512, true, &extent);
    return NULL;
}

TEST(the_map_is_asked_while_tables_are_made)
{
    enum { whole = 64 << 20, table_reach = 32 << 10 };
    struct asker asker = {.disk = NULL};
    pthread_t thread;
    CHECK_INT(create((struct image_create_options){.size_bytes = whole, .cluster_bytes = 512}), 0);
    CHECK_INT(open_image(false, &asker.disk), 0);
    CHECK_INT(put(asker.disk, 0, 512, 1), 0);
    CHECK_INT(pthread_create(&thread, NULL, ask_the_map, &asker), 0);
    for (uint64_t at = table_reach; at < whole; at += table_reach)
        CHECK_INT(put(asker.disk, at, 512, 1), 0);
    atomic_store(&asker.is_over, true);
    pthread_join(thread, NULL);
    CHECK_INT(disk_resize(asker.disk, UINT64_C(8) * whole, false, &err), 0); /* another L1 table */
    CHECK_INT(disk_close(asker.disk, &err), 0);
    CHECK(is_sound());
}

TEST(a_table_that_is_nowhere_is_refused_for_writing)
{
    static const uint64_t places[] = {at_l2 + 512, UINT64_C(1) << 40, UINT64_C(1) << 55};
    for (size_t i = 0; i < array_length(places); i++) {
        CHECK(write_with_fault(at_l1, UINT64_C(1) << 63 | places[i], 8) < 0);
        CHECK(strstr(err.remedy, "repair") != NULL);
        CHECK_INT(open_and_close(true), 0);
        CHECK(write_with_fault(cluster + 8, places[i], 8) < 0); /* a refcount block */
    }
}

TEST(the_set_of_structures_is_right_and_fast_for_any_numbers)
{
    enum { count = 100000 };
    const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15); /* what everybody multiplies with */
    struct qcow2_set set = {.capacity = 0};
    uint64_t inverse = golden;
    for (int i = 0; i < 6; i++)
        inverse *= 2 - golden * inverse;
    uint64_t from_ns = clock_now_ns();
    for (uint64_t i = 1; i <= count; i++)
        CHECK_INT(qcow2_set_add(&set, i * inverse & ((UINT64_C(1) << 44) - 1)), 0);
    CHECK_INT(set.count, count);
    for (uint64_t i = 3; i <= count; i += 3)
        qcow2_set_remove(&set, i * inverse & ((UINT64_C(1) << 44) - 1));
    CHECK_INT(set.count, count - count / 3);
    for (uint64_t i = 1; i <= count; i++)
        CHECK_INT(qcow2_set_contains(&set, i * inverse & ((UINT64_C(1) << 44) - 1)), i % 3 != 0);
    CHECK(clock_now_ns() - from_ns < 2 * CLOCK_NS_PER_S);
    qcow2_set_release(&set);
}

TEST(two_tables_in_one_cluster_are_refused_for_writing)
{
    CHECK(write_with_fault(at_l1, UINT64_C(1) << 63 | at_block, 8) < 0);
    CHECK(strstr(err.remedy, "repair") != NULL);
    CHECK_INT(open_and_close(true), 0);
    CHECK(write_with_fault(cluster, at_l1, 8) < 0); /* a refcount block */
}

TEST(a_free_cluster_that_holds_a_table_is_not_taken)
{
    struct disk *disk = NULL;
    CHECK_INT(write_with_fault(at_data, 0, 1), 0);
    poke_number(at_block + 2 * 3, 0, 2); /* the L1 table */
    CHECK_INT(open_image(false, &disk), 0);
    CHECK_INT(put(disk, 8 * cluster, 512, 6), -EIO);
    CHECK(disk_close(disk, &err) < 0);
    CHECK_INT(peek(at_l1), (int64_t)(UINT64_C(1) << 63 | at_l2));
}

/* ---- checks ---- */

static int repair(enum image_repair how, struct image_check *ret_found)
{
    struct disk_file file = {.fd = open(path, O_RDWR | O_CLOEXEC), .path = path, .alignment_bytes = 1};
    file.size_bytes = (uint64_t)lseek(file.fd, 0, SEEK_END);
    int result = qcow2_check(&file, how, NULL, NULL, ret_found, &err);
    close(file.fd);
    return result;
}

/* Below an entry that cannot be read everything seems to leak. */
TEST(leaks_below_a_broken_entry_are_not_given_back)
{
    struct image_check found = {0};
    CHECK_INT(write_with_fault(at_data, 0, 1), 0);
    uint64_t entry = peek(at_l1), counts = peek(at_block + 2 * 4);
    poke_number(at_l1, entry | 2, 8);
    CHECK_INT(repair(IMAGE_REPAIR_LEAKS, &found), 0);
    CHECK(found.corruptions == 1 && found.leaks == 2 && found.leaks_fixed == 0);
    CHECK_INT(peek(at_block + 2 * 4), (int64_t)counts);
    poke_number(at_l1, entry, 8);
    CHECK(is_sound());
    poke_number(at_block + 2 * 9, 1, 2); /* a leak, and nothing else */
    CHECK_INT(repair(IMAGE_REPAIR_LEAKS, &found), 0);
    CHECK(found.corruptions == 0 && found.leaks == 0 && found.leaks_fixed == 1);
    poke_number(at_l1, entry | 2, 8);
    CHECK_INT(repair(IMAGE_REPAIR_ALL, &found), 0);
    CHECK(found.corruptions == 0 && found.leaks == 0 && found.leaks_fixed == 2);
    CHECK(is_sound());
}

/* Of its clusters that are in the file, none stays counted. */
TEST(a_packed_cluster_that_leaves_the_file_goes_whole)
{
    struct image_check found = {0};
    struct stat status;
    CHECK_INT(write_with_fault(at_data, 0, 1), 0);
    CHECK(stat(path, &status) == 0 && status.st_size % cluster == 0);
    uint64_t end = (uint64_t)status.st_size;
    poke_number(at_l2 + 8, (end - 100) | UINT64_C(1) << 62 | UINT64_C(1) << 58, 8);
    poke_number(at_block + 2 * (end / cluster - 1), 2, 2);
    CHECK_INT(repair(IMAGE_REPAIR_ALL, &found), 0);
    CHECK(found.corruptions == 0 && found.corruptions_fixed > 0 && found.compressed_clusters == 0);
    CHECK(is_sound());
}

/* Refcounts of one bit cannot say that two packed clusters share one: both stay, to be read. */
TEST(what_no_refcount_can_say_is_not_called_repaired)
{
    struct image_check found = {0};
    struct disk *disk = NULL;
    CHECK_INT(write_with_fault(at_data, 0, 1), 0);
    poke_number(96, 0, 4);
    CHECK_INT(repair(IMAGE_REPAIR_ALL, &found), 0);
    CHECK(found.corruptions == 0 && is_sound());
    for (unsigned i = 0; i < 2; i++)
        poke_number(at_l2 + 8 * i, at_data | UINT64_C(1) << 62, 8);
    for (unsigned i = 0; i < 2; i++) {
        CHECK_INT(repair(IMAGE_REPAIR_ALL, &found), 0);
        CHECK(found.corruptions == 1 && found.compressed_clusters == 2);
    }
    poke_number(72, 1, 8); /* not closed: whoever opens it to write counts, too */
    CHECK_INT(open_image(false, &disk), -EINVAL);
}

/* Each snapshot may say that it has the largest of L1 tables, where the file has none. */
TEST(a_check_of_very_many_large_snapshots_ends)
{
    enum { count = 600, at_list = 16 * cluster };
    CHECK_INT(create_plain(), 0);
    for (uint64_t i = 0; i < count; i++) {
        poke_number(at_list + i * 48, 8 * cluster, 8);
        poke_number(at_list + i * 48 + 8, LIMIT_QCOW2_L1_BYTES / 8, 4);
        poke_number(at_list + i * 48 + 12, 1 << 16 | 1, 4);
        poke_number(at_list + i * 48 + 40, UINT64_C(0x6161) << 48, 8);
    }
    poke_number(60, count, 4);
    poke_number(64, at_list, 8);
    CHECK(examine() == UNKNOWN);
    CHECK(strstr(err.message, "too many") != NULL);
}

/* ---- memory that fails ---- */

TEST(opening_survives_no_memory)
{
    CHECK_INT(create_plain(), 0);
    FOR_EACH_FAULT
    {
        struct disk *disk = NULL;
        int result = open_image(false, &disk);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        disk_free(disk);
    }
}

TEST(changes_survive_no_memory)
{
    FOR_EACH_FAULT
    {
        struct disk *disk = NULL;
        if (create_plain() < 0)
            continue;
        int result = open_image(false, &disk);
        if (result == 0)
            result = put(disk, 1000 * 512, 5 * cluster, 9);
        if (result == 0)
            result = qcow2_snapshot_create(disk->shape.state, "one", &err);
        if (result == 0)
            result = put(disk, 1001 * 512, 512, 10);
        if (result == 0)
            result = disk_zero(disk, 1002 * 512, cluster, true);
        if (result == 0)
            result = disk_resize(disk, UINT64_C(1) << 33, false, &err);
        if (result == 0)
            result = qcow2_snapshot_apply(disk->shape.state, "one", &err);
        if (result == 0)
            result = qcow2_snapshot_remove(disk->shape.state, "one", &err);
        CHECK(result == 0 || result == -ENOMEM);
        if (disk != NULL)
            result = disk_close(disk, &err);
        enum soundness soundness = examine();
        CHECK(soundness == SOUND || (fault_was_hit() && soundness != CORRUPT));
        CHECK(result == 0 || fault_was_hit());
    }
}

TEST(a_check_survives_no_memory)
{
    struct disk_file file = {.alignment_bytes = 1};
    CHECK_INT(create_plain(), 0);
    poke_number(cluster, 0, 8); /* no refcounts at all */
    file.path = path;
    file.fd = open(path, O_RDWR | O_CLOEXEC);
    file.size_bytes = (uint64_t)lseek(file.fd, 0, SEEK_END);
    FOR_EACH_FAULT
    {
        struct image_check found = {0};
        int result = qcow2_check(&file, IMAGE_REPAIR_ALL, NULL, NULL, &found, &err);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
    }
    close(file.fd);
    CHECK(is_sound());
}

/* ---- many at once ---- */

struct worker {
    struct disk *disk;
    unsigned number;
    int result;
};

/* Each has sectors of its own, in clusters that it shares with the others. */
static void *work(void *user)
{
    struct worker *worker = user;
    for (unsigned round = 0; round < 40 && worker->result == 0; round++)
        for (uint64_t at = worker->number * 512; at < disk_bytes && worker->result == 0; at += 16 * 512) {
            uint8_t value = (uint8_t)(worker->number * 40 + round + 1);
            if (round % 8 == 5)
                worker->result = disk_zero(worker->disk, at, 512, true);
            else
                worker->result = put(worker->disk, at, 512, value);
            if (worker->result == 0 && get(worker->disk, at, 512) != (round % 8 == 5 ? 0 : value))
                worker->result = -EPROTO;
            if (worker->result == 0 && at % (512 * 1024) < 4096)
                worker->result = disk_flush(worker->disk);
        }
    return NULL;
}

static void work_together(const struct image_create_options *options, bool is_packed)
{
    struct worker workers[4];
    pthread_t threads[4];
    static uint8_t packed[cluster];
    struct disk *disk = NULL;
    CHECK_INT(create(*options), 0);
    CHECK_INT(open_image(false, &disk), 0);
    for (uint64_t at = 0; is_packed && at < disk_bytes; at += cluster)
        CHECK_INT(qcow2_compress_cluster(disk->shape.state, packed, at), 0);
    for (unsigned i = 0; i < 4; i++) {
        workers[i] = (struct worker){disk, i, 0};
        CHECK_INT(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < 4; i++)
        CHECK_INT(workers[i].result, 0);
    CHECK_INT(disk_close(disk, &err), 0);
    CHECK(is_sound());
}

TEST(several_threads_write_the_same_clusters)
{
    work_together(&(struct image_create_options){.size_bytes = disk_bytes, .cluster_bytes = cluster}, false);
    work_together(&(struct image_create_options){.size_bytes = disk_bytes, .lazy_refcounts = true}, false);
}

TEST(several_threads_write_over_compressed_clusters)
{
    work_together(&(struct image_create_options){.size_bytes = disk_bytes, .cluster_bytes = cluster}, true);
}

TEST(clusters_are_compressed_where_nothing_is)
{
    static uint8_t bytes[disk_bytes];
    struct disk *disk = NULL;
    CHECK_INT(create((struct image_create_options){
                  .size_bytes = disk_bytes - 512, .cluster_bytes = cluster, .compression = IMAGE_ZSTD}),
              0);
    memset(bytes, 0x31, sizeof(bytes));
    CHECK_INT(open_image(false, &disk), 0);
    CHECK_INT(qcow2_compress_cluster(disk->shape.state, bytes, 512), -EINVAL);
    for (uint64_t at = 0; at < disk_bytes; at += cluster)
        CHECK_INT(qcow2_compress_cluster(disk->shape.state, bytes + at, at), 0);
    CHECK_INT(get(disk, 0, disk_bytes - 512), 0x31);
    CHECK_INT(qcow2_compress_cluster(disk->shape.state, bytes, 0), 0); /* there is something: written plainly */
    CHECK_INT(get(disk, 0, disk_bytes - 512), 0x31);
    CHECK_INT(disk_close(disk, &err), 0);
    CHECK(is_sound());
}
