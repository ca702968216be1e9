// SPDX-License-Identifier: Apache-2.0
/* The memory in which a vhost-user back end notes what is in flight, kept by the front end. (QEMU,
 * docs/interop/vhost-user, VHOST_USER_GET_INFLIGHT_FD and VHOST_USER_SET_INFLIGHT_FD)
 *
 * We make it, the front end keeps it, and gives it to us again with every start of the device; so it outlives us. The
 * queues' parts (virtio/inflight.c) lie behind one another in it, all of the same size. For how many entries they have
 * room, that size says, and not the front end: QEMU names the size of its own queues, and lets a driver on virtio-mmio
 * make them larger. So we make room for the largest.
 *
 * Invariants: (1) what is mapped lies within the file. (2) a part has room for all entries of its queue.
 *
 * Trust: description and file are a hostile front end's. It can cut the file afterwards and have SIGBUS kill us, as it
 * can with guest memory (vhost_user.c): so only servers that risk that anyway offer this.
 */
#include "virtio/vhost_inflight.h"

#include "base/fd.h"
#include "virtio/inflight.h"
#include "virtio/queue.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { page_bytes = 4096 };

static bool is_possible(const struct vhost_inflight_description *description)
{
    return description->queue_count > 0 && description->entries > 0 && description->entries <= QUEUE_MOST_ENTRIES;
}

int vhost_inflight_make(struct vhost_inflight_description *description, int *ret_fd)
{
    if (!is_possible(description))
        return -EINVAL;
    size_t size_bytes = description->queue_count * inflight_bytes(QUEUE_MOST_ENTRIES);
    auto_close int fd = memfd_create("vial-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)size_bytes) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return -errno;
    description->offset = 0;
    description->size_bytes = size_bytes;
    *ret_fd = steal_fd(&fd);
    return 0;
}

int vhost_inflight_open(const struct vhost_inflight_description *description, int fd,
                        struct vhost_inflight *ret_inflight)
{
    struct stat status;
    uint16_t entries = QUEUE_MOST_ENTRIES;
    if (!is_possible(description) || description->offset % page_bytes != 0)
        return -EINVAL;
    while (inflight_bytes(entries) > description->size_bytes / description->queue_count && entries > 1)
        entries /= 2;
    size_t size_bytes = description->queue_count * inflight_bytes(entries);
    if (entries < description->entries || description->size_bytes < size_bytes)
        return -EINVAL;
    if (fstat(fd, &status) < 0)
        return -errno;
    uint64_t file_bytes = status.st_size > 0 ? (uint64_t)status.st_size : 0;
    if (description->offset > file_bytes || size_bytes > file_bytes - description->offset)
        return -EINVAL;
    void *bytes = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)description->offset);
    if (bytes == MAP_FAILED)
        return -errno;
    *ret_inflight = (struct vhost_inflight){
        .bytes = bytes,
        .queue_bytes = inflight_bytes(entries),
        .queue_count = description->queue_count,
        .entries = entries,
    };
    return 0;
}

void vhost_inflight_close(struct vhost_inflight *inflight)
{
    if (inflight->bytes != NULL)
        munmap(inflight->bytes, inflight->queue_count * inflight->queue_bytes);
    *inflight = (struct vhost_inflight){0};
}

uint8_t *vhost_inflight_region(const struct vhost_inflight *inflight, unsigned queue, uint16_t entries)
{
    if (inflight->bytes == NULL || queue >= inflight->queue_count || entries > inflight->entries)
        return NULL;
    return inflight->bytes + queue * inflight->queue_bytes;
}

void vhost_inflight_clear(const struct vhost_inflight *inflight)
{
    for (unsigned i = 0; i < inflight->queue_count; i++)
        inflight_forget(vhost_inflight_region(inflight, i, inflight->entries), inflight->entries);
}
