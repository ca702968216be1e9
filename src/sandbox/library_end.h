// SPDX-License-Identifier: Apache-2.0
/* Seeing a sandbox's process end, and ending it by force. */
#ifndef SANDBOX_LIBRARY_END_H
#define SANDBOX_LIBRARY_END_H

#include <stdint.h>

struct ending;

/* Begins to wait for the end of the process that has the lock of the sandbox with that folder. */
int ending_new(int folder, struct ending **ret_ending);

/* The same for the end of a start, a repair or a removal (home_sandbox_guard). */
int ending_new_of_change(int folder, struct ending **ret_ending);

/* Becomes readable when nobody has the lock. */
int ending_fd(const struct ending *ending);
struct ending *ending_free(struct ending *ending);

/* Sends a signal to the process of the sandbox, which its pid alone does not tell: 0, -ESRCH or -errno. */
int ending_signal(int pid, const char *id, int number);

#endif
