// SPDX-License-Identifier: Apache-2.0
/* A private folder of the host's, for a jail that can have no root of its own.
 *
 * Only a caller who allows missing walls gets this far. The folder is named vial-uml.XXXXXX, in /dev/shm if that can be
 * mapped executable, else where temporary files go ($TMPDIR); it belongs to the program's id and is open to nobody
 * else. Its user holds a lock on it (flock(2)), which ends with him; so folders of this user without one were left by a
 * killed process, and the next start removes them.
 *
 * Invariants: (1) nothing outside the folder is removed: no link is followed, and every step goes from a descriptor.
 * (2) a folder of somebody else's is never touched.
 *
 * Trust: others may put anything into /dev/shm; the program may put anything into its folder.
 */
#include "engine/uml/jail_folder.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "engine/uml/jail_namespaces.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const char prefix[] = "vial-uml.";

struct jail_folder {
    char path[PATH_MAX];
    const char *name; /* in path: its last part */
    int base_fd;      /* owned: the folder that it is in */
    int fd;           /* owned: its own, locked */
};

/* ---- removing ---- */

/* What is in the folder, not the folder. Takes the descriptor over. User-mode Linux makes two levels. */
static void empty_folder(int fd, int levels)
{
    DIR *folder = fdopendir(fd);
    if (folder == NULL) {
        fd_close(fd);
        return;
    }
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || unlinkat(fd, name, 0) == 0)
            continue;
        int below = levels > 0 ? openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
        if (below >= 0)
            empty_folder(below, levels - 1);
        unlinkat(fd, name, AT_REMOVEDIR);
    }
    closedir(folder);
}

static void remove_folder(int base_fd, const char *name)
{
    enum { levels = 4 };
    int fd = openat(base_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0)
        empty_folder(fd, levels);
    unlinkat(base_fd, name, AT_REMOVEDIR);
}

static void remove_if_left(int base_fd, const char *name)
{
    struct stat status;
    auto_close int fd = openat(base_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        return;
    bool is_ours = status.st_uid == geteuid() || (geteuid() == 0 && jail_identity_is_unique(status.st_uid));
    if (is_ours && flock(fd, LOCK_EX | LOCK_NB) == 0)
        remove_folder(base_fd, name);
}

static void sweep(int base_fd)
{
    int own_fd = openat(base_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *base = own_fd >= 0 ? fdopendir(own_fd) : NULL;
    if (base == NULL) {
        fd_close(own_fd);
        return;
    }
    for (const struct dirent *entry; (entry = readdir(base)) != NULL;)
        if (strncmp(entry->d_name, prefix, sizeof(prefix) - 1) == 0)
            remove_if_left(base_fd, entry->d_name);
    closedir(base);
}

/* ---- making ---- */

static int make_in(struct jail_folder *folder, const char *base)
{
    struct statvfs system;
    auto_close int base_fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (base_fd < 0 || fstatvfs(base_fd, &system) < 0)
        return -errno;
    if ((system.f_flag & ST_NOEXEC) != 0)
        return -EPERM;
    sweep(base_fd);
    int length = snprintf(folder->path, sizeof(folder->path), "%s/%sXXXXXX", base, prefix);
    if (length >= (int)sizeof(folder->path))
        return -ENAMETOOLONG;
    if (mkdtemp(folder->path) == NULL)
        return -errno;
    folder->name = strrchr(folder->path, '/') + 1;
    folder->fd = openat(base_fd, folder->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    /* Between its making and its lock a sweeper may have taken it for one that was left. */
    if (folder->fd < 0 || flock(folder->fd, LOCK_EX | LOCK_NB) < 0 || faccessat(base_fd, folder->name, W_OK, 0) < 0) {
        int result = -errno;
        unlinkat(base_fd, folder->name, AT_REMOVEDIR);
        folder->fd = fd_close(folder->fd);
        return result;
    }
    folder->base_fd = steal_fd(&base_fd);
    return 0;
}

int jail_folder_new(struct jail_folder **ret_folder, struct vial_error *err)
{
    const char *temporary = secure_getenv("TMPDIR");
    const char *const bases[] = {"/dev/shm", temporary != NULL && temporary[0] == '/' ? temporary : P_tmpdir};
    struct jail_folder *folder = alloc_zero(sizeof(*folder));
    if (folder == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    folder->base_fd = folder->fd = -1;
    int result = -ENOENT;
    for (size_t i = 0; i < array_length(bases) && result < 0; i++)
        result = make_in(folder, bases[i]);
    if (result < 0) {
        free(folder);
        error_set_os(err, VIAL_PHASE_START, result, "no folder for the guest's memory can be made");
        error_remedy(err, "mount a tmpfs with exec at /dev/shm, or set TMPDIR to a folder on one");
        return result;
    }
    *ret_folder = folder;
    return 0;
}

const char *jail_folder_path(const struct jail_folder *folder)
{
    return folder != NULL ? folder->path : "";
}

int jail_folder_give(const struct jail_folder *folder, uint32_t user)
{
    if (user == geteuid())
        return 0;
    return fchown(folder->fd, user, user) < 0 ? -errno : 0;
}

struct jail_folder *jail_folder_free(struct jail_folder *folder)
{
    if (folder == NULL)
        return NULL;
    remove_folder(folder->base_fd, folder->name);
    fd_close(folder->fd);
    fd_close(folder->base_fd);
    free(folder);
    return NULL;
}
