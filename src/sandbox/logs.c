// SPDX-License-Identifier: Apache-2.0
/* The logs of a sandbox, read while they are written and rotated.
 *
 * A log is a file and two older ones, NAME, NAME.1 and NAME.2, which move up by renames. A reader has one of them open
 * and reads to its end. Then it looks under which name its file stands now: the next one is the name before that.
 *
 *     NAME.2 ──> NAME.1 ──> NAME ──> waits: inotify tells of writes and renames, the sandbox's end of the end
 *
 * So a rotation at any moment costs nothing and repeats nothing, unless the reader is two rotations behind.
 *
 * Invariants: (1) what is waited for is watched before the last look at it, so nothing is missed in between. (2) a line
 * is told once it is whole. (3) at most LIMIT_LOG_RECORD_BYTES are held.
 *
 * Trust: as in logs_record.c.
 */
#include "sandbox/library.h"
#include "sandbox/library_end.h"
#include "sandbox/logs_record.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

enum { generations = 3, step_bytes = 64 << 10 };

static const struct log_source {
    const char *names[generations]; /* the newest first */
    bool (*parse)(const char *line, size_t length, struct log_record *ret_record);
} sources[] = {
    [VIAL_LOG_EXEC] = {{"exec.log", "exec.log.1", "exec.log.2"}, log_record_from_json},
    [VIAL_LOG_CONSOLE] = {{"console.log", "console.log.1", "console.log.2"}, log_record_from_line},
    [VIAL_LOG_RUNTIME] = {{"runtime.log", "runtime.log.1", "runtime.log.2"}, log_record_from_line},
};

struct log_reader {
    const struct log_source *source;
    int folder;          /* owned: log/ */
    int file;            /* owned, or -1 */
    struct buffer line;  /* the beginning of one */
    bool is_passed_over; /* the line is too long: until its end */
    vial_log_line tell;
    void *user;
    bool is_over; /* the caller has enough */
};

/* ---- lines ---- */

static void tell_line(struct log_reader *reader, const char *line, size_t length)
{
    struct log_record record;
    if (!reader->source->parse(line, length, &record)) {
        /* What a linker or a sanitizer has said about our process has no form; it is worth the more. */
        if (reader->source != &sources[VIAL_LOG_RUNTIME])
            return;
        record = (struct log_record){.bytes = line, .length = length};
    }
    reader->is_over = !reader->tell(reader->user, record.stream, record.time_ns, record.bytes, record.length);
    free(record.owned);
}

static void take_bytes(struct log_reader *reader, const char *bytes, size_t length)
{
    while (length > 0 && !reader->is_over) {
        const char *newline = memchr(bytes, '\n', length);
        size_t step = newline != NULL ? (size_t)(newline - bytes) : length;
        if (!reader->is_passed_over && buffer_add(&reader->line, bytes, step) < 0)
            reader->is_passed_over = true;
        if (newline == NULL)
            return;
        if (!reader->is_passed_over && reader->line.length > 0)
            tell_line(reader, reader->line.data, reader->line.length);
        reader->line.length = 0;
        reader->line.error = 0;
        reader->is_passed_over = false;
        bytes += step + 1;
        length -= step + 1;
    }
}

/* To the end of the file that is open. */
static int drain(struct log_reader *reader)
{
    char bytes[step_bytes];
    while (reader->file >= 0 && !reader->is_over) {
        ssize_t got = read(reader->file, bytes, sizeof(bytes));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : 0;
        take_bytes(reader, bytes, (size_t)got);
    }
    return 0;
}

/* ---- files ---- */

