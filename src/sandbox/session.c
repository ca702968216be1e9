// SPDX-License-Identifier: Apache-2.0
/* The main program of a sandbox, and the clients that are attached to its streams.
 *
 * The sandbox's process runs it itself, in a session of client 0, so that it outlives whoever started it, and its
 * output is in the log whoever reads it. A client attaches with ATTACH and gets what the program says from then on:
 *
 *     agent ──DATA──> log ──> each attached client: its window has room? sent : behind, in `backlog`
 *
 *     PRIMARY     the program waits for it: the agent is granted no more than the window less what it is behind
 *     others      are cut off when they are LIMIT_SESSION_BEHIND_BYTES behind
 *
 * One client at a time has the program's input. What the agent has granted for it is handed on whole: to the one that
 * attaches in its STARTED, and later as CREDIT. When a primary client with the input goes without ending it, the input
 * ends, for nobody would feed it any more; not so with a terminal, to which somebody may come back.
 *
 *     WAITING ──session_begin──> ASKED ──STARTED──> RUNNING ──ENDED──> OVER
 *                                  └─────FAILED──────────────────────> FAILED
 *
 * STARTED, ENDED and FAILED reach every attached client, those that attach before the program has started, too; ENDED
 * comes behind everything that the program has said. CANCEL detaches a client, and is answered by DONE.
 *
 * Invariants: (1) a client is sent no more of a stream than it has granted. (2) `granted - received` is what the agent
 * may still send; more of it is a fault. (3) a client is in `attached` as long as its session of kind ATTACH is open,
 * and after ENDED until it goes: what it has been told may not be on its way yet. (4) functions of the relay may take
 * any client away, so its place in `attached` stays until nobody walks there.
 *
 * Trust: the agent is hostile, and messages of it are decoded; so are those of clients. Both are checked against the
 * state here.
 */
#include "sandbox/session.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/log.h"
#include "sandbox/session_exec.h"

#include <errno.h>
#include <string.h>

enum { window_bytes = AGENT_DEFAULT_WINDOW, record_bytes = 8 };

enum session_state { SESSION_NONE, SESSION_WAITING, SESSION_ASKED, SESSION_RUNNING, SESSION_OVER, SESSION_FAILED };

struct attached {
    struct relay_client *client; /* borrowed */
    uint32_t id;
    bool is_primary, has_input;
    bool is_over;                   /* ENDED was said, and may not have been taken yet */
    uint64_t credit[AGENT_STREAMS]; /* that the client takes; of stream 0 nothing */
    struct buffer backlog;          /* records: stream, length, bytes; from backlog_sent on */
    size_t backlog_sent;
    uint64_t behind[AGENT_STREAMS]; /* bytes in it */
    struct attached *next;
};

struct stream {
    uint64_t granted, received;
    bool has_ended;
};

struct session {
    struct relay *relay;                /* borrowed */
    const struct spec_program *program; /* borrowed */
    const struct session_ops *ops;
    void *user;
    enum session_state state;
    struct stream streams[AGENT_STREAMS]; /* 1 and 2 */
    uint64_t input_credit;                /* that the agent takes */
    bool is_input_over;
    uint16_t rows, columns;
    uint32_t code, signal;           /* OVER */
    uint32_t failed_stage, os_error; /* FAILED */
    char failed_text[AGENT_MOST_MESSAGE_BYTES];
    struct attached *attached; /* owned */
};

/* ---- attached clients ---- */

static struct attached *find(const struct session *session, const struct relay_client *client)
{
    struct attached *attached = session->attached;
    while (attached != NULL && attached->client != client)
        attached = attached->next;
    return attached;
}

/* It is no more: nothing is sent to it, and nobody waits for it. Its place is taken away by sweep. */
static void let_go(struct attached *attached)
{
    if (attached->client != NULL)
        relay_keep_session(attached->client, 0, 0);
    buffer_free(&attached->backlog);
    *attached = (struct attached){.next = attached->next};
}

