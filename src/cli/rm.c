// SPDX-License-Identifier: Apache-2.0
/* vial rm and prune: forgetting sandboxes, with all that they have left.
 *
 * Invariants: (1) prune removes nothing that nobody has agreed to: --force, or a yes on a terminal.
 *
 * Trust: arguments are the user's own.
 */
#include "cli/sandbox.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

struct arguments {
    bool is_forced, is_json;
    struct word_list labels;
};

/* ---- rm ---- */

/* With --force one that is gone already is as it should be, even if somebody else was quicker just now. */
static int remove_each(const struct command *command, char *const names[], bool is_forced)
{
    auto_home struct vial_home *home = NULL;
    int status = EXIT_YES;
    if (sandbox_open_home(command, &home) < 0)
        return EXIT_OURS;
    for (; *names != NULL; names++) {
        auto_sandbox struct vial_sandbox *sandbox = NULL;
        struct vial_error error = {0};
        int result = vial_sandbox_open(home, *names, &sandbox, &error);
        if (result == -ENOENT && is_forced)
            continue;
        if (result == 0)
            result = vial_sandbox_remove(sandbox, is_forced, &error);
        if (result == 0) {
            printf("%s\n", safe_text(*names).text);
        } else {
            print_error(*names, &error);
            status = EXIT_OURS;
        }
    }
    return finish_output(status);
}

static int run_rm(const struct command *command, int argc, char *argv[])
{
    struct arguments arguments = {0};
    int operands = command_options(command, &arguments, argc, argv, 1, LIMIT_STRINGS, &arguments.is_json);
    return operands < 0 ? options_status(operands) : remove_each(command, argv + 1, arguments.is_forced);
}

static const struct command_option rm_options[] = {
    {"--force", 'f', NULL, "kill those that run; one that does not exist is no error", take_true,
     offsetof(struct arguments, is_forced)},
    {.name = NULL},
};

const struct command command_rm = {
    .name = "rm",
    .path = "vial rm",
    .arguments = "[OPTIONS] SANDBOX...",
    .summary = "Remove sandboxes, with their logs",
    .statuses = "0 when all are gone, 125 when one could not be removed",
    .options = {rm_options},
    .run = run_rm,
    .operand = COMPLETE_SANDBOX,
    .has_no_json = true,
};

/* ---- prune ---- */

static int take_label(void *user, const struct command_option *option, const char *value)
{
    struct arguments *arguments = user;
    int result = word_list_add(&arguments->labels, value);
    return result == 0 ? 0 : refuse_value(option->name, value, "there are too many", "give fewer");
}

/* Moves those that have run and do not any more to the front: how many. */
static size_t keep_ended(struct vial_sandbox_info *list, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (list[i].status == VIAL_SANDBOX_STOPPED || list[i].status == VIAL_SANDBOX_CRASHED)
            list[kept++] = list[i];
    return kept;
}

static bool is_agreed(const struct command *command, const struct vial_sandbox_info *list, size_t count)
{
    char answer[16];
    if (isatty(STDIN_FILENO) != 1) {
        refuse_use(command, "there is nobody to ask", "add --force");
        return false;
    }
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, "  %s\n", list[i].name);
    fprintf(stderr, "remove %s %zu, with their logs? [y/N] ", count == 1 ? "this" : "these", count);
    return fgets(answer, sizeof(answer), stdin) != NULL && (answer[0] == 'y' || answer[0] == 'Y');
}

static int prune(const struct command *command, const struct arguments *arguments)
{
    auto_home struct vial_home *home = NULL;
    auto_free struct vial_sandbox_info *list = NULL;
    struct vial_error error = {0};
    size_t count = 0;
    if (sandbox_open_home(command, &home) < 0)
        return EXIT_OURS;
    if (vial_sandbox_list(home, word_list_items(&arguments->labels), &list, &count, &error) < 0) {
        print_error(command->path, &error);
        return EXIT_OURS;
    }
    count = keep_ended(list, count);
    if (count == 0)
        return EXIT_YES;
    if (!arguments->is_forced && !is_agreed(command, list, count))
        return EXIT_OURS;
    int status = EXIT_YES;
    for (size_t i = 0; i < count; i++) {
        auto_sandbox struct vial_sandbox *sandbox = NULL;
        int result = vial_sandbox_open(home, list[i].id, &sandbox, &error);
        if (result == 0)
            result = vial_sandbox_remove(sandbox, false, &error);
        if (result == 0) {
            printf("%s\n", list[i].name);
        } else if (result != -ENOENT && result != -EBUSY) { /* others may have been quicker, or have started it */
            print_error(list[i].name, &error);
            status = EXIT_OURS;
        }
    }
    return finish_output(status);
}

static int run_prune(const struct command *command, int argc, char *argv[])
{
    struct arguments arguments = {0};
    int operands = command_options(command, &arguments, argc, argv, 0, 0, &arguments.is_json);
    int status = operands < 0 ? options_status(operands) : prune(command, &arguments);
    word_list_free(&arguments.labels);
    return status;
}

static const struct command_option prune_options[] = {
    {"--force", 'f', NULL, "do not ask", take_true, offsetof(struct arguments, is_forced)},
    {"--label", 'l', "KEY[=VALUE]", "only those that have it; may be repeated", take_label},
    {.name = NULL},
};

const struct command command_prune = {
    .name = "prune",
    .path = "vial prune",
    .arguments = "[OPTIONS]",
    .summary = "Remove all sandboxes that have run and do not any more",
    .about = "Those that were never started stay. Asks before it removes anything, unless --force is given.",
    .statuses = "0 when none is left, 125 when one could not be removed or nobody agreed",
    .options = {prune_options},
    .run = run_prune,
    .has_no_json = true,
};
