// SPDX-License-Identifier: Apache-2.0
/* qcow2 images: a disk in pieces (clusters), with tables that say where each is, and counts of who uses it.
 *
 *     header ─┬─> L1 table ──> L2 tables ──> clusters of data, packed (compressed) ones, or "zeros"
 *             │                               no entry: what lies under the image (its backing file), or zeros
 *             ├─> refcount table ──> refcount blocks: for each cluster of the file, how many tables name it
 *             └─> snapshots: a name, and an L1 table of their own that shares L2 tables and clusters with ours
 *
 * A cluster that only we use has the bit COPIED in its entry and may be written in place; that is what qcow2_map tells,
 * and then no more of this code is needed. All else goes through tables in memory (qcow2_table.c), which become those
 * in the file at a flush (qcow2_commit.c, where the order is).
 *
 *     read    qcow2_read.c      find the run, read it from the file, from under the image, or unpack it
 *     write   qcow2_write.c     in place; or allocate, fill up what the write leaves out, change the entry
 *     zero    qcow2_zero.c      change the entry, release the cluster
 *     free    qcow2_refcount.c  a cluster is free again when the tables in the file do not name it any more
 *
 * An image that turns out to be broken is marked (version 3) and not written to from then on; what can be read is.
 *
 * Invariants: (1) no cluster that holds structures of the image is ever written as data. (2) after a crash at any
 * moment, each flushed write is there, and the worst that the image has are clusters that nobody uses. (3) nothing of
 * the file is believed before it was checked; nothing in it can make us loop without end, or allocate without bound
 * (base/limits.h). (4) an image that was open for writing has no feature marked that we do not keep up (autoclear).
 *
 * Trust: the file is hostile, all of it. The guest decides on offsets and contents, within ranges that disk.c checks.
 */
#include "disk/qcow2_state.h"

#include "base/alloc.h"
#include "base/limits.h"
#include "base/log.h"

#include <stdio.h>

/* ---- what is broken ---- */

int qcow2_damage(struct qcow2 *q, const char *what, uint64_t where)
{
    pthread_mutex_lock(&q->damage_lock);
    if (q->damage_what == NULL) {
        q->damage_what = what;
        q->damage_where = where;
    }
    pthread_mutex_unlock(&q->damage_lock);
    return QCOW2_DAMAGED;
}

int qcow2_result(struct qcow2 *q, int result)
{
    if (result != QCOW2_DAMAGED)
        return result;
    if (atomic_exchange(&q->is_damaged, true))
        return -EIO;
    pthread_mutex_lock(&q->damage_lock);
    log_error("qcow2.corrupt", LOG_TEXT("path", q->file.path), LOG_TEXT("what", q->damage_what),
              LOG_HEX("offset", q->damage_where));
    pthread_mutex_unlock(&q->damage_lock);
    if (q->is_read_only || q->version < 3)
        return -EIO;
    pthread_mutex_lock(&q->change);
    q->incompatible |= QCOW2_CORRUPT;
    int marked = qcow2_put_features(q);
    if (marked == 0)
        marked = qcow2_sync(q);
    pthread_mutex_unlock(&q->change);
    if (marked < 0)
        log_warn("qcow2.mark_failed", LOG_TEXT("path", q->file.path), LOG_ERRNO(marked));
    return -EIO;
}

int qcow2_check_writable(struct qcow2 *q)
{
    if (q->is_read_only)
        return -EROFS;
    return atomic_load(&q->is_damaged) ? -EIO : 0;
}

/* ---- what must not be written over ---- */

static int index_cluster(struct qcow2 *q, struct qcow2_set *set, uint64_t number)
{
    if (qcow2_set_contains(set, number))
        return qcow2_damage(q, "two tables lie in one cluster", number << q->cluster_bits);
    return qcow2_set_add(set, number);
}

static int index_range(struct qcow2 *q, struct qcow2_set *set, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset >> q->cluster_bits, count = qcow2_clusters(q, bytes);
    int result = 0;
    for (uint64_t i = 0; i < count && result == 0; i++)
        result = index_cluster(q, set, first + i);
    return result;
}