/* Only where nobody walks over them. */
static void sweep(struct session *session)
{
    for (struct attached **link = &session->attached; *link != NULL;) {
        struct attached *attached = *link;
        if (attached->client != NULL) {
            link = &attached->next;
            continue;
        }
        *link = attached->next;
        free(attached);
    }
}

static size_t backlog_bytes(const struct attached *attached)
{
    return attached->backlog.length - attached->backlog_sent;
}

static void tell_started(struct session *session, struct attached *attached)
{
    const struct agent_message started = {
        .id = attached->id,
        .kind = AGENT_STARTED,
        .started.window = attached->has_input ? (uint32_t)session->input_credit : 0,
    };
    if (attached->client != NULL)
        relay_tell(attached->client, &started);
}

/* ---- output ---- */

/* What the agent may still send of a stream follows the slowest of those that the program waits for. */
static void grant(struct session *session, uint32_t stream)
{
    struct stream *state = &session->streams[stream];
    uint64_t behind = 0, may_come = state->granted - state->received;
    if (session->state != SESSION_RUNNING || state->has_ended)
        return;
    for (const struct attached *attached = session->attached; attached != NULL; attached = attached->next)
        if (attached->is_primary && attached->behind[stream] > behind)
            behind = attached->behind[stream];
    if (behind + may_come + window_bytes / 2 > window_bytes) /* little steps would be many */
        return;
    const struct agent_message credit = {
        .id = SESSION_MAIN_ID,
        .kind = AGENT_CREDIT,
        .credit = {.stream = stream, .bytes = (uint32_t)(window_bytes - behind - may_come)},
    };
    state->granted += credit.credit.bytes;
    relay_tell_agent(session->relay, &credit);
}

static void grant_all(struct session *session)
{
    grant(session, AGENT_STDOUT);
    grant(session, AGENT_STDERR);
}

/* Sends of these bytes what the client takes: how many, or -EPIPE when it is gone. */
static ssize_t send_some(struct attached *attached, uint32_t stream, const char *bytes, size_t length)
{
    size_t sent = 0;
    while (sent < length && attached->credit[stream] > 0) {
        size_t piece = length - sent < AGENT_MOST_DATA_BYTES ? length - sent : AGENT_MOST_DATA_BYTES;
        if (piece > attached->credit[stream])
            piece = (size_t)attached->credit[stream];
        attached->credit[stream] -= piece;
        if (!relay_tell_data(attached->client, attached->id, stream, 0, bytes + sent, piece))
            return -EPIPE;
        sent += piece;
    }
    return (ssize_t)sent;
}

/* The first record of the backlog, as far as the client takes it. False: nothing more can be sent now. */
static bool send_record(struct attached *attached)
{
    struct buffer *backlog = &attached->backlog;
    uint32_t record[2]; /* stream, length */
    if (attached->client == NULL || backlog_bytes(attached) == 0)
        return false;
    char *at = backlog->data + attached->backlog_sent;
    memcpy(record, at, record_bytes);
    if (record[1] == 0) { /* the end of its stream */
        attached->backlog_sent += record_bytes;
        return relay_tell_data(attached->client, attached->id, record[0], AGENT_END, NULL, 0);
    }
    ssize_t sent = send_some(attached, record[0], at + record_bytes, record[1]);
    if (sent < 0)
        return false;
    attached->behind[record[0]] -= (size_t)sent;
    record[1] -= (uint32_t)sent;
    attached->backlog_sent += (size_t)sent;
    if (record[1] == 0)
        attached->backlog_sent += record_bytes;
    else /* its head moves to where the rest begins */
        memcpy(backlog->data + attached->backlog_sent, record, record_bytes);
    return record[1] == 0;
}

