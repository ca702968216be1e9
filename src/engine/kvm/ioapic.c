// SPDX-License-Identifier: Apache-2.0
/* An IOAPIC in user space, for local APICs in the kernel. (Intel 82093AA; KVM API, KVM_CAP_SPLIT_IRQCHIP)
 *
 * An interrupt never comes through here. A device's eventfd is bound to GSI n inside KVM (an irqfd), and KVM's routing
 * table says which message GSI n is to the local APICs (Intel SDM 3A, 11.11). All that an IOAPIC has to do is to keep
 * that table in step with what the guest writes into the redirection entries:
 *
 *     guest ── redirection entry n ──> route n ──> routing table      at configuration
 *     device ── eventfd n ──> KVM: GSI n ──> message ──> local APIC   at each interrupt
 *
 * A route is computed anew after each write. Only when it differs from the one that KVM has is the table handed over,
 * for that costs KVM a grace period. A masked pin has no route: a signal on it is lost, as an edge on a masked pin of
 * the chip is (82093AA 3.2.4, bit 16).
 *
 * Level-triggered pins. KVM looks through the first routes, as many as were reserved with the capability, for messages
 * that say level, and lets their end of interrupt exit to us; it does so again whenever the table changes. There is
 * nothing to do but to keep the trigger mode in the message and GSIs equal to pins. An eventfd has no level, so the
 * line has to be looked at again when the interrupt has ended and when the pin got its route: resample. The remote IRR
 * bit always reads 0, because nobody tells us of a delivery; Linux asks for it only before it moves an interrupt to
 * another CPU. A guest whose local APICs keep the end of an interrupt to themselves (KVM offers that to x2APIC guests
 * on this kind of machine) tells us through the EOI register, which exists since version 0x20.
 *
 * More pins than the chip has 8-bit indexes for: register 0x10 + 2n of pin 120 is 0x100. The index register is 32 bits
 * wide here, as drivers write it.
 *
 * Invariants: (1) after a write that returned 0, KVM's table is the guest's entries. (2) routes[n] is what KVM has, as
 * long as the table is not stale. (3) nothing is allocated after ioapic_new. (4) the set_routes calls are in the order
 * of the writes.
 *
 * Trust: offsets and values come from a hostile guest. It can send itself any interrupt: that is what an IOAPIC is for.
 */
#include "engine/kvm/ioapic.h"

#include "base/alloc.h"

#include <assert.h>
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

enum { WINDOW_INDEX = 0x00, WINDOW_DATA = 0x10, WINDOW_END_OF_INTERRUPT = 0x40 };
enum { REGISTER_ID = 0, REGISTER_VERSION = 1, REGISTER_ARBITRATION = 2, REGISTER_ENTRIES = 0x10 };
enum { ID_SHIFT = 24, MOST_ENTRY_SHIFT = 16 };

/* A redirection entry (82093AA 3.2.4). Status and remote IRR are the chip's own and read as zero. */
#define ENTRY_VECTOR UINT64_C(0xff)
#define ENTRY_LOGICAL (UINT64_C(1) << 11)
#define ENTRY_LEVEL (UINT64_C(1) << 15)
#define ENTRY_MASKED (UINT64_C(1) << 16)
#define ENTRY_WRITABLE UINT64_C(0xff0000000001afff)
enum { ENTRY_MODE_SHIFT = 8, ENTRY_MODE_MASK = 7, ENTRY_DESTINATION_SHIFT = 56 };

enum { MODE_FIXED = 0, MODE_LOWEST_PRIORITY = 1, MODE_NMI = 4, MODE_INIT = 5 };

/* A message to the local APICs (SDM 3A, 11.11.1 and 11.11.2). */
#define MESSAGE_ADDRESS UINT32_C(0xfee00000)
enum { ADDRESS_DESTINATION_SHIFT = 12, ADDRESS_LOGICAL = 1 << 2 };
enum { DATA_MODE_SHIFT = 8, DATA_ASSERT = 1 << 14, DATA_LEVEL = 1 << 15 };
enum { LEAST_VECTOR = 16 /* below are exceptions; a local APIC takes none of them (SDM 3A, 11.5.2) */ };

struct route {
    uint32_t address; /* 0: none */
    uint32_t data;
};

/* Pins to look at again, once the mutex is released. */
struct pin_set {
    bool has[IOAPIC_MOST_PINS];
};

