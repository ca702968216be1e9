// SPDX-License-Identifier: Apache-2.0
/* What the files of qcow2 share: an open image, and the names of its parts. qcow2.c draws the format.
 *
 * Who may do what, and the order in which locks are taken:
 *
 *     change     held by whoever changes tables, from the first to the last step; also by a flush
 *     moving     held for reading around the use of a place in the file that was looked up; for writing when freed
 *                clusters become free to be used again, so that nobody reads or writes what is somebody else's by then
 *     lock       held for a moment around every look into tables in memory, and around changes of them; who holds
 *                change may look into the L1 table, the refcount table and the metadata without it
 *
 * A function says which of them its caller holds: "under change", "under lock". Without a word it takes what it needs.
 *
 * QCOW2_DAMAGED is the result of whoever finds the image broken (qcow2_damage). It travels up to qcow2_result, which
 * marks the image and makes -EIO of it.
 */
#ifndef DISK_QCOW2_STATE_H
#define DISK_QCOW2_STATE_H

#include "base/error.h"
#include "disk/file.h"
#include "disk/format.h"
#include "disk/qcow2.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define QCOW2_DAMAGED (-EUCLEAN)

/* The header (specification: Header). */
#define QCOW2_MAGIC 0x514649fbu
#define QCOW2_DIRTY (UINT64_C(1) << 0)
#define QCOW2_CORRUPT (UINT64_C(1) << 1)
#define QCOW2_EXTERNAL_DATA (UINT64_C(1) << 2)
#define QCOW2_COMPRESSION (UINT64_C(1) << 3)
#define QCOW2_EXTENDED_L2 (UINT64_C(1) << 4)
#define QCOW2_LAZY_REFCOUNTS (UINT64_C(1) << 0) /* compatible */
#define QCOW2_BITMAPS (UINT64_C(1) << 0)        /* autoclear */
enum {
    QCOW2_V2_HEADER_BYTES = 72,
    QCOW2_V3_HEADER_BYTES = 104,
    QCOW2_EXTENSION_END = 0,
    QCOW2_EXTENSION_FORMAT = (int)0xe2792aca,
    QCOW2_EXTENSION_NAMES = 0x6803f857,
    QCOW2_EXTENSION_BITMAPS = 0x23852875,
    QCOW2_FEATURE_NAME_BYTES = 46,
};

/* Entries of L1 and L2 tables (specification: Cluster mapping). */
#define QCOW2_COPIED (UINT64_C(1) << 63)
#define QCOW2_COMPRESSED (UINT64_C(1) << 62)
#define QCOW2_ZERO_FLAG UINT64_C(1)
#define QCOW2_OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define QCOW2_MOST_OFFSET (UINT64_C(1) << 56)

/* A piece of an L2 table or refcount block in memory. */
enum qcow2_table_kind { QCOW2_L2, QCOW2_REFCOUNTS, QCOW2_TABLE_KINDS };
struct qcow2_slot {
    uint8_t *bytes;  /* owned; NULL until first used */
    void *memory;    /* owned; bytes lie in it, aligned */
    uint64_t offset; /* in the file; 0: empty */
    uint32_t next;   /* in its chain of the hash table, counted from 1 */
    uint8_t kind;    /* enum qcow2_table_kind */
    bool is_dirty, was_used, is_pinned;
};

struct qcow2_cache {
    struct qcow2_slot *slots; /* owned */
    uint32_t *chains;         /* owned; first slot by hash, counted from 1 */
    uint32_t slot_count, chain_mask, hand;
    uint32_t slice_bytes;
    uint32_t dirty[QCOW2_TABLE_KINDS];
};

/* Cluster numbers, of clusters that hold the image's own structures. */
struct qcow2_set {
    uint64_t *entries; /* owned; number + 1, 0: empty */
    size_t capacity, count;
    uint64_t key; /* of the hash */
};

/* A range of a table in memory that is not in the file yet. */
struct qcow2_range {
    uint64_t begin, end;
};

/* Clusters that tables in memory do not use any more, while those in the file still may. */
struct qcow2_freed {
    uint64_t cluster, count;
    bool punches; /* gives the space back to the host */
};