static void send_backlog(struct attached *attached)
{
    struct buffer *backlog = &attached->backlog;
    while (send_record(attached))
        ;
    size_t left = backlog_bytes(attached);
    if (left == 0) {
        backlog->length = attached->backlog_sent = 0;
    } else if (attached->backlog_sent >= left) {
        memmove(backlog->data, backlog->data + attached->backlog_sent, left);
        backlog->length = left;
        attached->backlog_sent = 0;
    }
}

/* A client that lags behind is told so and let go. */
static void leave_behind(struct attached *attached)
{
    struct relay_client *client = attached->client;
    uint32_t id = attached->id;
    log_warn("session.left_behind", LOG_UINT("bytes", backlog_bytes(attached)));
    let_go(attached);
    relay_fail(client, id, AGENT_STAGE_LIMIT, ENOBUFS, "it has fallen too far behind what the program says");
}

/* Gives one client its part, or keeps it for him. No bytes are the end of the stream. */
static void deliver(struct attached *attached, uint32_t stream, const char *bytes, size_t length)
{
    ssize_t sent = 0;
    if (attached->client == NULL)
        return;
    if (backlog_bytes(attached) == 0 && length == 0) {
        relay_tell_data(attached->client, attached->id, stream, AGENT_END, NULL, 0);
        return;
    }
    if (backlog_bytes(attached) == 0)
        sent = send_some(attached, stream, bytes, length);
    if (sent < 0 || (length > 0 && (size_t)sent == length))
        return;
    const uint32_t record[2] = {stream, (uint32_t)(length - (size_t)sent)};
    buffer_add(&attached->backlog, record, record_bytes);
    if (record[1] > 0)
        buffer_add(&attached->backlog, bytes + sent, record[1]);
    attached->behind[stream] += record[1];
    if (attached->backlog.error < 0 || backlog_bytes(attached) > LIMIT_SESSION_BEHIND_BYTES)
        leave_behind(attached);
}

static void deliver_all(struct session *session, uint32_t stream, const char *bytes, size_t length)
{
    for (struct attached *attached = session->attached; attached != NULL; attached = attached->next)
        deliver(attached, stream, bytes, length);
}

static const char *log_name(const struct session *session, uint32_t stream)
{
    return stream == AGENT_STDERR ? "err" : session->program->terminal ? "tty" : "out";
}

static int take_output(struct session *session, const struct agent_message *message)
{
    uint32_t stream = message->data.stream;
    struct stream *state = &session->streams[stream];
    const struct agent_span *bytes = &message->data.bytes;
    if (stream == AGENT_STDIN || state->has_ended || bytes->length > state->granted - state->received)
        return -EPROTO;
    state->received += bytes->length;
    if (bytes->length > 0) {
        session->ops->output(session->user, log_name(session, stream), bytes->bytes, bytes->length);
        deliver_all(session, stream, bytes->bytes, bytes->length);
    }
    if ((message->flags & AGENT_END) != 0) {
        state->has_ended = true;
        deliver_all(session, stream, NULL, 0);
    }
    grant(session, stream);
    return 0;
}

/* ---- beginning and end ---- */

/* Behind everything else that it gets. */
static void tell_end(struct session *session, struct attached *attached)
{
    struct relay_client *client = attached->client;
    const struct agent_message ended = {
        .id = attached->id,
        .kind = AGENT_ENDED,
        .flags = AGENT_LAST,
        .ended = {.code = session->code, .signal = session->signal},
    };
    if (session->state != SESSION_OVER || client == NULL || attached->is_over || backlog_bytes(attached) > 0)
        return;
    attached->is_over = true;
    relay_keep_session(client, 0, 0);
    relay_tell(client, &ended);
}

static void tell_failure(struct session *session, struct relay_client *client, uint32_t id)
{
    relay_fail(client, id, (enum agent_stage)session->failed_stage, (int)session->os_error, session->failed_text);
}

