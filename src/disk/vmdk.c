// SPDX-License-Identifier: Apache-2.0
/* VMDK disks, for reading.
 *
 *     descriptor (text) -> extents, one behind the other: flat   bytes of a file, as they are
 *                                                         sparse grains of a file (vmdk_sparse.c, vmdk_grain.c)
 *                                                         zero   nothing
 *     or a sparse extent with the descriptor inside, which is all of the disk (monolithicSparse, streamOptimized)
 *
 * Extents are files in the descriptor's own folder, named plainly: the folder is opened once, and names are looked up
 * in it without following links. An absolute path into that same folder is as good. Any other path is opened only if
 * the caller of disk_open has allowed it by name, as a raw file (backing.c): descriptors that join images from a cache
 * name them so. Files that several extents share are opened once.
 *
 * Offsets of flat extents are sectors. One program that joins large images writes bytes instead; such an extent would
 * begin far behind the end of its file, and is taken for what it is when, in bytes, it goes on exactly where the extent
 * before it ended in the same file.
 *
 * Invariants: (1) flat extents lie within their files, sparse ones hold as much as the descriptor says. (2) extents are
 * in order and without gaps, from 0 to the disk's size. (3) a NOACCESS extent's file is not even opened; reading it is
 * -EIO. (4) extents may share bytes of one file: two layers that are the same are stored once.
 *
 * Trust: the descriptor and all files are hostile; the folder is the user's, whose name came with the disk.
 */
#include "disk/vmdk.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "disk/open.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

struct vmdk_file {
    char *name;            /* owned; as the descriptor writes it */
    struct disk_file file; /* owned; its descriptor is -1 where `disk` has it */
    struct disk *disk;     /* owned; or NULL */
};

struct vmdk_extent {
    uint64_t begin, length; /* in the disk */
    enum vmdk_kind kind;
    bool is_forbidden;
    const struct disk_file *file; /* borrowed from `files`, or from disk.c; NULL for zeros */
    uint64_t offset;              /* of a flat one, in its file */
    struct vmdk_sparse sparse;    /* owned */
};

struct vmdk {
    char create_type[32];
    uint64_t size_bytes;
    const struct disk_file *file; /* borrowed: the descriptor's, or the only extent's */
    struct vmdk_file *files;      /* owned; room for LIMIT_VMDK_FILES, so that they stay where they are */
    size_t file_count;
    struct vmdk_extent *extents; /* owned */
    size_t extent_count;
    struct vmdk_cache *cache; /* owned; NULL without sparse extents */
    uint32_t alignment_bytes;
};

/* What opening needs, and nobody afterwards. */
struct way {
    const struct disk_file *file; /* borrowed, as the next two and err are */
    struct disk_opener *opener;
    struct vmdk *vmdk;
    int folder_fd;   /* owned */
    char *folder;    /* owned: its real path */
    uint64_t room;   /* for directories */
    uint64_t tables; /* of all sparse extents so far */
    struct vial_error *err;
};

/* ---- reading ---- */

static struct vmdk_extent *find_extent(const struct vmdk *vmdk, uint64_t offset)
{
    size_t low = 0, high = vmdk->extent_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (vmdk->extents[middle].begin <= offset)
            low = middle;
        else
            high = middle;
    }
    return &vmdk->extents[low];
}

/* Where the bytes from `offset` on lie: within one extent, the offset in its file. */
static int find_place(const struct vmdk *vmdk, uint64_t offset, uint64_t length, bool may_wait,
                      const struct vmdk_extent **ret_extent, struct vmdk_place *ret_place)
{
    struct vmdk_extent *extent = find_extent(vmdk, offset);
    uint64_t within = offset - extent->begin;
    if (length > extent->length - within)
        length = extent->length - within;
    *ret_extent = extent;
    if (extent->is_forbidden)
        return -EIO;
    if (extent->kind == VMDK_SPARSE)
        return vmdk_sparse_find(&extent->sparse, within, length, may_wait, ret_place);
    *ret_place = extent->kind == VMDK_ZERO ? (struct vmdk_place){VMDK_PLACE_ZERO, 0, length}
                                           : (struct vmdk_place){VMDK_PLACE_FILE, extent->offset + within, length};
    return 0;
}