/* The clusters that entries of a table point to. One behind the file's end would be data's as soon as the file is that
 * long. */
static int index_entries(struct qcow2 *q, struct qcow2_set *set, const uint64_t *entries, uint64_t count, uint64_t mask)
{
    int result = 0;
    for (uint64_t i = 0; i < count && result == 0; i++) {
        uint64_t offset = entries[i] & mask;
        if (offset != 0)
            result = qcow2_is_place(q, offset) ? index_cluster(q, set, offset >> q->cluster_bits)
                                               : qcow2_damage(q, "a table is nowhere in the file", offset);
    }
    return result;
}

static int index_all(struct qcow2 *q, struct qcow2_set *set)
{
    int result = index_range(q, set, 0, 1);
    if (result == 0)
        result = index_range(q, set, q->l1_offset, q->l1_entries * UINT64_C(8));
    if (result == 0)
        result = index_range(q, set, q->refcount_table_offset, q->refcount_table_entries * 8);
    if (result == 0)
        result = index_range(q, set, q->snapshots_offset, q->snapshots_bytes);
    for (uint32_t i = 0; i < q->snapshot_count && result == 0; i++)
        result = index_range(q, set, q->snapshots[i].l1_offset, q->snapshots[i].l1_entries * UINT64_C(8));
    if (result == 0)
        result = index_entries(q, set, q->l1, q->l1_entries, QCOW2_OFFSET_MASK);
    if (result == 0)
        result = index_entries(q, set, q->refcount_table, q->refcount_table_entries, ~UINT64_C(511));
    return result;
}

int qcow2_index_metadata(struct qcow2 *q)
{
    struct qcow2_set made = {.capacity = 0}, old = made;
    int result = index_all(q, &made);
    if (result < 0) {
        qcow2_set_release(&made);
        return result;
    }
    pthread_mutex_lock(&q->lock);
    old = q->metadata;
    q->metadata = made;
    pthread_mutex_unlock(&q->lock);
    qcow2_set_release(&old);
    return 0;
}

int qcow2_claim_tables(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    int result = 0;
    uint64_t done = 0;
    pthread_mutex_lock(&q->lock);
    while (done < count && result == 0) {
        result = qcow2_set_add(&q->metadata, cluster + done);
        done += result == 0;
    }
    while (result < 0 && done > 0)
        qcow2_set_remove(&q->metadata, cluster + --done);
    pthread_mutex_unlock(&q->lock);
    return result;
}

static void disclaim_tables(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    pthread_mutex_lock(&q->lock);
    for (uint64_t i = 0; i < count; i++)
        qcow2_set_remove(&q->metadata, cluster + i);
    pthread_mutex_unlock(&q->lock);
}

void qcow2_release_tables(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    disclaim_tables(q, cluster, count);
    qcow2_release(q, cluster, count, false);
}

/* ---- opening ---- */

static void init_locks(struct qcow2 *q)
{
    pthread_rwlockattr_t attributes;
    pthread_mutex_init(&q->change, NULL);
    pthread_mutex_init(&q->lock, NULL);
    pthread_mutex_init(&q->damage_lock, NULL);
    pthread_mutex_init(&q->unpacked_lock, NULL);
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&q->moving, &attributes);
    pthread_rwlockattr_destroy(&attributes);
}

static int new_state(const struct disk_file *file, bool checks, struct qcow2 **ret_q)
{
    struct qcow2 *q = alloc_zero(sizeof(*q));
    if (q == NULL)
        return -ENOMEM;
    q->file = *file;
    q->alignment_bytes = file->alignment_bytes;
    q->is_read_only = file->is_read_only;
    q->checks = checks;
    atomic_init(&q->file_end, file->size_bytes);
    init_locks(q);
    *ret_q = q;
    return 0;
}

