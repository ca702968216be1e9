// SPDX-License-Identifier: Apache-2.0
/* Tests of base/program: what a program starts with, and that its starter notices nothing of it. The programs are
 * shells that say what they see. */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/program.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { most_wait_ms = 20000 };

static char *const no_environment[] = {NULL};
static char shell[] = "sh", says[] = "-c", cat[] = "cat", nameless[] = "program";

/* Waits for the end of a program by its pidfd. */
static bool has_ended(int pidfd)
{
    struct pollfd ready = {.fd = pidfd, .events = POLLIN};
    return poll(&ready, 1, most_wait_ms) == 1;
}

/* Runs a script that has /dev/null as its input and a pipe as its output, and gives what it has written; "" where it
 * was not started. */
static const char *say(const char *script, char *const *env)
{
    static char text[4096];
    char *args[] = {shell, says, (char *)(uintptr_t)script, NULL};
    int ends[2], pidfd = -1;
    ssize_t got = 0, length = 0;
    if (pipe2(ends, O_CLOEXEC) < 0)
        abort();
    auto_close int null = open("/dev/null", O_RDWR | O_CLOEXEC), from = ends[0], to = ends[1];
    struct program program = {.path = "/bin/sh", .args = args, .env = env, .fds = {null, to, null}, .fd_count = 3};
    int result = program_start(&program, &pidfd);
    to = fd_close(to);
    while (result == 0 && (got = read(from, text + length, sizeof(text) - 1 - (size_t)length)) > 0)
        length += got;
    text[length] = '\0';
    if (result == 0 && !has_ended(pidfd))
        abort();
    fd_close(pidfd);
    return text;
}

/* That nobody is left to be waited for, of any kind of child. */
static bool has_no_child(void)
{
    return waitpid(-1, NULL, WNOHANG | __WALL) == -1 && errno == ECHILD;
}

TEST(it_has_its_descriptors_and_no_other)
{
    auto_close int inherited = dup(STDERR_FILENO); /* without CLOEXEC, as a careless program has it */
    auto_close int high = fcntl(STDERR_FILENO, F_DUPFD, 700);
    CHECK_TEXT(say("cd /proc/self/fd && for fd in *; do [ -e $fd ] && printf '%s ' $fd; done", no_environment),
               "0 1 2 "); /* the pattern's own folder is closed when it is read */
    CHECK(inherited >= 0 && high >= 700);
    CHECK(has_no_child());
}

TEST(descriptors_are_placed_in_any_order)
{
    int ends[2], pidfd = -1;
    char text[32] = "";
    char script[] = "echo three >&3; echo four >&4; echo one", *args[] = {shell, says, script, NULL};
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    auto_close int from = ends[0], to = ends[1], null = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct program program = {.path = "/bin/sh", .args = args, .env = no_environment};
    /* The same one more than once, and ours where another of its own is to be. */
    memcpy(program.fds, (int[]){null, to, null, to, to}, sizeof(program.fds));
    program.fd_count = PROGRAM_MOST_FDS;
    int result = program_start(&program, &pidfd);
    to = fd_close(to);
    bool is_over = result == 0 && has_ended(pidfd);
    ssize_t length = read(from, text, sizeof(text) - 1);
    fd_close(pidfd);
    CHECK_INT(result, 0);
    CHECK(is_over && length > 0);
    CHECK_TEXT(text, "three\nfour\none\n");
}

/* The lines of its status that are about signals: pending, blocked, ignored, caught. */
TEST(signals_are_as_by_default)
{
    sigset_t some, before;
    struct sigaction ignore = {.sa_handler = SIG_IGN}, old_pipe, old_user;
    sigemptyset(&some);
    sigaddset(&some, SIGUSR1);
    sigaddset(&some, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &some, &before);
    sigaction(SIGPIPE, &ignore, &old_pipe);
    sigaction(SIGUSR2, &ignore, &old_user);
    const char *text = say("exec sed -n 's/^Sig\\(Blk\\|Ign\\):[^0-9a-f]*//p' /proc/self/status", no_environment);
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, &before, &now);
    struct sigaction pipe_now;
    sigaction(SIGPIPE, &old_pipe, &pipe_now);
    sigaction(SIGUSR2, &old_user, NULL);
    CHECK_TEXT(text, "0000000000000000\n0000000000000000\n");
    CHECK(sigismember(&now, SIGUSR1) == 1 && sigismember(&now, SIGTERM) == 1 && sigismember(&now, SIGINT) == 0);
    CHECK(pipe_now.sa_handler == SIG_IGN); /* and ours are as they were */
}

