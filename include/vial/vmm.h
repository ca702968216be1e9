/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of a virtual machine.
 *
 *     struct vial_vm_config *config = NULL;
 *     vial_vm_config_new(&config, &err);
 *     struct vial_machine_options machine = VIAL_MACHINE_OPTIONS_INIT;
 *     machine.vcpus = 2;
 *     vial_vm_config_set_machine(config, &machine, &err);
 *     struct vial_fs_options root = VIAL_FS_OPTIONS_INIT;
 *     root.path = "/srv/root";
 *     vial_vm_config_set_root(config, &root, &err);
 *     if (vial_vm_config_validate(config, &err) < 0) …
 *     vial_vm_config_free(config);
 *
 * A call that sets or adds copies what it is given: strings, arrays, tables of functions, and descriptors (which it
 * duplicates). It checks form only: text that does not follow its grammar, limits of the library, memory. What must
 * hold between settings, and between them and the host, is checked by vial_vm_config_validate, which changes nothing.
 *
 * A configuration is not thread-safe: use it on one thread at a time. A machine keeps the configuration that it was
 * started with until it is freed itself, so the configuration cannot be changed meanwhile, and may be freed at once.
 *
 *     struct vial_vm *vm = NULL;
 *     struct vial_exit end = VIAL_EXIT_INIT;
 *     vial_vm_start(config, &vm, &err);
 *     vial_vm_wait(vm, VIAL_WAIT_FOREVER, &end, &err);
 *     vial_vm_free(vm);
 *
 * A machine runs in this process, on threads of its own. They block every signal but those of their own faults, take
 * SIGURG from the process now and then, and have small stacks (256 KiB); callbacks run on them. It never prints and
 * never exits. A child of fork has no such threads: it must not touch a machine, not even free it, and as long as it
 * neither executes another program nor exits, a machine that its parent has freed keeps its memory.
 */
#ifndef VIAL_VMM_H
#define VIAL_VMM_H

#include "vial/backend.h"
#include "vial/base.h"

