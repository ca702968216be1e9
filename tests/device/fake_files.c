// SPDX-License-Identifier: Apache-2.0
/* A small file system in memory for tests: see fake_files.h. */
#include "fake_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static struct fake_files *begin_call(void *user)
{
    struct fake_files *files = user;
    pthread_mutex_lock(&files->lock);
    files->calls++;
    return files;
}

static int end_call(struct fake_files *files, int result)
{
    pthread_mutex_unlock(&files->lock);
    return result;
}

static void complain(struct fake_files *files, const char *wrong)
{
    if (files->wrong == NULL)
        files->wrong = wrong;
}

static int take_error(struct fake_files *files)
{
    int error = files->next_error;
    files->next_error = 0;
    return error;
}

static struct fake_node *find_node(struct fake_files *files, uint64_t number)
{
    uint64_t index = number - 1;
    bool is_held = index < FAKE_MOST_NODES && files->nodes[index].is_alive &&
                   (index == 0 || files->nodes[index].lookups > 0);
    if (!is_held) {
        complain(files, "a node that was not handed out");
        return NULL;
    }
    return &files->nodes[index];
}

static struct fake_node *find_open(struct fake_files *files, uint64_t number, uint64_t handle)
{
    struct fake_node *node = find_node(files, number);
    if (node == NULL || node->opens == 0 || handle >> 32 != number) {
        complain(files, "a handle that was not handed out");
        return NULL;
    }
    return node;
}

static void check_name(struct fake_files *files, const char *name)
{
    if (name[0] == '\0' || strlen(name) > 255 || strchr(name, '/') != NULL || strcmp(name, ".") == 0 ||
        strcmp(name, "..") == 0)
        complain(files, "a bad name");
}

int fake_files_find(const struct fake_files *files, unsigned parent, const char *name)
{
    for (int i = 1; i < FAKE_MOST_NODES; i++)
        if (files->nodes[i].is_alive && files->nodes[i].is_linked && files->nodes[i].parent == parent &&
            strcmp(files->nodes[i].name, name) == 0)
            return i;
    return -1;
}

static void bury(struct fake_files *files, unsigned index)
{
    struct fake_node *node = &files->nodes[index];
    if (index == 0 || node->is_linked || node->lookups > 0 || node->opens > 0)
        return;
    close(node->fd);
    *node = (struct fake_node){.fd = -1};
}

static void tell_attributes(const struct fake_files *files, const struct fake_node *node,
                            struct vial_fs_attributes *ret_attributes)
{
    struct stat status = {0};
    if (fstat(node->fd, &status) < 0)
        abort();
    *ret_attributes = (struct vial_fs_attributes){
        .inode = 100 + (uint64_t)(node - files->nodes),
        .size_bytes = (uint64_t)status.st_size,
        .blocks = (uint64_t)status.st_blocks,
        .modify_s = node->modify_s,
        .mode = node->mode,
        .links = node->links,
        .uid = node->uid,
        .gid = node->gid,
        .block_bytes = 4096,
    };
}

static int tell_entry(struct fake_files *files, struct fake_node *node, struct vial_fs_entry *ret_entry)
{
    node->lookups++;
    *ret_entry = (struct vial_fs_entry){
        .node = 1 + (uint64_t)(node - files->nodes),
        .generation = 5,
        .entry_valid_ns = files->entry_valid_ns,
        .attributes_valid_ns = files->entry_valid_ns,
    };
    tell_attributes(files, node, &ret_entry->attributes);
    return 0;
}

static int make(struct fake_files *files, uint64_t parent, const char *name, uint32_t mode, struct fake_node **ret_node)
{
    struct fake_node *folder = find_node(files, parent);
    check_name(files, name);
    files->changes++;
    int error = take_error(files);
    if (error < 0 || folder == NULL)
        return error < 0 ? error : -ESTALE;
    if (!S_ISDIR(folder->mode))
        return -ENOTDIR;
    if (fake_files_find(files, (unsigned)parent - 1, name) >= 0)
        return -EEXIST;
    for (unsigned i = 1; i < FAKE_MOST_NODES; i++) {
        struct fake_node *node = &files->nodes[i];
        if (node->is_alive)
            continue;
        *node = (struct fake_node){
            .is_alive = true,
            .is_linked = true,
            .parent = (unsigned)parent - 1,
            .mode = mode,
            .links = 1,
            .modify_s = 1000,
            .fd = memfd_create("fake", MFD_CLOEXEC),
        };
        if (node->fd < 0)
            abort();
        snprintf(node->name, sizeof(node->name), "%s", name);
        *ret_node = node;
        return 0;
    }
    return -ENOSPC;
}

