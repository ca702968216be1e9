// SPDX-License-Identifier: Apache-2.0
/* A program of a spec as the agent is asked to run it.
 *
 * Invariants: (1) what is made here is checked again by agent_encode; nothing is cut off to fit.
 *
 * Trust: the spec is our user's own and was checked when it was written; files can be changed, so errors are told.
 */
#include "sandbox/session_exec.h"

#include "base/error.h"
#include "base/limits.h"
#include "vmm/parse.h"

#include <errno.h>
#include <string.h>

static struct agent_span span_of(const char *text)
{
    return (struct agent_span){.bytes = text, .length = text != NULL ? strlen(text) : 0};
}

/* Each string with its NUL, one after the other. */
static int add_strings(char *const *strings, struct buffer *buffer, struct agent_strings *ret_strings)
{
    size_t count = 0;
    for (; strings != NULL && strings[count] != NULL; count++)
        buffer_add(buffer, strings[count], strlen(strings[count]) + 1);
    *ret_strings = (struct agent_strings){.span = {buffer->data, buffer->length}, .count = count};
    return buffer->error;
}

static int add_rlimits(char *const *rlimits, struct agent_exec *exec, struct vial_error *err)
{
    for (size_t i = 0; rlimits != NULL && rlimits[i] != NULL; i++) {
        struct rlimit_config limit;
        const char *why = "there are more of them than Linux has";
        int result = i < LIMIT_RLIMITS ? parse_rlimit(rlimits[i], &limit, &why) : -E2BIG;
        if (result < 0) {
            error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_START, "a resource limit is not one: %s", why);
            error_field(err, "program.rlimits[%zu]", i);
            error_value(err, "%s", rlimits[i]);
            return result;
        }
        exec->rlimits[exec->rlimit_count++] = (struct agent_rlimit){limit.resource, limit.soft, limit.hard};
    }
    return 0;
}

int session_exec_make(const struct spec_program *program, struct session_exec *ret_exec, struct vial_error *err)
{
    struct session_exec made = {
        .message.kind = AGENT_EXEC,
        .args = BUFFER_INIT(LIMIT_EXEC_BYTES),
        .env = BUFFER_INIT(LIMIT_EXEC_BYTES),
    };
    struct agent_exec *exec = &made.message.exec;
    exec->flags = AGENT_EXEC_MAIN | (program->terminal ? AGENT_EXEC_TERMINAL : 0u) |
                  (program->input ? 0u : AGENT_EXEC_NO_INPUT);
    exec->path = span_of(program->args[0]);
    exec->workdir = span_of(program->workdir);
    exec->user = span_of(program->user);
    int result = add_strings(program->args, &made.args, &exec->args);
    if (result == 0)
        result = add_strings(program->env, &made.env, &exec->env);
    if (result < 0) {
        error_set_os(err, VIAL_PHASE_START, result == -ENOBUFS ? -E2BIG : result,
                     "the program's arguments and environment cannot be passed on");
        error_field(err, "program.args");
    } else {
        result = add_rlimits(program->rlimits, exec, err);
    }
    if (result < 0) {
        session_exec_free(&made);
        return result;
    }
    *ret_exec = made;
    return 0;
}

void session_exec_free(struct session_exec *exec)
{
    buffer_free(&exec->args);
    buffer_free(&exec->env);
}
