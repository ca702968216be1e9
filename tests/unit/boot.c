// SPDX-License-Identifier: Apache-2.0
/* Tests of boot: the command line's parts, and ELF kernels, right and broken in every field. */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "boot/cmdline.h"
#include "boot/elf.h"
#include "host/kernels.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static struct vial_error err;

/* ---- command line ---- */

TEST(parts_become_a_line)
{
    struct cmdline line = CMDLINE_INIT;
    auto_free char *text = NULL;
    cmdline_add_word(&line, "quiet");
    cmdline_add_value(&line, "init", "/init.krun");
    cmdline_add_value(&line, "note", "two words");
    cmdline_add_value(&line, "empty", "");
    cmdline_add_device(&line, 0xd0001000, 4096, 6);
    cmdline_add_text(&line, "");
    cmdline_add_text(&line, "a=\"b c\" d");
    CHECK_INT(cmdline_finish(&line, &text, &err), 0);
    CHECK_TEXT(text, "quiet init=/init.krun note=\"two words\" empty= virtio_mmio.device=4K@0xd0001000:6 a=\"b c\" d");
}

TEST(what_cannot_be_said_is_refused)
{
    static const char *const values[] = {"a\"b", "a\nb", "caf\xc3\xa9", "\x7f"};
    for (size_t i = 0; i < array_length(values); i++) {
        struct cmdline line = CMDLINE_INIT;
        char *text = NULL;
        cmdline_add_value(&line, "key", values[i]);
        cmdline_add_word(&line, "later");
        CHECK_INT(cmdline_finish(&line, &text, &err), -EINVAL);
        CHECK(text == NULL && err.remedy[0] != '\0');
        CHECK_TEXT(err.field, "kernel.cmdline");
    }
    struct cmdline line = CMDLINE_INIT;
    char *text = NULL;
    cmdline_add_text(&line, "tab\there");
    CHECK_INT(cmdline_finish(&line, &text, &err), -EINVAL);
}

TEST(the_line_is_never_longer_than_the_kernel_takes)
{
    for (int words = 1022; words <= 1024; words++) {
        struct cmdline line = CMDLINE_INIT;
        auto_free char *text = NULL;
        for (int i = 0; i < words; i++)
            cmdline_add_word(&line, "x");
        cmdline_add_word(&line, "yy");
        int result = cmdline_finish(&line, &text, &err);
        CHECK_INT(result, words < 1023 ? 0 : -E2BIG);
        CHECK(result < 0 || strlen(text) < LIMIT_CMDLINE_BYTES);
    }
    struct cmdline line = CMDLINE_INIT; /* two hundred devices do not fit: that is an error, not a cut line */
    char *text = NULL;
    for (unsigned i = 0; i < 200; i++)
        cmdline_add_device(&line, 0xd0000000 + 4096 * i, 4096, i);
    CHECK_INT(cmdline_finish(&line, &text, &err), -E2BIG);
    CHECK_TEXT(err.remedy, "append less, use fewer devices, or tell of them by ACPI (machine.acpi)");
}

TEST(the_line_survives_no_memory)
{
    FOR_EACH_FAULT
    {
        struct cmdline line = CMDLINE_INIT;
        auto_free char *text = NULL;
        cmdline_add_word(&line, "quiet");
        CHECK_INT(cmdline_finish(&line, &text, &err), fault_was_hit() ? -ENOMEM : 0);
    }
}

/* ---- ELF ---- */

struct image {
    Elf64_Ehdr header;
    Elf64_Phdr segments[2];
    struct {
        Elf64_Nhdr header;
        char name[4];
        uint32_t entry;
    } note;
    char bytes[64];
};

static struct memory *memory;
static struct boot_image loaded;
static struct boot_reason reason;

/* One segment of 64 bytes at 16 MiB, zeroed up to a page, and a PVH note. */
static struct image make_image(void)
{
    struct image image = {
        .header = {.e_type = ET_EXEC,
                   .e_machine = EM_X86_64,
                   .e_entry = 0x1000010,
                   .e_phoff = offsetof(struct image, segments),
                   .e_phentsize = sizeof(Elf64_Phdr),
                   .e_phnum = 2},
        .segments = {{.p_type = PT_LOAD,
                      .p_offset = offsetof(struct image, bytes),
                      .p_paddr = 0x1000000,
                      .p_filesz = 64,
                      .p_memsz = 4096},
                     {.p_type = PT_NOTE,
                      .p_offset = offsetof(struct image, note),
                      .p_filesz = sizeof(image.note),
                      .p_memsz = sizeof(image.note)}},
        .note = {.header = {.n_namesz = 4, .n_descsz = 4, .n_type = 18}, .name = "Xen", .entry = 0x1000020},
        .bytes = "the kernel",
    };
    memcpy(image.header.e_ident, ELFMAG, SELFMAG);
    image.header.e_ident[EI_CLASS] = ELFCLASS64;
    image.header.e_ident[EI_DATA] = ELFDATA2LSB;
    return image;
}

