// SPDX-License-Identifier: Apache-2.0
/* A small file system in memory for tests of the file server. It counts like a backend that trusts its caller, and
 * notes every call that a server must not make: a node that is forgotten, a handle that is closed, a bad name.
 */
#ifndef FAKE_FILES_H
#define FAKE_FILES_H

#include "device/fs/backend.h"

#include <pthread.h>

enum { FAKE_MOST_NODES = 256 };

struct fake_node {
    bool is_alive, is_linked;
    uint64_t lookups, opens;
    unsigned parent; /* index */
    char name[256];
    uint32_t mode, links, uid, gid;
    int64_t modify_s;
    int fd;            /* contents: a memfd */
    char target[4096]; /* of a symbolic link */
    char xattr_name[256];
    size_t xattr_bytes;
    uint8_t xattr[4096];
};

struct fake_files {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct fake_node nodes[FAKE_MOST_NODES]; /* the root is the first; a node's number is its index and 1 */
    const char *wrong;                       /* what the server must not have done, or NULL */
    uint64_t next_handle, calls, changes;    /* calls that change something */
    uint64_t entry_valid_ns;
    bool holds;         /* sync, and reads of more than 4 KiB, wait until this is false */
    unsigned waiting;   /* that many do */
    unsigned most_busy; /* at a time */
    bool was_released;
    int next_error; /* of the next call that can fail, then 0 again */
};

/* With a file "file" ("hello\n"), a folder "folder" with a file "inner" in it, and a symbolic link "link" to "file". */
void fake_files_init(struct fake_files *files);
void fake_files_end(struct fake_files *files);
struct fs_backend fake_files_backend(struct fake_files *files);

/* The index of the child, or -1. */
int fake_files_find(const struct fake_files *files, unsigned parent, const char *name);

/* Lookups and opens of all nodes. */
uint64_t fake_files_held(struct fake_files *files);

void fake_files_hold(struct fake_files *files, bool holds);
void fake_files_wait(struct fake_files *files, unsigned waiting);

#endif
