// SPDX-License-Identifier: Apache-2.0
/* The root that the host asks for, what is mounted below it, and its end.
 *
 * The kernel mounted a root that is there already: a folder of the host, or an empty one, or an initramfs. Another one
 * is put together in a tmpfs at /dev/shm of the old root, which nobody else uses yet:
 *
 *     0, 1, …   the layers                 r   the new root: a disk, a folder, or the layers merged (overlayfs)
 *     d         the upper layer's disk     u   what was written, w overlayfs's own: both in d, or here in memory
 *
 * Then r is moved over /, and this process changes its root to it. Moved and not only entered, because a process whose
 * root is not the root of its mounts may not make user namespaces (kernel/user_namespace.c: current_chrooted). The old
 * root stays below, where nobody sees it, with its own /dev, /proc and /sys. An open descriptor leads back: at the end
 * this process returns there, and unmounts the new root with all that is in it from outside.
 *
 * Invariants: (1) a failure names its mount. (2) what lies on a disk and can be unmounted is, at the end, so that its
 * file system is clean.
 *
 * Trust: the host's word; folders below the new root belong to whoever made the disk, who has the guest anyway.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define STAGE "/dev/shm"

static int old_root = -1; /* owned: the root that the kernel had mounted, once there is another */

static int fail(struct init_answer *failure, enum init_stage stage, int result, size_t mount)
{
    *failure = (struct init_answer){.kind = INIT_FAILED, .stage = stage, .os_error = (uint32_t)-result};
    failure->mount = (uint32_t)mount;
    return result;
}

/* ---- one mount ---- */

struct option_word {
    const char *word;
    unsigned long set, cleared;
};

/* Takes these words out of the options, which are changed, and returns the flags that they mean. */
static unsigned long take_words(char *options, const struct option_word *words, size_t count)
{
    unsigned long flags = 0;
    char *kept = options;
    for (char *word = options; *word != '\0';) {
        size_t length = strcspn(word, ","), row = 0;
        char *next = word + length + (word[length] == ',');
        while (row < count && (strlen(words[row].word) != length || strncmp(words[row].word, word, length) != 0))
            row++;
        if (row < count) {
            flags = (flags & ~words[row].cleared) | words[row].set;
        } else if (length > 0) {
            if (kept != options)
                *kept++ = ',';
            memmove(kept, word, length);
            kept += length;
        }
        word = next;
    }
    *kept = '\0';
    return flags;
}

/* Takes the words of mount(8) that are flags. */
static unsigned long take_flags(char *options)
{
    static const struct option_word words[] = {
        {"ro", MS_RDONLY, 0},         {"rw", 0, MS_RDONLY},
        {"nosuid", MS_NOSUID, 0},     {"suid", 0, MS_NOSUID},
        {"nodev", MS_NODEV, 0},       {"dev", 0, MS_NODEV},
        {"noexec", MS_NOEXEC, 0},     {"exec", 0, MS_NOEXEC},
        {"sync", MS_SYNCHRONOUS, 0},  {"dirsync", MS_DIRSYNC, 0},
        {"noatime", MS_NOATIME, 0},   {"nodiratime", MS_NODIRATIME, 0},
        {"relatime", MS_RELATIME, 0}, {"strictatime", MS_STRICTATIME, 0},
        {"lazytime", MS_LAZYTIME, 0}, {"defaults", 0, 0},
    };
    return take_words(options, words, sizeof(words) / sizeof(words[0]));
}

static unsigned long flags_of(const struct init_mount *mount)
{
    return ((mount->flags & INIT_MOUNT_READ_ONLY) != 0 ? MS_RDONLY : 0) |
           ((mount->flags & INIT_MOUNT_NOSUID) != 0 ? MS_NOSUID : 0) |
           ((mount->flags & INIT_MOUNT_NODEV) != 0 ? MS_NODEV : 0);
}

/* Mount number `index` of the setup at `target`, which is there. */
static int mount_one(const struct init_setup *setup, size_t index, const char *target, struct init_answer *failure)
{
    const struct init_mount *mount_of = &setup->mounts[index];
    char device[DISK_PATH_BYTES] = "", options[LIMIT_MOUNT_OPTIONS_BYTES + 1];
    snprintf(options, sizeof(options), "%s", mount_of->options);
    unsigned long flags = take_flags(options) | flags_of(mount_of);
    int result = mount_of->kind == INIT_MOUNT_DISK ? disk_find(mount_of->source, device) : 0;
    if (result < 0)
        return fail(failure, INIT_STAGE_SOURCE, result, index);
    if (mount_of->kind == INIT_MOUNT_DISK)
        result = disk_mount(device, target, mount_of->fstype, flags, options);
    else if (mount_of->kind == INIT_MOUNT_VIRTIOFS)
        result = mount(mount_of->source, target, "virtiofs", flags, options) < 0 ? -errno : 0;
    else
        result = mount("tmpfs", target, "tmpfs", flags, options) < 0 ? -errno : 0;
    return result < 0 ? fail(failure, INIT_STAGE_MOUNT, result, index) : 0;
}

