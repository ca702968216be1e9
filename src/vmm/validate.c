// SPDX-License-Identifier: Apache-2.0
/* Checking a configuration as a whole, before anything is touched.
 *
 * One function a section, in the order of the JSON file; the first problem ends the check. Nothing is opened for
 * writing, created, bound or connected: the host is only asked (stat, access, fstat and the first bytes of a kernel
 * image). A path can change between this check and its use, so whoever opens it later reports that on its own; this
 * check is here for good errors, not for safety.
 *
 * Invariants: (1) a refusal names the field as in the JSON file, the value, and a remedy. (2) the configuration is not
 * changed. (3) nothing on the host is changed.
 *
 * Trust: every value may come from a hostile or careless caller.
 */
#include "vmm/config.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/text.h"
#include "boot/format.h"
#include "host/capacity.h"
#include "vmm/parse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- refusing ---- */

/* The name of a field; lives until the end of the expression that made it. */
struct place {
    char text[VIAL_ERROR_FIELD_SIZE];
};

__attribute__((format(printf, 1, 2))) static struct place at(const char *format, ...)
{
    struct place place;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(place.text, sizeof(place.text), format, arguments);
    va_end(arguments);
    return place;
}

__attribute__((format(printf, 6, 7))) static int refuse(struct vial_error *err, enum vial_error_code code,
                                                        const char *field, const char *value, const char *remedy,
                                                        const char *format, ...)
{
    char message[VIAL_ERROR_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    int result = error_set(err, code, VIAL_PHASE_VALIDATE, "%s", message);
    error_field(err, "%s", field);
    error_value(err, "%s", value);
    error_remedy(err, "%s", remedy);
    return result;
}

static int refuse_number(struct vial_error *err, enum vial_error_code code, const char *field, uint64_t value,
                         const char *remedy, const char *message)
{
    char text[24];
    snprintf(text, sizeof(text), "%" PRIu64, value);
    return refuse(err, code, field, text, remedy, "%s", message);
}

/* ---- paths of the host ---- */

static int check_given(const char *path, const char *field, const char *remedy, struct vial_error *err)
{
    if (path != NULL && path[0] != '\0')
        return 0;
    return refuse(err, VIAL_ERROR_MISSING, field, "", remedy, "%s", path == NULL ? "it is not given" : "it is empty");
}

static int check_exists(const char *path, const char *field, struct stat *ret_status, struct vial_error *err)
{
    if (stat(path, ret_status) == 0)
        return 0;
    int failure = errno;
    if (failure == ENOENT || failure == ENOTDIR)
        return refuse(err, VIAL_ERROR_NOT_FOUND, field, path, "create it, or correct the path", "%s does not exist",
                      path);
    error_set_os(err, VIAL_PHASE_VALIDATE, failure, "cannot look at %s", path);
    error_field(err, "%s", field);
    error_value(err, "%s", path);
    error_remedy(err, "give this user access to every folder on the way to it");
    return -failure;
}

static int check_access(const char *path, int wanted, const char *field, struct vial_error *err)
{
    if (faccessat(AT_FDCWD, path, wanted, AT_EACCESS) == 0)
        return 0;
    bool is_read_only_fs = errno == EROFS;
    return refuse(err, VIAL_ERROR_PERMISSION, field, path,
                  (wanted & W_OK) != 0 ? "change its owner or permissions, or make it read_only"
                                       : "change its owner or permissions",
                  "%s cannot be %s%s", path, (wanted & W_OK) != 0 ? "written" : "read",
                  is_read_only_fs ? ": its file system is read-only" : " by this user");
}

static int check_folder(const char *path, const char *field, struct vial_error *err)
{
    struct stat status;
    int result = check_given(path, field, "give the path of a folder", err);
    if (result == 0)
        result = check_exists(path, field, &status, err);
    if (result < 0)
        return result;
    if (!S_ISDIR(status.st_mode))
        return refuse(err, VIAL_ERROR_WRONG_KIND, field, path, "give the path of a folder", "%s is not a folder", path);
    /* Files inside may be writable where the folder is not, so writing is not asked for here. */
    return check_access(path, R_OK | X_OK, field, err);
}

static int check_file(const char *path, const char *field, struct vial_error *err)
{
    struct stat status;
    int result = check_exists(path, field, &status, err);
    if (result < 0)
        return result;
    if (!S_ISREG(status.st_mode))
        return refuse(err, VIAL_ERROR_WRONG_KIND, field, path, "give the path of a regular file",
                      "%s is not a regular file", path);
    return check_access(path, R_OK, field, err);
}

/* The folder that holds `path`, where something is to be created. */
static int check_parent(const char *path, const char *field, struct vial_error *err)
{
    auto_free char *parent = alloc_string(path);
    if (parent == NULL)
        return error_no_memory(err, VIAL_PHASE_VALIDATE);
    char *slash = strrchr(parent, '/');
    const char *folder = ".";
    if (slash != NULL) {
        slash[slash == parent ? 1 : 0] = '\0'; /* the root keeps its slash */
        folder = parent;
    }
    struct stat status;
    if (stat(folder, &status) < 0 || !S_ISDIR(status.st_mode))
        return refuse(err, VIAL_ERROR_NOT_FOUND, field, path, "create the folder first, or correct the path",
                      "the folder %s does not exist", folder);
    return check_access(folder, W_OK | X_OK, field, err);
}

static int check_socket_path(const char *path, const char *field, struct vial_error *err)
{
    int result = check_given(path, field, "give the path of a Unix socket", err);
    if (result < 0)
        return result;
    size_t longest = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;
    if (strlen(path) > longest)
        return refuse(err, VIAL_ERROR_TOO_BIG, field, path, "use a shorter path, or a relative one",
                      "the path of a Unix socket is longer than %zu bytes", longest);
    return 0;
}

/* ---- machine ---- */

static int check_machine(const struct machine_config *machine, const struct host_capacity *host, struct vial_error *err)
{
    char text[24], remedy[96];
    if (machine->vcpus == 0)
        return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, "machine.vcpus", 0, "give at least 1",
                             "a machine needs at least one vCPU");
    snprintf(text, sizeof(text), "%u", machine->vcpus);
    snprintf(remedy, sizeof(remedy), "give at most %u", host->max_vcpus);
    if (machine->vcpus > host->max_vcpus)
        return refuse(err, VIAL_ERROR_OUT_OF_RANGE, "machine.vcpus", text, remedy,
                      "%s vCPUs are more than the %u that a machine can have on this host", text, host->max_vcpus);
    if (machine->memory_mib == 0)
        return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, "machine.memory_mib", 0,
                             "give at least 64; 512 is the default", "a machine needs memory");
    snprintf(text, sizeof(text), "%" PRIu64, machine->memory_mib);
    if (machine->memory_mib < LIMIT_MEMORY_MIN_MIB)
        return refuse(err, VIAL_ERROR_OUT_OF_RANGE, "machine.memory_mib", text, "give at least 64; 512 is the default",
                      "%s MiB are less than the %u MiB that a kernel boots in", text, LIMIT_MEMORY_MIN_MIB);
    uint64_t most = host->memory_mib < LIMIT_MEMORY_MAX_MIB ? host->memory_mib : LIMIT_MEMORY_MAX_MIB;
    snprintf(remedy, sizeof(remedy), "give at most %" PRIu64, most);
    if (machine->memory_mib > most)
        return refuse(err, VIAL_ERROR_OUT_OF_RANGE, "machine.memory_mib", text, remedy,
                      "%s MiB are more than the %" PRIu64 " MiB that this host can give", text, most);
    return 0;
}

