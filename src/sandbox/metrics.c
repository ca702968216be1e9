// SPDX-License-Identifier: Apache-2.0
/* What a sandbox uses, sampled once a second.
 *
 *     CPU       this process (/proc/self/stat): devices, and on KVM the guest, whose CPUs are threads of ours. On
 *               user-mode Linux the guest is processes in a jail, whose time the host tells nobody but their parent
 *               when they end; what their kernel tells in its heartbeat is added.
 *     memory    the resident set (/proc/self/statm, not smaps, which walks page tables for milliseconds). On KVM guest
 *               memory is in it. User-mode Linux's is a file that we have mapped; what the guest says it uses stands
 *               for it.
 *     disk      what this process has read from and written to media (/proc/self/io); guests have no other way.
 *
 * Files of /proc are opened once and read at offset 0 again and again: a read is a new look, and a confined process can
 * open none.
 *
 * Invariants: (1) a sample costs a few system calls and waits for nothing. (2) stats.json is whole at any time: it is
 * replaced by rename. No fsync: it is about this second.
 *
 * Trust: numbers of a heartbeat are a hostile guest's and stand in the sample as such, up to the greatest that a reader
 * of JSON takes (INT64_MAX); where they are added to ours they are bounded first.
 */
#include "sandbox/metrics.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/text.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { most_file_bytes = 1024, most_text_bytes = 2048 };

void metrics_open(struct metrics *metrics, int folder)
{
    *metrics = (struct metrics){
        .folder = folder,
        .stat_fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC),
        .memory_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC),
        .io_fd = open("/proc/self/io", O_RDONLY | O_CLOEXEC),
        .ticks_per_second = (uint64_t)sysconf(_SC_CLK_TCK),
        .page_bytes = (uint64_t)sysconf(_SC_PAGESIZE),
        .text = BUFFER_INIT(most_text_bytes),
    };
}

void metrics_close(struct metrics *metrics)
{
    metrics->stat_fd = fd_close(metrics->stat_fd);
    metrics->memory_fd = fd_close(metrics->memory_fd);
    metrics->io_fd = fd_close(metrics->io_fd);
    buffer_free(&metrics->text);
}

/* ---- what the host tells ---- */

static bool read_file(int fd, char text[most_file_bytes])
{
    ssize_t length = fd >= 0 ? pread(fd, text, most_file_bytes - 1, 0) : -1;
    text[length > 0 ? length : 0] = '\0';
    return length > 0;
}

/* The word number `index` of the text, counted from 0, as a number; 0 where there is none. */
static uint64_t word(const char *text, unsigned index)
{
    uint64_t value = 0;
    for (; index > 0; index--) {
        text += strcspn(text, " \n");
        text += strspn(text, " \n");
    }
    return text_to_u64(text, strcspn(text, " \n"), UINT64_MAX, &value) == 0 ? value : 0;
}

/* proc_pid_stat(5): utime, stime, cutime and cstime are the fields 14 to 17; the name, which is the second, ends in the
 * last parenthesis. */
static uint64_t read_cpu_ns(const struct metrics *metrics)
{
    char text[most_file_bytes];
    const char *behind_name = read_file(metrics->stat_fd, text) ? strrchr(text, ')') : NULL;
    if (behind_name == NULL || behind_name[1] != ' ' || metrics->ticks_per_second == 0)
        return 0;
    uint64_t ticks = 0;
    for (unsigned field = 14; field <= 17; field++)
        ticks += word(behind_name + 2, field - 3);
    return ticks * (CLOCK_NS_PER_S / metrics->ticks_per_second);
}

static uint64_t read_memory_bytes(const struct metrics *metrics)
{
    char text[most_file_bytes];
    return read_file(metrics->memory_fd, text) ? word(text, 1) * metrics->page_bytes : 0;
}

/* proc_pid_io(5): one "name: number" a line. */
static uint64_t find_io(const char *text, const char *name)
{
    const char *line = strstr(text, name);
    return line != NULL ? word(line, 1) : 0;
}

/* ---- samples ---- */

static uint64_t real_time_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return clock_from_timespec(&now);
}

