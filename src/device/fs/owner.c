// SPDX-License-Identifier: Apache-2.0
/* To whom the files of a shared folder belong: on the host, and as the guest sees it.
 *
 * With a mapping there is one owner. What belongs to us on the host appears as his; what belongs to others appears as
 * nobody's (65534), as in a user namespace. What the guest makes is ours, and he may give it to nobody else. An
 * ordinary user needs no more.
 *
 * Without one, ids are the same on both sides. The thread takes the caller's on for the moment in which a file is made
 * (setfsuid(2)), and keeps the capability to override permissions: the guest's kernel has checked them, and it knows
 * groups of the caller that we do not. A thread that has done this has marked the process as not dumpable, which Linux
 * does with every change of these ids (prctl(2), PR_SET_DUMPABLE).
 *
 * Set-user-id and set-group-id bits, and file capabilities, are rights that a guest gives to whoever runs the file on
 * the host. So a guest may set them only where no other user of the host comes to the file: one of the folders above
 * the shared one is searchable for us alone, or its mount is nosuid. Anywhere else they are left out, and a file that
 * has them loses them before a guest can change its contents. (The way is looked at once, when the folder is shared;
 * the log says what came of it. The shared folder itself does not count: its permissions are the guest's to change.)
 *
 * Invariants: (1) a file is made in the caller's name or not at all. (2) a thread leaves with the ids and capabilities
 * that it came with. (3) contents that a guest could change give no rights to other users of the host.
 *
 * Trust: ids and modes come from a hostile guest.
 */
#include "device/fs/owner.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { nobody = 65534 };

/* ---- capabilities of this thread ---- */

static int get_capabilities(struct __user_cap_data_struct *data)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    return syscall(SYS_capget, &header, data) < 0 ? -errno : 0;
}

static int set_capabilities(const struct __user_cap_data_struct *data)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

bool passthrough_is_privileged(void)
{
    static const unsigned needed[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_SETGID, CAP_SETUID};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};
    if (get_capabilities(data) < 0)
        return false;
    for (size_t i = 0; i < array_length(needed); i++) {
        if ((data[CAP_TO_INDEX(needed[i])].effective & CAP_TO_MASK(needed[i])) == 0)
            return false;
    }
    return true;
}

/* ---- making files in the name of others ---- */

/* setfsuid(2) reports nothing: an id that this user namespace does not know is not set, which is seen by asking. */
static bool has_ids(uid_t uid, gid_t gid)
{
    return setfsgid((gid_t)-1) == (int)gid && setfsuid((uid_t)-1) == (int)uid;
}

/* With a user id other than 0 the kernel takes all capabilities over files away (capabilities(7)). */
static int keep_override(void)
{
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};
    int result = get_capabilities(data);
    if (result < 0)
        return result;
    struct __user_cap_data_struct *half = &data[CAP_TO_INDEX(CAP_DAC_OVERRIDE)];
    if ((half->effective & CAP_TO_MASK(CAP_DAC_OVERRIDE)) != 0)
        return 0;
    half->effective |= CAP_TO_MASK(CAP_DAC_OVERRIDE);
    return set_capabilities(data);
}

int owner_begin(const struct owner *owner, const struct vial_fs_caller *caller, struct owner_turn *turn)
{
    if (owner->is_mapped || (caller->uid == owner->our_uid && caller->gid == owner->our_gid))
        return 0;
    if (caller->uid == (uid_t)-1 || caller->gid == (gid_t)-1)
        return -EINVAL; /* they mean "no change" */
    int result = get_capabilities(turn->capabilities);
    if (result < 0)
        return result;
    turn->uid = owner->our_uid;
    turn->gid = owner->our_gid;
    turn->is_other = true;
    (void)setfsgid(caller->gid); /* first: with another user id there may be no right to */
    (void)setfsuid(caller->uid);
    return has_ids(caller->uid, caller->gid) ? keep_override() : -EPERM;
}

void owner_finish(struct owner_turn *turn)
{
    if (!turn->is_other)
        return;
    int saved = errno;
    struct __user_cap_data_struct now[_LINUX_CAPABILITY_U32S_3] = {0};
    (void)setfsuid(turn->uid);
    (void)setfsgid(turn->gid);
    /* These cannot fail: what they ask for is permitted, and was in force before. */
    if (get_capabilities(now) < 0 || memcmp(now, turn->capabilities, sizeof(now)) != 0)
        (void)set_capabilities(turn->capabilities);
    turn->is_other = false;
    errno = saved;
}

