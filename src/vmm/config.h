// SPDX-License-Identifier: Apache-2.0
/* The configuration of a machine, as the rest of the library sees it.
 *
 * Everything is owned by the configuration: strings and arrays are copies, descriptors are duplicates. Members carry
 * the names of the JSON file.
 */
#ifndef VMM_CONFIG_H
#define VMM_CONFIG_H

#include "base/limits.h"
#include "vial/vmm.h"

#include <stdatomic.h>
#include <stddef.h>

#define CONFIG_ROOT_TAG "/dev/root"
#define CONFIG_DEFAULT_INIT "/init.krun"

/* Ports of the console that a program in the guest takes: its streams, and what its init is told. */
enum { CONFIG_EXEC_PORTS = 4 };

struct host_capacity;

struct string_list {
    char **items; /* owned, as is each item */
    size_t count, capacity;
};

struct machine_config {
    uint64_t memory_mib;
    uint32_t vcpus;
    uint32_t balloon_stats_interval_ms;
    bool hyperthreading, nested_virtualization, split_irqchip, vsock, balloon, rng, metrics, inet_hijack, huge_pages;
    bool insecure_no_jail;
    uint8_t acpi, engine; /* enum vial_acpi and vial_engine, or what a caller has put there */
};

struct kernel_config {
    char *path, *initramfs, *krunfw, *init; /* owned; NULL when not given */
    char *cmdline;                          /* owned; what is appended, or NULL */
    enum vial_kernel_format format;
};

struct fs_config {
    char *tag, *path; /* owned; path is NULL with a custom backend */
    uint64_t dax_window_mib;
    bool read_only, is_custom;
    struct vial_fs_ops ops;
    void *ops_user; /* borrowed until ops.release */
};

struct mapped_dir_config {
    char *tag, *host, *guest; /* owned */
    bool read_only;
};

struct disk_config {
    char *id, *path; /* owned */
    enum vial_disk_format format;
    enum vial_disk_cache cache;
    enum vial_disk_sync sync;
    bool read_only, direct_io;
};

struct net_config {
    enum vial_net_kind kind;
    int fd;     /* owned, or -1 */
    char *path; /* owned; NULL with a descriptor or a custom backend */
    uint32_t features;
    uint8_t mac[6];
    bool vfkit, has_ops;
    struct vial_net_ops ops;
    void *ops_user; /* borrowed until ops.release */
};

struct port_config {
    uint16_t host, guest;
};

struct vsock_port_config {
    char *path; /* owned */
    uint32_t port;
    bool listen;
};

struct console_port_config {
    char *name; /* owned */
    enum vial_console_port_kind kind;
    int input_fd, output_fd, tty_fd; /* owned, or -1 */
    bool has_ops;
    struct vial_console_ops ops;
    void *ops_user; /* borrowed until ops.release */
};

struct serial_config {
    int input_fd, output_fd; /* owned, or -1 */
};

struct rlimit_config {
    uint32_t resource;
    uint64_t soft, hard; /* RLIM_INFINITY: unlimited */
};

struct observer_config {
    vial_exit_observer function;
    void *user; /* borrowed */
};

struct vial_vm_config {
    atomic_uint references; /* the caller's, and one for each machine that was started with it */
    struct machine_config machine;
    int log_level; /* enum vial_log_level, or -1: the hook's own */
    struct kernel_config kernel;

    bool has_root;
    struct fs_config root;
    struct fs_config *fs; /* owned, as are the other arrays */
    size_t fs_count, fs_capacity;
    struct mapped_dir_config *mapped_dirs;
    size_t mapped_dir_count, mapped_dir_capacity;
    size_t fs_total; /* file systems so far, the root among them: the next default tag */

    struct disk_config *disks;
    size_t disk_count, disk_capacity;

    struct net_config *net;
    size_t net_count, net_capacity;
    struct port_config *port_map;
    size_t port_count, port_capacity;
    struct vsock_port_config *vsock_ports;
    size_t vsock_port_count, vsock_port_capacity;
    char *assigned_ip; /* owned, or NULL */
    bool local_only;

    char *console_output; /* owned, or NULL */
    bool has_implicit_console;
    struct console_port_config *console_ports;
    size_t console_port_count, console_port_capacity;
    struct serial_config serials[LIMIT_SERIALS];
    size_t serial_count;
    bool has_gpu, has_sound;
    uint32_t gpu_virgl_flags;
    uint64_t gpu_shared_memory_mib;

    char *exec_path, *exec_workdir; /* owned, or NULL */
    struct string_list exec_args, exec_env;
    uint32_t exec_uid, exec_gid;
    bool has_exec_uid, has_exec_gid;
    struct rlimit_config *rlimits;
    size_t rlimit_count, rlimit_capacity;

    struct observer_config *observers;
    size_t observer_count, observer_capacity;
};

/* The first process, or NULL where the kernel is to look for it: in an initramfs. */
static inline const char *config_init(const struct vial_vm_config *config)
{
    if (config->kernel.init != NULL)
        return config->kernel.init;
    return config->has_root ? CONFIG_DEFAULT_INIT : NULL;
}

/* The ports that the machine's console has at most: the one on standard input and output or in a file, those that were
 * added, and those through which a program is run. */
static inline size_t config_most_console_ports(const struct vial_vm_config *config)
{
    bool has_program = config->exec_path != NULL;
    bool has_main = config->console_output != NULL || (config->has_implicit_console && !has_program);
    return has_main + config->console_port_count + (has_program ? CONFIG_EXEC_PORTS : 0);
}

/* Names of the enumerations as the JSON file spells them, in the enumerations' order, NULL at the end. */
extern const char *const config_acpi[];
extern const char *const config_engines[];
extern const char *const config_kernel_formats[];
extern const char *const config_disk_formats[]; /* from VIAL_DISK_RAW on */
extern const char *const config_disk_caches[];
extern const char *const config_disk_syncs[];
extern const char *const config_net_kinds[]; /* from VIAL_NET_UNIXGRAM on */

extern const struct config_net_feature {
    const char *name;
    uint32_t bit;
} config_net_features[]; /* ends with a NULL name */

/* For a machine: the configuration stays as it is until the last one lets go (vial_vm_config_free). */
struct vial_vm_config *config_share(struct vial_vm_config *config);

/* vial_vm_config_validate with the host's capacity given. */
int config_validate(const struct vial_vm_config *config, const struct host_capacity *host, struct vial_error *err);

#endif
