// SPDX-License-Identifier: Apache-2.0
/* The MP table, which tells the guest about its processors and interrupts. */
#ifndef BOOT_MPTABLE_H
#define BOOT_MPTABLE_H

#include "mem/memory.h"

enum { MPTABLE_MOST_PINS = 240 };

/* Writes it at BOOT_MP_TABLE: vCPUs 1 to LIMIT_VCPUS with the APIC ids 0, 1, …, and an IOAPIC of up to
 * MPTABLE_MOST_PINS pins with the next id. 0 or -EFAULT. */
int mptable_write(const struct memory *memory, unsigned vcpus, unsigned pins);

#endif
