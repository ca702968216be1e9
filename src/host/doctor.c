// SPDX-License-Identifier: Apache-2.0
/* What this host can do for Vial, and what would make it do more.
 *
 * One function a question; each tries the thing itself where that is cheap (a user namespace is made, memory is mapped
 * executable), because settings that should allow something often do not. Then the answers become engines: kvm is
 * usable when KVM runs ring-0 code natively; uml when its kernel is there and memory may be mapped shared and
 * executable. `auto` takes the first of the two that is usable.
 *
 * Invariants: (1) no question takes longer than a second, and none leaves a file, process or setting behind. (2) every
 * check that is not OK has a remedy or says why there is none. (3) exactly one thread, no signal handlers.
 *
 * Trust: the host's kernel and the files it writes.
 */
#include "host/doctor.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/text.h"
#include "host/namespaces.h"
#include "host/passt.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

const char *const doctor_check_names[CHECK_COUNT] = {
    [CHECK_KVM_DEVICE] = "kvm-device",
    [CHECK_KVM_CAPABILITIES] = "kvm-capabilities",
    [CHECK_KVM_SMOKE] = "kvm-smoke-test",
    [CHECK_KVM_NATIVE] = "kvm-native",
    [CHECK_KVM_NESTED] = "kvm-nested",
    [CHECK_KERNEL_KVM] = "kernel-kvm",
    [CHECK_KERNEL_UML] = "kernel-uml",
    [CHECK_SHARED_MEMORY] = "shared-memory",
    [CHECK_USER_NAMESPACES] = "user-namespaces",
    [CHECK_SECCOMP] = "seccomp",
    [CHECK_LANDLOCK] = "landlock",
    [CHECK_CGROUP] = "cgroup-v2",
    [CHECK_TUN] = "tun",
    [CHECK_PASST] = "passt",
    [CHECK_MEMORY] = "memory",
    [CHECK_DISK] = "disk",
};

const char *const doctor_status_names[] = {"ok", "note", "warn", "fail"};

__attribute__((format(printf, 5, 6))) static void answer(struct doctor_report *report, enum doctor_check_id id,
                                                         enum doctor_status status, const char *remedy,
                                                         const char *format, ...)
{
    struct doctor_check *check = &report->checks[id];
    check->status = status;
    check->was_run = true;
    va_list arguments;
    va_start(arguments, format);
    char raw[sizeof(check->detail)]; /* a path in it may be anything */
    vsnprintf(raw, sizeof(raw), format, arguments);
    text_escape(check->detail, sizeof(check->detail), raw, strlen(raw), "");
    va_end(arguments);
    snprintf(check->remedy, sizeof(check->remedy), "%s", remedy);
}

/* ---- KVM ---- */

/* Which of the checks a verdict is about; all before it have passed. */
static enum doctor_check_id check_of_verdict(enum kvm_verdict verdict)
{
    switch (verdict) {
    case KVM_NO_DEVICE:
    case KVM_NO_ACCESS:
        return CHECK_KVM_DEVICE;
    case KVM_NOT_KVM:
    case KVM_LACKS_CAPABILITY:
        return CHECK_KVM_CAPABILITIES;
    case KVM_SETUP_FAILED:
    case KVM_SMOKE_FAILED:
        return CHECK_KVM_SMOKE;
    case KVM_NATIVE:
    case KVM_RING0_EMULATED:
        break;
    }
    return CHECK_KVM_NATIVE;
}

static void check_kvm(const char *root, struct doctor_report *report)
{
    struct kvm_probe *probe = &report->kvm;
    kvm_probe_run(root, probe);
    enum doctor_check_id last = check_of_verdict(probe->verdict);
    if (last > CHECK_KVM_DEVICE)
        answer(report, CHECK_KVM_DEVICE, DOCTOR_OK, "", "/dev/kvm opens");
    if (last > CHECK_KVM_CAPABILITIES)
        answer(report, CHECK_KVM_CAPABILITIES, DOCTOR_OK, "", "API version %d, up to %u vCPUs, split irqchip %s",
               probe->api_version, probe->max_vcpus, probe->has_split_irqchip ? "yes" : "no");
    if (last > CHECK_KVM_SMOKE)
        answer(report, CHECK_KVM_SMOKE, DOCTOR_OK, "", "a vCPU executes HLT in a throwaway machine");
    struct vial_error error = {0};
    if (kvm_probe_explain(root, probe, &error) < 0)
        answer(report, last, DOCTOR_FAIL, error.remedy, "%s", error.message);
    else
        answer(report, last, DOCTOR_OK, "",
               "ring-0 code runs natively: %.1f times this process's own time (emulation would "
               "be hundreds)",
               kvm_probe_ratio(probe));
}

