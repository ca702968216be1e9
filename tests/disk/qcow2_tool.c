// SPDX-License-Identifier: Apache-2.0
/* What tests/e2e/qcow2 has to do with images that no command of Vial does, or that it must not depend on.
 *
 *     qcow2-tool COMMAND IMAGE [ARGUMENT…] [allow=FORMAT:PATH…] [direct]
 *
 * The commands are in the table at the end. Exit status 1 and a line on standard error when something is wrong.
 */
#include "qcow2_model.h"

#include "base/alloc.h"
#include "disk/qcow2.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { most_allowed = 8 };

static struct disk_options options = {.format = VIAL_DISK_QCOW2};
static struct disk_backing allowed[most_allowed];
static struct vial_error err;

/* ---- helpers ---- */

static uint64_t number(const char *text)
{
    char *end = NULL;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end != '\0')
        fail("%s is no number", text);
    return value;
}

static struct disk *open_disk(bool read_only)
{
    struct disk *disk = NULL;
    options.read_only = read_only;
    if (disk_open(&options, &disk, &err) < 0)
        fail("%s", err.message);
    return disk;
}

static void close_disk(struct disk *disk)
{
    if (disk_close(disk, &err) < 0)
        fail("%s", err.message);
}

static uint64_t size_of(struct disk *disk)
{
    struct disk_properties properties;
    disk_describe(disk, &properties);
    return properties.size_bytes;
}

static uint8_t *map_file(const char *path, uint64_t *size_bytes, bool creates)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | (creates ? O_CREAT | O_TRUNC : 0), 0600);
    struct stat status;
    if (fd < 0 || (creates && ftruncate(fd, (off_t)*size_bytes) < 0) || fstat(fd, &status) < 0)
        fail("%s: %s", path, strerror(errno));
    *size_bytes = (uint64_t)status.st_size;
    uint8_t *bytes = mmap(NULL, *size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (bytes == MAP_FAILED)
        fail("%s: %s", path, strerror(errno));
    close(fd);
    return bytes;
}

