// SPDX-License-Identifier: Apache-2.0
/* Checking what a machine mounts: the disks of its root, mapped folders, disks and memory at paths of the guest.
 *
 * Whether a mount point exists is not known here, as only the guest can look into a disk; its init says so later.
 *
 * Invariants: (1) as in check.c. (2) no disk is mounted twice, no two mounts share a path, and none lies in another.
 *
 * Trust: every value may come from a hostile or careless caller.
 */
#include "vmm/check.h"

#include "base/path.h"

#include <string.h>

/* ---- disks ---- */

/* A device of the guest by its own name, which we cannot check. */
static bool is_device_path(const char *name)
{
    return strncmp(name, "/dev/", 5) == 0;
}

const struct disk_config *config_find_disk(const struct vial_vm_config *config, const char *id)
{
    for (size_t i = 0; id != NULL && i < config->disk_count; i++)
        if (strcmp(config->disks[i].id, id) == 0)
            return &config->disks[i];
    return NULL;
}

static int check_disk_name(const struct vial_vm_config *config, const char *disk, const char *field,
                           struct vial_error *err)
{
    int result = check_given(disk, field, "give the id of a disk", err);
    if (result < 0)
        return result;
    if (config->disk_count == 0)
        return refuse(err, VIAL_ERROR_NOT_FOUND, field, disk, "add it to disks", "the machine has no disks");
    if (is_device_path(disk) ? strlen(disk) >= LIMIT_EXEC_PATH_BYTES : config_find_disk(config, disk) == NULL)
        return refuse(err, VIAL_ERROR_NOT_FOUND, field, disk,
                      "give the id of one of the disks (vial vm inspect --json)", "no disk has the id \"%s\"",
                      error_short(disk).text);
    return 0;
}

/* What travels to the init: short enough, and no control characters, which no file system type or option has. */
static int check_words(const char *text, size_t most_bytes, const char *field, struct vial_error *err)
{
    if (text == NULL)
        return 0;
    if (strlen(text) > most_bytes)
        return refuse(err, VIAL_ERROR_TOO_BIG, field, text, "use a shorter one", "it is longer than %zu bytes",
                      most_bytes);
    if (!text_is_printable_ascii(text))
        return refuse(err, VIAL_ERROR_INVALID, field, text, "use only characters from space to tilde",
                      "it holds control or non-ASCII characters");
    return 0;
}

static int check_mount(const struct vial_vm_config *config, const struct mount_config *mount, const char *name,
                       struct vial_error *err)
{
    int result = check_disk_name(config, mount->disk, place_of("%s.disk", name).text, err);
    if (result == 0)
        result = check_words(mount->fstype, LIMIT_FSTYPE_BYTES, place_of("%s.fstype", name).text, err);
    if (result == 0)
        result = check_words(mount->options, LIMIT_MOUNT_OPTIONS_BYTES, place_of("%s.options", name).text, err);
    return result;
}

/* ---- every disk once ---- */

/* The disk of mount `index` among all: those of the root, then the others; NULL behind the last. */
static const char *disk_at(const struct vial_vm_config *config, size_t index, struct place *ret_place)
{
    if (config->root_kind == ROOT_DISK && index-- == 0) {
        *ret_place = place_of("root.disk");
        return config->root_disk.disk;
    }
    if (index < config->root_lower.count) {
        *ret_place = place_of("root.layers[%zu]", index);
        return config->root_lower.items[index];
    }
    index -= config->root_lower.count;
    if (config->root_upper.disk != NULL && index-- == 0) {
        *ret_place = place_of("root.upper");
        return config->root_upper.disk;
    }
    *ret_place = place_of("mounts[%zu].disk", index);
    return index < config->mount_count ? config->mounts[index].disk : NULL;
}

static int check_disks_once(const struct vial_vm_config *config, struct vial_error *err)
{
    struct place place, other;
    const char *disk;
    for (size_t i = 0; (disk = disk_at(config, i, &place)) != NULL; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(disk, disk_at(config, j, &other)) == 0)
                return refuse(err, VIAL_ERROR_DUPLICATE, place.text, disk, "mount each disk once",
                              "%s is the same disk", other.text);
    return 0;
}

/* ---- the root ---- */

