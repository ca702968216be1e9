// SPDX-License-Identifier: Apache-2.0
/* The root, the file systems that are shared with the guest, and the files that only the guest sees.
 *
 * These are settings of a configuration from the start (context->config), which refuses what cannot be: two roots, an
 * entry without its folder. What an engine lacks, such as DAX windows, is taken out of it again when the engine is
 * known (translate_storage.c).
 *
 *     krun_set_root, or the root's tag     a folder as the root, or an empty one
 *     krun_set_root_disk_remount           a disk's file system; with an init of the program's own, an empty root in
 *                                          which that finds a place to mount the disk at
 *
 * Invariants: (1) a call that fails has changed nothing. (2) a conflict between settings is -EINVAL, as libkrun has it.
 *
 * Trust: arguments are the embedding program's.
 */
#include "krun/context.h"

#include "base/alloc.h"
#include "libkrun.h"
#include "vmm/guest_init.h"

#include <errno.h>
#include <string.h>

enum { default_window_bytes = 512 << 20 };

static bool is_root(const char *tag)
{
    return strcmp(tag, KRUN_FS_ROOT_TAG) == 0;
}

/* What the configuration has refused, as libkrun says it; that there are too many is no conflict. */
static int as_conflict(int result)
{
    return result == -ENOMEM || result == -E2BIG || result >= 0 ? result : -EINVAL;
}

/* ---- file systems ---- */

/* In the unit that the configuration takes: pairs of MiB. */
static uint64_t window_mib(uint64_t bytes)
{
    enum { unit_bits = 21 };
    uint64_t units = (bytes >> unit_bits) + ((bytes & ((1u << unit_bits) - 1)) != 0);
    return units * 2;
}

static bool has_tag(const struct vial_vm_config *config, const char *tag)
{
    for (size_t i = 0; i < config->fs_count; i++)
        if (strcmp(config->fs[i].tag, tag) == 0)
            return true;
    return false;
}

static int add_fs(struct krun_context *context, struct vial_fs_options *fs)
{
    struct vial_vm_config *config = context->config;
    fs->without_init = is_root(fs->tag) && context->without_init;
    if (is_root(fs->tag))
        return as_conflict(vial_vm_config_set_root(config, fs, NULL));
    return has_tag(config, fs->tag) ? -EINVAL : as_conflict(vial_vm_config_add_fs(config, fs, NULL));
}

int32_t krun_add_virtiofs3(uint32_t ctx_id, const char *c_tag, const char *c_path, uint64_t shm_size, bool read_only)
{
    struct vial_fs_options fs = VIAL_FS_OPTIONS_INIT;
    int result = krun_check_text(c_tag, false);
    if (result == 0)
        result = krun_check_text(c_path, true);
    if (result < 0)
        return result;
    fs.tag = c_tag;
    fs.path = c_path;
    fs.empty = c_path == NULL;
    fs.read_only = read_only;
    fs.dax_window_mib = window_mib(shm_size);
    struct krun_context *context = krun_hold(ctx_id);
    if (context == NULL)
        return -ENOENT;
    result = add_fs(context, &fs);
    krun_let_go();
    return result;
}

int32_t krun_add_virtiofs2(uint32_t ctx_id, const char *c_tag, const char *c_path, uint64_t shm_size)
{
    return krun_add_virtiofs3(ctx_id, c_tag, c_path, shm_size, false);
}

int32_t krun_add_virtiofs(uint32_t ctx_id, const char *c_tag, const char *c_path)
{
    return krun_add_virtiofs3(ctx_id, c_tag, c_path, 0, false);
}

int32_t krun_set_root(uint32_t ctx_id, const char *root_path)
{
    if (root_path == NULL)
        return -EINVAL;
    return krun_add_virtiofs3(ctx_id, KRUN_FS_ROOT_TAG, root_path, default_window_bytes, false);
}

/* ---- roots on disks ---- */

/* "/dev/vdb" and its partitions are of the second disk. */
static const struct krun_disk *find_disk(const struct krun_context *context, const char *device)
{
    static const char prefix[] = "/dev/vd";
    enum { letter_count = 26, most_letters = 3 };
    size_t place = 0, letters = 0;
    if (strncmp(device, prefix, strlen(prefix)) != 0)
        return NULL;
    for (const char *letter = device + strlen(prefix); *letter >= 'a' && *letter <= 'z' && letters < most_letters;
         letter++) {
        place = place * letter_count + (size_t)(*letter - 'a') + 1;
        letters++;
    }
    return letters > 0 && place <= context->disk_count ? &context->disks[place - 1] : NULL;
}