/* ---- kernel ---- */

static int check_cmdline_text(const char *text, const char *field, struct vial_error *err)
{
    if (text_is_printable_ascii(text))
        return 0;
    return refuse(err, VIAL_ERROR_INVALID, field, text,
                  "use only characters from space to tilde here; arguments and environment in exec may hold any text",
                  "it travels on the kernel command line, which cannot carry control or non-ASCII characters");
}

/* Words that would swallow what the machine itself appends behind them: device announcements, the root, init. */
static int check_cmdline(const char *cmdline, struct vial_error *err)
{
    static const char field[] = "kernel.cmdline";
    int result = check_cmdline_text(cmdline, field, err);
    if (result < 0)
        return result;
    size_t quotes = 0;
    for (const char *next = cmdline; *next != '\0'; next++)
        quotes += *next == '"';
    if (quotes % 2 != 0)
        return refuse(err, VIAL_ERROR_INVALID, field, cmdline, "close the quotation",
                      "a double quote without its partner would swallow the rest of the command line");
    for (const char *word = cmdline; *word != '\0';) {
        word += strspn(word, " ");
        size_t length = strcspn(word, " ");
        if (length == 2 && memcmp(word, "--", 2) == 0)
            return refuse(err, VIAL_ERROR_INVALID, field, cmdline,
                          "remove it; give the program's arguments in exec.args",
                          "the word -- would hand the rest of the command line to init");
        word += length;
    }
    return 0;
}

