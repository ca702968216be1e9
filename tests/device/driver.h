// SPDX-License-Identifier: Apache-2.0
/* A virtio driver for tests: what a guest would do with a queue, and everything it should not do.
 *
 * The rings lie at fixed guest addresses of a machine's RAM; the test writes any field of them directly.
 */
#ifndef DRIVER_H
#define DRIVER_H

#include "mem/memory.h"
#include "virtio/queue.h"

enum {
    DRIVER_NEXT = 1,
    DRIVER_WRITE = 2,
    DRIVER_INDIRECT = 4,
};

/* Guest addresses of what the driver uses. */
#define DRIVER_DESCRIPTORS UINT64_C(0x10000)
#define DRIVER_AVAILABLE UINT64_C(0x20000)
#define DRIVER_USED UINT64_C(0x30000)
#define DRIVER_TABLE UINT64_C(0x40000)
#define DRIVER_BUFFERS UINT64_C(0x100000)

struct driver {
    struct memory *memory; /* owned */
    uint16_t entries;
    uint16_t next_available;
    uint16_t last_used;
};

/* Memory of 2 MiB with empty rings. */
void driver_init(struct driver *driver, uint16_t entries);
void driver_release(struct driver *driver);
struct queue_layout driver_layout(const struct driver *driver);

/* Writes one descriptor of a table at a guest address. */
void driver_describe(struct driver *driver, uint64_t table, uint16_t index, uint64_t address, uint32_t length,
                     uint16_t flags, uint16_t next);

/* Makes a chain available, or only puts it into the ring. */
void driver_offer(struct driver *driver, uint16_t head);
void driver_set_available(struct driver *driver, uint16_t index);

void driver_put_16(struct driver *driver, uint64_t address, uint16_t value);
uint16_t driver_get_16(const struct driver *driver, uint64_t address);
uint32_t driver_get_32(const struct driver *driver, uint64_t address);

/* The next entry of the used ring; false when there is none. */
bool driver_take(struct driver *driver, uint32_t *ret_head, uint32_t *ret_written);

/* For a device that echoes: a chain of descriptors 0, with the text, and 1, with room for it; and whether the next used
 * entry is that chain with the text in it. */
void driver_offer_text(struct driver *driver, const char *text);
bool driver_takes_text(struct driver *driver, const char *text);

#endif
