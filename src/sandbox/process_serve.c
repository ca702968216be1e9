// SPDX-License-Identifier: Apache-2.0
/* What a sandbox's process does while it runs: for its agent, its clients, its program, and once a second.
 *
 * READY is what everything waits for. It makes the run Running, lets clients in, and has the program started, unless
 * the one who started the sandbox is connected and has not attached yet: what a program says first would pass him by.
 *
 *     READY ──> program asked for ──> STARTED ──> reported as running
 *           └─> (no program, or the first client is to attach) reported as running at once
 *
 * Invariants: (1) a fault of the agent ends the sandbox and nothing else. (2) a client's request is answered, or its
 * connection ends. (3) the store is written when the status changes only, never on behalf of a frame.
 *
 * Trust: messages have been decoded; those of the agent are a hostile guest's, those of clients our user's.
 */
#include "sandbox/process_private.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { exit_not_executable = 126, exit_not_found = 127 };

static uint64_t real_time_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return clock_from_timespec(&now);
}

/* ---- the agent ---- */

static void blame_agent(struct process *process, const char *what)
{
    if (process->error.message[0] == '\0')
        error_set(&process->error, VIAL_ERROR_OS, VIAL_PHASE_START, "the agent %s", what);
    process_decide(process, VIAL_EXIT_AGENT_UNRESPONSIVE, 0, "the agent %s", what);
    process_force(process);
}

static void enter_running(struct process *process)
{
    struct vial_error error = {0};
    process->state = PROCESS_RUNNING;
    int result = store_set_engine(process->store, process->run, process->engine.engine, process->engine.isolation,
                                  &error);
    if (result == 0)
        result = store_set_status(process->store, process->run, VIAL_SANDBOX_RUNNING, &error);
    if (result < 0)
        log_warn("process.not_recorded", LOG_TEXT("error", error.message));
    process_tell_event(process, "start", "");
}

static void take_ready(struct process *process, const struct agent_ready *ready)
{
    if (process->state != PROCESS_STARTING || ready->version != AGENT_VERSION) {
        blame_agent(process, process->state != PROCESS_STARTING ? "has begun anew" : "speaks another version");
        return;
    }
    process->metrics.begin_ns = clock_now_ns();
    log_info("process.ready", LOG_UINT("elapsed_us", (process->metrics.begin_ns - process->begun_ns) / 1000),
             LOG_BYTES("kernel", ready->kernel.bytes, ready->kernel.length));
    watch_ready(&process->watch, process->metrics.begin_ns);
    process->stage = "program";
    bool waits_for_first = process->first != NULL;
    if (!waits_for_first) /* the guest works on it while we write */
        session_begin(process->session);
    if (process->state == PROCESS_STARTING)
        enter_running(process);
    relay_serve(process->relay);
    if (waits_for_first || process->spec.program.args == NULL)
        process_report_running(process);
}

static void take_shutdown_answer(struct process *process, const struct agent_message *message)
{
    if (process->state != PROCESS_DRAINING || message->kind != AGENT_DONE)
        blame_agent(process, "does not shut down");
}

static void handle_agent_message(void *user, const struct agent_message *message)
{
    struct process *process = user;
    int result = 0;
    watch_agent_spoke(&process->watch, message->kind == AGENT_HEARTBEAT ? &message->heartbeat : NULL);
    if (message->kind == AGENT_HEARTBEAT)
        process->metrics.heartbeat = message->heartbeat;
    else if (message->kind == AGENT_READY)
        take_ready(process, &message->ready);
    else if (message->id == SESSION_MAIN_ID)
        result = session_agent_message(process->session, message);
    else if (message->id == PROCESS_SHUTDOWN_ID)
        take_shutdown_answer(process, message);
    else
        result = -EPROTO;
    if (result < 0)
        blame_agent(process, "has broken the protocol");
}

/* A port that is closed is part of a machine's end, which tells more about itself in a moment; an agent that has closed
 * it for another reason will be found silent. */
static void handle_agent_failed(void *user, int result)
{
    struct process *process = user;
    if (result == 0)
        return;
    blame_agent(process, result == -EPROTO ? "has broken the protocol" : "cannot be reached");
}

/* ---- clients ---- */

static void answer_done(struct relay_client *client, uint32_t id)
{
    const struct agent_message done = {.id = id, .kind = AGENT_DONE, .flags = AGENT_LAST};
    relay_tell(client, &done);
}