static int check_kernel_format(const struct kernel_config *kernel, struct vial_error *err)
{
    if (kernel->format < VIAL_KERNEL_AUTO || kernel->format > VIAL_KERNEL_IMAGE_ZSTD)
        return refuse_number(err, VIAL_ERROR_INVALID, "kernel.format", (uint64_t)kernel->format,
                             "use a value of enum vial_kernel_format", "it is not a kernel format");
    if (kernel->format != VIAL_KERNEL_AUTO)
        return 0;
    auto_close int fd = open(kernel->path, O_RDONLY | O_CLOEXEC);
    enum vial_kernel_format format = VIAL_KERNEL_AUTO;
    const char *why = NULL;
    int result = fd < 0 ? -errno : kernel_format_detect(fd, &format, &why);
    if (result == -EINVAL && why != NULL)
        return refuse(err, VIAL_ERROR_INVALID, "kernel.format", kernel->path,
                      "name the format (raw, elf, pe-gz, image-bz2, image-gz, image-zstd), or give another image",
                      "the format of %s cannot be told: %s", kernel->path, why);
    if (result < 0) {
        error_set_os(err, VIAL_PHASE_VALIDATE, result, "cannot read %s", kernel->path);
        error_field(err, "kernel.path");
        error_value(err, "%s", kernel->path);
        error_remedy(err, "check the file and its permissions");
    }
    return result;
}

static int check_kernel(const struct kernel_config *kernel, struct vial_error *err)
{
    int result = 0;
    if (kernel->path != NULL && kernel->krunfw != NULL)
        return refuse(err, VIAL_ERROR_CONFLICT, "kernel.krunfw", kernel->krunfw,
                      "give one of kernel.path and kernel.krunfw",
                      "the kernel is given twice, as a file and inside a libkrunfw");
    if (kernel->path == NULL && kernel->format != VIAL_KERNEL_AUTO)
        return refuse(err, VIAL_ERROR_MISSING, "kernel.path", "", "give kernel.path, or leave kernel.format out",
                      "a kernel format is given, but no kernel");
    if (kernel->path != NULL) {
        result = check_given(kernel->path, "kernel.path", "give the path of a kernel image, or leave it out", err);
        if (result == 0)
            result = check_file(kernel->path, "kernel.path", err);
        if (result == 0)
            result = check_kernel_format(kernel, err);
    }
    if (result == 0 && kernel->krunfw != NULL)
        result = check_file(kernel->krunfw, "kernel.krunfw", err);
    if (result == 0 && kernel->initramfs != NULL)
        result = check_file(kernel->initramfs, "kernel.initramfs", err);
    if (result == 0 && kernel->init != NULL) {
        result = check_cmdline_text(kernel->init, "kernel.init", err);
        if (result == 0 && (kernel->init[0] != '/' || strpbrk(kernel->init, " \"") != NULL))
            result = refuse(err, VIAL_ERROR_INVALID, "kernel.init", kernel->init,
                            "give an absolute path of the guest, such as /sbin/init",
                            "the path of init must be absolute and hold neither spaces nor quotes");
    }
    if (result == 0 && kernel->cmdline != NULL)
        result = check_cmdline(kernel->cmdline, err);
    return result;
}

/* ---- file systems ---- */

static int check_fs(const struct fs_config *fs, const char *name, struct vial_error *err)
{
    int result = check_given(fs->tag, at("%s.tag", name).text, "give a tag, or leave it out", err);
    if (result == 0)
        result = check_cmdline_text(fs->tag, at("%s.tag", name).text, err); /* the root's tag travels there */
    if (result < 0)
        return result;
    if (strlen(fs->tag) > LIMIT_FS_TAG_BYTES || strpbrk(fs->tag, " \"") != NULL)
        return refuse(err, VIAL_ERROR_INVALID, at("%s.tag", name).text, fs->tag, "use a short name, such as data",
                      "a tag has at most %d characters and neither spaces nor quotes", LIMIT_FS_TAG_BYTES);
    if (fs->dax_window_mib > LIMIT_DAX_WINDOW_MIB)
        return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, at("%s.dax_window_mib", name).text, fs->dax_window_mib,
                             "give at most 1048576 (1 TiB)", "the DAX window is larger than 1 TiB");
    if (fs->dax_window_mib % 2 != 0)
        return refuse_number(err, VIAL_ERROR_INVALID, at("%s.dax_window_mib", name).text, fs->dax_window_mib,
                             "give a multiple of 2", "the DAX window is not a whole number of 2 MiB pages");
    if (!fs->is_custom)
        return check_folder(fs->path, at("%s.path", name).text, err);
    if (fs->path != NULL)
        return refuse(err, VIAL_ERROR_CONFLICT, at("%s.path", name).text, fs->path,
                      "give a path or a backend, not both", "the file system has both a path and a custom backend");
    if (fs->ops.lookup == NULL || fs->ops.attributes == NULL)
        return refuse(err, VIAL_ERROR_MISSING, at("%s.ops", name).text, "", "implement lookup and attributes",
                      "the custom backend has no %s", fs->ops.lookup == NULL ? "lookup" : "attributes");
    return 0;
}

