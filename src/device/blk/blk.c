// SPDX-License-Identifier: Apache-2.0
/* A virtio block device over a disk image. (virtio 1.2, 5.2)
 *
 *     queues ──> request.c: what is asked for ──> base/rate.c: is it time? ──> io.c: where are the bytes?
 *                                                                              │             │
 *                      the driver <── push, in any order ──────────────── ring.c        workers.c ──> disk/disk.h
 *
 * One thread serves all queues. It never waits for the disk but while a queue is paused or the device stops. What comes
 * too early for the limits is put back into its queue, so order is kept there, and a timer takes it up again.
 *
 * What the driver is told: sectors of 512 bytes always, since partition tables count in logical blocks; the image's own
 * block or cluster as the best size; a write cache, which it may switch off. Discards and zeros if the image has them.
 *
 *     cache writeback, sync full      a flush ends when the data is on the medium
 *     cache writeback, sync relaxed   the same: Linux has nothing less that would survive a crash of the host
 *     sync none                       no flushes are offered, and none are made
 *     cache unsafe                    flushes are offered, and end at once
 *
 * Invariants: (1) a read-only device changes nothing. (2) after stop and queue_paused no memory of the guest is in use
 * for requests, and the second has pushed them all. (3) the disk is owned from the end of a successful blk_new on.
 *
 * Trust: chains and the cache's switch come from a hostile driver. The disk's size and shape come from an image that
 * somebody else made, and its format has checked it.
 */
#include "device/blk/blk.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "device/blk/io.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

/* (5.2.3) */
#define BLK_F_SIZE_MAX (UINT64_C(1) << 1)
#define BLK_F_SEG_MAX (UINT64_C(1) << 2)
#define BLK_F_RO (UINT64_C(1) << 5)
#define BLK_F_BLK_SIZE (UINT64_C(1) << 6)
#define BLK_F_TOPOLOGY (UINT64_C(1) << 10)
#define BLK_F_MQ (UINT64_C(1) << 12)
#define BLK_F_DISCARD (UINT64_C(1) << 13)
#define BLK_F_WRITE_ZEROES (UINT64_C(1) << 14)

enum { queue_entries = LIMIT_BLK_SEGMENTS + 2 }; /* a header and a status without indirect descriptors */
enum { host_block_bytes = 4096 };

struct config { /* (5.2.4), as far as our features reach */
    uint64_t capacity;
    uint32_t size_max, seg_max;
    uint16_t cylinders;
    uint8_t heads, sectors;
    uint32_t blk_size;
    uint8_t physical_block_exp, alignment_offset;
    uint16_t min_io_size;
    uint32_t opt_io_size;
    uint8_t writeback, unused0;
    uint16_t num_queues;
    uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
    uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap, unused1[3];
};
enum { config_bytes = 60 };
_Static_assert(offsetof(struct config, writeback) == BLK_CONFIG_WRITEBACK, "as in the standard");
_Static_assert(offsetof(struct config, unused1) + 3 == config_bytes, "without secure erase");

/* ---- requests ---- */

static void wait_until(struct blk *blk, uint64_t when_ns)
{
    if (when_ns >= blk->wake_ns)
        return; /* it is asked again then */
    blk->wake_ns = when_ns;
    loop_set_deadline(blk->timer, when_ns);
}

static void handle_timer(void *user, uint32_t what)
{
    struct blk *blk = user;
    (void)what;
    blk->wake_ns = CLOCK_NEVER;
    for (unsigned i = 0; i < blk->queue_count; i++)
        virtio_kick(blk->device, i);
}

/* What counts for a limit of bytes. Zeros do as if they were written: where the image has no better way, they are. A
 * discard writes nothing. */
static uint64_t cost_bytes(const struct blk_request *request)
{
    if (request->type == BLK_WRITE_ZEROES)
        return request->segments[0].length; /* the decoder takes one, of LIMIT_BLK_ZEROES_SECTORS at most */
    return request->type == BLK_READ || request->type == BLK_WRITE ? request->left : 0;
}

/* Whether the limits let it through; if not, when they will. */
static bool is_due(struct blk *blk, const struct blk_request *request)
{
    uint64_t bytes = cost_bytes(request);
    if (!rate_has_limits(&blk->rate) || request->type == BLK_GET_ID)
        return true;
    uint64_t when_ns = rate_take(&blk->rate, bytes, 1, clock_now_ns());
    if (when_ns == CLOCK_NEVER)
        return true;
    wait_until(blk, when_ns);
    return false;
}

