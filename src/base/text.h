// SPDX-License-Identifier: Apache-2.0
/* Text: escaping what others wrote, reading numbers, finding the word that was meant. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Copies `length` bytes into `destination` (always terminated) so that they are safe on a terminal and in a log line:
 * printable UTF-8 stays, control characters, bidirectional overrides and broken UTF-8 become \xNN, and the characters
 * in `also` get a backslash. What does not fit ends in "...". Returns the length written. */
size_t text_escape(char *destination, size_t size, const char *source, size_t length, const char *also);

/* The whole of text[0..length) as a decimal number without sign, at most `max`. 0, -EINVAL for anything but digits,
 * -ERANGE above max. */
int text_to_u64(const char *text, size_t length, uint64_t max, uint64_t *ret_value);

/* Whether it is well-formed UTF-8 to its end. */
bool text_is_utf8(const char *text);

/* Whether every byte lies between space and tilde, the range that a kernel command line carries safely. */
bool text_is_printable_ascii(const char *text);

/* The one of the NULL-terminated `words` that somebody who wrote `word` probably meant, or NULL. */
const char *text_nearest(const char *word, const char *const words[]);

#endif
