// SPDX-License-Identifier: Apache-2.0
/* Flat images: bytes that go to one address, and an entry among them.
 *
 * Such an image does not say how much zeroed memory it expects behind its bytes (a kernel's bss). zeroed_bytes are kept
 * free of an initramfs; Linux uses 2 to 8 MiB.
 *
 * Invariants: (1) image and entry lie in guest memory, above BOOT_HIGH_MEMORY, the entry inside the image.
 *
 * Trust: addresses and sizes may be anything.
 */
#include "boot/flat.h"

#include "boot/layout.h"
#include "boot/place.h"

enum { zeroed_bytes = 16 << 20 };

int flat_check(const struct memory *memory, uint64_t load, uint64_t entry, uint64_t size, struct boot_image *ret_image,
               struct boot_reason *reason)
{
    uint64_t end = 0, low_end = place_low_end(memory);
    if (size == 0)
        return reason_set(reason, "it is empty");
    if (load < BOOT_HIGH_MEMORY)
        return reason_set(reason, "it wants to lie below 1 MiB, where the boot protocols have their tables");
    if (__builtin_add_overflow(load, size, &end))
        return reason_set(reason, "it wants to lie beyond the end of all addresses");
    if (end > low_end)
        return reason_set_memory(reason, end, low_end);
    if (entry - load >= size)
        return reason_set(reason, "its entry point lies outside of it");
    *ret_image = (struct boot_image){
        .protocol = BOOT_LINUX64,
        .entry = entry,
        .begin = load,
        .end = low_end - end < zeroed_bytes ? low_end : end + zeroed_bytes,
    };
    return 0;
}

int flat_load(int fd, const struct memory *memory, struct boot_image *ret_image, struct boot_reason *reason)
{
    uint64_t size = 0;
    struct boot_image image = {0};
    int result = place_file_size(fd, &size, reason);
    if (result == 0)
        result = flat_check(memory, BOOT_FLAT_IMAGE, BOOT_FLAT_IMAGE, size, &image, reason);
    if (result == 0)
        result = place_file(fd, 0, size, memory, BOOT_FLAT_IMAGE, reason);
    if (result == 0)
        *ret_image = image;
    return result;
}
