// SPDX-License-Identifier: Apache-2.0
/* A folder of the host as a backend: what is there, and its attributes.
 *
 * A look-up costs two system calls, openat2 and statx, and a third one closes the descriptor when the inode is known
 * already.
 *
 * Where only what is public is shown, a name that is not public is not there at all; that is decided by the very inode
 * that was opened, at each look-up and again when its contents are opened. An inode that stops being public keeps its
 * node, like a file that was opened before, but is not opened any more.
 *
 * Invariants: (1) no call is made with a name that was not checked to be one plain component. (2) attributes are those
 * of the inode that the guest means: of the handle, if it names one.
 *
 * Trust: names, numbers and attributes come from a hostile guest.
 */
#include "device/fs/passthrough.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* How long a guest may believe what it was told, unless it is told never or always (fs.h): what somebody changes on the
 * host is there after a second. */
enum { valid_s = 1 };

/* ---- what the guest may see ---- */

/* Not in linux/magic.h. */
enum {
    CONFIGFS_MAGIC = 0x62656570,
    FUSECTL_MAGIC = 0x65735543,
    MQUEUE_MAGIC = 0x19800202,
    NFSD_MAGIC = 0x6e667364,
    RPCAUTH_MAGIC = 0x67596969
};

bool passthrough_is_for_guests(int fd)
{
    /* Their files are not data but levers and views of the host's kernel. */
    static const uint32_t closed[] = {
        AAFS_MAGIC,        AUTOFS_SUPER_MAGIC,   BINDERFS_SUPER_MAGIC, BINFMTFS_MAGIC,
        BPF_FS_MAGIC,      CONFIGFS_MAGIC,       CGROUP_SUPER_MAGIC,   CGROUP2_SUPER_MAGIC,
        DEBUGFS_MAGIC,     DEVPTS_SUPER_MAGIC,   EFIVARFS_MAGIC,       FUSECTL_MAGIC,
        MQUEUE_MAGIC,      NSFS_MAGIC,           OPENPROM_SUPER_MAGIC, PROC_SUPER_MAGIC,
        PSTOREFS_MAGIC,    RDTGROUP_SUPER_MAGIC, SECURITYFS_MAGIC,     SELINUX_MAGIC,
        SMACK_MAGIC,       SYSFS_MAGIC,          TRACEFS_MAGIC,        USBDEVICE_SUPER_MAGIC,
        XENFS_SUPER_MAGIC, NFSD_MAGIC,           RPCAUTH_MAGIC,
    };
    struct statfs file_system;
    if (fstatfs(fd, &file_system) < 0)
        return false;
    for (size_t i = 0; i < array_length(closed); i++) {
        if ((uint32_t)file_system.f_type == closed[i])
            return false;
    }
    return true;
}

bool passthrough_is_public(uint32_t mode)
{
    if (S_ISDIR(mode))
        return (mode & (S_IROTH | S_IXOTH)) == (S_IROTH | S_IXOTH);
    return S_ISLNK(mode) || (S_ISREG(mode) && (mode & S_IROTH) != 0);
}

int passthrough_check_name(const char *name)
{
    size_t length = strnlen(name, NAME_MAX + 1);
    if (length > NAME_MAX)
        return -ENAMETOOLONG;
    bool is_plain = length > 0 && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && strchr(name, '/') == NULL;
    return is_plain ? 0 : -EINVAL;
}

int passthrough_pin(struct passthrough *passthrough, uint64_t node, struct host_pin *ret_pin)
{
    int result = host_nodes_pin(&passthrough->nodes, node, ret_pin);
    auto_use struct host_use use = HOST_USE_NONE;
    if (result != -ESTALE || host_handles_use_any(&passthrough->handles, node, &use) < 0)
        return result;
    int fd = passthrough_reopen(passthrough, use.fd, O_PATH);
    return fd < 0 ? fd : host_nodes_pin_by(&passthrough->nodes, node, fd, ret_pin);
}

int passthrough_pin_for(struct passthrough *passthrough, uint64_t folder, const char *name, struct host_pin *ret_pin)
{
    int result = passthrough_check_name(name);
    if (result < 0)
        return result;
    result = passthrough_pin(passthrough, folder, ret_pin);
    if (result < 0)
        return result;
    return ret_pin->node->identity.type == S_IFDIR ? 0 : -ENOTDIR; /* the pin is dropped by the caller's scope */
}

int passthrough_open_name(struct passthrough *passthrough, int folder_fd, const struct host_identity *folder,
                          const char *name, struct statx *ret_status)
{
    auto_close int fd = host_open(&passthrough->nodes, folder_fd, name, O_PATH, 0);
    if (fd < 0)
        return fd;
    int result = host_status(fd, ret_status);
    if (result < 0)
        return result;
    struct host_identity identity = host_identity_of(ret_status);
    bool is_mounted = identity.device != folder->device || identity.mount != folder->mount;
    if (is_mounted && !passthrough_is_for_guests(fd))
        return -EACCES;
    if (passthrough->only_public && !passthrough_is_public(ret_status->stx_mode))
        return -ENOENT;
    return steal_fd(&fd);
}

