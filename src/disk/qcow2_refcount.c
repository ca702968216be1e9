// SPDX-License-Identifier: Apache-2.0
/* Refcounts of a qcow2 image, and the clusters that are free.
 *
 *     refcount table   [0]      [1]      [2]      …          one entry a block; 0: nothing there is used
 *                       |        |
 *     blocks            ▼        ▼                           one number a cluster, 1 to 64 bits wide
 *     clusters     |B0......|B1......|........|              a new block is the first cluster that it counts
 *
 * A block that is missing is made where it is needed: in the first cluster of its own range, which is free because
 * nothing there is counted. So making one never needs another cluster. (A run that is longer than a block counts gets
 * all its blocks in front of it.) When the table itself is too short, a longer one
 * is written behind everything that the old one can count, together with the blocks that count it, and the header is
 * pointed there in one write.
 *
 * Lowering waits for its commit (qcow2_commit.c); raising is at once, and written before what needs it.
 *
 * Invariants: (1) a cluster that is handed out had a refcount of 0 and holds no structure of the image. (2) nothing
 * before free_hint is free. (3) a refcount never goes below 0 or over its width, and that of a structure not
 * to 0. (4) a block is in the file, whole, before the table names it.
 *
 * Trust: table and blocks come from the file: entries that are not clusters of it are damage, as is a free cluster that
 * holds a table.
 */
#include "disk/qcow2_state.h"

#include "base/alloc.h"
#include "base/limits.h"
#include "base/log.h"

/* ---- one number ---- */

uint64_t qcow2_refcount_get(const struct qcow2 *q, const uint8_t *block, uint64_t index)
{
    unsigned order = q->refcount_order, bits = 1u << order;
    if (order < 3) {
        uint64_t bit = index << order;
        return (uint64_t)(block[bit / 8] >> (bit % 8)) & ((1u << bits) - 1);
    }
    const uint8_t *at = block + (index << (order - 3));
    if (order == 3)
        return *at;
    if (order == 4)
        return qcow2_get16(at);
    return order == 5 ? qcow2_get32(at) : qcow2_get64(at);
}

void qcow2_refcount_put(const struct qcow2 *q, uint8_t *block, uint64_t index, uint64_t value)
{
    unsigned order = q->refcount_order, bits = 1u << order;
    if (order < 3) {
        uint64_t bit = index << order;
        unsigned mask = ((1u << bits) - 1) << (bit % 8);
        block[bit / 8] = (uint8_t)((block[bit / 8] & ~mask) | (unsigned)value << (bit % 8));
        return;
    }
    uint8_t *at = block + (index << (order - 3));
    if (order == 3)
        *at = (uint8_t)value;
    else if (order == 4)
        qcow2_put16(at, (uint32_t)value);
    else if (order == 5)
        qcow2_put32(at, (uint32_t)value);
    else
        qcow2_put64(at, value);
}

/* ---- blocks ---- */

static uint64_t entries_of_slice(const struct qcow2 *q)
{
    return ((uint64_t)q->cache.slice_bytes << 3) >> q->refcount_order;
}

/* The slice with a cluster's refcount, and its place there; under lock. -ENOENT without a block, -EOVERFLOW past the
 * table. */
static int find_slice(struct qcow2 *q, uint64_t cluster, bool may_wait, struct qcow2_slot **ret_slot,
                      uint64_t *ret_index)
{
    uint64_t block = cluster >> q->block_bits, index = cluster & ((UINT64_C(1) << q->block_bits) - 1);
    if (block >= q->refcount_table_entries)
        return -EOVERFLOW;
    uint64_t offset = q->refcount_table[block];
    if (offset == 0)
        return -ENOENT;
    if (!qcow2_is_place(q, offset))
        return qcow2_damage(q, "a refcount block is nowhere in the file", offset);
    uint64_t slice = index / entries_of_slice(q);
    int result = qcow2_slice(q, QCOW2_REFCOUNTS, offset + slice * q->cache.slice_bytes, may_wait, ret_slot);
    *ret_index = index % entries_of_slice(q);
    return result;
}

int qcow2_refcount(struct qcow2 *q, uint64_t cluster, bool may_wait, uint64_t *ret_count)
{
    struct qcow2_slot *slot = NULL;
    uint64_t index = 0;
    int result = find_slice(q, cluster, may_wait, &slot, &index);
    if (result == -ENOENT || result == -EOVERFLOW)
        *ret_count = 0;
    else if (result < 0)
        return result;
    else
        *ret_count = qcow2_refcount_get(q, slot->bytes, index);
    return 0;
}

