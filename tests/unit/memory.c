// SPDX-License-Identifier: Apache-2.0
/* Tests of mem/memory: layout, bounds, overlaps, files that are too short. */
#include "test.h"

#include "base/fd.h"
#include "mem/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB UINT64_C(1048576)
#define GIB (1024 * MIB)

TEST(small_ram_is_one_region)
{
    struct memory *memory = NULL;
    CHECK_INT(memory_new(64 * MIB, false, &memory), 0);
    CHECK_INT(memory_region_count(memory), 1);
    CHECK_INT(memory_region(memory, 0)->guest, 0);
    CHECK_INT(memory_region(memory, 0)->size_bytes, 64 * MIB);
    CHECK(memory_region(memory, 1) == NULL);
    memory_free(memory);
    CHECK(memory_free(NULL) == NULL);
}

TEST(large_ram_is_split_around_the_gap)
{
    struct memory *memory = NULL;
    CHECK_INT(memory_new(6 * GIB, true, &memory), 0);
    CHECK_INT(memory_region_count(memory), 2);
    CHECK_INT(memory_region(memory, 0)->size_bytes, MEMORY_GAP_START);
    CHECK_INT(memory_region(memory, 1)->guest, MEMORY_GAP_END);
    CHECK_INT(memory_region(memory, 1)->offset, MEMORY_GAP_START);
    CHECK_INT(memory_region(memory, 1)->size_bytes, 6 * GIB - MEMORY_GAP_START);
    CHECK(memory_span(memory, MEMORY_GAP_START - 1, 1) != NULL);
    CHECK(memory_span(memory, MEMORY_GAP_START, 1) == NULL);
    CHECK(memory_span(memory, MEMORY_GAP_END - 1, 2) == NULL);
    CHECK(memory_span(memory, MEMORY_GAP_END, 1) != NULL);
    CHECK(memory_span(memory, 6 * GIB + GIB * 3 / 4 - 1, 1) != NULL);
    CHECK(memory_span(memory, 6 * GIB + GIB * 3 / 4, 1) == NULL);
    memory_free(memory);
}

TEST(exactly_up_to_the_gap)
{
    struct memory *memory = NULL;
    CHECK_INT(memory_new(MEMORY_GAP_START, false, &memory), 0);
    CHECK_INT(memory_region_count(memory), 1);
    memory_free(memory);
    CHECK_INT(memory_new(MEMORY_GAP_START + 4096, false, &memory), 0);
    CHECK_INT(memory_region_count(memory), 2);
    memory_free(memory);
}

TEST(wrong_sizes_are_refused)
{
    struct memory *memory = NULL;
    CHECK_INT(memory_new(0, false, &memory), -EINVAL);
    CHECK_INT(memory_new(MIB + 1, false, &memory), -EINVAL);
    CHECK_INT(memory_new(UINT64_MAX - 4095, false, &memory), -EINVAL);
    CHECK(memory == NULL);
}

TEST(a_limit_of_file_sizes_is_an_error_not_a_signal)
{
    struct memory *memory = NULL;
    struct rlimit before, small;
    CHECK_INT(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = MIB;
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &small), 0);
    int too_big = memory_new(2 * MIB, false, &memory), fits = memory_new(MIB, false, &memory);
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &before), 0);
    CHECK_INT(too_big, -EFBIG);
    CHECK_INT(fits, 0);
    memory_free(memory);
}

TEST(ram_cannot_be_resized_by_whoever_holds_it)
{
    struct memory *memory = NULL;
    CHECK_INT(memory_new(MIB, false, &memory), 0);
    int fd = memory_region(memory, 0)->fd;
    CHECK(ftruncate(fd, 4096) < 0 && errno == EPERM);
    CHECK(ftruncate(fd, 2 * (off_t)MIB) < 0 && errno == EPERM);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0);
    memory_free(memory);
}

TEST(spans_stay_inside)
{
    struct memory *memory = NULL;
    CHECK_INT(memory_new(MIB, false, &memory), 0);
    CHECK(memory_span(memory, 0, MIB) != NULL);
    CHECK(memory_span(memory, 0, 0) == NULL);
    CHECK(memory_span(memory, 0, MIB + 1) == NULL);
    CHECK(memory_span(memory, 1, MIB) == NULL);
    CHECK(memory_span(memory, MIB - 1, 1) != NULL);
    CHECK(memory_span(memory, MIB, 0) == NULL);
    CHECK(memory_span(memory, UINT64_MAX, 1) == NULL);
    CHECK(memory_span(memory, UINT64_MAX, UINT64_MAX) == NULL);
    CHECK(memory_span(memory, 16, UINT64_MAX) == NULL);
    CHECK(memory_span(memory, UINT64_MAX - 15, 32) == NULL); /* wraps into the first region */
    memory_free(memory);
}