/* ---- names ---- */

static int look_up(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                   struct vial_fs_entry *ret_entry)
{
    struct fake_files *files = begin_call(user);
    (void)caller;
    struct fake_node *folder = find_node(files, parent);
    check_name(files, name);
    if (folder == NULL)
        return end_call(files, -ESTALE);
    int index = S_ISDIR(folder->mode) ? fake_files_find(files, (unsigned)parent - 1, name) : -1;
    return end_call(files, index < 0 ? -ENOENT : tell_entry(files, &files->nodes[index], ret_entry));
}

static void forget(void *user, uint64_t number, uint64_t lookups)
{
    struct fake_files *files = begin_call(user);
    uint64_t index = number - 1;
    if (index >= FAKE_MOST_NODES || !files->nodes[index].is_alive || files->nodes[index].lookups < lookups) {
        complain(files, "more lookups are forgotten than were made");
    } else {
        files->nodes[index].lookups -= lookups;
        bury(files, (unsigned)index);
    }
    end_call(files, 0);
}

static ssize_t read_link(void *user, const struct vial_fs_caller *caller, uint64_t number, char *target, size_t size)
{
    struct fake_files *files = begin_call(user);
    (void)caller;
    const struct fake_node *node = find_node(files, number);
    if (node == NULL || !S_ISLNK(node->mode))
        return end_call(files, -EINVAL);
    size_t length = strlen(node->target);
    memcpy(target, node->target, length < size ? length : size);
    return end_call(files, (int)length);
}

static int make_any(void *user, uint64_t parent, const char *name, uint32_t mode, const char *target,
                    struct vial_fs_entry *ret_entry)
{
    struct fake_files *files = begin_call(user);
    struct fake_node *node = NULL;
    int result = make(files, parent, name, mode, &node);
    if (result == 0 && target != NULL)
        snprintf(node->target, sizeof(node->target), "%s", target);
    return end_call(files, result < 0 ? result : tell_entry(files, node, ret_entry));
}

static int make_link(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                     const char *target, struct vial_fs_entry *ret_entry)
{
    (void)caller;
    return make_any(user, parent, name, S_IFLNK | 0777, target, ret_entry);
}

static int make_folder(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                       uint32_t mode, struct vial_fs_entry *ret_entry)
{
    (void)caller;
    return make_any(user, parent, name, S_IFDIR | mode, NULL, ret_entry);
}

static int make_node(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name, uint32_t mode,
                     uint32_t device, struct vial_fs_entry *ret_entry)
{
    (void)caller;
    (void)device;
    return make_any(user, parent, name, mode, NULL, ret_entry);
}

static int create(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name, uint32_t mode,
                  uint32_t flags, struct vial_fs_entry *ret_entry, uint64_t *ret_handle)
{
    struct fake_files *files = begin_call(user);
    struct fake_node *node = NULL;
    (void)caller;
    (void)flags;
    int result = make(files, parent, name, S_IFREG | mode, &node);
    if (result == 0) {
        tell_entry(files, node, ret_entry);
        node->opens++;
        *ret_handle = ret_entry->node << 32 | files->next_handle++;
    }
    return end_call(files, result);
}

static int remove_name(void *user, uint64_t parent, const char *name, bool is_folder)
{
    struct fake_files *files = begin_call(user);
    struct fake_node *folder = find_node(files, parent);
    check_name(files, name);
    files->changes++;
    int index = folder == NULL ? -1 : fake_files_find(files, (unsigned)parent - 1, name);
    if (index < 0)
        return end_call(files, -ENOENT);
    if (S_ISDIR(files->nodes[index].mode) != is_folder)
        return end_call(files, is_folder ? -ENOTDIR : -EISDIR);
    files->nodes[index].is_linked = false;
    files->nodes[index].links = 0;
    bury(files, (unsigned)index);
    return end_call(files, 0);
}

static int unlink_file(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name)
{
    (void)caller;
    return remove_name(user, parent, name, false);
}

static int remove_folder(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name)
{
    (void)caller;
    return remove_name(user, parent, name, true);
}

