// SPDX-License-Identifier: Apache-2.0
/* Tests of a sandbox's life: how its process is started inside a program that must not notice, stopped, waited for, and
 * what its logs say. The process is the program client_runtime. */
#include "test.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/fd.h"
#include "sandbox/home.h"
#include "vial/vial.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static struct vial_error err;
static struct vial_home *home;
static struct vial_sandbox *sandbox;

static void begin_as(const char *mode, bool ephemeral)
{
    static const char *const args[] = {"true", NULL};
    struct vial_program_options program = VIAL_PROGRAM_OPTIONS_INIT;
    struct vial_sandbox_options options = VIAL_SANDBOX_OPTIONS_INIT;
    char path[4096];
    setenv("VIAL_FAKE", mode, 1);
    setenv("A_SECRET", "of ours", 1);
    snprintf(path, sizeof(path), "%s/home", test_folder());
    program.args = args;
    program.input = true;
    options.name = "web";
    options.program = &program;
    options.ephemeral = ephemeral;
    if (vial_home_open(path, &home, &err) < 0 || vial_home_set_runtime(home, CLIENT_RUNTIME, &err) < 0 ||
        vial_sandbox_create(home, &options, &sandbox, &err) < 0) {
        printf("# %s: %s\n", err.field, err.message);
        abort();
    }
}

static void end(void)
{
    sandbox = vial_sandbox_free(sandbox);
    home = vial_home_free(home);
}

static int status(void)
{
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    return vial_sandbox_get_info(sandbox, &info, &err) < 0 ? -1 : info.status;
}

static bool has_children(void)
{
    return waitpid(-1, NULL, WNOHANG | __WALL) >= 0 || errno != ECHILD;
}

TEST(a_sandbox_is_started_waited_for_and_stopped)
{
    struct vial_exit exit = VIAL_EXIT_INIT;
    begin_as("good", false);
    CHECK_INT(status(), VIAL_SANDBOX_CREATED);
    CHECK_INT(vial_sandbox_stop(sandbox, 0, 0, &err), 0);
    CHECK_INT(vial_sandbox_start(sandbox, 10000, &err), 0);
    CHECK_INT(status(), VIAL_SANDBOX_RUNNING);
    CHECK_INT(vial_sandbox_start(sandbox, 10000, &err), -EALREADY);
    CHECK_TEXT(err.message, "sandbox \"web\" runs already");
    CHECK_INT(vial_sandbox_pause(sandbox, &err), 0);
    CHECK_INT(vial_sandbox_wait(sandbox, 20, &exit, &err), -ETIMEDOUT);
    CHECK_INT(vial_sandbox_remove(sandbox, false, &err), -EBUSY);
    CHECK_INT(vial_sandbox_stop(sandbox, 0, 10000, &err), 0);
    CHECK_INT(status(), VIAL_SANDBOX_STOPPED);
    CHECK_INT(vial_sandbox_wait(sandbox, 0, &exit, &err), 0);
    CHECK_INT(exit.reason, VIAL_EXIT_STOP_REQUESTED);
    CHECK_INT(exit.code, 143);
    CHECK_INT(vial_sandbox_start(sandbox, 10000, &err), 0);
    CHECK_INT(vial_sandbox_remove(sandbox, true, &err), 0);
    CHECK_INT(vial_sandbox_remove(sandbox, true, &err), 0);
    struct vial_sandbox *other = NULL;
    CHECK_INT(vial_sandbox_open(home, "web", &other, &err), -ENOENT);
    CHECK(!has_children());
    end();
}

static atomic_int signals_seen;

static void count_signal(int number)
{
    (void)number;
    signals_seen++;
}

