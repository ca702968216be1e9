// SPDX-License-Identifier: Apache-2.0
/* Checking a qcow2 image: who uses each cluster, and do its refcounts say so?
 *
 *     1. structures   header, refcount table and blocks, L1 tables, list of snapshots, bitmaps     used once, alone
 *     2. tables       the L2 tables that L1 tables name                                            once an L1 table
 *     3. clusters     what entries of L2 tables name                                               once an entry
 *     4. compare      with the refcounts: too few is a corruption, too many a leak
 *
 * An entry that names what is not in the file, or what is a structure already, is a corruption, too. A repair takes it
 * out: the guest reads zeros there. Without that, all that lay below it looks unused, so nothing is given back then.
 * More uses of a cluster than its refcount has bits for are a corruption that no repair mends: all can be read.
 *
 * Invariants: (1) memory is 4 bytes a cluster, bounded by LIMIT_QCOW2_CHECK_CLUSTERS; work by
 * LIMIT_QCOW2_CHECK_TABLES: whatever the image can say more than once is charged before it is looked through. (2)
 * without a repair nothing is written.
 *
 * Trust: every byte of the image may be hostile.
 */
#include "disk/qcow2_check.h"

#include "base/alloc.h"
#include "base/limits.h"

#include <unistd.h>

/* ---- work ---- */

enum { entries_of_charge = 512 };

static int charge(struct qcow2_count *count, uint64_t tables)
{
    if (count->tables_left < tables)
        return -E2BIG;
    count->tables_left -= tables;
    return 0;
}

static int go_on(struct qcow2_count *count, uint64_t done, uint64_t whole)
{
    return count->progress == NULL || count->progress(count->user, done, whole) ? 0 : -ECANCELED;
}

/* ---- uses ---- */

/* One more use of each cluster in [offset, offset + bytes). Returns whether all of them are of the file, and may be
 * used like that; a structure that cannot be is counted all the same, as nothing can be left out of it. */
static bool use_alone(struct qcow2_count *count, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset >> count->q->cluster_bits, clusters = qcow2_clusters(count->q, bytes);
    bool is_right = (offset & (count->q->cluster_bytes - 1)) == 0;
    for (uint64_t i = 0; i < clusters; i++) {
        if (first + i >= count->clusters)
            return false;
        uint32_t *use = &count->uses[first + i];
        is_right = is_right && *use == 0;
        *use = (*use + 1) | QCOW2_USE_ALONE;
    }
    return is_right;
}

static bool may_use(const struct qcow2_count *count, uint64_t cluster, uint32_t forbidden)
{
    return cluster < count->clusters && (count->uses[cluster] & forbidden) == 0;
}

static bool use(struct qcow2_count *count, uint64_t cluster, uint32_t forbidden, uint32_t flags)
{
    if (!may_use(count, cluster, forbidden))
        return false;
    uint32_t *found = &count->uses[cluster];
    *found |= flags;
    if ((*found & QCOW2_USE_COUNT) < QCOW2_USE_COUNT)
        (*found)++;
    return true;
}

static bool is_hole(const struct qcow2 *q, uint64_t offset)
{
    off_t data = lseek(q->file.fd, (off_t)offset, SEEK_DATA);
    return data < 0 ? errno == ENXIO : (uint64_t)data >= offset + q->cluster_bytes;
}

/* ---- structures ---- */

static void fault_unless(struct qcow2_count *count, bool is_right)
{
    count->entry_faults += !is_right;
}

static int use_bitmap(struct qcow2_count *count, uint64_t table, uint64_t entries)
{
    uint64_t chunk[entries_of_charge];
    if (entries * 8 > count->clusters << count->q->cluster_bits) {
        fault_unless(count, false);
        return 0;
    }
    int result = charge(count, 1 + entries / entries_of_charge);
    if (result < 0)
        return result;
    fault_unless(count, use_alone(count, table, entries * 8));
    for (uint64_t at = 0; at < entries; at += array_length(chunk)) {
        uint64_t step = entries - at < array_length(chunk) ? entries - at : array_length(chunk);
        result = qcow2_read_table(count->q, chunk, step, table + at * 8);
        if (result < 0)
            return result;
        for (uint64_t i = 0; i < step; i++)
            if ((chunk[i] & QCOW2_OFFSET_MASK) != 0)
                fault_unless(count, use_alone(count, chunk[i] & QCOW2_OFFSET_MASK, 1));
    }
    return 0;
}

