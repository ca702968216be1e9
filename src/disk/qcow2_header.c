// SPDX-License-Identifier: Apache-2.0
/* The header of a qcow2 image: read once, believed only as far as it was checked, and changed field by field.
 *
 *     0                72 (v2)          104 (v3)      header_length                     one cluster
 *     | fields of v2    | fields of v3  | more        | extension, extension, …, end     | name of the backing file |
 *
 * An extension is a type, a length, and that many bytes, padded to a multiple of 8. Three are read: the name of the
 * backing file's format, names of features (for saying which one we lack), and where bitmaps are. Others are left where
 * they are, as is everything of the header that we do not change.
 *
 * Invariants: (1) after qcow2_read_header each number is within the bounds that the rest of the code relies on: shifts
 * are defined, tables of bounded length begin at a cluster and end within the file. (2) a field is written together
 * with those it must agree with, in one sector, so a crash leaves the old ones or the new ones.
 *
 * Trust: every byte may be hostile.
 */
#include "disk/qcow2_state.h"

#include "base/alloc.h"
#include "base/limits.h"

#include <stdarg.h>
#include <stdio.h>

#define KNOWN_FEATURES (QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_COMPRESSION | QCOW2_EXTENDED_L2)

enum {
    at_backing_offset = 8,
    at_backing_bytes = 16,
    at_cluster_bits = 20,
    at_size = 24,
    at_encryption = 32,
    at_l1_entries = 36,
    at_l1_offset = 40,
    at_refcount_table_offset = 48,
    at_refcount_table_clusters = 56,
    at_snapshot_count = 60,
    at_snapshots_offset = 64,
    at_incompatible = 72,
    at_compatible = 80,
    at_autoclear = 88,
    at_refcount_order = 96,
    at_header_bytes = 100,
    at_compression = 104,
    most_read_bytes = 128 << 10, /* of the first cluster: extensions of QEMU take less than 1 KiB */
    feature_bytes = 2 + QCOW2_FEATURE_NAME_BYTES,
    least_extended_bits = 14,
};

/* The beginning of the file, zeros behind its end. */
struct head {
    const uint8_t *bytes; /* borrowed */
    uint64_t length;      /* of the first cluster, as far as it was read */
    uint64_t extensions, extensions_end;
    const uint8_t *names; /* the feature name table, or NULL */
    uint32_t names_bytes;
};

int qcow2_refuse(const struct qcow2 *q, struct vial_error *err, enum vial_error_code code, const char *format, ...)
{
    char text[200];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return error_set(err, code, VIAL_PHASE_START, "the qcow2 image %s %s", error_short(q->file.path).text, text);
}

static int refuse(const struct qcow2 *q, struct vial_error *err, const char *what)
{
    return qcow2_refuse(q, err, VIAL_ERROR_INVALID, "%s", what);
}

/* ---- features ---- */

static void name_feature(const struct head *head, unsigned bit, char name[static QCOW2_FEATURE_NAME_BYTES + 1])
{
    snprintf(name, QCOW2_FEATURE_NAME_BYTES + 1, "bit %u", bit);
    for (uint32_t at = 0; head->names != NULL && at + feature_bytes <= head->names_bytes; at += feature_bytes)
        if (head->names[at] == 0 && head->names[at + 1] == bit) {
            memcpy(name, head->names + at + 2, QCOW2_FEATURE_NAME_BYTES);
            name[QCOW2_FEATURE_NAME_BYTES] = '\0';
        }
}

static int check_features(const struct qcow2 *q, const struct head *head, struct vial_error *err)
{
    uint64_t unknown = q->incompatible & ~(uint64_t)KNOWN_FEATURES;
    int result = 0;
    if (unknown & QCOW2_EXTERNAL_DATA) {
        result = qcow2_refuse(q, err, VIAL_ERROR_UNSUPPORTED, "keeps its data in another file");
        error_remedy(err, "convert it: qemu-img convert -O qcow2 OLD NEW");
    } else if (unknown != 0) {
        char name[QCOW2_FEATURE_NAME_BYTES + 1];
        name_feature(head, (unsigned)__builtin_ctzll(unknown), name);
        result = qcow2_refuse(q, err, VIAL_ERROR_UNSUPPORTED, "needs a feature that is not known here: %s", name);
        error_remedy(err, "convert it with the program that made it");
    } else if ((q->incompatible & QCOW2_CORRUPT) != 0 && !q->is_read_only && !q->checks) {
        result = qcow2_refuse(q, err, VIAL_ERROR_INVALID, "is marked as corrupt; it can only be read");
        error_remedy(err, "save what is in it, then mend it: vial disk check --repair all");
    }
    return result;
}

