// SPDX-License-Identifier: Apache-2.0
/* Tests of the folder in which sandboxes are kept: who may use it, folders, locks, and events across rotations. */
#include "test.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "sandbox/events.h"
#include "sandbox/home.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char id[] = "0123456789ab", other_id[] = "ba9876543210";
static struct vial_error err;

static struct home open_home(void)
{
    char path[HOME_PATH_BYTES];
    struct home home = {.fd = -1};
    snprintf(path, sizeof(path), "%s/a/b/home", test_folder());
    if (home_open(path, &home, &err) < 0)
        abort();
    return home;
}

static int mode_of(int folder, const char *name)
{
    struct stat status;
    return fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : (int)(status.st_mode & 07777);
}

/* ---- the home ---- */

TEST(a_home_is_made_with_all_that_leads_to_it)
{
    struct home home = open_home();
    CHECK(home.path[0] == '/' && strstr(home.path, "/a/b/home") != NULL);
    CHECK_INT(mode_of(home.fd, "."), 0700);
    CHECK_INT(mode_of(home.fd, "sandboxes"), 0700);
    home_close(&home);
    CHECK_INT(home.fd, -1);
}

TEST(the_environment_names_it)
{
    struct home home = {.fd = -1};
    char path[HOME_PATH_BYTES + 8];
    snprintf(path, sizeof(path), "%s/named", test_folder());
    setenv("VIAL_HOME", path, 1);
    CHECK_INT(home_open(NULL, &home, &err), 0);
    CHECK(strstr(home.path, "/named") != NULL);
    home_close(&home);
    unsetenv("VIAL_HOME");
}

TEST(relative_paths_become_absolute)
{
    struct home home = {.fd = -1};
    auto_close int before = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    CHECK_INT(chdir(test_folder()), 0);
    int result = home_open("here", &home, &err);
    CHECK_INT(fchdir(before), 0);
    CHECK_INT(result, 0);
    CHECK(home.path[0] == '/');
    CHECK_INT(access(home.path, F_OK), 0);
    home_close(&home);
}

TEST(a_home_that_others_may_write_to_is_refused)
{
    struct home home = {.fd = -1};
    const char *path = test_make_folder("open");
    CHECK_INT(chmod(path, 0770), 0);
    CHECK_INT(home_open(path, &home, &err), -EACCES);
    CHECK(strstr(err.message, "others may write") != NULL && strstr(err.remedy, "chmod") != NULL);
    CHECK_INT(chmod(path, 0755), 0);
    CHECK_INT(home_open(path, &home, &err), 0);
    home_close(&home);
}

TEST(a_home_of_somebody_else_is_refused)
{
    struct home home = {.fd = -1};
    const char *path = test_make_folder("theirs");
    if (geteuid() != 0)
        return;
    CHECK_INT(chown(path, 12345, 12345), 0);
    CHECK_INT(home_open(path, &home, &err), -EACCES);
    CHECK(strstr(err.message, "belongs to user 12345, not to 0") != NULL);
}

TEST(what_is_no_folder_is_refused)
{
    struct home home = {.fd = -1};
    CHECK_INT(home_open(test_text_file("file", "x"), &home, &err), -ENOTDIR);
    CHECK(err.remedy[0] != '\0');
    char path[HOME_PATH_BYTES];
    size_t used = (size_t)snprintf(path, sizeof(path), "%s", test_folder());
    while (used < LIMIT_HOME_PATH_BYTES)
        used += (size_t)snprintf(path + used, sizeof(path) - used, "/a-folder-of-some-length");
    CHECK_INT(home_open(path, &home, &err), -E2BIG);
}

/* ---- folders ---- */

TEST(a_sandbox_has_a_folder)
{
    struct home home = open_home();
    auto_close int folder = home_sandbox_make(&home, id);
    CHECK(folder >= 0);
    CHECK_INT(mode_of(folder, "."), 0700);
    CHECK_INT(mode_of(folder, "log"), 0700);
    CHECK_INT(mode_of(folder, "scripts"), 0700);
    CHECK_INT(home_sandbox_make(&home, id), -EEXIST);
    CHECK_INT(home_sandbox_open(&home, other_id), -ENOENT);
    auto_close int again = home_sandbox_open(&home, id);
    CHECK(again >= 0);
    CHECK((fcntl(again, F_GETFL) & O_PATH) != 0);
    home_close(&home);
}

