// SPDX-License-Identifier: Apache-2.0
/* Handles of the public interface (vial/vial.h), as the files behind it share them. */
#ifndef SANDBOX_LIBRARY_H
#define SANDBOX_LIBRARY_H

#include "sandbox/client.h"
#include "sandbox/home.h"
#include "sandbox/store.h"

#include <pthread.h>
#include <stdatomic.h>

struct vial_home {
    atomic_uint references; /* the program's, and one of each sandbox */
    struct home home;
    pthread_mutex_t lock; /* guards what follows */
    struct store *store;  /* owned */
    char *runtime;        /* owned; NULL: to be found */
};

struct vial_sandbox {
    struct vial_home *home; /* a reference of our own */
    char id[VIAL_SANDBOX_ID_SIZE];
    int folder;           /* owned, O_PATH */
    pthread_mutex_t lock; /* guards what follows */
    char name[VIAL_SANDBOX_NAME_SIZE];
    int claim; /* owned; of an ephemeral one until it was started (home.h), else -1 */
};

struct sandbox_name {
    char text[VIAL_SANDBOX_NAME_SIZE];
};

/* The name as it was last known: for messages. */
struct sandbox_name sandbox_name(struct vial_sandbox *sandbox);

/* A handle for what the store has told; takes the folder over, whatever comes of it. */
int sandbox_new(struct vial_home *home, const struct vial_sandbox_info *info, int folder,
                struct vial_sandbox **ret_sandbox, struct vial_error *err);

/* What the store says, believed only together with the sandbox's lock: a status that lives is told of one that does. */
int sandbox_read(struct vial_sandbox *sandbox, struct vial_sandbox_info *ret_info, struct vial_error *err);

/* Whether the status is one of a sandbox that has a process. */
bool sandbox_status_lives(int status);

/* Between being asked and being forced to end, as it was created. */
uint64_t sandbox_own_grace_ms(const struct vial_sandbox *sandbox);

/* Waits until the sandbox has no process: 0, -ETIMEDOUT or another error. */
int sandbox_wait_end(struct vial_sandbox *sandbox, uint64_t deadline_ns, struct vial_error *err);

/* Waits until nobody starts, repairs or removes it: 0, -ENOENT when it is gone, -ETIMEDOUT or another -errno. */
int sandbox_wait_change(struct vial_sandbox *sandbox, uint64_t deadline_ns);

/* It was started, or is to be kept for later. */
void sandbox_drop_claim(struct vial_sandbox *sandbox);

/* An event of this sandbox. */
void sandbox_event(struct vial_sandbox *sandbox, const char *kind, const char *members);

/* Opens a connection to its process. */
int sandbox_connect(struct vial_sandbox *sandbox, struct client *client, struct vial_error *err);

/* A request that is answered by DONE. */
int sandbox_request(struct vial_sandbox *sandbox, struct agent_message *request, const char *action,
                    struct vial_error *err);

/* Of a file of the guest; `follows` a symbolic link to what it leads to. */
int sandbox_stat(struct vial_sandbox *sandbox, const char *path, bool follows, struct vial_file_info *ret_info,
                 struct vial_error *err);

/* The error of an argument that is not what it must be. */
int sandbox_refuse(const char *field, const char *why, const char *remedy, struct vial_error *err);

#endif
