// SPDX-License-Identifier: Apache-2.0
/* A configuration as JSON, with what the library filled in.
 *
 * The inverse of config_json.c: every section appears, each with all of its members, in the file's own spelling, so
 * that two configurations can be compared, and the output reads back as the same configuration. The exceptions are
 * what a file cannot say: custom backends appear as a word, entries of file systems, where there are some, without
 * their bytes, observers not at all, descriptors with the numbers of our own duplicates, and bytes that are not UTF-8
 * as escapes.
 *
 * Invariants: (1) text that is not UTF-8 is escaped, never cut off. (2) without memory nothing is returned.
 *
 * Trust: texts may be anybody's.
 */
#include "vmm/config.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "vmm/parse.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

/* json_object_set_new and friends fail on NULL and without memory; one flag collects that. */
struct dump {
    bool has_failed;
};

static void put(struct dump *dump, json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) < 0)
        dump->has_failed = true;
}

static void append(struct dump *dump, json_t *array, json_t *value)
{
    if (json_array_append_new(array, value) < 0)
        dump->has_failed = true;
}

/* A string; bytes that are not UTF-8 as \xNN. */
static json_t *text(const char *string)
{
    json_t *value = json_string(string);
    if (value != NULL)
        return value;
    size_t length = strlen(string), size = 4 * length + 1;
    auto_free char *escaped = alloc_zero(size);
    if (escaped == NULL)
        return NULL;
    text_escape(escaped, size, string, length, "");
    return json_string(escaped);
}

static json_t *number(uint64_t value)
{
    return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value); /* JSON integers here are signed */
}

/* The name of an enumerator, whatever a caller may have put there. */
static json_t *choice(const char *const names[], int index)
{
    for (int i = 0; names[i] != NULL; i++)
        if (i == index)
            return json_string(names[i]);
    return json_string("invalid");
}

static json_t *dump_machine(struct dump *dump, const struct machine_config *machine)
{
    json_t *object = json_object();
    put(dump, object, "vcpus", number(machine->vcpus));
    put(dump, object, "memory_mib", number(machine->memory_mib));
    put(dump, object, "hyperthreading", json_boolean(machine->hyperthreading));
    put(dump, object, "nested_virtualization", json_boolean(machine->nested_virtualization));
    put(dump, object, "split_irqchip", json_boolean(machine->split_irqchip));
    put(dump, object, "huge_pages", json_boolean(machine->huge_pages));
    put(dump, object, "vsock", json_boolean(machine->vsock));
    put(dump, object, "balloon", json_boolean(machine->balloon));
    put(dump, object, "balloon_stats_interval_ms", number(machine->balloon_stats_interval_ms));
    put(dump, object, "rng", json_boolean(machine->rng));
    put(dump, object, "metrics", json_boolean(machine->metrics));
    put(dump, object, "inet_hijack", json_boolean(machine->inet_hijack));
    put(dump, object, "acpi", choice(config_acpi, machine->acpi - VIAL_ACPI_AUTO));
    put(dump, object, "engine", choice(config_engines, machine->engine - VIAL_ENGINE_AUTO));
    put(dump, object, "insecure_no_jail", json_boolean(machine->insecure_no_jail));
    return object;
}

/* A member that was not given is left out. */
static void put_given(struct dump *dump, json_t *object, const char *key, const char *string)
{
    if (string != NULL)
        put(dump, object, key, text(string));
}

static json_t *dump_kernel(struct dump *dump, const struct vial_vm_config *config)
{
    const struct kernel_config *kernel = &config->kernel;
    json_t *object = json_object();
    put_given(dump, object, "path", kernel->path);
    put(dump, object, "format", choice(config_kernel_formats, (int)kernel->format - VIAL_KERNEL_AUTO));
    put_given(dump, object, "krunfw", kernel->krunfw);
    put_given(dump, object, "initramfs", kernel->initramfs);
    put_given(dump, object, "cmdline", kernel->cmdline);
    put_given(dump, object, "init", config_init(config));
    return object;
}

