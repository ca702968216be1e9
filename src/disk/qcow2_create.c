// SPDX-License-Identifier: Apache-2.0
/* Making a qcow2 image.
 *
 *     | header | refcount table | refcount blocks | L1 table |        nothing yet; or, preallocated, L2 tables and data
 *     cluster 0  1 …
 *
 * The refcount blocks count everything up to the end of the L1 table, themselves included. The header goes in last, so
 * a file that is cut short on the way is no image. Preallocation is then done like any other change of an open image.
 *
 * Invariants: (1) what is refused is refused before the file is touched. (2) everything that the header names is
 * written.
 *
 * Trust: options are the user's.
 */
#include "disk/qcow2_state.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/limits.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { default_cluster_bytes = 64 << 10, v3_header_bytes = 112, zero_chunk_bytes = 1 << 20 };

/* Options with their defaults filled in, and where things will lie. */
struct plan {
    const struct image_create_options *options; /* borrowed */
    uint32_t version, cluster_bits, refcount_order;
    uint64_t l1_entries;
    uint64_t table_clusters, blocks, l1_clusters;
};

/* ---- options ---- */

static int refuse(const struct plan *plan, struct vial_error *err, const char *field, const char *what)
{
    int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_CONFIGURE, "cannot make the qcow2 image %s: %s",
                           error_short(plan->options->path != NULL ? plan->options->path : "").text, what);
    error_field(err, "%s", field);
    return result;
}

static bool is_power(uint32_t value, uint32_t least, uint32_t most)
{
    return value >= least && value <= most && (value & (value - 1)) == 0;
}

static int check_version2(const struct plan *plan, struct vial_error *err)
{
    const struct image_create_options *options = plan->options;
    if (plan->refcount_order != 4)
        return refuse(plan, err, "refcount_bits", "version 2 has refcounts of 16 bits");
    if (options->lazy_refcounts)
        return refuse(plan, err, "lazy_refcounts", "version 2 has no lazy refcounts");
    if (options->compression != IMAGE_ZLIB)
        return refuse(plan, err, "compression", "version 2 is compressed with zlib only");
    return 0;
}

static int check_options(struct plan *plan, struct vial_error *err)
{
    const struct image_create_options *options = plan->options;
    uint32_t cluster_bytes = options->cluster_bytes != 0 ? options->cluster_bytes : default_cluster_bytes;
    uint32_t refcount_bits = options->refcount_bits != 0 ? options->refcount_bits : 16;
    plan->version = options->version != 0 ? options->version : 3;
    if (plan->version != 2 && plan->version != 3)
        return refuse(plan, err, "version", "there are versions 2 and 3");
    if (!is_power(cluster_bytes, 512, 2 << 20))
        return refuse(plan, err, "cluster_bytes", "clusters have 512 bytes to 2 MiB, a power of two");
    if (!is_power(refcount_bits, 1, 64))
        return refuse(plan, err, "refcount_bits", "refcounts have 1 to 64 bits, a power of two");
    if (options->compression != IMAGE_ZLIB && options->compression != IMAGE_ZSTD)
        return refuse(plan, err, "compression", "clusters are compressed with zlib or zstd");
    if (options->size_bytes % 512 != 0 || options->size_bytes > INT64_MAX)
        return refuse(plan, err, "size_bytes", "its size must be a multiple of 512, below 8 EiB");
    if (options->backing_path != NULL && options->preallocation != IMAGE_SPARSE)
        return refuse(plan, err, "preallocation", "clusters with a place would hide what lies under it");
    if (options->backing_path != NULL &&
        (options->backing_path[0] == '\0' || strlen(options->backing_path) >= IMAGE_NAME_BYTES))
        return refuse(plan, err, "backing_path", "the name of what lies under it has 1 to 1023 bytes");
    plan->cluster_bits = (uint32_t)__builtin_ctz(cluster_bytes);
    plan->refcount_order = (uint32_t)__builtin_ctz(refcount_bits);
    return plan->version == 2 ? check_version2(plan, err) : 0;
}

/* ---- where things lie ---- */

static uint64_t round_up(uint64_t bytes, uint32_t bits)
{
    return (bytes >> bits) + ((bytes & ((UINT64_C(1) << bits) - 1)) != 0);
}

