// SPDX-License-Identifier: Apache-2.0
/* Children change an image and are killed at any moment; what they had flushed must be there.
 *
 * Parent and child share what is known of each sector: the number of the write that was on the medium at the last
 * flush, and of the last one that was tried. After the kill, each sector must hold the former, or one from between; and
 * a check of the image, ours and qemu-img's, finds no corruption. Leaks are told, and gone after the next open for
 * writing or a repair.
 */
#include "qcow2_model.h"

#include "disk/qcow2.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { sector_bytes = 512, most_bytes = 128 << 10 };

struct sector {
    uint64_t durable, tried; /* numbers of writes; 0: zeros */
    bool may_be_zero;        /* zeroed since the last flush */
};

struct shared {
    uint64_t version, flushes;
    struct sector sectors[];
};

static struct disk *open_disk(const struct disk_options *options)
{
    struct disk *disk = NULL;
    struct vial_error err = {0};
    if (disk_open(options, &disk, &err) < 0)
        fail("%s", err.message);
    return disk;
}

static void settle(struct shared *shared, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        if (shared->sectors[i].tried != shared->sectors[i].durable || shared->sectors[i].may_be_zero) {
            shared->sectors[i].durable = shared->sectors[i].tried;
            shared->sectors[i].may_be_zero = false;
        }
    shared->flushes++;
}

static void change(struct disk *disk, struct shared *shared, uint64_t sectors, uint64_t *seed)
{
    static uint8_t bytes[most_bytes];
    uint64_t first = next_random(seed) % sectors, most = next_random(seed) % 4 == 0 ? most_bytes / sector_bytes : 8;
    uint64_t count = 1 + next_random(seed) % most, what = next_random(seed) % 16;
    if (first + count > sectors)
        count = sectors - first;
    uint64_t version = what < 2 ? 0 : ++shared->version;
    for (uint64_t i = first; i < first + count; i++) {
        shared->sectors[i].tried = version;
        shared->sectors[i].may_be_zero = shared->sectors[i].may_be_zero || version == 0;
    }
    stamp(bytes, first * sector_bytes, count * sector_bytes, version);
    int result = version == 0 ? disk_zero(disk, first * sector_bytes, count * sector_bytes, what == 0)
                              : write_somehow(disk, bytes, first * sector_bytes, count * sector_bytes, seed);
    if (result < 0)
        fail("a change failed: %s", strerror(-result));
}

/* Until it is killed. */
_Noreturn static void run_child(const struct disk_options *options, struct shared *shared, uint64_t sectors,
                                uint64_t seed)
{
    struct disk *disk = open_disk(options);
    for (;;) {
        for (uint64_t i = next_random(&seed) % 64; i > 0; i--)
            change(disk, shared, sectors, &seed);
        if (disk_flush(disk) < 0)
            fail("a flush failed");
        settle(shared, sectors);
    }
}

/* Until that time is over, or a child has ended. */
static void wait_for_child(uint64_t milliseconds)
{
    const struct timespec delay = {.tv_nsec = (long)milliseconds * 1000000};
    sigset_t ended;
    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    sigtimedwait(&ended, NULL, &delay);
}

static void verify(const struct disk_options *options, struct shared *shared, uint64_t size_bytes)
{
    struct disk_options reading = *options;
    uint8_t *bytes = malloc(size_bytes);
    reading.read_only = true;
    struct disk *disk = open_disk(&reading);
    if (bytes == NULL)
        fail("no memory");
    read_whole(disk, bytes, size_bytes);
    for (uint64_t i = 0; i < size_bytes / sector_bytes; i++) {
        struct sector *sector = &shared->sectors[i];
        uint64_t found = stamp_of(bytes + i * sector_bytes, i * sector_bytes);
        bool is_right = found == sector->durable || (found == 0 && sector->may_be_zero) ||
                        (found > sector->durable && found != UINT64_MAX && found <= shared->version);
        if (!is_right)
            fail("after %llu flushes, sector %llu holds %llx; %llx was flushed, %llx tried last",
                 (unsigned long long)shared->flushes, (unsigned long long)i, (unsigned long long)found,
                 (unsigned long long)sector->durable, (unsigned long long)sector->tried);
        *sector = (struct sector){found, found, false};
    }
    disk_free(disk);
    free(bytes);
}

