// SPDX-License-Identifier: Apache-2.0
/* Memory that a Linux guest frees, or that its balloon takes, goes back to the host.
 *
 *     memory-returned INITRAMFS
 *
 * The guest fills a hundred MiB, says so, frees them, says so, and waits. Looked at is what the memory's file holds,
 * which is what this process has resident of it. First free page reporting gives it back by itself; then the balloon is
 * filled. The exit status is 0 when both returned what they should, and the guest has sent statistics.
 */
#include "tool.h"

#include "base/clock.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { patience_ms = 30000, look_ms = 100 };

static long held_mib(const struct vial_vm *vm)
{
    struct stat status;
    const struct memory_region *region = memory_region(vm->memory, 0);
    return fstat(region->fd, &status) == 0 ? (long)(status.st_blocks >> 11) : -1;
}

/* Resident pages of that mapping, as the kernel counts them. */
static long resident_mib(void)
{
    char line[512];
    long kib = -1, value;
    bool is_ram = false;
    FILE *file = fopen("/proc/self/smaps", "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (strchr(line, '-') != NULL && strstr(line, " r") != NULL)
            is_ram = strstr(line, "memfd:vial-ram") != NULL;
        if (is_ram && sscanf(line, "Rss: %ld kB", &value) == 1)
            kib = (kib < 0 ? 0 : kib) + value;
    }
    if (file != NULL)
        fclose(file);
    return kib / 1024;
}

static bool read_until(int fd, const char *text)
{
    char seen[8192];
    size_t length = 0;
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    for (;;) {
        if (length == sizeof(seen) - 1 || poll(&poller, 1, patience_ms) <= 0)
            return false;
        ssize_t got = read(fd, seen + length, sizeof(seen) - 1 - length);
        if (got <= 0)
            return false;
        length += (size_t)got;
        seen[length] = '\0';
        if (strstr(seen, text) != NULL)
            return true;
    }
}

/* Waits until no more than that is held. */
static bool falls_to(const struct vial_vm *vm, long mib)
{
    for (uint64_t end_ns = clock_deadline_ns(patience_ms * CLOCK_NS_PER_MS); clock_now_ns() < end_ns;) {
        if (held_mib(vm) <= mib)
            return true;
        poll(NULL, 0, look_ms);
    }
    return false;
}

int main(int argc, char *argv[])
{
    struct vial_machine_options machine = VIAL_MACHINE_OPTIONS_INIT;
    struct vial_vm_stats stats = VIAL_VM_STATS_INIT;
    int ends[2];
    if (argc != 2 || pipe(ends) < 0)
        return 125;
    machine.memory_mib = 256;
    machine.balloon_stats_interval_ms = 200;
    struct vial_vm_config *config = tool_configure(argv[1], ends[1], &machine);
    struct vial_vm *vm = tool_start(config, NULL, 0);
    bool is_up = read_until(ends[0], "filled");
    long filled = held_mib(vm), filled_resident = resident_mib();
    bool is_freed = read_until(ends[0], "freed");
    bool is_reported = falls_to(vm, filled - 80);
    long reported = held_mib(vm), reported_resident = resident_mib();
    bool is_inflating = vial_vm_set_balloon(vm, 128, NULL) == 0;
    bool is_inflated = false;
    for (int i = 0; i < patience_ms / look_ms && !is_inflated; i++) {
        vial_vm_get_stats(vm, &stats, NULL);
        is_inflated = stats.balloon_mib == 128;
        poll(NULL, 0, look_ms);
    }
    printf("filled: %ld MiB held, %ld resident; freed and reported: %ld held, %ld resident; inflated: %ld held\n",
           filled, filled_resident, reported, reported_resident, held_mib(vm));
    printf("balloon %llu MiB, reported %llu MiB, guest has %llu MiB, %llu free\n",
           (unsigned long long)stats.balloon_mib, (unsigned long long)stats.balloon_reported_bytes >> 20,
           (unsigned long long)stats.guest_total_bytes >> 20, (unsigned long long)stats.guest_free_bytes >> 20);
    bool has_stats = stats.guest_total_bytes < UINT64_MAX && stats.guest_free_bytes <= stats.guest_total_bytes;
    bool is_good = is_up && is_freed && is_reported && is_inflating && is_inflated && has_stats && filled > 100 &&
                   filled_resident - reported_resident > 70 && held_mib(vm) <= 128;
    vial_vm_free(vm);
    vial_vm_config_free(config);
    return !is_good;
}
