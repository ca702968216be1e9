// SPDX-License-Identifier: Apache-2.0
/* vial ls and inspect, rename: what sandboxes there are.
 *
 * Trust: arguments are the user's own; commands and details are escaped.
 */
#include "cli/sandbox.h"

#include "base/alloc.h"
#include "base/text.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* ---- ls ---- */

struct arguments {
    bool is_quiet, is_running, is_all, is_json;
    struct word_list labels;
};

static int take_label(void *user, const struct command_option *option, const char *value)
{
    struct arguments *arguments = user;
    int result = word_list_add(&arguments->labels, value);
    return result == 0 ? 0 : refuse_value(option->name, value, "there are too many", "give fewer");
}

static bool lives(const struct vial_sandbox_info *info)
{
    return info->status != VIAL_SANDBOX_CREATED && info->status != VIAL_SANDBOX_STOPPED &&
           info->status != VIAL_SANDBOX_CRASHED;
}

/* As in "running 5 minutes", "stopped (0) 2 hours ago", "stopped (guest-panic) 3 seconds ago". */
static void describe_status(const struct vial_sandbox_info *info, char *text, size_t size)
{
    const char *name = vial_sandbox_status_name(info->status);
    if (info->status == VIAL_SANDBOX_STOPPED && has_gone_wrong(info->reason))
        snprintf(text, size, "%s (%s) %s ago", name, vial_exit_reason_name(info->reason),
                 time_since(info->ended_ns).text);
    else if (info->status == VIAL_SANDBOX_STOPPED)
        snprintf(text, size, "%s (%d) %s ago", name, (int)info->code, time_since(info->ended_ns).text);
    else if (info->status == VIAL_SANDBOX_CRASHED && info->ended_ns > 0)
        snprintf(text, size, "%s %s ago", name, time_since(info->ended_ns).text);
    else if (lives(info) && info->started_ns > 0)
        snprintf(text, size, "%s %s", name, time_since(info->started_ns).text);
    else
        snprintf(text, size, "%s", name);
}

static const char *colour_of(const struct vial_sandbox_info *info, const struct palette *colour)
{
    if (info->status == VIAL_SANDBOX_CRASHED)
        return colour->red;
    return lives(info) ? colour->green : colour->dim;
}

enum { STATUS_WIDTH = 28, COMMAND_WIDTH = 40, ENGINE_WIDTH = 6 };

static void print_row(const struct vial_sandbox_info *info, int name_width, const struct palette *colour)
{
    char status[64], command[COMMAND_WIDTH + 1];
    describe_status(info, status, sizeof(status));
    text_escape(command, sizeof(command), info->command, strlen(info->command), "");
    printf("%-*s  %-12s  %s%-*s%s  %-*s  %s\n", name_width, info->name, info->id, colour_of(info, colour), STATUS_WIDTH,
           status, colour->off, ENGINE_WIDTH, info->engine != 0 ? vial_engine_name(info->engine) : "-", command);
}

static void print_list(const struct vial_sandbox_info *list, size_t count)
{
    const struct palette *colour = palette_for(stdout);
    int width = (int)strlen("NAME");
    for (size_t i = 0; i < count; i++)
        if ((int)strlen(list[i].name) > width)
            width = (int)strlen(list[i].name);
    printf("%s%-*s  %-12s  %-*s  %-*s  %s%s\n", colour->bold, width, "NAME", "ID", STATUS_WIDTH, "STATUS", ENGINE_WIDTH,
           "ENGINE", "COMMAND", colour->off);
    for (size_t i = 0; i < count; i++)
        print_row(&list[i], width, colour);
}

static size_t keep_living(struct vial_sandbox_info *list, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (lives(&list[i]))
            list[kept++] = list[i];
    return kept;
}

static int list(const struct command *command, const struct arguments *arguments)
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
    if (arguments->is_running)
        count = keep_living(list, count);
    if (arguments->is_json) {
        json_t *array = json_array();
        for (size_t i = 0; i < count; i++)
            json_array_append_new(array, sandbox_to_json(&list[i]));
        return print_json(array, EXIT_YES);
    }
    if (!arguments->is_quiet)
        print_list(list, count);
    for (size_t i = 0; i < count && arguments->is_quiet; i++)
        printf("%s\n", list[i].name);
    return finish_output(EXIT_YES);
}

static int run_ls(const struct command *command, int argc, char *argv[])
{
    struct arguments arguments = {0};
    int operands = command_options(command, &arguments, argc, argv, 0, 0, &arguments.is_json);
    int status = operands < 0 ? options_status(operands) : list(command, &arguments);
    word_list_free(&arguments.labels);
    return status;
}

static const struct command_option ls_options[] = {
    {"--quiet", 'q', NULL, "names only", take_true, offsetof(struct arguments, is_quiet)},
    {"--running", 'r', NULL, "only those that run", take_true, offsetof(struct arguments, is_running)},
    {"--all", 'a', NULL, "all of them, as without it", take_true, offsetof(struct arguments, is_all)},
    {"--label", 'l', "KEY[=VALUE]", "only those that have it; may be repeated", take_label},
    {.name = NULL},
};

const struct command command_ls = {
    .name = "ls",
    .alias = "ps",
    .path = "vial ls",
    .arguments = "[OPTIONS]",
    .summary = "List sandboxes",
    .about = "The newest first. One whose process was killed is found here, and told as crashed.",
    .statuses = "0, or 125 when they could not be listed",
    .options = {ls_options},
    .run = run_ls,
};