/* Bitmaps are not ours; but as long as the header promises that they hold, their clusters are in use. */
static int use_bitmaps(struct qcow2_count *count)
{
    const struct qcow2 *q = count->q;
    uint64_t at = q->bitmap_directory_offset, end = at + q->bitmap_directory_bytes;
    if (q->bitmap_count == 0 || (q->autoclear & QCOW2_BITMAPS) == 0)
        return 0;
    if (end < at || end > count->clusters << q->cluster_bits) {
        fault_unless(count, false);
        return 0;
    }
    fault_unless(count, use_alone(count, at, q->bitmap_directory_bytes));
    while (at < end) {
        uint8_t entry[24];
        int result = go_on(count, 0, q->l1_entries);
        if (result == 0)
            result = qcow2_read_bytes(count->q, entry, sizeof(entry), at);
        if (result == 0)
            result = use_bitmap(count, qcow2_get64(entry), qcow2_get32(entry + 8));
        if (result < 0)
            return result;
        at += (sizeof(entry) + qcow2_get16(entry + 18) + (uint64_t)qcow2_get32(entry + 20) + 7) & ~UINT64_C(7);
    }
    return 0;
}

static int use_structures(struct qcow2_count *count)
{
    struct qcow2 *q = count->q;
    fault_unless(count, use_alone(count, 0, 1));
    fault_unless(count, use_alone(count, q->l1_offset, q->l1_entries * UINT64_C(8)));
    count->has_bad_blocks = q->refcount_table_entries == 0 ||
                            !use_alone(count, q->refcount_table_offset, q->refcount_table_entries * 8);
    for (uint64_t i = 0; i < q->refcount_table_entries; i++)
        if (q->refcount_table[i] != 0 &&
            (!qcow2_is_place(q, q->refcount_table[i]) || !use_alone(count, q->refcount_table[i], 1)))
            count->has_bad_blocks = true;
    fault_unless(count, use_alone(count, q->snapshots_offset, q->snapshots_bytes));
    int result = 0;
    for (uint32_t i = 0; i < q->snapshot_count && result == 0; i++) {
        result = charge(count, 1 + q->snapshots[i].l1_entries / entries_of_charge);
        if (result == 0)
            fault_unless(count, use_alone(count, q->snapshots[i].l1_offset, q->snapshots[i].l1_entries * UINT64_C(8)));
    }
    return result;
}

/* ---- tables ---- */

/* A fault in an entry, which a repair has just taken out. */
static void note_fault(struct qcow2_count *count)
{
    if (count->mends)
        count->fixed_faults++;
    else
        count->entry_faults++;
}

/* Uses of the L2 tables that one L1 table names. */
static int use_tables(struct qcow2_count *count, uint64_t *l1, uint64_t entries, uint64_t l1_offset, bool is_active)
{
    uint32_t forbidden = QCOW2_USE_ALONE | (is_active ? QCOW2_USE_ACTIVE : 0);
    uint32_t flags = QCOW2_USE_TABLE | (is_active ? QCOW2_USE_ACTIVE : 0);
    int result = 0;
    for (uint64_t i = 0; i < entries && result == 0; i++) {
        uint64_t offset = 0;
        bool is_right = qcow2_l2_offset(count->q, l1[i], &offset) == 0;
        if (is_right && offset == 0)
            continue;
        if (is_right && use(count, offset >> count->q->cluster_bits, forbidden, flags))
            continue;
        note_fault(count);
        l1[i] = 0;
        if (count->mends)
            result = qcow2_write_table(count->q, l1, i, 1, l1_offset);
    }
    return result;
}

/* What an entry names; false if it cannot be. */
static bool use_entry(struct qcow2_count *count, const uint8_t *bytes)
{
    struct qcow2 *q = count->q;
    struct qcow2_entry entry;
    if (qcow2_decode(q, bytes, &entry) < 0)
        return false;
    bool is_used = entry.is_compressed || entry.allocated != 0;
    uint64_t first = (entry.is_compressed ? entry.packed_offset : entry.host) >> q->cluster_bits, last = first;
    if (entry.is_compressed)
        last = (entry.packed_offset + entry.packed_bytes - 1) >> q->cluster_bits;
    bool names_some = entry.is_compressed || entry.host != 0;
    for (uint64_t i = first; i <= last && names_some; i++) /* all of a packed one's, before the first of them is used */
        if (!may_use(count, i, QCOW2_USE_ALONE | QCOW2_USE_TABLE))
            return false;
    for (uint64_t i = first; i <= last && names_some; i++)
        use(count, i, 0, 0);
    count->found->allocated_clusters += is_used;
    count->found->compressed_clusters += entry.is_compressed;
    return true;
}

