// SPDX-License-Identifier: Apache-2.0
/* A folder of the host as a backend: extended attributes.
 *
 * Which of them pass is a policy, told by the name:
 *
 *                  user.*    system.posix_acl_*     security.*, trusted.*
 *     FS_XATTR_USER  yes     without a mapping      no
 *     FS_XATTR_ALL   yes     without a mapping      as far as the host lets us
 *     FS_XATTR_NONE  no      no                     no
 *
 * An access control list holds user ids in its value. They mean the same on both sides where ids are not mapped;
 * elsewhere they would name some user of the host whom the guest has never heard of. Where they pass, the guest's
 * kernel is told to enforce them, for we override permissions. A file capability gives rights to whoever runs the file
 * on the host, as a set-user-id bit does, and is allowed where that is.
 *
 * Linux has no call that takes an O_PATH descriptor (before 6.13), so they go by its name in /proc, which leads to that
 * inode and, where it is a symbolic link, not beyond it.
 *
 * Invariants: (1) a name that the policy closes is not there: not in a list, not for reading, not for writing. (2) no
 * value or list is longer than LIMIT_FS_XATTR_BYTES.
 *
 * Trust: names, values and sizes come from a hostile guest.
 */
#include "device/fs/passthrough.h"

#include "base/alloc.h"
#include "base/limits.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/xattr.h>

static bool begins_with(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static bool is_acl(const char *name)
{
    return strcmp(name, "system.posix_acl_access") == 0 || strcmp(name, "system.posix_acl_default") == 0;
}

static bool is_open(const struct passthrough *passthrough, const char *name)
{
    if (passthrough->xattrs == FS_XATTR_NONE)
        return false;
    if (begins_with(name, "user."))
        return true;
    if (passthrough->only_public)
        return false;
    if (is_acl(name))
        return !passthrough->owner.is_mapped;
    bool is_for_all = begins_with(name, "security.") || begins_with(name, "trusted.");
    return is_for_all && passthrough->xattrs == FS_XATTR_ALL;
}

bool passthrough_passes_acls(const struct passthrough_options *options)
{
    return !options->has_owner && !options->only_public && options->xattrs != FS_XATTR_NONE;
}

/* Pins the node for work on one attribute, or on all (NULL). */
static int pin_for(struct passthrough *passthrough, uint64_t node, const char *name, struct host_pin *ret_pin)
{
    if (passthrough->xattrs == FS_XATTR_NONE)
        return -ENOSYS; /* Linux tells its programs EOPNOTSUPP, and does not ask again */
    if (name != NULL && strnlen(name, XATTR_NAME_MAX + 1) > XATTR_NAME_MAX)
        return -ERANGE;
    if (name != NULL && !is_open(passthrough, name))
        return -EOPNOTSUPP;
    return passthrough_pin(passthrough, node, ret_pin);
}

ssize_t passthrough_get_xattr(void *user, const struct vial_fs_caller *caller, uint64_t node, const char *name,
                              void *value, size_t size)
{
    struct passthrough *passthrough = user;
    (void)caller;
    auto_pin struct host_pin pin = HOST_PIN_NONE;
    int result = pin_for(passthrough, node, name, &pin);
    if (result < 0)
        return result;
    size_t most = size < LIMIT_FS_XATTR_BYTES ? size : LIMIT_FS_XATTR_BYTES;
    ssize_t length = getxattr(passthrough_fd_path(pin.fd).text, name, value, most);
    /* A file system without ACLs has none. Another error than that, and the guest's kernel would let nobody in. */
    if (length < 0 && errno == EOPNOTSUPP && is_acl(name))
        return -ENODATA;
    return length < 0 ? -errno : length;
}

int passthrough_set_xattr(void *user, const struct vial_fs_caller *caller, uint64_t node, const char *name,
                          const void *value, size_t size, int flags)
{
    struct passthrough *passthrough = user;
    (void)caller;
    if ((flags & ~(XATTR_CREATE | XATTR_REPLACE)) != 0)
        return -EINVAL;
    if (size > LIMIT_FS_XATTR_BYTES)
        return -E2BIG;
    auto_pin struct host_pin pin = HOST_PIN_NONE;
    int result = pin_for(passthrough, node, name, &pin);
    if (result < 0)
        return result;
    if (strcmp(name, "security.capability") == 0 && !owner_allows_set_ids(&passthrough->owner, pin.fd))
        return -EPERM;
    return setxattr(passthrough_fd_path(pin.fd).text, name, value, size, flags) < 0 ? -errno : 0;
}

/* Takes the names out that are not there for the guest; returns what is left. */
static size_t keep_open(const struct passthrough *passthrough, char *names, size_t length)
{
    size_t kept = 0;
    for (size_t at = 0; at < length;) {
        size_t step = strnlen(names + at, length - at);
        if (step == length - at)
            break; /* no NUL: not a name */
        step++;
        if (is_open(passthrough, names + at)) {
            memmove(names + kept, names + at, step);
            kept += step;
        }
        at += step;
    }
    return kept;
}

ssize_t passthrough_list_xattr(void *user, const struct vial_fs_caller *caller, uint64_t node, char *names, size_t size)
{
    struct passthrough *passthrough = user;
    (void)caller;
    auto_pin struct host_pin pin = HOST_PIN_NONE;
    int result = pin_for(passthrough, node, NULL, &pin);
    if (result < 0)
        return result;
    auto_free char *all = alloc_zero(LIMIT_FS_XATTR_BYTES);
    if (all == NULL)
        return -ENOMEM;
    ssize_t length = listxattr(passthrough_fd_path(pin.fd).text, all, LIMIT_FS_XATTR_BYTES);
    if (length < 0)
        return -errno;
    size_t kept = keep_open(passthrough, all, (size_t)length);
    if (size > 0 && kept > size)
        return -ERANGE;
    if (size > 0)
        memcpy(names, all, kept);
    return (ssize_t)kept;
}

int passthrough_remove_xattr(void *user, const struct vial_fs_caller *caller, uint64_t node, const char *name)
{
    struct passthrough *passthrough = user;
    (void)caller;
    auto_pin struct host_pin pin = HOST_PIN_NONE;
    int result = pin_for(passthrough, node, name, &pin);
    if (result < 0)
        return result;
    return removexattr(passthrough_fd_path(pin.fd).text, name) < 0 ? -errno : 0;
}
