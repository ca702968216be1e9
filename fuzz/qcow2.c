// SPDX-License-Identifier: Apache-2.0
/* Any bytes as a qcow2 image, then things done to it. The input: flags, how many operations, four bytes for each of
 * them, the image; the file may go on behind it with zeros, so that offsets of large clusters lead somewhere.
 *
 * What must hold: nothing crashes, loops or takes memory without bound; what is opened has a size that disk.c takes;
 * extents lie within what was asked for; bytes that were written are read again, unless the image was found broken; an
 * image that was mended stays sound.
 */
#include "fuzz.h"

#include "disk/open.h"
#include "disk/qcow2.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    most_operations = 24,
    most_bytes = 256 << 10,
    most_clusters = 1 << 17, /* of a disk that is resized, which looks at each of them */
    read_only = 1,
    allows_below = 2,
    checks_first = 4,
};

static int fd = -1;
static uint8_t buffer[most_bytes], written[most_bytes];

static struct disk_file make_file(bool is_read_only)
{
    off_t end = lseek(fd, 0, SEEK_END);
    return (struct disk_file){
        .fd = fd, .path = "image", .size_bytes = (uint64_t)end, .alignment_bytes = 1, .is_read_only = is_read_only};
}

static void check(unsigned how)
{
    const struct disk_file file = make_file(how % 3 == IMAGE_REPAIR_NONE);
    struct image_check found = {0}, again = {0};
    if (qcow2_check(&file, (enum image_repair)(how % 3), NULL, NULL, &found, NULL) < 0)
        return;
    if (how % 3 == IMAGE_REPAIR_ALL && found.corruptions == 0) {
        const struct disk_file mended = make_file(true);
        FUZZ_CHECK(qcow2_check(&mended, IMAGE_REPAIR_NONE, NULL, NULL, &again, NULL) == 0);
        FUZZ_CHECK(again.corruptions == 0 && again.leaks == 0);
    }
}

/* ---- operations on an open image ---- */

static void write_and_read(const struct disk_shape *shape, uint64_t offset, size_t length, uint8_t value)
{
    struct iovec part = {written, length};
    memset(written, value, length);
    if (shape->ops->write(shape->state, &part, 1, offset) < 0)
        return;
    part.iov_base = buffer;
    if (shape->ops->read(shape->state, &part, 1, offset) == 0)
        FUZZ_CHECK(memcmp(buffer, written, length) == 0);
}

static void map(const struct disk_shape *shape, uint64_t offset, uint64_t length, bool for_writing)
{
    struct disk_extent extent = {.fd = -1};
    int result = shape->ops->map(shape->state, offset, length, for_writing, &extent);
    FUZZ_CHECK(result == 0 || result == -EAGAIN);
    if (result == 0)
        FUZZ_CHECK(extent.length >= 1 && extent.length <= length && (!for_writing || extent.kind == DISK_EXTENT_FILE));
}

static void change_whole(const struct disk_shape *shape, unsigned what, uint64_t old_bytes, uint64_t size_bytes)
{
    struct image_snapshot *list = NULL;
    size_t count = 0;
    if (what == 0)
        qcow2_snapshot_create(shape->state, "name", NULL);
    else if (what == 1)
        qcow2_snapshot_apply(shape->state, "name", NULL);
    else if (what == 2)
        qcow2_snapshot_remove(shape->state, "1", NULL);
    else if ((old_bytes > size_bytes ? old_bytes : size_bytes) / shape->properties.best_bytes <= most_clusters)
        shape->ops->resize(shape->state, size_bytes, true, NULL);
    FUZZ_CHECK(qcow2_snapshot_list(shape->state, &list, &count, NULL) == 0);
    free(list);
}

static uint64_t size_now(const struct disk_shape *shape)
{
    struct image_info info;
    qcow2_info(shape->state, &info);
    return info.size_bytes & ~UINT64_C(511);
}

static void operate(const struct disk_shape *shape, const uint8_t *operation, bool writes)
{
    uint64_t size_bytes = size_now(shape), offset = 0, length = (uint64_t)operation[3] * operation[3] * 4 + 512;
    bool is_zero = false;
    length &= ~UINT64_C(511);
    if (size_bytes < 512)
        return;
    offset = ((uint64_t)operation[1] << 9) << (operation[2] % 40);
    offset = operation[2] >= 128 ? size_bytes - 512 - (offset % size_bytes) : offset % size_bytes;
    offset &= ~UINT64_C(511);
    length = length > size_bytes - offset ? size_bytes - offset : length;
    const struct iovec part = {buffer, length};
    switch (operation[0] % 12) {
    case 0:
        map(shape, offset, length, writes && operation[2] % 2 != 0);
        break;
    case 1:
        FUZZ_CHECK(shape->ops->status(shape->state, offset, length, &is_zero, &length) <= 0);
        break;
    case 2:
        shape->ops->read(shape->state, &part, 1, offset);
        break;
    case 3:
        if (writes)
            shape->ops->discard(shape->state, offset, length);
        break;
    case 4:
        if (writes)
            shape->ops->zero(shape->state, offset, length, operation[1] % 2);
        break;
    case 5:
        shape->ops->flush(shape->state);
        break;
    case 6:
        if (writes)
            change_whole(shape, operation[1] % 4, size_bytes, (uint64_t)operation[2] << (9 + operation[3] % 16));
        break;
    case 7:
        if (writes)
            qcow2_compress_cluster(shape->state, buffer, offset & ~(uint64_t)(shape->properties.best_bytes - 1));
        break;
    default:
        if (writes)
            write_and_read(shape, offset, length, operation[1]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct disk_options options = {.path = "image", .format = VIAL_DISK_QCOW2};
    struct disk_shape shape;
    if (fd < 0)
        fd = memfd_create("image", MFD_CLOEXEC);
    if (size < 2 || size < 2 + (size_t)(data[1] % most_operations) * 4)
        return 0;
    size_t count = data[1] % most_operations, head = 2 + count * 4;
    off_t length = (off_t)(size - head) + ((off_t)(data[0] >> 4) << 14);
    struct disk_opener opener = {.options = &options, .leaves_out = (data[0] & allows_below) != 0};
    FUZZ_CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, data + head, size - head, 0) == (ssize_t)(size - head));
    FUZZ_CHECK(ftruncate(fd, length) == 0);
    if (data[0] & checks_first)
        check(data[1]);
    bool writes = (data[0] & read_only) == 0;
    const struct disk_file file = make_file(!writes);
    if (qcow2_open(&file, &opener, &shape, NULL) < 0)
        return 0;
    FUZZ_CHECK(shape.properties.is_read_only == !writes && shape.properties.size_bytes <= INT64_MAX);
    for (size_t i = 0; i < count; i++)
        operate(&shape, data + 2 + i * 4, writes);
    shape.ops->close(shape.state, NULL);
    check(data[0]);
    return 0;
}
