// SPDX-License-Identifier: Apache-2.0
/* Threads for requests that may take long.
 *
 * The device's thread submits requests and takes them back when they are done; in between they belong to one worker. A
 * thread is started when a request comes and none is idle, up to the number that was asked for, and then stays.
 *
 *     device's thread                               worker
 *     ───────────────                               ──────
 *     workers_submit ──pending list──condition──>   request_execute
 *     workers_take_done <──────────────eventfd──    done list
 *     workers_drain  <──────────────condition───    (nothing pending, nobody busy)
 *
 * Invariants: (1) lists and counts are touched under the lock only. (2) after workers_drain nobody works on a request,
 * until the next one is submitted by the same thread that drained. (3) the eventfd is written after the request was put
 * into the done list, so an edge is never too early.
 *
 * Trust: requests are ours. A backend that never returns from a call keeps its worker, and whoever drains, for ever.
 */
#include "device/fs/workers.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/thread.h"
#include "device/fs/fs.h"
#include "device/fs/request.h"

#include <assert.h>
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct workers {
    pthread_mutex_t lock;
    pthread_cond_t is_wanted; /* something is pending, or all shall end */
    pthread_cond_t is_drained;
    struct request *first, *last;           /* borrowed: pending */
    struct request *first_done, *last_done; /* borrowed */
    unsigned pending, busy, idle;
    bool is_ending;
    int done_fd; /* owned */
    unsigned most_threads, thread_count;
    pthread_t threads[FS_MOST_WORKERS];
};

static void add_last(struct request **first, struct request **last, struct request *request)
{
    request->next = NULL;
    if (*first == NULL)
        *first = request;
    else
        (*last)->next = request;
    *last = request;
}

static void signal_done(const struct workers *workers)
{
    uint64_t one = 1;
    ssize_t written = write(workers->done_fd, &one, sizeof(one));
    (void)written; /* fails only where as many signals are pending as fit */
}

/* With the lock, which it lets go meanwhile. */
static void work(struct workers *workers)
{
    struct request *request = workers->first;
    workers->first = request->next;
    workers->pending--;
    workers->busy++;
    pthread_mutex_unlock(&workers->lock);
    request_execute(request);
    pthread_mutex_lock(&workers->lock);
    bool is_first = workers->first_done == NULL;
    add_last(&workers->first_done, &workers->last_done, request);
    if (is_first) /* whoever takes the list takes all of it */
        signal_done(workers);
    workers->busy--;
    if (workers->busy == 0 && workers->pending == 0)
        pthread_cond_broadcast(&workers->is_drained);
}

static void *run_worker(void *user)
{
    struct workers *workers = user;
    pthread_mutex_lock(&workers->lock);
    while (!workers->is_ending) {
        if (workers->pending > 0) {
            work(workers);
            continue;
        }
        workers->idle++;
        pthread_cond_wait(&workers->is_wanted, &workers->lock);
        workers->idle--;
    }
    pthread_mutex_unlock(&workers->lock);
    return NULL;
}

int workers_new(unsigned most_threads, struct workers **ret_workers)
{
    assert(most_threads >= 1 && most_threads <= FS_MOST_WORKERS);
    struct workers *workers = alloc_zero(sizeof(*workers));
    if (workers == NULL)
        return -ENOMEM;
    workers->most_threads = most_threads;
    workers->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (workers->done_fd < 0) {
        int failure = -errno;
        free(workers);
        return failure;
    }
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->is_wanted, NULL);
    pthread_cond_init(&workers->is_drained, NULL);
    *ret_workers = workers;
    return 0;
}

struct workers *workers_free(struct workers *workers)
{
    if (workers == NULL)
        return NULL;
    pthread_mutex_lock(&workers->lock);
    assert(workers->pending == 0);
    workers->is_ending = true;
    pthread_cond_broadcast(&workers->is_wanted);
    pthread_mutex_unlock(&workers->lock);
    for (unsigned i = 0; i < workers->thread_count; i++)
        pthread_join(workers->threads[i], NULL);
    pthread_cond_destroy(&workers->is_drained);
    pthread_cond_destroy(&workers->is_wanted);
    pthread_mutex_destroy(&workers->lock);
    fd_close(workers->done_fd);
    free(workers);
    return NULL;
}

/* With the lock. */
static int start_thread(struct workers *workers)
{
    pthread_t *thread = &workers->threads[workers->thread_count];
    int result = thread_start_as(THREAD_FILES, "vial-fs-worker", run_worker, workers, thread);
    if (result == 0)
        workers->thread_count++;
    return workers->thread_count > 0 ? 0 : result;
}

int workers_submit(struct workers *workers, struct request *request)
{
    int result = 0;
    pthread_mutex_lock(&workers->lock);
    if (workers->idle <= workers->pending && workers->thread_count < workers->most_threads)
        result = start_thread(workers);
    if (result == 0) {
        add_last(&workers->first, &workers->last, request);
        workers->pending++;
        pthread_cond_signal(&workers->is_wanted);
    }
    pthread_mutex_unlock(&workers->lock);
    return result;
}

int workers_done_fd(const struct workers *workers)
{
    return workers->done_fd;
}

struct request *workers_take_done(struct workers *workers)
{
    pthread_mutex_lock(&workers->lock);
    struct request *done = workers->first_done;
    workers->first_done = NULL;
    pthread_mutex_unlock(&workers->lock);
    return done;
}

void workers_drain(struct workers *workers)
{
    pthread_mutex_lock(&workers->lock);
    while (workers->pending > 0 || workers->busy > 0)
        pthread_cond_wait(&workers->is_drained, &workers->lock);
    pthread_mutex_unlock(&workers->lock);
}
