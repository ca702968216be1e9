// SPDX-License-Identifier: Apache-2.0
/* Programs, attachments and connections: what is asked for, put into one frame.
 *
 * The request goes out at once, before the READY with which the sandbox's process greets has been read, and nothing is
 * waited for: whether the program runs is told by its events. So running one costs a connection, a frame, and the
 * answers. Only an attachment waits for its answer, as somebody else may have the input.
 *
 * Invariants: (1) a handle that is returned has sent its request whole. (2) the environment has no variable twice.
 *
 * Trust: options are the caller's and may hold anything; what is no request is refused by the encoder.
 */
#include "sandbox/client_process.h"
#include "sandbox/library.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/thread.h"
#include "vmm/configure.h"
#include "vmm/parse.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* What a program finds in its environment when nobody has said otherwise. The last only with a terminal. */
static const char *const default_variables[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                                "HOME=/root", "TERM=xterm-256color"};

static const char *const no_strings[] = {NULL};

static bool has_variable(const char *const *env, const char *variable)
{
    size_t length = (size_t)(strchr(variable, '=') - variable) + 1;
    for (; *env != NULL; env++)
        if (strncmp(*env, variable, length) == 0)
            return true;
    return false;
}

static void add_string(struct buffer *buffer, size_t *count, const char *string)
{
    buffer_add(buffer, string, strlen(string) + 1);
    *count += 1;
}

static size_t add_strings(struct buffer *buffer, const char *const *strings)
{
    size_t count = 0;
    for (; *strings != NULL; strings++)
        add_string(buffer, &count, *strings);
    return count;
}

/* Of a variable that is given twice the last counts, as for env(1). */
static size_t add_environment(struct buffer *buffer, const char *const *env, bool has_terminal)
{
    size_t count = 0;
    for (size_t i = 0; i < array_length(default_variables) - (has_terminal ? 0 : 1); i++)
        if (!has_variable(env, default_variables[i]))
            add_string(buffer, &count, default_variables[i]);
    for (; *env != NULL; env++)
        if (strchr(*env, '=') == NULL || !has_variable(env + 1, *env))
            add_string(buffer, &count, *env);
    return count;
}

static struct agent_span span_of(const char *text)
{
    return (struct agent_span){.bytes = text, .length = text != NULL ? strlen(text) : 0};
}

static int add_rlimits(struct agent_exec *exec, const char *const *texts, struct vial_error *err)
{
    for (size_t i = 0; texts != NULL && texts[i] != NULL; i++) {
        struct rlimit_config limit;
        const char *why = "there are more than Linux has";
        int result = i < LIMIT_RLIMITS ? parse_rlimit(texts[i], &limit, &why) : -EINVAL;
        if (result < 0)
            return config_refuse_text(result, "rlimits", i, "resource limit", texts[i], why,
                                      "write NAME=SOFT:HARD, such as NOFILE=1024:4096", err);
        exec->rlimits[i] = (struct agent_rlimit){.resource = limit.resource, .soft = limit.soft, .hard = limit.hard};
        exec->rlimit_count = i + 1;
    }
    return 0;
}

static int take_options(const struct vial_program_options *options, struct vial_program_options *ours,
                        struct vial_error *err)
{
    int result = config_take_sized(ours, sizeof(*ours), options, err);
    if (result == 0)
        result = config_check_reserved(ours->reserved, sizeof(ours->reserved), err);
    if (result == 0 && (ours->args == NULL || ours->args[0] == NULL || ours->args[0][0] == '\0'))
        result = sandbox_refuse("args", "there is no program to run", "give its path or name as the first one", err);
    if (ours->env == NULL)
        ours->env = no_strings;
    return result;
}

static int open_and_send(struct vial_sandbox *sandbox, struct agent_message *request, const char *action,
                         struct vial_process **ret_process, struct vial_error *err)
{
    struct vial_process *process = NULL;
    if (process_new(action, &process) < 0)
        return error_no_memory(err, VIAL_PHASE_RUN);
    int result = sandbox_connect(sandbox, process_client(process), err);
    if (result == 0)
        result = client_send(process_client(process), request, client_deadline_ns(CLIENT_FRAME_MOST_MS), err);
    if (result < 0)
        vial_process_free(process);
    else
        *ret_process = process;
    return result;
}

