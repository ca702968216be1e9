// SPDX-License-Identifier: Apache-2.0
/* Calls of libkrun.h that this build has nothing behind: they say so, and change nothing.
 *
 * Invariants: (1) none of them looks at an argument, which may be anything.
 *
 * Trust: nobody is.
 */
#include "libkrun.h"

#include "krun/context.h"

#include <errno.h>

/* As it is there on every host but macOS on ARM, where a guest can be told so. */
int32_t krun_get_shutdown_eventfd(uint32_t ctx_id)
{
    if (krun_hold(ctx_id) == NULL)
        return -ENOENT;
    krun_let_go();
    return -EINVAL;
}

int32_t krun_set_mapped_volumes(uint32_t ctx_id, const char *const mapped_volumes[])
{
    (void)ctx_id;
    (void)mapped_volumes;
    return -EINVAL;
}

int32_t krun_set_firmware(uint32_t ctx_id, const char *firmware_path)
{
    (void)ctx_id;
    (void)firmware_path;
    return -ENOTSUP;
}

int32_t krun_set_tee_config_file(uint32_t ctx_id, const char *filepath)
{
    (void)ctx_id;
    (void)filepath;
    return -ENOTSUP;
}

int32_t krun_set_smbios_oem_strings(uint32_t ctx_id, const char *const oem_strings[])
{
    (void)ctx_id;
    (void)oem_strings;
    return -ENOTSUP;
}

int32_t krun_set_gpu_options(uint32_t ctx_id, uint32_t virgl_flags)
{
    (void)ctx_id;
    (void)virgl_flags;
    return -ENOTSUP;
}

int32_t krun_set_gpu_options2(uint32_t ctx_id, uint32_t virgl_flags, uint64_t shm_size)
{
    (void)ctx_id;
    (void)virgl_flags;
    (void)shm_size;
    return -ENOTSUP;
}

int32_t krun_add_display(uint32_t ctx_id, uint32_t width, uint32_t height)
{
    (void)ctx_id;
    (void)width;
    (void)height;
    return -ENOTSUP;
}

int32_t krun_display_set_edid(uint32_t ctx_id, uint32_t display_id, const uint8_t *edid_blob, size_t blob_size)
{
    (void)ctx_id;
    (void)display_id;
    (void)edid_blob;
    (void)blob_size;
    return -ENOTSUP;
}

int32_t krun_display_set_dpi(uint32_t ctx_id, uint32_t display_id, uint32_t dpi)
{
    (void)ctx_id;
    (void)display_id;
    (void)dpi;
    return -ENOTSUP;
}

int32_t krun_display_set_physical_size(uint32_t ctx_id, uint32_t display_id, uint16_t width_mm, uint16_t height_mm)
{
    (void)ctx_id;
    (void)display_id;
    (void)width_mm;
    (void)height_mm;
    return -ENOTSUP;
}

int32_t krun_display_set_refresh_rate(uint32_t ctx_id, uint32_t display_id, uint32_t refresh_rate)
{
    (void)ctx_id;
    (void)display_id;
    (void)refresh_rate;
    return -ENOTSUP;
}

int32_t krun_set_display_backend(uint32_t ctx_id, const void *display_backend, size_t backend_size)
{
    (void)ctx_id;
    (void)display_backend;
    (void)backend_size;
    return -ENOTSUP;
}

int krun_add_input_device(uint32_t ctx_id, const void *config_backend, size_t config_backend_size,
                          const void *events_backend, size_t events_backend_size)
{
    (void)ctx_id;
    (void)config_backend;
    (void)config_backend_size;
    (void)events_backend;
    (void)events_backend_size;
    return -ENOTSUP;
}

int krun_add_input_device_fd(uint32_t ctx_id, int input_fd)
{
    (void)ctx_id;
    (void)input_fd;
    return -ENOTSUP;
}

int32_t krun_add_vhost_user_device(uint32_t ctx_id, uint32_t device_type, const char *socket_path, const char *name,
                                   uint16_t num_queues, const uint16_t *queue_sizes)
{
    (void)ctx_id;
    (void)device_type;
    (void)socket_path;
    (void)name;
    (void)num_queues;
    (void)queue_sizes;
    return -ENOTSUP;
}