TEST(it_has_a_session_of_its_own)
{
    int pid = 0, group = 0, session = 0;
    const char *text = say(
        "read -r pid name state parent group session rest </proc/self/stat; echo $pid $group $session", no_environment);
    CHECK_INT(sscanf(text, "%d %d %d", &pid, &group, &session), 3);
    CHECK(pid == group && group == session);
    CHECK(session != getsid(0));
}

TEST(its_environment_is_what_it_was_given)
{
    char variable[] = "NAME=value with spaces", *const one[] = {variable, NULL};
    CHECK_INT(setenv("SECRET", "of the caller", 1), 0);
    CHECK_TEXT(say("tr '\\0' '\\n' </proc/$$/environ", one), "NAME=value with spaces\n");
    CHECK_TEXT(say("tr '\\0' '\\n' </proc/$$/environ", no_environment), "");
    CHECK_INT(unsetenv("SECRET"), 0);
}

static volatile sig_atomic_t child_signals;

static void count_child(int number)
{
    (void)number;
    child_signals++;
}

/* While it runs, and when it has ended. */
TEST(its_starter_has_no_child_and_hears_no_signal)
{
    int ends[2], pidfd = -1;
    char *args[] = {cat, NULL};
    struct sigaction count = {.sa_handler = count_child}, before;
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    auto_close int from = ends[0], to = ends[1], null = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct program program = {
        .path = "/bin/cat", .args = args, .env = no_environment, .fds = {from, null, null}, .fd_count = 3};
    sigaction(SIGCHLD, &count, &before);
    child_signals = 0;
    int result = program_start(&program, &pidfd);
    struct pollfd ready = {.fd = pidfd, .events = POLLIN};
    bool runs = result == 0 && poll(&ready, 1, 0) == 0, is_alone = has_no_child();
    int is_cloexec = fcntl(pidfd, F_GETFD);
    to = fd_close(to); /* the end of its input is its own */
    bool is_over = runs && has_ended(pidfd), is_still_alone = has_no_child();
    sigaction(SIGCHLD, &before, NULL);
    fd_close(pidfd);
    CHECK_INT(result, 0);
    CHECK(runs && is_alone && is_over && is_still_alone);
    CHECK_INT(is_cloexec, FD_CLOEXEC);
    CHECK_INT(child_signals, 0);
}

static int start(const char *path, size_t fd_count, int fd)
{
    char *args[] = {nameless, NULL};
    struct program program = {.path = path, .args = args, .env = no_environment, .fd_count = fd_count};
    int pidfd = 77;
    for (size_t i = 0; i < PROGRAM_MOST_FDS; i++)
        program.fds[i] = fd;
    int result = program_start(&program, &pidfd);
    if (result == 0)
        fd_close(pidfd);
    else if (pidfd != 77 || !has_no_child())
        test_fail(__FILE__, __LINE__, "%s: something is left of what was not started", path);
    return result;
}

TEST(what_cannot_be_executed_is_an_error_and_leaves_nothing)
{
    auto_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const char *file = test_text_file("not-a-program", "nothing of the kind\n");
    CHECK_INT(start("/nowhere/at/all", 3, null), -ENOENT);
    CHECK_INT(start("", 3, null), -ENOENT);
    CHECK_INT(start("sh", 3, null), -ENOENT); /* it is not looked for */
    CHECK_INT(start("/", 3, null), -EACCES);
    CHECK_INT(start(file, 3, null), -EACCES);
    CHECK_INT(chmod(file, 0700), 0);
    CHECK_INT(start(file, 3, null), -ENOEXEC);
    CHECK_INT(start("/bin/true", 3, -1), -EBADF);
    CHECK_INT(start("/bin/true", PROGRAM_MOST_FDS + 1, null), -EINVAL);
    CHECK_INT(start("/bin/true", 0, -1), 0);
}

/* No lock that another thread holds is met between clone and execve. */
static void *allocate(void *user)
{
    atomic_bool *is_over = user;
    while (!atomic_load(is_over))
        free(malloc(100));
    return NULL;
}

TEST(other_threads_may_do_anything_meanwhile)
{
    atomic_bool is_over = false;
    pthread_t threads[2];
    auto_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int result = 0;
    for (size_t i = 0; i < array_length(threads); i++)
        if (pthread_create(&threads[i], NULL, allocate, &is_over) != 0)
            abort();
    for (int i = 0; i < 50 && result == 0; i++)
        result = start("/bin/true", 3, null);
    atomic_store(&is_over, true);
    for (size_t i = 0; i < array_length(threads); i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(result, 0);
}
