// SPDX-License-Identifier: Apache-2.0
/* Tests of base/loop: order, freeing inside callbacks, stops from elsewhere, signals, timers. */
#include "test.h"

#include "base/clock.h"
#include "base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct world {
    struct loop *loop;
    struct loop_source *sources[8];
    int fds[8];
    int calls[8];
    char order[64];
};

static struct world world;

static void note(char letter)
{
    size_t length = strlen(world.order);
    if (length + 1 < sizeof(world.order))
        world.order[length] = letter;
}

static void stop(void *user, uint32_t what)
{
    (void)what;
    (*(int *)user)++;
    loop_stop(world.loop);
}

static void begin(void)
{
    world = (struct world){0};
    if (loop_new(&world.loop) != 0)
        test_fail(__FILE__, __LINE__, "loop_new");
}

TEST(descriptor_wakes_the_loop)
{
    begin();
    int fd = eventfd(1, 0);
    CHECK_INT(loop_add_fd(world.loop, fd, EPOLLIN, stop, &world.calls[0], &world.sources[0]), 0);
    CHECK_INT(loop_add_fd(world.loop, fd, EPOLLIN, stop, &world.calls[0], &world.sources[1]), -EEXIST);
    CHECK_INT(loop_run(world.loop), 0);
    CHECK_INT(world.calls[0], 1);
    CHECK_INT(loop_set_events(world.sources[0], 0), 0);
    loop_stop(world.loop);
    CHECK_INT(loop_run(world.loop), 0);
    CHECK_INT(world.calls[0], 1); /* not interested any more */
    loop_free(world.loop);
    close(fd);
}

static void free_all_others(void *user, uint32_t what)
{
    (void)user;
    (void)what;
    for (int i = 0; i < 4; i++) {
        world.calls[4]++;
        world.sources[i] = loop_source_free(world.sources[i]); /* this one, too */
    }
    loop_stop(world.loop);
}

TEST(sources_freed_in_the_same_batch_are_not_called)
{
    begin();
    for (int i = 0; i < 4; i++) {
        world.fds[i] = eventfd(1, 0);
        CHECK_INT(loop_add_fd(world.loop, world.fds[i], EPOLLIN, free_all_others, NULL, &world.sources[i]), 0);
    }
    CHECK_INT(loop_run(world.loop), 0);
    CHECK_INT(world.calls[4], 4); /* only the first of the four ran */
    loop_free(world.loop);
    for (int i = 0; i < 4; i++)
        close(world.fds[i]);
}

static void note_letter(void *user, uint32_t what)
{
    (void)what;
    note(*(const char *)user);
    if (*(const char *)user == 'e')
        loop_stop(world.loop);
}

TEST(timers_fire_in_order_of_deadline)
{
    static const char letters[] = "abcde";
    static const int order[] = {3, 0, 4, 2, 1};
    begin();
    uint64_t now_ns = clock_now_ns();
    for (int i = 0; i < 5; i++)
        CHECK_INT(loop_add_timer(world.loop, now_ns + (uint64_t)order[i] * CLOCK_NS_PER_MS, note_letter,
                                 (void *)(uintptr_t)&letters[order[i]], &world.sources[i]),
                  0);
    CHECK_INT(loop_run(world.loop), 0);
    CHECK_TEXT(world.order, "abcde");
    loop_free(world.loop);
}

TEST(timers_can_be_moved_disarmed_and_freed)
{
    static const char letters[] = "abcde";
    begin();
    uint64_t now_ns = clock_now_ns();
    for (int i = 0; i < 5; i++)
        CHECK_INT(loop_add_timer(world.loop, now_ns + CLOCK_NS_PER_MS, note_letter, (void *)(uintptr_t)&letters[i],
                                 &world.sources[i]),
                  0);
    loop_set_deadline(world.sources[0], now_ns + 3 * CLOCK_NS_PER_MS);
    loop_set_deadline(world.sources[1], CLOCK_NEVER);
    world.sources[2] = loop_source_free(world.sources[2]);
    loop_set_deadline(world.sources[4], now_ns + 5 * CLOCK_NS_PER_MS);
    CHECK_INT(loop_run(world.loop), 0);
    CHECK_TEXT(world.order, "dae");
    loop_free(world.loop);
}

static void rearm_in_the_past(void *user, uint32_t what)
{
    (void)what;
    if (++world.calls[0] < 1000)
        loop_set_deadline(*(struct loop_source **)user, 0);
}

