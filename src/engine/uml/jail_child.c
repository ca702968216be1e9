// SPDX-License-Identifier: Apache-2.0
/* The jail's child, from clone to exec: it puts up walls around itself, then becomes the guest's kernel.
 *
 * It is a copy of one thread of a program that may have many, so any lock of any library may be held for ever: only
 * system calls are made here, on the plan that the parent made before, and on the stack. Calls that libc spreads over
 * all threads of a process (setresuid(2), nptl(7)) are made raw.
 *
 * The steps are a table. Their order matters: ids before files, so that those belong to the program; files before the
 * limits on them; capabilities are given up when nothing needs them any more; the parent's death signal comes after the
 * last change of credentials, which would clear it (PR_SET_PDEATHSIG(2const)); the filter is last, because it forbids
 * most of what comes before it. A step that puts up a wall may fail where the caller can do without; any other failure
 * is reported and ends the child.
 *
 * Invariants: (1) nothing here allocates, locks or runs code of the embedding program. (2) exec is reached only with
 * every needed wall standing. (3) after exec the program has descriptors 0, 1, 2 and no others. (4) when the guardian
 * dies at any moment, so does the child: its death signal is set before it looks whether anybody is left.
 *
 * Trust: the plan is ours. Nothing of the guest's runs before exec.
 */
#include "engine/uml/jail_private.h"

#include "base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/securebits.h>
#include <poll.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Descriptors that are still needed stay above the three that the program will have. */
enum { lowest_kept_fd = 3 };

struct child {
    const struct jail_plan *plan; /* borrowed */
    int channel;                  /* to the parent */
    int report_fd;                /* closed by exec, which is how the parent sees that */
    int program_fd;
    int standard_fds[3];
    struct jail_go go;
    struct jail_report report;
};

static int result_of(long returned)
{
    return returned < 0 ? -errno : 0;
}

/* Reports go into a pipe that is made here, so that nobody else has its end for writing: the channel's ends are in
 * every process that the embedding program has forked meanwhile. The other end goes to the embedding program. */
static int open_reports(struct child *child)
{
    int ends[2];
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    char byte = 0;
    struct iovec span = {&byte, sizeof(byte)};
    struct msghdr message = {
        .msg_iov = &span, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    if (syscall(SYS_pipe2, ends, O_CLOEXEC) < 0)
        return -errno;
    *(int *)(void *)CMSG_DATA(&control.header) = ends[0];
    int result = result_of(syscall(SYS_sendmsg, child->channel, &message, MSG_NOSIGNAL));
    close(ends[0]);
    child->report_fd = ends[1];
    return result;
}

/* The embedding program has written the id maps when it answers. */
static int wait_for_go(struct child *child)
{
    ssize_t got;
    close(child->plan->parent_end); /* or the end of the others would never be seen */
    do
        got = recv(child->channel, &child->go, sizeof(child->go), 0);
    while (got < 0 && errno == EINTR);
    if (got != sizeof(child->go))
        return got < 0 ? -errno : -ESRCH;
    return open_reports(child);
}

/* Handlers and ignored signals of the embedding program mean nothing here. The kernel gave handlers up when it could
 * (CLONE_CLEAR_SIGHAND), what is ignored it never does. */
static int reset_signals(struct child *child)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    (void)child;
    for (int number = 1; number < _NSIG; number++)
        sigaction(number, &action, NULL); /* fails for SIGKILL, SIGSTOP and libc's own two */
    umask(077);
    syscall(SYS_setsid); /* fails only for who leads a session already */
    return 0;
}

/* Duplicates it so that it stays clear of 0, 1 and 2, which are about to be replaced. */
static int keep(int fd, int *ret_fd)
{
    int kept = fcntl(fd, F_DUPFD_CLOEXEC, lowest_kept_fd);
    if (kept < 0)
        return -errno;
    *ret_fd = kept;
    return 0;
}

static int keep_descriptors(struct child *child)
{
    const struct jail_program *program = child->plan->program;
    int wanted[] = {program->stdin_fd, program->stdout_fd, program->stderr_fd};
    int result = keep(child->channel, &child->channel);
    if (result == 0)
        result = keep(child->report_fd, &child->report_fd);
    if (result == 0)
        result = keep(program->fd, &child->program_fd);
    for (size_t i = 0; i < array_length(wanted) && result == 0; i++)
        result = keep(wanted[i], &child->standard_fds[i]);
    return result;
}

static int forbid_new_privileges(struct child *child)
{
    (void)child;
    return result_of(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

/* From here on files that are made belong to the program. Capabilities stay until drop_capabilities: the file system
 * and the limits need them. */
static int take_identity(struct child *child)
{
    if (child->go.changes_ids) {
        prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0); /* without it, files are made with fewer rights */
        int result = result_of(syscall(SYS_setgroups, 0, NULL));
        if (result == 0)
            result = result_of(syscall(SYS_setresgid, child->go.group, child->go.group, child->go.group));
        if (result == 0)
            result = result_of(syscall(SYS_setresuid, child->go.user, child->go.user, child->go.user));
        if (result < 0)
            return result;
    }
    return child->go.is_root ? -EPERM : 0;
}

static int make_root(struct child *child)
{
    return jail_root_make(child->plan);
}

static int fill_root(struct child *child)
{
    return jail_root_fill(child->plan);
}

static int listen_sockets(struct child *child)
{
    enum { backlog = 1 }; /* the kernel connects to each once */
    const struct jail_plan *plan = child->plan;
    for (size_t i = 0; i < plan->socket_count; i++) {
        if (bind(plan->socket_fds[i], (const struct sockaddr *)&plan->addresses[i], sizeof(plan->addresses[i])) < 0 ||
            listen(plan->socket_fds[i], backlog) < 0)
            return -errno;
    }
    return 0;
}

static int seal_root(struct child *child)
{
    return jail_root_seal(child->plan);
}

/* A limit that is lower already stays. */
static int set_limits(struct child *child)
{
    const struct jail_plan *plan = child->plan;
    for (size_t i = 0; i < plan->rlimit_count; i++) {
        struct rlimit limit;
        if (getrlimit(plan->rlimits[i].resource, &limit) < 0)
            return -errno;
        if (limit.rlim_max > plan->rlimits[i].limit)
            limit.rlim_max = plan->rlimits[i].limit;
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(plan->rlimits[i].resource, &limit) < 0)
            return -errno;
    }
    return 0;
}

