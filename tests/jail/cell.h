// SPDX-License-Identifier: Apache-2.0
/* A jail with the inmate in it, for tests. */
#ifndef CELL_H
#define CELL_H

#include "engine/uml/jail.h"

enum { cell_memory_bytes = 1 << 20 };

struct cell {
    struct jail *jail;  /* owned */
    int listener;       /* owned: the device's socket */
    int output, errors; /* owned: what the inmate writes */
    char output_text[8192], error_text[8192];
    struct jail_end end;
    struct vial_error error;
};

/* What the next cells lack, and may lack. */
extern int cell_program_fd; /* in place of the inmate, unless -1 */
extern bool cell_has_no_filter, cell_has_no_landlock, cell_allows_missing_walls;

/* Prepares and starts: 0 or what those return. cell_free in any case. */
int cell_start(struct cell *cell, const char *attempt, const char *argument, const char *initramfs);

/* Answers the device's socket until the inmate has ended, and takes in what it wrote. 0, or what jail_end returns. */
int cell_wait(struct cell *cell);
void cell_free(struct cell *cell);

/* All of it: the exit status, 1000 + the signal that ended it, or a negative errno. What it wrote to standard error
 * becomes diagnostics. */
int cell_run(const char *attempt, const char *argument);

/* Until the inmate has written its first line. */
int cell_wait_for_line(struct cell *cell);

#endif
