// SPDX-License-Identifier: Apache-2.0
/* A front end's memory table: guest memory, and where it lies in the front end's own address space.
 *
 * Buffers are named by guest addresses, which struct memory knows; only the places of the rings come as addresses of
 * the front end. They are translated by the table's own numbers and then checked like any other guest address.
 *
 * Invariants: (1) regions overlap neither in the guest nor in the front end. (2) no arithmetic on the table's numbers
 * can overflow.
 *
 * Trust: the table and its descriptors are a hostile front end's.
 */
#include "virtio/vhost_memory.h"

#include <errno.h>

/* Whether one of the first `count` regions shares an address of the front end with this one. */
static bool overlaps(const struct vhost_memory *memory, const struct vhost_region *region)
{
    for (unsigned i = 0; i < memory->count; i++) {
        const struct vhost_region *other = &memory->regions[i];
        if (region->user - other->user < other->size_bytes || other->user - region->user < region->size_bytes)
            return true;
    }
    return false;
}

static int add_region(struct vhost_memory *memory, const struct vhost_region *region, int fd)
{
    uint64_t end;
    if (__builtin_add_overflow(region->user, region->size_bytes, &end) || overlaps(memory, region))
        return -EINVAL;
    int result = memory_add(memory->memory, region->guest, region->size_bytes, fd, region->offset);
    if (result == 0)
        memory->regions[memory->count++] = *region;
    return result;
}

int vhost_memory_open(const struct vhost_regions *table, const int fds[], struct vhost_memory *ret_memory)
{
    struct vhost_memory memory = {0};
    if (table->count == 0 || table->count > VHOST_MOST_REGIONS)
        return -EINVAL;
    int result = memory_new_empty(&memory.memory);
    for (unsigned i = 0; i < table->count && result == 0; i++)
        result = add_region(&memory, &table->regions[i], fds[i]);
    if (result < 0) {
        vhost_memory_close(&memory);
        return result;
    }
    *ret_memory = memory;
    return 0;
}

void vhost_memory_close(struct vhost_memory *memory)
{
    memory_free(memory->memory);
    *memory = (struct vhost_memory){0};
}

int vhost_memory_translate(const struct vhost_memory *memory, uint64_t user, uint64_t *ret_guest)
{
    for (unsigned i = 0; i < memory->count; i++) {
        uint64_t inside = user - memory->regions[i].user; /* wraps to something large below the region */
        if (inside >= memory->regions[i].size_bytes)
            continue;
        *ret_guest = memory->regions[i].guest + inside;
        return 0;
    }
    return -EFAULT;
}
