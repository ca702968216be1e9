// SPDX-License-Identifier: Apache-2.0
/* Any rings for the entropy device. The first bytes of the input choose the layout, the rest is repeated over guest
 * memory. What must hold: the device serves or asks for a reset, uses no more requests than there can be, and says of
 * none that it wrote more than the limit.
 */
#include "ring.h"

#include "base/limits.h"
#include "device/rng/rng.h"

enum { ram_bytes = 1 << 16, turns = 4 };

static struct fuzz_transport transport = {.queue_count = 1};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct memory *memory;
    static struct virtio_device *device;
    if (memory == NULL) {
        FUZZ_CHECK(memory_new(ram_bytes, false, &memory) == 0 && rng_new(&device) == 0);
        virtio_device_attach(device, &fuzz_transport_ops, &transport);
    }
    if (size < 8)
        return 0;
    uint8_t *ram = memory_span(memory, 0, ram_bytes);
    fuzz_fill(ram, ram_bytes, data, size);
    struct queue_layout layout = fuzz_layout(data);
    uint64_t faults = virtio_device_faults(device);
    transport.is_broken = false;
    if (virtio_device_start(device, memory, VIRTIO_F_VERSION_1, &layout) < 0)
        return 0;
    for (int i = 0; i < turns; i++)
        virtio_device_turn(device);
    FUZZ_CHECK(virtio_device_faults(device) - faults == transport.is_broken);
    virtio_device_stop(device);
    return 0;
}
