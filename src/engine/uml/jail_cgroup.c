// SPDX-License-Identifier: Apache-2.0
/* A control group around a jail: bounds on memory and processes together (cgroup v2).
 *
 * Where may we make one? A group with processes in it cannot hand controllers to groups below (cgroups(7), "no internal
 * processes"), but for the root. So below our own group first, which works in the root and where somebody has prepared
 * it; then beside it, below its parent, which works where a part of the tree was delegated to us, as systemd does for
 * users. We never move ourselves or change what another group gets.
 *
 *     …/parent/ours/vial-PID-N    or    …/parent/vial-PID-N
 *
 * Whoever uses a group holds a lock on its folder (flock(2)), which ends with him. So a group without a lock is one
 * that a killed process has left, and the next start removes it. It has no processes any more, or the removal fails.
 *
 * Invariants: (1) a group that is returned has both bounds. (2) after jail_cgroup_free the group is gone.
 *
 * Trust: the tree is the host's; names in it may be anybody's, and only names of our form are touched.
 */
#include "engine/uml/jail_cgroup.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/limits.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct jail_cgroup {
    int parent_fd;          /* owned: the folder that the group is in */
    int fd;                 /* owned: its own, locked */
    int kill_fd, events_fd; /* owned: files in it, open because whoever ends it may open none any more; or -1 */
    char name[48];
};

static atomic_uint next_number;

/* ---- small files ---- */

static int write_file(int folder_fd, const char *name, const char *text)
{
    auto_close int fd = openat(folder_fd, name, O_WRONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd_write_all(fd, text, strlen(text));
}

static int write_number(int folder_fd, const char *name, uint64_t number)
{
    char text[32];
    snprintf(text, sizeof(text), "%" PRIu64, number);
    return write_file(folder_fd, name, text);
}

/* ---- where ---- */

/* The mount of cgroup v2: the rest of a line "TYPE PATH cgroup2 …" of /proc/mounts. */
static int find_mount(char *ret_path, size_t size)
{
    auto_buffer struct buffer text = BUFFER_INIT(LIMIT_PROC_FILE_BYTES);
    int result = fd_read_file("/proc/self/mounts", &text);
    if (result < 0)
        return result;
    char *rest = text.data;
    for (char *line; rest != NULL && (line = strsep(&rest, "\n")) != NULL;) {
        strsep(&line, " ");
        const char *path = strsep(&line, " "), *type = line != NULL ? strsep(&line, " ") : NULL;
        if (path == NULL || type == NULL || strcmp(type, "cgroup2") != 0)
            continue;
        return snprintf(ret_path, size, "%s", path) < (int)size ? 0 : -ENAMETOOLONG;
    }
    return -ENOENT;
}

/* The folder of our own group, by the line "0::/PATH" of /proc/self/cgroup, and whether there is a group above it. */
static int find_own(char *ret_path, size_t size, bool *ret_has_parent)
{
    auto_buffer struct buffer text = BUFFER_INIT(LIMIT_PROC_FILE_BYTES);
    int result = find_mount(ret_path, size);
    if (result == 0)
        result = fd_read_file("/proc/self/cgroup", &text);
    if (result < 0)
        return result;
    size_t length = strlen(ret_path);
    char *rest = text.data;
    for (const char *line; rest != NULL && (line = strsep(&rest, "\n")) != NULL;) {
        if (strncmp(line, "0::/", 4) != 0)
            continue;
        const char *below = strcmp(line + 3, "/") != 0 ? line + 3 : "";
        *ret_has_parent = below[0] != '\0';
        return snprintf(ret_path + length, size - length, "%s", below) < (int)(size - length) ? 0 : -ENAMETOOLONG;
    }
    return -ENOENT;
}

/* ---- groups that were left ---- */

static void remove_if_left(int parent_fd, const char *name)
{
    auto_close int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        unlinkat(parent_fd, name, AT_REMOVEDIR);
}

static void sweep(int parent_fd)
{
    int own_fd = openat(parent_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* a position of its own */
    DIR *folder = own_fd >= 0 ? fdopendir(own_fd) : NULL;
    if (folder == NULL) {
        fd_close(own_fd);
        return;
    }
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        unsigned pid = 0, number = 0;
        char end = '\0';
        if (sscanf(entry->d_name, "vial-%u-%u%c", &pid, &number, &end) == 2)
            remove_if_left(parent_fd, entry->d_name);
    }
    closedir(folder);
}

/* ---- making one ---- */

static int bound(int fd, uint64_t memory_bytes)
{
    int result = write_number(fd, "memory.max", memory_bytes);
    if (result == 0)
        result = write_number(fd, "pids.max", LIMIT_JAIL_PROCESSES);
    if (result == 0)
        write_file(fd, "memory.oom.group", "1"); /* Linux 4.19; without it the jail dies piece by piece */
    return result;
}

/* Between its making and its lock a sweeper may have taken it for one that was left. */
static int lock(int fd)
{
    struct stat status;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &status) < 0)
        return -errno;
    return status.st_nlink > 0 ? 0 : -ENOENT;
}

