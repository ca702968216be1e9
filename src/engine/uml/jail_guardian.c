// SPDX-License-Identifier: Apache-2.0
/* The process between the embedding program and the jail: it makes the jail's first process, and sees its end.
 *
 * A process that executes a program becomes its parent's ordinary child, whatever it was made as (execve(2) sets its
 * exit signal to SIGCHLD), so the embedding program would get a SIGCHLD that it does not expect, and its wait() our
 * child's status. The guardian executes nothing. It is a clone without an exit signal, invisible to both, and the first
 * process of the jail is its child.
 *
 * It also is the second of two ways in which the jail ends with us. The first is the child's own death signal. Whoever
 * has taken over the guest's kernel can lose that: exec by a second thread leaves that thread's, which is none. So the
 * guardian, which is outside and cannot be reached from the jail, has one for itself: when the thread that made it
 * dies, however it dies, it kills the child.
 *
 *     guardian:  makes the child ──> waits for a signal ──> SIGCHLD: ends what is left, notes how it ended, ends
 *                                                      └──> signal 63 (our thread died): kills it, as above
 *
 * It shares our memory and descriptors, so it costs a stack of some pages and no copy of anything, keeps nothing open
 * that we have closed, and can leave pid and end where we find them. It is no thread: SIGKILL to our process does not
 * reach it. It shares the calling thread's thread-local storage, too, errno in it; so it uses none: its system calls
 * are made by the instruction. Its session is its own, so that a signal to our process group does not reach it.
 *
 * Whoever takes over a thread of ours can write to its stack. So it gives up what it does not need as soon as it has
 * made the child, which takes everything: all capabilities but the one to kill, and all system calls but six
 * (filter/guardian.c). Where the host has no filters, the jail is refused or its lack was accepted.
 *
 * What it cannot help: the host's out-of-memory killer takes all processes that share memory. If that ends us and the
 * guardian at once, and the child has shed its own death signal before, the jail stays, jailed, until somebody ends it.
 *
 * Invariants: (1) the guardian outlives its child, unless somebody kills it. (2) it never touches thread-local storage
 * and takes no lock. (3) its stack is unmapped only after it was reaped.
 *
 * Trust: the child may do what it likes; it can neither signal nor trace the guardian.
 */
#include "engine/uml/jail_guardian.h"

#include "base/alloc.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    stack_bytes = 64 << 10,
    parent_died = 63, /* the guardian's death signal: one that nobody sends to a whole service, as SIGTERM is */
};

struct jail_guardian {
    /* For the guardian. */
    const struct jail_plan *plan; /* borrowed until the child has executed its program */
    unsigned long namespaces;
    int cgroup_fd;
    pid_t parent;
    /* From the guardian. The host's kernel writes the first two before the child runs. */
    pid_t child;
    int child_pidfd; /* owned */
    int clone_error; /* negative */
    bool is_in_cgroup;
    int end_code, end_status; /* as in siginfo_t; read after has_ended */
    atomic_bool has_ended;
    /* Ours. */
    void *stack; /* owned */
    int pidfd;   /* owned */
};

static struct sock_filter filter_instructions[] = {
#include "engine/uml/filter/guardian.h"
};

/* ---- the guardian's side ---- */

/* Returns -errno, and leaves errno alone. */
static inline long call(long number, long a, long b, long c, long d, long e)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

/* The child's pid, or 0 in the child, or -errno. */
static inline long make_child(struct jail_guardian *guardian)
{
    struct clone_args arguments = {
        .flags = guardian->namespaces | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        .pidfd = (uintptr_t)&guardian->child_pidfd,
        .exit_signal = SIGCHLD,
    };
    if (guardian->cgroup_fd >= 0) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (uint64_t)guardian->cgroup_fd;
    }
    long pid = call(SYS_clone3, (long)&arguments, sizeof(arguments), 0, 0, 0);
    if (pid == -ENOSYS) /* old, or behind a filter that cannot look into the arguments of clone3 */
        return call(SYS_clone, (long)(guardian->namespaces | CLONE_PIDFD | SIGCHLD), 0, (long)&guardian->child_pidfd, 0,
                    0);
    guardian->is_in_cgroup = guardian->cgroup_fd >= 0;
    return pid;
}

