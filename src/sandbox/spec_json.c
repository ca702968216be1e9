// SPDX-License-Identifier: Apache-2.0
/* spec.json: what a sandbox is, written once for its process.
 *
 * The file appears whole under its name (written under another, renamed), before the sandbox's row does. Reading is as
 * strict as for a configuration, of which it holds one.
 *
 * Invariants: (1) what is read back is what was written, byte for byte; text that JSON cannot hold is {"hex": "…"}.
 * (2) scripts are in the folder before the file is.
 *
 * Trust: the file lies in a folder that belongs to the user alone. It is read in full before anything is believed.
 */
#include "sandbox/spec_parts.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/limits.h"
#include "vmm/config_json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char file_name[] = "spec.json", new_name[] = "spec.json.new";

/* ---- writing ---- */

static int take_text(const char *bytes, size_t length, void *buffer)
{
    return buffer_add(buffer, bytes, length);
}

int spec_dump(const json_t *value, size_t flags, struct buffer *text)
{
    /* Into memory of our own: Jansson's comes from whatever allocator the program has given it. */
    int result = value != NULL ? json_dump_callback(value, take_text, text, flags) : -1;
    return text->error < 0 ? text->error : result < 0 ? -ENOMEM : 0;
}

/* json_object_set_new and friends fail on NULL and without memory; one flag collects that. */
struct writer {
    bool has_failed;
};

static void put(struct writer *writer, json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) < 0)
        writer->has_failed = true;
}

/* A string, or {"hex": …} for what is none in JSON. */
static json_t *bytes_to_json(struct writer *writer, const char *bytes)
{
    static const char digits[] = "0123456789abcdef";
    json_t *string = json_string(bytes);
    if (string != NULL)
        return string;
    size_t length = strlen(bytes);
    auto_free char *hex = alloc_zero(2 * length + 1);
    if (hex == NULL)
        return NULL;
    for (size_t i = 0; i < length; i++) {
        hex[2 * i] = digits[(unsigned char)bytes[i] >> 4];
        hex[2 * i + 1] = digits[bytes[i] & 15];
    }
    json_t *object = json_object();
    put(writer, object, "hex", json_string(hex));
    return object;
}

static void put_bytes(struct writer *writer, json_t *object, const char *key, const char *bytes)
{
    if (bytes != NULL)
        put(writer, object, key, bytes_to_json(writer, bytes));
}

static void put_strings(struct writer *writer, json_t *object, const char *key, char *const *strings)
{
    json_t *array = json_array();
    for (size_t i = 0; strings != NULL && strings[i] != NULL; i++)
        if (json_array_append_new(array, bytes_to_json(writer, strings[i])) < 0)
            writer->has_failed = true;
    put(writer, object, key, array);
}

/* JSON's integers are signed here; what is longer than 292 million years may as well be that. */
static json_t *duration(uint64_t value_ms)
{
    return json_integer(value_ms > INT64_MAX ? INT64_MAX : (json_int_t)value_ms);
}

static json_t *program_to_json(struct writer *writer, const struct spec_program *program)
{
    if (program->args == NULL)
        return json_null();
    json_t *object = json_object();
    put_strings(writer, object, "args", program->args);
    put_strings(writer, object, "env", program->env);
    put_strings(writer, object, "rlimits", program->rlimits);
    put_bytes(writer, object, "workdir", program->workdir);
    put_bytes(writer, object, "user", program->user);
    put(writer, object, "terminal", json_boolean(program->terminal));
    put(writer, object, "input", json_boolean(program->input));
    put(writer, object, "rows", json_integer(program->rows));
    put(writer, object, "columns", json_integer(program->columns));
    return object;
}

static int machine_to_json(const struct vial_vm_config *config, json_t **ret_machine, struct vial_error *err)
{
    auto_free char *text = NULL;
    int result = vial_vm_config_dump(config, &text, err);
    return result == 0 ? json_parse(text, strlen(text), ret_machine, err) : result;
}

