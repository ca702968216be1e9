// SPDX-License-Identifier: Apache-2.0
/* Starting a sandbox's process: a program that is nobody's child, and its word on how the start went. */
#ifndef SANDBOX_SPAWN_H
#define SANDBOX_SPAWN_H

#include "vial/vial.h"

struct spawn {
    const char *runtime; /* the program */
    const char *home, *id, *name;
    int folder;   /* of the sandbox: for its log */
    int first_fd; /* the relay's first client, or -1; borrowed */
};

/* Returns when it says that it runs: 0. -EALREADY: another process has the sandbox. Any other failure is told with the
 * stage in `field`; then it has ended, or has been ended where the deadline was the reason (-ETIMEDOUT). */
int spawn_start(const struct spawn *spawn, uint64_t deadline_ns, struct vial_error *err);

/* The program to execute: `chosen` unless NULL, $VIAL_RUNTIME, a `vial` near, the installed one; in new memory. */
int spawn_find_runtime(const char *chosen, char **ret_path, struct vial_error *err);

#endif