static void put_fs(struct dump *dump, json_t *object, const struct fs_config *fs)
{
    put(dump, object, "tag", text(fs->tag));
    put_given(dump, object, "path", fs->is_custom ? "custom" : fs->path);
    put(dump, object, "dax_window_mib", number(fs->dax_window_mib));
    put(dump, object, "read_only", json_boolean(fs->read_only));
    put(dump, object, "cache", choice(config_fs_caches, fs->cache - VIAL_FS_CACHE_AUTO));
    put(dump, object, "xattrs", choice(config_fs_xattrs, fs->xattrs - VIAL_FS_XATTRS_USER));
    if (fs->has_owner) {
        json_t *owner = json_object();
        put(dump, owner, "uid", number(fs->owner_uid));
        put(dump, owner, "gid", number(fs->owner_gid));
        put(dump, object, "owner", owner);
    }
    put(dump, object, "only_public", json_boolean(fs->only_public));
    put(dump, object, "one_device", json_boolean(fs->one_device));
    put(dump, object, "throw_away", json_boolean(fs->throw_away));
    put(dump, object, "empty", json_boolean(fs->is_empty));
    put(dump, object, "without_init", json_boolean(fs->without_init));
}

static json_t *dump_fs(struct dump *dump, const struct fs_config *fs)
{
    json_t *object = json_object();
    put_fs(dump, object, fs);
    return object;
}

static json_t *dump_fs_entry(struct dump *dump, const struct fs_entry_config *entry)
{
    json_t *object = json_object();
    char mode[16];
    snprintf(mode, sizeof(mode), "%04o", entry->mode);
    put(dump, object, "tag", text(entry->tag));
    put(dump, object, "path", text(entry->path));
    put(dump, object, "mode", text(mode));
    put(dump, object, "is_folder", json_boolean(entry->is_folder));
    put(dump, object, "one_shot", json_boolean(entry->one_shot));
    put(dump, object, "length", number(entry->length));
    return object;
}

static json_t *dump_strings(struct dump *dump, const struct string_list *list)
{
    json_t *array = json_array();
    for (size_t i = 0; i < list->count; i++)
        append(dump, array, text(list->items[i]));
    return array;
}

static void put_mount(struct dump *dump, json_t *object, const struct mount_config *mount)
{
    put_given(dump, object, "disk", mount->disk);
    put_given(dump, object, "guest", mount->guest);
    put(dump, object, "fstype", text(mount->fstype != NULL ? mount->fstype : "auto"));
    put_given(dump, object, "options", mount->options);
    put(dump, object, "read_only", json_boolean(mount->read_only));
}

static void put_layers(struct dump *dump, json_t *object, const struct vial_vm_config *config)
{
    const struct mount_config *upper = &config->root_upper;
    put(dump, object, "layers", dump_strings(dump, &config->root_lower));
    put(dump, object, "fstype", text(config->root_lower_fstype != NULL ? config->root_lower_fstype : "auto"));
    put_given(dump, object, "upper", upper->disk);
    if (upper->disk != NULL || upper->fstype != NULL)
        put(dump, object, "upper_fstype", text(upper->fstype != NULL ? upper->fstype : "auto"));
}

static json_t *dump_root(struct dump *dump, const struct vial_vm_config *config)
{
    json_t *object = json_object();
    switch (config->root_kind) {
    case ROOT_NONE:
        break;
    case ROOT_FOLDER:
        put_fs(dump, object, &config->root);
        break;
    case ROOT_DISK:
        put_mount(dump, object, &config->root_disk);
        break;
    case ROOT_LAYERS:
        put_layers(dump, object, config);
        break;
    case ROOT_BUILTIN:
        put(dump, object, "builtin", json_true());
        break;
    case ROOT_HOST:
        put(dump, object, "host", json_true());
        put(dump, object, "hidden", dump_strings(dump, &config->root_hidden));
        put(dump, object, "dax_window_mib", number(config->root.dax_window_mib));
        break;
    }
    return object;
}

static json_t *dump_mount(struct dump *dump, const struct mount_config *mount)
{
    json_t *object = json_object();
    put_mount(dump, object, mount);
    return object;
}

static json_t *dump_tmpfs(struct dump *dump, const struct tmpfs_config *tmpfs)
{
    json_t *object = json_object();
    char mode[16];
    snprintf(mode, sizeof(mode), "%04o", tmpfs->mode);
    put_given(dump, object, "guest", tmpfs->guest);
    put(dump, object, "size_mib", number(tmpfs->size_mib));
    put(dump, object, "mode", text(mode));
    return object;
}

static json_t *dump_mapped_dir(struct dump *dump, const struct mapped_dir_config *dir)
{
    json_t *object = json_object();
    put_given(dump, object, "host", dir->host);
    put_given(dump, object, "guest", dir->guest);
    put(dump, object, "read_only", json_boolean(dir->read_only));
    return object;
}

