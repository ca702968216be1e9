// SPDX-License-Identifier: Apache-2.0
/* Processes: fork and exec in numbers, vfork, pipes between them, their limits and their stacks. */
#include "part.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { storm_count = 300, storm_width = 20, chain_length = 8, chain_bytes = 1 << 20 };

static const char *const nothing[] = {"/proc/self/exe", "nothing", NULL};

static _Noreturn void become_nothing(void)
{
    execv(nothing[0], (char *const *)(uintptr_t)nothing);
    _exit(127);
}

/* Twenty at a time, so that they also meet each other. */
bool part_storm(void)
{
    uint64_t start_ns = now_ns();
    for (int i = 0; i < storm_count; i += storm_width) {
        pid_t children[storm_width];
        for (int j = 0; j < storm_width; j++) {
            children[j] = fork();
            if (children[j] == 0)
                become_nothing();
            if (children[j] < 0)
                return complain("fork %d", i + j);
        }
        for (int j = 0; j < storm_width; j++)
            if (!expect(status_of(children[j]) == 0))
                return false;
    }
    note("%llu us for each", (unsigned long long)(now_ns() - start_ns) / 1000 / storm_count);
    return expect(wait(NULL) < 0 && errno == ECHILD);
}

/* The parent stands still until the child has executed or ended, and its memory is the child's meanwhile. */
bool part_vfork(void)
{
    static volatile int round, shared; /* not in registers, which both would use */
    for (round = 1; round <= 50; round++) {
        pid_t child = vfork(); // NOLINT: what is tested
        if (child == 0) {
            shared = round;
            _exit(round);
        }
        if (!expect(shared == round) || !expect(status_of(child) == round))
            return false;
        child = vfork(); // NOLINT
        if (child == 0)
            become_nothing();
        if (!expect(status_of(child) == 0))
            return false;
    }
    return true;
}

static uint8_t byte_at(uint32_t position)
{
    return (uint8_t)(position * 2654435761u >> 13);
}

static bool write_all(int fd, const uint8_t *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, bytes, length);
        if (written <= 0)
            return false;
        bytes += written;
        length -= (size_t)written;
    }
    return true;
}

static _Noreturn void produce(int to)
{
    uint8_t block[4096];
    for (uint32_t position = 0; position < chain_bytes; position += sizeof(block)) {
        for (uint32_t i = 0; i < sizeof(block); i++)
            block[i] = byte_at(position + i);
        if (!write_all(to, block, sizeof(block)))
            _exit(1);
    }
    _exit(0);
}

static _Noreturn void pass_on(int from, int to)
{
    uint8_t block[1777];
    ssize_t length;
    while ((length = read(from, block, sizeof(block))) > 0)
        if (!write_all(to, block, (size_t)length))
            _exit(1);
    _exit(length < 0);
}

static bool check_bytes(int from)
{
    uint8_t block[5000];
    uint32_t position = 0;
    ssize_t length;
    while ((length = read(from, block, sizeof(block))) > 0)
        for (ssize_t i = 0; i < length; i++)
            if (block[i] != byte_at(position++))
                return complain("a wrong byte at %u", position - 1);
    return expect(position == chain_bytes);
}

/* One MiB through a chain of eight processes. */
bool part_pipes(void)
{
    pid_t children[chain_length];
    int from = -1;
    for (int i = 0; i < chain_length; i++) {
        int ends[2];
        if (pipe(ends) < 0)
            return complain("pipe");
        children[i] = fork();
        if (children[i] == 0) {
            close(ends[0]);
            if (i == 0)
                produce(ends[1]);
            pass_on(from, ends[1]);
        }
        close(ends[1]);
        if (from >= 0)
            close(from);
        from = ends[0];
    }
    bool is_good = check_bytes(from);
    for (int i = 0; i < chain_length; i++)
        is_good &= expect(status_of(children[i]) == 0);
    return is_good;
}

/* In the child: a limit of each kind bites. */
static bool limits_bite(void)
{
    struct rlimit files = {.rlim_cur = 20, .rlim_max = 20}, size = {.rlim_cur = 8192, .rlim_max = 8192}, read_back;
    char block[16384] = {0};
    signal(SIGXFSZ, SIG_IGN);
    if (!expect(setrlimit(RLIMIT_NOFILE, &files) == 0) || !expect(setrlimit(RLIMIT_FSIZE, &size) == 0))
        return false;
    int last = -1, fd;
    while ((fd = open("/dev/null", O_RDONLY)) >= 0)
        last = fd;
    bool is_good = expect(errno == EMFILE) && expect(last == 19);
    close(last);
    fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
    is_good &= fd >= 0 || complain("a nameless file in /tmp");
    is_good &= expect(write(fd, block, sizeof(block)) == 8192) && expect(write(fd, block, 1) < 0 && errno == EFBIG);
    is_good &= expect(getrlimit(RLIMIT_FSIZE, &read_back) == 0) && expect(read_back.rlim_cur == 8192);
    return is_good;
}

static bool cpu_limit_bites(void)
{
    struct rlimit limit = {.rlim_cur = 1, .rlim_max = 1};
    pid_t child = fork();
    if (child == 0) {
        setrlimit(RLIMIT_CPU, &limit);
        for (volatile unsigned i = 0;; i++)
            continue;
    }
    int status = status_of(child);
    return expect(status == 128 + SIGKILL || status == 128 + SIGXCPU);
}

bool part_limits(void)
{
    errno = 0;
    pid_t child = fork();
    if (child == 0)
        _exit(!limits_bite());
    return expect(status_of(child) == 0) && cpu_limit_bites();
}

/* Touches a page of the stack at each level. */
static unsigned __attribute__((noinline)) descend(unsigned kib)
{
    volatile char page[4096];
    page[0] = (char)kib;
    unsigned below = kib > 4 ? descend(kib - 4) : 0;
    return below + (page[0] == (char)kib);
}

/* Eight MiB are what programs count on; beyond them there is SIGSEGV. */
bool part_stack(void)
{
    struct rlimit limit;
    if (!expect(getrlimit(RLIMIT_STACK, &limit) == 0) || !expect(limit.rlim_cur >= 8 << 20))
        return false;
    bool is_good = expect(descend(7 << 10) == (7 << 10) / 4);
    if (limit.rlim_cur == RLIM_INFINITY)
        return is_good;
    pid_t child = fork();
    if (child == 0)
        _exit(descend((unsigned)(limit.rlim_cur >> 10) + 1024) == 0);
    return expect(status_of(child) == 128 + SIGSEGV) && is_good;
}
