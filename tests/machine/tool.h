// SPDX-License-Identifier: Apache-2.0
/* What the tools share that boot the project's kernel inside the emulated KVM host. */
#ifndef TOOL_H
#define TOOL_H

#include "vmm/vm.h"

/* A configuration with the project's kernel, that initramfs, and a serial console on the descriptor. Ends the process
 * with 125 when it cannot be made. */
struct vial_vm_config *tool_configure(const char *initramfs, int serial_fd, const struct vial_machine_options *machine);

/* Starts it, or ends the process with 125. */
struct vial_vm *tool_start(struct vial_vm_config *config, const struct vm_extra *extras, size_t extra_count);

#endif
