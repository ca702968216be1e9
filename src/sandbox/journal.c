// SPDX-License-Identifier: Apache-2.0
/* The logs of a sandbox: records appended to a file that is replaced when it is full.
 *
 *     bytes ──> one record in `record` ──> one write(2), with O_APPEND ──> the file is as long as most_bytes?
 *                                                                          .1 becomes .2, it .1, and there is a new one
 *
 * A record is written at once, so that a reader sees it at once and a crash loses none. It goes to the page cache;
 * where the host's disk is so slow that this has to wait, the program that writes has to wait, too, which is better
 * than a log with holes. A full disk (or quota, or RLIMIT_FSIZE) is another matter: the guest goes on, the bytes are
 * counted, and the count is the first thing that is written when there is room again.
 *
 * Invariants: (1) no file grows beyond twice most_bytes, and a rotation leaves at most JOURNAL_FILES. (2) a failure of
 * the host's file system is never the caller's. (3) after a record that was cut off the next one begins on a line of
 * its own. (4) a UTF-8 character that a program writes in two pieces is not torn: its beginning waits for its end, or
 * for something else of that stream.
 *
 * Trust: every byte may be a hostile guest's. JSON records hold it escaped; lines hold it as it came.
 */
#include "sandbox/journal.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "sandbox/journal_record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { most_waiting = 3, most_streams = 3, most_piece = 16 << 10 };

/* The beginning of a character whose end has not come yet. */
struct waiting {
    char bytes[most_waiting];
    size_t length;
};

struct journal {
    pthread_mutex_t lock; /* guards all of it but the console's line */
    int folder;           /* borrowed */
    const char *name;     /* borrowed */
    enum journal_form form;
    int fd; /* owned; -1 where none could be made */
    uint64_t most_bytes, written_bytes;
    uint64_t lost_bytes, untold_bytes;
    bool is_torn; /* the last record lacks its end */
    struct buffer record;
    struct waiting waiting[most_streams]; /* of "out", "err", "tty" */
    struct buffer line;                   /* of the console, without its end */
};

/* ---- files ---- */

static int open_file(struct journal *journal)
{
    struct stat status;
    int fd = openat(journal->folder, journal->name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY,
                    0600);
    if (fd < 0)
        return -errno;
    bool is_file = fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    if (!is_file) {
        fd_close(fd);
        return -EINVAL;
    }
    fd_close(journal->fd);
    journal->fd = fd;
    journal->written_bytes = (uint64_t)status.st_size;
    return 0;
}

/* A name of the older files: NAME.1, NAME.2. */
struct journal_name {
    char text[64];
};

static struct journal_name older_name(const struct journal *journal, int age)
{
    struct journal_name name;
    snprintf(name.text, sizeof(name.text), "%s.%d", journal->name, age);
    return name;
}

/* Where no new file can be made, the old one gets its name back and is written on: invariant (1) is kept by
 * write_record. */
static void rotate(struct journal *journal)
{
    struct journal_name newest = older_name(journal, 1);
    for (int age = JOURNAL_FILES - 1; age > 1; age--)
        renameat(journal->folder, older_name(journal, age - 1).text, journal->folder, older_name(journal, age).text);
    if (renameat(journal->folder, journal->name, journal->folder, newest.text) < 0 && errno != ENOENT)
        return;
    if (open_file(journal) < 0)
        renameat(journal->folder, newest.text, journal->folder, journal->name);
    else
        journal->is_torn = false;
}

static void tend(struct journal *journal)
{
    if (journal->written_bytes >= journal->most_bytes)
        rotate(journal);
}

static void lose(struct journal *journal, size_t length)
{
    journal->lost_bytes += length;
    journal->untold_bytes += length;
}

/* False when not all of it is in the file. */
static bool write_bytes(struct journal *journal, const char *bytes, size_t length)
{
    ssize_t written = -1;
    if (journal->fd >= 0 && journal->written_bytes + length <= 2 * journal->most_bytes)
        do
            written = write(journal->fd, bytes, length);
        while (written < 0 && errno == EINTR);
    if (written > 0) {
        journal->written_bytes += (uint64_t)written;
        journal->is_torn = (size_t)written < length;
    }
    return written == (ssize_t)length;
}

/* ---- records ---- */

