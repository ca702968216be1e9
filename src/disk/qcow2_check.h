// SPDX-License-Identifier: Apache-2.0
/* Between the two halves of a check: counting (qcow2_check.c) and mending (qcow2_repair.c). */
#ifndef DISK_QCOW2_CHECK_H
#define DISK_QCOW2_CHECK_H

#include "disk/qcow2_state.h"

/* What is known of a cluster of the file: how often it is used, and as what. */
#define QCOW2_USE_ALONE (UINT32_C(1) << 31)  /* a structure that cannot be shared */
#define QCOW2_USE_TABLE (UINT32_C(1) << 30)  /* an L2 table */
#define QCOW2_USE_ACTIVE (UINT32_C(1) << 29) /* an L2 table of the active L1 */
#define QCOW2_USE_COUNT (QCOW2_USE_ACTIVE - 1)

struct qcow2_count {
    struct qcow2 *q; /* borrowed; loaded for a check, so nothing of it is in memory only */
    uint32_t *uses;  /* owned; by cluster */
    uint64_t clusters;
    uint64_t tables_left;  /* how many more L2 tables will be looked through, or as much work of another kind */
    bool mends;            /* entries that cannot be are taken out on the way */
    bool has_bad_blocks;   /* of refcounts: some are nowhere, or missing */
    uint64_t entry_faults; /* corruptions that are not only wrong refcounts */
    uint64_t fixed_faults;
    uint64_t wrong_low, wrong_high; /* refcounts: clusters that count too little, or too much */
    uint64_t too_often;             /* of wrong_low: has more uses than a refcount of this width can say */
    image_progress progress;
    void *user;
    struct image_check *found; /* borrowed */
};

/* Looks through the image: 0, -ECANCELED, -E2BIG, -ENOMEM, … */
int qcow2_count_all(struct qcow2_count *count);
void qcow2_count_release(struct qcow2_count *count);

/* Compares refcounts with uses: fills wrong_low, wrong_high, too_often and has_bad_blocks. */
int qcow2_count_compare(struct qcow2_count *count);

/* Makes refcounts what the uses say, where they are; `lowers_only`: only those that are too high. */
int qcow2_mend_refcounts(struct qcow2_count *count, bool lowers_only);
/* Writes all of them to a new place behind everything else, and points the header there. */
int qcow2_rebuild_refcounts(struct qcow2_count *count);
/* COPIED in active tables, as the uses say; counts those that said "ours alone" of what is not as faults. */
int qcow2_check_copied(struct qcow2_count *count, bool mends);

#endif
