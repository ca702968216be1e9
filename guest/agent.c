// SPDX-License-Identifier: Apache-2.0
/* The agent: serves the host's port "vial.agent" until it is told to end everything. (proto/agent.h, docs/PROTOCOL.md)
 *
 *     port ── frames ──> requests ──> sessions ── streams, steps ──> queue ──> port
 *       ▲                                ▲
 *       └── one epoll ── timer ──────────┴── signals: a child has ended
 *
 * One thread and one loop. A turn reads what has come, moves some chunks of streams, does some steps of what is busy,
 * and writes what the port takes. When the queue is full nobody makes more: neither the port nor a stream is looked at
 * until the host has read.
 *
 * The end, once the host has asked for it:
 *
 *     everything gets SIGTERM ──> all gone, or the grace is over: SIGKILL ──> what they said is delivered ──> DONE
 *
 * What is malformed, and a port that the host has closed, is an end without a grace. Then nobody is told.
 *
 * Where the agent is not the first process, as in its tests, only the programs of its sessions are signalled.
 *
 * Invariants: (1) nothing waits but epoll, and what is said of disks in agent_files.c. (2) memory is bounded: sessions,
 * their windows, the queue and one frame. (3) nothing is allocated for a frame.
 *
 * Trust: the host, which has the guest's memory anyway; everything is decoded strictly all the same. Programs are not
 * trusted: they get no descriptor of the agent's, and a full or dead one stops its own session only.
 */
#include "agent.h"
#include "guest.h"

#include "base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/timerfd.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

enum {
    received_bytes = AGENT_HEADER_BYTES + AGENT_MOST_BODY_BYTES,
    read_bytes = 64 << 10,
    reads_in_a_row = 16,
    most_descriptors = 64 << 10, /* five for each session, and what trees need */
    linger_turn_ms = 20,
    port_buffer_bytes = 4096, /* what Linux reads at once (drivers/char/virtio_console.c) */
    delivery_ms = 1000,       /* how long the last words may take */
};

uint64_t agent_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

char *agent_copy_span(const struct agent_span *span)
{
    char *text = alloc_zero(span->length + 1);
    if (text != NULL && span->length > 0)
        memcpy(text, span->bytes, span->length);
    return text;
}

void agent_refuse(struct agent *agent, uint32_t id, enum agent_stage stage, int failure, const char *what)
{
    if (id == 0)
        return;
    queue_send(&agent->queue,
               &(struct agent_message){.id = id,
                                       .kind = AGENT_FAILED,
                                       .flags = AGENT_LAST,
                                       .failed = {.stage = stage,
                                                  .os_error = (uint32_t)-failure,
                                                  .message = {what, strnlen(what, AGENT_MOST_MESSAGE_BYTES)}}});
}

static void say_done(struct agent *agent, uint32_t id)
{
    queue_send(&agent->queue, &(struct agent_message){.id = id, .kind = AGENT_DONE, .flags = AGENT_LAST});
}

/* ---- what the agent says by itself ---- */

static void say_ready(struct agent *agent)
{
    struct sysinfo info = {.mem_unit = 1};
    struct utsname names = {0};
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    sysinfo(&info);
    uname(&names);
    queue_send(&agent->queue, &(struct agent_message){
                                  .kind = AGENT_READY,
                                  .ready = {.version = AGENT_VERSION,
                                            .cpus = cpus > 0 ? (uint32_t)cpus : 1,
                                            .memory_bytes = (uint64_t)info.totalram * info.mem_unit,
                                            .uptime_ns = agent_now_ns(),
                                            .kernel = {names.release, strnlen(names.release, AGENT_MOST_KERNEL_BYTES)}},
                              });
}

/* A small file of /proc from its begin; empty when it cannot be read. */
static void read_file(int fd, char *text, size_t size)
{
    ssize_t length = fd < 0 ? -1 : pread(fd, text, size - 1, 0);
    text[length > 0 ? length : 0] = '\0';
}

/* The first line of /proc/stat: user nice system idle iowait irq softirq steal, in ticks (proc_stat(5)). */
static uint64_t busy_ns(int fd)
{
    char text[256];
    unsigned long long user = 0, nice = 0, system = 0, irq = 0, softirq = 0;
    long ticks = sysconf(_SC_CLK_TCK);
    read_file(fd, text, sizeof(text));
    sscanf(text, "cpu %llu %llu %llu %*u %*u %llu %llu", &user, &nice, &system, &irq, &softirq);
    return (user + nice + system + irq + softirq) * (NS_PER_S / (ticks > 0 ? (uint64_t)ticks : 100));
}

