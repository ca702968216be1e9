// SPDX-License-Identifier: Apache-2.0
/* Tests of boot_load with every format of kernel image, right and broken, and with an initramfs. */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/limits.h"
#include "boot/boot.h"
#include "boot/layout.h"
#include "host/kernels.h"
#include "kernel_image.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { mib = 1 << 20 };

static struct vial_error err;
static struct memory *memory;
static struct boot_entry entry;

static void forget(void)
{
    memory = memory_free(memory);
}

static int load_with(int kernel_fd, enum vial_kernel_format format, int initramfs_fd, uint64_t memory_mib,
                     const char *cmdline)
{
    const struct boot_options options = {
        .kernel_fd = kernel_fd,
        .kernel_path = "/boot/image",
        .format = format,
        .initramfs_fd = initramfs_fd,
        .initramfs_path = "/boot/initramfs",
        .cmdline = cmdline,
        .vcpus = 1,
        .interrupt_pins = 24,
    };
    forget();
    if (memory_new(memory_mib * mib, false, &memory) < 0)
        abort();
    err = (struct vial_error){0};
    entry = (struct boot_entry){0};
    return boot_load(&options, memory, &entry, &err);
}

static int file_of(const void *bytes, size_t length)
{
    int fd = memfd_create("image", MFD_CLOEXEC);
    if (fd < 0 || fd_write_all(fd, bytes, length) < 0)
        abort();
    return fd;
}

static int load(const struct bytes *image, enum vial_kernel_format format)
{
    auto_close int fd = file_of(image->data, image->length);
    return load_with(fd, format, -1, 64, "quiet");
}

static bool has_code(uint64_t address, size_t length)
{
    const uint8_t *code = memory_span(memory, address, length);
    for (size_t i = 0; i < length; i++)
        if (code[i] != code_byte(i))
            return false;
    return true;
}

#define REFUSED(result, expected_code, expected_field, expected_message)                                               \
    do {                                                                                                               \
        CHECK((result) < 0);                                                                                           \
        CHECK_TEXT(err.message, expected_message);                                                                     \
        CHECK_TEXT(err.field, expected_field);                                                                         \
        CHECK_INT(err.code, expected_code);                                                                            \
        CHECK_INT(err.phase, VIAL_PHASE_LOAD);                                                                         \
        CHECK(err.remedy[0] != '\0' && entry.entry == 0);                                                              \
    } while (0)
#define KERNEL_REFUSED(result, why)                                                                                    \
    REFUSED(result, VIAL_ERROR_INVALID, "kernel.path", "cannot load the kernel /boot/image: " why)

/* ---- formats ---- */

TEST(an_elf_kernel_is_entered_by_its_protocol)
{
    auto_bytes struct bytes with = make_elf(true), without = make_elf(false);
    CHECK_INT(load(&with, VIAL_KERNEL_ELF), 0);
    CHECK_INT(entry.protocol, BOOT_PVH);
    CHECK_INT(entry.entry, KERNEL_PVH_ENTRY);
    CHECK(has_code(KERNEL_ADDRESS, KERNEL_CODE_BYTES));
    CHECK_INT(load(&without, VIAL_KERNEL_AUTO), 0);
    CHECK_INT(entry.protocol, BOOT_LINUX64);
    CHECK_INT(entry.entry, KERNEL_ELF_ENTRY);
    CHECK(has_code(KERNEL_ADDRESS, KERNEL_CODE_BYTES));
    forget();
}

static const struct wrapper {
    enum vial_kernel_format format;
    struct bytes (*pack)(const void *bytes, size_t length);
    const char *name;
} wrappers[] = {
    {VIAL_KERNEL_IMAGE_GZ, pack_gzip, "gzip"},
    {VIAL_KERNEL_IMAGE_BZ2, pack_bzip2, "bzip2"},
    {VIAL_KERNEL_IMAGE_ZSTD, pack_zstd, "zstd"},
};

/* Loads it by its name and by its content, with the same outcome. */
static bool loads_as_elf(const struct bytes *image, enum vial_kernel_format format)
{
    for (int i = 0; i < 2; i++)
        if (load(image, i == 0 ? format : VIAL_KERNEL_AUTO) < 0 || entry.entry != KERNEL_PVH_ENTRY ||
            !has_code(KERNEL_ADDRESS, KERNEL_CODE_BYTES))
            return false;
    return true;
}

