// SPDX-License-Identifier: Apache-2.0
/* Tests of disks: what may be opened, ranges and rights, raw images, locks, files that images name. */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "disk/open.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
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

static int open_raw(const char *path, bool read_only, struct disk **ret_disk)
{
    const struct disk_options options = {.path = path, .format = VIAL_DISK_RAW, .read_only = read_only};
    return disk_open(&options, ret_disk, &err);
}

static int read_at(struct disk *disk, void *bytes, size_t length, uint64_t offset)
{
    struct iovec part = {bytes, length};
    return disk_read(disk, &part, 1, offset);
}

static int write_at(struct disk *disk, const char *bytes, size_t length, uint64_t offset)
{
    char copy[8192];
    memcpy(copy, bytes, length);
    struct iovec part = {copy, length};
    return disk_write(disk, &part, 1, offset);
}

/* ---- what may be opened ---- */

TEST(only_files_and_devices_are_opened)
{
    const char *fifo = in_folder("fifo"), *at = in_folder("socket");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct disk *disk = NULL;
    CHECK_INT(mkfifo(fifo, 0600), 0);
    auto_close int server = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(strlen(at) < sizeof(address.sun_path));
    memcpy(address.sun_path, at, strlen(at) + 1);
    CHECK_INT(bind(server, (struct sockaddr *)&address, sizeof(address)), 0);
    const char *const paths[] = {fifo, at, test_folder(), "/dev/null", "/dev/tty", "/dev/zero"};
    static const char *const kinds[] = {
        "a fifo", "a socket", "a folder", "a character device", "a character device", "a character device"};
    for (size_t i = 0; i < array_length(paths); i++) { /* a fifo without a reader would make this wait for ever */
        CHECK_INT(open_raw(paths[i], i % 2 == 0, &disk), -EINVAL);
        CHECK_INT(err.code, VIAL_ERROR_WRONG_KIND);
        CHECK(strstr(err.message, kinds[i]) != NULL && err.remedy[0] != '\0' && disk == NULL);
    }
    CHECK_INT(open_raw(in_folder("gone"), true, &disk), -ENOENT);
    CHECK(err.remedy[0] != '\0');
}

TEST(a_format_is_never_guessed)
{
    const char *path = test_text_file("image", "QFI\xfb");
    for (int format = -1; format < 5; format++) {
        const struct disk_options options = {.path = path, .format = (enum vial_disk_format)format, .read_only = true};
        struct disk *disk = NULL;
        if (format >= VIAL_DISK_RAW && format <= VIAL_DISK_VMDK)
            continue;
        CHECK_INT(disk_open(&options, &disk, &err), -EINVAL);
        CHECK_INT(err.code, VIAL_ERROR_MISSING);
    }
}

TEST(opening_survives_no_memory)
{
    const char *path = test_file("disk", "12345678", 8);
    FOR_EACH_FAULT
    {
        struct disk *disk = NULL;
        CHECK_INT(open_raw(path, false, &disk), fault_was_hit() ? -ENOMEM : 0);
        CHECK((disk == NULL) == fault_was_hit());
        disk_free(disk);
    }
}

TEST(what_is_open_does_not_answer_eagain)
{
    struct disk *disk = NULL;
    CHECK_INT(open_raw(test_file("disk", "x", 1), false, &disk), 0);
    CHECK_INT(fcntl(disk->file.fd, F_GETFL) & O_NONBLOCK, 0); /* io_uring would take it at its word */
    CHECK(fcntl(disk->file.fd, F_GETFD) == FD_CLOEXEC);
    disk_free(disk);
}

/* ---- ranges and rights ---- */

