// SPDX-License-Identifier: Apache-2.0
/* A program that is executed as a sandbox's process, and does as $VIAL_FAKE says:
 *
 *     good    has the lock, writes down its run, serves the relay until it is asked to stop
 *     deaf    the same, but cannot be asked
 *     fail    reports a failure         silent   says something on its error output and ends
 *     hang    never reports             attach   serves its first client, then ends
 *     locked  has the lock, and gets no further
 */
#include "base/alloc.h"
#include "base/fd.h"
#include "proto/agent.h"
#include "sandbox/home.h"
#include "sandbox/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const char *argument(char *argv[], const char *name)
{
    for (; *argv != NULL; argv++)
        if (strcmp(*argv, name) == 0)
            return argv[1];
    return NULL;
}

/* What it was given, for the test to look at. */
static void write_probe(int folder)
{
    auto_close int fd = openat(folder, "log/probe", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    DIR *list = opendir("/proc/self/fd");
    dprintf(fd, "session %d\n", getsid(0) == getpid());
    for (struct dirent *entry = readdir(list); entry != NULL; entry = readdir(list))
        if (entry->d_name[0] != '.' && strtol(entry->d_name, NULL, 10) != fd &&
            strtol(entry->d_name, NULL, 10) != dirfd(list) && strtol(entry->d_name, NULL, 10) != folder)
            dprintf(fd, "fd %s\n", entry->d_name);
    closedir(list);
    for (char **variable = environ; *variable != NULL; variable++)
        dprintf(fd, "env %s\n", *variable);
    sigset_t blocked;
    sigprocmask(SIG_SETMASK, NULL, &blocked);
    dprintf(fd, "blocked %d ignored %d\n", sigismember(&blocked, SIGTERM), signal(SIGPIPE, SIG_DFL) == SIG_IGN);
}

static int listen_in(int folder)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/relay.sock", folder);
    unlinkat(folder, "relay.sock", 0);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(listener, 8) == 0 ? listener
                                                                                                         : -1;
}

static void say(int fd, const struct agent_message *message)
{
    struct buffer frame = BUFFER_INIT(4096);
    agent_encode(message, &frame);
    fd_write_all(fd, frame.data, frame.length);
    buffer_free(&frame);
}

static enum agent_kind hear(int fd)
{
    static uint8_t body[AGENT_MOST_BODY_BYTES];
    uint8_t bytes[AGENT_HEADER_BYTES];
    struct agent_header head;
    if (recv(fd, bytes, sizeof(bytes), MSG_WAITALL) != sizeof(bytes) || agent_decode_header(bytes, &head) < 0 ||
        (head.body_bytes > 0 && recv(fd, body, head.body_bytes, MSG_WAITALL) != (ssize_t)head.body_bytes))
        return 0;
    return head.kind;
}

/* Until it is asked to stop, by a client or by a signal. */
static void serve(int listener, int signals)
{
    for (;;) {
        struct pollfd ready[] = {{.fd = listener, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
        if (poll(ready, 2, -1) > 0 && ready[1].revents != 0)
            return;
        auto_close int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        enum agent_kind kind = hear(fd);
        if (kind == AGENT_STOP || kind == AGENT_PAUSE)
            say(fd, &(struct agent_message){.id = 1, .kind = AGENT_DONE, .flags = AGENT_LAST});
        if (kind == AGENT_STOP)
            return;
    }
}

/* From now on a stop is heeded when it is time, as the true process does it. */
static int take_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

static int fail(int report, const char *stage, int os_error)
{
    dprintf(
        report,
        "{\"state\": \"failed\", \"stage\": \"%s\", \"error\": {\"code\": 9, \"phase\": 2, \"field\": "
        "\"disks[0].path\", \"value\": \"v\", \"message\": \"it is not there\", \"remedy\": \"make it\", \"errno\": "
        "%d}}\n",
        stage, os_error);
    return 1;
}

static void wait_for_ever(void)
{
    poll(NULL, 0, -1);
}

int main(int argc, char *argv[])
{
    const char *mode = getenv("VIAL_FAKE"), *first = argument(argv, "--first-fd");
    int report = (int)strtol(argument(argv, "--report-fd"), NULL, 10);
    struct home home;
    struct store *store = NULL;
    struct vial_sandbox_info info = VIAL_SANDBOX_INFO_INIT;
    struct vial_exit end = VIAL_EXIT_INIT;
    struct vial_error err;
    int64_t run = 0;
    if (argc < 2 || mode == NULL || strcmp(argv[1], "sandbox-process") != 0)
        return 2;
    if (strcmp(mode, "hang") == 0)
        wait_for_ever();
    if (strcmp(mode, "fail") == 0)
        return fail(report, "machine", ENOENT);
    if (strcmp(mode, "silent") == 0)
        return dprintf(2, "first line\ncannot open shared object\n") < 0;
    if (home_open(argument(argv, "--home"), &home, &err) < 0 || store_open(&home, &store, &err) < 0)
        return fail(report, "store", EIO);
    int folder = home_sandbox_open(&home, argument(argv, "--id"));
    int lock = folder < 0 ? folder : home_sandbox_lock(folder);
    if (lock < 0)
        return fail(report, "lock", lock == -EWOULDBLOCK ? EALREADY : -lock);
    if (strcmp(mode, "locked") == 0)
        wait_for_ever();
    write_probe(folder);
    int signals = take_signals();
    int listener = listen_in(folder);
    if (store_find(store, argument(argv, "--id"), &info, &err) < 0 ||
        store_begin_run(store, info.id, getpid(), &run, &err) < 0 ||
        store_set_status(store, run, VIAL_SANDBOX_RUNNING, &err) < 0)
        return fail(report, "store", EIO);
    dprintf(report, "{\"state\": \"running\", \"pid\": %d}\n", getpid());
    close(report);
    if (strcmp(mode, "deaf") == 0) {
        signal(SIGTERM, SIG_IGN);
        wait_for_ever();
    }
    end.reason = VIAL_EXIT_STOP_REQUESTED;
    end.code = 143;
    if (strcmp(mode, "attach") == 0 && first != NULL) {
        int fd = (int)strtol(first, NULL, 10);
        end.reason = hear(fd) == AGENT_ATTACH ? VIAL_EXIT_COMPLETED : VIAL_EXIT_INTERNAL_ERROR;
        say(fd, &(struct agent_message){.id = 1, .kind = AGENT_STARTED, .started = {.pid = 1}});
        say(fd, &(struct agent_message){.id = 1, .kind = AGENT_DATA, .data = {.stream = 1, .bytes = {"hi", 2}}});
        say(fd, &(struct agent_message){.id = 1, .kind = AGENT_ENDED, .flags = AGENT_LAST, .ended = {.code = 5}});
        end.code = 5;
    } else {
        serve(listener, signals);
    }
    store_end_run(store, run, &end, &err);
    home_event(&home, "end", info.id, info.name, ", \"reason\": \"stop-requested\", \"code\": 143");
    unlinkat(folder, "relay.sock", 0);
    if (info.ephemeral) {
        store_remove(store, info.id, &err);
        home_sandbox_remove(&home, info.id);
    }
    store_free(store);
    return 0;
}
