// SPDX-License-Identifier: Apache-2.0
/* Descriptors of somebody else's: never waited for, never changed. */
#include "test.h"

#include "base/alloc.h"
#include "base/endpoint.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static ssize_t read_one(const struct endpoint *endpoint)
{
    uint8_t byte;
    return endpoint_read(endpoint, &(struct iovec){&byte, 1}, 1);
}

static ssize_t write_much(const struct endpoint *endpoint)
{
    static uint8_t zeros[10000];
    struct iovec spans[] = {{zeros, 1}, {zeros, sizeof(zeros)}};
    return endpoint_write(endpoint, spans, 2, 1);
}

/* Without data and without room, even when somebody else was faster after poll had said that there is some. */
static bool never_waits(int input_fd, int output_fd)
{
    struct endpoint input, output;
    if (endpoint_open(input_fd, O_RDONLY, &input) < 0 || endpoint_open(output_fd, O_WRONLY, &output) < 0)
        abort();
    bool is_right = read_one(&input) == -EAGAIN;
    ssize_t written = 1;
    for (int i = 0; i < 20000 && written > 0; i++)
        written = write_much(&output);
    is_right &= written == -EAGAIN;
    is_right &= (fcntl(input_fd, F_GETFL) & O_NONBLOCK) == 0 && (fcntl(output_fd, F_GETFL) & O_NONBLOCK) == 0;
    is_right &= (fcntl(input.fd, F_GETFD) & FD_CLOEXEC) != 0 && input.fd != input_fd;
    endpoint_close(&input);
    endpoint_close(&output);
    return is_right && input.fd == -1;
}

TEST(nothing_waits_that_may_not)
{
    int fds[2];
    CHECK_INT(pipe2(fds, O_CLOEXEC), 0);
    CHECK(never_waits(fds[0], fds[1]));
    close(fds[0]);
    close(fds[1]);
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    CHECK(never_waits(fds[0], fds[0]));
    close(fds[0]);
    close(fds[1]);
    auto_close int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    auto_close int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(slave >= 0);
    CHECK(never_waits(slave, slave));
}

TEST(the_wrong_direction_is_refused)
{
    int fds[2];
    struct endpoint endpoint;
    CHECK_INT(pipe2(fds, O_CLOEXEC), 0);
    auto_close int path_fd = open("/", O_PATH | O_CLOEXEC);
    CHECK_INT(endpoint_open(fds[1], O_RDONLY, &endpoint), -EBADF);
    CHECK_INT(endpoint_open(fds[0], O_WRONLY, &endpoint), -EBADF);
    CHECK_INT(endpoint_open(path_fd, O_RDONLY, &endpoint), -EBADF);
    CHECK_INT(endpoint_open(9999, O_RDONLY, &endpoint), -EBADF);
    CHECK_INT(endpoint_open(-1, O_WRONLY, &endpoint), -EBADF);
    CHECK_INT(endpoint.fd, -1);
    auto_close int datagrams = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK_INT(endpoint_open(datagrams, O_RDONLY, &endpoint), -EPROTOTYPE);
    close(fds[0]);
    close(fds[1]);
}

TEST(ends_are_told)
{
    int fds[2];
    struct endpoint endpoint;
    CHECK_INT(pipe2(fds, O_CLOEXEC), 0);
    CHECK_INT(endpoint_open(fds[0], O_RDONLY, &endpoint), 0);
    close(fds[1]);
    CHECK_INT(read_one(&endpoint), 0);
    endpoint_close(&endpoint);
    close(fds[0]);
    CHECK_INT(pipe2(fds, O_CLOEXEC), 0);
    CHECK_INT(endpoint_open(fds[1], O_WRONLY, &endpoint), 0);
    close(fds[0]);
    signal(SIGPIPE, SIG_IGN);
    CHECK_INT(write_much(&endpoint), -EPIPE);
    signal(SIGPIPE, SIG_DFL);
    endpoint_close(&endpoint);
    close(fds[1]);
}

static void ignore_event(void *user, uint32_t events)
{
    (void)user, (void)events;
}

TEST(a_file_is_always_ready)
{
    struct loop *loop = NULL;
    struct loop_source *source = (struct loop_source *)&source;
    struct endpoint file, pipe_end;
    int fds[2];
    auto_close int fd = open(test_text_file("file", "x"), O_RDWR | O_CLOEXEC);
    CHECK_INT(pipe2(fds, O_CLOEXEC), 0);
    CHECK_INT(loop_new(&loop), 0);
    CHECK_INT(endpoint_open(fd, O_RDONLY, &file), 0);
    CHECK_INT(endpoint_watch(&file, loop, ignore_event, NULL, &source), 0);
    CHECK(source == NULL);
    CHECK_INT(read_one(&file), 1);
    CHECK_INT(read_one(&file), 0);
    CHECK_INT(endpoint_open(fds[0], O_RDONLY, &pipe_end), 0);
    CHECK_INT(endpoint_watch(&pipe_end, loop, ignore_event, NULL, &source), 0);
    CHECK(source != NULL);
    loop_free(loop);
    endpoint_close(&file);
    endpoint_close(&pipe_end);
    close(fds[0]);
    close(fds[1]);
}
