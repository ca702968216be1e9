// SPDX-License-Identifier: Apache-2.0
/* The nodes that the guest knows.
 *
 * A node appears with its first lookup and goes with its last FORGET. In between, requests and open handles pin it: a
 * node that is forgotten while it is pinned is hidden from the guest at once, but stays with the backend until the last
 * pin is gone. An honest guest causes that, too: RELEASE and FORGET come through different queues.
 *
 *     lookups > 0, pins ≥ 0      known
 *     lookups > 0, is_forgotten  hidden: the last unpin gives the lookups back to the backend
 *     neither                    not in the table
 *
 * The table is open addressing with linear probing in a power of two of slots, never more than three quarters full. A
 * slot that becomes empty is filled from those behind it, so there are no marks of removed ones. Node numbers are the
 * backend's, which the guest cannot choose; they are mixed, as they may be inode numbers or addresses.
 *
 * Invariants: (1) the count of lookups here is never more than the backend's. (2) what a guest gives back is cut to
 * what it has. (3) a node that is pinned is in the table. (4) the root is never hidden.
 *
 * Trust: node numbers and counts of FORGET come from a hostile guest, nodes of known_add from the backend.
 */
#include "device/fs/known.h"

#include "base/alloc.h"
#include "base/limits.h"
#include "vial/backend.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

enum { first_slots = 64 };

struct slot {
    uint64_t node; /* 0: empty */
    uint64_t lookups;
    uint32_t pins : 31;
    uint32_t is_forgotten : 1;
    uint32_t stamp; /* 0: none */
};

struct known {
    pthread_mutex_t lock;
    struct slot *slots; /* owned */
    size_t slot_count;  /* a power of two */
    size_t count;       /* of nodes, the root included */
};

static size_t place_of(const struct known *known, uint64_t node)
{
    node = (node ^ node >> 31) * UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(node ^ node >> 32) & (known->slot_count - 1);
}

/* The node's slot, or the empty one where it would go. */
static struct slot *find_slot(const struct known *known, uint64_t node)
{
    size_t place = place_of(known, node);
    while (known->slots[place].node != 0 && known->slots[place].node != node)
        place = (place + 1) & (known->slot_count - 1);
    return &known->slots[place];
}

static bool is_visible(const struct slot *slot)
{
    return slot->node == VIAL_FS_ROOT_NODE || (slot->lookups > 0 && !slot->is_forgotten);
}

/* Makes sure that one more node fits. */
static int make_room(struct known *known)
{
    if (known->count > LIMIT_FS_KNOWN_NODES)
        return -ENFILE;
    if (known->count + 1 <= known->slot_count / 4 * 3)
        return 0;
    struct known larger = {.slot_count = 2 * known->slot_count};
    larger.slots = alloc_zero(larger.slot_count * sizeof(larger.slots[0]));
    if (larger.slots == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < known->slot_count; i++)
        if (known->slots[i].node != 0)
            *find_slot(&larger, known->slots[i].node) = known->slots[i];
    free(known->slots);
    known->slots = larger.slots;
    known->slot_count = larger.slot_count;
    return 0;
}

/* Empties the slot; whoever was pushed behind it by a collision moves up. */
static void remove_slot(struct known *known, struct slot *slot)
{
    size_t mask = known->slot_count - 1;
    size_t hole = (size_t)(slot - known->slots);
    for (size_t next = (hole + 1) & mask; known->slots[next].node != 0; next = (next + 1) & mask) {
        size_t home = place_of(known, known->slots[next].node);
        if (((next - home) & mask) < ((next - hole) & mask))
            continue; /* its own place lies behind the hole */
        known->slots[hole] = known->slots[next];
        hole = next;
    }
    known->slots[hole] = (struct slot){0};
    known->count--;
}

int known_new(struct known **ret_known)
{
    auto_free struct known *known = alloc_zero(sizeof(*known));
    if (known == NULL)
        return -ENOMEM;
    known->slot_count = first_slots;
    known->slots = alloc_zero(known->slot_count * sizeof(known->slots[0]));
    if (known->slots == NULL)
        return -ENOMEM;
    pthread_mutex_init(&known->lock, NULL);
    *find_slot(known, VIAL_FS_ROOT_NODE) = (struct slot){.node = VIAL_FS_ROOT_NODE};
    known->count = 1;
    *ret_known = steal_ptr(known);
    return 0;
}

struct known *known_free(struct known *known)
{
    if (known == NULL)
        return NULL;
    pthread_mutex_destroy(&known->lock);
    free(known->slots);
    free(known);
    return NULL;
}

