// SPDX-License-Identifier: Apache-2.0
/* What a hostile driver does to the rings of any device. */
#include "hostile.h"

#include "base/alloc.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

enum { next = VIRTIO_DRIVER_NEXT, writable = VIRTIO_DRIVER_WRITE, indirect = VIRTIO_DRIVER_INDIRECT };
#define BUFFER VIRTIO_DRIVER_BUFFERS
#define TABLE (VIRTIO_DRIVER_BUFFERS + 0x8000) /* of an indirect chain */

enum { entries = 16 };

/* ---- rings ---- */

struct trick { /* descriptor 0, and descriptor 1 or the one in the table */
    const char *name;
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
    uint64_t second_address;
    uint32_t second_length;
    uint16_t second_flags, second_next;
};

static const struct trick tricks[] = {
    {"a descriptor that follows itself", BUFFER, 16, next, 0},
    {"a loop of two", BUFFER, 16, next, 1, BUFFER, 16, next, 0},
    {"a next outside the table", BUFFER, 16, next, entries},
    {"a next far outside the table", BUFFER, 16, next, UINT16_MAX},
    {"a buffer of length 0", BUFFER, 0},
    {"a writable buffer of length 0", BUFFER, 0, writable},
    {"a buffer outside of RAM", UINT64_C(1) << 40, 16},
    {"a writable buffer outside of RAM", UINT64_C(1) << 40, 16, writable},
    {"a buffer in the gap", MEMORY_GAP_START + 0x1000, 16},
    {"a length over the end of RAM", BUFFER, UINT32_MAX},
    {"an address that wraps", UINT64_MAX - 7, 16},
    {"a readable buffer behind a writable one", BUFFER, 16, writable | next, 1, BUFFER, 16},
    {"an indirect table in an indirect table", TABLE, 16, indirect, 0, TABLE, 16, indirect, 0},
    {"an indirect table with a next", TABLE, 16, indirect | next, 1, BUFFER, 16},
    {"an indirect table of no whole descriptor", TABLE, 17, indirect},
    {"an empty indirect table", TABLE, 0, indirect},
    {"an indirect table outside of RAM", UINT64_C(1) << 40, 16, indirect},
    {"an indirect table longer than the queue", TABLE, 16 * (entries + 1), indirect},
    {"an indirect chain that loops", TABLE, 16, indirect, 0, BUFFER, 16, next, 0},
};

static void describe(struct virtio_driver *driver, unsigned queue, const struct trick *trick)
{
    struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } second = {trick->second_address, trick->second_length, trick->second_flags, trick->second_next};
    virtio_driver_describe(driver, queue, 0, trick->address, trick->length, trick->flags, trick->next);
    virtio_driver_put(driver, VIRTIO_DRIVER_DESCRIPTORS(queue) + 16, &second, sizeof(second));
    virtio_driver_put(driver, TABLE, &second, sizeof(second));
}

static void set_available(struct virtio_driver *driver, unsigned queue, uint16_t index)
{
    virtio_driver_put(driver, VIRTIO_DRIVER_AVAILABLE(queue) + 2, &index, sizeof(index));
}

const char *hostile_rings(struct virtio_driver *driver, uint64_t features, unsigned queues, unsigned queue)
{
    features |= VIRTIO_F_INDIRECT_DESC;
    for (size_t i = 0; i < array_length(tricks); i++) {
        if (!virtio_driver_restart(driver, features, queues, entries))
            return "the device did not start again";
        describe(driver, queue, &tricks[i]);
        virtio_driver_offer(driver, queue, 0);
        virtio_driver_kick(driver, queue);
        if (!virtio_driver_needs_reset(driver))
            return tricks[i].name;
    }
    static const uint16_t indices[] = {entries + 1, UINT16_MAX, UINT16_MAX / 2};
    for (size_t i = 0; i < array_length(indices); i++) {
        if (!virtio_driver_restart(driver, features, queues, entries))
            return "the device did not start again after an index that jumps";
        set_available(driver, queue, indices[i]);
        virtio_driver_kick(driver, queue);
        if (!virtio_driver_needs_reset(driver))
            return "an index that jumps";
    }
    if (!virtio_driver_restart(driver, features, queues, entries))
        return "the device did not start again";
    virtio_driver_offer(driver, queue, entries);
    virtio_driver_kick(driver, queue);
    if (!virtio_driver_needs_reset(driver))
        return "a head outside the table";
    return virtio_driver_restart(driver, features, queues, entries) ? NULL : "the device did not start at last";
}

/* ---- registers ---- */

static const char *try_layouts(struct virtio_driver *driver, uint64_t features, unsigned queues)
{
    static const uint16_t sizes[] = {0, 3, 100, 1024, 32768};
    for (size_t i = 0; i < array_length(sizes); i++)
        if (virtio_driver_restart(driver, features, queues, sizes[i]))
            return "a wrong size of a queue";
    return NULL;
}

static const char *try_storm(struct virtio_driver *driver, unsigned queue)
{
    for (int i = 0; i < 10000; i++)
        virtio_driver_write(driver, MMIO_QUEUE_NOTIFY, queue);
    for (unsigned i = 0; i < 100; i++) /* queues that there are, and queues that there are not */
        virtio_driver_write(driver, MMIO_QUEUE_NOTIFY, i * 1237);
    virtio_driver_turn(driver);
    return virtio_driver_needs_reset(driver) ? "a storm of kicks broke the device" : NULL;
}

