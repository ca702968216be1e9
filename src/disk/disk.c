// SPDX-License-Identifier: Apache-2.0
/* A disk image, whatever its format: what stands in front of the formats.
 *
 *     disk_open -> disk_file_open (file.c: what may be opened, locks) -> the format's open -> a shape
 *     disk_read, … -> is the range within the disk, and may it? -> the shape's member
 *
 * Invariants: (1) a format never sees a range that is empty or leaves the disk, nor a write to what is read only.
 * (2) whatever a format answers about a length lies between 1 and what was asked for. (3) a disk's size is a whole
 * number of sectors and fits an int64_t.
 *
 * Trust: callers pass ranges as a guest gave them. Image files are hostile; each format's code deals with its own.
 */
#include "disk/disk.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/fd.h"
#include "disk/open.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { sector_bytes = 512 };

typedef int format_open(const struct disk_file *file, struct disk_opener *opener, struct disk_shape *ret_shape,
                        struct vial_error *err);

static const struct {
    const char *name;
    format_open *open;
} formats[] = {
    [VIAL_DISK_UNSET] = {"", NULL},
    [VIAL_DISK_RAW] = {"raw", raw_open},
    [VIAL_DISK_QCOW2] = {"qcow2", qcow2_open},
    [VIAL_DISK_VMDK] = {"vmdk", vmdk_open},
};

bool disk_format_is_known(enum vial_disk_format format)
{
    return (size_t)format < array_length(formats) && formats[format].open != NULL;
}

const char *disk_format_name(enum vial_disk_format format)
{
    return disk_format_is_known(format) ? formats[format].name : "";
}

/* ---- opening ---- */

static int refuse_format(const char *path, struct vial_error *err)
{
    int result = error_set(err, VIAL_ERROR_MISSING, VIAL_PHASE_START, "the format of %s is not given",
                           error_short(path).text);
    error_remedy(err, "name it: raw, qcow2 or vmdk (a guest can write what a guess would take for another format)");
    return result;
}

static int check_shape(const struct disk *disk, struct vial_error *err)
{
    uint64_t size_bytes = disk->shape.properties.size_bytes;
    if (size_bytes % sector_bytes == 0 && size_bytes <= INT64_MAX)
        return 0;
    return error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_START, "the disk in %s has an impossible size of %llu bytes",
                     error_short(disk->path).text, (unsigned long long)size_bytes);
}

