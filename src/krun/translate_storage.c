// SPDX-License-Identifier: Apache-2.0
/* From a context of libkrun.h to a configuration: what is left of roots, and disks.
 *
 * libkrun opens whatever files a qcow2 image names as lying under it; so do we here, where a program that trusts its
 * images expects that, by naming each of them to the library, which opens no others.
 *
 * Invariants: (1) there is a root, or an initramfs. (2) a chain of images is at most LIMIT_DISK_BACKING long.
 *
 * Trust: paths are the embedding program's. An image that it asks for may name any file that this process can read: a
 * program that speaks libkrun must not give images of others, as libkrun-compat(7) says.
 */
#include "krun/translate.h"

#include "base/alloc.h"
#include "base/error.h"
#include "disk/image.h"
#include "disk/open.h"

#include <errno.h>
#include <string.h>

/* ---- roots ---- */

/* The older form of a disk as the root, unless there is another root. */
static int set_root(const struct krun_context *context, struct vial_vm_config *config, struct vial_error *err)
{
    struct vial_root_disk_options root = VIAL_ROOT_DISK_OPTIONS_INIT;
    root.disk = "/dev/vda";
    if (config->root_kind != ROOT_NONE || (context->root_disk == NULL && context->initramfs != NULL))
        return 0;
    if (context->root_disk != NULL)
        return vial_vm_config_set_root_disk(config, &root, err);
    int result = error_set(err, VIAL_ERROR_MISSING, VIAL_PHASE_CONFIGURE, "the machine has no root");
    error_remedy(err, "call krun_set_root, krun_add_virtiofs3 with KRUN_FS_ROOT_TAG, or krun_set_root_disk_remount");
    return result;
}

static void drop_windows(struct vial_vm_config *config)
{
    config->root.dax_window_mib = 0;
    for (size_t i = 0; i < config->fs_count; i++)
        config->fs[i].dax_window_mib = 0;
}

/* ---- disks ---- */

struct chain {
    struct vial_disk_backing items[LIMIT_DISK_BACKING];
    char *paths[LIMIT_DISK_BACKING]; /* owned */
    size_t count;
};

static void chain_free(struct chain *chain)
{
    for (size_t i = 0; i < chain->count; i++)
        free(chain->paths[i]);
    free(chain);
}

static enum vial_disk_format format_named(const char *name)
{
    for (int i = 0; config_disk_formats[i] != NULL; i++)
        if (strcmp(config_disk_formats[i], name) == 0)
            return (enum vial_disk_format)(VIAL_DISK_RAW + i);
    return VIAL_DISK_UNSET;
}

/* The image under this one, as its path and its format, which is UNSET where there is none. */
static int look_under(const char *path, enum vial_disk_format format, char **ret_path,
                      enum vial_disk_format *ret_format, struct vial_error *err)
{
    auto_free struct image_info *info = alloc_zero(sizeof(*info));
    *ret_format = VIAL_DISK_UNSET;
    if (info == NULL)
        return error_no_memory(err, VIAL_PHASE_CONFIGURE);
    if (format != VIAL_DISK_QCOW2)
        return 0;
    int result = image_info(path, format, info, err);
    if (result < 0 || info->backing_path[0] == '\0')
        return result;
    enum vial_disk_format below = format_named(info->backing_format);
    if (below == VIAL_DISK_UNSET) {
        result = error_set(err, VIAL_ERROR_MISSING, VIAL_PHASE_CONFIGURE,
                           "%s does not say in what format the image under it is", error_short(path).text);
        error_remedy(err, "write it into the image (qemu-img rebase -u -b FILE -F FORMAT): formats are never guessed");
        return result;
    }
    *ret_path = disk_resolve(path, info->backing_path);
    if (*ret_path == NULL)
        return error_no_memory(err, VIAL_PHASE_CONFIGURE);
    *ret_format = below;
    return 0;
}

static int follow(const struct krun_disk *disk, struct chain *chain, struct vial_error *err)
{
    const char *path = disk->path;
    enum vial_disk_format format = disk->format;
    for (;;) {
        char *below = NULL;
        int result = look_under(path, format, &below, &format, err);
        if (result < 0 || format == VIAL_DISK_UNSET)
            return result;
        if (chain->count == LIMIT_DISK_BACKING) {
            free(below);
            return error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_CONFIGURE, "%s stands on more than %d images",
                             error_short(disk->path).text, LIMIT_DISK_BACKING);
        }
        chain->paths[chain->count] = below;
        chain->items[chain->count++] = (struct vial_disk_backing){.path = below, .format = (int32_t)format};
        path = below;
    }
}

static int add_disk(const struct krun_disk *disk, struct vial_vm_config *config, struct vial_error *err)
{
    struct vial_disk_options options = VIAL_DISK_OPTIONS_INIT;
    struct chain *chain = alloc_zero(sizeof(*chain));
    if (chain == NULL)
        return error_no_memory(err, VIAL_PHASE_CONFIGURE);
    int result = follow(disk, chain, err);
    options.path = disk->path;
    options.format = (int32_t)disk->format;
    options.sync = (int32_t)disk->sync;
    options.read_only = disk->read_only;
    options.direct_io = disk->direct_io;
    options.backing = chain->count > 0 ? chain->items : NULL;
    options.backing_count = chain->count;
    if (result == 0)
        result = vial_vm_config_add_disk(config, &options, err);
    chain_free(chain);
    return result;
}

static int add_disks(const struct krun_context *context, struct vial_vm_config *config, struct vial_error *err)
{
    const struct krun_disk older[] = {
        {.path = context->root_disk, .format = VIAL_DISK_RAW, .sync = VIAL_DISK_SYNC_FULL},
        {.path = context->data_disk, .format = VIAL_DISK_RAW, .sync = VIAL_DISK_SYNC_FULL},
    };
    int result = 0;
    for (size_t i = 0; i < context->disk_count && result == 0; i++)
        result = add_disk(&context->disks[i], config, err);
    for (size_t i = 0; i < array_length(older) && result == 0; i++)
        if (older[i].path != NULL)
            result = add_disk(&older[i], config, err);
    return result;
}

int krun_translate_storage(const struct krun_context *context, bool is_uml, struct vial_vm_config *config,
                           struct vial_error *err)
{
    int result = set_root(context, config, err);
    if (is_uml)
        drop_windows(config);
    return result == 0 ? add_disks(context, config, err) : result;
}
