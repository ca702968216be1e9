// SPDX-License-Identifier: Apache-2.0
/* Files that the server keeps open for a guest that opens none itself.
 *
 * A guest without opens reads by node (session.c), so it is the server that opens a file at its first read, and then
 * keeps it open for the next ones. The table is small and looked through from end to end: that costs less than any
 * read. When it is full, the file goes that was not used for longest.
 *
 *     free ──add──> kept ──drop, while pinned──> leaving ──last unpin──> free
 *                     └─drop or take, while not pinned─────────────────> free
 *
 * Nothing is opened or closed here: the caller does that, without our lock. So two readers may open a file at a time,
 * and the slower one hears that its own has to be closed.
 *
 * Invariants: (1) a node has one file at most that is not leaving. (2) a file that is pinned keeps its place, and is
 * not given to anybody to close. (3) each file that was added is given to somebody to close exactly once.
 *
 * Trust: nodes are pinned in the books (known.c), so a hostile guest names only those that it knows.
 */
#include "device/fs/kept.h"

#include "base/alloc.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>

static const size_t nowhere = SIZE_MAX;

struct place {
    uint64_t node; /* 0: free */
    uint64_t handle;
    uint64_t used; /* the turn of its last use */
    uint32_t pins;
    bool is_leaving;
};

struct kept {
    pthread_mutex_t lock;
    uint64_t turn;
    size_t count;
    struct place places[];
};

int kept_new(size_t most, struct kept **ret_kept)
{
    struct kept *kept = alloc_zero(sizeof(*kept) + most * sizeof(kept->places[0]));
    if (kept == NULL)
        return -ENOMEM;
    pthread_mutex_init(&kept->lock, NULL);
    kept->count = most;
    *ret_kept = kept;
    return 0;
}

struct kept *kept_free(struct kept *kept)
{
    if (kept == NULL)
        return NULL;
    pthread_mutex_destroy(&kept->lock);
    free(kept);
    return NULL;
}

static struct kept_file file_at(const struct kept *kept, const struct place *place)
{
    return (struct kept_file){place->node, place->handle, (size_t)(place - kept->places)};
}

static struct place *find(struct kept *kept, uint64_t node)
{
    for (size_t i = 0; i < kept->count; i++)
        if (kept->places[i].node == node && !kept->places[i].is_leaving)
            return &kept->places[i];
    return NULL;
}

static struct kept_file pin(struct kept *kept, struct place *place)
{
    place->pins++;
    place->used = ++kept->turn;
    return file_at(kept, place);
}

/* A free place, else that of the file which was not used for longest: NULL when all are pinned. */
static struct place *find_room(struct kept *kept)
{
    struct place *best = NULL;
    for (size_t i = 0; i < kept->count; i++) {
        struct place *place = &kept->places[i];
        if (place->node == 0)
            return place;
        if (place->pins == 0 && (best == NULL || place->used < best->used))
            best = place;
    }
    return best;
}

bool kept_pin(struct kept *kept, uint64_t node, struct kept_file *ret_file)
{
    pthread_mutex_lock(&kept->lock);
    struct place *place = find(kept, node);
    if (place != NULL)
        *ret_file = pin(kept, place);
    pthread_mutex_unlock(&kept->lock);
    return place != NULL;
}

bool kept_add(struct kept *kept, uint64_t node, uint64_t handle, struct kept_file *ret_file,
              struct kept_file *ret_closed)
{
    bool has_closed = false;
    assert(node != 0);
    *ret_closed = (struct kept_file){node, handle, nowhere};
    pthread_mutex_lock(&kept->lock);
    struct place *place = find(kept, node);
    if (place != NULL) {
        has_closed = true;
        *ret_file = pin(kept, place);
    } else if ((place = find_room(kept)) != NULL) {
        has_closed = place->node != 0;
        if (has_closed)
            *ret_closed = file_at(kept, place);
        *place = (struct place){.node = node, .handle = handle};
        *ret_file = pin(kept, place);
    } else {
        *ret_file = *ret_closed; /* for this one use */
    }
    pthread_mutex_unlock(&kept->lock);
    return has_closed;
}

bool kept_unpin(struct kept *kept, const struct kept_file *file)
{
    if (file->place == nowhere)
        return true;
    pthread_mutex_lock(&kept->lock);
    struct place *place = &kept->places[file->place];
    assert(place->node == file->node && place->pins > 0);
    place->pins--;
    bool is_last = place->is_leaving && place->pins == 0;
    if (is_last)
        *place = (struct place){0};
    pthread_mutex_unlock(&kept->lock);
    return is_last;
}

bool kept_drop(struct kept *kept, uint64_t node, struct kept_file *ret_closed)
{
    bool has_closed = false;
    pthread_mutex_lock(&kept->lock);
    struct place *place = node == 0 ? NULL : find(kept, node);
    if (place != NULL) {
        has_closed = place->pins == 0;
        *ret_closed = file_at(kept, place);
        place->is_leaving = true;
        if (has_closed)
            *place = (struct place){0};
    }
    pthread_mutex_unlock(&kept->lock);
    return has_closed;
}

bool kept_take(struct kept *kept, struct kept_file *ret_closed)
{
    struct place *place = NULL;
    pthread_mutex_lock(&kept->lock);
    for (size_t i = 0; i < kept->count && place == NULL; i++)
        if (kept->places[i].node != 0 && kept->places[i].pins == 0)
            place = &kept->places[i];
    if (place != NULL) {
        *ret_closed = file_at(kept, place);
        *place = (struct place){0};
    }
    pthread_mutex_unlock(&kept->lock);
    return place != NULL;
}
