// SPDX-License-Identifier: Apache-2.0
/* Threads of the library, in a process that is somebody else's.
 *
 * A new thread inherits the signal mask of its maker, so the mask is filled for the moment of the making: at no time
 * does the thread exist and take a signal. Stacks are small, because a machine has as many threads as it has vCPUs and
 * devices; pages of a stack exist only once they are used.
 *
 * Signals by which the CPU reports a fault stay unblocked: the kernel ends a process that blocks one it causes, and a
 * runtime whose callback runs on our thread may live from its handlers (a null pointer in Java or Go).
 */
#include "base/thread.h"

#include "base/alloc.h"

#include <errno.h>
#include <signal.h>

static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};

/* Our own frames need a few KiB; the rest is for callbacks of the embedding program and its log hook. */
enum { stack_bytes = 256 << 10 };

int thread_start(const char *name, void *(*function)(void *user), void *user, pthread_t *ret_thread)
{
    sigset_t all, before;
    pthread_attr_t attributes;
    int result = pthread_attr_init(&attributes);
    if (result != 0)
        return -result;
    sigfillset(&all);
    for (size_t i = 0; i < array_length(faults); i++)
        sigdelset(&all, faults[i]);
    result = pthread_attr_setstacksize(&attributes, stack_bytes);
    if (result == 0) {
        pthread_t thread;
        pthread_sigmask(SIG_SETMASK, &all, &before);
        result = pthread_create(&thread, &attributes, function, user);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (result == 0) {
            pthread_setname_np(thread, name); /* for people only: a name that is too long is none */
            *ret_thread = thread;
        }
    }
    pthread_attr_destroy(&attributes);
    return -result;
}
