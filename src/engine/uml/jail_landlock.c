// SPDX-License-Identifier: Apache-2.0
/* A second lock on files, TCP, and what is outside: Landlock (landlock(7)).
 *
 * In a root of its own the program has no name for a file of the host's anyway; where it has to do without that root,
 * this is what keeps it in its folder. Nothing may be executed but the program itself. (The stub program of user-mode
 * Linux is in a memfd, which belongs to no folder, and is not looked at.)
 *
 * Invariants: (1) only what is async-signal-safe is called: this runs between clone and exec.
 *
 * Trust: the program under it is hostile.
 */
#include "engine/uml/jail_private.h"

#include "base/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static int grant_path(const struct landlock *landlock, const char *path, uint64_t rights)
{
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = landlock_grant(landlock, fd, rights);
    close(fd);
    return result;
}

static int grant(const struct jail_plan *plan, const struct landlock *landlock, int program_fd)
{
    enum {
        state = LANDLOCK_READ | LANDLOCK_LIST | LANDLOCK_WRITE | LANDLOCK_REMOVE_FOLDER | LANDLOCK_REMOVE_FILE |
                LANDLOCK_MAKE_FOLDER | LANDLOCK_MAKE_FILE
    };
    int result = landlock_grant(landlock, program_fd, LANDLOCK_EXECUTE | LANDLOCK_READ);
    if (result == 0)
        result = grant_path(landlock, ".", LANDLOCK_READ | LANDLOCK_LIST);
    if (result == 0)
        result = grant_path(landlock, "run", state);
    if (result == 0)
        result = grant_path(landlock, "memory", LANDLOCK_READ | LANDLOCK_LIST | LANDLOCK_WRITE);
    if (result == 0 && (landlock->files & LANDLOCK_SOCKET) != 0)
        result = grant_path(landlock, "socket", LANDLOCK_SOCKET);
    if (result == 0 && !plan->has_own_root)
        result = grant_path(landlock, "/proc/cpuinfo", LANDLOCK_READ);
    return result;
}

int jail_landlock_restrict(const struct jail_plan *plan, int program_fd)
{
    struct landlock landlock;
    int result = landlock_make(LANDLOCK_NETWORK | LANDLOCK_ABSTRACT_SOCKETS | LANDLOCK_SIGNALS, &landlock);
    if (result < 0)
        return result;
    result = grant(plan, &landlock, program_fd);
    if (result == 0)
        result = landlock_restrict(&landlock);
    close(landlock.fd);
    return result;
}
