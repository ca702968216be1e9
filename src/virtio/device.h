// SPDX-License-Identifier: Apache-2.0
/* A virtio device, whatever carries it to the driver.
 *
 * Three parties meet here. The transport (virtio-mmio, vhost-user) knows registers or messages and sets the device up.
 * The device (console, rng, …) knows what its queues mean. Between them stands this file: it owns the queues, the
 * kicks, the configuration space, and the thread on which the device runs.
 *
 * A device is a table of functions and a state. It is made whole, attached to its transport, and then launched.
 */
#ifndef VIRTIO_DEVICE_H
#define VIRTIO_DEVICE_H

#include "base/loop.h"
#include "base/thread.h"
#include "virtio/queue.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct virtio_device;

/* Bits of the device status register (virtio 1.2, 2.1). */
enum virtio_status {
    VIRTIO_ACKNOWLEDGE = 1,
    VIRTIO_DRIVER = 2,
    VIRTIO_DRIVER_OK = 4,
    VIRTIO_FEATURES_OK = 8,
    VIRTIO_NEEDS_RESET = 64,
    VIRTIO_FAILED = 128,
};

/* Features that belong to no device type (virtio 1.2, 6). */
#define VIRTIO_F_INDIRECT_DESC (UINT64_C(1) << 28)
#define VIRTIO_F_EVENT_IDX (UINT64_C(1) << 29)
#define VIRTIO_F_VERSION_1 (UINT64_C(1) << 32)

/* Device types (virtio 1.2, 5). The last one is not of the standard. */
enum virtio_type {
    VIRTIO_TYPE_NET = 1,
    VIRTIO_TYPE_BLOCK = 2,
    VIRTIO_TYPE_CONSOLE = 3,
    VIRTIO_TYPE_RNG = 4,
    VIRTIO_TYPE_BALLOON = 5,
    VIRTIO_TYPE_VSOCK = 19,
    VIRTIO_TYPE_FS = 26,
    VIRTIO_TYPE_METRICS = 0x4d53,
};

enum {
    VIRTIO_MOST_QUEUES = 130, /* a console with 64 ports */
    VIRTIO_MOST_CONFIG_BYTES = 128,
    VIRTIO_MOST_WINDOWS = 2,
};

/* What a device type does. Every function but free runs on the device's own thread; those that are NULL do nothing. */
struct virtio_device_ops {
    enum virtio_type type;
    const char *name; /* for the log and the thread */

    /* The driver is ready: `features` were agreed on. The queues that it set up are started, or follow one by one. */
    void (*start)(void *state, uint64_t features);

    /* There may be something in this queue: take chains with virtio_pop until it says that there are no more. Called
     * only between start and stop, and only for a queue that the driver set up. */
    void (*serve)(void *state, unsigned queue);

    /* This queue will not be served for a while, and guest memory may move meanwhile: push its chains, or forget them,
     * with all that points into them. A chain that is not pushed comes again when the queue goes on; so chains of a
     * queue have to be pushed in the order in which they were taken. A device that is_out_of_order pushes all. */
    void (*queue_paused)(void *state, unsigned queue);

    /* The driver resets the device, or the machine ends: forget the guest's requests. They may be pushed no more once
     * this returns, and nothing may touch guest memory on their behalf. */
    void (*stop)(void *state);

    /* The driver wrote these bytes of the configuration space. */
    void (*config_written)(void *state, uint32_t offset, uint32_t length);

    /* The device is gone and so is its thread. */
    void (*free)(void *state);
};

struct virtio_window { /* shared memory that the driver can map (virtio 1.2, 2.10) */
    uint64_t guest, size_bytes;
    uint8_t id;
};

