// SPDX-License-Identifier: Apache-2.0
/* A program of a sandbox, as its streams and its end come to one handle.
 *
 * One thread at a time reads the connection (`is_reading`), without the lock; others who need what it brings wait for
 * the condition. Most often that is who wants the next event. But a write may have to wait for the guest's window, and
 * that is granted by a frame that stands behind output which nobody has asked for yet. So a write that waits becomes
 * the reader where there is none, and keeps the frames that are not for it, as they came, until they are asked for:
 *
 *     socket ──> reader ──> CREDIT, STARTED: the flow, and who waits is woken
 *                   └─────> all others: next's own result, or `kept` when a write reads
 *
 * A write that does not wait leaves such frames in the socket, where poll(2) sees them. It never reads past one.
 *
 * The bytes of an event live until the next call for the next event. So the body that they are in is taken away from
 * the connection, and one that was told before is given back for it.
 *
 * Invariants: (1) events are told in the order of their frames; the end, or what is final, is last, and is told again
 * to whoever asks again. (2) a handle on which no write waits holds nothing that poll(2) does not see. (3) `kept` is
 * bounded, by the windows and by its limit: where it is full, writes wait for events to be taken. (4) bytes are granted
 * again when the event after them is asked for, so who does not ask stops the program, not us.
 *
 * Trust: as in client.c.
 */
#include "sandbox/client_process.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"
#include "vmm/vm.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

enum {
    kept_most_bytes = 4 << 20, /* two windows in frames that are not absurdly small */
    kept_low_bytes = kept_most_bytes - (128 << 10),
};

struct vial_process {
    char action[256]; /* for errors */
    struct client client;
    pthread_mutex_t lock; /* guards what follows, and client.flow */
    pthread_cond_t changed;
    bool is_reading;
    struct buffer kept; /* frames that were read and not yet told, from kept_at on */
    size_t kept_at;
    uint8_t *bytes; /* owned: the body that the last event points into, or NULL */
    size_t bytes_capacity;
    uint32_t told_stream; /* of the last event: its bytes are granted again with the next call */
    size_t told_length;
    uint32_t closing; /* a stream whose end is still to be told, or 0 */
    bool has_input, is_input_closed;
    bool has_ended;
    int32_t code, signal;
    int failure; /* negative: final, when `kept` is empty */
    struct vial_error failure_error;
};

/* ---- life ---- */

