// SPDX-License-Identifier: Apache-2.0
/* The start of a sandbox's process: one step after the other, each with a name that a failure is reported under.
 *
 *     lock      the sandbox is ours: its folder, and the lock by which others see that it lives
 *     logs      from here on our own log is in log/runtime.log
 *     spec      what it is
 *     store     a run begins, as Starting
 *     relay     the socket exists; who connects waits
 *     confine   what all threads of the process lack from now on
 *     machine   made and running; its threads enter their lists by themselves
 *     agent     (process_serve.c) it has said that it is ready
 *     program   (process_serve.c) it runs
 *
 * Nothing here waits for anything but the host's disk, and nothing is synced. The jail of user-mode Linux is made by
 * vial_vm_start and needs what the main thread loses when it enters its own list; so that comes after it, and before
 * anything of the guest or of a client is read: the loop does not run yet.
 *
 * Invariants: (1) a step that fails leaves everything to sandbox_process_run, which releases what there is. (2) the
 * spec is read, and the run recorded, by whoever holds the lock only.
 *
 * Trust: options and spec come from our user. No guest code runs before `machine`.
 */
#include "sandbox/process_private.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "vmm/network.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int fail(struct process *process, int os_error, const char *what)
{
    return error_set_os(&process->error, VIAL_PHASE_START, os_error, "%s", what);
}

/* ---- lock ---- */

static int take_lock(struct process *process)
{
    int result = home_open(process->options.home, &process->home, &process->error);
    if (result < 0)
        return result;
    process->folder = home_sandbox_open(&process->home, process->options.id);
    if (process->folder < 0)
        return fail(process, process->folder, "the sandbox's folder cannot be opened");
    process->lock_fd = home_sandbox_lock(process->folder);
    if (process->lock_fd == -EWOULDBLOCK)
        return fail(process, EALREADY, "the sandbox runs already");
    return process->lock_fd < 0 ? fail(process, process->lock_fd, "the sandbox cannot be locked") : 0;
}

/* ---- logs ---- */

static void log_to_journal(void *user, const struct vial_log_record *record)
{
    char line[2048];
    struct process *process = user;
    snprintf(line, sizeof(line), "%s %s%s%s", log_level_names[record->level], record->event,
             record->details[0] != '\0' ? " " : "", record->details);
    journal_add_line(process->runtime_log, record->time_ns, line);
}

static int open_logs(struct process *process)
{
    process->log_folder = openat(process->folder, "log", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (process->log_folder < 0)
        return fail(process, errno, "the folder of the logs cannot be opened");
    int folder = process->log_folder;
    int result = journal_new(folder, "runtime.log", JOURNAL_LINES, JOURNAL_MOST_BYTES, &process->runtime_log);
    if (result == 0)
        result = journal_new(folder, "console.log", JOURNAL_LINES, JOURNAL_MOST_BYTES, &process->console_log);
    if (result == 0)
        result = journal_new(folder, "exec.log", JOURNAL_JSON, JOURNAL_MOST_BYTES, &process->exec_log);
    if (result < 0)
        return fail(process, result, "a log cannot be written");
    result = vial_log_set_hook(log_to_journal, process, VIAL_LOG_INFO);
    log_info("process.begun", LOG_INT("pid", getpid()));
    return result;
}

/* ---- spec ---- */

static int read_spec(struct process *process)
{
    return spec_read(process->folder, &process->spec, &process->error);
}

/* ---- store ---- */

static int begin_run(struct process *process)
{
    int result = store_open(&process->home, &process->store, &process->error);
    return result < 0
               ? result
               : store_begin_run(process->store, process->spec.id, (int)getpid(), &process->run, &process->error);
}

/* ---- relay ---- */

static int open_relay(struct process *process)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return fail(process, errno, "a socket for the agent cannot be made");
    process->agent_fd = fds[1];
    const struct relay_options options = {
        .loop = process->loop,
        .folder = process->folder,
        .agent_fd = fds[0],
        .ops = &process_relay_ops,
        .user = process,
    };
    int result = relay_new(&options, &process->relay);
    if (result == 0 && process->options.first_fd >= 0)
        result = relay_add_client(process->relay, steal_fd(&process->options.first_fd), &process->first);
    if (result == 0)
        result = session_new(process->relay, &process->spec.program, &process_session_ops, process, &process->session);
    return result < 0 ? fail(process, result, "the socket for clients cannot be made") : 0;
}

/* ---- confine ---- */

