// SPDX-License-Identifier: Apache-2.0
/* vial man: manual pages, made of the tree of commands when Vial is built.
 *
 *     vial man             the names of all pages, a line each: vial, vial-run, vial-disk-create, …
 *     vial man vial-run    that page, in the language of man(7)
 *
 * Trust: all texts are ours.
 */
#include "cli/command.h"

#include <string.h>

/* A text with what means something to roff kept from meaning it: a backslash, a hyphen that is to be copied, a dot or
 * quote that begins a line; and an ellipsis, which a terminal without UTF-8 would not show at all. */
static void put_text(const char *text)
{
    static const char ellipsis[] = "…";
    if (*text == '.' || *text == '\'')
        fputs("\\&", stdout);
    for (; *text != '\0'; text++) {
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else if (strncmp(text, ellipsis, sizeof(ellipsis) - 1) == 0) {
            fputs("...", stdout);
            text += sizeof(ellipsis) - 2; /* and the loop one more */
        } else if (text[0] == '\n' && text[1] == '\n')
            fputs("\n.PP", stdout);
        else
            putchar(*text);
    }
}

static void put_page_name(const char *path)
{
    for (; *path != '\0'; path++)
        putchar(*path == ' ' ? '-' : *path);
}

static void put_names(const struct command *parent)
{
    put_page_name(parent->path);
    putchar('\n');
    for (const struct command *const *child = parent->children; child != NULL && *child != NULL; child++)
        if (!(*child)->is_hidden)
            put_names(*child);
}

/* The command that the page is of, or NULL. */
static const struct command *find_page(const struct command *parent, const char *page)
{
    size_t i = 0;
    const char *path = parent->path;
    while (path[i] != '\0' && page[i] == (path[i] == ' ' ? '-' : path[i]))
        i++;
    if (path[i] != '\0')
        return NULL;
    if (page[i] == '\0')
        return parent;
    const struct command *found = NULL;
    for (const struct command *const *child = parent->children; child != NULL && *child != NULL && found == NULL;
         child++)
        if (!(*child)->is_hidden)
            found = find_page(*child, page);
    return found;
}

static bool put_option(void *user, const struct command_option *option)
{
    (void)user;
    if (option->help == NULL)
        return true;
    fputs(".TP\n", stdout);
    fputs("\\fB", stdout);
    if (option->letter != '\0')
        printf("\\-%c\\fR, \\fB", option->letter);
    put_text(option->name);
    fputs("\\fR", stdout);
    if (option->value != NULL) {
        fputs(" \\fI", stdout);
        put_text(option->value);
        fputs("\\fR", stdout);
    }
    putchar('\n');
    put_text(option->help);
    fputs(".\n", stdout);
    return true;
}

static void put_commands(const struct command *parent)
{
    fputs(".SH COMMANDS\n", stdout);
    for (const struct command *const *child = parent->children; *child != NULL; child++) {
        if ((*child)->is_hidden)
            continue;
        fputs(".TP\n\\fB", stdout);
        put_page_name((*child)->path);
        fputs("\\fR(1)\n", stdout);
        put_text((*child)->summary);
        fputs(".\n", stdout);
    }
}

static void put_section(const char *heading, const char *text)
{
    if (text == NULL)
        return;
    printf(".SH %s\n", heading);
    put_text(text);
    fputs(".\n", stdout);
}

static void put_page(const struct command *command)
{
    bool has_children = command->children != NULL;
    fputs(".TH \"", stdout);
    put_page_name(command->path);
    printf("\" 1 \"\" \"vial %s\"\n.SH NAME\n", vial_version());
    put_page_name(command->path);
    fputs(" \\- ", stdout);
    put_text(command->summary);
    fputs("\n.SH SYNOPSIS\n\\fB", stdout);
    put_text(command->path);
    fputs("\\fR ", stdout);
    put_text(has_children ? "COMMAND [OPTIONS]" : command->arguments);
    putchar('\n');
    if (command->about != NULL) {
        fputs(".SH DESCRIPTION\n", stdout);
        put_text(command->about);
        putchar('\n');
    }
    if (has_children) {
        put_commands(command);
    } else {
        fputs(".SH OPTIONS\n", stdout);
        command_each_option(command, put_option, NULL);
    }
    put_section("EXIT STATUS", command->statuses);
    fputs(".SH SEE ALSO\n\\fBvial\\fR(1)\n", stdout);
}

static int run_man(const struct command *self, int argc, char *argv[])
{
    bool is_json = false;
    int operands = command_options(self, NULL, argc, argv, 0, 1, &is_json);
    if (operands < 0)
        return options_status(operands);
    if (operands == 0) {
        put_names(&command_root);
        return finish_output(EXIT_YES);
    }
    const struct command *command = find_page(&command_root, argv[1]);
    if (command == NULL)
        return refuse_use(self, "there is no such page", "vial man prints the names of all");
    put_page(command);
    return finish_output(EXIT_YES);
}

const struct command command_man = {
    .name = "man",
    .path = "vial man",
    .arguments = "[PAGE]",
    .summary = "Print a manual page",
    .run = run_man,
    .is_hidden = true,
    .has_no_json = true,
};
