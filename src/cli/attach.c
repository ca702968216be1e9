// SPDX-License-Identifier: Apache-2.0
/* vial attach, start and restart: a sandbox's own program, from its beginning or from now on.
 *
 * Trust: arguments are the user's own.
 */
#include "cli/sandbox.h"
#include "cli/streams.h"

#include "base/alloc.h"
#include "base/terminal.h"

#include <errno.h>
#include <unistd.h>

enum { end_wait_ms = 30000 };

struct arguments {
    bool is_attached, refuses_input, is_json;
    uint64_t grace_ms;
};

/* Whether its program has a terminal, as it was created. */
static bool has_terminal(struct vial_sandbox *sandbox)
{
    auto_free char *text = NULL;
    if (vial_sandbox_inspect(sandbox, &text, NULL) < 0)
        return false;
    auto_json json_t *document = json_loads(text, 0, NULL);
    const json_t *program = json_object_get(document, "program");
    return json_is_true(json_object_get(program, "terminal"));
}

/* With the program the sandbox ends: when we return, what is known of it is the whole truth. */
static int run_streams(const struct command *command, struct vial_sandbox *sandbox, const char *name,
                       struct streams *streams, const struct stream_options *options)
{
    struct vial_exit end = VIAL_EXIT_INIT;
    streams_run(streams, options);
    if (streams->end == STREAMS_ENDED)
        vial_sandbox_wait(sandbox, end_wait_ms, &end, NULL);
    if (streams->end == STREAMS_DETACHED)
        fprintf(stderr, "\n%s runs on: vial attach %s comes back\n", safe_text(name).text, safe_text(name).text);
    return streams_status(streams, command->path);
}

/* ---- attach ---- */

static int attach(const struct command *command, struct vial_sandbox *sandbox, const char *name, bool wants_input)
{
    auto_process struct vial_process *process = NULL;
    struct vial_error error = {0};
    struct streams streams;
    uint16_t rows = 0, columns = 0;
    bool is_terminal = has_terminal(sandbox);
    if (is_terminal)
        terminal_read_size(STDIN_FILENO, &columns, &rows);
    if (vial_sandbox_attach(sandbox, wants_input, rows, columns, &process, &error) < 0) {
        print_error(name, &error);
        return EXIT_OURS;
    }
    const struct stream_options options = {
        .process = process, .is_terminal = is_terminal, .has_input = wants_input, .can_detach = true};
    int status = EXIT_OURS;
    if (streams_begin(&streams) == 0)
        status = run_streams(command, sandbox, name, &streams, &options);
    streams_free(&streams);
    return status;
}

static int run_attach(const struct command *command, int argc, char *argv[])
{
    auto_home struct vial_home *home = NULL;
    auto_sandbox struct vial_sandbox *sandbox = NULL;
    struct arguments arguments = {0};
    int operands = command_options(command, &arguments, argc, argv, 1, 1, &arguments.is_json);
    if (operands < 0)
        return options_status(operands);
    if (sandbox_open(command, argv[1], &home, &sandbox) < 0)
        return EXIT_OURS;
    return attach(command, sandbox, argv[1], !arguments.refuses_input);
}

static const struct command_option attach_options[] = {
    {"--no-stdin", 0, NULL, "only look: give it no input", take_true, offsetof(struct arguments, refuses_input)},
    {.name = NULL},
};

const struct command command_attach = {
    .name = "attach",
    .path = "vial attach",
    .arguments = "[OPTIONS] SANDBOX",
    .summary = "Take the streams of a sandbox's own command",
    .about =
        "Ends with it. ctrl-p ctrl-q on a terminal detaches; the sandbox runs on. What it has said before is in vial "
        "logs.",
    .statuses = "the command's, 0 after detaching, 125 when vial could not attach",
    .options = {attach_options},
    .run = run_attach,
    .operand = COMPLETE_RUNNING,
    .has_no_json = true,
};

/* ---- start ---- */

