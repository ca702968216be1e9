// SPDX-License-Identifier: Apache-2.0
/* The plan of a jail: paths, sizes, limits; all that is computed before the child exists.
 *
 * Invariants: (1) every path fits a socket's address. (2) no size of a file system is 0, which would mean none.
 *
 * Trust: sizes and descriptors come from the engine, which has checked the configuration; the initramfs is a file of
 * the caller's.
 */
#include "engine/uml/jail_private.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { page_bytes = 4096 };

/* The entry of the first CPU: all are alike as far as user-mode Linux looks. Without one the kernel runs, too; it then
 * knows none of its CPU's features. */
static void read_cpuinfo(struct jail_plan *plan)
{
    size_t length = 0, most = sizeof(plan->cpuinfo) - 1;
    auto_close int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && length < most) {
        ssize_t got = read(fd, plan->cpuinfo + length, most - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        length += (size_t)got;
    }
    plan->cpuinfo[length] = '\0';
    const char *end = strstr(plan->cpuinfo, "\n\n");
    plan->cpuinfo_length = end != NULL ? (size_t)(end + 1 - plan->cpuinfo) : length;
}

static int measure_initramfs(struct jail_plan *plan, int fd, struct vial_error *err)
{
    struct stat status;
    plan->initramfs_fd = fd;
    if (fd < 0)
        return 0;
    if (fstat(fd, &status) < 0)
        return error_set_os(err, VIAL_PHASE_START, errno, "the initramfs cannot be examined");
    if (!S_ISREG(status.st_mode))
        return error_set(err, VIAL_ERROR_WRONG_KIND, VIAL_PHASE_START, "the initramfs is not a regular file");
    plan->initramfs_bytes = (uint64_t)status.st_size;
    return 0;
}

static void set_option(struct jail_mount_option *option, const char *key, uint64_t value)
{
    option->key = key;
    snprintf(option->value, sizeof(option->value), "%" PRIu64, value);
}

static uint64_t whole_pages(uint64_t bytes)
{
    return (bytes + page_bytes - 1) / page_bytes * page_bytes;
}

static void plan_file_systems(struct jail_plan *plan)
{
    /* The root, four folders in it, cpuinfo and initrd, and the sockets; each needs an inode. */
    enum { fixed_inodes = 7, state_inodes = 8, state_bytes = 16 << 10 };
    set_option(&plan->root_options[0], "size", whole_pages(plan->initramfs_bytes) + LIMIT_JAIL_ROOT_BYTES);
    set_option(&plan->root_options[1], "nr_inodes", fixed_inodes + plan->socket_count);
    /* Two inodes: its root and the one file. A page more than the file has, because none may be missing. */
    set_option(&plan->memory_options[0], "size", whole_pages(plan->memory_bytes) + page_bytes);
    set_option(&plan->memory_options[1], "nr_inodes", 2);
    set_option(&plan->state_options[0], "size", state_bytes);
    set_option(&plan->state_options[1], "nr_inodes", state_inodes);
}

/* What all processes of a jail may use together: the guest's memory and the initramfs are files of theirs; a process of
 * the guest costs the host 88 KiB at least (page tables, stack, a socket, a mapping for every few pages: measured); and
 * the kernel itself has some MiB that are not in its memory file. With a quarter more, a guest of 1 GiB can have 3500
 * processes. */
static uint64_t group_bytes(const struct jail_plan *plan)
{
    enum { fixed_bytes = 64 << 20 };
    return whole_pages(plan->initramfs_bytes) + plan->memory_bytes + plan->memory_bytes / 4 + fixed_bytes;
}

static void plan_limits(struct jail_plan *plan)
{
    const struct jail_rlimit limits[] = {
        {RLIMIT_CORE,
         1}, /* less than any dump; and the one value that keeps a crash from a host's dump handler (core(5)) */
        {RLIMIT_FSIZE, whole_pages(plan->memory_bytes)}, /* each page beyond it would be missing inside */
        {RLIMIT_MEMLOCK, 0},
        {RLIMIT_MSGQUEUE, 0},
        {RLIMIT_NICE, 0},
        {RLIMIT_RTPRIO, 0},
        {RLIMIT_STACK, 8 << 20}, /* user-mode Linux looks for its address space's end by it */
        {RLIMIT_NOFILE, LIMIT_JAIL_DESCRIPTORS},
        {RLIMIT_NPROC, LIMIT_JAIL_PROCESSES},
        {RLIMIT_SIGPENDING, LIMIT_JAIL_PROCESSES},
    };
    _Static_assert(array_length(limits) <= JAIL_RLIMITS_MOST, "the plan has room for the limits");
    memcpy(plan->rlimits, limits, sizeof(limits));
    plan->rlimit_count = array_length(limits);
}

struct jail_path jail_plan_path(const struct jail_plan *plan, const char *path)
{
    struct jail_path result;
    snprintf(result.text, sizeof(result.text), "%s%s", plan->folder, path); /* fits, or jail_plan_make had failed */
    return result;
}

static int plan_sockets(struct jail_plan *plan, const struct jail_options *options, struct vial_error *err)
{
    plan->socket_fds = options->socket_fds;
    plan->socket_count = options->socket_count;
    if (plan->socket_count == 0)
        return 0;
    plan->addresses = alloc_zero(plan->socket_count * sizeof(*plan->addresses));
    if (plan->addresses == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    for (size_t i = 0; i < plan->socket_count; i++) {
        struct sockaddr_un *address = &plan->addresses[i];
        address->sun_family = AF_UNIX;
        snprintf(address->sun_path, sizeof(address->sun_path), "%s/socket/%zu", plan->folder, i);
    }
    return 0;
}

int jail_plan_make(struct jail_plan *plan, const struct jail_options *options, const char *folder,
                   struct vial_error *err)
{
    plan->folder = folder;
    plan->memory_bytes = options->memory_bytes;
    if (strlen(folder) + sizeof("/socket/4294967295") > sizeof(plan->addresses->sun_path))
        return error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_START, "the folder %s is too long for sockets in it",
                         error_short(folder).text);
    int result = measure_initramfs(plan, options->initramfs_fd, err);
    if (result == 0)
        result = plan_sockets(plan, options, err);
    if (result < 0)
        return result;
    read_cpuinfo(plan);
    plan->group_bytes = group_bytes(plan);
    plan_file_systems(plan);
    plan_limits(plan);
    return 0;
}

void jail_plan_clear(struct jail_plan *plan)
{
    free(plan->addresses);
    plan->addresses = NULL;
}
