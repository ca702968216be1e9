// SPDX-License-Identifier: Apache-2.0
/* Where the bytes of a qcow2 disk lie: entries of its tables, and what follows from them.
 *
 *     63     62         61 … 56  55 … 9           8 … 1     0
 *     COPIED COMPRESSED reserved cluster's offset reserved  zeros (version 3; not with extended entries)
 *     COPIED 1          sectors | offset, any byte          (how many bits each has follows from the cluster size)
 *     extended: and 64 bits more, for 32 units of the cluster: [0, 32) allocated, [32, 64) zeros
 *
 * Both kinds become one struct qcow2_entry, with a bit a unit; so all code but decode and encode treats a plain cluster
 * as one of a single unit. Neighbours in the tables that are neighbours in the file become one run.
 *
 * qcow2_map answers without waiting: only from tables in memory, and only if nobody is at them right now. For writing
 * it tells of clusters that are ours alone: COPIED, counted once, and no table of the image.
 *
 * Invariants: (1) an entry that is decoded names a cluster that the file has, or none. (2) a run lies within one L2
 * table. (3) what is told for writing is in nobody else's use until the disk is discarded or zeroed there.
 *
 * Trust: every bit of an entry may be hostile.
 */
#include "disk/qcow2_state.h"

enum { sector_bytes = 512 };

/* ---- one entry ---- */

bool qcow2_is_place(const struct qcow2 *q, uint64_t offset)
{
    return offset != 0 && (offset & (q->cluster_bytes - 1)) == 0 && offset < QCOW2_MOST_OFFSET &&
           offset < atomic_load(&q->file_end);
}

static int decode_packed(struct qcow2 *q, uint64_t value, struct qcow2_entry *ret_entry)
{
    unsigned offset_bits = 62 - (q->cluster_bits - 8);
    uint64_t offset = value & ((UINT64_C(1) << offset_bits) - 1);
    uint64_t sectors = (value & (QCOW2_COMPRESSED - 1)) >> offset_bits;
    if ((value & QCOW2_COPIED) != 0 || offset == 0 || offset >= QCOW2_MOST_OFFSET ||
        offset >= atomic_load(&q->file_end))
        return qcow2_damage(q, "a compressed cluster is nowhere in the file", offset);
    *ret_entry = (struct qcow2_entry){.allocated = q->all_units,
                                      .is_compressed = true,
                                      .packed_offset = offset,
                                      .packed_bytes = (sectors + 1) * 512 - (offset & 511)};
    return 0;
}

/* The units' states; 0 or QCOW2_DAMAGED. */
static int decode_units(struct qcow2 *q, uint64_t value, uint64_t bitmap, struct qcow2_entry *entry)
{
    bool is_zero = (value & QCOW2_ZERO_FLAG) != 0;
    if (q->units == 1) {
        if (is_zero && q->version < 3)
            return qcow2_damage(q, "an entry says zeros, which version 2 does not know", value);
        entry->zero = is_zero;
        entry->allocated = !is_zero && entry->host != 0;
        return 0;
    }
    entry->allocated = (uint32_t)bitmap;
    entry->zero = (uint32_t)(bitmap >> 32);
    if (is_zero || (entry->allocated & entry->zero) != 0 || (entry->host == 0 && entry->allocated != 0))
        return qcow2_damage(q, "an extended entry contradicts itself", value);
    return 0;
}

int qcow2_decode(struct qcow2 *q, const uint8_t *bytes, struct qcow2_entry *ret_entry)
{
    const uint64_t reserved = ~(QCOW2_COPIED | QCOW2_COMPRESSED | QCOW2_OFFSET_MASK | QCOW2_ZERO_FLAG);
    uint64_t value = qcow2_get64(bytes), bitmap = q->units == 1 ? 0 : qcow2_get64(bytes + 8);
    if ((value & QCOW2_COMPRESSED) != 0)
        return decode_packed(q, value, ret_entry);
    struct qcow2_entry entry = {.host = value & QCOW2_OFFSET_MASK, .is_copied = (value & QCOW2_COPIED) != 0};
    if ((value & reserved) != 0)
        return qcow2_damage(q, "an entry has bits that mean nothing", value);
    if (entry.host == 0 ? entry.is_copied : !qcow2_is_place(q, entry.host))
        return qcow2_damage(q, "a cluster is nowhere in the file", entry.host);
    int result = decode_units(q, value, bitmap, &entry);
    if (result == 0)
        *ret_entry = entry;
    return result;
}

