// SPDX-License-Identifier: Apache-2.0
/* Opening what is below a shared folder, for the first time and again.
 *
 * openat2 resolves names beneath a descriptor of ours and refuses symbolic and magic links on the way; a link that is
 * the last component is opened as the link that it is (O_PATH | O_NOFOLLOW, see openat2(2), RESOLVE_NO_SYMLINKS). No
 * name that comes here is ".." (the names are components that the guest looked up), so the result lies below the
 * descriptor, whatever the host renames meanwhile.
 *
 * A node that has lost its descriptor is opened by the names from its nearest ancestor with one, all in one call. What
 * is found must be the same inode, born at the same time.
 *
 * Invariants: (1) no link is ever followed. (2) a node gets a descriptor of its own inode or none. (3) a place of any
 * depth is reached in a bounded number of steps, each of which opens a path of PATH_MAX bytes at most.
 *
 * Trust: names are a hostile guest's or host's; the descriptors are ours.
 */
#include "device/fs/node.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* As many paths of PATH_MAX bytes make up the deepest place that can be opened again. */
enum { most_steps = 64 };

static long open_once(const struct host_nodes *nodes, int folder_fd, const char *path, int flags, mode_t mode)
{
    struct open_how how = {
        .flags = (unsigned)flags | O_NOFOLLOW | O_CLOEXEC,
        .mode = (flags & O_CREAT) != 0 ? mode : 0,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    if (nodes->one_device)
        how.resolve |= RESOLVE_NO_XDEV;
    return syscall(SYS_openat2, folder_fd, path, &how, sizeof(how));
}

int host_open(struct host_nodes *nodes, int folder_fd, const char *path, int flags, mode_t mode)
{
    for (;;) {
        long fd = open_once(nodes, folder_fd, path, flags, mode);
        if (fd >= 0)
            return (int)fd;
        if (errno == EXDEV)
            return -ENOENT;
        bool may_retry = errno == EINTR || errno == EAGAIN ||
                         ((errno == EMFILE || errno == ENFILE) && host_nodes_shed(nodes));
        if (!may_retry)
            return -errno;
    }
}

int host_status(int fd, struct statx *ret_status)
{
    return statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID, ret_status) < 0 ? -errno : 0;
}

struct host_identity host_identity_of(const struct statx *status)
{
    bool has_birth = (status->stx_mask & STATX_BTIME) != 0;
    return (struct host_identity){
        .device = makedev(status->stx_dev_major, status->stx_dev_minor),
        .inode = status->stx_ino,
        .mount = (status->stx_mask & STATX_MNT_ID) != 0 ? status->stx_mnt_id : 0,
        .born_s = has_birth ? status->stx_btime.tv_sec : 0,
        .born_ns = has_birth ? status->stx_btime.tv_nsec : 0,
        .type = status->stx_mode & S_IFMT,
    };
}

/* ---- again ---- */

/* One step on the way to a node: `target` is `path` below `base`; both are pinned. */
struct step {
    struct host_node *base, *target;
    struct host_identity identity; /* of the target */
    const char *path;              /* in bytes */
    char bytes[PATH_MAX];
};

/* Puts the name in front of the path: false when there is no room. */
static bool prepend(struct step *step, const char *name)
{
    size_t length = strlen(name);
    size_t room = (size_t)(step->path - step->bytes);
    bool is_last = *step->path == '\0';
    if (length + !is_last > room)
        return false;
    char *start = step->bytes + (room - length - !is_last);
    memcpy(start, name, length);
    if (!is_last)
        start[length] = '/';
    step->path = start;
    return true;
}

/* The names between the node and its nearest ancestor with a descriptor. Where they are too long for one path, it is an
 * ancestor without one that is opened first. Under the lock. */
static int plan(struct host_nodes *nodes, struct host_node *node, struct step *step)
{
    step->bytes[PATH_MAX - 1] = '\0';
    step->path = step->bytes + PATH_MAX - 1;
    step->target = node;
    struct host_node *at = node;
    for (; at->fd < 0; at = at->parent) {
        if (at->parent == NULL)
            return -ESTALE;
        if (!prepend(step, at->name)) {
            step->path = step->bytes + PATH_MAX - 1;
            step->target = at;
            prepend(step, at->name); /* fits: a name has 255 bytes */
        }
    }
    step->base = at;
    step->identity = step->target->identity;
    host_nodes_hold(nodes, step->base);
    host_nodes_hold(nodes, step->target);
    return 0;
}

static int take(struct host_nodes *nodes, const struct step *step)
{
    auto_close int fd = host_open(nodes, step->base->fd, step->path, O_PATH, 0);
    if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP)
        return -ESTALE;
    if (fd < 0)
        return fd;
    struct statx status;
    int result = host_status(fd, &status);
    if (result < 0)
        return result;
    struct host_identity identity = host_identity_of(&status);
    if (!host_identity_is(&identity, &step->identity))
        return -ESTALE;
    host_nodes_install(nodes, step->target, steal_fd(&fd));
    return 0;
}

int host_nodes_reopen(struct host_nodes *nodes, struct host_node *node)
{
    struct step step;
    bool is_there = false;
    for (int steps = 0; !is_there; steps++) {
        if (steps == most_steps)
            return -ESTALE;
        pthread_mutex_lock(&nodes->lock);
        is_there = node->fd >= 0;
        int result = is_there ? 0 : plan(nodes, node, &step);
        pthread_mutex_unlock(&nodes->lock);
        if (is_there || result < 0)
            return result;
        result = take(nodes, &step);
        host_nodes_unpin(nodes, step.target);
        host_nodes_unpin(nodes, step.base);
        if (result < 0)
            return result;
    }
    return 0;
}
