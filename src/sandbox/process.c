// SPDX-License-Identifier: Apache-2.0
/* The process of a sandbox, from its start to its end.
 *
 *     control (main thread): one event loop        the machine's own threads
 *       relay ── clients, the agent's port     <──>  console device
 *       console's pipe ── console.log          <───  console device
 *       the end of the machine                 <───  engine
 *       signals; once a second: watch, metrics
 *
 * There is no daemon: this process is all that a sandbox is, on a host where nobody waits for it. That it lives is told
 * by its lock, what it does by the store, and who wants something of it connects to its socket.
 *
 *     STARTING ──READY──> RUNNING <──> PAUSED
 *        │                   └────────────┴── the program has ended, STOP, SIGTERM, idle, too long ──> DRAINING
 *        └─────────────── the machine has ended ──────────────────────────┴──> LINGERING ──> the end
 *
 * Draining: the agent is asked to SHUTDOWN, with a grace for the programs, and the machine is stopped when that and the
 * time to unmount are over. Lingering: what the program has said last may not be read yet; clients that it waits for
 * have all the time they want, as long as they are connected, others a second. After a STOP all have its grace.
 *
 * The end is one function, `finish`, whatever it was that ended: the run is written, the event told, what is ephemeral
 * removed, and only then do the lock and the connections go, in this order, so that whoever sees a connection end finds
 * everything done.
 *
 * The walls (confine.h): the process as a whole before there is a second thread, each thread of the machine by itself
 * when it begins, and the main thread when the machine has been started and nothing of it has been read.
 *
 * Invariants: (1) what decides first why the sandbox ends is what the run's end says. (2) every way out leads through
 * `finish`; kill -9 is what store_repair is for. (3) a folder is touched only while its lock is ours.
 *
 * Trust: options and spec are our user's, the guest is hostile, clients are our user's or root's and may be broken.
 */
#include "sandbox/process_private.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { exit_done = 0, exit_not_started = 125 };

const int process_end_signals[PROCESS_END_SIGNALS] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};

#define LINGER_NS CLOCK_NS_PER_S

/* ---- the way to the end ---- */

void process_decide(struct process *process, enum vial_exit_reason reason, int code, const char *format, ...)
{
    va_list arguments;
    if (process->exit.reason != 0)
        return;
    process->exit.reason = reason;
    process->exit.code = code;
    va_start(arguments, format);
    vsnprintf(process->exit.detail, sizeof(process->exit.detail), format, arguments);
    va_end(arguments);
    log_info("process.ending", LOG_TEXT("reason", vial_exit_reason_name(reason)),
             LOG_TEXT("detail", process->exit.detail));
}

static void ask_agent_to_end(struct process *process, uint64_t grace_ms)
{
    const struct agent_message message = {
        .id = PROCESS_SHUTDOWN_ID,
        .kind = AGENT_SHUTDOWN,
        .stop.grace_ms = (uint32_t)(grace_ms < UINT32_MAX ? grace_ms : UINT32_MAX),
    };
    if (relay_tell_agent(process->relay, &message) < 0)
        process_force(process);
}

static void enter_draining(struct process *process, uint64_t grace_ms)
{
    struct vial_error error = {0};
    if (process->state == PROCESS_PAUSED)
        vial_vm_resume(process->vm, NULL); /* or nobody could end anything */
    process->state = PROCESS_DRAINING;
    watch_pause(&process->watch, false, clock_now_ns());
    watch_drain(&process->watch);
    ask_agent_to_end(process, grace_ms);
    if (store_set_status(process->store, process->run, VIAL_SANDBOX_DRAINING, &error) < 0)
        log_warn("process.not_recorded", LOG_TEXT("error", error.message));
    process_tell_event(process, "drain", "");
}

void process_drain(struct process *process, uint64_t grace_ms)
{
    uint64_t force_ns = 0;
    if (process->state == PROCESS_STARTING) { /* there is nobody to ask */
        process_force(process);
        return;
    }
    if (process->state == PROCESS_LINGERING)
        return;
    if (__builtin_add_overflow(grace_ms, LIMIT_SANDBOX_UNMOUNT_MS, &force_ns) ||
        __builtin_mul_overflow(force_ns, CLOCK_NS_PER_MS, &force_ns))
        force_ns = UINT64_MAX;
    force_ns = clock_deadline_ns(force_ns);
    if (process->state != PROCESS_DRAINING)
        enter_draining(process, grace_ms);
    if (force_ns < process->force_ns) {
        process->force_ns = force_ns;
        loop_set_deadline(process->force_timer, force_ns);
    }
}

void process_end_linger(struct process *process, uint64_t grace_ms)
{
    process->is_linger_over = true;
    loop_set_deadline(process->force_timer, clock_deadline_ns(grace_ms * CLOCK_NS_PER_MS));
    process_try_end(process);
}

