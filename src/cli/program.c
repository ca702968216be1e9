// SPDX-License-Identifier: Apache-2.0
/* The options that describe a program in a sandbox, for every command that runs one: run, create, exec.
 *
 * A terminal is chosen by ours: where standard input and output are both terminals, the program has one and gets what
 * is typed. Otherwise its streams are pipes; its input is ours, unless that is a terminal which nobody asked for (-i).
 *
 *     ours: input, output         the program's
 *     terminal, terminal          a terminal, with input
 *     terminal, anything else     pipes, without input; -i: with it
 *     anything else               pipes, with input
 *     -t                          a terminal in any case
 *     -T                          pipes in any case
 *
 * Invariants: (1) of a variable that is given twice, the last counts.
 *
 * Trust: arguments are the user's own, and so are the files they name.
 */
#include "cli/sandbox.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/terminal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int refuse_list(const struct command_option *option, const char *value, int result)
{
    return refuse_value(option->name, value, result == -E2BIG ? "there are too many" : "there is no memory for it",
                        result == -E2BIG ? "give at most 4096" : "free some");
}

/* ---- the environment ---- */

/* KEY=VALUE, or KEY for ours; one that we have not either is left out. */
static int add_variable(struct word_list *env, const char *text)
{
    size_t length = strcspn(text, "=");
    auto_free char *whole = NULL;
    if (text[length] == '\0') {
        const char *value = getenv(text);
        if (value == NULL)
            return 0;
        if (asprintf(&whole, "%s=%s", text, value) < 0)
            return -ENOMEM;
        text = whole;
    }
    for (size_t i = 0; i < env->count; i++) {
        if (strncmp(env->items[i], text, length + 1) != 0)
            continue;
        char *copy = alloc_string(text);
        if (copy == NULL)
            return -ENOMEM;
        free(env->items[i]);
        env->items[i] = copy;
        return 0;
    }
    return word_list_add(env, text);
}

static int take_env(void *user, const struct command_option *option, const char *value)
{
    struct sandbox_arguments *arguments = user;
    if (value[0] == '=' || value[0] == '\0')
        return refuse_value(option->name, value, "it is no variable",
                            "write KEY=VALUE, or KEY for the value it has here");
    int result = add_variable(&arguments->env, value);
    return result < 0 ? refuse_list(option, value, result) : 0;
}

/* One variable a line, as in -e; empty lines and those that begin with # do not count. */
static int take_env_file(void *user, const struct command_option *option, const char *value)
{
    struct sandbox_arguments *arguments = user;
    auto_buffer struct buffer text = BUFFER_INIT(LIMIT_EXEC_BYTES);
    int result = fd_read_file(value, &text);
    if (result < 0)
        return refuse_value(option->name, value, strerror(-result), "name a file with lines like KEY=VALUE");
    char *rest = text.data;
    for (char *line; (line = strsep(&rest, "\n")) != NULL && result == 0;) {
        if (line[0] == '=')
            return refuse_value(option->name, value, "a line in it is no variable", "write lines like KEY=VALUE");
        if (line[0] != '\0' && line[0] != '#')
            result = add_variable(&arguments->env, line);
    }
    return result < 0 ? refuse_list(option, value, result) : 0;
}

/* ---- others ---- */

/* NAME=SOFT:HARD, or NAME=BOTH. */
static int take_ulimit(void *user, const struct command_option *option, const char *value)
{
    struct sandbox_arguments *arguments = user;
    const char *equals = strchr(value, '=');
    auto_free char *both = NULL;
    if (equals == NULL || equals == value || equals[1] == '\0')
        return refuse_value(option->name, value, "it is no resource limit",
                            "write NAME=SOFT:HARD, as in nofile=1024:4096");
    if (strchr(equals, ':') == NULL) {
        if (asprintf(&both, "%s:%s", value, equals + 1) < 0)
            return refuse_list(option, value, -ENOMEM);
        value = both;
    }
    int result = word_list_add(&arguments->rlimits, value);
    return result < 0 ? refuse_list(option, value, result) : 0;
}

