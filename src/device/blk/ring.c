// SPDX-License-Identifier: Apache-2.0
/* An io_uring for a block device. (io_uring(7), io_uring_setup(2))
 *
 * What a turn of the queues wants is added first and begun by one system call; what the page cache has ends in that
 * same call and is finished at once. Everything else signals an eventfd, which the loop watches by edges, so that it is
 * never read.
 *
 * The ring is made for one thread that submits and collects (SINGLE_ISSUER, DEFER_TASKRUN, Linux 6.1), so that nothing
 * interrupts it. Older hosts get less of that (COOP_TASKRUN, 5.19), or nothing. Only operations of Linux 5.6 are used.
 *
 * Invariants: (1) there are never more operations than the completion queue has places, so none is lost. (2) `finished`
 * is called on the owner's thread, once for each operation. (3) a call takes a bounded number of completions.
 *
 * Trust: operations are the device's; memory that they read and write belongs to the guest, whose changes the kernel
 * takes as they come.
 */
#include "device/blk/ring.h"

#include "base/alloc.h"
#include "base/fd.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

enum { most_entries = 128, batch = 64, most_batches = 16 };

struct blk_ring {
    struct blk_ring_options options;
    struct io_uring uring;
    bool has_uring;
    pthread_t owner;
    int event_fd;               /* owned */
    struct loop_source *source; /* the loop's */
    unsigned added;             /* and not begun */
    unsigned busy;              /* added or begun, and not finished */
};

/* ---- beginning ---- */

/* Hands over what was added. What the kernel has no memory for stays added: for the next call. */
static void submit(struct blk_ring *ring)
{
    while (ring->added > 0) {
        int result = io_uring_submit(&ring->uring);
        if (result == -EINTR)
            continue;
        if (result <= 0)
            break;
        ring->added -= (unsigned)result;
    }
}

static struct io_uring_sqe *add(struct blk_ring *ring, void *operation)
{
    if (operation != NULL && ring->busy == ring->options.most_operations)
        return NULL;
    struct io_uring_sqe *entry = io_uring_get_sqe(&ring->uring);
    if (entry == NULL) {
        submit(ring);
        entry = io_uring_get_sqe(&ring->uring);
    }
    if (entry == NULL)
        return NULL;
    ring->added++;
    ring->busy += operation != NULL;
    return entry;
}

bool blk_ring_transfer(struct blk_ring *ring, int fd, const struct iovec *parts, unsigned count, uint64_t offset,
                       bool is_write, void *operation)
{
    struct io_uring_sqe *entry = add(ring, operation);
    if (entry == NULL)
        return false;
    if (count == 1 && is_write)
        io_uring_prep_write(entry, fd, parts->iov_base, (unsigned)parts->iov_len, offset);
    else if (count == 1)
        io_uring_prep_read(entry, fd, parts->iov_base, (unsigned)parts->iov_len, offset);
    else if (is_write)
        io_uring_prep_writev(entry, fd, parts, count, offset);
    else
        io_uring_prep_readv(entry, fd, parts, count, offset);
    io_uring_sqe_set_data(entry, operation);
    return true;
}

bool blk_ring_sync(struct blk_ring *ring, int fd, void *operation)
{
    struct io_uring_sqe *entry = add(ring, operation);
    if (entry == NULL)
        return false;
    io_uring_prep_fsync(entry, fd, IORING_FSYNC_DATASYNC);
    io_uring_sqe_set_data(entry, operation);
    return true;
}

