// SPDX-License-Identifier: Apache-2.0
/* The folder in which sandboxes are kept: finding it, and the folders, locks and ends of sandboxes.
 *
 * Two kinds of locks, which the kernel takes back however a process ends:
 *
 *     HOME/lock, sandboxes/ID    flock(2): a folder appears and is locked by its maker under the first, shared. Who has
 *                                the first alone and gets the second knows that the maker is gone.
 *     sandboxes/ID/lock          two bytes with a lock each (F_OFD_SETLK of fcntl(2)). Byte 0 belongs to the sandbox's
 *                                process. Byte 1 is had for a moment by whoever changes that: a start waits for it, a
 *                                repair keeps starts waiting with it. Asking whether byte 0 is taken takes nothing.
 *
 * A folder that is removed gets another name first, in one step, so that no half of one is ever found by its id; what
 * has such a name is a leftover, whoever finds it.
 *
 * Invariants: (1) a folder by the name of an id is whole but for what its maker, who holds its lock, still adds. (2) a
 * sandbox lives exactly as long as byte 0 of its lock is taken. (3) everything is reached through descriptors, and no
 * link is followed below the home.
 *
 * Trust: the home belongs to its user and nobody else may write there, which home_open checks; what lies in it may be
 * torn by any crash. Ids come from callers and are checked before they become names.
 */
#include "sandbox/home.h"

#include "base/error.h"
#include "base/fd.h"
#include "base/limits.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { folder_mode = 0700, file_mode = 0600, pid_bytes = 12, removal_tries = 8 };

/* ---- the home ---- */

static bool is_absolute(const char *path)
{
    return path != NULL && path[0] == '/';
}

/* The XDG base directory specification has relative paths ignored. */
static int choose_path(const char *path, char text[HOME_PATH_BYTES], struct vial_error *err)
{
    const char *chosen = secure_getenv("VIAL_HOME"), *data = secure_getenv("XDG_DATA_HOME");
    const char *user = secure_getenv("HOME");
    int length = 0;
    if (path != NULL && path[0] != '\0') {
        length = snprintf(text, HOME_PATH_BYTES, "%s", path);
    } else if (chosen != NULL && chosen[0] != '\0') {
        length = snprintf(text, HOME_PATH_BYTES, "%s", chosen);
    } else if (geteuid() == 0) {
        length = snprintf(text, HOME_PATH_BYTES, "/var/lib/vial");
    } else if (is_absolute(data)) {
        length = snprintf(text, HOME_PATH_BYTES, "%s/vial", data);
    } else if (is_absolute(user)) {
        length = snprintf(text, HOME_PATH_BYTES, "%s/.local/share/vial", user);
    } else {
        int result = error_set(err, VIAL_ERROR_MISSING, VIAL_PHASE_HOST, "there is no place to keep sandboxes");
        error_remedy(err, "set VIAL_HOME to a folder for them, or HOME to yours");
        return result;
    }
    if (length < HOME_PATH_BYTES)
        return 0;
    return error_set_os(err, VIAL_PHASE_HOST, ENAMETOOLONG, "cannot use the home %s", error_short(text).text);
}

static int open_folder(const char *path)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* The folder and those on the way to it, as far as they are missing. `path` is the same again afterwards. */
static int make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int result = mkdir(path, folder_mode) < 0 && errno != EEXIST ? -errno : 0;
        *slash = '/';
        if (result < 0 && result != -EROFS && result != -EACCES) /* it may be there all the same: the next one tells */
            return result;
    }
    return mkdir(path, folder_mode) < 0 && errno != EEXIST ? -errno : 0;
}

static int check_owner(int fd, const char *path, struct vial_error *err)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return error_set_os(err, VIAL_PHASE_HOST, errno, "cannot look at the home %s", error_short(path).text);
    if (status.st_uid != geteuid()) {
        int result = error_set(err, VIAL_ERROR_PERMISSION, VIAL_PHASE_HOST, "the home %s belongs to user %u, not to %u",
                               error_short(path).text, status.st_uid, geteuid());
        error_remedy(err, "name a folder of your own (VIAL_HOME), or be the user to whom this one belongs");
        return result;
    }
    if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        int result = error_set(err, VIAL_ERROR_PERMISSION, VIAL_PHASE_HOST, "others may write to the home %s",
                               error_short(path).text);
        error_remedy(err, "look who has written there, then take that right from them (chmod go-w %s)",
                     error_short(path).text);
        return result;
    }
    return 0;
}

