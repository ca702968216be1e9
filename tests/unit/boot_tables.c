// SPDX-License-Identifier: Apache-2.0
/* Tests of what a kernel is told: start_info, zero page, segments, page tables, MP table, read back by offset. */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/limits.h"
#include "boot/boot.h"
#include "kernel_image.h"

#include <sys/mman.h>
#include <unistd.h>

#define GIB (UINT64_C(1) << 30)
enum { mib = 1 << 20, initramfs_bytes = 5000 };

static struct vial_error err;
static struct memory *memory;
static struct boot_entry entry;

static void forget(void)
{
    memory = memory_free(memory);
}

static uint64_t number(uint64_t address, size_t bytes)
{
    uint64_t value = 0;
    if (memory_read(memory, address, &value, bytes) < 0)
        abort();
    return value;
}

static int file_of(const void *bytes, size_t length)
{
    int fd = memfd_create("image", MFD_CLOEXEC);
    if (fd < 0 || fd_write_all(fd, bytes, length) < 0)
        abort();
    return fd;
}

static int boot(struct bytes image, uint64_t memory_bytes, bool has_initramfs, unsigned vcpus, unsigned pins)
{
    static const uint8_t content[initramfs_bytes] = {'i'};
    auto_close int fd = file_of(image.data, image.length), initramfs = file_of(content, sizeof(content));
    const struct boot_options options = {
        .kernel_fd = fd,
        .kernel_path = "/boot/image",
        .initramfs_fd = has_initramfs ? initramfs : -1,
        .initramfs_path = "/boot/initramfs",
        .cmdline = "console=hvc0 quiet",
        .vcpus = vcpus,
        .interrupt_pins = pins,
    };
    bytes_free(&image);
    forget();
    if (memory_new(memory_bytes, false, &memory) < 0)
        abort();
    return boot_load(&options, memory, &entry, &err);
}

/* ---- PVH ---- */

static bool is_range(uint64_t at, uint64_t begin, uint64_t end, uint32_t type)
{
    return number(at, 8) == begin && number(at + 8, 8) == end - begin && number(at + 16, 4) == type;
}

TEST(pvh_finds_its_start_info)
{
    CHECK_INT(boot(make_elf(true), 6 * GIB, true, 1, 24), 0);
    CHECK_INT(entry.protocol, BOOT_PVH);
    CHECK_INT(entry.argument, 0x6000);
    CHECK(entry.page_table == 0 && entry.gdt_limit == 0);
    CHECK_INT(number(0x6000, 4), 0x336ec578);
    CHECK_INT(number(0x6004, 4), 1); /* version */
    CHECK_INT(number(0x6008, 4), 0); /* flags */
    CHECK_INT(number(0x600c, 4), 1); /* modules */
    CHECK_INT(number(0x6010, 8), 0x6040);
    CHECK_TEXT(memory_span(memory, number(0x6018, 8), 64), "console=hvc0 quiet");
    CHECK_INT(number(0x6020, 8), 0); /* rsdp */
    CHECK_INT(number(0x6028, 8), 0x7000);
    CHECK_INT(number(0x6030, 4), 4);
    CHECK_INT(number(0x6040, 8), 0xd0000000 - 8192);
    CHECK_INT(number(0x6048, 8), initramfs_bytes);
    CHECK_INT(number(0x6050, 8), 0);
    CHECK_INT(*(char *)memory_span(memory, number(0x6040, 8), 1), 'i');
    CHECK(is_range(0x7000, 0, 0x9fc00, 1));
    CHECK(is_range(0x7018, 0xe0000, 0x100000, 2));
    CHECK(is_range(0x7030, 0x100000, 0xd0000000, 1));
    CHECK(is_range(0x7048, 4 * GIB, 4 * GIB + 6 * GIB - 0xd0000000, 1));
    forget();
}

TEST(pvh_without_an_initramfs_has_no_modules)
{
    CHECK_INT(boot(make_elf(true), 64 * mib, false, 1, 24), 0);
    CHECK_INT(number(0x600c, 4), 0);
    CHECK_INT(number(0x6010, 8), 0);
    CHECK_INT(number(0x6030, 4), 3);
    CHECK(is_range(0x7030, 0x100000, 64 * mib, 1));
    forget();
}

/* ---- Linux's 64-bit protocol ---- */

static bool has_e820(const struct boot_params *zero_page, size_t index, uint64_t begin, uint64_t end, uint32_t type)
{
    const struct boot_e820_entry *range = &zero_page->e820_table[index];
    return range->addr == begin && range->size == end - begin && range->type == type;
}