static int check_compression(struct qcow2 *q, const struct head *head, uint32_t header_bytes, struct vial_error *err)
{
    unsigned type = header_bytes > at_compression ? head->bytes[at_compression] : 0;
    if (type > IMAGE_ZSTD)
        return qcow2_refuse(q, err, VIAL_ERROR_UNSUPPORTED, "is compressed in a way (%u) that is not known here", type);
    if ((type != 0) != ((q->incompatible & QCOW2_COMPRESSION) != 0))
        return refuse(q, err, "contradicts itself on how it is compressed");
    q->compression = type == IMAGE_ZSTD ? IMAGE_ZSTD : IMAGE_ZLIB;
    return 0;
}

/* ---- extensions ---- */

static int read_bitmaps(struct qcow2 *q, const uint8_t *data, uint32_t length, struct vial_error *err)
{
    if (length != 24)
        return refuse(q, err, "describes its bitmaps in a way that is not known here");
    q->bitmap_count = qcow2_get32(data);
    q->bitmap_directory_bytes = qcow2_get64(data + 8);
    q->bitmap_directory_offset = qcow2_get64(data + 16);
    return 0;
}

static int read_extension(struct qcow2 *q, struct head *head, uint32_t type, const uint8_t *data, uint32_t length,
                          struct vial_error *err)
{
    if (type == QCOW2_EXTENSION_NAMES) {
        head->names = data;
        head->names_bytes = length;
    } else if (type == (uint32_t)QCOW2_EXTENSION_FORMAT) {
        if (length >= sizeof(q->backing_format))
            return refuse(q, err, "names a format for its backing file that is too long");
        memcpy(q->backing_format, data, length);
        q->backing_format[length] = '\0';
    } else if (type == QCOW2_EXTENSION_BITMAPS) {
        return read_bitmaps(q, data, length, err);
    }
    return 0;
}

static int read_extensions(struct qcow2 *q, struct head *head, struct vial_error *err)
{
    uint64_t at = head->extensions, end = head->extensions_end;
    while (end >= 8 && at <= end - 8) {
        uint32_t type = qcow2_get32(head->bytes + at), length = qcow2_get32(head->bytes + at + 4);
        at += 8;
        if (type == QCOW2_EXTENSION_END)
            break;
        if (length > end - at)
            return refuse(q, err, "has a header extension that leaves the header");
        int result = read_extension(q, head, type, head->bytes + at, length, err);
        if (result < 0)
            return result;
        at += ((uint64_t)length + 7) & ~UINT64_C(7);
    }
    return 0;
}

/* ---- what it says ---- */

static int read_backing_name(struct qcow2 *q, const struct head *head, struct vial_error *err)
{
    uint64_t offset = qcow2_get64(head->bytes + at_backing_offset);
    uint32_t length = qcow2_get32(head->bytes + at_backing_bytes);
    if (offset == 0 || length == 0)
        return 0;
    if (length >= sizeof(q->backing_name) || offset > head->length || length > head->length - offset)
        return refuse(q, err, "names its backing file outside its header");
    memcpy(q->backing_name, head->bytes + offset, length);
    q->backing_name[length] = '\0';
    if (strlen(q->backing_name) != length)
        return refuse(q, err, "names its backing file with a NUL inside");
    return 0;
}

static int read_version3(struct qcow2 *q, struct head *head, struct vial_error *err)
{
    uint32_t header_bytes = qcow2_get32(head->bytes + at_header_bytes);
    q->incompatible = qcow2_get64(head->bytes + at_incompatible);
    q->compatible = qcow2_get64(head->bytes + at_compatible);
    q->autoclear = qcow2_get64(head->bytes + at_autoclear);
    q->refcount_order = qcow2_get32(head->bytes + at_refcount_order);
    if (header_bytes < QCOW2_V3_HEADER_BYTES || header_bytes % 8 != 0 || header_bytes > head->length)
        return refuse(q, err, "has a header of an impossible length");
    if (q->refcount_order > 6)
        return refuse(q, err, "has refcounts of an impossible width");
    head->extensions = header_bytes;
    return 0;
}