void qcow2_encode(const struct qcow2 *q, const struct qcow2_entry *entry, uint8_t *bytes)
{
    unsigned offset_bits = 62 - (q->cluster_bits - 8);
    uint64_t value = entry->host | (entry->is_copied ? QCOW2_COPIED : 0);
    if (entry->is_compressed) {
        uint64_t sectors = ((entry->packed_offset & 511) + entry->packed_bytes - 1) / 512;
        value = QCOW2_COMPRESSED | sectors << offset_bits | entry->packed_offset;
    } else if (q->units == 1 && entry->zero != 0) {
        value |= QCOW2_ZERO_FLAG;
    }
    qcow2_put64(bytes, value);
    if (q->units > 1)
        qcow2_put64(bytes + 8, entry->is_compressed ? 0 : (uint64_t)entry->zero << 32 | entry->allocated);
}

int qcow2_l2_offset(struct qcow2 *q, uint64_t l1_entry, uint64_t *ret_offset)
{
    uint64_t offset = l1_entry & QCOW2_OFFSET_MASK;
    if ((l1_entry & ~(QCOW2_OFFSET_MASK | QCOW2_COPIED)) != 0)
        return qcow2_damage(q, "an L1 entry has bits that mean nothing", l1_entry);
    if (offset == 0 ? l1_entry != 0 : !qcow2_is_place(q, offset))
        return qcow2_damage(q, "an L2 table is nowhere in the file", offset);
    *ret_offset = offset;
    return 0;
}

/* The slice with a guest cluster's entry, and where in it; under lock. -ENOENT without a table. */
static int find_entry(struct qcow2 *q, uint64_t cluster, bool may_wait, struct qcow2_slot **ret_slot,
                      uint32_t *ret_index)
{
    uint64_t l1_index = cluster >> q->l2_bits, table = 0;
    uint64_t at = (cluster & ((UINT64_C(1) << q->l2_bits) - 1)) * q->entry_bytes;
    if (l1_index >= q->l1_entries)
        return -ENOENT;
    int result = qcow2_l2_offset(q, q->l1[l1_index], &table);
    if (result == 0 && table == 0)
        result = -ENOENT;
    if (result == 0)
        result = qcow2_slice(q, QCOW2_L2, table + at, may_wait, ret_slot);
    *ret_index = (uint32_t)(at & (q->cache.slice_bytes - 1)) / q->entry_bytes;
    return result;
}

int qcow2_entry_get(struct qcow2 *q, uint64_t cluster, struct qcow2_entry *ret_entry)
{
    struct qcow2_slot *slot = NULL;
    uint32_t index = 0;
    pthread_mutex_lock(&q->lock);
    int result = find_entry(q, cluster, true, &slot, &index);
    if (result == 0)
        result = qcow2_decode(q, slot->bytes + (size_t)index * q->entry_bytes, ret_entry);
    pthread_mutex_unlock(&q->lock);
    if (result == -ENOENT) {
        *ret_entry = (struct qcow2_entry){0};
        return 0;
    }
    return result;
}

int qcow2_entry_put(struct qcow2 *q, uint64_t cluster, const struct qcow2_entry *entry)
{
    struct qcow2_slot *slot = NULL;
    uint32_t index = 0;
    pthread_mutex_lock(&q->lock);
    int result = find_entry(q, cluster, true, &slot, &index);
    assert(result != -ENOENT);
    if (result == 0) {
        atomic_store(&q->needs_commit, true);
        qcow2_encode(q, entry, slot->bytes + (size_t)index * q->entry_bytes);
        qcow2_slice_changed(q, slot);
    }
    pthread_mutex_unlock(&q->lock);
    return result;
}

