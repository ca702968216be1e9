// SPDX-License-Identifier: Apache-2.0
/* The requests of a block device in flight.
 *
 *     begin ──> where do the bytes lie? (disk_map)
 *                 ├─ nowhere: zeros, filled in at once            ─┐
 *                 ├─ in a file: a piece, in the ring  ── ended ──> └─> the next bytes, until there are none ──> finish
 *                 └─ that cannot be told, the parts do not fit, or there is no ring: a worker does the rest ──> finish
 *
 * A request has one piece in flight at a time; what makes a disk fast is that there are many requests. They end in any
 * order, and are pushed as they end.
 *
 * A flush covers the writes that ended before it came (virtio 1.2, 5.2.6.2), and these are in the file; so it orders
 * nothing, and is one more request. An fdatasync that fails means that the host has dropped what it could not write and
 * will not say so again (fsync(2)): from then on every flush fails, until the disk is opened anew. For one in the ring
 * that is remembered here, for all others by the disk's format, which also knows flushes that failed before that point
 * (no room for a table, say) and may be tried again.
 *
 * A disk whose discards move data (discard_moves_data) gets them alone: when one is taken, no more requests are, until
 * those before it have ended and then itself. Nothing is kept in lists: the queues wait.
 *
 * Draining waits for all of a queue's requests and pushes them, so that the used index says all. A reset does not push
 * any: it takes back what no worker has begun, cancels what the kernel still can, and waits for the rest. Guest memory
 * is let go only then, however long the disk takes.
 *
 * Invariants: (1) an active request is in the ring or with the workers, in one of them, and nobody else touches it
 * there. (2) in_flight counts the active requests of a queue and, if it waits, the exclusive one. (3) a request is
 * finished once, on the device's thread. (4) the device's thread fills at most LIMIT_BLK_FILL_BYTES for a request.
 *
 * Trust: requests were decoded (request.c). Their memory can change at any time, and only the guest reads what is
 * written from it. Disk images are somebody else's, and checked by their formats.
 */
#include "device/blk/io.h"

#include "base/alloc.h"
#include "base/log.h"

#include <errno.h>
#include <stddef.h>

/* ---- requests ---- */

struct blk_request *blk_io_new_request(struct blk *blk, unsigned queue)
{
    struct blk_request *request = blk->free_requests;
    if (request != NULL)
        blk->free_requests = request->next;
    else
        request = alloc_zero(sizeof(*request));
    if (request == NULL)
        return NULL;
    request->blk = blk;
    request->queue = queue;
    return request;
}

void blk_io_forget_request(struct blk_request *request)
{
    struct blk *blk = request->blk;
    blk_request_clear(request);
    request->next = blk->free_requests;
    blk->free_requests = request;
}

static void add(atomic_uint_fast64_t *counter, uint64_t number)
{
    atomic_fetch_add_explicit(counter, number, memory_order_relaxed);
}

static void complain(struct blk *blk, const struct blk_request *request, int result)
{
    uint64_t errors = 1 + atomic_fetch_add_explicit(&blk->errors, 1, memory_order_relaxed);
    if ((errors & (errors - 1)) == 0) /* the 1st, 2nd, 4th, 8th … */
        log_warn("blk.request_failed", LOG_UINT("type", request->type),
                 LOG_UINT("sector", request->offset / BLK_SECTOR_BYTES), LOG_ERRNO(result), LOG_UINT("count", errors));
}

static void count(struct blk *blk, const struct blk_request *request)
{
    switch (request->type) {
    case BLK_READ:
        add(&blk->reads, 1);
        add(&blk->read_bytes, request->done);
        break;
    case BLK_WRITE:
        add(&blk->writes, 1);
        add(&blk->written_bytes, request->done);
        break;
    case BLK_FLUSH:
        add(&blk->flushes, 1);
        break;
    case BLK_DISCARD:
    case BLK_WRITE_ZEROES:
        add(&blk->discards, 1);
        break;
    case BLK_GET_ID:
        break;
    }
}

