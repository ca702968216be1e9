// SPDX-License-Identifier: Apache-2.0
/* Landlock (landlock(7)): a thread gives up files, TCP, and what is outside, for good.
 *
 * What a ruleset handles is denied unless a rule grants it; the rights grow with the kernel's ABI, so everything that
 * the running kernel knows is handled. Everything here is async-signal-safe.
 */
#ifndef BASE_LANDLOCK_H
#define BASE_LANDLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* Rights to files and folders, by the ABI that brought them; our own numbers, as headers may be older. */
enum landlock_right {
    LANDLOCK_EXECUTE = 1 << 0,
    LANDLOCK_WRITE = 1 << 1,
    LANDLOCK_READ = 1 << 2,
    LANDLOCK_LIST = 1 << 3,
    LANDLOCK_REMOVE_FOLDER = 1 << 4,
    LANDLOCK_REMOVE_FILE = 1 << 5,
    LANDLOCK_MAKE_CHARACTER_DEVICE = 1 << 6,
    LANDLOCK_MAKE_FOLDER = 1 << 7,
    LANDLOCK_MAKE_FILE = 1 << 8,
    LANDLOCK_MAKE_SOCKET = 1 << 9,
    LANDLOCK_MAKE_PIPE = 1 << 10,
    LANDLOCK_MAKE_BLOCK_DEVICE = 1 << 11,
    LANDLOCK_MAKE_LINK = 1 << 12,
    LANDLOCK_REFER = 1 << 13,    /* ABI 2: rename and link between folders */
    LANDLOCK_TRUNCATE = 1 << 14, /* ABI 3 */
    LANDLOCK_DEVICE = 1 << 15,   /* ABI 5: ioctl on devices */
    LANDLOCK_SOCKET = 1 << 16,   /* later: connecting to a named socket */
};

/* What is no file. */
enum landlock_beyond {
    LANDLOCK_NETWORK = 1 << 0,          /* ABI 4: TCP, later UDP */
    LANDLOCK_ABSTRACT_SOCKETS = 1 << 1, /* ABI 6, of other domains */
    LANDLOCK_SIGNALS = 1 << 2,          /* ABI 6, to other domains */
};

struct landlock {
    int fd;         /* owned */
    uint64_t files; /* the rights that this kernel knows, all denied unless granted */
};

/* The ABI of the running kernel, or -errno: -ENOSYS and -EOPNOTSUPP where it has none. */
int landlock_abi(void);

/* A ruleset that denies all rights to files and, as far as the kernel can, what `beyond` says. 0 or -errno. */
int landlock_make(unsigned beyond, struct landlock *ret_landlock);

/* Grants rights to a file, or to a folder with all below it: those of them that this kernel knows. */
int landlock_grant(const struct landlock *landlock, int fd, uint64_t rights);

/* The calling thread, and what it makes from now on. It must have no_new_privs. */
int landlock_restrict(const struct landlock *landlock);

#endif