struct qcow2 *qcow2_free(struct qcow2 *q)
{
    if (q == NULL)
        return NULL;
    disk_free(q->backing);
    qcow2_snapshots_release(q->snapshots, q->snapshots != NULL ? q->snapshot_count : 0);
    qcow2_cache_release(q);
    qcow2_set_release(&q->metadata);
    free(q->l1);
    free(q->refcount_table);
    free(q->freed);
    free(q->unpacked);
    pthread_mutex_destroy(&q->change);
    pthread_mutex_destroy(&q->lock);
    pthread_mutex_destroy(&q->damage_lock);
    pthread_mutex_destroy(&q->unpacked_lock);
    pthread_rwlock_destroy(&q->moving);
    free(q);
    return NULL;
}

static int load_table(struct qcow2 *q, uint64_t offset, uint64_t entries, uint64_t **ret_table)
{
    uint64_t *table = alloc_zero(entries > 0 ? entries * sizeof(*table) : sizeof(*table));
    if (table == NULL)
        return -ENOMEM;
    int result = qcow2_read_table(q, table, entries, offset);
    if (result < 0) {
        free(table);
        return result;
    }
    *ret_table = table;
    return 0;
}

static int load_tables(struct qcow2 *q, struct vial_error *err)
{
    int result = qcow2_cache_init(q);
    if (result == 0)
        result = load_table(q, q->l1_offset, q->l1_entries, &q->l1);
    if (result == 0)
        result = load_table(q, q->refcount_table_offset, q->refcount_table_entries, &q->refcount_table);
    if (result == -ENOMEM)
        return error_no_memory(err, VIAL_PHASE_START);
    if (result < 0)
        return error_set_os(err, VIAL_PHASE_START, result, "cannot read the tables of %s",
                            error_short(q->file.path).text);
    return qcow2_read_snapshots(q, q->snapshots_offset, q->snapshot_count, err);
}

int qcow2_load(const struct disk_file *file, bool checks, struct qcow2 **ret_q, struct vial_error *err)
{
    struct qcow2 *q = NULL;
    int result = new_state(file, checks, &q);
    if (result < 0)
        return error_no_memory(err, VIAL_PHASE_START);
    result = qcow2_read_header(q, err);
    if (result == 0)
        result = load_tables(q, err);
    if (result < 0) {
        qcow2_free(q);
        return result;
    }
    *ret_q = q;
    return 0;
}

static int open_backing(struct qcow2 *q, struct disk_opener *opener, struct vial_error *err)
{
    enum vial_disk_format format = VIAL_DISK_UNSET; /* the caller's word, then */
    struct disk_properties properties;
    if (q->backing_name[0] == '\0')
        return 0;
    if (strcmp(q->backing_format, "raw") == 0)
        format = VIAL_DISK_RAW;
    else if (strcmp(q->backing_format, "qcow2") == 0)
        format = VIAL_DISK_QCOW2;
    else if (strcmp(q->backing_format, "vmdk") == 0)
        format = VIAL_DISK_VMDK;
    else if (q->backing_format[0] != '\0')
        return qcow2_refuse(q, err, VIAL_ERROR_UNSUPPORTED, "lies over a file of a format that is not known here");
    int result = disk_open_backing(opener, &q->file, q->backing_name, format, &q->backing, err);
    if (result < 0)
        return result;
    disk_describe(q->backing, &properties);
    q->backing_bytes = properties.size_bytes;
    if (properties.alignment_bytes > q->alignment_bytes)
        q->alignment_bytes = properties.alignment_bytes;
    return 0;
}

/* What has to be in order before the first write: refcounts that can be believed, and no promise of others' left. */
static int begin_writing(struct qcow2 *q, struct vial_error *err)
{
    int result = (q->incompatible & QCOW2_DIRTY) != 0 ? qcow2_recount(q, err) : 0;
    if (result < 0)
        return result;
    result = qcow2_index_metadata(q);
    if (result == -ENOMEM)
        return error_no_memory(err, VIAL_PHASE_START);
    if (result == -E2BIG)
        return qcow2_refuse(q, err, VIAL_ERROR_TOO_BIG, "has too many tables to be written to");
    if (result < 0) {
        result = qcow2_refuse(q, err, VIAL_ERROR_INVALID, "is broken (%s); it can only be read", q->damage_what);
        error_remedy(err, "save what is in it, then mend it: vial disk check --repair all");
        return result;
    }
    if (q->autoclear != 0) {
        q->autoclear = 0;
        result = qcow2_put_features(q);
        if (result == 0)
            result = qcow2_sync(q);
        if (result < 0)
            return error_set_os(err, VIAL_PHASE_START, result, "cannot write the header of %s",
                                error_short(q->file.path).text);
    }
    return 0;
}

