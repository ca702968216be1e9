// SPDX-License-Identifier: Apache-2.0
/* Building a configuration: what a machine stores on. Its root, file systems, mounts and disks.
 *
 * As config.c: each call builds a new element whole and then puts it in place, so one that fails has changed nothing.
 *
 * Every root but an initramfs has a virtio-fs device, config->root: the folder itself, or, where the root is a disk or
 * made of layers, a place from which the init mounts it and which nobody sees afterwards.
 *
 * Invariants: (1) the configuration owns every string in it. (2) the root is set once. (3) a custom backend's release
 * is called exactly once, by vial_vm_config_free, and never after a failed call.
 *
 * Trust: callers are programs; the strings they pass on may be anybody's.
 */
#include "vmm/configure.h"

#include "vmm/parse.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { default_tag_bytes = 24 };

/* ---- life ---- */

static void fs_release(struct fs_config *fs)
{
    if (fs->is_custom && fs->ops.release != NULL)
        fs->ops.release(fs->ops_user);
    free(fs->tag);
    free(fs->path);
}

static void mount_free(struct mount_config *mount)
{
    free(mount->disk);
    free(mount->guest);
    free(mount->fstype);
    free(mount->options);
}

static void disk_release(struct disk_config *disk)
{
    for (size_t i = 0; i < disk->backing_count; i++)
        free(disk->backing[i].path);
    free(disk->backing);
    free(disk->id);
    free(disk->path);
}

static void free_root(struct vial_vm_config *config)
{
    fs_release(&config->root);
    mount_free(&config->root_disk);
    mount_free(&config->root_upper);
    string_list_free(&config->root_lower);
    string_list_free(&config->root_hidden);
    free(config->root_lower_fstype);
}

void config_free_storage(struct vial_vm_config *config)
{
    free_root(config);
    for (size_t i = 0; i < config->fs_count; i++)
        fs_release(&config->fs[i]);
    for (size_t i = 0; i < config->mapped_dir_count; i++) {
        free(config->mapped_dirs[i].tag);
        free(config->mapped_dirs[i].host);
        free(config->mapped_dirs[i].guest);
    }
    for (size_t i = 0; i < config->mount_count; i++)
        mount_free(&config->mounts[i]);
    for (size_t i = 0; i < config->tmpfs_count; i++)
        free(config->tmpfs[i].guest);
    for (size_t i = 0; i < config->disk_count; i++)
        disk_release(&config->disks[i]);
    config_free_entries(config);
    free(config->fs);
    free(config->mapped_dirs);
    free(config->mounts);
    free(config->tmpfs);
    free(config->disks);
}

/* ---- file systems ---- */

static void fs_take(struct fs_config *fs, const struct vial_fs_options *options)
{
    fs->dax_window_mib = options->dax_window_mib;
    fs->read_only = options->read_only || options->empty;
    fs->cache = options->cache;
    fs->xattrs = options->xattrs;
    fs->has_owner = options->has_owner;
    fs->owner_uid = options->owner_uid;
    fs->owner_gid = options->owner_gid;
    fs->only_public = options->only_public;
    fs->one_device = options->one_device;
    fs->throw_away = options->throw_away;
    fs->is_empty = options->empty;
    fs->without_init = options->without_init;
    fs->ops_user = options->ops_user;
}

/* Builds *fs, whose tag is `tag` unless the options give one. On failure nothing is left to free. */
static int fs_init(const struct vial_vm_config *config, struct fs_config *fs, const struct vial_fs_options *options,
                   const char *tag, struct vial_error *err)
{
    struct vial_fs_options ours = VIAL_FS_OPTIONS_INIT;
    struct fs_config made = {0};
    int result = TAKE_SIZED(config, ours, options, err);
    if (result == 0 && ours.ops != NULL)
        result = config_take_sized(&made.ops, sizeof(made.ops), ours.ops, err);
    if (result < 0)
        return result;
    fs_take(&made, &ours);
    if (!config_copy_text(&made.tag, ours.tag != NULL ? ours.tag : tag) || !config_copy_text(&made.path, ours.path)) {
        fs_release(&made); /* not custom yet: it has no release */
        return config_no_memory(err);
    }
    made.is_custom = ours.ops != NULL;
    *fs = made;
    return 0;
}

