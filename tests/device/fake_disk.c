// SPDX-License-Identifier: Apache-2.0
/* A disk for tests of devices: see fake_disk.h. */
#include "fake_disk.h"

#include "base/fd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

uint8_t fake_disk_byte(uint64_t offset)
{
    return (uint8_t)(1 + offset / 512 % 251);
}

struct disk *fake_disk_new(uint64_t size_bytes)
{
    /* Not by malloc, whose failures are meant for the code under test. */
    struct disk *disk = mmap(NULL, sizeof(*disk), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = memfd_create("fake-disk", MFD_CLOEXEC);
    uint8_t sector[512];
    if (disk == MAP_FAILED || fd < 0)
        abort();
    disk->fd = fd;
    disk->map_fd = -1;
    for (uint64_t offset = 0; offset < size_bytes; offset += sizeof(sector)) {
        memset(sector, fake_disk_byte(offset), sizeof(sector));
        if (pwrite(fd, sector, sizeof(sector), (off_t)offset) != sizeof(sector))
            abort();
    }
    disk->properties = (struct disk_properties){
        .format = VIAL_DISK_RAW,
        .size_bytes = size_bytes,
        .alignment_bytes = 1,
        .best_bytes = 4096,
        .can_discard = true,
    };
    pthread_mutex_init(&disk->lock, NULL);
    pthread_cond_init(&disk->opened, NULL);
    return disk;
}

/* ---- the gate ---- */

void fake_disk_close_gate(struct disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    disk->is_closed = true;
    pthread_mutex_unlock(&disk->lock);
}

void fake_disk_open_gate(struct disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    disk->is_closed = false;
    pthread_cond_broadcast(&disk->opened);
    pthread_mutex_unlock(&disk->lock);
}

bool fake_disk_await(struct disk *disk, unsigned count)
{
    struct timespec end;
    int result = 0;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 5;
    pthread_mutex_lock(&disk->lock);
    while (disk->waiting < count && result == 0)
        result = pthread_cond_timedwait(&disk->opened, &disk->lock, &end);
    pthread_mutex_unlock(&disk->lock);
    return result == 0;
}

static void pass_gate(struct disk *disk)
{
    unsigned now = 1 + atomic_fetch_add(&disk->at_once, 1);
    for (unsigned most = atomic_load(&disk->most_at_once);
         now > most && !atomic_compare_exchange_weak(&disk->most_at_once, &most, now);)
        ;
    pthread_mutex_lock(&disk->lock);
    disk->waiting++;
    pthread_cond_broadcast(&disk->opened);
    while (disk->is_closed)
        pthread_cond_wait(&disk->opened, &disk->lock);
    disk->waiting--;
    pthread_mutex_unlock(&disk->lock);
}

static int leave(struct disk *disk, atomic_int *error)
{
    atomic_fetch_sub(&disk->at_once, 1);
    return atomic_load(error);
}

/* ---- disk/disk.h ---- */

int disk_open(const struct disk_options *options, struct disk **ret_disk, struct vial_error *err)
{
    (void)options, (void)ret_disk, (void)err;
    return -ENOSYS;
}

int disk_close(struct disk *disk, struct vial_error *err)
{
    (void)err;
    disk_free(disk);
    return 0;
}

struct disk *disk_free(struct disk *disk)
{
    if (disk == NULL)
        return NULL;
    fd_close(disk->fd);
    pthread_mutex_destroy(&disk->lock);
    pthread_cond_destroy(&disk->opened);
    munmap(disk, sizeof(*disk));
    return NULL;
}

void disk_describe(const struct disk *disk, struct disk_properties *ret_properties)
{
    *ret_properties = disk->properties;
}

int disk_map(struct disk *disk, uint64_t offset, uint64_t length, bool for_writing, struct disk_extent *ret_extent)
{
    if (atomic_load(&disk->maps_nothing))
        return -EAGAIN;
    if (offset > disk->properties.size_bytes || length > disk->properties.size_bytes - offset || length == 0 ||
        (for_writing && disk->properties.is_read_only))
        abort();
    struct disk_extent extent = {.kind = DISK_EXTENT_FILE, .fd = disk->fd, .offset = offset, .length = length};
    if (disk->map_fd >= 0)
        extent.fd = disk->map_fd;
    if (offset >= disk->zero_from && offset < disk->zero_to) {
        extent.kind = DISK_EXTENT_ZERO;
        extent.length = disk->zero_to - offset;
        if (for_writing)
            return -EAGAIN;
    } else if (offset < disk->zero_from && length > disk->zero_from - offset) {
        extent.length = disk->zero_from - offset;
    }
    if (disk->extent_bytes != 0 && extent.length > disk->extent_bytes)
        extent.length = disk->extent_bytes;
    *ret_extent = extent;
    return 0;
}

int disk_sync_fd(struct disk *disk)
{
    return atomic_load(&disk->maps_nothing) || atomic_load(&disk->flush_error) < 0 ? -1 : disk->fd;
}

/* What disk.h forbids is a mistake of the device. */
static void check(const struct disk *disk, const struct iovec *parts, int count, uint64_t offset, bool is_write)
{
    uint64_t length = 0;
    for (int i = 0; i < count; i++)
        length += parts[i].iov_len;
    if (offset > disk->properties.size_bytes || length > disk->properties.size_bytes - offset || length == 0 ||
        (is_write && disk->properties.is_read_only))
        abort();
}

int disk_read(struct disk *disk, const struct iovec *parts, int count, uint64_t offset)
{
    pass_gate(disk);
    check(disk, parts, count, offset, false);
    atomic_fetch_add(&disk->reads, 1);
    for (int i = 0; i < count; i++) {
        ssize_t got = pread(disk->fd, parts[i].iov_base, parts[i].iov_len, (off_t)offset);
        if (got != (ssize_t)parts[i].iov_len)
            abort();
        for (size_t j = 0; j < parts[i].iov_len; j++)
            if (offset + j >= disk->zero_from && offset + j < disk->zero_to)
                ((uint8_t *)parts[i].iov_base)[j] = 0;
        offset += parts[i].iov_len;
    }
    return leave(disk, &disk->read_error);
}

int disk_write(struct disk *disk, const struct iovec *parts, int count, uint64_t offset)
{
    pass_gate(disk);
    check(disk, parts, count, offset, true);
    atomic_fetch_add(&disk->writes, 1);
    for (int i = 0; i < count && atomic_load(&disk->write_error) == 0; i++) {
        if (pwrite(disk->fd, parts[i].iov_base, parts[i].iov_len, (off_t)offset) != (ssize_t)parts[i].iov_len)
            abort();
        offset += parts[i].iov_len;
    }
    return leave(disk, &disk->write_error);
}

int disk_flush(struct disk *disk)
{
    pass_gate(disk);
    atomic_fetch_add(&disk->flushes, 1);
    return leave(disk, &disk->flush_error);
}

static int erase(struct disk *disk, uint64_t offset, uint64_t length, atomic_uint *counter)
{
    static const uint8_t zeros[512];
    pass_gate(disk);
    check(disk, &(struct iovec){.iov_len = length}, 1, offset, true);
    atomic_fetch_add(counter, 1);
    if (atomic_load(&disk->at_once) != 1)
        atomic_fetch_add(&disk->exclusive_faults, 1);
    for (uint64_t end = offset + length; offset < end; offset += sizeof(zeros))
        if (pwrite(disk->fd, zeros, sizeof(zeros), (off_t)offset) != sizeof(zeros))
            abort();
    return leave(disk, &disk->discard_error);
}

int disk_discard(struct disk *disk, uint64_t offset, uint64_t length)
{
    return disk->has_no_discard ? -EOPNOTSUPP : erase(disk, offset, length, &disk->discards);
}

int disk_zero(struct disk *disk, uint64_t offset, uint64_t length, bool may_unmap)
{
    atomic_fetch_add(&disk->unmaps, may_unmap);
    return erase(disk, offset, length, &disk->zeroes);
}

int disk_status(struct disk *disk, uint64_t offset, uint64_t length, bool *ret_is_zero, uint64_t *ret_length)
{
    (void)disk, (void)offset;
    *ret_is_zero = false;
    *ret_length = length;
    return 0;
}

int disk_resize(struct disk *disk, uint64_t size_bytes, bool may_shrink, struct vial_error *err)
{
    (void)disk, (void)size_bytes, (void)may_shrink, (void)err;
    return -EOPNOTSUPP;
}
