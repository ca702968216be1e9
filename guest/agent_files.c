// SPDX-License-Identifier: Apache-2.0
/* Files: what is there, read, written, made and renamed.
 *
 *     STAT, MAKE, RENAME   done at once
 *     LIST                 an ENTRY for each name, some in a step
 *     READ                 STARTED, a chunk in a step as far as there is credit, DONE
 *     WRITE                STARTED, each DATA is written as it comes, DONE at its end
 *
 * A disk is waited for: a chunk of it at a time, while nobody else is served. What else could be waited for, a fifo or
 * a terminal, is opened without (O_NONBLOCK), and fails with EAGAIN where one would have to wait.
 *
 * WRITE changes the file in place, as a shell's ">" does: its owner, its permissions and its other names stay, and who
 * reads it meanwhile sees it grow. A new file gets exactly the permissions that were asked for.
 *
 * Invariants: (1) each session ends with one answer. (2) no step moves more than a chunk or a few names.
 *
 * Trust: paths are the host's and mean what they mean to the guest's root; the guest's own links lead where they lead,
 * inside the guest.
 */
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { names_in_a_step = 8 };

struct file_session {
    struct session session;
    int fd;              /* owned, or -1 */
    DIR *folder;         /* owned, or NULL */
    uint64_t next, left; /* READ */
};

static struct file_session *file_of(struct session *session)
{
    return (struct file_session *)session;
}

static void free_file(struct session *session)
{
    struct file_session *file = file_of(session);
    if (file->fd >= 0)
        close(file->fd);
    if (file->folder != NULL)
        closedir(file->folder);
}

static struct file_session *new_file(struct agent *agent, uint32_t id, const struct session_ops *ops)
{
    struct file_session *file = (struct file_session *)session_new(agent, id, ops, sizeof(*file));
    if (file != NULL)
        file->fd = -1;
    return file;
}

/* ---- entries ---- */

/* Sends it, named `name` in the folder; the last frame when it is nobody's item. -EOVERFLOW for what there are no
 * words for in the protocol: a file of no type, as some descriptors in /proc are, or a name longer than Linux has. */
