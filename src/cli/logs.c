// SPDX-License-Identifier: Apache-2.0
/* vial logs and events: what was said, and what has happened.
 *
 * A program's output is given as it came, each stream to ours. Lines of the console and of the runtime go to standard
 * output; control characters in them are shown, not sent: nobody has asked for what a log does to a terminal.
 *
 * Trust: what a program says is the user's own business; all else is escaped.
 */
#include "cli/sandbox.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- logs ---- */

struct arguments {
    bool is_following, has_times, is_json;
    int source;
    uint64_t tail;
    const struct command *command;
};

static const char source_names[] = "exec console runtime";

static int take_source(void *user, const struct command_option *option, const char *value)
{
    static const char *const names[] = {"exec", "console", "runtime"}; /* by enum vial_log_source, less 1 */
    struct arguments *arguments = user;
    for (int i = 0; i < (int)array_length(names); i++) {
        if (strcmp(value, names[i]) != 0)
            continue;
        arguments->source = VIAL_LOG_EXEC + i;
        return 0;
    }
    return refuse_value(option->name, value, "there is no such log", "give exec, console or runtime");
}

static int take_tail(void *user, const struct command_option *option, const char *value)
{
    struct arguments *arguments = user;
    if (strcmp(value, "all") == 0) {
        arguments->tail = UINT64_MAX;
        return 0;
    }
    return take_number(user, option, value);
}

static bool print_json_record(int stream, uint64_t time_ns, const char *bytes, size_t length)
{
    json_t *text = json_stringn(bytes, length);
    if (text == NULL) { /* no UTF-8 */
        size_t size = 4 * length + 1;
        auto_free char *safe = alloc_zero(size);
        if (safe != NULL)
            text_escape(safe, size, bytes, length, "");
        text = json_string(safe != NULL ? safe : "");
    }
    json_t *record = json_pack("{s:I, s:i, s:o}", "t", (json_int_t)time_ns, "stream", stream, "text", text);
    return print_json_line(record, stdout) == 0;
}

static bool print_record(void *user, int stream, uint64_t time_ns, const char *bytes, size_t length)
{
    const struct arguments *arguments = user;
    FILE *output = stream == 2 ? stderr : stdout;
    if (arguments->is_json)
        return print_json_record(stream, time_ns, bytes, length);
    if (arguments->has_times)
        fprintf(output, "%s ", time_of_day(time_ns).text);
    if (arguments->source == VIAL_LOG_EXEC) {
        fwrite(bytes, 1, length, output);
    } else {
        char safe[4096];
        size_t written = text_escape(safe, sizeof(safe), bytes, length, "");
        fwrite(safe, 1, written, output);
        putc('\n', output);
    }
    return fflush(output) == 0;
}

static int run_logs(const struct command *command, int argc, char *argv[])
{
    auto_home struct vial_home *home = NULL;
    auto_sandbox struct vial_sandbox *sandbox = NULL;
    struct arguments arguments = {.source = VIAL_LOG_EXEC, .tail = UINT64_MAX, .command = command};
    struct vial_error error = {0};
    int operands = command_options(command, &arguments, argc, argv, 1, 1, &arguments.is_json);
    if (operands < 0)
        return options_status(operands);
    if (sandbox_open(command, argv[1], &home, &sandbox) < 0)
        return EXIT_OURS;
    if (vial_sandbox_logs(sandbox, arguments.source, arguments.tail, arguments.is_following, print_record, &arguments,
                          &error) < 0) {
        print_error(argv[1], &error);
        return EXIT_OURS;
    }
    return finish_output(EXIT_YES);
}

static const struct command_option logs_options[] = {
    {"--follow", 'f', NULL, "go on with what comes, until the sandbox ends", take_true,
     offsetof(struct arguments, is_following)},
    {"--tail", 'n', "N", "begin with the last N records (default: all)", take_tail, offsetof(struct arguments, tail)},
    {"--source", 's', "LOG",
     "exec (default): what its command has said; console: the guest's console; runtime: its process on this host",
     take_source, .choices = source_names},
    {"--timestamps", 't', NULL, "with the time of each record", take_true, offsetof(struct arguments, has_times)},
    {"--json", 0, NULL, "a JSON object for each record", NULL},
    {.name = NULL},
};

