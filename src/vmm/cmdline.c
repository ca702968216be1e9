// SPDX-License-Identifier: Apache-2.0
/* The command line that a machine gives its kernel.
 *
 * What stands first are defaults of ours, then what the user appended, which may therefore contradict them, then, on
 * KVM, the devices, unless ACPI tells of them: a kernel would find each of them twice. User-mode Linux is told of its
 * devices, its memory and its CPUs by its engine, in front of all this.
 *
 *     reboot=k,panic_warm panic=-1   a reset ends the machine; a panic resets at once, as a warm start, by which the
 *                                    machine tells the two apart (vm.c)
 *     console=…                      the virtio console, or the first serial port
 *     8250.nr_uarts=N                as many serial ports as there are: each one that is looked for costs exits
 *     swiotlb=noforce                no bounce buffers: virtio devices reach all of memory
 *     root=…, rootfstype=virtiofs    a root of the host's, by its tag; an initramfs's init mounts it itself
 *     rootflags=dax=always           with a DAX window: the driver would use it only where it is told to
 *     VIAL_EXEC=1                    init is to mount something, or to run a program (exec.h)
 *     tsi_hijack, tsi_hijack_unix    sockets of programs are the host's (device/vsock/tsi.h), where the kernel can
 *     -- …                           arguments of an init that is not spoken to otherwise, behind all else
 *     quiet                          a line on a console costs more than most of what it tells; loglevel=7 brings them
 *
 * Invariants: (1) every word passes cmdline.c, which owns length and quoting.
 *
 * Trust: the user's text was checked by validate.c.
 */
#include "vmm/vm.h"

#include "boot/cmdline.h"
#include "vmm/exec.h"

#include <stdio.h>

static void add_pc_words(const struct vial_vm *vm, struct cmdline *line)
{
    char serials[4];
    snprintf(serials, sizeof(serials), "%zu", vm->config->serial_count);
    cmdline_add_value(line, "reboot", "k,panic_warm");
    cmdline_add_value(line, "8250.nr_uarts", serials);
    if (memory_region_count(vm->memory) > 1)
        cmdline_add_value(line, "swiotlb", "noforce");
}

static void add_root(const struct fs_config *root, struct cmdline *line)
{
    cmdline_add_value(line, "root", root->tag);
    cmdline_add_value(line, "rootfstype", "virtiofs");
    cmdline_add_word(line, root->read_only || root->throw_away ? "ro" : "rw");
    if (root->dax_window_mib > 0)
        cmdline_add_value(line, "rootflags", CONFIG_DAX_OPTION);
}

int vm_cmdline(const struct vial_vm *vm, char **ret_text, struct vial_error *err)
{
    struct cmdline line = CMDLINE_INIT;
    const struct vial_vm_config *config = vm->config;
    const struct kernel_config *kernel = &config->kernel;
    bool is_pc = vm->engine == &vm_on_kvm;
    cmdline_add_value(&line, "panic", "-1");
    cmdline_add_word(&line, "quiet");
    if (is_pc)
        add_pc_words(vm, &line);
    if (config->serial_count > 0)
        cmdline_add_value(&line, "console", "ttyS0");
    else if (vm->console != NULL)
        cmdline_add_value(&line, "console", "hvc0");
    if (config->root_kind != ROOT_NONE && kernel->initramfs == NULL)
        add_root(&config->root, &line);
    if (config_init(config) != NULL)
        cmdline_add_value(&line, kernel->initramfs != NULL ? "rdinit" : "init", config_init(config));
    if (vm->exec != NULL)
        cmdline_add_value(&line, EXEC_CMDLINE_KEY, EXEC_CMDLINE_VALUE);
    if (config->machine.inet_hijack)
        cmdline_add_word(&line, "tsi_hijack");
    if (config->tsi_hijacks_unix)
        cmdline_add_word(&line, "tsi_hijack_unix");
    if (kernel->cmdline != NULL)
        cmdline_add_text(&line, kernel->cmdline);
    for (size_t i = 0; i < vm->device_count && is_pc && !vm->has_acpi; i++)
        cmdline_add_device(&line, vm->devices[i].address, MMIO_BYTES, vm->devices[i].pin);
    if (kernel->arguments != NULL) {
        cmdline_add_word(&line, "--"); /* from here on the kernel reads nothing itself */
        cmdline_add_text(&line, kernel->arguments);
    }
    return cmdline_finish(&line, ret_text, err);
}