TEST(ranges_are_checked)
{
    static const struct {
        uint64_t offset, length;
    } wrong[] = {{4096, 1},
                 {0, 4097},
                 {4095, 2},
                 {UINT64_MAX, 1},
                 {UINT64_MAX, UINT64_MAX},
                 {1, UINT64_MAX - 1},
                 {8192, 0},
                 {512, UINT64_MAX - 100},
                 {512, 1ull << 63}};
    static char bytes[8192];
    struct disk *disk = NULL;
    struct disk_extent extent;
    bool is_zero = false;
    uint64_t known = 0;
    CHECK_INT(open_raw(test_file("disk", bytes, 4096), false, &disk), 0);
    for (size_t i = 0; i < array_length(wrong); i++) {
        uint64_t offset = wrong[i].offset, length = wrong[i].length;
        struct iovec part = {bytes, length};
        CHECK_INT(disk_read(disk, &part, 1, offset), -EINVAL);
        CHECK_INT(disk_write(disk, &part, 1, offset), -EINVAL);
        CHECK_INT(disk_discard(disk, offset, length), -EINVAL);
        CHECK_INT(disk_zero(disk, offset, length, true), -EINVAL);
        CHECK_INT(disk_map(disk, offset, length, false, &extent), -EINVAL);
        CHECK_INT(disk_status(disk, offset, length, &is_zero, &known), -EINVAL);
    }
    struct iovec lies[3] = {{bytes, SIZE_MAX}, {bytes, SIZE_MAX}, {bytes, 2}}; /* their sum wraps to 0 */
    CHECK_INT(disk_read(disk, lies, 3, 0), -EINVAL);
    CHECK_INT(disk_read(disk, lies, -1, 0), -EINVAL);
    CHECK_INT(disk_read(disk, lies, 0, 4096), 0);
    CHECK_INT(disk_zero(disk, 4096, 0, true), 0);
    disk_free(disk);
}

