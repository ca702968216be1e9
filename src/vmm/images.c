// SPDX-License-Identifier: Apache-2.0
/* The files that a machine starts from: found and opened, not read.
 *
 * Invariants: (1) what was opened is in the struct at once, so that vm_close_images finds it after any failure.
 *
 * Trust: paths are the configuration's, or those of the project's own kernels (host/kernels.c); what the files hold is
 * for whoever loads them to check.
 */
#include "vmm/vm.h"

#include "base/fd.h"
#include "host/kernels.h"
#include "vmm/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

/* Opens the file, or -1 in *ret_fd for none. */
static int open_input(const char *path, const char *field, int *ret_fd, struct vial_error *err)
{
    *ret_fd = -1;
    if (path == NULL)
        return 0;
    *ret_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (*ret_fd >= 0)
        return 0;
    int result = error_set_os(err, VIAL_PHASE_LOAD, errno, "cannot open %s", error_short(path).text);
    error_field(err, "%s", field);
    error_value(err, "%s", path);
    error_remedy(err, "check the file and its permissions");
    return result;
}

static int find_kernel(const struct kernel_config *kernel, enum vial_engine engine, struct host_path *project,
                       const char **ret_path, struct vial_error *err)
{
    *ret_path = kernel->path;
    if (kernel->path != NULL || kernel->krunfw != NULL)
        return 0;
    bool is_uml = engine == VIAL_ENGINE_UML;
    if (!host_kernel_find("", is_uml ? HOST_ENGINE_UML : HOST_ENGINE_KVM, project))
        return refuse(err, VIAL_ERROR_NOT_FOUND, "kernel.path", project->text,
                      is_uml ? "build the project's kernel (kernel/build uml), or give kernel.path"
                             : "build the project's kernel (kernel/build kvm-x86_64), or give kernel.path",
                      "no kernel is given, and there is none at %s", error_short(project->text).text);
    *ret_path = project->text;
    return 0;
}

int vm_open_images(const struct kernel_config *kernel, enum vial_engine engine, struct vm_images *images,
                   struct vial_error *err)
{
    int result = find_kernel(kernel, engine, &images->project, &images->kernel_path, err);
    if (result == 0)
        result = open_input(images->kernel_path, "kernel.path", &images->kernel_fd, err);
    return result == 0 ? open_input(kernel->initramfs, "kernel.initramfs", &images->initramfs_fd, err) : result;
}

void vm_close_images(struct vm_images *images)
{
    images->kernel_fd = fd_close(images->kernel_fd);
    images->initramfs_fd = fd_close(images->initramfs_fd);
}

void vm_name_kernel(const struct kernel_config *kernel, const struct vm_images *images, struct vial_engine_info *info)
{
    const char *path = images->kernel_path != NULL ? images->kernel_path : kernel->krunfw;
    snprintf(info->kernel, sizeof(info->kernel), "%s", path);
}
