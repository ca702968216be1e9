// SPDX-License-Identifier: Apache-2.0
/* vial stats: what sandboxes use, live.
 *
 * On a terminal the table is drawn again each second, over the one before. Everywhere else, and with --no-stream, it is
 * drawn once. CPU is of one CPU of the host: since the last drawing, at first since the start.
 *
 * Trust: arguments are the user's own; numbers are shown as such.
 */
#include "cli/sandbox.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>

struct row {
    struct vial_sandbox_info info;
    struct vial_sandbox_stats stats;
    double cpu; /* in percent of one */
};

struct stats {
    const struct command *command;
    struct vial_home *home; /* owned */
    char *const *names;     /* borrowed; empty: all that run */
    struct row *rows;       /* owned, as of the last drawing */
    size_t count;
    struct loop *loop; /* owned, while it is live */
    struct loop_source *timer;
    int status;
    bool is_once, is_json;
};

/* ---- collecting ---- */

static const struct row *find_row(const struct stats *stats, const char *id)
{
    for (size_t i = 0; i < stats->count; i++)
        if (strcmp(stats->rows[i].info.id, id) == 0)
            return &stats->rows[i];
    return NULL;
}

static double cpu_percent(const struct stats *stats, const struct row *row)
{
    const struct row *before = find_row(stats, row->info.id);
    uint64_t cpu_ns = row->stats.cpu_ns, time_ns = row->stats.uptime_ns;
    if (before != NULL && before->stats.uptime_ns > time_ns) /* it was started anew */
        before = NULL;
    if (before != NULL && before->stats.uptime_ns == time_ns) /* nobody has measured since */
        return before->cpu;
    if (before != NULL && cpu_ns >= before->stats.cpu_ns) {
        cpu_ns -= before->stats.cpu_ns;
        time_ns -= before->stats.uptime_ns;
    }
    return time_ns > 0 ? (double)cpu_ns * 100 / (double)time_ns : 0;
}

/* 0, -ESRCH for one that does not run, or -errno with an error. */
static int fill_row(const struct stats *stats, struct vial_sandbox *sandbox, struct row *row, struct vial_error *error)
{
    row->info = (struct vial_sandbox_info)VIAL_SANDBOX_INFO_INIT;
    row->stats = (struct vial_sandbox_stats)VIAL_SANDBOX_STATS_INIT;
    int result = vial_sandbox_get_info(sandbox, &row->info, error);
    if (result == 0)
        result = vial_sandbox_get_stats(sandbox, &row->stats, error);
    if (result == 0)
        row->cpu = cpu_percent(stats, row);
    return result;
}

static int collect_named(struct stats *stats, struct row *rows, size_t *ret_count, struct vial_error *error)
{
    size_t count = 0;
    for (char *const *name = stats->names; *name != NULL; name++) {
        auto_sandbox struct vial_sandbox *sandbox = NULL;
        int result = vial_sandbox_open(stats->home, *name, &sandbox, error);
        if (result == 0)
            result = fill_row(stats, sandbox, &rows[count], error);
        if (result < 0)
            return result;
        count++;
    }
    *ret_count = count;
    return 0;
}

/* Those that end meanwhile are left out. */
static int collect_all(struct stats *stats, const struct vial_sandbox_info *list, size_t length, struct row *rows,
                       size_t *ret_count)
{
    size_t count = 0;
    for (size_t i = 0; i < length; i++) {
        auto_sandbox struct vial_sandbox *sandbox = NULL;
        if (list[i].pid > 0 && vial_sandbox_open(stats->home, list[i].id, &sandbox, NULL) == 0 &&
            fill_row(stats, sandbox, &rows[count], NULL) == 0)
            count++;
    }
    *ret_count = count;
    return 0;
}

static int collect(struct stats *stats, struct vial_error *error)
{
    auto_free struct vial_sandbox_info *list = NULL;
    size_t most = 0, count = 0;
    int result = 0;
    if (stats->names[0] == NULL)
        result = vial_sandbox_list(stats->home, NULL, &list, &most, error);
    for (char *const *name = stats->names; *name != NULL; name++)
        most++;
    if (result < 0)
        return result;
    auto_free struct row *rows = alloc_zero((most + 1) * sizeof(rows[0]));
    if (rows == NULL)
        return -ENOMEM;
    result = list != NULL ? collect_all(stats, list, most, rows, &count) : collect_named(stats, rows, &count, error);
    if (result < 0)
        return result;
    free(stats->rows);
    stats->rows = steal_ptr(rows);
    stats->count = count;
    return 0;
}

/* ---- drawing ---- */

/* Two amounts with a stroke between. */
static struct time_text pair_text(uint64_t first, uint64_t second)
{
    struct time_text text;
    snprintf(text.text, sizeof(text.text), "%.14s / %.14s", amount_text(first).text, amount_text(second).text);
    return text;
}

