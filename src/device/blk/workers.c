// SPDX-License-Identifier: Apache-2.0
/* Threads that do for a block device what has to wait.
 *
 *     device's thread                      a worker
 *     give: to do ── condition ──────────> perform
 *     finished <── eventfd, loop ───────── done
 *
 * A thread is started when there is work and nobody free for it, up to a limit, and stays. Where not even the first can
 * be started, the device's thread does the work itself: slow, but done.
 *
 * Invariants: (1) a piece of work is in one list, or in the hands of one thread. (2) `finished` is called on the loop's
 * thread only, once for each piece. (3) `busy` counts what was given and is not finished.
 *
 * Trust: work is the device's own; what a guest can do is to make it many, and the device bounds that.
 */
#include "device/blk/workers.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/thread.h"

#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct list {
    struct blk_work *first, **end; /* borrowed; `end` is where the next one goes */
};

struct blk_workers {
    struct blk_workers_options options;
    int done_fd;                /* owned: wakes the loop */
    struct loop_source *source; /* the loop's */
    unsigned busy;              /* of the loop's thread alone */

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t has_work, has_done;
    struct list to_do, done;
    unsigned idle, waiting; /* threads that wait, and pieces in to_do */
    bool is_over;
    unsigned thread_count;
    pthread_t threads[];
};

/* ---- lists ---- */

static void empty(struct list *list)
{
    list->first = NULL;
    list->end = &list->first;
}

static void append(struct list *list, struct blk_work *work)
{
    work->next = NULL;
    *list->end = work;
    list->end = &work->next;
}

static struct blk_work *take_first(struct list *list)
{
    struct blk_work *work = list->first;
    list->first = work->next;
    if (list->first == NULL)
        list->end = &list->first;
    return work;
}

/* All of it, as a chain by `next`. */
static struct blk_work *take_all(struct list *list)
{
    struct blk_work *first = list->first;
    empty(list);
    return first;
}

/* ---- the threads ---- */

static void put_done(struct blk_workers *workers, struct blk_work *work)
{
    uint64_t one = 1;
    pthread_mutex_lock(&workers->lock);
    bool was_empty = workers->done.first == NULL;
    append(&workers->done, work);
    pthread_cond_signal(&workers->has_done);
    pthread_mutex_unlock(&workers->lock);
    if (!was_empty)
        return; /* whoever put the first one has woken the loop, which takes all */
    ssize_t written = write(workers->done_fd, &one, sizeof(one));
    (void)written; /* fails only where as many wake-ups are pending as fit */
}

static struct blk_work *wait_for_work(struct blk_workers *workers)
{
    struct blk_work *work = NULL;
    pthread_mutex_lock(&workers->lock);
    workers->idle++;
    while (workers->to_do.first == NULL && !workers->is_over)
        pthread_cond_wait(&workers->has_work, &workers->lock);
    workers->idle--;
    if (workers->to_do.first != NULL) {
        work = take_first(&workers->to_do);
        workers->waiting--;
    }
    pthread_mutex_unlock(&workers->lock);
    return work;
}

static void *run_worker(void *user)
{
    struct blk_workers *workers = user;
    struct blk_work *work;
    while ((work = wait_for_work(workers)) != NULL) {
        work->result = workers->options.perform(work);
        put_done(workers, work);
    }
    return NULL;
}

/* On the loop's thread: another one, if there is none free for all that waits. False where there is none at all. */
static bool have_thread(struct blk_workers *workers)
{
    pthread_mutex_lock(&workers->lock);
    bool wants_one = workers->waiting >= workers->idle && workers->thread_count < workers->options.most_threads;
    pthread_mutex_unlock(&workers->lock);
    if (!wants_one)
        return true;
    pthread_t *thread = &workers->threads[workers->thread_count];
    int result = thread_start_as(THREAD_DISK, "vial-blk-io", run_worker, workers, thread);
    if (result == 0)
        workers->thread_count++;
    else if (workers->thread_count == 0)
        log_warn("blk.no_worker", LOG_ERRNO(result));
    return workers->thread_count > 0;
}

/* ---- the loop's side ---- */

void blk_workers_give(struct blk_workers *workers, struct blk_work *work)
{
    workers->busy++;
    if (!have_thread(workers)) {
        work->result = workers->options.perform(work);
        put_done(workers, work);
        return;
    }
    pthread_mutex_lock(&workers->lock);
    append(&workers->to_do, work);
    workers->waiting++;
    pthread_cond_signal(&workers->has_work);
    pthread_mutex_unlock(&workers->lock);
}

unsigned blk_workers_busy(const struct blk_workers *workers)
{
    return workers->busy;
}

static void finish_all(struct blk_workers *workers, struct blk_work *work)
{
    while (work != NULL) {
        struct blk_work *next = work->next; /* the work may be gone, or given again, afterwards */
        workers->busy--;
        workers->options.finished(workers->options.user, work);
        work = next;
    }
}

static void handle_done(void *user, uint32_t what)
{
    struct blk_workers *workers = user;
    (void)what;
    pthread_mutex_lock(&workers->lock);
    struct blk_work *work = take_all(&workers->done);
    pthread_mutex_unlock(&workers->lock);
    finish_all(workers, work);
    workers->options.settled(workers->options.user);
}

void blk_workers_withdraw(struct blk_workers *workers)
{
    pthread_mutex_lock(&workers->lock);
    struct blk_work *work = take_all(&workers->to_do);
    workers->waiting = 0;
    pthread_mutex_unlock(&workers->lock);
    for (struct blk_work *each = work; each != NULL; each = each->next)
        each->result = -ECANCELED;
    finish_all(workers, work);
}

void blk_workers_wait(struct blk_workers *workers)
{
    assert(workers->busy > 0);
    pthread_mutex_lock(&workers->lock);
    while (workers->done.first == NULL)
        pthread_cond_wait(&workers->has_done, &workers->lock);
    struct blk_work *work = take_all(&workers->done);
    pthread_mutex_unlock(&workers->lock);
    finish_all(workers, work);
}

/* ---- life ---- */

int blk_workers_new(const struct blk_workers_options *options, struct blk_workers **ret_workers)
{
    struct blk_workers *workers = alloc_zero(sizeof(*workers) + options->most_threads * sizeof(workers->threads[0]));
    if (workers == NULL)
        return -ENOMEM;
    workers->options = *options;
    empty(&workers->to_do);
    empty(&workers->done);
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->has_work, NULL);
    pthread_cond_init(&workers->has_done, NULL);
    workers->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int result = workers->done_fd < 0 ? -errno : 0;
    if (result == 0) /* by edges, as kicks are: never read */
        result = loop_add_fd(options->loop, workers->done_fd, EPOLLIN | EPOLLET, handle_done, workers,
                             &workers->source);
    if (result < 0) {
        blk_workers_free(workers);
        return result;
    }
    *ret_workers = workers;
    return 0;
}

struct blk_workers *blk_workers_free(struct blk_workers *workers)
{
    if (workers == NULL)
        return NULL;
    assert(workers->busy == 0);
    pthread_mutex_lock(&workers->lock);
    workers->is_over = true;
    pthread_cond_broadcast(&workers->has_work);
    pthread_mutex_unlock(&workers->lock);
    for (unsigned i = 0; i < workers->thread_count; i++)
        pthread_join(workers->threads[i], NULL);
    loop_source_free(workers->source);
    fd_close(workers->done_fd);
    pthread_cond_destroy(&workers->has_work);
    pthread_cond_destroy(&workers->has_done);
    pthread_mutex_destroy(&workers->lock);
    free(workers);
    return NULL;
}