/* The tag of file system `index` among all: the root, the mounts, the mapped folders. */
static const char *tag_at(const struct vial_vm_config *config, size_t index, struct place *ret_place)
{
    if (config->has_root && index-- == 0) {
        *ret_place = at("root.tag");
        return config->root.tag;
    }
    if (index < config->fs_count) {
        *ret_place = at("fs[%zu].tag", index);
        return config->fs[index].tag;
    }
    index -= config->fs_count;
    if (index >= config->mapped_dir_count)
        return NULL;
    *ret_place = at("mapped_dirs[%zu]", index);
    return config->mapped_dirs[index].tag;
}

static int check_tags(const struct vial_vm_config *config, struct vial_error *err)
{
    struct place place, other_place;
    const char *tag, *other;
    for (size_t i = 0; (tag = tag_at(config, i, &place)) != NULL; i++) {
        for (size_t j = 0; j < i; j++) {
            other = tag_at(config, j, &other_place);
            if (strcmp(tag, other) == 0)
                return refuse(err, VIAL_ERROR_DUPLICATE, place.text, tag,
                              "give each file system a tag of its own (fs<N> is the default of the N-th)",
                              "%s has the same tag", other_place.text);
        }
    }
    return 0;
}

static int check_guest_path(const char *path, const char *field, char **ret_normal, struct vial_error *err)
{
    int result = check_given(path, field, "give an absolute path of the guest", err);
    if (result < 0)
        return result;
    result = path_normalize(path, ret_normal);
    if (result == -EINVAL)
        return refuse(err, VIAL_ERROR_INVALID, field, path, "begin the path with /",
                      "a path of the guest must be absolute");
    if (result == -EXDEV)
        return refuse(err, VIAL_ERROR_INVALID, field, path, "remove the .. that climbs above /",
                      "the path leaves the guest's root");
    return result < 0 ? error_no_memory(err, VIAL_PHASE_VALIDATE) : 0;
}

static int check_mapped_dirs(const struct vial_vm_config *config, char **normal, struct vial_error *err)
{
    for (size_t i = 0; i < config->mapped_dir_count; i++) {
        const struct mapped_dir_config *dir = &config->mapped_dirs[i];
        struct place guest = at("mapped_dirs[%zu].guest", i);
        int result = check_folder(dir->host, at("mapped_dirs[%zu].host", i).text, err);
        if (result == 0)
            result = check_guest_path(dir->guest, guest.text, &normal[i], err);
        if (result < 0)
            return result;
        if (strcmp(normal[i], "/") == 0)
            return refuse(err, VIAL_ERROR_CONFLICT, guest.text, dir->guest, "make that folder the root instead",
                          "a folder mapped at / would hide the root");
        for (size_t j = 0; j < i; j++) {
            if (!path_overlaps(normal[i], normal[j]))
                continue;
            if (strcmp(normal[i], normal[j]) == 0)
                return refuse(err, VIAL_ERROR_DUPLICATE, guest.text, dir->guest, "map each folder at a path of its own",
                              "mapped_dirs[%zu] is mounted at %s already", j, normal[j]);
            return refuse(err, VIAL_ERROR_CONFLICT, guest.text, dir->guest,
                          "map the two side by side; one mount would hide a part of the other",
                          "%s and %s (mapped_dirs[%zu]) lie one inside the other", normal[i], normal[j], j);
        }
    }
    return 0;
}

static int check_file_systems(const struct vial_vm_config *config, struct vial_error *err)
{
    int result = config->has_root ? check_fs(&config->root, "root", err) : 0;
    for (size_t i = 0; i < config->fs_count && result == 0; i++)
        result = check_fs(&config->fs[i], at("fs[%zu]", i).text, err);
    if (result == 0 && config->mapped_dir_count > 0) {
        char **normal = calloc(config->mapped_dir_count, sizeof(normal[0]));
        if (normal == NULL)
            return error_no_memory(err, VIAL_PHASE_VALIDATE);
        result = check_mapped_dirs(config, normal, err);
        for (size_t i = 0; i < config->mapped_dir_count; i++)
            free(normal[i]);
        free(normal);
    }
    return result == 0 ? check_tags(config, err) : result;
}

/* ---- disks ---- */

static int check_disk_id(const struct vial_vm_config *config, size_t index, struct vial_error *err)
{
    const char *id = config->disks[index].id;
    struct place field = at("disks[%zu].id", index);
    int result = check_given(id, field.text, "give an id, or leave it out", err);
    if (result < 0)
        return result;
    if (strlen(id) > LIMIT_DISK_ID_BYTES || !text_is_printable_ascii(id) || strpbrk(id, " /\"\\") != NULL)
        return refuse(err, VIAL_ERROR_INVALID, field.text, id, "use letters, digits and dashes, such as data-1",
                      "a disk id has at most %d ASCII characters and no space, slash, quote or backslash",
                      LIMIT_DISK_ID_BYTES);
    for (size_t j = 0; j < index; j++)
        if (strcmp(id, config->disks[j].id) == 0)
            return refuse(err, VIAL_ERROR_DUPLICATE, field.text, id,
                          "give each disk an id of its own (vda, vdb … are the defaults in order)",
                          "disks[%zu] has the same id", j);
    return 0;
}