TEST(a_read_only_disk_stays_as_it_is)
{
    const char *path = test_file("disk", "before", 6);
    struct disk *disk = NULL;
    struct disk_extent extent;
    char now[6];
    CHECK_INT(open_raw(path, true, &disk), 0);
    CHECK_INT(write_at(disk, "after!", 6, 0), -EROFS);
    CHECK_INT(disk_discard(disk, 0, 512), -EROFS);
    CHECK_INT(disk_zero(disk, 0, 512, true), -EROFS);
    CHECK_INT(disk_map(disk, 0, 512, true, &extent), -EROFS);
    CHECK_INT(disk_resize(disk, 1024, true, &err), -EACCES);
    CHECK_INT(disk_flush(disk), 0);
    CHECK_INT(fcntl(disk->file.fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    CHECK_INT(pread(disk->file.fd, now, 6, 0), 6);
    CHECK(memcmp(now, "before", 6) == 0);
    disk_free(disk);
}

/* ---- raw ---- */

TEST(a_raw_disk_holds_what_is_written)
{
    static char bytes[64 << 10];
    char first[100], second[412], both[512];
    struct disk *disk = NULL;
    struct disk_extent extent;
    struct disk_properties properties;
    CHECK_INT(open_raw(test_file("disk", bytes, sizeof(bytes)), false, &disk), 0);
    disk_describe(disk, &properties);
    CHECK_INT(properties.size_bytes, sizeof(bytes));
    CHECK(properties.format == VIAL_DISK_RAW && !properties.is_read_only && !properties.discard_moves_data);
    memset(first, 'a', sizeof(first));
    memset(second, 'b', sizeof(second));
    struct iovec parts[] = {{first, 100}, {NULL, 0}, {second, 412}};
    CHECK_INT(disk_write(disk, parts, 3, 1024), 0);
    CHECK_INT(read_at(disk, both, 512, 1024), 0);
    CHECK(memcmp(both, first, 100) == 0 && memcmp(both + 100, second, 412) == 0);
    CHECK_INT(disk_map(disk, 1024, 60000, true, &extent), 0);
    CHECK(extent.kind == DISK_EXTENT_FILE && extent.fd == disk->file.fd);
    CHECK_INT(extent.offset, 1024);
    CHECK_INT(extent.length, 60000);
    CHECK_INT(disk_sync_fd(disk), disk->file.fd);
    CHECK_INT(disk_flush(disk), 0);
    CHECK_INT(disk_close(disk, &err), 0);
}

TEST(many_small_buffers_are_one_request)
{
    enum { count = 3000 }; /* more than IOV_MAX */
    static struct iovec parts[count];
    static char in[count], out[count], zeros[4096];
    struct disk *disk = NULL;
    CHECK_INT(open_raw(test_file("disk", zeros, sizeof(zeros)), false, &disk), 0);
    for (int i = 0; i < count; i++) {
        in[i] = (char)(i * 7);
        parts[i] = (struct iovec){&in[i], 1};
    }
    CHECK_INT(disk_write(disk, parts, count, 9), 0);
    CHECK_INT(read_at(disk, out, count, 9), 0);
    CHECK(memcmp(in, out, count) == 0);
    disk_free(disk);
}

static bool is_hole(struct disk *disk, uint64_t offset)
{
    bool is_zero = false;
    uint64_t known = 0;
    return disk_status(disk, offset, 4096, &is_zero, &known) == 0 && is_zero;
}

TEST(discarding_and_zeroing_give_space_back)
{
    static char bytes[1 << 20], page[4096];
    const char *path = (memset(bytes, 'x', sizeof(bytes)), test_file("disk", bytes, sizeof(bytes)));
    struct disk *disk = NULL;
    struct stat before, after;
    CHECK_INT(open_raw(path, false, &disk), 0);
    CHECK_INT(stat(path, &before), 0);
    CHECK_INT(disk_discard(disk, 65536, 65536), 0);
    CHECK(is_hole(disk, 65536) && !is_hole(disk, 131072));
    CHECK_INT(disk_zero(disk, 262144, 65536, true), 0);
    CHECK(is_hole(disk, 262144));
    CHECK_INT(disk_zero(disk, 524288 + 512, 1024, false), 0);
    CHECK_INT(stat(path, &after), 0);
    CHECK_INT(after.st_size, before.st_size);
    CHECK(after.st_blocks <= before.st_blocks - 256);
    CHECK_INT(read_at(disk, page, 4096, 524288), 0);
    for (size_t i = 0; i < 4096; i++)
        CHECK_INT(page[i], i < 512 || i >= 1536 ? 'x' : 0);
    disk_free(disk);
}

TEST(a_last_sector_that_is_not_whole_ends_in_zeros)
{
    char bytes[1000], sector[512];
    struct disk *disk = NULL;
    struct disk_properties properties;
    struct disk_extent extent;
    struct stat about;
    memset(bytes, 'x', sizeof(bytes));
    const char *path = test_file("disk", bytes, sizeof(bytes));
    CHECK_INT(open_raw(path, false, &disk), 0);
    disk_describe(disk, &properties);
    CHECK_INT(properties.size_bytes, 1024);
    memset(sector, 'y', 512);
    CHECK_INT(read_at(disk, sector, 512, 512), 0);
    for (int i = 0; i < 512; i++)
        CHECK_INT(sector[i], i < 488 ? 'x' : 0);
    CHECK_INT(disk_map(disk, 0, 1024, false, &extent), 0);
    CHECK_INT(extent.length, 512);
    CHECK_INT(disk_map(disk, 512, 512, true, &extent), -EAGAIN);
    CHECK_INT(disk_zero(disk, 512, 512, true), 0);
    CHECK(stat(path, &about) == 0 && about.st_size == 1000);
    CHECK_INT(write_at(disk, "zz", 2, 1022), 0); /* now it is whole */
    CHECK(stat(path, &about) == 0 && about.st_size == 1024);
    CHECK_INT(disk_map(disk, 512, 512, true, &extent), 0);
    CHECK_INT(read_at(disk, sector, 512, 512), 0);
    CHECK(sector[0] == 0 && sector[509] == 0 && sector[510] == 'z');
    disk_free(disk);
}

TEST(a_file_that_was_cut_is_an_error)
{
    static char bytes[8192];
    const char *path = test_file("disk", bytes, sizeof(bytes));
    struct disk *disk = NULL;
    CHECK_INT(open_raw(path, true, &disk), 0);
    CHECK_INT(truncate(path, 4096), 0);
    CHECK_INT(read_at(disk, bytes, 512, 0), 0);
    CHECK_INT(read_at(disk, bytes, 512, 4096), -EIO);
    disk_free(disk);
}

TEST(sizes_change_only_when_meant)
{
    static char bytes[8192];
    const char *path = test_file("disk", bytes, sizeof(bytes));
    struct disk *disk = NULL;
    struct disk_properties properties;
    struct stat about;
    CHECK_INT(open_raw(path, false, &disk), 0);
    CHECK_INT(disk_resize(disk, 4096, false, &err), -EINVAL);
    CHECK(strstr(err.message, "would be lost") != NULL && err.remedy[0] != '\0');
    CHECK_INT(disk_resize(disk, 4095, true, &err), -ERANGE);
    CHECK_INT(disk_resize(disk, 1ull << 63, true, &err), -ERANGE);
    CHECK(stat(path, &about) == 0 && about.st_size == 8192);
    CHECK_INT(disk_resize(disk, 4096, true, &err), 0);
    CHECK_INT(disk_resize(disk, 1 << 20, false, &err), 0);
    disk_describe(disk, &properties);
    CHECK_INT(properties.size_bytes, 1 << 20);
    CHECK(stat(path, &about) == 0 && about.st_size == 1 << 20);
    CHECK_INT(read_at(disk, bytes, 8192, 4096), 0);
    disk_free(disk);
}

/* ---- direct I/O ---- */

TEST(direct_io_takes_what_is_not_aligned)
{
    enum { size = 64 << 10 };
    static char model[size], bytes[size];
    const char *path = test_file("disk", model, size);
    const struct disk_options options = {.path = path, .format = VIAL_DISK_RAW, .direct_io = true};
    struct disk *disk = NULL;
    struct disk_properties properties;
    struct disk_extent extent;
    int result = disk_open(&options, &disk, &err);
    if (result == -EINVAL) { /* a scratch folder in memory may not know it; then that is said */
        CHECK(strstr(err.remedy, "direct I/O") != NULL);
        return;
    }
    CHECK_INT(result, 0);
    disk_describe(disk, &properties);
    CHECK(properties.alignment_bytes >= 512);
    unsigned random = 1;
    for (int i = 0; i < 300; i++) {
        random = random * 1103515245 + 12345;
        uint64_t offset = random >> 8 & (size - 1), length = (random >> 4 & 8191) + 1;
        if (length > size - offset)
            length = size - offset;
        memset(bytes, i, length);
        memset(model + offset, i, length);
        struct iovec part = {bytes, length};
        CHECK_INT(disk_write(disk, &part, 1, offset), 0);
        memset(bytes, 0xee, sizeof(bytes));
        CHECK_INT(read_at(disk, bytes + 3, length / 2 + 1, offset), 0);
        CHECK(memcmp(bytes + 3, model + offset, length / 2 + 1) == 0);
    }
    CHECK_INT(disk_zero(disk, 1000, 30000, false), 0);
    memset(model + 1000, 0, 30000);
    CHECK_INT(read_at(disk, bytes, size, 0), 0);
    CHECK(memcmp(bytes, model, size) == 0);
    CHECK_INT(disk_map(disk, 1, 8192, false, &extent), -EAGAIN);
    CHECK_INT(disk_map(disk, 0, 8192 + 100, false, &extent), 0);
    CHECK_INT(extent.length % properties.alignment_bytes, 0);
    CHECK_INT(disk_flush(disk), 0);
    disk_free(disk);
}

struct neighbour {
    struct disk *disk;
    atomic_bool is_over;
};

static void *write_first_sector(void *user)
{
    struct neighbour *neighbour = user;
    static char sector[512];
    struct iovec part = {sector, sizeof(sector)};
    while (!atomic_load(&neighbour->is_over))
        (void)disk_write(neighbour->disk, &part, 1, 0);
    return NULL;
}

/* Blocks of 4 KiB, as O_DIRECT may want them: a write next to zeros must not bring back what was there. */
TEST(zeros_beside_a_write_stay_zeros)
{
    static char bytes[8192];
    struct disk_file file = {.path = test_file("blocks", bytes, sizeof(bytes)), .alignment_bytes = 4096};
    struct disk disk = {.shape = {.ops = NULL}};
    struct neighbour neighbour = {.disk = &disk};
    pthread_t thread;
    file.fd = open(file.path, O_RDWR | O_CLOEXEC);
    file.size_bytes = sizeof(bytes);
    CHECK_INT(raw_open(&file, NULL, &disk.shape, &err), 0);
    CHECK_INT(pthread_create(&thread, NULL, write_first_sector, &neighbour), 0);
    bool is_kept = true;
    for (int i = 0; i < 20000 && is_kept; i++) {
        struct iovec part = {bytes, 512};
        memset(bytes, 7, 512);
        is_kept = disk_write(&disk, &part, 1, 512) == 0 && disk_zero(&disk, 512, 512, i % 2 == 0) == 0 &&
                  disk_read(&disk, &part, 1, 512) == 0 && bytes[0] == 0;
    }
    atomic_store(&neighbour.is_over, true);
    pthread_join(thread, NULL);
    CHECK(is_kept);
    CHECK_INT(disk.shape.ops->close(disk.shape.state, &err), 0);
    close(file.fd);
}

/* ---- locks ---- */

TEST(one_writer_or_many_readers)
{
    const char *path = test_file("disk", "x", 1);
    struct disk *first = NULL, *second = NULL;
    CHECK_INT(open_raw(path, true, &first), 0);
    CHECK_INT(open_raw(path, true, &second), 0);
    second = disk_free(second);
    CHECK_INT(open_raw(path, false, &second), -EBUSY);
    CHECK(strstr(err.message, "in use") != NULL && err.remedy[0] != '\0');
    first = disk_free(first);
    CHECK_INT(open_raw(path, false, &first), 0);
    CHECK_INT(open_raw(path, false, &second), -EBUSY);
    CHECK_INT(open_raw(path, true, &second), -EBUSY);
    first = disk_free(first);
    CHECK_INT(open_raw(path, true, &second), 0); /* nothing is left of those that were refused */
    disk_free(second);
}

static int lock_as_qemu(int fd, off_t byte)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &lock);
}

