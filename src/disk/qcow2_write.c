// SPDX-License-Identifier: Apache-2.0
/* Writing a qcow2 disk: in place where a cluster is ours, else into new clusters, several in a row at once.
 *
 *     guest     |....wwww|wwwwwwww|wwwwww..|      a write (w) over clusters that have no place of their own yet
 *     file      |ffffwwww|wwwwwwww|wwwwwwff|      new clusters in a row; f: filled with what the guest would read there
 *
 * With extended L2 entries the same happens to units of a cluster, and only what a new cluster must hold is filled.
 *
 * Where a new cluster lies behind the file's end, zeros need not be written: the file is made longer instead. The
 * entries change when all of it was written, so until then a reader, and whoever finds the image after a crash, sees
 * what was there before.
 *
 * Invariants: (1) data is written before an entry names it. (2) writing in place never waits for q->change, and holds
 * q->moving. (3) what fails leaves the tables as they were, and no cluster behind that it had taken. (4) one step stays
 * within one slice of an L2 table and LIMIT_QCOW2_STEP_BYTES.
 *
 * Trust: offsets and lengths were checked by disk.c; entries by qcow2_decode.
 */
#include "disk/qcow2_state.h"

#include "base/alloc.h"
#include "base/limits.h"

/* ---- in place ---- */

/* Writes as much as lies in place from the beginning on; 0 bytes are fine. */
static int write_in_place(struct qcow2 *q, const struct parts *parts, uint64_t offset, uint64_t *ret_done)
{
    struct qcow2_run run = {.length = 0};
    uint64_t done = 0;
    pthread_rwlock_rdlock(&q->moving);
    pthread_mutex_lock(&q->lock);
    int result = qcow2_find(q, offset, parts->length, true, true, &run);
    pthread_mutex_unlock(&q->lock);
    if (result == 0 && run.kind == QCOW2_DATA && run.is_writable) {
        const struct parts piece = parts_cut(parts, 0, run.length);
        result = qcow2_write_parts(q, &piece, run.host);
        done = run.length;
    }
    pthread_rwlock_unlock(&q->moving);
    if (result == 0)
        *ret_done = done;
    return result;
}

/* ---- what a step does ---- */

/* A write into clusters that lie in a row in the file: new ones, or one that is ours already and lacks units. */
struct step {
    uint64_t cluster, count;       /* of the guest */
    uint64_t host;                 /* cluster number in the file */
    bool is_new, is_fresh;         /* fresh: behind the file's end, so it holds zeros */
    uint64_t begin, end;           /* what is written, on the disk */
    uint64_t fill_begin, fill_end; /* what has to be in the new place, around it */
};

/* Units of a cluster that [begin, end) of the disk touches, as bits. */
static uint32_t touched_units(const struct qcow2 *q, uint64_t cluster, uint64_t begin, uint64_t end)
{
    uint64_t base = cluster << q->cluster_bits, unit_bytes = UINT64_C(1) << q->unit_bits;
    uint64_t from = begin > base ? begin - base : 0;
    uint64_t to = end - base < q->cluster_bytes ? end - base : q->cluster_bytes;
    uint64_t first = from >> q->unit_bits, behind = (to + unit_bytes - 1) >> q->unit_bits;
    uint64_t below = (UINT64_C(1) << behind) - 1;
    return (uint32_t)(below & ~((UINT64_C(1) << first) - 1));
}

/* Whether the entry has a place that is ours alone: counted once, whether or not COPIED says so. (To copy such a
 * cluster would free it, while somebody may still read where the map had said.) 0, QCOW2_DAMAGED or -errno. */
static int is_in_place(struct qcow2 *q, const struct qcow2_entry *entry, bool *ret_is_ours)
{
    uint64_t cluster = entry->host >> q->cluster_bits, count = 0;
    *ret_is_ours = false;
    int result = qcow2_check_entry(q, entry);
    if (result < 0 || entry->host == 0 || entry->is_compressed)
        return result;
    pthread_mutex_lock(&q->lock);
    result = qcow2_refcount(q, cluster, true, &count);
    pthread_mutex_unlock(&q->lock);
    if (result == 0 && count == 0)
        result = qcow2_damage(q, "a cluster in use counts as free", entry->host);
    *ret_is_ours = count == 1;
    return result;
}