/* In LINGERING nobody is waited for any more. */
void process_force(struct process *process)
{
    process->is_linger_over = process->was_forced = true;
    if (process->vm != NULL && process->state != PROCESS_LINGERING)
        vial_vm_stop(process->vm);
    process_try_end(process);
}

void process_handle_force(void *user, uint32_t what)
{
    struct process *process = user;
    (void)what;
    if (process->state == PROCESS_LINGERING && !process->is_linger_over) {
        process->is_linger_over = true;
        process_try_end(process);
        return;
    }
    log_warn("process.forced");
    process_force(process);
}

/* The second one forces, as people expect it. */
void process_handle_signal(void *user, uint32_t what)
{
    struct process *process = user;
    bool is_second = process->exit.reason != 0;
    process_decide(process, VIAL_EXIT_STOP_REQUESTED, 0, "signal %u told its process to end it", what);
    if (is_second || process->state == PROCESS_STARTING)
        process_force(process);
    else
        process_drain(process, process->spec.stop_grace_ms);
}

/* When no device listens any more. Where there is no Landlock the machine has removed them itself. */
static void remove_sockets(struct process *process)
{
    for (size_t i = 0; i < process->socket_count; i++) {
        const struct process_socket *socket = &process->sockets[i];
        struct stat now;
        if (lstat(socket->path, &now) == 0 && now.st_dev == socket->device && now.st_ino == socket->inode &&
            unlink(socket->path) < 0)
            log_warn("process.socket_left", LOG_TEXT("path", socket->path), LOG_ERRNO(errno));
    }
    process->socket_count = 0;
}

void process_handle_machine_end(void *user, uint32_t what)
{
    struct process *process = user;
    struct vial_exit end = VIAL_EXIT_INIT;
    (void)what;
    if (process->state == PROCESS_LINGERING)
        return;
    vial_vm_wait(process->vm, VIAL_WAIT_FOREVER, &end, NULL); /* its last step has been done */
    remove_sockets(process);
    if (process->state == PROCESS_STARTING && process->error.message[0] == '\0')
        error_set(&process->error, VIAL_ERROR_OS, VIAL_PHASE_START, "the machine ended before its agent was ready: %s",
                  end.detail);
    process_decide(process, (enum vial_exit_reason)end.reason, end.code, "%s", end.detail);
    process->machine_source = loop_source_free(process->machine_source); /* it stays readable */
    process->state = PROCESS_LINGERING;
    loop_set_deadline(process->force_timer, clock_deadline_ns(LINGER_NS));
    log_debug("process.machine_ended", LOG_UINT("elapsed_us", (clock_now_ns() - process->begun_ns) / 1000));
    process_try_end(process);
}

void process_try_end(struct process *process)
{
    if (process->state != PROCESS_LINGERING)
        return;
    bool is_read = session_is_with_all(process->session) ||
                   (process->is_linger_over && session_is_with_primaries(process->session));
    if (is_read || process->was_forced)
        loop_stop(process->loop);
}

/* ---- the end ---- */

/* As JSON, or "null". What comes of a guest may be any bytes. */
static void quote_detail(const struct process *process, char *text, size_t size)
{
    char escaped[4 * VIAL_EXIT_DETAIL_SIZE + 1];
    text_escape(escaped, sizeof(escaped), process->exit.detail, strlen(process->exit.detail), "");
    auto_json json_t *detail = json_string(escaped);
    auto_free char *quoted = detail != NULL ? json_dumps(detail, JSON_ENCODE_ANY) : NULL;
    snprintf(text, size, "%s", quoted != NULL && strlen(quoted) < size ? quoted : "null");
}

/* The event has everything, for who waits for one that removes itself. */
static void record_end(struct process *process)
{
    char detail[PROCESS_EVENT_BYTES / 2], members[sizeof(detail) + 128];
    struct vial_error error = {0};
    if (process->run < 0)
        return;
    int result = store_end_run(process->store, process->run, &process->exit, &error);
    if (result < 0)
        log_error("process.end_not_recorded", LOG_TEXT("error", error.message));
    quote_detail(process, detail, sizeof(detail));
    snprintf(members, sizeof(members), ", \"reason\": \"%s\", \"code\": %d, \"detail\": %s",
             vial_exit_reason_name(process->exit.reason), process->exit.code, detail);
    process_tell_event(process, "end", members);
}

/* The row, then the folder with all that is in it, its lock last: who waits for that finds everything done. A folder
 * without a row is found and removed by whoever repairs. */
static void remove_ephemeral(struct process *process)
{
    struct vial_error error = {0};
    if (process->store == NULL || !process->spec.ephemeral)
        return;
    int result = store_remove(process->store, process->spec.id, &error);
    if (result == 0) {
        home_event(&process->home, "remove", process->spec.id, process->spec.name, "");
        process->store = store_free(process->store);
        result = home_sandbox_remove(&process->home, process->spec.id);
    }
    if (result < 0)
        log_warn("process.not_removed", LOG_ERRNO(result), LOG_TEXT("error", error.message));
}

