// SPDX-License-Identifier: Apache-2.0
/* Writes the system-call filter of one kind of thread of a sandbox's process (control, device, files, disk, vcpu,
 * engine, net, tsi) as rows of a C array of struct sock_filter; or, for `names`, the names of all calls. Runs when Vial
 * is built.
 *
 * The lists are what the code calls, as its sources and traces of whole runs show it, and what libc calls beneath it:
 * memory, locks, threads. All kinds share one memory, so whoever has taken over a device's thread may in time have
 * another one act for him. What no list has at all is the wall: executing, tracing, other processes' memory, mounts,
 * namespaces, modules, keys, BPF, performance counters, userfaultfd, raw and other special sockets, executable memory.
 * The difference between the lists is what makes the way there longer. Sockets that are not Unix ones are on the list
 * of tsi alone, which is for machines whose guests are lent the host's network.
 *
 * The answer is SIGSYS, whose handler says which call it was and ends the process (confine.c).
 *
 * io_uring: what a ring does is not seen by filters (seccomp(2)), but by everything else: a ring's files are opened
 * with the credentials and within the Landlock domain of the thread that made it. A disk's ring is made anew whenever a
 * driver resets its device, so its thread keeps the call, and restrictions of the ring itself would bind nobody who can
 * make another; no other kind has it.
 *
 * Placeholders stand for what is known only at run time: FILTER_OWN_PID.
 *
 * Invariants: (1) no answer is stronger than TRAP. (2) a call whose arguments lie in memory is allowed only if it is
 * harmless with any, or if another wall (Landlock, capabilities) decides what it reaches. (3) no kind may make memory
 * executable.
 *
 * Trust: libseccomp, and the headers of the machine that Vial is built on.
 */
#include "base/filter/write.h"
#include "sandbox/filter/placeholder.h"

#include <asm/ioctls.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

enum {
    futex_command = 0x7fffffff & ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME),
    libc_thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
                  CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID,
    libc_signal = 33, /* by which libc reaches its threads; no program can use it */
    fcntl_add_seals = 1033,
    fcntl_get_seals = 1034,
};

/* ---- every kind ---- */

static const char *const everybody[] = {
    "read",
    "write",
    "readv",
    "writev",
    "pread64",
    "pwrite64",
    "close",
    "fstat",
    "lseek",
    /* Memory: mapping and protecting have rules, below. */
    "munmap",
    "mremap",
    "madvise",
    "brk",
    /* Signals of a thread's own, and its end. */
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "exit",
    "exit_group",
    "restart_syscall",
    /* Clocks and what libc asks. */
    "clock_gettime",
    "clock_getres",
    "gettimeofday",
    "time",
    "getpid",
    "gettid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getrandom",
    "getrusage",
    "sched_yield",
    "sched_getaffinity",
    "getcpu",
    "set_robust_list",
    "rseq",
    "uname",
    "sysinfo", /* qsort(3) asks for the memory's size */
    NULL,
};

static const struct filter_rule everybodys_rules[] = {
    {"futex", 1, {{1, futex_command, FUTEX_WAIT}}},
    {"futex", 1, {{1, futex_command, FUTEX_WAKE}}},
    {"futex", 1, {{1, futex_command, FUTEX_WAIT_BITSET}}},
    {"futex", 1, {{1, futex_command, FUTEX_WAKE_BITSET}}},
    {"mmap", 1, {{2, PROT_EXEC, 0}}},
    {"mprotect", 1, {{2, PROT_EXEC, 0}}},
    {"tgkill", 1, {{0, 0, FILTER_OWN_PID}}}, /* abort(3), and waking a vCPU's thread */
    {"prctl", 1, {{0, 0, PR_SET_NAME}}},
    {"prlimit64", 2, {{0, 0, 0}, {2, 0, 0}}},   /* asking for one's own */
    {"newfstatat", 1, {{3, 0, AT_EMPTY_PATH}}}, /* libc's fstat; with another path it tells that there is such a file */
    {.name = NULL},
};

static const struct filter_refusal everybodys_refusals[] = {
    {"clone3", ENOSYS}, /* its flags are in memory, where no filter sees them; libc then uses clone */
    {.name = NULL},
};

static const struct filter_group everybody_has = {
    .allowed = everybody, .rules = everybodys_rules, .refused = everybodys_refusals};

/* ---- an event loop, and streams ---- */

static const char *const loops[] = {
    "epoll_wait",      "epoll_pwait", "epoll_ctl", "epoll_create1", "eventfd2", "timerfd_create",
    "timerfd_settime", "signalfd4",   "poll",      "ppoll",         NULL,
};

static const char *const streams[] = {
    "sendmsg", "recvmsg", "sendto", "recvfrom", "shutdown", "accept4", "sendfile", "getsockopt", "dup", "pipe2", NULL,
};

