// SPDX-License-Identifier: Apache-2.0
/* What a sandbox's process says about itself: the line about its start, the answer to STATUS, and events.
 *
 * The line goes to whoever started us, who reads until it has come or nobody can write it any more. Then its descriptor
 * is closed, and whoever started us need not be there any longer.
 *
 *     {"state": "running", "pid", "engine", "isolation"}
 *     {"state": "failed", "stage", "error": {"code", "phase", "errno": numbers, "field", "value", "message", "remedy"}}
 *
 * The answer to STATUS:
 *
 *     {"id", "name", "status", "pid", "engine", "isolation", "details", "walls": {"standing", "missing"},
 *      "reason", "attached", "clients", "sessions", "refused", "cut_off", "metrics": {metrics.h}}
 *
 * And an event, to clients that asked for them with EVENTS and into the home's events: {"event": KIND, …}.
 *
 * Invariants: (1) at most one line is written. (2) nothing here fails for the caller: what cannot be said is logged.
 *
 * Trust: nothing of a guest's is in here but what its agent has said of its program, escaped by jansson.
 */
#include "sandbox/process_private.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* ---- the start ---- */

/* Takes the document over. */
static void report(struct process *process, json_t *document)
{
    auto_json json_t *owned = document;
    auto_free char *text = owned != NULL ? json_dumps(owned, JSON_COMPACT) : NULL;
    int fd = process->options.report_fd;
    if (process->is_reported || fd < 0)
        return;
    process->is_reported = true;
    int result = text == NULL ? -ENOMEM : fd_write_all(fd, text, strlen(text));
    if (result == 0)
        result = fd_write_all(fd, "\n", 1);
    if (result < 0) /* whoever started us is gone, or there is no memory */
        log_warn("process.not_reported", LOG_ERRNO(result));
    process->options.report_fd = fd_close(fd);
}

void process_report_running(struct process *process)
{
    process->is_running_reported |= !process->is_reported;
    report(process, json_pack("{s:s, s:i, s:s, s:s}", "state", "running", "pid", (int)getpid(), "engine",
                              vial_engine_name(process->engine.engine), "isolation",
                              vial_isolation_name(process->engine.isolation)));
}

void process_report_failed(struct process *process)
{
    const struct vial_error *error = &process->error;
    json_t *fields = json_pack("{s:i, s:i, s:i, s:s, s:s, s:s, s:s}", "code", (int)error->code, "phase",
                               (int)error->phase, "errno", (int)error->os_error, "field", error->field, "value",
                               error->value, "message", error->message, "remedy", error->remedy);
    report(process, json_pack("{s:s, s:s, s:o}", "state", "failed", "stage", process->stage, "error", fields));
}

/* ---- state ---- */

int process_status(const struct process *process)
{
    switch (process->state) {
    case PROCESS_STARTING:
        return VIAL_SANDBOX_STARTING;
    case PROCESS_RUNNING:
        return VIAL_SANDBOX_RUNNING;
    case PROCESS_PAUSED:
        return VIAL_SANDBOX_PAUSED;
    case PROCESS_DRAINING:
    case PROCESS_LINGERING:
        break;
    }
    return VIAL_SANDBOX_DRAINING;
}

/* It may have been given another one since it was started. */
static void learn_name(struct process *process)
{
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    struct vial_error why;
    if (process->store != NULL && store_find(process->store, process->spec.id, &info, &why) == 0)
        memcpy(process->spec.name, info.name, sizeof(process->spec.name));
}

static json_t *describe(struct process *process)
{
    struct relay_counters counters;
    relay_count(process->relay, &counters);
    learn_name(process);
    int result = metrics_sample(&process->metrics, process->vm, &counters,
                                journal_lost_bytes(process->exec_log) + journal_lost_bytes(process->console_log) +
                                    journal_lost_bytes(process->runtime_log));
    json_t *metrics = result < 0 ? NULL : json_loadb(process->metrics.text.data, process->metrics.text.length, 0, NULL);
    json_t *document = json_pack(
        "{s:s, s:s, s:s, s:i, s:s, s:s, s:s, s:{s:s, s:s}, s:s, s:i, s:i, s:i, s:I, s:I}", "id", process->spec.id,
        "name", process->spec.name, "status", vial_sandbox_status_name(process_status(process)), "pid", (int)getpid(),
        "engine", vial_engine_name(process->engine.engine), "isolation", vial_isolation_name(process->engine.isolation),
        "details", process->engine.details, "walls", "standing", process->walls.standing, "missing",
        process->walls.missing, "reason", process->exit.reason != 0 ? vial_exit_reason_name(process->exit.reason) : "",
        "attached", (int)session_attached_count(process->session), "clients", (int)counters.clients, "sessions",
        (int)counters.sessions, "refused", (json_int_t)counters.refused, "cut_off", (json_int_t)counters.cut_off);
    if (metrics != NULL)
        json_object_set_new(document, "metrics", metrics);
    return document;
}

void process_tell_status(struct process *process, struct relay_client *client, uint32_t id, uint32_t flags)
{
    auto_json json_t *document = describe(process);
    auto_free char *text = document != NULL ? json_dumps(document, JSON_COMPACT) : NULL;
    if (text == NULL) {
        if ((flags & AGENT_LAST) == 0)
            relay_keep_session(client, 0, 0); /* FAILED is the last that is said in it */
        relay_fail(client, id, AGENT_STAGE_LIMIT, ENOMEM, "");
        return;
    }
    const struct agent_message message = {
        .id = id,
        .kind = AGENT_REPORT,
        .flags = flags,
        .report.json = {text, strlen(text)},
    };
    relay_tell(client, &message);
}

void process_tell_event(struct process *process, const char *kind, const char *members)
{
    char text[PROCESS_EVENT_BYTES];
    learn_name(process);
    home_event(&process->home, kind, process->spec.id, process->spec.name, members);
    if (process->relay == NULL)
        return;
    int length = snprintf(text, sizeof(text), "{\"event\": \"%s\"%s}", kind, members);
    if (length >= (int)sizeof(text))
        return;
    struct agent_message message = {.kind = AGENT_REPORT, .report.json = {text, (size_t)length}};
    relay_tell_all(process->relay, AGENT_EVENTS, &message);
}