/* Of user-mode Linux; no guest uses more than it has, or was there longer than we were, on every CPU. */
static uint64_t guest_memory_bytes(const struct metrics *metrics)
{
    const struct agent_heartbeat *heartbeat = &metrics->heartbeat;
    bool is_sound = heartbeat->total_bytes >= heartbeat->available_bytes &&
                    heartbeat->total_bytes <= (uint64_t)LIMIT_MEMORY_MAX_MIB << 20;
    return metrics->engine == VIAL_ENGINE_UML && is_sound ? heartbeat->total_bytes - heartbeat->available_bytes : 0;
}

static uint64_t guest_cpu_ns(const struct metrics *metrics, uint64_t uptime_ns)
{
    uint64_t most_ns = (uptime_ns + 2 * CLOCK_NS_PER_S) * LIMIT_VCPUS;
    uint64_t busy_ns = metrics->heartbeat.busy_ns;
    return metrics->engine != VIAL_ENGINE_UML ? 0 : busy_ns < most_ns ? busy_ns : most_ns;
}

static uint64_t shown(uint64_t number)
{
    return number < INT64_MAX ? number : INT64_MAX;
}

int metrics_sample(struct metrics *metrics, struct vial_vm *vm, const struct relay_counters *relay,
                   uint64_t log_lost_bytes)
{
    char io[most_file_bytes];
    struct vial_vm_stats stats = VIAL_VM_STATS_INIT;
    struct buffer *text = &metrics->text;
    uint64_t uptime_ns = metrics->begin_ns > 0 ? clock_now_ns() - metrics->begin_ns : 0;
    if (vm != NULL)
        vial_vm_get_stats(vm, &stats, NULL);
    bool has_io = read_file(metrics->io_fd, io);
    text->length = 0;
    buffer_format(text, "{\"time_ns\":%" PRIu64 ",\"uptime_ns\":%" PRIu64, real_time_ns(), uptime_ns);
    buffer_format(text, ",\"cpu_ns\":%" PRIu64 ",\"guest_cpu_ns\":%" PRIu64,
                  read_cpu_ns(metrics) + guest_cpu_ns(metrics, uptime_ns), shown(metrics->heartbeat.busy_ns));
    buffer_format(text, ",\"memory_bytes\":%" PRIu64, read_memory_bytes(metrics) + guest_memory_bytes(metrics));
    buffer_format(text, ",\"guest_total_bytes\":%" PRIu64 ",\"guest_available_bytes\":%" PRIu64,
                  shown(metrics->heartbeat.total_bytes), shown(metrics->heartbeat.available_bytes));
    buffer_format(text, ",\"balloon_bytes\":%" PRIu64, stats.balloon_mib << 20);
    buffer_format(text, ",\"disk_read_bytes\":%" PRIu64 ",\"disk_written_bytes\":%" PRIu64,
                  has_io ? find_io(io, "\nread_bytes:") : 0, has_io ? find_io(io, "\nwrite_bytes:") : 0);
    buffer_format(text, ",\"network_received_bytes\":%" PRIu64 ",\"network_sent_bytes\":%" PRIu64,
                  stats.network_received_bytes, stats.network_sent_bytes);
    buffer_format(text, ",\"clients\":%zu,\"sessions\":%u,\"processes\":%u", relay->clients,
                  metrics->heartbeat.sessions, metrics->heartbeat.processes);
    buffer_format(text, ",\"log_lost_bytes\":%" PRIu64 "}", log_lost_bytes);
    int result = text->error;
    if (result < 0)
        buffer_free(text);
    return result;
}

void metrics_write(const struct metrics *metrics)
{
    static const char new_name[] = METRICS_FILE ".new";
    if (metrics->text.length == 0)
        return;
    auto_close int fd = openat(metrics->folder, new_name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return;
    bool is_whole = write(fd, metrics->text.data, metrics->text.length) == (ssize_t)metrics->text.length &&
                    write(fd, "\n", 1) == 1;
    if (!is_whole || renameat(metrics->folder, new_name, metrics->folder, METRICS_FILE) < 0)
        unlinkat(metrics->folder, new_name, 0);
}

void metrics_remove(const struct metrics *metrics)
{
    unlinkat(metrics->folder, METRICS_FILE, 0);
}
