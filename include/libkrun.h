/* SPDX-License-Identifier: Apache-2.0 */
/* The interface of libkrun 1.x, as Vial's libkrun.so.1 provides it: a program that was compiled for the one runs on the
 * other. libkrun-compat(7) says call by call what is supported, what is refused, and what differs.
 *
 *     int32_t ctx = krun_create_ctx();
 *     krun_set_vm_config(ctx, 2, 512);
 *     krun_set_root(ctx, "/srv/root");
 *     krun_set_exec(ctx, "/bin/ls", args, NULL);
 *     return -krun_start_enter(ctx);             // does not return: the process ends with the program's exit code
 *
 * A call returns 0, or where it says so a positive number, or a negative errno: -ENOENT for a context that does not
 * exist, -EINVAL for an argument that makes no sense (text that is NULL or not UTF-8 among them) or contradicts another
 * setting, -E2BIG where there is no room for one more, -ENOTSUP for what this build has no device for. What a call is
 * given is copied; of an array of strings, which ends with NULL, the first 4096. Descriptors are duplicated.
 *
 * Calls may be made on any thread. A context is only a description: nothing runs before krun_start_enter.
 */
#ifndef LIBKRUN_H
#define LIBKRUN_H

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h> /* as in libkrun's own, for programs that take it for granted */