const char *hostile_registers(struct virtio_driver *driver, uint64_t features, unsigned queues, unsigned queue)
{
    const char *wrong = try_layouts(driver, features, queues);
    if (wrong != NULL)
        return wrong;
    if (!virtio_driver_restart(driver, features, queues, entries))
        return "the device did not start";
    /* The queue stays where it was, whatever is written now. */
    virtio_driver_write(driver, 0x030, queue);
    for (uint64_t offset = 0x038; offset <= 0x0a4; offset += 4)
        if (offset != MMIO_QUEUE_NOTIFY && offset != 0x070)
            virtio_driver_write(driver, offset, 0x13579bdf);
    virtio_driver_write(driver, 0x070, VIRTIO_ACKNOWLEDGE); /* a step back */
    uint16_t before = virtio_driver_get_16(driver, VIRTIO_DRIVER_USED(queue) + 2);
    virtio_driver_send(driver, queue, BUFFER, 16, 0);
    if (virtio_driver_needs_reset(driver))
        return "a write that came too late moved a queue";
    /* Reset with a request that was never kicked, and a kick that comes after it. */
    virtio_driver_offer(driver, queue, 0);
    virtio_driver_reset(driver);
    before = virtio_driver_get_16(driver, VIRTIO_DRIVER_USED(queue) + 2);
    virtio_driver_kick(driver, queue);
    if (virtio_driver_get_16(driver, VIRTIO_DRIVER_USED(queue) + 2) != before)
        return "a request was served after the reset";
    if (!virtio_driver_restart(driver, features, queues, entries))
        return "the device did not start again";
    return try_storm(driver, queue);
}

/* ---- changes ---- */

enum { chains = 8, enough = 100, most_rounds = 100000 };

struct flipper {
    uint8_t *descriptors;
    uint16_t flags;
    atomic_bool is_over;
};

static void *flip_bytes(void *user)
{
    struct flipper *flipper = user;
    uint64_t random = 1; /* xorshift64 */
    while (!atomic_load_explicit(&flipper->is_over, memory_order_relaxed)) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        /* The bytes that decide most: low bytes of the address and the length, flags, and the link. */
        static const uint8_t fields[] = {0, 1, 8, 8, 9, 12, 12, 14};
        uint8_t field = fields[random % array_length(fields)];
        size_t offset = 16 * (random / 8 % chains) + field;
        unsigned value = random >> 32 & UINT8_MAX;
        if (field == 1)
            value &= 0x1f; /* buffers stay away from the rings */
        if (field == 12)
            value = value >= 16 ? flipper->flags : value & 7;
        if (field == 9 || field == 14)
            value &= 0xf;
        __atomic_store_n(flipper->descriptors + offset, (uint8_t)value, __ATOMIC_RELAXED);
    }
    return NULL;
}

static _Atomic uint16_t *word_at(struct virtio_driver *driver, uint64_t address)
{
    return memory_span(driver->memory, address, sizeof(uint16_t));
}

/* One round: all chains are offered, then the device has used them all or wants a reset. */
static const char *change_round(struct virtio_driver *driver, uint64_t features, unsigned queues, unsigned queue,
                                unsigned *used, unsigned *broken)
{
    virtio_driver_reset(driver);
    virtio_driver_interrupts(driver);
    atomic_store(word_at(driver, VIRTIO_DRIVER_AVAILABLE(queue) + 2), 0);
    atomic_store(word_at(driver, VIRTIO_DRIVER_USED(queue) + 2), 0);
    if (!virtio_driver_start(driver, features, queues, entries) && !virtio_driver_needs_reset(driver))
        return "the device did not start";
    atomic_store(word_at(driver, VIRTIO_DRIVER_AVAILABLE(queue) + 2), chains);
    virtio_driver_kick(driver, queue);
    for (;;) {
        if (virtio_driver_needs_reset(driver)) {
            ++*broken;
            return NULL;
        }
        if (atomic_load(word_at(driver, VIRTIO_DRIVER_USED(queue) + 2)) == chains) {
            ++*used;
            return NULL;
        }
        if (!virtio_driver_wait(driver))
            return "the device is stuck";
    }
}

const char *hostile_changes(struct virtio_driver *driver, uint64_t features, unsigned queues, unsigned queue,
                            uint16_t flags)
{
    pthread_t thread;
    struct flipper flipper = {.flags = flags};
    const char *wrong = NULL;
    unsigned used = 0, broken = 0;
    for (uint16_t i = 0; i < chains; i++) {
        virtio_driver_describe(driver, queue, i, BUFFER, 16, flags, 0);
        virtio_driver_put(driver, VIRTIO_DRIVER_AVAILABLE(queue) + 4 + 2 * (uint64_t)i, &i, sizeof(i));
    }
    flipper.descriptors = memory_span(driver->memory, VIRTIO_DRIVER_DESCRIPTORS(queue), 16 * chains);
    if (virtio_device_launch(driver->device) < 0)
        return "the device has no thread";
    driver->is_launched = true;
    wrong = change_round(driver, features, queues, queue, &used, &broken);
    if (wrong != NULL || broken > 0)
        return wrong != NULL ? wrong : "a right ring was refused";
    if (pthread_create(&thread, NULL, flip_bytes, &flipper) != 0)
        return "no second thread";
    /* Until both outcomes were frequent; the second thread may have to wait for a CPU. */
    for (int i = 0; i < most_rounds && wrong == NULL && (used < enough || broken < enough); i++)
        wrong = change_round(driver, features, queues, queue, &used, &broken);
    atomic_store(&flipper.is_over, true);
    pthread_join(thread, NULL);
    printf("# %u rounds used, %u broken\n", used, broken);
    if (wrong == NULL && (used < enough || broken < enough))
        wrong = "what changed mattered never, or always";
    return wrong;
}
