// SPDX-License-Identifier: Apache-2.0
/* A sandbox's life as its handles steer it: started, stopped, killed, paused, and waited for.
 *
 * Starting executes the sandbox's process (spawn.c); all else is a word to that process over its relay, as a client of
 * its own. Where there is no relay, because the process is about to begin or to end, it gets a signal instead; and also
 * where its guest does not become ready, for until then the relay listens to nobody. What has come of it is read from
 * the store, which the process writes before it lets go of its lock; an ephemeral sandbox is gone by then, and its last
 * event says how it ended.
 *
 * Invariants: (1) a start that fails leaves no process. (2) the end is the lock's, told by the kernel; no pid is waited
 * for. (3) only a process that is known to be the sandbox's gets a signal.
 *
 * Trust: as in client.c; events are lines of our own processes, and parsed strictly.
 */
#include "sandbox/client_process.h"
#include "sandbox/events.h"
#include "sandbox/library.h"
#include "sandbox/library_end.h"
#include "sandbox/spawn.h"
#include "sandbox/spec.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/thread.h"
#include "vmm/vm.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum {
    starting_grace_ms = 1000, /* what one that is starting gets at least to become ready in, and to heed a stop */
    force_after_ms = 3000,    /* what a process gets to end in when it is killed, before the host's kernel ends it */
    start_tries = 3,          /* against a lock that somebody has for a moment */
    guardian_ms = 2000,       /* what a guest gets to be gone in whose process was killed */
};

/* ---- starting ---- */

static int find_runtime(struct vial_home *home, char **ret_path, struct vial_error *err)
{
    pthread_mutex_lock(&home->lock);
    int result = spawn_find_runtime(home->runtime, ret_path, err);
    pthread_mutex_unlock(&home->lock);
    return result;
}

/* Whether nobody has the lock any more that is in the way. Who has been killed leaves it to the guardian of its guest,
 * which ends that now; who has it for a moment only waits for it to be free. */
static bool is_free(struct vial_sandbox *sandbox, uint64_t deadline_ns)
{
    uint64_t gone_ns = client_deadline_ns(guardian_ms);
    struct vial_error why;
    if (home_sandbox_lives(sandbox->folder) == 0)
        return true;
    sandbox_wait_change(sandbox, deadline_ns); /* who has just got it writes down its pid */
    if (ending_signal(home_sandbox_pid(sandbox->folder), sandbox->id, 0) != -ESRCH)
        return false;
    return sandbox_wait_end(sandbox, gone_ns < deadline_ns ? gone_ns : deadline_ns, &why) == 0;
}

/* `first_fd` as in struct spawn. */
static int start(struct vial_sandbox *sandbox, uint64_t deadline_ns, int first_fd, struct vial_error *err)
{
    auto_free char *runtime = NULL;
    struct sandbox_name name = sandbox_name(sandbox);
    int result = find_runtime(sandbox->home, &runtime, err);
    if (result < 0)
        return result;
    const struct spawn spawn = {.runtime = runtime,
                                .home = sandbox->home->home.path,
                                .id = sandbox->id,
                                .name = name.text,
                                .folder = sandbox->folder,
                                .first_fd = first_fd};
    for (int i = 0; i < start_tries; i++) {
        result = spawn_start(&spawn, deadline_ns, err);
        if (result != -EALREADY || !is_free(sandbox, deadline_ns))
            break;
    }
    if (result == 0)
        sandbox_drop_claim(sandbox);
    return result;
}

int vial_sandbox_start(struct vial_sandbox *sandbox, uint64_t timeout_ms, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    return start(sandbox, client_deadline_ns(timeout_ms), -1, err);
}

/* What the program gets, which decides what to attach with. */
static int read_program(struct vial_sandbox *sandbox, struct spec *ret_spec, struct vial_error *err)
{
    struct spec spec = {0};
    int result = spec_read(sandbox->folder, &spec, err);
    if (result < 0)
        return result;
    if (spec.program.args == NULL) {
        result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_START, "sandbox \"%s\" has no program to attach to",
                           sandbox_name(sandbox).text);
        error_remedy(err, "start it without attaching, or create it with a program");
        spec_free(&spec);
        return result;
    }
    *ret_spec = spec;
    return 0;
}