static json_t *dump_backing(struct dump *dump, const struct disk_config *disk)
{
    json_t *array = json_array();
    for (size_t i = 0; i < disk->backing_count; i++) {
        json_t *object = json_object();
        put_given(dump, object, "path", disk->backing[i].path);
        if (disk->backing[i].format != VIAL_DISK_UNSET)
            put(dump, object, "format", choice(config_disk_formats, (int)disk->backing[i].format - VIAL_DISK_RAW));
        append(dump, array, object);
    }
    return array;
}

static json_t *dump_limits(struct dump *dump, const struct disk_config *disk)
{
    json_t *object = json_object();
    put(dump, object, "bytes_per_second", number(disk->bytes_per_second));
    put(dump, object, "burst_bytes", number(disk->burst_bytes));
    put(dump, object, "operations_per_second", number(disk->operations_per_second));
    put(dump, object, "burst_operations", number(disk->burst_operations));
    return object;
}

static json_t *dump_disk(struct dump *dump, const struct disk_config *disk)
{
    json_t *object = json_object();
    put(dump, object, "id", text(disk->id));
    put_given(dump, object, "path", disk->path);
    if (disk->format != VIAL_DISK_UNSET)
        put(dump, object, "format", choice(config_disk_formats, (int)disk->format - VIAL_DISK_RAW));
    put(dump, object, "read_only", json_boolean(disk->read_only));
    put(dump, object, "cache", choice(config_disk_caches, (int)disk->cache));
    put(dump, object, "direct_io", json_boolean(disk->direct_io));
    put(dump, object, "sync", choice(config_disk_syncs, (int)disk->sync));
    put(dump, object, "queues", number(disk->queues));
    put(dump, object, "backing", dump_backing(dump, disk));
    put(dump, object, "limits", dump_limits(dump, disk));
    return object;
}

static json_t *dump_rate(struct dump *dump, const struct vial_net_rate *rate)
{
    json_t *object = json_object();
    put(dump, object, "bytes_per_second", number(rate->bytes_per_second));
    put(dump, object, "burst_bytes", number(rate->burst_bytes));
    put(dump, object, "packets_per_second", number(rate->packets_per_second));
    put(dump, object, "burst_packets", number(rate->burst_packets));
    return object;
}

