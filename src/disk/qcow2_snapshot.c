// SPDX-License-Identifier: Apache-2.0
/* Snapshots inside a qcow2 image: an L1 table of their own over the same L2 tables and clusters.
 *
 *     active L1   [A][B][C]          create: each table and cluster counts once more, nothing is ours alone (COPIED)
 *                  |  |  |           write: copies what is shared, table and cluster
 *     snapshot L1 [A][B][C]          apply: a copy of the snapshot's L1 becomes the active one
 *                                    remove: each counts once less
 *
 * The order makes a crash harmless: counts are raised before the header names what they count, and lowered when it has
 * stopped to. At worst clusters count too often; they are copied when written to, and a check finds them.
 *
 * Invariants: (1) a list of snapshots is on the medium, with what it names, before the header names it. (2) COPIED is
 * set in active tables exactly where the refcount is 1, after a call succeeded. (3) the list in memory is the file's.
 *
 * Trust: tables of snapshots are as hostile as any. Names are the user's, and those in the file anybody's.
 */
#include "disk/qcow2_state.h"

#include "base/alloc.h"
#include "base/limits.h"
#include "base/text.h"

#include <stdio.h>
#include <time.h>

/* ---- all that an L1 table leads to ---- */

enum tree_action { TREE_ASK, TREE_RAISE, TREE_RELEASE };

static int act_on_clusters(struct qcow2 *q, enum tree_action action, uint64_t first, uint64_t count)
{
    uint64_t refcount = 0;
    int result = 0;
    if (action == TREE_RELEASE)
        qcow2_release(q, first, count, false);
    for (uint64_t i = 0; i < count && action == TREE_RAISE && result == 0; i++)
        result = qcow2_refcount_raise(q, first + i, 1);
    for (uint64_t i = 0; i < count && action == TREE_ASK && result == 0; i++) {
        pthread_mutex_lock(&q->lock);
        result = qcow2_refcount(q, first + i, true, &refcount);
        pthread_mutex_unlock(&q->lock);
        if (result == 0 && refcount >= q->most_refcount)
            result = -EOVERFLOW;
    }
    return result;
}

static int act_on_entry(struct qcow2 *q, enum tree_action action, const struct qcow2_entry *entry)
{
    int result = qcow2_check_entry(q, entry);
    if (result < 0)
        return result;
    if (entry->is_compressed) {
        uint64_t first = entry->packed_offset >> q->cluster_bits;
        uint64_t last = (entry->packed_offset + entry->packed_bytes - 1) >> q->cluster_bits;
        return act_on_clusters(q, action, first, last - first + 1);
    }
    return entry->host == 0 ? 0 : act_on_clusters(q, action, entry->host >> q->cluster_bits, 1);
}

static int act_on_table(struct qcow2 *q, enum tree_action action, uint64_t offset)
{
    for (uint64_t at = 0; at < q->cluster_bytes; at += q->entry_bytes) {
        struct qcow2_slot *slot = NULL;
        struct qcow2_entry entry = {.host = 0};
        int result = qcow2_begin_step(q);
        if (result < 0)
            return result;
        pthread_mutex_lock(&q->lock);
        result = qcow2_slice(q, QCOW2_L2, offset + at, true, &slot);
        if (result == 0)
            result = qcow2_decode(q, slot->bytes + (at & (q->cache.slice_bytes - 1)), &entry);
        pthread_mutex_unlock(&q->lock);
        if (result == 0)
            result = act_on_entry(q, action, &entry);
        if (result < 0)
            return result;
    }
    return act_on_clusters(q, action, offset >> q->cluster_bits, 1);
}

static int act_on_tree(struct qcow2 *q, enum tree_action action, const uint64_t *l1, uint64_t entries)
{
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t offset = 0;
        int result = qcow2_l2_offset(q, l1[i], &offset);
        if (result == 0 && offset != 0)
            result = act_on_table(q, action, offset);
        if (result < 0)
            return result;
    }
    return 0;
}