struct virtio_device_options {
    const struct virtio_device_ops *ops;
    void *state;                 /* owned by the device from a successful virtio_device_new on: ops->free */
    uint64_t features;           /* of the type; VERSION_1, EVENT_IDX and INDIRECT_DESC are added */
    const uint16_t *queue_sizes; /* the greatest size of each, a power of two */
    unsigned queue_count;
    uint32_t config_bytes;
    uint32_t writable_offset, writable_bytes; /* the part of the configuration space that the driver may write */
    enum thread_kind thread;                  /* what its thread needs of the host; THREAD_ANY: as its type has it */
    bool is_out_of_order;                     /* chains are pushed as they end, and all of them in queue_paused */
};

int virtio_device_new(const struct virtio_device_options *options, struct virtio_device **ret_device);

/* Ends the thread, stops the queues, frees everything. Accepts NULL and returns NULL. */
struct virtio_device *virtio_device_free(struct virtio_device *device);

/* ---- for the transport ---- */

/* Called on the device's thread. */
struct virtio_transport_ops {
    void (*call)(void *transport, unsigned queue); /* the driver wants to hear of used buffers */
    void (*config_changed)(void *transport);       /* the configuration space has changed */
    void (*broken)(void *transport);               /* the driver broke a rule: DEVICE_NEEDS_RESET */
};

void virtio_device_attach(struct virtio_device *device, const struct virtio_transport_ops *ops, void *transport);

/* Starts the device's thread. Without it (in tests, or with a loop of the caller's own) every call below that needs the
 * device's thread does its work at once, on the caller's, and virtio_device_turn serves the kicks. */
int virtio_device_launch(struct virtio_device *device);
void virtio_device_turn(struct virtio_device *device);

enum virtio_type virtio_device_type(const struct virtio_device *device);
bool virtio_device_is_out_of_order(const struct virtio_device *device);
const char *virtio_device_name(const struct virtio_device *device);
uint64_t virtio_device_features(const struct virtio_device *device);
unsigned virtio_device_queue_count(const struct virtio_device *device);
uint16_t virtio_device_queue_size(const struct virtio_device *device, unsigned queue); /* 0 beyond the last */

/* An eventfd for each queue; writing to it, in whatever way, is a kick. Borrowed. */
int virtio_device_kick_fd(const struct virtio_device *device, unsigned queue);

/* The driver has said DRIVER_OK. `layouts` has one entry for each queue; those with 0 entries were not set up. Returns
 * when the device has begun; a layout that the driver must not give is -EINVAL or -EFAULT, and nothing has begun. */
int virtio_device_start(struct virtio_device *device, const struct memory *memory, uint64_t features,
                        const struct queue_layout layouts[]);

/* Returns when the device has let go of guest memory. Harmless when it was not started. */
void virtio_device_stop(struct virtio_device *device);

/* The same for a transport whose driver sets up its queues one by one. These are called on the device's thread, or
 * before it is launched. */

/* Begins without queues; virtio_device_stop ends it. */
void virtio_device_begin(struct virtio_device *device, const struct memory *memory, uint64_t features);

/* Adds a queue, which is served soon, to a device that has begun: 0, or -EINVAL or -EFAULT as virtio_device_start. */
int virtio_device_start_queue(struct virtio_device *device, unsigned queue, const struct queue_layout *layout);

/* Takes it away again. The device forgets its chains and keeps everything else. Returns where it has to go on: its used
 * index, so that nothing is lost that was not pushed. */
uint16_t virtio_device_pause_queue(struct virtio_device *device, unsigned queue);

/* The driver has kicked a started queue: serves it at once. */
void virtio_device_serve(struct virtio_device *device, unsigned queue);

/* Other memory for a device that has begun and has no queue at the moment. */
void virtio_device_move(struct virtio_device *device, const struct memory *memory);

/* Whether the queue could be started with this layout. */
int virtio_device_check_queue(const struct virtio_device *device, unsigned queue, const struct memory *memory,
                              const struct queue_layout *layout);

/* Another kick for this queue: a descriptor that becomes readable, owned from here on even on failure, in the place of
 * the last one; -1 for none. It is never read, as another's descriptor could block; each write to it is a kick. 0, or
 * the -errno with which epoll refuses it. */