static int vmdk_map(void *state, uint64_t offset, uint64_t length, bool for_writing, struct disk_extent *ret_extent)
{
    const struct vmdk *vmdk = state;
    const struct vmdk_extent *extent = NULL;
    struct vmdk_place place;
    uint64_t mask = vmdk->alignment_bytes - 1;
    (void)for_writing; /* the disk is read only */
    if (find_place(vmdk, offset, length, false, &extent, &place) < 0 || place.kind == VMDK_PLACE_PACKED)
        return -EAGAIN; /* vmdk_read says what is wrong, where something is */
    if (place.kind == VMDK_PLACE_ZERO) {
        *ret_extent = (struct disk_extent){DISK_EXTENT_ZERO, -1, 0, place.length};
        return 0;
    }
    if ((place.offset & mask) != 0 || (place.length & ~mask) == 0)
        return -EAGAIN;
    *ret_extent = (struct disk_extent){DISK_EXTENT_FILE, extent->file->fd, place.offset, place.length & ~mask};
    return 0;
}

static int read_extent(struct vmdk_extent *extent, const struct parts *parts, uint64_t within)
{
    if (extent->is_forbidden)
        return -EIO;
    if (extent->kind == VMDK_SPARSE)
        return vmdk_sparse_read(&extent->sparse, parts, within);
    if (extent->kind == VMDK_FLAT)
        return disk_file_read(extent->file, parts, extent->offset + within);
    parts_fill_zero(parts);
    return 0;
}

static int vmdk_read(void *state, const struct iovec *list, int count, uint64_t offset)
{
    const struct vmdk *vmdk = state;
    struct parts rest = {list, count, 0, 0};
    int result = parts_measure(list, count, &rest.length);
    while (result == 0 && rest.length > 0) {
        struct vmdk_extent *extent = find_extent(vmdk, offset);
        uint64_t within = offset - extent->begin, left = extent->length - within;
        uint64_t length = rest.length < left ? rest.length : left;
        const struct parts piece = parts_cut(&rest, 0, length);
        result = read_extent(extent, &piece, within);
        rest = parts_cut(&rest, length, rest.length - length);
        offset += length;
    }
    return result;
}

static int vmdk_status(void *state, uint64_t offset, uint64_t length, bool *ret_is_zero, uint64_t *ret_length)
{
    const struct vmdk_extent *extent = NULL;
    struct vmdk_place place;
    int result = find_place(state, offset, length, true, &extent, &place);
    if (result < 0)
        return result;
    *ret_is_zero = place.kind == VMDK_PLACE_ZERO;
    *ret_length = place.length;
    if (extent->kind == VMDK_FLAT)
        disk_file_status(extent->file, place.offset, place.length, ret_is_zero, ret_length);
    return 0;
}

static int vmdk_close(void *state, struct vial_error *err)
{
    struct vmdk *vmdk = state;
    (void)err;
    for (size_t i = 0; i < vmdk->extent_count; i++)
        vmdk_sparse_close(&vmdk->extents[i].sparse);
    for (size_t i = 0; i < vmdk->file_count; i++) {
        disk_file_close(&vmdk->files[i].file);
        disk_free(vmdk->files[i].disk);
        free(vmdk->files[i].name);
    }
    vmdk_cache_free(vmdk->cache);
    free(vmdk->files);
    free(vmdk->extents);
    free(vmdk);
    return 0;
}

static const struct disk_ops vmdk_ops = {
    .name = "vmdk",
    .map = vmdk_map,
    .read = vmdk_read,
    .status = vmdk_status,
    .close = vmdk_close,
};

/* ---- the files of extents ---- */

static int refuse(const struct way *way, enum vial_error_code code, const char *name, const char *why,
                  const char *remedy)
{
    int result = error_set(way->err, code, VIAL_PHASE_START, "%s: the extent %s %s", error_short(way->file->path).text,
                           error_short(name).text, why);
    error_remedy(way->err, "%s", remedy);
    return result;
}

/* The name within the descriptor's folder, or NULL when it leads elsewhere. */
static const char *name_in_folder(const struct way *way, const char *name)
{
    const char *last = strrchr(name, '/');
    const char *plain = last != NULL ? last + 1 : name;
    if (plain[0] == '\0' || strcmp(plain, ".") == 0 || strcmp(plain, "..") == 0)
        return NULL;
    if (last == NULL)
        return plain;
    size_t folder_length = strlen(way->folder), length = (size_t)(last - name);
    bool is_root = length == 0 && strcmp(way->folder, "/") == 0;
    return is_root || (length == folder_length && memcmp(name, way->folder, length) == 0) ? plain : NULL;
}

