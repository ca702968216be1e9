// SPDX-License-Identifier: Apache-2.0
/* Why a user-mode Linux ended, from how its process did and what it said. */
#ifndef ENGINE_UML_ENDING_H
#define ENGINE_UML_ENDING_H

#include "vial/vmm.h"

#include <stdbool.h>

struct uml_ending {
    bool was_killed;       /* by a signal */
    int status;            /* the signal, or its exit status */
    bool has_begun;        /* a device was connected, or there is none to connect */
    bool has_failed_exec;  /* it was told to restart, and could not */
    const char *panic;     /* what it panicked about, or "" */
    const char *last_line; /* that it wrote to its standard error, or "" */
};

/* Fills in reason, code and detail. */
void uml_ending_judge(const struct uml_ending *ending, struct vial_exit *ret_exit);

#endif
