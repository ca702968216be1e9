// SPDX-License-Identifier: Apache-2.0
/* Which engine a machine gets, and whether that engine has what its configuration asks for.
 *
 * A configuration may name the engine; else the host decides (host/engine.c). Only then is it known what cannot be had:
 * user-mode Linux has no serial ports, no ACPI, no CPU features to show, no DAX, and runs no kernel but its own kind.
 *
 * Invariants: (1) what an engine cannot do is refused by field, before anything is made, and the refusal says why it is
 * that engine. (2) nothing on the host changes.
 *
 * Trust: the configuration was validated; `engine` is in range.
 */
#include "vmm/vm.h"

#include "base/alloc.h"
#include "base/thread.h"
#include "host/engine.h"
#include "host/kernels.h"
#include "vmm/check.h"

#include <assert.h>
#include <stdio.h>

const char *vial_engine_name(int engine)
{
    return engine >= VIAL_ENGINE_AUTO && engine <= VIAL_ENGINE_UML ? config_engines[engine] : "unknown";
}

const char *vial_isolation_name(int isolation)
{
    static const char *const names[] = {
        [VIAL_ISOLATION_HARDWARE] = "hardware",
        [VIAL_ISOLATION_JAIL] = "jail",
        [VIAL_ISOLATION_WEAK] = "weak",
    };
    bool is_known = isolation > 0 && (size_t)isolation < array_length(names);
    return is_known ? names[isolation] : "unknown";
}

struct wish {
    bool is_wanted;
    const char *field, *what;
};

static bool has_window(const struct vial_vm_config *config)
{
    bool has_any = false;
    for (size_t i = 0; i < config->fs_count; i++)
        has_any |= config->fs[i].dax_window_mib > 0;
    return has_any;
}

/* What user-mode Linux has not. */
static int refuse_for_uml(const struct vial_vm_config *config, const char *reason, struct vial_error *err)
{
    const struct machine_config *machine = &config->machine;
    const struct wish wishes[] = {
        {machine->hyperthreading, "machine.hyperthreading", "no threads of a core to show"},
        {machine->nested_virtualization, "machine.nested_virtualization", "no VMX or SVM to show"},
        {machine->acpi == VIAL_ACPI_ON, "machine.acpi", "no ACPI"},
        {config->kernel.krunfw != NULL, "kernel.krunfw", "no use for the kernel of a libkrunfw"},
        {config->kernel.format != VIAL_KERNEL_AUTO && config->kernel.format != VIAL_KERNEL_ELF, "kernel.format",
         "no use for a kernel in this format"},
        {config->serial_count > 0, "console.serial", "no serial ports"},
        {config->root.dax_window_mib > 0, "root.dax_window_mib", "no shared memory for DAX"},
        {has_window(config), "fs", "no shared memory for a dax_window_mib"},
        {config_has_tsi(config), machine->inet_hijack ? "machine.inet_hijack" : "tsi.hijack_unix",
         "no TSI, which only kernels such as libkrunfw's have"},
        {config_most_console_ports(config) > LIMIT_UML_CONSOLE_PORTS, "console.ports",
         "no console with more than 31 ports, those of a program's streams among them"},
    };
    for (size_t i = 0; i < array_length(wishes); i++)
        if (wishes[i].is_wanted)
            return refuse(err, VIAL_ERROR_UNSUPPORTED, wishes[i].field, "",
                          "leave it out, or ask for KVM (machine.engine, --engine kvm)",
                          "the machine would run on user-mode Linux (%s), which has %s", reason, wishes[i].what);
    return 0;
}

int vm_choose_engine(const struct vial_vm_config *config, struct vial_engine_info *info, struct vial_error *err)
{
    struct host_engine_choice choice = {.engine = HOST_ENGINE_KVM};
    *info = (struct vial_engine_info)VIAL_ENGINE_INFO_INIT;
    info->engine = config->machine.engine;
    snprintf(info->reason, sizeof(info->reason), "it was asked for");
    if (info->engine == VIAL_ENGINE_AUTO) {
        host_engine_choose("", &choice);
        info->engine = choice.engine == HOST_ENGINE_KVM ? VIAL_ENGINE_KVM : VIAL_ENGINE_UML;
        snprintf(info->reason, sizeof(info->reason), "%s", choice.reason);
    }
    return info->engine == VIAL_ENGINE_UML ? refuse_for_uml(config, info->reason, err) : 0;
}

/* Whoever asks for KVM gets it; what this host's KVM is worth stands in the reason. */
static void doubt_kvm(struct vial_engine_info *info)
{
    struct host_engine_choice choice;
    if (info->engine != VIAL_ENGINE_KVM)
        return;
    host_engine_choose("", &choice);
    if (choice.engine != HOST_ENGINE_KVM)
        snprintf(info->reason, sizeof(info->reason), "it was asked for, but %s", choice.reason);
}

int vial_vm_config_choose_engine(const struct vial_vm_config *config, struct vial_engine_info *ret_info,
                                 struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct vial_engine_info info;
    struct vm_images images = VM_IMAGES_INIT;
    int result = vm_check_result(ret_info, "VIAL_ENGINE_INFO_INIT", err);
    if (result == 0)
        result = vial_vm_config_validate(config, err);
    if (result == 0)
        result = vm_choose_engine(config, &info, err);
    if (result == 0)
        result = vm_open_images(&config->kernel, (enum vial_engine)info.engine, &images, err);
    if (result == 0) {
        vm_name_kernel(&config->kernel, &images, &info);
        doubt_kvm(&info);
        bool may_be_weak = config->machine.insecure_no_jail;
        info.isolation = info.engine == VIAL_ENGINE_KVM ? VIAL_ISOLATION_HARDWARE
                         : may_be_weak                  ? VIAL_ISOLATION_WEAK
                                                        : VIAL_ISOLATION_JAIL;
        vm_give_result(ret_info, &info, sizeof(info));
    }
    vm_close_images(&images);
    return result;
}
