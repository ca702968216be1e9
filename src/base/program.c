// SPDX-License-Identifier: Apache-2.0
/* Starting a program from inside somebody else's.
 *
 * That one may have threads, handlers and children of its own, and must notice nothing: no signal, no child in its
 * wait(), no zombie, no lock that a fork has caught in the middle. So nothing is forked. Two clones share our memory,
 * each while its maker waits (CLONE_VFORK), make system calls and touch nothing:
 *
 *     caller ── clone ──> middle ── clone ──> program: signals, session, descriptors, execve
 *        │                  │ <───────────────── it has executed, or failed
 *        │ <── ends ────────┘                    it is init's child from now on
 *        └── has its pidfd
 *
 * The middle shares our descriptors, too, so the pidfd that the kernel makes for the program is one of ours. It has no
 * exit signal, and is seen only by those who wait with __WALL, which we do at once.
 *
 * System calls are made by syscall(2): wrappers of a sanitizer would note in our process what happens in another. errno
 * is the caller's, who waits.
 *
 * Invariants: (1) between clone and execve there is no allocation, no lock and no writing but to the plan, the stack
 * and errno. (2) all signals are blocked until the program's handlers are the default ones. (3) it gets the descriptors
 * that it is given, and no other. (4) whatever comes of it, no child is left.
 *
 * Trust: the caller names the program.
 */
#include "base/program.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { stack_bytes = 32 << 10 };

struct plan {
    const struct program *program;
    int fds[PROGRAM_MOST_FDS]; /* above those that they become: owned */
    char *stacks;              /* two of them */
    int pidfd;                 /* of the program: owned */
    int error;                 /* negative */
};

/* ---- between clone and execve ---- */

static void reset_signals(void)
{
    const struct {
        uint64_t handler, flags, restorer, mask;
    } by_default = {0};
    const uint64_t none = 0;
    for (int number = 1; number < _NSIG; number++)
        syscall(SYS_rt_sigaction, number, &by_default, NULL, sizeof(none)); /* SIGKILL and SIGSTOP are so anyway */
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(none));
}

static int place_descriptors(const struct plan *plan)
{
    size_t count = plan->program->fd_count;
    for (size_t i = 0; i < count; i++)
        if (syscall(SYS_dup3, plan->fds[i], (int)i, 0) < 0)
            return -errno;
    /* Where the kernel has no close_range, the program does it for itself. */
    syscall(SYS_close_range, (unsigned)count, ~0U, 0);
    return 0;
}

__attribute__((no_sanitize("address", "undefined", "thread"))) static int run_program(void *user)
{
    struct plan *plan = user;
    reset_signals();
    syscall(SYS_setsid);
    plan->error = place_descriptors(plan);
    if (plan->error == 0) {
        syscall(SYS_execve, plan->program->path, plan->program->args, plan->program->env);
        plan->error = -errno;
    }
    return 127;
}

__attribute__((no_sanitize("address", "undefined", "thread"))) static int run_middle(void *user)
{
    struct plan *plan = user;
    int pid = clone(run_program, plan->stacks + 2 * stack_bytes, CLONE_VM | CLONE_VFORK | CLONE_PIDFD, plan,
                    &plan->pidfd);
    if (pid < 0)
        plan->error = -errno;
    else if (plan->error < 0) /* it has ended: nobody else will ask for it */
        syscall(SYS_wait4, pid, NULL, __WALL, NULL);
    return 0;
}

/* ---- our side ---- */

static int run_plan(struct plan *plan)
{
    sigset_t all, before;
    plan->stacks = mmap(NULL, 2 * stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (plan->stacks == MAP_FAILED)
        return -errno;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int pid = clone(run_middle, plan->stacks + stack_bytes, CLONE_VM | CLONE_FILES | CLONE_VFORK, plan);
    int result = pid < 0 ? -errno : 0;
    while (pid >= 0 && waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
        ;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    munmap(plan->stacks, 2 * stack_bytes);
    return result == 0 ? plan->error : result;
}

int program_start(const struct program *program, int *ret_pidfd)
{
    struct plan plan = {.program = program, .pidfd = -1};
    size_t count = 0;
    int result = program->fd_count <= PROGRAM_MOST_FDS ? 0 : -EINVAL;
    for (; count < program->fd_count && result == 0; count++) {
        plan.fds[count] = fcntl(program->fds[count], F_DUPFD_CLOEXEC, PROGRAM_MOST_FDS);
        result = plan.fds[count] < 0 ? -errno : 0;
    }
    if (result == 0)
        result = run_plan(&plan);
    for (size_t i = 0; i < count; i++)
        fd_close(plan.fds[i]);
    if (result < 0)
        fd_close(plan.pidfd);
    else
        *ret_pidfd = plan.pidfd;
    return result;
}
