// SPDX-License-Identifier: Apache-2.0
/* The command line's frame: dispatch, options, printing, failing.
 *
 * Options are written as everywhere: --name VALUE, --name=VALUE, -n VALUE, -nVALUE, and -it for -i -t. They may stand
 * behind operands, but for commands whose operands are a command of its own (run, exec): there the first operand ends
 * them, as `--` does everywhere. Names are not abbreviated, which a new option would break.
 *
 * Results go to stdout, everything about them to stderr. Texts that came from elsewhere are escaped before they reach a
 * terminal (struct vial_error does it on its way in).
 *
 * Invariants: (1) a wrong command or option names the one that was probably meant. (2) no escape sequence is written to
 * anything but a terminal, nor when NO_COLOR is set. (3) output that could not be written is an error.
 *
 * Trust: arguments are the user's own; file contents are not.
 */
#include "cli/command.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct palette *palette_for(FILE *stream)
{
    static const struct palette plain = {"", "", "", "", "", ""};
    static const struct palette coloured = {"\033[1m", "\033[31m", "\033[32m", "\033[33m", "\033[2m", "\033[0m"};
    const char *no_color = getenv("NO_COLOR"), *terminal = getenv("TERM");
    bool is_wanted = (no_color == NULL || no_color[0] == '\0') && terminal != NULL && strcmp(terminal, "dumb") != 0;
    return is_wanted && isatty(fileno(stream)) == 1 ? &coloured : &plain;
}

bool is_live_terminal(FILE *stream)
{
    const char *terminal = getenv("TERM");
    return isatty(fileno(stream)) == 1 && terminal != NULL && terminal[0] != '\0' && strcmp(terminal, "dumb") != 0;
}

struct safe_text safe_text(const char *text)
{
    struct safe_text safe = {""};
    text_escape(safe.text, sizeof(safe.text), text, strlen(text), "");
    return safe;
}

int finish_output(int status)
{
    if (fflush(stdout) == 0 && ferror(stdout) == 0)
        return status;
    if (errno == EPIPE)
        return EXIT_SIGNAL + SIGPIPE;
    fprintf(stderr, "vial: cannot write to standard output: %s\n", strerror(errno));
    return EXIT_OURS;
}

int print_json(json_t *document, int status)
{
    bool is_written = document != NULL && json_dumpf(document, stdout, JSON_INDENT(2)) == 0 && putchar('\n') != EOF;
    json_decref(document);
    if (is_written)
        return finish_output(status);
    fprintf(stderr, "vial: cannot write the result as JSON\n");
    return EXIT_OURS;
}

int print_json_line(json_t *document, FILE *stream)
{
    bool is_written = document != NULL && json_dumpf(document, stream, JSON_COMPACT) == 0 &&
                      putc('\n', stream) != EOF && fflush(stream) == 0;
    json_decref(document);
    return is_written ? 0 : -EIO;
}

int status_of_error(const struct vial_error *error)
{
    /* What may be wrong with a program: its file, folder, user, limits (proto/agent.h, enum agent_stage). */
    static const char *const stages[] = {"exec", "chdir", "user", "rlimit"};
    static const char start[] = "program."; /* of a sandbox that was started for it */
    const char *stage = error->field + (strncmp(error->field, start, strlen(start)) == 0 ? strlen(start) : 0);
    for (size_t i = 0; i < array_length(stages); i++)
        if (strcmp(stage, stages[i]) == 0)
            return i == 0 && error->os_error == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTED;
    return EXIT_OURS;
}

json_t *error_to_json(const struct vial_error *error)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:i}", "code", vial_error_code_name(error->code), "phase",
                     vial_phase_name(error->phase), "field", error->field, "value", error->value, "message",
                     error->message, "remedy", error->remedy, "errno", error->os_error);
}

void print_error(const char *subject, const struct vial_error *error)
{
    const struct palette *colour = palette_for(stderr);
    fprintf(stderr, "%s%s%serror:%s %s%s%s\n", subject != NULL ? safe_text(subject).text : "",
            subject != NULL ? ": " : "", colour->red, colour->off, error->field, error->field[0] != '\0' ? ": " : "",
            error->message);
    if (error->remedy[0] != '\0')
        fprintf(stderr, "  %s->%s %s\n", colour->bold, colour->off, error->remedy);
}

/* ---- words that mean nothing ---- */

static int refuse_word(const char *path, const char *message, const char *word, const char *meant)
{
    fprintf(stderr, "%s: %s%s\n", path, message, safe_text(word).text);
    if (meant != NULL)
        fprintf(stderr, "  -> did you mean %s?\n", meant);
    else
        fprintf(stderr, "  -> see %s --help\n", path);
    return EXIT_OURS;
}

int refuse_use(const struct command *command, const char *why, const char *remedy)
{
    fprintf(stderr, "%s: %s\n  -> %s\n", command->path, why, remedy);
    return EXIT_OURS;
}

int refuse_value(const char *option, const char *value, const char *why, const char *remedy)
{
    fprintf(stderr, "vial: %s \"%s\": %s\n  -> %s\n", option, safe_text(value).text, why, remedy);
    return OPTIONS_WRONG;
}

