// SPDX-License-Identifier: Apache-2.0
/* Tests of vmm/config_entries: what may be put into a file system, what a machine makes of it, and what does not go
 * together. The root is a folder "root" of the scratch folder, or the host's own. */
#include "refusals.h"
#include "test.h"

#include "base/alloc.h"
#include "device/fs/request.h"
#include "vmm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int add(struct vial_vm_config *config, const char *tag, const char *path, const char *data)
{
    struct vial_fs_entry_options entry = VIAL_FS_ENTRY_OPTIONS_INIT;
    entry.tag = tag;
    entry.path = path;
    entry.data = data;
    entry.length = data != NULL ? strlen(data) : 0;
    entry.is_folder = data == NULL;
    return vial_vm_config_add_fs_entry(config, &entry, &err);
}

static int add_once(struct vial_vm_config *config, const char *path)
{
    struct vial_fs_entry_options entry = VIAL_FS_ENTRY_OPTIONS_INIT;
    entry.path = path;
    entry.one_shot = true;
    return vial_vm_config_add_fs_entry(config, &entry, &err);
}

static struct vial_vm_config *load(const char *json)
{
    struct vial_vm_config *config = NULL;
    if (vial_vm_config_load_text(json, strlen(json), &config, &err) < 0)
        abort();
    return config;
}

static const char folder_root[] = "{\"root\": {\"path\": \"root\"}}";

/* ---- the call ---- */

TEST(entries_are_copies_in_the_file_system_of_their_tag)
{
    struct vial_vm_config *config = load("{\"root\": {\"path\": \"root\"}, \"fs\": [{\"path\": \"data\", \"tag\": "
                                         "\"mine\"}], \"mapped_dirs\": [\"data:/d\"]}");
    struct vial_fs_entry_options entry = VIAL_FS_ENTRY_OPTIONS_INIT;
    char path[] = "/etc/x", bytes[] = "ab\0c";
    CHECK(entry.size == sizeof(entry) && entry.size % 8 == 0 && entry.mode == 0755 && !entry.is_folder);
    CHECK_INT(add(config, NULL, "/etc", NULL), 0);
    entry.tag = "/dev/root";
    entry.path = path;
    entry.data = bytes;
    entry.length = sizeof(bytes) - 1;
    entry.mode = 04750;
    entry.one_shot = true;
    CHECK_INT(vial_vm_config_add_fs_entry(config, &entry, &err), 0);
    memset(path, 'x', sizeof(path) - 1);
    memset(bytes, 'x', sizeof(bytes) - 1);
    const struct fs_entry_config *made = &config->fs_entries[1];
    CHECK(made->length == 4 && memcmp(made->data, "ab\0c", 4) == 0 && made->one_shot && made->mode == 04750);
    CHECK(config_find_entry(config, "/dev/root", "/etc/x") == made);
    CHECK(config_find_entry(config, "mine", "/etc/x") == NULL && config_find_entry(config, "/dev/root", "/e") == NULL);
    CHECK(config_find_file_over(config, "/dev/root", "/etc/x/y") == made);
    CHECK(config_find_file_over(config, "/dev/root", "/etc/xy") == NULL);
    CHECK(config_find_file_over(config, "/dev/root", "/etc") == NULL);
    CHECK_INT(add(config, "mine", "/etc", ""), 0); /* each has a tree of its own */
    CHECK_INT(add(config, config->mapped_dirs[0].tag, "/etc", "x"), 0);
    CHECK_INT(config->fs_entry_bytes, 5);
    auto_free char *dump = NULL;
    CHECK_INT(vial_vm_config_dump(config, &dump, &err), 0);
    CHECK(strstr(dump, "\"fs_entries\": [") != NULL && strstr(dump, "\"path\": \"/etc/x\"") != NULL);
    CHECK(strstr(dump, "\"mode\": \"4750\"") != NULL && strstr(dump, "\"length\": 4") != NULL);
    vial_vm_config_free(config);
}

