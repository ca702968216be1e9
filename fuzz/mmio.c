// SPDX-License-Identifier: Apache-2.0
/* Any driver of a virtio-mmio device: the input is a list of accesses to registers, kicks, turns of the device and
 * writes to guest memory. The device takes chains, keeps some, and gives them back.
 *
 * A second, simpler ladder runs beside the real one. What must hold: both stand on the same step; a queue is ready
 * exactly when the driver made it so on the right step; the device runs exactly while DRIVER_OK is set and neither
 * FAILED nor a reset has come, with the features that were taken; every span lies in guest memory; and while the device
 * does not run, none of guest memory changes.
 */
#include "fuzz.h"

#include "virtio/mmio.h"

#include <sys/eventfd.h>
#include <unistd.h>

enum { ram_bytes = 1 << 14, queue_count = 2, most_entries = 16, config_bytes = 12 };

enum operation { op_write, op_write_any, op_read_any, op_kick, op_turn, op_fill, op_device, op_write_byte, op_count };
enum action { action_config, action_break, action_give_back, action_hold, action_count };

struct input {
    const uint8_t *next, *end;
};

static struct memory *memory;
static struct virtio_device *device;
static struct mmio *mmio;
static int interrupt_fd = -1;

static bool is_running, holds;
static uint16_t held[queue_count][most_entries];
static unsigned held_count[queue_count];

/* What the driver has done, by the rules of 3.1.1. */
static struct {
    uint32_t status, queue_select, features_select;
    uint64_t features;
    bool is_ready[queue_count];
} model;

static uint8_t take_8(struct input *input)
{
    return input->next < input->end ? *input->next++ : 0;
}

static uint32_t take_32(struct input *input)
{
    uint32_t value = 0;
    for (int i = 0; i < 4; i++)
        value |= (uint32_t)take_8(input) << (8 * i);
    return value;
}

/* ---- the device ---- */

static void start(void *state, uint64_t features)
{
    (void)state;
    FUZZ_CHECK(!is_running && features == model.features && (features & VIRTIO_F_VERSION_1) != 0);
    FUZZ_CHECK((features & ~virtio_device_features(device)) == 0);
    is_running = true;
    memset(held_count, 0, sizeof(held_count));
}

static void stop(void *state)
{
    (void)state;
    FUZZ_CHECK(is_running);
    is_running = false; /* what is held is given back all the same: nobody must see it */
}

static void check_spans(const struct iovec *spans, size_t count)
{
    const uint8_t *ram = memory_span(memory, 0, ram_bytes);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *begin = spans[i].iov_base;
        FUZZ_CHECK(begin >= ram && begin < ram + ram_bytes && spans[i].iov_len <= (size_t)(ram + ram_bytes - begin));
    }
}

static void serve(void *state, unsigned queue)
{
    struct queue_chain chain;
    unsigned taken = 0;
    uint8_t bytes[32];
    (void)state;
    FUZZ_CHECK(is_running && queue < queue_count && model.is_ready[queue]);
    while (virtio_pop(device, queue, &chain)) {
        FUZZ_CHECK(++taken <= most_entries);
        check_spans(chain.readable, chain.readable_count);
        check_spans(chain.writable, chain.writable_count);
        size_t length = virtio_read_spans(chain.readable, chain.readable_count, 1, bytes, sizeof(bytes));
        length = virtio_write_spans(chain.writable, chain.writable_count, 2, bytes, length);
        if (holds && held_count[queue] < most_entries)
            held[queue][held_count[queue]++] = chain.head;
        else
            virtio_push(device, queue, chain.head, (uint32_t)length);
    }
    virtio_call(device, queue);
}

static void config_written(void *state, uint32_t offset, uint32_t length)
{
    (void)state;
    FUZZ_CHECK(is_running && offset >= 4 && length > 0 && length <= 8 && offset + length <= config_bytes);
}

