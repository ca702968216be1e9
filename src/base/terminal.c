// SPDX-License-Identifier: Apache-2.0
/* The user's terminal: raw as long as somebody holds it, and restored whatever becomes of us.
 *
 * A terminal belongs to its user, not to a process: who leaves it raw leaves a shell without echo. Its settings are
 * therefore restored in two ways. When the last holder frees it, we do it. When our process dies with the terminal
 * still raw (SIGKILL, a crash, _exit), its guardian does: a small process of ours that waits for our end on a pidfd,
 * and on nothing else.
 *
 *     terminal_new:   guardian born ──> on its own ──> raw
 *     terminal_free:  restored ──> guardian killed and reaped
 *     we die:         guardian wakes ──> restored, if it is still as we made it ──> guardian ends
 *
 * The guardian is a clone without CLONE_VM and without an exit signal: the embedding program sees no SIGCHLD, and its
 * wait for any child does not find it (wait(2), __WCLONE). It leads a session of its own, so neither a kill of our
 * process group nor the terminal's hangup reaches it; it blocks all signals, and keeps no descriptor but the terminal.
 * It comes from a process with many threads, so it calls only what is async-signal-safe. It dies with a PID namespace
 * whose first process we are; nobody could restore the terminal from there. Its memory is a copy of ours as it was
 * then, of which it keeps what we change later (guest memory is not in it). After an unshare(CLONE_NEWPID) it is the
 * first process of the new namespace, which takes no more once it ends. Without a guardian (a sandbox that forbids
 * clone) the terminal is made raw all the same.
 *
 * Job control: tcsetattr from the background would stop our process by SIGTTOU; blocked, it would change the settings
 * under a shell that reads its next command. So we make a terminal raw only from the foreground, and restore it only if
 * it is still exactly as we made it: a shell that took it over in between has its own idea by then.
 *
 * Terminals are known by their device number, so two descriptors of one terminal count as one.
 *
 * Invariants: (1) a terminal is never raw by our hand without being in the table. (2) the settings that the first
 * holder found are restored once, by the last one. (3) the guardian exists before the terminal is raw, and ends before
 * the last terminal_free returns.
 *
 * Trust: descriptors come from the embedding program; nothing here comes from the guest.
 */
#include "base/terminal.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

struct terminal {
    struct terminal *next; /* in the table */
    unsigned device;       /* its number */
    unsigned holders;
    int fd;          /* owned */
    int guardian_fd; /* owned: a pidfd of its, or -1 without one */
    struct termios before, raw;
};

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static struct terminal *table; /* owned: the process's terminals that we made raw; guarded by the lock */

/* ---- settings; async-signal-safe ---- */

static bool is_as_we_made_it(int fd, const struct termios *raw)
{
    struct termios now;
    return tcgetattr(fd, &now) == 0 && now.c_iflag == raw->c_iflag && now.c_oflag == raw->c_oflag &&
           now.c_lflag == raw->c_lflag;
}

/* At once and not when its output has drained: that may be never. */
static void restore(int fd, const struct termios *before, const struct termios *raw)
{
    if (is_as_we_made_it(fd, raw))
        tcsetattr(fd, TCSANOW, before);
}

/* ---- the guardian ---- */

static void close_from(unsigned first)
{
    struct rlimit limit;
    if (syscall(SYS_close_range, first, UINT_MAX, 0) == 0)
        return;
    /* Linux before 5.9: one by one, as far as programs go in practice. */
    unsigned end = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 65536 ? (unsigned)limit.rlim_cur : 65536;
    for (unsigned fd = first; fd < end; fd++)
        close((int)fd);
}

/* The guardian's whole life. Never returns. */
__attribute__((noreturn)) static void guard(const struct terminal *terminal, int parent_fd, int ready_fd)
{
    uint64_t one = 1;
    /* Out of the way of 0, 1 and 2 first: a program may have closed its own. */
    int parent = fcntl(parent_fd, F_DUPFD, 3), ready = fcntl(ready_fd, F_DUPFD, 3);
    setsid();
    int changed = chdir("/"); /* no folder of the program's is kept */
    (void)changed;
    prctl(PR_SET_NAME, "vial-guardian");
    if (dup2(terminal->fd, 0) == 0 && dup2(parent, 1) == 1 && dup2(ready, 2) == 2) {
        close_from(3);
        ssize_t written = write(2, &one, sizeof(one));
        (void)written; /* the counter was 0 */
        close(2);
        struct pollfd wait = {.fd = 1, .events = POLLIN};
        int count;
        do
            count = poll(&wait, 1, -1);
        while (count == 0 || (count < 0 && errno == EINTR));
        if (count > 0)
            restore(0, &terminal->before, &terminal->raw);
    }
    for (;;)
        syscall(SYS_exit_group, 0); /* the process is ours and has nothing of the program's to clean up */
}

/* Until it has left our process group, as a signal that kills the whole group must not find it there, and closed its
 * copies of the program's descriptors, as the program may close one next for somebody to see it. */
