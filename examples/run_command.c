// SPDX-License-Identifier: Apache-2.0
/* Runs a command in a guest, on whatever engine this host has, with the streams of this process, and ends as it does.
 *
 *     cc run_command.c $(pkg-config --cflags --libs vial) -o run_command
 *     ./run_command INITRAMFS COMMAND [ARGUMENT]...
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
    struct vial_kernel_options kernel = VIAL_KERNEL_OPTIONS_INIT;
    struct vial_exec_options exec = VIAL_EXEC_OPTIONS_INIT;
    struct vial_engine_info engine = VIAL_ENGINE_INFO_INIT;
    struct vial_exit end = VIAL_EXIT_INIT;
    struct vial_vm_config *config = NULL;
    struct vial_vm *vm = NULL;
    struct vial_error err;
    if (argc < 3) {
        fprintf(stderr, "usage: %s INITRAMFS COMMAND [ARGUMENT]...\n", argv[0]);
        return 125;
    }
    kernel.initramfs = argv[1];
    exec.path = argv[2];
    exec.args = (const char *const *)argv + 3;
    if (vial_vm_config_new(&config, &err) < 0 || vial_vm_config_set_kernel(config, &kernel, &err) < 0 ||
        vial_vm_config_set_exec(config, &exec, &err) < 0 || vial_vm_start(config, &vm, &err) < 0 ||
        vial_vm_get_engine(vm, &engine, &err) < 0)
        return fail(&err);
    vial_vm_config_free(config); /* the machine has its own reference */
    if (vial_vm_wait(vm, VIAL_WAIT_FOREVER, &end, &err) < 0)
        return fail(&err);
    vial_vm_free(vm);
    if (end.reason == VIAL_EXIT_COMPLETED || (end.reason == VIAL_EXIT_FAILED && end.code != 0 && end.code != 127))
        return end.code;
    fprintf(stderr, "engine %s: %s: %s\n", vial_engine_name(engine.engine), vial_exit_reason_name(end.reason),
            end.detail);
    return end.code != 0 ? end.code : 125;
}
