// SPDX-License-Identifier: Apache-2.0
/* vial run and create: a new sandbox, from options.
 *
 *     run           create ─> start_attached ─> streams ─> the program's end ─> the sandbox's end
 *     run -d        create ─> start
 *     create        create
 *
 * In the foreground this process is nothing but the program's streams: the sandbox has a process of its own, which
 * outlives this one. So an end of ours that is not the program's has to end the sandbox, unless the user has detached
 * from it.
 *
 * Invariants: (1) nothing of an ephemeral sandbox is left when run returns, but after detaching.
 *
 * Trust: arguments are the user's own.
 */
#include "cli/sandbox.h"
#include "cli/streams.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { console_tail = 20, end_wait_ms = 30000 };

/* ---- options ---- */

static int add_word(struct word_list *list, const struct command_option *option, const char *value)
{
    int result = word_list_add(list, value);
    return result == 0 ? 0 : refuse_value(option->name, value, "there are too many", "give at most 4096");
}

static int take_label(void *user, const struct command_option *option, const char *value)
{
    struct sandbox_arguments *arguments = user;
    if (value[0] == '=' || value[0] == '\0')
        return refuse_value(option->name, value, "it is no label", "write KEY=VALUE");
    auto_free char *empty = NULL; /* KEY= */
    if (strchr(value, '=') == NULL && asprintf(&empty, "%s=", value) < 0)
        return refuse_value(option->name, value, "there is no memory for it", "free some");
    return add_word(&arguments->labels, option, empty != NULL ? empty : value);
}

static int take_script(void *user, const struct command_option *option, const char *value)
{
    struct sandbox_arguments *arguments = user;
    const char *equals = strchr(value, '=');
    if (equals == NULL || equals == value || equals[1] == '\0')
        return refuse_value(option->name, value, "it is no script", "write NAME=FILE");
    return add_word(&arguments->scripts, option, value);
}

#define MEMBER(member) offsetof(struct sandbox_arguments, member)

/* Those of both commands; run has two more in front. */
#define SANDBOX_OPTIONS                                                                                                \
    {"--name",                                                                                                         \
     0,                                                                                                                \
     "NAME",                                                                                                           \
     "keep it, and its logs, under this name until vial rm (default: none, and it is removed when "                    \
     "it has ended)",                                                                                                  \
     take_word,                                                                                                        \
     MEMBER(name)},                                                                                                    \
        {"--rm", 0, NULL, "remove it when it has ended, even if it has a name", take_true, MEMBER(is_removed)},        \
        {"--replace", 0, NULL, "stop and remove the one that has this name", take_true, MEMBER(is_replacing)},         \
        {"--entrypoint",    0, "PATH", "the program, for which the words of CMD are arguments", take_word,             \
         MEMBER(entrypoint)},                                                                                          \
        {"--hostname", 0, "NAME", "what the guest calls itself (default: its name)", take_word, MEMBER(hostname)},     \
        {"--label", 'l', "KEY[=VALUE]", "to be found by; may be repeated", take_label},                                \
        {"--script",  0,                                                                                               \
         "NAME=FILE", "a command that stands first on the guest's PATH; may be repeated",                              \
         take_script, .completes = COMPLETE_FILE},                                                                     \
        {"--read-only", 0, NULL, "the guest cannot write to its root", take_true, MEMBER(is_read_only)},               \
        {"--idle-timeout",       0, "TIME", "end it when nothing has happened in it for so long", take_time,           \
         MEMBER(idle_timeout_ms)},                                                                                     \
        {"--max-duration", 0, "TIME", "end it after so long", take_time, MEMBER(max_duration_ms)},                     \
        {"--stop-timeout",     0, "TIME", "how long it may take to end when it is asked to (default: 10s)", take_time, \
         MEMBER(stop_grace_ms)},                                                                                       \
        {"--pull-never", 0, NULL, "nothing is ever pulled; for scripts that say so", take_true, MEMBER(pulls_never)},  \
    {                                                                                                                  \
        .name = NULL                                                                                                   \
    }

/* ---- the sandbox ---- */

/* As --read-only asks. */
static int make_read_only(const struct command *command, struct vial_vm_config *config)
{
    switch (config->root_kind) {
    case ROOT_FOLDER:
        config->root.read_only = true;
        config->root.throw_away = false;
        return 0;
    case ROOT_DISK:
        config->root_disk.read_only = true;
        return 0;
    case ROOT_NONE:
    case ROOT_HOST: /* its layer is thrown away as it is */
    case ROOT_LAYERS:
    case ROOT_BUILTIN:
        break;
    }
    return refuse_use(command, "--read-only is not possible with this root",
                      "leave it out, or take a folder or a disk");
}

