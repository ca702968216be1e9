// SPDX-License-Identifier: Apache-2.0
/* The MP table, which tells the guest about its processors and interrupts. (MultiProcessor Specification 1.4, 4)
 *
 *     BOOT_MP_TABLE  floating pointer ─┐
 *              + 16  header ◂──────────┘  processors │ bus │ IOAPIC │ interrupts │ local interrupts
 *
 * It is what a guest without ACPI has. Every pin of the IOAPIC is an ISA interrupt of the same number, so that the
 * number of a device on the command line is its pin: even those above 15, which no ISA bus ever had but Linux takes as
 * they are.
 *
 * Invariants: (1) the bytes of the floating pointer, and those of the table, add up to 0. (2) the table's entries stand
 * in the order of their types, as 4.3 demands. (3) everything fits into BOOT_MP_TABLE_BYTES.
 *
 * Trust: the numbers come from a configuration that was checked.
 */
#include "boot/mptable.h"

#include "base/limits.h"
#include "boot/checksum.h"
#include "boot/layout.h"

#include <assert.h>
#include <string.h>

enum entry_type { ENTRY_PROCESSOR, ENTRY_BUS, ENTRY_IOAPIC, ENTRY_INTERRUPT, ENTRY_LOCAL_INTERRUPT };
enum interrupt_kind { INTERRUPT_VECTORED, INTERRUPT_NMI, INTERRUPT_SMI, INTERRUPT_EXTERNAL };
enum {
    specification = 4, /* 1.4 */
    isa_bus = 0,
    every_local_apic = 0xff,
    local_apic_version = 0x14, /* an integrated one, as KVM has */
    ioapic_version = 0x11,     /* an 82093AA, as KVM has */
    is_enabled = 1,
    is_boot_processor = 2,
};

struct floating_pointer {
    char signature[4];
    uint32_t table;
    uint8_t length; /* in 16 bytes */
    uint8_t specification;
    uint8_t checksum;
    uint8_t features[5]; /* all 0: there is a table, and the interrupt mode is virtual wire */
};
_Static_assert(sizeof(struct floating_pointer) == 16, "part of the specification");

struct table_header {
    char signature[4];
    uint16_t length;
    uint8_t specification;
    uint8_t checksum;
    char oem[8];
    char product[12];
    uint32_t oem_table;
    uint16_t oem_table_length;
    uint16_t entry_count;
    uint32_t local_apic;
    uint16_t extended_length;
    uint8_t extended_checksum;
    uint8_t reserved;
};
_Static_assert(sizeof(struct table_header) == 44, "part of the specification");

struct processor {
    uint8_t type, local_apic_id, local_apic_version, flags;
    uint32_t signature, features;
    uint32_t reserved[2];
};
_Static_assert(sizeof(struct processor) == 20, "part of the specification");

struct bus {
    uint8_t type, id;
    char name[6]; /* filled up with spaces */
};

struct ioapic {
    uint8_t type, id, version, flags;
    uint32_t address;
};

/* Of a device, or of a local APIC's own pins. Flags 0: polarity and trigger as the bus has them, for ISA active high
 * and edge (4.3.4). */
struct interrupt {
    uint8_t type, kind;
    uint16_t flags;
    uint8_t bus, bus_interrupt, apic_id, pin;
};
_Static_assert(sizeof(struct bus) == 8 && sizeof(struct ioapic) == 8 && sizeof(struct interrupt) == 8,
               "part of the specification");

struct mp_table {
    struct floating_pointer pointer;
    uint8_t bytes[sizeof(struct table_header) + LIMIT_VCPUS * sizeof(struct processor) + sizeof(struct bus) +
                  sizeof(struct ioapic) + (MPTABLE_MOST_PINS + 2) * sizeof(struct interrupt)];
    size_t length;
    uint16_t entry_count;
};
_Static_assert(sizeof(struct mp_table) <= BOOT_MP_TABLE_BYTES, "it has to fit");

static void add(struct mp_table *table, const void *entry, size_t length)
{
    assert(length <= sizeof(table->bytes) - table->length);
    memcpy(table->bytes + table->length, entry, length);
    table->length += length;
    table->entry_count++;
}

