// SPDX-License-Identifier: Apache-2.0
/* Tests of what a sandbox is: options checked, machines copied, and everything the same after it was written and read
 * back. */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/limits.h"
#include "sandbox/spec_parts.h"
#include "vmm/config.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static struct vial_error err;

static struct home open_home(void)
{
    char path[HOME_PATH_BYTES];
    struct home home = {.fd = -1};
    snprintf(path, sizeof(path), "%s/home", test_folder());
    if (home_open(path, &home, &err) < 0)
        abort();
    return home;
}

static void load(const char *json, struct vial_vm_config **ret_config)
{
    if (vial_vm_config_load_text(json, strlen(json), ret_config, &err) < 0) {
        printf("# %s: %s\n", err.field, err.message);
        abort();
    }
}

/* Bare: a root that needs nothing of the host. */
static struct vial_vm_config *small_config(void)
{
    struct vial_vm_config *config = NULL;
    load("{\"root\": \"builtin\"}", &config);
    return config;
}

/* ---- names ---- */

TEST(names_are_what_a_folder_and_a_shell_take)
{
    static const char *const good[] = {"a", "web", "0", "a.b-c_d", "A9"};
    static const char *const bad[] = {
        "",    ".a",          "-a",  "_a", "a b",
        "a/b", "caf\xc3\xa9", "a\n", "..", "a23456789012345678901234567890123456789012345678901234567890123x"};
    for (size_t i = 0; i < array_length(good); i++)
        CHECK(spec_is_name(good[i]));
    for (size_t i = 0; i < array_length(bad); i++)
        CHECK(!spec_is_name(bad[i]));
}

TEST(a_name_is_made_up_where_there_is_none)
{
    struct vial_sandbox_options options = VIAL_SANDBOX_OPTIONS_INIT;
    struct vial_vm_config *config = small_config();
    struct spec first = {.config = NULL}, second = {.config = NULL};
    options.config = config;
    CHECK_INT(spec_from_options(&options, &first, &err), 0);
    CHECK_INT(spec_from_options(&options, &second, &err), 0);
    CHECK(home_is_id(first.id) && home_is_id(second.id) && strcmp(first.id, second.id) != 0);
    CHECK(spec_is_name(first.name) && first.ephemeral && first.program.args == NULL);
    CHECK_TEXT(first.name + strlen(first.name) - 4, first.id + 8);
    CHECK_TEXT(first.hostname, first.name);
    CHECK_INT(first.stop_grace_ms, 10000);
    spec_free(&first);
    spec_free(&second);
    options.name = "web";
    CHECK_INT(spec_from_options(&options, &first, &err), 0);
    CHECK(!first.ephemeral && strcmp(first.name, "web") == 0 && strcmp(first.hostname, "web") == 0);
    spec_free(&first);
    vial_vm_config_free(config);
}

TEST(made_up_names_are_all_names)
{
    struct vial_sandbox_options options = VIAL_SANDBOX_OPTIONS_INIT;
    struct vial_vm_config *config = small_config();
    options.config = config;
    for (int i = 0; i < 500; i++) {
        struct spec spec = {.config = NULL};
        CHECK_INT(spec_from_options(&options, &spec, &err), 0);
        CHECK(spec_is_name(spec.name) && strchr(spec.name, '-') > spec.name + 2);
        CHECK(strchr(strchr(spec.name, '-') + 1, '-') > strchr(spec.name, '-') + 2);
        spec_free(&spec);
    }
    vial_vm_config_free(config);
}

