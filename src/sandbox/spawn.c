// SPDX-License-Identifier: Apache-2.0
/* Starting a sandbox's process, which is a program of its own (base/program.c), and taking its word on how that went.
 *
 * The program gets three standard descriptors (its error goes to its log: what a dynamic linker or a sanitizer says
 * must not be lost), the report and the first client, and of the environment only what it needs: a guest that breaks
 * out finds no secrets there.
 *
 * Invariants: (1) after a failure there is no process of the sandbox.
 *
 * Trust: the report comes from our own program before a guest can have reached it; it is parsed strictly nevertheless.
 */
#include "sandbox/spawn.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/program.h"
#include "sandbox/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    report_most_bytes = 16 << 10,
    end_most_ms = 3000, /* between being asked to end and being killed */
    log_tail_bytes = 240,
};

/* What the program may know of ours, by name or by the name's beginning. */
static const char *const environment_names[] = {"PATH=",
                                                "HOME=",
                                                "LANG=",
                                                "LC_ALL=",
                                                "TMPDIR=",
                                                "XDG_DATA_HOME=",
                                                "XDG_CACHE_HOME=",
                                                "XDG_RUNTIME_DIR=",
                                                "LD_LIBRARY_PATH=",
                                                "VIAL_",
                                                "ASAN_OPTIONS=",
                                                "UBSAN_OPTIONS=",
                                                "TSAN_OPTIONS="};

static bool is_wanted(const char *variable)
{
    for (size_t i = 0; i < array_length(environment_names); i++)
        if (strncmp(variable, environment_names[i], strlen(environment_names[i])) == 0)
            return true;
    return false;
}

/* Pointers to the caller's variables. */
static char **make_environment(void)
{
    size_t count = 0, kept = 0;
    while (environ != NULL && environ[count] != NULL)
        count++;
    char **env = alloc_zero((count + 1) * sizeof(*env));
    for (size_t i = 0; env != NULL && i < count && environ[i] != NULL; i++)
        if (is_wanted(environ[i]))
            env[kept++] = environ[i];
    return env;
}