/* A disk around a file that is to be opened. */
static int new_disk(const char *path, struct disk **ret_disk, struct vial_error *err)
{
    struct disk *disk = alloc_zero(sizeof(*disk));
    if (disk == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    disk->file.fd = -1;
    disk->path = alloc_string(path);
    if (disk->path == NULL) {
        disk_free(disk);
        return error_no_memory(err, VIAL_PHASE_START);
    }
    *ret_disk = disk;
    return 0;
}

static int begin_format(struct disk *disk, enum vial_disk_format format, struct disk_opener *opener,
                        struct vial_error *err)
{
    int result = formats[format].open(&disk->file, opener, &disk->shape, err);
    if (result < 0) {
        disk->shape = (struct disk_shape){0}; /* nothing of it is ours */
        return result;
    }
    disk->shape.properties.format = format;
    return check_shape(disk, err);
}

int disk_open_from(struct disk_opener *opener, const char *path, enum vial_disk_format format, bool read_only,
                   struct disk **ret_disk, struct vial_error *err)
{
    struct disk *disk = NULL;
    if (!disk_format_is_known(format))
        return refuse_format(path, err);
    int result = new_disk(path, &disk, err);
    if (result < 0)
        return result;
    const struct disk_file_request request = {
        .path = disk->path, .folder_fd = AT_FDCWD, .read_only = read_only, .direct_io = opener->options->direct_io};
    result = disk_file_open(&request, &disk->file, err);
    if (result == 0 && fstat(disk->file.fd, &opener->file) < 0)
        result = error_set_os(err, VIAL_PHASE_START, errno, "cannot examine %s", error_short(path).text);
    if (result == 0)
        result = begin_format(disk, format, opener, err);
    if (result < 0) {
        disk_free(disk);
        return result;
    }
    *ret_disk = disk;
    return 0;
}

int disk_open(const struct disk_options *options, struct disk **ret_disk, struct vial_error *err)
{
    struct disk_opener opener = {.options = options};
    return disk_open_from(&opener, options->path, options->format, options->read_only, ret_disk, err);
}

int disk_open_alone(const char *path, enum vial_disk_format format, bool read_only, struct disk **ret_disk,
                    struct vial_error *err)
{
    const struct disk_options options = {.path = path, .format = format, .read_only = read_only};
    struct disk_opener opener = {.options = &options, .leaves_out = true};
    return disk_open_from(&opener, path, format, read_only, ret_disk, err);
}

int disk_open_fd(int fd, const char *path, enum vial_disk_format format, struct disk **ret_disk, struct vial_error *err)
{
    const struct disk_options options = {.path = path, .format = format};
    struct disk_opener opener = {.options = &options};
    struct disk *disk = NULL;
    int result = new_disk(path, &disk, err);
    if (result < 0)
        return result;
    disk->file = (struct disk_file){.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0), .path = disk->path, .alignment_bytes = 1};
    if (disk->file.fd < 0 || fstat(disk->file.fd, &opener.file) < 0)
        result = error_set_os(err, VIAL_PHASE_START, errno, "cannot examine %s", error_short(path).text);
    disk->file.size_bytes = (uint64_t)opener.file.st_size;
    if (result == 0)
        result = begin_format(disk, format, &opener, err);
    if (result < 0) {
        disk_free(disk);
        return result;
    }
    *ret_disk = disk;
    return 0;
}

int disk_close(struct disk *disk, struct vial_error *err)
{
    int result = disk->shape.ops != NULL ? disk->shape.ops->close(disk->shape.state, err) : 0;
    disk_file_close(&disk->file);
    free(disk->path);
    free(disk);
    return result;
}

struct disk *disk_free(struct disk *disk)
{
    if (disk != NULL)
        disk_close(disk, NULL);
    return NULL;
}

void disk_describe(const struct disk *disk, struct disk_properties *ret_properties)
{
    *ret_properties = disk->shape.properties;
}

/* ---- where bytes lie ---- */

static bool contains(const struct disk *disk, uint64_t offset, uint64_t length)
{
    uint64_t size_bytes = disk->shape.properties.size_bytes;
    return offset <= size_bytes && length <= size_bytes - offset;
}

int disk_map(struct disk *disk, uint64_t offset, uint64_t length, bool for_writing, struct disk_extent *ret_extent)
{
    struct disk_extent extent = {.fd = -1};
    if (!contains(disk, offset, length) || length == 0)
        return -EINVAL;
    if (for_writing && disk->shape.properties.is_read_only)
        return -EROFS;
    if (disk->shape.ops->map == NULL)
        return -EAGAIN;
    int result = disk->shape.ops->map(disk->shape.state, offset, length, for_writing, &extent);
    if (result < 0)
        return result;
    assert(extent.length >= 1 && extent.length <= length);
    assert(!for_writing || extent.kind == DISK_EXTENT_FILE);
    *ret_extent = extent;
    return 0;
}

int disk_sync_fd(struct disk *disk)
{
    return disk->shape.ops->sync_fd != NULL ? disk->shape.ops->sync_fd(disk->shape.state) : -1;
}

/* ---- doing it ---- */

int disk_read(struct disk *disk, const struct iovec *parts, int count, uint64_t offset)
{
    uint64_t length = 0;
    if (parts_measure(parts, count, &length) < 0 || !contains(disk, offset, length))
        return -EINVAL;
    return length == 0 ? 0 : disk->shape.ops->read(disk->shape.state, parts, count, offset);
}

