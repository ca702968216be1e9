// SPDX-License-Identifier: Apache-2.0
/* Checking what a machine stores on: its file systems and disks. Its root and mounts are in check_mounts.c.
 *
 * Invariants: as in check.c.
 *
 * Trust: every value may come from a hostile or careless caller.
 */
#include "vmm/check.h"

#include "device/blk/blk.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- file systems ---- */

static int check_policies(const struct fs_config *fs, const char *name, struct vial_error *err)
{
    if (fs->cache > VIAL_FS_CACHE_ALWAYS)
        return refuse_number(err, VIAL_ERROR_INVALID, place_of("%s.cache", name).text, fs->cache,
                             "use auto, none or always", "it is not a cache policy");
    if (fs->xattrs > VIAL_FS_XATTRS_ALL)
        return refuse_number(err, VIAL_ERROR_INVALID, place_of("%s.xattrs", name).text, fs->xattrs,
                             "use user, none or all", "it is not a policy for extended attributes");
    if (fs->has_owner && (fs->owner_uid == UINT32_MAX || fs->owner_gid == UINT32_MAX))
        return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, place_of("%s.owner", name).text, UINT32_MAX,
                             "give numbers up to 4294967294", "4294967295 stands for nobody");
    return 0;
}

static int check_fs(const struct fs_config *fs, const char *name, struct vial_error *err)
{
    int result = check_given(fs->tag, place_of("%s.tag", name).text, "give a tag, or leave it out", err);
    if (result == 0)
        result = check_cmdline_text(fs->tag, place_of("%s.tag", name).text, err); /* the root's tag travels there */
    if (result < 0)
        return result;
    if (strlen(fs->tag) > LIMIT_FS_TAG_BYTES || strpbrk(fs->tag, " \"") != NULL)
        return refuse(err, VIAL_ERROR_INVALID, place_of("%s.tag", name).text, fs->tag, "use a short name, such as data",
                      "a tag has at most %d characters and neither spaces nor quotes", LIMIT_FS_TAG_BYTES);
    if (fs->dax_window_mib > LIMIT_DAX_WINDOW_MIB)
        return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, place_of("%s.dax_window_mib", name).text, fs->dax_window_mib,
                             "give at most 1048576 (1 TiB)", "the DAX window is larger than 1 TiB");
    if (fs->dax_window_mib % 2 != 0)
        return refuse_number(err, VIAL_ERROR_INVALID, place_of("%s.dax_window_mib", name).text, fs->dax_window_mib,
                             "give a multiple of 2", "the DAX window is not a whole number of 2 MiB pages");
    result = check_policies(fs, name, err);
    if (result < 0)
        return result;
    if (fs->is_empty && (fs->is_custom || fs->path != NULL))
        return refuse(err, VIAL_ERROR_CONFLICT, place_of("%s.empty", name).text, "true", "leave out what it is not",
                      "an empty file system has neither a path nor a backend");
    if (fs->is_empty)
        return 0;
    if (!fs->is_custom)
        return check_folder(fs->path, place_of("%s.path", name).text, err);
    if (fs->path != NULL)
        return refuse(err, VIAL_ERROR_CONFLICT, place_of("%s.path", name).text, fs->path,
                      "give a path or a backend, not both", "the file system has both a path and a custom backend");
    if (fs->ops.lookup == NULL || fs->ops.attributes == NULL)
        return refuse(err, VIAL_ERROR_MISSING, place_of("%s.ops", name).text, "", "implement lookup and attributes",
                      "the custom backend has no %s", fs->ops.lookup == NULL ? "lookup" : "attributes");
    return 0;
}

/* The tag of file system `index` among all: the root, the mounts, the mapped folders. */
static const char *tag_at(const struct vial_vm_config *config, size_t index, struct place *ret_place)
{
    if (config->root_kind != ROOT_NONE && index-- == 0) {
        *ret_place = place_of("root.tag");
        return config->root.tag;
    }
    if (index < config->fs_count) {
        *ret_place = place_of("fs[%zu].tag", index);
        return config->fs[index].tag;
    }
    index -= config->fs_count;
    if (index >= config->mapped_dir_count)
        return NULL;
    *ret_place = place_of("mapped_dirs[%zu]", index);
    return config->mapped_dirs[index].tag;
}