static const struct filter_rule streams_rules[] = {
    {"fcntl", 1, {{1, 0, F_GETFL}}},
    {"fcntl", 1, {{1, 0, F_SETFL}}},
    {"fcntl", 1, {{1, 0, F_GETFD}}},
    {"fcntl", 1, {{1, 0, F_SETFD}}},
    {"fcntl", 1, {{1, 0, F_DUPFD_CLOEXEC}}},
    {"ioctl", 1, {{1, 0, FIONREAD}}},
    {"ioctl", 1, {{1, 0, TCGETS}}},
    {"ioctl", 1, {{1, 0, TCSETS}}},
    {"ioctl", 1, {{1, 0, TCSETSW}}},
    {"ioctl", 1, {{1, 0, TCSETSF}}},
    {"ioctl", 1, {{1, 0, TIOCGWINSZ}}},
    {"ioctl", 1, {{1, 0, TIOCGPGRP}}},
    {.name = NULL},
};

static const struct filter_group loops_have = {.allowed = loops},
                                 streams_have = {.allowed = streams, .rules = streams_rules};

/* ---- guest memory, as vhost-user and the balloon use it ---- */

static const char *const memory[] = {"memfd_create", "fallocate", "ftruncate", NULL};

static const struct filter_rule memory_rules[] = {
    {"fcntl", 1, {{1, 0, fcntl_add_seals}}},
    {"fcntl", 1, {{1, 0, fcntl_get_seals}}},
    {.name = NULL},
};

static const struct filter_group memory_has = {.allowed = memory, .rules = memory_rules};

/* ---- threads of the same kind ---- */

static const struct filter_rule workers_rules[] = {
    {"clone", 1, {{0, 0, libc_thread}}},
    {"rt_sigaction", 1, {{0, 0, libc_signal}}}, /* with a process's first thread */
    {.name = NULL},
};

static const struct filter_group workers_have = {.rules = workers_rules};

/* ---- files of the host's: where, is Landlock's ---- */

static const char *const files[] = {
    "openat",     "openat2",     "newfstatat",   "statx",           "fstatfs",  "statfs",    "faccessat",
    "faccessat2", "readlink",    "readlinkat",   "getdents64",      "mkdirat",  "unlinkat",  "renameat2",
    "renameat",   "linkat",      "symlinkat",    "fchmod",          "fchmodat", "fchown",    "fchownat",
    "utimensat",  "fsync",       "fdatasync",    "syncfs",          "preadv",   "pwritev",   "preadv2",
    "pwritev2",   "fadvise64",   "getxattr",     "fgetxattr",       "setxattr", "fsetxattr", "listxattr",
    "flistxattr", "removexattr", "fremovexattr", "copy_file_range", "flock",    NULL,
};

static const struct filter_rule files_rules[] = {
    /* Plain files, pipes and sockets. mknod(2) of a device needs a capability, too. */
    {"mknodat", 1, {{2, S_IFMT, S_IFREG}}},
    {"mknodat", 1, {{2, S_IFMT, S_IFIFO}}},
    {"mknodat", 1, {{2, S_IFMT, S_IFSOCK}}},
    {.name = NULL},
};

static const struct filter_group files_have = {.allowed = files, .rules = files_rules};

/* In the name of the guest's users (device/fs/owner.c). What it may become is a matter of capabilities. */
static const char *const owners[] = {"setfsuid", "setfsgid", "capget", "capset", NULL};

static const struct filter_group owners_have = {.allowed = owners};

/* ---- a disk's image, which is open ---- */

static const char *const disks[] = {
    "preadv", "pwritev", "preadv2", "pwritev2", "fsync", "fdatasync", "sync_file_range", "copy_file_range", NULL,
};

static const char *const rings[] = {"io_uring_setup", "io_uring_enter", "io_uring_register", NULL};

static const struct filter_rule disks_rules[] = {
    {"ioctl", 1, {{1, 0, BLKDISCARD}}},  {"ioctl", 1, {{1, 0, BLKZEROOUT}}},  {"ioctl", 1, {{1, 0, BLKSSZGET}}},
    {"fcntl", 1, {{1, 0, F_OFD_SETLK}}}, {"fcntl", 1, {{1, 0, F_OFD_GETLK}}}, {.name = NULL},
};

static const struct filter_group disks_have = {.allowed = disks, .rules = disks_rules}, rings_have = {.allowed = rings};

/* ---- sockets that a device connects to: which, the guest does not say ---- */

static const char *const sockets[] = {
    "connect", "bind", "setsockopt", "getsockname", "getpeername", NULL,
};

/* They are removed by whoever ends the devices. Which call lstat(3) makes is a matter of libc's age (glibc 2.33). */
static const char *const removers[] = {"lstat", "unlink", NULL};

static const struct filter_rule removers_rules[] = {
    {"newfstatat", 1, {{3, 0, AT_SYMLINK_NOFOLLOW}}},
    {.name = NULL},
};

