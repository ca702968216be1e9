// SPDX-License-Identifier: Apache-2.0
/* Any bytes as a bzImage. What must hold: it loads with its entry, its code and its room inside guest memory, or a
 * reason is given. All that it takes up can be read and written. */
#include "fuzz.h"

#include "boot/bzimage.h"
#include "boot/layout.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    struct memory *memory = NULL;
    struct boot_image image = {0};
    struct boot_reason reason = {0};
    if (fd < 0)
        fd = memfd_create("image", MFD_CLOEXEC);
    FUZZ_CHECK(memory_new(20 << 20, false, &memory) == 0);
    FUZZ_CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    int result = bzimage_load(fd, memory, &image, &reason);
    if (result < 0) {
        FUZZ_CHECK(result == -EINVAL && reason.text[0] != '\0' && image.end == 0);
    } else {
        FUZZ_CHECK(image.begin >= BOOT_HIGH_MEMORY && image.end <= 20 << 20 && image.has_setup_header);
        FUZZ_CHECK(image.entry == image.begin + 0x200 && image.entry < image.end);
        volatile uint8_t *bytes = memory_span(memory, image.begin, image.end - image.begin);
        for (uint64_t i = 0; i < image.end - image.begin && i < 16384; i += 512)
            bytes[i]++;
    }
    memory_free(memory);
    return 0;
}