/* ---- runs ---- */

/* The kind of a unit, and how many from there on are of it. */
static enum qcow2_run_kind kind_of(const struct qcow2 *q, const struct qcow2_entry *entry, unsigned unit,
                                   unsigned *ret_count)
{
    uint32_t allocated = entry->allocated >> unit, zero = entry->zero >> unit, rest = q->all_units >> unit, same;
    enum qcow2_run_kind kind = QCOW2_UNDER;
    if (allocated & 1) {
        kind = entry->is_compressed ? QCOW2_PACKED : QCOW2_DATA;
        same = allocated;
    } else if (zero & 1) {
        kind = QCOW2_ZEROS;
        same = zero;
    } else {
        same = ~(allocated | zero);
    }
    uint32_t others = ~same & rest;
    *ret_count = others != 0 ? (unsigned)__builtin_ctz(others) : q->units - unit;
    return kind;
}

/* Whether the cluster is ours alone, and no table: 1 or 0, QCOW2_DAMAGED, -EAGAIN. */
static int is_ours(struct qcow2 *q, const struct qcow2_entry *entry, bool may_wait)
{
    uint64_t cluster = entry->host >> q->cluster_bits, count = 0;
    if (!entry->is_copied)
        return 0;
    if (qcow2_set_contains(&q->metadata, cluster))
        return qcow2_damage(q, "data lies in a cluster that holds a table", entry->host);
    int result = qcow2_refcount(q, cluster, may_wait, &count);
    if (result < 0)
        return result;
    if (count == 0)
        return qcow2_damage(q, "a cluster in use counts as free", entry->host);
    return count == 1;
}

/* The run that begins at `offset`, as far as its first entry goes. 0, QCOW2_DAMAGED, -EAGAIN. */
static int run_of_entry(struct qcow2 *q, const uint8_t *bytes, uint64_t offset, bool for_writing, bool may_wait,
                        struct qcow2_run *ret_run)
{
    struct qcow2_entry entry = {0};
    uint64_t in_cluster = offset & (q->cluster_bytes - 1), in_unit = offset & ((UINT64_C(1) << q->unit_bits) - 1);
    unsigned units = 0;
    int result = qcow2_decode(q, bytes, &entry);
    if (result < 0)
        return result;
    enum qcow2_run_kind kind = kind_of(q, &entry, (unsigned)(in_cluster >> q->unit_bits), &units);
    if (for_writing && kind == QCOW2_DATA)
        result = is_ours(q, &entry, may_wait);
    *ret_run = (struct qcow2_run){.kind = kind,
                                  .host = entry.host + in_cluster,
                                  .length = ((uint64_t)units << q->unit_bits) - in_unit,
                                  .is_writable = result == 1,
                                  .packed_offset = entry.packed_offset,
                                  .packed_bytes = entry.packed_bytes};
    return result < 0 ? result : 0;
}

static bool continues(const struct qcow2_run *run, const struct qcow2_run *next)
{
    return next->kind == run->kind && next->kind != QCOW2_PACKED && next->is_writable == run->is_writable &&
           (next->kind != QCOW2_DATA || next->host == run->host + run->length);
}

static int find_in_slice(struct qcow2 *q, const struct qcow2_slot *slot, uint32_t index, uint64_t offset,
                         uint64_t length, bool for_writing, bool may_wait, struct qcow2_run *ret_run)
{
    uint32_t entries = q->cache.slice_bytes / q->entry_bytes;
    uint64_t last = ~UINT64_C(0);
    struct qcow2_run run = {.length = 0}, next = {.length = 0};
    while (run.length < length) {
        uint64_t at = offset + run.length, cluster = at >> q->cluster_bits;
        if (last != ~UINT64_C(0) && cluster != last)
            index++;
        last = cluster;
        if (index >= entries)
            break;
        int result = run_of_entry(q, slot->bytes + (size_t)index * q->entry_bytes, at, for_writing, may_wait, &next);
        if (result < 0 && run.length == 0)
            return result;
        if (result < 0 || (run.length != 0 && !continues(&run, &next)))
            break; /* whoever asks for what is behind finds out */
        if (run.length == 0)
            run = next;
        else
            run.length += next.length;
    }
    run.length = run.length > length ? length : run.length;
    *ret_run = run;
    return 0;
}

