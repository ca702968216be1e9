// SPDX-License-Identifier: Apache-2.0
/* Where a machine of one CPU runs.
 *
 * User-mode Linux with one CPU is many processes of which one runs at a time: its kernel and those of its guest, which
 * hand over to each other at every system call, page fault and switch. The host's scheduler sees a process that wakes
 * another, finds an idle CPU for it, and so has each hand-over wake a CPU that sleeps. On a virtual host that takes
 * some 25 us each way; on one CPU it is a switch, of 3. Held on one CPU a guest's system call takes 9 us instead of
 * 57, and a program's start half as long (docs/BENCHMARKS.md).
 *
 * Held there for ever, two machines that share a CPU would share it while others stand idle. So the engine's thread
 * looks now and then, and moves the machine as the scheduler would:
 *
 *     QUIET ── has run for a tenth of the time ──> WATCHING, a quarter of a second ──> moved: QUIET
 *       ^                                             │    if its CPU was never idle, a fifth of that was others',
 *       └───────────── else ──────────────────────────┘    another CPU had nothing to do, and the coin says so
 *
 * What others had is what is left of the CPU's time: the host does not add up how long so many processes wait. The
 * coin: of two machines on one CPU one should go, not both; who loses watches on. Where no CPU is idle, nothing would
 * be won by moving. An idle machine is looked at less and less often, every 4 s in the end.
 *
 * Who gives the program other CPUs (taskset(1)) has the last word: it is not moved any more.
 *
 * The first CPU is the scheduler's own choice, by the load at the program's exec. Moving takes the program first, so
 * that what it makes from then on is held on the new CPU, and then its children, as the host lists them.
 *
 * As root it takes CAP_SYS_NICE, for the jail's id is not ours; where that is missing (some container runtimes drop it)
 * placement_begin fails and nothing is held. A process that cannot be moved later is not held in the first place.
 *
 * Invariants: (1) a process is only ever held on one of the CPUs that this process may use. (2) after placement_begin
 * nothing is opened: a confined thread can go on looking. (3) a failure to look or to move changes nothing else.
 *
 * Trust: the numbers are the host's. A hostile guest may make children without end, of which a look moves those that it
 * is told of, and thousands at most: the others are held in the old place, which slows that guest. Between the list and
 * the move a child may end and its number be given to another process, which is then held on one CPU: numbers go round
 * by tens of thousands of processes, and what lies between is one system call.
 */
#include "engine/uml/placement.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { text_bytes = 64 << 10, children_most = 4096 };

#define QUIET_NS CLOCK_NS_PER_S
#define WATCH_NS (CLOCK_NS_PER_S / 4)
#define IDLE_NS (4 * CLOCK_NS_PER_S)

struct placement {
    pid_t program;
    cpu_set_t allowed;
    int cpu;                  /* where the program is held */
    int children_fd, load_fd; /* owned: the program's children, the host's stat */
    bool is_watching;         /* idle[0] holds the time of the last look */
    uint64_t looked_ns, pause_ns, ran_ns;
    uint64_t tick_ns;
    uint64_t idle[2][CPU_SETSIZE]; /* at the last look, and at this one */
    char text[text_bytes];
};

/* ---- what the host says ---- */

/* Behind the name, which may hold anything, the state is field 3 and the CPU field 39. */
int placement_parse_cpu(const char *text)
{
    const char *at = strrchr(text, ')');
    for (int field = 2; at != NULL && field < 39; field++) {
        at = strchr(at, ' ');
        at = at == NULL ? NULL : at + 1;
    }
    char *end = NULL;
    unsigned long cpu = at == NULL ? CPU_SETSIZE : strtoul(at, &end, 10);
    return at == NULL || end == at || cpu >= CPU_SETSIZE ? -EPROTO : (int)cpu;
}