static void take_stop(struct process *process, struct relay_client *client, const struct agent_message *message)
{
    answer_done(client, message->id);
    process_decide(process, VIAL_EXIT_STOP_REQUESTED, 0, "it was asked to stop");
    if (message->stop.grace_ms == 0)
        process_force(process);
    else if (process->state == PROCESS_LINGERING)
        process_end_linger(process, message->stop.grace_ms);
    else
        process_drain(process, message->stop.grace_ms);
}

static void note_paused(struct process *process, bool is_paused)
{
    struct vial_error error = {0};
    process->state = is_paused ? PROCESS_PAUSED : PROCESS_RUNNING;
    watch_pause(&process->watch, is_paused, clock_now_ns());
    if (store_set_status(process->store, process->run, process_status(process), &error) < 0)
        log_warn("process.not_recorded", LOG_TEXT("error", error.message));
    process_tell_event(process, is_paused ? "pause" : "resume", "");
}

static void take_pause(struct process *process, struct relay_client *client, uint32_t id, bool is_paused)
{
    struct vial_error error = {0};
    int result = process->state == PROCESS_RUNNING || process->state == PROCESS_PAUSED ? 0 : -ESRCH;
    if (result == 0)
        result = is_paused ? vial_vm_pause(process->vm, &error) : vial_vm_resume(process->vm, &error);
    if (result < 0) {
        relay_fail(client, id, AGENT_STAGE_STATE, result, result == -ESRCH ? "the sandbox is ending" : error.message);
        return;
    }
    note_paused(process, is_paused);
    answer_done(client, id);
}

/* The first report is the state that the changes start from: who has read it misses none. */
static void take_events(struct process *process, struct relay_client *client, uint32_t id)
{
    if (relay_keep_session(client, id, AGENT_EVENTS))
        process_tell_status(process, client, id, 0);
    else
        relay_fail(client, id, AGENT_STAGE_LIMIT, EBUSY, "one session of this kind is all that a client has");
}

static void handle_client_message(void *user, struct relay_client *client, const struct agent_message *message)
{
    struct process *process = user;
    if (message->kind == AGENT_STATUS) {
        process_tell_status(process, client, message->id, AGENT_LAST);
    } else if (message->kind == AGENT_STOP) {
        take_stop(process, client, message);
    } else if (message->kind == AGENT_PAUSE || message->kind == AGENT_RESUME) {
        take_pause(process, client, message->id, message->kind == AGENT_PAUSE);
    } else if (message->kind == AGENT_EVENTS) {
        take_events(process, client, message->id);
    } else if (message->kind == AGENT_CANCEL && relay_session(client, AGENT_EVENTS) != 0) {
        relay_keep_session(client, 0, 0);
        answer_done(client, message->id);
    } else {
        session_client_message(process->session, client, message);
    }
    if (client == process->first) { /* whatever it wanted, it is there now */
        process->first = NULL;
        session_begin(process->session);
    }
    process_try_end(process);
}

static void handle_client_gone(void *user, struct relay_client *client)
{
    struct process *process = user;
    session_client_gone(process->session, client);
    if (client == process->first) {
        process->first = NULL;
        if (process->state == PROCESS_RUNNING)
            session_begin(process->session);
    }
    process_try_end(process);
}

static void handle_caught_up(void *user, struct relay_client *client)
{
    (void)client;
    process_try_end(user);
}

const struct relay_ops process_relay_ops = {
    .agent_message = handle_agent_message,
    .client_message = handle_client_message,
    .client_gone = handle_client_gone,
    .client_caught_up = handle_caught_up,
    .agent_failed = handle_agent_failed,
};

/* ---- the program ---- */

static void handle_started(void *user, uint32_t pid)
{
    struct process *process = user;
    log_info("process.program_started", LOG_UINT("guest_pid", pid),
             LOG_UINT("elapsed_us", (clock_now_ns() - process->begun_ns) / 1000));
    process_report_running(process);
}

static void handle_failed(void *user, const struct agent_message *message)
{
    struct process *process = user;
    enum agent_stage stage = (enum agent_stage)message->failed.stage;
    int os_error = (int)message->failed.os_error, length = (int)message->failed.message.length;
    int code = stage == AGENT_STAGE_EXEC && os_error == ENOENT ? exit_not_found : exit_not_executable;
    const char *text = length > 0 ? message->failed.message.bytes : "";
    error_set_os(&process->error, VIAL_PHASE_RUN, os_error, "the program cannot be run: %.*s", length, text);
    error_field(&process->error, "%s", agent_stage_name(stage));
    if (process->spec.program.args != NULL)
        error_value(&process->error, "%s", process->spec.program.args[0]);
    process_decide(process, VIAL_EXIT_FAILED, code, "%s", process->error.message);
    process_drain(process, 0);
}

