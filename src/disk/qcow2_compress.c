// SPDX-License-Identifier: Apache-2.0
/* Compressed clusters of a qcow2 image: unpacked when they are read, packed when an image is converted.
 *
 *     clusters of the file   |……pppp|pppppppppqqqq|qqqrrr…|      packed ones lie byte to byte, over borders, too
 *
 * Each packed cluster counts once in every cluster of the file that it touches. zlib means a raw deflate stream with a
 * window of 4 KiB, zstd one frame; where it ends is known only by unpacking, the entry says how many sectors at most.
 *
 * Invariants: (1) unpacking writes one cluster, whole, or fails; it takes memory for the packed bytes and one window,
 * bounded by the cluster size. (2) a packed cluster is written before the entry names it, and never over used bytes.
 * (3) the unpacked cluster that is kept is what its packed bytes say: it is forgotten before they can be overwritten.
 *
 * Trust: packed bytes may be anything; the libraries are trusted to survive that.
 */
#include "disk/qcow2_state.h"

#include "base/alloc.h"

#include <zlib.h>
#include <zstd.h>

enum { window_bits = 12, deflate_memory = 9, most_window_log = 22 };

/* ---- unpacking ---- */

static int unpack_zlib(const uint8_t *packed, size_t packed_bytes, uint8_t *cluster, size_t cluster_bytes)
{
    union { /* zlib does not change its input */
        const uint8_t *given;
        uint8_t *taken;
    } input = {.given = packed};
    z_stream stream = {.next_in = input.taken,
                       .avail_in = (unsigned)packed_bytes,
                       .next_out = cluster,
                       .avail_out = (unsigned)cluster_bytes};
    if (inflateInit2(&stream, -window_bits) != Z_OK)
        return -ENOMEM;
    int status = inflate(&stream, Z_FINISH);
    bool is_whole = (status == Z_STREAM_END || status == Z_BUF_ERROR) && stream.avail_out == 0;
    inflateEnd(&stream);
    if (status == Z_MEM_ERROR)
        return -ENOMEM;
    return is_whole ? 0 : -EIO;
}

static int unpack_zstd(const uint8_t *packed, size_t packed_bytes, uint8_t *cluster, size_t cluster_bytes)
{
    ZSTD_inBuffer input = {packed, packed_bytes, 0};
    ZSTD_outBuffer output = {cluster, cluster_bytes, 0};
    ZSTD_DStream *stream = ZSTD_createDStream();
    if (stream == NULL)
        return -ENOMEM;
    size_t status = ZSTD_DCtx_setParameter(stream, ZSTD_d_windowLogMax, most_window_log);
    while (!ZSTD_isError(status) && output.pos < output.size) {
        size_t before = input.pos + output.pos;
        status = ZSTD_decompressStream(stream, &output, &input);
        if (input.pos + output.pos == before || (status == 0 && input.pos == input.size))
            break; /* no more to be had */
    }
    ZSTD_freeDStream(stream);
    return !ZSTD_isError(status) && output.pos == output.size ? 0 : -EIO;
}

int qcow2_unpack(struct qcow2 *q, uint64_t packed_offset, uint64_t packed_bytes, uint8_t *cluster)
{
    auto_free uint8_t *packed = alloc_zero((size_t)packed_bytes);
    if (packed == NULL)
        return -ENOMEM;
    int result = qcow2_read_bytes(q, packed, packed_bytes, packed_offset);
    if (result < 0)
        return result;
    result = q->compression == IMAGE_ZSTD
                 ? unpack_zstd(packed, (size_t)packed_bytes, cluster, (size_t)q->cluster_bytes)
                 : unpack_zlib(packed, (size_t)packed_bytes, cluster, (size_t)q->cluster_bytes);
    return result == -EIO ? qcow2_damage(q, "a compressed cluster cannot be unpacked", packed_offset) : result;
}

/* ---- the last one ---- */

void qcow2_forget_unpacked(struct qcow2 *q)
{
    pthread_mutex_lock(&q->unpacked_lock);
    q->unpacked_length = 0;
    pthread_mutex_unlock(&q->unpacked_lock);
}

/* Whether it was this one. */
static bool read_unpacked(struct qcow2 *q, const struct qcow2_run *run, const struct parts *parts, uint64_t in_cluster)
{
    pthread_mutex_lock(&q->unpacked_lock);
    bool is_it = q->unpacked_length == run->packed_bytes && q->unpacked_offset == run->packed_offset;
    if (is_it)
        parts_fill(parts, q->unpacked + in_cluster);
    pthread_mutex_unlock(&q->unpacked_lock);
    return is_it;
}

/* Keeps the cluster, and returns the one that was kept, for the caller to free. */
static uint8_t *keep_unpacked(struct qcow2 *q, const struct qcow2_run *run, uint8_t *cluster)
{
    pthread_mutex_lock(&q->unpacked_lock);
    uint8_t *old = q->unpacked;
    q->unpacked = cluster;
    q->unpacked_offset = run->packed_offset;
    q->unpacked_length = run->packed_bytes;
    pthread_mutex_unlock(&q->unpacked_lock);
    return old;
}

int qcow2_read_packed(struct qcow2 *q, const struct qcow2_run *run, const struct parts *parts, uint64_t in_cluster)
{
    if (read_unpacked(q, run, parts, in_cluster))
        return 0;
    auto_free uint8_t *cluster = alloc_zero((size_t)q->cluster_bytes);
    if (cluster == NULL)
        return -ENOMEM;
    int result = qcow2_unpack(q, run->packed_offset, run->packed_bytes, cluster);
    if (result < 0)
        return result;
    parts_fill(parts, cluster + in_cluster);
    cluster = keep_unpacked(q, run, cluster);
    return 0;
}

