// SPDX-License-Identifier: Apache-2.0
/* Reading a qcow2 disk: run by run, from wherever each one lies.
 *
 * Invariants: (1) between looking a run up and reading it, q->moving is held, so the place is still what it was.
 * (2) nothing is read from under the image beyond that disk's end.
 *
 * Trust: runs were checked by qcow2_find; what packed clusters unpack to is the guest's business.
 */
#include "disk/qcow2_state.h"

#include "base/alloc.h"

enum { window_entries = 16 };

/* The part that the disk below has; zeros behind its end. */
static int read_under(struct qcow2 *q, const struct parts *parts, uint64_t offset)
{
    uint64_t end = q->backing != NULL ? q->backing_bytes : 0;
    uint64_t stored = offset >= end ? 0 : parts->length < end - offset ? parts->length : end - offset;
    struct parts rest = parts_cut(parts, 0, stored), tail = parts_cut(parts, stored, parts->length - stored);
    struct iovec window[window_entries];
    parts_fill_zero(&tail);
    while (rest.length > 0) {
        uint64_t length = 0;
        int used = parts_window(&rest, window, window_entries, &length);
        int result = disk_read(q->backing, window, used, offset);
        if (result < 0)
            return result == QCOW2_DAMAGED ? -EIO : result;
        rest = parts_cut(&rest, length, rest.length - length);
        offset += length;
    }
    return 0;
}

static int read_run(struct qcow2 *q, const struct qcow2_run *run, const struct parts *parts, uint64_t offset)
{
    switch (run->kind) {
    case QCOW2_ZEROS:
        parts_fill_zero(parts);
        return 0;
    case QCOW2_DATA:
        return qcow2_read_parts(q, parts, run->host);
    case QCOW2_PACKED:
        return qcow2_read_packed(q, run, parts, offset & (q->cluster_bytes - 1));
    case QCOW2_UNDER:
    default:
        return read_under(q, parts, offset);
    }
}

int qcow2_read_guest(struct qcow2 *q, const struct parts *parts, uint64_t offset)
{
    for (uint64_t done = 0; done < parts->length;) {
        struct qcow2_run run = {.length = 0};
        pthread_rwlock_rdlock(&q->moving);
        pthread_mutex_lock(&q->lock);
        int result = qcow2_find(q, offset + done, parts->length - done, false, true, &run);
        pthread_mutex_unlock(&q->lock);
        if (result == 0) {
            const struct parts piece = parts_cut(parts, done, run.length);
            result = read_run(q, &run, &piece, offset + done);
        }
        pthread_rwlock_unlock(&q->moving);
        if (result < 0)
            return result;
        done += run.length;
    }
    return 0;
}

int qcow2_read(void *state, const struct iovec *list, int count, uint64_t offset)
{
    struct qcow2 *q = state;
    struct parts parts = {.list = list, .count = count};
    int result = parts_measure(list, count, &parts.length);
    if (result == 0)
        result = qcow2_read_guest(q, &parts, offset);
    return qcow2_result(q, result);
}
