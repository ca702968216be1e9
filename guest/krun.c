// SPDX-License-Identifier: Apache-2.0
/* What a guest's own configuration file says is to run, by libkrun's contract, and a request completed from it.
 *
 * The file is either the configuration of an OCI runtime, or that of an image, as a whole or by itself. What stands in
 * `process` goes before `config`, and that before the file's own members:
 *
 *     {"process": {"args": […], "env": […], "cwd": "/…"}, "mounts": [{"type": "tmpfs", "destination": "/…", …}]}
 *     {"config": {"Entrypoint": […], "Cmd": […], "Env": […], "WorkingDir": "/…"}}
 *     {"Entrypoint": […], …}    {"args": […], …}
 *
 * What is given comes first, with one exception of libkrun's: of HOME and TERM, which a kernel gives every init, those
 * of the file are better. KRUN_HOME and KRUN_TERM are better still.
 *
 *     program        given path and arguments, or the file's, or given arguments alone, or /bin/sh
 *     environment    given, and what the file has beside; HOME=/ and TERM=linux where there are none
 *     folder         given, or the file's, or /
 *
 * Entries of the file's environment without a name, which libkrun passes over, are passed over.
 *
 * This file is compiled for the host, too, for its tests only.
 *
 * Invariants: (1) nothing of the file is believed to be of a kind before that was looked at. (2) a completed request
 * has a program with a name. (3) every array is bounded (LIMIT_STRINGS, LIMIT_TMPFS).
 *
 * Trust: the file belongs to whoever made the root; what comes of it is done with the rights that a program of that
 * root has anyway.
 */
#include "krun.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

/* ---- the file ---- */

/* What is being read, and where the reading is. */
struct reading {
    struct krun_config *config;
    size_t place, capacity, count; /* of the strings */
    size_t mount_capacity;
};

static int refuse(struct reading *reading, const struct json_node *node, int result)
{
    reading->place = node->place;
    return result;
}

/* Adds the texts of an array, which may be missing. */
static int add_texts(struct reading *reading, const struct json_node *array)
{
    const struct json_tree *tree = &reading->config->tree;
    if (array == NULL)
        return 0;
    if (array->kind != JSON_KIND_ARRAY)
        return refuse(reading, array, -EINVAL);
    for (const struct json_node *each = json_tree_child(tree, array); each != NULL; each = json_tree_next(tree, each)) {
        if (each->kind != JSON_KIND_TEXT)
            return refuse(reading, each, -EINVAL);
        int result = alloc_grow((void **)&reading->config->strings, reading->count, &reading->capacity,
                                sizeof(reading->config->strings[0]), 2 * LIMIT_STRINGS);
        if (result < 0)
            return refuse(reading, each, result);
        reading->config->strings[reading->count++] = each->text;
    }
    return 0;
}

static int read_program(struct reading *reading, const struct json_node *object)
{
    const struct json_tree *tree = &reading->config->tree;
    const struct json_node *first = json_tree_member(tree, object, "Entrypoint"), *second = NULL;
    if (first == NULL)
        first = json_tree_member(tree, object, "args");
    second = json_tree_member(tree, object, "Cmd");
    int result = add_texts(reading, first);
    if (result == 0)
        result = add_texts(reading, second);
    reading->config->arg_count = reading->count;
    if (result == 0 && reading->count > 0 && reading->config->strings[0][0] == '\0')
        result = refuse(reading, first != NULL ? first : second, -EINVAL);
    return result;
}

static int read_environment(struct reading *reading, const struct json_node *object)
{
    const struct json_tree *tree = &reading->config->tree;
    const struct json_node *env = json_tree_member(tree, object, "Env");
    int result = add_texts(reading, env != NULL ? env : json_tree_member(tree, object, "env"));
    reading->config->env_count = reading->count - reading->config->arg_count;
    return result;
}

static int read_folder(struct reading *reading, const struct json_node *object)
{
    const struct json_tree *tree = &reading->config->tree;
    const struct json_node *folder = json_tree_member(tree, object, "WorkingDir");
    if (folder == NULL)
        folder = json_tree_member(tree, object, "cwd");
    if (folder != NULL && folder->kind != JSON_KIND_TEXT)
        return refuse(reading, folder, -EINVAL);
    reading->config->workdir = folder != NULL && folder->text[0] != '\0' ? folder->text : NULL;
    return 0;
}