static int change(struct qcow2 *q, uint64_t cluster, bool raises, uint64_t amount, uint64_t *ret_left)
{
    struct qcow2_slot *slot = NULL;
    uint64_t index = 0;
    pthread_mutex_lock(&q->lock);
    int result = find_slice(q, cluster, true, &slot, &index);
    uint64_t count = result == 0 ? qcow2_refcount_get(q, slot->bytes, index) : 0;
    if (result == -ENOENT || result == -EOVERFLOW || (result == 0 && count == 0))
        result = qcow2_damage(q, "a cluster in use counts as free", cluster << q->cluster_bits);
    else if (result == 0 && raises && amount > q->most_refcount - count)
        result = -EOVERFLOW;
    else if (result == 0 && !raises && count == amount && qcow2_set_contains(&q->metadata, cluster))
        result = qcow2_damage(q, "a cluster that holds a table is given back", cluster << q->cluster_bits);
    if (result == 0) {
        *ret_left = raises ? count + amount : count - amount;
        qcow2_refcount_put(q, slot->bytes, index, *ret_left);
        qcow2_slice_changed(q, slot);
        if (*ret_left == 0)
            qcow2_cache_forget(q, cluster << q->cluster_bits);
        if (*ret_left == 0 && cluster == q->compressed_at >> q->cluster_bits)
            q->compressed_at = 0;
        if (*ret_left == 0 && cluster < q->free_hint)
            q->free_hint = cluster;
    }
    pthread_mutex_unlock(&q->lock);
    return result;
}

int qcow2_refcount_raise(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    uint64_t left = 0;
    return change(q, cluster, true, count, &left);
}

int qcow2_refcount_lower(struct qcow2 *q, uint64_t cluster, uint64_t *ret_left)
{
    return change(q, cluster, false, 1, ret_left);
}

static void note_changed(struct qcow2_range *range, uint64_t entry)
{
    if (range->begin >= range->end)
        *range = (struct qcow2_range){entry, entry + 1};
    range->begin = entry < range->begin ? entry : range->begin;
    range->end = entry >= range->end ? entry + 1 : range->end;
}

/* Writes blocks, one behind another from `first` on, in which their first `used` entries count 1. */
static int write_blocks(struct qcow2 *q, uint64_t first, uint64_t count, uint64_t used)
{
    uint64_t entries = UINT64_C(1) << q->block_bits;
    auto_free uint8_t *bytes = alloc_zero((size_t)q->cluster_bytes);
    if (bytes == NULL)
        return -ENOMEM;
    int result = 0;
    for (uint64_t i = 0; i < count && result == 0; i++) {
        memset(bytes, 0, (size_t)q->cluster_bytes);
        for (uint64_t k = 0; k < entries && i * entries + k < used; k++)
            qcow2_refcount_put(q, bytes, k, 1);
        result = qcow2_write_bytes(q, bytes, q->cluster_bytes, (first + i) << q->cluster_bits);
    }
    return result;
}

/* The table has the block, which is written, from now on. */
static int name_block(struct qcow2 *q, uint64_t block, uint64_t cluster)
{
    int result = qcow2_claim_tables(q, cluster, 1);
    if (result < 0)
        return result;
    pthread_mutex_lock(&q->lock);
    q->refcount_table[block] = cluster << q->cluster_bits;
    pthread_mutex_unlock(&q->lock);
    note_changed(&q->refcount_table_dirty, block);
    return 0;
}

/* The block for a range of which none is there. */
static int make_block(struct qcow2 *q, uint64_t block)
{
    uint64_t cluster = block << q->block_bits;
    if (qcow2_set_contains(&q->metadata, cluster))
        return qcow2_damage(q, "a cluster that holds a table counts as free", cluster << q->cluster_bits);
    int result = write_blocks(q, cluster, 1, 1);
    return result < 0 ? result : name_block(q, block, cluster);
}

/* ---- a longer table ---- */

/* How it will be: so many blocks behind all that can be counted now, and the table behind them. */
struct growth {
    uint64_t first, blocks, table_clusters, entries;
};