static json_t *dump_net(struct dump *dump, const struct net_config *net)
{
    json_t *object = json_object(), *features = json_array();
    const uint8_t *mac = net->mac;
    char mac_text[18];
    snprintf(mac_text, sizeof(mac_text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
             mac[5]);
    json_t *limits = json_object();
    put(dump, object, "kind", choice(config_net_kinds, (int)net->kind - VIAL_NET_UNIXGRAM));
    put_given(dump, object, "path", net->path);
    if (net->fd >= 0)
        put(dump, object, "fd", json_integer(net->fd));
    put(dump, object, "mac", text(mac_text));
    put(dump, object, "vfkit", json_boolean(net->vfkit));
    for (size_t i = 0; config_net_features[i].name != NULL; i++)
        if ((net->features & config_net_features[i].bit) != 0)
            append(dump, features, text(config_net_features[i].name));
    put(dump, object, "features", features);
    put(dump, object, "mtu", number(net->mtu));
    put(dump, object, "queue_pairs", number(net->queue_pairs));
    put(dump, object, "dhcp", json_boolean(net->dhcp));
    put(dump, object, "reaches_host", json_boolean(net->reaches_host));
    put(dump, object, "addresses", dump_strings(dump, &net->addresses));
    put(dump, object, "gateways", dump_strings(dump, &net->gateways));
    put(dump, object, "nameservers", dump_strings(dump, &net->nameservers));
    put(dump, object, "published", dump_strings(dump, &net->published));
    put(dump, limits, "to_guest", dump_rate(dump, &net->to_guest));
    put(dump, limits, "from_guest", dump_rate(dump, &net->from_guest));
    put(dump, object, "limits", limits);
    return object;
}

static json_t *dump_port_map(struct dump *dump, const struct vial_vm_config *config)
{
    json_t *array = json_array();
    for (size_t i = 0; i < config->port_count; i++) {
        char pair[16];
        snprintf(pair, sizeof(pair), "%u:%u", config->port_map[i].host, config->port_map[i].guest);
        append(dump, array, text(pair));
    }
    return array;
}

static json_t *dump_vsock_port(struct dump *dump, const struct vsock_port_config *port)
{
    json_t *object = json_object();
    put(dump, object, "port", number(port->port));
    put_given(dump, object, "path", port->path);
    put(dump, object, "listen", json_boolean(port->listen));
    return object;
}

static json_t *dump_console_port(struct dump *dump, const struct console_port_config *port)
{
    json_t *object = json_object();
    put_given(dump, object, "name", port->name);
    if (port->input_fd >= 0)
        put(dump, object, "input_fd", json_integer(port->input_fd));
    if (port->output_fd >= 0)
        put(dump, object, "output_fd", json_integer(port->output_fd));
    if (port->tty_fd >= 0)
        put(dump, object, "tty_fd", json_integer(port->tty_fd));
    if (port->kind == VIAL_CONSOLE_PORT_CUSTOM)
        put(dump, object, "kind", text("custom"));
    return object;
}

static json_t *dump_serial(struct dump *dump, const struct serial_config *serial)
{
    json_t *object = json_object();
    if (serial->input_fd >= 0)
        put(dump, object, "input_fd", json_integer(serial->input_fd));
    if (serial->output_fd >= 0)
        put(dump, object, "output_fd", json_integer(serial->output_fd));
    return object;
}

static json_t *dump_console(struct dump *dump, const struct vial_vm_config *config)
{
    json_t *object = json_object(), *ports = json_array(), *serials = json_array();
    put_given(dump, object, "output", config->console_output);
    put(dump, object, "implicit", json_boolean(config->has_implicit_console));
    for (size_t i = 0; i < config->console_port_count; i++)
        append(dump, ports, dump_console_port(dump, &config->console_ports[i]));
    put(dump, object, "ports", ports);
    for (size_t i = 0; i < config->serial_count; i++)
        append(dump, serials, dump_serial(dump, &config->serials[i]));
    put(dump, object, "serial", serials);
    if (config->has_gpu) {
        json_t *gpu = json_object();
        put(dump, gpu, "virgl_flags", number(config->gpu_virgl_flags));
        put(dump, gpu, "shared_memory_mib", number(config->gpu_shared_memory_mib));
        put(dump, object, "gpu", gpu);
    }
    put(dump, object, "sound", json_boolean(config->has_sound));
    return object;
}

static void append_limit(char *line, size_t size, uint64_t value)
{
    size_t used = strlen(line);
    if (value == RLIM_INFINITY)
        snprintf(line + used, size - used, "unlimited");
    else
        snprintf(line + used, size - used, "%llu", (unsigned long long)value);
}

static json_t *dump_exec(struct dump *dump, const struct vial_vm_config *config)
{
    json_t *object = json_object(), *args = json_array(), *env = json_object(), *rlimits = json_array();
    put_given(dump, object, "path", config->exec_path);
    for (size_t i = 0; i < config->exec_args.count; i++)
        append(dump, args, text(config->exec_args.items[i]));
    for (size_t i = 0; i < config->exec_env.count; i++) {
        auto_free char *entry = alloc_string(config->exec_env.items[i]);
        char *equals = entry != NULL ? strchr(entry, '=') : NULL;
        if (equals != NULL)
            *equals++ = '\0';
        auto_json json_t *key = entry != NULL ? text(entry) : NULL; /* which is UTF-8 whatever the entry was */
        dump->has_failed |= key == NULL;
        if (key != NULL)
            put(dump, env, json_string_value(key), text(equals != NULL ? equals : ""));
    }
    for (size_t i = 0; i < config->rlimit_count; i++) {
        char line[64];
        snprintf(line, sizeof(line), "%s=", rlimit_name(config->rlimits[i].resource));
        append_limit(line, sizeof(line), config->rlimits[i].soft);
        snprintf(line + strlen(line), sizeof(line) - strlen(line), ":");
        append_limit(line, sizeof(line), config->rlimits[i].hard);
        append(dump, rlimits, text(line));
    }
    put(dump, object, "args", args);
    put(dump, object, "env", env);
    if (config->exec_workdir != NULL || !config->exec_from_guest)
        put(dump, object, "workdir", text(config->exec_workdir != NULL ? config->exec_workdir : "/"));
    put(dump, object, "from_guest", json_boolean(config->exec_from_guest));
    if (config->has_exec_uid)
        put(dump, object, "uid", number(config->exec_uid));
    if (config->has_exec_gid)
        put(dump, object, "gid", number(config->exec_gid));
    put(dump, object, "rlimits", rlimits);
    return object;
}

static json_t *dump_fs_entries(struct dump *dump, const struct vial_vm_config *config)
{
    json_t *array = json_array();
    for (size_t i = 0; i < config->fs_entry_count; i++)
        append(dump, array, dump_fs_entry(dump, &config->fs_entries[i]));
    return array;
}

static void dump_arrays(struct dump *dump, const struct vial_vm_config *config, json_t *document)
{
    json_t *fs = json_array(), *dirs = json_array(), *disks = json_array(), *net = json_array(), *vsock = json_array();
    json_t *mounts = json_array(), *tmpfs = json_array();
    for (size_t i = 0; i < config->fs_count; i++)
        append(dump, fs, dump_fs(dump, &config->fs[i]));
    for (size_t i = 0; i < config->mapped_dir_count; i++)
        append(dump, dirs, dump_mapped_dir(dump, &config->mapped_dirs[i]));
    for (size_t i = 0; i < config->mount_count; i++)
        append(dump, mounts, dump_mount(dump, &config->mounts[i]));
    for (size_t i = 0; i < config->tmpfs_count; i++)
        append(dump, tmpfs, dump_tmpfs(dump, &config->tmpfs[i]));
    for (size_t i = 0; i < config->disk_count; i++)
        append(dump, disks, dump_disk(dump, &config->disks[i]));
    for (size_t i = 0; i < config->net_count; i++)
        append(dump, net, dump_net(dump, &config->net[i]));
    for (size_t i = 0; i < config->vsock_port_count; i++)
        append(dump, vsock, dump_vsock_port(dump, &config->vsock_ports[i]));
    put(dump, document, "fs", fs);
    if (config->fs_entry_count > 0)
        put(dump, document, "fs_entries", dump_fs_entries(dump, config));
    put(dump, document, "mapped_dirs", dirs);
    put(dump, document, "mounts", mounts);
    put(dump, document, "tmpfs", tmpfs);
    put(dump, document, "disks", disks);
    put(dump, document, "net", net);
    put(dump, document, "port_map", dump_port_map(dump, config));
    put(dump, document, "vsock_ports", vsock);
}

static int take_text(const char *bytes, size_t length, void *buffer)
{
    return buffer_add(buffer, bytes, length);
}

int vial_vm_config_dump(const struct vial_vm_config *config, char **ret_json, struct vial_error *err)
{
    struct dump dump = {0};
    auto_json json_t *document = json_object();
    put(&dump, document, "machine", dump_machine(&dump, &config->machine));
    if (config->log_level >= 0)
        put(&dump, document, "log_level", text(log_level_names[config->log_level]));
    put(&dump, document, "kernel", dump_kernel(&dump, config));
    if (config->root_kind != ROOT_NONE)
        put(&dump, document, "root", dump_root(&dump, config));
    dump_arrays(&dump, config, document);
    json_t *tsi = json_object();
    put_given(&dump, tsi, "assigned_ip", config->assigned_ip);
    put_given(&dump, tsi, "group", config->tsi_group);
    if (config->tsi_scope <= VIAL_TSI_SCOPE_NONE)
        put(&dump, tsi, "scope", text(config_tsi_scopes[config->tsi_scope]));
    put(&dump, tsi, "local_only", json_boolean(config->local_only));
    put(&dump, tsi, "hijack_unix", json_boolean(config->tsi_hijacks_unix));
    put(&dump, tsi, "publish_all", json_boolean(config->tsi_publishes_all));
    put(&dump, document, "tsi", tsi);
    put(&dump, document, "console", dump_console(&dump, config));
    put(&dump, document, "exec", dump_exec(&dump, config));
    /* Into memory of our own: Jansson's comes from whatever allocator the program has given it. */
    auto_buffer struct buffer json = BUFFER_INIT(LIMIT_DUMP_BYTES);
    if (!dump.has_failed)
        json_dump_callback(document, take_text, &json, JSON_INDENT(2));
    char *whole = dump.has_failed ? NULL : buffer_steal(&json);
    if (whole == NULL)
        return error_no_memory(err, VIAL_PHASE_CONFIGURE);
    *ret_json = whole;
    return 0;
}
