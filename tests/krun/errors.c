// SPDX-License-Identifier: Apache-2.0
/* Every call of libkrun.h that is a setting: what it refuses, with which number, and that a refusal changes nothing.
 *
 * This is a program like any other that is linked to libkrun.so.1; what it knows is in the header and in
 * libkrun-compat(7).
 */
#include "krun.h"

#include <fcntl.h>
#include <pty.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const no_strings[] = {NULL};
static uint8_t mac[6] = {0x02, 0, 0, 0, 0, 1};
static char passt_name[] = "/run/passt.sock", tap_name[] = "tap0";

/* ---- contexts that are not there ---- */

/* Each call with arguments that it takes. */
static void check_unknown(uint32_t id)
{
    static const uint8_t bytes[] = {1};
    CHECK_INT(krun_free_ctx(id), -ENOENT);
    CHECK_INT(krun_set_vm_config(id, 1, 128), -ENOENT);
    CHECK_INT(krun_start_enter(id), -ENOENT);
    CHECK_INT(krun_set_root(id, "/"), -ENOENT);
    CHECK_INT(krun_add_virtiofs(id, "a", "/"), -ENOENT);
    CHECK_INT(krun_add_virtiofs2(id, "a", "/", 0), -ENOENT);
    CHECK_INT(krun_add_virtiofs3(id, "a", "/", 0, false), -ENOENT);
    CHECK_INT(krun_fs_add_overlay_file(id, KRUN_FS_ROOT_TAG, "a", bytes, sizeof(bytes), 0644, false), -ENOENT);
    CHECK_INT(krun_fs_add_overlay_dir(id, KRUN_FS_ROOT_TAG, "a", 0755), -ENOENT);
    CHECK_INT(krun_set_root_disk_remount(id, "/dev/vda", NULL, NULL), -ENOENT);
    CHECK_INT(krun_disable_implicit_init(id), -ENOENT);
    CHECK_INT(krun_add_disk(id, "a", "a.img", false), -ENOENT);
    CHECK_INT(krun_add_disk2(id, "a", "a.img", KRUN_DISK_FORMAT_RAW, false), -ENOENT);
    CHECK_INT(krun_add_disk3(id, "a", "a.img", KRUN_DISK_FORMAT_RAW, false, false, KRUN_SYNC_FULL), -ENOENT);
    CHECK_INT(krun_set_root_disk(id, "a.img"), -ENOENT);
    CHECK_INT(krun_set_data_disk(id, "a.img"), -ENOENT);
    CHECK_INT(krun_add_net_unixstream(id, "a.sock", -1, mac, 0, 0), -ENOENT);
    CHECK_INT(krun_add_net_unixgram(id, "a.sock", -1, mac, 0, 0), -ENOENT);
    CHECK_INT(krun_add_net_tap(id, tap_name, mac, 0, 0), -ENOENT);
    CHECK_INT(krun_set_passt_fd(id, 0), -ENOENT);
    CHECK_INT(krun_set_gvproxy_path(id, passt_name), -ENOENT);
    CHECK_INT(krun_set_net_mac(id, mac), -ENOENT);
    CHECK_INT(krun_set_port_map(id, no_strings), -ENOENT);
    CHECK_INT(krun_add_vsock_port(id, 1, "a.sock"), -ENOENT);
    CHECK_INT(krun_add_vsock_port2(id, 1, "/nonexistent/a.sock", true), -ENOENT);
    CHECK_INT(krun_disable_implicit_vsock(id), -ENOENT);
    CHECK_INT(krun_add_vsock(id, 0), -ENOENT);
    CHECK_INT(krun_set_tsi_rewrite_ip(id, "127.0.0.2"), -ENOENT);
    CHECK_INT(krun_enable_tsi_local_only(id, true), -ENOENT);
    CHECK_INT(krun_set_exec(id, "/bin/sh", no_strings, no_strings), -ENOENT);
    CHECK_INT(krun_set_env(id, no_strings), -ENOENT);
    CHECK_INT(krun_set_workdir(id, "/"), -ENOENT);
    CHECK_INT(krun_set_rlimits(id, no_strings), -ENOENT);
    CHECK_INT(krun_set_console_output(id, "a.log"), -ENOENT);
    CHECK_INT(krun_disable_implicit_console(id), -ENOENT);
    CHECK_INT(krun_set_kernel_console(id, "hvc0"), -ENOENT);
    CHECK_INT(krun_add_virtio_console_default(id, 0, 1, 2), -ENOENT);
    CHECK_INT(krun_add_serial_console_default(id, 0, 1), -ENOENT);
    CHECK_INT(krun_add_virtio_console_multiport(id), -ENOENT);
    CHECK_INT(krun_add_console_port_inout(id, 0, "a", 0, 1), -ENOENT);
    CHECK_INT(krun_set_kernel(id, "vmlinux", KRUN_KERNEL_FORMAT_ELF, NULL, NULL), -ENOENT);
    CHECK_INT(krun_setuid(id, 0), -ENOENT);
    CHECK_INT(krun_setgid(id, 0), -ENOENT);
    CHECK_INT(krun_set_nested_virt(id, false), -ENOENT);
    CHECK_INT(krun_split_irqchip(id, false), -ENOENT);
    CHECK_INT(krun_get_shutdown_eventfd(id), -ENOENT);
}

TEST(a_context_that_never_was_is_refused)
{
    for (size_t i = 0; i < COUNT(unknown_ids); i++)
        check_unknown(unknown_ids[i]);
}

