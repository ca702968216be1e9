// SPDX-License-Identifier: Apache-2.0
/* The disks and file systems of a machine, made from its configuration.
 *
 *     file system:  folder or backend ──> read-only? ──> virtual files and folders? ──> virtio-fs, its window
 *     disk:         image ──> virtio-blk
 *
 * A root of the host's gets what it may not have: /dev, /proc and /sys, which the init mounts, the init itself, and the
 * mount points of everything that is mounted below it. These exist in the guest's view only. Under a layer of the
 * guest's own, the init makes them there instead.
 *
 * A program may have put files and folders of its own into any file system (config_entries.c). These come first, and
 * what we have for the same place gives way: validate has settled that nothing is missing then. What hides names of the
 * host's is kept even under a file of theirs, as that may go (one_shot).
 *
 * The host's own root is what its programs need and not more: the top folders of `exposed`, of which `hidden` is taken
 * away again, and of the rest only what every user of the host may read. Other names at the top are looked up when the
 * machine is made, and hidden.
 *
 * Invariants: (1) what is made is in the vm at once, or released here. (2) a custom backend is not released by its
 * device, but by the configuration. (3) nothing is written to a folder of the host for the sake of a mount point.
 *
 * Trust: the configuration was validated; what it names on the host may have changed since, and every call can fail.
 */
#include "vmm/vm.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/path.h"
#include "device/blk/blk.h"
#include "device/fs/fs.h"
#include "vmm/check.h"
#include "vmm/guest_init.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#define TOP(name) "/" name

/* ---- what a root has beyond its folder ---- */

struct additions {
    const struct vial_vm_config *config; /* borrowed, as are the texts and bytes of most entries */
    struct fs_virtual *entries;          /* owned */
    size_t count, capacity;
    struct string_list texts; /* owned: paths of entries */
};

static void additions_free(struct additions *additions)
{
    for (size_t i = 0; i < additions->texts.count; i++)
        free(additions->texts.items[i]);
    free(additions->texts.items);
    free(additions->entries);
}

/* Whether an entry of the program's stands where this one of ours would be. */
static bool gives_way(const struct vial_vm_config *config, const struct fs_virtual *ours)
{
    const char *tag = config->root.tag;
    const struct fs_entry_config *entry = config_find_entry(config, tag, ours->path);
    bool hides = ours->kind == FS_VIRTUAL_EMPTY || ours->kind == FS_VIRTUAL_HIDDEN;
    if (entry != NULL && entry->is_folder)
        return true;
    return !hides && config_find_file_over(config, tag, ours->path) != NULL;
}

static int add_entry(struct additions *additions, const struct fs_virtual *entry)
{
    enum { most_entries = 1 << 16 };
    int result = alloc_grow((void **)&additions->entries, additions->count, &additions->capacity,
                            sizeof(additions->entries[0]), most_entries);
    if (result == 0)
        additions->entries[additions->count++] = *entry;
    return result;
}

/* One for the root. */
static int add_ours(struct additions *additions, const struct fs_virtual *entry)
{
    return gives_way(additions->config, entry) ? 0 : add_entry(additions, entry);
}

/* What the program has put into the file system. */
static int add_given(struct additions *additions, const char *tag)
{
    const struct vial_vm_config *config = additions->config;
    int result = 0;
    for (size_t i = 0; i < config->fs_entry_count && result == 0; i++) {
        const struct fs_entry_config *given = &config->fs_entries[i];
        struct fs_virtual entry = {
            .kind = given->is_folder ? FS_VIRTUAL_EMPTY : FS_VIRTUAL_FILE,
            .path = given->path,
            .bytes = given->data,
            .length = given->length,
            .mode = given->mode,
            .one_shot = given->one_shot,
        };
        if (strcmp(given->tag, tag) == 0)
            result = add_entry(additions, &entry);
    }
    return result;
}

/* What everybody may write to; all else is root's. */
static uint32_t mode_of(const char *path)
{
    return strcmp(path, TOP("tmp")) == 0 || strcmp(path, TOP("var/tmp")) == 0 ? 01777 : 0755;
}

/* `path` lives as long as the machine, or is ours from here on. */
static int add_place(struct additions *additions, enum fs_virtual_kind kind, const char *path)
{
    struct fs_virtual entry = {.kind = kind, .path = path, .mode = mode_of(path)};
    return add_ours(additions, &entry);
}

