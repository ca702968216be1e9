// SPDX-License-Identifier: Apache-2.0
/* Tests of base/log: levels, fields, the hook's life, the line sink. */
#include "test.h"

#include "base/buffer.h"
#include "base/fd.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

struct seen {
    int count;
    int level;
    char event[64];
    char details[1200];
};

static void remember(void *user, const struct vial_log_record *record)
{
    struct seen *seen = user;
    seen->count++;
    seen->level = record->level;
    snprintf(seen->event, sizeof(seen->event), "%s", record->event);
    snprintf(seen->details, sizeof(seen->details), "%s", record->details);
    log_error("from.inside"); /* dropped, and no deadlock */
}

TEST(levels_decide)
{
    struct seen seen = {0};
    log_error("before.any.hook");
    vial_log_set_hook(remember, &seen, VIAL_LOG_WARN);
    log_info("too.quiet");
    CHECK_INT(seen.count, 0);
    log_warn("loud.enough");
    CHECK_INT(seen.count, 1);
    CHECK_INT(seen.level, VIAL_LOG_WARN);
    CHECK_TEXT(seen.event, "loud.enough");
    CHECK_TEXT(seen.details, "");
    vial_log_set_hook(NULL, NULL, VIAL_LOG_TRACE);
    log_error("after");
    CHECK_INT(seen.count, 1);
}

static int evaluations;

static int evaluate(void)
{
    return ++evaluations;
}

TEST(fields_are_typed_escaped_and_lazy)
{
    struct seen seen = {0};
    vial_log_set_hook(remember, &seen, VIAL_LOG_ERROR);
    log_debug("lazy", LOG_INT("n", evaluate()));
    CHECK_INT(evaluations, 0);
    errno = EDOM;
    log_error("full", LOG_TEXT("path", "a \"b\"\n"), LOG_INT("n", -5), LOG_UINT("u", UINT64_MAX),
              LOG_HEX("x", 0xd0000000), LOG_ERRNO(-ENOENT), LOG_BYTES("raw", "\0\x1b", 2));
    CHECK_INT(errno, EDOM);
    CHECK_TEXT(seen.details, "path=\"a \\\"b\\\"\\x0a\" n=-5 u=18446744073709551615 x=0xd0000000 errno=ENOENT "
                             "raw=\"\\x00\\x1b\"");
    vial_log_set_hook(NULL, NULL, VIAL_LOG_OFF);
}

TEST(long_fields_are_cut_or_left_out)
{
    static char text[3000];
    struct seen seen = {0};
    memset(text, 'a', sizeof(text) - 1);
    vial_log_set_hook(remember, &seen, VIAL_LOG_ERROR);
    log_error("long", LOG_TEXT("one", text), LOG_TEXT("two", text), LOG_TEXT("three", text), LOG_INT("n", 1));
    CHECK(strstr(seen.details, "one=\"aaa") == seen.details);
    CHECK(strstr(seen.details, "...\"") != NULL);
    CHECK(strstr(seen.details, " n=1") != NULL);
    vial_log_set_hook(NULL, NULL, VIAL_LOG_OFF);
}

TEST(lines_on_a_descriptor)
{
    struct vial_error err;
    int ends[2];
    auto_buffer struct buffer text = BUFFER_INIT(4096);
    CHECK_INT(pipe(ends), 0);
    CHECK_INT(vial_log_to_fd(ends[1], VIAL_LOG_INFO, VIAL_LOG_STYLE_AUTO, &err), 0);
    log_info("plain", LOG_INT("n", 1));
    CHECK_INT(vial_log_to_fd(ends[1], VIAL_LOG_INFO, VIAL_LOG_STYLE_ALWAYS, &err), 0);
    log_error("coloured");
    vial_log_set_hook(NULL, NULL, VIAL_LOG_OFF);
    close(ends[1]);
    CHECK_INT(fd_read_all(ends[0], &text), 0);
    close(ends[0]);
    char *second = strchr(text.data, '\n') + 1;
    CHECK(strstr(text.data, "Z info  plain n=1\n") == text.data + strlen("2026-11-21T00:00:00.000000"));
    CHECK(strstr(second, "\033[31merror\033[0m coloured\n") != NULL);
}