/* What programs could still have, which free memory alone does not tell. */
static uint64_t available_bytes(int fd, const struct sysinfo *info)
{
    char text[512];
    unsigned long long kib = 0;
    read_file(fd, text, sizeof(text));
    const char *line = strstr(text, "MemAvailable:");
    if (line == NULL || sscanf(line, "MemAvailable: %llu", &kib) != 1)
        return (uint64_t)info->freeram * info->mem_unit;
    return kib << 10;
}

static void say_heartbeat(struct agent *agent)
{
    struct sysinfo info = {.mem_unit = 1};
    uint64_t missed;
    ssize_t length = read(agent->timer, &missed, sizeof(missed));
    if (length < 0 || !queue_has_room(&agent->queue))
        return; /* a host that does not read needs no more of them */
    sysinfo(&info);
    queue_send(&agent->queue, &(struct agent_message){
                                  .kind = AGENT_HEARTBEAT,
                                  .heartbeat = {.uptime_ns = agent_now_ns(),
                                                .busy_ns = busy_ns(agent->stat_fd),
                                                .total_bytes = (uint64_t)info.totalram * info.mem_unit,
                                                .available_bytes = available_bytes(agent->memory_fd, &info),
                                                .sessions = (uint32_t)agent->sessions.count,
                                                .processes = info.procs},
                              });
}

/* ---- requests ---- */

static void set_clock(struct agent *agent, const struct agent_message *message)
{
    struct timespec now = {.tv_sec = (time_t)(message->clock.unix_ns / NS_PER_S),
                           .tv_nsec = (long)(message->clock.unix_ns % NS_PER_S)};
    if (clock_settime(CLOCK_REALTIME, &now) < 0)
        agent_refuse(agent, message->id, AGENT_STAGE_CLOCK, -errno, "");
    else
        say_done(agent, message->id);
}

static void signal_all(struct agent *agent, int number)
{
    if (agent->is_first)
        kill(-1, number); /* all but this process (kill(2)) */
    else
        exec_signal_all(agent, number);
}

static void begin_end(struct agent *agent, uint32_t id, uint32_t grace_ms)
{
    if (agent->shutdown_id != 0)
        say_done(agent, agent->shutdown_id); /* another one takes its place */
    agent->shutdown_id = id;
    agent->grace_end_ns = agent_now_ns() + grace_ms * NS_PER_MS;
    if (agent->is_ending)
        return;
    agent->is_ending = true;
    if (grace_ms > 0) {
        signal_all(agent, SIGTERM);
        exec_hang_up_terminals(agent); /* shells that somebody sits at do not listen to SIGTERM */
        signal_all(agent, SIGCONT);    /* who is stopped cannot end */
    }
}

static void handle_request(struct agent *agent, const struct agent_message *message)
{
    bool may_begin = !agent->is_ending || message->kind == AGENT_PING || message->kind == AGENT_SHUTDOWN;
    if (session_find(agent, message->id) != NULL) {
        agent_refuse(agent, message->id, AGENT_STAGE_PROTOCOL, -EEXIST, "there is such a session");
        return;
    }
    if (!may_begin) {
        agent_refuse(agent, message->id, AGENT_STAGE_STATE, -ESHUTDOWN, "the machine is being shut down");
        return;
    }
    if (message->kind == AGENT_EXEC)
        exec_begin(agent, message);
    else if (message->kind == AGENT_CONNECT)
        connect_begin(agent, message);
    else if (message->kind == AGENT_PING)
        say_done(agent, message->id);
    else if (message->kind == AGENT_CLOCK)
        set_clock(agent, message);
    else if (message->kind == AGENT_SHUTDOWN)
        begin_end(agent, message->id, message->stop.grace_ms);
    else
        file_begin(agent, message);
}