static int start_one(void *user, struct vial_sandbox *sandbox, const char *name, struct vial_error *error)
{
    (void)user;
    int result = vial_sandbox_start(sandbox, VIAL_WAIT_FOREVER, error);
    if (result >= 0)
        return result;
    print_error(name, error);
    if (result != -EALREADY)
        fprintf(stderr, "  -> vial logs --source runtime %s, and --source console, say more\n", safe_text(name).text);
    return 1;
}

static int start_attached(const struct command *command, const char *name, bool wants_input)
{
    auto_home struct vial_home *home = NULL;
    auto_sandbox struct vial_sandbox *sandbox = NULL;
    auto_process struct vial_process *process = NULL;
    struct vial_error error = {0};
    struct streams streams;
    int status = EXIT_OURS;
    if (sandbox_open(command, name, &home, &sandbox) < 0)
        return status;
    if (streams_begin(&streams) == 0 &&
        vial_sandbox_start_attached(sandbox, VIAL_WAIT_FOREVER, &process, &error) == 0) {
        const struct stream_options options = {
            .process = process, .is_terminal = has_terminal(sandbox), .has_input = wants_input, .can_detach = true};
        status = run_streams(command, sandbox, name, &streams, &options);
    } else if (error.message[0] != '\0') {
        print_error(name, &error);
        status = status_of_error(&error);
    }
    streams_free(&streams);
    return status;
}

static int run_start(const struct command *command, int argc, char *argv[])
{
    struct arguments arguments = {0};
    int operands = command_options(command, &arguments, argc, argv, 1, LIMIT_STRINGS, &arguments.is_json);
    if (operands < 0)
        return options_status(operands);
    if (arguments.is_attached && operands > 1)
        return refuse_use(command, "only one sandbox can be attached to", "name one");
    if (arguments.is_attached)
        return start_attached(command, argv[1], !arguments.refuses_input);
    return sandbox_each(command, argv + 1, true, start_one, NULL);
}

static const struct command_option start_options[] = {
    {"--attach", 'a', NULL, "take its streams from the beginning, as vial run does", take_true,
     offsetof(struct arguments, is_attached)},
    {"--no-stdin", 0, NULL, "with -a: give it no input", take_true, offsetof(struct arguments, refuses_input)},
    {.name = NULL},
};

const struct command command_start = {
    .name = "start",
    .path = "vial start",
    .arguments = "[OPTIONS] SANDBOX...",
    .summary = "Start sandboxes that do not run",
    .statuses = "0 when all run now, 125 when one could not be started; with -a its command's",
    .options = {start_options},
    .run = run_start,
    .operand = COMPLETE_STOPPED,
    .has_no_json = true,
};

/* ---- restart ---- */

static int restart_one(void *user, struct vial_sandbox *sandbox, const char *name, struct vial_error *error)
{
    const struct arguments *arguments = user;
    int result = vial_sandbox_stop(sandbox, arguments->grace_ms, VIAL_WAIT_FOREVER, error);
    return result < 0 ? result : start_one(NULL, sandbox, name, error);
}

static int run_restart(const struct command *command, int argc, char *argv[])
{
    struct arguments arguments = {.grace_ms = VIAL_GRACE_OWN};
    int operands = command_options(command, &arguments, argc, argv, 1, LIMIT_STRINGS, &arguments.is_json);
    return operands < 0 ? options_status(operands) : sandbox_each(command, argv + 1, true, restart_one, &arguments);
}

static const struct command_option restart_options[] = {
    {"--time", 't', "TIME",
     "how long it may take to end before it is forced to (default: what run --stop-timeout said)", take_time,
     offsetof(struct arguments, grace_ms)},
    {.name = NULL},
};

const struct command command_restart = {
    .name = "restart",
    .path = "vial restart",
    .arguments = "[OPTIONS] SANDBOX...",
    .summary = "Stop sandboxes and start them again",
    .statuses = "0 when all run again, 125 when one could not be started",
    .options = {restart_options},
    .run = run_restart,
    .operand = COMPLETE_RUNNING,
    .has_no_json = true,
};
