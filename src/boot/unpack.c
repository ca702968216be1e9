// SPDX-License-Identifier: Apache-2.0
/* Unpacking compressed kernel images: where the stream lies, and where its content goes.
 *
 *     image-gz, -bz2, -zstd   the stream is the file, or the payload of a bzImage (boot protocol 2.08, payload_offset)
 *     pe-gz                   an EFI zboot image: offset and length stand at 8 and 12 (drivers/firmware/efi/libstub)
 *
 * A stream that is followed by another of its kind is continued by it, as gzip(1) takes files that were put together
 * and pbzip2 and pzstd write them; anything else behind it is ignored (the kernel's build puts the unpacked length
 * there). The content goes into a memfd, from which a loader can map it as it would map a file.
 *
 * Invariants: (1) the memfd never holds more than LIMIT_KERNEL_UNPACKED_BYTES, nor more than the process's limit of
 * file sizes. (2) nothing outside of the range that the image names is read as a stream.
 *
 * Trust: the image may be anything.
 */
#include "boot/unpack.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/limits.h"
#include "boot/bzimage.h"
#include "boot/place.h"
#include "boot/unpack_stream.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

static const struct codec {
    const char *name;
    const char *magic;
    size_t magic_length;
    int (*unpack)(struct unpack_stream *stream);
} gzip = {"gzip", "\x1f\x8b", 2, unpack_gzip}, bzip2 = {"bzip2", "BZh", 3, unpack_bzip2},
  zstd = {"zstd", "\x28\xb5\x2f\xfd", 4, unpack_zstd};

static const struct codec *const codecs[] = {
    [VIAL_KERNEL_PE_GZ] = &gzip,
    [VIAL_KERNEL_IMAGE_GZ] = &gzip,
    [VIAL_KERNEL_IMAGE_BZ2] = &bzip2,
    [VIAL_KERNEL_IMAGE_ZSTD] = &zstd,
};

static bool begins_with_magic(const struct unpack_stream *stream, const struct codec *codec)
{
    uint8_t bytes[4];
    struct boot_reason ignored;
    return stream->at <= stream->end && stream->end - stream->at >= codec->magic_length &&
           place_read(stream->input_fd, bytes, codec->magic_length, stream->at, &ignored) == 0 &&
           memcmp(bytes, codec->magic, codec->magic_length) == 0;
}

/* The range [offset, offset + length) of the file, which must hold a stream. */
static int choose_range(struct unpack_stream *stream, uint64_t offset, uint64_t length, const struct codec *codec)
{
    if (offset > stream->end || length > stream->end - offset)
        return reason_set(stream->reason, "it is truncated");
    stream->at = offset;
    stream->end = offset + length;
    if (!begins_with_magic(stream, codec))
        return reason_set(stream->reason, "what it holds is not compressed with %s", codec->name);
    return 0;
}

static int find_in_zboot(struct unpack_stream *stream, const struct codec *codec)
{
    struct {
        char mark[8]; /* MZ, two zeros, zimg */
        uint32_t offset, length;
    } head;
    int result = place_read(stream->input_fd, &head, sizeof(head), 0, stream->reason);
    if (result < 0)
        return result;
    if (memcmp(head.mark, "MZ", 2) != 0 || memcmp(head.mark + 4, "zimg", 4) != 0)
        return reason_set(stream->reason, "it is not an EFI zboot image");
    return choose_range(stream, head.offset, head.length, codec);
}

static int find_in_bzimage(struct unpack_stream *stream, const struct codec *codec)
{
    struct setup_header header;
    if (bzimage_read_header(stream->input_fd, &header, stream->reason) < 0 || header.version < 0x0208)
        return reason_set(stream->reason, "it holds no %s stream, neither at its beginning nor as a bzImage's payload",
                          codec->name);
    return choose_range(stream, bzimage_code_offset(&header) + header.payload_offset, header.payload_length, codec);
}

static int find_stream(struct unpack_stream *stream, enum vial_kernel_format format, const struct codec *codec)
{
    if (format == VIAL_KERNEL_PE_GZ)
        return find_in_zboot(stream, codec);
    return begins_with_magic(stream, codec) ? 0 : find_in_bzimage(stream, codec);
}

static uint64_t output_limit(void)
{
    struct rlimit limit;
    /* Beyond the limit of file sizes, writing would kill the embedding program by SIGXFSZ. */
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < LIMIT_KERNEL_UNPACKED_BYTES)
        return limit.rlim_cur;
    return LIMIT_KERNEL_UNPACKED_BYTES;
}

int unpack_image(int fd, enum vial_kernel_format format, int *ret_fd, struct boot_reason *reason)
{
    assert((size_t)format < array_length(codecs) && codecs[format] != NULL);
    const struct codec *codec = codecs[format];
    struct unpack_stream stream = {.input_fd = fd, .limit = output_limit(), .reason = reason};
    int result = place_file_size(fd, &stream.end, reason);
    if (result == 0)
        result = find_stream(&stream, format, codec);
    if (result < 0)
        return result;
    auto_free uint8_t *input = alloc_zero(UNPACK_PIECE_BYTES), *output = alloc_zero(UNPACK_PIECE_BYTES);
    if (input == NULL || output == NULL)
        return -ENOMEM;
    auto_close int memory_fd = memfd_create("vial-kernel", MFD_CLOEXEC);
    if (memory_fd < 0)
        return -errno;
    stream.input = input;
    stream.output = output;
    stream.output_fd = memory_fd;
    do
        result = codec->unpack(&stream);
    while (result == 0 && begins_with_magic(&stream, codec));
    if (result == 0)
        *ret_fd = steal_fd(&memory_fd);
    return result;
}
