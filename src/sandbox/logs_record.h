// SPDX-License-Identifier: Apache-2.0
/* Records of a sandbox's logs, as the journal writes them: taken apart. */
#ifndef SANDBOX_LOGS_RECORD_H
#define SANDBOX_LOGS_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct log_record {
    int stream; /* 1: output or terminal, 2: error, 0: neither */
    uint64_t time_ns;
    char *owned;       /* to be freed, or NULL */
    const char *bytes; /* in `owned`, in the line, or in `note` */
    size_t length;
    char note[64];
};

/* From a line without its newline; false for what is no record. */
bool log_record_from_json(const char *line, size_t length, struct log_record *ret_record);
bool log_record_from_line(const char *line, size_t length, struct log_record *ret_record);

#endif
