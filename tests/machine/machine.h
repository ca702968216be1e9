// SPDX-License-Identifier: Apache-2.0
/* A machine for tests: the payload, a serial port that the test reads, and an end. */
#ifndef MACHINE_H
#define MACHINE_H

#include "vmm/vm.h"

struct machine {
    struct vial_vm_config *config; /* owned */
    struct vial_vm *vm;            /* owned */
    int serial_fd;                 /* owned: what the guest writes comes out here */
};

/* Whether there is a KVM at all; without one these tests have nothing to run on. */
bool machine_can_run(void);

/* A configuration that runs the payload of that name, with 64 MiB and no device but an rng. */
bool machine_configure(struct machine *machine, const char *payload);
bool machine_start(struct machine *machine, const struct vm_extra *extras, size_t extra_count);

/* Reads the serial port up to the text's first occurrence, or the end of what comes within 10 s; true if it came. */
bool machine_expect(struct machine *machine, const char *text);

/* Everything that the guest writes until its end, which has this reason. The text lives until the next call. */
const char *machine_finish(struct machine *machine, enum vial_exit_reason reason);
void machine_release(struct machine *machine);

/* Configures, starts and finishes a machine; what it wrote, or NULL when something else happened. */
const char *machine_run(const char *payload, enum vial_exit_reason reason, bool has_split_irqchip);

/* How many entries a folder has, "." and ".." among them. */
unsigned machine_count_entries(const char *folder);

#endif
