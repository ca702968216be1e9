// SPDX-License-Identifier: Apache-2.0
/* Logging through one hook.
 *
 * The level is an atomic that every call site reads first; nothing else happens while logging is off. A logger takes
 * the hook and its user pointer under a short lock, counts itself as in flight for the hook's generation, and calls
 * the hook without any lock, so that a hook may wait for a thread that logs. Whoever sets a new hook begins a new
 * generation and waits only for those in flight in the old one; loggers that never pause do not keep it waiting. Two
 * generations are enough, because setting is one at a time.
 *
 *     log_write:  lock, copy, in_flight[generation]++, unlock ──> hook ──> lock, in_flight--, unlock
 *     set_hook:   lock, replace, generation++, wait for in_flight[old] == 0, unlock
 *
 * A machine may wish for a level of its own while it lives; the most verbose wish then takes the place of the hook's
 * level, for whatever logs in this process.
 *
 * A hook that logs would call itself; a thread-local flag drops such events.
 *
 * Invariants: (1) with the level off no lock is taken and no field is evaluated. (2) a record is one line: details hold
 * no control characters. (3) nothing here allocates.
 *
 * Trust: event names and keys are ours; text fields may be a guest's.
 */
#include "base/log.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { details_bytes = 1024, line_bytes = 1280 };

static atomic_int current_level = VIAL_LOG_OFF;
static int hook_level = VIAL_LOG_OFF; /* these two guarded by hook_lock */
static unsigned wishes[VIAL_LOG_TRACE + 1];
static pthread_mutex_t set_lock = PTHREAD_MUTEX_INITIALIZER;  /* one setter at a time; taken first */
static pthread_mutex_t hook_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the next five */
static pthread_cond_t hook_is_idle = PTHREAD_COND_INITIALIZER;
static vial_log_hook current_hook;
static void *current_user; /* borrowed */
static unsigned generation;
static unsigned in_flight[2]; /* calls of the hook of an even and of an odd generation */
static _Thread_local bool is_in_hook;

const char *const log_level_names[] = {"off", "error", "warn", "info", "debug", "trace", NULL};

