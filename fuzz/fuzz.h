// SPDX-License-Identifier: Apache-2.0
/* What the fuzz targets share: the entry point, the input as a string, and a check that ends the run. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input up to its first NUL, in memory of exactly that size, so that a read past its end is seen. */
static inline char *fuzz_string(const uint8_t *data, size_t size)
{
    size_t length = size > 0 ? strnlen((const char *)data, size) : 0;
    char *text = malloc(length + 1);
    if (text == NULL)
        abort();
    if (length > 0)
        memcpy(text, data, length);
    text[length] = '\0';
    return text;
}

#define FUZZ_CHECK(condition)                                                                                          \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            abort();                                                                                                   \
    } while (0)

#endif