/* ---- what the guest sees, and may change ---- */

uint32_t owner_show_uid(const struct owner *owner, uid_t uid)
{
    if (!owner->is_mapped)
        return uid;
    return uid == owner->our_uid ? owner->uid : nobody;
}

uint32_t owner_show_gid(const struct owner *owner, gid_t gid)
{
    if (!owner->is_mapped)
        return gid;
    bool is_ours = gid == owner->our_gid;
    for (size_t i = 0; i < owner->group_count && !is_ours; i++)
        is_ours = gid == owner->groups[i];
    return is_ours ? owner->gid : nobody;
}

int owner_change(const struct owner *owner, const struct statx *status, uint32_t which,
                 const struct vial_fs_attributes *wanted, uid_t *ret_uid, gid_t *ret_gid)
{
    bool has_uid = (which & VIAL_FS_SET_UID) != 0, has_gid = (which & VIAL_FS_SET_GID) != 0;
    if ((has_uid && wanted->uid == (uid_t)-1) || (has_gid && wanted->gid == (gid_t)-1))
        return -EINVAL;
    if (owner->is_mapped) {
        if ((has_uid && wanted->uid != owner_show_uid(owner, status->stx_uid)) ||
            (has_gid && wanted->gid != owner_show_gid(owner, status->stx_gid)))
            return -EPERM;
        has_uid = has_gid = false;
    }
    *ret_uid = has_uid ? wanted->uid : (uid_t)-1;
    *ret_gid = has_gid ? wanted->gid : (gid_t)-1;
    return 0;
}

/* ---- set-user-id ---- */

bool owner_allows_set_ids(const struct owner *owner, int fd)
{
    struct statvfs file_system;
    return owner->is_private || (fstatvfs(fd, &file_system) == 0 && (file_system.f_flag & ST_NOSUID) != 0);
}

mode_t owner_allow(const struct owner *owner, int fd, uint32_t type, mode_t mode)
{
    mode &= 07777;
    bool gives_rights = type != S_IFDIR && (mode & (S_ISUID | S_ISGID)) != 0; /* a folder's only name a group */
    if (gives_rights && !owner_allows_set_ids(owner, fd))
        mode &= (mode_t) ~(S_ISUID | S_ISGID);
    return mode;
}

/* Whether a folder above this one lets nobody in but us (and root). Where we cannot look, others might. */
static bool is_behind_a_door(int root_fd)
{
    auto_close int fd = fcntl(root_fd, F_DUPFD_CLOEXEC, 3);
    struct stat status, below = {0};
    for (unsigned depth = 0; depth < LIMIT_FS_DEPTH; depth++) {
        if (fd < 0 || fstat(fd, &status) < 0)
            return false;
        bool is_ours = status.st_uid == geteuid() || status.st_uid == 0;
        if (depth > 0 && is_ours && (status.st_mode & (S_IXGRP | S_IXOTH)) == 0)
            return true;
        if (depth > 0 && status.st_ino == below.st_ino && status.st_dev == below.st_dev)
            return false; /* the root, which is its own parent */
        below = status;
        int up = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        fd_close(fd);
        fd = up;
    }
    return false;
}

/* ---- beginning and end ---- */

static int read_groups(struct owner *owner)
{
    int count = getgroups(0, NULL);
    if (count <= 0)
        return count < 0 ? -errno : 0;
    owner->groups = alloc_zero((size_t)count * sizeof(*owner->groups));
    if (owner->groups == NULL)
        return -ENOMEM;
    count = getgroups(count, owner->groups);
    if (count < 0)
        return -errno;
    owner->group_count = (size_t)count;
    return 0;
}

int owner_init(struct owner *owner, const struct passthrough_options *options, int root_fd)
{
    *owner = (struct owner){
        .is_mapped = options->has_owner,
        .uid = options->owner_uid,
        .gid = options->owner_gid,
        .our_uid = geteuid(),
        .our_gid = getegid(),
        .is_private = is_behind_a_door(root_fd),
    };
    if (!owner->is_private)
        log_info("fs.set_id_bits_left_out", LOG_TEXT("path", options->path));
    if (!owner->is_mapped)
        return passthrough_is_privileged() ? 0 : -EPERM;
    int result = read_groups(owner);
    if (result < 0)
        owner_end(owner);
    return result;
}

void owner_end(struct owner *owner)
{
    free(owner->groups);
    *owner = (struct owner){.groups = NULL};
}
