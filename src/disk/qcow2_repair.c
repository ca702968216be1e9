// SPDX-License-Identifier: Apache-2.0
/* Mending a qcow2 image by what a check has counted, and the check as others call it.
 *
 *     leaks   refcounts that are too high become what they should be; but nothing if there are faults that may hide
 *             who uses what: below an L1 entry that cannot be read, live data looks like leaks
 *     all     entries that cannot be are taken out (while counting), then all refcounts become right: in their blocks,
 *             or, if those are broken or missing, in new ones behind everything else
 *
 * New blocks and their table are written where nothing is, and the header is pointed there in one write, so a crash
 * leaves the image as broken as it was, or mended. Last, the marks (dirty, corrupt) are taken away.
 *
 * Invariants: (1) entries are on the medium before refcounts that follow from them are lowered. (2) a mark is taken
 * away only when what it stands for is mended and on the medium. (3) what is not understood is left alone.
 *
 * Trust: the counts come from a hostile image, but they are bounded by its file.
 */
#include "disk/qcow2_check.h"

#include "base/alloc.h"
#include "base/limits.h"

/* ---- in place ---- */

/* Whether anything of the block was wrong. */
static bool correct_block(const struct qcow2_count *count, uint64_t first, uint8_t *block, bool lowers_only)
{
    const struct qcow2 *q = count->q;
    bool has_changed = false;
    for (uint64_t i = 0; i < UINT64_C(1) << q->block_bits; i++) {
        uint64_t uses = first + i < count->clusters ? count->uses[first + i] & QCOW2_USE_COUNT : 0;
        uint64_t refcount = qcow2_refcount_get(q, block, i);
        uses = uses > q->most_refcount ? q->most_refcount : uses;
        if (refcount != uses && (refcount > uses || !lowers_only)) {
            qcow2_refcount_put(q, block, i, uses);
            has_changed = true;
        }
    }
    return has_changed;
}

int qcow2_mend_refcounts(struct qcow2_count *count, bool lowers_only)
{
    struct qcow2 *q = count->q;
    auto_free uint8_t *block = alloc_zero((size_t)q->cluster_bytes);
    int result = block == NULL ? -ENOMEM : qcow2_sync(q);
    for (uint64_t i = 0; i < q->refcount_table_entries && result == 0; i++) {
        uint64_t offset = q->refcount_table[i];
        if (offset == 0 || !qcow2_is_place(q, offset))
            continue;
        result = qcow2_read_bytes(q, block, q->cluster_bytes, offset);
        if (result == 0 && correct_block(count, i << q->block_bits, block, lowers_only))
            result = qcow2_write_bytes(q, block, q->cluster_bytes, offset);
    }
    return result < 0 ? result : qcow2_sync(q);
}

/* ---- anew ---- */

/* The old table and blocks are not used any more. */
static void forget_old(struct qcow2_count *count)
{
    const struct qcow2 *q = count->q;
    uint64_t first = q->refcount_table_offset >> q->cluster_bits;
    uint64_t clusters = qcow2_clusters(q, q->refcount_table_entries * 8);
    for (uint64_t i = first; i < first + clusters && i < count->clusters; i++)
        count->uses[i] -= (count->uses[i] & QCOW2_USE_COUNT) > 0;
    for (uint64_t i = 0; i < q->refcount_table_entries; i++)
        if (q->refcount_table[i] != 0 && qcow2_is_place(q, q->refcount_table[i]))
            count->uses[q->refcount_table[i] >> q->cluster_bits]--;
}

struct place {
    uint64_t first, blocks, table_clusters; /* blocks, then the table */
};