static int choose_root(const struct command *command, struct sandbox_arguments *arguments)
{
    const struct vial_root_host_options host = VIAL_ROOT_HOST_OPTIONS_INIT;
    struct machine_arguments *machine = &arguments->machine;
    if (machine->config->root_kind == ROOT_NONE && machine->config->kernel.initramfs == NULL &&
        vial_vm_config_set_root_host(machine->config, &host, &machine->error) < 0) {
        print_error(command->path, &machine->error);
        return EXIT_OURS;
    }
    return arguments->is_read_only ? make_read_only(command, machine->config) : 0;
}

/* The program's words: what stands behind the options, behind --entrypoint. Without any, a shell in the foreground and
 * none otherwise. */
static const char **choose_words(const struct sandbox_arguments *arguments, char *const operands[], int count,
                                 bool is_foreground)
{
    const char **words = alloc_zero(((size_t)count + 2) * sizeof(words[0]));
    size_t used = 0;
    if (words == NULL)
        return NULL;
    if (arguments->entrypoint != NULL)
        words[used++] = arguments->entrypoint;
    for (int i = 0; i < count; i++)
        words[used++] = operands[i];
    if (used == 0 && is_foreground)
        words[used++] = "sh";
    return words;
}

static int create(const struct command *command, struct sandbox_arguments *arguments,
                  const struct vial_program_options *program, struct vial_home *home, struct vial_sandbox **ret_sandbox)
{
    struct vial_sandbox_options options = VIAL_SANDBOX_OPTIONS_INIT;
    struct vial_error error = {0};
    options.name = arguments->name;
    options.config = arguments->machine.config;
    options.program = program->args[0] != NULL ? program : NULL;
    options.labels = word_list_items(&arguments->labels);
    options.scripts = word_list_items(&arguments->scripts);
    options.hostname = arguments->hostname;
    options.idle_timeout_ms = arguments->idle_timeout_ms;
    options.max_duration_ms = arguments->max_duration_ms;
    options.stop_grace_ms = arguments->stop_grace_ms;
    options.ephemeral = arguments->is_removed || arguments->name == NULL;
    options.replace = arguments->is_replacing;
    int result = vial_sandbox_create(home, &options, ret_sandbox, &error);
    if (result == -EEXIST && error.remedy[0] == '\0')
        error_remedy(&error, "take another name, or --replace it, or use it: vial exec, vial start");
    if (result < 0)
        print_error(command->path, &error);
    return result;
}

static int print_sandbox(const struct command *command, struct vial_sandbox *sandbox, bool is_json)
{
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    struct vial_error error = {0};
    if (vial_sandbox_get_info(sandbox, &info, &error) < 0) {
        print_error(command->path, &error);
        return EXIT_OURS;
    }
    if (is_json)
        return print_json(sandbox_to_json(&info), EXIT_YES);
    printf("%s\n", info.name);
    return finish_output(EXIT_YES);
}

/* ---- starting ---- */

static bool print_tail_line(void *user, int stream, uint64_t time_ns, const char *bytes, size_t length)
{
    char safe[1024];
    (void)user;
    (void)stream;
    (void)time_ns;
    text_escape(safe, sizeof(safe), bytes, length, "");
    fprintf(stderr, "  | %s\n", safe);
    return true;
}

/* What went wrong, with what the guest's console said last: an ephemeral sandbox takes its logs with it. */
static int report_start(const struct command *command, struct vial_sandbox *sandbox, bool is_kept,
                        const struct vial_error *error)
{
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    print_error(command->path, error);
    int status = status_of_error(error);
    if (status == EXIT_OURS && !is_kept)
        vial_sandbox_logs(sandbox, VIAL_LOG_CONSOLE, console_tail, false, print_tail_line, NULL, NULL);
    else if (status == EXIT_OURS && vial_sandbox_get_info(sandbox, &info, NULL) == 0)
        fprintf(stderr, "  -> vial logs --source runtime %s, and --source console, say more\n", info.name);
    if (!is_kept)
        vial_sandbox_remove(sandbox, true, NULL);
    return status;
}

