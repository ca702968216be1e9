// SPDX-License-Identifier: Apache-2.0
/* An interactive shell in a sandbox that runs: the terminal becomes the program's, one loop serves both ways.
 *
 *     cc shell.c $(pkg-config --cflags --libs vial) -o shell
 *     ./shell NAME [COMMAND [ARGUMENT]...]
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>
#include <vial/vial.h>

static int fail(const struct vial_error *err)
{
    fprintf(stderr, "%s%s%s\n  -> %s\n", err->field, err->field[0] != '\0' ? ": " : "", err->message, err->remedy);
    return 125;
}

/* Everything that is there to be shown: 0, 1 when the program has ended, or a negative errno. */
static int show(struct vial_process *process, struct vial_process_event *event, struct vial_error *err)
{
    int result = 0;
    while ((result = vial_process_next(process, event, 0, err)) == 0) {
        const char *bytes = event->bytes;
        for (size_t at = 0; event->kind == VIAL_EVENT_OUTPUT && at < event->length;) {
            ssize_t written = write(event->stream, bytes + at, event->length - at);
            if (written < 0 && errno != EINTR)
                return -errno;
            at += written > 0 ? (size_t)written : 0;
        }
        if (event->kind == VIAL_EVENT_ENDED)
            return 1;
    }
    return result == -ETIMEDOUT ? 0 : result;
}

/* Between the terminal and the program, until that ends: its code, or a negative errno. What was typed after a change
 * of the terminal's size comes after it: poll(2) looks for what is typed first. */
static int serve(struct vial_process *process, int resizes, struct vial_error *err)
{
    struct vial_process_event event = VIAL_PROCESS_EVENT_INIT;
    char input[4096];
    size_t begin = 0, end = 0;
    int has_input = 1, result = 0;
    while ((result = show(process, &event, err)) == 0) {
        struct pollfd ready[] = {
            {vial_process_fd(process), 0, 0}, {begin == end && has_input ? 0 : -1, POLLIN, 0}, {resizes, POLLIN, 0}};
        struct signalfd_siginfo resize;
        struct winsize size;
        ready[0].events = (short)vial_process_poll_events(process, begin < end);
        if (poll(ready, 3, -1) < 0 && errno != EINTR)
            return -errno;
        if (ready[2].revents != 0 && read(resizes, &resize, sizeof(resize)) > 0 && ioctl(0, TIOCGWINSZ, &size) == 0)
            vial_process_resize(process, size.ws_row, size.ws_col, err);
        if (ready[1].revents != 0) {
            ssize_t got = read(0, input, sizeof(input));
            begin = 0;
            end = got > 0 ? (size_t)got : 0;
            has_input = got > 0;
            if (!has_input)
                vial_process_close_input(process, err);
        }
        if (begin < end) {
            long taken = vial_process_write(process, input + begin, end - begin, 0, err);
            if (taken == -EPIPE)
                end = 0; /* nobody reads it any more */
            begin = taken > 0 ? begin + (size_t)taken : end == 0 ? 0 : begin;
        }
    }
    return result < 0 ? result : event.code;
}

int main(int argc, char *argv[])
{
    static const char *const shell[] = {"sh", NULL};
    struct vial_program_options program = VIAL_PROGRAM_OPTIONS_INIT;
    struct vial_home *home = NULL;
    struct vial_sandbox *sandbox = NULL;
    struct vial_process *process = NULL;
    struct vial_error err = {0}; /* not every failure below is vial's */
    struct termios before, raw;
    struct winsize size;
    sigset_t resizes;
    if (argc < 2) {
        fprintf(stderr, "usage: %s NAME [COMMAND [ARGUMENT]...]\n", argv[0]);
        return 125;
    }
    program.args = argc > 2 ? (const char *const *)argv + 2 : shell;
    program.input = true;
    program.terminal = tcgetattr(0, &before) == 0;
    sigemptyset(&resizes);
    sigaddset(&resizes, SIGWINCH);
    sigprocmask(SIG_BLOCK, &resizes, NULL);
    int resizes_fd = signalfd(-1, &resizes, SFD_CLOEXEC | SFD_NONBLOCK);
    if (program.terminal && ioctl(0, TIOCGWINSZ, &size) == 0) {
        program.rows = size.ws_row;
        program.columns = size.ws_col;
    }
    if (vial_home_open(NULL, &home, &err) < 0 || vial_sandbox_open(home, argv[1], &sandbox, &err) < 0 ||
        vial_sandbox_exec(sandbox, &program, &process, &err) < 0)
        return fail(&err);
    if (program.terminal) {
        raw = before;
        cfmakeraw(&raw);
        tcsetattr(0, TCSADRAIN, &raw);
    }
    int code = serve(process, resizes_fd, &err);
    if (program.terminal)
        tcsetattr(0, TCSADRAIN, &before);
    vial_process_free(process);
    vial_sandbox_free(sandbox);
    vial_home_free(home);
    if (code < 0 && err.message[0] == '\0')
        snprintf(err.message, sizeof(err.message), "the terminal fails: %s", strerror(-code));
    return code < 0 ? fail(&err) : code;
}
