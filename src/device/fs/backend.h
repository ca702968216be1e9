// SPDX-License-Identifier: Apache-2.0
/* Where a shared file system's files come from: every one of them is a table of functions (vial/backend.h) and a state.
 *
 *     passthrough   a folder of the host
 *     null          an empty root
 *     overlay       virtual files and folders over another backend, and names of it that are hidden
 *     read-only     another backend, without its changes
 *     custom        the embedding program's
 *
 * The server (fs.h) stands in front of them: it knows which nodes and handles were given out, so that none of these
 * ever sees a forged one.
 */
#ifndef DEVICE_FS_BACKEND_H
#define DEVICE_FS_BACKEND_H

#include "vial/backend.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What backends of ours say beyond vial/backend.h. A custom one that says it, in words that are reserved there, has its
 * names believed less. */

/* Of an entry: its name is there for this one look-up. The guest does not believe it, whatever the cache policy. */
static inline void fs_entry_set_once(struct vial_fs_entry *entry)
{
    entry->reserved[0] = 1;
}

static inline bool fs_entry_is_once(const struct vial_fs_entry *entry)
{
    return entry->reserved[0] != 0;
}

/* Beside the type that a listing gives: it lists the name, and READDIRPLUS does not look it up. */
#define FS_LISTED_ONLY (1u << 31)

struct fs_backend {
    struct vial_fs_ops ops;
    void *user; /* owned: ops.release */
};

/* Calls ops.release, if there is one, and empties it. An empty one is fine. */
void fs_backend_release(struct fs_backend *backend);

/* ---- a folder of the host (passthrough.c) ---- */

enum fs_xattrs {
    FS_XATTR_USER = 0, /* user.* pass, and ACLs; nothing else is there */
    FS_XATTR_NONE = 1,
    FS_XATTR_ALL = 2, /* security.* and trusted.* as well, as far as the host lets us */
};

struct passthrough_options {
    const char *path; /* of a folder */
    bool has_owner;   /* everything appears as this owner's, and belongs to us on the host: what an ordinary user has */
    uint32_t owner_uid, owner_gid;
    bool only_public; /* only what every user of the host may read is there */
    bool one_device;  /* other file systems mounted below are not there */
    enum fs_xattrs xattrs;
    uint32_t most_descriptors; /* held for nodes without an open handle; 0: as the process's limit allows */
};

/* Whether this process has what it takes to make files in the name of others; without, an owner is needed. */
bool passthrough_is_privileged(void);

/* Whether ACLs pass, which the guest's kernel then has to enforce (fs.h: posix_acl). */
bool passthrough_passes_acls(const struct passthrough_options *options);

int passthrough_new(const struct passthrough_options *options, struct fs_backend *ret_backend);

/* ---- the others: each takes `below` over once it has succeeded ---- */

int null_new(struct fs_backend *ret_backend);
int readonly_new(struct fs_backend *below, struct fs_backend *ret_backend);

enum fs_virtual_kind {
    FS_VIRTUAL_FILE = 1,
    FS_VIRTUAL_FOLDER = 2, /* on top of a folder below: its mount point, whose contents are those below; else empty */
    FS_VIRTUAL_EMPTY = 3,  /* an empty folder, whatever is below */
    FS_VIRTUAL_HIDDEN = 4, /* nothing is there, whatever is below */
};

struct fs_virtual {
    enum fs_virtual_kind kind;
    const char *path;  /* absolute, normalised; missing folders on the way are virtual, too. Twice: only of folders,
                          and where a file comes first */
    const void *bytes; /* of a file: borrowed until release, unless it is copied */
    size_t length;
    uint32_t mode; /* permissions */
    bool copies;
    bool one_shot; /* of a file: its name is gone after one look-up, and what is below shows unless it is hidden, too */
};

int overlay_new(struct fs_backend *below, const struct fs_virtual *entries, size_t count,
                struct fs_backend *ret_backend);

#endif
