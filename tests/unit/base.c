// SPDX-License-Identifier: Apache-2.0
/* Tests of the small parts of base: alloc, buffer, error, clock, fd, path. */
#include "test.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/path.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- alloc ---- */

TEST(grow_makes_room_and_zeroes)
{
    int *items = NULL;
    size_t capacity = 0;
    for (size_t i = 0; i < 10; i++) {
        CHECK_INT(alloc_grow((void **)&items, i, &capacity, sizeof(items[0]), 10), 0);
        CHECK_INT(items[i], 0);
        items[i] = -1;
    }
    CHECK_INT(alloc_grow((void **)&items, 10, &capacity, sizeof(items[0]), 10), -E2BIG);
    CHECK_INT(capacity, 10);
    free(items);
}

TEST(grow_survives_no_memory)
{
    FOR_EACH_FAULT
    {
        int *items = NULL;
        size_t capacity = 0;
        int result = alloc_grow((void **)&items, 0, &capacity, sizeof(items[0]), 10);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        CHECK_INT(capacity > 0, result == 0);
        free(items);
    }
}

TEST(steal_leaves_nothing)
{
    char *text = alloc_string("x");
    char *taken = steal_ptr(text);
    CHECK(text == NULL);
    CHECK_TEXT(taken, "x");
    free(taken);
    int fd = 5;
    CHECK_INT(steal_fd(&fd), 5);
    CHECK_INT(fd, -1);
}

/* ---- buffer ---- */

TEST(buffer_collects)
{
    auto_buffer struct buffer text = BUFFER_INIT(1000);
    buffer_add(&text, "ab", 2);
    buffer_format(&text, "%d-%s", 42, "x");
    buffer_add_text(&text, "!");
    CHECK_TEXT(text.data, "ab42-x!");
    CHECK_INT(text.length, 7);
    char *stolen = buffer_steal(&text);
    CHECK_TEXT(stolen, "ab42-x!");
    free(stolen);
    stolen = buffer_steal(&text);
    CHECK_TEXT(stolen, "");
    free(stolen);
}

TEST(buffer_keeps_its_limit)
{
    auto_buffer struct buffer text = BUFFER_INIT(8);
    CHECK_INT(buffer_add_text(&text, "12345678"), 0);
    CHECK_INT(buffer_add_text(&text, "9"), -ENOBUFS);
    CHECK_INT(buffer_format(&text, "x"), -ENOBUFS);
    CHECK_INT(buffer_add(&text, "", 0), -ENOBUFS); /* the first failure sticks */
    CHECK_TEXT(text.data, "12345678");
    CHECK(buffer_steal(&text) == NULL);
    CHECK_INT(text.error, 0); /* usable again */
    CHECK(buffer_reserve(&text, SIZE_MAX) == NULL);
}

TEST(buffer_survives_no_memory)
{
    FOR_EACH_FAULT
    {
        auto_buffer struct buffer text = BUFFER_INIT(100000);
        for (int i = 0; i < 1000; i++)
            buffer_format(&text, "%d,", i);
        CHECK_INT(text.error, fault_was_hit() ? -ENOMEM : 0);
    }
}

/* ---- error ---- */

TEST(error_carries_everything)
{
    struct vial_error err;
    memset(&err, 'x', sizeof(err));
    CHECK_INT(error_set(&err, VIAL_ERROR_NOT_FOUND, VIAL_PHASE_VALIDATE, "%s is gone", "a\nb"), -ENOENT);
    error_field(&err, "disks[%d].path", 1);
    error_value(&err, "\x1b[31m");
    error_remedy(&err, "look again");
    CHECK_INT(err.code, VIAL_ERROR_NOT_FOUND);
    CHECK_INT(err.phase, VIAL_PHASE_VALIDATE);
    CHECK_INT(err.os_error, 0);
    CHECK_TEXT(err.message, "a\\x0ab is gone");
    CHECK_TEXT(err.field, "disks[1].path");
    CHECK_TEXT(err.value, "\\x1b[31m");
    CHECK_TEXT(err.remedy, "look again");
    CHECK_INT(error_set(&err, VIAL_ERROR_TYPE, VIAL_PHASE_CONFIGURE, "new"), -EINVAL);
    CHECK_TEXT(err.field, ""); /* nothing of the last error is left */
}

TEST(error_of_a_system_call)
{
    struct vial_error err;
    CHECK_INT(error_set_os(&err, VIAL_PHASE_HOST, -EACCES, "cannot open %s", "x"), -EACCES);
    CHECK_INT(err.code, VIAL_ERROR_PERMISSION);
    CHECK_INT(err.os_error, EACCES);
    CHECK_TEXT(err.message, "cannot open x: Permission denied");
    CHECK_INT(error_set_os(&err, VIAL_PHASE_HOST, ENOENT, "x"), -ENOENT);
    CHECK_INT(err.code, VIAL_ERROR_NOT_FOUND);
    CHECK_INT(error_set_os(&err, VIAL_PHASE_HOST, EMFILE, "x"), -EMFILE);
    CHECK_INT(err.code, VIAL_ERROR_OS);
    CHECK_INT(error_set_os(NULL, VIAL_PHASE_HOST, EMFILE, "x"), -EMFILE);
}

