// SPDX-License-Identifier: Apache-2.0
/* Calls of libkrun.h while each allocation fails in turn: -ENOMEM, nothing is lost, and the context is as it was.
 *
 * Unlike the other tests of the interface this one has the library's parts linked in, so that their allocations can be
 * made to fail.
 */
#include "krun.h"

#include <fcntl.h>
#include <unistd.h>

static uint8_t mac[6] = {0x02};
static char gvproxy[] = "gvproxy.sock", tap[] = "tap0";

/* The call fails with -ENOMEM as often as it allocates, and works then. */
#define CHECK_FAULTS(expected, call)                                                                                   \
    FOR_EACH_FAULT                                                                                                     \
    {                                                                                                                  \
        int32_t fault_result = call;                                                                                   \
        if (fault_was_hit())                                                                                           \
            CHECK_INT(fault_result, -ENOMEM);                                                                          \
        else                                                                                                           \
            CHECK_INT(fault_result, expected);                                                                         \
    }

TEST(contexts)
{
    FOR_EACH_FAULT
    {
        int32_t id = krun_create_ctx();
        if (fault_was_hit())
            CHECK_INT(id, -ENOMEM);
        else
            CHECK(id >= 0);
        CHECK_INT(krun_free_ctx((uint32_t)id), id < 0 ? -ENOENT : 0);
    }
}

TEST(files)
{
    static const uint8_t bytes[] = {1, 2};
    uint32_t id = new_context();
    CHECK_FAULTS(0, krun_set_root(id, "/"));
    CHECK_FAULTS(0, krun_add_virtiofs3(id, "share", "/", 1, true));
    CHECK_FAULTS(0, krun_fs_add_overlay_dir(id, KRUN_FS_ROOT_TAG, "etc", 0755));
    CHECK_FAULTS(0, krun_fs_add_overlay_file(id, "share", "a", bytes, sizeof(bytes), 0644, false));
    CHECK_INT(krun_free_ctx(id), 0);
}

TEST(disks)
{
    uint32_t id = new_context();
    CHECK_FAULTS(0, krun_add_disk(id, "a", "a.img", false));
    CHECK_FAULTS(0, krun_set_root_disk_remount(id, "/dev/vda", "ext4", "ro"));
    CHECK_INT(krun_free_ctx(id), 0);
    id = new_context();
    CHECK_FAULTS(0, krun_set_root_disk(id, "a.img"));
    CHECK_FAULTS(0, krun_set_data_disk(id, "a.img"));
    CHECK_INT(krun_free_ctx(id), 0);
}

TEST(a_root_that_an_init_of_ones_own_mounts)
{
    uint32_t id = new_context();
    CHECK_INT(krun_disable_implicit_init(id), 0);
    CHECK_INT(krun_add_disk(id, "a", "a.img", false), 0);
    CHECK_FAULTS(0, krun_set_root_disk_remount(id, "/dev/vda", "ext4", "ro"));
    CHECK_INT(krun_free_ctx(id), 0);
}

TEST(networks)
{
    uint32_t id = new_context();
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    CHECK_FAULTS(0, krun_set_port_map(id, (const char *const[]){"8080:80", "8081:81", NULL}));
    CHECK_FAULTS(0, krun_add_net_unixstream(id, NULL, fd, mac, 0, 0));
    CHECK_FAULTS(0, krun_add_net_unixgram(id, "a.sock", -1, mac, 0, NET_FLAG_VFKIT));
    CHECK_FAULTS(0, krun_add_net_tap(id, tap, mac, 0, 0));
    CHECK_FAULTS(0, krun_add_vsock_port2(id, 7, "a.sock", false));
    CHECK_FAULTS(0, krun_add_vsock_port2(id, 7, "b.sock", false));
    CHECK_FAULTS(0, krun_set_tsi_rewrite_ip(id, "127.0.0.2"));
    CHECK_INT(krun_free_ctx(id), 0);
    id = new_context();
    CHECK_FAULTS(0, krun_set_passt_fd(id, fd));
    CHECK_FAULTS(0, krun_set_gvproxy_path(id, gvproxy));
    CHECK_INT(krun_free_ctx(id), 0);
    close(fd);
}

