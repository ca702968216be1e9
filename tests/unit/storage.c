// SPDX-License-Identifier: Apache-2.0
/* Tests of vmm/storage: which devices a configuration becomes, and what is left when that fails half-way. The engine is
 * one that connects nothing. */
#include "test.h"

#include "base/alloc.h"
#include "device/fs/request.h"
#include "vmm/vm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static struct vial_error err;
static int releases, windows;

static void make_file(const char *name, off_t size)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, size) < 0)
        abort();
    close(fd);
}

static void prepare(void)
{
    test_make_folder("root");
    test_make_folder("data");
    if (chdir(test_folder()) < 0)
        abort();
    make_file("a.img", 1 << 20);
    make_file("b.img", 1 << 20);
}

static int add_window(struct vial_vm *vm, struct virtio_device *device, const struct vm_window *window,
                      struct vial_error *error)
{
    (void)vm;
    (void)device;
    (void)error;
    windows += window->host != NULL && window->size_bytes == 2 << 20;
    return 0;
}

static struct vial_vm *begin(struct vial_vm_config *config)
{
    static const struct vm_engine engine = {.add_window = add_window};
    struct vial_vm *vm = calloc(1, sizeof(*vm));
    if (vm == NULL)
        abort();
    vm->engine = &engine;
    vm->config = config;
    windows = 0;
    return vm;
}

static void end(struct vial_vm *vm)
{
    vm_close_devices(vm);
    vial_vm_config_free(vm->config);
    free(vm);
}

static struct vial_vm_config *load(const char *json)
{
    struct vial_vm_config *config = NULL;
    if (vial_vm_config_load_text(json, strlen(json), &config, &err) < 0)
        abort();
    return config;
}

/* The machine's devices as words: the tag of a file system, the kind of anything else. */
static const char *devices(const struct vial_vm *vm)
{
    static char text[256];
    text[0] = '\0';
    for (size_t i = 0; i < vm->device_count; i++) {
        struct virtio_device *device = vm->devices[i].device;
        char tag[LIMIT_FS_TAG_BYTES + 1] = "disk";
        if (virtio_device_type(device) == VIRTIO_TYPE_FS)
            virtio_device_read_config(device, 0, tag, LIMIT_FS_TAG_BYTES);
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", i > 0 ? " " : "", tag);
    }
    return text;
}

#define DISKS                                                                                                          \
    "\"disks\": [{\"id\": \"a\", \"path\": \"a.img\", \"format\": \"raw\", \"read_only\": true},"                      \
    " {\"id\": \"b\", \"path\": \"b.img\", \"format\": \"raw\", \"queues\": 3}]"

static const struct {
    const char *json, *devices;
} machines[] = {
    {"{\"root\": {\"path\": \"root\"}, \"mapped_dirs\": [\"data:/a/b:ro\"], \"tmpfs\": [{\"guest\": \"/t\"}]}",
     "/dev/root fs1"},
    {"{\"root\": {\"path\": \"root\", \"throw_away\": true}, \"fs\": [{\"path\": \"data\", \"tag\": \"mine\"}]}",
     "/dev/root mine"},
    {"{\"root\": \"host\"}", "/dev/root"},
    {"{\"root\": {\"host\": true, \"hidden\": [\"/etc/../opt\"]}}", "/dev/root"},
    {"{\"root\": \"builtin\"}", "/dev/root"},
    {"{\"root\": \"builtin\", \"mapped_dirs\": [\"data:/tmp\"], \"tmpfs\": [{\"guest\": \"/run\"}]}", "/dev/root fs1"},
    {"{\"root\": {\"host\": true, \"hidden\": [\"/home\", \"/home/.\"]}}", "/dev/root"},
    {"{\"root\": {\"disk\": \"a\"}, " DISKS "}", "/dev/root disk disk"},
    {"{\"root\": {\"layers\": [\"a\"], \"upper\": \"b\"}, " DISKS "}", "/dev/root disk disk"},
    {"{\"root\": {\"disk\": \"a\"}, \"kernel\": {\"initramfs\": \"a.img\"}, " DISKS "}", "disk disk"},
    {"{\"root\": {\"path\": \"root\"}, \"kernel\": {\"initramfs\": \"a.img\"}}", "/dev/root"},
    {"{\"mounts\": [{\"disk\": \"b\", \"guest\": \"/b\"}], " DISKS "}", "disk disk"},
};

