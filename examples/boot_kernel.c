// SPDX-License-Identifier: Apache-2.0
/* Boots a kernel in this process, with standard input and output as its console, and says how it ended.
 *
 *     cc boot_kernel.c $(pkg-config --cflags --libs vial) -o boot_kernel
 *     ./boot_kernel KERNEL [INITRAMFS [COMMAND-LINE]]
 */
#include <stdio.h>
#include <vial/vmm.h>

static int fail(const struct vial_error *err)
{
    fprintf(stderr, "%s%s%s\n  -> %s\n", err->field, err->field[0] != '\0' ? ": " : "", err->message, err->remedy);
    return 125;
}

int main(int argc, char *argv[])
{
    struct vial_machine_options machine = VIAL_MACHINE_OPTIONS_INIT;
    struct vial_kernel_options kernel = VIAL_KERNEL_OPTIONS_INIT;
    struct vial_serial_options serial = VIAL_SERIAL_OPTIONS_INIT;
    struct vial_exit end = VIAL_EXIT_INIT;
    struct vial_vm_config *config = NULL;
    struct vial_vm *vm = NULL;
    struct vial_error err;
    if (argc < 2) {
        fprintf(stderr, "usage: %s KERNEL [INITRAMFS [COMMAND-LINE]]\n", argv[0]);
        return 125;
    }
    machine.engine = VIAL_ENGINE_KVM; /* user-mode Linux has no serial port, and runs no kernel but its own kind */
    machine.memory_mib = 256;
    kernel.path = argv[1];
    kernel.initramfs = argc > 2 && argv[2][0] != '\0' ? argv[2] : NULL;
    serial.input_fd = 0;
    serial.output_fd = 1;
    if (vial_vm_config_new(&config, &err) < 0 || vial_vm_config_set_machine(config, &machine, &err) < 0 ||
        vial_vm_config_set_kernel(config, &kernel, &err) < 0 || vial_vm_config_add_serial(config, &serial, &err) < 0)
        return fail(&err);
    if (argc > 3 && vial_vm_config_append_cmdline(config, argv[3], &err) < 0)
        return fail(&err);
    if (vial_vm_start(config, &vm, &err) < 0)
        return fail(&err);
    vial_vm_config_free(config); /* the machine has its own reference */
    if (vial_vm_wait(vm, VIAL_WAIT_FOREVER, &end, &err) < 0)
        return fail(&err);
    vial_vm_free(vm);
    fprintf(stderr, "%s: %s\n", vial_exit_reason_name(end.reason), end.detail);
    return end.reason == VIAL_EXIT_COMPLETED || end.reason == VIAL_EXIT_GUEST_RESET ? 0 : 1;
}