int vial_sandbox_exec(struct vial_sandbox *sandbox, const struct vial_program_options *options,
                      struct vial_process **ret_process, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct vial_program_options ours = VIAL_PROGRAM_OPTIONS_INIT;
    auto_buffer struct buffer args = BUFFER_INIT(LIMIT_EXEC_BYTES), env = BUFFER_INIT(LIMIT_EXEC_BYTES);
    struct agent_message request = {.kind = AGENT_EXEC};
    struct agent_exec *exec = &request.exec;
    struct vial_process *process = NULL;
    char action[256];
    int result = take_options(options, &ours, err);
    if (result == 0)
        result = add_rlimits(exec, ours.rlimits, err);
    if (result < 0)
        return result;
    exec->flags = (ours.terminal ? AGENT_EXEC_TERMINAL : 0) | (ours.detached ? AGENT_EXEC_DETACHED : 0) |
                  (ours.input ? 0 : AGENT_EXEC_NO_INPUT);
    exec->window = AGENT_DEFAULT_WINDOW;
    exec->rows = ours.rows != 0 ? ours.rows : 24;
    exec->columns = ours.columns != 0 ? ours.columns : 80;
    exec->path = span_of(ours.args[0]);
    exec->args.count = add_strings(&args, ours.args);
    exec->env.count = add_environment(&env, ours.env, ours.terminal);
    exec->args.span = (struct agent_span){.bytes = args.data, .length = args.length};
    exec->env.span = (struct agent_span){.bytes = env.data, .length = env.length};
    exec->workdir = span_of(ours.workdir);
    exec->user = span_of(ours.user);
    if (args.error == -ENOBUFS || env.error == -ENOBUFS)
        return error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_CONFIGURE, "the arguments and variables are too long");
    if (args.error < 0 || env.error < 0)
        return error_no_memory(err, VIAL_PHASE_CONFIGURE);
    snprintf(action, sizeof(action), "cannot run %s", ours.args[0]);
    result = open_and_send(sandbox, &request, action, &process, err);
    if (result < 0)
        return result;
    process_set_input(process, ours.input);
    /* Who may go at once must not go before the agent has it: a relay drops what a client that is gone has sent. */
    if (ours.detached)
        result = process_wait_started(process, client_deadline_ns(CLIENT_FRAME_MOST_MS), err);
    if (result < 0)
        vial_process_free(process);
    else
        *ret_process = process;
    return result;
}

int vial_sandbox_attach(struct vial_sandbox *sandbox, bool input, uint16_t rows, uint16_t columns,
                        struct vial_process **ret_process, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct vial_process *process = NULL;
    struct agent_message request = {
        .kind = AGENT_ATTACH,
        .attach = {
            .flags = input ? AGENT_ATTACH_INPUT : 0, .window = AGENT_DEFAULT_WINDOW, .rows = rows, .columns = columns}};
    int result = open_and_send(sandbox, &request, "cannot attach to its program", &process, err);
    if (result < 0)
        return result;
    process_set_input(process, input);
    result = process_wait_started(process, client_deadline_ns(CLIENT_FRAME_MOST_MS), err);
    if (result < 0)
        vial_process_free(process);
    else
        *ret_process = process;
    return result;
}

int vial_sandbox_connect(struct vial_sandbox *sandbox, const char *path, uint16_t port,
                         struct vial_process **ret_process, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    char action[256];
    struct agent_message request = {.kind = AGENT_CONNECT,
                                    .connect = {.window = AGENT_MOST_WINDOW, .port = port, .target = span_of(path)}};
    if ((path == NULL) == (port == 0))
        return sandbox_refuse("port", "either a port or a path is needed", "give one of them, and 0 or NULL", err);
    if (path != NULL)
        snprintf(action, sizeof(action), "cannot connect to %s", path);
    else
        snprintf(action, sizeof(action), "cannot connect to port %u", port);
    int result = open_and_send(sandbox, &request, action, ret_process, err);
    if (result == 0)
        process_set_input(*ret_process, true);
    return result;
}
