// SPDX-License-Identifier: Apache-2.0
/* Tests of VMDK disks: descriptors, extents and where they may lie, sparse extents broken in every field. */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "disk/open.h"
#include "disk/vmdk.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

static struct vial_error err;

#define HEAD "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentFlat\"\n"

static int open_vmdk(const char *path, struct disk **ret_disk)
{
    const struct disk_options options = {.path = path, .format = VIAL_DISK_VMDK, .read_only = true};
    return disk_open(&options, ret_disk, &err);
}

static int open_text(const char *text, struct disk **ret_disk)
{
    return open_vmdk(test_text_file("disk.vmdk", text), ret_disk);
}

static int read_at(struct disk *disk, void *bytes, size_t length, uint64_t offset)
{
    struct iovec part = {bytes, length};
    return disk_read(disk, &part, 1, offset);
}

/* ---- descriptors ---- */

static int parse(const char *text, struct vmdk_descriptor *ret_descriptor)
{
    return vmdk_descriptor_parse("d", text, strlen(text), ret_descriptor, &err);
}

TEST(a_descriptor_is_understood)
{
    static const char text[] = "  # disk descriptorfile \r\n"
                               "version=3\nencoding=\"UTF-8\"\nCID=1\nparentCID=FFFFFFFF\nisNativeSnapshot=\"no\"\n"
                               "createType = \"custom\"\n\n# Extent description\n"
                               "RW 4192256 SPARSE \"a=b c.vmdk\"\r\n"
                               "\tRDONLY  63 FLAT \"x\"  17 trailing words\n"
                               "NOACCESS 5 VMFS \"y\"\n"
                               "rw 1 zero\n"
                               "#DDB\nddb.geometry.heads = \"16\"\nddb.comment = \"RW 1 ZERO\"";
    struct vmdk_descriptor descriptor;
    CHECK_INT(parse(text, &descriptor), 0);
    CHECK_TEXT(descriptor.create_type, "custom");
    CHECK_INT(descriptor.count, 4);
    CHECK_INT(descriptor.sectors, 4192256 + 63 + 5 + 1);
    CHECK_TEXT(descriptor.lines[0].name, "a=b c.vmdk");
    CHECK(descriptor.lines[0].kind == VMDK_SPARSE && descriptor.lines[0].access == VMDK_READ_WRITE);
    CHECK(descriptor.lines[1].kind == VMDK_FLAT && descriptor.lines[1].access == VMDK_READ_ONLY);
    CHECK_INT(descriptor.lines[1].offset, 17);
    CHECK(descriptor.lines[2].kind == VMDK_FLAT && descriptor.lines[2].access == VMDK_NO_ACCESS);
    CHECK(descriptor.lines[3].kind == VMDK_ZERO && descriptor.lines[3].name == NULL);
    vmdk_descriptor_free(&descriptor);
}