TEST(compressed_kernels_are_unpacked)
{
    auto_bytes struct bytes elf = make_elf(true);
    for (size_t i = 0; i < array_length(wrappers); i++) {
        auto_bytes struct bytes packed = wrappers[i].pack(elf.data, elf.length);
        auto_bytes struct bytes inside = make_bzimage(packed.data, packed.length);
        CHECK(loads_as_elf(&packed, wrappers[i].format));
        CHECK(loads_as_elf(&inside, wrappers[i].format));
        bytes_add(&packed, "what the build put behind it", 28);
        CHECK(loads_as_elf(&packed, wrappers[i].format));
    }
    auto_bytes struct bytes packed = pack_gzip(elf.data, elf.length);
    auto_bytes struct bytes zboot = make_zboot(packed.data, packed.length);
    CHECK(loads_as_elf(&zboot, VIAL_KERNEL_PE_GZ));
    forget();
}

TEST(streams_that_follow_each_other_are_one)
{
    auto_bytes struct bytes elf = make_elf(true);
    for (size_t i = 0; i < array_length(wrappers); i++) {
        auto_bytes struct bytes packed = wrappers[i].pack(elf.data, 5000);
        auto_bytes struct bytes rest = wrappers[i].pack(elf.data + 5000, elf.length - 5000);
        bytes_add(&packed, rest.data, rest.length);
        CHECK(loads_as_elf(&packed, wrappers[i].format));
    }
    forget();
}

TEST(broken_streams_are_refused_with_a_reason)
{
    static const char words[128] = "just text, as long as the header of an ELF file";
    auto_bytes struct bytes elf = make_elf(true);
    for (size_t i = 0; i < array_length(wrappers); i++) {
        enum vial_kernel_format format = wrappers[i].format;
        auto_bytes struct bytes packed = wrappers[i].pack(elf.data, elf.length);
        for (size_t length = 8; length < packed.length; length += packed.length / 7) {
            struct bytes cut = {packed.data, length};
            KERNEL_REFUSED(load(&cut, format), "its compressed data is truncated");
        }
        packed.data[packed.length / 2] ^= 0x55;
        KERNEL_REFUSED(load(&packed, format), "its compressed data is damaged");
        auto_bytes struct bytes text = wrappers[i].pack(words, sizeof(words));
        KERNEL_REFUSED(load(&text, format), "what it unpacks to is of no use: it is not an ELF file");
        char expected[160];
        snprintf(expected, sizeof(expected),
                 "cannot load the kernel /boot/image: it holds no %s stream, neither at its beginning nor as a "
                 "bzImage's payload",
                 wrappers[i].name);
        REFUSED(load(&elf, format), VIAL_ERROR_INVALID, "kernel.path", expected);
        auto_bytes struct bytes wrong = make_bzimage("something else", 14);
        snprintf(expected, sizeof(expected),
                 "cannot load the kernel /boot/image: what it holds is not compressed with %s", wrappers[i].name);
        REFUSED(load(&wrong, format), VIAL_ERROR_INVALID, "kernel.path", expected);
    }
    forget();
}

TEST(wrappers_that_lie_are_refused)
{
    auto_bytes struct bytes elf = make_elf(true), packed = pack_gzip(elf.data, elf.length);
    auto_bytes struct bytes image = make_bzimage(packed.data, packed.length);
    auto_bytes struct bytes zboot = make_zboot(packed.data, packed.length);
    const uint32_t huge = UINT32_MAX;
    bzimage_header(&image)->payload_length = huge;
    KERNEL_REFUSED(load(&image, VIAL_KERNEL_IMAGE_GZ), "it is truncated");
    bzimage_header(&image)->payload_length = 100; /* the stream may not be read beyond the payload */
    KERNEL_REFUSED(load(&image, VIAL_KERNEL_IMAGE_GZ), "its compressed data is truncated");
    bzimage_header(&image)->payload_offset = huge;
    KERNEL_REFUSED(load(&image, VIAL_KERNEL_IMAGE_GZ), "it is truncated");
    memcpy(zboot.data + 8, &huge, 4);
    KERNEL_REFUSED(load(&zboot, VIAL_KERNEL_PE_GZ), "it is truncated");
    zboot.data[4] = 'Z';
    KERNEL_REFUSED(load(&zboot, VIAL_KERNEL_PE_GZ), "it is not an EFI zboot image");
    forget();
}