static int send_entry(struct agent *agent, uint32_t id, int folder, const char *path, const char *name, bool follows)
{
    char link[PATH_MAX];
    struct stat status;
    if (fstatat(folder, path, &status, follows ? 0 : AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    ssize_t length = S_ISLNK(status.st_mode) ? readlinkat(folder, path, link, sizeof(link) - 1) : 0;
    if (length < 0)
        return -errno;
    const struct agent_message entry = {
        .id = id,
        .kind = AGENT_ENTRY,
        .flags = name[0] == '\0' ? AGENT_LAST : 0,
        .entry = {.mode = status.st_mode,
                  .uid = status.st_uid,
                  .gid = status.st_gid,
                  .size = (uint64_t)status.st_size,
                  .mtime_s = status.st_mtim.tv_sec,
                  .mtime_ns = (uint32_t)status.st_mtim.tv_nsec,
                  .name = {name, strlen(name)},
                  .link = {link, (size_t)length}},
    };
    return queue_try(&agent->queue, &entry) < 0 ? -EOVERFLOW : 0;
}

static void step_list(struct session *session)
{
    struct file_session *file = file_of(session);
    for (int i = 0; i < names_in_a_step; i++) {
        errno = 0;
        const struct dirent *entry = readdir(file->folder);
        if (entry == NULL && errno != 0) {
            session_fail(session, AGENT_STAGE_READ, -errno, "");
            return;
        }
        if (entry == NULL) {
            session_done(session);
            return;
        }
        const char *name = entry->d_name;
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0) /* what has vanished is left out */
            send_entry(session->agent, session->id, dirfd(file->folder), name, name, false);
    }
}

static const struct session_ops list_ops = {.step = step_list, .free = free_file};

static void begin_list(struct agent *agent, uint32_t id, const char *path)
{
    struct file_session *file = new_file(agent, id, &list_ops);
    if (file == NULL)
        return;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
    file->folder = fd < 0 ? NULL : fdopendir(fd);
    int failure = -errno;
    if (file->folder == NULL && fd >= 0)
        close(fd);
    if (file->folder == NULL)
        session_fail(&file->session, AGENT_STAGE_OPEN, failure, path);
    else
        session_set_busy(&file->session, true);
}

/* ---- reading ---- */

/* Without credit it is not busy: that begins again with the next. */
static void step_read(struct session *session)
{
    struct file_session *file = file_of(session);
    size_t length = 0;
    uint8_t *room = file->left > 0 ? session_room(session, &length) : NULL;
    if (room == NULL && file->left > 0)
        return;
    size_t wanted = length < file->left ? length : (size_t)file->left;
    ssize_t got = file->left == 0 ? 0 : pread(file->fd, room, wanted, (off_t)file->next);
    if (got < 0 && errno == ESPIPE)
        got = read(file->fd, room, wanted);
    if (got < 0) {
        session_fail(session, AGENT_STAGE_READ, -errno, "");
        return;
    }
    if (got == 0) {
        session_send_end(session, AGENT_STDOUT);
        session_done(session);
        return;
    }
    session_send(session, length, (size_t)got);
    file->next += (uint64_t)got;
    file->left -= (uint64_t)got;
}

static const struct session_ops read_ops = {.step = step_read, .free = free_file};

static void begin_read(struct agent *agent, const struct agent_message *message, const char *path)
{
    struct file_session *file = new_file(agent, message->id, &read_ops);
    struct stat status;
    if (file == NULL)
        return;
    file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int result = file->fd < 0 || fstat(file->fd, &status) < 0 ? -errno : S_ISDIR(status.st_mode) ? -EISDIR : 0;
    if (result < 0) {
        session_fail(&file->session, AGENT_STAGE_OPEN, result, path);
        return;
    }
    file->next = message->file.offset;
    file->left = message->file.length;
    file->session.outputs[0].credit = message->file.window;
    session_started(&file->session, 0);
    session_set_busy(&file->session, true);
}

/* ---- writing ---- */

static void take_bytes(struct session *session, const uint8_t *bytes, size_t length)
{
    const struct file_session *file = file_of(session);
    for (size_t done = 0; done < length;) {
        ssize_t written = write(file->fd, bytes + done, length - done);
        if (written < 0 && errno != EINTR) {
            session_fail(session, AGENT_STAGE_WRITE, -errno, "");
            return;
        }
        done += written > 0 ? (size_t)written : 0;
    }
    session_consume(session, length);
}

static void finish_write(struct session *session)
{
    struct file_session *file = file_of(session);
    int result = close(file->fd) < 0 ? -errno : 0; /* shared folders and networks say so here */
    file->fd = -1;
    if (result < 0)
        session_fail(session, AGENT_STAGE_WRITE, result, "");
    else
        session_done(session);
}

static const struct session_ops write_ops = {.take = take_bytes, .input_done = finish_write, .free = free_file};

static void begin_write(struct agent *agent, const struct agent_message *message, const char *path)
{
    struct file_session *file = new_file(agent, message->id, &write_ops);
    uint32_t flags = message->file.flags;
    if (file == NULL)
        return;
    file->fd = open(path,
                    O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY |
                        ((flags & AGENT_FILE_APPEND) != 0 ? O_APPEND : O_TRUNC) |
                        ((flags & AGENT_FILE_EXCLUSIVE) != 0 ? O_EXCL : 0),
                    (mode_t)message->file.mode);
    if (file->fd < 0) {
        session_fail(&file->session, AGENT_STAGE_OPEN, -errno, path);
        return;
    }
    session_grant(&file->session, AGENT_DEFAULT_WINDOW);
    session_started(&file->session, 0);
}

/* ---- folders and names ---- */

static int make_folder(const char *path, mode_t mode, bool may_exist)
{
    struct stat status;
    if (mkdir(path, mode) == 0)
        return 0;
    int failure = -errno;
    return may_exist && stat(path, &status) == 0 && S_ISDIR(status.st_mode) ? 0 : failure;
}

/* Those on the way get ordinary permissions. */
static int make_folders(char *path, mode_t mode)
{
    int result = 0;
    for (char *slash = strchr(path + 1, '/'); slash != NULL && result == 0; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        result = make_folder(path, 0755, true);
        *slash = '/';
    }
    return result == 0 ? make_folder(path, mode, true) : result;
}

static void answer(struct agent *agent, uint32_t id, int result, const char *path)
{
    if (result < 0)
        agent_refuse(agent, id, AGENT_STAGE_FILE, result, path);
    else
        queue_send(&agent->queue, &(struct agent_message){.id = id, .kind = AGENT_DONE, .flags = AGENT_LAST});
}

static void make(struct agent *agent, const struct agent_message *message, char *path)
{
    mode_t mode = (mode_t)message->file.mode;
    bool has_parents = (message->file.flags & AGENT_FILE_PARENTS) != 0;
    answer(agent, message->id, has_parents ? make_folders(path, mode) : make_folder(path, mode, false), path);
}

static void rename_file(struct agent *agent, const struct agent_message *message, const char *path)
{
    char *to = agent_copy_span(&message->file.to);
    int result = to == NULL ? -ENOMEM : rename(path, to) < 0 ? -errno : 0;
    answer(agent, message->id, result, path);
    free(to);
}

static void tell_status(struct agent *agent, const struct agent_message *message, const char *path)
{
    bool follows = (message->file.flags & AGENT_FILE_FOLLOW) != 0;
    int result = send_entry(agent, message->id, AT_FDCWD, path, "", follows);
    if (result < 0)
        agent_refuse(agent, message->id, AGENT_STAGE_FILE, result, path);
}

void file_begin(struct agent *agent, const struct agent_message *message)
{
    char *path = agent_copy_span(&message->file.path);
    if (path == NULL)
        agent_refuse(agent, message->id, AGENT_STAGE_LIMIT, -ENOMEM, "");
    else if (message->kind == AGENT_STAT)
        tell_status(agent, message, path);
    else if (message->kind == AGENT_LIST)
        begin_list(agent, message->id, path);
    else if (message->kind == AGENT_READ)
        begin_read(agent, message, path);
    else if (message->kind == AGENT_WRITE)
        begin_write(agent, message, path);
    else if (message->kind == AGENT_MAKE)
        make(agent, message, path);
    else if (message->kind == AGENT_RENAME)
        rename_file(agent, message, path);
    else if (message->kind == AGENT_REMOVE)
        remove_begin(agent, message, path);
    else
        tree_begin(agent, message, path);
    free(path);
}
