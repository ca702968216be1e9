// SPDX-License-Identifier: Apache-2.0
/* Building a configuration: files and folders that exist for the guest only.
 *
 * They are kept in one list, in the order in which they were added, which is an order in which they can be made: what
 * an entry stands in comes before it. Which file system one is for is known by its tag. storage.c puts them into it.
 *
 * Whether a path can be had is settled here, and not by validate, because the callers of this one (libkrun's API) hear
 * at once that a parent is missing.
 *
 * Invariants: (1) a path is absolute and normalized. (2) no two entries of a file system have the same path. (3) an
 * entry's parent is the top, or a folder that is an entry before it. (4) their number and bytes have bounds.
 *
 * Trust: callers are programs; paths and bytes may be anybody's.
 */
#include "vmm/configure.h"

#include "base/path.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

static const char what[] = "fs_entries";

static void entry_free(struct fs_entry_config *entry)
{
    free(entry->tag);
    free(entry->path);
    free(entry->data);
}

void config_free_entries(struct vial_vm_config *config)
{
    for (size_t i = 0; i < config->fs_entry_count; i++)
        entry_free(&config->fs_entries[i]);
    free(config->fs_entries);
}

/* ---- looking ---- */

static const struct fs_entry_config *find(const struct vial_vm_config *config, const char *tag, const char *path,
                                          size_t length)
{
    for (size_t i = 0; i < config->fs_entry_count; i++) {
        const struct fs_entry_config *entry = &config->fs_entries[i];
        bool is_path = strncmp(entry->path, path, length) == 0 && entry->path[length] == '\0';
        if (is_path && strcmp(entry->tag, tag) == 0)
            return entry;
    }
    return NULL;
}

const struct fs_entry_config *config_find_entry(const struct vial_vm_config *config, const char *tag, const char *path)
{
    return find(config, tag, path, strlen(path));
}

const struct fs_entry_config *config_find_file_over(const struct vial_vm_config *config, const char *tag,
                                                    const char *path)
{
    size_t length = strlen(path);
    for (size_t i = 0; i < config->fs_entry_count; i++) {
        const struct fs_entry_config *entry = &config->fs_entries[i];
        bool is_over = strlen(entry->path) <= length && path_overlaps(entry->path, path);
        if (is_over && !entry->is_folder && strcmp(entry->tag, tag) == 0)
            return entry;
    }
    return NULL;
}

/* The tag as the file system has it, or NULL. */
static const char *find_tag(const struct vial_vm_config *config, const char *tag)
{
    bool has_root = config->root_kind != ROOT_NONE;
    if (tag == NULL)
        return has_root ? config->root.tag : NULL;
    if (has_root && strcmp(config->root.tag, tag) == 0)
        return config->root.tag;
    for (size_t i = 0; i < config->fs_count; i++)
        if (strcmp(config->fs[i].tag, tag) == 0)
            return config->fs[i].tag;
    for (size_t i = 0; i < config->mapped_dir_count; i++)
        if (strcmp(config->mapped_dirs[i].tag, tag) == 0)
            return config->mapped_dirs[i].tag;
    return NULL;
}

/* ---- checks ---- */

/* Completes an error about the entry that is to be added. */
static int blame(int result, const struct vial_vm_config *config, const char *member, const char *value,
                 const char *remedy, struct vial_error *err)
{
    error_field(err, "%s[%zu].%s", what, config->fs_entry_count, member);
    error_value(err, "%s", value);
    error_remedy(err, "%s", remedy);
    return result;
}

static bool is_component(const char *name, size_t length)
{
    bool is_dots = (length == 1 && name[0] == '.') || (length == 2 && memcmp(name, "..", 2) == 0);
    return length > 0 && length <= NAME_MAX && !is_dots;
}

static int check_form(const struct vial_vm_config *config, const char *path, struct vial_error *err)
{
    const char *why = NULL;
    size_t length = strlen(path);
    if (path[0] != '/')
        why = "a path of the guest must be absolute";
    else if (length >= PATH_MAX)
        why = "the path is longer than Linux takes";
    for (size_t at = 0; at < length && why == NULL;) {
        size_t size = strcspn(path + at + 1, "/");
        if (!is_component(path + at + 1, size))
            why = "a part of the path is empty, . or .., or longer than 255 bytes";
        at += 1 + size;
    }
    if (why == NULL)
        return 0;
    int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_CONFIGURE, "%s", why);
    return blame(result, config, "path", path, "write it as /etc/config.json", err);
}