/* ---- the root ---- */

static int enter_stage(void)
{
    if ((mkdir(STAGE, 01777) < 0 && errno != EEXIST) || mount("tmpfs", STAGE, "tmpfs", 0, "mode=700") < 0 ||
        chdir(STAGE) < 0 || mkdir("r", 0755) < 0)
        return -errno;
    return 0;
}

static int make_folder(const char *name)
{
    return mkdir(name, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

/* Mounts a layer and adds it to the list of lower ones. */
static int mount_lower(const struct init_setup *setup, size_t index, char *list, size_t size,
                       struct init_answer *failure)
{
    size_t used = strlen(list);
    char name[24];
    bool is_present = setup->mounts[index].kind == INIT_MOUNT_PRESENT;
    snprintf(name, sizeof(name), "%zu", index);
    int result = is_present ? 0 : make_folder(name);
    if (result < 0)
        return fail(failure, INIT_STAGE_TARGET, result, index);
    result = is_present ? 0 : mount_one(setup, index, name, failure);
    int length = snprintf(list + used, size - used, "%s%s", used > 0 ? ":" : "", is_present ? "/" : name);
    if (result == 0 && (size_t)length >= size - used)
        result = fail(failure, INIT_STAGE_LAYERS, -E2BIG, INIT_NO_MOUNT);
    return result;
}

/* The upper layer's two folders, on its disk or in the stage, of which `place` becomes the name. */
static int mount_upper(const struct init_setup *setup, size_t index, const char **place, struct init_answer *failure)
{
    int result = 0;
    *place = "";
    if (index < setup->mount_count && setup->mounts[index].role == INIT_ROLE_UPPER) {
        *place = "d/";
        result = make_folder("d");
        if (result < 0)
            return fail(failure, INIT_STAGE_TARGET, result, index);
        result = mount_one(setup, index, "d", failure);
    }
    if (result < 0)
        return result;
    bool is_disk = (*place)[0] != '\0';
    result = make_folder(is_disk ? "d/upper" : "upper");
    if (result == 0)
        result = make_folder(is_disk ? "d/work" : "work");
    return result < 0 ? fail(failure, INIT_STAGE_LAYERS, result, is_disk ? index : INIT_NO_MOUNT) : 0;
}

/* Layers from number `index` on. */
static int merge_layers(const struct init_setup *setup, size_t index, struct init_answer *failure)
{
    char lower[3 * LIMIT_MOUNTS] = "", options[sizeof(lower) + 96];
    const char *place = "";
    int result = 0;
    for (; index < setup->mount_count && setup->mounts[index].role == INIT_ROLE_LOWER && result == 0; index++)
        result = mount_lower(setup, index, lower, sizeof(lower), failure);
    if (result == 0)
        result = mount_upper(setup, index, &place, failure);
    if (result < 0)
        return result;
    snprintf(options, sizeof(options), "lowerdir=%s,upperdir=%supper,workdir=%swork", lower, place, place);
    if (mount("overlay", "r", "overlay", 0, options) < 0)
        return fail(failure, INIT_STAGE_LAYERS, -errno, INIT_NO_MOUNT);
    return 0;
}

/* Makes "r" of the stage the root of this process and of all that follow. */
static int change_root(struct init_answer *failure)
{
    old_root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (old_root < 0 || chdir("r") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        return fail(failure, INIT_STAGE_ROOT, -errno, INIT_NO_MOUNT);
    return 0;
}

bool storage_make_root(const struct init_setup *setup, struct init_answer *ret_failure)
{
    if (setup->mount_count == 0 || setup->mounts[0].role == INIT_ROLE_PLACE)
        return true;
    int result = enter_stage();
    if (result < 0)
        fail(ret_failure, INIT_STAGE_ROOT, result, INIT_NO_MOUNT);
    else if (setup->mounts[0].role == INIT_ROLE_ROOT)
        result = mount_one(setup, 0, "r", ret_failure);
    else
        result = merge_layers(setup, 0, ret_failure);
    return result == 0 && change_root(ret_failure) == 0;
}

/* ---- places ---- */

/* The folder with all that are missing on the way to it. What says no to a folder that is there is no failure. */
static int make_folders(const char *target)
{
    char path[LIMIT_EXEC_PATH_BYTES];
    struct stat status;
    int failure = -ENOENT;
    snprintf(path, sizeof(path), "%s", target);
    for (char *slash = path; *slash != '\0';) {
        slash += 1 + strcspn(slash + 1, "/");
        char kept = *slash;
        *slash = '\0';
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            failure = -errno;
        *slash = kept;
    }
    if (stat(target, &status) == 0)
        return S_ISDIR(status.st_mode) ? 0 : -ENOTDIR;
    return failure;
}

bool storage_mount_places(const struct init_setup *setup, struct init_answer *ret_failure)
{
    int result = 0;
    for (size_t i = 0; i < setup->mount_count && result == 0; i++) {
        const struct init_mount *mount_of = &setup->mounts[i];
        if (mount_of->role != INIT_ROLE_PLACE)
            continue;
        result = make_folders(mount_of->target);
        if (result < 0)
            fail(ret_failure, INIT_STAGE_TARGET, result, i);
        else
            result = mount_one(setup, i, mount_of->target, ret_failure);
    }
    return result == 0;
}

/* What OCI runtimes and mount(8) take beside the options of a file system: how the mount spreads, what is copied into
 * it, when it is made, and by whom. */
static void drop_runtime_words(char *options)
{
    static const struct option_word words[] = {
        {"private", 0, 0}, {"rprivate", 0, 0},   {"shared", 0, 0},      {"rshared", 0, 0},   {"slave", 0, 0},
        {"rslave", 0, 0},  {"unbindable", 0, 0}, {"runbindable", 0, 0}, {"tmpcopyup", 0, 0}, {"notmpcopyup", 0, 0},
        {"auto", 0, 0},    {"nofail", 0, 0},     {"_netdev", 0, 0},     {"user", 0, 0},      {"nouser", 0, 0},
    };
    take_words(options, words, sizeof(words) / sizeof(words[0]));
}

int storage_mount(const char *fstype, const char *source, const char *target, char *options)
{
    drop_runtime_words(options);
    unsigned long flags = take_flags(options);
    int result = make_folders(target);
    return result < 0 ? result : mount(source, target, fstype, flags, options) < 0 ? -errno : 0;
}

int open_plain(const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    int result = fd < 0 || fstat(fd, &status) < 0 ? -errno
                 : S_ISDIR(status.st_mode)        ? -EISDIR
                 : S_ISREG(status.st_mode)        ? fd
                                                  : -EINVAL;
    if (result < 0 && fd >= 0)
        close(fd);
    return result;
}

/* ---- the end ---- */

/* Back to the old root; the new one goes with everything in it. Its descriptor is the last that holds it. */
static void leave_root(void)
{
    char path[32];
    int new_root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", new_root);
    if (new_root < 0 || fchdir(old_root) < 0 || chroot(".") < 0 || umount2(path, MNT_DETACH) < 0)
        tell("unmount", "/", -errno);
    close(new_root);
}

/* The last mount below the root that has a device of the host behind it, if there is one: those inside others come
 * behind them. */
static bool find_mount(char *folder, size_t size)
{
    bool is_found = false;
    FILE *list = setmntent("/proc/self/mounts", "re");
    for (const struct mntent *entry; list != NULL && (entry = getmntent(list)) != NULL;) {
        bool has_device = strncmp(entry->mnt_fsname, "/dev/", 5) == 0 || strcmp(entry->mnt_type, "virtiofs") == 0;
        if (!has_device || strcmp(entry->mnt_dir, "/") == 0)
            continue;
        is_found = true;
        snprintf(folder, size, "%s", entry->mnt_dir);
    }
    if (list != NULL)
        endmntent(list);
    return is_found;
}

/* The root stays. Should the host have answered something that its driver has not looked at yet, such as a FORGET that
 * nobody waits for, then that is looked at now, before answers to questions that were asked later. A user-mode Linux
 * that is switched off would wait for it for ever: its devices are reset first, and then their drivers are removed
 * (arch/um: do_uml_exitcalls; fs/fuse/virtio_fs.c: virtio_fs_drain_queue). */
static void settle_root(void)
{
    struct statfs status;
    for (int i = 0; i < 2; i++) /* the first is asked of the queue that is waited for, the second when it is empty */
        statfs("/", &status);
}

void storage_release(void)
{
    char folder[LIMIT_EXEC_PATH_BYTES];
    sync();
    if (old_root >= 0)
        leave_root();
    for (int tries = 0; tries < LIMIT_MOUNTS && find_mount(folder, sizeof(folder)); tries++) {
        if (umount2(folder, MNT_DETACH) == 0)
            continue;
        tell("unmount", folder, -errno);
        break;
    }
    settle_root();
}
