// SPDX-License-Identifier: Apache-2.0
/* Reading JSON strictly, with errors that name the place.
 *
 * A cursor is a value and the way to it; cursors live on the stack of the code that descends. Each getter checks the
 * type and reports "disks[1].format" style fields. What a file may contain is said by key tables, so that an unknown
 * key is refused with the word that was meant.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "vial/base.h"

#include <jansson.h>

struct json_cursor {
    json_t *value;                    /* borrowed from the document */
    const struct json_cursor *parent; /* borrowed; NULL at the root */
    const char *key;                  /* of an object's member, or NULL */
    size_t index;                     /* of an array's element */
};

static inline void json_release_cleanup(json_t **document)
{
    json_decref(*document);
}

#define auto_json __attribute__((cleanup(json_release_cleanup)))

/* Parses a document whose root is an object. Duplicate keys, anything behind the end and broken UTF-8 are refused. */
int json_parse(const char *text, size_t length, json_t **ret_document, struct vial_error *err);

/* The same from a file of at most LIMIT_CONFIG_FILE_BYTES; "-" is standard input. */
int json_parse_file(const char *path, json_t **ret_document, struct vial_error *err);

/* Whether the value is an object with no other keys than these (NULL-terminated). */
int json_check_object(const struct json_cursor *at, const char *const keys[], struct vial_error *err);

/* Descends to a member; false when there is none. */
bool json_member(const struct json_cursor *at, const char *key, struct json_cursor *ret_member);

/* The number of elements of an array of at most max_count. */
int json_get_count(const struct json_cursor *at, size_t max_count, size_t *ret_count, struct vial_error *err);
struct json_cursor json_element(const struct json_cursor *at, size_t index);

/* A string without NUL; borrowed from the document. */
int json_get_text(const struct json_cursor *at, const char **ret_text, struct vial_error *err);
int json_get_bool(const struct json_cursor *at, bool *ret_value, struct vial_error *err);
int json_get_u64(const struct json_cursor *at, uint64_t max, uint64_t *ret_value, struct vial_error *err);

/* One of the NULL-terminated names: its place in the table. */
int json_get_choice(const struct json_cursor *at, const char *const names[], int *ret_choice, struct vial_error *err);

/* Sets the error's field to the cursor's place, and its value where it is a scalar. For errors found elsewhere. */
void json_blame(const struct json_cursor *at, struct vial_error *err);

#endif
