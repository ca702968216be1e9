// SPDX-License-Identifier: Apache-2.0
/* Any bytes as a compressed kernel; the first chooses the format. What must hold: it unpacks to something not larger
 * than the limit, or a reason is given. */
#include "fuzz.h"

#include "base/fd.h"
#include "base/limits.h"
#include "boot/unpack.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum vial_kernel_format formats[] = {VIAL_KERNEL_IMAGE_GZ, VIAL_KERNEL_IMAGE_BZ2,
                                                      VIAL_KERNEL_IMAGE_ZSTD, VIAL_KERNEL_PE_GZ};
    static int fd = -1;
    auto_close int unpacked = -1;
    struct boot_reason reason = {0};
    struct stat status;
    if (size == 0)
        return 0;
    if (fd < 0) { /* small bombs will do */
        const struct rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = RLIM_INFINITY};
        fd = memfd_create("image", MFD_CLOEXEC);
        FUZZ_CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    }
    FUZZ_CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, data + 1, size - 1, 0) == (ssize_t)size - 1);
    int result = unpack_image(fd, formats[data[0] % 4], &unpacked, &reason);
    if (result < 0)
        FUZZ_CHECK(result == -EINVAL && reason.text[0] != '\0' && unpacked < 0);
    else
        FUZZ_CHECK(fstat(unpacked, &status) == 0 && status.st_size <= 1 << 20);
    return 0;
}