/* ---- commands ---- */

const struct command *command_find(const struct command *parent, const char *name)
{
    for (const struct command *const *child = parent->children; *child != NULL; child++)
        if (strcmp((*child)->name, name) == 0 || ((*child)->alias != NULL && strcmp((*child)->alias, name) == 0))
            return *child;
    return NULL;
}

static int refuse_command(const struct command *parent, const char *word)
{
    enum { most_commands = 48 };
    const char *names[most_commands + 1] = {NULL};
    size_t count = 0;
    for (const struct command *const *child = parent->children; *child != NULL && count < most_commands; child++)
        if (!(*child)->is_hidden)
            names[count++] = (*child)->name;
    return refuse_word(parent->path, "there is no command ", word, text_nearest(word, names));
}

int command_dispatch(const struct command *parent, int argc, char *argv[])
{
    if (argc < 2) {
        print_commands(parent, stderr);
        return EXIT_OURS;
    }
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        if (argc > 2 && word[0] == 'h') { /* help COMMAND … is COMMAND … --help */
            static char help[] = "--help";
            memmove(&argv[1], &argv[2], (size_t)(argc - 2) * sizeof(argv[0]));
            argv[argc - 1] = help;
            return command_dispatch(parent, argc, argv);
        }
        print_commands(parent, stdout);
        return finish_output(EXIT_YES);
    }
    const struct command *command = command_find(parent, word);
    if (command == NULL)
        return refuse_command(parent, word);
    return command->children != NULL ? command_dispatch(command, argc - 1, argv + 1)
                                     : command->run(command, argc - 1, argv + 1);
}

/* ---- options ---- */

static const struct command_option help_option = {"--help", 'h', NULL, "say this"};
static const struct command_option json_option = {"--json", 0, NULL, "the result as JSON"};

static bool each_of(const struct command_option *options, bool (*function)(void *, const struct command_option *),
                    void *user)
{
    for (; options != NULL && options->name != NULL; options++)
        if (!function(user, options))
            return false;
    return true;
}

/* A command's own --json, which says more, stands for the one that all have. */
static bool is_not_json(void *user, const struct command_option *option)
{
    (void)user;
    return strcmp(option->name, json_option.name) != 0;
}

void command_each_option(const struct command *command, bool (*function)(void *, const struct command_option *),
                         void *user)
{
    bool needs_json = !command->has_no_json;
    for (size_t i = 0; i < array_length(command->options); i++) {
        needs_json = needs_json && each_of(command->options[i], is_not_json, NULL);
        if (!each_of(command->options[i], function, user))
            return;
    }
    if (!needs_json || function(user, &json_option))
        function(user, &help_option);
}

struct wanted {
    const char *name; /* of `length`; or NULL */
    size_t length;
    char letter;
    const struct command_option *found;
};

static bool match_option(void *user, const struct command_option *option)
{
    struct wanted *wanted = user;
    bool is_it = wanted->name == NULL ? option->letter == wanted->letter
                                      : strlen(option->name) == wanted->length &&
                                            strncmp(option->name, wanted->name, wanted->length) == 0;
    if (is_it)
        wanted->found = option;
    return !is_it;
}

const struct command_option *command_find_option(const struct command *command, const char *word)
{
    struct wanted wanted = {0};
    if (word[0] != '-' || word[1] == '\0')
        return NULL;
    if (word[1] == '-') {
        wanted.name = word;
        wanted.length = strcspn(word, "=");
    } else {
        wanted.letter = word[1];
    }
    command_each_option(command, match_option, &wanted);
    return wanted.found;
}

struct name_list {
    const char *names[96];
    size_t count;
};

static bool add_name(void *user, const struct command_option *option)
{
    struct name_list *list = user;
    list->names[list->count++] = option->name;
    return list->count + 1 < array_length(list->names);
}

static int refuse_option(const struct command *command, const char *word)
{
    struct name_list list = {.count = 0};
    command_each_option(command, add_name, &list);
    refuse_word(command->path, "there is no option ", word, text_nearest(word, list.names));
    return OPTIONS_WRONG;
}

struct reading {
    const struct command *command;
    void *user;
    bool *is_json;
};

/* Gives the option its value: 0, OPTIONS_DONE or OPTIONS_WRONG. */
static int give(const struct reading *reading, const struct command_option *option, const char *value)
{
    if (option == &help_option) {
        print_help(reading->command, stdout);
        return finish_output(EXIT_YES) == EXIT_YES ? OPTIONS_DONE : OPTIONS_WRONG;
    }
    if (option->take == NULL) { /* --json, in whatever words a command describes it */
        *reading->is_json = true;
        return 0;
    }
    return option->take(reading->user, option, value) != 0 ? OPTIONS_WRONG : 0;
}

