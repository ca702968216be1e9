// SPDX-License-Identifier: Apache-2.0
/* A virtio driver for tests: see driver.h. */
#include "driver.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

void driver_init(struct driver *driver, uint16_t entries)
{
    *driver = (struct driver){.entries = entries};
    if (memory_new(2 << 20, false, &driver->memory) < 0)
        abort();
}

void driver_release(struct driver *driver)
{
    driver->memory = memory_free(driver->memory);
}

struct queue_layout driver_layout(const struct driver *driver)
{
    return (struct queue_layout){
        .descriptors = DRIVER_DESCRIPTORS,
        .available = DRIVER_AVAILABLE,
        .used = DRIVER_USED,
        .entries = driver->entries,
    };
}

void driver_describe(struct driver *driver, uint64_t table, uint16_t index, uint64_t address, uint32_t length,
                     uint16_t flags, uint16_t next)
{
    struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } descriptor = {address, length, flags, next};
    if (memory_write(driver->memory, table + 16 * (uint64_t)index, &descriptor, sizeof(descriptor)) < 0)
        abort();
}

void driver_put_16(struct driver *driver, uint64_t address, uint16_t value)
{
    _Atomic uint16_t *word = memory_span(driver->memory, address, sizeof(value));
    if (word == NULL)
        abort();
    atomic_store_explicit(word, value, memory_order_release); /* an index publishes what was written before it */
}

uint16_t driver_get_16(const struct driver *driver, uint64_t address)
{
    const _Atomic uint16_t *word = memory_span(driver->memory, address, sizeof(uint16_t));
    return word != NULL ? atomic_load_explicit(word, memory_order_acquire) : 0;
}

uint32_t driver_get_32(const struct driver *driver, uint64_t address)
{
    uint32_t value = 0;
    memory_read(driver->memory, address, &value, sizeof(value));
    return value;
}

void driver_set_available(struct driver *driver, uint16_t index)
{
    driver_put_16(driver, DRIVER_AVAILABLE + 2, index);
}

void driver_offer(struct driver *driver, uint16_t head)
{
    driver_put_16(driver, DRIVER_AVAILABLE + 4 + 2 * (uint64_t)(driver->next_available % driver->entries), head);
    driver_set_available(driver, ++driver->next_available);
}

bool driver_take(struct driver *driver, uint32_t *ret_head, uint32_t *ret_written)
{
    if (driver_get_16(driver, DRIVER_USED + 2) == driver->last_used)
        return false;
    uint64_t entry = DRIVER_USED + 4 + 8 * (uint64_t)(driver->last_used++ % driver->entries);
    *ret_head = driver_get_32(driver, entry);
    *ret_written = driver_get_32(driver, entry + 4);
    return true;
}

enum { echo_offset = 4096, echo_bytes = 64 };

void driver_offer_text(struct driver *driver, const char *text)
{
    uint32_t length = (uint32_t)strlen(text);
    memory_write(driver->memory, DRIVER_BUFFERS, text, length);
    driver_describe(driver, DRIVER_DESCRIPTORS, 0, DRIVER_BUFFERS, length, DRIVER_NEXT, 1);
    driver_describe(driver, DRIVER_DESCRIPTORS, 1, DRIVER_BUFFERS + echo_offset, echo_bytes, DRIVER_WRITE, 0);
    driver_offer(driver, 0);
}

bool driver_takes_text(struct driver *driver, const char *text)
{
    uint32_t head, written;
    return driver_take(driver, &head, &written) && head == 0 && written == strlen(text) &&
           memcmp(memory_span(driver->memory, DRIVER_BUFFERS + echo_offset, echo_bytes), text, written) == 0;
}