static void close_logs(struct process *process)
{
    vial_log_set_hook(NULL, NULL, VIAL_LOG_OFF);
    process->exec_log = journal_free(process->exec_log);
    process->console_log = journal_free(process->console_log);
    process->runtime_log = journal_free(process->runtime_log);
}

/* What is there of it: the start may have failed anywhere. */
static void finish(struct process *process)
{
    process->vm = vial_vm_free(process->vm);
    remove_sockets(process);
    if (process->console_log != NULL)
        process_read_console(process);
    if (process->relay != NULL)
        relay_close_doors(process->relay);
    record_end(process);
    if (process->lock_fd >= 0)
        metrics_remove(&process->metrics);
    remove_ephemeral(process);
    log_info("process.ended", LOG_UINT("elapsed_us", (clock_now_ns() - process->begun_ns) / 1000));
    close_logs(process);
    process->store = store_free(process->store);
    process->lock_fd = fd_close(process->lock_fd);
    process_report_failed(process); /* unless it has run */
    process->session = session_free(process->session);
    process->relay = relay_free(process->relay);
}

static void release(struct process *process)
{
    metrics_close(&process->metrics);
    process->loop = loop_free(process->loop);
    free(process->sockets);
    spec_free(&process->spec);
    home_close(&process->home);
    fd_close(process->console_fd);
    fd_close(process->agent_fd);
    fd_close(process->log_folder);
    fd_close(process->folder);
    fd_close(process->options.report_fd);
    fd_close(process->options.first_fd);
}

/* ---- the beginning ---- */

static void ignore(int signal_number)
{
    const struct sigaction action = {.sa_handler = SIG_IGN};
    sigaction(signal_number, &action, NULL);
}

/* Until the loop takes them: whoever wants our end while we begin gets it then, and it is written down. */
static void hold_back_signals(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    for (size_t i = 0; i < array_length(process_end_signals); i++)
        sigaddset(&signals, process_end_signals[i]);
    sigprocmask(SIG_BLOCK, &signals, NULL);
}

static void close_between(int first, int last)
{
    if (first <= last)
        close_range((unsigned)first, (unsigned)last, 0);
}

/* A process of nobody's, with nothing of whoever started it but the two descriptors, and a place for last words. */
static void leave_everything(const struct process_options *options)
{
    const struct rlimit no_core = {0};
    int low = options->report_fd, high = options->first_fd;
    hold_back_signals();
    if (low > high) {
        low = options->first_fd;
        high = options->report_fd;
    }
    close_between(STDERR_FILENO + 1, low - 1);
    close_between((low > STDERR_FILENO ? low : STDERR_FILENO) + 1, high - 1);
    close_between((high > STDERR_FILENO ? high : STDERR_FILENO) + 1, INT_MAX);
    auto_close int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = STDIN_FILENO; null_fd >= 0 && fd < STDERR_FILENO; fd++)
        dup2(null_fd, fd);
    setsid(); /* fails for who leads a session of his own already */
    umask(077);
    if (chdir("/") < 0)
        log_warn("process.no_root");  /* who cannot see / has other trouble */
    setrlimit(RLIMIT_CORE, &no_core); /* a core would hold what the guest's memory holds */
    ignore(SIGPIPE);
    ignore(SIGXFSZ); /* a full file is an error of its write */
    if (low >= 0)
        fcntl(low, F_SETFD, FD_CLOEXEC);
    if (high >= 0)
        fcntl(high, F_SETFD, FD_CLOEXEC);
}

int sandbox_process_run(const struct process_options *options)
{
    struct process process = {
        .options = *options,
        .home.fd = -1,
        .folder = -1,
        .log_folder = -1,
        .lock_fd = -1,
        .run = -1,
        .console_fd = -1,
        .agent_fd = -1,
        .metrics = {.folder = -1, .stat_fd = -1, .memory_fd = -1, .io_fd = -1},
        .engine = VIAL_ENGINE_INFO_INIT,
        .exit = VIAL_EXIT_INIT,
        .begun_ns = clock_now_ns(),
        .force_ns = CLOCK_NEVER,
    };
    leave_everything(options);
    int result = process_start(&process);
    if (result < 0) {
        log_error("process.not_started", LOG_TEXT("stage", process.stage), LOG_TEXT("error", process.error.message));
        process_decide(&process, VIAL_EXIT_INTERNAL_ERROR, 0, "%s: %s", process.stage, process.error.message);
    } else {
        result = loop_run(process.loop);
    }
    if (result < 0) /* the loop has failed, and nobody is watched any more */
        process_decide(&process, VIAL_EXIT_INTERNAL_ERROR, 0, "the event loop has failed");
    finish(&process);
    release(&process);
    return process.is_running_reported ? exit_done : exit_not_started;
}