TEST(wrong_sinks_are_refused)
{
    struct vial_error err;
    CHECK_INT(vial_log_to_fd(2, 6, 0, &err), -EINVAL);
    CHECK_TEXT(err.message, "log level 6 does not exist");
    CHECK_INT(vial_log_to_fd(2, 1, 3, &err), -EINVAL);
    CHECK_TEXT(err.message, "log style 3 does not exist");
    CHECK_INT(vial_log_to_fd(999, 1, 0, &err), -EINVAL);
    CHECK_TEXT(err.message, "log descriptor 999 is not open for writing");
    CHECK(err.remedy[0] != '\0');
    int read_only = open("/dev/null", O_RDONLY);
    CHECK_INT(vial_log_to_fd(read_only, 1, 0, &err), -EINVAL);
    close(read_only);
    CHECK_INT(vial_log_set_hook(remember, NULL, 6), -EINVAL);
}

TEST(a_reader_that_is_gone_costs_lines_not_the_process)
{
    struct vial_error err;
    sigset_t pending;
    int ends[2];
    CHECK_INT(pipe(ends), 0);
    close(ends[0]);
    CHECK_INT(vial_log_to_fd(ends[1], VIAL_LOG_INFO, VIAL_LOG_STYLE_NEVER, &err), 0);
    log_info("lost");
    vial_log_set_hook(NULL, NULL, VIAL_LOG_OFF);
    sigpending(&pending);
    CHECK_INT(sigismember(&pending, SIGPIPE), 0);
    close(ends[1]);
}

static int result_inside;

static void change_hook(void *user, const struct vial_log_record *record)
{
    (void)record;
    result_inside = vial_log_set_hook(NULL, user, VIAL_LOG_OFF);
}

TEST(a_hook_cannot_be_changed_from_inside)
{
    vial_log_set_hook(change_hook, NULL, VIAL_LOG_INFO);
    log_info("now");
    CHECK_INT(result_inside, -EDEADLK);
    CHECK_INT(vial_log_set_hook(NULL, NULL, VIAL_LOG_OFF), 0);
}

static atomic_bool is_over;

static void be_slow(void *user, const struct vial_log_record *record)
{
    (void)user;
    (void)record;
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do
        clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - start.tv_sec) * 1000000000 + now.tv_nsec - start.tv_nsec < 200000);
}

static void *log_without_pause(void *argument)
{
    (void)argument;
    while (!atomic_load(&is_over))
        log_info("busy");
    return NULL;
}

TEST(busy_loggers_do_not_keep_the_hook)
{
    pthread_t threads[8];
    vial_log_set_hook(be_slow, NULL, VIAL_LOG_INFO);
    for (size_t i = 0; i < 8; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, log_without_pause, NULL), 0);
    vial_log_set_hook(NULL, NULL, VIAL_LOG_OFF); /* waited for ever when readers came first */
    atomic_store(&is_over, true);
    for (size_t i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
}

static pthread_mutex_t program_lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP; /* like an interpreter's */
static atomic_int hooks_running;

static void want_the_lock(void *user, const struct vial_log_record *record)
{
    (void)user;
    (void)record;
    atomic_fetch_add(&hooks_running, 1);
    pthread_mutex_lock(&program_lock);
    pthread_mutex_unlock(&program_lock);
}

static void *log_one(void *argument)
{
    (void)argument;
    log_info("one");
    return NULL;
}

static void *take_the_hook_away(void *argument)
{
    vial_log_set_hook(NULL, NULL, VIAL_LOG_OFF);
    atomic_store((atomic_bool *)argument, true);
    return NULL;
}

