// SPDX-License-Identifier: Apache-2.0
/* One end of a socket on which frames travel, without waiting.
 *
 * Reading: one recv into room that all channels share, then frame by frame in place. Only a frame that is cut off at
 * the end is copied, into memory of its channel that grows with what has come, not with what the header announces.
 *
 *     recv ──> room: [ frame ][ frame ][ fra      ──> partial: [ fra
 *     recv ──> room: me ][ frame ]                ──> partial: [ frame ] ──> function, forgotten
 *
 * Writing: straight to the socket while it takes everything; from the first byte that it does not take on, into a queue
 * that is sent when there is room. So in the usual case a frame is copied by the kernel only.
 *
 * Invariants: (1) bytes leave in the order in which they were given. (2) the memory of a channel is at most a frame as
 * long as its kind allows, and its queue's limit. (3) the sum that channels share is that of their partial and queued
 * bytes. (4) no call waits, and none raises SIGPIPE.
 *
 * Trust: the other side may send anything, at any pace, or nothing.
 */
#include "sandbox/relay_channel.h"

#include "base/alloc.h"
#include "base/fd.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { most_parts = 4, roomy = 64 << 10 };

/* ---- life ---- */

int channel_open(struct channel *channel, int fd, size_t most_queued, size_t *held_bytes, struct loop *loop,
                 loop_function function, void *user)
{
    *channel = (struct channel){
        .fd = -1,
        .partial = BUFFER_INIT(AGENT_HEADER_BYTES + AGENT_MOST_BODY_BYTES),
        .queue = BUFFER_INIT(2 * most_queued), /* the part that was sent stands in front of it */
        .most_queued = most_queued,
        .held_bytes = held_bytes,
    };
    int result = loop_add_fd(loop, fd, 0, function, user, &channel->source);
    if (result == 0)
        channel->fd = fd;
    return result;
}

void channel_close(struct channel *channel)
{
    channel->source = loop_source_free(channel->source);
    channel->fd = fd_close(channel->fd);
    if (channel->held_bytes != NULL)
        *channel->held_bytes -= channel_held_bytes(channel);
    buffer_free(&channel->partial);
    buffer_free(&channel->queue);
    channel->queue_sent = 0;
}

static int wait_for(struct channel *channel, uint32_t events)
{
    if (events == channel->events)
        return 0;
    int result = loop_set_events(channel->source, events);
    if (result == 0)
        channel->events = events;
    return result;
}

int channel_set_reading(struct channel *channel, bool is_wanted)
{
    return wait_for(channel, (channel->events & ~(uint32_t)EPOLLIN) | (is_wanted ? EPOLLIN : 0));
}

size_t channel_queued_bytes(const struct channel *channel)
{
    return channel->queue.length - channel->queue_sent;
}

size_t channel_held_bytes(const struct channel *channel)
{
    return channel->partial.length + channel_queued_bytes(channel);
}

/* ---- reading ---- */

/* Memory that was needed once goes back; a little stays for the next time. */
static void empty(struct buffer *buffer)
{
    if (buffer->capacity > roomy)
        buffer_free(buffer);
    buffer->length = 0;
}

/* The frame at the front of the bytes: its length, 0 while it is not whole, or -EPROTO. `ret_missing`: what is missing
 * at least. */
static long find_frame(const uint8_t *bytes, size_t length, struct agent_header *ret_header, size_t *ret_missing)
{
    if (length < AGENT_HEADER_BYTES) {
        *ret_missing = AGENT_HEADER_BYTES - length;
        return 0;
    }
    if (agent_decode_header(bytes, ret_header) < 0)
        return -EPROTO;
    size_t whole = AGENT_HEADER_BYTES + (size_t)ret_header->body_bytes;
    *ret_missing = whole > length ? whole - length : 0;
    return *ret_missing > 0 ? 0 : (long)whole;
}

static int keep(struct channel *channel, const uint8_t *bytes, size_t length)
{
    int result = buffer_add(&channel->partial, bytes, length);
    if (result == 0 && channel->held_bytes != NULL)
        *channel->held_bytes += length;
    return result;
}

/* Adds to the partial frame what it needs of the bytes: how many it took, or -errno. The function gets the frame when
 * it is whole. */