/* What belongs to no session any more was on its way when it ended. */
static void handle_session(struct agent *agent, const struct agent_message *message)
{
    struct session *session = session_find(agent, message->id);
    if (session == NULL)
        return;
    if (message->kind == AGENT_DATA)
        session_take_data(session, message);
    else if (message->kind == AGENT_CREDIT)
        session_take_credit(session, message->credit.stream, message->credit.bytes);
    else if (message->kind == AGENT_CANCEL)
        session_cancel(session);
    else if (message->kind == AGENT_SIGNAL && session->ops->signal != NULL)
        session->ops->signal(session, (int)message->signal.number);
    else if (message->kind == AGENT_RESIZE && session->ops->resize != NULL)
        session->ops->resize(session, message->resize.rows, message->resize.columns);
}

static void handle_message(struct agent *agent, const struct agent_message *message)
{
    if (message->kind == AGENT_GONE)
        session_forget_client(agent, message->id >> 16);
    else if (message->kind <= AGENT_SHUTDOWN)
        handle_request(agent, message);
    else
        handle_session(agent, message);
}

/* ---- the port ---- */

static void lose_port(struct agent *agent, const char *what, int failure)
{
    if (agent->was_lost)
        return;
    tell(what, AGENT_PORT, failure);
    agent->was_lost = agent->queue.is_broken = true;
    begin_end(agent, 0, 0);
}

/* The next frame, if all of it is there. False when there is none, or nothing can be made of it. */
static bool handle_frame(struct agent *agent)
{
    struct agent_header header;
    struct agent_message message;
    const uint8_t *frame = agent->received + agent->received_start;
    size_t length = agent->received_end - agent->received_start;
    if (agent->was_lost || length < AGENT_HEADER_BYTES)
        return false;
    int result = agent_decode_header(frame, &header);
    if (result == 0 && !agent_is_from_host(header.kind))
        result = -EPROTO;
    if (result == 0 && length - AGENT_HEADER_BYTES < header.body_bytes)
        return false;
    if (result == 0)
        result = agent_decode(&header, frame + AGENT_HEADER_BYTES, &message);
    if (result < 0) {
        lose_port(agent, "understand", result);
        return false;
    }
    agent->received_start += AGENT_HEADER_BYTES + header.body_bytes;
    handle_message(agent, &message);
    return true;
}

static void handle_frames(struct agent *agent)
{
    while (queue_has_room(&agent->queue) && handle_frame(agent))
        ;
    agent->has_frames = !queue_has_room(&agent->queue);
    size_t left = agent->received_end - agent->received_start;
    if (left == 0 || agent->received_start >= read_bytes) {
        memmove(agent->received, agent->received + agent->received_start, left);
        agent->received_start = 0;
        agent->received_end = left;
    }
}

/* What has come before is worked off first: then a part of a frame is left at most, behind which there is room, and a
 * read of nothing means that the host has closed its side. */