TEST(a_context_that_is_gone_is_refused)
{
    uint32_t kept = new_context(), freed = new_context();
    CHECK_INT(krun_free_ctx(freed), 0);
    check_unknown(freed);
    CHECK_INT(krun_free_ctx(kept), 0);
    check_unknown(kept);
}

TEST(numbers_of_contexts_are_given_once)
{
    uint32_t first = new_context();
    CHECK_INT(krun_free_ctx(first), 0);
    uint32_t second = new_context();
    CHECK(second != first);
    CHECK_INT(krun_free_ctx(second), 0);
}

/* ---- what there is no device for ---- */

static void check_unsupported(uint32_t id)
{
    static const uint8_t edid[128];
    static const uint16_t sizes[] = {64};
    CHECK_INT(krun_set_firmware(id, "/boot/efi"), -ENOTSUP);
    CHECK_INT(krun_set_firmware(id, NULL), -ENOTSUP);
    CHECK_INT(krun_set_tee_config_file(id, "tee.json"), -ENOTSUP);
    CHECK_INT(krun_set_tee_config_file(id, NULL), -ENOTSUP);
    CHECK_INT(krun_set_smbios_oem_strings(id, no_strings), -ENOTSUP);
    CHECK_INT(krun_set_smbios_oem_strings(id, NULL), -ENOTSUP);
    CHECK_INT(krun_set_gpu_options(id, VIRGLRENDERER_VENUS), -ENOTSUP);
    CHECK_INT(krun_set_gpu_options2(id, VIRGLRENDERER_DRM, 1 << 20), -ENOTSUP);
    CHECK_INT(krun_add_display(id, 800, 600), -ENOTSUP);
    CHECK_INT(krun_display_set_edid(id, 0, edid, sizeof(edid)), -ENOTSUP);
    CHECK_INT(krun_display_set_edid(id, 0, NULL, SIZE_MAX), -ENOTSUP);
    CHECK_INT(krun_display_set_dpi(id, 0, 96), -ENOTSUP);
    CHECK_INT(krun_display_set_physical_size(id, 0, 300, 200), -ENOTSUP);
    CHECK_INT(krun_display_set_refresh_rate(id, 0, 60), -ENOTSUP);
    CHECK_INT(krun_set_display_backend(id, edid, sizeof(edid)), -ENOTSUP);
    CHECK_INT(krun_set_display_backend(id, NULL, SIZE_MAX), -ENOTSUP);
    CHECK_INT(krun_add_input_device(id, edid, 1, edid, 1), -ENOTSUP);
    CHECK_INT(krun_add_input_device(id, NULL, SIZE_MAX, NULL, SIZE_MAX), -ENOTSUP);
    CHECK_INT(krun_add_input_device_fd(id, 0), -ENOTSUP);
    CHECK_INT(krun_add_input_device_fd(id, -1), -ENOTSUP);
    CHECK_INT(krun_add_vhost_user_device(id, KRUN_VIRTIO_DEVICE_SND, "a.sock", "snd", 1, sizes), -ENOTSUP);
    CHECK_INT(krun_add_vhost_user_device(id, 0, NULL, NULL, 0, NULL), -ENOTSUP);
    CHECK_INT(krun_set_mapped_volumes(id, no_strings), -EINVAL);
    CHECK_INT(krun_set_mapped_volumes(id, NULL), -EINVAL);
}

TEST(what_there_is_no_device_for_says_so)
{
    uint32_t id = new_context();
    check_unsupported(id);
    check_unsupported(0xffffffff);
    CHECK_INT(krun_get_shutdown_eventfd(id), -EINVAL);
    CHECK_INT(krun_free_ctx(id), 0);
}

TEST(features)
{
    static const uint64_t here[] = {KRUN_FEATURE_NET, KRUN_FEATURE_BLK, KRUN_FEATURE_INIT_BLOB};
    static const uint64_t not_here[] = {
        KRUN_FEATURE_GPU,
        KRUN_FEATURE_INPUT,
        KRUN_FEATURE_TEE,
        KRUN_FEATURE_AMD_SEV,
        KRUN_FEATURE_INTEL_TDX,
        KRUN_FEATURE_AWS_NITRO,
        KRUN_FEATURE_VIRGL_RESOURCE_MAP2,
    };
    static const uint64_t nothing[] = {3, 5, 12, 1 << 16, (uint64_t)1 << 32, UINT64_MAX};
    for (size_t i = 0; i < COUNT(here); i++)
        CHECK_INT(krun_has_feature(here[i]), 1);
    for (size_t i = 0; i < COUNT(not_here); i++)
        CHECK_INT(krun_has_feature(not_here[i]), 0);
    for (size_t i = 0; i < COUNT(nothing); i++)
        CHECK_INT(krun_has_feature(nothing[i]), -EINVAL);
}

TEST(what_the_host_can_do)
{
    int32_t nested = krun_check_nested_virt(), most = krun_get_max_vcpus();
    CHECK(nested == 0 || nested == 1);
    CHECK(most >= 1 && most <= 64);
}

/* ---- the log ---- */

