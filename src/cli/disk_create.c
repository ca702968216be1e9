// SPDX-License-Identifier: Apache-2.0
/* vial disk create and resize.
 *
 * Trust: arguments are the user's own.
 */
#include "cli/disk.h"

#include "base/error.h"
#include "base/text.h"

#include <errno.h>
#include <string.h>

/* ---- create ---- */

static int take_backing_path(void *user, const struct command_option *option, const char *value)
{
    struct disk_arguments *arguments = user;
    (void)option;
    arguments->create.backing_path = value;
    return 0;
}

static int take_backing_format(void *user, const struct command_option *option, const char *value)
{
    struct disk_arguments *arguments = user;
    int choice = 0, result = disk_take_choice(option, value, disk_format_names, &choice);
    if (result == 0)
        arguments->create.backing_format = (enum vial_disk_format)(choice + VIAL_DISK_RAW);
    return result;
}

static int take_preallocation(void *user, const struct command_option *option, const char *value)
{
    static const char *const names[] = {"off", "metadata", "falloc", "full", NULL}; /* by enum image_preallocation */
    struct disk_arguments *arguments = user;
    int choice = 0, result = disk_take_choice(option, value, names, &choice);
    if (result == 0)
        arguments->create.preallocation = (enum image_preallocation)choice;
    return result;
}

static int take_compression(void *user, const struct command_option *option, const char *value)
{
    static const char *const names[] = {"zlib", "zstd", NULL}; /* by enum image_compression */
    struct disk_arguments *arguments = user;
    int choice = 0, result = disk_take_choice(option, value, names, &choice);
    if (result == 0)
        arguments->create.compression = (enum image_compression)choice;
    return result;
}

static int take_small(void *user, const struct command_option *option, const char *value)
{
    uint64_t number = 0;
    if (text_to_u64(value, strlen(value), UINT32_MAX, &number) < 0 || number == 0)
        return refuse_value(option->name, value, "this is no such number", "give a whole number above 0");
    *(uint32_t *)(void *)((char *)user + option->member) = (uint32_t)number;
    return 0;
}

static const struct command_option create_options[] = {
    {"--format", 'f', "NAME", "raw or qcow2", disk_take_target_format, .choices = "raw qcow2"},
    {"--size", 0, "SIZE", "of the disk; with a backing file, that one's size by default", disk_take_size,
     offsetof(struct disk_arguments, create.size_bytes)},
    {"--replace", 0, NULL, "the file may exist: the new image takes its place", disk_take_flag,
     offsetof(struct disk_arguments, create.replaces)},
    {"--preallocation", 0, "HOW", "off (default), metadata (qcow2), falloc (reserve the space), full (write zeros)",
     take_preallocation, .choices = "off metadata falloc full"},
    {"--cluster-size", 0, "SIZE", "qcow2: 512 to 2M, a power of two (default: 64K)", disk_take_size_32,
     offsetof(struct disk_arguments, create.cluster_bytes)},
    {"--qcow2-version", 0, "N", "qcow2: 2 or 3 (default)", take_small, offsetof(struct disk_arguments, create.version),
     "2 3"},
    {"--refcount-bits", 0, "N", "qcow2: 1 to 64, a power of two (default: 16)", take_small,
     offsetof(struct disk_arguments, create.refcount_bits)},
    {"--lazy-refcounts", 0, NULL, "qcow2: faster to write, slower to open after a crash", disk_take_flag,
     offsetof(struct disk_arguments, create.lazy_refcounts)},
    {"--compression", 0, "NAME", "qcow2: zlib (default) or zstd, for clusters that are compressed", take_compression,
     .choices = "zlib zstd"},
    {"--backing", 0, "FILE",
     "qcow2: what is not written is read from there; a relative path starts at the folder of the new image",
     take_backing_path, .completes = COMPLETE_FILE},
    {"--backing-format", 0, "NAME", "raw, qcow2 or vmdk", take_backing_format, .choices = "raw qcow2 vmdk"},
    {.name = NULL},
};

static int check_create(const struct command *command, const struct disk_arguments *arguments)
{
    const struct image_create_options *create = &arguments->create;
    const char *lack = NULL, *remedy = NULL;
    if (create->backing_path == NULL && create->size_bytes == 0) {
        lack = "the size is not given";
        remedy = "add --size, such as --size 10G";
    } else if (create->backing_path != NULL && create->backing_format == VIAL_DISK_UNSET) {
        lack = "the format of the backing file is not given";
        remedy = "add --backing-format raw, qcow2 or vmdk";
    } else if (create->backing_path == NULL && create->backing_format != VIAL_DISK_UNSET) {
        lack = "there is a format of a backing file, and no backing file";
        remedy = "add --backing FILE";
    }
    if (lack == NULL)
        return 0;
    fprintf(stderr, "%s: %s\n  -> %s\n", command->path, lack, remedy);
    return -EINVAL;
}