static void handle_ended(void *user, uint32_t code, uint32_t signal_number)
{
    struct process *process = user;
    int shown = signal_number != 0 ? 128 + (int)signal_number : (int)code;
    if (signal_number != 0)
        process_decide(process, VIAL_EXIT_SIGNAL, shown, "signal %u ended the program", signal_number);
    else
        process_decide(process, code == 0 ? VIAL_EXIT_COMPLETED : VIAL_EXIT_FAILED, shown,
                       "the program ended with exit code %u", code);
    if (process->exit.code == 0) /* something else has decided why, but not how the program took it */
        process->exit.code = shown;
    process_drain(process, 0);
}

static void handle_output(void *user, const char *stream, const char *bytes, size_t length)
{
    struct process *process = user;
    watch_active(&process->watch);
    journal_add_output(process->exec_log, real_time_ns(), stream, bytes, length);
}

const struct session_ops process_session_ops = {
    .started = handle_started,
    .failed = handle_failed,
    .ended = handle_ended,
    .output = handle_output,
};

/* ---- the console ---- */

/* One read: false when there is nothing now, or will be nothing any more. */
static bool read_console_once(struct process *process)
{
    char bytes[16 << 10];
    ssize_t length = read(process->console_fd, bytes, sizeof(bytes));
    if (length > 0)
        journal_add_console(process->console_log, real_time_ns(), bytes, (size_t)length);
    if (length == 0 || (length < 0 && errno != EAGAIN && errno != EINTR))
        process->console_source = loop_source_free(process->console_source);
    return length > 0;
}

void process_handle_console(void *user, uint32_t what)
{
    (void)what;
    read_console_once(user);
}

/* A pipe's fill at most: nobody writes to it any more. */
void process_read_console(struct process *process)
{
    enum { most_reads = 128 };
    for (int reads = 0; process->console_fd >= 0 && reads < most_reads && read_console_once(process); reads++)
        ;
}

/* ---- once a second ---- */

static void act_on(struct process *process, enum watch_verdict verdict)
{
    switch (verdict) {
    case WATCH_GOES_ON:
        return;
    case WATCH_NO_START:
        blame_agent(process, "has not become ready in time");
        return;
    case WATCH_SILENT:
        blame_agent(process, "has stopped answering");
        return;
    case WATCH_IDLE:
        process_decide(process, VIAL_EXIT_IDLE_TIMEOUT, 0, "nobody has used it for %" PRIu64 " ms",
                       process->spec.idle_timeout_ms);
        break;
    case WATCH_TOO_LONG:
        process_decide(process, VIAL_EXIT_MAX_DURATION, 0, "it has run for %" PRIu64 " ms",
                       process->spec.max_duration_ms);
        break;
    }
    process_drain(process, process->spec.stop_grace_ms);
}

static void look_at_traffic(struct process *process, const struct relay_counters *counters)
{
    if (counters->frames != process->seen_frames)
        watch_active(&process->watch);
    if (counters->from_agent_bytes != process->seen_agent_bytes)
        watch_agent_spoke(&process->watch, NULL);
    process->seen_frames = counters->frames;
    process->seen_agent_bytes = counters->from_agent_bytes;
}

void process_handle_look(void *user, uint32_t what)
{
    struct process *process = user;
    struct relay_counters counters;
    uint64_t lost_bytes = journal_lost_bytes(process->exec_log) + journal_lost_bytes(process->console_log) +
                          journal_lost_bytes(process->runtime_log);
    (void)what;
    loop_set_deadline(process->look_timer, clock_deadline_ns(WATCH_LOOK_NS));
    relay_tend(process->relay);
    relay_count(process->relay, &counters);
    look_at_traffic(process, &counters);
    if (metrics_sample(&process->metrics, process->vm, &counters, lost_bytes) == 0)
        metrics_write(&process->metrics);
    journal_tend(process->runtime_log);
    if (process->state != PROCESS_LINGERING)
        act_on(process, watch_look(&process->watch, clock_now_ns()));
}