TEST(a_program_does_not_notice_and_gives_nothing_away)
{
    auto_buffer struct buffer probe = BUFFER_INIT(64 << 10);
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    char path[4096];
    auto_close int inherited = dup2(1, 100); /* not close-on-exec */
    signal(SIGCHLD, count_signal);
    signal(SIGPIPE, SIG_IGN);
    begin_as("good", false);
    CHECK_INT(vial_sandbox_start(sandbox, 10000, &err), 0);
    CHECK_INT(vial_sandbox_kill(sandbox, 10000, &err), 0);
    CHECK_INT(signals_seen, 0);
    CHECK(!has_children());
    CHECK_INT(vial_sandbox_get_info(sandbox, &info, &err), 0);
    snprintf(path, sizeof(path), "%s/home/sandboxes/%s/log/probe", test_folder(), info.id);
    CHECK_INT(fd_read_file(path, &probe), 0);
    CHECK(strstr(probe.data, "session 1\nfd 0\nfd 1\nfd 2\nfd 3\n") == probe.data);
    CHECK(strstr(probe.data, "env VIAL_FAKE=good") != NULL);
    CHECK(strstr(probe.data, "SECRET") == NULL);
    CHECK(strstr(probe.data, "blocked 0 ignored 0") != NULL);
    CHECK(inherited == 100 && strstr(probe.data, "fd 100") == NULL);
    signal(SIGCHLD, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    end();
}

TEST(a_start_that_fails_says_at_which_stage)
{
    begin_as("fail", false);
    CHECK_INT(vial_sandbox_start(sandbox, 10000, &err), -ENOENT);
    CHECK_TEXT(err.field, "machine.disks[0].path");
    CHECK_TEXT(err.message, "sandbox \"web\": it is not there");
    CHECK_TEXT(err.remedy, "make it");
    CHECK_INT(err.code, VIAL_ERROR_NOT_FOUND);
    setenv("VIAL_FAKE", "silent", 1);
    CHECK_INT(vial_sandbox_start(sandbox, 10000, &err), -EIO);
    CHECK_TEXT(err.message, "the process of sandbox \"web\" has ended without a word; its log ends in: cannot open "
                            "shared object");
    setenv("VIAL_FAKE", "hang", 1);
    uint64_t before_ns = clock_now_ns();
    CHECK_INT(vial_sandbox_start(sandbox, 50, &err), -ETIMEDOUT);
    CHECK(clock_now_ns() - before_ns < 2 * CLOCK_NS_PER_S);
    CHECK_INT(vial_home_set_runtime(home, "/nowhere", &err), 0);
    CHECK_INT(vial_sandbox_start(sandbox, 50, &err), -ENOENT);
    CHECK_TEXT(err.field, "runtime");
    CHECK_INT(vial_home_set_runtime(home, test_text_file("no-program", "hello"), &err), 0);
    CHECK(vial_sandbox_start(sandbox, 50, &err) < 0);
    CHECK(!has_children());
    end();
}

TEST(the_first_client_hears_all_of_the_program)
{
    struct vial_process *process = NULL;
    struct vial_process_event event = VIAL_PROCESS_EVENT_INIT;
    struct vial_exit exit = VIAL_EXIT_INIT;
    begin_as("attach", false);
    CHECK_INT(vial_sandbox_start_attached(sandbox, 10000, &process, &err), 0);
    CHECK_INT(vial_process_next(process, &event, 10000, &err), 0);
    CHECK(event.length == 2 && memcmp(event.bytes, "hi", 2) == 0);
    CHECK_INT(vial_process_next(process, &event, 10000, &err), 0);
    CHECK_INT(event.code, 5);
    CHECK_INT(vial_sandbox_wait(sandbox, 10000, &exit, &err), 0);
    CHECK_INT(exit.reason, VIAL_EXIT_COMPLETED);
    vial_process_free(process);
    end();
}

TEST(a_process_that_does_not_listen_is_killed)
{
    struct vial_exit exit = VIAL_EXIT_INIT;
    begin_as("deaf", false);
    CHECK_INT(vial_sandbox_start(sandbox, 10000, &err), 0);
    CHECK_INT(vial_sandbox_stop(sandbox, 0, 100, &err), -ETIMEDOUT);
    CHECK_INT(vial_sandbox_kill(sandbox, 20000, &err), 0);
    CHECK_INT(status(), VIAL_SANDBOX_CRASHED);
    CHECK_INT(vial_sandbox_wait(sandbox, 0, &exit, &err), 0);
    CHECK(!has_children());
    end();
}

TEST(a_sandbox_that_removes_itself_still_says_how_it_ended)
{
    struct vial_exit exit = VIAL_EXIT_INIT;
    begin_as("good", true);
    CHECK_INT(vial_sandbox_start(sandbox, 10000, &err), 0);
    CHECK_INT(vial_sandbox_stop(sandbox, 0, 10000, &err), 0);
    CHECK_INT(status(), -1);
    CHECK_INT(vial_sandbox_wait(sandbox, 10000, &exit, &err), 0);
    CHECK_INT(exit.reason, VIAL_EXIT_STOP_REQUESTED);
    CHECK_INT(exit.code, 143);
    end();
}

/* ---- others at the same time ---- */

static char *sandbox_id(void)
{
    static struct vial_sandbox_info info;
    info = (struct vial_sandbox_info)VIAL_SANDBOX_INFO_INIT;
    return vial_sandbox_get_info(sandbox, &info, &err) < 0 ? NULL : info.id;
}

static size_t count(void)
{
    struct vial_sandbox_info *list = NULL;
    size_t count = SIZE_MAX;
    if (vial_sandbox_list(home, NULL, &list, &count, &err) == 0)
        free(list);
    return count;
}

TEST(what_is_killed_before_the_start_leaves_nothing)
{
    int ends[2], end_status = 0;
    char byte = 0;
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
        begin_as("good", true);
        (void)!write(ends[1], "x", 1);
        for (;;)
            pause();
    }
    CHECK_INT(read(ends[0], &byte, 1), 1);
    char path[4096];
    snprintf(path, sizeof(path), "%s/home", test_folder());
    CHECK_INT(vial_home_open(path, &home, &err), 0);
    CHECK_INT(count(), 1);
    CHECK_INT(kill(child, SIGKILL), 0);
    CHECK_INT(waitpid(child, &end_status, 0), child);
    CHECK_INT(count(), 0);
    fd_close(ends[0]);
    fd_close(ends[1]);
    end();
}