static int load_bytes(const void *bytes, size_t length)
{
    static int count;
    char name[32];
    snprintf(name, sizeof(name), "elf%d", count++ % 60);
    auto_close int fd = open(test_file(name, bytes, length), O_RDONLY);
    memory_free(memory);
    if (memory_new(32 << 20, false, &memory) < 0)
        abort();
    reason = (struct boot_reason){0};
    loaded = (struct boot_image){0};
    return elf_load(fd, memory, &loaded, &reason);
}

static int load(const struct image *image)
{
    return load_bytes(image, sizeof(*image));
}

static void forget(void)
{
    memory = memory_free(memory);
}

TEST(an_image_is_loaded_and_its_entry_found)
{
    struct image image = make_image();
    CHECK_INT(load(&image), 0);
    CHECK_INT(loaded.protocol, BOOT_PVH);
    CHECK_INT(loaded.entry, 0x1000020);
    CHECK_INT(loaded.begin, 0x1000000);
    CHECK_INT(loaded.end, 0x1001000);
    CHECK(memcmp(memory_span(memory, 0x1000000, 64), image.bytes, 64) == 0);
    CHECK_INT(*(const char *)memory_span(memory, 0x1000040, 1), 0);
    image.note.header.n_type = 17; /* another of Xen's notes */
    CHECK_INT(load(&image), 0);
    CHECK_INT(loaded.protocol, BOOT_LINUX64);
    CHECK_INT(loaded.entry, 0x1000010);
    forget();
}

#define REFUSED(change, expected)                                                                                      \
    do {                                                                                                               \
        struct image image = make_image();                                                                             \
        change;                                                                                                        \
        CHECK_INT(load(&image), -EINVAL);                                                                              \
        CHECK_TEXT(reason.text, expected);                                                                             \
        CHECK_INT(loaded.end, 0);                                                                                      \
    } while (0)

TEST(broken_images_are_refused_with_a_reason)
{
    REFUSED(image.header.e_ident[0] = 0, "it is not an ELF file");
    REFUSED(image.header.e_ident[EI_CLASS] = ELFCLASS32, "it is not made for x86_64");
    REFUSED(image.header.e_machine = EM_AARCH64, "it is not made for x86_64");
    REFUSED(image.header.e_type = ET_REL, "it is an object or core file, not a kernel");
    REFUSED(image.header.e_phentsize = 32, "its program headers have the wrong size");
    REFUSED(image.header.e_phnum = 0, "it has no program headers, or too many");
    REFUSED(image.header.e_phnum = 65535, "it has no program headers, or too many");
    REFUSED(image.header.e_phoff = 1 << 20, "it is truncated");
    REFUSED(image.header.e_phoff = UINT64_MAX, "it is truncated");
    REFUSED(image.segments[0].p_offset = UINT64_MAX - 10, "it is truncated");
    REFUSED(image.segments[0].p_filesz = 4097, "a segment has more bytes in the file than in memory");
    REFUSED(image.segments[0].p_filesz = image.segments[0].p_memsz, "it is truncated");
    REFUSED(image.segments[0].p_paddr = 0, "a segment lies below 1 MiB, where the boot protocols have their tables");
    REFUSED(image.segments[0].p_paddr = 32 << 20, "it needs 33 MiB of memory, and the machine has 32");
    REFUSED(image.segments[0].p_memsz = 17 << 20, "it needs 33 MiB of memory, and the machine has 32");
    REFUSED(image.segments[0].p_memsz = (UINT64_C(16) << 20) + 1, "it needs 33 MiB of memory, and the machine has 32");
    REFUSED(image.segments[0].p_paddr = UINT64_C(0xd0000000),
            "it would reach up to 0xd0001000, where the machine has no memory for it");
    REFUSED(image.segments[0].p_paddr = UINT64_MAX - 100, "a segment reaches beyond the end of all addresses");
    REFUSED(image.segments[0].p_memsz = UINT64_MAX, "a segment reaches beyond the end of all addresses");
    REFUSED(image.segments[1] = image.segments[0], "two of its segments overlap");
    REFUSED((image.segments[1] = image.segments[0], image.segments[1].p_paddr -= 4095), "two of its segments overlap");
    REFUSED(image.segments[0].p_type = PT_NULL, "it has nothing to load");
    REFUSED(image.note.entry = 0x2000000, "its entry point lies outside of what it loads");
    REFUSED(image.note.entry = 0x1000040, "its entry point lies outside of what it loads"); /* in the zeroed part */
    REFUSED(image.segments[1].p_filesz = 65537, "its notes are larger than 64 KiB");
    forget();
}

