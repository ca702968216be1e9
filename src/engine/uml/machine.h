// SPDX-License-Identifier: Apache-2.0
/* A machine on user-mode Linux: the guest's kernel is a program in a jail, its devices are threads of this process.
 *
 *     devices are made; uml_machine_new; virtio_device_launch for each; uml_machine_start
 *     pause, resume and end from any thread at any time; on_end; uml_machine_free
 *
 * There is no hardware boundary around such a guest: the jail is all there is. Whoever starts one says so.
 */
#ifndef ENGINE_UML_MACHINE_H
#define ENGINE_UML_MACHINE_H

#include "vial/vmm.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer;
struct virtio_device;
struct uml_machine;

struct uml_options {
    int kernel_fd;           /* borrowed until uml_machine_free; the project's user-mode Linux */
    const char *kernel_path; /* for messages; borrowed until uml_machine_new returns */
    int initramfs_fd;        /* borrowed until uml_machine_free; -1: none */
    unsigned vcpus;
    uint64_t memory_bytes; /* whole pages */
    const char *cmdline;   /* what the guest's kernel is told behind the engine's own words; copied */
    /* Borrowed until on_end is called or uml_machine_free returns: in their order they are virtio0, virtio1, …. Not
     * launched yet when uml_machine_new is called, launched when uml_machine_start is. The array is copied. */
    struct virtio_device *const *devices;
    size_t device_count;
    bool allows_no_jail; /* to run a guest although walls of the jail cannot be put up on this host */
    /* Called once for a machine that has started, on the engine's thread, when no process of the guest lives any more
     * and no device has a transport: now they may be stopped and freed. May be called before uml_machine_start has
     * returned. It may call anything here but uml_machine_join and uml_machine_free. */
    void (*on_end)(void *user, const struct vial_exit *exit);
    void *user; /* borrowed */
};

/* Everything but the child: checks, sockets, a vhost-user server for each device. */
int uml_machine_new(const struct uml_options *options, struct uml_machine **ret_machine, struct vial_error *err);

/* Returns when the kernel's program has been executed. After a failure nothing lives and on_end is not called. */
int uml_machine_start(struct uml_machine *machine, struct vial_error *err);

/* Returns when no process of the guest executes. 0, -EALREADY when nothing changes by it, -ESRCH before the start and
 * once the machine has ended, another -errno when the guest's processes cannot be stopped. */
int uml_machine_pause(struct uml_machine *machine);
int uml_machine_resume(struct uml_machine *machine);

/* Asks for the end and returns at once. The first reason counts. From any thread; before the start the machine ends as
 * soon as it has started. */
void uml_machine_end(struct uml_machine *machine, enum vial_exit_reason reason, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Ends the machine and waits for that, and so for on_end. Accepts NULL. Not on the engine's thread. */
void uml_machine_join(struct uml_machine *machine);

/* Joins and frees it; the devices must still live when on_end was not called. Accepts NULL and returns NULL. */
struct uml_machine *uml_machine_free(struct uml_machine *machine);

/* What stands between the guest and the host, after the start: a bit for each wall of the jail (enum jail_wall), and
 * the same as text, with what is missing and why. */
uint32_t uml_machine_walls(const struct uml_machine *machine);
void uml_machine_describe(const struct uml_machine *machine, struct buffer *text);

#endif
