// SPDX-License-Identifier: Apache-2.0
/* Open files and folders of the guest.
 *
 * A handle number is a place in a table and the generation of that place, so that a number which was released means
 * nothing any more even when its place is in use again:
 *
 *     63        32 31         0
 *     generation   place
 *
 *     free ──reserve──> reserved ──fill──> open ──release──> released ──last unpin──> free, the next generation
 *                           └─cancel─> free
 *
 * Invariants: (1) a place is used again only when nobody works with what stood there. (2) a number is never given out
 * twice, until 2^32 generations of one place have passed. (3) the table does not shrink before the device ends: it is
 * bounded, and generations must survive a session.
 *
 * Trust: numbers come from a hostile guest.
 */
#include "device/fs/handles.h"

#include "base/alloc.h"
#include "base/limits.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>

enum { no_place = UINT32_MAX };
enum place_state { PLACE_FREE, PLACE_RESERVED, PLACE_OPEN, PLACE_RELEASED };

struct place {
    struct handle handle;
    uint32_t generation;
    uint32_t pins;
    uint32_t next_free;
    enum place_state state;
};

struct handles {
    pthread_mutex_t lock;
    struct place *places; /* owned */
    size_t count, capacity;
    size_t used;
    uint32_t first_free;
};

int handles_new(struct handles **ret_handles)
{
    struct handles *handles = alloc_zero(sizeof(*handles));
    if (handles == NULL)
        return -ENOMEM;
    pthread_mutex_init(&handles->lock, NULL);
    handles->first_free = (uint32_t)no_place;
    *ret_handles = handles;
    return 0;
}

struct handles *handles_free(struct handles *handles)
{
    if (handles == NULL)
        return NULL;
    pthread_mutex_destroy(&handles->lock);
    free(handles->places);
    free(handles);
    return NULL;
}

static uint64_t number_of(const struct handles *handles, const struct place *place)
{
    return (uint64_t)place->generation << 32 | (uint64_t)(place - handles->places);
}

/* The place of a number that is valid, or NULL. */
static struct place *find_place(const struct handles *handles, uint64_t number)
{
    size_t index = (uint32_t)number;
    if (index >= handles->count)
        return NULL;
    struct place *place = &handles->places[index];
    return place->state != PLACE_FREE && place->generation == number >> 32 ? place : NULL;
}

static void free_place(struct handles *handles, struct place *place)
{
    uint32_t generation = place->generation + 1;
    *place = (struct place){.generation = generation, .next_free = handles->first_free};
    handles->first_free = (uint32_t)(place - handles->places);
    handles->used--;
}

static int take_place(struct handles *handles, struct place **ret_place)
{
    if (handles->first_free != (uint32_t)no_place) {
        *ret_place = &handles->places[handles->first_free];
        handles->first_free = (*ret_place)->next_free;
    } else {
        int result = alloc_grow((void **)&handles->places, handles->count, &handles->capacity, sizeof(struct place),
                                LIMIT_FS_OPEN_HANDLES);
        if (result < 0)
            return result == -E2BIG ? -ENFILE : result;
        *ret_place = &handles->places[handles->count++];
    }
    handles->used++;
    return 0;
}

int handles_reserve(struct handles *handles, uint64_t *ret_number)
{
    struct place *place = NULL;
    pthread_mutex_lock(&handles->lock);
    int result = take_place(handles, &place);
    if (result == 0) {
        place->state = PLACE_RESERVED;
        *ret_number = number_of(handles, place);
    }
    pthread_mutex_unlock(&handles->lock);
    return result;
}

void handles_fill(struct handles *handles, uint64_t number, const struct handle *handle)
{
    pthread_mutex_lock(&handles->lock);
    struct place *place = find_place(handles, number);
    assert(place != NULL && place->state == PLACE_RESERVED);
    place->state = PLACE_OPEN;
    place->handle = *handle;
    pthread_mutex_unlock(&handles->lock);
}

void handles_cancel(struct handles *handles, uint64_t number)
{
    pthread_mutex_lock(&handles->lock);
    struct place *place = find_place(handles, number);
    assert(place != NULL && place->state == PLACE_RESERVED);
    free_place(handles, place);
    pthread_mutex_unlock(&handles->lock);
}

int handles_pin(struct handles *handles, uint64_t number, enum handle_kind kind, uint64_t node,
                struct handle *ret_handle)
{
    int result = -EBADF;
    pthread_mutex_lock(&handles->lock);
    struct place *place = find_place(handles, number);
    if (place != NULL && place->state == PLACE_OPEN && place->handle.kind == kind && place->handle.node == node) {
        place->pins++;
        *ret_handle = place->handle;
        result = 0;
    }
    pthread_mutex_unlock(&handles->lock);
    return result;
}

bool handles_unpin(struct handles *handles, uint64_t number)
{
    pthread_mutex_lock(&handles->lock);
    struct place *place = find_place(handles, number);
    assert(place != NULL && place->pins > 0);
    place->pins--;
    bool is_last = place->pins == 0 && place->state == PLACE_RELEASED;
    if (is_last)
        free_place(handles, place);
    pthread_mutex_unlock(&handles->lock);
    return is_last;
}

int handles_release(struct handles *handles, uint64_t number)
{
    pthread_mutex_lock(&handles->lock);
    struct place *place = find_place(handles, number);
    assert(place != NULL && place->pins > 0);
    int result = place->state == PLACE_OPEN ? 0 : -EBADF;
    place->state = PLACE_RELEASED;
    pthread_mutex_unlock(&handles->lock);
    return result;
}

bool handles_next(const struct handles *handles, size_t *cursor, struct handle *ret_handle)
{
    while (*cursor < handles->count) {
        const struct place *place = &handles->places[(*cursor)++];
        if (place->state == PLACE_FREE)
            continue;
        assert(place->state == PLACE_OPEN && place->pins == 0);
        *ret_handle = place->handle;
        return true;
    }
    return false;
}

void handles_reset(struct handles *handles)
{
    pthread_mutex_lock(&handles->lock);
    for (size_t i = handles->count; i > 0; i--)
        if (handles->places[i - 1].state != PLACE_FREE)
            free_place(handles, &handles->places[i - 1]);
    pthread_mutex_unlock(&handles->lock);
}

size_t handles_count(struct handles *handles)
{
    pthread_mutex_lock(&handles->lock);
    size_t used = handles->used;
    pthread_mutex_unlock(&handles->lock);
    return used;
}