static int check_tags(const struct vial_vm_config *config, struct vial_error *err)
{
    struct place place, other_place;
    const char *tag, *other;
    for (size_t i = 0; (tag = tag_at(config, i, &place)) != NULL; i++) {
        for (size_t j = 0; j < i; j++) {
            other = tag_at(config, j, &other_place);
            if (strcmp(tag, other) == 0)
                return refuse(err, VIAL_ERROR_DUPLICATE, place.text, tag,
                              "give each file system a tag of its own (fs<N> is the default of the N-th)",
                              "%s has the same tag", other_place.text);
        }
    }
    return 0;
}

static int check_mount_only(const struct fs_config *fs, const char *name, struct vial_error *err)
{
    if (fs->without_init)
        return refuse(err, VIAL_ERROR_UNSUPPORTED, place_of("%s.without_init", name).text, "true", "leave it out",
                      "only a root has an init");
    if (!fs->throw_away)
        return 0;
    return refuse(err, VIAL_ERROR_UNSUPPORTED, place_of("%s.throw_away", name).text, "true",
                  "leave it out, or make it read_only", "only a root has a throw-away layer");
}

int check_file_systems(const struct vial_vm_config *config, struct vial_error *err)
{
    int result = config->root_kind == ROOT_FOLDER ? check_fs(&config->root, "root", err) : 0;
    for (size_t i = 0; i < config->fs_count && result == 0; i++) {
        struct place name = place_of("fs[%zu]", i);
        result = check_fs(&config->fs[i], name.text, err);
        if (result == 0)
            result = check_mount_only(&config->fs[i], name.text, err);
    }
    return result == 0 ? check_tags(config, err) : result;
}

/* ---- disks ---- */

static int check_disk_id(const struct vial_vm_config *config, size_t index, struct vial_error *err)
{
    const char *id = config->disks[index].id;
    struct place field = place_of("disks[%zu].id", index);
    int result = check_given(id, field.text, "give an id, or leave it out", err);
    if (result < 0)
        return result;
    if (strlen(id) > LIMIT_DISK_ID_BYTES || !text_is_printable_ascii(id) || strpbrk(id, " /\"\\") != NULL)
        return refuse(err, VIAL_ERROR_INVALID, field.text, id, "use letters, digits and dashes, such as data-1",
                      "a disk id has at most %d ASCII characters and no space, slash, quote or backslash",
                      LIMIT_DISK_ID_BYTES);
    for (size_t j = 0; j < index; j++)
        if (strcmp(id, config->disks[j].id) == 0)
            return refuse(err, VIAL_ERROR_DUPLICATE, field.text, id,
                          "give each disk an id of its own (vda, vdb … are the defaults in order)",
                          "disks[%zu] has the same id", j);
    return 0;
}

/* What the images may stand on. They are opened by whoever reads the image, and only asked for here. */
static int check_backing(const struct disk_config *disk, size_t index, struct vial_error *err)
{
    for (size_t i = 0; i < disk->backing_count; i++) {
        const struct backing_config *backing = &disk->backing[i];
        int result = check_given(backing->path, place_of("disks[%zu].backing[%zu].path", index, i).text,
                                 "give the path as the image has it", err);
        if (result < 0)
            return result;
        if (backing->format < VIAL_DISK_RAW || backing->format > VIAL_DISK_VMDK)
            return refuse_number(err, VIAL_ERROR_MISSING, place_of("disks[%zu].backing[%zu].format", index, i).text,
                                 backing->format, "name the format: raw, qcow2 or vmdk",
                                 "the format of the image below is not given");
    }
    return 0;
}

static int check_limits(const struct disk_config *disk, size_t index, struct vial_error *err)
{
    struct place limits = place_of("disks[%zu].limits", index);
    if (disk->queues > BLK_MOST_QUEUES)
        return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, place_of("disks[%zu].queues", index).text, disk->queues,
                             "give at most 16, or 0 for one for each vCPU", "a disk has at most 16 queues");
    if (disk->burst_bytes > 0 && disk->bytes_per_second == 0)
        return refuse_number(err, VIAL_ERROR_MISSING, limits.text, (int64_t)disk->burst_bytes,
                             "give bytes_per_second, too", "a burst of bytes means nothing without a limit");
    if (disk->burst_operations > 0 && disk->operations_per_second == 0)
        return refuse_number(err, VIAL_ERROR_MISSING, limits.text, (int64_t)disk->burst_operations,
                             "give operations_per_second, too", "a burst of operations means nothing without a limit");
    return 0;
}