/* Starts it: its pidfd, or -errno. */
static int execute(const struct spawn *spawn, int report_end)
{
    const char *const words[] = {spawn->runtime,
                                 "sandbox-process",
                                 "--home",
                                 spawn->home,
                                 "--id",
                                 spawn->id,
                                 "--report-fd",
                                 "3",
                                 spawn->first_fd >= 0 ? "--first-fd" : NULL,
                                 "4",
                                 NULL};
    char *args[array_length(words)];
    memcpy(args, words, sizeof(args)); /* execve does not write there; its type cannot say so */
    auto_free char **env = make_environment();
    auto_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    auto_close int log = openat(spawn->folder, "log/runtime.log",
                                O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    int pidfd = -1;
    if (env == NULL)
        return -ENOMEM;
    if (null < 0)
        return -errno;
    struct program program = {
        .path = spawn->runtime,
        .args = args,
        .env = env,
        .fds = {null, null, log >= 0 ? log : null, report_end, spawn->first_fd},
        .fd_count = spawn->first_fd >= 0 ? 5 : 4,
    };
    int result = program_start(&program, &pidfd);
    return result < 0 ? result : pidfd;
}

/* ---- the report ---- */

/* Whole lines up to the first: 0, -ETIMEDOUT, -EPIPE when there is none, or -errno. */
static int read_report(int fd, uint64_t deadline_ns, struct buffer *line)
{
    for (;;) {
        uint64_t now_ns = clock_now_ns();
        uint64_t left_ns = deadline_ns == CLOCK_NEVER ? 0 : deadline_ns > now_ns ? deadline_ns - now_ns : 0;
        struct timespec left = clock_to_timespec(left_ns);
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        int count = ppoll(&ready, 1, deadline_ns == CLOCK_NEVER ? NULL : &left, NULL);
        if (count == 0)
            return -ETIMEDOUT;
        if (count < 0 && errno == EINTR)
            continue;
        char *room = buffer_reserve(line, 1024);
        if (count < 0 || room == NULL)
            return count < 0 ? -errno : line->error;
        ssize_t got = read(fd, room, 1024);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -EPIPE;
        bool is_whole = memchr(room, '\n', (size_t)got) != NULL;
        buffer_commit(line, (size_t)got);
        if (is_whole)
            return 0;
    }
}

/* A member's text, or "". */
static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static int number_of(const json_t *object, const char *key)
{
    json_int_t number = json_integer_value(json_object_get(object, key));
    return number >= 0 && number < 4096 ? (int)number : 0;
}

/* What the process has said in its own struct vial_error. */
static int take_failure(const struct spawn *spawn, const json_t *report, struct vial_error *err)
{
    const json_t *error = json_object_get(report, "error");
    const char *stage = text_of(report, "stage"), *field = text_of(error, "field");
    int os_error = number_of(error, "errno"), code = number_of(error, "code"), phase = number_of(error, "phase");
    if (strcmp(stage, "lock") == 0 && os_error == EALREADY) {
        error_set(err, VIAL_ERROR_CONFLICT, VIAL_PHASE_START, "sandbox \"%s\" runs already", spawn->name);
        error_field(err, "lock");
        return client_errno(err, EALREADY);
    }
    bool has_code = strcmp(vial_error_code_name(code), "unknown") != 0 && code != VIAL_ERROR_NONE;
    bool has_phase = strcmp(vial_phase_name(phase), "unknown") != 0;
    int result = error_set(err, has_code ? (enum vial_error_code)code : VIAL_ERROR_OS,
                           has_phase ? (enum vial_phase)phase : VIAL_PHASE_START, "sandbox \"%s\": %s", spawn->name,
                           text_of(error, "message"));
    error_field(err, "%s%s%s", stage, field[0] != '\0' ? "." : "", field);
    if (text_of(error, "value")[0] != '\0')
        error_value(err, "%s", text_of(error, "value"));
    if (text_of(error, "remedy")[0] != '\0')
        error_remedy(err, "%s", text_of(error, "remedy"));
    if (err != NULL)
        err->os_error = os_error;
    return os_error != 0 && os_error != ETIMEDOUT ? -os_error : result; /* that one is for our own deadline */
}

static int take_report(const struct spawn *spawn, const struct buffer *line, struct vial_error *err)
{
    auto_json json_t *report = NULL;
    struct vial_error why;
    const char *newline = memchr(line->data, '\n', line->length);
    size_t length = newline != NULL ? (size_t)(newline - line->data) : line->length;
    if (json_parse(line->data, length, &report, &why) < 0)
        return error_set_os(err, VIAL_PHASE_START, EPROTO, "sandbox \"%s\": its process has reported \"%s\"",
                            spawn->name, error_short(line->data).text);
    return strcmp(text_of(report, "state"), "running") == 0 ? 0 : take_failure(spawn, report, err);
}

/* It has ended without a word; what it has logged last may say why. */
static int fail_silent(const struct spawn *spawn, struct vial_error *err)
{
    char tail[log_tail_bytes + 1] = "";
    struct stat about;
    auto_close int log = openat(spawn->folder, "log/runtime.log", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    ssize_t length = 0;
    if (log >= 0 && fstat(log, &about) == 0)
        length = pread(log, tail, log_tail_bytes, about.st_size > log_tail_bytes ? about.st_size - log_tail_bytes : 0);
    while (length > 0 && tail[length - 1] == '\n')
        length--;
    tail[length > 0 ? length : 0] = '\0';
    const char *line = strrchr(tail, '\n');
    line = line != NULL ? line + 1 : tail;
    error_set(err, VIAL_ERROR_OS, VIAL_PHASE_START, "the process of sandbox \"%s\" has ended without a word%s%s",
              spawn->name, line[0] != '\0' ? "; its log ends in: " : "", line);
    error_field(err, "process");
    error_remedy(err, "read its log (vial logs --source runtime)");
    return client_errno(err, EIO);
}

/* ---- together ---- */

/* Nothing stays behind of a start that failed. A process that has told so is about to end, and has something to write
 * down first. */
static void end_process(int pidfd, bool must_be_asked)
{
    struct pollfd end = {.fd = pidfd, .events = POLLIN};
    if (must_be_asked)
        syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0);
    if (poll(&end, 1, end_most_ms) > 0)
        return;
    syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    while (poll(&end, 1, -1) < 0 && errno == EINTR)
        ;
}

int spawn_start(const struct spawn *spawn, uint64_t deadline_ns, struct vial_error *err)
{
    auto_buffer struct buffer line = BUFFER_INIT(report_most_bytes);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set_os(err, VIAL_PHASE_START, errno, "cannot make a pipe");
    auto_close int report = ends[0], report_end = ends[1];
    auto_close int pidfd = execute(spawn, report_end);
    if (pidfd < 0) {
        int result = error_set_os(err, VIAL_PHASE_START, pidfd, "cannot execute \"%s\"",
                                  error_short(spawn->runtime).text);
        error_field(err, "process");
        return result;
    }
    report_end = fd_close(report_end);
    int result = read_report(report, deadline_ns, &line);
    if (result == 0)
        result = take_report(spawn, &line, err);
    else if (result == -EPIPE)
        result = fail_silent(spawn, err);
    else
        error_set_os(err, VIAL_PHASE_START, result, "sandbox \"%s\" has not started", spawn->name);
    if (result < 0)
        end_process(pidfd, result == -ETIMEDOUT);
    return result;
}