static int add_owned_place(struct additions *additions, enum fs_virtual_kind kind, char *path)
{
    enum { most_texts = 1 << 16 };
    struct string_list *texts = &additions->texts;
    int result = alloc_grow((void **)&texts->items, texts->count, &texts->capacity, sizeof(texts->items[0]),
                            most_texts);
    if (result < 0) {
        free(path);
        return result;
    }
    texts->items[texts->count++] = path;
    return add_place(additions, kind, path);
}

static int add_normal_place(struct additions *additions, enum fs_virtual_kind kind, const char *path)
{
    char *normal = NULL;
    int result = path_normalize(path, &normal);
    return result == 0 ? add_owned_place(additions, kind, normal) : result;
}

static int add_init(struct additions *additions)
{
    struct fs_virtual entry = {
        .kind = FS_VIRTUAL_FILE,
        .path = CONFIG_DEFAULT_INIT,
        .bytes = guest_init_bytes,
        .length = guest_init_length,
        .mode = 0755,
    };
    return add_ours(additions, &entry);
}

static int add_mount_points(struct additions *additions, const struct vial_vm_config *config)
{
    int result = 0;
    for (size_t i = 0; i < config->mapped_dir_count && result == 0; i++)
        result = add_normal_place(additions, FS_VIRTUAL_FOLDER, config->mapped_dirs[i].guest);
    for (size_t i = 0; i < config->mount_count && result == 0; i++)
        result = add_normal_place(additions, FS_VIRTUAL_FOLDER, config->mounts[i].guest);
    for (size_t i = 0; i < config->tmpfs_count && result == 0; i++)
        result = add_normal_place(additions, FS_VIRTUAL_FOLDER, config->tmpfs[i].guest);
    return result;
}

/* Whether the guest is shown an empty file to mount over, so that the folder which is the root need not change: where
 * there is none, or a link, which may lead nowhere in the guest. Only in a folder /etc: one of ours would take a link's
 * place, and could not be written to. An embedding program's files are its own. A folder /etc of the program's hides
 * that of the host. */
