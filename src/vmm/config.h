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
#include <string.h>

#define CONFIG_ROOT_TAG "/dev/root"
#define CONFIG_DEFAULT_INIT "/init.krun"

/* With which a root that has a DAX window is mounted (Documentation/filesystems/dax.rst). */
#define CONFIG_DAX_OPTION "dax=always"

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
    char *arguments;                        /* owned; the init's, behind everything else, or NULL */
    enum vial_kernel_format format;
};

enum root_kind {
    ROOT_NONE, /* the kernel's own: an initramfs */
    ROOT_FOLDER,
    ROOT_DISK,
    ROOT_LAYERS,
    ROOT_BUILTIN,
    ROOT_HOST,
};

struct fs_config {
    char *tag, *path; /* owned; path is NULL with a custom backend, of an empty one, and of a root that is no folder */
    uint64_t dax_window_mib;
    bool read_only, is_custom, has_owner, only_public, one_device, throw_away, is_empty, without_init;
    uint8_t cache, xattrs; /* enum vial_fs_cache and vial_fs_xattrs, or what a caller has put there */
    uint32_t owner_uid, owner_gid;
    struct vial_fs_ops ops;
    void *ops_user; /* borrowed until ops.release */
};

struct fs_entry_config {
    char *tag, *path; /* owned; the path is normalized */
    void *data;       /* owned, or NULL */
    size_t length;
    uint32_t mode;
    bool is_folder, one_shot;
};

struct mapped_dir_config {
    char *tag, *host, *guest; /* owned */
    bool read_only;
};

/* A disk, and how its file system is mounted. */
struct mount_config {
    char *disk, *guest, *fstype, *options; /* owned; NULL when not given; guest is NULL for a root's */
    bool read_only;
};

struct tmpfs_config {
    char *guest; /* owned */
    uint64_t size_mib;
    uint32_t mode;
};

struct backing_config {
    char *path; /* owned */
    enum vial_disk_format format;
};

struct disk_config {
    char *id, *path; /* owned */
    enum vial_disk_format format;
    enum vial_disk_cache cache;
    enum vial_disk_sync sync;
    bool read_only, direct_io;
    uint16_t queues;
    uint64_t bytes_per_second, burst_bytes, operations_per_second, burst_operations;
    struct backing_config *backing; /* owned */
    size_t backing_count;
};

/* The addresses of a guest of passt's, by kind, IPv4 and IPv6; where there is none of a kind, its text is "". */
struct net_addresses {
    const char *address[2]; /* borrowed from the configuration, or constant */
    char gateway[2][48];    /* given, or derived from the address */
    const char *forwarder;  /* constant: passt's own address, the guest's name server; or NULL */
};

struct net_config {
    enum vial_net_kind kind;
    int fd;     /* owned, or -1 */
    char *path; /* owned; NULL with a descriptor or a custom backend */
    uint32_t features;
    uint8_t mac[6];
    bool vfkit, has_ops, dhcp, reaches_host;
    struct vial_net_ops ops;
    void *ops_user;               /* borrowed until ops.release */
    int helper_fd;                /* owned: our end of a helper that was started (vmm/network.h), or -1 */
    int helper_said_fd;           /* owned: what that has printed, or -1 */
    struct net_addresses settled; /* when it was */
    uint16_t mtu, queue_pairs;
    struct vial_net_rate to_guest, from_guest;
    struct string_list addresses, gateways, nameservers, published;
};

struct port_config {
    uint16_t host, guest;
};

struct vsock_port_config {
    char *path; /* owned; NULL with a custom backend */
    uint32_t port;
    bool listen, has_ops;
    struct vial_vsock_ops ops;
    void *ops_user; /* borrowed until ops.release */
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

    enum root_kind root_kind;
    struct fs_config root;         /* what the kernel mounts as its root, unless that is an initramfs */
    struct mount_config root_disk; /* ROOT_DISK */
    struct string_list root_lower; /* ROOT_LAYERS, as are the next three: disks, the topmost first */
    char *root_lower_fstype;       /* owned, or NULL */
    struct mount_config root_upper;
    struct string_list root_hidden; /* ROOT_HOST: paths */
    struct fs_config *fs;           /* owned, as are the other arrays */
    size_t fs_count, fs_capacity;
    struct fs_entry_config *fs_entries; /* what one stands in comes before it */
    size_t fs_entry_count, fs_entry_capacity;
    size_t fs_entry_bytes; /* of all of them */
    struct mapped_dir_config *mapped_dirs;
    size_t mapped_dir_count, mapped_dir_capacity;
    struct mount_config *mounts;
    size_t mount_count, mount_capacity;
    struct tmpfs_config *tmpfs;
    size_t tmpfs_count, tmpfs_capacity;
    size_t fs_total; /* file systems so far, the root among them: the next default tag */

    struct disk_config *disks;
    size_t disk_count, disk_capacity;

    struct net_config *net;
    size_t net_count, net_capacity;
    struct port_config *port_map;
    size_t port_count, port_capacity;
    struct vsock_port_config *vsock_ports;
    size_t vsock_port_count, vsock_port_capacity;
    char *assigned_ip, *tsi_group; /* owned, or NULL */
    uint8_t tsi_scope;             /* enum vial_tsi_scope, or what a caller has put there */
    bool local_only, tsi_hijacks_unix, tsi_publishes_all;

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
    bool has_exec_uid, has_exec_gid, has_exec_streams, exec_from_guest;
    int exec_streams[3]; /* owned, or -1: with has_exec_streams the program's, instead of 0, 1 and 2 */
    struct rlimit_config *rlimits;
    size_t rlimit_count, rlimit_capacity;

    int agent_fd;         /* owned: the host's end of the agent's stream, or -1 */
    char *agent_hostname; /* owned, or NULL */

