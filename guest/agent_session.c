// SPDX-License-Identifier: Apache-2.0
/* Sessions, and the streams between the host and their descriptors.
 *
 *     host ══ DATA 0 ══> ring ──> input's descriptor          CREDIT goes back as the descriptor takes the bytes
 *     host <══ DATA 1, 2 ══ queue <── outputs' descriptors    only while there is credit, and room in the queue
 *
 * All descriptors wait in one epoll, level-triggered, which hands them out in turns (fs/eventpoll.c: what is ready and
 * stays ready goes to the end of the list). One is taken at a time and moves one chunk, so that a session that floods
 * gets the same share as one that says a word now and then. A descriptor that must not be read now, for want of credit,
 * is not in the epoll at all: an end would be told again and again.
 *
 * Sessions that work on files have no descriptor to wait for. They are busy, and get steps in turns.
 *
 * A session that is over is freed at the end of the loop's turn: until then events and functions further up the stack
 * may still have it in hand.
 *
 * Invariants: (1) a session's last frame is sent once, and nothing after it. (2) an input holds at most its window.
 * (3) an output that is watched has credit, or nobody to tell.
 *
 * Trust: the host's windows are held against it: who sends more than was granted loses the session.
 */
#include "agent.h"

#include "base/alloc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    scarce_window = 16 << 10,
    most_window_bytes = 32 << 20, /* of all inputs together; beyond it windows are scarce */
    streams_in_a_row = 32,
    streams_at_once = 4, /* a chunk each: AGENT_QUEUE_FULL_BYTES */
    steps_in_a_row = 8,
    end_of_file = 4, /* ^D: VEOF of every terminal that nobody has changed (termios(3)) */
    most_ends = 2,
};

/* ---- the table ---- */

struct session *session_find(struct agent *agent, uint32_t id)
{
    for (size_t i = 0; i < agent->sessions.count; i++)
        if (agent->sessions.items[i]->id == id && !agent->sessions.items[i]->is_over)
            return agent->sessions.items[i];
    return NULL;
}

struct session *session_new(struct agent *agent, uint32_t id, const struct session_ops *ops, size_t size)
{
    struct session_table *table = &agent->sessions;
    struct session *session = table->count < AGENT_MOST_SESSIONS ? alloc_zero(size) : NULL;
    if (session == NULL) {
        agent_refuse(agent, id, AGENT_STAGE_LIMIT, table->count < AGENT_MOST_SESSIONS ? -ENOMEM : -EUSERS,
                     "there are too many sessions");
        return NULL;
    }
    *session = (struct session){.agent = agent, .ops = ops, .id = id, .input.watch = {session, -1, 0}};
    for (size_t i = 0; i < SESSION_OUTPUTS; i++)
        session->outputs[i].watch = (struct watch){session, -1, 0};
    table->items[table->count++] = session;
    return session;
}

static void free_session(struct session *session)
{
    session->agent->sessions.window_bytes -= session->input.window;
    session_set_busy(session, false);
    session_close_input(session);
    for (size_t i = 0; i < SESSION_OUTPUTS; i++)
        session_close_output(session, i);
    if (session->ops->free != NULL)
        session->ops->free(session);
    free(session);
}

void session_free_over(struct agent *agent)
{
    struct session_table *table = &agent->sessions;
    for (size_t i = table->count; i > 0 && table->over_count > 0; i--) {
        struct session *session = table->items[i - 1];
        if (!session->is_over)
            continue;
        table->items[i - 1] = table->items[--table->count];
        table->over_count--;
        free_session(session);
    }
}

void session_free_all(struct agent *agent)
{
    struct session_table *table = &agent->sessions;
    while (table->count > 0)
        free_session(table->items[--table->count]);
    table->over_count = 0;
}

/* ---- what is waited for ---- */