TEST(what_is_made_for_later_stays)
{
    char id[VIAL_SANDBOX_ID_SIZE];
    begin_as("good", true);
    memcpy(id, sandbox_id(), sizeof(id));
    sandbox = vial_sandbox_free(sandbox);
    CHECK_INT(count(), 1);
    CHECK_INT(vial_sandbox_open(home, id, &sandbox, &err), 0);
    CHECK_INT(vial_sandbox_start(sandbox, 10000, &err), 0);
    CHECK_INT(vial_sandbox_kill(sandbox, 10000, &err), 0);
    CHECK_INT(count(), 0);
    end();
}

static bool is_removal(void *user, int stream, uint64_t time_ns, const char *bytes, size_t length)
{
    (void)stream;
    (void)time_ns;
    *(int *)user += memmem(bytes, length, "\"remove\"", strlen("\"remove\"")) != NULL;
    return true;
}

TEST(a_removal_is_told_once)
{
    int told = 0;
    begin_as("good", false);
    CHECK_INT(vial_sandbox_remove(sandbox, false, &err), 0);
    CHECK_INT(vial_sandbox_remove(sandbox, false, &err), 0);
    CHECK_INT(vial_home_events(home, 0, 0, is_removal, &told, &err), 0);
    CHECK_INT(told, 1);
    end();
}

struct change {
    struct home home;
    int folder, guard;
};

static void *end_change(void *user)
{
    struct change *change = user;
    poll(NULL, 0, 100);
    fd_close(change->guard);
    return NULL;
}

TEST(a_removal_waits_for_a_repair)
{
    struct change change;
    pthread_t other;
    char path[4096];
    begin_as("good", false);
    snprintf(path, sizeof(path), "%s/home", test_folder());
    CHECK_INT(home_open(path, &change.home, &err), 0);
    change.folder = home_sandbox_open(&change.home, sandbox_id());
    change.guard = home_sandbox_guard(change.folder);
    CHECK(change.guard >= 0);
    CHECK_INT(pthread_create(&other, NULL, end_change, &change), 0);
    CHECK_INT(vial_sandbox_remove(sandbox, false, &err), 0);
    pthread_join(other, NULL);
    CHECK_INT(count(), 0);
    CHECK(!has_children());
    fd_close(change.folder);
    home_close(&change.home);
    end();
}

