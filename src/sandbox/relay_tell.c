// SPDX-License-Identifier: Apache-2.0
/* What the sandbox's process itself says through the relay, to its agent and to clients, and the sessions that clients
 * have with it.
 *
 * Invariants: (1) it goes behind the frames that stand in line for the same place. (2) a client that cannot be told is
 * cut off, so no answer is missing in a connection that goes on.
 *
 * Trust: messages are our own; texts in them may be a guest's and are checked by agent_encode.
 */
#include "sandbox/relay_private.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

static int encode(struct relay *relay, const struct agent_message *message)
{
    relay->encoded.length = 0;
    int result = agent_encode(message, &relay->encoded);
    if (relay->encoded.error < 0)
        buffer_free(&relay->encoded);
    return result;
}

int relay_tell_agent(struct relay *relay, const struct agent_message *message)
{
    int result = encode(relay, message);
    if (result < 0)
        return result;
    relay_flush_run(relay); /* what stands before it */
    const struct iovec part = {relay->encoded.data, relay->encoded.length};
    return relay_send_to_agent(relay, &part, 1);
}

int relay_tell_agent_data(struct relay *relay, uint32_t id, uint32_t flags, const char *bytes, size_t length)
{
    uint8_t prefix[AGENT_DATA_PREFIX_BYTES];
    size_t prefix_bytes = agent_data_prefix(id, AGENT_STDIN, flags, length, prefix);
    const struct iovec parts[] = {{prefix, prefix_bytes}, {(void *)(uintptr_t)bytes, length}};
    relay_flush_run(relay);
    return relay_send_to_agent(relay, parts, array_length(parts));
}

bool relay_tell(struct relay_client *client, const struct agent_message *message)
{
    struct relay *relay = client->relay;
    int result = client->is_gone ? -EPIPE : encode(relay, message);
    if (result < 0) {
        relay_cut_off(client);
        return false;
    }
    if (relay->run.client == client)
        relay_flush_run(relay);
    const struct iovec part = {relay->encoded.data, relay->encoded.length};
    return relay_send_to_client(client, &part, 1);
}

bool relay_tell_data(struct relay_client *client, uint32_t id, uint32_t stream, uint32_t flags, const char *bytes,
                     size_t length)
{
    uint8_t prefix[AGENT_DATA_PREFIX_BYTES];
    size_t prefix_bytes = agent_data_prefix(id, stream, flags, length, prefix);
    const struct iovec parts[] = {{prefix, prefix_bytes}, {(void *)(uintptr_t)bytes, length}};
    return relay_send_to_client(client, parts, array_length(parts));
}

bool relay_fail(struct relay_client *client, uint32_t id, enum agent_stage stage, int os_error, const char *message)
{
    const struct agent_message failed = {
        .id = id,
        .kind = AGENT_FAILED,
        .flags = AGENT_LAST,
        .failed = {.stage = stage,
                   .os_error = (uint32_t)(os_error < 0 ? -os_error : os_error),
                   .message = {message, strnlen(message, AGENT_MOST_MESSAGE_BYTES)}},
    };
    return relay_tell(client, &failed);
}

bool relay_keep_session(struct relay_client *client, uint32_t id, enum agent_kind kind)
{
    if (kind != 0 && client->own_id != 0)
        return false;
    client->own_id = kind != 0 ? id : 0;
    client->own_kind = kind;
    return true;
}

uint32_t relay_session(const struct relay_client *client, enum agent_kind kind)
{
    return client->own_kind == kind ? client->own_id : 0;
}

void relay_tell_all(struct relay *relay, enum agent_kind kind, struct agent_message *message)
{
    struct relay_client *next;
    for (struct relay_client *client = relay->clients; client != NULL; client = next) {
        next = client->next; /* those that are cut off meanwhile keep theirs until bury */
        message->id = relay_session(client, kind);
        if (message->id != 0)
            relay_tell(client, message);
    }
}

size_t relay_unsent_bytes(const struct relay_client *client)
{
    return client->is_gone ? 0 : channel_queued_bytes(&client->channel);
}
