// SPDX-License-Identifier: Apache-2.0
/* What the tools share that boot the project's kernel inside the emulated KVM host. */
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>

static void check(int result, const struct vial_error *err)
{
    if (result == 0)
        return;
    fprintf(stderr, "%s: %s\n", err->field, err->message);
    exit(125);
}

struct vial_vm_config *tool_configure(const char *initramfs, int serial_fd, const struct vial_machine_options *machine)
{
    struct vial_kernel_options kernel = VIAL_KERNEL_OPTIONS_INIT;
    struct vial_serial_options serial = VIAL_SERIAL_OPTIONS_INIT;
    struct vial_vm_config *config = NULL;
    struct vial_error err = {0};
    kernel.initramfs = initramfs;
    serial.output_fd = serial_fd;
    check(vial_vm_config_new(&config, &err), &err);
    struct vial_machine_options on_kvm = *machine;
    on_kvm.engine = VIAL_ENGINE_KVM; /* an emulated one as well, as these tools are for tests */
    check(vial_vm_config_set_machine(config, &on_kvm, &err), &err);
    check(vial_vm_config_set_kernel(config, &kernel, &err), &err);
    check(vial_vm_config_add_serial(config, &serial, &err), &err);
    return config;
}

struct vial_vm *tool_start(struct vial_vm_config *config, const struct vm_extra *extras, size_t extra_count)
{
    struct vial_vm *vm = NULL;
    struct vial_error err = {0};
    check(vm_start(config, extras, extra_count, &vm, &err), &err);
    return vm;
}
