// SPDX-License-Identifier: Apache-2.0
/* A folder, read as a stream of records (tree.h).
 *
 * The reader walks depth first and holds the folders on the way to where it is, each open and read as the stream goes
 * on, so neither a huge folder nor a huge tree takes memory; and the one file whose bytes it is sending. It makes one
 * record at a time in `record` and hands it out in whatever pieces are asked for.
 *
 *     folders   top ── a ── a/b            path  "a/b/file"
 *               DIR    DIR  DIR            file  open, next byte, end of the data that was found
 *
 * A name is opened relative to its folder and without following links, then asked what it is: what was swapped
 * meanwhile is seen as what it is by then, and a file is read through the very descriptor that was asked. Opening never
 * waits (O_NONBLOCK), whatever a name has become.
 *
 * Holes are found with SEEK_DATA, where fewer blocks than bytes say that there are some. A file that grows is sent up
 * to the size it had, one that shrinks ends in a hole.
 *
 * Invariants: (1) every record is one that the writer takes. (2) `path` is the path of what is being read, and its
 * first path_length bytes that of its folder. (3) after a failure nothing more is read, and the failure is told again.
 *
 * Trust: names, types, sizes and times are whatever the folder holds, and may change at any moment. Not told: extended
 * attributes. Files whose size is a lie (most of /proc) come out empty.
 */
#include "proto/tree.h"

#include "base/alloc.h"
#include "proto/tree_links.h"
#include "proto/tree_record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct level {
    DIR *folder; /* owned */
    size_t path_length;
};

struct tree_reader {
    int parent;                              /* owned: where the top is */
    char top_name[TREE_MOST_NAME_BYTES + 1]; /* empty: the parent itself */
    bool has_begun, has_ended;
    struct level levels[TREE_MOST_DEPTH + 1]; /* the top is the first */
    size_t depth;                             /* of levels in use */
    char path[TREE_MOST_PATH_BYTES + TREE_MOST_NAME_BYTES + 2];
    struct tree_links links;
    struct tree_counts counts;
    int os_error; /* negative; sticks */
    /* the file whose bytes are being sent */
    int file; /* owned */
    uint64_t at, data_end, size;
    bool may_have_holes;
    /* the record that is being handed out */
    size_t record_at, record_length;
    uint8_t record[TREE_HEADER_BYTES + TREE_MOST_RECORD_BYTES];
};

/* ---- life ---- */

int tree_reader_new(int folder, const char *name, struct tree_reader **ret_reader)
{
    if (!tree_is_top_name(name))
        return -EINVAL;
    struct tree_reader *reader = alloc_zero(sizeof(*reader));
    if (reader == NULL)
        return -ENOMEM;
    reader->file = -1;
    reader->parent = fcntl(folder, F_DUPFD_CLOEXEC, 0);
    if (reader->parent < 0) {
        int result = -errno;
        tree_reader_free(reader);
        return result;
    }
    memcpy(reader->top_name, name, strlen(name) + 1);
    *ret_reader = reader;
    return 0;
}

static void close_file(struct tree_reader *reader)
{
    if (reader->file >= 0)
        close(reader->file);
    reader->file = -1;
}

struct tree_reader *tree_reader_free(struct tree_reader *reader)
{
    if (reader == NULL)
        return NULL;
    while (reader->depth > 0)
        closedir(reader->levels[--reader->depth].folder);
    close_file(reader);
    if (reader->parent >= 0)
        close(reader->parent);
    tree_links_free(&reader->links);
    free(reader);
    return NULL;
}

/* ---- files ---- */

/* The record of a file; 1: there is one now. */
static int put_file(struct tree_reader *reader, const struct stat *status, struct tree_text link, const char *same)
{
    bool has_size = S_ISREG(status->st_mode) && same[0] == '\0';
    struct tree_file file = {
        .path = {.bytes = reader->path, .length = strlen(reader->path)},
        .mode = status->st_mode,
        .uid = status->st_uid,
        .gid = status->st_gid,
        .size = has_size ? (uint64_t)status->st_size : 0,
        .mtime_s = status->st_mtim.tv_sec,
        .mtime_ns = (uint32_t)status->st_mtim.tv_nsec,
        .link = link,
        .same = {.bytes = same, .length = strlen(same)},
    };
    long length = tree_encode_file(&file, reader->record);
    if (length < 0)
        return (int)length;
    reader->record_at = 0;
    reader->record_length = (size_t)length;
    reader->counts.files++;
    return 1;
}

