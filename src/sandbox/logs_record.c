// SPDX-License-Identifier: Apache-2.0
/* Records of a sandbox's logs. journal.h says what they look like.
 *
 * Invariants: (1) what is no record is passed over, never an error: a crash or a full disk cuts records off.
 *
 * Trust: texts are a guest's, byte for byte; they are handed on as they are. The form is our own process's word, which
 * a guest may have taken over: every length is checked.
 */
#include "sandbox/logs_record.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/json.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static int base64_digit(char letter)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *found = letter != '\0' ? strchr(digits, letter) : NULL;
    return found != NULL ? (int)(found - digits) : -1;
}

/* RFC 4648 4, in new memory; NULL for anything else. */
static char *decode_base64(const char *text, size_t *ret_length)
{
    size_t length = strlen(text), written = 0;
    while (length > 0 && text[length - 1] == '=')
        length--;
    char *bytes = alloc_zero(length / 4 * 3 + 4);
    uint32_t bits = 0;
    for (size_t i = 0; bytes != NULL && i < length; i++) {
        int digit = base64_digit(text[i]);
        if (digit < 0) {
            free(bytes);
            return NULL;
        }
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 > 0)
            bytes[written++] = (char)(bits >> (6 - 2 * (i % 4)));
    }
    *ret_length = written;
    return bytes;
}

static bool take_text(const json_t *object, struct log_record *record)
{
    const json_t *text = json_object_get(object, "text");
    const char *coded = json_string_value(json_object_get(object, "base64"));
    if (json_is_string(text)) { /* it may have a NUL inside */
        record->length = json_string_length(text);
        record->owned = alloc_zero(record->length + 1);
        if (record->owned != NULL)
            memcpy(record->owned, json_string_value(text), record->length);
    } else if (coded != NULL) {
        record->owned = decode_base64(coded, &record->length);
    }
    record->bytes = record->owned;
    return record->owned != NULL;
}

static void tell_lost(uint64_t bytes, struct log_record *record)
{
    snprintf(record->note, sizeof(record->note), "vial: %llu bytes were lost here\n", (unsigned long long)bytes);
    record->bytes = record->note;
    record->length = strlen(record->note);
}

bool log_record_from_json(const char *line, size_t length, struct log_record *ret_record)
{
    auto_json json_t *object = NULL;
    struct vial_error why;
    *ret_record = (struct log_record){0};
    if (json_parse(line, length, &object, &why) < 0)
        return false;
    const char *stream = json_string_value(json_object_get(object, "s"));
    const json_t *time = json_object_get(object, "t");
    if (stream == NULL || !json_is_integer(time))
        return false;
    ret_record->time_ns = (uint64_t)json_integer_value(time);
    if (strcmp(stream, "lost") == 0) {
        tell_lost((uint64_t)json_integer_value(json_object_get(object, "bytes")), ret_record);
        return true;
    }
    ret_record->stream = strcmp(stream, "err") == 0 ? 2 : 1;
    return take_text(object, ret_record);
}

/* "2026-01-02T03:04:05.123456789Z " */
enum { stamp_bytes = 31 };

static bool take_number(const char *text, size_t digits, int *ret_value)
{
    int value = 0;
    for (size_t i = 0; i < digits; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (text[i] - '0');
    }
    *ret_value = value;
    return true;
}

bool log_record_from_line(const char *line, size_t length, struct log_record *ret_record)
{
    struct tm tm = {0};
    int fraction_ns = 0;
    *ret_record = (struct log_record){0};
    if (length < stamp_bytes || line[10] != 'T' || line[29] != 'Z' || line[30] != ' ' ||
        !take_number(line, 4, &tm.tm_year) || !take_number(line + 5, 2, &tm.tm_mon) ||
        !take_number(line + 8, 2, &tm.tm_mday) || !take_number(line + 11, 2, &tm.tm_hour) ||
        !take_number(line + 14, 2, &tm.tm_min) || !take_number(line + 17, 2, &tm.tm_sec) ||
        !take_number(line + 20, 9, &fraction_ns))
        return false;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    time_t seconds = timegm(&tm);
    if (seconds < 0)
        return false;
    ret_record->time_ns = (uint64_t)seconds * CLOCK_NS_PER_S + (uint64_t)fraction_ns;
    ret_record->bytes = line + stamp_bytes;
    ret_record->length = length - stamp_bytes;
    return true;
}