TEST(copies_are_whole_or_nothing)
{
    struct memory *memory = NULL;
    char bytes[8] = "unmoved";
    CHECK_INT(memory_new(MIB, false, &memory), 0);
    CHECK_INT(memory_write(memory, MIB - 4, "abcd", 4), 0);
    CHECK_INT(memory_write(memory, MIB - 3, "wxyz", 4), -EFAULT);
    CHECK_INT(memory_read(memory, MIB - 3, bytes, 4), -EFAULT);
    CHECK_TEXT(bytes, "unmoved");
    CHECK_INT(memory_read(memory, MIB - 4, bytes, 4), 0);
    CHECK(memcmp(bytes, "abcd", 4) == 0);
    CHECK_INT(memory_read(memory, UINT64_MAX, bytes, 0), 0);
    memory_free(memory);
}

static int make_file(uint64_t size_bytes)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)size_bytes) < 0)
        abort();
    return fd;
}

TEST(regions_of_others_are_checked)
{
    struct memory *memory = NULL;
    auto_close int fd = make_file(4 * MIB);
    CHECK_INT(memory_new_empty(&memory), 0);
    CHECK_INT(memory_add(memory, 0, 0, fd, 0), -EINVAL);
    CHECK_INT(memory_add(memory, 1, MIB, fd, 0), -EINVAL);
    CHECK_INT(memory_add(memory, 0, MIB + 1, fd, 0), -EINVAL);
    CHECK_INT(memory_add(memory, 0, MIB, fd, 1), -EINVAL);
    CHECK_INT(memory_add(memory, UINT64_MAX - 4095, 2 * MIB, fd, 0), -EINVAL);
    CHECK_INT(memory_add(memory, 0, MIB, fd, UINT64_MAX - 4095), -EINVAL);
    CHECK_INT(memory_add(memory, 0, MIB, fd, 4 * MIB), -EFBIG);
    CHECK_INT(memory_add(memory, 0, 8 * MIB, fd, 0), -EFBIG);
    CHECK_INT(memory_add(memory, 0, MIB, -1, 0), -EBADF);
    CHECK_INT(memory_region_count(memory), 0);
    CHECK_INT(memory_add(memory, 4 * MIB, MIB, fd, 0), 0);
    CHECK_INT(memory_add(memory, 4 * MIB, MIB, fd, MIB), -EEXIST);
    CHECK_INT(memory_add(memory, 5 * MIB - 4096, MIB, fd, MIB), -EEXIST);
    CHECK_INT(memory_add(memory, 3 * MIB, MIB + 4096, fd, MIB), -EEXIST);
    CHECK_INT(memory_add(memory, 2 * MIB, 4 * MIB, fd, 0), -EEXIST);
    CHECK_INT(memory_add(memory, 3 * MIB, MIB, fd, MIB), 0);
    CHECK_INT(memory_add(memory, 5 * MIB, MIB, fd, 2 * MIB), 0);
    for (size_t i = 0; i < 3; i++)
        CHECK_INT(memory_region(memory, i)->guest, (3 + i) * MIB);
    memory_free(memory);
}

TEST(adjacent_regions_are_two_spans)
{
    struct memory *memory = NULL;
    uint64_t length = MIB;
    auto_close int fd = make_file(4 * MIB);
    CHECK_INT(memory_new_empty(&memory), 0);
    CHECK_INT(memory_add(memory, 0, MIB, fd, 2 * MIB), 0);
    CHECK_INT(memory_add(memory, MIB, MIB, fd, 0), 0);
    CHECK(memory_span(memory, MIB - 4096, 8192) == NULL);
    CHECK(memory_span_begin(memory, MIB - 4096, &length) == memory_region(memory, 0)->host + MIB - 4096);
    CHECK_INT(length, 4096);
    length = 0;
    CHECK(memory_span_begin(memory, 0, &length) == NULL);
    length = 1;
    CHECK(memory_span_begin(memory, 2 * MIB, &length) == NULL);
    memory_free(memory);
}

TEST(the_number_of_regions_is_limited)
{
    struct memory *memory = NULL;
    auto_close int fd = make_file(MIB);
    CHECK_INT(memory_new_empty(&memory), 0);
    for (uint64_t i = 0; i < MEMORY_MOST_REGIONS; i++)
        CHECK_INT(memory_add(memory, (MEMORY_MOST_REGIONS - i) * 8192, 4096, fd, 0), 0);
    CHECK_INT(memory_add(memory, 0, 4096, fd, 0), -E2BIG);
    memory_free(memory);
}

