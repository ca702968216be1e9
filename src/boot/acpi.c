// SPDX-License-Identifier: Apache-2.0
/* The ACPI tables, which tell a guest of processors, interrupts, devices, and how to switch off. (ACPI 6.5, 5.2)
 *
 *     BOOT_ACPI  RSDP ──> XSDT ──> FADT ──> DSDT   devices, in AML
 *                             └──> MADT            processors, IOAPIC
 *
 * They are for kernels of distributions, which are built without the MP table and without devices on the command line.
 * The machine is one of reduced hardware (4.1): no event registers, no timer, no SCI. Linux then wants neither an 8259
 * nor a PIT, which this machine does not have. Switching off is a byte to the sleep control register.
 *
 * Pins are edge-triggered, as those of the MP table are. The MADT says nothing of that, because every pin is a global
 * interrupt of the same number and each device brings polarity and trigger along (_CRS).
 *
 * A piece of AML that contains others begins with its length (20.2.4), which is known when its end is written. So the
 * place for it is kept free, always in the form of three bytes, and filled in then.
 *
 * The tables are written where they stay; no guest runs yet.
 *
 * Invariants: (1) the bytes of every table add up to 0. (2) everything fits into BOOT_ACPI_BYTES: the most that the
 * limits allow does, and every byte passes add(). (3) a table begins at a multiple of 16.
 *
 * Trust: the numbers come from a configuration that was checked, and from the engine.
 */
#include "boot/acpi.h"

#include "base/limits.h"
#include "boot/checksum.h"
#include "boot/layout.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { xsdt_revision = 1, fadt_revision = 6, fadt_minor_revision = 5, madt_revision = 6, dsdt_revision = 2 };
enum { rsdp_revision = 2, rsdp_first_bytes = 20 /* what ACPI 1.0 had, with a checksum of its own */ };
enum { table_alignment = 16 };

struct rsdp {
    char signature[8];
    uint8_t checksum;
    char oem[6];
    uint8_t revision;
    uint32_t rsdt;
    uint32_t length;
    uint64_t xsdt;
    uint8_t extended_checksum;
    uint8_t reserved[3];
} __attribute__((packed));
_Static_assert(sizeof(struct rsdp) == 36, "part of the specification");

struct header {
    char signature[4];
    uint32_t length;
    uint8_t revision;
    uint8_t checksum;
    char oem[6];
    char oem_table[8];
    uint32_t oem_revision;
    char creator[4];
    uint32_t creator_revision;
};
_Static_assert(sizeof(struct header) == 36, "part of the specification");

/* Where a register is (5.2.3.2). */
enum { SPACE_IO = 1, ACCESS_BYTE = 1 };
struct address {
    uint8_t space, bits, bit_offset, access;
    uint64_t address;
} __attribute__((packed));

enum { BOOT_HAS_8042 = 1 << 1, BOOT_HAS_NO_VGA = 1 << 2 };
enum {
    FLAG_WBINVD = 1 << 0,
    FLAG_POWER_BUTTON = 1 << 4, /* there is none among the fixed hardware; nor the next */
    FLAG_SLEEP_BUTTON = 1 << 5,
    FLAG_RESET_REGISTER = 1 << 10,
    FLAG_HARDWARE_REDUCED = 1 << 20,
};
struct fadt {
    uint32_t facs, dsdt;
    uint8_t reserved, power_profile;
    uint8_t fixed_hardware[63]; /* all 0: reduced */
    uint16_t boot_architecture;
    uint8_t also_reserved;
    uint32_t flags;
    struct address reset;
    uint8_t reset_value;
    uint16_t arm_boot_architecture;
    uint8_t minor_revision;
    uint64_t extended_facs, extended_dsdt;
    struct address more_fixed_hardware[8]; /* all 0 */
    struct address sleep_control, sleep_status;
    char hypervisor[8];
} __attribute__((packed));
_Static_assert(sizeof(struct header) + sizeof(struct fadt) == 276, "part of the specification");

enum { MADT_LOCAL_APIC = 0, MADT_IOAPIC = 1, MADT_IS_ENABLED = 1 };
struct madt {
    uint32_t local_apic;
    uint32_t flags; /* 0: no 8259 */
};
struct madt_local_apic {
    uint8_t type, length, processor, apic_id;
    uint32_t flags;
};
struct madt_ioapic {
    uint8_t type, length, id, reserved;
    uint32_t address, first_interrupt;
};
_Static_assert(sizeof(struct madt_local_apic) == 8 && sizeof(struct madt_ioapic) == 12, "part of the specification");

