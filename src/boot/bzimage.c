// SPDX-License-Identifier: Apache-2.0
/* Loading a bzImage that unpacks itself. (Documentation/arch/x86/boot.rst, "the boot protocol")
 *
 *     file    ├ boot sector, setup header, real-mode code ┤ 64-bit code and packed kernel ├
 *                                                         └ (setup_sects + 1) * 512
 *     memory  pref_address ├ code and packed kernel ┤ room for unpacking, init_size in all ┤
 *                          └ + 0x200: the 64-bit entry
 *
 * The real-mode part stays behind; of it only the setup header goes back to the kernel, in the zero page. The kernel is
 * put where it would move itself anyway, so that it unpacks in place.
 *
 * Invariants: (1) code, payload and init_size lie wholly in guest memory, above BOOT_HIGH_MEMORY. (2) the entry lies
 * inside the code that was loaded.
 *
 * Trust: the image may be anything.
 */
#include "boot/bzimage.h"

#include "boot/layout.h"
#include "boot/place.h"

#include <inttypes.h>
#include <string.h>

enum {
    header_offset = 0x1f1,
    sector_bytes = 512,
    oldest_version = 0x020c, /* 2.12: xloadflags tells whether there is a 64-bit entry */
    entry_offset = 0x200,    /* "64-bit boot protocol" */
};

/* The header ends where the jump over it leads: 0x202 plus the jump's distance at 0x201. An older kernel's is shorter
 * than the struct; what lies behind it there is code, not header. */
static size_t header_length(const uint8_t *head)
{
    size_t length = 0x202 + (size_t)head[0x201] - header_offset;
    return length < sizeof(struct setup_header) ? length : sizeof(struct setup_header);
}

int bzimage_read_header(int fd, struct setup_header *ret_header, struct boot_reason *reason)
{
    uint8_t head[BZIMAGE_HEADER_BYTES];
    struct setup_header header = {0};
    int result = place_read(fd, head, sizeof(head), 0, reason);
    if (result < 0)
        return result;
    memcpy(&header, head + header_offset, header_length(head));
    if (header.boot_flag != 0xaa55 || memcmp(&header.header, "HdrS", 4) != 0)
        return reason_set(reason, "it is not a bzImage");
    *ret_header = header;
    return 0;
}

uint64_t bzimage_code_offset(const struct setup_header *header)
{
    uint64_t sectors = header->setup_sects != 0 ? header->setup_sects : 4; /* 0 means 4, for the sake of old loaders */
    return (sectors + 1) * sector_bytes;
}

static int check_header(const struct setup_header *header, struct boot_reason *reason)
{
    if (header->version < oldest_version)
        return reason_set(reason, "it speaks boot protocol %d.%02d; 2.12 is the oldest with a 64-bit entry",
                          header->version >> 8, header->version & 0xff);
    if ((header->xloadflags & XLF_KERNEL_64) == 0)
        return reason_set(reason, "it has no 64-bit entry: it is a 32-bit kernel");
    if (header->pref_address < BOOT_HIGH_MEMORY)
        return reason_set(reason, "it wants to lie below 1 MiB, where the boot protocols have their tables");
    return 0;
}

/* How much code there is: what the header says, or what the file has when the last paragraph is not whole. */
static int find_code(int fd, const struct setup_header *header, uint64_t *ret_length, struct boot_reason *reason)
{
    uint64_t size = 0, offset = bzimage_code_offset(header);
    uint64_t length = (uint64_t)header->syssize * 16,
             payload_end = (uint64_t)header->payload_offset + header->payload_length;
    int result = place_file_size(fd, &size, reason);
    if (result < 0)
        return result;
    if (size <= offset)
        return reason_set(reason, "it is truncated");
    if (length > size - offset)
        length = size - offset;
    if (length < payload_end)
        return reason_set(reason, "it is truncated");
    if (length <= entry_offset)
        return reason_set(reason, "its code ends before its 64-bit entry");
    *ret_length = length;
    return 0;
}

int bzimage_load(int fd, const struct memory *memory, struct boot_image *ret_image, struct boot_reason *reason)
{
    struct boot_image image = {.protocol = BOOT_LINUX64, .has_setup_header = true};
    uint64_t length = 0;
    int result = bzimage_read_header(fd, &image.setup_header, reason);
    if (result == 0)
        result = check_header(&image.setup_header, reason);
    if (result == 0)
        result = find_code(fd, &image.setup_header, &length, reason);
    if (result < 0)
        return result;
    uint64_t room = image.setup_header.init_size > length ? image.setup_header.init_size : length;
    image.begin = image.setup_header.pref_address;
    if (__builtin_add_overflow(image.begin, room, &image.end))
        return reason_set(reason, "it wants to lie beyond the end of all addresses");
    if (memory_span(memory, image.begin, room) == NULL)
        return reason_set_memory(reason, image.end, place_low_end(memory));
    image.entry = image.begin + entry_offset;
    result = place_file(fd, bzimage_code_offset(&image.setup_header), length, memory, image.begin, reason);
    if (result == 0)
        *ret_image = image;
    return result;
}
