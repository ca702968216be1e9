// SPDX-License-Identifier: Apache-2.0
/* What this host can give to one machine.
 *
 * vCPUs may outnumber the host's CPUs (they are threads), so only KVM's own limit and ours count. Memory may not: a
 * guest that touches all of it must not be killed for it, so the bound is the host's memory, or the lowest limit on the
 * way from this process's cgroup to the root where that is lower.
 *
 * Invariants: (1) every member is set, whatever is missing.
 *
 * Trust: files of the kernel; see files.c.
 */
#include "host/capacity.h"

#include "base/fd.h"
#include "base/limits.h"
#include "host/files.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static uint64_t lower(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* What a group could give back at once: its share of the page cache. */
static uint64_t reclaimable_bytes(const char *root, const char *folder)
{
    auto_buffer struct buffer text = BUFFER_INIT(LIMIT_PROC_FILE_BYTES);
    uint64_t bytes = 0;
    if (host_file_read(root, host_path_join(folder, "/memory.stat").text, &text) < 0 ||
        !host_text_number(text.data, "inactive_file", &bytes))
        return 0;
    return bytes;
}

/* What the groups between the process's own and the root of the hierarchy allow together, in bytes: the lowest limit,
 * and the least that any of them has left. */
static void cgroup_memory(const char *root, uint64_t *ret_limit, uint64_t *ret_left)
{
    static const char mount[] = "/sys/fs/cgroup";
    auto_buffer struct buffer text = BUFFER_INIT(LIMIT_PROC_FILE_BYTES);
    *ret_limit = *ret_left = UINT64_MAX;
    if (host_file_read(root, "/proc/self/cgroup", &text) < 0)
        return;
    char *group = strstr(text.data, "0::/"); /* the unified hierarchy (cgroups(7)) */
    if (group == NULL)
        return;
    group += strlen("0::");
    group[strcspn(group, "\n")] = '\0';
    for (;;) {
        uint64_t most = 0, used = 0;
        struct host_path folder = host_path_join(mount, group);
        struct host_path limit = host_path_join(folder.text, "/memory.max");
        struct host_path current = host_path_join(folder.text, "/memory.current");
        if (host_file_number(root, limit.text, &most) == 0) { /* "max" is no number and does not limit */
            *ret_limit = lower(*ret_limit, most);
            if (host_file_number(root, current.text, &used) == 0) {
                used -= lower(used, reclaimable_bytes(root, folder.text));
                *ret_left = lower(*ret_left, used < most ? most - used : 0);
            }
        }
        char *slash = strrchr(group, '/');
        if (slash == NULL)
            return;
        *slash = '\0';
    }
}

static uint32_t usable_cpus(void)
{
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
        return (uint32_t)CPU_COUNT(&cpus);
    long online = sysconf(_SC_NPROCESSORS_ONLN); /* more CPUs than a cpu_set_t has bits */
    return online > 0 ? (uint32_t)online : 1;
}

/* Bytes as MiB; unknown stays unknown. */
static uint64_t as_mib(uint64_t bytes)
{
    return bytes == UINT64_MAX ? HOST_UNKNOWN : bytes >> 20;
}

static uint32_t kvm_max_vcpus(const char *root)
{
    auto_close int fd = open(host_path_join(root, "/dev/kvm").text, O_RDWR | O_CLOEXEC);
    int most = fd >= 0 ? ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS) : 0;
    return most > 0 && most < LIMIT_VCPUS ? (uint32_t)most : LIMIT_VCPUS;
}

void host_capacity_read(const char *root, struct host_capacity *ret_capacity)
{
    auto_buffer struct buffer text = BUFFER_INIT(LIMIT_PROC_FILE_BYTES);
    uint64_t total_kib = 0, available_kib = 0, group_limit = 0, group_left = 0;
    *ret_capacity = (struct host_capacity){
        .cpus = usable_cpus(),
        .max_vcpus = kvm_max_vcpus(root),
        .memory_mib = HOST_UNKNOWN,
        .available_mib = HOST_UNKNOWN,
    };
    if (host_file_read(root, "/proc/meminfo", &text) == 0) {
        if (host_text_number(text.data, "MemTotal", &total_kib))
            ret_capacity->memory_mib = total_kib >> 10;
        if (host_text_number(text.data, "MemAvailable", &available_kib))
            ret_capacity->available_mib = available_kib >> 10;
    }
    cgroup_memory(root, &group_limit, &group_left);
    ret_capacity->memory_mib = lower(ret_capacity->memory_mib, as_mib(group_limit));
    ret_capacity->available_mib = lower(ret_capacity->available_mib, ret_capacity->memory_mib);
    ret_capacity->available_mib = lower(ret_capacity->available_mib, as_mib(group_left));
}