TEST(the_bytes_are_those_of_qemu)
{
    static const struct {
        off_t byte;
        int reader, writer;
    } cases[] = {
        {100, 0, 0},           /* it reads */
        {101, -EBUSY, -EBUSY}, /* it writes */
        {102, 0, 0},           /* it writes what is there already */
        {103, -EBUSY, -EBUSY}, /* it resizes */
        {200, -EBUSY, -EBUSY}, /* nobody else may read */
        {201, 0, -EBUSY},      /* nobody else may write */
        {203, 0, -EBUSY},      /* nobody else may resize */
    };
    const char *path = test_file("disk", "x", 1);
    for (size_t i = 0; i < array_length(cases); i++) {
        struct disk *disk = NULL;
        auto_close int other = open(path, O_RDWR | O_CLOEXEC);
        CHECK_INT(lock_as_qemu(other, cases[i].byte), 0);
        CHECK_INT(open_raw(path, true, &disk), cases[i].reader);
        disk = disk_free(disk);
        CHECK_INT(open_raw(path, false, &disk), cases[i].writer);
        disk_free(disk);
    }
}

/* ---- files that images name ---- */

/* An image in the scratch folder that names another one. */
static int open_named(const char *name, enum vial_disk_format named, const struct disk_backing *list, size_t count,
                      struct disk **ret_disk)
{
    const struct disk_options options = {.backing = list, .backing_count = count};
    const struct disk_file from = {.fd = -1, .path = in_folder("top")};
    struct disk_opener opener = {.options = &options};
    if (stat(from.path, &opener.file) < 0)
        return -ENOENT;
    return disk_open_backing(&opener, &from, name, named, ret_disk, &err);
}

