// SPDX-License-Identifier: Apache-2.0
/* What a guest has open in a folder of the host. */
#ifndef DEVICE_FS_PASSTHROUGH_HANDLES_H
#define DEVICE_FS_PASSTHROUGH_HANDLES_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct host_handle {
    struct host_handle *next, *next_of_node; /* in their buckets */
    uint64_t id, node;
    unsigned users; /* the table, until it is closed, and calls in progress */
    int fd;         /* owned */
    bool is_folder;
    bool is_writable;
    /* Of a folder: what was read of it ahead. */
    pthread_mutex_t lock; /* over all of these, and the descriptor's position */
    char *bytes;          /* owned; NULL while nothing is read */
    size_t length, next_byte;
    uint64_t position; /* the offset at which next_byte stands */
};

struct host_handles {
    pthread_mutex_t lock;                     /* over the table; no system call is made under it */
    struct host_handle **buckets, **of_nodes; /* owned; as many each: by id, and by node */
    size_t bucket_count, count;
    uint64_t last_id;
    size_t most_in_all; /* open at a time, of all tables of the process */
};

int host_handles_init(struct host_handles *handles);
void host_handles_end(struct host_handles *handles);

/* Takes the descriptor over, always. -ENFILE when the guests of this process have as many open as they may. */
int host_handles_add(struct host_handles *handles, uint64_t node, int fd, bool is_folder, bool is_writable,
                     uint64_t *ret_id);

/* A handle that stays open until the scope's end. */
struct host_use {
    struct host_handles *handles; /* borrowed; NULL: nothing is used */
    struct host_handle *handle;   /* borrowed */
    int fd;                       /* borrowed */
};
#define HOST_USE_NONE ((struct host_use){NULL, NULL, -1})
void host_use_drop(struct host_use *use);
#define auto_use __attribute__((cleanup(host_use_drop)))

/* -EBADF when it is not open, not of that node, or not of that kind. */
int host_handles_use(struct host_handles *handles, uint64_t node, uint64_t id, bool is_folder,
                     struct host_use *ret_use);

/* Any handle of the node: -EBADF when it has none open. */
int host_handles_use_any(struct host_handles *handles, uint64_t node, struct host_use *ret_use);
int host_handles_close(struct host_handles *handles, uint64_t node, uint64_t id, bool is_folder);

#endif
