// SPDX-License-Identifier: Apache-2.0
/* What a user-mode Linux says on its standard output and error.
 *
 * Its standard error has what the program says before it is a kernel, and when it ends. Its standard output is the
 * guest's tty0: the kernel's log until the virtio console is there, and beside it; a guest's programs may write there,
 * too. Both are cut into lines, which go to our log at debug level. Of each pipe the last line that says something is
 * kept, and the two sentences by which an end is recognised.
 *
 * Invariants: (1) a line takes LIMIT_UML_LINE_BYTES at most; the rest of a longer one is passed over. (2) what is kept
 * is terminated text without control characters at its ends. (3) one call reads a bounded amount.
 *
 * Trust: every byte is a hostile guest's. A line can at most make the reason for an end look different; it is escaped
 * before anybody sees it.
 */
#include "engine/uml/output.h"

#include "base/log.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

enum { read_bytes = 4096, pipe_reads = (64 << 10) / read_bytes + 1 };

static const char panic_sign[] = "Kernel panic - not syncing: ", exec_sign[] = "Failed to exec kernel";

/* Without the time that the kernel puts before a message, "[    0.010000] ". */
static const char *skip_time(const char *line)
{
    const char *behind = line[0] == '[' ? strstr(line, "] ") : NULL;
    return behind != NULL ? behind + 2 : line;
}

static void end_line(struct uml_output *output)
{
    size_t length = output->length;
    while (length > 0 && (uint8_t)output->line[length - 1] <= ' ') /* a terminal's lines end in CR LF */
        length--;
    output->line[length] = '\0';
    output->length = 0;
    if (length == 0)
        return;
    log_debug("uml.output", LOG_TEXT("stream", output->name), LOG_BYTES("line", output->line, length));
    memcpy(output->last, output->line, length + 1);
    const char *panic = strstr(output->line, panic_sign);
    if (panic != NULL && output->panic[0] == '\0') {
        panic += sizeof(panic_sign) - 1;
        memcpy(output->panic, panic, strlen(panic) + 1);
    }
    if (strncmp(skip_time(output->line), exec_sign, sizeof(exec_sign) - 1) == 0)
        output->has_failed_exec = true;
}

void uml_output_feed(struct uml_output *output, const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] == '\n')
            end_line(output);
        else if (output->length < sizeof(output->line) - 1)
            output->line[output->length++] = bytes[i];
    }
}

int uml_output_read(struct uml_output *output)
{
    char bytes[read_bytes];
    ssize_t got = read(output->fd, bytes, sizeof(bytes));
    if (got < 0)
        return errno == EAGAIN ? 0 : errno == EINTR ? 1 : -errno;
    uml_output_feed(output, bytes, (size_t)got);
    return got > 0 ? 1 : -EPIPE;
}

void uml_output_finish(struct uml_output *output)
{
    for (unsigned i = 0; i < pipe_reads && uml_output_read(output) > 0; i++)
        ;
    end_line(output);
}
