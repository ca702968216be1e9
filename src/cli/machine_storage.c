// SPDX-License-Identifier: Apache-2.0
/* The options that say what a machine stores on: its root, disks and mounts. Short forms of what a configuration file
 * can say (docs/CONFIG.md), which knows more.
 *
 *     --root    FOLDER[:ro|:throwaway] | host | builtin | disk:ID[:TYPE][:ro] | layers:ID[,ID]…[+UPPER]
 *     --disk    FILE:FORMAT[:WORD[,WORD]…]      words: id=ID ro direct cache=… sync=… queues=N
 *     --volume  FOLDER:PATH[:ro]
 *     --mount   disk=ID,at=PATH[,type=TYPE][,ro]
 *     --tmpfs   PATH[:WORD[,WORD]…]             words: size=MIB mode=OCTAL
 *
 * Invariants: (1) as in machine.c. (2) a disk's format is always said.
 *
 * Trust: arguments are the user's own.
 */
#include "cli/machine.h"

#include "base/alloc.h"
#include "base/text.h"
#include "vmm/parse.h"

#include <string.h>

/* ---- words ---- */

/* One of the names, whose numbers begin with 0. */
static bool take_choice(const char *value, const char *const names[], int32_t *choice)
{
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(value, names[i]) != 0)
            continue;
        *choice = i;
        return true;
    }
    return false;
}

/* Cuts the suffix off, if it is there. */
static bool cut_suffix(char *text, const char *suffix)
{
    size_t length = strlen(text), suffix_length = strlen(suffix);
    if (length < suffix_length || strcmp(text + length - suffix_length, suffix) != 0)
        return false;
    text[length - suffix_length] = '\0';
    return true;
}

/* ---- the root ---- */

static int set_folder(struct machine_arguments *arguments, char *text)
{
    struct vial_fs_options root = VIAL_FS_OPTIONS_INIT;
    root.throw_away = cut_suffix(text, ":throwaway");
    root.read_only = !root.throw_away && cut_suffix(text, ":ro");
    root.path = text;
    return vial_vm_config_set_root(arguments->config, &root, &arguments->error);
}

static int set_disk(struct machine_arguments *arguments, char *text)
{
    struct vial_root_disk_options root = VIAL_ROOT_DISK_OPTIONS_INIT;
    root.read_only = cut_suffix(text, ":ro");
    char *colon = strchr(text, ':');
    if (colon != NULL) {
        *colon = '\0';
        root.fstype = colon + 1;
    }
    root.disk = text;
    return vial_vm_config_set_root_disk(arguments->config, &root, &arguments->error);
}

static int set_layers(struct machine_arguments *arguments, char *text)
{
    const char *lower[LIMIT_DEVICES + 1] = {NULL};
    struct vial_root_layers_options root = VIAL_ROOT_LAYERS_OPTIONS_INIT;
    char *plus = strrchr(text, '+');
    if (plus != NULL) {
        *plus = '\0';
        root.upper = plus + 1;
    }
    for (size_t i = 0; i < LIMIT_DEVICES && text != NULL; i++)
        lower[i] = strsep(&text, ",");
    root.lower = lower;
    return vial_vm_config_set_root_layers(arguments->config, &root, &arguments->error);
}

int machine_take_root(void *user, const struct command_option *option, const char *value)
{
    static const struct vial_root_host_options host = VIAL_ROOT_HOST_OPTIONS_INIT;
    static const char disk[] = "disk:", layers[] = "layers:";
    struct machine_arguments *arguments = user;
    auto_free char *text = alloc_string(value);
    int result;
    if (text == NULL)
        return machine_fail_memory(option, value);
    if (strcmp(value, "host") == 0)
        result = vial_vm_config_set_root_host(arguments->config, &host, &arguments->error);
    else if (strcmp(value, "builtin") == 0)
        result = vial_vm_config_set_root_builtin(arguments->config, &arguments->error);
    else if (strncmp(value, disk, sizeof(disk) - 1) == 0)
        result = set_disk(arguments, text + sizeof(disk) - 1);
    else if (strncmp(value, layers, sizeof(layers) - 1) == 0)
        result = set_layers(arguments, text + sizeof(layers) - 1);
    else
        result = set_folder(arguments, text);
    return machine_finish(arguments, option, result);
}

/* ---- disks ---- */

/* The first ":FORMAT" that is followed by a colon or the end: cuts the text there. What follows is in *ret_rest, or
 * NULL. */
static bool cut_format(char *text, int32_t *ret_format, char **ret_rest)
{
    for (char *colon = strchr(text, ':'); colon != NULL; colon = strchr(colon + 1, ':')) {
        for (int i = 0; config_disk_formats[i] != NULL; i++) {
            size_t length = strlen(config_disk_formats[i]);
            if (strncmp(colon + 1, config_disk_formats[i], length) != 0 ||
                (colon[1 + length] != '\0' && colon[1 + length] != ':'))
                continue;
            *ret_rest = colon[1 + length] == ':' ? colon + 2 + length : NULL;
            *ret_format = VIAL_DISK_RAW + i;
            *colon = '\0';
            return true;
        }
    }
    return false;
}

