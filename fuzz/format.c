// SPDX-License-Identifier: Apache-2.0
/* Any bytes as a kernel image. What must hold: a format is told or a reason is given. */
#include "fuzz.h"

#include "boot/format.h"

#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    enum vial_kernel_format format = VIAL_KERNEL_AUTO;
    const char *why = NULL;
    if (fd < 0)
        fd = memfd_create("image", MFD_CLOEXEC);
    FUZZ_CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    if (kernel_format_detect(fd, &format, &why) == 0)
        FUZZ_CHECK(format != VIAL_KERNEL_AUTO && format != VIAL_KERNEL_RAW);
    else
        FUZZ_CHECK(why != NULL && format == VIAL_KERNEL_AUTO);
    return 0;
}