TEST(names_that_are_no_ids_lead_nowhere)
{
    static const char *const names[] = {"", ".", "..", "../../etc", "0123456789aB", "0123456789abc", "0123456789a/"};
    struct home home = open_home();
    for (size_t i = 0; i < array_length(names); i++) {
        CHECK_INT(home_sandbox_make(&home, names[i]), -EINVAL);
        CHECK_INT(home_sandbox_open(&home, names[i]), -EINVAL);
        CHECK_INT(home_sandbox_remove(&home, names[i]), -EINVAL);
    }
    home_close(&home);
}

TEST(a_link_is_no_folder_of_a_sandbox)
{
    struct home home = open_home();
    auto_close int all = home_sandboxes_open(&home);
    const char *outside = test_make_folder("outside");
    test_text_file("outside/file", "x");
    CHECK_INT(symlinkat(outside, all, id), 0);
    CHECK_INT(home_sandbox_open(&home, id), -ELOOP);
    CHECK_INT(home_sandbox_remove(&home, id), 0); /* the link */
    CHECK_INT(home_sandbox_open(&home, id), -ENOENT);
    CHECK_INT(access(outside, F_OK), 0);
    home_close(&home);
}

TEST(removing_takes_everything_and_follows_no_link)
{
    struct home home = open_home();
    const char *outside = test_text_file("kept/file", "x");
    auto_close int folder = home_sandbox_make(&home, id), all = home_sandboxes_open(&home);
    CHECK_INT(mkdirat(folder, "log/deep", 0700), 0);
    CHECK_INT(symlinkat("../../../../../kept", folder, "log/deep/link"), 0);
    CHECK_INT(mknodat(folder, "log/fifo", S_IFIFO | 0600, 0), 0);
    fd_close(openat(folder, "log/file", O_CREAT | O_WRONLY | O_CLOEXEC, 0000));
    CHECK_INT(home_sandbox_remove(&home, id), 0);
    CHECK_INT(mode_of(all, id), -ENOENT);
    CHECK_INT(mode_of(all, "0123456789ab.gone"), -ENOENT);
    CHECK_INT(access(outside, F_OK), 0);
    CHECK_INT(home_sandbox_remove(&home, id), 0); /* what is not there is no error */
    CHECK_INT(mkdirat(all, "0123456789ab.gone", 0700), 0);
    CHECK_INT(home_sandbox_remove(&home, id), 0); /* nor is the rest of an earlier one */
    CHECK_INT(mode_of(all, "0123456789ab.gone"), -ENOENT);
    home_close(&home);
}

/* ---- locks ---- */

/* What the function returns in another process, of which a child lives on for a moment. */
static int in_child(int (*function)(int), int argument)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        int result = function(argument);
        _exit(result >= 0 ? 0 : -result);
    }
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
        abort();
    return -WEXITSTATUS(status);
}

static int lock_again(int folder)
{
    return home_sandbox_lock(folder);
}

TEST(a_lock_is_one_process_s)
{
    struct home home = open_home();
    auto_close int folder = home_sandbox_make(&home, id);
    CHECK_INT(home_sandbox_lives(folder), 0);
    int lock = home_sandbox_lock(folder);
    CHECK(lock >= 0);
    CHECK_INT(home_sandbox_lock(folder), -EWOULDBLOCK);
    CHECK_INT(in_child(lock_again, folder), -EWOULDBLOCK);
    CHECK_INT(home_sandbox_lives(folder), 1);
    CHECK_INT(home_sandbox_guard(folder), -EWOULDBLOCK);
    fd_close(lock);
    CHECK_INT(home_sandbox_lives(folder), 0);
    CHECK_INT(in_child(lock_again, folder), 0);
    home_close(&home);
}

TEST(looking_is_never_in_the_way_of_a_start)
{
    struct home home = open_home();
    auto_close int folder = home_sandbox_make(&home, id);
    pid_t child = fork();
    if (child == 0) {
        for (;;)
            home_sandbox_lives(folder);
    }
    for (int i = 0; i < 2000; i++) {
        auto_close int lock = home_sandbox_lock(folder);
        if (lock < 0)
            kill(child, SIGKILL);
        CHECK(lock >= 0);
    }
    kill(child, SIGKILL);
    CHECK_INT(waitpid(child, NULL, 0), child);
    home_close(&home);
}