TEST(only_what_is_allowed_by_name_is_opened)
{
    const char *base = test_text_file("base", "base"), *other = test_text_file("other", "other");
    struct disk *disk = NULL;
    struct disk_properties properties;
    test_text_file("top", "top");
    const struct disk_backing as_named = {"base", VIAL_DISK_RAW}, as_path = {base, VIAL_DISK_RAW},
                              wrong = {other, VIAL_DISK_RAW};
    CHECK_INT(open_named("base", VIAL_DISK_UNSET, NULL, 0, &disk), -EACCES);
    CHECK_INT(err.code, VIAL_ERROR_PERMISSION);
    CHECK_TEXT(err.value, "base");
    CHECK(strstr(err.remedy, "--allow-backing base:FORMAT") != NULL);
    CHECK_INT(open_named("base", VIAL_DISK_UNSET, &wrong, 1, &disk), -EACCES);
    CHECK_INT(open_named("base", VIAL_DISK_UNSET, &as_named, 1, &disk), 0);
    disk_describe(disk, &properties);
    CHECK(properties.is_read_only && disk->file.is_read_only);
    CHECK_TEXT(disk->path, base);
    disk = disk_free(disk);
    CHECK_INT(open_named("base", VIAL_DISK_RAW, &as_path, 1, &disk), 0);
    disk = disk_free(disk);
    CHECK_INT(open_named(base, VIAL_DISK_RAW, &as_path, 1, &disk), 0);
    disk = disk_free(disk);
}

