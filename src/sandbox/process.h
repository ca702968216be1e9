// SPDX-License-Identifier: Apache-2.0
/* The process of a sandbox, from its start to its end. */
#ifndef SANDBOX_PROCESS_H
#define SANDBOX_PROCESS_H

struct process_options {
    const char *home; /* the home's folder */
    const char *id;
    int report_fd; /* where the start is reported, once; -1: nowhere. The process's own from now on */
    int first_fd;  /* the first client's connection, or -1; as well */
};

/* Runs it in this process, which is to have nothing else: descriptors are closed, signals taken, threads confined.
 * Returns the exit status: 0 when the sandbox has run and ended, however that was. */
int sandbox_process_run(const struct process_options *options);

#endif