TEST(a_configuration_becomes_devices)
{
    prepare();
    for (size_t i = 0; i < array_length(machines); i++) {
        struct vial_vm *vm = begin(load(machines[i].json));
        CHECK_INT(vm_add_storage(vm, &err), 0);
        CHECK_TEXT(devices(vm), machines[i].devices);
        end(vm);
    }
}

/* The file system of device `index`. */
static const struct fs_server *server_of(const struct vial_vm *vm, size_t index)
{
    return virtio_device_state(vm->devices[index].device);
}

/* The permissions of a folder in the root, or -errno. */
static int mode_in_root(const struct vial_vm *vm, const char *folder, const char *name)
{
    const struct fs_backend *root = &server_of(vm, 0)->backend;
    const struct vial_fs_caller caller = {.uid = 0};
    struct vial_fs_entry entry = {.node = VIAL_FS_ROOT_NODE};
    int result = folder == NULL ? 0 : root->ops.lookup(root->user, &caller, entry.node, folder, &entry);
    if (result == 0)
        result = root->ops.lookup(root->user, &caller, entry.node, name, &entry);
    return result < 0 ? result : (int)(entry.attributes.mode & 07777);
}

TEST(scratch_folders_are_for_everybody)
{
    prepare();
    struct vial_vm *vm = begin(load("{\"root\": \"builtin\"}"));
    CHECK_INT(vm_add_storage(vm, &err), 0);
    CHECK_INT(mode_in_root(vm, NULL, "tmp"), 01777);
    CHECK_INT(mode_in_root(vm, NULL, "run"), 0755);
    end(vm);
    vm = begin(load("{\"root\": {\"host\": true, \"hidden\": [\"/home\"]}}"));
    CHECK_INT(vm_add_storage(vm, &err), 0);
    CHECK_INT(mode_in_root(vm, NULL, "tmp"), 01777);
    CHECK_INT(mode_in_root(vm, "var", "tmp"), 01777);
    CHECK_INT(mode_in_root(vm, NULL, "dev"), 0755);
    CHECK_INT(mode_in_root(vm, NULL, "home"), -ENOENT);
    end(vm);
}

TEST(homes_of_an_image_host_are_empty)
{
    static const char *const emptied_in_var[] = {"home", "mnt", "roothome", "srv"};
    struct vial_vm *vm = begin(load("{\"root\": \"host\"}"));
    CHECK_INT(vm_add_storage(vm, &err), 0);
    for (size_t i = 0; i < array_length(emptied_in_var); i++)
        CHECK_INT(mode_in_root(vm, "var", emptied_in_var[i]), 0755);
    end(vm);
}

/* Listing the host's top folders, which fails after a few, or begins with a name of the test's. */
struct dirent *__real_readdir64(DIR *folder);
struct dirent *__wrap_readdir64(DIR *folder);
static int readdir_calls_left = -1;
static const char *pretended_name;

struct dirent *__wrap_readdir64(DIR *folder)
{
    static struct dirent pretended;
    if (pretended_name != NULL) {
        snprintf(pretended.d_name, sizeof(pretended.d_name), "%s", pretended_name);
        pretended_name = NULL;
        return &pretended;
    }
    if (readdir_calls_left > 0)
        readdir_calls_left--;
    if (readdir_calls_left != 0)
        return __real_readdir64(folder);
    errno = EIO;
    return NULL;
}

TEST(what_cannot_be_listed_is_not_exposed)
{
    struct vial_vm *vm = begin(load("{\"root\": \"host\"}"));
    readdir_calls_left = 3;
    int result = vm_add_storage(vm, &err);
    readdir_calls_left = -1;
    CHECK_INT(result, -EIO);
    CHECK_INT(vm->device_count, 0);
    end(vm);
}

TEST(a_host_may_have_an_init_of_that_name)
{
    struct vial_vm *vm = begin(load("{\"root\": \"host\"}"));
    pretended_name = "init.krun";
    CHECK_INT(vm_add_storage(vm, &err), 0);
    CHECK(pretended_name == NULL);
    CHECK_INT(mode_in_root(vm, NULL, "init.krun"), 0755); /* ours */
    end(vm);
}

