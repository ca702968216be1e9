// SPDX-License-Identifier: Apache-2.0
/* What the commands for sandboxes share: their options, finding one by its name, telling what it is. */
#ifndef CLI_SANDBOX_H
#define CLI_SANDBOX_H

#include "cli/machine.h"
#include "vial/vial.h"

/* ---- words ---- */

/* Strings of our own, followed by NULL. */
struct word_list {
    char **items; /* owned, each; NULL while there is none */
    size_t count, capacity;
};

/* 0 or -errno (-E2BIG: too many). */
int word_list_add(struct word_list *list, const char *text);
void word_list_free(struct word_list *list);
const char *const *word_list_items(const struct word_list *list); /* NULL for none */

/* ---- what is asked for ---- */

/* `machine` stands first, for its own table of options. */
struct sandbox_arguments {
    struct machine_arguments machine;

    /* A program's (program_options). */
    bool wants_input, wants_terminal, refuses_terminal;
    struct word_list env, rlimits;
    const char *workdir, *user; /* borrowed from argv, as are all texts here */
    uint64_t timeout_ms;        /* 0: none */

    /* A sandbox's (sandbox_options). */
    const char *name, *entrypoint, *hostname;
    struct word_list labels, scripts;
    uint64_t idle_timeout_ms, max_duration_ms, stop_grace_ms;
    bool is_removed, is_detached, is_replacing, is_read_only, pulls_never;

    bool is_json;
};

extern const struct command_option program_options[]; /* of run, create and exec */
void sandbox_arguments_free(struct sandbox_arguments *arguments);

/* The program that the words and options describe; whether it has a terminal depends on ours. `terminal`, a place for a
 * TERM=…, and the words must outlive it. 0, or not 0 with the reason on stderr. */
int sandbox_take_program(const struct command *command, struct sandbox_arguments *arguments, const char *const words[],
                         struct vial_program_options *ret_program);

/* ---- finding them ---- */

static inline void release_home(struct vial_home **home)
{
    vial_home_free(*home);
}

static inline void release_sandbox(struct vial_sandbox **sandbox)
{
    vial_sandbox_free(*sandbox);
}

static inline void release_process(struct vial_process **process)
{
    vial_process_free(*process);
}

#define auto_home __attribute__((cleanup(release_home)))
#define auto_sandbox __attribute__((cleanup(release_sandbox)))
#define auto_process __attribute__((cleanup(release_process)))

/* Opens the home, and in it the sandbox. 0, or not 0 with the reason on stderr. */
int sandbox_open_home(const struct command *command, struct vial_home **ret_home);
int sandbox_open(const struct command *command, const char *name, struct vial_home **ret_home,
                 struct vial_sandbox **ret_sandbox);

/* Does it with every sandbox that is named, whatever becomes of the others: EXIT_YES when all went well. `function`
 * returns 0, or -errno with an error, which is reported with the name; a positive value has been reported. With
 * `is_told` the names of those that it is done with are printed. */
typedef int (*sandbox_function)(void *user, struct vial_sandbox *sandbox, const char *name, struct vial_error *error);
int sandbox_each(const struct command *command, char *const names[], bool is_told, sandbox_function function,
                 void *user);

/* ---- telling of them ---- */

/* How long ago that was (ns since 1970), as in "5 minutes". */
struct time_text {
    char text[32];
};
struct time_text time_since(uint64_t unix_ns);

/* As in 2026-05-31T12:00:00.123Z. */
struct time_text time_of_day(uint64_t unix_ns);

/* As in "1.5 GiB". */
struct amount_text {
    char text[32];
};
struct amount_text amount_text(uint64_t bytes);

/* A name or null. */
json_t *json_or_null(const char *text);

json_t *sandbox_to_json(const struct vial_sandbox_info *info);

#endif
