// SPDX-License-Identifier: Apache-2.0
/* vial disk info and check.
 *
 * Trust: arguments are the user's own; what images say is escaped.
 */
#include "cli/disk.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

/* ---- info ---- */

static const struct command_option info_options[] = {
    {"--format", 'f', "NAME", "raw, qcow2 or vmdk", disk_take_format, .choices = "raw qcow2 vmdk"},
    {.name = NULL},
};

static json_t *qcow2_to_json(const struct image_info *info)
{
    return json_pack("{s:i, s:I, s:i, s:i, s:s, s:b, s:b, s:b, s:b}", "version", (int)info->version, "cluster_bytes",
                     (json_int_t)info->cluster_bytes, "refcount_bits", (int)info->refcount_bits, "snapshots",
                     (int)info->snapshot_count, "compression", info->compression == IMAGE_ZSTD ? "zstd" : "zlib",
                     "lazy_refcounts", info->lazy_refcounts, "dirty", info->is_dirty, "corrupt", info->is_corrupt,
                     "external_data", info->has_external_data);
}

static json_t *info_to_json(const char *path, const struct image_info *info)
{
    json_t *document = json_pack("{s:s, s:s, s:I, s:I, s:I}", "path", disk_safe_text(path).text, "format",
                                 disk_format_names[info->format - VIAL_DISK_RAW], "size_bytes",
                                 (json_int_t)info->size_bytes, "file_bytes", (json_int_t)info->file_bytes,
                                 "allocated_bytes", (json_int_t)info->allocated_bytes);
    if (info->backing_path[0] != '\0')
        json_object_set_new(document, "backing",
                            json_pack("{s:s, s:s}", "path", disk_safe_text(info->backing_path).text, "format",
                                      disk_safe_text(info->backing_format).text));
    if (info->format == VIAL_DISK_QCOW2)
        json_object_set_new(document, "qcow2", qcow2_to_json(info));
    if (info->format == VIAL_DISK_VMDK)
        json_object_set_new(document, "vmdk",
                            json_pack("{s:s, s:i}", "create_type", disk_safe_text(info->create_type).text, "extents",
                                      (int)info->extent_count));
    return document;
}

static void print_qcow2(const struct image_info *info)
{
    printf("version     %u\ncluster     %s\nrefcounts   %u bits%s\ncompression %s\nsnapshots   %u\n", info->version,
           disk_size_text(info->cluster_bytes).text, info->refcount_bits, info->lazy_refcounts ? ", lazy" : "",
           info->compression == IMAGE_ZSTD ? "zstd" : "zlib", info->snapshot_count);
    if (info->backing_path[0] != '\0')
        printf("backing     %s (%s)\n", disk_safe_text(info->backing_path).text,
               info->backing_format[0] != '\0' ? disk_safe_text(info->backing_format).text : "of no stated format");
    if (info->is_dirty)
        printf("dirty       it was not closed: reference counts are rebuilt when it is opened for writing\n");
    if (info->is_corrupt)
        printf("corrupt     it is only read until it is repaired (vial disk check --repair all)\n");
}

static void print_info(const char *path, const struct image_info *info)
{
    printf("image       %s\n", disk_safe_text(path).text);
    printf("format      %s\n", disk_format_names[info->format - VIAL_DISK_RAW]);
    printf("size        %s\n", disk_size_text(info->size_bytes).text);
    printf("file        %s\n", disk_size_text(info->file_bytes).text);
    printf("stored      %s\n", disk_size_text(info->allocated_bytes).text);
    if (info->format == VIAL_DISK_QCOW2)
        print_qcow2(info);
    if (info->format == VIAL_DISK_VMDK)
        printf("type        %s\nextents     %u\n", disk_safe_text(info->create_type).text, info->extent_count);
}

static int run_info(const struct command *command, int argc, char *argv[])
{
    struct disk_arguments arguments = {0};
    struct vial_error error = {0};
    struct image_info info;
    int operands = disk_options(command, &arguments, argc, argv, 1, 1);
    if (operands < 0)
        return options_status(operands);
    if (image_info(argv[1], arguments.format, &info, &error) < 0)
        return disk_report(command, &arguments, &error);
    if (arguments.is_json)
        return print_json(info_to_json(argv[1], &info), EXIT_YES);
    print_info(argv[1], &info);
    return finish_output(EXIT_YES);
}