TEST(the_log)
{
    int output = open("/dev/null", O_WRONLY | O_CLOEXEC), input = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK_INT(krun_set_log_level(KRUN_LOG_LEVEL_TRACE + 1), -EINVAL);
    CHECK_INT(krun_set_log_level(UINT32_MAX), -EINVAL);
    CHECK_INT(krun_init_log(0, 0, 0, 0), -EINVAL);
    CHECK_INT(krun_init_log(-2, 0, 0, 0), -EINVAL);
    CHECK_INT(krun_init_log(INT32_MIN, 0, 0, 0), -EINVAL);
    CHECK_INT(krun_init_log(12345, 0, 0, 0), -EINVAL);
    CHECK_INT(krun_init_log(input, 0, 0, 0), -EINVAL);
    CHECK_INT(krun_init_log(output, KRUN_LOG_LEVEL_TRACE + 1, 0, 0), -EINVAL);
    CHECK_INT(krun_init_log(output, 0, KRUN_LOG_STYLE_NEVER + 1, 0), -EINVAL);
    CHECK_INT(krun_init_log(output, 0, 0, KRUN_LOG_OPTION_NO_ENV << 1), -EINVAL);
    CHECK_INT(krun_init_log(output, 0, 0, 0x80000001), -EINVAL);
    CHECK_INT(krun_init_log(output, KRUN_LOG_LEVEL_OFF, KRUN_LOG_STYLE_ALWAYS, KRUN_LOG_OPTION_NO_ENV), 0);
    CHECK_INT(krun_init_log(output, KRUN_LOG_LEVEL_OFF, KRUN_LOG_STYLE_AUTO, 0), -EEXIST);
    CHECK_INT(krun_init_log(-2, 0, 0, 0), -EINVAL);
    CHECK_INT(krun_set_log_level(KRUN_LOG_LEVEL_OFF), 0); /* standard error again */
    close(output);
    close(input);
}

/* ---- the machine ---- */

TEST(the_machine)
{
    uint32_t id = new_context();
    CHECK_INT(krun_set_vm_config(id, 0, 128), -EINVAL);
    CHECK_INT(krun_set_vm_config(id, 65, 128), -EINVAL);
    CHECK_INT(krun_set_vm_config(id, 255, 128), -EINVAL);
    CHECK_INT(krun_set_vm_config(id, 1, 0), -EINVAL);
    CHECK_INT(krun_set_vm_config(id, 1, 1), 0);
    CHECK_INT(krun_set_vm_config(id, 64, UINT32_MAX), 0); /* whether the host has as much is known at the start */
    CHECK_INT(krun_setuid(id, (uid_t)-2), 0);
    CHECK_INT(krun_setgid(id, (gid_t)-2), 0);
    CHECK_INT(krun_set_nested_virt(id, true), 0);
    CHECK_INT(krun_split_irqchip(id, true), 0);
    CHECK_INT(krun_free_ctx(id), 0);
}

/* ---- file systems ---- */

TEST(roots)
{
    uint32_t id = new_context();
    CHECK_REFUSES_TEXT(krun_set_root(id, text));
    CHECK_INT(krun_set_root(id, "/srv"), 0);
    CHECK_INT(krun_set_root(id, "/srv"), -EINVAL);
    CHECK_INT(krun_add_virtiofs3(id, KRUN_FS_ROOT_TAG, NULL, 0, true), -EINVAL);
    CHECK_INT(krun_add_disk(id, "a", "a.img", false), 0);
    CHECK_INT(krun_set_root_disk_remount(id, "/dev/vda", NULL, NULL), -EINVAL);
    CHECK_INT(krun_free_ctx(id), 0);
}

TEST(roots_on_disks)
{
    uint32_t id = new_context();
    CHECK_INT(krun_set_root_disk_remount(id, "/dev/vda", NULL, NULL), -EINVAL); /* there is no disk */
    CHECK_INT(krun_add_disk(id, "a", "a.img", false), 0);
    CHECK_REFUSES_TEXT(krun_set_root_disk_remount(id, text, NULL, NULL));
    CHECK_NOT_UTF8(krun_set_root_disk_remount(id, "/dev/vda", text, NULL));
    CHECK_NOT_UTF8(krun_set_root_disk_remount(id, "/dev/vda", NULL, text));
    CHECK_INT(krun_set_root_disk_remount(id, "/dev/vda", "auto", NULL), 0);
    CHECK_INT(krun_set_root_disk_remount(id, "/dev/vda", NULL, NULL), -EINVAL);
    CHECK_INT(krun_set_root(id, "/"), -EINVAL);
    CHECK_INT(krun_add_virtiofs(id, KRUN_FS_ROOT_TAG, "/"), -EINVAL);
    CHECK_INT(krun_add_virtiofs(id, "other", "/"), 0);
    CHECK_INT(krun_free_ctx(id), 0);
    id = new_context();
    CHECK_INT(krun_set_root_disk(id, "a.img"), 0);
    CHECK_INT(krun_set_root_disk_remount(id, "/dev/vda", NULL, NULL), -EINVAL); /* the older form has its own */
    CHECK_INT(krun_free_ctx(id), 0);
}

