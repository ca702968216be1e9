// SPDX-License-Identifier: Apache-2.0
/* An IOAPIC in user space, for local APICs in the kernel (KVM_CAP_SPLIT_IRQCHIP). */
#ifndef ENGINE_KVM_IOAPIC_H
#define ENGINE_KVM_IOAPIC_H

#include <stddef.h>
#include <stdint.h>

struct kvm_irq_routing;

/* The guest-physical window; what the guest is told about it. */
#define IOAPIC_ADDRESS UINT64_C(0xfec00000)
enum { IOAPIC_WINDOW_BYTES = 4096, IOAPIC_VERSION = 0x20 };

/* The most that the version register can tell (82093AA, 3.2.2: up to entry 239). */
enum { IOAPIC_MOST_PINS = 240 };

struct ioapic_options {
    unsigned pins; /* 1 to IOAPIC_MOST_PINS; the first argument of KVM_CAP_SPLIT_IRQCHIP must be the same */
    uint8_t id;    /* as the machine's tables say */

    /* Makes this the whole of KVM's routing table (KVM_SET_GSI_ROUTING): 0 or -errno. GSI n is pin n. The table holds
     * only during the call, which must not use the IOAPIC. */
    int (*set_routes)(void *user, const struct kvm_irq_routing *table);

    /* May be NULL. A level-triggered pin can interrupt again: if its device still asserts the line, signal the pin's
     * eventfd once more. Called without a lock. */
    void (*resample)(void *user, unsigned pin);
    void *user; /* borrowed, for both */
};

struct ioapic;

int ioapic_new(const struct ioapic_options *options, struct ioapic **ret_ioapic);
struct ioapic *ioapic_free(struct ioapic *ioapic);

/* The guest's accesses to the window, from any thread. ioapic_write returns what set_routes said: after a failure the
 * kernel has the old routes, and each later write tries again. */
void ioapic_read(struct ioapic *ioapic, uint64_t offset, uint8_t *bytes, size_t length);
int ioapic_write(struct ioapic *ioapic, uint64_t offset, const uint8_t *bytes, size_t length);

/* KVM_EXIT_IOAPIC_EOI: a local APIC has ended a level-triggered interrupt. */
void ioapic_end_of_interrupt(struct ioapic *ioapic, uint8_t vector);

#endif