static void format_default_tag(const struct vial_vm_config *config, char tag[default_tag_bytes])
{
    snprintf(tag, default_tag_bytes, "fs%zu", config->fs_total);
}

int vial_vm_config_add_fs(struct vial_vm_config *config, const struct vial_fs_options *options, struct vial_error *err)
{
    char tag[default_tag_bytes];
    format_default_tag(config, tag);
    int result = GROW(config, fs, fs_count, fs_capacity, LIMIT_DEVICES, "fs", err);
    if (result == 0)
        result = fs_init(config, &config->fs[config->fs_count], options, tag, err);
    if (result < 0)
        return result;
    config->fs_count++;
    config->fs_total++;
    return 0;
}

/* ---- the root ---- */

static int check_no_root(const struct vial_vm_config *config, struct vial_error *err)
{
    if (config->root_kind == ROOT_NONE)
        return 0;
    int result = error_set(err, VIAL_ERROR_DUPLICATE, VIAL_PHASE_CONFIGURE, "the root is set already");
    error_field(err, "root");
    error_remedy(err, "set the root once, and add further file systems as mounts");
    return result;
}

static int set_root_fs(struct vial_vm_config *config, enum root_kind kind, const struct vial_fs_options *options,
                       struct vial_error *err)
{
    int result = fs_init(config, &config->root, options, CONFIG_ROOT_TAG, err);
    if (result < 0)
        return result;
    config->root_kind = kind;
    config->fs_total++;
    return 0;
}

int vial_vm_config_set_root(struct vial_vm_config *config, const struct vial_fs_options *options,
                            struct vial_error *err)
{
    int result = check_no_root(config, err);
    return result == 0 ? set_root_fs(config, ROOT_FOLDER, options, err) : result;
}

void config_drop_root(struct vial_vm_config *config)
{
    fs_release(&config->root);
    config->root = (struct fs_config){0};
    config->root_kind = ROOT_NONE;
    config->fs_total--;
}

int vial_vm_config_set_root_builtin(struct vial_vm_config *config, struct vial_error *err)
{
    struct vial_fs_options fs = VIAL_FS_OPTIONS_INIT;
    fs.read_only = true;
    int result = check_no_root(config, err);
    return result == 0 ? set_root_fs(config, ROOT_BUILTIN, &fs, err) : result;
}

int vial_vm_config_set_root_host(struct vial_vm_config *config, const struct vial_root_host_options *options,
                                 struct vial_error *err)
{
    struct vial_root_host_options ours = VIAL_ROOT_HOST_OPTIONS_INIT;
    struct vial_fs_options fs = VIAL_FS_OPTIONS_INIT;
    struct string_list hidden = {0};
    size_t total_bytes = 0;
    int result = check_no_root(config, err);
    if (result == 0)
        result = TAKE_SIZED(config, ours, options, err);
    if (result == 0)
        result = string_list_copy(&hidden, ours.hidden, "root.hidden", &total_bytes, err);
    fs.path = "/";
    fs.dax_window_mib = ours.dax_window_mib;
    fs.read_only = fs.only_public = fs.throw_away = true;
    fs.xattrs = VIAL_FS_XATTRS_NONE; /* else the guest asks for some with each program that it runs */
    if (result == 0)
        result = set_root_fs(config, ROOT_HOST, &fs, err);
    if (result < 0)
        string_list_free(&hidden);
    else
        config->root_hidden = hidden;
    return result;
}

/* On failure nothing is left to free. */
static int mount_init(struct mount_config *mount, const struct vial_mount_options *options, struct vial_error *err)
{
    struct mount_config made = {.read_only = options->read_only};
    if (config_copy_text(&made.disk, options->disk) && config_copy_text(&made.guest, options->guest) &&
        config_copy_text(&made.fstype, options->fstype) && config_copy_text(&made.options, options->options)) {
        *mount = made;
        return 0;
    }
    mount_free(&made);
    return config_no_memory(err);
}