/* The id fills what room there is (5.2.6). */
static void answer_id(struct blk_request *request, const struct queue_chain *chain)
{
    const struct blk *blk = request->blk;
    uint64_t room = chain->writable_bytes - 1;
    size_t length = room < sizeof(blk->id) ? (size_t)room : sizeof(blk->id);
    request->done = virtio_write_spans(chain->writable, chain->writable_count, 0, blk->id, length);
    blk_io_answer(request, 0);
}

/* False when the queue has to wait, and the chain with it. */
static bool take_chain(struct blk *blk, unsigned queue, const struct queue_chain *chain)
{
    struct blk_request *request = blk_io_new_request(blk, queue);
    if (request == NULL) {
        virtio_unpop(blk->device, queue);
        virtio_kick(blk->device, queue); /* until there is memory again */
        return false;
    }
    int result = blk_request_decode(request, chain, &blk->shape);
    if (result == 0 && request->type == BLK_FLUSH && blk->sync == VIAL_DISK_SYNC_NONE)
        result = -EOPNOTSUPP; /* it was not offered */
    if (result == -EPROTO || (result == 0 && !is_due(blk, request))) {
        blk_io_forget_request(request);
        if (result == 0)
            virtio_unpop(blk->device, queue);
        else
            virtio_break(blk->device, "a request without room for its header or its status");
        return false;
    }
    if (result < 0)
        blk_io_answer(request, result);
    else if (request->type == BLK_GET_ID)
        answer_id(request, chain);
    else
        blk_io_begin(request);
    return true;
}

/* ---- the device ---- */

/* As the driver would switch the cache: a change of ours would come with an interrupt. */
static void set_writeback(struct blk *blk, uint8_t is_writeback)
{
    virtio_device_write_config(blk->device, BLK_CONFIG_WRITEBACK, &is_writeback, sizeof(is_writeback));
}

static void start(void *state, uint64_t features)
{
    struct blk *blk = state;
    blk->features = features;
    /* A driver that can switch the cache but not flush it begins without (5.2.5.2). */
    if ((features & BLK_F_CONFIG_WCE) != 0 && (features & BLK_F_FLUSH) == 0)
        set_writeback(blk, 0);
}

static void config_written(void *state, uint32_t offset, uint32_t length)
{
    struct blk *blk = state;
    uint8_t is_writeback = 0;
    (void)offset, (void)length; /* it can only be this one */
    virtio_device_read_config(blk->device, BLK_CONFIG_WRITEBACK, &is_writeback, sizeof(is_writeback));
    blk->is_writeback = is_writeback != 0;
}

static void serve(void *state, unsigned queue)
{
    struct blk *blk = state;
    struct queue_chain chain;
    while (blk->exclusive == NULL && virtio_pop(blk->device, queue, &chain))
        if (!take_chain(blk, queue, &chain))
            break;
    blk_io_settle(blk);
}

static void queue_paused(void *state, unsigned queue)
{
    blk_io_drain(state, queue);
}

static void stop(void *state)
{
    struct blk *blk = state;
    blk_io_abandon(blk);
    set_writeback(blk, 1); /* for the next driver */
}

static void release(void *state)
{
    struct blk *blk = state;
    blk_io_release(blk);
    disk_free(blk->disk);
    free(blk);
}

static const struct virtio_device_ops blk_ops = {
    .type = VIRTIO_TYPE_BLOCK,
    .name = "blk",
    .start = start,
    .serve = serve,
    .queue_paused = queue_paused,
    .stop = stop,
    .config_written = config_written,
    .free = release,
};

/* ---- what the driver is told ---- */

static uint64_t features_of(const struct blk *blk)
{
    uint64_t features = BLK_F_SIZE_MAX | BLK_F_SEG_MAX | BLK_F_BLK_SIZE | BLK_F_TOPOLOGY;
    if (blk->sync != VIAL_DISK_SYNC_NONE)
        features |= BLK_F_FLUSH;
    if (blk->queue_count > 1)
        features |= BLK_F_MQ;
    if (blk->shape.is_read_only)
        return features | BLK_F_RO;
    if (blk->sync != VIAL_DISK_SYNC_NONE)
        features |= BLK_F_CONFIG_WCE;
    if (blk->shape.can_discard)
        features |= BLK_F_DISCARD;
    return features | BLK_F_WRITE_ZEROES;
}

static uint32_t least_power_of_two(uint32_t number)
{
    uint32_t power = 1;
    while (power < number && power <= UINT32_MAX / 2)
        power *= 2;
    return power;
}

