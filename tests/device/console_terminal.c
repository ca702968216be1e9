// SPDX-License-Identifier: Apache-2.0
/* The console on a terminal: raw while the guest uses it, restored whatever becomes of us, left alone in background.
 */
#include "console_test.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <termios.h>

static bool is_raw(int fd)
{
    struct termios now;
    return tcgetattr(fd, &now) == 0 && (now.c_lflag & (ICANON | ECHO | ISIG)) == 0;
}

TEST(a_lone_console_needs_no_handshake)
{
    int slave, master = open_pty(&slave), out[2];
    struct console_port_options port = terminal_port(slave);
    struct console_options options = {.ports = &port, .port_count = 1};
    console_driver_init(&driver, &options);
    CHECK_INT(virtio_device_features(driver.device) & 0xffffff, 1 << 0);
    console_driver_start(&driver, false);
    CHECK(is_raw(slave));
    end();
    CHECK(!is_raw(slave));
    fd_close(master), fd_close(slave);
    CHECK_INT(pipe2(out, O_CLOEXEC), 0);
    port = inout("named", -1, out[1]);
    console_driver_init(&driver, &options);
    CHECK_INT(virtio_device_features(driver.device) & 0xffffff, 1 << 0 | 1 << 1);
    end();
    fd_close(out[0]), fd_close(out[1]);
}

TEST(a_terminal_is_raw_while_the_guest_uses_it)
{
    int slave, master = open_pty(&slave), out[2];
    CHECK_INT(pipe2(out, O_CLOEXEC), 0);
    struct console_port_options ports[] = {terminal_port(slave), inout("other", -1, out[1])};
    struct console_options options = {.ports = ports, .port_count = 2};
    struct winsize size = {.ws_row = 50, .ws_col = 132};
    console_driver_init(&driver, &options);
    CHECK_INT(console_register(&driver, 0x100), 24 << 16 | 80);
    console_driver_climb(&driver, true);
    console_say(&driver, 0, SAY_DEVICE_READY, 1);
    CHECK_TEXT(next_message(), "0:1:0");
    CHECK_TEXT(next_message(), "1:1:0");
    console_say(&driver, 0, SAY_PORT_READY, 1);
    CHECK_TEXT(next_message(), "0:4:1");
    CHECK_TEXT(next_message(), "0:5:0:P"); /* columns first, a NUL behind the 80 */
    CHECK_TEXT(next_message(), "0:6:1");
    CHECK(!is_raw(slave));
    console_say(&driver, 0, SAY_OPEN, 1);
    CHECK(is_raw(slave));
    CHECK_INT(write(master, "\x03", 1), 1);
    CHECK(COMES_TRUE(strcmp(hear_text(0), "\x03") == 0)); /* the kernel carries it over in its own time */
    say(0, "a\nb");
    CHECK_TEXT(read_text(master), "a\nb");
    CHECK(ioctl(master, TIOCSWINSZ, &size) == 0);
    console_window_changed(driver.device);
    console_window_changed(driver.device);
    struct control_message message;
    CHECK(console_hear(&driver, &message) && message.event == SAY_RESIZE);
    CHECK_INT(message.body_bytes, 4);
    CHECK_INT(*(uint16_t *)(void *)message.body, 132);
    CHECK_INT(*(uint16_t *)(void *)(message.body + 2), 50);
    CHECK_INT(console_register(&driver, 0x100), 50 << 16 | 132);
    CHECK_TEXT(next_message(), "none");
    console_driver_reset(&driver);
    CHECK(is_raw(slave)); /* a guest that resets in a loop has no guardian made in a loop */
    console_driver_start(&driver, false);
    CHECK(is_raw(slave));
    struct termios cooked; /* as a shell would leave it that had the terminal in between */
    CHECK_INT(tcgetattr(slave, &cooked), 0);
    cooked.c_lflag |= ICANON | ECHO | ISIG;
    CHECK_INT(tcsetattr(slave, TCSANOW, &cooked), 0);
    CHECK(!is_raw(slave));
    console_window_changed(driver.device);
    virtio_device_turn(driver.device);
    CHECK(is_raw(slave));
    end();
    CHECK(!is_raw(slave));
    fd_close(master), fd_close(slave);
    fd_close(out[0]), fd_close(out[1]);
}

/* A process that runs the device on the terminal until it ends in its own way. */
static pid_t run_device(int slave, void (*finish)(void))
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    struct console_port_options port = terminal_port(slave);
    begin(&port, 1, false);
    if (virtio_device_launch(driver.device) < 0)
        _exit(1);
    finish();
    return -1;
}

static void finish_at_once(void)
{
    _exit(0);
}

static void finish_never(void)
{
    for (;;)
        pause();
}

TEST(a_terminal_is_restored_when_we_are_killed)
{
    int slave, master = open_pty(&slave), status;
    for (int is_killed = 0; is_killed < 2; is_killed++) {
        CHECK(!is_raw(slave));
        pid_t pid = run_device(slave, is_killed ? finish_never : finish_at_once);
        if (is_killed) {
            CHECK(COMES_TRUE(is_raw(slave)));
            kill(pid, SIGKILL);
        }
        CHECK_INT(waitpid(pid, &status, 0), pid);
        CHECK(COMES_TRUE(!is_raw(slave)));
    }
    fd_close(master), fd_close(slave);
}

/* In a process group of its own, in a session whose terminal this is. 0, or where it went wrong. */
static int use_from_the_background(int slave, int master)
{
    struct console_port_options port = terminal_port(slave);
    setpgid(0, 0);
    begin(&port, 1, false);
    if (is_raw(slave))
        return 1;
    if (tcsetpgrp(slave, getpgrp()) < 0 || !COMES_TRUE((console_driver_turn(&driver), is_raw(slave))))
        return 2;
    if (write(master, "one", 3) != 3 || !COMES_TRUE(strcmp(hear_text(0), "one") == 0))
        return 3;
    tcsetpgrp(slave, getppid());
    if (write(master, "two", 3) != 3)
        return 4;
    for (int i = 0; i < 20; i++) { /* it is not ours to read, and that is not its end */
        if (strcmp(hear_text(0), "") != 0)
            return 5;
        poll(NULL, 0, 5);
    }
    tcsetpgrp(slave, getpgrp());
    if (!COMES_TRUE(strcmp(hear_text(0), "two") == 0))
        return 6;
    end();
    return 0;
}

TEST(a_terminal_in_the_background_is_left_alone)
{
    int slave, master = open_pty(&slave), status = 0;
    pid_t leader = fork();
    if (leader == 0) {
        sigset_t all;
        sigfillset(&all); /* as on the device's own thread */
        sigprocmask(SIG_BLOCK, &all, NULL);
        if (setsid() < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
            _exit(100);
        pid_t pid = fork();
        if (pid == 0)
            _exit(use_from_the_background(slave, master));
        _exit(waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 101);
    }
    CHECK_INT(waitpid(leader, &status, 0), leader);
    CHECK(WIFEXITED(status));
    CHECK_INT(WEXITSTATUS(status), 0);
    fd_close(master), fd_close(slave);
}
