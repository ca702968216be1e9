// SPDX-License-Identifier: Apache-2.0
/* A program of a spec as the agent is asked to run it. (session.c) */
#ifndef SANDBOX_SESSION_EXEC_H
#define SANDBOX_SESSION_EXEC_H

#include "base/buffer.h"
#include "proto/agent.h"
#include "sandbox/spec.h"

struct session_exec {
    struct agent_message message; /* points into the buffers, and into the program */
    struct buffer args, env;
};

/* EXEC with AGENT_EXEC_MAIN. `ret_exec` is to be freed only on success. */
int session_exec_make(const struct spec_program *program, struct session_exec *ret_exec, struct vial_error *err);
void session_exec_free(struct session_exec *exec);

#endif
