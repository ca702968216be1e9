// SPDX-License-Identifier: Apache-2.0
/* The walls of a sandbox's process, put up by itself once everything is open and before the guest runs: whoever takes
 * the process over through a device finds no more than what the sandbox has anyway.
 *
 *     no new privileges · capabilities dropped · namespaces (IPC, UTS, network where it needs none) · Landlock: this
 *     sandbox's paths · seccomp: a list of system calls for each kind of thread · descriptors closed
 *
 * Each wall is put up if the host has it; which stand and which are missing, and why, is told. A call that the list
 * does not have is told by name with the kind of its thread, and ends the process (VIAL_EXIT_INTERNAL_ERROR).
 *
 * The order is the whole trick: a jail cannot be made from behind these walls, nor KVM be opened. So
 *
 *     confine_options_add_machine, confine_process     first, while there is one thread
 *     vial_vm_start                                    makes the jail; its threads enter their kinds by themselves,
 *                                                      each before it does anything for the guest
 *     confine_thread(CONFINE_CONTROL)                  before anything of the guest's or of a client's is read
 */
#ifndef SANDBOX_CONFINE_H
#define SANDBOX_CONFINE_H

#include "vial/base.h"

struct vial_vm_config;

/* Kinds of threads, each with a list of its own. */
enum confine_kind {
    CONFINE_CONTROL = 0, /* the loop of the sandbox's process: relay, logs, database, clock */
    CONFINE_DEVICE = 1,  /* a device's loop and its workers */
    CONFINE_VCPU = 2,
    CONFINE_FILES = 3,  /* of a device that opens the host's files */
    CONFINE_DISK = 4,   /* of a device that works on a disk image */
    CONFINE_ENGINE = 5, /* an engine's own thread, which ends the guest */
    CONFINE_NET = 6,    /* of a device that connects to sockets of the host's */
    CONFINE_TSI = 7,    /* of one that makes sockets of the host's network for the guest */
    CONFINE_KINDS = 8,
};
extern const char *const confine_kind_names[CONFINE_KINDS];

struct confine_path {
    const char *path; /* or NULL: fd */
    int fd;
    bool may_write;
    bool removes_folders; /* nothing but that: empty folders in it may be removed */
    bool renames_folders; /* and that: folders in it may get other names */
    bool removes_sockets; /* of a socket: files in its folder, and in those below it, may be removed, nothing else */
    bool makes_sockets;   /* and that: sockets may be made there */
    uint32_t kinds;       /* who may: bits 1 << kind; 0: all */
};

/* What a thread of the kind "files" needs as root, to be more than the owner of the files. */
enum confine_files {
    CONFINE_FILES_NONE = 0,
    CONFINE_FILES_READ = 1,
    CONFINE_FILES_WRITE = 2, /* in the name of the guest's users */
};

struct confine_options {
    const struct confine_path *paths; /* everything else cannot be opened any more */
    size_t path_count;
    bool needs_network; /* keeps the host's network namespace */
    bool has_jail;      /* user-mode Linux: there will be a jail to stop and to end */
    bool has_open_jail; /* ... and walls of it may be missing, so that its folder lies among the host's */
    uint8_t files;      /* enum confine_files */
};

#define CONFINE_TEXT_BYTES 1024

struct confine_report {
    char standing[CONFINE_TEXT_BYTES], missing[CONFINE_TEXT_BYTES]; /* words with commas; reasons in brackets */
};

/* Adds what a machine needs: its shared folders as paths (borrowed from the configuration) behind the *count that are
 * there, and the members behind path_count. -ENOBUFS when there are more than `room`, which is enough with
 * CONFINE_MACHINE_PATHS more than one has. */
#define CONFINE_MACHINE_PATHS 1825
int confine_options_add_machine(struct confine_options *options, const struct vial_vm_config *config,
                                struct confine_path *paths, size_t *count, size_t room);

/* On the main thread, before there are others: what all threads inherit, and what each will do when it enters its kind.
 * Only a wall that the host has and that could not be put up is an error. Once in a process. */
int confine_process(const struct confine_options *options, struct confine_report *ret_report, struct vial_error *err);

/* On the main thread, for itself: its domain, its capabilities and its list. Threads of the library do it when they
 * begin (base/thread.h). */
int confine_thread(enum confine_kind kind, struct vial_error *err);

/* Where the process is told which call was refused (SIGSYS is handled from confine_process on): the function runs in
 * the signal's handler, with the name of the call, and the process ends with EXIT_OURS when it returns. */
void confine_on_refusal(void (*function)(const char *call, enum confine_kind kind));

#endif