TEST(a_bomb_does_not_go_off)
{
    static uint8_t zeros[1 << 20];
    auto_bytes struct bytes million = pack_zstd(zeros, sizeof(zeros)), bomb = {0};
    for (size_t i = 0; i <= LIMIT_KERNEL_UNPACKED_BYTES / sizeof(zeros); i++)
        bytes_add(&bomb, million.data, million.length);
    KERNEL_REFUSED(load(&bomb, VIAL_KERNEL_IMAGE_ZSTD), "it unpacks to more than 512 MiB");
    forget();
}

TEST(a_limit_of_file_sizes_is_an_error_not_a_signal)
{
    static uint8_t zeros[3 << 20];
    struct rlimit before, small;
    auto_bytes struct bytes packed = pack_gzip(zeros, sizeof(zeros));
    auto_close int fd = file_of(packed.data, packed.length);
    struct memory *big_enough = NULL;
    CHECK_INT(memory_new(64 * mib, false, &big_enough), 0);
    CHECK_INT(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 2 * mib;
    const struct boot_options options = {.kernel_fd = fd,
                                         .kernel_path = "/boot/image",
                                         .format = VIAL_KERNEL_IMAGE_GZ,
                                         .initramfs_fd = -1,
                                         .cmdline = "",
                                         .vcpus = 1};
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &small), 0);
    int result = boot_load(&options, big_enough, &entry, &err);
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &before), 0);
    memory_free(big_enough);
    KERNEL_REFUSED(result, "it unpacks to more than 2 MiB");
}

/* ---- bzImage, raw ---- */

TEST(a_bzimage_unpacks_itself)
{
    auto_bytes struct bytes image = make_bzimage("\xfd"
                                                 "7zXZ payload",
                                                 13);
    size_t code_bytes = image.length - KERNEL_CODE_OFFSET;
    for (int i = 0; i < 2; i++) {
        CHECK_INT(load(&image, i == 0 ? VIAL_KERNEL_BZIMAGE : VIAL_KERNEL_AUTO), 0);
        CHECK_INT(entry.protocol, BOOT_LINUX64);
        CHECK_INT(entry.entry, KERNEL_ADDRESS + 0x200);
        CHECK(has_code(KERNEL_ADDRESS, KERNEL_PAYLOAD));
        CHECK(memcmp(memory_span(memory, KERNEL_ADDRESS, code_bytes), image.data + KERNEL_CODE_OFFSET, code_bytes) ==
              0);
        CHECK_INT(*(uint8_t *)memory_span(memory, KERNEL_ADDRESS + code_bytes, 1), 0);
    }
    bytes_add(&image, "a signature", 11); /* behind what the header announces */
    CHECK_INT(load(&image, VIAL_KERNEL_BZIMAGE), 0);
    CHECK_INT(*(uint8_t *)memory_span(memory, KERNEL_ADDRESS + code_bytes, 1), 0);
    bzimage_header(&image)->setup_sects = 0; /* which means 4 */
    bzimage_header(&image)->payload_length = 0;
    bzimage_header(&image)->syssize = 100;
    CHECK_INT(image.length < 5 * 512 + 1000, true);
    KERNEL_REFUSED(load(&image, VIAL_KERNEL_BZIMAGE), "it is truncated");
    forget();
}

#define BZIMAGE_REFUSED(change, why)                                                                                   \
    do {                                                                                                               \
        auto_bytes struct bytes image = make_bzimage("payload", 7);                                                    \
        struct setup_header *header = bzimage_header(&image);                                                          \
        (void)header;                                                                                                  \
        change;                                                                                                        \
        KERNEL_REFUSED(load(&image, VIAL_KERNEL_BZIMAGE), why);                                                        \
    } while (0)

