// SPDX-License-Identifier: Apache-2.0
/* A folder of the host as a backend.
 *
 * The guest names inodes by numbers, and a name is always one component in a folder that is already known by a
 * descriptor. So there is no path that could be resolved differently from how it was checked:
 *
 *     number ──> O_PATH descriptor ──┬── name in it: openat2, no links ──> another number       passthrough_lookup.c
 *                (node.c)            ├── names made, moved, removed in it: *at calls            passthrough_names.c
 *                                    └── /proc/self/fd/N: the same inode, its contents open     passthrough_files.c
 *
 * A symbolic link is an inode with a text like any other; the guest follows it, we never do. Contents are opened only
 * of regular files and folders, and only by the inode's own descriptor: a device, a FIFO or a socket of the host is
 * shown and can be renamed or removed, but never opened, for to open one may act, or wait. File systems whose files are
 * levers of the host's kernel (/proc, /sys and their kin) are closed even where they are mounted below the shared
 * folder. A folder that the host moves out of the shared one while the guest holds its number stays what it is, with
 * what is in it, as for any process that has it open.
 *
 * The guest's kernel checks permissions, by the attributes that it is told. What must hold even against a guest's
 * kernel is checked here; the ids of what it makes, and set-user-id bits, are owner.c's.
 *
 * The umask is the whole process's and not ours to change, so where it took bits away that the guest wanted, they are
 * added afterwards; a default ACL of the folder keeps its word.
 *
 * Invariants: (1) every descriptor that a guest's number stands for was found beneath the shared folder, without
 * following a link. (2) nothing but regular files and folders is opened. (3) names that reach a system call are one
 * component, and neither "." nor "..".
 *
 * Trust: everything that a guest says is hostile. The folder's contents may be hostile, too, and change at any time.
 * The descriptor of /proc/self/fd is the host's, and made before any guest runs.
 */
#include "device/fs/passthrough.h"

#include "base/alloc.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <unistd.h>

/* ---- the same inode once more ---- */

struct passthrough_fd_name passthrough_fd_name(int fd)
{
    struct passthrough_fd_name name;
    snprintf(name.text, sizeof(name.text), "%d", fd);
    return name;
}

struct passthrough_fd_name passthrough_fd_path(int fd)
{
    struct passthrough_fd_name path;
    snprintf(path.text, sizeof(path.text), "/proc/self/fd/%d", fd);
    return path;
}

/* Set-id bits and file capabilities belong to the contents that they were given for. The kernel takes them away with a
 * write, but not when a mapping is written to, and the bits not when CAP_FSETID is held. Where we may not take them
 * away, the contents stay as they are, too. */
static int take_rights_away(const struct passthrough *passthrough, int fd)
{
    static const char capabilities[] = "security.capability";
    const struct passthrough_fd_name path = passthrough_fd_path(fd);
    if (owner_allows_set_ids(&passthrough->owner, fd))
        return 0;
    int result = passthrough_drop_set_ids(passthrough, fd);
    if (result == 0 && getxattr(path.text, capabilities, NULL, 0) >= 0 && removexattr(path.text, capabilities) < 0)
        result = -errno;
    return result;
}

int passthrough_reopen(struct passthrough *passthrough, int fd, int flags)
{
    int result = (flags & O_ACCMODE) != O_RDONLY ? take_rights_away(passthrough, fd) : 0;
    if (result < 0)
        return result;
    for (;;) {
        int opened = openat(passthrough->proc_fd, passthrough_fd_name(fd).text, flags | O_CLOEXEC | O_NOCTTY);
        if (opened >= 0)
            return opened;
        bool may_retry = errno == EINTR ||
                         ((errno == EMFILE || errno == ENFILE) && host_nodes_shed(&passthrough->nodes));
        if (!may_retry)
            return -errno;
    }
}

int passthrough_chmod(const struct passthrough *passthrough, int fd, mode_t mode)
{
    return fchmodat(passthrough->proc_fd, passthrough_fd_name(fd).text, mode, 0) < 0 ? -errno : 0;
}

int passthrough_drop_set_ids(const struct passthrough *passthrough, int fd)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return -errno;
    /* Set-group-id without execution for the group is no right (it once meant mandatory locking); the kernel leaves it
     * alone as well. */
    mode_t dropped = status.st_mode & S_ISUID;
    if ((status.st_mode & S_IXGRP) != 0)
        dropped |= status.st_mode & S_ISGID;
    return dropped == 0 || !S_ISREG(status.st_mode)
               ? 0
               : passthrough_chmod(passthrough, fd, (status.st_mode & 07777) & ~dropped);
}

/* ---- the file system as a whole ---- */