TEST(file_systems)
{
    uint32_t id = new_context();
    char tag[16];
    CHECK_REFUSES_TEXT(krun_add_virtiofs(id, text, "/"));
    CHECK_REFUSES_TEXT(krun_add_virtiofs2(id, text, "/", 0));
    CHECK_REFUSES_TEXT(krun_add_virtiofs3(id, text, "/", 0, false));
    CHECK_NOT_UTF8(krun_add_virtiofs(id, "a", text));
    CHECK_NOT_UTF8(krun_add_virtiofs2(id, "a", text, 0));
    CHECK_NOT_UTF8(krun_add_virtiofs3(id, "a", text, 0, true));
    CHECK_INT(krun_add_virtiofs(id, "a", NULL), 0);
    CHECK_INT(krun_add_virtiofs2(id, "a", "/", 0), -EINVAL);
    CHECK_INT(krun_add_virtiofs2(id, "b", "/", UINT64_MAX), 0);
    CHECK_INT(krun_add_virtiofs3(id, "\xc3\xa9", "/", 1, true), 0);
    for (int i = 3; i < 200; i++) {
        snprintf(tag, sizeof(tag), "fs%d", i);
        CHECK_INT(krun_add_virtiofs(id, tag, "/"), 0);
    }
    CHECK_INT(krun_add_virtiofs(id, "one-more", "/"), -E2BIG);
    CHECK_INT(krun_free_ctx(id), 0);
}

TEST(the_init)
{
    uint32_t id = new_context();
    const uint8_t *bytes = NULL;
    size_t length = 0;
    CHECK_INT(krun_get_default_init(NULL, &length), -EINVAL);
    CHECK_INT(krun_get_default_init(&bytes, NULL), -EINVAL);
    CHECK_INT(krun_get_default_init(NULL, NULL), -EINVAL);
    CHECK(bytes == NULL && length == 0);
    CHECK_INT(krun_get_default_init(&bytes, &length), 0);
    CHECK(length > 4096 && memcmp(bytes,
                                  "\x7f"
                                  "ELF",
                                  4) == 0);
    CHECK_INT(krun_disable_implicit_init(id), 0);
    CHECK_INT(krun_free_ctx(id), 0);
}

/* ---- files that only the guest sees ---- */

static int32_t add_file(uint32_t id, const char *path)
{
    static const uint8_t bytes[] = {1, 2, 3};
    return krun_fs_add_overlay_file(id, KRUN_FS_ROOT_TAG, path, bytes, sizeof(bytes), 0100644, false);
}

static int32_t add_folder(uint32_t id, const char *path)
{
    return krun_fs_add_overlay_dir(id, KRUN_FS_ROOT_TAG, path, 040755);
}

TEST(entries)
{
    static const uint8_t bytes[] = {1};
    static const char *const no_names[] = {"",   "/",   "//a",  "a//b", "a/",  ".",
                                           "..", "a/.", "a/..", "../a", "./a", "a/../b"};
    uint32_t id = new_context();
    CHECK_INT(add_file(id, "a"), -ENOENT); /* there is no such file system */
    CHECK_INT(add_folder(id, "a"), -ENOENT);
    CHECK_INT(krun_set_root(id, "/srv"), 0);
    CHECK_INT(krun_fs_add_overlay_file(id, "other", "a", bytes, 1, 0644, false), -ENOENT);
    CHECK_REFUSES_TEXT(krun_fs_add_overlay_file(id, text, "a", bytes, 1, 0644, false));
    CHECK_REFUSES_TEXT(add_file(id, text));
    CHECK_REFUSES_TEXT(krun_fs_add_overlay_dir(id, text, "a", 0755));
    CHECK_REFUSES_TEXT(add_folder(id, text));
    CHECK_INT(krun_fs_add_overlay_file(id, KRUN_FS_ROOT_TAG, "a", NULL, 1, 0644, false), -EINVAL);
    for (size_t i = 0; i < COUNT(no_names); i++) {
        CHECK_INT(add_file(id, no_names[i]), -EINVAL);
        CHECK_INT(add_folder(id, no_names[i]), -EINVAL);
    }
    CHECK_INT(add_file(id, "etc/hostname"), -ENOENT);
    CHECK_INT(add_folder(id, "etc/rc.d"), -ENOENT);
    CHECK_INT(add_folder(id, "etc"), 0);
    CHECK_INT(add_file(id, "etc/hostname"), 0);
    CHECK_INT(add_file(id, "/etc/hostname"), -EEXIST); /* with a slash before it, it is the same */
    CHECK_INT(add_folder(id, "etc"), -EEXIST);
    CHECK_INT(add_file(id, "etc"), -EEXIST);
    CHECK_INT(add_file(id, "etc/hostname/a"), -ENOTDIR);
    CHECK_INT(add_folder(id, "etc/hostname/a"), -ENOTDIR);
    CHECK_INT(add_file(id, "etc/hostname/a/b"), -ENOENT);
    CHECK_INT(krun_fs_add_overlay_file(id, KRUN_FS_ROOT_TAG, "empty", NULL, 0, 0, true), 0);
    CHECK_INT(add_file(id, "..."), 0);
    CHECK_INT(krun_free_ctx(id), 0);
}

TEST(entries_of_a_root_on_a_disk)
{
    uint32_t id = new_context();
    CHECK_INT(krun_add_disk(id, "a", "a.img", false), 0);
    CHECK_INT(krun_set_root_disk_remount(id, "/dev/vda", NULL, NULL), 0);
    CHECK_INT(add_file(id, "a"), 0);
    CHECK_INT(krun_free_ctx(id), 0);
}

/* ---- disks ---- */

