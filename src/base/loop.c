// SPDX-License-Identifier: Apache-2.0
/* An event loop: descriptors, timers and signals on one thread.
 *
 * One epoll instance waits for everything. Timers share one timerfd, armed for the earliest deadline of a binary heap;
 * signals share one signalfd; both are made when they are first wanted. A stop arrives on an eventfd, which wakes the
 * loop from anywhere, and is nothing else: whoever sent it has no part in the loop's memory afterwards. epoll hands out
 * events in batches, and a function may free a source that stands later in the same batch: a freed source is therefore
 * marked dead, skipped, and its memory returned only after the batch.
 *
 *     loop_run:  wait ──> stop asked for? return ──> for each event: dead? skip : call ──> bury the dead ──> wait
 *
 * Invariants: (1) a function is never called after its source was freed. (2) heap[i]->heap_index == i for every armed
 * timer. (3) a signal's mask is restored to what it was before its source. (4) setting a deadline cannot fail: room in
 * the heap is made when the timer is added.
 *
 * Trust: everything here is ours; data read from descriptors is the callers' business.
 */
#include "base/loop.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { batch_events = 32, max_timers = 65536, not_armed = -1 };

enum source_kind { SOURCE_FD, SOURCE_TIMER, SOURCE_SIGNAL };

struct loop_source {
    struct loop *loop; /* borrowed */
    enum source_kind kind;
    bool is_dead;
    loop_function function;
    void *user; /* borrowed */
    int fd;     /* borrowed; SOURCE_FD */
    uint64_t deadline_ns;
    int heap_index; /* SOURCE_TIMER: place in the heap, or not_armed */
    int signal_number;
    bool was_unblocked;                  /* SOURCE_SIGNAL: unblock it again */
    struct loop_source *previous, *next; /* all living sources, or the dead */
};

struct loop {
    int epoll_fd, stop_fd, timer_fd, signal_fd; /* owned */
    struct loop_source *living, *dead;          /* owned */
    struct loop_source **heap;                  /* owned array of borrowed timers, earliest first */
    size_t heap_count, heap_capacity, timer_count;
    sigset_t signals;
};

/* ---- timers: a binary heap by deadline ---- */

static void heap_place(struct loop *loop, size_t index, struct loop_source *timer)
{
    loop->heap[index] = timer;
    timer->heap_index = (int)index;
}