int virtio_device_watch_kick(struct virtio_device *device, unsigned queue, int fd);

/* Lets the driver set up larger queues than the device type asks for, for a transport that cannot tell it how large
 * they may be. Before the device is launched. 0 or -ENOMEM. */
int virtio_device_grow_queues(struct virtio_device *device, uint16_t most_entries);

/* The configuration space, from any thread. Reads beyond its end are zeros; writes outside its writable part are
 * ignored: false. */
void virtio_device_read_config(struct virtio_device *device, uint32_t offset, void *bytes, uint32_t length);
bool virtio_device_write_config(struct virtio_device *device, uint32_t offset, const void *bytes, uint32_t length);
uint32_t virtio_device_config_generation(struct virtio_device *device);

/* Windows are given to the device while the machine is put together. */
void virtio_device_add_window(struct virtio_device *device, const struct virtio_window *window);
const struct virtio_window *virtio_device_window(const struct virtio_device *device, uint8_t id);

/* The driver broke a rule of the transport: counts it and logs it, but not each time. From any thread. */
void virtio_device_blame(struct virtio_device *device, const char *why);

/* How often the driver broke a rule. From any thread. */
uint64_t virtio_device_faults(const struct virtio_device *device);

/* ---- for whoever controls the machine ---- */

/* Runs the function on the device's thread and returns when it has. On that thread itself it is an ordinary call. */
typedef void (*virtio_function)(void *state, void *argument);
void virtio_device_run(struct virtio_device *device, virtio_function function, void *argument);

/* ---- for the device, on its own thread ---- */

void *virtio_device_state(const struct virtio_device *device);
struct loop *virtio_device_loop(const struct virtio_device *device);
bool virtio_device_is_started(const struct virtio_device *device);

/* The guest's memory, between start and stop. It may be another one after queue_paused. */
const struct memory *virtio_device_memory(const struct virtio_device *device);

/* Whether the driver set up this queue and the device may use it now. */
bool virtio_is_ready(const struct virtio_device *device, unsigned queue);

/* How many places the driver gave a queue that is ready: so many chains there can be at a time. */
uint16_t virtio_ring_entries(const struct virtio_device *device, unsigned queue);

/* Takes the next chain. When there is none, kicks are asked for again; after a broken ring the driver is told. So that
 * no driver can keep a device from stopping, a queue gives no more chains than it has places between two calls of
 * serve, whoever takes them: then this says false, too, and serve is called soon. */
bool virtio_pop(struct virtio_device *device, unsigned queue, struct queue_chain *ret_chain);

/* Puts back the chain popped last: what it waits for is not there. Call serve again, or virtio_kick, when it is. */
void virtio_unpop(struct virtio_device *device, unsigned queue);

void virtio_push(struct virtio_device *device, unsigned queue, uint16_t head, uint32_t written_bytes);

/* Tells the driver of what was pushed, if it wants to know. At the end of a turn, not for each chain. */
void virtio_call(struct virtio_device *device, unsigned queue);

/* Has serve called for this queue soon, as after a kick. */
void virtio_kick(struct virtio_device *device, unsigned queue);

/* The driver broke a rule of the device type: it gets DEVICE_NEEDS_RESET, and its queues are left alone. */
void virtio_break(struct virtio_device *device, const char *why);

/* Changes the configuration space and tells the driver: at once, or when it is ready, if it has read the old one. */
void virtio_set_config(struct virtio_device *device, uint32_t offset, const void *bytes, uint32_t length);

/* Copies between a chain's spans and memory of ours, from `offset` on. Returns how much there was. */
size_t virtio_read_spans(const struct iovec *spans, size_t count, size_t offset, void *bytes, size_t length);
size_t virtio_write_spans(const struct iovec *spans, size_t count, size_t offset, const void *bytes, size_t length);

#endif
