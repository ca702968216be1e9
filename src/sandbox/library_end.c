// SPDX-License-Identifier: Apache-2.0
/* Seeing a sandbox's process end.
 *
 * A sandbox lives as long as its lock is taken (home.h). The kernel wakes whoever waits for a lock, but that is a
 * system call without a deadline and without a descriptor to poll. So a process waits in our place: it shares our
 * memory and descriptors, makes four system calls and ends, and its end makes its pidfd readable. It is no thread, so
 * it can be killed when the deadline comes; it has no exit signal, so the calling program sees nothing of it; it gives
 * the lock back in the same breath, so a start that comes at once finds it free.
 *
 *     ending_new:  waiter ── F_OFD_SETLKW ──> has it ── F_UNLCK ── ends ──> pidfd readable
 *
 * Invariants: (1) the waiter uses nothing but its stack and the descriptor of the lock, which are released only after
 * it was reaped. (2) a signal goes to a process that is known to be the sandbox's: its command line says so, and its
 * pidfd was there before that was read.
 *
 * Trust: the home's files are its user's; /proc is the kernel's.
 */
#include "sandbox/library_end.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/fd.h"
#include "base/limits.h"
#include "sandbox/home.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { stack_bytes = 16 << 10 };

struct ending {
    int lock;    /* owned */
    int pidfd;   /* owned */
    void *stack; /* owned */
    struct flock wanted, released;
    int maker;
};

/* All signals are blocked. errno is the caller's at best, so nothing here touches it. */
static inline long call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

__attribute__((no_sanitize("address", "undefined", "thread"))) static int run_waiter(void *user)
{
    struct ending *ending = user;
    call(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0);
    if (call(SYS_getppid, 0, 0, 0) != ending->maker) /* killed before that: its descriptors must not stay open here */
        return 0;
    while (call(SYS_fcntl, ending->lock, F_OFD_SETLKW, (long)&ending->wanted) == -EINTR)
        ;
    call(SYS_fcntl, ending->lock, F_OFD_SETLK, (long)&ending->released);
    return 0;
}

static int wait_for_byte(int folder, enum home_byte byte, struct ending **ret_ending)
{
    struct ending *ending = alloc_zero(sizeof(*ending));
    sigset_t all, before;
    if (ending == NULL)
        return -ENOMEM;
    *ending = (struct ending){
        .pidfd = -1,
        .stack = MAP_FAILED,
        .wanted = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1},
        .released = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1},
        .maker = (int)getpid(),
    };
    ending->lock = openat(folder, "lock", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int result = ending->lock < 0 ? -errno : 0;
    if (result == 0)
        ending->stack = mmap(NULL, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (result == 0 && ending->stack == MAP_FAILED)
        result = -errno;
    if (result == 0) {
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        if (clone(run_waiter, (char *)ending->stack + stack_bytes, CLONE_VM | CLONE_FILES | CLONE_PIDFD, ending,
                  &ending->pidfd) < 0)
            result = -errno;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    if (result < 0)
        ending_free(ending);
    else
        *ret_ending = ending;
    return result;
}

int ending_new(int folder, struct ending **ret_ending)
{
    return wait_for_byte(folder, HOME_BYTE_LIFE, ret_ending);
}

int ending_new_of_change(int folder, struct ending **ret_ending)
{
    return wait_for_byte(folder, HOME_BYTE_CHANGE, ret_ending);
}

int ending_fd(const struct ending *ending)
{
    return ending->pidfd;
}

struct ending *ending_free(struct ending *ending)
{
    siginfo_t end;
    if (ending == NULL)
        return NULL;
    if (ending->pidfd >= 0) {
        syscall(SYS_pidfd_send_signal, ending->pidfd, SIGKILL, NULL, 0);
        while (waitid(P_PIDFD, (id_t)ending->pidfd, &end, WEXITED | __WALL) < 0 && errno == EINTR)
            ;
    }
    if (ending->stack != MAP_FAILED)
        munmap(ending->stack, stack_bytes);
    fd_close(ending->pidfd);
    fd_close(ending->lock);
    free(ending);
    return NULL;
}

/* ---- by force ---- */

/* Whether the words of a command line have that of a sandbox's process for this id. */
static bool is_process_of(const struct buffer *words, const char *id)
{
    bool is_command = false, is_id = false;
    const char *before = "";
    for (size_t at = 0; at < words->length; at += strlen(words->data + at) + 1) {
        const char *word = words->data + at;
        is_command = is_command || strcmp(word, "sandbox-process") == 0;
        is_id = is_id || (strcmp(before, "--id") == 0 && strcmp(word, id) == 0);
        before = word;
    }
    return is_command && is_id;
}

int ending_signal(int pid, const char *id, int number)
{
    auto_buffer struct buffer words = BUFFER_INIT(LIMIT_PROC_FILE_BYTES);
    char path[64];
    auto_close int pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (pidfd < 0)
        return pid > 0 ? -errno : -ESRCH;
    snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
    int result = fd_read_file(path, &words);
    if (result == -ENOENT || (result == 0 && !is_process_of(&words, id)))
        return -ESRCH;
    if (result < 0)
        return result;
    return syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0) < 0 ? -errno : 0;
}
