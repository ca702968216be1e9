// SPDX-License-Identifier: Apache-2.0
/* Text: escaping what others wrote, reading numbers, finding the word that was meant.
 *
 * Escaping works on characters: a UTF-8 sequence is decoded whole (shortest form, no surrogates, at most U+10FFFF) and
 * either kept whole or written as escapes byte by byte, so that the result is valid UTF-8 even where it was cut.
 *
 * Invariants: (1) the output is terminated and never longer than its size. (2) it holds no byte below space, no DEL, no
 * C1 control and no bidirectional control, so it can neither move a cursor nor reorder a line.
 *
 * Trust: every byte of the input may be hostile (a guest's, a file's, a command line's).
 */
#include "base/text.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Decodes one character at `bytes`; returns its length, or 0 if it is not well-formed UTF-8. (RFC 3629, 4) */
static size_t decode_utf8(const unsigned char *bytes, size_t length, uint32_t *ret_character)
{
    uint32_t character = bytes[0];
    size_t need = 0;
    uint32_t least = 0;
    if (character < 0x80) {
        *ret_character = character;
        return 1;
    }
    if (character >= 0xc2 && character <= 0xdf) {
        need = 2, least = 0x80, character &= 0x1f;
    } else if (character >= 0xe0 && character <= 0xef) {
        need = 3, least = 0x800, character &= 0x0f;
    } else if (character >= 0xf0 && character <= 0xf4) {
        need = 4, least = 0x10000, character &= 0x07;
    }
    if (need == 0 || need > length)
        return 0;
    for (size_t i = 1; i < need; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
        character = character << 6 | (bytes[i] & 0x3f);
    }
    if (character < least || character > 0x10ffff || (character >= 0xd800 && character <= 0xdfff))
        return 0;
    *ret_character = character;
    return need;
}

static bool is_harmless(uint32_t character)
{
    if (character < 0x20 || (character >= 0x7f && character < 0xa0))
        return false;
    bool is_bidi = character == 0x061c || (character >= 0x200e && character <= 0x200f) ||
                   (character >= 0x2028 && character <= 0x202e) || (character >= 0x2066 && character <= 0x2069);
    return !is_bidi && character != 0xfeff;
}

size_t text_escape(char *destination, size_t size, const char *source, size_t length, const char *also)
{
    static const char ellipsis[] = "...";
    assert(size > 0);
    const unsigned char *bytes = (const unsigned char *)source;
    size_t used = 0, cut = 0; /* cut: the last end of a character that leaves room for the ellipsis */
    size_t i = 0;
    while (i < length) {
        char piece[8];
        uint32_t character = 0;
        size_t taken = decode_utf8(bytes + i, length - i, &character);
        size_t piece_length = 0;
        if (taken == 0 || !is_harmless(character)) {
            taken = 1; /* the rest of a bad or unwanted sequence is escaped byte by byte */
            piece_length = (size_t)snprintf(piece, sizeof(piece), "\\x%02x", bytes[i]);
        } else {
            if (taken == 1 && strchr(also, (int)character) != NULL)
                piece[piece_length++] = '\\';
            memcpy(piece + piece_length, source + i, taken);
            piece_length += taken;
        }
        if (used + piece_length >= size)
            break;
        memcpy(destination + used, piece, piece_length);
        used += piece_length;
        i += taken;
        if (used + sizeof(ellipsis) <= size)
            cut = used;
    }
    if (i < length && size >= sizeof(ellipsis)) {
        memcpy(destination + cut, ellipsis, sizeof(ellipsis) - 1);
        used = cut + sizeof(ellipsis) - 1;
    }
    destination[used] = '\0';
    return used;
}

int text_to_u64(const char *text, size_t length, uint64_t max, uint64_t *ret_value)
{
    uint64_t value = 0;
    bool is_too_big = false;
    if (length == 0)
        return -EINVAL;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -EINVAL;
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value))
            is_too_big = true; /* a letter may still follow, and that is the better error */
    }
    if (is_too_big || value > max)
        return -ERANGE;
    *ret_value = value;
    return 0;
}

bool text_is_utf8(const char *text)
{
    size_t length = strlen(text), taken = 1;
    uint32_t character;
    for (size_t i = 0; i < length && taken > 0; i += taken)
        taken = decode_utf8((const unsigned char *)text + i, length - i, &character);
    return taken > 0;
}

bool text_is_printable_ascii(const char *text)
{
    for (; *text != '\0'; text++)
        if (*text < ' ' || *text > '~')
            return false;
    return true;
}

/* Letters to insert, delete, replace or swap with their neighbour to get from one word to the other. */
static size_t edit_distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    enum { longest = 32 };
    size_t rows[3][longest + 1];
    if (a_length > longest || b_length > longest)
        return longest;
    size_t *before = rows[0], *above = rows[1], *row = rows[2];
    for (size_t j = 0; j <= b_length; j++)
        before[j] = above[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t cost = above[j - 1] + (a[i - 1] != b[j - 1]);
            if (cost > above[j] + 1)
                cost = above[j] + 1;
            if (cost > row[j - 1] + 1)
                cost = row[j - 1] + 1;
            bool is_swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (is_swap && cost > before[j - 2] + 1)
                cost = before[j - 2] + 1;
            row[j] = cost;
        }
        size_t *oldest = before;
        before = above, above = row, row = oldest;
    }
    return above[b_length];
}

const char *text_nearest(const char *word, const char *const words[])
{
    const char *best = NULL;
    size_t length = strlen(word);
    size_t least = length / 3 + 2; /* a third of the letters wrong is a typing mistake; more is another word */
    for (size_t i = 0; words[i] != NULL; i++) {
        size_t distance = edit_distance(word, length, words[i], strlen(words[i]));
        bool is_part = length >= 3 && (strstr(words[i], word) != NULL || strstr(word, words[i]) != NULL);
        if (is_part && distance >= least && best == NULL) {
            best = words[i];
        } else if (distance < least && distance < strlen(words[i])) {
            best = words[i];
            least = distance;
        }
    }
    return best;
}