/* ---- telling the guest ---- */

uint64_t passthrough_inode(const struct passthrough *passthrough, uint64_t device, uint64_t inode)
{
    /* Two file systems share one in the guest: their numbers are kept apart, so that nobody takes two files for two
     * names of one. */
    return device == passthrough->root_device ? inode : inode ^ (device << 32 | device >> 32);
}

void passthrough_fill_attributes(const struct passthrough *passthrough, const struct statx *status,
                                 struct vial_fs_attributes *ret_attributes)
{
    uint64_t device = makedev(status->stx_dev_major, status->stx_dev_minor);
    *ret_attributes = (struct vial_fs_attributes){
        .inode = passthrough_inode(passthrough, device, status->stx_ino),
        .size_bytes = status->stx_size,
        .blocks = status->stx_blocks,
        .access_s = status->stx_atime.tv_sec,
        .modify_s = status->stx_mtime.tv_sec,
        .change_s = status->stx_ctime.tv_sec,
        .access_ns = status->stx_atime.tv_nsec,
        .modify_ns = status->stx_mtime.tv_nsec,
        .change_ns = status->stx_ctime.tv_nsec,
        .mode = status->stx_mode,
        .links = status->stx_nlink,
        .uid = owner_show_uid(&passthrough->owner, status->stx_uid),
        .gid = owner_show_gid(&passthrough->owner, status->stx_gid),
        .device = (uint32_t)makedev(status->stx_rdev_major, status->stx_rdev_minor),
        .block_bytes = status->stx_blksize,
    };
}

int passthrough_enter(struct passthrough *passthrough, struct host_node *folder, const char *name, int fd,
                      const struct statx *status, struct vial_fs_entry *ret_entry)
{
    struct host_identity identity = host_identity_of(status);
    uint64_t id = 0;
    int result = host_nodes_found(&passthrough->nodes, folder, name, fd, &identity, &id);
    if (result < 0)
        return result;
    *ret_entry = (struct vial_fs_entry){
        .node = id,
        .entry_valid_ns = valid_s * CLOCK_NS_PER_S,
        .attributes_valid_ns = valid_s * CLOCK_NS_PER_S,
    };
    passthrough_fill_attributes(passthrough, status, &ret_entry->attributes);
    return 0;
}

int passthrough_lookup(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                       struct vial_fs_entry *ret_entry)
{
    struct passthrough *passthrough = user;
    (void)caller;
    auto_pin struct host_pin folder = HOST_PIN_NONE;
    int result = passthrough_pin_for(passthrough, parent, name, &folder);
    if (result < 0)
        return result;
    struct statx status;
    int fd = passthrough_open_name(passthrough, folder.fd, &folder.node->identity, name, &status);
    return fd < 0 ? fd : passthrough_enter(passthrough, folder.node, name, fd, &status, ret_entry);
}

void passthrough_forget(void *user, uint64_t node, uint64_t lookups)
{
    struct passthrough *passthrough = user;
    host_nodes_forget(&passthrough->nodes, node, lookups);
}

/* ---- attributes ---- */

/* The inode that the guest means: by its handle, which lives even when no name does, or by its number. */
struct subject {
    struct host_pin pin;
    struct host_use use;
    int fd; /* borrowed from one of them */
};
#define SUBJECT_NONE ((struct subject){HOST_PIN_NONE, HOST_USE_NONE, -1})

static void subject_drop(struct subject *subject)
{
    host_use_drop(&subject->use);
    host_pin_drop(&subject->pin);
}
#define auto_subject __attribute__((cleanup(subject_drop)))

static int find_subject(struct passthrough *passthrough, uint64_t node, const uint64_t *handle,
                        struct subject *ret_subject)
{
    int result = -EBADF;
    if (handle != NULL)
        result = host_handles_use(&passthrough->handles, node, *handle, false, &ret_subject->use);
    if (handle != NULL && result < 0)
        result = host_handles_use(&passthrough->handles, node, *handle, true, &ret_subject->use);
    if (handle == NULL)
        result = passthrough_pin(passthrough, node, &ret_subject->pin);
    ret_subject->fd = handle != NULL ? ret_subject->use.fd : ret_subject->pin.fd;
    return result;
}

static int read_attributes(struct passthrough *passthrough, const struct subject *subject,
                           struct vial_fs_attributes *ret_attributes)
{
    struct statx status;
    int result = host_status(subject->fd, &status);
    if (result == 0)
        passthrough_fill_attributes(passthrough, &status, ret_attributes);
    return result;
}

int passthrough_attributes(void *user, const struct vial_fs_caller *caller, uint64_t node, const uint64_t *handle,
                           struct vial_fs_attributes *ret_attributes)
{
    struct passthrough *passthrough = user;
    (void)caller;
    auto_subject struct subject subject = SUBJECT_NONE;
    int result = find_subject(passthrough, node, handle, &subject);
    return result < 0 ? result : read_attributes(passthrough, &subject, ret_attributes);
}