TEST(what_is_not_understood_is_refused)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "no VMDK descriptor"},
        {"\n\n", "no VMDK descriptor"},
        {"root:x:0:0:root:/root:/bin/bash\n", "does not begin"},
        {HEAD, "no extent"},
        {"# Disk DescriptorFile\nRW 1 ZERO\n", "no createType"},
        {HEAD "RW 1 ZERO\nversion=4\n", "line 7: this version"},
        {HEAD "hello\n", "neither an extent"},
        {HEAD "RX 1 ZERO\n", "neither an extent"},
        {HEAD "RW\n", "number of sectors"},
        {HEAD "RW -1 ZERO\n", "number of sectors"},
        {HEAD "RW 1x ZERO\n", "number of sectors"},
        {HEAD "RW 0 ZERO\n", "no sectors"},
        {HEAD "RW 18446744073709551616 ZERO\n", "number of sectors"},
        {HEAD "RW 18014398509481984 ZERO\n", "number of sectors"},
        {HEAD "RW 18014398509481983 ZERO\nRW 1 ZERO\n", "more than 8 EiB"},
        {HEAD "RW 1 SESPARSE \"a\"\n", "kind other"},
        {HEAD "RW 1\n", "kind other"},
        {HEAD "RW 1 FLAT\n", "quotation marks"},
        {HEAD "RW 1 FLAT a 0\n", "quotation marks"},
        {HEAD "RW 1 FLAT \"\" 0\n", "quotation marks"},
        {HEAD "RW 1 FLAT \"a 0\n", "quotation marks"},
        {HEAD "RW 1 FLAT \"", "quotation marks"},
        {HEAD "RW 1 FLAT \"a\" x\n", "number of sectors"},
        {HEAD "parentCID=12345678\nRW 1 ZERO\n", "link over another disk"},
        {HEAD "parentFileNameHint=\"/etc/passwd\"\nRW 1 ZERO\n", "link over another disk"},
        {HEAD "createType=\"fullDevice\"\nRW 1 ZERO\n", "of type \"fullDevice\""},
        {HEAD "createType=\"\033[31m\"\nRW 1 ZERO\n", "x1b"},
    };
    for (size_t i = 0; i < array_length(cases); i++) {
        struct vmdk_descriptor descriptor;
        err = (struct vial_error){0};
        CHECK(parse(cases[i].text, &descriptor) < 0);
        if (strstr(err.message, cases[i].message) == NULL || err.remedy[0] == '\0')
            test_fail(__FILE__, __LINE__, "case %zu: \"%s\"", i, err.message);
    }
}

TEST(a_descriptor_has_bounds)
{
    static char text[256 << 10];
    struct vmdk_descriptor descriptor;
    for (int extents = 4096; extents <= 4097; extents++) {
        size_t length = (size_t)snprintf(text, sizeof(text), "%s", HEAD);
        for (int i = 0; i < extents; i++)
            length += (size_t)snprintf(text + length, sizeof(text) - length, "RW 8 ZERO\n");
        CHECK_INT(parse(text, &descriptor), extents == 4096 ? 0 : -E2BIG);
        if (extents == 4096)
            vmdk_descriptor_free(&descriptor);
    }
}

TEST(a_descriptor_survives_no_memory)
{
    FOR_EACH_FAULT
    {
        struct vmdk_descriptor descriptor;
        int result = parse(HEAD "RW 1 FLAT \"a\" 0\nRW 1 SPARSE \"b\"\n", &descriptor);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        if (result == 0)
            vmdk_descriptor_free(&descriptor);
    }
}

/* ---- flat extents ---- */

TEST(extents_stand_one_behind_the_other)
{
    static char a[4096], b[2048], bytes[8192];
    struct disk *disk = NULL;
    struct disk_properties properties;
    struct disk_extent extent;
    memset(a, 'a', sizeof(a));
    memset(b, 'b', sizeof(b));
    test_file("a", a, sizeof(a));
    test_file("b", b, sizeof(b));
    CHECK_INT(open_text(HEAD "RW 4 FLAT \"a\" 2\nRW 3 ZERO\nRDONLY 2 FLAT \"b\" 0\nRW 1 FLAT \"a\"\n", &disk), 0);
    disk_describe(disk, &properties);
    CHECK_INT(properties.size_bytes, 10 * 512);
    CHECK(properties.is_read_only && properties.format == VIAL_DISK_VMDK);
    CHECK_INT(read_at(disk, bytes, 5120, 0), 0);
    for (size_t i = 0; i < 5120; i++)
        CHECK_INT(bytes[i], i < 2048 ? 'a' : i < 3584 ? 0 : i < 4608 ? 'b' : 'a');
    CHECK_INT(disk_map(disk, 512, 5120 - 512, false, &extent), 0);
    CHECK(extent.kind == DISK_EXTENT_FILE && extent.offset == 1536 && extent.length == 1536);
    CHECK_INT(disk_map(disk, 2048, 3000, false, &extent), 0);
    CHECK(extent.kind == DISK_EXTENT_ZERO && extent.length == 1536);
    CHECK_INT(disk_map(disk, 4607, 2, false, &extent), 0);
    CHECK(extent.offset == 1023 && extent.length == 1);
    disk_free(disk);
}