static json_t *row_to_json(const struct row *row)
{
    const struct vial_sandbox_stats *stats = &row->stats;
    return json_pack("{s:s, s:s, s:I, s:I, s:f, s:I, s:{s:I, s:I, s:I}, s:{s:I, s:I}, s:{s:I, s:I}, s:I, s:I}", "name",
                     row->info.name, "id", row->info.id, "uptime_ns", (json_int_t)stats->uptime_ns, "cpu_ns",
                     (json_int_t)stats->cpu_ns, "cpu_percent", row->cpu, "memory_bytes",
                     (json_int_t)stats->memory_bytes, "guest", "total_bytes", (json_int_t)stats->guest_total_bytes,
                     "available_bytes", (json_int_t)stats->guest_available_bytes, "balloon_bytes",
                     (json_int_t)stats->balloon_bytes, "disk", "read_bytes", (json_int_t)stats->disk_read_bytes,
                     "written_bytes", (json_int_t)stats->disk_written_bytes, "network", "received_bytes",
                     (json_int_t)stats->network_received_bytes, "sent_bytes", (json_int_t)stats->network_sent_bytes,
                     "sessions", (json_int_t)stats->sessions, "processes", (json_int_t)stats->processes);
}

static void print_row(const struct row *row)
{
    const struct vial_sandbox_stats *stats = &row->stats;
    uint64_t used = stats->guest_total_bytes - stats->guest_available_bytes;
    if (stats->guest_available_bytes > stats->guest_total_bytes)
        used = 0;
    printf("%-20.20s %6.1f %10s  %-21s %-21s %8" PRIu64 " %6" PRIu64 "\n", row->info.name, row->cpu,
           amount_text(stats->memory_bytes).text, pair_text(used, stats->guest_total_bytes).text,
           pair_text(stats->disk_read_bytes, stats->disk_written_bytes).text, stats->sessions, stats->processes);
}

static void print_rows(const struct stats *stats)
{
    const struct palette *colour = palette_for(stdout);
    printf("%s%-20s %6s %10s  %-21s %-21s %8s %6s%s\n", colour->bold, "NAME", "CPU %", "HOST", "GUEST / TOTAL",
           "READ / WRITTEN", "SESSIONS", "PROCS", colour->off);
    for (size_t i = 0; i < stats->count; i++)
        print_row(&stats->rows[i]);
}

static int draw(struct stats *stats)
{
    struct vial_error error = {0};
    int result = collect(stats, &error);
    if (result < 0) {
        print_error(stats->command->path, &error);
        return EXIT_OURS;
    }
    if (!stats->is_json) {
        print_rows(stats);
        return finish_output(EXIT_YES);
    }
    json_t *array = json_array();
    for (size_t i = 0; i < stats->count; i++)
        json_array_append_new(array, row_to_json(&stats->rows[i]));
    return print_json(array, EXIT_YES);
}

/* ---- live ---- */

static void handle_second(void *user, uint32_t what)
{
    struct stats *stats = user;
    (void)what;
    if (palette_for(stdout)->off[0] != '\0') /* to the top left, and what is there away */
        fputs("\033[H\033[J", stdout);
    stats->status = draw(stats);
    if (stats->status == EXIT_YES)
        loop_set_deadline(stats->timer, clock_deadline_ns(CLOCK_NS_PER_S));
    else
        loop_stop(stats->loop);
}

static int run_live(struct stats *stats)
{
    int result = loop_new(&stats->loop);
    if (result == 0)
        result = loop_add_timer(stats->loop, clock_now_ns(), handle_second, stats, &stats->timer);
    if (result == 0)
        result = loop_run(stats->loop);
    stats->loop = loop_free(stats->loop);
    return result == 0 ? stats->status : refuse_use(stats->command, "it cannot wait", "add --no-stream");
}

static int run_stats(const struct command *command, int argc, char *argv[])
{
    struct stats stats = {.command = command, .names = argv + 1};
    int operands = command_options(command, &stats, argc, argv, 0, LIMIT_STRINGS, &stats.is_json);
    if (operands < 0)
        return options_status(operands);
    if (sandbox_open_home(command, &stats.home) < 0)
        return EXIT_OURS;
    bool is_live = is_live_terminal(stdout) && !stats.is_once && !stats.is_json;
    int status = is_live ? run_live(&stats) : draw(&stats);
    free(stats.rows);
    vial_home_free(stats.home);
    return status;
}

static const struct command_option options[] = {
    {"--no-stream", 0, NULL, "once, even on a terminal", take_true, offsetof(struct stats, is_once)},
    {"--json", 0, NULL, "once, as a JSON array", NULL},
    {.name = NULL},
};

const struct command command_stats = {
    .name = "stats",
    .path = "vial stats",
    .arguments = "[OPTIONS] [SANDBOX]...",
    .summary = "Show what sandboxes use: CPU, memory, disk",
    .about =
        "Of those that are named, or of all that run; on a terminal again each second. HOST is what it takes of this "
        "host's memory, GUEST what the guest's kernel counts as used.",
    .statuses = "0, or 125 when one of those named does not run",
    .options = {options},
    .run = run_stats,
    .operand = COMPLETE_RUNNING,
};
