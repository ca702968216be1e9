// SPDX-License-Identifier: Apache-2.0
/* A KVM that behaves as badly as a test wants.
 *
 * ioctl is wrapped by the linker (--wrap): while a fake is installed, every ioctl whose request is KVM's goes to it.
 * The device is any file called dev/kvm below a test's root; machines and vCPUs are memfds, so that mapping a vCPU
 * works.
 */
#ifndef FAKE_KVM_H
#define FAKE_KVM_H

#include <stdbool.h>
#include <stdint.h>

struct fake_kvm {
    int api_version;
    int missing_capability;        /* KVM_CAP_*, or -1 */
    unsigned long failing_request; /* an ioctl that fails with failing_errno, or 0 */
    int failing_errno;
    uint32_t exit_reason;      /* what KVM_RUN ends with */
    uint64_t ns_per_iteration; /* how long one turn of the loop takes; 0: as long as here */
    bool never_returns;        /* KVM_RUN waits until a signal interrupts it */
    unsigned sleeps_from_run;  /* so does it from this run on; 0: never */
    unsigned runs;             /* how often KVM_RUN was called */
};

/* A sound KVM, to be made worse. */
extern const struct fake_kvm fake_kvm_sound;

/* Makes `root`/dev/kvm and installs the fake (NULL: takes it away). */
void fake_kvm_install(const char *root, struct fake_kvm *fake);

#endif