int process_new(const char *action, struct vial_process **ret_process)
{
    struct vial_process *process = alloc_zero(sizeof(*process));
    pthread_condattr_t attributes;
    if (process == NULL)
        return -ENOMEM;
    *process = (struct vial_process){.client = CLIENT_INIT, .kept = BUFFER_INIT(kept_most_bytes)};
    snprintf(process->action, sizeof(process->action), "%s", action);
    pthread_mutex_init(&process->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&process->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    *ret_process = process;
    return 0;
}

struct client *process_client(struct vial_process *process)
{
    return &process->client;
}

void process_set_input(struct vial_process *process, bool has_input)
{
    process->has_input = has_input;
}

struct vial_process *vial_process_free(struct vial_process *process)
{
    THREAD_DEFER_CANCEL();
    if (process == NULL)
        return NULL;
    client_close(&process->client);
    buffer_free(&process->kept);
    free(process->bytes);
    pthread_cond_destroy(&process->changed);
    pthread_mutex_destroy(&process->lock);
    free(process);
    return NULL;
}

int vial_process_fd(const struct vial_process *process)
{
    return process->client.fd;
}

/* ---- reading frames ---- */

static void note_failure(struct vial_process *process, int result, const struct vial_error *why)
{
    process->failure = result;
    process->failure_error = *why;
}

/* Reads one frame and notes what it does to the flow; the lock is held, and let go meanwhile. 0, -ETIMEDOUT, or a final
 * error, which is noted. */
static int read_frame(struct vial_process *process, uint64_t deadline_ns, struct agent_message *ret_message)
{
    struct vial_error why;
    struct agent_message message;
    process->is_reading = true;
    pthread_mutex_unlock(&process->lock);
    int result = client_receive(&process->client, deadline_ns, &message, &why);
    pthread_mutex_lock(&process->lock);
    process->is_reading = false;
    pthread_cond_broadcast(&process->changed);
    if (result == 0)
        result = client_account(&process->client, &message, &why);
    if (result < 0 && result != -ETIMEDOUT)
        note_failure(process, result, &why);
    if (result == 0)
        *ret_message = message;
    return result;
}

/* Until something has changed, or the deadline. */
static int wait_for_change(struct vial_process *process, uint64_t deadline_ns)
{
    if (deadline_ns == CLOCK_NEVER)
        return -pthread_cond_wait(&process->changed, &process->lock);
    struct timespec deadline = clock_to_timespec(deadline_ns);
    return -pthread_cond_timedwait(&process->changed, &process->lock, &deadline);
}

/* ---- events ---- */

/* The body that the message points into becomes the event's, and the one before is the connection's. */
static void swap_body(struct vial_process *process)
{
    struct client *client = &process->client;
    uint8_t *body = client->body;
    size_t capacity = client->capacity;
    client->body = process->bytes;
    client->capacity = process->bytes_capacity;
    process->bytes = body;
    process->bytes_capacity = capacity;
}

static void tell_data(struct vial_process *process, const struct agent_message *message,
                      struct vial_process_event *event)
{
    bool is_end = (message->flags & AGENT_END) != 0;
    event->stream = (int32_t)message->data.stream;
    if (message->data.bytes.length == 0) {
        event->kind = VIAL_EVENT_CLOSED;
        return;
    }
    event->kind = VIAL_EVENT_OUTPUT;
    event->bytes = message->data.bytes.bytes;
    event->length = message->data.bytes.length;
    process->told_stream = message->data.stream;
    process->told_length = message->data.bytes.length;
    process->closing = is_end ? message->data.stream : 0;
}

/* What a frame means: 1 when it is an event, 0 when it is none, or a final error. */
static int tell(struct vial_process *process, const struct agent_message *message, struct vial_process_event *event)
{
    struct vial_error why;
    if (message->kind == AGENT_DATA) {
        tell_data(process, message, event);
        return 1;
    }
    if (message->kind == AGENT_ENDED) {
        process->has_ended = true;
        process->signal = (int32_t)message->ended.signal;
        process->code = process->signal != 0 ? 128 + process->signal : (int32_t)message->ended.code;
    } else if (message->kind == AGENT_DONE) { /* a connection has no status */
        process->has_ended = true;
    } else if (message->kind == AGENT_FAILED) {
        note_failure(process, client_failed(&process->client, process->action, message, &why), &why);
    }
    return 0; /* others are the flow's, or nobody's */
}

/* The first frame of those that a write has read. They were decoded then, so they can be again. */
static int tell_kept(struct vial_process *process, struct vial_process_event *event)
{
    struct agent_header head;
    struct agent_message message;
    const uint8_t *frame = (const uint8_t *)process->kept.data + process->kept_at;
    if (agent_decode_header(frame, &head) < 0)
        return -EPROTO;
    uint8_t *body = alloc_zero(head.body_bytes + 1);
    if (body == NULL)
        return -ENOMEM;
    memcpy(body, frame + AGENT_HEADER_BYTES, head.body_bytes);
    free(process->bytes);
    process->bytes = body;
    process->bytes_capacity = head.body_bytes;
    process->kept_at += AGENT_HEADER_BYTES + head.body_bytes;
    if (process->kept_at == process->kept.length) {
        process->kept_at = process->kept.length = 0;
        pthread_cond_broadcast(&process->changed); /* a write may wait for room */
    }
    return agent_decode(&head, body, &message) < 0 ? -EPROTO : tell(process, &message, event);
}

static int tell_end(struct vial_process *process, struct vial_process_event *event, struct vial_error *err)
{
    if (process->has_ended) {
        event->kind = VIAL_EVENT_ENDED;
        event->code = process->code;
        event->signal = process->signal;
        return 1;
    }
    if (err != NULL)
        *err = process->failure_error;
    return process->failure;
}

/* Waits for the next frame and tells of it. */
static int tell_next(struct vial_process *process, struct vial_process_event *event, uint64_t deadline_ns)
{
    struct agent_message message;
    if (process->is_reading)
        return wait_for_change(process, deadline_ns);
    int result = read_frame(process, deadline_ns, &message);
    if (result < 0)
        return result == -ETIMEDOUT ? result : 0; /* it was noted */
    result = tell(process, &message, event);
    if (result == 1)
        swap_body(process);
    return result;
}

static int fail_timeout(const struct vial_process *process, struct vial_error *err)
{
    error_set(err, VIAL_ERROR_OS, VIAL_PHASE_RUN, "sandbox \"%s\": nothing has come in time", process->client.name);
    return client_errno(err, ETIMEDOUT);
}

/* The bytes of the event before are consumed now. */
static void settle(struct vial_process *process)
{
    struct vial_error why;
    size_t length = process->told_length;
    process->told_length = 0;
    int result = client_consume(&process->client, process->told_stream, length, &why);
    if (result < 0)
        note_failure(process, result, &why);
}

static int next_event(struct vial_process *process, struct vial_process_event *event, uint64_t deadline_ns,
                      struct vial_error *err)
{
    settle(process);
    for (;;) {
        int result = 0;
        if (process->closing != 0) {
            event->kind = VIAL_EVENT_CLOSED;
            event->stream = (int32_t)process->closing;
            process->closing = 0;
            if (!process->is_reading)
                client_finish(&process->client);
            return 0;
        }
        if (process->kept_at < process->kept.length)
            result = tell_kept(process, event);
        else if (process->has_ended || process->failure < 0)
            result = tell_end(process, event, err);
        else
            result = tell_next(process, event, deadline_ns);
        if (result == -ETIMEDOUT)
            return fail_timeout(process, err);
        if (result == -ENOMEM)
            return error_no_memory(err, VIAL_PHASE_RUN);
        if (result != 0)
            return result == 1 ? 0 : result;
    }
}

int vial_process_next(struct vial_process *process, struct vial_process_event *ret_event, uint64_t timeout_ms,
                      struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct vial_process_event event = VIAL_PROCESS_EVENT_INIT;
    int result = vm_check_result(ret_event, "VIAL_PROCESS_EVENT_INIT", err);
    if (result < 0)
        return result;
    pthread_mutex_lock(&process->lock);
    result = next_event(process, &event, client_deadline_ns(timeout_ms), err);
    pthread_mutex_unlock(&process->lock);
    if (result == 0)
        vm_give_result(ret_event, &event, sizeof(event));
    return result;
}

int vial_process_wait(struct vial_process *process, uint64_t timeout_ms, int *ret_code, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct vial_process_event event = VIAL_PROCESS_EVENT_INIT;
    uint64_t deadline_ns = client_deadline_ns(timeout_ms);
    int result = 0;
    pthread_mutex_lock(&process->lock);
    while (result == 0 && event.kind != VIAL_EVENT_ENDED)
        result = next_event(process, &event, deadline_ns, err);
    pthread_mutex_unlock(&process->lock);
    if (result == 0 && ret_code != NULL)
        *ret_code = event.code;
    return result;
}

int process_wait_started(struct vial_process *process, uint64_t deadline_ns, struct vial_error *err)
{
    struct vial_process_event event = VIAL_PROCESS_EVENT_INIT;
    int result = 0;
    pthread_mutex_lock(&process->lock);
    while (result == 0 && !process->client.flow.is_started && process->failure == 0 && !process->has_ended)
        result = tell_next(process, &event, deadline_ns); /* nothing but STARTED and FAILED comes before it */
    if (result == 0 && process->failure < 0)
        result = tell_end(process, &event, err);
    else if (result == 1)
        result = error_set_os(err, VIAL_PHASE_RUN, EPROTO, "sandbox \"%s\": data has come too early",
                              process->client.name);
    else if (result < 0)
        fail_timeout(process, err);
    pthread_mutex_unlock(&process->lock);
    return result;
}

/* ---- input ---- */

static bool is_for_flow(enum agent_kind kind)
{
    return kind == AGENT_STARTED || kind == AGENT_CREDIT || kind == AGENT_READY || kind == AGENT_HEARTBEAT;
}

/* A frame that a write has read and that is not for it. */
static void keep_frame(struct vial_process *process)
{
    struct client *client = &process->client;
    struct vial_error why;
    client_finish(client);
    buffer_add(&process->kept, client->head_bytes, sizeof(client->head_bytes));
    buffer_add(&process->kept, client->body, client->head.body_bytes);
    if (process->kept.error < 0)
        note_failure(process, process->kept.error, (error_no_memory(&why, VIAL_PHASE_RUN), &why));
}

/* Reads a frame in the hope for credit. */
static int read_for_write(struct vial_process *process, uint64_t deadline_ns, bool waits)
{
    enum agent_kind kind;
    struct agent_message message;
    if (process->is_reading || process->kept.length > kept_low_bytes)
        return waits ? wait_for_change(process, deadline_ns) : -ETIMEDOUT;
    if (!waits && (process->closing != 0 || client_peek(&process->client, &kind) < 0 || !is_for_flow(kind)))
        return -ETIMEDOUT;
    int result = read_frame(process, deadline_ns, &message);
    if (result == 0 && !is_for_flow(message.kind))
        keep_frame(process);
    return result == -ETIMEDOUT ? result : 0; /* others were noted */
}

static int refuse_write(const struct vial_process *process, struct vial_error *err)
{
    error_set(err, VIAL_ERROR_OS, VIAL_PHASE_RUN, "sandbox \"%s\": the program reads no input", process->client.name);
    return client_errno(err, EPIPE);
}

static bool takes_input(const struct vial_process *process)
{
    return process->has_input && !process->is_input_closed && !process->client.flow.is_over && !process->has_ended &&
           process->failure == 0;
}

/* How much may be sent now; it is taken off the window. */
static int take_window(struct vial_process *process, size_t *length, uint64_t deadline_ns, bool waits,
                       struct vial_error *err)
{
    struct client_flow *flow = &process->client.flow;
    while (takes_input(process) && flow->send == 0) {
        if (read_for_write(process, deadline_ns, waits) == -ETIMEDOUT) {
            error_set(err, VIAL_ERROR_OS, VIAL_PHASE_RUN, "sandbox \"%s\": the program does not read its input",
                      process->client.name);
            return client_errno(err, ETIMEDOUT);
        }
    }
    if (!takes_input(process))
        return refuse_write(process, err);
    *length = *length < AGENT_MOST_DATA_BYTES ? *length : AGENT_MOST_DATA_BYTES;
    *length = *length < flow->send ? *length : flow->send;
    flow->send -= (uint32_t)*length;
    return 0;
}

long vial_process_write(struct vial_process *process, const void *bytes, size_t length, uint64_t timeout_ms,
                        struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    uint64_t deadline_ns = client_deadline_ns(timeout_ms);
    size_t taken = length;
    if (length == 0)
        return 0;
    pthread_mutex_lock(&process->lock);
    int result = take_window(process, &taken, deadline_ns, timeout_ms != 0, err);
    pthread_mutex_unlock(&process->lock);
    if (result < 0)
        return result;
    result = client_send_data(&process->client, bytes, taken, false, deadline_ns, err);
    if (result < 0) {
        pthread_mutex_lock(&process->lock);
        process->client.flow.send += (uint32_t)taken; /* it was not used */
        pthread_mutex_unlock(&process->lock);
    }
    return result < 0 ? result : (long)taken;
}

int vial_process_poll_events(struct vial_process *process, bool wants_to_write)
{
    THREAD_DEFER_CANCEL();
    pthread_mutex_lock(&process->lock);
    bool has_window = process->client.flow.send > 0 || !takes_input(process);
    pthread_mutex_unlock(&process->lock);
    return wants_to_write && has_window ? POLLIN | POLLOUT : POLLIN;
}

/* ---- frames that say something once ---- */

static int send_word(struct vial_process *process, struct agent_message *message, struct vial_error *err)
{
    return client_send(&process->client, message, client_deadline_ns(CLIENT_FRAME_MOST_MS), err);
}

int vial_process_close_input(struct vial_process *process, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct agent_message end = {.kind = AGENT_DATA, .flags = AGENT_END, .data = {.stream = AGENT_STDIN}};
    pthread_mutex_lock(&process->lock);
    bool is_news = takes_input(process);
    process->is_input_closed = true;
    pthread_mutex_unlock(&process->lock);
    int result = is_news ? send_word(process, &end, err) : 0;
    return result == -EPIPE ? 0 : result; /* nobody would have read it */
}

int vial_process_signal(struct vial_process *process, int number, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct agent_message message = {.kind = AGENT_SIGNAL, .signal = {.number = (uint32_t)number}};
    return send_word(process, &message, err);
}

int vial_process_resize(struct vial_process *process, uint16_t rows, uint16_t columns, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct agent_message message = {.kind = AGENT_RESIZE, .resize = {.rows = rows, .columns = columns}};
    return send_word(process, &message, err);
}
