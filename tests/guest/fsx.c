// SPDX-License-Identifier: Apache-2.0
/* guest-fsx: does random things to one file and checks each byte of it against a model in memory.
 *
 *     guest-fsx [--operations N] [--seed N] [--length BYTES] [--direct] FILE
 *
 * Reads, writes, mapped reads and writes, truncations, holes, zeroed and allocated ranges, copies inside the file,
 * syncs, and closing and opening again, at random places that are not aligned. What the file system does not know is
 * left out from then on, and named at the end. With --direct the descriptor has O_DIRECT and offsets, lengths and
 * memory are whole blocks. Exit status 1, with the last operations, when the file is not what it should be.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { kept_operations = 40, line_bytes = 120, block_bytes = 4096 };

/* musl's headers do not have it (linux/falloc.h). */
#define ZERO_RANGE 0x10

static struct {
    const char *path;
    int fd;
    bool is_direct;
    uint64_t random;
    size_t most_bytes, size; /* of the file: at most, and now */
    uint8_t *model, *buffer; /* of most_bytes; beyond `size` the model is zeros */
    char last[kept_operations][line_bytes];
    unsigned long done;
} state;

static const char *unknown[16]; /* operations that the file system does not know */
static size_t unknown_count;

static void __attribute__((format(printf, 1, 2))) tell(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(state.last[state.done % kept_operations], line_bytes, format, arguments);
    va_end(arguments);
}

static _Noreturn void fail(const char *what, long long at)
{
    int error = errno;
    unsigned long first = state.done >= kept_operations ? state.done - kept_operations + 1 : 0;
    for (unsigned long i = first; i <= state.done; i++)
        printf("  %lu: %s\n", i, state.last[i % kept_operations]);
    printf("FAILED: %s at %lld after %lu operations (%s)\n", what, at, state.done, strerror(error));
    exit(1);
}

/* xorshift64* (Vigna): the same numbers on every machine. */
static uint64_t random_number(uint64_t below)
{
    state.random ^= state.random >> 12;
    state.random ^= state.random << 25;
    state.random ^= state.random >> 27;
    return below == 0 ? 0 : (state.random * UINT64_C(2685821657736338717) >> 16) % below;
}

static size_t aligned(size_t number)
{
    return state.is_direct ? number / block_bytes * block_bytes : number;
}

/* A range of at least one byte (or block) that lies below `end`, where there is one. */
static bool choose_range(size_t end, size_t *offset, size_t *length)
{
    size_t least = state.is_direct ? block_bytes : 1;
    if (end < least)
        return false;
    size_t most = random_number(4) == 0 ? 256 << 10 : 16 << 10;
    *offset = aligned(random_number(end - least + 1));
    *length = aligned(least + random_number(most));
    if (*length > end - *offset)
        *length = aligned(end - *offset);
    return *length > 0;
}

static bool is_known(const char *what)
{
    for (size_t i = 0; i < unknown_count; i++)
        if (unknown[i] == what)
            return false;
    return true;
}

/* After a failed call: whether the file system just has no such thing. */
static bool becomes_unknown(const char *what)
{
    if (errno != EOPNOTSUPP && errno != ENOSYS && !(errno == ENODEV && strcmp(what, "map") == 0))
        return false;
    unknown[unknown_count++] = what;
    return true;
}

static void grow(size_t end)
{
    if (end > state.size)
        state.size = end;
}

static void fill(size_t offset, size_t length)
{
    for (size_t i = 0; i < length; i++)
        state.model[offset + i] = (uint8_t)(random_number(255) + 1);
}

static void compare(const uint8_t *found, size_t offset, size_t length, const char *how)
{
    for (size_t i = 0; i < length; i++)
        if (found[i] != state.model[offset + i]) {
            printf("byte %zu is %#x, not %#x\n", offset + i, found[i], state.model[offset + i]);
            errno = 0;
            fail(how, (long long)(offset + i));
        }
}