static int take_started(struct session *session, const struct agent_message *message)
{
    if (session->state != SESSION_ASKED)
        return -EPROTO;
    session->state = SESSION_RUNNING;
    session->input_credit = message->started.window;
    for (struct attached *attached = session->attached; attached != NULL; attached = attached->next)
        tell_started(session, attached);
    session->ops->started(session->user, message->started.pid);
    return 0;
}

static int take_failed(struct session *session, const struct agent_message *message)
{
    const struct agent_span *text = &message->failed.message;
    if (session->state != SESSION_ASKED)
        return -EPROTO;
    session->state = SESSION_FAILED;
    session->failed_stage = message->failed.stage;
    session->os_error = message->failed.os_error;
    size_t length = text->length < sizeof(session->failed_text) ? text->length : sizeof(session->failed_text) - 1;
    if (length > 0)
        memcpy(session->failed_text, text->bytes, length);
    for (struct attached *attached = session->attached; attached != NULL; attached = attached->next) {
        struct relay_client *client = attached->client;
        uint32_t id = attached->id;
        let_go(attached);
        if (client != NULL)
            tell_failure(session, client, id);
    }
    session->ops->failed(session->user, message);
    return 0;
}

static int take_ended(struct session *session, const struct agent_message *message)
{
    if (session->state != SESSION_RUNNING)
        return -EPROTO;
    session->state = SESSION_OVER;
    session->code = message->ended.code;
    session->signal = message->ended.signal;
    for (struct attached *attached = session->attached; attached != NULL; attached = attached->next)
        tell_end(session, attached);
    session->ops->ended(session->user, session->code, session->signal);
    return 0;
}

/* ---- input ---- */

static struct attached *find_input(const struct session *session)
{
    struct attached *attached = session->attached;
    while (attached != NULL && !attached->has_input)
        attached = attached->next;
    return attached;
}

static int take_input_credit(struct session *session, const struct agent_message *message)
{
    struct attached *attached = find_input(session);
    if (message->credit.stream != AGENT_STDIN || session->state != SESSION_RUNNING)
        return -EPROTO;
    session->input_credit += message->credit.bytes;
    if (session->input_credit > AGENT_MOST_WINDOW) /* no window is that large */
        return -EPROTO;
    struct agent_message credit = *message;
    if (attached != NULL) {
        credit.id = attached->id;
        relay_tell(attached->client, &credit);
    }
    return 0;
}

static void end_input(struct session *session)
{
    if (session->is_input_over || session->state != SESSION_RUNNING)
        return;
    session->is_input_over = true;
    relay_tell_agent_data(session->relay, SESSION_MAIN_ID, AGENT_END, NULL, 0);
}

/* From a client: false when it has no right to say that. */
static bool take_input(struct session *session, const struct attached *attached, const struct agent_message *message)
{
    size_t length = message->data.bytes.length;
    bool is_end = (message->flags & AGENT_END) != 0;
    if (message->data.stream != AGENT_STDIN || length > session->input_credit || (length > 0 && !attached->has_input))
        return false;
    if (session->state != SESSION_RUNNING || session->is_input_over || !attached->has_input)
        return true; /* nobody reads it */
    session->input_credit -= length;
    session->is_input_over = is_end;
    relay_tell_agent_data(session->relay, SESSION_MAIN_ID, is_end ? AGENT_END : 0, message->data.bytes.bytes, length);
    return true;
}

/* ---- what clients say ---- */

static void resize(struct session *session, uint32_t rows, uint32_t columns)
{
    const struct agent_message message = {
        .id = SESSION_MAIN_ID,
        .kind = AGENT_RESIZE,
        .resize = {.rows = rows, .columns = columns},
    };
    if (!session->program->terminal || rows == 0 || columns == 0)
        return;
    session->rows = (uint16_t)rows;
    session->columns = (uint16_t)columns;
    if (session->state == SESSION_RUNNING)
        relay_tell_agent(session->relay, &message);
}