/* Resources (6.4): what is behind _CRS. */
enum {
    RESOURCE_PORTS = 0x47,
    RESOURCE_END = 0x79,
    RESOURCE_MEMORY = 0x86,
    RESOURCE_INTERRUPT = 0x89,
    /* Of the interrupt: the device raises it, as an edge, to the high level; others may do that, too. */
    INTERRUPT_CONSUMER = 1 << 0,
    INTERRUPT_EDGE = 1 << 1,
    INTERRUPT_SHARED = 1 << 3,
};
struct memory_resource {
    uint8_t type;
    uint16_t length; /* of what follows */
    uint8_t is_writable;
    uint32_t address, size_bytes;
} __attribute__((packed));
struct port_resource {
    uint8_t type, decodes_16_bits;
    uint16_t lowest, highest; /* where it may begin */
    uint8_t alignment, count;
} __attribute__((packed));
struct interrupt_resource {
    uint8_t type;
    uint16_t length; /* of what follows */
    uint8_t flags, count;
    uint32_t interrupt;
} __attribute__((packed));
struct end_resource {
    uint8_t type, checksum; /* 0: none */
};
_Static_assert(sizeof(struct memory_resource) == 12 && sizeof(struct port_resource) == 8 &&
                   sizeof(struct interrupt_resource) == 9,
               "part of the specification");

/* The tables as they grow. */
struct tables {
    uint8_t *bytes; /* of guest memory, BOOT_ACPI_BYTES */
    size_t length;
};

static void add(struct tables *tables, const void *bytes, size_t length)
{
    assert(length <= BOOT_ACPI_BYTES - tables->length);
    memcpy(tables->bytes + tables->length, bytes, length);
    tables->length += length;
}

static void add_byte(struct tables *tables, uint8_t byte)
{
    add(tables, &byte, sizeof(byte));
}

static uint64_t address_of(size_t offset)
{
    return BOOT_ACPI + offset;
}

/* Begins a table behind what is there, and returns where. */
static size_t begin_table(struct tables *tables, const char signature[5], uint8_t revision)
{
    static const uint8_t padding[table_alignment] = {0};
    struct header header = {
        .revision = revision,
        .oem = {'V', 'I', 'A', 'L', ' ', ' '},
        .oem_table = {'M', 'I', 'C', 'R', 'O', 'V', 'M', ' '},
        .oem_revision = 1,
        .creator = {'V', 'I', 'A', 'L'},
        .creator_revision = 1,
    };
    memcpy(header.signature, signature, sizeof(header.signature));
    add(tables, padding, -tables->length % table_alignment);
    size_t begin = tables->length;
    add(tables, &header, sizeof(header));
    return begin;
}

static void end_table(struct tables *tables, size_t begin)
{
    struct header header;
    uint8_t *table = tables->bytes + begin;
    memcpy(&header, table, sizeof(header));
    header.length = (uint32_t)(tables->length - begin);
    memcpy(table, &header, sizeof(header));
    header.checksum = checksum_find(table, header.length);
    memcpy(table, &header, sizeof(header));
}

/* ---- AML (20.2) ---- */

enum {
    AML_NAME = 0x08,
    AML_BYTE = 0x0a,
    AML_STRING = 0x0d,
    AML_SCOPE = 0x10,
    AML_BUFFER = 0x11,
    AML_PACKAGE = 0x12,
    AML_EXTENDED = 0x5b,
    AML_EXTENDED_DEVICE = 0x82,
};

/* Keeps room for a length that counts from here on. */
static size_t begin_piece(struct tables *tables)
{
    static const uint8_t room[3] = {0};
    size_t begin = tables->length;
    add(tables, room, sizeof(room));
    return begin;
}

/* Two bytes follow the first, which has their number in its high bits and the low four bits of the length. */
static void end_piece(struct tables *tables, size_t begin)
{
    size_t length = tables->length - begin;
    _Static_assert(BOOT_ACPI_BYTES < 1 << 20, "four bits and two bytes have to hold any length");
    tables->bytes[begin] = (uint8_t)(2 << 6 | (length & 0xf));
    tables->bytes[begin + 1] = (uint8_t)(length >> 4);
    tables->bytes[begin + 2] = (uint8_t)(length >> 12);
}

