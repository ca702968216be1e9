// SPDX-License-Identifier: Apache-2.0
/* Allocation with checked sizes.
 *
 * Invariants: (1) no size is computed without an overflow check. (2) a failed growth leaves the old array as it was.
 *
 * Trust: sizes come from our own code; counts may come from a user's file and are capped by the caller's max_count.
 */
#include "base/alloc.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

void *alloc_zero(size_t size_bytes)
{
    assert(size_bytes > 0);
    return calloc(1, size_bytes);
}

char *alloc_string(const char *text)
{
    size_t size_bytes = strlen(text) + 1;
    char *copy = malloc(size_bytes);
    if (copy != NULL)
        memcpy(copy, text, size_bytes);
    return copy;
}

int alloc_grow(void **items, size_t count, size_t *capacity, size_t item_bytes, size_t max_count)
{
    assert(count <= *capacity);
    if (count >= max_count)
        return -E2BIG;
    if (count == *capacity) {
        size_t wanted = *capacity < 4 ? 4 : *capacity * 2;
        if (wanted > max_count)
            wanted = max_count;
        void *bigger = reallocarray(*items, wanted, item_bytes);
        if (bigger == NULL)
            return -ENOMEM;
        *items = bigger;
        *capacity = wanted;
    }
    memset((char *)*items + count * item_bytes, 0, item_bytes);
    return 0;
}
