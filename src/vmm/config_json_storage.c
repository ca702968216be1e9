// SPDX-License-Identifier: Apache-2.0
/* A configuration from JSON: what a machine stores on.
 *
 *     "root": "host" | "builtin"
 *           | {"path": …}                           a folder
 *           | {"disk": ID, …}                       a disk
 *           | {"layers": [ID, …], "upper": ID, …}   disks merged
 *           | {"host": true, "hidden": [PATH, …]}   the host's programs
 *
 * A root is what its first known key says; the keys of the other forms are refused then as unknown.
 *
 * Invariants: as in config_json.c.
 *
 * Trust: the document may be hostile; its size is limited by json_parse_file.
 */
#include "vmm/config_json.h"

#include "base/alloc.h"
#include "base/error.h"
#include "vmm/parse.h"

#include <string.h>

const char *const config_disk_formats[] = {"raw", "qcow2", "vmdk", NULL};
const char *const config_disk_caches[] = {"writeback", "unsafe", NULL};
const char *const config_disk_syncs[] = {"full", "relaxed", "none", NULL};
const char *const config_fs_caches[] = {"auto", "none", "always", NULL};
const char *const config_fs_xattrs[] = {"user", "none", "all", NULL};

/* ---- file systems ---- */

static int read_owner(const struct json_cursor *at, struct vial_fs_options *fs, struct vial_error *err)
{
    static const struct member members[] = {
        {.key = "uid", .kind = MEMBER_U32, .offset = offsetof(struct vial_fs_options, owner_uid)},
        {.key = "gid", .kind = MEMBER_U32, .offset = offsetof(struct vial_fs_options, owner_gid)},
        {.key = NULL},
    };
    fs->has_owner = true;
    return json_read_object(at, members, fs, err);
}

static int read_fs_options(const struct json_cursor *at, struct vial_fs_options *fs, struct vial_error *err)
{
    static const struct member members[] = {
        {MEMBER(vial_fs_options, tag, MEMBER_TEXT)},
        {MEMBER(vial_fs_options, path, MEMBER_TEXT)},
        {MEMBER(vial_fs_options, dax_window_mib, MEMBER_U64)},
        {MEMBER(vial_fs_options, read_only, MEMBER_BOOL)},
        {BYTE_CHOICE(vial_fs_options, cache, config_fs_caches, VIAL_FS_CACHE_AUTO)},
        {BYTE_CHOICE(vial_fs_options, xattrs, config_fs_xattrs, VIAL_FS_XATTRS_USER)},
        {OTHER("owner")},
        {MEMBER(vial_fs_options, only_public, MEMBER_BOOL)},
        {MEMBER(vial_fs_options, one_device, MEMBER_BOOL)},
        {MEMBER(vial_fs_options, throw_away, MEMBER_BOOL)},
        {MEMBER(vial_fs_options, empty, MEMBER_BOOL)},
        {MEMBER(vial_fs_options, without_init, MEMBER_BOOL)},
        {.key = NULL},
    };
    struct json_cursor owner;
    int result = json_read_object(at, members, fs, err);
    return result == 0 && json_member(at, "owner", &owner) ? read_owner(&owner, fs, err) : result;
}

int json_read_fs(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    struct vial_fs_options fs = VIAL_FS_OPTIONS_INIT;
    int result = read_fs_options(at, &fs, err);
    return result == 0 ? vial_vm_config_add_fs(config, &fs, err) : result;
}

/* ---- the root ---- */

static int read_folder_root(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    struct vial_fs_options fs = VIAL_FS_OPTIONS_INIT;
    int result = read_fs_options(at, &fs, err);
    return result == 0 ? vial_vm_config_set_root(config, &fs, err) : result;
}

static int read_disk_root(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const struct member members[] = {
        {MEMBER(vial_root_disk_options, disk, MEMBER_TEXT)},
        {MEMBER(vial_root_disk_options, fstype, MEMBER_TEXT)},
        {MEMBER(vial_root_disk_options, options, MEMBER_TEXT)},
        {MEMBER(vial_root_disk_options, read_only, MEMBER_BOOL)},
        {.key = NULL},
    };
    struct vial_root_disk_options disk = VIAL_ROOT_DISK_OPTIONS_INIT;
    int result = json_read_object(at, members, &disk, err);
    return result == 0 ? vial_vm_config_set_root_disk(config, &disk, err) : result;
}