TEST(error_accepts_null_and_long_texts)
{
    char text[2000];
    struct vial_error err;
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    CHECK_INT(error_set(NULL, VIAL_ERROR_TYPE, VIAL_PHASE_CONFIGURE, "%s", text), -EINVAL);
    error_field(NULL, "x");
    error_set(&err, VIAL_ERROR_TYPE, VIAL_PHASE_CONFIGURE, "%s", text);
    CHECK_INT(strlen(err.message), sizeof(err.message) - 1);
    CHECK_TEXT(err.message + sizeof(err.message) - 4, "...");
}

TEST(long_arguments_leave_room_for_the_reason)
{
    char path[1000];
    struct vial_error err;
    memset(path, 'a', sizeof(path));
    memcpy(path, "/begin", 6);
    memcpy(path + sizeof(path) - 5, "/end", 5);
    error_set_os(&err, VIAL_PHASE_HOST, ENOENT, "cannot open %s", error_short(path).text);
    CHECK(strstr(err.message, "/begin") != NULL && strstr(err.message, "...") != NULL);
    CHECK(strstr(err.message, "/end: No such file or directory") != NULL);
    CHECK_TEXT(error_short("short").text, "short");
}

TEST(error_names_are_complete)
{
    for (int code = VIAL_ERROR_NONE; code <= VIAL_ERROR_KVM_EMULATED; code++)
        CHECK(strcmp(vial_error_code_name(code), "unknown") != 0);
    CHECK_TEXT(vial_error_code_name(VIAL_ERROR_KVM_EMULATED + 1), "unknown");
    CHECK_TEXT(vial_error_code_name(-1), "unknown");
    CHECK_TEXT(vial_phase_name(VIAL_PHASE_HOST), "host");
    CHECK_TEXT(vial_phase_name(99), "unknown");
}

/* ---- clock ---- */

TEST(clock_converts_and_saturates)
{
    struct timespec time = clock_to_timespec(3 * CLOCK_NS_PER_S + 5);
    CHECK_INT(time.tv_sec, 3);
    CHECK_INT(time.tv_nsec, 5);
    CHECK_INT(clock_from_timespec(&time), 3 * CLOCK_NS_PER_S + 5);
    uint64_t before_ns = clock_now_ns();
    CHECK(clock_deadline_ns(1000) >= before_ns + 1000);
    CHECK(clock_deadline_ns(UINT64_MAX) == CLOCK_NEVER);
}

/* ---- fd ---- */

TEST(close_keeps_errno)
{
    errno = EDOM;
    CHECK_INT(fd_close(-1), -1);
    CHECK_INT(fd_close(dup(1)), -1);
    CHECK_INT(errno, EDOM);
}

TEST(read_all_stops_at_the_limit)
{
    const char *path = test_text_file("five", "12345");
    auto_buffer struct buffer fits = BUFFER_INIT(5), small = BUFFER_INIT(4), missing = BUFFER_INIT(4);
    CHECK_INT(fd_read_file(path, &fits), 0);
    CHECK_TEXT(fits.data, "12345");
    CHECK_INT(fd_read_file(path, &small), -ENOBUFS);
    CHECK_INT(fd_read_file("/nonexistent", &missing), -ENOENT);
    CHECK_INT(fd_read_file(test_folder(), &missing), -EISDIR);
}

TEST(read_all_survives_no_memory)
{
    const char *path = test_text_file("five", "12345");
    FOR_EACH_FAULT
    {
        auto_buffer struct buffer text = BUFFER_INIT(100);
        CHECK_INT(fd_read_file(path, &text), fault_was_hit() ? -ENOMEM : 0);
    }
}

static void *drain(void *argument)
{
    int fd = *(int *)argument;
    static char bytes[4096];
    size_t total = 0;
    ssize_t got;
    while ((got = read(fd, bytes, sizeof(bytes))) > 0)
        total += (size_t)got;
    return (void *)total;
}

TEST(write_all_survives_full_pipes_and_closed_ones)
{
    static char bytes[1 << 20];
    int ends[2];
    void *total = NULL;
    pthread_t reader;
    CHECK_INT(pipe(ends), 0);
    CHECK_INT(pthread_create(&reader, NULL, drain, &ends[0]), 0);
    CHECK_INT(fd_write_all(ends[1], bytes, sizeof(bytes)), 0);
    close(ends[1]);
    pthread_join(reader, &total);
    CHECK_INT((size_t)total, sizeof(bytes));
    close(ends[0]);
    CHECK_INT(pipe(ends), 0);
    close(ends[0]);
    signal(SIGPIPE, SIG_IGN);
    CHECK_INT(fd_write_all(ends[1], bytes, 10), -EPIPE);
    signal(SIGPIPE, SIG_DFL);
    close(ends[1]);
}

