// SPDX-License-Identifier: Apache-2.0
/* A set of cluster numbers: those that hold an image's own structures, which no data may ever be written over.
 *
 *     number n  ->  slot hash(n), or the next one that is empty or holds n + 1
 *
 * The hash is the top of n times a random odd key of the set.
 *
 * Invariants: (1) at least half of the slots are empty, so a search ends soon. (2) between a number's home and its slot
 * none is empty: what leaves is replaced by one from behind it that may lie there.
 *
 * Trust: numbers come from tables in the image. Whoever made it could have all of them meet in one slot, and a search
 * take as long as there are numbers, if it were known where a number belongs; the key is not.
 */
#include "disk/qcow2_state.h"

#include "base/alloc.h"
#include "base/limits.h"

#include <sys/random.h>

static size_t home_of(const struct qcow2_set *set, uint64_t number)
{
    return (size_t)((number * set->key) >> (64 - __builtin_ctzll(set->capacity)));
}

static size_t place_of(const struct qcow2_set *set, uint64_t number)
{
    size_t mask = set->capacity - 1, at = home_of(set, number);
    while (set->entries[at] != 0 && set->entries[at] != number + 1)
        at = (at + 1) & mask;
    return at;
}

/* Where the host has no randomness yet, the address is what somebody else would have to guess. */
static uint64_t new_key(const uint64_t *entries)
{
    uint64_t key = 0;
    if (getrandom(&key, sizeof(key), GRND_NONBLOCK) != (ssize_t)sizeof(key))
        key = (uint64_t)(uintptr_t)entries * UINT64_C(0x9e3779b97f4a7c15);
    return key | 1;
}

static int grow(struct qcow2_set *set)
{
    struct qcow2_set bigger = {.capacity = set->capacity == 0 ? 64 : set->capacity * 2, .count = set->count};
    bigger.entries = alloc_zero(bigger.capacity * sizeof(*bigger.entries));
    if (bigger.entries == NULL)
        return -ENOMEM;
    bigger.key = new_key(bigger.entries);
    for (size_t i = 0; i < set->capacity; i++)
        if (set->entries[i] != 0)
            bigger.entries[place_of(&bigger, set->entries[i] - 1)] = set->entries[i];
    free(set->entries);
    *set = bigger;
    return 0;
}

int qcow2_set_add(struct qcow2_set *set, uint64_t number)
{
    if (qcow2_set_contains(set, number))
        return 0;
    if (set->count >= LIMIT_QCOW2_METADATA_CLUSTERS)
        return -E2BIG;
    int result = set->count * 2 >= set->capacity ? grow(set) : 0;
    if (result < 0)
        return result;
    set->entries[place_of(set, number)] = number + 1;
    set->count++;
    return 0;
}

void qcow2_set_remove(struct qcow2_set *set, uint64_t number)
{
    if (!qcow2_set_contains(set, number))
        return;
    size_t mask = set->capacity - 1, hole = place_of(set, number);
    for (size_t at = (hole + 1) & mask; set->entries[at] != 0; at = (at + 1) & mask) {
        size_t home = home_of(set, set->entries[at] - 1);
        if (((at - home) & mask) < ((at - hole) & mask))
            continue; /* its home lies behind the hole */
        set->entries[hole] = set->entries[at];
        hole = at;
    }
    set->entries[hole] = 0;
    set->count--;
}

bool qcow2_set_contains(const struct qcow2_set *set, uint64_t number)
{
    return set->capacity != 0 && set->entries[place_of(set, number)] != 0;
}

void qcow2_set_release(struct qcow2_set *set)
{
    free(set->entries);
    *set = (struct qcow2_set){0};
}
