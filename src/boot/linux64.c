// SPDX-License-Identifier: Apache-2.0
/* What a kernel finds when it starts by Linux's 64-bit protocol. (Documentation/arch/x86/boot.rst, "64-bit boot
 * protocol"; zero-page.rst)
 *
 * The kernel is entered in long mode with the address of the zero page (struct boot_params) in RSI. Paging is on: the
 * first GiB is mapped to itself, which covers the kernel, its init_size, the zero page and the command line. The
 * segments are the two that Linux names __BOOT_CS and __BOOT_DS.
 *
 *     PML4 [0] ── PDPT [0] ── PD [0…511], pages of 2 MiB     (Intel SDM 3A, 4.5)
 *
 * A bzImage's own setup header goes back to it, with what a boot loader has to fill in. Any other image gets a header
 * that says the same things; Linux reads the zero page whoever wrote it.
 *
 * Invariants: (1) the sentinel is 0, so that the kernel believes all of the zero page. (2) tables stay in their pages.
 *
 * Trust: a setup header comes from an image and goes only to the kernel of that image.
 */
#include "boot/linux64.h"

#include "boot/layout.h"
#include "boot/ram_map.h"

#include <string.h>

_Static_assert(sizeof(struct boot_params) == 4096, "the zero page is a page");
_Static_assert(BOOT_GDT + LINUX64_GDT_BYTES <= BOOT_IDT, "the segments would reach into the IDT");

enum { entries_per_table = 512, unknown_loader = 0xff, boot_flag = 0xaa55, normal_video = 0xffff };

/* The header for an image that has none: what the 64-bit entry looks at. */
static struct setup_header make_header(void)
{
    struct setup_header header = {
        .boot_flag = boot_flag,
        .version = 0x020f,
        .initrd_addr_max = UINT32_MAX,
        .kernel_alignment = BOOT_FLAT_IMAGE,
        .cmdline_size = BOOT_CMDLINE_BYTES - 1,
    };
    memcpy(&header.header, "HdrS", sizeof(header.header));
    return header;
}

static void fill_header(struct setup_header *header, const struct boot_image *image, const struct initramfs *initramfs)
{
    header->type_of_loader = unknown_loader;
    header->vid_mode = normal_video;
    header->loadflags |= LOADED_HIGH;
    header->loadflags &= (uint8_t) ~(CAN_USE_HEAP | KEEP_SEGMENTS); /* of the real-mode part, which does not run */
    header->code32_start = (uint32_t)image->begin;
    header->cmd_line_ptr = (uint32_t)BOOT_CMDLINE;
    header->ramdisk_image = (uint32_t)initramfs->address; /* both below the gap: 32 bits are enough */
    header->ramdisk_size = (uint32_t)initramfs->size;
    header->setup_data = 0;
}

static int write_zero_page(const struct memory *memory, const struct boot_image *image,
                           const struct initramfs *initramfs, uint64_t rsdp)
{
    struct boot_params zero_page = {
        .acpi_rsdp_addr = rsdp, /* 0: none; a kernel with ACPI then searches for it */
        .hdr = image->has_setup_header ? image->setup_header : make_header(),
    };
    struct ram_map map;
    ram_map_make(memory, &map);
    _Static_assert(sizeof(map.ranges) / sizeof(map.ranges[0]) <= E820_MAX_ENTRIES_ZEROPAGE, "the map has to fit");
    fill_header(&zero_page.hdr, image, initramfs);
    for (size_t i = 0; i < map.count; i++)
        zero_page.e820_table[i] = (struct boot_e820_entry){
            .addr = map.ranges[i].begin,
            .size = map.ranges[i].size,
            .type = map.ranges[i].type,
        };
    zero_page.e820_entries = (uint8_t)map.count;
    return memory_write(memory, BOOT_ZERO_PAGE, &zero_page, sizeof(zero_page));
}

static int write_segments(const struct memory *memory)
{
    static const uint64_t table[] = {
        [LINUX64_CODE / 8] = LINUX64_CODE_SEGMENT,
        [LINUX64_DATA / 8] = LINUX64_DATA_SEGMENT,
    };
    _Static_assert(sizeof(table) == LINUX64_GDT_BYTES, "the limit of the table");
    static const uint64_t empty_idt = 0;
    int result = memory_write(memory, BOOT_GDT, table, sizeof(table));
    return result == 0 ? memory_write(memory, BOOT_IDT, &empty_idt, sizeof(empty_idt)) : result;
}

static int write_page_tables(const struct memory *memory)
{
    enum { present = 1, writable = 2, is_large_page = 0x80, large_page_bytes = 2 << 20 };
    const uint64_t pointers = BOOT_PAGE_DIRECTORY_POINTERS | present | writable;
    const uint64_t directory = BOOT_PAGE_DIRECTORY | present | writable;
    uint64_t pages[entries_per_table];
    for (uint64_t i = 0; i < entries_per_table; i++)
        pages[i] = i * large_page_bytes | present | writable | is_large_page;
    int result = memory_write(memory, BOOT_PAGE_TABLE, &pointers, sizeof(pointers));
    if (result == 0)
        result = memory_write(memory, BOOT_PAGE_DIRECTORY_POINTERS, &directory, sizeof(directory));
    return result == 0 ? memory_write(memory, BOOT_PAGE_DIRECTORY, pages, sizeof(pages)) : result;
}

int linux64_write(const struct memory *memory, const struct boot_image *image, const struct initramfs *initramfs,
                  uint64_t rsdp)
{
    int result = write_zero_page(memory, image, initramfs, rsdp);
    if (result == 0)
        result = write_segments(memory);
    return result == 0 ? write_page_tables(memory) : result;
}