    struct observer_config *observers;
    size_t observer_count, observer_capacity;

    /* Called once, on the thread that starts the machine, when its disks are open and nothing else of the host is. An
     * error ends the start. Or NULL. */
    int (*on_disks_open)(void *user, struct vial_error *err);
    void *on_disks_open_user; /* borrowed */
};

/* Whether the project's init is to mount something: a part of the root, or something below it. */
static inline bool config_has_mounts(const struct vial_vm_config *config)
{
    bool makes_root = config->root_kind == ROOT_DISK || config->root_kind == ROOT_LAYERS || config->root.throw_away;
    bool replaces_initramfs = config->root_kind != ROOT_NONE && config->kernel.initramfs != NULL;
    return makes_root || replaces_initramfs || config->mapped_dir_count + config->mount_count + config->tmpfs_count > 0;
}

/* The first process, or NULL where the kernel is to look for it: in an initramfs. */
static inline const char *config_init(const struct vial_vm_config *config)
{
    if (config->kernel.init != NULL)
        return config->kernel.init;
    return config->root_kind != ROOT_NONE && config->kernel.initramfs == NULL ? CONFIG_DEFAULT_INIT : NULL;
}

/* Whether the first process is the project's, or one in its place that speaks as it does. */
static inline bool config_has_our_init(const struct vial_vm_config *config)
{
    const char *init = config_init(config);
    return init != NULL && strcmp(init, CONFIG_DEFAULT_INIT) == 0 && !config->root.without_init;
}

/* Whether the guest's interface can have IPv6 addresses: with a smaller MTU it has none (RFC 8200, 5). */
static inline bool net_takes_ipv6(const struct net_config *net)
{
    return net->mtu == 0 || net->mtu >= 1280;
}

/* Whether the configuration says what the guest's interface is to be like. */
static inline bool net_has_settings(const struct net_config *net)
{
    return net->dhcp || net->addresses.count + net->gateways.count + net->nameservers.count > 0;
}

/* Whether the project's init sets the guest's interface up: a network of passt's has addresses in any case. */
static inline bool net_is_configured(const struct net_config *net)
{
    return net_has_settings(net) || net->kind == VIAL_NET_PASST;
}

/* Whether there is a network for which the project's init is needed, or, where the init is ours anyway, of use. In an
 * initramfs may be any init: a network of passt's about which nothing is said is left to that. */
static inline bool config_has_init_networks(const struct vial_vm_config *config)
{
    bool is_ours = config_has_our_init(config);
    for (size_t i = 0; i < config->net_count; i++)
        if (is_ours ? net_is_configured(&config->net[i]) : net_has_settings(&config->net[i]))
            return true;
    return false;
}

/* Whether there is a program to be run, which the guest itself may name. */
static inline bool config_has_program(const struct vial_vm_config *config)
{
    return config->exec_path != NULL || config->exec_from_guest;
}

/* Whether the machine's init is the project's, which we speak with. */
static inline bool config_asks_init(const struct vial_vm_config *config)
{
    return config_has_program(config) || config->agent_fd >= 0 || config_has_mounts(config) ||
           config_has_init_networks(config);
}

/* Whether sockets of the guest's programs are the host's. */
static inline bool config_has_tsi(const struct vial_vm_config *config)
{
    return config->machine.inet_hijack || config->tsi_hijacks_unix;
}

/* Whether there is a vsock device. */
static inline bool config_has_vsock(const struct vial_vm_config *config)
{
    return config->machine.vsock || config->vsock_port_count > 0 || config_has_tsi(config);
}

/* The ports that the machine's console has at most: the one on standard input and output or in a file, those that were
 * added, and those through which a program is run or an agent spoken to, or the init is told what to mount. */
static inline size_t config_most_console_ports(const struct vial_vm_config *config)
{
    bool has_program = config_has_program(config);
    bool has_main = config->console_output != NULL || (config->has_implicit_console && !has_program);
    size_t init_ports = has_program ? CONFIG_EXEC_PORTS : config_asks_init(config);
    return has_main + config->console_port_count + init_ports + (config->agent_fd >= 0);
}

/* Names of the enumerations as the JSON file spells them, in the enumerations' order, NULL at the end. */
extern const char *const config_acpi[];
extern const char *const config_engines[];
extern const char *const config_kernel_formats[];
extern const char *const config_disk_formats[]; /* from VIAL_DISK_RAW on */
extern const char *const config_disk_caches[];
extern const char *const config_disk_syncs[];
extern const char *const config_fs_caches[];
extern const char *const config_fs_xattrs[];
extern const char *const config_net_kinds[]; /* from VIAL_NET_UNIXGRAM on */
extern const char *const config_tsi_scopes[];

extern const struct config_net_feature {
    const char *name;
    uint32_t bit;
} config_net_features[]; /* ends with a NULL name */

/* For a machine: the configuration stays as it is until the last one lets go (vial_vm_config_free). */
struct vial_vm_config *config_share(struct vial_vm_config *config);

/* The entry at that path of the file system, or NULL; and the file at it or above it. (config_entries.c) */
const struct fs_entry_config *config_find_entry(const struct vial_vm_config *config, const char *tag, const char *path);
const struct fs_entry_config *config_find_file_over(const struct vial_vm_config *config, const char *tag,
                                                    const char *path);

/* The disk with that id, or NULL. */
const struct disk_config *config_find_disk(const struct vial_vm_config *config, const char *id);

/* vial_vm_config_validate with the host's capacity given. */
int config_validate(const struct vial_vm_config *config, const struct host_capacity *host, struct vial_error *err);

/* Takes a root back that was the last file system set (vial_vm_config_set_root), and has no entries. */
void config_drop_root(struct vial_vm_config *config);

#endif