TEST(large_extents_may_count_in_bytes)
{
    enum { megabyte = 1 << 20 };
    char text[512];
    struct disk *disk = NULL;
    struct disk_extent extent;
    auto_close int fd = open(test_text_file("layer", "x"), O_RDWR | O_CLOEXEC);
    CHECK_INT(ftruncate(fd, 3 * megabyte), 0);
    snprintf(text, sizeof(text), HEAD "RW 4096 FLAT \"layer\" 0\nRW 2048 FLAT \"layer\" %d\n", 2 * megabyte);
    CHECK_INT(open_text(text, &disk), 0);
    CHECK_INT(disk_map(disk, 2 * megabyte, 512, false, &extent), 0);
    CHECK_INT(extent.offset, 2 * megabyte);
    disk = disk_free(disk);
    snprintf(text, sizeof(text), HEAD "RW 4096 FLAT \"layer\" 0\nRW 2048 FLAT \"layer\" 4096\n");
    CHECK_INT(open_text(text, &disk), 0);
    CHECK_INT(disk_map(disk, 2 * megabyte, 512, false, &extent), 0);
    CHECK_INT(extent.offset, 2 * megabyte);
    disk = disk_free(disk);
    snprintf(text, sizeof(text), HEAD "RW 4096 FLAT \"layer\" 0\nRW 2048 FLAT \"layer\" %d\n", 2 * megabyte - 512);
    CHECK_INT(open_text(text, &disk), -EINVAL); /* it does not go on there */
}

TEST(what_must_not_be_read_is_not_even_opened)
{
    char bytes[512];
    struct disk *disk = NULL;
    CHECK_INT(open_text(HEAD "NOACCESS 1 FLAT \"gone\" 0\nRW 1 ZERO\n", &disk), 0);
    CHECK_INT(read_at(disk, bytes, 512, 0), -EIO);
    CHECK_INT(read_at(disk, bytes, 512, 512), 0);
    disk_free(disk);
}

TEST(extents_lie_in_the_folder_of_the_descriptor)
{
    static const struct {
        const char *name;
        int result;
    } cases[] = {
        {"gone", -ENOENT}, {"../secret", -EACCES}, {"/etc/passwd", -EACCES}, {"sub/file", -EACCES},
        {"./in", -EACCES}, {"..", -EACCES},        {".", -EACCES},           {"link", -ELOOP},
        {"fifo", -EINVAL}, {"sub", -EINVAL},       {"json:{}", -ENOENT},     {"dangling", -ELOOP},
        {"far", -ELOOP},
    };
    char path[4096], name[4096];
    test_text_file("secret", "secret");
    const char *inner = test_file("images/in", (const char[512]){0}, 512);
    test_text_file("images/sub/file", "x");
    const char *descriptor = test_text_file("images/disk.vmdk", "");
    snprintf(path, sizeof(path), "%s/images/link", test_folder());
    CHECK_INT(symlink("in", path), 0);
    snprintf(path, sizeof(path), "%s/images/far", test_folder());
    CHECK_INT(symlink("/etc/passwd", path), 0);
    snprintf(path, sizeof(path), "%s/images/dangling", test_folder());
    CHECK_INT(symlink("nowhere", path), 0);
    snprintf(path, sizeof(path), "%s/images/fifo", test_folder());
    CHECK_INT(mkfifo(path, 0600), 0);
    for (size_t i = 0; i < array_length(cases); i++) {
        char text[1024];
        struct disk *disk = NULL;
        int length = snprintf(text, sizeof(text), HEAD "RW 1 FLAT \"%s\" 0\n", cases[i].name);
        auto_close int fd = open(descriptor, O_WRONLY | O_TRUNC | O_CLOEXEC);
        CHECK_INT(write(fd, text, (size_t)length), length);
        int result = open_vmdk(descriptor, &disk);
        if (result != cases[i].result || err.remedy[0] == '\0' || disk != NULL)
            test_fail(__FILE__, __LINE__, "%s: %d, %s", cases[i].name, result, err.message);
    }
    snprintf(name, sizeof(name), HEAD "RW 1 FLAT \"%s\" 0\n", inner); /* an absolute way into the folder */
    auto_close int fd = open(descriptor, O_WRONLY | O_TRUNC | O_CLOEXEC);
    CHECK_INT(write(fd, name, strlen(name)), (long)strlen(name));
    struct disk *disk = NULL;
    CHECK_INT(open_vmdk(descriptor, &disk), 0);
    disk_free(disk);
}

