// SPDX-License-Identifier: Apache-2.0
/* To whom the files of a shared folder belong: on the host, and as the guest sees it. */
#ifndef DEVICE_FS_OWNER_H
#define DEVICE_FS_OWNER_H

#include "device/fs/backend.h"

#include <linux/capability.h>
#include <sys/stat.h>

struct owner {
    bool is_mapped;    /* everything of ours appears as that of: */
    uint32_t uid, gid; /* in the guest */
    uid_t our_uid;     /* on the host */
    gid_t our_gid;
    gid_t *groups; /* owned: the others that we are in; with a mapping only */
    size_t group_count;
    bool is_private; /* nobody else of the host comes to the folder */
};

int owner_init(struct owner *owner, const struct passthrough_options *options, int root_fd);
void owner_end(struct owner *owner);

/* How the guest sees a file of the host. */
uint32_t owner_show_uid(const struct owner *owner, uid_t uid);
uint32_t owner_show_gid(const struct owner *owner, gid_t gid);

/* What a new owner means on the host: 0 with the ids for fchownat ((uid_t)-1: stays), or -EPERM. */
int owner_change(const struct owner *owner, const struct statx *status, uint32_t which,
                 const struct vial_fs_attributes *wanted, uid_t *ret_uid, gid_t *ret_gid);

/* The permissions that a file of this type (of S_IFMT) may have of those that a guest wants. */
mode_t owner_allow(const struct owner *owner, int fd, uint32_t type, mode_t mode);

/* Whether a file of the guest's may give rights to others of the host who run it. */
bool owner_allows_set_ids(const struct owner *owner, int fd);

/* From begin to the scope's end, what this thread makes belongs to the caller. */
struct owner_turn {
    bool is_other; /* the thread's ids are not its own now */
    uid_t uid;     /* its own */
    gid_t gid;
    struct __user_cap_data_struct capabilities[_LINUX_CAPABILITY_U32S_3];
};
#define OWNER_TURN_NONE ((struct owner_turn){.is_other = false})
int owner_begin(const struct owner *owner, const struct vial_fs_caller *caller, struct owner_turn *turn);
void owner_finish(struct owner_turn *turn);
#define auto_turn __attribute__((cleanup(owner_finish)))

#endif