static int check_disk(const struct vial_vm_config *config, size_t index, struct vial_error *err)
{
    const struct disk_config *disk = &config->disks[index];
    struct place field = place_of("disks[%zu].path", index);
    struct stat status;
    int result = check_disk_id(config, index, err);
    if (result == 0)
        result = check_given(disk->path, field.text, "give the path of a disk image or block device", err);
    if (result == 0)
        result = check_exists(disk->path, field.text, &status, err);
    if (result < 0)
        return result;
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
        return refuse(err, VIAL_ERROR_WRONG_KIND, field.text, disk->path,
                      "give the path of a disk image or block device",
                      "%s is neither a regular file nor a block device", error_short(disk->path).text);
    if (disk->format == VIAL_DISK_UNSET)
        return refuse(err, VIAL_ERROR_MISSING, place_of("disks[%zu].format", index).text, "",
                      "name the format: raw, qcow2 or vmdk",
                      "the disk's format is not given, and guessing it would let a guest choose it");
    if (disk->format < VIAL_DISK_RAW || disk->format > VIAL_DISK_VMDK)
        return refuse_number(err, VIAL_ERROR_INVALID, place_of("disks[%zu].format", index).text, disk->format,
                             "use raw, qcow2 or vmdk", "it is not a disk format");
    if (disk->cache < VIAL_DISK_WRITEBACK || disk->cache > VIAL_DISK_UNSAFE)
        return refuse_number(err, VIAL_ERROR_INVALID, place_of("disks[%zu].cache", index).text, disk->cache,
                             "use writeback or unsafe", "it is not a cache mode");
    if (disk->sync < VIAL_DISK_SYNC_FULL || disk->sync > VIAL_DISK_SYNC_NONE)
        return refuse_number(err, VIAL_ERROR_INVALID, place_of("disks[%zu].sync", index).text, disk->sync,
                             "use full, relaxed or none", "it is not a sync mode");
    if (disk->format == VIAL_DISK_VMDK && !disk->read_only)
        return refuse(err, VIAL_ERROR_UNSUPPORTED, place_of("disks[%zu].read_only", index).text, "false",
                      "set read_only, or convert the image to raw or qcow2", "VMDK images can only be read");
    result = check_access(disk->path, disk->read_only ? R_OK : R_OK | W_OK, field.text, err);
    if (result == 0)
        result = check_backing(disk, index, err);
    return result == 0 ? check_limits(disk, index, err) : result;
}

/* Two disks on one image corrupt it as soon as one of them writes, by whatever names they reach it. */
static int check_disk_is_alone(const struct vial_vm_config *config, size_t index, struct vial_error *err)
{
    const struct disk_config *disk = &config->disks[index];
    struct stat status, other;
    if (stat(disk->path, &status) < 0)
        return 0;
    for (size_t j = 0; j < index; j++) {
        if ((disk->read_only && config->disks[j].read_only) || stat(config->disks[j].path, &other) < 0)
            continue;
        bool is_same_device = S_ISBLK(status.st_mode) && S_ISBLK(other.st_mode) && status.st_rdev == other.st_rdev;
        if (is_same_device || (status.st_dev == other.st_dev && status.st_ino == other.st_ino))
            return refuse(err, VIAL_ERROR_CONFLICT, place_of("disks[%zu].path", index).text, disk->path,
                          "give each writable disk an image of its own, or make both read_only",
                          "disks[%zu] is the same image, and one of the two can write", j);
    }
    return 0;
}

int check_disks(const struct vial_vm_config *config, struct vial_error *err)
{
    int result = 0;
    for (size_t i = 0; i < config->disk_count && result == 0; i++) {
        result = check_disk(config, i, err);
        if (result == 0)
            result = check_disk_is_alone(config, i, err);
    }
    return result;
}