/* Widens the fill so that a new cluster holds all that the old one does: a range without gaps, as reading what is not
 * allocated gives the right bytes, too. */
static void keep_units(const struct qcow2 *q, const struct qcow2_entry *entry, uint64_t cluster, struct step *step)
{
    uint64_t base = cluster << q->cluster_bits;
    if (entry->allocated == 0)
        return;
    uint64_t first = (uint64_t)__builtin_ctz(entry->allocated), last = 31 - (uint64_t)__builtin_clz(entry->allocated);
    uint64_t begin = base + (first << q->unit_bits), end = base + ((last + 1) << q->unit_bits);
    step->fill_begin = begin < step->fill_begin ? begin : step->fill_begin;
    step->fill_end = end > step->fill_end ? end : step->fill_end;
}

/* Whether the guest reads zeros in all of that. */
static int reads_zeros(struct qcow2 *q, uint64_t offset, uint64_t length, bool *ret_is_zero)
{
    struct qcow2_run run = {.length = 0};
    pthread_mutex_lock(&q->lock);
    int result = qcow2_find(q, offset, length, false, true, &run);
    pthread_mutex_unlock(&q->lock);
    if (result == 0)
        *ret_is_zero = run.length == length &&
                       (run.kind == QCOW2_ZEROS || (run.kind == QCOW2_UNDER && offset >= q->backing_bytes));
    return result;
}

/* Writes what a place must hold of [begin, end), as the guest would read it. */
static int fill(struct qcow2 *q, const struct step *step, uint64_t begin, uint64_t end)
{
    uint64_t place = (step->host << q->cluster_bits) + (begin - (step->cluster << q->cluster_bits));
    uint64_t length = end - begin, on_disk = begin >= q->size_bytes ? 0 : q->size_bytes - begin;
    bool is_zero = false;
    if (length == 0)
        return 0;
    int result = reads_zeros(q, begin, length, &is_zero);
    if (result < 0 || (is_zero && step->is_fresh))
        return result;
    auto_free uint8_t *bytes = alloc_zero((size_t)length);
    if (bytes == NULL)
        return -ENOMEM;
    const struct iovec part = {bytes, (size_t)length};
    const struct parts parts = {&part, 1, 0, length < on_disk ? length : on_disk};
    if (!is_zero && parts.length > 0)
        result = qcow2_read_guest(q, &parts, begin);
    return result < 0 ? result : qcow2_write_bytes(q, bytes, length, place);
}

static int write_step(struct qcow2 *q, const struct step *step, const struct parts *parts)
{
    uint64_t base = step->cluster << q->cluster_bits, place = step->host << q->cluster_bits;
    int result = fill(q, step, step->fill_begin, step->begin);
    if (result == 0)
        result = fill(q, step, step->end, step->fill_end);
    return result < 0 ? result : qcow2_write_parts(q, parts, place + (step->begin - base));
}

/* The entries name the new places, from now on. */
static int change_entries(struct qcow2 *q, const struct step *step)
{
    for (uint64_t i = 0; i < step->count; i++) {
        struct qcow2_entry old, entry = {.host = (step->host + i) << q->cluster_bits, .is_copied = true};
        int result = qcow2_entry_get(q, step->cluster + i, &old);
        if (result < 0)
            return result;
        uint32_t units = touched_units(q, step->cluster + i, step->fill_begin, step->fill_end);
        entry.allocated = (step->is_new ? 0 : old.allocated) | units;
        entry.zero = old.zero & ~entry.allocated;
        result = qcow2_entry_put(q, step->cluster + i, &entry);
        if (result < 0)
            return result;
        if (step->is_new)
            qcow2_release_entry(q, &old, false);
    }
    return 0;
}

/* The clusters that an entry names, none or some in a row. */
static uint64_t clusters_of(const struct qcow2 *q, const struct qcow2_entry *entry, uint64_t *ret_first)
{
    uint64_t end = entry->packed_offset + entry->packed_bytes;
    *ret_first = (entry->is_compressed ? entry->packed_offset : entry->host) >> q->cluster_bits;
    if (entry->is_compressed)
        return ((end - 1) >> q->cluster_bits) - *ret_first + 1;
    return entry->host != 0 ? 1 : 0;
}