static int rename_node(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                       uint64_t new_parent, const char *new_name, uint32_t flags)
{
    struct fake_files *files = begin_call(user);
    (void)caller;
    const struct fake_node *folder = find_node(files, parent), *new_folder = find_node(files, new_parent);
    check_name(files, name);
    check_name(files, new_name);
    files->changes++;
    if (folder == NULL || new_folder == NULL)
        return end_call(files, -ESTALE);
    int index = fake_files_find(files, (unsigned)parent - 1, name);
    int there = fake_files_find(files, (unsigned)new_parent - 1, new_name);
    if (index < 0 || (there >= 0 && flags != 0))
        return end_call(files, index < 0 ? -ENOENT : -EEXIST);
    if (there == index)
        return end_call(files, 0);
    if (there >= 0) {
        files->nodes[there].is_linked = false;
        bury(files, (unsigned)there);
    }
    files->nodes[index].parent = (unsigned)new_parent - 1;
    snprintf(files->nodes[index].name, sizeof(files->nodes[index].name), "%s", new_name);
    return end_call(files, 0);
}

/* Not a second name, but another place: enough for the server, which cannot tell. */
static int hard_link(void *user, const struct vial_fs_caller *caller, uint64_t number, uint64_t new_parent,
                     const char *new_name, struct vial_fs_entry *ret_entry)
{
    struct fake_files *files = begin_call(user);
    (void)caller;
    struct fake_node *node = find_node(files, number);
    check_name(files, new_name);
    files->changes++;
    if (node == NULL || find_node(files, new_parent) == NULL || number == VIAL_FS_ROOT_NODE)
        return end_call(files, -EPERM);
    node->parent = (unsigned)new_parent - 1;
    node->links++;
    snprintf(node->name, sizeof(node->name), "%s", new_name);
    return end_call(files, tell_entry(files, node, ret_entry));
}

/* ---- attributes ---- */

static int attributes(void *user, const struct vial_fs_caller *caller, uint64_t number, const uint64_t *handle,
                      struct vial_fs_attributes *ret_attributes)
{
    struct fake_files *files = begin_call(user);
    (void)caller;
    const struct fake_node *node = handle != NULL ? find_open(files, number, *handle) : find_node(files, number);
    if (node == NULL)
        return end_call(files, -ESTALE);
    tell_attributes(files, node, ret_attributes);
    return end_call(files, 0);
}

static int set_attributes(void *user, const struct vial_fs_caller *caller, uint64_t number, const uint64_t *handle,
                          uint32_t which, const struct vial_fs_attributes *wanted,
                          struct vial_fs_attributes *ret_attributes)
{
    struct fake_files *files = begin_call(user);
    (void)caller;
    struct fake_node *node = handle != NULL ? find_open(files, number, *handle) : find_node(files, number);
    files->changes++;
    if (node == NULL)
        return end_call(files, -ESTALE);
    if ((which & VIAL_FS_SET_MODE) != 0)
        node->mode = (node->mode & S_IFMT) | wanted->mode;
    if ((which & VIAL_FS_SET_UID) != 0)
        node->uid = wanted->uid;
    if ((which & VIAL_FS_SET_GID) != 0)
        node->gid = wanted->gid;
    if ((which & VIAL_FS_SET_KILL_IDS) != 0)
        node->mode &= ~(uint32_t)(S_ISUID | S_ISGID);
    if ((which & VIAL_FS_SET_MODIFY_TIME) != 0)
        node->modify_s = wanted->modify_s;
    if ((which & VIAL_FS_SET_SIZE) != 0 &&
        (wanted->size_bytes > 1 << 20 || ftruncate(node->fd, (off_t)wanted->size_bytes) < 0))
        return end_call(files, -EFBIG);
    tell_attributes(files, node, ret_attributes);
    return end_call(files, 0);
}

static int usage(void *user, uint64_t number, struct vial_fs_usage *ret_usage)
{
    struct fake_files *files = begin_call(user);
    find_node(files, number);
    *ret_usage = (struct vial_fs_usage){.blocks = 1000, .free_blocks = 500, .block_bytes = 4096, .name_bytes = 255};
    return end_call(files, 0);
}