static int open_file(const struct log_reader *reader, int generation)
{
    int fd = openat(reader->folder, reader->source->names[generation], O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* Under which name the open file stands; `generations` when it was removed, or there is none. */
static int find_generation(const struct log_reader *reader)
{
    struct stat ours, theirs;
    if (reader->file < 0 || fstat(reader->file, &ours) < 0)
        return generations;
    for (int i = 0; i < generations; i++)
        if (fstatat(reader->folder, reader->source->names[i], &theirs, AT_SYMLINK_NOFOLLOW) == 0 &&
            theirs.st_ino == ours.st_ino && theirs.st_dev == ours.st_dev)
            return i;
    return generations;
}

/* Goes to the next file, if there is one: 1 or 0. What came into the old one until it was renamed is read first. */
static int go_on(struct log_reader *reader)
{
    int at = find_generation(reader), next = -1;
    for (int i = at - 1; i >= 0 && next < 0; i--)
        next = open_file(reader, i);
    if (next < 0)
        return 0;
    int result = drain(reader);
    fd_close(reader->file);
    reader->file = next;
    reader->line.length = 0; /* what was cut off stays so */
    reader->is_passed_over = false;
    return result < 0 ? result : 1;
}

/* All that is there. */
static int read_on(struct log_reader *reader)
{
    int result = 0;
    do {
        result = drain(reader);
        if (result == 0 && !reader->is_over)
            result = go_on(reader);
    } while (result > 0);
    return result;
}

/* ---- the last records ---- */

/* Where the last `*tail` lines of the file begin; *tail becomes what is still missing. */
static off_t find_tail(int fd, uint64_t *tail)
{
    char bytes[step_bytes];
    struct stat about;
    if (fstat(fd, &about) < 0)
        return 0;
    off_t at = about.st_size;
    bool is_last = true; /* a newline at the very end ends a line, any other begins one */
    while (at > 0) {
        size_t step = at < (off_t)sizeof(bytes) ? (size_t)at : sizeof(bytes);
        ssize_t got = pread(fd, bytes, step, at - (off_t)step);
        if (got != (ssize_t)step)
            return 0;
        for (size_t i = step; i > 0; i--) {
            if (bytes[i - 1] == '\n' && !is_last && --*tail == 0)
                return at - (off_t)(step - i);
            is_last = false;
        }
        at -= (off_t)step;
    }
    *tail -= about.st_size > 0 ? 1 : 0;
    return 0;
}

/* Opens the file with the first record that is wanted, at its place. */
static void begin(struct log_reader *reader, uint64_t tail)
{
    for (int i = 0; i < generations && tail > 0; i++) {
        int fd = open_file(reader, i);
        if (fd < 0)
            break;
        fd_close(reader->file);
        reader->file = fd;
        off_t at = tail < UINT64_MAX ? find_tail(fd, &tail) : 0;
        lseek(fd, at, SEEK_SET);
    }
    if (tail == UINT64_MAX || reader->file >= 0)
        return;
    reader->file = open_file(reader, 0); /* nothing of what is there is wanted */
    if (reader->file >= 0)
        lseek(reader->file, 0, SEEK_END);
}

/* ---- following ---- */

static int watch(const struct log_reader *reader, int *ret_fd)
{
    char path[64];
    auto_close int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", reader->folder);
    if (fd < 0 || inotify_add_watch(fd, path, IN_MODIFY | IN_CREATE | IN_MOVED_TO) < 0)
        return -errno;
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* Until something has changed: 0, 1 when the sandbox has ended, or -errno. */
static int wait_for_news(int watch_fd, const struct ending *ending)
{
    char events[4096];
    struct pollfd ready[] = {{.fd = watch_fd, .events = POLLIN}, {.fd = ending_fd(ending), .events = POLLIN}};
    while (poll(ready, array_length(ready), -1) < 0)
        if (errno != EINTR)
            return -errno;
    while (read(watch_fd, events, sizeof(events)) > 0)
        ; /* whatever it was, we look for ourselves */
    return ready[1].revents != 0 ? 1 : 0;
}

static int follow(struct log_reader *reader, int sandbox_folder)
{
    struct ending *ending = NULL;
    auto_close int watch_fd = -1;
    int result = watch(reader, &watch_fd);
    bool has_ended = result == 0 && home_sandbox_lives(sandbox_folder) != 1;
    if (result == 0 && !has_ended)
        result = ending_new(sandbox_folder, &ending);
    while (result == 0) {
        result = read_on(reader);
        if (has_ended || reader->is_over || result < 0)
            break;
        int news = wait_for_news(watch_fd, ending);
        has_ended = news == 1;
        result = news < 0 ? news : 0;
    }
    ending_free(ending);
    return result;
}

int vial_sandbox_logs(struct vial_sandbox *sandbox, int source, uint64_t tail, bool follows, vial_log_line line,
                      void *user, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    if (source <= 0 || (size_t)source >= array_length(sources))
        return sandbox_refuse("source", "there is no such log", "name one of enum vial_log_source", err);
    auto_close int folder = openat(sandbox->folder, "log", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct log_reader reader = {.source = &sources[source],
                                .folder = folder,
                                .file = -1,
                                .line = BUFFER_INIT(LIMIT_LOG_RECORD_BYTES),
                                .tell = line,
                                .user = user};
    int result = folder < 0 ? -errno : 0;
    if (result == 0)
        begin(&reader, tail);
    if (result == 0)
        result = follows ? follow(&reader, sandbox->folder) : read_on(&reader);
    fd_close(reader.file);
    buffer_free(&reader.line);
    if (result < 0)
        return error_set_os(err, VIAL_PHASE_RUN, result, "cannot read the logs of sandbox \"%s\"",
                            sandbox_name(sandbox).text);
    return 0;
}
