// SPDX-License-Identifier: Apache-2.0
/* A folder of the host as a backend: listing what is in it.
 *
 * A handle reads some KiB of names ahead and remembers at which offset of the host it stands. A guest that goes on
 * where it was gets the rest of them; one that asks for any other offset has the host look for that (lseek(2)): offsets
 * are the host's, so they stay good while names come and go.
 *
 *     offset ──> position of the handle?  yes: the bytes at hand, then more     no: lseek, and more
 *
 * A name that a look-up would not find is not listed. To know that, each is opened where only what is public is there,
 * and each folder where other file systems are not.
 *
 * Invariants: (1) an entry that the sink did not take is the first one of the next call. (2) the position stands for
 * exactly the byte that comes next.
 *
 * Trust: offsets come from a hostile guest, names from a hostile host; the records around them from its kernel.
 */
#include "device/fs/passthrough.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/limits.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int passthrough_open_folder(void *user, const struct vial_fs_caller *caller, uint64_t node, uint64_t *ret_handle)
{
    struct passthrough *passthrough = user;
    (void)caller;
    auto_pin struct host_pin pin = HOST_PIN_NONE;
    int result = passthrough_pin(passthrough, node, &pin);
    if (result < 0)
        return result;
    if (pin.node->identity.type != S_IFDIR)
        return -ENOTDIR;
    auto_close int fd = passthrough_reopen(passthrough, pin.fd, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return fd;
    struct stat status;
    bool is_root = pin.node == passthrough->nodes.root;
    if (passthrough->only_public && !is_root && (fstat(fd, &status) < 0 || !passthrough_is_public(status.st_mode)))
        return -EACCES;
    return host_handles_add(&passthrough->handles, node, steal_fd(&fd), true, false, ret_handle);
}

int passthrough_sync_folder(void *user, uint64_t node, uint64_t handle, bool data_only)
{
    struct passthrough *passthrough = user;
    auto_use struct host_use use = HOST_USE_NONE;
    int result = host_handles_use(&passthrough->handles, node, handle, true, &use);
    if (result < 0)
        return result;
    return (data_only ? fdatasync(use.fd) : fsync(use.fd)) < 0 ? -errno : 0;
}

int passthrough_close_folder(void *user, uint64_t node, uint64_t handle)
{
    struct passthrough *passthrough = user;
    return host_handles_close(&passthrough->handles, node, handle, true);
}

/* ---- reading ---- */

/* One listing: the folder, and where its names go. */
struct listing {
    struct passthrough *passthrough;
    struct host_handle *handle;    /* locked */
    struct host_identity identity; /* of the folder */
    bool is_root;
    vial_fs_entry_sink add;
    void *sink;
};

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static bool is_there(const struct listing *listing, const struct dirent64 *entry)
{
    const struct passthrough *passthrough = listing->passthrough;
    bool may_be_mounted = passthrough->nodes.one_device && (entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN);
    if (is_dots(entry->d_name) || (!passthrough->only_public && !may_be_mounted))
        return true;
    struct statx status;
    auto_close int fd = passthrough_open_name(listing->passthrough, listing->handle->fd, &listing->identity,
                                              entry->d_name, &status);
    return fd >= 0;
}

static uint64_t inode_of(const struct listing *listing, const struct dirent64 *entry)
{
    /* What is above the shared folder is nobody's business: the root is its own parent. */
    uint64_t inode = listing->is_root && is_dots(entry->d_name) ? listing->identity.inode : entry->d_ino;
    return passthrough_inode(listing->passthrough, listing->identity.device, inode);
}

/* Reads ahead from where the handle stands: how many bytes, 0 at the end, or -errno. */
static ssize_t read_ahead(struct host_handle *handle)
{
    if (handle->bytes == NULL)
        handle->bytes = alloc_zero(LIMIT_FS_FOLDER_BYTES);
    if (handle->bytes == NULL)
        return -ENOMEM;
    ssize_t length = getdents64(handle->fd, handle->bytes, LIMIT_FS_FOLDER_BYTES);
    handle->next_byte = 0;
    handle->length = length > 0 ? (size_t)length : 0;
    if (length > 0)
        return length;
    int result = length < 0 ? -errno : 0;
    free(handle->bytes);
    handle->bytes = NULL;
    return result;
}

static int go_to(struct host_handle *handle, uint64_t offset)
{
    /* Zero begins anew, even for who stands there: what was read ahead may be old. */
    if (offset == handle->position && offset != 0)
        return 0;
    if (offset > INT64_MAX)
        return -EINVAL;
    if (lseek(handle->fd, (off_t)offset, SEEK_SET) < 0)
        return -errno;
    handle->position = offset;
    handle->length = handle->next_byte = 0;
    return 0;
}

static int list(const struct listing *listing)
{
    struct host_handle *handle = listing->handle;
    for (;;) {
        if (handle->next_byte == handle->length) {
            ssize_t length = read_ahead(handle);
            if (length <= 0)
                return (int)length;
        }
        const void *record = handle->bytes + handle->next_byte;
        const struct dirent64 *entry = record;
        if (is_there(listing, entry) && !listing->add(listing->sink, entry->d_name, inode_of(listing, entry),
                                                      entry->d_type, (uint64_t)entry->d_off))
            return 0;
        handle->next_byte += entry->d_reclen;
        handle->position = (uint64_t)entry->d_off;
    }
}

int passthrough_read_folder(void *user, uint64_t node, uint64_t handle, uint64_t offset, vial_fs_entry_sink add,
                            void *sink)
{
    struct passthrough *passthrough = user;
    auto_use struct host_use use = HOST_USE_NONE;
    int result = host_handles_use(&passthrough->handles, node, handle, true, &use);
    if (result < 0)
        return result;
    struct statx status;
    result = host_status(use.fd, &status);
    if (result < 0)
        return result;
    struct listing listing = {
        .passthrough = passthrough,
        .handle = use.handle,
        .identity = host_identity_of(&status),
        .is_root = node == VIAL_FS_ROOT_NODE,
        .add = add,
        .sink = sink,
    };
    pthread_mutex_lock(&use.handle->lock);
    result = go_to(use.handle, offset);
    if (result == 0)
        result = list(&listing);
    pthread_mutex_unlock(&use.handle->lock);
    return result;
}