static ssize_t get_xattr(void *user, const struct vial_fs_caller *caller, uint64_t number, const char *name,
                         void *value, size_t size)
{
    struct fake_files *files = begin_call(user);
    (void)caller;
    const struct fake_node *node = find_node(files, number);
    if (node == NULL || node->xattr_bytes == 0 || strcmp(node->xattr_name, name) != 0)
        return end_call(files, -ENODATA);
    if (size > 0 && size < node->xattr_bytes)
        return end_call(files, -ERANGE);
    if (size > 0)
        memcpy(value, node->xattr, node->xattr_bytes);
    return end_call(files, (int)node->xattr_bytes);
}

static int set_xattr(void *user, const struct vial_fs_caller *caller, uint64_t number, const char *name,
                     const void *value, size_t size, int flags)
{
    struct fake_files *files = begin_call(user);
    (void)caller;
    (void)flags;
    struct fake_node *node = find_node(files, number);
    files->changes++;
    if (node == NULL || size > sizeof(node->xattr))
        return end_call(files, -ENOSPC);
    snprintf(node->xattr_name, sizeof(node->xattr_name), "%s", name);
    memcpy(node->xattr, value, size);
    node->xattr_bytes = size;
    return end_call(files, 0);
}

static ssize_t list_xattr(void *user, const struct vial_fs_caller *caller, uint64_t number, char *names, size_t size)
{
    struct fake_files *files = begin_call(user);
    (void)caller;
    const struct fake_node *node = find_node(files, number);
    size_t length = node == NULL || node->xattr_bytes == 0 ? 0 : strlen(node->xattr_name) + 1;
    if (size > 0 && size < length)
        return end_call(files, -ERANGE);
    if (size > 0 && length > 0)
        memcpy(names, node->xattr_name, length);
    return end_call(files, (int)length);
}

static int remove_xattr(void *user, const struct vial_fs_caller *caller, uint64_t number, const char *name)
{
    struct fake_files *files = begin_call(user);
    (void)caller;
    struct fake_node *node = find_node(files, number);
    files->changes++;
    if (node == NULL || node->xattr_bytes == 0 || strcmp(node->xattr_name, name) != 0)
        return end_call(files, -ENODATA);
    node->xattr_bytes = 0;
    return end_call(files, 0);
}

/* ---- open files ---- */

static int open_kind(void *user, uint64_t number, uint32_t flags, bool is_folder, uint64_t *ret_handle)
{
    struct fake_files *files = begin_call(user);
    struct fake_node *node = find_node(files, number);
    if (node == NULL)
        return end_call(files, -ESTALE);
    if (S_ISDIR(node->mode) != is_folder)
        return end_call(files, is_folder ? -ENOTDIR : -EISDIR);
    int error = take_error(files);
    if (error < 0)
        return end_call(files, error);
    if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0)
        files->changes++;
    if ((flags & O_TRUNC) != 0 && ftruncate(node->fd, 0) < 0)
        return end_call(files, -EIO);
    node->opens++;
    *ret_handle = number << 32 | files->next_handle++;
    return end_call(files, 0);
}

static int open_file(void *user, const struct vial_fs_caller *caller, uint64_t number, uint32_t flags,
                     uint64_t *ret_handle)
{
    (void)caller;
    return open_kind(user, number, flags, false, ret_handle);
}

static int open_folder(void *user, const struct vial_fs_caller *caller, uint64_t number, uint64_t *ret_handle)
{
    (void)caller;
    return open_kind(user, number, O_RDONLY, true, ret_handle);
}

static int close_any(void *user, uint64_t number, uint64_t handle)
{
    struct fake_files *files = begin_call(user);
    struct fake_node *node = find_open(files, number, handle);
    if (node != NULL)
        node->opens--;
    return end_call(files, 0);
}

/* With the lock. Waits as long as the test holds; returns the contents' descriptor, or -1. */
static int use_contents(struct fake_files *files, uint64_t number, uint64_t handle, bool may_wait)
{
    const struct fake_node *node = find_open(files, number, handle);
    int fd = node == NULL ? -1 : node->fd;
    if (may_wait) {
        files->waiting++;
        if (files->waiting > files->most_busy)
            files->most_busy = files->waiting;
        pthread_cond_broadcast(&files->changed);
        while (files->holds)
            pthread_cond_wait(&files->changed, &files->lock);
        files->waiting--;
        find_open(files, number, handle); /* it must not have been closed or forgotten meanwhile */
    }
    return fd;
}