static int plan_growth(const struct qcow2 *q, struct growth *ret_growth)
{
    uint64_t per_cluster = q->cluster_bytes / 8, old = q->refcount_table_entries, block = UINT64_C(1) << q->block_bits;
    struct growth growth = {.first = old << q->block_bits, .blocks = 1};
    growth.table_clusters = (old + old / 2 + per_cluster) / per_cluster;
    for (;;) {
        growth.entries = growth.table_clusters * per_cluster;
        while (growth.blocks * block < growth.blocks + growth.table_clusters)
            growth.blocks++;
        if (growth.entries >= old + growth.blocks)
            break;
        growth.table_clusters++;
    }
    if (growth.entries > LIMIT_QCOW2_REFCOUNT_TABLE_BYTES / 8 ||
        (growth.first + growth.blocks + growth.table_clusters) >= QCOW2_MOST_OFFSET >> q->cluster_bits)
        return -EFBIG;
    *ret_growth = growth;
    return 0;
}

static int write_growth(struct qcow2 *q, const struct growth *growth, const uint64_t *table)
{
    uint64_t place = growth->first + growth->blocks;
    int result = write_blocks(q, growth->first, growth->blocks, growth->blocks + growth->table_clusters);
    if (result == 0)
        result = qcow2_write_table(q, table, 0, growth->entries, place << q->cluster_bits);
    return result < 0 ? result : qcow2_sync(q);
}

/* Points memory and header to the new table, which it takes, and releases the old one. */
static int switch_table(struct qcow2 *q, const struct growth *growth, uint64_t *table)
{
    uint64_t old_offset = q->refcount_table_offset, old_entries = q->refcount_table_entries;
    int result = qcow2_claim_tables(q, growth->first, growth->blocks + growth->table_clusters);
    if (result < 0) {
        free(table);
        return result;
    }
    pthread_mutex_lock(&q->lock);
    free(q->refcount_table);
    q->refcount_table = table;
    q->refcount_table_entries = growth->entries;
    q->refcount_table_offset = (growth->first + growth->blocks) << q->cluster_bits;
    pthread_mutex_unlock(&q->lock);
    q->refcount_table_dirty = (struct qcow2_range){0};
    result = qcow2_settle(q, qcow2_put_refcount_table(q));
    if (result == 0)
        qcow2_release_tables(q, old_offset >> q->cluster_bits, qcow2_clusters(q, old_entries * 8));
    return result;
}

static int grow_table(struct qcow2 *q)
{
    struct growth growth;
    int result = plan_growth(q, &growth);
    if (result == 0)
        result = qcow2_commit_all(q); /* the new table must name only what is in the file */
    if (result == 0)
        result = qcow2_sync(q);
    if (result < 0)
        return result;
    auto_free uint64_t *table = alloc_zero(growth.entries * sizeof(*table));
    if (table == NULL)
        return -ENOMEM;
    memcpy(table, q->refcount_table, q->refcount_table_entries * sizeof(*table));
    for (uint64_t i = 0; i < growth.blocks; i++)
        table[q->refcount_table_entries + i] = (growth.first + i) << q->cluster_bits;
    for (uint64_t i = 0; i < growth.blocks + growth.table_clusters; i++)
        if (qcow2_set_contains(&q->metadata, growth.first + i))
            return qcow2_damage(q, "a table lies where no refcount can be", (growth.first + i) << q->cluster_bits);
    result = write_growth(q, &growth, table);
    return result < 0 ? result : switch_table(q, &growth, steal_ptr(table));
}

/* ---- free clusters ---- */

/* Looks from *cluster on for one that is free (or used), at most to the end of its slice: *cluster is where the search
 * ended, *ret_found whether it is one. */
static int search_slice(struct qcow2 *q, bool wants_free, uint64_t *cluster, uint64_t end, bool *ret_found)
{
    struct qcow2_slot *slot = NULL;
    uint64_t index = 0;
    pthread_mutex_lock(&q->lock);
    int result = find_slice(q, *cluster, true, &slot, &index);
    bool found = false;
    for (; result == 0 && *cluster < end && index < entries_of_slice(q); index++, (*cluster)++) {
        found = (qcow2_refcount_get(q, slot->bytes, index) == 0) == wants_free;
        if (found)
            break;
    }
    pthread_mutex_unlock(&q->lock);
    *ret_found = found;
    return result;
}

/* The first cluster from `from` on that is free (or used), making blocks and a longer table on the way; `end` if there
 * is none before that. */
static int search(struct qcow2 *q, bool wants_free, uint64_t from, uint64_t end, uint64_t *ret_cluster)
{
    bool found = false;
    while (!found && from < end) {
        int result = search_slice(q, wants_free, &from, end, &found);
        if (result == -ENOENT)
            result = make_block(q, from >> q->block_bits);
        else if (result == -EOVERFLOW)
            result = grow_table(q);
        if (result < 0)
            return result;
    }
    *ret_cluster = from;
    return 0;
}