/* A pair of sockets; the request waits in it for the process that is yet to come. */
static int attach_first(struct vial_sandbox *sandbox, const struct spec *spec, struct vial_process *process,
                        int *ret_other, struct vial_error *err)
{
    struct agent_message request = {
        .kind = AGENT_ATTACH,
        .attach = {.flags = AGENT_ATTACH_PRIMARY | (spec->program.input ? AGENT_ATTACH_INPUT : 0),
                   .window = AGENT_DEFAULT_WINDOW,
                   .rows = spec->program.rows,
                   .columns = spec->program.columns}};
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return error_set_os(err, VIAL_PHASE_START, errno, "cannot make a socket");
    auto_close int other = ends[1];
    client_adopt(process_client(process), ends[0], sandbox_name(sandbox).text);
    process_set_input(process, spec->program.input);
    int result = client_send(process_client(process), &request, client_deadline_ns(CLIENT_FRAME_MOST_MS), err);
    if (result == 0)
        *ret_other = steal_fd(&other);
    return result;
}

int vial_sandbox_start_attached(struct vial_sandbox *sandbox, uint64_t timeout_ms, struct vial_process **ret_process,
                                struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct spec spec = {0};
    struct vial_process *process = NULL;
    uint64_t deadline_ns = client_deadline_ns(timeout_ms);
    auto_close int other = -1;
    char action[256];
    int result = read_program(sandbox, &spec, err);
    if (result < 0)
        return result;
    snprintf(action, sizeof(action), "cannot run %s", spec.program.args[0]);
    if (process_new(action, &process) < 0)
        result = error_no_memory(err, VIAL_PHASE_START);
    if (result == 0)
        result = attach_first(sandbox, &spec, process, &other, err);
    if (result == 0)
        result = start(sandbox, deadline_ns, other, err);
    spec_free(&spec);
    if (result < 0)
        vial_process_free(process);
    else
        *ret_process = process;
    return result;
}

/* ---- a word to the process ---- */

int sandbox_connect(struct vial_sandbox *sandbox, struct client *client, struct vial_error *err)
{
    return client_open(sandbox->folder, sandbox_name(sandbox).text, client, err);
}

int sandbox_request(struct vial_sandbox *sandbox, struct agent_message *request, const char *action,
                    struct vial_error *err)
{
    struct client client = CLIENT_INIT;
    struct agent_message answer = {0};
    uint64_t deadline_ns = client_deadline_ns(CLIENT_FRAME_MOST_MS);
    int result = sandbox_connect(sandbox, &client, err);
    if (result == 0)
        result = client_send(&client, request, deadline_ns, err);
    while (result == 0 && !client.flow.is_over)
        result = client_next(&client, action, deadline_ns, &answer, err);
    client_close(&client);
    return result;
}

int vial_sandbox_pause(struct vial_sandbox *sandbox, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct agent_message request = {.kind = AGENT_PAUSE};
    return sandbox_request(sandbox, &request, "cannot pause it", err);
}

int vial_sandbox_resume(struct vial_sandbox *sandbox, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct agent_message request = {.kind = AGENT_RESUME};
    return sandbox_request(sandbox, &request, "cannot resume it", err);
}

/* ---- the end ---- */

static int wait_until(int fd, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now_ns = clock_now_ns();
        struct timespec left = clock_to_timespec(deadline_ns > now_ns ? deadline_ns - now_ns : 0);
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        int count = ppoll(&ready, 1, deadline_ns == CLOCK_NEVER ? NULL : &left, NULL);
        if (count > 0)
            return 0;
        if (count == 0)
            return -ETIMEDOUT;
        if (errno != EINTR)
            return -errno;
    }
}

