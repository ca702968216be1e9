// SPDX-License-Identifier: Apache-2.0
/* Namespaces for the jail, and ids that are nobody else's.
 *
 * As root, the program gets an id that no other process of the host has: 0x70000000 + its pid, above what useradd,
 * subuid files and container managers (systemd ends at 0x6fffffff) hand out. So the limits that go by user are its own,
 * and no other guest may signal or trace it. As an ordinary user it keeps that user's id. Inside, both are called
 * 65534, and no other id exists.
 *
 * Where the id cannot be mapped because we are ourselves in a user namespace with few ids, root counts as an ordinary
 * user, which it is.
 *
 * Invariants: (1) a probe leaves no process behind. (2) an id map has exactly one line of one id.
 *
 * Trust: the host's kernel.
 */
#include "engine/uml/jail_namespaces.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/limits.h"
#include "host/namespaces.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { id_inside = 65534, first_unique_id = 0x70000000, most_pids = 1 << 22 };

static const unsigned long flags[JAIL_WALLS] = {
    [JAIL_USER_NS] = CLONE_NEWUSER, [JAIL_MOUNT_NS] = CLONE_NEWNS, [JAIL_PID_NS] = CLONE_NEWPID,
    [JAIL_NET_NS] = CLONE_NEWNET,   [JAIL_IPC_NS] = CLONE_NEWIPC,  [JAIL_UTS_NS] = CLONE_NEWUTS,
};

unsigned long jail_namespace_flag(enum jail_wall wall)
{
    return flags[wall];
}

/* ---- probing ---- */

/* In the child of a probe: whether what was made can be used. Where AppArmor restricts them, a user namespace is made
 * and then good for nothing. */
static int try_mounts(void)
{
    if (syscall(SYS_mount, NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return errno;
    return syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC) < 0 ? errno : 0;
}

/* 0, or a positive errno. */
static int try_namespaces(unsigned long namespaces)
{
    int pidfd = -1;
    siginfo_t end = {0};
    long pid = syscall(SYS_clone, namespaces | CLONE_PIDFD, NULL, &pidfd, NULL, NULL);
    while (pid == 0)
        syscall(SYS_exit_group, (namespaces & CLONE_NEWNS) != 0 ? try_mounts() : 0);
    if (pid < 0)
        return errno;
    while (waitid(P_PIDFD, (id_t)pidfd, &end, WEXITED | __WALL) < 0 && errno == EINTR)
        ;
    fd_close(pidfd);
    return end.si_code == CLD_EXITED ? end.si_status : EPERM;
}

unsigned long jail_namespaces_probe(int ret_errors[JAIL_WALLS])
{
    unsigned long granted = 0;
    ret_errors[JAIL_USER_NS] = try_namespaces(CLONE_NEWUSER);
    if (ret_errors[JAIL_USER_NS] == 0)
        granted = CLONE_NEWUSER;
    for (int wall = 0; wall < JAIL_WALLS; wall++) {
        if (flags[wall] == 0 || wall == JAIL_USER_NS)
            continue;
        ret_errors[wall] = try_namespaces((granted & CLONE_NEWUSER) | flags[wall]);
        if (ret_errors[wall] == 0)
            granted |= flags[wall];
    }
    return granted;
}

/* ---- identity ---- */

/* Whether the ids that we would give exist in our user namespace, and whether its root is the one outside, by a file of
 * lines "INSIDE OUTSIDE COUNT" (user_namespaces(7)). */
static int read_map(const char *path, bool *ret_has_unique, bool *ret_is_outside)
{
    auto_buffer struct buffer text = BUFFER_INIT(LIMIT_PROC_FILE_BYTES);
    int result = fd_read_file(path, &text);
    *ret_has_unique = *ret_is_outside = false;
    if (result < 0)
        return result;
    char *rest = text.data;
    for (const char *line; rest != NULL && (line = strsep(&rest, "\n")) != NULL;) {
        uint64_t inside = 0, outside = 0, count = 0;
        if (sscanf(line, "%" SCNu64 "%" SCNu64 "%" SCNu64, &inside, &outside, &count) != 3)
            continue;
        *ret_has_unique |= inside <= first_unique_id && inside + count >= (uint64_t)first_unique_id + most_pids;
        *ret_is_outside |= inside == 0 && outside == 0;
    }
    return 0;
}

int jail_identity_choose(struct jail_identity *ret_identity)
{
    bool has_users = false, has_groups = false, is_outside = false, is_group_outside = false;
    *ret_identity = (struct jail_identity){0};
    if (geteuid() != 0)
        return 0;
    int result = read_map("/proc/self/uid_map", &has_users, &is_outside);
    if (result == 0)
        result = read_map("/proc/self/gid_map", &has_groups, &is_group_outside);
    ret_identity->is_unique = has_users && has_groups;
    ret_identity->is_root = is_outside && !ret_identity->is_unique;
    return result;
}

bool jail_identity_is_unique(uint32_t id)
{
    return id - first_unique_id < most_pids;
}

static int write_map(pid_t pid, const char *name, const char *text)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    auto_close int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    return fd_write_all(fd, text, strlen(text));
}

static int write_maps(pid_t pid, uint32_t user, uint32_t group, bool keeps_groups)
{
    char text[64];
    /* Who may not set groups himself must first forbid it to the namespace (user_namespaces(7)). */
    int result = keeps_groups ? write_map(pid, "setgroups", "deny") : 0;
    if (result < 0)
        return result;
    snprintf(text, sizeof(text), "%d %u 1\n", id_inside, group);
    result = write_map(pid, "gid_map", text);
    if (result < 0)
        return result;
    snprintf(text, sizeof(text), "%d %u 1\n", id_inside, user);
    return write_map(pid, "uid_map", text);
}

int jail_identity_give(const struct jail_identity *identity, pid_t pid, bool has_user_namespace, struct jail_go *ret_go,
                       uint32_t *ret_host_id)
{
    uint32_t unique = first_unique_id + (uint32_t)pid;
    uint32_t user = identity->is_unique ? unique : geteuid(), group = identity->is_unique ? unique : getegid();
    if (has_user_namespace) {
        int result = write_maps(pid, user, group, !identity->is_unique);
        if (result < 0)
            return result;
    }
    *ret_go = (struct jail_go){
        .user = has_user_namespace ? id_inside : user,
        .group = has_user_namespace ? id_inside : group,
        .changes_ids = identity->is_unique,
        .is_root = identity->is_root,
    };
    *ret_host_id = user;
    return 0;
}

/* ---- what to do ---- */

const char *jail_namespace_remedy(enum jail_wall wall, int os_error)
{
    static const char *const when_full[JAIL_WALLS] = {
        [JAIL_MOUNT_NS] = "sysctl user.max_mnt_namespaces=10000",
        [JAIL_PID_NS] = "sysctl user.max_pid_namespaces=10000",
        [JAIL_NET_NS] = "sysctl user.max_net_namespaces=10000",
        [JAIL_IPC_NS] = "sysctl user.max_ipc_namespaces=10000",
        [JAIL_UTS_NS] = "sysctl user.max_uts_namespaces=10000",
    };
    if (os_error == ENOSPC && when_full[wall] != NULL)
        return when_full[wall];
    return host_user_namespace_remedy("", os_error); /* with one of those, everybody may make the others */
}
