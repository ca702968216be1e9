// SPDX-License-Identifier: Apache-2.0
/* Making images.
 *
 * Invariants: (1) nothing is made of options that contradict each other. (2) a backing file is opened before an image
 * over it is made: it exists, and has that format.
 *
 * Trust: options are the user's; of a backing image only the header is read.
 */
#include "disk/image_create.h"

#include "base/alloc.h"
#include "base/error.h"
#include "disk/open.h"
#include "disk/qcow2.h"
#include "disk/target.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { sector_bytes = 512, zero_chunk_bytes = 1 << 20 };

static int refuse(enum vial_error_code code, const char *field, const char *why, const char *remedy,
                  struct vial_error *err)
{
    int result = error_set(err, code, VIAL_PHASE_RUN, "%s", why);
    error_field(err, "%s", field);
    error_remedy(err, "%s", remedy);
    return result;
}

static bool is_power_between(uint32_t number, uint32_t least, uint32_t most)
{
    return number >= least && number <= most && (number & (number - 1)) == 0;
}

static int check_raw(const struct image_create_options *options, struct vial_error *err)
{
    if (options->preallocation == IMAGE_METADATA)
        return refuse(VIAL_ERROR_CONFLICT, "preallocation", "a raw image has no metadata",
                      "use off, falloc or full, or the format qcow2", err);
    if (options->version != 0 || options->cluster_bytes != 0 || options->refcount_bits != 0 ||
        options->lazy_refcounts || options->compression != IMAGE_ZLIB || options->backing_path != NULL)
        return refuse(VIAL_ERROR_CONFLICT, "format",
                      "a raw image has no version, clusters, reference counts, compression or backing file",
                      "leave these out, or use the format qcow2", err);
    return 0;
}

static int check_qcow2(const struct image_create_options *options, struct vial_error *err)
{
    bool is_old = options->version == 2;
    if (options->version != 0 && options->version != 2 && options->version != 3)
        return refuse(VIAL_ERROR_INVALID, "version", "there is no such version of qcow2", "use 2 or 3", err);
    if (options->cluster_bytes != 0 && !is_power_between(options->cluster_bytes, 512, 2 << 20))
        return refuse(VIAL_ERROR_INVALID, "cluster size", "clusters cannot have this size",
                      "use a power of two from 512 to 2M", err);
    if (options->refcount_bits != 0 && !is_power_between(options->refcount_bits, 1, 64))
        return refuse(VIAL_ERROR_INVALID, "refcount bits", "reference counts cannot have this width",
                      "use a power of two from 1 to 64", err);
    if (is_old && (options->lazy_refcounts || options->compression != IMAGE_ZLIB ||
                   (options->refcount_bits != 0 && options->refcount_bits != 16)))
        return refuse(VIAL_ERROR_CONFLICT, "version",
                      "version 2 has no lazy reference counts, no zstd and only 16 bits", "use version 3", err);
    if (options->backing_path != NULL && options->preallocation != IMAGE_SPARSE)
        return refuse(VIAL_ERROR_CONFLICT, "preallocation", "what is allocated would hide the backing file",
                      "leave one of the two out", err);
    return 0;
}

int image_check_options(const struct image_create_options *options, struct vial_error *err)
{
    if (options->format == VIAL_DISK_RAW)
        return check_raw(options, err);
    if (options->format == VIAL_DISK_QCOW2)
        return check_qcow2(options, err);
    if (options->format == VIAL_DISK_VMDK)
        return refuse(VIAL_ERROR_UNSUPPORTED, "format", "VMDK disks are only read", "make a raw or qcow2 image", err);
    return refuse(VIAL_ERROR_MISSING, "format", "the format of the new image is not given", "name it: raw or qcow2",
                  err);
}

/* ---- raw ---- */

static int write_zeros(int fd, uint64_t length)
{
    auto_free uint8_t *zeros = alloc_zero(zero_chunk_bytes);
    if (zeros == NULL)
        return -ENOMEM;
    for (uint64_t done = 0; done < length;) {
        size_t step = length - done < zero_chunk_bytes ? (size_t)(length - done) : zero_chunk_bytes;
        ssize_t written = pwrite(fd, zeros, step, (off_t)done);
        if (written < 0 && errno != EINTR)
            return -errno;
        done += written > 0 ? (uint64_t)written : 0;
    }
    return 0;
}

static int fill_raw(int fd, const struct image_create_options *options, struct vial_error *err)
{
    off_t size = (off_t)options->size_bytes;
    int result = ftruncate(fd, size) < 0 ? -errno : 0;
    if (result == 0 && options->preallocation == IMAGE_FALLOCATE && size > 0 && fallocate(fd, 0, 0, size) < 0)
        result = -errno;
    if (result == 0 && options->preallocation == IMAGE_FULL)
        result = write_zeros(fd, options->size_bytes);
    if (result == 0)
        return 0;
    error_set_os(err, VIAL_PHASE_RUN, result, "cannot give %s its size of %llu bytes", error_short(options->path).text,
                 (unsigned long long)options->size_bytes);
    error_remedy(err, result == -EOPNOTSUPP ? "the file system cannot reserve space: use full preallocation, or none"
                                            : "make room there, or choose another folder");
    return result;
}

int image_fill(int fd, const struct image_create_options *options, struct vial_error *err)
{
    if (options->size_bytes == 0 || options->size_bytes % sector_bytes != 0 || options->size_bytes > INT64_MAX)
        return refuse(VIAL_ERROR_OUT_OF_RANGE, "size", "a disk cannot have this size",
                      "give a multiple of 512 bytes, at least one", err);
    return options->format == VIAL_DISK_RAW ? fill_raw(fd, options, err) : qcow2_create(fd, options, err);
}

/* ---- all of it ---- */

/* Looks at the backing file, as the image will name it, and takes its size where none is given. */
static int use_backing(struct image_create_options *options, struct vial_error *err)
{
    struct disk *disk = NULL;
    struct disk_properties properties;
    auto_free char *path = disk_resolve(options->path, options->backing_path);
    if (path == NULL)
        return error_no_memory(err, VIAL_PHASE_RUN);
    int result = disk_open_alone(path, options->backing_format, true, &disk, err);
    if (result < 0)
        return result;
    disk_describe(disk, &properties);
    disk_free(disk);
    if (options->size_bytes == 0)
        options->size_bytes = properties.size_bytes;
    return 0;
}

int image_create(const struct image_create_options *options, struct vial_error *err)
{
    struct image_create_options final = *options;
    struct image_target target;
    int result = image_check_options(&final, err);
    if (result == 0 && final.backing_path != NULL)
        result = use_backing(&final, err);
    if (result == 0)
        result = image_target_begin(&target, final.path, final.replaces, err);
    if (result < 0)
        return result;
    result = image_fill(target.fd, &final, err);
    if (result == 0)
        return image_target_finish(&target, err);
    image_target_drop(&target);
    return result;
}
