// SPDX-License-Identifier: Apache-2.0
/* The command line's frame: one table of commands, one way to read options, to print, to fail. */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include "base/json.h"
#include "base/loop.h"
#include "vial/base.h"

#include <stdio.h>

enum {
    EXIT_YES = 0,
    EXIT_NO = 1,     /* the question was answered, and the answer is no */
    EXIT_OURS = 125, /* vial itself could not do what it was asked (wrong options, no memory, …) */
};

struct command {
    const char *name;
    const char *arguments; /* as in "[--json] FILE" */
    const char *summary;   /* one line */
    const char *help;      /* what --help says below the summary; ends with a newline */
    int (*run)(const struct command *command, int argc, char *argv[]); /* argv[0] is the command's own name */
    const struct command *children; /* subcommands instead of run; ends with a NULL name */
    const char *path;               /* the whole name, as in "vial vm check" */
};

extern const struct command command_boot, command_device, command_doctor, command_inspect, command_vm;

/* Finds the command in the table and runs it; `path` is what stands before it, for messages. */
int command_dispatch(const struct command *table, const char *path, int argc, char *argv[]);

/* Options of a command's own. */
struct command_option {
    const char *name; /* with its dashes; ends the table when NULL */
    bool has_value;   /* --name VALUE or --name=VALUE; value is NULL otherwise */
    /* 0, or anything else when it has reported what is wrong */
    int (*take)(void *user, const struct command_option *option, const char *value);
    size_t member; /* for `take`: where in a struct of its own the value goes */
};

/* Reads the options of a command that knows these (NULL: none of its own), --json, --help, and operands. Returns the
 * number of operands, which then stand in argv[1] and behind, or what there is to do instead. */
enum { OPTIONS_DONE = -1, OPTIONS_WRONG = -2 }; /* --help was shown; an error was reported */
int command_options(const struct command *command, const struct command_option *options, void *user, int argc,
                    char *argv[], int min_operands, int max_operands, bool *ret_is_json);

/* Says what is wrong with an option's value: not 0. */
int refuse_value(const char *option, const char *value, const char *why, const char *remedy);

/* For commands that go on until they are told to end: has the function called, with its number, for each signal that
 * asks for that and was not ignored when the command started (nohup(1), background jobs of scripts). A reader of our
 * output that is gone is no reason to end any more. 0 or -errno. */
int command_watch_signals(struct loop *loop, loop_function function, void *user);

/* What is printed goes through these. Colours are empty strings unless the stream is a terminal and NO_COLOR is
 * unset. */
struct palette {
    const char *bold, *red, *green, *yellow, *dim, *off;
};
const struct palette *palette_for(FILE *stream);

/* Prints the document on stdout with a newline behind it and releases it: the exit status, EXIT_OURS when it fails. */
int print_json(json_t *document, int status);

/* What failed, where and what to do, on stderr. `subject` (a file, say) may be NULL. */
void print_error(const char *subject, const struct vial_error *error);
json_t *error_to_json(const struct vial_error *error);

/* Flushes stdout: `status`, or EXIT_OURS with a message when something did not reach it. */
int finish_output(int status);

#endif
