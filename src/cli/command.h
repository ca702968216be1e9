// SPDX-License-Identifier: Apache-2.0
/* The command line's frame: one tree of commands with their options, one way to read them, to print, to fail. What
 * --help, the manual pages and the shells' completion say comes from the same tree. */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include "base/json.h"
#include "base/loop.h"
#include "vial/base.h"
#include "vial/vmm.h"

#include <stdio.h>

enum {
    EXIT_YES = 0,
    EXIT_NO = 1,          /* the question was answered, and the answer is no */
    EXIT_TIMED_OUT = 124, /* as of timeout(1) */
    EXIT_OURS = 125,      /* vial itself could not do what it was asked (wrong options, no memory, …) */
    EXIT_NOT_EXECUTED = 126,
    EXIT_NOT_FOUND = 127,
    EXIT_SIGNAL = 128, /* and the signal's number */
};

/* What a shell completes a word to. */
enum command_completion {
    COMPLETE_NOTHING,
    COMPLETE_FILE,
    COMPLETE_FOLDER,
    COMPLETE_SANDBOX, /* any */
    COMPLETE_RUNNING, /* one that lives */
    COMPLETE_STOPPED, /* one that does not */
    COMPLETE_COPY,    /* a file, or a file of a sandbox that lives */
    COMPLETE_COMMAND, /* a command of vial */
};

struct command_option {
    const char *name;  /* with its dashes; ends the table when NULL */
    char letter;       /* of the short form, such as 'v' for -v, or 0 */
    const char *value; /* what its value is called, such as FILE: --name VALUE or --name=VALUE. NULL: it takes none */
    const char *help;  /* without a full stop; NULL: it is not shown */
    /* 0, or anything else when it has reported what is wrong; `value` is NULL for an option that takes none */
    int (*take)(void *user, const struct command_option *option, const char *value);
    size_t member;       /* for `take`: where in a struct of its own the value goes */
    const char *choices; /* all values there are, with a space between; or NULL */
    enum command_completion completes;
};

struct command {
    const char *name;
    const char *alias;     /* another name, or NULL */
    const char *path;      /* the whole name, as in "vial vm check" */
    const char *group;     /* the heading that it stands under, for the first ones of a group */
    const char *arguments; /* as in "[--json] FILE" */
    const char *summary;   /* one line */
    const char *about;     /* what else there is to say, or NULL: paragraphs, an empty line between two */
    const char *statuses;  /* the exit status, as in "0 when …, 1 when …"; or NULL */
    const struct command_option *options[3];                           /* its tables, as far as there are some */
    int (*run)(const struct command *command, int argc, char *argv[]); /* argv[0] is the command's own name */
    const struct command *const *children;                             /* subcommands instead of run; ends with NULL */
    enum command_completion operand;
    bool has_no_json;      /* else it knows --json */
    bool stops_at_operand; /* options end at the first operand: what follows is somebody else's */
    bool is_hidden;        /* not for people */
};

extern const struct command command_root;
extern const struct command command_boot, command_device, command_disk, command_doctor, command_vm, command_vm_inspect;
extern const struct command command_attach, command_cp, command_create, command_events, command_exec, command_inspect,
    command_kill, command_logs, command_ls, command_prune, command_rename, command_restart, command_rm, command_run,
    command_start, command_stats, command_stop, command_wait;
extern const struct command command_complete, command_completion, command_man, command_sandbox_process;

/* Finds the subcommand of `parent` that argv[1] names, and runs it. */
int command_dispatch(const struct command *parent, int argc, char *argv[]);

/* The subcommand of that name, or NULL. */
const struct command *command_find(const struct command *parent, const char *name);

/* Reads the command's options, --help, --json unless it has none, and operands. Returns the number of operands, which
 * then stand in argv[1] and behind and are followed by NULL, or what there is to do instead. */
enum { OPTIONS_DONE = -1, OPTIONS_WRONG = -2 }; /* --help was shown; an error was reported */
int command_options(const struct command *command, void *user, int argc, char *argv[], int min_operands,
                    int max_operands, bool *ret_is_json);

/* What `main` returns for a negative number of operands. */
static inline int options_status(int operands)
{
    return operands == OPTIONS_DONE ? EXIT_YES : EXIT_OURS;
}

/* The option of a word like --name, --name=value or -n; NULL when there is none. */
const struct command_option *command_find_option(const struct command *command, const char *word);

/* Takers for ordinary options, whose `member` is an offset in `user`. */
int take_true(void *user, const struct command_option *option, const char *value);   /* a bool */
int take_word(void *user, const struct command_option *option, const char *value);   /* a const char *, borrowed */
int take_number(void *user, const struct command_option *option, const char *value); /* a uint64_t */
int take_time(void *user, const struct command_option *option, const char *value);   /* a uint64_t in milliseconds */

/* Says what is wrong with an option's value: not 0. */
int refuse_value(const char *option, const char *value, const char *why, const char *remedy);

/* Says that a command cannot be used so: EXIT_OURS. */
int refuse_use(const struct command *command, const char *why, const char *remedy);

/* For commands that go on until they are told to end: has the function called, with its number, for each signal that
 * asks for that and was not ignored when the command started (nohup(1), background jobs of scripts). A reader of our
 * output that is gone is no reason to end any more. 0 or -errno. */
int command_watch_signals(struct loop *loop, loop_function function, void *user);

/* ---- printing ---- */

/* What is printed goes through these. Colours are empty strings unless the stream is a terminal and NO_COLOR is
 * unset. */
struct palette {
    const char *bold, *red, *green, *yellow, *dim, *off;
};
const struct palette *palette_for(FILE *stream);

/* Whether a line there can be written over: for progress. */
bool is_live_terminal(FILE *stream);

/* Prints the document on stdout with a newline behind it and releases it: the exit status, EXIT_OURS when it fails. */
int print_json(json_t *document, int status);

/* The same on one line, for what comes one by one. */
int print_json_line(json_t *document, FILE *stream);

/* What failed, where and what to do, on stderr. `subject` (a file, say) may be NULL. */
void print_error(const char *subject, const struct vial_error *error);
json_t *error_to_json(const struct vial_error *error);

/* The exit status for it: a shell's, where a program could not be started, else EXIT_OURS. */
int status_of_error(const struct vial_error *error);

/* Whether a sandbox has come to an end that has no exit code, and that nobody has asked for. */
static inline bool has_gone_wrong(int32_t reason)
{
    return reason >= VIAL_EXIT_GUEST_PANIC;
}

/* Flushes stdout: `status`, or EXIT_OURS with a message when something did not reach it. A reader that has gone away is
 * no error of ours: 128 + SIGPIPE, without a word. */
int finish_output(int status);

/* A text of others, safe for a terminal and for JSON. */
struct safe_text {
    char text[512];
};
struct safe_text safe_text(const char *text);

/* ---- what is made of the tree ---- */

void print_help(const struct command *command, FILE *stream);
void print_commands(const struct command *parent, FILE *stream);

/* Calls it for every option, those that all commands have among them, until it returns false. */
void command_each_option(const struct command *command,
                         bool (*function)(void *user, const struct command_option *option), void *user);

#endif
