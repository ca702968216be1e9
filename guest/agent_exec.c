// SPDX-License-Identifier: Apache-2.0
/* Sessions that run a program, with pipes or on a terminal of their own.
 *
 *     STARTED ──> runs ──> has exited, its streams go on ──> ENDED
 *                  └── cancelled: killed, its streams are closed ──> ENDED
 *
 * What the program has said before its end must not be lost, but who it left behind may hold its streams for ever. So
 * what is in the pipes when it ends is what the session owes; when that is delivered, and the rest had a moment to come
 * to its end, the session is over. A terminal hangs up with its session's leader (drivers/tty/tty_jobctrl.c:
 * disassociate_ctty), so it comes to an end by itself, unless the program had given it away.
 *
 * A program is signalled as a group, which is what it leads; on a terminal the foreground group is signalled, too. When
 * a session is cancelled everything in its POSIX session is killed, which is looked for in /proc: once for all that
 * were cancelled in one turn.
 *
 * Invariants: (1) a process is signalled only until it is reaped, so its number is its own. (2) ENDED follows STARTED,
 * and nothing of the session's output follows ENDED.
 *
 * Trust: what is asked was decoded; programs do as they like, and may be root.
 */
#include "agent.h"
#include "agent_launch.h"
#include "guest.h"

#include "base/alloc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define LINGER_NS UINT64_C(100000000)

struct exec_session {
    struct session session;
    pid_t pid;
    int status;
    bool has_exited, is_cancelled, is_scanned, has_terminal, lingers;
    uint64_t linger_end_ns;
};

static const struct session_ops exec_ops;

static struct exec_session *exec_of(struct session *session)
{
    return session->ops == &exec_ops ? (struct exec_session *)session : NULL;
}

/* ---- the end ---- */

static void set_lingers(struct exec_session *exec, bool lingers)
{
    exec->session.agent->lingering += (size_t)lingers - (size_t)exec->lingers;
    exec->lingers = lingers;
}

static void end(struct exec_session *exec)
{
    set_lingers(exec, false);
    session_ended(&exec->session, exec->status);
}

/* Whether everything is said, or may be given up. */
static void check_end(struct session *session)
{
    struct exec_session *exec = exec_of(session);
    if (!exec->has_exited || session->is_over)
        return;
    if (session_outputs_are_closed(session) || exec->is_cancelled)
        end(exec);
    else if (session_outputs_are_done(session) && agent_now_ns() >= exec->linger_end_ns)
        end(exec);
}

static void note_exit(struct exec_session *exec, int status)
{
    exec->has_exited = true;
    exec->status = status;
    session_close_input(&exec->session);
    if (session_outputs_are_closed(&exec->session)) {
        end(exec);
        return;
    }
    exec->linger_end_ns = agent_now_ns() + LINGER_NS;
    for (size_t i = 0; i < SESSION_OUTPUTS && !exec->has_terminal; i++)
        session_count_output(&exec->session, i);
    set_lingers(exec, true);
    check_end(&exec->session);
}

void exec_reap(struct agent *agent)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        for (size_t i = 0; i < agent->sessions.count; i++) {
            struct exec_session *exec = exec_of(agent->sessions.items[i]);
            if (exec == NULL || exec->pid != pid || exec->has_exited)
                continue;
            note_exit(exec, status);
            break;
        }
}

/* ---- signals ---- */

static void signal_program(struct session *session, int number)
{
    struct exec_session *exec = exec_of(session);
    if (exec->has_exited)
        return;
    kill(-exec->pid, number);
    pid_t foreground = exec->has_terminal ? tcgetpgrp(session->outputs[0].watch.fd) : -1;
    if (foreground > 1 && foreground != exec->pid)
        kill(-foreground, number);
}

static void resize_terminal(struct session *session, uint32_t rows, uint32_t columns)
{
    struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};
    if (exec_of(session)->has_terminal)
        ioctl(session->outputs[0].watch.fd, TIOCSWINSZ, &size); /* closed: it has no size any more */
}

static void cancel(struct session *session)
{
    struct exec_session *exec = exec_of(session);
    signal_program(session, SIGKILL);
    exec->is_cancelled = true;
    session->agent->wants_scan = true;
    session_close_input(session);
    for (size_t i = 0; i < SESSION_OUTPUTS; i++)
        session_close_output(session, i);
    check_end(session);
}

/* The POSIX session of a process, or -1 when it has gone: the fourth word behind its name, which may hold anything but
 * ends with the last parenthesis (proc_pid_stat(5)). */
static pid_t session_of(const char *process)
{
    char path[32], text[512];
    int session = -1;
    snprintf(path, sizeof(path), "/proc/%.12s/stat", process);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    text[length > 0 ? length : 0] = '\0';
    const char *behind = strrchr(text, ')');
    return behind != NULL && sscanf(behind + 1, " %*c %*d %*d %d", &session) == 1 ? session : -1;
}

