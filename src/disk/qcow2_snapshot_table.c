// SPDX-License-Identifier: Apache-2.0
/* The list of snapshots in a qcow2 image, as it stands in the file.
 *
 *     0          8          12       14         16      20    24       32        36           40
 *     L1 offset  entries    id bytes name bytes seconds nanos vm clock vm state  extra bytes  extra | id | name | pad
 *                                                                              (extra: vm state, 64 bits; disk size)
 *
 * Entries are kept as they were read, so whatever else is in them survives; a changed list is written to a new place
 * and the header pointed there.
 *
 * Invariants: (1) an entry lies within LIMIT_QCOW2_SNAPSHOT_TABLE_BYTES of the list's beginning, its L1 table begins at
 * a cluster and is no longer than LIMIT_QCOW2_L1_BYTES. (2) names that are shown fit and end in NUL.
 *
 * Trust: every byte may be hostile. Names are escaped by whoever shows them.
 */
#include "disk/qcow2_state.h"

#include "base/alloc.h"
#include "base/limits.h"

enum { fixed_bytes = 40, most_extra_bytes = 1024, piece_bytes = 64 << 10 };

void qcow2_snapshots_release(struct qcow2_snapshot *snapshots, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        free(snapshots[i].record);
    free(snapshots);
}

static void copy_name(char *shown, size_t size, const uint8_t *bytes, size_t length)
{
    size_t copied = length < size ? length : size - 1;
    memcpy(shown, bytes, copied);
    shown[copied] = '\0';
}

/* What an entry says, from its record. */
static void show(struct qcow2_snapshot *snapshot, uint64_t disk_bytes)
{
    const uint8_t *record = snapshot->record;
    uint32_t id_bytes = qcow2_get16(record + 12), name_bytes = qcow2_get16(record + 14);
    uint32_t extra_bytes = qcow2_get32(record + 36);
    struct image_snapshot *shown = &snapshot->shown;
    const uint8_t *id = record + fixed_bytes + extra_bytes;
    snapshot->l1_offset = qcow2_get64(record);
    snapshot->l1_entries = qcow2_get32(record + 8);
    shown->seconds = qcow2_get32(record + 16);
    shown->nanoseconds = qcow2_get32(record + 20);
    shown->vm_state_bytes = extra_bytes >= 8 ? qcow2_get64(record + fixed_bytes) : qcow2_get32(record + 32);
    shown->disk_bytes = extra_bytes >= 16 ? qcow2_get64(record + fixed_bytes + 8) : disk_bytes;
    copy_name(shown->id, sizeof(shown->id), id, id_bytes);
    copy_name(shown->name, sizeof(shown->name), id + id_bytes, name_bytes);
}

/* Reads the entry at *offset and moves on behind it: 0, -EINVAL, or -errno. */
static int read_entry(struct qcow2 *q, uint64_t *offset, struct qcow2_snapshot *snapshot)
{
    uint8_t fixed[fixed_bytes];
    if (*offset >= atomic_load(&q->file_end))
        return -EINVAL;
    int result = qcow2_read_bytes(q, fixed, sizeof(fixed), *offset);
    if (result < 0)
        return result;
    uint64_t extra_bytes = qcow2_get32(fixed + 36);
    if (extra_bytes > most_extra_bytes)
        return -EINVAL;
    snapshot->record_bytes = fixed_bytes + extra_bytes + qcow2_get16(fixed + 12) + qcow2_get16(fixed + 14);
    snapshot->record = alloc_zero(snapshot->record_bytes);
    if (snapshot->record == NULL)
        return -ENOMEM;
    result = qcow2_read_bytes(q, snapshot->record, snapshot->record_bytes, *offset);
    memcpy(snapshot->record, fixed, sizeof(fixed)); /* what was checked is what is used */
    show(snapshot, q->size_bytes);
    *offset += (snapshot->record_bytes + 7) & ~UINT64_C(7);
    if (snapshot->l1_entries > LIMIT_QCOW2_L1_BYTES / 8 || (snapshot->l1_offset & (q->cluster_bytes - 1)) != 0 ||
        (snapshot->l1_entries > 0 && !qcow2_is_place(q, snapshot->l1_offset)))
        return -EINVAL;
    return result;
}