/* Counts once more all that the table leads to, itself not included; if that would not fit, nothing has changed. */
static int raise_tree(struct qcow2 *q, const uint64_t *l1, uint64_t entries)
{
    int result = q->refcount_order < 4 ? act_on_tree(q, TREE_ASK, l1, entries) : 0;
    return result < 0 ? result : act_on_tree(q, TREE_RAISE, l1, entries);
}

/* ---- COPIED ---- */

/* What the bit has to be for a cluster of the active tables; under lock. */
static int count_is_one(struct qcow2 *q, uint64_t offset, bool *ret_is_one)
{
    uint64_t count = 0;
    int result = qcow2_refcount(q, offset >> q->cluster_bits, true, &count);
    *ret_is_one = count == 1;
    return result;
}

/* The bit of one entry of an L2 table; under lock. */
static int mark_entry(struct qcow2 *q, uint64_t at)
{
    struct qcow2_slot *slot = NULL;
    struct qcow2_entry entry;
    bool is_one = false;
    int result = qcow2_slice(q, QCOW2_L2, at, true, &slot);
    if (result < 0)
        return result;
    uint8_t *bytes = slot->bytes + (at & (q->cache.slice_bytes - 1));
    result = qcow2_decode(q, bytes, &entry);
    if (result < 0 || entry.is_compressed || entry.host == 0)
        return result;
    slot->is_pinned = true;
    result = count_is_one(q, entry.host, &is_one);
    slot->is_pinned = false;
    if (result == 0 && is_one != entry.is_copied) {
        entry.is_copied = is_one;
        qcow2_encode(q, &entry, bytes);
        qcow2_slice_changed(q, slot);
        atomic_store(&q->needs_commit, true);
    }
    return result;
}

static int mark_table(struct qcow2 *q, uint64_t offset)
{
    int result = 0;
    for (uint64_t at = 0; at < q->cluster_bytes && result == 0; at += q->entry_bytes) {
        result = qcow2_begin_step(q);
        pthread_mutex_lock(&q->lock);
        if (result == 0)
            result = mark_entry(q, offset + at);
        pthread_mutex_unlock(&q->lock);
    }
    return result;
}

/* Sets and clears COPIED in the active tables, as the refcounts say. */
static int mark_active(struct qcow2 *q)
{
    for (uint32_t i = 0; i < q->l1_entries; i++) {
        uint64_t offset = 0;
        bool is_one = false;
        int result = qcow2_l2_offset(q, q->l1[i], &offset);
        if (result == 0 && offset == 0)
            continue;
        pthread_mutex_lock(&q->lock);
        if (result == 0)
            result = count_is_one(q, offset, &is_one);
        if (result == 0)
            q->l1[i] = offset | (is_one ? QCOW2_COPIED : 0);
        pthread_mutex_unlock(&q->lock);
        if (result == 0)
            result = mark_table(q, offset);
        if (result < 0)
            return result;
    }
    q->l1_dirty = (struct qcow2_range){0, q->l1_entries};
    atomic_store(&q->needs_commit, true);
    return 0;
}

/* After something was released: until the counts are what they will be, and the bits agree. The index was made anew
 * before the release: what is released is no table of ours any more. */
static int settle_counts(struct qcow2 *q)
{
    int result = qcow2_commit_all(q);
    if (result == 0)
        result = mark_active(q);
    if (result == 0)
        result = qcow2_commit_all(q);
    if (result == 0)
        result = qcow2_sync(q);
    return result;
}

/* ---- the list ---- */

static struct qcow2_snapshot *find_snapshot(const struct qcow2 *q, const char *name)
{
    for (uint32_t i = 0; i < q->snapshot_count; i++)
        if (strcmp(q->snapshots[i].shown.name, name) == 0)
            return &q->snapshots[i];
    for (uint32_t i = 0; i < q->snapshot_count; i++)
        if (strcmp(q->snapshots[i].shown.id, name) == 0)
            return &q->snapshots[i];
    return NULL;
}

