// SPDX-License-Identifier: Apache-2.0
/* Starting another program, which is nobody's child. */
#ifndef BASE_PROGRAM_H
#define BASE_PROGRAM_H

#include <stddef.h>

enum { PROGRAM_MOST_FDS = 5 };

struct program {
    const char *path; /* not looked for in any PATH */
    char *const *args, *const *env;
    int fds[PROGRAM_MOST_FDS]; /* borrowed: its descriptors from 0 on. It gets no others */
    size_t fd_count;
};

/* Returns when it executes, in a session of its own, with every signal as by default: 0, and a descriptor of its
 * process (pidfd_open(2)), which becomes readable at its end; or -errno. */
int program_start(const struct program *program, int *ret_pidfd);

#endif
