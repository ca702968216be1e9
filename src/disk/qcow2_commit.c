// SPDX-License-Identifier: Apache-2.0
/* In which order tables reach the file.
 *
 * Writes between two flushes may reach the medium in any order, or not at all. A crash must never find a table that
 * names what is not there, or a used cluster that counts as free. Freed clusters that still count as used (leaks) do no
 * harm. So what is named goes first:
 *
 *     data ─┐                                       (written by then: qcow2_write.c)
 *     refcounts, raised ─┴ flush ┐
 *     the refcount table ────────┴ flush ┐          (only when there are new blocks; they were written empty before)
 *     L2 tables, the L1 table ───────────┴ flush ┐  (a new L2 table was written empty, or as a copy, before)
 *     refcounts, lowered; clusters used again ───┴  (in memory; written with the next round)
 *
 * Refcounts in memory are never lower than what tables in the file need: lowering waits in q->freed until the third
 * flush. With lazy refcounts the mark in the header says that they cannot be believed after a crash, so they are not
 * written at all until the end, or until they fill the cache.
 *
 * Invariants: (1) no step begins before the one above it is on the medium. (2) a cluster is not given to anybody before
 * that holds for the tables that stopped naming it, and before nobody reads or writes there any more (q->moving).
 * (3) nothing is written for an image that was found damaged: its tables in memory come from broken ones.
 *
 * Trust: nothing here is read from the file.
 */
#include "disk/qcow2_state.h"

#include "base/log.h"

#include <fcntl.h>

enum { most_freed_waiting = 1024 };

static bool is_empty(const struct qcow2_range *range)
{
    return range->begin >= range->end;
}

static int write_refcounts(struct qcow2 *q)
{
    if (q->is_lazy && q->cache.dirty[QCOW2_REFCOUNTS] < q->cache.slot_count / 4)
        return 0;
    return qcow2_cache_write(q, QCOW2_REFCOUNTS);
}

static int write_range(struct qcow2 *q, const uint64_t *table, struct qcow2_range *range, uint64_t offset)
{
    int result = is_empty(range) ? 0 : qcow2_write_table(q, table, range->begin, range->end - range->begin, offset);
    if (result == 0)
        *range = (struct qcow2_range){0};
    return result;
}

/* What is named by tables: on the medium when this returns. */
static int write_named(struct qcow2 *q)
{
    int result = write_refcounts(q);
    if (result == 0)
        result = qcow2_sync(q);
    if (result < 0 || is_empty(&q->refcount_table_dirty))
        return result;
    result = write_range(q, q->refcount_table, &q->refcount_table_dirty, q->refcount_table_offset);
    return result < 0 ? result : qcow2_sync(q);
}

static int write_naming(struct qcow2 *q)
{
    int result = qcow2_cache_write(q, QCOW2_L2);
    if (result == 0)
        result = write_range(q, q->l1, &q->l1_dirty, q->l1_offset);
    return result < 0 ? result : qcow2_sync(q);
}

int qcow2_settle(struct qcow2 *q, int put_result)
{
    int none = 0;
    if (put_result < 0)
        atomic_compare_exchange_strong(&q->sync_error, &none, put_result);
    return qcow2_sync(q);
}

/* ---- clusters become free ---- */

static void punch(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    if (!q->file.is_device) /* whether it works is the host's affair: the clusters are free either way */
        (void)fallocate(q->file.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(cluster << q->cluster_bits),
                        (off_t)(count << q->cluster_bits));
}

static int lower_range(struct qcow2 *q, const struct qcow2_freed *freed)
{
    uint64_t begin = 0, count = 0; /* of a run that nobody uses now */
    int result = 0;
    for (uint64_t i = 0; i < freed->count && result == 0; i++) {
        uint64_t left = 0, cluster = freed->cluster + i;
        result = qcow2_refcount_lower(q, cluster, &left);
        if (result == 0 && left == 0 && freed->punches) {
            if (count > 0 && begin + count != cluster) {
                punch(q, begin, count);
                count = 0;
            }
            begin = count == 0 ? cluster : begin;
            count++;
        }
    }
    if (count > 0)
        punch(q, begin, count);
    return result;
}

static int apply_freed(struct qcow2 *q)
{
    int result = 0;
    if (q->freed_count == 0)
        return 0;
    if (q->freed_count < most_freed_waiting ? pthread_rwlock_trywrlock(&q->moving) != 0
                                            : pthread_rwlock_wrlock(&q->moving) != 0)
        return 0; /* somebody reads or writes: next time */
    qcow2_forget_unpacked(q);
    size_t done = 0;
    while (done < q->freed_count && result == 0 && !qcow2_cache_is_full(q))
        result = lower_range(q, &q->freed[done++]);
    pthread_rwlock_unlock(&q->moving);
    memmove(q->freed, q->freed + done, (q->freed_count - done) * sizeof(*q->freed));
    q->freed_count -= done;
    return result == QCOW2_DAMAGED ? result : 0; /* a block that cannot be read: those clusters stay lost */
}

int qcow2_commit(struct qcow2 *q)
{
    if (atomic_load(&q->is_damaged))
        return -EIO;
    int result = write_named(q);
    if (result == 0)
        result = write_naming(q);
    if (result < 0)
        return result;
    atomic_store(&q->needs_commit, false);
    return apply_freed(q);
}

int qcow2_commit_all(struct qcow2 *q)
{
    int result = atomic_load(&q->needs_commit) || q->freed_count > 0 ? qcow2_commit(q) : 0;
    while (result == 0 && q->freed_count > 0) {
        size_t before = q->freed_count;
        result = qcow2_cache_write(q, QCOW2_REFCOUNTS);
        if (result == 0)
            result = apply_freed(q);
        if (q->freed_count == before) /* somebody still reads: leave them, as leaks */
            break;
    }
    if (result == 0)
        result = qcow2_cache_write(q, QCOW2_REFCOUNTS);
    return result < 0 ? result : write_range(q, q->refcount_table, &q->refcount_table_dirty, q->refcount_table_offset);
}

/* The mark that refcounts in the file are not kept up: on the medium before the first of them is wrong. */
static int mark_dirty(struct qcow2 *q)
{
    q->incompatible |= QCOW2_DIRTY;
    int result = qcow2_put_features(q);
    if (result == 0)
        result = qcow2_sync(q);
    q->has_dirty_mark = result == 0;
    return result;
}

int qcow2_begin_step(struct qcow2 *q)
{
    int result = qcow2_check_writable(q);
    if (result == 0 && q->is_lazy && !q->has_dirty_mark)
        result = mark_dirty(q);
    if (result == 0 && (qcow2_cache_is_full(q) || q->freed_count >= most_freed_waiting))
        result = qcow2_commit(q);
    return result;
}
