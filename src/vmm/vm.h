// SPDX-License-Identifier: Apache-2.0
/* A machine that runs, as the files of this folder share it. */
#ifndef VMM_VM_H
#define VMM_VM_H

#include "device/legacy/platform.h"
#include "device/legacy/serial.h"
#include "engine/kvm/machine.h"
#include "virtio/mmio.h"
#include "vmm/config.h"

#include <pthread.h>

/* Where virtio devices begin, and how far apart they are. */
#define VM_DEVICES_ADDRESS MEMORY_GAP_START

struct vm_device {
    struct virtio_device *device; /* owned */
    struct mmio *mmio;            /* owned */
    uint64_t address;
    unsigned pin;
};

/* A range of ports of the platform, as the bus knows it. */
struct vm_ports {
    struct platform *platform; /* borrowed */
    uint16_t first;
};
enum { VM_PLATFORM_RANGES = 5 };

struct vial_vm {
    struct vial_vm_config *config; /* a reference of our own */
    struct memory *memory;         /* owned */
    struct kvm_machine *machine;   /* owned */

    struct vm_device devices[LIMIT_DEVICES];
    size_t device_count;
    struct virtio_device *console, *balloon, *metrics; /* borrowed from the devices; NULL when there is none */
    struct serial *serials[LIMIT_SERIALS];             /* owned */
    struct platform *platform;                         /* owned */
    struct vm_ports platform_ports[VM_PLATFORM_RANGES];
    bool has_acpi;       /* the guest learns of its devices from there */
    size_t extras_taken; /* of the devices that a test has brought */
    int output_fd;       /* owned: the console's output file, or -1 */
    uint64_t window_end; /* where the next shared-memory window may begin */

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
    uint64_t window_bytes; /* of shared memory for it, id 0; 0: none */
    void *window;          /* borrowed: what the guest sees there */
};

/* vial_vm_start with more devices, which are taken over whatever comes of it. */
int vm_start(struct vial_vm_config *config, const struct vm_extra *extras, size_t extra_count, struct vial_vm **ret_vm,
             struct vial_error *err);

/* Puts everything into an empty vm: memory, machine, devices, kernel. On failure what was made is in the vm, for
 * vial_vm_free. */
int vm_assemble(struct vial_vm *vm, const struct kvm_options *options, const struct vm_extra *extras,
                size_t extra_count, struct vial_error *err);

/* No device touches guest memory after this, and what the guest has said before is where it belongs, or counted as
 * lost. */
void vm_stop_devices(struct vial_vm *vm);

/* Ends the devices: what the guest has said is where it belongs, terminals are as before, threads are gone. */
void vm_close_devices(struct vial_vm *vm);

/* The kernel's command line, in new memory. Devices, and whether there is ACPI, are known by now. */
int vm_cmdline(const struct vial_vm *vm, char **ret_text, struct vial_error *err);

#endif