static void read_port(struct agent *agent)
{
    for (int i = 0; i < reads_in_a_row; i++) {
        handle_frames(agent);
        if (!queue_has_room(&agent->queue) || agent->was_lost)
            return;
        size_t room = received_bytes + read_bytes - agent->received_end;
        ssize_t length = read(agent->port, agent->received + agent->received_end,
                              room < read_bytes ? room : read_bytes);
        if (length < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (length <= 0) {
            lose_port(agent, "read", length < 0 ? -errno : -EPIPE);
            return;
        }
        agent->received_end += (size_t)length;
        if (length < port_buffer_bytes) /* most likely the last; should more follow, epoll says so */
            return;
    }
}

/* ---- the loop ---- */

enum source { SOURCE_PORT, SOURCE_TIMER, SOURCE_SIGNALS, SOURCE_STREAMS };

static int wait_for(const struct agent *agent, int operation, int fd, uint32_t events, enum source source)
{
    struct epoll_event event = {.events = events, .data.u32 = source};
    return epoll_ctl(agent->epoll, operation, fd, &event) < 0 ? -errno : 0;
}

/* What is looked at depends on whether there is room for what comes of it. A port that was lost says so for ever. */
static void choose_sources(struct agent *agent)
{
    bool has_room = queue_has_room(&agent->queue);
    uint32_t of_port = (has_room ? EPOLLIN : 0u) | (queue_is_empty(&agent->queue) ? 0u : EPOLLOUT);
    if (of_port != agent->port_events && !agent->was_lost)
        wait_for(agent, EPOLL_CTL_MOD, agent->port, of_port, SOURCE_PORT);
    if (has_room != agent->streams_are_on)
        wait_for(agent, EPOLL_CTL_MOD, agent->sessions.epoll, has_room ? EPOLLIN : 0u, SOURCE_STREAMS);
    agent->port_events = of_port;
    agent->streams_are_on = has_room;
    if (agent->was_lost && !agent->is_off_port) {
        epoll_ctl(agent->epoll, EPOLL_CTL_DEL, agent->port, NULL);
        agent->is_off_port = true;
    }
}

static int choose_timeout(const struct agent *agent)
{
    if ((agent->sessions.busy_count > 0 || agent->has_frames) && queue_has_room(&agent->queue))
        return 0;
    if (agent->lingering > 0 || agent->is_ending)
        return linger_turn_ms;
    return -1;
}

static void handle_event(struct agent *agent, const struct epoll_event *event)
{
    struct signalfd_siginfo skipped;
    ssize_t length = 0;
    switch ((enum source)event->data.u32) {
    case SOURCE_PORT:
        if ((event->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
            read_port(agent);
        break;
    case SOURCE_TIMER:
        say_heartbeat(agent);
        break;
    case SOURCE_SIGNALS:
        length = read(agent->signals, &skipped, sizeof(skipped));
        exec_reap(agent);
        break;
    case SOURCE_STREAMS:
        session_run_streams(agent);
        break;
    }
    (void)length; /* an empty read means that it was read before */
}

/* Whether a process is left that has to go. */
static bool has_processes(const struct agent *agent)
{
    siginfo_t info = {0};
    if (!agent->is_first)
        return exec_count_running(agent) > 0;
    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 || errno != ECHILD;
}

/* Whether everything has ended and is said. */
static bool has_ended(struct agent *agent)
{
    if (!agent->is_ending)
        return false;
    uint64_t now = agent_now_ns();
    exec_reap(agent);
    if (has_processes(agent)) {
        if (now >= agent->grace_end_ns)
            signal_all(agent, SIGKILL);
        return false;
    }
    if (agent->delivery_end_ns == 0)
        agent->delivery_end_ns = now + delivery_ms * NS_PER_MS;
    return agent->was_lost || exec_count(agent) == 0 || now >= agent->delivery_end_ns;
}

static void run_turn(struct agent *agent)
{
    struct epoll_event events[4];
    int count = epoll_wait(agent->epoll, events, 4, choose_timeout(agent));
    for (int i = 0; i < count; i++)
        handle_event(agent, &events[i]);
    handle_frames(agent); /* those that were read last, or that the queue had no room for */
    session_run_busy(agent);
    exec_look_after(agent);
    session_free_over(agent);
    queue_flush(&agent->queue, agent->port);
    if (agent->queue.is_broken)
        lose_port(agent, "write to", -EPIPE);
    choose_sources(agent);
    exec_make_ready(agent);
}

/* The last words, for a host that listens. */
static void say_goodbye(struct agent *agent)
{
    struct epoll_event event;
    uint64_t end_ns = agent_now_ns() + delivery_ms * NS_PER_MS;
    session_free_all(agent);
    if (agent->shutdown_id != 0 && !agent->was_lost)
        say_done(agent, agent->shutdown_id);
    queue_flush(&agent->queue, agent->port);
    wait_for(agent, EPOLL_CTL_MOD, agent->port, EPOLLOUT, SOURCE_PORT);
    while (!queue_is_empty(&agent->queue) && agent_now_ns() < end_ns) {
        epoll_wait(agent->epoll, &event, 1, linger_turn_ms);
        queue_flush(&agent->queue, agent->port);
    }
}

/* ---- life ---- */

/* The agent holds many descriptors, and programs get what was. As the first process it is never killed for want of
 * memory; as another it asks not to be, and then programs must be told otherwise. */
static void raise_limits(struct agent *agent)
{
    struct rlimit limit = {0};
    getrlimit(RLIMIT_NOFILE, &limit);
    agent->file_limit[0] = limit.rlim_cur;
    agent->file_limit[1] = limit.rlim_max;
    limit.rlim_cur = limit.rlim_max;
    struct rlimit higher = {.rlim_cur = most_descriptors, .rlim_max = most_descriptors};
    if ((limit.rlim_max >= most_descriptors || setrlimit(RLIMIT_NOFILE, &higher) < 0) &&
        setrlimit(RLIMIT_NOFILE, &limit) < 0)
        tell("raise", "the limit of open files", -errno);
    if (agent->is_first)
        return;
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "-1000", 5) < 0)
        tell("write", "/proc/self/oom_score_adj", -errno);
    if (fd >= 0)
        close(fd);
}

/* What need not be found out, or given to a program, for each one. */
static void know_oneself(struct agent *agent)
{
    struct stat status;
    char folder[2];
    agent->is_first = getpid() == 1;
    agent->is_at_root = getcwd(folder, sizeof(folder)) != NULL && strcmp(folder, "/") == 0;
    agent->has_scripts = stat(AGENT_SCRIPTS_FOLDER, &status) == 0 && S_ISDIR(status.st_mode);
    agent->uid = getuid();
    agent->gid = getgid();
}

/* What a closed pipe is told by is blocked and not ignored, for that would be inherited. */
static int make_signals(struct agent *agent)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    agent->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    sigaddset(&set, SIGPIPE);
    return agent->signals < 0 || sigprocmask(SIG_BLOCK, &set, NULL) < 0 ? -errno : 0;
}