TEST(another_way_to_an_allowed_file_is_as_good)
{
    const char *base = test_text_file("base", "base");
    struct disk *disk = NULL;
    test_text_file("top", "top");
    test_text_file("other", "secret");
    test_make_folder("folder");
    const struct disk_backing as_path = {base, VIAL_DISK_RAW};
    CHECK_INT(open_named("folder/../base", VIAL_DISK_UNSET, &as_path, 1, &disk), 0);
    disk = disk_free(disk);
    CHECK_INT(symlink("base", in_folder("link")), 0);
    CHECK_INT(open_named("link", VIAL_DISK_UNSET, &as_path, 1, &disk), 0);
    disk = disk_free(disk);
    CHECK_INT(unlink(in_folder("link")), 0);
    CHECK_INT(symlink("other", in_folder("link")), 0);
    CHECK_INT(open_named("link", VIAL_DISK_UNSET, &as_path, 1, &disk), -EACCES);
}

TEST(formats_must_agree)
{
    struct disk *disk = NULL;
    test_text_file("top", "top");
    test_text_file("base", "base");
    const struct disk_backing raw = {"base", VIAL_DISK_RAW}, unset = {"base", VIAL_DISK_UNSET};
    CHECK_INT(open_named("base", VIAL_DISK_QCOW2, &raw, 1, &disk), -EINVAL);
    CHECK_INT(err.code, VIAL_ERROR_CONFLICT);
    CHECK_INT(open_named("base", VIAL_DISK_RAW, &unset, 1, &disk), -EINVAL);
    CHECK_INT(err.code, VIAL_ERROR_MISSING);
}

TEST(protocols_are_no_paths)
{
    static const char *const names[] = {"json:{\"driver\":\"raw\"}", "nbd://host/x", "file:base", "ssh:x", ""};
    struct disk *disk = NULL;
    test_text_file("top", "top");
    for (size_t i = 0; i < array_length(names); i++) {
        const struct disk_backing allowed = {names[i], VIAL_DISK_RAW};
        CHECK_INT(open_named(names[i], VIAL_DISK_UNSET, &allowed, 1, &disk), -EACCES);
        CHECK(disk == NULL);
    }
    test_text_file("a:b", "base");
    const struct disk_backing plain = {"./a:b", VIAL_DISK_RAW};
    CHECK_INT(open_named("./a:b", VIAL_DISK_UNSET, &plain, 1, &disk), 0);
    disk_free(disk);
}

TEST(chains_end)
{
    const struct disk_backing list[] = {{"top", VIAL_DISK_RAW}, {"base", VIAL_DISK_RAW}};
    const struct disk_options options = {.backing = list, .backing_count = 2};
    const char *top = test_text_file("top", "top");
    const struct disk_file from = {.fd = -1, .path = top};
    struct disk *disk = NULL;
    test_text_file("base", "base");
    CHECK_INT(open_named("top", VIAL_DISK_UNSET, list, 2, &disk), -ELOOP);
    CHECK_INT(link(top, in_folder("again")), 0);
    const struct disk_backing again = {"again", VIAL_DISK_RAW};
    CHECK_INT(open_named("again", VIAL_DISK_UNSET, &again, 1, &disk), -ELOOP);
    struct disk_opener deep = {.options = &options, .depth = 14};
    CHECK_INT(disk_open_backing(&deep, &from, "base", VIAL_DISK_UNSET, &disk, &err), 0);
    disk = disk_free(disk);
    deep.depth = 15;
    CHECK_INT(disk_open_backing(&deep, &from, "base", VIAL_DISK_UNSET, &disk, &err), -E2BIG);
    CHECK(disk == NULL && err.remedy[0] != '\0');
}

TEST(what_is_left_out_cannot_be_read)
{
    const struct disk_options options = {.path = ""};
    const struct disk_file from = {.fd = -1, .path = "top"};
    struct disk_opener opener = {.options = &options, .leaves_out = true};
    char byte = 0;
    FOR_EACH_FAULT
    {
        struct disk *disk = NULL;
        int result = disk_open_backing(&opener, &from, "/gone", VIAL_DISK_RAW, &disk, &err);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        if (result < 0)
            continue;
        CHECK_INT(read_at(disk, &byte, 1, 1ull << 40), -EIO);
        CHECK_INT(write_at(disk, "x", 1, 0), -EROFS);
        disk_free(disk);
    }
}

TEST(naming_survives_no_memory)
{
    const char *base = test_text_file("base", "base");
    const struct disk_backing as_path = {base, VIAL_DISK_RAW};
    test_text_file("top", "top");
    FOR_EACH_FAULT
    {
        struct disk *disk = NULL;
        CHECK_INT(open_named("base", VIAL_DISK_UNSET, &as_path, 1, &disk), fault_was_hit() ? -ENOMEM : 0);
        disk_free(disk);
    }
}
