// SPDX-License-Identifier: Apache-2.0
/* Can KVM run a guest here? Asked of the device itself, in a throwaway machine. */
#ifndef HOST_KVM_PROBE_H
#define HOST_KVM_PROBE_H

#include "vial/base.h"

enum kvm_verdict {
    KVM_NATIVE,           /* runs guests at the CPU's own speed: the only good one */
    KVM_NO_DEVICE,        /* there is no /dev/kvm */
    KVM_NO_ACCESS,        /* it may not be opened */
    KVM_NOT_KVM,          /* it opens or answers in another way than KVM does */
    KVM_LACKS_CAPABILITY, /* something that the engine needs is missing */
    KVM_SETUP_FAILED,     /* the throwaway machine cannot be made */
    KVM_SMOKE_FAILED,     /* it cannot execute HLT */
    KVM_RING0_EMULATED,   /* ring-0 code runs, but one emulated instruction at a time */
};

struct kvm_probe {
    enum kvm_verdict verdict;
    int os_error;         /* the positive errno behind the verdict, or 0 */
    const char *step;     /* the ioctl or capability at fault; NULL when there is none */
    int api_version;      /* 0 when not asked */
    uint32_t exit_reason; /* of the smoke test */
    uint32_t max_vcpus;
    bool has_split_irqchip;
    bool is_measured;           /* the next three are set */
    uint64_t instructions;      /* executed for the measurement */
    uint64_t guest_ns, host_ns; /* the time they took in ring 0 of the guest, and here */
    bool was_cut_short;         /* the guest did not finish them in time: guest_ns is what it had */
    unsigned device_mode;       /* permission bits of the device, where it exists */
    unsigned device_group;
};

/* Never fails: what goes wrong is the verdict. Runs the guest for 12 ms of CPU time at most (more only
 * where this host itself is slow), and leaves nothing. */
void kvm_probe_run(const char *root, struct kvm_probe *ret_probe);

/* Guest time by host time, or 0 when it was not measured. */
double kvm_probe_ratio(const struct kvm_probe *probe);

const char *kvm_verdict_name(enum kvm_verdict verdict);

/* What the verdict means and what to do about it, as an error. 0 for KVM_NATIVE, else the error's -errno. */
int kvm_probe_explain(const char *root, const struct kvm_probe *probe, struct vial_error *err);

/* To be called after an engine failed to create a machine: when KVM itself is the cause, the error becomes that cause;
 * otherwise it stays as it is. Returns the error's -errno. */
int kvm_diagnose_create_failure(const char *root, int result, struct vial_error *err);

#endif
