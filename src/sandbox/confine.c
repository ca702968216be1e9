// SPDX-License-Identifier: Apache-2.0
/* The walls of a sandbox's process.
 *
 *     what a taken-over thread could want     what stands before it
 *     files of the host                       Landlock: this sandbox's paths, by kind of thread
 *     to be root                              no capability but those that its kind's work is made of; no_new_privs
 *     another program                         no exec (seccomp), nothing executable (Landlock), no executable memory
 *     other processes                         no ptrace & co, no signal by number (seccomp), signals (Landlock)
 *     the network                             no socket but Unix ones (seccomp), an empty namespace, TCP (Landlock);
 *                                             with TSI the guest is lent the host's network, and no more than IP
 *                                             sockets of the device's thread; with a TAP device the namespace is the
 *                                             host's
 *     the host's kernel                       a list of calls for each kind of thread (seccomp)
 *
 * Capabilities, domains and filters belong to threads. So the process decides first (confine_process), and each thread
 * then does it for itself when it enters its kind: threads of devices and vCPUs before their first own instruction, an
 * engine's when its jail stands, the main thread when the machine has been started. All share one memory, so what a
 * thread has that another lacks is a longer way for who is inside, not a wall; the wall is what none of them has.
 *
 * As root a few capabilities are the work itself. A jail has an id of its own, so to end it takes CAP_KILL (control,
 * engine), to move it to another CPU CAP_SYS_NICE, and to remove its folder or its control group CAP_DAC_OVERRIDE
 * (engine; Landlock says where). A shared folder that the guest writes to is one whose files belong to the guest's
 * users (device/fs/owner.c): CAP_CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETGID, SETUID and SETFCAP
 * (files); one that it only reads takes DAC_READ_SEARCH. trusted.* attributes, which take CAP_SYS_ADMIN, are not worth
 * that. An ordinary user has no capabilities to begin with, and may make no namespaces without a user namespace, in
 * which the owners of shared files could not be told apart: those walls are then missing, and seccomp stands in.
 *
 * A refused call raises SIGSYS, which is told and ends the process; the death of this process ends the jail
 * (jail_guardian.c) and is seen by whoever looks at its lock.
 *
 * Invariants: (1) a thread that cannot put up a wall that the host has does not go on. (2) what the handler of SIGSYS
 * does is async-signal-safe, and within every list. (3) nothing here is undone.
 *
 * Trust: after confine_thread nobody in this process is trusted.
 */
#include "sandbox/confine_private.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/thread.h"
#include "sandbox/filter/placeholder.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

const char *const confine_kind_names[CONFINE_KINDS] = {
    [CONFINE_CONTROL] = "control", [CONFINE_DEVICE] = "device", [CONFINE_VCPU] = "vcpu", [CONFINE_FILES] = "files",
    [CONFINE_DISK] = "disk",       [CONFINE_ENGINE] = "engine", [CONFINE_NET] = "net",   [CONFINE_TSI] = "tsi",
};

static const enum confine_kind kind_of_threads[THREAD_KINDS] = {
    [THREAD_ANY] = CONFINE_KINDS,     [THREAD_CONTROL] = CONFINE_CONTROL, [THREAD_DEVICE] = CONFINE_DEVICE,
    [THREAD_FILES] = CONFINE_FILES,   [THREAD_DISK] = CONFINE_DISK,       [THREAD_VCPU] = CONFINE_VCPU,
    [THREAD_ENGINE] = CONFINE_ENGINE, [THREAD_NET] = CONFINE_NET,         [THREAD_TSI] = CONFINE_TSI,
};

/* What threads put up when they enter their kind. Written by confine_process alone. */
static struct {
    bool has_landlock, has_seccomp;
    struct landlock domains[CONFINE_KINDS]; /* owned */
    uint64_t capabilities[CONFINE_KINDS];   /* kept where they are there */
    void (*on_refusal)(const char *call, enum confine_kind kind);
} walls;

/* ---- what is told ---- */

__attribute__((format(printf, 2, 3))) static void add_word(char text[CONFINE_TEXT_BYTES], const char *format, ...)
{
    size_t length = strlen(text);
    va_list arguments;
    if (length > 0)
        length += (size_t)snprintf(text + length, CONFINE_TEXT_BYTES - length, ", ");
    if (length >= CONFINE_TEXT_BYTES)
        return;
    va_start(arguments, format);
    vsnprintf(text + length, CONFINE_TEXT_BYTES - length, format, arguments);
    va_end(arguments);
}

/* ---- system calls ---- */

static const struct sock_filter control_filter[] = {
#include "sandbox/filter/control.h"
};
static const struct sock_filter device_filter[] = {
#include "sandbox/filter/device.h"
};
static const struct sock_filter files_filter[] = {
#include "sandbox/filter/files.h"
};
static const struct sock_filter disk_filter[] = {
#include "sandbox/filter/disk.h"
};
static const struct sock_filter vcpu_filter[] = {
#include "sandbox/filter/vcpu.h"
};
static const struct sock_filter engine_filter[] = {
#include "sandbox/filter/engine.h"
};
static const struct sock_filter net_filter[] = {
#include "sandbox/filter/net.h"
};
static const struct sock_filter tsi_filter[] = {
#include "sandbox/filter/tsi.h"
};
static const char *const call_names[] = {
#include "sandbox/filter/names.h"
};