int qcow2_find(struct qcow2 *q, uint64_t offset, uint64_t length, bool for_writing, bool may_wait,
               struct qcow2_run *ret_run)
{
    struct qcow2_slot *slot = NULL;
    uint32_t index = 0;
    int result = find_entry(q, offset >> q->cluster_bits, may_wait, &slot, &index);
    if (result == -ENOENT) { /* nothing, as far as the table would reach */
        uint64_t table_bytes = q->cluster_bytes << q->l2_bits, left = table_bytes - (offset & (table_bytes - 1));
        *ret_run = (struct qcow2_run){.kind = QCOW2_UNDER, .length = length < left ? length : left};
        return 0;
    }
    if (result < 0)
        return result;
    slot->is_pinned = true;
    result = find_in_slice(q, slot, index, offset, length, for_writing, may_wait, ret_run);
    slot->is_pinned = false;
    return result;
}

/* ---- a table of one's own ---- */

/* A copy of the shared table at `from`, or an empty one, in a new cluster of the file. */
static int write_table_copy(struct qcow2 *q, uint64_t from, uint64_t to)
{
    int result = 0;
    if (from == 0)
        return qcow2_write_zeros(q, q->cluster_bytes, to);
    for (uint64_t at = 0; at < q->cluster_bytes && result == 0; at += q->cache.slice_bytes) {
        struct qcow2_slot *slot = NULL;
        pthread_mutex_lock(&q->lock);
        result = qcow2_slice(q, QCOW2_L2, from + at, true, &slot);
        if (result == 0)
            result = qcow2_write_bytes(q, slot->bytes, q->cache.slice_bytes, to + at);
        pthread_mutex_unlock(&q->lock);
    }
    return result;
}

static void note_l1(struct qcow2 *q, uint64_t index, uint64_t value)
{
    struct qcow2_range *range = &q->l1_dirty;
    pthread_mutex_lock(&q->lock);
    q->l1[index] = value;
    pthread_mutex_unlock(&q->lock);
    if (range->begin >= range->end)
        *range = (struct qcow2_range){index, index + 1};
    range->begin = index < range->begin ? index : range->begin;
    range->end = index >= range->end ? index + 1 : range->end;
    atomic_store(&q->needs_commit, true);
}

/* Whether the table is ours alone: counted once, whether or not its bit says so. (A crash may leave it without the bit;
 * the image's only reference to it is this one all the same.) */
static int is_our_table(struct qcow2 *q, uint64_t offset, bool *ret_is_ours)
{
    uint64_t count = 0;
    pthread_mutex_lock(&q->lock);
    int result = offset == 0 ? 0 : qcow2_refcount(q, offset >> q->cluster_bits, true, &count);
    pthread_mutex_unlock(&q->lock);
    if (result == 0 && offset != 0 && count == 0)
        result = qcow2_damage(q, "an L2 table counts as free", offset);
    *ret_is_ours = count == 1;
    return result;
}

int qcow2_table_prepare(struct qcow2 *q, uint64_t cluster)
{
    uint64_t index = cluster >> q->l2_bits, old = 0, place = 0, count = 0;
    bool is_ours = false;
    assert(index < q->l1_entries);
    int result = qcow2_l2_offset(q, q->l1[index], &old);
    if (result == 0)
        result = is_our_table(q, old, &is_ours);
    if (result == 0 && is_ours && (q->l1[index] & QCOW2_COPIED) == 0)
        note_l1(q, index, old | QCOW2_COPIED);
    if (result < 0 || is_ours)
        return result;
    result = qcow2_allocate(q, 1, 1, &place, &count);
    if (result < 0)
        return result;
    result = write_table_copy(q, old, place << q->cluster_bits);
    if (result == 0)
        result = qcow2_claim_tables(q, place, 1);
    if (result < 0) {
        qcow2_give_back(q, place, 1);
        return result;
    }
    note_l1(q, index, place << q->cluster_bits | QCOW2_COPIED);
    if (old != 0)
        qcow2_release_tables(q, old >> q->cluster_bits, 1);
    return 0;
}