static int check_disk(const struct vial_vm_config *config, size_t index, struct vial_error *err)
{
    const struct disk_config *disk = &config->disks[index];
    struct place field = at("disks[%zu].path", index);
    struct stat status;
    int result = check_disk_id(config, index, err);
    if (result == 0)
        result = check_given(disk->path, field.text, "give the path of a disk image or block device", err);
    if (result == 0)
        result = check_exists(disk->path, field.text, &status, err);
    if (result < 0)
        return result;
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
        return refuse(err, VIAL_ERROR_WRONG_KIND, field.text, disk->path,
                      "give the path of a disk image or block device",
                      "%s is neither a regular file nor a block device", disk->path);
    if (disk->format == VIAL_DISK_UNSET)
        return refuse(err, VIAL_ERROR_MISSING, at("disks[%zu].format", index).text, "",
                      "name the format: raw, qcow2 or vmdk",
                      "the disk's format is not given, and guessing it would let a guest choose it");
    if (disk->format < VIAL_DISK_RAW || disk->format > VIAL_DISK_VMDK)
        return refuse_number(err, VIAL_ERROR_INVALID, at("disks[%zu].format", index).text, (uint64_t)disk->format,
                             "use raw, qcow2 or vmdk", "it is not a disk format");
    if (disk->cache < VIAL_DISK_WRITEBACK || disk->cache > VIAL_DISK_UNSAFE)
        return refuse_number(err, VIAL_ERROR_INVALID, at("disks[%zu].cache", index).text, (uint64_t)disk->cache,
                             "use writeback or unsafe", "it is not a cache mode");
    if (disk->sync < VIAL_DISK_SYNC_FULL || disk->sync > VIAL_DISK_SYNC_NONE)
        return refuse_number(err, VIAL_ERROR_INVALID, at("disks[%zu].sync", index).text, (uint64_t)disk->sync,
                             "use full, relaxed or none", "it is not a sync mode");
    if (disk->format == VIAL_DISK_VMDK && !disk->read_only)
        return refuse(err, VIAL_ERROR_UNSUPPORTED, at("disks[%zu].read_only", index).text, "false",
                      "set read_only, or convert the image to raw or qcow2", "VMDK images can only be read");
    return check_access(disk->path, disk->read_only ? R_OK : R_OK | W_OK, field.text, err);
}

/* ---- network ---- */

