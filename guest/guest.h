// SPDX-License-Identifier: Apache-2.0
/* What the files of the guest's first process share. Functions return 0 or a negative errno. */
#ifndef GUEST_H
#define GUEST_H

#include "proto/init.h"

#include <sys/types.h>

/* ---- mounts.c ---- */

/* What is wrong, on the kernel's log: the program's streams are its own. */
void tell(const char *what, const char *on, int failure);

int mount_at(const char *type, const char *folder, unsigned long flags, const char *data);

/* What a Linux program expects to find. Only /dev, /proc and /sys can make it fail. */
int prepare_system(void);

/* Whether this kernel is a user-mode Linux. */
bool is_user_mode_linux(void);

/* ---- ports.c ---- */

/* Opens the virtio-console port of that name: its descriptor, or -ENOENT when there is none now. */
int port_open(const char *name);

/* The same, after waiting for it, and for the host to have opened its side. Waits for ever. */
int port_wait(const char *name);

/* All of it, or -errno; -EPIPE when the host's side is closed. */
int port_read(int fd, void *bytes, size_t length);
int port_write(int fd, const void *bytes, size_t length);

/* ---- program.c ---- */

enum { PROGRAM_STREAMS = 3 };

/* Starts the program: its process, which has executed it, in *ret_child. Otherwise the answer says what failed. */
bool program_start(const struct init_request *request, const int streams[PROGRAM_STREAMS], pid_t *ret_child,
                   struct init_answer *ret_failure);

/* Reaps whatever ends until the program has. Then kills and reaps the rest. */
struct init_answer program_wait(pid_t child);

/* ---- exec.c ---- */

/* Asks the host what to run, runs it, and tells how it ended. */
void run_for_host(void);

#endif