TEST(a_start_waits_for_a_repair_and_is_not_refused)
{
    struct home home = open_home();
    auto_close int folder = home_sandbox_make(&home, id);
    int guard = home_sandbox_guard(folder), ends[2];
    CHECK(guard >= 0);
    CHECK_INT(home_sandbox_guard(folder), -EWOULDBLOCK); /* two do not repair one thing */
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
        fd_close(guard);
        (void)!write(ends[1], "x", 1);
        int lock = home_sandbox_lock(folder);
        (void)!write(ends[1], lock >= 0 ? "y" : "n", 1);
        _exit(0);
    }
    char answer = 0;
    CHECK_INT(read(ends[0], &answer, 1), 1);
    struct pollfd more = {.fd = ends[0], .events = POLLIN};
    CHECK_INT(poll(&more, 1, 100), 0);
    fd_close(guard);
    CHECK_INT(waitpid(child, NULL, 0), child);
    CHECK_INT(read(ends[0], &answer, 1), 1);
    CHECK_INT(answer, 'y');
    fd_close(ends[0]);
    fd_close(ends[1]);
    home_close(&home);
}

/* The lock of a folder that goes meanwhile is of no use. */
TEST(a_start_that_waits_for_a_removal_hears_of_it)
{
    struct home home = open_home();
    auto_close int folder = home_sandbox_make(&home, id);
    int guard = home_sandbox_guard(folder), ends[2], result = 0;
    CHECK(guard >= 0);
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
        fd_close(guard);
        (void)!write(ends[1], "x", 1);
        result = home_sandbox_lock(folder);
        (void)!write(ends[1], &result, sizeof(result));
        _exit(0);
    }
    char answer = 0;
    CHECK_INT(read(ends[0], &answer, 1), 1);
    struct pollfd more = {.fd = ends[0], .events = POLLIN};
    CHECK_INT(poll(&more, 1, 100), 0);
    CHECK_INT(home_sandbox_remove(&home, id), 0);
    fd_close(guard);
    CHECK_INT(waitpid(child, NULL, 0), child);
    CHECK_INT(read(ends[0], &result, sizeof(result)), sizeof(result));
    CHECK_INT(result, -ENOENT);
    fd_close(ends[0]);
    fd_close(ends[1]);
    home_close(&home);
}

