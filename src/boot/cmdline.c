// SPDX-License-Identifier: Apache-2.0
/* The kernel command line, from typed parts.
 *
 * It has one owner, which knows its length and its quoting; whoever has something to say adds a part of a known kind.
 * The kernel splits at spaces outside double quotes (lib/cmdline.c, next_arg) and knows no escape inside them, so a
 * value with a quote cannot be said at all and is refused instead of being changed.
 *
 * Invariants: (1) the text holds only characters from space to tilde. (2) it has room for its NUL within
 * LIMIT_CMDLINE_BYTES. (3) a part is added whole or not at all.
 *
 * Trust: words and keys are ours; values and texts may be anybody's.
 */
#include "boot/cmdline.h"

#include "base/error.h"
#include "base/text.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *separator(const struct cmdline *line)
{
    return line->text.length > 0 ? " " : "";
}

static void refuse_part(struct cmdline *line, const char *part)
{
    if (line->wrong == NULL)
        line->wrong = part;
}

void cmdline_add_word(struct cmdline *line, const char *word)
{
    assert(text_is_printable_ascii(word) && strpbrk(word, " \"") == NULL);
    buffer_format(&line->text, "%s%s", separator(line), word);
}

void cmdline_add_value(struct cmdline *line, const char *key, const char *value)
{
    if (!text_is_printable_ascii(value) || strchr(value, '"') != NULL) {
        refuse_part(line, value);
        return;
    }
    const char *quote = strchr(value, ' ') != NULL ? "\"" : "";
    buffer_format(&line->text, "%s%s=%s%s%s", separator(line), key, quote, value, quote);
}

void cmdline_add_device(struct cmdline *line, uint64_t address, uint32_t size_bytes, unsigned interrupt)
{
    assert(size_bytes % 1024 == 0);
    buffer_format(&line->text, "%svirtio_mmio.device=%uK@0x%" PRIx64 ":%u", separator(line), size_bytes / 1024, address,
                  interrupt);
}

void cmdline_add_text(struct cmdline *line, const char *text)
{
    if (!text_is_printable_ascii(text))
        refuse_part(line, text);
    else if (text[0] != '\0')
        buffer_format(&line->text, "%s%s", separator(line), text);
}

int cmdline_finish(struct cmdline *line, char **ret_text, struct vial_error *err)
{
    int result = 0;
    if (line->wrong != NULL) {
        result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_VALIDATE,
                           "\"%s\" cannot stand on the kernel command line", error_short(line->wrong).text);
        error_field(err, "kernel.cmdline");
        error_value(err, "%s", line->wrong);
        error_remedy(err, "use only characters from space to tilde, and no double quotes");
    } else if (line->text.error == -ENOBUFS) {
        result = error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_VALIDATE,
                           "the kernel command line is longer than %d bytes with what the machine adds to it",
                           LIMIT_CMDLINE_BYTES - 1);
        error_field(err, "kernel.cmdline");
        error_remedy(err, "append less, use fewer devices, or tell of them by ACPI (machine.acpi)");
    } else {
        char *text = buffer_steal(&line->text);
        if (text != NULL)
            *ret_text = text;
        else
            result = error_no_memory(err, VIAL_PHASE_VALIDATE);
    }
    buffer_free(&line->text);
    return result;
}