/* The definition of a name; its value has to follow. */
static void add_name(struct tables *tables, const char *name)
{
    add_byte(tables, AML_NAME);
    add(tables, name, strlen(name));
}

static void add_text(struct tables *tables, const char *text)
{
    add_byte(tables, AML_STRING);
    add(tables, text, strlen(text) + 1);
}

static void add_number(struct tables *tables, uint8_t number)
{
    add_byte(tables, AML_BYTE);
    add_byte(tables, number);
}

static size_t begin_device(struct tables *tables, const char name[5], const char *hardware, unsigned number)
{
    add_byte(tables, AML_EXTENDED);
    add_byte(tables, AML_EXTENDED_DEVICE);
    size_t begin = begin_piece(tables);
    add(tables, name, 4);
    add_name(tables, "_HID");
    add_text(tables, hardware);
    add_name(tables, "_UID");
    add_number(tables, (uint8_t)number);
    return begin;
}

/* _CRS: where the device's registers are, and its interrupt. */
static void add_resources(struct tables *tables, const void *registers, size_t length, unsigned pin, bool is_shared)
{
    struct interrupt_resource interrupt = {
        .type = RESOURCE_INTERRUPT,
        .length = sizeof(interrupt) - 3,
        .flags = INTERRUPT_CONSUMER | INTERRUPT_EDGE | (is_shared ? INTERRUPT_SHARED : 0),
        .count = 1,
        .interrupt = pin,
    };
    struct end_resource end = {.type = RESOURCE_END};
    add_name(tables, "_CRS");
    add_byte(tables, AML_BUFFER);
    size_t begin = begin_piece(tables);
    add_number(tables, (uint8_t)(length + sizeof(interrupt) + sizeof(end)));
    add(tables, registers, length);
    add(tables, &interrupt, sizeof(interrupt));
    add(tables, &end, sizeof(end));
    end_piece(tables, begin);
}

/* The name by which Linux knows virtio-mmio (drivers/virtio/virtio_mmio.c). */
static void add_device(struct tables *tables, const struct boot_device *device, unsigned number)
{
    char name[5];
    _Static_assert(LIMIT_DEVICES <= UINT8_MAX, "a byte has to do");
    assert(device->address + device->size_bytes <= UINT32_MAX);
    const struct memory_resource registers = {
        .type = RESOURCE_MEMORY,
        .length = sizeof(registers) - 3,
        .is_writable = 1,
        .address = (uint32_t)device->address,
        .size_bytes = device->size_bytes,
    };
    snprintf(name, sizeof(name), "V%03X", number & UINT8_MAX);
    size_t begin = begin_device(tables, name, "LNRO0005", number);
    add_resources(tables, &registers, sizeof(registers), device->pin, false);
    end_piece(tables, begin);
}

static void add_serial(struct tables *tables, const struct acpi_machine *machine, unsigned number)
{
    enum { registers_of_a_16550 = 8 };
    char name[5];
    unsigned users = 0;
    _Static_assert(LIMIT_SERIALS <= 9, "one digit has to do");
    const struct boot_serial *serial = &machine->serials[number];
    const struct port_resource registers = {
        .type = RESOURCE_PORTS,
        .decodes_16_bits = 1,
        .lowest = serial->port,
        .highest = serial->port,
        .alignment = 1,
        .count = registers_of_a_16550,
    };
    for (size_t i = 0; i < machine->serial_count; i++)
        users += machine->serials[i].pin == serial->pin;
    snprintf(name, sizeof(name), "COM%u", (number + 1) % 10);
    size_t begin = begin_device(tables, name, "PNP0501", number + 1);
    add_resources(tables, &registers, sizeof(registers), serial->pin, users > 1);
    end_piece(tables, begin);
}

/* The values for the sleep control register in state S5, off. The machine looks at none of them. */
static void add_power_off(struct tables *tables)
{
    enum { sleep_type = 5, elements = 2 };
    add_name(tables, "\\_S5_");
    add_byte(tables, AML_PACKAGE);
    size_t begin = begin_piece(tables);
    add_byte(tables, elements);
    add_number(tables, sleep_type);
    add_number(tables, 0);
    end_piece(tables, begin);
}

/* ---- the tables ---- */