static void add_attached(struct session *session, struct relay_client *client, const struct agent_message *message)
{
    uint32_t flags = message->attach.flags;
    struct attached *attached = alloc_zero(sizeof(*attached));
    if (attached == NULL) {
        relay_fail(client, message->id, AGENT_STAGE_LIMIT, ENOMEM, "");
        return;
    }
    *attached = (struct attached){
        .client = client,
        .id = message->id,
        .is_primary = (flags & AGENT_ATTACH_PRIMARY) != 0,
        .has_input = (flags & AGENT_ATTACH_INPUT) != 0 && session->program->input && !session->is_input_over,
        .credit = {0, message->attach.window, message->attach.window},
        /* Twice, for what is sent stands in front of the rest for a while. */
        .backlog = BUFFER_INIT(2 * (size_t)(LIMIT_SESSION_BEHIND_BYTES + (1u << 20))),
        .next = session->attached,
    };
    session->attached = attached;
    relay_keep_session(client, message->id, AGENT_ATTACH);
    resize(session, message->attach.rows, message->attach.columns);
    if (session->state == SESSION_RUNNING)
        tell_started(session, attached);
}

static void attach(struct session *session, struct relay_client *client, const struct agent_message *message)
{
    bool wants_input = (message->attach.flags & AGENT_ATTACH_INPUT) != 0;
    if (session->state == SESSION_NONE)
        relay_fail(client, message->id, AGENT_STAGE_STATE, ESRCH, "the sandbox has no program of its own");
    else if (session->state == SESSION_FAILED)
        tell_failure(session, client, message->id);
    else if (session->state == SESSION_OVER)
        relay_fail(client, message->id, AGENT_STAGE_STATE, ESRCH, "the sandbox's program has ended");
    else if (relay_session(client, AGENT_ATTACH) != 0 || relay_session(client, AGENT_EVENTS) != 0)
        relay_fail(client, message->id, AGENT_STAGE_LIMIT, EBUSY, "one session of this kind is all that a client has");
    else if (wants_input && find_input(session) != NULL)
        relay_fail(client, message->id, AGENT_STAGE_STATE, EBUSY, "another client has the program's input");
    else
        add_attached(session, client, message);
}

static void detach(struct session *session, struct attached *attached)
{
    const struct agent_message done = {.id = attached->id, .kind = AGENT_DONE, .flags = AGENT_LAST};
    struct relay_client *client = attached->client;
    let_go(attached);
    grant_all(session);
    relay_tell(client, &done);
}

static void take_credit(struct session *session, struct attached *attached, const struct agent_message *message)
{
    uint32_t stream = message->credit.stream;
    attached->credit[stream] += message->credit.bytes;
    if (attached->credit[stream] > UINT32_MAX) /* nobody reads that much ahead */
        attached->credit[stream] = UINT32_MAX;
    send_backlog(attached);
    tell_end(session, attached);
    grant(session, stream);
}

static void pass_signal(struct session *session, const struct agent_message *message)
{
    struct agent_message signal = *message;
    signal.id = SESSION_MAIN_ID;
    if (session->state == SESSION_RUNNING)
        relay_tell_agent(session->relay, &signal);
}

void session_client_message(struct session *session, struct relay_client *client, const struct agent_message *message)
{
    sweep(session);
    struct attached *attached = find(session, client);
    if (message->kind == AGENT_ATTACH)
        attach(session, client, message);
    else if (attached == NULL)
        relay_cut_off(client);
    else if (message->kind == AGENT_CANCEL)
        detach(session, attached);
    else if (message->kind == AGENT_SIGNAL)
        pass_signal(session, message);
    else if (message->kind == AGENT_RESIZE)
        resize(session, message->resize.rows, message->resize.columns);
    else if (message->kind == AGENT_CREDIT && message->credit.stream != AGENT_STDIN)
        take_credit(session, attached, message);
    else if (message->kind != AGENT_DATA || !take_input(session, attached, message))
        relay_cut_off(client);
}

