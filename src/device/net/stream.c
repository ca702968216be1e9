// SPDX-License-Identifier: Apache-2.0
/* A Unix stream socket as a network: each frame behind its length, four bytes, the greatest first. passt and QEMU speak
 * this.
 *
 * To the peer, frames are gathered and go out together:
 *
 *     parts    small[] and guest memory, in turn     what send has gathered: borrowed until flush
 *     behind   [ …… bytes ]                          what the socket did not take of it: a copy, so that guest memory
 *                                                    need not be kept, and a frame that was begun is ended
 *
 * While anything is behind, no frame is taken: the guest's ring fills, and it waits. From the peer, as much as there is
 * is read at once, and frames are taken out of that.
 *
 * Invariants: (1) what the peer gets are whole frames, in order, until it is dead. (2) flush leaves no part of guest
 * memory in use. (3) behind holds no more than one batch.
 *
 * Trust: the peer is the user's choice; a length that cannot be ends the connection.
 */
#include "base/alloc.h"
#include "base/fd.h"
#include "device/net/backend.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

enum { prefix_bytes = 4, most_parts = LIMIT_NET_PIECES + 1 };

struct stream {
    struct net_backend backend;
    char *path; /* owned; NULL for a socket of the caller's */

    struct iovec parts[most_parts]; /* borrowed, or in small */
    size_t part_count, frame_count, gathered_bytes, small_length;
    uint8_t small[LIMIT_NET_BATCH_FRAMES * NET_SMALL_PART_BYTES]; /* prefixes, and parts that are cheaper to copy */

    uint8_t *behind; /* owned, LIMIT_NET_AHEAD_BYTES */
    size_t behind_start, behind_length;
    uint8_t *ahead; /* owned, LIMIT_NET_AHEAD_BYTES */
    size_t ahead_start, ahead_length;
};

_Static_assert(LIMIT_NET_BATCH_BYTES + LIMIT_NET_FRAME_BYTES + prefix_bytes <= LIMIT_NET_AHEAD_BYTES,
               "a batch fits behind");
_Static_assert(LIMIT_NET_FRAME_BYTES + prefix_bytes <= LIMIT_NET_AHEAD_BYTES, "a frame fits ahead");

static struct stream *stream_of(struct net_backend *backend)
{
    return (struct stream *)backend;
}

/* ---- to the peer ---- */

static bool is_behind(const struct net_backend *backend)
{
    return ((const struct stream *)backend)->behind_length > 0;
}

/* 0 when nothing is behind any more, -EAGAIN, or -errno. */
static int catch_up(struct stream *stream)
{
    while (stream->behind_length > 0) {
        struct iovec part = {stream->behind + stream->behind_start, stream->behind_length};
        ssize_t sent = net_socket_send(stream->backend.fd, &part, 1);
        if (sent < 0)
            return (int)sent;
        stream->behind_start += (size_t)sent;
        stream->behind_length -= (size_t)sent;
    }
    return 0;
}

static void forget_parts(struct stream *stream)
{
    stream->part_count = stream->frame_count = stream->gathered_bytes = stream->small_length = 0;
}

static int flush_parts(struct net_backend *backend)
{
    struct stream *stream = stream_of(backend);
    if (stream->part_count == 0) {
        int result = catch_up(stream);
        return result == -EAGAIN ? 0 : result;
    }
    ssize_t sent = net_socket_send(backend->fd, stream->parts, stream->part_count);
    size_t done = sent > 0 ? (size_t)sent : 0;
    if (sent >= 0 || sent == -EAGAIN) {
        stream->behind_start = 0;
        stream->behind_length = virtio_read_spans(stream->parts, stream->part_count, done, stream->behind,
                                                  stream->gathered_bytes - done);
    }
    forget_parts(stream);
    return sent < 0 && sent != -EAGAIN ? (int)sent : 0;
}

static void add_part(struct stream *stream, const void *bytes, size_t length)
{
    struct iovec *last = stream->part_count > 0 ? &stream->parts[stream->part_count - 1] : NULL;
    uint8_t *small = stream->small + stream->small_length;
    stream->gathered_bytes += length;
    if (length > NET_SMALL_PART_BYTES || length > sizeof(stream->small) - stream->small_length) {
        stream->parts[stream->part_count++] = (struct iovec){(void *)(uintptr_t)bytes, length};
        return;
    }
    memcpy(small, bytes, length);
    stream->small_length += length;
    if (last != NULL && (uint8_t *)last->iov_base + last->iov_len == small)
        last->iov_len += length;
    else
        stream->parts[stream->part_count++] = (struct iovec){small, length};
}

/* Behind another frame, what is small has to fit in small: our prefix is on the stack, and headers of segments are made
 * in one place, one after the other. The first frame's come first in it. */
static size_t count_small(const struct iovec *parts, size_t count)
{
    size_t sum = prefix_bytes;
    for (size_t i = 0; i < count; i++)
        sum += parts[i].iov_len <= NET_SMALL_PART_BYTES ? parts[i].iov_len : 0;
    return sum;
}