TEST(what_was_removed_is_not_said_to_run)
{
    struct vial_sandbox *other = NULL;
    begin_as("good", false);
    CHECK_INT(vial_sandbox_open(home, "web", &other, &err), 0);
    CHECK_INT(vial_sandbox_remove(other, false, &err), 0);
    CHECK_INT(vial_sandbox_start(sandbox, 10000, &err), -ENOENT);
    vial_sandbox_free(other);
    end();
}

TEST(a_name_does_not_hide_an_id)
{
    struct vial_sandbox_options options = VIAL_SANDBOX_OPTIONS_INIT;
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    struct vial_sandbox *other = NULL;
    begin_as("good", false);
    CHECK_INT(vial_sandbox_create(home, &options, &other, &err), 0);
    CHECK_INT(vial_sandbox_rename(other, sandbox_id(), &err), 0);
    CHECK_INT(vial_sandbox_get_info(sandbox, &info, &err), 0);
    CHECK_TEXT(info.name, "web");
    vial_sandbox_free(other);
    end();
}

TEST(who_waits_for_an_ephemeral_one_hears_of_its_crash)
{
    struct vial_exit exit = VIAL_EXIT_INIT;
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    begin_as("deaf", true);
    CHECK_INT(vial_sandbox_start(sandbox, 10000, &err), 0);
    CHECK_INT(vial_sandbox_get_info(sandbox, &info, &err), 0);
    CHECK_INT(kill(info.pid, SIGKILL), 0);
    CHECK_INT(vial_sandbox_wait(sandbox, 10000, &exit, &err), 0);
    CHECK_INT(exit.reason, VIAL_EXIT_INTERNAL_ERROR);
    CHECK_TEXT(exit.detail, "its process has ended without a word");
    CHECK_INT(count(), 0);
    end();
}

static void *start_it(void *user)
{
    struct vial_error why;
    *(int *)user = vial_sandbox_start(sandbox, 20000, &why);
    return NULL;
}

TEST(what_has_just_begun_to_start_is_stopped)
{
    struct home other;
    pthread_t starter;
    char path[4096];
    int result = 0;
    begin_as("locked", false);
    snprintf(path, sizeof(path), "%s/home", test_folder());
    CHECK_INT(home_open(path, &other, &err), 0);
    auto_close int folder = home_sandbox_open(&other, sandbox_id());
    CHECK_INT(pthread_create(&starter, NULL, start_it, &result), 0);
    while (home_sandbox_lives(folder) != 1)
        sched_yield();
    CHECK_INT(vial_sandbox_stop(sandbox, 1000, 10000, &err), 0);
    pthread_join(starter, NULL);
    CHECK_INT(result, -EIO);
    CHECK_INT(home_sandbox_lives(folder), 0);
    home_close(&other);
    end();
}

/* A process of which nothing is known but that it has the sandbox's lock. */
struct holder {
    struct home home;
    int folder;
    pid_t pid;
};

/* held: what it does with the lock once it has it. */
static void begin_held(struct holder *holder, void (*held)(int lock))
{
    char path[4096], said = 0;
    int ends[2];
    begin_as("good", false);
    snprintf(path, sizeof(path), "%s/home", test_folder());
    CHECK_INT(home_open(path, &holder->home, &err), 0);
    holder->folder = home_sandbox_open(&holder->home, sandbox_id());
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    holder->pid = fork();
    if (holder->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int lock = home_sandbox_lock(holder->folder);
        (void)!write(ends[1], "x", 1);
        held(lock);
        _exit(0);
    }
    CHECK_INT(read(ends[0], &said, 1), 1);
    CHECK_INT(home_sandbox_lives(holder->folder), 1);
    fd_close(ends[0]);
    fd_close(ends[1]);
}

