// SPDX-License-Identifier: Apache-2.0
/* What happens to the sandboxes of a home: one JSON object a line, appended by any process, followed by any.
 *
 *     {"t": 1764000000123456789, "event": "start", "id": "0123456789ab", "name": "web", …}
 *
 * An event is one write to a file opened with O_APPEND, so events of several writers lie one after the other. A writer
 * that finds the file too long gives it another name (events.jsonl.1, over the one before); whoever still has it open
 * finishes its event there. A reader therefore keeps both files open and watches both, by their inodes, and the folder
 * for the moment in which a new one appears.
 *
 *     inotify: file IN_MODIFY · folder IN_CREATE ──► wake ──► read the rest of the older, then of the newer file
 *                                                              └─ events.jsonl is another file: newer becomes older
 *
 * Invariants: (1) an event is told once, and those of one writer in their order; to a reader that falls behind by more
 * than both files hold, some are not told. (2) what is no whole JSON object is
 * passed over: a full disk may have torn a line, and then the next event stands behind its rest. (3) a writer neither
 * waits nor fails.
 *
 * Trust: the files are the user's, but every sandbox's process writes them, so that a line may be anything: it is read
 * as strictly as a configuration, and its length is bounded.
 */
#include "sandbox/events.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

/* Names below the home. */
static const char file_name[] = "events/events.jsonl";
static const char older_name[] = "events/events.jsonl.1", lock_name[] = "events/lock";

/* ---- writing ---- */

