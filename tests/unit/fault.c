// SPDX-License-Identifier: Apache-2.0
/* Failing allocations on purpose.
 *
 * The linker sends our own code's calls of malloc and its kin here (--wrap); those that libraries make themselves are
 * not touched. Allocations are counted while a fault is armed, and the chosen one returns NULL. Only the thread that
 * armed it is concerned.
 *
 * Invariants: (1) with no fault armed this does nothing. (2) exactly one allocation fails per round.
 */
#include "test.h"

#include <errno.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *pointer, size_t size);
void *__real_reallocarray(void *pointer, size_t count, size_t size);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *pointer, size_t size);
void *__wrap_reallocarray(void *pointer, size_t count, size_t size);

static _Thread_local long countdown = -1; /* allocations until the one that fails; negative: not armed */
static _Thread_local bool was_hit;

static bool must_fail(void)
{
    if (countdown < 0 || countdown-- > 0)
        return false;
    was_hit = true;
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t size)
{
    return must_fail() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return must_fail() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *pointer, size_t size)
{
    return must_fail() ? NULL : __real_realloc(pointer, size);
}

void *__wrap_reallocarray(void *pointer, size_t count, size_t size)
{
    return must_fail() ? NULL : __real_reallocarray(pointer, count, size);
}

bool fault_was_hit(void)
{
    return was_hit;
}

bool fault_next(struct fault *fault)
{
    bool got_through = fault->at >= 0 && !was_hit;
    countdown = -1;
    if (got_through)
        return false;
    fault->at++;
    was_hit = false;
    countdown = fault->at;
    return true;
}
