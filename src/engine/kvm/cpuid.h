// SPDX-License-Identifier: Apache-2.0
/* What CPUID tells the guest. */
#ifndef ENGINE_KVM_CPUID_H
#define ENGINE_KVM_CPUID_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

enum { CPUID_MOST_ENTRIES = 256 };

struct cpuid_options {
    unsigned vcpus;
    bool hyperthreading;   /* pairs of vCPUs are threads of one core */
    bool nested;           /* show VMX or SVM */
    bool has_tsc_deadline; /* KVM's local APIC has that timer mode */
};

/* Turns what KVM supports (KVM_GET_SUPPORTED_CPUID, with room for CPUID_MOST_ENTRIES) into what vCPU `index` shows, in
 * place. Applied again to its own result for another index, it gives that one's. */
void cpuid_adjust(struct kvm_cpuid2 *cpuid, const struct cpuid_options *options, unsigned index);

#endif
