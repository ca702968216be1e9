// SPDX-License-Identifier: Apache-2.0
/* The files that images name: opened only if the caller of disk_open has allowed them by name.
 *
 * An image is data from somewhere; a name in it is a wish of whoever wrote it, and could be any file that we can read.
 * So a name counts for nothing unless the caller lists it, as the image writes it or as the path that it leads to. A
 * relative name starts at the folder of the image that holds it, at every depth. How a file is read is the list's word,
 * too; an image that says otherwise is refused.
 *
 *     image -> names "base.img" -> on the list? -> not too deep, none of those above? -> opened read only
 *
 * Invariants: (1) nothing is opened, or even looked at, before its name was found on the list (looked at: the path is
 * resolved to compare it with the list's paths). (2) a chain is at most LIMIT_DISK_CHAIN long and never meets itself.
 * (3) what is under an image is read only.
 *
 * Trust: names are hostile. The list is the caller's.
 */
#include "disk/open.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/limits.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

char *disk_resolve(const char *folder_of, const char *name)
{
    const char *slash = strrchr(folder_of, '/');
    if (name[0] == '/' || slash == NULL)
        return alloc_string(name);
    size_t folder_bytes = (size_t)(slash - folder_of) + 1, name_bytes = strlen(name) + 1;
    char *path = alloc_zero(folder_bytes + name_bytes);
    if (path == NULL)
        return NULL;
    memcpy(path, folder_of, folder_bytes);
    memcpy(path + folder_bytes, name, name_bytes);
    return path;
}

/* Whether both lead to one place; false where one leads nowhere. */
static bool is_same_path(const char *a, const char *b)
{
    auto_free char *real_a = realpath(a, NULL), *real_b = realpath(b, NULL);
    return strcmp(a, b) == 0 || (real_a != NULL && real_b != NULL && strcmp(real_a, real_b) == 0);
}

/* The caller's word on a name, or NULL. */
static const struct disk_backing *find_allowed(const struct disk_options *options, const char *name, const char *path)
{
    for (size_t i = 0; i < options->backing_count; i++)
        if (strcmp(options->backing[i].path, name) == 0)
            return &options->backing[i];
    for (size_t i = 0; i < options->backing_count; i++)
        if (is_same_path(options->backing[i].path, path))
            return &options->backing[i];
    return NULL;
}

/* "json:…", "nbd://…", "file:…": what other programs take for something else than a path. */
static bool has_protocol(const char *name)
{
    size_t length = 0;
    while (isalnum((unsigned char)name[length]) || name[length] == '+' || name[length] == '-' || name[length] == '.')
        length++;
    return length > 0 && name[length] == ':';
}

static int refuse_name(const struct disk_file *from, const char *name, struct vial_error *err)
{
    bool is_protocol = has_protocol(name);
    error_set(err, is_protocol ? VIAL_ERROR_UNSUPPORTED : VIAL_ERROR_PERMISSION, VIAL_PHASE_START,
              is_protocol ? "%s names %s, which is not a plain path" : "%s names the file %s, which is not allowed",
              error_short(from->path).text, error_short(name).text);
    error_value(err, "%s", name);
    if (is_protocol)
        error_remedy(err, "give the image a path instead (qemu-img rebase -u -b PATH -F FORMAT IMAGE)");
    else
        error_remedy(err,
                     "if you trust that image, allow the file by this name, with its format (vial disk: "
                     "--allow-backing %s:FORMAT)",
                     error_short(name).text);
    return -EACCES;
}

static int check_format(const struct disk_file *from, const char *name, enum vial_disk_format named,
                        enum vial_disk_format allowed, struct vial_error *err)
{
    int result = 0;
    if (!disk_format_is_known(allowed)) {
        result = error_set(err, VIAL_ERROR_MISSING, VIAL_PHASE_START, "the format of %s, under %s, is not given",
                           error_short(name).text, error_short(from->path).text);
        error_remedy(err, "give it together with the name: raw, qcow2 or vmdk");
    } else if (named != VIAL_DISK_UNSET && named != allowed) {
        result = error_set(err, VIAL_ERROR_CONFLICT, VIAL_PHASE_START, "%s is allowed as %s, but %s calls it %s",
                           error_short(name).text, disk_format_name(allowed), error_short(from->path).text,
                           disk_format_name(named));
        error_remedy(err, "find out what it is, and correct the one that is wrong");
    }
    return result;
}

static int check_way(const struct disk_opener *opener, const struct disk_file *from, const char *path,
                     struct vial_error *err)
{
    struct stat next;
    if (opener->depth + 1 >= LIMIT_DISK_CHAIN) {
        int result = error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_START, "%s lies under %u other images already",
                               error_short(from->path).text, opener->depth);
        error_remedy(err, "join some of them (qemu-img rebase, or vial disk convert), %d are allowed",
                     LIMIT_DISK_CHAIN);
        return result;
    }
    if (stat(path, &next) < 0)
        return 0; /* opening it says what is wrong */
    for (const struct disk_opener *above = opener; above != NULL; above = above->parent)
        if (disk_file_is_same(&above->file, &next)) {
            error_set_os(err, VIAL_PHASE_START, ELOOP, "%s names %s, which lies above it", error_short(from->path).text,
                         error_short(path).text);
            error_remedy(err, "the image is broken: mend it with qemu-img rebase -u");
            return -ELOOP;
        }
    return 0;
}

int disk_open_backing(struct disk_opener *opener, const struct disk_file *from, const char *name,
                      enum vial_disk_format named_format, struct disk **ret_disk, struct vial_error *err)
{
    if (opener->leaves_out)
        return disk_new_absent(ret_disk) < 0 ? error_no_memory(err, VIAL_PHASE_START) : 0;
    if (has_protocol(name) || name[0] == '\0')
        return refuse_name(from, name, err);
    auto_free char *path = disk_resolve(from->path, name);
    if (path == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    const struct disk_backing *allowed = find_allowed(opener->options, name, path);
    if (allowed == NULL)
        return refuse_name(from, name, err);
    int result = check_format(from, name, named_format, allowed->format, err);
    if (result == 0)
        result = check_way(opener, from, path, err);
    if (result < 0)
        return result;
    struct disk_opener next = {.options = opener->options, .parent = opener, .depth = opener->depth + 1};
    return disk_open_from(&next, path, allowed->format, true, ret_disk, err);
}

/* ---- what was left out ---- */

static int absent_read(void *state, const struct iovec *parts, int count, uint64_t offset)
{
    (void)state;
    (void)parts;
    (void)count;
    (void)offset;
    return -EIO;
}

static int absent_close(void *state, struct vial_error *err)
{
    (void)state;
    (void)err;
    return 0;
}

int disk_new_absent(struct disk **ret_disk)
{
    static const struct disk_ops ops = {.name = "absent", .read = absent_read, .close = absent_close};
    struct disk *disk = alloc_zero(sizeof(*disk));
    if (disk == NULL)
        return -ENOMEM;
    disk->file = (struct disk_file){.fd = -1, .path = "", .size_bytes = INT64_MAX, .alignment_bytes = 1};
    disk->shape = (struct disk_shape){.ops = &ops,
                                      .properties = {.format = VIAL_DISK_RAW,
                                                     .size_bytes = INT64_MAX & ~UINT64_C(511),
                                                     .alignment_bytes = 1,
                                                     .best_bytes = 512,
                                                     .is_read_only = true}};
    *ret_disk = disk;
    return 0;
}
