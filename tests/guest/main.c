// SPDX-License-Identifier: Apache-2.0
/* guest-tests: tries what programs expect of Linux, in the guest that it runs in, and says what was not so.
 *
 *     guest-tests all | PART...      each part in a process of its own; exit status 0 when all were fine
 *     guest-tests nothing | bare     what the parts execute: ends at once; finds nothing in its memory
 *
 * A line for each part, which the test on the host counts:
 *
 *     fine PART (N ms) facts
 *     FAILED PART: the exit status, after lines that say what was wrong
 *
 * The same program runs on every engine and on the host itself, and does not know where it is. A part that hangs is
 * ended by its alarm.
 */
#include "part.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { patience_seconds = 100 }; /* an emulated machine takes its time */

static char facts[256];

static const struct part {
    const char *name;
    part_function *run;
} parts[] = {
    {"storm", part_storm},           {"vfork", part_vfork},
    {"pipes", part_pipes},           {"limits", part_limits},
    {"stack", part_stack},           {"cpus", part_cpus},
    {"threads", part_threads},       {"pingpong", part_pingpong},
    {"mappings", part_mappings},     {"faults", part_faults},
    {"sharing", part_sharing},       {"signals", part_signals},
    {"queued", part_queued},         {"stopping", part_stopping},
    {"arithmetic", part_arithmetic}, {"unix", part_unix},
    {"loopback", part_loopback},     {"epoll", part_epoll},
    {"registers", part_registers},   {"control-words", part_control_words},
    {"clocks", part_clocks},         {"leftovers", part_leftovers},
};

bool complain(const char *format, ...)
{
    int error = errno;
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    dprintf(STDOUT_FILENO, "  %s%s%s\n", text, error != 0 ? ": " : "", error != 0 ? strerror(error) : "");
    return false;
}

void note(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(facts, sizeof(facts), format, arguments);
    va_end(arguments);
}

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

unsigned cpu_count(void)
{
    return (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
}

void pin_to(unsigned cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof(set), &set);
}

int status_of(int child)
{
    int status;
    pid_t ended;
    do
        ended = waitpid(child, &status, 0);
    while (ended < 0 && errno == EINTR);
    if (ended < 0 || ended != child)
        return -1;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* In the child. */
static _Noreturn void run_part(const struct part *part)
{
    alarm(patience_seconds);
    uint64_t start_ns = now_ns();
    errno = 0;
    if (!part->run())
        _exit(1);
    dprintf(STDOUT_FILENO, "fine %s (%llu ms) %s\n", part->name, (unsigned long long)(now_ns() - start_ns) / 1000000,
            facts);
    _exit(0);
}

static bool try_part(const struct part *part)
{
    pid_t child = fork();
    if (child == 0)
        run_part(part);
    int status = child < 0 ? -1 : status_of(child);
    if (status != 0)
        dprintf(STDOUT_FILENO, "FAILED %s: %d\n", part->name, status);
    return status == 0;
}

int main(int argc, char *argv[])
{
    bool is_fine = argc > 1;
    int found = 0;
    if (argc == 2 && strcmp(argv[1], "nothing") == 0)
        return 0;
    if (argc == 2 && strcmp(argv[1], "bare") == 0)
        return !finds_nothing();
    for (int i = 1; i < argc; i++) {
        for (size_t j = 0; j < length_of(parts); j++) {
            if (strcmp(argv[i], "all") == 0 || strcmp(argv[i], parts[j].name) == 0) {
                is_fine &= try_part(&parts[j]);
                found++;
            }
        }
    }
    dprintf(STDOUT_FILENO, "%s: %d parts\n", is_fine && found > 0 ? "all fine" : "not all fine", found);
    return !is_fine || found == 0;
}
