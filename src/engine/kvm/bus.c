// SPDX-License-Identifier: Apache-2.0
/* Who answers at an address: ranges of ports or of guest-physical memory that are emulated here.
 *
 * A sorted array and a binary search: ranges are added while the machine is put together and never change while it
 * runs, so vCPUs look them up without a lock.
 *
 * Invariants: (1) ranges are sorted and do not overlap. (2) they do not change once a vCPU runs. (3) a read fills every
 * byte that it was asked for.
 *
 * Trust: addresses and lengths come from a hostile guest through KVM, which bounds lengths to 8.
 */
#include "engine/kvm/bus.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

/* More than any machine has: 200 devices, and the few of the platform. */
enum { most_ranges = 512 };

/* The first range that ends behind the address, as an index. */
static size_t find_place(const struct bus *bus, uint64_t address)
{
    size_t low = 0, high = bus->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (address >= bus->ranges[middle].begin && address - bus->ranges[middle].begin >= bus->ranges[middle].size)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static const struct bus_range *find(const struct bus *bus, uint64_t address)
{
    size_t place = find_place(bus, address);
    return place < bus->count && bus->ranges[place].begin <= address ? &bus->ranges[place] : NULL;
}

int bus_add(struct bus *bus, const struct bus_range *range)
{
    uint64_t last;
    if (range->size == 0 || __builtin_add_overflow(range->begin, range->size - 1, &last))
        return -EINVAL;
    size_t place = find_place(bus, range->begin);
    if (place < bus->count && bus->ranges[place].begin <= last)
        return -EEXIST;
    int result = alloc_grow((void **)&bus->ranges, bus->count, &bus->capacity, sizeof(bus->ranges[0]), most_ranges);
    if (result < 0)
        return result;
    memmove(&bus->ranges[place + 1], &bus->ranges[place], (bus->count - place) * sizeof(bus->ranges[0]));
    bus->ranges[place] = *range;
    bus->count++;
    return 0;
}

void bus_free(struct bus *bus)
{
    free(bus->ranges);
    bus->ranges = NULL;
    bus->count = bus->capacity = 0;
}

void bus_read(struct bus *bus, uint64_t address, void *bytes, uint32_t length)
{
    const struct bus_range *range = find(bus, address);
    memset(bytes, 0xff, length);
    if (range != NULL && range->ops->read != NULL)
        range->ops->read(range->user, address - range->begin, bytes, length);
    else
        atomic_fetch_add_explicit(&bus->unknown, 1, memory_order_relaxed);
}

void bus_write(struct bus *bus, uint64_t address, const void *bytes, uint32_t length)
{
    const struct bus_range *range = find(bus, address);
    if (range != NULL && range->ops->write != NULL)
        range->ops->write(range->user, address - range->begin, bytes, length);
    else
        atomic_fetch_add_explicit(&bus->unknown, 1, memory_order_relaxed);
}
