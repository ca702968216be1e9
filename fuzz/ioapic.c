// SPDX-License-Identifier: Apache-2.0
/* Any sequence of accesses to an IOAPIC, with a KVM that sometimes refuses the table.
 *
 * The first byte chooses the number of pins, then ten bytes a step: what to do, width, a short offset, an index, a
 * value. What must hold: after a write that succeeded, KVM's table is what the redirection entries say; selecting and
 * reading registers does not set it again; pins to look at again exist.
 */
#include "fuzz.h"

#include "engine/kvm/ioapic.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdbool.h>

enum { STEP_BYTES = 10 };

static struct ioapic *ioapic;
static unsigned pins;
static bool refuses, was_set;
static unsigned route_count;
static struct kvm_irq_routing_entry routes[IOAPIC_MOST_PINS];

static int set_routes(void *user, const struct kvm_irq_routing *table)
{
    (void)user;
    FUZZ_CHECK(table->nr <= pins && table->flags == 0);
    if (refuses)
        return -EINVAL;
    was_set = true;
    route_count = table->nr;
    memcpy(routes, table->entries, table->nr * sizeof(routes[0]));
    return 0;
}

static uint32_t get(uint32_t index)
{
    uint32_t value = 0;
    FUZZ_CHECK(ioapic_write(ioapic, 0, (const uint8_t *)&index, sizeof(index)) == 0);
    ioapic_read(ioapic, 0x10, (uint8_t *)&value, sizeof(value));
    return value;
}

static void resample(void *user, unsigned pin)
{
    (void)user;
    FUZZ_CHECK(pin < pins);
}

static bool has_message(uint32_t low)
{
    unsigned mode = low >> 8 & 7;
    bool needs_vector = mode <= 1;
    return (low & 0x10000) == 0 && (needs_vector ? (low & 0xff) >= 16 : mode == 4 || mode == 5);
}

/* The table against the entries, each derived in its own way. Leaves the index as it was. */
static void check_table(void)
{
    uint32_t index = 0;
    unsigned next = 0;
    ioapic_read(ioapic, 0, (uint8_t *)&index, sizeof(index));
    for (unsigned pin = 0; pin < pins; pin++) {
        uint32_t low = get(0x10 + 2 * pin), high = get(0x11 + 2 * pin);
        FUZZ_CHECK((low & 0xfffe5000) == 0 && (high & 0xffffff) == 0);
        if (!has_message(low))
            continue;
        const struct kvm_irq_routing_entry *route = &routes[next++];
        FUZZ_CHECK(next <= route_count && route->gsi == pin && route->type == KVM_IRQ_ROUTING_MSI);
        FUZZ_CHECK(route->u.msi.address_hi == 0);
        FUZZ_CHECK(route->u.msi.address_lo == (0xfee00000 | (high >> 12) | ((low & 0x800) != 0 ? 4 : 0)));
        FUZZ_CHECK((route->u.msi.data & 0x700) == (low & 0x700));
        if ((low & 0x600) == 0)
            FUZZ_CHECK(route->u.msi.data == ((low & 0x81ff) | ((low & 0x8000) != 0 ? 0x4000 : 0)));
    }
    FUZZ_CHECK(next == route_count);
    was_set = false;
    get(index);
    FUZZ_CHECK(!was_set);
}

static void step(const uint8_t *data)
{
    uint8_t bytes[8] = {0};
    uint32_t index = data[3];
    size_t length = data[1] % 9;
    bool is_index = data[2] % 4 == 0;
    uint64_t offset = is_index ? 0 : data[2] % 4 == 3 ? data[2] : 0x10;
    memcpy(bytes, data + 4, 6);
    if (is_index && (data[0] & 0x40) != 0) { /* mostly registers that exist */
        index = index * 2 + (data[4] & 1);
        memcpy(bytes, &index, sizeof(index));
        length = sizeof(index);
    }
    refuses = (data[0] & 0x80) != 0;
    if (data[0] % 4 == 0) {
        ioapic_read(ioapic, offset, bytes, length);
    } else if (data[0] % 4 == 1) {
        ioapic_end_of_interrupt(ioapic, data[3]);
    } else {
        was_set = false;
        int result = ioapic_write(ioapic, offset, bytes, length);
        FUZZ_CHECK(result == 0 || (result == -EINVAL && refuses));
        if (was_set)
            check_table();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    pins = 1 + data[0] % IOAPIC_MOST_PINS;
    struct ioapic_options options = {.pins = pins, .set_routes = set_routes, .resample = resample};
    route_count = 0;
    FUZZ_CHECK(ioapic_new(&options, &ioapic) == 0);
    size_t offset = 1;
    for (; offset + STEP_BYTES <= size; offset += STEP_BYTES)
        step(data + offset);
    refuses = false;
    get(0); /* a table that was refused goes now */
    check_table();
    ioapic = ioapic_free(ioapic);
    return 0;
}