static void await_guardian(int guardian_fd, int ready_fd)
{
    struct pollfd waits[] = {{.fd = ready_fd, .events = POLLIN}, {.fd = guardian_fd, .events = POLLIN}};
    while (poll(waits, array_length(waits), -1) < 0 && errno == EINTR)
        continue;
}

static int start_guardian(struct terminal *terminal)
{
    sigset_t all, before;
    auto_close int ready_fd = eventfd(0, EFD_CLOEXEC);
    if (ready_fd < 0)
        return -errno;
    /* Opened here: after an unshare(CLONE_NEWPID) our number says nothing, or another process, to our children. */
    auto_close int parent_fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (parent_fd < 0)
        return -errno;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    /* No exit signal in the low byte of the flags; no memory shared. */
    long pid = syscall(SYS_clone, CLONE_PIDFD, NULL, &terminal->guardian_fd, NULL, 0);
    if (pid == 0)
        guard(terminal, parent_fd, ready_fd);
    int result = pid < 0 ? -errno : 0;
    if (pid > 0)
        await_guardian(terminal->guardian_fd, ready_fd);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}

static void end_guardian(struct terminal *terminal)
{
    siginfo_t info;
    if (terminal->guardian_fd < 0)
        return;
    syscall(SYS_pidfd_send_signal, terminal->guardian_fd, SIGKILL, NULL, 0);
    while (waitid(P_PIDFD, (id_t)terminal->guardian_fd, &info, WEXITED | __WALL) < 0 && errno == EINTR)
        continue;
    terminal->guardian_fd = fd_close(terminal->guardian_fd);
}

/* ---- holders ---- */

/* With every signal blocked: in the background, SIGTTOU would stop the whole program. */
static int make_raw(const struct terminal *terminal)
{
    sigset_t all, before;
    if (terminal_is_in_background(terminal->fd))
        return -EAGAIN;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = tcsetattr(terminal->fd, TCSANOW, &terminal->raw) < 0 ? -errno : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}

static void destroy(struct terminal *terminal)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    restore(terminal->fd, &terminal->before, &terminal->raw);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    end_guardian(terminal);
    fd_close(terminal->fd);
    free(terminal);
}

static int create(int fd, unsigned device, struct terminal **ret_terminal)
{
    auto_free struct terminal *terminal = alloc_zero(sizeof(*terminal));
    if (terminal == NULL)
        return -ENOMEM;
    if (tcgetattr(fd, &terminal->before) < 0)
        return -errno;
    if (terminal_is_in_background(fd)) /* before a guardian is born for nothing */
        return -EAGAIN;
    terminal->device = device;
    terminal->holders = 1;
    terminal->guardian_fd = -1;
    terminal->raw = terminal->before;
    cfmakeraw(&terminal->raw);
    terminal->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (terminal->fd < 0)
        return -errno;
    int result = start_guardian(terminal);
    if (result < 0)
        log_warn("terminal.no_guardian", LOG_ERRNO(result));
    result = make_raw(terminal);
    if (result < 0) {
        destroy(steal_ptr(terminal));
        return result;
    }
    *ret_terminal = steal_ptr(terminal);
    return 0;
}

static int find_device(int fd, unsigned *ret_device)
{
    struct stat status;
    if (isatty(fd) == 0)
        return -ENOTTY;
    if (ioctl(fd, TIOCGDEV, ret_device) == 0) /* sees through the alias /dev/tty */
        return 0;
    if (fstat(fd, &status) < 0)
        return -errno;
    *ret_device = (unsigned)status.st_rdev;
    return 0;
}

int terminal_new(int fd, struct terminal **ret_terminal)
{
    unsigned device = 0;
    int result = find_device(fd, &device);
    if (result < 0)
        return result;
    pthread_mutex_lock(&table_lock);
    struct terminal *terminal = table;
    while (terminal != NULL && terminal->device != device)
        terminal = terminal->next;
    if (terminal != NULL) {
        terminal->holders++;
    } else {
        result = create(fd, device, &terminal);
        if (result == 0) {
            terminal->next = table;
            table = terminal;
        }
    }
    pthread_mutex_unlock(&table_lock);
    if (result == 0)
        *ret_terminal = terminal;
    return result;
}

struct terminal *terminal_free(struct terminal *terminal)
{
    if (terminal == NULL)
        return NULL;
    pthread_mutex_lock(&table_lock);
    if (--terminal->holders == 0) {
        struct terminal **place = &table;
        while (*place != terminal)
            place = &(*place)->next;
        *place = terminal->next;
        destroy(terminal);
    }
    pthread_mutex_unlock(&table_lock);
    return NULL;
}

int terminal_renew(struct terminal *terminal)
{
    return make_raw(terminal);
}

bool terminal_is_in_background(int fd)
{
    pid_t group = tcgetpgrp(fd);
    return group >= 0 && group != getpgrp();
}

int terminal_read_size(int fd, uint16_t *ret_columns, uint16_t *ret_rows)
{
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) < 0)
        return -errno;
    *ret_columns = size.ws_col;
    *ret_rows = size.ws_row;
    return 0;
}
