// SPDX-License-Identifier: Apache-2.0
/* guest-files: many small files, made, listed, renamed and removed, with what each of that took.
 *
 *     guest-files check FOLDER COUNT    with a comparison of every step's result; exit status 1 where one is not right
 *     guest-files time FOLDER COUNT     microseconds for each operation, one line each: "stat 3.21"
 *
 * Files lie in subfolders of a thousand. The times are for one process that does one thing after the other; "stat" and
 * "open" are of names that nobody has looked up yet, as the guest's caches are dropped before.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { folder_files = 1000, list_rounds = 15 };

static unsigned long count;

static _Noreturn void fail(const char *what, const char *name)
{
    printf("FAILED: %s %s: %s\n", what, name, strerror(errno));
    exit(1);
}

static void name_of(unsigned long number, const char *prefix, char name[64])
{
    snprintf(name, 64, "%lu/%s%lu", number / folder_files, prefix, number);
}

static void make(unsigned long number)
{
    char name[64];
    if (number % folder_files == 0) {
        snprintf(name, sizeof(name), "%lu", number / folder_files);
        if (mkdir(name, 0755) < 0)
            fail("mkdir", name);
    }
    name_of(number, "file-", name);
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600 + (mode_t)(number % 64));
    if (fd < 0)
        fail("create", name);
    if (write(fd, &number, sizeof(number)) != sizeof(number) || close(fd) < 0)
        fail("write", name);
}

static void look(unsigned long number)
{
    char name[64];
    struct stat status;
    name_of(number, "file-", name);
    if (stat(name, &status) < 0)
        fail("stat", name);
    errno = 0;
    if (status.st_size != sizeof(number) || (status.st_mode & 0777) != 0600 + number % 64)
        fail("another file at", name);
}

static void open_one(unsigned long number)
{
    char name[64];
    name_of(number, "file-", name);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || close(fd) < 0)
        fail("open", name);
}

static void read_one(unsigned long number)
{
    char name[64];
    unsigned long found = 0;
    name_of(number, "file-", name);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, &found, sizeof(found)) != sizeof(found) || found != number || close(fd) < 0)
        fail("read", name);
}

static void move(unsigned long number)
{
    char name[64], other[64];
    name_of(number, "file-", name);
    name_of(number, "moved-", other);
    if (rename(name, other) < 0)
        fail("rename", name);
}

static void drop(unsigned long number)
{
    char name[64];
    name_of(number, "moved-", name);
    if (unlink(name) < 0)
        fail("unlink", name);
    if (number % folder_files == folder_files - 1 || number == count - 1) {
        snprintf(name, sizeof(name), "%lu", number / folder_files);
        if (rmdir(name) < 0)
            fail("rmdir", name);
    }
}

/* Every file exactly once, whatever the order. */
static void list(const char *prefix)
{
    unsigned char *seen = calloc(1, count);
    unsigned long found = 0;
    for (unsigned long folder = 0; folder * folder_files < count; folder++) {
        char name[64];
        snprintf(name, sizeof(name), "%lu", folder);
        DIR *open_folder = opendir(name);
        if (open_folder == NULL || seen == NULL)
            fail("opendir", name);
        for (struct dirent *entry; (entry = readdir(open_folder)) != NULL;) {
            if (entry->d_name[0] == '.')
                continue;
            errno = 0;
            if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
                fail("unexpected", entry->d_name);
            unsigned long number = strtoul(entry->d_name + strlen(prefix), NULL, 10);
            if (number >= count || seen[number]++ != 0)
                fail("twice", entry->d_name);
            found++;
        }
        closedir(open_folder);
    }
    errno = 0;
    if (found != count)
        fail("some are not listed below", prefix);
    free(seen);
}

static void drop_caches(void)
{
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    sync();
    if (fd >= 0 && write(fd, "3\n", 2) == 2)
        close(fd);
}

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void each(const char *what, void (*run)(unsigned long), bool is_cold)
{
    if (is_cold)
        drop_caches();
    double start = now_us();
    for (unsigned long i = 0; i < count; i++)
        run(i);
    printf("%s %.2f\n", what, (now_us() - start) / (double)count);
    fflush(stdout);
}

static int compare(const void *a, const void *b)
{
    double first = *(const double *)a, second = *(const double *)b;
    return (first > second) - (first < second);
}

/* One listing is so short that whatever else happens then decides what it took: the median of some. */
static void list_all(const char *what, const char *prefix, unsigned rounds)
{
    double took[list_rounds];
    for (unsigned i = 0; i < rounds; i++) {
        drop_caches();
        double start = now_us();
        list(prefix);
        took[i] = now_us() - start;
    }
    qsort(took, rounds, sizeof(took[0]), compare);
    printf("%s %.2f\n", what, took[rounds / 2] / (double)count);
    fflush(stdout);
}

int main(int argument_count, char **arguments)
{
    bool checks = argument_count == 4 && strcmp(arguments[1], "check") == 0;
    if (argument_count != 4 || (!checks && strcmp(arguments[1], "time") != 0)) {
        printf("usage: guest-files check|time FOLDER COUNT\n");
        return 2;
    }
    count = strtoul(arguments[3], NULL, 10);
    umask(0); /* modes are compared */
    if (count == 0 || chdir(arguments[2]) < 0)
        fail("chdir", arguments[2]);
    each("create", make, false);
    list_all("list", "file-", checks ? 1 : list_rounds);
    each("stat", look, true);
    each("open", open_one, true);
    if (checks)
        each("read", read_one, false);
    each("rename", move, false);
    if (checks)
        list_all("list-again", "moved-", 1);
    each("unlink", drop, false);
    return 0;
}
