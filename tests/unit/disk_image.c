// SPDX-License-Identifier: Apache-2.0
/* Tests of images as files: making, replacing, copying, and what is left when that fails. (What qcow2 has of its own is
 * tested with it.) */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "disk/image.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static struct vial_error err;

static const char *in_folder(const char *name)
{
    static char paths[8][4096];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof(paths[0]), "%s/%s", test_folder(), name);
    return path;
}

/* How many files the scratch folder has. */
static int count_files(void)
{
    DIR *list = opendir(test_folder());
    int count = -2; /* . and .. */
    while (list != NULL && readdir(list) != NULL)
        count++;
    if (list != NULL)
        closedir(list);
    return count;
}

static struct image_create_options raw_of(const char *name, uint64_t size_bytes)
{
    return (struct image_create_options){.path = in_folder(name), .format = VIAL_DISK_RAW, .size_bytes = size_bytes};
}

/* ---- making ---- */

TEST(a_raw_image_is_made)
{
    static const enum image_preallocation ways[] = {IMAGE_SPARSE, IMAGE_FALLOCATE, IMAGE_FULL};
    for (size_t i = 0; i < array_length(ways); i++) {
        struct image_create_options options = raw_of("disk", 3 << 20);
        struct image_info info;
        struct stat about;
        options.preallocation = ways[i];
        options.replaces = i > 0;
        CHECK_INT(image_create(&options, &err), 0);
        CHECK(stat(options.path, &about) == 0 && about.st_size == 3 << 20);
        CHECK_INT(about.st_mode & 07777, 0600);
        CHECK((about.st_blocks >= 3 << 11) == (i > 0));
        CHECK_INT(image_info(options.path, VIAL_DISK_RAW, &info, &err), 0);
        CHECK_INT(info.size_bytes, 3 << 20);
        CHECK_INT(info.allocated_bytes, about.st_blocks * 512);
        CHECK_INT(count_files(), 1);
    }
}

TEST(options_that_make_no_sense_are_refused)
{
    const struct image_create_options wrong[] = {
        {.format = VIAL_DISK_UNSET, .size_bytes = 512},
        {.format = VIAL_DISK_VMDK, .size_bytes = 512},
        {.format = VIAL_DISK_RAW},
        {.format = VIAL_DISK_RAW, .size_bytes = 513},
        {.format = VIAL_DISK_RAW, .size_bytes = 1ull << 63},
        {.format = VIAL_DISK_RAW, .size_bytes = 512, .preallocation = IMAGE_METADATA},
        {.format = VIAL_DISK_RAW, .size_bytes = 512, .cluster_bytes = 65536},
        {.format = VIAL_DISK_RAW, .size_bytes = 512, .backing_path = "b", .backing_format = VIAL_DISK_RAW},
        {.format = VIAL_DISK_QCOW2, .size_bytes = 512, .version = 1},
        {.format = VIAL_DISK_QCOW2, .size_bytes = 512, .cluster_bytes = 256},
        {.format = VIAL_DISK_QCOW2, .size_bytes = 512, .cluster_bytes = 4 << 20},
        {.format = VIAL_DISK_QCOW2, .size_bytes = 512, .cluster_bytes = 65535},
        {.format = VIAL_DISK_QCOW2, .size_bytes = 512, .refcount_bits = 3},
        {.format = VIAL_DISK_QCOW2, .size_bytes = 512, .refcount_bits = 128},
        {.format = VIAL_DISK_QCOW2, .size_bytes = 512, .version = 2, .lazy_refcounts = true},
        {.format = VIAL_DISK_QCOW2, .size_bytes = 512, .version = 2, .compression = IMAGE_ZSTD},
        {.format = VIAL_DISK_QCOW2, .size_bytes = 512, .backing_path = "gone", .backing_format = VIAL_DISK_RAW},
        {.format = VIAL_DISK_QCOW2, .size_bytes = 512, .backing_path = "gone", .backing_format = VIAL_DISK_UNSET},
    };
    for (size_t i = 0; i < array_length(wrong); i++) {
        struct image_create_options options = wrong[i];
        options.path = in_folder("disk");
        err = (struct vial_error){0};
        CHECK(image_create(&options, &err) < 0);
        CHECK(err.message[0] != '\0' && err.remedy[0] != '\0');
        CHECK_INT(count_files(), 0);
    }
}

