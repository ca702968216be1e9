// SPDX-License-Identifier: Apache-2.0
/* The rings of a vhost-user front end: when they run, and in which memory.
 *
 * A ring runs while all that it needs is there, whatever came last:
 *
 *     SET_FEATURES, VRING_NUM, then ADDR (with memory), BASE, ENABLE, and a KICK (or kicks in messages)
 *     GET_VRING_BASE takes base and kick away, ENABLE 0 the enabling; what else was set stays
 *
 * ENABLE is needed only where the front end took PROTOCOL_FEATURES; rings of another are enabled unless it says that
 * they are not (QEMU before 7.2 sends ENABLE without having taken the feature). The place of a ring is checked when it
 * is given, and against each new memory table, so that a ring which has all it needs can be started.
 *
 * The device is another matter than its rings. It begins with the first ring that runs; pausing rings keeps its state
 * (a guest that sleeps, a front end that moves memory). It is reset, as by a write of 0 to the status register, by
 * RESET_DEVICE, by status 0, at the connection's end, and by SET_FEATURES while no ring runs: user-mode Linux sends
 * nothing else when a driver is unbound and bound again.
 *
 * A ring that is taken up again begins at its used index, which is what GET_VRING_BASE says. Devices finish in order,
 * or all that they have (virtio/device.h, queue_paused), so no request is lost or served twice. Where a front end keeps
 * what was in flight, that decides (vhost_inflight.c): rings begin with it.
 *
 * Invariants: (1) a ring that has its place has it in the current memory. (2) between two messages a ring runs exactly
 * if can_run says so. (3) memory is unmapped only when no ring runs in it.
 *
 * Trust: everything a ring is made of comes from a hostile front end, and was checked by vhost_ring_layout.
 */
#include "virtio/vhost_server.h"

#include "virtio/inflight.h"

#include <assert.h>
#include <errno.h>

bool vhost_has_protocol(const struct vhost_user *server, uint64_t feature)
{
    return (server->protocol & feature) == feature;
}

void vhost_signal_peer(const struct vhost_user *server, const struct vhost_signal *signal)
{
    if (signal->fd >= 0 && !atomic_load(&server->is_abandoned))
        vhost_signal_send(signal);
}

static unsigned index_of(const struct vhost_user *server, const struct vhost_ring *ring)
{
    return (unsigned)(ring - server->rings);
}

/* ---- what a ring needs ---- */

static bool is_enabled(const struct vhost_user *server, const struct vhost_ring *ring)
{
    return ring->is_enabled || (!ring->is_disabled && (server->features & VHOST_F_PROTOCOL_FEATURES) == 0);
}

bool vhost_ring_is_set_up(const struct vhost_user *server, const struct vhost_ring *ring)
{
    return server->has_features && ring->has_size && ring->has_place && ring->has_base;
}

static bool can_run(const struct vhost_user *server, const struct vhost_ring *ring)
{
    return vhost_ring_is_set_up(server, ring) && is_enabled(server, ring) &&
           (ring->has_kick || vhost_has_protocol(server, VHOST_USER_F_INBAND));
}

bool vhost_is_any_ring_running(const struct vhost_user *server)
{
    for (unsigned i = 0; i < server->ring_count; i++)
        if (server->rings[i].is_running)
            return true;
    return false;
}

int vhost_ring_layout(const struct vhost_user *server, const struct vhost_memory *memory, const struct vhost_ring *ring,
                      const struct vhost_place *place, struct queue_layout *ret_layout)
{
    struct queue_layout layout = {
        .entries = ring->entries,
        .next_available = ring->base,
        .has_event_index = (server->features & VIRTIO_F_EVENT_IDX) != 0,
        .has_indirect = (server->features & VIRTIO_F_INDIRECT_DESC) != 0,
        .inflight = vhost_inflight_region(&server->inflight, index_of(server, ring), ring->entries),
    };
    int result = vhost_memory_translate(memory, place->descriptors, &layout.descriptors);
    if (result == 0)
        result = vhost_memory_translate(memory, place->available, &layout.available);
    if (result == 0)
        result = vhost_memory_translate(memory, place->used, &layout.used);
    if (result == 0)
        result = virtio_device_check_queue(server->device, index_of(server, ring), memory->memory, &layout);
    if (result == 0)
        *ret_layout = layout;
    return result;
}

