// SPDX-License-Identifier: Apache-2.0
/* File descriptors: ownership, whole reads and writes, opening beneath a folder.
 *
 * openat2 lets the kernel resolve a path that somebody else chose without ever leaving a folder, whatever is renamed or
 * linked at the same time; no check of the path's text could promise that.
 *
 * Invariants: (1) every descriptor made here is close-on-exec. (2) a short read or write and EINTR never reach a
 * caller.
 *
 * Trust: paths beneath a folder and file contents may be hostile; the folder descriptor is ours.
 */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

int fd_close(int fd)
{
    if (fd >= 0) {
        int saved = errno;
        close(fd); /* Linux releases the descriptor whatever close returns; there is nothing to retry */
        errno = saved;
    }
    return -1;
}

bool fd_is_readable(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_ACCMODE) != O_WRONLY;
}

bool fd_is_writable(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY;
}

int fd_write_all(int fd, const void *bytes, size_t length)
{
    const char *next = bytes;
    while (length > 0) {
        ssize_t written = write(fd, next, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -errno;
        next += written;
        length -= (size_t)written;
    }
    return 0;
}

int fd_read_all(int fd, struct buffer *buffer)
{
    for (;;) {
        /* One byte past the limit tells a file that is too long from one that just fits. */
        char past_limit = 0;
        size_t room = buffer->limit - buffer->length;
        size_t step = room < 4096 ? room : 4096;
        char *where = step > 0 ? buffer_reserve(buffer, step) : &past_limit;
        if (where == NULL)
            return buffer->error;
        ssize_t got = read(fd, where, step > 0 ? step : 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            return 0;
        if (step == 0)
            return buffer->error = -ENOBUFS;
        buffer_commit(buffer, (size_t)got);
    }
}

int fd_read_file(const char *path, struct buffer *buffer)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    return fd_read_all(fd, buffer);
}

int fd_open_beneath(int folder_fd, const char *path, int flags, mode_t mode, bool follows_links)
{
    struct open_how how = {
        .flags = (unsigned)flags | O_CLOEXEC,
        .mode = (flags & (O_CREAT | __O_TMPFILE)) != 0 ? mode : 0, /* anything else is refused (openat2(2)) */
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    if (!follows_links)
        how.resolve |= RESOLVE_NO_SYMLINKS;
    for (;;) {
        long fd = syscall(SYS_openat2, folder_fd, path, &how, sizeof(how));
        if (fd >= 0)
            return (int)fd;
        /* EAGAIN: something was renamed while ".." was resolved; the kernel asks to try again (openat2(2)). */
        if (errno != EINTR && errno != EAGAIN)
            return -errno;
    }
}
