// SPDX-License-Identifier: Apache-2.0
/* Logging from inside the library: an event name and typed fields.
 *
 *     log_warn("kvm.open_failed", LOG_TEXT("path", path), LOG_ERRNO(result));
 *
 * The fields are not evaluated unless somebody listens at that level. Text is escaped: bytes of a guest may be logged
 * as they came.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "vial/base.h"

#include <string.h>

enum log_field_kind {
    LOG_FIELD_END,
    LOG_FIELD_TEXT,
    LOG_FIELD_SIGNED,
    LOG_FIELD_UNSIGNED,
    LOG_FIELD_HEX,
    LOG_FIELD_ERRNO
};

struct log_field {
    const char *key;
    enum log_field_kind kind;
    size_t length; /* of the text */
    union {
        const char *text;
        int64_t as_signed;
        uint64_t as_unsigned;
    };
};

#define LOG_BYTES(name, bytes, count) ((struct log_field){(name), LOG_FIELD_TEXT, (count), {.text = (bytes)}})
#define LOG_TEXT(name, string) LOG_BYTES(name, string, strlen(string))
#define LOG_INT(name, number) ((struct log_field){(name), LOG_FIELD_SIGNED, 0, {.as_signed = (number)}})
#define LOG_UINT(name, number) ((struct log_field){(name), LOG_FIELD_UNSIGNED, 0, {.as_unsigned = (number)}})
#define LOG_HEX(name, number) ((struct log_field){(name), LOG_FIELD_HEX, 0, {.as_unsigned = (number)}})
/* A failed call's errno of either sign, by name. */
#define LOG_ERRNO(number) ((struct log_field){"errno", LOG_FIELD_ERRNO, 0, {.as_signed = (number)}})

bool log_is_enabled(enum vial_log_level level);

/* `fields` begin behind a dummy and end with one of kind LOG_FIELD_END. */
void log_write(enum vial_log_level level, const char *event, const struct log_field *fields);

#define LOG_DUMMY ((struct log_field){NULL, LOG_FIELD_END, 0, {.text = NULL}})
#define log_event(level, event, ...)                                                                                   \
    do {                                                                                                               \
        if (log_is_enabled(level))                                                                                     \
            log_write(level, event, (const struct log_field[]){LOG_DUMMY, ##__VA_ARGS__, LOG_DUMMY});                  \
    } while (0)

#define log_error(event, ...) log_event(VIAL_LOG_ERROR, event, ##__VA_ARGS__)
#define log_warn(event, ...) log_event(VIAL_LOG_WARN, event, ##__VA_ARGS__)
#define log_info(event, ...) log_event(VIAL_LOG_INFO, event, ##__VA_ARGS__)
#define log_debug(event, ...) log_event(VIAL_LOG_DEBUG, event, ##__VA_ARGS__)
#define log_trace(event, ...) log_event(VIAL_LOG_TRACE, event, ##__VA_ARGS__)

/* Asks for this level instead of the hook's own, until the wish is dropped; a negative level is no wish. */
void log_wish_level(int level);
void log_drop_wish(int level);

/* Level names for command lines and files: 0 or -EINVAL. */
int log_level_from_name(const char *name, enum vial_log_level *ret_level);
extern const char *const log_level_names[]; /* by level, then NULL */

#endif