/* ---- refusals ---- */

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})
#define REFUSED(change, result, name_of_field)                                                                         \
    do {                                                                                                               \
        struct vial_sandbox_options options = VIAL_SANDBOX_OPTIONS_INIT;                                               \
        struct vial_program_options program = VIAL_PROGRAM_OPTIONS_INIT;                                               \
        struct vial_vm_config *config = small_config();                                                                \
        struct spec spec = {.config = NULL};                                                                           \
        program.args = LIST("true");                                                                                   \
        options.program = &program;                                                                                    \
        options.config = config;                                                                                       \
        change;                                                                                                        \
        int refused = spec_from_options(&options, &spec, &err);                                                        \
        vial_vm_config_free(config);                                                                                   \
        CHECK_INT(refused, result);                                                                                    \
        CHECK_TEXT(err.field, name_of_field);                                                                          \
        CHECK(err.message[0] != '\0' && err.remedy[0] != '\0' && spec.config == NULL && spec.hostname == NULL);        \
    } while (0)

TEST(mistakes_are_told_by_field)
{
    static char long_text[LIMIT_EXEC_STRING_BYTES + 2];
    memset(long_text, 'x', sizeof(long_text) - 1);
    REFUSED(options.name = "-a", -EINVAL, "name");
    REFUSED(options.hostname = "a b", -EINVAL, "hostname");
    REFUSED(options.labels = LIST("a=b", "c"), -EINVAL, "labels[1]");
    REFUSED(options.labels = LIST("=b"), -EINVAL, "labels[0]");
    REFUSED(options.labels = LIST("a=b", "a=c"), -EINVAL, "labels[1]");
    REFUSED(options.labels = LIST("a=\xff"), -EINVAL, "labels[0]");
    REFUSED(options.labels = LIST(long_text), -EINVAL, "labels[0]");
    REFUSED(options.scripts = LIST("../x=/etc/passwd"), -EINVAL, "scripts[0]");
    REFUSED(options.scripts = LIST("x"), -EINVAL, "scripts[0]");
    REFUSED(options.scripts = LIST("x=/does/not/exist"), -ENOENT, "scripts[0]");
    REFUSED(options.scripts = LIST("x=/"), -EINVAL, "scripts[0]");
    REFUSED(options.scripts = LIST("x=/etc/passwd", "x=/etc/group"), -EEXIST, "scripts[1]");
    REFUSED(program.args = NULL, -EINVAL, "program.args[0]");
    REFUSED(program.args = LIST(""), -EINVAL, "program.args[0]");
    REFUSED(program.args = LIST("a", long_text), -E2BIG, "program.args[1]");
    REFUSED(program.env = LIST("A=1", "B"), -EINVAL, "program.env[1]");
    REFUSED(program.env = LIST("=1"), -EINVAL, "program.env[0]");
    REFUSED(program.rlimits = LIST("NOFILE=1:2", "NOFILE=2:1"), -ERANGE, "program.rlimits[1]");
    REFUSED(program.workdir = "here", -EINVAL, "program.workdir");
    REFUSED(program.user = "", -EINVAL, "program.user");
    REFUSED(program.user = ":wheel", -EINVAL, "program.user");
    REFUSED(program.user = "me:", -EINVAL, "program.user");
    REFUSED(program.user = "me:you:them", -EINVAL, "program.user");
    REFUSED(options.size = 3, -EINVAL, "");
}

TEST(what_is_of_this_process_is_refused)
{
    struct vial_serial_options serial = VIAL_SERIAL_OPTIONS_INIT;
    serial.output_fd = 2;
    REFUSED(vial_vm_config_add_serial(config, &serial, &err), -ENOTSUP, "machine.console");
    REFUSED(vial_vm_config_add_exit_observer(config, (vial_exit_observer)abort, NULL, &err), -ENOTSUP, "machine");
    struct vial_fs_entry_options entry = VIAL_FS_ENTRY_OPTIONS_INIT;
    entry.path = "/x";
    REFUSED(vial_vm_config_add_fs_entry(config, &entry, &err), -ENOTSUP, "machine.fs_entries");
    struct vial_tmpfs_options tmpfs = VIAL_TMPFS_OPTIONS_INIT;
    tmpfs.guest = "/caf\xe9";
    REFUSED(vial_vm_config_add_tmpfs(config, &tmpfs, &err), -EINVAL, "machine");
}

