// SPDX-License-Identifier: Apache-2.0
/* Tests of the terminal: raw while held, restored by the last holder, and its guardian disturbs nobody. */
#include "test.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static int master, slave;
static struct termios before;

static void begin(void)
{
    master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0)
        abort();
    slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0 || tcgetattr(slave, &before) < 0)
        abort();
}

static void end(void)
{
    fd_close(master);
    fd_close(slave);
}

static bool is_raw(void)
{
    struct termios now;
    return tcgetattr(slave, &now) == 0 && (now.c_lflag & (ICANON | ECHO | ISIG)) == 0 && (now.c_oflag & OPOST) == 0;
}

static bool is_as_before(void)
{
    struct termios now;
    return tcgetattr(slave, &now) == 0 && now.c_iflag == before.c_iflag && now.c_oflag == before.c_oflag &&
           now.c_cflag == before.c_cflag && now.c_lflag == before.c_lflag && now.c_cc[VMIN] == before.c_cc[VMIN] &&
           now.c_cc[VINTR] == before.c_cc[VINTR];
}

static bool becomes_as_before(void)
{
    uint64_t give_up_ns = clock_deadline_ns(5 * CLOCK_NS_PER_S);
    while (!is_as_before() && clock_now_ns() < give_up_ns)
        poll(NULL, 0, 2);
    return is_as_before();
}

TEST(raw_and_back)
{
    struct terminal *terminal = NULL;
    begin();
    CHECK_INT(terminal_new(slave, &terminal), 0);
    CHECK(is_raw());
    terminal = terminal_free(terminal);
    CHECK(is_as_before());
    CHECK(terminal_free(NULL) == NULL);
    end();
}

TEST(the_last_holder_restores)
{
    struct terminal *one = NULL, *two = NULL;
    begin();
    int again = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK_INT(terminal_new(slave, &one), 0);
    CHECK_INT(terminal_new(again, &two), 0);
    CHECK(one == two);
    terminal_free(one);
    CHECK(is_raw());
    terminal_free(two);
    CHECK(is_as_before());
    fd_close(again);
    end();
}

TEST(settings_that_somebody_else_changed_are_left_alone)
{
    struct terminal *terminal = NULL;
    struct termios other, now;
    begin();
    CHECK_INT(terminal_new(slave, &terminal), 0);
    other = before;
    other.c_lflag &= ~(tcflag_t)ECHO;
    CHECK_INT(tcsetattr(slave, TCSANOW, &other), 0);
    terminal_free(terminal);
    CHECK(tcgetattr(slave, &now) == 0 && now.c_lflag == other.c_lflag);
    end();
}

TEST(renewed_after_a_change)
{
    struct terminal *terminal = NULL;
    begin();
    CHECK_INT(terminal_new(slave, &terminal), 0);
    CHECK_INT(tcsetattr(slave, TCSANOW, &before), 0);
    CHECK_INT(terminal_renew(terminal), 0);
    CHECK(is_raw());
    terminal_free(terminal);
    CHECK(is_as_before());
    end();
}

TEST(what_is_no_terminal_is_refused)
{
    struct terminal *terminal = NULL;
    int null = open("/dev/null", O_RDWR);
    CHECK_INT(terminal_new(null, &terminal), -ENOTTY);
    CHECK_INT(terminal_new(-1, &terminal), -ENOTTY);
    CHECK(terminal == NULL && !terminal_is_in_background(null));
    fd_close(null);
}

TEST(its_size)
{
    uint16_t columns = 0, rows = 0;
    struct winsize size = {.ws_row = 7, .ws_col = 300};
    begin();
    CHECK_INT(ioctl(master, TIOCSWINSZ, &size), 0);
    CHECK_INT(terminal_read_size(slave, &columns, &rows), 0);
    CHECK(columns == 300 && rows == 7);
    end();
}

static volatile sig_atomic_t children_signalled;

static void count_child(int number)
{
    (void)number;
    children_signalled++;
}

