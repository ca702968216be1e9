// SPDX-License-Identifier: Apache-2.0
/* What the programs of this folder share. */
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tool_check(int result, const struct vial_error *err)
{
    if (result == 0)
        return;
    fprintf(stderr, "%s: %s\n  -> %s\n", err->field, err->message, err->remedy);
    exit(125);
}

struct vial_vm_config *tool_configure(const char *engine, const char *initramfs, uint64_t memory_mib,
                                      const char *const *command)
{
    struct vial_machine_options machine = VIAL_MACHINE_OPTIONS_INIT;
    struct vial_kernel_options kernel = VIAL_KERNEL_OPTIONS_INIT;
    struct vial_exec_options exec = VIAL_EXEC_OPTIONS_INIT;
    struct vial_vm_config *config = NULL;
    struct vial_error err = {0};
    machine.engine = strcmp(engine, "kvm") == 0 ? VIAL_ENGINE_KVM : VIAL_ENGINE_UML;
    machine.memory_mib = memory_mib;
    machine.balloon_stats_interval_ms = 200;
    machine.insecure_no_jail = getenv("VIAL_TEST_NO_JAIL") != NULL;
    kernel.initramfs = initramfs;
    exec.path = command[0];
    exec.args = command + 1;
    tool_check(vial_vm_config_new(&config, &err), &err);
    tool_check(vial_vm_config_set_machine(config, &machine, &err), &err);
    tool_check(vial_vm_config_set_kernel(config, &kernel, &err), &err);
    tool_check(vial_vm_config_set_exec(config, &exec, &err), &err);
    return config;
}

struct vial_vm *tool_start(struct vial_vm_config *config)
{
    struct vial_vm *vm = NULL;
    struct vial_error err = {0};
    tool_check(vial_vm_start(config, &vm, &err), &err);
    return vm;
}