static int check_net_socket(const struct net_config *net, size_t index, struct vial_error *err)
{
    int wanted = net->kind == VIAL_NET_UNIXGRAM ? SOCK_DGRAM : SOCK_STREAM;
    const char *kind = wanted == SOCK_DGRAM ? "datagram" : "stream";
    if ((net->fd >= 0) == (net->path != NULL))
        return refuse(err, net->fd >= 0 ? VIAL_ERROR_CONFLICT : VIAL_ERROR_MISSING, at("net[%zu].path", index).text,
                      net->path != NULL ? net->path : "", "give either the path of a socket or a connected descriptor",
                      "the network has %s",
                      net->fd >= 0 ? "both a path and a descriptor" : "neither a path nor a descriptor");
    if (net->vfkit && (net->kind != VIAL_NET_UNIXGRAM || net->path == NULL))
        return refuse(err, VIAL_ERROR_CONFLICT, at("net[%zu].vfkit", index).text, "true",
                      "leave it out, or use unixgram with a path",
                      "the VFKIT greeting exists only for a unixgram socket given by path");
    if (net->path != NULL) {
        struct place field = at("net[%zu].path", index);
        struct stat status;
        int result = check_socket_path(net->path, field.text, err);
        if (result == 0)
            result = check_exists(net->path, field.text, &status, err);
        if (result == 0 && !S_ISSOCK(status.st_mode))
            result = refuse(err, VIAL_ERROR_WRONG_KIND, field.text, net->path, "start the network helper first",
                            "%s is not a socket", net->path);
        return result;
    }
    int domain = 0, type = 0;
    socklen_t length = sizeof(int);
    if (getsockopt(net->fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) < 0 ||
        getsockopt(net->fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0 || domain != AF_UNIX || type != wanted)
        return refuse(err, VIAL_ERROR_WRONG_KIND, at("net[%zu].fd", index).text, "",
                      "give a connected socket, such as one end of socketpair(2)",
                      "the descriptor is not a Unix %s socket", kind);
    return 0;
}

static int check_tap(const struct net_config *net, size_t index, struct vial_error *err)
{
    struct place field = at("net[%zu].path", index);
    int result = check_given(net->path, field.text, "give the name of the TAP device, such as tap0", err);
    if (result < 0)
        return result;
    if (strlen(net->path) >= IFNAMSIZ || !text_is_printable_ascii(net->path) || strpbrk(net->path, "/: %") != NULL ||
        strcmp(net->path, ".") == 0 || strcmp(net->path, "..") == 0)
        return refuse(
            err, VIAL_ERROR_INVALID, field.text, net->path, "give the name of the TAP device, such as tap0",
            "the name of a network device has at most %d characters and no slash, colon, percent sign or space",
            IFNAMSIZ - 1);
    if (net->fd >= 0)
        return refuse(err, VIAL_ERROR_CONFLICT, at("net[%zu].fd", index).text, "", "leave the descriptor out",
                      "a TAP device is given by its name");
    return 0;
}

static uint32_t known_net_features(void)
{
    uint32_t known = 0;
    for (size_t i = 0; config_net_features[i].name != NULL; i++)
        known |= config_net_features[i].bit;
    return known;
}

static int check_mac(const struct vial_vm_config *config, size_t index, struct vial_error *err)
{
    static const uint8_t zero[6];
    const uint8_t *mac = config->net[index].mac;
    struct place field = at("net[%zu].mac", index);
    char text[18];
    snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
    if ((mac[0] & 1) != 0)
        return refuse(err, VIAL_ERROR_INVALID, field.text, text, "clear the lowest bit of its first byte, as in 02:…",
                      "%s is a multicast address, which no device can have", text);
    if (memcmp(mac, zero, sizeof(zero)) == 0)
        return refuse(err, VIAL_ERROR_INVALID, field.text, text, "give an address, or leave it out for a random one",
                      "the address is all zero");
    for (size_t j = 0; j < index; j++)
        if (memcmp(mac, config->net[j].mac, sizeof(zero)) == 0)
            return refuse(err, VIAL_ERROR_DUPLICATE, field.text, text, "give each network an address of its own",
                          "net[%zu] has the same address", j);
    return 0;
}

static int check_net(const struct vial_vm_config *config, size_t index, struct vial_error *err)
{
    const struct net_config *net = &config->net[index];
    int result = 0;
    switch (net->kind) {
    case VIAL_NET_UNIXGRAM:
    case VIAL_NET_UNIXSTREAM:
        result = check_net_socket(net, index, err);
        break;
    case VIAL_NET_TAP:
        result = check_tap(net, index, err);
        break;
    case VIAL_NET_CUSTOM:
        if (net->ops.send == NULL || net->ops.receive == NULL || net->ops.poll_fd == NULL)
            result = refuse(err, VIAL_ERROR_MISSING, at("net[%zu].ops", index).text, "",
                            "implement send, receive and poll_fd", "the custom backend is not complete");
        break;
    default:
        result = refuse_number(err, VIAL_ERROR_INVALID, at("net[%zu].kind", index).text, (uint64_t)net->kind,
                               "use unixgram, unixstream, tap or custom", "it is not a kind of network");
    }
    if (result == 0 && (net->features & ~known_net_features()) != 0)
        result = refuse_number(err, VIAL_ERROR_INVALID, at("net[%zu].features", index).text, net->features,
                               "use the VIAL_NET_FEATURE_ bits", "it holds bits that are no offload");
    return result == 0 ? check_mac(config, index, err) : result;
}

static int check_port_map(const struct vial_vm_config *config, struct vial_error *err)
{
    for (size_t i = 0; i < config->port_count; i++) {
        const struct port_config *port = &config->port_map[i];
        struct place field = at("port_map[%zu]", i);
        if (port->host == 0 || port->guest == 0)
            return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, field.text, 0, "give ports from 1 to 65535",
                                 "0 is not a port");
        for (size_t j = 0; j < i; j++) {
            bool is_host = port->host == config->port_map[j].host;
            if (is_host || port->guest == config->port_map[j].guest)
                return refuse_number(
                    err, VIAL_ERROR_DUPLICATE, field.text, is_host ? port->host : port->guest, "publish each port once",
                    is_host ? "the host's port is mapped already" : "the guest's port is mapped already");
        }
    }
    if (config->port_count > 0 && config->net_count > 0)
        return refuse(err, VIAL_ERROR_CONFLICT, "port_map", "",
                      "publish ports at the network's helper (passt, gvproxy)",
                      "the port map belongs to TSI, and this machine has a network device");
    return 0;
}

