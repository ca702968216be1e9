// SPDX-License-Identifier: Apache-2.0
/* A front end's memory table: guest memory, and where it lies in the front end's own address space. */
#ifndef VIRTIO_VHOST_MEMORY_H
#define VIRTIO_VHOST_MEMORY_H

#include "mem/memory.h"
#include "virtio/vhost_message.h"

struct vhost_memory {
    struct memory *memory; /* owned; NULL without a table */
    struct vhost_region regions[VHOST_MOST_REGIONS];
    unsigned count;
};

/* Maps the table's regions, each of the descriptor with its number, which are borrowed: 0, -EINVAL for a table without
 * regions, a region that is empty, not whole pages or reaches beyond the end of all addresses, or two that overlap in
 * the front end; or what memory_add says. */
int vhost_memory_open(const struct vhost_regions *table, const int fds[], struct vhost_memory *ret_memory);
void vhost_memory_close(struct vhost_memory *memory);

/* The guest's address of what the front end has at `user`, or -EFAULT where it has no guest memory. */
int vhost_memory_translate(const struct vhost_memory *memory, uint64_t user, uint64_t *ret_guest);

#endif
