// SPDX-License-Identifier: Apache-2.0
/* The kernel: the one that is given, else that of a libkrunfw, else the project's own.
 *
 * A libkrunfw is where the dynamic loader finds it, as libkrun itself looks for it. It and the project's kernels are
 * found when the context is made, because a program may change its root between that and the start (crun does); from
 * then on they are held, the library loaded and the kernels open.
 *
 * Invariants: (1) what is held is let go with the context. (2) that nothing is found is no error here.
 *
 * Trust: a library that the loader finds is trusted as the program is: its code runs here. Paths are the embedding
 * program's; what the files hold is for whoever loads them to check.
 */
#include "krun/context.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "host/kernels.h"
#include "libkrun.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <unistd.h>

#define KRUNFW_NAME "libkrunfw.so.5"

/* ---- what is there without being given ---- */

static void find_krunfw(struct krun_context *context)
{
    struct link_map *map = NULL;
    context->krunfw = dlopen(KRUNFW_NAME, RTLD_NOW | RTLD_LOCAL);
    if (context->krunfw == NULL)
        return;
    if (dlinfo(context->krunfw, RTLD_DI_LINKMAP, &map) == 0 && map->l_name != NULL)
        context->krunfw_path = alloc_string(map->l_name);
}

void krun_kernels_find(struct krun_context *context)
{
    find_krunfw(context);
    for (int engine = 0; engine < HOST_ENGINE_COUNT; engine++) {
        struct krun_kernel *kernel = &context->own[engine];
        bool is_there = host_kernel_find("", (enum host_engine)engine, &kernel->path);
        kernel->fd = is_there ? krun_open(kernel->path.text, O_RDONLY, 0) : -1;
    }
}

void krun_kernels_free(struct krun_context *context)
{
    if (context->krunfw != NULL)
        dlclose(context->krunfw);
    for (int engine = 0; engine < HOST_ENGINE_COUNT; engine++)
        fd_close(context->own[engine].fd);
    free(context->krunfw_path);
    free(context->kernel_path);
    free(context->initramfs);
    free(context->cmdline);
    free(context->kernel_console);
}

/* ---- what is given ---- */

static int set_kernel(uint32_t ctx_id, enum vial_kernel_format format, char **path, char **initramfs, char **cmdline)
{
    struct krun_context *context = krun_hold(ctx_id);
    if (context == NULL)
        return -ENOENT;
    free(context->kernel_path);
    free(context->initramfs);
    free(context->cmdline);
    context->kernel_format = format;
    context->kernel_path = steal_ptr(*path);
    context->initramfs = steal_ptr(*initramfs);
    context->cmdline = steal_ptr(*cmdline);
    krun_let_go();
    return 0;
}

int32_t krun_set_kernel(uint32_t ctx_id, const char *kernel_path, uint32_t kernel_format, const char *initramfs,
                        const char *cmdline)
{
    static const enum vial_kernel_format formats[] = {
        [KRUN_KERNEL_FORMAT_RAW] = VIAL_KERNEL_RAW,           [KRUN_KERNEL_FORMAT_ELF] = VIAL_KERNEL_ELF,
        [KRUN_KERNEL_FORMAT_PE_GZ] = VIAL_KERNEL_PE_GZ,       [KRUN_KERNEL_FORMAT_IMAGE_BZ2] = VIAL_KERNEL_IMAGE_BZ2,
        [KRUN_KERNEL_FORMAT_IMAGE_GZ] = VIAL_KERNEL_IMAGE_GZ, [KRUN_KERNEL_FORMAT_IMAGE_ZSTD] = VIAL_KERNEL_IMAGE_ZSTD,
    };
    auto_free char *path_copy = NULL, *initramfs_copy = NULL, *cmdline_copy = NULL;
    if (kernel_format >= array_length(formats))
        return -EINVAL;
    int result = krun_copy_text(kernel_path, false, &path_copy);
    if (result == 0)
        result = krun_copy_text(initramfs, true, &initramfs_copy);
    if (result == 0)
        result = krun_copy_text(cmdline, true, &cmdline_copy);
    if (result == 0 && initramfs_copy != NULL && access(initramfs_copy, R_OK) < 0)
        result = -EINVAL;
    return result < 0 ? result : set_kernel(ctx_id, formats[kernel_format], &path_copy, &initramfs_copy, &cmdline_copy);
}
