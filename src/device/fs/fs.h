// SPDX-License-Identifier: Apache-2.0
/* A virtio file system device: a FUSE server over a backend (virtio 1.2, 5.11). */
#ifndef DEVICE_FS_FS_H
#define DEVICE_FS_FS_H

#include "device/fs/backend.h"
#include "virtio/device.h"

enum { FS_MOST_QUEUES = 8, FS_MOST_WORKERS = 16, FS_WINDOW_ID = 0 };

/* How long a guest believes what it was told without asking again. */
enum fs_cache {
    FS_CACHE_AUTO = 0,   /* for as long as the backend says; file contents until an open finds them changed */
    FS_CACHE_NONE = 1,   /* not at all: others change these files while the guest looks at them */
    FS_CACHE_ALWAYS = 2, /* for ever: nobody else changes them */
};

struct fs_options {
    const char *tag;
    struct fs_backend backend; /* owned by the device once it is made */
    enum fs_cache cache;
    bool read_only; /* no opcode changes anything, and no mapping can be written to */

    /* The guest reads files without opening them, where its kernel can (session.c). Only with read_only, for a backend
     * that need not hear of each open, and where it is no matter that an open for writing fails at its first write. */
    bool without_opens;

    unsigned queue_count;  /* of requests: 1 to FS_MOST_QUEUES */
    unsigned worker_count; /* threads for what may take long: 1 to FS_MOST_WORKERS; started when first needed */
    bool backend_may_wait; /* its calls may take long: our thread only forgets, and closes at the end of a session */
    bool posix_acl;        /* the guest's kernel asks for ACLs, and checks them: one more request a file */
    void *window;          /* borrowed: address space of ours that the guest sees as its DAX window; NULL: none */
    uint64_t window_bytes;
    /* On the device's thread: the guest said its exit code (ioctl 0x7602 on the root). Or NULL. */
    void (*exited)(void *user, int32_t code);
    void *exited_user;
};

int fs_new(const struct fs_options *options, struct virtio_device **ret_device);

struct fs_stats {
    uint64_t requests, errors;
    uint64_t nodes, handles; /* that the guest holds now */
    uint64_t read_bytes, written_bytes;
};

/* On any thread. */
void fs_read_stats(const struct virtio_device *device, struct fs_stats *ret_stats);

#endif