/* Where the header extensions end: where the backing file's name begins, or with the cluster. */
static void find_extensions_end(struct head *head)
{
    uint64_t name = qcow2_get64(head->bytes + at_backing_offset);
    head->extensions_end = name != 0 && name < head->length ? name : head->length;
}

static int read_kind(struct qcow2 *q, const struct head *head, struct vial_error *err)
{
    if (qcow2_get32(head->bytes) != QCOW2_MAGIC) {
        int result = qcow2_refuse(q, err, VIAL_ERROR_WRONG_KIND, "is none: it does not begin like one");
        error_remedy(err, "name the format that it has, raw perhaps");
        return result;
    }
    q->version = qcow2_get32(head->bytes + 4);
    if (q->version != 2 && q->version != 3)
        return qcow2_refuse(q, err, VIAL_ERROR_UNSUPPORTED, "has version %u; 2 and 3 are known", q->version);
    q->cluster_bits = qcow2_get32(head->bytes + at_cluster_bits);
    if (q->cluster_bits < 9 || q->cluster_bits > 21)
        return refuse(q, err, "has clusters of an impossible size");
    q->cluster_bytes = UINT64_C(1) << q->cluster_bits;
    q->refcount_order = 4;
    if (qcow2_get32(head->bytes + at_encryption) != 0) {
        int result = qcow2_refuse(q, err, VIAL_ERROR_UNSUPPORTED, "is encrypted");
        error_remedy(err, "convert it to one that is not, with qemu-img");
        return result;
    }
    return 0;
}

static void derive(struct qcow2 *q)
{
    bool is_extended = (q->incompatible & QCOW2_EXTENDED_L2) != 0;
    q->units = is_extended ? 32 : 1;
    q->unit_bits = is_extended ? q->cluster_bits - 5 : q->cluster_bits;
    q->all_units = is_extended ? UINT32_MAX : 1;
    q->entry_bytes = is_extended ? 16 : 8;
    q->l2_bits = q->cluster_bits - (is_extended ? 4 : 3);
    q->block_bits = q->cluster_bits + 3 - q->refcount_order;
    q->most_refcount = q->refcount_order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << q->refcount_order)) - 1;
    q->is_lazy = q->version == 3 && (q->compatible & QCOW2_LAZY_REFCOUNTS) != 0;
}

/* Begins at a cluster, and ends in one that the file has. */
static bool is_in_file(const struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    uint64_t end = (q->file.size_bytes + q->cluster_bytes - 1) & ~(q->cluster_bytes - 1);
    return (offset & (q->cluster_bytes - 1)) == 0 && offset <= end && bytes <= end - offset &&
           offset < QCOW2_MOST_OFFSET && bytes < QCOW2_MOST_OFFSET - offset;
}

static int read_places(struct qcow2 *q, const struct head *head, struct vial_error *err)
{
    uint32_t table_clusters = qcow2_get32(head->bytes + at_refcount_table_clusters);
    q->size_bytes = qcow2_get64(head->bytes + at_size);
    q->l1_entries = qcow2_get32(head->bytes + at_l1_entries);
    q->l1_offset = qcow2_get64(head->bytes + at_l1_offset);
    q->refcount_table_offset = qcow2_get64(head->bytes + at_refcount_table_offset);
    q->refcount_table_entries = ((uint64_t)table_clusters << q->cluster_bits) / 8;
    q->snapshot_count = qcow2_get32(head->bytes + at_snapshot_count);
    q->snapshots_offset = qcow2_get64(head->bytes + at_snapshots_offset);
    if (q->size_bytes > INT64_MAX || qcow2_l1_needed(q, q->size_bytes) > LIMIT_QCOW2_L1_BYTES / 8)
        return refuse(q, err, "is too large for its clusters");
    if (q->l1_entries > LIMIT_QCOW2_L1_BYTES / 8 || q->l1_entries < qcow2_l1_needed(q, q->size_bytes))
        return refuse(q, err, "has a table of mappings (L1) of an impossible length");
    if (!is_in_file(q, q->l1_offset, q->l1_entries * UINT64_C(8)) || (q->l1_offset == 0 && q->l1_entries > 0))
        return refuse(q, err, "has a table of mappings (L1) outside its file");
    if (q->refcount_table_entries > LIMIT_QCOW2_REFCOUNT_TABLE_BYTES / 8)
        return refuse(q, err, "has a table of refcounts of an impossible length");
    bool needs_refcounts = !q->is_read_only && !q->checks;
    if (!is_in_file(q, q->refcount_table_offset, q->refcount_table_entries * 8) ||
        (needs_refcounts && (q->refcount_table_offset == 0 || q->refcount_table_entries == 0)))
        return refuse(q, err, "has a table of refcounts outside its file");
    if (q->snapshot_count > LIMIT_QCOW2_SNAPSHOTS || !is_in_file(q, q->snapshots_offset, 0))
        return refuse(q, err, "has a list of snapshots that cannot be");
    return 0;
}