/* An entry that says zeros, or nothing where version 2 cannot say that. */
static void take_out(const struct qcow2 *q, uint8_t *bytes)
{
    const struct qcow2_entry none = {.zero = q->version >= 3 ? q->all_units : 0};
    qcow2_encode(q, &none, bytes);
}

static int use_clusters_of(struct qcow2_count *count, uint64_t offset, uint8_t *table)
{
    struct qcow2 *q = count->q;
    bool has_changed = false;
    if (is_hole(q, offset))
        return 0;
    int result = qcow2_read_bytes(q, table, q->cluster_bytes, offset);
    if (result < 0)
        return result;
    for (uint64_t at = 0; at < q->cluster_bytes; at += q->entry_bytes)
        if (!use_entry(count, table + at)) {
            note_fault(count);
            take_out(q, table + at);
            has_changed = true;
        }
    return has_changed && count->mends ? qcow2_write_bytes(q, table, q->cluster_bytes, offset) : 0;
}

static int use_clusters(struct qcow2_count *count, const uint64_t *l1, uint64_t entries, bool is_active)
{
    struct qcow2 *q = count->q;
    auto_free uint8_t *table = alloc_zero((size_t)q->cluster_bytes);
    if (table == NULL)
        return -ENOMEM;
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t offset = l1[i] & QCOW2_OFFSET_MASK;
        if (offset == 0)
            continue;
        int result = charge(count, 1);
        if (result == 0)
            result = is_active ? go_on(count, i, entries) : go_on(count, entries, entries);
        if (result == 0)
            result = use_clusters_of(count, offset, table);
        if (result < 0)
            return result;
    }
    return 0;
}

/* Of one snapshot: its tables, then (in a second round) its clusters. */
static int use_snapshot(struct qcow2_count *count, const struct qcow2_snapshot *snapshot, bool is_second)
{
    struct qcow2 *q = count->q;
    if (snapshot->l1_entries == 0)
        return 0;
    int result = charge(count, 1 + snapshot->l1_entries / entries_of_charge);
    if (result == 0)
        result = is_second ? go_on(count, 1, 1) : go_on(count, 0, q->l1_entries);
    if (result < 0)
        return result;
    auto_free uint64_t *l1 = alloc_zero(snapshot->l1_entries * sizeof(*l1));
    if (l1 == NULL)
        return -ENOMEM;
    result = qcow2_read_table(q, l1, snapshot->l1_entries, snapshot->l1_offset);
    if (result == 0 && !is_second)
        return use_tables(count, l1, snapshot->l1_entries, snapshot->l1_offset, false);
    for (uint32_t i = 0; i < snapshot->l1_entries && result == 0; i++) { /* faults were told in the first round */
        uint64_t cluster = (l1[i] & QCOW2_OFFSET_MASK) >> q->cluster_bits;
        if (cluster >= count->clusters || (count->uses[cluster] & QCOW2_USE_TABLE) == 0)
            l1[i] = 0;
    }
    return result < 0 ? result : use_clusters(count, l1, snapshot->l1_entries, false);
}

static int use_all(struct qcow2_count *count)
{
    struct qcow2 *q = count->q;
    int result = use_structures(count);
    if (result == 0)
        result = use_bitmaps(count);
    if (result == 0)
        result = use_tables(count, q->l1, q->l1_entries, q->l1_offset, true);
    for (uint32_t i = 0; i < q->snapshot_count && result == 0; i++)
        result = use_snapshot(count, &q->snapshots[i], false);
    if (result == 0)
        result = use_clusters(count, q->l1, q->l1_entries, true);
    for (uint32_t i = 0; i < q->snapshot_count && result == 0; i++)
        result = use_snapshot(count, &q->snapshots[i], true);
    return result;
}

int qcow2_count_all(struct qcow2_count *count)
{
    struct qcow2 *q = count->q;
    count->clusters = qcow2_clusters(q, atomic_load(&q->file_end));
    if (count->clusters > LIMIT_QCOW2_CHECK_CLUSTERS)
        return -E2BIG;
    count->tables_left = LIMIT_QCOW2_CHECK_TABLES;
    count->uses = alloc_zero((count->clusters + 1) * sizeof(*count->uses));
    int result = count->uses == NULL ? -ENOMEM : use_all(count);
    count->found->clusters = qcow2_clusters(q, q->size_bytes);
    for (uint64_t i = 0; result == 0 && i < count->clusters; i++)
        if (count->uses[i] != 0)
            count->found->end_offset = (i + 1) << q->cluster_bits;
    return result;
}