void placement_parse_idle(const char *text, uint64_t *idle)
{
    memset(idle, 0xff, CPU_SETSIZE * sizeof(idle[0]));
    for (const char *line = text; line != NULL && strncmp(line, "cpu", 3) == 0;
         line = strchr(line, '\n'), line = line == NULL ? NULL : line + 1) {
        unsigned cpu;
        uint64_t nothing, io;
        int length = 0;
        if (line[3] == ' ') /* all of them together */
            continue;
        sscanf(line, "cpu%u %*u %*u %*u %" SCNu64 " %" SCNu64 " %n", &cpu, &nothing, &io, &length);
        if (length > 0 && cpu < CPU_SETSIZE)
            idle[cpu] = nothing + io;
    }
}

int placement_choose(const cpu_set_t *allowed, int own, const uint64_t *before, const uint64_t *after, uint64_t least)
{
    int best = -1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, allowed) || cpu == own || before[cpu] == UINT64_MAX || after[cpu] == UINT64_MAX ||
            after[cpu] < before[cpu] || after[cpu] - before[cpu] < least)
            continue;
        if (best < 0 || after[cpu] - before[cpu] > after[best] - before[best])
            best = cpu;
    }
    return best;
}

/* What a file of /proc says now, up to what the text takes. */
static int read_text(struct placement *placement, int fd)
{
    ssize_t length = pread(fd, placement->text, sizeof(placement->text) - 1, 0);
    if (length < 0)
        return -errno;
    placement->text[length] = '\0';
    return length == 0 ? -ESRCH : 0;
}

/* What a process has run; 0 when it has ended. Anybody may ask for anybody's. */
static uint64_t ran_of(pid_t pid)
{
    clockid_t clock;
    struct timespec ran;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &ran) < 0)
        return 0;
    return (uint64_t)ran.tv_sec * CLOCK_NS_PER_S + (uint64_t)ran.tv_nsec;
}

/* Calls function with each child of the program. A part of the list ends anywhere, in a number too; the next one begins
 * with that. */
static void each_child(const struct placement *placement, void (*function)(pid_t child, void *user), void *user)
{
    char part[4096];
    off_t offset = 0;
    for (int left = children_most; left > 0;) {
        ssize_t length = pread(placement->children_fd, part, sizeof(part) - 1, offset);
        if (length <= 0)
            return;
        part[length] = '\0';
        char *end = strrchr(part, ' '); /* one is behind each number */
        if (end == NULL)
            return;
        offset += end + 1 - part;
        for (char *at = part; at < end && left > 0; left--) {
            pid_t pid = (pid_t)strtol(at, &at, 10);
            if (pid <= 0)
                return;
            function(pid, user);
        }
    }
}

static void add_ran(pid_t child, void *user)
{
    uint64_t *ran_ns = user;
    *ran_ns += ran_of(child);
}

/* ---- holding ---- */

static int hold(pid_t pid, int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    return sched_setaffinity(pid, sizeof(set), &set) < 0 ? -errno : 0;
}

static void hold_child(pid_t child, void *user)
{
    const int *cpu = user;
    hold(child, *cpu);
}

/* As we left it: not when somebody has given it other CPUs meanwhile, or the host has taken ours away. */
static bool is_held(const struct placement *placement)
{
    cpu_set_t set;
    return sched_getaffinity(placement->program, sizeof(set), &set) == 0 && CPU_COUNT(&set) == 1 &&
           CPU_ISSET((size_t)placement->cpu, &set);
}

static void move(struct placement *placement, int cpu)
{
    int result = hold(placement->program, cpu);
    if (result == 0)
        each_child(placement, hold_child, &cpu);
    log_debug("uml.moved", LOG_INT("from", placement->cpu), LOG_INT("to", cpu), LOG_ERRNO(result));
    placement->cpu = result == 0 ? cpu : placement->cpu;
}

/* ---- looking ---- */

/* By what changes with every look and every machine. */
static bool toss_coin(const struct placement *placement)
{
    uint64_t bits = placement->ran_ns ^ placement->looked_ns ^ (uint64_t)placement->program;
    return bits * UINT64_C(0x9e3779b97f4a7c15) >> 63 != 0;
}