static void check_nested(const char *root, struct doctor_report *report)
{
    static const char *const modules[] = {"/sys/module/kvm_intel/parameters/nested",
                                          "/sys/module/kvm_amd/parameters/nested"};
    for (size_t i = 0; i < array_length(modules); i++) {
        auto_buffer struct buffer text = BUFFER_INIT(LIMIT_PROC_FILE_BYTES);
        if (host_file_read(root, modules[i], &text) < 0)
            continue;
        if (text.data[0] == 'Y' || text.data[0] == '1')
            answer(report, CHECK_KVM_NESTED, DOCTOR_OK, "", "guests can have virtualization of their own");
        else
            answer(report, CHECK_KVM_NESTED, DOCTOR_NOTE,
                   "reload the module with nested=1 if guests are to run machines",
                   "guests cannot have virtualization of their own");
        return;
    }
    answer(report, CHECK_KVM_NESTED, DOCTOR_NOTE, "", "the host has no kvm_intel or kvm_amd to offer it with");
}

/* ---- guest kernels ---- */

static void check_kernel(const char *root, enum host_engine engine, enum doctor_check_id id,
                         struct doctor_report *report)
{
    struct host_path path;
    if (host_kernel_find(root, engine, &path)) {
        report->kernels[engine] = path;
        answer(report, id, DOCTOR_OK, "", "%.200s", path.text);
        return;
    }
    bool is_engine = engine == HOST_ENGINE_UML; /* UML's kernel is the engine; KVM takes any */
    answer(report, id, is_engine ? DOCTOR_FAIL : DOCTOR_WARN,
           is_engine ? "build it: kernel/build uml" : "build it (kernel/build kvm-x86_64), or bring a kernel",
           "the project's own kernel for %s is not built", host_engine_names[engine]);
}

/* ---- confinement ---- */

/* A guest's memory is a file in its jail's own tmpfs. Only a guest without one (insecure_no_jail) has it here. */
static void check_shared_memory(const char *root, struct doctor_report *report)
{
    enum { wanted_mib = 64 };
    static const char remedy[] = "remount it with exec (mount -o remount,exec /dev/shm)";
    struct statvfs fs;
    struct host_path folder = host_path_join(root, "/dev/shm");
    auto_close int fd = open(folder.text, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        answer(report, CHECK_SHARED_MEMORY, DOCTOR_WARN, "mount a tmpfs there (mount -t tmpfs tmpfs /dev/shm)",
               "no file can be made in /dev/shm: %s", strerrordesc_np(errno));
        return;
    }
    /* Mapping asks for the permission; nothing is written, so no limit on files or space is met here. */
    void *page = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) {
        answer(report, CHECK_SHARED_MEMORY, DOCTOR_WARN, remedy, "/dev/shm cannot be mapped executable: %s",
               strerrordesc_np(errno));
        return;
    }
    munmap(page, 4096);
    /* A tmpfs without a limit says that it has no blocks at all. */
    if (fstatvfs(fd, &fs) == 0 && fs.f_blocks > 0 && (uint64_t)fs.f_bavail * fs.f_frsize >> 20 < wanted_mib)
        answer(report, CHECK_SHARED_MEMORY, DOCTOR_WARN, "free some of it, or remount it larger (-o remount,size=)",
               "/dev/shm has less than %d MiB free, the least that a guest needs", wanted_mib);
    else
        answer(report, CHECK_SHARED_MEMORY, DOCTOR_OK, "", "/dev/shm can be mapped shared and executable");
}

/* A child that makes a mount namespace, in a user namespace of its own (CLONE_NEWUSER) or not (0), and ends: where
 * AppArmor restricts them, a user namespace is made and then good for nothing. Made without fork's handlers, and
 * without a SIGCHLD for the embedding program to see. */
static int try_namespaces(unsigned long flags)
{
    long child = syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
    if (child == 0)
        syscall(SYS_exit_group, unshare(CLONE_NEWNS) == 0 ? 0 : errno); /* no exit handlers of anybody's */
    if (child < 0)
        return -errno;
    int status = 0;
    pid_t ended;
    while ((ended = waitpid((pid_t)child, &status, __WALL)) < 0 && errno == EINTR)
        ;
    if (ended < 0)
        return -errno;
    return WIFEXITED(status) ? -WEXITSTATUS(status) : -EPERM;
}