/* Pages full of '1', '2', … */
static int make_pages(size_t count)
{
    static char page[4096];
    int fd = memfd_create("pages", MFD_CLOEXEC);
    for (size_t i = 0; i < count; i++) {
        memset(page, '1' + (int)i, sizeof(page));
        if (write(fd, page, sizeof(page)) != (ssize_t)sizeof(page))
            abort();
    }
    return fd;
}

static char byte_at(const struct memory *memory, uint64_t guest)
{
    return *(const char *)memory_span(memory, guest, 1);
}

TEST(an_overlay_shows_a_file_and_keeps_what_is_written)
{
    struct memory *memory = NULL, *other = NULL;
    char byte = 0;
    auto_close int fd = make_pages(4);
    CHECK_INT(memory_new(MIB, false, &memory), 0);
    CHECK_INT(memory_new(MIB, false, &other), 0);
    CHECK_INT(memory_overlay(memory, 8192, 8192, fd, 4096), 0);
    CHECK_INT(memory_overlay(other, 0, 16384, fd, 0), 0);
    CHECK_INT(byte_at(memory, 8191), 0);
    CHECK_INT(byte_at(memory, 8192), '2');
    CHECK_INT(byte_at(memory, 12288), '3');
    CHECK_INT(byte_at(memory, 16384), 0);
    CHECK_INT(memory_write(memory, 8192, "x", 1), 0);
    CHECK_INT(byte_at(memory, 8192), 'x');
    CHECK_INT(byte_at(other, 4096), '2');
    CHECK_INT(pread(fd, &byte, 1, 4096), 1);
    CHECK_INT(byte, '2');
    CHECK_INT(pread(memory_region(memory, 0)->fd, &byte, 1, 8192), 1); /* whoever shares the descriptor sees nothing */
    CHECK_INT(byte, 0);
    memory_free(memory);
    memory_free(other);
}

TEST(an_overlay_that_cannot_be_changes_nothing)
{
    struct memory *memory = NULL;
    int ends[2];
    auto_close int fd = make_pages(4), folder = open(test_folder(), O_RDONLY);
    auto_close int write_only = open(test_text_file("w", "text"), O_WRONLY);
    CHECK_INT(ftruncate(write_only, 8192), 0);
    CHECK_INT(pipe(ends), 0);
    CHECK_INT(memory_new(MIB, false, &memory), 0);
    CHECK_INT(memory_write(memory, 4096, "k", 1), 0);
    CHECK_INT(memory_overlay(memory, 4096, 0, fd, 0), -EINVAL);
    CHECK_INT(memory_overlay(memory, 4097, 4096, fd, 0), -EINVAL);
    CHECK_INT(memory_overlay(memory, 4096, 4097, fd, 0), -EINVAL);
    CHECK_INT(memory_overlay(memory, 4096, 4096, fd, 1), -EINVAL);
    CHECK_INT(memory_overlay(memory, 4096, 4096, fd, 16384), -EFBIG);
    CHECK_INT(memory_overlay(memory, 4096, 20480, fd, 0), -EFBIG);
    CHECK_INT(memory_overlay(memory, 4096, 8192, fd, UINT64_MAX - 4095), -EFBIG);
    CHECK_INT(memory_overlay(memory, MIB, 4096, fd, 0), -EFAULT);
    CHECK_INT(memory_overlay(memory, MIB - 4096, 8192, fd, 0), -EFAULT);
    CHECK_INT(memory_overlay(memory, UINT64_MAX - 4095, 4096, fd, 0), -EFAULT);
    CHECK_INT(memory_overlay(memory, 4096, 4096, ends[0], 0), -ENODEV);
    CHECK_INT(memory_overlay(memory, 4096, 4096, folder, 0), -ENODEV);
    CHECK_INT(memory_overlay(memory, 4096, 4096, write_only, 0), -EACCES);
    CHECK_INT(memory_overlay(memory, 4096, 4096, -1, 0), -EBADF);
    CHECK_INT(byte_at(memory, 4096), 'k');
    close(ends[0]);
    close(ends[1]);
    memory_free(memory);
}

/* How much of a file the host holds. */
static uint64_t held_bytes(int fd)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        abort();
    return (uint64_t)status.st_blocks * 512;
}

/* The pages of a mapping that are in the host's memory (mincore(2)). */
static size_t resident_pages(void *span, size_t length)
{
    static unsigned char pages[1024];
    size_t count = 0;
    if (length > sizeof(pages) * 4096 || mincore(span, length, pages) < 0)
        abort();
    for (size_t i = 0; i < length / 4096; i++)
        count += pages[i] & 1;
    return count;
}

