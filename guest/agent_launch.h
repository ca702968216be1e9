// SPDX-License-Identifier: Apache-2.0
/* A program, on its way from a request to its first instruction. */
#ifndef AGENT_LAUNCH_H
#define AGENT_LAUNCH_H

#include "agent.h"

enum { LAUNCH_SMALL_BYTES = 4096 }; /* what most requests need, so that they allocate nothing */

struct launch {
    const struct agent *agent;        /* borrowed */
    const struct agent_exec *request; /* borrowed */
    char *block;                      /* the tables and texts below: owned where it is not `small` */
    char *path, *workdir;
    const char **args;  /* the strings are the message's, or behind the tables */
    const char **env;   /* in args, behind their NULL */
    const char *search; /* PATH, of the environment */
    struct user user;
    int streams[3]; /* owned, or -1; with a terminal only the first */
    bool has_terminal, borrows_input;
    _Alignas(max_align_t) char small[LAUNCH_SMALL_BYTES];

    enum agent_stage stage; /* what failed */
    int os_error;
};

void launch_init(struct launch *launch, const struct agent *agent);

/* Everything but the streams, which the caller puts in. False with the stage and errno in the launch, as below. */
bool launch_prepare(struct launch *launch, const struct agent_exec *request);

/* Runs it: it has executed, and is a child that has to be reaped. */
bool launch_run(struct launch *launch, pid_t *ret_pid);

void launch_release(struct launch *launch);

/* Puts the failure in. Returns false. */
bool launch_fail(struct launch *launch, enum agent_stage stage, int os_error);

#endif
