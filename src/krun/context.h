// SPDX-License-Identifier: Apache-2.0
/* A context of libkrun.h: what a program has asked for so far.
 *
 * Every call of the interface is one of three:
 *
 *     a setting      checks its arguments, then krun_hold … krun_let_go around the change      one file a subject
 *     a refusal      nothing but an errno                                                      refused.c
 *     krun_start_enter takes the context out, makes a configuration of it and runs that        start.c, translate.c
 *
 * A context is more than a vial_vm_config: most settings of libkrun may come in any order and replace each other, and
 * what they mean together is known only at the end. Those of file systems may not, and go into one at once.
 */
#ifndef KRUN_CONTEXT_H
#define KRUN_CONTEXT_H

#include "host/files.h"
#include "vmm/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct krun_disk {
    char *path; /* owned */
    enum vial_disk_format format;
    enum vial_disk_sync sync;
    bool read_only, direct_io;
};

/* What krun_set_root_disk_remount is given. */
struct krun_block_root {
    char *device, *fstype, *options; /* owned, or NULL */
};

struct krun_net {
    enum vial_net_kind kind;
    char *path; /* owned, or NULL */
    int fd;     /* owned, or -1 */
    uint8_t mac[6];
    uint32_t features;
    bool vfkit, dhcp;
};

struct krun_vsock_port {
    char *path; /* owned */
    uint32_t port;
    bool listen;
};

struct krun_port {
    char *name;       /* owned; may be "" */
    bool is_tty;      /* then fds[0] is the terminal */
    int fds[2];       /* owned, or -1: input, output */
    uint32_t console; /* whose it is */
};

/* A console that was added: either streams for the program, or ports that stand in the context's list. */
struct krun_console {
    bool has_ports;
    int fds[3]; /* owned, or -1 */
};

enum krun_vsock { KRUN_VSOCK_IMPLICIT, KRUN_VSOCK_DISABLED, KRUN_VSOCK_EXPLICIT };

/* A kernel of the project's own, held open: a program may have another root by the time it starts the machine (crun
 * does), and then finds it through its descriptor. */
struct krun_kernel {
    struct host_path path;
    int fd; /* owned, or -1: there is none */
};

struct krun_context {
    uint32_t id;

    uint8_t vcpus;
    uint32_t memory_mib;
    bool nested, split_irqchip;
    bool has_uid, has_gid;
    uid_t uid;
    gid_t gid;

    void *krunfw;                                             /* owned: the loaded libkrunfw.so.5, or NULL */
    char *krunfw_path;                                        /* owned, or NULL */
    struct krun_kernel own[2];                                /* by enum host_engine */
    char *kernel_path, *initramfs, *cmdline, *kernel_console; /* owned, or NULL */
    enum vial_kernel_format kernel_format;

    struct vial_vm_config *config; /* owned: what is settled at once, roots and file systems (files.c) */
    bool without_init;
    struct krun_block_root block_root; /* for an init of the program's own; its device is NULL without */

    struct krun_disk *disks; /* owned, as are the other arrays */
    size_t disk_count, disk_capacity;
    char *root_disk, *data_disk; /* owned: the older form */

    struct krun_net *nets;
    size_t net_count, net_capacity;
    struct krun_net legacy_net; /* of krun_set_passt_fd or krun_set_gvproxy_path; the kind is 0 when there is none */
    uint8_t legacy_mac[6];
    enum krun_vsock vsock;
    uint32_t tsi_features;
    struct krun_vsock_port *vsock_ports;
    size_t vsock_port_count, vsock_port_capacity;
    bool has_port_map, local_only;
    struct port_config *ports;
    size_t port_count, port_capacity;
    char *rewrite_ip; /* owned, or NULL */

    char *exec_path, *workdir; /* owned, or NULL */
    struct string_list args, env, rlimits;

    char *console_output; /* owned, or NULL */
    bool without_console;
    struct krun_console *consoles;
    size_t console_count, console_capacity;
    struct krun_port *console_ports;
    size_t console_port_count, console_port_capacity;
    struct vial_serial_options serials[LIMIT_SERIALS]; /* their descriptors are owned */
    size_t serial_count;
};

/* The context, for one change: no other thread has one until it is let go. NULL when there is none of that number, and
 * then there is nothing to let go. */
struct krun_context *krun_hold(uint32_t id);
void krun_let_go(void);

/* The same for one member alone, at its place in the struct: a bool, or a text, which is copied (krun_copy_text). 0 or
 * -errno. */
#define KRUN_MEMBER(member) offsetof(struct krun_context, member)
int krun_set_flag(uint32_t id, size_t member, bool value);
int krun_set_text(uint32_t id, size_t member, const char *text);

/* The context, the caller's own from here on; or NULL. */
struct krun_context *krun_take(uint32_t id);
struct krun_context *krun_context_free(struct krun_context *context);

/* ---- arguments ---- */

/* A copy of a text, in new memory: 0, -EINVAL for NULL and what is not UTF-8, -ENOMEM. With `may_be_null` NULL gives
 * NULL. */
int krun_copy_text(const char *text, bool may_be_null, char **ret_copy);

/* The same without the copy: 0 or -EINVAL. */
int krun_check_text(const char *text, bool may_be_null);

/* A copy with a slash in front: 0 or -ENOMEM. */
int krun_copy_absolute(const char *path, char **ret_path);

/* A copy of the first LIMIT_STRINGS strings of an array, the same errors; NULL is an empty one. */
int krun_copy_strings(const char *const strings[], struct string_list *ret_list);
void krun_free_strings(struct string_list *list);

/* A descriptor of our own, or -1 for a negative one: 0 or -errno. Never one of the standard streams' numbers, which a
 * program may have closed: a guest would have it for its own. */
int krun_copy_fd(int fd, int *ret_fd);

/* Opens a file in the same way: a descriptor, or -errno. */
int krun_open(const char *path, int flags, mode_t mode);

/* ---- what a context is made of ---- */

void krun_block_root_free(struct krun_block_root *block_root);
void krun_disks_free(struct krun_context *context);
void krun_network_free(struct krun_context *context);
void krun_console_free(struct krun_context *context);

/* Finds and holds the kernels that a machine may start from without being told (kernel.c). */
void krun_kernels_find(struct krun_context *context);
void krun_kernels_free(struct krun_context *context);

#endif