static const struct virtio_device_ops ops = {.type = VIRTIO_TYPE_RNG,
                                             .name = "fuzz",
                                             .start = start,
                                             .serve = serve,
                                             .stop = stop,
                                             .config_written = config_written};

static void act(enum action action)
{
    switch (action) {
    case action_config:
        virtio_set_config(device, 3, "ab", 2);
        break;
    case action_break:
        virtio_break(device, "the input says so");
        break;
    case action_give_back:
        for (unsigned queue = 0; queue < queue_count; queue++) {
            while (held_count[queue] > 0)
                virtio_push(device, queue, held[queue][--held_count[queue]], 1);
            virtio_call(device, queue);
        }
        break;
    case action_hold:
        holds = !holds;
        break;
    case action_count:
        break;
    }
}

/* ---- the ladder beside the ladder ---- */

static uint32_t climb(uint32_t status, uint32_t value)
{
    uint64_t offered = virtio_device_features(device);
    bool are_features_right = (model.features & VIRTIO_F_VERSION_1) != 0 && (model.features | offered) == offered;
    if ((status & VIRTIO_FAILED) != 0 || (value & VIRTIO_FAILED) != 0)
        return status | VIRTIO_FAILED;
    if ((status & VIRTIO_NEEDS_RESET) != 0)
        return status;
    status |= value & VIRTIO_ACKNOWLEDGE;
    status |= (status & VIRTIO_ACKNOWLEDGE) != 0 ? value & VIRTIO_DRIVER : 0;
    status |= (status & VIRTIO_DRIVER) != 0 && are_features_right ? value & VIRTIO_FEATURES_OK : 0;
    status |= (status & VIRTIO_FEATURES_OK) != 0 ? value & VIRTIO_DRIVER_OK : 0;
    return status;
}

static void follow_write(uint64_t offset, uint32_t value)
{
    bool takes_features = (model.status & (VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_FAILED)) == VIRTIO_DRIVER;
    bool takes_queues = (model.status & (VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK | VIRTIO_FAILED)) == VIRTIO_FEATURES_OK;
    unsigned shift = 32 * (model.features_select & 1);
    switch (offset) {
    case 0x20: /* DriverFeatures */
        if (takes_features && model.features_select < 2)
            model.features = (model.features & ~(UINT64_C(0xffffffff) << shift)) | (uint64_t)value << shift;
        break;
    case 0x24: /* DriverFeaturesSel */
        model.features_select = value;
        break;
    case 0x30: /* QueueSel */
        model.queue_select = value;
        break;
    case 0x44: /* QueueReady */
        if (takes_queues && model.queue_select < queue_count)
            model.is_ready[model.queue_select] = value & 1;
        break;
    case 0x70: /* Status */
        if (value == 0)
            memset(&model, 0, sizeof(model));
        else
            model.status = climb(model.status, value);
        break;
    default:
        break;
    }
}

static uint32_t get(uint64_t offset)
{
    uint32_t value = 0;
    mmio_read(mmio, offset, &value, sizeof(value));
    return value;
}

static void check_state(void)
{
    uint32_t status = get(0x70);
    FUZZ_CHECK((status & ~VIRTIO_NEEDS_RESET) == (model.status & ~VIRTIO_NEEDS_RESET));
    FUZZ_CHECK((model.status & ~status) == 0 && get(0x60) <= 3);
    FUZZ_CHECK((status & VIRTIO_NEEDS_RESET) == 0 || (status & VIRTIO_DRIVER_OK) != 0);
    model.status = status; /* with NEEDS_RESET, which comes from the device and stays */
    bool may_run = (status & VIRTIO_DRIVER_OK) != 0 && (status & VIRTIO_FAILED) == 0;
    FUZZ_CHECK(is_running ? may_run : !may_run || (status & VIRTIO_NEEDS_RESET) != 0);
    FUZZ_CHECK(get(0x44) == (model.queue_select < queue_count && model.is_ready[model.queue_select]));
}