static int make_timer(struct agent *agent)
{
    struct itimerspec every_second = {.it_interval.tv_sec = 1, .it_value.tv_sec = 1};
    agent->timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    return agent->timer < 0 || timerfd_settime(agent->timer, 0, &every_second, NULL) < 0 ? -errno : 0;
}

static int make_epolls(struct agent *agent)
{
    agent->epoll = epoll_create1(EPOLL_CLOEXEC);
    agent->sessions.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (agent->epoll < 0 || agent->sessions.epoll < 0)
        return -errno;
    agent->port_events = EPOLLIN;
    agent->streams_are_on = true;
    int result = wait_for(agent, EPOLL_CTL_ADD, agent->port, EPOLLIN, SOURCE_PORT);
    if (result == 0)
        result = wait_for(agent, EPOLL_CTL_ADD, agent->timer, EPOLLIN, SOURCE_TIMER);
    if (result == 0)
        result = wait_for(agent, EPOLL_CTL_ADD, agent->signals, EPOLLIN, SOURCE_SIGNALS);
    if (result == 0)
        result = wait_for(agent, EPOLL_CTL_ADD, agent->sessions.epoll, EPOLLIN, SOURCE_STREAMS);
    return result;
}

static int make_parts(struct agent *agent)
{
    agent->received = alloc_zero(received_bytes + read_bytes);
    agent->scratch = alloc_zero(AGENT_CHUNK_BYTES);
    agent->stat_fd = open("/proc/stat", O_RDONLY | O_CLOEXEC);
    agent->memory_fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
    int result = agent->received == NULL || agent->scratch == NULL ? -ENOMEM : queue_init(&agent->queue);
    if (result == 0)
        result = make_signals(agent);
    if (result == 0)
        result = make_timer(agent);
    if (result == 0)
        result = make_epolls(agent);
    if (result == 0 && fcntl(agent->port, F_SETFL, O_NONBLOCK) < 0)
        result = -errno;
    return result;
}

static void release(struct agent *agent)
{
    const int fds[] = {agent->epoll,   agent->sessions.epoll, agent->timer,  agent->signals,
                       agent->stat_fd, agent->memory_fd,      agent->null_fd};
    session_free_all(agent);
    exec_release(agent);
    queue_release(&agent->queue);
    free(agent->received);
    free(agent->scratch);
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

int agent_serve(int port)
{
    static struct agent agent; /* too large for a stack */
    agent = (struct agent){.port = port, .epoll = -1, .timer = -1, .signals = -1, .stat_fd = -1, .memory_fd = -1};
    agent.sessions.epoll = agent.null_fd = -1;
    for (size_t i = 0; i < sizeof(agent.ready) / sizeof(agent.ready[0]); i++)
        agent.ready[i] = (struct pipe_ends){-1, -1};
    know_oneself(&agent);
    mode_t umask_before = umask(0); /* files get the permissions that were asked for */
    raise_limits(&agent);
    int result = make_parts(&agent);
    if (result == 0) {
        say_ready(&agent);
        queue_flush(&agent.queue, port);
        while (!has_ended(&agent))
            run_turn(&agent);
        say_goodbye(&agent);
    }
    release(&agent);
    umask(umask_before);
    return result;
}