TEST(beneath_does_not_leave_the_folder)
{
    test_text_file("inside/file", "x");
    test_text_file("outside", "secret");
    auto_close int folder = open(test_folder(), O_PATH | O_DIRECTORY);
    auto_close int inside = openat(folder, "inside", O_PATH | O_DIRECTORY);
    CHECK(inside >= 0);
    CHECK_INT(symlinkat("../outside", inside, "up"), 0);
    CHECK_INT(symlinkat("/etc/passwd", inside, "absolute"), 0);
    CHECK_INT(symlinkat("file", inside, "good"), 0);
    auto_close int file = fd_open_beneath(inside, "file", O_RDONLY, 0, false);
    CHECK(file >= 0);
    CHECK_INT(fcntl(file, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    CHECK_INT(fd_open_beneath(inside, "../outside", O_RDONLY, 0, true), -EXDEV);
    CHECK_INT(fd_open_beneath(inside, "/etc/passwd", O_RDONLY, 0, true), -EXDEV);
    CHECK_INT(fd_open_beneath(inside, "up", O_RDONLY, 0, true), -EXDEV);
    CHECK_INT(fd_open_beneath(inside, "absolute", O_RDONLY, 0, true), -EXDEV);
    CHECK_INT(fd_open_beneath(inside, "good", O_RDONLY, 0, false), -ELOOP);
    auto_close int good = fd_open_beneath(inside, "good", O_RDONLY, 0, true);
    CHECK(good >= 0);
    auto_close int made = fd_open_beneath(inside, "new", O_WRONLY | O_CREAT | O_EXCL, 0600, false);
    CHECK(made >= 0);
    auto_close int proc = open("/proc/self", O_PATH | O_DIRECTORY);
    CHECK_INT(fd_open_beneath(proc, "root/etc/passwd", O_RDONLY, 0, true), -ELOOP); /* a magic link */
}

/* ---- path ---- */

static const char *normalize(const char *path)
{
    static char result[256];
    auto_free char *normal = NULL;
    int status = path_normalize(path, &normal);
    snprintf(result, sizeof(result), "%s",
             status == 0         ? normal
             : status == -EINVAL ? "EINVAL"
             : status == -EXDEV  ? "EXDEV"
                                 : "?");
    return result;
}

TEST(normalize)
{
    CHECK_TEXT(normalize("/"), "/");
    CHECK_TEXT(normalize("//"), "/");
    CHECK_TEXT(normalize("/."), "/");
    CHECK_TEXT(normalize("/app/./data//"), "/app/data");
    CHECK_TEXT(normalize("/app/data/"), "/app/data");
    CHECK_TEXT(normalize("/a/../b"), "/b");
    CHECK_TEXT(normalize("/a/b/../../c"), "/c");
    CHECK_TEXT(normalize("/a/.."), "/");
    CHECK_TEXT(normalize("/..a/.b/..."), "/..a/.b/...");
    CHECK_TEXT(normalize("/.."), "EXDEV");
    CHECK_TEXT(normalize("/a/../../b"), "EXDEV");
    CHECK_TEXT(normalize(""), "EINVAL");
    CHECK_TEXT(normalize("a/b"), "EINVAL");
    CHECK_TEXT(normalize("./a"), "EINVAL");
}

TEST(normalize_survives_no_memory)
{
    FOR_EACH_FAULT
    {
        auto_free char *normal = NULL;
        CHECK_INT(path_normalize("/a/b", &normal), fault_was_hit() ? -ENOMEM : 0);
    }
}

TEST(overlap_compares_components)
{
    CHECK(path_overlaps("/var", "/var"));
    CHECK(path_overlaps("/var", "/var/log"));
    CHECK(path_overlaps("/var/log", "/var"));
    CHECK(path_overlaps("/", "/var"));
    CHECK(!path_overlaps("/var", "/variety"));
    CHECK(!path_overlaps("/var/log", "/var/lib"));
    CHECK(!path_overlaps("/a", "/b"));
}

TEST(what_a_descriptor_is_open_for)
{
    int read_fd = open("/dev/null", O_RDONLY | O_CLOEXEC), write_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    int both_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    CHECK(fd_is_readable(read_fd) && !fd_is_writable(read_fd));
    CHECK(!fd_is_readable(write_fd) && fd_is_writable(write_fd));
    CHECK(fd_is_readable(both_fd) && fd_is_writable(both_fd));
    CHECK(!fd_is_readable(-1) && !fd_is_writable(-1));
    fd_close(read_fd), fd_close(write_fd), fd_close(both_fd);
}
