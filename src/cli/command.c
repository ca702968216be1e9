// SPDX-License-Identifier: Apache-2.0
/* The command line's frame: dispatch, options, printing, failing.
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

int finish_output(int status)
{
    if (fflush(stdout) == 0 && ferror(stdout) == 0)
        return status;
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

json_t *error_to_json(const struct vial_error *error)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:i}", "code", vial_error_code_name(error->code), "phase",
                     vial_phase_name(error->phase), "field", error->field, "value", error->value, "message",
                     error->message, "remedy", error->remedy, "errno", error->os_error);
}

void print_error(const char *subject, const struct vial_error *error)
{
    const struct palette *colour = palette_for(stderr);
    char safe[256] = "";
    if (subject != NULL)
        text_escape(safe, sizeof(safe), subject, strlen(subject), "");
    fprintf(stderr, "%s%s%serror:%s %s%s%s\n", safe, subject != NULL ? ": " : "", colour->red, colour->off,
            error->field, error->field[0] != '\0' ? ": " : "", error->message);
    if (error->remedy[0] != '\0')
        fprintf(stderr, "  %s->%s %s\n", colour->bold, colour->off, error->remedy);
}

/* ---- help ---- */

static void print_table(const struct command *table, const char *path, FILE *stream)
{
    const struct palette *colour = palette_for(stream);
    fprintf(stream, "%susage:%s %s COMMAND [OPTIONS]\n\ncommands:\n", colour->bold, colour->off, path);
    for (const struct command *command = table; command->name != NULL; command++)
        fprintf(stream, "  %s%-10s%s %s\n", colour->bold, command->name, colour->off, command->summary);
    fprintf(stream, "\n%s COMMAND --help says more about one.\n", path);
}

static void print_help(const struct command *command, FILE *stream)
{
    const struct palette *colour = palette_for(stream);
    fprintf(stream, "%susage:%s %s %s\n\n%s.\n\n%s", colour->bold, colour->off, command->path, command->arguments,
            command->summary, command->help);
}

static int refuse_usage(const char *path, const char *message, const char *word, const char *meant)
{
    char safe[128];
    text_escape(safe, sizeof(safe), word, strlen(word), "");
    fprintf(stderr, "%s: %s%s\n", path, message, safe);
    if (meant != NULL)
        fprintf(stderr, "  -> did you mean %s?\n", meant);
    else
        fprintf(stderr, "  -> see %s --help\n", path);
    return EXIT_OURS;
}

int command_dispatch(const struct command *table, const char *path, int argc, char *argv[])
{
    enum { most_commands = 32 };
    if (argc < 2) {
        print_table(table, path, stderr);
        return EXIT_OURS;
    }
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        if (argc > 2 && word[0] == 'h') { /* help COMMAND … is COMMAND … --help */
            static char help[] = "--help";
            memmove(&argv[1], &argv[2], (size_t)(argc - 2) * sizeof(argv[0]));
            argv[argc - 1] = help;
            return command_dispatch(table, path, argc, argv);
        }
        print_table(table, path, stdout);
        return finish_output(EXIT_YES);
    }
    const char *names[most_commands + 1] = {NULL};
    for (size_t i = 0; i < most_commands && table[i].name != NULL; i++) {
        const struct command *command = &table[i];
        names[i] = command->name;
        if (strcmp(word, command->name) != 0)
            continue;
        return command->children != NULL ? command_dispatch(command->children, command->path, argc - 1, argv + 1)
                                         : command->run(command, argc - 1, argv + 1);
    }
    return refuse_usage(path, "there is no command ", word, text_nearest(word, names));
}

int refuse_value(const char *option, const char *value, const char *why, const char *remedy)
{
    char safe[128];
    text_escape(safe, sizeof(safe), value, strlen(value), "");
    fprintf(stderr, "vial: %s \"%s\": %s\n  -> %s\n", option, safe, why, remedy);
    return OPTIONS_WRONG;
}

/* The option that the word names, up to its '='; NULL when there is none. */
static const struct command_option *find_option(const struct command_option *options, const char *word)
{
    size_t length = strcspn(word, "=");
    for (; options != NULL && options->name != NULL; options++)
        if (strlen(options->name) == length && strncmp(options->name, word, length) == 0)
            return options;
    return NULL;
}

static int refuse_option(const struct command *command, const struct command_option *options, const char *word)
{
    enum { most_options = 64 };
    const char *names[most_options + 3] = {"--help", "--json"};
    for (size_t i = 0; options != NULL && options[i].name != NULL && i < most_options; i++)
        names[i + 2] = options[i].name;
    refuse_usage(command->path, "there is no option ", word, text_nearest(word, names));
    return OPTIONS_WRONG;
}

/* Takes the option at argv[0]: how many words it was, or OPTIONS_WRONG. */
static int take_option(const struct command *command, const struct command_option *options, void *user, int argc,
                       char *argv[])
{
    const struct command_option *option = find_option(options, argv[0]);
    const char *equals = strchr(argv[0], '=');
    if (option == NULL)
        return refuse_option(command, options, argv[0]);
    if (!option->has_value && equals != NULL) {
        refuse_usage(command->path, "this option takes no value: ", argv[0], NULL);
        return OPTIONS_WRONG;
    }
    if (option->has_value && equals == NULL && argc < 2) {
        refuse_usage(command->path, "this option needs a value: ", argv[0], NULL);
        return OPTIONS_WRONG;
    }
    const char *value = !option->has_value ? NULL : equals != NULL ? equals + 1 : argv[1];
    if (option->take(user, option, value) != 0)
        return OPTIONS_WRONG;
    return option->has_value && equals == NULL ? 2 : 1;
}

static int check_operands(const struct command *command, int operands, int min_operands, int max_operands, char *argv[])
{
    if (operands < min_operands) {
        refuse_usage(command->path, "an operand is missing: ", command->arguments, NULL);
        return OPTIONS_WRONG;
    }
    if (operands > max_operands) {
        refuse_usage(command->path, "there is one operand too many: ", argv[1 + max_operands], NULL);
        return OPTIONS_WRONG;
    }
    return operands;
}

int command_options(const struct command *command, const struct command_option *options, void *user, int argc,
                    char *argv[], int min_operands, int max_operands, bool *ret_is_json)
{
    int operands = 0;
    bool is_over = false; /* behind --, everything is an operand */
    *ret_is_json = false;
    for (int i = 1; i < argc;) {
        char *word = argv[i];
        int taken = 1;
        if (is_over || word[0] != '-' || word[1] == '\0') {
            argv[1 + operands++] = word; /* operands move to the front */
        } else if (strcmp(word, "--") == 0) {
            is_over = true;
        } else if (strcmp(word, "--json") == 0) {
            *ret_is_json = true;
        } else if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            print_help(command, stdout);
            return finish_output(EXIT_YES) == EXIT_YES ? OPTIONS_DONE : OPTIONS_WRONG;
        } else {
            taken = take_option(command, options, user, argc - i, argv + i);
        }
        if (taken < 0)
            return taken;
        i += taken;
    }
    return check_operands(command, operands, min_operands, max_operands, argv);
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
