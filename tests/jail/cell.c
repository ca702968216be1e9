// SPDX-License-Identifier: Apache-2.0
/* A jail with the inmate in it, for tests.
 *
 * The seccomp filter and Landlock would hide whether the walls behind them stand, so the linker sends the calls that
 * install them here (--wrap), where a test can leave them out.
 */
#include "cell.h"

#include "base/fd.h"
#include "engine/uml/jail_private.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int cell_program_fd = -1;
bool cell_has_no_filter, cell_has_no_landlock, cell_allows_missing_walls;

int __real_jail_filter_install(void);
int __wrap_jail_filter_install(void);
int __real_jail_landlock_restrict(const struct jail_plan *plan, int program_fd);
int __wrap_jail_landlock_restrict(const struct jail_plan *plan, int program_fd);

int __wrap_jail_filter_install(void)
{
    return cell_has_no_filter ? 0 : __real_jail_filter_install();
}

int __wrap_jail_landlock_restrict(const struct jail_plan *plan, int program_fd)
{
    return cell_has_no_landlock ? 0 : __real_jail_landlock_restrict(plan, program_fd);
}

static int make_initramfs(const char *text)
{
    int fd = memfd_create("initramfs", MFD_CLOEXEC);
    if (fd >= 0 && fd_write_all(fd, text, strlen(text)) < 0)
        return fd_close(fd);
    return fd;
}

static int start(struct cell *cell, struct jail_program *program, const char *initramfs)
{
    auto_close int initramfs_fd = initramfs != NULL ? make_initramfs(initramfs) : -1;
    struct jail_options options = {
        .memory_bytes = cell_memory_bytes,
        .initramfs_fd = initramfs_fd,
        .socket_fds = &cell->listener,
        .socket_count = 1,
        .allows_missing_walls = cell_allows_missing_walls,
    };
    int result = jail_prepare(&options, &cell->jail, &cell->error);
    if (result < 0)
        return result;
    char device[160];
    snprintf(device, sizeof(device), "DEVICE=%s", jail_socket_path(cell->jail, 0).text);
    const char *const environment[] = {device, NULL};
    program->environment = environment;
    return jail_start(cell->jail, program, &cell->error);
}

int cell_start(struct cell *cell, const char *attempt, const char *argument, const char *initramfs)
{
    int output[2] = {-1, -1}, errors[2] = {-1, -1};
    const char *const arguments[] = {"inmate", attempt, argument, NULL};
    *cell = (struct cell){.output = -1, .errors = -1};
    cell->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    auto_close int program_fd = cell_program_fd >= 0 ? fcntl(cell_program_fd, F_DUPFD_CLOEXEC, 0)
                                                     : open(INMATE, O_RDONLY | O_CLOEXEC);
    auto_close int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (pipe2(output, O_CLOEXEC) < 0 || pipe2(errors, O_CLOEXEC) < 0)
        return -errno;
    auto_close int output_end = output[1], error_end = errors[1];
    cell->output = output[0];
    cell->errors = errors[0];
    struct jail_program program = {
        .fd = program_fd,
        .arguments = arguments,
        .stdin_fd = nothing,
        .stdout_fd = output_end,
        .stderr_fd = error_end,
    };
    return start(cell, &program, initramfs);
}

static void answer_device(int listener)
{
    char question;
    auto_close int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0 && read(fd, &question, 1) == 1 && question == '?')
        (void)!write(fd, "!", 1);
}

static void take_in(int fd, char *text, size_t size)
{
    size_t length = strlen(text);
    ssize_t got;
    while (length < size - 1 && (got = read(fd, text + length, size - 1 - length)) > 0)
        length += (size_t)got;
    text[length] = '\0';
}

int cell_wait(struct cell *cell)
{
    for (;;) {
        struct pollfd ready[] = {{.fd = cell->listener, .events = POLLIN},
                                 {.fd = jail_pidfd(cell->jail), .events = POLLIN}};
        if (poll(ready, 2, -1) < 0 && errno != EINTR)
            return -errno;
        if (ready[1].revents != 0)
            break;
        if ((ready[0].revents & POLLIN) != 0)
            answer_device(cell->listener);
    }
    take_in(cell->output, cell->output_text, sizeof(cell->output_text));
    take_in(cell->errors, cell->error_text, sizeof(cell->error_text));
    return jail_end(cell->jail, &cell->end);
}

int cell_wait_for_line(struct cell *cell)
{
    char line[64];
    return read(cell->output, line, sizeof(line)) > 0 ? 0 : -EIO;
}

void cell_free(struct cell *cell)
{
    cell->jail = jail_free(cell->jail);
    cell->listener = fd_close(cell->listener);
    cell->output = fd_close(cell->output);
    cell->errors = fd_close(cell->errors);
}

int cell_run(const char *attempt, const char *argument)
{
    struct cell cell;
    int result = cell_start(&cell, attempt, argument, NULL);
    if (result < 0)
        printf("# %s: %s (%s)\n", attempt, cell.error.message, cell.error.remedy);
    else
        result = cell_wait(&cell);
    if (result == 0) {
        result = cell.end.was_killed ? 1000 + cell.end.status : cell.end.status;
        if (cell.error_text[0] != '\0')
            printf("# %s: %s", attempt, cell.error_text);
    }
    cell_free(&cell);
    return result;
}
