// SPDX-License-Identifier: Apache-2.0
/* A folder of the host as a backend: names that are made, moved and removed.
 *
 * Each of these is one *at call with one component, in a folder that is known by its descriptor. None of them follows a
 * symbolic link as last component, so there is nothing that the host could exchange under them.
 *
 * What was made is then looked up by its name, like anything else. Should somebody have exchanged it in between, the
 * guest is told of what it finds there now.
 *
 * Invariants: (1) a file is created exclusively, or found and opened like any other: O_CREAT never meets what is there
 * already. (2) character and block devices are not made.
 *
 * Trust: names, modes and link texts come from a hostile guest. A link's text is what it wants; programs of the host
 * that follow links in a shared folder are warned.
 */
#include "device/fs/passthrough.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/xattr.h>
#include <unistd.h>

/* How often a name may vanish between two looks before we say that it is not there. */
enum { most_attempts = 8 };

ssize_t passthrough_read_link(void *user, const struct vial_fs_caller *caller, uint64_t node, char *target, size_t size)
{
    struct passthrough *passthrough = user;
    (void)caller;
    auto_pin struct host_pin pin = HOST_PIN_NONE;
    int result = passthrough_pin(passthrough, node, &pin);
    if (result < 0)
        return result;
    if (pin.node->identity.type != S_IFLNK)
        return -EINVAL;
    ssize_t length = readlinkat(pin.fd, "", target, size);
    return length < 0 ? -errno : length;
}

/* ---- making ---- */

static bool has_default_acl(const struct host_node *folder)
{
    return getxattr(passthrough_fd_path(folder->fd).text, "system.posix_acl_default", NULL, 0) > 0;
}

/* Gives what was made the permissions that the host's umask took away, and the bits that a creation does not get. */
static int finish_mode(struct passthrough *passthrough, const struct host_node *folder,
                       const struct vial_fs_caller *caller, int fd, mode_t wanted, struct statx *status)
{
    uint32_t type = status->stx_mode & S_IFMT;
    mode_t mode = owner_allow(&passthrough->owner, fd, type, wanted);
    if (type != S_IFDIR && owner_show_gid(&passthrough->owner, status->stx_gid) != caller->gid)
        mode &= (mode_t)~S_ISGID; /* as Linux does for who is not in that group: it is the folder's */
    mode_t missing = mode & (mode_t)~status->stx_mode;
    if ((missing & 0777) != 0 && has_default_acl(folder))
        missing &= (mode_t)~0777;
    if (missing == 0)
        return 0;
    /* Where the host refuses, as file systems without permissions do, the file stays with the fewer that it has. */
    (void)passthrough_chmod(passthrough, fd, (status->stx_mode & 07777) | missing);
    return host_status(fd, status);
}

/* The entry of what was made; `fd` is owned, and stands for it. */
static int enter_made(struct passthrough *passthrough, struct host_node *folder, const struct vial_fs_caller *caller,
                      const char *name, mode_t wanted, struct vial_fs_entry *ret_entry)
{
    struct statx status;
    auto_close int fd = passthrough_open_name(passthrough, folder->fd, &folder->identity, name, &status);
    if (fd < 0)
        return fd;
    if (!S_ISLNK(status.stx_mode)) {
        int result = finish_mode(passthrough, folder, caller, fd, wanted & ~caller->umask, &status);
        if (result < 0)
            return result;
    }
    return passthrough_enter(passthrough, folder, name, steal_fd(&fd), &status, ret_entry);
}

int passthrough_make_link(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                          const char *target, struct vial_fs_entry *ret_entry)
{
    struct passthrough *passthrough = user;
    auto_pin struct host_pin folder = HOST_PIN_NONE;
    int result = passthrough_pin_for(passthrough, parent, name, &folder);
    if (result < 0)
        return result;
    auto_turn struct owner_turn turn = OWNER_TURN_NONE;
    result = owner_begin(&passthrough->owner, caller, &turn);
    if (result == 0 && symlinkat(target, folder.fd, name) < 0)
        result = -errno;
    owner_finish(&turn);
    return result < 0 ? result : enter_made(passthrough, folder.node, caller, name, 0, ret_entry);
}