static int check_tsi(const struct vial_vm_config *config, struct vial_error *err)
{
    int result = check_port_map(config, err);
    if (result < 0)
        return result;
    struct in_addr address;
    if (config->assigned_ip != NULL && inet_pton(AF_INET, config->assigned_ip, &address) != 1)
        return refuse(err, VIAL_ERROR_SYNTAX, "tsi.assigned_ip", config->assigned_ip, "write it as in 127.0.0.2",
                      "\"%s\" is not an IPv4 address", config->assigned_ip);
    const char *unused = config->port_count > 0        ? "port_map"
                         : config->assigned_ip != NULL ? "tsi.assigned_ip"
                         : config->local_only          ? "tsi.local_only"
                                                       : NULL;
    if (unused != NULL && !config->machine.inet_hijack)
        return refuse(err, VIAL_ERROR_CONFLICT, unused, "", "set machine.inet_hijack, or leave this out",
                      "it has no effect while the guest's sockets do not reach the host");
    return 0;
}

static int check_vsock_ports(const struct vial_vm_config *config, struct vial_error *err)
{
    for (size_t i = 0; i < config->vsock_port_count; i++) {
        const struct vsock_port_config *port = &config->vsock_ports[i];
        struct place field = at("vsock_ports[%zu].port", i), path = at("vsock_ports[%zu].path", i);
        struct stat status;
        if (port->port == 0 || port->port == UINT32_MAX)
            return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, field.text, port->port,
                                 "give a port from 1 to 4294967294", "0 and 4294967295 are not ports");
        for (size_t j = 0; j < i; j++)
            if (port->port == config->vsock_ports[j].port)
                return refuse_number(err, VIAL_ERROR_DUPLICATE, field.text, port->port, "use each port once",
                                     "an earlier vsock port has the same number");
        int result = check_socket_path(port->path, path.text, err);
        if (result == 0 && port->listen && lstat(port->path, &status) == 0)
            result = refuse(err, VIAL_ERROR_DUPLICATE, path.text, port->path,
                            "remove it, if no other machine uses it, or choose another path", "%s exists already",
                            port->path);
        if (result == 0 && port->listen)
            result = check_parent(port->path, path.text, err);
        if (result < 0)
            return result;
    }
    return 0;
}

/* ---- console ---- */

static int check_port_backend(const struct console_port_config *port, const char *name, struct vial_error *err)
{
    switch (port->kind) {
    case VIAL_CONSOLE_PORT_INOUT:
        if (port->input_fd >= 0 || port->output_fd >= 0)
            return 0;
        return refuse(err, VIAL_ERROR_MISSING, at("%s.input_fd", name).text, "", "give input_fd, output_fd or both",
                      "the port has no descriptor");
    case VIAL_CONSOLE_PORT_TTY:
        if (port->tty_fd >= 0 && isatty(port->tty_fd) == 1)
            return 0;
        return refuse(err, port->tty_fd >= 0 ? VIAL_ERROR_WRONG_KIND : VIAL_ERROR_MISSING, at("%s.tty_fd", name).text,
                      "", "give the descriptor of a terminal, or use input_fd and output_fd",
                      port->tty_fd >= 0 ? "the descriptor is not a terminal" : "the port has no descriptor");
    case VIAL_CONSOLE_PORT_CUSTOM:
        if (port->ops.poll_fd != NULL && (port->ops.read != NULL || port->ops.write != NULL))
            return 0;
        return refuse(err, VIAL_ERROR_MISSING, at("%s.ops", name).text, "", "implement poll_fd and read or write",
                      "the custom backend is not complete");
    default:
        return refuse_number(err, VIAL_ERROR_INVALID, at("%s.kind", name).text, (uint64_t)port->kind,
                             "use inout, tty or custom", "it is not a kind of console port");
    }
}

static int check_console(const struct vial_vm_config *config, struct vial_error *err)
{
    static const char not_here[] = "leave it out";
    struct stat status;
    int result = 0;
    if (config->console_output != NULL) {
        result = check_given(config->console_output, "console.output", "give the path of a file", err);
        if (result == 0)
            result = check_parent(config->console_output, "console.output", err);
        if (result == 0 && stat(config->console_output, &status) == 0 && S_ISDIR(status.st_mode))
            result = refuse(err, VIAL_ERROR_WRONG_KIND, "console.output", config->console_output,
                            "give the path of a file", "%s is a folder", config->console_output);
    }
    for (size_t i = 0; i < config->console_port_count && result == 0; i++) {
        const char *name = config->console_ports[i].name;
        struct place field = at("console.ports[%zu].name", i);
        result = check_given(name, field.text, "give the port a name", err);
        if (result < 0)
            break;
        if (strlen(name) > LIMIT_PORT_NAME_BYTES || !text_is_printable_ascii(name) || strpbrk(name, " /\"") != NULL)
            return refuse(
                err, VIAL_ERROR_INVALID, field.text, name, "use letters, digits, dots and dashes, such as agent.0",
                "a port's name has at most %d ASCII characters and no space, slash or quote", LIMIT_PORT_NAME_BYTES);
        for (size_t j = 0; j < i; j++)
            if (strcmp(name, config->console_ports[j].name) == 0)
                return refuse(err, VIAL_ERROR_DUPLICATE, field.text, name, "give each port a name of its own",
                              "console.ports[%zu] has the same name", j);
        result = check_port_backend(&config->console_ports[i], at("console.ports[%zu]", i).text, err);
    }
    if (result == 0 && config->has_gpu)
        result = refuse(err, VIAL_ERROR_UNSUPPORTED, "console.gpu", "", not_here, "a GPU is not in this build");
    if (result == 0 && config->has_sound)
        result = refuse(err, VIAL_ERROR_UNSUPPORTED, "console.sound", "true", not_here, "sound is not in this build");
    return result;
}