TEST(notes_that_lie_about_their_lengths_are_not_followed)
{
    struct image image = make_image();
    image.note.header.n_descsz = UINT32_MAX;
    CHECK_INT(load(&image), 0);
    CHECK_INT(loaded.protocol, BOOT_LINUX64);
    image = make_image();
    image.note.header.n_namesz = UINT32_MAX;
    CHECK_INT(load(&image), 0);
    CHECK_INT(loaded.protocol, BOOT_LINUX64);
    image = make_image();
    image.note.header.n_descsz = 2;
    CHECK_INT(load(&image), 0);
    CHECK_INT(loaded.protocol, BOOT_LINUX64);
    forget();
}

TEST(every_truncation_is_refused)
{
    struct image image = make_image();
    for (size_t length = 0; length < sizeof(image); length += 11) {
        CHECK_INT(load_bytes(&image, length), -EINVAL);
        CHECK_TEXT(reason.text, "it is truncated");
    }
    forget();
}

/* The file in pages: headers, then a segment whose bytes begin and end in the middle of a page. */
enum { segment_begin = 4096 + 100, segment_bytes = 3 * 4096, pages_bytes = 6 * 4096 };

static void make_pages(uint8_t bytes[pages_bytes], uint64_t address)
{
    struct image image = make_image();
    image.segments[0].p_offset = segment_begin;
    image.segments[0].p_paddr = address;
    image.segments[0].p_filesz = segment_bytes;
    image.segments[0].p_memsz = segment_bytes + 8192;
    image.note.entry = (uint32_t)address;
    memset(bytes, 0xee, pages_bytes); /* what lies around the segment must not get into memory */
    memcpy(bytes, &image, sizeof(image));
    for (size_t i = 0; i < segment_bytes; i++)
        bytes[segment_begin + i] = (uint8_t)(1 + i % 251);
}

static bool is_zero(uint64_t address, size_t length)
{
    const uint8_t *bytes = memory_span(memory, address, length);
    for (size_t i = 0; i < length; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

/* Whether that page is a view of another file than the memory's own, which stays empty there. */
static bool is_view(uint64_t address)
{
    uint8_t byte = 0xff;
    return pread(memory_region(memory, 0)->fd, &byte, 1, (off_t)address) == 1 && byte == 0 && !is_zero(address, 1);
}

TEST(whole_pages_are_mapped_and_ragged_ends_read)
{
    static uint8_t bytes[pages_bytes];
    const uint64_t address = 0x1000000 + 100;
    make_pages(bytes, address);
    CHECK_INT(load_bytes(bytes, sizeof(bytes)), 0);
    CHECK(memcmp(memory_span(memory, address, segment_bytes), bytes + segment_begin, segment_bytes) == 0);
    CHECK(is_zero(0x1000000, 100));
    CHECK(is_zero(address + segment_bytes, 8192));
    CHECK(!is_view(0x1000000 + 100));
    CHECK(is_view(0x1001000) && is_view(0x1002000));
    CHECK(!is_view(0x1003000));
    forget();
}

TEST(what_does_not_line_up_is_read)
{
    static uint8_t bytes[pages_bytes];
    const uint64_t address = 0x1000000 + 101;
    make_pages(bytes, address);
    CHECK_INT(load_bytes(bytes, sizeof(bytes)), 0);
    CHECK(memcmp(memory_span(memory, address, segment_bytes), bytes + segment_begin, segment_bytes) == 0);
    CHECK(is_zero(0x1000000, 101) && is_zero(address + segment_bytes, 8192));
    CHECK(!is_view(0x1001000));
    forget();
}

TEST(a_view_never_reaches_beyond_the_file)
{
    static uint8_t bytes[pages_bytes];
    make_pages(bytes, 0x1000000 + 100);
    for (size_t length = segment_begin; length < segment_begin + segment_bytes; length += 1000) {
        CHECK_INT(load_bytes(bytes, length), -EINVAL);
        CHECK_TEXT(reason.text, "it is truncated");
    }
    CHECK_INT(load_bytes(bytes, segment_begin + segment_bytes), 0);
    forget();
}

TEST(loading_survives_no_memory)
{
    struct image image = make_image();
    auto_close int fd = open(test_file("elf", &image, sizeof(image)), O_RDONLY);
    if (memory_new(32 << 20, false, &memory) < 0)
        abort();
    FOR_EACH_FAULT
    CHECK_INT(elf_load(fd, memory, &loaded, &reason), fault_was_hit() ? -ENOMEM : 0);
    forget();
}

TEST(the_projects_own_kernel_loads)
{
    struct host_path path;
    if (!host_kernel_find("", HOST_ENGINE_KVM, &path))
        TEST_SKIP("the kvm-x86_64 kernel could not be built: its source needs a network");
    auto_close int fd = open(path.text, O_RDONLY);
    if (memory_new(64 << 20, false, &memory) < 0)
        abort();
    CHECK_INT(elf_load(fd, memory, &loaded, &reason), 0);
    CHECK_INT(loaded.protocol, BOOT_PVH);
    CHECK(loaded.begin >= 0x1000000 && loaded.end > loaded.begin + (4 << 20));
    forget();
}