/* ---- the driver ---- */

static void write_any(uint64_t offset, const uint8_t *bytes, uint32_t length)
{
    uint32_t value = 0;
    if (length == 4 && offset % 4 == 0) {
        memcpy(&value, bytes, sizeof(value));
        follow_write(offset, value);
    }
    mmio_write(mmio, offset, bytes, length);
}

static void write_32(uint64_t offset, uint32_t value)
{
    write_any(offset, (const uint8_t *)&value, sizeof(value));
}

static void fill(struct input *input)
{
    uint8_t *ram = memory_span(memory, 0, ram_bytes);
    unsigned begin = take_8(input);
    begin |= (unsigned)take_8(input) << 8;
    for (unsigned left = take_8(input); left > 0 && input->next < input->end; left--)
        ram[begin++ % ram_bytes] = take_8(input);
}

static void access_any(struct input *input, enum operation operation)
{
    uint8_t bytes[8];
    uint64_t offset = take_8(input);
    offset |= (uint64_t)take_8(input) << 8;
    uint32_t length = 1 + take_8(input) % sizeof(bytes);
    for (size_t i = 0; operation == op_write_any && i < length; i++)
        bytes[i] = take_8(input);
    if (operation == op_write_any)
        write_any(offset, bytes, length);
    else
        mmio_read(mmio, offset, bytes, length);
}

static void step(struct input *input)
{
    enum operation operation = take_8(input) % op_count;
    uint64_t offset;
    switch (operation) {
    case op_write:
        offset = 4 * (uint64_t)take_8(input);
        write_32(offset, take_32(input));
        break;
    case op_write_byte:
        offset = 4 * (uint64_t)take_8(input);
        write_32(offset, take_8(input));
        break;
    case op_write_any:
    case op_read_any:
        access_any(input, operation);
        break;
    case op_kick:
        FUZZ_CHECK(eventfd_write(virtio_device_kick_fd(device, take_8(input) % queue_count), 1) == 0);
        break;
    case op_turn:
        virtio_device_turn(device);
        break;
    case op_fill:
        fill(input);
        break;
    case op_device:
        act(take_8(input) % action_count);
        break;
    case op_count:
        break;
    }
}

static void begin(void)
{
    static const uint16_t sizes[queue_count] = {most_entries, 4};
    static const struct virtio_device_options options = {.ops = &ops,
                                                         .features = 5,
                                                         .queue_sizes = sizes,
                                                         .queue_count = queue_count,
                                                         .config_bytes = config_bytes,
                                                         .writable_offset = 4,
                                                         .writable_bytes = 8};
    if (memory == NULL) {
        interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        FUZZ_CHECK(memory_new(ram_bytes, false, &memory) == 0 && interrupt_fd >= 0);
    }
    is_running = holds = false;
    memset(held_count, 0, sizeof(held_count));
    memset(&model, 0, sizeof(model));
    memset(memory_span(memory, 0, ram_bytes), 0, ram_bytes);
    FUZZ_CHECK(virtio_device_new(&options, &device) == 0);
    FUZZ_CHECK(mmio_new(device, memory, interrupt_fd, &mmio) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t before[ram_bytes];
    struct input input = {data, data + size};
    begin();
    while (input.next < input.end) {
        bool was_running = is_running, is_fill = *input.next % op_count == op_fill;
        if (!was_running && !is_fill)
            memcpy(before, memory_span(memory, 0, ram_bytes), ram_bytes);
        step(&input);
        check_state();
        if (!was_running && !is_running && !is_fill)
            FUZZ_CHECK(memcmp(before, memory_span(memory, 0, ram_bytes), ram_bytes) == 0);
    }
    mmio = mmio_free(mmio);
    FUZZ_CHECK(!is_running);
    device = virtio_device_free(device);
    return 0;
}