#ifdef __cplusplus
extern "C" {
#endif

struct vial_vm_config;

VIAL_API int vial_vm_config_new(struct vial_vm_config **ret_config, struct vial_error *err);

/* Accepts NULL and returns NULL. Closes the descriptors it had duplicated and releases custom backends. */
VIAL_API struct vial_vm_config *vial_vm_config_free(struct vial_vm_config *config);

/* A configuration from a JSON file ("-": standard input) or text; docs/CONFIG.md has the keys. Unknown keys are
 * refused. Relative paths are taken as they stand, from the current folder. */
VIAL_API int vial_vm_config_load_file(const char *path, struct vial_vm_config **ret_config, struct vial_error *err);
VIAL_API int vial_vm_config_load_text(const char *json, size_t length, struct vial_vm_config **ret_config,
                                      struct vial_error *err);

/* The configuration as JSON, defaults, tags and ids filled in, in new memory that the caller frees. Custom backends
 * appear as "custom"; of a variable that is set twice, the last value does. */
VIAL_API int vial_vm_config_dump(const struct vial_vm_config *config, char **ret_json, struct vial_error *err);

/* Checks everything that can be known before something is touched, and reports the first problem. The field is named as
 * in the JSON file: "disks[1].format". */
VIAL_API int vial_vm_config_validate(const struct vial_vm_config *config, struct vial_error *err);

/* ---- machine ---- */

/* Whether the kernel is given ACPI tables, in which it finds the devices then; without, they stand on its command line,
 * and processors and interrupts in the MP table, which is always there. */
enum vial_acpi {
    VIAL_ACPI_AUTO = 0, /* on for a bzImage, as distributions ship kernels; off for any other image */
    VIAL_ACPI_ON = 1,
    VIAL_ACPI_OFF = 2,
};

/* What runs the guest. */
enum vial_engine {
    VIAL_ENGINE_AUTO = 0, /* kvm where it runs guests natively, else uml */
    VIAL_ENGINE_KVM = 1,  /* a virtual machine of the CPU: hardware isolation */
    VIAL_ENGINE_UML = 2,  /* a user-mode Linux kernel in a jail: runs on any host, isolates without hardware */
};

struct vial_machine_options {
    size_t size;
    uint64_t memory_mib;
    uint32_t vcpus;
    uint32_t balloon_stats_interval_ms; /* 0: no statistics */
    bool hyperthreading;                /* show pairs of vCPUs as threads of one core */
    bool nested_virtualization;         /* show VMX or SVM to the guest */
    bool split_irqchip;                 /* room for 200 devices instead of 19 (about 50 without ACPI) */
    bool vsock;                         /* a vsock device even when no port asks for one */
    bool balloon;                       /* return memory that the guest does not use */
    bool rng;                           /* a source of random numbers */
    bool metrics;                       /* a device through which the guest reports the use of its root */
    bool inet_hijack;                   /* a guest without a NIC reaches the host's network through vsock (TSI) */
    bool huge_pages;                    /* ask the host for transparent huge pages */
    uint8_t acpi;                       /* enum vial_acpi */
    uint8_t engine;                     /* enum vial_engine */
    bool insecure_no_jail;              /* uml: start even where the host forbids walls of the jail */
    uint8_t reserved[4];                /* 0 */
};
// clang-format off
#define VIAL_MACHINE_OPTIONS_INIT \
    {sizeof(struct vial_machine_options), 512, 1, 1000, false, false, false, false, true, true, true, false, false, \
     VIAL_ACPI_AUTO, VIAL_ENGINE_AUTO, false, {0}}
// clang-format on

VIAL_API int vial_vm_config_set_machine(struct vial_vm_config *config, const struct vial_machine_options *options,
                                        struct vial_error *err);

/* The log level asked for while this machine runs (enum vial_log_level); by default the hook's own. */
VIAL_API int vial_vm_config_set_log_level(struct vial_vm_config *config, int level, struct vial_error *err);

/* ---- kernel ---- */

enum vial_kernel_format {
    VIAL_KERNEL_AUTO = 0, /* by content; refused where the content does not tell */
    VIAL_KERNEL_RAW = 1,
    VIAL_KERNEL_ELF = 2,
    VIAL_KERNEL_PE_GZ = 3,
    VIAL_KERNEL_IMAGE_BZ2 = 4,
    VIAL_KERNEL_IMAGE_GZ = 5,
    VIAL_KERNEL_IMAGE_ZSTD = 6,
    VIAL_KERNEL_BZIMAGE = 7, /* run by its own unpacker; a gzip, bzip2 or zstd one is faster as IMAGE_* */
};

struct vial_kernel_options {
    size_t size;
    const char *path;      /* NULL: the kernel of `krunfw`, or the project's own */
    const char *initramfs; /* or NULL */
    const char *krunfw;    /* a libkrunfw.so.5 to take the kernel from, or NULL; excludes path */
    const char *init;      /* NULL: the project's own with a root, else what the kernel looks for itself */
    int32_t format;        /* enum vial_kernel_format, of path */
    uint8_t reserved[4];   /* 0 */
};
// clang-format off
#define VIAL_KERNEL_OPTIONS_INIT {sizeof(struct vial_kernel_options), NULL, NULL, NULL, NULL, VIAL_KERNEL_AUTO, {0}}
// clang-format on

VIAL_API int vial_vm_config_set_kernel(struct vial_vm_config *config, const struct vial_kernel_options *options,
                                       struct vial_error *err);

/* Appends words to the kernel command line, behind a space. */
VIAL_API int vial_vm_config_append_cmdline(struct vial_vm_config *config, const char *text, struct vial_error *err);

/* ---- file systems ---- */

/* How long a guest believes what it was told about files. */
enum vial_fs_cache {
    VIAL_FS_CACHE_AUTO = 0,   /* a second; contents until an open finds them changed */
    VIAL_FS_CACHE_NONE = 1,   /* not at all: others change these files while the guest looks at them */
    VIAL_FS_CACHE_ALWAYS = 2, /* for ever: nobody else changes them */
};

/* Which extended attributes pass. */
enum vial_fs_xattrs {
    VIAL_FS_XATTRS_USER = 0, /* user.*, and ACLs */
    VIAL_FS_XATTRS_NONE = 1,
    VIAL_FS_XATTRS_ALL = 2, /* security.* and trusted.* as well, as far as the host lets this process */
};

struct vial_fs_options {
    size_t size;
    const char *tag;  /* NULL: /dev/root for the root, else fs<N>, N counting the file systems before it */
    const char *path; /* a folder of the host; NULL with ops, and with `empty` */
    const struct vial_fs_ops *ops;
    void *ops_user;
    uint64_t dax_window_mib; /* 0: no DAX; KVM only */
    bool read_only;
    uint8_t cache;  /* enum vial_fs_cache */
    uint8_t xattrs; /* enum vial_fs_xattrs */
    bool has_owner; /* all files appear as the owner's, and belong to this process's user on the host */
    uint32_t owner_uid, owner_gid;
    bool only_public;    /* what not every user of the host may read is not there */
    bool one_device;     /* other file systems of the host, mounted below the folder, are not there */
    bool throw_away;     /* of the root: the guest writes to a layer of its own, gone with the machine */
    bool empty;          /* nothing is in it but entries (vial_vm_config_add_fs_entry); read-only */
    bool without_init;   /* of the root: the project's init is not put into it */
    uint8_t reserved[7]; /* 0 */
};
// clang-format off
#define VIAL_FS_OPTIONS_INIT \
    {sizeof(struct vial_fs_options), NULL, NULL, NULL, NULL, 0, false, VIAL_FS_CACHE_AUTO, VIAL_FS_XATTRS_USER, false, \
     0, 0, false, false, false, false, false, {0}}
// clang-format on

/* The root is set once, in one of five ways. A folder: without has_owner its files have the host's owners if this
 * process may make files in the name of others, else they are root's.
 *
 * With without_init the first process is whatever the root, or an entry, has at kernel.init ("/init.krun" by default).
 * The machine does not speak with it, so what the project's init does is not to be had: exec, an agent, mounts, a
 * throw-away layer, networks with settings. */
VIAL_API int vial_vm_config_set_root(struct vial_vm_config *config, const struct vial_fs_options *options,
                                     struct vial_error *err);

/* A file system on a disk. What mounts it is the project's init, as it does for the roots that follow. */
struct vial_root_disk_options {
    size_t size;
    const char *disk;    /* the id of a disk, or a device of the guest, such as /dev/vda1 */
    const char *fstype;  /* NULL or "auto": as its content says */
    const char *options; /* as of mount(8), such as "noatime"; or NULL */
    bool read_only;      /* it is, too, when the disk is */
    uint8_t reserved[7]; /* 0 */
};
// clang-format off
#define VIAL_ROOT_DISK_OPTIONS_INIT {sizeof(struct vial_root_disk_options), NULL, NULL, NULL, false, {0}}
// clang-format on

VIAL_API int vial_vm_config_set_root_disk(struct vial_vm_config *config, const struct vial_root_disk_options *options,
                                          struct vial_error *err);

/* Several disks, none of which is written to, merged under a layer that is. */
struct vial_root_layers_options {
    size_t size;
    const char *const *lower; /* disks as above, the topmost first; NULL-terminated */
    const char *lower_fstype; /* of all of them; NULL or "auto": as their contents say */
    const char *upper;        /* the disk that is written to; NULL: memory of the guest, gone with the machine */
    const char *upper_fstype;
    uint8_t reserved[8]; /* 0 */
};
// clang-format off
#define VIAL_ROOT_LAYERS_OPTIONS_INIT {sizeof(struct vial_root_layers_options), NULL, NULL, NULL, NULL, {0}}
// clang-format on

VIAL_API int vial_vm_config_set_root_layers(struct vial_vm_config *config,
                                            const struct vial_root_layers_options *options, struct vial_error *err);

/* Nothing but the init and mount points. */
VIAL_API int vial_vm_config_set_root_builtin(struct vial_vm_config *config, struct vial_error *err);

/* The host's own programs under a throw-away layer: /bin, /etc, /gnu, /lib*, /nix, /opt, /sbin, /usr and /var, and of
 * these only what every user of the host may read. docs/CONFIG.md says precisely what that is. */
struct vial_root_host_options {
    size_t size;
    const char *const *hidden; /* absolute paths that are not there either; NULL-terminated, or NULL */
    uint64_t dax_window_mib;
    uint8_t reserved[8]; /* 0 */
};
// clang-format off
#define VIAL_ROOT_HOST_OPTIONS_INIT {sizeof(struct vial_root_host_options), NULL, 0, {0}}
// clang-format on

VIAL_API int vial_vm_config_set_root_host(struct vial_vm_config *config, const struct vial_root_host_options *options,
                                          struct vial_error *err);

/* A file system that the guest's own init may mount by its tag. */
VIAL_API int vial_vm_config_add_fs(struct vial_vm_config *config, const struct vial_fs_options *options,
                                   struct vial_error *err);

/* A file or a folder that exists for the guest only, in a file system that was set or added before: the root (that of a
 * disk or of layers has one, too, from which the init mounts it), one of vial_vm_config_add_fs, or a mapped folder.
 *
 * It hides what the host's folder has under that name. It belongs to root and cannot be changed: to write to it, to
 * remove or rename it, or to make something in such a folder is EROFS. A folder is empty but for other entries. What
 * the path stands in must be a folder that was added as an entry before, or the file system's top: -ENOENT where it is
 * not there, -ENOTDIR where it is a file; -EEXIST when the path is an entry already. Mount points of the machine, /dev,
 * /proc and /sys may be folders of these, and not files; an entry "/init.krun" of the root takes the place of the
 * project's init, and is to speak with the machine as that does, unless the root is without_init.
 *
 * A one-shot file is found by one look-up of its name; whoever has found it can open, read and execute it. After that,
 * the name stands for what the host's folder has there (where it was found through a throw-away layer, it is ESTALE).
 * Listings name it and do not use it up, stat(2) does.
 *
 * At most 1024 of them in a machine, with 256 MiB in all. */
struct vial_fs_entry_options {
    size_t size;
    const char *tag;      /* of the file system; NULL: the root's */
    const char *path;     /* absolute, without "//", "." and "..": "/etc/config.json" */
    const void *data;     /* the file's bytes, which are copied */
    size_t length;        /* of data */
    uint32_t mode;        /* permissions */
    bool is_folder;       /* it has no data */
    bool one_shot;        /* of a file */
    uint8_t reserved[10]; /* 0 */
};
// clang-format off
#define VIAL_FS_ENTRY_OPTIONS_INIT \
    {sizeof(struct vial_fs_entry_options), NULL, NULL, NULL, 0, 0755, false, false, {0}}
// clang-format on

VIAL_API int vial_vm_config_add_fs_entry(struct vial_vm_config *config, const struct vial_fs_entry_options *options,
                                         struct vial_error *err);

/* A folder of the host at a path of the guest. Mount points that are missing exist for the guest only; the host's
 * folders are never touched for their sake. */
struct vial_mapped_dir_options {
    size_t size;
    const char *host;
    const char *guest; /* absolute */
    bool read_only;
    uint8_t reserved[7]; /* 0 */
};
// clang-format off
#define VIAL_MAPPED_DIR_OPTIONS_INIT {sizeof(struct vial_mapped_dir_options), NULL, NULL, false, {0}}
// clang-format on

VIAL_API int vial_vm_config_add_mapped_dir(struct vial_vm_config *config, const struct vial_mapped_dir_options *options,
                                           struct vial_error *err);

/* The same as text, "HOST:GUEST" or "HOST:GUEST:ro". */
VIAL_API int vial_vm_config_add_mapped_dir_text(struct vial_vm_config *config, const char *text,
                                                struct vial_error *err);

/* The file system of a disk at a path of the guest. */
struct vial_mount_options {
    size_t size;
    const char *disk;    /* the id of a disk, or a device of the guest */
    const char *guest;   /* absolute */
    const char *fstype;  /* NULL or "auto": as its content says */
    const char *options; /* as of mount(8), or NULL */
    bool read_only;      /* it is, too, when the disk is */
    uint8_t reserved[7]; /* 0 */
};
// clang-format off
#define VIAL_MOUNT_OPTIONS_INIT {sizeof(struct vial_mount_options), NULL, NULL, NULL, NULL, false, {0}}
// clang-format on

VIAL_API int vial_vm_config_add_mount(struct vial_vm_config *config, const struct vial_mount_options *options,
                                      struct vial_error *err);

/* Memory of the guest at one of its paths. */
struct vial_tmpfs_options {
    size_t size;
    const char *guest;   /* absolute */
    uint64_t size_mib;   /* 0: up to half of the machine's memory */
    uint32_t mode;       /* permissions of its top folder */
    uint8_t reserved[4]; /* 0 */
};
// clang-format off
#define VIAL_TMPFS_OPTIONS_INIT {sizeof(struct vial_tmpfs_options), NULL, 0, 01777, {0}}
// clang-format on

VIAL_API int vial_vm_config_add_tmpfs(struct vial_vm_config *config, const struct vial_tmpfs_options *options,
                                      struct vial_error *err);

/* ---- disks ---- */

enum vial_disk_format {
    VIAL_DISK_UNSET = 0, /* refused: formats are never guessed */
    VIAL_DISK_RAW = 1,
    VIAL_DISK_QCOW2 = 2,
    VIAL_DISK_VMDK = 3, /* read-only */
};

enum vial_disk_cache {
    VIAL_DISK_WRITEBACK = 0,
    VIAL_DISK_UNSAFE = 1, /* flushes are answered without being done */
};

enum vial_disk_sync {
    VIAL_DISK_SYNC_FULL = 0, /* a flush reaches the medium */
    VIAL_DISK_SYNC_RELAXED = 1,
    VIAL_DISK_SYNC_NONE = 2, /* the guest is not offered flushes */
};

/* An image that another image may name as what lies under it. */
struct vial_disk_backing {
    const char *path;    /* as the image names it, or where that leads to from the image's folder */
    int32_t format;      /* enum vial_disk_format */
    uint8_t reserved[4]; /* 0 */
};

struct vial_disk_options {
    size_t size;
    const char *id; /* /dev/disk/by-id/virtio-<id>; NULL: vda … vdz, vdaa … in order of addition */
    const char *path;
    int32_t format; /* enum vial_disk_format, always explicit */
    int32_t cache;  /* enum vial_disk_cache */
    int32_t sync;   /* enum vial_disk_sync */
    bool read_only;
    bool direct_io;                          /* O_DIRECT */
    uint16_t queues;                         /* 0: one for each vCPU, up to 16 */
    const struct vial_disk_backing *backing; /* no other file is opened */
    size_t backing_count;
    uint64_t bytes_per_second; /* at most, on average; 0: no limit */
    uint64_t burst_bytes;      /* at once, after a rest; 0: what a tenth of a second brings */
    uint64_t operations_per_second, burst_operations;
    uint8_t reserved[8]; /* 0 */
};
// clang-format off
#define VIAL_DISK_OPTIONS_INIT \
    {sizeof(struct vial_disk_options), NULL, NULL, VIAL_DISK_UNSET, VIAL_DISK_WRITEBACK, VIAL_DISK_SYNC_FULL, false, \
     false, 0, NULL, 0, 0, 0, 0, 0, {0}}
// clang-format on

VIAL_API int vial_vm_config_add_disk(struct vial_vm_config *config, const struct vial_disk_options *options,
                                     struct vial_error *err);

/* ---- network ---- */

enum vial_net_kind {
    VIAL_NET_UNIXGRAM = 1,   /* one frame a datagram */
    VIAL_NET_UNIXSTREAM = 2, /* frames behind a 4-byte big-endian length */
    VIAL_NET_TAP = 3,
    VIAL_NET_CUSTOM = 4,
    VIAL_NET_PASST =
        5, /* Debian's passt, started and ended with the machine: the host's network, as one of its users */
};

/* Offloads the guest may use (virtio 1.2, 5.1.3). */
#define VIAL_NET_FEATURE_CSUM (1u << 0)
#define VIAL_NET_FEATURE_GUEST_CSUM (1u << 1)
#define VIAL_NET_FEATURE_GUEST_TSO4 (1u << 7)
#define VIAL_NET_FEATURE_GUEST_TSO6 (1u << 8)
#define VIAL_NET_FEATURE_GUEST_UFO (1u << 10)
#define VIAL_NET_FEATURE_HOST_TSO4 (1u << 11)
#define VIAL_NET_FEATURE_HOST_TSO6 (1u << 12)
#define VIAL_NET_FEATURE_HOST_UFO (1u << 14)

/* At most so much in one direction, on average; 0: no limit. A burst is what may pass at once after a rest; 0: what a
 * tenth of a second brings. */
struct vial_net_rate {
    uint64_t bytes_per_second, burst_bytes;
    uint64_t packets_per_second, burst_packets;
};

/* The project's init gives the guest's interface its addresses, gateways and name servers, or asks for them by DHCP.
 * The lists are NULL-terminated, or NULL for none; with passt, for what the host itself has. */
struct vial_net_options {
    size_t size;
    int32_t kind;     /* enum vial_net_kind */
    int32_t fd;       /* a connected socket for unixgram or unixstream, or -1 */
    const char *path; /* a socket's path, or NULL; for TAP the device's name */
    const struct vial_net_ops *ops;
    void *ops_user;
    uint32_t features;
    uint8_t mac[6]; /* with has_mac; else locally administered and random */
    bool has_mac;
    bool vfkit;                   /* greet with "VFKT" (unixgram by path) */
    uint8_t padding[4];           /* 0 */
    const char *const *addresses; /* IPv4 or IPv6 with a prefix, "10.0.2.15/24" */
    const char *const *gateways;  /* of default routes: one IPv4, one IPv6 */
    const char *const *nameservers;
    const char *const *published; /* passt: ports of the host's loopback that lead to ports of the guest, "8080:80" or
                                   * "5353:53/udp"; "192.0.2.1:8080:80" for another address of the host */
    struct vial_net_rate to_guest, from_guest;
    uint16_t mtu;         /* 0: 1500, and 32768 for passt */
    uint16_t queue_pairs; /* 0: 1; more need a TAP device that has several queues */
    bool dhcp;
    bool reaches_host;   /* passt: the gateway's address leads to the host's own loopback */
    uint8_t reserved[2]; /* 0 */
};
// clang-format off
#define VIAL_NET_OPTIONS_INIT \
    {sizeof(struct vial_net_options), 0, -1, NULL, NULL, NULL, 0, {0}, false, false, {0}, NULL, NULL, NULL, NULL, \
     {0, 0, 0, 0}, {0, 0, 0, 0}, 0, 0, false, false, {0}}
// clang-format on

VIAL_API int vial_vm_config_add_net(struct vial_vm_config *config, const struct vial_net_options *options,
                                    struct vial_error *err);

/* Publishes a guest's TSI listener: TCP `host_port` of the host becomes `guest_port` of the guest. */
VIAL_API int vial_vm_config_add_port(struct vial_vm_config *config, uint16_t host_port, uint16_t guest_port,
                                     struct vial_error *err);

/* The same as text, "HOST:GUEST" or one number for both. */
VIAL_API int vial_vm_config_add_port_text(struct vial_vm_config *config, const char *text, struct vial_error *err);

/* Where a guest's sockets may lead by TSI. */
enum vial_tsi_scope {
    VIAL_TSI_SCOPE_ANY = 0,
    VIAL_TSI_SCOPE_PUBLIC = 1, /* no private, local or otherwise special address */
    VIAL_TSI_SCOPE_GROUP = 2,  /* only the network `group` */
    VIAL_TSI_SCOPE_NONE = 3,
};

/* How TSI shows the host's network. */
struct vial_tsi_options {
    size_t size;
    const char *assigned_ip; /* stands for 127.0.0.1 of the guest, or NULL */
    bool local_only;         /* connections to anything but the loopback are refused */
    bool hijack_unix;        /* Unix sockets, too: the guest's paths are the host's, whatever this process may reach */
    bool publish_all;        /* every listener of the guest's listens on the host, with the port that it has */
    uint8_t scope;           /* enum vial_tsi_scope */
    uint8_t reserved[4];     /* 0 */
    const char *group;       /* of VIAL_TSI_SCOPE_GROUP, "10.1.0.0/16" */
};
// clang-format off
#define VIAL_TSI_OPTIONS_INIT \
    {sizeof(struct vial_tsi_options), NULL, false, false, false, VIAL_TSI_SCOPE_ANY, {0}, NULL}
// clang-format on

VIAL_API int vial_vm_config_set_tsi(struct vial_vm_config *config, const struct vial_tsi_options *options,
                                    struct vial_error *err);

/* A vsock port of the machine, and what it leads to: a Unix socket of the host, or a backend of the program's. */
struct vial_vsock_port_options {
    size_t size;
    const char *path; /* NULL with ops */
    uint32_t port;
    bool listen; /* true: the host connects to `path` and reaches the guest's port; false: the other way round */
    uint8_t reserved[3]; /* 0 */
    const struct vial_vsock_ops *ops;
    void *ops_user;
};
// clang-format off
#define VIAL_VSOCK_PORT_OPTIONS_INIT {sizeof(struct vial_vsock_port_options), NULL, 0, false, {0}, NULL, NULL}
// clang-format on

VIAL_API int vial_vm_config_add_vsock_port(struct vial_vm_config *config, const struct vial_vsock_port_options *options,
                                           struct vial_error *err);

/* ---- console, GPU, sound ---- */

struct vial_console_options {
    size_t size;
    const char *output;  /* a file for the console's output, or NULL */
    bool implicit;       /* a console on stdin and stdout where nothing else is asked for */
    uint8_t reserved[7]; /* 0 */
};
// clang-format off
#define VIAL_CONSOLE_OPTIONS_INIT {sizeof(struct vial_console_options), NULL, true, {0}}
// clang-format on

VIAL_API int vial_vm_config_set_console(struct vial_vm_config *config, const struct vial_console_options *options,
                                        struct vial_error *err);

enum vial_console_port_kind {
    VIAL_CONSOLE_PORT_INOUT = 1,
    VIAL_CONSOLE_PORT_TTY = 2,
    VIAL_CONSOLE_PORT_CUSTOM = 3,
};

struct vial_console_port_options {
    size_t size;
    const char *name;
    int32_t kind; /* enum vial_console_port_kind */
    int32_t input_fd, output_fd;
    int32_t tty_fd;
    const struct vial_console_ops *ops;
    void *ops_user;
    uint8_t reserved[8]; /* 0 */
};
// clang-format off
#define VIAL_CONSOLE_PORT_OPTIONS_INIT \
    {sizeof(struct vial_console_port_options), NULL, 0, -1, -1, -1, NULL, NULL, {0}}
// clang-format on

VIAL_API int vial_vm_config_add_console_port(struct vial_vm_config *config,
                                             const struct vial_console_port_options *options, struct vial_error *err);

/* A 16550 serial port: ttyS0, then ttyS1 and on, at most four. */
struct vial_serial_options {
    size_t size;
    int32_t input_fd, output_fd; /* either may be -1 */
    uint8_t reserved[8];         /* 0 */
};
// clang-format off
#define VIAL_SERIAL_OPTIONS_INIT {sizeof(struct vial_serial_options), -1, -1, {0}}
// clang-format on

VIAL_API int vial_vm_config_add_serial(struct vial_vm_config *config, const struct vial_serial_options *options,
                                       struct vial_error *err);

/* Accepted for the sake of programs that configure them; a configuration with either does not validate in this
 * build. */
struct vial_gpu_options {
    size_t size;
    uint64_t shared_memory_mib;
    uint32_t virgl_flags;
    uint8_t reserved[4]; /* 0 */
};
// clang-format off
#define VIAL_GPU_OPTIONS_INIT {sizeof(struct vial_gpu_options), 0, 0, {0}}
// clang-format on

VIAL_API int vial_vm_config_set_gpu(struct vial_vm_config *config, const struct vial_gpu_options *options,
                                    struct vial_error *err);
VIAL_API int vial_vm_config_set_sound(struct vial_vm_config *config, bool wants_sound, struct vial_error *err);

/* ---- what runs in the guest ---- */

/* Path, arguments, environment and working directory travel over a channel of their own, not on the kernel command
 * line: any bytes but NUL, of any ordinary length. The program's streams are descriptors 0, 1 and 2 of this process, as
 * far as they are open; with console.implicit unset it has none. Where 0 and 1 are a terminal, it has that. With
 * has_streams the streams are the three descriptors below instead, whatever console.implicit says; where the first two
 * are a terminal, it has that one. They are duplicated, and so stay open until machine and configuration are freed.
 *
 * With from_guest the guest says what is not given here: path, arguments, environment and working directory. Its first
 * process looks into a file, $KRUN_CONFIG of the environment given here or /.krun_config.json, which is an OCI
 * runtime's configuration or an image's, and need not be there. What is to run is the path and args given here, or
 * what the file says, or the args alone (the first is the program then), or /bin/sh. The exit code is 127 where there
 * is no such program, 126 where it cannot be executed, and 125 where the guest could not set up what it needs.
 *
 * The guest's first process has to be the project's vial-init. */
struct vial_exec_options {
    size_t size;
    const char *path;        /* of the guest, or a name looked up in PATH */
    const char *const *args; /* behind the program's name; NULL-terminated, or NULL */
    const char *const *env;  /* KEY=VALUE; NULL-terminated, or NULL */
    const char *workdir;     /* absolute, or NULL for / */
    uint32_t uid, gid;
    bool has_uid, has_gid; /* else as the init decides */
    bool has_streams, from_guest;
    uint8_t reserved[4];                    /* 0 */
    int32_t stdin_fd, stdout_fd, stderr_fd; /* with has_streams; -1: none */
    uint8_t reserved_end[4];                /* 0 */
};
// clang-format off
#define VIAL_EXEC_OPTIONS_INIT \
    {sizeof(struct vial_exec_options), NULL, NULL, NULL, NULL, 0, 0, false, false, false, false, {0}, -1, -1, -1, \
     {0}}
// clang-format on

VIAL_API int vial_vm_config_set_exec(struct vial_vm_config *config, const struct vial_exec_options *options,
                                     struct vial_error *err);

/* An agent in the guest: the project's init mounts what the configuration asks for, says that it has started, and then
 * serves the host through one stream of frames (docs/PROTOCOL.md) until the host sends SHUTDOWN there or closes it.
 * Then the machine ends, completed. The console stays where the configuration has it. Not together with exec. */
struct vial_agent_options {
    size_t size;
    const char *hostname; /* of the guest, at most 64 characters, or NULL for "vial" */
    int32_t fd;           /* a connected stream socket, which is duplicated */
    uint8_t reserved[4];  /* 0 */
};
// clang-format off
#define VIAL_AGENT_OPTIONS_INIT {sizeof(struct vial_agent_options), NULL, -1, {0}}
// clang-format on

VIAL_API int vial_vm_config_set_agent(struct vial_vm_config *config, const struct vial_agent_options *options,
                                      struct vial_error *err);

/* A resource limit of the guest's process, "NAME=SOFT:HARD": the name as in prlimit(1) ("NOFILE", "RLIMIT_NOFILE",
 * "nofile") or Linux's number, the values numbers or "unlimited". */
VIAL_API int vial_vm_config_add_rlimit(struct vial_vm_config *config, const char *text, struct vial_error *err);

/* ---- the end ---- */

enum vial_exit_reason {
    VIAL_EXIT_COMPLETED = 1,
    VIAL_EXIT_FAILED = 2,
    VIAL_EXIT_IDLE_TIMEOUT = 3,
    VIAL_EXIT_MAX_DURATION = 4,
    VIAL_EXIT_SIGNAL = 5,
    VIAL_EXIT_STOP_REQUESTED = 6,
    VIAL_EXIT_GUEST_PANIC = 7,
    VIAL_EXIT_GUEST_RESET = 8,
    VIAL_EXIT_TRIPLE_FAULT = 9,
    VIAL_EXIT_AGENT_UNRESPONSIVE = 10,
    VIAL_EXIT_INTERNAL_ERROR = 11,
};

#define VIAL_EXIT_DETAIL_SIZE 256

struct vial_exit {
    size_t size;
    int32_t reason;                     /* enum vial_exit_reason */
    int32_t code;                       /* the workload's exit code, or 128 + signal; 0 where there was none to tell */
    char detail[VIAL_EXIT_DETAIL_SIZE]; /* how it came to that; one sentence without a full stop */
    uint64_t reserved[4];
};
// clang-format off
#define VIAL_EXIT_INIT {sizeof(struct vial_exit), 0, 0, {0}, {0}}
// clang-format on

/* The reason's stable name in lower case, such as "guest-panic"; "unknown" for unknown numbers. */
VIAL_API const char *vial_exit_reason_name(int reason);

/* Called once when the machine has ended, observers in the order they were added, on a thread of the machine. A machine
 * that ends at once may do so before vial_vm_start returns. An observer does not free its own machine. */
typedef void (*vial_exit_observer)(void *user, const struct vial_exit *exit);

VIAL_API int vial_vm_config_add_exit_observer(struct vial_vm_config *config, vial_exit_observer observer, void *user,
                                              struct vial_error *err);

/* ---- running ---- */

struct vial_vm;

/* Validates the configuration, builds the machine and lets it run: 0, or an error that says what failed, and then
 * nothing has run and nothing is left. */
VIAL_API int vial_vm_start(struct vial_vm_config *config, struct vial_vm **ret_vm, struct vial_error *err);

/* How far the guest is from the host. */
enum vial_isolation {
    VIAL_ISOLATION_HARDWARE = 1, /* the CPU's own */
    VIAL_ISOLATION_JAIL = 2,     /* a kernel of its own, in a jail that has all walls that matter */
    VIAL_ISOLATION_WEAK = 3,     /* the same, but walls are missing (insecure_no_jail) */
};

#define VIAL_ENGINE_TEXT_SIZE 512

struct vial_engine_info {
    size_t size;
    int32_t engine;                      /* VIAL_ENGINE_KVM or VIAL_ENGINE_UML */
    int32_t isolation;                   /* enum vial_isolation; 0 while the machine has none of it yet */
    char reason[VIAL_ENGINE_TEXT_SIZE];  /* why this engine */
    char kernel[VIAL_ENGINE_TEXT_SIZE];  /* the kernel's file, or the libkrunfw it comes from */
    char details[VIAL_ENGINE_TEXT_SIZE]; /* of the isolation: walls that stand, and those that are missing */
    uint64_t reserved[4];
};
// clang-format off
#define VIAL_ENGINE_INFO_INIT {sizeof(struct vial_engine_info), 0, 0, {0}, {0}, {0}, {0}}
// clang-format on

/* Names as the command line has them: "auto", "kvm", "uml"; "hardware", "jail", "weak"; "unknown" for other numbers. */
VIAL_API const char *vial_engine_name(int engine);
VIAL_API const char *vial_isolation_name(int isolation);

/* The engine that vial_vm_start would take here and now, and the least isolation that it would start with; starts
 * nothing. */
VIAL_API int vial_vm_config_choose_engine(const struct vial_vm_config *config, struct vial_engine_info *ret_info,
                                          struct vial_error *err);

/* The one that the machine has. */
VIAL_API int vial_vm_get_engine(struct vial_vm *vm, struct vial_engine_info *ret_info, struct vial_error *err);

/* Waits until the machine has ended and its observers have returned. -ETIMEDOUT when that takes longer. -EDEADLK in an
 * exit observer of this machine. May be called as often as one likes, on several threads, but not in other callbacks of
 * the machine, which its end waits for. Here, and in no other call, a thread may be cancelled. */
#define VIAL_WAIT_FOREVER UINT64_MAX
VIAL_API int vial_vm_wait(struct vial_vm *vm, uint64_t timeout_ms, struct vial_exit *ret_exit, struct vial_error *err);

/* A descriptor that becomes readable when the machine has ended, for programs with a loop of their own. It belongs to
 * the machine: neither read nor close it. */
VIAL_API int vial_vm_end_fd(const struct vial_vm *vm);

/* Lets no guest code run until it is resumed; returns when none does. -EALREADY when nothing changes by it, -ESRCH once
 * the machine has ended. These, and all that follow, may be called on any thread at any time (in signal handlers
 * none), until vial_vm_free is. */
VIAL_API int vial_vm_pause(struct vial_vm *vm, struct vial_error *err);
VIAL_API int vial_vm_resume(struct vial_vm *vm, struct vial_error *err);

/* Asks the machine to end at once, as by pulling its plug (VIAL_EXIT_STOP_REQUESTED), and does not wait for that. */
VIAL_API void vial_vm_stop(struct vial_vm *vm);

/* Stops the machine if it still runs, waits for its end, and frees it. Accepts NULL and returns NULL. Not to be called
 * from its own callbacks. */
VIAL_API struct vial_vm *vial_vm_free(struct vial_vm *vm);

/* Gives the guest's balloon a size: that much memory is what the guest is asked to return. -ENODEV without a balloon,
 * -ERANGE for more than the machine has. */
VIAL_API int vial_vm_set_balloon(struct vial_vm *vm, uint64_t memory_mib, struct vial_error *err);

/* Pulls the cable of a network out, or plugs it in again; it is in at first. Networks count from 0, in the order they
 * were added. The guest loses its carrier, and frames both ways are dropped, until the cable is in again and the
 * network's other end is there. Returns when the device knows; the guest is told meanwhile. -ENODEV when there is no
 * such network, -ESRCH once the machine has ended. */
VIAL_API int vial_vm_set_link(struct vial_vm *vm, size_t index, bool is_up, struct vial_error *err);

/* To be called when a terminal of the machine may have changed its size (SIGWINCH), or was handed back by a shell,
 * which has settings of its own (SIGCONT): the library takes no signals itself. */
VIAL_API void vial_vm_window_changed(struct vial_vm *vm);

/* What a machine has done so far. Values that the guest has not told are UINT64_MAX. */
struct vial_vm_stats {
    size_t size;
    uint64_t vcpu_exits;                    /* returns from guest code to this process */
    uint64_t unknown_ports, unknown_memory; /* accesses of the guest to what is not there */
    uint64_t driver_faults;                 /* times that a virtio driver broke a rule */
    uint64_t console_dropped_bytes;         /* output that could not be delivered */
    uint64_t balloon_mib;                   /* memory that the guest has returned through the balloon */
    uint64_t balloon_reported_bytes;        /* free memory that it has reported, and which was returned to the host */
    uint64_t guest_free_bytes, guest_available_bytes, guest_total_bytes; /* as the guest's kernel sees its memory */
    uint64_t root_used_bytes, root_free_bytes;                           /* of the guest's writable root */
    uint64_t network_received_bytes, network_sent_bytes;                 /* by the guest, in Ethernet frames */
    uint64_t network_dropped_frames;                                     /* that were wrong, or met no link or room */
    uint64_t reserved[8];
};
// clang-format off
#define VIAL_VM_STATS_INIT {sizeof(struct vial_vm_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {0}}
// clang-format on

VIAL_API int vial_vm_get_stats(struct vial_vm *vm, struct vial_vm_stats *ret_stats, struct vial_error *err);

#ifdef __cplusplus
}
#endif

#endif