static int open_file(struct way *way, const char *name, struct vmdk_file *file)
{
    const char *plain = name_in_folder(way, name);
    if (plain == NULL)
        return disk_open_backing(way->opener, way->file, name, VIAL_DISK_RAW, &file->disk, way->err);
    /* The path is kept by the file, for messages. */
    const struct disk_file_request request = {.path = file->name + (plain - name),
                                              .folder_fd = way->folder_fd,
                                              .read_only = true,
                                              .direct_io = way->file->alignment_bytes > 1};
    return disk_file_open(&request, &file->file, way->err);
}

static int use_file(struct way *way, const char *name, const struct disk_file **ret_file)
{
    struct vmdk *vmdk = way->vmdk;
    struct vmdk_file *file = vmdk->files;
    while (file < vmdk->files + vmdk->file_count && strcmp(file->name, name) != 0)
        file++;
    if (file == vmdk->files + vmdk->file_count) {
        if (vmdk->file_count == LIMIT_VMDK_FILES)
            return refuse(way, VIAL_ERROR_TOO_BIG, name, "is one file too many", "join the extents to fewer files");
        *file = (struct vmdk_file){.name = alloc_string(name), .file = {.fd = -1}};
        if (file->name == NULL)
            return error_no_memory(way->err, VIAL_PHASE_START);
        vmdk->file_count++;
        int result = open_file(way, name, file);
        if (result < 0)
            return result;
    }
    *ret_file = file->disk != NULL ? &file->disk->file : &file->file;
    if ((*ret_file)->alignment_bytes > vmdk->alignment_bytes)
        vmdk->alignment_bytes = (*ret_file)->alignment_bytes;
    return 0;
}

/* ---- extents ---- */

static bool fits(const struct disk_file *file, uint64_t offset, uint64_t length)
{
    return offset <= file->size_bytes && length <= file->size_bytes - offset;
}

static int open_flat(struct way *way, const struct vmdk_line *line, struct vmdk_extent *extent)
{
    const struct vmdk_extent *before = extent > way->vmdk->extents ? extent - 1 : NULL;
    bool goes_on = before != NULL && before->file == extent->file && before->kind == VMDK_FLAT &&
                   line->offset == before->offset + before->length;
    extent->offset = line->offset * VMDK_SECTOR_BYTES;
    if (fits(extent->file, extent->offset, extent->length))
        return 0;
    if (goes_on && fits(extent->file, line->offset, extent->length)) {
        extent->offset = line->offset;
        log_info("disk.vmdk_offset_in_bytes", LOG_TEXT("path", way->file->path), LOG_UINT("offset", line->offset));
        return 0;
    }
    return refuse(way, VIAL_ERROR_INVALID, line->name, "reaches beyond the end of its file",
                  "copy the file again, or correct the descriptor");
}

static int open_sparse(struct way *way, const char *name, struct vmdk_extent *extent)
{
    struct vmdk_sparse *sparse = &extent->sparse;
    int result = vmdk_sparse_open(extent->file, way->room, sparse, way->err);
    if (result < 0)
        return result;
    way->room -= sparse->table_count * sizeof(*sparse->directory);
    sparse->first_table = way->tables;
    way->tables += sparse->table_count;
    if (extent->length > sparse->capacity_sectors * VMDK_SECTOR_BYTES)
        return refuse(way, VIAL_ERROR_INVALID, name, "holds less than the descriptor says",
                      "copy the file again, or correct the descriptor");
    return 0;
}

static int open_extent(struct way *way, const struct vmdk_line *line)
{
    struct vmdk *vmdk = way->vmdk;
    struct vmdk_extent *extent = &vmdk->extents[vmdk->extent_count++];
    *extent = (struct vmdk_extent){.begin = vmdk->size_bytes,
                                   .length = line->sectors * VMDK_SECTOR_BYTES,
                                   .kind = line->kind,
                                   .is_forbidden = line->access == VMDK_NO_ACCESS};
    vmdk->size_bytes += extent->length;
    if (extent->is_forbidden || line->kind == VMDK_ZERO)
        return 0;
    int result = use_file(way, line->name, &extent->file);
    if (result < 0)
        return result;
    return line->kind == VMDK_FLAT ? open_flat(way, line, extent) : open_sparse(way, line->name, extent);
}

/* All sparse extents share one cache, which is as large as they need together. */
static int finish(struct way *way)
{
    struct vmdk *vmdk = way->vmdk;
    if (way->tables == 0)
        return 0;
    vmdk->cache = vmdk_cache_new(way->tables);
    if (vmdk->cache == NULL)
        return error_no_memory(way->err, VIAL_PHASE_START);
    for (size_t i = 0; i < vmdk->extent_count; i++)
        vmdk->extents[i].sparse.cache = vmdk->cache;
    return 0;
}

