// SPDX-License-Identifier: Apache-2.0
/* vial disk snapshot: states of a disk kept inside its qcow2 image.
 *
 * Trust: arguments are the user's own; names in images are escaped.
 */
#include "cli/disk.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>
#include <time.h>

static const struct command_option options[] = {
    {"--format", 'f', "NAME", "qcow2, the only format with snapshots inside", disk_take_format, .choices = "qcow2"},
    {.name = NULL},
};

static int check_format(const struct command *command, const struct disk_arguments *arguments)
{
    if (arguments->format == VIAL_DISK_QCOW2)
        return 0;
    fprintf(stderr, "%s: only qcow2 images have snapshots inside\n  -> convert the image first (vial disk convert)\n",
            command->path);
    return OPTIONS_WRONG;
}

/* ---- list ---- */

static void format_time(const struct image_snapshot *snapshot, char text[32])
{
    struct tm parts;
    time_t seconds = (time_t)snapshot->seconds;
    if (snapshot->seconds > INT64_C(253402300799) || gmtime_r(&seconds, &parts) == NULL ||
        strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        snprintf(text, 32, "unknown");
}

static json_t *snapshots_to_json(const struct image_snapshot *snapshots, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        char created[32];
        format_time(&snapshots[i], created);
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:I, s:I}", "id", disk_safe_text(snapshots[i].id).text,
                                              "name", disk_safe_text(snapshots[i].name).text, "created", created,
                                              "size_bytes", (json_int_t)snapshots[i].disk_bytes, "vm_state_bytes",
                                              (json_int_t)snapshots[i].vm_state_bytes));
    }
    return json_pack("{s:o}", "snapshots", list);
}

static int run_list(const struct command *command, int argc, char *argv[])
{
    struct disk_arguments arguments = {0};
    struct vial_error error = {0};
    auto_free struct image_snapshot *snapshots = NULL;
    size_t count = 0;
    int operands = disk_options(command, &arguments, argc, argv, 1, 1);
    if (operands < 0)
        return options_status(operands);
    if (check_format(command, &arguments) < 0)
        return EXIT_OURS;
    if (image_snapshot_list(argv[1], &snapshots, &count, &error) < 0)
        return disk_report(command, &arguments, &error);
    if (arguments.is_json)
        return print_json(snapshots_to_json(snapshots, count), EXIT_YES);
    for (size_t i = 0; i < count; i++) {
        char created[32];
        format_time(&snapshots[i], created);
        printf("%-6s %s  %-24s %s\n", disk_safe_text(snapshots[i].id).text, created,
               disk_safe_text(snapshots[i].name).text, disk_size_text(snapshots[i].disk_bytes).text);
    }
    return finish_output(EXIT_YES);
}

/* ---- what changes them ---- */

typedef int snapshot_function(const char *path, const char *name, struct vial_error *err);

static int change(const struct command *command, int argc, char *argv[], snapshot_function *function, const char *verb)
{
    struct disk_arguments arguments = {0};
    struct vial_error error = {0};
    int operands = disk_options(command, &arguments, argc, argv, 2, 2);
    if (operands < 0)
        return options_status(operands);
    if (check_format(command, &arguments) < 0)
        return EXIT_OURS;
    if (function(argv[1], argv[2], &error) < 0)
        return disk_report(command, &arguments, &error);
    if (arguments.is_json)
        return print_json(
            json_pack("{s:s, s:s}", "path", disk_safe_text(argv[1]).text, "name", disk_safe_text(argv[2]).text),
            EXIT_YES);
    printf("%s: %s the snapshot %s\n", disk_safe_text(argv[1]).text, verb, disk_safe_text(argv[2]).text);
    return finish_output(EXIT_YES);
}

static int run_create(const struct command *command, int argc, char *argv[])
{
    return change(command, argc, argv, image_snapshot_create, "made");
}

static int run_apply(const struct command *command, int argc, char *argv[])
{
    return change(command, argc, argv, image_snapshot_apply, "went back to");
}

static int run_remove(const struct command *command, int argc, char *argv[])
{
    return change(command, argc, argv, image_snapshot_remove, "removed");
}

static const struct command snapshot_list = {
    .name = "list",
    .path = "vial disk snapshot list",
    .arguments = "--format qcow2 [--json] FILE",
    .summary = "List the snapshots inside an image",
    .statuses = "0, or 125 when it could not be read",
    .options = {options},
    .run = run_list,
    .operand = COMPLETE_FILE,
};

static const struct command snapshot_create = {
    .name = "create",
    .path = "vial disk snapshot create",
    .arguments = "--format qcow2 [--json] FILE NAME",
    .summary = "Keep the disk as it is now under a name",
    .statuses = "0 when it was made, 125 when not",
    .options = {options},
    .run = run_create,
    .operand = COMPLETE_FILE,
};

static const struct command snapshot_apply = {
    .name = "apply",
    .path = "vial disk snapshot apply",
    .arguments = "--format qcow2 [--json] FILE NAME",
    .summary = "Make the disk what it was then; what it is now is lost",
    .statuses = "0 when it was done, 125 when not",
    .options = {options},
    .run = run_apply,
    .operand = COMPLETE_FILE,
};

static const struct command snapshot_remove = {
    .name = "remove",
    .path = "vial disk snapshot remove",
    .arguments = "--format qcow2 [--json] FILE NAME",
    .summary = "Forget a snapshot",
    .statuses = "0 when it is gone, 125 when not",
    .options = {options},
    .run = run_remove,
    .operand = COMPLETE_FILE,
};

const struct command command_disk_snapshot = {
    .name = "snapshot",
    .path = "vial disk snapshot",
    .summary = "States of a disk kept inside its image",
    .children = (const struct command *const[]){&snapshot_list, &snapshot_create, &snapshot_apply, &snapshot_remove,
                                                NULL},
};