/* A new group that is locked, and so ours for good. */
static int make_locked(struct jail_cgroup *cgroup)
{
    snprintf(cgroup->name, sizeof(cgroup->name), "vial-%d-%u", (int)getpid(), atomic_fetch_add(&next_number, 1));
    if (mkdirat(cgroup->parent_fd, cgroup->name, 0755) < 0)
        return -errno;
    cgroup->fd = openat(cgroup->parent_fd, cgroup->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = cgroup->fd < 0 ? -errno : lock(cgroup->fd);
    if (result < 0)
        cgroup->fd = fd_close(cgroup->fd);
    return result;
}

/* Whether groups below this one get both controllers. Without, nothing is made: there would be nothing to bound, and
 * for a moment a folder that a kill leaves. */
static bool hands_down(int parent_fd)
{
    char text[256];
    bool has_memory = false, has_pids = false;
    auto_close int fd = openat(parent_fd, "cgroup.subtree_control", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (got < 0)
        return false;
    text[got] = '\0';
    char *rest = text;
    for (const char *word; (word = strsep(&rest, " \n")) != NULL;) {
        has_memory = has_memory || strcmp(word, "memory") == 0;
        has_pids = has_pids || strcmp(word, "pids") == 0;
    }
    return has_memory && has_pids;
}

static int make_below(struct jail_cgroup *cgroup, const char *parent, uint64_t memory_bytes)
{
    enum { most_attempts = 16 };
    cgroup->parent_fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (cgroup->parent_fd < 0)
        return -errno;
    sweep(cgroup->parent_fd);
    int asked = write_file(cgroup->parent_fd, "cgroup.subtree_control", "+memory +pids");
    if (!hands_down(cgroup->parent_fd)) /* where others have asked for them, a refusal does not matter */
        return asked == -EACCES || asked == -EPERM || asked == -EROFS ? asked : -ENOENT;
    int result = make_locked(cgroup);
    for (int i = 1; i < most_attempts && (result == -ENOENT || result == -EWOULDBLOCK); i++)
        result = make_locked(cgroup); /* another start has swept it away */
    if (result == 0)
        result = bound(cgroup->fd, memory_bytes);
    if (result < 0) {
        unlinkat(cgroup->parent_fd, cgroup->name, AT_REMOVEDIR);
        return result;
    }
    cgroup->kill_fd = openat(cgroup->fd, "cgroup.kill", O_WRONLY | O_CLOEXEC); /* Linux 5.14 */
    cgroup->events_fd = openat(cgroup->fd, "cgroup.events", O_RDONLY | O_CLOEXEC);
    return 0;
}

static void close_all(struct jail_cgroup *cgroup)
{
    cgroup->kill_fd = fd_close(cgroup->kill_fd);
    cgroup->events_fd = fd_close(cgroup->events_fd);
    cgroup->fd = fd_close(cgroup->fd);
    cgroup->parent_fd = fd_close(cgroup->parent_fd);
}

int jail_cgroup_new(uint64_t memory_bytes, struct jail_cgroup **ret_cgroup)
{
    char path[PATH_MAX];
    struct jail_cgroup *cgroup = alloc_zero(sizeof(*cgroup));
    if (cgroup == NULL)
        return -ENOMEM;
    cgroup->parent_fd = cgroup->fd = cgroup->kill_fd = cgroup->events_fd = -1;
    bool has_parent = false;
    int result = find_own(path, sizeof(path), &has_parent);
    if (result == 0)
        result = make_below(cgroup, path, memory_bytes);
    if (result < 0 && cgroup->parent_fd >= 0 && has_parent) {
        close_all(cgroup);
        snprintf(path + strlen(path), sizeof(path) - strlen(path), "/..");
        result = make_below(cgroup, path, memory_bytes);
    }
    if (result < 0) {
        close_all(cgroup);
        free(cgroup);
        return result == -ENOENT ? -EOPNOTSUPP : result; /* no cgroup v2, or no such controllers in it */
    }
    *ret_cgroup = cgroup;
    return 0;
}

int jail_cgroup_fd(const struct jail_cgroup *cgroup)
{
    return cgroup->fd;
}

int jail_cgroup_add(const struct jail_cgroup *cgroup, pid_t pid)
{
    return write_number(cgroup->fd, "cgroup.procs", (uint64_t)pid);
}

/* ---- the end ---- */

/* Whether processes are left in it. A change of the file is told by POLLPRI (cgroups(7)). */
static bool is_populated(int events_fd)
{
    char text[128];
    ssize_t got = pread(events_fd, text, sizeof(text) - 1, 0);
    if (got <= 0)
        return false;
    text[got] = '\0';
    return strstr(text, "populated 1") != NULL;
}

struct jail_cgroup *jail_cgroup_free(struct jail_cgroup *cgroup)
{
    if (cgroup == NULL)
        return NULL;
    if (cgroup->kill_fd >= 0)
        (void)fd_write_all(cgroup->kill_fd, "1", 1); /* without a PID namespace, some may live */
    struct pollfd change = {.fd = cgroup->events_fd, .events = POLLPRI};
    while (change.fd >= 0 && is_populated(change.fd) && (poll(&change, 1, LIMIT_JAIL_END_MS) > 0 || errno == EINTR))
        ;
    unlinkat(cgroup->parent_fd, cgroup->name, AT_REMOVEDIR);
    close_all(cgroup);
    free(cgroup);
    return NULL;
}