static void do_read(void)
{
    size_t offset, length;
    if (!choose_range(state.size, &offset, &length))
        return;
    tell("read %zu bytes at %zu", length, offset);
    if (pread(state.fd, state.buffer, length, (off_t)offset) != (ssize_t)length)
        fail("short read", (long long)offset);
    compare(state.buffer, offset, length, "read");
}

static void do_write(void)
{
    size_t offset, length;
    size_t end = state.size + (64 << 10) < state.most_bytes ? state.size + (64 << 10) : state.most_bytes;
    if (!choose_range(end, &offset, &length))
        return;
    tell("write %zu bytes at %zu (size %zu)", length, offset, state.size);
    fill(offset, length);
    memcpy(state.buffer, state.model + offset, length);
    if (pwrite(state.fd, state.buffer, length, (off_t)offset) != (ssize_t)length)
        fail("short write", (long long)offset);
    grow(offset + length);
}

static void do_map(bool writes)
{
    size_t offset, length;
    if (!is_known("map") || state.is_direct || !choose_range(state.size, &offset, &length))
        return;
    tell("%s a mapping of %zu bytes at %zu", writes ? "write to" : "read", length, offset);
    size_t start = offset / block_bytes * block_bytes;
    uint8_t *map = mmap(NULL, length + offset - start, writes ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
                        state.fd, (off_t)start);
    if (map == MAP_FAILED && becomes_unknown("map"))
        return;
    if (map == MAP_FAILED)
        fail("map", (long long)offset);
    if (writes) {
        fill(offset, length);
        memcpy(map + (offset - start), state.model + offset, length);
        if (random_number(2) == 0 && msync(map, length + offset - start, MS_SYNC) < 0)
            fail("msync", (long long)offset);
    } else {
        compare(map + (offset - start), offset, length, "mapped read");
    }
    munmap(map, length + offset - start);
}

static void do_map_read(void)
{
    do_map(false);
}

static void do_map_write(void)
{
    do_map(true);
}

static void do_truncate(void)
{
    size_t size = aligned(random_number(state.most_bytes + 1));
    if (random_number(3) != 0 && size < state.size / 2) /* mostly upwards, or the file stays small */
        size = state.size;
    tell("truncate from %zu to %zu", state.size, size);
    if (ftruncate(state.fd, (off_t)size) < 0)
        fail("truncate", (long long)size);
    if (size < state.size)
        memset(state.model + size, 0, state.size - size);
    state.size = size;
}

static void do_fallocate(const char *what, int mode, bool clears, size_t end)
{
    size_t offset, length;
    if (!is_known(what) || !choose_range(end, &offset, &length))
        return;
    tell("%s %zu bytes at %zu (size %zu)", what, length, offset, state.size);
    if (fallocate(state.fd, mode, (off_t)offset, (off_t)length) < 0) {
        if (becomes_unknown(what))
            return;
        fail(what, (long long)offset);
    }
    if (clears)
        memset(state.model + offset, 0, length);
    if ((mode & FALLOC_FL_KEEP_SIZE) == 0)
        grow(offset + length);
}

static void do_punch(void)
{
    do_fallocate("punch", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, true, state.size);
}

static void do_zero(void)
{
    do_fallocate("zero", ZERO_RANGE, true, state.most_bytes);
}

static void do_allocate(void)
{
    do_fallocate("allocate", 0, false, state.most_bytes);
}

static void do_copy(void)
{
    size_t from, to, length;
    if (!is_known("copy") || !choose_range(state.size, &from, &length))
        return;
    to = aligned(random_number(state.most_bytes - length + 1));
    if (to < from + length && from < to + length) /* overlapping ranges are not allowed */
        return;
    tell("copy %zu bytes from %zu to %zu (size %zu)", length, from, to, state.size);
    for (size_t done = 0; done < length;) {
        off_t in = (off_t)(from + done), out = (off_t)(to + done);
        ssize_t copied = copy_file_range(state.fd, &in, state.fd, &out, length - done, 0);
        if (copied < 0 && done == 0 && becomes_unknown("copy"))
            return;
        if (copied <= 0)
            fail("copy", (long long)(from + done));
        done += (size_t)copied;
    }
    memcpy(state.model + to, state.model + from, length);
    grow(to + length);
}