static int start_detached(const struct command *command, struct vial_sandbox *sandbox,
                          const struct sandbox_arguments *arguments)
{
    struct vial_error error = {0};
    if (vial_sandbox_start(sandbox, VIAL_WAIT_FOREVER, &error) < 0)
        return report_start(command, sandbox, arguments->name != NULL && !arguments->is_removed, &error);
    return print_sandbox(command, sandbox, arguments->is_json);
}

/* Once, to a person: a guest that no hardware keeps apart. */
static void tell_engine(const struct command *command, struct vial_sandbox *sandbox)
{
    const struct palette *colour = palette_for(stderr);
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    if (isatty(STDERR_FILENO) != 1 || vial_sandbox_get_info(sandbox, &info, NULL) < 0 || info.engine != VIAL_ENGINE_UML)
        return;
    fprintf(stderr, "%s%s: engine %s, isolation %s: vial doctor says why%s\n", colour->dim, command->path,
            vial_engine_name(info.engine), vial_isolation_name(info.isolation), colour->off);
}

/* What has happened, on standard error: standard output is the program's. */
static void print_end(const struct vial_sandbox_info *info, const struct vial_exit *end, int status)
{
    print_json_line(json_pack("{s:s, s:s, s:s, s:i, s:o, s:i}", "name", info->name, "id", info->id, "reason",
                              vial_exit_reason_name(end->reason), "code", (int)end->code, "detail",
                              json_or_null(end->detail), "status", status),
                    stderr);
}

/* The sandbox has to end as well, or does so by itself; what it has left is gone then. */
static void await_end(struct vial_sandbox *sandbox, enum stream_end how, struct vial_exit *ret_end)
{
    if (how != STREAMS_ENDED && how != STREAMS_FAILED)
        vial_sandbox_kill(sandbox, end_wait_ms, NULL);
    if (vial_sandbox_wait(sandbox, end_wait_ms, ret_end, NULL) == -ETIMEDOUT)
        vial_sandbox_kill(sandbox, end_wait_ms, NULL);
}

/* An end that was not the program's own: the machine's, or a limit's. */
static void explain_end(const struct command *command, const struct streams *streams, const struct vial_exit *end)
{
    const struct palette *colour = palette_for(stderr);
    bool is_own = end->reason == 0 || end->reason == VIAL_EXIT_COMPLETED || end->reason == VIAL_EXIT_FAILED ||
                  end->reason == VIAL_EXIT_SIGNAL;
    if (!is_own && streams->end != STREAMS_TIMED_OUT && streams->end != STREAMS_FORCED)
        fprintf(stderr, "%s: %s%s:%s %s\n", command->path, colour->red, vial_exit_reason_name(end->reason), colour->off,
                safe_text(end->detail).text);
}

static int run_streams(const struct command *command, struct vial_sandbox *sandbox, struct streams *streams,
                       const struct stream_options *options, const struct sandbox_arguments *arguments)
{
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    struct vial_exit end = VIAL_EXIT_INIT;
    vial_sandbox_get_info(sandbox, &info, NULL);
    tell_engine(command, sandbox);
    streams_run(streams, options);
    int status = streams_status(streams, command->path);
    if (streams->end == STREAMS_DETACHED) {
        fprintf(stderr, "\n%s runs on: vial attach %s comes back%s\n", info.name, info.name,
                info.ephemeral ? "; it is removed when it has ended" : "");
        return status;
    }
    await_end(sandbox, streams->end, &end);
    if (arguments->is_json)
        print_end(&info, &end, status);
    else
        explain_end(command, streams, &end);
    return status;
}

static int start_attached(const struct command *command, struct vial_sandbox *sandbox,
                          const struct sandbox_arguments *arguments, const struct vial_program_options *program)
{
    auto_process struct vial_process *process = NULL;
    struct vial_error error = {0};
    struct streams streams;
    int status = EXIT_OURS, result = streams_begin(&streams);
    if (result < 0) {
        error_set_os(&error, VIAL_PHASE_RUN, result, "cannot wait for signals");
        print_error(command->path, &error);
        vial_sandbox_remove(sandbox, true, NULL);
    } else if (vial_sandbox_start_attached(sandbox, VIAL_WAIT_FOREVER, &process, &error) < 0) {
        status = report_start(command, sandbox, arguments->name != NULL && !arguments->is_removed, &error);
    } else {
        const struct stream_options options = {.process = process,
                                               .is_terminal = program->terminal,
                                               .has_input = program->input,
                                               .can_detach = true,
                                               .timeout_ms = arguments->timeout_ms};
        status = run_streams(command, sandbox, &streams, &options, arguments);
    }
    streams_free(&streams);
    return status;
}