/* The record that tells of what is missing before it. */
static void tell_losses(struct journal *journal, uint64_t time_ns)
{
    char text[160], time[JOURNAL_TIME_BYTES];
    journal_format_time(time_ns, time);
    if (journal->form == JOURNAL_JSON)
        snprintf(text, sizeof(text), "%s{\"t\":%" PRIu64 ",\"s\":\"lost\",\"bytes\":%" PRIu64 "}\n",
                 journal->is_torn ? "\n" : "", time_ns, journal->untold_bytes);
    else
        snprintf(text, sizeof(text), "%s%s vial: %" PRIu64 " bytes were lost here\n", journal->is_torn ? "\n" : "",
                 time, journal->untold_bytes);
    if (write_bytes(journal, text, strlen(text)))
        journal->untold_bytes = 0;
}

/* Writes the record and forgets it; `length` bytes of somebody's are in it. */
static void write_record(struct journal *journal, uint64_t time_ns, size_t length)
{
    struct buffer *record = &journal->record;
    if (journal->untold_bytes > 0)
        tell_losses(journal, time_ns);
    else if (journal->is_torn && write_bytes(journal, "\n", 1))
        journal->is_torn = false;
    bool is_whole = record->error == 0 && journal->untold_bytes == 0 && !journal->is_torn;
    if (!is_whole || !write_bytes(journal, record->data, record->length))
        lose(journal, length);
    if (record->error < 0)
        buffer_free(record);
    record->length = 0;
}

/* ---- a program's output ---- */

static void add_json_record(struct journal *journal, uint64_t time_ns, const char *stream, const char *bytes,
                            size_t length, bool is_text)
{
    struct buffer *record = &journal->record;
    buffer_format(record, "{\"t\":%" PRIu64 ",\"s\":\"%s\",\"%s\":\"", time_ns, stream, is_text ? "text" : "base64");
    if (is_text)
        journal_add_escaped(record, bytes, length);
    else
        journal_add_base64(record, bytes, length);
    buffer_add(record, "\"}\n", 3);
    write_record(journal, time_ns, length);
}

static struct waiting *waiting_of(struct journal *journal, const char *stream)
{
    return &journal->waiting[stream[0] == 'o' ? 0 : stream[0] == 'e' ? 1 : 2];
}

/* Whatever was kept back is written before anything else of its stream, as what it is by now. */
static void flush_waiting(struct journal *journal, uint64_t time_ns, const char *stream)
{
    struct waiting *waiting = waiting_of(journal, stream);
    if (waiting->length > 0)
        add_json_record(journal, time_ns, stream, waiting->bytes, waiting->length, false);
    waiting->length = 0;
}

/* Completes the character that waits from the front of the bytes: how many it took. */
static size_t complete_waiting(struct journal *journal, uint64_t time_ns, const char *stream, const char *bytes,
                               size_t length)
{
    struct waiting *waiting = waiting_of(journal, stream);
    char whole[most_waiting + 1];
    size_t taken = 0;
    if (waiting->length == 0)
        return 0;
    memcpy(whole, waiting->bytes, waiting->length);
    while (taken < length && journal_may_go_on(whole, waiting->length + taken) && waiting->length + taken < 4) {
        whole[waiting->length + taken] = bytes[taken];
        taken++;
    }
    size_t total = waiting->length + taken;
    if (journal_character_length(whole, total) == total) {
        waiting->length = 0;
        add_json_record(journal, time_ns, stream, whole, total, true);
        return taken;
    }
    if (taken == length && journal_may_go_on(whole, total)) {
        memcpy(waiting->bytes, whole, total);
        waiting->length = total;
        return taken;
    }
    flush_waiting(journal, time_ns, stream);
    return 0;
}

static void add_piece(struct journal *journal, uint64_t time_ns, const char *stream, const char *bytes, size_t length)
{
    bool is_text = false;
    size_t taken = complete_waiting(journal, time_ns, stream, bytes, length);
    bytes += taken;
    length -= taken;
    size_t now = journal_judge_text(bytes, length, &is_text);
    if (now > 0)
        add_json_record(journal, time_ns, stream, bytes, now, is_text);
    struct waiting *waiting = waiting_of(journal, stream);
    if (length > now) { /* at most three bytes: a fourth would have decided */
        memcpy(waiting->bytes, bytes + now, length - now);
        waiting->length = length - now;
    }
}

