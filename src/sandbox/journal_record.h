// SPDX-License-Identifier: Apache-2.0
/* The parts of a log's record: times, JSON strings, base64, and what is text. (journal.c) */
#ifndef SANDBOX_JOURNAL_RECORD_H
#define SANDBOX_JOURNAL_RECORD_H

#include "base/buffer.h"

#include <stdbool.h>
#include <stdint.h>

enum { JOURNAL_TIME_BYTES = 96 };

/* 2026-01-02T03:04:05.123456789Z, of nanoseconds since 1970. */
void journal_format_time(uint64_t time_ns, char text[JOURNAL_TIME_BYTES]);

/* The length of the UTF-8 character at the front, or 0 if there is none. */
size_t journal_character_length(const char *bytes, size_t length);

/* Whether all the bytes are the beginning of a character that more bytes could complete. */
bool journal_may_go_on(const char *bytes, size_t length);

/* How much of it is decided: all but a character at the end that may go on in the next piece. `ret_is_text` tells
 * whether that much is UTF-8 without a NUL. */
size_t journal_judge_text(const char *bytes, size_t length, bool *ret_is_text);

/* Into a JSON string: UTF-8 escaped as RFC 8259 has it, and bytes as base64. */
void journal_add_escaped(struct buffer *record, const char *bytes, size_t length);
void journal_add_base64(struct buffer *record, const char *bytes, size_t length);

#endif