static void do_sync(void)
{
    tell("sync");
    if ((random_number(2) == 0 ? fsync(state.fd) : fdatasync(state.fd)) < 0)
        fail("sync", 0);
}

static void open_file(int flags)
{
    state.fd = open(state.path, O_RDWR | O_CLOEXEC | (state.is_direct ? O_DIRECT : 0) | flags, 0644);
    if (state.fd < 0)
        fail("open", 0);
}

static void do_reopen(void)
{
    tell("close and open");
    if (close(state.fd) < 0)
        fail("close", 0);
    open_file(0);
}

static void check_size(void)
{
    struct stat status;
    if (fstat(state.fd, &status) < 0 || (size_t)status.st_size != state.size)
        fail("the size is another one", (long long)status.st_size);
}

static void check_all(void)
{
    tell("compare all");
    for (size_t offset = 0; offset < state.size;) {
        ssize_t got = pread(state.fd, state.buffer, state.most_bytes, (off_t)offset);
        if (got <= 0)
            fail("read at the end", (long long)offset);
        compare(state.buffer, offset, (size_t)got, "the whole file");
        offset += (size_t)got;
    }
}

static const struct {
    void (*run)(void);
    unsigned weight;
} operations[] = {
    {do_read, 20}, {do_write, 25}, {do_map_read, 8}, {do_map_write, 8}, {do_truncate, 4}, {do_punch, 4},
    {do_zero, 4},  {do_copy, 4},   {do_allocate, 2}, {do_sync, 1},      {do_reopen, 1},
};

static void run_one(void)
{
    unsigned all = 0, chosen;
    for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
        all += operations[i].weight;
    chosen = (unsigned)random_number(all);
    size_t i = 0;
    while (chosen >= operations[i].weight)
        chosen -= operations[i++].weight;
    operations[i].run();
    check_size();
}

static _Noreturn void explain(void)
{
    printf("usage: guest-fsx [--operations N] [--seed N] [--length BYTES] [--direct] FILE\n");
    exit(2);
}

int main(int count, char **arguments)
{
    unsigned long wanted = 10000;
    state.random = 1;
    state.most_bytes = 1 << 20;
    for (int i = 1; i < count; i++) {
        bool has_value = i + 1 < count;
        if (strcmp(arguments[i], "--operations") == 0 && has_value)
            wanted = strtoul(arguments[++i], NULL, 10);
        else if (strcmp(arguments[i], "--seed") == 0 && has_value)
            state.random = strtoul(arguments[++i], NULL, 10) * 2 + 1;
        else if (strcmp(arguments[i], "--length") == 0 && has_value)
            state.most_bytes = strtoul(arguments[++i], NULL, 10);
        else if (strcmp(arguments[i], "--direct") == 0)
            state.is_direct = true;
        else if (arguments[i][0] == '-' || state.path != NULL)
            explain();
        else
            state.path = arguments[i];
    }
    if (state.path == NULL || state.most_bytes < (64 << 10) || state.most_bytes % block_bytes != 0)
        explain();
    state.model = calloc(1, state.most_bytes);
    state.buffer = aligned_alloc(block_bytes, state.most_bytes);
    if (state.model == NULL || state.buffer == NULL)
        fail("memory", 0);
    open_file(O_CREAT | O_TRUNC);
    for (state.done = 0; state.done < wanted; state.done++)
        run_one();
    check_all();
    do_reopen();
    check_all();
    printf("fine: %lu operations", state.done);
    for (size_t i = 0; i < unknown_count; i++)
        printf(", no %s", unknown[i]);
    printf("\n");
    return 0;
}