static int open_folder(struct way *way)
{
    const char *path = way->file->path, *slash = strrchr(path, '/');
    size_t length = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
    auto_free char *folder = alloc_zero(length + 2);
    if (folder == NULL)
        return error_no_memory(way->err, VIAL_PHASE_START);
    memcpy(folder, length > 0 ? path : ".", length > 0 ? length : 1);
    way->folder_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    way->folder = realpath(folder, NULL);
    if (way->folder_fd < 0 || way->folder == NULL)
        return error_set_os(way->err, VIAL_PHASE_START, errno, "cannot open the folder of %s", error_short(path).text);
    return 0;
}

static int open_lines(struct way *way, const struct vmdk_descriptor *descriptor)
{
    struct vmdk *vmdk = way->vmdk;
    memcpy(vmdk->create_type, descriptor->create_type, sizeof(vmdk->create_type));
    size_t most_files = descriptor->count < LIMIT_VMDK_FILES ? descriptor->count : LIMIT_VMDK_FILES;
    vmdk->extents = alloc_zero(descriptor->count * sizeof(*vmdk->extents));
    vmdk->files = alloc_zero(most_files * sizeof(*vmdk->files));
    if (vmdk->extents == NULL || vmdk->files == NULL)
        return error_no_memory(way->err, VIAL_PHASE_START);
    int result = open_folder(way);
    for (size_t i = 0; i < descriptor->count && result == 0; i++)
        result = open_extent(way, &descriptor->lines[i]);
    return result;
}

/* ---- the two forms of a disk ---- */

static int read_descriptor(const struct way *way, uint64_t offset, uint64_t length,
                           struct vmdk_descriptor *ret_descriptor)
{
    const char *path = way->file->path;
    if (length == 0 || length > LIMIT_VMDK_DESCRIPTOR_BYTES || !fits(way->file, offset, length)) {
        int result = error_set(way->err, VIAL_ERROR_INVALID, VIAL_PHASE_START,
                               "the descriptor of %s has an impossible length or place", error_short(path).text);
        error_remedy(way->err, "name the descriptor of a VMDK disk, a text of at most %u KiB",
                     LIMIT_VMDK_DESCRIPTOR_BYTES >> 10);
        return result;
    }
    auto_free char *text = alloc_zero((size_t)length);
    if (text == NULL)
        return error_no_memory(way->err, VIAL_PHASE_START);
    int result = disk_file_read_bytes(way->file, text, (size_t)length, offset);
    if (result < 0)
        return error_set_os(way->err, VIAL_PHASE_START, result, "cannot read %s", error_short(path).text);
    return vmdk_descriptor_parse(path, text, (size_t)length, ret_descriptor, way->err);
}

static int open_text(struct way *way)
{
    struct vmdk_descriptor descriptor;
    int result = read_descriptor(way, 0, way->file->size_bytes, &descriptor);
    if (result < 0)
        return result;
    result = open_lines(way, &descriptor);
    vmdk_descriptor_free(&descriptor);
    return result;
}

/* Whether there is one inside: the parts of a disk may have room for it, and zeros there. */
static bool has_descriptor(const struct way *way, const struct vmdk_sparse *sparse)
{
    char first = '\0';
    if (sparse->descriptor_sector == 0)
        return false;
    if (sparse->descriptor_sector >= way->file->size_bytes / VMDK_SECTOR_BYTES)
        return true; /* a broken one */
    int result = disk_file_read_bytes(way->file, &first, 1, sparse->descriptor_sector * VMDK_SECTOR_BYTES);
    return result < 0 || first != '\0';
}

