// SPDX-License-Identifier: Apache-2.0
/* A configuration from JSON.
 *
 * Reading goes through the public calls, so a file can say exactly what a program can say (custom backends and exit
 * observers excepted) and is checked in the same places. Each section has a table that names its keys and the members
 * of the option struct that they set; the struct is read by the table and handed on. What a machine stores on is in
 * config_json_storage.c.
 *
 * Invariants: (1) a key that is not in a table is refused, never skipped. (2) an error names its place in the file.
 *
 * Trust: the document may be hostile; its size is limited by json_parse_file.
 */
#include "vmm/config_json.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/log.h"
#include "vmm/parse.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

const char *const config_acpi[] = {"auto", "on", "off", NULL};
const char *const config_engines[] = {"auto", "kvm", "uml", NULL};
const char *const config_kernel_formats[] = {"auto",     "raw",        "elf",     "pe-gz", "image-bz2",
                                             "image-gz", "image-zstd", "bzimage", NULL};
/* ---- objects as tables of members ---- */

static int read_member(const struct json_cursor *at, const struct member *member, void *target, struct vial_error *err)
{
    uint64_t number = 0;
    int choice = 0, result = 0;
    switch (member->kind) {
    case MEMBER_OTHER:
        return 0;
    case MEMBER_TEXT:
        return json_get_text(at, target, err);
    case MEMBER_BOOL:
        return json_get_bool(at, target, err);
    case MEMBER_U64:
        return json_get_u64(at, UINT64_MAX, target, err);
    case MEMBER_U16:
        result = json_get_u64(at, UINT16_MAX, &number, err);
        if (result == 0)
            *(uint16_t *)target = (uint16_t)number;
        return result;
    case MEMBER_U32:
        result = json_get_u64(at, UINT32_MAX, &number, err);
        if (result == 0)
            *(uint32_t *)target = (uint32_t)number;
        return result;
    case MEMBER_FD:
        result = json_get_u64(at, INT32_MAX, &number, err);
        if (result == 0)
            *(int32_t *)target = (int32_t)number;
        return result;
    case MEMBER_CHOICE:
        result = json_get_choice(at, member->names, &choice, err);
        if (result == 0)
            *(int32_t *)target = member->first + choice;
        return result;
    case MEMBER_BYTE_CHOICE:
        result = json_get_choice(at, member->names, &choice, err);
        if (result == 0)
            *(uint8_t *)target = (uint8_t)(member->first + choice);
        return result;
    }
    return result;
}

int json_read_object(const struct json_cursor *at, const struct member *members, void *options, struct vial_error *err)
{
    enum { most_members = 20 };
    const char *keys[most_members + 1] = {NULL};
    for (size_t i = 0; members[i].key != NULL; i++) {
        assert(i < most_members);
        keys[i] = members[i].key;
    }
    int result = json_check_object(at, keys, err);
    for (size_t i = 0; members[i].key != NULL && result == 0; i++) {
        struct json_cursor member;
        if (json_member(at, members[i].key, &member))
            result = read_member(&member, &members[i], (char *)options + members[i].offset, err);
    }
    return result;
}

int json_refuse_missing(const struct json_cursor *at, const char *key, const char *remedy, struct vial_error *err)
{
    struct json_cursor member = {.value = at->value, .parent = at, .key = key};
    int result = error_set(err, VIAL_ERROR_MISSING, VIAL_PHASE_CONFIGURE, "it is not given");
    json_blame(&member, err);
    error_remedy(err, "%s", remedy);
    return result;
}

/* ---- sections ---- */