static int check_layers(const struct vial_vm_config *config, struct vial_error *err)
{
    const struct mount_config *upper = &config->root_upper;
    int result = 0;
    if (config->root_lower.count == 0)
        return refuse(err, VIAL_ERROR_MISSING, "root.layers", "", "name at least one disk", "there is no layer");
    if (config->root_lower.count > LIMIT_DEVICES)
        return refuse_number(err, VIAL_ERROR_TOO_BIG, "root.layers", (int64_t)config->root_lower.count,
                             "use at most 200", "these are more layers than a machine can have disks");
    for (size_t i = 0; i < config->root_lower.count && result == 0; i++)
        result = check_disk_name(config, config->root_lower.items[i], place_of("root.layers[%zu]", i).text, err);
    if (result == 0)
        result = check_words(config->root_lower_fstype, LIMIT_FSTYPE_BYTES, "root.fstype", err);
    if (result == 0)
        result = check_words(upper->fstype, LIMIT_FSTYPE_BYTES, "root.upper_fstype", err);
    if (result < 0 || upper->disk == NULL)
        return result;
    result = check_disk_name(config, upper->disk, "root.upper", err);
    const struct disk_config *disk = result == 0 ? config_find_disk(config, upper->disk) : NULL;
    if (disk != NULL && disk->read_only)
        return refuse(err, VIAL_ERROR_CONFLICT, "root.upper", upper->disk,
                      "let the disk be written to, or leave upper out for a throw-away layer",
                      "the upper layer is written to, and its disk is read_only");
    return result;
}

static int check_hidden(const struct vial_vm_config *config, struct vial_error *err)
{
    for (size_t i = 0; i < config->root_hidden.count; i++) {
        auto_free char *normal = NULL;
        struct place field = place_of("root.hidden[%zu]", i);
        int result = check_guest_path(config->root_hidden.items[i], field.text, &normal, err);
        if (result < 0)
            return result;
        if (strcmp(normal, "/") == 0)
            return refuse(err, VIAL_ERROR_CONFLICT, field.text, "/", "use the builtin root", "nothing would be left");
        if (path_overlaps(normal, CONFIG_DEFAULT_INIT))
            return refuse(err, VIAL_ERROR_CONFLICT, field.text, config->root_hidden.items[i], "leave it out",
                          "%s is the init that starts the machine", CONFIG_DEFAULT_INIT);
    }
    return 0;
}

static int check_root(const struct vial_vm_config *config, struct vial_error *err)
{
    const uint64_t window_mib = config->root.dax_window_mib;
    switch (config->root_kind) {
    case ROOT_DISK:
        return check_mount(config, &config->root_disk, "root", err);
    case ROOT_LAYERS:
        return check_layers(config, err);
    case ROOT_HOST:
        if (window_mib > LIMIT_DAX_WINDOW_MIB || window_mib % 2 != 0)
            return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, "root.dax_window_mib", (int64_t)window_mib,
                                 "give an even number up to 1048576", "it is no size of a DAX window");
        return check_hidden(config, err);
    case ROOT_NONE:
    case ROOT_BUILTIN:
    case ROOT_FOLDER: /* a file system like others: check_file_systems */
        break;
    }
    return 0;
}

/* ---- mount points ---- */

/* Where mount `index` among all goes: folders, disks, memory; NULL behind the last. */
static const char *target_at(const struct vial_vm_config *config, size_t index, struct place *ret_place)
{
    if (index < config->mapped_dir_count) {
        *ret_place = place_of("mapped_dirs[%zu]", index);
        return config->mapped_dirs[index].guest;
    }
    index -= config->mapped_dir_count;
    if (index < config->mount_count) {
        *ret_place = place_of("mounts[%zu]", index);
        return config->mounts[index].guest;
    }
    index -= config->mount_count;
    *ret_place = place_of("tmpfs[%zu]", index);
    return index < config->tmpfs_count ? config->tmpfs[index].guest : NULL;
}

static size_t target_count(const struct vial_vm_config *config)
{
    return config->mapped_dir_count + config->mount_count + config->tmpfs_count;
}

/* Places that the init fills itself, before everything else, and its own. */
static int check_place(const char *normal, const char *field, const char *target, struct vial_error *err)
{
    static const char *const taken[] = {"/dev", "/proc", "/sys"};
    if (strcmp(normal, "/") == 0)
        return refuse(err, VIAL_ERROR_CONFLICT, field, target, "make it the root instead",
                      "what is mounted at / would hide the root");
    for (size_t i = 0; i < array_length(taken); i++)
        if (strcmp(normal, taken[i]) == 0)
            return refuse(err, VIAL_ERROR_CONFLICT, field, target, "choose another path",
                          "%s is the guest kernel's own", taken[i]);
    if (path_overlaps(normal, CONFIG_DEFAULT_INIT))
        return refuse(err, VIAL_ERROR_CONFLICT, field, target, "choose another path", "%s is the init that mounts it",
                      CONFIG_DEFAULT_INIT);
    return 0;
}