/* Counts them as used, once: all, or none. */
static int take(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        if (qcow2_set_contains(&q->metadata, cluster + i))
            return qcow2_damage(q, "a cluster that holds a table counts as free", (cluster + i) << q->cluster_bits);
    int result = 0;
    uint64_t done = 0;
    pthread_mutex_lock(&q->lock);
    while (done < count && result == 0) {
        struct qcow2_slot *slot = NULL;
        uint64_t index = 0;
        result = find_slice(q, cluster + done, true, &slot, &index);
        if (result == 0) {
            qcow2_refcount_put(q, slot->bytes, index, 1);
            qcow2_slice_changed(q, slot);
            done++;
        }
    }
    pthread_mutex_unlock(&q->lock);
    if (result < 0)
        qcow2_give_back(q, cluster, done);
    return result;
}

/* The first block behind all that are there. */
static uint64_t first_missing_block(const struct qcow2 *q)
{
    uint64_t block = q->refcount_table_entries;
    while (block > 0 && q->refcount_table[block - 1] == 0)
        block--;
    return block;
}

/* More clusters in a row than one block can count, which would never be found, as each block is in the way of the next
 * run: several blocks in a row, and the clusters behind them. */
static int allocate_across(struct qcow2 *q, uint64_t count, uint64_t *ret_cluster)
{
    uint64_t entries = UINT64_C(1) << q->block_bits, blocks = 1, block = first_missing_block(q);
    int result = 0;
    while (blocks * entries < blocks + count)
        blocks++;
    while (block + blocks > q->refcount_table_entries && result == 0) {
        result = grow_table(q);
        block = first_missing_block(q);
    }
    uint64_t first = block << q->block_bits;
    for (uint64_t i = 0; i < blocks + count && result == 0; i++)
        if (qcow2_set_contains(&q->metadata, first + i))
            result = qcow2_damage(q, "a table lies where no refcount is", (first + i) << q->cluster_bits);
    if (result == 0)
        result = write_blocks(q, first, blocks, blocks + count);
    for (uint64_t i = 0; i < blocks && result == 0; i++)
        result = name_block(q, block + i, first + i);
    if (result == 0)
        *ret_cluster = first + blocks;
    return result;
}

int qcow2_allocate(struct qcow2 *q, uint64_t most, uint64_t least, uint64_t *ret_cluster, uint64_t *ret_count)
{
    uint64_t limit = QCOW2_MOST_OFFSET >> q->cluster_bits, begin = q->free_hint, end = 0;
    bool is_first = true;
    if (least >= UINT64_C(1) << q->block_bits) {
        *ret_count = least;
        return allocate_across(q, least, ret_cluster);
    }
    for (;;) {
        int result = search(q, true, begin, limit, &begin);
        if (result == 0 && begin + most > limit)
            result = -EFBIG;
        if (result == 0 && is_first)
            q->free_hint = begin;
        is_first = false;
        if (result == 0)
            result = search(q, false, begin, begin + most, &end);
        if (result < 0)
            return result;
        if (end - begin >= least)
            break;
        begin = end;
    }
    int result = take(q, begin, end - begin);
    if (result < 0)
        return result;
    if (q->free_hint == begin)
        q->free_hint = end;
    *ret_cluster = begin;
    *ret_count = end - begin;
    return 0;
}

void qcow2_release(struct qcow2 *q, uint64_t cluster, uint64_t count, bool punches)
{
    struct qcow2_freed *last = q->freed_count > 0 ? &q->freed[q->freed_count - 1] : NULL;
    if (last != NULL && last->cluster + last->count == cluster && last->punches == punches) {
        last->count += count;
        return;
    }
    if (alloc_grow((void **)&q->freed, q->freed_count, &q->freed_capacity, sizeof(*q->freed),
                   LIMIT_QCOW2_FREED_RANGES) < 0) {
        log_warn("qcow2.leaked", LOG_TEXT("path", q->file.path), LOG_UINT("clusters", count));
        return;
    }
    q->freed[q->freed_count++] = (struct qcow2_freed){cluster, count, punches};
}

void qcow2_give_back(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    uint64_t left = 0;
    for (uint64_t i = 0; i < count; i++)
        if (qcow2_refcount_lower(q, cluster + i, &left) < 0)
            return; /* a leak */
}