TEST(extents_elsewhere_are_opened_when_they_are_allowed)
{
    char text[8192], bytes[512];
    struct disk *disk = NULL;
    memset(bytes, 'L', sizeof(bytes));
    const char *layer = test_file("layers/one", bytes, sizeof(bytes));
    snprintf(text, sizeof(text), HEAD "RW 1 FLAT \"%s\" 0\nRW 1 FLAT \"%s\" 0\n", layer, layer);
    const char *descriptor = test_text_file("images/disk.vmdk", text);
    const struct disk_backing allowed = {layer, VIAL_DISK_RAW}, wrong = {layer, VIAL_DISK_QCOW2};
    struct disk_options options = {.path = descriptor, .format = VIAL_DISK_VMDK, .read_only = true};
    CHECK_INT(disk_open(&options, &disk, &err), -EACCES);
    options.backing = &wrong;
    options.backing_count = 1;
    CHECK_INT(disk_open(&options, &disk, &err), -EINVAL);
    options.backing = &allowed;
    CHECK_INT(disk_open(&options, &disk, &err), 0);
    CHECK_INT(read_at(disk, bytes, 512, 512), 0);
    CHECK(bytes[0] == 'L' && bytes[511] == 'L');
    disk_free(disk);
}

TEST(sizes_that_lie_are_refused)
{
    struct disk *disk = NULL;
    test_file("a", (const char[1024]){0}, 1024);
    CHECK_INT(open_text(HEAD "RW 3 FLAT \"a\" 0\n", &disk), -EINVAL);
    CHECK(strstr(err.message, "beyond the end") != NULL);
    CHECK_INT(open_text(HEAD "RW 1 FLAT \"a\" 2\n", &disk), -EINVAL);
    CHECK_INT(open_text(HEAD "RW 1 FLAT \"a\" 18014398509481983\n", &disk), -EINVAL);
    CHECK_INT(open_text(HEAD "RW 1 FLAT \"a\" 1\n", &disk), 0);
    disk_free(disk);
}

TEST(a_disk_to_be_written_is_refused)
{
    const struct disk_options options = {.path = test_text_file("d", HEAD "RW 1 ZERO\n"), .format = VIAL_DISK_VMDK};
    struct disk *disk = NULL;
    CHECK_INT(disk_open(&options, &disk, &err), -ENOTSUP);
    CHECK(strstr(err.remedy, "read only") != NULL);
}

/* ---- sparse extents ---- */

/* A disk of three tables of 2 MiB: the first has grains, the second is absent, the third exists twice. */
enum {
    grain = 4096,
    table_reach = 512 * grain,
    capacity = 3 * table_reach / 512,
    sector_descriptor = 1,
    sector_directory = 2,
    sector_second = 3,
    sector_tables = 4,
    sector_grains = 16,
    image_bytes = (sector_grains + 4 * 8) * 512,
};

