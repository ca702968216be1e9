// SPDX-License-Identifier: Apache-2.0
/* Another size for a qcow2 disk, and another L1 table for an image.
 *
 * Growing: what becomes visible must be zeros, whatever the last cluster or the disk under the image hold there; that
 * is cleared first, while it still lies outside. Then the header gets the size, and with it a longer L1 table if the
 * old one is too short: both in one write. Shrinking: what will lie outside is let go, then the header gets the size.
 *
 * Invariants: (1) header, L1 table and size always belong together, on the medium and in memory. (2) an L1 table is in
 * the file, with its refcounts, before the header names it. (3) a crash leaves the old size or the new one.
 *
 * Trust: sizes are the caller's; disk.c checks that they are whole sectors.
 */
#include "disk/qcow2_state.h"

#include "base/alloc.h"
#include "base/limits.h"

uint64_t qcow2_l1_needed(const struct qcow2 *q, uint64_t size_bytes)
{
    uint64_t clusters = qcow2_clusters(q, size_bytes), per_table = UINT64_C(1) << q->l2_bits;
    return clusters / per_table + (clusters % per_table != 0);
}

int qcow2_replace_l1(struct qcow2 *q, uint64_t *l1, uint32_t entries, uint64_t size_bytes)
{
    uint64_t cluster = 0, taken = 0, old_offset = q->l1_offset, old_bytes = q->l1_entries * UINT64_C(8);
    uint64_t clusters = qcow2_clusters(q, entries * UINT64_C(8));
    int result = clusters > 0 ? qcow2_allocate(q, clusters, clusters, &cluster, &taken) : 0;
    if (result == 0)
        result = qcow2_write_zeros(q, clusters << q->cluster_bits, cluster << q->cluster_bits);
    if (result == 0)
        result = qcow2_write_table(q, l1, 0, entries, cluster << q->cluster_bits);
    if (result == 0)
        result = qcow2_commit_all(q);
    if (result == 0)
        result = qcow2_sync(q);
    if (result == 0)
        result = qcow2_claim_tables(q, cluster, clusters);
    if (result < 0) {
        qcow2_give_back(q, cluster, taken);
        return result;
    }
    pthread_mutex_lock(&q->lock);
    free(q->l1);
    q->l1 = l1;
    q->l1_entries = entries;
    q->l1_offset = cluster << q->cluster_bits;
    q->l1_dirty = (struct qcow2_range){0};
    q->size_bytes = size_bytes;
    pthread_mutex_unlock(&q->lock);
    result = qcow2_settle(q, qcow2_put_disk(q));
    if (result == 0 && old_offset != 0)
        qcow2_release_tables(q, old_offset >> q->cluster_bits, qcow2_clusters(q, old_bytes));
    return result;
}

/* The same table with room for more; the size stays. */
static int lengthen(struct qcow2 *q, uint64_t entries)
{
    if (entries > LIMIT_QCOW2_L1_BYTES / 8)
        return -EFBIG;
    int result = qcow2_commit(q); /* the copy must name only what is in the file */
    if (result < 0)
        return result;
    uint64_t *l1 = alloc_zero(entries * sizeof(*l1));
    if (l1 == NULL)
        return -ENOMEM;
    memcpy(l1, q->l1, q->l1_entries * sizeof(*l1));
    result = qcow2_replace_l1(q, l1, (uint32_t)entries, q->size_bytes);
    if (q->l1 != l1)
        free(l1);
    return result;
}

static int put_size(struct qcow2 *q, uint64_t size_bytes)
{
    int result = qcow2_commit(q);
    if (result < 0)
        return result;
    pthread_mutex_lock(&q->lock);
    q->size_bytes = size_bytes;
    pthread_mutex_unlock(&q->lock);
    return qcow2_settle(q, qcow2_put_disk(q));
}

static int grow(struct qcow2 *q, uint64_t size_bytes)
{
    uint64_t entries = qcow2_l1_needed(q, size_bytes);
    int result = qcow2_begin_step(q);
    if (result == 0 && entries > q->l1_entries)
        result = lengthen(q, entries);
    if (result == 0)
        result = qcow2_zero_guest(q, q->size_bytes, size_bytes - q->size_bytes);
    return result < 0 ? result : put_size(q, size_bytes);
}

static int shrink(struct qcow2 *q, uint64_t size_bytes)
{
    uint64_t first = (size_bytes + q->cluster_bytes - 1) & ~(q->cluster_bytes - 1);
    int result = qcow2_begin_step(q);
    if (result == 0 && first < q->size_bytes)
        result = qcow2_forget_guest(q, first, q->size_bytes - first);
    return result < 0 ? result : put_size(q, size_bytes);
}

int qcow2_resize(void *state, uint64_t size_bytes, bool may_shrink, struct vial_error *err)
{
    struct qcow2 *q = state;
    bool shrinks = size_bytes < q->size_bytes;
    if (shrinks && (!may_shrink || q->snapshot_count > 0)) {
        int result = error_set(err, VIAL_ERROR_CONFLICT, VIAL_PHASE_RUN, "%s cannot become smaller: %s",
                               error_short(q->file.path).text, may_shrink ? "it has snapshots" : "data would be lost");
        error_remedy(err, may_shrink ? "remove its snapshots first" : "allow it to shrink");
        return result;
    }
    pthread_mutex_lock(&q->change);
    int result = shrinks ? shrink(q, size_bytes) : grow(q, size_bytes);
    pthread_mutex_unlock(&q->change);
    result = qcow2_result(q, result);
    return result < 0 ? error_set_os(err, VIAL_PHASE_RUN, result, "cannot resize %s", error_short(q->file.path).text)
                      : 0;
}