#ifdef __cplusplus
extern "C" {
#endif

/* ---- log ---- */

#define KRUN_LOG_TARGET_DEFAULT (-1) /* standard error */

#define KRUN_LOG_LEVEL_OFF 0
#define KRUN_LOG_LEVEL_ERROR 1
#define KRUN_LOG_LEVEL_WARN 2
#define KRUN_LOG_LEVEL_INFO 3
#define KRUN_LOG_LEVEL_DEBUG 4
#define KRUN_LOG_LEVEL_TRACE 5

#define KRUN_LOG_STYLE_AUTO 0
#define KRUN_LOG_STYLE_ALWAYS 1
#define KRUN_LOG_STYLE_NEVER 2

#define KRUN_LOG_OPTION_NO_ENV 1 /* $RUST_LOG does not override the level */

/* The level, on standard error. */
int32_t krun_set_log_level(uint32_t level);

/* Once in a process; -EEXIST after that. */
int32_t krun_init_log(int target_fd, uint32_t level, uint32_t style, uint32_t options);

/* ---- contexts ---- */

/* The number of a new context. It describes a machine with 1 vCPU and 128 MiB. */
int32_t krun_create_ctx(void);
int32_t krun_free_ctx(uint32_t ctx_id);

int32_t krun_set_vm_config(uint32_t ctx_id, uint8_t num_vcpus, uint32_t ram_mib);

/* Runs the machine and ends the process with the exit code of its program: 125, the guest could not be set up; 126, the
 * program cannot be executed; 127, there is no such program; 128 + n, signal n killed it. Returns only where the
 * machine cannot be started, a negative errno that fits the cause, which one line on the log names together with what
 * to do about it. The context is gone in any case, and the ids of krun_setuid and krun_setgid may be taken on. */
int32_t krun_start_enter(uint32_t ctx_id);

/* ---- root and file systems ---- */

#define KRUN_FS_ROOT_TAG "/dev/root"

int32_t krun_set_root(uint32_t ctx_id, const char *root_path);

/* A folder of the host that the guest mounts by its tag (virtiofs); shm_size: of its DAX window in bytes, 0 for none.
 * Without a path it is empty. */
int32_t krun_add_virtiofs(uint32_t ctx_id, const char *c_tag, const char *c_path);
int32_t krun_add_virtiofs2(uint32_t ctx_id, const char *c_tag, const char *c_path, uint64_t shm_size);
int32_t krun_add_virtiofs3(uint32_t ctx_id, const char *c_tag, const char *c_path, uint64_t shm_size, bool read_only);

/* A file, or an empty folder, that only the guest sees. -ENOENT: there is no such file system, or the folder that it is
 * to lie in was not added; -ENOTDIR: that is a file. */
int32_t krun_fs_add_overlay_file(uint32_t ctx_id, const char *fs_tag, const char *path, const uint8_t *data,
                                 size_t data_len, uint32_t mode, bool one_shot);
int32_t krun_fs_add_overlay_dir(uint32_t ctx_id, const char *fs_tag, const char *path, uint32_t mode);

/* The file system of a disk as the root, mounted by the init. fstype NULL or "auto": as its content says. */
int32_t krun_set_root_disk_remount(uint32_t ctx_id, const char *device, const char *fstype, const char *options);

/* The init, /init.krun of the root, is not put there; this is the one that would be. */
int32_t krun_disable_implicit_init(uint32_t ctx_id);
int32_t krun_get_default_init(const uint8_t **data_out, size_t *len_out);

/* Refused with -EINVAL. */
int32_t krun_set_mapped_volumes(uint32_t ctx_id, const char *const mapped_volumes[]);

/* ---- disks ---- */

#define KRUN_DISK_FORMAT_RAW 0
#define KRUN_DISK_FORMAT_QCOW2 1
#define KRUN_DISK_FORMAT_VMDK 2 /* read-only */

#define KRUN_SYNC_NONE 0 /* the guest is offered no flush */
#define KRUN_SYNC_RELAXED 1
#define KRUN_SYNC_FULL 2

/* /dev/vda, /dev/vdb and so on, in the order of the calls. */
int32_t krun_add_disk(uint32_t ctx_id, const char *block_id, const char *disk_path, bool read_only);
int32_t krun_add_disk2(uint32_t ctx_id, const char *block_id, const char *disk_path, uint32_t disk_format,
                       bool read_only);
int32_t krun_add_disk3(uint32_t ctx_id, const char *block_id, const char *disk_path, uint32_t disk_format,
                       bool read_only, bool direct_io, uint32_t sync_mode);

/* The older form, raw disks only; not together with the one above. */
int32_t krun_set_root_disk(uint32_t ctx_id, const char *disk_path);
int32_t krun_set_data_disk(uint32_t ctx_id, const char *disk_path);

/* ---- network ---- */

#define NET_FLAG_VFKIT (1 << 0)       /* greet with "VFKT" (unixgram by path) */
#define NET_FLAG_DHCP_CLIENT (1 << 1) /* the init asks for eth0's address */

#define NET_FEATURE_CSUM (1 << 0)
#define NET_FEATURE_GUEST_CSUM (1 << 1)
#define NET_FEATURE_GUEST_TSO4 (1 << 7)
#define NET_FEATURE_GUEST_TSO6 (1 << 8)
#define NET_FEATURE_GUEST_UFO (1 << 10)
#define NET_FEATURE_HOST_TSO4 (1 << 11)
#define NET_FEATURE_HOST_TSO6 (1 << 12)
#define NET_FEATURE_HOST_UFO (1 << 14)

#define COMPAT_NET_FEATURES                                                                                            \
    (NET_FEATURE_CSUM | NET_FEATURE_GUEST_CSUM | NET_FEATURE_GUEST_TSO4 | NET_FEATURE_GUEST_UFO |                      \
     NET_FEATURE_HOST_TSO4 | NET_FEATURE_HOST_UFO)

/* eth0, eth1 and so on, in the order of the calls: by the path of a socket, or by a connected descriptor (else -1). The
 * frames of a stream stand behind their length (passt), those of a datagram socket alone (gvproxy). */
int32_t krun_add_net_unixstream(uint32_t ctx_id, const char *c_path, int fd, uint8_t *const c_mac, uint32_t features,
                                uint32_t flags);
int32_t krun_add_net_unixgram(uint32_t ctx_id, const char *c_path, int fd, uint8_t *const c_mac, uint32_t features,
                              uint32_t flags);
int32_t krun_add_net_tap(uint32_t ctx_id, char *c_tap_name, uint8_t *const c_mac, uint32_t features, uint32_t flags);

/* The older form, one interface only. */
int32_t krun_set_passt_fd(uint32_t ctx_id, int fd);
int32_t krun_set_gvproxy_path(uint32_t ctx_id, char *c_path);
int32_t krun_set_net_mac(uint32_t ctx_id, uint8_t *const c_mac);

/* ---- vsock and TSI ---- */

#define KRUN_TSI_HIJACK_INET (1 << 0)
#define KRUN_TSI_HIJACK_UNIX (1 << 1)

/* "host:guest" ports. Without a map (NULL, or no call) every listener of the guest is published, with an empty one
 * none. -EINVAL with a network interface, -ENODEV without a vsock device. */
int32_t krun_set_port_map(uint32_t ctx_id, const char *const port_map[]);

/* A vsock port as a Unix socket of the host: the guest connects to it, or with `listen` the host, for which the socket
 * is made: -EEXIST when something has that path already. */
int32_t krun_add_vsock_port(uint32_t ctx_id, uint32_t port, const char *c_filepath);
int32_t krun_add_vsock_port2(uint32_t ctx_id, uint32_t port, const char *c_filepath, bool listen);

/* A vsock device is there without a call, with TSI unless there is a network interface. One's own comes after it was
 * disabled; -EEXIST before, and for a second one. */
int32_t krun_disable_implicit_vsock(uint32_t ctx_id);
int32_t krun_add_vsock(uint32_t ctx_id, uint32_t tsi_features);

/* Two calls of an older fork: an address of the loopback that stands for the guest's 127.0.0.1; and whether connections
 * that lead away from the loopback are refused. */
int32_t krun_set_tsi_rewrite_ip(uint32_t ctx_id, const char *ip);
int32_t krun_enable_tsi_local_only(uint32_t ctx_id, bool enable);

/* ---- the program ---- */

/* Arguments are those behind the program's name. envp NULL: this process's environment. */
int32_t krun_set_exec(uint32_t ctx_id, const char *exec_path, const char *const argv[], const char *const envp[]);
int32_t krun_set_env(uint32_t ctx_id, const char *const envp[]);
int32_t krun_set_workdir(uint32_t ctx_id, const char *workdir_path);

/* "RESOURCE=SOFT:HARD", the resource as Linux numbers it. */
int32_t krun_set_rlimits(uint32_t ctx_id, const char *const rlimits[]);

/* ---- consoles ---- */

/* What the program prints goes to a file, and it reads nothing. -EINVAL for a second call. */
int32_t krun_set_console_output(uint32_t ctx_id, const char *c_filepath);
int32_t krun_disable_implicit_console(uint32_t ctx_id);
int32_t krun_set_kernel_console(uint32_t ctx_id, const char *console_id);

int32_t krun_add_virtio_console_default(uint32_t ctx_id, int input_fd, int output_fd, int err_fd);
int32_t krun_add_serial_console_default(uint32_t ctx_id, int input_fd, int output_fd);

/* The number of a console whose ports are then added one by one; -ENOTTY for a descriptor that is no terminal. */
int32_t krun_add_virtio_console_multiport(uint32_t ctx_id);
int32_t krun_add_console_port_tty(uint32_t ctx_id, uint32_t console_id, const char *name, int tty_fd);
int32_t krun_add_console_port_inout(uint32_t ctx_id, uint32_t console_id, const char *name, int input_fd,
                                    int output_fd);

/* ---- kernel ---- */

#define KRUN_KERNEL_FORMAT_RAW 0
#define KRUN_KERNEL_FORMAT_ELF 1
#define KRUN_KERNEL_FORMAT_PE_GZ 2
#define KRUN_KERNEL_FORMAT_IMAGE_BZ2 3
#define KRUN_KERNEL_FORMAT_IMAGE_GZ 4
#define KRUN_KERNEL_FORMAT_IMAGE_ZSTD 5

/* Without this call the kernel is that of the libkrunfw.so.5 that the dynamic loader finds, and else Vial's own. */
int32_t krun_set_kernel(uint32_t ctx_id, const char *kernel_path, uint32_t kernel_format, const char *initramfs,
                        const char *cmdline);

int32_t krun_set_firmware(uint32_t ctx_id, const char *firmware_path);
int32_t krun_set_tee_config_file(uint32_t ctx_id, const char *filepath);
int32_t krun_set_smbios_oem_strings(uint32_t ctx_id, const char *const oem_strings[]);

/* ---- host ---- */

/* Taken on when disks are open, before folders and sockets are, and before anything of the guest has run. Other groups
 * of the process are given up. */
int32_t krun_setuid(uint32_t ctx_id, uid_t uid);
int32_t krun_setgid(uint32_t ctx_id, gid_t gid);

int32_t krun_set_nested_virt(uint32_t ctx_id, bool enabled);
int32_t krun_check_nested_virt(void); /* 1 or 0 */
int32_t krun_split_irqchip(uint32_t ctx_id, bool enable);
int32_t krun_get_max_vcpus(void);
int32_t krun_get_shutdown_eventfd(uint32_t ctx_id); /* -EINVAL on this architecture */

#define KRUN_FEATURE_NET 0
#define KRUN_FEATURE_BLK 1
#define KRUN_FEATURE_GPU 2
#define KRUN_FEATURE_INPUT 4
#define KRUN_FEATURE_TEE 6
#define KRUN_FEATURE_AMD_SEV 7
#define KRUN_FEATURE_INTEL_TDX 8
#define KRUN_FEATURE_AWS_NITRO 9
#define KRUN_FEATURE_VIRGL_RESOURCE_MAP2 10
#define KRUN_FEATURE_INIT_BLOB 11

/* 1 or 0; -EINVAL for a number that means nothing. */
int32_t krun_has_feature(uint64_t feature);

/* ---- what this build has no device for: -ENOTSUP ---- */

#define VIRGLRENDERER_USE_EGL (1 << 0)
#define VIRGLRENDERER_THREAD_SYNC (1 << 1)
#define VIRGLRENDERER_USE_GLX (1 << 2)
#define VIRGLRENDERER_USE_SURFACELESS (1 << 3)
#define VIRGLRENDERER_USE_GLES (1 << 4)
#define VIRGLRENDERER_USE_EXTERNAL_BLOB (1 << 5)
#define VIRGLRENDERER_VENUS (1 << 6)
#define VIRGLRENDERER_NO_VIRGL (1 << 7)
#define VIRGLRENDERER_USE_ASYNC_FENCE_CB (1 << 8)
#define VIRGLRENDERER_RENDER_SERVER (1 << 9)
#define VIRGLRENDERER_DRM (1 << 10)

int32_t krun_set_gpu_options(uint32_t ctx_id, uint32_t virgl_flags);
int32_t krun_set_gpu_options2(uint32_t ctx_id, uint32_t virgl_flags, uint64_t shm_size);

#define KRUN_MAX_DISPLAYS 16

int32_t krun_add_display(uint32_t ctx_id, uint32_t width, uint32_t height);
int32_t krun_display_set_edid(uint32_t ctx_id, uint32_t display_id, const uint8_t *edid_blob, size_t blob_size);
int32_t krun_display_set_dpi(uint32_t ctx_id, uint32_t display_id, uint32_t dpi);
int32_t krun_display_set_physical_size(uint32_t ctx_id, uint32_t display_id, uint16_t width_mm, uint16_t height_mm);
int32_t krun_display_set_refresh_rate(uint32_t ctx_id, uint32_t display_id, uint32_t refresh_rate);
int32_t krun_set_display_backend(uint32_t ctx_id, const void *display_backend, size_t backend_size);

int krun_add_input_device(uint32_t ctx_id, const void *config_backend, size_t config_backend_size,
                          const void *events_backend, size_t events_backend_size);
int krun_add_input_device_fd(uint32_t ctx_id, int input_fd);

#define KRUN_VIRTIO_DEVICE_CONSOLE 3
#define KRUN_VIRTIO_DEVICE_RNG 4
#define KRUN_VIRTIO_DEVICE_GPU 16
#define KRUN_VIRTIO_DEVICE_RTC 17
#define KRUN_VIRTIO_DEVICE_INPUT 18
#define KRUN_VIRTIO_DEVICE_VSOCK 19
#define KRUN_VIRTIO_DEVICE_SND 25
#define KRUN_VIRTIO_DEVICE_CAN 36

#define KRUN_VHOST_USER_CONSOLE_NUM_QUEUES 4
#define KRUN_VHOST_USER_CONSOLE_QUEUE_SIZES ((uint16_t[]){128, 128, 64, 64})
#define KRUN_VHOST_USER_RNG_NUM_QUEUES 1
#define KRUN_VHOST_USER_RNG_QUEUE_SIZES ((uint16_t[]){256})
#define KRUN_VHOST_USER_RTC_NUM_QUEUES 2
#define KRUN_VHOST_USER_RTC_QUEUE_SIZES ((uint16_t[]){1024, 1024})
#define KRUN_VHOST_USER_INPUT_NUM_QUEUES 2
#define KRUN_VHOST_USER_INPUT_QUEUE_SIZES ((uint16_t[]){1024, 1024})
#define KRUN_VHOST_USER_SND_NUM_QUEUES 4
#define KRUN_VHOST_USER_SND_QUEUE_SIZES ((uint16_t[]){64, 64, 64, 64})
#define KRUN_VHOST_USER_VSOCK_NUM_QUEUES 3
#define KRUN_VHOST_USER_VSOCK_QUEUE_SIZES ((uint16_t[]){128, 128, 128})
#define KRUN_VHOST_USER_CAN_NUM_QUEUES 3
#define KRUN_VHOST_USER_CAN_QUEUE_SIZES ((uint16_t[]){64, 64, 64})
#define KRUN_VHOST_USER_GPU_NUM_QUEUES 2
#define KRUN_VHOST_USER_GPU_QUEUE_SIZES ((uint16_t[]){1024, 1024})

int32_t krun_add_vhost_user_device(uint32_t ctx_id, uint32_t device_type, const char *socket_path, const char *name,
                                   uint16_t num_queues, const uint16_t *queue_sizes);

#ifdef __cplusplus
}
#endif

#endif