struct ioapic {
    struct ioapic_options options;
    pthread_mutex_t mutex; /* over what follows */
    uint32_t index, id;
    uint64_t entries[IOAPIC_MOST_PINS];
    struct route routes[IOAPIC_MOST_PINS];
    struct kvm_irq_routing *table; /* owned; room for a route a pin */
    bool is_stale;                 /* KVM did not take the last table */
};

int ioapic_new(const struct ioapic_options *options, struct ioapic **ret_ioapic)
{
    assert(options->pins > 0 && options->pins <= IOAPIC_MOST_PINS);
    auto_free struct ioapic *ioapic = alloc_zero(sizeof(*ioapic));
    if (ioapic == NULL)
        return -ENOMEM;
    ioapic->table = alloc_zero(sizeof(*ioapic->table) + options->pins * sizeof(ioapic->table->entries[0]));
    if (ioapic->table == NULL)
        return -ENOMEM;
    pthread_mutex_init(&ioapic->mutex, NULL); /* cannot fail without attributes */
    ioapic->options = *options;
    ioapic->id = (uint32_t)options->id << ID_SHIFT;
    for (unsigned pin = 0; pin < options->pins; pin++)
        ioapic->entries[pin] = ENTRY_MASKED;
    *ret_ioapic = steal_ptr(ioapic);
    return 0;
}

struct ioapic *ioapic_free(struct ioapic *ioapic)
{
    if (ioapic == NULL)
        return NULL;
    pthread_mutex_destroy(&ioapic->mutex);
    free(ioapic->table);
    free(ioapic);
    return NULL;
}

/* ---- routes ---- */

/* The message that an entry stands for. Modes that need what this machine does not have (an SMM handler, a second
 * interrupt controller behind ExtINT) and reserved ones give none. */
static struct route make_route(uint64_t entry)
{
    struct route none = {0};
    uint32_t vector = (uint32_t)(entry & ENTRY_VECTOR);
    uint32_t mode = (uint32_t)(entry >> ENTRY_MODE_SHIFT) & ENTRY_MODE_MASK;
    uint32_t data = mode << DATA_MODE_SHIFT;
    if ((entry & ENTRY_MASKED) != 0)
        return none;
    switch (mode) {
    case MODE_FIXED:
    case MODE_LOWEST_PRIORITY:
        if (vector < LEAST_VECTOR)
            return none;
        data |= vector;
        if ((entry & ENTRY_LEVEL) != 0)
            data |= DATA_LEVEL | DATA_ASSERT;
        break;
    case MODE_NMI:
    case MODE_INIT: /* both are edges whatever the entry says, and have no vector (82093AA 3.2.4, bits 10:8) */
        break;
    default:
        return none;
    }
    uint32_t address = MESSAGE_ADDRESS | (uint32_t)(entry >> ENTRY_DESTINATION_SHIFT) << ADDRESS_DESTINATION_SHIFT;
    return (struct route){
        .address = (entry & ENTRY_LOGICAL) != 0 ? address | ADDRESS_LOGICAL : address,
        .data = data,
    };
}

static bool is_same_route(struct route one, struct route other)
{
    return one.address == other.address && one.data == other.data;
}

static bool is_level_route(struct route route)
{
    return route.address != 0 && (route.data & DATA_LEVEL) != 0;
}

static int push_routes(struct ioapic *ioapic)
{
    struct kvm_irq_routing *table = ioapic->table;
    table->nr = 0;
    for (unsigned pin = 0; pin < ioapic->options.pins; pin++) {
        const struct route *route = &ioapic->routes[pin];
        if (route->address == 0)
            continue;
        table->entries[table->nr++] = (struct kvm_irq_routing_entry){
            .gsi = pin,
            .type = KVM_IRQ_ROUTING_MSI,
            .u.msi = {.address_lo = route->address, .data = route->data},
        };
    }
    int result = ioapic->options.set_routes(ioapic->options.user, table);
    ioapic->is_stale = result < 0;
    return result;
}

/* The level-triggered pins with this vector: their interrupt has ended. */
static void find_ended(const struct ioapic *ioapic, uint8_t vector, struct pin_set *pins)
{
    for (unsigned pin = 0; pin < ioapic->options.pins; pin++) {
        struct route route = ioapic->routes[pin];
        pins->has[pin] = is_level_route(route) && (route.data & ENTRY_VECTOR) == vector;
    }
}