/* What the embedded descriptor says of its one extent is in the header, too; it tells whether this is all of a disk. */
static int check_embedded(struct way *way, const struct vmdk_sparse *sparse)
{
    struct vmdk_descriptor descriptor;
    const uint64_t most = LIMIT_VMDK_DESCRIPTOR_BYTES / VMDK_SECTOR_BYTES;
    if (!has_descriptor(way, sparse))
        return refuse(way, VIAL_ERROR_WRONG_KIND, way->file->path, "is a part of a disk",
                      "name the disk's descriptor, which names this file");
    if (sparse->descriptor_sectors > most || sparse->descriptor_sector > way->file->size_bytes / VMDK_SECTOR_BYTES)
        return read_descriptor(way, UINT64_MAX, 0, &descriptor); /* says so */
    int result = read_descriptor(way, sparse->descriptor_sector * VMDK_SECTOR_BYTES,
                                 sparse->descriptor_sectors * VMDK_SECTOR_BYTES, &descriptor);
    if (result < 0)
        return result;
    bool is_sound = descriptor.count == 1 && descriptor.lines[0].kind == VMDK_SPARSE;
    memcpy(way->vmdk->create_type, descriptor.create_type, sizeof(way->vmdk->create_type));
    vmdk_descriptor_free(&descriptor);
    return is_sound ? 0
                    : refuse(way, VIAL_ERROR_INVALID, way->file->path, "has a descriptor of another disk inside",
                             "name the disk's own descriptor");
}

static int open_single(struct way *way)
{
    struct vmdk *vmdk = way->vmdk;
    vmdk->extents = alloc_zero(sizeof(*vmdk->extents));
    if (vmdk->extents == NULL)
        return error_no_memory(way->err, VIAL_PHASE_START);
    vmdk->extent_count = 1;
    struct vmdk_extent *extent = vmdk->extents;
    *extent = (struct vmdk_extent){.kind = VMDK_SPARSE, .file = way->file};
    int result = open_sparse(way, way->file->path, extent);
    if (result < 0)
        return result;
    extent->length = extent->sparse.capacity_sectors * VMDK_SECTOR_BYTES;
    vmdk->size_bytes = extent->length;
    return check_embedded(way, &extent->sparse);
}

static int open_any(struct way *way)
{
    int is_sparse = vmdk_sparse_probe(way->file);
    if (is_sparse < 0)
        return error_set_os(way->err, VIAL_PHASE_START, is_sparse, "cannot read %s", error_short(way->file->path).text);
    int result = is_sparse ? open_single(way) : open_text(way);
    return result == 0 ? finish(way) : result;
}

static uint32_t find_best(const struct vmdk *vmdk)
{
    const struct vmdk_extent *first = &vmdk->extents[0];
    return first->kind == VMDK_SPARSE && first->sparse.directory != NULL ? (uint32_t)first->sparse.grain_bytes : 4096;
}

int vmdk_open(const struct disk_file *file, struct disk_opener *opener, struct disk_shape *ret_shape,
              struct vial_error *err)
{
    if (!file->is_read_only) {
        error_set(err, VIAL_ERROR_UNSUPPORTED, VIAL_PHASE_START, "%s is a VMDK disk, which cannot be written to",
                  error_short(file->path).text);
        error_remedy(err, "open it read only, or convert it to raw or qcow2");
        return -ENOTSUP;
    }
    struct vmdk *vmdk = alloc_zero(sizeof(*vmdk));
    if (vmdk == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    vmdk->file = file;
    vmdk->alignment_bytes = file->alignment_bytes;
    struct way way = {
        .file = file, .opener = opener, .vmdk = vmdk, .folder_fd = -1, .room = LIMIT_VMDK_DIRECTORY_BYTES, .err = err};
    int result = open_any(&way);
    fd_close(way.folder_fd);
    free(way.folder);
    if (result < 0) {
        vmdk_close(vmdk, NULL);
        return result;
    }
    ret_shape->ops = &vmdk_ops;
    ret_shape->state = vmdk;
    ret_shape->properties = (struct disk_properties){.size_bytes = vmdk->size_bytes,
                                                     .alignment_bytes = vmdk->alignment_bytes,
                                                     .best_bytes = find_best(vmdk),
                                                     .is_read_only = true};
    return 0;
}

/* ---- looking ---- */

static void add_file(const struct disk_file *file, struct image_info *info)
{
    struct stat about;
    if (fstat(file->fd, &about) < 0)
        return;
    info->file_bytes += (uint64_t)about.st_size;
    info->allocated_bytes += (uint64_t)about.st_blocks * VMDK_SECTOR_BYTES;
}

void vmdk_info(const void *state, struct image_info *ret_info)
{
    const struct vmdk *vmdk = state;
    memcpy(ret_info->create_type, vmdk->create_type, sizeof(ret_info->create_type));
    ret_info->extent_count = (uint32_t)vmdk->extent_count;
    for (size_t i = 0; i < vmdk->file_count; i++)
        add_file(vmdk->files[i].disk != NULL ? &vmdk->files[i].disk->file : &vmdk->files[i].file, ret_info);
}