/* The status byte is the last one of a chain, but bytes are counted from its first (2.7.8.2): a read that failed in the
 * middle says how far it came, and one. */
static void push(struct blk_request *request, int result)
{
    struct blk *blk = request->blk;
    bool fills = request->type == BLK_READ || request->type == BLK_GET_ID;
    uint32_t written = 1 + (fills ? (uint32_t)request->done : 0);
    if (result < 0)
        complain(blk, request, result);
    else
        count(blk, request);
    *request->status = blk_status_of(result);
    virtio_push(blk->device, request->queue, request->head, written);
    blk->to_call |= UINT32_C(1) << request->queue;
}

static void begin_exclusive(struct blk *blk)
{
    blk->has_exclusive_begun = true;
    blk->active++;
    blk_workers_give(blk->workers, &blk->exclusive->work);
}

static void forget_exclusive(struct blk *blk)
{
    blk->exclusive = NULL;
    blk->has_exclusive_begun = false;
    for (unsigned i = 0; i < blk->queue_count; i++)
        virtio_kick(blk->device, i); /* nothing was taken from them meanwhile */
}

/* An active request has ended. */
static void finish(struct blk_request *request, int result)
{
    struct blk *blk = request->blk;
    blk->active--;
    blk->in_flight[request->queue]--;
    if (!blk->is_stopping)
        push(request, result);
    if (blk->exclusive == request)
        forget_exclusive(blk);
    blk_io_forget_request(request);
    if (blk->exclusive != NULL && blk->active == 0)
        begin_exclusive(blk);
}

static void activate(struct blk_request *request)
{
    request->blk->active++;
    request->blk->in_flight[request->queue]++;
}

void blk_io_answer(struct blk_request *request, int result)
{
    activate(request);
    finish(request, result);
}

/* ---- the ring ---- */

static void ring_finished(void *user, void *operation, int result);

static void call_driver(void *user)
{
    struct blk *blk = user;
    for (unsigned i = 0; blk->to_call != 0; i++) {
        if ((blk->to_call & 1u << i) != 0)
            virtio_call(blk->device, i);
        blk->to_call &= ~(1u << i);
    }
}

static void make_ring(struct blk *blk)
{
    struct blk_ring_options options = {
        .loop = virtio_device_loop(blk->device),
        .finished = ring_finished,
        .settled = call_driver,
        .user = blk,
    };
    for (unsigned i = 0; i < blk->queue_count; i++)
        options.most_operations += virtio_device_queue_size(blk->device, i);
    int result = blk_ring_new(&options, &blk->ring);
    if (result < 0) {
        blk->is_ring_refused = true;
        log_info("blk.no_io_uring", LOG_ERRNO(result));
    }
}

/* Made when it is first needed, and anew for another thread (a device that began before it was launched). */
static struct blk_ring *ring_of(struct blk *blk)
{
    if (blk->ring != NULL && !blk_ring_is_ours(blk->ring) && blk_ring_busy(blk->ring) == 0)
        blk->ring = blk_ring_free(blk->ring);
    if (blk->ring == NULL && !blk->is_ring_refused)
        make_ring(blk);
    return blk->ring;
}

/* Failures that are the ring's, and not the disk's. */
static bool has_other_way(int result)
{
    return result == -EAGAIN || result == -EINTR || result == -EINVAL || result == -EOPNOTSUPP;
}

/* ---- flushes ---- */

/* What an fdatasync of the ring that ended so is worth. */
static int judge_sync(struct blk *blk, int result)
{
    if (blk->lost_writes < 0 || result == 0 || result == -ECANCELED)
        return blk->lost_writes < 0 ? blk->lost_writes : result;
    blk->lost_writes = result;
    log_error("blk.writes_lost", LOG_ERRNO(result));
    return result;
}