/* ---- the commands ---- */

static int carry_out(const struct command *command, struct sandbox_arguments *arguments, char *argv[], int operands,
                     bool is_run)
{
    auto_home struct vial_home *home = NULL;
    auto_sandbox struct vial_sandbox *sandbox = NULL;
    struct vial_program_options program = VIAL_PROGRAM_OPTIONS_INIT;
    auto_free const char **words = choose_words(arguments, argv + 1, operands, is_run && !arguments->is_detached);
    if (words == NULL)
        return refuse_use(command, "there is no memory for the command", "free some");
    if (!is_run) /* nobody's terminal is the program's yet */
        arguments->is_detached = true;
    if (arguments->timeout_ms > 0 && arguments->is_detached)
        return refuse_use(command, "--timeout needs somebody who waits", "use --max-duration");
    if (machine_publish(&arguments->machine) != 0 || choose_root(command, arguments) != 0 ||
        sandbox_take_program(command, arguments, words, &program) != 0 || sandbox_open_home(command, &home) < 0 ||
        create(command, arguments, &program, home, &sandbox) < 0)
        return EXIT_OURS;
    if (!is_run)
        return print_sandbox(command, sandbox, arguments->is_json);
    if (arguments->is_detached)
        return start_detached(command, sandbox, arguments);
    return start_attached(command, sandbox, arguments, &program);
}

static int run_either(const struct command *command, int argc, char *argv[], bool is_run)
{
    struct sandbox_arguments arguments = {.stop_grace_ms = 10000};
    if (vial_vm_config_new(&arguments.machine.config, &arguments.machine.error) < 0) {
        print_error(command->path, &arguments.machine.error);
        return EXIT_OURS;
    }
    int operands = command_options(command, &arguments, argc, argv, 0, LIMIT_STRINGS, &arguments.is_json);
    int status = operands < 0 ? options_status(operands) : carry_out(command, &arguments, argv, operands, is_run);
    sandbox_arguments_free(&arguments);
    return status;
}

static int run_run(const struct command *command, int argc, char *argv[])
{
    return run_either(command, argc, argv, true);
}

static int run_create(const struct command *command, int argc, char *argv[])
{
    return run_either(command, argc, argv, false);
}

static const struct command_option run_options[] = {
    {"--detach", 'd', NULL, "print its name and leave it running", take_true, MEMBER(is_detached)},
    {"--json", 0, NULL, "with -d what it is, else how it ended (on standard error), as JSON", NULL},
    SANDBOX_OPTIONS,
};

const struct command command_run = {
    .name = "run",
    .path = "vial run",
    .group = "sandboxes",
    .arguments = "[OPTIONS] [--] CMD [ARG]...",
    .summary = "Run a command in a new sandbox",
    .about =
        "Starts a machine with a kernel of its own, by default with this host's programs (--root host), and runs CMD "
        "in "
        "it with its streams and its exit status. Nothing is left when it has ended, unless it has a name. Options end "
        "at "
        "the first word of CMD; without one, it is a shell.\n\n"
        "Where standard input and output are terminals, CMD has a terminal; ctrl-p ctrl-q then detaches from it: the "
        "sandbox runs on, and vial attach comes back. Otherwise signals that ask for the end are passed on; the third "
        "ends "
        "the sandbox.",
    .statuses =
        "CMD's (128+N when signal N killed it, 127 when it was not found, 126 when it could not be executed), 124 "
        "when --timeout killed it, 125 when vial could not run it",
    .options = {run_options, program_options, machine_options},
    .run = run_run,
    .stops_at_operand = true,
};

static const struct command_option create_options[] = {SANDBOX_OPTIONS};

const struct command command_create = {
    .name = "create",
    .path = "vial create",
    .arguments = "[OPTIONS] [--] [CMD [ARG]...]",
    .summary = "Make a sandbox without starting it",
    .about =
        "Checks all that can be checked now, and prints its name. vial start starts it; CMD is what it runs then, and "
        "ends with. Without one it serves vial exec until it is stopped.",
    .statuses = "0 when it was made, 125 when not",
    .options = {create_options, program_options, machine_options},
    .run = run_create,
    .stops_at_operand = true,
};
