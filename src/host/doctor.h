// SPDX-License-Identifier: Apache-2.0
/* What this host can do for Vial, and what would make it do more. */
#ifndef HOST_DOCTOR_H
#define HOST_DOCTOR_H

#include "host/capacity.h"
#include "host/kernels.h"
#include "host/kvm_probe.h"

enum doctor_status {
    DOCTOR_OK,
    DOCTOR_NOTE, /* missing, but nothing depends on it alone */
    DOCTOR_WARN, /* something works less well, or less safely */
    DOCTOR_FAIL, /* an engine cannot run because of it */
};

enum doctor_check_id {
    CHECK_KVM_DEVICE,
    CHECK_KVM_CAPABILITIES,
    CHECK_KVM_SMOKE,
    CHECK_KVM_NATIVE,
    CHECK_KVM_NESTED,
    CHECK_KERNEL_KVM,
    CHECK_KERNEL_UML,
    CHECK_SHARED_MEMORY,
    CHECK_USER_NAMESPACES,
    CHECK_SECCOMP,
    CHECK_LANDLOCK,
    CHECK_CGROUP,
    CHECK_TUN,
    CHECK_PASST,
    CHECK_MEMORY,
    CHECK_DISK,
    CHECK_COUNT
};

struct doctor_check {
    enum doctor_status status;
    bool was_run; /* false: an earlier failure left nothing to ask */
    char detail[VIAL_ERROR_MESSAGE_SIZE];
    char remedy[VIAL_ERROR_REMEDY_SIZE]; /* "" when there is nothing to do */
};

struct doctor_engine {
    bool is_usable;
    char reason[VIAL_ERROR_MESSAGE_SIZE]; /* why, or why not */
};

struct doctor_report {
    char host_kernel[128];
    struct host_capacity capacity;
    struct kvm_probe kvm;
    struct doctor_check checks[CHECK_COUNT];
    struct doctor_engine engines[HOST_ENGINE_COUNT];
    struct host_path kernels[HOST_ENGINE_COUNT]; /* "" where there is none */
    int auto_engine;                             /* enum host_engine, or -1 */
    char auto_reason[VIAL_ERROR_MESSAGE_SIZE];
    uint64_t elapsed_ns;
};

extern const char *const doctor_check_names[CHECK_COUNT];
extern const char *const doctor_status_names[];

/* Asks everything; takes tens of milliseconds at most and leaves nothing behind. `root` is "" but in tests. */
void doctor_run(const char *root, struct doctor_report *ret_report);

#endif
