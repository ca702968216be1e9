// SPDX-License-Identifier: Apache-2.0
/* What a verdict on KVM means and what to do about it.
 *
 * Theory: the probe knows what happened; this file knows hosts. It looks at what surrounds the failure (WSL, a
 * container, whose CPU, who may open the device) and picks the one remedy that fits, instead of a list of everything
 * that can ever be wrong.
 *
 * Invariants: (1) every verdict but KVM_NATIVE becomes an error with message and remedy.
 *
 * Trust: files of the kernel; see files.c.
 */
#include "host/kvm_probe.h"

#include "base/error.h"
#include "base/limits.h"
#include "host/files.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static bool text_has(const char *root, const char *path, const char *word)
{
    auto_buffer struct buffer text = BUFFER_INIT(LIMIT_PROC_FILE_BYTES);
    int result = host_file_read(root, path, &text);
    /* cpuinfo of a large host is longer than we read; its first CPUs speak for the rest. */
    return (result == 0 || result == -ENOBUFS) && text.data != NULL && strstr(text.data, word) != NULL;
}

static bool is_wsl(const char *root)
{
    return host_file_exists(root, "/proc/sys/fs/binfmt_misc/WSLInterop") ||
           text_has(root, "/proc/sys/kernel/osrelease", "microsoft");
}

static bool is_container(const char *root)
{
    return host_file_exists(root, "/.dockerenv") || host_file_exists(root, "/run/.containerenv");
}

static const char *missing_remedy(const char *root)
{
    if (is_wsl(root))
        return "this is WSL2: add nestedVirtualization=true below [wsl2] in .wslconfig (Windows 11, or Windows 10 from "
               "build 21390 on) and restart it with wsl --shutdown";
    if (is_container(root))
        return "this is a container: start it with the device (docker run --device /dev/kvm), or use the uml engine";
    if (text_has(root, "/proc/cpuinfo", " vmx"))
        return "load the module (modprobe kvm_intel); if it refuses, enable VT-x in the BIOS; or use the uml engine";
    if (text_has(root, "/proc/cpuinfo", " svm"))
        return "load the module (modprobe kvm_amd); if it refuses, enable SVM in the BIOS; or use the uml engine";
    return "the CPU shows no virtualization: enable VT-x or SVM in the BIOS, or nested virtualization for this machine "
           "at "
           "its cloud provider; or use the uml engine";
}

/* Whether the group of that number is called kvm. Read from the file: the libraries' look-up may ask a network. */
static bool is_group_kvm(const char *root, unsigned group)
{
    char number[16];
    auto_buffer struct buffer text = BUFFER_INIT(LIMIT_PROC_FILE_BYTES);
    if (host_file_read(root, "/etc/group", &text) < 0)
        return false;
    int digits = snprintf(number, sizeof(number), ":%u:", group);
    const char *line = strncmp(text.data, "kvm:", 4) == 0 ? text.data : strstr(text.data, "\nkvm:");
    if (digits < 0 || line == NULL)
        return false;
    line += strlen("kvm:") + (line[0] == '\n') - 1; /* from the colon on: a password, a number, members */
    const char *found = strstr(line, number);
    return found != NULL && memchr(line, '\n', (size_t)(found - line)) == NULL;
}

static const char *access_remedy(const char *root, const struct kvm_probe *probe)
{
    bool is_open_to_group = (probe->device_mode & 0060) == 0060;
    if (is_open_to_group && is_group_kvm(root, probe->device_group))
        return "add this user to the group kvm (usermod -aG kvm USER, as root) and log in again";
    return "let the group kvm in (as root: chgrp kvm /dev/kvm && chmod 0660 /dev/kvm, and usermod -aG kvm USER), then "
           "log "
           "in again";
}

static const char *setup_remedy(int os_error)
{
    switch (os_error) {
    case ENOMEM:
        return "free memory, or raise this process's memory limits";
    case EMFILE:
    case ENFILE:
        return "raise the limit of open files (ulimit -n)";
    case EAGAIN:
        return "raise this user's limit of pending signals (ulimit -i)";
    case EBUSY:
        return "stop the other hypervisor that holds the CPU (VirtualBox, VMware)";
    default:
        return "look at the kernel's log (dmesg | grep -i kvm); or use the uml engine";
    }
}