static int check_targets(const struct vial_vm_config *config, char **normal, struct vial_error *err)
{
    struct place place, other;
    for (size_t i = 0; i < target_count(config); i++) {
        const char *target = target_at(config, i, &place);
        struct place field = place_of("%s.guest", place.text);
        int result = check_guest_path(target, field.text, &normal[i], err);
        if (result == 0)
            result = check_place(normal[i], field.text, target, err);
        if (result == 0 && strlen(normal[i]) >= LIMIT_EXEC_PATH_BYTES)
            result = refuse(err, VIAL_ERROR_TOO_BIG, field.text, target, "use a shorter one",
                            "the path is longer than %d bytes", LIMIT_EXEC_PATH_BYTES - 1);
        if (result < 0)
            return result;
        for (size_t j = 0; j < i; j++) {
            if (!path_overlaps(normal[i], normal[j]))
                continue;
            target_at(config, j, &other);
            if (strcmp(normal[i], normal[j]) == 0)
                return refuse(err, VIAL_ERROR_DUPLICATE, field.text, target, "give each mount a path of its own",
                              "%s is mounted at %s already", other.text, error_short(normal[j]).text);
            return refuse(err, VIAL_ERROR_CONFLICT, field.text, target,
                          "mount the two side by side; one would hide a part of the other",
                          "%s and %s (%s) lie one inside the other", error_short(normal[i]).text,
                          error_short(normal[j]).text, other.text);
        }
    }
    return 0;
}

static int check_all_targets(const struct vial_vm_config *config, struct vial_error *err)
{
    size_t count = target_count(config);
    char **normal = alloc_zero((count + 1) * sizeof(normal[0]));
    if (normal == NULL)
        return error_no_memory(err, VIAL_PHASE_VALIDATE);
    int result = check_targets(config, normal, err);
    for (size_t i = 0; i < count; i++)
        free(normal[i]);
    free(normal);
    return result;
}

static int check_tmpfs(const struct tmpfs_config *tmpfs, size_t index, struct vial_error *err)
{
    if (tmpfs->size_mib > LIMIT_MEMORY_MAX_MIB)
        return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, place_of("tmpfs[%zu].size_mib", index).text,
                             (int64_t)tmpfs->size_mib, "give less than the machine's memory, or 0",
                             "no machine has that much memory");
    if (tmpfs->mode > 07777)
        return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, place_of("tmpfs[%zu].mode", index).text, tmpfs->mode,
                             "use permissions such as 01777", "it is more than permissions");
    return 0;
}

/* ---- entries ---- */

static int refuse_entry(const struct vial_vm_config *config, const struct fs_entry_config *entry, const char *why,
                        struct vial_error *err)
{
    size_t index = (size_t)(entry - config->fs_entries);
    return refuse(err, VIAL_ERROR_CONFLICT, place_of("fs_entries[%zu].path", index).text, entry->path,
                  "give it another path, or make it a folder", "it is a file, and %s", why);
}

/* What is mounted into a folder of the root finds one there, unless the guest makes it elsewhere. */
static int check_entry_targets(const struct vial_vm_config *config, struct vial_error *err)
{
    bool is_left = config->root_kind == ROOT_DISK || config->root_kind == ROOT_LAYERS;
    struct place place;
    for (size_t i = 0; i < target_count(config) && !is_left; i++) {
        auto_free char *normal = NULL;
        int result = check_guest_path(target_at(config, i, &place), place.text, &normal, err);
        if (result < 0)
            return result;
        const struct fs_entry_config *entry = config_find_file_over(config, config->root.tag, normal);
        if (entry != NULL)
            return refuse_entry(config, entry, place_of("%s is mounted there", place.text).text, err);
    }
    return 0;
}