/* Commands that stand first on the guest's PATH; the agent looks for this folder. */
static int add_scripts(struct process *process)
{
    char host[PATH_MAX];
    struct vial_mapped_dir_options options = VIAL_MAPPED_DIR_OPTIONS_INIT;
    if (process->spec.scripts == NULL || process->spec.scripts[0] == NULL)
        return 0;
    int length = snprintf(host, sizeof(host), "%s/sandboxes/%s/scripts", process->home.path, process->spec.id);
    if (length >= (int)sizeof(host))
        return fail(process, ENAMETOOLONG, "the path of the scripts is too long");
    options.host = host;
    options.guest = "/.vial/scripts";
    options.read_only = true;
    return vial_vm_config_add_mapped_dir(process->spec.config, &options, &process->error);
}

/* In a handler of SIGSYS, on whichever thread: the process ends behind it. Standard error is runtime.log. */
static void tell_refusal(const char *call, enum confine_kind kind)
{
    static const char *const words[] = {"vial: the system call ", " was refused to a thread of the kind ", "\n"};
    const struct iovec parts[] = {
        {(void *)(uintptr_t)words[0], strlen(words[0])},
        {(void *)(uintptr_t)call, strlen(call)},
        {(void *)(uintptr_t)words[1], strlen(words[1])},
        {(void *)(uintptr_t)confine_kind_names[kind], strlen(confine_kind_names[kind])},
        {(void *)(uintptr_t)words[2], 1},
    };
    ssize_t written = writev(STDERR_FILENO, parts, array_length(parts));
    (void)written; /* nobody is left who could be told */
}

/* What the control thread opens while the guest runs: its folder with logs and stats.json, and the folder of the home's
 * events. At the end of an ephemeral one its folder gets another name and goes. The database stays open, all three
 * files of it, since its mode (WAL) and the run that has just been written keep it so: nothing else of the home can be
 * opened, neither a folder of another sandbox nor the database anew. */
static size_t add_own_paths(const struct process *process, int events, int sandboxes, struct confine_path *paths)
{
    const uint32_t control = 1u << CONFINE_CONTROL;
    paths[0] = (struct confine_path){.fd = process->folder, .may_write = true, .kinds = control};
    paths[1] = (struct confine_path){.fd = events, .may_write = true, .kinds = control};
    paths[2] = (struct confine_path){.fd = sandboxes, .renames_folders = true, .kinds = control};
    return process->spec.ephemeral ? 3 : 2;
}

static int confine(struct process *process)
{
    enum { own_paths = 3, room = own_paths + CONFINE_MACHINE_PATHS };
    auto_free struct confine_path *paths = alloc_zero(room * sizeof(paths[0]));
    struct confine_options options = {.paths = paths};
    auto_close int events = home_events_open(&process->home), sandboxes = home_sandboxes_open(&process->home);
    if (paths == NULL)
        return error_no_memory(&process->error, VIAL_PHASE_START);
    if (events < 0 || sandboxes < 0)
        return fail(process, events < 0 ? events : sandboxes, "a folder of the home cannot be opened");
    size_t count = add_own_paths(process, events, sandboxes, paths);
    int result = add_scripts(process); /* folders that are shared later would be closed to the file server */
    if (result < 0)
        return result;
    result = confine_options_add_machine(&options, process->spec.config, paths, &count, room);
    options.path_count = count;
    if (result < 0)
        return fail(process, result, "the machine has more folders than can be kept apart");
    /* Helpers are executed, and may become somebody else: nothing of that is possible behind the walls. */
    result = network_start_helpers(process->spec.config, &process->error);
    if (result < 0)
        return result;
    confine_on_refusal(tell_refusal);
    result = confine_process(&options, &process->walls, &process->error);
    if (result == 0)
        log_info("process.walls", LOG_TEXT("standing", process->walls.standing),
                 LOG_TEXT("missing", process->walls.missing));
    return result;
}

/* ---- machine ---- */

/* The console's output comes to us by a pipe, and has no input. The machine opens the pipe again by its path. */
static int set_console(struct process *process, int *ret_write_fd)
{
    int fds[2];
    char path[32];
    struct vial_console_options console = VIAL_CONSOLE_OPTIONS_INIT;
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return fail(process, errno, "a pipe for the console cannot be made");
    process->console_fd = fds[0];
    *ret_write_fd = fds[1];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[1]);
    console.output = path;
    console.implicit = false;
    int result = vial_vm_config_set_console(process->spec.config, &console, &process->error);
    if (result < 0)
        return result;
    result = loop_add_fd(process->loop, fds[0], EPOLLIN, process_handle_console, process, &process->console_source);
    return result < 0 ? fail(process, result, "the console cannot be read") : 0;
}