static bool take_disk_word(struct vial_disk_options *disk, const char *word, const char *value)
{
    uint64_t number = 0;
    if (machine_is_key(word, value, "id"))
        disk->id = value;
    else if (machine_is_flag(word, value, "ro"))
        disk->read_only = true;
    else if (machine_is_flag(word, value, "direct"))
        disk->direct_io = true;
    else if (machine_is_key(word, value, "cache"))
        return take_choice(value, config_disk_caches, &disk->cache);
    else if (machine_is_key(word, value, "sync"))
        return take_choice(value, config_disk_syncs, &disk->sync);
    else if (machine_is_key(word, value, "queues") && text_to_u64(value, strlen(value), UINT16_MAX, &number) == 0)
        disk->queues = (uint16_t)number;
    else
        return false;
    return true;
}

int machine_take_disk(void *user, const struct command_option *option, const char *value)
{
    struct machine_arguments *arguments = user;
    struct vial_disk_options disk = VIAL_DISK_OPTIONS_INIT;
    auto_free char *text = alloc_string(value);
    const char *word_value;
    char *rest = NULL;
    if (text == NULL)
        return machine_fail_memory(option, value);
    if (!cut_format(text, &disk.format, &rest))
        return refuse_value(option->name, value, "its format is not said, and guessing it would let a guest choose it",
                            "write FILE:raw, FILE:qcow2 or FILE:vmdk:ro");
    for (const char *word; (word = machine_next_word(&rest, &word_value)) != NULL;)
        if (!take_disk_word(&disk, word, word_value))
            return refuse_value(option->name, word, "it is not something that a disk can have",
                                "use id=ID, ro, direct, cache=writeback|unsafe, sync=full|relaxed|none, queues=N");
    disk.path = text;
    return machine_finish(arguments, option, vial_vm_config_add_disk(arguments->config, &disk, &arguments->error));
}

/* ---- mounts ---- */

int machine_take_volume(void *user, const struct command_option *option, const char *value)
{
    struct machine_arguments *arguments = user;
    return machine_finish(arguments, option,
                          vial_vm_config_add_mapped_dir_text(arguments->config, value, &arguments->error));
}

int machine_take_mount(void *user, const struct command_option *option, const char *value)
{
    struct machine_arguments *arguments = user;
    struct vial_mount_options mount = VIAL_MOUNT_OPTIONS_INIT;
    auto_free char *text = alloc_string(value);
    char *rest = text;
    const char *word_value;
    if (text == NULL)
        return machine_fail_memory(option, value);
    for (const char *word; (word = machine_next_word(&rest, &word_value)) != NULL;) {
        if (machine_is_key(word, word_value, "disk"))
            mount.disk = word_value;
        else if (machine_is_key(word, word_value, "at"))
            mount.guest = word_value;
        else if (machine_is_key(word, word_value, "type"))
            mount.fstype = word_value;
        else if (machine_is_flag(word, word_value, "ro"))
            mount.read_only = true;
        else
            return refuse_value(option->name, word, "it is not something that a mount can have",
                                "write disk=ID,at=PATH, and type=TYPE or ro behind it");
    }
    return machine_finish(arguments, option, vial_vm_config_add_mount(arguments->config, &mount, &arguments->error));
}

int machine_take_tmpfs(void *user, const struct command_option *option, const char *value)
{
    struct machine_arguments *arguments = user;
    struct vial_tmpfs_options tmpfs = VIAL_TMPFS_OPTIONS_INIT;
    auto_free char *text = alloc_string(value);
    const char *word_value, *why = NULL;
    if (text == NULL)
        return machine_fail_memory(option, value);
    char *rest = strchr(text, ':');
    if (rest != NULL)
        *rest++ = '\0';
    for (const char *word; (word = machine_next_word(&rest, &word_value)) != NULL;) {
        bool is_size = machine_is_key(word, word_value, "size"), is_mode = machine_is_key(word, word_value, "mode");
        if (!(is_size && machine_parse_mib(word_value, &tmpfs.size_mib)) &&
            !(is_mode && parse_mode(word_value, &tmpfs.mode, &why) == 0))
            return refuse_value(option->name, word, "it is not something that a tmpfs can have",
                                "use size=SIZE (MiB, or with M or G) and mode=MODE (octal digits)");
    }
    tmpfs.guest = text;
    return machine_finish(arguments, option, vial_vm_config_add_tmpfs(arguments->config, &tmpfs, &arguments->error));
}