TEST(discarded_pages_go_back_to_the_host)
{
    struct memory *memory = NULL;
    CHECK_INT(memory_new(8 * MIB, false, &memory), 0);
    int fd = memory_region(memory, 0)->fd;
    uint8_t *ram = memory_span(memory, 0, 8 * MIB);
    memset(ram, 1, 8 * MIB);
    CHECK_INT(held_bytes(fd), 8 * MIB);
    CHECK_INT(memory_discard(memory, MIB, 2 * MIB), 0);
    CHECK_INT(held_bytes(fd), 6 * MIB);
    CHECK_INT(resident_pages(ram + MIB, 2 * MIB), 0);
    CHECK_INT(resident_pages(ram + 3 * MIB, MIB), 256);
    CHECK(ram[MIB - 1] == 1 && ram[MIB] == 0 && ram[3 * MIB - 1] == 0 && ram[3 * MIB] == 1);
    CHECK_INT(memory_discard(memory, MIB, 2 * MIB), 0); /* once more is nothing new */
    CHECK_INT(memory_discard_span(memory, ram + 4 * MIB, 4 * MIB), 0);
    CHECK_INT(memory_discard(memory, 0, 4096), 0);
    CHECK_INT(memory_discard(memory, 8 * MIB - 4096, 4096), 0);
    CHECK(lseek(fd, 0, SEEK_END) == 8 * (off_t)MIB);
    memory_free(memory);
}

TEST(only_whole_pages_of_memory_are_discarded)
{
    struct memory *memory = NULL;
    char other[8192];
    CHECK_INT(memory_new(MEMORY_GAP_START + MIB, false, &memory), 0);
    uint8_t *ram = memory_span(memory, 0, MIB), *high = memory_span(memory, MEMORY_GAP_END, MIB);
    ram[0] = high[0] = 1;
    CHECK_INT(memory_discard(memory, 0, 0), -EINVAL);
    CHECK_INT(memory_discard(memory, 0, 100), -EINVAL);
    CHECK_INT(memory_discard(memory, 512, 4096), -EINVAL);
    CHECK_INT(memory_discard(memory, MEMORY_GAP_START, 4096), -EFAULT);
    CHECK_INT(memory_discard(memory, 0, MEMORY_GAP_START + 4096), -EFAULT); /* over the edge: nothing is given back */
    CHECK_INT(memory_discard(memory, MEMORY_GAP_END, MIB + 4096), -EFAULT);
    CHECK_INT(memory_discard(memory, 0, UINT64_MAX - 4095), -EFAULT);
    CHECK_INT(memory_discard(memory, UINT64_MAX - 4095, 4096), -EFAULT);
    CHECK_INT(memory_discard(memory, UINT64_MAX - 4095, 8192), -EFAULT);
    CHECK(ram[0] == 1 && high[0] == 1);
    CHECK_INT(memory_discard_span(memory, ram, 0), -EINVAL);
    CHECK_INT(memory_discard_span(memory, ram + 1, 4096), -EINVAL);
    CHECK_INT(memory_discard_span(memory, ram, 4097), -EINVAL);
    CHECK_INT(memory_discard_span(memory, high, MIB + 4096), -EFAULT);
    CHECK_INT(memory_discard_span(memory, high, UINT64_MAX - 4095), -EFAULT);
    CHECK_INT(memory_discard_span(memory, (void *)((uintptr_t)(other + 4095) & ~(uintptr_t)4095), 4096), -EFAULT);
    CHECK(ram[0] == 1 && high[0] == 1);
    CHECK_INT(memory_discard(memory, MEMORY_GAP_END, MIB), 0);
    CHECK(ram[0] == 1 && high[0] == 0);
    memory_free(memory);
}

TEST(discarding_over_adjacent_regions)
{
    struct memory *memory = NULL;
    auto_close int fd = make_file(4 * MIB);
    CHECK_INT(memory_new_empty(&memory), 0);
    CHECK_INT(memory_add(memory, 0, MIB, fd, 2 * MIB), 0);
    CHECK_INT(memory_add(memory, MIB, MIB, fd, 0), 0);
    memset(memory_region(memory, 0)->host, 1, MIB);
    memset(memory_region(memory, 1)->host, 1, MIB);
    CHECK_INT(memory_discard(memory, MIB - 4096, 8192), 0);
    CHECK_INT(held_bytes(fd), 2 * MIB - 8192);
    CHECK_INT(memory_region(memory, 0)->host[MIB - 4096], 0); /* each at its own place in the file */
    CHECK_INT(memory_region(memory, 0)->host[MIB - 4097], 1);
    CHECK_INT(memory_region(memory, 1)->host[0], 0);
    CHECK_INT(memory_region(memory, 1)->host[4096], 1);
    memory_free(memory);
}

TEST(memory_survives_no_memory)
{
    FOR_EACH_FAULT
    {
        struct memory *memory = NULL;
        CHECK_INT(memory_new(6 * GIB, false, &memory), fault_was_hit() ? -ENOMEM : 0);
        memory_free(memory);
    }
}
