// SPDX-License-Identifier: Apache-2.0
/* The ACPI tables, which tell a guest of processors, interrupts, devices, and how to switch off. */
#ifndef BOOT_ACPI_H
#define BOOT_ACPI_H

#include "mem/memory.h"

/* A virtio-mmio device: its registers, all below 4 GiB, and the pin on which it raises edges. */
struct boot_device {
    uint64_t address;
    uint32_t size_bytes;
    unsigned pin;
};

/* A 16550 serial port. Two that share a pin are told to the guest as sharing it. */
struct boot_serial {
    uint16_t port;
    unsigned pin;
};

struct acpi_machine {
    unsigned vcpus;                    /* 1 to LIMIT_VCPUS, with the APIC ids 0, 1, … */
    const struct boot_device *devices; /* borrowed, as is what follows */
    size_t device_count;               /* at most LIMIT_DEVICES */
    const struct boot_serial *serials;
    size_t serial_count; /* at most LIMIT_SERIALS */
};

/* Writes them from BOOT_ACPI on, the RSDP first. 0 or -EFAULT. */
int acpi_write(const struct memory *memory, const struct acpi_machine *machine);

#endif