int vial_vm_config_set_root_disk(struct vial_vm_config *config, const struct vial_root_disk_options *options,
                                 struct vial_error *err)
{
    struct vial_root_disk_options ours = VIAL_ROOT_DISK_OPTIONS_INIT;
    struct vial_fs_options fs = VIAL_FS_OPTIONS_INIT;
    struct vial_mount_options disk = VIAL_MOUNT_OPTIONS_INIT;
    struct mount_config mount = {0};
    int result = check_no_root(config, err);
    if (result == 0)
        result = TAKE_SIZED(config, ours, options, err);
    disk.disk = ours.disk;
    disk.fstype = ours.fstype;
    disk.options = ours.options;
    disk.read_only = ours.read_only;
    fs.read_only = true;
    if (result == 0)
        result = mount_init(&mount, &disk, err);
    if (result == 0)
        result = set_root_fs(config, ROOT_DISK, &fs, err);
    if (result < 0)
        mount_free(&mount);
    else
        config->root_disk = mount;
    return result;
}

/* What vial_vm_config_set_root_layers copies, into an otherwise empty configuration. */
static int take_layers(struct vial_vm_config *config, const struct vial_root_layers_options *options,
                       struct vial_error *err)
{
    struct vial_mount_options upper = VIAL_MOUNT_OPTIONS_INIT;
    size_t total_bytes = 0;
    upper.disk = options->upper;
    upper.fstype = options->upper_fstype;
    int result = string_list_copy(&config->root_lower, options->lower, "root.layers", &total_bytes, err);
    if (result == 0)
        result = mount_init(&config->root_upper, &upper, err);
    if (result == 0 && !config_copy_text(&config->root_lower_fstype, options->lower_fstype))
        result = config_no_memory(err);
    return result;
}

int vial_vm_config_set_root_layers(struct vial_vm_config *config, const struct vial_root_layers_options *options,
                                   struct vial_error *err)
{
    struct vial_root_layers_options ours = VIAL_ROOT_LAYERS_OPTIONS_INIT;
    struct vial_fs_options fs = VIAL_FS_OPTIONS_INIT;
    struct vial_vm_config made = {0};
    fs.read_only = true;
    int result = check_no_root(config, err);
    if (result == 0)
        result = TAKE_SIZED(config, ours, options, err);
    if (result == 0)
        result = take_layers(&made, &ours, err);
    if (result == 0)
        result = set_root_fs(config, ROOT_LAYERS, &fs, err);
    if (result < 0) {
        free_root(&made);
        return result;
    }
    config->root_lower = made.root_lower;
    config->root_upper = made.root_upper;
    config->root_lower_fstype = made.root_lower_fstype;
    return 0;
}

/* ---- mounts ---- */

int vial_vm_config_add_mapped_dir(struct vial_vm_config *config, const struct vial_mapped_dir_options *options,
                                  struct vial_error *err)
{
    struct vial_mapped_dir_options ours = VIAL_MAPPED_DIR_OPTIONS_INIT;
    int result = TAKE_SIZED(config, ours, options, err);
    if (result == 0)
        result = GROW(config, mapped_dirs, mapped_dir_count, mapped_dir_capacity, LIMIT_DEVICES, "mapped_dirs", err);
    if (result < 0)
        return result;
    char tag[default_tag_bytes];
    format_default_tag(config, tag);
    auto_free char *tag_copy = NULL, *host = NULL, *guest = NULL;
    if (!config_copy_text(&tag_copy, tag) || !config_copy_text(&host, ours.host) ||
        !config_copy_text(&guest, ours.guest))
        return config_no_memory(err);
    config->mapped_dirs[config->mapped_dir_count++] = (struct mapped_dir_config){
        .tag = steal_ptr(tag_copy),
        .host = steal_ptr(host),
        .guest = steal_ptr(guest),
        .read_only = ours.read_only,
    };
    config->fs_total++;
    return 0;
}

int vial_vm_config_add_mapped_dir_text(struct vial_vm_config *config, const char *text, struct vial_error *err)
{
    auto_free char *host = NULL, *guest = NULL;
    const char *why = NULL;
    struct vial_mapped_dir_options options = VIAL_MAPPED_DIR_OPTIONS_INIT;
    int result = config_check_text(text, "mapped_dirs", err);
    if (result < 0)
        return result;
    result = parse_folder_pair(text, &host, &guest, &options.read_only, &why);
    if (result == -ENOMEM)
        return config_no_memory(err);
    if (result < 0)
        return config_refuse_text(result, "mapped_dirs", config->mapped_dir_count, "pair of folders", text, why,
                                  "write HOST:GUEST or HOST:GUEST:ro, such as ./data:/data:ro", err);
    options.host = host;
    options.guest = guest;
    return vial_vm_config_add_mapped_dir(config, &options, err);
}