static int lay_out(struct plan *plan, struct vial_error *err)
{
    uint32_t block_bits = plan->cluster_bits + 3 - plan->refcount_order;
    uint64_t clusters = 0, before = 0;
    plan->l1_entries = round_up(round_up(plan->options->size_bytes, plan->cluster_bits), plan->cluster_bits - 3);
    plan->l1_clusters = round_up(plan->l1_entries * 8, plan->cluster_bits);
    if (plan->l1_entries * 8 > LIMIT_QCOW2_L1_BYTES)
        return refuse(plan, err, "cluster_bytes", "it is too large for clusters of this size");
    do {
        before = clusters;
        clusters = 1 + plan->table_clusters + plan->blocks + plan->l1_clusters;
        plan->blocks = round_up(clusters, block_bits);
        plan->table_clusters = round_up(plan->blocks * 8, plan->cluster_bits);
    } while (clusters != before);
    return 0;
}

/* ---- the header ---- */

static void add_extension(struct buffer *header, uint32_t type, const void *data, size_t length)
{
    static const uint8_t padding[8];
    uint8_t head[8];
    qcow2_put32(head, type);
    qcow2_put32(head + 4, (uint32_t)length);
    buffer_add(header, head, sizeof(head));
    buffer_add(header, data, length);
    buffer_add(header, padding, -length & 7);
}

static void add_extensions(struct buffer *header, const struct plan *plan)
{
    static const struct {
        uint8_t kind, bit;
        char name[QCOW2_FEATURE_NAME_BYTES];
    } names[] = {
        {0, 0, "dirty bit"},
        {0, 1, "corrupt bit"},
        {0, 3, "compression type"},
        {1, 0, "lazy refcounts"},
    };
    static const char *const formats[] = {
        [VIAL_DISK_RAW] = "raw", [VIAL_DISK_QCOW2] = "qcow2", [VIAL_DISK_VMDK] = "vmdk"};
    enum vial_disk_format format = plan->options->backing_format;
    if (plan->options->backing_path != NULL && format != VIAL_DISK_UNSET && (size_t)format < array_length(formats))
        add_extension(header, (uint32_t)QCOW2_EXTENSION_FORMAT, formats[format], strlen(formats[format]));
    if (plan->version == 3)
        add_extension(header, QCOW2_EXTENSION_NAMES, names, sizeof(names));
    add_extension(header, QCOW2_EXTENSION_END, "", 0);
}

static void fill_header(uint8_t *bytes, const struct plan *plan)
{
    const struct image_create_options *options = plan->options;
    uint64_t table = 1, l1 = table + plan->table_clusters + plan->blocks;
    qcow2_put32(bytes, QCOW2_MAGIC);
    qcow2_put32(bytes + 4, plan->version);
    qcow2_put32(bytes + 20, plan->cluster_bits);
    qcow2_put64(bytes + 24, options->size_bytes);
    qcow2_put32(bytes + 36, (uint32_t)plan->l1_entries);
    qcow2_put64(bytes + 40, plan->l1_entries > 0 ? l1 << plan->cluster_bits : 0);
    qcow2_put64(bytes + 48, table << plan->cluster_bits);
    qcow2_put32(bytes + 56, (uint32_t)plan->table_clusters);
    if (plan->version < 3)
        return;
    qcow2_put64(bytes + 72, options->compression == IMAGE_ZSTD ? QCOW2_COMPRESSION : 0);
    qcow2_put64(bytes + 80, options->lazy_refcounts ? QCOW2_LAZY_REFCOUNTS : 0);
    qcow2_put32(bytes + 96, plan->refcount_order);
    qcow2_put32(bytes + 100, v3_header_bytes);
    bytes[104] = options->compression == IMAGE_ZSTD;
}

/* The header as it will be in the first cluster. */
static int make_header(const struct plan *plan, struct buffer *header, struct vial_error *err)
{
    uint8_t fixed[v3_header_bytes] = {0};
    const char *backing = plan->options->backing_path;
    fill_header(fixed, plan);
    buffer_add(header, fixed, plan->version == 3 ? v3_header_bytes : QCOW2_V2_HEADER_BYTES);
    add_extensions(header, plan);
    size_t at = header->length;
    if (backing != NULL && buffer_add_text(header, backing) == 0) {
        qcow2_put64(header->data + 8, at);
        qcow2_put32(header->data + 16, (uint32_t)strlen(backing));
    }
    if (header->error == -ENOBUFS)
        return refuse(plan, err, "backing_path", "a cluster has no room for the name of what lies under it");
    return header->error < 0 ? error_no_memory(err, VIAL_PHASE_RUN) : 0;
}

/* ---- writing ---- */

