// SPDX-License-Identifier: Apache-2.0
/* The parts of a log's record: times, JSON strings, base64, and what is text.
 *
 * Nothing but functions of their arguments. What a program says is judged in one pass, in which ASCII costs a
 * comparison a byte; escaping copies what needs none in runs.
 *
 * Invariants: (1) what is called text can be put into a JSON string by journal_add_escaped, and every strict reader
 * takes it: shortest forms only, no surrogates, no NUL (RFC 3629, 3; RFC 8259, 8.1). (2) at most three bytes are left
 * undecided.
 *
 * Trust: every byte may be a hostile guest's.
 */
#include "sandbox/journal_record.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

/* ---- time ---- */

/* RFC 3339 in UTC with nanoseconds. The date of a day's number is that of "chrono-Compatible Low-Level Date
 * Algorithms": years begin in March, so that the day that is not always there comes last. */
void journal_format_time(uint64_t time_ns, char text[JOURNAL_TIME_BYTES])
{
    uint64_t seconds = time_ns / CLOCK_NS_PER_S, day = seconds / 86400 + 719468, second = seconds % 86400;
    uint64_t era = day / 146097, day_of_era = day % 146097;
    uint64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    uint64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint64_t month_from_march = (5 * day_of_year + 2) / 153;
    uint64_t day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    uint64_t month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
    uint64_t year = year_of_era + era * 400 + (month <= 2);
    snprintf(text, JOURNAL_TIME_BYTES, "%04u-%02u-%02uT%02u:%02u:%02u.%09uZ", (unsigned)year, (unsigned)month,
             (unsigned)day_of_month, (unsigned)(second / 3600), (unsigned)(second / 60 % 60), (unsigned)(second % 60),
             (unsigned)(time_ns % CLOCK_NS_PER_S));
}

/* ---- characters ---- */

/* How long a character is that begins so, and between which bytes its second one lies (RFC 3629, 4); 0: none does. */
static size_t expect(unsigned char first, unsigned char *ret_least, unsigned char *ret_most)
{
    *ret_least = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    *ret_most = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (first < 0x80)
        return 1;
    if (first < 0xc2 || first > 0xf4)
        return 0;
    return first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

/* How many bytes of one character stand at the front, up to its length; 0 if one of them cannot. */
static size_t count_sound(const char *bytes, size_t length, size_t *ret_expected)
{
    unsigned char least, most;
    size_t expected = *ret_expected = expect((unsigned char)bytes[0], &least, &most);
    if (expected == 0)
        return 0;
    for (size_t i = 1; i < expected && i < length; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        if (byte < (i == 1 ? least : 0x80) || byte > (i == 1 ? most : 0xbf))
            return 0;
    }
    return expected < length ? expected : length;
}

size_t journal_character_length(const char *bytes, size_t length)
{
    size_t expected = 0, sound = length > 0 ? count_sound(bytes, length, &expected) : 0;
    return sound == expected ? sound : 0;
}

bool journal_may_go_on(const char *bytes, size_t length)
{
    size_t expected = 0, sound = length > 0 ? count_sound(bytes, length, &expected) : 0;
    return sound == length && sound > 0 && sound < expected;
}

size_t journal_judge_text(const char *bytes, size_t length, bool *ret_is_text)
{
    size_t at = 0;
    *ret_is_text = true;
    while (at < length) {
        if (bytes[at] > 0) { /* ASCII, which most of it is */
            at++;
            continue;
        }
        size_t character = journal_character_length(bytes + at, length - at);
        if (character == 0 && journal_may_go_on(bytes + at, length - at))
            return at;
        if (character == 0 || bytes[at] == '\0') {
            *ret_is_text = false;
            return length;
        }
        at += character;
    }
    return length;
}

/* ---- JSON ---- */

static bool is_plain(unsigned char byte)
{
    return byte >= 0x20 && byte != '"' && byte != '\\' && byte != 0x7f;
}

void journal_add_escaped(struct buffer *record, const char *bytes, size_t length)
{
    size_t begin = 0;
    for (size_t at = 0; at < length; at++) {
        unsigned char byte = (unsigned char)bytes[at];
        if (is_plain(byte))
            continue;
        buffer_add(record, bytes + begin, at - begin);
        begin = at + 1;
        if (byte == '\n')
            buffer_add(record, "\\n", 2);
        else if (byte == '"' || byte == '\\')
            buffer_add(record, (const char[]){'\\', (char)byte}, 2);
        else
            buffer_format(record, "\\u%04x", byte);
    }
    buffer_add(record, bytes + begin, length - begin);
}

/* RFC 4648, 4. */
void journal_add_base64(struct buffer *record, const char *bytes, size_t length)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = buffer_reserve(record, (length + 2) / 3 * 4);
    if (text == NULL)
        return;
    for (size_t at = 0; at < length; at += 3, text += 4) {
        size_t left = length - at;
        uint32_t bits = (uint32_t)(unsigned char)bytes[at] << 16;
        bits |= left > 1 ? (uint32_t)(unsigned char)bytes[at + 1] << 8 : 0;
        bits |= left > 2 ? (uint32_t)(unsigned char)bytes[at + 2] : 0;
        text[0] = digits[bits >> 18];
        text[1] = digits[bits >> 12 & 63];
        text[2] = '=';
        text[3] = '=';
        if (left > 1)
            text[2] = digits[bits >> 6 & 63];
        if (left > 2)
            text[3] = digits[bits & 63];
    }
    buffer_commit(record, (length + 2) / 3 * 4);
}
