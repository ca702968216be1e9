// SPDX-License-Identifier: Apache-2.0
/* Reading JSON strictly, with errors that name the place.
 *
 * Jansson does the parsing (RFC 8259, UTF-8 checked, depth bounded); this is the typed view on its tree. NUL inside a
 * string is let through the parser and refused here, because here the field has a name.
 *
 * Jansson 2.14 does not survive every failed allocation while it parses, so a process near its memory limit must not
 * parse what somebody else wrote; everywhere else a failed allocation is an error like any other.
 *
 * Invariants: (1) a getter that fails has set field, value, message and remedy. (2) no text with a NUL leaves it.
 *
 * Trust: documents may be hostile in every byte; key and choice tables are ours.
 */
#include "base/json.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- places ---- */

static size_t add_place(char *text, size_t size, const struct json_cursor *at)
{
    if (at->parent == NULL)
        return 0;
    size_t used = add_place(text, size, at->parent);
    int added = at->key != NULL ? snprintf(text + used, size - used, "%s%s", used > 0 ? "." : "", at->key)
                                : snprintf(text + used, size - used, "[%zu]", at->index);
    if (added < 0)
        return used;
    used += (size_t)added;
    return used < size ? used : size - 1;
}

void json_blame(const struct json_cursor *at, struct vial_error *err)
{
    if (err == NULL)
        return;
    char place[VIAL_ERROR_FIELD_SIZE] = "";
    add_place(place, sizeof(place), at);
    error_field(err, "%s", place);
    if (json_is_string(at->value)) {
        error_value(err, "%s", json_string_value(at->value));
    } else if (!json_is_object(at->value) && !json_is_array(at->value)) {
        char value[32];
        size_t length = json_dumpb(at->value, value, sizeof(value), JSON_ENCODE_ANY);
        error_value(err, "%.*s", (int)(length < sizeof(value) ? length : 0), value);
    }
}

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "a whole number";
    case JSON_REAL:
        return "a number with a fraction or exponent";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        return "null";
    }
    return "something else";
}

static int refuse_type(const struct json_cursor *at, const char *wanted, struct vial_error *err)
{
    int result = error_set(err, VIAL_ERROR_TYPE, VIAL_PHASE_CONFIGURE, "expected %s, found %s", wanted,
                           type_name(at->value));
    json_blame(at, err);
    error_remedy(err, "write %s here", wanted);
    return result;
}

/* ---- documents ---- */

int json_parse(const char *text, size_t length, json_t **ret_document, struct vial_error *err)
{
    json_error_t details;
    json_t *document = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &details);
    /* Jansson leaves the text empty when an allocation failed (or blames the token it was reading). */
    if (document == NULL && details.text[0] == '\0')
        return error_no_memory(err, VIAL_PHASE_CONFIGURE);
    if (document == NULL) {
        int result = error_set(err, VIAL_ERROR_SYNTAX, VIAL_PHASE_CONFIGURE, "line %d, column %d: %s", details.line,
                               details.column, details.text);
        error_remedy(err, "make it valid JSON (RFC 8259: no comments, no trailing commas, every key once)");
        return result;
    }
    if (!json_is_object(document)) {
        struct json_cursor root = {.value = document};
        int result = refuse_type(&root, "an object", err);
        json_decref(document);
        return result;
    }
    *ret_document = document;
    return 0;
}

int json_parse_file(const char *path, json_t **ret_document, struct vial_error *err)
{
    auto_buffer struct buffer text = BUFFER_INIT(LIMIT_CONFIG_FILE_BYTES);
    int result = strcmp(path, "-") == 0 ? fd_read_all(STDIN_FILENO, &text) : fd_read_file(path, &text);
    if (result == -ENOBUFS) {
        result = error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_CONFIGURE, "%s is larger than %u MiB",
                           error_short(path).text, LIMIT_CONFIG_FILE_BYTES >> 20);
        error_remedy(err, "give a configuration file, not something else");
        return result;
    }
    if (result < 0) {
        result = error_set_os(err, VIAL_PHASE_CONFIGURE, result, "cannot read %s", error_short(path).text);
        error_remedy(err, "give the path of a readable JSON file, or - for standard input");
        return result;
    }
    return json_parse(text.data != NULL ? text.data : "", text.length, ret_document, err);
}

/* ---- typed access ---- */

/* "use a, b or c" for an error's remedy. */
static void join_names(char *text, size_t size, const char *const names[])
{
    size_t used = 0;
    for (size_t i = 0; names[i] != NULL; i++) {
        const char *between = i == 0 ? "" : names[i + 1] == NULL ? " or " : ", ";
        int added = snprintf(text + used, size - used, "%s%s", between, names[i]);
        if (added < 0 || (size_t)added >= size - used)
            break;
        used += (size_t)added;
    }
}

