// SPDX-License-Identifier: Apache-2.0
/* Tests of vmm/config, config_json and config_dump: building, sized structs, ownership, reading back. */
#include "test.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "vmm/config.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <sys/eventfd.h>
#include <unistd.h>

static struct vial_error err;

static struct vial_vm_config *config_new(void)
{
    struct vial_vm_config *config = NULL;
    if (vial_vm_config_new(&config, &err) < 0)
        abort();
    return config;
}

TEST(defaults)
{
    struct vial_vm_config *config = config_new();
    const struct machine_config *machine = &config->machine;
    CHECK_INT(machine->vcpus, 1);
    CHECK_INT(machine->memory_mib, 512);
    CHECK_INT(machine->balloon_stats_interval_ms, 1000);
    CHECK(machine->balloon && machine->rng && machine->metrics && config->has_implicit_console);
    CHECK(!machine->hyperthreading && !machine->nested_virtualization && !machine->split_irqchip && !machine->vsock);
    CHECK(!machine->inet_hijack && config->root_kind == ROOT_NONE && config->log_level == -1);
    CHECK_INT(machine->acpi, VIAL_ACPI_AUTO);
    vial_vm_config_free(config);
    CHECK(vial_vm_config_free(NULL) == NULL);
}

TEST(init_macros_put_each_default_into_its_member)
{
    struct vial_machine_options machine = VIAL_MACHINE_OPTIONS_INIT;
    struct vial_disk_options disk = VIAL_DISK_OPTIONS_INIT;
    struct vial_net_options net = VIAL_NET_OPTIONS_INIT;
    struct vial_console_port_options port = VIAL_CONSOLE_PORT_OPTIONS_INIT;
    struct vial_console_options console = VIAL_CONSOLE_OPTIONS_INIT;
    CHECK(machine.size == sizeof(machine) && machine.vcpus == 1 && machine.memory_mib == 512);
    CHECK(machine.balloon && machine.rng && machine.metrics && !machine.vsock && !machine.inet_hijack);
    CHECK(machine.acpi == VIAL_ACPI_AUTO && offsetof(struct vial_machine_options, acpi) == 33);
    CHECK(disk.format == VIAL_DISK_UNSET && disk.sync == VIAL_DISK_SYNC_FULL && disk.cache == VIAL_DISK_WRITEBACK);
    CHECK(net.fd == -1 && !net.has_mac && net.kind == 0);
    CHECK(port.input_fd == -1 && port.output_fd == -1 && port.tty_fd == -1);
    CHECK(console.implicit && console.output == NULL);
}

TEST(structs_of_other_versions)
{
    struct vial_vm_config *config = config_new();
    struct {
        struct vial_machine_options machine;
        uint64_t added_later;
    } newer = {.machine = VIAL_MACHINE_OPTIONS_INIT};
    newer.machine.size = sizeof(newer);
    newer.machine.vcpus = 3;
    CHECK_INT(vial_vm_config_set_machine(config, &newer.machine, &err), 0); /* the new member is not used */
    CHECK_INT(config->machine.vcpus, 3);
    newer.added_later = 1;
    CHECK_INT(vial_vm_config_set_machine(config, &newer.machine, &err), -E2BIG);
    CHECK_INT(err.code, VIAL_ERROR_TOO_BIG);
    struct vial_machine_options older = VIAL_MACHINE_OPTIONS_INIT;
    older.size = offsetof(struct vial_machine_options, vcpus);
    older.memory_mib = 99;
    older.vcpus = 77; /* behind what the older header knows */
    CHECK_INT(vial_vm_config_set_machine(config, &older, &err), 0);
    CHECK_INT(config->machine.memory_mib, 99);
    CHECK_INT(config->machine.vcpus, 1);
    older.size = 9; /* in the middle of a member */
    CHECK_INT(vial_vm_config_set_machine(config, &older, &err), -EINVAL);
    older.size = SIZE_MAX; /* never initialised */
    CHECK_INT(vial_vm_config_set_machine(config, &older, &err), -EINVAL);
    struct vial_machine_options later = VIAL_MACHINE_OPTIONS_INIT;
    later.reserved[3] = 1; /* a member of a newer header, in bytes that this one has */
    CHECK_INT(vial_vm_config_set_machine(config, &later, &err), -E2BIG);
    older.size = 0;
    CHECK_INT(vial_vm_config_set_machine(config, &older, &err), -EINVAL);
    CHECK_INT(vial_vm_config_set_machine(config, NULL, &err), -EINVAL);
    CHECK_INT(config->machine.memory_mib, 99);
    vial_vm_config_free(config);
}

