// SPDX-License-Identifier: Apache-2.0
/* A stream of records (tree.h), made into files.
 *
 *     folders   top ── a ── a/b            each an open descriptor, with the mode and time that it gets when it is left
 *     file      the one that BYTES are for, with the same
 *
 * The stream comes depth first, so the folder of each file is one of those that are open; any other is refused. So
 * every name is made, replaced or opened relative to a descriptor, one name at a time and without following links:
 * neither ".." nor a link, be it of the stream or somebody else's, leads anywhere. Only another name of an earlier file
 * (`same`) is looked up by a path, and that, too, goes folder by folder from the top.
 *
 * What is in the way of a name is removed unless both are folders; a file is always a new one (O_EXCL), never written
 * into, so no name outside of the tree changes what it shows. A new file belongs to us and to nobody else (0600) until
 * it is whole: then it gets its owner, mode and time, in this order, because a change of owner takes set-id bits away.
 * A folder gets them when it is left, because what is made in it would change its time and might be forbidden.
 *
 * Invariants: (1) nothing outside of the top is made, changed or removed. (2) memory is one record, and one descriptor
 * for each level, at most TREE_MOST_DEPTH. (3) set-id bits and owners are those of the stream only with TREE_OWNERS; a
 * device is never made. (4) after a failure nothing more is done, and the failure is told again.
 *
 * Trust: nothing in the stream. The folder may be shared with others who rename and link meanwhile: descriptors hold.
 */
#include "proto/tree.h"

#include "base/alloc.h"
#include "proto/tree_record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a file or folder gets in the end. */
struct attributes {
    mode_t mode;
    uid_t uid;
    gid_t gid;
    struct timespec mtime;
};

struct level {
    int folder;   /* owned */
    bool is_kept; /* it keeps its attributes */
    size_t path_length;
    struct attributes attributes;
};

struct tree_writer {
    int parent; /* owned: where the top is to be */
    char top_name[TREE_MOST_NAME_BYTES + 1];
    uint32_t flags;
    bool has_begun, has_ended;
    struct level levels[TREE_MOST_DEPTH + 1]; /* the top is the first, if it is a folder */
    size_t depth;                             /* of levels in use */
    char path[TREE_MOST_PATH_BYTES + 1];      /* of the file or folder that is being made */
    struct tree_counts counts;
    int os_error; /* negative; sticks */
    /* the file that BYTES are for */
    int file; /* owned */
    uint64_t at, size;
    struct attributes attributes;
    /* the record that is coming in */
    enum tree_kind kind;
    size_t body_bytes; /* known once the header is there */
    size_t record_length;
    uint8_t record[TREE_HEADER_BYTES + TREE_MOST_RECORD_BYTES];
};

/* ---- life ---- */

int tree_writer_new(int folder, const char *name, uint32_t flags, struct tree_writer **ret_writer)
{
    bool is_named = name[0] != '\0' || (flags & TREE_NO_TOP) != 0;
    if (!tree_is_top_name(name) || !is_named || (flags & ~(uint32_t)(TREE_OWNERS | TREE_NO_TOP)) != 0)
        return -EINVAL;
    struct tree_writer *writer = alloc_zero(sizeof(*writer));
    if (writer == NULL)
        return -ENOMEM;
    writer->file = -1;
    writer->flags = flags;
    writer->parent = fcntl(folder, F_DUPFD_CLOEXEC, 0);
    if (writer->parent < 0) {
        int result = -errno;
        tree_writer_free(writer);
        return result;
    }
    memcpy(writer->top_name, name, strlen(name) + 1);
    *ret_writer = writer;
    return 0;
}

struct tree_writer *tree_writer_free(struct tree_writer *writer)
{
    if (writer == NULL)
        return NULL;
    while (writer->depth > 0)
        close(writer->levels[--writer->depth].folder);
    if (writer->file >= 0)
        close(writer->file);
    if (writer->parent >= 0)
        close(writer->parent);
    free(writer);
    return NULL;
}

/* ---- attributes ---- */

static struct attributes attributes_of(const struct tree_file *file)
{
    return (struct attributes){
        .mode = file->mode,
        .uid = file->uid,
        .gid = file->gid,
        .mtime = {.tv_sec = file->mtime_s, .tv_nsec = (long)file->mtime_ns},
    };
}

static mode_t permissions_of(const struct tree_writer *writer, const struct attributes *attributes)
{
    mode_t set_id = (writer->flags & TREE_OWNERS) != 0 ? S_ISUID | S_ISGID : 0;
    return attributes->mode & (S_ISVTX | 0777 | set_id);
}