TEST(a_timer_that_always_fires_does_not_starve_descriptors)
{
    begin();
    int fd = eventfd(1, 0);
    CHECK_INT(loop_add_timer(world.loop, 0, rearm_in_the_past, &world.sources[0], &world.sources[0]), 0);
    CHECK_INT(loop_add_fd(world.loop, fd, EPOLLIN, stop, &world.calls[1], &world.sources[1]), 0);
    CHECK_INT(loop_run(world.loop), 0);
    CHECK(world.calls[0] < 1000);
    CHECK_INT(world.calls[1], 1);
    loop_free(world.loop);
    close(fd);
}

static void *stop_soon(void *argument)
{
    (void)argument;
    loop_stop(world.loop);
    return NULL;
}

TEST(stop_comes_from_any_thread_and_is_never_lost)
{
    begin();
    loop_stop(world.loop); /* before the run */
    CHECK_INT(loop_run(world.loop), 0);
    for (int i = 0; i < 200; i++) {
        pthread_t thread;
        CHECK_INT(pthread_create(&thread, NULL, stop_soon, NULL), 0);
        CHECK_INT(loop_run(world.loop), 0);
        pthread_join(thread, NULL);
    }
    loop_free(world.loop);
}

static void count_and_stay_ready(void *user, uint32_t what)
{
    (void)what;
    (*(int *)user)++;
}

TEST(a_stop_comes_before_however_many_are_ready)
{
    enum { count = 100 };
    static struct loop_source *sources[count];
    static int fds[count];
    begin();
    for (int i = 0; i < count; i++) {
        fds[i] = eventfd(1, 0);
        CHECK_INT(loop_add_fd(world.loop, fds[i], EPOLLIN, count_and_stay_ready, &world.calls[0], &sources[i]), 0);
    }
    loop_stop(world.loop);
    CHECK_INT(loop_run(world.loop), 0);
    CHECK_INT(world.calls[0], 0);
    loop_free(world.loop);
    for (int i = 0; i < count; i++)
        close(fds[i]);
}

static void note_signal(void *user, uint32_t what)
{
    *(uint32_t *)user = what;
    loop_stop(world.loop);
}

TEST(signals_arrive_and_the_mask_is_restored)
{
    uint32_t seen = 0;
    sigset_t mask;
    begin();
    CHECK_INT(loop_add_signal(world.loop, SIGUSR1, note_signal, &seen, &world.sources[0]), 0);
    CHECK_INT(loop_add_signal(world.loop, SIGUSR1, note_signal, &seen, &world.sources[1]), -EEXIST);
    CHECK_INT(loop_add_signal(world.loop, SIGKILL, note_signal, &seen, &world.sources[1]), -EINVAL);
    CHECK_INT(loop_add_signal(world.loop, 4711, note_signal, &seen, &world.sources[1]), -EINVAL);
    CHECK_INT(loop_add_signal(world.loop, SIGUSR2, note_signal, &seen, &world.sources[1]), 0);
    raise(SIGUSR2);
    CHECK_INT(loop_run(world.loop), 0);
    CHECK_INT(seen, SIGUSR2);
    world.sources[1] = loop_source_free(world.sources[1]);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    CHECK_INT(sigismember(&mask, SIGUSR1), 1);
    CHECK_INT(sigismember(&mask, SIGUSR2), 0);
    loop_free(world.loop);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    CHECK_INT(sigismember(&mask, SIGUSR1), 0);
}

TEST(many_timers_keep_the_heap_right)
{
    enum { count = 500 };
    static struct loop_source *timers[count];
    begin();
    uint64_t now_ns = clock_now_ns();
    unsigned random = 1;
    for (int i = 0; i < count; i++) {
        random = random * 1103515245 + 12345;
        CHECK_INT(loop_add_timer(world.loop, now_ns + (random >> 8) % 1000000, note_letter, (void *)(uintptr_t) "x",
                                 &timers[i]),
                  0);
    }
    for (int i = 0; i < count; i += 3)
        timers[i] = loop_source_free(timers[i]);
    CHECK_INT(loop_add_timer(world.loop, now_ns + CLOCK_NS_PER_MS, stop, &world.calls[0], &world.sources[0]), 0);
    CHECK_INT(loop_run(world.loop), 0);
    CHECK_INT(world.calls[0], 1);
    CHECK_INT(strlen(world.order), sizeof(world.order) - 1);
    loop_free(world.loop);
}

TEST(loop_survives_no_memory)
{
    int fd = eventfd(1, 0);
    FOR_EACH_FAULT
    {
        struct loop_source *source = NULL;
        int result = loop_new(&world.loop);
        if (result == 0) {
            result = loop_add_fd(world.loop, fd, EPOLLIN, stop, NULL, &source);
            if (result == 0)
                result = loop_add_timer(world.loop, CLOCK_NEVER, stop, NULL, &source);
            if (result == 0)
                result = loop_add_signal(world.loop, SIGUSR1, stop, NULL, &source);
            loop_free(world.loop);
        }
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
    }
    close(fd);
}