int disk_write(struct disk *disk, const struct iovec *parts, int count, uint64_t offset)
{
    uint64_t length = 0;
    if (parts_measure(parts, count, &length) < 0 || !contains(disk, offset, length))
        return -EINVAL;
    if (disk->shape.properties.is_read_only || disk->shape.ops->write == NULL)
        return -EROFS;
    return length == 0 ? 0 : disk->shape.ops->write(disk->shape.state, parts, count, offset);
}

int disk_flush(struct disk *disk)
{
    return disk->shape.ops->flush != NULL ? disk->shape.ops->flush(disk->shape.state) : 0;
}

int disk_discard(struct disk *disk, uint64_t offset, uint64_t length)
{
    if (!contains(disk, offset, length))
        return -EINVAL;
    if (disk->shape.properties.is_read_only)
        return -EROFS;
    if (disk->shape.ops->discard == NULL)
        return -EOPNOTSUPP;
    return length == 0 ? 0 : disk->shape.ops->discard(disk->shape.state, offset, length);
}

int disk_zero(struct disk *disk, uint64_t offset, uint64_t length, bool may_unmap)
{
    if (!contains(disk, offset, length))
        return -EINVAL;
    if (disk->shape.properties.is_read_only || disk->shape.ops->zero == NULL)
        return -EROFS;
    return length == 0 ? 0 : disk->shape.ops->zero(disk->shape.state, offset, length, may_unmap);
}

int disk_status(struct disk *disk, uint64_t offset, uint64_t length, bool *ret_is_zero, uint64_t *ret_length)
{
    bool is_zero = false;
    uint64_t known = length;
    if (!contains(disk, offset, length) || length == 0)
        return -EINVAL;
    if (disk->shape.ops->status != NULL) {
        int result = disk->shape.ops->status(disk->shape.state, offset, length, &is_zero, &known);
        if (result < 0)
            return result;
        assert(known >= 1 && known <= length);
    }
    *ret_is_zero = is_zero;
    *ret_length = known;
    return 0;
}

static int check_resize(const struct disk *disk, uint64_t size_bytes, bool may_shrink, struct vial_error *err)
{
    const struct disk_properties *properties = &disk->shape.properties;
    int result = 0;
    if (size_bytes % sector_bytes != 0 || size_bytes > INT64_MAX) {
        result = error_set(err, VIAL_ERROR_OUT_OF_RANGE, VIAL_PHASE_RUN, "a disk cannot have %llu bytes",
                           (unsigned long long)size_bytes);
        error_remedy(err, "give a multiple of 512, below 8 EiB");
    } else if (disk->shape.ops->resize == NULL) {
        result = error_set(err, VIAL_ERROR_UNSUPPORTED, VIAL_PHASE_RUN, "%s has a format (%s) that cannot be resized",
                           error_short(disk->path).text, disk_format_name(properties->format));
        error_remedy(err, "convert it to raw or qcow2 first");
    } else if (properties->is_read_only) {
        result = error_set(err, VIAL_ERROR_PERMISSION, VIAL_PHASE_RUN, "%s is open read only",
                           error_short(disk->path).text);
        error_remedy(err, "open it for writing");
    } else if (size_bytes < properties->size_bytes && !may_shrink) {
        result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_RUN,
                           "%s holds %llu bytes; at %llu its end would be lost", error_short(disk->path).text,
                           (unsigned long long)properties->size_bytes, (unsigned long long)size_bytes);
        error_remedy(err, "shrink the file system inside first, then allow the disk to shrink (vial disk: --shrink)");
    }
    return result;
}

int disk_resize(struct disk *disk, uint64_t size_bytes, bool may_shrink, struct vial_error *err)
{
    int result = check_resize(disk, size_bytes, may_shrink, err);
    if (result < 0 || size_bytes == disk->shape.properties.size_bytes)
        return result;
    result = disk->shape.ops->resize(disk->shape.state, size_bytes, may_shrink, err);
    if (result == 0)
        disk->shape.properties.size_bytes = size_bytes;
    return result;
}
