// SPDX-License-Identifier: Apache-2.0
/* Why an image cannot be loaded. */
#include "boot/reason.h"

#include "mem/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

int reason_set(struct boot_reason *reason, const char *format, ...)
{
    *reason = (struct boot_reason){0};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason->text, sizeof(reason->text), format, arguments);
    va_end(arguments);
    return -EINVAL;
}

int reason_set_memory(struct boot_reason *reason, uint64_t end, uint64_t low_end)
{
    const uint64_t mib = 1 << 20;
    if (end > MEMORY_GAP_START)
        return reason_set(reason, "it would reach up to %#" PRIx64 ", where the machine has no memory for it", end);
    int result = reason_set(reason, "it needs %" PRIu64 " MiB of memory, and the machine has %" PRIu64,
                            (end + mib - 1) / mib, low_end / mib);
    reason->wants_memory = true;
    return result;
}