/* SQLite takes paths of at most 512 bytes (its MAX_PATHNAME), those of the files beside the database included. */
static int check_length(const char *path, struct vial_error *err)
{
    size_t length = strlen(path);
    if (length <= LIMIT_HOME_PATH_BYTES)
        return 0;
    int result = error_set(err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_HOST,
                           "the home's path of %zu bytes is longer than the limit of %d", length,
                           LIMIT_HOME_PATH_BYTES);
    error_value(err, "%s", path);
    error_remedy(err, "name a folder with a shorter path (VIAL_HOME)");
    return result;
}

/* Events have a folder of their own so that a sandbox's process, which writes them, needs no right to the rest. */
static int make_content(int fd, const char *path, struct vial_error *err)
{
    static const char *const names[] = {"sandboxes", "events"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (mkdirat(fd, names[i], folder_mode) == 0 || errno == EEXIST)
            continue;
        int result = error_set_os(err, VIAL_PHASE_HOST, errno, "cannot make a folder in the home %s",
                                  error_short(path).text);
        error_remedy(err, "name a folder in which you may write (VIAL_HOME)");
        return result;
    }
    return 0;
}

int home_open(const char *path, struct home *ret_home, struct vial_error *err)
{
    struct home home;
    char text[HOME_PATH_BYTES];
    int result = choose_path(path, text, err);
    if (result < 0)
        return result;
    auto_close int fd = open_folder(text);
    if (fd == -ENOENT) {
        result = make_folders(text);
        fd = result < 0 ? result : open_folder(text);
    }
    if (fd < 0 || realpath(text, home.path) == NULL) {
        result = error_set_os(err, VIAL_PHASE_HOST, fd < 0 ? fd : errno, "cannot make or open the home %s",
                              error_short(text).text);
        error_remedy(err, "name a folder in which you may write (VIAL_HOME)");
        return result;
    }
    result = check_owner(fd, home.path, err);
    if (result == 0)
        result = check_length(home.path, err);
    if (result == 0)
        result = make_content(fd, home.path, err);
    if (result < 0)
        return result;
    *ret_home = home;
    ret_home->fd = steal_fd(&fd);
    return 0;
}

void home_close(struct home *home)
{
    home->fd = fd_close(home->fd);
}

int home_lock(const struct home *home, int operation)
{
    auto_close int fd = openat(home->fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, file_mode);
    if (fd < 0)
        return -errno;
    while (flock(fd, operation) < 0)
        if (errno != EINTR)
            return -errno;
    return steal_fd(&fd);
}

/* ---- folders of sandboxes ---- */

bool home_is_id(const char *id)
{
    enum { digits = 12 };
    return strlen(id) == digits && strspn(id, "0123456789abcdef") == digits;
}

