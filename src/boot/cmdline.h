// SPDX-License-Identifier: Apache-2.0
/* The kernel command line, from typed parts.
 *
 *     struct cmdline line = CMDLINE_INIT;
 *     cmdline_add_word(&line, "quiet");
 *     cmdline_add_value(&line, "init", "/init.krun");
 *     cmdline_add_device(&line, 0xd0000000, 4096, 5);
 *     cmdline_add_text(&line, "what the user appends");
 *     result = cmdline_finish(&line, &text, &err);
 *
 * Errors stick, as in base/buffer.h: one check at the end is enough.
 */
#ifndef BOOT_CMDLINE_H
#define BOOT_CMDLINE_H

#include "base/buffer.h"
#include "base/limits.h"
#include "vial/base.h"

struct cmdline {
    struct buffer text;
    const char *wrong; /* what the first refused part was, or NULL; borrowed from the caller */
};

#define CMDLINE_INIT                                                                                                   \
    {                                                                                                                  \
        .text = BUFFER_INIT(LIMIT_CMDLINE_BYTES - 1)                                                                   \
    }

/* One word of ours: no spaces, no quotes. */
void cmdline_add_word(struct cmdline *line, const char *word);

/* key=value; a value with spaces is quoted, one with quotes or characters outside space to tilde is refused. */
void cmdline_add_value(struct cmdline *line, const char *key, const char *value);

/* Announces a virtio-mmio device (Documentation/admin-guide/kernel-parameters, virtio_mmio.device). */
void cmdline_add_device(struct cmdline *line, uint64_t address, uint32_t size_bytes, unsigned interrupt);

/* Text that somebody else wrote, as it stands; vial_vm_config_validate has checked its quotes. */
void cmdline_add_text(struct cmdline *line, const char *text);

/* The whole in new memory: 0, or an error that says what was refused or how much too long it is. Frees the parts. */
int cmdline_finish(struct cmdline *line, char **ret_text, struct vial_error *err);

#endif