static const struct tree_text no_link = {.bytes = NULL, .length = 0};

/* The earlier name of what has several, "" if there is none, NULL without memory. */
static const char *find_same(struct tree_reader *reader, const struct stat *status)
{
    return status->st_nlink > 1 ? tree_links_meet(&reader->links, status, reader->path, strlen(reader->path)) : "";
}

static int put_regular(struct tree_reader *reader, int folder, const char *name)
{
    struct stat status;
    reader->file = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (reader->file < 0)
        return errno == ELOOP ? -ESTALE : -errno;
    int result = fstat(reader->file, &status) < 0 ? -errno : S_ISREG(status.st_mode) ? 0 : -ESTALE;
    const char *same = result == 0 ? find_same(reader, &status) : NULL;
    if (result == 0)
        result = same != NULL ? put_file(reader, &status, no_link, same) : -ENOMEM;
    if (result < 0) {
        close_file(reader);
        return result;
    }
    reader->at = 0;
    reader->data_end = 0;
    reader->size = same[0] == '\0' ? (uint64_t)status.st_size : 0;
    reader->may_have_holes = status.st_blocks < status.st_size / 512; /* st_blocks has units of 512 bytes (stat(2)) */
    return result;
}

static int put_link(struct tree_reader *reader, int folder, const char *name, const struct stat *status)
{
    char target[TREE_MOST_PATH_BYTES + 1];
    const char *same = find_same(reader, status);
    if (same == NULL)
        return -ENOMEM;
    if (same[0] != '\0')
        return put_file(reader, status, no_link, same);
    ssize_t length = readlinkat(folder, name, target, sizeof(target));
    if (length < 0)
        return errno == EINVAL ? -ESTALE : -errno;
    return put_file(reader, status, (struct tree_text){.bytes = target, .length = (size_t)length}, same);
}

static int put_fifo(struct tree_reader *reader, const struct stat *status)
{
    const char *same = find_same(reader, status);
    return same != NULL ? put_file(reader, status, no_link, same) : -ENOMEM;
}

/* Goes into the folder, and tells of it. */
static int put_folder(struct tree_reader *reader, int folder, const char *name)
{
    struct stat status;
    if (reader->depth == TREE_MOST_DEPTH + 1)
        return -ENAMETOOLONG;
    int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOTDIR || errno == ELOOP ? -ESTALE : -errno;
    DIR *stream = fstat(fd, &status) < 0 ? NULL : fdopendir(fd);
    if (stream == NULL) {
        int result = -errno;
        close(fd);
        return result;
    }
    reader->levels[reader->depth++] = (struct level){.folder = stream, .path_length = strlen(reader->path)};
    return put_file(reader, &status, no_link, "");
}