/* --name, --name=VALUE, --name VALUE. How many words it took, or what give says. */
static int take_long(const struct reading *reading, int argc, char *argv[])
{
    const struct command_option *option = command_find_option(reading->command, argv[0]);
    const char *equals = strchr(argv[0], '=');
    if (option == NULL)
        return refuse_option(reading->command, argv[0]);
    const char *wrong = option->value == NULL && equals != NULL               ? "this option takes no value: "
                        : option->value != NULL && equals == NULL && argc < 2 ? "this option needs a value: "
                                                                              : NULL;
    if (wrong != NULL) {
        refuse_word(reading->command->path, wrong, argv[0], NULL);
        return OPTIONS_WRONG;
    }
    bool takes_next = option->value != NULL && equals == NULL;
    int result = give(reading, option, takes_next ? argv[1] : equals != NULL ? equals + 1 : NULL);
    return result < 0 ? result : 1 + takes_next;
}

/* -x, -xyz, -xVALUE, -x VALUE: letters up to the first that takes a value. */
static int take_letters(const struct reading *reading, int argc, char *argv[])
{
    for (const char *letter = argv[0] + 1; *letter != '\0'; letter++) {
        const char word[] = {'-', *letter, '\0'};
        const struct command_option *option = command_find_option(reading->command, word);
        if (option == NULL)
            return refuse_option(reading->command, argv[0]);
        if (option->value == NULL) {
            int result = give(reading, option, NULL);
            if (result < 0)
                return result;
            continue;
        }
        bool takes_next = letter[1] == '\0';
        if (takes_next && argc < 2) {
            refuse_word(reading->command->path, "this option needs a value: ", word, NULL);
            return OPTIONS_WRONG;
        }
        int result = give(reading, option, takes_next ? argv[1] : letter + 1 + (letter[1] == '='));
        return result < 0 ? result : 1 + takes_next;
    }
    return 1;
}

static int check_operands(const struct command *command, int operands, int min_operands, int max_operands, char *argv[])
{
    if (operands < min_operands) {
        refuse_word(command->path, "an operand is missing: ", command->arguments, NULL);
        return OPTIONS_WRONG;
    }
    if (operands > max_operands) {
        refuse_word(command->path, "there is one operand too many: ", argv[1 + max_operands], NULL);
        return OPTIONS_WRONG;
    }
    return operands;
}

int command_options(const struct command *command, void *user, int argc, char *argv[], int min_operands,
                    int max_operands, bool *ret_is_json)
{
    const struct reading reading = {.command = command, .user = user, .is_json = ret_is_json};
    int operands = 0;
    bool is_over = false; /* everything is an operand from here on */
    *ret_is_json = false;
    for (int i = 1; i < argc;) {
        char *word = argv[i];
        int taken = 1;
        if (is_over || word[0] != '-' || word[1] == '\0') {
            argv[1 + operands++] = word; /* operands move to the front */
            is_over = is_over || command->stops_at_operand;
        } else if (strcmp(word, "--") == 0) {
            is_over = true;
        } else if (word[1] == '-') {
            taken = take_long(&reading, argc - i, argv + i);
        } else {
            taken = take_letters(&reading, argc - i, argv + i);
        }
        if (taken < 0)
            return taken;
        i += taken;
    }
    argv[1 + operands] = NULL;
    return check_operands(command, operands, min_operands, max_operands, argv);
}

/* ---- ordinary options ---- */

static void *member_of(void *user, const struct command_option *option)
{
    return (char *)user + option->member;
}

int take_true(void *user, const struct command_option *option, const char *value)
{
    (void)value;
    *(bool *)member_of(user, option) = true;
    return 0;
}

int take_word(void *user, const struct command_option *option, const char *value)
{
    if (value[0] == '\0')
        return refuse_value(option->name, value, "it is empty", "give it a value");
    *(const char **)member_of(user, option) = value;
    return 0;
}

int take_number(void *user, const struct command_option *option, const char *value)
{
    if (text_to_u64(value, strlen(value), INT64_MAX, member_of(user, option)) < 0)
        return refuse_value(option->name, value, "it is no such number", "give a whole number");
    return 0;
}

/* 30, 30s, 5m, 2h, 1d, 500ms. */
int take_time(void *user, const struct command_option *option, const char *value)
{
    static const struct {
        const char *suffix;
        uint64_t ms;
    } units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    size_t digits = strspn(value, "0123456789");
    uint64_t number = 0;
    for (size_t i = 0; i < array_length(units); i++) {
        if (strcmp(value + digits, units[i].suffix) != 0 ||
            text_to_u64(value, digits, (UINT64_MAX >> 1) / units[i].ms, &number) < 0)
            continue;
        *(uint64_t *)member_of(user, option) = number * units[i].ms;
        return 0;
    }
    return refuse_value(option->name, value, "it is no time",
                        "give seconds, or a number with ms, s, m, h or d, such as 5m");
}

/* ---- signals ---- */

int command_watch_signals(struct loop *loop, loop_function function, void *user)
{
    static const int ending[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
    struct loop_source *source = NULL; /* the loop's */
    struct sigaction action;
    sigset_t pipe;
    int result = 0;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, NULL);
    for (size_t i = 0; i < array_length(ending) && result == 0; i++)
        if (sigaction(ending[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN) /* a signalfd would get it */
            result = loop_add_signal(loop, ending[i], function, user, &source);
    return result;
}