TEST(broken_bzimages_are_refused_with_a_reason)
{
    BZIMAGE_REFUSED(header->boot_flag = 0, "it is not a bzImage");
    BZIMAGE_REFUSED(header->header = 0, "it is not a bzImage");
    BZIMAGE_REFUSED(image.length = 0x200, "it is truncated");
    BZIMAGE_REFUSED(image.length = KERNEL_CODE_OFFSET, "it is truncated");
    BZIMAGE_REFUSED(image.length = KERNEL_CODE_OFFSET + KERNEL_PAYLOAD, "it is truncated");
    BZIMAGE_REFUSED(header->version = 0x020b, "it speaks boot protocol 2.11; 2.12 is the oldest with a 64-bit entry");
    BZIMAGE_REFUSED(header->xloadflags = 0, "it has no 64-bit entry: it is a 32-bit kernel");
    BZIMAGE_REFUSED(header->pref_address = 0x10000,
                    "it wants to lie below 1 MiB, where the boot protocols have their tables");
    BZIMAGE_REFUSED(header->pref_address = UINT64_MAX - 10, "it wants to lie beyond the end of all addresses");
    BZIMAGE_REFUSED(header->pref_address = UINT64_C(0xd0000000),
                    "it would reach up to 0xd0100000, where the machine has no memory for it");
    BZIMAGE_REFUSED((header->syssize = 32, header->payload_offset = 0), "its code ends before its 64-bit entry");
    BZIMAGE_REFUSED(header->payload_length = UINT32_MAX, "it is truncated");
    auto_bytes struct bytes image = make_bzimage("payload", 7);
    bzimage_header(&image)->init_size = 49 << 20;
    REFUSED(load(&image, VIAL_KERNEL_BZIMAGE), VIAL_ERROR_OUT_OF_RANGE, "kernel.path",
            "cannot load the kernel /boot/image: it needs 65 MiB of memory, and the machine has 64");
    CHECK_TEXT(err.remedy, "give the machine more memory (machine.memory_mib)");
    bzimage_header(&image)->init_size = 48 << 20;
    CHECK_INT(load(&image, VIAL_KERNEL_BZIMAGE), 0);
    forget();
}

TEST(an_older_header_is_not_longer_than_it_says)
{
    auto_bytes struct bytes image = make_bzimage("payload", 7);
    bzimage_header(&image)->jump = 0x66eb; /* ends at 0x268, before kernel_info_offset */
    CHECK_INT(load(&image, VIAL_KERNEL_BZIMAGE), 0);
    const struct boot_params *zero_page = memory_span(memory, BOOT_ZERO_PAGE, sizeof(*zero_page));
    CHECK_INT(zero_page->hdr.kernel_info_offset, 0);
    CHECK_INT(zero_page->hdr.init_size, KERNEL_INIT_BYTES);
    forget();
}

TEST(a_raw_image_goes_to_16_mib)
{
    auto_bytes struct bytes image = {0};
    for (size_t i = 0; i < 3 * 4096 + 17; i++)
        bytes_add(&image, &(uint8_t){code_byte(i)}, 1);
    CHECK_INT(load(&image, VIAL_KERNEL_RAW), 0);
    CHECK_INT(entry.protocol, BOOT_LINUX64);
    CHECK_INT(entry.entry, 0x1000000);
    CHECK(has_code(0x1000000, image.length));
    CHECK_INT(*(uint8_t *)memory_span(memory, 0x1000000 + image.length, 1), 0);
    KERNEL_REFUSED(load(&image, VIAL_KERNEL_AUTO), "it carries no mark of a known format");
    image.length = 0;
    KERNEL_REFUSED(load(&image, VIAL_KERNEL_RAW), "it is empty");
    auto_close int fd = memfd_create("big", MFD_CLOEXEC);
    CHECK_INT(ftruncate(fd, 48 * mib + 1), 0);
    REFUSED(load_with(fd, VIAL_KERNEL_RAW, -1, 64, ""), VIAL_ERROR_OUT_OF_RANGE, "kernel.path",
            "cannot load the kernel /boot/image: it needs 65 MiB of memory, and the machine has 64");
    forget();
}