/* Whether others run on our CPU, too, as the time since the last look says. */
static bool is_shared(const struct placement *placement, uint64_t passed_ns, uint64_t ran_ns)
{
    const uint64_t *before = placement->idle[0], *after = placement->idle[1];
    int cpu = placement->cpu;
    if (before[cpu] == UINT64_MAX || after[cpu] == UINT64_MAX || after[cpu] < before[cpu])
        return false;
    uint64_t idle_ns = (after[cpu] - before[cpu]) * placement->tick_ns;
    return idle_ns < passed_ns / 10 && idle_ns + ran_ns + passed_ns / 5 < passed_ns;
}

/* The end of a watch: whether another one should follow. */
static bool look_for_better(struct placement *placement, uint64_t passed_ns, uint64_t ran_ns)
{
    if (!is_shared(placement, passed_ns, ran_ns) || !is_held(placement))
        return false;
    int cpu = placement_choose(&placement->allowed, placement->cpu, placement->idle[0], placement->idle[1],
                               passed_ns / 5 * 3 / placement->tick_ns);
    if (cpu < 0)
        return false;
    if (!toss_coin(placement))
        return true;
    move(placement, cpu);
    return false;
}

uint64_t placement_look(struct placement *placement)
{
    uint64_t now_ns = clock_now_ns(), passed_ns = now_ns - placement->looked_ns, total_ns = ran_of(placement->program);
    if (total_ns == 0)
        return CLOCK_NEVER; /* it has ended */
    each_child(placement, add_ran, &total_ns);
    /* Less than before, when a child has ended that had run for long. */
    uint64_t ran_ns = total_ns > placement->ran_ns ? total_ns - placement->ran_ns : 0;
    bool is_busy = ran_ns > passed_ns / 10, watches = is_busy && !placement->is_watching;
    placement->ran_ns = total_ns;
    placement->looked_ns = now_ns;
    if ((is_busy || placement->is_watching) && read_text(placement, placement->load_fd) == 0) {
        placement_parse_idle(placement->text, placement->idle[1]);
        if (placement->is_watching)
            watches = look_for_better(placement, passed_ns, ran_ns);
        memcpy(placement->idle[0], placement->idle[1], sizeof(placement->idle[0]));
    }
    if (watches)
        placement->pause_ns = WATCH_NS;
    else if (is_busy || placement->is_watching)
        placement->pause_ns = QUIET_NS;
    else if (placement->pause_ns < IDLE_NS)
        placement->pause_ns *= 2;
    placement->is_watching = watches;
    return now_ns + placement->pause_ns;
}

/* ---- life ---- */

static int open_of(pid_t program, const char *name)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)program, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int open_files(struct placement *placement)
{
    char children[48];
    snprintf(children, sizeof(children), "task/%d/children", (int)placement->program);
    placement->children_fd = open_of(placement->program, children);
    placement->load_fd = open("/proc/stat", O_RDONLY | O_CLOEXEC);
    if (placement->children_fd < 0)
        return placement->children_fd;
    return placement->load_fd < 0 ? -errno : 0;
}

static int find_cpu(struct placement *placement)
{
    auto_close int fd = open_of(placement->program, "stat");
    int result = fd < 0 ? fd : read_text(placement, fd);
    return result < 0 ? result : placement_parse_cpu(placement->text);
}

int placement_begin(pid_t program, struct placement **ret_placement)
{
    *ret_placement = NULL;
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
        return -errno; /* more CPUs than a set has room for */
    if (CPU_COUNT(&allowed) < 2)
        return 0;
    struct placement *placement = alloc_zero(sizeof(*placement));
    if (placement == NULL)
        return -ENOMEM;
    placement->program = program;
    placement->allowed = allowed;
    placement->pause_ns = QUIET_NS;
    placement->tick_ns = CLOCK_NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK);
    placement->looked_ns = clock_now_ns();
    placement->children_fd = placement->load_fd = -1;
    int result = open_files(placement);
    if (result == 0)
        result = placement->cpu = find_cpu(placement);
    if (result >= 0)
        result = hold(program, placement->cpu);
    if (result < 0)
        placement_free(placement);
    else
        *ret_placement = placement;
    return result;
}

struct placement *placement_free(struct placement *placement)
{
    if (placement == NULL)
        return NULL;
    fd_close(placement->children_fd);
    fd_close(placement->load_fd);
    free(placement);
    return NULL;
}
