// SPDX-License-Identifier: Apache-2.0
/* Loading an initramfs: whole pages, as high as it may be, so that the kernel below it has all the room there is.
 *
 *     1 MiB        kernel          second choice, if    first choice: up to the end of low RAM,
 *     ├────────────┤▓▓▓▓▓▓▓├────   it fits below it     or up to what the kernel can reach ├──┤
 *
 * Invariants: (1) it lies in RAM above BOOT_HIGH_MEMORY and below the gap, and shares no byte with the kernel, what the
 * kernel zeroes or unpacks into included. (2) its last page is zero behind its end.
 *
 * Trust: the file's content is the guest's business; its size is checked.
 */
#include "boot/initramfs.h"

#include "boot/layout.h"
#include "boot/place.h"

enum { page_bytes = 4096 };

static uint64_t page_floor(uint64_t address)
{
    return address & ~(uint64_t)(page_bytes - 1);
}

/* The end of what the kernel can reach. A bzImage says itself which byte may be the last (boot protocol 2.03,
 * initrd_addr_max). */
static uint64_t find_limit(const struct memory *memory, const struct boot_image *image)
{
    uint64_t limit = place_low_end(memory);
    uint64_t most = image->has_setup_header ? (uint64_t)image->setup_header.initrd_addr_max + 1 : limit;
    return page_floor(most < limit ? most : limit);
}

static bool find_room(uint64_t begin, uint64_t end, uint64_t room, uint64_t *ret_address)
{
    if (end < begin || end - begin < room)
        return false;
    *ret_address = end - room;
    return true;
}

int initramfs_load(int fd, const struct memory *memory, const struct boot_image *image, struct initramfs *ret_initramfs,
                   struct boot_reason *reason)
{
    struct initramfs initramfs = {0};
    int result = place_file_size(fd, &initramfs.size, reason);
    if (result < 0)
        return result;
    uint64_t limit = find_limit(memory, image), low_end = place_low_end(memory);
    if (initramfs.size > MEMORY_GAP_START)
        return reason_set(reason, "it is larger than all memory below 3.25 GiB");
    uint64_t room = page_floor(initramfs.size + page_bytes - 1);
    uint64_t kernel_end = image->begin < low_end ? image->end : BOOT_HIGH_MEMORY; /* or it lies above 4 GiB */
    uint64_t after_kernel = page_floor(kernel_end + page_bytes - 1);
    if (!find_room(after_kernel, limit, room, &initramfs.address) &&
        !find_room(BOOT_HIGH_MEMORY, page_floor(image->begin < limit ? image->begin : limit), room,
                   &initramfs.address)) {
        if (limit < page_floor(low_end))
            return reason_set(reason, "it does not fit below %#llx, the end of what this kernel can reach",
                              (unsigned long long)limit);
        return reason_set_memory(reason, after_kernel + room, low_end);
    }
    result = place_file(fd, 0, initramfs.size, memory, initramfs.address, reason);
    if (result == 0)
        *ret_initramfs = initramfs;
    return result;
}