int vial_vm_config_add_mount(struct vial_vm_config *config, const struct vial_mount_options *options,
                             struct vial_error *err)
{
    struct vial_mount_options ours = VIAL_MOUNT_OPTIONS_INIT;
    int result = TAKE_SIZED(config, ours, options, err);
    if (result == 0)
        result = GROW(config, mounts, mount_count, mount_capacity, LIMIT_DEVICES, "mounts", err);
    if (result == 0)
        result = mount_init(&config->mounts[config->mount_count], &ours, err);
    if (result == 0)
        config->mount_count++;
    return result;
}

int vial_vm_config_add_tmpfs(struct vial_vm_config *config, const struct vial_tmpfs_options *options,
                             struct vial_error *err)
{
    struct vial_tmpfs_options ours = VIAL_TMPFS_OPTIONS_INIT;
    struct tmpfs_config tmpfs;
    int result = TAKE_SIZED(config, ours, options, err);
    if (result == 0)
        result = GROW(config, tmpfs, tmpfs_count, tmpfs_capacity, LIMIT_TMPFS, "tmpfs", err);
    if (result < 0)
        return result;
    tmpfs = (struct tmpfs_config){.size_mib = ours.size_mib, .mode = ours.mode};
    if (!config_copy_text(&tmpfs.guest, ours.guest))
        return config_no_memory(err);
    config->tmpfs[config->tmpfs_count++] = tmpfs;
    return 0;
}

/* ---- disks ---- */

static int take_backing(struct disk_config *disk, const struct vial_disk_options *options, size_t index,
                        struct vial_error *err)
{
    if (options->backing_count > LIMIT_DISK_BACKING) {
        int result = error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_CONFIGURE, "a disk allows more than %d images",
                               LIMIT_DISK_BACKING);
        error_field(err, "disks[%zu].backing", index);
        error_remedy(err, "name those that its chain consists of");
        return result;
    }
    disk->backing = alloc_zero((options->backing_count + 1) * sizeof(disk->backing[0]));
    if (disk->backing == NULL)
        return config_no_memory(err);
    for (size_t i = 0; i < options->backing_count; i++) {
        const struct vial_disk_backing *theirs = &options->backing[i];
        struct backing_config *ours = &disk->backing[i];
        int result = config_check_reserved(theirs->reserved, sizeof(theirs->reserved), err);
        if (result < 0)
            return result;
        if (!config_copy_text(&ours->path, theirs->path))
            return config_no_memory(err);
        ours->format = (enum vial_disk_format)theirs->format;
        disk->backing_count++;
    }
    return 0;
}

int vial_vm_config_add_disk(struct vial_vm_config *config, const struct vial_disk_options *options,
                            struct vial_error *err)
{
    struct vial_disk_options ours = VIAL_DISK_OPTIONS_INIT;
    int result = TAKE_SIZED(config, ours, options, err);
    if (result == 0)
        result = GROW(config, disks, disk_count, disk_capacity, LIMIT_DEVICES, "disks", err);
    if (result < 0)
        return result;
    char name[disk_name_bytes];
    format_disk_name(config->disk_count, name);
    struct disk_config disk = {
        .format = (enum vial_disk_format)ours.format,
        .cache = (enum vial_disk_cache)ours.cache,
        .sync = (enum vial_disk_sync)ours.sync,
        .read_only = ours.read_only,
        .direct_io = ours.direct_io,
        .queues = ours.queues,
        .bytes_per_second = ours.bytes_per_second,
        .burst_bytes = ours.burst_bytes,
        .operations_per_second = ours.operations_per_second,
        .burst_operations = ours.burst_operations,
    };
    if (!config_copy_text(&disk.id, ours.id != NULL ? ours.id : name) || !config_copy_text(&disk.path, ours.path))
        result = config_no_memory(err);
    if (result == 0)
        result = take_backing(&disk, &ours, config->disk_count, err);
    if (result < 0)
        disk_release(&disk);
    else
        config->disks[config->disk_count++] = disk;
    return result;
}