/* A copy of the list without one of its entries (NULL: with all), with room for one more at its end. */
static struct qcow2_snapshot *copy_list(const struct qcow2 *q, const struct qcow2_snapshot *without,
                                        uint32_t *ret_count)
{
    struct qcow2_snapshot *list = alloc_zero((q->snapshot_count + 1) * sizeof(*list));
    uint32_t count = 0;
    for (uint32_t i = 0; list != NULL && i < q->snapshot_count; i++) {
        const struct qcow2_snapshot *old = &q->snapshots[i];
        if (old == without)
            continue;
        list[count] = *old;
        list[count].record = alloc_zero(old->record_bytes);
        if (list[count].record == NULL) {
            qcow2_snapshots_release(list, count);
            return NULL;
        }
        memcpy(list[count++].record, old->record, old->record_bytes);
    }
    *ret_count = count;
    return list;
}

static uint64_t next_id(const struct qcow2 *q)
{
    uint64_t most = 0, id = 0;
    for (uint32_t i = 0; i < q->snapshot_count; i++) {
        const char *text = q->snapshots[i].shown.id;
        if (text_to_u64(text, strlen(text), UINT32_MAX, &id) == 0 && id > most)
            most = id;
    }
    return most + 1;
}

/* A record for a snapshot of the disk as it is now. */
static int make_record(const struct qcow2 *q, const char *name, uint64_t l1_offset, struct qcow2_snapshot *snapshot)
{
    enum { fixed_bytes = 40, extra_bytes = 16 };
    struct timespec now = {0};
    char id[24];
    int id_bytes = snprintf(id, sizeof(id), "%llu", (unsigned long long)next_id(q));
    size_t name_bytes = strlen(name), head_bytes = fixed_bytes + extra_bytes;
    clock_gettime(CLOCK_REALTIME, &now);
    snapshot->record_bytes = head_bytes + (size_t)id_bytes + name_bytes;
    snapshot->record = alloc_zero(snapshot->record_bytes);
    if (snapshot->record == NULL)
        return -ENOMEM;
    uint8_t *record = snapshot->record;
    qcow2_put64(record, l1_offset);
    qcow2_put32(record + 8, q->l1_entries);
    qcow2_put16(record + 12, (uint32_t)id_bytes);
    qcow2_put16(record + 14, (uint32_t)name_bytes);
    qcow2_put32(record + 16, (uint32_t)now.tv_sec);
    qcow2_put32(record + 20, (uint32_t)now.tv_nsec);
    qcow2_put32(record + 36, extra_bytes);
    qcow2_put64(record + fixed_bytes + 8, q->size_bytes);
    memcpy(record + head_bytes, id, (size_t)id_bytes);
    memcpy(record + head_bytes + id_bytes, name, name_bytes);
    snapshot->l1_offset = l1_offset;
    snapshot->l1_entries = q->l1_entries;
    snapshot->shown = (struct image_snapshot){
        .disk_bytes = q->size_bytes, .seconds = (uint64_t)now.tv_sec, .nanoseconds = (uint32_t)now.tv_nsec};
    memcpy(snapshot->shown.id, id, (size_t)id_bytes + 1);
    memcpy(snapshot->shown.name, name, name_bytes + 1);
    return 0;
}

int qcow2_snapshot_list(const void *state, struct image_snapshot **ret_snapshots, size_t *ret_count,
                        struct vial_error *err)
{
    const struct qcow2 *q = state;
    struct image_snapshot *list = NULL;
    if (q->snapshot_count > 0) {
        list = alloc_zero(q->snapshot_count * sizeof(*list));
        if (list == NULL)
            return error_no_memory(err, VIAL_PHASE_RUN);
    }
    for (uint32_t i = 0; i < q->snapshot_count; i++)
        list[i] = q->snapshots[i].shown;
    *ret_snapshots = list;
    *ret_count = q->snapshot_count;
    return 0;
}

/* ---- making, applying, removing: under change ---- */

static int read_l1(struct qcow2 *q, const struct qcow2_snapshot *snapshot, uint32_t entries, uint64_t **ret_l1)
{
    uint64_t *l1 = alloc_zero((entries > 0 ? entries : 1) * sizeof(*l1));
    if (l1 == NULL)
        return -ENOMEM;
    int result = qcow2_read_table(q, l1, snapshot->l1_entries, snapshot->l1_offset);
    for (uint32_t i = 0; i < snapshot->l1_entries; i++)
        l1[i] &= ~QCOW2_COPIED; /* which only holds in active tables */
    if (result < 0) {
        free(l1);
        return result;
    }
    *ret_l1 = l1;
    return 0;
}