TEST(paths_that_cannot_be_are_refused)
{
    static const struct {
        const char *path;
        int result;
    } cases[] = {
        {"", -EINVAL},           {"/", -EINVAL},        {"relative", -EINVAL},    {"//a", -EINVAL},
        {"/folder//a", -EINVAL}, {"/folder/", -EINVAL}, {"/./a", -EINVAL},        {"/..", -EINVAL},
        {"/folder/..", -EINVAL}, {"/a/b", -ENOENT},     {"/folder/a/b", -ENOENT}, {"/file/a", -ENOTDIR},
        {"/file", -EEXIST},      {"/folder", -EEXIST},  {"/fold/x", -ENOENT},
    };
    struct vial_vm_config *config = load(folder_root);
    char longest[1 + 255 + 2] = "/", deep[4098] = "";
    CHECK_INT(add(config, NULL, "/folder", NULL), 0);
    CHECK_INT(add(config, NULL, "/file", "x"), 0);
    for (size_t i = 0; i < array_length(cases); i++) {
        memset(&err, 0, sizeof(err));
        CHECK_INT(add(config, NULL, cases[i].path, "x"), cases[i].result);
        CHECK_INT(add(config, NULL, cases[i].path, NULL), cases[i].result);
        CHECK_TEXT(err.field, "fs_entries[2].path");
        CHECK(err.message[0] != '\0' && err.remedy[0] != '\0');
    }
    memset(longest + 1, 'x', 256);
    CHECK_INT(add(config, NULL, longest, "x"), -EINVAL);
    longest[256] = '\0';
    CHECK_INT(add(config, NULL, longest, "x"), 0);
    for (size_t i = 0; i < sizeof(deep) - 1; i += 2)
        memcpy(deep + i, "/x", 2);
    deep[4096] = '\0';
    CHECK_INT(add(config, NULL, deep, "x"), -EINVAL);
    deep[4094] = '\0';
    CHECK_INT(add(config, NULL, deep, "x"), -ENOENT);
    CHECK_INT(config->fs_entry_count, 3);
    vial_vm_config_free(config);
}

TEST(options_that_make_no_sense_are_refused)
{
    struct vial_vm_config *config = new_config();
    struct vial_fs_entry_options entry = VIAL_FS_ENTRY_OPTIONS_INIT;
    static char byte;
    CHECK_INT(add(config, NULL, "/x", "x"), -ENOENT);
    CHECK_TEXT(err.message, "the machine has no root to put it into");
    CHECK_INT(vial_vm_config_set_root_builtin(config, &err), 0);
    CHECK_INT(add(config, "mine", "/x", "x"), -ENOENT);
    CHECK_TEXT(err.field, "fs_entries[0].tag");
    CHECK_INT(vial_vm_config_add_fs_entry(config, &entry, &err), -EINVAL); /* no path */
    CHECK_INT(vial_vm_config_add_fs_entry(config, NULL, &err), -EINVAL);
    entry.path = "/x";
    entry.mode = 010000;
    CHECK_INT(vial_vm_config_add_fs_entry(config, &entry, &err), -EINVAL);
    entry.mode = 0644;
    entry.length = 1;
    CHECK_INT(vial_vm_config_add_fs_entry(config, &entry, &err), -EINVAL);
    CHECK_TEXT(err.field, "fs_entries[0].data");
    entry.data = &byte;
    entry.is_folder = true;
    CHECK_INT(vial_vm_config_add_fs_entry(config, &entry, &err), -EINVAL);
    entry.length = 0;
    entry.one_shot = true;
    CHECK_INT(vial_vm_config_add_fs_entry(config, &entry, &err), -EINVAL);
    CHECK_TEXT(err.field, "fs_entries[0].is_folder");
    entry.one_shot = entry.is_folder = false;
    entry.length = LIMIT_FS_ENTRY_BYTES + (size_t)1; /* the byte is not looked at */
    CHECK_INT(vial_vm_config_add_fs_entry(config, &entry, &err), -E2BIG);
    entry.length = SIZE_MAX;
    CHECK_INT(vial_vm_config_add_fs_entry(config, &entry, &err), -E2BIG);
    entry.length = 1;
    entry.reserved[3] = 1;
    CHECK_INT(vial_vm_config_add_fs_entry(config, &entry, &err), -E2BIG);
    CHECK_INT(config->fs_entry_count, 0);
    CHECK_INT(config->fs_entry_bytes, 0);
    vial_vm_config_free(config);
}