struct image {
    struct {
        uint32_t magic, version, flags;
        uint64_t capacity, grain_size, descriptor_offset, descriptor_size;
        uint32_t table_entries;
        uint64_t redundant_offset, directory_offset, overhead;
        uint8_t is_unclean;
        char newlines[4];
        uint16_t compression;
        uint8_t pad[433];
    } __attribute__((packed)) header;
    char descriptor[512];
    uint32_t directory[128], second[128];
    uint32_t tables[3][512];
    uint8_t grains[4][grain];
};
_Static_assert(sizeof(struct image) == image_bytes, "the layout above");

static void make_image(struct image *image)
{
    memset(image, 0, sizeof(*image));
    image->header.magic = 0x564d444b;
    image->header.version = 1;
    image->header.flags = 3;
    image->header.capacity = capacity;
    image->header.grain_size = grain / 512;
    image->header.descriptor_offset = sector_descriptor;
    image->header.descriptor_size = 1;
    image->header.table_entries = 512;
    image->header.redundant_offset = sector_second;
    image->header.directory_offset = sector_directory;
    memcpy(image->header.newlines, "\n \r\n", 4);
    snprintf(
        image->descriptor, sizeof(image->descriptor),
        "# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\nRW %d SPARSE \"x\"\n",
        capacity);
    image->directory[0] = image->second[0] = sector_tables;
    image->directory[2] = sector_tables + 4;
    image->second[2] = sector_tables + 8;
    for (int i = 0; i < 4; i++)
        memset(image->grains[i], 'a' + i, grain);
    image->tables[0][0] = sector_grains; /* a and b together, then c, and a again */
    image->tables[0][1] = sector_grains + 8;
    image->tables[0][3] = sector_grains + 16;
    image->tables[0][4] = sector_grains;
    image->tables[1][511] = sector_grains;
    image->tables[2][511] = sector_grains + 8;
}

static int open_image(const struct image *image, size_t length, struct disk **ret_disk)
{
    static int count;
    char name[32];
    snprintf(name, sizeof(name), "sparse%d", count++);
    return open_vmdk(test_file(name, image, length), ret_disk);
}

TEST(a_sparse_disk_is_read)
{
    static struct image image;
    static uint8_t bytes[6 * grain];
    struct disk *disk = NULL;
    struct disk_extent extent;
    struct disk_properties properties;
    bool is_zero = false;
    uint64_t known = 0;
    make_image(&image);
    CHECK_INT(open_image(&image, sizeof(image), &disk), 0);
    disk_describe(disk, &properties);
    CHECK_INT(properties.size_bytes, 3 * table_reach);
    CHECK_INT(disk_map(disk, 100, 50000, false, &extent), -EAGAIN); /* its table is not in memory yet */
    CHECK_INT(read_at(disk, bytes, sizeof(bytes), 0), 0);
    for (size_t i = 0; i < sizeof(bytes); i++)
        CHECK_INT(bytes[i], "ab\0ca\0"[i / grain]);
    CHECK_INT(disk_map(disk, 100, 50000, false, &extent), 0);
    CHECK(extent.kind == DISK_EXTENT_FILE && extent.offset == sector_grains * 512 + 100);
    CHECK_INT(extent.length, 2 * grain - 100);
    CHECK_INT(disk_map(disk, 5 * grain, 1 << 30 >> 10, false, &extent), 0);
    CHECK(extent.kind == DISK_EXTENT_ZERO && extent.length == 1 << 20);
    CHECK_INT(disk_map(disk, table_reach + 512, 2 * table_reach - 512, false, &extent),
              0); /* no table: known at once */
    CHECK(extent.kind == DISK_EXTENT_ZERO && extent.length == table_reach - 512);
    CHECK_INT(disk_status(disk, 2 * grain, 100000, &is_zero, &known), 0);
    CHECK(is_zero && known == grain);
    CHECK_INT(read_at(disk, bytes, grain, 3 * table_reach - grain), 0);
    CHECK_INT(bytes[0], 'a');
    disk_free(disk);
}