static int read_machine(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const struct member members[] = {
        {MEMBER(vial_machine_options, vcpus, MEMBER_U32)},
        {MEMBER(vial_machine_options, memory_mib, MEMBER_U64)},
        {MEMBER(vial_machine_options, hyperthreading, MEMBER_BOOL)},
        {MEMBER(vial_machine_options, nested_virtualization, MEMBER_BOOL)},
        {MEMBER(vial_machine_options, split_irqchip, MEMBER_BOOL)},
        {MEMBER(vial_machine_options, huge_pages, MEMBER_BOOL)},
        {MEMBER(vial_machine_options, vsock, MEMBER_BOOL)},
        {MEMBER(vial_machine_options, balloon, MEMBER_BOOL)},
        {OTHER("balloon_stats_interval_ms")}, /* null is a way to say none */
        {MEMBER(vial_machine_options, rng, MEMBER_BOOL)},
        {MEMBER(vial_machine_options, metrics, MEMBER_BOOL)},
        {MEMBER(vial_machine_options, inet_hijack, MEMBER_BOOL)},
        {BYTE_CHOICE(vial_machine_options, acpi, config_acpi, VIAL_ACPI_AUTO)},
        {BYTE_CHOICE(vial_machine_options, engine, config_engines, VIAL_ENGINE_AUTO)},
        {MEMBER(vial_machine_options, insecure_no_jail, MEMBER_BOOL)},
        {.key = NULL},
    };
    static const struct member interval_member = {MEMBER(vial_machine_options, balloon_stats_interval_ms, MEMBER_U32)};
    struct vial_machine_options machine = VIAL_MACHINE_OPTIONS_INIT;
    struct json_cursor interval;
    int result = json_read_object(at, members, &machine, err);
    if (result == 0 && json_member(at, interval_member.key, &interval)) {
        if (json_is_null(interval.value))
            machine.balloon_stats_interval_ms = 0;
        else
            result = read_member(&interval, &interval_member, &machine.balloon_stats_interval_ms, err);
    }
    return result == 0 ? vial_vm_config_set_machine(config, &machine, err) : result;
}

static int read_log_level(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    int level = 0;
    int result = json_get_choice(at, log_level_names, &level, err);
    return result == 0 ? vial_vm_config_set_log_level(config, level, err) : result;
}

static int read_kernel(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const struct member members[] = {
        {MEMBER(vial_kernel_options, path, MEMBER_TEXT)},
        {CHOICE(vial_kernel_options, format, config_kernel_formats, VIAL_KERNEL_AUTO)},
        {MEMBER(vial_kernel_options, initramfs, MEMBER_TEXT)},
        {MEMBER(vial_kernel_options, krunfw, MEMBER_TEXT)},
        {MEMBER(vial_kernel_options, init, MEMBER_TEXT)},
        {OTHER("cmdline")},
        {.key = NULL},
    };
    struct vial_kernel_options kernel = VIAL_KERNEL_OPTIONS_INIT;
    struct json_cursor member;
    const char *cmdline = NULL;
    int result = json_read_object(at, members, &kernel, err);
    if (result == 0)
        result = vial_vm_config_set_kernel(config, &kernel, err);
    if (result < 0 || !json_member(at, "cmdline", &member))
        return result;
    result = json_get_text(&member, &cmdline, err);
    return result == 0 ? vial_vm_config_append_cmdline(config, cmdline, err) : result;
}

static int read_one_console_port(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const struct member members[] = {
        {MEMBER(vial_console_port_options, name, MEMBER_TEXT)},
        {MEMBER(vial_console_port_options, input_fd, MEMBER_FD)},
        {MEMBER(vial_console_port_options, output_fd, MEMBER_FD)},
        {MEMBER(vial_console_port_options, tty_fd, MEMBER_FD)},
        {.key = NULL},
    };
    struct vial_console_port_options port = VIAL_CONSOLE_PORT_OPTIONS_INIT;
    int result = json_read_object(at, members, &port, err);
    if (result < 0)
        return result;
    port.kind = port.tty_fd >= 0 ? VIAL_CONSOLE_PORT_TTY : VIAL_CONSOLE_PORT_INOUT;
    return vial_vm_config_add_console_port(config, &port, err);
}

static int read_one_serial(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const struct member members[] = {
        {MEMBER(vial_serial_options, input_fd, MEMBER_FD)},
        {MEMBER(vial_serial_options, output_fd, MEMBER_FD)},
        {.key = NULL},
    };
    struct vial_serial_options serial = VIAL_SERIAL_OPTIONS_INIT;
    int result = json_read_object(at, members, &serial, err);
    return result == 0 ? vial_vm_config_add_serial(config, &serial, err) : result;
}

int json_read_array(struct vial_vm_config *config, const struct json_cursor *at, const char *key, size_t max_count,
                    section_reader *reader, struct vial_error *err)
{
    struct json_cursor member;
    size_t count = 0;
    if (!json_member(at, key, &member))
        return 0;
    int result = json_get_count(&member, max_count, &count, err);
    for (size_t i = 0; i < count && result == 0; i++) {
        struct json_cursor element = json_element(&member, i);
        result = reader(config, &element, err);
    }
    return result;
}