static int read_head(struct qcow2 *q, struct head *head, struct vial_error *err)
{
    int result = read_kind(q, head, err);
    if (result < 0)
        return result;
    if (head->length > q->cluster_bytes)
        head->length = q->cluster_bytes;
    head->extensions = QCOW2_V2_HEADER_BYTES;
    find_extensions_end(head);
    result = q->version == 3 ? read_version3(q, head, err) : 0;
    if (result == 0)
        result = read_extensions(q, head, err);
    if (result == 0)
        result = check_features(q, head, err);
    if (result == 0)
        result = check_compression(q, head, q->version == 3 ? (uint32_t)head->extensions : 0, err);
    if (result == 0 && (q->incompatible & QCOW2_EXTENDED_L2) != 0 && q->cluster_bits < least_extended_bits)
        result = refuse(q, err, "has extended L2 entries, but clusters that are too small for them");
    if (result < 0)
        return result;
    derive(q);
    result = read_places(q, head, err);
    return result < 0 ? result : read_backing_name(q, head, err);
}

int qcow2_read_header(struct qcow2 *q, struct vial_error *err)
{
    auto_free uint8_t *bytes = alloc_zero(most_read_bytes);
    if (bytes == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    int result = qcow2_read_bytes(q, bytes, most_read_bytes, 0);
    if (result < 0)
        return error_set_os(err, VIAL_PHASE_START, result, "cannot read %s", error_short(q->file.path).text);
    struct head head = {.bytes = bytes, .length = most_read_bytes};
    return read_head(q, &head, err);
}

/* ---- changes ---- */

int qcow2_put_features(struct qcow2 *q)
{
    uint8_t bytes[24];
    qcow2_put64(bytes, q->incompatible);
    qcow2_put64(bytes + 8, q->compatible);
    qcow2_put64(bytes + 16, q->autoclear);
    return qcow2_write_bytes(q, bytes, sizeof(bytes), at_incompatible);
}

int qcow2_put_disk(struct qcow2 *q)
{
    uint8_t bytes[24] = {0}; /* between them: the kind of encryption, none */
    qcow2_put64(bytes, q->size_bytes);
    qcow2_put32(bytes + (at_l1_entries - at_size), q->l1_entries);
    qcow2_put64(bytes + (at_l1_offset - at_size), q->l1_offset);
    return qcow2_write_bytes(q, bytes, sizeof(bytes), at_size);
}

int qcow2_put_refcount_table(struct qcow2 *q)
{
    uint8_t bytes[12];
    qcow2_put64(bytes, q->refcount_table_offset);
    qcow2_put32(bytes + 8, (uint32_t)(q->refcount_table_entries * 8 >> q->cluster_bits));
    return qcow2_write_bytes(q, bytes, sizeof(bytes), at_refcount_table_offset);
}

int qcow2_put_snapshots(struct qcow2 *q)
{
    uint8_t bytes[12];
    qcow2_put32(bytes, q->snapshot_count);
    qcow2_put64(bytes + 4, q->snapshots_offset);
    return qcow2_write_bytes(q, bytes, sizeof(bytes), at_snapshot_count);
}
