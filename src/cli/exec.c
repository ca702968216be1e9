// SPDX-License-Identifier: Apache-2.0
/* vial exec: one more program in a sandbox that runs.
 *
 * Trust: arguments are the user's own.
 */
#include "cli/sandbox.h"
#include "cli/streams.h"

#include "base/error.h"

#include <string.h>

static int run_attached(const struct command *command, struct vial_process *process,
                        const struct sandbox_arguments *arguments, const struct vial_program_options *program)
{
    const struct stream_options options = {.process = process,
                                           .is_terminal = program->terminal,
                                           .has_input = program->input,
                                           .timeout_ms = arguments->timeout_ms};
    struct streams streams;
    int result = streams_begin(&streams);
    if (result == 0)
        streams_run(&streams, &options);
    int status = EXIT_OURS;
    if (result == 0)
        status = streams_status(&streams, command->path);
    else
        refuse_use(command, "it cannot wait for signals", "free some memory");
    streams_free(&streams);
    return status;
}

static int carry_out(const struct command *command, struct sandbox_arguments *arguments, char *argv[])
{
    auto_home struct vial_home *home = NULL;
    auto_sandbox struct vial_sandbox *sandbox = NULL;
    auto_process struct vial_process *process = NULL;
    struct vial_program_options program = VIAL_PROGRAM_OPTIONS_INIT;
    struct vial_error error = {0};
    if (arguments->timeout_ms > 0 && arguments->is_detached)
        return refuse_use(command, "--timeout needs somebody who waits", "leave --detach out");
    char **words = argv[2] != NULL && strcmp(argv[2], "--") == 0 ? argv + 3 : argv + 2; /* as behind run's options */
    if (words[0] == NULL)
        return refuse_use(command, "an operand is missing", "say which command is to be run: vial exec SANDBOX CMD");
    if (sandbox_take_program(command, arguments, (const char *const *)words, &program) != 0 ||
        sandbox_open(command, argv[1], &home, &sandbox) < 0)
        return EXIT_OURS;
    program.detached = arguments->is_detached;
    if (vial_sandbox_exec(sandbox, &program, &process, &error) < 0) {
        print_error(command->path, &error);
        return status_of_error(&error);
    }
    return arguments->is_detached ? EXIT_YES : run_attached(command, process, arguments, &program);
}

static int run_exec(const struct command *command, int argc, char *argv[])
{
    struct sandbox_arguments arguments = {0};
    int operands = command_options(command, &arguments, argc, argv, 2, LIMIT_STRINGS, &arguments.is_json);
    int status = operands < 0 ? options_status(operands) : carry_out(command, &arguments, argv);
    sandbox_arguments_free(&arguments);
    return status;
}

static const struct command_option options[] = {
    {"--detach", 'd', NULL, "do not wait for it", take_true, offsetof(struct sandbox_arguments, is_detached)},
    {.name = NULL},
};

const struct command command_exec = {
    .name = "exec",
    .path = "vial exec",
    .arguments = "[OPTIONS] SANDBOX [--] CMD [ARG]...",
    .summary = "Run one more command in a sandbox that runs",
    .about = "CMD has this command's streams and signals, and a terminal where standard input and output are "
             "terminals. It is killed when vial is. Options end at SANDBOX.",
    .statuses =
        "CMD's (128+N when signal N killed it, 127 when it was not found, 126 when it could not be executed), 124 "
        "when --timeout killed it, 125 when vial could not run it",
    .options = {options, program_options},
    .run = run_exec,
    .operand = COMPLETE_RUNNING,
    .has_no_json = true,
    .stops_at_operand = true,
};
