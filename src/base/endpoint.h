// SPDX-License-Identifier: Apache-2.0
/* A descriptor of somebody else's, read or written without waiting and without changing its flags. */
#ifndef BASE_ENDPOINT_H
#define BASE_ENDPOINT_H

#include "base/loop.h"

#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

struct endpoint_way;

struct endpoint {
    int fd;                         /* owned; -1 when there is none */
    const struct endpoint_way *way; /* how to use it without waiting */
};

#define ENDPOINT_NONE ((struct endpoint){.fd = -1})

/* A descriptor of our own for the same thing; `access` is O_RDONLY or O_WRONLY. 0, -EBADF for one that is not open or
 * not open for that, -EPROTOTYPE for a socket without a stream, or -errno; then *ret_endpoint is ENDPOINT_NONE. */
int endpoint_open(int fd, int access, struct endpoint *ret_endpoint);

/* Harmless for ENDPOINT_NONE. */
void endpoint_close(struct endpoint *endpoint);

/* Adds it to the loop, for nothing yet: loop_set_events with EPOLLONESHOT asks for one call. *ret_source is NULL where
 * there is nothing to wait for, because the endpoint is always ready: a file, or /dev/null. */
int endpoint_watch(const struct endpoint *endpoint, struct loop *loop, loop_function function, void *user,
                   struct loop_source **ret_source);

/* As many bytes as can be had at once: more than 0, 0 at the end of input, -EAGAIN for none now, or -errno. */
ssize_t endpoint_read(const struct endpoint *endpoint, const struct iovec *spans, size_t count);

/* Writes a piece of the spans from `offset` on, which must not be their end: more than 0, -EAGAIN, or -errno. */
ssize_t endpoint_write(const struct endpoint *endpoint, const struct iovec *spans, size_t count, size_t offset);

#endif
