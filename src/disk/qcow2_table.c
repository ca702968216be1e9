// SPDX-License-Identifier: Apache-2.0
/* L2 tables and refcount blocks in memory: a cache of slices.
 *
 *     a table in the file  |--------|--------|--------|   slices: a cluster, or 64 KiB of a larger one
 *                              |
 *                        slot of the cache: found by its offset, reused in turn when not asked for lately (a clock)
 *
 * Changed slices are not written one by one: they collect here until qcow2_commit.c writes all of them, in an order
 * that a crash cannot harm. So a changed slice never makes room for another one, and whoever changes some sees to it
 * beforehand that at most half of the slots are changed (qcow2_cache_is_full, qcow2_begin_step).
 *
 * Invariants: (1) a slice is in one slot at most. (2) a changed or pinned slot is never reused. (3) a slice that was
 * read as one kind of table is never used as the other.
 *
 * Trust: what is in a slice is as hostile as the image; this file does not look at it.
 */
#include "disk/qcow2_state.h"

#include "base/alloc.h"
#include "base/limits.h"

enum { most_slice_bytes = 64 << 10, most_slots = 4096 };

int qcow2_cache_init(struct qcow2 *q)
{
    struct qcow2_cache *cache = &q->cache;
    cache->slice_bytes = q->cluster_bytes < most_slice_bytes ? (uint32_t)q->cluster_bytes : most_slice_bytes;
    cache->slot_count = LIMIT_QCOW2_CACHE_BYTES / cache->slice_bytes;
    if (cache->slot_count > most_slots)
        cache->slot_count = most_slots;
    cache->chain_mask = cache->slot_count - 1;
    assert((cache->slot_count & cache->chain_mask) == 0);
    cache->slots = alloc_zero(cache->slot_count * sizeof(*cache->slots));
    cache->chains = alloc_zero(cache->slot_count * sizeof(*cache->chains));
    return cache->slots == NULL || cache->chains == NULL ? -ENOMEM : 0;
}

void qcow2_cache_release(struct qcow2 *q)
{
    for (uint32_t i = 0; q->cache.slots != NULL && i < q->cache.slot_count; i++)
        free(q->cache.slots[i].memory);
    free(q->cache.slots);
    free(q->cache.chains);
    q->cache = (struct qcow2_cache){0};
}

