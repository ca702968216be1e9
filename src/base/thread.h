// SPDX-License-Identifier: Apache-2.0
/* Threads of the library, in a process that is somebody else's. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>

/* Starts a thread in which every signal is blocked: what is sent to the process is the program's own business. `name`
 * is shown by ps and debuggers (15 characters at most). 0 or -errno. */
int thread_start(const char *name, void *(*function)(void *user), void *user, pthread_t *ret_thread);

#endif