static int read_gpu(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const struct member members[] = {
        {MEMBER(vial_gpu_options, virgl_flags, MEMBER_U32)},
        {MEMBER(vial_gpu_options, shared_memory_mib, MEMBER_U64)},
        {.key = NULL},
    };
    struct vial_gpu_options gpu = VIAL_GPU_OPTIONS_INIT;
    int result = json_read_object(at, members, &gpu, err);
    return result == 0 ? vial_vm_config_set_gpu(config, &gpu, err) : result;
}

static int read_console(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const struct member members[] = {
        {MEMBER(vial_console_options, output, MEMBER_TEXT)},
        {MEMBER(vial_console_options, implicit, MEMBER_BOOL)},
        {OTHER("ports")},
        {OTHER("serial")},
        {OTHER("gpu")},
        {OTHER("sound")},
        {.key = NULL},
    };
    struct vial_console_options console = VIAL_CONSOLE_OPTIONS_INIT;
    struct json_cursor member;
    bool wants_sound = false;
    int result = json_read_object(at, members, &console, err);
    if (result == 0)
        result = vial_vm_config_set_console(config, &console, err);
    if (result == 0)
        result = json_read_array(config, at, "ports", LIMIT_DEVICES, read_one_console_port, err);
    if (result == 0)
        result = json_read_array(config, at, "serial", LIMIT_SERIALS, read_one_serial, err);
    if (result == 0 && json_member(at, "gpu", &member))
        result = read_gpu(config, &member, err);
    if (result == 0 && json_member(at, "sound", &member))
        result = json_get_bool(&member, &wants_sound, err);
    return result == 0 ? vial_vm_config_set_sound(config, wants_sound, err) : result;
}

/* ---- exec ---- */

void json_strings_free(struct json_strings *strings)
{
    for (size_t i = 0; strings->made != NULL && i < strings->count; i++)
        free(strings->made[i]);
    free(strings->made);
    free(strings->items);
}

int json_read_strings(const struct json_cursor *at, struct json_strings *args, struct vial_error *err)
{
    size_t count = 0;
    int result = json_get_count(at, LIMIT_STRINGS, &count, err);
    if (result < 0)
        return result;
    args->items = calloc(count + 1, sizeof(args->items[0]));
    if (args->items == NULL)
        return error_no_memory(err, VIAL_PHASE_CONFIGURE);
    for (args->count = 0; args->count < count && result == 0; args->count++) {
        struct json_cursor element = json_element(at, args->count);
        result = json_get_text(&element, &args->items[args->count], err);
    }
    return result;
}

static int refuse_env_key(const struct json_cursor *at, struct vial_error *err)
{
    int result = error_set(err, VIAL_ERROR_SYNTAX, VIAL_PHASE_CONFIGURE,
                           "the name \"%s\" of a variable is empty or holds =", at->key);
    json_blame(at, err);
    error_remedy(err, "name the variable as in {\"LANG\": \"C.UTF-8\"}");
    return result;
}

static int read_env(const struct json_cursor *at, struct json_strings *env, struct vial_error *err)
{
    if (!json_is_object(at->value)) {
        static const char *const none[] = {NULL};
        return json_check_object(at, none, err); /* refuses: not an object */
    }
    size_t count = json_object_size(at->value);
    env->items = calloc(count + 1, sizeof(env->items[0]));
    env->made = calloc(count + 1, sizeof(env->made[0]));
    if (env->items == NULL || env->made == NULL)
        return error_no_memory(err, VIAL_PHASE_CONFIGURE);
    const char *key;
    json_t *value;
    json_object_foreach (at->value, key, value) {
        struct json_cursor member = {.value = value, .parent = at, .key = key};
        const char *text = NULL;
        int result = json_get_text(&member, &text, err);
        if (result < 0)
            return result;
        if (key[0] == '\0' || strchr(key, '=') != NULL)
            return refuse_env_key(&member, err);
        size_t size = strlen(key) + 1 + strlen(text) + 1;
        char *entry = alloc_zero(size);
        if (entry == NULL)
            return error_no_memory(err, VIAL_PHASE_CONFIGURE);
        snprintf(entry, size, "%s=%s", key, text);
        env->items[env->count] = env->made[env->count] = entry;
        env->count++;
    }
    return 0;
}