static int set_agent(struct process *process)
{
    struct vial_agent_options agent = VIAL_AGENT_OPTIONS_INIT;
    agent.fd = process->agent_fd;
    agent.hostname = process->spec.hostname != NULL ? process->spec.hostname : process->spec.name;
    int result = vial_vm_config_set_agent(process->spec.config, &agent, &process->error);
    process->agent_fd = fd_close(process->agent_fd);
    return result;
}

static int start_machine(struct process *process)
{
    auto_close int console_fd = -1;
    int result = set_console(process, &console_fd);
    if (result == 0)
        result = set_agent(process);
    if (result == 0)
        result = vial_vm_start(process->spec.config, &process->vm, &process->error);
    if (result < 0)
        return result;
    vial_vm_get_engine(process->vm, &process->engine, NULL);
    process->metrics.engine = process->engine.engine;
    log_debug("process.machine_started", LOG_UINT("elapsed_us", (clock_now_ns() - process->begun_ns) / 1000));
    result = loop_add_fd(process->loop, vial_vm_end_fd(process->vm), EPOLLIN, process_handle_machine_end, process,
                         &process->machine_source);
    return result < 0 ? fail(process, result, "the machine's end cannot be watched") : 0;
}

/* The walls let no other thread remove them (confine_paths.c). */
static int note_sockets(struct process *process)
{
    const struct vial_vm_config *config = process->spec.config;
    process->sockets = alloc_zero((config->vsock_port_count + 1) * sizeof(process->sockets[0]));
    if (process->sockets == NULL)
        return error_no_memory(&process->error, VIAL_PHASE_START);
    for (size_t i = 0; i < config->vsock_port_count; i++) {
        const struct vsock_port_config *port = &config->vsock_ports[i];
        struct stat made;
        if (port->listen && lstat(port->path, &made) == 0 && S_ISSOCK(made.st_mode))
            process->sockets[process->socket_count++] = (struct process_socket){
                .path = port->path, .device = made.st_dev, .inode = made.st_ino};
    }
    return 0;
}

/* From here on the main thread reads what guests and clients say. */
static int enter_control(struct process *process)
{
    int result = note_sockets(process);
    return result == 0 ? confine_thread(CONFINE_CONTROL, &process->error) : result;
}

/* ---- the way through ---- */

static int watch(struct process *process)
{
    const struct watch_options options = {
        .start_ns = LIMIT_SANDBOX_START_MS * CLOCK_NS_PER_MS,
        .silence_ns = LIMIT_SANDBOX_SILENCE_MS * CLOCK_NS_PER_MS,
        .idle_ns = process->spec.idle_timeout_ms * CLOCK_NS_PER_MS,
        .max_duration_ns = process->spec.max_duration_ms * CLOCK_NS_PER_MS,
    };
    struct loop_source *source = NULL;
    int result = 0;
    watch_begin(&process->watch, &options, clock_now_ns());
    for (size_t i = 0; i < array_length(process_end_signals) && result == 0; i++)
        result = loop_add_signal(process->loop, process_end_signals[i], process_handle_signal, process, &source);
    if (result == 0)
        result = loop_add_timer(process->loop, clock_deadline_ns(WATCH_LOOK_NS), process_handle_look, process,
                                &process->look_timer);
    if (result == 0)
        result = loop_add_timer(process->loop, CLOCK_NEVER, process_handle_force, process, &process->force_timer);
    metrics_open(&process->metrics, process->folder);
    return result < 0 ? fail(process, result, "the process cannot wait for signals and times") : 0;
}

int process_start(struct process *process)
{
    static const struct {
        const char *stage;
        int (*step)(struct process *process);
    } steps[] = {
        {"lock", take_lock},  {"logs", open_logs},        {"spec", read_spec},
        {"store", begin_run}, {"relay", open_relay},      {"relay", watch},
        {"confine", confine}, {"machine", start_machine}, {"confine", enter_control},
    };
    int result = loop_new(&process->loop);
    process->stage = "relay";
    for (size_t i = 0; i < array_length(steps) && result == 0; i++) {
        process->stage = steps[i].stage;
        result = steps[i].step(process);
    }
    if (result == 0)
        process->stage = "agent";
    return result;
}