TEST(files_that_are_none_are_refused)
{
    int ends[2];
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    auto_close int reader = ends[0], writer = ends[1], folder = open(test_folder(), O_RDONLY | O_CLOEXEC);
    KERNEL_REFUSED(load_with(reader, VIAL_KERNEL_RAW, -1, 64, ""), "it is not a regular file");
    KERNEL_REFUSED(load_with(folder, VIAL_KERNEL_IMAGE_GZ, -1, 64, ""), "it is not a regular file");
    REFUSED(load_with(writer, VIAL_KERNEL_ELF, -1, 64, ""), VIAL_ERROR_OS, "kernel.path",
            "cannot load the kernel /boot/image: Illegal seek");
    CHECK_INT(err.os_error, ESPIPE);
    auto_bytes struct bytes elf = make_elf(true);
    KERNEL_REFUSED(load(&elf, (enum vial_kernel_format)99), "its format is unknown");
    forget();
}

TEST(a_kernel_above_what_is_mapped_cannot_be_entered)
{
    auto_bytes struct bytes image = make_bzimage("payload", 7);
    auto_close int fd = file_of(image.data, image.length);
    bzimage_header(&image)->pref_address = 0x40000000 - KERNEL_INIT_BYTES;
    auto_close int edge = file_of(image.data, image.length);
    bzimage_header(&image)->pref_address += 0x200000;
    auto_close int above = file_of(image.data, image.length);
    CHECK_INT(load_with(fd, VIAL_KERNEL_BZIMAGE, -1, 2048, ""), 0);
    CHECK_INT(load_with(edge, VIAL_KERNEL_BZIMAGE, -1, 2048, ""), 0);
    KERNEL_REFUSED(load_with(above, VIAL_KERNEL_BZIMAGE, -1, 2048, ""),
                   "it lies above 1 GiB, beyond what is mapped at its 64-bit entry");
    forget();
}

TEST(a_machine_without_memory_for_a_kernel_is_refused)
{
    auto_bytes struct bytes elf = make_elf(true);
    auto_close int fd = file_of(elf.data, elf.length);
    REFUSED(load_with(fd, VIAL_KERNEL_ELF, -1, 1, ""), VIAL_ERROR_OUT_OF_RANGE, "machine.memory_mib",
            "the machine has no memory above 1 MiB, where kernels lie");
    REFUSED(load_with(fd, VIAL_KERNEL_ELF, -1, 16, ""), VIAL_ERROR_OUT_OF_RANGE, "kernel.path",
            "cannot load the kernel /boot/image: it needs 17 MiB of memory, and the machine has 16");
    CHECK_INT(load_with(fd, VIAL_KERNEL_ELF, -1, 17, ""), 0);
    forget();
}

TEST(the_command_line_is_as_long_as_the_kernel_takes)
{
    static char line[BOOT_CMDLINE_BYTES + 1];
    auto_bytes struct bytes elf = make_elf(true), image = make_bzimage("payload", 7);
    auto_close int elf_fd = file_of(elf.data, elf.length), fd = file_of(image.data, image.length);
    memset(line, 'x', BOOT_CMDLINE_BYTES);
    REFUSED(load_with(elf_fd, VIAL_KERNEL_ELF, -1, 64, line), VIAL_ERROR_TOO_BIG, "kernel.cmdline",
            "the kernel command line is 65536 bytes long, and this kernel takes 65535");
    line[BOOT_CMDLINE_BYTES - 1] = '\0';
    CHECK_INT(load_with(elf_fd, VIAL_KERNEL_ELF, -1, 64, line), 0);
    CHECK_TEXT(memory_span(memory, BOOT_CMDLINE, BOOT_CMDLINE_BYTES), line);
    line[2048] = '\0';
    REFUSED(load_with(fd, VIAL_KERNEL_BZIMAGE, -1, 64, line), VIAL_ERROR_TOO_BIG, "kernel.cmdline",
            "the kernel command line is 2048 bytes long, and this kernel takes 2047");
    line[2047] = '\0';
    CHECK_INT(load_with(fd, VIAL_KERNEL_BZIMAGE, -1, 64, line), 0);
    forget();
}