TEST(networks_of_this_process_are_refused)
{
    static const char *const latin[] = {"caf\xe9", NULL};
    struct vial_vsock_ops ops = VIAL_VSOCK_OPS_INIT;
    struct vial_vsock_port_options port = VIAL_VSOCK_PORT_OPTIONS_INIT;
    struct vial_net_options net = VIAL_NET_OPTIONS_INIT;
    port.port = 1;
    port.ops = &ops;
    REFUSED(vial_vm_config_add_vsock_port(config, &port, &err), -ENOTSUP, "machine");
    net.kind = VIAL_NET_UNIXSTREAM;
    net.fd = STDIN_FILENO;
    REFUSED(vial_vm_config_add_net(config, &net, &err), -ENOTSUP, "machine.net");
    const char *const **lists[] = {&net.addresses, &net.gateways, &net.nameservers, &net.published};
    net.kind = VIAL_NET_PASST;
    net.fd = -1;
    for (size_t i = 0; i < array_length(lists); i++) {
        *lists[i] = latin;
        REFUSED(vial_vm_config_add_net(config, &net, &err), -EINVAL, "machine");
        CHECK_TEXT(err.message, "\"caf\\xe9\" is not UTF-8");
        *lists[i] = NULL;
    }
}

/* ---- machines ---- */

/* Everything that a sandbox's machine may say. Nothing is validated here, so nothing has to exist. */
static const char everything[] =
    "{\"machine\": {\"vcpus\": 3, \"memory_mib\": 777, \"hyperthreading\": true, \"nested_virtualization\": true,"
    "  \"split_irqchip\": true, \"huge_pages\": true, \"vsock\": true, \"balloon\": false,"
    "  \"balloon_stats_interval_ms\": 250, \"rng\": false, \"metrics\": true, \"inet_hijack\": true, \"acpi\": \"on\","
    "  \"engine\": \"uml\", \"insecure_no_jail\": true},"
    " \"log_level\": \"debug\","
    " \"kernel\": {\"path\": \"/k/vmlinux\", \"format\": \"elf\", \"initramfs\": \"/k/initrd\", \"cmdline\": \"quiet "
    "a=b\","
    "  \"init\": \"/sbin/init\"},"
    " \"root\": @,"
    " \"fs\": [{\"tag\": \"t\", \"path\": \"/srv\", \"dax_window_mib\": 64, \"read_only\": true, \"cache\": \"none\","
    "  \"xattrs\": \"all\", \"owner\": {\"uid\": 5, \"gid\": 6}, \"only_public\": true, \"one_device\": true,"
    "  \"throw_away\": false}],"
    " \"mapped_dirs\": [{\"host\": \"/data\", \"guest\": \"/mnt/data\", \"read_only\": true}, \"/x:/y\"],"
    " \"mounts\": [{\"disk\": \"base\", \"guest\": \"/base\", \"fstype\": \"ext4\", \"options\": \"noatime\","
    "  \"read_only\": true}],"
    " \"tmpfs\": [{\"guest\": \"/scratch\", \"size_mib\": 12, \"mode\": \"0750\"}],"
    " \"disks\": [{\"id\": \"base\", \"path\": \"/d/base.qcow2\", \"format\": \"qcow2\", \"read_only\": true,"
    "  \"cache\": \"unsafe\", \"direct_io\": true, \"sync\": \"relaxed\", \"queues\": 2,"
    "  \"backing\": [{\"path\": \"/d/lower.raw\", \"format\": \"raw\"}, {\"path\": \"mid.vmdk\", \"format\": "
    "\"vmdk\"}],"
    "  \"limits\": {\"bytes_per_second\": 1000000, \"burst_bytes\": 2000000, \"operations_per_second\": 300,"
    "  \"burst_operations\": 400}}, {\"id\": \"upper\", \"path\": \"/d/upper.raw\", \"format\": \"raw\"}],"
    " \"net\": [{\"kind\": \"unixgram\", \"path\": \"/run/net.sock\", \"mac\": \"52:54:00:12:34:56\", \"vfkit\": true,"
    "  \"features\": [\"csum\", \"host-ufo\"]}, {\"kind\": \"tap\", \"path\": \"tap0\", \"dhcp\": true,"
    "  \"queue_pairs\": 4}, {\"kind\": \"passt\", \"mtu\": 1400, \"addresses\": [\"10.9.0.2/16\"],"
    "  \"gateways\": [\"10.9.0.1\"], \"nameservers\": [\"9.9.9.9\"], \"published\": [\"8080:80\", \"53/udp\"],"
    "  \"reaches_host\": true, \"limits\": {\"to_guest\": {\"bytes_per_second\": 5}}}],"
    " \"port_map\": [\"8080:80\", \"443\"],"
    " \"tsi\": {\"assigned_ip\": \"10.0.0.2\", \"local_only\": true},"
    " \"vsock_ports\": [{\"port\": 5000, \"path\": \"/run/v.sock\", \"listen\": true}],"
    " \"console\": {\"output\": \"/log/console\", \"implicit\": false, \"sound\": true,"
    "  \"gpu\": {\"virgl_flags\": 3, \"shared_memory_mib\": 64}}}";