/* A copy of the active L1 table in the file. */
static int copy_l1(struct qcow2 *q, uint64_t *ret_cluster, uint64_t *ret_count)
{
    uint64_t clusters = qcow2_clusters(q, q->l1_entries * UINT64_C(8));
    *ret_cluster = *ret_count = 0;
    int result = clusters > 0 ? qcow2_allocate(q, clusters, clusters, ret_cluster, ret_count) : 0;
    if (result == 0)
        result = qcow2_extend(q, (*ret_cluster + clusters) << q->cluster_bits);
    return result < 0 ? result : qcow2_write_table(q, q->l1, 0, q->l1_entries, *ret_cluster << q->cluster_bits);
}

static int create(struct qcow2 *q, const char *name)
{
    uint64_t cluster = 0, taken = 0;
    uint32_t count = 0;
    int result = qcow2_begin_step(q);
    if (result == 0)
        result = qcow2_commit_all(q); /* counts of what was released do not hide what is ours alone */
    if (result == 0)
        result = raise_tree(q, q->l1, q->l1_entries);
    if (result == 0)
        result = mark_active(q);
    if (result == 0)
        result = copy_l1(q, &cluster, &taken);
    struct qcow2_snapshot *list = result == 0 ? copy_list(q, NULL, &count) : NULL;
    if (result == 0)
        result = list == NULL ? -ENOMEM : make_record(q, name, cluster << q->cluster_bits, &list[count]);
    if (result == 0)
        result = qcow2_write_snapshots(q, list, count + 1);
    if (result < 0 && q->snapshots != list) {
        if (taken > 0)
            qcow2_give_back(q, cluster, taken);
        qcow2_snapshots_release(list, list != NULL ? count + 1 : 0);
    }
    if (result == 0)
        result = qcow2_index_metadata(q);
    return result == 0 ? settle_counts(q) : result;
}

static int apply(struct qcow2 *q, const struct qcow2_snapshot *snapshot)
{
    uint64_t size_bytes = snapshot->shown.disk_bytes, needed = qcow2_l1_needed(q, size_bytes);
    uint32_t old_entries = q->l1_entries;
    if (size_bytes > INT64_MAX || size_bytes % 512 != 0 || needed > LIMIT_QCOW2_L1_BYTES / 8)
        return qcow2_damage(q, "a snapshot has an impossible size", size_bytes);
    uint32_t entries = needed > snapshot->l1_entries ? (uint32_t)needed : snapshot->l1_entries;
    auto_free uint64_t *old = alloc_zero((old_entries + UINT64_C(1)) * sizeof(*old));
    auto_free uint64_t *l1 = NULL;
    int result = old == NULL ? -ENOMEM : qcow2_begin_step(q);
    if (result == 0)
        result = read_l1(q, snapshot, entries, &l1);
    if (result == 0)
        result = raise_tree(q, l1, entries);
    if (result < 0)
        return result;
    memcpy(old, q->l1, old_entries * sizeof(*old));
    result = qcow2_replace_l1(q, l1, entries, size_bytes);
    if (q->l1 == l1)
        (void)steal_ptr(l1);
    if (result == 0)
        result = qcow2_index_metadata(q);
    if (result == 0)
        result = act_on_tree(q, TREE_RELEASE, old, old_entries);
    return result == 0 ? settle_counts(q) : result;
}

