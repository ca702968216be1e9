// SPDX-License-Identifier: Apache-2.0
/* The logs of a sandbox: HOME/sandboxes/ID/log/NAME, with NAME.1 and NAME.2 behind it, the older ones.
 *
 *     exec.log      what the sandbox's own program has said: one JSON object a line,
 *                       {"t": NS, "s": "out" | "err" | "tty", "text": "…"}
 *                   with "base64" in place of "text" where the bytes are not UTF-8, or hold a NUL. A record is what
 *                   came at a time, with its newlines, not a line. Texts put together are what the program has said.
 *     console.log   a line of the guest's console each, behind the time that it came:
 *                       2026-01-02T03:04:05.123456789Z TEXT
 *                   TEXT is as the guest wrote it, control characters too: who shows it on a terminal escapes it.
 *     runtime.log   the same form, and TEXT is LEVEL EVENT DETAILS of our own log; escaped already.
 *
 * Times are nanoseconds since 1970. Where records could not be written one tells so, when there is room again:
 * {"t": NS, "s": "lost", "bytes": N}, and in the other form the text "vial: N bytes were lost here". A record may be
 * cut off (a full disk, a crash): readers pass over what is no record.
 */
#ifndef SANDBOX_JOURNAL_H
#define SANDBOX_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { JOURNAL_MOST_BYTES = 10 << 20, JOURNAL_FILES = 3 };

enum journal_form {
    JOURNAL_JSON,  /* records of a program's streams */
    JOURNAL_LINES, /* lines, each behind its time */
};

struct journal;

/* In the folder (borrowed, as is the name), behind what is there. 0 or -errno. */
int journal_new(int folder, const char *name, enum journal_form form, uint64_t most_bytes,
                struct journal **ret_journal);
struct journal *journal_free(struct journal *journal); /* with the line that has no end yet */

/* What a program has said, of a JOURNAL_JSON. `stream` is "out", "err" or "tty". */
void journal_add_output(struct journal *journal, uint64_t time_ns, const char *stream, const char *bytes,
                        size_t length);

/* Bytes of a console, of JOURNAL_LINES: lines are written when they are whole, or LIMIT_JOURNAL_LINE_BYTES long. */
void journal_add_console(struct journal *journal, uint64_t time_ns, const char *bytes, size_t length);

/* One line without its newline, on any thread; at most LIMIT_JOURNAL_LINE_BYTES of it. It never rotates: the journal
 * may grow to twice its size until journal_tend is called, and what is beyond that is lost. */
void journal_add_line(struct journal *journal, uint64_t time_ns, const char *text);

/* Rotates if it is time to; journal_add_output and journal_add_console do it themselves. */
void journal_tend(struct journal *journal);

/* All bytes that could not be written. */
uint64_t journal_lost_bytes(struct journal *journal);

#endif