static void check_user_namespaces(const char *root, struct doctor_report *report)
{
    int result = try_namespaces(CLONE_NEWUSER);
    if (result == 0) {
        answer(report, CHECK_USER_NAMESPACES, DOCTOR_OK, "", "this user can make user namespaces");
        return;
    }
    bool is_root_enough = try_namespaces(0) == 0; /* the jail of uml can be made without */
    answer(report, CHECK_USER_NAMESPACES, is_root_enough ? DOCTOR_WARN : DOCTOR_FAIL,
           host_user_namespace_remedy(root, -result), "this user cannot make user namespaces: %s%s",
           strerrordesc_np(-result), is_root_enough ? "; as root it can do without" : "");
}

static void check_seccomp(struct doctor_report *report)
{
    unsigned action = SECCOMP_RET_KILL_PROCESS;
    if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0)
        answer(report, CHECK_SECCOMP, DOCTOR_OK, "", "system-call filters can be installed");
    else
        answer(report, CHECK_SECCOMP, DOCTOR_FAIL, "run a host kernel with CONFIG_SECCOMP_FILTER",
               "system-call filters cannot be installed: %s", strerrordesc_np(errno));
}

static void check_landlock(struct doctor_report *report)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi > 0)
        answer(report, CHECK_LANDLOCK, DOCTOR_OK, "", "ABI %ld", abi);
    else
        answer(report, CHECK_LANDLOCK, DOCTOR_WARN, "boot the host with landlock in lsm= (kernel 5.13 or later)",
               "not available: %s", strerrordesc_np(errno));
}

static bool has_word(const char *words, const char *word)
{
    size_t length = strlen(word);
    for (const char *next = words; (next = strstr(next, word)) != NULL; next += length)
        if ((next == words || next[-1] == ' ') && (next[length] == ' ' || next[length] == '\0'))
            return true;
    return false;
}

