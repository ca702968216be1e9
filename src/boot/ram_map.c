// SPDX-License-Identifier: Apache-2.0
/* The memory map that the guest is told: RAM up to the extended BIOS data area, the BIOS area with our tables, RAM
 * from 1 MiB, and whatever lies above the gap. */
#include "boot/ram_map.h"

#include "boot/layout.h"

#include <assert.h>

static void add(struct ram_map *map, uint64_t begin, uint64_t end, uint32_t type)
{
    map->ranges[map->count++] = (struct ram_range){.begin = begin, .size = end - begin, .type = type};
}

void ram_map_make(const struct memory *memory, struct ram_map *ret_map)
{
    struct ram_map map = {0};
    const struct memory_region *low = memory_region(memory, 0);
    assert(low != NULL && low->guest == 0 && low->size_bytes > BOOT_HIGH_MEMORY);
    add(&map, 0, BOOT_LOW_RAM_END, RAM_MAP_USABLE);
    add(&map, BOOT_BIOS_AREA, BOOT_HIGH_MEMORY, RAM_MAP_RESERVED);
    add(&map, BOOT_HIGH_MEMORY, low->size_bytes, RAM_MAP_USABLE);
    for (size_t i = 1; i < memory_region_count(memory); i++) {
        const struct memory_region *region = memory_region(memory, i);
        add(&map, region->guest, region->guest + region->size_bytes, RAM_MAP_USABLE);
    }
    *ret_map = map;
}