void blk_ring_cancel(struct blk_ring *ring)
{
    struct io_uring_sqe *entry = ring->busy > 0 ? add(ring, NULL) : NULL;
    if (entry == NULL)
        return;
    io_uring_prep_cancel(entry, NULL, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
    io_uring_sqe_set_data(entry, NULL);
    submit(ring);
}

/* ---- ending ---- */

/* Finishes what has ended, as far as one batch goes: how much there was. */
static unsigned collect(struct blk_ring *ring)
{
    struct io_uring_cqe *entries[batch];
    struct {
        void *operation;
        int result;
    } ended[batch];
    unsigned count = io_uring_peek_batch_cqe(&ring->uring, entries, batch);
    for (unsigned i = 0; i < count; i++) {
        ended[i].operation = io_uring_cqe_get_data(entries[i]);
        ended[i].result = entries[i]->res;
    }
    io_uring_cq_advance(&ring->uring, count); /* before anybody adds to it again */
    for (unsigned i = 0; i < count; i++) {
        if (ended[i].operation == NULL) /* a cancellation */
            continue;
        ring->busy--;
        ring->options.finished(ring->options.user, ended[i].operation, ended[i].result);
    }
    return count;
}

/* Until there is nothing: only with an empty queue does liburing have the kernel put there what it holds back
 * (IORING_SQ_TASKRUN). What is too much for one turn gets another one, as its wake-up has come already. */
static void collect_all(struct blk_ring *ring)
{
    unsigned batches = 0;
    while (batches < most_batches && collect(ring) > 0)
        batches++;
    if (batches == most_batches)
        eventfd_write(ring->event_fd, 1);
}

void blk_ring_turn(struct blk_ring *ring)
{
    submit(ring);
    collect_all(ring);
    submit(ring); /* what goes on in another place; its end wakes the loop */
    if (ring->added > 0)
        eventfd_write(ring->event_fd, 1); /* the kernel had no memory: another turn */
}

void blk_ring_wait(struct blk_ring *ring)
{
    struct io_uring_cqe *entry;
    assert(ring->busy > 0);
    submit(ring);
    if (ring->added >= ring->busy) /* nothing could be begun that would end: the caller comes again */
        return;
    int result = io_uring_wait_cqe(&ring->uring, &entry);
    (void)result; /* a signal, at the most: the caller comes again */
    collect_all(ring);
}

unsigned blk_ring_busy(const struct blk_ring *ring)
{
    return ring->busy;
}

bool blk_ring_is_ours(const struct blk_ring *ring)
{
    return pthread_equal(ring->owner, pthread_self()) != 0;
}

static void handle_ended(void *user, uint32_t what)
{
    struct blk_ring *ring = user;
    (void)what;
    if (blk_ring_is_ours(ring))
        blk_ring_turn(ring);
    ring->options.settled(ring->options.user);
}

/* ---- life ---- */

static int set_up(struct blk_ring *ring)
{
    static const unsigned flags[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
        0,
    };
    int result = -EINVAL;
    for (size_t i = 0; i < array_length(flags) && result == -EINVAL; i++) {
        struct io_uring_params parameters = {
            .flags = flags[i] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
            .cq_entries = ring->options.most_operations + 1, /* and a cancellation */
        };
        unsigned entries = ring->options.most_operations < most_entries ? ring->options.most_operations : most_entries;
        result = io_uring_queue_init_params(entries, &ring->uring, &parameters);
        if (result == 0 && parameters.cq_entries <= ring->options.most_operations)
            ring->options.most_operations = parameters.cq_entries - 1;
    }
    ring->has_uring = result == 0;
    return result;
}

int blk_ring_new(const struct blk_ring_options *options, struct blk_ring **ret_ring)
{
    struct blk_ring *ring = alloc_zero(sizeof(*ring));
    if (ring == NULL)
        return -ENOMEM;
    ring->options = *options;
    ring->owner = pthread_self();
    ring->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int result = ring->event_fd < 0 ? -errno : set_up(ring);
    if (result == 0)
        result = io_uring_register_eventfd(&ring->uring, ring->event_fd);
    if (result == 0)
        result = loop_add_fd(options->loop, ring->event_fd, EPOLLIN | EPOLLET, handle_ended, ring, &ring->source);
    if (result < 0) {
        blk_ring_free(ring);
        return result;
    }
    *ret_ring = ring;
    return 0;
}

struct blk_ring *blk_ring_free(struct blk_ring *ring)
{
    if (ring == NULL)
        return NULL;
    assert(ring->busy == 0);
    loop_source_free(ring->source);
    if (ring->has_uring)
        io_uring_queue_exit(&ring->uring);
    fd_close(ring->event_fd);
    free(ring);
    return NULL;
}