static int restrict_by_landlock(struct child *child)
{
    return jail_landlock_restrict(child->plan, child->program_fd);
}

/* None is left, none can come back: not by a program's file capabilities, not by being root in a namespace. Who has
 * none to begin with may not lower the bounds, and needs not. */
static int drop_capabilities(struct child *child)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    (void)child;
    for (unsigned long capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
        prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    prctl(PR_SET_SECUREBITS,
          SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED |
              SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED,
          0, 0, 0);
    return result_of(syscall(SYS_capset, &header, none));
}

/* Sets the death signal first, then looks. The other end of the channel is open as long as the guardian or the
 * embedding program lives; whichever is left ends us (jail_guardian.c), and if none is, we see it here. */
static int follow_parent(struct child *child)
{
    struct pollfd parent = {.fd = child->channel, .events = POLLIN};
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        return -errno;
    return poll(&parent, 1, 0) == 0 ? 0 : -ESRCH;
}

/* User-mode Linux wants its addresses not randomised and executes itself again if they are (arch/um, main); here that
 * is done for it, because the filter forbids the second exec. */
static int take_standard(struct child *child)
{
    for (int i = 0; i < 3; i++)
        if (dup2(child->standard_fds[i], i) < 0)
            return -errno;
    if (personality(PER_LINUX | ADDR_NO_RANDOMIZE) < 0)
        return -errno;
    return result_of(syscall(SYS_close_range, lowest_kept_fd, ~0u, CLOSE_RANGE_CLOEXEC));
}

static int install_filter(struct child *child)
{
    (void)child;
    return jail_filter_install();
}

static void send_report(struct child *child)
{
    /* Should this fail, the parent is gone, or reads the end of the channel and no report. */
    ssize_t sent = child->report_fd < 0 ? -1 : write(child->report_fd, &child->report, sizeof(child->report));
    (void)sent;
}

static int become_program(struct child *child)
{
    const struct jail_program *program = child->plan->program;
    sigset_t none;
    send_report(child);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    return result_of(
        syscall(SYS_execveat, child->program_fd, "", program->arguments, program->environment, AT_EMPTY_PATH));
}

static const struct {
    int wall; /* enum jail_wall, or JAIL_WALLS: it must succeed */
    int (*run)(struct child *child);
} steps[JAIL_STEPS] = {
    [JAIL_STEP_GO] = {JAIL_WALLS, wait_for_go},
    [JAIL_STEP_SIGNALS] = {JAIL_WALLS, reset_signals},
    [JAIL_STEP_DESCRIPTORS] = {JAIL_WALLS, keep_descriptors},
    [JAIL_STEP_NO_NEW_PRIVS] = {JAIL_NO_NEW_PRIVS, forbid_new_privileges},
    [JAIL_STEP_IDENTITY] = {JAIL_UNPRIVILEGED, take_identity},
    [JAIL_STEP_ROOT] = {JAIL_WALLS, make_root},
    [JAIL_STEP_FILES] = {JAIL_WALLS, fill_root},
    [JAIL_STEP_SOCKETS] = {JAIL_WALLS, listen_sockets},
    [JAIL_STEP_READ_ONLY] = {JAIL_WALLS, seal_root},
    [JAIL_STEP_RLIMITS] = {JAIL_RLIMITS, set_limits},
    [JAIL_STEP_LANDLOCK] = {JAIL_LANDLOCK, restrict_by_landlock},
    [JAIL_STEP_CAPABILITIES] = {JAIL_UNPRIVILEGED, drop_capabilities},
    [JAIL_STEP_PARENT] = {JAIL_WALLS, follow_parent},
    [JAIL_STEP_STANDARD] = {JAIL_WALLS, take_standard},
    [JAIL_STEP_SECCOMP] = {JAIL_SECCOMP, install_filter},
    [JAIL_STEP_EXEC] = {JAIL_WALLS, become_program},
};

void jail_child_run(const struct jail_plan *plan)
{
    struct child child = {
        .plan = plan,
        .channel = plan->own_end,
        .report_fd = -1,
        .report.failed_step = JAIL_STEPS,
    };
    for (int step = 0; step < JAIL_STEPS; step++) {
        int wall = steps[step].wall;
        int result = steps[step].run(&child);
        if (result == 0)
            continue;
        if (wall < JAIL_WALLS) {
            child.report.wall_errors[wall] = -result;
            if (!plan->is_needed[wall])
                continue;
        }
        child.report.failed_step = step;
        child.report.os_error = -result;
        break;
    }
    send_report(&child);
    for (;;)
        syscall(SYS_exit_group, 1); /* no exit handlers of the embedding program's */
}
