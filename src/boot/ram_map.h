// SPDX-License-Identifier: Apache-2.0
/* The memory map that the guest is told. */
#ifndef BOOT_RAM_MAP_H
#define BOOT_RAM_MAP_H

#include "mem/memory.h"

/* Types as in an E820 map (ACPI 6.5, 15.4), which PVH's map shares. */
enum { RAM_MAP_USABLE = 1, RAM_MAP_RESERVED = 2 };

struct ram_range {
    uint64_t begin, size;
    uint32_t type;
};

struct ram_map {
    struct ram_range ranges[MEMORY_MOST_REGIONS + 2];
    size_t count;
};

/* What there is, in rising order. The first region must begin at 0 and reach beyond BOOT_HIGH_MEMORY. */
void ram_map_make(const struct memory *memory, struct ram_map *ret_map);

#endif
