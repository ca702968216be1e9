// SPDX-License-Identifier: Apache-2.0
/* Descriptors that a front end gave us to be signalled by. A signal is 8 bytes, the number 1.
 *
 * They are shared with the front end, which can make any of them block at any time, and fill it. A device's thread must
 * not wait for that:
 *
 *     socket    send with MSG_DONTWAIT
 *     pipe      vmsplice with SPLICE_F_NONBLOCK: a write would wait as the descriptor says, and that is for the peer to
 *               choose
 *     eventfd   write. There is no call that never waits, so it is made non-blocking when it comes; if the peer makes
 *               it block again and fills it, we wait, until the peer or vhost_signal_unblock empties it
 *
 * Anything else is refused: a write of ours to a file of /proc or to a terminal would be made with our rights.
 *
 * Invariants: (1) but for an eventfd that its owner has sabotaged, no call here waits. (2) no SIGPIPE reaches a thread
 * that has not blocked it.
 *
 * Trust: descriptors, and what happens to them at any time, are a hostile peer's. That one of a file system which the
 * peer itself serves (FUSE) can have any call wait, even close, has to be prevented by the peer's jail.
 */
#include "virtio/vhost_signal.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* Constant and never freed: a pipe holds the page itself until the peer has read it. */
static const uint64_t one = 1;
static struct iovec one_span(void)
{
    return (struct iovec){.iov_base = (void *)(uintptr_t)&one, .iov_len = sizeof(one)};
}

int vhost_signal_open(int fd, struct vhost_signal *ret_signal)
{
    auto_close int own_fd = fd;
    struct stat status;
    int flags = fcntl(own_fd, F_GETFL);
    if (flags < 0 || fstat(own_fd, &status) < 0)
        return -errno;
    if ((flags & O_ACCMODE) == O_RDONLY || (flags & O_PATH) != 0)
        return -EINVAL;
    struct vhost_signal signal = {.fd = own_fd};
    switch (status.st_mode & S_IFMT) {
    case S_IFSOCK:
        signal.kind = VHOST_SIGNAL_SOCKET;
        break;
    case S_IFIFO:
        signal.kind = VHOST_SIGNAL_PIPE;
        break;
    case 0: /* eventfds, and other anonymous files, which take no such write */
        signal.kind = VHOST_SIGNAL_EVENT;
        if (fcntl(own_fd, F_SETFL, flags | O_NONBLOCK) < 0)
            return -errno;
        break;
    default:
        return -EINVAL;
    }
    (void)steal_fd(&own_fd);
    *ret_signal = signal;
    return 0;
}

void vhost_signal_close(struct vhost_signal *signal)
{
    fd_close(signal->fd);
    *signal = VHOST_SIGNAL_NONE;
}

/* A SIGPIPE of our own making is taken back. */
static void send_to_pipe(int fd)
{
    static const struct timespec now = {0};
    sigset_t pipe_signal, before, pending;
    struct iovec span = one_span();
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    if (vmsplice(fd, &span, 1, SPLICE_F_NONBLOCK) < 0 && errno == EPIPE && sigismember(&pending, SIGPIPE) == 0)
        sigtimedwait(&pipe_signal, NULL, &now);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void vhost_signal_send(const struct vhost_signal *signal)
{
    ssize_t sent = 0;
    switch (signal->kind) {
    case VHOST_SIGNAL_EVENT:
        sent = write(signal->fd, &one, sizeof(one));
        break;
    case VHOST_SIGNAL_PIPE:
        send_to_pipe(signal->fd);
        break;
    case VHOST_SIGNAL_SOCKET:
        sent = send(signal->fd, &one, sizeof(one), MSG_DONTWAIT | MSG_NOSIGNAL);
        break;
    }
    (void)sent; /* a full one has signals pending, and one that nobody reads is not ours to mend */
}

void vhost_signal_unblock(const struct vhost_signal *signal)
{
    uint64_t count;
    struct iovec span = {.iov_base = &count, .iov_len = sizeof(count)};
    if (signal->fd < 0 || signal->kind != VHOST_SIGNAL_EVENT)
        return;
    int flags = fcntl(signal->fd, F_GETFL);
    if (flags >= 0)
        fcntl(signal->fd, F_SETFL, flags | O_NONBLOCK); /* for the next one; who waits already goes on waiting, */
    ssize_t got = preadv2(signal->fd, &span, 1, -1, RWF_NOWAIT); /* until it is empty */
    (void)got;
}