static void resample(const struct ioapic *ioapic, const struct pin_set *pins)
{
    if (ioapic->options.resample == NULL)
        return;
    for (unsigned pin = 0; pin < ioapic->options.pins; pin++) {
        if (pins->has[pin])
            ioapic->options.resample(ioapic->options.user, pin);
    }
}

void ioapic_end_of_interrupt(struct ioapic *ioapic, uint8_t vector)
{
    struct pin_set pins = {0};
    pthread_mutex_lock(&ioapic->mutex);
    find_ended(ioapic, vector, &pins);
    pthread_mutex_unlock(&ioapic->mutex);
    resample(ioapic, &pins);
}

/* ---- registers ---- */

/* The pin of a redirection entry's half, or false. */
static bool is_entry(const struct ioapic *ioapic, unsigned *ret_pin, unsigned *ret_shift)
{
    if (ioapic->index < REGISTER_ENTRIES || ioapic->index - REGISTER_ENTRIES >= 2 * ioapic->options.pins)
        return false;
    *ret_pin = (ioapic->index - REGISTER_ENTRIES) / 2;
    *ret_shift = ioapic->index % 2 != 0 ? 32 : 0;
    return true;
}

static uint32_t read_register(const struct ioapic *ioapic)
{
    unsigned pin = 0, shift = 0;
    if (is_entry(ioapic, &pin, &shift))
        return (uint32_t)(ioapic->entries[pin] >> shift);
    switch (ioapic->index) {
    case REGISTER_ID:
    case REGISTER_ARBITRATION: /* no bus to arbitrate: it is loaded from the id (82093AA 3.2.3) */
        return ioapic->id;
    case REGISTER_VERSION:
        return IOAPIC_VERSION | (ioapic->options.pins - 1) << MOST_ENTRY_SHIFT;
    default:
        return UINT32_MAX;
    }
}

static void write_entry(struct ioapic *ioapic, unsigned pin, unsigned shift, uint32_t value, struct pin_set *resampled)
{
    uint64_t other_half = UINT64_C(0xffffffff) << (32 - shift);
    uint64_t entry = ((uint64_t)value << shift | (ioapic->entries[pin] & other_half)) & ENTRY_WRITABLE;
    struct route route = make_route(entry);
    ioapic->entries[pin] = entry;
    if (is_same_route(route, ioapic->routes[pin]))
        return;
    ioapic->routes[pin] = route;
    ioapic->is_stale = true;
    resampled->has[pin] = is_level_route(route);
}

static void write_register(struct ioapic *ioapic, uint32_t value, struct pin_set *resampled)
{
    unsigned pin = 0, shift = 0;
    if (is_entry(ioapic, &pin, &shift))
        write_entry(ioapic, pin, shift, value, resampled);
    else if (ioapic->index == REGISTER_ID)
        ioapic->id = value & UINT32_C(0xff) << ID_SHIFT;
}

/* ---- the window ---- */

/* A register is 32 bits wide. Of a wider access the rest reads as zero and is not written; a narrower one reads the low
 * bytes, and writes zeros above. Drivers do neither. */
void ioapic_read(struct ioapic *ioapic, uint64_t offset, uint8_t *bytes, size_t length)
{
    uint32_t value = UINT32_MAX;
    pthread_mutex_lock(&ioapic->mutex);
    if (offset == WINDOW_INDEX)
        value = ioapic->index;
    else if (offset == WINDOW_DATA)
        value = read_register(ioapic);
    pthread_mutex_unlock(&ioapic->mutex);
    memset(bytes, 0, length);
    memcpy(bytes, &value, length < sizeof(value) ? length : sizeof(value));
}

int ioapic_write(struct ioapic *ioapic, uint64_t offset, const uint8_t *bytes, size_t length)
{
    uint32_t value = 0;
    struct pin_set resampled = {0};
    memcpy(&value, bytes, length < sizeof(value) ? length : sizeof(value));
    pthread_mutex_lock(&ioapic->mutex);
    if (offset == WINDOW_INDEX)
        ioapic->index = value;
    else if (offset == WINDOW_DATA)
        write_register(ioapic, value, &resampled);
    else if (offset == WINDOW_END_OF_INTERRUPT)
        find_ended(ioapic, (uint8_t)value, &resampled);
    int result = ioapic->is_stale ? push_routes(ioapic) : 0;
    pthread_mutex_unlock(&ioapic->mutex);
    resample(ioapic, &resampled);
    return result;
}