TEST(a_bzimage_gets_its_header_back)
{
    CHECK_INT(boot(make_bzimage("payload", 7), 6 * GIB, true, 1, 24), 0);
    CHECK_INT(entry.protocol, BOOT_LINUX64);
    CHECK_INT(entry.argument, 0x7000);
    CHECK_INT(entry.stack, 0x8ff0);
    const struct boot_params *zero_page = memory_span(memory, entry.argument, sizeof(*zero_page));
    CHECK_INT(zero_page->sentinel, 0);
    CHECK_INT(zero_page->hdr.type_of_loader, 0xff);
    CHECK_INT(zero_page->hdr.loadflags, LOADED_HIGH);
    CHECK_INT(zero_page->hdr.vid_mode, 0xffff);
    CHECK_TEXT(memory_span(memory, zero_page->hdr.cmd_line_ptr, 64), "console=hvc0 quiet");
    CHECK_INT(zero_page->ext_cmd_line_ptr, 0);
    CHECK_INT(zero_page->hdr.ramdisk_image, 0x80000000 - 8192);
    CHECK_INT(zero_page->hdr.ramdisk_size, initramfs_bytes);
    CHECK_INT(zero_page->hdr.code32_start, KERNEL_ADDRESS);
    CHECK_INT(zero_page->hdr.setup_data, 0); /* what the image had there was not ours */
    CHECK_INT(zero_page->hdr.version, 0x20f);
    CHECK_INT(zero_page->hdr.init_size, KERNEL_INIT_BYTES);
    CHECK_INT(zero_page->hdr.pref_address, KERNEL_ADDRESS);
    CHECK_INT(zero_page->hdr.kernel_info_offset, 0x1234);
    CHECK_INT(zero_page->e820_entries, 4);
    CHECK(has_e820(zero_page, 0, 0, 0x9fc00, 1) && has_e820(zero_page, 1, 0xe0000, 0x100000, 2));
    CHECK(has_e820(zero_page, 2, 0x100000, 0xd0000000, 1));
    CHECK(has_e820(zero_page, 3, 4 * GIB, 4 * GIB + 6 * GIB - 0xd0000000, 1));
    for (uint64_t at = 0; at < 0x1e8; at++) /* nothing of the real-mode code, which is 0xff there */
        CHECK_INT(number(entry.argument + at, 1), 0);
    forget();
}

TEST(any_other_image_gets_a_header)
{
    CHECK_INT(boot(make_elf(false), 64 * mib, false, 1, 24), 0);
    const struct boot_params *zero_page = memory_span(memory, entry.argument, sizeof(*zero_page));
    CHECK_INT(zero_page->hdr.boot_flag, 0xaa55);
    CHECK(memcmp(&zero_page->hdr.header, "HdrS", 4) == 0);
    CHECK_INT(zero_page->hdr.type_of_loader, 0xff);
    CHECK_INT(zero_page->hdr.loadflags, LOADED_HIGH);
    CHECK_INT(zero_page->hdr.cmd_line_ptr, 0x20000);
    CHECK_INT(zero_page->hdr.ramdisk_image, 0);
    CHECK_INT(zero_page->hdr.ramdisk_size, 0);
    CHECK_INT(zero_page->e820_entries, 3);
    forget();
}

/* The base, limit and access bits of a descriptor (Intel SDM 3A, 3.4.5). */
static bool is_flat(uint64_t descriptor)
{
    uint64_t base = (descriptor >> 16 & 0xffffff) | (descriptor >> 56) << 24;
    uint64_t limit = (descriptor & 0xffff) | (descriptor >> 48 & 0xf) << 16;
    bool is_present = descriptor >> 47 & 1, is_in_pages = descriptor >> 55 & 1, is_system = !(descriptor >> 44 & 1);
    return base == 0 && limit == 0xfffff && is_present && is_in_pages && !is_system && (descriptor >> 45 & 3) == 0;
}

TEST(the_64_bit_entry_has_segments)
{
    CHECK_INT(boot(make_elf(false), 64 * mib, false, 1, 24), 0);
    CHECK_INT(entry.gdt_limit, 31);
    CHECK(entry.gdt_address + entry.gdt_limit < entry.idt_address);
    CHECK_INT(entry.code_selector, 0x10); /* __BOOT_CS and __BOOT_DS of the protocol */
    CHECK_INT(entry.data_selector, 0x18);
    uint64_t code = number(entry.gdt_address + entry.code_selector, 8);
    uint64_t data = number(entry.gdt_address + entry.data_selector, 8);
    CHECK(code == entry.code_segment && data == entry.data_segment);
    CHECK(is_flat(code) && is_flat(data));
    CHECK_INT(code >> 40 & 0xf, 0xb); /* execute and read, accessed */
    CHECK_INT(data >> 40 & 0xf, 0x3); /* read and write, accessed */
    CHECK_INT(code >> 53 & 3, 1);     /* L, not D */
    CHECK_INT(number(entry.gdt_address, 8), 0);
    forget();
}