#define FILTER(array)                                                                                                  \
    {                                                                                                                  \
        array, array_length(array)                                                                                     \
    }
static const struct {
    const struct sock_filter *instructions;
    size_t count;
} filters[CONFINE_KINDS] = {
    [CONFINE_CONTROL] = FILTER(control_filter), [CONFINE_DEVICE] = FILTER(device_filter),
    [CONFINE_VCPU] = FILTER(vcpu_filter),       [CONFINE_FILES] = FILTER(files_filter),
    [CONFINE_DISK] = FILTER(disk_filter),       [CONFINE_ENGINE] = FILTER(engine_filter),
    [CONFINE_NET] = FILTER(net_filter),         [CONFINE_TSI] = FILTER(tsi_filter),
};

static int install_filter(enum confine_kind kind)
{
    size_t count = filters[kind].count;
    auto_free struct sock_filter *copy = alloc_zero(count * sizeof(*copy));
    if (copy == NULL)
        return -ENOMEM;
    memcpy(copy, filters[kind].instructions, count * sizeof(*copy));
    for (size_t i = 0; i < count; i++)
        if (BPF_CLASS(copy[i].code) == BPF_JMP && copy[i].k == FILTER_OWN_PID)
            copy[i].k = (uint32_t)getpid();
    const struct sock_fprog program = {.len = (unsigned short)count, .filter = copy};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0 ? -errno : 0;
}

static void handle_refusal(int number, siginfo_t *info, void *context)
{
    enum { exit_ours = 125, by_filter = 1 }; /* SYS_SECCOMP, which libc's headers lack */
    const char *call = NULL;
    (void)number;
    (void)context;
    if (info->si_code != by_filter) /* somebody has sent it by hand */
        return;
    if (info->si_arch == AUDIT_ARCH_X86_64 && (unsigned)info->si_syscall < array_length(call_names))
        call = call_names[info->si_syscall];
    if (walls.on_refusal != NULL)
        walls.on_refusal(call != NULL ? call : "of another ABI", kind_of_threads[thread_own_kind()]);
    syscall(SYS_exit_group, exit_ours);
}

void confine_on_refusal(void (*function)(const char *call, enum confine_kind kind))
{
    walls.on_refusal = function;
}

/* A thread that gives back what it had from an arena of its own, and does nothing else. */
static void *shrink_arena(void *user)
{
    enum { pieces = 8, piece_bytes = 100 << 10 }; /* each less than what malloc maps alone, all more than it keeps */
    void *volatile all[pieces];
    (void)user;
    for (int i = 0; i < pieces; i++)
        all[i] = malloc(piece_bytes);
    for (int i = pieces; i > 0; i--)
        free(all[i - 1]);
    return NULL;
}

/* glibc opens files in malloc and free, which a thread's list may not have. It counts the CPUs, in a file below /sys,
 * when a thread makes one arena too many: with a limit of our own it need not. And when the first arena of a thread
 * shrinks, it looks once in /proc whether memory may be overcommitted: so one shrinks now. */
static void settle_malloc(void)
{
    enum { most_arenas = 8 };
    pthread_t thread;
    mallopt(M_ARENA_MAX, most_arenas);
    if (thread_start("malloc", shrink_arena, NULL, &thread) == 0)
        pthread_join(thread, NULL);
}

static int prepare_seccomp(struct confine_report *report, struct vial_error *err)
{
    const uint32_t action = SECCOMP_RET_TRAP;
    const struct sigaction handling = {.sa_sigaction = handle_refusal, .sa_flags = SA_SIGINFO};
    if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) < 0) {
        add_word(report->missing, "seccomp (%s)", strerrordesc_np(errno));
        return 0;
    }
    if (sigaction(SIGSYS, &handling, NULL) < 0)
        return error_set_os(err, VIAL_PHASE_START, errno, "SIGSYS cannot be handled");
    settle_malloc();
    walls.has_seccomp = true;
    add_word(report->standing, "seccomp");
    return 0;
}

/* ---- capabilities ---- */

#define CAPABILITY(number) (UINT64_C(1) << (number))

static const uint64_t capabilities_of_files[] = {
    [CONFINE_FILES_NONE] = 0,
    [CONFINE_FILES_READ] = CAPABILITY(CAP_DAC_READ_SEARCH),
    [CONFINE_FILES_WRITE] = CAPABILITY(CAP_CHOWN) | CAPABILITY(CAP_DAC_OVERRIDE) | CAPABILITY(CAP_DAC_READ_SEARCH) |
                            CAPABILITY(CAP_FOWNER) | CAPABILITY(CAP_FSETID) | CAPABILITY(CAP_SETGID) |
                            CAPABILITY(CAP_SETUID) | CAPABILITY(CAP_SETFCAP),
};

