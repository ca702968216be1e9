// SPDX-License-Identifier: Apache-2.0
/* Telling kernel images apart by their content.
 *
 * ELF and the compressed streams begin with a magic number. A bzImage says in its setup header where its compressed
 * payload lies (Linux x86 boot protocol 2.08, payload_offset), and the payload begins with the compressor's magic. What
 * we can unpack ourselves is reported as what is inside, because the host does it faster than the guest; any other
 * bzImage with a 64-bit entry unpacks itself. An EFI zboot image names its compressor in its header. A raw image has no
 * mark, so nothing is ever taken for one.
 *
 * Invariants: (1) only bytes that were read are looked at. (2) a format is reported only for a mark that no other known
 * image can carry at that place.
 *
 * Trust: the file may be anything.
 */
#include "boot/format.h"

#include "base/alloc.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

enum { head_bytes = 0x250 }; /* up to the end of payload_length in the setup header */

static const struct compressor {
    const char *magic;
    size_t length;
    enum vial_kernel_format format; /* VIAL_KERNEL_AUTO: known, but not a format of ours */
    const char *why;
} compressors[] = {
    {"\x1f\x8b", 2, VIAL_KERNEL_IMAGE_GZ, NULL},
    {"BZh", 3, VIAL_KERNEL_IMAGE_BZ2, NULL},
    {"\x28\xb5\x2f\xfd", 4, VIAL_KERNEL_IMAGE_ZSTD, NULL},
    {"\xfd"
     "7zXZ",
     5, VIAL_KERNEL_AUTO, "it is compressed with xz, which no format here covers"},
    {"\x5d\x00\x00", 3, VIAL_KERNEL_AUTO, "it is compressed with lzma, which no format here covers"},
    {"\x02\x21\x4c\x18", 4, VIAL_KERNEL_AUTO, "it is compressed with lz4, which no format here covers"},
    {"\x89LZO", 4, VIAL_KERNEL_AUTO, "it is compressed with lzo, which no format here covers"},
};

static int read_at(int fd, uint64_t offset, uint8_t *bytes, size_t size, size_t *ret_length)
{
    size_t length = 0;
    while (length < size) {
        ssize_t got = pread(fd, bytes + length, size - length, (off_t)(offset + length));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        length += (size_t)got;
    }
    *ret_length = length;
    return 0;
}

static bool has_magic(const uint8_t *bytes, size_t length, size_t offset, const char *magic, size_t magic_length)
{
    return offset + magic_length <= length && memcmp(bytes + offset, magic, magic_length) == 0;
}

static int find_compressor(const uint8_t *bytes, size_t length, const struct compressor **ret_found)
{
    for (size_t i = 0; i < array_length(compressors); i++) {
        if (has_magic(bytes, length, 0, compressors[i].magic, compressors[i].length)) {
            *ret_found = &compressors[i];
            return 0;
        }
    }
    return -EINVAL;
}

static uint32_t little_endian_32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static int accept_compressor(const struct compressor *found, enum vial_kernel_format *ret_format, const char **ret_why)
{
    if (found->format == VIAL_KERNEL_AUTO) {
        *ret_why = found->why;
        return -EINVAL;
    }
    *ret_format = found->format;
    return 0;
}

static int detect_bzimage(int fd, const uint8_t *head, enum vial_kernel_format *ret_format, const char **ret_why)
{
    uint32_t version = head[0x206] | (uint32_t)head[0x207] << 8;
    uint64_t setup_sectors = head[0x1f1] != 0 ? head[0x1f1] : 4;
    uint64_t payload = (setup_sectors + 1) * 512 + little_endian_32(head + 0x248);
    bool unpacks_itself = version >= 0x020c && (head[0x236] & XLF_KERNEL_64) != 0; /* 2.12, xloadflags */
    uint8_t magic[8];
    size_t length = 0;
    if (version < 0x0208) {
        *ret_why = "it is a bzImage older than boot protocol 2.08, which does not say where its kernel lies";
        return -EINVAL;
    }
    int result = read_at(fd, payload, magic, sizeof(magic), &length);
    if (result < 0)
        return result;
    const struct compressor *found = NULL;
    bool is_known = find_compressor(magic, length, &found) == 0;
    if (unpacks_itself && length > 0 && (!is_known || found->format == VIAL_KERNEL_AUTO)) {
        *ret_format = VIAL_KERNEL_BZIMAGE;
        return 0;
    }
    if (is_known)
        return accept_compressor(found, ret_format, ret_why);
    *ret_why = "it is a bzImage whose payload has no known compression, or which is truncated";
    return -EINVAL;
}

int kernel_format_detect(int fd, enum vial_kernel_format *ret_format, const char **ret_why)
{
    uint8_t head[head_bytes];
    size_t length = 0;
    int result = read_at(fd, 0, head, sizeof(head), &length);
    if (result < 0)
        return result;
    const struct compressor *found = NULL;
    if (has_magic(head, length, 0,
                  "\x7f"
                  "ELF",
                  4)) {
        *ret_format = VIAL_KERNEL_ELF;
        return 0;
    }
    if (has_magic(head, length, 0, "MZ", 2) && has_magic(head, length, 4, "zimg", 4)) {
        if (!has_magic(head, length, 24, "gzip", 5)) {
            *ret_why = "it is an EFI zboot image that is not compressed with gzip";
            return -EINVAL;
        }
        *ret_format = VIAL_KERNEL_PE_GZ;
        return 0;
    }
    if (length == sizeof(head) && has_magic(head, length, 0x202, "HdrS", 4))
        return detect_bzimage(fd, head, ret_format, ret_why);
    if (find_compressor(head, length, &found) == 0)
        return accept_compressor(found, ret_format, ret_why);
    *ret_why = length == 0 ? "it is empty" : "it carries no mark of a known format";
    return -EINVAL;
}