int qcow2_check_entry(struct qcow2 *q, const struct qcow2_entry *entry)
{
    uint64_t first = 0, count = clusters_of(q, entry, &first);
    for (uint64_t i = 0; i < count; i++)
        if (qcow2_set_contains(&q->metadata, first + i))
            return qcow2_damage(q, "data lies in a cluster that holds a table", (first + i) << q->cluster_bits);
    return 0;
}

void qcow2_release_entry(struct qcow2 *q, const struct qcow2_entry *entry, bool punches)
{
    uint64_t first = 0, count = clusters_of(q, entry, &first);
    if (count > 0)
        qcow2_release(q, first, count, punches && !entry->is_compressed);
}

/* ---- which steps ---- */

/* How many clusters from `cluster` on want a new place, too, within the slice of the table and the limit. */
static int count_new(struct qcow2 *q, uint64_t cluster, uint64_t behind, uint64_t *ret_count)
{
    uint64_t per_slice = q->cache.slice_bytes / q->entry_bytes;
    uint64_t slice_end = (cluster / per_slice + 1) * per_slice, most = LIMIT_QCOW2_STEP_BYTES >> q->cluster_bits;
    uint64_t end = behind < slice_end ? behind : slice_end, at = cluster + 1;
    if (end - cluster > most)
        end = cluster + most;
    for (; at < end; at++) {
        struct qcow2_entry entry;
        bool is_ours = false;
        int result = qcow2_entry_get(q, at, &entry);
        if (result == 0)
            result = is_in_place(q, &entry, &is_ours);
        if (result < 0)
            return result;
        if (is_ours)
            break;
    }
    *ret_count = at - cluster;
    return 0;
}

/* Widens [begin, end) to whole units, and further to what else the new clusters must hold. */
static int plan_fill(struct qcow2 *q, struct step *step)
{
    uint64_t unit_bytes = UINT64_C(1) << q->unit_bits;
    struct qcow2_entry entry;
    step->fill_begin = step->begin & ~(unit_bytes - 1);
    step->fill_end = (step->end + unit_bytes - 1) & ~(unit_bytes - 1);
    int result = qcow2_entry_get(q, step->cluster, &entry);
    if (result == 0)
        keep_units(q, &entry, step->cluster, step);
    if (result == 0 && step->count > 1) {
        result = qcow2_entry_get(q, step->cluster + step->count - 1, &entry);
        if (result == 0)
            keep_units(q, &entry, step->cluster + step->count - 1, step);
    }
    return result;
}

/* Clusters in a row for as much of the write as possible. */
static int write_new(struct qcow2 *q, const struct parts *parts, uint64_t offset, uint64_t *ret_done)
{
    uint64_t end = offset + parts->length, count = 0;
    struct step step = {.cluster = offset >> q->cluster_bits, .is_new = true, .begin = offset};
    int result = count_new(q, step.cluster, qcow2_clusters(q, end), &count);
    if (result == 0)
        result = qcow2_allocate(q, count, 1, &step.host, &step.count);
    if (result < 0)
        return result;
    uint64_t reach = (step.cluster + step.count) << q->cluster_bits;
    step.end = end < reach ? end : reach;
    step.is_fresh = !q->file.is_device && step.host << q->cluster_bits >= atomic_load(&q->file_end);
    result = plan_fill(q, &step);
    if (result == 0) {
        const struct parts piece = parts_cut(parts, 0, step.end - step.begin);
        result = write_step(q, &step, &piece);
    }
    if (result == 0)
        result = qcow2_extend(q, (step.host + step.count) << q->cluster_bits);
    if (result < 0) {
        qcow2_give_back(q, step.host, step.count);
        return result;
    }
    *ret_done = step.end - step.begin;
    return change_entries(q, &step); /* fails only if the table cannot be read again: a leak, then */
}

/* A cluster that has its place, but not these units: zeros with a place, or units that were never written. One unit, or
 * a run of units that are written whole. */