/* ---- initramfs ---- */

/* Where the initramfs is, as the zero page says. */
static uint64_t ramdisk(uint32_t *ret_size)
{
    const struct boot_params *zero_page = memory_span(memory, BOOT_ZERO_PAGE, sizeof(*zero_page));
    *ret_size = zero_page->hdr.ramdisk_size;
    return zero_page->hdr.ramdisk_image;
}

TEST(an_initramfs_goes_to_the_top)
{
    static uint8_t content[2 * 4096 + 100];
    uint32_t size = 0;
    auto_bytes struct bytes elf = make_elf(false), image = make_bzimage("payload", 7);
    memset(content, 'i', sizeof(content));
    auto_close int elf_fd = file_of(elf.data, elf.length), fd = file_of(image.data, image.length);
    auto_close int initramfs = file_of(content, sizeof(content));
    CHECK_INT(load_with(elf_fd, VIAL_KERNEL_ELF, initramfs, 64, ""), 0);
    CHECK_INT(ramdisk(&size), 64 * mib - 3 * 4096);
    CHECK_INT(size, sizeof(content));
    const uint8_t *placed = memory_span(memory, 64 * mib - 3 * 4096, 3 * 4096);
    CHECK(memcmp(placed, content, sizeof(content)) == 0);
    for (size_t i = sizeof(content); i < 3 * 4096; i++)
        CHECK_INT(placed[i], 0);
    CHECK_INT(load_with(elf_fd, VIAL_KERNEL_ELF, initramfs, 8192, ""), 0); /* below the gap, not above 4 GiB */
    CHECK_INT(ramdisk(&size), MEMORY_GAP_START - 3 * 4096);
    CHECK_INT(load_with(fd, VIAL_KERNEL_BZIMAGE, initramfs, 8192, ""), 0);
    CHECK_INT(ramdisk(&size), 0x80000000 - 3 * 4096); /* initrd_addr_max */
    CHECK_INT(load_with(fd, VIAL_KERNEL_BZIMAGE, initramfs, 64, ""), 0);
    CHECK_INT(ramdisk(&size), 64 * mib - 3 * 4096);
    forget();
}

static int load_sized_initramfs(int kernel_fd, enum vial_kernel_format format, uint64_t bytes)
{
    auto_close int initramfs = memfd_create("initramfs", MFD_CLOEXEC);
    if (ftruncate(initramfs, (off_t)bytes) < 0)
        abort();
    return load_with(kernel_fd, format, initramfs, 64, "");
}

TEST(an_initramfs_never_meets_the_kernel)
{
    enum { init_bytes = 40 * mib };
    uint32_t size = 0;
    auto_bytes struct bytes image = make_bzimage("payload", 7);
    bzimage_header(&image)->init_size = init_bytes; /* 16 to 56 MiB */
    auto_close int fd = file_of(image.data, image.length);
    CHECK_INT(load_sized_initramfs(fd, VIAL_KERNEL_BZIMAGE, 8 * mib), 0);
    CHECK_INT(ramdisk(&size), 56 * mib);
    CHECK_INT(load_sized_initramfs(fd, VIAL_KERNEL_BZIMAGE, 8 * mib + 1), 0); /* below the kernel, then */
    CHECK_INT(ramdisk(&size), 8 * mib - 4096);
    CHECK_INT(load_sized_initramfs(fd, VIAL_KERNEL_BZIMAGE, 15 * mib), 0);
    CHECK_INT(ramdisk(&size), 1 * mib);
    REFUSED(load_sized_initramfs(fd, VIAL_KERNEL_BZIMAGE, 15 * mib + 1), VIAL_ERROR_OUT_OF_RANGE, "kernel.initramfs",
            "cannot load the initramfs /boot/initramfs: it needs 72 MiB of memory, and the machine has 64");
    bzimage_header(&image)->initrd_addr_max = 20 * mib;
    auto_close int low = file_of(image.data, image.length);
    REFUSED(load_sized_initramfs(low, VIAL_KERNEL_BZIMAGE, 15 * mib + 1), VIAL_ERROR_INVALID, "kernel.initramfs",
            "cannot load the initramfs /boot/initramfs: it does not fit below 0x1400000, the end of what this kernel "
            "can reach");
    auto_close int raw = file_of("flat", 4); /* what it zeroes behind itself is not known: 16 MiB stay free */
    CHECK_INT(load_sized_initramfs(raw, VIAL_KERNEL_RAW, 31 * mib), 0);
    CHECK_INT(ramdisk(&size), 33 * mib);
    CHECK_INT(load_sized_initramfs(raw, VIAL_KERNEL_RAW, 15 * mib), 0);
    CHECK_INT(ramdisk(&size), 49 * mib);
    REFUSED(load_sized_initramfs(raw, VIAL_KERNEL_RAW, 33 * mib), VIAL_ERROR_OUT_OF_RANGE, "kernel.initramfs",
            "cannot load the initramfs /boot/initramfs: it needs 66 MiB of memory, and the machine has 64");
    forget();
}