static const char *const roots[] = {
    "{\"path\": \"/srv/root\", \"read_only\": true, \"cache\": \"always\", \"throw_away\": true}",
    "{\"disk\": \"base\", \"fstype\": \"ext4\", \"options\": \"noatime\", \"read_only\": true}",
    "{\"layers\": [\"base\", \"/dev/vdb\"], \"fstype\": \"erofs\", \"upper\": \"upper\", \"upper_fstype\": \"ext4\"}",
    "{\"layers\": [\"base\"]}",
    "{\"builtin\": true}",
    "{\"host\": true, \"hidden\": [\"/etc/shadow\", \"/var\"], \"dax_window_mib\": 128}",
};

static void with_root(const char *root, char *text, size_t size)
{
    const char *at = strchr(everything, '@');
    snprintf(text, size, "%.*s%s%s", (int)(at - everything), everything, root, at + 1);
}

TEST(a_machine_of_everything_survives_being_written_down)
{
    for (size_t i = 0; i < array_length(roots); i++) {
        char text[8192];
        struct vial_vm_config *config = NULL, *copy = NULL, *again = NULL;
        auto_free char *first = NULL, *second = NULL, *third = NULL;
        with_root(roots[i], text, sizeof(text));
        load(text, &config);
        CHECK_INT(vial_vm_config_dump(config, &first, &err), 0);
        load(first, &again);
        CHECK_INT(vial_vm_config_dump(again, &second, &err), 0);
        CHECK_TEXT(second, first);
        CHECK_INT(spec_copy_machine(config, &copy, &err), 0);
        CHECK_INT(vial_vm_config_dump(copy, &third, &err), 0);
        CHECK_TEXT(third, first);
        /* What the dump cannot hold would be lost in both: some members of the struct itself. */
        CHECK_INT(copy->root_kind, config->root_kind);
        CHECK(copy->machine.insecure_no_jail && copy->disks[0].backing_count == 2 && copy->local_only);
        CHECK_INT(memcmp(&copy->machine, &config->machine, sizeof(copy->machine)), 0);
        CHECK_INT(copy->root_hidden.count, config->root_hidden.count);
        CHECK_INT(copy->log_level, config->log_level);
        vial_vm_config_free(config);
        vial_vm_config_free(copy);
        vial_vm_config_free(again);
    }
}

