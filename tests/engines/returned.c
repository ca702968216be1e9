// SPDX-License-Identifier: Apache-2.0
/* Memory that a guest frees, or that its balloon takes, goes back to the host, and comes again; on any engine.
 *
 *     balloon-returns ENGINE INITRAMFS
 *
 *     guest                          this process                      what the memory's file holds
 *     ─────                          ────────────                      ────────────────────────────
 *     fills 100 MiB, says "filled"   looks                             more than 100 MiB
 *     frees them, says "freed"       looks                             80 less: free page reporting
 *                                    balloon of 160 of 256 MiB         at most 96 + what mapping costs
 *                                    balloon of 0
 *     fills 100 MiB, says "again"    looks                             more than 100 MiB again
 *
 * The guest's memory is a file in a memory file system on each engine, and devices have it mapped in this process. What
 * the file holds is asked with mincore(2), which looks at the file and not at who has touched it: so no descriptor of
 * it, no engine's internals and no privilege are needed. The guest waits for a line on its port between the steps.
 */
#include "tool.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { memory_mib = 256, balloon_mib = 160, patience_ms = 60000, look_ms = 100, page = 4096 };

static const char guest[] = "for name in /sys/class/virtio-ports/*/name; do\n"
                            "  [ \"$(cat $name)\" != steps ] || { port=${name%/name}; port=/dev/${port##*/}; }\n"
                            "done\n"
                            "exec 3<>$port\n"
                            "step() { echo $1 >&3; read -r line <&3; }\n"
                            "dd if=/dev/zero of=/fill bs=1M count=100 2>/dev/null && step filled\n"
                            "rm /fill && step freed\n"
                            "dd if=/dev/zero of=/fill bs=1M count=100 2>/dev/null && step again\n";

/* ---- what the file holds ---- */

static long held_mib_of(unsigned long begin, unsigned long end)
{
    size_t pages = (end - begin) / page, held = 0;
    unsigned char *flags = malloc(pages);
    if (flags == NULL || mincore((void *)begin, end - begin, flags) < 0)
        pages = 0;
    for (size_t i = 0; i < pages; i++)
        held += flags[i] & 1;
    free(flags);
    return (long)(held >> 8);
}

/* Every device has a mapping of its own; the fullest of one that is shared, writable, and large enough. */
static long held_mib(void)
{
    char line[512];
    long most = -1;
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps != NULL && fgets(line, sizeof(line), maps) != NULL) {
        unsigned long begin, end;
        char rights[8];
        if (sscanf(line, "%lx-%lx %7s", &begin, &end, rights) != 3 || strcmp(rights, "rw-s") != 0)
            continue;
        if (end - begin < (unsigned long)memory_mib << 19)
            continue;
        long held = held_mib_of(begin, end);
        most = held > most ? held : most;
    }
    if (maps != NULL)
        fclose(maps);
    return most;
}

static bool falls_to(long mib)
{
    for (int waited = 0; waited < patience_ms; waited += look_ms) {
        if (held_mib() <= mib)
            return true;
        poll(NULL, 0, look_ms);
    }
    return false;
}

/* ---- the guest ---- */

static bool hears(int port, const char *word)
{
    char seen[256];
    size_t length = 0;
    struct pollfd poller = {.fd = port, .events = POLLIN};
    while (length < sizeof(seen) - 1 && poll(&poller, 1, patience_ms) > 0) {
        ssize_t got = read(port, seen + length, sizeof(seen) - 1 - length);
        if (got <= 0)
            break;
        length += (size_t)got;
        seen[length] = '\0';
        if (strstr(seen, word) != NULL)
            return true;
    }
    fprintf(stderr, "the guest did not say that it has %s\n", word);
    return false;
}

static bool go_on(int port)
{
    return write(port, "\n", 1) == 1;
}

static bool balloon_becomes(struct vial_vm *vm, uint64_t mib, struct vial_vm_stats *stats)
{
    struct vial_error err = {0};
    tool_check(vial_vm_set_balloon(vm, mib, &err), &err);
    for (int waited = 0; waited < patience_ms; waited += look_ms) {
        tool_check(vial_vm_get_stats(vm, stats, &err), &err);
        if (stats->balloon_mib == mib)
            return true;
        poll(NULL, 0, look_ms);
    }
    fprintf(stderr, "the balloon has %llu MiB instead of %llu\n", (unsigned long long)stats->balloon_mib,
            (unsigned long long)mib);
    return false;
}

static void add_port(struct vial_vm_config *config, int fd)
{
    struct vial_console_port_options options = VIAL_CONSOLE_PORT_OPTIONS_INIT;
    struct vial_error err = {0};
    options.name = "steps";
    options.kind = VIAL_CONSOLE_PORT_INOUT;
    options.input_fd = options.output_fd = fd;
    tool_check(vial_vm_config_add_console_port(config, &options, &err), &err);
}

static bool fill_and_free(int port)
{
    if (!hears(port, "filled"))
        return false;
    long filled = held_mib();
    go_on(port);
    bool is_good = hears(port, "freed") && falls_to(filled - 80);
    printf("%ld MiB held when filled, %ld when freed and reported\n", filled, held_mib());
    return is_good && filled > 100;
}

static bool fill_and_empty_balloon(struct vial_vm *vm)
{
    struct vial_vm_stats stats = VIAL_VM_STATS_INIT;
    bool is_good = balloon_becomes(vm, balloon_mib, &stats) && falls_to(memory_mib - balloon_mib);
    printf("%ld MiB held with a balloon of %d; %llu MiB were reported free before, the guest has %llu, %llu free\n",
           held_mib(), balloon_mib, (unsigned long long)stats.balloon_reported_bytes >> 20,
           (unsigned long long)stats.guest_total_bytes >> 20, (unsigned long long)stats.guest_free_bytes >> 20);
    is_good &= stats.guest_total_bytes < UINT64_MAX && stats.guest_free_bytes <= stats.guest_total_bytes;
    return balloon_becomes(vm, 0, &stats) && is_good;
}

int main(int argc, char *argv[])
{
    static const char *const command[] = {"sh", "-c", guest, NULL};
    struct vial_exit end = VIAL_EXIT_INIT;
    struct vial_error err = {0};
    int ends[2];
    if (argc != 3 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return 125;
    struct vial_vm_config *config = tool_configure(argv[1], argv[2], memory_mib, command);
    add_port(config, ends[1]);
    struct vial_vm *vm = tool_start(config);
    bool is_good = fill_and_free(ends[0]) && fill_and_empty_balloon(vm);
    go_on(ends[0]);
    is_good = is_good && hears(ends[0], "again");
    long again = held_mib();
    go_on(ends[0]);
    printf("%ld MiB held when filled again\n", again);
    if (is_good)
        tool_check(vial_vm_wait(vm, patience_ms, &end, &err), &err);
    is_good = is_good && again > 100 && end.reason == VIAL_EXIT_COMPLETED;
    vial_vm_free(vm);
    vial_vm_config_free(config);
    return !is_good;
}