void journal_add_output(struct journal *journal, uint64_t time_ns, const char *stream, const char *bytes, size_t length)
{
    pthread_mutex_lock(&journal->lock);
    for (size_t at = 0; at < length; at += most_piece) {
        size_t piece = length - at < most_piece ? length - at : most_piece;
        add_piece(journal, time_ns, stream, bytes + at, piece);
    }
    tend(journal);
    pthread_mutex_unlock(&journal->lock);
}

/* ---- lines ---- */

static void add_line(struct journal *journal, uint64_t time_ns, const char *text, size_t length)
{
    char time[JOURNAL_TIME_BYTES];
    struct buffer *record = &journal->record;
    journal_format_time(time_ns, time);
    buffer_format(record, "%s ", time);
    buffer_add(record, text, length);
    buffer_add(record, "\n", 1);
    write_record(journal, time_ns, length);
}

void journal_add_line(struct journal *journal, uint64_t time_ns, const char *text)
{
    size_t length = strnlen(text, LIMIT_JOURNAL_LINE_BYTES);
    pthread_mutex_lock(&journal->lock);
    add_line(journal, time_ns, text, length);
    pthread_mutex_unlock(&journal->lock);
}

/* Writes the console's line, its carriage return left out. */
static void end_console_line(struct journal *journal, uint64_t time_ns)
{
    struct buffer *line = &journal->line;
    size_t length = line->length;
    if (length > 0 && line->data[length - 1] == '\r')
        length--;
    add_line(journal, time_ns, line->data != NULL ? line->data : "", length);
    line->length = 0;
}

void journal_add_console(struct journal *journal, uint64_t time_ns, const char *bytes, size_t length)
{
    struct buffer *line = &journal->line;
    pthread_mutex_lock(&journal->lock);
    while (length > 0) {
        const char *end = memchr(bytes, '\n', length);
        size_t piece = end != NULL ? (size_t)(end - bytes) : length, room = LIMIT_JOURNAL_LINE_BYTES - line->length;
        bool is_whole = end != NULL && piece <= room;
        piece = piece < room ? piece : room;
        if (buffer_add(line, bytes, piece) < 0) {
            lose(journal, piece + line->length);
            buffer_free(line);
        } else if (is_whole || line->length == LIMIT_JOURNAL_LINE_BYTES) {
            end_console_line(journal, time_ns);
        }
        bytes += piece + is_whole;
        length -= piece + is_whole;
    }
    tend(journal);
    pthread_mutex_unlock(&journal->lock);
}

/* ---- life ---- */

int journal_new(int folder, const char *name, enum journal_form form, uint64_t most_bytes, struct journal **ret_journal)
{
    struct journal *journal = alloc_zero(sizeof(*journal));
    if (journal == NULL)
        return -ENOMEM;
    *journal = (struct journal){
        .folder = folder,
        .name = name,
        .form = form,
        .fd = -1,
        .most_bytes = most_bytes,
        .record = BUFFER_INIT(6 * (size_t)LIMIT_JOURNAL_LINE_BYTES + 256), /* each byte as \u00xx */
        .line = BUFFER_INIT(LIMIT_JOURNAL_LINE_BYTES),
    };
    pthread_mutex_init(&journal->lock, NULL);
    int result = open_file(journal);
    if (result < 0) {
        journal_free(journal);
        return result;
    }
    *ret_journal = journal;
    return 0;
}

static uint64_t time_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return clock_from_timespec(&now);
}

static void flush_all(struct journal *journal)
{
    static const char *const streams[most_streams] = {"out", "err", "tty"};
    for (size_t i = 0; i < most_streams; i++)
        flush_waiting(journal, time_now_ns(), streams[i]);
    if (journal->line.length > 0)
        end_console_line(journal, time_now_ns());
}

struct journal *journal_free(struct journal *journal)
{
    if (journal == NULL)
        return NULL;
    flush_all(journal);
    fd_close(journal->fd);
    buffer_free(&journal->record);
    buffer_free(&journal->line);
    pthread_mutex_destroy(&journal->lock);
    free(journal);
    return NULL;
}

void journal_tend(struct journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    tend(journal);
    pthread_mutex_unlock(&journal->lock);
}

uint64_t journal_lost_bytes(struct journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    uint64_t lost_bytes = journal->lost_bytes;
    pthread_mutex_unlock(&journal->lock);
    return lost_bytes;
}
