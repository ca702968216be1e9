// SPDX-License-Identifier: Apache-2.0
/* Reading and writing the file of a qcow2 image.
 *
 * The file is longer in meaning than in bytes: what lies beyond its end reads as zeros, as it does after a cluster was
 * given a place and written only in part. Its end is known here and not asked for, so that no read and no mapped write
 * has to.
 *
 * Invariants: (1) file_end is where the file ends, or less for a moment while it grows; nobody but this file makes it
 * grow. (2) once a flush has failed, all that follow fail: the kernel tells of lost pages once. (3) no result of the
 * host is taken for damage of the image (EUCLEAN is what its file system says of itself).
 *
 * Trust: offsets were checked by whoever calls; lengths are bounded by a cluster or by a request.
 */
#include "disk/qcow2_state.h"

#include "base/alloc.h"
#include "base/log.h"

#include <sys/stat.h>
#include <unistd.h>

enum { zero_chunk_bytes = 256 << 10 };

static int of_host(int result)
{
    return result == -EUCLEAN ? -EIO : result;
}

int qcow2_read_parts(struct qcow2 *q, const struct parts *parts, uint64_t offset)
{
    uint64_t end = atomic_load(&q->file_end);
    uint64_t stored = offset >= end ? 0 : parts->length < end - offset ? parts->length : end - offset;
    struct parts tail = parts_cut(parts, stored, parts->length - stored), front = parts_cut(parts, 0, stored);
    parts_fill_zero(&tail);
    return stored == 0 ? 0 : of_host(disk_file_read(&q->file, &front, offset));
}

static void note_end(struct qcow2 *q, uint64_t end)
{
    unsigned long long known = atomic_load(&q->file_end);
    while (known < end && !atomic_compare_exchange_weak(&q->file_end, &known, end))
        ;
}

/* After a write that failed, anything up to its end may be there. */
static void look_for_end(struct qcow2 *q)
{
    struct stat status;
    if (!q->file.is_device && fstat(q->file.fd, &status) == 0)
        note_end(q, (uint64_t)status.st_size);
}

int qcow2_write_parts(struct qcow2 *q, const struct parts *parts, uint64_t offset)
{
    if (parts->length == 0)
        return 0;
    assert(!q->is_read_only);
    int result = of_host(disk_file_write(&q->file, parts, offset));
    uint64_t alignment = q->file.alignment_bytes; /* O_DIRECT writes whole blocks */
    if (result < 0)
        look_for_end(q);
    else
        note_end(q, (offset + parts->length + alignment - 1) & ~(alignment - 1));
    return result;
}

int qcow2_read_bytes(struct qcow2 *q, void *bytes, uint64_t length, uint64_t offset)
{
    const struct iovec part = {bytes, (size_t)length};
    const struct parts parts = {&part, 1, 0, length};
    return qcow2_read_parts(q, &parts, offset);
}

int qcow2_write_bytes(struct qcow2 *q, const void *bytes, uint64_t length, uint64_t offset)
{
    union { /* pwritev does not change what an iovec points to */
        const void *given;
        void *taken;
    } source = {.given = bytes};
    const struct iovec part = {source.taken, (size_t)length};
    const struct parts parts = {&part, 1, 0, length};
    return qcow2_write_parts(q, &parts, offset);
}

int qcow2_write_zeros(struct qcow2 *q, uint64_t length, uint64_t offset)
{
    uint64_t chunk = length < zero_chunk_bytes ? length : zero_chunk_bytes;
    if (length == 0)
        return 0;
    auto_free uint8_t *zeros = alloc_zero((size_t)chunk);
    if (zeros == NULL)
        return -ENOMEM;
    int result = 0;
    for (uint64_t done = 0; done < length && result == 0; done += chunk)
        result = qcow2_write_bytes(q, zeros, length - done < chunk ? length - done : chunk, offset + done);
    return result;
}

int qcow2_extend(struct qcow2 *q, uint64_t end)
{
    if (q->file.is_device || end <= atomic_load(&q->file_end))
        return 0;
    if (ftruncate(q->file.fd, (off_t)end) < 0)
        return of_host(-errno);
    note_end(q, end);
    return 0;
}

int qcow2_sync(struct qcow2 *q)
{
    int result = atomic_load(&q->sync_error), none = 0;
    if (result != 0 || fdatasync(q->file.fd) == 0)
        return result;
    result = of_host(-errno);
    if (atomic_compare_exchange_strong(&q->sync_error, &none, result))
        log_error("disk.flush_failed", LOG_TEXT("path", q->file.path), LOG_ERRNO(result));
    return result;
}

int qcow2_read_table(struct qcow2 *q, uint64_t *entries, uint64_t count, uint64_t offset)
{
    if (count == 0)
        return 0;
    int result = qcow2_read_bytes(q, entries, count * sizeof(*entries), offset);
    for (uint64_t i = 0; result == 0 && i < count; i++)
        entries[i] = be64toh(entries[i]);
    return result;
}

int qcow2_write_table(struct qcow2 *q, const uint64_t *entries, uint64_t first, uint64_t count, uint64_t offset)
{
    uint64_t chunk[512];
    int result = 0;
    while (count > 0 && result == 0) {
        uint64_t step = count < array_length(chunk) ? count : array_length(chunk);
        for (uint64_t i = 0; i < step; i++)
            chunk[i] = htobe64(entries[first + i]);
        result = qcow2_write_bytes(q, chunk, step * sizeof(chunk[0]), offset + first * sizeof(chunk[0]));
        first += step;
        count -= step;
    }
    return result;
}