static int spec_to_json(const struct spec *spec, json_t **ret_document, struct vial_error *err)
{
    struct writer writer = {.has_failed = false};
    json_t *machine = NULL;
    int result = machine_to_json(spec->config, &machine, err);
    if (result < 0)
        return result;
    json_t *document = json_object();
    put(&writer, document, "id", json_string(spec->id));
    put(&writer, document, "name", json_string(spec->name));
    put(&writer, document, "hostname", json_string(spec->hostname));
    put(&writer, document, "ephemeral", json_boolean(spec->ephemeral));
    put(&writer, document, "idle_timeout_ms", duration(spec->idle_timeout_ms));
    put(&writer, document, "max_duration_ms", duration(spec->max_duration_ms));
    put(&writer, document, "stop_grace_ms", duration(spec->stop_grace_ms));
    put(&writer, document, "machine", machine);
    put(&writer, document, "program", program_to_json(&writer, &spec->program));
    put_strings(&writer, document, "labels", spec->labels);
    put_strings(&writer, document, "scripts", spec->scripts);
    if (writer.has_failed) {
        json_decref(document);
        return error_no_memory(err, VIAL_PHASE_CONFIGURE);
    }
    *ret_document = document;
    return 0;
}

static int write_file(int folder, const char *name, int mode, const struct buffer *content, struct vial_error *err)
{
    auto_close int fd = openat(folder, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode);
    int result = fd < 0 ? -errno : fd_write_all(fd, content->data, content->length);
    if (result == 0)
        return 0;
    error_set_os(err, VIAL_PHASE_CONFIGURE, result, "cannot write %s in the folder of the sandbox", name);
    error_remedy(err, "make room on the disk of the home (VIAL_HOME)");
    return result;
}

static int copy_script(const char *script, size_t index, int scripts, struct vial_error *err)
{
    char name[VIAL_SANDBOX_NAME_SIZE];
    auto_buffer struct buffer content = BUFFER_INIT(LIMIT_SCRIPT_BYTES);
    auto_close int fd = spec_open_script(script, index, err);
    if (fd < 0)
        return fd;
    int result = fd_read_all(fd, &content);
    if (result < 0) {
        error_set_os(err, VIAL_PHASE_CONFIGURE, result, "cannot read the script %s", error_short(script).text);
        error_field(err, "scripts[%zu]", index);
        return result;
    }
    snprintf(name, sizeof(name), "%.*s", (int)spec_key_length(script), script); /* which was checked */
    return write_file(scripts, name, 0700, &content, err);
}

static int copy_scripts(const char *const *scripts, int folder, struct vial_error *err)
{
    if (scripts == NULL || scripts[0] == NULL)
        return 0;
    auto_close int fd = openat(folder, "scripts", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_set_os(err, VIAL_PHASE_CONFIGURE, errno, "cannot open the folder of the sandbox's scripts");
    int result = 0;
    for (size_t i = 0; scripts[i] != NULL && result == 0; i++)
        result = copy_script(scripts[i], i, fd, err);
    return result;
}

static int write_document(const json_t *document, int folder, struct vial_error *err)
{
    auto_buffer struct buffer text = BUFFER_INIT(LIMIT_SPEC_BYTES);
    if (spec_dump(document, JSON_INDENT(1), &text) < 0 || buffer_add_text(&text, "\n") < 0)
        return error_no_memory(err, VIAL_PHASE_CONFIGURE);
    int result = write_file(folder, new_name, 0600, &text, err);
    if (result == 0 && renameat(folder, new_name, folder, file_name) < 0)
        result = error_set_os(err, VIAL_PHASE_CONFIGURE, errno, "cannot write the sandbox's %s", file_name);
    return result;
}

int spec_write(const struct spec *spec, const struct vial_sandbox_options *options, int folder, struct vial_error *err)
{
    auto_json json_t *document = NULL;
    int result = options != NULL ? copy_scripts(options->scripts, folder, err) : 0;
    if (result == 0)
        result = spec_to_json(spec, &document, err);
    return result < 0 ? result : write_document(document, folder, err);
}

/* ---- reading ---- */

static int refuse_bytes(const struct json_cursor *at, struct vial_error *err)
{
    int result = error_set(err, VIAL_ERROR_SYNTAX, VIAL_PHASE_CONFIGURE, "it is not a row of bytes in base 16");
    json_blame(at, err);
    error_remedy(err, "write pairs of digits, none of them 00");
    return result;
}

/* The pairs of digits as bytes; false for anything else. */
static bool parse_hex(const char *hex, char *bytes)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; hex[2 * i] != '\0'; i++) {
        const char *high = strchr(digits, hex[2 * i]);
        const char *low = hex[2 * i + 1] != '\0' ? strchr(digits, hex[2 * i + 1]) : NULL;
        if (high == NULL || low == NULL || (high == digits && low == digits))
            return false;
        bytes[i] = (char)((high - digits) * 16 + (low - digits));
    }
    return true;
}