static struct config config_of(const struct blk *blk)
{
    uint32_t best = least_power_of_two(blk->properties.best_bytes), alignment = blk->properties.alignment_bytes;
    uint32_t physical = best < host_block_bytes ? best : host_block_bytes;
    physical = alignment > physical ? least_power_of_two(alignment) : physical;
    uint32_t physical_sectors = physical > BLK_SECTOR_BYTES ? physical / BLK_SECTOR_BYTES : 1;
    uint32_t best_sectors = best > physical ? best / BLK_SECTOR_BYTES : physical_sectors;
    return (struct config){
        .capacity = blk->shape.size_bytes / BLK_SECTOR_BYTES,
        .size_max = LIMIT_BLK_SEGMENT_BYTES,
        .seg_max = LIMIT_BLK_SEGMENTS,
        .blk_size = BLK_SECTOR_BYTES,
        .physical_block_exp = (uint8_t)__builtin_ctz(physical_sectors),
        .min_io_size = physical_sectors < UINT16_MAX ? (uint16_t)physical_sectors : UINT16_MAX,
        .opt_io_size = best_sectors,
        .writeback = 1,
        .num_queues = (uint16_t)blk->queue_count,
        .max_discard_sectors = LIMIT_BLK_DISCARD_SECTORS,
        .max_discard_seg = LIMIT_BLK_DISCARDS,
        .discard_sector_alignment = best_sectors,
        .max_write_zeroes_sectors = LIMIT_BLK_ZEROES_SECTORS,
        .max_write_zeroes_seg = 1,
        .write_zeroes_may_unmap = blk->shape.can_discard,
    };
}

/* ---- life ---- */

static int make_device(struct blk *blk, struct virtio_device **ret_device)
{
    uint16_t queue_sizes[BLK_MOST_QUEUES];
    for (unsigned i = 0; i < blk->queue_count; i++)
        queue_sizes[i] = queue_entries;
    struct virtio_device_options options = {
        .ops = &blk_ops,
        .state = blk,
        .features = features_of(blk),
        .queue_sizes = queue_sizes,
        .queue_count = blk->queue_count,
        .config_bytes = config_bytes,
        .writable_offset = BLK_CONFIG_WRITEBACK,
        .writable_bytes = (features_of(blk) & BLK_F_CONFIG_WCE) != 0,
        .is_out_of_order = true,
    };
    return virtio_device_new(&options, ret_device);
}

/* What the device needs its loop for. */
static int complete(struct blk *blk)
{
    struct config config = config_of(blk);
    virtio_set_config(blk->device, 0, &config, config_bytes);
    int result = blk_io_init(blk);
    if (result == 0 && rate_has_limits(&blk->rate))
        result = loop_add_timer(virtio_device_loop(blk->device), CLOCK_NEVER, handle_timer, blk, &blk->timer);
    return result;
}

int blk_new(const struct blk_options *options, struct virtio_device **ret_device)
{
    size_t id_length = options->id != NULL ? strlen(options->id) : 0;
    assert(options->queue_count >= 1 && options->queue_count <= BLK_MOST_QUEUES && id_length <= LIMIT_DISK_ID_BYTES);
    auto_free struct blk *blk = alloc_zero(sizeof(*blk));
    if (blk == NULL)
        return -ENOMEM;
    disk_describe(options->disk, &blk->properties);
    blk->shape = (struct blk_shape){
        .size_bytes = blk->properties.size_bytes,
        .is_read_only = options->read_only || blk->properties.is_read_only,
        .can_discard = blk->properties.can_discard,
    };
    memcpy(blk->id, options->id != NULL ? options->id : "", id_length);
    blk->cache = options->cache;
    blk->sync = options->sync;
    blk->queue_count = options->queue_count;
    blk->is_ring_refused = options->without_ring;
    blk->is_writeback = true;
    blk->wake_ns = CLOCK_NEVER;
    rate_init(&blk->rate, &options->limits);
    struct virtio_device *device = NULL;
    int result = make_device(blk, &device);
    if (result < 0)
        return result;
    struct blk *owned = steal_ptr(blk); /* by the device, from here on */
    owned->device = device;
    result = complete(owned);
    if (result < 0) {
        virtio_device_free(device);
        return result;
    }
    owned->disk = options->disk;
    *ret_device = device;
    return 0;
}

static uint64_t load(const atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void blk_read_stats(const struct virtio_device *device, struct blk_stats *ret_stats)
{
    const struct blk *blk = virtio_device_state(device);
    *ret_stats = (struct blk_stats){
        .read_bytes = load(&blk->read_bytes),
        .written_bytes = load(&blk->written_bytes),
        .reads = load(&blk->reads),
        .writes = load(&blk->writes),
        .flushes = load(&blk->flushes),
        .discards = load(&blk->discards),
        .errors = load(&blk->errors),
    };
}
