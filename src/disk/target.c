// SPDX-License-Identifier: Apache-2.0
/* A file that appears under its name when it is whole, and not before.
 *
 *     begin   a file without a name (O_TMPFILE), in the folder where it is to be
 *     …       it is filled
 *     finish  fsync, then a name: linkat, or, to take another file's place, linkat to a hidden name and rename; then
 *             fsync of the folder
 *
 * A process that is killed in between leaves nothing, as a file without a name goes with its last descriptor. Only file
 * systems without O_TMPFILE (NFS, FAT) get a hidden name from the start, ".vial-" and 16 digits, which a kill leaves
 * there, in nobody's way.
 *
 * Invariants: (1) under the path, there is the old state or the whole new one, at every moment. (2) a file that is in
 * use is not replaced. (3) only a regular file is replaced; a link, a device or a folder never.
 *
 * Trust: the path is the user's. Images are private (mode 0600): they hold what a guest knows.
 */
#include "disk/target.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/fd.h"
#include "disk/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(const struct image_target *target, int os_error, const char *what, struct vial_error *err)
{
    int result = error_set_os(err, VIAL_PHASE_RUN, os_error, "cannot %s %s", what, error_short(target->path).text);
    if (result == -ENOSPC || result == -EDQUOT)
        error_remedy(err, "make room there, or choose another folder");
    else if (result == -EACCES || result == -EROFS || result == -EPERM)
        error_remedy(err, "choose a folder that can be written to");
    else if (result == -ENOENT)
        error_remedy(err, "create the folder first");
    return result;
}

static int refuse_existing(const struct image_target *target, struct vial_error *err)
{
    error_set(err, VIAL_ERROR_DUPLICATE, VIAL_PHASE_RUN, "%s exists", error_short(target->path).text);
    error_remedy(err, "choose another name, or say that it is to be replaced (vial disk: --replace)");
    return -EEXIST;
}

static int open_folder(struct image_target *target, struct vial_error *err)
{
    const char *slash = strrchr(target->path, '/');
    size_t length = slash == NULL ? 0 : slash == target->path ? 1 : (size_t)(slash - target->path);
    target->name = slash == NULL ? target->path : slash + 1;
    if (target->name[0] == '\0' || strcmp(target->name, ".") == 0 || strcmp(target->name, "..") == 0) {
        int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_RUN, "\"%s\" is no name for a file",
                               error_short(target->path).text);
        error_remedy(err, "give the path of the image that is to be made");
        return result;
    }
    auto_free char *folder = alloc_zero(length + 2);
    if (folder == NULL)
        return error_no_memory(err, VIAL_PHASE_RUN);
    memcpy(folder, length > 0 ? target->path : ".", length > 0 ? length : 1);
    target->folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return target->folder_fd < 0 ? fail(target, errno, "open the folder of", err) : 0;
}

/* What has the name already: it must be a file that nobody uses, and nobody begins to until it is replaced. */
static int look_at_existing(struct image_target *target, struct vial_error *err)
{
    struct stat about;
    if (fstatat(target->folder_fd, target->name, &about, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : fail(target, errno, "examine", err);
    if (!target->replaces)
        return refuse_existing(target, err);
    if (!S_ISREG(about.st_mode)) {
        int result = error_set(err, VIAL_ERROR_WRONG_KIND, VIAL_PHASE_RUN, "%s is not a regular file",
                               error_short(target->path).text);
        error_remedy(err, "choose another name: only a regular file is replaced");
        return result;
    }
    target->replaced_fd = fd_open_beneath(target->folder_fd, target->name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, false);
    if (target->replaced_fd < 0)
        return fail(target, target->replaced_fd, "open", err);
    int result = disk_file_lock(target->replaced_fd, true);
    if (result == -EBUSY)
        return disk_file_in_use(target->path, true, err);
    return result < 0 ? fail(target, result, "lock", err) : 0;
}

static int name_hidden(struct image_target *target)
{
    uint64_t number = 0;
    if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number))
        return -errno;
    snprintf(target->hidden, sizeof(target->hidden), ".vial-%016llx", (unsigned long long)number);
    return 0;
}

static int make_file(struct image_target *target, struct vial_error *err)
{
    const mode_t private = 0600;
    target->fd = openat(target->folder_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, private);
    if (target->fd >= 0)
        return 0;
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
        return fail(target, errno, "create", err);
    int result = name_hidden(target);
    if (result < 0)
        return fail(target, result, "find a name for", err);
    target->fd = openat(target->folder_fd, target->hidden, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, private);
    if (target->fd >= 0)
        return 0;
    target->hidden[0] = '\0';
    return fail(target, errno, "create", err);
}

int image_target_begin(struct image_target *target, const char *path, bool replaces, struct vial_error *err)
{
    *target = (struct image_target){.path = path, .replaces = replaces, .folder_fd = -1, .fd = -1, .replaced_fd = -1};
    int result = open_folder(target, err);
    if (result == 0)
        result = look_at_existing(target, err);
    if (result == 0)
        result = make_file(target, err);
    if (result < 0)
        image_target_drop(target);
    return result;
}

static int link_as(const struct image_target *target, const char *name)
{
    char self[40];
    snprintf(self, sizeof(self), "/proc/self/fd/%d", target->fd);
    return linkat(AT_FDCWD, self, target->folder_fd, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

static int rename_hidden(struct image_target *target)
{
    unsigned flags = target->replaces ? 0 : RENAME_NOREPLACE;
    if (renameat2(target->folder_fd, target->hidden, target->folder_fd, target->name, flags) < 0)
        return -errno;
    target->hidden[0] = '\0';
    return 0;
}

static int give_name(struct image_target *target)
{
    if (target->hidden[0] != '\0')
        return rename_hidden(target);
    int result = link_as(target, target->name);
    if (result != -EEXIST || !target->replaces)
        return result;
    result = name_hidden(target);
    if (result == 0)
        result = link_as(target, target->hidden);
    if (result < 0) {
        target->hidden[0] = '\0';
        return result;
    }
    return rename_hidden(target);
}

int image_target_finish(struct image_target *target, struct vial_error *err)
{
    int result = fsync(target->fd) < 0 ? fail(target, errno, "write", err) : 0;
    if (result == 0) {
        int named = give_name(target);
        result = named == -EEXIST ? refuse_existing(target, err) : named < 0 ? fail(target, named, "create", err) : 0;
    }
    if (result == 0 && fsync(target->folder_fd) < 0)
        result = fail(target, errno, "write the folder of", err);
    image_target_drop(target);
    return result;
}

void image_target_drop(struct image_target *target)
{
    if (target->hidden[0] != '\0')
        unlinkat(target->folder_fd, target->hidden, 0);
    target->hidden[0] = '\0';
    target->fd = fd_close(target->fd);
    target->replaced_fd = fd_close(target->replaced_fd);
    target->folder_fd = fd_close(target->folder_fd);
}
