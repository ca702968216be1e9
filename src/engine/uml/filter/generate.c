// SPDX-License-Identifier: Apache-2.0
/* Writes the jail's system-call filter as rows of a C array of struct sock_filter. Runs when Vial is built.
 *
 * The filter holds for all that runs in the jail: the guest's kernel with its threads, and the processes of the guest,
 * in which a stub of the kernel's makes calls for them. What is allowed is what user-mode Linux was seen to call and
 * what its sources (arch/um) show, no more.
 *
 * Everything else is answered by a signal (SECCOMP_RET_TRAP), not by killing at once, and that is no leniency. A
 * process of the guest has a second filter, of user-mode Linux's own, which turns a guest program's system calls into
 * SIGSYS; of two filters' answers the stronger one counts (seccomp(2)), so if ours said KILL, a guest program that
 * calls mount(2) in its own machine would die of it. With TRAP both agree. The guest's kernel has no handler for
 * SIGSYS: it dies of it, and that is how an attempt at something forbidden is seen. Were the kernel taken over and
 * given a handler, it would still not get the call. The same goes for calls of other ABIs (32 bit, x32).
 *
 * Calls that are allowed whatever their arguments are also the fast ones: the host's kernel keeps a bitmap of them and
 * does not run the filter, which saves some 25 ns. In a process of the guest it runs both filters for every call,
 * because the other one looks at the address that the call comes from. A system call of a guest takes 8 us, so rules
 * on arguments may be had where they are worth something.
 *
 * Invariants: (1) no answer is stronger than TRAP. (2) a call whose arguments lie in memory is allowed only if it is
 * harmless with any: a filter cannot look there.
 *
 * Trust: libseccomp, and the headers of the machine that Vial is built on.
 */
#include "base/filter/write.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>

static const char *const allowed[] = {
    /* The guest's kernel at work: signals, waiting, timers. */
    "rt_sigprocmask",
    "rt_sigreturn",
    "poll",
    "epoll_wait",
    "epoll_pwait",
    "read",
    "write",
    "recvmsg",
    "sendmsg",
    "timer_settime",
    "tgkill",
    "rt_tgsigqueueinfo",
    "clock_gettime",
    "gettimeofday",
    "time",
    "sched_yield",
    "restart_syscall",
    "pause",
    "rt_sigsuspend",
    "clock_nanosleep",
    "nanosleep",
    /* Memory. What can be mapped is what can be opened. */
    "munmap",
    "mprotect",
    "madvise",
    "mremap",
    "brk",
    /* Processes of the guest: made, reaped, and what a stub does until its own filter stands. */
    "wait4",
    "close",
    "close_range",
    "dup",
    "dup2",
    "dup3",
    "arch_prctl",
    "sigaltstack",
    "rt_sigaction",
    "exit",
    "exit_group",
    /* Setting up: libc, threads, timers, descriptors of events. */
    "set_robust_list",
    "rseq",
    "set_tid_address",
    "uname",
    "sysinfo",
    "getrandom",
    "timer_create",
    "signalfd4",
    "eventfd2",
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "sched_getaffinity",
    "clock_getres",
    "getpid",
    "gettid",
    "getppid",
    "getpgrp",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    /* The few files of the jail. */
    "newfstatat",
    "fstat",
    "stat",
    "lstat",
    "statfs",
    "access",
    "readlink",
    "lseek",
    "pread64",
    "pwrite64",
    "readv",
    "writev",
    "getdents64",
    "mkdir",
    "rmdir",
    "unlink",
    /* To the devices. There is nothing else to connect to. */
    "connect",
    NULL,
};

/* Calls that libc or user-mode Linux tries and does without. */
static const struct filter_refusal refused[] = {
    {"clone3", ENOSYS}, /* its flags are in memory, where no filter sees them; libc then uses clone */
    {"execve", EPERM},  /* a reboot: the kernel would execute itself again, says so, and ends */
    {"ptrace", EPERM},  /* by which the kernel makes sure of the end of its processes, having killed them */
    {"setsid", EPERM},  /* it leads a session already */
    {"setrlimit", EPERM}, {.name = NULL},
};

enum {
    open_is_making = O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY),
    memfd_of_stub = 0x0001 | 0x0002 | 0x0010, /* MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_EXEC */
    futex_command = 0x7fffffff & ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME),
    set_mode_filter = 1, /* SECCOMP_SET_MODE_FILTER */
    filter_tsync = 1,    /* SECCOMP_FILTER_FLAG_TSYNC */
    libc_thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
                  CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID,
    musl_thread = libc_thread | CLONE_DETACHED,
};