/* The format itself, for what is not a disk's business. */
static struct disk_file open_file(bool read_only)
{
    struct disk_file file = {.path = options.path, .alignment_bytes = 1, .is_read_only = read_only};
    file.fd = open(options.path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (file.fd < 0)
        fail("%s: %s", options.path, strerror(errno));
    file.size_bytes = (uint64_t)lseek(file.fd, 0, SEEK_END);
    return file;
}

static struct disk_shape open_shape(const struct disk_file *file)
{
    struct disk_shape shape;
    if (qcow2_open(file, NULL, &shape, &err) < 0)
        fail("%s", err.message);
    return shape;
}

static void close_shape(const struct disk_shape *shape)
{
    if (shape->ops->close(shape->state, &err) < 0)
        fail("%s", err.message);
}

/* ---- commands ---- */

static void run_read(char **arguments)
{
    struct disk *disk = open_disk(true);
    uint64_t size_bytes = size_of(disk);
    read_whole(disk, map_file(arguments[0], &size_bytes, true), size_bytes);
    close_disk(disk);
}

static void run_random(char **arguments)
{
    struct disk *disk = open_disk(false);
    uint64_t size_bytes = 0;
    uint8_t *model = map_file(arguments[0], &size_bytes, false);
    if (size_bytes != size_of(disk))
        fail("the model has another size");
    change_both(disk, model, size_bytes, number(arguments[1]), number(arguments[2]));
    close_disk(disk);
}

static void run_torture(char **arguments)
{
    torture(&options, number(arguments[0]), number(arguments[1]));
}

static void set_option(struct image_create_options *create, const char *option)
{
    unsigned value = 0;
    int read = 0;
    if (sscanf(option, "version=%u%n", &value, &read) == 1 && option[read] == '\0')
        create->version = value;
    else if (sscanf(option, "cluster=%u%n", &value, &read) == 1 && option[read] == '\0')
        create->cluster_bytes = value;
    else if (sscanf(option, "bits=%u%n", &value, &read) == 1 && option[read] == '\0')
        create->refcount_bits = value;
    else if (sscanf(option, "preallocation=%u%n", &value, &read) == 1 && option[read] == '\0')
        create->preallocation = (enum image_preallocation)value;
    else if (strcmp(option, "lazy") == 0)
        create->lazy_refcounts = true;
    else if (strcmp(option, "zstd") == 0)
        create->compression = IMAGE_ZSTD;
    else if (strncmp(option, "backing=", 8) == 0)
        create->backing_path = option + 8;
    else
        fail("unknown option %s", option);
    create->backing_format = VIAL_DISK_QCOW2;
}

static void run_create(char **arguments)
{
    struct image_create_options create = {.path = options.path, .size_bytes = number(arguments[0])};
    int fd = open(options.path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (arguments++; *arguments != NULL; arguments++)
        set_option(&create, *arguments);
    if (qcow2_create(fd, &create, &err) < 0)
        fail("%s", err.message);
    close(fd);
}

static void run_check(char **arguments)
{
    enum image_repair repair = (enum image_repair)number(arguments[0]);
    struct disk_file file = open_file(repair == IMAGE_REPAIR_NONE);
    struct image_check found;
    if (qcow2_check(&file, repair, NULL, NULL, &found, &err) < 0)
        fail("%s", err.message);
    printf("leaks=%llu corruptions=%llu fixed=%llu,%llu allocated=%llu compressed=%llu end=%llu\n",
           (unsigned long long)found.leaks, (unsigned long long)found.corruptions,
           (unsigned long long)found.leaks_fixed, (unsigned long long)found.corruptions_fixed,
           (unsigned long long)found.allocated_clusters, (unsigned long long)found.compressed_clusters,
           (unsigned long long)found.end_offset);
    if (found.corruptions > 0 || found.leaks > 0)
        exit(found.corruptions > 0 ? 2 : 3);
}

static void run_compress(char **arguments)
{
    struct disk_file file = open_file(false);
    struct disk_shape shape = open_shape(&file);
    uint64_t size_bytes = 0, cluster = shape.properties.best_bytes;
    uint8_t *bytes = map_file(arguments[0], &size_bytes, false);
    for (uint64_t at = 0; at < size_bytes; at += cluster) {
        int result = qcow2_compress_cluster(shape.state, bytes + at, at);
        if (result < 0)
            fail("compressing at %llu: %s", (unsigned long long)at, strerror(-result));
    }
    close_shape(&shape);
}

static void run_snapshot(char **arguments)
{
    struct disk_file file = open_file(false);
    struct disk_shape shape = open_shape(&file);
    struct image_snapshot *list = NULL;
    size_t count = 0;
    int result = 0;
    if (strcmp(arguments[0], "create") == 0)
        result = qcow2_snapshot_create(shape.state, arguments[1], &err);
    else if (strcmp(arguments[0], "apply") == 0)
        result = qcow2_snapshot_apply(shape.state, arguments[1], &err);
    else if (strcmp(arguments[0], "remove") == 0)
        result = qcow2_snapshot_remove(shape.state, arguments[1], &err);
    if (result < 0)
        fail("%s", err.message);
    qcow2_snapshot_list(shape.state, &list, &count, &err);
    for (size_t i = 0; i < count; i++)
        printf("%s %s %llu\n", list[i].id, list[i].name, (unsigned long long)list[i].disk_bytes);
    free(list);
    close_shape(&shape);
}

static void run_resize(char **arguments)
{
    struct disk *disk = open_disk(false);
    if (disk_resize(disk, number(arguments[0]), true, &err) < 0)
        fail("%s", err.message);
    close_disk(disk);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Sequential writes of that many bytes each over the whole disk, flushed at the end. */
static void run_bench(char **arguments)
{
    struct disk *disk = open_disk(false);
    uint64_t size_bytes = size_of(disk), step = number(arguments[0]);
    uint8_t *memory = calloc(1, step + 4096), *bytes = memory + (-(uintptr_t)memory & 4095);
    memset(bytes, 0x5a, step);
    double begin = seconds();
    for (uint64_t at = 0; at + step <= size_bytes; at += step) {
        const struct iovec part = {bytes, step};
        int result = disk_write(disk, &part, 1, at);
        if (result < 0)
            fail("writing at %llu: %s", (unsigned long long)at, strerror(-result));
    }
    double written = seconds();
    if (disk_flush(disk) < 0)
        fail("flushing failed");
    printf("%.0f MiB/s, %.0f with the flush\n", (double)size_bytes / 1048576 / (written - begin),
           (double)size_bytes / 1048576 / (seconds() - begin));
    free(memory);
    close_disk(disk);
}

static const struct {
    const char *name, *arguments;
    int least;
    void (*run)(char **arguments);
} commands[] = {
    {"read", "OUTPUT", 1, run_read},
    {"random", "MODEL SEED COUNT", 3, run_random},
    {"torture", "SEED CYCLES", 2, run_torture},
    {"create", "BYTES [OPTION…]", 1, run_create},
    {"check", "REPAIR", 1, run_check},
    {"compress", "RAW", 1, run_compress},
    {"snapshot", "create|apply|remove|list NAME", 1, run_snapshot},
    {"resize", "BYTES", 1, run_resize},
    {"bench", "BYTES", 1, run_bench},
};

/* Takes what is meant for every command out of the arguments; returns how many are left. */
static int take_options(int count, char **arguments)
{
    int left = 0;
    for (int i = 0; i < count; i++) {
        char *path = strchr(arguments[i], ':');
        if (strcmp(arguments[i], "direct") == 0) {
            options.direct_io = true;
        } else if (strncmp(arguments[i], "allow=", 6) == 0 && path != NULL && options.backing_count < most_allowed) {
            bool is_raw = strncmp(arguments[i] + 6, "raw:", 4) == 0;
            allowed[options.backing_count++] = (struct disk_backing){path + 1,
                                                                     is_raw ? VIAL_DISK_RAW : VIAL_DISK_QCOW2};
        } else {
            arguments[left++] = arguments[i];
        }
    }
    arguments[left] = NULL;
    options.backing = allowed;
    return left;
}

int main(int count, char **arguments)
{
    vial_log_to_fd(2, VIAL_LOG_WARN, VIAL_LOG_STYLE_NEVER, NULL);
    count = take_options(count, arguments);
    for (size_t i = 0; count >= 3 && i < array_length(commands); i++)
        if (strcmp(arguments[1], commands[i].name) == 0 && count - 3 >= commands[i].least) {
            options.path = arguments[2];
            commands[i].run(arguments + 3);
            return 0;
        }
    for (size_t i = 0; i < array_length(commands); i++)
        fprintf(stderr, "qcow2-tool %s IMAGE %s\n", commands[i].name, commands[i].arguments);
    return 2;
}