static int remove_snapshot(struct qcow2 *q, struct qcow2_snapshot *snapshot)
{
    const struct qcow2_snapshot gone = *snapshot; /* its record goes with the list */
    auto_free uint64_t *l1 = NULL;
    uint32_t count = 0;
    int result = qcow2_begin_step(q);
    if (result == 0)
        result = read_l1(q, &gone, gone.l1_entries, &l1);
    struct qcow2_snapshot *list = result == 0 ? copy_list(q, snapshot, &count) : NULL;
    if (result == 0)
        result = list == NULL ? -ENOMEM : qcow2_write_snapshots(q, list, count);
    if (result < 0 && q->snapshots != list)
        qcow2_snapshots_release(list, count);
    if (result == 0)
        result = qcow2_index_metadata(q);
    if (result == 0)
        result = act_on_tree(q, TREE_RELEASE, l1, gone.l1_entries);
    if (result == 0 && gone.l1_entries > 0)
        qcow2_release(q, gone.l1_offset >> q->cluster_bits, qcow2_clusters(q, gone.l1_entries * UINT64_C(8)), false);
    return result == 0 ? settle_counts(q) : result;
}

/* ---- what callers see ---- */

static int report(struct qcow2 *q, int result, const char *what, const char *name, struct vial_error *err)
{
    result = qcow2_result(q, result);
    if (result == 0)
        return 0;
    pthread_mutex_lock(&q->change);
    int indexed = qcow2_index_metadata(q); /* something of what was done may hold */
    pthread_mutex_unlock(&q->change);
    if (qcow2_result(q, indexed) < 0)
        atomic_store(&q->is_damaged, true); /* where its tables are is not known: nothing is written any more */
    if (result == -EOVERFLOW) {
        result = error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_RUN,
                           "%s counts the uses of a cluster in %u bits, too few for one more snapshot",
                           error_short(q->file.path).text, 1u << q->refcount_order);
        error_remedy(err, "remove a snapshot, or convert the image to one with wider refcounts");
        return result;
    }
    return error_set_os(err, VIAL_PHASE_RUN, result, "cannot %s the snapshot %s of %s", what, error_short(name).text,
                        error_short(q->file.path).text);
}

static int refuse_unknown(const struct qcow2 *q, const char *name, struct vial_error *err)
{
    int result = error_set(err, VIAL_ERROR_NOT_FOUND, VIAL_PHASE_RUN, "%s has no snapshot %s",
                           error_short(q->file.path).text, error_short(name).text);
    error_value(err, "%s", name);
    error_remedy(err, "list them: vial disk snapshot list");
    return result;
}

int qcow2_snapshot_create(void *state, const char *name, struct vial_error *err)
{
    struct qcow2 *q = state;
    if (name[0] == '\0' || strlen(name) >= sizeof(((struct image_snapshot *)NULL)->name)) {
        int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_RUN, "a snapshot cannot have this name");
        error_value(err, "%s", name);
        error_remedy(err, "use 1 to 255 bytes");
        return result;
    }
    if (find_snapshot(q, name) != NULL) {
        int result = error_set(err, VIAL_ERROR_DUPLICATE, VIAL_PHASE_RUN, "%s has a snapshot %s already",
                               error_short(q->file.path).text, error_short(name).text);
        error_remedy(err, "take another name, or remove that one");
        return result;
    }
    if (q->snapshot_count >= LIMIT_QCOW2_SNAPSHOTS)
        return error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_RUN, "%s has %u snapshots, and room for no more",
                         error_short(q->file.path).text, q->snapshot_count);
    pthread_mutex_lock(&q->change);
    int result = create(q, name);
    pthread_mutex_unlock(&q->change);
    return report(q, result, "make", name, err);
}

int qcow2_snapshot_apply(void *state, const char *name, struct vial_error *err)
{
    struct qcow2 *q = state;
    const struct qcow2_snapshot *snapshot = find_snapshot(q, name);
    if (snapshot == NULL)
        return refuse_unknown(q, name, err);
    pthread_mutex_lock(&q->change);
    int result = apply(q, snapshot);
    pthread_mutex_unlock(&q->change);
    return report(q, result, "apply", name, err);
}

int qcow2_snapshot_remove(void *state, const char *name, struct vial_error *err)
{
    struct qcow2 *q = state;
    struct qcow2_snapshot *snapshot = find_snapshot(q, name);
    if (snapshot == NULL)
        return refuse_unknown(q, name, err);
    pthread_mutex_lock(&q->change);
    int result = remove_snapshot(q, snapshot);
    pthread_mutex_unlock(&q->change);
    return report(q, result, "remove", name, err);
}