static void add_processors(struct mp_table *table, unsigned vcpus)
{
    for (unsigned i = 0; i < vcpus; i++) {
        /* Signature and features are what CPUID says (4.3.1); systems ask CPUID. The least that is true: FPU, APIC. */
        struct processor processor = {
            .type = ENTRY_PROCESSOR,
            .local_apic_id = (uint8_t)i,
            .local_apic_version = local_apic_version,
            .flags = (uint8_t)(is_enabled | (i == 0 ? is_boot_processor : 0)),
            .signature = 0x600,
            .features = 0x201,
        };
        add(table, &processor, sizeof(processor));
    }
}

static void add_interrupts(struct mp_table *table, uint8_t ioapic_id, unsigned pins)
{
    struct interrupt external = {.type = ENTRY_LOCAL_INTERRUPT,
                                 .kind = INTERRUPT_EXTERNAL,
                                 .bus = isa_bus,
                                 .apic_id = 0, /* the boot processor's LINT0: the 8259, before the IOAPIC is used */
                                 .pin = 0};
    struct interrupt nmi = {
        .type = ENTRY_LOCAL_INTERRUPT, .kind = INTERRUPT_NMI, .bus = isa_bus, .apic_id = every_local_apic, .pin = 1};
    for (unsigned i = 0; i < pins; i++) {
        struct interrupt interrupt = {.type = ENTRY_INTERRUPT,
                                      .kind = INTERRUPT_VECTORED,
                                      .bus = isa_bus,
                                      .bus_interrupt = (uint8_t)i,
                                      .apic_id = ioapic_id,
                                      .pin = (uint8_t)i};
        add(table, &interrupt, sizeof(interrupt));
    }
    add(table, &external, sizeof(external));
    add(table, &nmi, sizeof(nmi));
}

static void finish(struct mp_table *table)
{
    struct table_header header = {
        .signature = {'P', 'C', 'M', 'P'},
        .length = (uint16_t)table->length,
        .specification = specification,
        .oem = {'V', 'I', 'A', 'L', ' ', ' ', ' ', ' '},
        .product = {'M', 'I', 'C', 'R', 'O', 'V', 'M', ' ', ' ', ' ', ' ', ' '},
        .entry_count = table->entry_count,
        .local_apic = (uint32_t)BOOT_LOCAL_APIC,
    };
    memcpy(table->bytes, &header, sizeof(header));
    header.checksum = checksum_find(table->bytes, table->length);
    memcpy(table->bytes, &header, sizeof(header));
    table->pointer = (struct floating_pointer){
        .signature = {'_', 'M', 'P', '_'},
        .table = (uint32_t)(BOOT_MP_TABLE + sizeof(table->pointer)),
        .length = 1,
        .specification = specification,
    };
    table->pointer.checksum = checksum_find(&table->pointer, sizeof(table->pointer));
}

int mptable_write(const struct memory *memory, unsigned vcpus, unsigned pins)
{
    assert(vcpus >= 1 && vcpus <= LIMIT_VCPUS && pins <= MPTABLE_MOST_PINS);
    struct mp_table table = {.length = sizeof(struct table_header)};
    struct bus bus = {.type = ENTRY_BUS, .id = isa_bus, .name = {'I', 'S', 'A', ' ', ' ', ' '}};
    struct ioapic ioapic = {.type = ENTRY_IOAPIC,
                            .id = (uint8_t)vcpus,
                            .version = ioapic_version,
                            .flags = is_enabled,
                            .address = (uint32_t)BOOT_IOAPIC};
    add_processors(&table, vcpus);
    add(&table, &bus, sizeof(bus));
    add(&table, &ioapic, sizeof(ioapic));
    add_interrupts(&table, ioapic.id, pins);
    finish(&table);
    int result = memory_write(memory, BOOT_MP_TABLE, &table.pointer, sizeof(table.pointer));
    return result == 0 ? memory_write(memory, BOOT_MP_TABLE + sizeof(table.pointer), table.bytes, table.length)
                       : result;
}