/* What it still may is to wait, and to kill: a child with ids of its own, as root. */
static inline void confine(void)
{
    const struct sock_fprog program = {.len = array_length(filter_instructions), .filter = filter_instructions};
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};
    call(SYS_capget, (long)&header, (long)data, 0, 0, 0);
    data[0].permitted = data[0].effective = data[0].effective & CAP_TO_MASK(CAP_KILL);
    data[1].permitted = data[1].effective = 0;
    data[0].inheritable = data[1].inheritable = 0;
    call(SYS_capset, (long)&header, (long)data, 0, 0, 0);
    call(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    call(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, (long)&program, 0, 0);
}

/* Until the child has ended, which is then not yet reaped. What else wakes us means that it must end. */
static inline void wait_for_end_of_child(const struct jail_guardian *guardian, siginfo_t *ret_end)
{
    const uint64_t signals = UINT64_C(1) << (SIGCHLD - 1) | UINT64_C(1) << (parent_died - 1);
    for (;;) {
        long number = call(SYS_rt_sigtimedwait, (long)&signals, 0, 0, sizeof(signals), 0);
        if (number == parent_died)
            call(SYS_pidfd_send_signal, guardian->child_pidfd, SIGKILL, 0, 0, 0);
        ret_end->si_pid = 0; /* stays so while the child lives: SIGCHLD also comes when it stops or goes on */
        long result = call(SYS_waitid, P_PIDFD, guardian->child_pidfd, (long)ret_end, WEXITED | WNOHANG | WNOWAIT, 0);
        if (result == 0 && ret_end->si_pid != 0)
            return;
    }
}

/* In a PID namespace nothing is left by now. Without one, the processes of the guest have become our children, as we
 * are their subreaper, and are still in the program's process group: the filter lets nobody out of it. As long as the
 * child is not reaped, that number is nobody else's. */
static inline void end_group(const struct jail_guardian *guardian)
{
    siginfo_t end;
    call(SYS_kill, -guardian->child, SIGKILL, 0, 0, 0);
    while (call(SYS_waitid, P_PGID, guardian->child, (long)&end, WEXITED | __WALL, 0) == 0)
        ;
}

/* All signals are blocked. No sanitizer: it would look for this stack in the thread's own storage. */
__attribute__((no_sanitize("address", "undefined"))) static int guardian_run(void *user)
{
    struct jail_guardian *guardian = user;
    const struct {
        uint64_t handler, flags, restorer, mask;
    } by_default = {0};
    static const char made = 0;
    /* Where the embedding program ignores SIGCHLD, a child's end would leave no status. */
    call(SYS_rt_sigaction, SIGCHLD, (long)&by_default, 0, sizeof(by_default.mask), 0);
    call(SYS_setsid, 0, 0, 0, 0, 0);
    call(SYS_prctl, PR_SET_NAME, (long)"vial-guardian", 0, 0, 0);
    call(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    call(SYS_prctl, PR_SET_PDEATHSIG, parent_died, 0, 0, 0);
    if (call(SYS_getppid, 0, 0, 0, 0, 0) != guardian->parent) /* it died before it could tell */
        return 0;
    long pid = make_child(guardian);
    if (pid == 0)
        jail_child_run(guardian->plan);
    if (pid < 0) {
        guardian->clone_error = (int)pid;
        return 0;
    }
    guardian->child = (pid_t)pid;
    confine();
    call(SYS_write, guardian->plan->own_end, (long)&made, sizeof(made), 0, 0);
    siginfo_t end;
    wait_for_end_of_child(guardian, &end);
    end_group(guardian);
    guardian->end_code = end.si_code;
    guardian->end_status = end.si_status;
    atomic_store(&guardian->has_ended, true);
    return 0;
}

/* ---- our side ---- */

/* The guardian says that it has made the child, or it ends. */
static int wait_for_child(const struct jail_guardian *guardian)
{
    struct pollfd ready[] = {{.fd = guardian->plan->parent_end, .events = POLLIN},
                             {.fd = guardian->pidfd, .events = POLLIN}};
    char made;
    while (poll(ready, array_length(ready), -1) < 0)
        if (errno != EINTR)
            return -errno;
    if (ready[0].revents == 0)
        return guardian->clone_error < 0 ? guardian->clone_error : -ESRCH;
    return recv(guardian->plan->parent_end, &made, sizeof(made), 0) == sizeof(made) ? 0 : -ESRCH;
}

/* All signals stay blocked until the child has reset its own: it must not run a handler of the embedding program's. */
static int make_guardian(struct jail_guardian *guardian)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int pid = clone(guardian_run, (char *)guardian->stack + stack_bytes, CLONE_VM | CLONE_FILES | CLONE_PIDFD, guardian,
                    &guardian->pidfd);
    int result = pid < 0 ? -errno : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}