/* Says what the image is now. */
static int report_image(const struct command *command, const struct disk_arguments *arguments, const char *path,
                        enum vial_disk_format format, const char *verb)
{
    struct image_info info;
    struct vial_error error = {0};
    if (image_info(path, format, &info, &error) < 0)
        return disk_report(command, arguments, &error);
    if (arguments->is_json)
        return print_json(json_pack("{s:s, s:s, s:I}", "path", disk_safe_text(path).text, "format",
                                    disk_format_names[format - VIAL_DISK_RAW], "size_bytes",
                                    (json_int_t)info.size_bytes),
                          EXIT_YES);
    printf("%s %s: %s, %s\n", verb, disk_safe_text(path).text, disk_format_names[format - VIAL_DISK_RAW],
           disk_size_text(info.size_bytes).text);
    return finish_output(EXIT_YES);
}

static int run_create(const struct command *command, int argc, char *argv[])
{
    struct disk_arguments arguments = {0};
    struct vial_error error = {0};
    int operands = disk_options(command, &arguments, argc, argv, 1, 1);
    if (operands < 0)
        return options_status(operands);
    if (check_create(command, &arguments) < 0)
        return EXIT_OURS;
    arguments.create.path = argv[1];
    if (image_create(&arguments.create, &error) < 0)
        return disk_report(command, &arguments, &error);
    return report_image(command, &arguments, argv[1], arguments.create.format, "created");
}

const struct command command_disk_create = {
    .name = "create",
    .path = "vial disk create",
    .arguments = "--format raw|qcow2 [--size SIZE] [OPTIONS] FILE",
    .summary = "Make a new image",
    .about = "The image appears under its name when it is whole. SIZE is in bytes, or with K, M, G or T behind it.",
    .statuses = "0 when it was made, 125 when not",
    .options = {create_options},
    .operand = COMPLETE_FILE,
    .run = run_create,
};

/* ---- resize ---- */

static const struct command_option resize_options[] = {
    {"--format", 'f', "NAME", "raw or qcow2", disk_take_format, .choices = "raw qcow2"},
    {"--shrink", 0, NULL, "the disk may become smaller", disk_take_flag, offsetof(struct disk_arguments, may_shrink)},
    {"--allow-backing", 0, "FILE:FORMAT", "a file that images may name as what lies under them; may be repeated",
     disk_take_backing, .completes = COMPLETE_FILE},
    {.name = NULL},
};

/* SIZE, or +SIZE to what there is. */
static int find_size(const char *text, uint64_t size_bytes, uint64_t *ret_bytes)
{
    bool is_more = text[0] == '+';
    uint64_t bytes = 0;
    if (disk_parse_size(text + is_more, &bytes) < 0 || (is_more && bytes > INT64_MAX - size_bytes))
        return refuse_value("SIZE", text, "this is no size",
                            "give whole bytes, or a whole number with K, M, G or T behind it; + in front adds it");
    *ret_bytes = is_more ? size_bytes + bytes : bytes;
    return 0;
}

/* 0, -errno with an error, or OPTIONS_WRONG's like with the reason on stderr already. */
static int resize(const struct disk_arguments *arguments, const char *path, const char *size, struct vial_error *error)
{
    const struct disk_options options = {.path = path,
                                         .format = arguments->format,
                                         .backing = arguments->backing,
                                         .backing_count = arguments->backing_count};
    struct disk *disk = NULL;
    struct disk_properties properties;
    uint64_t bytes = 0;
    int result = disk_open(&options, &disk, error);
    if (result < 0)
        return result;
    disk_describe(disk, &properties);
    result = find_size(size, properties.size_bytes, &bytes);
    if (result == 0)
        result = disk_resize(disk, bytes, arguments->may_shrink, error);
    if (result == 0) {
        result = disk_flush(disk);
        if (result < 0)
            error_set_os(error, VIAL_PHASE_RUN, result, "cannot write %s", error_short(path).text);
    }
    int closed = disk_close(disk, result == 0 ? error : NULL);
    return result == 0 ? closed : result;
}

static int run_resize(const struct command *command, int argc, char *argv[])
{
    struct disk_arguments arguments = {0};
    struct vial_error error = {0};
    int operands = disk_options(command, &arguments, argc, argv, 2, 2);
    int status = EXIT_OURS;
    if (operands == OPTIONS_DONE)
        status = EXIT_YES;
    else if (operands >= 0 && resize(&arguments, argv[1], argv[2], &error) == 0)
        status = report_image(command, &arguments, argv[1], arguments.format, "resized");
    else if (error.message[0] != '\0')
        status = disk_report(command, &arguments, &error);
    disk_arguments_free(&arguments);
    return status;
}

const struct command command_disk_resize = {
    .name = "resize",
    .path = "vial disk resize",
    .arguments = "--format NAME [--shrink] FILE SIZE|+SIZE",
    .summary = "Give a disk another size",
    .about = "The file system inside stays as large as it is. Growing adds zeros; what is cut off is lost.",
    .statuses = "0 when it has that size, 125 when not",
    .options = {resize_options},
    .operand = COMPLETE_FILE,
    .run = run_resize,
};