static int open_content(const struct home *home, const char *name, int flags)
{
    int fd = openat(home->fd, name, flags | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int home_sandboxes_open(const struct home *home)
{
    return open_content(home, "sandboxes", O_RDONLY);
}

int home_events_open(const struct home *home)
{
    return open_content(home, "events", O_PATH);
}

static int open_sandbox(const struct home *home, const char *id, int flags)
{
    char path[sizeof("sandboxes/") + SANDBOX_ID_BYTES];
    if (!home_is_id(id))
        return -EINVAL;
    snprintf(path, sizeof(path), "sandboxes/%s", id);
    return fd_open_beneath(home->fd, path, flags | O_DIRECTORY, 0, false);
}

int home_sandbox_open(const struct home *home, const char *id)
{
    return open_sandbox(home, id, O_PATH);
}

static int open_file(int folder, const char *name, int flags)
{
    int fd = openat(folder, name, flags | O_NOFOLLOW | O_CLOEXEC, file_mode);
    return fd < 0 ? -errno : fd;
}

static int open_lock(int folder, int flags)
{
    return open_file(folder, "lock", flags);
}

/* Its maker's lock is taken under the home's, so that nobody sees it without. */
static int make_locked(const struct home *home, const char *id)
{
    auto_close int all = home_sandboxes_open(home), lock = home_lock(home, LOCK_SH);
    if (all < 0 || lock < 0)
        return all < 0 ? all : lock;
    if (mkdirat(all, id, folder_mode) < 0)
        return -errno;
    auto_close int folder = open_sandbox(home, id, O_RDONLY);
    if (folder >= 0 && flock(folder, LOCK_SH | LOCK_NB) < 0)
        return -errno;
    return steal_fd(&folder);
}

int home_sandbox_make(const struct home *home, const char *id)
{
    if (!home_is_id(id))
        return -EINVAL;
    auto_close int folder = make_locked(home, id);
    if (folder < 0)
        return folder;
    auto_close int lock = open_lock(folder, O_RDWR | O_CREAT); /* only here: a folder that is removed gets no new one */
    if (lock < 0 || mkdirat(folder, "log", folder_mode) < 0 || mkdirat(folder, "scripts", folder_mode) < 0) {
        int result = lock < 0 ? lock : -errno;
        home_sandbox_remove(home, id);
        return result;
    }
    return steal_fd(&folder);
}

int home_sandbox_is_abandoned(const struct home *home, const char *id)
{
    auto_close int lock = home_lock(home, LOCK_EX), folder = open_sandbox(home, id, O_RDONLY);
    if (lock < 0 || folder < 0)
        return lock < 0 ? lock : folder;
    if (flock(folder, LOCK_EX | LOCK_NB) == 0)
        return 1;
    return errno == EWOULDBLOCK ? 0 : -errno;
}

static int remove_entry(int parent, const char *name, int depth);

/* The sandbox's lock goes last: whoever waits for it may rely on the rest being gone. */
static int remove_content(DIR *list, int depth)
{
    bool has_lock = depth == LIMIT_HOME_DEPTH - 1;
    int result = 0;
    for (const struct dirent *entry = readdir(list); entry != NULL; entry = readdir(list)) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            (has_lock && strcmp(entry->d_name, "lock") == 0))
            continue;
        int removed = remove_entry(dirfd(list), entry->d_name, depth);
        result = result < 0 ? result : removed;
    }
    return result == 0 && has_lock ? remove_entry(dirfd(list), "lock", depth) : result;
}

/* -ENOENT when there is none. */
static int empty_folder(int parent, const char *name, int depth)
{
    auto_close int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *list = fd >= 0 ? fdopendir(fd) : NULL;
    if (list == NULL)
        return -errno;
    (void)steal_fd(&fd); /* which the list has now */
    int result = remove_content(list, depth);
    closedir(list);
    return result;
}

/* A file, or a folder with what it holds. Somebody else may be doing the same, or may write one file more into a folder
 * that was just listed: a start opens the log before it has the lock, a rename writes what it was told. */
static int remove_entry(int parent, const char *name, int depth)
{
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
        return 0;
    int refused = -errno;
    if (refused != -EISDIR && refused != -EACCES) /* which a wall says of a folder, too */
        return refused;
    if (depth == 0)
        return -ELOOP;
    for (int i = 0; i < removal_tries; i++) {
        int result = empty_folder(parent, name, depth - 1);
        if (result < 0)
            return result == -ENOENT ? 0 : result == -ENOTDIR ? refused : result;
        if (unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
            return 0;
        if (errno != ENOTEMPTY)
            return -errno;
    }
    return -ENOTEMPTY;
}

int home_sandbox_remove(const struct home *home, const char *id)
{
    char gone[SANDBOX_ID_BYTES + sizeof(HOME_GONE)];
    if (!home_is_id(id))
        return -EINVAL;
    auto_close int all = open_content(home, "sandboxes", O_PATH); /* the walls of its process forbid to list it */
    if (all < 0)
        return all;
    snprintf(gone, sizeof(gone), "%s" HOME_GONE, id);
    int renamed = renameat(all, id, all, gone) < 0 ? -errno : 0;
    if (renamed == -EXDEV) /* of an overlayfs's lower layer, which renames no folder */
        snprintf(gone, sizeof(gone), "%s", id);
    else if (renamed < 0 && renamed != -ENOENT)
        return renamed;
    return remove_entry(all, gone, LIMIT_HOME_DEPTH);
}

/* ---- whether they live ---- */

static int lock_byte(int fd, int command, short type, off_t byte)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    while (fcntl(fd, command, &lock) < 0) {
        if (errno == EACCES || errno == EAGAIN)
            return -EWOULDBLOCK;
        if (errno != EINTR)
            return -errno;
    }
    return command == F_OFD_GETLK && lock.l_type != F_UNLCK;
}