static long complete(struct channel *channel, const uint8_t *bytes, size_t length, channel_frame function, void *user)
{
    struct agent_header header;
    struct buffer *partial = &channel->partial;
    size_t missing = 0, taken = 0;
    long whole = find_frame((uint8_t *)partial->data, partial->length, &header, &missing);
    while (whole == 0 && taken < length) {
        size_t piece = missing < length - taken ? missing : length - taken;
        int result = keep(channel, bytes + taken, piece);
        if (result < 0)
            return result;
        taken += piece;
        whole = find_frame((uint8_t *)partial->data, partial->length, &header, &missing);
    }
    if (whole <= 0)
        return whole < 0 ? whole : (long)taken;
    function(user, &header, (uint8_t *)partial->data, (size_t)whole);
    if (channel->fd < 0) /* the function has closed it, and with it this memory */
        return (long)taken;
    if (channel->held_bytes != NULL)
        *channel->held_bytes -= partial->length;
    empty(partial);
    return (long)taken;
}

static int take_frames(struct channel *channel, uint8_t *bytes, size_t length, channel_frame function, void *user)
{
    if (channel->partial.length > 0) {
        long taken = complete(channel, bytes, length, function, user);
        if (taken < 0)
            return (int)taken;
        bytes += taken;
        length -= (size_t)taken;
    }
    while (length > 0 && channel->fd >= 0) {
        struct agent_header header;
        size_t missing = 0;
        long whole = find_frame(bytes, length, &header, &missing);
        if (whole < 0)
            return (int)whole;
        if (whole == 0)
            return keep(channel, bytes, length);
        function(user, &header, bytes, (size_t)whole);
        bytes += whole;
        length -= (size_t)whole;
    }
    return 0;
}

int channel_receive(struct channel *channel, uint8_t *room, size_t size, channel_frame function, void *user)
{
    ssize_t got;
    do
        got = recv(channel->fd, room, size, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got <= 0)
        return got < 0 ? -errno : 0;
    int result = take_frames(channel, room, (size_t)got, function, user);
    return result < 0 ? result : 1;
}

/* ---- writing ---- */

/* How much went out: 0 when there is no room, or -errno. */
static long send_now(const struct channel *channel, struct iovec *parts, size_t count)
{
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    ssize_t sent;
    do
        sent = sendmsg(channel->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS))
        return 0;
    return sent < 0 ? -errno : (long)sent;
}

/* The queue's front goes away when it is the greater part, so that each byte is moved at most once. */
static void close_gap(struct channel *channel)
{
    struct buffer *queue = &channel->queue;
    if (channel->queue_sent < queue->length - channel->queue_sent)
        return;
    queue->length -= channel->queue_sent;
    if (queue->length > 0)
        memmove(queue->data, queue->data + channel->queue_sent, queue->length);
    channel->queue_sent = 0;
}

static int enqueue(struct channel *channel, const struct iovec *parts, size_t count, size_t skip)
{
    size_t before = channel_queued_bytes(channel), total = 0;
    close_gap(channel);
    for (size_t i = 0; i < count; i++)
        total += parts[i].iov_len;
    if (before + total - skip > channel->most_queued)
        return -ENOBUFS;
    for (size_t i = 0; i < count; i++) {
        size_t left_out = skip < parts[i].iov_len ? skip : parts[i].iov_len;
        skip -= left_out;
        if (parts[i].iov_len > left_out)
            buffer_add(&channel->queue, (const uint8_t *)parts[i].iov_base + left_out, parts[i].iov_len - left_out);
    }
    if (channel->held_bytes != NULL)
        *channel->held_bytes += channel_queued_bytes(channel) - before;
    return channel->queue.error < 0 ? channel->queue.error : wait_for(channel, channel->events | EPOLLOUT);
}

int channel_send(struct channel *channel, const struct iovec *parts, size_t count)
{
    struct iovec copies[most_parts];
    size_t total = 0;
    long sent = 0;
    if (channel->fd < 0 || count > most_parts)
        return -EPIPE;
    for (size_t i = 0; i < count; i++) {
        copies[i] = parts[i];
        total += parts[i].iov_len;
    }
    if (channel_queued_bytes(channel) == 0)
        sent = send_now(channel, copies, count);
    if (sent < 0)
        return (int)sent;
    return (size_t)sent == total ? 0 : enqueue(channel, parts, count, (size_t)sent);
}

int channel_flush(struct channel *channel)
{
    size_t queued = channel_queued_bytes(channel);
    struct iovec rest = {channel->queue.data + channel->queue_sent, queued};
    long sent = queued > 0 ? send_now(channel, &rest, 1) : 0;
    if (sent < 0)
        return (int)sent;
    channel->queue_sent += (size_t)sent;
    if (channel->held_bytes != NULL)
        *channel->held_bytes -= (size_t)sent;
    if (channel_queued_bytes(channel) > 0)
        return 0;
    channel->queue_sent = 0;
    empty(&channel->queue);
    return wait_for(channel, channel->events & ~(uint32_t)EPOLLOUT);
}