TEST(acls_are_enforced_where_they_pass)
{
    static const struct {
        const char *fs;
        bool passes;
    } cases[] = {
        {"{\"path\": \"data\"}", true},
        {"{\"path\": \"data\", \"xattrs\": \"all\"}", true},
        {"{\"path\": \"data\", \"xattrs\": \"none\"}", false},
        {"{\"path\": \"data\", \"only_public\": true}", false},
        {"{\"path\": \"data\", \"owner\": {\"uid\": 1, \"gid\": 1}}", false},
    };
    prepare();
    for (size_t i = 0; i < array_length(cases); i++) {
        char json[256];
        snprintf(json, sizeof(json), "{\"fs\": [%s]}", cases[i].fs);
        struct vial_vm *vm = begin(load(json));
        CHECK_INT(vm_add_storage(vm, &err), 0);
        CHECK_INT(server_of(vm, 0)->posix_acl, cases[i].passes && passthrough_is_privileged());
        CHECK(!server_of(vm, 0)->backend_may_wait);
        end(vm);
    }
}

TEST(a_window_is_given_to_its_device)
{
    prepare();
    struct vial_vm *vm = begin(load("{\"root\": {\"path\": \"root\", \"dax_window_mib\": 2}}"));
    CHECK_INT(vm_add_storage(vm, &err), 0);
    CHECK_INT(windows, 1);
    CHECK(vm->devices[0].window != NULL && vm->devices[0].window_bytes == 2 << 20);
    end(vm);
}

TEST(what_is_gone_is_named)
{
    prepare();
    struct vial_vm *vm = begin(load("{\"root\": \"builtin\", \"mapped_dirs\": [\"data:/a\", \"gone:/b\"]}"));
    CHECK_INT(vm_add_storage(vm, &err), -ENOENT);
    CHECK_TEXT(err.field, "mapped_dirs[1]");
    CHECK_TEXT(err.value, "gone");
    CHECK_TEXT(devices(vm), "/dev/root fs1");
    end(vm);
    vm = begin(load("{\"disks\": [{\"path\": \"gone.img\", \"format\": \"raw\"}]}"));
    CHECK_INT(vm_add_storage(vm, &err), -ENOENT);
    CHECK_TEXT(err.field, "disks[0].path");
    end(vm);
}

static void count_release(void *user)
{
    (void)user;
    releases++;
}

static int no_lookup(void *user, const struct vial_fs_caller *caller, uint64_t parent, const char *name,
                     struct vial_fs_entry *ret_entry)
{
    (void)user;
    (void)caller;
    (void)parent;
    (void)name;
    (void)ret_entry;
    return -ENOENT;
}

static int no_attributes(void *user, const struct vial_fs_caller *caller, uint64_t node, const uint64_t *handle,
                         struct vial_fs_attributes *ret_attributes)
{
    (void)user;
    (void)caller;
    (void)node;
    (void)handle;
    (void)ret_attributes;
    return -EIO;
}

TEST(a_custom_backend_is_released_by_its_configuration)
{
    struct vial_fs_ops ops = VIAL_FS_OPS_INIT;
    struct vial_fs_options fs = VIAL_FS_OPTIONS_INIT;
    struct vial_vm_config *config = load("{}");
    ops.lookup = no_lookup;
    ops.attributes = no_attributes;
    ops.release = count_release;
    fs.ops = &ops;
    fs.read_only = true;
    releases = 0;
    CHECK_INT(vial_vm_config_set_root(config, &fs, &err), 0);
    struct vial_vm *vm = begin(config);
    CHECK_INT(vm_add_storage(vm, &err), 0);
    CHECK(server_of(vm, 0)->backend_may_wait); /* its calls never hold the device's thread up */
    vm_close_devices(vm);
    CHECK_INT(releases, 0);
    end(vm);
    CHECK_INT(releases, 1);
}

TEST(storage_survives_no_memory)
{
    prepare();
    for (size_t i = 0; i < array_length(machines); i++) {
        FOR_EACH_FAULT
        {
            struct vial_vm_config *config = NULL;
            int result = vial_vm_config_load_text(machines[i].json, strlen(machines[i].json), &config, &err);
            struct vial_vm *vm = result == 0 ? calloc(1, sizeof(*vm)) : NULL;
            if (vm == NULL) {
                vial_vm_config_free(config);
                continue;
            }
            static const struct vm_engine engine = {0};
            vm->engine = &engine;
            vm->config = config;
            result = vm_add_storage(vm, &err);
            if ((result < 0) != fault_was_hit())
                test_fail(__FILE__, __LINE__, "%s: %d with a failed allocation: %d", machines[i].json, result,
                          fault_was_hit());
            end(vm);
        }
    }
}