TEST(an_initramfs_that_is_none_is_refused)
{
    auto_bytes struct bytes elf = make_elf(true);
    auto_close int fd = file_of(elf.data, elf.length), folder = open(test_folder(), O_RDONLY | O_CLOEXEC);
    REFUSED(load_sized_initramfs(fd, VIAL_KERNEL_ELF, 0), VIAL_ERROR_INVALID, "kernel.initramfs",
            "cannot load the initramfs /boot/initramfs: it is empty");
    REFUSED(load_sized_initramfs(fd, VIAL_KERNEL_ELF, UINT64_C(5) << 30), VIAL_ERROR_INVALID, "kernel.initramfs",
            "cannot load the initramfs /boot/initramfs: it is larger than all memory below 3.25 GiB");
    REFUSED(load_with(fd, VIAL_KERNEL_ELF, folder, 64, ""), VIAL_ERROR_INVALID, "kernel.initramfs",
            "cannot load the initramfs /boot/initramfs: it is not a regular file");
    forget();
}

/* ---- the rest ---- */

TEST(booting_survives_no_memory)
{
    auto_bytes struct bytes elf = make_elf(true), packed = pack_gzip(elf.data, elf.length);
    auto_close int fd = file_of(packed.data, packed.length);
    const struct boot_options options = {.kernel_fd = fd,
                                         .kernel_path = "/boot/image",
                                         .format = VIAL_KERNEL_AUTO,
                                         .initramfs_fd = fd,
                                         .initramfs_path = "/boot/initramfs",
                                         .cmdline = "",
                                         .vcpus = 1};
    if (memory_new(64 * mib, false, &memory) < 0)
        abort();
    FOR_EACH_FAULT
    {
        int result = boot_load(&options, memory, &entry, &err);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        CHECK(result == 0 || err.code == VIAL_ERROR_NO_MEMORY);
    }
    forget();
}

TEST(the_projects_own_kernel_boots_in_every_wrapper)
{
    struct host_path path;
    struct stat status;
    if (!host_kernel_find("", HOST_ENGINE_KVM, &path))
        TEST_SKIP("the kvm-x86_64 kernel could not be built: its source needs a network");
    auto_close int fd = open(path.text, O_RDONLY | O_CLOEXEC);
    CHECK_INT(fstat(fd, &status), 0);
    void *bytes = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    CHECK(bytes != MAP_FAILED);
    CHECK_INT(load_with(fd, VIAL_KERNEL_AUTO, -1, 64, "quiet"), 0);
    struct memory *expected = memory;
    const uint64_t expected_entry = entry.entry;
    memory = NULL;
    CHECK_INT(entry.protocol, BOOT_PVH);
    for (size_t i = 0; i < array_length(wrappers); i++) {
        auto_bytes struct bytes packed = wrappers[i].pack(bytes, (size_t)status.st_size);
        CHECK_INT(load(&packed, VIAL_KERNEL_AUTO), 0);
        CHECK_INT(entry.entry, expected_entry);
        CHECK(memcmp(memory_span(memory, 0, 64 * mib), memory_span(expected, 0, 64 * mib), 64 * mib) == 0);
    }
    munmap(bytes, (size_t)status.st_size);
    memory_free(expected);
    forget();
}