static void flush(struct blk_request *request)
{
    struct blk *blk = request->blk;
    if (blk->lost_writes < 0 || blk->cache == VIAL_DISK_UNSAFE) {
        finish(request, blk->cache == VIAL_DISK_UNSAFE ? 0 : blk->lost_writes);
        return;
    }
    request->is_flushing = true;
    struct blk_ring *ring = ring_of(blk);
    int fd = ring != NULL ? disk_sync_fd(blk->disk) : -1;
    if (fd < 0 || !blk_ring_sync(ring, fd, request))
        blk_workers_give(blk->workers, &request->work);
}

/* Whether a write is on the medium before it ends: the driver said so, or knows nothing of caches (5.2.6.2). */
static bool is_written_through(const struct blk *blk)
{
    if (blk->cache == VIAL_DISK_UNSAFE || blk->sync == VIAL_DISK_SYNC_NONE)
        return false;
    return (blk->features & BLK_F_CONFIG_WCE) != 0 ? !blk->is_writeback : (blk->features & BLK_F_FLUSH) == 0;
}

/* ---- reading and writing ---- */

/* Puts the next bytes into the ring, as far as the extent goes: whether it could. */
static bool begin_piece(struct blk_request *request, const struct disk_extent *extent, uint64_t bytes)
{
    struct blk *blk = request->blk;
    struct blk_ring *ring = ring_of(blk);
    uint32_t alignment = blk->properties.alignment_bytes;
    if (ring == NULL || (extent->offset | bytes) % alignment != 0 || !blk_request_cut(request, bytes, alignment))
        return false;
    if (blk_ring_transfer(ring, extent->fd, request->parts + request->first_part, request->piece_parts, extent->offset,
                          request->type == BLK_WRITE, request))
        return true;
    blk_request_uncut(request);
    return false;
}

/* Goes on with the next bytes: false when that has to wait. */
static bool go_on(struct blk_request *request, bool *ret_is_in_flight)
{
    struct disk_extent extent;
    if (disk_map(request->blk->disk, request->offset, request->left, request->type == BLK_WRITE, &extent) < 0)
        return false;
    uint64_t bytes = extent.length < request->left ? extent.length : request->left;
    *ret_is_in_flight = extent.kind == DISK_EXTENT_FILE;
    if (*ret_is_in_flight)
        return begin_piece(request, &extent, bytes);
    if (request->left > LIMIT_BLK_FILL_BYTES)
        return false;
    blk_request_fill(request, bytes);
    return true;
}

static void transfer(struct blk_request *request)
{
    bool is_in_flight = false;
    while (request->left > 0 && !is_in_flight) {
        if (!go_on(request, &is_in_flight)) {
            blk_workers_give(request->blk->workers, &request->work);
            return;
        }
    }
    if (is_in_flight)
        return;
    if (request->needs_flush)
        flush(request);
    else
        finish(request, 0);
}

/* Nothing was read or written: the file ends here. */
static void end_of_file(struct blk_request *request, uint64_t piece_bytes)
{
    if (request->type == BLK_WRITE) {
        finish(request, -EIO);
    } else if (piece_bytes > LIMIT_BLK_FILL_BYTES) {
        blk_workers_give(request->blk->workers, &request->work);
    } else {
        blk_request_fill(request, piece_bytes);
        transfer(request);
    }
}

static void ring_finished(void *user, void *operation, int result)
{
    struct blk *blk = user;
    struct blk_request *request = operation;
    uint64_t piece_bytes = 0;
    if (!request->is_flushing)
        piece_bytes = blk_request_uncut(request);
    else if (!has_other_way(result))
        result = judge_sync(blk, result);
    if (blk->is_stopping)
        finish(request, -ECANCELED);
    else if (has_other_way(result))
        blk_workers_give(blk->workers, &request->work);
    else if (result < 0 || request->is_flushing)
        finish(request, result);
    else if (result == 0)
        end_of_file(request, piece_bytes);
    else {
        blk_request_advance(request, (uint64_t)result);
        transfer(request);
    }
}

/* ---- the workers ---- */