TEST(disks)
{
    uint32_t id = new_context();
    CHECK_REFUSES_TEXT(krun_add_disk(id, text, "a.img", false));
    CHECK_REFUSES_TEXT(krun_add_disk(id, "a", text, false));
    CHECK_REFUSES_TEXT(krun_add_disk2(id, text, "a.img", KRUN_DISK_FORMAT_RAW, false));
    CHECK_REFUSES_TEXT(krun_add_disk2(id, "a", text, KRUN_DISK_FORMAT_RAW, false));
    CHECK_REFUSES_TEXT(krun_add_disk3(id, text, "a.img", KRUN_DISK_FORMAT_RAW, false, false, KRUN_SYNC_FULL));
    CHECK_REFUSES_TEXT(krun_add_disk3(id, "a", text, KRUN_DISK_FORMAT_RAW, false, false, KRUN_SYNC_FULL));
    CHECK_INT(krun_add_disk2(id, "a", "a.img", KRUN_DISK_FORMAT_VMDK + 1, false), -EINVAL);
    CHECK_INT(krun_add_disk2(id, "a", "a.img", UINT32_MAX, false), -EINVAL);
    CHECK_INT(krun_add_disk3(id, "a", "a.img", KRUN_DISK_FORMAT_RAW, false, false, KRUN_SYNC_FULL + 1), -EINVAL);
    CHECK_INT(krun_add_disk3(id, "a", "a.img", KRUN_DISK_FORMAT_RAW, false, false, UINT32_MAX), -EINVAL);
    CHECK_REFUSES_TEXT(krun_set_root_disk(id, text));
    CHECK_REFUSES_TEXT(krun_set_data_disk(id, text));
    for (int i = 0; i < 200; i++)
        CHECK_INT(krun_add_disk(id, "a", "a.img", false), 0); /* the same id, too: no guest sees it */
    CHECK_INT(krun_add_disk(id, "a", "a.img", false), -E2BIG);
    CHECK_INT(krun_set_root_disk(id, "b.img"), -EINVAL);
    CHECK_INT(krun_set_data_disk(id, "b.img"), -EINVAL);
    CHECK_INT(krun_free_ctx(id), 0);
}

TEST(disks_of_the_older_form)
{
    for (int is_data = 0; is_data < 2; is_data++) {
        uint32_t id = new_context();
        CHECK_INT((is_data ? krun_set_data_disk : krun_set_root_disk)(id, "a.img"), 0);
        CHECK_INT((is_data ? krun_set_data_disk : krun_set_root_disk)(id, "b.img"), 0); /* the last counts */
        CHECK_INT(krun_add_disk(id, "a", "a.img", false), -EINVAL);
        CHECK_INT(krun_add_disk2(id, "a", "a.img", KRUN_DISK_FORMAT_QCOW2, false), -EINVAL);
        CHECK_INT(krun_add_disk3(id, "a", "a.img", KRUN_DISK_FORMAT_RAW, false, true, KRUN_SYNC_NONE), -EINVAL);
        CHECK_INT(krun_free_ctx(id), 0);
    }
}

/* ---- networks ---- */

typedef int32_t add_net(uint32_t id, const char *path, int fd, uint8_t *address, uint32_t features, uint32_t flags);

static int32_t add_tap(uint32_t id, const char *name, int fd, uint8_t *address, uint32_t features, uint32_t flags)
{
    char *copy = name != NULL ? strdup(name) : NULL;
    int32_t result = krun_add_net_tap(id, copy, address, features, flags);
    (void)fd;
    free(copy);
    return result;
}

static void check_interface(add_net *add, uint32_t flags, bool has_fd)
{
    enum { unknown_features = ~(COMPAT_NET_FEATURES | NET_FEATURE_GUEST_TSO6 | NET_FEATURE_HOST_TSO6) };
    uint32_t id = new_context();
    int pair[2];
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    CHECK_INT(add(id, NULL, -1, mac, 0, 0), -EINVAL);
    CHECK_NOT_UTF8(add(id, text, -1, mac, 0, 0));
    CHECK_INT(add(id, "a", -1, NULL, 0, 0), -EINVAL);
    if (has_fd) {
        CHECK_INT(add(id, "a", pair[0], mac, 0, 0), -EINVAL);
        CHECK_INT(add(id, NULL, 12345, mac, 0, 0), -EBADF);
        CHECK_INT(add(id, NULL, pair[0], mac, 0, 0), 0);
    }
    for (int bit = 0; bit < 32; bit++) {
        bool is_known = (flags & (uint32_t)1 << bit) != 0;
        CHECK_INT(add(id, "a", -1, mac, 0, (uint32_t)1 << bit), is_known ? 0 : -EINVAL);
        if (((uint32_t)unknown_features & (uint32_t)1 << bit) != 0)
            CHECK_INT(add(id, "a", -1, mac, (uint32_t)1 << bit, 0), -EINVAL);
    }
    CHECK_INT(add(id, "a", -1, mac, COMPAT_NET_FEATURES, 0), 0);
    CHECK_INT(krun_set_passt_fd(id, pair[0]), -EINVAL); /* the older form excludes the newer */
    CHECK_INT(krun_set_gvproxy_path(id, passt_name), -EINVAL);
    CHECK_INT(krun_set_port_map(id, no_strings), -EINVAL);
    CHECK_INT(krun_free_ctx(id), 0);
    close(pair[0]);
    close(pair[1]);
}

static int32_t add_stream(uint32_t id, const char *path, int fd, uint8_t *address, uint32_t features, uint32_t flags)
{
    return krun_add_net_unixstream(id, path, fd, address, features, flags);
}

static int32_t add_gram(uint32_t id, const char *path, int fd, uint8_t *address, uint32_t features, uint32_t flags)
{
    return krun_add_net_unixgram(id, path, fd, address, features, flags);
}

