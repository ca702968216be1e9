// SPDX-License-Identifier: Apache-2.0
/* Threads of the library, in a process that is somebody else's. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>

/* What a thread of ours is there for, and so what it may need. */
enum thread_kind {
    THREAD_ANY = 0,     /* nothing is said about it; every thread that is not ours */
    THREAD_CONTROL = 1, /* the main loop of a sandbox's process */
    THREAD_DEVICE = 2,  /* a device's loop, and its workers */
    THREAD_FILES = 3,   /* the same of a device that opens files of the host's for the guest */
    THREAD_DISK = 4,    /* the same of a device that works on a disk image */
    THREAD_VCPU = 5,
    THREAD_ENGINE = 6, /* an engine's own, once its guest has been started: ends the guest, and the devices */
    THREAD_NET = 7,    /* a device's loop that connects to sockets of the host's */
    THREAD_TSI = 8,    /* the same of one that makes sockets of the host's network for the guest */
    THREAD_KINDS = 9,
};

/* Starts a thread in which every signal is blocked but those of a thread's own faults: what is sent to the process is
 * the program's own business. `name` is shown by ps and debuggers (15 characters at most). 0 or -errno. */
int thread_start(const char *name, void *(*function)(void *user), void *user, pthread_t *ret_thread);

/* The same, for a thread that enters its kind before anything else: what thread_enter returned is the result. */
int thread_start_as(enum thread_kind kind, const char *name, void *(*function)(void *user), void *user,
                    pthread_t *ret_thread);

/* Makes the calling thread one of this kind for good: 0, or -errno from the function of thread_on_enter, and then it is
 * of the kind that it was. A thread that was made by one of its kind is one already. */
int thread_enter(enum thread_kind kind);
enum thread_kind thread_own_kind(void);

/* Has a function called on each thread that enters a kind: for a process that bounds its threads by what they need.
 * Process-wide, set once, before there are threads of ours. */
void thread_on_enter(int (*function)(enum thread_kind kind));

static inline void thread_allow_cancel(const int *state)
{
    pthread_setcancelstate(*state, NULL);
}

/* As the first declaration of a scope: a thread of the program that others cancel (pthread_cancel(3)) goes on until the
 * scope's end, with every lock released and every count taken back. */
#define THREAD_DEFER_CANCEL()                                                                                          \
    __attribute__((cleanup(thread_allow_cancel))) int thread_cancel_state;                                             \
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &thread_cancel_state)

#endif
