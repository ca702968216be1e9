/* SPDX-License-Identifier: Apache-2.0 */
/* What the clients of tests/krun share: a call must succeed, or the client says which did not and ends.
 *
 * A client includes <libkrun.h> and is linked with -lkrun: it is the program of somebody else who has never heard of
 * Vial. Its own failures end with codes that no guest of these tests ends with.
 */
#ifndef KRUN_CLIENT_H
#define KRUN_CLIENT_H

#include <libkrun.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { code_usage = 90, code_refused = 91, code_not_started = 92 };

/* The call's result, which is no error. */
static inline int32_t must(const char *call, int32_t result)
{
    if (result >= 0)
        return result;
    fprintf(stderr, "%s: %d\n", call, result);
    exit(code_refused);
}

static inline uint32_t number(const char *word)
{
    return (uint32_t)strtoul(word, NULL, 0);
}

#define MUST(call, ...) must(#call, call(__VA_ARGS__))

/* What krun_start_enter has returned, which it does only when nothing was started. */
static inline int not_started(int32_t result)
{
    fprintf(stderr, "krun_start_enter: %d\n", result);
    return code_not_started;
}

#endif