static int read_one_rlimit(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    const char *text = NULL;
    int result = json_get_text(at, &text, err);
    return result == 0 ? vial_vm_config_add_rlimit(config, text, err) : result;
}

static int read_exec(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err)
{
    static const struct member members[] = {
        {MEMBER(vial_exec_options, path, MEMBER_TEXT)},
        {MEMBER(vial_exec_options, workdir, MEMBER_TEXT)},
        {MEMBER(vial_exec_options, uid, MEMBER_U32)},
        {MEMBER(vial_exec_options, gid, MEMBER_U32)},
        {MEMBER(vial_exec_options, from_guest, MEMBER_BOOL)},
        {OTHER("args")},
        {OTHER("env")},
        {OTHER("rlimits")},
        {.key = NULL},
    };
    struct vial_exec_options exec = VIAL_EXEC_OPTIONS_INIT;
    struct json_strings args = {0}, env = {0};
    struct json_cursor member;
    int result = json_read_object(at, members, &exec, err);
    if (result == 0)
        result = json_read_array(config, at, "rlimits", LIMIT_RLIMITS, read_one_rlimit, err);
    if (result == 0 && json_member(at, "args", &member))
        result = json_read_strings(&member, &args, err);
    if (result == 0 && json_member(at, "env", &member))
        result = read_env(&member, &env, err);
    exec.args = args.items;
    exec.env = env.items;
    exec.has_uid = json_member(at, "uid", &member);
    exec.has_gid = json_member(at, "gid", &member);
    if (result == 0)
        result = vial_vm_config_set_exec(config, &exec, err);
    json_strings_free(&args);
    json_strings_free(&env);
    return result;
}

/* ---- the whole ---- */

static const struct {
    const char *key;
    section_reader *reader;
    size_t max_count; /* of an array, read element by element; 0 for anything else */
} sections[] = {
    {"machine", read_machine, 0},
    {"log_level", read_log_level, 0},
    {"kernel", read_kernel, 0},
    {"root", json_read_root, 0},
    {"fs", json_read_fs, LIMIT_DEVICES},
    {"mapped_dirs", json_read_mapped_dir, LIMIT_DEVICES},
    {"mounts", json_read_mount, LIMIT_DEVICES},
    {"tmpfs", json_read_tmpfs, LIMIT_TMPFS},
    {"disks", json_read_disk, LIMIT_DEVICES},
    {"net", json_read_net, LIMIT_DEVICES},
    {"port_map", json_read_port, LIMIT_PORTS},
    {"tsi", json_read_tsi, 0},
    {"vsock_ports", json_read_vsock_port, LIMIT_PORTS},
    {"console", read_console, 0},
    {"exec", read_exec, 0},
};

static int read_document(struct vial_vm_config *config, json_t *document, struct vial_error *err)
{
    struct json_cursor root = {.value = document}, member;
    const char *keys[array_length(sections) + 1] = {NULL};
    for (size_t i = 0; i < array_length(sections); i++)
        keys[i] = sections[i].key;
    int result = json_check_object(&root, keys, err);
    for (size_t i = 0; i < array_length(sections) && result == 0; i++) {
        if (sections[i].max_count > 0)
            result = json_read_array(config, &root, sections[i].key, sections[i].max_count, sections[i].reader, err);
        else if (json_member(&root, sections[i].key, &member))
            result = sections[i].reader(config, &member, err);
    }
    return result;
}

static int load_document(json_t *document, struct vial_vm_config **ret_config, struct vial_error *err)
{
    struct vial_vm_config *config = NULL;
    int result = vial_vm_config_new(&config, err);
    if (result == 0)
        result = read_document(config, document, err);
    json_decref(document);
    if (result < 0)
        vial_vm_config_free(config);
    else
        *ret_config = config;
    return result;
}

int vial_vm_config_load_text(const char *json, size_t length, struct vial_vm_config **ret_config,
                             struct vial_error *err)
{
    json_t *document = NULL;
    int result = json_parse(json != NULL ? json : "", json != NULL ? length : 0, &document, err);
    return result == 0 ? load_document(document, ret_config, err) : result;
}

int vial_vm_config_load_file(const char *path, struct vial_vm_config **ret_config, struct vial_error *err)
{
    json_t *document = NULL;
    int result = json_parse_file(path != NULL ? path : "", &document, err);
    return result == 0 ? load_document(document, ret_config, err) : result;
}