static int write_at(int fd, const void *bytes, size_t length, uint64_t offset)
{
    const uint8_t *at = bytes;
    while (length > 0) {
        ssize_t written = pwrite(fd, at, length, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return written < 0 ? -errno : -EIO;
        at += written;
        offset += (uint64_t)written;
        length -= (size_t)written;
    }
    return 0;
}

static int write_refcounts(int fd, const struct plan *plan)
{
    const struct qcow2 shape = {.refcount_order = plan->refcount_order};
    uint64_t cluster_bytes = UINT64_C(1) << plan->cluster_bits, first = 1 + plan->table_clusters;
    uint64_t entries = cluster_bytes * 8 >> plan->refcount_order, used = first + plan->blocks + plan->l1_clusters;
    auto_free uint8_t *block = alloc_zero((size_t)cluster_bytes);
    int result = block == NULL ? -ENOMEM : 0;
    for (uint64_t i = 0; i < plan->blocks && result == 0; i++) {
        uint8_t entry[8];
        memset(block, 0, (size_t)cluster_bytes);
        for (uint64_t k = 0; k < entries && i * entries + k < used; k++)
            qcow2_refcount_put(&shape, block, k, 1);
        qcow2_put64(entry, (first + i) << plan->cluster_bits);
        result = write_at(fd, block, (size_t)cluster_bytes, (first + i) << plan->cluster_bits);
        if (result == 0)
            result = write_at(fd, entry, sizeof(entry), cluster_bytes + i * sizeof(entry));
    }
    return result;
}

/* Everything but what is preallocated; tables without entries are holes. */
static int write_image(int fd, const struct plan *plan, const struct buffer *header)
{
    uint64_t clusters = 1 + plan->table_clusters + plan->blocks + plan->l1_clusters;
    if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)(clusters << plan->cluster_bits)) < 0)
        return -errno;
    int result = write_refcounts(fd, plan);
    return result < 0 ? result : write_at(fd, header->data, header->length, 0);
}

/* ---- preallocation ---- */

static int write_whole_disk(struct qcow2 *q)
{
    auto_free uint8_t *zeros = alloc_zero(zero_chunk_bytes);
    int result = zeros == NULL ? -ENOMEM : 0;
    for (uint64_t done = 0; done < q->size_bytes && result == 0; done += zero_chunk_bytes) {
        uint64_t left = q->size_bytes - done;
        const struct iovec part = {zeros, left < zero_chunk_bytes ? (size_t)left : zero_chunk_bytes};
        const struct parts parts = {&part, 1, 0, part.iov_len};
        result = qcow2_write_guest(q, &parts, done, true);
    }
    return result;
}

static int preallocate(struct qcow2 *q, enum image_preallocation how)
{
    pthread_mutex_lock(&q->change);
    int result = qcow2_index_metadata(q);
    if (result == 0)
        result = qcow2_preallocate(q, 0, q->size_bytes);
    if (result == 0 && how != IMAGE_METADATA && fallocate(q->file.fd, 0, 0, (off_t)atomic_load(&q->file_end)) < 0 &&
        (errno != EOPNOTSUPP || how == IMAGE_FALLOCATE))
        result = -errno;
    if (result == 0 && how == IMAGE_FULL)
        result = write_whole_disk(q);
    pthread_mutex_unlock(&q->change);
    return result < 0 ? qcow2_result(q, result) : qcow2_write_back(q);
}

static int open_and_preallocate(int fd, const struct plan *plan, struct vial_error *err)
{
    struct disk_file file = {.fd = fd, .path = plan->options->path, .alignment_bytes = 1};
    struct stat status;
    struct qcow2 *q = NULL;
    if (plan->options->preallocation == IMAGE_SPARSE || plan->options->size_bytes == 0)
        return 0;
    if (file.path == NULL)
        file.path = "";
    if (fstat(fd, &status) < 0)
        return error_set_os(err, VIAL_PHASE_RUN, errno, "cannot examine %s", error_short(file.path).text);
    file.size_bytes = (uint64_t)status.st_size;
    int result = qcow2_load(&file, false, &q, err);
    if (result < 0)
        return result;
    result = preallocate(q, plan->options->preallocation);
    qcow2_free(q);
    return result < 0 ? error_set_os(err, VIAL_PHASE_RUN, result, "cannot give every cluster of %s its place",
                                     error_short(file.path).text)
                      : 0;
}

int qcow2_create(int fd, const struct image_create_options *options, struct vial_error *err)
{
    struct plan plan = {.options = options};
    int result = check_options(&plan, err);
    if (result == 0)
        result = lay_out(&plan, err);
    if (result < 0)
        return result;
    auto_buffer struct buffer header = BUFFER_INIT((size_t)1 << plan.cluster_bits);
    result = make_header(&plan, &header, err);
    if (result < 0)
        return result;
    result = write_image(fd, &plan, &header);
    if (result < 0)
        return error_set_os(err, VIAL_PHASE_RUN, result, "cannot write the qcow2 image %s",
                            error_short(options->path != NULL ? options->path : "").text);
    return open_and_preallocate(fd, &plan, err);
}
