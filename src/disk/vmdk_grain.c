// SPDX-License-Identifier: Apache-2.0
/* Grains of sparse VMDK extents: found through tables, and unpacked where they are compressed.
 *
 * Tables are read when they are needed and kept in a cache of the whole disk. A table's number among all tables of the
 * disk says which slot it takes, so neighbours never push each other out. The last grain that was unpacked is kept,
 * too: a reader that comes in small steps unpacks each grain once.
 *
 *     offset -> grain -> directory: no table: zeros
 *                     -> table: 0 (or 1, where that stands for it): zeros; else the sector of the grain
 *
 * Invariants: (1) the cache is touched only under its lock; vmdk_sparse_find without may_wait never waits for that.
 * (2) a place in the file that is handed out lies within the file as it was when it was opened. (3) a grain that does
 * not unpack to as much as is needed is -EIO.
 *
 * Trust: tables, markers and compressed data are hostile. Data in place may be anything, the tables' own sectors too:
 * it is only read.
 */
#include "disk/vmdk.h"

#include "base/alloc.h"
#include "base/limits.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <zlib.h>

enum { most_table_entries = 512, most_absent_tables = 1024 };

struct slot {
    uint64_t number; /* of the table in it, plus 1; 0 when empty */
    uint32_t *table; /* owned; NULL until it is used */
};

struct vmdk_cache {
    pthread_mutex_t lock;
    size_t slot_count;
    const struct vmdk_sparse *grain_of; /* borrowed: whose grain is kept; NULL for none */
    uint64_t grain_number;
    uint8_t *grain; /* owned */
    struct slot slots[];
};

struct vmdk_cache *vmdk_cache_new(uint64_t table_count)
{
    size_t slots = table_count < LIMIT_VMDK_TABLES ? (size_t)table_count : LIMIT_VMDK_TABLES;
    struct vmdk_cache *cache = alloc_zero(sizeof(*cache) + slots * sizeof(cache->slots[0]));
    if (cache == NULL)
        return NULL;
    cache->slot_count = slots;
    pthread_mutex_init(&cache->lock, NULL);
    return cache;
}

struct vmdk_cache *vmdk_cache_free(struct vmdk_cache *cache)
{
    if (cache == NULL)
        return NULL;
    for (size_t i = 0; i < cache->slot_count; i++)
        free(cache->slots[i].table);
    free(cache->grain);
    pthread_mutex_destroy(&cache->lock);
    free(cache);
    return NULL;
}

/* ---- tables ---- */

static int load_table(const struct vmdk_sparse *sparse, uint64_t index, struct slot *slot)
{
    size_t table_bytes = sparse->table_entries * sizeof(uint32_t);
    if (slot->table == NULL)
        slot->table = alloc_zero(most_table_entries * sizeof(uint32_t));
    if (slot->table == NULL)
        return -ENOMEM;
    slot->number = 0;
    int result = disk_file_read_bytes(sparse->file, slot->table, table_bytes,
                                      (uint64_t)sparse->directory[index] * VMDK_SECTOR_BYTES);
    if (result < 0)
        return result;
    for (uint32_t i = 0; i < sparse->table_entries; i++)
        slot->table[i] = le32toh(slot->table[i]);
    slot->number = sparse->first_table + index + 1;
    return 0;
}

/* The table, borrowed from the cache as long as that is locked. */
static int find_table(const struct vmdk_sparse *sparse, uint64_t index, bool may_wait, const uint32_t **ret_table)
{
    uint64_t number = sparse->first_table + index;
    struct slot *slot = &sparse->cache->slots[number % sparse->cache->slot_count];
    if (slot->number != number + 1) {
        int result = may_wait ? load_table(sparse, index, slot) : -EAGAIN;
        if (result < 0)
            return result;
    }
    *ret_table = slot->table;
    return 0;
}

static bool is_zero_entry(const struct vmdk_sparse *sparse, uint32_t entry)
{
    return entry == 0 || (entry == 1 && sparse->has_zero_grains);
}

