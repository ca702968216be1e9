// SPDX-License-Identifier: Apache-2.0
/* What a user-mode Linux says on its standard output and error: lines for the log, and for the reason of its end. */
#ifndef ENGINE_UML_OUTPUT_H
#define ENGINE_UML_OUTPUT_H

#include "base/limits.h"

#include <stdbool.h>
#include <stddef.h>

struct uml_output {                  /* one of its two pipes */
    const char *name;                /* for the log; borrowed */
    int fd;                          /* borrowed: our end, non-blocking */
    char line[LIMIT_UML_LINE_BYTES]; /* what came since the last end of a line */
    size_t length;
    char last[LIMIT_UML_LINE_BYTES];  /* the last line that says something; terminated */
    char panic[LIMIT_UML_LINE_BYTES]; /* the first that tells of a panic, from there on; "" */
    bool has_failed_exec;             /* the kernel could not execute itself again: it was told to restart */
};

/* Takes what is there, a bounded part of it: 1 when there may be more, 0 when there is nothing now, -errno, or
 * -EPIPE when nothing will come any more. */
int uml_output_read(struct uml_output *output);

/* The bytes, as if they had been read. */
void uml_output_feed(struct uml_output *output, const char *bytes, size_t length);

/* Everything that is still in the pipe, after the child has ended: at most what a pipe holds. A line without an end
 * ends here. */
void uml_output_finish(struct uml_output *output);

#endif
