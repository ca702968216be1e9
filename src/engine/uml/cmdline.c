// SPDX-License-Identifier: Apache-2.0
/* The arguments of the user-mode Linux program, which are its kernel's command line.
 *
 * They are read twice (arch/um/kernel/um_arch.c). First by the program: it compares the beginning of each argument
 * with the options that it needs before it is a kernel, and some of them never become part of the command line. Then
 * the kernel reads what was left, joined by spaces, as on any other machine. So an argument of ours is one word, and
 * what somebody else wrote is no argument of its own: it stands behind a word of ours in the last one. The program
 * looks at that word and no further, and whatever the text says can only be said to the guest's kernel.
 *
 *     mem= ncpus= initrd= uml_dir=   the machine
 *     seccomp=on                     guest programs run behind a signal handler instead of under ptrace: faster, on
 *                                    several CPUs, and the jail's filter needs no ptrace
 *     root=none console=tty0         said by us because the program adds worse defaults behind everything else where
 *                                    they are missing (root=98:0, and console=tty0 as the last and so preferred one);
 *                                    the text may name better ones
 *     con=null con0=fd:0,fd:1        tty0 is our pipes: what the kernel says before, and beside, its virtio console
 *     lpj=40000000                   the delay loop's speed is not measured, which takes 60 ms of ticks; docs/KERNEL.md
 *     rcupdate.rcu_expedited=1       with several CPUs: a kernel that ends takes its devices away, and at some of them
 *                                    waits for a grace period of RCU, which is some ticks of 10 ms; so its end took
 *                                    70 ms (one CPU: 3.5), and takes 3.4 when the CPUs are asked instead
 *     virtio_uml.device=SOCKET:TYPE:N
 *     panic=-1 …                     a panic ends the program; behind it the text
 *
 * Not said is noreboot: a kernel that restarts executes itself again, which the jail forbids, and by the words with
 * which it complains a reset is told from the power being off (ending.c).
 *
 * Invariants: (1) all arguments joined by spaces fit the kernel's buffer, so that it cuts and overflows nothing. (2)
 * the text is never the beginning of an argument.
 *
 * Trust: the text is the embedding program's or its user's; paths are the jail's.
 */
#include "engine/uml/cmdline.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/limits.h"
#include "base/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A NUL stands behind each argument where the joined line has a space. */
static void add_word(struct buffer *text, const char *word)
{
    buffer_add(text, word, strlen(word) + 1);
}

__attribute__((format(printf, 2, 3))) static void add_format(struct buffer *text, const char *format, ...);

static void add_format(struct buffer *text, const char *format, ...)
{
    char word[LIMIT_UML_CMDLINE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(word, sizeof(word), format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof(word))
        text->error = text->error < 0 ? text->error : -ENOBUFS;
    else
        add_word(text, word);
}

static void add_words(struct buffer *text, const struct uml_cmdline_options *options)
{
    static const char *const constant[] = {
        "seccomp=on", "root=none", "console=tty0", "con=null", "con0=fd:0,fd:1", "lpj=40000000",
    };
    add_word(text, "linux");
    add_format(text, "mem=%" PRIu64 "K", options->memory_bytes >> 10);
    add_format(text, "ncpus=%u", options->vcpus);
    add_format(text, "uml_dir=%s", options->state_folder);
    if (options->initramfs != NULL)
        add_format(text, "initrd=%s", options->initramfs);
    for (size_t i = 0; i < array_length(constant); i++)
        add_word(text, constant[i]);
    if (options->vcpus > 1)
        add_word(text, "rcupdate.rcu_expedited=1");
    for (size_t i = 0; i < options->device_count; i++)
        add_format(text, "virtio_uml.device=%s:%u:%zu", options->devices[i].socket, options->devices[i].type, i);
    add_format(text, "panic=-1%s%s", options->text[0] != '\0' ? " " : "", options->text);
}

static int refuse_text(const char *text, struct vial_error *err)
{
    int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_START, "\"%s\" cannot stand on the kernel command line",
                           error_short(text).text);
    error_field(err, "kernel.cmdline");
    error_value(err, "%s", text);
    error_remedy(err, "use only characters from space to tilde");
    return result;
}

static int refuse_length(size_t devices, struct vial_error *err)
{
    int result = error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_START,
                           "the kernel command line is longer than the %d bytes that user-mode Linux takes, with what "
                           "the machine adds to it for %zu devices",
                           LIMIT_UML_CMDLINE_BYTES - 1, devices);
    error_field(err, "kernel.cmdline");
    error_remedy(err, "append less, or use fewer devices");
    return result;
}

static int split(struct buffer *text, struct uml_cmdline *cmdline)
{
    size_t count = 0, length = text->length;
    for (size_t i = 0; i < length; i++)
        count += text->data[i] == '\0';
    const char **words = alloc_zero((count + 1) * sizeof(words[0]));
    char *bytes = words != NULL ? buffer_steal(text) : NULL;
    if (bytes == NULL) {
        free(words);
        return -ENOMEM;
    }
    const char *next = bytes;
    for (size_t i = 0; i < count; i++, next += strlen(next) + 1)
        words[i] = next;
    *cmdline = (struct uml_cmdline){.text = bytes, .words = words};
    return 0;
}

int uml_cmdline_make(const struct uml_cmdline_options *options, struct uml_cmdline *ret_cmdline, struct vial_error *err)
{
    auto_buffer struct buffer text = BUFFER_INIT(LIMIT_UML_CMDLINE_BYTES - 1);
    if (!text_is_printable_ascii(options->text))
        return refuse_text(options->text, err);
    add_words(&text, options);
    if (text.error == -ENOBUFS)
        return refuse_length(options->device_count, err);
    if (text.error < 0 || split(&text, ret_cmdline) < 0)
        return error_no_memory(err, VIAL_PHASE_START);
    return 0;
}

void uml_cmdline_free(struct uml_cmdline *cmdline)
{
    free(cmdline->words);
    free(cmdline->text);
    *cmdline = (struct uml_cmdline){0};
}