TEST(a_file_that_is_there_is_replaced_only_when_meant)
{
    struct image_create_options options = raw_of("disk", 4096);
    struct stat about;
    test_text_file("disk", "mine");
    CHECK_INT(image_create(&options, &err), -EEXIST);
    CHECK(strstr(err.remedy, "--replace") != NULL);
    CHECK(stat(options.path, &about) == 0 && about.st_size == 4);
    options.replaces = true;
    CHECK_INT(image_create(&options, &err), 0);
    CHECK(stat(options.path, &about) == 0 && about.st_size == 4096);
    CHECK_INT(count_files(), 1);
    const struct disk_options used = {.path = options.path, .format = VIAL_DISK_RAW, .read_only = true};
    struct disk *disk = NULL;
    CHECK_INT(disk_open(&used, &disk, &err), 0);
    options.size_bytes = 8192;
    CHECK_INT(image_create(&options, &err), -EBUSY);
    disk_free(disk);
    CHECK(stat(options.path, &about) == 0 && about.st_size == 4096);
}

TEST(only_a_regular_file_is_replaced)
{
    struct image_create_options options = raw_of("link", 4096);
    options.replaces = true;
    test_text_file("target", "mine");
    CHECK_INT(symlink("target", options.path), 0);
    CHECK_INT(image_create(&options, &err), -EINVAL);
    options.path = in_folder("fifo");
    CHECK_INT(mkfifo(options.path, 0600), 0);
    CHECK_INT(image_create(&options, &err), -EINVAL);
    options.path = "/dev/null";
    CHECK_INT(image_create(&options, &err), -EINVAL);
    options.path = test_make_folder("folder");
    CHECK_INT(image_create(&options, &err), -EINVAL);
    options.path = in_folder("folder/");
    CHECK_INT(image_create(&options, &err), -EINVAL);
    options.path = in_folder("gone/disk");
    CHECK_INT(image_create(&options, &err), -ENOENT);
    CHECK_INT(count_files(), 4);
}

TEST(making_survives_no_memory)
{
    FOR_EACH_FAULT
    {
        struct image_create_options options = raw_of("disk", 2 << 20);
        options.preallocation = IMAGE_FULL;
        options.replaces = true;
        int result = image_create(&options, &err);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        CHECK_INT(count_files(), result == 0);
    }
}

TEST(only_qcow2_has_something_to_check)
{
    struct image_check check;
    const char *path = test_text_file("disk", "x");
    CHECK_INT(image_check(path, VIAL_DISK_RAW, IMAGE_REPAIR_NONE, NULL, NULL, &check, &err), -ENOTSUP);
    CHECK_INT(image_check(path, VIAL_DISK_UNSET, IMAGE_REPAIR_NONE, NULL, NULL, &check, &err), -EINVAL);
}

/* ---- copying ---- */

enum { disk_bytes = 9 << 20 };

/* A disk with data at its ends, at the borders of pieces, and with zeros that are stored. */
static const char *make_source(uint8_t *model)
{
    static const uint64_t places[] = {0, 4095, (2 << 20) - 1, (2 << 20) + 4096, 5 << 20, disk_bytes - 3};
    memset(model, 0, disk_bytes);
    for (size_t i = 0; i < array_length(places); i++)
        memset(model + places[i], (int)i + 1, 3);
    const char *path = test_file("source", "", 0);
    auto_close int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (ftruncate(fd, disk_bytes) < 0 || pwrite(fd, model + (7 << 20), 65536, 7 << 20) != 65536)
        return NULL;
    for (size_t i = 0; i < array_length(places); i++)
        if (pwrite(fd, model + places[i], 3, (off_t)places[i]) != 3)
            return NULL;
    return path;
}