static int watch_for(struct watch *watch, uint32_t events)
{
    if (watch->fd < 0 || watch->events == events)
        return 0;
    struct epoll_event event = {.events = events, .data.ptr = watch};
    int operation = events == 0 ? EPOLL_CTL_DEL : watch->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    if (epoll_ctl(watch->session->agent->sessions.epoll, operation, watch->fd, &event) < 0)
        return -errno;
    watch->events = events;
    return 0;
}

static void close_watch(struct watch *watch)
{
    watch_for(watch, 0);
    if (watch->fd >= 0)
        close(watch->fd);
    watch->fd = -1;
}

/* No memory for it, or too many watches: then the stream cannot go on. */
static void watch_or_fail(struct watch *watch, uint32_t events)
{
    int result = watch_for(watch, events);
    if (result == 0)
        return;
    struct session *session = watch->session;
    close_watch(watch);
    session_fail(session, AGENT_STAGE_STREAMS, result, "a stream cannot be waited for");
}

int session_add_input(struct session *session, int fd)
{
    session->input.watch.fd = fd;
    return 0; /* it is waited for when it is full */
}

int session_add_output(struct session *session, size_t index, int fd, uint32_t credit)
{
    struct output *output = &session->outputs[index];
    output->watch.fd = fd;
    output->credit = credit;
    return credit > 0 ? watch_for(&output->watch, EPOLLIN) : 0;
}

void session_close_input(struct session *session)
{
    struct input *input = &session->input;
    close_watch(&input->watch);
    free(input->bytes);
    input->bytes = NULL;
    input->length = 0;
}

void session_close_output(struct session *session, size_t index)
{
    close_watch(&session->outputs[index].watch);
}

void session_await_connection(struct session *session)
{
    session->input.is_connecting = true;
    watch_or_fail(&session->input.watch, EPOLLOUT);
}

void session_set_busy(struct session *session, bool is_busy)
{
    if (session->is_busy == is_busy)
        return;
    session->is_busy = is_busy;
    session->agent->sessions.busy_count += is_busy ? 1 : (size_t)-1;
}

/* ---- what is said ---- */

static void send(struct session *session, const struct agent_message *message)
{
    struct agent_message whole = *message;
    whole.id = session->id;
    if (session->id != 0 && !session->is_over)
        queue_send(&session->agent->queue, &whole);
}

/* With the last frame. The descriptors go now, memory later. */
static void send_last(struct session *session, struct agent_message *message)
{
    if (session->is_over)
        return;
    message->flags = AGENT_LAST;
    send(session, message);
    session->is_over = true;
    session->agent->sessions.over_count++;
    session_set_busy(session, false);
    session_close_input(session);
    for (size_t i = 0; i < SESSION_OUTPUTS; i++)
        session_close_output(session, i);
}

void session_started(struct session *session, uint32_t pid)
{
    send(session,
         &(struct agent_message){.kind = AGENT_STARTED, .started.pid = pid, .started.window = session->input.window});
}

void session_send_end(struct session *session, uint32_t stream)
{
    send(session, &(struct agent_message){.kind = AGENT_DATA, .flags = AGENT_END, .data.stream = stream});
}

void session_fail(struct session *session, enum agent_stage stage, int failure, const char *what)
{
    struct agent_message message = {.kind = AGENT_FAILED,
                                    .failed = {.stage = stage, .os_error = (uint32_t)-failure, .message.bytes = what}};
    message.failed.message.length = strnlen(what, AGENT_MOST_MESSAGE_BYTES);
    send_last(session, &message);
}

void session_done(struct session *session)
{
    send_last(session, &(struct agent_message){.kind = AGENT_DONE});
}

void session_ended(struct session *session, int status)
{
    struct agent_message message = {.kind = AGENT_ENDED};
    if (WIFSIGNALED(status))
        message.ended.signal = (uint32_t)WTERMSIG(status);
    else
        message.ended.code = (uint32_t)WEXITSTATUS(status);
    send_last(session, &message);
}

/* ---- stream 0 ---- */