int sandbox_wait_change(struct vial_sandbox *sandbox, uint64_t deadline_ns)
{
    struct ending *ending = NULL;
    int result = ending_new_of_change(sandbox->folder, &ending);
    if (result == 0)
        result = wait_until(ending_fd(ending), deadline_ns);
    ending_free(ending);
    return result;
}

int sandbox_wait_end(struct vial_sandbox *sandbox, uint64_t deadline_ns, struct vial_error *err)
{
    struct ending *ending = NULL;
    int result = home_sandbox_lives(sandbox->folder);
    if (result == 1)
        result = ending_new(sandbox->folder, &ending);
    if (ending != NULL)
        result = wait_until(ending_fd(ending), deadline_ns);
    ending_free(ending);
    if (result == -ENOENT) /* the lock went with the folder */
        return 0;
    if (result < 0)
        error_set_os(err, VIAL_PHASE_RUN, result, "cannot see the end of sandbox \"%s\"", sandbox_name(sandbox).text);
    return result;
}

/* For a process that has no relay yet, or does not heed it. One that has just got the lock is about to write down its
 * pid there; the store does not know it before there is a run. Returns the pid that stands there. */
static int signal_process(struct vial_sandbox *sandbox, int number, uint64_t deadline_ns)
{
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    struct vial_error why;
    sandbox_wait_change(sandbox, deadline_ns);
    int pid = home_sandbox_pid(sandbox->folder);
    if (ending_signal(pid, sandbox->id, number) < 0 && sandbox_read(sandbox, &info, &why) == 0)
        ending_signal(info.pid, sandbox->id, number);
    return pid;
}

/* Whether the process with that pid has ended, and another one has the lock: who waited for it to be free may not have
 * got it in between. */
static bool is_another(const struct vial_sandbox *sandbox, int pid)
{
    int now = home_sandbox_pid(sandbox->folder);
    return pid > 0 && now > 0 && now != pid;
}

/* Whether its guest is not ready yet. Until then its process listens to signals only, and the kernel would keep what a
 * client says for it. */
static bool is_starting(struct vial_sandbox *sandbox)
{
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    struct vial_error why;
    return sandbox_read(sandbox, &info, &why) == 0 && info.status == VIAL_SANDBOX_STARTING;
}

/* Has it stop, and waits for the end of that process: one that somebody else starts meanwhile was not asked. The
 * connection stays open until then: its process may look who wants it. */
static int stop(struct vial_sandbox *sandbox, uint64_t grace_ms, uint64_t deadline_ns, struct vial_error *err)
{
    struct client client = CLIENT_INIT;
    struct vial_error why;
    struct agent_message request = {.kind = AGENT_STOP,
                                    .stop = {.grace_ms = grace_ms < UINT32_MAX ? (uint32_t)grace_ms : UINT32_MAX}};
    int alive = home_sandbox_lives(sandbox->folder);
    if (alive <= 0)
        return 0;
    int pid = home_sandbox_pid(sandbox->folder), result = sandbox_connect(sandbox, &client, &why);
    if (result == 0)
        result = client_send(&client, &request, deadline_ns, &why);
    if (result < 0)
        pid = signal_process(sandbox, SIGTERM, deadline_ns);
    uint64_t heeded_ns = client_deadline_ns(grace_ms > starting_grace_ms ? grace_ms : starting_grace_ms);
    result = sandbox_wait_end(sandbox, heeded_ns < deadline_ns ? heeded_ns : deadline_ns, err);
    if (result == -ETIMEDOUT && heeded_ns < deadline_ns && !is_another(sandbox, pid)) {
        if (is_starting(sandbox))
            signal_process(sandbox, SIGTERM, deadline_ns);
        result = sandbox_wait_end(sandbox, deadline_ns, err);
    }
    client_close(&client);
    return result == -ETIMEDOUT && is_another(sandbox, pid) ? 0 : result;
}

int vial_sandbox_stop(struct vial_sandbox *sandbox, uint64_t grace_ms, uint64_t timeout_ms, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    if (grace_ms == VIAL_GRACE_OWN)
        grace_ms = sandbox_own_grace_ms(sandbox);
    return stop(sandbox, grace_ms, client_deadline_ns(timeout_ms), err);
}