TEST(paths_become_absolute)
{
    static const char relative[] =
        "{\"kernel\": {\"path\": \"k\", \"initramfs\": \"i\"}, \"root\": {\"path\": \"root\"},"
        " \"mapped_dirs\": [\".:/here\"], \"disks\": [{\"id\": \"d\", \"path\": \"a/top\", \"format\": \"qcow2\","
        " \"backing\": [{\"path\": \"a/base\", \"format\": \"raw\"}, {\"path\": \"gone\", \"format\": \"raw\"}]}],"
        " \"net\": [{\"kind\": \"tap\", \"path\": \"tap0\"}, {\"kind\": \"unixgram\", \"path\": \"s\"}]}";
    struct vial_vm_config *config = NULL, *copy = NULL;
    auto_close int before = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    char expected[4096], folder[4096];
    test_text_file("a/base", "");
    load(relative, &config);
    CHECK_INT(chdir(test_folder()), 0);
    CHECK(getcwd(folder, sizeof(folder)) != NULL);
    int result = spec_copy_machine(config, &copy, &err);
    CHECK_INT(fchdir(before), 0);
    CHECK_INT(result, 0);
#define ABSOLUTE(member, rest)                                                                                         \
    do {                                                                                                               \
        snprintf(expected, sizeof(expected), "%.3000s/%s", folder, rest);                                              \
        CHECK_TEXT(copy->member, expected);                                                                            \
    } while (0)
    ABSOLUTE(kernel.path, "k");
    ABSOLUTE(kernel.initramfs, "i");
    ABSOLUTE(root.path, "root");
    ABSOLUTE(mapped_dirs[0].host, ".");
    ABSOLUTE(disks[0].path, "a/top");
    ABSOLUTE(net[1].path, "s");
    CHECK_TEXT(copy->net[0].path, "tap0");
    CHECK_TEXT(copy->mapped_dirs[0].guest, "/here");
    CHECK_INT(copy->disks[0].backing_count, 3); /* as images name them, and where that leads to from here */
    CHECK_TEXT(copy->disks[0].backing[0].path, "a/base");
    CHECK_TEXT(copy->disks[0].backing[1].path, "gone");
    ABSOLUTE(disks[0].backing[2].path, "a/base");
    CHECK_TEXT(config->disks[0].path, "a/top");
    vial_vm_config_free(config);
    vial_vm_config_free(copy);
}

TEST(without_a_root_there_is_the_hosts_and_exec_is_left_out)
{
    struct vial_vm_config *config = NULL, *copy = NULL;
    CHECK_INT(spec_copy_machine(NULL, &copy, &err), 0);
    CHECK_INT(copy->root_kind, ROOT_HOST);
    vial_vm_config_free(copy);
    load("{\"exec\": {\"path\": \"/bin/sh\", \"args\": [\"a\"], \"rlimits\": [\"NOFILE=1:2\"]}}", &config);
    CHECK_INT(spec_copy_machine(config, &copy, &err), 0);
    CHECK_INT(copy->root_kind, ROOT_HOST);
    CHECK(copy->exec_path == NULL && copy->exec_args.count == 0 && copy->rlimit_count == 0);
    vial_vm_config_free(config);
    vial_vm_config_free(copy);
}

/* ---- the file ---- */

static bool is_same_list(char *const *a, char *const *b)
{
    size_t i = 0;
    if (a == NULL || b == NULL)
        return a == b;
    for (; a[i] != NULL && b[i] != NULL; i++)
        if (strcmp(a[i], b[i]) != 0)
            return false;
    return a[i] == b[i];
}

static bool is_same_program(const struct spec_program *a, const struct spec_program *b)
{
    return is_same_list(a->args, b->args) && is_same_list(a->env, b->env) && is_same_list(a->rlimits, b->rlimits) &&
           strcmp(a->workdir, b->workdir) == 0 && strcmp(a->user, b->user) == 0 && a->rows == b->rows &&
           a->columns == b->columns && a->terminal == b->terminal && a->input == b->input;
}

