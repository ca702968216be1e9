// SPDX-License-Identifier: Apache-2.0
/* A guest that finds the entries of its root, on user-mode Linux: an init that is none of ours, in a root that is
 * nothing else or a folder of the host, and programs of the project's init. What it looks at is in entries_guest.c. */
#include "test.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/fd.h"
#include "vial/vmm.h"

#include <fcntl.h>
#include <unistd.h>

enum { seen_all = 0x4d, tool_code = 42, limit_ms = 120000 };

static struct vial_error err;

static struct vial_vm_config *new_config(const char *root)
{
    struct vial_machine_options machine = VIAL_MACHINE_OPTIONS_INIT;
    struct vial_console_options console = VIAL_CONSOLE_OPTIONS_INIT;
    struct vial_vm_config *config = NULL;
    char output[512];
    machine.engine = VIAL_ENGINE_UML;
    machine.memory_mib = 128;
    machine.insecure_no_jail = getenv("VIAL_TEST_NO_JAIL") != NULL;
    snprintf(output, sizeof(output), "%s/console", test_folder());
    console.output = output;
    console.implicit = false;
    if (vial_vm_config_load_text(root, strlen(root), &config, &err) < 0 ||
        vial_vm_config_set_machine(config, &machine, &err) < 0 ||
        vial_vm_config_set_console(config, &console, &err) < 0)
        abort();
    return config;
}

static bool add(struct vial_vm_config *config, const char *path, const void *data, size_t length, uint32_t mode)
{
    struct vial_fs_entry_options entry = VIAL_FS_ENTRY_OPTIONS_INIT;
    entry.path = path;
    entry.data = data;
    entry.length = length;
    entry.mode = mode;
    entry.is_folder = data == NULL;
    entry.one_shot = strcmp(path, "/once") == 0 || strcmp(path, "/my-init") == 0;
    return vial_vm_config_add_fs_entry(config, &entry, &err) == 0;
}

static bool add_text(struct vial_vm_config *config, const char *path, const char *text, uint32_t mode)
{
    return add(config, path, text, strlen(text), mode);
}

/* What all guests find, their program among it. */
static bool add_all(struct vial_vm_config *config, const char *init)
{
    auto_buffer struct buffer program = BUFFER_INIT(16 << 20);
    auto_close int fd = open(ENTRIES_GUEST, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && fd_read_all(fd, &program) == 0 && add(config, "/bin", NULL, 0, 0711) &&
           add(config, "/bin/tool", program.data, program.length, 0755) &&
           (init == NULL || add(config, init, program.data, program.length, 0755)) &&
           add(config, "/etc", NULL, 0, 0755) && add_text(config, "/etc/config", "a configuration\n", 0640) &&
           add_text(config, "/once", "a secret", 0600) && add(config, "/newroot", NULL, 0, 0755);
}

/* Runs the machine to its end, and frees it: its exit code, or -1. What its console said comes with a failure. */
static int run(struct vial_vm_config *config, int wanted)
{
    struct vial_exit end = VIAL_EXIT_INIT;
    struct vial_vm *vm = NULL;
    auto_buffer struct buffer said = BUFFER_INIT(1 << 20);
    char path[512];
    memset(&err, 0, sizeof(err));
    bool is_good = vial_vm_start(config, &vm, &err) == 0 && vial_vm_wait(vm, limit_ms, &end, &err) == 0;
    vial_vm_free(vm);
    vial_vm_config_free(config);
    if (is_good && end.code == wanted)
        return end.code;
    snprintf(path, sizeof(path), "%s/console", test_folder());
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && fd_read_all(fd, &said) == 0)
        printf("# the console: %.*s\n", (int)said.length, said.data);
    printf("# %s: %s; %s %d, %s\n", err.field, err.message, vial_exit_reason_name(end.reason), end.code, end.detail);
    return is_good ? end.code : -1;
}

TEST(a_root_of_nothing_but_entries)
{
    struct vial_vm_config *config = new_config("{\"root\": {\"empty\": true, \"without_init\": true}}");
    CHECK(add_all(config, "/init.krun") && add_text(config, "/mode", "empty", 0644));
    CHECK_INT(run(config, seen_all), seen_all);
}

TEST(a_folder_with_entries_over_it)
{
    test_text_file("root/shown", "the host's");
    test_text_file("root/once", "the host's, too");
    test_text_file("root/etc/config", "not for the guest");
    test_text_file("root/bin/other", "not for the guest");
    if (chdir(test_folder()) < 0)
        abort();
    struct vial_vm_config *config = new_config(
        "{\"root\": {\"path\": \"root\", \"without_init\": true}, \"kernel\": {\"init\": \"/my-init\"},"
        " \"fs\": [{\"tag\": \"mine\", \"empty\": true}]}");
    struct vial_fs_entry_options only = VIAL_FS_ENTRY_OPTIONS_INIT;
    only.tag = "mine";
    only.path = "/only";
    only.data = "in an empty one";
    only.length = strlen(only.data);
    CHECK_INT(vial_vm_config_add_fs_entry(config, &only, &err), 0);
    CHECK(add_all(config, "/my-init") && add_text(config, "/mode", "folder", 0644));
    CHECK_INT(run(config, seen_all), seen_all);
    static const char *const there[] = {"root/shown", "root/etc/config", "root/bin/other", "root/written"};
    static const char *const missing[] = {"root/once", "root/bin/tool", "root/my-init", "root/init.krun",
                                          "root/mode", "root/newroot",  "root/dev",     "root/mnt"};
    for (size_t i = 0; i < array_length(there); i++)
        CHECK_INT(access(there[i], F_OK), 0);
    for (size_t i = 0; i < array_length(missing); i++) /* and nothing of the entries is on the host */
        CHECK_INT(access(missing[i], F_OK), -1);
}

/* With the project's own init beside them, which runs one of them. */
TEST(a_program_that_is_an_entry)
{
    static const char *const roots[] = {"{\"root\": {\"empty\": true}}",
                                        "{\"root\": {\"empty\": true, \"throw_away\": true}}"};
    static const char *const layer[] = {"layer", NULL};
    for (size_t i = 0; i < array_length(roots); i++) {
        struct vial_exec_options exec = VIAL_EXEC_OPTIONS_INIT;
        struct vial_vm_config *config = new_config(roots[i]);
        exec.path = "/bin/tool";
        exec.args = i == 0 ? NULL : layer;
        CHECK(add_all(config, NULL));
        CHECK_INT(vial_vm_config_set_exec(config, &exec, &err), 0);
        CHECK_INT(run(config, tool_code), tool_code);
    }
}