TEST(entries_have_a_bound)
{
    struct vial_vm_config *config = load(folder_root);
    for (int i = 0; i < LIMIT_FS_ENTRIES; i++) {
        char path[16];
        snprintf(path, sizeof(path), "/%d", i);
        CHECK_INT(add(config, NULL, path, "x"), 0);
    }
    CHECK_INT(add(config, NULL, "/more", "x"), -E2BIG);
    CHECK_TEXT(err.field, "fs_entries");
    CHECK_INT(config->fs_entry_bytes, LIMIT_FS_ENTRIES);
    vial_vm_config_free(config);
}

TEST(entries_survive_no_memory)
{
    FOR_EACH_FAULT
    {
        struct vial_vm_config *config = NULL;
        auto_free char *dump = NULL;
        int result = vial_vm_config_load_text(folder_root, sizeof(folder_root) - 1, &config, &err);
        if (result == 0)
            result = add(config, NULL, "/folder", NULL);
        if (result == 0)
            result = add(config, NULL, "/folder/file", "x");
        if (result == 0)
            result = vial_vm_config_dump(config, &dump, &err);
        if ((result < 0) != fault_was_hit())
            test_fail(__FILE__, __LINE__, "%d with a failed allocation: %d", result, fault_was_hit());
        vial_vm_config_free(config);
    }
}

/* ---- what does not go together ---- */

TEST(entries_leave_the_machine_its_folders)
{
    static const struct {
        const char *json, *path, *field, *message;
    } cases[] = {
        {"{\"root\": {\"path\": \"root\"}}", "/proc", "fs_entries[0].path",
         "it is a file, and the guest's kernel needs a folder there"},
        {"{\"root\": \"host\"}", "/dev", "fs_entries[0].path",
         "it is a file, and the guest's kernel needs a folder there"},
        {"{\"root\": {\"path\": \"root\"}, \"mapped_dirs\": [\"data:/a/./b\"]}", "/a", "fs_entries[0].path",
         "it is a file, and mapped_dirs[0] is mounted there"},
        {"{\"root\": {\"path\": \"root\", \"throw_away\": true}, \"tmpfs\": [{\"guest\": \"/t\"}]}", "/t",
         "fs_entries[0].path", "it is a file, and tmpfs[0] is mounted there"},
        {"{\"root\": {\"disk\": \"a\"}, \"kernel\": {\"initramfs\": \"file\"}, \"disks\": [{\"id\": \"a\", \"path\": "
         "\"file\", \"format\": \"raw\"}]}",
         "/x", "fs_entries[0].tag", "a root of disks has no file system of its own with an initramfs"},
    };
    prepare();
    for (size_t i = 0; i < array_length(cases); i++) {
        struct vial_vm_config *config = load(cases[i].json);
        CHECK_INT(add(config, NULL, cases[i].path, "x"), 0);
        check_refused(config, cases[i].field, cases[i].message);
    }
    struct vial_vm_config *config = load(cases[2].json);
    CHECK_INT(add(config, NULL, "/dev", NULL), 0);
    CHECK_INT(add(config, NULL, "/a", NULL), 0);
    CHECK_INT(add(config, "fs1", "/proc", "x"), 0); /* of the mapped folder, where it is a name like any other */
    CHECK_INT(config_validate(config, &host, &err), 0);
    vial_vm_config_free(config);
}

