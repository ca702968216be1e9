// SPDX-License-Identifier: Apache-2.0
/* A machine that runs, as the files of this folder share it. */
#ifndef VMM_VM_H
#define VMM_VM_H

#include "device/legacy/platform.h"
#include "device/legacy/serial.h"
#include "engine/kvm/machine.h"
#include "engine/uml/machine.h"
#include "host/files.h"
#include "virtio/mmio.h"
#include "vmm/config.h"

#include <pthread.h>

/* Where virtio devices begin, and how far apart they are. */
#define VM_DEVICES_ADDRESS MEMORY_GAP_START

struct vm_device {
    struct virtio_device *device; /* owned */
    struct mmio *mmio;            /* owned; on KVM, as are the next four */
    uint64_t address;
    unsigned pin;
    void *window; /* owned: addresses that the guest sees as the device's shared memory, or NULL */
    uint64_t window_bytes;
};

/* The files that a machine starts from, open. */
struct vm_images {
    struct host_path project; /* where the project's own kernel is, when it is that one */
    const char *kernel_path;  /* borrowed; NULL with a libkrunfw */
    int kernel_fd;            /* owned; -1 with a libkrunfw */
    int initramfs_fd;         /* owned; -1 when there is none */
};

#define VM_IMAGES_INIT                                                                                                 \
    {                                                                                                                  \
        .kernel_fd = -1, .initramfs_fd = -1                                                                            \
    }

struct vial_vm;
struct vm_extra;

struct vm_window {
    void *host; /* borrowed */
    uint64_t size_bytes;
    uint8_t id;
};

/* An engine, as the life of a machine sees it. Calls on a machine that has none yet do nothing. */
struct vm_engine {
    /* Puts everything into an empty vm. On failure what was made is in it, for vial_vm_free. */
    int (*assemble)(struct vial_vm *vm, const struct vm_extra *extras, size_t extra_count, struct vial_error *err);
    /* Gives a device that has a place in the vm its transport. NULL: the engine does that for all of them later. */
    int (*connect)(struct vial_vm *vm, struct vm_device *place, struct vial_error *err);
    /* Shows the guest this memory of ours as the device's window. NULL: there are no windows on this engine. */
    int (*add_window)(struct vial_vm *vm, struct virtio_device *device, const struct vm_window *window,
                      struct vial_error *err);
    /* Lets the guest begin; the devices are launched. */
    int (*start)(struct vial_vm *vm, struct vial_error *err);
    int (*pause)(struct vial_vm *vm);
    int (*resume)(struct vial_vm *vm);
    /* Asks for the end and does not wait for it. The first reason stays. */
    void (*end)(struct vial_vm *vm, enum vial_exit_reason reason, const char *detail);
    /* Ends the guest, waits for that, and so for vm_handle_end. Nothing of the engine uses a device after that. */
    void (*join)(struct vial_vm *vm);
    void (*free)(struct vial_vm *vm); /* when the devices are gone */
    void (*read_stats)(const struct vial_vm *vm, struct vial_vm_stats *stats);
    void (*describe)(const struct vial_vm *vm, struct vial_engine_info *info); /* what stands around the guest now */
};

extern const struct vm_engine vm_on_kvm, vm_on_uml;

/* A range of ports of the platform, as the bus knows it. */
struct vm_ports {
    struct platform *platform; /* borrowed */
    uint16_t first;
};
enum { VM_PLATFORM_RANGES = 5 };

struct vial_vm {
    struct vial_vm_config *config; /* a reference of our own */
    const struct vm_engine *engine;
    struct vial_engine_info engine_info; /* as it was chosen */
    struct memory *memory;               /* owned; NULL on uml, where it is the guest's */
    struct kvm_machine *kvm;             /* owned, or NULL */
    struct uml_machine *uml;             /* owned, or NULL */
    struct vm_images images;             /* on uml as long as the machine lives, on KVM until it is loaded */
    struct exec *exec;                   /* owned; NULL when the guest's init does as it likes */