static int perform_segments(struct disk *disk, const struct blk_request *request)
{
    int result = 0;
    for (unsigned i = 0; i < request->segment_count && result == 0; i++) {
        const struct blk_segment *segment = &request->segments[i];
        if (segment->length == 0)
            continue;
        result = request->type == BLK_DISCARD ? disk_discard(disk, segment->offset, segment->length)
                                              : disk_zero(disk, segment->offset, segment->length, segment->may_unmap);
    }
    return result;
}

/* On any thread. */
static int perform(struct blk_work *work)
{
    struct blk_request *request = (struct blk_request *)(void *)work;
    struct disk *disk = request->blk->disk;
    const struct iovec *parts = request->parts + request->first_part;
    int part_count = (int)(request->end_part - request->first_part), result = 0;
    if (request->is_flushing)
        return disk_flush(disk);
    if (request->type == BLK_READ)
        result = disk_read(disk, parts, part_count, request->offset);
    else if (request->type == BLK_WRITE)
        result = disk_write(disk, parts, part_count, request->offset);
    else
        result = perform_segments(disk, request);
    request->is_flushing = result == 0 && request->needs_flush;
    return request->is_flushing ? disk_flush(disk) : result;
}

static void worker_finished(void *user, struct blk_work *work)
{
    struct blk *blk = user;
    struct blk_request *request = (struct blk_request *)(void *)work;
    int result = request->is_flushing && blk->lost_writes < 0 ? blk->lost_writes : work->result;
    if (result == 0) { /* all that was left */
        request->done += request->left;
        request->left = 0;
    }
    finish(request, result);
}

/* ---- beginning and ending ---- */

void blk_io_begin(struct blk_request *request)
{
    struct blk *blk = request->blk;
    bool changes = request->type != BLK_READ && request->type != BLK_FLUSH;
    request->needs_flush = changes && is_written_through(blk);
    if (changes && request->type != BLK_WRITE && blk->properties.discard_moves_data) {
        blk->in_flight[request->queue]++;
        blk->exclusive = request;
        if (blk->active == 0)
            begin_exclusive(blk);
        return;
    }
    activate(request);
    if (request->type == BLK_FLUSH)
        flush(request);
    else if (request->type == BLK_READ || request->type == BLK_WRITE)
        transfer(request);
    else
        blk_workers_give(blk->workers, &request->work);
}

void blk_io_settle(struct blk *blk)
{
    if (blk->ring != NULL)
        blk_ring_turn(blk->ring);
    call_driver(blk);
}

static void wait_for_some(struct blk *blk)
{
    if (blk->ring != NULL && blk_ring_busy(blk->ring) > 0)
        blk_ring_wait(blk->ring);
    else
        blk_workers_wait(blk->workers);
}

void blk_io_drain(struct blk *blk, unsigned queue)
{
    while (blk->in_flight[queue] > 0)
        wait_for_some(blk);
    blk_io_settle(blk);
}

void blk_io_abandon(struct blk *blk)
{
    blk->is_stopping = true;
    if (blk->exclusive != NULL && !blk->has_exclusive_begun) {
        blk->in_flight[blk->exclusive->queue]--;
        blk_io_forget_request(blk->exclusive);
        blk->exclusive = NULL;
    }
    blk_workers_withdraw(blk->workers);
    if (blk->ring != NULL)
        blk_ring_cancel(blk->ring);
    while (blk->active > 0)
        wait_for_some(blk);
    blk->is_stopping = false;
    blk->to_call = 0;
}

int blk_io_init(struct blk *blk)
{
    return blk_workers_new(
        &(struct blk_workers_options){
            .loop = virtio_device_loop(blk->device),
            .most_threads = LIMIT_BLK_WORKERS,
            .perform = perform,
            .finished = worker_finished,
            .settled = call_driver,
            .user = blk,
        },
        &blk->workers);
}

void blk_io_release(struct blk *blk)
{
    blk_ring_free(blk->ring);
    blk_workers_free(blk->workers);
    while (blk->free_requests != NULL) {
        struct blk_request *request = blk->free_requests;
        blk->free_requests = request->next;
        free(request);
    }
}
