// SPDX-License-Identifier: Apache-2.0
/* Any bytes as an ELF kernel. What must hold: it loads with an entry inside what it loaded, or a reason is given. */
#include "fuzz.h"

#include "boot/elf.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct memory *memory;
    static int fd = -1;
    struct boot_image image = {0};
    const char *why = NULL;
    if (memory == NULL) {
        fd = memfd_create("image", MFD_CLOEXEC);
        FUZZ_CHECK(memory_new(4 << 20, false, &memory) == 0 && fd >= 0);
    }
    FUZZ_CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    int result = elf_load(fd, memory, &image, &why);
    if (result < 0) {
        FUZZ_CHECK(result == -EINVAL && why != NULL && image.end == 0);
    } else {
        FUZZ_CHECK(image.begin >= BOOT_HIGH_MEMORY && image.begin < image.end && image.end <= 4 << 20);
        FUZZ_CHECK(image.entry >= image.begin && image.entry < image.end);
    }
    return 0;
}