int kvm_probe_explain(const char *root, const struct kvm_probe *probe, struct vial_error *err)
{
    const char *step = probe->step != NULL ? probe->step : "KVM";
    const char *why = probe->os_error != 0 ? strerrordesc_np(probe->os_error) : "an unexpected answer";
    int result = 0;
    switch (probe->verdict) {
    case KVM_NATIVE:
        return 0;
    case KVM_NO_DEVICE:
        result = probe->step == NULL
                     ? error_set(err, VIAL_ERROR_KVM_MISSING, VIAL_PHASE_HOST, "/dev/kvm does not exist")
                     : error_set(err, VIAL_ERROR_KVM_MISSING, VIAL_PHASE_HOST, "/dev/kvm has no driver behind it: %s",
                                 why);
        error_remedy(err, "%s", missing_remedy(root));
        break;
    case KVM_NO_ACCESS:
        result = error_set(err, VIAL_ERROR_PERMISSION, VIAL_PHASE_HOST, "/dev/kvm may not be opened by this user: %s",
                           why);
        error_remedy(err, "%s", access_remedy(root, probe));
        break;
    case KVM_NOT_KVM:
        result = error_set(err, VIAL_ERROR_KVM_BROKEN, VIAL_PHASE_HOST,
                           "/dev/kvm does not answer as KVM does: %s gives %s", step, why);
        error_remedy(err, "check what is mounted or bound there (ls -l /dev/kvm); KVM has API version 12");
        break;
    case KVM_LACKS_CAPABILITY:
        result = error_set(err, VIAL_ERROR_KVM_BROKEN, VIAL_PHASE_HOST, "this host's KVM has no %s", step);
        error_remedy(err, "run a host kernel from 4.13 on with KVM for x86_64; or use the uml engine");
        break;
    case KVM_SETUP_FAILED:
        result = error_set(err, VIAL_ERROR_KVM_BROKEN, VIAL_PHASE_HOST, "KVM cannot make a machine: %s: %s", step, why);
        error_remedy(err, "%s", setup_remedy(probe->os_error));
        break;
    case KVM_SMOKE_FAILED:
        if (probe->os_error == 0)
            result = error_set(err, VIAL_ERROR_KVM_BROKEN, VIAL_PHASE_HOST,
                               "KVM cannot execute guest code: HLT ended in exit reason %u instead of 5",
                               probe->exit_reason);
        else
            result = error_set(err, VIAL_ERROR_KVM_BROKEN, VIAL_PHASE_HOST, "KVM cannot execute guest code: %s: %s",
                               step, why);
        error_remedy(err,
                     "on a cloud machine enable nested virtualization; look at dmesg | grep -i kvm; or use the uml "
                     "engine");
        break;
    case KVM_RING0_EMULATED:
        result = error_set(
            err, VIAL_ERROR_KVM_EMULATED, VIAL_PHASE_HOST,
            "KVM emulates ring-0 code instead of running it: %llu instructions took %.2f ms, %.0f times as "
            "long as outside%s",
            (unsigned long long)probe->instructions, (double)probe->guest_ns / 1e6, kvm_probe_ratio(probe),
            probe->was_cut_short ? ", and were stopped" : "");
        error_remedy(
            err, "a guest kernel would take minutes to boot: use a machine with hardware virtualization, or the uml "
                 "engine");
        break;
    }
    error_field(err, "kvm");
    error_value(err, "%s", kvm_verdict_name(probe->verdict));
    if (err != NULL)
        err->os_error = probe->os_error;
    return result;
}

int kvm_diagnose_create_failure(const char *root, int result, struct vial_error *err)
{
    struct kvm_probe probe;
    kvm_probe_run(root, &probe);
    /* A KVM that emulates is slow, but it makes machines as well as any: what failed has another cause. */
    bool can_make_machines = probe.verdict == KVM_NATIVE || probe.verdict == KVM_RING0_EMULATED;
    return can_make_machines ? result : kvm_probe_explain(root, &probe, err);
}