static bool has_room(const struct stream *stream, const struct iovec *parts, size_t count)
{
    return stream->frame_count == 0 ||
           (stream->frame_count < LIMIT_NET_BATCH_FRAMES && stream->gathered_bytes < LIMIT_NET_BATCH_BYTES &&
            stream->part_count + count + 1 <= most_parts &&
            count_small(parts, count) <= sizeof(stream->small) - stream->small_length);
}

static int send_frame(struct net_backend *backend, const struct net_header *header, const struct iovec *parts,
                      size_t count, size_t length)
{
    struct stream *stream = stream_of(backend);
    (void)header;
    int result = has_room(stream, parts, count) ? 0 : flush_parts(backend);
    if (result == 0)
        result = catch_up(stream);
    if (result < 0)
        return result;
    uint32_t prefix = htonl((uint32_t)length);
    add_part(stream, &prefix, sizeof(prefix));
    for (size_t i = 0; i < count; i++)
        add_part(stream, parts[i].iov_base, parts[i].iov_len);
    stream->frame_count++;
    return 0;
}

/* ---- from the peer ---- */

/* Reads more behind what there is: 0 or -errno. */
static int read_ahead(struct stream *stream)
{
    int flags = 0;
    if (stream->ahead_start > 0)
        memmove(stream->ahead, stream->ahead + stream->ahead_start, stream->ahead_length);
    stream->ahead_start = 0;
    struct iovec part = {stream->ahead + stream->ahead_length, LIMIT_NET_AHEAD_BYTES - stream->ahead_length};
    ssize_t got = net_socket_receive(stream->backend.fd, &part, 1, &flags);
    if (got <= 0)
        return got == 0 ? -ECONNRESET : (int)got;
    stream->ahead_length += (size_t)got;
    return 0;
}

/* The length of the next frame, once it is there as a whole: 0 before, or -EPROTO. */
static ssize_t whole_frame(const struct stream *stream)
{
    uint32_t prefix = 0;
    if (stream->ahead_length < prefix_bytes)
        return 0;
    memcpy(&prefix, stream->ahead + stream->ahead_start, sizeof(prefix));
    size_t length = ntohl(prefix);
    if (length == 0 || length > LIMIT_NET_FRAME_BYTES)
        return -EPROTO;
    return stream->ahead_length - prefix_bytes >= length ? (ssize_t)length : 0;
}

static ssize_t receive_frame(struct net_backend *backend, struct net_header *header, const struct iovec *parts,
                             size_t count)
{
    struct stream *stream = stream_of(backend);
    ssize_t length = whole_frame(stream);
    (void)header;
    while (length == 0) {
        int result = read_ahead(stream);
        if (result < 0)
            return result;
        length = whole_frame(stream);
    }
    if (length < 0)
        return length;
    virtio_write_spans(parts, count, 0, stream->ahead + stream->ahead_start + prefix_bytes, (size_t)length);
    stream->ahead_start += prefix_bytes + (size_t)length;
    stream->ahead_length -= prefix_bytes + (size_t)length;
    return length;
}

/* ---- life ---- */

static int connect_socket(struct net_backend *backend)
{
    struct stream *stream = stream_of(backend);
    int fd = net_socket_connect(stream->path, SOCK_STREAM, NULL);
    if (fd < 0)
        return fd;
    backend->fd = fd;
    return 0;
}

static void disconnect_socket(struct net_backend *backend)
{
    struct stream *stream = stream_of(backend);
    backend->fd = fd_close(backend->fd);
    forget_parts(stream);
    stream->behind_start = stream->behind_length = 0;
    stream->ahead_start = stream->ahead_length = 0;
}

static void free_stream(struct net_backend *backend)
{
    struct stream *stream = stream_of(backend);
    fd_close(backend->fd);
    free(stream->path);
    free(stream->behind);
    free(stream->ahead);
    free(stream);
}

static const struct net_backend_ops stream_ops = {
    .name = "unixstream",
    .send = send_frame,
    .flush = flush_parts,
    .is_behind = is_behind,
    .receive = receive_frame,
    .connect = connect_socket,
    .disconnect = disconnect_socket,
    .free = free_stream,
};

int net_stream_new(const struct net_options *options, struct net_backend **ret_backend)
{
    struct stream *stream = alloc_zero(sizeof(*stream));
    if (stream == NULL)
        return -ENOMEM;
    int result = 0;
    stream->backend = (struct net_backend){.ops = &stream_ops, .fd = -1, .can_connect = options->fd < 0};
    stream->behind = alloc_zero(LIMIT_NET_AHEAD_BYTES);
    stream->ahead = alloc_zero(LIMIT_NET_AHEAD_BYTES);
    if (stream->behind == NULL || stream->ahead == NULL)
        result = -ENOMEM;
    else if (options->fd >= 0)
        result = stream->backend.fd = net_socket_open(options->fd, SOCK_STREAM);
    else if ((stream->path = alloc_string(options->path)) == NULL)
        result = -ENOMEM;
    else
        result = connect_socket(&stream->backend);
    if (result < 0) {
        free_stream(&stream->backend);
        return result;
    }
    *ret_backend = &stream->backend;
    return 0;
}
