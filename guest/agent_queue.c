// SPDX-License-Identifier: Apache-2.0
/* Frames on their way to the port: one queue of bytes, in the order in which they were made.
 *
 *     bytes   ┌──────┬───────────────────┬─────────────────────────────┐
 *             │ gone │ frames            │ room                        │
 *             └──────┴───────────────────┴─────────────────────────────┘
 *                    start               end
 *
 * A frame of DATA is read straight into the room: its prefix is reserved for the length that was asked for, and if the
 * length that came takes a shorter one, which is so for few bytes only, they move up.
 *
 * Who asks queue_has_room before each step finds AGENT_QUEUE_BYTES - AGENT_QUEUE_FULL_BYTES at least, which is more
 * than any step says: some chunks, or answers to one frame. So nothing here can be full, and a session never waits with
 * half of what it wanted to say.
 *
 * Invariants: (1) what lies between start and end is whole frames, but for the first, of which a part may be gone.
 * (2) nothing is allocated for a frame once the longest kind has been sent.
 *
 * Trust: the frames are our own.
 */
#include "agent.h"
#include "guest.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

int queue_init(struct queue *queue)
{
    *queue = (struct queue){.bytes = alloc_zero(AGENT_QUEUE_BYTES), .frame = BUFFER_INIT(AGENT_CHUNK_BYTES)};
    return queue->bytes != NULL ? 0 : -ENOMEM;
}

void queue_release(struct queue *queue)
{
    buffer_free(&queue->frame);
    free(queue->bytes);
    *queue = (struct queue){0};
}

bool queue_has_room(const struct queue *queue)
{
    return queue->end - queue->start < AGENT_QUEUE_FULL_BYTES;
}

/* Moves what is there to the front when the room behind it is too short. */
static uint8_t *make_room(struct queue *queue, size_t length)
{
    if (length > AGENT_QUEUE_BYTES - queue->end) {
        memmove(queue->bytes, queue->bytes + queue->start, queue->end - queue->start);
        queue->end -= queue->start;
        queue->start = 0;
    }
    return length <= AGENT_QUEUE_BYTES - queue->end ? queue->bytes + queue->end : NULL;
}

static void break_queue(struct queue *queue, int failure)
{
    if (!queue->is_broken)
        tell("write to", AGENT_PORT, failure);
    queue->is_broken = true;
    queue->start = queue->end = 0;
}

int queue_try(struct queue *queue, const struct agent_message *message)
{
    queue->frame.length = 0;
    int result = agent_encode(message, &queue->frame);
    if (result == -EINVAL || result == -E2BIG)
        return result;
    uint8_t *room = result == 0 ? make_room(queue, queue->frame.length) : NULL;
    if (room == NULL) {
        break_queue(queue, result < 0 ? result : -ENOBUFS);
        return 0;
    }
    memcpy(room, queue->frame.data, queue->frame.length);
    queue->end += queue->frame.length;
    return 0;
}

void queue_send(struct queue *queue, const struct agent_message *message)
{
    int result = queue_try(queue, message);
    if (result < 0) /* a session would wait for ever for what we cannot say */
        break_queue(queue, result);
}

uint8_t *queue_data_begin(struct queue *queue, size_t length)
{
    uint8_t prefix[AGENT_DATA_PREFIX_BYTES];
    uint8_t *room = make_room(queue, AGENT_DATA_PREFIX_BYTES + length);
    return room != NULL ? room + agent_data_prefix(0, 0, 0, length, prefix) : NULL;
}

void queue_data_end(struct queue *queue, uint32_t id, uint32_t stream, size_t reserved, size_t length)
{
    uint8_t prefix[AGENT_DATA_PREFIX_BYTES], *room = queue->bytes + queue->end;
    size_t bytes_at = agent_data_prefix(0, 0, 0, reserved, prefix);
    size_t prefix_bytes = agent_data_prefix(id, stream, 0, length, prefix);
    if (prefix_bytes != bytes_at)
        memmove(room + prefix_bytes, room + bytes_at, length);
    memcpy(room, prefix, prefix_bytes);
    queue->end += prefix_bytes + length;
}

void queue_flush(struct queue *queue, int port)
{
    while (!queue_is_empty(queue) && !queue->is_broken) {
        ssize_t written = write(port, queue->bytes + queue->start, queue->end - queue->start);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && errno == EAGAIN)
            return;
        if (written < 0)
            break_queue(queue, -errno);
        else
            queue->start += (size_t)written;
    }
    queue->start = queue->end = 0;
}