/* An init of the program's own mounts the disk itself, and is told which by the kernel's command line. */
static int set_empty_root(struct krun_context *context, struct krun_block_root *block_root)
{
    struct vial_fs_options root = VIAL_FS_OPTIONS_INIT;
    struct vial_fs_entry_options place = VIAL_FS_ENTRY_OPTIONS_INIT;
    root.tag = KRUN_FS_ROOT_TAG;
    root.empty = root.without_init = true;
    place.path = "/newroot";
    place.is_folder = true;
    int result = vial_vm_config_set_root(context->config, &root, NULL);
    if (result < 0)
        return result;
    result = vial_vm_config_add_fs_entry(context->config, &place, NULL);
    if (result < 0) {
        config_drop_root(context->config);
        return result;
    }
    context->block_root = *block_root;
    *block_root = (struct krun_block_root){0};
    return 0;
}

static int set_root_disk(struct krun_context *context, const struct krun_block_root *block_root)
{
    struct vial_root_disk_options root = VIAL_ROOT_DISK_OPTIONS_INIT;
    const struct krun_disk *disk = find_disk(context, block_root->device);
    root.disk = block_root->device;
    root.fstype = block_root->fstype;
    root.options = block_root->options;
    root.read_only = disk != NULL && disk->read_only;
    return vial_vm_config_set_root_disk(context->config, &root, NULL);
}

void krun_block_root_free(struct krun_block_root *block_root)
{
    free(block_root->device);
    free(block_root->fstype);
    free(block_root->options);
    *block_root = (struct krun_block_root){0};
}

int32_t krun_set_root_disk_remount(uint32_t ctx_id, const char *device, const char *fstype, const char *options)
{
    struct krun_block_root root = {0};
    struct krun_context *context = NULL;
    int result = krun_copy_text(device, false, &root.device);
    if (result == 0)
        result = krun_copy_text(fstype, true, &root.fstype);
    if (result == 0)
        result = krun_copy_text(options, true, &root.options);
    if (result == 0) {
        context = krun_hold(ctx_id);
        result = context == NULL ? -ENOENT : context->disk_count == 0 ? -EINVAL : 0;
    }
    if (result == 0)
        result = as_conflict(context->without_init ? set_empty_root(context, &root) : set_root_disk(context, &root));
    if (context != NULL)
        krun_let_go();
    krun_block_root_free(&root);
    return result;
}

/* ---- the init ---- */

int32_t krun_disable_implicit_init(uint32_t ctx_id)
{
    return krun_set_flag(ctx_id, KRUN_MEMBER(without_init), true);
}

int32_t krun_get_default_init(const uint8_t **data_out, size_t *len_out)
{
    if (data_out == NULL || len_out == NULL)
        return -EINVAL;
    *data_out = guest_init_bytes;
    *len_out = guest_init_length;
    return 0;
}

/* ---- files that only the guest sees ---- */

/* Its path may be without a slash in front. */
static int add_entry(uint32_t ctx_id, const char *tag, const char *path, struct vial_fs_entry_options *entry)
{
    auto_free char *absolute = NULL;
    int result = krun_check_text(tag, false);
    if (result == 0)
        result = krun_check_text(path, false);
    if (result == 0)
        result = krun_copy_absolute(path, &absolute);
    if (result < 0)
        return result;
    entry->tag = tag;
    entry->path = absolute;
    entry->mode &= 07777;
    struct krun_context *context = krun_hold(ctx_id);
    if (context == NULL)
        return -ENOENT;
    result = vial_vm_config_add_fs_entry(context->config, entry, NULL);
    krun_let_go();
    return result;
}

int32_t krun_fs_add_overlay_file(uint32_t ctx_id, const char *fs_tag, const char *path, const uint8_t *data,
                                 size_t data_len, uint32_t mode, bool one_shot)
{
    struct vial_fs_entry_options entry = VIAL_FS_ENTRY_OPTIONS_INIT;
    entry.data = data;
    entry.length = data_len;
    entry.mode = mode;
    entry.one_shot = one_shot;
    return add_entry(ctx_id, fs_tag, path, &entry);
}

int32_t krun_fs_add_overlay_dir(uint32_t ctx_id, const char *fs_tag, const char *path, uint32_t mode)
{
    struct vial_fs_entry_options entry = VIAL_FS_ENTRY_OPTIONS_INIT;
    entry.mode = mode;
    entry.is_folder = true;
    return add_entry(ctx_id, fs_tag, path, &entry);
}
