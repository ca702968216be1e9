// SPDX-License-Identifier: Apache-2.0
/* virtio over memory-mapped registers, version 2. (virtio 1.2, 4.2)
 *
 * The driver climbs a ladder of status bits, and what it may write depends on the step it stands on. Everything else
 * it writes is ignored, so a queue cannot move while it is served:
 *
 *         0 ──> ACKNOWLEDGE ──> DRIVER ──> FEATURES_OK ──> DRIVER_OK
 *         ^                     features   queues          (frozen)
 *         └── writing 0 resets, from anywhere; NEEDS_RESET leaves only that and FAILED, FAILED only that
 *
 * FEATURES_OK is granted when the driver took VERSION_1 and nothing that was not offered. DRIVER_OK starts the device;
 * rings that cannot be are answered with NEEDS_RESET. Bits are never taken back by writing fewer of them.
 *
 * A queue that was ready at DRIVER_OK stays so until reset: a single one could be stopped with VIRTIO_F_RING_RESET,
 * which we do not offer. A driver that writes 0 to QueueReady reads back 1 and knows that the queue is still ours.
 *
 * The registers stand behind a lock, for the driver has several CPUs. Two words are also touched by the device's
 * thread, which must not wait for that lock, because a reset holds it while it waits for the device: the interrupt
 * status, and whether a reset is needed. They are atomic.
 *
 * Each interrupt is an edge, even when its bit is set already: the driver may have read the status and not yet cleared
 * it, and one edge too many costs less than one too few. What happened before the driver clears a bit it sees after
 * that: the ring and the configuration are written before the bit is set.
 *
 * Invariants: (1) a queue's layout does not change between DRIVER_OK and reset. (2) the device runs only while
 * DRIVER_OK is set and neither FAILED is nor a reset has come. (3) after a reset has returned, every register reads as
 * at the start; the configuration space, its generation included, is the device's own.
 *
 * Trust: offsets, widths and values come from a hostile driver.
 */
#include "virtio/mmio.h"

#include "base/alloc.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { /* registers (4.2.2) */
       MAGIC = 0x000,
       VERSION = 0x004,
       DEVICE_ID = 0x008,
       VENDOR_ID = 0x00c,
       DEVICE_FEATURES = 0x010,
       DEVICE_FEATURES_SELECT = 0x014,
       DRIVER_FEATURES = 0x020,
       DRIVER_FEATURES_SELECT = 0x024,
       QUEUE_SELECT = 0x030,
       QUEUE_SIZE_MAX = 0x034,
       QUEUE_SIZE = 0x038,
       QUEUE_READY = 0x044,
       QUEUE_NOTIFY = MMIO_QUEUE_NOTIFY,
       INTERRUPT_STATUS = 0x060,
       INTERRUPT_ACKNOWLEDGE = 0x064,
       STATUS = 0x070,
       QUEUE_DESCRIPTORS_LOW = 0x080,
       QUEUE_DESCRIPTORS_HIGH = 0x084,
       QUEUE_AVAILABLE_LOW = 0x090,
       QUEUE_AVAILABLE_HIGH = 0x094,
       QUEUE_USED_LOW = 0x0a0,
       QUEUE_USED_HIGH = 0x0a4,
       WINDOW_SELECT = 0x0ac,
       WINDOW_LENGTH_LOW = 0x0b0,
       WINDOW_LENGTH_HIGH = 0x0b4,
       WINDOW_BASE_LOW = 0x0b8,
       WINDOW_BASE_HIGH = 0x0bc,
       CONFIG_GENERATION = 0x0fc,
       CONFIG = 0x100,
};

enum { magic = 0x74726976, version = 2, vendor = 0x4c414956 }; /* "virt", and "VIAL" */
enum { interrupt_used = 1, interrupt_config = 2 };

struct mmio_queue {
    struct queue_layout layout;
    bool is_ready;
};

struct mmio {
    struct virtio_device *device; /* borrowed */
    const struct memory *memory;  /* borrowed */
    int interrupt_fd;             /* borrowed */
    atomic_uint interrupt_status;
    atomic_bool needs_reset;