/* How many grains from `first` on, up to the table's end, are like it: zeros, or one behind the other in the file. */
static uint64_t count_alike(const struct vmdk_sparse *sparse, const uint32_t *table, uint32_t first)
{
    bool is_zero = is_zero_entry(sparse, table[first]);
    uint64_t next = table[first], step = sparse->grain_bytes / VMDK_SECTOR_BYTES;
    uint32_t i = first + 1;
    for (; i < sparse->table_entries; i++) {
        next += step;
        if (is_zero_entry(sparse, table[i]) != is_zero || (!is_zero && table[i] != next))
            break;
    }
    return i - first;
}

static int place_in_table(const struct vmdk_sparse *sparse, const uint32_t *table, uint64_t offset,
                          struct vmdk_place *place)
{
    uint64_t grain = offset / sparse->grain_bytes, within = offset % sparse->grain_bytes;
    uint32_t index = (uint32_t)(grain % sparse->table_entries), entry = table[index];
    if (is_zero_entry(sparse, entry)) {
        *place = (struct vmdk_place){VMDK_PLACE_ZERO, 0,
                                     count_alike(sparse, table, index) * sparse->grain_bytes - within};
        return 0;
    }
    uint64_t begin = (uint64_t)entry * VMDK_SECTOR_BYTES;
    if (sparse->is_compressed) {
        *place = (struct vmdk_place){VMDK_PLACE_PACKED, begin, sparse->grain_bytes - within};
        return 0;
    }
    begin += within;
    if (begin >= sparse->file->size_bytes)
        return -EIO;
    *place = (struct vmdk_place){VMDK_PLACE_FILE, begin,
                                 count_alike(sparse, table, index) * sparse->grain_bytes - within};
    if (place->length > sparse->file->size_bytes - begin)
        place->length = sparse->file->size_bytes - begin;
    return 0;
}

/* Zeros up to the next table that exists. */
static uint64_t measure_absence(const struct vmdk_sparse *sparse, uint64_t offset)
{
    uint64_t table_bytes = sparse->table_entries * sparse->grain_bytes, first = offset / table_bytes, next = first;
    while (next < sparse->table_count && next - first < most_absent_tables && sparse->directory[next] == 0)
        next++;
    return (next - first) * table_bytes - offset % table_bytes;
}

int vmdk_sparse_find(struct vmdk_sparse *sparse, uint64_t offset, uint64_t length, bool may_wait,
                     struct vmdk_place *ret_place)
{
    uint64_t index = offset / sparse->grain_bytes / sparse->table_entries;
    struct vmdk_place place = {VMDK_PLACE_ZERO, 0, 0};
    const uint32_t *table = NULL;
    int result = 0;
    if (sparse->directory[index] == 0) {
        place.length = measure_absence(sparse, offset);
    } else {
        if (may_wait)
            pthread_mutex_lock(&sparse->cache->lock);
        else if (pthread_mutex_trylock(&sparse->cache->lock) != 0)
            return -EAGAIN;
        result = find_table(sparse, index, may_wait, &table);
        if (result == 0)
            result = place_in_table(sparse, table, offset, &place);
        pthread_mutex_unlock(&sparse->cache->lock);
    }
    if (result < 0)
        return result;
    if (place.length > length)
        place.length = length;
    *ret_place = place;
    return 0;
}

/* ---- compressed grains ---- */