TEST(an_init_can_be_executed)
{
    prepare();
    struct vial_vm_config *config = load(folder_root);
    CHECK_INT(add(config, NULL, "/init.krun", NULL), 0);
    check_refused(config, "fs_entries[0].is_folder", "it is the first process, and cannot be executed");
    config = load("{\"root\": {\"path\": \"root\"}, \"kernel\": {\"init\": \"/my-init\"}}");
    struct vial_fs_entry_options entry = VIAL_FS_ENTRY_OPTIONS_INIT;
    entry.path = "/my-init";
    entry.mode = 0644;
    CHECK_INT(vial_vm_config_add_fs_entry(config, &entry, &err), 0);
    check_refused(config, "fs_entries[0].mode", "it is the first process, and cannot be executed");
    config = load(folder_root);
    CHECK_INT(add(config, NULL, "/init.krun", "#!"), 0);
    CHECK_INT(config_validate(config, &host, &err), 0);
    vial_vm_config_free(config);
}

TEST(what_a_root_without_our_init_cannot_have)
{
#define BARE "\"root\": {\"empty\": true, \"without_init\": true}"
#define NEEDS(what) what " needs the project's init, which the root is to be without"
#define LEAVE "leave without_init out, or let the root's own init do it"
    static const struct refusal refusals[] = {
        {"{\"root\": {\"empty\": true, \"path\": \"root\"}}", VIAL_ERROR_CONFLICT, "root.empty", "true",
         "an empty file system has neither a path nor a backend", "leave out what it is not"},
        {"{\"fs\": [{}]}", VIAL_ERROR_MISSING, "fs[0].path", "", "it is not given", "give the path of a folder"},
        {"{\"fs\": [{\"empty\": true, \"without_init\": true}]}", VIAL_ERROR_UNSUPPORTED, "fs[0].without_init", "true",
         "only a root has an init", "leave it out"},
        {"{\"root\": {\"empty\": true, \"without_init\": true, \"throw_away\": true}}", VIAL_ERROR_CONFLICT,
         "root.without_init", "true", NEEDS("a throw-away layer"), LEAVE},
        {"{" BARE ", \"exec\": {\"path\": \"sh\"}}", VIAL_ERROR_CONFLICT, "root.without_init", "true",
         NEEDS("running a program (exec)"), LEAVE},
        {"{" BARE ", \"tmpfs\": [{\"guest\": \"/t\"}]}", VIAL_ERROR_CONFLICT, "root.without_init", "true",
         NEEDS("mounting folders, disks and memory"), LEAVE},
        {"{" BARE ", \"kernel\": {\"initramfs\": \"file\"}}", VIAL_ERROR_CONFLICT, "root.without_init", "true",
         NEEDS("a root beside an initramfs"), LEAVE},
        {"{" BARE ", \"net\": [{\"kind\": \"unixstream\", \"path\": \"socket\", \"dhcp\": true}]}", VIAL_ERROR_CONFLICT,
         "root.without_init", "true", NEEDS("setting networks up"), LEAVE},
    };
    check_refusals(refusals, array_length(refusals));
}

TEST(right_empty_file_systems_are_accepted)
{
    static const char *const texts[] = {
        "{" BARE "}",
        "{" BARE ", \"kernel\": {\"init\": \"/sbin/init\"}}",
        "{\"root\": {\"path\": \"root\", \"without_init\": true}}",
        "{\"root\": {\"empty\": true, \"throw_away\": true}, \"fs\": [{\"empty\": true}]}",
    };
    check_accepted(texts, array_length(texts));
    struct vial_vm_config *config = load("{" BARE ", \"net\": [{\"kind\": \"passt\"}]}");
    CHECK(!config_asks_init(config) && !config_has_our_init(config) && config->root.read_only);
    CHECK_TEXT(config_init(config), "/init.krun");
    auto_free char *first = NULL, *second = NULL;
    CHECK_INT(vial_vm_config_dump(config, &first, &err), 0);
    struct vial_vm_config *again = load(first);
    CHECK_INT(vial_vm_config_dump(again, &second, &err), 0);
    CHECK_TEXT(second, first);
    vial_vm_config_free(config);
    vial_vm_config_free(again);
}

/* ---- what a machine makes of them ---- */