TEST(the_lock_is_removed_last)
{
    char path[16] = "log";
    struct home home = open_home();
    auto_close int folder = home_sandbox_make(&home, id);
    fd_close(home_sandbox_lock(folder));
    auto_close int deep = openat(folder, "log", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < LIMIT_HOME_DEPTH; i++) { /* deeper than anything of ours */
        CHECK_INT(mkdirat(deep, path, 0700), 0);
        int next = openat(deep, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        fd_close(deep);
        deep = next;
    }
    CHECK_INT(home_sandbox_remove(&home, id), -ELOOP);
    CHECK_INT(faccessat(folder, "lock", F_OK, 0), 0);
    home_close(&home);
}

TEST(a_removal_is_done_whoever_looks_at_the_lock)
{
    struct home home = open_home();
    for (int i = 0; i < 100; i++) {
        auto_close int folder = home_sandbox_make(&home, id);
        pid_t child = fork();
        if (child == 0) {
            for (;;)
                fd_close(home_sandbox_guard(folder));
        }
        int result = home_sandbox_remove(&home, id);
        kill(child, SIGKILL);
        CHECK_INT(waitpid(child, NULL, 0), child);
        CHECK_INT(result, 0);
    }
    home_close(&home);
}

/* A start opens the log before it has the lock: one that comes too late adds a file to what was listed just now. */
TEST(a_removal_is_done_whoever_writes_a_last_file)
{
    struct home home = open_home();
    for (int i = 0; i < 50; i++) {
        auto_close int folder = home_sandbox_make(&home, id);
        auto_close int log = openat(folder, "log", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        for (char name[] = "a"; name[0] <= 'z'; name[0]++)
            fd_close(openat(log, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        pid_t child = fork();
        if (child == 0) {
            while (faccessat(log, "a", F_OK, 0) == 0)
                ;
            fd_close(openat(log, "runtime.log", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
            _exit(0);
        }
        int result = home_sandbox_remove(&home, id);
        CHECK_INT(waitpid(child, NULL, 0), child);
        CHECK_INT(result, 0);
    }
    home_close(&home);
}

TEST(a_folder_in_the_making_is_not_abandoned)
{
    struct home home = open_home();
    int folder = home_sandbox_make(&home, id);
    CHECK_INT(home_sandbox_is_abandoned(&home, id), 0);
    fd_close(folder);
    CHECK_INT(home_sandbox_is_abandoned(&home, id), 1);
    CHECK_INT(home_sandbox_is_abandoned(&home, other_id), -ENOENT);
    home_close(&home);
}

/* ---- events ---- */

struct told {
    unsigned count, most;
    uint64_t last_ns;
    int64_t number, sum; /* of their "n" */
    bool is_ordered;
    char text[512];
};

static bool take(void *user, int stream, uint64_t time_ns, const char *bytes, size_t length)
{
    struct told *told = user;
    const char *number = memmem(bytes, length, "\"n\": ", 5);
    int64_t n = number != NULL ? strtoll(number + 5, NULL, 10) : 0;
    told->is_ordered &= n > told->number && stream == 0;
    told->number = n;
    told->sum += n;
    told->last_ns = time_ns;
    snprintf(told->text, sizeof(told->text), "%.*s", (int)length, bytes);
    return ++told->count < told->most;
}

static struct told read_events(const struct home *home, uint64_t since_ns, uint64_t timeout_ms, unsigned most)
{
    struct told told = {.most = most, .is_ordered = true};
    if (home_events_follow(home, since_ns, timeout_ms, take, &told, &err) < 0)
        abort();
    return told;
}

static void write_event(const struct home *home, int64_t n, size_t padding)
{
    static char pad[4096];
    char members[8192];
    memset(pad, 'x', sizeof(pad));
    snprintf(members, sizeof(members), ", \"n\": %lld, \"pad\": \"%.*s\"", (long long)n, (int)padding, pad);
    home_event(home, "test", id, "web", members);
}

TEST(events_are_told_as_they_were_written)
{
    struct home home = open_home();
    CHECK_INT(read_events(&home, 0, 0, 10).count, 0);
    home_event(&home, "start", id, "web", ", \"code\": 3");
    struct told told = read_events(&home, 0, 0, 10);
    CHECK_INT(told.count, 1);
    CHECK(strstr(told.text, ", \"event\": \"start\", \"id\": \"0123456789ab\", \"name\": \"web\", \"code\": 3}") !=
          NULL);
    CHECK_INT(mode_of(home.fd, "events/events.jsonl"), 0600);
    home_event(&home, "end", id, NULL, NULL);
    CHECK_INT(read_events(&home, 0, 0, 10).count, 2);
    CHECK_INT(read_events(&home, told.last_ns + 1, 0, 10).count, 1);
    CHECK_INT(read_events(&home, 0, 0, 1).count, 1);
    write_event(&home, 7, 4096); /* more than an event may be: its members are left out */
    told = read_events(&home, 0, 0, 10);
    CHECK_INT(told.count, 3);
    CHECK_INT(told.sum, 0);
    home_close(&home);
}

TEST(torn_lines_cost_no_more_than_themselves)
{
    struct home home = open_home();
    write_event(&home, 1, 0);
    auto_close int fd = openat(home.fd, "events/events.jsonl", O_WRONLY | O_APPEND | O_CLOEXEC);
    static const char torn[] = "{\"t\": 5, \"ev\n[]\n\n{\"t\": -5}\n{\"event\": \"x\"}\n{\"t\": 5, \"n\"";
    CHECK_INT(fd_write_all(fd, torn, strlen(torn)), 0);
    write_event(&home, 2, 0); /* stands behind the rest of a line */
    write_event(&home, 3, 0);
    static char zeros[3 * LIMIT_EVENT_BYTES];
    CHECK_INT(fd_write_all(fd, zeros, sizeof(zeros)), 0);
    CHECK_INT(fd_write_all(fd, "\n", 1), 0);
    write_event(&home, 4, 0);
    struct told told = read_events(&home, 0, 0, 10);
    CHECK_INT(told.count, 3);
    CHECK_INT(told.sum, 1 + 3 + 4);
    home_close(&home);
}

TEST(files_are_rotated_and_both_are_read)
{
    struct home home = open_home();
    struct stat status;
    enum { count = 2600 }; /* of 2 KiB: 5.2 MiB */
    for (int64_t n = 1; n <= count; n++)
        write_event(&home, n, 2000);
    CHECK_INT(fstatat(home.fd, "events/events.jsonl.1", &status, 0), 0);
    CHECK(status.st_size >= LIMIT_EVENTS_BYTES && status.st_size < LIMIT_EVENTS_BYTES + 4096);
    CHECK_INT(fstatat(home.fd, "events/events.jsonl", &status, 0), 0);
    CHECK(status.st_size < LIMIT_EVENTS_BYTES);
    struct told told = read_events(&home, 0, 0, UINT32_MAX);
    CHECK_INT(told.count, count);
    CHECK(told.is_ordered);
    home_close(&home);
}

TEST(following_goes_on_across_rotations)
{
    struct home home = open_home();
    enum { count = 5000 }; /* 10 MiB: two rotations */
    write_event(&home, 1, 2000);
    pid_t writer = fork();
    if (writer == 0) {
        for (int64_t n = 2; n <= count; n++)
            write_event(&home, n, 2000);
        _exit(0);
    }
    struct told told = read_events(&home, 0, 30000, count);
    CHECK_INT(waitpid(writer, NULL, 0), writer);
    CHECK_INT(told.count, count);
    CHECK(told.is_ordered);
    CHECK_INT(told.number, count);
    home_close(&home);
}

/* A writer that is slow: it has opened the file before that got another name, and writes when others have gone on. */
struct slow_writer {
    const struct home *home;
    int fd;
    int64_t last;
};

static bool rotate_and_write(void *user, int stream, uint64_t time_ns, const char *bytes, size_t length)
{
    struct slow_writer *writer = user;
    struct told told = {.most = 1};
    take(&told, stream, time_ns, bytes, length);
    writer->last = told.number;
    if (told.number == 1) {
        renameat(writer->home->fd, "events/events.jsonl", writer->home->fd, "events/events.jsonl.1");
        write_event(writer->home, 2, 0);
    }
    if (told.number == 2)
        (void)!write(writer->fd, "{\"t\": 3, \"n\": 3}\n", 18);
    return told.number != 3;
}

TEST(late_events_of_the_older_file_are_told)
{
    struct home home = open_home();
    write_event(&home, 1, 0);
    auto_close int fd = openat(home.fd, "events/events.jsonl", O_WRONLY | O_APPEND | O_CLOEXEC);
    struct slow_writer writer = {.home = &home, .fd = fd};
    CHECK_INT(home_events_follow(&home, 0, 5000, rotate_and_write, &writer, &err), 0);
    CHECK_INT(writer.last, 3);
    home_close(&home);
}

/* Called for the last event of what there was: meanwhile the file is changed twice. */
static bool rotate_twice(void *user, int stream, uint64_t time_ns, const char *bytes, size_t length)
{
    struct slow_writer *writer = user;
    struct told told = {.most = 1};
    take(&told, stream, time_ns, bytes, length);
    writer->last = writer->last * 10 + told.number;
    for (int64_t n = 2; n <= 3 && told.number == 1; n++) {
        renameat(writer->home->fd, "events/events.jsonl", writer->home->fd, "events/events.jsonl.1");
        write_event(writer->home, n, 0);
    }
    return told.number != 3;
}

TEST(a_file_between_is_not_passed_over)
{
    struct home home = open_home();
    struct slow_writer writer = {.home = &home};
    write_event(&home, 1, 0);
    CHECK_INT(home_events_follow(&home, 0, 5000, rotate_twice, &writer, &err), 0);
    CHECK_INT(writer.last, 123);
    /* The same for one that begins with an older file and nothing else. */
    CHECK_INT(unlinkat(home.fd, "events/events.jsonl", 0), 0);
    CHECK_INT(unlinkat(home.fd, "events/events.jsonl.1", 0), 0);
    write_event(&home, 1, 0);
    CHECK_INT(renameat(home.fd, "events/events.jsonl", home.fd, "events/events.jsonl.1"), 0);
    writer.last = 0;
    CHECK_INT(home_events_follow(&home, 0, 5000, rotate_twice, &writer, &err), 0);
    CHECK_INT(writer.last, 123);
    home_close(&home);
}

TEST(events_of_many_writers_stay_whole)
{
    struct home home = open_home();
    enum { writers = 4, each = 500 };
    for (int w = 0; w < writers; w++) {
        if (fork() != 0)
            continue;
        for (int64_t n = 0; n < each; n++)
            write_event(&home, 1, 3000);
        _exit(0);
    }
    struct told told = read_events(&home, 0, 30000, writers * each);
    CHECK_INT(told.count, writers * each);
    CHECK_INT(told.sum, writers * each);
    for (int w = 0; w < writers; w++)
        wait(NULL);
    home_close(&home);
}

TEST(following_ends_with_its_time)
{
    struct home home = open_home();
    uint64_t before = clock_now_ns();
    CHECK_INT(read_events(&home, 0, 30, 1).count, 0);
    uint64_t took_ms = (clock_now_ns() - before) / CLOCK_NS_PER_MS;
    CHECK(took_ms >= 30 && took_ms < 5000);
    home_close(&home);
}

TEST(following_survives_no_memory)
{
    struct home home = open_home();
    write_event(&home, 1, 100);
    FOR_EACH_FAULT
    {
        struct told told = {.most = 10};
        CHECK_INT(home_events_follow(&home, 0, 0, take, &told, &err), 0);
        CHECK_INT(told.count, fault_was_hit() ? 0 : 1);
    }
    home_close(&home);
}