static bool is_cancelled(const struct agent *agent, pid_t leader)
{
    for (size_t i = 0; i < agent->sessions.count; i++) {
        const struct exec_session *exec = exec_of(agent->sessions.items[i]);
        if (exec != NULL && exec->is_cancelled && !exec->is_scanned && exec->pid == leader)
            return true;
    }
    return false;
}

static void kill_cancelled(struct agent *agent)
{
    DIR *processes = opendir("/proc");
    for (const struct dirent *entry; processes != NULL && (entry = readdir(processes)) != NULL;) {
        bool is_process = entry->d_name[0] >= '1' && entry->d_name[0] <= '9';
        pid_t leader = is_process ? session_of(entry->d_name) : -1;
        if (leader > 1 && is_cancelled(agent, leader))
            kill((pid_t)strtol(entry->d_name, NULL, 10), SIGKILL);
    }
    if (processes != NULL)
        closedir(processes);
    for (size_t i = 0; i < agent->sessions.count; i++) {
        struct exec_session *exec = exec_of(agent->sessions.items[i]);
        if (exec != NULL)
            exec->is_scanned = exec->is_cancelled;
    }
    agent->wants_scan = false;
}

void exec_look_after(struct agent *agent)
{
    if (agent->wants_scan)
        kill_cancelled(agent);
    uint64_t now = agent->lingering > 0 ? agent_now_ns() : 0;
    for (size_t i = 0; i < agent->sessions.count && agent->lingering > 0; i++) {
        struct exec_session *exec = exec_of(agent->sessions.items[i]);
        if (exec == NULL || !exec->lingers || now < exec->linger_end_ns)
            continue;
        set_lingers(exec, false); /* from now on the streams' end is told by themselves */
        if (exec->has_terminal)
            session_count_output(&exec->session, 0);
        check_end(&exec->session);
    }
}

size_t exec_count(const struct agent *agent)
{
    size_t count = 0;
    for (size_t i = 0; i < agent->sessions.count; i++) {
        const struct exec_session *exec = exec_of(agent->sessions.items[i]);
        count += exec != NULL && !exec->session.is_over;
    }
    return count;
}

size_t exec_count_running(const struct agent *agent)
{
    size_t count = 0;
    for (size_t i = 0; i < agent->sessions.count; i++) {
        const struct exec_session *exec = exec_of(agent->sessions.items[i]);
        count += exec != NULL && !exec->has_exited;
    }
    return count;
}

void exec_signal_all(struct agent *agent, int number)
{
    for (size_t i = 0; i < agent->sessions.count; i++)
        if (exec_of(agent->sessions.items[i]) != NULL)
            signal_program(agent->sessions.items[i], number);
}

void exec_hang_up_terminals(struct agent *agent)
{
    for (size_t i = 0; i < agent->sessions.count; i++) {
        struct exec_session *exec = exec_of(agent->sessions.items[i]);
        if (exec != NULL && exec->has_terminal)
            signal_program(&exec->session, SIGHUP);
    }
}

static void free_exec(struct session *session)
{
    set_lingers(exec_of(session), false);
}

static const struct session_ops exec_ops = {
    .output_done = check_end,
    .signal = signal_program,
    .resize = resize_terminal,
    .cancel = cancel,
    .free = free_exec,
};

/* ---- the streams ---- */

static void close_pipe(struct pipe_ends *pipe)
{
    if (pipe->ours >= 0)
        close(pipe->ours);
    if (pipe->theirs >= 0)
        close(pipe->theirs);
    *pipe = (struct pipe_ends){-1, -1};
}

static int make_pipe(bool is_input, struct pipe_ends *pipe)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    *pipe = (struct pipe_ends){.ours = ends[is_input], .theirs = ends[!is_input]};
    if (fcntl(pipe->ours, F_SETFL, O_NONBLOCK) >= 0)
        return 0;
    int result = -errno;
    close_pipe(pipe);
    return result;
}

/* Who asks for a program does not wait for its pipes to be made: they were, after the one before it. */
static int take_pipe(struct agent *agent, size_t stream, struct pipe_ends *ret_pipe)
{
    struct pipe_ends *ready = &agent->ready[stream];
    int result = ready->ours >= 0 ? 0 : make_pipe(stream == 0, ready);
    *ret_pipe = *ready;
    *ready = (struct pipe_ends){-1, -1};
    agent->ready_in_turns = 2;
    return result;
}

