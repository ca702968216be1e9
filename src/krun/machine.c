// SPDX-License-Identifier: Apache-2.0
/* What the machine is: its size, its features, whose it is, and what this build can do.
 *
 * Invariants: (1) a call that fails has changed nothing.
 *
 * Trust: arguments are the embedding program's. What the host can do is the host's word.
 */
#include "krun/context.h"

#include "base/buffer.h"
#include "base/fd.h"
#include "libkrun.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

int32_t krun_set_vm_config(uint32_t ctx_id, uint8_t num_vcpus, uint32_t ram_mib)
{
    if (num_vcpus == 0 || num_vcpus > LIMIT_VCPUS || ram_mib == 0)
        return -EINVAL;
    struct krun_context *context = krun_hold(ctx_id);
    if (context == NULL)
        return -ENOENT;
    context->vcpus = num_vcpus;
    context->memory_mib = ram_mib;
    krun_let_go();
    return 0;
}

int32_t krun_setuid(uint32_t ctx_id, uid_t uid)
{
    struct krun_context *context = krun_hold(ctx_id);
    if (context == NULL)
        return -ENOENT;
    context->has_uid = true;
    context->uid = uid;
    krun_let_go();
    return 0;
}

int32_t krun_setgid(uint32_t ctx_id, gid_t gid)
{
    struct krun_context *context = krun_hold(ctx_id);
    if (context == NULL)
        return -ENOENT;
    context->has_gid = true;
    context->gid = gid;
    krun_let_go();
    return 0;
}

int32_t krun_set_nested_virt(uint32_t ctx_id, bool enabled)
{
    return krun_set_flag(ctx_id, KRUN_MEMBER(nested), enabled);
}

int32_t krun_split_irqchip(uint32_t ctx_id, bool enable)
{
    return krun_set_flag(ctx_id, KRUN_MEMBER(split_irqchip), enable);
}

int32_t krun_check_nested_virt(void)
{
    static const char *const switches[] = {"/sys/module/kvm_intel/parameters/nested",
                                           "/sys/module/kvm_amd/parameters/nested"};
    for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++) {
        auto_buffer struct buffer text = BUFFER_INIT(LIMIT_PROC_FILE_BYTES);
        if (fd_read_file(switches[i], &text) == 0 && text.length > 0 && strchr("1Yy", text.data[0]) != NULL)
            return 1;
    }
    return 0;
}

/* What the engine takes that a machine would get here; KVM may take fewer than we do. */
int32_t krun_get_max_vcpus(void)
{
    auto_close int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int most = kvm < 0 ? 0 : ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    return most > 0 && most < LIMIT_VCPUS ? most : LIMIT_VCPUS;
}

int32_t krun_has_feature(uint64_t feature)
{
    switch (feature) {
    case KRUN_FEATURE_NET:
    case KRUN_FEATURE_BLK:
    case KRUN_FEATURE_INIT_BLOB:
        return 1;
    case KRUN_FEATURE_GPU:
    case KRUN_FEATURE_INPUT:
    case KRUN_FEATURE_TEE:
    case KRUN_FEATURE_AMD_SEV:
    case KRUN_FEATURE_INTEL_TDX:
    case KRUN_FEATURE_AWS_NITRO:
    case KRUN_FEATURE_VIRGL_RESOURCE_MAP2:
        return 0;
    default:
        return -EINVAL;
    }
}
