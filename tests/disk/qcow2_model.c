// SPDX-License-Identifier: Apache-2.0
/* Random changes of a disk, done to a model in memory as well.
 *
 * Each written sector is stamped with its place and a number that grows with every write, so what is found wrong says
 * where it came from. A discarded range may read as zeros or as it was: the model takes over what it finds, if it is
 * one of the two.
 */
#include "qcow2_model.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { sector_bytes = 512, most_bytes = 256 << 10 };

_Noreturn void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "qcow2-tool: ");
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

uint64_t next_random(uint64_t *seed)
{
    uint64_t mixed = (*seed += UINT64_C(0x9e3779b97f4a7c15));
    mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ (mixed >> 31);
}

void stamp(uint8_t *bytes, uint64_t offset, uint64_t length, uint64_t version)
{
    for (uint64_t at = 0; at < length; at += 16) {
        uint64_t place = (offset + at) ^ UINT64_C(0x5a5a000000000000);
        memcpy(bytes + at, &place, sizeof(place));
        memcpy(bytes + at + 8, &version, sizeof(version));
    }
}

uint64_t stamp_of(const uint8_t *sector, uint64_t offset)
{
    static const uint8_t zeros[sector_bytes];
    uint8_t expected[sector_bytes];
    uint64_t version;
    if (memcmp(sector, zeros, sector_bytes) == 0)
        return 0;
    memcpy(&version, sector + 8, sizeof(version));
    stamp(expected, offset, sector_bytes, version);
    return memcmp(sector, expected, sector_bytes) == 0 && version != 0 ? version : UINT64_MAX;
}

void read_whole(struct disk *disk, uint8_t *bytes, uint64_t size_bytes)
{
    uint64_t seed = 1;
    for (uint64_t at = 0; at < size_bytes;) {
        uint64_t most = (1 + next_random(&seed) % 512) * sector_bytes;
        uint64_t length = size_bytes - at < most ? size_bytes - at : most;
        struct disk_extent extent;
        int result = next_random(&seed) % 2 ? disk_map(disk, at, length, false, &extent) : -EAGAIN;
        if (result == 0 && extent.kind == DISK_EXTENT_ZERO) {
            memset(bytes + at, 0, extent.length);
            at += extent.length;
        } else if (result == 0) {
            if (pread(extent.fd, bytes + at, extent.length, (off_t)extent.offset) != (ssize_t)extent.length)
                fail("an extent at %llu ends before it should", (unsigned long long)at);
            at += extent.length;
        } else {
            const struct iovec parts[] = {{bytes + at, sector_bytes},
                                          {bytes + at + sector_bytes, length - sector_bytes}};
            result = disk_read(disk, parts, 2, at);
            if (result < 0)
                fail("reading at %llu: %s", (unsigned long long)at, strerror(-result));
            at += length;
        }
    }
}

int write_somehow(struct disk *disk, const uint8_t *bytes, uint64_t offset, uint64_t length, uint64_t *seed)
{
    while (length > 0) {
        struct disk_extent extent = {.length = length};
        int result = next_random(seed) % 2 ? disk_map(disk, offset, length, true, &extent) : -EAGAIN;
        if (result == 0) {
            if (pwrite(extent.fd, bytes, extent.length, (off_t)extent.offset) != (ssize_t)extent.length)
                return -errno;
        } else if (result == -EAGAIN) {
            union {
                const uint8_t *given;
                uint8_t *taken;
            } source = {.given = bytes};
            const struct iovec part = {source.taken, length};
            extent.length = length;
            result = disk_write(disk, &part, 1, offset);
        }
        if (result < 0)
            return result;
        bytes += extent.length;
        offset += extent.length;
        length -= extent.length;
    }
    return 0;
}

static void compare(struct disk *disk, const uint8_t *model, uint64_t size_bytes)
{
    uint8_t *found = malloc(size_bytes);
    if (found == NULL)
        fail("no memory");
    read_whole(disk, found, size_bytes);
    for (uint64_t at = 0; at < size_bytes; at += sector_bytes)
        if (memcmp(found + at, model + at, sector_bytes) != 0)
            fail("at %llu there is %llx, not %llx", (unsigned long long)at,
                 (unsigned long long)stamp_of(found + at, at), (unsigned long long)stamp_of(model + at, at));
    free(found);
}

static void take_over_discarded(struct disk *disk, uint8_t *model, uint64_t offset, uint64_t length)
{
    static uint8_t found[most_bytes], zeros[sector_bytes];
    const struct iovec part = {found, length};
    int result = disk_read(disk, &part, 1, offset);
    if (result < 0)
        fail("reading a discarded range at %llu: %s", (unsigned long long)offset, strerror(-result));
    for (uint64_t at = 0; at < length; at += sector_bytes) {
        bool is_old = memcmp(found + at, model + offset + at, sector_bytes) == 0;
        if (!is_old && memcmp(found + at, zeros, sector_bytes) != 0)
            fail("discarded, %llu has become something else", (unsigned long long)(offset + at));
    }
    memcpy(model + offset, found, length);
}

static void change_once(struct disk *disk, uint8_t *model, uint64_t size_bytes, uint64_t version, uint64_t *seed)
{
    static uint8_t bytes[most_bytes];
    uint64_t sectors = size_bytes / sector_bytes, first = next_random(seed) % sectors;
    uint64_t most = next_random(seed) % 4 == 0 ? most_bytes / sector_bytes : 16;
    uint64_t count = 1 + next_random(seed) % most;
    uint64_t offset = first * sector_bytes, length = (first + count > sectors ? sectors - first : count) * sector_bytes;
    int result = 0;
    switch (next_random(seed) % 16) {
    case 0:
        result = disk_discard(disk, offset, length);
        take_over_discarded(disk, model, offset, length);
        break;
    case 1:
    case 2:
        result = disk_zero(disk, offset, length, next_random(seed) % 2);
        memset(model + offset, 0, length);
        break;
    case 3:
        result = disk_flush(disk);
        break;
    default:
        stamp(bytes, offset, length, version);
        result = write_somehow(disk, bytes, offset, length, seed);
        memcpy(model + offset, bytes, length);
    }
    if (result < 0)
        fail("change %llu, at %llu: %s", (unsigned long long)version, (unsigned long long)offset, strerror(-result));
}

void change_both(struct disk *disk, uint8_t *model, uint64_t size_bytes, uint64_t seed, uint64_t count)
{
    uint64_t first_version = next_random(&seed) | 1;
    for (uint64_t i = 0; i < count; i++) {
        change_once(disk, model, size_bytes, first_version + i, &seed);
        if (i % 512 == 511)
            compare(disk, model, size_bytes);
    }
    compare(disk, model, size_bytes);
}
