// SPDX-License-Identifier: Apache-2.0
/* Looking into images, checking them, and the snapshots inside them.
 *
 * None of this reads what lies under an image: files that it names are left out, so none has to be allowed.
 *
 * Invariants: (1) an image is locked meanwhile, as a disk is: for reading what only looks, for writing what changes it.
 *
 * Trust: images are hostile; the formats' code deals with that.
 */
#include "disk/image.h"

#include "base/alloc.h"
#include "base/error.h"
#include "disk/open.h"
#include "disk/qcow2.h"
#include "disk/vmdk.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

static int refuse_format(const char *path, enum vial_disk_format format, const char *what, struct vial_error *err)
{
    bool is_known = disk_format_is_known(format);
    int result = error_set(err, is_known ? VIAL_ERROR_UNSUPPORTED : VIAL_ERROR_MISSING, VIAL_PHASE_RUN,
                           is_known ? "%s: only a qcow2 image %s" : "the format of %s is not given",
                           error_short(path).text, what);
    error_remedy(err, is_known ? "convert it to qcow2 first, if you need that" : "name it: raw, qcow2 or vmdk");
    return result;
}

/* ---- looking ---- */

int image_info(const char *path, enum vial_disk_format format, struct image_info *ret_info, struct vial_error *err)
{
    struct image_info info = {.format = format};
    struct disk *disk = NULL;
    struct stat about;
    int result = disk_open_alone(path, format, true, &disk, err);
    if (result < 0)
        return result;
    if (fstat(disk->file.fd, &about) < 0) {
        result = error_set_os(err, VIAL_PHASE_RUN, errno, "cannot examine %s", error_short(path).text);
        disk_free(disk);
        return result;
    }
    if (format == VIAL_DISK_QCOW2)
        qcow2_info(disk->shape.state, &info);
    if (format == VIAL_DISK_VMDK)
        vmdk_info(disk->shape.state, &info); /* adds up the files of its extents */
    info.format = format;
    info.size_bytes = disk->shape.properties.size_bytes;
    info.file_bytes += disk->file.size_bytes;
    info.allocated_bytes += disk->file.is_device ? disk->file.size_bytes : (uint64_t)about.st_blocks * 512;
    disk_free(disk);
    *ret_info = info;
    return 0;
}

/* ---- checking ---- */

int image_check(const char *path, enum vial_disk_format format, enum image_repair repair, image_progress progress,
                void *user, struct image_check *ret_check, struct vial_error *err)
{
    const struct disk_file_request request = {
        .path = path, .folder_fd = AT_FDCWD, .read_only = repair == IMAGE_REPAIR_NONE};
    struct disk_file file;
    if (format != VIAL_DISK_QCOW2)
        return refuse_format(path, format, "has anything to check", err);
    int result = disk_file_open(&request, &file, err);
    if (result < 0)
        return result;
    result = qcow2_check(&file, repair, progress, user, ret_check, err);
    disk_file_close(&file);
    return result;
}

/* ---- snapshots ---- */

int image_snapshot_list(const char *path, struct image_snapshot **ret_snapshots, size_t *ret_count,
                        struct vial_error *err)
{
    struct disk *disk = NULL;
    int result = disk_open_alone(path, VIAL_DISK_QCOW2, true, &disk, err);
    if (result < 0)
        return result;
    result = qcow2_snapshot_list(disk->shape.state, ret_snapshots, ret_count, err);
    disk_free(disk);
    return result;
}

/* Opens the image for writing, has it changed, and sees to it that the change is on the medium. */
static int change(const char *path, const char *name,
                  int (*function)(void *state, const char *name, struct vial_error *err), struct vial_error *err)
{
    struct disk *disk = NULL;
    int result = disk_open_alone(path, VIAL_DISK_QCOW2, false, &disk, err);
    if (result < 0)
        return result;
    result = function(disk->shape.state, name, err);
    if (result == 0) {
        int flushed = disk_flush(disk);
        if (flushed < 0)
            result = error_set_os(err, VIAL_PHASE_RUN, flushed, "cannot write %s", error_short(path).text);
    }
    int closed = disk_close(disk, result == 0 ? err : NULL);
    return result == 0 ? closed : result;
}

int image_snapshot_create(const char *path, const char *name, struct vial_error *err)
{
    return change(path, name, qcow2_snapshot_create, err);
}

int image_snapshot_apply(const char *path, const char *name, struct vial_error *err)
{
    return change(path, name, qcow2_snapshot_apply, err);
}

int image_snapshot_remove(const char *path, const char *name, struct vial_error *err)
{
    return change(path, name, qcow2_snapshot_remove, err);
}