struct qcow2_snapshot {
    uint64_t l1_offset;
    uint32_t l1_entries;
    uint8_t *record; /* owned; as it stands in the file */
    size_t record_bytes;
    struct image_snapshot shown;
};

struct qcow2 {
    struct disk_file file; /* its descriptor is borrowed from disk.c */
    struct disk *backing;  /* owned; or NULL */
    uint64_t backing_bytes;
    uint32_t alignment_bytes; /* of the file, or of the one under it if that is greater */

    /* The header. */
    uint32_t version, cluster_bits, refcount_order;
    uint64_t incompatible, compatible, autoclear; /* under change, or while nobody else is there */
    uint64_t size_bytes;
    enum image_compression compression;
    char backing_name[IMAGE_NAME_BYTES], backing_format[16];
    uint64_t bitmap_directory_offset, bitmap_directory_bytes;
    uint32_t bitmap_count;

    /* What follows from it. */
    uint64_t cluster_bytes;
    uint32_t units, unit_bits; /* parts of a cluster with a state each: 1, or 32 with extended L2 entries */
    uint32_t all_units;        /* a bit for each */
    uint32_t entry_bytes;      /* of an L2 table: 8 or 16 */
    uint32_t l2_bits;          /* entries of an L2 table are 1 << that */
    uint32_t block_bits;       /* entries of a refcount block */
    uint64_t most_refcount;
    bool is_read_only, is_lazy, checks;

    pthread_mutex_t change, lock;
    pthread_rwlock_t moving;

    /* Under change; and read under lock. */
    uint64_t *l1; /* owned; in host order, as in the file otherwise */
    uint64_t l1_offset;
    uint32_t l1_entries;
    uint64_t *refcount_table; /* owned */
    uint64_t refcount_table_offset, refcount_table_entries;
    struct qcow2_range l1_dirty, refcount_table_dirty; /* in entries */
    struct qcow2_cache cache;
    struct qcow2_set metadata;

    /* Under change. */
    struct qcow2_snapshot *snapshots; /* owned */
    uint32_t snapshot_count;
    uint64_t snapshots_offset, snapshots_bytes;
    struct qcow2_freed *freed; /* owned */
    size_t freed_count, freed_capacity;
    uint64_t free_hint;     /* no cluster before it is free */
    uint64_t compressed_at; /* where the next compressed cluster may begin, or 0 */
    bool has_dirty_mark;    /* the dirty bit is in the file */

    atomic_ullong file_end;   /* of the file: what lies beyond reads as zeros */
    atomic_bool needs_commit; /* tables in memory say more than those in the file */
    atomic_bool is_damaged;
    atomic_int sync_error; /* of the first flush that failed */

    /* The last compressed cluster that was read, under unpacked_lock: small reads in a row unpack it once. */
    pthread_mutex_t unpacked_lock;
    uint8_t *unpacked;                         /* owned; or NULL */
    uint64_t unpacked_offset, unpacked_length; /* of its packed bytes */

    pthread_mutex_t damage_lock;
    const char *damage_what; /* a constant, under damage_lock */
    uint64_t damage_where;
};

/* ---- numbers in the file ---- */

static inline uint64_t qcow2_get64(const void *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof(value));
    return be64toh(value);
}

static inline uint32_t qcow2_get32(const void *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof(value));
    return be32toh(value);
}

static inline uint32_t qcow2_get16(const void *bytes)
{
    const uint8_t *b = bytes;
    return (uint32_t)b[0] << 8 | b[1];
}

static inline void qcow2_put64(void *bytes, uint64_t value)
{
    value = htobe64(value);
    memcpy(bytes, &value, sizeof(value));
}

static inline void qcow2_put32(void *bytes, uint32_t value)
{
    value = htobe32(value);
    memcpy(bytes, &value, sizeof(value));
}

static inline void qcow2_put16(void *bytes, uint32_t value)
{
    uint8_t *b = bytes;
    b[0] = (uint8_t)(value >> 8);
    b[1] = (uint8_t)value;
}

static inline uint64_t qcow2_clusters(const struct qcow2 *q, uint64_t bytes)
{
    return (bytes >> q->cluster_bits) + ((bytes & (q->cluster_bytes - 1)) != 0);
}

/* ---- qcow2_io.c: the file ---- */