    pthread_mutex_t lock; /* guards the rest */
    uint32_t status;      /* without NEEDS_RESET */
    uint32_t device_features_select, driver_features_select, queue_select, window_select;
    uint64_t driver_features;
    unsigned queue_count;
    struct mmio_queue *queues; /* owned */
};

/* ---- what the device says, on its own thread ---- */

static void raise_interrupt(struct mmio *mmio, unsigned why)
{
    uint64_t one = 1;
    atomic_fetch_or(&mmio->interrupt_status, why); /* before the edge: the driver reads it when that arrives */
    ssize_t written = write(mmio->interrupt_fd, &one, sizeof(one));
    (void)written; /* fails only where as many edges are pending as fit */
}

static void tell_used(void *transport, unsigned queue)
{
    (void)queue; /* one interrupt for all of them */
    raise_interrupt(transport, interrupt_used);
}

static void tell_config(void *transport)
{
    raise_interrupt(transport, interrupt_config);
}

static void tell_broken(void *transport)
{
    struct mmio *mmio = transport;
    atomic_store(&mmio->needs_reset, true);
    raise_interrupt(mmio, interrupt_config); /* (2.1.2) */
}

static const struct virtio_transport_ops transport_ops = {
    .call = tell_used,
    .config_changed = tell_config,
    .broken = tell_broken,
};

/* ---- life ---- */

static void forget(struct mmio *mmio)
{
    mmio->status = 0;
    mmio->device_features_select = mmio->driver_features_select = mmio->queue_select = mmio->window_select = 0;
    mmio->driver_features = 0;
    memset(mmio->queues, 0, mmio->queue_count * sizeof(mmio->queues[0]));
    atomic_store(&mmio->needs_reset, false);
    atomic_store(&mmio->interrupt_status, 0);
}

int mmio_new(struct virtio_device *device, const struct memory *memory, int interrupt_fd, struct mmio **ret_mmio)
{
    auto_free struct mmio *mmio = alloc_zero(sizeof(*mmio));
    if (mmio == NULL)
        return -ENOMEM;
    mmio->queue_count = virtio_device_queue_count(device);
    mmio->queues = alloc_zero((mmio->queue_count + 1) * sizeof(mmio->queues[0]));
    if (mmio->queues == NULL)
        return -ENOMEM;
    mmio->device = device;
    mmio->memory = memory;
    mmio->interrupt_fd = interrupt_fd;
    pthread_mutex_init(&mmio->lock, NULL);
    virtio_device_attach(device, &transport_ops, mmio);
    *ret_mmio = steal_ptr(mmio);
    return 0;
}

struct mmio *mmio_free(struct mmio *mmio)
{
    if (mmio == NULL)
        return NULL;
    virtio_device_stop(mmio->device);
    virtio_device_attach(mmio->device, NULL, NULL);
    pthread_mutex_destroy(&mmio->lock);
    free(mmio->queues);
    free(mmio);
    return NULL;
}

/* ---- the status ladder ---- */

static bool has_status(const struct mmio *mmio, uint32_t wanted)
{
    return (mmio->status & wanted) == wanted;
}

/* (3.1.1) Features are taken between DRIVER and FEATURES_OK, queues between that and DRIVER_OK. */
static bool stands_on(const struct mmio *mmio, uint32_t step, uint32_t next_step)
{
    return has_status(mmio, step) && (mmio->status & (next_step | VIRTIO_FAILED)) == 0;
}

static bool may_take_features(const struct mmio *mmio)
{
    return stands_on(mmio, VIRTIO_DRIVER, VIRTIO_FEATURES_OK);
}

static bool may_set_queues(const struct mmio *mmio)
{
    return stands_on(mmio, VIRTIO_FEATURES_OK, VIRTIO_DRIVER_OK);
}

static bool are_features_right(const struct mmio *mmio)
{
    uint64_t offered = virtio_device_features(mmio->device);
    return (mmio->driver_features & ~offered) == 0 && (mmio->driver_features & VIRTIO_F_VERSION_1) != 0;
}

