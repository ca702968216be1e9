// SPDX-License-Identifier: Apache-2.0
/* A machine on user-mode Linux, put together.
 *
 *     devices ──> command line ──> kernel and initramfs, open ──> engine: a vhost-user server for each device
 *     devices are launched ──> the kernel's process starts in its jail and connects to them
 *
 * The guest's memory is the kernel's own; devices get it from the kernel, through vhost-user, when its drivers begin.
 *
 * Invariants: (1) what is made is in the vm at once, so that its release finds it. (2) the engine lets go of the
 * devices before it calls vm_handle_end, so they can be stopped and freed there.
 *
 * Trust: the configuration was validated, and choose.c has refused what this engine has not.
 */
#include "vmm/vm.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/limits.h"
#include "engine/uml/jail.h"
#include "vmm/check.h"

#include <assert.h>
#include <stdio.h>

static int make_machine(struct vial_vm *vm, const char *cmdline, struct vial_error *err)
{
    const struct machine_config *machine = &vm->config->machine;
    struct virtio_device *devices[LIMIT_DEVICES];
    for (size_t i = 0; i < vm->device_count; i++)
        devices[i] = vm->devices[i].device;
    struct uml_options options = {
        .kernel_fd = vm->images.kernel_fd,
        .kernel_path = vm->images.kernel_path,
        .initramfs_fd = vm->images.initramfs_fd,
        .vcpus = machine->vcpus,
        .memory_bytes = machine->memory_mib << 20,
        .cmdline = cmdline,
        .devices = devices,
        .device_count = vm->device_count,
        .allows_no_jail = machine->insecure_no_jail,
        .on_end = vm_handle_end,
        .user = vm,
    };
    return uml_machine_new(&options, &vm->uml, err);
}

static int refuse_windows(const struct vm_extra *extras, size_t extra_count, struct vial_error *err)
{
    for (size_t i = 0; i < extra_count; i++)
        if (extras[i].window_bytes > 0)
            return refuse(err, VIAL_ERROR_UNSUPPORTED, "machine.engine", "uml", "use kvm",
                          "user-mode Linux has no shared-memory windows");
    return 0;
}

static int assemble(struct vial_vm *vm, const struct vm_extra *extras, size_t extra_count, struct vial_error *err)
{
    auto_free char *cmdline = NULL;
    int result = refuse_windows(extras, extra_count, err);
    if (result == 0)
        result = vm_add_devices(vm, extras, extra_count, err);
    if (result == 0)
        result = vm_cmdline(vm, &cmdline, err);
    if (result == 0)
        result = vm_open_images(&vm->config->kernel, VIAL_ENGINE_UML, &vm->images, err);
    return result == 0 ? make_machine(vm, cmdline, err) : result;
}

static int start(struct vial_vm *vm, struct vial_error *err)
{
    return uml_machine_start(vm->uml, err);
}

static int pause_machine(struct vial_vm *vm)
{
    return uml_machine_pause(vm->uml);
}

static int resume(struct vial_vm *vm)
{
    return uml_machine_resume(vm->uml);
}

static void end(struct vial_vm *vm, enum vial_exit_reason reason, const char *detail)
{
    uml_machine_end(vm->uml, reason, "%s", detail);
}

/* Everything goes at once: where the start has failed, its servers still use the devices. */
static void join(struct vial_vm *vm)
{
    vm->uml = uml_machine_free(vm->uml);
}

static void free_machine(struct vial_vm *vm)
{
    assert(vm->uml == NULL); /* join came before */
    (void)vm;
}

static void describe(const struct vial_vm *vm, struct vial_engine_info *info)
{
    auto_buffer struct buffer text = BUFFER_INIT(VIAL_ENGINE_TEXT_SIZE - 1);
    bool is_whole = uml_machine_walls(vm->uml) != 0;
    info->isolation = is_whole ? VIAL_ISOLATION_JAIL : VIAL_ISOLATION_WEAK;
    uml_machine_describe(vm->uml, &text);
    snprintf(info->details, sizeof(info->details), "%.*s", (int)text.length, text.data != NULL ? text.data : "");
}

const struct vm_engine vm_on_uml = {
    .assemble = assemble,
    .start = start,
    .pause = pause_machine,
    .resume = resume,
    .end = end,
    .join = join,
    .free = free_machine,
    .describe = describe,
};
