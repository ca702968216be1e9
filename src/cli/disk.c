// SPDX-License-Identifier: Apache-2.0
/* vial disk: images as files. What its subcommands share.
 *
 * Invariants: (1) a format is never guessed: without one, nothing is opened. (2) a signal that asks for the end stops
 * long work between two steps, so that nothing half-made is left, and then ends this process as it would have.
 *
 * Trust: arguments are the user's own; names in images are not, and are escaped.
 */
#include "cli/disk.h"

#include "base/alloc.h"
#include "base/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const char *const disk_format_names[] = {"raw", "qcow2", "vmdk", NULL};

/* ---- options ---- */

int disk_take_choice(const struct command_option *option, const char *value, const char *const names[], int *ret_choice)
{
    char remedy[128] = "use one of:";
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(value, names[i]) == 0) {
            *ret_choice = i;
            return 0;
        }
        size_t length = strlen(remedy);
        snprintf(remedy + length, sizeof(remedy) - length, " %s", names[i]);
    }
    return refuse_value(option->name, value, "there is no such choice", remedy);
}

static int take_format(const struct command_option *option, const char *value, enum vial_disk_format *ret_format)
{
    int choice = 0, result = disk_take_choice(option, value, disk_format_names, &choice);
    if (result == 0)
        *ret_format = (enum vial_disk_format)(choice + VIAL_DISK_RAW);
    return result;
}

int disk_take_format(void *user, const struct command_option *option, const char *value)
{
    struct disk_arguments *arguments = user;
    return take_format(option, value, &arguments->format);
}

int disk_take_target_format(void *user, const struct command_option *option, const char *value)
{
    struct disk_arguments *arguments = user;
    return take_format(option, value, &arguments->create.format);
}

int disk_parse_size(const char *text, uint64_t *ret_bytes)
{
    static const char suffixes[] = "KMGTPE";
    size_t length = strlen(text);
    const char *suffix = length > 1 ? strchr(suffixes, text[length - 1] & ~0x20) : NULL;
    unsigned shift = suffix != NULL ? 10 * (unsigned)(suffix - suffixes + 1) : 0;
    uint64_t number = 0;
    int result = text_to_u64(text, length - (suffix != NULL), INT64_MAX >> shift, &number);
    if (result == 0)
        *ret_bytes = number << shift;
    return result;
}

static int take_size(const struct command_option *option, const char *value, uint64_t most, uint64_t *ret_bytes)
{
    uint64_t bytes = 0;
    int result = disk_parse_size(value, &bytes);
    if (result == 0 && bytes <= most) {
        *ret_bytes = bytes;
        return 0;
    }
    return refuse_value(option->name, value, result == -EINVAL ? "this is no size" : "this is too large",
                        "give whole bytes, or a whole number with K, M, G or T behind it, such as 10G");
}

int disk_take_size(void *user, const struct command_option *option, const char *value)
{
    return take_size(option, value, INT64_MAX, (uint64_t *)(void *)((char *)user + option->member));
}

int disk_take_size_32(void *user, const struct command_option *option, const char *value)
{
    uint64_t bytes = 0;
    int result = take_size(option, value, UINT32_MAX, &bytes);
    if (result == 0)
        *(uint32_t *)(void *)((char *)user + option->member) = (uint32_t)bytes;
    return result;
}

int disk_take_flag(void *user, const struct command_option *option, const char *value)
{
    (void)value;
    *(bool *)((char *)user + option->member) = true;
    return 0;
}

/* PATH:FORMAT */
int disk_take_backing(void *user, const struct command_option *option, const char *value)
{
    struct disk_arguments *arguments = user;
    const char *colon = strrchr(value, ':');
    int format = 0;
    while (colon != NULL && disk_format_names[format] != NULL && strcmp(colon + 1, disk_format_names[format]) != 0)
        format++;
    if (colon == NULL || colon == value || disk_format_names[format] == NULL)
        return refuse_value(option->name, value, "this does not end in a format",
                            "give the path as the image names it, a colon, and raw, qcow2 or vmdk");
    if (arguments->backing_count == DISK_MOST_BACKING)
        return refuse_value(option->name, value, "these are too many", "allow 64 files at most");
    char *path = alloc_string(value);
    if (path == NULL)
        return refuse_value(option->name, value, "out of memory", "free some");
    path[colon - value] = '\0';
    arguments->backing[arguments->backing_count++] = (struct disk_backing){
        .path = path, .format = (enum vial_disk_format)(format + VIAL_DISK_RAW)};
    return 0;
}

void disk_arguments_free(struct disk_arguments *arguments)
{
    for (size_t i = 0; i < arguments->backing_count; i++) {
        union {
            const char *path;
            char *owned;
        } entry = {.path = arguments->backing[i].path};
        free(entry.owned);
    }
    arguments->backing_count = 0;
}

