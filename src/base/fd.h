// SPDX-License-Identifier: Apache-2.0
/* File descriptors: ownership, whole reads and writes, opening beneath a folder. */
#ifndef BASE_FD_H
#define BASE_FD_H

#include "base/buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Closes it unless it is negative and returns -1; errno stays as it was. */
int fd_close(int fd);

static inline void auto_close_cleanup(int *fd)
{
    fd_close(*fd);
}

/* An int that is closed at the end of its scope; starts at -1. */
#define auto_close __attribute__((cleanup(auto_close_cleanup)))

/* Takes the descriptor out of its variable, which becomes -1. */
static inline int steal_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

/* Whether it is open for that. */
bool fd_is_readable(int fd);
bool fd_is_writable(int fd);

/* Writes all of it: 0 or -errno, retrying after signals and short writes. For descriptors that block. */
int fd_write_all(int fd, const void *bytes, size_t length);

/* Appends everything up to end of file: 0, -errno, or -ENOBUFS when it is longer than the buffer's limit. */
int fd_read_all(int fd, struct buffer *buffer);

/* A whole file (of /proc and /sys, too) into an empty buffer. */
int fd_read_file(const char *path, struct buffer *buffer);

/* Opens `path` below the folder `folder_fd`. Absolute paths, "..", symbolic links that lead out and magic links do not
 * get past the folder: -EXDEV or -ELOOP. With `follows_links` false no symbolic link is followed at all: -ELOOP.
 * The descriptor is close-on-exec. Returns it, or -errno. */
int fd_open_beneath(int folder_fd, const char *path, int flags, mode_t mode, bool follows_links);

#endif
