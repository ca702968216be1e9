// SPDX-License-Identifier: Apache-2.0
/* Which files each kind of thread may still open: Landlock domains, and what a machine needs in them.
 *
 * A domain limits what is opened from then on, by where it lies: what is open stays open with the rights that it was
 * opened with. So disks, sockets, logs and /dev/kvm need no rule, and only who opens files while the guest runs gets
 * any: the file server the shared folders, the main thread the sandbox's own folder, an engine the control group that
 * it removes. Sockets that a vsock port listens on are made before there are walls and removed by the main thread
 * (process.c). Landlock knows no right to remove one name, nor one folder without those below it: what may remove a
 * socket may remove every file below the socket's folder, so such a folder should hold nothing else. Nobody may execute
 * anything, and nobody may make or control a device.
 *
 * What is looked at is the file that is opened, not the way there: a descriptor that is opened again by /proc/self/fd
 * is a file of the shared folder, and memfds and pipes belong to no folder and are not restricted.
 *
 * Signals to processes outside: a jail is outside, as it is made before. So with one, only threads that do not end it
 * are denied them.
 *
 * Invariants: (1) a kind that no path names has a domain without any. (2) a rule gives a file no rights of a folder.
 *
 * Trust: paths are the user's and this process's. The guest's word is never part of one.
 */
#include "sandbox/confine_private.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/limits.h"
#include "vmm/config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

_Static_assert(CONFINE_MACHINE_PATHS >= 4 * LIMIT_DEVICES + LIMIT_PORTS + 1,
               "a root, and two lists of folders; vsock ports behind them, and networks with two paths each");

enum {
    rights_to_read = LANDLOCK_READ | LANDLOCK_LIST,
    rights_to_write = rights_to_read | LANDLOCK_WRITE | LANDLOCK_TRUNCATE | LANDLOCK_REMOVE_FILE |
                      LANDLOCK_REMOVE_FOLDER | LANDLOCK_MAKE_FILE | LANDLOCK_MAKE_FOLDER | LANDLOCK_MAKE_PIPE |
                      LANDLOCK_MAKE_SOCKET | LANDLOCK_MAKE_LINK | LANDLOCK_REFER,
    rights_of_files = LANDLOCK_READ | LANDLOCK_WRITE | LANDLOCK_TRUNCATE,
};

/* ---- rules ---- */

static bool is_for(const struct confine_path *path, unsigned kind)
{
    return path->kinds == 0 || (path->kinds & 1u << kind) != 0;
}

static int grant(struct landlock domains[CONFINE_KINDS], const struct confine_path *path, int fd)
{
    struct stat status;
    uint64_t rights = path->makes_sockets     ? LANDLOCK_REMOVE_FILE | LANDLOCK_MAKE_SOCKET
                      : path->removes_sockets ? LANDLOCK_REMOVE_FILE
                      : path->renames_folders ? LANDLOCK_REMOVE_FOLDER | LANDLOCK_MAKE_FOLDER
                      : path->removes_folders ? LANDLOCK_REMOVE_FOLDER
                      : path->may_write       ? rights_to_write
                                              : rights_to_read;
    if (fstat(fd, &status) < 0)
        return -errno;
    if (!S_ISDIR(status.st_mode))
        rights &= rights_of_files;
    int result = 0;
    for (unsigned kind = 0; kind < CONFINE_KINDS && result == 0; kind++)
        if (is_for(path, kind))
            result = landlock_grant(&domains[kind], fd, rights);
    return result;
}

