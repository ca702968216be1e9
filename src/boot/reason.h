// SPDX-License-Identifier: Apache-2.0
/* Why an image cannot be loaded: one phrase about it, such as "it is truncated". */
#ifndef BOOT_REASON_H
#define BOOT_REASON_H

#include <stdbool.h>
#include <stdint.h>

struct boot_reason {
    char text[256];
    bool wants_memory; /* more memory for the machine would help */
};

/* Sets the phrase and returns -EINVAL. */
int reason_set(struct boot_reason *reason, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The phrase for something that would take up memory up to `end` on a machine whose memory ends at `low_end` below the
 * gap. Returns -EINVAL. */
int reason_set_memory(struct boot_reason *reason, uint64_t end, uint64_t low_end);

#endif