TEST(the_second_directory_helps)
{
    static struct image image;
    uint8_t byte = 0;
    struct disk *disk = NULL;
    make_image(&image);
    image.directory[2] = 0x7fffffff;
    CHECK_INT(open_image(&image, sizeof(image), &disk), 0);
    CHECK_INT(read_at(disk, &byte, 1, 3 * table_reach - 1), 0);
    CHECK_INT(byte, 'b');
    CHECK_INT(read_at(disk, &byte, 1, 0), 0);
    disk = disk_free(disk);
    image.header.flags = 1;
    CHECK_INT(open_image(&image, sizeof(image), &disk), 0);
    CHECK_INT(read_at(disk, &byte, 1, 3 * table_reach - 1), -EIO);
    CHECK_INT(read_at(disk, &byte, 1, 0), 0);
    disk_free(disk);
}

TEST(a_zeroed_grain_is_zeros)
{
    static struct image image;
    uint8_t byte = 'x';
    struct disk *disk = NULL;
    make_image(&image);
    image.header.version = 2;
    image.header.flags = 1 | 4;
    image.tables[0][0] = 1;
    CHECK_INT(open_image(&image, sizeof(image), &disk), 0);
    CHECK_INT(read_at(disk, &byte, 1, 0), 0);
    CHECK_INT(byte, 0);
    disk_free(disk);
}

TEST(grains_outside_the_file_are_errors)
{
    static struct image image;
    static uint8_t bytes[2 * grain];
    struct disk *disk = NULL;
    struct disk_extent extent;
    make_image(&image);
    image.tables[0][0] = UINT32_MAX;
    image.tables[0][1] = sizeof(image) / 512 - 1; /* one sector of it is there */
    CHECK_INT(open_image(&image, sizeof(image), &disk), 0);
    CHECK_INT(read_at(disk, bytes, 512, 0), -EIO);
    CHECK_INT(disk_map(disk, 0, 512, false, &extent), -EAGAIN);
    CHECK_INT(read_at(disk, bytes, 512, grain), 0);
    CHECK_INT(read_at(disk, bytes, 513, grain), -EIO);
    CHECK_INT(disk_map(disk, grain, grain, false, &extent), 0);
    CHECK_INT(extent.length, 512);
    disk_free(disk);
}

TEST(a_broken_header_is_refused)
{
    static struct image good, image;
    make_image(&good);
#define BROKEN(change)                                                                                                 \
    do {                                                                                                               \
        struct disk *disk = NULL;                                                                                      \
        image = good;                                                                                                  \
        change;                                                                                                        \
        err = (struct vial_error){0};                                                                                  \
        CHECK(open_image(&image, sizeof(image), &disk) < 0);                                                           \
        CHECK(disk == NULL && err.message[0] != '\0' && err.remedy[0] != '\0');                                        \
    } while (0)
    BROKEN(image.header.version = 0);
    BROKEN(image.header.version = 4);
    BROKEN(image.header.newlines[3] = '\r');
    BROKEN(image.header.compression = 1);
    BROKEN(image.header.flags |= 1u << 16);
    BROKEN(image.header.capacity = 0);
    BROKEN(image.header.capacity = UINT64_MAX);
    BROKEN(image.header.capacity = INT64_MAX / 512 + 1);
    BROKEN(image.header.capacity = INT64_MAX / 512); /* possible, but its directory would be huge */
    BROKEN(image.header.grain_size = 0);
    BROKEN(image.header.grain_size = 4);
    BROKEN(image.header.grain_size = 24);
    BROKEN(image.header.grain_size = 8192);
    BROKEN(image.header.grain_size = 1ull << 63);
    BROKEN(image.header.table_entries = 0);
    BROKEN(image.header.table_entries = 513);
    BROKEN(image.header.directory_offset = 0);
    BROKEN(image.header.directory_offset = sizeof(image) / 512);
    BROKEN(image.header.directory_offset = UINT64_MAX / 512);
    BROKEN(image.header.directory_offset = UINT64_MAX - 1);
    BROKEN(image.header.directory_offset = UINT64_MAX); /* there is no footer */
    BROKEN(image.header.descriptor_offset = 0);
    BROKEN(image.header.descriptor_offset = UINT64_MAX);
    BROKEN(image.header.descriptor_offset = UINT64_MAX / 512);
    BROKEN(image.header.descriptor_size = 0);
    BROKEN(image.header.descriptor_size = UINT64_MAX);
    BROKEN(image.header.descriptor_size = sizeof(image) / 512);
    BROKEN(image.descriptor[0] = 'x');
    BROKEN(memcpy(strstr(image.descriptor, "SPARSE"), "FLAT  ", 6));
    BROKEN(memcpy(strstr(image.descriptor, "ffffffff"), "0fffffff", 8));
#undef BROKEN
}

