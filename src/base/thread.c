// SPDX-License-Identifier: Apache-2.0
/* Threads of the library, in a process that is somebody else's.
 *
 * A new thread inherits the signal mask of its maker, so the mask is filled for the moment of the making: at no time
 * does the thread exist and take a signal. Stacks are small, because a machine has as many threads as it has vCPUs and
 * devices; pages of a stack exist only once they are used.
 *
 * Signals by which the CPU reports a fault stay unblocked: the kernel ends a process that blocks one it causes, and a
 * runtime whose callback runs on our thread may live from its handlers (a null pointer in Java or Go).
 *
 * A thread that has a kind enters it before it does anything else, and its maker waits for that: so a thread either has
 * the bounds of its kind or does not come to be. What bounds a thread (credentials, filters, domains) is inherited from
 * its maker, so one of the same kind has nothing to do.
 *
 * Invariants: (1) the function of a thread with a kind runs within that kind's bounds. (2) the maker's stack, where the
 * beginning is told, is used by the new thread only until it has posted.
 *
 * Trust: the caller's.
 */
#include "base/thread.h"

#include "base/alloc.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>

static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};

/* Our own frames need a few KiB; the rest is for callbacks of the embedding program and its log hook. */
enum { stack_bytes = 256 << 10 };

/* ---- kinds ---- */

static int (*on_enter)(enum thread_kind kind);
static _Thread_local enum thread_kind own_kind;

void thread_on_enter(int (*function)(enum thread_kind kind))
{
    on_enter = function;
}

enum thread_kind thread_own_kind(void)
{
    return own_kind;
}

int thread_enter(enum thread_kind kind)
{
    int result = 0;
    enum thread_kind before = own_kind;
    if (kind == before)
        return 0;
    own_kind = kind; /* first: what refuses a call may ask whose it was */
    if (on_enter != NULL)
        result = on_enter(kind);
    if (result < 0)
        own_kind = before;
    return result;
}

/* ---- beginning ---- */

/* What a new thread is told; on its maker's stack. */
struct beginning {
    enum thread_kind kind, makers_kind;
    const char *name;
    void *(*function)(void *user);
    void *user;
    int result;
    sem_t has_begun;
};

static void *begin(void *user)
{
    struct beginning *beginning = user;
    void *(*function)(void *user) = beginning->function;
    void *functions_user = beginning->user;
    pthread_setname_np(pthread_self(), beginning->name); /* for people only: a name that is too long is none */
    own_kind = beginning->makers_kind;
    int result = beginning->result = thread_enter(beginning->kind);
    sem_post(&beginning->has_begun); /* from here on it is not there any more */
    return result < 0 ? NULL : function(functions_user);
}

static int create(struct beginning *beginning, const pthread_attr_t *attributes, pthread_t *ret_thread)
{
    sigset_t all, before;
    sigfillset(&all);
    for (size_t i = 0; i < array_length(faults); i++)
        sigdelset(&all, faults[i]);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = pthread_create(ret_thread, attributes, begin, beginning);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -result;
}

int thread_start_as(enum thread_kind kind, const char *name, void *(*function)(void *user), void *user,
                    pthread_t *ret_thread)
{
    THREAD_DEFER_CANCEL(); /* the new thread uses our stack */
    pthread_t thread;
    pthread_attr_t attributes;
    struct beginning beginning = {
        .kind = kind,
        .makers_kind = own_kind,
        .name = name,
        .function = function,
        .user = user,
    };
    int result = -pthread_attr_init(&attributes);
    if (result < 0)
        return result;
    sem_init(&beginning.has_begun, 0, 0); /* cannot fail: 0 is no too large a value */
    result = -pthread_attr_setstacksize(&attributes, stack_bytes);
    if (result == 0)
        result = create(&beginning, &attributes, &thread);
    pthread_attr_destroy(&attributes);
    if (result == 0) {
        while (sem_wait(&beginning.has_begun) < 0) /* a signal's handler came in between */
            ;
        result = beginning.result;
        if (result < 0)
            pthread_join(thread, NULL);
        else
            *ret_thread = thread;
    }
    sem_destroy(&beginning.has_begun);
    return result;
}

int thread_start(const char *name, void *(*function)(void *user), void *user, pthread_t *ret_thread)
{
    return thread_start_as(own_kind, name, function, user, ret_thread);
}
