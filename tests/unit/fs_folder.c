// SPDX-License-Identifier: Apache-2.0
/* A backend under test, driven as the server drives it. */
#include "fs_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

struct fs_backend fs;
struct vial_fs_entry entry, other;
struct vial_fs_attributes attributes;
const char *share;
const struct vial_fs_caller fs_root = {.umask = 022};

int begin_with(struct passthrough_options options)
{
    share = test_make_folder("share");
    options.path = share;
    if (!passthrough_is_privileged())
        options.has_owner = true;
    return passthrough_new(&options, &fs);
}

int begin(void)
{
    return begin_with((struct passthrough_options){.path = NULL});
}

void end(void)
{
    fs_backend_release(&fs);
}

const char *below(const char *name)
{
    static char paths[2][8192]; /* two at a time */
    static unsigned turn;
    char *path = paths[turn++ % 2];
    snprintf(path, sizeof(paths[0]), "%s/%s", share, name);
    return path;
}

int lookup(uint64_t parent, const char *name)
{
    return fs.ops.lookup(fs.user, &fs_root, parent, name, &entry);
}

int create(uint64_t parent, const char *name, uint32_t mode, uint32_t flags, uint64_t *ret_handle)
{
    return fs.ops.create(fs.user, &fs_root, parent, name, mode, flags, &entry, ret_handle);
}

ssize_t write_at(uint64_t node, uint64_t handle, const char *text, uint64_t offset, uint32_t flags)
{
    struct iovec part = {(void *)(uintptr_t)text, strlen(text)};
    return fs.ops.write(fs.user, node, handle, &part, 1, offset, flags);
}

int set(uint64_t node, uint32_t which, struct vial_fs_attributes wanted)
{
    return fs.ops.set_attributes(fs.user, &fs_root, node, NULL, which, &wanted, &attributes);
}

int count_descriptors(void)
{
    DIR *list = opendir("/proc/self/fd");
    int count = -3; /* the dots, and the listing itself */
    while (list != NULL && readdir(list) != NULL)
        count++;
    if (list != NULL)
        closedir(list);
    return count;
}

int in_child(int (*function)(void))
{
    fflush(stdout); /* else the child's copy would be written, too */
    pid_t child = fork();
    if (child == 0)
        _exit(function());
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int (*ordinary_function)(void);

static int drop_rights(void)
{
    bool is_dropped = getuid() != 0 || (setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0);
    return is_dropped ? ordinary_function() : 99;
}

int as_ordinary_user(int (*function)(void))
{
    ordinary_function = function;
    return in_child(drop_rights);
}

int fs_walk(const char *path, struct vial_fs_entry *ret_entry)
{
    char copy[4096];
    if (snprintf(copy, sizeof(copy), "%s", path) >= (int)sizeof(copy))
        return -ENAMETOOLONG;
    uint64_t node = ROOT;
    int result = -EINVAL;
    for (char *name = copy, *slash = NULL; name != NULL; name = slash) {
        slash = strchr(name, '/');
        if (slash != NULL)
            *slash++ = '\0';
        result = fs.ops.lookup(fs.user, &fs_root, node, name, ret_entry);
        if (node != ROOT && fs.ops.forget != NULL)
            fs.ops.forget(fs.user, node, 1);
        if (result < 0)
            return result;
        node = ret_entry->node;
    }
    return result;
}

int fs_write_file(uint64_t parent, const char *name, const char *text)
{
    struct vial_fs_entry made;
    uint64_t handle = 0;
    int result = fs.ops.create(fs.user, &fs_root, parent, name, 0644, O_WRONLY | O_TRUNC, &made, &handle);
    if (result < 0)
        return result;
    struct iovec part = {(void *)(uintptr_t)text, strlen(text)};
    ssize_t written = fs.ops.write(fs.user, made.node, handle, &part, 1, 0, 0);
    result = fs.ops.close(fs.user, made.node, handle);
    fs.ops.forget(fs.user, made.node, 1);
    return written < 0 ? (int)written : result;
}

ssize_t fs_read_node(uint64_t node, char *text, size_t size)
{
    uint64_t handle = 0;
    int result = fs.ops.open(fs.user, &fs_root, node, O_RDONLY, &handle);
    if (result < 0)
        return result;
    struct iovec part = {text, size - 1};
    ssize_t got = fs.ops.read(fs.user, node, handle, &part, 1, 0);
    if (got >= 0)
        text[got] = '\0';
    result = fs.ops.close(fs.user, node, handle);
    return result < 0 ? result : got;
}

ssize_t fs_read_file(const char *path, char *text, size_t size)
{
    struct vial_fs_entry found;
    int result = fs_walk(path, &found);
    if (result < 0)
        return result;
    ssize_t got = fs_read_node(found.node, text, size);
    if (fs.ops.forget != NULL)
        fs.ops.forget(fs.user, found.node, 1);
    return got;
}

static bool take_name(void *sink, const char *name, uint64_t inode, uint32_t type, uint64_t next_offset)
{
    struct fs_names *names = sink;
    if (names->count == names->most || names->count == FS_MOST_NAMES)
        return false;
    snprintf(names->entry[names->count].name, sizeof(names->entry[0].name), "%s", name);
    names->entry[names->count].inode = inode;
    names->entry[names->count].type = type;
    names->entry[names->count++].offset = next_offset;
    names->next_offset = next_offset;
    return true;
}

int fs_list(uint64_t node, uint64_t handle, uint64_t offset, size_t most, struct fs_names *names)
{
    names->count = 0;
    names->most = most;
    names->next_offset = offset;
    return fs.ops.read_folder(fs.user, node, handle, offset, take_name, names);
}

static int compare(const void *left, const void *right)
{
    return strcmp(left, right);
}

const char *fs_list_text(uint64_t node)
{
    static struct fs_names names;
    static char text[65536];
    uint64_t handle = 0;
    if (fs.ops.open_folder(fs.user, &fs_root, node, &handle) < 0)
        return "(cannot open)";
    int result = fs_list(node, handle, 0, FS_MOST_NAMES, &names);
    if (fs.ops.close_folder(fs.user, node, handle) < 0 || result < 0)
        return "(cannot list)";
    qsort(names.entry, names.count, sizeof(names.entry[0]), compare);
    size_t length = 0;
    text[0] = '\0';
    for (size_t i = 0; i < names.count; i++) {
        const char *name = names.entry[i].name;
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
            length += (size_t)snprintf(text + length, sizeof(text) - length, "%s ", name);
        if (length >= sizeof(text))
            return "(too long)";
    }
    return text;
}
