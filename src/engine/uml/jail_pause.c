// SPDX-License-Identifier: Apache-2.0
/* Stopping every process of a jail, and letting them go on.
 *
 * First the guest's kernel, so that it makes no more processes; then the processes of its guest, its children. What is
 * a descendant of the program is found in /proc, again and again until nothing runs: a program that has taken over the
 * kernel may have made more of them. Each is held by a pidfd while it is looked at, so that no signal can reach a
 * stranger who got its number.
 *
 * Nothing tells us of the stop of a process that is not our child; so between two looks there is a pause of a
 * millisecond, in which the end of the jail wakes us.
 *
 * A thread may be in state D: on its way to stop, or waiting for a child that it made by vfork and that was stopped
 * before its exec, for as long as that lasts. It executes nothing of its own until it sees the signal, so when
 * everything else has stopped and it is still there at the second look, it counts as stopped.
 *
 * Invariants: (1) when jail_pause returns 0, every thread of the jail has stopped, or will before its next instruction
 * in user space. (2) no process outside is signalled.
 *
 * Trust: the processes are hostile. They cannot catch SIGSTOP, nor go on by themselves: whoever could send SIGCONT has
 * stopped, too.
 */
#include "engine/uml/jail.h"

#include "base/alloc.h"
#include "base/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A process, by /proc/PID/stat. */
struct process {
    pid_t pid, parent;
    bool is_inside; /* the program, or a descendant of it */
};

struct processes {
    struct process *list; /* owned */
    size_t count, capacity;
};

/* What a look found among the threads of the jail. */
struct look {
    size_t running, waiting; /* neither stopped nor waiting; in state D */
};

/* ---- /proc ---- */

/* "PID (NAME) STATE PARENT …", where NAME may hold anything. */
static int read_stat(const char *path, char *ret_state, pid_t *ret_parent)
{
    char text[512];
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (got <= 0)
        return -ESRCH;
    text[got] = '\0';
    const char *name_end = strrchr(text, ')');
    int parent = 0;
    if (name_end == NULL || sscanf(name_end, ") %c %d", ret_state, &parent) != 2)
        return -EINVAL;
    *ret_parent = parent;
    return 0;
}

static int list_processes(struct processes *processes)
{
    enum { most_processes = 1 << 22 }; /* Linux's PID_MAX_LIMIT */
    DIR *folder = opendir("/proc");
    if (folder == NULL)
        return -errno;
    int result = 0;
    for (const struct dirent *entry; result == 0 && (entry = readdir(folder)) != NULL;) {
        char path[64], state;
        pid_t parent = 0, pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid <= 0 || snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid) < 0 ||
            read_stat(path, &state, &parent) < 0)
            continue;
        result = alloc_grow((void **)&processes->list, processes->count, &processes->capacity, sizeof(*processes->list),
                            most_processes);
        if (result == 0)
            processes->list[processes->count++] = (struct process){.pid = pid, .parent = parent};
    }
    closedir(folder);
    return result;
}

static int compare_processes(const void *a, const void *b)
{
    const struct process *first = a, *second = b;
    return (first->pid > second->pid) - (first->pid < second->pid);
}

static bool is_inside(const struct processes *processes, pid_t pid)
{
    struct process key = {.pid = pid};
    const struct process *found = bsearch(&key, processes->list, processes->count, sizeof(key), compare_processes);
    return found != NULL && found->is_inside;
}

/* Marks the program and, generation by generation, what descends from it. */
static void mark_inside(struct processes *processes, pid_t program)
{
    bool has_more = true;
    if (processes->count > 0)
        qsort(processes->list, processes->count, sizeof(*processes->list), compare_processes);
    while (has_more) {
        has_more = false;
        for (size_t i = 0; i < processes->count; i++) {
            struct process *process = &processes->list[i];
            if (process->is_inside || (process->pid != program && !is_inside(processes, process->parent)))
                continue;
            process->is_inside = true;
            has_more = true;
        }
    }
}

/* ---- stopping ---- */

/* Adds the threads of a process. */
static void count_threads(pid_t pid, struct look *look)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *folder = opendir(path);
    if (folder == NULL)
        return; /* it has ended */
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char state = 'Z';
        pid_t parent = 0;
        long thread = strtol(entry->d_name, NULL, 10);
        if (thread <= 0 || snprintf(path, sizeof(path), "/proc/%d/task/%ld/stat", (int)pid, thread) < 0 ||
            read_stat(path, &state, &parent) < 0 || strchr("TtZX", state) != NULL)
            continue;
        if (state == 'D')
            look->waiting++;
        else
            look->running++;
    }
    closedir(folder);
}

/* Signals it, if it is still the process that was listed: a number may have gone to another in between, but not once
 * the pidfd is open. */
static void signal_process(const struct process *process, int signal_number)
{
    char path[64], state;
    pid_t parent = 0;
    auto_close int pidfd = (int)syscall(SYS_pidfd_open, process->pid, 0);
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)process->pid);
    if (pidfd >= 0 && read_stat(path, &state, &parent) == 0 && parent == process->parent)
        syscall(SYS_pidfd_send_signal, pidfd, signal_number, NULL, 0);
}

/* Sends the signal to every process of the jail in which a thread runs, or to all of them. */
static int look_once(pid_t program, int signal_number, bool wants_all, struct look *ret_look)
{
    struct processes processes = {0};
    *ret_look = (struct look){0};
    int result = list_processes(&processes);
    if (result == 0)
        mark_inside(&processes, program);
    for (size_t i = 0; result == 0 && i < processes.count; i++) {
        if (!processes.list[i].is_inside)
            continue;
        struct look before = *ret_look;
        count_threads(processes.list[i].pid, ret_look);
        if (wants_all || ret_look->running != before.running || ret_look->waiting != before.waiting)
            signal_process(&processes.list[i], signal_number);
    }
    free(processes.list);
    return result;
}

/* A millisecond, or -ESRCH at once when the jail has ended. */
static int wait_a_little(const struct jail *jail, int milliseconds)
{
    struct pollfd end = {.fd = jail_pidfd(jail), .events = POLLIN};
    return poll(&end, 1, milliseconds) > 0 ? -ESRCH : 0;
}

int jail_pause(struct jail *jail)
{
    pid_t program = jail_pid(jail);
    bool only_waits = false; /* at the last look, too */
    int result = program < 0 ? -ESRCH : wait_a_little(jail, 0);
    while (result == 0) {
        struct look look;
        result = look_once(program, SIGSTOP, false, &look);
        if (result == 0 && look.running == 0 && (look.waiting == 0 || only_waits))
            return 0;
        only_waits = look.running == 0;
        if (result == 0)
            result = wait_a_little(jail, 1);
    }
    return result;
}

int jail_resume(struct jail *jail)
{
    struct look look;
    pid_t program = jail_pid(jail);
    int result = program < 0 ? -ESRCH : wait_a_little(jail, 0);
    return result < 0 ? result : look_once(program, SIGCONT, true, &look);
}
