// SPDX-License-Identifier: Apache-2.0
/* The machine of a sandbox: a caller's configuration, made such that another process can read it from a file.
 *
 *     configuration ─ nothing that only this process has? all UTF-8? ─► dump, without exec ─► load ─► absolute paths
 *
 * The copy is what the file will say, read back: what could get lost on the way is found here and now.
 *
 * Backing files are the exception to absolute paths: they are allowed as an image names them or by where they lie, so a
 * relative one that leads to a file from here is allowed by its absolute path as well.
 *
 * Invariants: (1) the copy says the same as the original, but for exec and the form of paths. (2) the original is only
 * read.
 *
 * Trust: the embedding program is trusted; its texts may be anything.
 */
#include "sandbox/spec_parts.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"
#include "vmm/config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- what only this process has ---- */

static int refuse_own(const char *field, const char *what, struct vial_error *err)
{
    int result = error_set(err, VIAL_ERROR_UNSUPPORTED, VIAL_PHASE_CONFIGURE,
                           "%s of this process cannot be given to a sandbox, which has a process of its own", what);
    error_field(err, "%s", field);
    error_remedy(err, "name a file, a folder or a socket by its path, or run the machine here (vial_vm_start)");
    return result;
}

static int check_own(const struct vial_vm_config *config, struct vial_error *err)
{
    bool has_backend = config->root.is_custom, has_net_fd = false;
    for (size_t i = 0; i < config->fs_count; i++)
        has_backend |= config->fs[i].is_custom;
    for (size_t i = 0; i < config->net_count; i++) {
        has_backend |= config->net[i].has_ops;
        has_net_fd |= config->net[i].fd >= 0;
    }
    for (size_t i = 0; i < config->vsock_port_count; i++)
        has_backend |= config->vsock_ports[i].has_ops;
    if (has_backend)
        return refuse_own("machine", "a backend", err);
    if (config->fs_entry_count > 0)
        return refuse_own("machine.fs_entries", "an entry of a file system", err);
    if (has_net_fd)
        return refuse_own("machine.net", "a descriptor", err);
    if (config->serial_count > 0 || config->console_port_count > 0)
        return refuse_own("machine.console", "a descriptor", err);
    return config->observer_count > 0 ? refuse_own("machine", "an exit observer", err) : 0;
}

/* ---- texts ---- */

struct slot {
    char **text;  /* of the configuration, or NULL in it */
    bool is_path; /* of the host */
};

struct slots {
    struct slot *items; /* owned */
    size_t count, capacity;
    bool has_failed;
};

static void add(struct slots *slots, char **text, bool is_path)
{
    if (*text == NULL || slots->has_failed)
        return;
    if (alloc_grow((void **)&slots->items, slots->count, &slots->capacity, sizeof(slots->items[0]), SIZE_MAX) < 0)
        slots->has_failed = true;
    else
        slots->items[slots->count++] = (struct slot){text, is_path};
}

static void add_list(struct slots *slots, const struct string_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        add(slots, &list->items[i], false);
}

static void add_mount(struct slots *slots, struct mount_config *mount)
{
    add(slots, &mount->disk, false);
    add(slots, &mount->guest, false);
    add(slots, &mount->fstype, false);
    add(slots, &mount->options, false);
}

static void add_fs(struct slots *slots, struct fs_config *fs)
{
    add(slots, &fs->tag, false);
    add(slots, &fs->path, true);
}

static void add_disk(struct slots *slots, struct disk_config *disk)
{
    add(slots, &disk->id, false);
    add(slots, &disk->path, true);
    for (size_t i = 0; i < disk->backing_count; i++)
        add(slots, &disk->backing[i].path, false);
}

static void add_net(struct slots *slots, struct net_config *net)
{
    add(slots, &net->path, net->kind != VIAL_NET_TAP); /* whose path is a device's name */
    add_list(slots, &net->addresses);
    add_list(slots, &net->gateways);
    add_list(slots, &net->nameservers);
    add_list(slots, &net->published);
}

static void add_kernel(struct slots *slots, struct kernel_config *kernel)
{
    add(slots, &kernel->path, true);
    add(slots, &kernel->initramfs, true);
    add(slots, &kernel->krunfw, true);
    add(slots, &kernel->init, false);
    add(slots, &kernel->cmdline, false);
}

/* Every text of the configuration but those of its exec. */
static void add_all(struct slots *slots, struct vial_vm_config *config)
{
    add_kernel(slots, &config->kernel);
    add_fs(slots, &config->root);
    add_mount(slots, &config->root_disk);
    add_mount(slots, &config->root_upper);
    add_list(slots, &config->root_lower);
    add_list(slots, &config->root_hidden);
    add(slots, &config->root_lower_fstype, false);
    for (size_t i = 0; i < config->fs_count; i++)
        add_fs(slots, &config->fs[i]);
    for (size_t i = 0; i < config->mapped_dir_count; i++) {
        add(slots, &config->mapped_dirs[i].host, true);
        add(slots, &config->mapped_dirs[i].guest, false);
    }
    for (size_t i = 0; i < config->mount_count; i++)
        add_mount(slots, &config->mounts[i]);
    for (size_t i = 0; i < config->tmpfs_count; i++)
        add(slots, &config->tmpfs[i].guest, false);
    for (size_t i = 0; i < config->disk_count; i++)
        add_disk(slots, &config->disks[i]);
    for (size_t i = 0; i < config->net_count; i++)
        add_net(slots, &config->net[i]);
    for (size_t i = 0; i < config->vsock_port_count; i++)
        add(slots, &config->vsock_ports[i].path, true);
    add(slots, &config->assigned_ip, false);
    add(slots, &config->tsi_group, false);
    add(slots, &config->console_output, true);
}