static int passthrough_sync_all(void *user)
{
    struct passthrough *passthrough = user;
    auto_close int fd = passthrough_reopen(passthrough, passthrough->nodes.root->fd, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return fd;
    return syncfs(fd) < 0 ? -errno : 0;
}

static int passthrough_usage(void *user, uint64_t node, struct vial_fs_usage *ret_usage)
{
    struct passthrough *passthrough = user;
    auto_pin struct host_pin pin = HOST_PIN_NONE;
    int result = passthrough_pin(passthrough, node, &pin);
    if (result < 0)
        return result;
    struct statfs usage;
    if (fstatfs(pin.fd, &usage) < 0)
        return -errno;
    *ret_usage = (struct vial_fs_usage){
        .blocks = usage.f_blocks,
        .free_blocks = usage.f_bfree,
        .available_blocks = usage.f_bavail,
        .files = usage.f_files,
        .free_files = usage.f_ffree,
        .block_bytes = (uint32_t)(usage.f_frsize > 0 ? usage.f_frsize : usage.f_bsize),
        .name_bytes = (uint32_t)usage.f_namelen,
    };
    return 0;
}

/* ---- beginning and end ---- */

static void passthrough_release(void *user)
{
    struct passthrough *passthrough = user;
    host_handles_end(&passthrough->handles);
    host_nodes_end(&passthrough->nodes);
    owner_end(&passthrough->owner);
    fd_close(passthrough->proc_fd);
    free(passthrough);
}

static const struct vial_fs_ops passthrough_ops = {
    .size = sizeof(struct vial_fs_ops),
    .lookup = passthrough_lookup,
    .forget = passthrough_forget,
    .attributes = passthrough_attributes,
    .set_attributes = passthrough_set_attributes,
    .read_link = passthrough_read_link,
    .make_link = passthrough_make_link,
    .make_folder = passthrough_make_folder,
    .make_node = passthrough_make_node,
    .create = passthrough_create,
    .unlink = passthrough_unlink,
    .remove_folder = passthrough_remove_folder,
    .rename = passthrough_rename,
    .hard_link = passthrough_hard_link,
    .open = passthrough_open,
    .read = passthrough_read,
    .write = passthrough_write,
    .flush = passthrough_flush,
    .sync = passthrough_sync,
    .allocate = passthrough_allocate,
    .seek = passthrough_seek,
    .copy = passthrough_copy,
    .map = passthrough_map,
    .close = passthrough_close,
    .open_folder = passthrough_open_folder,
    .read_folder = passthrough_read_folder,
    .sync_folder = passthrough_sync_folder,
    .close_folder = passthrough_close_folder,
    .sync_all = passthrough_sync_all,
    .usage = passthrough_usage,
    .get_xattr = passthrough_get_xattr,
    .set_xattr = passthrough_set_xattr,
    .list_xattr = passthrough_list_xattr,
    .remove_xattr = passthrough_remove_xattr,
    .release = passthrough_release,
};

static int open_proc(void)
{
    auto_close int fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    struct statfs file_system;
    if (fstatfs(fd, &file_system) < 0)
        return -errno;
    return file_system.f_type == PROC_SUPER_MAGIC ? steal_fd(&fd) : -ENOSYS;
}

static int open_parts(struct passthrough *passthrough, const struct passthrough_options *options)
{
    passthrough->proc_fd = open_proc();
    if (passthrough->proc_fd < 0)
        return passthrough->proc_fd;
    auto_close int root_fd = open(options->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        return -errno;
    if (!passthrough_is_for_guests(root_fd))
        return -EACCES;
    int result = owner_init(&passthrough->owner, options, root_fd);
    if (result == 0)
        result = host_handles_init(&passthrough->handles);
    if (result == 0)
        result = host_nodes_init(&passthrough->nodes, root_fd, options->most_descriptors, options->one_device);
    if (result < 0)
        return result;
    (void)steal_fd(&root_fd);
    passthrough->root_device = passthrough->nodes.root->identity.device;
    return 0;
}

/* Whether closing a file tells something there: a network's file system tells then what it could not write. Others do
 * not, and a guest that hears so once does not ask at each close any more. */
static bool tells_at_close(int fd)
{
    static const uint32_t remote[] = {NFS_SUPER_MAGIC,  SMB_SUPER_MAGIC,  SMB2_SUPER_MAGIC,
                                      CIFS_SUPER_MAGIC, AFS_SUPER_MAGIC,  AFS_FS_MAGIC,
                                      V9FS_MAGIC,       CEPH_SUPER_MAGIC, FUSE_SUPER_MAGIC};
    struct statfs file_system;
    if (fstatfs(fd, &file_system) < 0)
        return true;
    for (size_t i = 0; i < array_length(remote); i++)
        if ((uint32_t)file_system.f_type == remote[i])
            return true;
    return false;
}

int passthrough_new(const struct passthrough_options *options, struct fs_backend *ret_backend)
{
    struct passthrough *passthrough = alloc_zero(sizeof(*passthrough));
    if (passthrough == NULL)
        return -ENOMEM;
    passthrough->proc_fd = -1;
    passthrough->only_public = options->only_public;
    passthrough->xattrs = options->xattrs;
    if (options->only_public && passthrough->xattrs == FS_XATTR_ALL)
        passthrough->xattrs = FS_XATTR_USER;
    int result = open_parts(passthrough, options);
    if (result < 0) {
        passthrough_release(passthrough);
        return result;
    }
    struct fs_backend backend = {.ops = passthrough_ops, .user = passthrough};
    if (!tells_at_close(passthrough->nodes.root->fd))
        backend.ops.flush = NULL;
    /* What every user of the host may read is for reading. */
    if (options->only_public)
        result = readonly_new(&backend, &backend);
    if (result < 0)
        fs_backend_release(&backend);
    else
        *ret_backend = backend;
    return result;
}
