// SPDX-License-Identifier: Apache-2.0
/* A descriptor of somebody else's, read or written without waiting and without changing its flags.
 *
 * O_NONBLOCK belongs to the open file description, and standard input and output share theirs with a shell and whatever
 * else runs in the terminal: setting it would break them, and they may clear it again. What can be done instead depends
 * on the kind:
 *
 *     pipe, terminal   opened again through /proc: the same thing with flags of our own, O_NONBLOCK among them
 *     socket           MSG_DONTWAIT
 *     file, /dev/null  never waits for a reader, and epoll refuses it: used at once
 *     the rest         poll first, then so little that it does not wait: PIPE_BUF bytes for a pipe (pipe(7)), a byte
 *                      for a terminal that cannot be opened again (a pseudo-terminal's master: that makes another one)
 *
 * Waiting is by EPOLLONESHOT: a hangup is reported whether it was asked for or not, and would otherwise wake a loop
 * that has no use for it again and again. A pipe whose writer was gone before we opened it reports no hangup at all,
 * only an end when it is read; therefore readers read until -EAGAIN before they wait.
 *
 * Invariants: (1) no call here waits. (2) the flags of the caller's descriptor are never changed. (3) nothing is opened
 * with more access than was asked for. (4) fd is close-on-exec and differs from every descriptor of the caller's, so
 * that one socket may be both input and output of a loop.
 *
 * Trust: the descriptors come from the embedding program; what is at their other end may do anything.
 */
#include "base/endpoint.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { most_parts = 16 };

struct endpoint_way {
    size_t most_bytes; /* at a time */
    bool polls_first;  /* it may block where it is not ready */
    bool is_socket;
};

/* 64 KiB is a pipe's usual capacity, and short enough that others on the same thread are not kept waiting. */
static const struct endpoint_way way_own = {.most_bytes = 64 << 10};
static const struct endpoint_way way_file = {.most_bytes = 64 << 10};
static const struct endpoint_way way_socket = {.most_bytes = 64 << 10, .is_socket = true};
static const struct endpoint_way way_shared = {.most_bytes = PIPE_BUF, .polls_first = true};
static const struct endpoint_way way_shared_terminal = {.most_bytes = 1, .polls_first = true};

/* ---- opening ---- */

static bool is_same_file(const struct stat *one, int fd)
{
    struct stat other;
    return fstat(fd, &other) == 0 && one->st_dev == other.st_dev && one->st_ino == other.st_ino &&
           one->st_rdev == other.st_rdev;
}

/* The same pipe or terminal with flags of our own, or -1: no /proc, no permission, no reader, an exclusive terminal. */
static int open_again(int fd, const struct stat *status, int access)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    auto_close int own = open(path, access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (own < 0 || !is_same_file(status, own))
        return -1;
    return steal_fd(&own);
}

static bool may_open_again(int fd, const struct stat *status, bool is_terminal)
{
    unsigned number;
    return S_ISFIFO(status->st_mode) || (is_terminal && ioctl(fd, TIOCGPTN, &number) < 0);
}

static const struct endpoint_way *find_shared_way(const struct stat *status, bool is_terminal)
{
    if (S_ISSOCK(status->st_mode))
        return &way_socket;
    if (S_ISREG(status->st_mode) || S_ISBLK(status->st_mode))
        return &way_file;
    return is_terminal ? &way_shared_terminal : &way_shared;
}

/* Of datagrams an empty one would look like the end of input, and a long write like its failure. */
static bool is_stream_socket(int fd)
{
    int type = 0;
    socklen_t size = sizeof(type);
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

int endpoint_open(int fd, int access, struct endpoint *ret_endpoint)
{
    struct stat status;
    struct endpoint endpoint = ENDPOINT_NONE;
    *ret_endpoint = ENDPOINT_NONE;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, &status) < 0)
        return -errno;
    if ((flags & O_PATH) != 0 || ((flags & O_ACCMODE) != O_RDWR && (flags & O_ACCMODE) != access))
        return -EBADF;
    if (S_ISSOCK(status.st_mode) && !is_stream_socket(fd))
        return -EPROTOTYPE;
    bool is_terminal = S_ISCHR(status.st_mode) && isatty(fd) != 0;
    if (may_open_again(fd, &status, is_terminal))
        endpoint.fd = open_again(fd, &status, access);
    endpoint.way = endpoint.fd >= 0 ? &way_own : find_shared_way(&status, is_terminal);
    if (endpoint.fd < 0)
        endpoint.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (endpoint.fd < 0)
        return -errno;
    *ret_endpoint = endpoint;
    return 0;
}

void endpoint_close(struct endpoint *endpoint)
{
    fd_close(endpoint->fd);
    *endpoint = ENDPOINT_NONE;
}

int endpoint_watch(const struct endpoint *endpoint, struct loop *loop, loop_function function, void *user,
                   struct loop_source **ret_source)
{
    int result = loop_add_fd(loop, endpoint->fd, EPOLLONESHOT, function, user, ret_source);
    if (result == -EPERM) {
        *ret_source = NULL;
        return 0;
    }
    return result;
}

/* ---- reading and writing ---- */

static bool is_ready(const struct endpoint *endpoint, short events)
{
    struct pollfd now = {.fd = endpoint->fd, .events = events};
    return !endpoint->way->polls_first || poll(&now, 1, 0) != 0;
}

/* The part of the spans from `offset` on that one call may have. */
static size_t cut_parts(const struct iovec *spans, size_t count, size_t offset, size_t most_bytes,
                        struct iovec parts[most_parts])
{
    size_t part_count = 0;
    for (size_t i = 0; i < count && part_count < most_parts && most_bytes > 0; i++) {
        if (offset >= spans[i].iov_len) {
            offset -= spans[i].iov_len;
            continue;
        }
        size_t length = spans[i].iov_len - offset;
        if (length > most_bytes)
            length = most_bytes;
        parts[part_count++] = (struct iovec){(uint8_t *)spans[i].iov_base + offset, length};
        most_bytes -= length;
        offset = 0;
    }
    return part_count;
}

static ssize_t read_once(const struct endpoint *endpoint, struct iovec *parts, size_t count)
{
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    return endpoint->way->is_socket ? recvmsg(endpoint->fd, &message, MSG_DONTWAIT)
                                    : readv(endpoint->fd, parts, (int)count);
}

static ssize_t write_once(const struct endpoint *endpoint, struct iovec *parts, size_t count)
{
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    return endpoint->way->is_socket ? sendmsg(endpoint->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
                                    : writev(endpoint->fd, parts, (int)count);
}

ssize_t endpoint_read(const struct endpoint *endpoint, const struct iovec *spans, size_t count)
{
    struct iovec parts[most_parts];
    ssize_t got;
    if (!is_ready(endpoint, POLLIN))
        return -EAGAIN;
    size_t part_count = cut_parts(spans, count, 0, way_own.most_bytes, parts);
    do
        got = read_once(endpoint, parts, part_count);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

ssize_t endpoint_write(const struct endpoint *endpoint, const struct iovec *spans, size_t count, size_t offset)
{
    struct iovec parts[most_parts];
    ssize_t written;
    if (!is_ready(endpoint, POLLOUT))
        return -EAGAIN;
    size_t part_count = cut_parts(spans, count, offset, endpoint->way->most_bytes, parts);
    do
        written = write_once(endpoint, parts, part_count);
    while (written < 0 && errno == EINTR);
    if (written == 0) /* of a piece that is not empty: it would say so again and again */
        return -EIO;
    return written < 0 ? -errno : written;
}