/* With commas between them. */
static int join_texts(struct reading *reading, const struct json_node *array, char **ret_text)
{
    const struct json_tree *tree = &reading->config->tree;
    char *text = alloc_zero(LIMIT_MOUNT_OPTIONS_BYTES + 1);
    size_t length = 0;
    int result = text == NULL ? -ENOMEM : 0;
    if (result == 0 && array != NULL && array->kind != JSON_KIND_ARRAY)
        result = refuse(reading, array, -EINVAL);
    for (const struct json_node *each = result == 0 && array != NULL ? json_tree_child(tree, array) : NULL;
         each != NULL && result == 0; each = json_tree_next(tree, each)) {
        size_t more = each->kind == JSON_KIND_TEXT ? strlen(each->text) : 0;
        if (each->kind != JSON_KIND_TEXT || strchr(each->text, ',') != NULL) {
            result = refuse(reading, each, -EINVAL);
        } else if (length + 1 + more > LIMIT_MOUNT_OPTIONS_BYTES) {
            result = refuse(reading, each, -E2BIG);
        } else {
            if (length > 0)
                text[length++] = ',';
            memcpy(text + length, each->text, more);
            length += more;
        }
    }
    *ret_text = text; /* to be freed in any case */
    return result;
}

static int read_mount(struct reading *reading, const struct json_node *object)
{
    struct krun_config *config = reading->config;
    if (object->kind != JSON_KIND_OBJECT)
        return refuse(reading, object, -EINVAL);
    const struct json_node *type = json_tree_member(&config->tree, object, "type");
    const struct json_node *target = json_tree_member(&config->tree, object, "destination");
    if (type == NULL || type->kind != JSON_KIND_TEXT || strcmp(type->text, "tmpfs") != 0)
        return 0; /* somebody else has mounted it, or it means nothing in a machine of its own */
    if (target == NULL || target->kind != JSON_KIND_TEXT || target->text[0] != '/')
        return refuse(reading, target != NULL ? target : object, -EINVAL);
    if (strlen(target->text) >= LIMIT_EXEC_PATH_BYTES)
        return refuse(reading, target, -E2BIG);
    int result = alloc_grow((void **)&config->mounts, config->mount_count, &reading->mount_capacity,
                            sizeof(config->mounts[0]), LIMIT_TMPFS);
    if (result < 0)
        return refuse(reading, object, result);
    struct krun_mount *mount = &config->mounts[config->mount_count++];
    *mount = (struct krun_mount){.target = target->text, .place = object->place};
    return join_texts(reading, json_tree_member(&config->tree, object, "options"), &mount->options);
}

static int read_mounts(struct reading *reading, const struct json_node *array)
{
    const struct json_tree *tree = &reading->config->tree;
    int result = 0;
    if (array != NULL && array->kind != JSON_KIND_ARRAY)
        return refuse(reading, array, -EINVAL);
    for (const struct json_node *each = array != NULL ? json_tree_child(tree, array) : NULL;
         each != NULL && result == 0; each = json_tree_next(tree, each))
        result = read_mount(reading, each);
    return result;
}

static int read_all(struct reading *reading)
{
    const struct json_node *root = reading->config->tree.nodes, *object = NULL;
    if (root->kind != JSON_KIND_OBJECT)
        return refuse(reading, root, -EINVAL);
    object = json_tree_member(&reading->config->tree, root, "process");
    if (object == NULL)
        object = json_tree_member(&reading->config->tree, root, "config");
    if (object == NULL)
        object = root;
    if (object->kind != JSON_KIND_OBJECT)
        return refuse(reading, object, -EINVAL);
    int result = read_program(reading, object);
    if (result == 0)
        result = read_environment(reading, object);
    if (result == 0)
        result = read_folder(reading, object);
    if (result == 0)
        result = read_mounts(reading, json_tree_member(&reading->config->tree, root, "mounts"));
    reading->config->args = reading->config->strings;
    reading->config->env = reading->config->strings + (reading->count > 0 ? reading->config->arg_count : 0);
    return result;
}

int krun_read(struct krun_config *config, char *text, size_t length, size_t *ret_place)
{
    struct reading reading = {.config = config};
    int result = json_tree_read(&config->tree, text, length, ret_place);
    if (result < 0)
        return result;
    result = read_all(&reading);
    if (result < 0) {
        *ret_place = reading.place;
        krun_free(config);
    }
    return result;
}