TEST(interfaces_by_stream)
{
    check_interface(add_stream, NET_FLAG_DHCP_CLIENT, true);
}

TEST(interfaces_by_datagrams)
{
    check_interface(add_gram, NET_FLAG_DHCP_CLIENT | NET_FLAG_VFKIT, true);
}

TEST(interfaces_by_tap)
{
    check_interface(add_tap, NET_FLAG_DHCP_CLIENT, false);
}

TEST(a_tap_gives_nothing_unsummed_to_a_guest_that_cannot_sum)
{
    static const uint32_t offloads[] = {NET_FEATURE_GUEST_TSO4, NET_FEATURE_GUEST_TSO6, NET_FEATURE_GUEST_UFO};
    uint32_t id = new_context();
    for (size_t i = 0; i < COUNT(offloads); i++) {
        CHECK_INT(krun_add_net_tap(id, tap_name, mac, offloads[i], 0), -EINVAL);
        CHECK_INT(krun_add_net_tap(id, tap_name, mac, offloads[i] | NET_FEATURE_GUEST_CSUM, 0), 0);
    }
    CHECK_INT(krun_free_ctx(id), 0);
}

TEST(interfaces_are_200_at_most)
{
    uint32_t id = new_context();
    for (int i = 0; i < 200; i++)
        CHECK_INT(krun_add_net_unixstream(id, "a", -1, mac, 0, 0), 0);
    CHECK_INT(krun_add_net_unixstream(id, "a", -1, mac, 0, 0), -E2BIG);
    CHECK_INT(krun_free_ctx(id), 0);
}

TEST(an_interface_of_the_older_form)
{
    uint32_t id = new_context();
    char bad[] = "\xff", path[] = "gvproxy.sock";
    CHECK_INT(krun_set_passt_fd(id, -1), -EINVAL);
    CHECK_INT(krun_set_passt_fd(id, 12345), -EBADF);
    CHECK_INT(krun_set_gvproxy_path(id, NULL), -EINVAL);
    CHECK_INT(krun_set_gvproxy_path(id, bad), -EINVAL);
    CHECK_INT(krun_set_net_mac(id, NULL), -EINVAL);
    CHECK_INT(krun_set_net_mac(id, mac), 0);
    CHECK_INT(krun_set_port_map(id, no_strings), 0); /* none of these was an interface */
    CHECK_INT(krun_set_passt_fd(id, 0), 0);
    CHECK_INT(krun_set_gvproxy_path(id, path), 0); /* the last counts */
    CHECK_INT(krun_add_net_unixstream(id, "a", -1, mac, 0, 0), -EINVAL);
    CHECK_INT(krun_add_net_unixgram(id, "a", -1, mac, 0, 0), -EINVAL);
    CHECK_INT(krun_add_net_tap(id, tap_name, mac, 0, 0), -EINVAL);
    CHECK_INT(krun_set_port_map(id, no_strings), -EINVAL);
    CHECK_INT(krun_free_ctx(id), 0);
}

/* ---- vsock ---- */

TEST(port_maps)
{
    static const char *const bad[] = {"",     ":",    "1",    "1:",     ":1",   "1:2:3",   "a:1",
                                      "1:a",  "0:1",  "1:0",  "-1:1",   "1:-1", "65536:1", "1:65536",
                                      " 1:2", "1:2 ", "+1:2", "0x10:2", "1;2",  "\xff:1",  "99999999999999999999:1"};
    uint32_t id = new_context();
    for (size_t i = 0; i < COUNT(bad); i++)
        CHECK_INT(krun_set_port_map(id, (const char *const[]){bad[i], NULL}), -EINVAL);
    CHECK_INT(krun_set_port_map(id, (const char *const[]){"8080:80", "8080:81", NULL}), -EINVAL);
    CHECK_INT(krun_set_port_map(id, (const char *const[]){"8080:80", "8081:80", NULL}), -EINVAL);
    CHECK_INT(krun_set_port_map(id, (const char *const[]){"8080:80", "8081:81", NULL}), 0);
    CHECK_INT(krun_set_port_map(id, (const char *const[]){"1:65535", "65535:1", NULL}), 0);
    CHECK_INT(krun_set_port_map(id, NULL), 0);
    CHECK_INT(krun_disable_implicit_vsock(id), 0);
    CHECK_INT(krun_set_port_map(id, no_strings), -ENODEV);
    CHECK_INT(krun_free_ctx(id), 0);
}

TEST(port_maps_hold_1024_at_most)
{
    enum { most = 1024 };
    static char texts[most + 1][16];
    static const char *map[most + 2];
    uint32_t id = new_context();
    for (int i = 0; i < most + 1; i++) {
        snprintf(texts[i], sizeof(texts[i]), "%d:%d", 1000 + i, 2000 + i);
        map[i] = texts[i];
    }
    CHECK_INT(krun_set_port_map(id, map), -E2BIG);
    map[most] = NULL;
    CHECK_INT(krun_set_port_map(id, map), 0);
    CHECK_INT(krun_free_ctx(id), 0);
}