/* ---- exec ---- */

static int check_ids(const struct vial_vm_config *config, struct vial_error *err)
{
    static const char remedy[] = "give a number up to 4294967294";
    if (config->has_exec_uid && config->exec_uid == UINT32_MAX)
        return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, "exec.uid", UINT32_MAX, remedy,
                             "4294967295 stands for no user");
    if (config->has_exec_gid && config->exec_gid == UINT32_MAX)
        return refuse_number(err, VIAL_ERROR_OUT_OF_RANGE, "exec.gid", UINT32_MAX, remedy,
                             "4294967295 stands for no group");
    return 0;
}

static int check_exec(const struct vial_vm_config *config, struct vial_error *err)
{
    if (config->exec_path != NULL && config->exec_path[0] == '\0')
        return refuse(err, VIAL_ERROR_MISSING, "exec.path", "", "give the path or the name of a program",
                      "it is empty");
    if (config->exec_path == NULL && config->exec_args.count > 0)
        return refuse(err, VIAL_ERROR_MISSING, "exec.path", "",
                      "give the program in exec.path; exec.args begins behind it",
                      "there are arguments, but no program");
    for (size_t i = 0; i < config->exec_env.count; i++) {
        const char *entry = config->exec_env.items[i];
        const char *equals = strchr(entry, '=');
        if (equals == NULL || equals == entry)
            return refuse(err, VIAL_ERROR_SYNTAX, at("exec.env[%zu]", i).text, entry, "write KEY=VALUE",
                          "an entry of the environment has no %s", equals == NULL ? "=" : "name before its =");
    }
    if (config->exec_workdir != NULL) {
        auto_free char *normal = NULL;
        int result = check_guest_path(config->exec_workdir, "exec.workdir", &normal, err);
        if (result < 0)
            return result;
    }
    for (size_t i = 0; i < config->rlimit_count; i++)
        for (size_t j = 0; j < i; j++)
            if (config->rlimits[i].resource == config->rlimits[j].resource)
                return refuse(err, VIAL_ERROR_DUPLICATE, at("exec.rlimits[%zu]", i).text,
                              rlimit_name(config->rlimits[i].resource), "give each resource one limit",
                              "exec.rlimits[%zu] limits the same resource", j);
    return check_ids(config, err);
}

/* ---- the whole ---- */

static int check_device_count(const struct vial_vm_config *config, struct vial_error *err)
{
    const struct machine_config *machine = &config->machine;
    size_t count = config->fs_total + config->disk_count + config->net_count + machine->balloon + machine->rng +
                   machine->metrics + (machine->vsock || machine->inet_hijack || config->vsock_port_count > 0) +
                   (config->has_implicit_console || config->console_port_count > 0);
    if (count <= LIMIT_DEVICES)
        return 0;
    return refuse_number(err, VIAL_ERROR_TOO_BIG, "machine", count,
                         "use fewer mounts, disks and networks (200 devices)",
                         "these are more devices than a machine has interrupts for");
}

int config_validate(const struct vial_vm_config *config, const struct host_capacity *host, struct vial_error *err)
{
    int result = check_machine(&config->machine, host, err);
    if (result == 0)
        result = check_kernel(&config->kernel, err);
    if (result == 0)
        result = check_file_systems(config, err);
    for (size_t i = 0; i < config->disk_count && result == 0; i++)
        result = check_disk(config, i, err);
    for (size_t i = 0; i < config->net_count && result == 0; i++)
        result = check_net(config, i, err);
    if (result == 0)
        result = check_tsi(config, err);
    if (result == 0)
        result = check_vsock_ports(config, err);
    if (result == 0)
        result = check_console(config, err);
    if (result == 0)
        result = check_exec(config, err);
    return result == 0 ? check_device_count(config, err) : result;
}

int vial_vm_config_validate(const struct vial_vm_config *config, struct vial_error *err)
{
    struct host_capacity host;
    host_capacity_read("", &host);
    return config_validate(config, &host, err);
}