static struct vial_vm *begin(struct vial_vm_config *config)
{
    static const struct vm_engine engine = {.assemble = NULL};
    struct vial_vm *vm = calloc(1, sizeof(*vm));
    if (vm == NULL)
        abort();
    vm->engine = &engine;
    vm->config = config;
    return vm;
}

static void end(struct vial_vm *vm)
{
    vm_close_devices(vm);
    vial_vm_config_free(vm->config);
    free(vm);
}

/* The mode of what lies at the path ("a/b") in file system `index`, or -errno; its size in *ret_size. */
static int look(const struct vial_vm *vm, size_t index, const char *path, uint64_t *ret_size)
{
    const struct fs_server *server = virtio_device_state(vm->devices[index].device);
    const struct vial_fs_caller caller = {.uid = 0};
    struct vial_fs_entry entry = {.node = VIAL_FS_ROOT_NODE};
    char copy[64], *rest = copy, *name;
    int result = 0;
    snprintf(copy, sizeof(copy), "%s", path);
    while (result == 0 && (name = strsep(&rest, "/")) != NULL)
        result = server->backend.ops.lookup(server->backend.user, &caller, entry.node, name, &entry);
    *ret_size = entry.attributes.size_bytes;
    return result < 0 ? result : (int)entry.attributes.mode;
}

#define CHECK_LOOK(index, path, mode, size)                                                                            \
    do {                                                                                                               \
        uint64_t found_size;                                                                                           \
        CHECK_INT(look(vm, index, path, &found_size), mode);                                                           \
        CHECK_INT(found_size, size);                                                                                   \
    } while (0)

#define CHECK_MISSING(index, path)                                                                                     \
    do {                                                                                                               \
        uint64_t found_size;                                                                                           \
        CHECK_INT(look(vm, index, path, &found_size), -ENOENT);                                                        \
    } while (0)

TEST(entries_stand_over_a_folder_and_over_nothing)
{
    prepare();
    test_text_file("root/etc/passwd", "the host's");
    test_text_file("root/there", "the host's");
    struct vial_vm_config *config = load("{\"root\": {\"path\": \"root\"}, \"fs\": [{\"empty\": true}, {\"path\": "
                                         "\"root\"}], \"mapped_dirs\": [\"root:/mnt\"]}");
    CHECK_INT(add(config, NULL, "/etc", NULL), 0);
    CHECK_INT(add(config, NULL, "/etc/mine", "12"), 0);
    CHECK_INT(add_once(config, "/there"), 0);
    CHECK_INT(add(config, NULL, "/dev", NULL), 0);
    CHECK_INT(add(config, "fs1", "/only", "123"), 0);
    CHECK_INT(add(config, "fs3", "/there", "1"), 0);
    struct vial_vm *vm = begin(config);
    CHECK_INT(vm_add_storage(vm, &err), 0);
    CHECK_LOOK(0, "etc/mine", S_IFREG | 0755, 2);
    CHECK_MISSING(0, "etc/passwd");
    CHECK_LOOK(0, "there", S_IFREG | 0755, 0);
    CHECK_LOOK(0, "there", S_IFREG | 0644, 10); /* below */
    uint64_t size;
    CHECK(S_ISDIR(look(vm, 0, "dev", &size)) && S_ISDIR(look(vm, 0, "proc", &size)) &&
          S_ISDIR(look(vm, 0, "mnt", &size)));
    CHECK(look(vm, 0, "init.krun", &size) == (S_IFREG | 0755) && size > 10000); /* ours */
    CHECK_LOOK(1, "only", S_IFREG | 0755, 3);
    CHECK_MISSING(1, "init.krun");
    CHECK_LOOK(2, "there", S_IFREG | 0644, 10);
    CHECK_LOOK(3, "there", S_IFREG | 0755, 1);
    end(vm);
}