static void end_held(struct holder *holder)
{
    CHECK_INT(waitpid(holder->pid, NULL, 0), holder->pid);
    fd_close(holder->folder);
    home_close(&holder->home);
    end();
}

static void hold_for_a_while(int lock)
{
    (void)lock;
    poll(NULL, 0, 300);
}

/* What is left of a process that was killed has its lock for a while; its command line is not that of a sandbox's. */
TEST(a_start_waits_for_what_a_killed_one_has_left)
{
    struct holder guardian;
    begin_held(&guardian, hold_for_a_while);
    CHECK_INT(vial_sandbox_start(sandbox, 10000, &err), 0);
    CHECK_INT(status(), VIAL_SANDBOX_RUNNING);
    CHECK_INT(vial_sandbox_stop(sandbox, 0, 10000, &err), 0);
    end_held(&guardian);
}

static void become_another(int lock)
{
    poll(NULL, 0, 300);
    dprintf(lock, "%11d\n", (int)getppid()); /* as the next one does it */
    poll(NULL, 0, -1);
}

/* The lock never gets free for who waits: a next process has it as soon as the one that was asked to end has gone. */
TEST(who_was_to_be_killed_is_not_the_next_one)
{
    struct holder next;
    begin_held(&next, become_another);
    CHECK_INT(vial_sandbox_kill(sandbox, 5000, &err), 0);
    CHECK_INT(home_sandbox_lives(next.folder), 1);
    kill(next.pid, SIGKILL);
    end_held(&next);
}

/* ---- many threads ---- */

enum { racers = 4, races = 12 };
static atomic_int started, refused, odd;

static void *race(void *user)
{
    struct vial_error why;
    struct vial_sandbox *own = NULL;
    int number = *(int *)user;
    for (int i = 0; i < races; i++) {
        int result = vial_sandbox_open(home, "web", &own, &why);
        if (result == 0)
            result = number % 2 == 0 ? vial_sandbox_start(own, 20000, &why) : vial_sandbox_kill(own, 20000, &why);
        bool is_start = number % 2 == 0;
        bool is_refused = is_start && (result == -EALREADY || result == -EIO); /* it runs, or was killed on its way */
        atomic_fetch_add(result == 0 && is_start ? &started : result == 0 || is_refused ? &refused : &odd, 1);
        if (result < 0 && !is_refused)
            printf("# %d: %d %s\n", number, result, why.message);
        own = vial_sandbox_free(own);
    }
    return NULL;
}