const struct command command_logs = {
    .name = "logs",
    .path = "vial logs",
    .arguments = "[OPTIONS] SANDBOX",
    .summary = "Show what a sandbox has said",
    .about = "Logs are kept in files of 10 MiB, three of each. What vial exec runs is not in them.",
    .statuses = "0, or 125 when they could not be read",
    .options = {logs_options},
    .run = run_logs,
    .operand = COMPLETE_SANDBOX,
};

/* ---- events ---- */

struct events {
    uint64_t since_ns, for_ms;
    bool has_since, is_json;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return clock_from_timespec(&now);
}

/* A time as in --timeout, back from now, or a point in time: 2026-05-31T12:00:00Z. */
static int take_since(void *user, const struct command_option *option, const char *value)
{
    struct events *events = user;
    struct tm parts = {0};
    events->has_since = true;
    const char *rest = strptime(value, "%Y-%m-%dT%H:%M:%S", &parts);
    if (rest != NULL && (strcmp(rest, "Z") == 0 || *rest == '\0')) {
        events->since_ns = (uint64_t)timegm(&parts) * CLOCK_NS_PER_S;
        return 0;
    }
    uint64_t ago_ms = 0;
    const struct command_option inner = {.name = option->name};
    int result = take_time(&ago_ms, &inner, value);
    if (result != 0)
        return result;
    uint64_t now = now_ns();
    events->since_ns = ago_ms < now / CLOCK_NS_PER_MS ? now - ago_ms * CLOCK_NS_PER_MS : 0;
    return 0;
}

/* What else an event says, behind its time, name and kind. */
static void print_members(json_t *event)
{
    static const char *const shown[] = {"t", "event", "id", "name"};
    for (void *at = json_object_iter(event); at != NULL; at = json_object_iter_next(event, at)) {
        const char *key = json_object_iter_key(at);
        bool is_shown = false;
        for (size_t i = 0; i < array_length(shown); i++)
            is_shown |= strcmp(key, shown[i]) == 0;
        auto_free char *text = is_shown ? NULL : json_dumps(json_object_iter_value(at), JSON_ENCODE_ANY | JSON_COMPACT);
        if (text != NULL)
            printf(" %s=%s", safe_text(key).text, safe_text(text).text);
    }
}

static bool print_event(void *user, int stream, uint64_t time_ns, const char *bytes, size_t length)
{
    const struct events *events = user;
    const struct palette *colour = palette_for(stdout);
    (void)stream;
    if (events->is_json) {
        fwrite(bytes, 1, length, stdout);
        putchar('\n');
        return fflush(stdout) == 0;
    }
    auto_json json_t *event = json_loadb(bytes, length, 0, NULL);
    const char *kind = json_string_value(json_object_get(event, "event"));
    const char *name = json_string_value(json_object_get(event, "name"));
    if (kind == NULL)
        return true;
    printf("%s%s%s %s%-8s%s %s", colour->dim, time_of_day(time_ns).text, colour->off, colour->bold,
           safe_text(kind).text, colour->off, safe_text(name != NULL ? name : "-").text);
    print_members(event);
    putchar('\n');
    return fflush(stdout) == 0;
}

static int run_events(const struct command *command, int argc, char *argv[])
{
    auto_home struct vial_home *home = NULL;
    struct events events = {.for_ms = VIAL_WAIT_FOREVER};
    struct vial_error error = {0};
    int operands = command_options(command, &events, argc, argv, 0, 0, &events.is_json);
    if (operands < 0)
        return options_status(operands);
    if (sandbox_open_home(command, &home) < 0)
        return EXIT_OURS;
    if (vial_home_events(home, events.has_since ? events.since_ns : now_ns(), events.for_ms, print_event, &events,
                         &error) < 0) {
        print_error(command->path, &error);
        return EXIT_OURS;
    }
    return finish_output(EXIT_YES);
}

static const struct command_option events_options[] = {
    {"--since", 0, "TIME", "begin with those since then: so long ago (as in 10m), or 2026-05-31T12:00:00Z", take_since},
    {"--for", 0, "TIME", "end after so long; 0: at once (default: never)", take_time, offsetof(struct events, for_ms)},
    {"--json", 0, NULL, "a JSON object for each", NULL},
    {.name = NULL},
};

const struct command command_events = {
    .name = "events",
    .path = "vial events",
    .arguments = "[OPTIONS]",
    .summary = "Show what happens to sandboxes, as it happens",
    .statuses = "0, or 125 when they could not be read",
    .options = {events_options},
    .run = run_events,
};