static int find_place(const struct qcow2_count *count, struct place *ret_place)
{
    const struct qcow2 *q = count->q;
    struct place place = {.first = count->clusters};
    uint64_t end = 0;
    do {
        end = place.first + place.blocks + place.table_clusters;
        place.blocks = (end >> q->block_bits) + 1;
        place.table_clusters = qcow2_clusters(q, place.blocks * 8);
    } while (place.first + place.blocks + place.table_clusters != end);
    if (place.table_clusters << q->cluster_bits > LIMIT_QCOW2_REFCOUNT_TABLE_BYTES)
        return -EFBIG;
    *ret_place = place;
    return 0;
}

static int write_new_block(const struct qcow2_count *count, const struct place *place, uint64_t index, uint8_t *block)
{
    struct qcow2 *q = count->q;
    uint64_t end = place->first + place->blocks + place->table_clusters;
    memset(block, 0, (size_t)q->cluster_bytes);
    for (uint64_t i = 0; i < UINT64_C(1) << q->block_bits; i++) {
        uint64_t cluster = (index << q->block_bits) + i;
        uint64_t uses = cluster < count->clusters ? count->uses[cluster] & QCOW2_USE_COUNT : cluster < end ? 1 : 0;
        qcow2_refcount_put(q, block, i, uses > q->most_refcount ? q->most_refcount : uses);
    }
    return qcow2_write_bytes(q, block, q->cluster_bytes, (place->first + index) << q->cluster_bits);
}

static int write_new(const struct qcow2_count *count, const struct place *place, const uint64_t *table,
                     uint64_t entries)
{
    struct qcow2 *q = count->q;
    auto_free uint8_t *block = alloc_zero((size_t)q->cluster_bytes);
    int result = block == NULL ? -ENOMEM : 0;
    for (uint64_t i = 0; i < place->blocks && result == 0; i++)
        result = write_new_block(count, place, i, block);
    if (result == 0)
        result = qcow2_write_table(q, table, 0, entries, (place->first + place->blocks) << q->cluster_bits);
    return result < 0 ? result : qcow2_sync(q);
}

int qcow2_rebuild_refcounts(struct qcow2_count *count)
{
    struct qcow2 *q = count->q;
    struct place place;
    int result = find_place(count, &place);
    if (result < 0)
        return result;
    uint64_t entries = (place.table_clusters << q->cluster_bits) / 8;
    auto_free uint64_t *table = alloc_zero(entries * sizeof(*table));
    if (table == NULL)
        return -ENOMEM;
    for (uint64_t i = 0; i < place.blocks; i++)
        table[i] = (place.first + i) << q->cluster_bits;
    forget_old(count);
    result = qcow2_sync(q); /* entries that were taken out */
    if (result == 0)
        result = write_new(count, &place, table, entries);
    if (result < 0)
        return result;
    free(q->refcount_table);
    q->refcount_table = steal_ptr(table);
    q->refcount_table_entries = entries;
    q->refcount_table_offset = (place.first + place.blocks) << q->cluster_bits;
    return qcow2_settle(q, qcow2_put_refcount_table(q));
}

/* ---- when an image is opened that was not closed ---- */

static int clear_marks(struct qcow2 *q, uint64_t marks)
{
    if ((q->incompatible & marks) == 0)
        return 0;
    q->incompatible &= ~marks;
    return qcow2_settle(q, qcow2_put_features(q));
}

static int recount(struct qcow2_count *count)
{
    int result = qcow2_count_all(count);
    if (result == 0)
        result = qcow2_count_compare(count);
    if (result == 0)
        result = qcow2_check_copied(count, false);
    if (result == 0 && (count->entry_faults > 0 || count->too_often > 0))
        result = QCOW2_DAMAGED;
    if (result == 0)
        result = count->has_bad_blocks ? qcow2_rebuild_refcounts(count) : qcow2_mend_refcounts(count, false);
    return result;
}