void qcow2_count_release(struct qcow2_count *count)
{
    free(count->uses);
    count->uses = NULL;
}

/* ---- comparing ---- */

static void compare_block(struct qcow2_count *count, uint64_t first, const uint8_t *block)
{
    for (uint64_t i = 0; i < UINT64_C(1) << count->q->block_bits; i++) {
        uint64_t uses = first + i < count->clusters ? count->uses[first + i] & QCOW2_USE_COUNT : 0;
        uint64_t refcount = block != NULL ? qcow2_refcount_get(count->q, block, i) : 0;
        count->wrong_low += refcount < uses;
        count->wrong_high += refcount > uses;
        count->too_often += uses > count->q->most_refcount;
        if (block == NULL && uses > 0)
            count->has_bad_blocks = true;
        if (block == NULL && first + i >= count->clusters)
            break;
    }
}

int qcow2_count_compare(struct qcow2_count *count)
{
    struct qcow2 *q = count->q;
    uint64_t used_blocks = (count->clusters >> q->block_bits) + 1, blocks = q->refcount_table_entries;
    auto_free uint8_t *block = alloc_zero((size_t)q->cluster_bytes);
    if (block == NULL)
        return -ENOMEM;
    blocks = blocks > used_blocks ? blocks : used_blocks;
    count->wrong_low = count->wrong_high = count->too_often = 0;
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t offset = i < q->refcount_table_entries ? q->refcount_table[i] : 0;
        bool is_there = offset != 0 && qcow2_is_place(q, offset) && !is_hole(q, offset);
        if (!is_there && i >= used_blocks)
            continue;
        memset(block, 0, (size_t)q->cluster_bytes);
        int result = is_there ? charge(count, 1) : 0; /* many entries may name one block */
        if (result == 0)
            result = go_on(count, 1, 1);
        if (result == 0 && is_there)
            result = qcow2_read_bytes(q, block, q->cluster_bytes, offset);
        if (result < 0)
            return result;
        compare_block(count, i << q->block_bits, offset != 0 ? block : NULL);
    }
    return 0;
}

/* ---- COPIED ---- */

static bool is_alone(const struct qcow2_count *count, uint64_t offset)
{
    uint64_t cluster = offset >> count->q->cluster_bits;
    return cluster < count->clusters && (count->uses[cluster] & QCOW2_USE_COUNT) == 1;
}

/* Makes the bit of an entry right; whether it was not. Only one that is set wrongly is a fault: the other way round, a
 * cluster is copied that need not be. */
static bool correct_copied(struct qcow2_count *count, uint64_t *entry, bool mends)
{
    uint64_t offset = *entry & QCOW2_OFFSET_MASK;
    bool is_set = (*entry & QCOW2_COPIED) != 0, should_be = offset != 0 && is_alone(count, offset);
    if (is_set == should_be)
        return false;
    if (is_set && mends)
        count->fixed_faults++;
    else if (is_set)
        count->entry_faults++;
    *entry ^= QCOW2_COPIED;
    return true;
}

static int check_table(struct qcow2_count *count, uint64_t offset, uint8_t *table, bool mends)
{
    struct qcow2 *q = count->q;
    bool has_changed = false;
    if (is_hole(q, offset))
        return 0;
    int result = qcow2_read_bytes(q, table, q->cluster_bytes, offset);
    for (uint64_t at = 0; result == 0 && at < q->cluster_bytes; at += q->entry_bytes) {
        struct qcow2_entry decoded;
        uint64_t entry = qcow2_get64(table + at);
        if (qcow2_decode(q, table + at, &decoded) == 0 && !decoded.is_compressed &&
            correct_copied(count, &entry, mends)) {
            qcow2_put64(table + at, entry);
            has_changed = true;
        }
    }
    return result == 0 && has_changed && mends ? qcow2_write_bytes(q, table, q->cluster_bytes, offset) : result;
}

int qcow2_check_copied(struct qcow2_count *count, bool mends)
{
    struct qcow2 *q = count->q;
    auto_free uint8_t *table = alloc_zero((size_t)q->cluster_bytes);
    int result = table == NULL ? -ENOMEM : 0;
    for (uint64_t i = 0; i < q->l1_entries && result == 0; i++) {
        uint64_t offset = q->l1[i] & QCOW2_OFFSET_MASK;
        if (offset == 0)
            continue;
        if (correct_copied(count, &q->l1[i], mends) && mends)
            result = qcow2_write_table(q, q->l1, i, 1, q->l1_offset);
        if (result == 0)
            result = check_table(count, offset, table, mends);
    }
    return result;
}