static int read_entries(struct qcow2 *q, uint64_t offset, uint32_t count)
{
    uint64_t at = offset;
    size_t capacity = 0;
    int result = 0;
    q->snapshot_count = 0;
    for (uint32_t i = 0; i < count && result == 0; i++) {
        result = alloc_grow((void **)&q->snapshots, i, &capacity, sizeof(*q->snapshots), LIMIT_QCOW2_SNAPSHOTS);
        if (result < 0)
            break;
        q->snapshot_count = i + 1;
        result = read_entry(q, &at, &q->snapshots[i]);
        if (result == 0 && at - offset > LIMIT_QCOW2_SNAPSHOT_TABLE_BYTES)
            result = -EINVAL;
    }
    q->snapshots_bytes = at - offset;
    return result;
}

int qcow2_read_snapshots(struct qcow2 *q, uint64_t offset, uint32_t count, struct vial_error *err)
{
    int result = read_entries(q, offset, count);
    if (result == -ENOMEM)
        return error_no_memory(err, VIAL_PHASE_START);
    if (result == -EINVAL)
        return qcow2_refuse(q, err, VIAL_ERROR_INVALID, "has a list of snapshots that cannot be");
    if (result < 0)
        return error_set_os(err, VIAL_PHASE_START, result, "cannot read the snapshots of %s",
                            error_short(q->file.path).text);
    return 0;
}

static int write_records(struct qcow2 *q, const struct qcow2_snapshot *snapshots, uint32_t count, uint64_t offset)
{
    static const uint8_t padding[8];
    int result = 0;
    for (uint32_t i = 0; i < count && result == 0; i++) {
        size_t length = snapshots[i].record_bytes, rest = -length & 7;
        result = qcow2_write_bytes(q, snapshots[i].record, length, offset);
        if (result == 0 && rest > 0)
            result = qcow2_write_bytes(q, padding, rest, offset + length);
        offset += length + rest;
    }
    return result;
}

int qcow2_write_snapshots(struct qcow2 *q, struct qcow2_snapshot *snapshots, uint32_t count)
{
    uint64_t bytes = 0, cluster = 0, taken = 0, old_offset = q->snapshots_offset, old_bytes = q->snapshots_bytes;
    for (uint32_t i = 0; i < count; i++)
        bytes += (snapshots[i].record_bytes + 7) & ~UINT64_C(7);
    uint64_t clusters = qcow2_clusters(q, bytes);
    if (bytes > LIMIT_QCOW2_SNAPSHOT_TABLE_BYTES)
        return -E2BIG;
    int result = clusters > 0 ? qcow2_allocate(q, clusters, clusters, &cluster, &taken) : 0;
    if (result == 0)
        result = qcow2_extend(q, (cluster + clusters) << q->cluster_bits);
    if (result == 0)
        result = write_records(q, snapshots, count, cluster << q->cluster_bits);
    if (result == 0)
        result = qcow2_commit_all(q); /* its refcounts are on the medium before the header names it */
    if (result == 0)
        result = qcow2_sync(q);
    if (result == 0)
        result = qcow2_claim_tables(q, cluster, clusters);
    if (result < 0) {
        qcow2_give_back(q, cluster, taken);
        return result;
    }
    qcow2_snapshots_release(q->snapshots, q->snapshots != NULL ? q->snapshot_count : 0);
    q->snapshots = snapshots;
    q->snapshot_count = count;
    q->snapshots_offset = cluster << q->cluster_bits;
    q->snapshots_bytes = bytes;
    result = qcow2_settle(q, qcow2_put_snapshots(q));
    if (result == 0 && old_offset != 0)
        qcow2_release_tables(q, old_offset >> q->cluster_bits, qcow2_clusters(q, old_bytes));
    return result;
}
