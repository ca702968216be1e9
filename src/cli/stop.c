// SPDX-License-Identifier: Apache-2.0
/* vial stop, kill and wait: the end of sandboxes.
 *
 * Trust: arguments are the user's own.
 */
#include "cli/sandbox.h"

#include "base/text.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <strings.h>

struct arguments {
    uint64_t grace_ms, timeout_ms;
    int signal_number;
    bool is_json;
};

/* ---- stop ---- */

static int stop_one(void *user, struct vial_sandbox *sandbox, const char *name, struct vial_error *error)
{
    const struct arguments *arguments = user;
    (void)name;
    return vial_sandbox_stop(sandbox, arguments->grace_ms, VIAL_WAIT_FOREVER, error);
}

static int run_stop(const struct command *command, int argc, char *argv[])
{
    struct arguments arguments = {.grace_ms = VIAL_GRACE_OWN};
    int operands = command_options(command, &arguments, argc, argv, 1, LIMIT_STRINGS, &arguments.is_json);
    return operands < 0 ? options_status(operands) : sandbox_each(command, argv + 1, true, stop_one, &arguments);
}

static const struct command_option stop_options[] = {
    {"--time", 't', "TIME",
     "how long they may take to end before they are forced to (default: what run --stop-timeout said)", take_time,
     offsetof(struct arguments, grace_ms)},
    {.name = NULL},
};

const struct command command_stop = {
    .name = "stop",
    .path = "vial stop",
    .arguments = "[OPTIONS] SANDBOX...",
    .summary = "Ask sandboxes to end, force them when they do not, and wait for it",
    .about = "Programs get a SIGTERM, later a SIGKILL; file systems are unmounted. One that does not run is no error.",
    .statuses = "0 when none of them runs any more, 125 when one could not be stopped",
    .options = {stop_options},
    .run = run_stop,
    .operand = COMPLETE_RUNNING,
    .has_no_json = true,
};

/* ---- kill ---- */

/* KILL, SIGKILL, 9. */
static int take_signal(void *user, const struct command_option *option, const char *value)
{
    struct arguments *arguments = user;
    const char *name = strncasecmp(value, "SIG", 3) == 0 ? value + 3 : value;
    uint64_t number = 0;
    if (text_to_u64(value, strlen(value), SIGRTMAX, &number) == 0 && number > 0) {
        arguments->signal_number = (int)number;
        return 0;
    }
    for (int i = 1; i < NSIG; i++) {
        const char *known = sigabbrev_np(i);
        if (known == NULL || strcasecmp(known, name) != 0)
            continue;
        arguments->signal_number = i;
        return 0;
    }
    return refuse_value(option->name, value, "there is no such signal", "give a name or number, such as INT or 2");
}

/* Its own program's; only SIGKILL is for the whole sandbox. */
static int kill_one(void *user, struct vial_sandbox *sandbox, const char *name, struct vial_error *error)
{
    const struct arguments *arguments = user;
    auto_process struct vial_process *process = NULL;
    (void)name;
    if (arguments->signal_number == SIGKILL)
        return vial_sandbox_kill(sandbox, VIAL_WAIT_FOREVER, error);
    int result = vial_sandbox_attach(sandbox, false, 0, 0, &process, error);
    return result < 0 ? result : vial_process_signal(process, arguments->signal_number, error);
}

static int run_kill(const struct command *command, int argc, char *argv[])
{
    struct arguments arguments = {.signal_number = SIGKILL};
    int operands = command_options(command, &arguments, argc, argv, 1, LIMIT_STRINGS, &arguments.is_json);
    return operands < 0 ? options_status(operands) : sandbox_each(command, argv + 1, true, kill_one, &arguments);
}

static const struct command_option kill_options[] = {
    {"--signal", 's', "SIGNAL", "send this one to its own command instead (KILL, the default, ends the machine)",
     take_signal, .choices = "KILL TERM INT HUP QUIT USR1 USR2 STOP CONT"},
    {.name = NULL},
};

const struct command command_kill = {
    .name = "kill",
    .path = "vial kill",
    .arguments = "[OPTIONS] SANDBOX...",
    .summary = "End sandboxes at once, or send a signal to their commands",
    .statuses = "0 when it was done with all of them, 125 when not",
    .options = {kill_options},
    .run = run_kill,
    .operand = COMPLETE_RUNNING,
    .has_no_json = true,
};

/* ---- wait ---- */

static int wait_one(void *user, struct vial_sandbox *sandbox, const char *name, struct vial_error *error)
{
    const struct arguments *arguments = user;
    struct vial_exit end = VIAL_EXIT_INIT;
    uint64_t timeout_ms = arguments->timeout_ms > 0 ? arguments->timeout_ms : VIAL_WAIT_FOREVER;
    int result = vial_sandbox_wait(sandbox, timeout_ms, &end, error);
    if (result == -ETIMEDOUT) {
        fprintf(stderr, "%s: it runs still\n", safe_text(name).text);
        return 1;
    }
    if (result < 0)
        return result;
    if (arguments->is_json)
        return print_json_line(json_pack("{s:s, s:s, s:i, s:o}", "name", safe_text(name).text, "reason",
                                         vial_exit_reason_name(end.reason), "code", (int)end.code, "detail",
                                         json_or_null(end.detail)),
                               stdout);
    printf("%d\n", has_gone_wrong(end.reason) ? EXIT_OURS : (int)end.code);
    fflush(stdout);
    return 0;
}

static int run_wait(const struct command *command, int argc, char *argv[])
{
    struct arguments arguments = {0};
    int operands = command_options(command, &arguments, argc, argv, 1, LIMIT_STRINGS, &arguments.is_json);
    return operands < 0 ? options_status(operands) : sandbox_each(command, argv + 1, false, wait_one, &arguments);
}

static const struct command_option wait_options[] = {
    {"--timeout", 0, "TIME", "wait for each no longer", take_time, offsetof(struct arguments, timeout_ms)},
    {"--json", 0, NULL, "how each ended as JSON, a line each", NULL},
    {.name = NULL},
};

const struct command command_wait = {
    .name = "wait",
    .path = "vial wait",
    .arguments = "[OPTIONS] SANDBOX...",
    .summary = "Wait until sandboxes have ended, and print their commands' exit codes, or 125 for one that broke",
    .statuses = "0, or 125 when one is not known, or runs still when --timeout is over",
    .options = {wait_options},
    .run = run_wait,
    .operand = COMPLETE_RUNNING,
};