static void heap_move_up(struct loop *loop, size_t index)
{
    struct loop_source *timer = loop->heap[index];
    while (index > 0 && loop->heap[(index - 1) / 2]->deadline_ns > timer->deadline_ns) {
        heap_place(loop, index, loop->heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    heap_place(loop, index, timer);
}

static void heap_move_down(struct loop *loop, size_t index)
{
    struct loop_source *timer = loop->heap[index];
    for (;;) {
        size_t child = 2 * index + 1;
        if (child >= loop->heap_count)
            break;
        if (child + 1 < loop->heap_count && loop->heap[child + 1]->deadline_ns < loop->heap[child]->deadline_ns)
            child++;
        if (loop->heap[child]->deadline_ns >= timer->deadline_ns)
            break;
        heap_place(loop, index, loop->heap[child]);
        index = child;
    }
    heap_place(loop, index, timer);
}

static void heap_remove(struct loop *loop, struct loop_source *timer)
{
    if (timer->heap_index == not_armed)
        return;
    size_t index = (size_t)timer->heap_index;
    struct loop_source *last = loop->heap[--loop->heap_count];
    timer->heap_index = not_armed;
    if (last == timer)
        return;
    heap_place(loop, index, last);
    heap_move_up(loop, index);
    heap_move_down(loop, (size_t)last->heap_index);
}

static void arm_timer_fd(struct loop *loop)
{
    struct itimerspec when = {0}; /* all zero disarms */
    if (loop->heap_count > 0) {
        uint64_t deadline_ns = loop->heap[0]->deadline_ns;
        when.it_value = clock_to_timespec(deadline_ns > 0 ? deadline_ns : 1);
    }
    int result = timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
    assert(result == 0); /* only a bad descriptor or time could fail */
    (void)result;
}

void loop_set_deadline(struct loop_source *timer, uint64_t deadline_ns)
{
    struct loop *loop = timer->loop;
    assert(timer->kind == SOURCE_TIMER && !timer->is_dead);
    heap_remove(loop, timer);
    timer->deadline_ns = deadline_ns;
    if (deadline_ns != CLOCK_NEVER) {
        heap_place(loop, loop->heap_count++, timer);
        heap_move_up(loop, loop->heap_count - 1);
    }
    arm_timer_fd(loop);
}

static void fire_timers(struct loop *loop)
{
    uint64_t expirations;
    ssize_t got = read(loop->timer_fd, &expirations, sizeof(expirations));
    (void)got; /* the clock decides below; this only clears the descriptor */
    uint64_t now_ns = clock_now_ns();
    /* Each armed timer at most once: one that sets itself to a past deadline waits for the other sources' turn. */
    for (size_t left = loop->heap_count; left > 0 && loop->heap_count > 0; left--) {
        struct loop_source *timer = loop->heap[0];
        if (timer->deadline_ns > now_ns)
            break;
        heap_remove(loop, timer);
        timer->function(timer->user, 1);
    }
    arm_timer_fd(loop);
}

/* ---- sources ---- */

static struct loop_source *source_new(struct loop *loop, enum source_kind kind, loop_function function, void *user)
{
    struct loop_source *source = alloc_zero(sizeof(*source));
    if (source == NULL)
        return NULL;
    *source = (struct loop_source){
        .loop = loop,
        .kind = kind,
        .function = function,
        .user = user,
        .fd = -1,
        .deadline_ns = CLOCK_NEVER,
        .heap_index = not_armed,
        .next = loop->living,
    };
    if (loop->living != NULL)
        loop->living->previous = source;
    loop->living = source;
    return source;
}

static void source_unlink(struct loop_source *source)
{
    if (source->previous != NULL)
        source->previous->next = source->next;
    else
        source->loop->living = source->next;
    if (source->next != NULL)
        source->next->previous = source->previous;
}

/* Undoes source_new for one that was never handed out. */
static int source_abandon(struct loop_source *source, int result)
{
    source_unlink(source);
    free(source);
    return result;
}

/* The three descriptors of the loop itself carry the address of their own field; sources carry their own address. */
static int watch_own(struct loop *loop, int *slot, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = slot};
    if (fd < 0 || epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        int failure = -errno;
        fd_close(fd);
        return failure;
    }
    *slot = fd;
    return 0;
}

int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_function function, void *user,
                struct loop_source **ret_source)
{
    struct loop_source *source = source_new(loop, SOURCE_FD, function, user);
    if (source == NULL)
        return -ENOMEM;
    source->fd = fd;
    struct epoll_event event = {.events = events, .data.ptr = source};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        return source_abandon(source, -errno);
    *ret_source = source;
    return 0;
}

int loop_set_events(struct loop_source *source, uint32_t events)
{
    assert(source->kind == SOURCE_FD && !source->is_dead);
    struct epoll_event event = {.events = events, .data.ptr = source};
    return epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) < 0 ? -errno : 0;
}

int loop_add_timer(struct loop *loop, uint64_t deadline_ns, loop_function function, void *user,
                   struct loop_source **ret_source)
{
    if (loop->timer_fd < 0) {
        int result = watch_own(loop, &loop->timer_fd, timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
        if (result < 0)
            return result;
    }
    struct loop_source *timer = source_new(loop, SOURCE_TIMER, function, user);
    if (timer == NULL)
        return -ENOMEM;
    if (loop->timer_count >= loop->heap_capacity) {
        int result = alloc_grow((void **)&loop->heap, loop->heap_capacity, &loop->heap_capacity, sizeof(loop->heap[0]),
                                max_timers);
        if (result < 0)
            return source_abandon(timer, result);
    }
    loop->timer_count++;
    loop_set_deadline(timer, deadline_ns);
    *ret_source = timer;
    return 0;
}

int loop_add_signal(struct loop *loop, int signal_number, loop_function function, void *user,
                    struct loop_source **ret_source)
{
    sigset_t one, before;
    sigemptyset(&one);
    if (sigaddset(&one, signal_number) < 0 || signal_number == SIGKILL || signal_number == SIGSTOP)
        return -EINVAL;
    if (sigismember(&loop->signals, signal_number) == 1)
        return -EEXIST;
    if (loop->signal_fd < 0) {
        int result = watch_own(loop, &loop->signal_fd, signalfd(-1, &loop->signals, SFD_CLOEXEC | SFD_NONBLOCK));
        if (result < 0)
            return result;
    }
    struct loop_source *source = source_new(loop, SOURCE_SIGNAL, function, user);
    if (source == NULL)
        return -ENOMEM;
    source->signal_number = signal_number;
    pthread_sigmask(SIG_BLOCK, &one, &before);
    source->was_unblocked = sigismember(&before, signal_number) == 0;
    sigaddset(&loop->signals, signal_number);
    int result = signalfd(loop->signal_fd, &loop->signals, 0) < 0 ? -errno : 0;
    assert(result == 0); /* the descriptor exists and the mask is ours */
    *ret_source = source;
    return result;
}

struct loop_source *loop_source_free(struct loop_source *source)
{
    if (source == NULL)
        return NULL;
    struct loop *loop = source->loop;
    assert(!source->is_dead);
    switch (source->kind) {
    case SOURCE_FD:
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL); /* fails only if the owner closed it first */
        break;
    case SOURCE_TIMER:
        loop_set_deadline(source, CLOCK_NEVER);
        loop->timer_count--;
        break;
    case SOURCE_SIGNAL:
        sigdelset(&loop->signals, source->signal_number);
        signalfd(loop->signal_fd, &loop->signals, 0);
        if (source->was_unblocked) {
            sigset_t one;
            sigemptyset(&one);
            sigaddset(&one, source->signal_number);
            pthread_sigmask(SIG_UNBLOCK, &one, NULL);
        }
        break;
    }
    source_unlink(source);
    source->is_dead = true;
    source->next = loop->dead;
    loop->dead = source;
    return NULL;
}