/* Walks the tables as the processor does. */
static bool translates(uint64_t address)
{
    uint64_t top = number(entry.page_table + 8 * (address >> 39 & 511), 8);
    if ((top & 3) != 3)
        return false;
    uint64_t pointer = number((top & ~UINT64_C(0xfff)) + 8 * (address >> 30 & 511), 8);
    if ((pointer & 0x83) != 3)
        return false;
    uint64_t page = number((pointer & ~UINT64_C(0xfff)) + 8 * (address >> 21 & 511), 8);
    return (page & 0x83) == 0x83 && (page & ~UINT64_C(0x1fffff)) + (address & 0x1fffff) == address;
}

TEST(the_first_gib_is_mapped_to_itself)
{
    CHECK_INT(boot(make_elf(false), 64 * mib, false, 1, 24), 0);
    for (uint64_t address = 0; address < GIB; address += 0x1ff000)
        CHECK(translates(address));
    CHECK(translates(GIB - 1));
    CHECK(!translates(GIB) && !translates(UINT64_C(1) << 39));
    forget();
}

/* ---- MP table ---- */

static bool adds_up(uint64_t address, uint64_t length)
{
    uint8_t sum = 0;
    for (uint64_t i = 0; i < length; i++)
        sum = (uint8_t)(sum + number(address + i, 1));
    return sum == 0;
}

/* Finds the floating pointer as Linux does: at 16-byte boundaries of the BIOS area. */
static uint64_t find_pointer(void)
{
    for (uint64_t at = 0xf0000; at < 0x100000; at += 16)
        if (memcmp(memory_span(memory, at, 4), "_MP_", 4) == 0 && adds_up(at, 16))
            return at;
    return 0;
}

struct found {
    unsigned processors, boot_processors, buses, ioapics, interrupts, local;
    bool is_wrong;
};

/* Reads one entry and returns its length. */
static uint64_t read_entry(uint64_t at, unsigned vcpus, struct found *found)
{
    switch (number(at, 1)) {
    case 0:
        found->is_wrong |= number(at + 1, 1) != found->processors || (number(at + 3, 1) & 1) == 0;
        found->boot_processors += (number(at + 3, 1) & 2) != 0;
        found->processors++;
        return 20;
    case 1:
        found->is_wrong |= number(at + 1, 1) != 0 || memcmp(memory_span(memory, at + 2, 6), "ISA   ", 6) != 0;
        found->buses++;
        return 8;
    case 2:
        found->is_wrong |= number(at + 1, 1) != vcpus || number(at + 3, 1) != 1 || number(at + 4, 4) != 0xfec00000;
        found->ioapics++;
        return 8;
    case 3:
        found->is_wrong |= number(at + 1, 1) != 0 || number(at + 2, 2) != 0 || number(at + 4, 1) != 0 ||
                           number(at + 5, 1) != found->interrupts || number(at + 6, 1) != vcpus ||
                           number(at + 7, 1) != found->interrupts;
        found->interrupts++;
        return 8;
    case 4:
        found->is_wrong |= number(at + 1, 1) != (found->local == 0 ? 3 : 1) || number(at + 7, 1) != found->local;
        found->local++;
        return 8;
    default:
        found->is_wrong = true;
        return 8;
    }
}

static void check_table(unsigned vcpus, unsigned pins)
{
    struct found found = {0};
    CHECK_INT(boot(make_elf(true), 64 * mib, false, vcpus, pins), 0);
    uint64_t pointer = find_pointer();
    CHECK_INT(pointer, 0xf0000);
    CHECK_INT(number(pointer + 8, 1), 1);
    CHECK_INT(number(pointer + 9, 1), 4);
    CHECK_INT(number(pointer + 11, 5), 0);
    uint64_t table = number(pointer + 4, 4), length = number(table + 4, 2), count = number(table + 34, 2);
    CHECK(memcmp(memory_span(memory, table, 4), "PCMP", 4) == 0);
    CHECK(table >= 0xf0000 && table + length <= 0x100000 && adds_up(table, length));
    CHECK_INT(number(table + 6, 1), 4);
    CHECK_INT(number(table + 36, 4), 0xfee00000);
    uint64_t at = table + 44;
    for (uint64_t i = 0; i < count; i++)
        at += read_entry(at, vcpus, &found);
    CHECK_INT(at, table + length);
    CHECK_INT(found.is_wrong, false);
    CHECK_INT(found.processors, vcpus);
    CHECK_INT(found.boot_processors, 1);
    CHECK_INT(found.buses, 1);
    CHECK_INT(found.ioapics, 1);
    CHECK_INT(found.interrupts, pins);
    CHECK_INT(found.local, 2);
}

TEST(the_mp_table_reads_back)
{
    check_table(1, 24);
    check_table(2, 24);
    check_table(LIMIT_VCPUS, 224);
    check_table(LIMIT_VCPUS, 240);
    forget();
}
