// SPDX-License-Identifier: Apache-2.0
/* One direction of a console port: bytes to or from a descriptor of any kind, or a function, without ever blocking.
 *
 * Descriptors are endpoints (base/endpoint.c), which know how not to wait for what they are. Functions say -EAGAIN
 * themselves, come with a descriptor to wait for, and get a copy of the guest's bytes that does not change under them.
 *
 * Invariants: (1) no call here blocks, as long as the functions do not. (2) a stream that is not armed does not wake
 * the loop, but once after stream_watch.
 *
 * Trust: descriptors and functions come from the embedding program, what the functions return is checked; spans come
 * from queue_pop.
 */
#include "device/console/stream.h"

#include "base/fd.h"
#include "virtio/device.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>

enum { copy_bytes = 4096 };

static uint32_t events_of(enum stream_direction direction)
{
    return direction == STREAM_INPUT ? EPOLLIN : EPOLLOUT;
}

int stream_open(int fd, enum stream_direction direction, struct stream *ret_stream)
{
    *ret_stream = STREAM_NONE;
    int result = endpoint_open(fd, direction == STREAM_INPUT ? O_RDONLY : O_WRONLY, &ret_stream->endpoint);
    ret_stream->events = events_of(direction);
    return result;
}

int stream_open_custom(const struct vial_console_ops *ops, void *user, enum stream_direction direction,
                       struct stream *ret_stream)
{
    *ret_stream = STREAM_NONE;
    int fd = ops->poll_fd(user);
    fd = fd < 0 ? -EBADF : fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return fd == -1 ? -errno : fd;
    *ret_stream = (struct stream){
        .endpoint.fd = fd,
        .ops = ops,
        .ops_user = user,
        .events = events_of(direction),
    };
    return 0;
}

void stream_close(struct stream *stream)
{
    stream->source = loop_source_free(stream->source);
    endpoint_close(&stream->endpoint);
    *stream = STREAM_NONE;
}

bool stream_exists(const struct stream *stream)
{
    return stream->endpoint.fd >= 0;
}

bool stream_is_alive(const struct stream *stream)
{
    return stream_exists(stream) && !stream->has_ended;
}

/* ---- waiting ---- */

int stream_watch(struct stream *stream, struct loop *loop, loop_function function, void *user)
{
    return stream_exists(stream) ? endpoint_watch(&stream->endpoint, loop, function, user, &stream->source) : 0;
}

void stream_arm(struct stream *stream)
{
    if (stream->source == NULL || stream->is_armed)
        return;
    stream->is_armed = loop_set_events(stream->source, stream->events | EPOLLONESHOT) == 0;
}

void stream_disarmed(struct stream *stream)
{
    stream->is_armed = false;
}

/* ---- reading and writing ---- */

static ssize_t read_custom(const struct stream *stream, const struct iovec *spans, size_t count)
{
    uint8_t copy[copy_bytes];
    size_t room = 0;
    for (size_t i = 0; i < count && room < sizeof(copy); i++)
        room += spans[i].iov_len;
    if (room > sizeof(copy))
        room = sizeof(copy);
    ssize_t got = stream->ops->read(stream->ops_user, copy, room);
    if (got > (ssize_t)room)
        return -EIO;
    if (got > 0)
        virtio_write_spans(spans, count, 0, copy, (size_t)got);
    return got;
}

static ssize_t write_custom(const struct stream *stream, const struct iovec *spans, size_t count, size_t offset)
{
    uint8_t copy[copy_bytes];
    size_t length = virtio_read_spans(spans, count, offset, copy, sizeof(copy));
    ssize_t taken = stream->ops->write(stream->ops_user, copy, length);
    if (taken == 0)
        return -EAGAIN;
    return taken > (ssize_t)length ? -EIO : taken;
}

ssize_t stream_read(const struct stream *stream, const struct iovec *spans, size_t count)
{
    return stream->ops != NULL ? read_custom(stream, spans, count) : endpoint_read(&stream->endpoint, spans, count);
}

ssize_t stream_write(const struct stream *stream, const struct iovec *spans, size_t count, size_t offset)
{
    return stream->ops != NULL ? write_custom(stream, spans, count, offset)
                               : endpoint_write(&stream->endpoint, spans, count, offset);
}