/* ---- packing ---- */

/* The length of the packed bytes, 0 when they would not be fewer, or -errno. */
static int64_t pack_zlib(uint8_t *cluster, size_t cluster_bytes, uint8_t *packed)
{
    z_stream stream = {.next_in = cluster,
                       .avail_in = (unsigned)cluster_bytes,
                       .next_out = packed,
                       .avail_out = (unsigned)cluster_bytes - 1};
    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -window_bits, deflate_memory, Z_DEFAULT_STRATEGY) !=
        Z_OK)
        return -ENOMEM;
    int status = deflate(&stream, Z_FINISH);
    int64_t length = status == Z_STREAM_END ? (int64_t)(cluster_bytes - 1 - stream.avail_out) : 0;
    deflateEnd(&stream);
    return length;
}

static int64_t pack_zstd(const uint8_t *cluster, size_t cluster_bytes, uint8_t *packed)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    if (context == NULL)
        return -ENOMEM;
    size_t length = ZSTD_compress2(context, packed, cluster_bytes - 1, cluster, cluster_bytes);
    ZSTD_freeCCtx(context);
    return ZSTD_isError(length) ? 0 : (int64_t)length;
}

/* Bytes in a row for a packed cluster: behind the last one, if its cluster has room or goes on. */
static int allocate_bytes(struct qcow2 *q, uint64_t length, uint64_t *ret_offset)
{
    uint64_t in_cluster = q->compressed_at & (q->cluster_bytes - 1), fresh = 0, count = 0;
    uint64_t room = in_cluster == 0 ? 0 : q->cluster_bytes - in_cluster, last = q->compressed_at >> q->cluster_bits;
    bool shares = room > 0 && qcow2_refcount_raise(q, last, 1) == 0;
    int result = 0;
    if (shares && length <= room) {
        *ret_offset = q->compressed_at;
    } else {
        result = qcow2_allocate(q, 1, 1, &fresh, &count);
        bool goes_on = shares && result == 0 && fresh == last + 1;
        if (shares && !goes_on)
            qcow2_give_back(q, last, 1);
        *ret_offset = goes_on ? q->compressed_at : fresh << q->cluster_bits;
        if (result == 0) /* readers take whole sectors */
            result = qcow2_extend(q, (fresh + 1) << q->cluster_bits);
    }
    if (result == 0 && *ret_offset + length > UINT64_C(1) << (62 - (q->cluster_bits - 8)))
        result = -EFBIG;
    return result;
}

static void give_bytes_back(struct qcow2 *q, const struct qcow2_entry *entry)
{
    uint64_t first = entry->packed_offset >> q->cluster_bits;
    uint64_t last = (entry->packed_offset + entry->packed_bytes - 1) >> q->cluster_bits;
    qcow2_give_back(q, first, last - first + 1);
    q->compressed_at = 0;
}

/* -EEXIST when the image holds something there. Under change. */
static int store_packed(struct qcow2 *q, const uint8_t *packed, uint64_t length, uint64_t offset)
{
    uint64_t cluster = offset >> q->cluster_bits;
    struct qcow2_entry old, entry = {.allocated = q->all_units, .is_compressed = true, .packed_bytes = length};
    int result = qcow2_begin_step(q);
    if (result == 0)
        result = qcow2_table_prepare(q, cluster);
    if (result == 0)
        result = qcow2_entry_get(q, cluster, &old);
    if (result == 0 && (old.host != 0 || old.allocated != 0 || old.zero != 0))
        result = -EEXIST;
    if (result == 0)
        result = allocate_bytes(q, length, &entry.packed_offset);
    if (result < 0)
        return result;
    result = qcow2_write_bytes(q, packed, length, entry.packed_offset);
    if (result == 0)
        result = qcow2_entry_put(q, cluster, &entry);
    if (result < 0) {
        give_bytes_back(q, &entry);
        return result;
    }
    q->compressed_at = entry.packed_offset + length;
    return 0;
}

static int write_plain(struct qcow2 *q, uint8_t *bytes, uint64_t length, uint64_t offset)
{
    const struct iovec part = {bytes, (size_t)length};
    const struct parts parts = {&part, 1, 0, length};
    return qcow2_result(q, qcow2_write_guest(q, &parts, offset, false));
}

int qcow2_compress_cluster(void *state, const void *bytes, uint64_t offset)
{
    struct qcow2 *q = state;
    if ((offset & (q->cluster_bytes - 1)) != 0 || offset >= q->size_bytes)
        return -EINVAL;
    size_t whole = (size_t)q->cluster_bytes;
    size_t given = q->size_bytes - offset < whole ? (size_t)(q->size_bytes - offset) : whole;
    auto_free uint8_t *cluster = alloc_zero(2 * whole); /* and, behind it, what becomes of it */
    if (cluster == NULL)
        return -ENOMEM;
    memcpy(cluster, bytes, given);
    int64_t length = q->compression == IMAGE_ZSTD ? pack_zstd(cluster, whole, cluster + whole)
                                                  : pack_zlib(cluster, whole, cluster + whole);
    if (length < 0)
        return (int)length;
    if (length == 0)
        return write_plain(q, cluster, given, offset);
    int result = qcow2_check_writable(q);
    if (result < 0)
        return result;
    pthread_mutex_lock(&q->change);
    result = store_packed(q, cluster + whole, (uint64_t)length, offset);
    pthread_mutex_unlock(&q->change);
    return result == -EEXIST ? write_plain(q, cluster, given, offset) : qcow2_result(q, result);
}
