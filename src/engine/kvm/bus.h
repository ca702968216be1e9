// SPDX-License-Identifier: Apache-2.0
/* Who answers at an address: ranges of ports or of guest-physical memory that are emulated here. */
#ifndef ENGINE_KVM_BUS_H
#define ENGINE_KVM_BUS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* An access to a range, on a vCPU's thread: 1, 2, 4 or 8 bytes at an offset from the range's begin, or a string
 * instruction's element of that size. It may cross the end of the range. */
struct bus_ops {
    void (*read)(void *user, uint64_t offset, void *bytes, uint32_t length);
    void (*write)(void *user, uint64_t offset, const void *bytes, uint32_t length);
};

struct bus_range {
    uint64_t begin, size;
    const struct bus_ops *ops;
    void *user; /* borrowed */
};

struct bus {
    struct bus_range *ranges; /* owned; sorted, without overlaps */
    size_t count, capacity;
    atomic_uint_fast64_t unknown; /* accesses that nobody answered */
};

/* While the machine is put together: 0, -EEXIST for an overlap, -EINVAL for a size of 0 or a wrap, -ENOMEM, -E2BIG. */
int bus_add(struct bus *bus, const struct bus_range *range);
void bus_free(struct bus *bus);

/* What nobody answers reads as all ones, as on a bus without a device, and is counted. */
void bus_read(struct bus *bus, uint64_t address, void *bytes, uint32_t length);
void bus_write(struct bus *bus, uint64_t address, const void *bytes, uint32_t length);

#endif
