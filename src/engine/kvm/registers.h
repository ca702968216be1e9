// SPDX-License-Identifier: Apache-2.0
/* What a vCPU's registers hold before its first instruction. */
#ifndef ENGINE_KVM_REGISTERS_H
#define ENGINE_KVM_REGISTERS_H

#include "boot/boot.h"

/* Registers of the vCPU that boots. 0 or -errno, and the ioctl that failed. */
int registers_set_entry(int vcpu_fd, const struct boot_entry *entry, const char **ret_step);

/* What every vCPU has: model-specific registers and the FPU as a firmware leaves them. */
int registers_set_common(int vcpu_fd, const char **ret_step);

#endif