static int check_utf8(const struct slots *slots, struct vial_error *err)
{
    for (size_t i = 0; i < slots->count; i++) {
        const char *text = *slots->items[i].text;
        if (text_is_utf8(text))
            continue;
        int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_CONFIGURE, "\"%s\" is not UTF-8",
                               error_short(text).text);
        error_field(err, "machine");
        error_value(err, "%s", text);
        error_remedy(err, "rename it: a machine is written down as JSON, which holds nothing else");
        return result;
    }
    return 0;
}

/* ---- absolute paths ---- */

static char *make_absolute(const char *folder, const char *path)
{
    size_t size = strlen(folder) + strlen(path) + 2;
    char *absolute = alloc_zero(size);
    if (absolute != NULL)
        snprintf(absolute, size, "%s/%s", strcmp(folder, "/") == 0 ? "" : folder, path);
    return absolute;
}

static bool is_relative(const char *path)
{
    return path[0] != '/' && path[0] != '\0';
}

static bool allow_backing_here(struct disk_config *disk, const char *folder)
{
    size_t count = disk->backing_count;
    for (size_t i = 0; i < count; i++) {
        const char *path = disk->backing[i].path;
        if (path == NULL || !is_relative(path) || access(path, F_OK) < 0 || disk->backing_count == LIMIT_DISK_BACKING)
            continue;
        struct backing_config *backing = alloc_zero((disk->backing_count + 1) * sizeof(backing[0]));
        char *absolute = make_absolute(folder, path);
        if (backing == NULL || absolute == NULL) {
            free(backing);
            free(absolute);
            return false;
        }
        memcpy(backing, disk->backing, disk->backing_count * sizeof(backing[0]));
        backing[disk->backing_count++] = (struct backing_config){absolute, disk->backing[i].format};
        free(disk->backing);
        disk->backing = backing;
    }
    return true;
}

static int make_paths_absolute(struct vial_vm_config *config, const struct slots *slots, struct vial_error *err)
{
    char folder[LIMIT_EXEC_PATH_BYTES];
    if (getcwd(folder, sizeof(folder)) == NULL)
        return error_set_os(err, VIAL_PHASE_CONFIGURE, errno, "cannot tell the current folder");
    for (size_t i = 0; i < slots->count; i++) {
        char **text = slots->items[i].text;
        if (!slots->items[i].is_path || !is_relative(*text))
            continue;
        char *absolute = make_absolute(folder, *text);
        if (absolute == NULL)
            return error_no_memory(err, VIAL_PHASE_CONFIGURE);
        free(*text);
        *text = absolute;
    }
    for (size_t i = 0; i < config->disk_count; i++)
        if (!allow_backing_here(&config->disks[i], folder))
            return error_no_memory(err, VIAL_PHASE_CONFIGURE);
    return 0;
}

/* ---- the copy ---- */

static int load_without_exec(const char *json, struct vial_vm_config **ret_copy, struct vial_error *err)
{
    auto_json json_t *document = NULL;
    int result = json_parse(json, strlen(json), &document, err);
    if (result < 0)
        return result;
    json_object_del(document, "exec");
    auto_buffer struct buffer text = BUFFER_INIT(LIMIT_DUMP_BYTES);
    if (spec_dump(document, 0, &text) < 0)
        return error_no_memory(err, VIAL_PHASE_CONFIGURE);
    return vial_vm_config_load_text(text.data, text.length, ret_copy, err);
}

static int check_original(struct vial_vm_config *config, struct vial_error *err)
{
    struct slots slots = {.items = NULL};
    int result = check_own(config, err);
    add_all(&slots, config);
    if (result == 0)
        result = slots.has_failed ? error_no_memory(err, VIAL_PHASE_CONFIGURE) : check_utf8(&slots, err);
    free(slots.items);
    return result;
}

static int settle(struct vial_vm_config *copy, struct vial_error *err)
{
    static const struct vial_root_host_options host = VIAL_ROOT_HOST_OPTIONS_INIT;
    struct slots slots = {.items = NULL};
    int result = 0;
    if (copy->root_kind == ROOT_NONE && copy->kernel.initramfs == NULL)
        result = vial_vm_config_set_root_host(copy, &host, err);
    add_all(&slots, copy);
    if (result == 0)
        result = slots.has_failed ? error_no_memory(err, VIAL_PHASE_CONFIGURE) : make_paths_absolute(copy, &slots, err);
    free(slots.items);
    return result;
}

int spec_copy_machine(const struct vial_vm_config *config, struct vial_vm_config **ret_copy, struct vial_error *err)
{
    struct vial_vm_config *copy = NULL;
    auto_free char *json = NULL;
    int result = 0;
    if (config != NULL) {
        result = check_original((struct vial_vm_config *)(uintptr_t)config, err); /* which only looks */
        if (result == 0)
            result = vial_vm_config_dump(config, &json, err);
        if (result == 0)
            result = load_without_exec(json, &copy, err);
    } else {
        result = vial_vm_config_new(&copy, err);
    }
    if (result == 0)
        result = settle(copy, err);
    if (result < 0)
        vial_vm_config_free(copy);
    else
        *ret_copy = copy;
    return result;
}