/* A string, or an object with its bytes, in new memory. */
static int read_bytes(const struct json_cursor *at, char **ret_bytes, struct vial_error *err)
{
    static const char *const keys[] = {"hex", NULL};
    struct json_cursor member;
    const char *text = NULL;
    bool is_hex = json_is_object(at->value);
    int result = is_hex ? json_check_object(at, keys, err) : json_get_text(at, &text, err);
    if (result == 0 && is_hex)
        result = json_member(at, "hex", &member) ? json_get_text(&member, &text, err) : refuse_bytes(at, err);
    if (result < 0)
        return result;
    auto_free char *bytes = is_hex ? alloc_zero(strlen(text) / 2 + 1) : alloc_string(text);
    if (bytes == NULL)
        return error_no_memory(err, VIAL_PHASE_CONFIGURE);
    if (is_hex && !parse_hex(text, bytes))
        return refuse_bytes(&member, err);
    *ret_bytes = steal_ptr(bytes);
    return 0;
}

/* A member that may be missing. */
static int read_bytes_of(const struct json_cursor *at, const char *key, char **ret_bytes, struct vial_error *err)
{
    struct json_cursor member;
    return json_member(at, key, &member) ? read_bytes(&member, ret_bytes, err) : 0;
}

static int read_strings(const struct json_cursor *at, const char *key, char ***ret_strings, struct vial_error *err)
{
    struct json_cursor member;
    size_t count = 0;
    if (!json_member(at, key, &member))
        return 0;
    int result = json_get_count(&member, LIMIT_STRINGS, &count, err);
    if (result < 0 || count == 0)
        return result;
    char **strings = alloc_zero((count + 1) * sizeof(strings[0]));
    if (strings == NULL)
        return error_no_memory(err, VIAL_PHASE_CONFIGURE);
    for (size_t i = 0; i < count && result == 0; i++) {
        struct json_cursor element = json_element(&member, i);
        result = read_bytes(&element, &strings[i], err);
    }
    if (result < 0)
        spec_free_strings(strings);
    else
        *ret_strings = strings;
    return result;
}

static int read_program(const struct json_cursor *at, struct spec_program *program, struct vial_error *err)
{
    static const struct member members[] = {
        {OTHER("args")},
        {OTHER("env")},
        {OTHER("rlimits")},
        {OTHER("workdir")},
        {OTHER("user")},
        {MEMBER(spec_program, terminal, MEMBER_BOOL)},
        {MEMBER(spec_program, input, MEMBER_BOOL)},
        {MEMBER(spec_program, rows, MEMBER_U16)},
        {MEMBER(spec_program, columns, MEMBER_U16)},
        {.key = NULL},
    };
    if (json_is_null(at->value))
        return 0;
    int result = json_read_object(at, members, program, err);
    if (result == 0)
        result = read_strings(at, "args", &program->args, err);
    if (result == 0)
        result = read_strings(at, "env", &program->env, err);
    if (result == 0)
        result = read_strings(at, "rlimits", &program->rlimits, err);
    if (result == 0)
        result = read_bytes_of(at, "workdir", &program->workdir, err);
    if (result == 0)
        result = read_bytes_of(at, "user", &program->user, err);
    if (result == 0 && program->args == NULL)
        result = json_refuse_missing(at, "args", "name a program, or write null for none", err);
    return result;
}

static int read_machine(const struct json_cursor *at, struct vial_vm_config **ret_config, struct vial_error *err)
{
    auto_buffer struct buffer text = BUFFER_INIT(LIMIT_SPEC_BYTES);
    if (spec_dump(at->value, JSON_ENCODE_ANY, &text) < 0)
        return error_no_memory(err, VIAL_PHASE_CONFIGURE);
    return vial_vm_config_load_text(text.data, text.length, ret_config, err);
}

/* The members that are no lists and no objects; the texts are borrowed from the document. */
struct spec_scalars {
    const char *id, *name, *hostname;
    uint64_t idle_timeout_ms, max_duration_ms, stop_grace_ms;
    bool ephemeral;
};

