// SPDX-License-Identifier: Apache-2.0
/* What the commands for sandboxes share: finding one by its name, telling what it is.
 *
 * Trust: arguments are the user's own. Names in the database have passed a check; what a guest may have written (a
 * detail, a command) is escaped before it is shown.
 */
#include "cli/sandbox.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* ---- words ---- */

int word_list_add(struct word_list *list, const char *text)
{
    auto_free char *copy = alloc_string(text);
    if (copy == NULL)
        return -ENOMEM;
    int result = alloc_grow((void **)&list->items, list->count, &list->capacity, sizeof(list->items[0]), LIMIT_STRINGS);
    if (result == 0) /* and the NULL behind it */
        result = alloc_grow((void **)&list->items, list->count + 1, &list->capacity, sizeof(list->items[0]),
                            LIMIT_STRINGS + 1);
    if (result < 0)
        return result;
    list->items[list->count++] = steal_ptr(copy);
    list->items[list->count] = NULL;
    return 0;
}

void word_list_free(struct word_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct word_list){0};
}

const char *const *word_list_items(const struct word_list *list)
{
    return (const char *const *)list->items;
}

/* ---- finding them ---- */

int sandbox_open_home(const struct command *command, struct vial_home **ret_home)
{
    struct vial_error error = {0};
    int result = vial_home_open(NULL, ret_home, &error);
    if (result < 0)
        print_error(command->path, &error);
    return result;
}

int sandbox_open(const struct command *command, const char *name, struct vial_home **ret_home,
                 struct vial_sandbox **ret_sandbox)
{
    struct vial_error error = {0};
    int result = sandbox_open_home(command, ret_home);
    if (result < 0)
        return result;
    result = vial_sandbox_open(*ret_home, name, ret_sandbox, &error);
    if (result < 0)
        print_error(command->path, &error);
    return result;
}

int sandbox_each(const struct command *command, char *const names[], bool is_told, sandbox_function function,
                 void *user)
{
    auto_home struct vial_home *home = NULL;
    int status = EXIT_YES;
    if (sandbox_open_home(command, &home) < 0)
        return EXIT_OURS;
    for (; *names != NULL; names++) {
        auto_sandbox struct vial_sandbox *sandbox = NULL;
        struct vial_error error = {0};
        int result = vial_sandbox_open(home, *names, &sandbox, &error);
        if (result == 0)
            result = function(user, sandbox, *names, &error);
        if (result < 0)
            print_error(*names, &error);
        if (result != 0)
            status = EXIT_OURS;
        else if (is_told)
            printf("%s\n", safe_text(*names).text);
    }
    return finish_output(status);
}

/* ---- telling of them ---- */

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return clock_from_timespec(&now);
}

struct time_text time_since(uint64_t unix_ns)
{
    static const struct {
        uint64_t seconds;
        const char *name;
    } units[] = {{86400, "day"}, {3600, "hour"}, {60, "minute"}, {1, "second"}};
    uint64_t now = now_ns(), seconds = now > unix_ns ? (now - unix_ns) / CLOCK_NS_PER_S : 0;
    struct time_text time;
    size_t i = 0;
    while (i + 1 < array_length(units) && seconds < units[i].seconds)
        i++;
    uint64_t count = seconds / units[i].seconds;
    snprintf(time.text, sizeof(time.text), "%" PRIu64 " %s%s", count, units[i].name, count == 1 ? "" : "s");
    return time;
}

struct time_text time_of_day(uint64_t unix_ns)
{
    struct time_text time = {""};
    time_t seconds = (time_t)(unix_ns / CLOCK_NS_PER_S);
    struct tm parts;
    if (gmtime_r(&seconds, &parts) == NULL)
        return time;
    size_t length = strftime(time.text, sizeof(time.text), "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(time.text + length, sizeof(time.text) - length, ".%03uZ",
             (unsigned)(unix_ns % CLOCK_NS_PER_S / CLOCK_NS_PER_MS));
    return time;
}

struct amount_text amount_text(uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    struct amount_text amount;
    double number = (double)bytes;
    size_t unit = 0;
    while (number >= 1024 && unit + 1 < array_length(units)) {
        number /= 1024;
        unit++;
    }
    snprintf(amount.text, sizeof(amount.text), "%.*f %s", unit > 0 && number < 100, number, units[unit]);
    return amount;
}

json_t *json_or_null(const char *text)
{
    return text != NULL && text[0] != '\0' ? json_string(safe_text(text).text) : json_null();
}

static json_t *moment(uint64_t unix_ns)
{
    return unix_ns > 0 ? json_string(time_of_day(unix_ns).text) : json_null();
}

json_t *sandbox_to_json(const struct vial_sandbox_info *info)
{
    bool has_ended = info->reason != 0;
    return json_pack("{s:s, s:s, s:s, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "id", info->id, "name",
                     info->name, "status", vial_sandbox_status_name(info->status), "ephemeral", (int)info->ephemeral,
                     "command", json_or_null(info->command), "pid",
                     info->pid > 0 ? json_integer(info->pid) : json_null(), "engine",
                     json_or_null(info->engine != 0 ? vial_engine_name(info->engine) : NULL), "isolation",
                     json_or_null(info->isolation != 0 ? vial_isolation_name(info->isolation) : NULL), "created",
                     moment(info->created_ns), "started", moment(info->started_ns), "ended", moment(info->ended_ns),
                     "reason", json_or_null(has_ended ? vial_exit_reason_name(info->reason) : NULL), "code",
                     has_ended ? json_integer(info->code) : json_null(), "detail", json_or_null(info->detail));
}