static bool lacks(const struct vial_vm_config *config, const char *name)
{
    struct stat status;
    if (config_find_entry(config, config->root.tag, "/etc") != NULL)
        return true;
    if (config->root.is_custom)
        return false;
    if (config->root.path == NULL)
        return true;
    auto_close int folder = open(config->root.path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    auto_close int etc = folder < 0 ? -1 : openat(folder, "etc", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (etc < 0)
        return false;
    return fstatat(etc, name, &status, AT_SYMLINK_NOFOLLOW) < 0 ? errno == ENOENT : S_ISLNK(status.st_mode);
}

/* Where the guest's resolver looks (guest/network.c). */
static int add_network_files(struct additions *additions, const struct vial_vm_config *config)
{
    static const char *const names[] = {"hosts", "resolv.conf"}, *const paths[] = {"/etc/hosts", "/etc/resolv.conf"};
    bool is_wanted = false;
    int result = 0;
    for (size_t i = 0; i < config->net_count; i++)
        is_wanted |= net_is_configured(&config->net[i]) && config_asks_init(config);
    for (size_t i = 0; i < array_length(names) && is_wanted && result == 0; i++) {
        struct fs_virtual entry = {
            .kind = FS_VIRTUAL_FILE,
            .path = paths[i],
            .bytes = (const unsigned char *)"",
            .mode = 0644,
        };
        if (lacks(config, names[i]))
            result = add_ours(additions, &entry);
    }
    return result;
}

static int add_all(struct additions *additions, enum fs_virtual_kind kind, const char *const *paths, size_t count)
{
    int result = 0;
    for (size_t i = 0; i < count && result == 0; i++)
        result = add_place(additions, kind, paths[i]);
    return result;
}

/* ---- the host's own root ---- */

/* Folders that are programs, their libraries, and how they are configured. */
static bool is_exposed(const char *name)
{
    static const char *const exposed[] = {"bin",    "etc", "gnu", "lib",  "lib32", "lib64",
                                          "libx32", "nix", "opt", "sbin", "usr",   "var"};
    for (size_t i = 0; i < array_length(exposed); i++)
        if (strcmp(name, exposed[i]) == 0)
            return true;
    return false;
}

/* Folders that programs expect, and that hold what is none of the guest's business. Those of /var that are top folders
 * elsewhere are such on hosts whose root is an image (ostree), which has links to them at the top. */
static const char *const emptied[] = {
    TOP("boot"),      TOP("dev"),      TOP("home"),    TOP("media"),    TOP("mnt"),     TOP("proc"),
    TOP("root"),      TOP("run"),      TOP("srv"),     TOP("sys"),      TOP("tmp"),     TOP("var/backups"),
    TOP("var/crash"), TOP("var/home"), TOP("var/log"), TOP("var/mail"), TOP("var/mnt"), TOP("var/roothome"),
    TOP("var/spool"), TOP("var/srv"),  TOP("var/tmp"), TOP("var/www")};

static bool is_emptied(const char *name)
{
    for (size_t i = 0; i < array_length(emptied); i++)
        if (strcmp(name, emptied[i] + 1) == 0)
            return true;
    return false;
}

static int hide_top(struct additions *additions, const char *name)
{
    size_t size = strlen(name) + 2;
    const struct vial_vm_config *config = additions->config;
    bool is_init = strcmp(name, &CONFIG_DEFAULT_INIT[1]) == 0; /* ours takes its place, unless another has it */
    is_init = is_init && config_find_entry(config, config->root.tag, CONFIG_DEFAULT_INIT) == NULL;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || is_exposed(name) || is_emptied(name) || is_init)
        return 0;
    char *path = alloc_zero(size);
    if (path == NULL)
        return -ENOMEM;
    path[0] = '/';
    memcpy(path + 1, name, size - 1);
    return add_owned_place(additions, FS_VIRTUAL_HIDDEN, path);
}

/* What cannot be listed could not be hidden: then there is no machine. */
static int hide_all_tops(struct additions *additions)
{
    DIR *top = opendir("/");
    if (top == NULL)
        return -errno;
    int result = 0;
    while (result == 0) {
        errno = 0; /* readdir(3): the end and an error differ in nothing else */
        const struct dirent *entry = readdir(top);
        if (entry == NULL) {
            result = -errno;
            break;
        }
        result = hide_top(additions, entry->d_name);
    }
    closedir(top);
    return result;
}

static int hide_host(struct additions *additions, const struct vial_vm_config *config)
{
    int result = hide_all_tops(additions);
    if (result == 0)
        result = add_all(additions, FS_VIRTUAL_EMPTY, emptied, array_length(emptied));
    for (size_t i = 0; i < config->root_hidden.count && result == 0; i++)
        result = add_normal_place(additions, FS_VIRTUAL_HIDDEN, config->root_hidden.items[i]);
    return result;
}

static int add_to_root(struct additions *additions, const struct vial_vm_config *config)
{
    static const char *const needed[] = {"/dev", "/proc", "/sys"}, *const scratch[] = {TOP("run"), TOP("tmp")};
    bool is_host = config->root_kind == ROOT_HOST, is_left = config->root_kind == ROOT_DISK;
    is_left |= config->root_kind == ROOT_LAYERS || config->root.throw_away;
    int result = add_given(additions, config->root.tag);
    if (result == 0)
        result = is_host ? hide_host(additions, config)
                         : add_all(additions, FS_VIRTUAL_FOLDER, needed, array_length(needed));
    if (result == 0 && config->root_kind == ROOT_BUILTIN)
        result = add_all(additions, FS_VIRTUAL_FOLDER, scratch, array_length(scratch));
    if (result == 0 && !is_left)
        result = add_mount_points(additions, config);
    if (result == 0 && !is_left)
        result = add_network_files(additions, config);
    if (result == 0 && config_has_our_init(config))
        result = add_init(additions);
    return result;
}

/* Puts over the files what the guest is shown beside them: of the root, ours, too. */
static int put_additions(const struct vial_vm_config *config, const char *tag, struct fs_backend *backend)
{
    struct additions additions = {.config = config};
    struct fs_backend whole;
    bool is_root = tag == config->root.tag;
    int result = is_root ? add_to_root(&additions, config) : add_given(&additions, tag);
    if (result == 0 && (is_root || additions.count > 0))
        result = overlay_new(backend, additions.entries, additions.count, &whole);
    if (result == 0 && (is_root || additions.count > 0))
        *backend = whole;
    additions_free(&additions);
    return result;
}

/* ---- file systems ---- */

static const struct vial_fs_ops *without_release(const struct fs_config *fs, struct vial_fs_ops *ops)
{
    *ops = fs->ops;
    ops->release = NULL;
    return ops;
}

/* Without the right to make files in the name of others, what the guest makes can only be ours: it is told so. */
static struct passthrough_options folder_options(const struct fs_config *fs)
{
    return (struct passthrough_options){
        .path = fs->path,
        .has_owner = fs->has_owner || !passthrough_is_privileged(),
        .owner_uid = fs->owner_uid,
        .owner_gid = fs->owner_gid,
        .only_public = fs->only_public,
        .one_device = fs->one_device,
        .xattrs = (enum fs_xattrs)fs->xattrs,
    };
}

static int open_folder(const struct fs_config *fs, struct fs_backend *ret_backend)
{
    struct passthrough_options options = folder_options(fs);
    return passthrough_new(&options, ret_backend);
}

static int open_backend(const struct fs_config *fs, struct fs_backend *ret_backend)
{
    struct vial_fs_ops ops;
    struct fs_backend below = {0}, whole;
    int result = 0;
    if (fs->is_custom)
        below = (struct fs_backend){.ops = *without_release(fs, &ops), .user = fs->ops_user};
    else
        result = fs->path != NULL ? open_folder(fs, &below) : null_new(&below);
    if (result == 0 && (fs->read_only || fs->throw_away)) {
        result = readonly_new(&below, &whole);
        if (result == 0)
            below = whole;
    }
    if (result == 0)
        *ret_backend = below;
    else
        fs_backend_release(&below);
    return result;
}

static int fail_fs(int result, const struct fs_config *fs, const char *field, struct vial_error *err)
{
    if (result == -ENOMEM)
        return error_no_memory(err, VIAL_PHASE_START);
    error_set_os(err, VIAL_PHASE_START, result, "the file system cannot be made");
    error_field(err, "%s", field);
    error_value(err, "%s", fs->path != NULL ? fs->path : "");
    error_remedy(err, result == -EMFILE ? "raise the limit of open files (ulimit -n)"
                                        : "check the folder and its permissions");
    return result;
}

/* Address space that the device maps files into, and nothing else lies in. */
static int reserve_window(uint64_t size_bytes, void **ret_window)
{
    void *window = mmap(NULL, size_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (window == MAP_FAILED)
        return -errno;
    *ret_window = window;
    return 0;
}

static void note_exit_code(void *user, int32_t code)
{
    struct vial_vm *vm = user;
    atomic_store(&vm->told_code, code & 0xff); /* as exit(2) takes it */
}

static unsigned clamp(unsigned value, unsigned least, unsigned most)
{
    return value < least ? least : value > most ? most : value;
}

/* Nothing is told by opening a file that nobody changes, or that lies below a layer of the guest's own. An embedding
 * program's files may be something else. */
static bool goes_without_opens(const struct fs_config *fs)
{
    bool is_steady = fs->throw_away || (fs->read_only && fs->cache == VIAL_FS_CACHE_ALWAYS);
    return is_steady && !fs->is_custom;
}

static struct fs_options options_of(struct vial_vm *vm, const struct fs_config *fs)
{
    enum { least_workers = 4 };
    unsigned vcpus = vm->config->machine.vcpus;
    bool is_root = fs == &vm->config->root;
    struct passthrough_options folder = folder_options(fs);
    return (struct fs_options){
        .tag = fs->tag,
        .cache = (enum fs_cache)fs->cache,
        .read_only = fs->read_only || fs->throw_away,
        .without_opens = goes_without_opens(fs),
        .queue_count = clamp(vcpus, 1, FS_MOST_QUEUES),
        .worker_count = clamp(2 * vcpus, least_workers, FS_MOST_WORKERS),
        .backend_may_wait = fs->is_custom, /* what it waits for is not ours to know */
        .posix_acl = fs->path != NULL && !fs->is_custom && passthrough_passes_acls(&folder),
        .window_bytes = fs->dax_window_mib << 20,
        .exited = is_root ? note_exit_code : NULL,
        .exited_user = vm,
    };
}

/* Makes the device over `backend`, which is taken over once that has succeeded, in the last place of the vm. */
static int connect_fs(struct vial_vm *vm, struct fs_options *options, struct fs_backend *backend, const char *field,
                      const struct fs_config *fs, struct vial_error *err)
{
    struct virtio_device *device = NULL;
    size_t place = vm->device_count;
    options->backend = *backend;
    int result = fs_new(options, &device);
    if (result < 0)
        return fail_fs(result, fs, field, err);
    *backend = (struct fs_backend){0};
    result = vm_add_device(vm, device, err);
    if (vm->device_count == place) /* there was no place for it: it is gone */
        return result;
    vm->devices[place].window = options->window;
    vm->devices[place].window_bytes = options->window_bytes;
    if (result == 0 && options->window != NULL) {
        struct vm_window window = {options->window, options->window_bytes, FS_WINDOW_ID};
        result = vm->engine->add_window(vm, device, &window, err);
    }
    options->window = NULL;
    return result;
}

static int add_fs(struct vial_vm *vm, const struct fs_config *fs, const char *field, struct vial_error *err)
{
    struct fs_backend backend = {0};
    struct fs_options options = options_of(vm, fs);
    int result = open_backend(fs, &backend);
    if (result == 0)
        result = put_additions(vm->config, fs->tag, &backend);
    if (result == 0 && options.window_bytes > 0)
        result = reserve_window(options.window_bytes, &options.window);
    result = result < 0 ? fail_fs(result, fs, field, err) : connect_fs(vm, &options, &backend, field, fs, err);
    if (options.window != NULL)
        munmap(options.window, options.window_bytes);
    fs_backend_release(&backend);
    return result;
}

/* The root has a device unless it is put together from an initramfs, where only a folder needs one. */
static bool needs_root_device(const struct vial_vm_config *config)
{
    bool is_mounted = config->root_kind == ROOT_FOLDER || config->root_kind == ROOT_HOST ||
                      config->root_kind == ROOT_BUILTIN;
    return config->root_kind != ROOT_NONE && (config->kernel.initramfs == NULL || is_mounted);
}

static int add_file_systems(struct vial_vm *vm, struct vial_error *err)
{
    const struct vial_vm_config *config = vm->config;
    int result = needs_root_device(config) ? add_fs(vm, &config->root, "root", err) : 0;
    for (size_t i = 0; i < config->fs_count && result == 0; i++)
        result = add_fs(vm, &config->fs[i], place_of("fs[%zu]", i).text, err);
    for (size_t i = 0; i < config->mapped_dir_count && result == 0; i++) {
        const struct mapped_dir_config *dir = &config->mapped_dirs[i];
        struct fs_config fs = {.tag = dir->tag, .path = dir->host, .read_only = dir->read_only};
        result = add_fs(vm, &fs, place_of("mapped_dirs[%zu]", i).text, err);
    }
    return result;
}

/* ---- disks ---- */

static int open_disk(const struct disk_config *config, struct disk **ret_disk, struct vial_error *err)
{
    auto_free struct disk_backing *backing = alloc_zero((config->backing_count + 1) * sizeof(backing[0]));
    if (backing == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    for (size_t i = 0; i < config->backing_count; i++)
        backing[i] = (struct disk_backing){config->backing[i].path, config->backing[i].format};
    struct disk_options options = {
        .path = config->path,
        .format = config->format,
        .read_only = config->read_only,
        .direct_io = config->direct_io,
        .backing = backing,
        .backing_count = config->backing_count,
    };
    return disk_open(&options, ret_disk, err);
}

/* Takes the disk over once that has succeeded. */
static int add_disk(struct vial_vm *vm, const struct disk_config *config, struct disk **disk, struct vial_error *err)
{
    struct virtio_device *device = NULL;
    struct blk_options options = {
        .disk = *disk,
        .id = config->id,
        .read_only = config->read_only,
        .cache = config->cache,
        .sync = config->sync,
        .queue_count = config->queues > 0 ? config->queues : clamp(vm->config->machine.vcpus, 1, BLK_MOST_QUEUES),
        .limits =
            {
                .bytes_per_second = config->bytes_per_second,
                .burst_bytes = config->burst_bytes,
                .operations_per_second = config->operations_per_second,
                .burst_operations = config->burst_operations,
            },
    };
    int result = blk_new(&options, &device);
    if (result < 0)
        return vm_fail_device(err, result, "disk");
    *disk = NULL;
    return vm_add_device(vm, device, err);
}

static int open_disks(const struct vial_vm_config *config, struct disk **disks, struct vial_error *err)
{
    int result = 0;
    for (size_t i = 0; i < config->disk_count && result == 0; i++) {
        result = open_disk(&config->disks[i], &disks[i], err);
        if (result < 0 && err != NULL && err->field[0] == '\0')
            error_field(err, "disks[%zu].path", i);
    }
    return result;
}

/* Disks are opened before anything else is: after that the process may become another user's (on_disks_open). */
int vm_add_storage(struct vial_vm *vm, struct vial_error *err)
{
    const struct vial_vm_config *config = vm->config;
    auto_free struct disk **disks = alloc_zero((config->disk_count + 1) * sizeof(struct disk *));
    if (disks == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    int result = open_disks(config, disks, err);
    if (result == 0 && config->on_disks_open != NULL)
        result = config->on_disks_open(config->on_disks_open_user, err);
    if (result == 0)
        result = add_file_systems(vm, err);
    for (size_t i = 0; i < config->disk_count && result == 0; i++)
        result = add_disk(vm, &config->disks[i], &disks[i], err);
    for (size_t i = 0; i < config->disk_count; i++)
        disk_free(disks[i]);
    return result;
}