int vial_sandbox_kill(struct vial_sandbox *sandbox, uint64_t timeout_ms, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    uint64_t deadline_ns = client_deadline_ns(timeout_ms), soft_ns = client_deadline_ns(force_after_ms);
    struct vial_error why;
    int result = stop(sandbox, 0, soft_ns < deadline_ns ? soft_ns : deadline_ns, &why);
    if (result == 0)
        return 0;
    signal_process(sandbox, SIGKILL, deadline_ns);
    return sandbox_wait_end(sandbox, deadline_ns, err);
}

/* ---- waiting ---- */

struct last_end {
    const char *id;
    struct vial_exit exit;
};

/* An event of the home that may be this sandbox's end. */
static bool take_end(void *user, int stream, uint64_t time_ns, const char *bytes, size_t length)
{
    struct last_end *last = user;
    auto_json json_t *event = NULL;
    struct vial_error why;
    (void)stream;
    (void)time_ns;
    if (json_parse(bytes, length, &event, &why) < 0)
        return true;
    const char *id = json_string_value(json_object_get(event, "id"));
    const json_t *reason = json_object_get(event, "reason");
    if (id == NULL || strcmp(id, last->id) != 0 || reason == NULL)
        return true;
    const char *name = json_string_value(reason), *detail = json_string_value(json_object_get(event, "detail"));
    last->exit.reason = (int32_t)json_integer_value(reason);
    for (int i = VIAL_EXIT_COMPLETED; name != NULL && i <= VIAL_EXIT_INTERNAL_ERROR; i++)
        if (strcmp(vial_exit_reason_name(i), name) == 0)
            last->exit.reason = i;
    last->exit.code = (int32_t)json_integer_value(json_object_get(event, "code"));
    snprintf(last->exit.detail, sizeof(last->exit.detail), "%s", detail != NULL ? detail : "");
    return true;
}

/* How the last run ended; of a sandbox that has removed itself its last event tells. */
static int read_end(struct vial_sandbox *sandbox, uint64_t since_ns, struct vial_exit *ret_exit, struct vial_error *err)
{
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    struct last_end last = {.id = sandbox->id, .exit = VIAL_EXIT_INIT};
    struct vial_error why;
    int result = sandbox_read(sandbox, &info, err);
    if (result == -ENOENT) {
        if (home_events_follow(&sandbox->home->home, since_ns, 0, take_end, &last, &why) < 0 && last.exit.reason == 0)
            return result;
        *ret_exit = last.exit;
        return last.exit.reason != 0 ? 0 : result;
    }
    if (result < 0)
        return result;
    *ret_exit = (struct vial_exit){.size = sizeof(*ret_exit), .reason = info.reason, .code = info.code};
    memcpy(ret_exit->detail, info.detail, sizeof(ret_exit->detail));
    return 0;
}

int vial_sandbox_wait(struct vial_sandbox *sandbox, uint64_t timeout_ms, struct vial_exit *ret_exit,
                      struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    struct vial_exit exit = VIAL_EXIT_INIT;
    struct vial_sandbox_info before = VIAL_SANDBOX_INFO_INIT;
    struct vial_error why;
    int result = ret_exit != NULL ? vm_check_result(ret_exit, "VIAL_EXIT_INIT", err) : 0;
    if (result < 0)
        return result;
    uint64_t since_ns = sandbox_read(sandbox, &before, &why) == 0 ? before.started_ns : 0;
    result = sandbox_wait_end(sandbox, client_deadline_ns(timeout_ms), err);
    if (result == 0)
        result = read_end(sandbox, since_ns, &exit, err);
    if (result == 0 && ret_exit != NULL)
        vm_give_result(ret_exit, &exit, sizeof(exit));
    return result;
}

int vial_home_events(struct vial_home *home, uint64_t since_ns, uint64_t timeout_ms, vial_log_line line, void *user,
                     struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    return home_events_follow(&home->home, since_ns, timeout_ms, line, user, err);
}