void krun_free(struct krun_config *config)
{
    for (size_t i = 0; i < config->mount_count; i++)
        free(config->mounts[i].options);
    free(config->mounts);
    free(config->strings);
    json_tree_free(&config->tree);
    *config = (struct krun_config)KRUN_CONFIG_INIT;
}

/* ---- environments ---- */

static size_t name_bytes(const char *entry)
{
    return strcspn(entry, "=");
}

/* The place of that name, of `length` bytes; `count` where it is not there. */
static size_t find_name(const char *const *env, size_t count, const char *name, size_t length)
{
    size_t i = 0;
    while (i < count && (strncmp(env[i], name, length) != 0 || env[i][length] != '='))
        i++;
    return i;
}

/* Adds the entry, or lets it stand for the one of its name. There is room for it. */
static void put(const char **env, size_t *count, const char *entry, bool is_better)
{
    size_t place = find_name(env, *count, entry, name_bytes(entry));
    if (place == *count)
        env[(*count)++] = entry;
    else if (is_better)
        env[place] = entry;
}

enum { most_own = 4 }; /* of the next two tables */

static size_t complete_environment(const struct init_request *request, const struct krun_config *config,
                                   const char **env)
{
    static const char *const defaults[] = {"HOME=/", "TERM=linux"}; /* as a kernel gives them to its init */
    static const char *const better[] = {"KRUN_HOME", "KRUN_TERM"};
    size_t count = request->env_count;
    if (count > 0)
        memcpy(env, request->env, count * sizeof(env[0]));
    for (size_t i = 0; i < config->env_count; i++) {
        const char *entry = config->env[i];
        size_t length = name_bytes(entry);
        bool is_kernels = length == 4 && (strncmp(entry, "HOME", 4) == 0 || strncmp(entry, "TERM", 4) == 0);
        if (length > 0 && entry[length] == '=')
            put(env, &count, entry, is_kernels);
    }
    for (size_t i = 0; i < array_length(defaults); i++)
        put(env, &count, defaults[i], false);
    for (size_t i = 0; i < array_length(better); i++) {
        size_t place = find_name(env, count, better[i], strlen(better[i]));
        if (place < count)
            put(env, &count, env[place] + strlen("KRUN_"), true);
    }
    return count;
}

/* ---- requests ---- */

/* The program, and in *ret_args what stands behind its name. */
static const char *choose_program(const struct init_request *request, const struct krun_config *config,
                                  const char *const **ret_args, size_t *ret_count)
{
    bool is_given = request->path[0] != '\0', is_in_file = config->arg_count > 0;
    const char *const *args = is_given || !is_in_file ? request->args : config->args;
    size_t count = is_given || !is_in_file ? request->arg_count : config->arg_count;
    bool is_first = !is_given && count > 0 && args[0][0] != '\0'; /* of the arguments */
    *ret_args = args + is_first;
    *ret_count = count - is_first;
    return is_given ? request->path : is_first ? args[0] : "/bin/sh";
}

int krun_complete(const struct init_request *request, const struct krun_config *config,
                  struct init_request *ret_request, void **ret_table)
{
    struct init_request complete = *request;
    const char *const *behind;
    complete.path = choose_program(request, config, &behind, &complete.arg_count);
    /* The path, the arguments, the environment, and two NULLs. */
    size_t most = complete.arg_count + request->env_count + config->env_count + most_own + 3;
    const char **table = alloc_zero(most * sizeof(table[0]));
    if (table == NULL)
        return -ENOMEM;
    const char **args = table + 1, **env = args + complete.arg_count + 1;
    table[0] = complete.path;
    if (complete.arg_count > 0)
        memcpy(args, behind, complete.arg_count * sizeof(args[0]));
    complete.env_count = complete_environment(request, config, env);
    complete.args = args;
    complete.env = env;
    if (complete.workdir[0] == '\0')
        complete.workdir = config->workdir != NULL ? config->workdir : "/";
    complete.wants_config = false;
    *ret_request = complete;
    *ret_table = table;
    return 0;
}

const char *krun_variable(const struct init_request *request, const char *name)
{
    size_t place = find_name(request->env, request->env_count, name, strlen(name));
    return place < request->env_count ? request->env[place] + strlen(name) + 1 : NULL;
}