static int check_entry_init(const struct vial_vm_config *config, struct vial_error *err)
{
    const char *init = config_init(config);
    const struct fs_entry_config *entry = init != NULL ? config_find_entry(config, config->root.tag, init) : NULL;
    if (entry == NULL || config->kernel.initramfs != NULL || (!entry->is_folder && (entry->mode & 0111) != 0))
        return 0;
    struct place field = place_of("fs_entries[%zu].%s", (size_t)(entry - config->fs_entries),
                                  entry->is_folder ? "is_folder" : "mode");
    return refuse(err, VIAL_ERROR_CONFLICT, field.text, entry->path, "make it a file with the mode 0755",
                  "it is the first process, and cannot be executed");
}

static int check_entries(const struct vial_vm_config *config, struct vial_error *err)
{
    static const char *const needed[] = {"/dev", "/proc", "/sys"};
    bool has_root = config->root_kind != ROOT_NONE, is_mounted = has_root;
    if (config->kernel.initramfs != NULL)
        is_mounted = has_root && config->root_kind != ROOT_DISK && config->root_kind != ROOT_LAYERS;
    for (size_t i = 0; i < config->fs_entry_count && has_root && !is_mounted; i++)
        if (strcmp(config->fs_entries[i].tag, config->root.tag) == 0)
            return refuse(err, VIAL_ERROR_CONFLICT, place_of("fs_entries[%zu].tag", i).text, config->root.tag,
                          "leave the initramfs out, or put the entry elsewhere",
                          "a root of disks has no file system of its own with an initramfs");
    for (size_t i = 0; i < array_length(needed) && has_root; i++) {
        const struct fs_entry_config *entry = config_find_file_over(config, config->root.tag, needed[i]);
        if (entry != NULL)
            return refuse_entry(config, entry, "the guest's kernel needs a folder there", err);
    }
    int result = has_root ? check_entry_targets(config, err) : 0;
    return result == 0 && has_root ? check_entry_init(config, err) : result;
}

/* ---- the init ---- */

/* Nobody is in the guest who would do it. */
static int check_without_init(const struct vial_vm_config *config, struct vial_error *err)
{
    const struct {
        bool is_asked;
        const char *what;
    } asked[] = {
        {config->exec_path != NULL, "running a program (exec)"},
        {config->agent_fd >= 0, "an agent"},
        {config->root.throw_away, "a throw-away layer"},
        {config->kernel.initramfs != NULL, "a root beside an initramfs"},
        {config_has_mounts(config), "mounting folders, disks and memory"},
        {config_has_init_networks(config), "setting networks up"},
    };
    for (size_t i = 0; i < array_length(asked); i++)
        if (asked[i].is_asked)
            return refuse(err, VIAL_ERROR_CONFLICT, "root.without_init", "true",
                          "leave without_init out, or let the root's own init do it",
                          "%s needs the project's init, which the root is to be without", asked[i].what);
    return 0;
}

/* What mounts things and sets up interfaces is the project's init, and nobody else speaks with us. */
static int check_init(const struct vial_vm_config *config, struct vial_error *err)
{
    const char *init = config->kernel.init;
    if (config->root.without_init)
        return check_without_init(config, err);
    if (init == NULL || strcmp(init, CONFIG_DEFAULT_INIT) == 0)
        return 0;
    if (config_has_mounts(config))
        return refuse(err, VIAL_ERROR_CONFLICT, "kernel.init", init,
                      "leave it out; or use a folder or an initramfs as the root, without mounts",
                      "the root or the mounts need the project's own init");
    if (config_has_init_networks(config))
        return refuse(err, VIAL_ERROR_CONFLICT, "kernel.init", init,
                      "leave it out; or leave out the networks' addresses, gateways, name servers and dhcp, and let "
                      "this init set the interfaces up",
                      "the networks' addresses need the project's own init");
    return 0;
}

int check_mounts(const struct vial_vm_config *config, struct vial_error *err)
{
    int result = check_root(config, err);
    for (size_t i = 0; i < config->mapped_dir_count && result == 0; i++)
        result = check_folder(config->mapped_dirs[i].host, place_of("mapped_dirs[%zu].host", i).text, err);
    for (size_t i = 0; i < config->mount_count && result == 0; i++)
        result = check_mount(config, &config->mounts[i], place_of("mounts[%zu]", i).text, err);
    for (size_t i = 0; i < config->tmpfs_count && result == 0; i++)
        result = check_tmpfs(&config->tmpfs[i], i, err);
    if (result == 0)
        result = check_all_targets(config, err);
    if (result == 0)
        result = check_disks_once(config, err);
    if (result == 0)
        result = check_entries(config, err);
    return result == 0 ? check_init(config, err) : result;
}