/* ---- closing ---- */

int qcow2_write_back(struct qcow2 *q)
{
    int result = qcow2_check_writable(q);
    if (result == -EROFS)
        return 0;
    pthread_mutex_lock(&q->change);
    if (result == 0)
        result = qcow2_commit_all(q);
    if (result == 0 && q->has_dirty_mark) {
        q->incompatible &= ~QCOW2_DIRTY;
        result = qcow2_sync(q);
        if (result == 0)
            result = qcow2_put_features(q);
    }
    pthread_mutex_unlock(&q->change);
    return qcow2_result(q, result);
}

static int qcow2_close(void *state, struct vial_error *err)
{
    struct qcow2 *q = state;
    int result = qcow2_write_back(q);
    if (result < 0) {
        error_set_os(err, VIAL_PHASE_RUN, result, "cannot write back what is left of %s",
                     error_short(q->file.path).text);
        log_error("qcow2.close_failed", LOG_TEXT("path", q->file.path), LOG_ERRNO(result));
    }
    qcow2_free(q);
    return result;
}

/* ---- flushing ---- */

static int qcow2_flush(void *state)
{
    struct qcow2 *q = state;
    if (q->is_read_only)
        return 0;
    if (!atomic_load(&q->needs_commit))
        return qcow2_sync(q);
    pthread_mutex_lock(&q->change);
    int result = qcow2_commit(q);
    pthread_mutex_unlock(&q->change);
    return qcow2_result(q, result);
}

/* ---- the format ---- */

static const struct disk_ops qcow2_ops = {
    .name = "qcow2",
    .map = qcow2_map,
    .sync_fd = qcow2_sync_fd,
    .read = qcow2_read,
    .write = qcow2_write,
    .flush = qcow2_flush,
    .discard = qcow2_discard,
    .zero = qcow2_zero,
    .status = qcow2_status,
    .resize = qcow2_resize,
    .close = qcow2_close,
};

int qcow2_open(const struct disk_file *file, struct disk_opener *opener, struct disk_shape *ret_shape,
               struct vial_error *err)
{
    struct qcow2 *q = NULL;
    int result = qcow2_load(file, false, &q, err);
    if (result < 0)
        return result;
    result = open_backing(q, opener, err);
    if (result == 0 && !q->is_read_only)
        result = begin_writing(q, err);
    if (result < 0) {
        qcow2_free(q);
        return result;
    }
    *ret_shape = (struct disk_shape){.ops = &qcow2_ops,
                                     .state = q,
                                     .properties = {.format = VIAL_DISK_QCOW2,
                                                    .size_bytes = q->size_bytes,
                                                    .alignment_bytes = q->alignment_bytes,
                                                    .best_bytes = (uint32_t)q->cluster_bytes,
                                                    .is_read_only = q->is_read_only,
                                                    .can_discard = !q->is_read_only,
                                                    .discard_moves_data = true}};
    return 0;
}

void qcow2_info(const void *state, struct image_info *ret_info)
{
    const struct qcow2 *q = state;
    struct image_info info = {.format = VIAL_DISK_QCOW2,
                              .size_bytes = q->size_bytes,
                              .version = q->version,
                              .cluster_bytes = (uint32_t)q->cluster_bytes,
                              .refcount_bits = 1u << q->refcount_order,
                              .snapshot_count = q->snapshot_count,
                              .compression = q->compression,
                              .lazy_refcounts = q->is_lazy,
                              .is_dirty = (q->incompatible & QCOW2_DIRTY) != 0,
                              .is_corrupt = (q->incompatible & QCOW2_CORRUPT) != 0};
    snprintf(info.backing_path, sizeof(info.backing_path), "%s", q->backing_name);
    snprintf(info.backing_format, sizeof(info.backing_format), "%s", q->backing_format);
    *ret_info = info;
}