TEST(a_hook_may_wait_for_a_thread_that_logs)
{
    static atomic_bool is_away;
    pthread_t in_hook, setter;
    pthread_mutex_lock(&program_lock);
    vial_log_set_hook(want_the_lock, NULL, VIAL_LOG_INFO);
    CHECK_INT(pthread_create(&in_hook, NULL, log_one, NULL), 0);
    while (atomic_load(&hooks_running) == 0)
        sched_yield();
    CHECK_INT(pthread_create(&setter, NULL, take_the_hook_away, &is_away), 0);
    for (int i = 0; i < 5000; i++) { /* with the lock that the hook waits for, while the setter waits for the hook */
        log_info("two");
        sched_yield();
    }
    CHECK(!atomic_load(&is_away));
    pthread_mutex_unlock(&program_lock);
    pthread_join(in_hook, NULL);
    pthread_join(setter, NULL);
    CHECK(atomic_load(&is_away));
}

static atomic_int calls;
static atomic_bool is_gone;

static void count_call(void *user, const struct vial_log_record *record)
{
    (void)record;
    if (atomic_load(&is_gone))
        atomic_store((atomic_bool *)user, true);
    atomic_fetch_add(&calls, 1);
}

static void *log_much(void *argument)
{
    (void)argument;
    for (int i = 0; i < 2000; i++)
        log_info("much", LOG_INT("i", i));
    return NULL;
}

TEST(a_hook_that_was_taken_away_is_not_called)
{
    static atomic_bool was_called_late;
    pthread_t threads[4];
    vial_log_set_hook(count_call, &was_called_late, VIAL_LOG_INFO);
    for (size_t i = 0; i < 4; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, log_much, NULL), 0);
    while (atomic_load(&calls) < 100)
        sched_yield();
    vial_log_set_hook(NULL, NULL, VIAL_LOG_OFF);
    atomic_store(&is_gone, true);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK(!atomic_load(&was_called_late));
}

TEST(level_names)
{
    enum vial_log_level level = VIAL_LOG_OFF;
    CHECK_INT(log_level_from_name("trace", &level), 0);
    CHECK_INT(level, VIAL_LOG_TRACE);
    CHECK_INT(log_level_from_name("loud", &level), -EINVAL);
}

static void ignore_record(void *user, const struct vial_log_record *record)
{
    (void)user, (void)record;
}

TEST(the_most_verbose_wish_takes_the_hooks_place)
{
    CHECK_INT(vial_log_set_hook(ignore_record, NULL, VIAL_LOG_WARN), 0);
    log_wish_level(-1); /* none */
    CHECK(log_is_enabled(VIAL_LOG_WARN) && !log_is_enabled(VIAL_LOG_INFO));
    log_wish_level(VIAL_LOG_ERROR);
    CHECK(!log_is_enabled(VIAL_LOG_WARN));
    log_wish_level(VIAL_LOG_DEBUG);
    log_wish_level(VIAL_LOG_DEBUG);
    CHECK(log_is_enabled(VIAL_LOG_DEBUG) && !log_is_enabled(VIAL_LOG_TRACE));
    log_drop_wish(VIAL_LOG_DEBUG);
    CHECK(log_is_enabled(VIAL_LOG_DEBUG));
    log_drop_wish(VIAL_LOG_DEBUG);
    CHECK(log_is_enabled(VIAL_LOG_ERROR) && !log_is_enabled(VIAL_LOG_WARN));
    log_drop_wish(VIAL_LOG_ERROR);
    log_drop_wish(-1);
    CHECK(log_is_enabled(VIAL_LOG_WARN) && !log_is_enabled(VIAL_LOG_INFO));
    log_wish_level(VIAL_LOG_TRACE);
    CHECK_INT(vial_log_set_hook(NULL, NULL, VIAL_LOG_OFF), 0);
    CHECK(!log_is_enabled(VIAL_LOG_ERROR)); /* nobody listens */
    log_drop_wish(VIAL_LOG_TRACE);
}