/* How many bytes of compressed data a grain has, and where they begin. */
static int find_packed(const struct vmdk_sparse *sparse, uint64_t grain, uint64_t begin, uint64_t *ret_begin,
                       uint64_t *ret_length)
{
    struct {
        uint64_t sector;
        uint32_t length;
    } __attribute__((packed)) marker;
    uint64_t size_bytes = sparse->file->size_bytes, most = 2 * sparse->grain_bytes;
    if (begin >= size_bytes)
        return -EIO;
    *ret_begin = begin;
    *ret_length = size_bytes - begin < most ? size_bytes - begin : most; /* the data know their end themselves */
    if (!sparse->has_markers)
        return 0;
    int result = disk_file_read_bytes(sparse->file, &marker, sizeof(marker), begin);
    if (result < 0)
        return result;
    begin += sizeof(marker);
    uint64_t length = le32toh(marker.length);
    if (length == 0 || length > most || length > size_bytes - begin ||
        le64toh(marker.sector) != grain * (sparse->grain_bytes / VMDK_SECTOR_BYTES))
        return -EIO;
    *ret_begin = begin;
    *ret_length = length;
    return 0;
}

/* The grain in new memory. */
static int unpack(const struct vmdk_sparse *sparse, uint64_t grain, uint64_t begin, uint8_t **ret_bytes)
{
    uint64_t packed_begin = 0, packed_length = 0;
    int result = find_packed(sparse, grain, begin, &packed_begin, &packed_length);
    if (result < 0)
        return result;
    auto_free uint8_t *packed = alloc_zero((size_t)packed_length), *bytes = alloc_zero((size_t)sparse->grain_bytes);
    if (packed == NULL || bytes == NULL)
        return -ENOMEM;
    result = disk_file_read_bytes(sparse->file, packed, (size_t)packed_length, packed_begin);
    if (result < 0)
        return result;
    uint64_t needed = sparse->capacity_sectors * VMDK_SECTOR_BYTES - grain * sparse->grain_bytes;
    uLongf unpacked = (uLongf)sparse->grain_bytes;
    int status = uncompress(bytes, &unpacked, packed, (uLong)packed_length);
    if (status == Z_MEM_ERROR)
        return -ENOMEM;
    if (status != Z_OK || unpacked < (needed < sparse->grain_bytes ? needed : sparse->grain_bytes))
        return -EIO;
    *ret_bytes = steal_ptr(bytes);
    return 0;
}

static bool fill_from_cache(const struct vmdk_sparse *sparse, uint64_t grain, uint64_t within,
                            const struct parts *parts)
{
    struct vmdk_cache *cache = sparse->cache;
    pthread_mutex_lock(&cache->lock);
    bool is_there = cache->grain_of == sparse && cache->grain_number == grain;
    if (is_there)
        parts_fill(parts, cache->grain + within);
    pthread_mutex_unlock(&cache->lock);
    return is_there;
}

static int read_packed(const struct vmdk_sparse *sparse, const struct parts *parts, uint64_t offset, uint64_t begin)
{
    struct vmdk_cache *cache = sparse->cache;
    uint64_t grain = offset / sparse->grain_bytes, within = offset % sparse->grain_bytes;
    uint8_t *bytes = NULL;
    if (fill_from_cache(sparse, grain, within, parts))
        return 0;
    int result = unpack(sparse, grain, begin, &bytes);
    if (result < 0)
        return result;
    parts_fill(parts, bytes + within);
    pthread_mutex_lock(&cache->lock);
    uint8_t *before = cache->grain;
    cache->grain = bytes;
    cache->grain_of = sparse;
    cache->grain_number = grain;
    pthread_mutex_unlock(&cache->lock);
    free(before);
    return 0;
}

int vmdk_sparse_read(struct vmdk_sparse *sparse, const struct parts *parts, uint64_t offset)
{
    for (uint64_t done = 0; done < parts->length;) {
        struct vmdk_place place;
        int result = vmdk_sparse_find(sparse, offset + done, parts->length - done, true, &place);
        if (result < 0)
            return result;
        const struct parts piece = parts_cut(parts, done, place.length);
        if (place.kind == VMDK_PLACE_ZERO)
            parts_fill_zero(&piece);
        else if (place.kind == VMDK_PLACE_FILE)
            result = disk_file_read(sparse->file, &piece, place.offset);
        else
            result = read_packed(sparse, &piece, offset + done, place.offset);
        if (result < 0)
            return result;
        done += place.length;
    }
    return 0;
}