TEST(a_vsock_device)
{
    uint32_t id = new_context();
    CHECK_INT(krun_add_vsock(id, 0), -EEXIST); /* there is one already */
    CHECK_INT(krun_add_vsock(id, 4), -EINVAL);
    CHECK_INT(krun_add_vsock(id, UINT32_MAX), -EINVAL);
    CHECK_INT(krun_disable_implicit_vsock(id), 0);
    CHECK_INT(krun_add_vsock_port(id, 1, "a.sock"), -ENODEV);
    CHECK_INT(krun_add_vsock_port2(id, 1, test_folder(), true), -EEXIST);
    CHECK_INT(krun_add_vsock(id, KRUN_TSI_HIJACK_INET | KRUN_TSI_HIJACK_UNIX), 0);
    CHECK_INT(krun_add_vsock(id, 0), -EEXIST);
    CHECK_INT(krun_add_vsock_port(id, 1, "a.sock"), 0);
    CHECK_INT(krun_set_port_map(id, no_strings), 0);
    CHECK_INT(krun_free_ctx(id), 0);
}

TEST(vsock_ports)
{
    uint32_t id = new_context();
    char path[4200];
    const char *file = test_text_file("file", "");
    CHECK_REFUSES_TEXT(krun_add_vsock_port(id, 1, text));
    CHECK_REFUSES_TEXT(krun_add_vsock_port2(id, 1, text, false));
    CHECK_REFUSES_TEXT(krun_add_vsock_port2(id, 1, text, true));
    CHECK_INT(krun_add_vsock_port2(id, 1, file, false), 0); /* what listens there is seen when the guest connects */
    CHECK_INT(krun_add_vsock_port2(id, 1, file, true), -EEXIST);
    snprintf(path, sizeof(path), "%s/below", file);
    CHECK_INT(krun_add_vsock_port2(id, 1, path, true), -EINVAL);
    snprintf(path, sizeof(path), "%s/link", test_folder());
    CHECK_INT(symlink("nowhere", path), 0);
    CHECK_INT(krun_add_vsock_port2(id, 1, path, true), -EEXIST);
    for (uint32_t port = 2; port <= 1024; port++)
        CHECK_INT(krun_add_vsock_port(id, port, "a.sock"), 0);
    CHECK_INT(krun_add_vsock_port(id, 1, "b.sock"), 0); /* the last for a port counts */
    CHECK_INT(krun_add_vsock_port(id, 1025, "a.sock"), -E2BIG);
    CHECK_INT(krun_free_ctx(id), 0);
}

TEST(two_calls_of_an_older_fork)
{
    static const char *const bad[] = {"", "localhost", "127.0.0", "127.0.0.1.1", "127.0.0.256", "::1", "127.0.0.1 "};
    uint32_t id = new_context();
    CHECK_REFUSES_TEXT(krun_set_tsi_rewrite_ip(id, text));
    for (size_t i = 0; i < COUNT(bad); i++)
        CHECK_INT(krun_set_tsi_rewrite_ip(id, bad[i]), -EINVAL);
    CHECK_INT(krun_set_tsi_rewrite_ip(id, "127.0.0.2"), 0);
    CHECK_INT(krun_set_tsi_rewrite_ip(id, "127.0.0.3"), 0);
    CHECK_INT(krun_enable_tsi_local_only(id, true), 0);
    CHECK_INT(krun_free_ctx(id), 0);
}

/* ---- the program ---- */

TEST(the_program)
{
    uint32_t id = new_context();
    const char *with_bad[] = {"good", "\xff", NULL};
    CHECK_REFUSES_TEXT(krun_set_exec(id, text, no_strings, no_strings));
    CHECK_INT(krun_set_exec(id, "/bin/sh", with_bad, no_strings), -EINVAL);
    CHECK_INT(krun_set_exec(id, "/bin/sh", no_strings, with_bad), -EINVAL);
    CHECK_INT(krun_set_exec(id, "/bin/sh", NULL, NULL), 0);
    CHECK_INT(krun_set_exec(id, "", no_strings, no_strings), 0); /* the guest's configuration may say */
    CHECK_INT(krun_set_env(id, with_bad), -EINVAL);
    CHECK_INT(krun_set_env(id, NULL), 0);
    CHECK_INT(krun_set_env(id, (const char *const[]){"no variable", "=C:=C:\\", "A=1", NULL}), 0);
    CHECK_REFUSES_TEXT(krun_set_workdir(id, text));
    CHECK_INT(krun_set_workdir(id, "srv"), 0);
    CHECK_INT(krun_free_ctx(id), 0);
}

TEST(limits_of_the_program)
{
    static const char *const bad[] = {"",      "7",       "7=",      "7=1",    "7=1:",   "7=:1",     "=1:2",  "x=1:2",
                                      "7=2:1", "7=1:2:3", "999=1:2", "-1=1:2", "7=-1:2", "\xff=1:2", "7 =1:2"};
    uint32_t id = new_context();
    CHECK_INT(krun_set_rlimits(id, NULL), -EINVAL);
    for (size_t i = 0; i < COUNT(bad); i++)
        if (krun_set_rlimits(id, (const char *const[]){bad[i], NULL}) != -EINVAL)
            test_fail(__FILE__, __LINE__, "\"%s\" is taken", bad[i]);
    CHECK_INT(krun_set_rlimits(id, (const char *const[]){"6=4096:8192", "7=1048576:1048576", NULL}), 0);
    CHECK_INT(krun_set_rlimits(id, no_strings), 0);
    CHECK_INT(krun_free_ctx(id), 0);
}

/* ---- consoles ---- */