/* ---- what others ask ---- */

/* Of a run that lies in the file, what the file holds, as far as O_DIRECT can reach it. */
static int file_extent(const struct qcow2 *q, const struct qcow2_run *run, struct disk_extent *ret_extent)
{
    uint64_t granule = q->alignment_bytes > sector_bytes ? q->alignment_bytes : sector_bytes;
    uint64_t end = atomic_load(&q->file_end) & ~(granule - 1), length = run->length & ~(granule - 1);
    if (run->host >= end || (run->host & (granule - 1)) != 0)
        return -EAGAIN;
    if (length > end - run->host)
        length = end - run->host;
    if (length == 0)
        return -EAGAIN;
    *ret_extent = (struct disk_extent){DISK_EXTENT_FILE, q->file.fd, run->host, length};
    return 0;
}

/* What lies under the image, or zeros where that ends. */
static int map_under(struct qcow2 *q, uint64_t offset, uint64_t length, struct disk_extent *ret_extent)
{
    if (q->backing == NULL || offset >= q->backing_bytes) {
        *ret_extent = (struct disk_extent){DISK_EXTENT_ZERO, -1, 0, length};
        return 0;
    }
    uint64_t left = q->backing_bytes - offset;
    return disk_map(q->backing, offset, length < left ? length : left, false, ret_extent);
}

int qcow2_map(void *state, uint64_t offset, uint64_t length, bool for_writing, struct disk_extent *ret_extent)
{
    struct qcow2 *q = state;
    struct qcow2_run run;
    if ((for_writing && qcow2_check_writable(q) < 0) || ((offset | length) & (q->alignment_bytes - 1)) != 0)
        return -EAGAIN;
    if (pthread_mutex_trylock(&q->lock) != 0)
        return -EAGAIN;
    int result = qcow2_find(q, offset, length, for_writing, false, &run);
    pthread_mutex_unlock(&q->lock);
    if (result < 0 || run.kind == QCOW2_PACKED)
        return -EAGAIN; /* what is wrong with it is for the sure way to say */
    if (run.kind == QCOW2_DATA)
        return for_writing && !run.is_writable ? -EAGAIN : file_extent(q, &run, ret_extent);
    if (for_writing)
        return -EAGAIN;
    if (run.kind == QCOW2_UNDER)
        return map_under(q, offset, run.length, ret_extent);
    *ret_extent = (struct disk_extent){DISK_EXTENT_ZERO, -1, 0, run.length};
    return 0;
}

int qcow2_sync_fd(void *state)
{
    struct qcow2 *q = state;
    bool is_enough = !atomic_load(&q->needs_commit) && atomic_load(&q->sync_error) == 0;
    return is_enough ? q->file.fd : -1;
}

int qcow2_status(void *state, uint64_t offset, uint64_t length, bool *ret_is_zero, uint64_t *ret_length)
{
    struct qcow2 *q = state;
    struct qcow2_run run;
    pthread_mutex_lock(&q->lock);
    int result = qcow2_find(q, offset, length, false, true, &run);
    pthread_mutex_unlock(&q->lock);
    if (result < 0)
        return qcow2_result(q, result);
    if (run.kind == QCOW2_UNDER && q->backing != NULL && offset < q->backing_bytes) {
        uint64_t left = q->backing_bytes - offset;
        return disk_status(q->backing, offset, run.length < left ? run.length : left, ret_is_zero, ret_length);
    }
    *ret_is_zero = run.kind == QCOW2_UNDER || run.kind == QCOW2_ZEROS;
    *ret_length = run.length;
    return 0;
}
