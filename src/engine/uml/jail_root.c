// SPDX-License-Identifier: Apache-2.0
/* The root of the jail: three small file systems in memory, and nothing of the host's.
 *
 *     /              read-only once it is filled
 *     /proc/cpuinfo  a plain file: the entry of the host's first CPU, where user-mode Linux looks for features
 *     /initrd        a copy of the initramfs
 *     /socket/0 …    where the devices listen; to connect needs no writing
 *     /memory        a tmpfs for exactly one file of the guest's size: nothing else can use up its room, so the VMM,
 *                    which maps the same file, never meets a page that cannot be had (SIGBUS)
 *     /run           a tmpfs of a few pages for the kernel's own notes (uml_dir)
 *
 * Only /memory can be mapped executable, as user-mode Linux needs it. There is no /dev, no procfs, no sysfs.
 *
 * The new root is mounted over the old one and then takes its place (pivot_root(2)), with no need of a folder of the
 * host's. Where the old root is the kernel's first, which cannot be replaced, it stays below: the program has no
 * capability, no descriptor and no system call to get there.
 *
 * Where the caller goes without a mount namespace, the same files stand in a private folder of the host's, and nothing
 * bounds them but RLIMIT_FSIZE.
 *
 * Invariants: (1) only what is async-signal-safe is called: this runs between clone and exec. (2) no mount event of
 * ours reaches the host, none of the host's comes in.
 *
 * Trust: the initramfs may change while it is copied; the copy ends at the size that was planned.
 */
#include "engine/uml/jail_private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { detach = 2 }; /* MNT_DETACH; sys/mount.h and linux/mount.h do not go together everywhere */

/* A tmpfs that is not mounted anywhere yet, or -errno. */
static int make_tmpfs(const struct jail_mount_option *options, unsigned attributes)
{
    int context = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
    if (context < 0)
        return -errno;
    long returned = 0;
    for (const struct jail_mount_option *option = options; option->key != NULL && returned == 0; option++)
        returned = syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, option->key, option->value, 0);
    if (returned == 0)
        returned = syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    if (returned == 0)
        returned = syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    int result = returned < 0 ? -errno : (int)returned;
    close(context);
    return result;
}

static int mount_at(const struct jail_mount_option *options, unsigned attributes, const char *path)
{
    int mount = make_tmpfs(options, attributes);
    if (mount < 0)
        return mount;
    int result = syscall(SYS_move_mount, mount, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
    close(mount);
    return result;
}

/* With the new root as current directory, mounted over the old one. */
static int replace_root(void)
{
    if (syscall(SYS_pivot_root, ".", ".") == 0) /* the old one now lies over the new one */
        return syscall(SYS_umount2, ".", detach) < 0 || chdir("/") < 0 ? -errno : 0;
    if (errno != EINVAL)
        return -errno;
    return chroot(".") < 0 || chdir("/") < 0 ? -errno : 0;
}

int jail_root_make(const struct jail_plan *plan)
{
    if (!plan->has_own_root)
        return chdir(plan->folder) < 0 ? -errno : 0;
    if (syscall(SYS_mount, NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -errno;
    int root = make_tmpfs(plan->root_options, MOUNT_ATTR_NOEXEC);
    if (root < 0)
        return root;
    int result = 0;
    if (syscall(SYS_move_mount, root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0 || fchdir(root) < 0)
        result = -errno;
    if (result == 0)
        result = replace_root();
    close(root);
    return result;
}

static int write_file(const char *path, const char *bytes, size_t length)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
    if (fd < 0)
        return -errno;
    int result = 0;
    while (length > 0 && result == 0) {
        ssize_t written = write(fd, bytes, length);
        if (written < 0)
            result = -errno;
        else
            bytes += written, length -= (size_t)written;
    }
    close(fd);
    return result;
}

/* By position, because the descriptor's own offset is shared with its owner. */
static int copy_file(int source, uint64_t length, const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
    if (fd < 0)
        return -errno;
    off_t position = 0;
    int result = 0;
    while ((uint64_t)position < length && result == 0) {
        ssize_t copied = sendfile(fd, source, &position, length - (uint64_t)position);
        if (copied <= 0)
            result = copied < 0 ? -errno : -EIO; /* it has become shorter */
    }
    close(fd);
    return result;
}

int jail_root_fill(const struct jail_plan *plan)
{
    int result = 0;
    if (mkdir("memory", 0700) < 0 || mkdir("run", 0700) < 0 || mkdir("socket", 0700) < 0)
        return -errno;
    if (plan->initramfs_fd >= 0)
        result = copy_file(plan->initramfs_fd, plan->initramfs_bytes, "initrd");
    if (result < 0 || !plan->has_own_root)
        return result;
    if (mkdir("proc", 0700) < 0)
        return -errno;
    result = write_file("proc/cpuinfo", plan->cpuinfo, plan->cpuinfo_length);
    if (result == 0)
        result = mount_at(plan->memory_options, 0, "memory");
    if (result == 0)
        result = mount_at(plan->state_options, MOUNT_ATTR_NOEXEC, "run");
    return result;
}

/* The root alone: not the two that are mounted in it. */
int jail_root_seal(const struct jail_plan *plan)
{
    static const unsigned long flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if (!plan->has_own_root)
        return 0;
    return syscall(SYS_mount, NULL, "/", NULL, flags, NULL) < 0 ? -errno : 0;
}