/* 1 when there is a record, 0 when there is none for what this is. */
static int put_name(struct tree_reader *reader, int folder, const char *name)
{
    struct stat status;
    if (fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    switch (status.st_mode & S_IFMT) {
    case S_IFDIR:
        return put_folder(reader, folder, name);
    case S_IFREG:
        return put_regular(reader, folder, name);
    case S_IFLNK:
        return put_link(reader, folder, name, &status);
    case S_IFIFO:
        return put_fifo(reader, &status);
    default:
        reader->counts.left_out++;
        return 0;
    }
}

/* ---- walking ---- */

/* Appends the name to its folder's path. */
static int set_path(struct tree_reader *reader, size_t folder_length, const char *name)
{
    size_t length = strlen(name), at = folder_length;
    if (length > TREE_MOST_NAME_BYTES)
        return -ENAMETOOLONG;
    if (at > 0)
        reader->path[at++] = '/';
    memcpy(reader->path + at, name, length + 1);
    return at + length > TREE_MOST_PATH_BYTES ? -ENAMETOOLONG : 0;
}

static int put_top(struct tree_reader *reader)
{
    reader->has_begun = true;
    return put_name(reader, reader->parent, reader->top_name[0] != '\0' ? reader->top_name : ".");
}

/* The next name of the innermost folder; without one it is left. */
static int put_next_name(struct tree_reader *reader)
{
    struct level *level = &reader->levels[reader->depth - 1];
    errno = 0;
    const struct dirent *entry = readdir(level->folder);
    reader->path[level->path_length] = '\0';
    if (entry == NULL && errno != 0)
        return -errno;
    if (entry == NULL) {
        closedir(level->folder);
        reader->depth--;
        return 0;
    }
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
        return 0;
    int result = set_path(reader, level->path_length, entry->d_name);
    if (result == 0)
        result = put_name(reader, dirfd(level->folder), entry->d_name);
    if (result != -ENOENT && result != -ESTALE)
        return result;
    reader->counts.left_out++; /* it has vanished, or become something else */
    return 0;
}

/* ---- bytes ---- */

/* Moves to the next data: 1, or 0 when only a hole is left. */
static int find_data(struct tree_reader *reader)
{
    if (reader->at < reader->data_end)
        return 1;
    reader->data_end = reader->size;
    if (!reader->may_have_holes)
        return 1;
    off_t data = lseek(reader->file, (off_t)reader->at, SEEK_DATA);
    if (data < 0)
        return errno == ENXIO ? 0 : errno == EINVAL ? 1 : -errno; /* EINVAL: this file system cannot say */
    off_t hole = lseek(reader->file, data, SEEK_HOLE);
    if (hole < 0)
        return -errno;
    reader->at = (uint64_t)data;
    if ((uint64_t)hole < reader->size)
        reader->data_end = (uint64_t)hole;
    return reader->at < reader->data_end;
}

static int put_bytes(struct tree_reader *reader)
{
    enum { most_chunk_bytes = TREE_MOST_RECORD_BYTES - TREE_OFFSET_BYTES };
    uint8_t *body = reader->record + TREE_HEADER_BYTES;
    int result = reader->at < reader->size ? find_data(reader) : 0;
    if (result < 0)
        return result;
    uint64_t left = result > 0 ? reader->data_end - reader->at : 0;
    size_t wanted = left < most_chunk_bytes ? (size_t)left : most_chunk_bytes;
    ssize_t got = wanted > 0 ? pread(reader->file, body + TREE_OFFSET_BYTES, wanted, (off_t)reader->at) : 0;
    if (got < 0)
        return errno == EINTR ? 0 : -errno;
    if (got == 0) { /* the end, or what is the end by now */
        close_file(reader);
        return 0;
    }
    tree_put_header(reader->record, TREE_BYTES, TREE_OFFSET_BYTES + (size_t)got);
    tree_put_offset(body, reader->at);
    reader->record_at = 0;
    reader->record_length = TREE_HEADER_BYTES + TREE_OFFSET_BYTES + (size_t)got;
    reader->at += (uint64_t)got;
    reader->counts.bytes += (uint64_t)got;
    return 1;
}

/* ---- the stream ---- */

static int put_end(struct tree_reader *reader)
{
    tree_put_header(reader->record, TREE_END, 0);
    reader->record_at = 0;
    reader->record_length = TREE_HEADER_BYTES;
    reader->has_ended = true;
    return 1;
}

/* One step, after which there may be a record (1) or not (0). */
static int step(struct tree_reader *reader)
{
    if (reader->file >= 0)
        return put_bytes(reader);
    if (!reader->has_begun)
        return put_top(reader);
    return reader->depth > 0 ? put_next_name(reader) : put_end(reader);
}

static long tell_failure(const struct tree_reader *reader, struct tree_failure *ret_failure)
{
    size_t length = strnlen(reader->path, sizeof(ret_failure->path) - 1);
    ret_failure->os_error = -reader->os_error;
    memcpy(ret_failure->path, reader->path, length);
    ret_failure->path[length] = '\0';
    return reader->os_error;
}

long tree_reader_next(struct tree_reader *reader, uint8_t *bytes, size_t length, struct tree_failure *ret_failure)
{
    size_t done = 0;
    while (done < length) {
        size_t left = reader->record_length - reader->record_at;
        size_t piece = left < length - done ? left : length - done;
        memcpy(bytes + done, reader->record + reader->record_at, piece);
        reader->record_at += piece;
        done += piece;
        if (done == length || (reader->has_ended && piece == left))
            break;
        if (reader->os_error == 0) {
            int result = step(reader);
            reader->os_error = result < 0 ? result : 0;
        }
        if (reader->os_error < 0)
            break;
    }
    return done == 0 && length > 0 && reader->os_error < 0 ? tell_failure(reader, ret_failure) : (long)done;
}

void tree_reader_counts(const struct tree_reader *reader, struct tree_counts *ret_counts)
{
    *ret_counts = reader->counts;
}