int log_level_from_name(const char *name, enum vial_log_level *ret_level)
{
    for (size_t i = 0; log_level_names[i] != NULL; i++) {
        if (strcmp(name, log_level_names[i]) == 0) {
            *ret_level = (enum vial_log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

/* With hook_lock held. The most verbose wish counts, and where there is none, the hook's own level. */
static void update_level(void)
{
    int level = hook_level;
    for (int i = VIAL_LOG_OFF; i <= VIAL_LOG_TRACE; i++)
        if (wishes[i] > 0)
            level = i;
    /* Relaxed: the level only says whether to look; the lock orders the hook itself. */
    atomic_store_explicit(&current_level, current_hook != NULL ? level : VIAL_LOG_OFF, memory_order_relaxed);
}

static void change_wish(int level, int by)
{
    if (level < VIAL_LOG_OFF || level > VIAL_LOG_TRACE)
        return;
    pthread_mutex_lock(&hook_lock);
    wishes[level] += (unsigned)by;
    update_level();
    pthread_mutex_unlock(&hook_lock);
}

void log_wish_level(int level)
{
    change_wish(level, 1);
}

void log_drop_wish(int level)
{
    change_wish(level, -1);
}

int vial_log_set_hook(vial_log_hook hook, void *user, int level)
{
    if (level < VIAL_LOG_OFF || level > VIAL_LOG_TRACE)
        return -EINVAL;
    if (is_in_hook)
        return -EDEADLK;
    pthread_mutex_lock(&set_lock);
    pthread_mutex_lock(&hook_lock);
    current_hook = hook;
    current_user = user;
    hook_level = level;
    update_level();
    unsigned old = generation++ % 2;
    while (in_flight[old] > 0)
        pthread_cond_wait(&hook_is_idle, &hook_lock);
    pthread_mutex_unlock(&hook_lock);
    pthread_mutex_unlock(&set_lock);
    return 0;
}

bool log_is_enabled(enum vial_log_level level)
{
    return (int)level <= atomic_load_explicit(&current_level, memory_order_relaxed);
}

/* Appends one " key=value" to details[0..used) and returns the new length; a field that does not fit is left out. */
static size_t add_field(char *details, size_t used, const struct log_field *field)
{
    char value[details_bytes / 2];
    const char *name = NULL;
    switch (field->kind) {
    case LOG_FIELD_TEXT:
        value[0] = '"';
        size_t length = 1 + text_escape(value + 1, sizeof(value) - 2, field->text, field->length, "\"\\");
        value[length] = '"';
        value[length + 1] = '\0';
        break;
    case LOG_FIELD_SIGNED:
        snprintf(value, sizeof(value), "%" PRId64, field->as_signed);
        break;
    case LOG_FIELD_UNSIGNED:
        snprintf(value, sizeof(value), "%" PRIu64, field->as_unsigned);
        break;
    case LOG_FIELD_HEX:
        snprintf(value, sizeof(value), "0x%" PRIx64, field->as_unsigned);
        break;
    case LOG_FIELD_ERRNO:
        name = strerrorname_np((int)(field->as_signed < 0 ? -field->as_signed : field->as_signed));
        snprintf(value, sizeof(value), "%s", name != NULL ? name : "unknown");
        break;
    case LOG_FIELD_END:
        return used;
    }
    int added = snprintf(details + used, details_bytes - used, "%s%s=%s", used > 0 ? " " : "", field->key, value);
    if (added < 0 || (size_t)added >= details_bytes - used) {
        details[used] = '\0';
        return used;
    }
    return used + (size_t)added;
}

static void call_hook(const struct vial_log_record *record)
{
    int cancel_state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state); /* a thread must not end while it is counted */
    pthread_mutex_lock(&hook_lock);
    vial_log_hook hook = log_is_enabled((enum vial_log_level)record->level) ? current_hook : NULL; /* still wanted? */
    void *user = current_user;
    unsigned mine = generation % 2;
    if (hook != NULL)
        in_flight[mine]++;
    pthread_mutex_unlock(&hook_lock);
    if (hook != NULL) {
        is_in_hook = true;
        hook(user, record);
        is_in_hook = false;
        pthread_mutex_lock(&hook_lock);
        if (--in_flight[mine] == 0)
            pthread_cond_broadcast(&hook_is_idle);
        pthread_mutex_unlock(&hook_lock);
    }
    pthread_setcancelstate(cancel_state, NULL);
}

void log_write(enum vial_log_level level, const char *event, const struct log_field *fields)
{
    if (is_in_hook)
        return;
    int saved = errno;
    char details[details_bytes] = "";
    size_t used = 0;
    for (const struct log_field *field = fields + 1; field->kind != LOG_FIELD_END; field++)
        used = add_field(details, used, field);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct vial_log_record record = {
        .size = sizeof(record),
        .level = (int32_t)level,
        .thread = (int32_t)syscall(SYS_gettid),
        .time_ns = clock_from_timespec(&now),
        .event = event,
        .details = details,
    };
    call_hook(&record);
    errno = saved;
}

/* ---- the hook that writes lines ---- */

/* The hook's user pointer carries the descriptor and whether to colour, so that the sink needs no memory of its own. */
#define SINK_IS_COLOURED ((uintptr_t)1 << 31)

/* One write a line; nobody can be told that it failed. A SIGPIPE of our own making is taken back. */
static void write_without_signal(int fd, const char *line, size_t length)
{
    static const struct timespec now = {0};
    sigset_t pipe_signal, before, pending;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    if (fd_write_all(fd, line, length) == -EPIPE && sigismember(&pending, SIGPIPE) == 0)
        sigtimedwait(&pipe_signal, NULL, &now);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void write_line(void *user, const struct vial_log_record *record)
{
    static const char *const colours[] = {"", "\033[31m", "\033[33m", "\033[32m", "\033[36m", "\033[2m"};
    uintptr_t sink = (uintptr_t)user;
    bool is_coloured = (sink & SINK_IS_COLOURED) != 0;
    int fd = (int)(sink & ~SINK_IS_COLOURED);
    struct timespec time = clock_to_timespec(record->time_ns);
    struct tm calendar;
    gmtime_r(&time.tv_sec, &calendar);
    char when[32];
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &calendar);
    char line[line_bytes];
    int length = snprintf(line, sizeof(line), "%s.%06ldZ %s%-5s%s %s%s%s\n", when, time.tv_nsec / 1000,
                          is_coloured ? colours[record->level] : "", log_level_names[record->level],
                          is_coloured ? "\033[0m" : "", record->event, record->details[0] != '\0' ? " " : "",
                          record->details);
    if (length < 0)
        return;
    if ((size_t)length >= sizeof(line)) {
        length = sizeof(line) - 1;
        line[length - 1] = '\n';
    }
    write_without_signal(fd, line, (size_t)length);
}

int vial_log_to_fd(int fd, int level, int style, struct vial_error *err)
{
    if (level < VIAL_LOG_OFF || level > VIAL_LOG_TRACE) {
        int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_CONFIGURE, "log level %d does not exist", level);
        error_remedy(err, "use a level from 0 (off) to 5 (trace)");
        return result;
    }
    if (style < VIAL_LOG_STYLE_AUTO || style > VIAL_LOG_STYLE_NEVER) {
        int result = error_set(err, VIAL_ERROR_INVALID, VIAL_PHASE_CONFIGURE, "log style %d does not exist", style);
        error_remedy(err, "use a style from 0 (auto) to 2 (never)");
        return result;
    }
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY) {
        error_set(err, VIAL_ERROR_WRONG_KIND, VIAL_PHASE_CONFIGURE, "log descriptor %d is not open for writing", fd);
        error_remedy(err, "give a descriptor that is open for writing, such as 2 for stderr");
        return -EINVAL;
    }
    const char *no_color = getenv("NO_COLOR");
    bool is_coloured = style == VIAL_LOG_STYLE_ALWAYS ||
                       (style == VIAL_LOG_STYLE_AUTO && isatty(fd) == 1 && (no_color == NULL || no_color[0] == '\0'));
    uintptr_t sink = (uintptr_t)fd | (is_coloured ? SINK_IS_COLOURED : 0);
    int result = vial_log_set_hook(write_line, (void *)sink, level);
    if (result < 0)
        error_set_os(err, VIAL_PHASE_CONFIGURE, result, "the log cannot be changed from inside its own hook");
    return result;
}