static ssize_t read_file(void *user, uint64_t number, uint64_t handle, const struct iovec *parts, int count,
                         uint64_t offset)
{
    struct fake_files *files = begin_call(user);
    size_t wanted = 0;
    for (int i = 0; i < count; i++)
        wanted += parts[i].iov_len;
    int fd = use_contents(files, number, handle, wanted > 4096);
    ssize_t length = preadv(fd, parts, count, (off_t)offset);
    return end_call(files, length < 0 ? -errno : (int)length);
}

static ssize_t write_file(void *user, uint64_t number, uint64_t handle, const struct iovec *parts, int count,
                          uint64_t offset, uint32_t flags)
{
    struct fake_files *files = begin_call(user);
    struct fake_node *node = find_open(files, number, handle);
    files->changes++;
    if (node == NULL || offset > 4 << 20)
        return end_call(files, -EFBIG);
    if ((flags & VIAL_FS_WRITE_KILL_IDS) != 0)
        node->mode &= ~(uint32_t)(S_ISUID | S_ISGID);
    ssize_t length = pwritev(node->fd, parts, count, (off_t)offset);
    return end_call(files, length < 0 ? -errno : (int)length);
}

static int flush_file(void *user, uint64_t number, uint64_t handle)
{
    struct fake_files *files = begin_call(user);
    find_open(files, number, handle);
    return end_call(files, 0);
}

static int sync_any(void *user, uint64_t number, uint64_t handle, bool data_only)
{
    struct fake_files *files = begin_call(user);
    (void)data_only;
    use_contents(files, number, handle, true);
    return end_call(files, take_error(files));
}

static int allocate(void *user, uint64_t number, uint64_t handle, uint32_t mode, uint64_t offset, uint64_t length)
{
    struct fake_files *files = begin_call(user);
    int fd = use_contents(files, number, handle, false);
    files->changes++;
    if (offset > 1 << 20 || length > 1 << 20)
        return end_call(files, -EFBIG);
    return end_call(files, fallocate(fd, (int)mode, (off_t)offset, (off_t)length) < 0 ? -errno : 0);
}

static int64_t seek(void *user, uint64_t number, uint64_t handle, uint64_t offset, uint32_t whence)
{
    struct fake_files *files = begin_call(user);
    int fd = use_contents(files, number, handle, false);
    off_t place = lseek(fd, (off_t)offset, (int)whence);
    return end_call(files, place < 0 ? -errno : (int)place);
}

static ssize_t copy(void *user, uint64_t from_node, uint64_t from_handle, uint64_t from_offset, uint64_t to_node,
                    uint64_t to_handle, uint64_t to_offset, uint64_t length)
{
    struct fake_files *files = begin_call(user);
    int from = use_contents(files, from_node, from_handle, false), to = use_contents(files, to_node, to_handle, false);
    uint8_t bytes[4096];
    files->changes++;
    if (to_offset > 1 << 20)
        return end_call(files, -EFBIG);
    ssize_t got = pread(from, bytes, length < sizeof(bytes) ? (size_t)length : sizeof(bytes), (off_t)from_offset);
    if (got > 0)
        got = pwrite(to, bytes, (size_t)got, (off_t)to_offset);
    return end_call(files, got < 0 ? -errno : (int)got);
}