static void start_device(struct mmio *mmio)
{
    struct queue_layout layouts[VIRTIO_MOST_QUEUES] = {0};
    int result = 0;
    for (unsigned i = 0; i < mmio->queue_count; i++) {
        if (!mmio->queues[i].is_ready)
            continue;
        layouts[i] = mmio->queues[i].layout;
        layouts[i].has_event_index = (mmio->driver_features & VIRTIO_F_EVENT_IDX) != 0;
        layouts[i].has_indirect = (mmio->driver_features & VIRTIO_F_INDIRECT_DESC) != 0;
        if (layouts[i].entries == 0)
            result = -EINVAL;
    }
    mmio->status |= VIRTIO_DRIVER_OK;
    if (result == 0)
        result = virtio_device_start(mmio->device, mmio->memory, mmio->driver_features, layouts);
    if (result < 0) {
        virtio_device_blame(mmio->device, "a queue has a size or a place that cannot be");
        tell_broken(mmio);
    }
}

static void reset(struct mmio *mmio)
{
    virtio_device_stop(mmio->device);
    forget(mmio);
}

static void write_status(struct mmio *mmio, uint32_t value)
{
    if (value == 0) {
        reset(mmio);
        return;
    }
    if (has_status(mmio, VIRTIO_FAILED))
        return;
    if ((value & VIRTIO_FAILED) != 0) { /* the driver has given up; it may say so from any step */
        mmio->status |= VIRTIO_FAILED;
        virtio_device_stop(mmio->device);
        return;
    }
    if (atomic_load(&mmio->needs_reset))
        return;
    uint32_t more = value & ~mmio->status;
    if ((more & VIRTIO_ACKNOWLEDGE) != 0)
        mmio->status |= VIRTIO_ACKNOWLEDGE;
    if ((more & VIRTIO_DRIVER) != 0 && has_status(mmio, VIRTIO_ACKNOWLEDGE))
        mmio->status |= VIRTIO_DRIVER;
    if ((more & VIRTIO_FEATURES_OK) != 0 && has_status(mmio, VIRTIO_DRIVER) && are_features_right(mmio))
        mmio->status |= VIRTIO_FEATURES_OK;
    if ((more & VIRTIO_DRIVER_OK) != 0 && has_status(mmio, VIRTIO_FEATURES_OK))
        start_device(mmio);
}

/* ---- registers ---- */

static void set_half(uint64_t *word, bool is_high, uint32_t half)
{
    *word = is_high ? (*word & UINT32_MAX) | (uint64_t)half << 32 : (*word & ~(uint64_t)UINT32_MAX) | half;
}

static uint32_t get_half(uint64_t word, bool is_high)
{
    return (uint32_t)(is_high ? word >> 32 : word);
}

static void write_queue(struct mmio *mmio, uint64_t offset, uint32_t value)
{
    if (!may_set_queues(mmio) || mmio->queue_select >= mmio->queue_count)
        return;
    struct mmio_queue *queue = &mmio->queues[mmio->queue_select];
    if (offset == QUEUE_READY) {
        queue->is_ready = (value & 1) != 0;
        return;
    }
    if (queue->is_ready)
        return;
    switch (offset) {
    case QUEUE_SIZE:
        queue->layout.entries = value <= UINT16_MAX ? (uint16_t)value : 0;
        break;
    case QUEUE_DESCRIPTORS_LOW:
    case QUEUE_DESCRIPTORS_HIGH:
        set_half(&queue->layout.descriptors, offset == QUEUE_DESCRIPTORS_HIGH, value);
        break;
    case QUEUE_AVAILABLE_LOW:
    case QUEUE_AVAILABLE_HIGH:
        set_half(&queue->layout.available, offset == QUEUE_AVAILABLE_HIGH, value);
        break;
    case QUEUE_USED_LOW:
    case QUEUE_USED_HIGH:
        set_half(&queue->layout.used, offset == QUEUE_USED_HIGH, value);
        break;
    default:
        break;
    }
}

