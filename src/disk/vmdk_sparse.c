// SPDX-License-Identifier: Apache-2.0
/* Sparse extents of VMDK disks: header and grain directory (VMware, Virtual Disk Format 5.0, "Hosted Sparse Extents"
 * and "Stream-Optimized Compressed Sparse Extents").
 *
 *     header -> grain directory -> grain tables, of 512 entries -> grains, 64 KiB each as a rule
 *     sector 0  [a sector a table]  [a sector a grain]
 *
 * A stream-optimized extent was written without going back: the directory stands at its end, and so does a second
 * header, the footer, that knows where. Its grains are compressed, each behind a marker with its place and its length.
 * Where the directory exists twice, a table that the first one does not find is looked for in the second.
 *
 * Invariants: (1) nothing is believed before it was checked: counts against limits, sectors against the file. (2) what
 * the directory costs is bounded by the caller, whatever capacity the header claims.
 *
 * Trust: every byte of the file is hostile.
 */
#include "disk/vmdk.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

enum {
    flag_newlines = 1u << 0,
    flag_redundant = 1u << 1,
    flag_zero_grains = 1u << 2,
    flag_compressed = 1u << 16,
    flag_markers = 1u << 17,
    compression_deflate = 1,
    marker_end = 0,
    marker_footer = 3,
    least_grain_sectors = 8,
    most_table_entries = 512,
};

static const uint32_t header_magic = 0x564d444b; /* "KDMV" */
static const uint64_t directory_at_end = UINT64_MAX;

/* SparseExtentHeader; numbers in little-endian order. */
struct header {
    uint32_t magic, version, flags;
    uint64_t capacity, grain_size;
    uint64_t descriptor_offset, descriptor_size;
    uint32_t table_entries;
    uint64_t redundant_offset, directory_offset, overhead;
    uint8_t is_unclean;
    char newlines[4];
    uint16_t compression;
    uint8_t pad[433];
} __attribute__((packed));
_Static_assert(sizeof(struct header) == VMDK_SECTOR_BYTES, "the header is one sector");

/* What stands in front of a footer and at the end of the file. */
struct marker {
    uint64_t value;
    uint32_t size, type;
    uint8_t pad[496];
} __attribute__((packed));
_Static_assert(sizeof(struct marker) == VMDK_SECTOR_BYTES, "a marker without data is one sector");

static int refuse(const struct disk_file *file, enum vial_error_code code, const char *why, struct vial_error *err)
{
    int result = error_set(err, code, VIAL_PHASE_START, "%s: %s", error_short(file->path).text, why);
    error_remedy(err, code == VIAL_ERROR_UNSUPPORTED ? "convert it with the program that made it"
                                                     : "the file is broken or was cut: copy or convert it again");
    return result;
}

static int refuse_read(const struct disk_file *file, int result, struct vial_error *err)
{
    if (result == -ENOMEM)
        return error_no_memory(err, VIAL_PHASE_START);
    return error_set_os(err, VIAL_PHASE_START, result, "cannot read %s", error_short(file->path).text);
}

int vmdk_sparse_probe(const struct disk_file *file)
{
    uint32_t magic = 0;
    if (file->size_bytes < sizeof(struct header))
        return 0;
    int result = disk_file_read_bytes(file, &magic, sizeof(magic), 0);
    return result < 0 ? result : le32toh(magic) == header_magic;
}

/* ---- header ---- */

/* A header whose directory stands at the end is replaced by the footer there. */
static int take_footer(const struct disk_file *file, struct header *header, struct vial_error *err)
{
    struct {
        struct marker before;
        struct header header;
        struct marker end;
    } last;
    if (file->size_bytes < sizeof(struct header) + sizeof(last))
        return refuse(file, VIAL_ERROR_INVALID, "it ends before the footer that its header promises", err);
    int result = disk_file_read_bytes(file, &last, sizeof(last), file->size_bytes - sizeof(last));
    if (result < 0)
        return refuse_read(file, result, err);
    if (last.before.size != 0 || le32toh(last.before.type) != marker_footer || last.end.value != 0 ||
        last.end.size != 0 || last.end.type != marker_end || le32toh(last.header.magic) != header_magic ||
        le64toh(last.header.directory_offset) == directory_at_end)
        return refuse(file, VIAL_ERROR_INVALID, "there is no footer at its end, as its header promises", err);
    *header = last.header;
    return 0;
}

static int check_version(const struct disk_file *file, const struct header *header, struct vial_error *err)
{
    uint32_t version = le32toh(header->version), flags = le32toh(header->flags);
    static const char newlines[4] = {'\n', ' ', '\r', '\n'};
    if (version < 1 || version > 3)
        return refuse(file, VIAL_ERROR_UNSUPPORTED, "sparse extents of this version are not read here", err);
    if ((flags & flag_newlines) != 0 && memcmp(header->newlines, newlines, sizeof(newlines)) != 0)
        return refuse(file, VIAL_ERROR_INVALID, "its line ends were changed on the way here, as in a text", err);
    bool is_compressed = (flags & flag_compressed) != 0;
    if (le16toh(header->compression) != (is_compressed ? compression_deflate : 0))
        return refuse(file, VIAL_ERROR_UNSUPPORTED, "this way of compressing grains is not read here", err);
    return 0;
}