TEST(the_implicit_console)
{
    uint32_t id = new_context();
    CHECK_REFUSES_TEXT(krun_set_console_output(id, text));
    CHECK_INT(krun_set_console_output(id, "a.log"), 0);
    CHECK_INT(krun_set_console_output(id, "b.log"), -EINVAL);
    CHECK_REFUSES_TEXT(krun_set_kernel_console(id, text));
    CHECK_INT(krun_set_kernel_console(id, "ttyS0"), 0);
    CHECK_INT(krun_disable_implicit_console(id), 0);
    CHECK_INT(krun_free_ctx(id), 0);
}

TEST(consoles)
{
    uint32_t id = new_context();
    int terminal, other;
    CHECK_INT(openpty(&terminal, &other, NULL, NULL, NULL), 0);
    int file = open("/dev/null", O_RDWR | O_CLOEXEC);
    CHECK_INT(krun_add_virtio_console_default(id, 12345, 1, 2), -EBADF);
    CHECK_INT(krun_add_virtio_console_default(id, 0, 12345, 2), -EBADF);
    CHECK_INT(krun_add_virtio_console_default(id, 0, 1, 12345), -EBADF);
    CHECK_INT(krun_add_virtio_console_default(id, -1, -1, -1), 0);
    CHECK_INT(krun_add_virtio_console_multiport(id), 1);
    CHECK_INT(krun_add_virtio_console_multiport(id), 2);
    CHECK_INT(krun_add_console_port_tty(id, 1, "a", -1), -EINVAL);
    CHECK_INT(krun_add_console_port_tty(id, 1, "a", 12345), -ENOTTY);
    CHECK_INT(krun_add_console_port_tty(id, 1, "a", file), -ENOTTY);
    CHECK_NOT_UTF8(krun_add_console_port_tty(id, 1, text, other));
    CHECK_INT(krun_add_console_port_tty(0xffffffff, 1, "a", other), -ENOENT);
    CHECK_INT(krun_add_console_port_tty(id, 0, "a", other), -EINVAL); /* a console of three descriptors has no ports */
    CHECK_INT(krun_add_console_port_tty(id, 3, "a", other), -EINVAL);
    CHECK_INT(krun_add_console_port_tty(id, UINT32_MAX, "a", other), -EINVAL);
    CHECK_INT(krun_add_console_port_tty(id, 1, NULL, other), 0);
    CHECK_NOT_UTF8(krun_add_console_port_inout(id, 1, text, file, file));
    CHECK_INT(krun_add_console_port_inout(id, 1, "b", 12345, -1), -EBADF);
    CHECK_INT(krun_add_console_port_inout(id, 1, "b", -1, 12345), -EBADF);
    CHECK_INT(krun_add_console_port_inout(id, 0, "b", file, file), -EINVAL);
    CHECK_INT(krun_add_console_port_inout(id, 1, "", file, -1), 0);
    CHECK_INT(krun_free_ctx(id), 0);
    close(terminal);
    close(other);
    close(file);
}

TEST(consoles_and_their_ports_are_64_at_most)
{
    uint32_t id = new_context();
    for (int i = 0; i < 64; i++)
        CHECK_INT(krun_add_virtio_console_multiport(id), i);
    CHECK_INT(krun_add_virtio_console_multiport(id), -E2BIG);
    CHECK_INT(krun_add_virtio_console_default(id, -1, -1, -1), -E2BIG);
    for (uint32_t i = 0; i < 64; i++)
        CHECK_INT(krun_add_console_port_inout(id, i, "a", -1, -1), 0);
    CHECK_INT(krun_add_console_port_inout(id, 0, "a", 0, 1), -E2BIG);
    CHECK_INT(krun_free_ctx(id), 0);
}

TEST(serial_ports_are_four_at_most)
{
    uint32_t id = new_context();
    CHECK_INT(krun_add_serial_console_default(id, 12345, 1), -EBADF);
    CHECK_INT(krun_add_serial_console_default(id, 0, 12345), -EBADF);
    for (int i = 0; i < 4; i++)
        CHECK_INT(krun_add_serial_console_default(id, i == 0 ? -1 : 0, 1), 0);
    CHECK_INT(krun_add_serial_console_default(id, 0, 1), -ENOSPC);
    CHECK_INT(krun_free_ctx(id), 0);
}

/* ---- the kernel ---- */

TEST(the_kernel)
{
    uint32_t id = new_context();
    const char *initramfs = test_text_file("initramfs", "");
    CHECK_REFUSES_TEXT(krun_set_kernel(id, text, KRUN_KERNEL_FORMAT_ELF, NULL, NULL));
    CHECK_NOT_UTF8(krun_set_kernel(id, "vmlinux", KRUN_KERNEL_FORMAT_ELF, text, NULL));
    CHECK_NOT_UTF8(krun_set_kernel(id, "vmlinux", KRUN_KERNEL_FORMAT_ELF, NULL, text));
    CHECK_INT(krun_set_kernel(id, "vmlinux", KRUN_KERNEL_FORMAT_IMAGE_ZSTD + 1, NULL, NULL), -EINVAL);
    CHECK_INT(krun_set_kernel(id, "vmlinux", UINT32_MAX, NULL, NULL), -EINVAL);
    CHECK_INT(krun_set_kernel(id, "vmlinux", KRUN_KERNEL_FORMAT_ELF, "/nonexistent", NULL), -EINVAL);
    for (uint32_t format = 0; format <= KRUN_KERNEL_FORMAT_IMAGE_ZSTD; format++)
        CHECK_INT(krun_set_kernel(id, "vmlinux", format, initramfs, "quiet"), 0);
    CHECK_INT(krun_free_ctx(id), 0);
}
