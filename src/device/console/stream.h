// SPDX-License-Identifier: Apache-2.0
/* One direction of a console port: bytes to or from a descriptor of any kind, or a function, without ever blocking. */
#ifndef DEVICE_CONSOLE_STREAM_H
#define DEVICE_CONSOLE_STREAM_H

#include "base/endpoint.h"
#include "vial/backend.h"

#include <stdbool.h>

struct stream {
    struct endpoint endpoint;           /* owned; what is waited for; ENDPOINT_NONE where there is no stream */
    const struct vial_console_ops *ops; /* borrowed; NULL for a descriptor */
    void *ops_user;                     /* borrowed */
    struct loop_source *source;         /* the loop's; NULL where it is always ready */
    uint32_t events;                    /* what it waits for */
    bool is_armed;
    bool has_ended; /* for good: end of input, or nobody reads any more */
};

#define STREAM_NONE ((struct stream){.endpoint = ENDPOINT_NONE})

/* A stream of its own from a descriptor that stays the caller's. Below 0, *ret_stream is STREAM_NONE. -EBADF for one
 * that is not open in this direction. */
enum stream_direction { STREAM_INPUT, STREAM_OUTPUT };
int stream_open(int fd, enum stream_direction direction, struct stream *ret_stream);
int stream_open_custom(const struct vial_console_ops *ops, void *user, enum stream_direction direction,
                       struct stream *ret_stream);

/* Frees its place in the loop, too. Harmless for STREAM_NONE. */
void stream_close(struct stream *stream);

/* Has the function called after stream_arm, once, when the stream is ready; it must call stream_disarmed first. */
int stream_watch(struct stream *stream, struct loop *loop, loop_function function, void *user);
void stream_arm(struct stream *stream);
void stream_disarmed(struct stream *stream);

/* Whether there is a stream at all; and whether it goes on. */
bool stream_exists(const struct stream *stream);
bool stream_is_alive(const struct stream *stream);

/* As many bytes as can be had at once: more than 0, 0 at the end of input, -EAGAIN for none now, or -errno. */
ssize_t stream_read(const struct stream *stream, const struct iovec *spans, size_t count);

/* Writes a piece of the spans from `offset` on, which must not be their end: more than 0, -EAGAIN, or -errno. */
ssize_t stream_write(const struct stream *stream, const struct iovec *spans, size_t count, size_t offset);

#endif