/* A file that was removed while its lock was waited for keeps nobody out. */
static bool is_removed(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && status.st_nlink == 0;
}

/* For who has to signal a process that can do nothing else yet. Without room on the disk nobody knows. */
static void write_pid(int fd)
{
    char text[pid_bytes + 1];
    snprintf(text, sizeof(text), "%*d\n", pid_bytes - 1, (int)getpid()); /* over another one, whole */
    ssize_t written = pwrite(fd, text, pid_bytes, 0);
    (void)written;
}

int home_sandbox_pid(int folder)
{
    char text[pid_bytes + 1] = "";
    auto_close int fd = open_lock(folder, O_RDONLY);
    ssize_t length = fd < 0 ? -1 : pread(fd, text, pid_bytes, 0);
    long pid = length == pid_bytes ? strtol(text, NULL, 10) : 0;
    return pid > 0 && pid <= INT_MAX ? (int)pid : 0;
}

int home_sandbox_lock(int folder)
{
    auto_close int fd = open_lock(folder, O_RDWR);
    if (fd < 0)
        return fd;
    int result = lock_byte(fd, F_OFD_SETLKW, F_WRLCK, HOME_BYTE_CHANGE);
    if (result == 0)
        result = lock_byte(fd, F_OFD_SETLK, F_WRLCK, HOME_BYTE_LIFE);
    if (result == 0)
        write_pid(fd);
    if (result == 0)
        result = lock_byte(fd, F_OFD_SETLK, F_UNLCK, HOME_BYTE_CHANGE);
    if (result == 0 && is_removed(fd))
        result = -ENOENT;
    return result < 0 ? result : steal_fd(&fd);
}

int home_sandbox_lives(int folder)
{
    auto_close int fd = open_lock(folder, O_RDONLY);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    return lock_byte(fd, F_OFD_GETLK, F_WRLCK, HOME_BYTE_LIFE);
}

int home_sandbox_guard(int folder)
{
    auto_close int fd = open_lock(folder, O_RDWR);
    if (fd < 0)
        return fd;
    int result = lock_byte(fd, F_OFD_SETLK, F_WRLCK, HOME_BYTE_CHANGE);
    if (result == 0)
        result = lock_byte(fd, F_OFD_GETLK, F_WRLCK, HOME_BYTE_LIFE);
    if (result == 0 && is_removed(fd))
        result = -ENOENT;
    if (result == 0)
        return steal_fd(&fd);
    return result == 1 ? -EWOULDBLOCK : result;
}

/* ---- claims ---- */

int home_sandbox_claim(int folder)
{
    auto_close int fd = open_file(folder, "claim", O_RDWR | O_CREAT);
    int result = fd < 0 ? fd : lock_byte(fd, F_OFD_SETLK, F_WRLCK, HOME_BYTE_LIFE);
    return result < 0 ? result : steal_fd(&fd);
}

void home_sandbox_drop_claim(int folder, int claim)
{
    if (claim < 0)
        return;
    unlinkat(folder, "claim", 0);
    fd_close(claim);
}

int home_sandbox_is_orphan(int folder)
{
    auto_close int fd = open_file(folder, "claim", O_RDONLY);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    int result = lock_byte(fd, F_OFD_GETLK, F_WRLCK, HOME_BYTE_LIFE);
    return result < 0 ? result : result == 0 && !is_removed(fd); /* one that was dropped is removed before it is free */
}
