// SPDX-License-Identifier: Apache-2.0
/* The jail around a user-mode Linux kernel and the processes of its guest.
 *
 *     struct jail *jail = NULL;
 *     jail_prepare(&options, &jail, err);                  // names the paths inside, for the kernel's arguments
 *     jail_start(jail, &program, err);                     // returns when the program's exec has succeeded
 *     … jail_pidfd(jail) becomes readable when the main process has ended …
 *     jail = jail_free(jail);                              // kills, waits, removes
 */
#ifndef ENGINE_UML_JAIL_H
#define ENGINE_UML_JAIL_H

#include "base/buffer.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What stands between the program and the host. */
enum jail_wall {
    JAIL_USER_NS,      /* user ids of its own, and no capability over anything outside */
    JAIL_MOUNT_NS,     /* a view of mounts of its own */
    JAIL_PID_NS,       /* sees and signals its own processes only; all of them end with the first */
    JAIL_NET_NS,       /* no network interface, no abstract socket of the host */
    JAIL_IPC_NS,       /* no System V objects or message queues of the host */
    JAIL_UTS_NS,       /* the host's name cannot be changed */
    JAIL_ROOT,         /* sees a small file system made for it, nothing of the host's */
    JAIL_UNPRIVILEGED, /* runs as an id that is not root, without capabilities */
    JAIL_NO_NEW_PRIVS, /* no program it executes can have more rights than it has */
    JAIL_SECCOMP,      /* only the system calls that user-mode Linux needs */
    JAIL_LANDLOCK,     /* a second lock on files, TCP, and sockets and processes outside */
    JAIL_RLIMITS,      /* bounds on processes, descriptors, file sizes */
    JAIL_CGROUP,       /* bounds on memory and processes together */
    JAIL_WALLS
};

extern const char *const jail_wall_names[JAIL_WALLS]; /* "user namespace", "seccomp filter", … */

struct jail_options {
    uint64_t memory_bytes; /* the guest's memory file may have this size */
    int initramfs_fd;      /* borrowed until jail_start returns; -1: none. Copied into the jail. */
    const int *socket_fds; /* borrowed until jail_start returns: unbound AF_UNIX stream sockets, which are bound and
                                 made to listen inside the jail */
    size_t socket_count;
    bool allows_missing_walls; /* starts with the walls that can be had, whatever is missing */
};

/* What runs in the jail. Everything is borrowed until jail_start returns. */
struct jail_program {
    int fd;                             /* a static ELF program that everybody may execute */
    const char *const *arguments;       /* NULL-terminated; the first is the program's name */
    const char *const *environment;     /* NULL-terminated */
    int stdin_fd, stdout_fd, stderr_fd; /* the program has these three open and nothing else */
};

/* A path inside the jail; as long as a socket's may be (unix(7)). */
struct jail_path {
    char text[108];
};

struct jail; /* owns the child, its cgroup, and where no mount namespace can be had a folder */

/* Decides where things will be. 0, or a negative errno with *err. */
int jail_prepare(const struct jail_options *options, struct jail **ret_jail, struct vial_error *err);

/* As the program sees them. */
struct jail_path jail_memory_folder(const struct jail *jail);  /* a tmpfs for one file: the program's TMPDIR */
struct jail_path jail_state_folder(const struct jail *jail);   /* small files of its own: uml_dir */
struct jail_path jail_initramfs_path(const struct jail *jail); /* there when initramfs_fd was given */
struct jail_path jail_socket_path(const struct jail *jail, size_t index);

/* Starts the program; once. The child is killed when the calling thread ends (PR_SET_PDEATHSIG goes by threads), so
 * call it on one that lives as long as the jail. 0, or a negative errno with *err: then nothing runs. */
int jail_start(struct jail *jail, const struct jail_program *program, struct vial_error *err);

/* Readable when the program has ended, with every process of the jail; -1 before jail_start has succeeded. It is a
 * pidfd of a process between us and the jail: ask jail_end how the program ended, not waitid. */
int jail_pidfd(const struct jail *jail);

/* How the program ended: 0, or -EAGAIN while it runs. If somebody killed the process in between, -ESRCH. */
struct jail_end {
    bool was_killed; /* by the signal `status`; else it ended itself with the exit status `status` */
    int status;
};
int jail_end(const struct jail *jail, struct jail_end *ret_end);

/* Of the program, as the host counts; -1 before jail_start has succeeded. */
pid_t jail_pid(const struct jail *jail);

/* After jail_start. */
bool jail_has(const struct jail *jail, enum jail_wall wall);

/* "user namespace, …; missing: cgroup (No such file or directory)" */
int jail_describe(const struct jail *jail, struct buffer *buffer);

/* No process in the jail executes anything when jail_pause returns 0. -ESRCH when it has ended. From one thread at a
 * time. */
int jail_pause(struct jail *jail);
int jail_resume(struct jail *jail);

/* Kills every process at once; their end is seen on the pidfd. From any thread, as long as the jail is not freed. */
void jail_kill(struct jail *jail);

/* When it returns no process, mount, cgroup or folder of the jail exists any more. */
struct jail *jail_free(struct jail *jail);

#endif