static void check_cgroup(const char *root, struct doctor_report *report)
{
    struct statfs fs;
    auto_buffer struct buffer controllers = BUFFER_INIT(LIMIT_PROC_FILE_BYTES);
    struct host_path mount = host_path_join(root, "/sys/fs/cgroup");
    if (statfs(mount.text, &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC ||
        host_file_read(root, "/sys/fs/cgroup/cgroup.controllers", &controllers) < 0) {
        answer(report, CHECK_CGROUP, DOCTOR_WARN,
               "boot the host with systemd.unified_cgroup_hierarchy=1, or mount cgroup2",
               "cgroup v2 is not mounted at /sys/fs/cgroup");
        return;
    }
    controllers.data[strcspn(controllers.data, "\n")] = '\0';
    if (has_word(controllers.data, "memory") && has_word(controllers.data, "cpu"))
        answer(report, CHECK_CGROUP, DOCTOR_OK, "", "controllers: %.200s", controllers.data);
    else
        answer(report, CHECK_CGROUP, DOCTOR_WARN,
               "take them away from cgroup v1 (cgroup_no_v1=all when the host boots)",
               "mounted without the cpu and memory controllers; it has: %.200s", controllers.data);
}

static void check_tun(const char *root, struct doctor_report *report)
{
    auto_close int fd = open(host_path_join(root, "/dev/net/tun").text, O_RDWR | O_CLOEXEC);
    if (fd >= 0)
        answer(report, CHECK_TUN, DOCTOR_OK, "", "/dev/net/tun opens");
    else
        answer(report, CHECK_TUN, DOCTOR_NOTE,
               errno == ENOENT ? "load the module (modprobe tun) for TAP networks"
                               : "needed only for TAP networks: allow this user to open it",
               "/dev/net/tun does not open: %s", strerrordesc_np(errno));
}

static void check_passt(const char *root, struct doctor_report *report)
{
    struct host_path path;
    const char *lacks = NULL;
    if (!host_passt_find(root, &path)) {
        answer(report, CHECK_PASST, DOCTOR_NOTE, "install it for --net passt (Debian: apt-get install passt)",
               "not installed");
        return;
    }
    int result = host_passt_ask(path.text, &lacks);
    if (result < 0)
        answer(report, CHECK_PASST, DOCTOR_WARN, "run it with --help by hand, and see why --net passt will fail",
               "%.200s does not print its options: %s", path.text, strerrordesc_np(-result));
    else if (lacks != NULL)
        answer(report, CHECK_PASST, DOCTOR_WARN, "install a newer one for --net passt",
               "%.200s is too old: it has no %s", path.text, lacks);
    else
        answer(report, CHECK_PASST, DOCTOR_OK, "", "%.200s", path.text);
}

/* ---- room ---- */

static void check_memory(struct doctor_report *report)
{
    enum { default_guest_mib = 512 };
    if (report->capacity.memory_mib == HOST_UNKNOWN) {
        answer(report, CHECK_MEMORY, DOCTOR_NOTE, "mount /proc", "cannot be asked: there is no /proc/meminfo");
        return;
    }
    bool is_enough = report->capacity.available_mib >= default_guest_mib;
    answer(report, CHECK_MEMORY, is_enough ? DOCTOR_OK : DOCTOR_WARN,
           is_enough ? "" : "free memory, or give guests less than the default of 512 MiB",
           "%llu of %llu MiB available", (unsigned long long)report->capacity.available_mib,
           (unsigned long long)report->capacity.memory_mib);
}

static void check_disk(const char *root, struct doctor_report *report)
{
    enum { wanted_mib = 1024 };
    const char *home = getenv("HOME"), *folder = home != NULL && home[0] == '/' ? home : "/";
    struct statvfs fs;
    if (statvfs(host_path_join(root, folder).text, &fs) < 0) {
        answer(report, CHECK_DISK, DOCTOR_NOTE, "", "cannot be asked: %s", strerrordesc_np(errno));
        return;
    }
    uint64_t free_mib = (uint64_t)fs.f_bavail * fs.f_frsize >> 20;
    answer(report, CHECK_DISK, free_mib >= wanted_mib ? DOCTOR_OK : DOCTOR_WARN,
           free_mib >= wanted_mib ? "" : "free at least 1 GiB for guest kernels and disks", "%llu MiB free in %.200s",
           (unsigned long long)free_mib, folder);
}

/* ---- engines ---- */

static void judge_engines(struct doctor_report *report)
{
    struct doctor_engine *kvm = &report->engines[HOST_ENGINE_KVM], *uml = &report->engines[HOST_ENGINE_UML];
    const struct doctor_check *kernel = &report->checks[CHECK_KERNEL_UML],
                              *namespaces = &report->checks[CHECK_USER_NAMESPACES],
                              *filters = &report->checks[CHECK_SECCOMP];
    kvm->is_usable = report->kvm.verdict == KVM_NATIVE;
    snprintf(kvm->reason, sizeof(kvm->reason), "%s",
             kvm->is_usable ? "KVM runs guests natively: hardware isolation"
                            : report->checks[check_of_verdict(report->kvm.verdict)].detail);
    uml->is_usable = kernel->status == DOCTOR_OK && namespaces->status < DOCTOR_FAIL && filters->status < DOCTOR_FAIL;
    snprintf(uml->reason, sizeof(uml->reason), "%s",
             uml->is_usable                ? "user-mode Linux: a kernel of its own and a jail, no hardware isolation"
             : kernel->status != DOCTOR_OK ? kernel->detail
             : namespaces->status == DOCTOR_FAIL ? namespaces->detail
                                                 : filters->detail);
    report->auto_engine = kvm->is_usable ? HOST_ENGINE_KVM : uml->is_usable ? HOST_ENGINE_UML : -1;
    snprintf(report->auto_reason, sizeof(report->auto_reason), "%s",
             kvm->is_usable   ? "kvm is usable and isolates best"
             : uml->is_usable ? "kvm is not usable here, uml is"
                              : "no engine can run a guest here");
}

void doctor_run(const char *root, struct doctor_report *ret_report)
{
    uint64_t start_ns = clock_now_ns();
    struct utsname names;
    memset(ret_report, 0, sizeof(*ret_report));
    if (uname(&names) == 0)
        snprintf(ret_report->host_kernel, sizeof(ret_report->host_kernel), "%s", names.release);
    host_capacity_read(root, &ret_report->capacity);
    check_kvm(root, ret_report);
    check_nested(root, ret_report);
    check_kernel(root, HOST_ENGINE_KVM, CHECK_KERNEL_KVM, ret_report);
    check_kernel(root, HOST_ENGINE_UML, CHECK_KERNEL_UML, ret_report);
    check_shared_memory(root, ret_report);
    check_user_namespaces(root, ret_report);
    check_seccomp(ret_report);
    check_landlock(ret_report);
    check_cgroup(root, ret_report);
    check_tun(root, ret_report);
    check_passt(root, ret_report);
    check_memory(ret_report);
    check_disk(root, ret_report);
    judge_engines(ret_report);
    ret_report->elapsed_ns = clock_now_ns() - start_ns;
}