static int take_workdir(void *user, const struct command_option *option, const char *value)
{
    struct sandbox_arguments *arguments = user;
    if (value[0] != '/')
        return refuse_value(option->name, value, "a path of the guest must be absolute", "begin it with /");
    arguments->workdir = value;
    return 0;
}

const struct command_option program_options[] = {
    {"--interactive", 'i', NULL, "pass standard input on, even if it is a terminal and the output is none", take_true,
     offsetof(struct sandbox_arguments, wants_input)},
    {"--tty", 't', NULL, "give the command a terminal (default: where standard input and output are terminals)",
     take_true, offsetof(struct sandbox_arguments, wants_terminal)},
    {"--no-tty", 'T', NULL, "never give it one", take_true, offsetof(struct sandbox_arguments, refuses_terminal)},
    {"--env", 'e', "KEY[=VALUE]",
     "a variable of its environment, or one with the value that it has here; may be repeated", take_env},
    {"--env-file", 0, "FILE", "a file with such a variable a line; # begins a comment", take_env_file,
     .completes = COMPLETE_FILE},
    {"--workdir", 'w', "PATH", "its working directory (default: /)", take_workdir},
    {"--user", 'u', "USER[:GROUP]", "by name or number, as the guest's files have them (default: root)", take_word,
     offsetof(struct sandbox_arguments, user)},
    {"--ulimit", 0, "NAME=SOFT:HARD", "a resource limit, as in nofile=1024:4096; may be repeated", take_ulimit},
    {"--timeout", 0, "TIME",
     "kill it when it takes longer: seconds, or with ms, s, m, h or d; the exit status is 124 then", take_time,
     offsetof(struct sandbox_arguments, timeout_ms)},
    {.name = NULL},
};

void sandbox_arguments_free(struct sandbox_arguments *arguments)
{
    vial_vm_config_free(arguments->machine.config);
    word_list_free(&arguments->env);
    word_list_free(&arguments->rlimits);
    word_list_free(&arguments->labels);
    word_list_free(&arguments->scripts);
}

static bool has_variable(const struct word_list *env, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < env->count; i++)
        if (strncmp(env->items[i], name, length) == 0 && env->items[i][length] == '=')
            return true;
    return false;
}

/* What programs on a terminal look for. */
static int add_terminal(struct sandbox_arguments *arguments, struct vial_program_options *program)
{
    int fd = isatty(STDIN_FILENO) == 1 ? STDIN_FILENO : STDOUT_FILENO;
    terminal_read_size(fd, &program->columns, &program->rows);
    program->terminal = true;
    return has_variable(&arguments->env, "TERM") ? 0 : add_variable(&arguments->env, "TERM");
}

int sandbox_take_program(const struct command *command, struct sandbox_arguments *arguments, const char *const words[],
                         struct vial_program_options *ret_program)
{
    struct vial_program_options program = VIAL_PROGRAM_OPTIONS_INIT;
    bool is_input_terminal = isatty(STDIN_FILENO) == 1;
    bool is_terminal = is_input_terminal && isatty(STDOUT_FILENO) == 1 && !arguments->is_detached;
    if (arguments->wants_terminal && arguments->refuses_terminal)
        return refuse_use(command, "both --tty and --no-tty are given", "give one of the two");
    if ((is_terminal || arguments->wants_terminal) && !arguments->refuses_terminal &&
        add_terminal(arguments, &program) < 0)
        return refuse_use(command, "there is no memory for the environment", "free some");
    program.args = words;
    program.env = word_list_items(&arguments->env);
    program.rlimits = word_list_items(&arguments->rlimits);
    program.workdir = arguments->workdir;
    program.user = arguments->user;
    program.input = arguments->wants_input || program.terminal || (!is_input_terminal && !arguments->is_detached);
    *ret_program = program;
    return 0;
}
