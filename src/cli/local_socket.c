// SPDX-License-Identifier: Apache-2.0
/* Unix stream sockets that have a name in the file system.
 *
 * bind(2) makes the file and fails where there is one. A process that was killed leaves its file behind, and the next
 * one has to tell such a leftover from a socket that somebody uses. connect(2) knows: it refuses where no process has
 * the socket. But a connection just for asking is one that the owner sees, and may take for the only one it was to
 * serve. So a datagram socket asks. It cannot be connected to a stream socket and gets EPROTOTYPE, but only where there
 * is a socket to compare with; ECONNREFUSED comes before.
 *
 * Two processes that find the same leftover must not both remove it, as the second might remove what the first has just
 * bound. Asking and removing is therefore done under a lock on the folder. A file of our own is known by its inode,
 * which an O_PATH descriptor keeps from being used again.
 *
 * Invariants: (1) no file is removed but a socket that no process has, or the one that was bound here. (2) at no moment
 * does the file allow anybody but its owner to connect. (3) an error is complete but for its field.
 *
 * Trust: the path is the user's own. Who may write to its folder can put there what he likes, and who may read it can
 * keep us waiting for the lock.
 */
#include "cli/local_socket.h"

#include "base/error.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { backlog = 16 }; /* front ends that wait while another one is served */

static int fill_address(const char *path, struct sockaddr_un *ret_address, struct vial_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof(address.sun_path)) { /* an empty one would be a socket without a file */
        int result = error_set(err, length == 0 ? VIAL_ERROR_MISSING : VIAL_ERROR_TOO_BIG, VIAL_PHASE_CONFIGURE,
                               length == 0 ? "the path is empty" : "the path is too long for a socket");
        error_remedy(err, "give a path of at most %zu bytes, if need be a relative one", sizeof(address.sun_path) - 1);
        return result;
    }
    memcpy(address.sun_path, path, length);
    *ret_address = address;
    return 0;
}

/* The system call's failure, on this path. */
static int fail(struct vial_error *err, int os_error, const char *what, const char *path)
{
    int result = error_set_os(err, VIAL_PHASE_START, os_error, "cannot %s %s", what, error_short(path).text);
    error_remedy(err, "check the path, its folder and their permissions");
    return result;
}

static int fail_taken(struct vial_error *err, const char *path)
{
    int result = error_set(err, VIAL_ERROR_DUPLICATE, VIAL_PHASE_START, "another process has the socket %s",
                           error_short(path).text);
    error_remedy(err, "end that process, or give another path");
    return result;
}

static int open_socket(int type, int *ret_fd, struct vial_error *err)
{
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set_os(err, VIAL_PHASE_START, errno, "cannot make a socket");
    *ret_fd = fd;
    return 0;
}

/* A stream socket, and the address that the path is for it. */
static int open_stream(const char *path, struct sockaddr_un *ret_address, int *ret_fd, struct vial_error *err)
{
    int result = fill_address(path, ret_address, err);
    return result == 0 ? open_socket(SOCK_STREAM, ret_fd, err) : result;
}

/* ---- leftovers ---- */

/* Asks at the address of a file that is a socket. 0 when no process has it. */
static int check_abandoned(const struct sockaddr_un *address, struct vial_error *err)
{
    auto_close int fd = -1;
    int result = open_socket(SOCK_DGRAM, &fd, err);
    if (result < 0)
        return result;
    int os_error = connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ? 0 : errno;
    if (os_error == ECONNREFUSED)
        return 0;
    if (os_error != 0 && os_error != EPROTOTYPE)
        return fail(err, os_error, "ask who has the socket", address->sun_path);
    return fail_taken(err, address->sun_path);
}

/* The folder of the path, locked as long as the descriptor is open. */
static int lock_folder(const char *path, int *ret_fd, struct vial_error *err)
{
    char folder[sizeof(((struct sockaddr_un *)NULL)->sun_path)] = ".";
    const char *slash = strrchr(path, '/');
    if (slash != NULL) {
        size_t length = slash == path ? 1 : (size_t)(slash - path);
        memcpy(folder, path, length);
        folder[length] = '\0';
    }
    auto_close int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail(err, errno, "open the folder", folder);
    while (flock(fd, LOCK_EX) < 0)
        if (errno != EINTR)
            return fail(err, errno, "lock the folder", folder);
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* Makes room for a socket of ours. */
static int remove_leftover(const struct sockaddr_un *address, struct vial_error *err)
{
    const char *path = address->sun_path;
    struct stat status;
    auto_close int folder = -1;
    int result = lock_folder(path, &folder, err);
    if (result < 0)
        return result;
    if (lstat(path, &status) < 0)
        return errno == ENOENT ? 0 : fail(err, errno, "look at", path);
    if (!S_ISSOCK(status.st_mode)) {
        result = error_set(err, VIAL_ERROR_WRONG_KIND, VIAL_PHASE_START, "%s exists and is no socket",
                           error_short(path).text);
        error_remedy(err, "give another path, or remove the file if nobody needs it");
        return result;
    }
    result = check_abandoned(address, err);
    if (result == 0 && unlink(path) < 0)
        result = fail(err, errno, "replace the socket", path);
    return result;
}

/* ---- listening ---- */

/* 0 or -errno. The umask decides over the file's permissions: between bind(2) and chmod(2) others could connect. */
static int bind_private(int fd, const struct sockaddr_un *address)
{
    mode_t before = umask(0177);
    int result = bind(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ? 0 : -errno;
    umask(before);
    return result;
}

int local_socket_listen(const char *path, struct local_socket *ret_socket, struct vial_error *err)
{
    struct sockaddr_un address = {0};
    auto_close int fd = -1;
    int result = open_stream(path, &address, &fd, err);
    if (result < 0)
        return result;
    int bound = bind_private(fd, &address);
    if (bound == -EADDRINUSE) {
        result = remove_leftover(&address, err);
        if (result < 0)
            return result;
        bound = bind_private(fd, &address);
    }
    if (bound < 0) /* another was quicker, or the path cannot be */
        return bound == -EADDRINUSE ? fail_taken(err, path) : fail(err, bound, "make the socket", path);
    int file_fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (file_fd < 0 || listen(fd, backlog) < 0) {
        result = fail(err, errno, "listen at", path);
        fd_close(file_fd);
        unlink(path);
        return result;
    }
    *ret_socket = (struct local_socket){.path = path, .fd = steal_fd(&fd), .file_fd = file_fd};
    return 0;
}

void local_socket_end(struct local_socket *local)
{
    struct stat own, there;
    if (local->path != NULL && fstat(local->file_fd, &own) == 0 && lstat(local->path, &there) == 0 &&
        own.st_dev == there.st_dev && own.st_ino == there.st_ino)
        unlink(local->path);
    fd_close(local->fd);
    fd_close(local->file_fd);
    *local = LOCAL_SOCKET_NONE;
}

int local_socket_connect(const char *path, int *ret_fd, struct vial_error *err)
{
    struct sockaddr_un address = {0};
    auto_close int fd = -1;
    int result = open_stream(path, &address, &fd, err);
    if (result < 0)
        return result;
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        result = fail(err, errno, "connect to", path);
        if (result == -ECONNREFUSED)
            error_remedy(err, "start the program that listens there first");
        return result;
    }
    *ret_fd = steal_fd(&fd);
    return 0;
}