static uint64_t add_dsdt(struct tables *tables, const struct acpi_machine *machine)
{
    static const char scope[] = "\\_SB_";
    size_t table = begin_table(tables, "DSDT", dsdt_revision);
    add_power_off(tables);
    add_byte(tables, AML_SCOPE);
    size_t begin = begin_piece(tables);
    add(tables, scope, sizeof(scope) - 1);
    for (unsigned i = 0; i < machine->device_count; i++)
        add_device(tables, &machine->devices[i], i);
    for (unsigned i = 0; i < machine->serial_count; i++)
        add_serial(tables, machine, i);
    end_piece(tables, begin);
    end_table(tables, table);
    return address_of(table);
}

static struct address port_register(uint16_t port)
{
    return (struct address){.space = SPACE_IO, .bits = 8, .access = ACCESS_BYTE, .address = port};
}

static uint64_t add_fadt(struct tables *tables, uint64_t dsdt)
{
    struct fadt fadt = {
        .dsdt = (uint32_t)dsdt,
        .boot_architecture = BOOT_HAS_8042 | BOOT_HAS_NO_VGA,
        .flags = FLAG_WBINVD | FLAG_POWER_BUTTON | FLAG_SLEEP_BUTTON | FLAG_RESET_REGISTER | FLAG_HARDWARE_REDUCED,
        .reset = port_register(BOOT_RESET_PORT),
        .reset_value = BOOT_RESET_VALUE,
        .minor_revision = fadt_minor_revision,
        .extended_dsdt = dsdt,
        .sleep_control = port_register(BOOT_SLEEP_CONTROL_PORT),
        .sleep_status = port_register(BOOT_SLEEP_STATUS_PORT),
    };
    size_t table = begin_table(tables, "FACP", fadt_revision);
    add(tables, &fadt, sizeof(fadt));
    end_table(tables, table);
    return address_of(table);
}

static uint64_t add_madt(struct tables *tables, unsigned vcpus)
{
    struct madt madt = {.local_apic = (uint32_t)BOOT_LOCAL_APIC};
    struct madt_ioapic ioapic = {
        .type = MADT_IOAPIC,
        .length = sizeof(ioapic),
        .id = (uint8_t)vcpus, /* as in the MP table */
        .address = (uint32_t)BOOT_IOAPIC,
    };
    size_t table = begin_table(tables, "APIC", madt_revision);
    add(tables, &madt, sizeof(madt));
    for (unsigned i = 0; i < vcpus; i++) {
        struct madt_local_apic processor = {
            .type = MADT_LOCAL_APIC,
            .length = sizeof(processor),
            .processor = (uint8_t)i,
            .apic_id = (uint8_t)i,
            .flags = MADT_IS_ENABLED,
        };
        add(tables, &processor, sizeof(processor));
    }
    add(tables, &ioapic, sizeof(ioapic));
    end_table(tables, table);
    return address_of(table);
}

static uint64_t add_xsdt(struct tables *tables, uint64_t fadt, uint64_t madt)
{
    const uint64_t entries[] = {fadt, madt};
    size_t table = begin_table(tables, "XSDT", xsdt_revision);
    add(tables, entries, sizeof(entries));
    end_table(tables, table);
    return address_of(table);
}

static struct rsdp make_rsdp(uint64_t xsdt)
{
    struct rsdp rsdp = {
        .signature = {'R', 'S', 'D', ' ', 'P', 'T', 'R', ' '},
        .oem = {'V', 'I', 'A', 'L', ' ', ' '},
        .revision = rsdp_revision,
        .length = sizeof(rsdp),
        .xsdt = xsdt,
    };
    rsdp.checksum = checksum_find(&rsdp, rsdp_first_bytes);
    rsdp.extended_checksum = checksum_find(&rsdp, sizeof(rsdp));
    return rsdp;
}

int acpi_write(const struct memory *memory, const struct acpi_machine *machine)
{
    assert(machine->vcpus >= 1 && machine->vcpus <= LIMIT_VCPUS);
    assert(machine->device_count <= LIMIT_DEVICES && machine->serial_count <= LIMIT_SERIALS);
    struct tables tables = {.bytes = memory_span(memory, BOOT_ACPI, BOOT_ACPI_BYTES), .length = sizeof(struct rsdp)};
    if (tables.bytes == NULL)
        return -EFAULT;
    uint64_t dsdt = add_dsdt(&tables, machine);
    uint64_t fadt = add_fadt(&tables, dsdt);
    uint64_t madt = add_madt(&tables, machine->vcpus);
    struct rsdp rsdp = make_rsdp(add_xsdt(&tables, fadt, madt));
    memcpy(tables.bytes, &rsdp, sizeof(rsdp));
    return 0;
}