TEST(programs)
{
    uint32_t id = new_context();
    const char *const args[] = {"-c", "true", NULL}, *const env[] = {"A=1", "no variable", NULL};
    CHECK_FAULTS(0, krun_set_exec(id, "/bin/sh", args, env));
    CHECK_FAULTS(0, krun_set_env(id, env));
    CHECK_FAULTS(0, krun_set_env(id, NULL));
    CHECK_FAULTS(0, krun_set_workdir(id, "/"));
    CHECK_FAULTS(0, krun_set_rlimits(id, (const char *const[]){"7=1:2", NULL}));
    CHECK_INT(krun_free_ctx(id), 0);
}

TEST(consoles_and_kernels)
{
    uint32_t id = new_context();
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    CHECK_FAULTS(0, krun_set_console_output(id, "a.log"));
    CHECK_FAULTS(0, krun_set_kernel_console(id, "hvc0"));
    CHECK_FAULTS(0, krun_add_virtio_console_default(id, fd, fd, fd));
    CHECK_FAULTS(0, krun_add_serial_console_default(id, fd, fd));
    CHECK_FAULTS(1, krun_add_virtio_console_multiport(id));
    CHECK_FAULTS(0, krun_add_console_port_inout(id, 1, "p", fd, fd));
    CHECK_FAULTS(0, krun_set_kernel(id, "vmlinux", KRUN_KERNEL_FORMAT_ELF, "/dev/null", "quiet"));
    CHECK_INT(krun_free_ctx(id), 0);
    close(fd);
}

/* A start that gets as far as a kernel that is not there. */
static uint32_t new_machine(const char *root, const char *disk, int fd)
{
    uint32_t id = new_context();
    bool is_made = krun_set_vm_config(id, 1, 256) == 0 && krun_set_root(id, root) == 0 &&
                   krun_add_disk(id, "a", disk, true) == 0 &&
                   krun_add_net_unixstream(id, NULL, fd, mac, COMPAT_NET_FEATURES, 0) == 0 &&
                   krun_set_exec(id, "/bin/sh", (const char *const[]){"-c", "true", NULL},
                                 (const char *const[]){"A=1", NULL}) == 0 &&
                   krun_set_workdir(id, "srv") == 0 && krun_add_vsock_port(id, 7, "a.sock") == 0 &&
                   krun_set_rlimits(id, (const char *const[]){"7=1:2", NULL}) == 0 &&
                   krun_add_virtio_console_default(id, fd, fd, fd) == 0 &&
                   krun_set_kernel(id, "/nonexistent/kernel", KRUN_KERNEL_FORMAT_ELF, NULL, "quiet") == 0;
    if (!is_made)
        abort();
    return id;
}

TEST(starts)
{
    const char *root = test_make_folder("root"), *disk = test_file("a.img", (uint8_t[512]){0}, 512);
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC), before = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    setenv("VIAL_ENGINE", "uml", 1);
    int failed = 0;
    for (long at = 0, is_through = 0; !is_through; at++) {
        uint32_t id = new_machine(root, disk, fd);
        struct fault fault = {.at = at - 1};
        fault_next(&fault);
        dup2(fd, STDERR_FILENO);
        int32_t result = krun_start_enter(id);
        dup2(before, STDERR_FILENO);
        is_through = !fault_was_hit();
        CHECK(result == -ENOENT || (!is_through && result == -ENOMEM)); /* what the host has may stay unread */
        failed += result == -ENOMEM;
        CHECK_INT(krun_free_ctx(id), -ENOENT);
    }
    CHECK(failed >= 20);
    close(before);
    close(fd);
}