static int check_sizes(const struct disk_file *file, const struct header *header, struct vial_error *err)
{
    uint64_t capacity = le64toh(header->capacity), grain = le64toh(header->grain_size);
    uint32_t entries = le32toh(header->table_entries);
    if (capacity == 0 || capacity > INT64_MAX / VMDK_SECTOR_BYTES)
        return refuse(file, VIAL_ERROR_INVALID, "its capacity is impossible", err);
    if (grain < least_grain_sectors || grain > LIMIT_VMDK_GRAIN_BYTES / VMDK_SECTOR_BYTES || (grain & (grain - 1)) != 0)
        return refuse(file, VIAL_ERROR_INVALID, "its grains are not of 4 KiB to 2 MiB", err);
    if (entries == 0 || entries > most_table_entries)
        return refuse(file, VIAL_ERROR_INVALID, "its grain tables are not of 1 to 512 entries", err);
    return 0;
}

static int read_header(const struct disk_file *file, struct header *header, struct vial_error *err)
{
    if (file->size_bytes < sizeof(*header))
        return refuse(file, VIAL_ERROR_INVALID, "it is too short for a sparse extent", err);
    int result = disk_file_read_bytes(file, header, sizeof(*header), 0);
    if (result < 0)
        return refuse_read(file, result, err);
    if (le32toh(header->magic) != header_magic)
        return refuse(file, VIAL_ERROR_INVALID, "it does not begin as a sparse extent does", err);
    if (le64toh(header->directory_offset) == directory_at_end)
        result = take_footer(file, header, err);
    if (result == 0)
        result = check_version(file, header, err);
    return result == 0 ? check_sizes(file, header, err) : result;
}

/* ---- directory ---- */

static bool lies_in_file(const struct disk_file *file, uint64_t sector, uint64_t length)
{
    uint64_t sectors = file->size_bytes / VMDK_SECTOR_BYTES;
    return sector > 0 && sector < sectors && length <= file->size_bytes - sector * VMDK_SECTOR_BYTES;
}

static int read_directory(const struct disk_file *file, uint64_t sector, uint32_t *directory, uint64_t count,
                          struct vial_error *err)
{
    if (!lies_in_file(file, sector, count * sizeof(*directory)))
        return refuse(file, VIAL_ERROR_INVALID, "its grain directory lies outside the file", err);
    int result = disk_file_read_bytes(file, directory, (size_t)(count * sizeof(*directory)),
                                      sector * VMDK_SECTOR_BYTES);
    if (result < 0)
        return refuse_read(file, result, err);
    for (uint64_t i = 0; i < count; i++)
        directory[i] = le32toh(directory[i]);
    return 0;
}

/* Tables that the first directory places outside the file are taken from the second, as far as that has them. */
static int mend_directory(const struct disk_file *file, const struct header *header, struct vmdk_sparse *sparse,
                          struct vial_error *err)
{
    uint64_t table_bytes = sparse->table_entries * sizeof(uint32_t), lost = 0, mended = 0;
    for (uint64_t i = 0; i < sparse->table_count; i++)
        lost += sparse->directory[i] != 0 && !lies_in_file(file, sparse->directory[i], table_bytes);
    if (lost == 0 || (le32toh(header->flags) & flag_redundant) == 0)
        return 0;
    auto_free uint32_t *second = alloc_zero((size_t)sparse->table_count * sizeof(*second));
    if (second == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    if (read_directory(file, le64toh(header->redundant_offset), second, sparse->table_count, NULL) < 0)
        return 0; /* reading there fails */
    for (uint64_t i = 0; i < sparse->table_count; i++)
        if (sparse->directory[i] != 0 && !lies_in_file(file, sparse->directory[i], table_bytes) &&
            lies_in_file(file, second[i], table_bytes)) {
            sparse->directory[i] = second[i];
            mended++;
        }
    log_warn("disk.vmdk_directory_broken", LOG_TEXT("path", file->path), LOG_UINT("tables", lost),
             LOG_UINT("found_in_copy", mended));
    return 0;
}

int vmdk_sparse_open(const struct disk_file *file, uint64_t most_directory_bytes, struct vmdk_sparse *ret_sparse,
                     struct vial_error *err)
{
    struct header header;
    int result = read_header(file, &header, err);
    if (result < 0)
        return result;
    uint32_t flags = le32toh(header.flags);
    struct vmdk_sparse sparse = {
        .file = file,
        .capacity_sectors = le64toh(header.capacity),
        .grain_bytes = le64toh(header.grain_size) * VMDK_SECTOR_BYTES,
        .descriptor_sector = le64toh(header.descriptor_offset),
        .descriptor_sectors = le64toh(header.descriptor_size),
        .table_entries = le32toh(header.table_entries),
        .has_zero_grains = (flags & flag_zero_grains) != 0,
        .is_compressed = (flags & flag_compressed) != 0,
        .has_markers = (flags & flag_markers) != 0,
    };
    uint64_t table_sectors = sparse.table_entries * (sparse.grain_bytes / VMDK_SECTOR_BYTES);
    sparse.table_count = (sparse.capacity_sectors - 1) / table_sectors + 1;
    if (sparse.table_count > most_directory_bytes / sizeof(*sparse.directory))
        return refuse(file, VIAL_ERROR_TOO_BIG, "its grain directory is larger than this disk's may be", err);
    sparse.directory = alloc_zero((size_t)sparse.table_count * sizeof(*sparse.directory));
    if (sparse.directory == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    result = read_directory(file, le64toh(header.directory_offset), sparse.directory, sparse.table_count, err);
    if (result == 0)
        result = mend_directory(file, &header, &sparse, err);
    if (result < 0) {
        vmdk_sparse_close(&sparse);
        return result;
    }
    *ret_sparse = sparse;
    return 0;
}

void vmdk_sparse_close(struct vmdk_sparse *sparse)
{
    free(sparse->directory);
    sparse->directory = NULL;
}