static int read_layered_root(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const struct member members[] = {
        {OTHER("layers")},
        {.key = "fstype", .kind = MEMBER_TEXT, .offset = offsetof(struct vial_root_layers_options, lower_fstype)},
        {MEMBER(vial_root_layers_options, upper, MEMBER_TEXT)},
        {MEMBER(vial_root_layers_options, upper_fstype, MEMBER_TEXT)},
        {.key = NULL},
    };
    struct vial_root_layers_options layers = VIAL_ROOT_LAYERS_OPTIONS_INIT;
    struct json_strings lower = {0};
    struct json_cursor member;
    int result = json_read_object(at, members, &layers, err);
    if (result == 0 && json_member(at, "layers", &member))
        result = json_read_strings(&member, &lower, err);
    layers.lower = lower.items;
    if (result == 0)
        result = vial_vm_config_set_root_layers(config, &layers, err);
    json_strings_free(&lower);
    return result;
}

/* {"host": false} would be a strange way to say nothing. */
static int check_true(const struct json_cursor *at, const char *key, struct vial_error *err)
{
    struct json_cursor member;
    bool is_true = false;
    int result = json_member(at, key, &member) ? json_get_bool(&member, &is_true, err) : 0;
    if (result < 0 || is_true)
        return result;
    result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_CONFIGURE, "it is false");
    json_blame(&member, err);
    error_remedy(err, "say true, or name another root");
    return result;
}

static int read_host_root(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const struct member members[] = {
        {OTHER("host")},
        {OTHER("hidden")},
        {MEMBER(vial_root_host_options, dax_window_mib, MEMBER_U64)},
        {.key = NULL},
    };
    struct vial_root_host_options host = VIAL_ROOT_HOST_OPTIONS_INIT;
    struct json_strings hidden = {0};
    struct json_cursor member;
    int result = json_read_object(at, members, &host, err);
    if (result == 0)
        result = check_true(at, "host", err);
    if (result == 0 && json_member(at, "hidden", &member))
        result = json_read_strings(&member, &hidden, err);
    host.hidden = hidden.items;
    if (result == 0)
        result = vial_vm_config_set_root_host(config, &host, err);
    json_strings_free(&hidden);
    return result;
}

static int read_builtin_root(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const char *const keys[] = {"builtin", NULL};
    int result = json_check_object(at, keys, err);
    if (result == 0)
        result = check_true(at, "builtin", err);
    return result == 0 ? vial_vm_config_set_root_builtin(config, err) : result;
}

static int read_named_root(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const struct vial_root_host_options host = VIAL_ROOT_HOST_OPTIONS_INIT;
    static const char *const names[] = {"host", "builtin", NULL};
    int choice = 0;
    int result = json_get_choice(at, names, &choice, err);
    if (result < 0)
        return result;
    return choice == 0 ? vial_vm_config_set_root_host(config, &host, err)
                       : vial_vm_config_set_root_builtin(config, err);
}

int json_read_root(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const struct {
        const char *key;
        section_reader *reader;
    } forms[] = {
        {"disk", read_disk_root},
        {"layers", read_layered_root},
        {"host", read_host_root},
        {"builtin", read_builtin_root},
    };
    struct json_cursor member;
    if (json_is_string(at->value))
        return read_named_root(config, at, err);
    for (size_t i = 0; i < array_length(forms) && json_is_object(at->value); i++)
        if (json_member(at, forms[i].key, &member))
            return forms[i].reader(config, at, err);
    return read_folder_root(config, at, err);
}

/* ---- mounts ---- */

int json_read_mapped_dir(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const struct member members[] = {
        {MEMBER(vial_mapped_dir_options, host, MEMBER_TEXT)},
        {MEMBER(vial_mapped_dir_options, guest, MEMBER_TEXT)},
        {MEMBER(vial_mapped_dir_options, read_only, MEMBER_BOOL)},
        {.key = NULL},
    };
    struct vial_mapped_dir_options dir = VIAL_MAPPED_DIR_OPTIONS_INIT;
    if (json_is_string(at->value)) {
        const char *text = NULL;
        int result = json_get_text(at, &text, err);
        return result == 0 ? vial_vm_config_add_mapped_dir_text(config, text, err) : result;
    }
    int result = json_read_object(at, members, &dir, err);
    return result == 0 ? vial_vm_config_add_mapped_dir(config, &dir, err) : result;
}

int json_read_mount(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const struct member members[] = {
        {MEMBER(vial_mount_options, disk, MEMBER_TEXT)},      {MEMBER(vial_mount_options, guest, MEMBER_TEXT)},
        {MEMBER(vial_mount_options, fstype, MEMBER_TEXT)},    {MEMBER(vial_mount_options, options, MEMBER_TEXT)},
        {MEMBER(vial_mount_options, read_only, MEMBER_BOOL)}, {.key = NULL},
    };
    struct vial_mount_options mount = VIAL_MOUNT_OPTIONS_INIT;
    int result = json_read_object(at, members, &mount, err);
    return result == 0 ? vial_vm_config_add_mount(config, &mount, err) : result;
}

