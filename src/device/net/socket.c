// SPDX-License-Identifier: Apache-2.0
/* What the backends of sockets share: finding the other side, and moving bytes without waiting.
 *
 * A socket that the caller gives is duplicated and its flags are left alone: others may share it, so each call says
 * MSG_DONTWAIT. One given by path is connected to. A datagram socket also needs an address of its own, or the other
 * side could not answer: a name beside the path, with a random end, so that several guests can use one helper. It is
 * removed when the socket is closed; after a kill it stays behind, an empty name.
 *
 * Invariants: (1) no call here waits. (2) an address that was bound is either removed here or handed to the caller.
 *
 * Trust: paths and descriptors come from the user; what is behind them may do anything, and can only refuse.
 */
#include "base/alloc.h"
#include "base/fd.h"
#include "device/net/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum { most_attempts = 4 }; /* to find a name that nobody has */

int net_socket_open(int fd, int type)
{
    int actual = 0;
    socklen_t size = sizeof(actual);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &actual, &size) < 0)
        return -errno;
    if (actual != type)
        return -EPROTOTYPE;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return own < 0 ? -errno : own;
}

static int fill_address(struct sockaddr_un *address, const char *path)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof(address->sun_path))
        return length == 0 ? -ENOENT : -ENAMETOOLONG;
    memcpy(address->sun_path, path, length + 1);
    return 0;
}

/* An address beside the path: 0 with the name in `ret_own`, or -errno. */
static int bind_beside(int fd, const char *path, struct sockaddr_un *ret_own)
{
    for (int i = 0; i < most_attempts; i++) {
        uint32_t number = 0;
        char name[sizeof(ret_own->sun_path)];
        if (getrandom(&number, sizeof(number), GRND_NONBLOCK) < 0)
            return -errno;
        int length = snprintf(name, sizeof(name), "%s-vial-%08x", path, number);
        if (length >= (int)sizeof(name))
            return -ENAMETOOLONG;
        int result = fill_address(ret_own, name);
        if (result < 0)
            return result;
        if (bind(fd, (struct sockaddr *)ret_own, sizeof(*ret_own)) == 0)
            return 0;
        if (errno != EADDRINUSE)
            return -errno;
    }
    return -EADDRINUSE;
}

int net_socket_connect(const char *path, int type, struct sockaddr_un *ret_own)
{
    struct sockaddr_un peer;
    int result = fill_address(&peer, path);
    if (result < 0)
        return result;
    auto_close int fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (ret_own != NULL && (result = bind_beside(fd, path, ret_own)) < 0)
        return result;
    if (connect(fd, (struct sockaddr *)&peer, sizeof(peer)) < 0) {
        result = -errno;
        if (ret_own != NULL)
            unlink(ret_own->sun_path);
        return result;
    }
    return steal_fd(&fd);
}

ssize_t net_socket_send(int fd, const struct iovec *parts, size_t count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)parts, .msg_iovlen = count}; /* only read */
    ssize_t sent;
    do
        sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

ssize_t net_socket_receive(int fd, const struct iovec *parts, size_t count, int *ret_flags)
{
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)parts, .msg_iovlen = count}; /* only read */
    ssize_t got;
    do
        got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    *ret_flags = message.msg_flags;
    return got < 0 ? -errno : got;
}
