// SPDX-License-Identifier: Apache-2.0
/* Trees, removed: one name after the other, some in a step, until the top is gone.
 *
 *     folders    top ── a ── b ── c       each open, and read on where it was left
 *                                 └─ unlink what is in it, then go up and remove it by its name
 *
 * Every name is opened and removed relative to the folder that it was found in, and no link is followed: what is moved
 * about meanwhile leads nowhere else. Another file system in the tree is not entered: it is not removed, and says so
 * as a busy folder does.
 *
 * Invariants: (1) at most TREE_MOST_DEPTH folders are open. (2) the first failure ends it, with its errno.
 *
 * Trust: the tree belongs to the guest, and may change meanwhile.
 */
#include "agent.h"

#include "base/alloc.h"
#include "proto/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { names_in_a_step = 32 };

struct level {
    DIR *folder;             /* owned */
    char name[NAME_MAX + 1]; /* in the folder above */
};

struct remove_session {
    struct session session;
    char *path; /* owned: the top */
    dev_t device;
    struct level *levels; /* owned */
    size_t depth, capacity;
};

static int enter(struct remove_session *remove, int folder, const char *name)
{
    struct stat status;
    int result = alloc_grow((void **)&remove->levels, remove->depth, &remove->capacity, sizeof(remove->levels[0]),
                            TREE_MOST_DEPTH);
    if (result < 0)
        return result;
    int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    result = fstat(fd, &status) < 0 ? -errno : remove->depth > 0 && status.st_dev != remove->device ? -EBUSY : 0;
    struct level *level = &remove->levels[remove->depth];
    level->folder = result == 0 ? fdopendir(fd) : NULL;
    if (level->folder == NULL) {
        result = result < 0 ? result : -errno;
        close(fd);
        return result;
    }
    snprintf(level->name, sizeof(level->name), "%s", remove->depth > 0 ? name : "");
    remove->device = status.st_dev;
    remove->depth++;
    return 0;
}

static int leave(struct remove_session *remove)
{
    struct level *level = &remove->levels[--remove->depth];
    closedir(level->folder);
    if (remove->depth == 0)
        return rmdir(remove->path) < 0 ? -errno : 0;
    return unlinkat(dirfd(level[-1].folder), level->name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

/* What is no folder goes at once (EISDIR says that it is one; unlink(2)). */
static int remove_name(struct remove_session *remove, const struct dirent *entry)
{
    int folder = dirfd(remove->levels[remove->depth - 1].folder);
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
        return 0;
    if (entry->d_type != DT_DIR && (unlinkat(folder, entry->d_name, 0) == 0 || errno == ENOENT))
        return 0;
    if (entry->d_type != DT_DIR && errno != EISDIR)
        return -errno;
    char name[NAME_MAX + 1];
    snprintf(name, sizeof(name), "%s", entry->d_name);
    return enter(remove, folder, name);
}

static void step_remove(struct session *session)
{
    struct remove_session *remove = (struct remove_session *)session;
    int result = 0;
    for (int i = 0; i < names_in_a_step && result == 0 && remove->depth > 0; i++) {
        errno = 0;
        const struct dirent *entry = readdir(remove->levels[remove->depth - 1].folder);
        result = entry != NULL ? remove_name(remove, entry) : errno != 0 ? -errno : leave(remove);
    }
    if (result < 0)
        session_fail(session, AGENT_STAGE_FILE, result, remove->path);
    else if (remove->depth == 0)
        session_done(session);
}

static void free_remove(struct session *session)
{
    struct remove_session *remove = (struct remove_session *)session;
    while (remove->depth > 0)
        closedir(remove->levels[--remove->depth].folder);
    free(remove->levels);
    free(remove->path);
}

static const struct session_ops remove_ops = {.step = step_remove, .free = free_remove};

void remove_begin(struct agent *agent, const struct agent_message *message, const char *path)
{
    bool is_recursive = (message->file.flags & AGENT_FILE_RECURSIVE) != 0;
    struct remove_session *remove = (struct remove_session *)session_new(agent, message->id, &remove_ops,
                                                                         sizeof(*remove));
    if (remove == NULL)
        return;
    int result = unlink(path) < 0 ? -errno : 0;
    if (result == -EISDIR && !is_recursive)
        result = rmdir(path) < 0 ? -errno : 0;
    else if (result == -EISDIR) {
        remove->path = alloc_string(path);
        result = remove->path == NULL ? -ENOMEM : enter(remove, AT_FDCWD, path);
    }
    if (result < 0)
        session_fail(&remove->session, AGENT_STAGE_FILE, result, path);
    else if (remove->depth > 0)
        session_set_busy(&remove->session, true);
    else
        session_done(&remove->session);
}