int qcow2_recount(struct qcow2 *q, struct vial_error *err)
{
    struct image_check found = {0};
    struct qcow2_count count = {.q = q, .found = &found};
    int result = recount(&count);
    qcow2_count_release(&count);
    if (result == 0)
        result = clear_marks(q, QCOW2_DIRTY);
    q->damage_what = NULL; /* what was found is told now */
    if (result == QCOW2_DAMAGED) {
        result = qcow2_refuse(q, err, VIAL_ERROR_INVALID, "was not closed, and is broken; it can only be read");
        error_remedy(err, "save what is in it, then mend it: vial disk check --repair all");
        return result;
    }
    return result < 0 ? error_set_os(err, VIAL_PHASE_START, result, "cannot count the clusters of %s",
                                     error_short(q->file.path).text)
                      : 0;
}

/* ---- the check ---- */

/* Faults of refcounts that mean a loss, and can be mended; broken blocks are one even if no number is wrong. */
static uint64_t losses(const struct qcow2_count *count)
{
    uint64_t low = count->wrong_low - count->too_often;
    return low == 0 && count->has_bad_blocks ? 1 : low;
}

static void put_findings(const struct qcow2_count *count, struct image_check *check)
{
    check->leaks = count->wrong_high;
    check->corruptions = losses(count) + count->too_often + count->entry_faults;
    check->corruptions_fixed = count->fixed_faults;
}

static int repair_refcounts(struct qcow2_count *count, enum image_repair repair, struct image_check *check)
{
    bool repairs_all = repair == IMAGE_REPAIR_ALL, are_uses_known = count->entry_faults == 0 && !count->has_bad_blocks;
    uint64_t low = losses(count), high = count->wrong_high;
    int result = 0;
    if (repairs_all && low > 0)
        result = count->has_bad_blocks ? qcow2_rebuild_refcounts(count) : qcow2_mend_refcounts(count, false);
    else if (high > 0 && (repairs_all || are_uses_known))
        result = qcow2_mend_refcounts(count, true);
    else
        high = 0;
    if (result < 0)
        return result;
    check->leaks_fixed = high;
    check->leaks -= high;
    if (repairs_all) {
        check->corruptions_fixed += low;
        check->corruptions -= low;
    }
    return 0;
}

static int check_image(struct qcow2_count *count, enum image_repair repair, struct image_check *check)
{
    struct qcow2 *q = count->q;
    int result = qcow2_count_all(count);
    if (result == 0)
        result = qcow2_count_compare(count);
    if (result == 0)
        result = qcow2_check_copied(count, repair == IMAGE_REPAIR_ALL);
    if (result < 0)
        return result;
    put_findings(count, check);
    if (repair != IMAGE_REPAIR_NONE)
        result = repair_refcounts(count, repair, check);
    if (result == 0 && repair == IMAGE_REPAIR_ALL && check->corruptions == 0)
        result = clear_marks(q, QCOW2_DIRTY | QCOW2_CORRUPT);
    return result;
}

int qcow2_check(const struct disk_file *file, enum image_repair repair, image_progress progress, void *user,
                struct image_check *ret_check, struct vial_error *err)
{
    struct image_check check = {0};
    struct qcow2 *q = NULL;
    assert(repair == IMAGE_REPAIR_NONE || !file->is_read_only);
    int result = qcow2_load(file, true, &q, err);
    if (result < 0)
        return result;
    struct qcow2_count count = {
        .q = q, .mends = repair == IMAGE_REPAIR_ALL, .progress = progress, .user = user, .found = &check};
    result = check_image(&count, repair, &check);
    qcow2_count_release(&count);
    qcow2_free(q);
    if (result == -ECANCELED)
        error_set_os(err, VIAL_PHASE_RUN, ECANCELED, "the check of %s was ended", error_short(file->path).text);
    else if (result == -E2BIG)
        result = error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_RUN, "%s has too many clusters or tables to be checked",
                           error_short(file->path).text);
    else if (result < 0)
        result = error_set_os(err, VIAL_PHASE_RUN, result, "cannot check %s", error_short(file->path).text);
    else
        *ret_check = check;
    return result;
}