/* What the path stands in. */
static int check_parent(const struct vial_vm_config *config, const char *tag, const char *path, struct vial_error *err)
{
    size_t length = (size_t)(strrchr(path, '/') - path);
    const struct fs_entry_config *parent = length > 0 ? find(config, tag, path, length) : NULL;
    if (length == 0 || (parent != NULL && parent->is_folder))
        return 0;
    if (parent != NULL) {
        int result = error_set_os(err, VIAL_PHASE_CONFIGURE, ENOTDIR, "%s is a file", error_short(parent->path).text);
        return blame(result, config, "path", path, "choose another path", err);
    }
    int result = error_set(err, VIAL_ERROR_NOT_FOUND, VIAL_PHASE_CONFIGURE, "the folder of %s is not an entry itself",
                           error_short(path).text);
    return blame(result, config, "path", path, "add that folder first", err);
}

static int check_path(const struct vial_vm_config *config, const char *tag, const char *path, struct vial_error *err)
{
    int result = check_form(config, path, err);
    if (result == 0)
        result = check_parent(config, tag, path, err);
    if (result < 0 || config_find_entry(config, tag, path) == NULL)
        return result;
    result = error_set(err, VIAL_ERROR_DUPLICATE, VIAL_PHASE_CONFIGURE, "%s is an entry already",
                       error_short(path).text);
    return blame(result, config, "path", path, "give each entry a path of its own", err);
}

static int check_contents(const struct vial_vm_config *config, const struct vial_fs_entry_options *options,
                          struct vial_error *err)
{
    if (options->mode > 07777) {
        int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_CONFIGURE, "it is more than permissions");
        return blame(result, config, "mode", "", "use permissions such as 0644", err);
    }
    if (options->is_folder && (options->length > 0 || options->one_shot)) {
        int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_CONFIGURE, "only a file has data or is one_shot");
        return blame(result, config, "is_folder", "true", "leave these out", err);
    }
    if (options->data == NULL && options->length > 0) {
        int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_CONFIGURE, "there is a length, but no data");
        return blame(result, config, "data", "", "give the file's bytes, or the length 0 for an empty file", err);
    }
    if (options->length > LIMIT_FS_ENTRY_BYTES - config->fs_entry_bytes) {
        int result = error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_CONFIGURE,
                               "all entries together would have more than %u MiB", LIMIT_FS_ENTRY_BYTES >> 20);
        return blame(result, config, "length", "", "share a folder of the host instead", err);
    }
    return 0;
}

static int check_tag(const struct vial_vm_config *config, const char *asked, const char *found, struct vial_error *err)
{
    if (found != NULL)
        return 0;
    int result = error_set(err, VIAL_ERROR_NOT_FOUND, VIAL_PHASE_CONFIGURE,
                           asked != NULL ? "no file system has this tag" : "the machine has no root to put it into");
    return blame(result, config, "tag", asked != NULL ? asked : "", "set the root, or add the file system, first", err);
}

/* ---- adding ---- */

/* On failure nothing is left to free. */
static int entry_init(struct fs_entry_config *entry, const char *tag, const struct vial_fs_entry_options *options,
                      struct vial_error *err)
{
    struct fs_entry_config made = {
        .length = options->length,
        .mode = options->mode,
        .is_folder = options->is_folder,
        .one_shot = options->one_shot,
    };
    bool is_copied = config_copy_text(&made.tag, tag) && config_copy_text(&made.path, options->path);
    if (is_copied && options->length > 0) {
        made.data = alloc_zero(options->length);
        is_copied = made.data != NULL;
    }
    if (!is_copied) {
        entry_free(&made);
        return config_no_memory(err);
    }
    if (options->length > 0)
        memcpy(made.data, options->data, options->length);
    *entry = made;
    return 0;
}

int vial_vm_config_add_fs_entry(struct vial_vm_config *config, const struct vial_fs_entry_options *options,
                                struct vial_error *err)
{
    struct vial_fs_entry_options ours = VIAL_FS_ENTRY_OPTIONS_INIT;
    int result = TAKE_SIZED(config, ours, options, err);
    const char *tag = result == 0 ? find_tag(config, ours.tag) : NULL;
    if (result == 0)
        result = config_check_text(ours.path, "fs_entries.path", err);
    if (result == 0)
        result = check_tag(config, ours.tag, tag, err);
    if (result == 0)
        result = check_path(config, tag, ours.path, err);
    if (result == 0)
        result = check_contents(config, &ours, err);
    if (result == 0)
        result = GROW(config, fs_entries, fs_entry_count, fs_entry_capacity, LIMIT_FS_ENTRIES, what, err);
    if (result == 0)
        result = entry_init(&config->fs_entries[config->fs_entry_count], tag, &ours, err);
    if (result < 0)
        return result;
    config->fs_entry_count++;
    config->fs_entry_bytes += ours.length;
    return 0;
}
