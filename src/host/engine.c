// SPDX-License-Identifier: Apache-2.0
/* Which engine suits this host.
 *
 * The whole question is whether KVM runs guests natively; user-mode Linux is the answer to a no. On x86 a KVM that does
 * needs VMX or SVM, which the CPU shows to whoever asks it, so a host without them is judged by one instruction, and
 * the measurement (kvm_probe.c) is left to hosts that have them.
 *
 * Invariants: (1) the reason says what KVM lacks, so that whoever wanted KVM knows what to mend.
 *
 * Trust: the host.
 */
#include "host/engine.h"

#include <cpuid.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

static bool has_hardware(void)
{
    enum { vmx = 1 << 5, svm = 1 << 2 }; /* leaf 1, ECX (Intel SDM 2A); leaf 0x80000001, ECX (AMD APM 3) */
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid(1, &a, &b, &c, &d) == 1 && (c & vmx) != 0)
        return true;
    return __get_cpuid(0x80000001, &a, &b, &c, &d) == 1 && (c & svm) != 0;
}

static void choose_uml(struct host_engine_choice *choice, const char *why)
{
    choice->engine = HOST_ENGINE_UML;
    snprintf(choice->reason, sizeof(choice->reason), "%s", why);
}

void host_engine_judge(const char *root, const struct kvm_probe *probe, struct host_engine_choice *ret_choice)
{
    struct vial_error error = {0};
    if (probe->verdict == KVM_NATIVE) {
        ret_choice->engine = HOST_ENGINE_KVM;
        snprintf(ret_choice->reason, sizeof(ret_choice->reason), "KVM runs guests natively here");
        return;
    }
    kvm_probe_explain(root, probe, &error);
    choose_uml(ret_choice, error.message);
}

void host_engine_choose(const char *root, struct host_engine_choice *ret_choice)
{
    struct kvm_probe probe;
    bool is_there = access(host_path_join(root, "/dev/kvm").text, R_OK | W_OK) == 0;
    if (is_there && !has_hardware()) {
        choose_uml(ret_choice, "there is a KVM, but the CPU has neither VMX nor SVM for it: it can only emulate");
        return;
    }
    kvm_probe_run(root, &probe);
    host_engine_judge(root, &probe, ret_choice);
}