static int map(void *user, const struct vial_fs_caller *caller, uint64_t number, bool for_writing, int *ret_fd)
{
    struct fake_files *files = begin_call(user);
    char path[64];
    (void)caller;
    const struct fake_node *node = find_node(files, number);
    files->changes += for_writing;
    if (node == NULL)
        return end_call(files, -ESTALE);
    if (S_ISDIR(node->mode)) /* a backend that does not look: the window has to */
        *ret_fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    else {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", node->fd);
        *ret_fd = open(path, (for_writing ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    }
    return end_call(files, *ret_fd < 0 ? -errno : 0);
}

static int read_folder(void *user, uint64_t number, uint64_t handle, uint64_t offset, vial_fs_entry_sink add,
                       void *sink)
{
    struct fake_files *files = begin_call(user);
    find_open(files, number, handle);
    for (uint64_t place = offset; place < FAKE_MOST_NODES + 2; place++) {
        char name[256] = "";
        uint32_t type = 4; /* DT_DIR */
        if (place < 2) {
            snprintf(name, sizeof(name), "%s", place == 0 ? "." : "..");
        } else {
            const struct fake_node *node = &files->nodes[place - 2];
            if (place == 2 || !node->is_alive || !node->is_linked || node->parent != number - 1)
                continue;
            snprintf(name, sizeof(name), "%s", node->name);
            type = node->mode >> 12;
        }
        pthread_mutex_unlock(&files->lock); /* it may look the name up */
        bool was_taken = add(sink, name, 100 + place, type, place + 1);
        pthread_mutex_lock(&files->lock);
        if (!was_taken)
            break;
    }
    return end_call(files, 0);
}

static int sync_all(void *user)
{
    return end_call(begin_call(user), 0);
}

static void release(void *user)
{
    struct fake_files *files = begin_call(user);
    if (files->was_released)
        complain(files, "released twice");
    files->was_released = true;
    end_call(files, 0);
}

/* ---- for the test ---- */

static void add_file(struct fake_files *files, unsigned parent, const char *name, uint32_t mode, const char *text)
{
    struct fake_node *node = NULL;
    if (make(files, parent + 1, name, mode, &node) < 0)
        abort();
    if (S_ISLNK(mode))
        snprintf(node->target, sizeof(node->target), "%s", text);
    else if (write(node->fd, text, strlen(text)) < 0)
        abort();
}

void fake_files_init(struct fake_files *files)
{
    *files = (struct fake_files){.entry_valid_ns = 1500000000};
    pthread_mutex_init(&files->lock, NULL);
    pthread_cond_init(&files->changed, NULL);
    files->nodes[0] = (struct fake_node){.is_alive = true, .mode = S_IFDIR | 0755, .links = 2, .modify_s = 1000};
    files->nodes[0].fd = memfd_create("fake", MFD_CLOEXEC);
    add_file(files, 0, "file", S_IFREG | 0644, "hello\n");
    add_file(files, 0, "folder", S_IFDIR | 0755, "");
    files->nodes[2].lookups = 1; /* for the next call only */
    add_file(files, 2, "inner", S_IFREG | 0600, "inside\n");
    files->nodes[2].lookups = 0;
    add_file(files, 0, "link", S_IFLNK | 0777, "file");
    files->calls = files->changes = 0;
}

void fake_files_end(struct fake_files *files)
{
    for (int i = 0; i < FAKE_MOST_NODES; i++)
        if (files->nodes[i].is_alive)
            close(files->nodes[i].fd);
    pthread_cond_destroy(&files->changed);
    pthread_mutex_destroy(&files->lock);
}

struct fs_backend fake_files_backend(struct fake_files *files)
{
    return (struct fs_backend){
        .user = files,
        .ops =
            {
                .size = sizeof(struct vial_fs_ops),
                .lookup = look_up,
                .forget = forget,
                .attributes = attributes,
                .set_attributes = set_attributes,
                .read_link = read_link,
                .make_link = make_link,
                .make_folder = make_folder,
                .make_node = make_node,
                .create = create,
                .unlink = unlink_file,
                .remove_folder = remove_folder,
                .rename = rename_node,
                .hard_link = hard_link,
                .open = open_file,
                .read = read_file,
                .write = write_file,
                .flush = flush_file,
                .sync = sync_any,
                .allocate = allocate,
                .seek = seek,
                .copy = copy,
                .map = map,
                .close = close_any,
                .open_folder = open_folder,
                .read_folder = read_folder,
                .sync_folder = sync_any,
                .close_folder = close_any,
                .sync_all = sync_all,
                .usage = usage,
                .get_xattr = get_xattr,
                .set_xattr = set_xattr,
                .list_xattr = list_xattr,
                .remove_xattr = remove_xattr,
                .release = release,
            },
    };
}

uint64_t fake_files_held(struct fake_files *files)
{
    uint64_t held = 0;
    pthread_mutex_lock(&files->lock);
    for (int i = 0; i < FAKE_MOST_NODES; i++)
        held += files->nodes[i].lookups + files->nodes[i].opens;
    pthread_mutex_unlock(&files->lock);
    return held;
}

void fake_files_hold(struct fake_files *files, bool holds)
{
    pthread_mutex_lock(&files->lock);
    files->holds = holds;
    pthread_cond_broadcast(&files->changed);
    pthread_mutex_unlock(&files->lock);
}

void fake_files_wait(struct fake_files *files, unsigned waiting)
{
    pthread_mutex_lock(&files->lock);
    while (files->waiting < waiting)
        pthread_cond_wait(&files->changed, &files->lock);
    pthread_mutex_unlock(&files->lock);
}
