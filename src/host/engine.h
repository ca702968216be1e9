// SPDX-License-Identifier: Apache-2.0
/* Which engine suits this host. */
#ifndef HOST_ENGINE_H
#define HOST_ENGINE_H

#include "host/kernels.h"
#include "host/kvm_probe.h"

struct host_engine_choice {
    enum host_engine engine;
    char reason[VIAL_ERROR_MESSAGE_SIZE]; /* why this one */
};

/* KVM where it runs guests natively, else user-mode Linux, which runs everywhere. Microseconds where there is no KVM or
 * no hardware for it, else as long as kvm_probe_run. `root` is "" but in tests. */
void host_engine_choose(const char *root, struct host_engine_choice *ret_choice);

/* The same from what is known of KVM. */
void host_engine_judge(const char *root, const struct kvm_probe *probe, struct host_engine_choice *ret_choice);

#endif