/* Of any version of the header, and given again: the last one's stay. */
TEST(a_program_has_streams_of_its_own)
{
    struct vial_vm_config *config = config_new();
    struct vial_exec_options exec = VIAL_EXEC_OPTIONS_INIT;
    int ends[2];
    CHECK(exec.stdin_fd == -1 && exec.stdout_fd == -1 && exec.stderr_fd == -1 && !exec.has_streams);
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    exec.path = "sh";
    exec.stdin_fd = 1000000; /* not looked at */
    CHECK_INT(vial_vm_config_set_exec(config, &exec, &err), 0);
    CHECK(!config->has_exec_streams && config->exec_streams[0] == -1 && config->exec_streams[2] == -1);
    exec.has_streams = true;
    exec.stderr_fd = ends[1];
    CHECK_INT(vial_vm_config_set_exec(config, &exec, &err), -EINVAL);
    CHECK_TEXT(err.field, "exec.stdin_fd");
    CHECK(!config->has_exec_streams);
    exec.stdin_fd = ends[0];
    for (int i = 0; i < 2; i++) {
        CHECK_INT(vial_vm_config_set_exec(config, &exec, &err), 0);
        CHECK(config->has_exec_streams && config->exec_streams[0] > ends[1] && config->exec_streams[1] == -1);
        CHECK(config->exec_streams[2] > ends[1] && fd_is_writable(config->exec_streams[2]));
    }
    exec.stdout_fd = 1000000; /* the one before it is not left open */
    CHECK_INT(vial_vm_config_set_exec(config, &exec, &err), -EINVAL);
    CHECK_TEXT(err.field, "exec.stdout_fd");
    exec.size = offsetof(struct vial_exec_options, stdin_fd); /* an older header's */
    exec.has_streams = false;
    CHECK_INT(vial_vm_config_set_exec(config, &exec, &err), 0);
    CHECK(!config->has_exec_streams && config->exec_streams[0] == -1 && config->exec_streams[2] == -1);
    exec = (struct vial_exec_options)VIAL_EXEC_OPTIONS_INIT;
    exec.reserved_end[3] = 1;
    CHECK_INT(vial_vm_config_set_exec(config, &exec, &err), -E2BIG);
    vial_vm_config_free(config);
    CHECK(close(ends[0]) == 0 && close(ends[1]) == 0);
}

TEST(names_are_given_in_order)
{
    struct vial_vm_config *config = config_new();
    struct vial_fs_options fs = VIAL_FS_OPTIONS_INIT;
    struct vial_disk_options disk = VIAL_DISK_OPTIONS_INIT;
    CHECK_INT(vial_vm_config_set_root(config, &fs, &err), 0);
    CHECK_INT(vial_vm_config_add_fs(config, &fs, &err), 0);
    CHECK_INT(vial_vm_config_add_mapped_dir_text(config, "/a:/b:ro", &err), 0);
    fs.tag = "data";
    CHECK_INT(vial_vm_config_add_fs(config, &fs, &err), 0);
    CHECK_TEXT(config->root.tag, "/dev/root");
    CHECK_TEXT(config->fs[0].tag, "fs1");
    CHECK_TEXT(config->mapped_dirs[0].tag, "fs2");
    CHECK(config->mapped_dirs[0].read_only);
    CHECK_TEXT(config->fs[1].tag, "data");
    CHECK_INT(vial_vm_config_set_root(config, &fs, &err), -EEXIST);
    for (int i = 0; i < 27; i++)
        CHECK_INT(vial_vm_config_add_disk(config, &disk, &err), 0);
    CHECK_TEXT(config->disks[0].id, "vda");
    CHECK_TEXT(config->disks[26].id, "vdaa");
    vial_vm_config_free(config);
}