/* The folder that a socket's path is in. */
static int open_parent(const char *path)
{
    char folder[sizeof(((struct sockaddr_un *)NULL)->sun_path)] = ".";
    const char *slash = strrchr(path, '/');
    size_t length = slash == path ? 1 : slash != NULL ? (size_t)(slash - path) : 0;
    if (length >= sizeof(folder)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    if (length > 0)
        memcpy(folder, path, length);
    return open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static int grant_path(struct landlock domains[CONFINE_KINDS], const struct confine_path *path, struct vial_error *err)
{
    bool is_socket = path->removes_sockets || path->makes_sockets;
    auto_close int own_fd = is_socket            ? open_parent(path->path)
                            : path->path != NULL ? open(path->path, O_PATH | O_CLOEXEC)
                                                 : -1;
    int fd = path->path != NULL ? own_fd : path->fd;
    int result = fd < 0 ? -errno : grant(domains, path, fd);
    if (result < 0) {
        error_set_os(err, VIAL_PHASE_START, result, "a path of the sandbox cannot be kept open to it");
        error_value(err, "%s", path->path != NULL ? path->path : "a descriptor");
    }
    return result;
}

/* The mount of cgroup v2, if there is one: the second word of a line whose third is its type. */
static void find_cgroups(struct buffer *mounts, const char **ret_path)
{
    *ret_path = NULL;
    if (fd_read_file("/proc/self/mounts", mounts) < 0)
        return;
    char *rest = mounts->data;
    for (char *line; rest != NULL && (line = strsep(&rest, "\n")) != NULL;) {
        strsep(&line, " ");
        const char *path = strsep(&line, " "), *type = line != NULL ? strsep(&line, " ") : NULL;
        if (path != NULL && type != NULL && strcmp(type, "cgroup2") == 0) {
            *ret_path = path;
            return;
        }
    }
}

/* Stopping a jail looks for its processes in /proc; ending it removes its control group. */
static int grant_jail(struct landlock domains[CONFINE_KINDS], struct vial_error *err)
{
    auto_buffer struct buffer mounts = BUFFER_INIT(LIMIT_PROC_FILE_BYTES);
    const char *cgroups;
    const struct confine_path processes = {.path = "/proc", .kinds = 1u << CONFINE_CONTROL};
    int result = grant_path(domains, &processes, err);
    if (result < 0)
        return result;
    find_cgroups(&mounts, &cgroups);
    const struct confine_path groups = {.path = cgroups, .removes_folders = true, .kinds = 1u << CONFINE_ENGINE};
    return cgroups != NULL ? grant_path(domains, &groups, err) : 0;
}

/* ---- domains ---- */

static int make_domains(const struct confine_options *options, struct landlock domains[CONFINE_KINDS],
                        struct vial_error *err)
{
    for (unsigned kind = 0; kind < CONFINE_KINDS; kind++) {
        bool ends_jail = options->has_jail && (kind == CONFINE_CONTROL || kind == CONFINE_ENGINE);
        unsigned beyond = LANDLOCK_ABSTRACT_SOCKETS;
        beyond |= options->needs_network ? 0 : LANDLOCK_NETWORK;
        beyond |= ends_jail ? 0 : LANDLOCK_SIGNALS;
        int result = landlock_make(beyond, &domains[kind]);
        if (result < 0)
            return error_set_os(err, VIAL_PHASE_START, result, "a Landlock domain cannot be made");
    }
    return 0;
}

int confine_make_domains(const struct confine_options *options, struct landlock ret_domains[CONFINE_KINDS],
                         struct vial_error *err)
{
    int result = make_domains(options, ret_domains, err);
    for (size_t i = 0; i < options->path_count && result == 0; i++)
        result = grant_path(ret_domains, &options->paths[i], err);
    if (result == 0 && options->has_jail)
        result = grant_jail(ret_domains, err);
    if (result < 0)
        confine_free_domains(ret_domains);
    return result;
}

void confine_free_domains(struct landlock domains[CONFINE_KINDS])
{
    for (unsigned kind = 0; kind < CONFINE_KINDS; kind++)
        domains[kind].fd = fd_close(domains[kind].fd);
}

/* ---- what a machine needs ---- */

struct paths {
    struct confine_options *options;
    struct confine_path *list;
    size_t count, room;
};

static int add_folder(struct paths *paths, const char *path, bool may_write)
{
    enum confine_files needs = may_write ? CONFINE_FILES_WRITE : CONFINE_FILES_READ;
    if (path == NULL) /* an empty root, or a program's own file system */
        return 0;
    if (paths->count == paths->room)
        return -ENOBUFS;
    paths->list[paths->count++] = (struct confine_path){
        .path = path, .fd = -1, .may_write = may_write, .kinds = 1u << CONFINE_FILES};
    if (paths->options->files < needs)
        paths->options->files = (uint8_t)needs;
    return 0;
}

static int add_socket(struct paths *paths, const char *path, bool may_make, uint32_t kinds)
{
    if (paths->count == paths->room)
        return -ENOBUFS;
    paths->list[paths->count++] = (struct confine_path){
        .path = path, .fd = -1, .removes_sockets = true, .makes_sockets = may_make, .kinds = kinds};
    return 0;
}

/* Who frees the devices at the machine's end: the last vCPU's thread, or the engine's own. */
static uint32_t kinds_that_end(const struct vial_vm_config *config)
{
    uint32_t kinds = 1u << CONFINE_VCPU | 1u << CONFINE_ENGINE;
    if (config->machine.engine == VIAL_ENGINE_KVM)
        kinds = 1u << CONFINE_VCPU;
    else if (config->machine.engine == VIAL_ENGINE_UML)
        kinds = 1u << CONFINE_ENGINE;
    return kinds;
}

/* A datagram network has a socket of its own beside the peer's, made anew with each connection, and removed when that
 * has ended or the device is freed. */
static int add_datagram_socket(struct paths *paths, const struct vial_vm_config *config, const char *path)
{
    int result = add_socket(paths, path, true, 1u << CONFINE_NET);
    return result == 0 ? add_socket(paths, path, false, kinds_that_end(config)) : result;
}

static int add_fs(struct paths *paths, const struct fs_config *fs)
{
    return fs->is_custom ? 0 : add_folder(paths, fs->path, !fs->read_only && !fs->throw_away);
}

int confine_options_add_machine(struct confine_options *options, const struct vial_vm_config *config,
                                struct confine_path *paths, size_t *count, size_t room)
{
    struct paths all = {.options = options, .list = paths, .count = *count, .room = room};
    int result = add_fs(&all, &config->root);
    for (size_t i = 0; i < config->fs_count && result == 0; i++)
        result = add_fs(&all, &config->fs[i]);
    for (size_t i = 0; i < config->mapped_dir_count && result == 0; i++)
        result = add_folder(&all, config->mapped_dirs[i].host, !config->mapped_dirs[i].read_only);
    for (size_t i = 0; i < config->vsock_port_count && result == 0; i++)
        if (config->vsock_ports[i].listen)
            result = add_socket(&all, config->vsock_ports[i].path, false, 1u << CONFINE_CONTROL);
    bool has_tap = false;
    for (size_t i = 0; i < config->net_count && result == 0; i++) {
        has_tap |= config->net[i].kind == VIAL_NET_TAP;
        if (config->net[i].kind == VIAL_NET_UNIXGRAM && config->net[i].path != NULL)
            result = add_datagram_socket(&all, config, config->net[i].path);
    }
    if (result < 0)
        return result;
    options->has_jail = config->machine.engine != VIAL_ENGINE_KVM;
    options->has_open_jail = options->has_jail && config->machine.insecure_no_jail;
    options->needs_network = has_tap || config_has_tsi(config); /* the sockets of others are files */
    options->paths = paths;
    options->path_count = *count = all.count;
    return 0;
}
