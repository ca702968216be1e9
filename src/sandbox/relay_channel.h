// SPDX-License-Identifier: Apache-2.0
/* One end of a socket on which frames travel (proto/agent.h), without waiting. (relay.c) */
#ifndef SANDBOX_RELAY_CHANNEL_H
#define SANDBOX_RELAY_CHANNEL_H

#include "base/buffer.h"
#include "base/loop.h"
#include "proto/agent.h"

#include <sys/uio.h>

/* A whole frame, in place: its header may be changed. The function may close the channel, and then gets no more. */
typedef void (*channel_frame)(void *user, const struct agent_header *header, uint8_t *frame, size_t length);

struct channel {
    int fd;                     /* owned; -1 once it is closed */
    struct loop_source *source; /* owned */
    uint32_t events;            /* that the loop waits for */
    struct buffer partial;      /* the front of a frame whose rest has not come */
    struct buffer queue;        /* what the other side has not taken, from queue_sent on */
    size_t queue_sent, most_queued;
    size_t *held_bytes; /* borrowed: a sum over several channels of all that they hold */
};

#define CHANNEL_NONE                                                                                                   \
    {                                                                                                                  \
        .fd = -1                                                                                                       \
    }

/* Takes over the socket, which stays open on failure; `function` gets EPOLL* events, none of which are waited for yet.
 * `most_queued` is the most that its queue may hold. */
int channel_open(struct channel *channel, int fd, size_t most_queued, size_t *held_bytes, struct loop *loop,
                 loop_function function, void *user);
void channel_close(struct channel *channel);

/* Whether to wait for something to read. Writing is waited for while there is something to write. */
int channel_set_reading(struct channel *channel, bool is_wanted);

/* Reads once, into `room`, and calls the function for each frame that is whole. 1: there may be more; 0: the other side
 * has ended; -EAGAIN; -EPROTO for what is no frame; or -errno. */
int channel_receive(struct channel *channel, uint8_t *room, size_t size, channel_frame function, void *user);

/* Sends what can be sent at once and keeps the rest: 0, -ENOBUFS past the queue's limit, or -errno. Frames are whole or
 * not sent at all as long as the result is not looked past: after a failure the channel is to be closed. */
int channel_send(struct channel *channel, const struct iovec *parts, size_t count);

/* Sends what was kept: 0 or -errno. */
int channel_flush(struct channel *channel);

/* What is kept for the other side. */
size_t channel_queued_bytes(const struct channel *channel);

/* All that it holds, in both directions. */
size_t channel_held_bytes(const struct channel *channel);

#endif