TEST(every_truncation_is_survived)
{
    static struct image image;
    static uint8_t bytes[8 * grain];
    make_image(&image);
    for (size_t length = 1; length < sizeof(image); length += 509) {
        struct disk *disk = NULL;
        if (open_image(&image, length, &disk) == 0)
            read_at(disk, bytes, sizeof(bytes), 0);
        disk_free(disk);
    }
}

TEST(a_part_of_a_disk_has_a_descriptor_elsewhere)
{
    static struct image image;
    char text[512];
    uint8_t byte = 0;
    struct disk *disk = NULL;
    make_image(&image);
    image.header.descriptor_offset = image.header.descriptor_size = 0;
    test_file("s001", &image, sizeof(image));
    snprintf(text, sizeof(text), HEAD "RW 8 ZERO\nRW %d SPARSE \"s001\"\nRW 16 SPARSE \"s001\"\n", capacity);
    CHECK_INT(open_text(text, &disk), 0);
    CHECK_INT(read_at(disk, &byte, 1, 4096 + grain), 0);
    CHECK_INT(byte, 'b');
    CHECK_INT(read_at(disk, &byte, 1, 4096 + capacity * 512ull + grain), 0);
    CHECK_INT(byte, 'b');
    disk = disk_free(disk);
    snprintf(text, sizeof(text), HEAD "RW %d SPARSE \"s001\"\n", capacity + 1);
    CHECK_INT(open_text(text, &disk), -EINVAL);
    CHECK(strstr(err.message, "holds less") != NULL);
}

/* ---- compressed grains ---- */

/* The first grain compressed at the place of grain 0, with its marker. */
static void compress_first(struct image *image, uint64_t marker_sector)
{
    static uint8_t plain[grain];
    uLongf length = grain - 12;
    make_image(image);
    image->header.version = 3;
    image->header.flags = 1 | 1 << 16 | 1 << 17;
    image->header.compression = 1;
    for (size_t i = 0; i < grain; i++)
        plain[i] = (uint8_t)(i / 16);
    memset(image->grains[0], 0, grain);
    compress(image->grains[0] + 12, &length, plain, grain);
    uint32_t size = (uint32_t)length;
    memcpy(image->grains[0], &marker_sector, 8);
    memcpy(image->grains[0] + 8, &size, 4);
    image->tables[0][1] = 0;
}

TEST(a_compressed_grain_is_unpacked)
{
    static struct image image;
    static uint8_t bytes[2 * grain];
    struct disk *disk = NULL;
    struct disk_extent extent;
    compress_first(&image, 0);
    CHECK_INT(open_image(&image, sizeof(image), &disk), 0);
    for (int round = 0; round < 2; round++) { /* the second time it comes from memory */
        memset(bytes, 0xee, sizeof(bytes));
        CHECK_INT(read_at(disk, bytes, 1000, 24), 0);
        for (size_t i = 0; i < 1000; i++)
            CHECK_INT(bytes[i], (i + 24) / 16);
    }
    CHECK_INT(disk_map(disk, 0, 512, false, &extent), -EAGAIN);
    CHECK_INT(read_at(disk, bytes, sizeof(bytes), 0), 0);
    CHECK(bytes[grain - 1] == 255 && bytes[grain] == 0);
    disk_free(disk);
}

