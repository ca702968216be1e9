// SPDX-License-Identifier: Apache-2.0
/* What machine.c (putting together) and run.c (running) share. */
#ifndef ENGINE_KVM_PRIVATE_H
#define ENGINE_KVM_PRIVATE_H

#include "engine/kvm/ioapic.h"
#include "engine/kvm/machine.h"

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

struct vcpu {
    struct kvm_machine *machine; /* borrowed: whose it is */
    unsigned index;
    int fd;                /* owned */
    struct kvm_run *run;   /* owned mapping */
    pthread_t thread;      /* with machine->threads > index */
    atomic_bool is_inside; /* executes guest code, or is about to without another look at the command */
    atomic_uint_fast64_t exits;
};

/* What the vCPUs are to do. */
enum kvm_command { KVM_COMMAND_PAUSE, KVM_COMMAND_RUN, KVM_COMMAND_END };

struct kvm_machine {
    struct kvm_options options;
    int kvm_fd, vm_fd; /* owned */
    unsigned slots;    /* of memory, in use */
    size_t run_bytes;  /* of a kvm_run mapping */
    struct bus ports, mmio;
    struct ioapic *ioapic; /* owned; NULL with KVM's own */
    int *interrupt_fds;    /* owned array of owned descriptors, by pin */
    unsigned pins;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    _Atomic enum kvm_command command; /* written with the lock, read without */
    struct vial_exit end;
    bool has_end;
    unsigned living; /* vCPU threads that have not left */

    unsigned threads, joined; /* that were started, and of these joined */
    struct vcpu vcpus[];      /* owned */
};

/* The error of a failed ioctl. Returns -errno. */
int kvm_fail(struct vial_error *err, enum vial_phase phase, const char *step, int os_error);

#endif
