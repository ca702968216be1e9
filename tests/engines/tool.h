/* SPDX-License-Identifier: Apache-2.0 */
/* What the programs of this folder share. They embed the library as any program would: public headers only. */
#ifndef TOOL_H
#define TOOL_H

#include "vial/vmm.h"

#include <stdint.h>

/* A configuration for the engine of that name ("kvm", "uml"), which runs the command by the initramfs's init. Whatever
 * fails in these calls ends the process with 125, after saying why. */
struct vial_vm_config *tool_configure(const char *engine, const char *initramfs, uint64_t memory_mib,
                                      const char *const *command);

struct vial_vm *tool_start(struct vial_vm_config *config);

/* Ends the process with 125, unless the result of that call is 0. */
void tool_check(int result, const struct vial_error *err);

#endif
