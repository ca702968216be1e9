// SPDX-License-Identifier: Apache-2.0
/* A driver of a network device for tests: see net_driver.h. */
#include "net_driver.h"

#include <string.h>

#define SENT_AT UINT64_C(0x200000)
#define RECEIVED_AT UINT64_C(0x1000000)

static unsigned receive_queue(const struct net_driver *front)
{
    return 2 * front->pair;
}

static unsigned transmit_queue(const struct net_driver *front)
{
    return 2 * front->pair + 1;
}

/* ---- frames ---- */

void net_driver_make_frame(uint8_t *frame, size_t length, unsigned number)
{
    static const uint8_t head[NET_ETHERNET_BYTES] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5};
    for (size_t i = 0; i < length; i++)
        frame[i] = i < sizeof(head) ? head[i] : (uint8_t)((i + number * 7919u) * 2654435761u >> 15);
}

bool net_driver_is_frame(const uint8_t *frame, size_t length, unsigned number)
{
    static uint8_t wanted[NET_DRIVER_LONGEST];
    net_driver_make_frame(wanted, length, number);
    return memcmp(frame, wanted, length) == 0;
}

/* ---- life ---- */

int net_driver_begin(struct net_driver *front, const struct net_options *options)
{
    struct virtio_device *device = NULL;
    *front = (struct net_driver){0};
    int result = net_new(options, &device);
    if (result < 0)
        return result;
    virtio_driver_init(&front->driver, UINT64_C(64) << 20);
    virtio_driver_attach(&front->driver, device);
    return 0;
}

void net_driver_end(struct net_driver *front)
{
    virtio_driver_release(&front->driver);
}

bool net_driver_start(struct net_driver *front, uint64_t features, unsigned queues, uint32_t receive_bytes)
{
    front->receive_bytes = receive_bytes;
    front->sent = 0;
    return virtio_driver_restart(&front->driver, features, queues, NET_DRIVER_ENTRIES);
}

/* ---- to the guest ---- */

static void offer_buffer(struct net_driver *front, uint16_t index)
{
    virtio_driver_describe(&front->driver, receive_queue(front), index,
                           RECEIVED_AT + (uint64_t)index * NET_DRIVER_SLOT_BYTES, front->receive_bytes,
                           VIRTIO_DRIVER_WRITE, 0);
    virtio_driver_offer(&front->driver, receive_queue(front), index);
}

void net_driver_fill(struct net_driver *front, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        offer_buffer(front, (uint16_t)(front->driver.queues[receive_queue(front)].next_available % NET_DRIVER_ENTRIES));
    virtio_driver_kick(&front->driver, receive_queue(front));
}

ssize_t net_driver_receive(struct net_driver *front, struct net_header *ret_header, uint8_t *frame)
{
    static uint8_t whole[NET_DRIVER_LONGEST + sizeof(struct net_header) + NET_DRIVER_SLOT_BYTES];
    struct virtio_driver *driver = &front->driver;
    uint32_t head, written;
    size_t length = 0;
    unsigned left = 1;
    if (!virtio_driver_take(driver, receive_queue(front), &head, &written))
        return -1;
    for (bool is_first = true; left > 0; is_first = false, left--) {
        if ((!is_first && !virtio_driver_take(driver, receive_queue(front), &head, &written)) ||
            written > front->receive_bytes || length + written > sizeof(whole))
            return -2; /* what num_buffers promised is not there */
        memory_read(driver->memory, RECEIVED_AT + (uint64_t)head * NET_DRIVER_SLOT_BYTES, whole + length, written);
        length += written;
        if (is_first) {
            memcpy(ret_header, whole, sizeof(*ret_header));
            left = ret_header->num_buffers;
        }
        offer_buffer(front, (uint16_t)head);
    }
    virtio_driver_kick(driver, receive_queue(front));
    memcpy(frame, whole + sizeof(*ret_header), length - sizeof(*ret_header));
    return (ssize_t)(length - sizeof(*ret_header));
}

/* ---- from the guest ---- */

bool net_driver_offer(struct net_driver *front, const struct net_header *header, const void *frame, size_t length,
                      size_t piece)
{
    struct virtio_driver *driver = &front->driver;
    unsigned slot = driver->queues[transmit_queue(front)].next_available % NET_DRIVER_SLOTS;
    uint64_t address = SENT_AT + (uint64_t)slot * NET_DRIVER_SLOT_BYTES;
    size_t total = sizeof(*header) + length, done = 0;
    if (front->sent == NET_DRIVER_SLOTS)
        return false;
    virtio_driver_put(driver, address, header, sizeof(*header));
    virtio_driver_put(driver, address + sizeof(*header), frame, length);
    for (uint16_t i = 0; i < 4 && done < total; i++) {
        size_t part = piece == 0 || i == 3 || total - done < piece ? total - done : piece;
        uint16_t index = (uint16_t)(4 * slot + i);
        bool is_last = done + part == total;
        virtio_driver_describe(driver, transmit_queue(front), index, address + done, (uint32_t)part,
                               is_last ? 0 : VIRTIO_DRIVER_NEXT, (uint16_t)(index + 1));
        done += part;
    }
    virtio_driver_offer(driver, transmit_queue(front), (uint16_t)(4 * slot));
    front->sent++;
    return true;
}

void net_driver_kick(struct net_driver *front)
{
    virtio_driver_kick(&front->driver, transmit_queue(front));
}

unsigned net_driver_reap(struct net_driver *front)
{
    uint32_t head, written;
    unsigned count = 0;
    while (virtio_driver_take(&front->driver, transmit_queue(front), &head, &written))
        count++;
    front->sent -= count;
    return count;
}

bool net_driver_send(struct net_driver *front, const struct net_header *header, const void *frame, size_t length)
{
    if (!net_driver_offer(front, header, frame, length, 0))
        return false;
    net_driver_kick(front);
    return net_driver_reap(front) == 1;
}

/* ---- what it says ---- */

uint16_t net_driver_status(struct net_driver *front)
{
    uint16_t status = 0;
    virtio_device_read_config(front->driver.device, 6, &status, sizeof(status));
    return status;
}

struct net_stats net_driver_stats(const struct net_driver *front)
{
    struct net_stats stats;
    net_get_stats(front->driver.device, &stats);
    return stats;
}

uint64_t net_driver_offered(const struct net_driver *front)
{
    return virtio_device_features(front->driver.device);
}
