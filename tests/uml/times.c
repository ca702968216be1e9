// SPDX-License-Identifier: Apache-2.0
/* How long boots and ends of machines on user-mode Linux take, phase by phase.
 *
 *     uml-times [RUNS [CPUS [MODE [WORDS…]]]]      VERBOSE=1 shows what the library logs, SHOW=1 what the guest says
 */
#include "uml.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { most_runs = 1000, phases = 4 };

static double times_ms[phases][most_runs];
static const char *const phase_names[phases] = {"start returns", "first line", "end", "freed"};

static int compare(const void *left, const void *right)
{
    double difference = *(const double *)left - *(const double *)right;
    return difference < 0 ? -1 : difference > 0;
}

static double since(const struct guest *guest, uint64_t time_ns)
{
    return (double)(time_ns - guest->start_ns) / 1e6;
}

/* What the guest says until its console is gone; true when the first line was among it. */
static bool read_all(struct guest *guest)
{
    static char bytes[65536];
    bool is_shown = getenv("SHOW") != NULL;
    bool is_up = guest_expect(guest, "guest: up");
    fwrite(guest->text, 1, is_shown ? guest->length : 0, stdout);
    for (ssize_t got; is_up && (got = read(guest->output_fd, bytes, sizeof(bytes))) > 0;)
        fwrite(bytes, 1, is_shown ? (size_t)got : 0, stdout);
    return is_up;
}

static bool run(const struct guest_options *options, unsigned index)
{
    static struct guest guest;
    bool is_good = guest_run(&guest, options) && read_all(&guest) && guest_wait(&guest);
    if (is_good) {
        times_ms[0][index] = since(&guest, guest.started_ns);
        times_ms[1][index] = since(&guest, guest.up_ns);
        times_ms[2][index] = since(&guest, guest.end_ns);
    }
    if (!is_good || getenv("SHOW") != NULL)
        printf("%s: %s\n", vial_exit_reason_name(guest.exit.reason), guest.exit.detail);
    guest_free(&guest);
    times_ms[3][index] = since(&guest, clock_now_ns());
    return is_good;
}

int main(int argc, char **argv)
{
    unsigned runs = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 20;
    struct guest_options options = {
        .vcpus = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 1,
        .mode = argc > 3 ? argv[3] : "off",
        .cmdline = argc > 4 ? argv[4] : NULL,
    };
    runs = runs > most_runs ? most_runs : runs;
    if (getenv("VERBOSE") != NULL)
        vial_log_to_fd(STDERR_FILENO, VIAL_LOG_DEBUG, VIAL_LOG_STYLE_NEVER, NULL);
    for (unsigned i = 0; i < runs; i++)
        if (!run(&options, i))
            return 1;
    for (int i = 0; i < phases; i++) {
        qsort(times_ms[i], runs, sizeof(times_ms[i][0]), compare);
        printf("%u CPUs, %-14s min %7.2f  median %7.2f  max %7.2f ms\n", options.vcpus, phase_names[i], times_ms[i][0],
               times_ms[i][runs / 2], times_ms[i][runs - 1]);
    }
    return 0;
}