/* All bytes but NUL, and more than a message of any kind. */
static void fill_options(struct vial_sandbox_options *options, struct vial_program_options *program)
{
    static char bytes[300], large[100 << 10];
    static const char *args[] = {"/bin/echo", bytes, "", "caf\xc3\xa9\n", large, "{\"hex\": \"00\"}", NULL};
    static const char *const env[] = {"A=1=2\n3", "B=", "\xff=\xfe", NULL}, *const rlimits[] = {"NOFILE=1:2", NULL};
    static const char *const labels[] = {"tier=web", "note=a \"b\"", NULL};
    static const char *scripts[] = {NULL, NULL};
    for (size_t i = 0; i + 1 < sizeof(bytes); i++)
        bytes[i] = (char)(1 + i % 255);
    memset(large, 'y', sizeof(large) - 1);
    static char script[4096];
    snprintf(script, sizeof(script), "hello=%.3000s", test_text_file("hello.sh", "#!/bin/sh\necho hello\n"));
    scripts[0] = script;
    program->args = args;
    program->env = env;
    program->rlimits = rlimits;
    program->workdir = "/w\xf0rk";
    program->user = "me:us";
    program->rows = 50;
    program->columns = 132;
    program->terminal = program->input = true;
    options->name = "web";
    options->labels = labels;
    options->scripts = scripts;
    options->program = program;
    options->hostname = "box";
    options->idle_timeout_ms = 1000;
    options->max_duration_ms = UINT64_MAX;
    options->stop_grace_ms = 0;
    options->ephemeral = true;
}

TEST(what_is_read_is_what_was_written)
{
    struct vial_sandbox_options options = VIAL_SANDBOX_OPTIONS_INIT;
    struct vial_program_options program = VIAL_PROGRAM_OPTIONS_INIT;
    struct vial_vm_config *config = small_config();
    struct spec spec = {.config = NULL}, read = {.config = NULL};
    struct home home = open_home();
    auto_free char *before = NULL, *after = NULL;
    fill_options(&options, &program);
    options.config = config;
    CHECK_INT(spec_from_options(&options, &spec, &err), 0);
    auto_close int folder = home_sandbox_make(&home, spec.id);
    CHECK_INT(spec_write(&spec, &options, folder, &err), 0);
    CHECK_INT(spec_read(folder, &read, &err), 0);
    CHECK(is_same_program(&read.program, &spec.program));
    CHECK_TEXT(read.program.args[1], program.args[1]);
    CHECK(is_same_list(read.labels, spec.labels) && is_same_list(read.scripts, spec.scripts));
    CHECK_TEXT(read.scripts[0], "hello");
    CHECK_TEXT(read.id, spec.id);
    CHECK_TEXT(read.name, "web");
    CHECK_TEXT(read.hostname, "box");
    CHECK(read.ephemeral && read.idle_timeout_ms == 1000 && read.stop_grace_ms == 0);
    CHECK(read.max_duration_ms == INT64_MAX);
    CHECK_INT(vial_vm_config_dump(spec.config, &before, &err), 0);
    CHECK_INT(vial_vm_config_dump(read.config, &after, &err), 0);
    CHECK_TEXT(after, before);
    struct stat status;
    CHECK_INT(fstatat(folder, "scripts/hello", &status, 0), 0);
    CHECK(status.st_mode == (S_IFREG | 0700) && status.st_size == 21);
    CHECK_INT(fstatat(folder, "spec.json", &status, 0), 0);
    CHECK_INT(status.st_mode & 07777, 0600);
    CHECK_INT(fstatat(folder, "spec.json.new", &status, 0), -1);
    spec_free(&spec);
    spec_free(&read);
    vial_vm_config_free(config);
    home_close(&home);
}

