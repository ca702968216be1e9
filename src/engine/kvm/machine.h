// SPDX-License-Identifier: Apache-2.0
/* A machine on KVM: memory, interrupts, what answers at addresses, and vCPUs that run.
 *
 *     kvm_machine_new, then kvm_machine_add_*, kvm_machine_interrupt …, kvm_machine_load, kvm_machine_start,
 *     pause, resume and end from any thread at any time, kvm_machine_free.
 */
#ifndef ENGINE_KVM_MACHINE_H
#define ENGINE_KVM_MACHINE_H

#include "boot/boot.h"
#include "engine/kvm/bus.h"
#include "mem/memory.h"
#include "vial/vmm.h"

struct kvm_machine;

struct kvm_options {
    const struct memory *memory; /* borrowed until kvm_machine_free */
    unsigned vcpus;
    bool hyperthreading, nested, split_irqchip;
    /* Called once, on the last vCPU's thread, when no vCPU runs any more. */
    void (*on_end)(void *user, const struct vial_exit *exit);
    /* Called on a vCPU's thread when the guest resets the machine: why it does. */
    enum vial_exit_reason (*reset_reason)(void *user);
    void *user;
};

struct kvm_counters {
    uint64_t exits;                         /* returns from the guest to us */
    uint64_t unknown_ports, unknown_memory; /* accesses that nobody answered */
};

/* Errors say which ioctl failed with what, and what to do about it. */
int kvm_machine_new(const struct kvm_options *options, struct kvm_machine **ret_machine, struct vial_error *err);

/* Ends the vCPUs and waits for their threads, and so for on_end. Accepts NULL. Not on one of these threads. */
void kvm_machine_join(struct kvm_machine *machine);

/* Joins and frees it. Accepts NULL and returns NULL. */
struct kvm_machine *kvm_machine_free(struct kvm_machine *machine);

/* ---- putting it together ---- */

/* Interrupt pins; those below the first belong to the platform. */
enum { KVM_FIRST_PIN = 5, KVM_PINS = 24, KVM_SPLIT_PINS = 224 };
unsigned kvm_machine_pins(const struct kvm_machine *machine);

/* The n-th pin for a device, in the order in which a kernel is least likely to want it for something else: -1 when
 * there are no more. */
int kvm_machine_pin(const struct kvm_machine *machine, unsigned number);

int kvm_machine_add_ports(struct kvm_machine *machine, uint16_t first, uint16_t count, const struct bus_ops *ops,
                          void *user, struct vial_error *err);
int kvm_machine_add_mmio(struct kvm_machine *machine, uint64_t first, uint64_t size_bytes, const struct bus_ops *ops,
                         void *user, struct vial_error *err);

/* An eventfd that raises an edge on the pin, owned by the machine. */
int kvm_machine_interrupt(struct kvm_machine *machine, unsigned pin, int *ret_fd, struct vial_error *err);

/* A 32-bit write of `value` to the address signals the eventfd, without an exit to us. */
int kvm_machine_add_kick(struct kvm_machine *machine, uint64_t address, uint32_t value, int fd, struct vial_error *err);

/* Memory of the host at a guest-physical address (a DAX window). It must stay mapped. */
int kvm_machine_add_window(struct kvm_machine *machine, uint64_t guest, uint64_t size_bytes, void *host,
                           struct vial_error *err);

/* The first vCPU's registers: where the kernel begins. */
int kvm_machine_load(struct kvm_machine *machine, const struct boot_entry *entry, struct vial_error *err);

/* ---- running ---- */

int kvm_machine_start(struct kvm_machine *machine, struct vial_error *err);

/* Returns when no vCPU executes guest code. 0, -EALREADY when it was paused already, -ESRCH once it has ended. */
int kvm_machine_pause(struct kvm_machine *machine);
int kvm_machine_resume(struct kvm_machine *machine);

/* Asks for the end and returns at once. The first reason counts. From any thread, a vCPU's own too. */
void kvm_machine_end(struct kvm_machine *machine, enum vial_exit_reason reason, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The guest asked for a reset: on a vCPU's thread. */
void kvm_machine_reset(struct kvm_machine *machine);

void kvm_machine_counters(const struct kvm_machine *machine, struct kvm_counters *ret_counters);

#endif
