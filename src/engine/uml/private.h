// SPDX-License-Identifier: Apache-2.0
/* What machine.c (putting together) and run.c (running) share. */
#ifndef ENGINE_UML_PRIVATE_H
#define ENGINE_UML_PRIVATE_H

#include "base/buffer.h"
#include "base/clock.h"
#include "base/loop.h"
#include "engine/uml/cmdline.h"
#include "engine/uml/jail.h"
#include "engine/uml/machine.h"
#include "engine/uml/output.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

struct placement;
struct vhost_user;

struct uml_server {               /* the socket side of a device */
    struct uml_machine *machine;  /* borrowed: whose it is */
    struct virtio_device *device; /* borrowed */
    struct vhost_user *vhost;     /* owned */
};

/*            start               pause
 *     NEW ──────────> STARTING ──> RUNNING ──────> PAUSED
 *                        │            │ ^──resume────┘ │      the child has ended
 *                        └─ failure ──┴────────────────┴────> ENDED */
enum uml_state { UML_NEW, UML_STARTING, UML_RUNNING, UML_PAUSED, UML_ENDED };

struct uml_machine {
    void (*on_end)(void *user, const struct vial_exit *exit);
    void *user;    /* borrowed */
    int kernel_fd; /* borrowed */
    uint64_t memory_bytes;
    char memory_variable[128];  /* TMPDIR=…, the whole environment */
    struct uml_cmdline cmdline; /* owned */
    struct uml_server *servers; /* owned array */
    size_t server_count;
    int *socket_fds; /* owned array of borrowed sockets of the servers, for the jail */

    struct loop *loop;               /* owned: the engine's thread's */
    struct uml_output output, error; /* of the child */
    int end_fd;                      /* owned: an eventfd by which the engine's thread is asked to kill the child */
    int input_fd;                    /* owned: the other end of the child's input, never written */
    int child_fds[3];                /* owned until the child has them: its standard descriptors */
    struct loop_source *output_source, *error_source, *child_source, *look_source; /* the loop's */
    bool is_placed;              /* on one host CPU, if that can be had: it has one itself */
    struct placement *placement; /* owned; NULL: it runs where the host's scheduler wants it */

    atomic_uint_fast64_t start_ns; /* base/clock.h */
    atomic_uint connected;         /* devices */

    pthread_mutex_t control_lock; /* held while the jail is paused, resumed or freed; taken before `lock` */
    struct jail *jail;            /* owned; changed with both locks */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    enum uml_state state;
    bool has_end;
    struct vial_exit exit;
    bool has_memory; /* the guest's memory file is known: */
    dev_t memory_device;
    ino_t memory_inode;
    struct vial_error start_error;
    int start_result;
    uint32_t walls; /* set before the state is RUNNING, and then constant; as is */
    struct buffer walls_text;

    pthread_t thread;
    bool has_thread; /* that was started and not joined */
};

/* From uml_machine_start to that time. */
static inline uint64_t uml_machine_elapsed_us(const struct uml_machine *machine, uint64_t time_ns)
{
    return (time_ns - atomic_load(&machine->start_ns)) / CLOCK_NS_PER_US;
}

/* Makes the loop, which watches the child's outputs: 0 or -errno. */
int uml_machine_watch(struct uml_machine *machine);

void uml_machine_close_child_fds(struct uml_machine *machine);

/* Whether guest memory may lie in this file: in the first one that is asked about, and from then on only in that. From
 * any thread. */
bool uml_machine_accepts_memory(struct uml_machine *machine, int fd);

/* Frees the servers: the devices have no transport any more. On any thread but a device's. */
void uml_machine_free_servers(struct uml_machine *machine);

#endif
