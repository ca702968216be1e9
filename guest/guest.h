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

/* /dev, /proc and /sys, without which there is no way to the host. */
int mount_essentials(void);

/* What else a Linux program expects to find; and those again, where the root is another one by now. Only they can make
 * it fail. An empty name of the host is the usual one. */
int prepare_system(const char *hostname);

/* Whether a file system has its top at this folder. */
bool is_mounted(const char *folder);

/* Whether this kernel is a user-mode Linux. */
bool is_user_mode_linux(void);

/* ---- console.c ---- */

/* Becomes stdin, stdout and stderr where nothing is open. */
void console_open(void);

/* Descriptors 0, 1 and 2 lead nowhere, and their numbers are taken. */
void console_close(void);

bool console_is_terminal(void);

/* Waits until the host has what was written there. */
void console_drain(void);

/* ---- disks.c ---- */

enum { DISK_PATH_BYTES = 280 };

/* The device of the disk with that id ("/dev/…": itself). -ENOENT, or -E2BIG. */
int disk_find(const char *id, char path[DISK_PATH_BYTES]);

/* Names in /dev/disk/by-id, as programs expect them. */
void disk_link_all(void);

/* Mounts the device: with an empty type as its content says. */
int disk_mount(const char *device, const char *target, const char *type, unsigned long flags, const char *data);

/* ---- network.c ---- */

/* Sets up the interfaces that the host names, and the files that resolvers read. When it is false, the answer says what
 * failed. */
bool network_set_up(const struct init_setup *setup, struct init_answer *ret_failure);

/* ---- fstab.c ---- */

/* Mounts what /etc/fstab has of folders of the host. */
void fstab_mount(void);

/* ---- storage.c ---- */

/* Makes the root that the host asks for and moves there. Without one to make, nothing happens. When it is false, the
 * answer says what failed, here as below. */
bool storage_make_root(const struct init_setup *setup, struct init_answer *ret_failure);

/* Mounts what lies below the root. */
bool storage_mount_places(const struct init_setup *setup, struct init_answer *ret_failure);

/* A file system at that place, which is made where it is missing, with options of mount(8), of which those are passed
 * over that are for whoever mounts and not for a file system. */
int storage_mount(const char *fstype, const char *source, const char *target, char *options);

/* Opens a file that is one, to read it: -EINVAL for anything that one could wait at. */
int open_plain(const char *path);

/* Writes back and unmounts what lies on disks, as far as can be; the machine ends next. */
void storage_release(void);

/* ---- ports.c ---- */

/* Opens the virtio-console port of that name: its descriptor, or -ENOENT when there is none now. */
int port_open(const char *name);

/* The same, after waiting for it: those that the host has before it are there by then, and open. Waits for ever. */
int port_wait_name(const char *name);

/* The same, and the host has opened its side of this one, too. */
int port_wait(const char *name);

/* All of it, or -errno; -EPIPE when the host's side is closed. */
int port_read(int fd, void *bytes, size_t length);
int port_write(int fd, const void *bytes, size_t length);

/* ---- program.c ---- */

enum { PROGRAM_STREAMS = 3 };

/* execve, of a path or of a name that is looked up in `search`, a PATH. Returns with errno set, or not at all. */
void program_execute(const char *path, const char *search, char *const *args, char *const *env);

/* Becomes the program, in a session of its own, with these streams (-1: what it has); the terminal of the request
 * stands below them. Returns the stage that failed, with errno set, or not at all. */
enum init_stage program_become(const struct init_request *request, const int streams[PROGRAM_STREAMS]);

/* Starts the program: its process, which has executed it, in *ret_child. Otherwise the answer says what failed. */
bool program_start(const struct init_request *request, const int streams[PROGRAM_STREAMS], pid_t *ret_child,
                   struct init_answer *ret_failure);

/* Reaps whatever ends until the program has. Then kills and reaps the rest. */
struct init_answer program_wait(pid_t child);

/* ---- exec.c ---- */

/* Asks the host what to mount and to run, does it, and tells how it ended. Without a program it calls `report` on the
 * console instead. */
void run_for_host(void (*report)(void));

/* ---- words.c ---- */

/* Whether the kernel's command line says what is to run: it becomes this process's arguments and environment. */
bool has_words(int count, char *const args[]);

/* Runs it, and tells the host's folder that is the root how it ended. */
void run_by_words(int count, char *const args[]);

#endif