static uint32_t *chain_of(struct qcow2_cache *cache, uint64_t offset)
{
    uint64_t number = offset / cache->slice_bytes;
    return &cache->chains[((number * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & cache->chain_mask];
}

static struct qcow2_slot *find_slot(struct qcow2_cache *cache, uint64_t offset)
{
    for (uint32_t at = *chain_of(cache, offset); at != 0; at = cache->slots[at - 1].next)
        if (cache->slots[at - 1].offset == offset)
            return &cache->slots[at - 1];
    return NULL;
}

static void take_out(struct qcow2_cache *cache, struct qcow2_slot *slot)
{
    uint32_t *at = chain_of(cache, slot->offset);
    while (&cache->slots[*at - 1] != slot)
        at = &cache->slots[*at - 1].next;
    *at = slot->next;
    if (slot->is_dirty)
        cache->dirty[slot->kind]--;
    slot->offset = 0;
    slot->is_dirty = false;
}

static void put_in(struct qcow2_cache *cache, struct qcow2_slot *slot, uint64_t offset, enum qcow2_table_kind kind)
{
    uint32_t *chain = chain_of(cache, offset);
    slot->offset = offset;
    slot->kind = (uint8_t)kind;
    slot->next = *chain;
    *chain = (uint32_t)(slot - cache->slots) + 1;
}

static int fill_memory(struct qcow2 *q, struct qcow2_slot *slot)
{
    uint64_t alignment = q->file.alignment_bytes;
    if (slot->memory != NULL)
        return 0;
    slot->memory = alloc_zero((size_t)(q->cache.slice_bytes + alignment - 1));
    if (slot->memory == NULL)
        return -ENOMEM;
    slot->bytes = (uint8_t *)slot->memory + (-(uintptr_t)slot->memory & (alignment - 1));
    return 0;
}

/* A slot that is empty now, or NULL when every one is changed or pinned. */
static struct qcow2_slot *make_room(struct qcow2_cache *cache)
{
    for (uint32_t tries = 0; tries < 2 * cache->slot_count; tries++) {
        struct qcow2_slot *slot = &cache->slots[cache->hand];
        cache->hand = (cache->hand + 1) % cache->slot_count;
        if (slot->is_dirty || slot->is_pinned)
            continue;
        if (slot->offset != 0 && slot->was_used) {
            slot->was_used = false;
            continue;
        }
        if (slot->offset != 0)
            take_out(cache, slot);
        return slot;
    }
    return NULL;
}

int qcow2_slice(struct qcow2 *q, enum qcow2_table_kind kind, uint64_t offset, bool may_wait,
                struct qcow2_slot **ret_slot)
{
    struct qcow2_cache *cache = &q->cache;
    offset &= ~(uint64_t)(cache->slice_bytes - 1);
    struct qcow2_slot *slot = find_slot(cache, offset);
    if (slot != NULL && slot->kind != kind)
        return qcow2_damage(q, "a cluster is a table of mappings and of refcounts", offset);
    if (slot == NULL) {
        if (!may_wait)
            return -EAGAIN;
        slot = make_room(cache);
        if (slot == NULL)
            return -ENOMEM; /* qcow2_begin_step keeps this from happening */
        int result = fill_memory(q, slot);
        if (result == 0)
            result = qcow2_read_bytes(q, slot->bytes, cache->slice_bytes, offset);
        if (result < 0)
            return result;
        put_in(cache, slot, offset, kind);
    }
    slot->was_used = true;
    *ret_slot = slot;
    return 0;
}

void qcow2_slice_changed(struct qcow2 *q, struct qcow2_slot *slot)
{
    if (!slot->is_dirty)
        q->cache.dirty[slot->kind]++;
    slot->is_dirty = true;
}

bool qcow2_cache_is_full(const struct qcow2 *q)
{
    const struct qcow2_cache *cache = &q->cache;
    return cache->dirty[QCOW2_L2] + cache->dirty[QCOW2_REFCOUNTS] >= cache->slot_count / 2;
}

void qcow2_cache_forget(struct qcow2 *q, uint64_t offset)
{
    for (uint64_t at = 0; at < q->cluster_bytes; at += q->cache.slice_bytes) {
        struct qcow2_slot *slot = find_slot(&q->cache, offset + at);
        if (slot != NULL)
            take_out(&q->cache, slot);
    }
}

/* The next changed slot from `from` on, or the number of slots. Nobody but us, under change, makes changes. */
static uint32_t next_changed(struct qcow2 *q, enum qcow2_table_kind kind, uint32_t from)
{
    pthread_mutex_lock(&q->lock);
    while (from < q->cache.slot_count && !(q->cache.slots[from].is_dirty && q->cache.slots[from].kind == kind))
        from++;
    pthread_mutex_unlock(&q->lock);
    return from;
}

int qcow2_cache_write(struct qcow2 *q, enum qcow2_table_kind kind)
{
    uint32_t count = q->cache.dirty[kind] > 0 ? q->cache.slot_count : 0;
    for (uint32_t i = next_changed(q, kind, 0); i < count; i = next_changed(q, kind, i + 1)) {
        struct qcow2_slot *slot = &q->cache.slots[i];
        int result = qcow2_write_bytes(q, slot->bytes, q->cache.slice_bytes, slot->offset);
        if (result < 0)
            return result;
        pthread_mutex_lock(&q->lock);
        slot->is_dirty = false;
        q->cache.dirty[kind]--;
        pthread_mutex_unlock(&q->lock);
    }
    return 0;
}