int json_check_object(const struct json_cursor *at, const char *const keys[], struct vial_error *err)
{
    if (!json_is_object(at->value))
        return refuse_type(at, "an object", err);
    const char *key;
    json_t *member;
    json_object_foreach (at->value, key, member) {
        size_t i = 0;
        while (keys[i] != NULL && strcmp(keys[i], key) != 0)
            i++;
        if (keys[i] != NULL)
            continue;
        struct json_cursor place = {.value = member, .parent = at, .key = key};
        int result = error_set(err, VIAL_ERROR_UNKNOWN_KEY, VIAL_PHASE_CONFIGURE, "\"%s\" is not a known key",
                               error_short(key).text);
        json_blame(&place, err);
        const char *meant = text_nearest(key, keys);
        char known[VIAL_ERROR_REMEDY_SIZE] = "";
        join_names(known, sizeof(known), keys);
        if (meant != NULL)
            error_remedy(err, "did you mean \"%s\"?", meant);
        else
            error_remedy(err, "remove it; the keys known here are %s", known);
        return result;
    }
    return 0;
}

bool json_member(const struct json_cursor *at, const char *key, struct json_cursor *ret_member)
{
    json_t *member = json_object_get(at->value, key);
    if (member == NULL)
        return false;
    *ret_member = (struct json_cursor){.value = member, .parent = at, .key = key};
    return true;
}

int json_get_count(const struct json_cursor *at, size_t max_count, size_t *ret_count, struct vial_error *err)
{
    if (!json_is_array(at->value))
        return refuse_type(at, "an array", err);
    size_t count = json_array_size(at->value);
    if (count > max_count) {
        int result = error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_CONFIGURE,
                               "%zu elements are more than the limit of %zu", count, max_count);
        json_blame(at, err);
        error_remedy(err, "give at most %zu elements", max_count);
        return result;
    }
    *ret_count = count;
    return 0;
}

struct json_cursor json_element(const struct json_cursor *at, size_t index)
{
    return (struct json_cursor){.value = json_array_get(at->value, index), .parent = at, .index = index};
}

int json_get_text(const struct json_cursor *at, const char **ret_text, struct vial_error *err)
{
    if (!json_is_string(at->value))
        return refuse_type(at, "a string", err);
    const char *text = json_string_value(at->value);
    size_t length = strlen(text);
    if (json_string_length(at->value) != length) {
        int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_CONFIGURE, "the text holds a NUL byte at offset %zu",
                               length);
        json_blame(at, err);
        error_remedy(err, "remove the \\u0000: neither paths nor arguments can carry it");
        return result;
    }
    *ret_text = text;
    return 0;
}

int json_get_bool(const struct json_cursor *at, bool *ret_value, struct vial_error *err)
{
    if (!json_is_boolean(at->value))
        return refuse_type(at, "true or false", err);
    *ret_value = json_is_true(at->value);
    return 0;
}

int json_get_u64(const struct json_cursor *at, uint64_t max, uint64_t *ret_value, struct vial_error *err)
{
    if (!json_is_integer(at->value))
        return refuse_type(at, "a whole number", err);
    json_int_t value = json_integer_value(at->value);
    if (value < 0 || (uint64_t)value > max) {
        int result = error_set(err, VIAL_ERROR_OUT_OF_RANGE, VIAL_PHASE_CONFIGURE, "%lld is not between 0 and %" PRIu64,
                               (long long)value, max);
        json_blame(at, err);
        error_remedy(err, "give a whole number from 0 to %" PRIu64, max);
        return result;
    }
    *ret_value = (uint64_t)value;
    return 0;
}

int json_get_choice(const struct json_cursor *at, const char *const names[], int *ret_choice, struct vial_error *err)
{
    const char *text = NULL;
    int result = json_get_text(at, &text, err);
    if (result < 0)
        return result;
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], text) == 0) {
            *ret_choice = i;
            return 0;
        }
    }
    char known[VIAL_ERROR_REMEDY_SIZE / 2] = "";
    join_names(known, sizeof(known), names);
    const char *meant = text_nearest(text, names);
    result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_CONFIGURE, "\"%s\" is not one of %s", error_short(text).text,
                       known);
    json_blame(at, err);
    if (meant != NULL)
        error_remedy(err, "did you mean \"%s\"?", meant);
    else
        error_remedy(err, "use %s", known);
    return result;
}