static void bury_dead(struct loop *loop)
{
    while (loop->dead != NULL) {
        struct loop_source *source = loop->dead;
        loop->dead = source->next;
        free(source);
    }
}

static void deliver_signals(struct loop *loop)
{
    struct signalfd_siginfo info;
    while (read(loop->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        for (struct loop_source *source = loop->living; source != NULL; source = source->next) {
            if (source->kind == SOURCE_SIGNAL && source->signal_number == (int)info.ssi_signo) {
                source->function(source->user, info.ssi_signo);
                break;
            }
        }
    }
}

/* ---- the loop ---- */

int loop_new(struct loop **ret_loop)
{
    struct loop *loop = alloc_zero(sizeof(*loop));
    if (loop == NULL)
        return -ENOMEM;
    loop->stop_fd = loop->timer_fd = loop->signal_fd = -1;
    sigemptyset(&loop->signals);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int result = loop->epoll_fd < 0 ? -errno : 0;
    if (result == 0)
        result = watch_own(loop, &loop->stop_fd, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (result < 0) {
        loop_free(loop);
        return result;
    }
    *ret_loop = loop;
    return 0;
}

struct loop *loop_free(struct loop *loop)
{
    if (loop == NULL)
        return NULL;
    while (loop->living != NULL)
        loop_source_free(loop->living);
    bury_dead(loop);
    fd_close(loop->signal_fd);
    fd_close(loop->timer_fd);
    fd_close(loop->stop_fd);
    fd_close(loop->epoll_fd);
    free(loop->heap);
    free(loop);
    return NULL;
}

void loop_stop(struct loop *loop)
{
    uint64_t one = 1;
    int saved = errno;
    ssize_t written = write(loop->stop_fd, &one, sizeof(one));
    (void)written; /* EAGAIN means that enough stops are pending already */
    errno = saved;
}

/* Whether a stop has come; takes it. It may stand behind a full batch of other events. */
static bool take_stop(struct loop *loop, const struct epoll_event *events, int count)
{
    uint64_t stops;
    bool may_have_come = count == batch_events;
    for (int i = 0; i < count && !may_have_come; i++)
        may_have_come = events[i].data.ptr == &loop->stop_fd;
    return may_have_come && read(loop->stop_fd, &stops, sizeof(stops)) == (ssize_t)sizeof(stops);
}

static void dispatch(struct loop *loop, const struct epoll_event *event)
{
    if (event->data.ptr == &loop->timer_fd) {
        fire_timers(loop);
    } else if (event->data.ptr == &loop->signal_fd) {
        deliver_signals(loop);
    } else {
        struct loop_source *source = event->data.ptr;
        if (!source->is_dead)
            source->function(source->user, event->events);
    }
}

/* One wait and everything that it brought: 1, 0 when a stop was among it, or -errno. */
static int turn(struct loop *loop, int timeout_ms)
{
    struct epoll_event events[batch_events];
    int count = epoll_wait(loop->epoll_fd, events, batch_events, timeout_ms);
    if (count < 0 && errno != EINTR)
        return -errno;
    if (take_stop(loop, events, count))
        return 0;
    for (int i = 0; i < count; i++)
        dispatch(loop, &events[i]);
    bury_dead(loop);
    return 1;
}

int loop_run(struct loop *loop)
{
    int result;
    do
        result = turn(loop, -1);
    while (result > 0);
    return result;
}

int loop_turn(struct loop *loop)
{
    int result = turn(loop, 0);
    return result < 0 ? result : 0;
}
