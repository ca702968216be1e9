// SPDX-License-Identifier: Apache-2.0
/* Threads and CPUs: each CPU runs what is pinned to it, many threads at once, and two that wake each other in turn. */
#include "part.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { thread_count = 200, thread_rounds = 100, moves = 200, pingpong_rounds = 2000, most_cpus = 64 };

/* ---- each CPU ---- */

static atomic_uint arrived;

static void *run_on(void *argument)
{
    unsigned cpu = (unsigned)(uintptr_t)argument;
    pin_to(cpu);
    for (int i = 0; i < 100; i++) {
        sched_yield();
        if (sched_getcpu() != (int)cpu)
            return "it runs on another CPU than its own";
    }
    /* All are on their CPUs at once. */
    atomic_fetch_add(&arrived, 1);
    while (atomic_load(&arrived) < cpu_count())
        sched_yield();
    return NULL;
}

static bool moves_about(unsigned cpus)
{
    for (unsigned i = 0; i < moves; i++) {
        pin_to(i % cpus);
        if (sched_getcpu() != (int)(i % cpus))
            return complain("after %u moves it is not where it was sent", i);
    }
    return true;
}

bool part_cpus(void)
{
    unsigned cpus = cpu_count();
    pthread_t threads[most_cpus];
    bool is_good = cpus <= most_cpus || complain("%u CPUs", cpus);
    for (unsigned i = 0; is_good && i < cpus; i++)
        is_good = pthread_create(&threads[i], NULL, run_on, (void *)(uintptr_t)i) == 0 || complain("thread %u", i);
    for (unsigned i = 0; is_good && i < cpus; i++) {
        void *wrong = NULL;
        pthread_join(threads[i], &wrong);
        is_good = wrong == NULL || complain("CPU %u: %s", i, (char *)wrong);
    }
    note("%u CPUs", cpus);
    return is_good && moves_about(cpus);
}

/* ---- many ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned waiting, sum;
static _Thread_local unsigned own;

static void *add_up(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&lock);
    waiting++;
    pthread_cond_broadcast(&changed);
    while (waiting < thread_count)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < thread_rounds; i++) {
        pthread_mutex_lock(&lock);
        sum++;
        pthread_mutex_unlock(&lock);
        own++;
        if (i % 10 == 0)
            sched_yield();
    }
    return (void *)(uintptr_t)own;
}

bool part_threads(void)
{
    pthread_t threads[thread_count];
    bool is_good = true;
    for (int i = 0; i < thread_count; i++)
        if (pthread_create(&threads[i], NULL, add_up, NULL) != 0)
            return complain("thread %d", i);
    for (int i = 0; i < thread_count; i++) {
        void *count = NULL;
        pthread_join(threads[i], &count);
        is_good &= expect((uintptr_t)count == thread_rounds);
    }
    return expect(sum == thread_count * thread_rounds) && is_good;
}

/* ---- two in turn ---- */

enum { FUTEX_WAIT_PRIVATE = 128, FUTEX_WAKE_PRIVATE = 129 }; /* linux/futex.h, which musl does not bring */

static atomic_uint turn;

static void take_turns(unsigned parity)
{
    for (unsigned i = 0; i < pingpong_rounds; i++) {
        for (unsigned seen; (seen = atomic_load(&turn)) % 2 != parity;)
            syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, seen, NULL);
        atomic_fetch_add(&turn, 1);
        syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, INT_MAX);
    }
}

static void *answer(void *unused)
{
    (void)unused;
    pin_to(cpu_count() - 1);
    take_turns(1);
    return NULL;
}

/* Across two CPUs where there are two: a lost wake-up hangs here. */
bool part_pingpong(void)
{
    pthread_t thread;
    pin_to(0);
    if (pthread_create(&thread, NULL, answer, NULL) != 0)
        return complain("thread");
    uint64_t start_ns = now_ns();
    take_turns(0);
    pthread_join(thread, NULL);
    note("%llu ns for a round", (unsigned long long)(now_ns() - start_ns) / pingpong_rounds);
    errno = 0;
    return expect(atomic_load(&turn) == 2 * pingpong_rounds);
}