TEST(an_init_of_the_programs_replaces_ours)
{
    static const char *const roots[] = {"{\"root\": \"builtin\"}", "{\"root\": {\"empty\": true}}",
                                        "{\"root\": {\"path\": \"root\"}}", "{\"root\": \"host\"}"};
    prepare();
    for (size_t i = 0; i < array_length(roots); i++) {
        struct vial_vm_config *config = load(roots[i]);
        CHECK_INT(add(config, NULL, "/init.krun", "mine"), 0);
        struct vial_vm *vm = begin(config);
        CHECK_INT(vm_add_storage(vm, &err), 0);
        CHECK_LOOK(0, "init.krun", S_IFREG | 0755, 4);
        end(vm);
    }
    struct vial_vm *vm = begin(load("{\"root\": {\"path\": \"root\", \"without_init\": true}}"));
    CHECK_INT(vm_add_storage(vm, &err), 0);
    CHECK_MISSING(0, "init.krun");
    end(vm);
    test_text_file("root/init.krun", "its own");
    vm = begin(load("{\"root\": {\"path\": \"root\", \"without_init\": true}}"));
    CHECK_INT(vm_add_storage(vm, &err), 0);
    CHECK_LOOK(0, "init.krun", S_IFREG | 0644, 7);
    end(vm);
}

/* What the host's root keeps from a guest stays so when a one-shot file goes that stood in its place. */
TEST(nothing_of_the_host_comes_to_light)
{
    struct vial_vm_config *config = load("{\"root\": {\"host\": true, \"hidden\": [\"/etc/passwd\"]}}");
    CHECK_INT(add_once(config, "/root"), 0);
    CHECK_INT(add_once(config, "/etc"), 0);
    CHECK_INT(add(config, NULL, "/home", NULL), 0);
    CHECK_INT(add(config, NULL, "/home/me", "x"), 0);
    struct vial_vm *vm = begin(config);
    CHECK_INT(vm_add_storage(vm, &err), 0);
    CHECK_LOOK(0, "root", S_IFREG | 0755, 0);
    CHECK_MISSING(0, "root");
    CHECK_LOOK(0, "etc", S_IFREG | 0755, 0);
    CHECK_MISSING(0, "etc");
    CHECK_LOOK(0, "home/me", S_IFREG | 0755, 1);
    end(vm);
}

/* /etc/hosts and /etc/resolv.conf are mounted over: a file of ours is there unless one of the program's is. */
TEST(name_servers_are_shown_in_a_folder_of_the_programs)
{
    static const char json[] = "{\"root\": {\"path\": \"root\"}, \"net\": [{\"kind\": \"passt\"}]}";
    prepare();
    test_text_file("root/etc/resolv.conf", "the host's");
    struct vial_vm_config *config = load(json);
    CHECK_INT(add(config, NULL, "/etc", NULL), 0);
    CHECK_INT(add(config, NULL, "/etc/hosts", "mine"), 0);
    struct vial_vm *vm = begin(config);
    CHECK_INT(vm_add_storage(vm, &err), 0);
    CHECK_LOOK(0, "etc/resolv.conf", S_IFREG | 0644, 0);
    CHECK_LOOK(0, "etc/hosts", S_IFREG | 0755, 4);
    end(vm);
    config = load(json);
    CHECK_INT(add(config, NULL, "/etc", "a file"), 0);
    vm = begin(config);
    CHECK_INT(vm_add_storage(vm, &err), 0);
    CHECK_LOOK(0, "etc", S_IFREG | 0755, 6);
    end(vm);
}

TEST(file_systems_with_entries_survive_no_memory)
{
    prepare();
    FOR_EACH_FAULT
    {
        struct vial_vm_config *config = NULL;
        int result = vial_vm_config_load_text(folder_root, sizeof(folder_root) - 1, &config, &err);
        if (result == 0)
            result = add(config, NULL, "/file", "x");
        struct vial_vm *vm = result == 0 ? calloc(1, sizeof(*vm)) : NULL;
        if (vm == NULL) {
            vial_vm_config_free(config);
            continue;
        }
        static const struct vm_engine engine = {.assemble = NULL};
        vm->engine = &engine;
        vm->config = config;
        result = vm_add_storage(vm, &err);
        if ((result < 0) != fault_was_hit())
            test_fail(__FILE__, __LINE__, "%d with a failed allocation: %d", result, fault_was_hit());
        end(vm);
    }
}
