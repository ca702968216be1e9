// SPDX-License-Identifier: Apache-2.0
/* What --help says of a command, made of its row in the tree.
 *
 *     usage: vial stop [OPTIONS] SANDBOX...
 *
 *     Summary.
 *
 *     What else there is to say.
 *
 *     options:
 *       -t, --time TIME       what it is for, in a column of its own that is
 *                             wrapped between words
 *
 *     exit status: …
 *
 * Trust: all texts are ours.
 */
#include "cli/command.h"

#include <string.h>

enum { WIDTH = 110, OPTION_COLUMN = 28 };

/* Prints the text from column `at` on, wrapped at the width, with `indent` spaces before each further line. An empty
 * line in the text is one in the output. */
static void print_wrapped(FILE *stream, const char *text, size_t at, size_t indent)
{
    size_t column = at;
    bool is_first = true;
    while (*text != '\0') {
        size_t spaces = strspn(text, " \n"), newlines = 0;
        for (size_t i = 0; i < spaces; i++)
            newlines += text[i] == '\n';
        text += spaces;
        size_t length = strcspn(text, " \n");
        if (newlines > 1) {
            fprintf(stream, "\n\n%*s", (int)indent, "");
            column = indent;
        } else if (!is_first && column + 1 + length > WIDTH) {
            fprintf(stream, "\n%*s", (int)indent, "");
            column = indent;
        } else if (!is_first) {
            putc(' ', stream);
            column++;
        }
        fprintf(stream, "%.*s", (int)length, text);
        column += length;
        text += length;
        is_first = false;
    }
    putc('\n', stream);
}

static bool print_option(void *user, const struct command_option *option)
{
    FILE *stream = user;
    const struct palette *colour = palette_for(stream);
    char names[128];
    if (option->help == NULL)
        return true;
    if (option->letter != '\0')
        snprintf(names, sizeof(names), "-%c, %s", option->letter, option->name);
    else
        snprintf(names, sizeof(names), "    %s", option->name);
    const char *value = option->value != NULL ? option->value : "", *gap = option->value != NULL ? " " : "";
    size_t length = 2 + strlen(names) + strlen(gap) + strlen(value);
    fprintf(stream, "  %s%s%s%s%s", colour->bold, names, colour->off, gap, value);
    if (length + 2 > OPTION_COLUMN)
        fprintf(stream, "\n%*s", OPTION_COLUMN, "");
    else
        fprintf(stream, "%*s", (int)(OPTION_COLUMN - length), "");
    print_wrapped(stream, option->help, OPTION_COLUMN, OPTION_COLUMN);
    return true;
}

void print_help(const struct command *command, FILE *stream)
{
    const struct palette *colour = palette_for(stream);
    fprintf(stream, "%susage:%s %s %s\n\n%s.\n", colour->bold, colour->off, command->path, command->arguments,
            command->summary);
    if (command->about != NULL) {
        putc('\n', stream);
        print_wrapped(stream, command->about, 0, 0);
    }
    fprintf(stream, "\n%soptions:%s\n", colour->bold, colour->off);
    command_each_option(command, print_option, stream);
    if (command->statuses != NULL) {
        putc('\n', stream);
        fprintf(stream, "%sexit status:%s ", colour->bold, colour->off);
        print_wrapped(stream, command->statuses, strlen("exit status: "), 0);
    }
}

void print_commands(const struct command *parent, FILE *stream)
{
    const struct palette *colour = palette_for(stream);
    fprintf(stream, "%susage:%s %s COMMAND [OPTIONS]\n", colour->bold, colour->off, parent->path);
    if (parent->children[0]->group == NULL)
        fprintf(stream, "\n%scommands:%s\n", colour->bold, colour->off);
    for (const struct command *const *child = parent->children; *child != NULL; child++) {
        if ((*child)->is_hidden)
            continue;
        if ((*child)->group != NULL)
            fprintf(stream, "\n%s%s:%s\n", colour->bold, (*child)->group, colour->off);
        fprintf(stream, "  %s%-11s%s %s\n", colour->bold, (*child)->name, colour->off, (*child)->summary);
    }
    fprintf(stream, "\n%s COMMAND --help says more about one.\n", parent->path);
}