int passthrough_make_folder(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                            uint32_t mode, struct vial_fs_entry *ret_entry)
{
    struct passthrough *passthrough = user;
    auto_pin struct host_pin folder = HOST_PIN_NONE;
    int result = passthrough_pin_for(passthrough, parent, name, &folder);
    if (result < 0)
        return result;
    mode &= 0777 | S_ISVTX; /* set-group-id is the parent's to give (mkdir(2)) */
    auto_turn struct owner_turn turn = OWNER_TURN_NONE;
    result = owner_begin(&passthrough->owner, caller, &turn);
    if (result == 0 && mkdirat(folder.fd, name, mode & ~caller->umask) < 0)
        result = -errno;
    owner_finish(&turn);
    return result < 0 ? result : enter_made(passthrough, folder.node, caller, name, mode, ret_entry);
}

int passthrough_make_node(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                          uint32_t mode, uint32_t device, struct vial_fs_entry *ret_entry)
{
    struct passthrough *passthrough = user;
    (void)device;
    mode_t type = (mode & S_IFMT) != 0 ? mode & S_IFMT : S_IFREG;
    if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK)
        return type == S_IFCHR || type == S_IFBLK ? -EPERM : -EINVAL;
    auto_pin struct host_pin folder = HOST_PIN_NONE;
    int result = passthrough_pin_for(passthrough, parent, name, &folder);
    if (result < 0)
        return result;
    auto_turn struct owner_turn turn = OWNER_TURN_NONE;
    result = owner_begin(&passthrough->owner, caller, &turn);
    if (result == 0 && mknodat(folder.fd, name, type | (mode & 0777 & ~caller->umask), 0) < 0)
        result = -errno;
    owner_finish(&turn);
    return result < 0 ? result : enter_made(passthrough, folder.node, caller, name, mode & 07777, ret_entry);
}

/* ---- creating and opening ---- */

/* Makes the file, and its handle: 0, -EEXIST, or another error. */
static int create_new(struct passthrough *passthrough, struct host_node *folder, const struct vial_fs_caller *caller,
                      const char *name, mode_t mode, int flags, struct vial_fs_entry *ret_entry, uint64_t *ret_handle)
{
    auto_turn struct owner_turn turn = OWNER_TURN_NONE;
    int result = owner_begin(&passthrough->owner, caller, &turn);
    if (result < 0)
        return result;
    auto_close int fd = host_open(&passthrough->nodes, folder->fd, name, flags | O_CREAT | O_EXCL,
                                  mode & 0777 & ~caller->umask);
    owner_finish(&turn);
    if (fd < 0)
        return fd;
    struct statx status;
    result = host_status(fd, &status);
    if (result == 0)
        result = finish_mode(passthrough, folder, caller, fd, mode & 07777 & ~caller->umask, &status);
    int place = result < 0 ? result : passthrough_reopen(passthrough, fd, O_PATH);
    struct vial_fs_entry entry;
    result = place < 0 ? place : passthrough_enter(passthrough, folder, name, place, &status, &entry);
    if (result < 0)
        return result;
    bool is_writable = (flags & O_ACCMODE) != O_RDONLY;
    result = host_handles_add(&passthrough->handles, entry.node, steal_fd(&fd), false, is_writable, ret_handle);
    if (result < 0)
        host_nodes_forget(&passthrough->nodes, entry.node, 1);
    else
        *ret_entry = entry;
    return result;
}

static int open_existing(struct passthrough *passthrough, struct host_node *folder, const char *name, uint32_t flags,
                         struct vial_fs_entry *ret_entry, uint64_t *ret_handle)
{
    struct statx status;
    int fd = passthrough_open_name(passthrough, folder->fd, &folder->identity, name, &status);
    struct vial_fs_entry entry;
    int result = fd < 0 ? fd : passthrough_enter(passthrough, folder, name, fd, &status, &entry);
    if (result < 0)
        return result;
    {
        auto_pin struct host_pin pin = HOST_PIN_NONE;
        result = passthrough_pin(passthrough, entry.node, &pin);
        if (result == 0)
            result = passthrough_open_pinned(passthrough, &pin, flags, ret_handle);
        if (result == 0 && (flags & O_TRUNC) != 0 && host_status(pin.fd, &status) == 0)
            passthrough_fill_attributes(passthrough, &status, &entry.attributes);
    }
    if (result < 0)
        host_nodes_forget(&passthrough->nodes, entry.node, 1);
    else
        *ret_entry = entry;
    return result;
}

