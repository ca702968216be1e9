// SPDX-License-Identifier: Apache-2.0
/* Any requests for a block device. The first byte chooses the device, the second how much of guest memory is spoiled at
 * the end; then come requests of ten bytes each: type, sector, lengths of the parts and flags. What must hold: nothing
 * is asked of the disk that disk.h forbids (fake_disk.c looks after that), all that was taken is answered with a status
 * that there is, and a driver that broke no ring is told of none.
 */
#include "ring.h"

#include "device/blk/blk.h"
#include "fake_disk.h"

enum { ram_bytes = 1 << 18, entries = 64, turns = 3, devices = 6, disk_bytes = 64 << 10, record_bytes = 10 };
enum { descriptors_at = 0x1000, available_at = 0x2000, used_at = 0x3000, headers_at = 0x4000, status_at = 0x5000 };
enum { data_at = 0x6000, most_requests = 20 };
enum { LINK = 1, WRITABLE = 2 };

struct machine {
    struct virtio_device *device;
    struct fuzz_transport transport;
};

static struct memory *memory;
static struct machine machines[devices];

static void make(unsigned index)
{
    struct machine *machine = &machines[index];
    struct disk *disk = fake_disk_new(disk_bytes);
    disk->maps_nothing = index == 1;
    disk->extent_bytes = index == 2 ? 1536 : 0;
    disk->zero_from = 8192;
    disk->zero_to = 12288;
    disk->properties.is_read_only = index == 3;
    disk->properties.alignment_bytes = index == 4 ? 512 : 1;
    disk->properties.discard_moves_data = index == 5;
    struct blk_options options = {
        .disk = disk,
        .id = "fuzz",
        .queue_count = 1,
        .without_ring = index == 5,
        .sync = index == 2 ? VIAL_DISK_SYNC_NONE : VIAL_DISK_SYNC_FULL,
        .cache = index == 4 ? VIAL_DISK_UNSAFE : VIAL_DISK_WRITEBACK,
    };
    machine->transport.queue_count = 1;
    FUZZ_CHECK(blk_new(&options, &machine->device) == 0);
    virtio_device_attach(machine->device, &fuzz_transport_ops, &machine->transport);
}

static void put(uint8_t *ram, size_t offset, const void *bytes, size_t length)
{
    memcpy(ram + offset, bytes, length);
}

static void describe(uint8_t *ram, unsigned index, uint64_t address, uint32_t length, unsigned flags)
{
    struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } descriptor = {address, length, (uint16_t)flags, (uint16_t)(index + 1)};
    put(ram, descriptors_at + 16 * (size_t)index, &descriptor, sizeof(descriptor));
}

/* A request as its record says, mostly right: three descriptors, or two for nothing in between. */
static void add_request(uint8_t *ram, unsigned number, const uint8_t *record)
{
    static const uint8_t types[] = {0, 1, 4, 8, 11, 13, 2, 14};
    unsigned first = 3 * number, flags = record[9], length = record[4] * 64u + record[5];
    bool fills = (flags & 1) != 0;
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header = {types[record[0] & 7], 0, record[1] | (uint64_t)record[2] << ((record[3] & 7) * 8)};
    uint64_t at = data_at + 0x2000 * (uint64_t)number;
    put(ram, headers_at + 16 * (size_t)number, &header, sizeof(header));
    if (header.type == 11 || header.type == 13) {
        struct {
            uint64_t sector;
            uint32_t sectors, flags;
        } segment = {header.sector, record[6] | (uint32_t)record[7] << 16, record[8]};
        for (unsigned i = 0; i < 17; i++)
            put(ram, at + 16 * (size_t)i, &segment, sizeof(segment));
    }
    describe(ram, first, headers_at + 16 * (uint64_t)number, (flags & 2) != 0 ? 16 - record[6] % 16u : 16, LINK);
    describe(ram, first + 1, at, length != 0 ? length : 512, LINK | (fills ? WRITABLE : 0u));
    describe(ram, first + 2, status_at + number, (flags & 4) != 0 ? 1 + record[7] : 1, (flags & 8) != 0 ? 0 : WRITABLE);
    uint16_t head = (uint16_t)first;
    put(ram, available_at + 4 + 2 * (size_t)number, &head, sizeof(head));
}

static uint16_t get_16(const uint8_t *word)
{
    uint16_t value;
    memcpy(&value, word, sizeof(value));
    return value;
}

static void check_answers(const uint8_t *ram, uint16_t used)
{
    for (uint16_t i = 0; i < used; i++) {
        unsigned number = get_16(ram + used_at + 4 + 8 * (size_t)i) / 3;
        FUZZ_CHECK(number < most_requests && ram[used_at + 4 + 8 * (size_t)i + 2] == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (memory == NULL) {
        FUZZ_CHECK(memory_new(ram_bytes, false, &memory) == 0);
        for (unsigned i = 0; i < devices; i++)
            make(i);
    }
    if (size < 2 + record_bytes)
        return 0;
    uint8_t *ram = memory_span(memory, 0, ram_bytes);
    struct machine *machine = &machines[data[0] % devices];
    struct queue_layout layout = {descriptors_at, available_at, used_at, entries,
                                  .has_indirect = (data[0] & 0x80) != 0};
    uint16_t requests = 0;
    memset(ram, 0, headers_at);
    memset(ram + status_at, 0xee, most_requests);
    for (size_t offset = 2; requests < most_requests && size - offset >= record_bytes; offset += record_bytes)
        add_request(ram, requests++, data + offset);
    put(ram, available_at + 2, &requests, sizeof(requests));
    for (size_t i = 0; i + 2 < size && i < (data[1] & 15u); i++) /* spoil some of it */
        ram[descriptors_at + (data[size - 1 - i] * 5u + i * 16) % 0x1000] ^= data[2 + i];
    machine->transport.is_broken = false;
    FUZZ_CHECK(virtio_device_start(machine->device, memory, VIRTIO_F_VERSION_1 | UINT64_C(1) << 9, &layout) == 0);
    for (int i = 0; i < turns; i++)
        virtio_device_turn(machine->device);
    uint16_t next = virtio_device_pause_queue(machine->device, 0);
    bool is_exclusive = data[0] % devices == 5; /* there the queue may have to wait */
    FUZZ_CHECK(machine->transport.is_broken || (next <= requests && (is_exclusive || next == requests)));
    if ((data[1] & 15) == 0 && !machine->transport.is_broken)
        check_answers(ram, next);
    virtio_device_stop(machine->device);
    return 0;
}