TEST(random_macs_are_local_unicast_and_differ)
{
    struct vial_vm_config *config = config_new();
    struct vial_net_options net = VIAL_NET_OPTIONS_INIT;
    for (int i = 0; i < 20; i++)
        CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    for (size_t i = 0; i < 20; i++) {
        CHECK_INT(config->net[i].mac[0] & 3, 2);
        CHECK(i == 0 || memcmp(config->net[i].mac, config->net[i - 1].mac, 6) != 0);
    }
    vial_vm_config_free(config);
}

TEST(descriptors_are_duplicated)
{
    struct vial_vm_config *config = config_new();
    struct vial_console_port_options port = VIAL_CONSOLE_PORT_OPTIONS_INIT;
    port.name = "p";
    port.kind = VIAL_CONSOLE_PORT_INOUT;
    port.input_fd = eventfd(0, 0);
    port.output_fd = 12345;
    CHECK_INT(vial_vm_config_add_console_port(config, &port, &err), -EINVAL);
    CHECK_TEXT(err.field, "console.ports[0].output_fd");
    CHECK_TEXT(err.message, "descriptor 12345 is not open");
    CHECK_INT(config->console_port_count, 0);
    port.output_fd = -1;
    CHECK_INT(vial_vm_config_add_console_port(config, &port, &err), 0);
    close(port.input_fd);
    int ours = config->console_ports[0].input_fd;
    CHECK(ours != port.input_fd);
    CHECK_INT(fcntl(ours, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    vial_vm_config_free(config);
    CHECK(fcntl(ours, F_GETFD) < 0);
}

static int releases;

static void count_release(void *user)
{
    (void)user;
    releases++;
}

TEST(backends_are_released_once)
{
    struct vial_vm_config *config = config_new();
    struct vial_fs_ops fs_ops = VIAL_FS_OPS_INIT;
    fs_ops.release = count_release;
    struct vial_net_ops net_ops = {.size = sizeof(net_ops), .release = count_release};
    struct vial_console_ops console_ops = {.size = sizeof(console_ops), .release = count_release};
    struct vial_fs_options fs = VIAL_FS_OPTIONS_INIT;
    struct vial_net_options net = VIAL_NET_OPTIONS_INIT;
    struct vial_console_port_options port = VIAL_CONSOLE_PORT_OPTIONS_INIT;
    fs.ops = &fs_ops;
    net.ops = &net_ops;
    net.kind = VIAL_NET_CUSTOM;
    port.ops = &console_ops;
    port.kind = VIAL_CONSOLE_PORT_CUSTOM;
    releases = 0;
    CHECK_INT(vial_vm_config_set_root(config, &fs, &err), 0);
    CHECK_INT(vial_vm_config_set_root(config, &fs, &err), -EEXIST); /* a failed call leaves it to the caller */
    CHECK_INT(vial_vm_config_add_fs(config, &fs, &err), 0);
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    CHECK_INT(vial_vm_config_add_console_port(config, &port, &err), 0);
    CHECK_INT(releases, 0);
    vial_vm_config_free(config);
    CHECK_INT(releases, 4);
}

TEST(texts_that_are_null_are_refused)
{
    struct vial_vm_config *config = config_new(), *other = NULL;
    CHECK_INT(vial_vm_config_append_cmdline(config, NULL, &err), -EINVAL);
    CHECK_TEXT(err.field, "kernel.cmdline");
    CHECK_INT(vial_vm_config_add_mapped_dir_text(config, NULL, &err), -EINVAL);
    CHECK_INT(vial_vm_config_add_port_text(config, NULL, &err), -EINVAL);
    CHECK_INT(vial_vm_config_add_rlimit(config, NULL, &err), -EINVAL);
    CHECK_TEXT(err.message, "it is NULL");
    CHECK_INT(vial_vm_config_load_file(NULL, &other, &err), -ENOENT);
    CHECK_INT(vial_vm_config_load_text(NULL, 7, &other, &err), -EINVAL);
    CHECK_INT(err.code, VIAL_ERROR_SYNTAX);
    vial_vm_config_free(config);
}

TEST(limits_are_kept)
{
    struct vial_vm_config *config = config_new();
    struct vial_disk_options disk = VIAL_DISK_OPTIONS_INIT;
    for (int i = 0; i < LIMIT_DEVICES; i++)
        CHECK_INT(vial_vm_config_add_disk(config, &disk, &err), 0);
    CHECK_INT(vial_vm_config_add_disk(config, &disk, &err), -E2BIG);
    CHECK_TEXT(err.field, "disks");
    CHECK_TEXT(err.message, "there are 200 already, the limit");
    static char long_text[2000];
    memset(long_text, 'x', sizeof(long_text) - 1);
    CHECK_INT(vial_vm_config_append_cmdline(config, "quiet", &err), 0);
    CHECK_INT(vial_vm_config_append_cmdline(config, long_text, &err), -E2BIG);
    CHECK_TEXT(err.field, "kernel.cmdline");
    CHECK_TEXT(config->kernel.cmdline, "quiet");
    static char big[LIMIT_EXEC_BYTES];
    memset(big, 'x', sizeof(big) - 1);
    const char *args[] = {"a", big, NULL};
    struct vial_exec_options exec = VIAL_EXEC_OPTIONS_INIT;
    exec.args = args;
    CHECK_INT(vial_vm_config_set_exec(config, &exec, &err), -E2BIG);
    CHECK_TEXT(err.field, "exec.args[1]");
    vial_vm_config_free(config);
}

TEST(text_forms_are_checked_when_they_are_given)
{
    struct vial_vm_config *config = config_new();
    CHECK_INT(vial_vm_config_add_port_text(config, "80:99999", &err), -ERANGE);
    CHECK_INT(err.code, VIAL_ERROR_OUT_OF_RANGE);
    CHECK_TEXT(err.field, "port_map[0]");
    CHECK_TEXT(err.message, "\"80:99999\" is not a pair of ports: a port is not between 1 and 65535");
    CHECK_INT(vial_vm_config_add_rlimit(config, "NOFILE", &err), -EINVAL);
    CHECK_TEXT(err.field, "exec.rlimits[0]");
    CHECK_TEXT(err.value, "NOFILE");
    CHECK_TEXT(err.remedy, "write NAME=SOFT:HARD, such as NOFILE=1024:4096 or 7=1024:unlimited");
    CHECK_INT(vial_vm_config_add_mapped_dir_text(config, "/only", &err), -EINVAL);
    CHECK_TEXT(err.field, "mapped_dirs[0]");
    CHECK_INT(vial_vm_config_set_log_level(config, 9, &err), -ERANGE);
    CHECK_INT(vial_vm_config_add_exit_observer(config, NULL, NULL, &err), -EINVAL);
    vial_vm_config_free(config);
}

/* ---- JSON ---- */

static const char everything[] =
    "{\"machine\": {\"vcpus\": 2, \"memory_mib\": 1024, \"hyperthreading\": true, \"nested_virtualization\": true,"
    " \"split_irqchip\": true, \"vsock\": true, \"balloon\": false, \"balloon_stats_interval_ms\": null, \"rng\": "
    "false,"
    " \"metrics\": false, \"inet_hijack\": true, \"acpi\": \"off\", \"engine\": \"uml\", \"insecure_no_jail\": true},"
    " \"log_level\": \"debug\","
    " \"kernel\": {\"path\": \"k\", \"format\": \"elf\", \"initramfs\": \"i\", \"cmdline\": \"quiet\", \"init\": "
    "\"/sbin/init\"},"
    " \"root\": {\"path\": \"r\", \"dax_window_mib\": 64, \"read_only\": true, \"cache\": \"always\", \"xattrs\": "
    "\"all\","
    "  \"owner\": {\"uid\": 3, \"gid\": 4}, \"only_public\": true, \"one_device\": true, \"throw_away\": true},"
    " \"fs\": [{\"path\": \"a\"}, {\"tag\": \"t\", \"path\": \"b\"}],"
    " \"mapped_dirs\": [\"/x:/y:ro\", {\"host\": \"/z\", \"guest\": \"/w\"}],"
    " \"mounts\": [{\"disk\": \"d\", \"guest\": \"/data\", \"fstype\": \"ext4\", \"options\": \"noatime\","
    "  \"read_only\": true}, {\"disk\": \"vdb\", \"guest\": \"/more\"}],"
    " \"tmpfs\": [{\"guest\": \"/t\", \"size_mib\": 64, \"mode\": \"0700\"}, {\"guest\": \"/u\"}],"
    " \"disks\": [{\"id\": \"d\", \"path\": \"p\", \"format\": \"qcow2\", \"read_only\": true, \"cache\": \"unsafe\","
    "  \"direct_io\": true, \"sync\": \"relaxed\", \"queues\": 3,"
    "  \"backing\": [{\"path\": \"base\", \"format\": \"raw\"}], \"limits\": {\"bytes_per_second\": 1, "
    "\"burst_bytes\": 2,"
    "  \"operations_per_second\": 3, \"burst_operations\": 4}}, {\"path\": \"q\", \"format\": \"raw\"}],"
    " \"net\": [{\"kind\": \"tap\", \"path\": \"tap0\", \"mac\": \"02:00:00:00:00:01\", \"features\": [\"csum\", "
    "\"host-tso4\"]},"
    "  {\"kind\": \"unixgram\", \"path\": \"s\", \"vfkit\": true, \"mac\": \"02:00:00:00:00:02\"}],"
    " \"port_map\": [\"8080:80\"], \"tsi\": {\"assigned_ip\": \"127.0.0.2\", \"local_only\": true},"
    " \"vsock_ports\": [{\"port\": 2695, \"path\": \"v\", \"listen\": true}],"
    " \"console\": {\"output\": \"log\", \"implicit\": false, \"ports\": [{\"name\": \"agent\", \"input_fd\": 0}],"
    "  \"gpu\": {\"virgl_flags\": 1, \"shared_memory_mib\": 2}, \"sound\": true},"
    " \"exec\": {\"path\": \"/bin/sh\", \"args\": [\"-c\", \"echo \\n\\u00e9\"], \"env\": {\"A\": \"b=c\"}, "
    "\"workdir\": \"/tmp\","
    "  \"uid\": 1, \"gid\": 2, \"rlimits\": [\"NOFILE=1:unlimited\"], \"from_guest\": true}}";

TEST(json_says_everything)
{
    struct vial_vm_config *config = NULL;
    CHECK_INT(vial_vm_config_load_text(everything, sizeof(everything) - 1, &config, &err), 0);
    CHECK(config->machine.vcpus == 2 && config->machine.memory_mib == 1024 && config->machine.split_irqchip);
    CHECK(!config->machine.balloon && config->machine.balloon_stats_interval_ms == 0 && config->machine.inet_hijack);
    CHECK_INT(config->machine.acpi, VIAL_ACPI_OFF);
    CHECK(config->machine.engine == VIAL_ENGINE_UML && config->machine.insecure_no_jail);
    CHECK(config->log_level == VIAL_LOG_DEBUG && config->kernel.format == VIAL_KERNEL_ELF);
    CHECK_TEXT(config->kernel.cmdline, "quiet");
    CHECK(config->root.read_only && config->root.dax_window_mib == 64 && config->fs_count == 2);
    CHECK(config->root_kind == ROOT_FOLDER && config->root.cache == VIAL_FS_CACHE_ALWAYS && config->root.has_owner);
    CHECK(config->root.xattrs == VIAL_FS_XATTRS_ALL && config->root.owner_uid == 3 && config->root.owner_gid == 4);
    CHECK(config->root.only_public && config->root.one_device && config->root.throw_away && !config->fs[0].has_owner);
    CHECK_TEXT(config->fs[0].tag, "fs1");
    CHECK(config->mount_count == 2 && config->mounts[0].read_only && config->mounts[1].fstype == NULL);
    CHECK_TEXT(config->mounts[0].options, "noatime");
    CHECK(config->tmpfs[0].size_mib == 64 && config->tmpfs[0].mode == 0700 && config->tmpfs[1].mode == 01777);
    CHECK(config->disks[0].queues == 3 && config->disks[0].backing_count == 1 && config->disks[1].backing_count == 0);
    CHECK(config->disks[0].backing[0].format == VIAL_DISK_RAW && config->disks[0].bytes_per_second == 1);
    CHECK(config->disks[0].burst_bytes == 2 && config->disks[0].operations_per_second == 3);
    CHECK_INT(config->disks[0].burst_operations, 4);
    CHECK(config->mapped_dir_count == 2 && config->mapped_dirs[0].read_only && !config->mapped_dirs[1].read_only);
    CHECK(config->disks[0].format == VIAL_DISK_QCOW2 && config->disks[0].cache == VIAL_DISK_UNSAFE);
    CHECK(config->disks[0].sync == VIAL_DISK_SYNC_RELAXED && config->disks[0].direct_io && config->disks[0].read_only);
    CHECK_TEXT(config->disks[1].id, "vdb");
    CHECK(config->net[0].kind == VIAL_NET_TAP && config->net[0].features == 0x801 && config->net[1].vfkit);
    CHECK(config->port_map[0].host == 8080 && config->port_map[0].guest == 80 && config->local_only);
    CHECK(config->vsock_ports[0].port == 2695 && config->vsock_ports[0].listen);
    CHECK(!config->has_implicit_console && config->has_gpu && config->has_sound && config->console_port_count == 1);
    CHECK(config->exec_from_guest);
    CHECK_TEXT(config->exec_args.items[1], "echo \n\xc3\xa9");
    CHECK_TEXT(config->exec_env.items[0], "A=b=c");
    CHECK(config->has_exec_uid && config->exec_uid == 1 && config->has_exec_gid && config->exec_gid == 2);
    CHECK_INT(config->rlimit_count, 1);
    vial_vm_config_free(config);
}

/* The dump without the numbers of descriptors, which are duplicates and so differ. */
static char *dump_without_descriptors(const struct vial_vm_config *config)
{
    char *text = NULL;
    if (vial_vm_config_dump(config, &text, &err) < 0)
        abort();
    for (char *number = text; (number = strstr(number, "_fd\": ")) != NULL;) {
        number += strlen("_fd\": ");
        size_t digits = strspn(number, "0123456789");
        memmove(number, number + digits, strlen(number + digits) + 1);
    }
    return text;
}

TEST(a_dump_reads_back_as_itself)
{
    struct vial_vm_config *config = NULL, *again = NULL;
    auto_free char *text = NULL, *first = NULL, *second = NULL;
    CHECK_INT(vial_vm_config_load_text(everything, sizeof(everything) - 1, &config, &err), 0);
    CHECK_INT(vial_vm_config_dump(config, &text, &err), 0);
    CHECK_INT(vial_vm_config_load_text(text, strlen(text), &again, &err), 0);
    first = dump_without_descriptors(config);
    second = dump_without_descriptors(again);
    CHECK(strstr(first, "\"input_fd\": ") != NULL);
    CHECK(strstr(first, "\"acpi\": \"off\"") != NULL);
    CHECK(strstr(first, "\"engine\": \"uml\"") != NULL && strstr(first, "\"insecure_no_jail\": true") != NULL);
    CHECK_TEXT(second, first);
    vial_vm_config_free(config);
    vial_vm_config_free(again);
}

static struct vial_vm_config *load(const char *json)
{
    struct vial_vm_config *config = NULL;
    return vial_vm_config_load_text(json, strlen(json), &config, &err) == 0 ? config : NULL;
}

static const struct {
    const char *json;
    enum root_kind kind;
} roots[] = {
    {"{\"root\": \"host\"}", ROOT_HOST},
    {"{\"root\": {\"host\": true, \"hidden\": [\"/opt\", \"/usr/src\"], \"dax_window_mib\": 2}}", ROOT_HOST},
    {"{\"root\": \"builtin\"}", ROOT_BUILTIN},
    {"{\"root\": {\"builtin\": true}}", ROOT_BUILTIN},
    {"{\"root\": {\"disk\": \"vda\", \"fstype\": \"ext4\", \"options\": \"noatime\", \"read_only\": true}}", ROOT_DISK},
    {"{\"root\": {\"layers\": [\"a\", \"b\"], \"fstype\": \"erofs\", \"upper\": \"c\", \"upper_fstype\": \"ext4\"}}",
     ROOT_LAYERS},
    {"{\"root\": {\"layers\": [\"a\"]}}", ROOT_LAYERS},
};

TEST(every_kind_of_root_reads_back_as_itself)
{
    for (size_t i = 0; i < array_length(roots); i++) {
        auto_free char *first = NULL, *second = NULL;
        struct vial_vm_config *config = load(roots[i].json);
        CHECK(config != NULL && config->root_kind == roots[i].kind && config->fs_total == 1);
        CHECK_TEXT(config->root.tag, "/dev/root");
        CHECK_INT(vial_vm_config_dump(config, &first, &err), 0);
        struct vial_vm_config *again = load(first);
        CHECK(again != NULL && again->root_kind == roots[i].kind);
        CHECK_INT(vial_vm_config_dump(again, &second, &err), 0);
        CHECK_TEXT(second, first);
        CHECK_INT(vial_vm_config_set_root_builtin(again, &err), -EEXIST);
        vial_vm_config_free(config);
        vial_vm_config_free(again);
    }
}

TEST(roots_survive_no_memory)
{
    for (size_t i = 0; i < array_length(roots); i++) {
        FOR_EACH_FAULT
        {
            struct vial_vm_config *config = load(roots[i].json);
            CHECK((config == NULL) == fault_was_hit());
            vial_vm_config_free(config);
        }
    }
}

TEST(roots_that_a_file_cannot_say)
{
    static const struct {
        const char *json, *field;
    } cases[] = {
        {"{\"root\": \"hots\"}", "root"},
        {"{\"root\": {\"host\": false}}", "root.host"},
        {"{\"root\": {\"builtin\": 1}}", "root.builtin"},
        {"{\"root\": {\"disk\": \"vda\", \"path\": \"r\"}}", "root.path"},
        {"{\"root\": {\"layers\": \"a\"}}", "root.layers"},
        {"{\"root\": {\"path\": \"r\", \"fstype\": \"ext4\"}}", "root.fstype"},
        {"{\"root\": {\"host\": true, \"read_only\": true}}", "root.read_only"},
        {"{\"root\": 7}", "root"},
        {"{\"tmpfs\": [{\"guest\": \"/t\", \"mode\": \"0888\"}]}", "tmpfs[0].mode"},
        {"{\"disks\": [{\"queues\": 65536}]}", "disks[0].queues"},
        {"{\"disks\": [{\"limits\": {\"bytes\": 1}}]}", "disks[0].limits.bytes"},
        {"{\"disks\": [{\"backing\": [{\"file\": \"b\"}]}]}", "disks[0].backing[0].file"},
    };
    for (size_t i = 0; i < array_length(cases); i++) {
        CHECK(load(cases[i].json) == NULL);
        CHECK_TEXT(err.field, cases[i].field);
    }
}

TEST(a_newer_backing_is_refused)
{
    struct vial_vm_config *config = config_new();
    struct vial_disk_backing backing[2] = {{.path = "a", .format = VIAL_DISK_RAW}, {.reserved = {1}}};
    struct vial_disk_options disk = VIAL_DISK_OPTIONS_INIT;
    disk.backing = backing;
    disk.backing_count = 2;
    CHECK_INT(vial_vm_config_add_disk(config, &disk, &err), -E2BIG);
    disk.backing_count = LIMIT_DISK_BACKING + 1;
    CHECK_INT(vial_vm_config_add_disk(config, &disk, &err), -E2BIG);
    CHECK_TEXT(err.field, "disks[0].backing");
    disk.backing_count = 1;
    CHECK_INT(vial_vm_config_add_disk(config, &disk, &err), 0);
    vial_vm_config_free(config);
}

static void *odd_malloc(size_t size)
{
    char *memory = malloc(size + 16);
    return memory != NULL ? memory + 16 : NULL;
}

static void odd_free(void *pointer)
{
    if (pointer != NULL)
        free((char *)pointer - 16);
}

TEST(a_dump_is_freed_with_free_whatever_allocator_jansson_has)
{
    struct vial_vm_config *config = config_new();
    char *text = NULL;
    json_malloc_t usual_malloc = NULL;
    json_free_t usual_free = NULL;
    json_get_alloc_funcs(&usual_malloc, &usual_free);
    json_set_alloc_funcs(odd_malloc, odd_free);
    int result = vial_vm_config_dump(config, &text, &err);
    json_set_alloc_funcs(usual_malloc, usual_free);
    CHECK_INT(result, 0);
    free(text);
    vial_vm_config_free(config);
}

TEST(a_dump_of_nonsense_is_still_json)
{
    struct vial_vm_config *config = config_new();
    struct vial_disk_options disk = VIAL_DISK_OPTIONS_INIT;
    struct vial_kernel_options kernel = VIAL_KERNEL_OPTIONS_INIT;
    struct vial_net_options net = VIAL_NET_OPTIONS_INIT;
    auto_free char *text = NULL;
    disk.format = 77;
    disk.cache = -3;
    disk.path = "not \xff utf-8";
    kernel.format = -1;
    net.kind = 12;
    const char *const env[] = {"\xff=\xfe", "NOTHING", NULL};
    struct vial_exec_options exec = VIAL_EXEC_OPTIONS_INIT;
    exec.env = env;
    CHECK_INT(vial_vm_config_set_exec(config, &exec, &err), 0);
    CHECK_INT(vial_vm_config_add_disk(config, &disk, &err), 0);
    CHECK_INT(vial_vm_config_set_kernel(config, &kernel, &err), 0);
    CHECK_INT(vial_vm_config_add_net(config, &net, &err), 0);
    CHECK_INT(vial_vm_config_dump(config, &text, &err), 0);
    CHECK(strstr(text, "\"format\": \"invalid\"") != NULL);
    CHECK(strstr(text, "not \\\\xff utf-8") != NULL);
    CHECK(strstr(text, "\"\\\\xff\": \"\\\\xfe\"") != NULL);
    vial_vm_config_free(config);
}

static void try_everything(void)
{
    struct vial_vm_config *config = NULL;
    auto_free char *text = NULL;
    int result = vial_vm_config_load_text(everything, sizeof(everything) - 1, &config, &err);
    if (result == 0)
        result = vial_vm_config_dump(config, &text, &err);
    if (fault_was_hit() != (result < 0))
        test_fail(__FILE__, __LINE__, "result %d with a failed allocation: %d", result, fault_was_hit());
    vial_vm_config_free(config);
}

TEST(everything_survives_no_memory)
{
    FOR_EACH_FAULT
    try_everything();
}

TEST(serial_ports)
{
    struct vial_vm_config *config = NULL;
    struct vial_serial_options serial = VIAL_SERIAL_OPTIONS_INIT;
    CHECK_INT(vial_vm_config_new(&config, &err), 0);
    serial.output_fd = 1;
    for (int i = 0; i < LIMIT_SERIALS; i++)
        CHECK_INT(vial_vm_config_add_serial(config, &serial, &err), 0);
    CHECK(config->serials[0].input_fd == -1 && config->serials[0].output_fd > 2);
    CHECK_INT(vial_vm_config_add_serial(config, &serial, &err), -E2BIG);
    CHECK_TEXT(err.field, "console.serial");
    config->serial_count--; /* the last one's descriptor is closed by hand */
    close(config->serials[LIMIT_SERIALS - 1].output_fd);
    serial.input_fd = 1000000;
    CHECK_INT(vial_vm_config_add_serial(config, &serial, &err), -EINVAL);
    CHECK_TEXT(err.field, "console.serial[3].input_fd");
    CHECK_INT(config->serial_count, LIMIT_SERIALS - 1);
    vial_vm_config_free(config);
}

TEST(serial_ports_in_a_file)
{
    struct vial_vm_config *config = NULL;
    char *dump = NULL;
    static const char text[] = "{\"machine\": {\"huge_pages\": true}, \"console\": {\"serial\": [{\"output_fd\": 1}, "
                               "{\"input_fd\": 1, \"output_fd\": 2}]}}";
    CHECK_INT(vial_vm_config_load_text(text, strlen(text), &config, &err), 0);
    CHECK_INT(config->serial_count, 2);
    CHECK(config->machine.huge_pages && config->serials[1].input_fd > 2);
    CHECK_INT(vial_vm_config_dump(config, &dump, &err), 0);
    CHECK(strstr(dump, "\"huge_pages\": true") != NULL && strstr(dump, "\"serial\"") != NULL);
    free(dump);
    vial_vm_config_free(config);
    static const char wrong[] = "{\"console\": {\"serial\": [{\"fd\": 1}]}}";
    CHECK_INT(vial_vm_config_load_text(wrong, strlen(wrong), &config, &err), -EINVAL);
    CHECK_TEXT(err.field, "console.serial[0].fd");
}