    struct vm_device devices[LIMIT_DEVICES];
    size_t device_count;
    struct virtio_device *console, *balloon, *metrics; /* borrowed from the devices; NULL when there is none */
    struct serial *serials[LIMIT_SERIALS];             /* owned */
    struct platform *platform;                         /* owned */
    struct vm_ports platform_ports[VM_PLATFORM_RANGES];
    bool has_acpi;        /* the guest learns of its devices from there */
    size_t extras_taken;  /* of the devices that a test has brought */
    int output_fd;        /* owned: the console's output file, or -1 */
    int standard[3];      /* borrowed: the program's, or this process's, or -1; asked before we open anything */
    uint64_t window_end;  /* where the next shared-memory window may begin */
    atomic_int told_code; /* the exit code that the guest has told the file system of its root, or -1 */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    unsigned users;  /* calls that use the devices now */
    bool is_closing; /* no more of them are let in */
    bool has_ended;  /* observers have returned, and `exit` stands */
    bool has_ending_thread;
    pthread_t ending_thread; /* prepares the end, and runs the observers */
    struct vial_exit exit;
    struct vial_vm_stats last_stats; /* from before the devices went */
    int end_fd;                      /* owned: readable at the end */
};

/* A device that no configuration describes: for tests. */
struct vm_extra {
    struct virtio_device *device;
    uint64_t window_bytes; /* of shared memory for it, id 0; 0: none. KVM only */
    void *window;          /* borrowed: what the guest sees there */
};

/* vial_vm_start with more devices, which are taken over whatever comes of it. */
int vm_start(struct vial_vm_config *config, const struct vm_extra *extras, size_t extra_count, struct vial_vm **ret_vm,
             struct vial_error *err);

/* What an engine calls when the guest has ended for good and no device has anything from it any more: on a thread of
 * the engine's, once. `user` is the vm. */
void vm_handle_end(void *user, const struct vial_exit *exit);

/* Results in the caller's sized structs, of whatever version of the library: with a size at all, and then as much of
 * ours as fits. */
int vm_check_result(const void *theirs, const char *macro, struct vial_error *err);
void vm_give_result(void *theirs, const void *ours, size_t our_size);

/* ---- the parts of a machine (devices.c, storage.c, network.c, images.c, cmdline.c) ---- */

/* Makes the devices that the configuration asks for, and takes over those of a test. */
int vm_add_devices(struct vial_vm *vm, const struct vm_extra *extras, size_t extra_count, struct vial_error *err);

/* Takes a device over, whatever comes of it, and connects it. */
int vm_add_device(struct vial_vm *vm, struct virtio_device *device, struct vial_error *err);

/* The same for disks and file systems. */
int vm_add_storage(struct vial_vm *vm, struct vial_error *err);

/* The same for networks and vsock. */
int vm_add_networks(struct vial_vm *vm, struct vial_error *err);

/* No device touches guest memory after this, and what the guest has said before is where it belongs, or counted as
 * lost. */
void vm_stop_devices(struct vial_vm *vm);

/* Ends the devices: what the guest has said is where it belongs, terminals are as before, threads are gone. */
void vm_close_devices(struct vial_vm *vm);

/* The error of a device that could not be made. */
int vm_fail_device(struct vial_error *err, int result, const char *what);

/* Opens the kernel, the project's own where none is given, and the initramfs. */
int vm_open_images(const struct kernel_config *kernel, enum vial_engine engine, struct vm_images *images,
                   struct vial_error *err);
void vm_close_images(struct vm_images *images);

/* Says in `info` which kernel that is. */
void vm_name_kernel(const struct kernel_config *kernel, const struct vm_images *images, struct vial_engine_info *info);

/* The kernel's command line, in new memory. Devices, and whether there is ACPI, are known by now. */
int vm_cmdline(const struct vial_vm *vm, char **ret_text, struct vial_error *err);

/* ---- which engine (choose.c) ---- */

/* Settles the engine, and refuses what it has not: nothing is started. */
int vm_choose_engine(const struct vial_vm_config *config, struct vial_engine_info *info, struct vial_error *err);

#endif
