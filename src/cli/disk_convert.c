// SPDX-License-Identifier: Apache-2.0
/* vial disk convert.
 *
 * Trust: arguments are the user's own; the source image is not trusted, and what it names has to be allowed.
 */
#include "cli/disk.h"

#include <errno.h>

static const struct command_option options[] = {
    {"--from", 0, "NAME", "the source's format: raw, qcow2 or vmdk", disk_take_format, .choices = "raw qcow2 vmdk"},
    {"--to", 0, "NAME", "the copy's: raw or qcow2", disk_take_target_format, .choices = "raw qcow2"},
    {"--compress", 0, NULL, "qcow2: compress every cluster", disk_take_flag,
     offsetof(struct disk_arguments, compresses)},
    {"--zstd", 0, NULL, "qcow2: by zstd instead of zlib", disk_take_flag, offsetof(struct disk_arguments, uses_zstd)},
    {"--cluster-size", 0, "SIZE", "qcow2: 512 to 2M, a power of two (default: 64K)", disk_take_size_32,
     offsetof(struct disk_arguments, create.cluster_bytes)},
    {"--replace", 0, NULL, "the file may exist: the new image takes its place", disk_take_flag,
     offsetof(struct disk_arguments, create.replaces)},
    {"--allow-backing", 0, "FILE:FORMAT", "a file that images may name as what lies under them; may be repeated",
     disk_take_backing, .completes = COMPLETE_FILE},
    {.name = NULL},
};

static int convert(struct disk_arguments *arguments, const char *source, const char *target, struct vial_error *error)
{
    struct image_convert_options convert = {.source = {.path = source,
                                                       .format = arguments->format,
                                                       .read_only = true,
                                                       .backing = arguments->backing,
                                                       .backing_count = arguments->backing_count},
                                            .target = arguments->create,
                                            .compresses = arguments->compresses};
    struct disk_progress progress;
    convert.target.path = target;
    if (arguments->uses_zstd)
        convert.target.compression = IMAGE_ZSTD;
    disk_progress_begin(&progress, "copied");
    int result = image_convert(&convert, disk_progress_step, &progress, error);
    disk_progress_end(&progress);
    return result;
}

static int report_result(const struct command *command, const struct disk_arguments *arguments, const char *path)
{
    enum vial_disk_format format = arguments->create.format;
    struct image_info info;
    struct vial_error error = {0};
    if (image_info(path, format, &info, &error) < 0)
        return disk_report(command, arguments, &error);
    if (arguments->is_json)
        return print_json(json_pack("{s:s, s:s, s:I, s:I, s:I}", "path", disk_safe_text(path).text, "format",
                                    disk_format_names[format - VIAL_DISK_RAW], "size_bytes",
                                    (json_int_t)info.size_bytes, "file_bytes", (json_int_t)info.file_bytes,
                                    "allocated_bytes", (json_int_t)info.allocated_bytes),
                          EXIT_YES);
    printf("converted to %s: %s, %s, of which %s are stored\n", disk_safe_text(path).text,
           disk_format_names[format - VIAL_DISK_RAW], disk_size_text(info.size_bytes).text,
           disk_size_text(info.allocated_bytes).text);
    return finish_output(EXIT_YES);
}

static int run_convert(const struct command *command, int argc, char *argv[])
{
    struct disk_arguments arguments = {0};
    struct vial_error error = {0};
    int operands = disk_options(command, &arguments, argc, argv, 2, 2);
    int status = EXIT_OURS;
    if (operands == OPTIONS_DONE)
        status = EXIT_YES;
    else if (operands >= 0 && convert(&arguments, argv[1], argv[2], &error) == 0)
        status = report_result(command, &arguments, argv[2]);
    else if (operands >= 0)
        status = disk_report(command, &arguments, &error);
    disk_arguments_free(&arguments);
    return status;
}

const struct command command_disk_convert = {
    .name = "convert",
    .path = "vial disk convert",
    .arguments = "--from NAME --to NAME [OPTIONS] SOURCE FILE",
    .summary = "Copy a disk into an image of another format",
    .about =
        "The copy holds all of the disk, backing files included, and no snapshots. Zeros are not stored. It appears "
        "under its name when it is whole and on the medium.",
    .statuses = "0 when it was made, 125 when not",
    .options = {options},
    .operand = COMPLETE_FILE,
    .run = run_convert,
};