uint32_t session_grant(struct session *session, uint32_t window)
{
    struct session_table *table = &session->agent->sessions;
    if (window > AGENT_DEFAULT_WINDOW)
        window = AGENT_DEFAULT_WINDOW;
    if (window > scarce_window && table->window_bytes + window > most_window_bytes)
        window = scarce_window;
    table->window_bytes += window;
    session->input.window = session->input.granted = window;
    return window;
}

void session_consume(struct session *session, size_t length)
{
    struct input *input = &session->input;
    input->consumed += (uint32_t)length;
    if (input->has_ended || input->consumed < (input->window + 3) / 4)
        return;
    send(session, &(struct agent_message){.kind = AGENT_CREDIT, .credit = {AGENT_STDIN, input->consumed}});
    input->granted += input->consumed;
    input->consumed = 0;
}

/* How many of the bytes have gone, or are for nobody because the reader is. */
static size_t write_some(struct input *input, const uint8_t *bytes, size_t length)
{
    ssize_t written = write(input->watch.fd, bytes, length);
    if (written < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (written < 0)
        close_watch(&input->watch);
    return written < 0 ? length : (size_t)written;
}

static uint32_t ring_bytes(const struct input *input)
{
    return input->window + most_ends;
}

static bool keep(struct input *input, const uint8_t *bytes, size_t length)
{
    uint32_t size = ring_bytes(input);
    if (length > 0 && input->bytes == NULL)
        input->bytes = alloc_zero(size);
    if (length > 0 && input->bytes == NULL)
        return false;
    for (size_t done = 0; done < length;) {
        uint32_t at = (input->first + input->length) % size;
        size_t part = length - done < size - at ? length - done : size - at;
        memcpy(input->bytes + at, bytes + done, part);
        input->length += (uint32_t)part;
        done += part;
    }
    return true;
}

static void finish_input(struct session *session)
{
    if (session->ops->input_done != NULL)
        session->ops->input_done(session);
    if (!session->is_over)
        session_close_input(session);
}

/* Writes what waits, and then waits for the descriptor or for the host. */
static void pump_input(struct session *session)
{
    struct input *input = &session->input;
    while (input->length > 0 && input->watch.fd >= 0) {
        uint32_t size = ring_bytes(input);
        uint32_t part = input->length < size - input->first ? input->length : size - input->first;
        size_t gone = write_some(input, input->bytes + input->first, part);
        if (gone == 0)
            break;
        input->first = (input->first + (uint32_t)gone) % size;
        input->length -= (uint32_t)gone;
        session_consume(session, gone);
    }
    if (input->watch.fd < 0 && input->length > 0) { /* nobody reads any more */
        session_consume(session, input->length);
        input->length = 0;
    }
    if (input->length > 0)
        watch_or_fail(&input->watch, EPOLLOUT);
    else if (input->has_ended)
        finish_input(session);
    else
        watch_for(&input->watch, 0);
}

static void write_input(struct session *session, const uint8_t *bytes, size_t length)
{
    struct input *input = &session->input;
    size_t gone = 0;
    if (length > 0)
        input->last = bytes[length - 1];
    if (input->watch.fd < 0 && !input->is_connecting)
        gone = length;
    else if (length > 0 && input->length == 0 && !input->is_connecting)
        gone = write_some(input, bytes, length);
    if (gone > 0)
        session_consume(session, gone);
    if (!keep(input, bytes + gone, length - gone)) {
        session_fail(session, AGENT_STAGE_STREAMS, -ENOMEM, "there is no memory for the input");
        return;
    }
    if (!input->is_connecting)
        pump_input(session);
}

/* The last frame comes now, and what it has still got to do is done for nobody. */
static void refuse_data(struct session *session, const char *what)
{
    agent_refuse(session->agent, session->id, AGENT_STAGE_PROTOCOL, -EPROTO, what);
    session->id = 0;
    session_cancel(session);
}

/* A terminal's reader takes the first as the end of its line, where it is within one. */
static void end_terminal(struct session *session)
{
    static const uint8_t ends[most_ends] = {end_of_file, end_of_file};
    bool is_within = session->input.last != '\0' && session->input.last != '\n';
    session->input.has_ended = true;
    write_input(session, ends, is_within ? 2 : 1);
}

void session_take_data(struct session *session, const struct agent_message *message)
{
    struct input *input = &session->input;
    const struct agent_span *bytes = &message->data.bytes;
    bool is_end = (message->flags & AGENT_END) != 0;
    if (message->data.stream != AGENT_STDIN || input->has_ended || bytes->length > input->granted) {
        refuse_data(session, "more was sent than was granted");
        return;
    }
    input->granted -= (uint32_t)bytes->length;
    input->has_ended = is_end && !input->is_terminal;
    if (session->ops->take != NULL && bytes->length > 0)
        session->ops->take(session, (const uint8_t *)bytes->bytes, bytes->length);
    else if (session->ops->take == NULL)
        write_input(session, (const uint8_t *)bytes->bytes, bytes->length);
    if (is_end && input->is_terminal && !session->is_over)
        end_terminal(session);
    else if (is_end && session->ops->take != NULL && !session->is_over)
        finish_input(session);
}

/* ---- streams 1 and 2 ---- */

bool session_outputs_are_closed(const struct session *session)
{
    return session->outputs[0].watch.fd < 0 && session->outputs[1].watch.fd < 0;
}

bool session_outputs_are_done(const struct session *session)
{
    for (size_t i = 0; i < SESSION_OUTPUTS; i++) {
        const struct output *output = &session->outputs[i];
        if (output->watch.fd >= 0 && (!output->is_counted || output->due > 0))
            return false;
    }
    return true;
}

void session_count_output(struct session *session, size_t index)
{
    struct output *output = &session->outputs[index];
    int available = 0;
    if (output->watch.fd >= 0 && ioctl(output->watch.fd, FIONREAD, &available) < 0)
        available = 0;
    output->due = (uint32_t)available;
    output->is_counted = true;
}

void session_take_credit(struct session *session, uint32_t stream, uint32_t bytes)
{
    if (stream == AGENT_STDIN) {
        refuse_data(session, "the host cannot be given credit by itself");
        return;
    }
    struct output *output = &session->outputs[stream - 1];
    if (bytes > AGENT_MOST_WINDOW - output->credit) {
        refuse_data(session, "more credit was given than a window holds");
        return;
    }
    output->credit += bytes;
    if (session->ops->step != NULL)
        session_set_busy(session, true);
    watch_or_fail(&output->watch, EPOLLIN);
}

static void note_output(struct session *session, struct output *output, size_t length)
{
    output->due -= length < output->due ? (uint32_t)length : output->due;
    if (session->ops->output_done != NULL && output->is_counted && output->due == 0)
        session->ops->output_done(session);
}

/* A terminal whose other side has been closed says EIO (drivers/tty/n_tty.c). */
static void finish_output(struct session *session, size_t index)
{
    session_close_output(session, index);
    session_send_end(session, (uint32_t)index + 1);
    if (session->ops->output_done != NULL)
        session->ops->output_done(session);
}

static void pump_output(struct session *session, size_t index)
{
    struct output *output = &session->outputs[index];
    struct queue *queue = &session->agent->queue;
    bool is_told = session->id != 0;
    size_t most = is_told && output->credit < AGENT_CHUNK_BYTES ? output->credit : AGENT_CHUNK_BYTES;
    uint8_t *room = is_told ? queue_data_begin(queue, most) : session->agent->scratch;
    ssize_t length = read(output->watch.fd, room, most);
    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (length <= 0) {
        finish_output(session, index);
        return;
    }
    if (is_told) {
        queue_data_end(queue, session->id, (uint32_t)index + 1, most, (size_t)length);
        output->credit -= (uint32_t)length;
        if (output->credit == 0)
            watch_for(&output->watch, 0);
    }
    note_output(session, output, (size_t)length);
}

uint8_t *session_room(struct session *session, size_t *length)
{
    uint32_t credit = session->outputs[0].credit;
    *length = credit < AGENT_CHUNK_BYTES ? credit : AGENT_CHUNK_BYTES;
    if (*length == 0)
        session_set_busy(session, false); /* until there is some (session_take_credit) */
    return *length > 0 ? queue_data_begin(&session->agent->queue, *length) : NULL;
}

void session_send(struct session *session, size_t reserved, size_t length)
{
    queue_data_end(&session->agent->queue, session->id, AGENT_STDOUT, reserved, length);
    session->outputs[0].credit -= (uint32_t)length;
}

/* ---- ends ---- */

void session_cancel(struct session *session)
{
    if (session->ops->cancel != NULL)
        session->ops->cancel(session);
    else
        session_fail(session, AGENT_STAGE_STATE, -ECANCELED, "it was cancelled");
}

/* It goes on for nobody: its input ends, and what it says is taken and forgotten. */
static void orphan(struct session *session)
{
    session->id = 0;
    session_close_input(session);
    for (size_t i = 0; i < SESSION_OUTPUTS && !session->is_over; i++)
        watch_or_fail(&session->outputs[i].watch, EPOLLIN);
}

void session_forget_client(struct agent *agent, uint32_t client)
{
    for (size_t i = 0; i < agent->sessions.count; i++) {
        struct session *session = agent->sessions.items[i];
        if (session->id == 0 || session->id >> 16 != client || session->is_over)
            continue;
        /* Its last frame comes now, whenever it will end: the relay waits for it to give the client's number away. */
        agent_refuse(agent, session->id, AGENT_STAGE_STATE, -ECANCELED, "");
        if (session->is_detached) {
            orphan(session);
            continue;
        }
        session->id = 0;
        session_cancel(session);
    }
}

/* ---- turns ---- */

/* Nothing but a hang-up says what a read would say: nothing is left to be read. */
static void handle_output(struct session *session, size_t index, uint32_t events)
{
    if (events == EPOLLHUP)
        finish_output(session, index);
    else
        pump_output(session, index);
}

static void handle_watch(struct watch *watch, uint32_t events)
{
    struct session *session = watch->session;
    if (watch->fd < 0 || watch->events == 0 || session->is_over)
        return;
    if (watch == &session->outputs[0].watch)
        handle_output(session, 0, events);
    else if (watch == &session->outputs[1].watch)
        handle_output(session, 1, events);
    else if (!session->input.is_connecting)
        pump_input(session);
    else if (session->ops->connected != NULL)
        session->ops->connected(session);
}

/* All that are told of at once get their turn, for which the queue has room: were some left out, it could be the same
 * ones each time. What a session frees meanwhile are its descriptors; the session itself stays until the turn's end. */
void session_run_streams(struct agent *agent)
{
    struct epoll_event events[streams_at_once];
    int count = streams_at_once;
    for (int done = 0; done < streams_in_a_row && count == streams_at_once && queue_has_room(&agent->queue);) {
        count = epoll_wait(agent->sessions.epoll, events, streams_at_once, 0);
        for (int i = 0; i < count; i++)
            handle_watch(events[i].data.ptr, events[i].events);
        done += count;
    }
}

void session_run_busy(struct agent *agent)
{
    struct session_table *table = &agent->sessions;
    int steps = 0;
    for (size_t looked = 0; looked < table->count && table->busy_count > 0; looked++) {
        if (steps == steps_in_a_row || !queue_has_room(&agent->queue))
            return;
        struct session *session = table->items[table->turn++ % table->count];
        if (!session->is_busy || session->is_over)
            continue;
        session->ops->step(session);
        steps++;
    }
}
