// SPDX-License-Identifier: Apache-2.0
/* Any rings for the entropy device. The first bytes of the input choose the layout, the rest is repeated over guest
 * memory. What must hold: the device serves or asks for a reset, uses no more requests than there can be, and says of
 * none that it wrote more than the limit.
 */
#include "fuzz.h"

#include "base/limits.h"
#include "device/rng/rng.h"

enum { ram_bytes = 1 << 16, turns = 4 };

static bool is_broken;

static void note_call(void *transport, unsigned queue)
{
    (void)transport;
    FUZZ_CHECK(queue == 0);
}

static void note_nothing(void *transport)
{
    (void)transport;
}

static void note_broken(void *transport)
{
    (void)transport;
    is_broken = true;
}

static const struct virtio_transport_ops ops = {
    .call = note_call, .config_changed = note_nothing, .broken = note_broken};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct memory *memory;
    static struct virtio_device *device;
    if (memory == NULL) {
        FUZZ_CHECK(memory_new(ram_bytes, false, &memory) == 0 && rng_new(&device) == 0);
        virtio_device_attach(device, &ops, NULL);
    }
    if (size < 8)
        return 0;
    uint8_t *ram = memory_span(memory, 0, ram_bytes);
    for (size_t offset = 0; offset < ram_bytes; offset += size - 4)
        memcpy(ram + offset, data + 4, ram_bytes - offset < size - 4 ? ram_bytes - offset : size - 4);
    struct queue_layout layout = {
        .descriptors = (uint64_t)data[0] * 16,
        .available = (uint64_t)data[1] * 256,
        .used = (uint64_t)data[2] * 256,
        .entries = (uint16_t)(1u << (data[3] & 7)),
        .has_event_index = (data[3] & 8) != 0,
        .has_indirect = (data[3] & 16) != 0,
    };
    uint64_t faults = virtio_device_faults(device);
    is_broken = false;
    if (virtio_device_start(device, memory, VIRTIO_F_VERSION_1, &layout) < 0)
        return 0;
    for (int i = 0; i < turns; i++)
        virtio_device_turn(device);
    FUZZ_CHECK(virtio_device_faults(device) - faults == is_broken);
    virtio_device_stop(device);
    return 0;
}
