// SPDX-License-Identifier: Apache-2.0
/* Threads of the library, in a process that is somebody else's. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>

/* Starts a thread in which every signal is blocked but those of a thread's own faults: what is sent to the process is
 * the program's own business. `name` is shown by ps and debuggers (15 characters at most). 0 or -errno. */
int thread_start(const char *name, void *(*function)(void *user), void *user, pthread_t *ret_thread);

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