struct progress {
    uint64_t last;
    int calls, most_calls;
    bool is_sound;
};

static bool note(void *user, uint64_t done, uint64_t whole)
{
    struct progress *progress = user;
    progress->is_sound = progress->is_sound && done >= progress->last && done <= whole && whole == disk_bytes;
    progress->last = done;
    return ++progress->calls < progress->most_calls;
}

static int convert_raw(const char *source, const char *target, struct progress *progress)
{
    const struct image_convert_options options = {
        .source = {.path = source, .format = VIAL_DISK_RAW},
        .target = {.path = target, .format = VIAL_DISK_RAW},
    };
    return image_convert(&options, note, progress, &err);
}

TEST(a_copy_is_equal_and_has_holes)
{
    static uint8_t model[disk_bytes], copy[disk_bytes];
    struct progress progress = {.most_calls = 1000000, .is_sound = true};
    struct stat about;
    const char *source = make_source(model), *target = in_folder("copy");
    CHECK_INT(convert_raw(source, target, &progress), 0);
    CHECK(progress.is_sound && progress.calls > 0);
    CHECK_INT(progress.last, disk_bytes);
    auto_close int fd = open(target, O_RDONLY | O_CLOEXEC);
    CHECK_INT(pread(fd, copy, disk_bytes, 0), disk_bytes);
    CHECK(memcmp(copy, model, disk_bytes) == 0);
    CHECK(fstat(fd, &about) == 0 && about.st_blocks <= 8 * 8); /* eight pages hold something */
    CHECK_INT(count_files(), 2);
}

TEST(a_copy_can_be_given_up)
{
    static uint8_t model[disk_bytes];
    struct progress progress = {.most_calls = 1, .is_sound = true};
    const char *source = make_source(model);
    CHECK_INT(convert_raw(source, in_folder("copy"), &progress), -ECANCELED);
    CHECK_INT(count_files(), 1);
}

TEST(a_copy_that_fails_leaves_nothing)
{
    struct disk_options source = {.path = test_text_file("d.vmdk", "# Disk DescriptorFile\ncreateType=\"custom\"\n"
                                                                   "RW 8 ZERO\nNOACCESS 8 FLAT \"x\"\n"),
                                  .format = VIAL_DISK_VMDK};
    struct image_convert_options options = {.source = source,
                                            .target = {.path = in_folder("copy"), .format = VIAL_DISK_RAW}};
    CHECK_INT(image_convert(&options, NULL, NULL, &err), -EIO);
    CHECK(strstr(err.message, "cannot read") != NULL);
    CHECK_INT(count_files(), 1);
    options.source = (struct disk_options){.path = test_file("s", (const char[4096]){0}, 4096),
                                           .format = VIAL_DISK_RAW};
    options.compresses = true;
    CHECK_INT(image_convert(&options, NULL, NULL, &err), -EINVAL);
    options.compresses = false;
    options.target.size_bytes = 2048;
    CHECK_INT(image_convert(&options, NULL, NULL, &err), -ERANGE);
    options.target.size_bytes = 8192;
    CHECK_INT(image_convert(&options, NULL, NULL, &err), 0);
    options.target.path = options.source.path; /* onto itself */
    options.target.replaces = true;
    CHECK_INT(image_convert(&options, NULL, NULL, &err), -EBUSY);
    CHECK_INT(count_files(), 3);
}

TEST(copying_survives_no_memory)
{
    static uint8_t model[disk_bytes];
    struct progress progress = {.most_calls = 1000000, .is_sound = true};
    const char *source = make_source(model);
    FOR_EACH_FAULT
    {
        progress.last = 0;
        int result = convert_raw(source, in_folder("copy"), &progress);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        CHECK_INT(count_files(), result == 0 ? 2 : 1);
    }
}