/* The exit status of qemu-img check: 0, or 3 for leaks. */
static void ask_qemu(const char *path)
{
    char *const arguments[] = {(char[]){"qemu-img"}, (char[]){"check"}, (char[]){"-q"}, strdup(path), NULL};
    posix_spawn_file_actions_t quietly;
    pid_t child;
    int status;
    posix_spawn_file_actions_init(&quietly);
    posix_spawn_file_actions_addopen(&quietly, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&quietly, 1, 2);
    if (posix_spawnp(&child, "qemu-img", &quietly, NULL, arguments, environ) != 0 || waitpid(child, &status, 0) < 0)
        fail("qemu-img cannot be run");
    if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 3))
        fail("qemu-img check ends with %x", (unsigned)status);
    posix_spawn_file_actions_destroy(&quietly);
    free(arguments[3]);
}

static void check(const char *path, bool *is_lazy, uint64_t *leaks)
{
    struct disk_file file = {.fd = open(path, O_RDONLY | O_CLOEXEC), .path = path, .alignment_bytes = 1};
    struct image_check found = {0};
    struct vial_error err = {0};
    struct disk_shape shape;
    struct image_info info = {0};
    file.is_read_only = true;
    file.size_bytes = (uint64_t)lseek(file.fd, 0, SEEK_END);
    if (qcow2_open(&file, NULL, &shape, &err) < 0)
        fail("%s", err.message);
    qcow2_info(shape.state, &info);
    shape.ops->close(shape.state, NULL);
    *is_lazy = info.is_dirty;
    if (qcow2_check(&file, IMAGE_REPAIR_NONE, NULL, NULL, &found, &err) < 0)
        fail("%s", err.message);
    if (found.corruptions > 0 && !info.is_dirty)
        fail("%llu corruptions", (unsigned long long)found.corruptions);
    *leaks += found.leaks;
    close(file.fd);
}

int torture(const struct disk_options *options, uint64_t seed, uint64_t cycles)
{
    struct disk *disk = open_disk(options);
    struct disk_properties properties;
    disk_describe(disk, &properties);
    disk_free(disk);
    uint64_t sectors = properties.size_bytes / sector_bytes, leaks = 0;
    size_t length = sizeof(struct shared) + sectors * sizeof(struct sector);
    struct shared *shared = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    sigset_t ended;
    if (shared == MAP_FAILED)
        fail("no memory");
    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    sigprocmask(SIG_BLOCK, &ended, NULL);
    for (uint64_t i = 0; i < cycles; i++) {
        bool is_lazy = false;
        int status = 0;
        uint64_t child_seed = next_random(&seed);
        pid_t child = fork();
        if (child == 0)
            run_child(options, shared, sectors, child_seed);
        wait_for_child(1 + next_random(&seed) % 60);
        kill(child, SIGKILL);
        if (waitpid(child, &status, 0) < 0 || !WIFSIGNALED(status))
            fail("a child ended by itself");
        wait_for_child(0); /* the signal of this one is not the next one's */
        verify(options, shared, properties.size_bytes);
        check(options->path, &is_lazy, &leaks);
        if (!is_lazy) /* what is marked dirty is corrupt to whoever does not count anew */
            ask_qemu(options->path);
    }
    printf("%llu kills, %llu flushes, %llu leaks on the way\n", (unsigned long long)cycles,
           (unsigned long long)shared->flushes, (unsigned long long)leaks);
    munmap(shared, length);
    return 0;
}