int passthrough_create(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                       uint32_t mode, uint32_t flags, struct vial_fs_entry *ret_entry, uint64_t *ret_handle)
{
    struct passthrough *passthrough = user;
    int host_flags = passthrough_open_flags(flags);
    if (host_flags < 0)
        return host_flags;
    auto_pin struct host_pin folder = HOST_PIN_NONE;
    int result = passthrough_pin_for(passthrough, parent, name, &folder);
    if (result < 0)
        return result;
    for (int attempt = 0; attempt < most_attempts; attempt++) {
        result = create_new(passthrough, folder.node, caller, name, mode, host_flags, ret_entry, ret_handle);
        if (result != -EEXIST || (flags & O_EXCL) != 0)
            return result;
        result = open_existing(passthrough, folder.node, name, flags, ret_entry, ret_handle);
        if (result != -ENOENT)
            return result;
    }
    return result;
}

/* ---- moving and removing ---- */

static int remove_name(struct passthrough *passthrough, uint64_t parent, const char *name, int flags)
{
    auto_pin struct host_pin folder = HOST_PIN_NONE;
    int result = passthrough_pin_for(passthrough, parent, name, &folder);
    if (result < 0)
        return result;
    return unlinkat(folder.fd, name, flags) < 0 ? -errno : 0;
}

int passthrough_unlink(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name)
{
    (void)caller;
    return remove_name(user, parent, name, 0);
}

int passthrough_remove_folder(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name)
{
    (void)caller;
    return remove_name(user, parent, name, AT_REMOVEDIR);
}

/* Notes where a known node is now. A failure is no loss: it is looked up again when it is needed. */
static void note_place(struct passthrough *passthrough, struct host_node *folder, const char *name)
{
    struct statx status;
    auto_close int fd = passthrough_open_name(passthrough, folder->fd, &folder->identity, name, &status);
    if (fd < 0)
        return;
    struct host_identity identity = host_identity_of(&status);
    host_nodes_moved(&passthrough->nodes, folder, name, &identity);
}

int passthrough_rename(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                       uint64_t new_parent, const char *new_name, uint32_t flags)
{
    struct passthrough *passthrough = user;
    (void)caller;
    if (flags != 0 && flags != RENAME_NOREPLACE && flags != RENAME_EXCHANGE)
        return -EINVAL;
    auto_pin struct host_pin from = HOST_PIN_NONE, to = HOST_PIN_NONE;
    int result = passthrough_pin_for(passthrough, parent, name, &from);
    if (result == 0)
        result = passthrough_pin_for(passthrough, new_parent, new_name, &to);
    if (result < 0)
        return result;
    if (renameat2(from.fd, name, to.fd, new_name, flags) < 0)
        return -errno;
    note_place(passthrough, to.node, new_name);
    if ((flags & RENAME_EXCHANGE) != 0)
        note_place(passthrough, from.node, name);
    return 0;
}

int passthrough_hard_link(void *user, const struct vial_fs_caller *caller, uint64_t node, uint64_t new_parent,
                          const char *new_name, struct vial_fs_entry *ret_entry)
{
    struct passthrough *passthrough = user;
    (void)caller;
    auto_pin struct host_pin pin = HOST_PIN_NONE, folder = HOST_PIN_NONE;
    int result = passthrough_pin(passthrough, node, &pin);
    if (result == 0)
        result = passthrough_pin_for(passthrough, new_parent, new_name, &folder);
    if (result < 0)
        return result;
    /* Follows the magic link to the inode, and goes no further where that is a link itself. */
    if (linkat(passthrough->proc_fd, passthrough_fd_name(pin.fd).text, folder.fd, new_name, AT_SYMLINK_FOLLOW) < 0)
        return -errno;
    struct statx status;
    int fd = passthrough_open_name(passthrough, folder.fd, &folder.node->identity, new_name, &status);
    return fd < 0 ? fd : passthrough_enter(passthrough, folder.node, new_name, fd, &status, ret_entry);
}