static int take_scalars(const struct json_cursor *at, const struct spec_scalars *scalars, struct spec *spec,
                        struct vial_error *err)
{
    if (scalars->id == NULL || !home_is_id(scalars->id))
        return json_refuse_missing(at, "id", "the file is damaged: remove the sandbox, and make it anew", err);
    if (scalars->name == NULL || !spec_is_name(scalars->name) || scalars->hostname == NULL)
        return json_refuse_missing(at, "name", "the file is damaged: remove the sandbox, and make it anew", err);
    snprintf(spec->id, sizeof(spec->id), "%s", scalars->id);
    snprintf(spec->name, sizeof(spec->name), "%s", scalars->name);
    spec->idle_timeout_ms = scalars->idle_timeout_ms;
    spec->max_duration_ms = scalars->max_duration_ms;
    spec->stop_grace_ms = scalars->stop_grace_ms;
    spec->ephemeral = scalars->ephemeral;
    spec->hostname = alloc_string(scalars->hostname);
    return spec->hostname != NULL ? 0 : error_no_memory(err, VIAL_PHASE_CONFIGURE);
}

static int read_scalars(const struct json_cursor *at, struct spec *spec, struct vial_error *err)
{
    static const struct member members[] = {
        {MEMBER(spec_scalars, id, MEMBER_TEXT)},
        {MEMBER(spec_scalars, name, MEMBER_TEXT)},
        {MEMBER(spec_scalars, hostname, MEMBER_TEXT)},
        {MEMBER(spec_scalars, ephemeral, MEMBER_BOOL)},
        {MEMBER(spec_scalars, idle_timeout_ms, MEMBER_U64)},
        {MEMBER(spec_scalars, max_duration_ms, MEMBER_U64)},
        {MEMBER(spec_scalars, stop_grace_ms, MEMBER_U64)},
        {OTHER("machine")},
        {OTHER("program")},
        {OTHER("labels")},
        {OTHER("scripts")},
        {.key = NULL},
    };
    struct spec_scalars scalars = {.id = NULL};
    int result = json_read_object(at, members, &scalars, err);
    return result == 0 ? take_scalars(at, &scalars, spec, err) : result;
}

static int read_document(json_t *document, struct spec *spec, struct vial_error *err)
{
    struct json_cursor root = {.value = document}, member;
    int result = read_scalars(&root, spec, err);
    if (result == 0)
        result = json_member(&root, "machine", &member)
                     ? read_machine(&member, &spec->config, err)
                     : json_refuse_missing(&root, "machine", "the file is damaged: make the sandbox anew", err);
    if (result == 0 && json_member(&root, "program", &member))
        result = read_program(&member, &spec->program, err);
    if (result == 0)
        result = read_strings(&root, "labels", &spec->labels, err);
    if (result == 0)
        result = read_strings(&root, "scripts", &spec->scripts, err);
    return result;
}

static int read_file(int folder, json_t **ret_document, struct vial_error *err)
{
    auto_buffer struct buffer text = BUFFER_INIT(LIMIT_SPEC_BYTES);
    auto_close int fd = openat(folder, file_name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    int result = fd < 0 ? -errno : fd_read_all(fd, &text);
    if (result < 0) {
        error_set_os(err, VIAL_PHASE_CONFIGURE, result, "cannot read the sandbox's %s", file_name);
        error_remedy(err, "remove the sandbox, and make it anew");
        return result;
    }
    return json_parse(text.data != NULL ? text.data : "", text.length, ret_document, err);
}

int spec_read(int folder, struct spec *ret_spec, struct vial_error *err)
{
    struct spec spec = {.config = NULL};
    auto_json json_t *document = NULL;
    int result = read_file(folder, &document, err);
    if (result == 0)
        result = read_document(document, &spec, err);
    if (result < 0)
        spec_free(&spec);
    else
        *ret_spec = spec;
    return result;
}

int spec_rename(int folder, const char *name, struct vial_error *err)
{
    auto_json json_t *document = NULL;
    int result = read_file(folder, &document, err);
    if (result == 0 && !json_is_object(document))
        result = error_set(err, VIAL_ERROR_SYNTAX, VIAL_PHASE_CONFIGURE, "the sandbox's %s is damaged", file_name);
    if (result == 0 && json_object_set_new(document, "name", json_string(name)) < 0)
        result = error_no_memory(err, VIAL_PHASE_CONFIGURE);
    return result < 0 ? result : write_document(document, folder, err);
}