void session_client_gone(struct session *session, struct relay_client *client)
{
    struct attached *attached = find(session, client);
    if (attached == NULL)
        return;
    bool ends_input = attached->has_input && attached->is_primary && !session->program->terminal;
    let_go(attached);
    if (ends_input)
        end_input(session);
    grant_all(session);
}

/* ---- what the agent says ---- */

int session_agent_message(struct session *session, const struct agent_message *message)
{
    sweep(session);
    if (message->kind == AGENT_DATA && session->state == SESSION_RUNNING)
        return take_output(session, message);
    if (message->kind == AGENT_CREDIT)
        return take_input_credit(session, message);
    if (message->kind == AGENT_STARTED)
        return take_started(session, message);
    if (message->kind == AGENT_FAILED)
        return take_failed(session, message);
    return message->kind == AGENT_ENDED ? take_ended(session, message) : -EPROTO;
}

/* ---- life ---- */

int session_new(struct relay *relay, const struct spec_program *program, const struct session_ops *ops, void *user,
                struct session **ret_session)
{
    struct session *session = alloc_zero(sizeof(*session));
    if (session == NULL)
        return -ENOMEM;
    *session = (struct session){
        .relay = relay,
        .program = program,
        .ops = ops,
        .user = user,
        .state = program->args != NULL ? SESSION_WAITING : SESSION_NONE,
        .rows = program->rows,
        .columns = program->columns,
    };
    *ret_session = session;
    return 0;
}

struct session *session_free(struct session *session)
{
    if (session == NULL)
        return NULL;
    for (struct attached *attached = session->attached; attached != NULL; attached = attached->next)
        let_go(attached);
    sweep(session);
    free(session);
    return NULL;
}

/* What cannot even be asked has failed as what the agent refuses. */
static void fail_to_begin(struct session *session, int result, const char *why)
{
    const struct agent_message failed = {
        .id = SESSION_MAIN_ID,
        .kind = AGENT_FAILED,
        .flags = AGENT_LAST,
        .failed = {.stage = AGENT_STAGE_PROTOCOL, .os_error = (uint32_t)-result, .message = {why, strlen(why)}},
    };
    take_failed(session, &failed);
}

void session_begin(struct session *session)
{
    struct session_exec exec;
    struct vial_error error = {0};
    if (session->state != SESSION_WAITING)
        return;
    session->state = SESSION_ASKED;
    session->streams[AGENT_STDOUT].granted = session->streams[AGENT_STDERR].granted = window_bytes;
    session->is_input_over = !session->program->input;
    int result = session_exec_make(session->program, &exec, &error);
    if (result < 0) {
        fail_to_begin(session, result, error.message);
        return;
    }
    exec.message.id = SESSION_MAIN_ID;
    exec.message.exec.window = window_bytes;
    exec.message.exec.rows = session->rows;
    exec.message.exec.columns = session->columns;
    result = relay_tell_agent(session->relay, &exec.message);
    session_exec_free(&exec);
    if (result < 0)
        fail_to_begin(session, result, "the agent cannot be asked to run the program");
}

bool session_is_with_all(const struct session *session)
{
    for (const struct attached *attached = session->attached; attached != NULL; attached = attached->next)
        if (attached->client != NULL && (backlog_bytes(attached) > 0 || relay_unsent_bytes(attached->client) > 0))
            return false;
    return true;
}

bool session_is_with_primaries(const struct session *session)
{
    for (const struct attached *attached = session->attached; attached != NULL; attached = attached->next)
        if (attached->is_primary && (backlog_bytes(attached) > 0 || relay_unsent_bytes(attached->client) > 0))
            return false;
    return true;
}

size_t session_attached_count(const struct session *session)
{
    size_t count = 0;
    for (const struct attached *attached = session->attached; attached != NULL; attached = attached->next)
        count += attached->client != NULL && !attached->is_over;
    return count;
}