int jail_guardian_new(const struct jail_plan *plan, unsigned long namespaces, int cgroup_fd,
                      struct jail_guardian **ret_guardian)
{
    struct jail_guardian *guardian = alloc_zero(sizeof(*guardian));
    if (guardian == NULL)
        return -ENOMEM;
    *guardian = (struct jail_guardian){
        .plan = plan,
        .namespaces = namespaces,
        .cgroup_fd = cgroup_fd,
        .parent = getpid(),
        .child_pidfd = -1,
        .pidfd = -1,
    };
    int result = 0;
    guardian->stack = mmap(NULL, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (guardian->stack == MAP_FAILED)
        result = -errno;
    if (result == 0)
        result = make_guardian(guardian);
    if (result == 0)
        result = wait_for_child(guardian);
    if (result < 0)
        jail_guardian_free(guardian);
    else
        *ret_guardian = guardian;
    return result;
}

pid_t jail_guardian_child(const struct jail_guardian *guardian)
{
    return guardian->child;
}

bool jail_guardian_is_in_cgroup(const struct jail_guardian *guardian)
{
    return guardian->is_in_cgroup;
}

void jail_guardian_kill_child(const struct jail_guardian *guardian)
{
    if (guardian->child_pidfd >= 0)
        syscall(SYS_pidfd_send_signal, guardian->child_pidfd, SIGKILL, NULL, 0);
}

int jail_guardian_pidfd(const struct jail_guardian *guardian)
{
    return guardian->pidfd;
}

int jail_guardian_end(const struct jail_guardian *guardian, struct jail_end *ret_end)
{
    struct pollfd guardian_end = {.fd = guardian->pidfd, .events = POLLIN};
    bool is_over = poll(&guardian_end, 1, 0) > 0; /* first, or the end could come in between */
    if (!atomic_load(&guardian->has_ended))
        return is_over ? -ESRCH : -EAGAIN;
    *ret_end = (struct jail_end){
        .was_killed = guardian->end_code != CLD_EXITED,
        .status = guardian->end_status,
    };
    return 0;
}

static void wait_for_end(int pidfd)
{
    struct pollfd end = {.fd = pidfd, .events = POLLIN};
    while (pidfd >= 0 && poll(&end, 1, -1) < 0 && errno == EINTR)
        ;
}

struct jail_guardian *jail_guardian_free(struct jail_guardian *guardian)
{
    siginfo_t end;
    if (guardian == NULL)
        return NULL;
    jail_guardian_kill_child(guardian);
    if (guardian->pidfd >= 0)
        while (waitid(P_PIDFD, (id_t)guardian->pidfd, &end, WEXITED | __WALL) < 0 && errno == EINTR)
            ;
    wait_for_end(guardian->child_pidfd); /* somebody may have killed the guardian first */
    if (guardian->stack != NULL && guardian->stack != MAP_FAILED)
        munmap(guardian->stack, stack_bytes);
    fd_close(guardian->child_pidfd);
    fd_close(guardian->pidfd);
    free(guardian);
    return NULL;
}