static void write_register(struct mmio *mmio, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case DEVICE_FEATURES_SELECT:
        mmio->device_features_select = value;
        break;
    case DRIVER_FEATURES_SELECT:
        mmio->driver_features_select = value;
        break;
    case DRIVER_FEATURES:
        if (may_take_features(mmio) && mmio->driver_features_select < 2)
            set_half(&mmio->driver_features, mmio->driver_features_select == 1, value);
        break;
    case QUEUE_SELECT:
        mmio->queue_select = value;
        break;
    case QUEUE_NOTIFY: /* only where no engine catches it */
        if (has_status(mmio, VIRTIO_DRIVER_OK) && value < mmio->queue_count)
            virtio_kick(mmio->device, value);
        break;
    case INTERRUPT_ACKNOWLEDGE:
        atomic_fetch_and(&mmio->interrupt_status, ~value);
        break;
    case STATUS:
        write_status(mmio, value);
        break;
    case WINDOW_SELECT:
        mmio->window_select = value;
        break;
    default:
        write_queue(mmio, offset, value);
        break;
    }
}

/* A region that does not exist has the length and the base -1 (4.2.2.1). */
static uint32_t read_window(const struct mmio *mmio, uint64_t offset)
{
    const struct virtio_window *window = mmio->window_select <= UINT8_MAX
                                             ? virtio_device_window(mmio->device, (uint8_t)mmio->window_select)
                                             : NULL;
    if (window == NULL)
        return UINT32_MAX;
    if (offset == WINDOW_LENGTH_LOW || offset == WINDOW_LENGTH_HIGH)
        return get_half(window->size_bytes, offset == WINDOW_LENGTH_HIGH);
    return get_half(window->guest, offset == WINDOW_BASE_HIGH);
}

static uint32_t read_register(struct mmio *mmio, uint64_t offset)
{
    switch (offset) {
    case MAGIC:
        return magic;
    case VERSION:
        return version;
    case DEVICE_ID:
        return virtio_device_type(mmio->device);
    case VENDOR_ID:
        return vendor;
    case DEVICE_FEATURES:
        if (mmio->device_features_select > 1)
            return 0;
        return get_half(virtio_device_features(mmio->device), mmio->device_features_select == 1);
    case QUEUE_SIZE_MAX:
        return virtio_device_queue_size(mmio->device, mmio->queue_select);
    case QUEUE_READY:
        return mmio->queue_select < mmio->queue_count && mmio->queues[mmio->queue_select].is_ready;
    case INTERRUPT_STATUS:
        return atomic_load(&mmio->interrupt_status);
    case STATUS:
        return mmio->status | (atomic_load(&mmio->needs_reset) ? VIRTIO_NEEDS_RESET : 0);
    case WINDOW_LENGTH_LOW:
    case WINDOW_LENGTH_HIGH:
    case WINDOW_BASE_LOW:
    case WINDOW_BASE_HIGH:
        return read_window(mmio, offset);
    case CONFIG_GENERATION:
        return virtio_device_config_generation(mmio->device);
    default:
        return 0; /* write-only, or nothing */
    }
}

/* (4.2.2.2) Registers are 32 bits wide and aligned; the configuration space is read and written in any width. */
static bool is_whole_register(uint64_t offset, uint32_t length)
{
    return length == sizeof(uint32_t) && offset % sizeof(uint32_t) == 0 && offset < CONFIG;
}

void mmio_read(struct mmio *mmio, uint64_t offset, void *bytes, uint32_t length)
{
    memset(bytes, 0, length);
    if (offset >= CONFIG && offset < MMIO_BYTES) {
        virtio_device_read_config(mmio->device, (uint32_t)(offset - CONFIG), bytes, length);
    } else if (is_whole_register(offset, length)) {
        pthread_mutex_lock(&mmio->lock);
        uint32_t value = read_register(mmio, offset);
        pthread_mutex_unlock(&mmio->lock);
        memcpy(bytes, &value, sizeof(value));
    }
}

void mmio_write(struct mmio *mmio, uint64_t offset, const void *bytes, uint32_t length)
{
    if (offset >= CONFIG && offset < MMIO_BYTES) {
        virtio_device_write_config(mmio->device, (uint32_t)(offset - CONFIG), bytes, length);
    } else if (is_whole_register(offset, length)) {
        uint32_t value;
        memcpy(&value, bytes, sizeof(value));
        pthread_mutex_lock(&mmio->lock);
        write_register(mmio, offset, value);
        pthread_mutex_unlock(&mmio->lock);
    }
}