int qcow2_read_parts(struct qcow2 *q, const struct parts *parts, uint64_t offset);
int qcow2_write_parts(struct qcow2 *q, const struct parts *parts, uint64_t offset);
int qcow2_read_bytes(struct qcow2 *q, void *bytes, uint64_t length, uint64_t offset);
int qcow2_write_bytes(struct qcow2 *q, const void *bytes, uint64_t length, uint64_t offset);
int qcow2_write_zeros(struct qcow2 *q, uint64_t length, uint64_t offset);

/* Makes the file at least that long; under change. */
int qcow2_extend(struct qcow2 *q, uint64_t end);

/* fdatasync, of which a failure is remembered: what was lost will not be found again. */
int qcow2_sync(struct qcow2 *q);

/* Tables of big-endian numbers, `count` entries from entry `first` on. */
int qcow2_read_table(struct qcow2 *q, uint64_t *entries, uint64_t count, uint64_t offset);
int qcow2_write_table(struct qcow2 *q, const uint64_t *entries, uint64_t first, uint64_t count, uint64_t offset);

/* ---- qcow2_header.c ---- */

/* Reads and checks the header. `checks`: for qcow2_check, which takes marked images. */
int qcow2_read_header(struct qcow2 *q, struct vial_error *err);
int qcow2_refuse(const struct qcow2 *q, struct vial_error *err, enum vial_error_code code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* What changes in a header, from memory into the file; each is one sector's write. Under change. */
int qcow2_put_features(struct qcow2 *q);
int qcow2_put_disk(struct qcow2 *q);           /* size and L1 table */
int qcow2_put_refcount_table(struct qcow2 *q); /* where it is */
int qcow2_put_snapshots(struct qcow2 *q);      /* where they are */

/* ---- qcow2.c ---- */

/* An open image without what lies under it; `checks` as for qcow2_read_header. */
int qcow2_load(const struct disk_file *file, bool checks, struct qcow2 **ret_q, struct vial_error *err);
struct qcow2 *qcow2_free(struct qcow2 *q); /* writes nothing */
int qcow2_write_back(struct qcow2 *q);     /* everything, before it is freed */

/* Notes what is broken and returns QCOW2_DAMAGED. `what` is a constant, in words. */
int qcow2_damage(struct qcow2 *q, const char *what, uint64_t where);

/* The result for a caller: damage becomes a mark in the file, one event in the log, and -EIO. Under none. */
int qcow2_result(struct qcow2 *q, int result);

/* 0, or why nothing may be written. */
int qcow2_check_writable(struct qcow2 *q);

/* Fills q->metadata anew; under change. QCOW2_DAMAGED when two tables lie in one place, or one lies nowhere. On failure
 * it stays as it was. */
int qcow2_index_metadata(struct qcow2 *q);

/* Clusters that hold structures of the image from now on: all, or none. -ENOMEM, -E2BIG; under change. */
int qcow2_claim_tables(struct qcow2 *q, uint64_t cluster, uint64_t count);
/* The opposite, and one reference less (qcow2_release); under change. */
void qcow2_release_tables(struct qcow2 *q, uint64_t cluster, uint64_t count);

/* ---- qcow2_table.c: L2 tables and refcount blocks in memory; under lock ---- */

int qcow2_cache_init(struct qcow2 *q);
void qcow2_cache_release(struct qcow2 *q);

/* The slice that holds the byte at `offset` of the file: 0, -EAGAIN when it would have to be read and may not, -errno.
 * Valid until the next call, or as long as it is pinned, or until the lock is let go. */
int qcow2_slice(struct qcow2 *q, enum qcow2_table_kind kind, uint64_t offset, bool may_wait,
                struct qcow2_slot **ret_slot);
void qcow2_slice_changed(struct qcow2 *q, struct qcow2_slot *slot); /* under change, too */
bool qcow2_cache_is_full(const struct qcow2 *q);                    /* of changed slices */

/* What is in memory of the cluster is forgotten: it is a table no more. */
void qcow2_cache_forget(struct qcow2 *q, uint64_t offset);

/* Writes the changed slices of a kind; under change, not under lock. */
int qcow2_cache_write(struct qcow2 *q, enum qcow2_table_kind kind);

/* ---- qcow2_set.c ---- */

int qcow2_set_add(struct qcow2_set *set, uint64_t number); /* 0, -ENOMEM, -E2BIG */
void qcow2_set_remove(struct qcow2_set *set, uint64_t number);
bool qcow2_set_contains(const struct qcow2_set *set, uint64_t number);
void qcow2_set_release(struct qcow2_set *set);

/* ---- qcow2_refcount.c ---- */

uint64_t qcow2_refcount_get(const struct qcow2 *q, const uint8_t *block, uint64_t index);
void qcow2_refcount_put(const struct qcow2 *q, uint8_t *block, uint64_t index, uint64_t value);

/* Under lock; -EAGAIN as for qcow2_slice. */
int qcow2_refcount(struct qcow2 *q, uint64_t cluster, bool may_wait, uint64_t *ret_count);

/* Under change: */
int qcow2_refcount_raise(struct qcow2 *q, uint64_t cluster, uint64_t count); /* -EOVERFLOW when it does not fit */
int qcow2_refcount_lower(struct qcow2 *q, uint64_t cluster, uint64_t *ret_left);

/* Clusters in a row that were free, with a refcount of 1 now: as many as are free behind the first, at least `least`
 * (1, or `most`), at most `most`. */
int qcow2_allocate(struct qcow2 *q, uint64_t most, uint64_t least, uint64_t *ret_cluster, uint64_t *ret_count);

/* One reference less, once the file's tables know it (qcow2_commit). */
void qcow2_release(struct qcow2 *q, uint64_t cluster, uint64_t count, bool punches);
/* At once: for what no table in the file has ever named. */
void qcow2_give_back(struct qcow2 *q, uint64_t cluster, uint64_t count);

/* ---- qcow2_commit.c: in which order things reach the file; under change ---- */

/* Tables in memory become those in the file, in an order that a crash cannot harm. */
int qcow2_commit(struct qcow2 *q);
/* The same, and refcounts as they are: for the end, and for whoever reads the file itself. */
int qcow2_commit_all(struct qcow2 *q);

/* After the header was pointed to another table, with that result: forces it to the medium. When that cannot be done,
 * nobody knows which table holds, and every later flush fails as after a failed fdatasync. */
int qcow2_settle(struct qcow2 *q, int put_result);

/* To be called before a step that changes a handful of slices. */
int qcow2_begin_step(struct qcow2 *q);

/* ---- qcow2_map.c: where bytes lie ---- */

/* An L2 entry, of either kind: without extended L2 entries a cluster has one unit. */
struct qcow2_entry {
    uint64_t host;            /* of a cluster in the file, or 0 */
    uint32_t allocated, zero; /* a bit a unit, never both: neither means what lies under the image */
    bool is_copied;           /* nobody else uses the cluster */
    bool is_compressed;
    uint64_t packed_offset, packed_bytes; /* if so: where, and how much at most */
};

enum qcow2_run_kind { QCOW2_UNDER, QCOW2_ZEROS, QCOW2_DATA, QCOW2_PACKED };
struct qcow2_run {
    enum qcow2_run_kind kind;
    uint64_t host;    /* DATA: of the first byte */
    uint64_t length;  /* of bytes of the same kind, in one piece: at least 1 */
    bool is_writable; /* DATA: in place */
    uint64_t packed_offset, packed_bytes;
};

/* Under lock; -EAGAIN as for qcow2_slice. is_writable is only looked into if `for_writing`. */
int qcow2_find(struct qcow2 *q, uint64_t offset, uint64_t length, bool for_writing, bool may_wait,
               struct qcow2_run *ret_run);

int qcow2_decode(struct qcow2 *q, const uint8_t *bytes, struct qcow2_entry *ret_entry);
void qcow2_encode(const struct qcow2 *q, const struct qcow2_entry *entry, uint8_t *bytes);

/* The L2 table that an L1 entry names, or 0 for none; QCOW2_DAMAGED. */
int qcow2_l2_offset(struct qcow2 *q, uint64_t l1_entry, uint64_t *ret_offset);

/* One entry of the active tables, by the number of the guest's cluster. Under change. */
int qcow2_entry_get(struct qcow2 *q, uint64_t cluster, struct qcow2_entry *ret_entry);   /* all zeros without a table */
int qcow2_entry_put(struct qcow2 *q, uint64_t cluster, const struct qcow2_entry *entry); /* the table is there */

/* A table of one's own for the cluster: made, or copied from one that is shared. Under change. */
int qcow2_table_prepare(struct qcow2 *q, uint64_t cluster);

int qcow2_map(void *state, uint64_t offset, uint64_t length, bool for_writing, struct disk_extent *ret_extent);
int qcow2_sync_fd(void *state);
int qcow2_status(void *state, uint64_t offset, uint64_t length, bool *ret_is_zero, uint64_t *ret_length);

/* Whether an offset can be a cluster of the file at all. */
bool qcow2_is_place(const struct qcow2 *q, uint64_t offset);

/* ---- qcow2_read.c, qcow2_write.c, qcow2_zero.c ---- */

int qcow2_read(void *state, const struct iovec *parts, int count, uint64_t offset);
int qcow2_read_guest(struct qcow2 *q, const struct parts *parts, uint64_t offset);
int qcow2_write(void *state, const struct iovec *parts, int count, uint64_t offset);
int qcow2_write_guest(struct qcow2 *q, const struct parts *parts, uint64_t offset, bool is_changing);
int qcow2_discard(void *state, uint64_t offset, uint64_t length);
int qcow2_zero(void *state, uint64_t offset, uint64_t length, bool may_unmap);

/* Under change: the same from within another change. */
int qcow2_zero_guest(struct qcow2 *q, uint64_t offset, uint64_t length);
int qcow2_forget_guest(struct qcow2 *q, uint64_t offset, uint64_t length); /* what will not be of the disk any more */

/* Gives every cluster of [offset, offset + length) a place, without writing there. Under change. */
int qcow2_preallocate(struct qcow2 *q, uint64_t offset, uint64_t length);

/* Whether an entry names none of the image's own structures: 0 or QCOW2_DAMAGED. Before it is changed, or what it names
 * is counted otherwise. Under change. */
int qcow2_check_entry(struct qcow2 *q, const struct qcow2_entry *entry);

/* What an entry used is used no more; it was checked. Under change. */
void qcow2_release_entry(struct qcow2 *q, const struct qcow2_entry *entry, bool punches);

/* ---- qcow2_compress.c ---- */

/* What was packed may be overwritten from now on: under q->moving, for writing. */
void qcow2_forget_unpacked(struct qcow2 *q);
/* Bytes of a packed cluster, from `in_cluster` on; under q->moving. */
int qcow2_read_packed(struct qcow2 *q, const struct qcow2_run *run, const struct parts *parts, uint64_t in_cluster);

/* One cluster from `packed_bytes` of the file into `cluster`. */
int qcow2_unpack(struct qcow2 *q, uint64_t packed_offset, uint64_t packed_bytes, uint8_t *cluster);

/* ---- qcow2_snapshot_table.c ---- */

int qcow2_read_snapshots(struct qcow2 *q, uint64_t offset, uint32_t count, struct vial_error *err);
void qcow2_snapshots_release(struct qcow2_snapshot *snapshots, uint32_t count);

/* The list as it is to be from now on, written to a new place, the header pointed there: on the medium when this
 * returns. Takes the list on success. Under change. */
int qcow2_write_snapshots(struct qcow2 *q, struct qcow2_snapshot *snapshots, uint32_t count);

/* ---- qcow2_resize.c ---- */

int qcow2_resize(void *state, uint64_t size_bytes, bool may_shrink, struct vial_error *err);

/* Another active L1 table with this content, and another size, in one step on the medium. Takes `l1` on success. Under
 * change; nothing is left to commit. */
int qcow2_replace_l1(struct qcow2 *q, uint64_t *l1, uint32_t entries, uint64_t size_bytes);

/* L1 entries for a disk of that size. */
uint64_t qcow2_l1_needed(const struct qcow2 *q, uint64_t size_bytes);

/* ---- qcow2_check.c ---- */

/* Counts anew how often each cluster is used, corrects the refcounts and takes the dirty mark away; refuses an image
 * with worse faults. Before anything else is done with it. */
int qcow2_recount(struct qcow2 *q, struct vial_error *err);

#endif
