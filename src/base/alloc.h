// SPDX-License-Identifier: Apache-2.0
/* Allocation, and the attributes that show who owns what.
 *
 * Every allocation of the library goes through here, so that sums are checked in one place and tests can make the n-th
 * one fail. A pointer or descriptor declared auto_* is released when its scope ends; steal_ptr moves it out.
 */
#ifndef BASE_ALLOC_H
#define BASE_ALLOC_H

#include <stddef.h>
#include <stdlib.h>

/* Zeroed memory, or NULL. A size of 0 is a mistake of the caller. */
void *alloc_zero(size_t size_bytes) __attribute__((malloc, warn_unused_result));

/* A copy of the string, or NULL. */
char *alloc_string(const char *text) __attribute__((malloc, warn_unused_result));

/* Makes room for one more item behind `count` items of `item_bytes` each and zeroes it.
 * 0, -ENOMEM, or -E2BIG when there would be more than `max_count` items. On failure nothing has changed. */
int alloc_grow(void **items, size_t count, size_t *capacity, size_t item_bytes, size_t max_count);

static inline void auto_free_cleanup(void *pointer)
{
    free(*(void **)pointer);
}

#define auto_free __attribute__((cleanup(auto_free_cleanup)))

/* Takes the pointer out of its variable, which becomes NULL. */
#define steal_ptr(variable)                                                                                            \
    __extension__({                                                                                                    \
        __typeof__(variable) *steal_from = &(variable);                                                                \
        __typeof__(variable) steal_value = *steal_from;                                                                \
        *steal_from = NULL;                                                                                            \
        steal_value;                                                                                                   \
    })

#define array_length(array) (sizeof(array) / sizeof((array)[0]))

#endif