/* ---- starting and pausing ---- */

static void pause_ring(struct vhost_user *server, struct vhost_ring *ring)
{
    unsigned index = index_of(server, ring);
    uint8_t *inflight = vhost_inflight_region(&server->inflight, index, ring->entries);
    ring->base = virtio_device_pause_queue(server->device, index);
    ring->is_running = false;
    /* The device has pushed all it had, and where the driver broke the ring, nobody waits for it. */
    if (inflight != NULL)
        inflight_forget(inflight, ring->entries);
}

static void start_ring(struct vhost_user *server, struct vhost_ring *ring)
{
    struct queue_layout layout;
    int result = vhost_ring_layout(server, &server->memory, ring, &ring->place, &layout);
    if (result == 0 && !server->has_begun) {
        server->has_begun = true;
        virtio_device_begin(server->device, server->memory.memory, server->features & ~VHOST_F_PROTOCOL_FEATURES);
    }
    if (result == 0)
        result = virtio_device_start_queue(server->device, index_of(server, ring), &layout);
    assert(result == 0); /* invariant 1 */
    ring->is_running = result == 0;
}

void vhost_ring_update(struct vhost_user *server, struct vhost_ring *ring)
{
    bool runs = can_run(server, ring);
    if (ring->is_running && !runs)
        pause_ring(server, ring);
    else if (!ring->is_running && runs)
        start_ring(server, ring);
}

void vhost_rings_update(struct vhost_user *server)
{
    for (unsigned i = 0; i < server->ring_count; i++)
        vhost_ring_update(server, &server->rings[i]);
}

void vhost_ring_stop(struct vhost_user *server, struct vhost_ring *ring)
{
    ring->has_base = ring->has_kick = false;
    vhost_ring_update(server, ring);
    virtio_device_watch_kick(server->device, index_of(server, ring), -1);
}

/* ---- other memory ---- */

static bool lies_in(const struct vhost_user *server, const struct vhost_ring *ring, const struct vhost_memory *memory)
{
    struct queue_layout layout;
    return ring->has_place && vhost_ring_layout(server, memory, ring, &ring->place, &layout) == 0;
}

int vhost_rings_move(struct vhost_user *server, const struct vhost_memory *memory)
{
    struct vhost_memory before = server->memory;
    for (unsigned i = 0; i < server->ring_count; i++)
        if (server->rings[i].is_running && !lies_in(server, &server->rings[i], memory))
            return -EFAULT;
    for (unsigned i = 0; i < server->ring_count; i++)
        if (server->rings[i].is_running)
            pause_ring(server, &server->rings[i]);
    server->memory = *memory;
    if (server->has_begun)
        virtio_device_move(server->device, memory->memory);
    for (unsigned i = 0; i < server->ring_count; i++)
        server->rings[i].has_place = lies_in(server, &server->rings[i], memory);
    vhost_rings_update(server);
    vhost_memory_close(&before);
    return 0;
}

/* ---- the end ---- */

static void forget_ring(struct vhost_user *server, struct vhost_ring *ring)
{
    virtio_device_watch_kick(server->device, index_of(server, ring), -1);
    ring->has_size = ring->has_place = ring->has_base = ring->has_kick = false;
    ring->is_enabled = ring->is_disabled = false;
    ring->base = 0;
}

void vhost_reset_device(struct vhost_user *server)
{
    uint8_t byte;
    if (!server->has_begun)
        return;
    virtio_device_stop(server->device);
    server->has_begun = server->needs_reset = false;
    for (unsigned i = 0; i < server->ring_count; i++)
        server->rings[i].is_running = false;
    /* A driver reads the configuration again after a reset, but a front end may go on with its copy of it: it has to be
     * told of a change that happens before the device begins again. */
    if (server->was_config_read)
        virtio_device_read_config(server->device, 0, &byte, sizeof(byte));
}

void vhost_reset(struct vhost_user *server)
{
    vhost_reset_device(server);
    server->status = 0;
    for (unsigned i = 0; i < server->ring_count; i++)
        forget_ring(server, &server->rings[i]);
}
