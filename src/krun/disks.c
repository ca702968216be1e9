// SPDX-License-Identifier: Apache-2.0
/* Disks, in two forms that exclude each other: a list, which new programs make, and a root's and a data disk, which old
 * ones have.
 *
 * Invariants: (1) a call that fails has changed nothing. (2) a context has disks of one form.
 *
 * Trust: arguments are the embedding program's. A format is never guessed.
 */
#include "krun/context.h"

#include "base/alloc.h"
#include "libkrun.h"

#include <errno.h>

void krun_disks_free(struct krun_context *context)
{
    for (size_t i = 0; i < context->disk_count; i++)
        free(context->disks[i].path);
    free(context->disks);
    free(context->root_disk);
    free(context->data_disk);
}

static int keep(uint32_t ctx_id, const struct krun_disk *disk)
{
    struct krun_context *context = krun_hold(ctx_id);
    if (context == NULL)
        return -ENOENT;
    int result = context->root_disk != NULL || context->data_disk != NULL ? -EINVAL : 0;
    if (result == 0)
        result = alloc_grow((void **)&context->disks, context->disk_count, &context->disk_capacity,
                            sizeof(context->disks[0]), LIMIT_DEVICES);
    if (result == 0)
        context->disks[context->disk_count++] = *disk;
    krun_let_go();
    return result;
}

int32_t krun_add_disk3(uint32_t ctx_id, const char *block_id, const char *disk_path, uint32_t disk_format,
                       bool read_only, bool direct_io, uint32_t sync_mode)
{
    static const enum vial_disk_format formats[] = {VIAL_DISK_RAW, VIAL_DISK_QCOW2, VIAL_DISK_VMDK};
    static const enum vial_disk_sync syncs[] = {VIAL_DISK_SYNC_NONE, VIAL_DISK_SYNC_RELAXED, VIAL_DISK_SYNC_FULL};
    if (disk_format >= array_length(formats) || sync_mode >= array_length(syncs))
        return -EINVAL;
    struct krun_disk disk = {
        .format = formats[disk_format],
        .sync = syncs[sync_mode],
        .read_only = read_only,
        .direct_io = direct_io,
    };
    auto_free char *id = NULL; /* which no guest ever sees: a disk is known by its place */
    int result = krun_copy_text(block_id, false, &id);
    if (result == 0)
        result = krun_copy_text(disk_path, false, &disk.path);
    if (result == 0)
        result = keep(ctx_id, &disk);
    if (result < 0)
        free(disk.path);
    return result;
}

int32_t krun_add_disk2(uint32_t ctx_id, const char *block_id, const char *disk_path, uint32_t disk_format,
                       bool read_only)
{
    return krun_add_disk3(ctx_id, block_id, disk_path, disk_format, read_only, false, KRUN_SYNC_FULL);
}

int32_t krun_add_disk(uint32_t ctx_id, const char *block_id, const char *disk_path, bool read_only)
{
    return krun_add_disk2(ctx_id, block_id, disk_path, KRUN_DISK_FORMAT_RAW, read_only);
}

static int set_old_disk(uint32_t ctx_id, const char *disk_path, bool is_root)
{
    auto_free char *path = NULL;
    int result = krun_copy_text(disk_path, false, &path);
    if (result < 0)
        return result;
    struct krun_context *context = krun_hold(ctx_id);
    if (context == NULL)
        return -ENOENT;
    result = context->disk_count > 0 ? -EINVAL : 0;
    if (result == 0) {
        char **place = is_root ? &context->root_disk : &context->data_disk;
        free(*place);
        *place = steal_ptr(path);
    }
    krun_let_go();
    return result;
}

int32_t krun_set_root_disk(uint32_t ctx_id, const char *disk_path)
{
    return set_old_disk(ctx_id, disk_path, true);
}

int32_t krun_set_data_disk(uint32_t ctx_id, const char *disk_path)
{
    return set_old_disk(ctx_id, disk_path, false);
}
