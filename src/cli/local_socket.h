// SPDX-License-Identifier: Apache-2.0
/* Unix stream sockets that have a name in the file system. */
#ifndef CLI_LOCAL_SOCKET_H
#define CLI_LOCAL_SOCKET_H

#include "vial/base.h"

/* A socket that listens at a path, and the file that stands there for it. */
struct local_socket {
    const char *path; /* borrowed; NULL when there is no file */
    int fd;           /* owned; may be taken (steal_fd) */
    int file_fd;      /* owned: the file itself, opened with O_PATH */
};

#define LOCAL_SOCKET_NONE ((struct local_socket){.fd = -1, .file_fd = -1})

/* Listens at `path` for connections of this user alone (mode 0600). A socket there that no process has any more is
 * replaced; one that a process has, or any other file, is an error. Only for a process with one thread, because it sets
 * the umask for a moment. */
int local_socket_listen(const char *path, struct local_socket *ret_socket, struct vial_error *err);

/* Removes the file, unless another stands there by now, and closes what is open. Harmless for LOCAL_SOCKET_NONE. */
void local_socket_end(struct local_socket *local);

/* Connects to the socket at `path`, whose owner must listen: the descriptor, or an error. */
int local_socket_connect(const char *path, int *ret_fd, struct vial_error *err);

#endif
