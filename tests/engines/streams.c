// SPDX-License-Identifier: Apache-2.0
/* A program of a guest whose standard streams are descriptors that somebody gives, and not this process's own.
 *
 *     streams ENGINE INITRAMFS pipes|terminal|none
 *
 * With pipes a shell copies its input, which is some bytes and an end, to its output, and says a word on the other one.
 * With a terminal it says whether it has one. With none it finds an input that has ended, and outputs that take
 * everything. This process's own streams stay as they are: prints what came out of which, and how the machine ended. */
#include "tool.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static const char *const pipes_command[] = {"sh", "-c", "cat; echo error >&2; test -t 0 || exit 3", NULL};
static const char *const terminal_command[] = {"sh", "-c", "test -t 0 && test -t 1 && echo on $(tty); exit 4", NULL};
static const char *const none_command[] = {"sh", "-c", "test -z \"$(cat)\" && echo x && echo y >&2 && exit 5", NULL};

static int fail(const char *what)
{
    perror(what);
    exit(125);
}

/* What there is to read until nobody can write, or for a terminal, until nothing comes. */
static void print_all(const char *name, int fd)
{
    char bytes[4096];
    ssize_t length = 0;
    for (ssize_t got; (got = read(fd, bytes + length, sizeof(bytes) - 1 - (size_t)length)) > 0;)
        length += got;
    bytes[length] = '\0';
    printf("%s: %s", name, length > 0 ? bytes : "nothing\n");
}

/* Runs the machine to its end, after which nothing of it holds the streams. */
static void run(struct vial_vm_config *config, const struct vial_exec_options *exec)
{
    struct vial_console_options console = VIAL_CONSOLE_OPTIONS_INIT;
    struct vial_exit end = VIAL_EXIT_INIT;
    struct vial_error err = {0};
    console.implicit = false;
    tool_check(vial_vm_config_set_console(config, &console, &err), &err);
    tool_check(vial_vm_config_set_exec(config, exec, &err), &err);
    struct vial_vm *vm = tool_start(config);
    tool_check(vial_vm_wait(vm, 60000, &end, &err), &err);
    vial_vm_free(vm);
    vial_vm_config_free(config);
    printf("%s %d\n", vial_exit_reason_name(end.reason), end.code);
}

static void run_pipes(struct vial_vm_config *config, struct vial_exec_options *exec)
{
    int input[2], output[2], error[2];
    if (pipe2(input, O_CLOEXEC) < 0 || pipe2(output, O_CLOEXEC) < 0 || pipe2(error, O_CLOEXEC) < 0)
        fail("pipe2");
    exec->stdin_fd = input[0];
    exec->stdout_fd = output[1];
    exec->stderr_fd = error[1];
    if (write(input[1], "one\ntwo\n", 8) != 8)
        fail("write");
    close(input[1]);
    run(config, exec);
    close(output[1]);
    close(error[1]);
    print_all("output", output[0]);
    print_all("error", error[0]);
}

static void run_terminal(struct vial_vm_config *config, struct vial_exec_options *exec)
{
    struct termios raw;
    int host = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), guest = -1;
    if (host < 0 || grantpt(host) < 0 || unlockpt(host) < 0 ||
        (guest = open(ptsname(host), O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0 || tcgetattr(guest, &raw) < 0)
        fail("a terminal");
    cfmakeraw(&raw);
    if (tcsetattr(guest, TCSANOW, &raw) < 0)
        fail("tcsetattr");
    exec->stdin_fd = exec->stdout_fd = exec->stderr_fd = guest;
    run(config, exec);
    if (fcntl(host, F_SETFL, O_NONBLOCK) < 0)
        fail("fcntl");
    print_all("terminal", host);
}

int main(int count, char **args)
{
    struct vial_exec_options exec = VIAL_EXEC_OPTIONS_INIT;
    const char *kind = count == 4 ? args[3] : "";
    const char *const *command = strcmp(kind, "pipes") == 0      ? pipes_command
                                 : strcmp(kind, "terminal") == 0 ? terminal_command
                                 : strcmp(kind, "none") == 0     ? none_command
                                                                 : NULL;
    if (command == NULL) {
        fprintf(stderr, "usage: streams ENGINE INITRAMFS pipes|terminal|none\n");
        return 125;
    }
    struct vial_vm_config *config = tool_configure(args[1], args[2], 128, command);
    exec.path = command[0];
    exec.args = command + 1;
    exec.has_streams = true;
    if (command == pipes_command)
        run_pipes(config, &exec);
    else if (command == terminal_command)
        run_terminal(config, &exec);
    else
        run(config, &exec);
    return 0;
}
