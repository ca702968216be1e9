/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of libkrun's interface share: contexts, and texts that are none. */
#ifndef TEST_KRUN_H
#define TEST_KRUN_H

#include "test.h"

#include <errno.h>
#include <libkrun.h>

/* No context ever has these numbers in a test. */
static const uint32_t unknown_ids[] = {0x7fffffff, 0x80000000, 0xffffffff};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A new context; without one there is nothing to test. */
static inline uint32_t new_context(void)
{
    int32_t id = krun_create_ctx();
    if (id < 0)
        abort();
    return (uint32_t)id;
}

/* None; a byte that nothing starts with, an overlong form, half a character, a surrogate, and beyond the last one. */
static const char *const bad_texts[] = {NULL, "\xff", "/a\xc0\xaf", "b\xe2\x82", "\xed\xa0\x80", "\xf4\x90\x80\x80"};

#define CHECK_REFUSES_FROM(first, call)                                                                                \
    do {                                                                                                               \
        for (size_t text_index = (first); text_index < COUNT(bad_texts); text_index++) {                               \
            const char *text = bad_texts[text_index];                                                                  \
            CHECK_INT(call, -EINVAL);                                                                                  \
        }                                                                                                              \
    } while (0)

/* The call, with `text` for an argument, refuses NULL and what is not UTF-8. */
#define CHECK_REFUSES_TEXT(call) CHECK_REFUSES_FROM(0, call)

/* The same where NULL means something. */
#define CHECK_NOT_UTF8(call) CHECK_REFUSES_FROM(1, call)

#endif
