// SPDX-License-Identifier: Apache-2.0
/* Any rings for the balloon. The first bytes of the input choose a layout and features, the rest is repeated over guest
 * memory, so that page numbers, lent buffers and statistics are arbitrary, too. Behind RAM's file lie pages that no
 * request may reach. What must hold: those pages stay, the actual size is no more than the memory, turns are bounded.
 */
#include "ring.h"

#include "base/limits.h"
#include "device/balloon/balloon.h"

#include <sys/mman.h>
#include <unistd.h>

enum { page_bytes = 4096, ram_bytes = 16 * page_bytes, guard_bytes = 16 * page_bytes };
enum { queues = 5, turns = 3 };

static struct memory *memory;
static struct virtio_device *device;
static const uint8_t *guard; /* the part of the file that is not RAM */
static struct fuzz_transport transport = {.queue_count = queues};

static void begin(void)
{
    int fd = memfd_create("ram", MFD_CLOEXEC);
    FUZZ_CHECK(fd >= 0 && ftruncate(fd, ram_bytes + guard_bytes) == 0);
    uint8_t *behind = mmap(NULL, guard_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, ram_bytes);
    FUZZ_CHECK(behind != MAP_FAILED);
    memset(behind, 0x5a, guard_bytes);
    guard = behind;
    /* Two regions side by side in the guest, but not in the file. */
    FUZZ_CHECK(memory_new_empty(&memory) == 0);
    FUZZ_CHECK(memory_add(memory, 0, ram_bytes / 2, fd, ram_bytes / 2) == 0);
    FUZZ_CHECK(memory_add(memory, ram_bytes / 2, ram_bytes / 2, fd, 0) == 0);
    struct balloon_options options = {.memory_bytes = ram_bytes, .stats_interval_ms = 1};
    FUZZ_CHECK(balloon_new(&options, &device) == 0);
    virtio_device_attach(device, &fuzz_transport_ops, &transport);
}

static void check(uint64_t faults, const struct balloon_counters *before)
{
    struct balloon_counters now;
    struct balloon_stats stats;
    balloon_counters(device, &now);
    balloon_stats(device, &stats);
    FUZZ_CHECK(now.failed == before->failed);
    FUZZ_CHECK(now.inflated_pages - before->inflated_pages <= 2u * turns * LIMIT_BALLOON_PAGES);
    FUZZ_CHECK(now.reported_bytes - before->reported_bytes <= queues * 2u * turns * LIMIT_BALLOON_REPORT_BYTES);
    FUZZ_CHECK(balloon_actual_bytes(device) <= ram_bytes);
    FUZZ_CHECK(stats.valid >> BALLOON_STATISTICS == 0 && (stats.valid == 0 || stats.time_ns != 0));
    FUZZ_CHECK(virtio_device_faults(device) - faults == transport.is_broken);
    for (size_t i = 0; i < guard_bytes; i += page_bytes)
        FUZZ_CHECK(guard[i] == 0x5a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (memory == NULL)
        begin();
    if (size < 16)
        return 0;
    static uint8_t content[ram_bytes];
    for (size_t offset = 0; offset < ram_bytes; offset += size - 8)
        memcpy(content + offset, data + 8, ram_bytes - offset < size - 8 ? ram_bytes - offset : size - 8);
    FUZZ_CHECK(memory_write(memory, 0, content, ram_bytes / 2) == 0);
    FUZZ_CHECK(memory_write(memory, ram_bytes / 2, content + ram_bytes / 2, ram_bytes / 2) == 0);
    struct queue_layout layouts[queues] = {0};
    for (unsigned i = 0; i < queues; i++)
        if ((data[3] >> i & 1) != 0)
            layouts[i] = (struct queue_layout){
                .descriptors = (uint64_t)data[0] * 16 + i * UINT64_C(0x2000),
                .available = (uint64_t)data[1] * 16 + i * UINT64_C(0x2000),
                .used = (uint64_t)data[2] * 16 + i * UINT64_C(0x2000),
                .entries = (uint16_t)(1u << (data[4] % 7)),
                .has_event_index = (data[4] & 64) != 0,
                .has_indirect = (data[4] & 128) != 0,
            };
    uint64_t faults = virtio_device_faults(device);
    struct balloon_counters before;
    balloon_counters(device, &before);
    transport.is_broken = false;
    if (virtio_device_start(device, memory, VIRTIO_F_VERSION_1 | (data[5] & 0x26), layouts) < 0)
        return 0;
    virtio_device_write_config(device, 4, data + 6, 4);
    for (int i = 0; i < turns; i++)
        virtio_device_turn(device);
    check(faults, &before);
    virtio_device_stop(device);
    FUZZ_CHECK(balloon_actual_bytes(device) == 0);
    return 0;
}