static int set_owner(struct passthrough *passthrough, const struct subject *subject, const struct statx *status,
                     uint32_t which, const struct vial_fs_attributes *wanted)
{
    uid_t uid = (uid_t)-1;
    gid_t gid = (gid_t)-1;
    int result = owner_change(&passthrough->owner, status, which, wanted, &uid, &gid);
    if (result < 0)
        return result;
    bool changes = uid != (uid_t)-1 || gid != (gid_t)-1;
    return changes && fchownat(subject->fd, "", uid, gid, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

static int set_mode(struct passthrough *passthrough, const struct subject *subject, const struct statx *status,
                    uint32_t wanted)
{
    if (S_ISLNK(status->stx_mode))
        return -EOPNOTSUPP; /* Linux keeps no permissions for a link */
    mode_t mode = owner_allow(&passthrough->owner, subject->fd, status->stx_mode & S_IFMT, wanted);
    return passthrough_chmod(passthrough, subject->fd, mode);
}

static int set_size(struct passthrough *passthrough, const struct subject *subject, const struct statx *status,
                    uint64_t size_bytes)
{
    if (!S_ISREG(status->stx_mode))
        return S_ISDIR(status->stx_mode) ? -EISDIR : -EINVAL;
    if (size_bytes > INT64_MAX)
        return -EFBIG;
    if (subject->use.handle != NULL && subject->use.handle->is_writable)
        return ftruncate(subject->fd, (off_t)size_bytes) < 0 ? -errno : 0;
    auto_close int fd = passthrough_reopen(passthrough, subject->fd, O_WRONLY);
    if (fd < 0)
        return fd;
    return ftruncate(fd, (off_t)size_bytes) < 0 ? -errno : 0;
}

static int set_times(struct passthrough *passthrough, const struct subject *subject, uint32_t which,
                     const struct vial_fs_attributes *wanted)
{
    struct timespec times[2] = {
        {.tv_sec = wanted->access_s, .tv_nsec = wanted->access_ns},
        {.tv_sec = wanted->modify_s, .tv_nsec = wanted->modify_ns},
    };
    static const uint32_t given[] = {VIAL_FS_SET_ACCESS_TIME, VIAL_FS_SET_MODIFY_TIME};
    static const uint32_t now[] = {VIAL_FS_SET_ACCESS_NOW, VIAL_FS_SET_MODIFY_NOW};
    for (size_t i = 0; i < array_length(times); i++) {
        if ((which & now[i]) != 0)
            times[i].tv_nsec = UTIME_NOW;
        else if ((which & given[i]) == 0)
            times[i].tv_nsec = UTIME_OMIT;
        else if ((uint64_t)times[i].tv_nsec >= CLOCK_NS_PER_S)
            return -EINVAL;
    }
    const char *name = passthrough_fd_name(subject->fd).text;
    return utimensat(passthrough->proc_fd, name, times, 0) < 0 ? -errno : 0;
}

static int change_attributes(struct passthrough *passthrough, const struct subject *subject, uint32_t which,
                             const struct vial_fs_attributes *wanted)
{
    const uint32_t of_owner = VIAL_FS_SET_UID | VIAL_FS_SET_GID;
    const uint32_t of_times = VIAL_FS_SET_ACCESS_TIME | VIAL_FS_SET_MODIFY_TIME | VIAL_FS_SET_ACCESS_NOW |
                              VIAL_FS_SET_MODIFY_NOW;
    struct statx status;
    int result = host_status(subject->fd, &status);
    /* A change of the owner takes bits of the mode away, so the mode comes after it; a change of the size sets times,
     * so these come last. */
    if (result == 0 && (which & of_owner) != 0)
        result = set_owner(passthrough, subject, &status, which, wanted);
    if (result == 0 && (which & VIAL_FS_SET_KILL_IDS) != 0)
        result = passthrough_drop_set_ids(passthrough, subject->fd);
    if (result == 0 && (which & VIAL_FS_SET_MODE) != 0)
        result = set_mode(passthrough, subject, &status, wanted->mode);
    if (result == 0 && (which & VIAL_FS_SET_SIZE) != 0)
        result = set_size(passthrough, subject, &status, wanted->size_bytes);
    if (result == 0 && (which & of_times) != 0)
        result = set_times(passthrough, subject, which, wanted);
    return result;
}

int passthrough_set_attributes(void *user, const struct vial_fs_caller *caller, uint64_t node, const uint64_t *handle,
                               uint32_t which, const struct vial_fs_attributes *wanted,
                               struct vial_fs_attributes *ret_attributes)
{
    struct passthrough *passthrough = user;
    (void)caller;
    auto_subject struct subject subject = SUBJECT_NONE;
    int result = find_subject(passthrough, node, handle, &subject);
    if (result == 0)
        result = change_attributes(passthrough, &subject, which, wanted);
    return result < 0 ? result : read_attributes(passthrough, &subject, ret_attributes);
}