static bool has_option(const struct command *command, const char *name)
{
    return command_find_option(command, name) != NULL;
}

static int require_format(const struct command *command, const char *option, enum vial_disk_format format)
{
    if (format != VIAL_DISK_UNSET)
        return 0;
    fprintf(stderr,
            "%s: the format is not given\n  -> add %s raw, qcow2 or vmdk: it is never guessed, as a guest can "
            "write what a guess would take for another\n",
            command->path, option);
    return OPTIONS_WRONG;
}

int disk_options(const struct command *command, struct disk_arguments *arguments, int argc, char *argv[],
                 int min_operands, int max_operands)
{
    int operands = command_options(command, arguments, argc, argv, min_operands, max_operands, &arguments->is_json);
    int result = 0;
    if (operands < 0)
        return operands;
    if (has_option(command, "--from"))
        result = require_format(command, "--from", arguments->format);
    if (result == 0 && has_option(command, "--to"))
        result = require_format(command, "--to", arguments->create.format);
    if (result == 0 && has_option(command, "--format"))
        result = require_format(command, "--format",
                                arguments->format != VIAL_DISK_UNSET ? arguments->format : arguments->create.format);
    return result < 0 ? result : operands;
}

/* ---- printing ---- */

int disk_report(const struct command *command, const struct disk_arguments *arguments, const struct vial_error *error)
{
    if (arguments->is_json)
        return print_json(json_pack("{s:o}", "error", error_to_json(error)), EXIT_OURS);
    print_error(command->path, error);
    return EXIT_OURS;
}

struct disk_size_text disk_size_text(uint64_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    struct disk_size_text size;
    size_t unit = 0;
    double number = (double)bytes;
    while (number >= 1024 && unit + 1 < array_length(units)) {
        number /= 1024;
        unit++;
    }
    if (unit == 0)
        snprintf(size.text, sizeof(size.text), "%llu bytes", (unsigned long long)bytes);
    else
        snprintf(size.text, sizeof(size.text), "%.4g %s (%llu bytes)", number, units[unit], (unsigned long long)bytes);
    return size;
}

struct disk_safe_text disk_safe_text(const char *text)
{
    struct disk_safe_text safe = {""};
    text_escape(safe.text, sizeof(safe.text), text, strlen(text), "");
    return safe;
}

/* ---- progress ---- */

void disk_progress_begin(struct disk_progress *progress, const char *verb)
{
    static const int ending[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
    struct sigaction action;
    *progress = (struct disk_progress){.verb = verb, .percent = -1};
    progress->is_shown = is_live_terminal(stderr);
    sigemptyset(&progress->watched);
    for (size_t i = 0; i < array_length(ending); i++)
        if (sigaction(ending[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(&progress->watched, ending[i]);
    pthread_sigmask(SIG_BLOCK, &progress->watched, &progress->before);
}

static void show(struct disk_progress *progress, uint64_t done, uint64_t whole)
{
    const struct palette *colour = palette_for(stderr);
    int percent = whole > 0 ? (int)((double)done * 100 / (double)whole) : 100;
    if (percent == progress->percent)
        return;
    progress->percent = percent;
    fprintf(stderr, "\r%s%3d%%%s %s", colour->bold, percent, colour->off, progress->verb);
    fflush(stderr);
}

bool disk_progress_step(void *user, uint64_t done, uint64_t whole)
{
    static const struct timespec now = {0, 0};
    struct disk_progress *progress = user;
    int number = sigtimedwait(&progress->watched, NULL, &now);
    if (number > 0)
        progress->signal_number = number;
    if (progress->is_shown)
        show(progress, done, whole);
    return progress->signal_number == 0;
}

void disk_progress_end(struct disk_progress *progress)
{
    if (progress->percent >= 0) /* without an escape sequence, which NO_COLOR would forbid */
        fprintf(stderr, "\r%*s\r", (int)strlen(progress->verb) + 5, "");
    if (progress->signal_number != 0) {
        signal(progress->signal_number, SIG_DFL);
        raise(progress->signal_number);
    }
    pthread_sigmask(SIG_SETMASK, &progress->before, NULL);
}

/* ---- the table ---- */

static const struct command *const children[] = {&command_disk_create,
                                                 &command_disk_info,
                                                 &command_disk_check,
                                                 &command_disk_resize,
                                                 &command_disk_convert,
                                                 &command_disk_snapshot,
                                                 NULL};

const struct command command_disk = {
    .name = "disk",
    .path = "vial disk",
    .summary = "Make, look into, check, resize and convert disk images",
    .children = children,
};