TEST(the_grain_in_memory_is_not_taken_for_another)
{
    static struct image image;
    static uint8_t plain[grain];
    uint64_t sector = grain / 512;
    uLongf length = grain - 12;
    uint8_t first = 0, second = 0;
    struct disk *disk = NULL;
    compress_first(&image, 0);
    memset(plain, 77, sizeof(plain));
    memset(image.grains[1], 0, grain);
    compress(image.grains[1] + 12, &length, plain, grain);
    uint32_t size = (uint32_t)length;
    memcpy(image.grains[1], &sector, 8);
    memcpy(image.grains[1] + 8, &size, 4);
    image.tables[0][1] = sector_grains + 8;
    CHECK_INT(open_image(&image, sizeof(image), &disk), 0);
    for (int round = 0; round < 2; round++) {
        CHECK_INT(read_at(disk, &first, 1, 16), 0);
        CHECK_INT(read_at(disk, &second, 1, grain + 16), 0);
        CHECK(first == 1 && second == 77);
    }
    disk_free(disk);
}

TEST(a_broken_compressed_grain_is_an_error)
{
    static struct image good, image;
    uint8_t byte = 0;
    compress_first(&good, 0);
    for (int change = 0; change < 6; change++) {
        struct disk *disk = NULL;
        uint32_t size = change == 1 ? 0 : change == 2 ? UINT32_MAX : change == 3 ? 5 : 0;
        image = good;
        if (change == 0)
            image.grains[0][0] = 8; /* another grain's marker */
        else if (change <= 3)
            memcpy(image.grains[0] + 8, &size, 4);
        else if (change == 4)
            image.grains[0][12] ^= 0xff;
        else
            image.tables[0][0] = UINT32_MAX;
        CHECK_INT(open_image(&image, sizeof(image), &disk), 0);
        CHECK_INT(read_at(disk, &byte, 1, 0), -EIO);
        disk_free(disk);
    }
}

TEST(a_directory_at_the_end_is_found_by_the_footer)
{
    static struct {
        struct image image;
        struct {
            uint64_t value;
            uint32_t size, type;
            uint8_t pad[496];
        } before;
        uint8_t footer[512], end[512];
    } file;
    uint8_t byte = 0xee;
    for (int change = 0; change < 5; change++) {
        struct disk *disk = NULL;
        memset(&file, 0, sizeof(file));
        compress_first(&file.image, 0);
        memcpy(file.footer, &file.image.header, 512);
        file.image.header.directory_offset = UINT64_MAX;
        file.before.type = change == 1 ? 2 : 3;
        file.before.size = change == 2;
        file.footer[0] ^= change == 3;
        file.end[12] = change == 4;
        char name[16];
        snprintf(name, sizeof(name), "stream%d", change);
        int result = open_vmdk(test_file(name, &file, sizeof(file)), &disk);
        CHECK_INT(result, change == 0 ? 0 : -EINVAL);
        if (result < 0)
            continue;
        CHECK_INT(read_at(disk, &byte, 1, 16), 0);
        CHECK_INT(byte, 1);
        disk_free(disk);
    }
}

TEST(disks_survive_no_memory)
{
    static struct image image;
    uint8_t byte = 0;
    compress_first(&image, 0);
    test_file("flat", (const char[512]){0}, 512);
    test_file("sparse", &image, sizeof(image));
    const char *path = test_text_file("disk", HEAD "RW 1 FLAT \"flat\" 0\nRW 8 SPARSE \"sparse\"\n");
    FOR_EACH_FAULT
    {
        struct disk *disk = NULL;
        int result = open_vmdk(path, &disk);
        if (result == 0)
            result = read_at(disk, &byte, 1, 512 + 16);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        disk_free(disk);
    }
}