static int open_to_append(const struct home *home)
{
    int fd = openat(home->fd, file_name, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : fd;
}

static bool is_too_long(const struct home *home)
{
    struct stat status;
    return fstatat(home->fd, file_name, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_size >= LIMIT_EVENTS_BYTES;
}

/* One of those that find it too long does it; the others go on with the file that they have. */
static void rotate(const struct home *home)
{
    auto_close int lock = openat(home->fd, lock_name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0 && is_too_long(home))
        (void)renameat(home->fd, file_name, home->fd, older_name); /* if it fails, the next event tries again */
}

static size_t format_event(char *line, size_t size, const char *kind, const char *id, const char *name,
                           const char *members)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int length = snprintf(line, size, "{\"t\": %" PRIu64 ", \"event\": \"%s\", \"id\": \"%s\", \"name\": \"%s\"%s}\n",
                          clock_from_timespec(&now), kind, id != NULL ? id : "", name != NULL ? name : "", members);
    return length > 0 && (size_t)length < size ? (size_t)length : 0;
}

void home_event(const struct home *home, const char *kind, const char *id, const char *name, const char *members)
{
    char line[LIMIT_EVENT_BYTES + 1];
    size_t length = format_event(line, sizeof(line), kind, id, name, members != NULL ? members : "");
    if (length == 0)
        length = format_event(line, sizeof(line), kind, id, name, "");
    if (is_too_long(home))
        rotate(home);
    auto_close int fd = open_to_append(home);
    ssize_t written = fd >= 0 ? write(fd, line, length) : -1;
    if (written != (ssize_t)length)
        log_warn("events.lost", LOG_TEXT("kind", kind), LOG_ERRNO(fd < 0 ? fd : written < 0 ? errno : ENOSPC));
}

/* ---- reading ---- */

/* A file of events, read up to some point: what follows the last newline waits for the rest of its line. */
struct events_file {
    int fd; /* owned, or -1 */
    struct buffer rest;
    bool skips; /* the line was too long: all of it is passed over */
};

struct follower {
    const struct home *home; /* borrowed */
    uint64_t since_ns;
    vial_log_line function;
    void *user;
    bool has_enough;
    int inotify; /* owned */
    struct events_file older, newer;
};

static void file_close(struct events_file *file)
{
    file->fd = fd_close(file->fd);
    buffer_free(&file->rest);
    *file = (struct events_file){.fd = -1, .rest = BUFFER_INIT(LIMIT_EVENT_BYTES)};
}

/* Its time, or false for what is no event. */
static bool read_time(const char *bytes, size_t length, uint64_t *ret_time_ns)
{
    json_t *event = json_loadb(bytes, length, JSON_REJECT_DUPLICATES, NULL);
    const json_t *time = json_object_get(event, "t");
    bool is_event = json_is_integer(time) && json_integer_value(time) >= 0;
    if (is_event)
        *ret_time_ns = (uint64_t)json_integer_value(time);
    json_decref(event);
    return is_event;
}

static void tell(struct follower *follower, const char *bytes, size_t length)
{
    uint64_t time_ns = 0;
    if (!follower->has_enough && read_time(bytes, length, &time_ns) && time_ns >= follower->since_ns)
        follower->has_enough = !follower->function(follower->user, 0, time_ns, bytes, length);
}

/* A part of a line, up to its end if that is in sight. */
static void take_part(struct follower *follower, struct events_file *file, const char *bytes, size_t length, bool ends)
{
    if (!file->skips && buffer_add(&file->rest, bytes, length) < 0)
        file->skips = true;
    if (!ends)
        return;
    if (!file->skips && file->rest.length > 0)
        tell(follower, file->rest.data, file->rest.length);
    buffer_free(&file->rest);
    file->rest = (struct buffer)BUFFER_INIT(LIMIT_EVENT_BYTES);
    file->skips = false;
}

static void take_bytes(struct follower *follower, struct events_file *file, const char *bytes, size_t length)
{
    while (length > 0 && !follower->has_enough) {
        const char *newline = memchr(bytes, '\n', length);
        size_t part = newline != NULL ? (size_t)(newline - bytes) : length;
        take_part(follower, file, bytes, part, newline != NULL);
        part += newline != NULL;
        bytes += part;
        length -= part;
    }
}

static void read_rest(struct follower *follower, struct events_file *file)
{
    char bytes[16 << 10];
    while (file->fd >= 0 && !follower->has_enough) {
        ssize_t count = read(file->fd, bytes, sizeof(bytes));
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return;
        take_bytes(follower, file, bytes, (size_t)count);
    }
}

/* ---- which files ---- */

static int open_to_read(const struct follower *follower, const char *name)
{
    return openat(follower->home->fd, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
}

/* Whether the file of that name is the open one; neither is as good as both. */
static bool is_same(const struct follower *follower, const char *name, int fd)
{
    struct stat named, open;
    bool has_name = fstatat(follower->home->fd, name, &named, AT_SYMLINK_NOFOLLOW) == 0;
    if (!has_name || fd < 0)
        return !has_name && fd < 0;
    return fstat(fd, &open) == 0 && named.st_ino == open.st_ino && named.st_dev == open.st_dev;
}

/* A file may be replaced while the next one is opened: then all over again. Each time costs writers LIMIT_EVENTS_BYTES,
 * so there is no second time in practice. */
static void open_files(struct follower *follower)
{
    for (int tries = 0; tries < 4; tries++) {
        file_close(&follower->older);
        file_close(&follower->newer);
        follower->older.fd = open_to_read(follower, older_name);
        follower->newer.fd = open_to_read(follower, file_name);
        if (is_same(follower, older_name, follower->older.fd))
            return;
    }
}

/* By descriptor, as everything: the watch is on the inode and outlives the name. */
static void watch(const struct follower *follower, int fd, uint32_t what)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (fd >= 0)
        (void)inotify_add_watch(follower->inotify, path, what);
}

/* The newer file becomes the older one, of which the rest may still come, and `fd` the newer. */
static void step(struct follower *follower, int fd)
{
    watch(follower, fd, IN_MODIFY);
    if (follower->newer.fd >= 0) {
        read_rest(follower, &follower->older);
        file_close(&follower->older);
        follower->older = follower->newer;
    }
    follower->newer = (struct events_file){.fd = fd, .rest = BUFFER_INIT(LIMIT_EVENT_BYTES)};
    read_rest(follower, &follower->older);
    read_rest(follower, &follower->newer);
}

/* When the file of that name is another one. If it was changed twice, the one between has the other name, and was not
 * read yet. */
static void change_files(struct follower *follower)
{
    if (is_same(follower, file_name, follower->newer.fd))
        return;
    int fd = open_to_read(follower, file_name), between = -1;
    if (fd < 0)
        return; /* it has been renamed, and nothing was written since */
    if (!is_same(follower, older_name, follower->newer.fd) && !is_same(follower, older_name, follower->older.fd) &&
        !is_same(follower, older_name, fd))
        between = open_to_read(follower, older_name);
    if (between >= 0)
        step(follower, between);
    step(follower, fd);
}

static void read_all(struct follower *follower)
{
    read_rest(follower, &follower->older);
    read_rest(follower, &follower->newer);
    change_files(follower);
}

/* ---- following ---- */

static void forget_notices(const struct follower *follower)
{
    char notices[4096];
    while (read(follower->inotify, notices, sizeof(notices)) > 0)
        ;
}

/* Until something may have come: 1, or 0 when the time is over, -errno. */
static int wait_for_more(const struct follower *follower, uint64_t deadline_ns)
{
    struct pollfd wait = {.fd = follower->inotify, .events = POLLIN};
    for (;;) {
        uint64_t now = clock_now_ns();
        if (now >= deadline_ns)
            return 0;
        struct timespec rest = clock_to_timespec(deadline_ns - now);
        int ready = ppoll(&wait, 1, deadline_ns == CLOCK_NEVER ? NULL : &rest, NULL);
        if (ready > 0)
            return 1;
        if (ready < 0 && errno != EINTR)
            return -errno;
    }
}

static int follow(struct follower *follower, uint64_t deadline_ns)
{
    watch(follower, follower->older.fd, IN_MODIFY);
    watch(follower, follower->newer.fd, IN_MODIFY);
    auto_close int folder = home_events_open(follower->home);
    watch(follower, folder, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR);
    for (;;) {
        forget_notices(follower);
        read_all(follower);
        if (follower->has_enough)
            return 0;
        int result = wait_for_more(follower, deadline_ns);
        if (result <= 0)
            return result;
    }
}

static uint64_t deadline_of(uint64_t timeout_ms)
{
    uint64_t timeout_ns = 0;
    if (timeout_ms == VIAL_WAIT_FOREVER || __builtin_mul_overflow(timeout_ms, CLOCK_NS_PER_MS, &timeout_ns))
        return CLOCK_NEVER;
    return clock_deadline_ns(timeout_ns);
}

int home_events_follow(const struct home *home, uint64_t since_ns, uint64_t timeout_ms, vial_log_line line, void *user,
                       struct vial_error *err)
{
    uint64_t deadline_ns = deadline_of(timeout_ms);
    struct follower follower = {
        .home = home,
        .since_ns = since_ns,
        .function = line,
        .user = user,
        .inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC),
        .older = {.fd = -1, .rest = BUFFER_INIT(LIMIT_EVENT_BYTES)},
        .newer = {.fd = -1, .rest = BUFFER_INIT(LIMIT_EVENT_BYTES)},
    };
    if (follower.inotify < 0) {
        int result = error_set_os(err, VIAL_PHASE_HOST, errno, "cannot watch the events of %s",
                                  error_short(home->path).text);
        error_remedy(err, "raise fs.inotify.max_user_instances, or end other programs that watch files");
        return result;
    }
    open_files(&follower);
    int result = follow(&follower, deadline_ns);
    if (result < 0)
        result = error_set_os(err, VIAL_PHASE_HOST, result, "cannot wait for events");
    file_close(&follower.older);
    file_close(&follower.newer);
    fd_close(follower.inotify);
    return result;
}