TEST(the_guardian_is_nobodys_child)
{
    struct terminal *terminal = NULL;
    begin();
    children_signalled = 0;
    signal(SIGCHLD, count_child);
    CHECK_INT(terminal_new(slave, &terminal), 0);
    CHECK_INT(waitpid(-1, NULL, WNOHANG), -1);
    CHECK_INT(errno, ECHILD);
    terminal_free(terminal);
    CHECK_INT(waitpid(-1, NULL, WNOHANG | __WALL), -1); /* and it was reaped */
    CHECK_INT(errno, ECHILD);
    CHECK_INT(children_signalled, 0);
    signal(SIGCHLD, SIG_DFL);
    end();
}

/* A process in a session of its own makes the terminal raw, says so, and ends in some way. */
static pid_t hold(void (*finish)(void))
{
    int said[2];
    char byte;
    if (pipe(said) < 0)
        abort();
    pid_t pid = fork();
    if (pid == 0) {
        struct terminal *terminal = NULL;
        setpgid(0, 0);
        if (terminal_new(slave, &terminal) < 0 || write(said[1], "!", 1) != 1)
            _exit(1);
        finish();
        _exit(0);
    }
    close(said[1]);
    ssize_t got = read(said[0], &byte, 1);
    close(said[0]);
    return got == 1 ? pid : -1;
}

static void wait_for_ever(void)
{
    for (;;)
        pause();
}

static void end_at_once(void)
{
    _exit(0);
}

static void crash(void)
{
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
}

static void kill_whole_group(void)
{
    kill(0, SIGKILL);
}

TEST(restored_when_the_process_dies)
{
    static void (*const ways[])(void) = {wait_for_ever, end_at_once, crash, kill_whole_group};
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        begin();
        pid_t pid = hold(ways[i]);
        CHECK(pid > 0);
        if (ways[i] == wait_for_ever) {
            CHECK(is_raw());
            kill(pid, SIGKILL);
        }
        CHECK_INT(waitpid(pid, NULL, 0), pid);
        CHECK(becomes_as_before());
        end();
    }
}

/* In a session whose terminal it is: from the background nothing is changed, and nobody is stopped. */
static int try_in_background(void)
{
    struct terminal *terminal = NULL;
    setsid();
    if (ioctl(slave, TIOCSCTTY, 0) < 0 || terminal_new(slave, &terminal) != 0)
        return 1;
    terminal_free(terminal);
    pid_t pid = fork();
    if (pid == 0) {
        setpgid(0, 0);
        if (!terminal_is_in_background(slave) || terminal_new(slave, &terminal) != -EAGAIN || is_raw())
            _exit(2);
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_BLOCK, &all, NULL);
        if (tcsetpgrp(slave, getpgrp()) < 0 || terminal_new(slave, &terminal) != 0 || !is_raw())
            _exit(3);
        tcsetpgrp(slave, getppid()); /* in the background again, with the terminal raw by our hand */
        if (terminal_renew(terminal) != -EAGAIN)
            _exit(4);
        terminal_free(terminal);
        _exit(is_as_before() ? 0 : 5);
    }
    int status = 0;
    if (waitpid(pid, &status, WUNTRACED) != pid || !WIFEXITED(status))
        return 6;
    return WEXITSTATUS(status);
}

TEST(in_the_background_it_is_another_ones)
{
    int status = 0;
    begin();
    pid_t pid = fork();
    if (pid == 0)
        _exit(try_in_background());
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status));
    CHECK_INT(WEXITSTATUS(status), 0);
    end();
}

TEST(terminal_survives_no_memory)
{
    begin();
    FOR_EACH_FAULT
    {
        struct terminal *terminal = NULL;
        CHECK_INT(terminal_new(slave, &terminal), fault_was_hit() ? -ENOMEM : 0);
        CHECK(is_raw() == (terminal != NULL));
        terminal_free(terminal);
    }
    end();
}
