// SPDX-License-Identifier: Apache-2.0
/* Zeros without writing them, and space given back.
 *
 *     wanted              entry becomes                      its cluster
 *     zeros, keep space   zeros, with its place              stays
 *     zeros, unmap        zeros                              freed
 *     discard             zeros; or none, if nothing lies    freed
 *                         under the image
 *     forget              none: it will lie outside          freed
 *
 * "None" would bring back what lies under the image, so it is only used where that is zeros. Version 2 has no entry for
 * zeros: there, zeros are written where something lies under the image, and a discard does nothing.
 *
 * Invariants: (1) only units that lie in the range as a whole change their entry; the rest is written with zeros, or
 * left as it is by a discard. (2) a cluster is released after its entry has changed, and only if no structure
 * of the image lies there.
 *
 * Trust: ranges were checked by disk.c; entries by qcow2_decode.
 */
#include "disk/qcow2_state.h"

#include "base/alloc.h"

enum clearing { CLEAR_KEEP, CLEAR_UNMAP, CLEAR_DISCARD, CLEAR_FORGET };

/* Whether nothing, or nothing but zeros, lies under the image from there on. */
static bool is_bottomless(const struct qcow2 *q, uint64_t offset)
{
    return q->backing == NULL ? q->backing_name[0] == '\0' : offset >= q->backing_bytes;
}

/* What the entry becomes. False: it cannot be said with an entry. */
static bool clear_entry(const struct qcow2 *q, struct qcow2_entry *entry, uint64_t offset, uint32_t units,
                        enum clearing how)
{
    bool says_none = how == CLEAR_FORGET || (is_bottomless(q, offset) && (how == CLEAR_DISCARD || q->version < 3));
    if (entry->is_compressed && units != q->all_units)
        return false;
    if (q->version < 3 && (!says_none || how == CLEAR_KEEP))
        return false;
    if (entry->is_compressed)
        *entry = (struct qcow2_entry){0};
    entry->allocated &= ~units;
    entry->zero = says_none ? entry->zero & ~units : entry->zero | units;
    if (entry->allocated == 0 && (how != CLEAR_KEEP || !entry->is_copied)) {
        entry->host = 0;
        entry->is_copied = false;
    }
    return true;
}

static bool is_same(const struct qcow2_entry *a, const struct qcow2_entry *b)
{
    return a->host == b->host && a->allocated == b->allocated && a->zero == b->zero &&
           a->is_compressed == b->is_compressed;
}

/* -EOPNOTSUPP when zeros have to be written. */
static int clear_units(struct qcow2 *q, uint64_t offset, uint32_t units, enum clearing how)
{
    uint64_t cluster = offset >> q->cluster_bits;
    struct qcow2_entry old;
    int result = qcow2_begin_step(q);
    if (result == 0)
        result = qcow2_entry_get(q, cluster, &old);
    if (result == 0)
        result = qcow2_check_entry(q, &old);
    if (result < 0)
        return result;
    if ((old.allocated & units) == 0 && old.host == 0 && is_bottomless(q, offset))
        return 0;
    struct qcow2_entry entry = old;
    if (!clear_entry(q, &entry, offset, units, how))
        return -EOPNOTSUPP;
    if (is_same(&entry, &old))
        return 0;
    result = qcow2_table_prepare(q, cluster);
    if (result == 0)
        result = qcow2_entry_put(q, cluster, &entry);
    if (result == 0 && (old.is_compressed || entry.host != old.host))
        qcow2_release_entry(q, &old, how != CLEAR_KEEP);
    return result;
}

static int write_zeros(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    struct qcow2_run run = {.length = 0};
    pthread_mutex_lock(&q->lock);
    int result = qcow2_find(q, offset, length, false, true, &run);
    pthread_mutex_unlock(&q->lock);
    bool is_zero = run.kind == QCOW2_ZEROS || (run.kind == QCOW2_UNDER && is_bottomless(q, offset));
    if (result < 0 || (run.length == length && is_zero))
        return result;
    auto_free uint8_t *zeros = alloc_zero((size_t)length);
    if (zeros == NULL)
        return -ENOMEM;
    const struct iovec part = {zeros, (size_t)length};
    const struct parts parts = {&part, 1, 0, length};
    return qcow2_write_guest(q, &parts, offset, true);
}