TEST(starts_and_ends_of_many_threads_end_in_the_truth)
{
    pthread_t threads[racers];
    int numbers[racers];
    signal(SIGCHLD, count_signal);
    signals_seen = started = refused = odd = 0;
    begin_as("good", false);
    for (int i = 0; i < racers; i++) {
        numbers[i] = i;
        CHECK_INT(pthread_create(&threads[i], NULL, race, &numbers[i]), 0);
    }
    for (int i = 0; i < 20; i++)
        CHECK_INT(count(), 1);
    for (int i = 0; i < racers; i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(odd, 0);
    CHECK(started > 0);
    CHECK_INT(vial_sandbox_kill(sandbox, 20000, &err), 0);
    CHECK_INT(status(), VIAL_SANDBOX_STOPPED);
    CHECK_INT(signals_seen, 0);
    CHECK(!has_children());
    CHECK_INT(vial_sandbox_remove(sandbox, true, &err), 0);
    signal(SIGCHLD, SIG_DFL);
    end();
}

static void *remove_it(void *user)
{
    struct vial_error why;
    int *result = user;
    *result = vial_sandbox_remove(sandbox, true, &why);
    if (*result < 0)
        printf("# %d %s\n", *result, why.message);
    return NULL;
}

TEST(removals_and_starts_at_once_leave_nothing)
{
    for (int i = 0; i < 15; i++) {
        pthread_t threads[3];
        int results[3] = {0};
        begin_as("good", i % 2 == 0);
        for (int j = 0; j < 3; j++)
            CHECK_INT(pthread_create(&threads[j], NULL, remove_it, &results[j]), 0);
        int result = vial_sandbox_start(sandbox, 20000, &err);
        for (int j = 0; j < 3; j++)
            pthread_join(threads[j], NULL);
        if (result != 0 && result != -ENOENT && result != -EIO)
            printf("# start: %d %s\n", result, err.message);
        CHECK(results[0] == 0 && results[1] == 0 && results[2] == 0);
        CHECK_INT(vial_sandbox_kill(sandbox, 20000, &err), 0);
        CHECK_INT(count(), 0);
        end();
    }
    CHECK(!has_children());
}

TEST(names_change_and_come_again)
{
    struct vial_sandbox_options options = VIAL_SANDBOX_OPTIONS_INIT;
    struct vial_sandbox_info *list = NULL;
    struct vial_sandbox *other = NULL;
    char *json = NULL;
    size_t count = 0;
    begin_as("good", false);
    options.name = "web";
    CHECK_INT(vial_sandbox_create(home, &options, &other, &err), -EEXIST);
    options.replace = true;
    CHECK_INT(vial_sandbox_start(sandbox, 10000, &err), 0);
    CHECK_INT(vial_sandbox_create(home, &options, &other, &err), 0);
    CHECK_INT(status(), -1);
    CHECK_INT(vial_sandbox_rename(other, "-bad", &err), -EINVAL);
    CHECK_INT(vial_sandbox_rename(other, "shop", &err), 0);
    CHECK_INT(vial_sandbox_list(home, NULL, &list, &count, &err), 0);
    CHECK_INT(count, 1);
    CHECK_TEXT(list[0].name, "shop");
    free(list);
    CHECK_INT(vial_sandbox_inspect(other, &json, &err), 0);
    CHECK(strstr(json, "\"name\": \"shop\"") != NULL && strstr(json, "\"status\": \"created\"") != NULL);
    const char *spec = strstr(json, "\"spec\": {");
    CHECK(spec != NULL && strstr(spec, "\"name\": \"shop\"") != NULL && strstr(spec, "\"name\": \"web\"") == NULL);
    free(json);
    struct vial_sandbox_stats stats = VIAL_SANDBOX_STATS_INIT;
    CHECK_INT(vial_sandbox_get_stats(other, &stats, &err), -ESRCH);
    vial_sandbox_free(other);
    end();
}

/* ---- logs ---- */

static void log_path(char path[4096], const char *name)
{
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    vial_sandbox_get_info(sandbox, &info, &err);
    snprintf(path, 4096, "%s/home/sandboxes/%s/log/%s", test_folder(), info.id, name);
}

static void append_log(const char *name, const char *text)
{
    char path[4096];
    log_path(path, name);
    auto_close int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd_write_all(fd, text, strlen(text)) < 0)
        abort();
}

static void rotate_log(const char *name)
{
    char from[4096], to[4096], two[4096], one[32], second[32];
    snprintf(one, sizeof(one), "%s.1", name);
    snprintf(second, sizeof(second), "%s.2", name);
    log_path(from, name);
    log_path(to, one);
    log_path(two, second);
    rename(to, two);
    rename(from, to);
}

struct heard {
    struct buffer text;
    uint64_t last_ns;
    const char *stop_at;
    atomic_int lines;
};

static bool hear(void *user, int stream, uint64_t time_ns, const char *bytes, size_t length)
{
    struct heard *heard = user;
    buffer_format(&heard->text, "%d:%.*s|", stream, (int)length, bytes);
    heard->last_ns = time_ns;
    heard->lines++;
    return heard->stop_at == NULL || strstr(heard->text.data, heard->stop_at) == NULL;
}

#define HEARD                                                                                                          \
    {                                                                                                                  \
        .text = BUFFER_INIT(64 << 10)                                                                                  \
    }

static bool add_all(void *user, int stream, uint64_t time_ns, const char *bytes, size_t length)
{
    uint64_t *sum = user;
    (void)stream;
    (void)time_ns;
    for (size_t i = 0; i < length; i++)
        *sum += (unsigned char)bytes[i];
    return true;
}