static int read_mode(const struct json_cursor *at, uint32_t *mode, struct vial_error *err)
{
    const char *text = NULL, *why = NULL;
    int result = json_get_text(at, &text, err);
    if (result < 0 || parse_mode(text, mode, &why) == 0)
        return result;
    result = error_set(err, VIAL_ERROR_SYNTAX, VIAL_PHASE_CONFIGURE, "\"%s\" is no mode: %s", text, why);
    json_blame(at, err);
    error_remedy(err, "write it as chmod has it, such as \"1777\"");
    return result;
}

int json_read_tmpfs(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const struct member members[] = {
        {MEMBER(vial_tmpfs_options, guest, MEMBER_TEXT)},
        {MEMBER(vial_tmpfs_options, size_mib, MEMBER_U64)},
        {OTHER("mode")},
        {.key = NULL},
    };
    struct vial_tmpfs_options tmpfs = VIAL_TMPFS_OPTIONS_INIT;
    struct json_cursor member;
    int result = json_read_object(at, members, &tmpfs, err);
    if (result == 0 && json_member(at, "mode", &member))
        result = read_mode(&member, &tmpfs.mode, err);
    return result == 0 ? vial_vm_config_add_tmpfs(config, &tmpfs, err) : result;
}

/* ---- disks ---- */

static int read_limits(const struct json_cursor *at, struct vial_disk_options *disk, struct vial_error *err)
{
    static const struct member members[] = {
        {MEMBER(vial_disk_options, bytes_per_second, MEMBER_U64)},
        {MEMBER(vial_disk_options, burst_bytes, MEMBER_U64)},
        {MEMBER(vial_disk_options, operations_per_second, MEMBER_U64)},
        {MEMBER(vial_disk_options, burst_operations, MEMBER_U64)},
        {.key = NULL},
    };
    return json_read_object(at, members, disk, err);
}

static int read_backing(const struct json_cursor *at, struct vial_disk_backing **ret_backing, size_t *ret_count,
                        struct vial_error *err)
{
    static const struct member members[] = {
        {MEMBER(vial_disk_backing, path, MEMBER_TEXT)},
        {CHOICE(vial_disk_backing, format, config_disk_formats, VIAL_DISK_RAW)},
        {.key = NULL},
    };
    size_t count = 0;
    int result = json_get_count(at, LIMIT_DISK_BACKING, &count, err);
    if (result < 0)
        return result;
    auto_free struct vial_disk_backing *backing = alloc_zero((count + 1) * sizeof(backing[0]));
    if (backing == NULL)
        return error_no_memory(err, VIAL_PHASE_CONFIGURE);
    for (size_t i = 0; i < count && result == 0; i++) {
        struct json_cursor element = json_element(at, i);
        result = json_read_object(&element, members, &backing[i], err);
    }
    if (result < 0)
        return result;
    *ret_backing = steal_ptr(backing);
    *ret_count = count;
    return 0;
}

int json_read_disk(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const struct member members[] = {
        {MEMBER(vial_disk_options, id, MEMBER_TEXT)},
        {MEMBER(vial_disk_options, path, MEMBER_TEXT)},
        {CHOICE(vial_disk_options, format, config_disk_formats, VIAL_DISK_RAW)},
        {CHOICE(vial_disk_options, cache, config_disk_caches, VIAL_DISK_WRITEBACK)},
        {CHOICE(vial_disk_options, sync, config_disk_syncs, VIAL_DISK_SYNC_FULL)},
        {MEMBER(vial_disk_options, read_only, MEMBER_BOOL)},
        {MEMBER(vial_disk_options, direct_io, MEMBER_BOOL)},
        {MEMBER(vial_disk_options, queues, MEMBER_U16)},
        {OTHER("backing")},
        {OTHER("limits")},
        {.key = NULL},
    };
    struct vial_disk_options disk = VIAL_DISK_OPTIONS_INIT;
    auto_free struct vial_disk_backing *backing = NULL;
    struct json_cursor member;
    int result = json_read_object(at, members, &disk, err);
    if (result == 0 && json_member(at, "limits", &member))
        result = read_limits(&member, &disk, err);
    if (result == 0 && json_member(at, "backing", &member))
        result = read_backing(&member, &backing, &disk.backing_count, err);
    disk.backing = backing;
    return result == 0 ? vial_vm_config_add_disk(config, &disk, err) : result;
}