static const struct filter_rule sockets_rules[] = {
    {"socket", 1, {{0, 0, AF_UNIX}}},
    {"ioctl", 1, {{1, 0, TUNSETOFFLOAD}}},
    {"ioctl", 1, {{1, 0, TUNSETQUEUE}}},
    {.name = NULL},
};

static const struct filter_group sockets_have = {.allowed = sockets, .rules = sockets_rules},
                                 removers_have = {.allowed = removers, .rules = removers_rules};

/* ---- and those that a guest's programs are lent ---- */

static const char *const lenders[] = {"listen", NULL};

static const struct filter_rule lenders_rules[] = {
    {"socket", 1, {{0, 0, AF_INET}}},
    {"socket", 1, {{0, 0, AF_INET6}}},
    {.name = NULL},
};

static const struct filter_group lenders_have = {.allowed = lenders, .rules = lenders_rules};

/* ---- vCPUs: the last one to stop ends the machine, with its devices ---- */

static const char *const vcpus[] = {"rt_sigtimedwait", NULL};

static const struct filter_rule vcpus_rules[] = {
    {"ioctl", 1, {{1, 0, KVM_RUN}}},
    {"ioctl", 1, {{1, 0, KVM_GET_REGS}}},
    {"ioctl", 1, {{1, 0, KVM_KVMCLOCK_CTRL}}},
    {"ioctl", 1, {{1, 0, KVM_SET_GSI_ROUTING}}},
    {.name = NULL},
};

static const struct filter_group vcpus_have = {.allowed = vcpus, .rules = vcpus_rules};

/* ---- ending a jail, and stopping it for a while: by descriptors of processes, never by numbers ---- */

static const char *const jailers[] = {
    "waitid",     "unlinkat",          "openat",          "getdents64", "newfstatat",
    "pidfd_open", "pidfd_send_signal", "rt_sigtimedwait", NULL,
};

static const struct filter_group jailers_have = {.allowed = jailers};

/* Where the jail runs (engine/uml/placement.c). Of a process with another id it is a matter of capabilities. */
static const char *const placers[] = {"sched_setaffinity", NULL};

static const struct filter_group placers_have = {.allowed = placers};

/* ---- the process's own loop: relay, logs, database ---- */

static const char *const control[] = {
    "access", "stat",    "lstat",       "open",        "unlink",
    "rename", "mkdir",   "rmdir",       "dup3",        "getcwd",
    "umask",  "accept",  "getpeername", "getsockname", "setsockopt",
    "bind",   "listen",  "chmod",       "ftruncate",   "truncate",
    "utimes", "getppid", "getpgrp",     "getsid",      "clock_nanosleep", /* SQLite, while somebody else writes */
    NULL,
};

static const struct filter_rule control_rules[] = {
    {"socket", 1, {{0, 0, AF_UNIX}}},       {"socketpair", 1, {{0, 0, AF_UNIX}}},
    {"fcntl", 1, {{1, 0, F_SETLK}}}, /* SQLite */
    {"fcntl", 1, {{1, 0, F_SETLKW}}},       {"fcntl", 1, {{1, 0, F_GETLK}}},
    {"fcntl", 1, {{1, 0, F_OFD_SETLK}}},    {"kill", 1, {{0, 0, FILTER_OWN_PID}}},
    {"rt_sigaction", 1, {{0, 0, SIGPIPE}}}, {.name = NULL},
};

static const struct filter_group control_has = {.allowed = control, .rules = control_rules};

/* ---- kinds ---- */

static const struct {
    const char *name;
    const struct filter_group *groups[10];
} kinds[] = {
    {"control", {&everybody_has, &loops_have, &streams_have, &files_have, &workers_have, &jailers_have, &control_has}},
    {"device", {&everybody_has, &loops_have, &streams_have, &memory_has}},
    {"files", {&everybody_has, &loops_have, &streams_have, &memory_has, &files_have, &owners_have, &workers_have}},
    {"disk", {&everybody_has, &loops_have, &streams_have, &memory_has, &disks_have, &rings_have, &workers_have}},
    {"vcpu", {&everybody_has, &loops_have, &streams_have, &memory_has, &disks_have, &vcpus_have, &removers_have}},
    {"engine",
     {&everybody_has, &loops_have, &streams_have, &memory_has, &disks_have, &jailers_have, &placers_have,
      &removers_have}},
    {"net", {&everybody_has, &loops_have, &streams_have, &memory_has, &sockets_have, &removers_have}},
    {"tsi", {&everybody_has, &loops_have, &streams_have, &memory_has, &sockets_have, &removers_have, &lenders_have}},
};

int main(int argc, char *argv[])
{
    if (argc == 2 && strcmp(argv[1], "names") == 0) {
        filter_write_names();
        return 0;
    }
    for (size_t i = 0; argc == 2 && i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(argv[1], kinds[i].name) == 0) {
            filter_write(kinds[i].groups);
            return 0;
        }
    fprintf(stderr, "no such kind of threads\n");
    return 2;
}