/* A record that our process does not write, but one that was taken over may. */
TEST(logs_may_have_a_nul_inside)
{
    uint64_t sum = 0;
    begin_as("good", false);
    append_log("exec.log", "{\"t\": 1, \"s\": \"out\", \"text\": \"\\u0000"
                           "\\u0001\\u0001\\u0001\\u0001\\u0001\\u0001\\u0001\\u0001\\u0001\\u0001\"}\n");
    CHECK_INT(vial_sandbox_logs(sandbox, VIAL_LOG_EXEC, UINT64_MAX, false, add_all, &sum, &err), 0);
    CHECK_INT(sum, 10);
    end();
}

TEST(logs_are_read_from_the_oldest_or_the_last)
{
    begin_as("good", false);
    append_log("exec.log", "{\"t\": 1, \"s\": \"out\", \"text\": \"one\\n\"}\n");
    rotate_log("exec.log");
    append_log("exec.log", "{\"t\": 2, \"s\": \"err\", \"base64\": \"/wB4\"}\n{\"t\": 3, \"s\": \"o");
    rotate_log("exec.log");
    append_log("exec.log", "{\"t\": 4, \"s\": \"lost\", \"bytes\": 9}\nnonsense\n{\"t\": 5, \"s\": \"tty\", \"text\": "
                           "\"five\"}\n");
    static const struct {
        uint64_t tail;
        const char *text;
    } cases[] = {
        {UINT64_MAX, "1:one\n|2:\xff|0:vial: 9 bytes were lost here\n|1:five|"},
        {1000, "1:one\n|2:\xff|0:vial: 9 bytes were lost here\n|1:five|"},
        {3, "0:vial: 9 bytes were lost here\n|1:five|"},
        {1, "1:five|"},
        {0, ""},
    };
    for (size_t i = 0; i < array_length(cases); i++) {
        struct heard heard = HEARD;
        CHECK_INT(vial_sandbox_logs(sandbox, VIAL_LOG_EXEC, cases[i].tail, false, hear, &heard, &err), 0);
        CHECK_TEXT(heard.text.data != NULL ? heard.text.data : "", cases[i].text);
        buffer_free(&heard.text);
    }
    struct heard heard = HEARD;
    append_log("console.log", "2026-01-02T03:04:05.123456789Z hello\nbroken\n");
    CHECK_INT(vial_sandbox_logs(sandbox, VIAL_LOG_CONSOLE, UINT64_MAX, true, hear, &heard, &err), 0);
    CHECK_TEXT(heard.text.data, "0:hello|");
    CHECK(heard.last_ns == UINT64_C(1767323045123456789));
    buffer_free(&heard.text);
    CHECK_INT(vial_sandbox_logs(sandbox, 77, 0, false, hear, &heard, &err), -EINVAL);
    end();
}

static void *follow(void *user)
{
    struct vial_error why;
    return vial_sandbox_logs(sandbox, VIAL_LOG_EXEC, UINT64_MAX, true, hear, user, &why) == 0 ? user : NULL;
}

TEST(logs_are_followed_across_rotations_until_the_end)
{
    struct heard heard = HEARD;
    pthread_t follower;
    void *result = NULL;
    char line[128], expected[4096];
    size_t length = 0;
    begin_as("good", false);
    CHECK_INT(vial_sandbox_start(sandbox, 10000, &err), 0);
    CHECK_INT(pthread_create(&follower, NULL, follow, &heard), 0);
    for (int i = 0; i < 60; i++) {
        snprintf(line, sizeof(line), "{\"t\": %d, \"s\": \"out\", \"text\": \"%d\"}\n", i, i);
        append_log("exec.log", line);
        length += (size_t)snprintf(expected + length, sizeof(expected) - length, "1:%d|", i);
        if (i % 7 == 6)
            rotate_log("exec.log");
        while (i % 7 == 6 && heard.lines < i) /* it may lag, but not by two rotations */
            sched_yield();
    }
    CHECK_INT(vial_sandbox_stop(sandbox, 0, 10000, &err), 0);
    pthread_join(follower, &result);
    CHECK(result == &heard);
    CHECK_TEXT(heard.text.data, expected);
    buffer_free(&heard.text);
    end();
}