/* This thread's: what it has and may keep. The rest is gone for good. */
static int keep_capabilities(uint64_t kept)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};
    if (syscall(SYS_capget, &header, data) < 0)
        return -errno;
    for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        data[i].permitted &= (uint32_t)(kept >> (32 * i));
        data[i].effective = data[i].permitted;
        data[i].inheritable = 0;
    }
    return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

/* What an exec could give: nothing. Without CAP_SETPCAP the bounding set stays; no_new_privs leaves it no meaning. */
static void close_bounds(void)
{
    for (unsigned capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
            break;
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

static void plan_capabilities(const struct confine_options *options, struct confine_report *report)
{
    uint64_t of_jail = options->has_jail ? CAPABILITY(CAP_KILL) : 0;
    walls.capabilities[CONFINE_CONTROL] = of_jail;
    walls.capabilities[CONFINE_ENGINE] = of_jail | (options->has_jail ? CAPABILITY(CAP_SYS_NICE) : 0);
    if (options->has_jail) /* the folder of a jail without walls is its id's; the first control group is read-only */
        walls.capabilities[CONFINE_ENGINE] |= CAPABILITY(CAP_DAC_OVERRIDE);
    walls.capabilities[CONFINE_FILES] = capabilities_of_files[options->files];
    close_bounds();
    add_word(report->standing, "capabilities");
}

/* ---- namespaces ---- */

static int leave_namespaces(const struct confine_options *options, struct confine_report *report)
{
    static const struct {
        const char *name;
        int flag;
    } namespaces[] = {{"IPC", CLONE_NEWIPC}, {"UTS", CLONE_NEWUTS}, {"network", CLONE_NEWNET}};
    for (size_t i = 0; i < array_length(namespaces); i++) {
        if (namespaces[i].flag == CLONE_NEWNET && options->needs_network)
            add_word(report->missing, "network namespace (the sandbox has a network)");
        else if (unshare(namespaces[i].flag) == 0)
            add_word(report->standing, "%s namespace", namespaces[i].name);
        else if (errno == ENOMEM)
            return -ENOMEM;
        else
            add_word(report->missing, "%s namespace (%s)", namespaces[i].name, strerrordesc_np(errno));
    }
    return 0;
}

/* ---- Landlock ---- */

static int prepare_landlock(const struct confine_options *options, struct confine_report *report,
                            struct vial_error *err)
{
    int abi = landlock_abi();
    if (abi < 0) {
        add_word(report->missing, "Landlock (%s)", strerrordesc_np(-abi));
        return 0;
    }
    int result = confine_make_domains(options, walls.domains, err);
    if (result < 0)
        return result;
    if (options->has_open_jail) {
        walls.domains[CONFINE_ENGINE].fd = fd_close(walls.domains[CONFINE_ENGINE].fd);
        add_word(report->missing, "Landlock of the engine's thread (the jail's folder is the host's)");
    }
    walls.has_landlock = true;
    add_word(report->standing, "Landlock (ABI %d)", abi);
    return 0;
}

/* ---- each thread ---- */

/* In this order: the later walls forbid what puts up the earlier ones. */
static int enter(enum thread_kind thread_kind)
{
    enum confine_kind kind = kind_of_threads[thread_kind];
    if (kind == CONFINE_KINDS)
        return -EINVAL; /* nobody leaves */
    int result = 0;
    if (walls.has_landlock && walls.domains[kind].fd >= 0)
        result = landlock_restrict(&walls.domains[kind]);
    if (result == 0)
        result = keep_capabilities(walls.capabilities[kind]);
    if (result == 0 && walls.has_seccomp)
        result = install_filter(kind);
    return result;
}

int confine_thread(enum confine_kind kind, struct vial_error *err)
{
    enum thread_kind thread_kind = THREAD_ANY;
    for (unsigned i = 0; i < THREAD_KINDS; i++)
        if (kind_of_threads[i] == kind)
            thread_kind = (enum thread_kind)i;
    int result = thread_enter(thread_kind);
    if (result < 0)
        error_set_os(err, VIAL_PHASE_START, result, "the %s thread cannot confine itself", confine_kind_names[kind]);
    return result;
}

/* ---- the process ---- */

int confine_process(const struct confine_options *options, struct confine_report *ret_report, struct vial_error *err)
{
    struct confine_report report = {.standing = "", .missing = ""};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_set_os(err, VIAL_PHASE_START, errno, "no_new_privs cannot be set");
    add_word(report.standing, "no_new_privs");
    int result = leave_namespaces(options, &report);
    if (result < 0)
        return error_no_memory(err, VIAL_PHASE_START);
    for (unsigned kind = 0; kind < CONFINE_KINDS; kind++)
        walls.domains[kind].fd = -1;
    result = prepare_landlock(options, &report, err);
    if (result < 0)
        return result;
    plan_capabilities(options, &report);
    result = prepare_seccomp(&report, err);
    if (result < 0)
        return result;
    thread_on_enter(enter);
    *ret_report = report;
    return 0;
}