static int write_units(struct qcow2 *q, const struct qcow2_entry *entry, const struct parts *parts, uint64_t offset,
                       uint64_t *ret_done)
{
    uint64_t unit_bytes = UINT64_C(1) << q->unit_bits, cluster = offset >> q->cluster_bits;
    uint64_t end = offset + parts->length, reach = (cluster + 1) << q->cluster_bits;
    struct step step = {.cluster = cluster, .count = 1, .host = entry->host >> q->cluster_bits, .begin = offset};
    step.end = end < reach ? end : reach;
    if ((offset & (unit_bytes - 1)) != 0 || step.end - offset < unit_bytes) {
        uint64_t unit_end = (offset & ~(unit_bytes - 1)) + unit_bytes;
        step.end = step.end < unit_end ? step.end : unit_end;
    } else {
        step.end &= ~(unit_bytes - 1);
    }
    bool has_unit = (touched_units(q, cluster, step.begin, step.begin + 1) & entry->allocated) != 0;
    step.fill_begin = has_unit ? step.begin : step.begin & ~(unit_bytes - 1);
    step.fill_end = has_unit ? step.end : (step.end + unit_bytes - 1) & ~(unit_bytes - 1);
    const struct parts piece = parts_cut(parts, 0, step.end - step.begin);
    int result = write_step(q, &step, &piece);
    if (result == 0)
        result = change_entries(q, &step);
    if (result == 0)
        *ret_done = step.end - step.begin;
    return result;
}

/* One step of a write, under change. */
static int write_some(struct qcow2 *q, const struct parts *parts, uint64_t offset, uint64_t *ret_done)
{
    struct qcow2_entry entry;
    bool is_ours = false;
    int result = qcow2_begin_step(q);
    if (result == 0)
        result = qcow2_table_prepare(q, offset >> q->cluster_bits);
    if (result == 0)
        result = qcow2_entry_get(q, offset >> q->cluster_bits, &entry);
    if (result == 0)
        result = is_in_place(q, &entry, &is_ours);
    if (result < 0)
        return result;
    return is_ours ? write_units(q, &entry, parts, offset, ret_done) : write_new(q, parts, offset, ret_done);
}

int qcow2_write_guest(struct qcow2 *q, const struct parts *parts, uint64_t offset, bool is_changing)
{
    int result = qcow2_check_writable(q);
    for (uint64_t done = 0, some = 0; done < parts->length && result == 0; done += some) {
        const struct parts rest = parts_cut(parts, done, parts->length - done);
        some = 0;
        result = write_in_place(q, &rest, offset + done, &some);
        if (result < 0 || some > 0)
            continue;
        if (!is_changing)
            pthread_mutex_lock(&q->change);
        result = write_some(q, &rest, offset + done, &some);
        if (!is_changing)
            pthread_mutex_unlock(&q->change);
    }
    return result;
}

int qcow2_write(void *state, const struct iovec *list, int count, uint64_t offset)
{
    struct qcow2 *q = state;
    struct parts parts = {.list = list, .count = count};
    int result = parts_measure(list, count, &parts.length);
    if (result == 0)
        result = qcow2_write_guest(q, &parts, offset, false);
    return qcow2_result(q, result);
}

/* ---- places ahead of time ---- */

static int preallocate_some(struct qcow2 *q, uint64_t offset, uint64_t end, uint64_t *ret_done)
{
    struct step step = {.cluster = offset >> q->cluster_bits, .is_new = true};
    uint64_t count = 0;
    int result = qcow2_begin_step(q);
    if (result == 0)
        result = qcow2_table_prepare(q, step.cluster);
    if (result == 0)
        result = count_new(q, step.cluster, qcow2_clusters(q, end), &count);
    if (result == 0)
        result = qcow2_allocate(q, count, 1, &step.host, &step.count);
    if (result < 0)
        return result;
    step.fill_begin = step.cluster << q->cluster_bits;
    step.fill_end = (step.cluster + step.count) << q->cluster_bits;
    result = qcow2_extend(q, (step.host + step.count) << q->cluster_bits);
    if (result < 0)
        qcow2_give_back(q, step.host, step.count);
    else
        result = change_entries(q, &step);
    *ret_done = step.fill_end - step.fill_begin;
    return result;
}

int qcow2_preallocate(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    int result = 0;
    uint64_t some = 0;
    for (uint64_t done = 0; done < length && result == 0; done += some)
        result = preallocate_some(q, offset + done, offset + length, &some);
    return result;
}