/* Not in the turn of the program's start, for then it waits for the CPU. */
void exec_make_ready(struct agent *agent)
{
    if (agent->ready_in_turns == 0 || --agent->ready_in_turns > 0)
        return;
    for (size_t stream = 0; stream < sizeof(agent->ready) / sizeof(agent->ready[0]); stream++)
        if (agent->ready[stream].ours < 0)
            make_pipe(stream == 0, &agent->ready[stream]); /* else it is tried when it is needed */
}

void exec_release(struct agent *agent)
{
    for (size_t stream = 0; stream < sizeof(agent->ready) / sizeof(agent->ready[0]); stream++)
        close_pipe(&agent->ready[stream]);
}

/* Opened by the first program that needs it, and kept for all: its flags, which they share, mean nothing to them. */
static int no_input(struct agent *agent)
{
    if (agent->null_fd < 0)
        agent->null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return agent->null_fd;
}

static int take_pipes(struct exec_session *exec, const struct agent_exec *request, struct launch *launch)
{
    struct agent *agent = exec->session.agent;
    struct pipe_ends pipe;
    int result = 0;
    if ((request->flags & AGENT_EXEC_NO_INPUT) != 0) {
        launch->borrows_input = true;
        launch->streams[0] = no_input(agent);
        result = launch->streams[0] < 0 ? -errno : 0;
    } else {
        result = take_pipe(agent, 0, &pipe);
        exec->session.input.watch.fd = pipe.ours;
        launch->streams[0] = pipe.theirs;
    }
    for (size_t i = 0; i < SESSION_OUTPUTS && result == 0; i++) {
        result = take_pipe(agent, i + 1, &pipe);
        launch->streams[i + 1] = pipe.theirs;
        if (result == 0)
            result = session_add_output(&exec->session, i, pipe.ours, request->window);
    }
    return result;
}

static int make_terminal(struct exec_session *exec, const struct agent_exec *request, struct launch *launch)
{
    struct winsize size = {.ws_row = (unsigned short)request->rows, .ws_col = (unsigned short)request->columns};
    int unlocked = 0;
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (master < 0)
        return -errno;
    int result = session_add_output(&exec->session, 0, master, request->window);
    if (result < 0)
        return result;
    launch->has_terminal = exec->has_terminal = exec->session.input.is_terminal = true;
    if (ioctl(master, TIOCSPTLCK, &unlocked) < 0 || ioctl(master, TIOCSWINSZ, &size) < 0)
        return -errno;
    launch->streams[0] = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (launch->streams[0] < 0 || fchown(launch->streams[0], launch->user.uid, (gid_t)-1) < 0)
        return -errno;
    exec->session.input.watch.fd = fcntl(master, F_DUPFD_CLOEXEC, 3);
    return exec->session.input.watch.fd < 0 ? -errno : 0;
}

/* ---- the begin ---- */

/* Everything up to the program's first instruction. What failed is in the launch. */
static bool start(struct exec_session *exec, const struct agent_exec *request, struct launch *launch)
{
    bool has_terminal = (request->flags & AGENT_EXEC_TERMINAL) != 0;
    if (!launch_prepare(launch, request))
        return false;
    int result = has_terminal ? make_terminal(exec, request, launch) : take_pipes(exec, request, launch);
    if (result < 0)
        return launch_fail(launch, has_terminal ? AGENT_STAGE_TERMINAL : AGENT_STAGE_STREAMS, -result);
    return launch_run(launch, &exec->pid);
}

static void say_failure(struct exec_session *exec, const struct agent_exec *request, const struct launch *launch)
{
    char text[AGENT_MOST_MESSAGE_BYTES + 1] = "";
    const struct agent_span *subject = launch->stage == AGENT_STAGE_CHDIR  ? &request->workdir
                                       : launch->stage == AGENT_STAGE_USER ? &request->user
                                       : launch->stage == AGENT_STAGE_EXEC ? &request->path
                                                                           : NULL;
    if (subject != NULL)
        snprintf(text, sizeof(text), "%.*s", (int)subject->length, subject->bytes);
    session_fail(&exec->session, launch->stage, -launch->os_error, text);
}

void exec_begin(struct agent *agent, const struct agent_message *message)
{
    const struct agent_exec *request = &message->exec;
    struct launch launch;
    struct exec_session *exec = (struct exec_session *)session_new(agent, message->id, &exec_ops, sizeof(*exec));
    if (exec == NULL)
        return;
    launch_init(&launch, agent);
    exec->session.is_detached = (request->flags & AGENT_EXEC_DETACHED) != 0;
    bool is_started = start(exec, request, &launch);
    if (!is_started) {
        exec->has_exited = true;
        say_failure(exec, request, &launch);
    } else {
        session_grant(&exec->session, (request->flags & AGENT_EXEC_NO_INPUT) == 0 ? request->window : 0);
        session_started(&exec->session, (uint32_t)exec->pid);
    }
    launch_release(&launch);
}
