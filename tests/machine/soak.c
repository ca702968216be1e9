// SPDX-License-Identifier: Apache-2.0
/* A thousand machines, one after the other, in one process: nothing grows. */
#include "test.h"

#include "machine.h"

#include <unistd.h>

/* Sanitizers have memory and threads of their own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { is_sanitized = 1 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
enum { is_sanitized = 1 };
#else
enum { is_sanitized = 0 };
#endif
#else
enum { is_sanitized = 0 };
#endif

/* Private memory of this process in KiB. */
static long private_kib(void)
{
    char line[256];
    long dirty = -1;
    FILE *file = fopen("/proc/self/smaps_rollup", "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL)
        if (sscanf(line, "Private_Dirty: %ld kB", &dirty) == 1)
            break;
    if (file != NULL)
        fclose(file);
    return dirty;
}

static bool run_one(const char *payload)
{
    struct machine machine;
    struct vial_exit end = VIAL_EXIT_INIT;
    bool is_fine = machine_configure(&machine, payload) && machine_start(&machine, NULL, 0) &&
                   vial_vm_wait(machine.vm, 10000, &end, NULL) == 0 && end.reason == VIAL_EXIT_COMPLETED;
    machine_release(&machine);
    return is_fine;
}

TEST(a_thousand_machines_leave_nothing)
{
    if (!machine_can_run())
        return;
    enum { warm_up = 20, rounds = is_sanitized ? 200 : 1000, allowed_growth_kib = 256 };
    for (int i = 0; i < warm_up; i++)
        CHECK(run_one("off"));
    unsigned descriptors = machine_count_entries("/proc/self/fd"), threads = machine_count_entries("/proc/self/task");
    long before_kib = private_kib();
    for (int i = 0; i < rounds; i++)
        CHECK(run_one("off"));
    CHECK_INT(machine_count_entries("/proc/self/fd"), descriptors);
    CHECK_INT(machine_count_entries("/proc/self/task"), threads);
    CHECK(is_sanitized || threads == 3); /* this thread, and the two dots */
    long growth_kib = private_kib() - before_kib;
    printf("# private memory: %ld KiB, grown by %ld KiB\n", before_kib, growth_kib);
    CHECK(before_kib > 0 && (is_sanitized || growth_kib < allowed_growth_kib));
}