static const struct filter_rule rules[] = {
    /* Waiting and waking, private or not, by any clock. What else futexes can do (priority inheritance, requeueing) has
     * been a way into the host's kernel before, and user-mode Linux does not use it. It costs a tenth of a call. */
    {"futex", 1, {{1, futex_command, FUTEX_WAIT}}},
    {"futex", 1, {{1, futex_command, FUTEX_WAKE}}},
    {"futex", 1, {{1, futex_command, FUTEX_WAIT_BITSET}}},
    {"futex", 1, {{1, futex_command, FUTEX_WAKE_BITSET}}},
    /* Not from the host's pool of huge pages, which no limit of ours covers. */
    {"mmap", 1, {{3, MAP_HUGETLB, 0}}},
    /* Nothing is made but the memory's file and notes in /run, and nothing is ever shortened: the VMM has the guest's
     * memory mapped, and would die of the missing end. There is no truncate and no ftruncate. */
    {"openat", 1, {{2, open_is_making, 0}}},
    {"openat", 1, {{2, open_is_making | O_EXCL, O_CREAT | O_EXCL}}},
    {"openat", 1, {{2, 0, O_RDWR | O_EXCL | O_CLOEXEC | O_TMPFILE}}},
    {"memfd_create", 1, {{1, 0, memfd_of_stub}}},
    {"socket", 3, {{0, 0, AF_UNIX}, {1, 0, SOCK_STREAM}, {2, 0, 0}}},
    {"socketpair", 3, {{0, 0, AF_UNIX}, {1, 0, SOCK_STREAM}, {2, 0, 0}}},
    {"socketpair", 3, {{0, 0, AF_UNIX}, {1, 0, SOCK_DGRAM}, {2, 0, 0}}},
    /* Threads, processes of the guest, and a trial of those when it starts. */
    {"clone", 1, {{0, 0, libc_thread}}},
    {"clone", 1, {{0, 0, musl_thread}}},
    {"clone", 1, {{0, 0, CLONE_VM | CLONE_VFORK | SIGCHLD}}},
    {"clone", 1, {{0, 0, CLONE_VM | CLONE_VFORK}}},
    /* By descriptor: the kernel's stub program. */
    {"execveat", 1, {{4, 0, AT_EMPTY_PATH}}},
    /* Its death signal may be set again, never taken away. */
    {"prctl", 2, {{0, 0, PR_SET_PDEATHSIG}, {1, 0, SIGKILL}}},
    {"prctl", 2, {{0, 0, PR_SET_NO_NEW_PRIVS}, {1, 0, 1}}},
    {"prctl", 1, {{0, 0, PR_SET_NAME}}},
    {"seccomp", 2, {{0, 0, set_mode_filter}, {1, 0, filter_tsync}}},
    {"personality", 1, {{0, 0, PER_LINUX | ADDR_NO_RANDOMIZE}}},
    {"fcntl", 1, {{1, 0, F_DUPFD}}},
    {"fcntl", 1, {{1, 0, F_DUPFD_CLOEXEC}}},
    {"fcntl", 1, {{1, 0, F_GETFD}}},
    {"fcntl", 1, {{1, 0, F_SETFD}}},
    {"fcntl", 1, {{1, 0, F_GETFL}}},
    {"fcntl", 1, {{1, 0, F_SETFL}}},
    {"fcntl", 1, {{1, 0, F_SETOWN}}},
    {"fcntl", 1, {{1, 0, F_SETSIG}}},
    {"fcntl", 1, {{1, 0, F_ADD_SEALS}}},
    /* "Is this a terminal?", and how large. It is none. */
    {"ioctl", 1, {{1, 0, TCGETS}}},
    {"ioctl", 1, {{1, 0, TIOCGWINSZ}}},
    {.name = NULL},
};

static const struct filter_value values[] = {
    /* A panicking kernel aborts itself in a loop until that fails, and then exits with 127 (arch/um, uml_abort). The
     * first process of a PID namespace does not die of its own SIGABRT, so it has to fail. */
    {"kill", 1, FILTER_REFUSED, SIGABRT},
    /* Limits are asked for, not changed: a lower one for dumps would hand them to the host's handler (core(5)). */
    {"prlimit64", 2, FILTER_ALLOWED, 0},
    {.name = NULL},
};

int main(void)
{
    static const struct filter_group jail = {
        .allowed = allowed,
        .refused = refused,
        .rules = rules,
        .values = values,
    };
    const struct filter_group *const groups[] = {&jail, NULL};
    filter_write(groups);
    return 0;
}