static int read_text(const char *text, struct spec *ret_spec)
{
    auto_close int folder = open(test_folder(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    test_text_file("spec.json", text);
    return spec_read(folder, ret_spec, &err);
}

#define HEAD "{\"id\": \"0123456789ab\", \"name\": \"web\", \"hostname\": \"web\", \"machine\": {}"

TEST(a_damaged_file_is_refused)
{
    static const char *const texts[] = {
        "",
        "[]",
        "{",
        "{}",
        "{\"id\": \"../../../etc\", \"name\": \"web\", \"hostname\": \"web\", \"machine\": {}}",
        "{\"id\": \"0123456789ab\", \"name\": \"a/b\", \"hostname\": \"web\", \"machine\": {}}",
        "{\"id\": \"0123456789ab\", \"name\": \"web\", \"hostname\": \"web\"}",
        HEAD ", \"more\": 1}",
        HEAD ", \"program\": {}}",
        HEAD ", \"program\": {\"args\": [1]}}",
        HEAD ", \"program\": {\"args\": [{\"hex\": \"0\"}]}}",
        HEAD ", \"program\": {\"args\": [{\"hex\": \"0g\"}]}}",
        HEAD ", \"program\": {\"args\": [{\"hex\": \"4100\"}]}}",
        HEAD ", \"program\": {\"args\": [{\"hax\": \"41\"}]}}",
        HEAD ", \"program\": {\"args\": [{}]}}",
        HEAD ", \"program\": {\"args\": [\"a\\u0000b\"]}}",
        HEAD ", \"program\": {\"args\": [\"a\"], \"rows\": 70000}}",
        HEAD ", \"labels\": {}}",
        HEAD ", \"machine\": {\"what\": 1}}",
    };
    struct spec spec = {.config = NULL};
    for (size_t i = 0; i < array_length(texts); i++) {
        err = (struct vial_error){0};
        CHECK(read_text(texts[i], &spec) < 0);
        CHECK(err.message[0] != '\0' && err.remedy[0] != '\0' && spec.config == NULL);
    }
    CHECK_INT(read_text(HEAD ", \"program\": {\"args\": [{\"hex\": \"41ff\"}]}}", &spec), 0);
    CHECK_TEXT(spec.program.args[0], "A\xff");
    spec_free(&spec);
    CHECK_INT(read_text(HEAD ", \"program\": null}", &spec), 0);
    CHECK(spec.program.args == NULL);
    spec_free(&spec);
}

TEST(specs_survive_no_memory)
{
    struct home home = open_home();
    struct vial_vm_config *config = small_config();
    FOR_EACH_FAULT
    {
        struct vial_sandbox_options options = VIAL_SANDBOX_OPTIONS_INIT;
        struct vial_program_options program = VIAL_PROGRAM_OPTIONS_INIT;
        static const char *const args[] = {"a", "\xff", NULL}, *const labels[] = {"a=b", NULL};
        struct spec spec = {.config = NULL}, read = {.config = NULL};
        program.args = args;
        program.env = labels;
        options.program = &program;
        options.config = config;
        options.labels = labels;
        int result = spec_from_options(&options, &spec, &err);
        if (result == 0 && fault_was_hit()) { /* the host's capacity: what cannot be read is not compared with */
            spec_free(&spec);
            continue;
        }
        auto_close int folder = result == 0 ? home_sandbox_make(&home, spec.id) : -1;
        if (result == 0)
            result = spec_write(&spec, &options, folder, &err);
        if (result == 0)
            result = spec_read(folder, &read, &err);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        spec_free(&spec);
        spec_free(&read);
    }
    vial_vm_config_free(config);
    home_close(&home);
}

/* ---- for people ---- */

TEST(commands_are_shown_as_a_shell_wants_them)
{
    static char shell[] = "/bin/sh", option[] = "-c", script[] = "echo 'a b'", empty[] = "", tab[] = "tab\there",
                plain[] = "a=b";
    static char *args[] = {shell, option, script, empty, tab, plain, NULL};
    struct spec spec = {.program.args = args};
    char text[256], little[12];
    spec_command_text(&spec, text, sizeof(text));
    CHECK_TEXT(text, "/bin/sh -c 'echo '\\''a b'\\''' '' 'tab\\x09here' a=b");
    spec_command_text(&spec, little, sizeof(little));
    CHECK(strlen(little) < sizeof(little) && strstr(little, "...") != NULL);
    spec.program.args = NULL;
    spec_command_text(&spec, text, sizeof(text));
    CHECK_TEXT(text, "");
}