int known_add(struct known *known, uint64_t node, bool pins, uint64_t *ret_forget)
{
    int result = 0;
    assert(node != 0);
    *ret_forget = 0;
    pthread_mutex_lock(&known->lock);
    struct slot *slot = find_slot(known, node);
    if (slot->node == 0) {
        result = make_room(known);
        slot = find_slot(known, node); /* the table may be another one now */
        known->count += result == 0;
    }
    if (result == 0) {
        if (slot->is_forgotten) { /* it lives again: what its former life owes can be paid now */
            *ret_forget = slot->lookups;
            slot->lookups = 0;
            slot->is_forgotten = 0;
        }
        slot->node = node;
        slot->lookups++;
        slot->pins += pins;
    }
    pthread_mutex_unlock(&known->lock);
    return result;
}

bool known_pin(struct known *known, uint64_t node)
{
    pthread_mutex_lock(&known->lock);
    struct slot *slot = find_slot(known, node);
    bool is_known = node != 0 && slot->node == node && is_visible(slot);
    if (is_known)
        slot->pins++;
    pthread_mutex_unlock(&known->lock);
    return is_known;
}

void known_pin_again(struct known *known, uint64_t node)
{
    pthread_mutex_lock(&known->lock);
    struct slot *slot = find_slot(known, node);
    assert(slot->node == node && slot->pins > 0);
    slot->pins++;
    pthread_mutex_unlock(&known->lock);
}

uint64_t known_unpin(struct known *known, uint64_t node)
{
    uint64_t lookups = 0;
    pthread_mutex_lock(&known->lock);
    struct slot *slot = find_slot(known, node);
    assert(slot->node == node && slot->pins > 0);
    slot->pins--;
    if (slot->pins == 0 && slot->is_forgotten) {
        lookups = slot->lookups;
        remove_slot(known, slot);
    }
    pthread_mutex_unlock(&known->lock);
    return lookups;
}

/* All lookups of a node are taken back: how many the backend has to forget now. */
static uint64_t forget_all(struct known *known, struct slot *slot)
{
    uint64_t lookups = slot->lookups;
    if (slot->node == VIAL_FS_ROOT_NODE) {
        slot->lookups = 0;
    } else if (slot->pins > 0) {
        slot->is_forgotten = 1;
        slot->stamp = 0;
        return 0;
    } else {
        remove_slot(known, slot);
    }
    return lookups;
}

uint64_t known_forget(struct known *known, uint64_t node, uint64_t lookups)
{
    pthread_mutex_lock(&known->lock);
    struct slot *slot = find_slot(known, node);
    if (node == 0 || slot->node != node || !is_visible(slot)) {
        lookups = 0;
    } else if (lookups >= slot->lookups) {
        lookups = forget_all(known, slot);
    } else {
        slot->lookups -= lookups;
    }
    pthread_mutex_unlock(&known->lock);
    return lookups;
}

bool known_restamp(struct known *known, uint64_t node, uint32_t stamp)
{
    bool is_same = false;
    stamp |= 1; /* 0 is none */
    pthread_mutex_lock(&known->lock);
    struct slot *slot = find_slot(known, node);
    if (slot->node == node && node != 0) {
        is_same = slot->stamp == stamp;
        slot->stamp = stamp;
    }
    pthread_mutex_unlock(&known->lock);
    return is_same;
}

bool known_next(const struct known *known, size_t *cursor, uint64_t *ret_node, uint64_t *ret_lookups)
{
    while (*cursor < known->slot_count) {
        const struct slot *slot = &known->slots[(*cursor)++];
        if (slot->node == 0 || slot->lookups == 0)
            continue;
        assert(slot->pins == 0);
        *ret_node = slot->node;
        *ret_lookups = slot->lookups;
        return true;
    }
    return false;
}

void known_reset(struct known *known)
{
    struct slot *fewer = realloc(known->slots, first_slots * sizeof(known->slots[0]));
    pthread_mutex_lock(&known->lock);
    if (fewer != NULL) { /* else it stays as large as it is */
        known->slots = fewer;
        known->slot_count = first_slots;
    }
    memset(known->slots, 0, known->slot_count * sizeof(known->slots[0]));
    *find_slot(known, VIAL_FS_ROOT_NODE) = (struct slot){.node = VIAL_FS_ROOT_NODE};
    known->count = 1;
    pthread_mutex_unlock(&known->lock);
}

size_t known_count(struct known *known)
{
    pthread_mutex_lock(&known->lock);
    size_t count = known->count - 1;
    pthread_mutex_unlock(&known->lock);
    return count;
}