/* ---- inspect ---- */

enum { MOST_DEPTH = 16 };

static void print_value(const json_t *value, int depth);

static void print_scalar(const json_t *value)
{
    if (json_is_string(value))
        printf(" %s\n", safe_text(json_string_value(value)).text);
    else if (json_is_integer(value))
        printf(" %" JSON_INTEGER_FORMAT "\n", json_integer_value(value));
    else if (json_is_real(value))
        printf(" %g\n", json_real_value(value));
    else
        printf(" %s\n", json_is_true(value) ? "yes" : json_is_false(value) ? "no" : "-");
}

static void print_member(const char *name, const json_t *value, int depth)
{
    const struct palette *colour = palette_for(stdout);
    bool is_empty = (json_is_object(value) && json_object_size(value) == 0) ||
                    (json_is_array(value) && json_array_size(value) == 0);
    printf("%*s%s%s%s", 2 * depth, "", colour->bold, safe_text(name).text, colour->off);
    if (is_empty)
        printf(" -\n");
    else
        print_value(value, depth);
}

/* What stands behind a name: a scalar on its line, else lines of its own. */
static void print_value(const json_t *value, int depth)
{
    if (!json_is_object(value) && !json_is_array(value)) {
        print_scalar(value);
        return;
    }
    putchar('\n');
    if (depth == MOST_DEPTH)
        return;
    for (size_t i = 0; i < json_array_size(value); i++)
        print_member("-", json_array_get(value, i), depth + 1);
    json_t *object = json_is_object(value) ? (json_t *)(uintptr_t)value : NULL;
    for (void *at = json_object_iter(object); at != NULL; at = json_object_iter_next(object, at))
        print_member(json_object_iter_key(at), json_object_iter_value(at), depth + 1);
}

static void print_facts(json_t *document)
{
    for (void *at = json_object_iter(document); at != NULL; at = json_object_iter_next(document, at))
        print_member(json_object_iter_key(at), json_object_iter_value(at), 0);
}

struct inspection {
    json_t *array; /* of what is there, with --json; else NULL */
};

static int inspect_one(void *user, struct vial_sandbox *sandbox, const char *name, struct vial_error *error)
{
    const struct inspection *inspection = user;
    auto_free char *text = NULL;
    int result = vial_sandbox_inspect(sandbox, &text, error);
    if (result < 0)
        return result;
    auto_json json_t *document = json_loads(text, 0, NULL);
    if (document == NULL) {
        fprintf(stderr, "%s: what is known of it is no JSON\n", safe_text(name).text);
        return 1;
    }
    if (inspection->array != NULL)
        json_array_append(inspection->array, document);
    else
        print_facts(document);
    return 0;
}

/* What `vial inspect` was before there were sandboxes. */
static int refuse_inspect(const struct command *command)
{
    return refuse_use(command, "it is not said which sandbox", "name one; for a machine's options, vial vm inspect");
}

static int run_inspect(const struct command *command, int argc, char *argv[])
{
    bool is_json = false;
    int operands = command_options(command, NULL, argc, argv, 0, LIMIT_STRINGS, &is_json);
    if (operands < 0)
        return options_status(operands);
    if (operands == 0)
        return refuse_inspect(command);
    struct inspection inspection = {.array = is_json ? json_array() : NULL};
    int status = sandbox_each(command, argv + 1, false, inspect_one, &inspection);
    if (status != EXIT_YES && access(argv[1], F_OK) == 0)
        fprintf(stderr, "  -> machines, and kernels, are told of by vial vm inspect (--config FILE, --kernel FILE)\n");
    if (!is_json)
        return status;
    if (operands > 1)
        return print_json(inspection.array, status);
    json_t *only = json_incref(json_array_get(inspection.array, 0));
    json_decref(inspection.array);
    return only != NULL ? print_json(only, status) : status;
}

const struct command command_inspect = {
    .name = "inspect",
    .path = "vial inspect",
    .arguments = "[--json] SANDBOX...",
    .summary = "Say everything that is known of sandboxes",
    .about = "What it is, what it runs, how its last runs ended, which walls stand around it. --json gives one object, "
             "or an "
             "array of several. What a machine with given options would be is told by vial vm inspect.",
    .statuses = "0, or 125 when one of them does not exist",
    .run = run_inspect,
    .operand = COMPLETE_SANDBOX,
};

/* ---- rename ---- */

static int run_rename(const struct command *command, int argc, char *argv[])
{
    auto_home struct vial_home *home = NULL;
    auto_sandbox struct vial_sandbox *sandbox = NULL;
    struct vial_error error = {0};
    bool is_json = false;
    int operands = command_options(command, NULL, argc, argv, 2, 2, &is_json);
    if (operands < 0)
        return options_status(operands);
    if (sandbox_open(command, argv[1], &home, &sandbox) < 0)
        return EXIT_OURS;
    if (vial_sandbox_rename(sandbox, argv[2], &error) == 0)
        return EXIT_YES;
    print_error(command->path, &error);
    return EXIT_OURS;
}

const struct command command_rename = {
    .name = "rename",
    .path = "vial rename",
    .arguments = "SANDBOX NAME",
    .summary = "Give a sandbox another name",
    .statuses = "0 when it has that name, 125 when not",
    .run = run_rename,
    .operand = COMPLETE_SANDBOX,
    .has_no_json = true,
};