static void set_times(struct timespec times[2], const struct attributes *attributes)
{
    times[0] = (struct timespec){.tv_nsec = UTIME_OMIT};
    times[1] = attributes->mtime;
}

/* Of an open file or folder. */
static int apply(const struct tree_writer *writer, int fd, const struct attributes *attributes)
{
    struct timespec times[2];
    set_times(times, attributes);
    if ((writer->flags & TREE_OWNERS) != 0 && fchown(fd, attributes->uid, attributes->gid) < 0)
        return -errno;
    if (fchmod(fd, permissions_of(writer, attributes)) < 0 || futimens(fd, times) < 0)
        return -errno;
    return 0;
}

/* A link has no mode, and a fifo got its own when it was made. What stands under the name by now may be another's: the
 * owner is given to what was made here only if it is of that type, and no link is followed. */
static int apply_to_name(const struct tree_writer *writer, int folder, const char *name,
                         const struct attributes *attributes)
{
    struct timespec times[2];
    set_times(times, attributes);
    int result = utimensat(folder, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
    if (result < 0 || (writer->flags & TREE_OWNERS) == 0)
        return result;
    struct stat status;
    int fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        result = -errno;
    else if ((status.st_mode & S_IFMT) != (attributes->mode & S_IFMT))
        result = -ESTALE;
    else if (fchownat(fd, "", attributes->uid, attributes->gid, AT_EMPTY_PATH) < 0)
        result = -errno;
    if (fd >= 0)
        close(fd);
    return result;
}

/* ---- leaving files and folders ---- */

static int finish_file(struct tree_writer *writer)
{
    if (writer->file < 0)
        return 0;
    int result = writer->at < writer->size && ftruncate(writer->file, (off_t)writer->size) < 0 ? -errno : 0;
    if (result == 0)
        result = apply(writer, writer->file, &writer->attributes);
    /* Where a file system tells only now that there was no room (close(2)), it is the file that failed. */
    if (close(writer->file) < 0 && result == 0 && errno != EINTR)
        result = -errno;
    writer->file = -1;
    return result;
}

static int leave_folder(struct tree_writer *writer)
{
    struct level *level = &writer->levels[--writer->depth];
    writer->path[level->path_length] = '\0';
    int result = level->is_kept ? 0 : apply(writer, level->folder, &level->attributes);
    close(level->folder);
    return result;
}

/* Leaves folders until the innermost is the one of that path. -EPROTO: it is not open. */
static int leave_until(struct tree_writer *writer, const struct tree_text *path)
{
    size_t length = tree_folder_length(path);
    while (writer->depth > 0) {
        const struct level *level = &writer->levels[writer->depth - 1];
        if (level->path_length == length && memcmp(writer->path, path->bytes, length) == 0)
            return 0;
        int result = leave_folder(writer);
        if (result < 0)
            return result;
    }
    return -EPROTO;
}

/* ---- making ---- */

/* Removes what is in the way: not a folder (EISDIR). */
static int clear_name(int folder, const char *name)
{
    return unlinkat(folder, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

static int make_regular(struct tree_writer *writer, int folder, const char *name, const struct tree_file *file)
{
    writer->file = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (writer->file < 0)
        return -errno;
    writer->at = 0;
    writer->size = file->size;
    writer->attributes = attributes_of(file);
    return 0;
}

static int make_link(struct tree_writer *writer, int folder, const char *name, const struct tree_file *file)
{
    char target[TREE_MOST_PATH_BYTES + 1];
    struct attributes attributes = attributes_of(file);
    memcpy(target, file->link.bytes, file->link.length);
    target[file->link.length] = '\0';
    return symlinkat(target, folder, name) < 0 ? -errno : apply_to_name(writer, folder, name, &attributes);
}

/* A mode beyond our umask is set through a descriptor that does not open the fifo; fchmod takes none (open(2), O_PATH).
 */
static int set_fifo_mode(int folder, const char *name, mode_t mode)
{
    char self[sizeof("/proc/self/fd/") + 3 * sizeof(int)];
    struct stat status;
    int fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    int result = fd < 0 || fstat(fd, &status) < 0 ? -errno : S_ISFIFO(status.st_mode) ? 0 : -ESTALE;
    if (result == 0 && (status.st_mode & 07777) != mode) {
        snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
        result = chmod(self, mode) < 0 ? -errno : 0;
    }
    if (fd >= 0)
        close(fd);
    return result;
}

static int make_fifo(struct tree_writer *writer, int folder, const char *name, const struct tree_file *file)
{
    struct attributes attributes = attributes_of(file);
    mode_t mode = permissions_of(writer, &attributes);
    if (mkfifoat(folder, name, 0600) < 0)
        return -errno;
    int result = apply_to_name(writer, folder, name, &attributes);
    return result == 0 ? set_fifo_mode(folder, name, mode) : result;
}

/* The folder of an earlier file, from the top: a descriptor, or -errno. */
static int open_folder_of(const struct tree_writer *writer, const struct tree_text *path)
{
    size_t length = tree_folder_length(path), at = 0;
    int folder = fcntl(writer->levels[0].folder, F_DUPFD_CLOEXEC, 0);
    while (folder >= 0 && at < length) {
        char name[TREE_MOST_NAME_BYTES + 1];
        const char *slash = memchr(path->bytes + at, '/', length - at);
        size_t part = slash != NULL ? (size_t)(slash - path->bytes) - at : length - at;
        memcpy(name, path->bytes + at, part);
        name[part] = '\0';
        int next = openat(folder, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int result = -errno;
        close(folder);
        if (next < 0)
            return result;
        folder = next;
        at += part + 1;
    }
    return folder >= 0 ? folder : -errno;
}

static const char *name_in(char name[TREE_MOST_NAME_BYTES + 1], const struct tree_text *path)
{
    size_t folder = tree_folder_length(path), begin = folder > 0 ? folder + 1 : 0;
    memcpy(name, path->bytes + begin, path->length - begin);
    name[path->length - begin] = '\0';
    return name;
}

static int make_other_name(const struct tree_writer *writer, int folder, const char *name, const struct tree_file *file)
{
    char earlier_name[TREE_MOST_NAME_BYTES + 1];
    int earlier = open_folder_of(writer, &file->same);
    if (earlier < 0)
        return earlier;
    /* Without AT_SYMLINK_FOLLOW: of a link, the link itself gets the name (linkat(2)). */
    int result = linkat(earlier, name_in(earlier_name, &file->same), folder, name, 0) < 0 ? -errno : 0;
    close(earlier);
    return result;
}

static int make_anything(struct tree_writer *writer, int folder, const char *name, const struct tree_file *file)
{
    if (file->same.length > 0)
        return make_other_name(writer, folder, name, file);
    if (S_ISREG(file->mode))
        return make_regular(writer, folder, name, file);
    return S_ISLNK(file->mode) ? make_link(writer, folder, name, file) : make_fifo(writer, folder, name, file);
}

/* Mostly nothing is in the way, so that is found out by trying. */
static int make_file(struct tree_writer *writer, int folder, const char *name, const struct tree_file *file)
{
    int result = make_anything(writer, folder, name, file);
    if (result != -EEXIST)
        return result;
    result = clear_name(folder, name);
    return result == 0 ? make_anything(writer, folder, name, file) : result;
}

static int open_folder(int folder, const char *name)
{
    int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd >= 0 ? fd : -errno;
}

/* A folder that is there is entered if it is a real one; anything else makes way. */
static int make_folder(int folder, const char *name)
{
    int result = mkdirat(folder, name, 0700) < 0 ? -errno : 0;
    if (result < 0 && result != -EEXIST)
        return result;
    int fd = open_folder(folder, name);
    if (fd != -ENOTDIR && fd != -ELOOP)
        return fd;
    result = clear_name(folder, name);
    if (result == 0)
        result = mkdirat(folder, name, 0700) < 0 ? -errno : 0;
    return result == 0 ? open_folder(folder, name) : result;
}

/* A folder that was there may forbid making things in it; where that cannot be helped, what is made next will tell. */
static int enter(struct tree_writer *writer, int fd, const struct tree_file *file, bool is_kept)
{
    struct stat status;
    if (fstat(fd, &status) < 0) {
        int result = -errno;
        close(fd);
        return result;
    }
    if (!is_kept && (status.st_mode & 0700) != 0700)
        (void)fchmod(fd, (status.st_mode & 0777) | 0700);
    writer->levels[writer->depth++] = (struct level){
        .folder = fd,
        .is_kept = is_kept,
        .path_length = file->path.length,
        .attributes = attributes_of(file),
    };
    return 0;
}

/* ---- records ---- */

static int begin(struct tree_writer *writer, const struct tree_file *file)
{
    bool is_folder = S_ISDIR(file->mode), is_kept = (writer->flags & TREE_NO_TOP) != 0;
    const char *name = writer->top_name[0] != '\0' ? writer->top_name : ".";
    if (file->path.length > 0 || file->same.length > 0)
        return -EPROTO;
    writer->has_begun = true;
    if (is_kept && !is_folder)
        return -ENOTDIR;
    if (!is_folder)
        return make_file(writer, writer->parent, name, file);
    int fd = is_kept ? open_folder(writer->parent, name) : make_folder(writer->parent, name);
    return fd < 0 ? fd : enter(writer, fd, file, is_kept);
}

static int add_file(struct tree_writer *writer, const struct tree_file *file)
{
    char name[TREE_MOST_NAME_BYTES + 1];
    int result = finish_file(writer);
    if (result < 0)
        return result;
    if (!writer->has_begun)
        return begin(writer, file);
    result = file->path.length > 0 ? leave_until(writer, &file->path) : -EPROTO;
    if (result < 0)
        return result;
    memcpy(writer->path, file->path.bytes, file->path.length);
    writer->path[file->path.length] = '\0';
    int folder = writer->levels[writer->depth - 1].folder;
    if (!S_ISDIR(file->mode))
        return make_file(writer, folder, name_in(name, &file->path), file);
    int fd = make_folder(folder, name_in(name, &file->path));
    return fd < 0 ? fd : enter(writer, fd, file, false);
}

static int add_bytes(struct tree_writer *writer, const uint8_t *body, size_t body_bytes)
{
    uint64_t offset = tree_get_offset(body);
    const uint8_t *next = body + TREE_OFFSET_BYTES;
    size_t left = body_bytes - TREE_OFFSET_BYTES;
    if (writer->file < 0 || offset < writer->at || offset > writer->size || left > writer->size - offset)
        return -EPROTO;
    writer->counts.bytes += left;
    while (left > 0) {
        ssize_t written = pwrite(writer->file, next, left, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -errno;
        next += written;
        left -= (size_t)written;
        offset += (uint64_t)written;
    }
    writer->at = offset;
    return 0;
}

static int add_record(struct tree_writer *writer)
{
    const uint8_t *body = writer->record + TREE_HEADER_BYTES;
    struct tree_file file;
    switch (writer->kind) {
    case TREE_FILE:
        if (tree_decode_file(body, writer->body_bytes, &file) < 0)
            return -EPROTO;
        writer->counts.files++;
        return add_file(writer, &file);
    case TREE_BYTES:
        return add_bytes(writer, body, writer->body_bytes);
    case TREE_END:
        writer->has_ended = true;
        return writer->has_begun ? finish_file(writer) : -EPROTO;
    }
    return -EPROTO;
}

/* ---- the stream ---- */

static int tell_failure(const struct tree_writer *writer, struct tree_failure *ret_failure)
{
    ret_failure->os_error = -writer->os_error;
    memcpy(ret_failure->path, writer->path, strlen(writer->path) + 1);
    return writer->os_error;
}

/* Moves bytes into the record until it has `wanted`: how many. */
static size_t gather(struct tree_writer *writer, size_t wanted, const uint8_t *bytes, size_t length)
{
    size_t piece = wanted - writer->record_length < length ? wanted - writer->record_length : length;
    memcpy(writer->record + writer->record_length, bytes, piece);
    writer->record_length += piece;
    return piece;
}

/* One piece of one record: how many bytes of it, or -errno. */
static long take(struct tree_writer *writer, const uint8_t *bytes, size_t length)
{
    size_t taken = 0;
    if (writer->has_ended)
        return -EPROTO;
    if (writer->record_length < TREE_HEADER_BYTES) {
        taken = gather(writer, TREE_HEADER_BYTES, bytes, length);
        if (writer->record_length < TREE_HEADER_BYTES)
            return (long)taken;
        int result = tree_decode_header(writer->record, &writer->kind, &writer->body_bytes);
        if (result < 0)
            return result;
    }
    taken += gather(writer, TREE_HEADER_BYTES + writer->body_bytes, bytes + taken, length - taken);
    if (writer->record_length < TREE_HEADER_BYTES + writer->body_bytes)
        return (long)taken;
    writer->record_length = 0;
    int result = add_record(writer);
    return result < 0 ? result : (long)taken;
}

int tree_writer_add(struct tree_writer *writer, const uint8_t *bytes, size_t length, struct tree_failure *ret_failure)
{
    while (length > 0 && writer->os_error == 0) {
        long taken = take(writer, bytes, length);
        if (taken < 0) {
            writer->os_error = (int)taken;
            break;
        }
        bytes += taken;
        length -= (size_t)taken;
    }
    return writer->os_error < 0 ? tell_failure(writer, ret_failure) : 0;
}

int tree_writer_end(struct tree_writer *writer, struct tree_failure *ret_failure)
{
    if (writer->os_error == 0 && !writer->has_ended)
        writer->os_error = -EPROTO;
    while (writer->os_error == 0 && writer->depth > 0)
        writer->os_error = leave_folder(writer);
    return writer->os_error < 0 ? tell_failure(writer, ret_failure) : 0;
}

void tree_writer_counts(const struct tree_writer *writer, struct tree_counts *ret_counts)
{
    *ret_counts = writer->counts;
}