/* The part of a cluster that begins at `offset`. */
static int clear_part(struct qcow2 *q, uint64_t offset, uint64_t length, enum clearing how)
{
    uint64_t in_cluster = offset & (q->cluster_bytes - 1), unit_bytes = UINT64_C(1) << q->unit_bits;
    uint64_t end = in_cluster + length;
    if (offset + length == q->size_bytes) /* nobody reads what is behind the disk's end */
        end = (end + unit_bytes - 1) & ~(unit_bytes - 1);
    uint64_t first = (in_cluster + unit_bytes - 1) >> q->unit_bits, behind = end >> q->unit_bits;
    uint64_t head = (first << q->unit_bits) - in_cluster;
    int result = 0;
    bool leaves_rest = how == CLEAR_DISCARD || how == CLEAR_FORGET;
    if (first >= behind)
        return leaves_rest ? 0 : write_zeros(q, offset, length);
    uint32_t units = (uint32_t)(((UINT64_C(1) << behind) - 1) & ~((UINT64_C(1) << first) - 1));
    uint64_t tail_at = (behind << q->unit_bits) - in_cluster;
    result = clear_units(q, offset + head, units, how);
    if (leaves_rest)
        return result == -EOPNOTSUPP ? 0 : result;
    if (result == -EOPNOTSUPP)
        return write_zeros(q, offset, length);
    if (result == 0 && head > 0)
        result = write_zeros(q, offset, head);
    if (result == 0 && tail_at < length)
        result = write_zeros(q, offset + tail_at, length - tail_at);
    return result;
}

/* How far nothing is to be done from `offset` on, or 0. */
static int skip(struct qcow2 *q, uint64_t offset, uint64_t length, enum clearing how, uint64_t *ret_skipped)
{
    struct qcow2_run run = {.length = 0};
    pthread_mutex_lock(&q->lock);
    int result = qcow2_find(q, offset, length, false, true, &run);
    pthread_mutex_unlock(&q->lock);
    bool is_done = (run.kind == QCOW2_UNDER && is_bottomless(q, offset)) ||
                   (run.kind == QCOW2_ZEROS && how == CLEAR_KEEP);
    *ret_skipped = result == 0 && is_done ? run.length : 0;
    return result;
}

static int clear_some(struct qcow2 *q, uint64_t offset, uint64_t length, enum clearing how, uint64_t *ret_done)
{
    uint64_t left = q->cluster_bytes - (offset & (q->cluster_bytes - 1));
    int result = skip(q, offset, length, how, ret_done);
    if (result < 0 || *ret_done > 0)
        return result;
    *ret_done = length < left ? length : left;
    return clear_part(q, offset, *ret_done, how);
}

static int clear_range(struct qcow2 *q, uint64_t offset, uint64_t length, enum clearing how, bool is_changing)
{
    int result = qcow2_check_writable(q);
    for (uint64_t done = 0, some = 0; done < length && result == 0; done += some) {
        if (!is_changing)
            pthread_mutex_lock(&q->change);
        result = clear_some(q, offset + done, length - done, how, &some);
        if (!is_changing)
            pthread_mutex_unlock(&q->change);
    }
    return result;
}

int qcow2_zero_guest(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    return clear_range(q, offset, length, CLEAR_UNMAP, true);
}

int qcow2_forget_guest(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    return clear_range(q, offset, length, CLEAR_FORGET, true);
}

int qcow2_zero(void *state, uint64_t offset, uint64_t length, bool may_unmap)
{
    struct qcow2 *q = state;
    return qcow2_result(q, clear_range(q, offset, length, may_unmap ? CLEAR_UNMAP : CLEAR_KEEP, false));
}

int qcow2_discard(void *state, uint64_t offset, uint64_t length)
{
    struct qcow2 *q = state;
    return qcow2_result(q, clear_range(q, offset, length, CLEAR_DISCARD, false));
}