const struct command command_disk_info = {
    .name = "info",
    .path = "vial disk info",
    .arguments = "--format NAME [--json] FILE",
    .summary = "Say what an image is",
    .about =
        "Looks into the image and none of the files that it names as lying under it. An image that somebody writes "
        "to is not looked into.",
    .statuses = "0 when it is such an image, 125 when not",
    .options = {info_options},
    .operand = COMPLETE_FILE,
    .run = run_info,
};

/* ---- check ---- */

enum { EXIT_CORRUPT = 1, EXIT_LEAKS = 3 };

static int take_repair(void *user, const struct command_option *option, const char *value)
{
    static const char *const names[] = {"leaks", "all", NULL};
    struct disk_arguments *arguments = user;
    int choice = 0, result = disk_take_choice(option, value, names, &choice);
    if (result == 0)
        arguments->repair = choice == 0 ? IMAGE_REPAIR_LEAKS : IMAGE_REPAIR_ALL;
    return result;
}

static const struct command_option check_options[] = {
    {"--format", 'f', "NAME", "qcow2 (the other formats have nothing to check)", disk_take_format, .choices = "qcow2"},
    {"--repair", 0, "WHAT",
     "leaks: give back clusters that nothing uses; all: also rebuild reference counts, and drop entries that point "
     "nowhere",
     take_repair, .choices = "leaks all"},
    {.name = NULL},
};

static json_t *check_to_json(const char *path, const struct image_check *check)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "path", disk_safe_text(path).text, "clusters",
                     (json_int_t)check->clusters, "allocated_clusters", (json_int_t)check->allocated_clusters,
                     "compressed_clusters", (json_int_t)check->compressed_clusters, "leaks", (json_int_t)check->leaks,
                     "corruptions", (json_int_t)check->corruptions, "leaks_fixed", (json_int_t)check->leaks_fixed,
                     "corruptions_fixed", (json_int_t)check->corruptions_fixed, "end_offset",
                     (json_int_t)check->end_offset);
}

static void print_count(uint64_t count, const char *colour, const char *what)
{
    const struct palette *palette = palette_for(stdout);
    if (count > 0)
        printf("%s%llu%s %s\n", colour, (unsigned long long)count, palette->off, what);
}

static void print_check(const char *path, const struct image_check *check, bool was_mended)
{
    const struct palette *palette = palette_for(stdout);
    printf("%s: %llu of %llu clusters in use, %llu of them compressed\n", disk_safe_text(path).text,
           (unsigned long long)check->allocated_clusters, (unsigned long long)check->clusters,
           (unsigned long long)check->compressed_clusters);
    print_count(check->corruptions_fixed, palette->green, "errors were repaired");
    print_count(check->leaks_fixed, palette->green, "lost clusters were given back");
    print_count(check->corruptions, palette->red,
                was_mended ? "errors cannot be repaired: copy the disk into a new image (vial disk convert)"
                           : "errors: data are lost, or will be (--repair all)");
    print_count(check->leaks, palette->yellow, "clusters are lost, and no data (--repair leaks)");
    if (check->corruptions == 0 && check->leaks == 0)
        printf("%sno errors%s\n", palette->green, palette->off);
}

static int run_check(const struct command *command, int argc, char *argv[])
{
    struct disk_arguments arguments = {0};
    struct vial_error error = {0};
    struct image_check check = {0};
    struct disk_progress progress;
    int operands = disk_options(command, &arguments, argc, argv, 1, 1);
    if (operands < 0)
        return options_status(operands);
    disk_progress_begin(&progress, "checked");
    int result = image_check(argv[1], arguments.format, arguments.repair, disk_progress_step, &progress, &check,
                             &error);
    disk_progress_end(&progress);
    if (result < 0)
        return disk_report(command, &arguments, &error);
    int status = check.corruptions > 0 ? EXIT_CORRUPT : check.leaks > 0 ? EXIT_LEAKS : EXIT_YES;
    if (arguments.is_json)
        return print_json(check_to_json(argv[1], &check), status);
    print_check(argv[1], &check, arguments.repair == IMAGE_REPAIR_ALL);
    return finish_output(status);
}

const struct command command_disk_check = {
    .name = "check",
    .path = "vial disk check",
    .arguments = "--format qcow2 [--repair leaks|all] [--json] FILE",
    .summary = "Check an image's structure, and repair it",
    .about = "Looks through all tables of a qcow2 image; what the disk holds is not looked at. Nobody else may use it "
             "meanwhile. Make a copy before a repair.",
    .statuses = "0 when nothing is wrong (any more), 1 when there are errors, 3 when only space is lost, 125 when it "
                "could not be checked",
    .options = {check_options},
    .operand = COMPLETE_FILE,
    .run = run_check,
};
